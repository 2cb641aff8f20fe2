package enforce

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// startDovecot starts the mail servers, with a deny file.
func startDovecot(t *testing.T, lines ...string) (*bed.Bed, *DovecotDeny) {
	t.Helper()
	deny := &DovecotDeny{Path: filepath.Join(publicDir(t), "deny")}
	return bed.Start(t, bed.Options{Deny: deny.Path, Dovecot: lines}), deny
}

// logsIn reports whether Dovecot lets a user of the bed log in.
func logsIn(t *testing.T, b *bed.Bed, login string) bool {
	t.Helper()
	name, _, _ := strings.Cut(strings.ToLower(login), "@")
	out, err := exec.Command("doveadm", "-c", filepath.Join(b.Dir, "dovecot.conf"), "auth", "test", "-a", b.Auth, "-x", "service=smtp", login, "pw-"+name).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "auth failed") {
		t.Fatalf("%v: %s", err, out)
	}
	return err == nil
}

// soon waits until Dovecot lets a user log in, or does not any more. It looks
// at the file once a second.
func soon(t *testing.T, b *bed.Bed, login string, want bool) {
	t.Helper()
	began := time.Now()
	for logsIn(t, b, login) != want {
		if time.Since(began) > 5*time.Second {
			t.Fatalf("%s: after 5 s it is not yet %v that he logs in", login, want)
		}
	}
	if took := time.Since(began); took > 2500*time.Millisecond { // a second, and what a busy machine adds
		t.Errorf("%s: it took %v", login, took)
	}
}

func TestDovecotReadsTheDenyFile(t *testing.T) {
	b, deny := startDovecot(t)
	send := func(login string) error {
		name, _, _ := strings.Cut(login, "@")
		return b.Send(login, "pw-"+name, login, "r@ok.test")
	}
	wantAccepted(t, send(aliceLogin))

	applyTable(t, deny, blocked(aliceLogin), Entry{Subject: bobLogin, Logins: []string{bobLogin}, Action: rules.Hold})
	soon(t, b, aliceLogin, false)
	wantRefused(t, send(aliceLogin), 535, "")
	if logsIn(t, b, "Alice@SHOP.test") {
		t.Error("alice logs in in capitals")
	}
	wantAccepted(t, send("alice@blog.test"))
	wantAccepted(t, send(bobLogin)) // who is only held

	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, send(aliceLogin), 535, "")
	wantAccepted(t, send(bobLogin))

	// Changes of one second and one size are seen, each of them.
	for range 2 {
		applyTable(t, deny, Entry{Subject: "carol@shop.test", Logins: []string{"carol@shop.test"}, Action: rules.Reset})
		soon(t, b, aliceLogin, true)
		soon(t, b, "carol@shop.test", false)
		applyTable(t, deny, blocked("grace@shop.test"))
		soon(t, b, "carol@shop.test", true)
		soon(t, b, "grace@shop.test", false)
	}
	applyTable(t, deny)
	soon(t, b, "grace@shop.test", true)
	wantAccepted(t, send(aliceLogin))
}

func TestDovecotThatRemembersPasswords(t *testing.T) {
	b, deny := startDovecot(t, "auth_cache_size = 1M")
	for range 3 {
		soon(t, b, aliceLogin, true)
		applyTable(t, deny, blocked(aliceLogin))
		soon(t, b, aliceLogin, false)
		applyTable(t, deny)
	}
}

func TestDovecotAndHostileNames(t *testing.T) {
	b, deny := startDovecot(t)
	err := deny.Apply(t.Context(), everyName())
	if !errors.Is(err, ErrLogin) {
		t.Errorf("got %v, want ErrLogin", err)
	}
	names := slices.Concat(hostile, odd)
	written := 0
	for _, name := range names {
		if deniable(name) {
			written++
		}
	}
	if named := strings.Count(err.Error(), ErrLogin.Error()); named != len(names)-written || written < 10 {
		t.Errorf("%d logins are written and %d named, of %d", written, named, len(names))
	}
	soon(t, b, "mallory@shop.test", false)
	for _, user := range []string{"alice", "bob", "carol", "dave", "erin", "frank", "grace"} {
		for _, domain := range []string{"@shop.test", "@blog.test"} {
			if !logsIn(t, b, user+domain) {
				t.Errorf("%s, whom nobody stopped, cannot log in", user+domain)
			}
		}
	}
	if !logsIn(t, b, "mallory@blog.test") {
		t.Error("mallory of another domain cannot log in")
	}
}

func TestDovecotGoesOnAfterACrash(t *testing.T) {
	b, deny := startDovecot(t)
	applyTable(t, deny, blocked(aliceLogin))
	// What is left behind by a process that was killed before it renamed.
	if err := os.WriteFile(filepath.Join(filepath.Dir(deny.Path), ".deny.new"), []byte("bob@shop.te"), 0o644); err != nil {
		t.Fatal(err)
	}
	soon(t, b, aliceLogin, false)
	soon(t, b, bobLogin, true)
	applyTable(t, deny, blocked(bobLogin))
	soon(t, b, bobLogin, false)
	soon(t, b, aliceLogin, true)
}

// TestDovecotWithoutTheFile is what docs/tables.md says of a file that is
// missing, and of one that Dovecot cannot read.
func TestDovecotWithoutTheFile(t *testing.T) {
	b, deny := startDovecot(t)
	applyTable(t, deny, blocked(aliceLogin))
	soon(t, b, aliceLogin, false)
	if err := os.Remove(deny.Path); err != nil {
		t.Fatal(err)
	}
	soon(t, b, aliceLogin, true)
	applyTable(t, deny, blocked(aliceLogin))
	soon(t, b, aliceLogin, false)
	soon(t, b, bobLogin, true)
	if err := errors.Join(os.Chmod(deny.Path, 0o600), b.Restart()); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, b.Send(bobLogin, "pw-bob", bobLogin, "r@ok.test"), 535, "")
}
