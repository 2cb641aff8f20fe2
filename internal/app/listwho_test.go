package app

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// left is mail of an account that another server took.
func left(account mailq.Account, at time.Time) *mailq.Event {
	return &mailq.Event{Time: at, Kind: mailq.Delivered, Account: account, To: mailq.Recipient{Domain: "example.org"}}
}

// Of an hour's mail those are named who sent most, with what was done to them.
func TestOutflow(t *testing.T) {
	now := time.Date(2026, 3, 20, 10, 2, 0, 0, time.UTC)
	var o outflow
	if said := o.evidence(now, nil); len(said) > 0 {
		t.Errorf("nothing was sent, and it says %+v", said)
	}
	send := func(account mailq.Account, n int, at time.Time) {
		for range n {
			o.saw(left(account, at), now)
		}
	}
	send("old@shop.test", 50, now.Add(-70*time.Minute))
	send("ahead@shop.test", 50, now.AddDate(50, 0, 0)) // somebody's clock is wrong
	send("bob@shop.test", 3, now.Add(-40*time.Minute))
	send("alice@shop.test", 20, now.Add(-30*time.Minute))
	send("alice@shop.test", 10, now.Add(-time.Minute))
	send("old@shop.test", 50, now.Add(-65*time.Minute)) // read late
	send("carol@shop.test", 2, now.Add(time.Minute))
	send("dave@shop.test", 1, now)
	o.saw(&mailq.Event{Time: now, Kind: mailq.Delivered, Account: "bob@shop.test", Into: "alice@shop.test"}, now)
	o.saw(&mailq.Event{Time: now, Kind: mailq.Deferred, Account: "bob@shop.test"}, now)
	o.saw(&mailq.Event{Time: now, Kind: mailq.Delivered}, now) // inbound
	done := map[string]rules.Decision{"alice@shop.test": {Action: rules.Hold, Time: now.Add(-time.Minute)}}
	said := o.evidence(now, done)
	want := "in the last hour mail for 36 recipients left here for other servers, most of it from alice@shop.test (30; mail held since 2026-03-20 10:01 UTC), bob@shop.test (3), carol@shop.test (2)"
	if len(said) != 1 || said[0].Text != want {
		t.Errorf("it says %+v,\nwant %q", said, want)
	}
	var fresh outflow
	fresh.saw(left("bob@shop.test", now.Add(-10*time.Minute)), now)
	if said := fresh.evidence(now, nil); len(said) != 1 || !strings.HasPrefix(said[0].Text, "since 2026-03-20 09:52 UTC mail for 1 recipient left") {
		t.Errorf("soon after the start: %+v", said)
	}
	if said := o.evidence(now.Add(2*time.Hour), nil); len(said) > 0 {
		t.Errorf("two hours later: %+v", said)
	}
}

// A flood of accounts takes no memory, and hides nobody who sends more.
func TestOutflowIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 20, 10, 2, 0, 0, time.UTC)
	var o outflow
	for i := range 20_000 {
		o.saw(left(mailq.Account(fmt.Sprintf("a%d@shop.test", i)), now), now)
		if i%100 == 0 {
			o.saw(left("alice@shop.test", now), now)
		}
	}
	rcpts, others := o.lastHour(now)
	total := others
	for _, n := range rcpts {
		total += n
	}
	if len(rcpts) > maxInSlot || total != 20_200 || rcpts["alice@shop.test"] != 200 {
		t.Errorf("%d accounts counted, %d recipients, %d of alice; want at most %d, 20200, 200", len(rcpts), total, rcpts["alice@shop.test"], maxInSlot)
	}
}

// The message about an address of ours says who may be behind the listing: who
// sent most, and whom points are held against.
func TestListingSaysWho(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
		s := startLists(t, state, f)
		time.Sleep(2 * time.Hour)
		now := time.Now()
		if err := s.inObserve(t.Context(), func() {
			s.judge.watchRisk(config.ListRisk{Traps: []string{"trap@example.com"}}, s.directory)
			trap := mailq.Recipient{Hash: mailq.HashRecipient(s.judge.parser.Key, "trap@example.com"), Domain: "example.com"}
			s.saw(&mailq.Event{Time: now, Kind: mailq.Submitted, Account: "alice@shop.test", Counts: true, Rcpts: 1, New: []mailq.Recipient{trap}})
			for range 31 {
				s.saw(left("alice@shop.test", now))
			}
			s.saw(left("bob@shop.test", now))
		}); err != nil {
			t.Fatal(err)
		}
		f.set(func() { f.entries[onSpamcop] = "127.0.0.2" })
		time.Sleep(time.Hour)
		all := s.messages(t)
		if len(all) != 1 {
			t.Fatalf("letters %q", s.letters(t))
		}
		text := all[0].Text()
		for _, want := range []string{"most of it from alice@shop.test (31)", "bob@shop.test (1)", "alice@shop.test endangers the addresses", "1 recipients are spam traps; nothing is done to it"} {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
				t.Errorf("the message lacks %q:\n%s", want, text)
			}
		}
		s.stop()
	})
}
