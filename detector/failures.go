package detector

import (
	"fmt"

	"github.com/vedetta-watch/vedetta/mailq"
)

// failures watches recipients that do not exist. Spammers' lists are full
// of them. Full mailboxes, greylisting, time-outs and refusals of any other
// kind are no evidence: they say nothing about the list. Bounces of
// inbound junk have no account and do not come here.
type failures struct {
	chart
	own       share // outcomes of ordinary times
	gone, all uint16
}

const (
	spamUnknown = .2
	ownUnknown  = .02 // prior, worth …
	ownOutcomes = 40  // … so many outcomes
	failStep    = 2.3
	failuresTop = 12.0
	oldListTop  = 5.0 // what failures say of a list that has no more dead addresses than an old one: …
	oldShare    = .2  // … this share …
	oldMargin   = 2.5 // … and so many by chance
	boughtStep  = 2.0 // for each beyond
	oneDead     = 1.5
	feedbackLag = day // a feedback chart forgets when nothing has spoken for so long
)

// outcome takes what became of one recipient for good.
func (f *failures) outcome(unknown, suspect bool, now int64) {
	p := min(max(f.own.mean(ownUnknown, ownOutcomes), .01), .5)
	x := log((1 - spamUnknown) / (1 - p))
	if unknown {
		x = log(max(spamUnknown, p) / p)
	}
	if f.s == 0 && x > 0 {
		f.gone, f.all = 0, 0
	}
	f.all = min(f.all+1, 1<<16-2)
	if unknown {
		f.gone = min(f.gone+1, 1<<16-2)
	}
	f.add(min(max(x, -.2), failStep), failuresTop, now)
	if !suspect {
		f.own.add(unknown, 1)
		f.own.limit(300)
	}
}

// failed takes an outcome event's word about the recipient's existence.
func (d *Detector) failed(a *account, ev *mailq.Event, now int64) {
	unknown := ev.Reply.Class == mailq.RecipientUnknown
	switch ev.Kind {
	case mailq.Delivered:
		unknown = false
	case mailq.Bounced, mailq.Refused:
		if !unknown {
			return
		}
	default:
		return // an attempt that failed for now is repeated, and would count again
	}
	if unknown && d.wroteFirst(a, &ev.To) {
		return // he exists or has lied: it says nothing of the account's list
	}
	if !unknown && a.fail.s == 0 {
		if a.fail.own.of < 300 {
			a.fail.own.add(false, 1)
		}
		return
	}
	a.fail.outcome(unknown, a.ep.top >= d.cfg.Floor, now)
	if unknown {
		a.begin(a.find(ev.Message), now)
	}
	a.say(familyFailures, a.fail.says())
}

// says is what the failures say. One dead address is nothing that counts as a
// family of evidence. An old list of the owner's has dead addresses too, but not as
// many as one that was bought or guessed.
func (f *failures) says() float32 {
	if f.gone < 2 {
		return min(f.s, oneDead)
	}
	beyond := float32(f.gone) - oldShare*float32(f.all) - oldMargin
	return min(f.s, oldListTop+boughtStep*max(beyond, 0))
}

func (a *account) failuresText() string {
	return fmt.Sprintf("recipients that do not exist, as their servers say: %d of the last %d", a.fail.gone, a.fail.all)
}
