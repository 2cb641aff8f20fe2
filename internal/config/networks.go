package config

import (
	"fmt"
	"net/netip"
)

// MaxWatched is how many addresses and domains can be watched on block lists:
// what a dnsbl.Watch takes.
const MaxWatched = 65_536

// Networks are the configured outgoing addresses: each a network, of one
// address, of an IPv4 network's, or an IPv6 /64. What Validate would refuse is
// left out.
func (d DNSBL) Networks() (networks []netip.Prefix) {
	for _, text := range d.Addresses {
		if n, err := outgoing(text); err == nil {
			networks = append(networks, n)
		}
	}
	return networks
}

// outgoing reads one of the configured outgoing addresses. The error says what
// to write.
func outgoing(text string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(text)
	if addr, notOne := netip.ParseAddr(text); notOne == nil && addr.Zone() == "" {
		n, err = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	addr := n.Addr()
	switch {
	case err != nil || addr.Is4In6():
		return n, fmt.Errorf("%q is neither an address nor a network: write 192.0.2.1, 2001:db8::1, 192.0.2.0/24 or 2001:db8::/64", text)
	case n != n.Masked():
		return n, fmt.Errorf("%q has bits behind its prefix: write %s for the network, or the address alone", text, n.Masked())
	case addr.Is4() && n.Bits() < 22:
		return n, fmt.Errorf("%q has more than 1,024 addresses: write those of its networks that send mail, each a /22 at most", text)
	case addr.Is6() && n.Bits() != 64 && n.Bits() != 128:
		return n, fmt.Errorf("%q is no /64: lists know IPv6 by the /64, so write each of those that send mail", text)
	case addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast():
		return n, fmt.Errorf("%q is private, and no list knows it: write what the Internet sees", text)
	}
	return n, nil
}

// addressesOf is how many addresses of a network are watched by its being
// configured: all of an IPv4 network, and one for an IPv6 /64.
func addressesOf(n netip.Prefix) int {
	if n.Addr().Is6() {
		return 1
	}
	return 1 << (32 - n.Bits())
}
