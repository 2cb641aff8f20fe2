package hub

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// many are so many different addresses, each as long as text as it can be.
func many(n int) (addrs []netip.Addr) {
	for i := range n {
		addrs = append(addrs, netip.AddrFrom16([16]byte{0x20, 0x01, 0x1d, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11 + byte(i>>8), byte(i)}))
	}
	return addrs
}

// An agent tells of its addresses with each request, so that the hub has those
// of now; one of a release that does not has none.
func TestAddressesOfAnAgent(t *testing.T) {
	w := newWorld(t)
	said := func() []netip.Addr {
		for _, p := range w.server.Presences() {
			if p.Agent == "mx1" {
				return p.Addresses
			}
		}
		t.Error("the agent was not heard")
		return nil
	}
	c := w.agent("mx1", "shop.test")
	for _, step := range []struct{ tell, want []netip.Addr }{
		{nil, nil},
		{[]netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")}, []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")}},
		{[]netip.Addr{netip.MustParseAddr("203.0.113.10")}, []netip.Addr{netip.MustParseAddr("203.0.113.10")}},
		{many(1000), many(MaxAddresses)},
		{nil, nil},
	} {
		c.Addresses = func() []netip.Addr { return step.tell }
		if _, _, err := c.Send(context.Background(), Mark{}, nil); err != nil {
			t.Fatal(err)
		}
		if got := said(); !slices.Equal(got, step.want) {
			t.Errorf("the hub knows %v, want %v", got, step.want)
		}
	}
	c.Addresses = nil
	if _, _, err := c.Send(context.Background(), Mark{}, nil); err != nil || said() != nil {
		t.Errorf("of an agent of the release before: %v, %v", said(), err)
	}
}

func TestReadAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"203.0.113.9":             "203.0.113.9",
		"203.0.113.9,203.0.113.9": "203.0.113.9",
		"::ffff:203.0.113.9, 203.0.113.10,fe80::1%eth0,,x,1.2.3.4/8,2001:db8::9": "203.0.113.9,2001:db8::9",
	} {
		if got := addressText(readAddresses(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := readAddresses(strings.Repeat("203.0.113.9,", 100_000) + "203.0.113.10"); len(got) != 1 {
		t.Errorf("%d addresses of a long text", len(got))
	}
	if got := addressText(many(MaxAddresses)); len(got) > maxAddressText {
		t.Errorf("the longest text has %d bytes, more than the bound", len(got))
	}
}

// FuzzReadAddresses reads what a server that was taken over says of its
// addresses.
func FuzzReadAddresses(f *testing.F) {
	f.Add("203.0.113.9,2001:db8::9")
	f.Add("::ffff:203.0.113.9,fe80::1%eth0")
	f.Fuzz(func(t *testing.T, text string) {
		addrs := readAddresses(text)
		if len(addrs) > MaxAddresses {
			t.Errorf("%d addresses", len(addrs))
		}
		for _, a := range addrs {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %v", a)
			}
		}
		if again := readAddresses(addressText(addrs)); !slices.Equal(addrs, again) {
			t.Errorf("%v comes back as %v", addrs, again)
		}
	})
}
