//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// A milterTown is a real Postfix that asks a milter of this process.
type milterTown struct {
	*bed.Bed
	t      *testing.T
	table  *gate.Table
	milter *gate.Milter

	mu   sync.Mutex
	seen []gate.Request
}

func newMilterTown(t *testing.T, table *gate.Table, main ...string) *milterTown {
	t.Helper()
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	c := &milterTown{t: t, table: table}
	c.milter = &gate.Milter{Table: table, Seen: c.note}
	l, err := gate.Listen("inet:127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.milter.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c.Bed = bed.Start(t, bed.Options{Main: append(milterLines(l.Addr().String()), main...)})
	return c
}

// milterLines are those that docs/milter.md has operators write.
func milterLines(addr string) []string {
	return []string{
		fmt.Sprintf("vedetta_milter = { inet:%s, connect_timeout=1s, command_timeout=2s, content_timeout=2s, default_action=accept }", addr),
		"smtpd_milters = $vedetta_milter",
		"non_smtpd_milters = $vedetta_milter",
	}
}

func (c *milterTown) note(r gate.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, r)
}

func (c *milterTown) decide(action rules.Action, subject string) {
	c.table.Set(rules.Decision{Subject: subject, Action: action, Enforce: true}, "100% stopped")
}

// sendmail sends a text with the sendmail command, as the user nobody.
func sendmail(t *testing.T, b *bed.Bed, text string, rcpts ...string) {
	t.Helper()
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.Command("sendmail", append([]string{"-i", "-f", "www@shop.test", "--"}, rcpts...)...)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: uint32(gid)}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sendmail: %v\n%s", err, out)
	}
}

const nobody = 65534

// script is a message that PHP's mail() would send for a script of nobody's.
func script(name, more string) string {
	return fmt.Sprintf("To: <r@ok.test>\nSubject: From a form\nX-PHP-Originating-Script: %d:%s\n%s\nHello.\n", nobody, name, more)
}

// queued waits until the message to rcpt is in the hold queue, and returns its
// queue id.
func (c *milterTown) held(rcpt string) (id string) {
	c.t.Helper()
	c.Wait("the message to "+rcpt+" to be held", func() bool {
		queue, err := c.Postqueue()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, q := range queue {
			if q.Queue == "hold" && slices.ContainsFunc(q.Recipients, func(r struct {
				Address string `json:"address"`
				Reason  string `json:"delay_reason"`
			}) bool {
				return r.Address == rcpt
			}) {
				id = q.ID
			}
		}
		return id != ""
	})
	return id
}

// delivered waits until the message to rcpt has arrived.
func (c *milterTown) delivered(rcpt string) {
	c.t.Helper()
	c.Wait("the message to "+rcpt, func() bool {
		return slices.ContainsFunc(c.Received(bed.OK), func(m bed.Mail) bool { return slices.Contains(m.To, rcpt) })
	})
}

func (c *milterTown) postsuper(option, id string) {
	c.t.Helper()
	if out, err := c.Command("postsuper", option, id).CombinedOutput(); err != nil {
		c.t.Fatalf("postsuper %s: %v\n%s", option, err, out)
	}
	if out, err := c.Command("postqueue", "-f").CombinedOutput(); err != nil {
		c.t.Fatalf("postqueue -f: %v\n%s", err, out)
	}
}

// refusedBy checks that the milter refused, with the decision's text.
func refusedBy(t *testing.T, err error, code int) {
	t.Helper()
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) || reply.Code != code || !strings.Contains(reply.Message, "100% stopped") {
		t.Errorf("got %v, want a refusal with %d", err, code)
	}
}

// The milter stops logins as the policy service does, in a session that is
// already open too, and with Postfix opening its queue file early.
func TestMilterStopsLogins(t *testing.T) {
	for _, main := range [][]string{nil, {"smtpd_delay_open_until_valid_rcpt = no"}} {
		t.Run(strings.Join(main, ""), func(t *testing.T) {
			c := newMilterTown(t, new(gate.Table), main...)
			c.decide(rules.Block, alice)
			refusedBy(t, c.Send(alice, "pw-alice", alice, "r@ok.test"), 550)
			c.WaitLog(`NOQUEUE: milter-reject: RCPT from .*: 550 5\.7\.1 100% stopped; from=<alice@shop\.test> to=<r@ok\.test> .*sasl_username=<alice@shop\.test>|\w+: milter-reject: RCPT from .*100% stopped`)

			s := c.Session(bob)
			must(t, s.Send(bob, "first@ok.test"))
			c.decide(rules.Hold, bob)
			must(t, s.Send(bob, "second@ok.test"))
			must(t, s.Send(bob, "third@ok.test"))
			c.decide(rules.Block, bob)
			refusedBy(t, s.Send(bob, "refused@ok.test"), 550)
			c.table.Remove(bob)
			must(t, s.Send(bob, "last@ok.test"))

			must(t, c.SendInbound("x@outside.test", bob))
			c.Wait("inbound mail", func() bool {
				mails, err := c.Mailbox(bob)
				return err == nil && len(mails) == 1
			})
			c.delivered("first@ok.test")
			c.delivered("last@ok.test")
			c.held("second@ok.test")
			c.held("third@ok.test")
			c.postsuper("-H", "ALL")
			c.delivered("second@ok.test")
			c.delivered("third@ok.test")

			for _, r := range c.told() {
				if r.Account != bob || r.Login != bob || r.QueueID == "" || r.RecipientCount != 1 || len(r.Recipients) != 1 || r.Sender != bob || !r.Client.IsLoopback() {
					t.Errorf("told %+v", r)
				}
			}
			c.fine(t)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func (c *milterTown) told() []gate.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

// fine checks that the milter and Postfix understood each other.
func (c *milterTown) fine(t *testing.T) {
	t.Helper()
	if s := c.milter.Stats(); s.Malformed+s.Slow+s.Refused+s.Panics != 0 {
		t.Errorf("the milter counted %+v", s)
	}
	text, err := os.ReadFile(c.MailLog)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "warning:") && strings.Contains(line, "milter") || strings.Contains(line, "status=bounced") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// A blocked script's mail is held, and the mail of the same user's other
// scripts and programs goes. No message is lost.
func TestMilterStopsScripts(t *testing.T) {
	c := newMilterTown(t, &gate.Table{Allowance: func(string) gate.Allowance { return gate.Allowance{Every: time.Hour, Burst: 3} }})
	c.decide(rules.Block, "script:65534:evil.php")
	c.decide(rules.Throttle, "script:65534:slow.php")
	c.decide(rules.Hold, "script:www.shop.test/up/")

	sendmail(t, c.Bed, script("evil.php", ""), "evil1@ok.test", "evil2@ok.test")
	sendmail(t, c.Bed, script("evil.php(3) : eval()'d code", "X-PHP-Originating-Script: 65534:good.php\n"), "evil3@ok.test")
	sendmail(t, c.Bed, "X-PHP-Script: www.shop.test/up/a/x.php for 192.0.2.1\n\nHello.\n", "evil4@ok.test")
	sendmail(t, c.Bed, script("good.php", "X-PHP-Originating-Script: 65534:evil.php\n"), "good1@ok.test")
	sendmail(t, c.Bed, "Subject: no script\n\nHello.\nX-PHP-Originating-Script: 65534:evil.php\n", "good2@ok.test")
	sendmail(t, c.Bed, "X-PHP-Script: www.shop.test/index.php for 192.0.2.1\n\nHello.\n", "good3@ok.test")
	for n := range 5 {
		sendmail(t, c.Bed, script("slow.php", ""), fmt.Sprintf("slow%d@ok.test", n))
		c.WaitLog(fmt.Sprintf("to=<slow%d@ok.test>", n)) // in this order
	}
	for _, rcpt := range []string{"good1@ok.test", "good2@ok.test", "good3@ok.test", "slow0@ok.test", "slow1@ok.test", "slow2@ok.test"} {
		c.delivered(rcpt)
	}
	for _, rcpt := range []string{"evil1@ok.test", "evil2@ok.test", "evil3@ok.test", "evil4@ok.test", "slow3@ok.test", "slow4@ok.test"} {
		c.held(rcpt)
	}
	c.fine(t)
	if all, queue := c.Received(bed.OK), c.onHold(); len(all) != 6 || len(queue) != 5 {
		t.Errorf("11 messages sent, %d delivered, %d held", len(all), len(queue))
	}
	c.postsuper("-H", "ALL")
	c.Wait("everything released", func() bool { return len(c.Received(bed.OK)) == 11 })
}

func (c *milterTown) onHold() []bed.Queued {
	c.t.Helper()
	queue, err := c.Postqueue()
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.DeleteFunc(queue, func(q bed.Queued) bool { return q.Queue != "hold" })
}

// What the milter makes of a script's mail is what the parser makes of the log,
// where a header check logs what PHP says.
func TestMilterAgreesWithTheLog(t *testing.T) {
	checks := filepath.Join(t.TempDir(), "checks")
	if err := os.WriteFile(checks, []byte("/^X-PHP-(Originating-)?Script:/ INFO\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := newMilterTown(t, new(gate.Table), "header_checks = regexp:"+checks)
	long := strings.Repeat("a", 300)
	tests := []struct{ header, want string }{
		{"X-PHP-Originating-Script: 65534:mail.php", "script:65534:mail.php"},
		{"X-PHP-Originating-Script: 65534:first.php\nX-PHP-Originating-Script: 65534:second.php", "script:65534:first.php"},
		{"X-PHP-Originating-Script: 65534:a(1).php", "script:65534:a(1).php"},
		{"X-PHP-Originating-Script: 65534:" + long + ".php", "script:65534:" + long[:168]},
		{"X-PHP-Originating-Script: 65534:a\x01\x7fb.php", "script:65534:a??b.php"},
		{"X-PHP-Originating-Script: 65534:a\x00b.php", "script:65534:a"},
		{"X-PHP-Originating-Script: 65534:b\u00e4r\xff.php", "script:65534:b\u00e4r?.php"},
		{"X-PHP-Originating-Script: 65534:folded\n\t.php", "script:65534:folded??.php"},
		{"X-PHP-Script: www.shop.test/a/b.php for 192.0.2.1", "script:www.shop.test/a/b.php"},
		{"X-PHP-Script: www.shop.test/a/b.php for 192.0.2.1, 192.0.2.2", "script:www.shop.test/a/b.php"},
		{"X-PHP-Script: www.shop.test/a/b.php for 192.0.2.1\nX-PHP-Originating-Script: 65534:mail.php", "script:www.shop.test/a/b.php"},
		{"X-PHP-Script: www.shop.test/" + long + " for 192.0.2.1", ""},
		{"X-PHP-Script: www.shop.test/a.php", ""},
		{"X-PHP-Originating-Script:", ""},
		{"X-PHP-Originating-Script: 65534:", ""},
		{"x-php-originating-script: 65534:mail.php", ""},
		{"X-Other: 1", ""},
	}
	for i, test := range tests {
		sendmail(t, c.Bed, test.header+"\n\nHello.\n", fmt.Sprintf("r%d@ok.test", i))
	}
	for i := range tests {
		c.WaitLog(fmt.Sprintf("to=<r%d@ok.test>, .* status=", i))
	}
	logged := c.logged(t)
	told := map[string]string{} // by recipient
	for _, r := range c.told() {
		told[r.Recipients[0]] = r.Account
		if logged[r.QueueID] != r.Account {
			t.Errorf("the milter says %q of %s, the log %q", r.Account, r.QueueID, logged[r.QueueID])
		}
		delete(logged, r.QueueID)
	}
	for i, test := range tests {
		if got := told[fmt.Sprintf("r%d@ok.test", i)]; got != test.want {
			t.Errorf("%q: got %q, want %q", test.header, got, test.want)
		}
	}
	for id, account := range logged {
		if account != "uid:65534" && account != "" { // bounces are nobody's
			t.Errorf("only the log says whose %s is: %q", id, account)
		}
	}
}

// logged returns whose each submitted message is by the log, by queue id.
func (c *milterTown) logged(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(c.MailLog)
	if err != nil {
		t.Fatal(err)
	}
	var parser mailq.Parser
	accounts := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if ev, ok := parser.Parse([]byte(strings.TrimSuffix(line, "\n"))); ok && ev.Kind == mailq.Submitted {
			accounts[ev.QueueID] = string(ev.Account)
		}
	}
	return accounts
}

// Hostile headers do nothing: no message is lost, held or refused for them.
func TestMilterAndHostileHeaders(t *testing.T) {
	c := newMilterTown(t, new(gate.Table), "smtputf8_enable = no") // the sinks would not take some of it
	c.decide(rules.Block, "script:65534:evil.php")
	headers := []string{
		"X-Long: " + strings.Repeat("a", 100_000),
		"X-PHP-Originating-Script: " + strings.Repeat("1", 100_000),
		"X-PHP-Originating-Script: 65534:" + strings.Repeat("evil.php", 10_000),
		"X-PHP-Originating-Script: 65534:evil.php" + strings.Repeat("\n\t65534:evil.php", 1000),
		"X-PHP-Originating-Script: \x00 65534:evil.php",
		"X-PHP-Originating-Script\x00: 65534:evil.php",
		"X-PHP-Originating-Script: $(reboot)`reboot`'\"; DROP TABLE x",
		"X-PHP-Script: ../../../../ for ../\r\nX-PHP-Script: \u202e for \xff\xfe",
		strings.TrimSuffix(strings.Repeat("X-Many: 1\n", 5000), "\n"),
		strings.TrimSuffix(strings.Repeat("X-PHP-Script: a/b for c\n", 5000), "\n"),
		": no name",
		"no colon at all",
	}
	for i, header := range headers {
		sendmail(t, c.Bed, "Subject: x\n"+header+"\n\nHello.\n", fmt.Sprintf("r%d@ok.test", i))
	}
	sendmail(t, c.Bed, strings.Repeat("X-Many: 1\n", 5000)+script("evil.php", ""), "evil@ok.test")
	for i := range headers {
		c.delivered(fmt.Sprintf("r%d@ok.test", i))
	}
	c.held("evil@ok.test")
	if n := len(c.onHold()); n != 1 {
		t.Errorf("%d messages are held, want the script's", n)
	}
	c.fine(t)
}

// Asking costs no waiting: of ten messages at least one takes less time than a
// kernel waits with an acknowledgement, 40 ms.
func TestMilterDelaysNoMessage(t *testing.T) {
	c := newMilterTown(t, new(gate.Table))
	s := c.Session(bob)
	fastest := time.Hour
	for range 10 {
		begun := time.Now()
		must(t, s.Send(bob, "r@ok.test"))
		fastest = min(fastest, time.Since(begun))
	}
	if fastest > 35*time.Millisecond {
		t.Errorf("the fastest of ten messages took %s", fastest)
	}
}

// With the milter killed mail flows at once, and with one that hangs within
// the deadline.
func TestMilterGone(t *testing.T) {
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	program := filepath.Join(t.TempDir(), "milter")
	if err := build(program, "./testdata/milter"); err != nil {
		t.Fatal(err)
	}
	addr := freePort(t)
	serve := func() *os.Process {
		cmd := exec.Command(program, "inet:"+addr, alice)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may be gone
			_ = cmd.Wait()         // killed
		})
		wait(t, "the milter to listen", func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		return cmd.Process
	}
	b := bed.Start(t, bed.Options{Main: milterLines(addr)})
	flows := func(when string, limit time.Duration) {
		t.Helper()
		begun := time.Now()
		must(t, b.Send(bob, "pw-bob", bob, "r@ok.test"))
		submitted := time.Since(begun)
		begun = time.Now()
		sendmail(t, b, script("x.php", ""), when+"@ok.test")
		b.WaitLog("to=<" + when + "@ok.test>, .* status=sent")
		local := time.Since(begun)
		t.Logf("%s: a user's message took %s, a script's %s", when, submitted.Round(time.Millisecond), local.Round(time.Millisecond))
		if submitted > limit || local > limit {
			t.Errorf("%s: want both within %s", when, limit)
		}
	}
	stopped := func(when string) {
		t.Helper()
		var reply *smtp.SMTPError
		if err := b.Send(alice, "pw-alice", alice, "r@ok.test"); !errors.As(err, &reply) || reply.Code != 550 {
			t.Errorf("%s: got %v, want a refusal", when, err)
		}
	}

	// Whoever waits for an answer waits 2 s at most; the rest is Postfix's own
	// work on a busy machine.
	const deadline, slack = 2 * time.Second, 3 * time.Second
	p := serve()
	stopped("at first")
	open := b.Session(bob)
	must(t, open.Send(bob, "r@ok.test"))
	must(t, p.Signal(syscall.SIGSTOP))
	flows("stopped", deadline+slack)
	begun := time.Now()
	must(t, open.Send(bob, "r@ok.test"))
	if took := time.Since(begun); took > deadline+slack {
		t.Errorf("in a session that was open: %s", took)
	}
	must(t, p.Signal(syscall.SIGCONT))
	stopped("after it went on")
	open = b.Session(bob)
	must(t, open.Send(bob, "r@ok.test"))
	must(t, p.Kill())
	flows("killed", slack)
	must(t, open.Send(bob, "r@ok.test"))
	must(t, b.Send(alice, "pw-alice", alice, "r@ok.test"))
	serve()
	stopped("served again")
}
