package dnsbl

import (
	"math"
	"time"
)

// minPerDay is the smallest budget that still lets a list be tested twice a
// day.
const minPerDay = 100

// A budget is how much one list may be asked: a token bucket that holds one
// second's worth, and so many questions a day (UTC). Of the day on which it
// begins it has what is left of it, so that restarts do not add up, unless it
// is known how many were asked.
type budget struct {
	perSecond float64
	perDay    int

	tokens float64
	at     time.Time // when tokens was right; zero before the first use
	day    time.Time // midnight of the day that left is about
	left   int
	whole  int // of which left is left
	asked  int // on that day
	checks int // questions of rechecks on that day

	inquiries int // on that day

	spent time.Time // when polls had used up their part of the day's; zero before
}

const wholeDay = 24 * time.Hour

// refill brings the bucket up to now. A clock that goes back adds nothing.
func (b *budget) refill(now time.Time) {
	burst := max(1, b.perSecond)
	if b.day.After(now.Add(wholeDay)) { // the clock was wrong
		b.day, b.at = time.Time{}, now
	}
	if !now.Before(b.day.Add(wholeDay)) {
		b.day = now.Truncate(wholeDay)
		b.left, b.asked, b.checks, b.inquiries, b.spent = b.perDay, 0, 0, 0, time.Time{}
		if b.at.IsZero() {
			rest := float64(wholeDay-now.Sub(b.day)) / float64(wholeDay)
			b.left = max(int(float64(b.perDay)*rest), b.perDay/20)
			b.tokens, b.at = burst, now
		}
		b.whole = b.left
	}
	if d := now.Sub(b.at); d > 0 {
		b.tokens, b.at = min(burst, b.tokens+d.Seconds()*b.perSecond), now
	}
}

// restore takes how many questions were asked before a restart on the day that
// now is in.
func (b *budget) restore(now time.Time, asked int) {
	b.day, b.at, b.tokens = now.Truncate(wholeDay), now, max(1, b.perSecond)
	b.whole, b.asked, b.left = b.perDay, asked, max(0, b.perDay-asked)
}

// reserve is what polls leave of a day's budget to tests and confirmations.
func (b *budget) reserve() int { return b.whole / 10 }

// next returns when a question may be asked, now at the earliest, that leaves
// so many of the day's for others.
func (b *budget) next(now time.Time, leave int) time.Time {
	b.refill(now)
	if b.left <= leave {
		return b.day.Add(wholeDay)
	}
	if b.tokens >= 1 {
		return now
	}
	wait := time.Duration((1 - b.tokens) / b.perSecond * float64(time.Second))
	return b.at.Add(wait + 1) // rounded up: then there is a whole token
}

// take counts a question.
func (b *budget) take() {
	b.tokens--
	b.left--
	b.asked++
	if b.left <= b.reserve() && b.spent.IsZero() {
		b.spent = b.at
	}
}

// recheck counts a recheck, which is up to two questions, and reports whether
// there is room for it: a fifth of a day's budget, which is what rate and reserve
// leave.
func (b *budget) recheck(now time.Time) bool {
	b.refill(now)
	if b.checks >= b.whole/5 {
		return false
	}
	b.checks += 2
	return true
}

// inquiry returns when something may be asked that can wait, now at the
// earliest: where so many polls a second, rechecks, tests and confirmations leave
// something of the day's budget, and up to a tenth of it.
func (b *budget) inquiry(now time.Time, polls float64) time.Time {
	b.refill(now)
	tomorrow := b.day.Add(wholeDay)
	if float64(b.inquiries) >= inquiriesShare*float64(b.whole) {
		return tomorrow
	}
	rest := min(polls, b.rate()) * tomorrow.Sub(now).Seconds()
	return b.next(now, b.reserve()+max(0, b.whole/5-b.checks)+int(math.Ceil(rest)))
}

// askedAt returns how many questions were asked on the day that now is in.
func (b *budget) askedAt(now time.Time) int {
	if !now.Before(b.day.Add(wholeDay)) {
		return 0
	}
	return b.asked
}

// spentAt returns since when only tests and confirmations are left of the day
// that now is in, zero if more is.
func (b *budget) spentAt(now time.Time) time.Time {
	if !now.Before(b.day.Add(wholeDay)) {
		return time.Time{}
	}
	return b.spent
}

// rate returns how many questions a second may go to polls in the long run:
// the rest is for tests and confirmations.
func (b *budget) rate() float64 {
	return min(0.8*b.perSecond, 0.7*float64(b.perDay)/wholeDay.Seconds())
}
