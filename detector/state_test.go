package detector

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// mixed is a log with everything in it: ordinary days of an office, a hijack,
// bounces, blame, logins, scripts, lost lines.
func mixed(t testing.TB) []mailq.Event {
	var evs []mailq.Event
	w := newWorld(t, nobody{})
	w.tap = func(ev *mailq.Event) { evs = append(evs, *ev) }
	evening := w.office(8, 12)
	for i := range 40 {
		m := mail{client: fmt.Sprintf("203.0.%d.9", i/4), subject: "You won", from: fmt.Sprintf("x%d@win.test", i)}
		if i%3 == 0 {
			m.fate, m.reply = mailq.Bounced, mailq.Reply{Class: mailq.RecipientUnknown, Code: 550}
		}
		if i%7 == 0 {
			m.fate, m.reply = mailq.Deferred, mailq.Reply{Class: mailq.AddressReputation, Code: 421, Provider: "google"}
		}
		at := evening.Add(time.Duration(i) * 20 * time.Second)
		w.login(alice, at, m.client, i%2 == 0)
		w.burst(alice, at, 0, 1, blocked+1, m)
		w.send("user:www-data", at, mail{to: addresses("guest", 3), script: fmt.Sprintf("/home/u/public_html/uploads/%d.php", i/10)})
	}
	w.observe(&mailq.Event{Time: evening.Add(time.Hour), Kind: mailq.Lost, Host: "mx1", Rcpts: 7})
	w.office(8, 2)
	return evs
}

func TestRestoreGoesOnExactly(t *testing.T) {
	evs := mixed(t)
	run := func(d *Detector, evs []mailq.Event) (found []rules.Finding) {
		for i := range evs {
			if f, ok := d.Observe(&evs[i]); ok {
				found = append(found, f)
			}
		}
		return found
	}
	whole := New(Default(), nobody{})
	want := run(whole, evs)
	if len(want) < 10 {
		t.Fatalf("only %d findings to compare", len(want))
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 12 {
		cut := len(evs) - 1 - rnd.IntN(min(400, len(evs)-1))
		first := New(Default(), nobody{})
		saved := map[mailq.Account][]byte{}
		keep := func(a mailq.Account, state []byte) { saved[a] = state }
		got := run(first, evs[:cut/2])
		first.Changed(keep)
		got = append(got, run(first, evs[cut/2:cut])...)
		first.Changed(keep)
		second := New(Default(), nobody{})
		for a, state := range saved {
			if err := second.Restore(a, state); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, run(second, evs[cut:])...)
		if diff := cmp.Diff(got, want); diff != "" {
			t.Fatalf("cut at event %d of %d: %s", cut, len(evs), diff)
		}
		for a := range saved {
			x, _ := second.Why(a)
			y, _ := whole.Why(a)
			if diff := cmp.Diff(x, y); diff != "" {
				t.Fatalf("cut at event %d, %s: %s", cut, a, diff)
			}
		}
	}
}

func TestChangedTellsOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.send(alice, monday, mail{to: addresses("a", 1)})
	count := func() (n int) {
		w.d.Changed(func(mailq.Account, []byte) { n++ })
		return n
	}
	if n := count(); n != 3 {
		t.Errorf("%d states after one account's first message, want the account, the installation and a page of its memory", n)
	}
	if n := count(); n != 0 {
		t.Errorf("%d states when nothing changed", n)
	}
}

func TestRestoreRefusesWhatItDidNotWrite(t *testing.T) {
	d := New(Default(), nil)
	for _, state := range [][]byte{nil, {}, {0}, {stateVersion}, {stateVersion + 1, 0, 0}, make([]byte, 4000)} {
		for _, a := range []mailq.Account{alice, fleetKey, ":everyone/0", ":everyone/999999", ":everyone/x", ":heard/0"} {
			if err := d.Restore(a, state); !errors.Is(err, ErrState) {
				t.Errorf("%q from %v: %v", a, state, err)
			}
		}
	}
	if n := d.Stats().Accounts; n != 0 {
		t.Errorf("%d accounts after refusing all", n)
	}
}

func TestStateIsSmall(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 40)
	w.d.Changed(func(a mailq.Account, state []byte) {
		if a.Kind() == mailq.KindLogin && a[0] != ':' && len(state) > 1000 {
			t.Errorf("%s takes %d bytes", a, len(state))
		}
	})
}

func FuzzRestore(f *testing.F) {
	evs := mixed(f)
	d := New(Default(), nobody{})
	for i := range evs {
		d.Observe(&evs[i])
	}
	d.Changed(func(a mailq.Account, state []byte) {
		if len(state) < 4000 {
			f.Add(string(a), state)
		}
	})
	f.Fuzz(func(t *testing.T, name string, state []byte) {
		cfg := Default()
		cfg.FleetRecipients = 1024
		d := New(cfg, nil)
		if d.Restore(mailq.Account(name), state) != nil {
			return
		}
		// What was accepted must be usable, and be written as it was read.
		at := monday
		for i := range 3 {
			at = at.Add(time.Hour)
			to := rcpt(fmt.Sprintf("r%d@x.test", i))
			d.Observe(&mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Account: mailq.Account(name), Message: uint64(i + 1), Sender: "x@y.test",
				Client: addr("203.0.113.9"), Size: 100, New: []mailq.Recipient{to}, Rcpts: 1})
			d.Observe(&mailq.Event{Time: at, Kind: mailq.Bounced, Account: mailq.Account(name), Message: uint64(i + 1), To: to, Reply: mailq.Reply{Class: mailq.Content}})
		}
		d.Release(mailq.Account(name), at, "k")
		d.Why(mailq.Account(name))
		again := New(cfg, nil)
		d.Changed(func(a mailq.Account, state []byte) {
			if err := again.Restore(a, state); err != nil {
				t.Fatalf("%q: %v", a, err)
			}
		})
	})
}

// An account whose state is put back while it waits to be told about is told about
// once, and its room is given back once when it is forgotten.
func TestRestoreOfAChangedAccount(t *testing.T) {
	cfg := Default()
	cfg.MaxAccounts = 2
	w := &world{t: t, d: New(cfg, nobody{})}
	w.send(alice, monday, mail{to: []string{"a@client.test"}, client: "10.1.1.5"})
	var state []byte
	w.d.Changed(func(name mailq.Account, s []byte) {
		if name == alice {
			state = s
		}
	})
	w.send(alice, monday.Add(time.Hour), mail{to: []string{"b@client.test"}, client: "10.1.1.5"})
	if err := w.d.Restore(alice, state); err != nil {
		t.Fatal(err)
	}
	w.send(alice, monday.Add(2*time.Hour), mail{to: []string{"c@client.test"}, client: "10.1.1.5"})
	w.send("bob@shop.test", monday.AddDate(0, 3, 0), mail{to: []string{"d@client.test"}, client: "10.1.2.5"})
	w.send("carol@shop.test", monday.AddDate(0, 3, 0), mail{to: []string{"e@client.test"}, client: "10.1.3.5"}) // alice is forgotten
	told := map[mailq.Account]int{}
	w.d.Changed(func(name mailq.Account, s []byte) { told[name]++ })
	if told[alice] != 1 || told[fleetKey] != 1 || len(w.d.room.free) != 1 {
		t.Errorf("told %v, and room for %d accounts is free", told, len(w.d.room.free))
	}
}

// A state of the version before is read: an upgrade forgets nothing.
func TestRestoreReadsTheVersionBefore(t *testing.T) {
	w := newWorld(t, nil)
	w.salesMonths()
	a := w.d.accounts[sales]
	old := codec{b: []byte{oldestState}, version: oldestState}
	a.fields(&old)
	d := New(Default(), nil)
	if err := d.Restore(sales, old.b); err != nil {
		t.Fatal(err)
	}
	want := a.clone()
	want.series.past.excess = excess{}
	if got := d.accounts[sales]; !bytes.Equal(encode(got.fields), encode(want.fields)) {
		t.Error("something but the excess is different")
	}
}
