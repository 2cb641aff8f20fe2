package app

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// forbid makes the database refuse what a trigger is about, until the
// function that it returns is called.
func forbid(t *testing.T, dir, what string) (allow func()) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "vedetta.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	run := func(query string) {
		t.Helper()
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	run("CREATE TRIGGER forbidden BEFORE " + what + " BEGIN SELECT RAISE(FAIL, 'disk full'); END")
	return func() { t.Helper(); run("DROP TRIGGER forbidden") }
}

func letters(t *testing.T, p *pipeline) (ids []string) {
	t.Helper()
	rows, err := p.store.Due(t.Context(), time.Now().Add(time.Minute), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	return ids
}

func pendingNow(t *testing.T, p *pipeline) int {
	t.Helper()
	pending, err := p.store.Pending(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(pending)
}

// A disk that fills up between a block and its alert loses neither.
func TestToldOnceItCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	p, acts, _ := answeringIn(t, dir)
	allow := forbid(t, dir, "INSERT ON outbox")
	s := stepFor(rules.Block, true, "")
	if rest := p.write(t.Context(), workFor(s), []step{s}); !empty(rest) {
		t.Fatal("the decision itself could be written")
	}
	if n := pendingNow(t, p); len(acts.did) != 1 || n != 1 {
		t.Errorf("did %q and %d pending; want one block, pending until it is told, so that a crash loses no alert", acts.did, n)
	}
	p.settle(t.Context())
	if got := letters(t, p); len(got) != 0 {
		t.Errorf("letters = %q while none can be written", got)
	}
	allow()
	p.settle(t.Context())
	if got, n := letters(t, p), pendingNow(t, p); len(got) != 1 || n != 0 {
		t.Errorf("letters = %q, %d pending; want one letter and none pending", got, n)
	}
	if open, err := p.store.OpenIncidents(t.Context()); err != nil || len(open) != 1 {
		t.Errorf("%d open incidents, %v; want 1", len(open), err)
	}
}

// An outcome that cannot be written is written later, and told no second time.
func TestOutcomeIsWrittenLater(t *testing.T) {
	dir := t.TempDir()
	p, _, _ := answeringIn(t, dir)
	allow := forbid(t, dir, "UPDATE OF outcome_at ON decisions")
	s := stepFor(rules.Block, true, "")
	p.write(t.Context(), workFor(s), []step{s})
	if got, n := letters(t, p), pendingNow(t, p); len(got) != 1 || n != 1 {
		t.Errorf("letters = %q, %d pending; want the letter and the decision pending", got, n)
	}
	allow()
	p.settle(t.Context())
	if got, n := letters(t, p), pendingNow(t, p); len(got) != 1 || n != 0 {
		t.Errorf("letters = %q, %d pending; want the same letter and none pending", got, n)
	}
}

// restarted is a service on p's database, as after a crash.
func restarted(t *testing.T, p *pipeline) (*service, *acted) {
	t.Helper()
	acts := &acted{}
	s := &service{pipeline: &pipeline{
		log: p.log, metrics: p.metrics, store: p.store, acts: acts, book: &incident.Book{}, teller: p.teller, health: p.health,
		reconciled: make(chan time.Time, 1), judge: &judge{policy: &rules.Policy{}, blast: &rules.BlastLimit{}},
	}}
	if err := s.restoreDecisions(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.enforceAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, acts
}

// A crash between the writing and the telling loses no alert, also not that of
// an installation that only observes.
func TestCrashBeforeTelling(t *testing.T) {
	for _, c := range []struct {
		name string
		step step
		did  []string
	}{
		{"enforced", stepFor(rules.Block, true, ""), []string{"block " + victim}},
		{"observed", stepFor(rules.Block, false, rules.HeldMode), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _, _ := answering(t)
			if _, err := p.store.Commit(t.Context(), workFor(c.step).batch); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second start has nothing left to do
				s, acts := restarted(t, p)
				if diff := cmp.Diff(acts.did, c.did); diff != "" {
					t.Errorf("did (-got +want):\n%s", diff)
				}
				c.did = nil
				if got := letters(t, s.pipeline); len(got) != 1 {
					t.Errorf("letters = %q, want 1", got)
				}
			}
		})
	}
}

// However many blocks are in force, each is known after a restart: none is
// taken for new, which would use up the blast limit.
func TestEveryBlockIsRemembered(t *testing.T) {
	p, _, _ := answering(t)
	at := time.Now().Add(-time.Hour)
	var b store.Batch
	for i := range 3000 {
		id := fmt.Sprintf("f-%d", i)
		b.Decisions = append(b.Decisions, rules.Decision{ID: id + "/block", Finding: id, Rule: rules.HijackedMailbox, Subject: id + "@shop.test",
			Action: rules.Block, Enforce: true, Time: at.Add(time.Duration(i) * time.Millisecond), Until: at.Add(24 * time.Hour)})
	}
	if _, err := p.store.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for _, d := range b.Decisions {
		if err := p.store.Outcome(t.Context(), d.ID, at, true, ""); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := restarted(t, p)
	for _, d := range b.Decisions {
		if s.judge.higher(d) {
			t.Fatalf("%s is taken for a new step", d.ID)
		}
	}
}

// The throttle that stands in for what cannot be written outlasts the
// comparison of the gate with the journal, and ends when the journal is whole.
func TestSlowedStaysSlowed(t *testing.T) {
	dir := t.TempDir()
	p, acts, direct := answeringIn(t, dir)
	allow := forbid(t, dir, "INSERT ON decisions")
	s := stepFor(rules.Block, true, "")
	rest := p.write(t.Context(), workFor(s), []step{s})
	house := &service{pipeline: p}
	if err := house.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(acts.inForce) != 1 || acts.inForce[0].Action != rules.Throttle || acts.inForce[0].Subject != victim {
		t.Errorf("in force after a comparison: %+v, want the throttle", acts.inForce)
	}
	if len(direct.messages) != 1 {
		t.Errorf("%d messages told at once, want 1", len(direct.messages))
	}
	allow()
	if rest = p.write(t.Context(), rest, nil); !empty(rest) {
		t.Fatal("not written")
	}
	if err := house.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(acts.inForce) != 1 || acts.inForce[0].Action != rules.Block {
		t.Errorf("in force at last: %+v, want the block alone", acts.inForce)
	}
}

// A database that cannot be written makes no storm of letters, and what nobody
// wants to hear is not told then either.
func TestNoStormWithoutDatabase(t *testing.T) {
	p, _, direct := answering(t)
	p.store.Close()
	for range 100 {
		for _, action := range []rules.Action{rules.Observe, rules.Block} {
			s := stepFor(action, action > rules.Observe, "")
			p.write(t.Context(), workFor(s), []step{s})
		}
	}
	if n, most := len(direct.messages), p.teller.sender.Limit.Max; n != most {
		t.Errorf("%d messages told at once, want %d", n, most)
	}
}

// What failed is told to be in force once a comparison has found it so.
func TestFailureRecovers(t *testing.T) {
	p, acts, _ := answering(t)
	acts.fail = "postmap: exit status 1"
	s := stepFor(rules.Block, true, "")
	p.write(t.Context(), workFor(s), []step{s})
	house := &service{pipeline: p}
	if err := house.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.reconciled:
		t.Fatal("a failed comparison counts")
	default:
	}
	acts.fail = ""
	for range 2 { // the second comparison has no news
		if err := house.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.recovered(t.Context(), <-p.reconciled)
	}
	if got := letters(t, p); len(got) != 2 {
		t.Errorf("letters = %q, want one of the failure and one of its end", got)
	}
	rows, err := p.store.Decisions(t.Context(), store.DecisionFilter{})
	if err != nil || len(rows) != 1 || !rows[0].OK {
		t.Errorf("decisions = %+v, %v; want one that is in force", rows, err)
	}
}

// That holds over a restart too: what had failed is told to be in force by the
// first comparison that finds it so.
func TestFailureRecoversAfterRestart(t *testing.T) {
	p, acts, _ := answering(t)
	acts.fail = "postmap: exit status 1"
	s := stepFor(rules.Block, true, "")
	p.write(t.Context(), workFor(s), []step{s})
	again, _ := restarted(t, p)
	if err := again.restoreIncidents(t.Context()); err != nil {
		t.Fatal(err)
	}
	again.recovered(t.Context(), <-again.reconciled)
	if got := letters(t, p); len(got) != 2 {
		t.Errorf("letters = %q, want one of the failure and one of its end", got)
	}
}

// While nothing can be written, memory is bounded: the log waits.
func TestUnwrittenIsBounded(t *testing.T) {
	p, _, _ := answering(t)
	p.store.Close()
	p.work, p.done, p.answered = make(chan work), make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- p.answer(t.Context()) }()
	big := work{batch: store.Batch{Positions: map[string][]byte{}, Messages: make([]store.MessageState, maxUnwritten+1)}}
	for i := range big.batch.Messages {
		big.batch.Messages[i].Key = uint64(i)
	}
	p.work <- big
	select {
	case p.work <- work{}:
		t.Error("more is taken although nothing can be written")
	case <-time.After(50 * time.Millisecond):
	}
	close(p.done)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// When the blast limit speaks, people are called, also where they want to hear
// of blocks only and the account's throttle is no news.
func TestBlastLimitPages(t *testing.T) {
	p, _, _ := answering(t)
	p.teller.from = rules.Block
	s := stepFor(rules.Block, true, "")
	s.decision, s.page = s.decision.Weakened(rules.HeldBlast+": 20 subjects within 1h0m0s were stopped already"), true
	p.write(t.Context(), workFor(s), []step{s})
	want := []string{"blast-limit/" + s.decision.ID + "/webhook"}
	if diff := cmp.Diff(letters(t, p), want); diff != "" {
		t.Errorf("letters (-got +want):\n%s", diff)
	}
}

// A crash between the limit's word and the letter loses neither.
func TestCrashBeforePaging(t *testing.T) {
	p, _, _ := answering(t)
	p.teller.from = rules.Block
	s := stepFor(rules.Block, true, "")
	s.decision = s.decision.Weakened(rules.HeldBlast + ": 20 subjects within 1h0m0s were stopped already")
	if _, err := p.store.Commit(t.Context(), workFor(s).batch); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		restarted(t, p)
	}
	want := []string{"blast-limit/" + s.decision.ID + "/webhook"}
	if diff := cmp.Diff(letters(t, p), want); diff != "" {
		t.Errorf("letters (-got +want):\n%s", diff)
	}
}

// A shared identity is only ever observed, so to observe it is worth a letter.
func TestSharedIdentityIsTold(t *testing.T) {
	p, _, _ := answering(t)
	s := stepFor(rules.Observe, false, "")
	s.finding.Shared = true
	p.write(t.Context(), workFor(s), []step{s})
	if got := letters(t, p); len(got) != 1 {
		t.Errorf("letters = %q, want 1", got)
	}
}

// A listed is a table that remembers who is in it.
type listed struct{ subjects []string }

func (l *listed) Name() string { return "table" }

func (*listed) Least() rules.Action { return rules.Hold }

func (*listed) Keys(e enforce.Entry) ([]string, error) { return e.Logins, nil }

func (l *listed) Apply(_ context.Context, entries []enforce.Entry) error {
	l.subjects = nil
	for _, e := range entries {
		if e.Action >= l.Least() {
			l.subjects = append(l.subjects, e.Subject)
		}
	}
	return nil
}

// A block ends by itself: the gate lets the account send at once, and the next
// comparison takes it out of the table and notes its end.
func TestBlocksEndByThemselves(t *testing.T) {
	p, _, _ := answering(t)
	door, table := &gate.Table{}, &listed{}
	p.acts = &enforce.Executor{Gate: door, Tables: []enforce.Table{table}}
	house := &service{pipeline: p}
	if err := house.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := stepFor(rules.Block, true, "")
	p.write(t.Context(), workFor(s), []step{s})
	if door.Lookup(victim, time.Now()) == nil || len(table.subjects) != 1 {
		t.Fatalf("gate %v, table %q; want the block in both", door.Lookup(victim, time.Now()), table.subjects)
	}
	if v := door.Lookup(victim, s.decision.Until); v != nil {
		t.Errorf("the gate still answers %s when the block is over", v.Answer())
	}
	if _, err := p.store.Expire(t.Context(), s.decision.Until); err != nil { // as when that time has come
		t.Fatal(err)
	}
	if err := house.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if door.Len() != 0 || len(table.subjects) != 0 {
		t.Errorf("%d in the gate, table %q; want neither", door.Len(), table.subjects)
	}
}
