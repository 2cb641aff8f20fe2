package detector

import (
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// lateSlack is how far events may be out of order and still be judged, as if they
// had happened with the newest of their account.
const lateSlack = time.Minute

// ObserveLate is Observe for an event that may come after newer ones of the same
// account, as what a server could not tell for a while does. Such a one is counted
// and not judged: what is known of the account is of a later time, at which hours of
// ordinary mail would look like a burst. Nothing is learnt of it either. The other
// events are in the order of their account, and are judged by their own time.
func (d *Detector) ObserveLate(ev *mailq.Event) (rules.Finding, bool) {
	if d.newer(ev.Into, ev.Time) {
		own := *ev
		own.Into, ev = "", &own
	}
	if !d.newer(ev.Account, ev.Time) {
		return d.Observe(ev)
	}
	d.stats.Events++
	d.stats.Late++
	if a := d.accounts[ev.Account]; a != nil && ev.Counts {
		a.messages++
		d.touch(a)
	}
	return rules.Finding{}, false
}

// newer reports whether the account has done something since.
func (d *Detector) newer(name mailq.Account, at time.Time) bool {
	a := d.accounts[name]
	return a != nil && a.last-at.UnixNano() > int64(lateSlack)
}
