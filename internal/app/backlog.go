package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A mailQueue is the mail server's queue.
type mailQueue interface {
	enforce.Queue
	// Look returns the messages with the ids, as far as they are in the queue.
	Look(ctx context.Context, ids []string) ([]enforce.Queued, error)
}

const (
	releaseEvery = 5 * time.Second
	releaseOnce  = 1000 // messages of one account that are looked at in one round
	patientLooks = 3    // rounds that fail before people are told

	// spread is how far the time at which a message arrived and the time of
	// the decision about its account may lie apart and still belong together.
	spread = time.Minute
)

// A backlog is the mail of throttled accounts that waits in the hold queue. It
// is let out at each account's allowance, the oldest first, also when the
// throttle has run out meanwhile: its end does not free a spammer's mail at
// once. What an account that is held or blocked by now has in the queue stays
// there until a person decides.
type backlog struct {
	now   *gate.Table // of the throttles in force
	late  gate.Table  // of throttles that ran out and left mail behind
	most  time.Duration
	told  map[string]time.Time // the oldest message of a backlog that people were told of
	every time.Duration
}

func newBacklog(c config.Gate, table *gate.Table) *backlog {
	return &backlog{
		now: table, late: gate.Table{Allowance: allowance(c)}, most: time.Duration(c.BacklogMax),
		told: map[string]time.Time{}, every: releaseEvery,
	}
}

// allowance is what every throttled account may send.
func allowance(c config.Gate) func(string) gate.Allowance {
	return func(string) gate.Allowance {
		return gate.Allowance{Every: time.Duration(c.ThrottleEvery), Burst: c.ThrottleBurst}
	}
}

// throttled is what mail gets past the allowance.
func throttled(c config.Gate) gate.Answer {
	if c.Throttle == "defer" {
		return gate.Defer
	}
	return gate.Hold
}

// A heldMessage is a message on hold, as the log tells it.
type heldMessage struct {
	id       string
	arrival  time.Time
	accounts []string // whose decisions count for it
}

// letOut releases held mail of throttled accounts until ctx ends.
func (s *service) letOut(ctx context.Context) error {
	if s.queue == nil || s.config.Gate.Throttle != "hold" {
		return nil
	}
	held := eye{kind: "enforcement", subject: "held mail of throttled accounts on " + s.config.Hostname, part: "throttle"}
	failures := 0
	for wait(ctx, s.backlog.every) == nil {
		err := s.letOutOnce(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
		case err == nil:
			failures = 0
			s.sees(&held)
		default:
			if failures++; failures >= patientLooks { // a mail server that restarts fails once
				s.blind(ctx, &held, err)
			}
		}
	}
	return nil
}

func (s *service) letOutOnce(ctx context.Context, now time.Time) error {
	held, err := s.heldMail(ctx)
	if err != nil {
		return nil // stopping
	}
	messages, oldest := 0, now
	for _, account := range slices.Sorted(maps.Keys(held)) {
		waiting, err := s.waiting(ctx, account, held[account], now)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			delete(s.backlog.told, account)
			s.backlog.now.Wait(account, false)
			continue
		}
		left, err := s.release(ctx, account, waiting, now)
		if err != nil {
			return fmt.Errorf("%s: %w", account, err)
		}
		s.backlog.now.Wait(account, len(left) > 0)
		messages += len(left)
		if len(left) > 0 {
			oldest = earlier(oldest, left[0].arrival)
			s.tellBacklog(ctx, account, left, now)
		}
	}
	s.metrics.backlog.Set(float64(messages))
	s.metrics.backlogAge.Set(now.Sub(oldest).Seconds())
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// heldMail lists the messages on hold by account, each account's oldest first. A
// script's are those of its system user too. A trusted client answers for its mail
// as soon as that is held, wherever it goes.
func (s *service) heldMail(ctx context.Context) (map[string][]heldMessage, error) {
	var all []mailq.QueuedMessage
	err := s.inObserve(ctx, func() {
		for m := range s.judge.parser.Queued {
			if m.Account = s.senderOf(m); m.Held && m.Account != "" {
				all = append(all, m)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	held, names := map[string][]heldMessage{}, map[mailq.Account][]string{}
	for _, m := range all {
		h := heldMessage{id: m.QueueID, arrival: m.Arrival}
		for _, account := range []mailq.Account{m.Account, m.User} {
			if account == "" {
				continue
			}
			if names[account] == nil {
				for _, same := range enforce.SameUser(account) {
					names[account] = append(names[account], string(same))
				}
			}
			h.accounts = append(h.accounts, names[account]...)
		}
		for _, account := range h.accounts {
			held[account] = append(held[account], h)
		}
	}
	for _, messages := range held {
		slices.SortFunc(messages, func(a, b heldMessage) int { return cmp.Or(a.arrival.Compare(b.arrival), cmp.Compare(a.id, b.id)) })
	}
	return held, nil
}

// waiting returns those messages that a throttle of the account holds, none of
// whose account, or system user, is held or blocked by now.
func (s *service) waiting(ctx context.Context, account string, held []heldMessage, now time.Time) ([]heldMessage, error) {
	held = slices.DeleteFunc(held, func(m heldMessage) bool {
		return slices.ContainsFunc(m.accounts, func(account string) bool {
			v := s.backlog.now.Lookup(account, now)
			return v != nil && v.Decision.Action > rules.Throttle
		})
	})
	if len(held) == 0 {
		return nil, nil
	}
	verdict := s.backlog.now.Lookup(account, now)
	rows, err := s.store.Decisions(ctx, store.DecisionFilter{Subject: account, Since: held[0].arrival.Add(-keepMessages), Limit: 1000})
	if err != nil {
		return nil, err
	}
	throttles := slices.DeleteFunc(rows, func(r store.DecisionRow) bool { return r.Action != rules.Throttle || !r.Enforce })
	if verdict == nil {
		s.backlog.keepPaying(throttles)
	}
	return slices.DeleteFunc(held, func(m heldMessage) bool {
		return !slices.ContainsFunc(throttles, func(r store.DecisionRow) bool { return during(r, m.arrival) })
	}), nil
}

// during reports whether a message that arrived at a time did so while the
// decision was in force.
func during(r store.DecisionRow, at time.Time) bool {
	return at.After(r.Time.Add(-spread)) && (r.EndedAt.IsZero() || at.Before(r.EndedAt.Add(spread)))
}

// keepPaying has the account of a throttle that ran out keep its allowance.
func (b *backlog) keepPaying(throttles []store.DecisionRow) {
	if len(throttles) == 0 {
		return
	}
	d := throttles[0].Decision
	d.Until = time.Time{}
	b.late.Set(d, "")
}

func (b *backlog) pay(account string, rcpts int, now time.Time) bool {
	if b.now.Lookup(account, now) != nil {
		return b.now.Pay(account, rcpts, now)
	}
	return b.late.Pay(account, rcpts, now)
}

// release lets out what the account's allowance pays for, and returns the rest.
func (s *service) release(ctx context.Context, account string, waiting []heldMessage, now time.Time) ([]heldMessage, error) {
	ids := make([]string, min(len(waiting), releaseOnce))
	for i := range ids {
		ids[i] = waiting[i].id
	}
	found, err := s.queue.Look(ctx, ids)
	if err != nil {
		return waiting, err
	}
	byID := make(map[string]enforce.Queued, len(found))
	for _, m := range found {
		byID[m.ID] = m
	}
	var out []enforce.Queued
	paid := 0
	for ; paid < len(ids); paid++ {
		m, there := byID[ids[paid]]
		if !there || !m.Held {
			continue // gone, or released by somebody else
		}
		if !s.backlog.pay(account, max(m.Rcpts, 1), now) {
			break
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return waiting[paid:], nil
	}
	n, err := s.queue.Release(ctx, out)
	s.log.Info("let out", "account", account, "messages", n, "waiting", len(waiting)-paid)
	return waiting[paid:], err
}

// tellBacklog makes a finding of mail that has waited for too long.
func (s *service) tellBacklog(ctx context.Context, account string, left []heldMessage, now time.Time) {
	oldest := left[0].arrival
	if _, told := s.backlog.told[account]; told || now.Sub(oldest) < s.backlog.most {
		return
	}
	s.backlog.told[account] = oldest
	class := mailq.Account(account).Kind()
	s.report(ctx, rules.Finding{
		ID: rules.FindingID(rules.ThrottleBacklog, account, oldest), Rule: rules.ThrottleBacklog, Subject: account, Class: class,
		Time: now, Since: oldest, Messages: len(left),
		Evidence: []rules.Evidence{{Kind: rules.Queue, Text: fmt.Sprintf("%d messages of this account wait on hold, the oldest since %s: release or delete them",
			len(left), oldest.Local().Format(time.DateTime))}},
	})
}
