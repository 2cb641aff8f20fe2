package rules

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// files makes a directory of rule files: name, content, name, content, …
func files(pairs ...string) fstest.MapFS {
	dir := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		dir[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return dir
}

func mustLoad(t testing.TB, content string) *Set {
	t.Helper()
	set, err := Load(files("own.yml", content))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestLoadNamesEveryMistake(t *testing.T) {
	const known = "hijacked-mailbox, abused-script, queue-growth, throttle-backlog, lost-coverage, blind, listing-risk, listed, list-health, neighbours"
	tests := []struct {
		name, content string
		want          []string
	}{
		{"syntax", "rules:\n  - name: [blind\n", []string{
			"a.yml:2: did not find expected ',' or ']'",
		}},
		{"syntax, as the scanner finds it", "rules:\n  - name: \"blind\n", []string{
			"a.yml:2: found unexpected end of stream",
		}},
		{"indentation", "rules:\n  - name: blind\n bad: x\n", []string{
			"a.yml:3: did not find expected key",
		}},
		{"unknown field", "rules:\n  - name: blind\n    ladder:\n      - do: observe\n        wehn: true\n", []string{
			"a.yml:4: condition is empty: write true for always",
			`a.yml:5: a rung has no field "wehn"`,
		}},
		{"wrong kinds of values", "rules: blind\ncases:\n  - name: x\n    finding: {rule: blind, subject: mx, score: string, families: 1.5}\n    want: {do: nothing, enforce: perhaps}\n", []string{
			"a.yml:1: cannot unmarshal !!str `blind` into a list of rules",
			"a.yml:4: cannot unmarshal !!str `string` into a number",
			"a.yml:4: families is 1.5: want a whole number",
			"a.yml:5: cannot unmarshal !!str `perhaps` into true or false",
		}},
		{"field given twice", "rules:\n  - name: blind\n    name: blind\n    ladder: [{do: observe, when: true}]\n", []string{
			`a.yml:3: mapping key "name" already defined at line 2`,
		}},
		{"second document", "rules: []\n---\nrules: []\n", []string{
			"a.yml:2: a rule file holds one document: put the rest into a file of its own",
		}},
		{"unknown rule", "rules:\n  - name: hijacked-mailbx\n    ladder: [{do: observe, when: true}]\n", []string{
			`a.yml:2: unknown rule "hijacked-mailbx"; known rules: ` + known,
		}},
		{"nameless and empty", "rules:\n  - about: nothing\n", []string{
			"a.yml:2: name of the rule is missing; known rules: " + known,
			`a.yml:2: rule "" has no ladder`,
		}},
		{"rule given twice", "rules:\n  - name: blind\n    ladder: [{do: observe, when: true}]\n  - name: blind\n    ladder: [{do: observe, when: true}]\n", []string{
			`a.yml:4: rule "blind" is already given at a.yml:2`,
		}},
		{"ladder falls", "rules:\n  - name: hijacked-mailbox\n    ladder:\n      - {do: hold, when: score > 9, for: 1h}\n      - {do: throttle, when: score > 10, for: 1h}\n      - {do: throttle, when: score > 11, for: 1h}\n", []string{
			"a.yml:5: throttle after hold: a ladder rises, with each action once",
			"a.yml:6: throttle after throttle: a ladder rises, with each action once",
		}},
		{"action too strong for the rule", "rules:\n  - name: abused-script\n    ladder:\n      - {do: block, when: score > 9, for: 1h}\n      - {do: reset, when: score > 9}\n  - name: blind\n    ladder:\n      - {do: block, when: true, for: 1h}\n", []string{
			`a.yml:5: rule "abused-script" can be answered with block at most, not with reset`,
			`a.yml:8: rule "blind" can be answered with observe at most, not with block`,
		}},
		{"reset without a block", "rules:\n  - name: hijacked-mailbox\n    ladder:\n      - {do: reset, when: score > 9}\n", []string{
			`a.yml:4: rule "hijacked-mailbox" has a reset but no block: a password is only changed behind a block`,
		}},
		{"no such action", "rules:\n  - name: blind\n    ladder:\n      - {do: destroy, when: true}\n      - {do: nothing, when: true}\n      - {when: true}\n", []string{
			`a.yml:4: "destroy" is no action: want observe, throttle, hold, block or reset`,
			`a.yml:5: "nothing" is no action: want observe, throttle, hold, block or reset`,
			`a.yml:6: "" is no action: want observe, throttle, hold, block or reset`,
		}},
		{"times", "rules:\n  - name: hijacked-mailbox\n    ladder:\n      - {do: observe, when: true, for: 1h}\n      - {do: throttle, when: true}\n      - {do: hold, when: true, for: soon}\n      - {do: block, when: true, for: 9999d}\n      - {do: reset, when: true, for: 1h}\n", []string{
			"a.yml:4: observe does not last: it has no for",
			"a.yml:5: throttle has no for: say how long it lasts, as in for: 24h, or for: until-released",
			`a.yml:6: for: "soon" is no time that an action can last: want something like 90m, 24h or 7d, or until-released`,
			`a.yml:7: for: "9999d" is no time that an action can last: want something like 90m, 24h or 7d, or until-released`,
			"a.yml:8: reset does not last: it has no for",
		}},
		{"condition", "rules:\n  - name: blind\n    ladder:\n      - do: observe\n        when: scroe >= 6\n", []string{
			"a.yml:5: unknown name scroe; known names: score, families, hard, evidence, foreign, messages, recipients, age, class, subject, domain, shared, backlog, second, minute, hour, abs, ceil, floor, len, lower, max, min, round",
		}},
		{"condition over several lines", "rules:\n  - name: blind\n    ladder:\n      - do: observe\n        when: |\n          score >= 6 and\n          evidence(\"novelity\") > 1 and\n          class == \"logni\"\n", []string{
			`a.yml:7: unknown family of evidence "novelity"; known: novelty, domains, rate, fanout, series, oneway, hours, failures, returned, fleet, replies, logins, sender, likeness, script, queue, coverage, listing, traps, complaints, calibration`,
			`a.yml:8: unknown class "logni"; known: login, script, forward, user, uid, client`,
		}},
		{"exemptions", "rules:\n  - name: blind\n    exempt: [\"*\", a*b, \"@\"]\n    ladder: [{do: observe, when: true}]\n", []string{
			`a.yml:3: exempt entry "*" would exempt everybody: use mode observe`,
			`a.yml:3: exempt entry "a*b": a * can only stand at the end`,
			`a.yml:3: exempt entry "@" is empty`,
		}},
		{"case", "cases:\n  - finding: {rule: blnd, class: dog, age: -1h, evidence: {smell: 3}}\n    mode: act\n    exempt: [\"*\"]\n    want: {do: bark, for: long}\n", []string{
			"a.yml:2: name of the case is missing",
			`a.yml:2: unknown rule "blnd"; known rules: ` + known,
			"a.yml:2: subject of the finding is missing",
			`a.yml:2: unknown class "dog"; known: login, script, forward, user, uid, client`,
			`a.yml:2: age "-1h" is no time: want something like 90s, 10m or 2h`,
			`a.yml:2: unknown family of evidence "smell"; known: novelty, domains, rate, fanout, series, oneway, hours, failures, returned, fleet, replies, logins, sender, likeness, script, queue, coverage, listing, traps, complaints, calibration`,
			`a.yml:3: unknown mode "act": want observe or enforce`,
			`a.yml:4: exempt entry "*" would exempt everybody: use mode observe`,
			`a.yml:5: want.do is "bark": want nothing, observe, throttle, hold, block or reset`,
			`a.yml:5: for: "long" is no time: want something like 90m, 24h or 7d, or until-released`,
		}},
		{"too large", "# " + strings.Repeat("x", maxFile), []string{
			"rules: a.yml: larger than 1048576 bytes",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, err := Load(files("a.yml", tt.content))
			if err == nil || set != nil {
				t.Fatalf("loaded %v, error %v; want no set and an error", set, err)
			}
			if diff := cmp.Diff(strings.Split(err.Error(), "\n"), tt.want); diff != "" {
				t.Errorf("mistakes (-got +want):\n%s", diff)
			}
		})
	}
}

func TestLoadJoinsTheMistakesOfAllFiles(t *testing.T) {
	_, err := Load(files(
		"b.yml", "rules:\n  - name: blind\n",
		"a.yaml", "\nrule: []\n",
		"notes.txt", "not a rule file",
	))
	want := "a.yaml:2: a rule file has no field \"rule\"\nb.yml:2: rule \"blind\" has no ladder"
	if err == nil || err.Error() != want {
		t.Fatalf("got %v\nwant %s", err, want)
	}
	var m *Mistake
	if !errors.As(err, &m) || m.File != "a.yaml" || m.Line != 2 {
		t.Errorf("first mistake is %+v, want one in line 2 of a.yaml", m)
	}
}

func TestLoadOfNothing(t *testing.T) {
	for name, dir := range map[string]fstest.MapFS{
		"no files":      {},
		"empty file":    files("a.yml", ""),
		"only comments": files("a.yml", "# later\n"),
		"empty lists":   files("a.yml", "rules: []\ncases:\n"),
	} {
		set, err := Load(dir)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := set.Names(); len(got) != 0 {
			t.Errorf("%s: rules %v, want none", name, got)
		}
	}
}

func TestLoadDirNamesFilesWithTheirPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "own.yml")
	if err := os.WriteFile(file, []byte("rules:\n  - name: blind\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadDir(dir)
	if want := file + `:2: rule "blind" has no ladder`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := LoadDir(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent directory: %v, want one that does not exist", err)
	}
}

// The lines of what an alias or a merged mapping brought in are elsewhere in
// the file; a mistake in it must still be told with some line of this file.
func TestMistakesBehindAliases(t *testing.T) {
	_, err := Load(files("a.yml", `rules:
  - name: hijacked-mailbox
    ladder: &steps
      - do: observe
        when: scor > 6
  - name: blind
    ladder: *steps
`))
	if err == nil {
		t.Fatal("loaded, want two mistakes")
	}
	var at []string
	for _, text := range strings.Split(err.Error(), "\n") {
		place, _, _ := strings.Cut(text, ": ")
		at = append(at, place)
	}
	if diff := cmp.Diff(at, []string{"a.yml:5", "a.yml:5"}); diff != "" {
		t.Errorf("places (-got +want):\n%s", diff)
	}
}

func FuzzLoad(f *testing.F) {
	entries, err := shipped.ReadDir("shipped")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		data, err := shipped.ReadFile("shipped/" + e.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := Load(files("a.yml", string(data)))
		if (set == nil) == (err == nil) {
			t.Fatalf("set %v with error %v: want exactly one of them", set, err)
		}
		if err != nil {
			checkMistakes(t, err, yamlBreaks(string(data))+2)
			return
		}
		if again, first := set.RunCases(), set.RunCases(); !cmp.Equal(again, first) {
			t.Errorf("cases went differently the second time: %s", cmp.Diff(again, first))
		}
		for _, name := range set.Names() {
			checkSafety(t, set, name)
		}
	})
}

// yamlBreaks counts what YAML 1.1 takes for the end of a line.
func yamlBreaks(text string) (n int) {
	for _, r := range text {
		if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
			n++
		}
	}
	return n
}

// checkMistakes checks that every error has a place in the file.
func checkMistakes(t *testing.T, err error, lines int) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%v is not joined", err)
	}
	for _, e := range joined.Unwrap() {
		var m *Mistake
		if errors.As(e, &m) && (m.Line < 1 || m.Line > lines || m.Text == "") {
			t.Errorf("mistake %+v has no place in a file of %d lines", m, lines)
		}
	}
}

// checkSafety checks what must hold whatever a rule file says.
func checkSafety(t *testing.T, set *Set, rule string) {
	finding := Finding{ID: "f-1", Rule: rule, Subject: "alice@shop.test", Class: "login", Score: 50, Families: 3, Hard: "x"}
	observing, enforcing := &Policy{Set: set}, &Policy{Set: set, Mode: ModeEnforce}
	if d, _ := observing.Decide(finding); d.Enforce {
		t.Errorf("enforced although the mode is observe: %+v", d)
	}
	if d, ok := enforcing.Decide(Finding{ID: "f-2", Rule: rule, Subject: "mx1"}); d.Action > Observe || ok != (d.Action != Nothing) {
		t.Errorf("what is no account got %+v, %v", d, ok)
	}
	if d, ok := enforcing.Reset(finding); ok && d.Enforce {
		if block, _ := enforcing.Decide(finding); block.Action != Block || !block.Enforce || !block.Until.IsZero() {
			t.Errorf("reset %+v without a block that lasts: %+v", d, block)
		}
	}
	finding.Shared = true
	if d, _ := enforcing.Decide(finding); d.Enforce || d.Action > Observe {
		t.Errorf("a shared identity got %+v", d)
	}
	if d, ok := enforcing.Reset(finding); ok {
		t.Errorf("a shared identity got %+v", d)
	}
}
