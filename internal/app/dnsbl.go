package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/dnsclient"
)

// A listResolver asks for the block lists what dnsclient can ask. What went
// wrong is left out of its answers: the names in it hold the keys of lists.
type listResolver struct{ client *dnsclient.Client }

// confirmWithin bounds a question to the servers of a zone, all that are tried
// together.
const confirmWithin = 15 * time.Second

// Lookup asks the recursive resolver.
func (r listResolver) Lookup(ctx context.Context, name string, t dnsbl.Type) dnsbl.Answer {
	return listAnswer(r.client.LookupFresh(ctx, name, uint16(t)))
}

// Confirm asks the servers of zone themselves.
func (r listResolver) Confirm(ctx context.Context, zone, name string, t dnsbl.Type) dnsbl.Answer {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	return listAnswer(r.client.Authoritative(ctx, zone, name, uint16(t)))
}

// listStatuses says what a status of dnsclient is to the block lists. A
// question that was given up got no answer in time.
var listStatuses = [...]dnsbl.Status{
	dnsclient.Unknown: dnsbl.Timeout, dnsclient.Found: dnsbl.Found, dnsclient.NoData: dnsbl.NoData, dnsclient.NXDomain: dnsbl.NXDomain,
	dnsclient.ServFail: dnsbl.ServFail, dnsclient.Refused: dnsbl.Refused, dnsclient.OtherRcode: dnsbl.Other, dnsclient.Timeout: dnsbl.Timeout,
	dnsclient.Malformed: dnsbl.Malformed, dnsclient.Unreachable: dnsbl.Unreachable, dnsclient.Lame: dnsbl.Unreachable,
}

// listAnswer is an answer of dnsclient as the block lists read it.
func listAnswer(a dnsclient.Answer) dnsbl.Answer {
	b := dnsbl.Answer{Addrs: a.Addrs, Texts: a.TXT, Names: a.CNAME, TTL: a.TTL}
	if int(a.Status) < len(listStatuses) {
		b.Status = listStatuses[a.Status]
	}
	if errors.Is(a.Err, dnsclient.ErrInside) {
		b.Status = dnsbl.Closed
	}
	if a.Server.IsValid() {
		b.Server = a.Server.String()
	}
	switch dnsbl.Type(a.Type) {
	case dnsbl.TypeNS:
		b.Names = a.NS
	case dnsbl.TypeSOA:
		if b.Names, b.Serial = nil, a.SOA.Serial; a.Status == dnsclient.Found {
			b.Names = []string{a.SOA.Primary}
		}
	}
	return b
}

// DNSBLOptions says how block lists are asked once.
type DNSBLOptions struct {
	Config   config.Config
	Resolver string       // HOST:PORT, whose port may be missing; empty: those of the configuration, else the system's
	Note     func(string) // told what is wrong with the resolver or the catalogue; may be nil
}

// DNSBLSubjects reads what block lists are to be asked about: addresses,
// domains and e-mail addresses, each once. Its error names all that are none.
func DNSBLSubjects(texts []string) ([]dnsbl.Subject, error) {
	var subjects []dnsbl.Subject
	var errs []error
	seen := map[dnsbl.Subject]bool{}
	for _, text := range texts {
		s, err := dnsbl.ParseSubject(text)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !s.IsSingle():
			errs = append(errs, fmt.Errorf("%q is a network: name its addresses one by one", text))
		case !s.Public():
			errs = append(errs, fmt.Errorf("%q is a private address, which no list knows: name the one that the Internet sees", text))
		}
		if !seen[s] {
			subjects = append(subjects, s)
		}
		seen[s] = true
	}
	return subjects, errors.Join(errs...)
}

// DNSBLCheck asks every list that is open to us about the subjects, once.
func DNSBLCheck(ctx context.Context, o DNSBLOptions, subjects []dnsbl.Subject) ([]dnsbl.Result, error) {
	c, done, err := o.checker(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	results := c.Check(ctx, subjects...)
	return results, ctx.Err()
}

// DNSBLHealth tests every list that is open to us, and says what the others
// need.
func DNSBLHealth(ctx context.Context, o DNSBLOptions) ([]dnsbl.Health, error) {
	c, done, err := o.checker(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	health := c.Health(ctx)
	return health, ctx.Err()
}

// checker makes what asks once. Done gives its sockets up.
func (o DNSBLOptions) checker(ctx context.Context) (c *dnsbl.Checker, done func(), err error) {
	catalogue, warnings, err := listCatalogue(o.Config.DNSBL)
	if err != nil {
		return nil, nil, err
	}
	client, err := o.client(ctx)
	if err != nil {
		return nil, nil, err
	}
	health := client.SelfTest(ctx)
	for _, h := range health {
		if h.Answers != dnsclient.Yes || distrust([]dnsclient.Health{h}) != "" {
			warnings = append(warnings, h.Texts...)
		}
	}
	for _, text := range warnings {
		if o.Note != nil {
			o.Note(text)
		}
	}
	return &dnsbl.Checker{
		Resolver: listResolver{client}, Catalogue: catalogue, Keys: listKeys(o.Config.DNSBL), Distrust: distrust(health), Parallel: 256,
	}, client.Close, nil
}

// client opens the resolver that is asked.
func (o DNSBLOptions) client(ctx context.Context) (*dnsclient.Client, error) {
	c := newDNSClient(o.Config.DNSBL)
	if o.Resolver != "" {
		upstream, err := resolverAddress(ctx, o.Resolver)
		if err != nil {
			return nil, err
		}
		c.Upstreams = []string{upstream}
	}
	return c, openDNSClient(c)
}

// newDNSClient takes over the configuration.
func newDNSClient(c config.DNSBL) *dnsclient.Client {
	return &dnsclient.Client{Upstreams: c.Resolvers, OwnNetworks: networks(c.OwnNetworks), OwnServers: networks(c.OwnServers)}
}

// networks reads networks of a configuration that was checked.
func networks(texts []string) (all []netip.Prefix) {
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

// openDNSClient opens c, with the system's resolvers if it has none.
func openDNSClient(c *dnsclient.Client) error {
	if len(c.Upstreams) == 0 {
		servers, err := dnsclient.SystemResolvers(dnsclient.SystemFile)
		if err != nil {
			return fmt.Errorf("%w: name one in dnsbl.resolvers, or with --resolver", err)
		}
		c.Upstreams = servers
	}
	return c.Open()
}

// resolverAddress finds the address of HOST:PORT, whose port may be missing.
func resolverAddress(ctx context.Context, text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), "53"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(addr.String(), port), nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("resolver %q: write ADDRESS:PORT, as 127.0.0.1:53: %w", text, err)
	}
	return net.JoinHostPort(addrs[0].Unmap().String(), port), nil
}

// distrust says why nothing that the resolvers say about lists can be
// believed: one that makes names up has everybody listed, and one that others
// share is refused by most lists, by some without a word. Empty if nothing is
// known against them.
func distrust(health []dnsclient.Health) string {
	for _, h := range health {
		switch {
		case h.Rewrites == dnsclient.Yes:
			return fmt.Sprintf("the resolver %s answers for names that do not exist", h.Upstream)
		case h.Public == dnsclient.Yes:
			return fmt.Sprintf("the resolver %s is one for everybody, or asks one", h.Upstream)
		}
	}
	return ""
}

// listCatalogue is the catalogue that is shipped, with the operator's own in
// it.
func listCatalogue(c config.DNSBL) (catalogue *dnsbl.Catalogue, warnings []string, err error) {
	catalogue = dnsbl.Shipped()
	if c.Catalogue != "" {
		data, err := os.ReadFile(c.Catalogue)
		if err != nil {
			return nil, nil, fmt.Errorf("dnsbl.catalogue: %w", err)
		}
		own, err := dnsbl.ParseCatalogue(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.Catalogue, err)
		}
		if catalogue, warnings, err = catalogue.Merge(own); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.Catalogue, err)
		}
	}
	if err := listKeys(c).Check(catalogue); err != nil {
		return nil, nil, fmt.Errorf("dnsbl.keys: %w", err)
	}
	doubts, err := catalogue.CheckClients(c.Risk.Clients, listKeys(c))
	if err != nil {
		return nil, nil, fmt.Errorf("dnsbl.risk.clients: %w", err)
	}
	return catalogue, append(warnings, doubts...), nil
}

// listKeys are the keys of the lists.
func listKeys(c config.DNSBL) dnsbl.Keys {
	keys := dnsbl.Keys{}
	for operator, key := range c.Keys {
		keys[operator] = dnsbl.Key(key)
	}
	return keys
}
