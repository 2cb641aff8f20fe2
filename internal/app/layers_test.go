package app_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/vedetta-watch/vedetta/"

// everything stands for all packages of ours but the commands.
const everything = "*"

// layers says which of our packages each of them may import. A package below
// one of these may import the same, and its own tree.
var layers = map[string][]string{
	"rules":              {},
	"mailq":              {},
	"dnsbl":              {},
	"mailauth":           {},
	"sitescan":           {},
	"checks":             {},
	"notify":             {},
	"detector":           {"mailq", "rules"},
	"enforce":            {"mailq", "rules"},
	"incident":           {"rules"},
	"rollout":            {"rules"},
	"internal/config":    {},
	"internal/schedule":  {},
	"internal/dnsclient": {},
	"internal/gate":      {"rules", "mailauth"},
	"internal/intake":    {"mailq", "mailauth"},
	"internal/store":     {"rules", "mailq", "incident"},
	"internal/eval":      {"detector", "mailq", "rules"},
	"internal/hub":       {"rules", "mailq", "incident"},
	"internal/web":       {"rules", "incident", "mailq", "detector"},
	"internal/app":       {everything},
	"cmd/vedetta":        {"internal/app", "internal/config"},
	"test":               {},
	"test/bed":           {},
	"test/loggen":        {},
	"test/bench":         {"test/loggen", "test/bed", "internal/store", "detector", "mailq", "rules"}, // it loads a database to measure with
	"test/report":        {},
}

// TestLayers lists what every package imports and reports what the table does
// not allow.
func TestLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < 10 {
		t.Fatalf("go list names only %d packages: %q", len(lines), lines)
	}
	for _, mistake := range misplaced(lines) {
		t.Error(mistake)
	}
}

func TestMisplaced(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string // a package and its imports, without the module's path
		want  []string
	}{
		{"allowed", []string{"detector fmt mailq rules github.com/google/go-cmp/cmp"}, nil},
		{"sideways", []string{"mailq fmt dnsbl"}, []string{"mailq must not import dnsbl"}},
		{"upwards", []string{"rules internal/app"}, []string{"rules must not import internal/app"}},
		{"each one", []string{"notify rules mailq", "incident rules"}, []string{"notify must not import rules", "notify must not import mailq"}},
		{"app may import all", []string{"internal/app mailq internal/config internal/store/storetest"}, nil},
		{"but not a command", []string{"internal/app cmd/vedetta"}, []string{"internal/app must not import cmd/vedetta"}},
		{"config is for app and commands", []string{"internal/gate internal/config"}, []string{"internal/gate must not import internal/config"}},
		{"a package below", []string{"internal/store/storetest internal/store rules"}, nil},
		{"a package below, wrongly", []string{"internal/store/storetest detector"}, []string{"internal/store/storetest must not import detector"}},
		{"a name that only begins alike", []string{"rulesets fmt"}, []string{"rulesets is not in the table of layers"}},
		{"not in the table", []string{"helpers fmt"}, []string{"helpers is not in the table of layers"}},
		{"its own tree", []string{"test/loggen/cmd test/loggen"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var lines []string
			for _, line := range tt.lines {
				lines = append(lines, ours(line))
			}
			if diff := cmp.Diff(misplaced(lines), tt.want); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// ours puts the module's path before the words that name a package of ours.
func ours(line string) string {
	words := strings.Fields(line)
	for i, word := range words {
		if i == 0 || layerOf(word) != "" {
			words[i] = module + word
		}
	}
	return strings.Join(words, " ")
}

// misplaced reports the imports that the table does not allow. Each line is a
// package, followed by what it imports.
func misplaced(lines []string) (mistakes []string) {
	for _, line := range lines {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module)
		layer := layerOf(pkg)
		if layer == "" {
			mistakes = append(mistakes, pkg+" is not in the table of layers")
			continue
		}
		for _, word := range words[1:] {
			imported, our := strings.CutPrefix(word, module)
			if our && !mayImport(layer, layerOf(imported)) {
				mistakes = append(mistakes, fmt.Sprintf("%s must not import %s", pkg, imported))
			}
		}
	}
	return mistakes
}

func mayImport(layer, imported string) bool {
	if layer == imported {
		return true
	}
	allowed := layers[layer]
	if slices.Contains(allowed, everything) {
		return imported != "" && !strings.HasPrefix(imported, "cmd/")
	}
	return slices.Contains(allowed, imported)
}

// layerOf is the row of the table for a package: its own, or that of the
// nearest one above it; empty if there is none.
func layerOf(pkg string) string {
	for pkg != "" {
		if _, ok := layers[pkg]; ok {
			return pkg
		}
		above := strings.LastIndexByte(pkg, '/')
		pkg = pkg[:max(above, 0)]
	}
	return ""
}
