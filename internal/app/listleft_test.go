package app

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
)

// newTestListWatch is a watch over no lists, without its loop.
func newTestListWatch() *listWatch {
	return &listWatch{
		p: &pipeline{log: slog.New(slog.DiscardHandler)}, config: config.DNSBL{Logs: true}, heard: make(chan heard, 9),
		watch:   dnsbl.NewWatch(&dnsbl.Catalogue{}, nil, testRand()),
		sources: map[dnsbl.Subject]string{}, named: map[netip.Addr]*namedBy{}, risks: map[dnsbl.Subject]*signs{},
		ofAgents: map[string]map[netip.Addr]bool{},
	}
}

func subject(text string) dnsbl.Subject { return dnsbl.Address(netip.MustParseAddr(text)) }

// TestOutgoingAddressesOfLogs reads the log of an Exim with incoming_interface:
// the public address that mail left from is watched as ours; those of NAT, of
// loopback and of a delivery long ago are not.
func TestOutgoingAddressesOfLogs(t *testing.T) {
	log := `2026-11-22 06:36:33 [916] 1xV1Bh-0000Em-0g <= alice@shop.test H=(vm) [127.0.0.1]:35142 I=[127.0.0.1]:11587 P=esmtpa A=dovecot_plain:alice@shop.test S=411 id=20261122063629.000915@vm T="Demo 11587" from <alice@shop.test> for r1@ok.test r2@ok.test
2026-11-22 06:36:33 [917] 1xV1Bh-0000Em-0g => r1@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=429 H=127.0.0.1 [127.0.0.1]:12501 I=[203.0.113.20]:39966 C="250 2.0.0 Ok" QT=0s DT=0s
2026-11-22 06:36:33 [917] 1xV1Bh-0000Em-0g => r2@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=429 H=127.0.0.1 [127.0.0.1]:12501 I=[10.0.0.5]:39967 C="250 2.0.0 Ok" QT=0s DT=0s
2026-11-22 06:36:33 [917] 1xV1Bh-0000Em-0g => r3@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=429 H=127.0.0.1 [127.0.0.1]:12501 I=[127.0.0.1]:39968 C="250 2.0.0 Ok" QT=0s DT=0s
2026-11-22 04:36:33 [917] 1xV1Bh-0000Em-0g => r4@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=429 H=127.0.0.1 [127.0.0.1]:12501 I=[203.0.113.21]:39968 C="250 2.0.0 Ok" QT=0s DT=0s
`
	l, parser := newTestListWatch(), &mailq.Parser{Location: time.UTC, Host: "mx1", Directory: &mailq.Directory{}}
	for line := range strings.Lines(log) {
		if ev, ok := parser.Parse([]byte(line)); ok {
			l.saw(&ev)
		}
	}
	now := time.Date(2026, 11, 22, 6, 37, 0, 0, time.UTC)
	l.active(now)
	if diff := cmp.Diff(map[string]string{"203.0.113.20": "log of mx1"}, shown(l.sources)); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
	if !l.isOurs(subject("203.0.113.20")) {
		t.Error("it is not treated as ours")
	}
	l.config.Logs = false
	l.saw(&mailq.Event{Time: now, Kind: mailq.Delivered, Host: "mx1", From: netip.MustParseAddr("203.0.113.22")})
	if l.active(now); len(l.sources) != 1 {
		t.Errorf("watched without dnsbl.logs: %v", l.sources)
	}
}

func shown(sources map[dnsbl.Subject]string) map[string]string {
	all := map[string]string{}
	for s, found := range sources {
		all[s.String()] = found
	}
	return all
}

// TestActiveAddresses has an address active that a log names, and all of them
// where it does not say: an active one is asked about more often.
func TestActiveAddresses(t *testing.T) {
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name        string
		from        string // of all mail; empty: the log does not say
		first, rest bool   // active: the first address, the others
	}{{"named", "203.0.113.20", true, false}, {"not said", "", true, true}, {"behind NAT", "10.0.0.5", true, true}, {"clock ahead", "203.0.113.20", true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newTestListWatch()
			l.watch = dnsbl.NewWatch(&dnsbl.Catalogue{Lists: []dnsbl.List{listOf(t, "spamcop")}}, nil, testRand())
			for _, text := range []string{"203.0.113.20", "198.51.100.1"} {
				l.add(start, subject(text), "configuration")
			}
			f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
			asked := map[dnsbl.Subject]int{}
			for now := start; now.Before(start.Add(6 * time.Hour)); now = now.Add(time.Minute) {
				ev := mailq.Event{Time: now, Kind: mailq.Delivered, Host: "mx1"}
				if tt.from != "" {
					ev.From = netip.MustParseAddr(tt.from)
				}
				if tt.name == "clock ahead" {
					ev.Time = now.AddDate(50, 0, 0)
				}
				l.saw(&ev)
				l.active(now)
				tasks, _ := l.watch.Due(now, listAskers)
				for _, task := range tasks {
					if task.Kind == dnsbl.Poll {
						asked[task.Subject]++
					}
					l.watch.Take(now, task, task.Ask(t.Context(), f))
				}
			}
			for text, active := range map[string]bool{"203.0.113.20": tt.first, "198.51.100.1": tt.rest} {
				if n := asked[subject(text)]; active && n < 5 || !active && n > 3 {
					t.Errorf("%s was asked about %d times in 6 hours; active: %t", text, n, active)
				}
			}
		})
	}
}

// listOf is a shipped list.
func listOf(t *testing.T, name string) dnsbl.List {
	t.Helper()
	for _, l := range dnsbl.Shipped().Lists {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no list is called %s", name)
	return dnsbl.List{}
}

// TestReplyToAnAddress counts a reply that names no address against the one
// that it was said to, and against all where that is not known, or not ours.
func TestReplyToAnAddress(t *testing.T) {
	for _, tt := range []struct {
		name, from, text string
		want             []string
	}{
		{"known", "203.0.113.20", "550 poor reputation", []string{"203.0.113.20"}},
		{"known, and another named", "203.0.113.20", "550 [203.0.113.21] is bad", []string{"203.0.113.20", "203.0.113.21"}},
		{"the same named", "203.0.113.20", "550 [203.0.113.20] is bad", []string{"203.0.113.20"}},
		{"not said", "", "550 poor reputation", []string{"203.0.113.20", "203.0.113.21", "203.0.113.22"}},
		{"not ours", "203.0.113.99", "550 poor reputation", []string{"203.0.113.20", "203.0.113.21", "203.0.113.22"}},
	} {
		l, now := newTestListWatch(), time.Now()
		for _, text := range []string{"203.0.113.20", "203.0.113.21", "203.0.113.22"} {
			l.add(now, subject(text), "configuration")
		}
		ev := mailq.Event{Time: now, Kind: mailq.Bounced, To: mailq.Recipient{Domain: "example.org"}, Reply: mailq.Reply{Class: mailq.AddressReputation, Text: tt.text}}
		if tt.from != "" {
			ev.From = netip.MustParseAddr(tt.from)
		}
		l.saw(&ev)
		l.hear(<-l.heard, now)
		got := map[string]bool{}
		for s, sign := range l.risks {
			if got[s.String()] = true; sign.weight != signWeight {
				t.Errorf("%s: %s has weight %.2f, want that of one reply", tt.name, s, sign.weight)
			}
		}
		if diff := cmp.Diff(set(tt.want), got); diff != "" {
			t.Errorf("%s: signs (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A server that was taken over names as many addresses as it likes, and few are
// believed; other servers still are.
func TestTooManyOutgoingAddresses(t *testing.T) {
	l, now := newTestListWatch(), time.Now()
	leave := func(host string, i int) bool {
		return l.left.note(&mailq.Event{Time: now, Kind: mailq.Delivered, Host: host, From: netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})})
	}
	for i := range 2000 {
		if got := leave("evil", i); got != (i < maxLeftOf) {
			t.Fatalf("address %d is believed: %t", i, got)
		}
	}
	if !leave("mx2", 5000) || !leave("evil", 0) {
		t.Error("another server's, or one known before, is not believed")
	}
	if l.active(now); len(l.sources) != maxLeftOf+1 {
		t.Errorf("%d are watched", len(l.sources))
	}
}
