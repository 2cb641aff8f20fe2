package detector

import (
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// mercy is what an operator's release left behind: until when strangers
// are let pass, how many recipients of messages to them still are, and which
// releases were already carried out.
type mercy struct {
	at    int64 // of the latest release; what is older is no evidence any more
	left  uint16
	done  [4]uint32
	next  uint8
	lasts int64
}

const (
	mercyFor  = day
	mercyMin  = 10
	mercyMax  = 500
	queueLife = 5 * day  // how long a message may stay in a queue
	spentFor  = 14 * day // how long after its last message an episode may be released
)

// spares reports whether m is covered by a release, and uses it up.
func (a *account) spares(m *message) bool {
	if a.rare == nil || a.rare.mercy.left == 0 && !m.spared || a.last > a.rare.mercy.lasts {
		return false
	}
	if a.fuse().families > 0 && a.ep.speak[familyRate].score() < speaks && a.ep.speak[familyFanout].score() < speaks {
		return false // something else than the pace speaks: not the same traffic
	}
	if m.fresh == 0 || m.spared {
		return true
	}
	if a.rare.mercy.left < m.counted {
		return false
	}
	a.rare.mercy.left -= m.counted
	m.spared = true
	return true
}

// old reports whether an outcome is about a message from before a release:
// its bounces arrive for days, and say nothing new.
func (a *account) old(id uint64) bool {
	return a.rare != nil && a.rare.mercy.at != 0 && a.last-a.rare.mercy.at < queueLife && a.find(id) == nil
}

// Release ends the account's episode because a person has cleared it, and
// teaches: its recipients, networks, pace and senders are the account's own
// from now on, and the same traffic may go on. A hijack after it is a new
// episode. A release that was already carried out (same key) does nothing.
func (d *Detector) Release(name mailq.Account, at time.Time, key string) {
	a := d.accounts[name]
	if a == nil {
		return
	}
	h := hashOf(key)
	y := &a.seldom().mercy
	for _, k := range y.done {
		if k == h {
			return
		}
	}
	now := max(at.UnixNano(), a.last)
	d.advance(a, now)
	if a.high > 0 || a.ep.top >= d.cfg.Verdict {
		d.fleet.calib.add(max(a.high, uint8(min(a.ep.top, peaks-1))))
		a.high = 0
		d.move()
	}
	y.done[y.next%4] = h
	y.next++
	y.at, y.lasts = now, now+mercyFor
	y.left = uint16(min(max(int(a.ep.rcpts), mercyMin), mercyMax))
	s := a.rare.spent
	if s != nil && since(s.at, now) > spentFor {
		s, a.rare.spent = nil, nil // not what the person has in mind
	}
	if s != nil {
		a.series.remember(s.series)
		d.teach(a, &s.doubt, now)
		a.rare.spent = nil
	}
	if s == nil || a.open() {
		d.teach(a, a.ep.doubting(), now)
	}
	a.adopt(now)
	d.note(a, verdict{}, now)
}

// teach learns an episode as the account's own.
func (d *Detector) teach(a *account, e *doubt, now int64) {
	a.nov.fresh.limit(10) // what it did before counts for less
	e.fresh, e.expected = min(e.fresh, 30), min(e.expected, 30)
	for g := range gauges {
		peak := max(a.rate.peak[g], e.peak[g])
		a.rate.habit[g].learn(peakLog(2*peak), min(a.rate.days, 2))
	}
	a.rate.reach.keep(max(a.rate.peak[reachPerHour], e.peak[reachPerHour]), now)
	a.series.teach(now)
	a.learnPending(e)
}

// forgiveAfter is how long after its last message an episode may be learnt that nobody
// stopped.
const forgiveAfter = 3 * day

// forgive learns an episode that came to a verdict and ended by itself, if nobody stopped
// it, nothing showed somebody else's hand in it or complained of it since, and the account
// sends again days later: a mailing of the owner's own, of which no person has said so.
// For who is only watched, and in old logs, nobody releases anybody; the same newsletter
// would be held each week.
func (a *account) forgive(now int64) {
	if a.rare == nil || a.rare.spent == nil || a.open() {
		return
	}
	s := a.rare.spent
	if s.theirs || since(s.at, now) < forgiveAfter {
		return
	}
	a.rare.spent = nil
	a.series.remember(s.series)
	a.learn(&s.doubt, now)
}

// Stopped notes that an account was held or blocked, by the rules or by a person: what it
// did is learnt only if a person releases it.
func (d *Detector) Stopped(name mailq.Account) {
	if a := d.accounts[name]; a != nil {
		a.stopped()
		d.touch(a)
	}
}

// stopped has neither the episode at hand nor the one before it forgiven.
func (a *account) stopped() {
	if a.open() {
		a.ep.theirs = true
	}
	if a.rare != nil && a.rare.spent != nil {
		a.rare.spent.theirs = true
	}
}

// adopt makes what the account's latest traffic showed beside recipients and
// pace its own too, and clears the charts.
func (a *account) adopt(now int64) {
	if f := &a.fail; f.s > 0 {
		f.own.hits += float32(f.gone)
		f.own.of += float32(f.all)
		f.own.limit(300)
	}
	a.log.adopt()
	a.rate.now, a.rate.peak = [gauges]float32{}, [gauges]float32{}
	a.series.clear()
	a.filled = 0
	a.settle()
}
