package app

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
)

// asked is a pipeline whose first half can be played by the test.
func asked(t *testing.T) *pipeline {
	t.Helper()
	p, _, _ := answering(t)
	dir := &directory{}
	dir.set(buildDirectory(config.Accounts{}, nil))
	p.directory = dir
	p.judge = &judge{parser: &mailq.Parser{Directory: dir.Load()}, detector: detector.New(detector.Default(), dir)}
	p.asks, p.done = make(chan func()), make(chan struct{})
	return p
}

// Whoever gives up while reading is behind is let go at once, and what the
// first half does for him afterwards disturbs nobody.
func TestAskersMayGiveUp(t *testing.T) {
	for name, question := range map[string]func(context.Context, *pipeline) error{
		"accounts": func(ctx context.Context, p *pipeline) error { _, err := p.Accounts(ctx, 10); return err },
		"queue":    func(ctx context.Context, p *pipeline) error { _, err := p.Queue(ctx); return err },
		"why":      func(ctx context.Context, p *pipeline) error { _, err := p.Why(ctx, victim); return err },
	} {
		t.Run(name, func(t *testing.T) {
			p := asked(t)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- question(ctx, p) }()
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error = %v, want that the asker gave up", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("still waiting for the first half")
			}
		})
	}
}

// A list is as long as was asked for, and holds those with the most evidence;
// who was blocked before he ever sent is in it.
func TestAccountsAreBounded(t *testing.T) {
	p := asked(t)
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	for i := range 5000 {
		p.judge.detector.Observe(&mailq.Event{
			Time: at.Add(time.Duration(i) * time.Second), Kind: mailq.Submitted, Account: mailq.Account("u" + string(rune('a'+i%26)) + time.Duration(i).String() + "@shop.test"),
			Message: uint64(i + 1), Rcpts: 1, New: []mailq.Recipient{{Hash: uint64(i), Domain: "else.test"}},
		})
	}
	go func() { (<-p.asks)() }()
	rows, err := p.Accounts(t.Context(), 3)
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d rows, %v; want 3", len(rows), err)
	}
	if !rows[0].LastSeen.Equal(at.Add(4999 * time.Second)) {
		t.Errorf("first = %+v, want the one seen last", rows[0])
	}
}
