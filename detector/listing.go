package detector

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A ListingRisk adds up what leads to the listing of an outgoing address before
// it is listed: mail to spam traps, messages that are called spam, recipients
// that do not exist, and what other servers hold against the address. Accounts
// share their server's addresses, so that many may endanger one, each of them by
// little. Once the risk is as high as Act says, it names the fewest accounts
// that most of it comes from.
//
// What servers hold against the address hits everybody who sends from it, so it
// raises the risk and is nobody's fault. One message that is tried again counts
// once, and one receiver has a part in the points only: nobody is named for what
// one server says. Signs lose half of their weight in six hours. It knows no clock
// but the events' own, and is used by one goroutine.
type ListingRisk struct {
	Act    float64                  // risk from which on accounts are named, 0 to 1; 0: never
	Traps  map[uint64]bool          // hashes of addresses that nobody writes to who was not given them by a thief (mailq.Recipient.Hash)
	Shared func(mailq.Account) bool // whether several people stand behind an account; nil: nobody
	Sent   *Sent                    // what complaints are about; nil: none count

	accounts map[mailq.Account]*endangering
	held     once           // what servers hold against the addresses
	holders  shares[string] // and who
	address  float64        // points that are held against the addresses, at that time
	at       time.Time
	sum      float64 // points of all accounts, at that time, without those for their clients
	sumAt    time.Time
	clients  float64 // points of all accounts for their clients, at that time
	clientAt time.Time
	released map[mailq.Account]time.Time // lately, that an answer from before does not bring back what was forgiven
	named    time.Time                   // when accounts were last named
}

// The points of signs. A hundred in all are as much risk as there is.
const (
	fullRisk        = 100
	trapPoints      = 40
	contentPoints   = 6
	unknownPoints   = 2
	unknownFree     = 5   // recipients that do not exist, of which everybody has some
	unknownShare    = 0.1 // of the outcomes, from which on more count
	heldPoints      = 10  // a server holds the address's reputation against it, for now
	refusedPoints   = 30  // or for good
	addressMost     = 60
	contentMost     = 40
	unknownMost     = 30
	trapsMost       = 120
	clientsMost     = 30  // for the clients of an account, and of all accounts together
	receiverMost    = 20  // points of an account that one receiver gives
	holderMost      = 30  // points that one receiver holds against the addresses
	receiversLeast  = 2   // that have to say so before an account is named for nothing but replies
	namedLeast      = 10  // points of an account that is worth naming
	namedShare      = 0.8 // of all accounts' points, that those who are named explain
	maxNamedAtOnce  = 20
	nameEvery       = 10 * time.Second // that accounts are looked through, traps aside
	signsHalfLife   = 6 * time.Hour
	forgottenPoints = 0.5
	maxEndangering  = 10_000 // accounts; past them those with the least points are forgotten
)

// An endangering account, with what it did.
type endangering struct {
	name                    mailq.Account
	since, at               time.Time
	traps, content, unknown float64        // points
	complaints              float64        // points
	complainers             shares[uint32] // who complained
	called                  int            // how often
	missing, outcomes       float64        // recipients that do not exist, and those of which the end is known; they halve as points do
	trapped                 shares[uint64] // by trap
	counted                 once
	receivers               shares[uint32] // who called its mail spam, complained, or did not know its recipients
	client                  float64        // points for where it signed in from, which is no deed of its own
	clients                 shares[string]
	signedIn                string // the latest of them, in words
}

func (a *endangering) points() float64 { return a.did() + a.client }

// weight is the points that the account is judged by: where it signed in from
// counts as much as its deeds at most.
func (a *endangering) weight() float64 { return a.did() + min(a.client, a.did()) }

// did is the points for what the account's mail did.
func (a *endangering) did() float64 { return a.traps + a.content + a.unknown + a.complaints }

// fade brings an account's points up to now. What is next to nothing is forgotten,
// in the sums too.
func (r *ListingRisk) fade(a *endangering, now time.Time) {
	did, client := a.decay(now)
	r.add(-did, now)
	r.addClient(-client, now)
}

// decay brings the points up to now, and returns those that are forgotten: the
// account's own, and those for its clients.
func (a *endangering) decay(now time.Time) (did, client float64) {
	f := halved(a.at, now)
	a.traps, a.content, a.unknown, a.complaints, a.client = a.traps*f, a.content*f, a.unknown*f, a.complaints*f, a.client*f
	a.missing, a.outcomes = a.missing*f, a.outcomes*f
	a.at = later(a.at, now)
	if a.points() < forgottenPoints { // what comes now is another story
		did, client = a.did(), a.client
		*a = endangering{name: a.name, at: a.at, since: now, missing: a.missing, outcomes: a.outcomes, counted: a.counted, receivers: a.receivers}
	}
	return did, client
}

// halved is what is left of a point.
func halved(from, to time.Time) float64 {
	return math.Exp2(-max(0, to.Sub(from)).Hours() / signsHalfLife.Hours())
}

// wrongClock is how far ahead of an event the one before it can be. Where it is
// further, somebody's clock was wrong.
const wrongClock = 10 * time.Minute

// later is the time that goes on from a kept one with an event.
func later(kept, now time.Time) time.Time {
	if kept.After(now) && kept.Sub(now) <= wrongClock {
		return kept
	}
	return now
}

// Observe takes an event and returns the findings about accounts that endanger
// the address, where the risk is as high as Act.
func (r *ListingRisk) Observe(ev *mailq.Event) []rules.Finding {
	if r == nil || ev.Account == "" {
		return nil
	}
	r.Sent.saw(ev)
	if !r.sign(ev) || r.Act <= 0 || r.Risk(ev.Time) < r.Act {
		return nil
	}
	if since := ev.Time.Sub(r.named); !r.hasTrap(ev) && since > -wrongClock && since < nameEvery {
		return nil // the next sign will do
	}
	r.named = ev.Time
	return r.name(ev.Time)
}

// sign counts what the event says, and reports whether it is a sign.
func (r *ListingRisk) sign(ev *mailq.Event) bool {
	trapped := r.hasTrap(ev)
	outcome := ev.Kind == mailq.Delivered && ev.Into == "" || ev.Kind == mailq.Bounced || ev.Kind == mailq.Deferred
	known := r.accounts[ev.Account]
	class := ev.Reply.Class
	if !trapped && (!outcome || known == nil && class != mailq.Content && class != mailq.RecipientUnknown && class != mailq.AddressReputation) {
		return false
	}
	if outcome && class == mailq.AddressReputation {
		return r.hold(ev)
	}
	a := r.account(ev.Account, ev.Time)
	r.fade(a, ev.Time)
	before := a.did()
	defer func() { r.add(a.did()-before, ev.Time) }()
	if trapped {
		r.trap(a, ev)
		return true
	}
	switch {
	case ev.Kind == mailq.Delivered:
		a.outcomes++
		return false
	case class == mailq.Content:
		if !a.counted.isNew(ev) {
			return false
		}
		a.called++
		a.content = min(a.content+a.receivers.add(receiverKey(Receiver(ev)), contentPoints, receiverMost, ev.Time), contentMost)
		return true
	case class == mailq.RecipientUnknown && ev.Kind == mailq.Bounced:
		a.outcomes++
		a.missing++
		if a.missing > unknownFree && a.missing >= unknownShare*a.outcomes {
			a.unknown = min(a.unknown+a.receivers.add(receiverKey(Receiver(ev)), unknownPoints, receiverMost, ev.Time), unknownMost)
			return true
		}
	}
	return false
}

func (r *ListingRisk) hasTrap(ev *mailq.Event) bool {
	return slices.ContainsFunc(ev.New, func(to mailq.Recipient) bool { return r.Traps[to.Hash] })
}

// trap counts the traps that a message went to. The same one is worth no more
// the second time: who knows it can have a form or an autoresponder write to it
// as often as he likes.
func (r *ListingRisk) trap(a *endangering, ev *mailq.Event) {
	for _, to := range ev.New {
		if !r.Traps[to.Hash] {
			continue
		}
		if to.Next != 0 {
			a.trapped.rename(to.Hash, to.Next)
		}
		a.traps = min(a.traps+a.trapped.add(to.Newest(), trapPoints, trapPoints, ev.Time), trapsMost)
	}
}

// Release forgets what an account did: an operator says that it was right.
func (r *ListingRisk) Release(account mailq.Account, now time.Time) {
	if r == nil {
		return
	}
	r.Sent.release(account, now)
	r.noteRelease(account, now)
	if a := r.accounts[account]; a != nil {
		r.fade(a, now)
		r.drop(a, now)
	}
}

// drop forgets an account whose points are right for now.
func (r *ListingRisk) drop(a *endangering, now time.Time) {
	r.add(-a.did(), now)
	r.addClient(-a.client, now)
	delete(r.accounts, a.name)
}

// add counts points of an account.
func (r *ListingRisk) add(points float64, now time.Time) {
	r.sum = r.sum*halved(r.sumAt, now) + points
	r.sumAt = later(r.sumAt, now)
}

// hold counts what a server holds against the address, and reports whether that
// is new.
func (r *ListingRisk) hold(ev *mailq.Event) bool {
	if !r.held.isNew(ev) {
		return false
	}
	points := float64(heldPoints)
	if ev.Kind == mailq.Bounced {
		points = refusedPoints
	}
	points = r.holders.add(Receiver(ev), points, holderMost, ev.Time)
	r.address = min(r.address*halved(r.at, ev.Time)+points, addressMost)
	r.at = later(r.at, ev.Time)
	return true
}

// account finds an account, made if need be.
func (r *ListingRisk) account(name mailq.Account, now time.Time) *endangering {
	if a := r.accounts[name]; a != nil {
		return a
	}
	if r.accounts == nil {
		r.accounts = map[mailq.Account]*endangering{}
	}
	if len(r.accounts) >= maxEndangering {
		r.forget(now)
	}
	a := &endangering{name: name, since: now, at: now}
	r.accounts[name] = a
	return a
}

// forget drops the half with the least points: a flood of new accounts takes
// nobody's points who has many.
func (r *ListingRisk) forget(now time.Time) {
	all := r.ranked(now)
	for _, a := range all[len(all)/2:] {
		r.drop(a, now)
	}
}

// ranked is the accounts, those that did most first.
func (r *ListingRisk) ranked(now time.Time) []*endangering {
	all := make([]*endangering, 0, len(r.accounts))
	for _, a := range r.accounts {
		r.fade(a, now)
		all = append(all, a)
	}
	slices.SortFunc(all, byDeeds)
	return all
}

func byDeeds(a, b *endangering) int {
	return cmp.Or(cmp.Compare(b.did(), a.did()), cmp.Compare(b.points(), a.points()), cmp.Compare(a.name, b.name))
}

// Risk is how likely the addresses are to be listed soon, 0 to 1.
func (r *ListingRisk) Risk(now time.Time) float64 {
	if r == nil {
		return 0
	}
	sum := r.address*halved(r.at, now) + max(r.sum, 0)*halved(r.sumAt, now) + min(max(r.clients, 0)*halved(r.clientAt, now), clientsMost)
	return min(sum/fullRisk, 1)
}

// name returns a finding for each of the fewest accounts that explain most of
// the accounts' points.
func (r *ListingRisk) name(now time.Time) (findings []rules.Finding) {
	all := r.ranked(now)
	sum, risk := 0.0, r.Risk(now)
	for _, a := range all {
		sum += a.did()
	}
	explained := 0.0
	for _, a := range all {
		if a.did() < namedLeast || explained >= namedShare*sum || len(findings) == maxNamedAtOnce {
			break
		}
		explained += a.did()
		if a.receivers.decay(now); a.traps == 0 && told(&a.receivers) < receiversLeast {
			continue // one server may be mistaken, or mean somebody else
		}
		findings = append(findings, r.finding(a, risk, a.did()/sum, now))
	}
	return findings
}

// finding says what an account did, and how much of the risk it is.
func (r *ListingRisk) finding(a *endangering, risk, share float64, now time.Time) rules.Finding {
	f := rules.Finding{
		ID: rules.FindingID(rules.ListingRisk, string(a.name), a.since), Rule: rules.ListingRisk, Subject: string(a.name),
		Time: now, Since: a.since, Score: a.weight(), Class: a.name.Kind(), Shared: r.Shared != nil && r.Shared(a.name),
	}
	say := func(kind string, points float64, format string, args ...any) {
		if points > 0 {
			f.Families++
			f.Evidence = append(f.Evidence, rules.Evidence{Kind: kind, Score: points, Text: fmt.Sprintf(format, args...)})
		}
	}
	say(rules.Traps, a.traps, "%d recipients are spam traps", len(a.trapped.points))
	say(rules.Replies, a.content, "%d times its messages were called spam", a.called)
	say(rules.Failures, a.unknown, "%.0f of %.0f recipients do not exist", a.missing, a.outcomes)
	if a.complaints > 0 {
		delivered, blamed := r.Sent.of(a.name)
		say(rules.Complaints, a.complaints, "%d of %d delivered messages were complained about, by %d receivers", blamed, delivered, max(told(&a.complainers), 1))
	}
	if a.client > 0 { // no family of its own: it may be a neighbour's doing
		f.Evidence = append(f.Evidence, rules.Evidence{Kind: rules.Logins, Score: a.client, Text: a.signedIn})
	}
	f.Evidence = append(f.Evidence, rules.Evidence{Kind: rules.Listing, Text: fmt.Sprintf(
		"the risk that the outgoing addresses are listed is %.0f %%; %.0f %% of what accounts add to it is this one's", 100*risk, 100*share)})
	return f
}
