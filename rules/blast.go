package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultBlast is how many subjects an hour a [BlastLimit] lets through if
// its Max is not set.
const DefaultBlast = 20

// A BlastLimit bounds how many subjects are held, blocked or reset in a
// sliding window. So many at once are more likely a mistake of ours, or a
// flood that somebody made, than so many hijacked accounts: past the limit
// they are slowed down instead, and people are called.
//
// It starts nothing and asks no clock. One goroutine uses it.
type BlastLimit struct {
	Max int           // subjects in a window; 0: [DefaultBlast], negative: none
	Per time.Duration // length of the window; 0: one hour

	taken map[string]time.Time // subject to its latest decision that was let through
	paged time.Time            // when people were last to be called; zero: never
}

// Weaken returns what is to be done about d at that time: d itself, or past
// the limit its weakened form. It reports whether people must be paged, which
// is once a window. A subject counts once, so that going from a hold to a
// block and saying the same again are always let through.
//
// Only decisions that are carried out and stronger than a throttle count. An
// operator's own (without a finding) neither count nor are they weakened.
func (b *BlastLimit) Weaken(d Decision, at time.Time) (weak Decision, page bool) {
	if !d.counts() {
		return d, false
	}
	b.forget(at)
	if _, again := b.taken[d.Subject]; again || len(b.taken) < b.max() {
		b.take(d.Subject, at)
		return d, false
	}
	return d.Weakened(fmt.Sprintf("%s: %d subjects within %s were stopped already", HeldBlast, len(b.taken), b.per())), b.page(at)
}

// Restore counts what was let through before a restart, in the time of the
// decisions. Those that do not count, and those that the window has left
// behind by the next call of Weaken, are forgotten. It returns the IDs of the
// weakened decisions with which people were to be paged, so that a restart
// neither forgets to nor does so again.
func (b *BlastLimit) Restore(past []Decision) (paged []string) {
	var weakened []Decision
	for _, d := range past {
		if d.counts() {
			b.take(d.Subject, d.Time)
		}
		if strings.HasPrefix(d.HeldBack, HeldBlast) {
			weakened = append(weakened, d)
		}
	}
	slices.SortStableFunc(weakened, func(a, b Decision) int { return a.Time.Compare(b.Time) })
	for _, d := range weakened {
		if b.page(d.Time) {
			paged = append(paged, d.ID)
		}
	}
	return paged
}

// page reports whether people must be paged, and notes that they are.
func (b *BlastLimit) page(at time.Time) bool {
	if !b.paged.IsZero() && at.Sub(b.paged) < b.per() {
		return false
	}
	b.paged = at
	return true
}

// counts reports whether d is one of those that are limited.
func (d *Decision) counts() bool { return d.Enforce && d.Action > Throttle && d.Finding != "" }

// Weakened returns d as a throttle of the same length, with the reason: it is
// what remains of a decision that must not be carried out in full. Its ID is
// derived from d's, so that d itself can still be made later. What is no
// stronger than a throttle is returned as it is.
func (d Decision) Weakened(why string) Decision {
	if d.Action <= Throttle {
		return d
	}
	d.ID += "/" + Throttle.String()
	d.Action = Throttle
	d.HeldBack = why
	return d
}

func (b *BlastLimit) take(subject string, at time.Time) {
	if b.taken == nil {
		b.taken = map[string]time.Time{}
	}
	if at.After(b.taken[subject]) {
		b.taken[subject] = at
	}
}

// forget drops what the window that ends at that time does not cover. What
// lies after it is kept: a clock that goes back does not disarm the limit.
func (b *BlastLimit) forget(at time.Time) {
	begin := at.Add(-b.per())
	for subject, taken := range b.taken {
		if !taken.After(begin) {
			delete(b.taken, subject)
		}
	}
}

func (b *BlastLimit) max() int {
	if b.Max == 0 {
		return DefaultBlast
	}
	return b.Max
}

func (b *BlastLimit) per() time.Duration {
	if b.Per <= 0 {
		return time.Hour
	}
	return b.Per
}
