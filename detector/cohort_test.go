package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A spammer with one list and one text goes on from one hijacked mailbox to the
// next: the second is found sooner than it would be by itself.
func TestSpammerGoesOn(t *testing.T) {
	const bob, carol = mailq.Account("user3@office.test"), mailq.Account("user4@office.test")
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	spam := func(account mailq.Account, client, subject string, at time.Time, list string, n int) (messages int) {
		for i := range n {
			w.send(account, at.Add(time.Duration(i)*20*time.Second), mail{to: []string{fmt.Sprintf("%s%d@prey%d.test", list, i, i)}, client: client, subject: subject})
			if w.worst(account) >= held && messages == 0 {
				messages = i + 1
			}
		}
		return messages
	}
	spam(alice, "203.0.113.9", "you have won 100 coins", evening, "victim", 40)
	again := spam(bob, "198.51.100.7", "You have won 250 coins", evening.Add(time.Hour), "victim", 20)
	alone := spam(carol, "192.0.2.77", "last chance", evening.Add(time.Hour), "other", 20)
	if again == 0 || alone == 0 || again >= alone {
		t.Errorf("held after %d messages with the list and text of a hijacked mailbox, after %d without", again, alone)
	}
	for i := range 25 {
		if w.d.marks.whom.has(uint32(rcpt(fmt.Sprintf("contact%d@client1.test", i)).Hash), w.d.accounts[alice].last) {
			t.Errorf("contact %d of the hijacked mailbox's owner is marked", i)
		}
	}
	text := ""
	for _, e := range w.last(bob).Evidence {
		if e.Kind == "fleet" {
			text = e.Text
		}
	}
	if text == "" {
		t.Errorf("what they have in common is not named: %s", short(w.last(bob).Evidence))
	}
}

// Who writes to one of a spammer's victims, or uses a subject of his, is not
// looked at for that alone; nor is it a family of evidence.
func TestCommonSubjectIsNoConviction(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	for i := range 40 {
		w.send(alice, evening.Add(time.Duration(i)*10*time.Second), mail{to: []string{fmt.Sprintf("victim%d@prey%d.test", i, i)}, client: "203.0.113.9", subject: "Invoice 4711"})
	}
	bob := mailq.Account("user3@office.test")
	for i := range 20 {
		w.send(bob, evening.Add(time.Hour+time.Duration(i)*time.Minute), mail{to: []string{fmt.Sprintf("contact%d@client3.test", i)}, client: "10.1.3.5", subject: fmt.Sprintf("Invoice %d", i)})
	}
	w.send(bob, evening.Add(2*time.Hour), mail{to: []string{"victim3@prey3.test"}, client: "10.1.3.5"})
	if worst := w.worst(bob); worst > observed {
		t.Errorf("level %d: %s", worst, short(w.last(bob).Evidence))
	}
	if e, _ := w.d.Why(bob); e.Families > 1 {
		t.Errorf("%d families speak", e.Families)
	}
}

func TestMarksAreBounded(t *testing.T) {
	var m marked
	for i := range uint32(10_000) {
		m.add(i, whomMarked, int64(i)*second)
	}
	if len(m) != whomMarked || !m.has(9_999, 10_000*second) || m.has(1, 10_000*second) || m.has(9_999, 10_000*second+2*day) {
		t.Errorf("%d are remembered", len(m))
	}
}

// A subject that several accounts use while nothing speaks against them is common:
// a spammer who uses it too does not make it suspicious.
func TestCommonTextIsNotMarked(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 25)
	for who := range 4 {
		at := evening.Add(-time.Hour + time.Duration(who)*time.Minute)
		w.send(mailq.Account(fmt.Sprintf("user%d@office.test", 5+who)), at, mail{to: []string{fmt.Sprintf("contact1@client%d.test", 5+who)}, client: fmt.Sprintf("10.1.%d.5", 5+who), subject: "Your order 17"})
	}
	for i := range 40 {
		w.send(alice, evening.Add(time.Duration(i)*10*time.Second), mail{to: []string{fmt.Sprintf("victim%d@prey%d.test", i, i)}, client: "203.0.113.9", subject: fmt.Sprintf("Your order %d", i)})
	}
	if len(w.d.marks.whom) == 0 {
		t.Fatal("the spammer was not found")
	}
	if len(w.d.marks.texts) != 0 {
		t.Error("a common subject is marked")
	}
}

// Who is slowed down for nothing but new recipients, as a shop in its first days is,
// lends them to nobody's suspicion.
func TestOnlyTheConvictedMark(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 2)
	shop := mailq.Account("orders@shop.test")
	for i := range 80 {
		w.send(shop, monday.AddDate(0, 0, 2).Add(time.Duration(i)*time.Hour), mail{to: []string{fmt.Sprintf("buyer%d@home%d.test", i, i%40)}, client: "10.9.0.1"})
	}
	if worst := w.worst(shop); worst != throttled {
		t.Fatalf("level %d: the test wants an account that is slowed down", worst)
	}
	if n := len(w.d.marks.whom); n != 0 {
		t.Errorf("%d recipients are marked", n)
	}
}
