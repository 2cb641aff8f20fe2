package rules

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func blocked(subject string, at time.Time) Decision {
	id := FindingID(HijackedMailbox, subject, at)
	return Decision{
		ID: DecisionID(id, Block), Finding: id, Rule: HijackedMailbox, Subject: subject,
		Action: Block, Time: at, Until: at.Add(24 * time.Hour), Why: "score 17.2", Enforce: true,
	}
}

func TestBlastLimit(t *testing.T) {
	start := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	type step struct {
		after   time.Duration
		subject string
		change  func(*Decision)
		want    string // what is done, and "page" if people are called
	}
	hold := func(d *Decision) { d.Action = Hold }
	tests := []struct {
		name  string
		limit BlastLimit
		steps []step
	}{
		{"up to the limit and over it", BlastLimit{Max: 2}, []step{
			{0, "a", nil, "block"},
			{time.Minute, "b", nil, "block"},
			{2 * time.Minute, "c", nil, "throttle page"},
			{3 * time.Minute, "d", nil, "throttle"},
		}},
		{"the window slides", BlastLimit{Max: 2}, []step{
			{0, "a", nil, "block"},
			{30 * time.Minute, "b", nil, "block"},
			{60*time.Minute - time.Second, "c", nil, "throttle page"},
			{60 * time.Minute, "c", nil, "block"},
			{61 * time.Minute, "d", nil, "throttle"},
			{90 * time.Minute, "d", nil, "block"},
			{2*time.Hour - time.Second, "e", nil, "throttle page"},
		}},
		{"its own length", BlastLimit{Max: 1, Per: time.Minute}, []step{
			{0, "a", nil, "block"},
			{59 * time.Second, "b", nil, "throttle page"},
			{60 * time.Second, "b", nil, "block"},
		}},
		{"a subject counts once", BlastLimit{Max: 2}, []step{
			{0, "a", hold, "hold"},
			{1, "a", nil, "block"},
			{2, "a", nil, "block"},
			{3, "b", nil, "block"},
			{4, "a", func(d *Decision) { d.Action = Reset }, "reset"},
			{5, "c", nil, "throttle page"},
		}},
		{"what does not count", BlastLimit{Max: 1}, []step{
			{0, "a", func(d *Decision) { d.Action = Throttle }, "throttle"},
			{1, "b", func(d *Decision) { d.Action = Observe }, "observe"},
			{2, "c", func(d *Decision) { d.Enforce = false }, "block"},
			{3, "d", func(d *Decision) { d.Finding = "" }, "block"},
			{4, "e", nil, "block"},
			{5, "f", func(d *Decision) { d.Enforce = false }, "block"},
			{6, "g", func(d *Decision) { d.Finding = "" }, "block"},
			{7, "h", hold, "throttle page"},
		}},
		{"none at all", BlastLimit{Max: -1}, []step{
			{0, "a", nil, "throttle page"},
		}},
		{"a clock that goes back does not disarm", BlastLimit{Max: 1}, []step{
			{0, "a", nil, "block"},
			{-3 * time.Hour, "b", nil, "throttle page"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, s := range tt.steps {
				at := start.Add(s.after)
				d := blocked(s.subject, at)
				if s.change != nil {
					s.change(&d)
				}
				got, page := tt.limit.Weaken(d, at)
				text := got.Action.String()
				if page {
					text += " page"
				}
				if text != s.want {
					t.Errorf("step %d, %s: %s, want %s", i, s.subject, text, s.want)
				}
				if weakened := got.HeldBack != ""; weakened != (got.Action != d.Action) {
					t.Errorf("step %d, %s: held back is %q", i, s.subject, got.HeldBack)
				}
			}
		})
	}
}

func TestBlastLimitDefaults(t *testing.T) {
	start := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	var limit BlastLimit
	for i := range DefaultBlast {
		if d, _ := limit.Weaken(blocked(fmt.Sprintf("a%d", i), start), start); d.Action != Block {
			t.Fatalf("block %d is weakened to %v", i, d.Action)
		}
	}
	if d, page := limit.Weaken(blocked("one more", start), start.Add(59*time.Minute)); d.Action != Throttle || !page {
		t.Errorf("past the default: %v, page %v; want a throttle and a page", d.Action, page)
	}
	if d, _ := limit.Weaken(blocked("one more", start), start.Add(time.Hour)); d.Action != Block {
		t.Errorf("an hour later: %v, want block", d.Action)
	}
}

func TestWeakened(t *testing.T) {
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	d := blocked("alice@shop.test", at)
	want := d
	want.ID, want.Action, want.HeldBack = d.Finding+"/block/throttle", Throttle, "blast limit: 0 subjects within 1h0m0s were stopped already"
	limit := BlastLimit{Max: -1}
	got, _ := limit.Weaken(d, at)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("weakened block (-got +want):\n%s", diff)
	}
	if again := got.Weakened("twice"); !cmp.Equal(again, got) {
		t.Errorf("a throttle was weakened to %+v", again)
	}
}

// After a restart the limit knows what was let through before it.
func TestBlastLimitRestore(t *testing.T) {
	start := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	before := &BlastLimit{Max: 3}
	var journal []Decision
	var called []string
	for i, subject := range []string{"a", "b", "b", "c", "d", "e"} {
		at := start.Add(time.Duration(i) * 10 * time.Minute)
		d, page := before.Weaken(blocked(subject, at), at)
		journal = append(journal, d)
		if page {
			called = append(called, d.ID)
		}
	}
	slices.Reverse(journal) // in whatever order it is read
	after := &BlastLimit{Max: 3}
	if diff := cmp.Diff(after.Restore(journal), called); diff != "" || len(called) != 1 {
		t.Errorf("people were called with (-got +want):\n%s", diff)
	}
	for _, minutes := range []int{50, 59, 60, 79, 80, 81, 95} {
		at := start.Add(time.Duration(minutes) * time.Minute)
		subject := fmt.Sprintf("new%d", minutes)
		want, wantPage := before.Weaken(blocked(subject, at), at)
		got, page := after.Weaken(blocked(subject, at), at)
		if got.Action != want.Action || page != wantPage {
			t.Errorf("after %d minutes: %v, page %v; want %v, %v as without the restart", minutes, got.Action, page, want.Action, wantPage)
		}
	}
}
