package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// The tests of this file bear the names of the field's known pains.

const alice = mailq.Account("user1@office.test")

func named(t *testing.T, name string, f func(t *testing.T, w *world)) {
	t.Run(name, func(t *testing.T) {
		f(t, newWorld(t, &mailq.Directory{Owners: map[string][]string{string(alice): {"@brand.test"}}}))
	})
}

func atMost(t *testing.T, w *world, a mailq.Account, limit level) {
	t.Helper()
	if got := w.worst(a); got > limit {
		t.Errorf("%s reached level %d, want at most %d: %s", a, got, limit, short(w.last(a).Evidence))
	}
}

func TestNamed(t *testing.T) {
	named(t, "site-mails-its-own-admin", func(t *testing.T, w *world) {
		site := mailq.Account("script:/home/u/public_html/index.php")
		for i := range 500 {
			w.send(site, monday.Add(time.Duration(i)*7*time.Second), mail{to: []string{"admin@shop.test"}})
		}
		atMost(t, w, site, observed)
	})
	named(t, "restart-replay-event-time", func(t *testing.T, w *world) {
		// A year-old log read at full speed is a year-old log, not a burst.
		w.office(10, 30)
		for i := range 10 {
			atMost(t, w, mailq.Account(fmt.Sprintf("user%d@office.test", i)), quiet)
		}
	})
	named(t, "defer-fail-from-inbound-junk", func(t *testing.T, w *world) {
		evening := w.office(5, 20)
		for i := range 200 {
			at := evening.Add(time.Duration(i) * time.Second)
			w.observe(&mailq.Event{Time: at, Kind: mailq.Bounced, Reply: mailq.Reply{Class: mailq.RecipientUnknown}})
			for _, class := range []mailq.Class{mailq.MailboxFull, mailq.Greylisted, mailq.MailboxInactive, mailq.Network, mailq.Policy, mailq.Quota, mailq.Authentication, mailq.LocalPolicy} {
				w.outcome(alice, at, 1, "contact1@client1.test", mailq.Bounced, mailq.Reply{Class: class, Code: 550}, false)
			}
		}
		atMost(t, w, alice, quiet)
	})
	named(t, "office-nat-stale-password", func(t *testing.T, w *world) {
		evening := w.office(5, 20)
		for i := range 300 {
			w.login(alice, evening.Add(time.Duration(i)*10*time.Second), "10.1.1.77", false)
		}
		for who := range 5 {
			a := mailq.Account(fmt.Sprintf("user%d@office.test", who))
			w.login(a, evening.Add(time.Hour), "10.1.1.77", true)
			w.send(a, evening.Add(time.Hour+time.Minute), mail{to: []string{fmt.Sprintf("contact1@client%d.test", who)}, client: "10.1.1.77"})
			atMost(t, w, a, quiet)
		}
	})
	named(t, "auth-backend-outage", func(t *testing.T, w *world) {
		evening := w.office(20, 20)
		for i := range 2000 {
			who := i % 20
			w.login(mailq.Account(fmt.Sprintf("user%d@office.test", who)), evening.Add(time.Duration(i)*time.Second), fmt.Sprintf("10.1.%d.5", who), false)
		}
		for who := range 20 {
			a := mailq.Account(fmt.Sprintf("user%d@office.test", who))
			w.login(a, evening.Add(time.Hour), fmt.Sprintf("10.1.%d.5", who), true)
			w.send(a, evening.Add(time.Hour), mail{to: []string{fmt.Sprintf("contact1@client%d.test", who)}, client: fmt.Sprintf("10.1.%d.5", who)})
			atMost(t, w, a, quiet)
		}
	})
	named(t, "empty-sender-key", func(t *testing.T, w *world) {
		for i := range 200 {
			ev := mailq.Event{Time: monday.Add(time.Duration(i) * time.Second), Kind: mailq.Submitted, Counts: true, Message: uint64(i + 1), New: []mailq.Recipient{rcpt(fmt.Sprintf("v%d@a.test", i))}}
			w.observe(&ev)
		}
		if len(w.found) != 0 || len(w.d.accounts) != 0 {
			t.Errorf("mail that nobody answers for made %d findings and %d accounts", len(w.found), len(w.d.accounts))
		}
	})
	named(t, "forwarded-foreign-sender", func(t *testing.T, w *world) {
		box := mailq.Account("forward:box@office.test")
		for i := range 300 {
			w.send(box, monday.Add(time.Duration(i)*time.Minute), mail{to: []string{"me@elsewhere.test"}, from: fmt.Sprintf("u%d@gmail.com", i)})
		}
		atMost(t, w, box, quiet)
	})
	named(t, "alias-sender", func(t *testing.T, w *world) {
		evening := w.office(5, 20)
		for i := range 20 {
			w.send(alice, evening.Add(time.Duration(i)*10*time.Minute), mail{to: []string{"contact1@client1.test"}, from: fmt.Sprintf("team%d@brand.test", i), client: "10.1.1.5"})
		}
		if v, _ := w.d.Why(alice); len(v.Evidence) > 0 && strings.Contains(short(v.Evidence), "sender") {
			t.Errorf("an owned domain as sender is evidence: %s", short(v.Evidence))
		}
	})
	named(t, "one-mail-sixteen-cc", func(t *testing.T, w *world) {
		evening := w.office(10, 25)
		w.send(alice, evening, mail{to: addresses("cc", 16), client: "10.1.1.5"})
		atMost(t, w, alice, observed)
		if e, _ := w.d.Why(alice); e.Accepted > 1 {
			t.Errorf("one message with sixteen recipients counts as %d", e.Accepted)
		}
	})
	named(t, "month-end-invoices", func(t *testing.T, w *world) {
		// The accountant has written to each customer before, and sends
		// the invoices at the end of every month.
		books := mailq.Account("books@office.test")
		w.office(10, 20)
		for i := range 80 {
			w.send(books, monday.AddDate(0, 0, i/4).Add(9*time.Hour+time.Duration(i)*time.Minute), mail{to: addresses("customer", 80)[i : i+1], client: "10.1.1.5"})
		}
		w.forget()
		for month := range 2 {
			w.forget()
			for i, to := range addresses("customer", 80) {
				w.send(books, monday.AddDate(0, month, 27).Add(10*time.Hour+time.Duration(i)*25*time.Second), mail{to: []string{to}, client: "10.1.1.5", subject: fmt.Sprintf("Invoice %d", i)})
			}
			atMost(t, w, books, throttled-level(month))
		}
	})
	named(t, "device-mailer", func(t *testing.T, w *world) {
		alarm := mailq.Account("alarm@office.test")
		for i := range 1000 {
			w.send(alarm, monday.Add(time.Duration(i)*15*time.Minute), mail{to: []string{"guard@office.test"}, size: 900})
		}
		for i := range 60 { // something is on fire
			w.send(alarm, monday.AddDate(0, 0, 12).Add(time.Duration(i)*5*time.Second), mail{to: []string{"guard@office.test"}, size: 900})
		}
		atMost(t, w, alarm, observed)
	})
	named(t, "forum-account", func(t *testing.T, w *world) {
		forum := mailq.Account("forum@office.test")
		for i := range 3000 {
			w.send(forum, monday.Add(time.Duration(i)*6*time.Minute), mail{to: []string{fmt.Sprintf("member%d@people%d.test", recipientHash(uint64(i))%600, i%40)}, subject: fmt.Sprintf("Reply %d", i)})
		}
		atMost(t, w, forum, throttled) // on its first day
		w.forget()
		for i := range 1000 {
			w.send(forum, w.after(forum).Add(5*time.Minute), mail{to: []string{fmt.Sprintf("member%d@people%d.test", recipientHash(uint64(i+3000))%620, i%40)}, subject: fmt.Sprintf("Reply %d", i)})
		}
		atMost(t, w, forum, quiet)
	})
	named(t, "low-and-slow-5-per-hour", func(t *testing.T, w *world) {
		evening := w.office(20, 30)
		if n := w.burst(alice, evening, 12*time.Minute, 40, held, mail{client: "10.1.1.5"}); n == 0 || n > 25 {
			t.Errorf("five an hour were held after %d messages, want at most 25", n)
		}
		w = newWorld(t, nil)
		evening = w.office(20, 30)
		if n := w.burst(alice, evening, 7*time.Hour, 60, throttled, mail{client: "10.1.1.5"}); n == 0 {
			t.Error("one message every seven hours was never slowed down")
		}
	})
	named(t, "newsletter-then-takeover", func(t *testing.T, w *world) {
		news := mailq.Account("news@office.test")
		evening := w.office(10, 30)
		for week := range 4 {
			for i := range 150 {
				to := fmt.Sprintf("reader%d@people%d.test", week*40+i, i%30)
				w.send(news, monday.AddDate(0, 0, week*7).Add(10*time.Hour+time.Duration(i)*2*time.Second), mail{to: []string{to}, client: "10.1.1.5", size: 30000})
			}
			if week > 0 {
				atMost(t, w, news, throttled)
			}
			w.forget()
		}
		n := w.burst(news, evening, 2*time.Second, 300, held, mail{client: "203.0.113.9", from: "prize@lottery.test", fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.RecipientUnknown, Code: 550}})
		if n == 0 || n > 15 {
			t.Errorf("a taken-over newsletter account was held after %d messages, want at most 15", n)
		}
	})
	named(t, "broad-550-571", func(t *testing.T, w *world) {
		evening := w.office(5, 20)
		for i := range 30 {
			w.send(alice, evening.Add(time.Duration(i)*time.Minute), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5",
				fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.Policy, Code: 550, Enhanced: "5.7.1", Text: "relaying denied"}})
		}
		atMost(t, w, alice, observed)
	})
	named(t, "alert-names-who", func(t *testing.T, w *world) {
		evening := w.office(10, 25)
		w.burst(alice, evening, 10*time.Second, 30, blocked, mail{client: "203.0.113.9"})
		f := w.last(alice)
		if f.Subject != string(alice) || f.Messages == 0 || f.Rcpts == 0 || len(f.Evidence) < 2 {
			t.Errorf("the finding does not say who, how many and why: %+v", f)
		}
		for _, e := range f.Evidence {
			if e.Text == "" || !strings.ContainsAny(e.Text, "0123456789") && e.Kind != "hours" && e.Kind != "logins" && e.Kind != "likeness" {
				t.Errorf("evidence without counts: %+v", e)
			}
		}
	})
	named(t, "twenty-ips", func(t *testing.T, w *world) {
		w.office(10, 25)
		at := monday.AddDate(0, 0, 26)
		for i := range 21 {
			w.send(alice, at.Add(time.Duration(i)*40*time.Minute), mail{to: []string{"contact1@client1.test"}, client: fmt.Sprintf("203.0.%d.9", i)})
		}
		if f := w.last(alice); f.Hard == "" || w.worst(alice) != blocked {
			t.Errorf("21 networks with mail made %+v", f)
		}
	})
	named(t, "five-countries", func(t *testing.T, w *world) {
		w.d.cfg.Locate = byThirdByte
		w.office(10, 25)
		at := monday.AddDate(0, 0, 26)
		for i := range 5 {
			w.send(alice, at.Add(time.Duration(i)*time.Hour), mail{to: []string{"contact1@client1.test"}, client: fmt.Sprintf("203.0.%d.9", i)})
		}
		if f := w.last(alice); f.Hard == "" {
			t.Errorf("five countries with mail made %+v", f)
		}
	})
	named(t, "joe-job", func(t *testing.T, w *world) {
		evening := w.office(5, 20)
		for i := range 300 { // bounces of mail that others sent in our name
			w.observe(&mailq.Event{Time: evening.Add(time.Duration(i) * time.Second), Kind: mailq.Delivered, To: rcpt(string(alice)), Into: alice, Client: addr("192.0.2.25"), Reply: mailq.Reply{Class: mailq.OK}})
		}
		atMost(t, w, alice, quiet)
	})
}

func TestReleaseDoesNotRehold(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	invite := func(at time.Time, from, to int) {
		for i := from; i < to; i++ {
			w.send(alice, at.Add(time.Duration(i)*20*time.Second), mail{to: []string{fmt.Sprintf("guest%d@people%d.test", i, i%20)}, client: "10.1.1.5"})
		}
	}
	invite(evening, 0, 15)
	if w.worst(alice) < held {
		t.Fatalf("the invitations were not noticed")
	}
	first := w.last(alice).ID
	released := evening.Add(time.Hour)
	w.d.Release(alice, released, "r1")
	w.d.Release(alice, released, "r1")
	w.forget()
	if e, _ := w.d.Why(alice); e.Score != 0 {
		t.Errorf("score %v after a release", e.Score)
	}
	// The same traffic again, and the bounces of the first.
	for i := range 15 {
		w.outcome(alice, released.Add(time.Second), uint64(i), "x@people.test", mailq.Bounced, mailq.Reply{Class: mailq.RecipientUnknown}, false)
	}
	invite(released.Add(time.Minute), 0, 15)
	invite(released.Add(time.Minute), 15, 25)
	atMost(t, w, alice, observed)
	// A hijack, two days later, is a new finding.
	w.forget()
	n := w.burst(alice, evening.AddDate(0, 0, 2), 5*time.Second, 60, held, mail{client: "203.0.113.9"})
	if n == 0 || n > 40 {
		t.Errorf("a second hijack was held after %d messages", n)
	}
	if again := w.last(alice).ID; again == first {
		t.Error("a second hijack has the first one's ID")
	}
}

func TestClearTeachesNothing(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	before := w.burst(alice, evening, 5*time.Second, 60, held, mail{client: "203.0.113.9"})
	w.d.Clear(alice, evening.Add(time.Hour))
	w.forget()
	after := w.burst(alice, evening.Add(2*time.Hour), 5*time.Second, 60, held, mail{client: "203.0.113.9"})
	if before == 0 || after == 0 || after > before+4 {
		t.Errorf("held after %d messages, and after %d when it happened again", before, after)
	}
}

// A verdict that ran out while the account was silent is spent: the owner's
// next day does not bring it back, and a hijack that goes on is found again.
func TestVerdictIsSpent(t *testing.T) {
	hijacked := func() (*world, time.Time) {
		w := newWorld(t, nil)
		evening := w.office(10, 25)
		for i := range 40 { // nobody acted on the first of it
			w.send(alice, evening.Add(time.Duration(i)*5*time.Second), mail{to: []string{fmt.Sprintf("victim%d@far%d.test", i, i)}, client: "10.1.1.5"})
		}
		if w.worst(alice) < held {
			t.Fatal("the hijack was not noticed")
		}
		w.forget()
		return w, evening.Add(30 * time.Hour)
	}
	w, next := hijacked()
	w.send(alice, next, mail{to: []string{"somebody@new.test"}, client: "10.1.1.5"})
	atMost(t, w, alice, observed)

	w, next = hijacked()
	if n := w.burst(alice, next, 5*time.Second, 60, held, mail{client: "10.1.1.5"}); n == 0 || n > 12 {
		t.Errorf("held again after %d messages, want at most 12", n)
	}
}

// A release on the next day teaches what the episode was, although it has ended.
func TestReleaseOnTheNextDayTeaches(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	mailing := func(at time.Time) level {
		w.forget()
		for i, to := range addresses("parent", 120) {
			w.send(alice, at.Add(time.Duration(i/40)*time.Minute+time.Duration(i)*time.Second), mail{to: []string{to}, client: "10.1.1.5"})
		}
		return w.worst(alice)
	}
	if l := mailing(evening); l != held {
		t.Fatalf("a mailing to 120 strangers: level %d, want a hold", l)
	}
	w.login(alice, evening.Add(26*time.Hour), "10.1.1.5", true)
	w.d.Release(alice, evening.Add(28*time.Hour), "parents")
	if l := mailing(evening.AddDate(0, 0, 9)); l > observed {
		t.Errorf("the same mailing after its release: level %d: %s", l, short(w.last(alice).Evidence))
	}
	if n := w.burst(alice, evening.AddDate(0, 0, 14), 5*time.Second, 60, held, mail{client: "203.0.113.9"}); n == 0 || n > 25 {
		t.Errorf("a hijack later is held after %d messages", n)
	}
}

// Where nobody stops anybody and nobody releases anybody, a mailing of the owner's own
// that ended by itself is his from the third day on. One that was stopped, or that showed
// somebody else's hand, is not.
func TestForgive(t *testing.T) {
	const home = "10.1.1.5"
	for _, tt := range []struct {
		name  string
		after time.Duration                // of the second mailing
		spoil func(w *world, at time.Time) // right after the first …
		later func(w *world, at time.Time) // … and two days later
		want  level
	}{
		{"next week", 7 * 24 * time.Hour, nil, nil, observed},
		{"next month", 30 * 24 * time.Hour, nil, nil, observed},
		{"stopped, and nothing more came", 7 * 24 * time.Hour, func(w *world, at time.Time) { w.d.Stopped(alice) }, nil, held},
		{"stopped late", 7 * 24 * time.Hour, nil, func(w *world, at time.Time) {
			w.observe(&mailq.Event{Time: at, Kind: mailq.Held, Account: alice})
		}, held},
		{"cleared", 7 * 24 * time.Hour, func(w *world, at time.Time) { w.d.Stopped(alice) }, func(w *world, at time.Time) {
			w.d.Clear(alice, at.Add(36*time.Hour))
		}, held},
		{"called spam later", 30 * 24 * time.Hour, nil, func(w *world, at time.Time) {
			for i := range 4 {
				w.outcome(alice, at, 1<<40+uint64(i), fmt.Sprintf("parent%d@people.test", i), mailq.Bounced, mailq.Reply{Class: mailq.Content, Code: 550, Provider: "google"}, false)
			}
		}, held},
		{"stopped", 7 * 24 * time.Hour, func(w *world, at time.Time) {
			w.observe(&mailq.Event{Time: at, Kind: mailq.Refused, Account: alice, Client: addr(home)})
		}, nil, held},
		{"by strangers", 7 * 24 * time.Hour, func(w *world, at time.Time) {
			for i := range 12 {
				w.send(alice, at.Add(time.Duration(i)*time.Minute), mail{to: []string{fmt.Sprintf("x%d@y%d.test", i, i)}, client: fmt.Sprintf("203.0.%d.9", i)})
			}
		}, nil, held},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			evening := w.office(10, 25)
			mailing := func(at time.Time) level {
				w.forget()
				for i, to := range addresses("parent", 120) {
					w.send(alice, at.Add(time.Duration(i/40)*time.Minute+time.Duration(i)*time.Second), mail{to: []string{to}, client: home})
				}
				return w.worst(alice)
			}
			if l := mailing(evening); l != held {
				t.Fatalf("a mailing to 120 strangers: level %d, want a hold", l)
			}
			if tt.spoil != nil {
				tt.spoil(w, evening.Add(10*time.Minute))
			}
			w.send(alice, evening.Add(26*time.Hour), mail{to: []string{"contact1@client1.test"}, client: home})
			if tt.later != nil {
				tt.later(w, evening.Add(48*time.Hour))
			}
			if l := mailing(evening.Add(tt.after)); tt.want == observed && l > observed || tt.want == held && l < held {
				t.Errorf("the second mailing: level %d, want %d: %s", l, tt.want, short(w.last(alice).Evidence))
			}
			if tt.want != observed {
				return
			}
			if n := w.burst(alice, evening.Add(tt.after+5*24*time.Hour), 5*time.Second, 60, held, mail{client: "203.0.113.9"}); n == 0 || n > 25 {
				t.Errorf("a hijack later is held after %d messages", n)
			}
		})
	}
}

// A release long after an episode has ended is about something else.
func TestLateReleaseTeachesNothing(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	first := w.burst(alice, evening, 5*time.Second, 60, held, mail{client: "10.1.1.5"})
	w.observe(&mailq.Event{Time: evening.Add(6 * time.Minute), Kind: mailq.Refused, Account: alice, Client: addr("10.1.1.5")}) // or it would be learnt by itself
	w.send(alice, evening.AddDate(0, 0, 20), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5"})
	w.d.Release(alice, evening.AddDate(0, 0, 21), "late")
	if m := w.d.accounts[alice].known.more; m != nil && m.taught != nil {
		t.Error("it taught what was forgotten")
	}
	if first == 0 {
		t.Fatal("the hijack was not found")
	}
}

func TestHijackIsStopped(t *testing.T) {
	for _, c := range []struct {
		name string
		gap  time.Duration
		m    mail
		stop level // where nothing says that it is not the owner, a hold
		want int
	}{
		{"a message a second from a foreign network", time.Second, mail{client: "203.0.113.9"}, blocked, 8},
		{"a message a second from the owner's network", time.Second, mail{client: "10.1.1.5"}, held, 8},
		{"a message a minute", time.Minute, mail{client: "10.1.1.5"}, held, 10},
		{"five minutes apart", 5 * time.Minute, mail{client: "10.1.1.5"}, held, 12},
		{"an hour apart from a foreign network", time.Hour, mail{client: "203.0.113.9"}, blocked, 15},
		{"to recipients that do not exist", 10 * time.Second, mail{client: "10.1.1.5", fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.RecipientUnknown, Code: 550}}, blocked, 6},
		{"called spam", 10 * time.Second, mail{client: "10.1.1.5", fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.Content, Code: 550, Provider: "google"}}, blocked, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			evening := w.office(20, 30)
			n := w.burst(alice, evening, c.gap, 60, c.stop, c.m)
			if n == 0 || n > c.want {
				t.Errorf("level %d after %d messages, want at most %d", c.stop, n, c.want)
			}
			if f := w.last(alice); f.Messages != n || f.Rcpts != n {
				t.Errorf("the finding counts %d messages and %d recipients, want %d: %+v", f.Messages, f.Rcpts, n, f)
			}
		})
	}
}

func TestSameLogSameFindings(t *testing.T) {
	run := func() []rules.Finding {
		w := newWorld(t, nil)
		evening := w.office(10, 20)
		w.burst(alice, evening, 10*time.Second, 60, blocked+1, mail{client: "203.0.113.9"})
		return w.found
	}
	if diff := cmp.Diff(run(), run()); diff != "" {
		t.Error(diff)
	}
}

// An account whose mail is held sends on: each message counts when it is held,
// and not again when it is released.
func TestHeldMailIsEvidence(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	before, _ := w.d.Why(alice)
	var released []mailq.Event
	for i := range 12 {
		ev := mailq.Event{Time: evening.Add(time.Duration(i) * 10 * time.Second), Kind: mailq.Held, Counts: true, Account: alice,
			Message: uint64(1e6 + i), Rcpts: 1, New: []mailq.Recipient{rcpt(fmt.Sprintf("victim%d@far%d.test", i, i))}}
		w.observe(&ev)
		ev.Kind, ev.Counts, ev.New, ev.Time = mailq.Submitted, false, nil, evening.Add(time.Hour)
		released = append(released, ev)
	}
	if w.worst(alice) < held {
		t.Error("mail that is held is no evidence")
	}
	for i := range released {
		w.observe(&released[i])
	}
	if after, _ := w.d.Why(alice); after.Messages != before.Messages+12 {
		t.Errorf("%d messages counted, want 12", after.Messages-before.Messages)
	}
}

// A mailing that was noticed and let go by is no reason to hold an ordinary letter of the
// next morning; it may wait its turn while the mailing is no day ago.
func TestNextMorningIsAnotherDay(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	for i, to := range addresses("guest", 60) {
		w.send(alice, evening.Add(time.Duration(i)*time.Minute), mail{to: []string{to}, client: "10.1.1.5"})
	}
	if w.worst(alice) < held {
		t.Fatal("the mailing was not noticed")
	}
	w.forget()
	morning := evening.Add(12 * time.Hour)
	w.send(alice, morning, mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5"})
	w.send(alice, morning.Add(time.Hour), mail{to: []string{"somebody@new.test"}, client: "10.1.1.5"})
	atMost(t, w, alice, throttled)
}

// Who has written to all colleagues at once has not written to as many strangers.
func TestColleaguesAreNoStrangers(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(60, 25)
	colleagues := make([]string, 60)
	for i := range colleagues {
		colleagues[i] = fmt.Sprintf("user%d@office.test", i)
	}
	for i, colleague := range colleagues {
		w.get(alice, evening.Add(time.Duration(i)*time.Minute), colleague)
	}
	for week := range 3 {
		w.send(alice, evening.AddDate(0, 0, 1+7*week), mail{to: colleagues, client: "10.1.1.5"})
	}
	w.forget()
	at := evening.AddDate(0, 0, 25)
	w.send(alice, at, mail{to: addresses("victim", 50), client: "10.1.1.5"})
	if l := w.worst(alice); l < held {
		t.Errorf("50 strangers at once: level %d: %s", l, short(w.last(alice).Evidence))
	}
	if text := w.d.accounts[alice].fanoutText(&w.d.fleet); !strings.Contains(text, "never written to before") {
		t.Errorf("the words are %q", text)
	}
}

// A release lets the same traffic go on, counted by recipients: not fifty times as much
// of it by messages to fifty.
func TestReleaseLetsNoMorePass(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	n := w.burst(alice, evening, 5*time.Second, 60, held, mail{client: "10.1.1.5"})
	w.d.Release(alice, evening.Add(10*time.Minute), "hers")
	w.forget()
	for i := range 4 {
		w.send(alice, evening.Add(20*time.Minute+time.Duration(i)*time.Minute), mail{to: addresses(fmt.Sprintf("victim%d-", i), 50), client: "10.1.1.5"})
	}
	if l := w.worst(alice); l < held {
		t.Errorf("after %d messages and a release, 200 strangers more: level %d", n, l)
	}
}
