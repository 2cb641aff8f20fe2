package app

import (
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A judge leads from a log line to a step of the ladder. It does no I/O and
// asks no clock, so serve, demo and replay judge alike.
type judge struct {
	parser   *mailq.Parser
	detector *detector.Detector
	policy   *rules.Policy
	blast    *rules.BlastLimit // nil: none

	// stale is the time before which a finding is old news: it proposes and
	// does not act. The zero time makes nothing stale.
	stale time.Time

	rungs map[string]rung // by finding ID: how far up the ladder each episode is
	last  time.Time       // of the newest event
}

// A rung is the strongest decision an episode has had.
type rung struct {
	action  rules.Action
	enforce bool
	at      time.Time
	until   time.Time // zero: until a person ends it
}

// A step is one finding that climbed a rung, and what was decided.
type step struct {
	finding  rules.Finding
	decision rules.Decision
	page     bool // the blast limit spoke: people must be told
}

// maxRungs bounds the memory of episodes; the oldest are forgotten first, and
// the journal still knows that their decisions were taken.
const maxRungs = 50_000

// line judges one log line.
func (j *judge) line(line []byte) (step, bool) {
	ev, ok := j.parser.Parse(line)
	if !ok {
		return step{}, false
	}
	return j.event(&ev)
}

// event judges one event.
func (j *judge) event(ev *mailq.Event) (step, bool) {
	if ev.Time.After(j.last) {
		j.last = ev.Time
	}
	f, ok := j.detector.Observe(ev)
	if !ok {
		return step{}, false
	}
	return j.finding(f)
}

// finding decides about f and says whether that is a new step.
func (j *judge) finding(f rules.Finding) (step, bool) {
	f.Backlog = f.Time.Before(j.stale)
	d, ok := j.policy.Decide(f)
	if !ok || !j.higher(d) {
		return step{}, false
	}
	s := step{finding: f, decision: d}
	if j.blast != nil {
		s.decision, s.page = j.blast.Weaken(d, d.Time)
		if !j.higher(s.decision) && !s.page {
			return step{}, false // weakened to what is in force already
		}
	}
	j.climb(s.decision)
	return s, true
}

// higher reports whether d is more than its episode has had.
func (j *judge) higher(d rules.Decision) bool {
	had, known := j.rungs[d.Finding]
	over := !had.until.IsZero() && d.Time.After(had.until) // and the account goes on
	if !known || over || d.Action > had.action {
		return true
	}
	return d.Action == had.action && d.Enforce && !had.enforce
}

func (j *judge) climb(d rules.Decision) {
	if j.rungs == nil {
		j.rungs = map[string]rung{}
	}
	if len(j.rungs) >= maxRungs {
		j.forgetOldest()
	}
	j.rungs[d.Finding] = rung{d.Action, d.Enforce, d.Time, d.Until}
}

// forgetOldest drops the older half, by the mean of what is there.
func (j *judge) forgetOldest() {
	var sum time.Duration
	for _, r := range j.rungs {
		sum += j.last.Sub(r.at)
	}
	limit := j.last.Add(-sum / time.Duration(len(j.rungs)))
	for id, r := range j.rungs {
		if !r.at.After(limit) {
			delete(j.rungs, id)
		}
	}
}
