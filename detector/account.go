package detector

import (
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// Nanosecond spans, for arithmetic on event times.
const (
	second = int64(time.Second)
	minute = int64(time.Minute)
	hour   = int64(time.Hour)
	day    = 24 * hour
)

// A class tells accounts apart whose ordinary days differ: people's
// mailboxes, and everything that sends by program.
type class uint8

const (
	people class = iota
	machines
	classes
)

func classOf(a mailq.Account) class {
	if a.Kind() == mailq.KindLogin {
		return people
	}
	return machines
}

// An account is what is remembered of one account. Times are Unix
// nanoseconds of the mail server's clock.
type account struct {
	key    uint32 // a hash of the name
	name   mailq.Account
	class  class
	shared bool
	dirty  bool  // changed since Changed last told
	high   uint8 // the day's highest score, as it counts for a hold
	mailed bool  // sent something today
	gone   bool  // forgotten

	ep     episode
	known  known
	nov    novelty
	spr    domains
	rate   rate
	series series
	fail   failures
	log    logins
	like   likeness

	ring  []message // latest messages
	next  uint8
	steps []step // latest steps that led somewhere

	asSelf uint32 // the latest sender that belongs to the account
	rare   *rare  // nil for most

	messages    uint32 // submitted in all
	first, last int64  // last in memory: what is new is written at both of its ends, see newEveryone
}

// rare is what most accounts never need.
type rare struct {
	reply replies
	from  senders
	scr   scripts
	mercy mercy
	spent *spent
}

// seldom returns the account's rare part, made if need be.
func (a *account) seldom() *rare {
	if a.rare == nil {
		a.rare = new(rare)
	}
	return a.rare
}

// An episode begins with the first event that counts while the charts are at
// rest, and ends when they have come to rest again or an operator releases
// the account.
type episode struct {
	onset       int64 // 0: at rest
	msgs, rcpts uint32
	before      standing // of the account when it began
	told        float32  // highest score told
	toldAt      uint32   // in seconds
	toldFam     uint8
	top         float32 // highest score
	hard        hardRule
	speak       [families]float32
	rose        bool // by the event at hand

	// What the account did above the floor is learnt only when the
	// episode fades or is released.
	pending  *filter
	fresh    float32 // new recipients, in messages
	expected float32 // of which the account's past explains
	peak     [gauges]float32
}

// spent is what a person who releases the account may still teach of an episode
// that came to a verdict and has ended: it was not learnt.
type spent struct {
	at              int64 // of its last message
	pending         *filter
	fresh, expected float32
	peak            [gauges]float32
	series          [tallies]float32
}

// A message is what is remembered of one of the account's latest messages,
// so that its parts, which a log may tell one by one, count as one.
type message struct {
	at         int64
	id         uint32
	sum        float32 // uncapped evidence of novelty
	fast, slow float32 // what of it moved the charts
	counted    uint16  // recipients, as the server counted or as they were named
	named      uint16
	fresh      uint16 // new recipients …
	unseen     uint16 // … that nobody here knows
	others     uint8  // recipients that no message before it in about an hour had, at most copiesMost
	blamed     bool   // a reply has called it spam
	spared     bool   // a release let it pass
}

const ringMax = 6

// find returns the message with this id, if it is one of the latest.
func (a *account) find(id uint64) *message {
	for i := range a.ring {
		if a.ring[i].id == fold(id) && id != 0 {
			return &a.ring[i]
		}
	}
	return nil
}

// push makes room for a new message and returns it.
func (a *account) push(id uint64, at int64, rcpts int) *message {
	m := message{id: fold(id), at: at, counted: uint16(min(max(rcpts, 0), 1<<16-1))}
	if n := len(a.ring); n < ringMax {
		if n == cap(a.ring) { // grow by what is needed: memory is counted
			a.ring = append(make([]message, 0, min(2*n+2, ringMax)), a.ring...)
		}
		a.ring = append(a.ring, m)
		return &a.ring[n]
	}
	a.next %= ringMax
	a.ring[a.next] = m
	a.next++
	return &a.ring[a.next-1]
}

func fold(id uint64) uint32 { return uint32(id) ^ uint32(id>>32) }

// open reports whether an episode is under way.
func (a *account) open() bool { return a.ep.onset != 0 }

// begin opens an episode at the message m (nil: at now), counting what was
// accepted since.
func (a *account) begin(m *message, now int64) {
	if a.open() {
		return
	}
	a.ep.onset, a.ep.before = now, a.nov.before
	if m != nil {
		a.ep.onset = m.at
	}
	if a.nov.slow.s <= 0 {
		a.nov.count, a.nov.strangers = 0, 0
	}
	for i := range a.ring {
		if a.ring[i].at >= a.ep.onset {
			a.ep.msgs++
			a.ep.rcpts += uint32(a.ring[i].counted)
			a.nov.count += a.ring[i].named
			a.nov.strangers += a.ring[i].fresh
		}
	}
}

// say sets what family f now contributes; a rise is noted.
func (a *account) say(f family, score float32) {
	if score > a.ep.speak[f] {
		a.ep.rose = true
	}
	a.ep.speak[f] = score
}

// A chart is a cumulative sum with a floor, mostly zero, and a top.
type chart struct {
	s  float32
	at uint32 // when it last rose, in seconds
}

// add moves the chart by x, at most up to top.
func (c *chart) add(x, top float32, now int64) { c.move(x, 0, top, now) }

// move moves the chart by x, within floor and top, and tells by how much.
func (c *chart) move(x, floor, top float32, now int64) float32 {
	before := c.s
	if x > 0 {
		c.at = seconds(now)
	}
	c.s = min(max(c.s+x, floor), top)
	return c.s - before
}

// rest resets a chart that has not risen for so long.
func (c *chart) rest(idle, now int64) {
	if c.s > 0 && now-int64(c.at)*second >= idle {
		c.s = 0
	}
}

// seconds shortens a time to what fits in 32 bits until 2106.
func seconds(now int64) uint32 { return uint32(now / second) }

// hashOf is FNV-1a, folded; for text that is compared, never looked up in a
// table that a stranger could fill.
func hashOf(s string) uint32 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return uint32(h ^ h>>32)
}
