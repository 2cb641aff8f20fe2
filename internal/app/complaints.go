package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/intake"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
)

// ReadComplaint reads a message of a feedback loop, for a running service. It
// returns what is no complaint as one with a Problem. An error is one of r's.
func ReadComplaint(r io.Reader) (Complaint, error) {
	c, err := intake.ParseComplaint(r)
	if errors.Is(err, intake.ErrNoComplaint) {
		return Complaint{Problem: err.Error()}, nil
	}
	if err != nil {
		return Complaint{}, err
	}
	read := Complaint{Type: c.Type, Agent: c.Agent, Sender: c.Sender, Domain: c.Domain, Arrival: c.Arrival, MessageID: c.MessageID}
	if c.Source.IsValid() {
		read.Source = c.Source.String()
	}
	for _, h := range c.Hops {
		read.Hops = append(read.Hops, web.Hop(h))
	}
	return read, nil
}

// complaintDesk takes complaints from the API.
type complaintDesk struct{ *pipeline }

// complaintDesk is nil where complaints do not count.
func (s *service) complaintDesk() web.Complaints {
	if s.judge.risk == nil || s.judge.risk.Sent == nil {
		return nil
	}
	return complaintDesk{s.pipeline}
}

// restoreSent puts back what is known of messages that left, if complaints count.
func (s *service) restoreSent(ctx context.Context) error {
	if s.complaintDesk() == nil {
		return nil
	}
	changes := spoilt{of: "messages that left"}
	if err := s.store.LoadSent(ctx, func(state []byte) error {
		changes.add(s.judge.risk.Sent.Restore(state))
		return nil
	}); err != nil {
		return fmt.Errorf("messages that left: %w", err)
	}
	changes.tell(s.log)
	return nil
}

// The results of complaints that the detector is not asked about. It has others.
const (
	complaintOther      = "other"      // feedback that blames nobody
	complaintUnreadable = "unreadable" // mail of another kind
)

// maxHandled is how many Received lines are looked up.
const maxHandled = 16

// Complain implements web.Complaints.
func (d complaintDesk) Complain(ctx context.Context, c web.Complaint) (result web.ComplaintResult, err error) {
	switch {
	case c.Problem != "":
		result.Result = complaintUnreadable
	case !intake.Complaint{Type: c.Type}.IsBlame():
		result.Result = complaintOther
	default:
		if result, err = d.count(ctx, c); err != nil {
			return result, err
		}
	}
	d.metrics.complaints.WithLabelValues(result.Result).Inc()
	d.log.Info("complaint", "result", result.Result, "account", result.Account, "type", c.Type, "agent", c.Agent, "source", c.Source,
		"sender", c.Sender, "domain", c.Domain, "arrival", c.Arrival, "message_id", c.MessageID, "problem", c.Problem)
	return result, nil
}

// count has observe count a complaint.
func (d complaintDesk) count(ctx context.Context, c web.Complaint) (web.ComplaintResult, error) {
	var by []detector.Handled
	for _, h := range c.Hops[:min(len(c.Hops), maxHandled)] {
		by = append(by, detector.Handled{ID: h.ID, Time: h.Time})
	}
	var account mailq.Account
	var result detector.ComplaintResult
	err := d.inObserve(ctx, func() {
		account, result = d.complained(by, time.Now())
	})
	if err != nil {
		return web.ComplaintResult{}, err // account and result are observe's still
	}
	return web.ComplaintResult{Result: result.String(), Account: string(account)}, nil
}

// complained judges a complaint. It runs in observe.
func (p *pipeline) complained(by []detector.Handled, now time.Time) (mailq.Account, detector.ComplaintResult) {
	account, result, found := p.judge.risk.Complain(by, now)
	for _, f := range found {
		p.found(f)
	}
	p.lists.setRisk(p.judge.risk, now)
	p.dirty = true
	return account, result
}
