package dnsbl

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// DefaultMaxSubjects is how many subjects a [Watch] takes if its MaxSubjects
// is not set.
const DefaultMaxSubjects = 65_536

// maxEvery is the longest that a subject is not asked about, unless the budget
// of a list forces it.
const maxEvery = 24 * time.Hour

// ErrTooMany means that a watch has as many subjects as it may have.
var ErrTooMany = errors.New("dnsbl: too many subjects")

// A Watch says what to ask which list at which time, and turns the answers
// into events: the health of the lists, what is listed, and since when.
//
// What is not watched can be asked about once, by Inquire.
//
// It asks nothing itself and has no clock. Its owner calls Due at the time
// that Next gives, asks the tasks, and gives each answer to Take. A task whose
// answer does not come within two minutes is due again. One goroutine at a
// time uses a Watch.
type Watch struct {
	MaxSubjects int // 0: [DefaultMaxSubjects]

	lists    []*watched
	members  map[Subject]*member
	units    map[Subject]*unit
	hoods    map[Subject]int // neighbourhoods, and how many members are in each that are no strangers
	restored map[pairKey]*restoredPair
	rng      *rand.Rand
	now      time.Time // the latest that was given
	turn     int       // the list whose turn it is
	ids      uint32
	events   []Event // of the call that runs
	answered []Inquiry
}

// NewWatch returns a watch over the lists of c that keys open; the others are
// reported as [NoKey]. Times are spread by rng.
func NewWatch(c *Catalogue, keys Keys, rng *rand.Rand) *Watch {
	w := &Watch{members: map[Subject]*member{}, units: map[Subject]*unit{}, hoods: map[Subject]int{}, rng: rng}
	for _, list := range c.Lists {
		l := &watched{List: list, toldCodes: map[netip.Addr]bool{}, budget: budget{perSecond: list.PerSecond, perDay: list.PerDay}}
		if !l.openWith(keys) {
			l.health.state, l.health.text = NoKey, list.closed()
		}
		w.lists = append(w.lists, l)
	}
	return w
}

// Add begins to watch an address, a domain or an e-mail address. It is asked
// about at once, and from then on as one that sends nothing until Sent says
// that it does. Adding it again changes nothing. It returns [ErrTooMany] if
// there is no place, and another error for a network or the zero Subject.
func (w *Watch) Add(now time.Time, s Subject) error {
	if err := w.AddStranger(now, s); err != nil {
		return err
	}
	if m := w.members[s]; m.stranger {
		m.stranger = false
		w.hoods[s.neighbourhood()]++
	}
	return nil
}

// AddStranger begins to watch a subject as [Watch.Add] does, of which others say
// that it is ours. Its listings do not count where a list seems to list many at
// once. Add makes it ours.
func (w *Watch) AddStranger(now time.Time, s Subject) error {
	w.tick(now)
	if w.members[s] != nil {
		return nil
	}
	if s.Kind() == 0 || s.prefix.IsValid() && !s.prefix.IsSingleIP() {
		return fmt.Errorf("dnsbl: %q is no single address, domain or e-mail address", s)
	}
	limit := w.MaxSubjects
	if limit == 0 {
		limit = DefaultMaxSubjects
	}
	if len(w.members) >= limit {
		return fmt.Errorf("%w: %d", ErrTooMany, limit)
	}
	m := &member{subject: s, stranger: true}
	for _, u := range w.unitsOf(s) {
		u.members = append(u.members, m)
		m.units = append(m.units, u)
	}
	w.members[s] = m
	return nil
}

// unitsOf returns what has to be asked about to watch s, made if need be.
func (w *Watch) unitsOf(s Subject) []*unit {
	subjects := []Subject{s}
	if s.Kind() == IP6 {
		subjects = append(subjects, network(s.prefix.Addr(), 64))
	}
	for _, l := range w.lists {
		if u := l.unit(s); l.Kinds&s.Kind() != 0 && !slices.Contains(subjects, u) {
			subjects = append(subjects, u)
		}
	}
	var units []*unit
	for _, subject := range subjects {
		if u := w.unit(subject); u != nil {
			units = append(units, u)
		}
	}
	return units
}

// unit returns the unit that is that subject. It is nil if its name cannot be
// asked.
func (w *Watch) unit(s Subject) *unit {
	if u := w.units[s]; u != nil {
		return u
	}
	label, err := s.label()
	if err != nil {
		return nil
	}
	u := &unit{subject: s, label: label}
	for _, l := range w.lists {
		if l.open && l.Kinds&s.Kind() != 0 && l.unit(s) == s && (s.Kind() != IP4 || s.prefix.Bits() == l.Ask4) && len(label)+1+len(l.zone) <= maxName {
			u.pairs = append(u.pairs, pair{unit: u, list: l})
		}
	}
	u.pairs = slices.Clip(u.pairs)
	for i := range u.pairs {
		p := &u.pairs[i]
		p.due = w.now.UnixNano()
		w.takeRestored(p)
		heap.Push(p.list.queueOf(p), p)
		p.setEvery(maxEvery)
	}
	w.units[s] = u
	return u
}

// Remove ends the watch over s and forgets what is known about it.
func (w *Watch) Remove(s Subject) {
	m := w.members[s]
	if m == nil {
		return
	}
	delete(w.members, s)
	if hood := s.neighbourhood(); !m.stranger {
		if w.hoods[hood]--; w.hoods[hood] == 0 {
			delete(w.hoods, hood)
		}
	}
	for _, u := range m.units {
		u.members = slices.DeleteFunc(u.members, func(other *member) bool { return other == m })
		if len(u.members) > 0 {
			continue
		}
		delete(w.units, u.subject)
		for i := range u.pairs {
			p := &u.pairs[i]
			heap.Remove(p.list.queueOf(p), int(p.at))
			p.list.demand -= p.demand()
			if p.odd {
				p.list.odd--
			}
			p.asked, p.listing = 0, nil // an answer that is still on its way finds nothing
		}
	}
}

// Sent says that s sent mail at that time. An active subject is asked about
// more often.
func (w *Watch) Sent(at time.Time, s Subject) {
	m := w.members[s]
	if m == nil {
		return
	}
	w.tick(later(at, w.now)) // at may lie a while back
	for _, u := range m.units {
		before := u.activity(w.now)
		u.sent = max(u.sent, at.UnixNano())
		if u.activity(w.now) != before {
			w.hasten(u)
		}
	}
}

// SetRisk says how likely s is to be listed soon, from 0 to 1. At 1 it is
// asked about five times as often.
func (w *Watch) SetRisk(now time.Time, s Subject, risk float64) {
	m := w.members[s]
	if m == nil {
		return
	}
	w.tick(now)
	rises := risk > m.risk
	m.risk = min(max(risk, 0), 1)
	if rises {
		for _, u := range m.units {
			w.hasten(u)
		}
	}
}

// Recheck asks about s at once, on the list of that name, or on all if it is
// empty: when a peer says that it is listed. The resolver may remember that it was
// not, so the list's own servers are asked, and the resolver if they do not say
// that it is. What is about to be asked, or is listed, keeps its turn. A list takes
// so many of these a day as are left of its budget once polls, tests and
// confirmations have their parts; past them s is polled as ever.
func (w *Watch) Recheck(now time.Time, s Subject, list string) {
	w.tick(now)
	m := w.members[s]
	if m == nil {
		return
	}
	for _, u := range m.units {
		for i := range u.pairs {
			p := &u.pairs[i]
			if p.stage != NotListed || p.line != polling || p.asked != 0 || list != "" && list != p.list.Name || !p.list.budget.recheck(w.now) {
				continue
			}
			p.direct = !p.list.shut
			p.list.set(p, w.now, rechecking)
		}
	}
}

// hasten asks about a unit sooner where its interval became shorter.
func (w *Watch) hasten(u *unit) {
	for i := range u.pairs {
		p := &u.pairs[i]
		if p.stage != NotListed || p.line != polling || p.asked != 0 {
			continue
		}
		p.setEvery(p.interval(w.now))
		if due := w.jittered(p, time.Unix(0, p.known)); due.UnixNano() < p.due {
			p.list.set(p, later(due, w.now), polling)
		}
	}
}

// schedule makes p due again after its interval.
func (w *Watch) schedule(p *pair) {
	p.setEvery(p.interval(w.now))
	p.list.set(p, w.jittered(p, w.now), polling)
}

// jittered returns when p is due if it was asked at that time: its interval
// later, give or take a tenth.
func (w *Watch) jittered(p *pair, from time.Time) time.Time {
	factor := p.list.stretch() * (0.9 + 0.2*w.rng.Float64())
	return from.Add(time.Duration(float64(p.every) * factor * float64(time.Second)))
}

// interval returns how often p should be asked about.
func (p *pair) interval(now time.Time) time.Duration {
	l := p.list
	if p.stage != NotListed {
		if l.Tier == Act {
			return actListed
		}
		return l.Every
	}
	base := max(l.Every, time.Duration(p.negTTL)*time.Second) * p.unit.activity(now)
	risky := time.Duration(float64(base) * (1 - 0.8*p.unit.risk()))
	return min(max(risky, l.Every/5), maxEvery)
}

// demand is how often p is polled in 10⁹ seconds.
func (p *pair) demand() int64 { return 1e9 / max(1, int64(p.every)) }

func (p *pair) setEvery(every time.Duration) {
	if p.every != 0 {
		p.list.demand -= p.demand()
	}
	p.every = uint32(max(1, every/time.Second))
	p.list.demand += p.demand()
}

// Next returns when Due has something to give, which may be past already. It
// is zero if it never will.
func (w *Watch) Next() (next time.Time) {
	for _, l := range w.lists {
		if t := l.wakes(w.now); next.IsZero() || !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// Due returns at most so many questions that are to be asked now, and what
// changed since by nothing but the time. It counts the questions against the
// budgets of their lists, which take turns.
func (w *Watch) Due(now time.Time, most int) (tasks []Task, events []Event) {
	w.tick(now)
	idle := 0
	for len(tasks) < most && idle < len(w.lists) {
		l := w.lists[w.turn%len(w.lists)]
		w.turn = (w.turn + 1) % len(w.lists)
		t, ok := w.ask(l)
		if !ok {
			idle++
			continue
		}
		idle = 0
		tasks = append(tasks, t)
	}
	return tasks, w.flush()
}

// flush returns the events of the call that ends.
func (w *Watch) flush() []Event {
	events := w.events
	w.events = nil
	return events
}

// ask returns the next question to l, false if it is not to be asked now.
func (w *Watch) ask(l *watched) (Task, bool) {
	if !l.open {
		return Task{}, false
	}
	w.runTests(l)
	if !l.hasWork(w.now) || w.now.Before(l.budget.next(w.now, 0)) {
		return Task{}, false
	}
	if l.test != nil && l.test.sent < len(l.test.order) {
		return w.askProbe(l), true
	}
	if !l.health.state.Usable() {
		return Task{}, false
	}
	if t, ok := w.askPair(l, &l.urgent); ok {
		return t, true
	}
	if w.now.Before(l.budget.next(w.now, l.budget.reserve())) {
		return Task{}, false
	}
	if t, ok := w.askPair(l, &l.checks); ok {
		return t, true
	}
	if t, ok := w.askPair(l, &l.polls); ok {
		return t, true
	}
	return w.askInquiry(l)
}

// askPair returns the question about the first pair of a queue of l that is
// due, false if none is.
func (w *Watch) askPair(l *watched, q *queue) (Task, bool) {
	for q.isDue(w.now) {
		p, g := (*q)[0], (*q)[0].listing
		switch {
		case !l.health.usable(p.unit.subject.Kind()), p.stage == NotListed && p.isIdle6(w.now):
			l.set(p, w.now.Add(max(l.Every, time.Minute)), p.line)
		case (p.stage == Suspicious || p.stage == OnList) && !g.textAsked:
			g.textAsked = true
			if !l.crowd.covers(g.first) { // one text says enough about a mass listing
				return w.task(l, p, Explanation), true
			}
		case p.stage == Suspicious && w.now.Before(p.confirmAt()):
			l.set(p, p.confirmAt(), confirming)
		default:
			t := w.task(l, p, p.question())
			l.set(p, w.now.Add(leaseFor), p.line)
			return t, true
		}
	}
	return Task{}, false
}

// question returns what p is to be asked for.
func (p *pair) question() TaskKind {
	if p.stage == Suspicious || p.stage == Leaving || p.listing != nil && p.listing.next != nil {
		return Confirmation
	}
	return Poll
}

// byResolver reports whether p is confirmed through the resolver, since the
// list's own servers do not answer us.
func (p *pair) byResolver() bool { return p.list.shut || p.listing.tries >= askAuthority }

// confirmAt returns when a suspicion may be confirmed: through the resolver,
// once it has forgotten its first answer, and an IPv6 address after the network
// around it.
func (p *pair) confirmAt() time.Time {
	at := p.listing.first.Add(confirmAfter)
	if p.byResolver() {
		at = later(at, p.listing.first.Add(p.listing.ttl))
	}
	if n := p.network(); n != nil && n.stage == Suspicious {
		at = later(at, n.confirmAt().Add(confirmAfter))
	}
	return at
}

// isIdle6 reports whether p is about an IPv6 address that sent nothing for a
// day: its /64 is asked about in its place.
func (p *pair) isIdle6(now time.Time) bool {
	return p.unit.isExact6() && now.Sub(time.Unix(0, p.unit.sent)) > wholeDay
}

// task makes the question about p.
func (w *Watch) task(l *watched, p *pair, kind TaskKind) Task {
	l.budget.take()
	t := Task{
		Kind: kind, List: l.Name, Subject: p.unit.subject,
		zone: l.zone, name: p.unit.label + "." + l.zone, typ: TypeA, issued: w.now, on: l, pair: p,
	}
	if kind == Explanation {
		t.typ, t.id, t.authoritative = TypeTXT, p.listing.id, p.direct
		return t
	}
	t.authoritative = kind == Poll && p.direct || kind == Confirmation && !p.byResolver()
	t.id = w.id()
	p.asked = t.id
	return t
}

// id returns a number that no open question has. It is never 0.
func (w *Watch) id() uint32 {
	if w.ids++; w.ids == 0 {
		w.ids++
	}
	return w.ids
}
