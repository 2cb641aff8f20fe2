package dnsclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// maxDirect is how many addresses of a zone's servers are asked until one
// answers.
const maxDirect = 4

// maxHosts is how many of a zone's servers have their addresses looked up. A
// zone may name hundreds below a victim's, to have those servers flooded.
const maxHosts = 8

// Authoritative asks the servers of zone themselves for the records of name, so
// that neither the resolver nor the cache can be mistaken: to confirm what is
// acted upon. It is meant for few questions. The resolver is asked only for the
// servers and their addresses. Each is asked without recursion, from a socket
// of its own with a port of its own and in mixed case, and an answer counts only
// if the server has authority for it (AA).
func (c *Client) Authoritative(ctx context.Context, zone, name string, qtype uint16) Answer {
	q, err := newQuestion(name, qtype)
	if err != nil {
		return Answer{Name: name, Type: qtype, Err: err}
	}
	q.direct, q.mixed = true, true
	a := Answer{Name: q.name, Type: qtype}
	hosts, status, err := c.serversOf(ctx, zone, q.name)
	if err != nil {
		return a.failed(status, fmt.Errorf("dnsclient: servers of %q: %w", zone, err))
	}
	failure := a.failed(Lame, fmt.Errorf("dnsclient: servers of %q: none of %q has an address", zone, hosts))
	asked := 0
	for _, host := range hosts {
		for _, addr := range c.addresses(ctx, host) {
			if asked == maxDirect || ctx.Err() != nil {
				return failure
			}
			if !c.mayAsk(addr) {
				failure = a.failed(Lame, fmt.Errorf("dnsclient: server %s of %q: %w", addr, zone, ErrInside))
				continue
			}
			a := c.askDirect(ctx, netip.AddrPortFrom(addr, c.AuthoritativePort), q)
			if a.Status.Definite() || a.Status == Unknown {
				return a
			}
			if failure.silent() {
				failure = a
			}
			asked++
		}
	}
	if ctx.Err() != nil {
		return interrupted(ctx, q)
	}
	return failure
}

// serversOf finds the servers of zone, in random order. Where zone is but a
// part of a zone, the SOA of that tells which one.
func (c *Client) serversOf(ctx context.Context, zone, name string) ([]string, Status, error) {
	if !dns.IsSubDomain(dns.Fqdn(zone), name) {
		return nil, Unknown, fmt.Errorf("%q is not below it", name)
	}
	a := c.Lookup(ctx, zone, dns.TypeNS)
	if above := a.SOA.Zone; a.Status == NoData && above != "" && above != a.Name && dns.IsSubDomain(above, a.Name) {
		a = c.Lookup(ctx, above, dns.TypeNS)
	}
	switch {
	case !a.Status.Definite():
		return nil, a.Status, a.Err
	case a.Status != Found:
		return nil, Lame, errors.New("it has none: " + a.Status.String())
	}
	hosts := append([]string(nil), a.NS...)
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	return hosts[:min(len(hosts), maxHosts)], Found, nil
}

// addresses are those of a server, IPv4 first: not every host has IPv6.
func (c *Client) addresses(ctx context.Context, host string) []netip.Addr {
	var addrs []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, addr := range c.Lookup(ctx, host, qtype).Addrs {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// ErrInside is why a zone's own server is not asked: it is on this host or in a
// private network, and not in [Client.OwnServers].
var ErrInside = errors.New("it is on this host or in a private network")

// mayAsk reports whether a zone's own server is asked.
func (c *Client) mayAsk(addr netip.Addr) bool {
	return isOutside(addr) || slices.ContainsFunc(c.OwnServers, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// isOutside reports whether an address is on the Internet.
func isOutside(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !sharedSpace.Contains(addr)
}

// sharedSpace is between customers and their provider (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// askDirect asks one server from a fresh socket.
func (c *Client) askDirect(ctx context.Context, server netip.AddrPort, q *question) Answer {
	u := newUpstream(server, 1, 1, c.Patience, &c.counters)
	if !c.adopt(u) {
		a := Answer{Name: q.name, Type: q.qtype}
		return a.failed(Unknown, fmt.Errorf("dnsclient: %s of %q: %w", dns.Type(q.qtype), q.name, ErrClosed))
	}
	defer func() {
		c.mu.Lock()
		delete(c.direct, u)
		c.mu.Unlock()
		u.close()
	}()
	return u.ask(ctx, q)
}

// adopt has Close close u too, and reports whether it is not too late for that.
func (c *Client) adopt(u *upstream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.direct[u] = true
	return true
}
