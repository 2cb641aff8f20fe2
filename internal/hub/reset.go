package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// A Reset is what an order says of the account's password. The zero Reset: that
// the agent leaves it alone.
type Reset struct {
	ID    string `json:"id"`             // of the decision to give the account a new one
	Done  bool   `json:"done,omitempty"` // it has a new one: its sessions are to be ended; otherwise the agent is to give it one
	Agent string `json:"-"`              // which is asked to; empty where it is Done
}

// Reset says r of the subject's password, as long as something is in force for
// the subject. It returns false where nothing is.
func (b *Board) Reset(subject string, r Reset) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.orders[subject]
	if ok {
		b.resetLocked(subject, r)
	}
	return ok
}

// Unask takes back that an agent is asked for the reset with that ID.
func (b *Board) Unask(subject, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.orders[subject].Reset; r.ID == id && !r.Done {
		b.resetLocked(subject, Reset{})
	}
}

func (b *Board) resetLocked(subject string, r Reset) {
	if o := b.orders[subject]; o.Reset != r {
		o.Reset = r
		b.orders[subject] = o
		b.changedLocked(subject)
	}
}

// A ResetReport is what became of a reset at an agent. The password stays there.
type ResetReport struct {
	ID       string `json:"id"`                 // of the decision
	Declined bool   `json:"declined,omitempty"` // the account's password is not at this agent's; nothing was done
	OK       bool   `json:"ok,omitempty"`       // all of it was done
	Changed  bool   `json:"changed,omitempty"`  // the old password is not valid any more
	Given    bool   `json:"given,omitempty"`    // the new one was handed over
	Detail   string `json:"detail,omitempty"`   // for people
}

// Bounds of a report, in bytes.
const (
	maxReport = 16 << 10
	maxDetail = 1024
)

// ResetDone tells the hub what became of a reset that it had asked for.
func (c *Client) ResetDone(ctx context.Context, r ResetReport) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var heard struct{}
	_, err = c.post(ctx, "/v1/resets", body, &heard)
	return err
}

func (s *Server) resetDone(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(memberKey{}).(caller)
	var report ResetReport
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReport)).Decode(&report); err != nil {
		s.refuse(w, r, http.StatusBadRequest, fmt.Errorf("report of a reset: %w", err))
		return
	}
	report.ID, report.Detail = plain(report.ID, maxWord), plain(report.Detail, maxDetail)
	if err := s.ResetDone(r.Context(), c.Agent, report); err != nil {
		s.refuse(w, r, http.StatusServiceUnavailable, err)
		return
	}
	s.reply(w, http.StatusOK, struct{}{})
}
