package gate

import (
	"sync/atomic"
	"time"
)

// Stats are counters since the start, and two gauges.
type Stats struct {
	Answers     map[Answer]uint64 // one entry for each kind of answer
	Malformed   uint64            // requests that could not be read, answered DUNNO
	Slow        uint64            // connections closed because a request or an answer took too long
	Refused     uint64            // connections closed at once because there were too many
	Panics      uint64            // our own mistakes, each closing one connection
	Forgotten   uint64            // messages whose end was not seen, most of them abandoned by the client
	Connections int               // open now
	Messages    int               // between their first recipient and their end now
	Latency     Histogram         // from a request's last byte read to its answer written
}

// A Histogram counts durations: Counts[i] of them were at most Bounds[i] and
// more than Bounds[i-1]; the last count, one more than there are bounds, is of
// those longer still.
type Histogram struct {
	Bounds []time.Duration
	Counts []uint64
	Sum    time.Duration
}

// counters are what Stats shows.
type counters struct {
	answers                          [answers]atomic.Uint64
	malformed, slow, refused, panics atomic.Uint64
	open                             atomic.Int64
	latency                          histogram
}

// latencyBounds are the upper bounds of the histogram's buckets.
func latencyBounds() [latencies]time.Duration {
	return [...]time.Duration{
		10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond,
		250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
		5 * time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second,
	}
}

const latencies = 12

type histogram struct {
	counts [latencies + 1]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for bounds := latencyBounds(); i < latencies && d > bounds[i]; i++ {
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) read() Histogram {
	bounds := latencyBounds()
	out := Histogram{Bounds: bounds[:], Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		out.Counts[i] = h.counts[i].Load()
	}
	return out
}

// stats reads the counters.
func (c *counters) stats() Stats {
	s := Stats{
		Answers:     make(map[Answer]uint64, answers),
		Malformed:   c.malformed.Load(),
		Slow:        c.slow.Load(),
		Refused:     c.refused.Load(),
		Panics:      c.panics.Load(),
		Connections: int(c.open.Load()),
		Latency:     c.latency.read(),
	}
	for a := range answers {
		s.Answers[a] = c.answers[a].Load()
	}
	return s
}

// Stats returns what the service did so far.
func (p *Policy) Stats() Stats {
	s := p.counters.stats()
	s.Messages, s.Forgotten = p.gathered.count()
	return s
}

// Stats returns what the service did so far. It keeps no messages.
func (x *Exim) Stats() Stats { return x.counters.stats() }
