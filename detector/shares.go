package detector

import (
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A shares holds points by whom they come from, so that none gives more than
// its part. They halve as all signs do. The zero value is ready.
type shares[K comparable] struct {
	points map[K]float64
	at     time.Time
}

// maxShares is how many are told apart; past them the smallest is forgotten.
const maxShares = 32

// decay brings the points up to now, and forgets what is next to nothing.
func (s *shares[K]) decay(now time.Time) {
	f := halved(s.at, now)
	for key, points := range s.points {
		if s.points[key] = points * f; points*f < forgottenPoints {
			delete(s.points, key)
		}
	}
	s.at = later(s.at, now)
}

// add gives key points, of which it has at most so many, and returns how many
// were added.
func (s *shares[K]) add(key K, points, most float64, now time.Time) float64 {
	s.decay(now)
	if s.points == nil {
		s.points = map[K]float64{}
	}
	if _, known := s.points[key]; !known && len(s.points) >= maxShares {
		s.forget()
	}
	added := max(0, min(points, most-s.points[key]))
	s.points[key] += added
	return added
}

// rename has a key's points counted under another from now on.
func (s *shares[K]) rename(from, to K) {
	if points, ok := s.points[from]; ok {
		delete(s.points, from)
		s.points[to] = points
	}
}

// forget drops the smallest.
func (s *shares[K]) forget() {
	var least K
	first := true
	for key, points := range s.points {
		if first || points < s.points[least] {
			least, first = key, false
		}
	}
	delete(s.points, least)
}

// Receiver is who answers for the recipient of an outcome: a provider, or whoever registered
// the domain, which may have as many names below it as its owner likes.
func Receiver(ev *mailq.Event) string {
	if ev.Reply.Provider != "" {
		return ev.Reply.Provider
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(ev.To.Domain); err == nil {
		return domain
	}
	return ev.To.Domain
}

// A once remembers what was counted, for as long as a mail server may try again.
// The zero value is ready.
type once map[uint64]time.Time

const (
	maxOnce  = 64
	onceKept = 7 * 24 * time.Hour
)

// isNew reports whether a message's recipient was not counted yet, and notes
// it. What no mail server names is always new.
func (o *once) isNew(ev *mailq.Event) bool {
	if ev.Message == 0 {
		return true
	}
	key := ev.Message ^ ev.To.Hash*0x9e3779b97f4a7c15
	_, counted := (*o)[key]
	if *o == nil {
		*o = once{}
	}
	if !counted && len(*o) >= maxOnce {
		o.forget(ev.Time)
	}
	(*o)[key] = ev.Time
	return !counted
}

// forget drops what is old, or else what was tried again the longest ago.
func (o *once) forget(now time.Time) {
	var oldest uint64
	first := true
	for key, at := range *o {
		if now.Sub(at) > onceKept {
			delete(*o, key)
		} else if first || at.Before((*o)[oldest]) {
			oldest, first = key, false
		}
	}
	if len(*o) >= maxOnce {
		delete(*o, oldest)
	}
}
