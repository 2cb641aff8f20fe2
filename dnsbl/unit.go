package dnsbl

import (
	"container/heap"
	"time"
)

// A member is a subject that is watched.
type member struct {
	subject Subject
	units   []*unit
	risk    float64 // 0 to 1

	// stranger is set where others named the subject. Its listings say nothing
	// about a list: whoever names notorious addresses could have it distrusted.
	stranger bool
}

// A unit is what lists are asked about to learn about its members: a subject
// itself, or a network that lists treat as one.
type unit struct {
	subject Subject
	label   string
	members []*member
	pairs   []pair
	sent    int64 // when one of the members last sent mail, in Unix nanoseconds; 0: never seen to
	alarms  int   // pairs that are at least suspicious
}

// risk returns the highest of the members, and at least a half while
// something is suspicious.
func (u *unit) risk() float64 {
	risk := 0.0
	if u.alarms > 0 {
		risk = 0.5
	}
	for _, m := range u.members {
		risk = max(risk, m.risk)
	}
	return risk
}

// activity returns by how much longer than an active subject's the interval
// of the unit is.
func (u *unit) activity(now time.Time) time.Duration {
	switch idle := now.Sub(time.Unix(0, u.sent)); {
	case idle < time.Hour:
		return 1
	case idle < 7*wholeDay:
		return 4
	}
	return 16
}

// isExact6 reports whether the unit is one IPv6 address. Lists mostly have
// its /64, so that alone is asked while the address sends nothing.
func (u *unit) isExact6() bool { return u.subject.Kind() == IP6 && u.subject.prefix.IsSingleIP() }

// network returns the pair of the same list that asks about the network around
// an IPv6 address, nil if p asks about something else.
func (p *pair) network() *pair {
	if !p.unit.isExact6() {
		return nil
	}
	for _, u := range p.unit.members[0].units { // it is the only one: the address itself
		if u == p.unit {
			continue
		}
		for i := range u.pairs {
			if u.pairs[i].list == p.list {
				return &u.pairs[i]
			}
		}
	}
	return nil
}

// A pair is a unit on a list. There are as many as units times lists, so it is
// kept small. Times are in Unix nanoseconds, 0 for never.
type pair struct {
	unit    *unit
	list    *watched
	listing *listing // nil for nearly all

	due     int64  // when it is to be asked again
	known   int64  // the latest usable answer
	unknown int64  // since when there has been none
	every   uint32 // seconds between polls, before the list's budget stretches them
	asked   uint32 // number of the question that is open, 0 if none is
	at      int32  // place in its queue
	negTTL  uint16 // seconds for which the list says that no entry may be remembered
	misses  uint8  // questions without a usable answer, in a row
	stage   Stage
	line    line // the queue that it is in
	welcome bool // known as good
	lost    bool // no longer known as good, says one answer
	odd     bool // its list answered about it with a code that it does not document, lately or before
	direct  bool // not listed: it is asked of the list's own servers next; suspicious: that said so
}

// A line is what a pair is due for. The zero line is a poll like any other.
type line uint8

const (
	polling    line = iota
	rechecking      // somebody said that it is listed: before polls, and from their part of the budget
	confirming      // an answer has to be confirmed: before all others, and from the reserve too
)

// A queue is pairs by the time they are due (container/heap).
type queue []*pair

// isDue reports whether the first is due.
func (q queue) isDue(now time.Time) bool { return len(q) > 0 && q[0].due <= now.UnixNano() }

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = int32(i), int32(j)
}

// Push adds a *pair.
func (q *queue) Push(x any) {
	p := x.(*pair)
	p.at = int32(len(*q))
	*q = append(*q, p)
}

// Pop removes the last.
func (q *queue) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return p
}

// set makes p due then, in that line.
func (l *watched) set(p *pair, due time.Time, in line) {
	p.due = due.UnixNano()
	if p.line == in {
		heap.Fix(l.queueOf(p), int(p.at))
		return
	}
	heap.Remove(l.queueOf(p), int(p.at))
	p.line = in
	heap.Push(l.queueOf(p), p)
}

func (l *watched) queueOf(p *pair) *queue {
	switch p.line {
	case confirming:
		return &l.urgent
	case rechecking:
		return &l.checks
	}
	return &l.polls
}
