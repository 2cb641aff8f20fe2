package app

import (
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// The detector is told of what is stopped, by the rules and by people, and of nothing
// else: what was stopped is not learnt by itself.
func TestDetectorIsToldOfStops(t *testing.T) {
	const alice = "alice@shop.test"
	p, _ := judging(t)
	now := time.Now()
	ev := submitted(alice, now)
	p.judge.detector.Observe(&ev)
	told := func(do func()) (told bool) {
		p.judge.detector.Changed(func(mailq.Account, []byte) {})
		do()
		p.judge.detector.Changed(func(a mailq.Account, _ []byte) { told = told || a == alice })
		return told
	}
	for _, tt := range []struct {
		action  rules.Action
		enforce bool
		want    bool
	}{{rules.Observe, false, false}, {rules.Throttle, true, false}, {rules.Block, false, false}, {rules.Hold, true, true}, {rules.Block, true, true}} {
		s := step{decision: rules.Decision{Subject: alice, Action: tt.action, Enforce: tt.enforce}}
		if got := told(func() { p.takes(s) }); got != tt.want {
			t.Errorf("%v, enforced %v: told %v", tt.action, tt.enforce, got)
		}
	}
	for _, do := range []string{doHold, doBlock, doReset} {
		o := &order{account: alice, at: now}
		o.Do = do
		if !told(func() { p.prepare(o) }) {
			t.Errorf("%s by a person is not told", do)
		}
	}
}
