package app

import (
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// byFuse is the rule of what an agent decides by itself.
const byFuse = "fuse"

// A fuse is what an agent has where its hub is not reached: an account that
// addresses far more recipients than any allowance would let it is slowed. It
// knows nobody's past, so it does no more than that, and what the hub says when
// it is back replaces it.
type fuse struct {
	most int                      // recipients in fuseTime; 0: none is slowed
	away func(now time.Time) bool // the hub is not reached, and has not been for a while

	begun time.Time // of the stretch at hand
	sent  map[mailq.Account]int
}

const (
	fuseTime    = 10 * time.Minute
	fuseLasts   = time.Hour
	fuseAfter   = 30 * time.Second // without the hub
	maxFuseNews = 15 * time.Minute // older events are old news
	maxFused    = 100_000          // accounts that are counted
)

// blows counts an event and reports whether its account is to be slowed.
func (f *fuse) blows(ev *mailq.Event, now time.Time) (rules.Finding, bool) {
	if f.most == 0 || !ev.Counts || ev.Account == "" || now.Sub(ev.Time).Abs() > maxFuseNews || !f.away(now) {
		return rules.Finding{}, false
	}
	if f.sent == nil || now.Sub(f.begun) > fuseTime {
		f.begun, f.sent = now, map[mailq.Account]int{}
	}
	before, known := f.sent[ev.Account]
	if !known && len(f.sent) >= maxFused {
		return rules.Finding{}, false
	}
	sent := before + max(ev.Rcpts, len(ev.New), 1)
	f.sent[ev.Account] = sent
	if before >= f.most || sent < f.most {
		return rules.Finding{}, false
	}
	return rules.Finding{
		ID: rules.FindingID(byFuse, string(ev.Account), f.begun), Rule: byFuse, Subject: string(ev.Account), Time: now, Since: f.begun, Class: ev.Account.Kind(), Rcpts: sent,
		Evidence: []rules.Evidence{{Kind: rules.Rate, Text: fmt.Sprintf("%d recipients within %s while the hub is not reached", sent, fuseTime)}},
	}, true
}

// blown is what is decided about an account that blew the fuse.
func blown(f rules.Finding) rules.Decision {
	return rules.Decision{
		ID: rules.DecisionID(f.ID, rules.Throttle), Finding: f.ID, Rule: byFuse, Subject: f.Subject, Action: rules.Throttle, Time: f.Time,
		Until: f.Time.Add(fuseLasts), Why: f.Evidence[0].Text, Enforce: true,
	}
}
