package dnsbl

import "time"

// maxBack is how far the clock may go back without anybody minding: the time of
// a watch stands still until the clock has caught up. One that goes back further
// was wrong before.
const maxBack = 10 * time.Minute

// tick takes the time of a call. It does not go back, unless the clock was
// wrong.
func (w *Watch) tick(now time.Time) {
	now = now.Round(0) // the clock on the wall, for that is what is kept with each pair
	if back := w.now.Sub(now); back > maxBack && !w.now.IsZero() {
		w.rewind(now, back)
	}
	w.now = later(w.now, now)
}

// rewind has everything that is to come so much earlier, and nothing that was
// lie in the future. What was not touched while the clock was wrong seems older
// than it is, so that it is asked about again and lists are tested anew.
func (w *Watch) rewind(now time.Time, back time.Duration) {
	w.now = now
	for _, l := range w.lists {
		l.rewind(now, back)
	}
	for _, u := range w.units {
		u.sent = min(u.sent, now.UnixNano())
		for i := range u.pairs {
			u.pairs[i].rewind(now, back)
		}
	}
}

func (l *watched) rewind(now time.Time, back time.Duration) {
	l.budget.at = sooner(l.budget.at, now)
	for _, t := range []*time.Time{&l.nextTest, &l.begun, &l.health.passed, &l.crowd.from, &l.crowd.until, &l.zoneInfo.asked} {
		if !t.IsZero() {
			*t = t.Add(-back)
		}
	}
	for _, t := range []*time.Time{&l.health.since, &l.health.quarantined, &l.zoneInfo.serialSince} {
		*t = sooner(*t, now)
	}
	l.rewindInquiries(now)
	for s, at := range l.crowd.recent {
		l.crowd.recent[s] = sooner(at, now)
	}
}

// rewind shifts all pairs by the same, so that their queues stay in order.
func (p *pair) rewind(now time.Time, back time.Duration) {
	p.due -= int64(back)
	p.known, p.unknown = min(p.known, now.UnixNano()), min(p.unknown, now.UnixNano())
	if g := p.listing; g != nil {
		g.first, g.opened, g.clean = sooner(g.first, now), sooner(g.opened, now), sooner(g.clean, now)
		for i, at := range g.opens {
			g.opens[i] = sooner(at, now)
		}
	}
}
