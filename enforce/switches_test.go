package enforce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A panel is a switch that remembers what was done to it.
type panel struct {
	name string
	mu   sync.Mutex
	on   map[string]bool // "subject action"
	did  []string
	fail error // of Set and Clear
}

func (p *panel) Name() string        { return p.name }
func (p *panel) Covers(e Entry) bool { return len(e.Logins) > 0 }
func (p *panel) Before(_ context.Context, e Entry) (string, error) {
	return "before " + e.Subject, nil
}

func (p *panel) Set(_ context.Context, e Entry) error {
	return p.do("set", e.Subject+" "+e.Action.String(), true)
}

func (p *panel) Clear(_ context.Context, e Entry, undo string) error {
	if undo != "before "+e.Subject {
		return fmt.Errorf("undo is %q", undo)
	}
	return p.do("clear", e.Subject+" "+e.Action.String(), false)
}

func (p *panel) Plan(e Entry) []string { return []string{p.name + " suspend " + e.Subject} }

func (p *panel) do(what, key string, on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.did = append(p.did, what+" "+key)
	if p.fail != nil {
		return p.fail
	}
	if p.on == nil {
		p.on = map[string]bool{}
	}
	if p.on[key] = on; !on {
		delete(p.on, key)
	}
	return nil
}

func (p *panel) set() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for key := range p.on {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}

// book keeps marks in memory.
type book struct {
	mu    sync.Mutex
	marks []Mark
	fail  error
}

func (b *book) Marks(context.Context) ([]Mark, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.marks), b.fail
}

func (b *book) PutMark(_ context.Context, m Mark) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	b.marks = slices.DeleteFunc(b.marks, func(o Mark) bool { return o.key() == m.key() })
	b.marks = append(b.marks, m)
	return nil
}

func (b *book) DropMark(_ context.Context, m Mark) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.marks = slices.DeleteFunc(b.marks, func(o Mark) bool { return o.key() == m.key() })
	return b.fail
}

func decided(subject string, a rules.Action) rules.Decision {
	return rules.Decision{ID: "d-" + subject + a.String(), Subject: subject, Action: a, Time: time.Now(), Enforce: true}
}

// active is what the journal wants in force.
func wants(ds ...rules.Decision) func(context.Context) ([]rules.Decision, error) {
	return func(context.Context) ([]rules.Decision, error) { return ds, nil }
}

func switched(p *panel, b *book) *Executor {
	return &Executor{Switches: []Switch{p}, Marks: b}
}

func TestSwitchIsSetOnceAndUndone(t *testing.T) {
	p, b := &panel{name: "panel"}, &book{}
	x := switched(p, b)
	for range 2 {
		if o := x.Do(t.Context(), decided("alice@shop.test", rules.Block)); !o.OK {
			t.Fatal(o.Detail)
		}
	}
	if got := p.did; len(got) != 1 {
		t.Errorf("done %v, want it set once", got)
	}
	if len(b.marks) != 1 || !b.marks[0].Done {
		t.Errorf("marks %+v", b.marks)
	}
	for range 2 {
		if o := x.Undo(t.Context(), "alice@shop.test"); !o.OK {
			t.Fatal(o.Detail)
		}
	}
	if len(p.set())+len(b.marks) != 0 {
		t.Errorf("left: %v, %v", p.set(), b.marks)
	}
}

// TestSwitchGrows: a hold that becomes a block keeps both set, and both are
// taken back, the block first.
func TestSwitchGrows(t *testing.T) {
	p, b := &panel{name: "panel"}, &book{}
	x := switched(p, b)
	x.Do(t.Context(), decided("alice@shop.test", rules.Hold))
	x.Do(t.Context(), decided("alice@shop.test", rules.Block))
	x.Do(t.Context(), decided("alice@shop.test", rules.Hold)) // weaker: nothing
	x.Do(t.Context(), decided("alice@shop.test", rules.Throttle))
	if got, want := strings.Join(p.set(), ","), "alice@shop.test block,alice@shop.test hold"; got != want {
		t.Errorf("set: %s", got)
	}
	x.Undo(t.Context(), "alice@shop.test")
	want := []string{"set alice@shop.test hold", "set alice@shop.test block", "clear alice@shop.test block", "clear alice@shop.test hold"}
	if !slices.Equal(p.did, want) {
		t.Errorf("done %v, want %v", p.did, want)
	}
}

// TestSwitchAfterACrash: whatever was interrupted, the comparison at the next
// start brings the panel to what the journal wants.
func TestSwitchAfterACrash(t *testing.T) {
	block := decided("alice@shop.test", rules.Block)
	mark := Mark{Switch: "panel", Subject: "alice@shop.test", Action: rules.Block, Undo: "before alice@shop.test"}
	done := mark
	done.Done = true
	for _, tt := range []struct {
		name   string
		marks  []Mark
		on     bool
		active []rules.Decision
		want   bool
	}{
		{"decided, not begun", nil, false, []rules.Decision{block}, true},
		{"noted, not set", []Mark{mark}, false, []rules.Decision{block}, true},
		{"noted and set, not confirmed", []Mark{mark}, true, []rules.Decision{block}, true},
		{"set, ended, not cleared", []Mark{done}, true, nil, false},
		{"noted, not set, ended", []Mark{mark}, false, nil, false},
		{"set, weakened to a throttle", []Mark{done}, true, []rules.Decision{decided("alice@shop.test", rules.Throttle)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, b := &panel{name: "panel", on: map[string]bool{}}, &book{marks: tt.marks}
			if tt.on {
				p.on["alice@shop.test block"] = true
			}
			x := switched(p, b)
			if o := x.Reconcile(t.Context(), wants(tt.active...)); !o.OK {
				t.Fatal(o.Detail)
			}
			if got := len(p.set()) == 1; got != tt.want {
				t.Errorf("set %v, want %v", got, tt.want)
			}
			if got := len(b.marks) == 1 && b.marks[0].Done; got != tt.want {
				t.Errorf("marks %+v", b.marks)
			}
			before := len(p.did)
			x.Reconcile(t.Context(), wants(tt.active...))
			if len(p.did) != before {
				t.Errorf("the second comparison did %v", p.did[before:])
			}
		})
	}
}

// TestSwitchIsGivenUp: after two failures a switch is left to people, and the
// next order tries it again.
func TestSwitchIsGivenUp(t *testing.T) {
	p, b := &panel{name: "panel", fail: errors.New("panel: no such mailbox")}, &book{}
	x := switched(p, b)
	block := decided("alice@shop.test", rules.Block)
	if o := x.Do(t.Context(), block); o.OK || errors.Is(o.Steps[len(o.Steps)-1].Err, ErrGivenUp) {
		t.Errorf("the first try: %+v", o)
	}
	o := x.Reconcile(t.Context(), wants(block))
	if err := o.Steps[len(o.Steps)-1].Err; !errors.Is(err, ErrGivenUp) {
		t.Errorf("the second try: %v", err)
	}
	x.Reconcile(t.Context(), wants(block))
	if len(p.did) != 2 {
		t.Errorf("tried %d times", len(p.did))
	}
	p.fail = nil
	if o := x.Do(t.Context(), block); !o.OK || len(p.set()) != 1 {
		t.Errorf("an order does not try again: %s", o.Detail)
	}
	p.fail = errors.New("panel: down")
	if o := x.Undo(t.Context(), block.Subject); o.OK || len(b.marks) != 1 {
		t.Errorf("an undo that failed: %s, marks %v", o.Detail, b.marks)
	}
	p.fail = nil
	if o := x.Reconcile(t.Context(), wants()); !o.OK || len(p.set())+len(b.marks) != 0 {
		t.Errorf("not undone later: %s", o.Detail)
	}
}

func TestSwitchNotWrittenDown(t *testing.T) {
	p, b := &panel{name: "panel"}, &book{}
	x := switched(p, b)
	x.Reconcile(t.Context(), wants())
	b.fail = errors.New("disk full")
	if o := x.Do(t.Context(), decided("alice@shop.test", rules.Block)); o.OK || len(p.did) != 0 {
		t.Errorf("%s; done %v", o.Detail, p.did)
	}
}

func TestSwitchNoLongerConfigured(t *testing.T) {
	b := &book{marks: []Mark{{Switch: "gone", Subject: "alice@shop.test", Action: rules.Block, Done: true}}}
	x := switched(&panel{name: "panel"}, b)
	o := x.Undo(t.Context(), "alice@shop.test")
	if o.OK || !strings.Contains(o.Detail, "gone is not configured any more") || len(b.marks) != 1 {
		t.Errorf("%s, marks %v", o.Detail, b.marks)
	}
}

// TestSwitchManyAtOnce: several accounts at the same time, orders and
// comparisons mixed, end as the journal says.
func TestSwitchManyAtOnce(t *testing.T) {
	p, b := &panel{name: "panel"}, &book{}
	x := switched(p, b)
	var want []string
	var keep []rules.Decision
	var ds []rules.Decision
	for i := range 40 {
		d := decided(fmt.Sprintf("u%02d@shop.test", i), rules.Block)
		ds = append(ds, d)
		if i%2 == 0 {
			keep = append(keep, d)
			want = append(want, d.Subject+" block")
		}
	}
	var wg sync.WaitGroup
	x.DoAll(t.Context(), ds)
	for i, d := range ds {
		if i%2 == 1 {
			wg.Go(func() { x.Undo(t.Context(), d.Subject) })
		}
	}
	wg.Go(func() { x.Reconcile(t.Context(), wants(keep...)) })
	wg.Wait()
	x.Reconcile(t.Context(), wants(keep...))
	if got := p.set(); !slices.Equal(got, want) {
		t.Errorf("set %v, want %v", got, want)
	}
	if len(b.marks) != len(want) {
		t.Errorf("%d marks, want %d", len(b.marks), len(want))
	}
}

// TestSwitchWaitsItsTurn: what was decided while a slow switch had the turn
// counts, and not what was in force before it.
func TestSwitchWaitsItsTurn(t *testing.T) {
	p, b := &panel{name: "panel"}, &book{}
	x := switched(p, b)
	alice, bob := decided("alice@shop.test", rules.Block), decided("bob@shop.test", rules.Block)
	x.Reconcile(t.Context(), wants())
	if err := x.board.turn.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	var late sync.WaitGroup
	late.Go(func() { x.Do(t.Context(), alice) })
	late.Go(func() { x.Reconcile(t.Context(), wants(alice)) })
	for x.current(alice.Subject).Action == rules.Nothing {
		time.Sleep(time.Millisecond)
	}
	late.Go(func() { x.Undo(t.Context(), alice.Subject) })
	for x.current(alice.Subject).Action != rules.Nothing {
		time.Sleep(time.Millisecond)
	}
	late.Go(func() { x.Do(t.Context(), bob) })
	for x.current(bob.Subject).Action == rules.Nothing {
		time.Sleep(time.Millisecond)
	}
	x.board.turn.give()
	late.Wait()
	if got, want := p.set(), []string{"bob@shop.test block"}; !slices.Equal(got, want) {
		t.Errorf("set %v, want %v; done %v", got, want, p.did)
	}
}

// A throttle concerns no switch, and is in force while a slow one has the turn.
func TestThrottleWaitsForNoSwitch(t *testing.T) {
	x := switched(&panel{name: "panel"}, &book{})
	x.Tables = []Table{&list{throttles: true}}
	x.Reconcile(t.Context(), wants())
	if err := x.board.turn.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer x.board.turn.give()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if o := x.Do(ctx, decided("alice@shop.test", rules.Throttle)); !o.OK {
		t.Errorf("%q", o.Detail)
	}
}

func TestPlan(t *testing.T) {
	x := switched(&panel{name: "panel"}, &book{})
	got := x.Plan(decided("alice@shop.test", rules.Block))
	if want := []string{"gate: block alice@shop.test", "panel suspend alice@shop.test"}; !slices.Equal(got, want) {
		t.Errorf("plan %q, want %q", got, want)
	}
}
