package detector

import (
	"cmp"
	"hash/fnv"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A Sent remembers for some days which account each message came from that left
// our servers, and to whom it went, so that what somebody says about a message
// later can be held against whoever sent it. The zero value is ready.
//
// It has two halves. Once one is four days old or has half a million messages, it
// takes the other's place and a new one begins, so a message is known for four to
// eight days, or for as long as half a million others take. A message takes some
// 60 bytes.
type Sent struct {
	Max int // messages of a half; 0: half a million

	now, before sentHalf
	dirty       []uint64 // keys of messages that changed since Changed was called
	cleared     []sender // accounts that were released since then
}

// SentFor is how long a message is known at most.
const SentFor = 8 * 24 * time.Hour

const (
	sentHalfFor = SentFor / 2
	maxSentHalf = 500_000 // if Max does not say
)

// A sentHalf is the messages of some days. Nothing in the maps of messages points
// anywhere, so that they cost the garbage collector nothing.
type sentHalf struct {
	since    time.Time
	messages map[uint64]sentMessage // by hash of the queue id
	senders  []sender
	number   map[mailq.Account]uint32 // in senders
}

// A sentMessage is what is known of a message.
type sentMessage struct {
	at        uint32 // when it was first seen, seconds since 1970
	from      uint32 // in senders
	receiver  uint32 // receiverKey of whoever it was delivered to; severalReceivers if there are several
	delivered uint16 // recipients
	flags     sentFlags
}

type sentFlags uint8

const (
	isBlamed sentFlags = 1 << iota // somebody complained
	isMixed                        // several accounts answer for it, as where two mailboxes forward it
	isDirty                        // Changed has not told yet
)

func (m sentMessage) is(f sentFlags) bool { return m.flags&f != 0 }

// A sender is what an account sent.
type sender struct {
	account   mailq.Account
	delivered int       // recipients
	blamed    int       // messages that somebody complained about
	cleared   time.Time // what was sent before was right, said an operator
}

// severalReceivers stands for a receiver that cannot be told.
const severalReceivers = 0

// receiverKey is a receiver's name, short.
func receiverKey(receiver string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(receiver))
	return max(h.Sum32(), severalReceivers+1)
}

// sentKey is a queue id, short. Servers are not told apart: what a server calls
// itself in its log, in a Received line and as an agent of a hub may be three
// names, and two with the same id at the same time do not happen.
func sentKey(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}

// saw takes an event of a message that somebody here answers for.
func (s *Sent) saw(ev *mailq.Event) {
	if s == nil || ev.QueueID == "" || ev.Account == "" {
		return
	}
	delivered := ev.Kind == mailq.Delivered && ev.Into == ""
	if !delivered && ev.Kind != mailq.Submitted && ev.Kind != mailq.Deferred {
		return
	}
	key := sentKey(ev.QueueID)
	half, m, ok := s.find(key)
	begins := !ok || ev.Kind == mailq.Submitted && ev.Counts // or the id is used again
	if begins {
		half, m = s.begin(ev.Time), sentMessage{at: uint32(ev.Time.Unix())}
		m.from = half.numberOf(ev.Account)
	}
	before, from := m, &half.senders[m.from]
	if from.account != ev.Account {
		m.flags |= isMixed
	}
	if delivered {
		from.delivered++
		to := receiverKey(Receiver(ev))
		if m.delivered > 0 && m.receiver != to {
			to = severalReceivers
		}
		m.receiver, m.delivered = to, min(m.delivered, 1<<16-2)+1
	}
	if begins || m != before {
		s.put(half, key, m)
	}
}

// put stores a message, to be told by Changed.
func (s *Sent) put(half *sentHalf, key uint64, m sentMessage) {
	if !m.is(isDirty) {
		m.flags |= isDirty
		s.dirty = append(s.dirty, key)
	}
	half.messages[key] = m
}

// find returns a message and where it is.
func (s *Sent) find(key uint64) (*sentHalf, sentMessage, bool) {
	for _, half := range []*sentHalf{&s.now, &s.before} {
		if m, ok := half.messages[key]; ok {
			return half, m, true
		}
	}
	return nil, sentMessage{}, false
}

// begin returns the half that a new message belongs to.
func (s *Sent) begin(now time.Time) *sentHalf {
	most := cmp.Or(s.Max, maxSentHalf)
	if s.now.messages == nil || len(s.now.messages) >= most || now.Sub(s.now.since) > sentHalfFor {
		if s.now.messages != nil {
			s.before = s.now
		}
		s.now = sentHalf{since: now, messages: map[uint64]sentMessage{}, number: map[mailq.Account]uint32{}}
	}
	return &s.now
}

func (h *sentHalf) numberOf(account mailq.Account) uint32 {
	n, ok := h.number[account]
	if !ok {
		n = uint32(len(h.senders))
		h.senders, h.number[account] = append(h.senders, sender{account: account}), n
	}
	return n
}

// of sums up what is known of an account.
func (s *Sent) of(account mailq.Account) (delivered, blamed int) {
	for _, half := range []*sentHalf{&s.now, &s.before} {
		if n, ok := half.number[account]; ok {
			delivered, blamed = delivered+half.senders[n].delivered, blamed+half.senders[n].blamed
		}
	}
	return delivered, blamed
}

// release has no complaint count about what an account sent before.
func (s *Sent) release(account mailq.Account, now time.Time) {
	if s == nil {
		return
	}
	for _, half := range []*sentHalf{&s.now, &s.before} {
		if n, ok := half.number[account]; ok {
			half.senders[n].cleared, half.senders[n].blamed = now, 0
		}
	}
	s.cleared = append(s.cleared, sender{account: account, cleared: now})
}
