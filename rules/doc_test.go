package rules

import (
	"os"
	"strings"
	"testing"
)

func readDoc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The examples of the manual load, their cases pass, and no rung of theirs is
// left without one.
func TestDocExamples(t *testing.T) {
	parts := strings.Split(readDoc(t), "```yaml\n")
	if len(parts) < 2 {
		t.Fatal("docs/rules.md has no example")
	}
	for _, part := range parts[1:] {
		example, _, _ := strings.Cut(part, "```")
		set := mustLoad(t, example)
		for _, r := range set.RunCases() {
			if r.Problem != "" {
				t.Errorf("%s: %s", r.Name, r.Problem)
			}
		}
		if untested := set.Untested(); len(untested) > 0 {
			t.Errorf("rungs that no case wants: %v", untested)
		}
	}
}

// Every name of the language has its row in a table of the manual.
func TestDocNamesEverything(t *testing.T) {
	text := readDoc(t)
	var rows strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| `") {
			first, _, _ := strings.Cut(line[2:], " |")
			rows.WriteString(first + "\n")
		}
	}
	words := map[string][]string{
		"rule":   Names(),
		"family": Families(),
		"name":   environmentNames[:],
		"action": actionNames[Observe:],
	}
	for kind, names := range words {
		for _, name := range names {
			if !strings.Contains(rows.String(), "`"+name+"`") && !strings.Contains(rows.String(), "`"+name+"(") {
				t.Errorf("docs/rules.md has no row for the %s %s", kind, name)
			}
		}
	}
	for _, name := range functionNames {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("docs/rules.md does not name the function %s", name)
		}
	}
	for _, class := range classNames[1:] {
		if !strings.Contains(text, "`"+class+"`") {
			t.Errorf("docs/rules.md does not name the class %s", class)
		}
	}
	for _, r := range ruleTable {
		if row := "| `" + r.name + "` | "; !strings.Contains(text, row) || !strings.Contains(lineWith(text, row), "| `"+r.most.String()+"` |") {
			t.Errorf("docs/rules.md does not say that %s goes up to %s", r.name, r.most)
		}
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}
