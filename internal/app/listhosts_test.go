package app

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/mailq"
)

// TestAddressesOfAgents has the hub watch the public addresses that agents say
// they have, also those that come later; none of one that is revoked.
func TestAddressesOfAgents(t *testing.T) {
	h := newListeningHub(t)
	a, f := h.enrolled(t)
	a.client.Addresses = a.ownAddresses
	l := newTestListWatch()
	l.p.fleet, l.config.Interfaces = h.fleet, true
	tell := func(texts ...string) map[string]string {
		t.Helper()
		var addrs []netip.Addr
		for _, text := range texts {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		a.addresses.Store(&addrs)
		known := true
		if _, err := a.sendOnce(t.Context(), f, &known); err != nil {
			t.Fatal(err)
		}
		l.addOfAgents(time.Now())
		return shown(l.sources)
	}
	first := map[string]string{"203.0.113.9": "interface of mx1", "2001:db8::9": "interface of mx1"}
	if diff := cmp.Diff(first, tell("203.0.113.9", "10.0.0.1", "127.0.0.2", "100.64.0.1", "fe80::1", "2001:db8::9")); diff != "" {
		t.Errorf("at first (-want +got):\n%s", diff)
	}
	first["203.0.113.10"] = "interface of mx1"
	if diff := cmp.Diff(first, tell("203.0.113.10")); diff != "" {
		t.Errorf("once it has another (-want +got):\n%s", diff)
	}
	if !l.isOurs(subject("203.0.113.10")) {
		t.Error("an agent's address is not treated as ours")
	}
	l.config.Interfaces = false
	if got := tell("203.0.113.11"); len(got) != 3 {
		t.Errorf("watched without dnsbl.interfaces: %v", got)
	}
	l.config.Interfaces = true
	h.roster.members = nil
	if l.addOfAgents(time.Now()); len(l.sources) != 3 {
		t.Errorf("watched of an agent that is revoked: %v", l.sources)
	}
}

// An agent that was taken over has other addresses each minute, and few are
// watched; nor do its events make more of them than a log may.
func TestTooManyAddressesOfAnAgent(t *testing.T) {
	l, now := newTestListWatch(), time.Now()
	for i := range 1000 {
		l.addOfAgent(now, "evil", []netip.Addr{netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})})
	}
	if len(l.sources) != hub.MaxAddresses {
		t.Errorf("%d are watched, want %d", len(l.sources), hub.MaxAddresses)
	}
	l.addOfAgent(now, "mx2", []netip.Addr{netip.MustParseAddr("203.0.113.9")})
	if l.sources[subject("203.0.113.9")] != "interface of mx2" {
		t.Error("another agent's is not watched")
	}
}

// What an agent's log says is of the agent, whatever the log calls its host.
func TestDepartureFromAnAgent(t *testing.T) {
	p, _ := judging(t)
	l, now := newTestListWatch(), time.Now()
	p.lists = l
	ev := submitted("alice@shop.test", now)
	ev.Kind, ev.Counts, ev.Host, ev.From = mailq.Delivered, false, "another.test", netip.MustParseAddr("203.0.113.9")
	p.deliver(hub.Delivery{Agent: "mx1", Received: now, Batch: hub.Batch{Mark: hub.Mark{Epoch: 1, Seq: 1}, Events: []mailq.Event{ev}}})
	l.active(now)
	if diff := cmp.Diff(map[string]string{"203.0.113.9": "log of mx1"}, shown(l.sources)); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
}

func TestInterfaceAddresses(t *testing.T) {
	for _, addr := range interfaceAddresses() {
		if !seenOutside(addr) || addr.Is4In6() {
			t.Errorf("%s of this host", addr)
		}
	}
	for text, want := range map[string]bool{"203.0.113.9": true, "2001:db8::9": true, "127.0.0.1": false, "::1": false, "10.1.2.3": false, "100.64.1.1": false, "fe80::1": false, "fd00::1": false, "0.0.0.0": false} {
		if got := seenOutside(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
	if seenOutside(netip.Addr{}) {
		t.Error("no address is seen outside")
	}
}
