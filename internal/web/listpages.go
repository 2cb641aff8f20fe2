package web

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What one page shows at most; there may be 65,536 subjects on 43 lists.
const (
	cardsAtMost    = 50  // subjects that are listed, with what is said of each
	subjectsAtOnce = 100 // a page of those that are watched
	changesAtOnce  = 100
	changesAtMost  = 1000
)

// A listsView is what lists.html shows.
type listsView struct {
	Off      bool // no lists are watched
	Distrust string
	Worst    string // level of the most exposed subject
	Listed   int    // subjects that a list has
	Doubtful int    // those that it may have
	Unknown  int    // those about which no list can tell
	Believed int    // lists that are
	Cards    []subjectView
	More     int // listed subjects that have no card
	Watched  watchedView
	Lists    []listView
}

// A subjectView is one subject and what lists say of it.
type subjectView struct {
	ListSubject
	Percent  int    // exposure
	Level    string // of it, in a word
	Verdict  string // in short: listed, suspected, clean, unknown
	Listings []listingView
	History  string // address of its history
}

// A listingView is one listing.
type listingView struct {
	Listing
	Title  string
	Stage  string // in words
	Since  moment
	Link   string // for its removal; empty: none that may be followed
	Host   string // that the link leads to
	Frozen string // why the list is not believed now; empty: it is
}

// A watchedView is one page of what is watched.
type watchedView struct {
	Rows   []subjectView
	All    int // watched
	Found  int // that the filter selects
	Find   string
	Listed bool // the filter wants what is listed only
	Page   int  // from 1 on
	Pages  int
	From   int // first row's number, from 1 on
	To     int
	Prev   string // address of the page before; empty: none
	Next   string
	First  string
	Last   string
}

// A listView is how one list fares.
type listView struct {
	ListState
	Since   moment
	Verdict string // in short: believed, slow, untested, broken
	Words   string
	History string
}

func (s *Server) listsPage(w http.ResponseWriter, r *http.Request) {
	if s.Lists == nil {
		s.page(w, r, http.StatusOK, "lists", "Block lists", listsView{Off: true})
		return
	}
	now, err := s.Lists.Lists(r.Context())
	if err != nil {
		s.trouble(w, r, http.StatusInternalServerError, err)
		return
	}
	s.page(w, r, http.StatusOK, "lists", "Block lists", viewLists(now, r.URL.Query(), time.Now()))
}

// viewLists selects what a page shows of the lists.
func viewLists(now ListsNow, query url.Values, at time.Time) listsView {
	v := listsView{Distrust: now.Distrust, Lists: viewStates(now, at), Worst: "none"}
	states := map[string]listView{}
	for _, l := range v.Lists {
		states[l.List] = l
		if l.believed() {
			v.Believed++
		}
	}
	for _, subject := range now.Subjects {
		switch verdictOf(subject) {
		case "listed":
			v.Listed++
		case "suspected":
			v.Doubtful++
		case "unknown":
			v.Unknown++
			continue
		default:
			continue
		}
		if len(v.Cards) == 0 {
			v.Worst = subject.Level
		}
		if len(v.Cards) < cardsAtMost {
			v.Cards = append(v.Cards, viewSubject(subject, states, at))
		}
	}
	v.More = v.Listed + v.Doubtful - len(v.Cards)
	v.Watched = viewWatched(now.Subjects, states, query, at)
	return v
}

// Blind reports whether no list can tell about anything.
func (v listsView) Blind() bool { return v.Believed == 0 || v.Unknown == v.Watched.All }

// certain reports whether the subject is on the list, and not only may be.
func (l Listing) certain() bool { return l.Stage != "SUSPECT" }

// levelWords are the levels as alerts call them.
var levelWords = map[string]string{"none": "none", "note": "information", "warn": "warning", "page": "critical"}

func viewSubject(subject ListSubject, states map[string]listView, at time.Time) subjectView {
	v := subjectView{
		ListSubject: subject, Percent: percent(subject.Exposure), Level: cmp.Or(levelWords[subject.Level], subject.Level),
		History: historyOf("subject", subject.Subject), Verdict: verdictOf(subject),
	}
	for _, l := range subject.Listings {
		v.Listings = append(v.Listings, viewListing(l, states[l.List], at))
	}
	return v
}

// Shown are the listings that a row has room for.
func (v subjectView) Shown() []listingView { return v.Listings[:min(len(v.Listings), 5)] }

// Hidden counts the others.
func (v subjectView) Hidden() int { return len(v.Listings) - len(v.Shown()) }

// verdictOf is one of the three answers about a subject, or that the first of two says listed.
func verdictOf(s ListSubject) string {
	switch {
	case slices.ContainsFunc(s.Listings, Listing.certain):
		return "listed"
	case len(s.Listings) > 0:
		return "suspected"
	case s.Clean > 0:
		return "clean"
	}
	return "unknown"
}

func percent(exposure float64) int {
	if !(exposure > 0) { // it may be no number
		return 0
	}
	return int(math.Round(100 * min(exposure, 1)))
}

// stageWords are the stages of a listing.
var stageWords = map[string]string{
	"LISTED": "listed", "SUSPECT": "suspected: nobody has confirmed it yet", "CLEARING": "on its way off: a first answer says clean",
}

func viewListing(l Listing, list listView, at time.Time) listingView {
	v := listingView{Listing: l, Title: cmp.Or(list.Title, l.List), Stage: cmp.Or(stageWords[l.Stage], l.Stage), Since: moment{l.Since, at}}
	v.Link, v.Host = outward(l.Delist)
	if !list.believed() {
		v.Frozen = cmp.Or(list.Words, "no longer watched")
	}
	return v
}

// outward returns link and its host if a person may be sent there: by http or
// https, with a plain host name and no user.
func outward(link string) (string, string) {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Hostname() == "" {
		return "", ""
	}
	if strings.ContainsFunc(u.Hostname(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", ""
	}
	return link, u.Host
}

// viewWatched is the page that the query asks for: q is a part of the
// subject, or a network; listed wants only those; page counts from 1.
func viewWatched(all []ListSubject, states map[string]listView, query url.Values, at time.Time) watchedView {
	v := watchedView{All: len(all), Find: clip(strings.TrimSpace(query.Get("q")), 300), Listed: query.Get("listed") != ""}
	wants := wanting(v.Find)
	var found []ListSubject
	for _, s := range all {
		if wants(s.Subject) && (!v.Listed || len(s.Listings) > 0) {
			found = append(found, s)
		}
	}
	v.Found, v.Pages = len(found), max(1, (len(found)+subjectsAtOnce-1)/subjectsAtOnce)
	n, _ := strconv.Atoi(query.Get("page"))
	v.Page = min(max(n, 1), v.Pages)
	from := (v.Page - 1) * subjectsAtOnce
	to := min(from+subjectsAtOnce, len(found))
	v.From, v.To = min(from+1, to), to
	for _, s := range found[from:to] {
		v.Rows = append(v.Rows, viewSubject(s, states, at))
	}
	if v.Page > 1 {
		v.First, v.Prev = v.address(1), v.address(v.Page-1)
	}
	if v.Page < v.Pages {
		v.Next, v.Last = v.address(v.Page+1), v.address(v.Pages)
	}
	return v
}

// address is that of another page of the same selection.
func (v watchedView) address(page int) string {
	q := url.Values{"page": {strconv.Itoa(page)}}
	if v.Find != "" {
		q.Set("q", v.Find)
	}
	if v.Listed {
		q.Set("listed", "1")
	}
	return "/lists?" + q.Encode() + "#watched"
}

// wanting returns whether a subject is meant by find: it contains it, or is in that network.
func wanting(find string) func(subject string) bool {
	if p, err := netip.ParsePrefix(find); err == nil {
		return func(subject string) bool {
			addr, err := netip.ParseAddr(subject)
			return err == nil && p.Contains(addr) || subject == find
		}
	}
	if addr, err := netip.ParseAddr(find); err == nil {
		find = addr.String()
	}
	find = strings.ToLower(find)
	return func(subject string) bool { return strings.Contains(strings.ToLower(subject), find) }
}

// clip returns at most n bytes of s, without half a character at the end.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// A wording is what a list's state means for who reads it.
type wording struct{ verdict, words string }

// stateWords are the states of a list, those first that a person has to look at.
var stateWords = map[string]wording{
	"REFUSED":  {"broken", "refuses to answer us"},
	"EMPTY":    {"broken", "its data are gone"},
	"WILDCARD": {"broken", "lists what cannot be listed"},
	"SUSPECT":  {"broken", "looks like a parked domain"},
	"OFFLINE":  {"broken", "does not answer"},
	"UNTESTED": {"untested", "not tested yet"},
	"NO_KEY":   {"untested", "not tested: needs a key"},
	"DEGRADED": {"slow", "believed, but slow or failing at times"},
	"HEALTHY":  {"believed", "believed"},
}

// verdicts are in the order in which lists are shown.
var verdicts = []string{"broken", "untested", "slow", "believed"}

func (l listView) believed() bool { return l.Verdict == "believed" || l.Verdict == "slow" }

// viewStates has the lists in the order of verdicts. Those that are not asked are not
// believed, however well they were.
func viewStates(now ListsNow, at time.Time) (views []listView) {
	for _, l := range now.Lists {
		w, ok := stateWords[l.State]
		switch {
		case !ok:
			w = wording{"untested", l.State}
		case l.State == "NO_KEY" && l.Text != "":
			w.words, l.Text = l.Text, ""
		case now.Distrust != "" && (w.verdict == "believed" || w.verdict == "slow"):
			w = wording{"untested", "not asked now"}
		}
		views = append(views, listView{
			ListState: l, Since: moment{l.Since, at}, Verdict: w.verdict, Words: w.words, History: historyOf("list", l.List),
		})
	}
	slices.SortStableFunc(views, func(a, b listView) int {
		return cmp.Or(cmp.Compare(slices.Index(verdicts, a.Verdict), slices.Index(verdicts, b.Verdict)), cmp.Compare(a.State, b.State))
	})
	return views
}

// A historyView is what history.html shows.
type historyView struct {
	Off           bool
	Subject, List string
	Changes       []changeView
	More          string // address of the same with more changes; empty: there are no more, or too many
	Full          bool   // there may be more than a page shows
	Error         string
}

// About is the address of a subject's history.
func (historyView) About(subject string) string { return historyOf("subject", subject) }

// On is the address of a list's history.
func (historyView) On(list string) string { return historyOf("list", list) }

func historyOf(what, name string) string {
	return "/lists/history?" + url.Values{what: {name}}.Encode()
}

// A changeView is one change.
type changeView struct {
	ListChange
	At      moment
	Since   moment
	Verdict string // in short: worse, better, note
	Words   string
	Link    string
	Host    string
}

// kindWords are the kinds of changes.
var kindWords = map[string]wording{
	"suspected":    {"note", "suspected: a first answer says listed"},
	"dismissed":    {"better", "not confirmed"},
	"listed":       {"worse", "listed"},
	"recoded":      {"worse", "listed with other codes"},
	"clearing":     {"note", "a first answer says clean"},
	"relapsed":     {"worse", "listed after all"},
	"flapping":     {"worse", "comes and goes"},
	"cleared":      {"better", "off the list"},
	"unwatched":    {"note", "no longer watched"},
	"welcomed":     {"better", "known as a good sender"},
	"welcome-lost": {"note", "no longer known as a good sender"},
	"unknown-code": {"note", "a code that the list does not document"},
	"list-state":   {"note", "the list"},
	"mass-listing": {"note", "the list names many at once"},
	"redelegated":  {"note", "the list has other servers"},
	"removal-due":  {"note", "the list has been broken for long"},
}

func (s *Server) historyPage(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v := historyView{Off: s.Lists == nil, Subject: clip(strings.TrimSpace(q.Get("subject")), 300), List: clip(strings.TrimSpace(q.Get("list")), 100)}
	code := http.StatusOK
	if !v.Off {
		n := min(limit(r, changesAtOnce), changesAtMost)
		rows, err := s.Lists.ListHistory(r.Context(), ListQuery{Subject: v.Subject, List: v.List, Limit: n})
		switch {
		case errors.Is(err, ErrInvalid):
			code, v.Error = http.StatusBadRequest, err.Error()
		case err != nil:
			s.trouble(w, r, http.StatusInternalServerError, err)
			return
		}
		v.show(rows, n, time.Now())
	}
	s.page(w, r, code, "history", "History of block lists", v)
}

// show adds the changes, n at most.
func (v *historyView) show(rows []ListChange, n int, at time.Time) {
	for _, c := range rows[:min(len(rows), n)] {
		k, ok := kindWords[c.Kind]
		if !ok {
			k = wording{"note", c.Kind}
		}
		if c.State != "" {
			k = wording{"note", cmp.Or(stateWords[c.State].words, c.State)}
		}
		switch {
		case c.Kind == "flapping":
			k.words += fmt.Sprintf(": %d times in a day", c.Count)
		case c.Kind == "mass-listing":
			k.words += fmt.Sprintf(": %d networks or domains", c.Count)
		}
		if c.Since.Sub(c.Time).Abs() < time.Minute {
			c.Since = time.Time{} // the change itself says when
		}
		row := changeView{ListChange: c, At: moment{c.Time, at}, Since: moment{c.Since, at}, Verdict: k.verdict, Words: k.words}
		row.Link, row.Host = outward(c.Delist)
		v.Changes = append(v.Changes, row)
	}
	v.Full = len(rows) >= n
	if v.Full && n < changesAtMost {
		v.More = "/lists/history?" + url.Values{"subject": {v.Subject}, "list": {v.List}, "limit": {strconv.Itoa(changesAtMost)}}.Encode()
	}
}
