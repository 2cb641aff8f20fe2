package dnsbl

import (
	"fmt"
	"time"
)

// The times of health tests.
const (
	refusedFor     = time.Hour           // a zone that refused is left alone for so long at least
	quarantineFor  = 30 * time.Minute    // three failures over so long put a list in quarantine
	proposeAfter   = 14 * 24 * time.Hour // in quarantine for so long, a list should go
	maxTestEvery   = wholeDay
	retestAfter    = time.Minute // no test begins sooner after another
	fullEvery      = 6           // every so many tests is a full one
	testsShare     = 0.2         // of a day's budget that tests may use
	probesEstimate = 10          // questions of a full test, about
)

// The limits of Degraded, in and out again.
const (
	errorsHigh  = 0.05 // share of questions without a usable answer
	errorsLow   = 0.025
	latencyHigh = 2 * time.Second
)

// A condition is the health of one list over time.
type condition struct {
	state State
	since time.Time
	text  string
	blind Kind

	fails       int       // full tests that failed, in a row
	firstFail   time.Time // the first of them
	passes      int       // tests that passed, in a row
	unsure      int       // full tests without an outcome, in a row
	quarantined time.Time // zero if it is not
	backoff     int       // tests in quarantine, which double the time to the next
	proposed    bool      // its removal, in this quarantine

	passed  time.Time     // when the latest test that passed had begun
	errors  float64       // share of questions without an answer, of the last 64 or so
	latency time.Duration // of an answer, of the last 64 or so
}

// answered counts one question of any sort, and how long it took.
func (c *condition) answered(ok bool, took time.Duration) {
	const weight = 64
	failed := 0.0
	if ok {
		c.latency += (took - c.latency) / weight
	} else {
		failed = 1
	}
	c.errors += (failed - c.errors) / weight
}

// record takes what a test that began then found. It reports whether the
// state changed, or what the list is believed about.
func (c *condition) record(o outcome, begun, now time.Time) bool {
	switch {
	case o.state == Untested && !o.full:
		c.passes = 0
		return false
	case o.state == Untested:
		if c.unsure++; c.unsure < 4 {
			return false
		}
		o.state = Offline
	}
	c.unsure = 0
	if o.state == Healthy {
		return c.pass(o, begun, now)
	}
	if c.fails++; c.fails == 1 {
		c.firstFail = now
	}
	c.passes = 0
	if c.isQuarantined() {
		c.backoff++
	} else if o.state == Wildcard || o.state == Suspect || o.state == Rejected || c.fails >= 3 && now.Sub(c.firstFail) >= quarantineFor {
		c.quarantined, c.backoff, c.proposed = now, 0, false
	}
	return c.become(o.state, o.text, now)
}

// pass takes a test that passed. Out of quarantine it takes two in a row.
func (c *condition) pass(o outcome, begun, now time.Time) bool {
	c.passes++
	if c.isQuarantined() && c.passes < 2 {
		if c.state == Untested {
			c.text = "in quarantine: its test passed once, and has to pass again"
		}
		return false
	}
	c.fails, c.quarantined, c.backoff = 0, time.Time{}, 0
	c.passed = begun
	changed := o.full && o.blind != c.blind
	if o.full {
		c.blind = o.blind
	}
	state, text := Healthy, blindText(c.blind)
	limit := errorsHigh
	if c.state == Degraded {
		limit = errorsLow
	}
	if c.errors > limit {
		state, text = Degraded, fmt.Sprintf("%.0f %% of the questions get no answer", 100*c.errors)
	} else if c.latency > latencyHigh {
		state, text = Degraded, fmt.Sprintf("it takes %s to answer", c.latency.Round(100*time.Millisecond))
	}
	return c.become(state, text, now) || changed
}

func (c *condition) become(state State, text string, now time.Time) bool {
	c.text = text
	if state == c.state {
		return false
	}
	c.state, c.since = state, now
	return true
}

func (c *condition) isQuarantined() bool { return !c.quarantined.IsZero() }

// usable reports whether what the list says about that kind is believed.
func (c *condition) usable(kind Kind) bool { return c.state.Usable() && c.blind&kind == 0 }

// nextTest returns how long after a test the next one is.
func (c *condition) nextTest(l *List) time.Duration {
	every := max(l.Tier.testEvery(), time.Duration(probesEstimate/(testsShare*float64(l.PerDay))*float64(wholeDay)))
	switch {
	case c.isQuarantined() && c.passes > 0:
		return min(every, l.Tier.testEvery())
	case c.state == Rejected:
		every = max(every, refusedFor)
	case c.unsure > 0:
		return retestAfter
	case c.state == Offline && !c.isQuarantined():
		return min(every, retestAfter<<min(c.fails, 10)) // mostly our line or resolver, and over soon
	}
	if c.isQuarantined() {
		every <<= min(c.backoff, 10)
	}
	return min(every, maxTestEvery)
}
