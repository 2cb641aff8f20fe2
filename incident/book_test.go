package incident

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

var t0 = time.Date(2026, 3, 20, 10, 0, 7, 0, time.UTC)

// finding is one of alice's first episode, noticed minutes after t0.
func finding(minutes int) rules.Finding {
	since := t0.Add(-26 * time.Second)
	return rules.Finding{
		ID: rules.FindingID("hijacked-mailbox", "alice@shop.test", since), Rule: "hijacked-mailbox",
		Subject: "alice@shop.test", Class: "login", Time: t0.Add(time.Duration(minutes) * time.Minute), Since: since,
		Score: 17.2 + float64(minutes), Messages: 9, Rcpts: 9,
		Evidence: []rules.Evidence{{Kind: "novelty", Score: 9.1, Text: "9 of 9 recipients never written to before"}},
	}
}

func decide(f rules.Finding, a rules.Action, enforce bool, until time.Duration) rules.Decision {
	d := rules.Decision{ID: rules.DecisionID(f.ID, a), Finding: f.ID, Rule: f.Rule, Subject: f.Subject, Action: a, Time: f.Time, Enforce: enforce}
	if until > 0 {
		d.Until = f.Time.Add(until)
	}
	if a > rules.Observe && !enforce {
		d.HeldBack = rules.HeldMode
	}
	return d
}

// A step does one thing to a book and returns what is to be told, as
// "kind id-without-the-incident".
type step struct {
	what string
	do   func(b *Book) []Change
	want []string
}

func one(c Change, tell bool) []Change {
	if !tell {
		return nil
	}
	return []Change{c}
}

func record(minutes int, a rules.Action, enforce bool) func(*Book) []Change {
	return func(b *Book) []Change {
		f := finding(minutes)
		return one(b.Record(f, decide(f, a, enforce, time.Hour), f.Time))
	}
}

func hard(minutes int, rule string) func(*Book) []Change {
	return func(b *Book) []Change {
		f := finding(minutes)
		f.Hard = rule
		return one(b.Record(f, decide(f, rules.Block, true, time.Hour), f.Time))
	}
}

func fail(minutes int, a rules.Action, why string) func(*Book) []Change {
	return func(b *Book) []Change {
		f := finding(minutes)
		return one(b.Failed(f, decide(f, a, true, time.Hour), why, f.Time))
	}
}

func tick(minutes int) func(*Book) []Change {
	return func(b *Book) []Change { return b.Tick(t0.Add(time.Duration(minutes) * time.Minute)) }
}

func release(minutes int) func(*Book) []Change {
	return func(b *Book) []Change {
		return b.Released("alice@shop.test", "bob", t0.Add(time.Duration(minutes)*time.Minute))
	}
}

func undo(minutes int) func(*Book) []Change {
	return func(b *Book) []Change {
		return b.Undone("alice@shop.test", "bob", t0.Add(time.Duration(minutes)*time.Minute))
	}
}

var stories = map[string][]step{
	"each rung is told once": {
		{"observe", record(0, rules.Observe, true), []string{"opened observe"}},
		{"observe again", record(1, rules.Observe, true), nil},
		{"throttle", record(2, rules.Throttle, true), []string{"escalated throttle"}},
		{"block", record(3, rules.Block, true), []string{"escalated block"}},
		{"block again", record(4, rules.Block, true), nil},
		{"weaker", record(5, rules.Throttle, true), nil},
		{"an old one", record(0, rules.Observe, true), nil},
	},
	"observing is told once, acting once more": {
		{"would block", record(0, rules.Block, false), []string{"opened would-block"}},
		{"would block again", record(1, rules.Block, false), nil},
		{"would throttle", record(1, rules.Throttle, false), nil},
		{"blocks now", record(2, rules.Block, true), []string{"escalated block"}},
		{"held back later", record(3, rules.Block, false), nil},
		{"would reset", record(4, rules.Reset, false), []string{"escalated would-reset"}},
	},
	"nothing is no incident": {
		{"nothing", record(0, rules.Nothing, true), nil},
	},
	"a hard rule is told again": {
		{"block", record(0, rules.Block, true), []string{"opened block"}},
		{"hard", hard(1, "five-countries"), []string{"escalated block-five-countries"}},
		{"hard again", hard(2, "five-countries"), nil},
		{"another", hard(3, "twenty-ips"), []string{"escalated block-twenty-ips"}},
	},
	"a failure is told once, success after it once": {
		{"fails", fail(0, rules.Block, "postmap: no space left on device"), []string{"failed block-failed"}},
		{"fails again", fail(1, rules.Block, "postmap: exit status 1"), nil},
		{"works", record(2, rules.Block, true), []string{"recovered block-recovered"}},
		{"works again", record(3, rules.Block, true), nil},
		{"fails to be renewed", fail(4, rules.Block, "gone"), nil},
		{"a stronger one fails", fail(5, rules.Reset, "panel"), []string{"failed reset-failed"}},
	},
	"a release ends it": {
		{"block", record(0, rules.Block, true), []string{"opened block"}},
		{"release", release(5), []string{"released released"}},
		{"release again", release(6), nil},
		{"the same lines read again", record(0, rules.Block, true), nil},
		{"a later finding of the episode", record(7, rules.Block, true), []string{"reopened block-2"}},
		{"the same lines read a third time", record(0, rules.Block, true), nil},
		{"undo", undo(8), []string{"undone undone-2"}},
		{"later still", record(9, rules.Hold, true), []string{"reopened hold-3"}},
	},
	"it resolves when expired and quiet": {
		{"block for an hour", record(0, rules.Block, true), []string{"opened block"}},
		{"not expired", tick(59), nil},
		{"expired", tick(60), []string{"resolved resolved"}},
		{"again", tick(61), nil},
		{"read again", record(0, rules.Block, true), nil},
		{"later", record(90, rules.Block, true), []string{"reopened block-2"}},
	},
	"an action that expired under fire is told again": {
		{"block for an hour", record(0, rules.Block, true), []string{"opened block"}},
		{"still going", record(30, rules.Block, true), nil},
		{"and after the hour of the second", record(91, rules.Block, true), []string{"reopened block-2"}},
	},
	"a backlog read after the end is not lost": {
		{"block for an hour", record(0, rules.Block, true), []string{"opened block"}},
		{"a day later", tick(24 * 60), []string{"resolved resolved"}},
		{"from the backlog", record(120, rules.Block, false), []string{"reopened would-block-2"}},
	},
	"only telling ends silently": {
		{"would block", record(0, rules.Block, false), []string{"opened would-block"}},
		{"quiet", tick(60), nil},
		{"later", record(61, rules.Block, false), []string{"reopened would-block-2"}},
	},
}

func tell(changes []Change) (list []string) {
	for _, c := range changes {
		list = append(list, c.Kind.String()+" "+c.ID[len(c.Incident.ID)+1:])
	}
	return list
}

func TestStories(t *testing.T) {
	for name, steps := range stories {
		t.Run(name, func(t *testing.T) {
			b := &Book{}
			for _, s := range steps {
				if diff := cmp.Diff(tell(s.do(b)), s.want); diff != "" {
					t.Fatalf("%s (-got +want):\n%s", s.what, diff)
				}
			}
		})
	}
}

// reload is a restart: what was saved, through JSON, in a new Book.
func reload(t *testing.T, b *Book, saved map[string]Incident) *Book {
	t.Helper()
	for in := range b.Changed {
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var back Incident
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(back, in); diff != "" {
			t.Errorf("through JSON (-got +want):\n%s", diff)
		}
		saved[in.ID] = back
	}
	next := &Book{}
	for _, in := range saved {
		next.Restore(in)
	}
	return next
}

// A restart after every step, and every step done twice, tell the same.
func TestStoriesOverRestarts(t *testing.T) {
	for name, steps := range stories {
		t.Run(name, func(t *testing.T) {
			b, saved := &Book{}, map[string]Incident{}
			for _, s := range steps {
				if diff := cmp.Diff(tell(s.do(b)), s.want); diff != "" {
					t.Fatalf("%s (-got +want):\n%s", s.what, diff)
				}
				b = reload(t, b, saved)
				if again := s.do(b); len(again) > 0 {
					t.Fatalf("%s, done again, tells %v", s.what, tell(again))
				}
				b = reload(t, b, saved)
			}
		})
	}
}

// A whole story read twice, as after a crash that lost nothing but the
// position in the log, tells nothing the second time.
func TestReadTwice(t *testing.T) {
	b := &Book{}
	for _, s := range stories["each rung is told once"] {
		s.do(b)
	}
	for _, s := range stories["each rung is told once"] {
		if again := s.do(b); len(again) > 0 {
			t.Errorf("%s told again: %v", s.what, tell(again))
		}
	}
}

func TestStates(t *testing.T) {
	b := &Book{}
	state := func() State { return b.All()[0].State }
	record(0, rules.Throttle, true)(b)
	id := b.All()[0].ID
	for _, s := range []struct {
		what string
		do   func()
		want State
	}{
		{"recorded", func() {}, Opened},
		{"another incident's message", func() { b.Notified("i-other", t0) }, Opened},
		{"a channel took it", func() { b.Notified(id, t0) }, Notified},
		{"more of the same", func() { record(1, rules.Throttle, true)(b) }, Notified},
		{"acknowledged", func() { b.Acknowledge(id, "bob", t0) }, Acknowledged},
		{"a late receipt", func() { b.Notified(id, t0) }, Acknowledged},
		{"stronger", func() { record(2, rules.Block, true)(b) }, Escalated},
		{"told", func() { b.Notified(id, t0) }, Notified},
		{"released", func() { release(3)(b) }, Resolved},
		{"acknowledged too late", func() { b.Acknowledge(id, "bob", t0) }, Resolved},
	} {
		s.do()
		if state() != s.want {
			t.Errorf("%s: got %v, want %v", s.what, state(), s.want)
		}
	}
	if b.Acknowledge(id, "bob", t0) {
		t.Error("a resolved incident was acknowledged")
	}
}

// A change is a value: what happens later does not alter it.
func TestChangeIsAValue(t *testing.T) {
	b := &Book{}
	c := hard(0, "a")(b)[0]
	hard(1, "b")(b)
	if diff := cmp.Diff(c.Incident.Hard, []string{"a"}); diff != "" {
		t.Error(diff)
	}
}

func other(i int) rules.Finding {
	f := finding(0)
	f.Subject = fmt.Sprintf("user%d@shop.test", i)
	f.ID = rules.FindingID(f.Rule, f.Subject, f.Since)
	f.Time = f.Time.Add(time.Duration(i) * time.Second)
	return f
}

func TestBounded(t *testing.T) {
	b := &Book{Max: 100}
	first := other(0)
	b.Record(first, decide(first, rules.Block, true, 0), first.Time)
	for i := 1; i < 1000; i++ {
		f := other(i)
		if _, tell := b.Record(f, decide(f, rules.Block, true, 0), f.Time); !tell {
			t.Fatalf("account %d is not told", i)
		}
		if i == 50 { // an incident that is over goes before any open one
			b.Released(other(50).Subject, "bob", f.Time)
		}
		if i == 101 {
			for _, in := range b.All() {
				if in.Subject() == other(50).Subject {
					t.Error("the resolved incident was kept before open ones")
				}
			}
		}
	}
	if n := len(b.All()); n > 100 || n < 90 || n+b.Evicted() != 1000 {
		t.Errorf("holds %d and has let go %d", n, b.Evicted())
	}
	again, _ := b.Record(first, decide(first, rules.Block, true, 0), first.Time)
	if want := ID(first.ID) + "/block"; again.ID != want {
		t.Errorf("forgotten and told again as %q, want %q", again.ID, want)
	}
}

func TestForgets(t *testing.T) {
	b := &Book{}
	record(0, rules.Block, true)(b)
	release(1)(b)
	week := t0.Add(8 * 24 * time.Hour)
	b.Tick(week)
	if len(b.All()) != 1 {
		t.Error("forgot an incident that was never saved")
	}
	for range b.Changed {
	}
	b.Tick(week)
	if len(b.All()) != 0 {
		t.Error("a resolved incident is remembered for ever")
	}
}

// A finding read from a backlog is new to people, however old it is.
func TestQuietCountsFromRecording(t *testing.T) {
	b := &Book{Quiet: 2 * time.Hour}
	day := t0.Add(24 * time.Hour)
	f := finding(0)
	b.Record(f, decide(f, rules.Block, true, time.Hour), day)
	if told := b.Tick(day.Add(2*time.Hour - time.Second)); len(told) > 0 {
		t.Errorf("over before it was quiet: %v", tell(told))
	}
	if told := b.Tick(day.Add(2 * time.Hour)); len(told) != 1 {
		t.Errorf("not over: %v", tell(told))
	}
}

// Two Books restored from one value do not share what they add to it.
func TestRestoreIsAValue(t *testing.T) {
	one := &Book{}
	for i, rule := range []string{"a", "b", "c"} {
		hard(i, rule)(one)
	}
	two := &Book{}
	two.Restore(one.All()[0])
	hard(3, "d")(one)
	hard(3, "e")(two)
	if diff := cmp.Diff(one.All()[0].Hard, []string{"a", "b", "c", "d"}); diff != "" {
		t.Error(diff)
	}
}

func TestNoEndNeedsAPerson(t *testing.T) {
	b := &Book{}
	f := finding(0)
	b.Record(f, decide(f, rules.Reset, true, 0), t0)
	if told := b.Tick(t0.Add(1000 * time.Hour)); len(told) > 0 {
		t.Errorf("an action without an end ended by itself: %v", tell(told))
	}
}

// All messages of an incident answer the first, whatever that was.
func TestThread(t *testing.T) {
	b := &Book{}
	for _, do := range []func(*Book) []Change{
		fail(0, rules.Throttle, "no"), record(1, rules.Block, true), release(2), record(3, rules.Block, true), tick(24 * 60),
	} {
		for _, c := range do(b) {
			if want := c.Incident.ID + "/throttle-failed"; c.Incident.First != want {
				t.Errorf("%s answers %q, want %q", c.ID, c.Incident.First, want)
			}
		}
		b = reload(t, b, map[string]Incident{})
	}
}

// lastingOf records what stands until its watcher says that it is over.
func lastingOf(rule, subject string, score float64) func(*Book) []Change {
	return func(b *Book) []Change {
		f := rules.Finding{
			ID: rules.FindingID(rule, subject, t0), Rule: rule, Subject: subject, Time: t0, Since: t0, Score: score, Lasting: true,
			Evidence: []rules.Evidence{{Kind: rules.Listing, Text: "source of spam"}},
		}
		return one(b.Record(f, decide(f, rules.Observe, false, 0), f.Time))
	}
}

func lasting(score float64) func(*Book) []Change {
	return lastingOf(rules.Listed, "203.0.113.9", score)
}

func ended(minutes int) func(*Book) []Change {
	return func(b *Book) []Change {
		return b.Ended(rules.Listed, "203.0.113.9", t0.Add(time.Duration(minutes)*time.Minute))
	}
}

// What nobody watches any more is ended, and not said to be over.
func TestUnwatched(t *testing.T) {
	b := &Book{}
	lasting(1.7)(b)
	told := b.Unwatched(rules.Listed, "203.0.113.9", t0.Add(time.Hour))
	if len(told) != 1 || told[0].Kind != Unwatched || told[0].Kind.String() != "unwatched" || len(b.Standing(rules.Listed)) != 0 {
		t.Fatalf("told %+v, standing %+v", told, b.Standing(rules.Listed))
	}
	if m := told[0].Tell(); m.Severity != "info" || m.Title != "no longer watched: 203.0.113.9 is on a block list" || strings.Contains(m.What, "no more") || strings.Contains(m.Done, "Nothing is left") {
		t.Errorf("told as %+v", m)
	}
}

// What lasts is not over because nothing more is heard of it, and is told once
// when its watcher says so.
func TestLasting(t *testing.T) {
	b := &Book{}
	if told := lasting(1.7)(b); len(told) != 1 || told[0].Kind != News || told[0].Tell().Severity != "critical" {
		t.Fatalf("told %+v", told)
	}
	if told := lasting(1.7)(b); len(told) != 0 {
		t.Errorf("the same again is told: %+v", told)
	}
	if told := b.Tick(t0.Add(30 * 24 * time.Hour)); len(told) != 0 || len(b.Standing(rules.Listed)) != 1 {
		t.Errorf("a month later: told %+v, standing %+v", told, b.Standing(rules.Listed))
	}
	if told := b.Ended(rules.Listed, "203.0.113.10", t0.Add(time.Hour)); len(told) != 0 {
		t.Errorf("another's end: told %+v", told)
	}
	if told := ended(90)(b); len(told) != 1 || told[0].Kind != Over {
		t.Errorf("its end: told %+v", told)
	}
	if told := ended(91)(b); len(told) != 0 || len(b.Standing(rules.Listed)) != 0 {
		t.Errorf("its end again: told %+v, standing %+v", told, b.Standing(rules.Listed))
	}
	for score, want := range map[float64]string{0: "info", 0.4: "info", 0.52: "warning", 1.6: "warning", 1.61: "critical"} {
		if told := lasting(score)(&Book{}); told[0].Tell().Severity != want {
			t.Errorf("score %.2f: %s, want %s", score, told[0].Tell().Severity, want)
		}
	}
}

// listedOn is what the watcher of block lists finds at that minute: the lists
// that have the address, the first finding of the incident or a later one.
func listedOn(minute int, score float64, lists ...string) rules.Finding {
	at := t0.Add(time.Duration(minute) * time.Minute)
	f := rules.Finding{
		ID: rules.FindingID(rules.Listed, "203.0.113.9", t0), Rule: rules.Listed, Subject: "203.0.113.9",
		Time: at, Since: t0, Score: score, Lasting: true, Parts: lists,
	}
	if minute > 0 {
		f.Continues = f.ID
		f.ID = rules.FindingID(rules.Listed, "203.0.113.9 on "+strings.Join(lists, ", "), at)
	}
	return f
}

func listing(minute int, score float64, lists ...string) func(*Book) []Change {
	return func(b *Book) []Change {
		f := listedOn(minute, score, lists...)
		return one(b.Record(f, decide(f, rules.Observe, false, 0), f.Time))
	}
}

func refresh(minute int, score float64, lists ...string) func(*Book) []Change {
	return func(b *Book) []Change {
		f := listedOn(minute, score, lists...)
		b.Refresh(f, f.Time)
		return nil
	}
}

// What lasts becomes wider, less, worse and wider again within one incident.
// Each step is done twice, and after a restart.
func TestWider(t *testing.T) {
	b, saved := &Book{}, map[string]Incident{}
	id, first := ID(rules.FindingID(rules.Listed, "203.0.113.9", t0)), ""
	seen := map[string]bool{}
	for _, step := range []struct {
		do    func(*Book) []Change
		told  string // kind, severity and new parts; "" for nothing
		parts string // that stand
	}{
		{listing(0, 0.4, "psbl"), "opened info [psbl]", "psbl"},
		{listing(5, 1.0, "psbl", "spamcop", "dronebl"), "widened warning [spamcop dronebl]", "psbl spamcop dronebl"},
		{refresh(10, 0.6, "psbl", "dronebl"), "", "psbl dronebl"},
		{refresh(9, 1.0, "psbl", "spamcop", "dronebl"), "", "psbl dronebl"},
		{listing(5, 1.0, "psbl", "spamcop", "dronebl"), "", "psbl dronebl"},
		{listing(15, 1.7, "psbl", "dronebl"), "escalated critical []", "psbl dronebl"},
		{refresh(20, 0.4, "psbl"), "", "psbl"},
		{listing(25, 1.8, "psbl", "spamcop"), "widened critical [spamcop]", "psbl spamcop"},
		{func(b *Book) []Change { return b.Ended(rules.Listed, "203.0.113.9", t0.Add(time.Hour)) }, "resolved info []", ""},
		{refresh(70, 1.8, "psbl"), "", ""},
		{listing(30, 1.8, "psbl", "surbl"), "", ""},
	} {
		for _, c := range append(step.do(b), step.do(b)...) {
			if got := fmt.Sprint(c.Kind, " ", c.Tell().Severity, " ", c.New); got != step.told {
				t.Errorf("told %q, want %q", got, step.told)
			}
			if seen[c.ID] || c.Incident.ID != id {
				t.Errorf("told %s of incident %s, want another ID, of %s", c.ID, c.Incident.ID, id)
			}
			seen[c.ID], step.told = true, ""
			if first == "" {
				first = c.ID
			}
			if c.Incident.First != first {
				t.Errorf("%s answers %q, want %q", c.ID, c.Incident.First, first)
			}
		}
		if step.told != "" {
			t.Errorf("not told: %q", step.told)
		}
		b = reload(t, b, saved)
		parts := ""
		for _, in := range b.Standing(rules.Listed) {
			parts = strings.Join(in.Finding.Parts, " ")
		}
		if parts != step.parts {
			t.Errorf("%q stand, want %q", parts, step.parts)
		}
	}
}
