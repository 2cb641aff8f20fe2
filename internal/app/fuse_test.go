package app

import (
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

func TestFuse(t *testing.T) {
	now := time.Now()
	away := true
	f := fuse{most: 500, away: func(time.Time) bool { return away }}
	send := func(account mailq.Account, at time.Time, rcpts int) bool {
		ev := submitted(account, at)
		ev.Rcpts = rcpts
		found, ok := f.blows(&ev, now)
		if d := blown(rules.Finding{ID: "f", Subject: "x", Time: now, Evidence: []rules.Evidence{{}}}); d.Action != rules.Throttle || d.Until.Sub(now) != fuseLasts {
			t.Errorf("decided %+v", d)
		}
		return ok && found.Subject == string(account)
	}
	for n := range 9 {
		if send(victim, now, 50) {
			t.Errorf("blown after %d recipients", 50*(n+1))
		}
	}
	if send("bob@shop.test", now, 50) {
		t.Error("blown by somebody else's mail")
	}
	if !send(victim, now, 50) {
		t.Error("not blown after 500")
	}
	if send(victim, now, 50) {
		t.Error("blown twice")
	}
	now = now.Add(fuseTime + time.Second)
	if send(victim, now, 499) {
		t.Error("what was sent ten minutes ago counts")
	}
	if send("carol@shop.test", now.Add(-time.Hour), 1000) {
		t.Error("blown by old news")
	}
	if away = false; send("dave@shop.test", now, 1000) {
		t.Error("blown beside the hub")
	}
	if f = (fuse{away: func(time.Time) bool { return true }}); send("erin@shop.test", now, 1000) {
		t.Error("blown where there is none")
	}
}

// The agent writes down what its fuse does, and does it, without the hub.
func TestFuseSlowsAtTheAgent(t *testing.T) {
	p, acts := judging(t)
	p.fleet, p.forward = nil, newForwarder()
	p.forward.fuse = fuse{most: 50, away: func(time.Time) bool { return true }}
	ev := submitted(victim, time.Now())
	ev.Rcpts = 60
	p.saw(&ev)
	shared := ev
	shared.Account = "user:www-data"
	p.saw(&shared)
	p.judge.policy.Exempt = []string{"@blog.test"}
	exempt := ev
	exempt.Account = "carol@blog.test"
	p.saw(&exempt)
	w := work{steps: p.steps, batch: p.snapshot()}
	if left := p.write(t.Context(), w, w.steps); !empty(left) {
		t.Fatalf("not written: %+v", left)
	}
	if len(acts.did) != 1 || acts.did[0] != "throttle "+victim {
		t.Errorf("did %q", acts.did)
	}
	if state, err := p.store.SpoolState(t.Context()); err != nil || state.Last != 1 || p.forward.committed.Load() != 1 {
		t.Errorf("spool %+v, %v", state, err)
	}
}
