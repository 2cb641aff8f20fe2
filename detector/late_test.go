package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// hours are events of three hours of an account's ordinary mail, to people whom it
// knows and some whom it does not.
func hours(account mailq.Account, from time.Time) (evs []mailq.Event) {
	for n := range 180 {
		to := rcpt(fmt.Sprintf("contact%d@ok.test", n%8))
		if n%4 == 0 {
			to = rcpt(fmt.Sprintf("customer%d@company%d.test", n, n))
		}
		at, id := from.Add(time.Duration(n)*time.Minute), uint64(n+1)*0x9e3779b97f4a7c15
		evs = append(evs,
			mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Host: "mx1", Account: account, Message: id, Sender: string(account), Size: 1000 + n, Rcpts: 1, Client: addr("10.1.1.5")},
			mailq.Event{Time: at.Add(time.Second), Kind: mailq.Delivered, Host: "mx1", Account: account, Message: id, To: to, New: []mailq.Recipient{to}, Reply: mailq.Reply{Class: mailq.OK, Code: 250, Provider: "google"}})
	}
	return evs
}

// What comes after newer events of its account is counted, raises no score and
// teaches nothing; judged as if it had happened just now it would.
func TestLateEvents(t *testing.T) {
	for _, late := range []bool{false, true} {
		w := newWorld(t, nil)
		evening := w.office(10, 25)
		w.send(alice, evening, mail{to: []string{"contact1@ok.test"}, client: "10.1.1.5"})
		before, _ := w.d.Why(alice)
		found := 0
		for _, ev := range hours(alice, evening.Add(-4*time.Hour)) {
			look := w.d.Observe
			if late {
				look = w.d.ObserveLate
			}
			if _, ok := look(&ev); ok {
				found++
			}
		}
		after, _ := w.d.Why(alice)
		if got := after.Messages - before.Messages; got != 180 {
			t.Errorf("late %t: %d messages are counted, want 180", late, got)
		}
		if late == (found > 0) {
			t.Errorf("late %t: %d findings", late, found)
		}
		if !late {
			continue
		}
		before.Messages = after.Messages
		if got, want := fmt.Sprintf("%+v", after), fmt.Sprintf("%+v", before); got != want {
			t.Errorf("late events changed what is known:\n%s\nbefore:\n%s", got, want)
		}
		if n := w.d.Stats().Late; n != 360 {
			t.Errorf("%d events were late, want 360", n)
		}
	}
}

// What waited of an account that has been silent since is judged by its own time,
// as it would have been then.
func TestLateEventsOfAnAccountThatIsSilent(t *testing.T) {
	var findings [2]string
	for i := range findings {
		w := newWorld(t, nil)
		evening := w.office(10, 25)
		w.send(mailq.Account("bob@shop.test"), evening.Add(5*time.Hour), mail{to: []string{"contact1@ok.test"}})
		for n := range 40 {
			to := rcpt(fmt.Sprintf("x%d@prey%d.test", n, n))
			at := evening.Add(time.Hour + time.Duration(n)*time.Second)
			ev := mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Host: "mx1", Account: alice, Message: uint64(n + 1), Rcpts: 1, New: []mailq.Recipient{to}, Client: addr("203.0.113.7")}
			look := w.d.Observe
			if i == 1 {
				look = w.d.ObserveLate
			}
			if f, ok := look(&ev); ok {
				findings[i] += fmt.Sprintf("%s %.2f %s\n", f.ID, f.Score, f.Time)
			}
		}
	}
	if findings[0] == "" || findings[0] != findings[1] {
		t.Errorf("in order:\n%slate:\n%s", findings[0], findings[1])
	}
}

// A recipient who has done something since is left out of it, and the sender is
// judged.
func TestLateMailIntoAMailbox(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	w.send("bob@shop.test", evening.Add(5*time.Hour), mail{to: []string{"contact1@ok.test"}})
	bob := w.d.accounts["bob@shop.test"]
	was := bob.in
	ev := mailq.Event{Time: evening.Add(time.Hour), Kind: mailq.Submitted, Counts: true, Host: "mx1", Account: alice, Message: 1, Rcpts: 1, Into: "bob@shop.test"}
	w.d.ObserveLate(&ev)
	if bob.in != was || w.d.accounts[alice].last != ev.Time.UnixNano() || ev.Into == "" {
		t.Errorf("inbox %+v, alice's last %d", bob.in, w.d.accounts[alice].last)
	}
}
