package bed_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/test/bed"
)

const scriptMail = "From: <www@shop.test>\nTo: <r@ok.test>\nSubject: from a script\n\nHello.\n"

func TestEximMail(t *testing.T) {
	e := bed.StartExim(t, bed.EximOptions{})
	const alice, password = "alice@shop.test", "pw-alice"

	accepted(t, e.Send(alice, password, alice, "r1@ok.test", "r2@ok.test"))
	e.WaitLog(` <= alice@shop\.test .* A=dovecot_plain:alice@shop\.test .* T="From the test bed" .* for r1@ok\.test r2@ok\.test$`)
	e.Bed.Wait("the mail to arrive", func() bool { return len(e.Bed.Received(bed.OK)) > 0 })
	refused(t, e.Send(alice, "wrong", alice, "r@ok.test"), 535, "Incorrect authentication data")
	refused(t, e.SendInbound("x@outside.test", "r@ok.test"), 550, "relay not permitted")
	accepted(t, e.SendInbound("x@outside.test", "bob@shop.test"))
	e.Bed.Wait("the mail in bob's mailbox", func() bool {
		mails, err := e.Bed.Mailbox("bob@shop.test")
		return err == nil && len(mails) == 1
	})
	accepted(t, e.Send(alice, password, alice, "r@hard.test"))
	e.WaitLog(` \*\* r@hard\.test .*550 5\.1\.1 `)
	accepted(t, e.Send(alice, password, alice, "r@soft.test"))
	e.WaitLog(` == r@soft\.test .*451 4\.7\.1 `)
	accepted(t, e.Send(alice, password, alice, "r@elsewhere.test"))
	e.WaitLog(` == r@elsewhere\.test .*no route in the test bed`)
	e.Bed.Wait("two messages in the queue", func() bool {
		queue, err := e.Queue()
		return err == nil && len(queue) == 2 && queue[0].Sender == alice && len(queue[0].Recipients) == 1
	})

	accepted(t, e.Sendmail("nobody", []string{"-t"}, scriptMail))
	e.WaitLog(` <= nobody@mx2\.hosting\.test U=nobody P=local .* for r@ok\.test$`)
	e.Bed.Wait("the script's mail to arrive", func() bool { return len(e.Bed.Received(bed.OK)) == 2 })
}

func TestEximLookups(t *testing.T) {
	dir := publicDir(t)
	block, hold := filepath.Join(dir, "block"), filepath.Join(dir, "hold")
	e := bed.StartExim(t, bed.EximOptions{BlockFile: block, HoldFile: hold})
	const alice, bob = "alice@shop.test", "bob@shop.test"

	write(t, block, "alice@shop.test: stopped for a test\n\"user:nobody\": no scripts\n")
	write(t, hold, "bob@shop.test: held\n")
	refused(t, e.Send(alice, "pw-alice", alice, "r@ok.test"), 550, "stopped for a test")
	accepted(t, e.Send(bob, "pw-bob", bob, "r@ok.test"))
	if err := e.Sendmail("nobody", []string{"-t", "-oep"}, scriptMail); err == nil || !strings.Contains(err.Error(), "no scripts") {
		t.Errorf("the script got %v", err)
	}
	e.WaitLog(`vedetta: held bob@shop\.test`)
	queue, err := e.Queue()
	if err != nil || len(queue) != 1 || !queue[0].Frozen || queue[0].Sender != bob {
		t.Errorf("queue: %+v, %v", queue, err)
	}
	for _, path := range []string{block, hold} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	accepted(t, e.Send(alice, "pw-alice", alice, "r@ok.test")) // a missing file stops nobody
	accepted(t, e.Sendmail("nobody", []string{"-t"}, scriptMail))
}

func TestEximAsksTheGate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var mu sync.Mutex
	var asked []string
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			question, _ := bufio.NewReader(conn).ReadString('\n')
			mu.Lock()
			asked = append(asked, question)
			mu.Unlock()
			answer := "OK"
			switch {
			case strings.Contains(question, "auth=alice@shop.test\t"):
				answer = "DENY 5.7.1 not today"
			case strings.Contains(question, "auth=bob@shop.test\t") && strings.HasPrefix(question, "stage=data"):
				answer = "FREEZE held"
			case strings.Contains(question, "local=nobody\t"):
				answer = "DENY no scripts"
			}
			fmt.Fprint(conn, answer)
			conn.Close()
		}
	}()
	e := bed.StartExim(t, bed.EximOptions{Gate: l.Addr().String()})
	refused(t, e.Send("alice@shop.test", "pw-alice", "alice@shop.test", "r@ok.test"), 550, "not today")
	accepted(t, e.Send("bob@shop.test", "pw-bob", "bob@shop.test", "r@ok.test"))
	e.WaitLog(`vedetta: FREEZE`)
	if err := e.Sendmail("nobody", []string{"-t"}, scriptMail); err == nil {
		t.Error("the script's mail was accepted")
	}
	mu.Lock()
	for _, stage := range []string{"rcpt", "data", "local"} {
		if !strings.Contains(strings.Join(asked, ""), "stage="+stage+"\t") {
			t.Errorf("not asked at %s: %q", stage, asked)
		}
	}
	mu.Unlock()
	l.Close()
	accepted(t, e.Send("alice@shop.test", "pw-alice", "alice@shop.test", "r@ok.test")) // the gate is away
}

func TestEximBesidePostfix(t *testing.T) {
	deny := filepath.Join(publicDir(t), "deny")
	b := bed.Start(t, bed.Options{Deny: deny})
	e := bed.StartExim(t, bed.EximOptions{Bed: b})
	accepted(t, b.Send("carol@shop.test", "pw-carol", "carol@shop.test", "r@ok.test"))
	accepted(t, e.Send("carol@shop.test", "pw-carol", "carol@shop.test", "r@ok.test"))
	write(t, deny, "dave@shop.test\n")
	b.Wait("Dovecot to look at the file", func() bool {
		return b.Send("dave@shop.test", "pw-dave", "dave@shop.test", "r@ok.test") != nil
	})
	refused(t, b.Send("dave@shop.test", "pw-dave", "dave@shop.test", "r@ok.test"), 535, "")
	refused(t, e.Send("dave@shop.test", "pw-dave", "dave@shop.test", "r@ok.test"), 535, "")
}

func TestEximStops(t *testing.T) {
	e := bed.StartExim(t, bed.EximOptions{})
	accepted(t, e.Send("carol@shop.test", "pw-carol", "carol@shop.test", "r@dead.test"))
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.DialTimeout("tcp", e.SMTP, time.Second); err == nil {
		t.Error("Exim still listens")
	}
	queue, err := e.Queue()
	if err != nil || len(queue) != 1 {
		t.Errorf("the queue without a daemon: %+v, %v", queue, err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	accepted(t, e.Send("carol@shop.test", "pw-carol", "carol@shop.test", "r@ok.test"))
}

// publicDir is a directory of the test that the mail servers' users may enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bed_test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
