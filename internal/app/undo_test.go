package app

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/rules"
)

// A dry run says what would be done and does nothing.
func TestDryRun(t *testing.T) {
	p := asked(t)
	r, err := p.Act(t.Context(), web.Order{Do: doHold, Account: "Alice@Shop.test", DryRun: true, Who: "root"})
	if err != nil || !slices.Equal(r.Done, []string{"gate: hold alice@shop.test"}) {
		t.Errorf("got %+v, %v", r, err)
	}
	if did := p.acts.(*acted).did; len(did) > 0 {
		t.Errorf("did %v", did)
	}
	if rows, err := p.store.Decisions(t.Context(), store.DecisionFilter{}); err != nil || len(rows) > 0 {
		t.Errorf("decided %v, %v", rows, err)
	}
}

// An undo lifts what the rules decided in its time, and neither what is older
// nor what a person ordered.
func TestUndo(t *testing.T) {
	p := asked(t)
	serveOrders(t, p)
	now := time.Now()
	decide := func(subject, rule string, a rules.Action, ago time.Duration) {
		d := rules.Decision{ID: subject + a.String(), Rule: rule, Subject: subject, Action: a, Time: now.Add(-ago), Enforce: true}
		if _, err := p.store.Commit(t.Context(), store.Batch{Decisions: []rules.Decision{d}}); err != nil {
			t.Fatal(err)
		}
	}
	decide("alice@shop.test", "hijacked-mailbox", rules.Throttle, 20*time.Minute)
	decide("alice@shop.test", "hijacked-mailbox", rules.Block, 10*time.Minute)
	decide("bob@shop.test", "hijacked-mailbox", rules.Hold, 50*time.Minute)
	decide("carol@shop.test", "hijacked-mailbox", rules.Block, 2*time.Hour)
	decide("dave@shop.test", byOperator, rules.Block, 5*time.Minute)
	decide("erin@shop.test", "hijacked-mailbox", rules.Hold, 5*time.Minute)
	decide("erin@shop.test", byOperator, rules.Block, time.Minute)

	undo := web.Order{Do: doUndo, Since: time.Hour, Who: "root", Why: "bad rule", DryRun: true}
	r, err := p.Act(t.Context(), undo)
	if err != nil || len(r.Done) != 2 || !strings.HasPrefix(r.Done[0], "would lift: hold of bob@shop.test") || !strings.HasPrefix(r.Done[1], "would lift: block of alice@shop.test") {
		t.Fatalf("dry run: %q, %v", r.Done, err)
	}
	if did := p.acts.(*acted).did; len(did) > 0 {
		t.Fatalf("a dry run did %v", did)
	}
	undo.DryRun = false
	if r, err = p.Act(t.Context(), undo); err != nil || len(r.Failed) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, want := p.acts.(*acted).did, []string{"undo bob@shop.test", "undo alice@shop.test"}; !slices.Equal(got, want) {
		t.Errorf("did %v, want %v", got, want)
	}
	active, err := p.store.Active(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, d := range active {
		left = append(left, d.Subject)
	}
	slices.Sort(left)
	if want := []string{"carol@shop.test", "dave@shop.test", "erin@shop.test", "erin@shop.test"}; !slices.Equal(left, want) {
		t.Errorf("in force: %v, want %v", left, want)
	}
	if rows, err := p.store.Journal(t.Context(), store.JournalFilter{Subject: "alice@shop.test"}); err != nil || len(rows) == 0 || !strings.Contains(rows[0].Why, "undo of the last 1h0m0s: bad rule") {
		t.Errorf("journal %+v, %v", rows, err)
	}
	if r, err = p.Act(t.Context(), undo); err != nil || !slices.Equal(r.Done, []string{"nothing in force was decided in the last 1h0m0s"}) {
		t.Errorf("again: %q, %v", r.Done, err)
	}
}

// serveOrders plays both halves for orders.
func serveOrders(t *testing.T, p *pipeline) {
	t.Helper()
	go func() {
		for {
			select {
			case ask := <-p.asks:
				ask()
				for _, o := range p.orders {
					p.obey(t.Context(), []*order{o})
				}
				p.orders = nil
			case <-t.Context().Done():
				return
			}
		}
	}()
}

// What cannot be put in force is tried again; from the second time on people
// are told, once.
func TestNotInForceIsTold(t *testing.T) {
	p := asked(t)
	s := &service{pipeline: p, force: eye{kind: "enforcement", subject: "blocks on mx1", part: "blocks"}}
	p.judge.policy = &rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}
	p.reconciled = make(chan time.Time, 1)
	serveAsks(t, p)
	p.acts.(*acted).fail = "cpanel: no such mailbox"
	for n, want := range []int{0, 1, 1} {
		if err := s.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.inObserve(t.Context(), func() {
			if len(p.steps) != want {
				t.Errorf("comparison %d: %d told, want %d", n+1, len(p.steps), want)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.acts.(*acted).fail = ""
	if err := s.reconcile(t.Context()); err != nil || s.unforced != 0 || p.health.parts["blocks"] != "ok" {
		t.Errorf("%v, %d, %v", err, s.unforced, p.health.parts)
	}
}

// serveAsks plays the half that questions go to.
func serveAsks(t *testing.T, p *pipeline) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case ask := <-p.asks:
				ask()
			case <-t.Context().Done():
				return
			}
		}
	}()
	t.Cleanup(func() { <-done })
}
