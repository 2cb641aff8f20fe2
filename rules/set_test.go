package rules

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShippedCases(t *testing.T) {
	for _, r := range Shipped().RunCases() {
		if r.Problem != "" {
			t.Errorf("%s:%d: %s: %s", r.File, r.Line, r.Name, r.Problem)
		}
	}
	if untested := Shipped().Untested(); len(untested) > 0 {
		t.Errorf("rungs that no case wants: %v", untested)
	}
}

func TestShippedRulesAnswerEveryFinding(t *testing.T) {
	got, want := Shipped().Names(), Names()
	slices.Sort(want)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("shipped rules (-got +want):\n%s", diff)
	}
}

// Each shipped rule says what becomes of a shared identity and of old news,
// and what does not reach its first rung where there is such a thing.
func TestShippedCasesCoverTheExceptions(t *testing.T) {
	set := Shipped()
	for _, name := range set.Names() {
		var shared, backlog, observing bool
		for _, c := range set.cases {
			if c.finding.Rule == name {
				shared = shared || c.finding.Shared
				backlog = backlog || c.finding.Backlog
				observing = observing || c.mode == ModeObserve && c.want.do > Observe
			}
		}
		if !shared || !backlog {
			t.Errorf("%s: case of a shared identity %v, of a backlog %v; want both", name, shared, backlog)
		}
		if ladder := set.rules[name].ladder; !observing && ladder[len(ladder)-1].do > Observe {
			t.Errorf("%s has no case in mode observe", name)
		}
	}
}

// Nothing shipped changes a password: that is for the operator to ask for.
func TestShippedRulesDoNotReset(t *testing.T) {
	for name, r := range Shipped().rules {
		for _, step := range r.ladder {
			if step.do == Reset {
				t.Errorf("%s resets", name)
			}
		}
	}
}

func TestMerge(t *testing.T) {
	own := mustLoad(t, `
rules:
  - name: hijacked-mailbox
    ladder:
      - {do: throttle, when: score >= 50, for: 1h}
cases:
  - name: only slowed down
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 50}
    mode: enforce
    want: {do: throttle, enforce: true}
  - name: shipped rules can be tested too
    finding: {rule: abused-script, subject: "script:/x.php", class: script, score: 16, families: 2, evidence: {script: 6}}
    mode: enforce
    want: {do: block, enforce: true}
`)
	shipped := Shipped()
	merged := shipped.Merge(own)
	if diff := cmp.Diff(merged.Names(), shipped.Names()); diff != "" {
		t.Errorf("rules (-got +want):\n%s", diff)
	}
	if d, ok := (&Policy{Set: merged}).Decide(someFinding()); ok {
		t.Errorf("own rule is not the one asked: %+v", d)
	}
	ours := 0
	for _, r := range merged.RunCases() {
		if r.Problem != "" {
			t.Errorf("%s:%d: %s: %s", r.File, r.Line, r.Name, r.Problem)
		}
		if r.Rule == HijackedMailbox && r.File != "own.yml" {
			t.Errorf("case %q of the replaced rule is still run", r.Name)
		}
		if r.File == "own.yml" {
			ours++
		}
	}
	if ours != 2 {
		t.Errorf("%d of our own cases were run, want 2", ours)
	}
	if d, _ := (&Policy{Set: shipped}).Decide(someFinding()); d.Action != Block {
		t.Errorf("merging changed the shipped rules: %+v", d)
	}
}

// A case that does not hold says what was decided instead.
func TestCaseProblems(t *testing.T) {
	set := mustLoad(t, withReset+`
cases:
  - name: passes
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 3}
    mode: enforce
    want: {do: hold, enforce: true, for: 48h}
  - name: another action
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 4}
    mode: enforce
    want: {do: hold, enforce: true}
  - name: not enforced
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 4}
    want: {do: block, enforce: true}
  - name: another time
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 2}
    mode: enforce
    want: {do: throttle, enforce: true, for: 2h}
  - name: another reason
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 2}
    want: {do: throttle, held_back: exempt}
  - name: something instead of nothing
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 1}
    want: {do: nothing}
  - name: the reset is the strongest
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 5}
    mode: enforce
    want: {do: reset, enforce: true, for: until-released}
  - name: no rule
    finding: {rule: blind, subject: mx1}
    want: {do: nothing}
`)
	got := map[string]string{}
	for _, r := range set.RunCases() {
		got[r.Name] = r.Problem
	}
	want := map[string]string{
		"passes":                       "",
		"another action":               "decided block, want hold",
		"not enforced":                 "enforce is false, want true; held back: mode is observe",
		"another time":                 "lasts 1h0m0s, want 2h0m0s",
		"another reason":               `held back is "mode is observe", want "exempt"`,
		"something instead of nothing": "decided observe, want nothing",
		"the reset is the strongest":   "",
		"no rule":                      `no rule answers "blind"`,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("problems (-got +want):\n%s", diff)
	}
}

func TestUntested(t *testing.T) {
	set := mustLoad(t, withReset+`
cases:
  - name: a hold
    finding: {rule: hijacked-mailbox, subject: alice@shop.test, class: login, score: 3}
    want: {do: hold}
`)
	want := []string{"hijacked-mailbox: observe", "hijacked-mailbox: throttle", "hijacked-mailbox: block", "hijacked-mailbox: reset"}
	if diff := cmp.Diff(set.Untested(), want); diff != "" {
		t.Errorf("untested (-got +want):\n%s", diff)
	}
}
