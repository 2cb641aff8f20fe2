package app

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/notify"
	"github.com/vedetta-watch/vedetta/rules"
)

// acted is an executor that writes down what it was asked for.
type acted struct {
	did     []string
	inForce []rules.Decision // at the last comparison
	fail    string           // detail of every outcome, which then is a failure
}

func (a *acted) outcome() enforce.Outcome { return enforce.Outcome{OK: a.fail == "", Detail: a.fail} }

func (a *acted) DoAll(_ context.Context, ds []rules.Decision) []enforce.Outcome {
	outcomes := make([]enforce.Outcome, len(ds))
	for i, d := range ds {
		a.did = append(a.did, d.Action.String()+" "+d.Subject)
		outcomes[i] = a.outcome()
	}
	return outcomes
}

func (a *acted) Replace(ctx context.Context, ds []rules.Decision) []enforce.Outcome {
	return a.DoAll(ctx, ds)
}

func (a *acted) Undo(_ context.Context, subject string) enforce.Outcome {
	a.did = append(a.did, "undo "+subject)
	return a.outcome()
}

func (a *acted) Reconcile(ctx context.Context, active func(context.Context) ([]rules.Decision, error)) enforce.Outcome {
	a.inForce, _ = active(ctx)
	return a.outcome()
}

func (a *acted) Plan(d rules.Decision) []string {
	return []string{"gate: " + d.Action.String() + " " + d.Subject}
}

// sentNow is a channel that keeps what it is given.
type sentNow struct{ messages []notify.Message }

func (s *sentNow) Send(_ context.Context, m notify.Message) error {
	s.messages = append(s.messages, m)
	return nil
}

// answering is a pipeline whose second half can be called by itself.
func answering(t *testing.T) (*pipeline, *acted, *sentNow) {
	t.Helper()
	return answeringIn(t, t.TempDir())
}

func answeringIn(t *testing.T, dir string) (*pipeline, *acted, *sentNow) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(dir, "vedetta.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	m := newMetrics(prometheus.NewRegistry())
	log := slog.New(slog.DiscardHandler)
	tell, err := newTeller(config.Default().Notify, "mx1", db, m, log)
	if err != nil {
		t.Fatal(err)
	}
	direct := &sentNow{}
	tell.channels = []namedChannel{{"webhook", direct}}
	acts := &acted{}
	return &pipeline{
		reconciled: make(chan time.Time, 1),
		log:        log, metrics: m, store: db, acts: acts, book: &incident.Book{}, teller: tell,
		health: &health{parts: map[string]string{}}, judge: &judge{policy: &rules.Policy{}},
	}, acts, direct
}

const victim = "alice@shop.test"

func stepFor(action rules.Action, enforce bool, heldBack string) step {
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	f := rules.Finding{
		ID: rules.FindingID(rules.HijackedMailbox, victim, at), Rule: rules.HijackedMailbox, Subject: victim, Time: at, Since: at,
		Score: 17, Families: 2, Class: "login", Evidence: []rules.Evidence{{Kind: rules.Novelty, Score: 17, Text: "9 of 9 recipients"}},
	}
	return step{finding: f, decision: rules.Decision{
		ID: rules.DecisionID(f.ID, action), Finding: f.ID, Rule: f.Rule, Subject: victim, Action: action,
		Time: time.Now(), Until: time.Now().Add(time.Hour), Why: "score 17", Enforce: enforce, HeldBack: heldBack,
	}}
}

func workFor(s step) work {
	return work{steps: []step{s}, batch: store.Batch{
		Findings: []rules.Finding{s.finding}, Decisions: []rules.Decision{s.decision},
	}}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name string
		step step
		fail string
		did  []string
		told int
	}{
		{"blocks", stepFor(rules.Block, true, ""), "", []string{"block " + victim}, 1},
		{"observing is only told", stepFor(rules.Block, false, rules.HeldMode), "", nil, 1},
		{"exempt is only told", stepFor(rules.Block, false, rules.HeldExempt), "", nil, 1},
		{"observe is not worth a letter", stepFor(rules.Observe, false, ""), "", nil, 0},
		{"a failed action is told", stepFor(rules.Block, true, ""), "postmap: exit status 1", []string{"block " + victim}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, acts, _ := answering(t)
			acts.fail = c.fail
			for range 2 { // the same hand-over again changes nothing
				if rest := p.write(t.Context(), workFor(c.step), []step{c.step}); !empty(rest) {
					t.Fatal("not written")
				}
			}
			if diff := cmp.Diff(acts.did, c.did); diff != "" {
				t.Errorf("did (-got +want):\n%s", diff)
			}
			letters, err := p.store.Due(t.Context(), time.Now().Add(time.Minute), 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(letters) != c.told {
				t.Errorf("%d letters, want %d", len(letters), c.told)
			}
			pending, err := p.store.Pending(t.Context())
			if err != nil || len(pending) > 0 {
				t.Errorf("pending = %v, %v, want none: every outcome is written", pending, err)
			}
		})
	}
}

// What cannot be written down is not done: the account is slowed from memory,
// and people are told without the outbox.
func TestNoTraceNoAction(t *testing.T) {
	p, acts, direct := answering(t)
	p.store.Close()
	s := stepFor(rules.Block, true, "")
	rest := p.write(t.Context(), workFor(s), []step{s})
	if empty(rest) {
		t.Error("the hand-over is not kept to be tried again")
	}
	if diff := cmp.Diff(acts.did, []string{"throttle " + victim}); diff != "" {
		t.Errorf("did (-got +want):\n%s", diff)
	}
	if len(direct.messages) != 1 {
		t.Errorf("%d messages told at once, want 1", len(direct.messages))
	}
	if h := p.Health(t.Context()); h.OK {
		t.Error("healthy although nothing can be written")
	}
}

func TestMergeKeepsTheNewest(t *testing.T) {
	account := func(name, state string) store.AccountState {
		return store.AccountState{Account: name, State: []byte(state)}
	}
	older := work{batch: store.Batch{
		Positions: map[string][]byte{"a": []byte("1"), "b": []byte("1")},
		Accounts:  []store.AccountState{account("x", "1"), account("y", "1")},
	}}
	newer := work{batch: store.Batch{
		Positions: map[string][]byte{"a": []byte("2")},
		Accounts:  []store.AccountState{account("x", "2")},
	}}
	got := merge(older, newer).batch
	want := store.Batch{
		Positions: map[string][]byte{"a": []byte("2"), "b": []byte("1")},
		Accounts:  []store.AccountState{account("y", "1"), account("x", "2")},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("merged (-got +want):\n%s", diff)
	}
}

func TestRungs(t *testing.T) {
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	d := func(action rules.Action, enforce bool, after, length time.Duration) rules.Decision {
		return rules.Decision{Finding: "f-1", Action: action, Enforce: enforce, Time: at.Add(after), Until: at.Add(after + length)}
	}
	had := d(rules.Throttle, true, 0, time.Hour)
	for _, c := range []struct {
		name   string
		next   rules.Decision
		higher bool
	}{
		{"the same again", d(rules.Throttle, true, time.Minute, time.Hour), false},
		{"weaker", d(rules.Observe, false, time.Minute, 0), false},
		{"stronger", d(rules.Hold, true, time.Minute, time.Hour), true},
		{"the same after it ended", d(rules.Throttle, true, 2*time.Hour, time.Hour), true},
		{"another episode", rules.Decision{Finding: "f-2", Action: rules.Observe}, true},
	} {
		j := &judge{}
		j.climb(had)
		if got := j.higher(c.next); got != c.higher {
			t.Errorf("%s: higher = %v, want %v", c.name, got, c.higher)
		}
	}
	j := &judge{}
	j.climb(d(rules.Block, false, 0, time.Hour))
	if !j.higher(d(rules.Block, true, time.Minute, time.Hour)) {
		t.Error("a block that was only proposed keeps one from being carried out")
	}
}

// A block that was only proposed, by old news or while observing, keeps no
// throttle from being carried out; and each is said once.
func TestProposalsHinderNothing(t *testing.T) {
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	j := &judge{}
	for i, c := range []struct {
		action  rules.Action
		enforce bool
		after   time.Duration
		higher  bool
	}{
		{rules.Block, false, 0, true},                           // old news
		{rules.Throttle, false, time.Minute, false},             // less, and no more than proposed
		{rules.Throttle, true, 2 * time.Minute, true},           // now it is done
		{rules.Throttle, true, 3 * time.Minute, false},          // as before
		{rules.Block, false, 4 * time.Minute, false},            // proposed before
		{rules.Throttle, true, 3 * time.Hour, true},             // the throttle ran out, the proposal did not
		{rules.Block, true, 3*time.Hour + time.Minute, true},    // more
		{rules.Block, true, 3*time.Hour + time.Hour/2, false},   // as before
		{rules.Hold, true, 3*time.Hour + 45*time.Minute, false}, // less
	} {
		length := time.Hour
		if c.action == rules.Block {
			length = 24 * time.Hour
		}
		d := rules.Decision{Finding: "f-1", Action: c.action, Enforce: c.enforce, Time: at.Add(c.after), Until: at.Add(c.after + length)}
		if got := j.higher(d); got != c.higher {
			t.Errorf("%d: higher = %v, want %v", i, got, c.higher)
		}
		if c.higher {
			j.climb(d)
		}
	}
}

func TestRungsAreBounded(t *testing.T) {
	for _, apart := range []time.Duration{0, time.Second, 24 * time.Hour} {
		j := &judge{}
		var last rules.Decision
		for i := range 3 * maxRungs {
			at := time.Unix(0, 0).Add(time.Duration(i) * apart)
			last = rules.Decision{Finding: strconv.Itoa(i), Action: rules.Observe, Time: at}
			j.climb(last)
		}
		if len(j.rungs) > maxRungs || len(j.rungs) < maxRungs/2-1 {
			t.Errorf("%d episodes %s apart remembered, want at most %d and no less than half", len(j.rungs), apart, maxRungs)
		}
		if j.higher(last) {
			t.Errorf("%s apart: the newest episode is forgotten", apart)
		}
	}
}

func TestAPIToken(t *testing.T) {
	c := config.Default()
	c.State = t.TempDir()
	first, err := apiToken(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := apiToken(c)
	if err != nil || again != first || len(first) < 40 {
		t.Errorf("token = %q, then %q, %v; want one long token that stays", first, again, err)
	}
	info, err := os.Stat(c.TokenPath())
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode = %v, %v; others must not read it", info.Mode(), err)
	}
	if err := os.WriteFile(c.TokenPath(), []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := apiToken(c); err == nil {
		t.Error("a short token is accepted")
	}
}

func TestDirectLetterSaysWhatWasNotDone(t *testing.T) {
	s := stepFor(rules.Block, true, "")
	if m := direct(s, "disk full", "mx1"); m.Subject != victim || m.Done != "disk full; throttled until it can be" || len(m.Evidence) != 1 {
		t.Errorf("letter = %+v", m)
	}
	s = stepFor(rules.Block, false, rules.HeldMode)
	if m := direct(s, "disk full", "mx1"); m.Done != "mode is observe; disk full" {
		t.Errorf("observing, it says that %q was done", m.Done)
	}
}

// What root leaves in the state directory of the service's user would be closed to it.
func TestRootLeavesNothingToAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	dir := t.TempDir()
	if err := ownState(dir); err != nil {
		t.Errorf("root's own: %v", err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := ownState(dir); err == nil || !strings.Contains(err.Error(), "runuser -u nobody -- vedetta") {
		t.Errorf("nobody's: %v", err)
	}
}

func TestOneServiceAStateDirectory(t *testing.T) {
	dir := t.TempDir()
	release, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("second lock: %v, want an error that names %s", err, dir)
	}
	release()
	again, err := lock(dir)
	if err != nil {
		t.Fatalf("after the first was released: %v", err)
	}
	again()
}

// What the gate tells waits for the log, unless it is much; the service is
// woken before any of it is lost.
func TestNotesWaitUntilTheyAreMany(t *testing.T) {
	p, _, _ := answering(t)
	p.notes, p.manyNotes = make(chan gate.Request, maxNotes), newBell()
	p.judge.parser = &mailq.Parser{}
	tell := func(n int) {
		for i := range n {
			p.seen(gate.Request{QueueID: strconv.Itoa(i), Login: victim, Recipients: []string{"r@far.test"}})
		}
	}
	tell(maxNotes/2 - 1)
	if len(p.manyNotes) != 0 {
		t.Error("woken for few")
	}
	tell(1)
	if len(p.manyNotes) != 1 {
		t.Error("not woken for many")
	}
	p.noteAll()
	if len(p.notes) != 0 {
		t.Errorf("%d notes were left", len(p.notes))
	}
	tell(maxNotes + 1)
	if lost := value(t, p.metrics.lostNotes); lost != 1 {
		t.Errorf("%v notes were lost, want the one that there is no room for", lost)
	}
}
