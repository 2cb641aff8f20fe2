package eval

import (
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A limit is a fixed rule as others ship it: it fires as soon as it is
// exceeded within a sliding span.
type limit struct {
	name  string
	count what
	span  time.Duration
	over  int
}

// what a limit counts.
type what uint8

const (
	messages   what = iota
	recipients      // every one, each time
	strangers       // recipients that the mailbox never wrote to before
	failed          // recipients that failed or were deferred, if they are a quarter of all
)

// failedShare is the part of an hour's recipients that has to fail. cPanel ships
// with no limit; this is what many hosts set.
const failedShare = .25

// fixedRules are the limits that Vedetta is measured against, with the values that
// their products ship or suggest.
var fixedRules = [...]limit{
	{"CSF, eximmon: over 100 an hour", messages, time.Hour, 100},
	{"eximmon: over 4 a minute", messages, time.Minute, 4},
	{"CSM, warning: over 50 in 10 minutes", messages, 10 * time.Minute, 50},
	{"CSM, critical: over 100 in 10 minutes", messages, 10 * time.Minute, 100},
	{"mox: over 200 new recipients a day", strangers, 24 * time.Hour, 200},
	{"Mailu: over 200 a day", messages, 24 * time.Hour, 200},
	{"UwUMail: over 500 recipients an hour", recipients, time.Hour, 500},
	{"cPanel: 5 failed and a quarter, an hour", failed, time.Hour, 4},
}

// A past is what is known of one account outside of Vedetta: its last day, and
// whom it ever wrote to.
type past struct {
	day  []sent
	seen map[uint64]bool
	last Message // without its recipients

	stopped int64 // the day on which Vedetta wrongly stopped it; 0: not since a person released it

	trying bool
	added  []uint64 // to seen, while trying
}

func newPast() *past { return &past{seen: map[uint64]bool{}} }

type sent struct {
	at                  time.Time
	rcpts, news, failed int
}

// take counts a message.
func (p *past) take(m *Message) {
	at := time.Unix(m.Time, 0)
	s := sent{at: at, rcpts: len(m.To)}
	for _, r := range m.To {
		if !p.seen[r.Hash] {
			s.news++
			p.seen[r.Hash] = true
			if p.trying {
				p.added = append(p.added, r.Hash)
			}
		}
		if r.Fate == mailq.Bounced || r.Fate == mailq.Deferred {
			s.failed++
		}
	}
	for len(p.day) > 0 && at.Sub(p.day[0].at) >= 24*time.Hour {
		p.day = p.day[1:]
	}
	p.day = append(p.day, s)
	p.last = *m
	p.last.To = nil
}

// exceeds reports whether the latest message exceeded the limit.
func (p *past) exceeds(l limit) bool {
	n, all := 0, 0
	now := p.day[len(p.day)-1].at
	for i := len(p.day) - 1; i >= 0 && now.Sub(p.day[i].at) < l.span; i-- {
		s := &p.day[i]
		all += s.rcpts
		switch l.count {
		case messages:
			n++
		case recipients:
			n += s.rcpts
		case strangers:
			n += s.news
		case failed:
			n += s.failed
		}
	}
	return n > l.over && (l.count != failed || float64(n) >= failedShare*float64(all))
}

// try runs f with a past that goes on from this one, and takes back what it
// learnt.
func (p *past) try(f func(*past)) {
	trial := past{day: slices.Clone(p.day), seen: p.seen, last: p.last, trying: true}
	f(&trial)
	for _, h := range trial.added {
		delete(p.seen, h)
	}
}
