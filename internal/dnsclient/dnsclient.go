// Package dnsclient asks recursive resolvers, and for a second opinion the
// servers of a zone themselves, and says what became of each question.
//
// Questions to one resolver share a few long-lived UDP sockets: each goes out
// under a random id (RFC 5452), again after 0.8 s and after 1.6 s, then over
// TCP, and then to the next resolver. An answer counts only if it comes from
// the server that was asked, to the port that asked, with the id and exactly
// the question. What a TTL allows is remembered, also that a name does not
// exist (RFC 2308).
//
// Nothing here reads a silence as an answer: see Status. The package does not
// check signatures (DNSSEC); it passes on what the resolver says of them, which
// is worth as much as the way to the resolver.
package dnsclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ErrClosed is why a lookup ends whose client is closed.
var ErrClosed = errors.New("the DNS client is closed")

// A Client asks the resolvers of its configuration. The fields are set before
// Open and not changed after. Its methods may be called from many goroutines.
type Client struct {
	// Upstreams are the resolvers, each ADDRESS:PORT with an IP address. The
	// first that is there is asked; the others when it fails.
	Upstreams []string

	// MixedCase asks in randomly mixed case, which a forger has to guess too. A
	// server that does not give it back is asked over TCP, and so each question
	// takes seconds: leave it off unless the resolver is known.
	MixedCase bool

	Sockets  int           // UDP sockets to each upstream; 2 if zero
	Window   int           // questions in flight on each socket, 1 to 4096; 512 if zero
	Patience time.Duration // until a question is sent again; 0.8 s if zero

	CacheEntries int // answers that are remembered; 100,000 if zero
	CacheBytes   int // that they take, about; 32 MB if zero

	// OwnNetworks are those of which the operator's resolvers ask, where this
	// host's own addresses do not tell: SelfTest compares.
	OwnNetworks []netip.Prefix

	// AuthoritativePort is that of the zones' own servers; 53 if zero.
	AuthoritativePort uint16

	// OwnServers are networks where zones' own servers may be asked though they are
	// on this host or private. Whoever has a zone says where its servers are, and
	// must not have us ask what only we can reach.
	OwnServers []netip.Prefix

	// Now is the time that the cache goes by; time.Now if nil.
	Now func() time.Time

	counters  counters
	cache     *cache
	upstreams []*upstream

	mu     sync.Mutex         // guards the fields below
	direct map[*upstream]bool // servers of zones that are being asked
	closed bool
}

const (
	defaultSockets      = 2
	defaultWindow       = 512
	maxWindow           = 4096 // one in sixteen ids: a random one is free soon
	defaultPatience     = 800 * time.Millisecond
	defaultCacheEntries = 100_000
	defaultCacheBytes   = 32 << 20
)

// Open checks the configuration, all of it. It asks nobody.
func (c *Client) Open() error {
	servers, err := c.check()
	if err != nil {
		return err
	}
	c.Sockets = orDefault(c.Sockets, defaultSockets)
	c.Window = orDefault(c.Window, defaultWindow)
	c.Patience = orDefault(c.Patience, defaultPatience)
	c.AuthoritativePort = orDefault(c.AuthoritativePort, 53)
	if c.Now == nil {
		c.Now = time.Now
	}
	c.cache = newCache(orDefault(c.CacheEntries, defaultCacheEntries), orDefault(c.CacheBytes, defaultCacheBytes))
	for _, server := range servers {
		c.upstreams = append(c.upstreams, newUpstream(server, c.Sockets, c.Window, c.Patience, &c.counters))
	}
	c.direct = map[*upstream]bool{}
	return nil
}

func orDefault[T int | uint16 | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// check joins all mistakes of the configuration.
func (c *Client) check() (servers []netip.AddrPort, err error) {
	var mistakes []error
	if len(c.Upstreams) == 0 {
		mistakes = append(mistakes, errors.New("no resolver is given: name one as 127.0.0.1:53"))
	}
	seen := map[netip.AddrPort]bool{}
	for _, text := range c.Upstreams {
		server, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
			mistakes = append(mistakes, fmt.Errorf("resolver %q: want an IP address and a port, as 127.0.0.1:53 or [::1]:53", text))
		case server.Port() == 0 || server.Addr().IsUnspecified() || server.Addr().IsMulticast():
			mistakes = append(mistakes, fmt.Errorf("resolver %q: nobody can answer there", text))
		case seen[server]:
			mistakes = append(mistakes, fmt.Errorf("resolver %q is given twice", text))
		}
		seen[server] = true
		servers = append(servers, server)
	}
	if c.Sockets < 0 || c.Patience < 0 || c.CacheEntries < 0 || c.CacheBytes < 0 || c.Window < 0 || c.Window > maxWindow {
		mistakes = append(mistakes, fmt.Errorf("sockets, patience and sizes of the cache cannot be negative, and a window is at most %d", maxWindow))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, fmt.Errorf("dnsclient: %w", err)
	}
	return servers, nil
}

// Close ends all lookups with ErrClosed and gives up the sockets.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	open := append([]*upstream(nil), c.upstreams...)
	for u := range c.direct {
		open = append(open, u)
	}
	c.mu.Unlock()
	for _, u := range open {
		u.close()
	}
}

// Lookup finds the records of a name, of type A, AAAA, TXT, NS, PTR, MX, SOA or
// CNAME. An answer may come from the cache; several lookups of the same at the
// same time are one question. It returns at the latest when ctx ends. Without
// an end of ctx a silent resolver takes 6 s, after the wait for its turn.
func (c *Client) Lookup(ctx context.Context, name string, qtype uint16) Answer {
	q, err := newQuestion(name, qtype)
	if err != nil {
		return Answer{Name: name, Type: qtype, Err: err}
	}
	q.mixed = c.MixedCase
	for {
		a, f, leads := c.cache.begin(q.key(), c.Now())
		if f == nil {
			c.counters.cached.Add(1)
			return a
		}
		if leads {
			a := c.resolve(ctx, q)
			c.cache.end(q.key(), f, a, c.Now(), ctx.Err() != nil)
			return a
		}
		select {
		case <-f.done:
			if !f.abandoned {
				return f.answer
			}
		case <-ctx.Done():
			return interrupted(ctx, q)
		}
	}
}

// LookupFresh is Lookup past the cache: it asks in any case, and the cache stays
// as it is. It is for what matters only now, or is asked too rarely to be
// remembered.
func (c *Client) LookupFresh(ctx context.Context, name string, qtype uint16) Answer {
	q, err := newQuestion(name, qtype)
	if err != nil {
		return Answer{Name: name, Type: qtype, Err: err}
	}
	q.mixed = c.MixedCase
	return c.resolve(ctx, q)
}

// interrupted is the answer to a question whose context ended.
func interrupted(ctx context.Context, q *question) Answer {
	a := Answer{Name: q.name, Type: q.qtype}
	return a.failed(statusOf(ctx.Err()), fmt.Errorf("dnsclient: %s of %q: %w", dns.Type(q.qtype), q.name, ctx.Err()))
}

// resolve asks one upstream after the other until there is an answer. Where
// there is none, what one of them said counts for more than the silence of
// another.
func (c *Client) resolve(ctx context.Context, q *question) Answer {
	var failure Answer
	for _, u := range c.order() {
		a := u.ask(ctx, q)
		if a.Status.Definite() {
			return a
		}
		if failure.silent() {
			failure = a
		}
		if ctx.Err() != nil || a.Status == Unknown {
			break
		}
	}
	return failure
}

// silent reports whether no server said anything yet.
func (a *Answer) silent() bool {
	return !a.Server.IsValid() || a.Status == Timeout || a.Status == Unreachable
}

// order is the upstreams, those that rest last.
func (c *Client) order() []*upstream {
	if len(c.upstreams) == 1 {
		return c.upstreams
	}
	order := make([]*upstream, 0, len(c.upstreams))
	var resting []*upstream
	for _, u := range c.upstreams {
		if u.resting() {
			resting = append(resting, u)
		} else {
			order = append(order, u)
		}
	}
	return append(order, resting...)
}

// Stats counts what a client did since it was opened.
type Stats struct {
	Cached     uint64 // lookups that the cache answered
	Sent       uint64 // questions over UDP, each counted once
	Resent     uint64 // times that one was sent again
	Streams    uint64 // questions over TCP
	Answered   uint64 // answers to these, of whatever status
	Late       uint64 // answers that nobody waited for any more, as the second to a question that was sent twice
	Mismatched uint64 // datagrams with the id of a question that do not answer it, or that are no answers: forged or broken
}

// counters are the Stats of a client that works.
type counters struct {
	cached, sent, resent, streams, answered, late, mismatched atomic.Uint64
}

// Stats is what the client did so far.
func (c *Client) Stats() Stats {
	k := &c.counters
	return Stats{
		Cached: k.cached.Load(), Sent: k.sent.Load(), Resent: k.resent.Load(), Streams: k.streams.Load(),
		Answered: k.answered.Load(), Late: k.late.Load(), Mismatched: k.mismatched.Load(),
	}
}
