package dnsbl

import (
	"net/netip"
	"slices"
	"time"
)

// Take takes the answer to a task, whose time may lie after it was due, and
// returns what changed by it.
func (w *Watch) Take(now time.Time, t Task, a Answer) []Event {
	w.tick(now)
	switch t.Kind {
	case Probe:
		w.takeProbe(t, a)
	case Explanation:
		w.takeText(t, a)
	case Once:
		w.takeInquiry(t, a)
	default:
		if t.pair.asked == t.id {
			t.pair.asked = 0
			w.takeAnswer(t, a)
		}
	}
	return w.flush()
}

// takeText takes what the list says about an entry.
func (w *Watch) takeText(t Task, a Answer) {
	if g := t.pair.listing; g != nil && g.id == t.id && a.Status == Found && !t.on.leaves(a.Names) {
		g.text = t.on.hide(CleanText(a.Texts))
	}
}

// takeAnswer takes the answer to a poll or a confirmation.
func (w *Watch) takeAnswer(t Task, a Answer) {
	p, l := t.pair, t.on
	j := l.Judge(a)
	if t.Kind == Poll && t.authoritative && (l.shut || j.Verdict != Listed) {
		p.direct = false // they may serve the resolver and not us
		l.set(p, w.now, rechecking)
		return
	}
	p.direct = t.Kind == Poll && t.authoritative
	w.learnHealth(t, a, j)
	if t.authoritative && (l.shut || j.Reason.refused() || a.Status == Closed) {
		p.listing.tries = askAuthority // it serves the resolver and not us
		j = Judgement{}
	}
	if j.Verdict == Unknown || !l.health.usable(p.unit.subject.Kind()) {
		w.unknown(p)
		return
	}
	p.known, p.unknown, p.misses = w.now.UnixNano(), 0, 0
	if p.listing != nil {
		p.listing.tries = 0
	}
	if j.Verdict == Listed {
		w.positive(p, a, j)
		return
	}
	p.negTTL = uint16(min(max(a.TTL, 0), time.Hour) / time.Second)
	w.negative(p, j)
}

// learnHealth takes what an answer says about the list rather than about the
// subject.
func (w *Watch) learnHealth(t Task, a Answer, j Judgement) {
	l := t.on
	if t.authoritative && (!a.Status.usable() || j.Reason.refused()) {
		l.testSoon(w.now)
		return // about the way to its servers rather than about the list
	}
	l.health.answered(a.Status.usable(), w.now.Sub(t.issued))
	l.failures++
	if a.Status.usable() {
		l.failures = 0
	}
	if t.Kind != Once { // what is written down and told would hold the address of somebody else
		w.learnCodes(t.pair, j)
	}
	switch {
	case j.Reason.refused() && l.health.state != Rejected:
		w.refuse(l, j, a)
	case j.Reason == Rewritten, l.failures == 3:
		l.testSoon(w.now)
	}
}

// learnCodes takes the codes of an answer that the list does not document. Each
// pair that has one is in the history once. People are told of each such code, and
// again when ten times as many pairs have one.
func (w *Watch) learnCodes(p *pair, j Judgement) {
	if j.Reason != UnknownCode && j.Reason != HasEntry {
		return
	}
	l := p.list
	var odd []netip.Addr
	fresh := false
	for _, c := range j.Codes {
		if reason, _ := l.meaning(c); reason != UnknownCode {
			continue
		}
		odd = append(odd, c)
		if len(l.toldCodes) < maxCodesOf && !l.toldCodes[c] {
			l.toldCodes[c], fresh = true, true
		}
	}
	if odd == nil || p.odd && !fresh {
		return
	}
	l.setOdd(p)
	loud := fresh || l.odd >= 10*l.oddTold
	if loud {
		l.oddTold = l.odd
	}
	w.tell(Event{Kind: CodeUnknown, List: l.Name, Subject: p.unit.subject, Quiet: !loud, Codes: codeTexts(odd), Count: l.odd, Text: UnknownCode.String()})
}

// setOdd notes that the list answered about p with a code that it does not
// document.
func (l *watched) setOdd(p *pair) {
	if !p.odd {
		p.odd = true
		l.odd++
	}
}

// unknown leaves everything about p as it is, and asks again soon.
func (w *Watch) unknown(p *pair) {
	if p.unknown == 0 {
		p.unknown = w.now.UnixNano()
	}
	if g := p.listing; g != nil && g.tries < askAuthority {
		g.tries++
	}
	wait := min(p.interval(w.now), retryAfter<<min(p.misses, 10))
	if p.misses < 255 {
		p.misses++
	}
	due := w.now.Add(max(wait, retryAfter))
	if p.stage == Suspicious {
		due = later(due, p.confirmAt())
	}
	p.list.set(p, due, p.line)
}

// positive takes an answer that says listed.
func (w *Watch) positive(p *pair, a Answer, j Judgement) {
	g := p.listing
	switch p.stage {
	case NotListed:
		w.suspect(p, a, j)
	case Suspicious:
		g.seen(p.list, a)
		if !slices.Equal(j.Codes, g.j.Codes) {
			g.j, g.textAsked = j, false
		}
		if w.trusts(p, g.first) {
			w.open(p)
		}
	case OnList:
		g.seen(p.list, a)
		w.stay(p, j)
	case Leaving:
		g.seen(p.list, a)
		p.stage, g.clean = OnList, time.Time{}
		w.tellListing(Relapsed, p, true)
		w.countFlaps(p)
		w.schedule(p)
	}
}

// trusts reports whether p's list passed a test that began after that time,
// so that what it says twice is the truth. If not, the list is tested and p
// asked once more.
func (w *Watch) trusts(p *pair, since time.Time) bool {
	if !p.list.health.passed.Before(since) {
		return true
	}
	p.list.testSoon(w.now)
	p.list.set(p, w.now.Add(confirmAfter/3), confirming)
	return false
}

// suspect takes the first answer that says listed.
func (w *Watch) suspect(p *pair, a Answer, j Judgement) {
	l := p.list
	g := &listing{}
	if p.listing != nil {
		g.opens = p.listing.opens
	}
	g.id, g.first, g.j = w.id(), w.now, j
	g.seen(p.list, a)
	p.listing, p.stage = g, Suspicious
	p.welcome, p.lost = false, false
	l.falls.suspected++
	l.testSoon(w.now)
	w.tellListing(Suspected, p, true)
	hood := p.unit.subject.neighbourhood()
	if w.hoods[hood] > 0 && l.crowd.add(hood, w.now, crowdWithin*l.Every, len(w.hoods)) {
		w.tell(Event{Kind: MassListing, List: l.Name, Count: len(l.crowd.recent), State: l.health.state,
			Text: "it lists many unrelated subjects at once; nothing should be done about them until another list agrees"})
	}
	w.alarm(p.unit, 1)
	l.set(p, w.now, confirming)
}

// alarm notes that one more pair of the unit is suspicious, or one less. The
// first makes the other lists be asked sooner.
func (w *Watch) alarm(u *unit, n int) {
	u.alarms += n
	if n > 0 && u.alarms == 1 {
		w.hasten(u)
	}
}

// open takes the answer that confirms a listing.
func (w *Watch) open(p *pair) {
	g := p.listing
	p.stage, g.opened = OnList, w.now
	g.mass = p.list.crowd.covers(g.first)
	if !w.countFlaps(p) {
		n := p.network()
		told := n != nil && n.stage == OnList && n.listing.j.Weight >= g.j.Weight // the network has the entry
		w.tellListing(Opened, p, told || g.mass || g.flaps(w.now))
	}
	w.schedule(p)
}

// countFlaps counts that p is listed once more. At the fourth time within a
// day it tells of them as one, and reports that it did.
func (w *Watch) countFlaps(p *pair) bool {
	n := p.listing.opensAt(w.now)
	if n != flapsAllowed+1 {
		return false
	}
	e := p.listing.event(Flapped, p, w.now)
	e.Count, e.Quiet = n, p.listing.mass
	w.tell(e)
	return true
}

// stay takes a further answer about what is listed.
func (w *Watch) stay(p *pair, j Judgement) {
	switch {
	case p.listing.recode(j):
		w.tellListing(Recoded, p, false)
	case p.listing.next != nil:
		p.list.set(p, w.now.Add(confirmAfter), confirming)
		return
	}
	w.schedule(p)
}

// negative takes an answer that says clean.
func (w *Watch) negative(p *pair, j Judgement) {
	g := p.listing
	switch p.stage {
	case NotListed:
		w.welcome(p, j)
		if g != nil && !g.flaps(w.now) && len(g.opens) == 0 {
			p.listing = nil
		}
		w.schedule(p)
	case Suspicious:
		if w.trusts(p, g.first) {
			p.list.falls.dismissed++
			w.tellListing(Dismissed, p, true)
			w.leave(p)
		}
	case OnList:
		p.stage, g.clean, g.next = Leaving, w.now, nil
		p.list.testSoon(w.now)
		w.tellListing(Clearing, p, true)
		p.list.set(p, w.now.Add(g.cleanGap()), confirming)
	case Leaving:
		w.clear(p)
	}
}

// clear takes a further clean answer about what was listed.
func (w *Watch) clear(p *pair) {
	g := p.listing
	switch gap := g.clean.Add(g.cleanGap()); {
	case w.now.Before(gap):
		p.list.set(p, gap, confirming)
	case !w.trusts(p, g.clean):
	case g.flaps(w.now):
		w.schedule(p) // it will be back: the incident stays open for a day
	default:
		w.tellListing(Cleared, p, g.mass)
		w.leave(p)
	}
}

// leave makes p one that is not listed. How often it was lately is kept.
func (w *Watch) leave(p *pair) {
	p.stage = NotListed
	if len(p.listing.opens) == 0 {
		p.listing = nil
	}
	w.alarm(p.unit, -1)
	w.schedule(p)
}

// welcome notes whether p is known as good. Two answers in a row say that it
// is no more.
func (w *Watch) welcome(p *pair, j Judgement) {
	switch {
	case j.Reason == IsWelcome:
		if !p.welcome {
			w.tellWelcome(Welcomed, p, j)
		}
		p.welcome, p.lost = true, false
	case p.welcome && !p.lost:
		p.lost = true
	case p.welcome:
		p.welcome, p.lost = false, false
		w.tellWelcome(WelcomeLost, p, j)
	}
}

func (w *Watch) tellWelcome(kind EventKind, p *pair, j Judgement) {
	w.tell(Event{Kind: kind, List: p.list.Name, Subject: p.unit.subject, Codes: codeTexts(j.Codes), Meaning: j.Meaning})
}

// tellListing adds an event about the listing of p.
func (w *Watch) tellListing(kind EventKind, p *pair, quiet bool) {
	e := p.listing.event(kind, p, w.now)
	e.Quiet = quiet
	w.tell(e)
}
