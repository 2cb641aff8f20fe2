package app

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/hub"
)

// interfaceAddresses are the public addresses of this host, in order.
func interfaceAddresses() (found []netip.Addr) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then only what is configured counts
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && seenOutside(p.Addr().Unmap()) {
			found = append(found, p.Addr().Unmap())
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found)
}

// seenOutside reports whether an address can be one that others see us by.
func seenOutside(addr netip.Addr) bool {
	return addr.IsValid() && !addr.IsLoopback() && dnsbl.Address(addr).Public()
}

// lookAtInterfaces has the hub told which addresses this agent has now, unless
// they are not to be watched.
func (s *service) lookAtInterfaces() {
	if !s.config.DNSBL.Interfaces {
		return
	}
	addrs := interfaceAddresses()
	if had := s.agent.addresses.Swap(&addrs); had != nil && slices.Equal(*had, addrs) {
		return
	}
	if len(addrs) > hub.MaxAddresses {
		s.log.Warn("the hub is told of the first of this host's addresses: name the others in its dnsbl.addresses", "addresses", len(addrs), "told", hub.MaxAddresses)
	}
}

// ownAddresses are those that this agent has.
func (a *agent) ownAddresses() []netip.Addr {
	if addrs := a.addresses.Load(); addrs != nil {
		return *addrs
	}
	return nil
}

// addOfAgents watches the addresses that agents have. An agent may not speak of
// more in one run of ours than it may at once, however often they change.
func (l *listWatch) addOfAgents(now time.Time) {
	if l.p.fleet == nil || !l.config.Interfaces {
		return
	}
	for _, p := range l.p.fleet.server.Presences() {
		if _, err := l.p.fleet.roster.Member(p.Agent); err == nil { // not revoked
			l.addOfAgent(now, p.Agent, p.Addresses)
		}
	}
}

func (l *listWatch) addOfAgent(now time.Time, agent string, addrs []netip.Addr) {
	known := l.ofAgents[agent]
	for _, addr := range addrs {
		if known[addr] || len(known) >= hub.MaxAddresses || !seenOutside(addr) {
			continue
		}
		if known == nil {
			known = map[netip.Addr]bool{}
			l.ofAgents[agent] = known
		}
		known[addr] = true
		l.add(now, dnsbl.Address(addr), "interface of "+agent)
	}
}
