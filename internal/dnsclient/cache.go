package dnsclient

import (
	"container/list"
	"sync"
	"time"
)

// How long an answer is remembered at most and at least. The floor spares lists
// that give what does not exist no time at all; the ceiling bounds how long a
// new record goes unseen.
const (
	negativeFloor   = 60 * time.Second
	negativeCeiling = time.Hour

	// RFC 9520, section 3.2: a failure is remembered for at least 1 s, so that
	// who is in trouble is not asked without end.
	failureTTL = 5 * time.Second
)

// lifetime is for how long an answer is remembered.
func lifetime(a *Answer) time.Duration {
	switch a.Status {
	case Found:
		return a.TTL
	case NoData, NXDomain:
		if a.SOA.Zone == "" {
			return 0 // RFC 2308, section 5
		}
		return min(max(a.TTL, negativeFloor), negativeCeiling)
	case ServFail, Refused, OtherRcode, Timeout, Malformed, Lame:
		return failureTTL
	}
	return 0 // about us and our network, rather than about the name
}

// A key is what answers are remembered under.
type key struct {
	name  string
	qtype uint16
}

func (q *question) key() key { return key{q.name, q.qtype} }

// A cache remembers answers, and which questions are being asked. Over its
// bounds it forgets what was not looked at for the longest.
type cache struct {
	maxEntries, maxBytes int

	mu      sync.Mutex // guards the fields below
	entries map[key]*list.Element
	recent  list.List // of *entry; the front was looked at last
	bytes   int
	flights map[key]*flight
}

// An entry is an answer in the cache.
type entry struct {
	key     key
	answer  Answer
	stored  time.Time
	expires time.Time
	bytes   int
}

// A flight is a question that somebody asks and others wait for. Its answer is
// there when done is closed.
type flight struct {
	done      chan struct{}
	answer    Answer
	abandoned bool // whoever asked went away: ask yourself
}

func newCache(maxEntries, maxBytes int) *cache {
	return &cache{maxEntries: maxEntries, maxBytes: maxBytes, entries: map[key]*list.Element{}, flights: map[key]*flight{}}
}

// begin gives the answer if it is known; else a flight to wait for, or to lead:
// to ask and then call end.
func (k *cache) begin(key key, now time.Time) (a Answer, f *flight, leads bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if at, ok := k.entries[key]; ok {
		e := at.Value.(*entry)
		if now.Before(e.expires) {
			k.recent.MoveToFront(at)
			return e.aged(now), nil, false
		}
		k.removeLocked(at)
	}
	if f := k.flights[key]; f != nil {
		return Answer{}, f, false
	}
	f = &flight{done: make(chan struct{})}
	k.flights[key] = f
	return Answer{}, f, true
}

// aged is the answer with what is left of its TTL.
func (e *entry) aged(now time.Time) Answer {
	a := e.answer
	a.Cached = true
	a.TTL = max(0, a.TTL-now.Sub(e.stored))
	return a
}

// end tells those who wait for f what its answer is. If the context of whoever
// asked ended, only an answer counts: a failure may be that.
func (k *cache) end(key key, f *flight, a Answer, now time.Time, interrupted bool) {
	f.answer, f.abandoned = a, interrupted && !a.Status.Definite()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.flights, key)
	if !f.abandoned {
		k.storeLocked(key, a, now)
	}
	close(f.done)
}

// storeLocked remembers an answer.
func (k *cache) storeLocked(key key, a Answer, now time.Time) {
	ttl := lifetime(&a)
	if ttl <= 0 {
		return
	}
	if at, ok := k.entries[key]; ok {
		k.removeLocked(at)
	}
	e := &entry{key: key, answer: a, stored: now, expires: now.Add(ttl), bytes: size(&a)}
	k.entries[key] = k.recent.PushFront(e)
	k.bytes += e.bytes
	for len(k.entries) > k.maxEntries || k.bytes > k.maxBytes {
		k.removeLocked(k.recent.Back())
	}
}

func (k *cache) removeLocked(at *list.Element) {
	e := k.recent.Remove(at).(*entry)
	delete(k.entries, e.key)
	k.bytes -= e.bytes
}

// entryBytes is about what an entry takes besides what its answer points to.
const entryBytes = 600

// size is about what an answer takes in the cache, in bytes.
func size(a *Answer) int {
	n := entryBytes + len(a.Name) + len(a.SOA.Zone) + len(a.SOA.Primary) + len(a.SOA.Mailbox) + 24*len(a.Addrs)
	for _, texts := range [...][]string{a.TXT, a.NS, a.PTR, a.CNAME} {
		for _, text := range texts {
			n += 16 + len(text)
		}
	}
	for _, mx := range a.MX {
		n += 24 + len(mx.Host)
	}
	if a.Err != nil {
		n += 200
	}
	return n
}
