package detector

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

func TestKnownRemembers(t *testing.T) {
	for _, n := range []uint64{1, exactMax, exactMax + 1, 1000, 6000} {
		var k known
		for i := range n {
			if h := recipientHash(i); !k.has(h) {
				k.add(h, false)
			}
		}
		lost := 0
		for i := range n {
			if !k.has(recipientHash(i)) {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("of %d recipients %d are forgotten", n, lost)
		}
		wrong := 0
		for i := range uint64(10_000) {
			if k.has(recipientHash(1<<32 + i)) {
				wrong++
			}
		}
		if wrong > 400 {
			t.Errorf("with %d recipients %d of 10,000 strangers look known", n, wrong)
		}
	}
}

func TestKnownIsBounded(t *testing.T) {
	var k known
	for i := range uint64(200_000) {
		k.add(recipientHash(i), false)
	}
	bytes := 0
	for _, g := range k.more.grown {
		bytes += 8 * len(g.bits)
	}
	if bytes > 27<<10 {
		t.Errorf("a flood of recipients takes %d bytes", bytes)
	}
	if !k.has(recipientHash(199_999)) {
		t.Error("the latest recipient is forgotten")
	}
}

func TestKnownIsTaught(t *testing.T) {
	var k known
	for round := range uint64(4) {
		f := newFilter(512)
		for i := range uint64(300) {
			f.add(recipientHash(round*1000 + i))
		}
		k.teach(f)
		for i := range uint64(300) {
			if !k.has(recipientHash(round*1000 + i)) {
				t.Fatalf("round %d: recipient %d was taught and is not known", round, i)
			}
		}
	}
}

func TestEveryoneRemembersAndRotates(t *testing.T) {
	e := newEveryone(4096)
	n := uint64(e.size)
	for i := range n {
		e.add(recipientHash(i))
	}
	for i := range n {
		if !e.has(recipientHash(i)) {
			t.Fatalf("recipient %d of %d is forgotten", i, n)
		}
	}
	wrong := 0
	for i := range uint64(10_000) {
		if e.has(recipientHash(1<<40 + i)) {
			wrong++
		}
	}
	if wrong > 300 {
		t.Errorf("%d of 10,000 strangers look known", wrong)
	}
	for i := range 2 * n {
		e.add(recipientHash(1<<41 + i))
	}
	if e.has(recipientHash(5)) && e.has(recipientHash(6)) && e.has(recipientHash(7)) {
		t.Error("two generations later nothing is forgotten")
	}
}

func TestHabitSurprise(t *testing.T) {
	n := norm{mean: .7, within: .4, between: .3}
	var h habit
	days := float32(0)
	for _, peak := range []float32{3, 4, 2, 3, 5, 3, 2, 4, 3, 3} {
		h.learn(peakLog(peak), days)
		days++
	}
	var before float32
	for _, c := range []float32{1, 3, 5, 10, 20, 40, 100} {
		s := surprise(c, h, days, &n)
		if s < before {
			t.Errorf("%v messages surprise less (%v) than fewer (%v)", c, s, before)
		}
		before = s
	}
	if s := surprise(4, h, days, &n); s != 0 {
		t.Errorf("an ordinary day surprises by %v", s)
	}
	if s := surprise(100, h, days, &n); s < 5 {
		t.Errorf("thirty times the usual surprises by %v only", s)
	}
	limit := float32(unsurprising(&[gauges]habit{h}, days, &[gauges]norm{n})[0])
	if surprise(limit, h, days, &n) > 0 || surprise(limit+1, h, days, &n) == 0 {
		t.Errorf("unsurprising up to %v is not where surprise begins", limit)
	}
}

func TestMessageCountsOnceHoweverItIsTold(t *testing.T) {
	// One message with eight recipients must weigh the same whether they
	// are told at once or one by one.
	score := func(apart bool) float32 {
		w := newWorld(t, nil)
		evening := w.office(10, 25)
		var to []mailq.Recipient
		for i := range 8 {
			to = append(to, rcpt(fmt.Sprintf("new%d@x%d.test", i, i)))
		}
		to[3] = rcpt("contact1@client1.test")
		ev := mailq.Event{Time: evening, Kind: mailq.Submitted, Counts: true, Account: alice, Message: 99, Rcpts: 8}
		if !apart {
			ev.New = to
		}
		w.observe(&ev)
		for i := range to {
			if apart {
				w.observe(&mailq.Event{Time: evening.Add(time.Second), Kind: mailq.Delivered, Account: alice, Message: 99, To: to[i], New: to[i : i+1]})
			}
		}
		a := w.d.accounts[alice]
		if a.ep.msgs != 1 || a.ep.rcpts != 8 {
			t.Errorf("apart %v: the episode counts %d messages and %d recipients", apart, a.ep.msgs, a.ep.rcpts)
		}
		return a.nov.fast.s
	}
	at, by := score(false), score(true)
	if d := at - by; d > .3 || d < -.3 {
		t.Errorf("told at once it weighs %v, one by one %v", at, by)
	}
}

func TestNoveltyRests(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	w.burst(alice, evening, time.Minute, 3, blocked, mail{client: "10.1.1.5"})
	if s := w.d.accounts[alice].nov.fast.s; s < 2 {
		t.Fatalf("three strangers weigh %v", s)
	}
	w.send(alice, evening.Add(8*time.Hour), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5"})
	if a := w.d.accounts[alice]; a.nov.fast.s > 0 || a.fuse().score > .5 {
		t.Errorf("after six idle hours the chart is at %v, the score at %v", a.nov.fast.s, a.fuse().score)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		fate   mailq.Kind
		class  mailq.Class
		n      int
		speaks bool
	}{
		{"recipients that do not exist", mailq.Bounced, mailq.RecipientUnknown, 3, true},
		{"refused at once because they do not exist", mailq.Refused, mailq.RecipientUnknown, 3, true},
		{"an attempt that will be repeated", mailq.Deferred, mailq.RecipientUnknown, 30, false},
		{"full mailboxes", mailq.Bounced, mailq.MailboxFull, 30, false},
		{"greylisting", mailq.Deferred, mailq.Greylisted, 30, false},
		{"our own refusals", mailq.Refused, mailq.LocalPolicy, 30, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			evening := w.office(5, 15)
			for i := range c.n {
				w.send(alice, evening.Add(time.Duration(i)*time.Minute), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5", fate: c.fate, reply: mailq.Reply{Class: c.class, Code: 550}})
			}
			a := w.d.accounts[alice]
			if got := a.ep.speak[familyFailures].score() >= speaks; got != c.speaks {
				t.Errorf("speaks %v: %v", got, a.fail)
			}
		})
	}
}

func TestRepliesBlameOnceAMessage(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(5, 15)
	id := w.send(alice, evening, mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5", silent: true})
	for i := range 10 { // the same message, tried again and again
		w.outcome(alice, evening.Add(time.Duration(i)*time.Minute), id, "contact1@client1.test", mailq.Deferred, mailq.Reply{Class: mailq.Content, Provider: "google"}, false)
	}
	if s := w.d.accounts[alice].ep.speak[familyReplies].score(); s != contentStep*knownStep {
		t.Errorf("one message called spam ten times weighs %v, want %v", s, contentStep*knownStep)
	}
}

func TestReputationIsShared(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(5, 15)
	bob := mailq.Account("user2@office.test")
	for i := range 30 { // alice sends most of what google gets
		who := alice
		if i%10 == 0 {
			who = bob
		}
		w.send(who, evening.Add(time.Duration(i)*time.Second), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5"})
	}
	for _, who := range []mailq.Account{alice, bob} {
		w.send(who, evening.Add(time.Minute), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5", fate: mailq.Deferred, reply: mailq.Reply{Class: mailq.AddressReputation, Provider: "google"}})
	}
	a, b := w.d.accounts[alice].ep.speak[familyReplies].score(), w.d.accounts[bob].ep.speak[familyReplies].score()
	if a < .5 || b > .3 || a > reputationStep {
		t.Errorf("a complaint about the address weighs %v for who sent most, %v for who sent little", a, b)
	}
}

func TestPeersAreBounded(t *testing.T) {
	var p peers
	for i := range 1000 {
		p.note(fmt.Sprintf("provider%d", i), uint32(i), int64(i)*second)
	}
	if len(p.at) > peersMax {
		t.Errorf("%d providers", len(p.at))
	}
}

func TestLogins(t *testing.T) {
	for _, c := range []struct {
		name   string
		f      func(w *world, at time.Time)
		lo, hi float32
	}{
		{"the usual network", func(w *world, at time.Time) { w.send(alice, at, mail{client: "10.1.1.9"}) }, 0, 0},
		{"a network never used", func(w *world, at time.Time) { w.send(alice, at, mail{client: "203.0.113.9"}) }, 2, 2.5},
		{"the same one again", func(w *world, at time.Time) {
			w.send(alice, at, mail{client: "203.0.113.9"})
			w.send(alice, at, mail{client: "203.0.113.77"})
		}, 2, 2.5},
		{"five networks in an hour", func(w *world, at time.Time) {
			for i := range 5 {
				w.send(alice, at.Add(time.Duration(i)*10*time.Minute), mail{client: fmt.Sprintf("203.0.%d.9", i)})
			}
		}, 6, loginsTop},
		{"guessed, then used", func(w *world, at time.Time) {
			for i := range 5 {
				w.login(alice, at.Add(time.Duration(i)*time.Second), "203.0.113.9", false)
			}
			w.send(alice, at.Add(time.Minute), mail{client: "203.0.113.9"})
		}, 5, 6},
		{"one wrong password, then right", func(w *world, at time.Time) {
			w.login(alice, at, "203.0.113.9", false)
			w.send(alice, at.Add(time.Minute), mail{client: "203.0.113.9"})
		}, 2, 2.5},
		{"wrong passwords from the usual network", func(w *world, at time.Time) {
			for i := range 50 {
				w.login(alice, at.Add(time.Duration(i)*time.Second), "10.1.1.5", false)
			}
			w.send(alice, at.Add(time.Minute), mail{client: "10.1.1.5"})
		}, 0, 0},
		{"an IPv6 network", func(w *world, at time.Time) {
			w.send(alice, at, mail{client: "2001:db8:1:2::9"})
			w.send(alice, at, mail{client: "2001:db8:1:ffff::7"})
		}, 2, 2.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			evening := w.office(5, 25)
			c.f(w, evening)
			if s := w.d.accounts[alice].ep.speak[familyLogins].score(); s < c.lo || s > c.hi {
				t.Errorf("weighs %v, want %v to %v", s, c.lo, c.hi)
			}
		})
	}
}

func TestNetworksOfTheHijackedAreMarked(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	w.burst(alice, evening, 5*time.Second, 40, blocked, mail{client: "203.0.113.9"})
	w.send("user3@office.test", evening.Add(time.Hour), mail{to: []string{"contact1@client3.test"}, client: "203.0.113.12"})
	w.send("user4@office.test", evening.Add(time.Hour), mail{to: []string{"contact1@client4.test"}, client: "203.0.99.12"})
	marked, other := w.d.accounts["user3@office.test"].ep.speak[familyLogins].score(), w.d.accounts["user4@office.test"].ep.speak[familyLogins].score()
	if marked < other+guessStep-.5 {
		t.Errorf("coming from a hijacker's network weighs %v, from any new one %v", marked, other)
	}
}

func TestWrongPasswordsAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 20_000 {
		w.login(mailq.Account(fmt.Sprintf("guess%d@office.test", i)), monday, fmt.Sprintf("203.0.%d.%d", i%250, i%200), false)
	}
	if n := w.d.Stats().Accounts; n != 0 {
		t.Errorf("guessing at names made %d accounts", n)
	}
}

func TestSender(t *testing.T) {
	w := newWorld(t, &mailq.Directory{})
	evening := w.office(5, 20)
	w.send(alice, evening, mail{to: []string{"contact1@client1.test"}, from: "ceo@bank.test", client: "10.1.1.5"})
	if s := w.d.accounts[alice].ep.speak[familySender].score(); s != senderFirst {
		t.Errorf("a first foreign sender weighs %v, want %v", s, senderFirst)
	}
	for i := range 4 {
		w.send(alice, evening.Add(time.Duration(i)*time.Minute), mail{to: []string{"contact1@client1.test"}, from: fmt.Sprintf("x%d@bank.test", i), client: "10.1.1.5"})
	}
	if s := w.d.accounts[alice].ep.speak[familySender].score(); s < 4 {
		t.Errorf("five foreign senders in an hour weigh %v", s)
	}
	if text := w.d.accounts[alice].senderText(); !strings.Contains(text, "5 addresses") {
		t.Errorf("the words are %q", text)
	}
	for i := range 10 {
		w.send(alice, evening.Add(5*time.Minute+time.Duration(i)*time.Second), mail{to: []string{"contact1@client1.test"}, from: fmt.Sprintf("y%d@bank.test", i), client: "10.1.1.5"})
	}
	if s := w.d.accounts[alice].ep.speak[familySender].score(); s <= sendersTop {
		t.Errorf("fifteen foreign senders in an hour weigh %v, no more than a few may", s)
	}
}

// A script that appears where none should be is told with its first message, and
// held after a few.
func TestScriptInUploads(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 30)
	script := mailq.Account("script:/home/u1/public_html/wp-content/uploads/x.php")
	first, stopped := 0, 0
	for i := range 20 {
		w.send(script, evening.Add(time.Duration(i)*time.Second), mail{to: []string{fmt.Sprintf("victim%d@prey%d.test", i, i)}})
		if first == 0 && w.worst(script) >= observed {
			first = i + 1
		}
		if stopped == 0 && w.worst(script) >= held {
			stopped = i + 1
		}
	}
	if first != 1 || stopped == 0 || stopped > 8 {
		t.Errorf("told with message %d and held after %d, want 1 and at most 8", first, stopped)
	}
}

func TestOddPlace(t *testing.T) {
	for path, want := range map[string]bool{
		"/home/u/public_html/wp-content/uploads/2026/x.php": true,
		"/home/u/public_html/cache":                         true,
		"/tmp/a.php":                                        true,
		"/dev/shm/x":                                        true,
		"/home/u/public_html/.hidden/m.php":                 true,
		"/home/u/public_html/contact.php":                   false,
		"/home/u/public_html":                               false,
		"/home/u/public_html/wp-includes/mail.php":          false,
	} {
		if got := oddPlace(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestLikenessSpeaksOnlyBesideNovelty(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(5, 20)
	for i := range 20 {
		w.send(alice, evening.Add(time.Duration(i)*time.Minute), mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5", subject: fmt.Sprintf("Report %d", i)})
	}
	if v := w.d.accounts[alice].fuse(); v.share[familyLikeness] != 0 {
		t.Errorf("look-alikes to known recipients weigh %v", v.share[familyLikeness])
	}
	if template("Invoice 4711 for ACME") != template("invoice 5 for acme") || template("a") == template("b") {
		t.Error("a template is its subject without numbers and case")
	}
}

func TestHours(t *testing.T) {
	var c clock
	for d := range 20 {
		for h := 9; h < 18; h++ {
			c.learn(monday.AddDate(0, 0, d/5*7+d%5).Add(time.Duration(h) * time.Hour).UnixNano())
		}
	}
	if x := c.odd(monday.AddDate(0, 0, 28).Add(11 * time.Hour).UnixNano()); x > .05 {
		t.Errorf("a weekday's noon is odd by %v", x)
	}
	if x := c.odd(monday.AddDate(0, 0, 28).Add(3 * time.Hour).UnixNano()); x < .15 || x > hoursStep {
		t.Errorf("the middle of the night is odd by %v", x)
	}
	for range 1000 {
		c.learn(monday.UnixNano())
	}
}

func TestLostCoverage(t *testing.T) {
	d := New(Default(), nil)
	count := 0
	for i := range 120 {
		ev := mailq.Event{Time: monday.Add(time.Duration(i) * time.Minute), Kind: mailq.Lost, Host: "mx3", Rcpts: 50}
		if f, ok := d.Observe(&ev); ok {
			count++
			if f.Rule != "lost-coverage" || f.Subject != "mx3" || !strings.Contains(f.Evidence[0].Text, "50") {
				t.Errorf("%+v", f)
			}
		}
	}
	if count != 2 {
		t.Errorf("two hours of losses were told %d times", count)
	}
}

func TestEvictionSparesTheRecent(t *testing.T) {
	cfg := Default()
	cfg.MaxAccounts, cfg.FleetRecipients = 100, 1024
	d := New(cfg, nil)
	send := func(i int, at time.Time) {
		d.Observe(&mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Account: mailq.Account(fmt.Sprintf("u%d@x.test", i)), Message: uint64(i + 1)})
	}
	for i := range 300 {
		send(i, monday)
	}
	if s := d.Stats(); s.Accounts != 100 || s.Evicted != 0 || s.Untracked != 200 {
		t.Errorf("while all are recent: %+v", s)
	}
	for i := range 50 {
		send(1000+i, monday.AddDate(0, 2, 0))
	}
	if s := d.Stats(); s.Accounts != 100 || s.Evicted != 50 {
		t.Errorf("two months later: %+v", s)
	}
	gone := 0
	d.Changed(func(a mailq.Account, state []byte) {
		if state == nil {
			gone++
		}
	})
	if gone != 50 {
		t.Errorf("%d accounts are told as forgotten", gone)
	}
}

func TestSharedIdentityIsTold(t *testing.T) {
	w := newWorld(t, &mailq.Directory{})
	www := mailq.Account("user:www-data")
	for i := range 30 {
		w.send(www, monday.Add(time.Duration(i)*time.Hour), mail{to: []string{"admin@site.test"}})
	}
	w.burst(www, monday.AddDate(0, 0, 3), time.Second, 200, held, mail{fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.RecipientUnknown}})
	if f := w.last(www); !f.Shared || f.Class != mailq.KindUser || f.Rule != "abused-script" {
		t.Errorf("%+v", f)
	}
}

func TestClockThatGoesBack(t *testing.T) {
	w := newWorld(t, nil)
	rnd := rand.New(rand.NewPCG(3, 3))
	for i := range 500 {
		at := monday.Add(time.Duration(i)*time.Minute - time.Duration(rnd.IntN(7200))*time.Second)
		w.send(alice, at, mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5"})
	}
	atMost(t, w, alice, observed)
}

// An attack in the first hours of an installation is blocked when it is
// blatant, although nothing is known of anybody.
func TestBlatantAttackOnTheFirstDay(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 6 {
		w.send(alice, monday.Add(8*time.Hour+time.Duration(i)*20*time.Minute), mail{to: []string{fmt.Sprintf("contact%d@client1.test", i%3)}, client: "10.1.1.5"})
	}
	n := 0
	for i := range 30 {
		m := mail{to: []string{fmt.Sprintf("v%d@prey.test", i)}, client: fmt.Sprintf("203.0.%d.9", i), fate: mailq.Bounced, reply: mailq.Reply{Class: mailq.RecipientUnknown}}
		if i%2 == 0 {
			m.reply.Class = mailq.Content
		}
		w.send(alice, monday.Add(11*time.Hour+time.Duration(i)*5*time.Second), m)
		if w.worst(alice) == blocked {
			n = i + 1
			break
		}
	}
	if n == 0 || n > 8 {
		t.Errorf("blocked after %d messages, want at most 8", n)
	}
	// Its neighbour, new too, writes to a few people.
	for i := range 8 {
		w.send("new@office.test", monday.Add(12*time.Hour+time.Duration(i)*4*time.Minute), mail{to: []string{fmt.Sprintf("p%d@q.test", i)}, client: "10.1.1.6"})
	}
	atMost(t, w, "new@office.test", observed)
}

func TestWhyShowsTheSteps(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	w.burst(alice, evening, 10*time.Second, 30, blocked, mail{client: "203.0.113.9"})
	e, ok := w.d.Why(alice)
	if !ok || len(e.Steps) < 3 || e.Score < 16 || e.Own.Days < 10 || e.Own.BusiestDay == 0 {
		t.Fatalf("%+v", e)
	}
	for i, s := range e.Steps {
		if s.Kind == "" || s.Moved <= 0 || i > 0 && s.Time.Before(e.Steps[i-1].Time) {
			t.Errorf("step %d: %+v", i, s)
		}
	}
	if _, ok := w.d.Why("stranger@nowhere.test"); ok {
		t.Error("an account that nobody saw is explained")
	}
	n := 0
	for range w.d.Accounts {
		n++
	}
	if n != 10 {
		t.Errorf("%d accounts, want 10", n)
	}
}

// A hijacker who sends one message in two hours is found among the mail of an owner
// who sends twice as many, and writes to somebody new each day himself.
func TestSlowHijackAmidMail(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 30)
	busy, n := mailq.Account("busy@office.test"), 0
	own := func(at time.Time, k int) {
		to := fmt.Sprintf("contact%d@client.test", recipientHash(uint64(k))%40)
		if k%24 == 20 {
			to = fmt.Sprintf("new%d@elsewhere.test", k)
		}
		w.send(busy, at, mail{to: []string{to}, client: "10.1.99.5"})
	}
	for h := range 60 * 24 {
		at := monday.Add(time.Duration(h) * time.Hour)
		if of := h % 24; of >= 8 && of < 20 {
			own(at, 2*h)
			own(at.Add(20*time.Minute), 2*h+1)
		}
		if h < 50*24 {
			continue
		}
		if worst := w.worst(busy); n == 0 && worst > observed {
			t.Fatalf("the owner comes to level %d: %s", worst, short(w.last(busy).Evidence))
		}
		if h%2 == 0 {
			w.burst(busy, at.Add(40*time.Minute), time.Minute, 1, blocked, mail{client: "10.1.99.5"})
			n++
		}
		if w.worst(busy) >= held {
			break
		}
	}
	if w.worst(busy) < held || n > 40 {
		t.Errorf("%d messages came to level %d", n, w.worst(busy))
	}
}

// A contact form writes to its owner and to whoever filled it in: half of its
// recipients are strangers. When it is abused their number says so.
// Who writes to two of the victim's own contacts for each stranger is stopped all the
// same, and the owner who writes to thirty strangers among them is not.
func TestStrangersAmongOwnContacts(t *testing.T) {
	for _, tt := range []struct {
		strangers int
		stopped   bool
	}{{80, true}, {30, false}} {
		w := newWorld(t, nil)
		evening := w.office(10, 40)
		for i := range 3 * tt.strangers {
			m := mail{to: []string{fmt.Sprintf("contact%d@client0.test", i%12)}, client: "10.1.0.5"}
			if i%3 == 2 {
				m.to[0] = fmt.Sprintf("victim%d@prey%d.test", i, i%30)
			}
			w.send("user0@office.test", evening.Add(time.Duration(i)*30*time.Second), m)
		}
		if got := w.worst("user0@office.test") >= held; got != tt.stopped {
			t.Errorf("stopped for %d strangers: %v; %s", tt.strangers, got, short(w.last("user0@office.test").Evidence))
		}
	}
}

// Who writes to own contacts before each message to strangers, so that they weigh against
// these, is held all the same; and what he wrote on one day excuses little more on the next.
func TestOwnContactsBuyFewStrangers(t *testing.T) {
	const account = "user0@office.test"
	w := newWorld(t, nil)
	at, reached, n := w.office(10, 40), 0, 0
	for hour := 0; w.worst(account) < held && reached < 600; hour++ {
		for range 16 {
			n++
			w.send(account, at.Add(time.Duration(n)*time.Second), mail{to: []string{fmt.Sprintf("contact%d@client0.test", n%8)}, client: "10.1.0.5"})
		}
		m := mail{client: "10.1.0.5"}
		for range 14 {
			reached++
			m.to = append(m.to, fmt.Sprintf("victim%d@prey%d.test", reached, reached%30))
		}
		w.send(account, at.Add(time.Duration(n+60)*time.Second), m)
		at = at.Add(time.Hour)
		if hour == 3 { // 56 are written to on the first day
			at = at.Add(20 * time.Hour)
		}
	}
	if reached > 200 {
		t.Errorf("held after %d strangers", reached)
	}
}

func TestContactFormAbused(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 30)
	form := mailq.Account("script:/home/u/public_html/contact.php")
	for i := range 200 {
		at := monday.Add(time.Duration(i) * 4 * time.Hour)
		w.send(form, at, mail{to: []string{"owner@shop.test"}, script: "/home/u/public_html/contact.php"})
		w.send(form, at.Add(time.Second), mail{to: []string{fmt.Sprintf("visitor%d@mail%d.test", i, i%9)}, script: "/home/u/public_html/contact.php"})
	}
	if worst := w.worst(form); worst > observed {
		t.Errorf("its ordinary days come to level %d", worst)
	}
	w.forget()
	n := w.burst(form, monday.AddDate(0, 0, 34), time.Second, 100, held, mail{script: "/home/u/public_html/contact.php"})
	if n == 0 || n > 30 {
		t.Errorf("held after %d messages, want at most 30", n)
	}
}
