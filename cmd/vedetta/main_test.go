package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vedetta-watch/vedetta/internal/app"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// TestMain lets the scripts run vedetta as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"vedetta": func() {
			os.Exit(run(context.Background(), os.Args[1:], std{os.Stdin, os.Stdout, os.Stderr}))
		},
	})
}

// TestCommands runs the user stories in testdata. Each finds mail.log, the
// demo's log, with a copy packed by gzip and one by zstd, and a free address
// in $FREE.
func TestCommands(t *testing.T) {
	log, err := os.ReadFile(filepath.Join("..", "..", "internal", "app", "demo", "mail.log"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			free, err := freeAddress()
			if err != nil {
				return err
			}
			env.Setenv("FREE", free)
			env.Setenv("TZ", "UTC")
			for name, text := range map[string][]byte{"mail.log": log, "mail.log.gz": gzipped(log), "mail.log.zst": zstded(log)} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), text, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"steps": steps, "exits": exits},
	})
}

// TestHelp compares what is said about each command with what is said where the
// whole command line is at hand.
func TestHelp(t *testing.T) {
	for f := range reflect.TypeFor[cli]().Fields() {
		args := []string{strings.ToLower(f.Name), "--help"}
		var part, whole bytes.Buffer
		if code := run(t.Context(), args, std{out: &part, err: &part}); code != 0 {
			t.Errorf("%v: exit %d: %s", args, code, &part)
		}
		if code := runAs(t.Context(), &cli{}, args, std{out: &whole, err: &whole}); code != 0 || part.String() != whole.String() {
			t.Errorf("%v: exit %d\n%s\nwith all commands at hand:\n%s", args, code, &part, &whole)
		}
	}
}

// freeAddress is one on loopback that nobody listens on.
func freeAddress() (string, error) {
	port, err := bed.FreePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

func gzipped(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(text) // to memory
	w.Close()
	return b.Bytes()
}

func zstded(text []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // no options
	}
	return w.EncodeAll(text, nil)
}

// exits runs a command that has to end with a code: exits 2 vedetta …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("exit %s, want %s", code, args[0])
	}
}

// steps checks that a file holds the steps of `vedetta replay --json` as the
// contract has them, and that the named account is blocked in them.
func steps(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: steps FILE ACCOUNT")
	}
	blocked := false
	var last time.Time
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		s, err := readStep(line)
		ts.Check(err)
		if s.Time.Before(last) {
			ts.Fatalf("%s is before %s", s.Time, last)
		}
		last = s.Time
		blocked = blocked || s.Account == args[1] && s.Action == "block"
	}
	if !blocked {
		ts.Fatalf("%s is not blocked", args[1])
	}
}

type jsonStep struct {
	Time     time.Time
	Account  string
	Action   string
	Evidence []map[string]any
}

// contract lists the fields of a step; evidenceContract those of its evidence.
var (
	contract         = []string{"account", "action", "evidence", "finding", "recipients", "rule", "score", "since", "time"}
	evidenceContract = []string{"kind", "score", "text"}
)

func readStep(line string) (s jsonStep, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return s, fmt.Errorf("%q: %w", line, err)
	}
	delete(fields, "held_back") // there when something was
	if keys := sortedKeys(fields); !slices.Equal(keys, contract) {
		return s, fmt.Errorf("%q: fields %v, want %v", line, keys, contract)
	}
	if err := json.Unmarshal([]byte(line), &s); err != nil {
		return s, fmt.Errorf("%q: %w", line, err)
	}
	if !slices.Contains([]string{"observe", "throttle", "hold", "block"}, s.Action) || s.Time.IsZero() || len(s.Evidence) == 0 {
		return s, fmt.Errorf("%q: no action, no time or no evidence", line)
	}
	for _, e := range s.Evidence {
		if keys := sortedKeys(e); !slices.Equal(keys, evidenceContract) {
			return s, fmt.Errorf("%q: evidence with %v, want %v", line, keys, evidenceContract)
		}
	}
	return s, nil
}

// What could not be printed is said: a password or a token was shown to nobody then.
func TestOutputThatIsLost(t *testing.T) {
	for _, args := range [][]string{{"rules", "test", "../../rules/shipped"}, {"config", "check", "-c", "../../config.example.yaml"}} {
		var told strings.Builder
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip("no /dev/full here:", err)
		}
		defer full.Close()
		if code := run(t.Context(), args, std{out: full, err: &told}); code != 1 || !strings.Contains(told.String(), "lost") {
			t.Errorf("vedetta %s onto a full disk ended with %d: %q", args, code, told.String())
		}
	}
}

func TestPrintSample(t *testing.T) {
	at := time.Date(2026, 11, 30, 9, 0, 0, 0, time.Local)
	sample := app.QueueSample{
		Time: at, Total: 40, Held: 4, Oldest: at.Add(-time.Hour),
		ByAccount:     []app.QueueShare{{Name: "alice@shop.test", Count: 30}, {Name: "b\x1b[31m@shop.test", Count: 6}},
		ByDestination: make([]app.QueueShare, sharesShown+2),
		ByAge:         []app.QueueShare{{Name: "under 5m", Count: 36}, {Name: "5m-1h"}},
	}
	for i := range sample.ByDestination {
		sample.ByDestination[i] = app.QueueShare{Name: fmt.Sprintf("far%d.test", i), Count: 1}
	}
	var out strings.Builder
	if err := printSample(&out, &sample); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"by the queue itself, at 2026-11-30 09:00:00: 40 messages, about 4 of them held, the oldest since 2026-11-30 08:00:00\n",
		"  from alice@shop.test   about 30\n", "  from b?[31m@shop.test  about 6\n", "  to far19.test          about 1\n", "  to 2 others", "  under 5m               about 36\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing from:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "5m-1h") {
		t.Errorf("a share of nothing is shown:\n%s", &out)
	}
}
