package mailq

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite want.txt of the cases under testdata/logs")

// Whole logs and what is made of them: testdata/logs/<case>/{events.log,want.txt}.
func TestLogs(t *testing.T) {
	cases, err := filepath.Glob("testdata/logs/*/events.log")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			log, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := newParser()
			p.Now = time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC)
			got := described(events(p, string(log)))
			want := filepath.Join(dir, "want.txt")
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, string(b)); diff != "" {
				t.Errorf("-got +want\n%s", diff)
			}
		})
	}
}

// described writes events out whole, but for hashes.
func described(evs []Event) string {
	var b strings.Builder
	for _, ev := range evs {
		fmt.Fprintf(&b, "%s %s", ev.Time.Format(time.RFC3339Nano), brief(ev))
		for _, f := range []struct{ name, value string }{{"host", ev.Host}, {"sender", ev.Sender}, {"script", ev.Script}, {"subject", ev.Subject},
			{"method", ev.Method}, {"service", ev.Service}, {"provider", ev.Reply.Provider}, {"enhanced", ev.Reply.Enhanced}, {"text", ev.Reply.Text}} {
			if f.value != "" {
				fmt.Fprintf(&b, " %s=%q", f.name, f.value)
			}
		}
		if ev.Client.IsValid() {
			fmt.Fprintf(&b, " client=%s", ev.Client)
		}
		if ev.From.IsValid() {
			fmt.Fprintf(&b, " from=%s", ev.From)
		}
		if ev.Size > 0 {
			fmt.Fprintf(&b, " size=%d", ev.Size)
		}
		if ev.Reply.Code > 0 {
			fmt.Fprintf(&b, " code=%d", ev.Reply.Code)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// The logs of the testbed's own runs hold nothing that is not understood, and
// each message counts once.
func TestSamples(t *testing.T) {
	for name, want := range map[string]int{"postfix-3.7-longids.log": 9, "postfix-3.7-shortids.log": 9, "exim-4.96-mainlog.log": 10, "dovecot-2.3.log": 0} {
		p := newParser()
		got := 0
		seen := map[uint64]bool{}
		for _, ev := range events(p, sample(t, name)) {
			if ev.Kind != Submitted {
				continue
			}
			if got++; seen[ev.Message] {
				t.Errorf("%s: %s counts twice", name, ev.QueueID)
			}
			seen[ev.Message] = true
		}
		if s := p.Stats(); got != want || s.Unrecognised != 0 || s.Orphans != 0 || s.Ambiguous != 0 {
			t.Errorf("%s: %d messages, %+v, want %d messages and nothing unknown", name, got, s, want)
		}
	}
}
