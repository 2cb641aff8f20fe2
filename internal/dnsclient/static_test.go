package dnsclient

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestStatic(t *testing.T) {
	s := Static{
		A:     map[string][]netip.Addr{"a.test": {two}},
		AAAA:  map[string][]netip.Addr{"a.test.": {netip.IPv6Loopback()}},
		TXT:   map[string][]string{"a.test": {"one", "two"}},
		NS:    map[string][]string{"test": {"ns.test."}},
		PTR:   map[string][]string{"2.0.0.127.in-addr.arpa": {"a.test."}},
		MX:    map[string][]MX{"a.test": {{10, "mx.test."}}},
		CNAME: map[string]string{"alias.test": "A.test", "loop.test": "loop.test."},
		SOA:   map[string]SOA{"test": {Zone: "test.", Serial: 7}},
		Status: map[string]Status{
			"slow.test": Timeout, "TXT broken.test": ServFail, "gone.test": NXDomain,
		},
		TTL: time.Minute,
	}
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  Answer
	}{
		{"A.test", dns.TypeA, Answer{Status: Found, Addrs: []netip.Addr{two}}},
		{"a.test.", dns.TypeAAAA, Answer{Status: Found, Addrs: []netip.Addr{netip.IPv6Loopback()}}},
		{"a.test.", dns.TypeTXT, Answer{Status: Found, TXT: []string{"one", "two"}}},
		{"test.", dns.TypeNS, Answer{Status: Found, NS: []string{"ns.test."}}},
		{"2.0.0.127.in-addr.arpa.", dns.TypePTR, Answer{Status: Found, PTR: []string{"a.test."}}},
		{"a.test.", dns.TypeMX, Answer{Status: Found, MX: []MX{{10, "mx.test."}}}},
		{"test.", dns.TypeSOA, Answer{Status: Found, SOA: SOA{Zone: "test.", Serial: 7}}},
		{"alias.test.", dns.TypeCNAME, Answer{Status: Found, CNAME: []string{"a.test."}}},
		{"alias.test.", dns.TypeA, Answer{Status: Found, CNAME: []string{"a.test."}, Addrs: []netip.Addr{two}}},
		{"a.test.", dns.TypeNS, Answer{Status: NoData}},
		{"0.0.127.in-addr.arpa.", dns.TypePTR, Answer{Status: NoData}}, // there is something below it
		{"b.test.", dns.TypeA, Answer{Status: NXDomain}},
		{"gone.test.", dns.TypeA, Answer{Status: NXDomain}},
		{"loop.test.", dns.TypeA, Answer{Status: Malformed}},
		{"slow.test.", dns.TypeA, Answer{Status: Timeout}},
		{"broken.test.", dns.TypeTXT, Answer{Status: ServFail}},
		{"broken.test.", dns.TypeA, Answer{Status: NXDomain}},
		{"a.test.", dns.TypeANY, Answer{Status: Unknown}},
	} {
		got := s.Lookup(context.Background(), tt.name, tt.qtype)
		if got.Status.Definite() != (got.Err == nil) {
			t.Errorf("%s: %s has the error %v", tt.name, got.Status, got.Err)
		}
		tt.want.Name, tt.want.Type = got.Name, tt.qtype
		if got.Status.Definite() {
			tt.want.TTL = time.Minute
		}
		if diff := cmp.Diff(tt.want, got, ignoreServer); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tt.name, dns.Type(tt.qtype), diff)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if a := s.Lookup(ctx, "a.test.", dns.TypeA); a.Status != Unknown || a.Err == nil {
		t.Errorf("cancelled: got %+v", a)
	}
}
