package enforce

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// startSubmit starts a Postfix that asks a table who may not submit.
func startSubmit(t *testing.T) (*bed.Bed, *SubmitUsers) {
	t.Helper()
	users := &SubmitUsers{PostfixTable: PostfixTable{Path: filepath.Join(publicDir(t), "submit_users"), Type: "hash"}}
	b := bed.Start(t, bed.Options{Main: []string{"authorized_submit_users = !hash:" + users.Path + ", static:anyone"}})
	users.ConfigDir = b.Config
	return b, users
}

func TestPostfixReadsTheSubmitUsers(t *testing.T) {
	b, users := startSubmit(t)
	send := func(user string) error { return b.Sendmail(user, "x@shop.test", "r@ok.test") }
	if err := send("games"); err == nil || !strings.Contains(err.Error(), "No such file or directory") {
		t.Errorf("got %v; docs/tables.md says that a table that is missing stops everybody", err)
	}
	applyTable(t, users)
	wantAccepted(t, send("games"))
	wantAccepted(t, send("irc"))

	for _, e := range []Entry{
		{Subject: "user:games", Action: rules.Block},
		{Subject: "uid:5", Action: rules.Reset},
		{Subject: "script:/home/x/y.php", Users: []string{"games"}, Action: rules.Block},
	} {
		applyTable(t, users, e, blocked("irc"), blocked("irc@shop.test"))
		err := send("games")
		if err == nil || !strings.Contains(err.Error(), "is not allowed to submit mail") {
			t.Errorf("%s: games got %v", e.Subject, err)
		}
		wantAccepted(t, send("irc"))
		wantAccepted(t, send("nobody"))
		applyTable(t, users)
		wantAccepted(t, send("games"))
	}
	applyTable(t, users, Entry{Subject: "user:games", Action: rules.Hold})
	wantAccepted(t, send("games"))

	applyTable(t, users, Entry{Subject: "user:games", Action: rules.Block})
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := send("games"); err == nil {
		t.Error("games may submit after a restart")
	}
	wantAccepted(t, send("root"))
	wantAccepted(t, b.Send(aliceLogin, "pw-alice", aliceLogin, "r@ok.test"))
}

func TestSubmitUsersAndHostileNames(t *testing.T) {
	b, users := startSubmit(t)
	entries := everyName()
	for _, name := range slices.Concat(hostile, odd, []string{"root", "postfix", "postdrop", "www-data", "unknown", "0", "Games", "no-such-user"}) {
		entries = append(entries, Entry{Subject: "script:/x.php", Users: []string{name}, Action: rules.Block})
		entries = append(entries, Entry{Subject: "user:" + name, Action: rules.Block}, Entry{Subject: "uid:" + name, Action: rules.Block})
	}
	err := users.Apply(t.Context(), entries)
	if !errors.Is(err, ErrUser) {
		t.Errorf("got %v, want ErrUser", err)
	}
	users.Type = "hash"
	if got := dump(t, &users.PostfixTable); len(got) != 1 || got[0] != "uucp\tblocked" {
		t.Errorf("the table holds %q, want uucp, who is the only user among them", got)
	}
	for _, user := range []string{"root", "games", "irc", "nobody", "www-data", "postfix"} {
		wantAccepted(t, b.Sendmail(user, "x@shop.test", "r@ok.test"))
	}
	if err := b.Sendmail("uucp", "x@shop.test", "r@ok.test"); err == nil {
		t.Error("uucp may submit")
	}
}

func TestPostfixSubmitGoesOnAfterACrash(t *testing.T) {
	b, users := startSubmit(t)
	applyTable(t, users, Entry{Subject: "user:games", Action: rules.Block})
	for _, name := range []string{".submit_users.new", ".submit_users.new.db"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(users.Path), name), []byte("irc hal"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Sendmail("games", "x@shop.test", "r@ok.test"); err == nil {
		t.Error("games may submit")
	}
	wantAccepted(t, b.Sendmail("irc", "x@shop.test", "r@ok.test"))
	applyTable(t, users, Entry{Subject: "user:irc", Action: rules.Block})
	wantAccepted(t, b.Sendmail("games", "x@shop.test", "r@ok.test"))
	if err := b.Sendmail("irc", "x@shop.test", "r@ok.test"); err == nil {
		t.Error("irc may submit")
	}
}
