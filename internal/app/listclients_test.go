package app

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
)

const (
	authblTest = "2.0.0.127.key.authbl.dq.spamhaus.net"
	authblOf7  = "7.2.0.192.key.authbl.dq.spamhaus.net" // 192.0.2.7
)

// askClients has the service ask AuthBL about clients.
func askClients(s *service) {
	var lists []dnsbl.List
	for _, l := range dnsbl.Shipped().Lists {
		if l.Name == "spamcop" || l.Name == "spamhaus-authbl" {
			lists = append(lists, l)
		}
	}
	catalogue := &dnsbl.Catalogue{Lists: lists}
	s.lists.watch = dnsbl.NewWatch(catalogue, dnsbl.Keys{"spamhaus": "key"}, testRand())
	s.lists.clients = newListClients(config.Config{
		DNSBL:    config.DNSBL{Risk: config.ListRisk{Clients: []string{"spamhaus-authbl"}}, OwnNetworks: []string{"198.51.100.0/24"}},
		Accounts: config.Accounts{Trusted: []string{"2001:db8::/48"}},
	}, catalogue)
	s.judge.risk = &detector.ListingRisk{Act: 0.1}
}

// signIn has an account sign in.
func (s *listService) signIn(t *testing.T, account mailq.Account, client string, at time.Time) {
	t.Helper()
	ev := mailq.Event{Time: at, Kind: mailq.LoginSucceeded, Account: account, Client: netip.MustParseAddr(client)}
	if err := s.inObserve(t.Context(), func() { s.pipeline.saw(&ev) }); err != nil {
		t.Fatal(err)
	}
}

// riskNow is what the log says of the risk.
func (s *listService) riskNow(t *testing.T) (risk float64) {
	t.Helper()
	if err := s.inObserve(t.Context(), func() { risk = s.judge.risk.Risk(time.Now()) }); err != nil {
		t.Fatal(err)
	}
	return risk
}

// A client that is new to its account is asked about once, and raises the risk if
// it is listed, for each account that has it.
func TestClientsAreAsked(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2", authblTest: "127.0.0.20", authblOf7: "127.0.0.20"}}
		s := startLists(t, state, f, askClients)
		time.Sleep(time.Minute)
		inquiries := func(result string) float64 {
			return value(t, s.metrics.listInquiries.WithLabelValues("client", result))
		}
		now := time.Now()
		for range 3 {
			s.signIn(t, "bob@shop.test", "192.0.2.8", now)
		}
		for _, client := range []string{"10.0.0.7", "127.0.0.1", outgoing, "198.51.100.9", "2001:db8::7", "fe80::7", "::1", "::ffff:192.168.0.7"} {
			s.signIn(t, "bob@shop.test", client, now)
		}
		s.signIn(t, "script:/var/www/shop", "192.0.2.7", now)
		s.signIn(t, "bob@shop.test", "192.0.2.7", now.Add(-2*time.Hour)) // read from a backlog
		s.signIn(t, "", "192.0.2.7", now)
		time.Sleep(time.Hour)
		if got := inquiries("clean"); got != 1 || s.riskNow(t) > 0 {
			t.Errorf("%.0f clean answers, risk %.2f; want 1, 0", got, s.riskNow(t))
		}
		now = time.Now()
		s.signIn(t, "alice@shop.test", "192.0.2.7", now)
		time.Sleep(10 * time.Minute)
		if got := s.riskNow(t); got < 0.24 || got > 0.25 || inquiries("listed") != 1 {
			t.Errorf("risk %.2f, %.0f listed; want 0.25, 1", got, inquiries("listed"))
		}
		s.signIn(t, "alice@shop.test", "192.0.2.7", now)
		s.signIn(t, "carol@shop.test", "192.0.2.7", now)
		time.Sleep(time.Minute)
		if got := s.riskNow(t); got < 0.29 || inquiries("listed") != 1 {
			t.Errorf("risk %.2f, %.0f listed; want 0.3 of two accounts, from one answer", got, inquiries("listed"))
		}
		for _, account := range []string{"alice@shop.test", "carol@shop.test"} {
			if _, err := s.Act(t.Context(), web.Order{Do: doRelease, Account: account, Who: "duty", Why: "a shared address"}); err != nil {
				t.Error(err)
			}
		}
		if got := s.riskNow(t); got > 0.001 {
			t.Errorf("risk %.2f after the release", got)
		}
		if got := s.letters(t); len(got) > 0 {
			t.Errorf("people are told %q", got)
		}
		time.Sleep(5 * time.Hour)
		if err := s.lists.do(t.Context(), func() {
			if n := len(s.lists.clients.asked); n > 0 {
				t.Errorf("%d clients are remembered after five hours", n)
			}
		}); err != nil {
			t.Fatal(err)
		}
		s.stop()
	})
}

// A list that comes to list everybody, or to refuse, blames no client.
func TestClientsOfABadList(t *testing.T) {
	for name, bad := range map[string]func(f *fakeDNS){
		"wildcard": func(f *fakeDNS) { f.all = "127.0.0.20" },
		"refusal":  func(f *fakeDNS) { f.all = "127.255.255.254" },
		"dead":     func(f *fakeDNS) { f.dead = true },
	} {
		state := t.TempDir()
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2", authblTest: "127.0.0.20"}}
				s := startLists(t, state, f, askClients)
				time.Sleep(time.Minute)
				f.set(func() { bad(f) })
				for i := range 20 {
					s.signIn(t, mailq.Account(fmt.Sprintf("a%d@shop.test", i)), fmt.Sprintf("192.0.2.%d", i), time.Now())
				}
				time.Sleep(3 * time.Hour)
				if got := s.riskNow(t); got > 0 {
					t.Errorf("risk %.2f", got)
				}
				unknown := value(t, s.metrics.listInquiries.WithLabelValues("client", "unknown"))
				if not := value(t, s.metrics.listInquiries.WithLabelValues("client", leftOut)); unknown == 0 || unknown+not != 20 {
					t.Errorf("%.0f answers are unknown, %.0f were not asked for; want 20", unknown, not)
				}
				s.stop()
			})
		})
	}
}

// However many clients there are, memory and questions are bounded, and what is
// left out is counted.
func TestFloodOfClients(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry())
	catalogue := dnsbl.Shipped()
	c := config.Config{DNSBL: config.DNSBL{Risk: config.ListRisk{Clients: []string{"blocklist-de"}}}}
	l := &listWatch{
		p: &pipeline{log: slog.New(slog.DiscardHandler), metrics: m}, watch: dnsbl.NewWatch(catalogue, nil, testRand()),
		sources: map[dnsbl.Subject]string{}, clients: newListClients(c, catalogue),
	}
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	count := func() float64 { return value(t, m.listInquiries.WithLabelValues("client", leftOut)) }
	flood := func(n int, account func(i int) mailq.Account) {
		for i := range n {
			l.saw(&mailq.Event{Time: now, Kind: mailq.Submitted, Account: account(i), Client: netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)})})
			for len(l.clients.signIns) > 0 {
				l.signedIn(t.Context(), <-l.clients.signIns, now)
			}
		}
	}
	flood(10_000, func(int) mailq.Account { return "mallory@shop.test" })
	if n := len(l.clients.asked); n != signInsAnHour || count() != 10_000-signInsAnHour {
		t.Errorf("one account: %d clients are asked about, %.0f left out", n, count())
	}
	before := count()
	flood(50_000, func(i int) mailq.Account { return mailq.Account(fmt.Sprintf("a%d@shop.test", i)) })
	s := &l.clients.seen
	if n := len(l.clients.asked); n > maxClients || count()-before < 50_000-maxClients {
		t.Errorf("many accounts: %d clients are asked about, %.0f left out", n, count()-before)
	}
	if len(s.young) > maxSignInsSeen || len(s.old) > maxSignInsSeen || len(s.further) > maxSignInsSeen {
		t.Errorf("%d and %d clients, %d accounts are remembered", len(s.young), len(s.old), len(s.further))
	}
	for range 2 * maxSignIns { // nobody reads
		l.saw(&mailq.Event{Time: now.Add(time.Hour), Kind: mailq.Submitted, Account: mailq.Account(fmt.Sprint(count())), Client: netip.MustParseAddr("198.51.100.1")})
	}
	if n := len(l.clients.signIns); n > maxSignIns {
		t.Errorf("%d wait", n)
	}
}

// Nobody's clients are asked about unless lists are named for it, and names that
// cannot be are mistakes of the configuration.
func TestClientsAreOptional(t *testing.T) {
	if c := newListClients(config.Default(), dnsbl.Shipped()); c != nil || c.coming() != nil {
		t.Error("clients are asked about by default")
	}
	c := config.Default()
	c.DNSBL.Risk.Clients = []string{"spamhaus-authbl"}
	if warnings, err := CheckLists(c); err != nil || len(warnings) != 1 {
		t.Errorf("without a key: %q, %v", warnings, err)
	}
	c.DNSBL.Risk.Clients = []string{"authbl"}
	if _, err := CheckLists(c); err == nil {
		t.Error("a list that nobody knows is taken")
	}
	if (&listWatch{clients: nil}).clients.coming() != nil {
		t.Error("clients come though nobody asks")
	}
}
