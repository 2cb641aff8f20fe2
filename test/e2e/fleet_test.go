//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// A fleetTown is a real Postfix with an agent beside it, and a hub elsewhere.
type fleetTown struct {
	*town            // its service is the hub
	agent   *service // beside Postfix
	hubAddr string   // where agents report
}

// newFleetTown starts all three. The hub knows the accounts' past.
func newFleetTown(t *testing.T) *fleetTown {
	t.Helper()
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	c := &town{T: t, hook: newHook(t), post: newPostbox(t), table: filepath.Join(openDir(t), "sasl_access")}
	gate, hub := freePort(t), freePort(t)
	c.Bed = bed.Start(t, bed.Options{Policy: gate, PolicyTimeout: policyTimeout, SASLAccess: c.table, Main: probed})
	c.log = stampLog(t, c.MailLog)
	var p past
	now := time.Now()
	p.calm(now, pastDays, alice)
	p.calm(now, pastDays, erin)
	p.busy(now, pastDays, bob)
	c.service = newService(t, setup{
		Agents: hub, Notify: c.hook.section() + fmt.Sprintf("mail: {server: %q, tls: none, from: vedetta@shop.test, to: [duty@office.test]}\n", c.post.addr),
	})
	c.must("replay", "--learn", p.write(t))
	c.start()
	f := &fleetTown{c, newService(t, setup{
		Logs: []string{c.log.path}, Gate: gate, Gates: manyProbes, Hub: hub,
		Postfix: fmt.Sprintf("sasl_access: %s\nconfig_dir: %s\n", c.table, c.Config),
	}), hub}
	f.agent.role = "agent"
	f.enrol(f.agent, "mx1")
	f.agent.start()
	f.connected(1)
	return f
}

// enrol makes an agent one of the hub's.
func (f *fleetTown) enrol(agent *service, name string) {
	f.Helper()
	token := strings.TrimSpace(f.must("agents", "add", name, "--domain", "shop.test", "--domain", "blog.test"))
	agent.must("enrol", token)
}

// connected waits until n agents are told of what is in force.
func (f *fleetTown) connected(n int) {
	f.Helper()
	wait(f, "the agents at the hub", func() bool {
		rows, err := f.Agents(f.Context())
		there := 0
		for _, r := range rows {
			if r.Connected {
				there++
			}
		}
		return err == nil && there == n
	})
}

// TestFleetOfPostfixAndExim has an account send its spam through both by turns:
// it is judged as one, and stopped on both.
func TestFleetOfPostfixAndExim(t *testing.T) {
	f := newFleetTown(t)
	gate := freePort(t)
	exim := bed.StartExim(t, bed.EximOptions{Bed: f.Bed, Gate: gate})
	second := newService(t, setup{
		Logs: []string{exim.MainLog}, Hub: f.hubAddr, Gates: manyProbes + fmt.Sprintf("exim: [\"inet:%s\"]\n", gate),
	})
	second.role = "agent"
	f.enrol(second, "mx2")
	second.start()
	f.connected(2)
	sessions := []*bed.Session{f.Session(alice), exim.Session(alice)}
	through := []int{0, 0}
	for n := 0; f.action(alice) != "block"; n++ {
		if n == 40 {
			t.Fatalf("not blocked after %v messages: %s", through, f.must("why", alice))
		}
		if err := sessions[n%2].Send(alice, bought(n)...); err == nil {
			through[n%2]++
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Logf("blocked after %d messages through Postfix and %d through Exim", through[0], through[1])
	if through[0] == 0 || through[1] == 0 {
		t.Error("one of the two was not asked")
	}
	wait(t, "Postfix to refuse", func() bool {
		code, text := refusal(f.probe(alice).may(alice))
		return code == 554 && strings.Contains(text, blockedText)
	})
	wait(t, "Exim to refuse", func() bool {
		_, text := refusal(exim.Send(alice, "pw-alice", alice, contact(alice, 1)))
		return strings.Contains(text, blockedText)
	})
	if err := exim.Send(bob, "pw-bob", bob, contact(bob, 1)); err != nil {
		t.Errorf("a neighbour at Exim: %v", err)
	}
	f.must("release", alice)
	wait(t, "both to let her send again", func() bool {
		return f.probe(alice).may(alice) == nil && exim.Send(alice, "pw-alice", alice, contact(alice, 1)) == nil
	})
}

func TestFleetStopsAHijack(t *testing.T) {
	f := newFleetTown(t)
	stopBob := f.keepSending(bob)
	for n := range 3 {
		if err := f.Session(alice).Send(alice, contact(alice, n)); err != nil {
			t.Fatal(err)
		}
	}
	at, sent := f.spamUntilRefused(t, alice)
	late := at.Sub(f.blockOf(t, alice).Time)
	t.Logf("%d messages; refused %s after the log line that tipped the balance", sent, late.Round(time.Millisecond))
	if late < 0 || late > time.Second {
		t.Errorf("refused %s after the line that tipped the balance, want within 1 s", late)
	}
	wait(t, "the webhook", func() bool { return f.hook.told(alice, "blocked") })

	f.kill() // the hub
	refused(t, "without the hub", f.probe(alice).may(alice))
	f.agent.kill()
	refused(t, "without hub and agent", f.Send(alice, "pw-alice", alice, contact(alice, 1)))
	f.agent.start() // before its hub
	refused(t, "with an agent that has not reached its hub", f.probe(alice).may(alice))
	if n, errs := stopBob(); len(errs) > 0 || n == 0 {
		t.Errorf("of %d messages of a neighbour were refused: %v", n, errs)
	}
	f.start()
	f.connected(1)
	refused(t, "with both again", f.probe(alice).may(alice))

	if _, errs, code := f.agent.command("release", alice); code == 0 || !strings.Contains(errs, "hub") {
		t.Errorf("a release at the agent: exit %d, %s", code, errs)
	}
	f.must("release", alice, "--why", "it was her")
	wait(t, "the release to reach the agent", func() bool { return f.probe(alice).may(alice) == nil })
}

// TestFleetLosesNothing kills agent and hub in turns while mail flows, and cuts
// them apart; at the end the hub has counted each message once.
func TestFleetLosesNothing(t *testing.T) {
	f := newFleetTown(t)
	before := f.messages()
	s := f.Session(bob)
	sent := 0
	send := func(n int) {
		t.Helper()
		for range n {
			if err := s.Send(bob, contact(bob, sent%contacts)); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	for round := range 6 {
		send(5)
		switch round % 3 {
		case 0:
			f.kill()
			send(5)
			f.start()
		case 1:
			f.agent.kill()
			send(5)
			f.agent.start()
		case 2:
			f.kill()
			f.agent.kill()
			send(5)
			f.agent.start()
			send(5)
			f.start()
		}
		send(5)
	}
	wait(t, fmt.Sprintf("%d messages to be counted; %d are", sent, f.messages()-before), func() bool { return f.messages()-before >= sent })
	time.Sleep(time.Second)
	if n := f.messages() - before; n != sent {
		t.Errorf("%d messages were sent, %d counted", sent, n)
	}
	if got := f.action(bob); got != "" {
		t.Errorf("bob, who did nothing, is under %s", got)
	}
}

// TestRevokedAgent refuses an agent at once, and takes it back with a new token.
func TestRevokedAgent(t *testing.T) {
	f := newFleetTown(t)
	f.must("agents", "revoke", "mx1")
	wait(t, "the agent to know", func() bool { return strings.Contains(fmt.Sprint(f.agent.health().Parts), "403") })
	f.must("block", alice)
	time.Sleep(500 * time.Millisecond)
	if err := f.probe(alice).may(alice); err != nil {
		t.Errorf("a revoked agent was told of a block: %v", err)
	}
	if out := f.must("agents"); !strings.Contains(out, "revoked") {
		t.Errorf("agents says:\n%s", out)
	}
	f.agent.stop()
	f.enrol(f.agent, "mx1")
	f.agent.start()
	f.connected(1)
	wait(t, "the block to reach the agent", func() bool {
		code, _ := refusal(f.probe(alice).may(alice))
		return code == 554
	})
}
