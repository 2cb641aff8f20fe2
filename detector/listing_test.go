package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

const trapHash, secondTrap = 4711, 4712

// A riskRun observes events, minutes after its beginning.
type riskRun struct {
	ListingRisk
	t      *testing.T
	found  []rules.Finding // all
	latest []rules.Finding // of the last event
	n      int             // events
}

func newRiskRun(t *testing.T, act float64) *riskRun {
	return &riskRun{t: t, ListingRisk: ListingRisk{Act: act, Traps: map[uint64]bool{trapHash: true, secondTrap: true}, Shared: func(a mailq.Account) bool { return a == "user:www-data" }}}
}

var riskStart = time.Date(2026, 11, 29, 9, 0, 0, 0, time.UTC)

func (r *riskRun) see(minute int, ev mailq.Event) {
	ev.Time = riskStart.Add(time.Duration(minute) * time.Minute)
	if r.n++; ev.To.Domain == "" { // many messages, to servers of many
		ev.Message, ev.To = uint64(r.n), mailq.Recipient{Hash: uint64(r.n), Domain: fmt.Sprintf("r%d.test", r.n%7)}
	}
	r.latest = r.Observe(&ev)
	r.found = append(r.found, r.latest...)
}

func trapMail(account mailq.Account, trap uint64) mailq.Event {
	return mailq.Event{Kind: mailq.Submitted, Account: account, New: []mailq.Recipient{{Hash: 1}, {Hash: trap}}}
}

func ended(account mailq.Account, kind mailq.Kind, class mailq.Class) mailq.Event {
	return mailq.Event{Kind: kind, Account: account, Reply: mailq.Reply{Class: class}}
}

func namesOf(findings []rules.Finding) string {
	var all []string
	for _, f := range findings {
		all = append(all, fmt.Sprintf("%s %.0f", f.Subject, f.Score))
	}
	return strings.Join(all, ", ")
}

// One account's traps are its own; nobody else is named.
func TestListingRiskTraps(t *testing.T) {
	r := newRiskRun(t, 0.8)
	r.see(0, trapMail("mallory@shop.test", trapHash))
	if len(r.found) > 0 || r.Risk(riskStart) != 0.4 {
		t.Errorf("one trap: %s, risk %.2f; want nobody, 0.40", namesOf(r.found), r.Risk(riskStart))
	}
	for range 3 {
		r.see(1, ended("alice@shop.test", mailq.Bounced, mailq.Content))
	}
	r.see(2, trapMail("mallory@shop.test", secondTrap))
	if got := namesOf(r.latest); got != "mallory@shop.test 80" {
		t.Errorf("two traps: %q", got)
	}
	f := r.latest[0]
	if f.Rule != rules.ListingRisk || f.Class != mailq.KindLogin || f.Shared || !f.Since.Equal(riskStart) || f.ID != rules.FindingID(rules.ListingRisk, f.Subject, f.Since) {
		t.Errorf("finding %+v", f)
	}
	if text := f.Evidence[0].Text; f.Evidence[0].Kind != rules.Traps || text != "2 recipients are spam traps" {
		t.Errorf("evidence %+v", f.Evidence)
	}
	if text := f.Evidence[1].Text; text != "the risk that the outgoing addresses are listed is 98 %; 82 % of what accounts add to it is this one's" {
		t.Errorf("evidence %q", text)
	}
	if d, _ := (&rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}).Decide(f); d.Action != rules.Hold || !d.Enforce {
		t.Errorf("decided %s, enforce %t; want a hold", d.Action, d.Enforce)
	}
}

// A trap that is mailed over and over is one trap: a stranger who makes a form
// or an autoresponder write to it has nobody's mail held.
func TestListingRiskOfOneTrap(t *testing.T) {
	r := newRiskRun(t, 0.1)
	for i := range 100 {
		r.see(10*i, trapMail("shop@shop.test", trapHash))
	}
	policy := rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}
	for _, f := range r.found {
		if d, _ := policy.Decide(f); d.Action != rules.Throttle || f.Evidence[0].Score > trapPoints {
			t.Fatalf("decided %s about %+v", d.Action, f.Evidence[0])
		}
	}
	if n := len(r.found); n != 100 {
		t.Errorf("%d findings, want one each time", n)
	}
	for _, f := range r.found {
		if f.Evidence[0].Text != "1 recipients are spam traps" {
			t.Fatalf("evidence %q", f.Evidence[0].Text)
		}
	}
	r.Traps[99] = true // the key of the hashes is replaced meanwhile
	for _, to := range []mailq.Recipient{{Hash: trapHash, Next: 99}, {Hash: 99}} {
		r.see(1000, mailq.Event{Kind: mailq.Submitted, Account: "shop@shop.test", New: []mailq.Recipient{to}})
		if got := namesOf(r.latest); got != "shop@shop.test 40" {
			t.Errorf("under another key: %q", got)
		}
	}
	r.see(1001, trapMail("shop@shop.test", secondTrap))
	if d, _ := policy.Decide(r.latest[0]); d.Action != rules.Hold {
		t.Errorf("two traps: %s", d.Action)
	}
}

// Many accounts that each do a little are all named, the worst first, until
// most of it is explained.
func TestListingRiskOfMany(t *testing.T) {
	r := newRiskRun(t, 0.95)
	accounts := []mailq.Account{"a@shop.test", "b@shop.test", "c@shop.test", "d@shop.test", "user:www-data"}
	for i, account := range accounts {
		for range 5 - i {
			r.see(i, ended(account, mailq.Bounced, mailq.Content))
		}
	}
	if len(r.found) > 0 {
		t.Errorf("at %.2f: %s", r.Risk(riskStart), namesOf(r.found))
	}
	for range 3 {
		r.see(10, ended("user:www-data", mailq.Bounced, mailq.Content))
	}
	if got := namesOf(r.found); !strings.HasPrefix(got, "a@shop.test 2") || !strings.Contains(got, "user:www-data") || strings.Contains(got, "d@shop.test") {
		t.Errorf("named %q", got)
	}
	for _, f := range r.found {
		if f.Shared != (f.Subject == "user:www-data") {
			t.Errorf("%s: shared %t", f.Subject, f.Shared)
		}
	}
}

// What servers hold against the address is nobody's fault, however often they
// say so; who did something is then named sooner.
func TestListingRiskOfTheAddress(t *testing.T) {
	r := newRiskRun(t, 0.6)
	for i := range 200 {
		r.see(i, ended("innocent@shop.test", mailq.Bounced, mailq.AddressReputation))
	}
	if len(r.found) > 0 || r.Risk(riskStart.Add(200*time.Minute)) > 0.6 {
		t.Errorf("risk %.2f, named %s", r.Risk(riskStart.Add(200*time.Minute)), namesOf(r.found))
	}
	for range 4 {
		r.see(201, ended("eve@shop.test", mailq.Bounced, mailq.Content))
	}
	r.see(202, ended("eve@shop.test", mailq.Bounced, mailq.Content))
	if got := namesOf(r.found); !strings.Contains(got, "eve@shop.test") || strings.Contains(got, "innocent") {
		t.Errorf("named %q", got)
	}
}

// One message that one server calls spam, and that the mail server tries again
// for days, is one message; and one server alone gets nobody named.
func TestListingRiskOfOneMessage(t *testing.T) {
	r := newRiskRun(t, 0.01)
	again := ended("innocent@shop.test", mailq.Deferred, mailq.Content)
	again.Message, again.To = 7, mailq.Recipient{Hash: 8, Domain: "mx.example.org"}
	for minute := range 5 * 24 * 12 {
		r.see(5*minute, again)
	}
	again.Kind = mailq.Bounced
	r.see(5*24*60, again)
	if risk := r.Risk(riskStart.Add(5 * 24 * time.Hour)); risk > 0.001 || len(r.found) > 0 {
		t.Errorf("risk %.3f, named %s", risk, namesOf(r.found))
	}
	for i := range 100 {
		ev := ended("innocent@shop.test", mailq.Bounced, mailq.Content)
		ev.Message, ev.To = uint64(100+i), mailq.Recipient{Hash: uint64(i), Domain: fmt.Sprintf("r%d.example.org", i)}
		r.see(5*24*60+1, ev)
	}
	if points := r.accounts["innocent@shop.test"].points(); points != receiverMost || len(r.found) > 0 {
		t.Errorf("one receiver gives %.1f points, want %d; named %s", points, receiverMost, namesOf(r.found))
	}
	ev := ended("innocent@shop.test", mailq.Bounced, mailq.Content)
	ev.Message, ev.To = 1000, mailq.Recipient{Hash: 1, Domain: "example.net"}
	if r.see(5*24*60+2, ev); len(r.latest) != 1 {
		t.Errorf("a second receiver says so too, and nobody is named")
	}
}

// One server that defers the same mail over and over, and all other mail too, is
// no more than its part of the addresses' risk.
func TestListingRiskOfOneServer(t *testing.T) {
	r := newRiskRun(t, 0.8)
	for i := range 500 {
		ev := ended("alice@shop.test", mailq.Deferred, mailq.AddressReputation)
		ev.Message, ev.To = uint64(i%3+1), mailq.Recipient{Hash: uint64(i % 3), Domain: fmt.Sprintf("d%d.test", i%3)}
		ev.Reply.Provider = "microsoft"
		r.see(i, ev)
	}
	if risk := r.Risk(riskStart); risk > 0.31 {
		t.Errorf("risk %.2f, want 0.30 at most", risk)
	}
}

// What is remembered about retries and receivers is bounded.
func TestListingRiskRemembersLittle(t *testing.T) {
	r := newRiskRun(t, 0)
	for i := range 10_000 {
		ev := ended("mallory@shop.test", mailq.Deferred, mailq.Content)
		ev.Message, ev.To = uint64(i+1), mailq.Recipient{Hash: uint64(i), Domain: fmt.Sprintf("d%d.test", i)}
		r.see(0, ev)
	}
	if a := r.accounts["mallory@shop.test"]; len(a.counted) > maxOnce || len(a.receivers.points) > maxShares || a.points() != contentMost {
		t.Errorf("%d messages, %d receivers, %.0f points", len(a.counted), len(a.receivers.points), a.points())
	}
}

// A few dead addresses are everybody's; many, and a large share, are not.
func TestListingRiskUnknown(t *testing.T) {
	r := newRiskRun(t, 0.01)
	bounce := func(n int) {
		for range n {
			r.see(0, ended("news@shop.test", mailq.Bounced, mailq.RecipientUnknown))
		}
	}
	bounce(unknownFree)
	for range 200 {
		r.see(0, ended("news@shop.test", mailq.Delivered, mailq.OK))
	}
	bounce(10)
	if risk := r.Risk(riskStart); risk != 0 {
		t.Errorf("15 of 215 dead: risk %.2f, want 0", risk)
	}
	bounce(100)
	if risk := r.Risk(riskStart); risk != 0.3 {
		t.Errorf("115 of 315 dead: risk %.2f, want 0.30", risk)
	}
}

// Points halve in six hours, and what is over begins anew.
func TestListingRiskDecays(t *testing.T) {
	r := newRiskRun(t, 1)
	r.see(0, trapMail("mallory@shop.test", trapHash))
	if risk := r.Risk(riskStart.Add(6 * time.Hour)); risk < 0.199 || risk > 0.201 {
		t.Errorf("risk %.3f after a half-life, want 0.2", risk)
	}
	r.see(3*24*60, trapMail("mallory@shop.test", trapHash))
	if since := r.accounts["mallory@shop.test"].since; !since.Equal(riskStart.Add(3 * 24 * time.Hour)) {
		t.Errorf("the second time begins at %s", since)
	}
}

// A flood of accounts takes no points from who has many, and the sum stays that
// of the accounts.
func TestListingRiskIsBounded(t *testing.T) {
	r := newRiskRun(t, 0)
	r.see(0, trapMail("mallory@shop.test", trapHash))
	for i := range 3 * maxEndangering {
		r.see(i/1000, ended(mailq.Account(fmt.Sprintf("a%d@flood.test", i)), mailq.Bounced, mailq.Content))
	}
	if n := len(r.accounts); n > maxEndangering || r.accounts["mallory@shop.test"] == nil {
		t.Errorf("%d accounts, mallory %v", n, r.accounts["mallory@shop.test"])
	}
	now := riskStart.Add(30 * time.Minute)
	sum := 0.0
	for _, a := range r.accounts {
		sum += a.points() * halved(a.at, now)
	}
	if got := r.sum * halved(r.sumAt, now); got < 0.99*sum || got > 1.01*sum {
		t.Errorf("the sum is %.1f, of the accounts %.1f", got, sum)
	}
	before := r.Risk(now)
	r.Release("mallory@shop.test", now)
	if after := r.Risk(now); r.accounts["mallory@shop.test"] != nil || after > before {
		t.Errorf("released, and still %v; risk %.2f, before %.2f", r.accounts["mallory@shop.test"], after, before)
	}
	var none *ListingRisk
	none.Release("a", now)
	if none.Observe(&mailq.Event{Account: "a"}) != nil || none.Risk(now) != 0 {
		t.Error("no watch, and yet a risk")
	}
}

// A line that a wrong clock stamped a year ahead does not keep signs for ever,
// nor anybody from being named.
func TestListingRiskAfterAWrongClock(t *testing.T) {
	r := newRiskRun(t, 0.8)
	r.see(365*24*60, ended("alice@shop.test", mailq.Bounced, mailq.Content))
	for day := range 30 {
		r.see(day*24*60, ended("alice@shop.test", mailq.Bounced, mailq.Content))
	}
	if risk := r.Risk(riskStart.AddDate(0, 0, 29)); risk > 0.1 {
		t.Errorf("one sign a day comes to a risk of %.2f", risk)
	}
	r.see(2*365*24*60, trapMail("bob@shop.test", trapHash))
	r.see(2*365*24*60, trapMail("bob@shop.test", secondTrap))
	for i := range 40 {
		r.see(30*24*60+i, ended(mailq.Account(fmt.Sprintf("m%d@shop.test", i%2)), mailq.Bounced, mailq.Content))
	}
	if len(r.latest) == 0 {
		t.Error("nobody is named after a finding of a year ahead")
	}
}

// That recipients did not exist is forgotten as all signs are, and so are those
// that did.
func TestListingRiskForgetsRecipients(t *testing.T) {
	r := newRiskRun(t, 0.01)
	mailing := func(day, dead, all int) {
		for i := range all {
			kind, class := mailq.Delivered, mailq.OK
			if i < dead {
				kind, class = mailq.Bounced, mailq.RecipientUnknown
			}
			r.see(day*24*60+i, ended("alice@shop.test", kind, class))
		}
	}
	mailing(0, 200, 1000)
	r.found = nil
	mailing(90, 5, 100) // of which everybody has some
	if len(r.found) > 0 {
		t.Errorf("five dead of a hundred, three months after a bad list: %s", namesOf(r.found))
	}
	mailing(180, 0, 5000)
	mailing(270, 60, 100)
	if !strings.Contains(namesOf(r.latest)+namesOf(r.found), "alice@shop.test") {
		t.Error("sixty dead of a hundred are nothing after a long good time")
	}
}

// What is forgotten of accounts leaves the sum too: many customers with next to
// nothing are no risk.
func TestListingRiskIsTheSumOfItsAccounts(t *testing.T) {
	r := newRiskRun(t, 0)
	for i := range 300 {
		account := mailq.Account(fmt.Sprintf("a%d@shop.test", i))
		r.see(0, ended(account, mailq.Bounced, mailq.Content))
		a := r.accounts[account]
		a.content, r.sum = 0.4, r.sum-contentPoints+0.4
		r.see(1, ended(account, mailq.Delivered, mailq.OK))
	}
	sum := 0.0
	for _, a := range r.accounts {
		sum += a.points()
	}
	if risk := 100 * r.Risk(riskStart.Add(time.Minute)); risk > sum+1 {
		t.Errorf("accounts have %.1f points, the risk is of %.1f", sum, risk)
	}
}

// Looking at who endangers the addresses changes nothing, whatever the log's time.
func TestTopChangesNothing(t *testing.T) {
	r := newRiskRun(t, 0)
	for range 3 {
		r.see(0, ended("alice@shop.test", mailq.Bounced, mailq.Content))
	}
	before := *r.accounts["alice@shop.test"]
	for range 3 {
		if top := r.Top(riskStart.Add(6*time.Hour), 3); len(top) != 1 || top[0].Points < 8.9 || top[0].Points > 9.1 {
			t.Errorf("top %+v", top)
		}
	}
	if after := *r.accounts["alice@shop.test"]; after.content != before.content || !after.at.Equal(before.at) {
		t.Errorf("content %.1f at %s, before %.1f at %s", after.content, after.at, before.content, before.at)
	}
}

// Where an account signed in from weighs as much as what it did, at most.
func TestListedClientsAddToDeeds(t *testing.T) {
	r := newRiskRun(t, 0.1)
	for i := range 3 {
		r.SignedIn(ListedClient{"alice@shop.test", fmt.Sprintf("192.0.2.%d", i), riskStart, 10, "XBL"})
	}
	for i := range 2 {
		r.see(i, ended("alice@shop.test", mailq.Bounced, mailq.Content))
	}
	if got := namesOf(r.latest); got != "alice@shop.test 24" {
		t.Errorf("named %q, want her with 12 points and as many for her clients", got)
	}
}
