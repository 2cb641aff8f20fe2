package hub

import (
	"net/netip"
	"slices"
	"strings"
)

// MaxAddresses is how many addresses of its own an agent may tell of.
const MaxAddresses = 64

// maxAddressText is as long as so many can be: an IPv6 address has up to 39
// characters.
const maxAddressText = MaxAddresses * 40

// addressText writes addresses as an agent tells of them: with commas.
func addressText(addrs []netip.Addr) string {
	texts := make([]string, min(len(addrs), MaxAddresses))
	for i := range texts {
		texts[i] = addrs[i].String()
	}
	return strings.Join(texts, ",")
}

// readAddresses reads what addressText wrote. What is no address is left out,
// and so is what is beyond the bound.
func readAddresses(text string) (addrs []netip.Addr) {
	for word := range strings.SplitSeq(text[:min(len(text), maxAddressText)], ",") {
		addr, err := netip.ParseAddr(word)
		if err != nil || addr.Zone() != "" {
			continue
		}
		if addr = addr.Unmap(); len(addrs) < MaxAddresses && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
