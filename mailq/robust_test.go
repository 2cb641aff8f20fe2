package mailq

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// No line of the servers' logs that is cut anywhere ends the service.
func TestCutLines(t *testing.T) {
	logs, err := filepath.Glob(filepath.Join("testdata", "logs", "*", "events.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, path := range logs {
		log, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := newParser()
		for line := range bytes.Lines(log) {
			for n := range line {
				if ev, ok := p.Parse(line[:n]); ok {
					checkBounds(t, &ev)
				}
			}
			p.Parse(line)
		}
	}
}

// Lines cut anywhere, glued, binary, in Latin-1 or of a megabyte are counted,
// and charge nobody who did not log in.
func TestBrokenLines(t *testing.T) {
	whole := longLog()
	known := map[Account]bool{"": true, "alice@shop.test": true, "carol@shop.test": true, "forward:box@shop.test": true}
	check := func(t *testing.T, log string) {
		t.Helper()
		for _, ev := range events(newParser(), log) {
			checkBounds(t, &ev)
			if !known[ev.Account] && !strings.HasPrefix("alice@shop.test", strings.TrimSuffix(string(ev.Account), "@shop.test")) &&
				!strings.HasPrefix("carol@shop.test", strings.TrimSuffix(string(ev.Account), "@shop.test")) {
				t.Fatalf("%s is charged to %q", brief(ev), ev.Account)
			}
		}
	}
	lines := strings.SplitAfter(whole, "\n")
	t.Run("cut", func(t *testing.T) {
		for i, line := range lines {
			for n := range line {
				if n%7 == i%7 {
					check(t, line[:n]+"\n"+line)
				}
			}
		}
	})
	t.Run("glued", func(t *testing.T) { check(t, strings.ReplaceAll(whole, "removed\n", "removed")) })
	t.Run("Latin-1", func(t *testing.T) {
		evs := events(newParser(), eximAt(exim1+" <= a@shop.test U=a P=local S=5 T=\"Gr\xfc\xdfe\" for b@ok.test"))
		if len(evs) != 1 || evs[0].Subject != "Gr??e" {
			t.Errorf("got %+v, want a readable subject", evs)
		}
	})
	t.Run("long", func(t *testing.T) {
		p := newParser()
		if _, ok := p.Parse(bytes.Repeat([]byte("x"), 1<<20)); ok || p.Stats().TooLong != 1 {
			t.Errorf("a megabyte was read: %+v", p.Stats())
		}
	})
	t.Run("unknown", func(t *testing.T) {
		p := newParser()
		events(p, "\n\x00\x01\nNov 22 05:28:20 mx1 cron[1]: x\nhello world, this is no log\n")
		if s := p.Stats(); s.Lines != 4 || s.Unrecognised != 3 || s.Events != 0 {
			t.Errorf("got %+v, want 4 lines, 3 not recognised", s)
		}
	})
	t.Run("many hosts and programs", func(t *testing.T) {
		p := newParser()
		for i := range 5000 {
			n := string(rune('a'+i%26)) + strings.Repeat("x", i/26)
			p.Parse([]byte("Nov 22 05:28:20 h" + n[:min(len(n), 200)] + " p" + n[:min(len(n), 100)] + "/smtpd[1]: connect from a[192.0.2.1]"))
			p.Parse([]byte("Nov 22 05:28:20 mx1 p" + n[:min(len(n), 100)] + "/smtpd[1]: connect from a[192.0.2.1]"))
		}
		if h := p.hosts["mx1"]; len(p.hosts) > maxHosts || h != nil && (len(h.programs) > maxPrograms || len(h.instances) > maxInstances) {
			t.Error("names of hosts, programs or instances are not bounded")
		}
	})
}

// A line that is no event costs no allocation.
func TestNoAllocationWithoutAnEvent(t *testing.T) {
	p := newParser()
	lines := [][]byte{
		[]byte("Nov 22 05:28:20 mx1 postfix/smtpd[1]: connect from localhost[127.0.0.1]\n"),
		[]byte("Nov 22 05:28:20 mx1 postfix/smtpd[1]: disconnect from localhost[127.0.0.1] ehlo=2 starttls=1 auth=0/1 mail=1 rcpt=0/1 quit=1 commands=6/7\n"),
		[]byte("Nov 22 05:28:21 mx1 postfix/submission/smtpd[1]: Anonymous TLS connection established from localhost[127.0.0.1]: TLSv1.3\n"),
		[]byte("Nov 22 05:28:21 mx1 postfix/anvil[1]: statistics: max connection rate 1/60s for (smtpd:192.0.2.58) at Jan 27 12:49:58\n"),
		[]byte("Nov 22 05:28:21 mx1 postfix/cleanup[1]: 4jXK971kgrz1SRpG: message-id=<1@vm>\n"),
		[]byte("2026-11-22T05:28:20.123456+00:00 mx1 postfix/postscreen[1]: CONNECT from [192.0.2.9]:4242 to [192.0.2.1]:25\n"),
		[]byte("2026-11-22 05:33:39 [917] cwd=/srv/exim/spool 5 args: /usr/sbin/exim4 -Mc 1xV1Bh-0000Em-0g\n"),
		[]byte("2026-11-22 05:33:39 [872] SMTP connection from [127.0.0.1]:35142 I=[127.0.0.1]:11587 (TCP/IP connection count = 1)\n"),
		[]byte("2026-11-22 05:26:42 lmtp(895): Info: Connect from local\n"),
		[]byte("Nov 22 05:28:21 mx1 cron[1]: something else\n"),
	}
	for _, l := range lines {
		p.Parse(l)
	}
	for _, l := range lines {
		if n := testing.AllocsPerRun(100, func() { p.Parse(l) }); n != 0 {
			t.Errorf("%v allocations for %s", n, l)
		}
	}
}

// Two logs are read by turns, one of which is days behind: the newer one's lines end
// none of the older one's messages, of which nothing but their first line was read.
func TestEachHostAgesItsOwnMessages(t *testing.T) {
	old := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	line := func(at time.Time, host, text string) string {
		return at.Format(time.RFC3339) + " " + host + " " + text + "\n"
	}
	for _, hosts := range [][2]string{{"mx1", "mx2"}, {"mx2", "mx1"}} {
		p := newParser()
		events(p, line(old, hosts[0], clientLine(id1, "alice@shop.test")))
		for i := range 3 * 24 * 60 {
			events(p, line(old.Add(time.Duration(i)*time.Minute), hosts[1], "postfix/anvil[7]: statistics: max cache size 1"))
		}
		evs := events(p, line(old.Add(time.Second), hosts[0], activeLine(id1, "alice@shop.test", 1)))
		if len(evs) != 1 || evs[0].Kind != Submitted || evs[0].Account != "alice@shop.test" {
			t.Errorf("%v: %+v", hosts, evs)
		}
	}
}

// What a host's own lines leave behind for long is forgotten.
func TestAbandonedMessagesAreForgotten(t *testing.T) {
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	p := newParser()
	events(p, at.Format(time.RFC3339)+" mx1 "+clientLine(id1, "alice@shop.test")+"\n")
	for i := range 62 {
		events(p, at.Add(time.Duration(i)*time.Minute).Format(time.RFC3339)+" mx1 postfix/anvil[7]: statistics: max cache size 1\n")
	}
	if n := p.Stats().Open; n != 0 {
		t.Errorf("%d messages are open", n)
	}
}

// A flood of host names, each with a message, is bounded, and drives out the oldest.
func TestManyHostsWithMessages(t *testing.T) {
	p := newParser()
	p.MaxOpen = 3000
	for i := range 10_000 {
		events(p, fmt.Sprintf("Nov 22 05:%02d:%02d h%d postfix/smtpd[1]: %s: client=a[192.0.2.1]\n", i/60%60, i%60, i, id1))
	}
	if s := p.Stats(); s.Open != p.MaxOpen || s.Evicted != 7000 {
		t.Errorf("%d messages are open, %d were forgotten", s.Open, s.Evicted)
	}
	if n := len(p.open.hosts); n > maxQueues+1 {
		t.Errorf("%d hosts are remembered", n)
	}
	last := p.open.byKey.get(p.key(p.host.instances[0], []byte(id1)))
	if last == nil || last.host != "h9999" {
		t.Errorf("the last message is %+v", last)
	}
}
