package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// from is a listed client of an account, so many minutes after the beginning.
func from(account mailq.Account, client string, points, minute int) ListedClient {
	return ListedClient{account, client, riskStart.Add(time.Duration(minute) * time.Minute), points, "Spamhaus AuthBL: bots with stolen credentials"}
}

// A listed client raises the risk, and names nobody: a neighbour behind the same
// address may be infected.
func TestListedClientNamesNobody(t *testing.T) {
	r := newRiskRun(t, 0.1)
	for minute := range 100 {
		r.SignedIn(from("alice@shop.test", "192.0.2.7", 25, minute))
		r.see(minute, ended("alice@shop.test", mailq.Delivered, mailq.OK))
		one := ended("alice@shop.test", mailq.Bounced, mailq.Content) // and so does what one receiver says
		one.Message, one.To = uint64(1000+minute), mailq.Recipient{Hash: uint64(minute), Domain: "r.test"}
		r.see(minute, one)
	}
	if len(r.found) > 0 || r.Risk(riskStart.Add(100*time.Minute)) < 0.4 {
		t.Errorf("risk %.2f, named %s", r.Risk(riskStart.Add(100*time.Minute)), namesOf(r.found))
	}
	r.see(100, ended("alice@shop.test", mailq.Bounced, mailq.Content)) // a second receiver
	if got := namesOf(r.latest); got != "alice@shop.test 51" {
		t.Fatalf("named %q", got)
	}
	f := r.latest[0]
	if e := f.Evidence[1]; f.Families != 1 || e.Kind != rules.Logins || e.Score < 24 || e.Text != "signed in from 192.0.2.7, which is on Spamhaus AuthBL: bots with stolen credentials" {
		t.Errorf("%d families, evidence %+v", f.Families, e)
	}
	if text := f.Evidence[2].Text; !strings.Contains(text, "100 % of what accounts add to it") {
		t.Errorf("evidence %q", text)
	}
}

// With a trap, the listed client makes the risk high enough sooner.
func TestListedClientWithATrap(t *testing.T) {
	for points, want := range map[int]string{0: "", 25: "mallory@shop.test 65"} {
		r := newRiskRun(t, 0.6)
		r.SignedIn(from("mallory@shop.test", "192.0.2.7", points, 0))
		r.see(0, trapMail("mallory@shop.test", trapHash))
		if got := namesOf(r.found); got != want {
			t.Errorf("%d points for the client: named %q, want %q", points, got, want)
		}
	}
}

// However many listed clients customers have, they are no more than their part of
// the risk, and hide nobody's deeds.
func TestListedClientsAreBounded(t *testing.T) {
	r := newRiskRun(t, 0.3)
	for i := range 1000 {
		for j := range 3 {
			r.SignedIn(from(mailq.Account(fmt.Sprintf("a%d@shop.test", i)), fmt.Sprintf("192.0.2.%d", j), 25, 0))
		}
	}
	a := r.accounts["a1@shop.test"]
	if a.client != clientsMost || r.Risk(riskStart) != 0.3 || !strings.HasSuffix(a.signedIn, "; 3 such addresses") {
		t.Errorf("an account has %.0f points (%s), the risk is %.2f", a.client, a.signedIn, r.Risk(riskStart))
	}
	for minute := range 2 {
		r.see(minute, ended("eve@shop.test", mailq.Bounced, mailq.Content))
	}
	if got := namesOf(r.found); got != "eve@shop.test 12" {
		t.Errorf("named %q", got)
	}
	for i := range 100_000 {
		r.SignedIn(from("mallory@shop.test", fmt.Sprint(i), 10, 0))
	}
	if n := len(r.accounts["mallory@shop.test"].clients.points); n > maxShares {
		t.Errorf("%d clients are remembered", n)
	}
	for i := range 3 * maxEndangering {
		r.SignedIn(from(mailq.Account(fmt.Sprintf("b%d@shop.test", i)), "192.0.2.1", 10, 0))
	}
	sum := 0.0
	for _, a := range r.accounts {
		sum += a.client
	}
	if len(r.accounts) > maxEndangering || r.clients < 0.99*sum || r.clients > 1.01*sum {
		t.Errorf("%d accounts; the sum is %.0f, of the accounts %.0f", len(r.accounts), r.clients, sum)
	}
}

// A release forgives the clients too, also those whose answer was on its way.
func TestReleaseForgivesClients(t *testing.T) {
	r := newRiskRun(t, 0.3)
	r.SignedIn(from("alice@shop.test", "192.0.2.7", 25, 0))
	r.Release("alice@shop.test", riskStart.Add(time.Minute))
	r.SignedIn(from("alice@shop.test", "192.0.2.8", 25, 0))
	if risk := r.Risk(riskStart.Add(time.Minute)); risk > 0.001 {
		t.Errorf("risk %.2f after the release", risk)
	}
	r.SignedIn(from("alice@shop.test", "192.0.2.9", 25, 2))
	if risk := r.Risk(riskStart.Add(2 * time.Minute)); risk < 0.24 {
		t.Errorf("risk %.2f of what came after the release", risk)
	}
	for i := range 2 * maxReleases {
		r.Release(mailq.Account(fmt.Sprint(i)), riskStart)
	}
	if n := len(r.released); n > maxReleases {
		t.Errorf("%d releases are remembered", n)
	}
	var none *ListingRisk
	none.SignedIn(from("alice@shop.test", "192.0.2.7", 25, 0))
}
