// Package storetest is the suite that every store must pass, whatever keeps
// its data. It says in tests what the methods promise.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Store is everything that a store can do. Consumers declare the few
// methods that they use; this one exists for the suite.
type Store interface {
	Commit(ctx context.Context, b store.Batch) (fresh []string, err error)
	LoadPositions(ctx context.Context) (map[string][]byte, error)
	LoadMessages(ctx context.Context, yield func(store.MessageState) error) error
	LoadAccounts(ctx context.Context, yield func(store.AccountState) error) error
	LoadSent(ctx context.Context, yield func(state []byte) error) error

	Findings(ctx context.Context, filter store.FindingFilter) ([]rules.Finding, error)
	Finding(ctx context.Context, id string) (rules.Finding, error)

	Outcome(ctx context.Context, decision string, at time.Time, ok bool, detail string) error
	Pending(ctx context.Context) ([]rules.Decision, error)
	Active(ctx context.Context, now time.Time) ([]rules.Decision, error)
	Expire(ctx context.Context, now time.Time) ([]rules.Decision, error)
	EndDecisions(ctx context.Context, subject string, at time.Time, by, why string) ([]rules.Decision, error)
	Decisions(ctx context.Context, filter store.DecisionFilter) ([]store.DecisionRow, error)

	Note(ctx context.Context, e store.Entry) error
	Journal(ctx context.Context, filter store.JournalFilter) ([]store.Entry, error)

	Release(ctx context.Context, r store.Release) ([]rules.Decision, error)
	PendingReleases(ctx context.Context) ([]store.Release, error)

	OpenIncidents(ctx context.Context) ([]store.IncidentRow, error)
	Incidents(ctx context.Context, before time.Time, limit int) ([]store.IncidentRow, error)
	Incident(ctx context.Context, id string) (store.IncidentRow, error)

	Due(ctx context.Context, now time.Time, limit int) ([]store.OutboxRow, error)
	Sent(ctx context.Context, id string, at time.Time) error
	Failed(ctx context.Context, f store.Failure) (dead bool, err error)
	Dead(ctx context.Context, limit int) ([]store.OutboxRow, error)
	Revive(ctx context.Context, id string, at time.Time) error
	Backlog(ctx context.Context, now time.Time) (map[string]store.Backlog, error)

	PutSwitched(ctx context.Context, s store.Switched) error
	DropSwitched(ctx context.Context, s store.Switched) error
	Switched(ctx context.Context) ([]store.Switched, error)

	Setting(ctx context.Context, key string) ([]byte, error)
	SetSetting(ctx context.Context, key string, value []byte) error
	SettingOnce(ctx context.Context, key string, value []byte) ([]byte, error)

	Prune(ctx context.Context, now time.Time, ages store.Ages) (store.Pruned, error)
	Check(ctx context.Context) (store.Health, error)
}

var _ Store = (*store.DB)(nil)

// Run runs the suite. open returns an empty store each time and sees to its
// being closed when t ends.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Store)
	}{
		{"states are kept, replaced and removed", states},
		{"keys may be any bytes", hostileKeys},
		{"a batch is written whole or not at all", atomicity},
		{"a load stops at the caller's error", loadStops},
		{"findings grow and never shrink", findingsGrow},
		{"findings are selected newest first", findingsFilter},
		{"a decision is new once", decisionOnce},
		{"a decision held back can become one in force", heldBack},
		{"a decision that is over can be made again", madeAgain},
		{"pending until there is an outcome", pending},
		{"active until ended or over", active},
		{"a person ends decisions", endDecisions},
		{"the journal tells the story in order", journal},
		{"the journal is selected and paged", journalFilter},
		{"a release ends, and is kept until learned", release},
		{"incidents open and close", incidents},
		{"a message is sent once", outboxOnce},
		{"a message is tried again and then given up", outboxFailures},
		{"the backlog is counted by channel", backlog},
		{"switches are noted until they are taken back", switches},
		{"settings", settings},
		{"what is old goes, what stands stays", prune},
		{"pruning walks large tables", pruneMany},
		{"check", check},
		{"many at once", concurrent},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// now is the present of every test.
var now = time.Date(2026, 3, 20, 10, 0, 0, 123456789, time.UTC)

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ok unwraps a call that must succeed.
func ok[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// commit commits b, made now unless it says otherwise.
func commit(t *testing.T, s Store, b store.Batch) []string {
	t.Helper()
	if b.Time.IsZero() {
		b.Time = now
	}
	fresh, err := s.Commit(t.Context(), b)
	must(t, err)
	return fresh
}

// same compares got with want.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// finding is a finding about a subject in the episode that began at since.
func finding(subject string, since, at time.Time, score float64) rules.Finding {
	return rules.Finding{
		ID: rules.FindingID("hijacked-mailbox", subject, since), Rule: "hijacked-mailbox", Subject: subject,
		Time: at, Since: since, Score: score, Families: 2, Class: "login", Messages: 3, Rcpts: 9,
		Evidence: []rules.Evidence{{Kind: "novelty", Score: score, Text: "9 of 9 recipients never written to before"}},
	}
}

// decision is an enforced decision on f that lasts for the given time.
func decision(f rules.Finding, action rules.Action, lasts time.Duration) rules.Decision {
	d := rules.Decision{
		ID: rules.DecisionID(f.ID, action), Finding: f.ID, Rule: f.Rule, Subject: f.Subject,
		Action: action, Time: f.Time, Why: "score 17.2", Enforce: true,
	}
	if lasts > 0 {
		d.Until = f.Time.Add(lasts)
	}
	return d
}

// ids names decisions.
func ids(decisions []rules.Decision) []string {
	all := []string{}
	for _, d := range decisions {
		all = append(all, d.ID)
	}
	return all
}
