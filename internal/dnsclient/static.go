package dnsclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A Static is a resolver that knows only what it holds: a small DNS for tests.
// Names are lower case; their final dot may be missing. A name that is in none
// of the maps, and has none below it, does not exist.
type Static struct {
	A     map[string][]netip.Addr
	AAAA  map[string][]netip.Addr
	TXT   map[string][]string // one text for each record
	NS    map[string][]string
	PTR   map[string][]string
	MX    map[string][]MX
	CNAME map[string]string
	SOA   map[string]SOA

	// Status is what becomes of all questions about a name, or with a type
	// before it ("TXT example.org") of those of that type, whatever the maps say.
	Status map[string]Status

	TTL time.Duration // of all answers
}

// errStatic is why an answer is missing that Static.Status says is missing.
var errStatic = errors.New("it is made to fail")

// Lookup answers as Client.Lookup does.
func (s Static) Lookup(ctx context.Context, name string, qtype uint16) Answer {
	q, err := newQuestion(name, qtype)
	if err != nil {
		return Answer{Name: name, Type: qtype, Err: err}
	}
	if ctx.Err() != nil {
		return interrupted(ctx, q)
	}
	a := Answer{Name: q.name, Type: qtype, TTL: s.TTL}
	owner := q.name
	for {
		if status, ok := s.made(owner, qtype); ok && status.Definite() {
			a.Status = status
			return a
		} else if ok {
			return a.failed(status, fmt.Errorf("dnsclient: %s of %q: %w", dns.Type(qtype), owner, errStatic))
		}
		target, ok := find(s.CNAME, owner)
		if !ok || qtype == dns.TypeCNAME {
			break
		}
		if len(a.CNAME) == maxAliases {
			return a.failed(Malformed, fmt.Errorf("dnsclient: %q: more than %d aliases", q.name, maxAliases))
		}
		owner = canonical(dns.Fqdn(target))
		a.CNAME = append(a.CNAME, owner)
	}
	return s.fill(a, owner)
}

// made is the status that was set for a name and type.
func (s Static) made(owner string, qtype uint16) (Status, bool) {
	if status, ok := find(s.Status, dns.Type(qtype).String()+" "+owner); ok {
		return status, true
	}
	return find(s.Status, owner)
}

// fill puts the records of owner into a.
func (s Static) fill(a Answer, owner string) Answer {
	ok := false
	switch a.Type {
	case dns.TypeA:
		a.Addrs, ok = find(s.A, owner)
	case dns.TypeAAAA:
		a.Addrs, ok = find(s.AAAA, owner)
	case dns.TypeTXT:
		a.TXT, ok = find(s.TXT, owner)
	case dns.TypeNS:
		a.NS, ok = find(s.NS, owner)
	case dns.TypePTR:
		a.PTR, ok = find(s.PTR, owner)
	case dns.TypeMX:
		a.MX, ok = find(s.MX, owner)
	case dns.TypeSOA:
		a.SOA, ok = find(s.SOA, owner)
	case dns.TypeCNAME:
		var target string
		if target, ok = find(s.CNAME, owner); ok {
			a.CNAME = []string{canonical(dns.Fqdn(target))}
		}
	}
	switch {
	case ok:
		a.Status = Found
	case s.exists(owner):
		a.Status = NoData
	default:
		a.Status = NXDomain
	}
	return a
}

// exists reports whether there is anything at a name or below it (RFC 8020).
func (s Static) exists(name string) bool {
	return has(s.A, name) || has(s.AAAA, name) || has(s.TXT, name) || has(s.NS, name) ||
		has(s.PTR, name) || has(s.MX, name) || has(s.CNAME, name) || has(s.SOA, name)
}

func find[V any](m map[string]V, name string) (V, bool) {
	v, ok := m[name]
	if !ok {
		v, ok = m[strings.TrimSuffix(name, ".")]
	}
	return v, ok
}

func has[V any](m map[string]V, name string) bool {
	for key := range m {
		if dns.IsSubDomain(name, dns.Fqdn(key)) {
			return true
		}
	}
	return false
}
