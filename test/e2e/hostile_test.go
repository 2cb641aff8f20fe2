//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/test/bed"
)

const (
	mallory     = "mallory@shop.test" // is blocked all the time
	dave        = "dave@shop.test"    // sends as all of them
	hostileOnce = 6                   // names at the same time
	maxWhoBytes = 128

	resetPatience = 2 * time.Second
)

// innocents have nothing to do with any of the names.
var innocents = []string{alice, bob, carol, erin}

// hostileNames are accounts, paths, subjects and passwords as nobody has them
// by accident. Whoever runs one of the commands leaves a file in canary.
func hostileNames(canary string) []string {
	run := "touch " + canary + "/pwned"
	return []string{
		"'; " + run + "; '@shop.test", `"; ` + run + `; "@shop.test`, "x';pwned;'y@shop.test",
		"x@shop.test\n" + run, "x@shop.test\r\nalice@shop.test REJECT", "x@shop.test\n\"alice@shop.test\": blocked",
		"*@shop.test", "*", "al?ce@shop.test", "[a-z]*@shop.test", "^.*$", "x*@shop.test",
		"-alice@shop.test", "--user=root", "--user=root@shop.test", "-oQ" + canary, "-f", "--help",
		"bob@shop.test\x00", "bob\x00@shop.test", "bob\u202etset.pohs@shop.test", "\u202ebob@shop.test", strings.Repeat("a", 10_000) + "@shop.test",
		"$(" + run + ")@shop.test", "`" + run + "`@shop.test", "x`pwned`y@shop.test", "x$(pwned)@shop.test", "${run{/bin/sh -c '" + run + "'}}@shop.test",
		"x;" + run + "@shop.test", "x;pwned@shop.test", "x|" + run, "|pwned@shop.test", "x|pwned|y@shop.test", "x&pwned&y@shop.test", "x>" + canary + "/pwned",
		"%s%s%n%d@shop.test", "x%s@shop.test", "%u@shop.test", "{account}@shop.test", "{login}", ":hash", "x:hash@shop.test", ":fail: x@shop.test",
		"@domain", "@shop.test", "x@@shop.test", "bob:x@shop.test", "#alice@shop.test", "!alice@shop.test", "x#alice@shop.test",
		"../../alice@shop.test", "..", "../../../../" + canary + "/pwned", "caf\xff\xfe@shop.test", "\xff",
		"alice@shop.test REJECT", "alice@shop.test,bob@shop.test", "alice@shop.test bob@shop.test", "alice@shop.test:", `alice@shop.test\`, `"alice@shop.test"`,
		"script:/home/u/$(" + run + ").php", "script:/home/u/../../etc/passwd", "script:/home/u/a\nb.php", "script:-oQ", "script:" + strings.Repeat("/x", 300),
		"user:--user=root", "user:$(" + run + ")", "user:../games", "user:root", "user:*", "uid:0", "uid:-1", "uid:00", "client:0.0.0.0/0", "client:::1",
		"forward:$(" + run + ")@shop.test", "forward:*@shop.test", "forward:alice@shop.test|pwned", "", " ", "\t", "\n", "' OR 1=1 --", "x'); DROP TABLE decisions; --",
	}
}

// A stage is a mail server and a panel with Vedetta beside them, and whose
// every program writes down how it is called.
type stage struct {
	*bed.Bed
	*service
	t      *testing.T
	dir    string // of the tables
	bin    string // of the programs
	canary string
	forged string // path of a log that the test writes
	milter string
	exim   string
	panels *panels

	mu sync.Mutex // guards the forged log
}

// Whatever a stranger calls himself, only he is stopped, nothing is run, and
// every table is still what its server can read.
func TestHostileNames(t *testing.T) {
	c := newStage(t)
	names := hostileNames(c.canary)
	if testing.Short() {
		names = slices.Collect(func(yield func(string) bool) {
			for i := 0; i < len(names) && yield(names[i]); i += 3 {
			}
		})
	}
	if _, err := c.Act(t.Context(), web.Order{Do: "block", Account: mallory, Who: "test"}); err != nil {
		t.Fatal(err)
	}
	c.eachOf(names, c.everyDoor)
	info, err := os.Stat(c.forged)
	if err != nil {
		t.Fatal(err)
	}
	c.read(t, c.forged, info.Size())
	t.Logf("%d names, %d accounts of theirs are stopped", len(names), len(c.stopped(t))-1)
	c.innocent("while they are stopped")
	c.kill()
	c.start()
	c.innocent("after a restart")
	c.eximReads()

	c.eachOf(c.stopped(t), func(name string) { // what was stopped can be released
		if name != mallory {
			if _, err := c.Act(context.Background(), web.Order{Do: "unblock", Account: name, Who: "test"}); err != nil {
				t.Errorf("unblock %q: %v", name, err)
			}
		}
	})
	if left := c.stopped(t); !slices.Equal(left, []string{mallory}) {
		t.Errorf("still stopped: %q", left)
	}
	c.innocent("at the end")
	c.onlyMallory()
	c.programs(names)
	c.nothingRan()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	c := &stage{t: t, dir: openDir(t), bin: t.TempDir(), canary: openDir(t), milter: freePort(t), exim: freePort(t)}
	c.forged = filepath.Join(t.TempDir(), "forged.log")
	c.panels = newPanels(t, append([]string{mallory, dave}, innocents...), []string{"games"})
	c.wrap("postmap", "exec /usr/sbin/postmap \"$@\"")
	c.wrap("postconf", "exec /usr/sbin/postconf \"$@\"")
	c.wrap("postsuper", "exec /usr/sbin/postsuper \"$@\"")
	c.wrap("postkick", "exec /usr/sbin/postkick \"$@\"")
	c.wrap("doveadm", "exit 0")
	c.wrap("set-password", "exec /bin/cat >/dev/null")
	c.wrap("pwned", "exec /usr/bin/touch "+c.canary+"/by-name")
	policy := freePort(t)
	c.Bed = bed.Start(t, bed.Options{
		Policy: policy, PolicyTimeout: policyTimeout, SASLAccess: c.path("sasl_access"), SASLAway: c.path("sasl_away"), Deny: c.path("deny"),
		Main: milterLines(c.milter),
	})
	c.service = newService(t, setup{
		Gate: policy, Logs: []string{c.MailLog, c.forged}, Rules: "blast_max: 1000\n",
		Gates:   fmt.Sprintf("milter: [\"inet:%s\"]\nexim: [\"inet:%s\"]\n", c.milter, c.exim),
		Postfix: fmt.Sprintf("sasl_access: %s\nsasl_away: %s\nlocal_access: %s\nclient_access: %s\nsubmit_users: %s\nconfig_dir: %s\n", c.path("sasl_access"), c.path("sasl_away"), c.path("local_access"), c.path("client_access"), c.path("submit_users"), c.Config),
	})
	c.configure(fmt.Sprintf("queue:\n  postfix: %s\nexim:\n  block_file: %s\n  hold_file: %s\n  away_file: %s\ndovecot:\n  deny_file: %s\nreset:\n  command: [%s, \"{account}\"]\n",
		filepath.Join(c.Bed.Dir, "spool"), c.path("exim_block"), c.path("exim_hold"), c.path("exim_away"), c.path("deny"), filepath.Join(c.bin, "set-password")) + c.panels.section())
	c.env = []string{"PATH=" + c.bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := os.WriteFile(c.forged, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start()
	return c
}

func (c *stage) path(table string) string { return filepath.Join(c.dir, table) }

// wrap makes a program that writes down how it is called, and then does.
func (c *stage) wrap(name, then string) {
	c.t.Helper()
	text := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\0' \"$#\" %s \"$@\" >>%s/calls\n%s\n", name, c.bin, then)
	if err := os.WriteFile(filepath.Join(c.bin, name), []byte(text), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// calls are the command lines of all programs so far.
func (c *stage) calls() (calls [][]string) {
	text, err := os.ReadFile(filepath.Join(c.bin, "calls"))
	if err != nil {
		c.t.Fatal(err)
	}
	words := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
	for len(words) > 0 {
		n := 0
		if _, err := fmt.Sscan(words[0], &n); err != nil || len(words) < n+2 {
			c.t.Fatalf("the list of calls is damaged at %.200q", words)
		}
		calls, words = append(calls, words[1:n+2]), words[n+2:]
	}
	return calls
}

// eachOf does something with each of the names, with some at the same time.
func (c *stage) eachOf(names []string, do func(string)) {
	work := make(chan string)
	var all sync.WaitGroup
	for range hostileOnce {
		all.Go(func() {
			for name := range work {
				do(name)
			}
		})
	}
	for _, name := range names {
		work <- name
	}
	close(work)
	all.Wait()
}

// everyDoor brings a name in by all ways that there are. What comes of it does
// not matter here.
func (c *stage) everyDoor(name string) {
	c.logged(name)
	c.byGate(name)
	c.byMail(name)
	c.byAPI(name)
	c.byCommand(name)
}

// byAPI gives every order about the name, also in bytes that no JSON has.
func (c *stage) byAPI(name string) {
	ctx := context.Background()
	who := name[:min(len(name), maxWhoBytes)] + "!"
	for _, o := range []web.Order{
		{Do: "block", DryRun: true}, {Do: "reset", DryRun: true}, {Do: "hold"}, {Do: "unblock"}, {Do: "block", For: time.Hour, Why: name}, {Do: "reset"},
		{Do: "queue-hold"}, {Do: "queue-release"}, {Do: name}, {Do: "undo", Since: time.Hour, DryRun: true}, {Do: "release"}, {Do: "block", Who: who},
	} {
		if o.Do != "undo" {
			o.Account = name
		}
		if o.Who == "" {
			o.Who = "test"
		}
		ctx, cancel := ctx, context.CancelFunc(func() {})
		if o.Do == "reset" && !o.DryRun { // one that is refused is tried again after a while, which nobody waits for
			ctx, cancel = context.WithTimeout(ctx, resetPatience)
		}
		result, err := c.Act(ctx, o)
		cancel()
		if text := fmt.Sprint(result, err); strings.Contains(text, "panic") {
			c.t.Errorf("%s %.80q: %s", o.Do, name, text)
		}
	}
	_, _ = c.Why(ctx, name) // mostly there is no such account
	_, _ = c.Journal(ctx, name, 10)
	if utf8.ValidString(name) {
		return
	}
	body := append([]byte(`{"do":"block","who":"test","account":"`), name+`"}`...)
	req, err := http.NewRequest(http.MethodPost, c.Base+"/api/v1/act", bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
}

// byCommand gives orders by the command line; a NUL cannot be there.
func (c *stage) byCommand(name string) {
	if strings.Contains(name, "\x00") {
		return
	}
	for _, args := range [][]string{{"block", "-c", c.config, "--", name}, {"hold", name, "-c", c.config, "--dry-run"}} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Env = append(os.Environ(), c.env...)
		out, err := cmd.CombinedOutput()
		cancel()
		if bytes.Contains(out, []byte("panic:")) || bytes.ContainsAny(out, "\x00\x1b\r") {
			c.t.Errorf("%.80q: %v, %.400q", args, err, out)
		}
	}
}

// byGate asks the policy service and the socket for Exim, as a server would
// that checks nothing.
func (c *stage) byGate(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, _ = gate.Ask(ctx, "inet:"+c.gate, "protocol_state=RCPT", "instance=h."+name, "sasl_username="+name, "sender="+name, "recipient="+name, "client_address=203.0.113.7", "queue_id="+name)
	for _, question := range []string{
		"stage=rcpt\tid=1\tip=203.0.113.7\tauth=" + name + "\tfrom=" + name + "\tto=" + name,
		"stage=data\tid=1\tip=203.0.113.7\tauth=" + name + "\tsize=10\trcpts=1\tfrom=" + name + "\tto=x@ok.test\tsubject=" + name,
		"stage=local\tid=1\tlocal=" + name + "\tcwd=" + name + "\tphp=" + name + "\tsize=10\trcpts=1\tfrom=x\tto=x@ok.test\tsubject=" + name,
	} {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.exim)
		if err != nil {
			c.t.Error(err)
			return
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, question+"\n")
		answer, _ := io.ReadAll(io.LimitReader(conn, 4096))
		conn.Close()
		if bytes.ContainsAny(answer, "\n\r\x00") {
			c.t.Errorf("%.80q: Exim is answered %q", name, answer)
		}
	}
}

// byMail logs in with the name and as password, and has a script send mail
// with it in its headers: Postfix asks the milter, and logs all of it.
func (c *stage) byMail(name string) {
	_ = c.Send(name, name, "x@shop.test", "x@ok.test")
	_ = c.Send(alice, name, alice, "x@ok.test")
	_ = c.Send(dave, "pw-dave", name, "x@ok.test") // and may be stopped for it
	header := fmt.Sprintf("To: <x@ok.test>\nSubject: %s\nX-PHP-Originating-Script: 65534:%s\nX-PHP-Script: %s\n\nHello.\n", name, name, name)
	sendmail(c.t, c.Bed, header, "x@ok.test")
}

// logged has a log tell of a hijack of an account with the name.
func (c *stage) logged(name string) {
	if name == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := os.OpenFile(c.forged, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		c.t.Error(err)
		return
	}
	_, err = f.WriteString(hijack(name))
	if err := errors.Join(err, f.Close()); err != nil {
		c.t.Error(err)
	}
}

// stopped lists the accounts with something in force, in order.
func (c *stage) stopped(t *testing.T) (names []string) {
	t.Helper()
	active, err := c.open().Active(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range active {
		names = append(names, d.Subject)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// innocent checks that the innocents log in and send, and that mallory cannot.
func (c *stage) innocent(when string) {
	c.t.Helper()
	for _, login := range innocents {
		name, _, _ := strings.Cut(login, "@")
		if err := c.Send(login, "pw-"+name, login, contact(login, 1)); err != nil {
			c.t.Errorf("%s: %s: %v", when, login, err)
		}
		if action, err := ask(c.t, c.gate, login); err != nil || action != "DUNNO" {
			c.t.Errorf("%s: %s: the gate says %q, %v", when, login, action, err)
		}
		if why, err := c.Why(c.t.Context(), login); err == nil && len(why.Findings) > 0 { // an error: nothing is known about it
			c.t.Errorf("%s: %s was found to do something: %+v", when, login, why.Findings)
		}
		for _, key := range []string{login, name, strings.Replace(login, "@", "%", 1)} {
			for _, table := range []string{"sasl_access", "sasl_away", "local_access", "client_access", "submit_users"} {
				if out, err := exec.Command("/usr/sbin/postmap", "-c", c.Config, "-q", key, "hash:"+c.path(table)).Output(); err == nil || len(out) > 0 {
					c.t.Errorf("%s: %s has %s: %q", when, table, key, out)
				}
			}
		}
	}
	out, err := exec.Command("/usr/sbin/postmap", "-c", c.Config, "-q", mallory, "hash:"+c.path("sasl_access")).Output()
	if err != nil || !strings.HasPrefix(string(out), "REJECT") {
		c.t.Errorf("%s: mallory's row is %q, %v", when, out, err)
	}
	if err := c.Send(mallory, "pw-mallory", mallory, "x@ok.test"); err == nil {
		c.t.Errorf("%s: mallory may send", when)
	}
}

// eximReads has Exim look the innocents up in its tables, also by kinds of
// look-up that take keys for patterns or expand them.
func (c *stage) eximReads() {
	c.t.Run("exim", func(t *testing.T) {
		e := bed.StartExim(t, bed.EximOptions{Bed: c.Bed, BlockFile: c.path("exim_block"), HoldFile: c.path("exim_hold")})
		for _, table := range []string{"exim_block", "exim_hold", "exim_away"} {
			for _, kind := range []string{"lsearch", "lsearch*@", "wildlsearch", "nwildlsearch"} {
				for _, login := range append([]string{mallory, "user:games", "nobody"}, innocents...) {
					want := "no"
					if login == mallory && table != "exim_hold" {
						want = "yes"
					}
					got, err := e.Expand(fmt.Sprintf("${lookup{%s}%s{%s}{yes}{no}}", login, kind, c.path(table)))
					if err != nil || got != want {
						t.Errorf("%s by %s: %s: %q, %v, want %s", table, kind, login, got, err, want)
					}
				}
			}
		}
	})
}

// onlyMallory checks that the tables and the panel hold her alone.
func (c *stage) onlyMallory() {
	text, err := os.ReadFile(c.path("deny"))
	if err != nil {
		c.t.Error(err)
	}
	for _, table := range []string{"sasl_access", "sasl_away", "local_access", "client_access", "exim_block", "exim_hold", "exim_away", "submit_users"} {
		more, err := os.ReadFile(c.path(table))
		if err != nil {
			c.t.Error(err)
		}
		text = append(text, more...)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(strings.Trim(line, `"`), "mallory") {
			c.t.Errorf("a table holds %q", line)
		}
	}
	suspended, held := c.panels.stopped(c.t)
	if !slices.Equal(suspended, []string{mallory}) || len(held) > 0 {
		c.t.Errorf("at the panel %q are suspended and %q held", suspended, held)
	}
}

// programs checks that every program was called as it should be.
func (c *stage) programs(names []string) {
	var own []string
	for _, name := range names {
		own = append(own, strings.ToLower(name), strings.ToLower(strings.Replace(name, "@", "%", 1)))
	}
	q := regexp.QuoteMeta
	table := fmt.Sprintf(`hash:%s/\.?(sasl_access|sasl_away|local_access|client_access|submit_users)(\.new)?`, q(c.dir))
	shapes := []*regexp.Regexp{
		regexp.MustCompile(`^postconf\x00-c\x00` + q(c.Config) + `\x00-h\x00(default_database_type|queue_directory)$`),
		regexp.MustCompile(`^postmap\x00-c\x00` + q(c.Config) + `(\x00-f)?(\x00-q\x00-)?\x00` + table + `$`),
		regexp.MustCompile(`^postsuper\x00-c\x00` + q(c.Config) + `\x00-[hHd]\x00-$`),
		regexp.MustCompile(`^postkick\x00-c\x00` + q(c.Config) + `\x00public\x00qmgr\x00D$`),
		regexp.MustCompile(`^uapi\x00--user=customer\d+\x00--output=json\x00Email\x00[a-z_]+(\x00[a-z_]+=[\w.%@+-]*)+$`),
		regexp.MustCompile(`^whmapi1\x00--output=json\x00[a-z_]+(\x00[a-z_.]+=[\w.%+-]*)*$`),
	}
	of := map[string]int{}
	for _, call := range append(c.calls(), c.panels.calls(c.t)...) {
		of[call[0]]++
		last := call[len(call)-1]
		switch line := strings.Join(call, "\x00"); {
		case slices.ContainsFunc(shapes, func(r *regexp.Regexp) bool { return r.MatchString(line) }):
		case call[0] == "doveadm" && (slices.Equal(call[1:len(call)-1], []string{"auth", "cache", "flush", "--"}) || slices.Equal(call[1:len(call)-1], []string{"kick", "--"})) &&
			slices.Contains(own, last):
		case call[0] == "set-password" && len(call) == 2 && slices.Contains(own, last) && !strings.HasPrefix(last, "-"):
		default:
			c.t.Errorf("called: %.300q", call)
		}
	}
	c.t.Logf("called: %v", of)
}

// nothingRan checks that no name was taken for a command or a path.
func (c *stage) nothingRan() {
	for _, dir := range []string{c.canary, "."} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			c.t.Error(err)
		}
		for _, e := range entries {
			if dir == c.canary || strings.Contains(e.Name(), "pwned") {
				c.t.Errorf("somebody made %s", filepath.Join(dir, e.Name()))
			}
		}
	}
	if slices.ContainsFunc(c.calls(), func(call []string) bool { return call[0] == "pwned" }) {
		c.t.Error("a name was run")
	}
}
