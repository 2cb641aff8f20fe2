package gate_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// documented returns the blocks of docs/exim.md of one kind, in order.
func documented(t *testing.T, kind string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/exim.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)\n```"+kind+"\n(.*?)\n```\n").FindAllSubmatch(text, -1) {
		blocks = append(blocks, string(m[1])+"\n")
	}
	return blocks
}

// A documentedExim is an Exim that is configured as docs/exim.md has it.
type documentedExim struct {
	*bed.Exim
	socket, away string
}

// startDocumented starts an Exim that asks at a unix socket, where nobody
// listens yet. Debian's way of calling the list "vedetta" is taken if wanted.
func startDocumented(t *testing.T, debian bool) *documentedExim {
	t.Helper()
	e := bed.StartExim(t, bed.EximOptions{QueueRun: time.Hour})
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	x := &documentedExim{e, filepath.Join(e.Dir, "gate"), filepath.Join(e.Dir, "away")}
	path := filepath.Join(e.Dir, "etc/exim4/exim4.conf")
	conf, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blocks := documented(t, "exim")
	if len(blocks) != 2 {
		t.Fatalf("docs/exim.md has %d blocks to copy, want the macros and the list", len(blocks))
	}
	macros := strings.NewReplacer("/run/vedetta/exim", x.socket, "/var/lib/vedetta/exim/away", x.away).Replace(blocks[0])
	text := macros + strings.Replace(string(conf), "begin acl\n", "begin acl\n\n"+blocks[1], 1)
	if debian {
		text = strings.Replace(text, "acl_smtp_rcpt = acl_check_rcpt\n", "acl_smtp_rcpt = vedetta_check_rcpt\n", 1)
		text = strings.Replace(text, "acl_smtp_data = acl_check_data\n", "acl_smtp_data = vedetta_check_data\n", 1)
		text = strings.Replace(text, "acl_not_smtp = acl_check_local\n", "acl_not_smtp = vedetta_check_not_smtp\n", 1)
		text = strings.Replace(text, "begin acl\n", "begin acl\n\n"+documented(t, "exim-debian")[0], 1)
	} else {
		calls := documented(t, "exim-calls")[0]
		for _, list := range []struct{ ours, documented string }{{"acl_check_rcpt:\n", "acl_check_rcpt:\n"}, {"acl_check_data:\n", "acl_check_data:\n"}, {"acl_check_local:\n", "acl_check_not_smtp:\n"}} {
			_, call, _ := strings.Cut(calls, list.documented)
			call, _, _ = strings.Cut(call, "\n")
			text = strings.Replace(text, "\n"+list.ours, "\n"+list.ours+call+"\n", 1)
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	return x
}

// answer has g answer at the socket until the test ends, or stop is called.
func (x *documentedExim) answer(t *testing.T, g *gate.Exim) (stop func()) {
	t.Helper()
	l, err := gate.Listen("unix:"+x.socket, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Serve(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// script sends a message by sendmail from a directory, as a script does.
func (x *documentedExim) script(t *testing.T, dir, header string) {
	t.Helper()
	cmd, err := x.Command("nobody", "/bin/sh", "-c", `cd "$1" && exec "$2" -t -i -f victim@spam.test`, "sh", dir, x.Binary)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader("From: <www@shop.test>\nTo: <r@ok.test>\n" + header + "\nHello.\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sendmail in %s: %v: %s", dir, err, out)
	}
}

// directory makes one below x that system users may enter.
func (x *documentedExim) directory(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(x.Dir, "home", "u", "public_html", name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func (x *documentedExim) send(name string) error {
	return x.Send(name+"@shop.test", "pw-"+name, name+"@shop.test", "r@ok.test")
}

// queue counts the messages in the queue.
func (x *documentedExim) queue(t *testing.T) (frozen, others int) {
	t.Helper()
	all, err := x.Queue()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Frozen {
			frozen++
		} else {
			others++
		}
	}
	return frozen, others
}

// settled waits until so many messages are frozen, so many have arrived, and
// nothing else is on its way.
func (x *documentedExim) settled(t *testing.T, frozen, arrived int) {
	t.Helper()
	x.Bed.Wait(fmt.Sprintf("%d messages to arrive", arrived), func() bool { return len(x.Bed.Received(bed.OK)) >= arrived })
	f, others := 0, 0
	for range 50 { // Exim writes a log line each time it is asked
		if f, others = x.queue(t); f == frozen && others == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if n := len(x.Bed.Received(bed.OK)); f != frozen || others != 0 || n != arrived {
		t.Errorf("%d messages are frozen, %d others queued, %d delivered; want %d, 0, %d", f, others, n, frozen, arrived)
	}
}

func refusedBy(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

func decided(action rules.Action, subject string) rules.Decision {
	return rules.Decision{Subject: subject, Action: action, Enforce: true}
}

func TestRealExim(t *testing.T) {
	for name, debian := range map[string]bool{"plain": false, "debian": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := startDocumented(t, debian)
			table := &gate.Table{Allowance: func(string) gate.Allowance { return gate.Allowance{Every: time.Hour, Burst: 1} }}
			table.Set(decided(rules.Hold, "bob@shop.test"), "held")
			table.Set(decided(rules.Throttle, "carol@shop.test"), "slowed")
			g := &gate.Exim{Table: table}
			x.answer(t, g)

			session := x.Session("mallory@shop.test")
			if err := session.Send("mallory@shop.test", "r@ok.test"); err != nil {
				t.Errorf("before the decision: %v", err)
			}
			table.Set(decided(rules.Block, "mallory@shop.test"), "sending is stopped: ask ${run{/bin/false}} 100%")
			if err := session.Send("mallory@shop.test", "r@ok.test"); !refusedBy(err, "sending is stopped: ask ${run{/bin/false}} 100%") {
				t.Errorf("in the open session: %v", err)
			}
			x.WaitLog(`A=dovecot_plain:mallory@shop\.test rejected RCPT <r@ok\.test>: vedetta: DENY 5\.7\.1 sending`)
			for _, name := range []string{"alice", "bob", "carol", "carol"} {
				if err := x.send(name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			x.settled(t, 2, 3) // frozen: bob's and carol's second
			if err := x.SendInbound("x@outside.test", "r@ok.test"); !refusedBy(err, "relay not permitted") {
				t.Errorf("a rule of the server's own: %v", err)
			}

			bad, good := x.directory(t, "bad"), x.directory(t, "good")
			table.Set(decided(rules.Block, "script:"+bad), "a script")
			table.Set(decided(rules.Block, "script:"+good+"/contact.php"), "a file")
			x.script(t, bad, "")
			x.script(t, good, "")
			x.script(t, good, "X-PHP-Originating-Script: 65534:contact.php\n")
			x.script(t, good, "X-PHP-Originating-Script: 65534:index.php\nX-PHP-Originating-Script: 65534:contact.php\n")
			x.settled(t, 4, 5)
			if n := len(x.Bed.Received(bed.Spam)); n > 0 {
				t.Errorf("%d messages went to the address that the script made up", n)
			}
			if s := g.Stats(); s.Malformed > 0 || s.Slow > 0 || s.Panics > 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// A throttle that defers lets as many recipients through as are paid for.
func TestRealEximDefers(t *testing.T) {
	t.Parallel()
	x := startDocumented(t, false)
	table := &gate.Table{Throttled: gate.Defer, Allowance: func(string) gate.Allowance { return gate.Allowance{Every: time.Hour, Burst: 2} }}
	table.Set(decided(rules.Throttle, "carol@shop.test"), "more later")
	x.answer(t, &gate.Exim{Table: table})
	s := x.raw(t, "carol")
	s.say(t, 250, "MAIL FROM:<carol@shop.test>")
	for i, code := range []int{250, 250, 451, 451} {
		s.say(t, code, fmt.Sprintf("RCPT TO:<r%d@ok.test>", i))
	}
	s.data(t, 250, "Subject: to two of four\r\n\r\nHello.\r\n")
	s.say(t, 250, "MAIL FROM:<carol@shop.test>")
	s.say(t, 451, "RCPT TO:<r2@ok.test>")
	x.settled(t, 0, 1)
}

// What the gate would answer holds without Vedetta by the file alone, while a
// Vedetta that answers decides alone; without the file nobody is stopped.
func TestRealEximWithoutVedetta(t *testing.T) {
	t.Parallel()
	x := startDocumented(t, false)
	table := new(gate.Table)
	table.Set(decided(rules.Block, "alice@shop.test"), "stopped")
	stop := x.answer(t, &gate.Exim{Table: table})
	if err := x.send("alice"); !refusedBy(err, "stopped") {
		t.Errorf("the gate: %v", err)
	}
	dir, other := x.directory(t, "Any dir: \"$(id)\""), x.directory(t, "any dir: \"$(id)\"")
	away := enforce.EximAway{Path: x.away}
	entry := func(action rules.Action, subject, text string) enforce.Entry {
		e := enforce.Entry{Subject: subject, Action: action, Text: text}
		if strings.Contains(subject, "@") {
			e.Logins = []string{subject}
		}
		return e
	}
	err := away.Apply(t.Context(), []enforce.Entry{
		entry(rules.Block, "mallory@shop.test", "stopped by the file: ask ${run{/bin/false}} 100%"), entry(rules.Hold, "bob@shop.test", "held"), entry(rules.Throttle, "carol@shop.test", "slowed"),
		entry(rules.Block, "user:games", "no scripts"), entry(rules.Throttle, "script:"+dir, ""), entry(rules.Block, "script:"+other+"/contact.php", "a file"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mallory", "bob", "carol"} { // the gate knows nothing of them
		if err := x.send(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop()
	within := func(name string, limit time.Duration) {
		t.Helper()
		began := time.Now()
		if err := x.send(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > limit {
			t.Errorf("%s: took %v", name, took)
		}
	}
	within("alice", 5*time.Second)
	if err := x.send("mallory"); !refusedBy(err, "stopped by the file: ask ${run{/bin/false}} 100%") {
		t.Errorf("the file: %v", err)
	}
	within("bob", 5*time.Second)
	within("carol", 5*time.Second)
	if err := x.Sendmail("games", []string{"-t", "-oep"}, "From: <a@shop.test>\nTo: <r@ok.test>\n\nHello.\n"); err != nil {
		t.Errorf("a user in the file: %v", err)
	}
	x.script(t, dir, "")
	x.script(t, other, "")
	x.script(t, other, "X-PHP-Originating-Script: 65534:contact.php(3) : eval()'d code\n")
	x.script(t, other, "X-PHP-Originating-Script: 65534:Contact.php\n")
	x.settled(t, 5, 6) // frozen: bob, carol, games, the directory and the file

	// A process that is stopped: the kernel accepts its connections.
	l, err := net.Listen("unix", x.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(x.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	within("alice", 10*time.Second)
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("took %v: was the socket asked twice?", took)
	}
	if err := x.send("mallory"); !refusedBy(err, "stopped by the file") {
		t.Errorf("the file, with a process that is stopped: %v", err)
	}
	x.settled(t, 5, 7)
	if err := os.Remove(x.away); err != nil {
		t.Fatal(err)
	}
	within("mallory", 10*time.Second)
	x.settled(t, 5, 8)
}

// What strangers write forges nothing: who is blocked stays so, and who is not
// is not taken for somebody else.
func TestRealEximIsNotForged(t *testing.T) {
	t.Parallel()
	x := startDocumented(t, false)
	table := new(gate.Table)
	table.Set(decided(rules.Hold, "alice@shop.test"), "held")
	table.Set(decided(rules.Hold, "user:root"), "held")
	g := &gate.Exim{Table: table}
	x.answer(t, g)
	const forged = "\tauth=bob@shop.test\tlocal=root\tip=\tstage=local"
	subjects := []string{"a" + forged, "a\r\n " + forged, `"\t${run{/bin/false}}$sender_address\`, "\x01\x7f\xff}{", "=?utf-8?q?a=09auth=3Dbob@shop.test=0A?=", strings.Repeat("s\t", 400)}
	senders := []string{`"a` + forged + `"@shop.test`, `"a\"` + "\t" + `auth=x"@shop.test`, `"${run{/bin/false}}"@shop.test`, `"a=b"@shop.test`, strings.Repeat("s", 60) + "@shop.test"}

	for _, who := range []string{"alice", "bob"} {
		s := x.raw(t, who)
		for i := range max(len(subjects), len(senders)) {
			s.say(t, 250, "MAIL FROM:<"+senders[i%len(senders)]+">")
			s.say(t, 250, "RCPT TO:<r@ok.test>")
			s.data(t, 250, "Subject: "+subjects[i%len(subjects)]+"\r\nX-PHP-Originating-Script: "+subjects[i%len(subjects)]+"\r\n\r\nHello.\r\n")
		}
	}
	frozen, arrived := len(subjects), len(subjects)
	for _, name := range []string{"tab" + forged[:20], "line\nlocal=root", "${run{x}}", `"quote"`, "-f", "\u202egnp"} {
		x.script(t, x.directory(t, name), "Subject: a"+forged+"\nX-PHP-Originating-Script: 0:a"+forged+"\n")
		arrived++
	}
	x.settled(t, frozen, arrived)
	if s := g.Stats(); s.Malformed > 0 || s.Slow > 0 {
		t.Errorf("stats %+v", s)
	}
	if log, err := os.ReadFile(filepath.Join(x.Dir, "log", "paniclog")); err == nil && len(bytes.TrimSpace(log)) > 0 {
		t.Errorf("Exim panicked:\n%s", log)
	}
}

// A rawSession is an SMTP session that says what it is told to.
type rawSession struct{ *textproto.Conn }

func (x *documentedExim) raw(t *testing.T, name string) rawSession {
	t.Helper()
	conn, err := net.Dial("tcp", x.Submission)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	s := rawSession{textproto.NewConn(conn)}
	if _, _, err := s.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	s.say(t, 250, "EHLO client.test")
	s.say(t, 235, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+name+"@shop.test\x00pw-"+name)))
	return s
}

func (s rawSession) say(t *testing.T, code int, line string) {
	t.Helper()
	if err := s.PrintfLine("%s", line); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ReadResponse(code); err != nil {
		t.Errorf("%q: %v", line, err)
	}
}

func (s rawSession) data(t *testing.T, code int, text string) {
	t.Helper()
	s.say(t, 354, "DATA")
	s.say(t, code, text+".")
}
