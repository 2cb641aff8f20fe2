package app

import (
	"context"
	"net/netip"
	"testing"

	"github.com/vedetta-watch/vedetta/internal/dnsclient"
)

// FuzzSPFAddresses reads SPF records: whatever one says, few addresses come of
// it, and each can be watched.
func FuzzSPFAddresses(f *testing.F) {
	for _, text := range []string{
		"v=spf1 ip4:203.0.113.9/24 ip6:2001:db8::1 a mx -all", "v=spf1 ip4:0.0.0.0/0 ip6:::/0", "v=spf1 a:a.test mx:a.test a:a.test", "V=SPF1 +ip4:1.2.3.4 ?a:%{i}/24", "v=spf1\tip4:::ffff:1.2.3.4",
		"v=spf1 include:a.test include:_spf.a.test. redirect=A.test", "v=spf1 include: redirect= include:.a.test",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := dnsclient.Static{
			TXT: map[string][]string{"a.test": {text}, "_spf.a.test": {text}}, A: map[string][]netip.Addr{"a.test": {netip.MustParseAddr("203.0.113.1")}},
			MX: map[string][]dnsclient.MX{"a.test": {{Host: "a.test."}}},
		}
		found := spfAddresses(context.Background(), r, "a.test", []string{"a.test"})
		if len(found) > maxSPF {
			t.Errorf("%d addresses", len(found))
		}
		for _, s := range found {
			if !s.subject.IsSingle() || s.subject.Kind() == 0 {
				t.Errorf("found %s", s.subject)
			}
		}
	})
}

// FuzzAddressesIn reads the replies of other servers.
func FuzzAddressesIn(f *testing.F) {
	f.Add("554 Client host [203.0.113.9] blocked; see http://x/?ip=2001:db8::1")
	f.Add("::::::1.1.1.1.1")
	f.Add("[IPv6:2001:db8::9]:25 blocked:203.0.113.9:25")
	f.Fuzz(func(t *testing.T, text string) {
		addrs := addressesIn(text)
		if len(addrs) > 4 {
			t.Errorf("%d addresses", len(addrs))
		}
		for _, a := range addrs {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %v", a)
			}
		}
	})
}
