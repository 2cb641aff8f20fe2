package dnsbl

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// A pairKey names a pair across restarts.
type pairKey struct {
	subject Subject
	list    string
}

// A restoredPair is what the history says about a pair that is not watched
// yet.
type restoredPair struct {
	stage   Stage
	listing *listing
	odd     bool
	welcome bool
}

// Restore takes the history from before a restart, in its order: what is
// listed, since when, and how often it was lately. It is called before the
// subjects are added; those that never are only cost memory. Lists are tested anew
// before they are believed.
func (w *Watch) Restore(history []Event) {
	if w.restored == nil {
		w.restored = map[pairKey]*restoredPair{}
	}
	lists := w.byName()
	for _, e := range history {
		l := lists[e.List]
		if l == nil || e.Subject == (Subject{}) {
			continue
		}
		key := pairKey{e.Subject, e.List}
		r := w.restored[key]
		if r == nil {
			r = &restoredPair{}
		}
		if !r.apply(e, l) {
			continue
		}
		w.restored[key] = r
		if r.listing == nil && !r.odd && !r.welcome {
			delete(w.restored, key)
		}
	}
}

// A Memory is what a [Watch] knows of a list that a restart must not cost it, and
// that the history does not tell.
type Memory struct {
	List        string    `json:"list"`                 // its name
	Asked       int       `json:"asked,omitempty"`      // questions on the day that it is of (UTC)
	Quarantined time.Time `json:"quarantined,omitzero"` // since when it is in quarantine
	Proposed    bool      `json:"proposed,omitempty"`   // its removal was, in this quarantine
	Codes       []string  `json:"codes,omitempty"`      // those that it does not document and that were told
	Odd         int       `json:"odd,omitempty"`        // how many subjects had one, when that was told
	Zone        string    `json:"zone,omitempty"`       // without a key, that the rest is about
	Servers     []string  `json:"servers,omitempty"`    // of it
	Primary     string    `json:"primary,omitempty"`
}

// Memories returns what is to be given to [Watch.RestoreLists] after a restart.
func (w *Watch) Memories() []Memory {
	all := make([]Memory, 0, len(w.lists))
	for _, l := range w.lists {
		all = append(all, Memory{
			List: l.Name, Asked: l.budget.askedAt(w.now), Quarantined: l.health.quarantined, Proposed: l.health.proposed,
			Codes: codeTexts(slices.SortedFunc(maps.Keys(l.toldCodes), netip.Addr.Compare)), Odd: l.oddTold,
			Zone: l.hide(l.zone), Servers: slices.Clone(l.zoneInfo.servers), Primary: l.zoneInfo.primary,
		})
	}
	return all
}

// RestoreLists takes the memories of that time. It is called before anything is
// asked. A list that was in quarantine still is, until its test passes twice; what
// else its health was is found out anew.
func (w *Watch) RestoreLists(now, kept time.Time, memories []Memory) {
	w.tick(now)
	lists := w.byName()
	for _, m := range memories {
		l := lists[m.List]
		if l == nil || !l.open {
			continue
		}
		if m.Asked >= 0 && kept.Truncate(wholeDay).Equal(w.now.Truncate(wholeDay)) {
			l.budget.restore(w.now, m.Asked)
		}
		l.health.quarantined, l.health.proposed = sooner(m.Quarantined, w.now), m.Proposed
		if m.Zone == l.hide(l.zone) {
			l.zoneInfo.servers, l.zoneInfo.primary = m.Servers, m.Primary
		}
		l.oddTold = m.Odd
		for _, text := range m.Codes[:min(len(m.Codes), maxCodesOf)] {
			if c, err := netip.ParseAddr(text); err == nil {
				l.toldCodes[c] = true
			}
		}
	}
}

// byName returns the lists by their names.
func (w *Watch) byName() map[string]*watched {
	lists := map[string]*watched{}
	for _, l := range w.lists {
		lists[l.Name] = l
	}
	return lists
}

// apply takes one event of the history. It reports whether that says something
// about the pair.
func (r *restoredPair) apply(e Event, l *watched) bool {
	switch e.Kind {
	case Suspected:
		l.falls.suspected++
		r.stage, r.welcome = Suspicious, false
	case Dismissed:
		l.falls.dismissed++
		r.stage = NotListed
	case Opened, Relapsed, Recoded, Flapped, Clearing:
		r.stage = OnList // the clean answer of a Clearing is asked for again
	case Cleared:
		r.stage = NotListed
	case CodeUnknown:
		r.odd = true
		return true
	case Welcomed, WelcomeLost:
		r.welcome = e.Kind == Welcomed
		return true
	default:
		return false
	}
	g := r.listing
	if g == nil {
		g = &listing{ttl: assumedTTL}
	}
	g.restore(e)
	r.listing = g
	if r.stage == NotListed && len(g.opens) == 0 {
		r.listing = nil
	}
	return true
}

// restore takes what an event says about the listing.
func (g *listing) restore(e Event) {
	g.first, g.text, g.server, g.mass = e.Since, e.Reason, e.Server, e.Mass
	g.j = Judgement{Verdict: Listed, Reason: HasEntry, Meaning: e.Meaning, Scope: e.Scope, Weight: e.Weight, Policy: e.Policy}
	for _, text := range e.Codes {
		if addr, err := netip.ParseAddr(text); err == nil {
			g.j.Codes = append(g.j.Codes, addr)
		}
	}
	g.textAsked = e.Kind != Suspected
	switch e.Kind {
	case Opened:
		g.opened = e.Time
		g.opensAt(e.Time)
	case Relapsed:
		g.opensAt(e.Time)
	case Flapped:
		if n := len(g.opens); n == 0 || !g.opens[n-1].Equal(e.Time) { // else a Relapsed came with it
			g.opensAt(e.Time)
		}
		if g.opened.IsZero() {
			g.opened = e.Time
		}
	}
	g.forget(e.Time)
}

// takeRestored gives p what the history says about it.
func (w *Watch) takeRestored(p *pair) {
	key := pairKey{p.unit.subject, p.list.Name}
	r := w.restored[key]
	if r == nil {
		return
	}
	delete(w.restored, key)
	p.listing, p.stage, p.welcome = r.listing, r.stage, r.welcome
	if r.odd {
		p.list.setOdd(p)
	}
	if p.listing != nil {
		p.listing.id = w.id()
	}
	p.rewind(w.now, 0) // written when the clock was ahead
	if p.stage != NotListed {
		p.unit.alarms++
		p.line = confirming
	}
}
