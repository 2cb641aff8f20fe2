package app

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
)

// write puts a text into a file of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readAll(t *testing.T, r *logReader) []string {
	t.Helper()
	var got []string
	r.location, r.now, r.progress = time.UTC, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), func() {}
	r.line = func(line []byte) error {
		got = append(got, string(line))
		return nil
	}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return got
}

// Logs are read in the order of their lines' times, however they are named
// and stamped; a line without a stamp stays behind the one before it.
func TestLogsAreMerged(t *testing.T) {
	postfix := "Mar 20 10:00:01 mx1 postfix/smtpd[1]: a\nMar 20 10:00:03 mx1 postfix/smtpd[1]: c\nMar 20 10:00:05 mx1 postfix/smtpd[1]: e\n"
	dovecot := "2026-03-20 10:00:02 imap-login: Info: b\n2026-03-20 10:00:04 imap-login: Info: d\nno stamp\n"
	want := []string{"a", "b", "c", "d", "stamp", "e"}
	for _, paths := range [][]string{
		{write(t, "mail", postfix), write(t, "dovecot", dovecot)},
		{write(t, "dovecot", dovecot), write(t, "mail", postfix)},
	} {
		var got []string
		for _, line := range readAll(t, &logReader{paths: paths}) {
			got = append(got, line[strings.LastIndexByte(line, ' ')+1:])
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("order (-got +want):\n%s", diff)
		}
	}
}

func TestOneLogIsReadAsItIs(t *testing.T) {
	var text strings.Builder
	for i := range 50_000 { // several chunks, whose room is used again
		text.WriteString(strings.Repeat("x", i%97) + "\n")
	}
	want := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(text.String()))
	z.Close()
	for name, r := range map[string]*logReader{
		"plain":          {paths: []string{write(t, "mail.log", text.String())}},
		"gzip":           {paths: []string{write(t, "mail.log.gz", packed.String())}},
		"standard input": {paths: []string{"-"}, stdin: strings.NewReader(text.String())},
	} {
		if got := readAll(t, r); !slices.Equal(got, want) {
			t.Errorf("%s: %d lines, want %d, or they differ", name, len(got), len(want))
		}
	}
}

func TestReadingStopsAtAnError(t *testing.T) {
	boom := errors.New("boom")
	for _, paths := range [][]string{{"a"}, {"a", "b"}} {
		for i := range paths {
			paths[i] = write(t, paths[i], strings.Repeat("Mar 20 10:00:01 mx1 x\n", 100_000))
		}
		r := &logReader{paths: paths, progress: func() {}, line: func([]byte) error { return boom }}
		if err := r.run(t.Context()); !errors.Is(err, boom) {
			t.Errorf("error = %v, want %v", err, boom)
		}
	}
}

// Lines that are too long to be read are counted, and the others read.
func TestLongLinesAreCounted(t *testing.T) {
	line := "Mar 20 10:00:01 mx1 x\n"
	path := write(t, "long", line+strings.Repeat("x", mailq.MaxLine+1)+"\n"+line)
	read := 0
	r := &logReader{paths: []string{path}, progress: func() {}, line: func([]byte) error { read++; return nil }}
	if err := r.run(t.Context()); err != nil || read != 2 || r.tooLong.Load() != 1 {
		t.Errorf("%d lines read and %d too long, %v; want 2, 1 and no error", read, r.tooLong.Load(), err)
	}
}

// The shipped log of the demo, judged: the hijacked mailbox climbs the whole
// ladder within a few messages, and nobody else is touched.
func TestReplayOfTheDemo(t *testing.T) {
	path := write(t, "mail.log", demoLog)
	var out, summary bytes.Buffer
	o := ReplayOptions{Config: config.Default(), Paths: []string{path}, JSON: true, Out: &out, Err: &summary, Now: time.Now()}
	if err := Replay(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	var last replayStep
	for line := range strings.Lines(out.String()) {
		var s replayStep
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if s.Account != hijacked {
			t.Errorf("%s of %s, who is innocent: %+v", s.Action, s.Account, s.Evidence)
		}
		if s.Time.Before(last.Time) || s.Action < last.Action {
			t.Errorf("%s at %s after %s at %s", s.Action, s.Time, last.Action, last.Time)
		}
		last = s
	}
	if last.Action.String() != "block" || last.Recipients == 0 || last.Recipients > 25 || len(last.Evidence) < 2 {
		t.Errorf("last step = %+v, want a block within 25 recipients, with evidence", last)
	}
	if !strings.Contains(summary.String(), "would block 1 account\n") {
		t.Errorf("summary = %q", summary.String())
	}
	var again bytes.Buffer
	o.Out = &again
	if err := Replay(t.Context(), o); err != nil || again.String() != out.String() {
		t.Errorf("the same log again gives other steps (%v)", err)
	}
}

// The rules are read beside the log; a mistake in them ends the replay, and
// nothing is told by other rules.
func TestReplayByBrokenRules(t *testing.T) {
	path := write(t, "mail.log", demoLog)
	o := ReplayOptions{Config: config.Default(), Paths: []string{path}, JSON: true, Out: new(bytes.Buffer), Err: io.Discard, Now: time.Now()}
	o.Config.Rules.Dir = filepath.Dir(write(t, "own.yml", "rules:\n  - nam: x\n"))
	err := Replay(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), `own.yml:2: a rule has no field "nam"`) {
		t.Errorf("error = %v", err)
	}
	if out := o.Out.(*bytes.Buffer); out.Len() > 0 {
		t.Errorf("told %s", out)
	}
}

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute of real time")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	var out bytes.Buffer
	if err := Demo(ctx, DemoOptions{Out: &out, Once: true}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"ordinary", "hijack", "refused", "alert", "Subject: [vedetta] " + hijacked, "$ vedetta why " + hijacked, "score"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story lacks %q:\n%s", want, out.String())
		}
	}
}
