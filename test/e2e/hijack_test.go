//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

const (
	alice = "alice@shop.test"
	bob   = "bob@shop.test"
	carol = "carol@blog.test"
	erin  = "erin@shop.test"
)

// The text of a refusal, by the default configuration.
const blockedText = "Sending from this account is blocked"

// Probes begin many messages and end none. Postfix would slow everybody down
// for it, as if its disk could not keep up, and hang up on the probe.
var probed = []string{"in_flow_delay = 0", "smtpd_junk_command_limit = 1000000", "smtpd_soft_error_limit = 1000000", "smtpd_hard_error_limit = 1000000"}

// Probes must not use up what a throttled account may send.
const manyProbes = "throttle_burst: 1000000\n"

// town is a real Postfix with Vedetta beside it.
type town struct {
	*testing.T
	*bed.Bed
	*service
	table string
	log   *stampedLog // what Vedetta reads
	hook  *hook
	post  *postbox
}

// newTown starts both. Vedetta knows the accounts' past.
func newTown(t *testing.T, o setup) *town {
	t.Helper()
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	c := &town{T: t, hook: newHook(t), post: newPostbox(t), table: filepath.Join(openDir(t), "sasl_access")}
	o.Gate, o.Gates = freePort(t), manyProbes
	c.Bed = bed.Start(t, bed.Options{Policy: o.Gate, PolicyTimeout: policyTimeout, SASLAccess: c.table, Main: probed})
	var p past
	now := time.Now()
	p.calm(now, pastDays, alice)
	p.calm(now, pastDays, erin)
	p.busy(now, pastDays, bob)
	p.busy(now, pastDays, carol)
	c.log = stampLog(t, c.MailLog)
	o.Logs = []string{c.log.path}
	o.Postfix = fmt.Sprintf("sasl_access: %s\nconfig_dir: %s\n", c.table, c.Config)
	o.Notify = c.hook.section() + fmt.Sprintf("mail: {server: %q, tls: none, from: vedetta@shop.test, to: [duty@office.test]}\n", c.post.addr)
	c.service = newService(t, o)
	c.must("replay", "--learn", p.write(t)) // followed beside the server's own log, a message that lies in two reads would be ended by today's lines
	c.start()
	wait(t, fmt.Sprintf("a past of %d messages to be read", p.n), func() bool { return c.messages() == p.n })
	return c
}

// openDir is a directory that Postfix's users may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-table")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// messages counts what Vedetta has seen of all accounts.
func (c *town) messages() int {
	rows, err := c.Accounts(c.Context(), 1000)
	if err != nil {
		return -1
	}
	n := 0
	for _, r := range rows {
		n += r.Messages
	}
	return n
}

// refusal is the code and text of an SMTP error; 0 if err is another one or
// nil.
func refusal(err error) (code int, text string) {
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) {
		return 0, ""
	}
	return reply.Code, reply.Message
}

// refused checks that err is Vedetta's refusal.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	if code, text := refusal(err); code != 554 || !strings.Contains(text, blockedText) {
		t.Errorf("%s: got %v, want 554 with %q", what, err, blockedText)
	}
}

// A probe is a logged-in session that asks whether its account may send, and
// sends nothing.
type probe struct{ client *smtp.Client }

func (c *town) probe(login string) *probe {
	c.Helper()
	conn, err := net.DialTimeout("tcp", c.Submission, patience)
	if err != nil {
		c.Fatal(err)
	}
	client := smtp.NewClient(conn)
	client.CommandTimeout = patience
	c.Cleanup(func() { client.Close() })
	name, _, _ := strings.Cut(login, "@")
	if err := client.Auth(sasl.NewPlainClient("", login, "pw-"+name)); err != nil {
		c.Fatal(err)
	}
	return &probe{client}
}

// may returns what the server says to a recipient.
func (p *probe) may(login string) error {
	if err := p.client.Mail(login, nil); err != nil {
		return err
	}
	err := p.client.Rcpt("probe@ok.test", nil)
	return errors.Join(err, p.client.Reset())
}

// keepSending has an account send an ordinary message a second until stop is
// called, which returns what was refused it, and how often it sent.
func (c *town) keepSending(login string) (stop func() (sent int, errs []error)) {
	s := c.Session(login)
	ctx, cancel := context.WithCancel(c.Context())
	var done sync.WaitGroup
	var n int
	var errs []error
	done.Go(func() {
		for tick := time.NewTicker(time.Second); ; {
			if err := s.Send(login, contact(login, n%contacts)); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", login, err))
			}
			n++
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	})
	return func() (int, []error) {
		cancel()
		done.Wait()
		return n, errs
	}
}

// stranger is the n-th recipient that a spammer has bought. Some do not exist,
// and the servers of some know spam when they see it.
func stranger(n int) string {
	domain := bed.OK
	switch {
	case n%3 == 2:
		domain = bed.Hard
	case n%4 == 1:
		domain = bed.Spam
	}
	return fmt.Sprintf("bought-%d@%s", n, domain)
}

// spam sends the n-th message of a spammer.
func (c *town) spam(s *bed.Session, login string, n int) error {
	return s.Send(login, bought(n)...)
}

// bought are the recipients of a spammer's n-th message.
func bought(n int) []string {
	return []string{stranger(4 * n), stranger(4*n + 1), stranger(4*n + 2), stranger(4*n + 3)}
}

// nextSecond waits until a new second begins.
func nextSecond() {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second + 20*time.Millisecond)))
}

func TestHijackIsRefused(t *testing.T) {
	c := newTown(t, setup{})
	stopBob, stopCarol := c.keepSending(bob), c.keepSending(carol)

	for n := range 3 { // her ordinary self
		if err := c.Session(alice).Send(alice, contact(alice, n)); err != nil {
			t.Fatal(err)
		}
	}
	turned := time.Now()
	at, sent := c.spamUntilRefused(t, alice)
	late := at.Sub(c.blockOf(t, alice).Time)
	t.Logf("%d messages after she turned, %s; refused %s after the log line that tipped the balance",
		sent, at.Sub(turned).Round(time.Millisecond), late.Round(time.Millisecond))
	if late < 0 || late > time.Second {
		t.Errorf("refused %s after the line that tipped the balance, want within 1 s", late)
	}
	refused(t, "a new session", c.Send(alice, "pw-alice", alice, contact(alice, 1)))

	wait(t, "the webhook", func() bool { return c.hook.told(alice, "blocked") })
	wait(t, "the mail", func() bool { return c.post.got(alice, "blocked", "vedetta release "+alice) })
	why := c.must("why", alice)
	for _, want := range []string{alice, "block since", "never written to before", "Journal"} {
		if !strings.Contains(why, want) {
			t.Errorf("why does not say %q:\n%s", want, why)
		}
	}

	c.releaseTeaches(t, sent)
	c.byHand(t)
	for _, stop := range []func() (int, []error){stopBob, stopCarol} {
		n, errs := stop()
		if len(errs) > 0 || n == 0 {
			t.Errorf("of %d messages of a neighbour were refused: %v", n, errs)
		}
	}
}

// spamUntilRefused sends, a message a second, until a probe beside is told
// that the account is blocked. It returns when that was.
func (c *town) spamUntilRefused(t *testing.T, login string) (at time.Time, sent int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stopped := make(chan time.Time, 1)
	p := c.probe(login)
	go func() {
		defer close(stopped)
		for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
			if code, text := refusal(p.may(login)); code == 554 && strings.Contains(text, blockedText) {
				stopped <- time.Now()
				return
			}
		}
	}()
	s := c.Session(login)
	for n := 0; ; n++ {
		nextSecond()
		if err := c.spam(s, login, n); err == nil {
			sent++
		}
		select {
		case at, ok := <-stopped:
			if !ok {
				t.Fatalf("not blocked after %d spam messages: %v", sent, c.must("why", login))
			}
			return at, sent
		default:
		}
	}
}

// blockOf returns the decision that blocked an account.
func (c *town) blockOf(t *testing.T, login string) rules.Decision {
	t.Helper()
	rows, err := c.open().Decisions(t.Context(), store.DecisionFilter{Subject: login})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Action == rules.Block && r.Enforce {
			return r.Decision
		}
	}
	t.Fatalf("no block among %+v", rows)
	return rules.Decision{}
}

// releaseTeaches releases alice, who then sends again what was taken from her
// before she was blocked.
func (c *town) releaseTeaches(t *testing.T, sent int) {
	t.Helper()
	out := c.must("release", alice, "--why", "the newsletter of the shop")
	if !strings.Contains(out, "may send again") {
		t.Errorf("release says %q", out)
	}
	if err := c.probe(alice).may(alice); err != nil {
		t.Errorf("after the release: %v", err)
	}
	before := c.decisions(t, alice)
	s := c.Session(alice)
	for n := range sent {
		nextSecond()
		to := slices.DeleteFunc(bought(n), func(r string) bool { return strings.HasSuffix(r, bed.Spam) }) // who is called a spammer again is stopped again
		if err := s.Send(alice, to...); err != nil {
			t.Errorf("message %d after the release: %v", n, err)
		}
	}
	c.settled(t)
	if after := c.decisions(t, alice); after != before {
		t.Errorf("%d decisions about her, %d before the release: the old evidence counts again\n%s", after, before, c.must("why", alice))
	}
	wait(t, "word of the release", func() bool { return c.hook.told(alice, "released") })
}

// decisions counts what was decided about an account, more than to observe.
func (c *town) decisions(t *testing.T, login string) (n int) {
	t.Helper()
	rows, err := c.open().Decisions(t.Context(), store.DecisionFilter{Subject: login})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Action > rules.Observe {
			n++
		}
	}
	return n
}

// settled waits until Postfix has no mail of alice left to deliver, and
// Vedetta has read all that it logged until then.
func (c *town) settled(t *testing.T) {
	t.Helper()
	wait(t, "the queue to be empty of her mail", func() bool {
		// What was on hold waits for the next run of the queue.
		if out, err := c.Command("postqueue", "-f").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		queue, err := c.Postqueue()
		return err == nil && !slices.ContainsFunc(queue, func(q bed.Queued) bool { return q.Sender == alice })
	})
	c.read(t, c.log.path, c.log.wait(t))
}

// byHand blocks somebody who did nothing, and undoes that.
func (c *town) byHand(t *testing.T) {
	t.Helper()
	const dave = "dave@shop.test"
	c.must("block", dave, "--why", "did not pay", "--for", "1h")
	refused(t, "blocked by hand", c.probe(dave).may(dave))
	if out := c.must("accounts"); !strings.Contains(out, dave) {
		t.Errorf("accounts does not list %s:\n%s", dave, out)
	}
	c.must("unblock", dave)
	if err := c.probe(dave).may(dave); err != nil {
		t.Errorf("unblocked: %v", err)
	}
}
