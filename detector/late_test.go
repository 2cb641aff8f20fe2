package detector

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
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

// meanwhile is what there may be of an account after a cut, before what waited
// comes, that it has not sent.
var meanwhile = map[string]func(w *world, at time.Time){
	"nothing":    func(*world, time.Time) {},
	"reads mail": func(w *world, at time.Time) { w.login(alice, at, "10.1.1.5", true) },
	"gets a bounce": func(w *world, at time.Time) {
		w.observe(&mailq.Event{Time: at, Kind: mailq.Submitted, Host: "mx1", Into: alice, Client: addr("198.51.100.9"), Message: 7})
	},
	"its queue is deferred": func(w *world, at time.Time) {
		w.outcome(alice, at, 1, "x1@prey1.test", mailq.Deferred, mailq.Reply{Class: mailq.AddressReputation, Code: 421, Provider: "google"}, false)
	},
	"its queue is called spam": func(w *world, at time.Time) {
		w.outcome(alice, at, 1, "x1@prey1.test", mailq.Deferred, mailq.Reply{Class: mailq.Content, Code: 450, Provider: "google"}, false)
	},
	"a dead address": func(w *world, at time.Time) {
		w.outcome(alice, at, 1, "x1@prey1.test", mailq.Bounced, mailq.Reply{Class: mailq.RecipientUnknown, Code: 550}, false)
	},
}

// A hijack during a cut is found, by its own time, whatever else there is of the
// account since: only what it has sent itself puts its backlog out of order.
func TestHijackDuringACut(t *testing.T) {
	for name, since := range meanwhile {
		for _, cut := range []time.Duration{10 * time.Minute, 4 * time.Hour, 30 * time.Hour} {
			w := newWorld(t, nil)
			begun := w.office(10, 25).Add(time.Hour)
			since(w, begun.Add(cut))
			w.forget()
			for n := range 40 {
				to := rcpt(fmt.Sprintf("x%d@prey%d.test", n, n))
				at := begun.Add(time.Duration(n) * time.Second)
				ev := mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Host: "mx1", Account: alice, Message: uint64(n + 1), Rcpts: 1, New: []mailq.Recipient{to}, Client: addr("203.0.113.7")}
				if f, ok := w.d.ObserveLate(&ev); ok {
					w.found = append(w.found, f)
					if !f.Time.Equal(at) || f.Since.After(at) {
						t.Errorf("%s, %s: found at %s, since %s; it was at %s", name, cut, f.Time, f.Since, at)
					}
				}
				if n%20 == 19 { // between one piece of the backlog and the next
					since(w, begun.Add(cut+time.Duration(n)*time.Second))
				}
			}
			if l := w.worst(alice); l < held || w.d.Stats().Late != 0 {
				t.Errorf("%s, %s: level %d, %d late", name, cut, l, w.d.Stats().Late)
			}
		}
	}
}

// A day's ordinary mail that waited is no burst, whatever else there is of the
// account since. Judged as if it had just happened it would be.
func TestOrdinaryMailDuringACut(t *testing.T) {
	judge := func(begun time.Time, since func(*world, time.Time), look func(*Detector, *mailq.Event) (rules.Finding, bool)) (level, uint64) {
		w := newWorld(t, nil)
		w.office(10, 25)
		since(w, begun.Add(16*time.Hour))
		w.forget()
		for n := range 24 {
			to := fmt.Sprintf("contact%d@client1.test", n)
			if n%8 == 7 {
				to = fmt.Sprintf("new%d@elsewhere%d.test", n, n)
			}
			ev := mailq.Event{Time: begun.Add(time.Duration(n) * 20 * time.Minute), Kind: mailq.Submitted, Counts: true, Host: "mx1", Account: alice, Message: uint64(n + 1),
				Sender: string(alice), Size: 3000 * n, Rcpts: 1, New: []mailq.Recipient{rcpt(to)}, Client: addr("10.1.1.5")}
			if f, ok := look(w.d, &ev); ok {
				w.found = append(w.found, f)
			}
			if n%12 == 11 {
				since(w, begun.Add(16*time.Hour+time.Duration(n)*time.Second))
			}
		}
		return w.worst(alice), w.d.Stats().Late
	}
	for _, hour := range []int{8, 19} { // the second goes over midnight
		begun := monday.AddDate(0, 0, 25).Add(time.Duration(hour) * time.Hour)
		for name, since := range meanwhile {
			most := quiet
			if name == "its queue is called spam" || name == "a dead address" { // which says something
				most = observed
			}
			if l, late := judge(begun, since, (*Detector).ObserveLate); l > most || late != 0 {
				t.Errorf("%s, from %s: level %d, %d late", name, begun, l, late)
			}
		}
		if l, _ := judge(begun, meanwhile["reads mail"], (*Detector).Observe); l == quiet {
			t.Error("at once it comes to nothing")
		}
	}
}

// An account that goes back to what waited closes no day a second time, takes no
// network for its own because of it, and has travelled nowhere.
func TestGoingBackOverMidnight(t *testing.T) {
	w := newWorld(t, nil)
	w.d.cfg.Locate = func(a netip.Addr) Place {
		if a.As4()[0] == 203 {
			return tokyo
		}
		return rome
	}
	evening := w.office(10, 25).Truncate(24 * time.Hour).Add(20 * time.Hour)
	w.send(alice, evening, mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5"})
	w.login(alice, evening.Add(20*time.Hour), "203.0.113.9", true)
	a := w.d.accounts[alice]
	days, used, said := a.rate.days, a.log.days, a.log.s
	ev := mailq.Event{Time: evening.Add(time.Hour), Kind: mailq.Submitted, Counts: true, Host: "mx1", Account: alice, Message: 9, Rcpts: 1, Client: addr("10.9.9.9")}
	w.d.ObserveLate(&ev)
	if a.last != ev.Time.UnixNano() || a.rate.days != days || a.log.days != used || a.log.knows(networkOf(addr("203.0.113.9"))) {
		t.Errorf("last %s, %v and %v days, before %v and %v", time.Unix(0, a.last), a.rate.days, a.log.days, days, used)
	}
	if a.log.far || a.log.s-said > netTop+secondLand {
		t.Errorf("far %t; it says %v, before %v", a.log.far, a.log.s, said)
	}
}

// What a person has cleared since is not judged.
func TestLateEventsOfBeforeARelease(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	w.d.Release(alice, evening.Add(5*time.Hour), "r1")
	for _, ev := range hours(alice, evening.Add(time.Hour)) {
		if f, ok := w.d.ObserveLate(&ev); ok {
			t.Fatalf("found: %+v", f)
		}
	}
	if n := w.d.Stats().Late; n != 360 {
		t.Errorf("%d events were late, want 360", n)
	}
}
