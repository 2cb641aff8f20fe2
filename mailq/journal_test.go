package mailq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeJournal is a command that writes its arguments to a file, then text as
// journalctl would, and does what end says.
func fakeJournal(t *testing.T, text, end string) (command []string, arguments string) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "text"), []byte(text))
	script := filepath.Join(dir, "journalctl")
	write(t, script, fmt.Appendf(nil, "#!/bin/sh\nprintf '%%s\\n' \"$@\" >%[1]s/arguments\ncat %[1]s/text\n%[2]s\n", dir, end))
	return []string{"/bin/sh", script}, filepath.Join(dir, "arguments")
}

func entry(cursor, fields string) string {
	return fmt.Sprintf(`{"__CURSOR":%q,"__REALTIME_TIMESTAMP":"1774000807123456","_HOSTNAME":"mx1",%s}`+"\n", cursor, fields)
}

func bytesField(b string) string {
	return strings.ReplaceAll(fmt.Sprint([]byte(b)), " ", ",")
}

func TestJournal(t *testing.T) {
	const at = "2026-03-20T10:00:07.123456Z mx1 "
	tests := []struct {
		name, fields, want string
	}{
		{"plain", `"SYSLOG_IDENTIFIER":"postfix/smtpd","_PID":"4345","MESSAGE":"connect from x"`, at + "postfix/smtpd[4345]: connect from x\n"},
		{"bytes", `"SYSLOG_IDENTIFIER":"exim","_PID":"7","MESSAGE":` + bytesField("caf\xe9"), at + "exim[7]: caf\xe9\n"},
		{"newlines cannot begin a line", `"SYSLOG_IDENTIFIER":"x","MESSAGE":"a\nb\r\u0000c"`, at + "x: a b  c\n"},
		{"newlines in bytes neither", `"SYSLOG_IDENTIFIER":"x","MESSAGE":` + bytesField("a\nb"), at + "x: a b\n"},
		{"given twice", `"SYSLOG_IDENTIFIER":["x","y"],"MESSAGE":["first","second"]`, at + "x: first\n"},
		{"given twice as bytes", `"SYSLOG_IDENTIFIER":"x","MESSAGE":[` + bytesField("\xff1") + "," + bytesField("2") + "]", at + "x: \xff1\n"},
		{"too large to be shown", `"SYSLOG_IDENTIFIER":"x","MESSAGE":null`, at + "x: \n"},
		{"no identifier", `"_COMM":"exim4","_PID":"7","MESSAGE":"m"`, at + "exim4[7]: m\n"},
		{"nothing", `"MESSAGE":"m"`, at + "unknown: m\n"},
		{"the pid that the sender claims is second", `"SYSLOG_IDENTIFIER":"x","_PID":"7","SYSLOG_PID":"8","MESSAGE":"m"`, at + "x[7]: m\n"},
		{"a forged identifier stays one word", `"SYSLOG_IDENTIFIER":"postfix/smtpd[1]: 4A: sasl_username=v","_PID":"7","MESSAGE":"m"`, at + "postfix/smtpd_1___4A__sasl_username=v[7]: m\n"},
		{"numbers and objects", `"SYSLOG_IDENTIFIER":7,"MESSAGE":{"a":[1]}`, at + "unknown: \n"},
		{"longest", `"SYSLOG_IDENTIFIER":"x","MESSAGE":` + bytesField(strings.Repeat("\xff", MaxLine-len(at)-4)), at + "x: " + strings.Repeat("\xff", MaxLine-len(at)-4) + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			command, _ := fakeJournal(t, entry("c1", tt.fields), "exit 3")
			c := &collect{t: t}
			err := (&Journal{Command: command}).Run(t.Context(), c.emit)
			if err == nil || !strings.Contains(err.Error(), "exit status 3") {
				t.Errorf("got %v, want the exit status", err)
			}
			if diff := cmp.Diff(string(c.lines), tt.want); diff != "" {
				t.Errorf("lines (-got +want):\n%s", diff)
			}
			if c.end.Cursor != "c1" || !c.caught {
				t.Errorf("got cursor %q and caught %v", c.end.Cursor, c.caught)
			}
		})
	}
}

func TestJournalArguments(t *testing.T) {
	command, arguments := fakeJournal(t, "", "echo 'Failed to add match' >&2; exit 1")
	j := &Journal{Command: command, Match: []string{"_SYSTEMD_UNIT=postfix@-.service"}, From: Position{Cursor: "s=1;i=2"}}
	err := j.Run(t.Context(), (&collect{t: t}).emit)
	if err == nil || !strings.Contains(err.Error(), "Failed to add match") {
		t.Errorf("got %v, want what the command said", err)
	}
	got, _ := os.ReadFile(arguments)
	want := strings.Join([]string{
		"--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_COMM,_PID,SYSLOG_PID,_HOSTNAME",
		"--all", "--follow", "--no-tail", "--merge", "--quiet", "--no-pager", "--after-cursor=s=1;i=2",
		"_SYSTEMD_UNIT=postfix@-.service", "+", journalDropped, "",
	}, "\n")
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("arguments (-got +want):\n%s", diff)
	}
}

func TestJournalLongEntries(t *testing.T) {
	text := entry("c1", `"SYSLOG_IDENTIFIER":"x","MESSAGE":"a"`) +
		entry("c2", `"MESSAGE":"`+strings.Repeat("m", MaxLine)+`"`) +
		entry("c3", `"MESSAGE":"`+strings.Repeat("m", 3*maxEntry)+`"`) +
		entry("c4", `"SYSLOG_IDENTIFIER":"x","MESSAGE":"b"`)
	command, _ := fakeJournal(t, text, "")
	c := &collect{t: t}
	err := (&Journal{Command: command}).Run(t.Context(), c.emit)
	if err == nil || !strings.HasSuffix(string(c.lines), "x: b\n") || strings.Count(string(c.lines), "\n") != 2 || c.skipped != 2 || c.end.Cursor != "c4" {
		t.Errorf("got %v, %d skipped, cursor %q, lines %.200q", err, c.skipped, c.end.Cursor, c.lines)
	}
}

func TestJournalMany(t *testing.T) {
	var text, want strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&want, "2026-03-20T10:00:07.123456Z mx1 x: %d\n", i)
		text.WriteString(entry(fmt.Sprint(i), fmt.Sprintf(`"SYSLOG_IDENTIFIER":"x","MESSAGE":"%d"`, i)))
	}
	command, _ := fakeJournal(t, text.String(), "")
	c := &collect{t: t}
	chunks := 0
	(&Journal{Command: command}).Run(t.Context(), func(ch Chunk) error { chunks++; return c.emit(ch) })
	if string(c.lines) != want.String() || c.end.Cursor != "19999" || chunks > 2000 {
		t.Errorf("got %d bytes in %d chunks up to %q, want %d", len(c.lines), chunks, c.end.Cursor, want.Len())
	}
}

func TestJournalStops(t *testing.T) {
	command, _ := fakeJournal(t, entry("c1", `"MESSAGE":"a"`), "exec cat /dev/zero >/dev/null")
	ctx, cancel := context.WithCancel(t.Context())
	began := time.Now()
	err := (&Journal{Command: command}).Run(ctx, func(Chunk) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) || time.Since(began) > 10*time.Second {
		t.Errorf("got %v after %v, want the context's error at once", err, time.Since(began))
	}
	err = (&Journal{Command: command}).Run(t.Context(), func(Chunk) error { return errStop })
	if err != errStop {
		t.Errorf("got %v, want the error of emit as it is", err)
	}
	err = (&Journal{Command: []string{"/nonexistent/journalctl"}}).Run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/journalctl") {
		t.Errorf("got %v, want the command's name", err)
	}
	command, _ = fakeJournal(t, "-- cursor lost --\n", "")
	err = (&Journal{Command: command}).Run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), `"-- cursor lost --\n"`) {
		t.Errorf("got %v, want what was no entry", err)
	}
}

func FuzzJournalEntry(f *testing.F) {
	f.Add([]byte(entry("c", `"SYSLOG_IDENTIFIER":"x","MESSAGE":"a\nb"`)))
	f.Add([]byte(entry("c", `"SYSLOG_IDENTIFIER":["x"],"MESSAGE":[1,10,255]`)))
	f.Add([]byte(entry("c", `"_PID":[[91,58]],"MESSAGE":[[[1]],"x"]`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := entryReader{emit: func(Chunk) error { return nil }}
		if e.add(b) != nil || e.skipped > 0 {
			return
		}
		line := string(e.lines)
		if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
			t.Fatalf("%q is not one line", line)
		}
		if f := strings.SplitN(line, " ", 4); len(f) != 4 || !strings.HasSuffix(f[2], ":") || strings.Count(f[2], ":") != 1 {
			t.Errorf("%q has no stamp, host, tag and message", line)
		}
	})
}
