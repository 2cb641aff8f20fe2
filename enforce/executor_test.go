package enforce

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// memory is a gate that remembers.
type memory struct {
	mu    sync.Mutex
	holds map[string]rules.Action
}

func (g *memory) Set(d rules.Decision, text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds == nil {
		g.holds = map[string]rules.Action{}
	}
	g.holds[d.Subject] = d.Action
}

func (g *memory) Remove(subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.holds, subject)
}

func (g *memory) all() map[string]rules.Action {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.holds)
}

// list is a table that remembers what it was last made to hold.
type list struct {
	wait      chan struct{} // closed: writes go through; nil: they do
	throttles bool          // holds throttled accounts too

	mu      sync.Mutex
	err     error
	applied int
	holds   map[string]rules.Action
}

func (l *list) Least() rules.Action {
	if l.throttles {
		return rules.Throttle
	}
	return rules.Hold
}

func (l *list) Name() string { return "list" }

func (l *list) Keys(e Entry) ([]string, error) { return e.Logins, nil }

func (l *list) Apply(ctx context.Context, entries []Entry) error {
	if l.wait != nil {
		<-l.wait
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applied++
	if l.err != nil {
		return l.err
	}
	l.holds = map[string]rules.Action{}
	for _, e := range entries {
		if e.Action < l.Least() {
			continue
		}
		for _, login := range e.Logins {
			l.holds[login] = e.Action
		}
	}
	return nil
}

func (l *list) all() map[string]rules.Action {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.holds)
}

func decision(action rules.Action, subject string) rules.Decision {
	return rules.Decision{Subject: subject, Action: action, Enforce: true}
}

func until(d rules.Decision, t time.Time) rules.Decision {
	d.Until = t
	return d
}

func loading(ds ...rules.Decision) func(context.Context) ([]rules.Decision, error) {
	return func(context.Context) ([]rules.Decision, error) { return ds, nil }
}

// started returns an executor that knows that nothing is in force.
func started(t testing.TB) (*Executor, *memory, *list) {
	t.Helper()
	g, l := &memory{}, &list{}
	x := &Executor{Gate: g, Tables: []Table{l}}
	if o := x.Reconcile(t.Context(), loading()); !o.OK {
		t.Fatal(o.Detail)
	}
	return x, g, l
}

func TestDo(t *testing.T) {
	type holds = map[string]rules.Action
	now := time.Now()
	block := decision(rules.Block, "alice@shop.test")
	observed := block
	observed.Enforce = false
	for _, test := range []struct {
		name        string
		do          []rules.Decision
		gate, table holds
		detail      string // of the last
	}{
		{"block", []rules.Decision{block}, holds{"alice@shop.test": rules.Block}, holds{"alice@shop.test": rules.Block}, "gate: block; list"},
		{"reset", []rules.Decision{decision(rules.Reset, "alice@shop.test")}, holds{"alice@shop.test": rules.Reset}, holds{"alice@shop.test": rules.Reset}, "gate: reset; list"},
		{"hold", []rules.Decision{decision(rules.Hold, "alice@shop.test")}, holds{"alice@shop.test": rules.Hold}, holds{"alice@shop.test": rules.Hold}, "gate: hold; list"},
		{"throttle", []rules.Decision{decision(rules.Throttle, "alice@shop.test")}, holds{"alice@shop.test": rules.Throttle}, holds{}, "gate: throttle"},
		{"observe", []rules.Decision{decision(rules.Observe, "alice@shop.test")}, nil, holds{}, "observe: nothing to do"},
		{"not enforced", []rules.Decision{observed}, nil, holds{}, "only observed"},
		{"over", []rules.Decision{until(block, now.Add(-time.Minute))}, nil, holds{}, "over since"},
		{"twice", []rules.Decision{block, block}, holds{"alice@shop.test": rules.Block}, holds{"alice@shop.test": rules.Block}, "gate: block; list"},
		{"script", []rules.Decision{decision(rules.Block, "script:/home/u/x.php")}, holds{"script:/home/u/x.php": rules.Block}, holds{}, "gate: block; list"},
		{"escalated", []rules.Decision{decision(rules.Throttle, "alice@shop.test"), block}, holds{"alice@shop.test": rules.Block}, holds{"alice@shop.test": rules.Block}, "gate: block; list"},
		{"weaker later", []rules.Decision{block, decision(rules.Throttle, "alice@shop.test")}, holds{"alice@shop.test": rules.Block}, holds{"alice@shop.test": rules.Block}, "gate: block; list"},
		{"two accounts", []rules.Decision{block, decision(rules.Hold, "bob@shop.test")}, holds{"alice@shop.test": rules.Block, "bob@shop.test": rules.Hold}, holds{"alice@shop.test": rules.Block, "bob@shop.test": rules.Hold}, "gate: hold; list"},
	} {
		t.Run(test.name, func(t *testing.T) {
			x, g, l := started(t)
			var last Outcome
			for _, d := range test.do {
				last = x.Do(t.Context(), d)
				if !last.OK {
					t.Errorf("%v: %s", d.Action, last.Detail)
				}
			}
			if !strings.HasPrefix(last.Detail, test.detail) {
				t.Errorf("detail: got %q, want %q", last.Detail, test.detail)
			}
			if diff := cmp.Diff(g.all(), test.gate); diff != "" {
				t.Errorf("gate (-got +want):\n%s", diff)
			}
			if diff := cmp.Diff(l.all(), test.table); diff != "" {
				t.Errorf("table (-got +want):\n%s", diff)
			}
			for _, d := range append(test.do, test.do...) {
				if o := x.Undo(t.Context(), d.Subject); !o.OK {
					t.Errorf("undo: %s", o.Detail)
				}
			}
			if len(g.all())+len(l.all()) > 0 {
				t.Errorf("after undo: gate %v, table %v", g.all(), l.all())
			}
		})
	}
}

func TestDecisionAboutNobody(t *testing.T) {
	x, g, _ := started(t)
	if o := x.Do(t.Context(), decision(rules.Block, "")); o.OK || len(g.all()) > 0 {
		t.Errorf("got %+v, gate %v", o, g.all())
	}
}

func TestFailingTableDoesNotKeepTheGateFromBlocking(t *testing.T) {
	x, g, l := started(t)
	second := &list{}
	x.Tables = append(x.Tables, second)
	l.err = errors.New("disk is full")
	o := x.Do(t.Context(), decision(rules.Block, "alice@shop.test"))
	if o.OK || o.Detail != "gate: block; list: FAILED: disk is full; list" {
		t.Errorf("got %v %q", o.OK, o.Detail)
	}
	want := map[string]rules.Action{"alice@shop.test": rules.Block}
	if diff := cmp.Diff(g.all(), want); diff != "" {
		t.Errorf("gate (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(second.all(), want); diff != "" {
		t.Errorf("the other table (-got +want):\n%s", diff)
	}
	l.err = nil
	if o := x.Reconcile(t.Context(), loading(decision(rules.Block, "alice@shop.test"))); !o.OK {
		t.Error(o.Detail)
	}
	if diff := cmp.Diff(l.all(), want); diff != "" {
		t.Errorf("the table after a minute (-got +want):\n%s", diff)
	}
}

func TestTablesWaitForTheFirstReconcile(t *testing.T) {
	g, l := &memory{}, &list{holds: map[string]rules.Action{"bob@shop.test": rules.Block}}
	x := &Executor{Gate: g, Tables: []Table{l}}
	o := x.Do(t.Context(), decision(rules.Block, "alice@shop.test"))
	if o.OK || !errors.Is(o.Steps[1].Err, ErrNotReconciled) || l.applied > 0 {
		t.Errorf("got %q, %d writes", o.Detail, l.applied)
	}
	if g.all()["alice@shop.test"] != rules.Block {
		t.Error("the gate does not block")
	}
	failed := errors.New("database is locked")
	if o := x.Reconcile(t.Context(), func(context.Context) ([]rules.Decision, error) { return nil, failed }); o.OK || !errors.Is(o.Steps[0].Err, failed) || l.applied > 0 {
		t.Errorf("a reconciliation that could not load: %q, %d writes", o.Detail, l.applied)
	}
	if g.all()["alice@shop.test"] != rules.Block {
		t.Error("a failed load released somebody")
	}
}

func TestReconcile(t *testing.T) {
	now := time.Now()
	x, g, l := started(t)
	x.Do(t.Context(), decision(rules.Block, "gone@shop.test"))
	unenforced := decision(rules.Block, "observed@shop.test")
	unenforced.Enforce = false
	active := loading(
		until(decision(rules.Block, "over@shop.test"), now.Add(-time.Second)),
		decision(rules.Throttle, "slow@shop.test"),
		decision(rules.Observe, "seen@shop.test"),
		unenforced,
		until(decision(rules.Block, "both@shop.test"), now.Add(time.Hour)),
		decision(rules.Hold, "both@shop.test"),
		until(decision(rules.Block, "then@shop.test"), now.Add(-time.Second)), // over: what is weaker counts again
		decision(rules.Hold, "then@shop.test"),
	)
	for range 2 {
		if o := x.Reconcile(t.Context(), active); !o.OK || o.Detail != "gate: 3 in force; list" {
			t.Errorf("got %v %q", o.OK, o.Detail)
		}
		gate := map[string]rules.Action{"slow@shop.test": rules.Throttle, "both@shop.test": rules.Block, "then@shop.test": rules.Hold}
		if diff := cmp.Diff(g.all(), gate); diff != "" {
			t.Errorf("gate (-got +want):\n%s", diff)
		}
		delete(gate, "slow@shop.test")
		if diff := cmp.Diff(l.all(), gate); diff != "" {
			t.Errorf("table (-got +want):\n%s", diff)
		}
	}
}

func TestReconcileEndsWhatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, g, l := started(t)
		d := until(decision(rules.Block, "alice@shop.test"), time.Now().Add(time.Hour))
		x.Do(t.Context(), d)
		time.Sleep(time.Hour - time.Second)
		x.Reconcile(t.Context(), loading(d))
		if len(g.all()) != 1 || len(l.all()) != 1 {
			t.Errorf("a second before its end: gate %v, table %v", g.all(), l.all())
		}
		time.Sleep(time.Second)
		x.Reconcile(t.Context(), loading(d))
		if len(g.all())+len(l.all()) > 0 {
			t.Errorf("at its end: gate %v, table %v", g.all(), l.all())
		}
	})
}

// TestReconcileDoesNotRevertWhatHappensMeanwhile: the journal is read, then
// somebody is blocked and somebody released, then the old answer arrives.
func TestReconcileDoesNotRevertWhatHappensMeanwhile(t *testing.T) {
	x, g, l := started(t)
	x.Do(t.Context(), decision(rules.Block, "released@shop.test"))
	x.Reconcile(t.Context(), func(ctx context.Context) ([]rules.Decision, error) {
		stale := []rules.Decision{decision(rules.Block, "released@shop.test"), decision(rules.Hold, "other@shop.test")}
		x.Do(ctx, decision(rules.Block, "new@shop.test"))
		x.Undo(ctx, "released@shop.test")
		return stale, nil
	})
	want := map[string]rules.Action{"new@shop.test": rules.Block, "other@shop.test": rules.Hold}
	if diff := cmp.Diff(g.all(), want); diff != "" {
		t.Errorf("gate (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(l.all(), want); diff != "" {
		t.Errorf("table (-got +want):\n%s", diff)
	}
}

func TestManyChangesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _, l := started(t)
		l.wait = make(chan struct{})
		before := l.applied
		outcomes := make([]Outcome, 100)
		var wg sync.WaitGroup
		for i := range outcomes {
			wg.Go(func() {
				outcomes[i] = x.Do(t.Context(), decision(rules.Block, fmt.Sprintf("user%d@shop.test", i)))
			})
		}
		synctest.Wait() // the first is writing, all others wait for it
		close(l.wait)
		wg.Wait()
		for i, o := range outcomes {
			if !o.OK {
				t.Errorf("%d: %s", i, o.Detail)
			}
		}
		if got := l.applied - before; got != 2 {
			t.Errorf("%d writes, want 2", got)
		}
		if got := len(l.all()); got != len(outcomes) {
			t.Errorf("the table holds %d accounts, want %d", got, len(outcomes))
		}
	})
}

func TestDoAllWritesOnce(t *testing.T) {
	x, _, l := started(t)
	before := l.applied
	out := x.DoAll(t.Context(), []rules.Decision{
		decision(rules.Block, "a@shop.test"), decision(rules.Throttle, "b@shop.test"), decision(rules.Hold, "c@shop.test"), {},
	})
	details := make([]string, len(out))
	for i := range out {
		details[i] = out[i].Detail
	}
	want := []string{"gate: block; list", "gate: throttle", "gate: hold; list", "the decision names nobody"}
	if diff := cmp.Diff(details, want); diff != "" {
		t.Errorf("outcomes (-got +want):\n%s", diff)
	}
	if got := l.applied - before; got != 1 {
		t.Errorf("%d writes, want 1", got)
	}
	if out := x.DoAll(t.Context(), nil); len(out) > 0 {
		t.Errorf("nothing to do, but %v", out)
	}
}

// What would be done names the tables that would hold the account, and by what.
func TestPlanNamesTheTables(t *testing.T) {
	x := &Executor{Tables: []Table{
		&PostfixTable{Path: "/access"}, &PostfixLocal{PostfixTable: PostfixTable{Path: "/local"}}, &EximAway{Path: "/away"}, &DovecotDeny{Path: "/deny"},
		&PostfixClients{PostfixTable: PostfixTable{Path: "/clients"}},
	}}
	clients := x.Tables[4].Name()
	away := (&EximAway{Path: "/away"}).Name()
	deferring := &Executor{Tables: []Table{&EximAway{Path: "/away", Defer: true}}}
	if got := deferring.Plan(decision(rules.Throttle, "script:/home/u/x.php")); len(got) != 1 {
		t.Errorf("the throttle of a script, where throttles defer, is %q; want the gate alone", got)
	}
	for _, row := range []struct {
		d    rules.Decision
		want []string
	}{
		{decision(rules.Hold, "alice@shop.test"), []string{"gate: hold alice@shop.test", "postfix table /access: alice@shop.test", away + ": alice@shop.test"}},
		{decision(rules.Block, "alice@shop.test"), []string{"gate: block alice@shop.test", "postfix table /access: alice@shop.test", away + ": alice@shop.test", "Dovecot deny file /deny: alice@shop.test"}},
		{decision(rules.Throttle, "alice@shop.test"), []string{"gate: throttle alice@shop.test", away + ": alice@shop.test"}},
		{decision(rules.Block, `al"ice@shop.test`), []string{`gate: block al"ice@shop.test`, `postfix table /access: left out: login cannot be written into the table: "al\"ice@shop.test"`,
			away + `: left out: login cannot be written into the table: "al\"ice@shop.test"`, `Dovecot deny file /deny: al"ice@shop.test`}},
		{decision(rules.Block, "script:33:x.php"), []string{"gate: block script:33:x.php", "Postfix's local mail /local: script:33:x.php"}},
		{decision(rules.Hold, "script:/home/u/x.php"), []string{"gate: hold script:/home/u/x.php", away + ": " + scriptKey("/home/u/x.php")}},
		{decision(rules.Block, "client:2001:db8::7"), []string{"gate: block client:2001:db8::7", away + ": client:2001:db8::7",
			clients + ": left out: client cannot be written into the table: Postfix would take 2001:db8::7:… for 2001:db8::7 too; the gate can stop it"}},
	} {
		if diff := cmp.Diff(x.Plan(row.d), row.want); diff != "" {
			t.Errorf("%v %s (-got +want):\n%s", row.d.Action, row.d.Subject, diff)
		}
	}
}

// A table that holds throttled accounts is written for them; another one is not
// their business, whatever becomes of it.
func TestThrottlesInTables(t *testing.T) {
	x, _, strict := started(t)
	slow := &list{throttles: true}
	x.Tables = append(x.Tables, slow)
	strict.err = errors.New("the disk is full")
	carol := "carol@shop.test"
	for _, step := range []struct {
		do         func() Outcome
		detail     string
		strict, in rules.Action // what the tables hold of carol
	}{
		{func() Outcome { return x.Do(t.Context(), decision(rules.Throttle, carol)) }, "gate: throttle; list", 0, rules.Throttle},
		{func() Outcome { return x.Do(t.Context(), decision(rules.Throttle, carol)) }, "gate: throttle; list", 0, rules.Throttle},
		{func() Outcome { strict.err = nil; return x.Do(t.Context(), decision(rules.Block, carol)) }, "gate: block; list; list", rules.Block, rules.Block},
		{func() Outcome { return x.Replace(t.Context(), []rules.Decision{decision(rules.Throttle, carol)})[0] }, "gate: throttle; list; list", 0, rules.Throttle},
		{func() Outcome { return x.Undo(t.Context(), carol) }, "gate: removed; list; list", 0, 0},
	} {
		if o := step.do(); !o.OK || o.Detail != step.detail {
			t.Errorf("%t %q, want %q", o.OK, o.Detail, step.detail)
		}
		if a, b := strict.all()[carol], slow.all()[carol]; a != step.strict || b != step.in {
			t.Errorf("after %q the tables hold %v and %v, want %v and %v", step.detail, a, b, step.strict, step.in)
		}
	}
}

func TestWaitingForATableEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, g, l := started(t)
		l.wait = make(chan struct{})
		first := make(chan Outcome, 1)
		go func() { first <- x.Do(context.Background(), decision(rules.Block, "a@shop.test")) }()
		synctest.Wait() // it is writing
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		o := x.Do(ctx, decision(rules.Block, "b@shop.test"))
		if o.OK || !errors.Is(o.Steps[1].Err, context.Canceled) {
			t.Errorf("got %q", o.Detail)
		}
		if g.all()["b@shop.test"] != rules.Block {
			t.Error("the gate does not block")
		}
		close(l.wait)
		if o := <-first; !o.OK {
			t.Error(o.Detail)
		}
	})
}

func TestLogins(t *testing.T) {
	logins := Logins(&mailq.Directory{
		Realm: "Shop.test",
		Aliases: map[string]string{
			"info@shop.test":   "alice@shop.test",
			"sales@other.test": "info@shop.test",
			"al":               "alice@shop.test",
			"bob":              "bob@other.test", // so the bare name is not bob@shop.test's
		},
	})
	for subject, want := range map[string][]string{
		"alice@shop.test": {"al", "alice", "alice%shop.test", "alice@shop.test", "info", "info%shop.test", "info@shop.test",
			"sales%other.test", "sales@other.test"},
		"bob@shop.test":        {"bob%shop.test", "bob@shop.test"},
		"bob@other.test":       {"bob", "bob%other.test", "bob@other.test"},
		"info@shop.test":       nil, // an alias is no account
		"script:/home/u/x.php": nil,
		"client:192.0.2.1":     nil,
		"":                     nil,
	} {
		if diff := cmp.Diff(slices.Clone(logins(subject)), want, cmp.Transformer("empty", func(s []string) []string {
			return append([]string{}, s...)
		})); diff != "" {
			t.Errorf("logins of %q (-got +want):\n%s", subject, diff)
		}
	}
	if diff := cmp.Diff(Logins(nil)("alice@shop.test"), []string{"alice%shop.test", "alice@shop.test"}); diff != "" {
		t.Errorf("without a directory (-got +want):\n%s", diff)
	}
}

// The journal has one line, however many names a table cannot hold.
func TestDetailIsOneLine(t *testing.T) {
	x := &Executor{
		Tables: []Table{&EximTable{BlockPath: filepath.Join(t.TempDir(), "block")}},
		Logins: func(subject string) []string { return []string{subject, "<" + subject} },
	}
	if o := x.Reconcile(t.Context(), func(context.Context) ([]rules.Decision, error) { return nil, nil }); !o.OK {
		t.Fatal(o.Detail)
	}
	o := x.Do(t.Context(), rules.Decision{Subject: ">odd@shop.test", Action: rules.Block, Enforce: true})
	if named := strings.Count(o.Detail, ErrLogin.Error()); o.OK || named != 2 || strings.Contains(o.Detail, "\n") {
		t.Errorf("%d names are left out: %q; want 2, in one line", named, o.Detail)
	}
}

// What a table cannot hold of one account is that account's failure, and does
// not keep others from being confirmed.
func TestWhatIsLeftOutIsItsOwnFailure(t *testing.T) {
	dir := t.TempDir()
	x := &Executor{Tables: []Table{
		&DovecotDeny{Path: filepath.Join(dir, "deny")},
		&EximTable{BlockPath: filepath.Join(dir, "block")},
		&SubmitUsers{PostfixTable: PostfixTable{Path: filepath.Join(dir, "users"), Type: "texthash"}},
	}}
	none := func(context.Context) ([]rules.Decision, error) { return nil, nil }
	if o := x.Reconcile(t.Context(), none); !o.OK {
		t.Fatal(o.Detail)
	}
	block := func(subject string) rules.Decision {
		return rules.Decision{Subject: subject, Action: rules.Block, Enforce: true}
	}
	odd, user := "#odd:name@shop.test", "user:*"
	for _, o := range x.DoAll(t.Context(), []rules.Decision{block(odd), block(user)}) {
		if o.OK {
			t.Errorf("confirmed what no table can hold: %s", o.Detail)
		}
	}
	out := x.DoAll(t.Context(), []rules.Decision{block("alice@shop.test"), block(odd)})
	if !out[0].OK || strings.Contains(out[0].Detail, "odd") {
		t.Errorf("alice: %s", out[0].Detail)
	}
	if out[1].OK || !strings.Contains(out[1].Detail, ErrLogin.Error()) {
		t.Errorf("the odd one: %s", out[1].Detail)
	}
	if o := x.Undo(t.Context(), "alice@shop.test"); !o.OK {
		t.Errorf("undo: %s", o.Detail)
	}
	all := func(context.Context) ([]rules.Decision, error) { return []rules.Decision{block(odd)}, nil }
	if o := x.Reconcile(t.Context(), all); o.OK {
		t.Error("all is said to be well")
	}
}

// TestReplace: what a higher authority says now takes the place of what is
// stronger, in the gate, the tables and the switches.
func TestReplace(t *testing.T) {
	x, g, l := started(t)
	p := &panel{name: "panel"}
	x.Switches, x.Marks = []Switch{p}, &book{}
	alice := "alice@shop.test"
	x.Do(t.Context(), decision(rules.Hold, alice))
	x.Do(t.Context(), decision(rules.Block, alice))
	for _, action := range []rules.Action{rules.Hold, rules.Throttle, rules.Block} {
		if o := x.Replace(t.Context(), []rules.Decision{decision(action, alice)})[0]; !o.OK {
			t.Errorf("%v: %s", action, o.Detail)
		}
		table, switched := map[string]rules.Action{alice: action}, []string{alice + " " + action.String()}
		if action == rules.Throttle { // no table and no switch can
			clear(table)
			switched = nil
		}
		if got := g.all()[alice]; got != action {
			t.Errorf("gate: %v, want %v", got, action)
		}
		if diff := cmp.Diff(l.all(), table); diff != "" {
			t.Errorf("table after %v (-got +want):\n%s", action, diff)
		}
		if diff := cmp.Diff(p.set(), switched, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("switches after %v (-got +want):\n%s", action, diff)
		}
	}
}
