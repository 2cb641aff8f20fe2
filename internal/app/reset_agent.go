package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// Errands are the resets that the hub asks of its agent. The new password does
// not leave the server: it is handed over here. What became of each is kept, and
// is told again as often as the hub asks.
type errands struct {
	log  *slog.Logger
	db   *store.DB
	tell chan hub.ResetReport

	mu      sync.Mutex // guards what follows, and the writing of known
	known   []errand   // the newest last
	running map[string]bool
	ended   map[string]bool // resets elsewhere after which sessions were ended here
}

// An errand is one of them.
type errand struct {
	Over   bool            `json:"over,omitempty"` // otherwise it was begun
	Told   bool            `json:"told,omitempty"` // the hub has heard what became of it
	Report hub.ResetReport `json:"report"`
}

const (
	errandsSetting = "resets"
	maxErrands     = 1000 // that are remembered
)

func newErrands(ctx context.Context, db *store.DB, log *slog.Logger) (*errands, error) {
	e := &errands{log: log, db: db, tell: make(chan hub.ResetReport, maxErrands), running: map[string]bool{}, ended: map[string]bool{}}
	text, err := db.SettingOnce(ctx, errandsSetting, []byte("[]"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &e.known); err != nil {
		return nil, fmt.Errorf("resets that the hub asked for: %w", err)
	}
	for _, x := range e.known {
		switch {
		case !x.Over:
			log.Warn("a reset was begun and not ended when this agent was stopped; the hub asks for it again", "reset", x.Report.ID)
		case !x.Told:
			e.say(x.Report)
		}
	}
	return e, nil
}

// begin notes that a reset is begun. It returns what became of one that is over,
// false for one that is running, and whether it was begun before.
func (e *errands) begin(ctx context.Context, id string) (over *hub.ResetReport, begun, again bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.known, func(x errand) bool { return x.Report.ID == id })
	switch {
	case i >= 0 && e.known[i].Over:
		report := e.known[i].Report
		return &report, false, false
	case e.running[id]:
		return nil, false, false
	case i < 0:
		e.noteLocked(ctx, errand{Report: hub.ResetReport{ID: id}})
	}
	e.running[id] = true
	return nil, true, i >= 0
}

// noteLocked writes down how far an errand is. One that cannot be written would
// be done again after a crash, which harms nobody.
func (e *errands) noteLocked(ctx context.Context, x errand) {
	e.known = slices.DeleteFunc(e.known, func(old errand) bool { return old.Report.ID == x.Report.ID })
	e.known = append(e.known, x)
	e.known = e.known[max(0, len(e.known)-maxErrands):]
	if err := e.db.SetSetting(ctx, errandsSetting, asJSON(e.known)); err != nil && ctx.Err() == nil {
		e.log.Error("a reset is not written down; after a crash it would be done again", "reset", x.Report.ID, "err", err)
	}
}

// end notes what became of a reset, and tells the hub.
func (e *errands) end(ctx context.Context, r hub.ResetReport) {
	e.mu.Lock()
	delete(e.running, r.ID)
	e.noteLocked(ctx, errand{Over: true, Report: r})
	e.mu.Unlock()
	e.say(r)
}

// told notes that the hub has heard of a reset.
func (e *errands) told(ctx context.Context, r hub.ResetReport) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.ContainsFunc(e.known, func(x errand) bool { return x.Report.ID == r.ID && !x.Told }) {
		e.noteLocked(ctx, errand{true, true, r})
	}
}

// say has a report told.
func (e *errands) say(r hub.ResetReport) {
	select {
	case e.tell <- r:
	default:
		e.log.Error("too many resets are to be told of; the hub asks again", "reset", r.ID)
	}
}

// firstTime reports whether sessions are to be ended after a reset elsewhere:
// once, or again after a restart.
func (e *errands) firstTime(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	here := slices.ContainsFunc(e.known, func(x errand) bool { return x.Report.ID == id })
	if here || e.ended[id] {
		return false
	}
	if len(e.ended) >= maxErrands {
		clear(e.ended)
	}
	e.ended[id] = true
	return true
}

// notYet takes back that sessions were ended.
func (e *errands) notYet(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.ended, id)
}

// done takes a reset whose tries are over.
func (e *errands) done(ctx context.Context, r passwordReset) {
	ctx, cancel := finish(ctx)
	defer cancel()
	d, out := r.decision, r.out
	e.log.Info("reset", "account", d.Subject, "ok", out.OK, "detail", out.Detail)
	if r.by == "" {
		e.end(ctx, hub.ResetReport{ID: d.ID, OK: out.OK, Changed: out.State >= enforce.ResetChanged, Given: out.State == enforce.ResetGiven, Detail: out.Detail})
	}
}

// heed does what an order says of a password. The block is how it went to put
// the account's block in force here: without it no password is changed.
func (s *service) heed(ctx context.Context, o hub.Order, block enforce.Outcome) {
	id, subject := o.Reset.ID, o.Decision.Subject
	r := passwordReset{step: step{decision: rules.Decision{ID: id, Subject: subject, Action: rules.Reset, Enforce: true}}}
	switch {
	case id == "":
		return
	case o.Reset.Done:
		if s.sessions == nil || !s.errands.firstTime(id) {
			return
		}
		r.by, r.out = " elsewhere", enforce.ResetOutcome{Outcome: enforce.Outcome{OK: true, Detail: "the password was changed elsewhere"}}
	case !s.handsOver || !s.covers(subject):
		s.errands.say(hub.ResetReport{ID: id, Declined: true})
		return
	default:
		over, begun, again := s.errands.begin(ctx, id)
		if over != nil {
			s.errands.say(*over)
		}
		if !begun {
			return
		}
		if r.again = again; !block.OK {
			s.errands.end(ctx, hub.ResetReport{ID: id, Detail: "the block is not confirmed, so the password was not changed: " + block.Detail})
			return
		}
	}
	select {
	case s.resets <- r:
		return
	default:
	}
	const full = "too many resets wait"
	if r.by != "" {
		s.errands.notYet(id)
		s.report(ctx, lostCoverage("sessions of "+subject, time.Now(), full))
		return
	}
	s.errands.end(ctx, hub.ResetReport{ID: id, Detail: full})
}

// tellResets tells the hub what became of resets, until ctx ends. What it has
// not heard it asks for again.
func (s *service) tellResets(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-s.errands.tell:
			s.tellReset(ctx, r)
		}
	}
}

func (s *service) tellReset(ctx context.Context, r hub.ResetReport) {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := s.agent.client.ResetDone(ctx, r)
		var refused *hub.Refused
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.errands.told(ctx, r)
			return
		case errors.As(err, &refused) && refused.Status < http.StatusInternalServerError:
			s.log.Error("the hub does not want to hear of a reset", "reset", r.ID, "err", err)
			s.errands.told(ctx, r)
			return
		}
		s.log.Warn("the hub is told later what became of a reset", "reset", r.ID, "err", err)
		if wait(ctx, pause) != nil {
			return
		}
	}
}
