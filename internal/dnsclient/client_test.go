package dnsclient

import (
	"testing"

	"github.com/miekg/dns"
)

func TestLookupListed(t *testing.T) {
	c := open(t, &Client{}, serve(t, listed))
	if a := ask(t, c, "2.0.0.127.List.Test"); a.Status != Found || len(a.Addrs) != 1 || a.Addrs[0] != two {
		t.Errorf("got %+v", a)
	}
	if a := askType(t, c, "1.0.0.127.list.test.", dns.TypeTXT); a.Status != NXDomain || a.SOA.Zone != "list.test." {
		t.Errorf("got %+v", a)
	}
}
