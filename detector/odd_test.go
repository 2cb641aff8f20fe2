package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// Honest but odd traffic, from its very first day: what each may at most be
// taken for, on its first two days and later.
func TestHonestButOdd(t *testing.T) {
	const days = 45
	unknown := mailq.Reply{Class: mailq.RecipientUnknown, Code: 550, Enhanced: "5.1.1"}
	for _, c := range []struct {
		name         string
		account      mailq.Account
		first, later level // in the first week, and after
		cleared      bool  // a person releases it after the first week
		day          func(w *world, a mailq.Account, day int, at time.Time)
	}{
		{"a shop's order mails", "shop@store.test", observed, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 30 + day%7*3 {
				at := at.Add(time.Duration(i) * 20 * time.Minute)
				w.send(a, at, mail{to: []string{fmt.Sprintf("buyer%d-%d@mail%d.test", day, i, i%12)}, client: "10.2.0.1", size: 8000, subject: fmt.Sprintf("Your order %d", day*100+i)})
				w.send(a, at.Add(time.Second), mail{to: []string{"orders@store.test"}, client: "10.2.0.1", size: 8000})
			}
		}},
		{"a weekly newsletter of its own mailbox", "news@club.test", throttled, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := 0; day%7 == 2 && i < 250+day; i++ {
				w.send(a, at.Add(time.Duration(i)*2*time.Second), mail{to: []string{fmt.Sprintf("reader%d@mail%d.test", i, i%12)}, client: "10.2.0.2", size: 30000, subject: "News of the week"})
			}
		}},
		{"a school's circulars in messages of fifty", "school@edu.test", blocked, observed, true, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 6 {
				w.send(a, at.Add(time.Duration(i)*time.Hour), mail{to: []string{fmt.Sprintf("teacher%d@edu.test", (i+day)%12)}, client: "10.2.0.3"})
			}
			for i := 0; day%7 == 4 && i < 4; i++ {
				w.send(a, at.Add(7*time.Hour+time.Duration(i)*time.Minute), mail{to: addresses("parent", 200)[i*50 : i*50+50], client: "10.2.0.3"})
			}
		}},
		{"a traveller", "rover@office.test", quiet, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 4 {
				w.send(a, at.Add(time.Duration(i)*2*time.Hour), mail{to: []string{fmt.Sprintf("contact%d@client7.test", (day+i)%15)}, client: fmt.Sprintf("192.0.%d.7", day*2+i/2)})
			}
		}},
		{"a phone behind carrier NAT", "phone@office.test", quiet, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 12 {
				w.login(a, at.Add(time.Duration(i)*time.Hour), fmt.Sprintf("100.64.%d.7", recipientHash(uint64(day*12+i))%250), true)
				if i%4 == 0 {
					w.send(a, at.Add(time.Duration(i)*time.Hour), mail{to: []string{fmt.Sprintf("contact%d@client7.test", (day+i)%15)}, client: fmt.Sprintf("100.64.%d.7", recipientHash(uint64(day*12+i))%250)})
				}
			}
		}},
		{"a contact form", "script:/home/u/public_html/contact.php", quiet, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 8 {
				w.send(a, at.Add(time.Duration(i)*80*time.Minute), mail{to: []string{"owner@site.test"}})
				w.send(a, at.Add(time.Duration(i)*80*time.Minute+time.Second), mail{to: []string{fmt.Sprintf("visitor%d-%d@mail%d.test", day, i, i%5)}})
			}
		}},
		{"a forwarder", "forward:box@office.test", quiet, quiet, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 60 {
				w.send(a, at.Add(time.Duration(i)*9*time.Minute), mail{to: []string{"me@elsewhere.test"}, from: fmt.Sprintf("any%d@gmail.test", i)})
			}
		}},
		{"an alarm device", "alarm@office.test", observed, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 3 + 60*(day%20/19) {
				w.send(a, at.Add(time.Duration(i)*10*time.Second), mail{to: []string{"guard@office.test"}, client: "10.2.0.4", size: 700})
			}
		}},
		{"threads with many in Cc", "cc@office.test", observed, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 6 {
				start := (day/3*7 + i) % 60
				w.send(a, at.Add(time.Duration(i)*time.Hour), mail{to: addresses("partner", 80)[start : start+16], client: "10.2.0.5"})
			}
		}},
		{"a busy new colleague", "newbie@office.test", observed, observed, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 20 {
				h := recipientHash(uint64(day*20 + i))
				w.send(a, at.Add(time.Duration(i)*25*time.Minute), mail{to: []string{fmt.Sprintf("contact%d@client%d.test", h%uint64(10+2*day), h%5)}, client: "10.2.0.6"})
			}
		}},
		{"a mailbox whose customers' mailboxes are full", "full@office.test", quiet, quiet, false, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := range 8 {
				w.send(a, at.Add(time.Duration(i)*time.Hour), mail{to: []string{fmt.Sprintf("contact%d@client3.test", i)}, client: "10.2.0.7", fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.MailboxFull, Code: 552}})
			}
		}},
		{"a monthly mailing with some dead addresses", "members@club2.test", held, observed, true, func(w *world, a mailq.Account, day int, at time.Time) {
			for i := 0; day%15 == 1 && i < 200; i++ {
				m := mail{to: []string{fmt.Sprintf("member%d@mail%d.test", i, i%12)}, client: "10.2.0.8", size: 20000}
				if i%33 == 0 {
					m.fate, m.reply = mailq.Bounced, unknown
				}
				w.send(a, at.Add(time.Duration(i)*3*time.Second), m)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, &mailq.Directory{})
			w.office(15, 10)
			start := monday.AddDate(0, 0, 10)
			worst := [2]level{}
			said := [2]string{}
			for day := range days {
				w.forget()
				if day == 7 && c.cleared {
					w.d.Release(c.account, start.AddDate(0, 0, day), "cleared")
				}
				c.day(w, c.account, day, start.AddDate(0, 0, day).Add(9*time.Hour))
				phase := 0
				if day >= 7 {
					phase = 1
				}
				if l := w.worst(c.account); l > worst[phase] {
					worst[phase], said[phase] = l, fmt.Sprintf("day %d: %s", day, short(w.last(c.account).Evidence))
				}
			}
			if worst[0] > c.first {
				t.Errorf("level %d in its first week, want at most %d: %s", worst[0], c.first, said[0])
			}
			if worst[1] > c.later {
				t.Errorf("level %d later, want at most %d: %s", worst[1], c.later, said[1])
			}
		})
	}
}

// A newsletter's new readers come last, one after the other, and are still few.
func TestNewslettersGrow(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 30)
	news := mailq.Account("news@club.test")
	for week := range 6 {
		w.forget()
		for i, to := range addresses("reader", 300+10*week) {
			w.send(news, monday.AddDate(0, 0, 31+7*week).Add(9*time.Hour+time.Duration(i)*2*time.Second), mail{to: []string{to}, client: "10.2.0.9", size: 30000})
		}
		if week < 2 {
			w.d.Release(news, monday.AddDate(0, 0, 32+7*week), fmt.Sprint(week))
			continue
		}
		if l := w.worst(news); l > observed {
			t.Errorf("issue %d: level %d: %s", week, l, short(w.last(news).Evidence))
		}
	}
}

// What was taken for a hijack and goes on for a week, without getting any stranger,
// is how the account is, and is learnt. What is as strange as before is not.
func TestOrdinaryAfterAWeek(t *testing.T) {
	for _, c := range []struct {
		days    int
		novelty float32
		silent  bool // since the first day
		learnt  bool
	}{{8, 10, false, true}, {6, 10, false, false}, {8, 14, false, true}, {8, 22, false, false}, {30, 10, true, false}} {
		w := newWorld(t, nil)
		evening := w.office(10, 20)
		a := w.d.accounts[alice]
		now := evening.UnixNano()
		a.ep = episode{onset: now - int64(c.days)*day, top: 13, toldAt: seconds(now), doubt: &doubt{pending: newFilter(512), fresh: 1, expected: 1}}
		a.nov.before = a.nov.standing
		a.ep.speak[familyNovelty], a.last, a.nov.lastMsg = saying(c.novelty), now, seconds(now)
		if c.silent {
			a.nov.lastMsg = seconds(a.ep.onset + hour)
		}
		buyer := rcpt("buyer@mail.test").Hash
		a.ep.doubt.pending.add(buyer)
		if over := w.d.over(a, now); over != c.learnt {
			t.Errorf("%+v: over: %v", c, over)
		}
		w.d.end(a)
		if a.known.has(buyer) != c.learnt {
			t.Errorf("%+v: learnt: %v", c, !c.learnt)
		}
	}
}

// A shop writes to somebody new each time, and did so already on the first day of
// the installation, when nobody was known: it is never held, also when now and then
// an address is dead, and after its first days it is let alone. Taken over from its own
// network it writes to far more strangers than ever, and is held.
func TestShopFromTheFirstDay(t *testing.T) {
	w := newWorld(t, nil)
	shop := mailq.Account("orders@shop.test")
	w.office(10, 2)
	n := 0
	for day := range 60 {
		for k := range 10 + day%5 {
			m := mail{to: []string{fmt.Sprintf("buyer%d@home%d.test", n, n%40)}, client: "10.9.0.1"}
			if n%50 == 49 {
				m.fate, m.reply = mailq.Bounced, mailq.Reply{Class: mailq.RecipientUnknown, Code: 550}
			}
			w.send(shop, monday.AddDate(0, 0, day).Add(8*time.Hour+time.Duration(k)*53*time.Minute), m)
			n++
		}
		if worst := w.worst(shop); worst >= held || day > 10 && worst > observed {
			t.Fatalf("day %d: level %d: %s", day, worst, short(w.last(shop).Evidence))
		}
		w.forget()
	}
	for i := range 36 { // its best day, three times an ordinary one, with twelve orders in an hour
		w.send(shop, monday.AddDate(0, 0, 59).Add(20*time.Hour+time.Duration(i)*5*time.Minute), mail{to: []string{fmt.Sprintf("bargain%d@home%d.test", i, i%40)}, client: "10.9.0.1"})
	}
	if worst := w.worst(shop); worst >= held {
		t.Errorf("its best day comes to level %d: %s", worst, short(w.last(shop).Evidence))
	}
	w.forget()
	stopped := 0
	for i := range 200 {
		w.send(shop, monday.AddDate(0, 0, 60).Add(9*time.Hour+time.Duration(i)*10*time.Second), mail{to: []string{fmt.Sprintf("victim%d@prey%d.test", i, i)}, client: "10.9.0.1"})
		if w.worst(shop) >= held {
			stopped = i + 1
			break
		}
	}
	if stopped == 0 || stopped > 60 {
		t.Errorf("taken over, it is held after %d messages", stopped)
	}
}

// One dead address, and one message called spam among many that were taken, happen to
// everybody: beside recipients who are all new, neither stops an account.
func TestOneMishapIsNoFamily(t *testing.T) {
	for _, mishap := range []mail{
		{fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.RecipientUnknown, Code: 550}},
		{fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.Content, Code: 550}},
	} {
		t.Run(fmt.Sprint(mishap.reply.Class), func(t *testing.T) {
			w := newWorld(t, nil)
			w.office(30, 1)
			shop := mailq.Account("orders@shop.test")
			for i := range 60 { // the first days of a shop, on an installation's first
				m := mail{}
				if i%15 == 14 {
					m = mishap
				}
				m.to, m.client = []string{fmt.Sprintf("buyer%d@home%d.test", i, i%40)}, "10.9.0.1"
				w.send(shop, monday.AddDate(0, 0, 1).Add(time.Duration(i)*80*time.Minute), m)
			}
			if worst := w.worst(shop); worst >= held {
				t.Errorf("level %d: %s", worst, short(w.last(shop).Evidence))
			}
		})
	}
}

// Who tries three times to send a friend what the friend's server calls spam, and then
// writes to somebody new, is no spammer.
func TestTriesAgain(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	spam := mailq.Reply{Class: mailq.Content, Code: 550}
	for i := range 4 {
		w.send(alice, evening.Add(time.Duration(i)*2*time.Minute), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5", fate: mailq.Bounced, reply: spam})
	}
	for i := range 2 {
		w.send(alice, evening.Add(20*time.Minute+time.Duration(i)*time.Minute), mail{to: []string{fmt.Sprintf("other%d@mail.test", i)}, client: "10.1.1.5"})
	}
	if worst := w.worst(alice); worst > observed {
		t.Errorf("level %d: %s", worst, short(w.last(alice).Evidence))
	}
}

// A new mailbox that writes to hundreds of strangers in its first days is slowed
// down: it may be a school with its first circular. An old one is held.
func TestFirstCircularOfANewMailbox(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	school := mailq.Account("office@school.test")
	for day := range 5 {
		for k := range 4 {
			w.send(school, evening.AddDate(0, 0, day).Add(time.Duration(k)*time.Hour), mail{to: []string{fmt.Sprintf("teacher%d@school.test", (day+k)%7)}, client: "10.7.0.1"})
		}
	}
	circular := func(account mailq.Account, client string) level {
		for i := range 6 {
			var parents []string
			for k := range 40 {
				parents = append(parents, fmt.Sprintf("parent%d-%d@mail%d.test", i, k, k%9))
			}
			w.send(account, evening.AddDate(0, 0, 6).Add(time.Duration(i)*3*time.Minute), mail{to: parents, client: client})
		}
		return w.worst(account)
	}
	if worst := circular(school, "10.7.0.1"); worst != throttled {
		t.Errorf("the school comes to level %d: %s", worst, short(w.last(school).Evidence))
	}
	if worst := circular(alice, "10.1.1.5"); worst < held {
		t.Errorf("an old mailbox comes to level %d: %s", worst, short(w.last(alice).Evidence))
	}
}

// A sale brings a shop five and six times its orders, for days, late in the evening too.
func TestShopsSale(t *testing.T) {
	const shop = mailq.Account("uid:10022")
	w := newWorld(t, &mailq.Directory{})
	w.office(15, 10)
	orders := 0
	day := func(day, n int) {
		gap := 14 * time.Hour / time.Duration(n)
		for i := range n {
			orders++
			at := monday.AddDate(0, 0, day).Add(9*time.Hour + time.Duration(i)*gap + time.Duration(recipientHash(uint64(orders))%uint64(gap/2)))
			m := mail{to: []string{fmt.Sprintf("buyer%d@home%d.test", orders, recipientHash(uint64(orders))%60)}, size: 7000 + orders%900}
			if recipientHash(uint64(orders))%50 == 7 {
				m.fate, m.reply = mailq.Bounced, mailq.Reply{Class: mailq.RecipientUnknown, Code: 550}
			}
			w.send(shop, at, m)
		}
	}
	for d := range 60 {
		day(d, 15+int(recipientHash(uint64(d))%20))
	}
	w.forget()
	for d := range 6 {
		day(60+d, 150)
	}
	if worst := w.worst(shop); worst >= held {
		t.Errorf("a sale came to level %d: %s", worst, short(w.last(shop).Evidence))
	}
}
