package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Lists are the block lists that are watched, as this package needs them.
type Lists interface {
	Lists(ctx context.Context) (ListsNow, error)
	ListHistory(ctx context.Context, q ListQuery) ([]ListChange, error)
	ListRemoval(ctx context.Context, q ListQuery) (ListRemovals, error)
}

// ListsNow is how the block lists fare, and what stands on them.
type ListsNow struct {
	Distrust string        `json:"distrust,omitempty"` // why no list is asked; empty: they are
	Watched  int           `json:"watched"`            // how many subjects are
	Subjects []ListSubject `json:"subjects"`           // those, the most exposed first; of the API at most limit, 1,000 unless it is asked for
	Lists    []ListState   `json:"lists"`
}

// A ListSubject is an address or domain that is watched.
type ListSubject struct {
	Subject  string    `json:"subject"`
	Found    string    `json:"found"`    // how it came to be watched
	Exposure float64   `json:"exposure"` // 0 to 1
	Level    string    `json:"level"`    // none, note, warn, page; none is clean only where no list is unknown
	Clean    int       `json:"clean"`    // lists that say that it is not on them
	Listings []Listing `json:"listings"` // those that it is on, or may be

	Unknown []string  `json:"unknown,omitempty"` // lists of which nobody can tell now whether it is on them
	Checked time.Time `json:"checked,omitzero"`  // the latest usable answer of any list
}

// A Listing is a subject on a list.
type Listing struct {
	List    string    `json:"list"`
	Stage   string    `json:"stage"` // SUSPECT, LISTED, CLEARING
	Since   time.Time `json:"since"`
	Codes   []string  `json:"codes"`
	Meaning string    `json:"meaning"`
	Scope   string    `json:"scope,omitempty"`
	Reason  string    `json:"reason,omitempty"` // a stranger's text, on one line
	Delist  string    `json:"delist,omitempty"` // http or https, of the list's own domain
}

// A ListState is how one list fares.
type ListState struct {
	List  string    `json:"list"`
	Title string    `json:"title"`
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"`
	Text  string    `json:"text,omitempty"`  // what is wrong
	Terms string    `json:"terms,omitempty"` // on which it may be asked
	Asked int       `json:"asked_today"`
}

// A ListQuery selects changes; its zero value selects the newest 100.
type ListQuery struct {
	Subject string
	List    string
	Limit   int
}

// A ListChange is one change: of a subject on a list, or of a list.
type ListChange struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"` // suspected, dismissed, listed, recoded, clearing, relapsed, flapping, cleared, welcomed, welcome-lost, unknown-code, list-state, …
	List    string    `json:"list"`
	Subject string    `json:"subject,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Codes   []string  `json:"codes,omitempty"`
	Meaning string    `json:"meaning,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Delist  string    `json:"delist,omitempty"`
	Server  string    `json:"server,omitempty"` // who confirmed it
	State   string    `json:"state,omitempty"`  // of the list, for list-state
	Count   int       `json:"count,omitempty"`
	Text    string    `json:"text,omitempty"`
}

// ListRemovals is how an address or domain comes off the lists that have it.
type ListRemovals struct {
	Subject string        `json:"subject"`
	NotYet  []string      `json:"not_yet,omitempty"` // why no list should be asked now
	Lists   []ListRemoval `json:"lists,omitempty"`   // none: it is on no list
}

// A ListRemoval is how an entry of one list is removed.
type ListRemoval struct {
	List  string    `json:"list"`
	Title string    `json:"title"`
	Since time.Time `json:"since"`
	Page  string    `json:"page,omitempty"`  // where to ask
	Wait  string    `json:"wait,omitempty"`  // why not to ask
	Notes string    `json:"notes,omitempty"` // about the list
	Text  string    `json:"text,omitempty"`  // to ask with, for a person to paste
}

var errNoLists = errors.New("no block lists are watched: dnsbl.watch is not set")

func (s *Server) lists(w http.ResponseWriter, r *http.Request) {
	if s.Lists == nil {
		s.refuse(w, http.StatusNotFound, errNoLists)
		return
	}
	now, err := s.Lists.Lists(r.Context())
	now.Subjects = now.Subjects[:min(len(now.Subjects), limit(r, 1000))]
	s.reply(w, now, err)
}

func (s *Server) listHistory(w http.ResponseWriter, r *http.Request) {
	if s.Lists == nil {
		s.refuse(w, http.StatusNotFound, errNoLists)
		return
	}
	q := r.URL.Query()
	rows, err := s.Lists.ListHistory(r.Context(), ListQuery{Subject: q.Get("subject"), List: q.Get("list"), Limit: limit(r, 100)})
	s.reply(w, rows, err)
}

func (s *Server) listRemoval(w http.ResponseWriter, r *http.Request) {
	if s.Lists == nil {
		s.refuse(w, http.StatusNotFound, errNoLists)
		return
	}
	q := r.URL.Query()
	removals, err := s.Lists.ListRemoval(r.Context(), ListQuery{Subject: q.Get("subject"), List: q.Get("list")})
	s.reply(w, removals, err)
}

// Lists asks how the block lists fare.
func (c *Client) Lists(ctx context.Context) (ListsNow, error) {
	var now ListsNow
	err := c.get(ctx, "/api/v1/lists", nil, &now)
	return now, err
}

// ListHistory asks for changes on block lists, the newest first.
func (c *Client) ListHistory(ctx context.Context, q ListQuery) ([]ListChange, error) {
	var rows []ListChange
	err := c.get(ctx, "/api/v1/lists/history", url.Values{"subject": {q.Subject}, "list": {q.List}, "limit": {strconv.Itoa(q.Limit)}}, &rows)
	return rows, err
}

// ListRemoval asks how an address or domain comes off a list, or off all.
func (c *Client) ListRemoval(ctx context.Context, q ListQuery) (ListRemovals, error) {
	var removals ListRemovals
	err := c.get(ctx, "/api/v1/lists/removal", url.Values{"subject": {q.Subject}, "list": {q.List}}, &removals)
	return removals, err
}
