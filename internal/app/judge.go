package app

import (
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A judge leads from a log line to a step of the ladder. It does no I/O and
// asks no clock, so serve, demo and replay judge alike.
type judge struct {
	parser   *mailq.Parser
	detector *detector.Detector
	policy   *rules.Policy
	lacks    func() (*rules.Set, error) // the rules of policy, which are still being read; nil: it has them
	places   *places
	risk     *detector.ListingRisk // nil: not watched
	traps    []string              // spam traps, for the risk
	blast    *rules.BlastLimit     // nil: none

	// stale is the time before which a finding is old news: it proposes and
	// does not act. The zero time makes nothing stale.
	stale time.Time

	rungs map[string]rung // by finding ID: how far up the ladder each episode is
}

// A rung is how far up the ladder an episode is. What was done and what was
// only told are two heights: a block that was proposed, by old news or while
// observing, keeps no throttle from being carried out.
type rung struct {
	told, done height
	at         time.Time // of the latest decision
}

// A height is the strongest decision of a kind.
type height struct {
	action rules.Action
	until  time.Time // zero: until a person ends it
}

// below reports whether d is more than h, or h is over and the account goes on
// so that something has to be done again. To observe it once more is no step:
// nothing would remember that over a restart.
func (h height) below(d rules.Decision) bool {
	over := !h.until.IsZero() && d.Time.After(h.until)
	return d.Action > h.action || over && d.Action > rules.Observe
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

// event judges one event.
func (j *judge) event(ev *mailq.Event) (step, bool) {
	f, ok := j.detector.Observe(ev)
	if !ok {
		return step{}, false
	}
	return j.finding(f)
}

// watchRisk has the judge add up what endangers our addresses, if something is
// to be done about it. The parser has its keys.
func (j *judge) watchRisk(c config.ListRisk, dir *directory) {
	if c.ActAt <= 0 && len(c.Traps) == 0 && len(c.Clients) == 0 && !c.Complaints {
		return
	}
	j.risk, j.traps = &detector.ListingRisk{Act: c.ActAt, Shared: dir.IsShared}, c.Traps
	j.hashTraps()
}

// hashTraps makes the traps known under the parser's keys, both while one
// replaces the other.
func (j *judge) hashTraps() {
	if j.risk == nil {
		return
	}
	j.risk.Traps = map[uint64]bool{}
	for _, trap := range j.traps {
		j.risk.Traps[mailq.HashRecipient(j.parser.Key, trap)] = true
		if next := j.parser.Next; next != ([16]byte{}) {
			j.risk.Traps[mailq.HashRecipient(next, trap)] = true
		}
	}
}

// endangers judges what an event says about the risk that our addresses are
// listed.
func (j *judge) endangers(ev *mailq.Event) (steps []step) {
	for _, f := range j.risk.Observe(ev) {
		if s, ok := j.finding(f); ok {
			steps = append(steps, s)
		}
	}
	return steps
}

// finding decides about f and says whether that is a new step.
func (j *judge) finding(f rules.Finding) (step, bool) {
	if j.lacks != nil {
		set, err := j.lacks()
		if err != nil {
			return step{}, false
		}
		j.policy.Set, j.lacks = set, nil
	}
	f.Backlog = f.Time.Before(j.stale)
	d, ok := j.policy.Decide(f)
	if !ok || !j.higher(d) {
		return step{}, false
	}
	d.Until = spreadOut(d)
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

// spreadOut is the end of a decision, later by up to a tenth of its time: what
// was stopped at the same moment is not let go at the same moment. Of the same
// decision it is always the same.
func spreadOut(d rules.Decision) time.Time {
	if d.Until.IsZero() {
		return d.Until
	}
	h := fnv.New32a()
	h.Write([]byte(d.ID))
	return d.Until.Add(d.Until.Sub(d.Time) / 10 * time.Duration(h.Sum32()%1000) / 1000)
}

// higher reports whether d is more than its episode has had.
func (j *judge) higher(d rules.Decision) bool {
	had := j.rungs[d.Finding]
	return had.told.below(d) || d.Enforce && had.done.below(d)
}

func (j *judge) climb(d rules.Decision) {
	if j.rungs == nil {
		j.rungs = map[string]rung{}
	}
	if len(j.rungs) >= maxRungs {
		j.forgetOldest()
	}
	r := j.rungs[d.Finding]
	r.at = d.Time
	if r.told.below(d) {
		r.told = height{d.Action, d.Until}
	}
	if d.Enforce && r.done.below(d) {
		r.done = height{d.Action, d.Until}
	}
	j.rungs[d.Finding] = r
}

// forgetOldest drops the older half.
func (j *judge) forgetOldest() {
	ids := slices.SortedFunc(maps.Keys(j.rungs), func(a, b string) int { return j.rungs[a].at.Compare(j.rungs[b].at) })
	for _, id := range ids[:(len(ids)+1)/2] {
		delete(j.rungs, id)
	}
}
