package enforce

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// odd are hostile names beside those in hostile: each of them can be written
// somewhere, and must mean itself only.
var odd = []string{
	"a b@shop.test", "o'brien@shop.test", "a#b", "a!b", "a*", "a^b", "a+b@shop.test", "a=b", "#shop", "a,b@shop.test",
	"-q", "-C/etc/passwd", "*", "*@", "*@shop.test", "@shop.test", "@", "alice:", ":alice", "alice: ", "user:games", "User:irc", "uid:10",
	"!alice@shop.test", "!", "^.*", "^alice", "a'b;$(id)`id`", "${run{/bin/id}}", "$authenticated_id", "%u", "user%shop.test", "<>", "..", "../../etc/passwd",
	"hash:/etc/passwd", "static:all", "a=b,c", "alice@shop.test, bob@shop.test", "alice@shop.test bob@shop.test", "alice@shop.test:",
	"alice@shop.test#", "{PLAIN}x", "x:{PLAIN}x:::", `\x61lice@shop.test`, `\141lice`, `alice@shop.test\`, `"alice@shop.test"`, `"bob@shop.test`,
}

// victims are accounts that nobody stopped.
var victims = []string{
	"alice@shop.test", "bob@shop.test", "ceo@shop.test", "ceo@SHOP.test", "alice", "bob", "ceo", "x", "a", "b", "id", "shop.test", "a b", "ok", "all",
	"strasse@shop.test", "ceok@shop.test",
	"games", "user", "irc", "uucp", "uid", "passwd", "brien@shop.test", "ab", "abc", "a@shop.test", "b@shop.test",
}

// everyName are entries that block all hostile names, and one account besides.
func everyName() []Entry {
	entries := []Entry{blocked("mallory@shop.test"), {Subject: "user:uucp", Action: rules.Block, Text: "no scripts"}}
	for _, name := range slices.Concat(hostile, odd) {
		entries = append(entries, Entry{Subject: "x@shop.test", Logins: []string{name}, Action: rules.Block, Text: name})
	}
	return entries
}

// textTables are the tables that are one file which the server reads as it is.
func textTables(path string) map[string]Table {
	return map[string]Table{
		"block": &EximTable{BlockPath: path},
		"deny":  &DovecotDeny{Path: path},
		"away":  &EximAway{Path: path},
	}
}

func TestTextTables(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"block": {
			"alice": "\"alice\": stopped\n\"alice@shop.test\": stopped\n\"info@shop.test\": stopped\n",
			"both":  "\"bob@shop.test\":\n\"shared\":\n",
		},
		"deny": {
			"alice": "alice\nalice@shop.test\ninfo@shop.test\n",
			"both":  "bob@shop.test\nshared\n",
		},
		"away": {
			"alice": "\"alice\": DENY 5.7.1 stopped\n\"alice@shop.test\": DENY 5.7.1 stopped\n\"info@shop.test\": DENY 5.7.1 stopped\n",
			"both": "\"alice@shop.test\": FREEZE two lines\n\"bob@shop.test\": DENY 5.7.1 reset\n" +
				"\"script:c3362f7394c7f45a0179ee4d84ec2fdc98cd25e8ce0dcc0aa10226aee121b75d\": FREEZE block\n\"shared\": DENY 5.7.1 reset\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "table")
			table := textTables(path)[name]
			for _, step := range []struct {
				entries []Entry
				want    string
			}{
				{nil, ""},
				{[]Entry{blocked("alice@shop.test", "alice", "Info@shop.test")}, want["alice"]},
				{[]Entry{
					{Subject: "alice@shop.test", Logins: []string{"alice@shop.test", "shared"}, Action: rules.Hold, Text: "two\nlines"},
					{Subject: "bob@shop.test", Logins: []string{"bob@shop.test", "shared"}, Action: rules.Reset},
					{Subject: "script:/x.php", Action: rules.Block},
				}, want["both"]},
				{nil, ""},
			} {
				before, _ := os.Stat(path)
				if err := table.Apply(t.Context(), step.entries); err != nil {
					t.Fatal(err)
				}
				written, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if before != nil && before.ModTime().Unix() == written.ModTime().Unix() {
					t.Error("the old and the new file are of one second")
				}
				if err := table.Apply(t.Context(), step.entries); err != nil {
					t.Fatal(err)
				}
				if again, _ := os.Stat(path); !os.SameFile(written, again) {
					t.Error("an unchanged table was written again")
				}
				text, _ := os.ReadFile(path)
				if diff := cmp.Diff(strings.ReplaceAll(bodyOf(string(text)), ": \n", ":\n"), step.want); diff != "" {
					t.Errorf("table (-got +want):\n%s", diff)
				}
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
				t.Errorf("files left behind: %v", left)
			}
		})
	}
}

// bodyOf is a table without its header.
func bodyOf(text string) string {
	rest := strings.TrimPrefix(text, tableHeader+tableSum)
	_, body, _ := strings.Cut(rest, "\n")
	return body
}

func TestTextTablesKeepOwnerAndMode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	for name := range textTables("") {
		path := filepath.Join(t.TempDir(), "table")
		table := textTables(path)[name]
		if err := errors.Join(os.WriteFile(path, nil, 0o640), os.Chown(path, 39, 8)); err != nil {
			t.Fatal(err)
		}
		if err := table.Apply(t.Context(), []Entry{blocked("alice@shop.test")}); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("stat", "-c", "%u %g %a", path).Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != "39 8 640" {
			t.Errorf("%s: owner, group and mode are %s, %v", name, got, err)
		}
	}
}

func TestTextTablesLeaveForeignEdits(t *testing.T) {
	entries := []Entry{blocked("alice@shop.test")}
	for name := range textTables("") {
		for edit, edited := range map[string]func(text string) string{
			"line added":   func(text string) string { return text + "ceo@shop.test\n" },
			"line removed": func(text string) string { return strings.TrimSuffix(text, bodyOf(text)) },
			"header gone":  bodyOf,
		} {
			t.Run(name+"/"+edit, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "table")
				table := textTables(path)[name]
				if err := table.Apply(t.Context(), entries); err != nil {
					t.Fatal(err)
				}
				text, _ := os.ReadFile(path)
				want := edited(string(text))
				if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					err := table.Apply(t.Context(), append(entries, blocked("mallory@shop.test")))
					if !errors.Is(err, ErrForeignEdit) || !strings.Contains(err.Error(), path) {
						t.Errorf("got %v, want ErrForeignEdit about the path", err)
					}
				}
				if now, _ := os.ReadFile(path); string(now) != want {
					t.Errorf("the edit was overwritten: %q", now)
				}
				aside, err := SetAside(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := table.Apply(t.Context(), entries); err != nil {
					t.Error(err)
				}
				if kept, _ := os.ReadFile(aside); string(kept) != want {
					t.Errorf("set aside: %q", kept)
				}
			})
		}
	}
}

func TestEximTableWritesOneFileWhenTheOtherIsForeign(t *testing.T) {
	dir := t.TempDir()
	table := &EximTable{BlockPath: filepath.Join(dir, "block"), HoldPath: filepath.Join(dir, "hold")}
	if err := os.WriteFile(table.BlockPath, []byte("ceo@shop.test: no\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := table.Apply(t.Context(), []Entry{{Subject: "a@shop.test", Logins: []string{"a@shop.test", "\n"}, Action: rules.Hold, Text: "held"}})
	if !errors.Is(err, ErrForeignEdit) || !errors.Is(err, ErrLogin) {
		t.Errorf("got %v, want both mistakes", err)
	}
	if text, _ := os.ReadFile(table.HoldPath); bodyOf(string(text)) != "\"a@shop.test\": held\n" {
		t.Errorf("held: %q", text)
	}
}

// TestTablesSurviveBeingKilled kills a process that writes a table again and
// again: the table is always a whole one, and the next process goes on.
func TestTablesSurviveBeingKilled(t *testing.T) {
	for name := range textTables("") {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "table")
			for i := range 15 {
				writeAndKill(t, time.Duration(20+7*i)*time.Millisecond, name, path)
				text, err := os.ReadFile(path)
				if errors.Is(err, os.ErrNotExist) {
					continue // it had not come so far
				}
				lines := strings.Count(bodyOf(string(text)), "\n")
				if err != nil || !ours(text) || lines != 100 && lines != 200 {
					t.Fatalf("%d lines, %v: %.300q", lines, err, text)
				}
			}
			if err := textTables(path)[name].Apply(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
				t.Errorf("files left behind: %v", left)
			}
		})
	}
}

func TestPostfixTableSurvivesBeingKilled(t *testing.T) {
	config := postfixDir(t)
	supported(t, config, "hash")
	path := filepath.Join(t.TempDir(), "table")
	table := &PostfixTable{Path: path, Type: "hash", ConfigDir: config}
	if err := table.Apply(t.Context(), hundreds(1)); err != nil {
		t.Fatal(err)
	}
	for i := range 15 {
		writeAndKill(t, time.Duration(20+7*i)*time.Millisecond, "postfix:"+config, path)
		if lines := len(dump(t, table)); lines != 100 && lines != 200 {
			t.Fatalf("Postfix reads %d lines", lines)
		}
	}
	if err := table.Apply(t.Context(), hundreds(3)); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 2 || len(dump(t, table)) != 300 {
		t.Errorf("files left behind: %v", left)
	}
}

// writeAndKill has another process write a table until it is killed.
func writeAndKill(t *testing.T, after time.Duration, name, path string) {
	t.Helper()
	writer := exec.Command(os.Args[0], "-test.run=^TestWriteUntilKilled$")
	writer.Env = append(os.Environ(), "WRITE_UNTIL_KILLED="+name, "TABLE="+path)
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	writer.Process.Kill()
	writer.Wait()
}

// hundreds are n hundred entries.
func hundreds(n int) []Entry {
	entries := make([]Entry, 100*n)
	for i := range entries {
		entries[i] = blocked(fmt.Sprintf("user%d@shop.test", i))
	}
	return entries
}

// TestTextTablesOfAnOrdinaryUser writes as a user who can give no file away, in
// a directory whose group the server's is.
func TestTextTablesOfAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	for name := range textTables("") {
		dir := publicDir(t)
		path := filepath.Join(dir, "table")
		if err := errors.Join(os.WriteFile(path, nil, 0o640), os.Chown(path, 5, 8), os.Chown(dir, 5, 8), os.Chmod(dir, 0o755|os.ModeSetgid)); err != nil {
			t.Fatal(err)
		}
		writer := exec.Command("/proc/self/exe", "-test.run=^TestWriteUntilKilled$")
		writer.Env = append(os.Environ(), "WRITE_UNTIL_KILLED="+name, "TABLE="+path, "TMPDIR="+dir)
		writer.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 5, Gid: 5}}
		writer.Dir = "/"
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if text, _ := os.ReadFile(path); len(text) > 0 {
				break
			}
		}
		writer.Process.Kill()
		writer.Wait()
		out, err := exec.Command("stat", "-c", "%u %g %a", path).Output()
		if text, _ := os.ReadFile(path); err != nil || string(out) != "5 8 640\n" || len(text) == 0 {
			t.Errorf("%s: owner, group and mode are %s, %v; %d bytes", name, out, err, len(text))
		}
	}
}

// TestWriteUntilKilled is the process that TestTablesSurviveBeingKilled kills.
func TestWriteUntilKilled(t *testing.T) {
	name := os.Getenv("WRITE_UNTIL_KILLED")
	if name == "" {
		t.Skip("runs as a process of TestTablesSurviveBeingKilled")
	}
	table := textTables(os.Getenv("TABLE"))[name]
	if config, ok := strings.CutPrefix(name, "postfix:"); ok {
		table = &PostfixTable{Path: os.Getenv("TABLE"), Type: "hash", ConfigDir: config}
	}
	for began := time.Now(); time.Since(began) < time.Minute; {
		for n := range 2 {
			if err := table.Apply(t.Context(), hundreds(n+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSystemUsers(t *testing.T) {
	if out, err := exec.Command("id", "-u", "games").Output(); err != nil || string(out) != "5\n" {
		t.Skip("the system has no user games with the number 5, as Debian does")
	}
	for _, tt := range []struct {
		subject string
		users   []string
		want    []string
		wrong   int // users named in the error
	}{
		{"user:games", nil, []string{"games"}, 0},
		{"uid:5", nil, []string{"games"}, 0},
		{"user:games", []string{"games"}, []string{"games"}, 0},
		{"script:/home/games/x.php", []string{"games", "irc"}, []string{"games", "irc"}, 0},
		{"alice@shop.test", nil, nil, 0},
		{"user:root", nil, nil, 1},
		{"uid:0", nil, nil, 1},
		{"uid:00", nil, nil, 1},
		{"uid:-1", nil, nil, 1},
		{"uid:", nil, nil, 1},
		{"user:", nil, nil, 1},
		{"user:postfix", nil, nil, 1},
		{"user:www-data", nil, nil, 1},
		{"user:nobody", nil, nil, 1},
		{"uid:65534", nil, nil, 1},
		{"user:unknown", nil, nil, 1},
		{"uid:4294967290", nil, nil, 1}, // nobody has it
		{"user:Games", nil, nil, 1},
		{"user:5", nil, nil, 1}, // a number is no name
		{"user:backup", nil, nil, 1},
		{"script:/x.php", []string{"root", "games", "no such user", "-q", "a:b", "*", "\x00", "!games", strings.Repeat("a", 10_000)}, []string{"games"}, 8},
	} {
		got, err := systemUsers(Entry{Subject: tt.subject, Users: tt.users}, func(a mailq.Account) bool { return a == "user:backup" })
		if diff := cmp.Diff(got, tt.want, cmp.Comparer(slices.Equal[[]string])); diff != "" {
			t.Errorf("%q %.80q (-got +want):\n%s", tt.subject, tt.users, diff)
		}
		named := 0
		if err != nil {
			named = strings.Count(err.Error(), ErrUser.Error())
		}
		if named != tt.wrong || (err == nil) != (tt.wrong == 0) || err != nil && !errors.Is(err, ErrUser) {
			t.Errorf("%q: %d users are named, want %d: %v", tt.subject, named, tt.wrong, err)
		}
	}
}

func FuzzTextTables(f *testing.F) {
	for _, name := range slices.Concat(hostile, odd) {
		f.Add(name, name)
	}
	f.Fuzz(func(t *testing.T, login, text string) {
		entries := []Entry{{Subject: "a", Logins: []string{login}, Action: rules.Block, Text: text}, blocked("mallory@shop.test")}
		blockedRows, _, errExim := (&EximTable{BlockPath: "block"}).rows(entries)
		scripts, _ := (&EximAway{}).rows([]Entry{{Subject: "script:/" + login, Action: rules.Throttle, Text: text}})
		if lines := strings.Split(string(lsearchLines(scripts)), "\n"); len(lines) > 2 || len(lines[0]) > 0 && !strings.HasPrefix(lines[0], `"`+scriptKey("/"+login)+`": FREEZE `) {
			t.Errorf("of the script %q the lines %q", login, lines)
		}
		for _, line := range strings.Split(strings.TrimSuffix(string(lsearchLines(blockedRows)), "\n"), "\n") {
			key, _, ok := lsearchKey(line)
			if !ok || key != "mallory@shop.test" && key != strings.ToLower(login) {
				t.Errorf("of %q the line %q has the key %q", login, line, key)
			}
		}
		denied, errDeny := tableRows(&DovecotDeny{}, entries, func(Entry) string { return "" })
		for _, r := range denied {
			line := r.login
			if line != "mallory@shop.test" && line != strings.ToLower(login) || strings.ContainsAny(line, ":\r\n\x00") {
				t.Errorf("of %q the line %q", login, line)
			}
		}
		if errExim == nil && len(blockedRows) == 1 != strings.EqualFold(login, "mallory@shop.test") || errDeny == nil && len(denied) == 0 {
			t.Errorf("%q is left out and not named", login)
		}
	})
}

// lsearchKey reads a line as Exim's lsearch does (lookups/lsearch.c).
func lsearchKey(line string) (key, value string, ok bool) {
	rest, ok := strings.CutPrefix(line, `"`)
	if !ok {
		return "", "", false
	}
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			return "", "", false // ours have none
		case '"':
			value, ok = strings.CutPrefix(rest[i+1:], ":")
			return key, strings.TrimLeft(value, " \t"), ok
		default:
			key += rest[i : i+1]
		}
	}
	return "", "", false
}

func BenchmarkTextTables(b *testing.B) {
	for name := range textTables("") {
		for _, n := range []int{10, 1_000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				table := textTables(filepath.Join(b.TempDir(), "table"))[name]
				entries := make([]Entry, n)
				for i := range entries {
					entries[i] = blocked(fmt.Sprintf("user%d@shop.test", i))
				}
				for i := 0; b.Loop(); i++ {
					entries[0] = blocked(fmt.Sprintf("other%d@shop.test", i))
					if err := table.Apply(b.Context(), entries); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
