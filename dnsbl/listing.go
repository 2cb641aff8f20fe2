package dnsbl

import (
	"net/netip"
	"slices"
	"time"
)

// A Stage says where a subject stands with a list. The zero stage is NotListed.
//
//	NotListed → Suspicious → OnList → Leaving → NotListed
//
// An unknown answer changes no stage.
type Stage uint8

// The stages.
const (
	NotListed  Stage = iota
	Suspicious       // one answer says listed
	OnList           // confirmed
	Leaving          // one answer says clean
)

var stageTexts = []string{"CLEAN", "SUSPECT", "LISTED", "CLEARING"}

// String returns the stage as it is shown: "CLEAN", "SUSPECT", "LISTED" or
// "CLEARING".
func (s Stage) String() string { return stageTexts[s] }

// MarshalText writes what String returns.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// The times of the stages.
const (
	confirmAfter = time.Minute      // a second answer counts so long after the first at the earliest
	retryAfter   = time.Minute      // what could not be told is asked again then
	actListed    = 10 * time.Minute // a listing on a list of tier Act is looked at so often
	flapWithin   = 24 * time.Hour
	flapsAllowed = 3               // times that a subject is listed within flapWithin before it counts as one incident
	flapsKept    = 16              // times that are remembered
	maxTTL       = 12 * time.Hour  // of a listing; more is not waited for
	assumedTTL   = 5 * time.Minute // of a listing from before a restart
	askAuthority = 2               // confirmations that got no usable answer, before the resolver is asked instead
)

// A listing is what is known about a subject that is, was lately, or may be
// on a list. Most are not and have none.
type listing struct {
	id        uint32    // tells it from others in what was asked about it
	first     time.Time // the first answer of this stay on the list
	opened    time.Time // when it was confirmed; zero before
	clean     time.Time // the first clean answer, while Leaving
	ttl       time.Duration
	j         Judgement
	next      []netip.Addr // codes that one answer had and that the next must confirm
	text      string       // what the list says
	textAsked bool
	server    string
	tries     int // confirmations without a usable answer
	opens     []time.Time
	mass      bool
}

// seen notes a positive answer.
func (g *listing) seen(l *watched, a Answer) {
	g.ttl = min(max(a.TTL, 0), maxTTL)
	g.server = l.hide(CleanText([]string{a.Server}))
}

// cleanGap is how far two clean answers have to be apart.
func (g *listing) cleanGap() time.Duration { return max(confirmAfter, 2*g.ttl) }

// opensAt notes that it was listed at that time and returns how often it was
// within a day.
func (g *listing) opensAt(now time.Time) int {
	g.forget(now)
	if len(g.opens) == flapsKept {
		g.opens = slices.Delete(g.opens, 0, 1)
	}
	g.opens = append(g.opens, now)
	return len(g.opens)
}

// forget drops the times that are more than a day past.
func (g *listing) forget(now time.Time) {
	g.opens = slices.DeleteFunc(g.opens, func(t time.Time) bool { return now.Sub(t) >= flapWithin })
}

// flaps reports whether it was listed so often that it is one incident.
func (g *listing) flaps(now time.Time) bool {
	g.forget(now)
	return len(g.opens) > flapsAllowed
}

// recode takes the codes of a new answer while it is listed. Other codes than
// before count once a second answer has the same. It reports whether they now
// do.
func (g *listing) recode(j Judgement) bool {
	if slices.Equal(j.Codes, g.j.Codes) {
		g.next = nil
		return false
	}
	if !slices.Equal(j.Codes, g.next) {
		g.next = j.Codes
		return false
	}
	g.j, g.next, g.textAsked = j, nil, false
	return true
}

// event is what an event about the listing says.
func (g *listing) event(kind EventKind, p *pair, now time.Time) Event {
	return Event{
		Time: now, Kind: kind, List: p.list.Name, Subject: p.unit.subject, Since: g.first,
		Codes: codeTexts(g.j.Codes), Meaning: g.j.Meaning, Scope: g.j.Scope, Weight: g.j.Weight, Policy: g.j.Policy,
		Reason: g.text, Delist: delist(g.text, &p.list.List), Server: g.server, Mass: g.mass,
	}
}

// delist returns where an entry is removed: what the list says with the
// entry, else what the catalogue says. What the list says counts only if it
// leads to where the list itself is: a zone in the hands of others must not
// send people anywhere.
func delist(text string, l *List) string {
	link := DelistURL(text)
	host := hostOf(link)
	for _, own := range []string{l.Zone, l.Keyed, hostOf(l.Delist)} {
		if host != "" && isWithin(host, registrable(own)) {
			return link
		}
	}
	return l.Delist
}
