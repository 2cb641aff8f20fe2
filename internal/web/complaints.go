package web

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Complaints takes what feedback loops send, as this package needs it.
type Complaints interface {
	Complain(ctx context.Context, c Complaint) (ComplaintResult, error)
}

// A Complaint is what `vedetta complaint` read in a message. All of it is a
// stranger's text.
type Complaint struct {
	Problem   string `json:"problem,omitempty"` // why it is no complaint; the rest is empty then
	Type      string `json:"type,omitempty"`    // Feedback-Type; empty where the message was only attached
	Agent     string `json:"agent,omitempty"`
	Source    string `json:"source,omitempty"` // address
	Sender    string `json:"sender,omitempty"`
	Domain    string `json:"domain,omitempty"`
	Arrival   string `json:"arrival,omitempty"`
	MessageID string `json:"message_id,omitempty"`
	Hops      []Hop  `json:"hops,omitempty"` // the newest first
}

// A Hop is a server through which the message went, by its Received lines.
type Hop struct {
	By   string    `json:"by"`
	ID   string    `json:"id"` // queue id
	Time time.Time `json:"time"`
}

// A ComplaintResult says what a complaint was worth.
type ComplaintResult struct {
	Result  string `json:"result"`            // counted, repeated, released, unknown, other, unreadable
	Account string `json:"account,omitempty"` // whose message it is about, where that is known
}

var errNoComplaints = errors.New("complaints do not count here: dnsbl.risk.complaints is not set; of a fleet, the hub takes them")

func (s *Server) complain(w http.ResponseWriter, r *http.Request) {
	if s.Complaints == nil {
		s.refuse(w, http.StatusNotFound, errNoComplaints)
		return
	}
	var c Complaint
	if !s.order(w, r, &c) {
		return
	}
	result, err := s.Complaints.Complain(r.Context(), c)
	s.reply(w, result, err)
}

// Complain hands a complaint in.
func (c *Client) Complain(ctx context.Context, complaint Complaint) (result ComplaintResult, err error) {
	err = c.post(ctx, "/api/v1/complaints", complaint, &result)
	return result, err
}
