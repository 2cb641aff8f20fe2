package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A testCase says what one finding must lead to.
type testCase struct {
	name    string
	at      place
	finding Finding
	mode    Mode
	exempt  []string
	want    want
}

// want is what a case expects. The zero want expects nothing to be decided.
type want struct {
	do       Action
	enforce  bool
	term     string // empty: not looked at
	heldBack string // the beginning of HeldBack; empty: not looked at
}

// A CaseResult says how one case of a rule file went.
type CaseResult struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Name string `json:"name"`
	Rule string `json:"rule"`

	// Problem says how the outcome differs from what the case wants. It is
	// empty if the case passed.
	Problem string `json:"problem,omitempty"`
}

// caseTime is the time of the findings in cases. A case describes no moment,
// only what went on for how long.
func caseTime() time.Time { return time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC) }

// RunCases runs the cases of the set's rule files against its rules.
func (s *Set) RunCases() []CaseResult {
	results := make([]CaseResult, 0, len(s.cases))
	for _, c := range s.cases {
		policy := Policy{Set: s, Mode: c.mode, Exempt: c.exempt}
		got, err := policy.decide(&c.finding)
		if reset, ok := policy.Reset(c.finding); ok {
			got = reset
		}
		results = append(results, CaseResult{
			File: c.at.file, Line: c.at.line, Name: c.name, Rule: c.finding.Rule,
			Problem: c.problem(got, err),
		})
	}
	return results
}

// Untested returns the rungs of the set that no case wants, each as a rule's
// name and an action ("hijacked-mailbox: hold").
func (s *Set) Untested() []string {
	wanted := map[string]bool{}
	for _, c := range s.cases {
		wanted[c.finding.Rule+": "+c.want.do.String()] = true
	}
	var untested []string
	for _, name := range s.Names() {
		for _, step := range s.rules[name].ladder {
			if key := name + ": " + step.do.String(); !wanted[key] {
				untested = append(untested, key)
			}
		}
	}
	return untested
}

// problem says how the strongest decision differs from what the case wants.
func (c *testCase) problem(got Decision, err error) string {
	var problems []string
	if err != nil {
		problems = append(problems, err.Error())
	}
	if got.Action != c.want.do {
		problems = append(problems, fmt.Sprintf("decided %s, want %s", got.Action, c.want.do))
	}
	if got.Enforce != c.want.enforce {
		problems = append(problems, fmt.Sprintf("enforce is %t, want %t", got.Enforce, c.want.enforce))
	}
	if term := termOf(got); c.want.term != "" && term != c.want.term {
		problems = append(problems, fmt.Sprintf("lasts %s, want %s", term, c.want.term))
	}
	if !strings.HasPrefix(got.HeldBack, c.want.heldBack) {
		problems = append(problems, fmt.Sprintf("held back is %q, want %q", got.HeldBack, c.want.heldBack))
	}
	if len(problems) > 0 && got.HeldBack != "" && c.want.heldBack == "" {
		problems = append(problems, "held back: "+got.HeldBack)
	}
	return strings.Join(problems, "; ")
}

func termOf(d Decision) string {
	if d.Until.IsZero() {
		return untilReleased
	}
	return d.Until.Sub(d.Time).String()
}

// testCase reads a case.
func (l *loader) testCase(y yamlCase, path ...any) {
	c := testCase{name: y.Name, at: place{l.name, l.line(path...)}, exempt: y.Exempt}
	if y.Name == "" {
		l.mistake(c.at.line, "name of the case is missing")
	}
	if y.Mode != "" {
		if err := c.mode.UnmarshalText([]byte(y.Mode)); err != nil {
			l.mistake(l.line(in(path, "mode")...), "%s", err)
		}
	}
	l.exemptions(y.Exempt, in(path, "exempt"))
	c.finding = l.finding(y.Finding, in(path, "finding"))
	c.want = l.want(y.Want, in(path, "want"))
	l.set.cases = append(l.set.cases, c)
}

func (l *loader) finding(y yamlFinding, path []any) Finding {
	l.ruleName(y.Rule, in(path, "rule"))
	f := Finding{
		Rule: y.Rule, Subject: y.Subject, Time: caseTime(), Since: caseTime(),
		Score: y.Score, Families: y.Families, Hard: y.Hard, Class: y.Class, Shared: y.Shared,
		Messages: y.Messages, Rcpts: y.Recipients, Backlog: y.Backlog,
	}
	if y.Subject == "" {
		l.mistake(l.line(path...), "subject of the finding is missing")
	}
	if !slices.Contains(classNames[:], y.Class) {
		l.mistake(l.line(in(path, "class")...), "unknown class %q; known: %s", y.Class, oneOf(classNames[1:]))
	}
	for _, field := range [...]string{"families", "messages", "recipients"} {
		if n := l.node(in(path, field)...); n.ShortTag() == "!!float" {
			l.mistake(n.Line, "%s is %s: want a whole number", field, n.Value)
		}
	}
	if y.Age != "" {
		age, err := duration(y.Age)
		if err != nil || age < 0 {
			l.mistake(l.line(in(path, "age")...), "age %q is no time: want something like 90s, 10m or 2h", y.Age)
		}
		f.Since = f.Time.Add(-age)
	}
	for _, family := range slices.Sorted(maps.Keys(y.Evidence)) {
		if !slices.Contains(familyNames[:], family) {
			l.mistake(l.line(in(path, "evidence", family)...), "unknown family of evidence %q; known: %s", family, oneOf(familyNames[:]))
		}
		f.Evidence = append(f.Evidence, Evidence{Kind: family, Score: y.Evidence[family]})
	}
	f.ID = FindingID(f.Rule, f.Subject, f.Since)
	return f
}

func (l *loader) want(y yamlWant, path []any) want {
	w := want{enforce: y.Enforce, heldBack: y.HeldBack}
	if err := w.do.UnmarshalText([]byte(y.Do)); err != nil {
		l.mistake(l.line(in(path, "do")...), "want.do is %q: want nothing, observe, throttle, hold, block or reset", y.Do)
	}
	w.term = y.For
	if y.For == "" || y.For == untilReleased {
		return w
	}
	term, err := duration(y.For)
	if err != nil {
		l.mistake(l.line(in(path, "for")...), "for: %q is no time: want something like 90m, 24h or 7d, or %s", y.For, untilReleased)
	}
	w.term = term.String()
	return w
}
