package app

import (
	"bytes"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
)

// lines yields the lines of a chunk without their newlines.
func lines(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(text) > 0 {
			line, rest, _ := bytes.Cut(text, []byte{'\n'})
			if !yield(line) {
				return
			}
			text = rest
		}
	}
}

// snapshot is everything that changed since the last one, to be written in
// one transaction.
func (p *pipeline) snapshot() store.Batch {
	p.fleet.positions(p.positions, time.Now())
	b := store.Batch{Positions: p.positions, Learned: p.learned}
	p.positions, p.learned = map[string][]byte{}, nil
	p.judge.parser.Changed(func(key uint64, state []byte) {
		b.Messages = append(b.Messages, store.MessageState{Key: key, State: bytes.Clone(state)})
	})
	p.judge.detector.Changed(func(account mailq.Account, state []byte) {
		b.Accounts = append(b.Accounts, store.AccountState{Account: string(account), State: bytes.Clone(state)})
	})
	if r := p.judge.risk; r != nil {
		if sent := r.Sent.Changed(); sent != nil {
			b.Sent = [][]byte{sent}
		}
	}
	if p.forward != nil {
		b.Spool = p.forward.seal(time.Now(), b.Positions)
	}
	for _, s := range p.steps {
		b.Findings = append(b.Findings, s.finding)
		b.Decisions = append(b.Decisions, s.decision)
	}
	return b
}

// merge adds a newer work to one that could not be written. What both know
// of an account or a message, the newer knows better, so the whole is bounded
// by their number.
func merge(older, newer work) work {
	if empty(older) {
		return newer
	}
	a, b := older.batch, newer.batch
	maps.Copy(a.Positions, b.Positions)
	return work{
		steps:  append(older.steps, newer.steps...),
		orders: append(older.orders, newer.orders...),
		batch: store.Batch{
			Positions: a.Positions,
			Messages:  newest(a.Messages, b.Messages, func(m store.MessageState) uint64 { return m.Key }),
			Accounts:  newest(a.Accounts, b.Accounts, func(s store.AccountState) string { return s.Account }),
			Findings:  append(a.Findings, b.Findings...),
			Decisions: append(a.Decisions, b.Decisions...),
			Learned:   append(a.Learned, b.Learned...),
			Spool:     append(a.Spool, b.Spool...),
			Sent:      append(a.Sent, b.Sent...),
		},
	}
}

// newest keeps the last of the entries that share a key.
func newest[T any, K comparable](a, b []T, key func(T) K) []T {
	replaced := make(map[K]bool, len(b))
	for _, x := range b {
		replaced[key(x)] = true
	}
	return append(slices.DeleteFunc(a, func(x T) bool { return replaced[key(x)] }), b...)
}

func empty(w work) bool {
	b := w.batch
	return len(w.steps)+len(w.orders)+len(b.Positions)+len(b.Messages)+len(b.Accounts)+len(b.Learned)+len(b.Spool)+len(b.Sent) == 0
}

// rows is how much of w is kept while it cannot be written.
func rows(w work) int {
	n := len(w.steps) + len(w.batch.Messages) + len(w.batch.Accounts)
	for _, state := range w.batch.Sent {
		n += 1 + len(state)/64
	}
	for _, s := range w.batch.Spool {
		n += s.Events
	}
	return n
}

func set(ids []string) map[string]bool {
	m := make(map[string]bool, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}
