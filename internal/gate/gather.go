package gate

import (
	"bytes"
	"sync"
	"time"
)

// Bounds on what is remembered between the first recipient of a message and
// its end. A client that leaves in between leaves its message behind, so the
// oldest is forgotten when there are too many; and clients choose addresses.
const (
	maxMessages    = 10_000
	maxMessageAge  = time.Hour
	maxRecipients  = 1000     // kept of one message, as many as Postfix accepts by default
	maxGathered    = 32 << 20 // bytes of addresses of all messages
	maxSpare       = 256      // messages kept for use again
	maxSpareLength = 4 << 10  // bytes of addresses a message kept for use again may hold on to
)

// An instance is Postfix's name of a message as the gate's questions carry
// it: process, time and sequence in hex, at most 51 characters. An array is
// a map key that needs no allocation.
type instance [56]byte

// key returns the instance named by text; ok is false if Postfix cannot have
// written it.
func key(text []byte) (in instance, ok bool) {
	if len(text) == 0 || len(text) > len(in) {
		return in, false
	}
	copy(in[:], text)
	return in, true
}

// A gatherer collects the recipients of each message until its end. Its zero
// value is ready. Messages form a list from the oldest to the newest.
type gatherer struct {
	mu             sync.Mutex
	messages       map[instance]*message
	oldest, newest *message
	spare          []*message
	bytes          int    // of addresses, in all messages
	evicted        uint64 // messages forgotten before their end, most of them abandoned by the client
}

// A message is one in the making.
type message struct {
	instance     instance
	begun        time.Time
	recipients   []byte // each ends in a newline
	last         int    // where the latest recipient begins
	n            int    // recipients in recipients
	charged      int    // recipients taken from a throttled account's allowance
	held         bool   // for a throttle: nothing more is charged
	older, newer *message
}

// known reports whether recipient is the one that was added latest, as it is
// where two lists of restrictions ask the gate about each; and whether the
// message is held already.
func (g *gatherer) known(in instance, recipient []byte) (repeated, held bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.messages[in]
	if m == nil {
		return false, false
	}
	return m.repeated(recipient), m.held
}

// hold notes that the message is held for a throttle, and returns how many of
// its recipients were charged: they were not let through after all.
func (g *gatherer) hold(in instance, now time.Time) (charged int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.messages[in]
	if m == nil {
		m = g.beginLocked(in, now)
	}
	charged, m.charged, m.held = m.charged, 0, true
	return charged
}

func (m *message) repeated(recipient []byte) bool {
	return m.n > 0 && bytes.Equal(m.recipients[m.last:len(m.recipients)-1], recipient)
}

// add notes one more recipient of the message, and whether it was charged.
func (g *gatherer) add(in instance, recipient []byte, charged bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.messages[in]
	if m == nil {
		m = g.beginLocked(in, now)
	}
	if m.repeated(recipient) {
		return
	}
	if charged {
		m.charged++
	}
	if m.n == maxRecipients {
		return
	}
	m.n++
	m.last = len(m.recipients)
	m.recipients = append(append(m.recipients, recipient...), '\n')
	g.bytes += len(recipient) + 1
	for g.bytes > maxGathered && g.oldest != m {
		g.evictLocked(g.oldest)
	}
}

// end takes the message out; nil if nothing is known of it. Give it back with
// release.
func (g *gatherer) end(in instance) *message {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.messages[in]
	if m != nil {
		g.removeLocked(m)
	}
	return m
}

// release keeps the memory of m for the next message.
func (g *gatherer) release(m *message) {
	if m == nil || cap(m.recipients) > maxSpareLength {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.spare) < maxSpare {
		g.spare = append(g.spare, m)
	}
}

// count returns how many messages are open and how many were forgotten.
func (g *gatherer) count() (open int, evicted uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.messages), g.evicted
}

func (g *gatherer) beginLocked(in instance, now time.Time) *message {
	for g.oldest != nil && (len(g.messages) >= maxMessages || now.Sub(g.oldest.begun) > maxMessageAge) {
		g.evictLocked(g.oldest)
	}
	m := g.blankLocked()
	*m = message{instance: in, begun: now, recipients: m.recipients[:0], older: g.newest}
	if g.newest == nil {
		g.oldest = m
	} else {
		g.newest.newer = m
	}
	g.newest = m
	if g.messages == nil {
		g.messages = make(map[instance]*message)
	}
	g.messages[in] = m
	return m
}

func (g *gatherer) blankLocked() *message {
	last := len(g.spare) - 1
	if last < 0 {
		return new(message)
	}
	m := g.spare[last]
	g.spare = g.spare[:last]
	return m
}

func (g *gatherer) evictLocked(m *message) {
	g.removeLocked(m)
	g.evicted++
}

func (g *gatherer) removeLocked(m *message) {
	delete(g.messages, m.instance)
	g.bytes -= len(m.recipients)
	if m.older == nil {
		g.oldest = m.newer
	} else {
		m.older.newer = m.newer
	}
	if m.newer == nil {
		g.newest = m.older
	} else {
		m.newer.older = m.older
	}
	m.older, m.newer = nil, nil
}
