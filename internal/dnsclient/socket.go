package dnsclient

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// When a socket is replaced by one with another port, so that what a forger
// learned about it is worth little.
const (
	socketQuestions = 20_000
	socketAge       = 10 * time.Minute
	socketUnwanted  = 1000 // answers that nobody waited for: somebody guesses
)

// sends is how often a question is sent over UDP before it is asked over TCP.
const sends = 3

// errSilent means that a server did not answer in time.
var errSilent = errors.New("no answer in time")

// A call is one question on its way. Its buffers, channel and timer are used
// again for the next.
type call struct {
	question *question
	id       uint16
	query    []byte     // the message
	answer   []byte     // what came back
	done     chan error // holds one: nil once answer is there, or why it never will be
	timer    *time.Timer
	random   [34]byte // an id, and a bit for each letter's case
}

func newCall() *call {
	c := &call{done: make(chan error, 1), timer: time.NewTimer(time.Hour)}
	c.timer.Stop()
	return c
}

// pack makes the message, with a new id. Over TCP the case is left alone: there
// the connection tells who answers, and a server that changes the case of a
// name is understood.
func (c *call) pack(overUDP bool) {
	rand.Read(c.random[:])
	var cases []byte
	if overUDP && c.question.mixed {
		cases = c.random[2:]
	}
	c.query = c.question.pack(c.query[:0], cases)
	c.setID(binary.BigEndian.Uint16(c.random[:]))
}

func (c *call) setID(id uint16) {
	c.id = id
	binary.BigEndian.PutUint16(c.query, id)
}

// matches reports whether msg answers the call's question.
func (c *call) matches(msg []byte) bool {
	return isAnswer(msg) && msgID(msg) == c.id && echoes(msg, c.query, c.question.questionEnd())
}

// A socket is a connected UDP socket with the calls that wait on it. Being
// connected, it gets no datagram from anybody but the server, and learns when
// the server's host has nobody on the port. The kernel picks its port at random
// (RFC 6056).
type socket struct {
	conn   *net.UDPConn
	opened time.Time
	asked  int // questions so far; guarded by the upstream

	waits    atomic.Int32 // calls in waiting
	unwanted atomic.Int32
	counters *counters

	mu      sync.Mutex // guards the fields below
	waiting map[uint16]*call
	retired bool  // closes once nobody waits
	broken  error // why it is closed, where that was not planned
}

func openSocket(server netip.AddrPort, window int, k *counters) (*socket, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return nil, err
	}
	// Room for an answer to every call, as the kernel counts: many can come at
	// once. If it allows less, what does not fit counts as lost.
	conn.SetReadBuffer(window * 4 << 10)
	return &socket{conn: conn, opened: time.Now(), counters: k, waiting: map[uint16]*call{}}, nil
}

// worn reports whether the socket served long enough.
func (s *socket) worn() bool {
	return s.asked >= socketQuestions || s.unwanted.Load() >= socketUnwanted || time.Since(s.opened) >= socketAge
}

// errRetired means that a socket takes no more calls: ask on another.
var errRetired = errors.New("the socket is retired")

// add makes c wait under an id that nobody else waits under.
func (s *socket) add(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired || s.broken != nil {
		return errRetired
	}
	for s.waiting[c.id] != nil {
		rand.Read(c.random[:2])
		c.setID(binary.BigEndian.Uint16(c.random[:]))
	}
	s.waiting[c.id] = c
	s.waits.Add(1)
	return nil
}

// exchange sends what c asks until it is answered: again after patience and
// once more after two of them. It then waits for a last one.
func (s *socket) exchange(ctx context.Context, c *call, patience time.Duration) error {
	for i := range sends {
		if i > 0 {
			s.counters.resent.Add(1)
		}
		if _, err := s.conn.Write(c.query); err != nil && !errors.Is(err, syscall.ENOBUFS) { // a full buffer is as good as a lost datagram
			s.fail(err)
			return <-c.done
		}
		c.timer.Reset(patience)
		select {
		case err := <-c.done:
			c.timer.Stop()
			return err
		case <-c.timer.C:
		case <-ctx.Done():
			c.timer.Stop()
			return s.giveUp(c, ctx.Err())
		}
	}
	return s.giveUp(c, errSilent)
}

// giveUp ends the wait of c for the reason err, unless it was answered in this
// very moment.
func (s *socket) giveUp(c *call, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[c.id] != c {
		return <-c.done
	}
	s.removeLocked(c)
	return err
}

// removeLocked ends the wait of c.
func (s *socket) removeLocked(c *call) {
	delete(s.waiting, c.id)
	s.waits.Add(-1)
	if s.retired && len(s.waiting) == 0 {
		s.conn.Close()
	}
}

// retire closes the socket when nobody waits on it any more.
func (s *socket) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	if len(s.waiting) == 0 {
		s.conn.Close()
	}
}

// fail closes the socket and tells all who wait why. The first reason counts.
// An ICMP message tells only that a datagram of this socket did not arrive: all
// of them went to the same port.
func (s *socket) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
	}
	s.conn.Close() // after that: the reader comes here too, with a reason that says less
	for id, c := range s.waiting {
		delete(s.waiting, id)
		s.waits.Add(-1)
		c.done <- s.broken
	}
}

// read hands out what arrives until the socket is closed.
func (s *socket) read() {
	buf := make([]byte, 1<<16)
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			s.fail(err)
			return
		}
		s.deliver(buf[:n])
	}
}

// deliver gives msg to the call that it answers. It is copied, as the next one
// is read at once while whoever asked takes it apart.
func (s *socket) deliver(msg []byte) {
	if !isAnswer(msg) {
		s.counters.mismatched.Add(1)
		s.unwanted.Add(1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.waiting[msgID(msg)]
	switch {
	case c == nil:
		s.counters.late.Add(1)
		s.unwanted.Add(1)
	case !c.matches(msg):
		s.counters.mismatched.Add(1)
		s.unwanted.Add(1)
	default:
		c.answer = append(c.answer[:0], msg...)
		s.removeLocked(c)
		c.done <- nil
	}
}
