package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// get tells that mail from a sender, "" for a bounce, was put into the mailbox.
func (w *world) get(account mailq.Account, at time.Time, from string) {
	w.n++
	w.observe(&mailq.Event{Time: at, Kind: mailq.Delivered, Host: "mx1", Message: w.n * 0x9e3779b97f4a7c15, Sender: from, Writer: writer(from), Client: addr("192.0.2.25"),
		To: rcpt(string(account)), Into: account, Reply: mailq.Reply{Class: mailq.OK, Provider: "local"}})
}

func writer(from string) mailq.Recipient {
	if from == "" {
		return mailq.Recipient{}
	}
	return rcpt(from)
}

// Who answers people that wrote to him first writes to no strangers, however many they
// are; that others wrote to him does not make a hijacker's list known.
func TestAnswersAreNoLettersToStrangers(t *testing.T) {
	const home = "10.1.1.5"
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	sure := w.d.accounts[alice].nov.sure
	for i := range 20 { // who want the flat
		at := evening.Add(time.Duration(i) * time.Minute)
		who := fmt.Sprintf("tenant%d@flat%d.test", i, i)
		w.get(alice, at, who)
		w.send(alice, at.Add(40*time.Second), mail{to: []string{who}, client: home, size: 900})
	}
	if novelty := w.said(alice, "novelty"); novelty > 0 || w.worst(alice) > quiet {
		t.Errorf("answers: level %d, novelty %v", w.worst(alice), novelty)
	}
	if now := w.d.accounts[alice].nov.sure; now != sure {
		t.Errorf("how sure it is that she writes to people again went from %v to %v by answers", sure, now)
	}
	if w.d.fleet.heard.has(w.d.accounts["user2@office.test"].pair(rcpt("tenant1@flat1.test").Hash)) {
		t.Error("who wrote to one account has written to another")
	}
	if n := w.burst(alice, evening.Add(time.Hour), 5*time.Second, 60, held, mail{client: home}); n == 0 || n > 20 {
		t.Errorf("a hijack after it is held after %d messages", n)
	}
}

// Eighty who want the flat on one day are no flood.
func TestManyAnswersOfADayAreNoLettersToStrangers(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	for i := range 80 {
		w.get(alice, evening.Add(time.Duration(i)*time.Second), fmt.Sprintf("tenant%d@flat%d.test", i, i))
	}
	for i := range 80 {
		w.send(alice, evening.Add(10*time.Minute+time.Duration(i)*time.Minute), mail{to: []string{fmt.Sprintf("tenant%d@flat%d.test", i, i)}, client: "10.1.1.5"})
	}
	if w.worst(alice) >= held || w.said(alice, "novelty") > 0 {
		t.Errorf("level %d: %s", w.worst(alice), short(w.last(alice).Evidence))
	}
}

// Anybody can write to a mailbox in others' names before he hijacks it: that makes nobody
// known, once it is more than a mailbox gets in a day.
func TestForgedMailMakesNobodyKnown(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	victim := func(i int) string { return fmt.Sprintf("victim%d@prey%d.test", i, i%30) }
	for i := range 400 {
		w.get(alice, evening.Add(time.Duration(i)*time.Second), victim(i))
	}
	for i := range 60 {
		w.send(alice, evening.Add(10*time.Minute+time.Duration(i)*10*time.Second), mail{to: []string{victim(i)}, client: "10.1.1.5"})
		if w.worst(alice) >= held {
			if i > 20 {
				t.Errorf("held after %d messages", i+1)
			}
			return
		}
	}
	t.Errorf("never held: level %d", w.worst(alice))
}

// Nor does a flood of it some days before.
func TestForgedFloodMakesNobodyKnownLater(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	victim := func(i int) string { return fmt.Sprintf("victim%d@prey%d.test", i, i%30) }
	for i := range 2000 {
		w.get(alice, evening.Add(time.Duration(i)*40*time.Second), victim(i))
	}
	later := evening.Add(84 * time.Hour)
	for hour := range 10 {
		m := mail{client: "10.1.1.5"}
		for i := range 20 {
			m.to = append(m.to, victim(1000+20*hour+i))
		}
		w.send(alice, later.Add(time.Duration(hour)*time.Hour), m)
		if w.worst(alice) >= held {
			if hour > 2 {
				t.Errorf("held after %d of them had mail", 20*(hour+1))
			}
			return
		}
	}
	t.Errorf("never held: level %d", w.worst(alice))
}

// Anybody can write to a mailbox and have its answers refused, as spam or as to nobody:
// that is no reason to stop who answers.
func TestRefusedAnswersBlameNobody(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	for i := range 12 {
		at := evening.Add(time.Duration(i) * 10 * time.Minute)
		who := fmt.Sprintf("enquirer%d@trap%d.test", i, i)
		w.get(alice, at, who)
		reply := mailq.Reply{Class: mailq.Content, Code: 550}
		if i%2 == 1 {
			reply.Class = mailq.RecipientUnknown
		}
		w.send(alice, at.Add(time.Minute), mail{to: []string{who}, client: "10.1.1.5", fate: mailq.Bounced, reply: reply})
	}
	if w.worst(alice) > quiet {
		t.Errorf("level %d: %s", w.worst(alice), short(w.last(alice).Evidence))
	}
}

// Nor does a little of it each day, for the day on which all of them are written to.
func TestForgedMailOfDaysMakesFewKnown(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	victim := func(i int) string { return fmt.Sprintf("victim%d@prey%d.test", i, i%30) }
	for i := range 600 {
		w.get(alice, evening.Add(time.Duration(i/60)*24*time.Hour+time.Duration(i%60)*time.Minute), victim(i))
	}
	at := evening.AddDate(0, 0, 10)
	for i := range 300 {
		w.send(alice, at.Add(time.Duration(i)*10*time.Second), mail{to: []string{victim(i)}, client: "10.1.1.5"})
		if w.worst(alice) >= held {
			if i > 140 {
				t.Errorf("held after %d messages", i+1)
			}
			return
		}
	}
	t.Errorf("never held: level %d", w.worst(alice))
}

// said is what a family of evidence says of the account now.
func (w *world) said(account mailq.Account, kind string) float64 {
	e, _ := w.d.Why(account)
	for _, e := range e.Evidence {
		if e.Kind == kind {
			return e.Score
		}
	}
	return 0
}

// Bounces that come back from elsewhere speak beside strangers, and never by
// themselves; more of them than mail was sent are somebody else's doing.
func TestReturnedMail(t *testing.T) {
	for _, c := range []struct {
		name            string
		strangers, back int
		speaks          bool
	}{
		{"a hijack whose list is bad", 5, 4, true},
		{"bounces alone", 0, 4, false},
		{"forged in masses", 5, 60, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			evening := w.office(10, 25)
			for i := range c.strangers {
				w.send(alice, evening.Add(time.Duration(i)*time.Minute), mail{to: []string{fmt.Sprintf("victim%d@prey%d.test", i, i)}, client: "10.1.1.5"})
			}
			for i := range c.back {
				w.get(alice, evening.Add(10*time.Minute+time.Duration(i)*time.Second), "")
			}
			if s := w.said(alice, "returned"); (s > 0) != c.speaks || s > returnedTop {
				t.Errorf("the bounces say %v", s)
			}
			if c.strangers == 0 && len(w.found) > 0 && w.worst(alice) > quiet {
				t.Errorf("bounces alone come to level %d", w.worst(alice))
			}
		})
	}
}

// Nobody can have an honest account stopped by sending it bounces: they add to a
// score, and are no family of their own.
func TestForgedBouncesStopNobody(t *testing.T) {
	levels := map[bool]level{}
	for _, forged := range []bool{false, true} {
		w := newWorld(t, nil)
		evening := w.office(10, 25)
		for i := range 5 {
			w.send(alice, evening.Add(time.Duration(i)*30*time.Minute), mail{to: []string{fmt.Sprintf("guest%d@party%d.test", i, i)}, client: "10.1.1.5"})
			for k := range 30 * i {
				if forged {
					w.get(alice, evening.Add(time.Duration(i)*30*time.Minute+time.Duration(k)*time.Second), "")
				}
			}
		}
		levels[forged] = w.worst(alice)
	}
	if levels[true] > levels[false] || levels[true] >= held {
		t.Errorf("level %d without forged bounces, %d with", levels[false], levels[true])
	}
}

// Who writes to many and hears from nobody is not in conversation; who answers
// what comes in is.
func TestOneway(t *testing.T) {
	say := map[bool]float64{}
	for _, answers := range []bool{false, true} {
		w := newWorld(t, nil)
		evening := w.office(10, 10)
		for day := range 20 {
			for k := range 3 {
				at := evening.AddDate(0, 0, day).Add(time.Duration(k) * time.Hour)
				w.get(alice, at, "contact@client1.test")
				w.send(alice, at.Add(10*time.Minute), mail{to: []string{fmt.Sprintf("contact%d@client1.test", k)}, client: "10.1.1.5"})
			}
		}
		evening = evening.AddDate(0, 0, 20)
		for i := range 12 {
			at := evening.Add(time.Duration(i) * 10 * time.Minute)
			for range 4 {
				if answers {
					w.get(alice, at, fmt.Sprintf("asks%d@prey%d.test", i, i))
				}
			}
			w.send(alice, at, mail{to: []string{fmt.Sprintf("asks%d@prey%d.test", i, i)}, client: "10.1.1.5"})
		}
		say[answers] = w.said(alice, "oneway")
	}
	if say[false] <= 0 || say[false] > onewayTop || say[true] != 0 {
		t.Errorf("one way says %v, in conversation %v", say[false], say[true])
	}
}

// Mail for mailboxes that never send is nothing to remember.
func TestMailForStrangersMakesNoAccounts(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 1000 {
		w.get(mailq.Account(fmt.Sprintf("user%d@office.test", i)), monday, "")
	}
	if n := w.d.Stats().Accounts; n != 0 {
		t.Errorf("%d accounts", n)
	}
}
