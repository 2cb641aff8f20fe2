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
// account, as what a server could not tell for a while does. The events of a backlog
// are in the order of their account.
//
// One that comes after newer mail of the account's own is counted and not judged:
// what is known of the account is of a later time, at which hours of ordinary mail
// would look like a burst. Nothing is learnt of it either. All else that was seen of
// the account since, as its logins, what became of its queue and what others send it,
// says nothing of how fast it sends, and can be brought about by others: then the
// account goes back, and the event is judged by its own time.
func (d *Detector) ObserveLate(ev *mailq.Event) (rules.Finding, bool) {
	now := ev.Time.UnixNano()
	if a := d.accounts[ev.Into]; a != nil && a.last-now > int64(lateSlack) {
		own := *ev
		own.Into, ev = "", &own
	}
	a := d.accounts[ev.Account]
	if a == nil || a.last-now <= int64(lateSlack) {
		return d.Observe(ev)
	}
	if settled := a.settledAt(); settled-now <= int64(lateSlack) {
		a.goBack(max(now, settled))
		return d.Observe(ev)
	}
	d.stats.Events++
	d.stats.Late++
	if ev.Kind == mailq.Held || ev.Kind == mailq.Refused {
		d.Stopped(ev.Account)
	}
	if ev.Counts {
		a.messages++
		d.touch(a)
	}
	return rules.Finding{}, false
}

// settledAt is before when nothing of the account is judged any more: it has sent
// mail since, or a person has cleared it.
func (a *account) settledAt() int64 {
	at := int64(a.nov.lastMsg) * second
	if a.rare != nil {
		at = max(at, a.rare.mercy.at)
	}
	return at
}

// goBack lets the account be as late as at, which is not before [account.settledAt].
// Counts that have decayed stay so, and charts that have come to rest: for those it
// is judged more mildly. What spoke against it since goes on speaking.
func (a *account) goBack(at int64) {
	a.last = at
	if a.open() && a.ep.toldAt == 0 { // what was told keeps its name
		a.ep.onset = min(a.ep.onset, at)
	}
}
