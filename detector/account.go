package detector

import (
	"math"
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
	name   mailq.Account
	class  class
	shared bool
	dirty  bool  // changed since Changed last told
	high   uint8 // the day's highest score, as it counts for a hold
	mailed bool  // sent something today
	gone   bool  // forgotten

	filled uint8 // messages in the ring …
	next   uint8 // … and where the next one goes

	ring *[ringMax]message // latest messages; nil before the first

	ep     episode
	nov    novelty
	known  known
	rate   rate
	series series
	log    logins
	spr    domains
	fail   failures
	like   likeness
	key    uint32 // a hash of the name

	rare *rare  // nil for most
	in   *inbox // nil where no mail for it is seen

	asSelf   uint32 // the latest sender that belongs to the account
	messages uint32 // submitted in all
	first    uint32 // in seconds
	joined   bool   // a person's mailbox that is newer than the installation
	last     int64  // last in memory: what is new is written at both of its ends, see newEveryone
}

// accountBlock is how many accounts are allocated at once: side by side they
// are not rounded up, each, to the next size of the allocator.
const accountBlock = 256

// A room is where accounts are kept.
type room struct {
	block []account  // not used yet
	free  []*account // used by accounts that were forgotten
}

// take returns room for an account.
func (r *room) take() *account {
	if n := len(r.free); n > 0 {
		a := r.free[n-1]
		r.free = r.free[:n-1]
		return a
	}
	if len(r.block) == 0 {
		r.block = make([]account, accountBlock)
	}
	a := &r.block[0]
	r.block = r.block[1:]
	return a
}

// give takes back the room of an account that was forgotten.
func (r *room) give(a *account) {
	*a = account{}
	r.free = append(r.free, a)
}

// rare is what most accounts never need.
type rare struct {
	reply replies
	from  senders
	scr   scripts
	with  cohort
	steps []step // latest that led somewhere
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
	top         float32 // highest score
	told        float32 // highest score told …
	toldAt      uint32  // … when, in seconds …
	toldFam     uint8   // … and from how many families
	hard        hardRule
	convicted   bool // it came to what would be held
	theirs      bool // something showed somebody else's hand, or it was stopped: see account.forgive
	rose        bool // by the event at hand
	speak       [families]said

	doubt *doubt // nil below the floor
}

// A doubt is what the account did above the floor: it is learnt only when the
// episode fades or is released.
type doubt struct {
	pending  *filter
	fresh    float32 // new recipients, in messages
	expected float32 // of which the account's past explains
	peak     [gauges]float32
}

// noDoubt is that of an episode below the floor.
var noDoubt doubt

// doubted is what the episode did above the floor; it is to be read only.
func (e *episode) doubted() *doubt {
	if e.doubt == nil {
		return &noDoubt
	}
	return e.doubt
}

// doubting returns what the episode did above the floor, made if need be.
func (e *episode) doubting() *doubt {
	if e.doubt == nil {
		e.doubt = new(doubt)
	}
	return e.doubt
}

// spent is what may still be learnt of an episode that came to a verdict and has ended:
// from a person who releases the account, or from what followed, see account.forgive.
type spent struct {
	at     uint32 // of its last message, in seconds
	theirs bool
	doubt
	series lostSeries
}

// A message is what is remembered of one of the account's latest messages,
// so that its parts, which a log may tell one by one, count as one.
type message struct {
	at         uint32 // in seconds
	id         uint32
	sum        float32 // uncapped evidence of novelty
	fast, slow float32 // what of it moved the charts
	counted    uint16  // recipients, as the server counted or as they were named
	named      uint16
	fresh      uint16 // new recipients …
	unseen     uint16 // … that nobody here knows
	answered   uint8  // new recipients that had written to the account, at most 255
	others     uint8  // recipients that no message before it in about an hour had, at most crowdMost
	blamed     bool   // a reply has called it spam
	spared     bool   // a release let it pass
}

const ringMax = 6

// find returns the message with this id, if it is one of the latest.
func (a *account) find(id uint64) *message {
	if id == 0 || a.ring == nil {
		return nil
	}
	want := fold(id)
	for i := range a.filled { // the latest first
		if m := &a.ring[(a.next+ringMax-1-i)%ringMax]; m.id == want {
			return m
		}
	}
	return nil
}

// latest are the account's latest messages.
func (a *account) latest() []message {
	if a.ring == nil {
		return nil
	}
	return a.ring[:a.filled]
}

// push makes room for a new message and returns it.
func (a *account) push(id uint64, at int64, rcpts int) *message {
	if a.ring == nil {
		a.ring = new([ringMax]message)
	}
	if a.filled < ringMax {
		a.next = a.filled
		a.filled++
	}
	m := &a.ring[a.next%ringMax]
	*m = message{id: fold(id), at: seconds(at), counted: uint16(min(max(rcpts, 0), 1<<16-1))}
	a.next = (a.next + 1) % ringMax
	return m
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
	a.ep.onset = now
	if m != nil && m.at != seconds(now) {
		a.ep.onset = int64(m.at) * second
	}
	if a.nov.slow.s <= 0 {
		a.nov.count, a.nov.strangers = 0, 0
	}
	for _, m := range a.latest() {
		if a.ep.has(&m) {
			a.ep.msgs++
			a.ep.rcpts += uint32(m.counted)
			a.nov.count += m.named
			a.nov.strangers += m.fresh
		}
	}
}

// has reports whether the message is of the episode.
func (e *episode) has(m *message) bool { return e.onset != 0 && m.at >= seconds(e.onset) }

// say sets what family f now contributes; a rise is noted.
func (a *account) say(f family, score float32) {
	s := saying(score)
	if s > a.ep.speak[f] {
		a.ep.rose = true
	}
	a.ep.speak[f] = s
}

// A said is what a family says, in 1024ths: no score is too high for it, and
// memory is counted.
type said uint16

func saying(score float32) said { return said(min(max(score, 0)*1024+.5, math.MaxUint16)) }

func (s said) score() float32 { return float32(s) / 1024 }

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
	if c.s > 0 && since(c.at, now) >= idle {
		c.s = 0
	}
}

// seconds shortens a time to what fits in 32 bits until 2106.
func seconds(now int64) uint32 { return uint32(now / second) }

// since is how long ago at, in seconds, was.
func since(at uint32, now int64) int64 { return now - int64(at)*second }

// hashOf is FNV-1a, folded; for text that is compared, never looked up in a
// table that a stranger could fill.
func hashOf(s string) uint32 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return uint32(h ^ h>>32)
}
