package enforce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// publicDir is a directory that the mail servers' users may enter.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tables")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startExim starts an Exim that looks into a table.
func startExim(t *testing.T) (*bed.Exim, *EximTable) {
	t.Helper()
	dir := publicDir(t)
	table := &EximTable{BlockPath: filepath.Join(dir, "block"), HoldPath: filepath.Join(dir, "hold")}
	return bed.StartExim(t, bed.EximOptions{BlockFile: table.BlockPath, HoldFile: table.HoldPath}), table
}

// applyTable makes a table hold entries, in well under a second.
func applyTable(t *testing.T, table Table, entries ...Entry) {
	t.Helper()
	began := time.Now()
	if err := table.Apply(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("%s took %v", table.Name(), took)
	}
}

// wantRefused checks that a server refused with that code and text.
func wantRefused(t *testing.T, err error, code int, text string) {
	t.Helper()
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) || reply.Code != code || !strings.Contains(reply.Message, text) {
		t.Errorf("got %v, want a refusal with %d and %q", err, code, text)
	}
}

func wantAccepted(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("refused: %v", err)
	}
}

const (
	aliceLogin = "alice@shop.test"
	bobLogin   = "bob@shop.test"
	fromScript = "From: <x@shop.test>\nTo: <r@ok.test>\nSubject: from a script\n\nHello.\n"
)

func TestEximReadsTheTable(t *testing.T) {
	e, table := startExim(t)
	send := func(login string) error {
		name, _, _ := strings.Cut(login, "@")
		return e.Send(login, "pw-"+name, login, "r@ok.test")
	}
	open := e.Session(aliceLogin)
	wantAccepted(t, open.Send(aliceLogin, "r@ok.test"))

	applyTable(t, table, blocked(aliceLogin, "alice"))
	wantRefused(t, send(aliceLogin), 550, "stopped")
	wantRefused(t, e.Send("Alice@SHOP.test", "pw-alice", aliceLogin, "r@ok.test"), 550, "stopped")
	wantRefused(t, open.Send(aliceLogin, "r@ok.test"), 550, "stopped") // a session that was open
	wantAccepted(t, send("alice@blog.test"))
	wantAccepted(t, send(bobLogin))

	if err := errors.Join(e.Stop(), e.Start()); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, send(aliceLogin), 550, "stopped")
	wantAccepted(t, send(bobLogin))

	applyTable(t, table, blocked(bobLogin))
	wantAccepted(t, send(aliceLogin))
	wantRefused(t, send(bobLogin), 550, "stopped")
	applyTable(t, table)
	wantAccepted(t, send(bobLogin))
	wantAccepted(t, send(aliceLogin))
	e.Bed.Wait("everything that was accepted", func() bool { return len(e.Bed.Received(bed.OK)) == 7 })
}

func TestEximFreezesWhatIsHeld(t *testing.T) {
	e, table := startExim(t)
	applyTable(t, table, Entry{Subject: aliceLogin, Logins: []string{aliceLogin}, Action: rules.Hold, Text: "held for review"})
	wantAccepted(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"))
	wantAccepted(t, e.Send(bobLogin, "pw-bob", bobLogin, "r@ok.test"))
	queue := func() (frozen []string) {
		all, err := e.Queue()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if m.Frozen && m.Sender == aliceLogin {
				frozen = append(frozen, m.ID)
			}
		}
		return frozen
	}
	if got := queue(); len(got) != 1 {
		t.Fatalf("%d messages are frozen, want 1", len(got))
	}
	if err := errors.Join(e.Stop(), e.Start()); err != nil {
		t.Fatal(err)
	}
	wantAccepted(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"))
	if got := queue(); len(got) != 2 {
		t.Fatalf("%d messages are frozen after a restart, want 2", len(got))
	}

	applyTable(t, table, Entry{Subject: aliceLogin, Logins: []string{aliceLogin}, Action: rules.Block, Text: "stopped"}) // from held to blocked
	wantRefused(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"), 550, "stopped")
	applyTable(t, table)
	wantAccepted(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"))
	cmd, err := e.Command("root", append([]string{e.Binary, "-M"}, queue()...)...)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e.Bed.Wait("what was held", func() bool { return len(e.Bed.Received(bed.OK)) == 4 })
}

func TestEximStopsScripts(t *testing.T) {
	e, table := startExim(t)
	send := func(user string) error { return e.Sendmail(user, []string{"-t", "-oep"}, fromScript) }
	wantAccepted(t, send("games"))
	applyTable(t, table, Entry{Subject: "user:games", Action: rules.Block, Text: "stopped"})
	if err := send("games"); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("games got %v", err)
	}
	wantAccepted(t, send("irc"))
	wantAccepted(t, send("nobody"))

	applyTable(t, table, Entry{Subject: "script:/home/x/y.php", Users: []string{"games"}, Action: rules.Hold})
	wantAccepted(t, send("games"))
	e.Bed.Wait("the frozen message", func() bool {
		queue, err := e.Queue()
		return err == nil && slices.ContainsFunc(queue, func(m bed.EximQueued) bool { return m.Frozen && strings.HasPrefix(m.Sender, "games@") })
	})
	applyTable(t, table)
	wantAccepted(t, send("games"))
	e.Bed.Wait("the mail of the others", func() bool { return len(e.Bed.Received(bed.OK)) == 4 })
}

func TestEximAndHostileNames(t *testing.T) {
	e, table := startExim(t)
	names := slices.Concat(hostile, odd)
	err := table.Apply(t.Context(), everyName())
	if !errors.Is(err, ErrLogin) {
		t.Errorf("got %v, want ErrLogin", err)
	}
	written := 0
	for _, name := range names {
		want := "-"
		if lsearchable(name) {
			want = "[" + line(name, 200) + "]"
			written++
		}
		if name == "" || len(name) > 1000 || strings.ContainsRune(name, 0) {
			continue // Exim takes no such line to expand
		}
		if got := eximFinds(t, e, "lsearch", table.BlockPath, name); got != want && !slices.ContainsFunc(names, func(other string) bool {
			return lsearchable(other) && other != name && strings.EqualFold(other, name)
		}) {
			t.Errorf("Exim finds %s of %.80q, want %s", got, name, want)
		}
	}
	if named := strings.Count(err.Error(), ErrLogin.Error()); named != len(names)-written || written < 10 {
		t.Errorf("%d logins are written and %d named, of %d", written, named, len(names))
	}
	if got := eximFinds(t, e, "lsearch", table.BlockPath, "mallory@shop.test"); got != "[stopped]" {
		t.Errorf("Exim finds %s of mallory", got)
	}
	for _, kind := range []string{"lsearch", "lsearch*", "lsearch*@", "partial-lsearch", "partial-lsearch*@", "wildlsearch", "nwildlsearch"} {
		for _, victim := range victims {
			if got := eximFinds(t, e, kind, table.BlockPath, victim); got != "-" {
				t.Errorf("by %s Exim finds %s of %q, whom nobody stopped", kind, got, victim)
			}
		}
	}
	wantAccepted(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"))
	wantAccepted(t, e.Sendmail("irc", []string{"-t", "-oep"}, fromScript))
	wantRefused(t, e.Send("mallory@shop.test", "pw-mallory", aliceLogin, "r@ok.test"), 550, "stopped")
}

// TestEximAwayAndHostileNames has Exim look names up in the file as docs/exim.md
// does: each is found as itself only, those of scripts whatever they are.
func TestEximAwayAndHostileNames(t *testing.T) {
	dir := publicDir(t)
	away := &EximAway{Path: filepath.Join(dir, "away")}
	e := bed.StartExim(t, bed.EximOptions{AwayFile: away.Path})
	entries := everyName()
	for _, name := range slices.Concat(hostile, odd) {
		entries = append(entries, Entry{Subject: "script:/" + name, Action: rules.Throttle, Text: name}, Entry{Subject: "client:" + name, Action: rules.Hold, Text: name})
	}
	entries = append(entries, Entry{Subject: "script:/", Action: rules.Block}, Entry{Subject: "client:2001:DB8::7", Action: rules.Hold})
	if err := away.Apply(t.Context(), entries); !errors.Is(err, ErrLogin) {
		t.Errorf("got %v, want ErrLogin", err)
	}
	for key, want := range map[string]string{
		"mallory@shop.test": "[DENY 5.7.1 stopped]", "user:uucp": "[FREEZE no scripts]", "client:2001:db8::7": "[FREEZE hold]", scriptKey("/"): "-",
	} {
		if got := eximFinds(t, e, "lsearch", away.Path, key); got != want {
			t.Errorf("Exim finds %s of %s, want %s", got, key, want)
		}
	}
	for _, name := range slices.Concat(hostile, odd) {
		if name == "" || len(name) > 200 || strings.ContainsRune(name, 0) {
			continue // nothing, or nothing that can be expanded
		}
		var path strings.Builder
		for _, c := range []byte("/" + name) {
			fmt.Fprintf(&path, `\x%02x`, c)
		}
		got, err := e.Expand(fmt.Sprintf(`${lookup{script:${sha256:${length_248:%s}}}lsearch{%s}{yes}{no}}`, path.String(), away.Path))
		if err != nil || got != "yes" {
			t.Errorf("Exim finds %s of the script %q: %v", got, name, err)
		}
	}
	for _, victim := range append(victims, "script:/home/u", "script:/X", "client:192.0.2.7") {
		for _, kind := range []string{"lsearch", "lsearch*@", "partial-lsearch", "wildlsearch", "nwildlsearch"} {
			if got := eximFinds(t, e, kind, away.Path, victim); got != "-" {
				t.Errorf("by %s Exim finds %s of %q, whom nobody stopped", kind, got, victim)
			}
		}
	}
}

// Where throttles defer nobody lets frozen mail out, and local programs cannot
// be deferred.
func TestEximAwayDefers(t *testing.T) {
	away := &EximAway{Path: filepath.Join(t.TempDir(), "away"), Defer: true}
	rows, err := away.rows([]Entry{
		{Subject: "alice@shop.test", Logins: []string{"alice@shop.test"}, Action: rules.Throttle, Text: "slowly"},
		{Subject: "client:192.0.2.7", Action: rules.Throttle, Text: "slowly"},
		{Subject: "script:/home/u", Action: rules.Throttle}, {Subject: "user:uucp", Action: rules.Throttle}, {Subject: "script:/home/v", Action: rules.Hold},
	})
	want := []row{{"alice@shop.test", "DEFER 4.7.1 slowly"}, {"client:192.0.2.7", "DEFER 4.7.1 slowly"}, {scriptKey("/home/v"), "FREEZE hold"}}
	if err != nil || !slices.Equal(rows, want) {
		t.Errorf("got %q, %v, want %q", rows, err, want)
	}
}

// eximFinds is what Exim finds of a name in a file: its data in brackets.
func eximFinds(t *testing.T, e *bed.Exim, kind, path, name string) string {
	t.Helper()
	var key strings.Builder
	for _, c := range []byte(name) {
		fmt.Fprintf(&key, `\x%02x`, c)
	}
	got, err := e.Expand(fmt.Sprintf(`${lookup{%s}%s{%s}{[$value]}{-}}`, key.String(), kind, path))
	if err != nil {
		t.Fatalf("%.80q: %.500v", name, err)
	}
	return got
}

func TestEximGoesOnAfterACrash(t *testing.T) {
	e, table := startExim(t)
	applyTable(t, table, blocked(aliceLogin))
	// What is left behind by a process that was killed before it renamed.
	if err := os.WriteFile(filepath.Join(filepath.Dir(table.BlockPath), ".block.new"), []byte("\"bob@shop.test\": hal"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"), 550, "stopped")
	wantAccepted(t, e.Send(bobLogin, "pw-bob", bobLogin, "r@ok.test"))
	applyTable(t, table, blocked(bobLogin))
	wantRefused(t, e.Send(bobLogin, "pw-bob", bobLogin, "r@ok.test"), 550, "stopped")
	wantAccepted(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"))
}

// TestEximWithoutTheFile is what docs/tables.md says of a file that is
// missing, and of one that Exim cannot read.
func TestEximWithoutTheFile(t *testing.T) {
	e, table := startExim(t)
	applyTable(t, table, blocked(aliceLogin))
	if err := os.Remove(table.BlockPath); err != nil {
		t.Fatal(err)
	}
	wantAccepted(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"))
	applyTable(t, table, blocked(aliceLogin))
	wantRefused(t, e.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"), 550, "stopped")
	if err := os.Chmod(table.BlockPath, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, e.Send(bobLogin, "pw-bob", bobLogin, "r@ok.test"), 451, "")
}
