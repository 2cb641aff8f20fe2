package mailq

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// longLog is a log with everything that a message can carry over a restart:
// deferrals, holds, filters, forwards, long lists.
func longLog() string {
	var b strings.Builder
	b.WriteString(at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>", activeLine(id1, "alice@shop.test", 40)))
	for i := range 40 {
		b.WriteString(at(deferredLine(id1, fmt.Sprintf("r%d@soft%d.test", i%35, i))))
	}
	b.WriteString(at(clientLine(id2, "carol@shop.test"), "postfix/cleanup[1]: "+id2+": message-id=<2@vm>",
		"postfix/cleanup[1163]: "+id2+": milter-hold: END-OF-MESSAGE from localhost[127.0.0.1]: x; from=<carol@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm>",
		"postfix/amavis/smtpd[9]: "+id3+": client=localhost[127.0.0.1]", "postfix/cleanup[1]: "+id3+": message-id=<1@vm>", activeLine(id3, "alice@shop.test", 1),
		sentLine(id3, "r1@soft1.test"), sentLine(id3, "new@ok.test"), activeLine(id1, "alice@shop.test", 40), sentLine(id1, "r3@soft3.test"), "postfix/postsuper[9]: "+id2+": released from hold",
		activeLine(id2, "carol@shop.test", 1), sentLine(id2, "r1@ok.test"), "postfix/qmgr[4329]: "+id2+": removed", "postfix/qmgr[4329]: "+id3+": removed",
		clientLine("1795998C2C7", ""), activeLine("1795998C2C7", "x@far.test", 1),
		strings.Replace(sentLine("1795998C2C7", "box@elsewhere.test"), ", relay", ", orig_to=<box@shop.test>, relay", 1), strings.Replace(sentLine("1795998C2C7", "box2@elsewhere.test"), ", relay", ", orig_to=<box@shop.test>, relay", 1)))
	b.WriteString(eximAt(exim1+` <= alice@shop.test H=(vm) [192.0.2.1]:45950 P=esmtpa A=dovecot_plain:alice@shop.test S=408 id=2026@vm T="x" for r1@ok.test r2@ok.test`,
		exim1+` => r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.2] C="250 Ok"`, exim1+" frozen by root", exim1+" unfrozen by root", exim1+" Completed"))
	return b.String()
}

// A parser that is stopped and put back after every line makes the same
// events as one that runs through.
func TestRestart(t *testing.T) {
	log := longLog()
	want := events(newParser(), log)
	var got []Event
	stored := map[uint64][]byte{}
	for line := range strings.Lines(log) {
		p := newParser()
		for key, state := range stored {
			if err := p.Restore(key, state); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, events(p, line)...)
		p.Changed(func(key uint64, state []byte) {
			if state == nil {
				delete(stored, key)
			} else {
				stored[key] = append([]byte(nil), state...)
			}
		})
	}
	if diff := cmp.Diff(got, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-got +want\n%s", diff)
	}
	if len(want) < 50 || len(stored) != 2 {
		t.Errorf("%d events and %d messages left, want many and 2", len(want), len(stored))
	}
}

// What Changed yields now and then is all that changed: the states together
// are those of the first call of another parser that read the same.
func TestChangedIsComplete(t *testing.T) {
	log := longLog()
	p, stored, n := newParser(), map[uint64]string{}, 0
	keep := func(m map[uint64]string) func(uint64, []byte) {
		return func(key uint64, state []byte) {
			if delete(m, key); state != nil {
				m[key] = string(state)
			}
		}
	}
	p.Changed(keep(stored))
	for line := range strings.Lines(log) {
		p.Parse([]byte(line))
		if n++; n%7 == 0 {
			p.Changed(keep(stored))
		}
	}
	p.Changed(keep(stored))
	whole := map[uint64]string{}
	q := newParser()
	events(q, log)
	q.Changed(keep(whole))
	if !maps.Equal(stored, whole) {
		t.Errorf("-got +want\n%s", cmp.Diff(stored, whole))
	}
	p.Changed(func(key uint64, _ []byte) { t.Errorf("message %x changed without a line", key) })
}

func TestRestoreDamaged(t *testing.T) {
	p := newParser()
	events(p, longLog())
	p.Changed(func(key uint64, state []byte) {
		for n := range state {
			if err := newParser().Restore(key, state[:n]); err == nil {
				t.Errorf("%d of %d bytes were enough", n, len(state))
			}
		}
	})
	if err := newParser().Restore(1, []byte{99}); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("got %v, want a word about the version", err)
	}
}

func TestQueued(t *testing.T) {
	p := newParser()
	events(p, longLog()+at(clientLine("4jXKB0000gz1SRpG", "dave@shop.test")))
	got := map[string]QueuedMessage{}
	p.Queued(func(m QueuedMessage) bool { got[m.QueueID] = m; return true })
	arrival := time.Date(2026, 11, 22, 5, 28, 20, 0, time.UTC)
	want := map[string]QueuedMessage{
		id1: {Host: "mx1", QueueID: id1, Account: "alice@shop.test", Sender: "alice@shop.test", Rcpts: 40, Size: 383, Arrival: arrival, Deferred: 40,
			Domains: []string{"soft0.test", "soft1.test", "soft2.test", "soft3.test", "soft4.test", "soft5.test", "soft6.test", "soft7.test"}},
		"1795998C2C7": {Host: "mx1", QueueID: "1795998C2C7", Sender: "x@far.test", Rcpts: 1, Size: 383, Arrival: arrival, Domains: []string{"elsewhere.test"}},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("-got +want\n%s", diff)
	}
	n := 0
	p.Queued(func(QueuedMessage) bool { n++; return false })
	if n != 1 {
		t.Errorf("yield was called %d times after it said stop", n)
	}
}

// A trusted client answers for its own mail, a filter's host for none that it
// brings back.
func TestQueuedOfAClient(t *testing.T) {
	p := newParser()
	p.Directory = &Directory{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	events(p, at(
		"postfix/smtpd[1]: "+id1+": client=web[192.0.2.7]", "postfix/smtpd[1]: "+id1+": hold: RCPT from web[192.0.2.7]: x; from=<a@b.test> to=<c@d.test>", "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
		"postfix/smtpd[1]: "+id2+": client=far[198.51.100.7]", "postfix/cleanup[1]: "+id2+": message-id=<2@vm>", activeLine(id2, "x@far.test", 1),
		"postfix/smtpd[1]: "+id3+": client=filter[192.0.2.10], orig_queue_id="+id2+", orig_client=far[198.51.100.7]",
		"postfix/smtpd[1]: "+id3+": hold: RCPT from filter[192.0.2.10]: x; from=<x@far.test> to=<c@d.test>", "postfix/cleanup[1]: "+id3+": message-id=<2@vm>"))
	got := map[string]Account{}
	p.Queued(func(m QueuedMessage) bool {
		if m.Held {
			got[m.QueueID] = m.Client
		}
		return true
	})
	want := map[string]Account{id1: "client:192.0.2.7", id3: ""}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("-got +want\n%s", diff)
	}
}

// Open messages are bounded in number and in age, in the log's own time.
func TestOpenMessagesAreBounded(t *testing.T) {
	line := func(at time.Time, text string) []byte { return []byte(at.Format(time.RFC3339) + " mx1 " + text) }
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	t.Run("in number", func(t *testing.T) {
		p := newParser()
		p.MaxOpen = 10
		for i := range 25 {
			id := fmt.Sprintf("%011X", 0x1795998C2C7+i)
			p.Parse(line(start, clientLine(id, "alice@shop.test")))
			p.Parse(line(start, activeLine(id, "alice@shop.test", 1)))
		}
		if s := p.Stats(); s.Open != 10 || s.Evicted != 15 {
			t.Errorf("%d open, %d evicted, want 10 and 15", s.Open, s.Evicted)
		}
		if _, ok := p.Parse(line(start, sentLine(fmt.Sprintf("%011X", 0x1795998C2C7+24), "r@ok.test"))); !ok {
			t.Error("the youngest message was forgotten")
		}
	})
	t.Run("in age", func(t *testing.T) {
		p := newParser()
		p.Parse(line(start, clientLine(id1, "alice@shop.test")))
		p.Parse(line(start, activeLine(id1, "alice@shop.test", 1)))
		p.Parse(line(start, clientLine(id2, "alice@shop.test")))
		at, want := start, map[int]int{0: 2, 2: 1, 5 * 24: 1, 8 * 24: 0}
		for minute := range 9 * 24 * 60 {
			p.Parse(line(at, "postfix/smtpd[1]: connect from localhost[127.0.0.1]"))
			if n, ok := want[minute/60]; ok && minute%60 == 0 && p.Stats().Open != n {
				t.Errorf("after %d hours %d open, want %d", minute/60, p.Stats().Open, n)
			}
			at = at.Add(time.Minute)
		}
	})
	t.Run("today's log beside last week's", func(t *testing.T) {
		p := newParser()
		p.Parse(line(start, clientLine(id1, "alice@shop.test")))
		for i := range 20 {
			p.Parse(line(start.AddDate(0, 0, 4).Add(time.Duration(i)*time.Second), "postfix/smtpd[1]: connect from localhost[127.0.0.1]"))
		}
		ev, ok := p.Parse(line(start, activeLine(id1, "alice@shop.test", 1)))
		if !ok || ev.Account != "alice@shop.test" {
			t.Errorf("got %+v, want alice's message, whose first line was read before today's", ev)
		}
	})
	t.Run("a wrong stamp makes nothing old", func(t *testing.T) {
		p := newParser()
		p.Parse(line(start, clientLine(id1, "alice@shop.test")))
		p.Parse(line(start, activeLine(id1, "alice@shop.test", 1)))
		p.Parse(line(start.AddDate(50, 0, 0), "postfix/smtpd[1]: connect from localhost[127.0.0.1]"))
		if n := p.Stats().Open; n != 1 {
			t.Errorf("%d open, want 1", n)
		}
	})
}
