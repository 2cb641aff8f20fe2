package enforce

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const passwdFileDB = `passdb {
  driver = passwd-file
  args = username_format=%u DIR/users
}
`

// dovecotWithUsers starts a Dovecot whose users all have the password "old".
func dovecotWithUsers(t *testing.T, settings string, users ...string) (d *testDovecot, path string) {
	t.Helper()
	dir := serverDir(t)
	path = filepath.Join(dir, "users")
	var text strings.Builder
	for _, u := range users {
		text.WriteString(u + ":{PLAIN}old\n")
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return startResetDovecot(t, dir, passwdFileDB+settings), path
}

// The sessions of an account end, and those of nobody else: not by a mask in
// its name, nor by an address, nor by an option.
func TestDovecotSessions(t *testing.T) {
	t.Parallel()
	hostile := []string{"*", "?lice@shop.test", "al*", `alice@shop.test\`, "127.0.0.1", "127.0.0.01", "127.0.0.1/8", "0.0.0.0/0", "::ffff:127.0.0.1",
		"::/0", "", "a b", "alice@shop.test\nbob@shop.test", "alice@shop.test\tbob@shop.test", "alice@shop.test\x00", "\u202ealice@shop.test",
		strings.Repeat("a", 10<<10), "\xff"}
	// These are names like any other: they end what is theirs, which is nothing.
	harmless := []string{"-f", "--force", "-a", "--", "nobody@shop.test", "$(kill)", "';'", "alice", "%u", "127", "\u05d0@shop.test"}

	d, _ := dovecotWithUsers(t, "auth_cache_size = 1M\n", "alice@shop.test", "bob@shop.test", "-x@shop.test", "a*e@shop.test", "1001")
	alice, alice2 := d.mustLogin("alice@shop.test", "old"), d.mustLogin("alice@shop.test", "old")
	others := map[string]*imapSession{}
	for _, name := range []string{"bob@shop.test", "a*e@shop.test"} {
		others[name] = d.mustLogin(name, "old")
	}
	option, number := d.mustLogin("-x@shop.test", "old"), d.mustLogin("1001", "old")

	for _, login := range hostile {
		if err := d.sessions.End(t.Context(), []string{login}); err == nil {
			t.Errorf("%.40q is not refused", login)
		} else if strings.ContainsAny(err.Error(), "\x00\u202e") {
			t.Errorf("the error is not printable: %q", err)
		}
	}
	for _, login := range harmless {
		if err := d.sessions.End(t.Context(), []string{login}); err != nil {
			t.Errorf("%q: %v", login, err)
		}
	}
	for _, s := range []*imapSession{alice, alice2, option, number, others["bob@shop.test"], others["a*e@shop.test"]} {
		if !s.open() {
			t.Fatal("somebody's session was ended")
		}
	}

	// A login that is refused keeps no other from being ended.
	start := time.Now()
	if err := d.sessions.End(t.Context(), []string{"a*e@shop.test", "alice@shop.test", "-x@shop.test", "1001"}); err == nil || !strings.Contains(err.Error(), "a*e@shop.test") {
		t.Errorf("the mask is not told: %v", err)
	}
	for _, s := range []*imapSession{alice, alice2, option, number} {
		s.ended(t)
	}
	t.Logf("four sessions ended within %v", time.Since(start).Round(time.Millisecond))
	for name, s := range others {
		if !s.open() {
			t.Errorf("the session of %s was ended too", name)
		}
	}
	if err := d.sessions.End(t.Context(), []string{"alice@shop.test"}); err != nil {
		t.Errorf("again: %v", err)
	}
}

// Where sessions share processes, nobody's is ended, and that is told.
func TestDovecotSharedProcess(t *testing.T) {
	t.Parallel()
	d, _ := dovecotWithUsers(t, "service imap {\n  client_limit = 10\n  process_limit = 1\n  process_min_avail = 1\n  service_count = 0\n}\n", "alice@shop.test", "bob@shop.test")
	alice, bob := d.mustLogin("alice@shop.test", "old"), d.mustLogin("bob@shop.test", "old")
	err := d.sessions.End(t.Context(), []string{"alice@shop.test"})
	if err == nil || !strings.Contains(err.Error(), "share a process") {
		t.Errorf("not told: %v", err)
	}
	if !alice.open() || !bob.open() {
		t.Error("a session was ended")
	}
}

func TestDovecotSessionsFail(t *testing.T) {
	findProgram(t, "doveadm")
	missing := DovecotSessions{Command: []string{"/nonexistent/doveadm"}}
	if err := missing.End(t.Context(), []string{"alice@shop.test"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing program: %v", err)
	}
	stopped := DovecotSessions{ConfigFile: filepath.Join(t.TempDir(), "none.conf")}
	if err := stopped.End(t.Context(), []string{"alice@shop.test"}); err == nil {
		t.Error("a Dovecot that is not there succeeds")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (DovecotSessions{}).End(ctx, []string{"alice@shop.test"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestDovecotSessionsPlan(t *testing.T) {
	d := DovecotSessions{Command: []string{"sudo", "-n", "doveadm"}, Instance: "mail"}
	got := strings.Join(d.Plan([]string{"alice@shop.test", "a*", "x\ny"}), "\n")
	want := `sudo -n doveadm -i mail auth cache flush -- alice@shop.test
sudo -n doveadm -i mail kick -- alice@shop.test
sudo -n doveadm -i mail auth cache flush -- a*
refused: its name is a mask, which could end the sessions of others: end them by hand
refused: login refused: the account "x\ny" has white space, control or invisible characters in its name`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// ssh joins arguments and has a shell read them.
func TestDovecotSessionsRemote(t *testing.T) {
	dir := t.TempDir()
	for _, command := range [][]string{{"sh", "-c", `eval "$0 $*" >/dev/null 2>&1; true`, "true"}, {"ssh", "mail.test", "doveadm"}} {
		d := DovecotSessions{Command: command}
		for _, login := range []string{";touch" + "${IFS}" + dir + "/pwned", "$(touch${IFS}" + dir + "/pwned)@shop.test", "`id`", "o'brien@shop.test", "a|b", "a>b"} {
			if err := d.End(t.Context(), []string{login}); err == nil || !strings.Contains(err.Error(), "shell") {
				t.Errorf("%s: %v", login, err)
			}
			if plan := d.Plan([]string{login}); len(plan) != 1 || !strings.HasPrefix(plan[0], "refused: ") {
				t.Errorf("%q", plan)
			}
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Error("a login was run as a command")
	}
	if err := (DovecotSessions{Command: []string{"sudo", "-n", "doveadm"}}).checkLogin("o'brien@shop.test"); err != nil {
		t.Error(err)
	}
}

func FuzzCheckMask(f *testing.F) {
	for _, s := range []string{"alice@shop.test", "*", "127.0.0.1", "fe80::1", "bad.cafe", "a/8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, login string) {
		if (DovecotSessions{}).checkLogin(login) == nil && checkMask(login) == nil && strings.ContainsAny(login, "*?\\\n\x00") {
			t.Errorf("%q is let through", login)
		}
	})
}
