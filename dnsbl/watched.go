package dnsbl

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A watched list is one that a Watch asks.
type watched struct {
	List
	zone string // what is asked, key included
	key  string // in the zone, and never to be shown

	open   bool // to us
	health condition
	budget budget
	polls  queue
	checks queue // pairs to be rechecked
	urgent queue // pairs to be confirmed
	demand int64 // polls of all its pairs in 10⁹ seconds

	inquiries []*inquiry // that wait to be asked, the oldest first
	doubts    []*inquiry // of which it says listed, and that wait for its next test

	test     *healthTest // that runs; nil if none does
	tests    uint32      // how many began
	begun    time.Time   // the latest
	nextTest time.Time
	thorough bool // the next test is a full one that asks past the cache
	failures int  // questions without an answer, in a row

	// Its own servers do not serve this host, though they do the resolver: that
	// is what they permit. What they say to us is worth nothing then.
	shut bool

	toldCodes map[netip.Addr]bool // unknown codes that were told
	odd       int                 // pairs that have or had one
	oddTold   int                 // how many had when that was told
	falls     falseAlarms
	crowd     crowd
	zoneInfo  delegationInfo
}

// openWith opens the list with a key, if it needs one, and reports whether it
// is open to us.
func (l *watched) openWith(keys Keys) bool {
	if l.zone, l.open = l.List.zone(keys); l.zone != l.Zone {
		l.key = strings.ToLower(string(keys[l.Operator]))
	}
	return l.open
}

// leaseFor is how long the answer to a task is waited for. After that it is
// asked again.
const leaseFor = 2 * time.Minute

// wakes returns when the list next has something to ask, zero for never.
func (l *watched) wakes(now time.Time) time.Time {
	if !l.open {
		return time.Time{}
	}
	var t time.Time
	switch {
	case l.test == nil:
		t = later(l.nextTest, l.budget.next(now, 0))
	case l.test.sent < len(l.test.order):
		t = l.budget.next(now, 0)
	default:
		t = l.begun.Add(leaseFor)
	}
	if !l.health.state.Usable() {
		return t
	}
	if len(l.urgent) > 0 {
		t = sooner(t, later(time.Unix(0, l.urgent[0].due), l.budget.next(now, 0)))
	}
	for _, q := range []queue{l.checks, l.polls} {
		if len(q) > 0 {
			t = sooner(t, later(time.Unix(0, q[0].due), l.budget.next(now, l.budget.reserve())))
		}
	}
	if len(l.inquiries) > 0 {
		t = sooner(t, l.inquiriesAt(now))
	}
	return t
}

// hasWork reports whether there is a question to l, if its budget allows it.
func (l *watched) hasWork(now time.Time) bool {
	if l.test != nil && l.test.sent < len(l.test.order) {
		return true
	}
	return l.health.state.Usable() && (l.urgent.isDue(now) || l.checks.isDue(now) || l.polls.isDue(now) || len(l.inquiries) > 0)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// testSoon brings the next test forward, and makes it a thorough one, because
// something has to be known about the list. A list in quarantine keeps its
// times.
func (l *watched) testSoon(now time.Time) {
	if l.health.isQuarantined() {
		return
	}
	l.thorough = true
	l.nextTest = sooner(l.nextTest, later(now, l.begun.Add(retestAfter)))
}

// stretch is by how much polls are further apart than they should be, so that
// all of them fit into the budget of the list.
func (l *watched) stretch() float64 { return max(1, float64(l.demand)/1e9/l.budget.rate()) }

// hide returns what the list said without the key.
func (l *watched) hide(text string) string {
	if l.key == "" {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		n := 1
		if len(text) >= len(l.key) && strings.EqualFold(text[:len(l.key)], l.key) {
			n = len(l.key)
			b.WriteString(hiddenKey)
		} else {
			b.WriteByte(text[0])
		}
		text = text[n:]
	}
	return b.String()
}

// falseAlarms counts how often a first answer of a list was not confirmed.
type falseAlarms struct{ suspected, dismissed int }

// rate returns the share of suspicions that nothing came of, 0 while there
// are too few to tell.
func (f falseAlarms) rate() float64 {
	if f.suspected < 10 {
		return 0
	}
	return min(1, float64(f.dismissed)/float64(f.suspected)) // a restart may know the end alone
}

// A crowd is the neighbourhoods that a list lately began to list: many at
// once are the list's doing, whatever else is true.
type crowd struct {
	recent      map[Subject]time.Time
	from, until time.Time // of the latest mass listing
}

// The share of the watched neighbourhoods, and the number, that one list may
// newly list within so many of its intervals: an address that sends not now, but
// lately, is asked about in that time. Where a budget stretches the intervals that
// is not the time of a sweep, but what is listed over half a day is not the list's
// doing.
const (
	crowdShare  = 0.02
	crowdLeast  = 5
	crowdWithin = 4
)

// add notes a new suspicion and reports whether a mass listing begins with
// it. within is the time that counts, of is how many neighbourhoods there are.
func (c *crowd) add(s Subject, now time.Time, within time.Duration, of int) bool {
	if c.recent == nil {
		c.recent = map[Subject]time.Time{}
	}
	for k, t := range c.recent {
		if now.Sub(t) > within {
			delete(c.recent, k)
		}
	}
	c.recent[s] = now
	if float64(len(c.recent)) <= max(crowdLeast, crowdShare*float64(of)) {
		return false
	}
	began := now.After(c.until)
	if began {
		c.from = now.Add(-within)
	}
	c.until = now.Add(within)
	return began
}

// covers reports whether what was first seen then is part of a mass listing.
func (c *crowd) covers(t time.Time) bool { return !t.Before(c.from) && !t.After(c.until) }

// delegationInfo is what is known about the zone of a list.
type delegationInfo struct {
	asked       time.Time
	servers     []string // NS, sorted
	primary     string   // SOA
	serial      uint32
	serialSince time.Time // when this serial was first seen
}

// learn takes the answers about the zone, and returns what changed in words,
// empty if nothing did or nothing was known before.
func (d *delegationInfo) learn(ns, soa Answer, hide func(string) string, now time.Time) (change string) {
	d.asked = now
	if ns.Status == Found && len(ns.Names) > 0 {
		servers := lowered(ns.Names, hide)
		if d.servers != nil && !slices.Equal(servers, d.servers) {
			change = "name servers were " + strings.Join(d.servers, " ") + ", are " + strings.Join(servers, " ")
		}
		d.servers = servers
	}
	if soa.Status != Found || len(soa.Names) == 0 {
		return change
	}
	primary := lowered(soa.Names[:1], hide)[0]
	if d.primary != "" && primary != d.primary && change == "" {
		change = "primary server was " + d.primary + ", is " + primary
	}
	d.primary = primary
	if soa.Serial != d.serial || d.serialSince.IsZero() {
		d.serial, d.serialSince = soa.Serial, now
	}
	return change
}

// maxServers is how many name servers of a zone are remembered.
const maxServers = 32

// lowered returns names in lower case, cleaned and sorted.
func lowered(names []string, hide func(string) string) []string {
	var out []string
	for _, name := range names[:min(len(names), maxServers)] {
		out = append(out, hide(strings.ToLower(CleanText([]string{strings.TrimSuffix(name, ".")}))))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
