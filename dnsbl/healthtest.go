package dnsbl

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A healthTest is a health test of a list that runs.
type healthTest struct {
	id       uint32
	full     bool
	thorough bool // entries that must be there are asked past the cache
	probes   []probe
	answers  []Answer // of the probes; those that did not come yet are timeouts
	missing  int      // answers that did not come yet
	order    []int    // probes to ask, some of them twice
	sent     int      // of order
	again    []bool   // probes that the resolver is asked, since no authoritative server answered rightly
	shut     bool     // an authoritative server answered, but for us had no test entry, or one for everything
}

// runTests ends the test of l that waited long enough, and begins the next
// one when it is time.
func (w *Watch) runTests(l *watched) {
	if l.test != nil && l.test.sent == len(l.test.order) && !w.now.Before(l.begun.Add(leaseFor)) {
		w.endTest(l)
	}
	if l.test == nil && !w.now.Before(l.nextTest) {
		w.beginTest(l)
	}
}

func (w *Watch) beginTest(l *watched) {
	full := l.thorough || !l.health.state.Usable() || l.tests%fullEvery == 0
	l.tests++
	t := &healthTest{id: w.id(), full: full, thorough: l.thorough, probes: l.probes(w.rng, w.isOurs, full)}
	if full && w.now.Sub(l.zoneInfo.asked) >= wholeDay {
		t.probes = append(t.probes, delegation()...)
	}
	if t.thorough {
		t.probes = append(t.probes, probe{part: ownServers, label: randomHex(w.rng), typ: TypeA})
	}
	t.missing = len(t.probes)
	t.again = make([]bool, len(t.probes))
	for i := range t.probes {
		t.answers = append(t.answers, Answer{Status: Timeout})
		t.order = append(t.order, i)
	}
	l.test, l.begun, l.thorough = t, w.now, false
}

// isOurs reports whether the address is near one that is watched.
func (w *Watch) isOurs(addr netip.Addr) bool { return w.hoods[Address(addr).neighbourhood()] > 0 }

// askProbe returns the next question of the test that runs.
func (w *Watch) askProbe(l *watched) Task {
	l.budget.take()
	i := l.test.order[l.test.sent]
	l.test.sent++
	p := l.test.probes[i]
	name := l.zone
	if p.label != "" {
		name = p.label + "." + l.zone
	}
	return Task{
		Kind: Probe, List: l.Name, zone: l.zone, name: name, typ: p.typ, issued: w.now, on: l, id: l.test.id, probe: i,
		authoritative: p.part == ownServers || l.test.thorough && p.part == testListed && !l.test.again[i],
	}
}

// takeProbe takes the answer to a question of a test.
func (w *Watch) takeProbe(t Task, a Answer) {
	l := t.on
	if l.test == nil || l.test.id != t.id {
		return
	}
	own := l.test.probes[t.probe].part == ownServers
	switch j := l.Judge(a); {
	case own:
		l.test.shut = l.test.shut || a.Status.usable() && j.Verdict != Clean
	case t.authoritative && !l.isEntry(j):
		l.test.shut = l.test.shut || a.Status.usable() || a.Status == Closed
		l.test.again[t.probe] = true
		l.test.order = append(l.test.order, t.probe)
		return
	}
	if t.typ == TypeA && !own {
		l.health.answered(a.Status.usable(), w.now.Sub(t.issued))
	}
	l.test.answers[t.probe] = a
	if l.test.missing--; l.test.missing == 0 {
		w.endTest(l)
	}
}

// endTest judges the test that runs and sets the time of the next.
func (w *Watch) endTest(l *watched) {
	t, before := l.test, l.health.state
	l.test = nil
	o := l.evaluate(t.probes, t.answers)
	o.text = l.hide(o.text)
	if !t.full && o.state == Untested {
		l.thorough = true // something is wrong: look at once, and closely
		l.nextTest = w.now
		l.health.passes = 0
		return
	}
	if t.thorough {
		l.shut = t.shut
	}
	w.learnZone(l, t)
	changed := l.health.record(o, l.begun, w.now)
	w.settleInquiries(l)
	l.nextTest = l.begun.Add(l.health.nextTest(&l.List))
	if changed {
		w.tellState(l)
	}
	if before.Usable() && !l.health.state.Usable() {
		l.failures = 0
	}
	if l.health.isQuarantined() && !l.health.proposed && w.now.Sub(l.health.quarantined) >= proposeAfter {
		l.health.proposed = true
		w.tell(Event{Kind: RemovalDue, List: l.Name, Since: l.health.quarantined, State: l.health.state,
			Text: fmt.Sprintf("in quarantine since %s: %s", l.health.quarantined.Format("2006-01-02"), l.health.text)})
	}
}

// learnZone takes what a test found out about the zone itself.
func (w *Watch) learnZone(l *watched, t *healthTest) {
	ns := slices.IndexFunc(t.probes, func(p probe) bool { return p.part == delegationNS })
	if ns < 0 {
		return
	}
	if change := l.zoneInfo.learn(t.answers[ns], t.answers[ns+1], l.hide, w.now); change != "" {
		w.tell(Event{Kind: Redelegated, List: l.Name, State: l.health.state, Text: change})
	}
}

// refuse takes a refusal in the answer to anything but a test: the zone is
// left alone at once.
func (w *Watch) refuse(l *watched, j Judgement, a Answer) {
	l.test = nil
	changed := l.health.record(outcome{state: Rejected, text: "not tested: " + j.explain(a), full: true}, w.now, w.now)
	l.nextTest = w.now.Add(l.health.nextTest(&l.List))
	w.settleInquiries(l)
	if changed {
		w.tellState(l)
	}
}

// Distrust says that the resolver cannot be believed, and why: no list can, until
// it is tested anew. What a list is in quarantine for is not forgiven. It returns
// what changed.
func (w *Watch) Distrust(now time.Time, why string) []Event {
	w.tick(now)
	for _, l := range w.lists {
		if !l.open {
			continue
		}
		l.test, l.nextTest, l.health.passes = nil, w.now, 0
		if l.health.become(Untested, "not tested: "+why, w.now) {
			w.tellState(l)
		}
	}
	return w.flush()
}

func (w *Watch) tellState(l *watched) {
	w.tell(Event{Kind: ListState, List: l.Name, State: l.health.state, Text: l.health.text})
}

// tell adds an event, at the time of the call.
func (w *Watch) tell(e Event) {
	e.Time = w.now
	w.events = append(w.events, e)
}
