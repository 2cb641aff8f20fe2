//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/web"
)

// TestFleetNewsFirst cuts agent and hub apart while hours of mail are told, and has
// a mailbox hijacked when they are together again over a slow cable, while what
// waited drains: it is blocked at once. Then both are killed and cut apart again; in
// the end each message is counted once.
func TestFleetNewsFirst(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, filepath.Join(t.TempDir(), "hub"), filepath.Join(t.TempDir(), "agent"))
	r.cable.set(func() { r.cable.cut = true })
	for range 100 {
		r.longAgo(400)
		time.Sleep(200 * time.Millisecond)
	}
	r.cable.set(func() { r.cable.cut, r.cable.delay = false, 200*time.Millisecond })
	reached := r.written
	for before := r.counted(); r.counted() == before; {
		time.Sleep(time.Millisecond)
	}
	begun := time.Now()
	r.send(0, 6)
	wait(t, "the victim to be blocked at the agent", func() bool { return r.agent.blocked(t, victimName(r.victims)) })
	blocked, waiting := time.Since(begun), r.waiting()
	var delays []time.Duration
	for n := range 5 {
		delays = append(delays, r.live(fmt.Sprintf("live%d@shop.test", n)))
	}
	slices.Sort(delays)
	left := r.waiting()
	t.Logf("%d messages waited; the victim is blocked %s after the first spam, when %d batches wait; what is new is known after %s (median), %s (longest), until %d wait",
		reached, blocked.Round(time.Millisecond), waiting, delays[len(delays)/2].Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond), left)
	if blocked > 2*time.Second || waiting == 0 {
		t.Errorf("blocked after %s, when %d batches waited", blocked, waiting)
	}
	r.disturb()
	for begun = time.Now(); r.counted() < r.written && time.Since(begun) < 2*time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("all is known after %s more", time.Since(begun).Round(100*time.Millisecond))
	time.Sleep(time.Second)
	if n := r.counted(); n != r.written {
		t.Errorf("%d messages are counted, %d were sent; %d batches wait", n, r.written, r.waiting())
	}
	r.verdict()
}

// disturb kills both, and cuts them apart a second time, with mail in between.
func (r *fleetRig) disturb() {
	r.Helper()
	for _, s := range []*service{r.agent, r.hub} {
		s.kill()
		r.longAgo(20)
		s.start()
		r.pause(time.Second)
	}
	r.cable.set(func() { r.cable.cut = true })
	for range 20 {
		r.longAgo(20)
		time.Sleep(200 * time.Millisecond)
	}
	r.cable.set(func() { r.cable.cut = false })
}

// longAgo has many accounts send, some hours ago.
func (r *fleetRig) longAgo(messages int) {
	r.Helper()
	r.past.client = "office[198.51.100.20]"
	for range messages {
		who := fmt.Sprintf("bulk%d@shop.test", r.past.n%2000)
		r.past.message(time.Now().Add(-3*time.Hour+time.Duration(r.past.n)*100*time.Millisecond), who, contact(who, r.past.n%contacts))
	}
	r.written += messages
	r.send(0, 0)
}

// live has a new account send, and returns how long it took until the hub knew.
func (r *fleetRig) live(who string) time.Duration {
	r.Helper()
	begun := time.Now()
	r.past.message(begun, who, contact(who, 1))
	r.written++
	r.send(0, 0)
	for time.Since(begun) < time.Minute {
		rows, err := r.hub.Accounts(r.Context(), 10_000)
		if err == nil && slices.ContainsFunc(rows, func(a web.Account) bool { return a.Account == who }) {
			return time.Since(begun)
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.Fatalf("the hub does not hear of %s", who)
	return 0
}

// waiting is how many batches the agent has not sent, as it said last.
func (r *fleetRig) waiting() int {
	r.Helper()
	rows, err := r.hub.Agents(r.Context())
	if err != nil || len(rows) != 1 {
		r.Fatalf("%+v, %v", rows, err)
	}
	return rows[0].Waiting
}
