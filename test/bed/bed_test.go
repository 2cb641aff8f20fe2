package bed_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// refused checks that the server refused with that code and text.
func refused(t *testing.T, err error, code int, text string) {
	t.Helper()
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) {
		t.Errorf("got %v, want a refusal with %d", err, code)
		return
	}
	if reply.Code != code || !strings.Contains(reply.Message, text) {
		t.Errorf("got %d %q, want %d with %q", reply.Code, reply.Message, code, text)
	}
}

func accepted(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestMailOfUsers(t *testing.T) {
	b := bed.Start(t, bed.Options{})
	const alice, password = "alice@shop.test", "pw-alice"

	accepted(t, b.Send(alice, password, alice, "r1@ok.test", "r2@ok.test"))
	b.WaitLog(`submission/smtpd\[\d+\]: \w+: client=localhost\[127\.0\.0\.1\], sasl_method=PLAIN, sasl_username=alice@shop\.test$`)
	b.WaitLog(`to=<r2@ok\.test>, .* status=sent \(250 `)
	b.Wait("the mail to arrive", func() bool { return len(b.Received(bed.OK)) > 0 })
	if got := b.Received(bed.OK)[0]; got.From != alice || len(got.To) != 2 || got.Subject() != "From the test bed" {
		t.Errorf("the sink got %+v", got)
	}

	accepted(t, b.Send(alice, password, alice, "r@hard.test"))
	b.WaitLog(`to=<r@hard\.test>, .* dsn=5\.1\.1, status=bounced \(host .* said: 550 5\.1\.1 `)
	b.WaitLog(`sender non-delivery notification`)
	b.Wait("the report of failure", func() bool {
		mails, err := b.Mailbox(alice)
		return err == nil && len(mails) == 1 && strings.Contains(mails[0], "r@hard.test")
	})

	accepted(t, b.Send(alice, password, alice, "r@soft.test"))
	b.WaitLog(`to=<r@soft\.test>, .* dsn=4\.7\.1, status=deferred \(host .* said: 451 4\.7\.1 `)
	accepted(t, b.Send(alice, password, alice, "r@busy.test"))
	b.WaitLog(`to=<r@busy\.test>, .* status=deferred \(host .* said: 421 4\.7\.1 `)
	accepted(t, b.Send(alice, password, alice, "r@dead.test"))
	b.WaitLog(`to=<r@dead\.test>, .* dsn=4\.4\.1, status=deferred \(connect to .* Connection refused`)
	refused(t, b.Send(alice, password, alice, "r@elsewhere.test"), 450, "no route in the test bed")

	accepted(t, b.Send(alice, password, alice, "r@spam.test"))
	b.WaitLog(`to=<r@spam\.test>, .* dsn=5\.7\.1, status=bounced \(host .* said: 554 5\.7\.1 .*spam.* \(in reply to end of DATA command\)\)`)
	if got := b.Received(bed.Spam); len(got) != 1 || len(got[0].Data) == 0 {
		t.Errorf("the sink that calls mail spam got %+v", got)
	}

	queue, err := b.Postqueue()
	if err != nil {
		t.Fatal(err)
	}
	deferred := map[string]bool{}
	for _, q := range queue {
		if q.Queue == "deferred" && q.Sender == alice && q.ID != "" && len(q.Recipients) == 1 {
			deferred[q.Recipients[0].Address] = true
		}
	}
	for _, want := range []string{"r@soft.test", "r@busy.test", "r@dead.test"} {
		if !deferred[want] {
			t.Errorf("no mail to %s in the deferred queue: %+v", want, queue)
		}
	}
}

func TestMailOfOthers(t *testing.T) {
	b := bed.Start(t, bed.Options{ShortIDs: true})

	refused(t, b.Send("alice@shop.test", "wrong", "alice@shop.test", "r@ok.test"), 535, "authentication failed")
	b.WaitLog(`SASL PLAIN authentication failed: .*, sasl_username=alice@shop\.test`)

	accepted(t, b.SendInbound("x@outside.test", "bob@shop.test"))
	b.Wait("the mail in bob's mailbox", func() bool {
		mails, err := b.Mailbox("bob@shop.test")
		return err == nil && len(mails) == 1
	})
	refused(t, b.SendInbound("x@outside.test", "r@ok.test"), 554, "Relay access denied")

	accepted(t, b.Sendmail("nobody", "www@shop.test", "r@ok.test"))
	b.WaitLog(`pickup\[\d+\]: [0-9A-F]{6,}: uid=65534 from=<www@shop\.test>$`) // a short id
	b.WaitLog(`to=<r@ok\.test>, .* status=sent`)
}

// policy is a service that refuses one login and remembers who was asked about.
type policy struct {
	blocked string

	mu    sync.Mutex
	asked map[string]int // by protocol state and login
}

func (p *policy) serve(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.answer(conn)
		}
	}()
	return l.Addr().String()
}

func (p *policy) answer(conn net.Conn) {
	defer conn.Close()
	attributes := map[string]string{}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			attributes[name] = value
			continue
		}
		action := "DUNNO"
		if attributes["sasl_username"] == p.blocked {
			action = "REJECT 5.7.1 account locked"
		}
		p.mu.Lock()
		p.asked[attributes["protocol_state"]+" "+attributes["sasl_username"]]++
		p.mu.Unlock()
		if _, err := conn.Write([]byte("action=" + action + "\n\n")); err != nil {
			return
		}
	}
}

func TestHooks(t *testing.T) {
	p := &policy{blocked: "carol@shop.test", asked: map[string]int{}}
	table := filepath.Join(t.TempDir(), "access")
	b := bed.Start(t, bed.Options{Policy: p.serve(t), SASLAccess: table, Main: []string{"smtpd_banner = $myhostname ESMTP bed"}})

	dave := b.Session("dave@shop.test")
	accepted(t, dave.Send("dave@shop.test", "r@ok.test"))
	refused(t, b.Send("carol@shop.test", "pw-carol", "carol@shop.test", "r@ok.test"), 554, "account locked")
	p.mu.Lock()
	if p.asked["RCPT dave@shop.test"] != 1 || p.asked["END-OF-MESSAGE dave@shop.test"] != 1 || p.asked["RCPT carol@shop.test"] != 1 {
		t.Errorf("the policy service was asked %v", p.asked)
	}
	p.mu.Unlock()

	replace(t, b, table, "bob@shop.test REJECT 5.7.1 account suspended\n")
	refused(t, b.Send("bob@shop.test", "pw-bob", "bob@shop.test", "r@ok.test"), 554, "account suspended")
	accepted(t, dave.Send("dave@shop.test", "r@ok.test"))

	out, err := b.Command("postconf", "-h", "smtpd_banner").Output()
	if err != nil || strings.TrimSpace(string(out)) != "$myhostname ESMTP bed" {
		t.Errorf("smtpd_banner is %q, %v", out, err)
	}
}

// replace puts a new table into the place of the old one, without a moment at
// which there is none. Postfix notices a table that was replaced, but not one
// rewritten in place within the second in which it was opened.
func replace(t *testing.T, b *bed.Bed, table, text string) {
	t.Helper()
	if err := os.WriteFile(table+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := b.Command("postmap", "hash:"+table+".new").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Rename(table+".new.db", table+".db"); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	b := bed.Start(t, bed.Options{})
	b.Session("alice@shop.test") // one that is still open
	if len(using(t, b.Dir)) == 0 {
		t.Error("no process uses the directory of the bed: the test would notice nothing")
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	if left := using(t, b.Dir); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
	if _, err := net.Dial("tcp", b.Submission); err == nil {
		t.Error("somebody still listens at the submission port")
	}
	if err := b.Stop(); err != nil {
		t.Errorf("stopped twice: %v", err)
	}
}

// using lists the processes that have dir as working directory, or below it.
func using(t *testing.T, dir string) (left []string) {
	processes, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range processes {
		if cwd, err := os.Readlink(process); err == nil && strings.HasPrefix(cwd, dir) {
			left = append(left, process)
		}
	}
	return left
}
