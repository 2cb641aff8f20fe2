package app

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/dnsclient"
)

// The list that is evil, an address that is on it, and one that is not.
const (
	evilZone   = "bl.spamcop.net."
	evilListed = "198.51.100.20"
	evilClean  = "198.51.100.21"
)

// An evil answers a question in place of a server that means well, whose answer is
// given. Nil says nothing.
type evil func(w dns.ResponseWriter, good *dns.Msg) *dns.Msg

// startEvil starts a server with authority for the list, which is its own
// recursive resolver too, over UDP and TCP on one port.
func startEvil(t *testing.T, be evil) netip.AddrPort {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if m := be(w, goodAnswer(t, q)); m != nil {
			_ = w.WriteMsg(m) // whoever asked may be gone
		}
	})
	for range 20 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err != nil {
			udp.Close() // somebody else has that port
			continue
		}
		for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
			started := make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go s.ActivateAndServe()
			<-started
			t.Cleanup(func() { _ = s.Shutdown() })
		}
		return netip.MustParseAddrPort(udp.LocalAddr().String())
	}
	t.Fatal("no port is free for both UDP and TCP")
	return netip.AddrPort{}
}

// goodAnswer is what a list that means well says.
func goodAnswer(t *testing.T, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	asked := q.Question[0]
	text := map[string]string{
		"A 2.0.0.127." + evilZone:       "A 127.0.0.2",
		"A 20.100.51.198." + evilZone:   "A 127.0.0.2",
		"TXT 20.100.51.198." + evilZone: `TXT "Blocked - see https://www.spamcop.net/bl.shtml?198.51.100.20"`,
		"NS " + evilZone:                "NS ns." + evilZone,
		"A ns." + evilZone:              "A 127.0.0.1",
	}[dns.TypeToString[asked.Qtype]+" "+strings.ToLower(asked.Name)]
	if text == "" {
		m.Rcode = dns.RcodeNameError
		text, asked.Name = "SOA ns."+evilZone+" root."+evilZone+" 1 3600 600 86400 60", evilZone
	}
	rr, err := dns.NewRR(asked.Name + " 60 IN " + text)
	if err != nil {
		t.Error(err)
		return m
	}
	if m.Rcode == dns.RcodeNameError {
		m.Ns = append(m.Ns, rr)
	} else {
		m.Answer = append(m.Answer, rr)
	}
	return m
}

// says answers each A question with that address.
func says(addr string) evil {
	return func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg {
		q := good.Question[0]
		if q.Qtype != dns.TypeA || strings.HasPrefix(strings.ToLower(q.Name), "ns.") {
			return good
		}
		good.Rcode, good.Ns = dns.RcodeSuccess, nil
		good.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}}
		return good
	}
}

// fails answers everything with a failure.
func fails(rcode int) evil {
	return func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg {
		good.Rcode, good.Answer, good.Ns = rcode, nil, nil
		return good
	}
}

func isUDP(w dns.ResponseWriter) bool { return w.RemoteAddr().Network() == "udp" }

// truncated has an answer over UDP asked for over TCP.
func truncated(w dns.ResponseWriter, good *dns.Msg) *dns.Msg {
	if isUDP(w) {
		good.Truncated, good.Answer = true, nil
	}
	return good
}

// TestEvilServers asks real servers that mean no good, over UDP and TCP: whatever
// they do, what is listed is not called clean, what is not listed is not called
// listed, and it is said why nobody can tell. package dnsbl has the same for the
// watch, in virtual time.
func TestEvilServers(t *testing.T) {
	const listed, clean, unknown = dnsbl.Listed, dnsbl.Clean, dnsbl.Unknown
	var asked atomic.Int64
	about := func(m *dns.Msg) bool { return strings.Contains(m.Question[0].Name, ".100.51.198.") }
	tests := []struct {
		name    string
		be      evil
		on, off dnsbl.Verdict // of the address that is listed, and of the other
		reason  string
	}{
		{"means well", func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg { return good }, listed, clean, ""},
		{"answers late", func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg { time.Sleep(150 * time.Millisecond); return good }, listed, clean, ""},
		{"loses each first question over UDP", func(w dns.ResponseWriter, good *dns.Msg) *dns.Msg {
			if isUDP(w) && asked.Add(1)%2 == 1 {
				return nil
			}
			return good
		}, listed, clean, ""},
		{"truncates", truncated, listed, clean, ""},
		{"truncates over TCP too", func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg {
			good.Truncated, good.Answer = true, nil
			return good
		}, unknown, unknown, "it does not answer: malformed"},
		{"refuses resolvers of many", says("127.255.255.254"), unknown, unknown, "not tested: the list does not answer a public or anonymous resolver (127.255.255.254)"},
		{"refuses after so many questions", says("127.255.255.255"), unknown, unknown, "not tested: "},
		{"refuses by 127.0.0.1", says("127.0.0.1"), unknown, unknown, "not tested: the list refuses to answer (127.0.0.1)"},
		{"answers outside 127/8", says("10.11.12.13"), unknown, unknown, "resolver that rewrites (10.11.12.13)"},
		{"is a parked domain", says("91.195.240.117"), unknown, unknown, "(91.195.240.117)"},
		{"lists the whole Internet", says("127.0.0.2"), unknown, unknown, "lists what cannot be listed"},
		{"says REFUSED", fails(dns.RcodeRefused), unknown, unknown, "refused"},
		{"says SERVFAIL", fails(dns.RcodeServerFailure), unknown, unknown, "server failure"},
		{"has lost its data", fails(dns.RcodeNameError), unknown, unknown, "its test entry is missing"},
		{"has no authority", func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg {
			good.Authoritative = false
			return good
		}, listed, clean, "not confirmed by the list's own servers"},
		{"dies after its health test", func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg {
			if about(good) {
				return nil
			}
			return good
		}, unknown, unknown, "timeout"},
		{"says nothing", func(dns.ResponseWriter, *dns.Msg) *dns.Msg { return nil }, unknown, unknown, "timeout"},
		{"answers another question", func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg {
			good.Question[0].Name = "2.0.0.127." + evilZone
			return good
		}, unknown, unknown, "too little was answered"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			on, off := checkEvil(t, tt.be)
			if on.Status != tt.on || off.Status != tt.off {
				t.Errorf("what is listed is %s (%s), what is not is %s (%s); want %s, %s", on.Status, on.Reason, off.Status, off.Reason, tt.on, tt.off)
			}
			if !strings.Contains(on.Reason, tt.reason) {
				t.Errorf("the reason is %q, want %q in it", on.Reason, tt.reason)
			}
		})
	}
	t.Run("loses 30 %", func(t *testing.T) {
		t.Parallel()
		for seed := range uint64(5) {
			dice := rand.New(rand.NewPCG(seed, 30))
			var turn sync.Mutex // guards dice
			on, off := checkEvil(t, func(_ dns.ResponseWriter, good *dns.Msg) *dns.Msg {
				turn.Lock()
				defer turn.Unlock()
				if dice.Float64() < 0.3 {
					return nil
				}
				return good
			})
			if on.Status == clean || off.Status == listed {
				t.Errorf("what is listed is %s (%s), what is not is %s (%s)", on.Status, on.Reason, off.Status, off.Reason)
			}
		}
	})
}

// checkEvil asks a list with such a server about both addresses, once.
func checkEvil(t *testing.T, be evil) (on, off dnsbl.Result) {
	t.Helper()
	server := startEvil(t, be)
	client := &dnsclient.Client{
		Upstreams: []string{server.String()}, Patience: 100 * time.Millisecond,
		AuthoritativePort: server.Port(), OwnServers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	if err := client.Open(); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var lists []dnsbl.List
	for _, l := range dnsbl.Shipped().Lists {
		if l.Name == "spamcop" {
			lists = append(lists, l)
		}
	}
	c := dnsbl.Checker{Resolver: listResolver{client}, Catalogue: &dnsbl.Catalogue{Lists: lists}}
	var subjects []dnsbl.Subject
	for _, text := range []string{evilListed, evilClean} {
		s, err := dnsbl.ParseSubject(text)
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, s)
	}
	results := c.Check(t.Context(), subjects...)
	if len(results) != 2 {
		t.Fatal(fmt.Sprint(len(results), " results, want 2"))
	}
	return results[0], results[1]
}
