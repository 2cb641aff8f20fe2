package app

import (
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/dnsclient"
)

// Bounds of what the SPF record of a domain adds, with those that it includes.
const (
	maxSPF        = 256 // addresses
	maxSPFHosts   = 20  // host names that are looked up
	maxSPFRecords = 11  // records: ten look-ups (RFC 7208, section 4.6.4), and its own
)

// A spfResolver looks records up.
type spfResolver interface {
	Lookup(ctx context.Context, name string, qtype uint16) dnsclient.Answer
}

// spfAddresses are the addresses that a domain's SPF record allows to send for
// it (RFC 7208, section 5): by ip4, ip6, a and mx, for +, up to a /24. What it
// includes or redirects to is followed within our domains; elsewhere it is
// mostly somebody else's, and left out. What cannot be looked up now is found
// later.
func spfAddresses(ctx context.Context, r spfResolver, domain string, ours []string) (found []foundSubject) {
	s := spfReader{resolver: r, ours: ours, seen: map[string]bool{}}
	s.read(ctx, strings.ToLower(strings.TrimSuffix(domain, ".")))
	for _, addr := range s.addrs[:min(len(s.addrs), maxSPF)] {
		found = append(found, foundSubject{dnsbl.Address(addr), bySPF + domain})
	}
	return found
}

// A spfReader reads the SPF record of a domain, and what it includes.
type spfReader struct {
	resolver spfResolver
	ours     []string // our domains

	seen  map[string]bool // names whose records were read
	hosts int             // names that were looked up
	addrs []netip.Addr
}

// read reads the record of a name, once.
func (s *spfReader) read(ctx context.Context, name string) {
	if s.seen[name] || len(s.seen) >= maxSPFRecords {
		return
	}
	first := len(s.seen) == 0
	s.seen[name] = true
	answer := s.resolver.Lookup(ctx, name, dns.TypeTXT)
	if n := len(answer.CNAME); n > 0 && !first && !s.isOurs(answer.CNAME[n-1]) {
		return // an alias of ours for what is somebody else's
	}
	for _, text := range answer.TXT {
		if version, terms, _ := strings.Cut(text, " "); strings.EqualFold(version, "v=spf1") {
			s.terms(ctx, name, strings.ToLower(terms))
		}
	}
}

// terms reads the terms of the record of a name.
func (s *spfReader) terms(ctx context.Context, name, terms string) {
	redirect, all := "", false
	for term := range strings.FieldsSeq(terms) {
		mechanism, value, _ := strings.Cut(strings.TrimPrefix(term, "+"), ":")
		switch mechanism {
		case "ip4", "ip6":
			s.addrs = append(s.addrs, spfNetwork(value)...)
		case "a", "mx":
			if s.hosts++; s.hosts <= maxSPFHosts && !strings.ContainsAny(value, "%/") {
				s.addrs = append(s.addrs, spfHost(ctx, s.resolver, mechanism, value, name)...)
			}
		case "include":
			s.follow(ctx, value)
		}
		all = all || strings.TrimLeft(term, "+-~?") == "all"
		if to, ok := strings.CutPrefix(term, "redirect="); ok {
			redirect = to
		}
		if len(s.addrs) >= maxSPF {
			return
		}
	}
	if !all { // else it is ignored (RFC 7208, section 6.1)
		s.follow(ctx, redirect)
	}
}

// follow reads what a record includes or redirects to, if it is ours.
func (s *spfReader) follow(ctx context.Context, name string) {
	if s.isOurs(name) {
		s.read(ctx, strings.TrimSuffix(name, "."))
	}
}

// isOurs reports whether a name, in lower case, is one of our domains, or below
// one. It may have underscores, and no macros (RFC 7208, section 7).
func (s *spfReader) isOurs(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" {
		return false
	}
	for _, domain := range s.ours {
		domain = strings.ToLower(strings.TrimSuffix(domain, "."))
		if name == domain || strings.HasSuffix(name, "."+domain) {
			return true
		}
	}
	return false
}

// spfNetwork lists the addresses of a small IPv4 network, or of one IPv6
// address: larger ones say what may send, not what does.
func spfNetwork(text string) (addrs []netip.Addr) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return []netip.Addr{addr}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4() && p.Bits() < 24 || !p.Addr().Is4() && p.Bits() < 128 {
		return nil
	}
	return addressesOf(p)
}

// spfHost looks up the addresses of a host, or of the mail exchangers of a
// domain; value is empty for the domain itself.
func spfHost(ctx context.Context, r spfResolver, mechanism, value, domain string) (addrs []netip.Addr) {
	if value == "" {
		value = domain
	}
	hosts := []string{value}
	if mechanism == "mx" {
		hosts = nil
		for _, mx := range r.Lookup(ctx, value, dns.TypeMX).MX {
			if hosts = append(hosts, mx.Host); len(hosts) == 10 { // RFC 7208, section 4.6.4
				break
			}
		}
	}
	for _, host := range hosts {
		addrs = append(addrs, r.Lookup(ctx, host, dns.TypeA).Addrs...)
		addrs = append(addrs, r.Lookup(ctx, host, dns.TypeAAAA).Addrs...)
	}
	return addrs
}
