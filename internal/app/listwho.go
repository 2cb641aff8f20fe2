package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// An outflow counts what other servers took from each account within the last
// hour, by the log's time. Observe owns it; the zero outflow is ready.
type outflow struct {
	slots [12]outflowSlot // of five minutes each, by number modulo their count
	began time.Time       // of the first mail counted: what left before the start is not known
}

// An outflowSlot is five minutes. Of a flood of accounts those that sent least
// are counted together.
type outflowSlot struct {
	number int64 // five minutes since 1970
	rcpts  map[mailq.Account]int
	others int
}

const (
	slotLength   = 5 * time.Minute
	maxInSlot    = 4096            // accounts
	maxAhead     = 5 * time.Minute // that a mail server's clock may be
	culpritsMost = 3               // that are named
)

// saw counts a recipient's server that took a message.
func (o *outflow) saw(ev *mailq.Event, now time.Time) {
	if ev.Kind != mailq.Delivered || ev.Into != "" || ev.Account == "" || ev.Time.After(now.Add(maxAhead)) {
		return
	}
	number := ev.Time.Unix() / int64(slotLength/time.Second)
	s := &o.slots[number%int64(len(o.slots))]
	switch {
	case number < s.number:
		return // more than an hour ago
	case number > s.number:
		*s = outflowSlot{number: number, rcpts: map[mailq.Account]int{}}
	}
	if o.began.IsZero() || ev.Time.Before(o.began) {
		o.began = ev.Time
	}
	if s.rcpts[ev.Account]++; len(s.rcpts) > maxInSlot {
		s.gather()
	}
}

// gather counts the half of the accounts that sent least together.
func (s *outflowSlot) gather() {
	for _, account := range mostFirst(s.rcpts)[maxInSlot/2:] {
		s.others += s.rcpts[account]
		delete(s.rcpts, account)
	}
}

// mostFirst is the accounts with the highest counts first.
func mostFirst(counts map[mailq.Account]int) []mailq.Account {
	return slices.SortedFunc(maps.Keys(counts), func(a, b mailq.Account) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

// lastHour is how many recipients each account reached in the hour before now,
// and how many those not counted by themselves did.
func (o *outflow) lastHour(now time.Time) (rcpts map[mailq.Account]int, others int) {
	rcpts = map[mailq.Account]int{}
	newest := now.Unix() / int64(slotLength/time.Second)
	for i := range o.slots {
		s := &o.slots[i]
		if s.number <= newest-int64(len(o.slots)) {
			continue
		}
		others += s.others
		for account, n := range s.rcpts {
			rcpts[account] += n
		}
	}
	return rcpts, others
}

// evidence says who sent most in the last hour, and what was done to them.
func (o *outflow) evidence(now time.Time, done map[string]rules.Decision) (said []rules.Evidence) {
	rcpts, total := o.lastHour(now)
	for _, n := range rcpts {
		total += n
	}
	if total == 0 {
		return nil
	}
	accounts := mostFirst(rcpts)
	var who []string
	for _, account := range accounts[:min(culpritsMost, len(accounts))] {
		who = append(who, fmt.Sprintf("%s (%d%s)", account, rcpts[account], doneTo(account, done)))
	}
	since := "in the last hour"
	if now.Sub(o.began) < time.Hour {
		since = "since " + o.began.UTC().Format(toTheMinute)
	}
	return []rules.Evidence{{Kind: rules.Rate, Text: fmt.Sprintf("%s mail for %d recipient%s left here for other servers, most of it from %s", since, total, plural(total), strings.Join(who, ", "))}}
}

// stopped is what is done to an account, in a word or two.
var stopped = [...]string{
	rules.Nothing: "nothing", rules.Observe: "watched", rules.Throttle: "slowed down", rules.Hold: "mail held", rules.Block: "blocked", rules.Reset: "blocked for a new password",
}

// doneTo is what is decided about an account.
func doneTo(account mailq.Account, done map[string]rules.Decision) string {
	d, ok := done[string(account)]
	if !ok {
		return ""
	}
	return fmt.Sprintf("; %s since %s", stopped[d.Action], d.Time.UTC().Format(toTheMinute))
}

// culprits says who may be behind a listing of our addresses, which all accounts
// share: who sent most, and whom points are held against. It runs in observe.
func (p *pipeline) culprits(now time.Time, done map[string]rules.Decision) []rules.Evidence {
	said := p.outflow.evidence(now, done)
	for _, e := range p.judge.risk.Top(now, culpritsMost) {
		did := doneTo(e.Account, done)
		if did == "" {
			did = "; nothing is done to it"
		}
		said = append(said, rules.Evidence{Kind: e.Sign.Kind, Text: fmt.Sprintf("%s endangers the addresses (%.0f of 100 points): %s%s", e.Account, e.Points, e.Sign.Text, did)})
	}
	return said
}

// culprits says who may be behind a listing, or nothing while stopping.
func (l *listWatch) culprits(ctx context.Context, now time.Time) []rules.Evidence {
	active, err := l.p.store.Active(ctx, now)
	if err != nil {
		l.p.log.Error("block lists: what is in force is not known", "err", err)
	}
	done, said := strongest(active), []rules.Evidence(nil)
	if l.p.inObserve(ctx, func() { said = l.p.culprits(now, done) }) != nil {
		return nil
	}
	return said
}
