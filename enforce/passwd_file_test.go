package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const passwdText = `# users of the shop
alice@shop.test:{SSHA}old:1001:1001::/home/alice::userdb_mail=maildir:~/Mail
alice@shop.testing:{PLAIN}x
malice@shop.test:{PLAIN}y
ALICE@shop.test:{PLAIN}z

#bob@shop.test:{PLAIN}off
bob@shop.test:{PLAIN}b
windows@shop.test:{PLAIN}w` + "\r\n" + `empty@shop.test::1001
twice@shop.test:{PLAIN}1
twice@shop.test:{PLAIN}2
nopassword@shop.test
` + "\xff\xfe:broken\x00 line\n" + `last@shop.test:{PLAIN}l`

func writePasswd(t *testing.T, text string) PasswdFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	writeTestFile(t, path, text)
	return PasswdFile{Path: path, Scheme: Plain}
}

func readTestFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// One field of one line changes, and no byte besides.
func TestPasswdFile(t *testing.T) {
	for _, tt := range []struct {
		account  string
		old, new string // of the text; empty: refused
	}{
		{"alice@shop.test", "{SSHA}old", "{PLAIN}new-pass"},
		{"bob@shop.test", "{PLAIN}b\nw", "{PLAIN}new-pass\nw"},
		{"windows@shop.test", "{PLAIN}w\r", "{PLAIN}new-pass\r"},
		{"empty@shop.test", "empty@shop.test::", "empty@shop.test:{PLAIN}new-pass:"},
		{"last@shop.test", "{PLAIN}l", "{PLAIN}new-pass"},
		{"twice@shop.test", "", ""},
		{"nopassword@shop.test", "", ""},
		{"carol@shop.test", "", ""},
		{"shop.test", "", ""},
		{"alice@shop.test:{SSHA}old", "", ""},
		{"#bob@shop.test", "", ""},
	} {
		f := writePasswd(t, passwdText)
		old, oldErr := f.Old(t.Context(), tt.account)
		err := f.Change(t.Context(), tt.account, "new-pass")
		if (err == nil) != (tt.new != "") || (err != nil) != errors.Is(err, ErrUnchanged) || (err == nil) != (oldErr == nil) {
			t.Errorf("%s: %v, %v", tt.account, err, oldErr)
		}
		want := passwdText
		if tt.new != "" {
			want = strings.Replace(passwdText, tt.old, tt.new, 1)
		}
		if tt.account == "last@shop.test" {
			want = strings.TrimSuffix(passwdText, tt.old) + tt.new
		}
		if got := readTestFile(t, f.Path); got != want {
			t.Errorf("%s: got\n%q\nwant\n%q", tt.account, got, want)
		}
		if err == nil {
			if err := f.Restore(t.Context(), tt.account, old.Reveal()); tt.account == "empty@shop.test" {
				if err == nil {
					t.Error("an empty hash lets everybody in, and is put back")
				}
			} else if got := readTestFile(t, f.Path); err != nil || got != passwdText {
				t.Errorf("%s: put back: %v\n%q", tt.account, err, got)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Path), "*")); len(left) != 1 {
			t.Errorf("%s: left behind: %q", tt.account, left)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Path), ".*")); len(left) != 0 {
			t.Errorf("%s: left behind: %q", tt.account, left)
		}
	}
}

// A change ends in a later second than it was made in: Dovecot looks once a
// second.
func TestPasswdFileWaitsForDovecot(t *testing.T) {
	f := writePasswd(t, passwdText)
	nextSecond(t.Context())
	begun := time.Now()
	if err := f.Change(t.Context(), "alice@shop.test", "new-pass"); err != nil {
		t.Fatal(err)
	}
	if ended := time.Now(); ended.Unix() == begun.Unix() {
		t.Errorf("from %s to %s: Dovecot may not have looked since", begun.Format(time.StampMilli), ended.Format(time.StampMilli))
	}
}

func TestPasswdFileCovers(t *testing.T) {
	f := writePasswd(t, passwdText)
	blog := f
	blog.Domains = []string{"blog.test"}
	missing := PasswdFile{Path: f.Path + ".none"}
	for _, tt := range []struct {
		file    PasswdFile
		account string
		want    bool
	}{
		{f, "alice@shop.test", true},
		{f, "twice@shop.test", true}, // Change says what is wrong
		{f, "carol@shop.test", false},
		{f, "script:/home/x.php", false},
		{f, "alice@shop.test\n", false},
		{blog, "alice@shop.test", false},
		{missing, "alice@shop.test", false},
		{PasswdFile{Path: t.TempDir()}, "alice@shop.test", true},
		{PasswdFile{}, "alice@shop.test", false},
	} {
		if got := tt.file.Covers(tt.account); got != tt.want {
			t.Errorf("%s covers %q: %v", tt.file.Path, tt.account, got)
		}
	}
}

// A file for each domain, whose lines begin with the user alone.
func TestPasswdFileOfDomain(t *testing.T) {
	dir := t.TempDir()
	for _, domain := range []string{"shop.test", "blog.test"} {
		if err := os.Mkdir(filepath.Join(dir, domain), 0o755); err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, filepath.Join(dir, domain, "passwd"), "alice:{PLAIN}old\nbob:{PLAIN}old\n")
	}
	writeTestFile(t, filepath.Join(dir, "passwd"), "alice:{PLAIN}old\n")
	f := PasswdFile{Path: filepath.Join(dir, "{domain}", "passwd"), Key: "{user}", Scheme: Plain, Bare: true}
	if err := f.Change(t.Context(), "alice@shop.test", "new"); err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"alice@..", "alice@.", "alice@", "alice", "alice@shop.test/../blog.test", "alice@/", "@shop.test", "bob@../" + filepath.Base(dir) + "/blog.test"} {
		if err := f.Change(t.Context(), account, "new"); !errors.Is(err, ErrUnchanged) || f.Covers(account) {
			t.Errorf("%s: %v", account, err)
		}
	}
	for path, want := range map[string]string{
		"shop.test/passwd": "alice:new\nbob:{PLAIN}old\n", "blog.test/passwd": "alice:{PLAIN}old\nbob:{PLAIN}old\n", "passwd": "alice:{PLAIN}old\n",
	} {
		if got := readTestFile(t, filepath.Join(dir, path)); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	if (PasswdFile{Path: "/x", Key: "{user}"}).Check() == nil {
		t.Error("users of all domains in one file")
	}
}

// changeAtOnce is Change without the wait at its end.
func (f PasswdFile) changeAtOnce(ctx context.Context, account, password string) error {
	hash, err := hashFor(f.Scheme, f.Bare, password)
	if err != nil {
		return unchanged(f, account, err)
	}
	return f.write(ctx, account, hash)
}

// No name and no password breaks the file or reaches the line of another.
func TestPasswdFileHostile(t *testing.T) {
	var lines strings.Builder
	lines.WriteString("alice@shop.test:{PLAIN}old\nbob@shop.test:{PLAIN}old\n")
	for i, name := range hostileAccounts {
		if !strings.ContainsAny(name, ":\n") {
			fmt.Fprintf(&lines, "%s:{PLAIN}old%d\n", name, i)
		}
	}
	f := writePasswd(t, lines.String())
	f.Scheme = SSHA
	for i, account := range hostileAccounts {
		before := strings.Split(readTestFile(t, f.Path), "\n")
		err := f.changeAtOnce(t.Context(), account, NewPassword().Reveal())
		after := strings.Split(readTestFile(t, f.Path), "\n")
		if len(before) != len(after) {
			t.Fatalf("%.40q: %d lines became %d", account, len(before), len(after))
		}
		for n := range after {
			if own := before[n] == account+fmt.Sprintf(":{PLAIN}old%d", i); before[n] != after[n] && (err != nil || !own) {
				t.Errorf("%.40q changed %q to %q (%v)", account, before[n], after[n], err)
			}
		}
		if err != nil && !errors.Is(err, ErrUnchanged) {
			t.Errorf("%.40q: %v", account, err)
		}
	}
	f.Scheme = Plain
	lines1 := strings.Count(readTestFile(t, f.Path), "\n")
	for _, password := range append(refusedPasswords, hostilePasswords...) {
		err := f.changeAtOnce(t.Context(), "alice@shop.test", password)
		text := readTestFile(t, f.Path)
		if strings.Count(text, "\n") != lines1 || !strings.Contains(text, "\nbob@shop.test:{PLAIN}old\n") {
			t.Fatalf("%.40q broke the file: %v", password, err)
		}
	}
	for _, hash := range []string{"", "a:b", "a\nb", "a[34]", "\x00", strings.Repeat("x", 2000)} {
		if err := f.Restore(t.Context(), "alice@shop.test", hash); !errors.Is(err, ErrUnchanged) {
			t.Errorf("hash %.20q: %v", hash, err)
		}
	}
}

// Who may read the file still may: owner, mode, attributes, and the link.
func TestPasswdFileKeepsItsOwner(t *testing.T) {
	f := writePasswd(t, passwdText)
	real := f.Path
	f.Path = real + ".link"
	if err := errors.Join(os.Symlink(real, f.Path), os.Chmod(real, 0o640)); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	if root {
		if err := os.Chown(real, 8, 12); err != nil {
			t.Fatal(err)
		}
	}
	attribute := syscall.Setxattr(real, "user.vedetta", []byte("kept"), 0)
	if err := f.Change(t.Context(), "alice@shop.test", "new"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(real)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	if info.Mode() != 0o640 || root && (stat.Uid != 8 || stat.Gid != 12) {
		t.Errorf("it is %v of %d:%d", info.Mode(), stat.Uid, stat.Gid)
	}
	if link, err := os.Lstat(f.Path); err != nil || link.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	value := make([]byte, 10)
	if n, err := syscall.Getxattr(real, "user.vedetta", value); attribute == nil && string(value[:max(n, 0)]) != "kept" {
		t.Errorf("the attribute is %q, %v", value, err)
	} else if attribute != nil {
		t.Logf("not tested here: extended attributes (%v)", attribute)
	}

	if err := os.Link(real, real+".hard"); err != nil {
		t.Fatal(err)
	}
	if err := f.Change(t.Context(), "alice@shop.test", "newer"); !errors.Is(err, ErrUnchanged) || !strings.Contains(err.Error(), "hard link") {
		t.Errorf("a hard link: %v", err)
	}
}

// An ACL by which Dovecot reads the file is kept too.
func TestPasswdFileKeepsItsACL(t *testing.T) {
	setfacl, getfacl := findProgram(t, "setfacl"), findProgram(t, "getfacl")
	f := writePasswd(t, passwdText)
	if out, err := exec.Command(setfacl, "-m", "u:nobody:r", f.Path).CombinedOutput(); err != nil {
		t.Skipf("no ACLs here: %s", out)
	}
	if err := f.Change(t.Context(), "alice@shop.test", "new"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(getfacl, "-c", f.Path).Output(); err != nil || !strings.Contains(string(out), "user:nobody:r--") {
		t.Errorf("%v: %s", err, out)
	}
}

// Many resets and somebody else's edits at once: nothing is lost.
func TestPasswdFileAtOnce(t *testing.T) {
	const accounts, edits = 20, 30
	var text strings.Builder
	for i := range accounts {
		fmt.Fprintf(&text, "u%d@shop.test:{PLAIN}old\n", i)
	}
	f := writePasswd(t, text.String())
	var all sync.WaitGroup
	for i := range accounts {
		all.Go(func() {
			if err := f.Change(t.Context(), fmt.Sprintf("u%d@shop.test", i), fmt.Sprintf("new-%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Go(func() { // who knows the lock
		for i := range edits {
			file, err := openLocked(t.Context(), f.Path)
			if err != nil {
				t.Error(err)
				return
			}
			a, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				_, err = fmt.Fprintf(a, "added%d@shop.test:{PLAIN}a\n", i)
				a.Close()
			}
			if err != nil {
				t.Error(err)
			}
			unlockFile(file)
		}
	})
	all.Wait()
	got := readTestFile(t, f.Path)
	for i := range accounts {
		if want := fmt.Sprintf("u%d@shop.test:{PLAIN}new-%d\n", i, i); strings.Count(got, want) != 1 {
			t.Errorf("%q is not there once", want)
		}
	}
	for i := range edits {
		if !strings.Contains(got, fmt.Sprintf("added%d@shop.test:{PLAIN}a\n", i)) {
			t.Errorf("edit %d is lost", i)
		}
	}
	if n := strings.Count(got, "\n"); n != accounts+edits {
		t.Errorf("%d lines, want %d", n, accounts+edits)
	}
}

// An edit of somebody who does not lock is noticed at every moment.
func TestPasswdFileForeignEdit(t *testing.T) {
	f := writePasswd(t, "alice@shop.test:{PLAIN}old\n")
	old, err := openLocked(t.Context(), f.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlockFile(old)
	before, text, err := readOpen(old)
	if err != nil {
		t.Fatal(err)
	}
	if !stillIs(f.Path, before, text) {
		t.Error("an edit is seen that was not made")
	}
	foreign := "alice@shop.test:{PLAIN}old\nbob@shop.test:{PLAIN}b\n"
	writeTestFile(t, f.Path, foreign)
	if stillIs(f.Path, before, text) {
		t.Error("an edit in place is not noticed")
	}
	if err := keepLate(f.Path, old, text); !errors.Is(err, ErrForeignEdit) {
		t.Errorf("an edit after the last look: %v", err)
	}
	aside, _ := filepath.Glob(f.Path + ".foreign-*")
	if len(aside) != 1 || readTestFile(t, aside[0]) != foreign {
		t.Errorf("what he wrote is lost: %q", aside)
	}
	same := strings.Replace(foreign, "{PLAIN}b", "{PLAIN}c", 1) // of the same size
	before, text, _ = readOpen(old)
	if err := errors.Join(os.WriteFile(f.Path, []byte(same), 0), os.Chtimes(f.Path, before.ModTime(), before.ModTime())); err != nil {
		t.Fatal(err)
	}
	if stillIs(f.Path, before, text) {
		t.Error("an edit of the same size and time is not noticed")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Change(ctx, "alice@shop.test", "new"); !errors.Is(err, ErrUnchanged) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a locked file: %v", err)
	}
}

// Killed at any moment, the file is the old one or the new one, and the next
// reset gives a password that is known.
func TestPasswdFileKilled(t *testing.T) {
	if path := os.Getenv("VEDETTA_TEST_PASSWD"); path != "" {
		for {
			_ = PasswdFile{Path: path, Scheme: Plain}.Change(t.Context(), "u500@shop.test", NewPassword().Reveal())
		}
	}
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "u%d@shop.test:{PLAIN}old-old-old-old-old-old-old-old-old\n", i)
	}
	f := writePasswd(t, text.String())
	lines := strings.Split(text.String(), "\n")
	for round := range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPasswdFileKilled$")
		cmd.Env = append(os.Environ(), "VEDETTA_TEST_PASSWD="+f.Path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		start := readTestFile(t, f.Path)
		for deadline := time.Now().Add(10 * time.Second); readTestFile(t, f.Path) == start && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(round*137%1000) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		got := strings.Split(readTestFile(t, f.Path), "\n")
		if len(got) != len(lines) {
			t.Fatalf("%d lines became %d", len(lines), len(got))
		}
		for i := range got {
			if got[i] != lines[i] && (i != 500 || !strings.HasPrefix(got[i], "u500@shop.test:{PLAIN}") || len(got[i]) != len("u500@shop.test:{PLAIN}")+34) {
				t.Errorf("line %d is %q", i, got[i])
			}
		}
	}
	if err := f.Change(t.Context(), "u500@shop.test", "new"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Path), ".*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

// A real Dovecot takes every change, also several of the same size within a
// second, without a reload.
func TestPasswdFileDovecot(t *testing.T) {
	t.Parallel()
	d, path := dovecotWithUsers(t, "", "alice@shop.test", "bob@shop.test")
	d.wantLogin("alice@shop.test", "old", true)
	alice, bob := d.mustLogin("alice@shop.test", "old"), d.mustLogin("bob@shop.test", "old")
	r := &Resetter{Passwords: []Passwords{PasswdFile{Path: path}}, Sessions: []Sessions{d.sessions}}
	var last ResetOutcome
	for i := range 4 {
		start := time.Now()
		last = r.Do(t.Context(), Reset{ID: fmt.Sprint("d-", i), Account: "alice@shop.test", Logins: []string{"alice@shop.test"}})
		if !last.OK || last.State != ResetGiven {
			t.Fatalf("%+v", last)
		}
		if i == 0 {
			t.Logf("the reset took %v", time.Since(start).Round(time.Millisecond))
		}
		if i == 1 {
			d.wantLogin("alice@shop.test", last.Password.Reveal(), true) // so that Dovecot has read this one
		}
	}
	alice.ended(t)
	if !bob.open() {
		t.Error("the session of another was ended")
	}
	d.wantLogin("alice@shop.test", last.Password.Reveal(), true)
	d.refused("alice@shop.test", "old")
	d.wantLogin("bob@shop.test", "old", true)
}

func FuzzReplaceHash(f *testing.F) {
	f.Add([]byte(passwdText), "alice@shop.test", "{PLAIN}new")
	f.Add([]byte("a:b\na:c\n"), "a", "x")
	f.Add([]byte("a:\r\n"), "a", "x")
	f.Fuzz(func(t *testing.T, text []byte, key, hash string) {
		if checkHash(hash) != nil || key == "" || strings.ContainsAny(key, ":\n") {
			return
		}
		from, to, err := hashField(text, key)
		if err != nil {
			return
		}
		changed, err := replaceHash(text, key, hash)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := replaceHash(changed, key, string(text[from:to])); err != nil || !bytes.Equal(back, text) {
			t.Errorf("%q became %q and then %q (%v)", text, changed, back, err)
		}
		if bytes.ContainsAny(text[from:to], ":\n") || bytes.Count(changed, []byte("\n")) != bytes.Count(text, []byte("\n")) {
			t.Errorf("the hash in %q is taken to be %q", text, text[from:to])
		}
	})
}
