package dnsclient

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
)

// world is the public DNS as SelfTest sees it through a good resolver that asks
// from 198.51.100.7.
func world() Static {
	return Static{
		SOA:    map[string]SOA{"org": {Zone: "org."}},
		A:      map[string][]netip.Addr{"whoami.akamai.net": {netip.MustParseAddr("198.51.100.8")}},
		TXT:    map[string][]string{"o-o.myaddr.l.google.com": {"edns0-client-subnet 192.0.2.0/24", "198.51.100.7"}},
		Status: map[string]Status{"dnssec-failed.org": ServFail},
	}
}

func TestSelfTest(t *testing.T) {
	good := Health{Answers: Yes, Rewrites: No, Public: CannotTell, Validates: Yes, SeenAs: netip.MustParseAddr("198.51.100.7")}
	for _, tt := range []struct {
		name   string
		change func(s *Static, h *Health)
		answer func(next dns.HandlerFunc) dns.HandlerFunc // nil leaves it
		own    string
		text   string // in what is said, or nothing is
	}{
		{name: "own", own: "198.51.100.0/24", change: func(_ *Static, h *Health) { h.Public = No }},
		{name: "asks from elsewhere", own: "203.0.113.0/24", text: "asks from 198.51.100.7"},
		{name: "only Akamai answers", text: "asks from 198.51.100.8", change: func(s *Static, h *Health) {
			s.TXT, h.SeenAs = nil, netip.MustParseAddr("198.51.100.8")
		}},
		{name: "nobody says from where", text: "could not be found out", change: func(s *Static, h *Health) {
			s.TXT, s.A, h.SeenAs = nil, nil, netip.Addr{}
		}},
		{name: "forwards to Google", text: "forwards to a resolver of Google", change: func(s *Static, h *Health) {
			s.TXT = map[string][]string{"o-o.myaddr.l.google.com": {"172.253.1.9"}}
			h.SeenAs, h.Public = netip.MustParseAddr("172.253.1.9"), Yes
		}},
		{name: "forwards to Cloudflare over IPv6", text: "forwards to a resolver of Cloudflare", change: func(s *Static, h *Health) {
			s.TXT = map[string][]string{"o-o.myaddr.l.google.com": {"2400:cb00:20::1"}}
			h.SeenAs, h.Public = netip.MustParseAddr("2400:cb00:20::1"), Yes
		}},
		{name: "rewrites", text: "would seem to be listed", answer: rewriting, change: func(_ *Static, h *Health) { h.Rewrites = Yes }},
		{name: "perhaps rewrites", text: "Whether", answer: breaking, change: func(_ *Static, h *Health) { h.Rewrites = CannotTell }},
		{name: "does not validate", text: "does not check signatures", change: func(s *Static, h *Health) {
			s.Status = nil
			s.A["dnssec-failed.org"] = addrs(1)
			h.Validates = No
		}},
		{name: "perhaps validates", text: "asks from", change: func(s *Static, h *Health) { s.Status, h.Validates = nil, CannotTell }},
		{name: "does not resolve", text: "does not resolve names (SERVFAIL)", change: func(s *Static, h *Health) {
			s.Status["org"], *h = ServFail, Health{Answers: No}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, want := world(), good
			if tt.change != nil {
				tt.change(&s, &want)
			}
			h := resolverOf(s)
			if tt.answer != nil {
				h = tt.answer(h)
			}
			c := open(t, new(Client), serve(t, h))
			if tt.own != "" {
				c.OwnNetworks = networks(tt.own)
			}
			got := c.SelfTest(context.Background())[0]
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Health{}, "Texts", "Upstream"), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if text := strings.Join(got.Texts, "\n"); !strings.Contains(text, tt.text) || (text == "") != (tt.text == "") {
				t.Errorf("it says %q, want %q", text, tt.text)
			}
		})
	}
}

// rewriting gives an address for each name that does not exist.
func rewriting(next dns.HandlerFunc) dns.HandlerFunc {
	return onRandomNames(next, func(q *dns.Msg) *dns.Msg {
		return reply(q, dns.RcodeSuccess, q.Question[0].Name+" 60 A 192.0.2.80")
	})
}

// breaking fails for each name that does not exist.
func breaking(next dns.HandlerFunc) dns.HandlerFunc {
	return onRandomNames(next, func(q *dns.Msg) *dns.Msg { return reply(q, dns.RcodeServerFailure) })
}

func onRandomNames(next dns.HandlerFunc, answer func(q *dns.Msg) *dns.Msg) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		label, _, _ := strings.Cut(q.Question[0].Name, ".")
		if len(label) >= 26 {
			w.WriteMsg(answer(q))
			return
		}
		next(w, q)
	}
}

// Without a network there is no verdict, and no panic.
func TestSelfTestWithoutNetwork(t *testing.T) {
	c := open(t, &Client{Patience: 10 * time.Millisecond}, closedPort(t), servePackets(t, nobody))
	for _, h := range c.SelfTest(context.Background()) {
		if h.Answers != No || h.Rewrites != CannotTell || h.Public != CannotTell || h.Validates != CannotTell || len(h.Texts) != 1 {
			t.Errorf("got %+v", h)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, h := range c.SelfTest(ctx) {
		if h.Answers != CannotTell || len(h.Texts) != 1 {
			t.Errorf("cancelled: got %+v", h)
		}
	}
}

// A resolver for everybody is known by its address, without asking it.
func TestPublicResolvers(t *testing.T) {
	for address, want := range map[string]string{
		"8.8.8.8": "Google", "2001:4860:4860::8844": "Google", "1.1.1.1": "Cloudflare", "2606:4700:4700::1001": "Cloudflare",
		"9.9.9.9": "Quad9", "2620:fe::9": "Quad9", "208.67.222.222": "OpenDNS", "2620:119:35::35": "OpenDNS", "94.140.15.15": "AdGuard",
		"4.2.2.2": "Level 3", "156.154.71.1": "Vercara", "185.12.64.2": "Hetzner", "2a01:4ff:ff00::add:1": "Hetzner",
		"::ffff:8.8.4.4": "Google", "127.0.0.1": "", "192.0.2.1": "", "2001:db8::1": "", "4.2.2.9": "",
	} {
		e := examination{Health: Health{Upstream: netip.AddrPortFrom(netip.MustParseAddr(address), 53)}}
		e.public(nil)
		if (e.Public == Yes) != (want != "") || !strings.Contains(strings.Join(e.Texts, ""), want) {
			t.Errorf("%s: public is %s, and it says %q, want %q", address, e.Public, e.Texts, want)
		}
	}
}

// A resolver that asks from the address that it is asked at is not shared by
// that alone.
func TestAsksFromItsAddress(t *testing.T) {
	addr := netip.MustParseAddr("198.51.100.7")
	e := examination{Health: Health{Upstream: netip.AddrPortFrom(addr, 53), Answers: Yes, SeenAs: addr}}
	if e.public(nil); e.Public != No || len(e.Texts) != 0 {
		t.Errorf("public is %s, and it says %q", e.Public, e.Texts)
	}
}

func TestVerdictNames(t *testing.T) {
	for v, want := range map[Verdict]string{CannotTell: "cannot tell", No: "no", Yes: "yes"} {
		if got := v.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
