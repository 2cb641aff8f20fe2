package dnsclient

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
)

// ignoreServer compares answers by what they say.
var ignoreServer = cmp.Options{cmpopts.IgnoreFields(Answer{}, "Server", "Err"), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})}

// parseReply is what becomes of an answer of a resolver to a question.
func parseReply(t *testing.T, name string, qtype uint16, change func(m *dns.Msg), rcode int, records ...string) Answer {
	t.Helper()
	q, err := newQuestion(name, qtype)
	if err != nil {
		t.Fatal(err)
	}
	asked := new(dns.Msg)
	if err := asked.Unpack(q.pack(nil, nil)); err != nil {
		t.Fatal(err)
	}
	m := reply(asked, rcode, records...)
	if change != nil {
		change(m)
	}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	a := parse(msg, q)
	if a.Status.Definite() != (a.Err == nil) {
		t.Errorf("%s has the error %v", a.Status, a.Err)
	}
	return a
}

func TestRecords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		qtype   uint16
		records []string
		want    Answer
	}{
		{"a.test.", dns.TypeA, []string{"a.test. 60 A 127.0.0.2", "a.test. 30 A 127.0.0.4"},
			Answer{Addrs: []netip.Addr{two, netip.MustParseAddr("127.0.0.4")}, TTL: 30 * time.Second}},
		{"A.Test", dns.TypeAAAA, []string{"a.test. 60 AAAA 2001:db8::1"},
			Answer{Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, TTL: time.Minute}},
		{"a.test.", dns.TypeTXT, []string{`a.test. 60 TXT "v=spf1 " "-all"`, `a.test. 60 TXT "q\"b\\\000\255é"`},
			Answer{TXT: []string{"v=spf1 -all", "q\"b\\\x00\xffé"}, TTL: time.Minute}},
		{"a.test.", dns.TypeNS, []string{"a.test. 60 NS NS1.a.test."}, Answer{NS: []string{"ns1.a.test."}, TTL: time.Minute}},
		{"1.0.0.127.in-addr.arpa.", dns.TypePTR, []string{"1.0.0.127.in-addr.arpa. 60 PTR Localhost."}, Answer{PTR: []string{"localhost."}, TTL: time.Minute}},
		{"a.test.", dns.TypeMX, []string{"a.test. 60 MX 10 MX.a.test.", "a.test. 60 MX 0 ."}, Answer{MX: []MX{{10, "mx.a.test."}, {0, "."}}, TTL: time.Minute}},
		{"a.test.", dns.TypeCNAME, []string{"a.test. 60 CNAME B.test."}, Answer{CNAME: []string{"b.test."}, TTL: time.Minute}},
		{"a.test.", dns.TypeSOA, []string{soa("a.test.")},
			Answer{SOA: SOA{"a.test.", "ns.a.test.", "admin.a.test.", 7, 5 * time.Minute, 15 * time.Minute}, TTL: 15 * time.Minute}},
		{"a.test.", dns.TypeA, []string{"c.test. 9 A 127.0.0.2", "b.test. 5 CNAME c.test.", "a.test. 7 CNAME B.test."}, // in any order
			Answer{CNAME: []string{"b.test.", "c.test."}, Addrs: []netip.Addr{two}, TTL: 5 * time.Second}},
		{"a.test.", dns.TypeA, []string{"a.test. 4294967295 A 127.0.0.2"}, Answer{Addrs: []netip.Addr{two}}},
		{"a.test.", dns.TypeA, []string{"a.test. 2147483647 A 127.0.0.2"}, Answer{Addrs: []netip.Addr{two}, TTL: 7 * 24 * time.Hour}},
	} {
		got := parseReply(t, tt.name, tt.qtype, nil, dns.RcodeSuccess, tt.records...)
		tt.want.Status, tt.want.Name, tt.want.Type = Found, strings.ToLower(dns.Fqdn(tt.name)), tt.qtype
		if diff := cmp.Diff(tt.want, got, ignoreServer); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tt.name, dns.Type(tt.qtype), diff)
		}
	}
}

func TestStatus(t *testing.T) {
	notRecursive := func(m *dns.Msg) { m.RecursionAvailable = false }
	for _, tt := range []struct {
		name    string
		rcode   int
		records []string
		change  func(*dns.Msg)
		want    Status
		ttl     time.Duration
	}{
		{"found", dns.RcodeSuccess, []string{"a.test. 60 A 127.0.0.2"}, nil, Found, time.Minute},
		{"no data", dns.RcodeSuccess, []string{soa("test.")}, nil, NoData, 5 * time.Minute},
		{"no data and no SOA", dns.RcodeSuccess, nil, nil, NoData, 0},
		{"no data at the end of an alias", dns.RcodeSuccess, []string{"a.test. 60 CNAME b.test."}, nil, NoData, 0},
		{"NXDOMAIN", dns.RcodeNameError, []string{"test. 60 SOA ns.test. admin.test. 1 1 1 1 300"}, nil, NXDomain, time.Minute},
		{"NXDOMAIN of an alias", dns.RcodeNameError, []string{"a.test. 60 CNAME b.test."}, nil, NXDomain, 0},
		{"SERVFAIL", dns.RcodeServerFailure, nil, nil, ServFail, 0},
		{"REFUSED", dns.RcodeRefused, nil, nil, Refused, 0},
		{"NOTIMP", dns.RcodeNotImplemented, nil, nil, OtherRcode, 0},
		{"no name for the code", 14, nil, nil, OtherRcode, 0},
		{"extended code", dns.RcodeSuccess, nil, func(m *dns.Msg) { m.SetEdns0(udpSize, false); m.Rcode = dns.RcodeBadVers }, OtherRcode, 0},
		{"referral", dns.RcodeSuccess, nil, func(m *dns.Msg) { m.Ns = []dns.RR{record("test. 60 NS ns.test.")} }, Lame, 0},
		{"no recursion", dns.RcodeSuccess, []string{soa("test.")}, notRecursive, Lame, 0},
		{"no recursion, found", dns.RcodeSuccess, []string{"a.test. 60 A 127.0.0.2"}, notRecursive, Found, time.Minute},
		{"another name", dns.RcodeSuccess, []string{"b.test. 60 A 127.0.0.2"}, nil, Malformed, 0},
		{"another class", dns.RcodeSuccess, []string{"a.test. 60 CH A 127.0.0.2"}, nil, NoData, 0},
		{"found and NXDOMAIN", dns.RcodeNameError, []string{"a.test. 60 A 127.0.0.2"}, nil, Malformed, 0},
		{"alias of itself", dns.RcodeSuccess, []string{"a.test. 60 CNAME a.test."}, nil, Malformed, 0},
		{"no address in the record", dns.RcodeSuccess, nil, func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.test.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}}}
		}, Malformed, 0},
		{"eight aliases", dns.RcodeSuccess, aliases(8), nil, Found, time.Minute},
		{"nine aliases", dns.RcodeSuccess, aliases(9), nil, Malformed, 0},
		{"many records", dns.RcodeSuccess, addresses(maxRecords - 1), nil, Found, time.Minute}, // and that of EDNS
		{"too many records", dns.RcodeSuccess, addresses(maxRecords + 1), nil, Malformed, 0},
	} {
		got := parseReply(t, "a.test.", dns.TypeA, tt.change, tt.rcode, tt.records...)
		if got.Status != tt.want || got.TTL != tt.ttl {
			t.Errorf("%s: got %s for %v, want %s for %v", tt.name, got.Status, got.TTL, tt.want, tt.ttl)
		}
	}
}

// aliases are n of them that lead from a.test. to an address.
func aliases(n int) []string {
	records := []string{}
	name := "a.test."
	for i := range n {
		next := fmt.Sprintf("b%d.test.", i)
		records = append(records, name+" 60 CNAME "+next)
		name = next
	}
	return append(records, name+" 60 A 127.0.0.2")
}

func addresses(n int) []string {
	records := []string{}
	for i := range n {
		records = append(records, fmt.Sprintf("a.test. 60 A 127.0.%d.%d", i/256, i%256))
	}
	return records
}

func TestMuchTXT(t *testing.T) {
	text := `a.test. 60 TXT "` + strings.Repeat("x", 250) + `"`
	for n, want := range map[int]Status{60: Found, 70: Malformed} {
		if got := parseReply(t, "a.test.", dns.TypeTXT, nil, dns.RcodeSuccess, slices.Repeat([]string{text}, n)...); got.Status != want {
			t.Errorf("%d records: got %s, want %s", n, got.Status, want)
		}
	}
}

func TestAuthenticated(t *testing.T) {
	for _, want := range []bool{true, false} {
		set := func(m *dns.Msg) { m.AuthenticatedData = want }
		if got := parseReply(t, "a.test.", dns.TypeA, set, dns.RcodeSuccess, "a.test. 60 A 127.0.0.2"); got.Authenticated != want {
			t.Errorf("got %v, want %v", got.Authenticated, want)
		}
	}
}

// Every cut of a message is malformed, and no cut panics.
func TestCutMessages(t *testing.T) {
	q, err := newQuestion("a.test.", dns.TypeTXT)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg).SetQuestion("a.test.", dns.TypeTXT)
	m.Response, m.RecursionAvailable = true, true
	m.Answer = []dns.RR{record("a.test. 60 CNAME b.test."), record(`b.test. 60 TXT "one" "two"`)}
	m.Ns = []dns.RR{record(soa("test."))}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if a := parse(msg, q); a.Status != Found || a.TXT[0] != "onetwo" {
		t.Fatalf("whole: got %+v", a)
	}
	for end := q.questionEnd(); end < len(msg); end++ {
		if a := parse(msg[:end], q); a.Status != Malformed {
			t.Errorf("cut at %d of %d: got %s", end, len(msg), a.Status)
		}
	}
}

func TestNewQuestion(t *testing.T) {
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  string // of the name, or empty for an error
	}{
		{"Example.ORG", dns.TypeA, "example.org."},
		{"example.org.", dns.TypeTXT, "example.org."},
		{".", dns.TypeNS, "."},
		{`a\.b.test.`, dns.TypeA, `a\.b.test.`},
		{`\097\066.test.`, dns.TypeA, "ab.test."},
		{"É.test.", dns.TypeA, `\195\137.test.`}, // not lowered: the DNS has only ASCII cases
		{"_dmarc.example.org", dns.TypeTXT, "_dmarc.example.org."},
		{strings.Repeat("a", 63) + ".test", dns.TypeA, strings.Repeat("a", 63) + ".test."},
		{strings.Repeat("a", 64) + ".test", dns.TypeA, ""},
		{strings.Repeat("a.", 127), dns.TypeA, strings.Repeat("a.", 127)},
		{strings.Repeat("a.", 128), dns.TypeA, ""},
		{"", dns.TypeA, ""},
		{"a..test", dns.TypeA, ""},
		{".test", dns.TypeA, ""},
		{"example.org", dns.TypeANY, ""},
		{"example.org", dns.TypeDNSKEY, ""},
	} {
		q, err := newQuestion(tt.name, tt.qtype)
		if (err != nil) != (tt.want == "") || err == nil && q.name != tt.want {
			t.Errorf("%q: got %+v, %v; want %q", tt.name, q, err, tt.want)
		}
	}
}

// What is packed by hand is what miekg/dns reads.
func TestPack(t *testing.T) {
	q, err := newQuestion("2.0.0.127.list.test", dns.TypeTXT)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name                string
		direct, mixed, bare bool
	}{{name: "plain"}, {name: "direct", direct: true}, {name: "bare", bare: true}, {name: "mixed", mixed: true}} {
		q.direct, q.mixed, q.bare = tt.direct, tt.mixed, tt.bare
		c := newCall()
		c.question = q
		c.pack(true)
		m := new(dns.Msg)
		if err := m.Unpack(c.query); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		name := m.Question[0].Name
		switch {
		case m.Id != c.id || m.Response || m.RecursionDesired == tt.direct || !m.AuthenticatedData:
			t.Errorf("%s: header %+v", tt.name, m.MsgHdr)
		case !strings.EqualFold(name, q.name) || m.Question[0].Qtype != dns.TypeTXT || m.Question[0].Qclass != dns.ClassINET:
			t.Errorf("%s: question %+v", tt.name, m.Question)
		case !tt.mixed && name != q.name:
			t.Errorf("%s: asks about %q", tt.name, name)
		case (m.IsEdns0() == nil) != tt.bare || !tt.bare && m.IsEdns0().UDPSize() != udpSize:
			t.Errorf("%s: EDNS %v", tt.name, m.IsEdns0())
		}
	}
}

// Of all letters, each is in both cases in some question.
func TestMixedCase(t *testing.T) {
	q, err := newQuestion("list.test", dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	q.mixed = true
	c := newCall()
	c.question = q
	seen := map[string]bool{}
	for range 200 {
		c.pack(true)
		name, _, err := dns.UnpackDomainName(c.query, headerSize)
		if err != nil {
			t.Fatal(err)
		}
		for i, letter := range name {
			seen[fmt.Sprint(i, string(letter))] = true
		}
	}
	if len(seen) != 2*8+2 { // eight letters and two dots
		t.Errorf("got %d letters and places", len(seen))
	}
	c.pack(false)
	if name, _, _ := dns.UnpackDomainName(c.query, headerSize); name != "list.test." {
		t.Errorf("over TCP it asks about %q", name)
	}
}

func TestStatusNames(t *testing.T) {
	seen := map[string]bool{}
	for s := Unknown; s <= Lame; s++ {
		if text := s.String(); text == "" || seen[text] {
			t.Errorf("status %d is called %q", s, text)
		}
		seen[s.String()] = true
	}
	if got := Status(200).String(); got != "status 200" {
		t.Errorf("got %q", got)
	}
}
