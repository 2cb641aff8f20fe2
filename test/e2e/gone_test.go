//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// policyTimeout is how long the Postfix of these tests waits for an answer of
// the gate: the deadline that a Vedetta that is stopped costs.
const policyTimeout = 2 * time.Second

// Rules that hold at the first sign, so that a test can have a held account.
const holdRules = `rules:
  - name: hijacked-mailbox
    about: Holds at once.
    ladder:
      - do: hold
        when: score >= 6
        for: 12h
cases:
  - name: holds
    finding: {rule: hijacked-mailbox, subject: erin@shop.test, class: login, score: 6, families: 1}
    mode: enforce
    want: {do: hold, enforce: true}
`

// With Vedetta gone, the blocks stay in Postfix's own table, and everybody
// else sends.
func TestVedettaGone(t *testing.T) {
	rules := t.TempDir()
	if err := os.WriteFile(filepath.Join(rules, "hold.yml"), []byte(holdRules), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newTown(t, setup{Rules: "dir: " + rules + "\n"})
	c.must("block", alice)
	s := c.Session(erin)
	for n := 0; c.action(erin) != "hold"; n++ {
		if n == 60 {
			t.Fatalf("not held after %d spam messages:\n%s", n, c.must("why", erin))
		}
		if err := c.spam(s, erin, n); err != nil {
			t.Fatal(err)
		}
	}
	c.asBefore(t, "before")

	c.kill()
	c.others(t, "killed")
	c.start()
	c.asBefore(t, "after the restart")

	c.signal(syscall.SIGSTOP)
	c.others(t, "stopped")
	c.signal(syscall.SIGCONT)
	c.asBefore(t, "after it went on")
}

// asBefore checks what holds while Vedetta runs: the gate itself blocks.
func (c *town) asBefore(t *testing.T, when string) {
	t.Helper()
	wait(t, "the gate to answer", func() bool { return c.health().OK })
	refused(t, when+": the blocked account", c.Send(alice, "pw-alice", alice, contact(alice, 1)))
	c.heldNow(t, when)
	begun := time.Now()
	if err := c.Send(bob, "pw-bob", bob, contact(bob, 1)); err != nil {
		t.Errorf("%s: a neighbour: %v", when, err)
	}
	t.Logf("%s: a neighbour's message took %s", when, time.Since(begun).Round(time.Millisecond))
}

// heldNow checks that a held account's mail is taken and kept.
func (c *town) heldNow(t *testing.T, when string) {
	t.Helper()
	to := contact(erin, 1)
	before := c.onHold(t, erin, to)
	if err := c.Send(erin, "pw-erin", erin, to); err != nil {
		t.Errorf("%s: the held account: %v", when, err)
	}
	wait(t, when+": the held account's mail to be held", func() bool { return c.onHold(t, erin, to) == before+1 })
}

// onHold counts the messages from one address to another that are on hold.
// Other mail of the sender may be put on hold at the same time: what was in
// the queue when the account was stopped.
func (c *town) onHold(t *testing.T, from, to string) (n int) {
	t.Helper()
	queue, err := c.Postqueue()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queue {
		if q.Queue != "hold" || q.Sender != from {
			continue
		}
		for _, r := range q.Recipients {
			if r.Address == to {
				n++
			}
		}
	}
	return n
}

// others checks what holds without Vedetta: the table blocks and holds, and
// nobody else's message waits longer than the deadline.
func (c *town) others(t *testing.T, how string) {
	t.Helper()
	if err := c.Send(alice, "pw-alice", alice, contact(alice, 1)); err == nil {
		t.Errorf("%s: the blocked account may send", how)
	} else {
		refused(t, how+": the blocked account", err)
	}
	c.heldNow(t, how)
	for _, login := range []string{bob, carol, "dave@shop.test"} {
		rcpts := []string{contact(login, 1)}
		if login == carol {
			rcpts = append(rcpts, contact(login, 2), contact(login, 3))
		}
		slowest, whole, err := c.timed(login, rcpts)
		if err != nil {
			t.Errorf("%s: %s: %v", how, login, err)
		}
		t.Logf("Vedetta %s: a message to %d recipients took %s, its slowest command %s", how, len(rcpts), whole.Round(time.Millisecond), slowest.Round(time.Millisecond))
		if whole > policyTimeout+time.Second {
			t.Errorf("%s: %s needed %s for a message, want at most the deadline of %s", how, login, whole, policyTimeout)
		}
	}
}

// timed sends one message and measures each of its commands.
func (c *town) timed(login string, rcpts []string) (slowest, whole time.Duration, err error) {
	p := c.probe(login)
	begun := time.Now()
	step := func(f func() error) {
		if err == nil {
			at := time.Now()
			err = f()
			slowest = max(slowest, time.Since(at))
		}
	}
	step(func() error { return p.client.Mail(login, nil) })
	for _, r := range rcpts {
		step(func() error { return p.client.Rcpt(r, nil) })
	}
	step(func() error {
		w, err := p.client.Data()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "From: <%s>\r\nSubject: Ordinary\r\n\r\nHello.\r\n", login)
		return errors.Join(err, w.Close())
	})
	return slowest, time.Since(begun), err
}
