package dnsclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// addrs are addresses 127.0.0.1 to 127.0.0.n.
func addrs(n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}))
	}
	return all
}

// resolverOf answers from a Static, as a resolver does.
func resolverOf(s Static) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := reply(q, dns.RcodeSuccess)
		a := s.Lookup(context.Background(), q.Question[0].Name, q.Question[0].Qtype)
		header := dns.RR_Header{Name: q.Question[0].Name, Rrtype: a.Type, Class: dns.ClassINET, Ttl: 60}
		for _, addr := range a.Addrs {
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: net.IP(addr.AsSlice())})
		}
		for _, text := range a.TXT {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header, Txt: []string{text}})
		}
		for _, host := range a.NS {
			m.Answer = append(m.Answer, &dns.NS{Hdr: header, Ns: host})
		}
		switch a.Status {
		case NXDomain:
			m.Rcode = dns.RcodeNameError
		case NoData:
			m.Ns = []dns.RR{record(soa("list.test."))}
		case ServFail:
			m.Rcode = dns.RcodeServerFailure
		case Found:
			if a.Type == dns.TypeSOA {
				m.Answer = append(m.Answer, record(soa(a.Name)))
				m.AuthenticatedData = true
			}
		}
		w.WriteMsg(m)
	}
}

// authority answers with authority for list.test.
func authority(w dns.ResponseWriter, q *dns.Msg) {
	m := reply(q, dns.RcodeNameError, soa("list.test."))
	m.RecursionAvailable, m.Authoritative = false, true
	switch name := q.Question[0].Name; strings.ToLower(name) {
	case "2.0.0.127.list.test.":
		m = reply(q, dns.RcodeSuccess, name+" 60 A 127.0.0.2")
		m.RecursionAvailable, m.Authoritative = false, true
	case "alias.list.test.":
		m = reply(q, dns.RcodeSuccess, name+" 60 CNAME elsewhere.test.")
		m.RecursionAvailable, m.Authoritative = false, true
	case "cached.list.test.":
		m = reply(q, dns.RcodeSuccess, name+" 60 A 127.0.0.2")
	case "referred.list.test.":
		m = reply(q, dns.RcodeSuccess)
		m.Ns = []dns.RR{record("referred.list.test. 60 NS ns.elsewhere.test.")}
	}
	w.WriteMsg(m)
}

func port(t *testing.T, address string) uint16 {
	t.Helper()
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port()
}

func TestAuthoritative(t *testing.T) {
	server := serve(t, authority) // on 127.0.0.1; nobody is at 127.0.0.9
	dead := netip.MustParseAddr("127.0.0.9")
	world := Static{
		NS: map[string][]string{"list.test": {"ns1.test.", "ns2.test."}, "gone.test": {"gone.test."}, "dead.test": {"ns3.test."}},
		A:  map[string][]netip.Addr{"ns1.test": {dead}, "ns2.test": addrs(1), "ns3.test": {dead}, "part.list.test": addrs(1)},
		AAAA: map[string][]netip.Addr{
			"ns3.test": {netip.IPv6Unspecified()},
		},
		Status: map[string]Status{"broken.test": ServFail},
	}
	c := open(t, &Client{OwnServers: loopback, AuthoritativePort: port(t, server)}, serve(t, resolverOf(world)))
	for _, tt := range []struct {
		zone, name string
		want       Status
		err        string
	}{
		{"list.test", "2.0.0.127.list.test", Found, ""},
		{"List.Test.", "1.0.0.127.LIST.test.", NXDomain, ""},
		{"part.list.test", "x.part.list.test", NXDomain, ""}, // its zone is list.test
		{"list.test", "alias.list.test", Lame, "only the alias"},
		{"list.test", "cached.list.test", Lame, "not authoritative"},
		{"list.test", "referred.list.test", Lame, "not authoritative"},
		{"list.test", "elsewhere.test", Unknown, "is not below it"},
		{"list.test", "", Unknown, "is empty"},
		{"none.test", "2.none.test", Lame, "it has none: NXDOMAIN"},
		{"broken.test", "2.broken.test", ServFail, "SERVFAIL"},
		{"gone.test", "2.gone.test", Lame, "has an address"},
		{"dead.test", "2.dead.test", Unreachable, "127.0.0.9"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		a := c.Authoritative(ctx, tt.zone, tt.name, dns.TypeA)
		cancel()
		if a.Status != tt.want || (a.Err == nil) != (tt.err == "") || a.Err != nil && !strings.Contains(a.Err.Error(), tt.err) {
			t.Errorf("%s of %s: got %s, %v; want %s, %q", tt.name, tt.zone, a.Status, a.Err, tt.want, tt.err)
		}
		if a.Status == Found && a.Server.String() != server {
			t.Errorf("%s: answered by %v, want %s", tt.name, a.Server, server)
		}
	}
	if len(c.direct) != 0 {
		t.Errorf("%d servers are still being asked", len(c.direct))
	}
}

// Each question is asked from a port of its own, in mixed case and without
// recursion, and never from the cache.
func TestAuthoritativeIsHardToForge(t *testing.T) {
	var mu sync.Mutex
	ports, names := map[string]bool{}, map[string]bool{}
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		ports[w.RemoteAddr().String()], names[q.Question[0].Name] = true, true
		if q.RecursionDesired {
			t.Error("recursion is desired")
		}
		authority(w, q)
	})
	world := Static{NS: map[string][]string{"list.test": {"ns.test."}}, A: map[string][]netip.Addr{"ns.test": addrs(1)}}
	c := open(t, &Client{OwnServers: loopback, AuthoritativePort: port(t, server), Patience: 5 * time.Second}, serve(t, resolverOf(world)))
	for range 10 {
		if a := c.Authoritative(context.Background(), "list.test", "2.0.0.127.list.test", dns.TypeA); a.Status != Found || a.Cached {
			t.Errorf("got %+v", a)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ports) < 9 || len(names) < 7 {
		t.Errorf("10 questions came from %d ports and in %d cases", len(ports), len(names))
	}
}

func TestAuthoritativeEnds(t *testing.T) {
	silent := servePackets(t, nobody)
	world := Static{NS: map[string][]string{"list.test": {"ns.test."}}, A: map[string][]netip.Addr{"ns.test": addrs(1)}}
	c := open(t, &Client{OwnServers: loopback, AuthoritativePort: port(t, silent), Patience: time.Minute}, serve(t, resolverOf(world)))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if a := c.Authoritative(ctx, "list.test", "2.list.test", dns.TypeA); a.Status != Timeout {
		t.Errorf("deadline: got %+v", a)
	}
	answer := make(chan Answer)
	go func() { answer <- c.Authoritative(context.Background(), "list.test", "2.list.test", dns.TypeA) }()
	if !soon(func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.direct) == 1 }) {
		t.Error("the server is not asked")
	}
	c.Close()
	if a := <-answer; a.Status != Unknown {
		t.Errorf("closed: got %+v", a)
	}
	if a := c.Authoritative(context.Background(), "list.test", "2.list.test", dns.TypeA); a.Status != Unknown {
		t.Errorf("after it was closed: got %+v", a)
	}
}

// A zone that names hundreds of servers below somebody else's zone must not
// have us ask for all of them.
func TestAuthoritativeAsksForFewServers(t *testing.T) {
	var hosts []string
	for i := range 200 {
		hosts = append(hosts, fmt.Sprintf("ns%d.victim.test.", i))
	}
	var asked atomic.Int64
	world := resolverOf(Static{NS: map[string][]string{"list.test": hosts}})
	c := open(t, &Client{}, serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if strings.HasSuffix(q.Question[0].Name, ".victim.test.") {
			asked.Add(1)
		}
		world(w, q)
	}))
	if a := c.Authoritative(context.Background(), "list.test", "2.list.test", dns.TypeA); a.Status != Lame {
		t.Errorf("got %s, %v", a.Status, a.Err)
	}
	if n := asked.Load(); n == 0 || n > 2*maxHosts {
		t.Errorf("%d questions about servers, want at most %d", n, 2*maxHosts)
	}
}

// loopback is where the tests' servers are.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// A zone names servers where only this host can go: they are not asked.
func TestAuthoritativeStaysOutside(t *testing.T) {
	for text, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "127.0.0.1": false, "::1": false, "10.1.2.3": false, "192.168.0.1": false,
		"172.16.0.1": false, "169.254.169.254": false, "100.64.0.1": false, "fd00::1": false, "fe80::1": false, "0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false,
	} {
		if got := isOutside(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is outside: %t", text, got)
		}
	}
	var asked atomic.Int64
	server := serve(t, func(dns.ResponseWriter, *dns.Msg) { asked.Add(1) })
	world := Static{NS: map[string][]string{"list.test": {"ns.list.test."}}, A: map[string][]netip.Addr{"ns.list.test": {netip.MustParseAddr("127.0.0.1")}}}
	c := open(t, &Client{AuthoritativePort: port(t, server)}, serve(t, resolverOf(world)))
	if a := c.Authoritative(context.Background(), "list.test", "2.list.test", dns.TypeA); a.Status != Lame || !errors.Is(a.Err, ErrInside) || asked.Load() > 0 {
		t.Errorf("got %s, %v; %d questions", a.Status, a.Err, asked.Load())
	}
}
