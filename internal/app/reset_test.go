package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/rules"
)

const newPassword = "kestrel-harbour-71-umbra"

// resets is a resetter that remembers what it was asked.
type resets struct {
	mu    sync.Mutex
	asked []enforce.Reset
	fail  int // how many tries fail
	shows bool
}

func (r *resets) Do(_ context.Context, o enforce.Reset) enforce.ResetOutcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, o)
	if r.fail > 0 {
		r.fail--
		return enforce.ResetOutcome{Outcome: enforce.Outcome{Detail: "password: sql: no such mailbox"}, Driver: "sql", State: enforce.ResetUnchanged}
	}
	out := enforce.ResetOutcome{Outcome: enforce.Outcome{OK: true, Detail: "password: sql"}, State: enforce.ResetGiven}
	if r.shows {
		out.Password = enforce.PasswordOf(newPassword)
	}
	return out
}

func (r *resets) Covers(string) bool { return true }

func (r *resets) Plan(o enforce.Reset) []string { return []string{"sql: UPDATE of " + o.Account} }

func (r *resets) Forget() []string { return nil }

func (r *resets) done() []enforce.Reset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// resetting is a pipeline that answers, resets included, until the test ends.
func resetting(t *testing.T, r *resets, handsOver bool) *pipeline {
	t.Helper()
	p := asked(t)
	p.resetter, p.handsOver = r, handsOver
	answers(t, p)
	return p
}

// answers has a pipeline answer, resets included, until the test ends.
func answers(t *testing.T, p *pipeline) {
	t.Helper()
	p.resets, p.resetDone, p.resetPause = make(chan passwordReset, maxResets), make(chan passwordReset), time.Millisecond
	p.work, p.answered = make(chan work, 1), make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	var asking, running sync.WaitGroup
	running.Go(func() { p.answer(ctx) })
	running.Go(func() { p.changePasswords(ctx) })
	asking.Go(func() {
		for {
			select {
			case ask := <-p.asks:
				ask()
				if len(p.orders) > 0 {
					p.hand(ctx)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		stop()
		asking.Wait()
		close(p.done)
		close(p.work)
		running.Wait()
	})
}

// stored returns everything that the database's files hold.
func stored(t *testing.T, p *pipeline) string {
	t.Helper()
	rows, err := p.store.Journal(t.Context(), store.JournalFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := p.store.Decisions(t.Context(), store.DecisionFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v %+v", rows, decisions)
}

// An operator's reset blocks first, shows the password once and keeps it
// nowhere; the account stays blocked.
func TestResetByAnOperator(t *testing.T) {
	r := &resets{shows: true}
	p := resetting(t, r, false)
	result, err := p.Act(t.Context(), web.Order{Do: doReset, Account: "Alice@shop.test", Who: "root", Why: "phoned in"})
	if err != nil || result.Password != newPassword || len(result.Failed) > 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	if did := p.acts.(*acted).did; !slices.Equal(did, []string{"reset alice@shop.test"}) {
		t.Errorf("did %v", did)
	}
	if asked := r.done(); len(asked) != 1 || asked[0].Account != victim || !slices.Contains(asked[0].Logins, victim) || asked[0].Again {
		t.Errorf("asked %+v", asked)
	}
	active, err := p.store.Active(t.Context(), time.Now().Add(1000*time.Hour))
	if err != nil || len(active) != 1 || active[0].Action != rules.Reset {
		t.Errorf("in force: %+v, %v", active, err)
	}
	if text := stored(t, p); strings.Contains(text, newPassword) || !strings.Contains(text, "phoned in") {
		t.Errorf("stored: %s", text)
	}
}

// Without a confirmed block no password is changed.
func TestResetWaitsForTheBlock(t *testing.T) {
	r := &resets{}
	p := resetting(t, r, true)
	p.acts.(*acted).fail = "postmap: no space left"
	result, err := p.Act(t.Context(), web.Order{Do: doReset, Account: victim, Who: "root"})
	if err != nil || len(result.Failed) != 1 || !strings.Contains(result.Failed[0], "the block is not confirmed") {
		t.Errorf("%+v, %v", result, err)
	}
	if asked := r.done(); len(asked) > 0 {
		t.Errorf("asked %+v", asked)
	}
}

func TestResetWhereNothingIsConfigured(t *testing.T) {
	p := resetting(t, &resets{}, false)
	p.resetter = nil
	if _, err := p.Act(t.Context(), web.Order{Do: doReset, Account: victim, Who: "root"}); err == nil || !strings.Contains(err.Error(), "configure reset") {
		t.Errorf("%v", err)
	}
	result, err := p.Act(t.Context(), web.Order{Do: doReset, Account: victim, Who: "root", DryRun: true})
	if err != nil || !strings.Contains(strings.Join(result.Done, " "), "refused") {
		t.Errorf("%+v, %v", result, err)
	}
}

// resetRules resets behind a block.
func resetRules(t *testing.T) *rules.Set {
	t.Helper()
	dir := t.TempDir()
	text := "rules:\n  - name: hijacked-mailbox\n    about: test\n    ladder:\n      - {do: block, when: score >= 10, for: 1h}\n      - {do: reset, when: score >= 16}\n"
	if err := os.WriteFile(filepath.Join(dir, "own.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := rules.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return rules.Shipped().Merge(own)
}

// A rule's reset follows its block, once, and the block then has no end.
func TestResetByARule(t *testing.T) {
	for name, tt := range map[string]struct {
		handsOver bool
		fail      int
		asked     int
		outcome   string
	}{
		"handed over":              {true, 0, 1, "done: password: sql"},
		"at the second try":        {true, 1, 2, "done: password: sql"},
		"given up":                 {true, 2, 2, "tried 2 times, do it by hand: password: sql: no such mailbox"},
		"nobody would get the new": {false, 0, 0, "nobody would get the new password"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &resets{fail: tt.fail}
			p := resetting(t, r, tt.handsOver)
			p.judge.policy = &rules.Policy{Set: resetRules(t), Mode: rules.ModeEnforce}
			block := stepFor(rules.Block, true, "")
			p.work <- workFor(block)
			p.work <- workFor(block) // decided once
			eventually(t, func() bool { return strings.Contains(stored(t, p), tt.outcome) }, func() string { return stored(t, p) })
			if asked := r.done(); len(asked) != tt.asked {
				t.Errorf("asked %+v", asked)
			}
			active, err := p.store.Active(t.Context(), time.Now().Add(1000*time.Hour))
			if err != nil || len(active) != 1 || active[0].Action != rules.Reset {
				t.Errorf("in force in six weeks: %+v, %v", active, err)
			}
		})
	}
}

// A reset that a crash interrupted is done again at the next start, and says
// that it is.
func TestResetAfterACrash(t *testing.T) {
	r := &resets{}
	p := resetting(t, r, true)
	s := stepFor(rules.Reset, true, "")
	p.work <- workFor(s)
	eventually(t, func() bool { return len(r.done()) == 1 }, func() string { return stored(t, p) })
	if !r.done()[0].Again {
		t.Error("not said to be done again")
	}
}

// What an operator asked for has nobody left to show the password to.
func TestOperatorsResetAfterACrash(t *testing.T) {
	r := &resets{shows: true}
	p := resetting(t, r, false)
	s := stepFor(rules.Reset, true, "")
	s.decision.Rule = byOperator
	p.work <- workFor(s)
	eventually(t, func() bool { return strings.Contains(stored(t, p), "run vedetta reset again") }, func() string { return stored(t, p) })
	if len(r.done()) > 0 {
		t.Error("changed a password that nobody gets")
	}
	if did := p.acts.(*acted).did; !slices.Equal(did, []string{"reset " + victim}) {
		t.Errorf("did %v, want the block", did)
	}
}

func eventually(t *testing.T, ok func() bool, state func() string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", state())
		}
	}
}
