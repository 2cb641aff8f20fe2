package dnsclient

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// A Verdict is yes, no, or that nobody could tell, which is the zero value.
type Verdict uint8

const (
	CannotTell Verdict = iota
	No
	Yes
)

// String is the verdict in words.
func (v Verdict) String() string {
	switch v {
	case No:
		return "no"
	case Yes:
		return "yes"
	}
	return "cannot tell"
}

// A Health is what SelfTest found out about one upstream.
type Health struct {
	Upstream  netip.AddrPort
	Answers   Verdict    // it resolves names at all
	Rewrites  Verdict    // it gives addresses for names that do not exist: all lists would list everybody
	Public    Verdict    // others share it, or what it forwards to: most lists refuse it
	Validates Verdict    // it checks signatures (DNSSEC)
	SeenAs    netip.Addr // the address that the servers of zones see; invalid if that is not known
	Texts     []string   // for operators: what was found and what to do, a sentence or two each
}

// SelfTest examines each upstream, one after the other, by up to seven
// questions about names of the public DNS. What cannot be found out, as without a
// network, reads CannotTell.
func (c *Client) SelfTest(ctx context.Context) []Health {
	own := append(hostNetworks(), c.OwnNetworks...)
	found := make([]Health, 0, len(c.upstreams))
	for _, u := range c.upstreams {
		e := examination{upstream: u, Health: Health{Upstream: u.server}}
		if e.resolves(ctx) {
			e.rewrites(ctx)
			e.validates(ctx)
			e.look(ctx)
		}
		e.public(own)
		found = append(found, e.Health)
	}
	return found
}

// An examination is a Health that is being found out.
type examination struct {
	Health
	upstream *upstream
	signed   Answer // about signedZone
}

func (e *examination) say(format string, values ...any) {
	e.Texts = append(e.Texts, fmt.Sprintf(format, values...))
}

// ask asks the upstream past the cache.
func (e *examination) ask(ctx context.Context, name string, qtype uint16) Answer {
	q, err := newQuestion(name, qtype)
	if err != nil {
		return Answer{Name: name, Type: qtype, Err: err}
	}
	return e.upstream.ask(ctx, q)
}

// signedZone has been signed since 2009, and is large enough to stay.
const signedZone = "org."

func (e *examination) resolves(ctx context.Context) bool {
	e.signed = e.ask(ctx, signedZone, dns.TypeSOA)
	switch {
	case e.signed.Status == Found:
		e.Answers = Yes
	case ctx.Err() != nil:
		e.say("%s could not be examined: %v", e.Upstream, ctx.Err())
	default:
		e.Answers = No
		e.say("%s does not resolve names (%s): check that it runs, lets this host ask, and reaches the Internet.", e.Upstream, e.signed.Status)
	}
	return e.Answers == Yes
}

// rewrites asks for addresses of random names below a domain that exists and
// below two that never will (RFC 2606, section 2).
func (e *examination) rewrites(ctx context.Context) {
	e.Rewrites = No
	for _, domain := range []string{"com.", "example.", "invalid."} {
		a := e.ask(ctx, strings.ToLower(rand.Text())+"."+domain, dns.TypeA)
		switch a.Status {
		case NXDomain:
		case Found:
			e.Rewrites = Yes
			e.say("%s answers %v for a name under %s that does not exist: whatever is asked would seem to be listed. Ask a recursive resolver of your own.", e.Upstream, a.Addrs, domain)
			return
		default:
			e.Rewrites = CannotTell
		}
	}
	if e.Rewrites == CannotTell {
		e.say("Whether %s rewrites answers could not be found out.", e.Upstream)
	}
}

// validates looks for the AD bit where signatures are right, and for a refusal
// where they are made wrong on purpose.
func (e *examination) validates(ctx context.Context) {
	wrong := e.ask(ctx, "dnssec-failed.org.", dns.TypeA)
	switch {
	case !e.signed.Authenticated, wrong.Status == Found:
		e.Validates = No
		e.say("%s does not check signatures (DNSSEC): switch that on, so that answers of signed zones cannot be forged.", e.Upstream)
	case wrong.Status == ServFail:
		e.Validates = Yes
	}
}

// look asks services that answer with the address that they are asked from.
func (e *examination) look(ctx context.Context) {
	for _, text := range e.ask(ctx, "o-o.myaddr.l.google.com.", dns.TypeTXT).TXT {
		if addr, err := netip.ParseAddr(text); err == nil { // other texts name the network that it asks for
			e.SeenAs = addr.Unmap()
			return
		}
	}
	if a := e.ask(ctx, "whoami.akamai.net.", dns.TypeA); len(a.Addrs) > 0 {
		e.SeenAs = a.Addrs[0]
	}
}

// public judges by the address of the upstream and by the one that is seen.
func (e *examination) public(own []netip.Prefix) {
	server := e.Upstream.Addr().Unmap()
	if operator, ok := sharedBy(server); ok {
		e.Public = Yes
		e.say("%s is a resolver of %s for everybody: most lists refuse it. Ask a recursive resolver of your own.", e.Upstream, operator)
		return
	}
	if !e.SeenAs.IsValid() {
		if e.Answers == Yes {
			e.say("From which address %s asks could not be found out.", e.Upstream)
		}
		return
	}
	if operator, ok := sharedBy(e.SeenAs); ok {
		e.Public = Yes
		e.say("%s forwards to a resolver of %s for everybody (it asks from %s): most lists refuse that. Have it resolve by itself.", e.Upstream, operator, e.SeenAs)
		return
	}
	if e.SeenAs == server || within(own, e.SeenAs) {
		e.Public = No
		return
	}
	e.say("%s asks from %s, which is not an address of this host's networks. If it is yours, add it to your own networks; if not, the resolver forwards to somebody else's, which lists may refuse.", e.Upstream, e.SeenAs)
}

// hostNetworks are those that this host has addresses in.
func hostNetworks() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then only what the operator says counts
	}
	var networks []netip.Prefix
	for _, addr := range addrs {
		if p, err := netip.ParsePrefix(addr.String()); err == nil {
			networks = append(networks, p.Masked())
		}
	}
	return networks
}

func within(networks []netip.Prefix, addr netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// sharedBy names whose resolver for everybody an address is of, if it is.
func sharedBy(addr netip.Addr) (operator string, ok bool) {
	for _, s := range shared {
		if within(s.networks, addr) {
			return s.operator, true
		}
	}
	return "", false
}

func networks(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// shared lists resolvers for everybody: the addresses that are asked, and of the
// largest also those that they ask from.
var shared = []struct {
	operator string
	networks []netip.Prefix
}{
	{"Google", networks("8.8.4.0/24", "8.8.8.0/24", "2001:4860:4860::/48", "74.125.0.0/16", "172.217.32.0/20", "172.253.0.0/16",
		"173.194.0.0/16", "2404:6800::/32", "2607:f8b0::/32", "2800:3f0::/32", "2a00:1450::/32", "2c0f:fb50::/32")},
	{"Cloudflare", networks("1.0.0.0/24", "1.1.1.0/24", "2606:4700:4700::/48", "108.162.192.0/18", "141.101.64.0/18",
		"162.158.0.0/15", "172.64.0.0/13", "2400:cb00::/32")},
	{"Quad9", networks("9.9.9.0/24", "149.112.112.0/24", "149.112.149.0/24", "2620:fe::/48", "74.63.16.0/20")},
	{"OpenDNS", networks("208.67.216.0/21", "146.112.0.0/16", "2620:119:35::/48", "2620:119:53::/48")},
	{"AdGuard", networks("94.140.14.0/23", "2a10:50c0::/32")},
	{"CleanBrowsing", networks("185.228.168.0/23", "2a0d:2a00::/32")},
	{"Control D", networks("76.76.2.0/24", "76.76.10.0/24", "2606:1a40::/32")},
	{"DNS4EU", networks("86.54.11.0/24")},
	{"DNS.WATCH", networks("84.200.69.80/32", "84.200.70.40/32")},
	{"Comodo", networks("8.20.247.20/32", "8.26.56.26/32")},
	{"Level 3", networks("4.2.2.0/29", "209.244.0.3/32", "209.244.0.4/32")},
	{"Vercara", networks("64.6.64.6/32", "64.6.65.6/32", "156.154.70.0/23", "2610:a1:1018::/48", "2610:a1:1019::/48")},
	{"Yandex", networks("77.88.8.0/24", "2a02:6b8::feed:0/112")},
	{"Hetzner", networks("185.12.64.0/24", "2a01:4ff:ff00::add:0/112")},
	{"OVH", networks("213.186.33.99/32", "2001:41d0:3:163::/64")},
	{"Amazon", networks("169.254.169.253/32", "fd00:ec2::253/128")},
	{"Google Cloud", networks("169.254.169.254/32")},
	{"Microsoft Azure", networks("168.63.129.16/32")},
}
