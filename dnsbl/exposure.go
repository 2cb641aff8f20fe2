package dnsbl

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// A Listing is what is known about one subject on one list.
type Listing struct {
	Subject      Subject   `json:"subject"` // as the list was asked: the address itself or the network around it
	List         string    `json:"list"`
	Title        string    `json:"title"`
	Operator     string    `json:"operator"`
	Tier         Tier      `json:"tier"`
	Stage        Stage     `json:"stage"`
	Since        time.Time `json:"since,omitzero"`     // first seen
	Confirmed    time.Time `json:"confirmed,omitzero"` // by an authoritative server or, where none answers, by the resolver
	Codes        []string  `json:"codes,omitempty"`
	Meaning      string    `json:"meaning,omitempty"`
	Scope        Scope     `json:"scope,omitempty"`
	Policy       bool      `json:"policy,omitempty"` // about how the address is set up, not about abuse
	Reason       string    `json:"reason,omitempty"` // what the list says; see [CleanText]
	Delist       string    `json:"delist,omitempty"`
	Notes        string    `json:"notes,omitempty"`        // what the catalogue says about the list
	Weight       int       `json:"weight"`                 // 0 to 100
	Confidence   float64   `json:"confidence"`             // 0 to 1
	Mass         bool      `json:"mass,omitempty"`         // part of a mass listing
	Corroborated bool      `json:"corroborated,omitempty"` // a list of another operator says so, too
	Vicinity     bool      `json:"vicinity,omitempty"`     // a code says that its neighbours are to blame, or may be
	Frozen       bool      `json:"frozen,omitempty"`       // the list is not believed now: this is what it last said
	Checked      time.Time `json:"checked,omitzero"`       // the latest usable answer
	Unknown      time.Time `json:"unknown_since,omitzero"` // since when there has been no usable answer
}

// What the confidence in a listing is multiplied with.
const (
	trustSuspicious = 0.3 // not confirmed
	trustLeaving    = 0.7 // a first clean answer
	trustMass       = 0.3 // part of a mass listing that no other list confirms
	trustFrozen     = 0.5 // the list is not believed now
)

// Exposure says how much the listings together keep mail from being
// delivered, from 0 to 1: 1 − Π(1 − weight/100 · confidence).
func Exposure(listings []Listing) float64 {
	rest := 1.0
	for i := range listings {
		if l := &listings[i]; l.Stage != NotListed {
			rest *= 1 - float64(l.Weight)/100*l.Confidence
		}
	}
	return 1 - rest
}

// UnknownOn returns the lists of which nobody can tell now whether they have a
// subject, whose listings these are: they were not asked yet, gave no usable
// answer, or are not believed. Being on none of the others is not being clean.
func UnknownOn(listings []Listing) (lists []string) {
	checked := map[string]bool{} // a list may be asked about the network alone
	for i := range listings {
		checked[listings[i].List] = checked[listings[i].List] || !listings[i].Checked.IsZero()
	}
	for i := range listings {
		l := &listings[i]
		if l.Stage == NotListed && (l.Frozen || !l.Unknown.IsZero() || !checked[l.List]) && !slices.Contains(lists, l.List) {
			lists = append(lists, l.List)
		}
	}
	return lists
}

// A Level says what an exposure deserves. The zero Level is LevelNone.
type Level uint8

// The levels.
const (
	LevelNone Level = iota
	LevelNote       // to be seen by who looks
	LevelWarn       // to be told
	LevelPage       // to be told at once
)

var levelTexts = []string{"none", "note", "warn", "page"}

// String returns the level in a word.
func (l Level) String() string { return levelTexts[l] }

// MarshalText writes what String returns.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// LevelOf returns what an exposure deserves.
func LevelOf(exposure float64) Level {
	const slack = 1e-9 // a weight of 80 is 0.8, whatever its floating point says
	switch {
	case exposure >= 0.8-slack:
		return LevelPage
	case exposure >= 0.4-slack:
		return LevelWarn
	case exposure > 0:
		return LevelNote
	}
	return LevelNone
}

// Listings returns what is known about a watched subject: of each list that
// it was asked about, those first that it is on. Where a list has an IPv6
// address and the network around it, the worse of the two is the listing: it is
// mostly one entry. It is nil if s is not watched.
func (w *Watch) Listings(s Subject) []Listing {
	m := w.members[s]
	if m == nil {
		return nil
	}
	var all []Listing
	for _, u := range m.units {
		for i := range u.pairs {
			all = withListing(all, u.pairs[i].view())
		}
	}
	for i := range all {
		l := &all[i]
		l.Corroborated = l.Stage == OnList && slices.ContainsFunc(all, l.isConfirmedBy)
		if l.Mass && !l.Corroborated {
			l.Confidence *= trustMass
		}
	}
	slices.SortStableFunc(all, func(a, b Listing) int {
		return cmp.Or(cmp.Compare(b.rank(), a.rank()), cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.List, b.List))
	})
	return all
}

// withListing adds l to all, or keeps the one that says more if all has a listing
// of that list already.
func withListing(all []Listing, l Listing) []Listing {
	i := slices.IndexFunc(all, func(other Listing) bool {
		return other.List == l.List && other.Stage != NotListed && l.Stage != NotListed
	})
	if i < 0 {
		return append(all, l)
	}
	if l.grade() > all[i].grade() {
		all[i] = l
	}
	return all
}

// grade puts what is confirmed before what is not, what stands on its own before
// what is one of many, then the worse, and of equals the network.
func (l *Listing) grade() (n int) {
	if l.Stage == OnList || l.Stage == Leaving {
		n += 2000
	}
	if !l.Mass {
		n += 1000
	}
	if !l.Subject.IsSingle() {
		n++
	}
	return n + 2*l.Weight
}

// rank puts what is listed before what may be and what is not.
func (l *Listing) rank() int {
	return [...]int{NotListed: 0, Suspicious: 1, Leaving: 2, OnList: 3}[l.Stage]
}

// isConfirmedBy reports whether other is reason to believe l.
func (l *Listing) isConfirmedBy(other Listing) bool {
	return other.Operator != l.Operator && other.Stage == OnList && !other.Mass && !other.Frozen
}

// view returns what is known about p.
func (p *pair) view() Listing {
	l := p.list
	v := Listing{
		Subject: p.unit.subject, List: l.Name, Title: l.Title, Operator: l.Operator, Tier: l.Tier, Stage: p.stage,
		Checked: unix(p.known), Unknown: unix(p.unknown), Frozen: !l.health.usable(p.unit.subject.Kind()),
	}
	if p.stage == NotListed {
		return v
	}
	g := p.listing
	v.Since, v.Confirmed, v.Codes, v.Meaning = g.first, g.opened, codeTexts(g.j.Codes), g.j.Meaning
	v.Scope, v.Policy, v.Weight, v.Mass = g.j.Scope, g.j.Policy, g.j.Weight, g.mass
	v.Vicinity = l.isVicinity(g.j.Codes)
	v.Reason, v.Delist, v.Notes = g.text, delist(g.text, &l.List), l.Notes
	v.Confidence = 1 - l.falls.rate()
	switch {
	case p.stage == Suspicious:
		v.Confidence *= trustSuspicious
	case p.stage == Leaving:
		v.Confidence *= trustLeaving
	}
	if v.Frozen {
		v.Confidence *= trustFrozen
	}
	return v
}

// isVicinity reports whether one of the codes says that neighbours are to blame.
func (l *List) isVicinity(codes []netip.Addr) bool {
	return slices.ContainsFunc(codes, func(addr netip.Addr) bool {
		_, meant := l.meaning(addr)
		return slices.ContainsFunc(meant, func(c *Code) bool { return c.Vicinity })
	})
}

func unix(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds).UTC()
}

// Subjects yields the subjects that are watched, in no order.
func (w *Watch) Subjects() iter.Seq[Subject] {
	return func(yield func(Subject) bool) {
		for s := range w.members {
			if !yield(s) {
				return
			}
		}
	}
}

// Alarmed yields the subjects that at least one list has, or may have, in no
// order. They are few, and finding them costs little.
func (w *Watch) Alarmed() iter.Seq[Subject] {
	return func(yield func(Subject) bool) {
		for s, m := range w.members {
			if slices.ContainsFunc(m.units, func(u *unit) bool { return u.alarms > 0 }) && !yield(s) {
				return
			}
		}
	}
}

// Asks reports whether that list is asked about s, which may be the network of
// a subject, as [Listing.Subject] is.
func (w *Watch) Asks(s Subject, list string) bool {
	u := w.units[s]
	return u != nil && slices.ContainsFunc(u.pairs, func(p pair) bool { return p.list.Name == list })
}

// Health is how one list fares.
type Health struct {
	List        string        `json:"list"`
	Title       string        `json:"title"`
	Zone        string        `json:"zone"` // without a key
	Tier        Tier          `json:"tier"`
	State       State         `json:"state"`
	Since       time.Time     `json:"since,omitzero"`
	Text        string        `json:"text,omitempty"`    // what is wrong, for the operator
	Terms       string        `json:"terms,omitempty"`   // on which the list may be asked
	NotFor      Kind          `json:"not_for,omitempty"` // kinds that cannot be tested, and are not asked about
	Quarantined time.Time     `json:"quarantined,omitzero"`
	Passed      time.Time     `json:"passed,omitzero"`    // the latest test that passed
	NextTest    time.Time     `json:"next_test,omitzero"` // when it is due
	Errors      float64       `json:"errors"`             // share of the latest questions that got no usable answer
	Latency     time.Duration `json:"latency"`            // of an answer, averaged, in nanoseconds
	FalseAlarms float64       `json:"false_alarms"`       // share of first answers that were not confirmed
	Stretch     float64       `json:"stretch"`            // by how much its budget stretches the intervals
	AskedToday  int           `json:"asked_today"`        // of its budget (UTC)
	Spent       time.Time     `json:"spent,omitzero"`     // when what may be asked today was; nothing new is found before the day ends (UTC)
	Servers     []string      `json:"servers,omitempty"`  // of the zone
	Primary     string        `json:"primary,omitempty"`
	Serial      uint32        `json:"serial,omitempty"` // of the zone's data
	SerialSince time.Time     `json:"serial_since,omitzero"`
}

// Health returns how each list fares, in the order of the catalogue.
func (w *Watch) Health() []Health {
	all := make([]Health, 0, len(w.lists))
	for _, l := range w.lists {
		h, z := &l.health, &l.zoneInfo
		v := Health{
			List: l.Name, Title: l.Title, Zone: l.PublicZone(), Tier: l.Tier, State: h.state, Since: h.since, Text: h.text,
			Terms: l.Terms, NotFor: h.blind, Quarantined: h.quarantined, Passed: h.passed, NextTest: l.nextTest,
			Errors: h.errors, Latency: h.latency, FalseAlarms: l.falls.rate(), Stretch: l.stretch(), AskedToday: l.budget.askedAt(w.now), Spent: l.budget.spentAt(w.now),
			Servers: slices.Clone(z.servers), Primary: z.primary, Serial: z.serial, SerialSince: z.serialSince,
		}
		all = append(all, v)
	}
	return all
}
