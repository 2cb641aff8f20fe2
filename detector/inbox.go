package detector

import (
	"fmt"

	"github.com/vedetta-watch/vedetta/mailq"
)

// inbox watches what an account gets. Bounces that other servers send back
// tell, late, that its list is bad; and who suddenly writes much more than he is
// written to is not in conversation (ErDOS, Cohen, Gordon and Hendler 2013).
//
// Anybody can send an account mail, and bounces, so this never opens an
// episode and adds little to one: it says too little to count as a family.
type inbox struct {
	returned   chart
	day, month float32 // mail received lately, decayed
	sent       float32 // messages of about a month
	bounces    float32 // of about a day
	excused    float32 // first answers to who wrote, of about a day
	own        share   // hits: bounces of ordinary times; of: messages
	at         uint32  // of the counts, in seconds
}

const (
	spamReturned   = .2 // of a spammer's messages, the share that comes back from elsewhere
	ownReturned    = .02
	ownReturnedOf  = 40 // messages that the prior is worth
	returnedStep   = .5
	returnedTop    = 1.5 // below what a family needs to speak: bounces can be forged
	onewayTop      = 1.0
	onewayFew      = 10.0 // less mail a month than this says nothing
	onewayScale    = .4
	onewayOrdinary = 3.0 // times the usual share of messages to mail
	monthSpan      = 30 * day
	floodFew       = 100 // mail of a day that is no flood, whatever an ordinary day brings …
	floodTimes     = 4.0 // … nor so many times that
	answersFew     = 20  // first answers of a day that are excused whatever came that day
	answersTimes   = 1.5 // … and to each message that did
)

// received takes mail that was put into the mailbox of an account that sends too;
// of others nothing is remembered. It returns the account when a bounce has
// raised what its inbox says.
func (d *Detector) received(ev *mailq.Event) *account {
	a := d.accounts[ev.Into]
	if a == nil || ev.Into == ev.Account {
		return nil
	}
	now := max(ev.Time.UnixNano(), a.last)
	back := ev.Sender == "" && ev.Client.IsValid() // our own server's bounces came with the failure itself
	if back {
		d.advance(a, now)
	} else {
		d.touch(a)
	}
	in := a.receives(now)
	in.day++
	if !in.flooded() {
		in.month++
		d.hears(a, &ev.Writer)
	}
	if !back {
		return nil
	}
	in.bounces++
	in.bounced(a, a.ep.top >= d.cfg.Floor, now)
	return a
}

// hears remembers who has written to an account: an answer to him is no letter to a
// stranger.
func (d *Detector) hears(a *account, writer *mailq.Recipient) {
	for _, h := range [...]uint64{writer.Hash, writer.Next} {
		if h != 0 {
			d.fleet.heard.add(a.pair(h))
		}
	}
}

// answers reports whether a message to who has this hash answers mail that the account
// got from him. Anybody can write to a victim in the names of those whom he will write to
// as the victim: so in a flood it excuses nothing, nor on any day many more than mail came.
func (d *Detector) answers(a *account, h uint64) bool {
	in := a.in
	if in == nil || in.flooded() || in.excused > answersFew+answersTimes*in.day || !d.fleet.heard.has(a.pair(h)) {
		return false
	}
	in.excused++
	return true
}

// flooded reports whether much more mail came within a day than on an ordinary one.
func (in *inbox) flooded() bool {
	return in.day > max(floodFew, floodTimes*in.month*float32(day)/float32(monthSpan))
}

// wroteFirst reports whether the recipient has written to the account.
func (d *Detector) wroteFirst(a *account, to *mailq.Recipient) bool {
	return a.in != nil && d.fleet.heard.has(a.pair(to.Hash))
}

// pair is a hash of the account and of somebody's.
func (a *account) pair(h uint64) uint64 { return h ^ uint64(a.key)*0x9e3779b97f4a7c15 }

// receives returns what the account's inbox shows, brought to now.
func (a *account) receives(now int64) *inbox {
	if a.in == nil {
		a.in = &inbox{at: seconds(now)}
	}
	a.in.decay(now)
	return a.in
}

func (in *inbox) decay(now int64) {
	dt := since(in.at, now)
	if dt < second {
		return
	}
	in.at = seconds(now)
	ofDay, ofMonth := decayed(dt, day), decayed(dt, monthSpan)
	in.day, in.bounces, in.excused = in.day*ofDay, in.bounces*ofDay, in.excused*ofDay
	in.month, in.sent = in.month*ofMonth, in.sent*ofMonth
}

// bounced weighs one more bounce. More of them than the account has sent are
// forged: somebody else uses its address.
func (in *inbox) bounced(a *account, suspect bool, now int64) {
	if in.bounces > max(a.rate.now[perDay], float32(a.ep.rcpts)) {
		in.returned = chart{}
		a.say(familyReturned, 0)
		return
	}
	if !suspect {
		in.own.hits++
	}
	p := min(max(in.own.mean(ownReturned, ownReturnedOf), .01), .5)
	in.returned.add(min(log(max(spamReturned, p)/p), returnedStep), returnedTop, now)
	if a.open() {
		a.say(familyReturned, in.returned.s)
	}
}

// wrote counts a message of the account itself.
func (in *inbox) wrote(suspect bool, now int64) {
	if in == nil {
		return
	}
	in.decay(now)
	in.sent++
	if !suspect {
		in.own.of++
		in.own.limit(300)
	}
}

// oneway is what it says that the account writes much more today, in proportion to
// what it gets, than it usually does.
func (a *account) oneway() float32 {
	in := a.in
	if in == nil || in.month < onewayFew {
		return 0
	}
	usual := (in.sent + 1) / (in.month + 1)
	today := (a.rate.now[perDay] + 1) / (in.day + 1)
	return min(max(onewayScale*log(today/(usual*onewayOrdinary)), 0), onewayTop)
}

func (a *account) returnedText() string {
	return fmt.Sprintf("about %.0f bounces came back to it from other servers within a day", a.in.bounces)
}

func (a *account) onewayText() string {
	return fmt.Sprintf("about %.0f messages within a day, and %.0f received; in a month %.0f and %.0f", a.rate.now[perDay], a.in.day, a.in.sent, a.in.month)
}
