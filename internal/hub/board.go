package hub

import (
	"slices"
	"sync"

	"github.com/vedetta-watch/vedetta/rules"
)

// An Order is what is in force for an account, as an agent gets it.
type Order struct {
	Decision rules.Decision `json:"decision"`
	Text     string         `json:"text,omitempty"` // what the client reads
	Reset    Reset          `json:"reset,omitzero"`
}

// A Change is what an agent is told: all that is in force for it, or what
// changed since. Set replaces what was in force for the same subject.
type Change struct {
	Whole  bool     `json:"whole,omitempty"`  // Set is everything
	Set    []Order  `json:"set,omitempty"`    // now in force
	Lifted []string `json:"lifted,omitempty"` // subjects for which nothing is in force any more
	Keys   *Keys    `json:"keys,omitempty"`   // what recipients are hashed with from now on; nil: as before
}

// empty reports whether there is nothing to tell.
func (c Change) empty() bool { return !c.Whole && len(c.Set) == 0 && len(c.Lifted) == 0 }

// A Board holds what is in force for the whole fleet. It is a gate as enforce
// wants one: whatever the executor puts there or takes away reaches the agents.
// Its methods work in memory and may be called from any goroutine. The zero
// Board is empty.
type Board struct {
	mu      sync.Mutex // guards what follows
	orders  map[string]Order
	changes []string      // subjects, in the order of their changes
	begun   uint64        // the number of changes[0]
	news    chan struct{} // closed at the next change; nil: nobody waits
}

// maxChanges bounds how far back an agent may be and still be told changes only.
const maxChanges = 10_000

// Set puts d in force under its subject; text is what the client reads.
func (b *Board) Set(d rules.Decision, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.orders == nil {
		b.orders = map[string]Order{}
	}
	had, ok := b.orders[d.Subject]
	o := Order{d, text, had.Reset}
	if ok && had == o {
		return
	}
	b.orders[d.Subject] = o
	b.changedLocked(d.Subject)
}

// Remove takes what is in force for the subject out of it.
func (b *Board) Remove(subject string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.orders[subject]; !ok {
		return
	}
	delete(b.orders, subject)
	b.changedLocked(subject)
}

func (b *Board) changedLocked(subject string) {
	b.changes = append(b.changes, subject)
	if half := maxChanges / 2; len(b.changes) > maxChanges {
		b.changes = slices.Clone(b.changes[half:])
		b.begun += uint64(half)
	}
	if b.news != nil {
		close(b.news)
		b.news = nil
	}
}

// Since returns what changed after the change with number from, the number of
// the latest, and a channel that is closed at the next one. Where from is too
// long ago, or 0 and nothing was told yet (whole), it is all that is in force.
// Only subjects that visible accepts are told.
func (b *Board) Since(from uint64, whole bool, visible func(subject string) bool) (Change, uint64, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.news == nil {
		b.news = make(chan struct{})
	}
	latest := b.begun + uint64(len(b.changes))
	c := Change{Whole: whole || from < b.begun || from > latest}
	if c.Whole {
		for subject, o := range b.orders {
			if visible(subject) {
				c.Set = append(c.Set, o)
			}
		}
		return c, latest, b.news
	}
	told := map[string]bool{}
	for _, subject := range b.changes[from-b.begun:] {
		if told[subject] || !visible(subject) {
			continue
		}
		told[subject] = true
		if o, ok := b.orders[subject]; ok {
			c.Set = append(c.Set, o)
		} else {
			c.Lifted = append(c.Lifted, subject)
		}
	}
	return c, latest, b.news
}
