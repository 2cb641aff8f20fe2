package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// asked is a pipeline whose first half can be played by the test.
func asked(t *testing.T) *pipeline {
	t.Helper()
	p, _, _ := answering(t)
	dir := &directory{}
	dir.set(buildDirectory(config.Accounts{}, nil))
	p.directory = dir
	p.judge = &judge{parser: &mailq.Parser{Directory: dir.Load()}, detector: detector.New(detector.Default(), dir), policy: &rules.Policy{}}
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

func TestCheckOrder(t *testing.T) {
	order := func(change func(*web.Order)) web.Order {
		o := web.Order{Do: doBlock, Account: victim, Who: "root"}
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		order web.Order
		ok    bool
	}{
		"a login":                  {order(func(*web.Order) {}), true},
		"a script with a blank":    {order(func(o *web.Order) { o.Account = "script:/home/u/my site/x.php" }), true},
		"a name in another script": {order(func(o *web.Order) { o.Account = "жук@shop.test" }), true},
		"nobody":                   {order(func(o *web.Order) { o.Account = "" }), false},
		"a blank at the end":       {order(func(o *web.Order) { o.Account = victim + " " }), false},
		"a line break":             {order(func(o *web.Order) { o.Account = "a\nb" }), false},
		"a terminal's escape":      {order(func(o *web.Order) { o.Account = "a\u009b2J" }), false},
		"no text":                  {order(func(o *web.Order) { o.Account = "a\xff" }), false},
		"too long":                 {order(func(o *web.Order) { o.Account = strings.Repeat("a", maxAccountName+1) }), false},
		"for an hour":              {order(func(o *web.Order) { o.For = time.Hour }), true},
		"for less than nothing":    {order(func(o *web.Order) { o.For = -1 }), false},
		"beyond what a time holds": {order(func(o *web.Order) { o.For = 1<<63 - 1 }), false},
		"by nobody":                {order(func(o *web.Order) { o.Who = "" }), false},
		"by a novel":               {order(func(o *web.Order) { o.Who = strings.Repeat("a", maxWho+1) }), false},
		"for many reasons":         {order(func(o *web.Order) { o.Why = strings.Repeat("a", maxWhy+1) }), false},
		"something else":           {order(func(o *web.Order) { o.Do = "dance" }), false},
		"to hold":                  {order(func(o *web.Order) { o.Do = doHold }), true},
		"a dry run":                {order(func(o *web.Order) { o.DryRun = true }), true},
		"a dry run of a release":   {order(func(o *web.Order) { o.Do, o.DryRun = doRelease, true }), false},
		"to undo an hour":          {order(func(o *web.Order) { o.Do, o.Account, o.Since = doUndo, "", time.Hour }), true},
		"to undo one account":      {order(func(o *web.Order) { o.Do, o.Since = doUndo, time.Hour }), false},
		"to undo no time":          {order(func(o *web.Order) { o.Do, o.Account = doUndo, "" }), false},
		"to undo everything":       {order(func(o *web.Order) { o.Do, o.Account, o.Since = doUndo, "", 365*24*time.Hour }), false},
	} {
		if err := checkOrder(c.order); (err == nil) != c.ok || err != nil && !errors.Is(err, web.ErrInvalid) {
			t.Errorf("%s: %v, want ok = %v", name, err, c.ok)
		}
	}
}

// An order that was carried out while the service stopped is reported as done;
// one that was not says what became of it.
func TestOrderWhileStopping(t *testing.T) {
	done := &order{Order: web.Order{Do: doBlock}, account: victim, done: make(chan ordered, 1)}
	done.done <- ordered{result: web.Result{Done: []string{"blocked"}}}
	if r, err := done.last(); err != nil || len(r.Done) != 1 {
		t.Errorf("result = %+v, %v; want that it is done", r, err)
	}
	for do, want := range map[string]string{doBlock: "not done", doUnblock: "in effect from the next start", doRelease: "in effect from the next start"} {
		o := &order{Order: web.Order{Do: do}, account: victim, done: make(chan ordered, 1)}
		if _, err := o.last(); !errors.Is(err, errStopping) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", do, err, want)
		}
	}
}

// However an operator writes an address, the trusted client is the one that the
// log and the gate name.
func TestCanonicalClients(t *testing.T) {
	p := asked(t)
	for name, want := range map[string]mailq.Account{
		"client:192.0.2.7":              "client:192.0.2.7",
		"client:2001:DB8:0:0::7":        "client:2001:db8::7",
		"client:::ffff:192.0.2.8":       "client:192.0.2.8",
		"client:web.hosting.test":       "client:web.hosting.test",
		"script:/home/u/public_html/Up": "script:/home/u/public_html/Up",
		"Alice@Shop.Test":               "alice@shop.test",
	} {
		if got := p.canonical(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
