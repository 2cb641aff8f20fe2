package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// retryEvery is how long after a failure the database is tried again.
const retryEvery = time.Second

// maxUnwritten bounds what is kept in memory while nothing can be written, in
// rows. Past it no more is taken from observe, which then reads no further: the
// log file is the buffer.
const maxUnwritten = 200_000

// answer is the second half. A batch that cannot be written is kept and
// tried again with the next; what could not be written down is not done, but
// is still told, and its account is slowed in the meantime.
func (p *pipeline) answer(ctx context.Context) error {
	defer close(p.answered)
	p.writing = startAside()
	defer p.writing.stop()
	var unwritten work
	retry, minute := time.NewTicker(retryEvery), time.NewTicker(time.Minute)
	defer retry.Stop()
	defer minute.Stop()
	for {
		in, ended := p.work, (chan struct{})(nil)
		if rows(unwritten) > maxUnwritten {
			in, ended = nil, p.done
		}
		select {
		case w, ok := <-in:
			if !ok {
				return nil
			}
			next := work{}
			if empty(unwritten) {
				w, next = p.more(w)
			}
			unwritten = p.write(ctx, merge(unwritten, w), w.steps)
			if !empty(next) {
				unwritten = p.write(ctx, merge(unwritten, next), next.steps)
			}
		case <-retry.C:
			if !empty(unwritten) {
				unwritten = p.write(ctx, unwritten, nil)
			}
			p.settle(ctx)
			p.chaseAgents(ctx, time.Now())
		case r := <-p.resetDone:
			p.afterReset(ctx, r)
		case r := <-p.fleet.resetsDone():
			p.heardOfReset(ctx, r)
		case begun := <-p.reconciled:
			p.recovered(ctx, begun)
		case change := <-p.bookChanges:
			p.post(ctx, change(p.book, time.Now()))
		case <-minute.C:
			p.post(ctx, p.book.Tick(time.Now()))
		case <-ended:
			return nil // what is not written is read again
		}
	}
}

// togetherRows is about how many rows are written at once for the sake of orders
// that came together.
const togetherRows = 1000

// more adds to w what else was handed over meanwhile, up to the first with a
// decision: no order may be overtaken by one.
func (p *pipeline) more(w work) (whole, next work) {
	for rows(w) < togetherRows {
		select {
		case next, ok := <-p.work:
			if !ok {
				return w, work{} // the next look finds it closed too
			}
			if len(next.steps) > 0 {
				return w, next
			}
			w = merge(w, next)
		default:
			return w, work{}
		}
	}
	return w, work{}
}

// answerTimeout bounds the writing and doing of one hand-over. It goes on when
// the service is to stop, so that what was begun is finished.
const answerTimeout = time.Minute

func finish(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
}

// write commits w and carries out its steps. It returns what is still to be
// written.
func (p *pipeline) write(ctx context.Context, w work, fresh []step) work {
	ctx, cancel := finish(ctx)
	defer cancel()
	var isNew []string
	var err error
	p.writing.do(func() { isNew, err = p.store.Commit(ctx, w.batch) })
	if err != nil {
		p.metrics.unwritten.Inc()
		p.log.Error("nothing can be written down; blocks stay, new ones wait", "err", err)
		p.health.set("database", err)
		p.slow(ctx, fresh, err)
		return w
	}
	p.health.set("database", nil)
	p.slowed.forget()
	if p.forward != nil {
		p.forward.wrote(w.batch.Spool)
	}
	decided := set(isNew)
	var steps []step
	for _, s := range w.steps {
		if decided[s.decision.ID] { // others were written before a crash, and redone at start
			steps = append(steps, s)
		}
	}
	p.carryOut(ctx, steps)
	p.obey(ctx, w.orders)
	return work{}
}

// carryOut does what was decided and written, tells, and notes how it went.
// The outcome is written last: a decision without one is carried out and told
// again at the next start.
func (p *pipeline) carryOut(ctx context.Context, steps []step) {
	var changes []incident.Change
	confirmed := make([]bool, len(steps))
	steps = p.resumeResets(ctx, steps)
	for i, outcome := range p.do(ctx, steps) {
		s, now := steps[i], time.Now()
		d := s.decision
		confirmed[i] = outcome.OK
		p.metrics.decided(d, outcome)
		p.log.Info("decided", "account", d.Subject, "action", d.Action.String(), "enforce", d.Enforce,
			"held_back", d.HeldBack, "score", round(s.finding.Score, 1), "finding", d.Finding, "ok", outcome.OK, "detail", outcome.Detail)
		if change, ok := p.record(s, outcome, now); ok {
			changes = append(changes, change)
		}
		if s.page {
			p.untold.batch.Outbox = append(p.untold.batch.Outbox, p.teller.letters(page(s, p.teller.hostname))...)
		}
		p.untold.outcomes = append(p.untold.outcomes, outcomeOf{d.ID, now, outcome})
		p.remember(s, outcome, now)
	}
	p.post(ctx, changes)
	for i, s := range steps {
		if s.decision.Enforce && confirmed[i] {
			p.resetBehind(ctx, s)
		}
	}
}

// resumeResets takes the resets out of what the last run did not finish.
func (p *pipeline) resumeResets(ctx context.Context, steps []step) (others []step) {
	for _, s := range steps {
		if s.decision.Action == rules.Reset && s.decision.Enforce {
			p.resume(ctx, s)
		} else {
			others = append(others, s)
		}
	}
	return others
}

// do puts the steps' decisions in force together, so that a flood of them
// writes each table once. What is not to be carried out is done at once.
func (p *pipeline) do(ctx context.Context, steps []step) []enforce.Outcome {
	outcomes := make([]enforce.Outcome, len(steps))
	var decisions []rules.Decision
	var of []int
	for i, s := range steps {
		if s.decision.Enforce {
			decisions, of = append(decisions, s.decision), append(of, i)
		} else {
			outcomes[i] = enforce.Outcome{OK: true, Detail: joined("noted", s.decision.HeldBack)}
		}
	}
	for i, outcome := range p.acts.DoAll(ctx, decisions) {
		outcomes[of[i]] = outcome
		p.restrain(decisions[i])
	}
	return outcomes
}

// record puts a step into its incident and says what of it people want to hear.
func (p *pipeline) record(s step, outcome enforce.Outcome, now time.Time) (incident.Change, bool) {
	var change incident.Change
	var ok bool
	if outcome.OK {
		change, ok = p.book.Record(s.finding, s.decision, now)
	} else {
		change, ok = p.book.Failed(s.finding, s.decision, outcome.Detail, now)
	}
	return change, ok && p.teller.wanted(s)
}

// untold is what was done and still has to be written and told: it outlives a
// database that cannot be written for a while.
type untold struct {
	batch    store.Batch // incidents and letters
	outcomes []outcomeOf
}

// An outcomeOf is what became of a decision.
type outcomeOf struct {
	decision string
	at       time.Time
	enforce.Outcome
}

// post writes the changed incidents and a letter a change and channel, or
// keeps them to be written later.
func (p *pipeline) post(ctx context.Context, changes []incident.Change) {
	var changed []store.IncidentRow
	for in := range p.book.Changed {
		body, err := json.Marshal(in)
		if err != nil {
			panic(err) // plain data
		}
		changed = append(changed, store.IncidentRow{ID: in.ID, Body: body, Open: in.Open(), Updated: in.Changed})
	}
	b := &p.untold.batch
	b.Incidents = newest(b.Incidents, changed, func(r store.IncidentRow) string { return r.ID })
	for _, c := range changes {
		b.Outbox = append(b.Outbox, p.teller.letters(message(c, p.teller.hostname))...)
	}
	p.settle(ctx)
}

// settle writes what is still to be told, and then the outcomes.
func (p *pipeline) settle(ctx context.Context) {
	ctx, cancel := finish(ctx)
	defer cancel()
	u := &p.untold
	if len(u.batch.Incidents)+len(u.batch.Outbox) > 0 {
		if _, err := p.store.Commit(ctx, u.batch); err != nil {
			p.log.Error("people are told later: nothing can be written down", "letters", len(u.batch.Outbox), "err", err)
			p.health.set("database", err)
			return
		}
		u.batch = store.Batch{}
		p.teller.wake()
	}
	for len(u.outcomes) > 0 {
		o := u.outcomes[0]
		err := p.store.Outcome(ctx, o.decision, o.at, o.OK, o.Detail)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			p.log.Error("an outcome is written later", "decision", o.decision, "err", err)
			p.health.set("database", err)
			return
		}
		u.outcomes = u.outcomes[1:]
	}
	u.outcomes = nil
}

// A failedStep is a step that could not be carried out in full.
type failedStep struct {
	step
	at time.Time
}

// maxFailed bounds the failed steps that are remembered.
const maxFailed = 10_000

// remember keeps a failed step until it is in force after all.
func (p *pipeline) remember(s step, outcome enforce.Outcome, now time.Time) {
	if outcome.OK {
		delete(p.failed, s.decision.ID)
		return
	}
	if p.failed == nil {
		p.failed = map[string]failedStep{}
	}
	if len(p.failed) < maxFailed {
		p.failed[s.decision.ID] = failedStep{s, now}
	}
}

// recovered says of what had failed before a comparison began, which has now
// found gate and tables as the journal wants them, that it is in force.
func (p *pipeline) recovered(ctx context.Context, begun time.Time) {
	var changes []incident.Change
	now := time.Now()
	outcome := enforce.Outcome{OK: true, Detail: "in force since gate and tables were compared with the journal"}
	for id, f := range p.failed {
		if !f.at.Before(begun) {
			continue
		}
		delete(p.failed, id)
		if until := f.decision.Until; !until.IsZero() && !until.After(begun) {
			continue // over
		}
		if change, ok := p.record(f.step, outcome, now); ok {
			changes = append(changes, change)
		}
		p.untold.outcomes = append(p.untold.outcomes, outcomeOf{id, now, outcome})
	}
	p.post(ctx, changes)
}

// slowed are the throttles that stand in for decisions which could not be
// written down. The journal does not know them, so whoever compares the gate
// with it has to be told.
type slowed struct {
	mu        sync.Mutex // guards decisions
	decisions map[string]rules.Decision
}

func (s *slowed) add(d rules.Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.decisions == nil {
		s.decisions = map[string]rules.Decision{}
	}
	s.decisions[d.Subject] = d
}

func (s *slowed) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.decisions)
}

// with adds the throttles to what the journal wants in force.
func (s *slowed) with(active []rules.Decision) []rules.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.decisions {
		active = append(active, d)
	}
	return active
}

// slow is what is done when nothing can be written: the gate throttles, from
// memory, and people are told at once and not by way of the outbox.
func (p *pipeline) slow(ctx context.Context, steps []step, cause error) {
	why := fmt.Sprintf("not written down: %v", cause)
	for i := range steps {
		d := steps[i].decision
		if !d.Enforce || d.Action < rules.Throttle {
			continue
		}
		d = d.Weakened(why)
		p.slowed.add(d)
		p.acts.DoAll(ctx, []rules.Decision{d})
	}
	for _, s := range steps {
		if p.teller.wanted(s) {
			p.teller.now(ctx, direct(s, why, p.teller.hostname))
		}
	}
}
