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

// rest is for how long a server that is away is asked last.
const rest = 10 * time.Second

// maxStreams is how many TCP connections to one server there are at a time.
const maxStreams = 16

// An upstream is a server that is asked, with the sockets to it.
type upstream struct {
	server   netip.AddrPort
	patience time.Duration
	window   int32 // calls on one socket
	counters *counters
	places   chan struct{} // one for each call that may be in flight
	streams  chan struct{} // one for each TCP connection
	calls    sync.Pool     // of *call

	started   time.Time
	heard     atomic.Int64 // when the last answer came, in nanoseconds since started
	restUntil atomic.Int64 // until when it is asked last, likewise; 0 if it is well

	mu      sync.Mutex                   // guards the fields below; no network is waited for under it
	sockets []*socket                    // that take calls; nil where none was needed yet
	open    map[*socket]bool             // these, and those that are retired and not yet closed
	cancels map[*context.CancelFunc]bool // of the TCP connections
	closed  bool
	readers sync.WaitGroup // the goroutines that read sockets
}

func newUpstream(server netip.AddrPort, sockets, window int, patience time.Duration, k *counters) *upstream {
	return &upstream{
		server: server, patience: patience, window: int32(window), counters: k,
		places: make(chan struct{}, sockets*window), streams: make(chan struct{}, maxStreams),
		calls:   sync.Pool{New: func() any { return newCall() }},
		started: time.Now(), sockets: make([]*socket, sockets), open: map[*socket]bool{}, cancels: map[*context.CancelFunc]bool{},
	}
}

// ask asks the server, over TCP where UDP is not enough.
func (u *upstream) ask(ctx context.Context, q *question) Answer {
	begun := time.Since(u.started)
	a := u.exchange(ctx, q)
	if a.Rcode == dns.RcodeFormatError || a.Rcode == dns.RcodeBadVers {
		bare := *q // RFC 6891, section 7: it may be too old for EDNS
		bare.bare = true
		a = u.exchange(ctx, &bare)
	}
	if ctx.Err() == nil { // else we did not wait long enough to know
		u.note(a.Status, begun)
	}
	a.Server = u.server
	if a.Err != nil {
		a.Err = fmt.Errorf("dnsclient: %s of %q asked of %s: %w", dns.Type(q.qtype), q.name, u.server, a.Err)
	}
	return a
}

// note remembers whether the server is there. A silence counts only if there
// was no other answer meanwhile: a resolver is also silent about a zone whose
// own servers are.
func (u *upstream) note(s Status, begun time.Duration) {
	switch s {
	case Unknown:
	case Timeout, Unreachable:
		if u.heard.Load() < int64(begun) {
			u.restUntil.Store(int64(time.Since(u.started) + rest))
		}
	default:
		u.restUntil.Store(0)
	}
}

// resting reports whether the server is to be asked last. When its rest is
// over, one question goes to it; the others wait for how that ends.
func (u *upstream) resting() bool {
	until := u.restUntil.Load()
	if until == 0 {
		return false
	}
	now := int64(time.Since(u.started))
	return now < until || !u.restUntil.CompareAndSwap(until, now+int64(rest))
}

func (u *upstream) exchange(ctx context.Context, q *question) Answer {
	c := u.calls.Get().(*call)
	c.question = q
	a := Answer{Name: q.name, Type: q.qtype}
	if err := u.fetch(ctx, c); err == nil {
		u.counters.answered.Add(1)
		a = parse(c.answer, q)
	} else {
		a = a.failed(statusOf(err), err)
	}
	c.question = nil
	if cap(c.answer) > 4<<10 {
		c.answer = nil // rare: not to be kept
	}
	u.calls.Put(c)
	return a
}

// fetch leaves the answer to c in it.
func (u *upstream) fetch(ctx context.Context, c *call) error {
	err := u.overUDP(ctx, c)
	switch {
	case errors.Is(err, errSilent):
		if err = u.overTCP(ctx, c); err != nil {
			return fmt.Errorf("%w over UDP; over TCP: %w", errSilent, err)
		}
	case err == nil && isCut(c.answer):
		u.heard.Store(int64(time.Since(u.started)))
		if err = u.overTCP(ctx, c); err != nil {
			return fmt.Errorf("the answer is cut; over TCP: %w", err)
		}
	case err != nil:
		return err
	}
	u.heard.Store(int64(time.Since(u.started)))
	return nil
}

// statusOf tells what an error of the transport comes to.
func statusOf(err error) Status {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, ErrClosed):
		return Unknown
	case errors.Is(err, errSilent), errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, errGarbled), errors.Is(err, errCut):
		return Malformed
	}
	return Unreachable
}

// acquire waits for a place.
func acquire(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *upstream) overUDP(ctx context.Context, c *call) error {
	if err := acquire(ctx, u.places); err != nil {
		return err
	}
	defer func() { <-u.places }()
	c.pack(true)
	s, err := u.enter(c)
	if err != nil {
		return err
	}
	u.counters.sent.Add(1)
	return s.exchange(ctx, c, u.patience)
}

// enter makes c wait on one of the sockets, which it picks at random. As many
// calls as have places always find room.
func (u *upstream) enter(c *call) (*socket, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	first := int(c.random[len(c.random)-1])
	for i := 0; ; i++ {
		at := (first + i) % len(u.sockets)
		s, err := u.socketLocked(at)
		if err != nil {
			return nil, err
		}
		if s.waits.Load() >= u.window {
			continue
		}
		if s.add(c) == nil {
			s.asked++
			return s, nil
		}
		u.sockets[at] = nil // it broke
	}
}

// socketLocked is the socket at a place of the table: a new one where there was
// none, or where it served long enough.
func (u *upstream) socketLocked(at int) (*socket, error) {
	if u.closed {
		return nil, ErrClosed
	}
	s := u.sockets[at]
	if s != nil && !s.worn() {
		return s, nil
	}
	fresh, err := openSocket(u.server, int(u.window), u.counters)
	if err != nil {
		return nil, err
	}
	if s != nil {
		s.retire()
	}
	u.sockets[at] = fresh
	u.open[fresh] = true
	u.readers.Go(func() {
		fresh.read()
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.open, fresh)
	})
	return fresh, nil
}

// overTCP asks over a connection of its own: cut answers are rare enough. Of a
// server that went silent many want one at once, and most find no place in time.
func (u *upstream) overTCP(ctx context.Context, c *call) error {
	stream, cancel := context.WithTimeout(ctx, streamPatience)
	defer cancel()
	err := u.oneStream(stream, cancel, c)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case u.isClosed():
		return ErrClosed
	case stream.Err() != nil:
		return errSilent
	}
	return err
}

// oneStream waits for a place for a connection and asks over it. Close cancels
// it.
func (u *upstream) oneStream(ctx context.Context, cancel context.CancelFunc, c *call) error {
	if err := acquire(ctx, u.streams); err != nil {
		return err
	}
	defer func() { <-u.streams }()
	if err := u.onClose(&cancel); err != nil {
		return err
	}
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.cancels, &cancel)
	}()
	u.counters.streams.Add(1)
	return c.overStream(ctx, u.server)
}

func (u *upstream) isClosed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.closed
}

// onClose has close call cancel.
func (u *upstream) onClose(cancel *context.CancelFunc) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return ErrClosed
	}
	u.cancels[cancel] = true
	return nil
}

// close ends all calls with ErrClosed and returns when no goroutine is left.
func (u *upstream) close() {
	u.mu.Lock()
	u.closed = true
	for cancel := range u.cancels {
		(*cancel)()
	}
	for s := range u.open {
		s.fail(ErrClosed)
	}
	u.mu.Unlock()
	u.readers.Wait()
}
