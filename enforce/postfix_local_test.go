package enforce

import (
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// TestPostfixHoldsLocalMail hands in mail as scripts and users do, and reads
// what becomes of it. The table is written while Postfix's processes run.
func TestPostfixHoldsLocalMail(t *testing.T) {
	table := &PostfixLocal{PostfixTable: PostfixTable{Path: filepath.Join(publicDir(t), "local_access"), Type: "hash"}}
	b := bed.Start(t, bed.Options{Local: table.Path})
	table.ConfigDir = b.Config
	n := 0
	send := func(user, header string, held bool) {
		t.Helper()
		n++
		rcpt := fmt.Sprintf("r%d@ok.test", n)
		if err := b.SendmailText(user, header+"Subject: From a form\n\nHello.\n", "www@shop.test", rcpt); err != nil {
			t.Fatal(err)
		}
		is := func() bool {
			queue, err := b.Postqueue()
			return err == nil && slices.ContainsFunc(queue, func(q bed.Queued) bool { return q.Queue == "hold" && q.Recipients[0].Address == rcpt })
		}
		came := func() bool {
			for _, m := range b.Received(bed.OK) {
				if m.To[0] == rcpt {
					return true
				}
			}
			return false
		}
		b.Wait("the mail to "+rcpt, func() bool { return is() || came() })
		if is() != held {
			t.Errorf("%s with %q: held %t, want %t", user, header, is(), held)
		}
	}
	php := func(name string) string { return "X-PHP-Originating-Script: " + name + "\n" }
	send("irc", php("39:Form.php"), false)
	script := func(action rules.Action, name string) Entry {
		return Entry{Subject: "script:" + name, Action: action, Text: "stopped"}
	}
	applyTable(t, table, script(rules.Throttle, "39:Form.php"), script(rules.Block, "www.shop.test/Contact/x.php"))
	began := time.Now()
	send("irc", php("39:Form.php"), true)
	if took := time.Since(began); took > time.Second {
		t.Errorf("held after %v", took)
	}
	send("irc", php("39:Form.php(12) : eval()'d code"), true)
	send("irc", php("39:form.php"), false)
	send("irc", php("39:Form.phpx"), false)
	send("irc", "X-PHP-Script: www.shop.test/Contact/x.php for 192.0.2.1\n", true)
	send("irc", "X-PHP-Script: www.shop.test/Contact/y.php for 192.0.2.1\n", false)
	send("games", "", false)
	applyTable(t, table, Entry{Subject: "user:games", Action: rules.Hold, Text: "held"})
	send("games", "", true)
	send("games", php("5:any.php"), true)
	send("irc", "Received: by elsewhere.test (Postfix, from userid 5)\n", false)
	send("irc", php("39:Form.php"), false)
	applyTable(t, table)
	send("games", "", false)
	if err := b.SendInbound("x@outside.test", "alice@shop.test"); err != nil {
		t.Error(err)
	}
	if err := table.Apply(t.Context(), []Entry{script(rules.Block, "www.shop.test/Contact/"), script(rules.Block, "1:a?b"), script(rules.Block, "/home/u/x")}); !errors.Is(err, ErrScript) {
		t.Errorf("got %v, want ErrScript", err)
	}
}

// A message that somebody forwards whole is not the mail of the script that it
// is about: only the headers of the message itself count.
func TestPostfixPassesWhatIsAttached(t *testing.T) {
	table := &PostfixLocal{PostfixTable: PostfixTable{Path: filepath.Join(publicDir(t), "local_access"), Type: "hash"}}
	b := bed.Start(t, bed.Options{Local: table.Path})
	table.ConfigDir = b.Config
	applyTable(t, table, Entry{Subject: "script:39:Form.php", Action: rules.Block, Text: "stopped"}, Entry{Subject: "user:games", Action: rules.Hold})
	const stopped = "X-PHP-Originating-Script: 39:Form.php\nReceived: by mx1.hosting.test (Postfix, from userid 5)\n\tid 4XYZ; Thu, 1 Jan 2026 00:00:00 +0000 (UTC)\n"
	const part = "--b\nContent-Type: message/rfc822\n\n" + stopped + "Subject: Spam\n\nBuy.\n--b\nContent-Type: text/plain\n" + stopped + "\nHello.\n--b--\n"
	message := "Subject: Complaint\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n" + part
	if err := b.SendmailText("irc", message, "abuse@shop.test", "r@ok.test"); err != nil {
		t.Fatal(err)
	}
	held := func() bool {
		queue, err := b.Postqueue()
		return err == nil && slices.ContainsFunc(queue, func(q bed.Queued) bool { return q.Queue == "hold" })
	}
	b.Wait("the complaint", func() bool { return held() || len(b.Received(bed.OK)) > 0 })
	if held() {
		t.Error("a complaint with the script's mail attached is held")
	}
}

// Every name is a key of its own, or none and named in the error.
func TestPostfixLocalAndHostileNames(t *testing.T) {
	config := postfixDir(t)
	supported(t, config, "hash")
	table := &PostfixLocal{PostfixTable: PostfixTable{Path: filepath.Join(t.TempDir(), "local_access"), Type: "hash", ConfigDir: config}}
	games, err := user.Lookup("games")
	if err != nil {
		t.Skip("the system has no user games, as Debian does")
	}
	names := slices.Concat(hostile, odd, []string{"33:X.php", "33:x.php", "uid:0", "33:a?b", "www.shop.test/a/", strings.Repeat("a", maxHeld), strings.Repeat("a", maxHeld+1)})
	entries := []Entry{{Subject: "user:games", Action: rules.Hold}, {Subject: "user:root", Action: rules.Block}, {Subject: "client:192.0.2.7", Action: rules.Block}, blocked("mallory@shop.test")}
	want := []string{"uid:" + games.Uid + "\tHOLD"}
	for _, name := range names {
		entries = append(entries, Entry{Subject: "script:" + name, Action: rules.Throttle, Text: name})
		if key := "script:" + name; holdable(name) && !strings.HasPrefix(name, "/") {
			want = append(want, key+"\tHOLD "+line(name, 200))
		}
	}
	err = table.Apply(t.Context(), entries)
	if !errors.Is(err, ErrScript) || !errors.Is(err, ErrUser) || strings.Count(err.Error(), ErrUser.Error()) != 1 {
		t.Errorf("got %v, want ErrScript of the scripts and ErrUser of root", err)
	}
	if named := strings.Count(err.Error(), ErrScript.Error()); named != len(names)-len(want)+1 || len(want) < 20 {
		t.Errorf("%d scripts are written and %d named, of %d", len(want)-1, named, len(names))
	}
	got := dump(t, &table.PostfixTable)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("rows (-got +want):\n%s", diff)
	}
	table.Defer = true // throttles are the gate's then
	if err := table.Apply(t.Context(), entries); !errors.Is(err, ErrUser) || errors.Is(err, ErrScript) {
		t.Errorf("got %v, want ErrUser alone", err)
	}
	if got := dump(t, &table.PostfixTable); len(got) != 1 {
		t.Errorf("rows %q, want one", got)
	}
}
