package incident

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

var update = flag.Bool("update", false, "write the golden files anew")

func (w Telling) text() string {
	var s strings.Builder
	fmt.Fprintf(&s, "[%s] %s\n\n%s\n\n%s\n\n", w.Severity, w.Title, w.What, w.Done)
	for _, c := range w.Commands {
		fmt.Fprintf(&s, "  %s\n", c)
	}
	s.WriteString("\n")
	for _, f := range w.Facts {
		fmt.Fprintf(&s, "%-10s %s\n", f.Name, f.Value)
	}
	return s.String()
}

func TestWords(t *testing.T) {
	last := func(steps ...func(*Book) []Change) Change {
		b, told := &Book{}, []Change(nil)
		for _, do := range steps {
			told = do(b)
		}
		if len(told) != 1 {
			t.Fatalf("%d changes", len(told))
		}
		return told[0]
	}
	with := func(change func(*rules.Finding), a rules.Action, enforce bool) func(*Book) []Change {
		return func(b *Book) []Change {
			f := finding(0)
			change(&f)
			return one(b.Record(f, decide(f, a, enforce, 0), f.Time))
		}
	}
	for name, c := range map[string]Change{
		"listed":       last(listing(0, 1.7, "spamhaus-zen", "spamcop", "psbl", "dronebl", "0spam", "gbudb")),
		"listed-over":  last(lasting(1.7), ended(90)),
		"listed-wider": last(listing(0, 0.4, "psbl"), listing(5, 1.0, "spamcop", "psbl", "dronebl")),
		"listed-worse": last(listing(0, 0.4, "psbl"), listing(5, 1.7, "psbl")),
		"neighbours":   last(lastingOf(rules.Neighbours, "203.0.113.0/24", 0)),
		"list-health":  last(lastingOf(rules.ListHealth, "block list psbl", 0)),
		"observed":     last(record(0, rules.Observe, true)),
		"would-block":  last(record(0, rules.Block, false)),
		"throttle":     last(record(0, rules.Throttle, true)),
		"hold":         last(record(0, rules.Hold, true)),
		"block":        last(record(0, rules.Block, true)),
		"reset":        last(record(0, rules.Block, true), with(func(*rules.Finding) {}, rules.Reset, true)),
		"would-reset":  last(record(0, rules.Block, true), record(1, rules.Reset, false)),
		"hard":         last(record(0, rules.Block, true), hard(1, "five-countries")),
		"failed":       last(fail(0, rules.Block, "postmap: no space left on device")),
		"reset-failed": last(record(0, rules.Block, true), fail(1, rules.Reset, "panel: timeout")),
		"recovered":    last(fail(0, rules.Block, "postmap: no space left"), record(1, rules.Block, true)),
		"released":     last(record(0, rules.Block, true), release(5)),
		"undone":       last(record(0, rules.Block, true), undo(5)),
		"over":         last(record(0, rules.Block, true), tick(60)),
		"again":        last(record(0, rules.Block, true), tick(60), record(90, rules.Block, true)),
		"weakened": last(func(b *Book) []Change {
			f := finding(0)
			d := decide(f, rules.Block, true, time.Hour)
			d.Why = "score 17.2, 4 families"
			return one(b.Record(f, d.Weakened(rules.HeldBlast+": 20 subjects within 1h0m0s were stopped already"), f.Time))
		}),
		"held-shared": last(func(b *Book) []Change {
			f := finding(0)
			f.Subject, f.Class, f.Shared = "user:www-data", "user", true
			d := decide(f, rules.Observe, false, 0)
			d.HeldBack = rules.HeldShared + ": block would stop others too"
			return one(b.Record(f, d, f.Time))
		}),
		"shared": last(with(func(f *rules.Finding) {
			f.Subject, f.Class, f.Shared, f.Backlog = "user:www-data", "user", true, true
		}, rules.Observe, true)),
		"blind": last(with(func(f *rules.Finding) {
			f.Subject, f.Class, f.Rule, f.Messages, f.Rcpts = "mx3.shop.test", "", "lost-coverage", 0, 0
		}, rules.Observe, true)),
		"hostile": last(with(func(f *rules.Finding) { f.Subject = "x'; rm -rf $HOME\r\n@shop.test" }, rules.Block, true)),
	} {
		t.Run(name, func(t *testing.T) {
			got, file := c.Tell().text(), filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, string(want)); diff != "" {
				t.Errorf("-got +want:\n%s", diff)
			}
		})
	}
}

// A real shell reads the quoted account as one word, unchanged.
func TestQuote(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh here")
	}
	for _, s := range []string{
		"alice@shop.test", "script:/home/u/x.php", "", "a b", "$(touch /tmp/x)", "`id`", "a'b", "'", "a;b", "~root",
		"a\nb", "a\"b", "*", "é@shop.test", "a\\b", "#a", "-rf", "--all",
	} {
		out, err := exec.Command(sh, "-c", `for a; do :; done; set -- `+quote(s)+`; [ "$1" = "--" ] && shift; printf %s "$1"`).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q: the shell reads %q, %v", s, out, err)
		}
		if strings.HasPrefix(s, "-") && !strings.HasPrefix(quote(s), "-- ") {
			t.Errorf("%q would be read as a flag: %s", s, quote(s))
		}
	}
}

func TestNames(t *testing.T) {
	for s := None; s <= Resolved; s++ {
		text, _ := s.MarshalText()
		var back State
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%v comes back as %v, %v", s, back, err)
		}
	}
	var s State
	if err := s.UnmarshalText([]byte("lost")); err == nil {
		t.Error("an unknown state was read")
	}
	if got, want := State(99).String(), "state 99"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := clip(strings.Repeat("é", 300), 501), strings.Repeat("é", 250)+"…"; got != want {
		t.Errorf("clip cut inside a rune: %q", got[490:])
	}
}
