package enforce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hookScript writes a program that notes its arguments and its input, each on a
// line, in the file that it returns.
func hookScript(t *testing.T, more string) (path, notes string) {
	t.Helper()
	dir := t.TempDir()
	path, notes = filepath.Join(dir, "setpass"), filepath.Join(dir, "notes")
	text := "#!/bin/sh\nfor a; do printf '%s\\n' \"$a\"; done >>" + notes + "\ncat >>" + notes + "\n" + more + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, notes
}

func TestCommandPasswords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		argv    []string // behind the program
		input   string
		account string
		want    string // arguments and input; empty: refused
	}{
		{"whole arguments", []string{"set", "{account}", "{user}", "{domain}"}, "", "alice@shop.test", "set\nalice@shop.test\nalice\nshop.test\nnew pass\n"},
		{"parts", []string{"--mail={user}@{domain}", "/{domain}/{user}"}, "", "alice@shop.test", "--mail=alice@shop.test\n/shop.test/alice\nnew pass\n"},
		{"as chpasswd wants it", nil, "{account}:{password}\n", "alice@shop.test", "alice@shop.test:new pass\n"},
		{"as passwd wants it", []string{"{user}"}, "{password}\n{password}\n", "alice@shop.test", "alice\nnew pass\nnew pass\n"},
		{"no domain", []string{"{account}"}, "", "alice", "alice\nnew pass\n"},
		{"no domain where one is wanted", []string{"{domain}"}, "", "alice", ""},
		{"an option", []string{"{account}"}, "", "-alice@shop.test", ""},
		{"an option, behind --", []string{"--", "{account}"}, "", "-alice@shop.test", "--\n-alice@shop.test\nnew pass\n"},
		{"an option as a value", []string{"--mail={account}"}, "", "-alice@shop.test", "--mail=-alice@shop.test\nnew pass\n"},
		{"a placeholder for a name", []string{"{account}"}, "", "{domain}@shop.test", ""},
		{"a name only in the input", nil, "{account}:{password}\n", "a:b@shop.test", ""},
		{"password as an argument", []string{"{password}"}, "", "alice@shop.test", ""},
		{"no password", nil, "{account}\n", "alice@shop.test", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, notes := hookScript(t, "")
			c := CommandPasswords{Argv: append([]string{path}, tt.argv...), Input: tt.input}
			err := c.Change(t.Context(), tt.account, "new pass")
			got, _ := os.ReadFile(notes)
			if string(got) != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrUnchanged) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
}

// A hostile name is one argument or none, even where the program is a shell.
func TestCommandHostile(t *testing.T) {
	dir := t.TempDir()
	for _, argv := range [][]string{{"{account}"}, {"--", "{account}"}, {"--mail={account}"}, {"{user}", "{domain}"}} {
		for _, account := range append(hostileAccounts, "$(touch${IFS}"+dir+"/pwned)@shop.test", ";touch "+dir+"/pwned;", "`touch>"+dir+"/pwned`") {
			path, notes := hookScript(t, "")
			c := CommandPasswords{Argv: append([]string{path}, argv...)}
			err := c.Change(t.Context(), account, "secret")
			got, _ := os.ReadFile(notes)
			if lines := strings.Count(string(got), "\n"); err == nil && lines != len(argv)+1 || err != nil && (lines > 0 || !errors.Is(err, ErrUnchanged)) {
				t.Errorf("%q with %.40q: %q, %v", argv, account, got, err)
			}
			shell := CommandPasswords{Argv: []string{"sh", "-c", "cat >/dev/null; true {account}"}}
			_ = shell.Change(t.Context(), account, "secret")
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("a name was run as a command: %q", left)
	}
}

// What the program says is told, but never the password.
func TestCommandComplains(t *testing.T) {
	t.Parallel()
	const secret = "k7mp-ab2c-wxyz"
	for _, tt := range []struct{ script, want string }{
		{"echo no such user >&2; exit 3", "exit status 3: no such user"},
		{"echo 'cannot set k7mp-ab2c-wxyz' >&2; exit 1", "not shown"},
		{"echo K7MPAB2C >&2; exit 1", "not shown"},
		{"tail -n 1 $0.in | base64 >&2; exit 1", "exit status 1"},
		{"printf 'a\\033[31m\\n\\000b' >&2; exit 1", "exit status 1: ?b"},
		{"head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1", "exit status 1: xxx"},
		{"kill -9 $$", "signal: killed"},
	} {
		path, _ := hookScript(t, tt.script)
		err := CommandPasswords{Argv: []string{path, "{account}"}}.Change(t.Context(), "alice@shop.test", secret)
		if err == nil || !strings.Contains(err.Error(), tt.want) || leaks(err.Error(), secret) || len(err.Error()) > 800 || errors.Is(err, ErrUnchanged) {
			t.Errorf("%s: %v", tt.script, err)
		}
	}
	err := CommandPasswords{Argv: []string{"/nonexistent/setpass"}}.Change(t.Context(), "alice@shop.test", secret)
	if !errors.Is(err, ErrUnchanged) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing program: %v", err)
	}
}

// The time-out ends the program with its children, also those that ignore it.
func TestCommandTimeout(t *testing.T) {
	t.Parallel()
	pids := filepath.Join(t.TempDir(), "pids")
	path, _ := hookScript(t, "trap '' TERM; (trap '' TERM; echo $$ >>"+pids+"; exec sleep 100) & echo $! >>"+pids+"; sleep 100 & echo $! >>"+pids+"; wait; wait")
	start := time.Now()
	err := CommandPasswords{Argv: []string{path}, Timeout: 300 * time.Millisecond}.Change(t.Context(), "alice@shop.test", "secret")
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnchanged) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	for field := range strings.FieldsSeq(readTestFile(t, pids)) {
		pid, _ := strconv.Atoi(field)
		for deadline := time.Now().Add(5 * time.Second); running(pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("process %d survives", pid)
				break
			}
		}
	}

	// A program that succeeded may leave somebody behind who keeps its output.
	quick, _ := hookScript(t, "sleep 100 & echo $! >>"+pids+"; exit 0")
	if err := (CommandPasswords{Argv: []string{quick}}).Change(t.Context(), "alice@shop.test", "secret"); err != nil {
		t.Errorf("it succeeded, but: %v", err)
	}
	fields := strings.Fields(readTestFile(t, pids))
	if pid, _ := strconv.Atoi(fields[len(fields)-1]); pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// running says whether a process is there and no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestCommandSessions(t *testing.T) {
	path, notes := hookScript(t, `[ "$2" != bob@shop.test ] || { echo no tokens for bob >&2; exit 1; }`)
	c := CommandSessions{Argv: []string{path, "revoke", "{login}"}}
	err := c.End(t.Context(), []string{"alice@shop.test", "bob@shop.test", "-x", "a b", "alice%shop.test"})
	if err == nil || !strings.Contains(err.Error(), "no tokens for bob") || !strings.Contains(err.Error(), "taken for an option") {
		t.Errorf("got %v", err)
	}
	if got, want := readTestFile(t, notes), "revoke\nalice@shop.test\nrevoke\nbob@shop.test\nrevoke\nalice%shop.test\n"; got != want {
		t.Errorf("it ran %q, want %q", got, want)
	}
	plan := c.Plan([]string{"alice@shop.test", "-x"})
	want := []string{path + " revoke alice@shop.test", `refused: "-x" could be taken for an option: put "--" before it`}
	if diff := cmp.Diff(want, plan); diff != "" {
		t.Error(diff)
	}
}

func FuzzExpandArgv(f *testing.F) {
	for _, account := range hostileAccounts {
		f.Add("--mail={account}", account)
	}
	f.Add("{user}", "-x@shop.test")
	f.Fuzz(func(t *testing.T, arg, account string) {
		argv, err := expandArgv([]string{"/bin/true", arg}, accountValues(account))
		if err != nil || argv[1] == arg {
			return
		}
		if len(argv) != 2 || argv[0] != "/bin/true" || strings.HasPrefix(argv[1], "-") && !strings.HasPrefix(arg, "-") {
			t.Errorf("%q of %q became %q", arg, account, argv)
		}
		if odd := strings.Trim(arg, " "); strings.ContainsAny(argv[1], "'\"`$;|&<>\n\x00") && !strings.ContainsAny(odd, "'\"`$;|&<>\n\x00") {
			t.Errorf("%q of %q became %q", arg, account, argv)
		}
	})
}
