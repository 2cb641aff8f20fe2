package app

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/dnsclient"
)

func TestListAnswer(t *testing.T) {
	server := netip.MustParseAddrPort("127.0.0.1:53")
	addr := netip.MustParseAddr("127.0.0.2")
	for _, tt := range []struct {
		name string
		in   dnsclient.Answer
		want dnsbl.Answer
	}{
		{"nothing", dnsclient.Answer{}, dnsbl.Answer{Status: dnsbl.Timeout}},
		{"an address, by an alias", dnsclient.Answer{Status: dnsclient.Found, Type: dns.TypeA, Addrs: []netip.Addr{addr}, CNAME: []string{"x.example."}, TTL: time.Minute, Server: server},
			dnsbl.Answer{Status: dnsbl.Found, Addrs: []netip.Addr{addr}, Names: []string{"x.example."}, TTL: time.Minute, Server: "127.0.0.1:53"}},
		{"a text", dnsclient.Answer{Status: dnsclient.Found, Type: dns.TypeTXT, TXT: []string{"a"}}, dnsbl.Answer{Status: dnsbl.Found, Texts: []string{"a"}}},
		{"servers", dnsclient.Answer{Status: dnsclient.Found, Type: dns.TypeNS, NS: []string{"ns.example."}}, dnsbl.Answer{Status: dnsbl.Found, Names: []string{"ns.example."}}},
		{"start of authority", dnsclient.Answer{Status: dnsclient.Found, Type: dns.TypeSOA, SOA: dnsclient.SOA{Primary: "ns.example.", Serial: 7}},
			dnsbl.Answer{Status: dnsbl.Found, Names: []string{"ns.example."}, Serial: 7}},
		{"no such name", dnsclient.Answer{Status: dnsclient.NXDomain, Type: dns.TypeA, TTL: time.Hour}, dnsbl.Answer{Status: dnsbl.NXDomain, TTL: time.Hour}},
		{"a failure keeps its reason, which has the key of the list, to itself", dnsclient.Answer{Status: dnsclient.ServFail, Name: "2.k3y.example.", Err: errors.New("2.k3y.example")},
			dnsbl.Answer{Status: dnsbl.ServFail}},
		{"lame", dnsclient.Answer{Status: dnsclient.Lame}, dnsbl.Answer{Status: dnsbl.Unreachable}},
		{"a status that is not known here", dnsclient.Answer{Status: dnsclient.Lame + 1}, dnsbl.Answer{Status: dnsbl.Other}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, listAnswer(tt.in), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	for s := dnsclient.Unknown; s <= dnsclient.Lame; s++ { // each definite one, and none else, must stay so
		got := listAnswer(dnsclient.Answer{Status: s}).Status
		if definite := got == dnsbl.Found || got == dnsbl.NoData || got == dnsbl.NXDomain; definite != s.Definite() {
			t.Errorf("%s becomes %s", s, got)
		}
	}
}

// A list is asked anew each time: that an entry was not there an hour ago says
// nothing now.
func TestListResolverRemembersNothing(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		soa, err := dns.NewRR("bl.test. 3600 IN SOA ns.bl.test. root.bl.test. 1 3600 600 86400 3600")
		if err != nil {
			t.Error(err)
		}
		m.Ns = append(m.Ns, soa)
		w.WriteMsg(m)
	})}
	go server.ActivateAndServe()
	t.Cleanup(func() { server.Shutdown() })
	client := &dnsclient.Client{Upstreams: []string{conn.LocalAddr().String()}}
	if err := client.Open(); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 2 {
		if a := (listResolver{client}).Lookup(t.Context(), "2.0.0.127.bl.test", dnsbl.TypeA); a.Status != dnsbl.NXDomain || a.TTL != time.Hour {
			t.Errorf("answer %+v", a)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("two lookups were %d questions", n)
	}
}

func TestDistrust(t *testing.T) {
	up := netip.MustParseAddrPort("127.0.0.1:53")
	for _, tt := range []struct {
		health []dnsclient.Health
		want   string // part of it; empty: trusted
	}{
		{nil, ""},
		{[]dnsclient.Health{{Upstream: up}}, ""},
		{[]dnsclient.Health{{Upstream: up, Answers: dnsclient.Yes, Rewrites: dnsclient.No, Public: dnsclient.No, Validates: dnsclient.No}}, ""},
		{[]dnsclient.Health{{Upstream: up, Rewrites: dnsclient.Yes}}, "127.0.0.1:53 answers for names that do not exist"},
		{[]dnsclient.Health{{Upstream: up}, {Upstream: up, Public: dnsclient.Yes}}, "is one for everybody"},
	} {
		if got := distrust(tt.health); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%+v: %q, want %q", tt.health, got, tt.want)
		}
	}
}

func TestResolverAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:5353": "127.0.0.1:5353", "127.0.0.1": "127.0.0.1:53", "::1": "[::1]:53", "[::1]:5353": "[::1]:5353", "[::1]": "[::1]:53",
	} {
		if got, err := resolverAddress(t.Context(), text); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	if got, err := resolverAddress(t.Context(), "no such host:53"); err == nil || !strings.Contains(err.Error(), "ADDRESS:PORT") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestListCatalogue(t *testing.T) {
	own := func(text string) config.DNSBL {
		file := filepath.Join(t.TempDir(), "own.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return config.DNSBL{Catalogue: file}
	}
	const list = "lists:\n- {name: ours, zone: bl.example.com, kinds: [ip4], tier: warn, weight: 10, codes: [{code: 127.0.0.2, meaning: bad}]}\n"
	c, _, err := listCatalogue(own(list + "disabled: [spamcop]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if n, all := len(c.Lists), len(dnsbl.Shipped().Lists); n != all || c.Lists[n-1].Name != "ours" {
		t.Errorf("%d lists, the last is %s; want %d and ours: one more, one less", n, c.Lists[n-1].Name, all)
	}
	for _, tt := range []struct {
		config config.DNSBL
		want   string
	}{
		{config.DNSBL{Catalogue: filepath.Join(t.TempDir(), "absent")}, "dnsbl.catalogue: open "},
		{own("lists: 7\n"), "own.yml: dnsbl: catalogue: line 1: "},
		{own(strings.Replace(list, "bl.example.com", "dnsbl.sorbs.net", 1)), "it must not be asked"},
		{config.DNSBL{Keys: map[string]config.Secret{"spamhouse": "k3y"}}, `dnsbl.keys: dnsbl: key of "spamhouse"`},
	} {
		if _, _, err := listCatalogue(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.config, err, tt.want)
		}
	}
}

func TestDNSBLSubjects(t *testing.T) {
	subjects, err := DNSBLSubjects([]string{"198.51.100.1", "2001:DB8::1", "Shop.Example.", "127.0.0.2", "198.51.100.1"})
	var got []string
	for _, s := range subjects {
		got = append(got, s.String())
	}
	if diff := cmp.Diff([]string{"198.51.100.1", "2001:db8::1", "shop.example", "127.0.0.2"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, err = DNSBLSubjects([]string{"10.0.0.1", "192.0.2.0/24", "shop", "\x1b[2J"})
	for _, want := range []string{"private", "network", `"shop"`, `"\x1b[2J"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}
