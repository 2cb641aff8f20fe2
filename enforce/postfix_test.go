package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

// postfixDir is a Postfix configuration that the commands can read.
func postfixDir(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat(program("postmap")); err != nil {
		t.Skip("postmap is not installed")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"main.cf": "compatibility_level = 2\n", "master.cf": ""} {
		writeOld(t, filepath.Join(dir, name), text)
	}
	return dir
}

// writeOld writes a file that seems a minute old: Postfix's programs read
// anew, for two seconds, one that was written just now.
func writeOld(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

// supported skips the test if the installed Postfix lacks a type of table.
func supported(t testing.TB, config, kind string) {
	t.Helper()
	out, err := exec.Command(program("postconf"), "-c", config, "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(strings.Fields(string(out)), kind) {
		t.Skipf("the installed Postfix has no %s tables", kind)
	}
}

// dump returns the whole table as Postfix reads it, sorted.
func dump(t testing.TB, table *PostfixTable) []string {
	t.Helper()
	out, err := exec.Command(program("postmap"), "-c", table.ConfigDir, "-s", table.Type+":"+table.Path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
	slices.Sort(lines)
	return lines
}

func blocked(subject string, logins ...string) Entry {
	return Entry{Subject: subject, Logins: append([]string{subject}, logins...), Action: rules.Block, Text: "stopped"}
}

func TestPostfixTable(t *testing.T) {
	config := postfixDir(t)
	for _, kind := range []string{"hash", "btree", "lmdb", "cdb"} {
		t.Run(kind, func(t *testing.T) {
			supported(t, config, kind)
			table := &PostfixTable{Path: filepath.Join(t.TempDir(), "sasl_access"), Type: kind, ConfigDir: config}
			for _, step := range []struct {
				entries []Entry
				want    []string
			}{
				{nil, nil},
				{[]Entry{blocked("alice@shop.test", "alice", "Info@shop.test")}, []string{
					"alice\tREJECT 5.7.1 stopped", "alice@shop.test\tREJECT 5.7.1 stopped", "info@shop.test\tREJECT 5.7.1 stopped"}},
				{[]Entry{
					{Subject: "alice@shop.test", Logins: []string{"alice@shop.test", "shared"}, Action: rules.Hold, Text: "two\nlines"},
					{Subject: "bob@shop.test", Logins: []string{"bob@shop.test", "shared"}, Action: rules.Reset, Text: ""},
				}, []string{"alice@shop.test\tHOLD two lines", "bob@shop.test\tREJECT 5.7.1", "shared\tREJECT 5.7.1"}},
				{nil, nil},
			} {
				for range 2 {
					if err := table.Apply(t.Context(), step.entries); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(dump(t, table), step.want, cmp.Comparer(slices.Equal[[]string])); diff != "" {
						t.Errorf("table (-got +want):\n%s", diff)
					}
				}
			}
			left, err := os.ReadDir(filepath.Dir(table.Path))
			if err != nil || len(left) != 2 {
				t.Errorf("files left behind: %v, %v", left, err)
			}
			for _, f := range left {
				if info, err := f.Info(); err != nil || info.Mode() != 0o644 {
					t.Errorf("%s: mode %v, %v; Postfix has to read it", f.Name(), info.Mode(), err)
				}
			}
		})
	}
}

func TestPostfixTableAsksForTheDefaultType(t *testing.T) {
	config := postfixDir(t)
	writeOld(t, filepath.Join(config, "main.cf"), "compatibility_level = 2\ndefault_database_type = btree\n")
	supported(t, config, "btree")
	table := &PostfixTable{Path: filepath.Join(t.TempDir(), "sasl_access"), ConfigDir: config}
	if err := table.Apply(t.Context(), []Entry{blocked("alice@shop.test")}); err != nil {
		t.Fatal(err)
	}
	table.Type = "btree"
	if got := dump(t, table); len(got) != 1 {
		t.Errorf("as btree it holds %q", got)
	}
	table.Type = "sdbm"
	if err := table.Apply(t.Context(), nil); err == nil || !strings.Contains(err.Error(), `"sdbm"`) {
		t.Errorf("a type that cannot be swapped at once: got %v", err)
	}
}

func TestPostfixTableWritesOnlyWhatChanged(t *testing.T) {
	config := postfixDir(t)
	table := &PostfixTable{Path: filepath.Join(t.TempDir(), "sasl_access"), Type: "hash", ConfigDir: config}
	supported(t, config, "hash")
	apply := func() (source, index os.FileInfo) {
		t.Helper()
		if err := table.Apply(t.Context(), []Entry{blocked("alice@shop.test")}); err != nil {
			t.Fatal(err)
		}
		source, err := os.Stat(table.Path)
		if err != nil {
			t.Fatal(err)
		}
		if index, err = os.Stat(table.Path + ".db"); err != nil {
			t.Fatal(err)
		}
		return source, index
	}
	source, index := apply()
	if again, index2 := apply(); !os.SameFile(source, again) || !os.SameFile(index, index2) {
		t.Error("an unchanged table was written again, which restarts Postfix's processes")
	}
	for _, damage := range []func() error{
		func() error { return os.Remove(table.Path + ".db") },
		func() error { return os.WriteFile(table.Path+".db", []byte("not a database"), 0o644) },
		func() error { return os.Remove(table.Path) },
		func() error {
			return exec.Command(program("postmap"), "-c", config, "-d", "alice@shop.test", "hash:"+table.Path).Run()
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		apply()
		if got := dump(t, table); len(got) != 1 {
			t.Errorf("after damage it holds %q", got)
		}
	}
}

func TestPostfixTableLeavesForeignEdits(t *testing.T) {
	config := postfixDir(t)
	supported(t, config, "hash")
	entries := []Entry{blocked("alice@shop.test")}
	for name, edit := range map[string]func(text string) string{
		"line added":   func(text string) string { return text + "ceo@shop.test OK\n" },
		"line removed": func(text string) string { return text[:strings.Index(text, "alice")] },
		"header gone":  func(text string) string { return "bob@shop.test REJECT\n" },
	} {
		t.Run(name, func(t *testing.T) {
			table := &PostfixTable{Path: filepath.Join(t.TempDir(), "sasl_access"), Type: "hash", ConfigDir: config}
			if err := table.Apply(t.Context(), entries); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(table.Path)
			if err != nil {
				t.Fatal(err)
			}
			edited := edit(string(text))
			if err := os.WriteFile(table.Path, []byte(edited), 0o644); err != nil {
				t.Fatal(err)
			}
			err = table.Apply(t.Context(), append(entries, blocked("mallory@shop.test")))
			if !errors.Is(err, ErrForeignEdit) || !strings.Contains(err.Error(), table.Path) {
				t.Errorf("got %v, want ErrForeignEdit about the path", err)
			}
			if now, _ := os.ReadFile(table.Path); string(now) != edited {
				t.Errorf("the edit was overwritten: %q", now)
			}
			aside, err := table.SetAside()
			if err != nil {
				t.Fatal(err)
			}
			if err := table.Apply(t.Context(), entries); err != nil {
				t.Error(err)
			}
			if kept, _ := os.ReadFile(aside); string(kept) != edited {
				t.Errorf("set aside: %q, want the edited text", kept)
			}
		})
	}
}

// hostile are names that try to become lines, comments, keys or values of
// another account.
var hostile = []string{
	"", " ", "a b@shop.test", "\talice", " alice@shop.test", "x\nceo@shop.test OK", "x\r\nceo@shop.test OK", "#alice", "# alice",
	"\"", "\"alice\"", "\"a b\"", "a\"b", "alice\\", "a\\ b", "nul\x00", "\x1b[31m", "stra\u00dfe@shop.test", "\u202ealice", "\xff\xfe",
	strings.Repeat("a", 10_000), "CEO\u212a@shop.test", "x\vceo", "x\u00a0OK", "x\u2028ceo OK",
}

func TestPostfixTableAndHostileLogins(t *testing.T) {
	config := postfixDir(t)
	supported(t, config, "hash")
	table := &PostfixTable{Path: filepath.Join(t.TempDir(), "sasl_access"), Type: "hash", ConfigDir: config}
	odd := []string{"-q", "*", "alice:", "a'b;$(id)`id`", "user%shop.test", "<>", "hash:/etc/passwd", "..", "!a", "a=b,c"}
	entries := []Entry{blocked("alice@shop.test")}
	for _, login := range slices.Concat(hostile, odd) {
		entries = append(entries, Entry{Subject: login, Logins: []string{login}, Action: rules.Block, Text: login})
	}
	err := table.Apply(t.Context(), entries)
	if !errors.Is(err, ErrLogin) {
		t.Errorf("got %v, want ErrLogin", err)
	}
	if got := strings.Count(err.Error(), ErrLogin.Error()); got != len(hostile) {
		t.Errorf("%d logins are named, want %d: %v", got, len(hostile), err)
	}
	got := dump(t, table)
	for i, line := range got {
		got[i], _, _ = strings.Cut(line, "\t")
	}
	want := append([]string{"alice@shop.test"}, odd...)
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("keys (-got +want):\n%s", diff)
	}
}

// TestPostfixAway reads back what Postfix is to do in the gate's place.
func TestPostfixAway(t *testing.T) {
	config := postfixDir(t)
	supported(t, config, "hash")
	entries := []Entry{
		blocked("alice@shop.test"),
		{Subject: "bob@shop.test", Logins: []string{"bob@shop.test", "shared"}, Action: rules.Hold, Text: "held"},
		{Subject: "carol@shop.test", Logins: []string{"carol@shop.test", "shared", "a b"}, Action: rules.Throttle, Text: "slowed"},
		{Subject: "user:games", Action: rules.Block},
	}
	for want, wait := range map[string]bool{"HOLD slowed": false, "DEFER 4.7.1 slowed": true} {
		table := &PostfixAway{PostfixTable: PostfixTable{Path: filepath.Join(t.TempDir(), "away"), Type: "hash", ConfigDir: config}, Defer: wait}
		if err := table.Apply(t.Context(), entries); !errors.Is(err, ErrLogin) {
			t.Errorf("got %v, want ErrLogin", err)
		}
		got := dump(t, &table.PostfixTable)
		slices.Sort(got)
		rows := []string{"alice@shop.test\tREJECT 5.7.1 stopped", "bob@shop.test\tHOLD held", "carol@shop.test\t" + want, "shared\tHOLD held"}
		if diff := cmp.Diff(got, rows); diff != "" {
			t.Errorf("rows (-got +want):\n%s", diff)
		}
	}
}

func FuzzTableText(f *testing.F) {
	for _, login := range hostile {
		f.Add(login, login)
	}
	f.Fuzz(func(t *testing.T, login, text string) {
		rows, err := tableRows(&PostfixTable{}, []Entry{
			{Subject: "a", Logins: []string{login}, Action: rules.Block, Text: text},
			{Subject: "b", Logins: []string{"alice@shop.test"}, Action: rules.Hold, Text: text},
		}, tableValue)
		want := 2
		if err != nil || strings.EqualFold(login, "alice@shop.test") {
			want = 1
		}
		if len(rows) != want {
			t.Fatalf("%d rows of %q, want %d", len(rows), login, want)
		}
		out := tableText(rows)
		if !ours(out) {
			t.Error("our own text is foreign")
		}
		body := strings.TrimPrefix(string(out), tableHeader)
		if got := strings.Count(body, "\n"); got != want+1 {
			t.Errorf("%d lines of %d rows: %q", got, want, body)
		}
		for _, r := range rows {
			if !strings.HasPrefix(r.value, "REJECT 5.7.1") && !strings.HasPrefix(r.value, "HOLD") {
				t.Errorf("value %q", r.value)
			}
			for _, c := range r.login + r.value {
				if c < ' ' || c > '~' {
					t.Errorf("%q gets into the table", c)
				}
			}
		}
	})
}

// TestPostfixTableIsNeverSeenHalfWritten reads as Postfix does while the
// table is written again and again.
func TestPostfixTableIsNeverSeenHalfWritten(t *testing.T) {
	config := postfixDir(t)
	supported(t, config, "hash")
	table := &PostfixTable{Path: filepath.Join(t.TempDir(), "sasl_access"), Type: "hash", ConfigDir: config}
	entries := func(n int) []Entry {
		out := []Entry{blocked("always@shop.test")}
		for i := range 500 + n {
			out = append(out, blocked(fmt.Sprintf("user%d@shop.test", i)))
		}
		return out
	}
	if err := table.Apply(t.Context(), entries(0)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	reads := 0
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			out, err := exec.Command(program("postmap"), "-c", config, "-q", "always@shop.test", "hash:"+table.Path).CombinedOutput()
			reads++
			if err != nil || string(out) != "REJECT 5.7.1 stopped\n" {
				t.Errorf("a reader saw %q, %v", out, err)
				return
			}
		}
	})
	for i := range 20 {
		if err := table.Apply(t.Context(), entries(i)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
	if reads == 0 {
		t.Error("nothing was read meanwhile")
	}
}

func TestPostfixTableWhereItCannotWrite(t *testing.T) {
	missing := &PostfixTable{Path: filepath.Join(t.TempDir(), "missing", "sasl_access"), Type: "hash"}
	if err := missing.Apply(t.Context(), nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing.Path) {
		t.Errorf("got %v, want an error about the path", err)
	}
	table := &PostfixTable{Path: filepath.Join(t.TempDir(), "sasl_access"), Type: "hash"}
	unlock, err := lockDir(filepath.Dir(table.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := table.Apply(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "another process is writing") {
		t.Errorf("while another writes: got %v", err)
	}
}

// script makes a program of a shell script.
func script(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPostmapThatFails(t *testing.T) {
	for _, test := range []struct {
		name, script string
		want         []string
		is           error
	}{
		{"hangs", "exec sleep 60", []string{"no answer within 100ms"}, context.DeadlineExceeded},
		{"hangs with a child", "sleep 60", []string{"no answer within 100ms"}, context.DeadlineExceeded},
		{"complains", "echo one >&2; echo 'fatal: disk \033[31m is full' >&2; exit 1", []string{"exit status 1: fatal: disk ?[31m is full"}, nil},
		{"writes nothing", "exit 0", []string{"sasl_access.new.db"}, fs.ErrNotExist},
		{"forgets", `case "$1" in hash:*) : > "${1#hash:}.db";; esac; exit 0`, nil, ErrNotKept},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := &PostfixTable{
				Path: filepath.Join(t.TempDir(), "sasl_access"), Type: "hash", Postmap: script(t, test.script), Timeout: 100 * time.Millisecond,
			}
			if test.is == nil || !errors.Is(test.is, context.DeadlineExceeded) {
				table.Timeout = 10 * time.Second
			}
			began := time.Now()
			err := table.Apply(t.Context(), []Entry{blocked("alice@shop.test")})
			if err == nil {
				t.Fatal("succeeded")
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %v", err, test.is)
			}
			for _, want := range append(test.want, table.Path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to name %q", err, want)
				}
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("took %v", took)
			}
			if left, _ := os.ReadDir(filepath.Dir(table.Path)); len(left) > 0 {
				t.Errorf("left behind %v", left)
			}
		})
	}
}

func BenchmarkPostfixTable(b *testing.B) {
	config := postfixDir(b)
	supported(b, config, "hash")
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := &PostfixTable{Path: filepath.Join(b.TempDir(), "sasl_access"), Type: "hash", ConfigDir: config}
			entries := make([]Entry, n)
			for i := range entries {
				entries[i] = blocked(fmt.Sprintf("user%d@shop.test", i))
			}
			for i := 0; b.Loop(); i++ {
				entries[0].Text = fmt.Sprint(i)
				if err := table.Apply(b.Context(), entries); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
