package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A pipeline is an event's life, in two halves:
//
//	log lines, gate requests → observe: parse, detect, decide   (one goroutine, no I/O)
//	                         → answer: write down, do, tell      (one goroutine, I/O)
//
// The log file is the buffer between the world and observe: when answer is
// slow, observe waits and the file grows. What observe learnt, what it decided
// and how far it read are written in one transaction, so a crash at any moment
// loses nothing and counts nothing twice.
type pipeline struct {
	log     *slog.Logger
	metrics *metrics
	judge   *judge
	store   *store.DB
	acts    executor
	book    *incident.Book
	teller  *teller
	stale   time.Duration // a finding older than this is old news

	chunks chan sourceChunk
	notes  chan gate.Request
	asks   chan func()
	work   chan work

	done chan struct{} // closed when observe has ended

	// What was gathered since the last hand-over.
	positions map[string][]byte // as JSON, by source
	steps     []step
	orders    []*order
	learned   []string // keys of releases
	dirty     bool

	queue     *enforce.PostfixQueue // nil: held mail cannot be released
	directory *directory
	sample    sampled // of the mail queue; observe's
	health    *health
}

// A sourceChunk is a chunk of a named log.
type sourceChunk struct {
	source string
	chunk  mailq.Chunk
}

// A work is what observe hands to answer: the state to write, and the steps
// that it led to.
type work struct {
	batch  store.Batch
	steps  []step
	orders []*order
}

// flushEvery is how much reading a crash may make us repeat.
const flushEvery = 200 * time.Millisecond

// observe is the first half. It owns parser and detector; whoever else needs
// them asks through p.asks.
func (p *pipeline) observe(ctx context.Context) error {
	flush := time.NewTicker(flushEvery)
	defer flush.Stop()
	defer close(p.done)
	defer close(p.work)
	due := false
	for {
		select {
		case <-ctx.Done():
			return nil // what is not handed over yet is read again
		case c := <-p.chunks:
			p.read(c)
		case r := <-p.notes:
			p.note(r)
		case ask := <-p.asks:
			ask()
		case <-flush.C:
			due = p.dirty
		}
		if due || len(p.steps)+len(p.orders) > 0 {
			p.hand(ctx)
			due = false
		}
	}
}

// read judges the lines of one chunk.
func (p *pipeline) read(c sourceChunk) {
	p.judge.stale = time.Now().Add(-p.stale)
	for line := range lines(c.chunk.Lines) {
		if s, ok := p.judge.line(line); ok {
			p.steps = append(p.steps, s)
		}
	}
	p.gap(c)
	position, err := json.Marshal(c.chunk.End)
	if err != nil {
		panic(err) // numbers and a path
	}
	p.positions[c.source] = position
	p.dirty = true
	p.metrics.read(c.chunk, p.judge.last)
}

// gap reports lines that were lost before they could be read.
func (p *pipeline) gap(c sourceChunk) {
	if c.chunk.Gap == "" {
		return
	}
	now := time.Now()
	f := rules.Finding{
		ID: rules.FindingID(rules.LostCoverage, c.source, now), Rule: rules.LostCoverage, Subject: c.source, Time: now, Since: now,
		Evidence: []rules.Evidence{{Kind: rules.Coverage, Text: c.chunk.Gap}},
	}
	if s, ok := p.judge.finding(f); ok {
		p.steps = append(p.steps, s)
	}
}

// note joins what the gate was told with the log.
func (p *pipeline) note(r gate.Request) {
	if r.Answer >= gate.Defer {
		return // not accepted
	}
	ev, ok := p.judge.parser.Note(envelope(r))
	if !ok {
		return
	}
	p.dirty = true
	if s, ok := p.judge.event(&ev); ok {
		p.steps = append(p.steps, s)
	}
}

// hand takes a snapshot of everything that changed and passes it on.
func (p *pipeline) hand(ctx context.Context) {
	w := work{steps: p.steps, orders: p.orders, batch: p.snapshot()}
	p.steps, p.orders, p.dirty = nil, nil, false
	select {
	case p.work <- w:
	case <-ctx.Done(): // not written, so it will be read again
	}
}

// answer is the second half. A batch that cannot be written is kept and
// tried again with the next; what could not be written down is not done, but
// is still told, and its account is slowed in the meantime.
func (p *pipeline) answer(ctx context.Context) error {
	var unwritten work
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		select {
		case w, ok := <-p.work:
			if !ok {
				return nil
			}
			unwritten = p.write(ctx, merge(unwritten, w), w.steps)
		case <-retry.C:
			if !empty(unwritten) {
				unwritten = p.write(ctx, unwritten, nil)
			}
		}
	}
}

// write commits w and carries out its steps. It returns what is still to be
// written.
func (p *pipeline) write(ctx context.Context, w work, fresh []step) work {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	isNew, err := p.store.Commit(ctx, w.batch)
	if err != nil {
		p.metrics.unwritten.Inc()
		p.log.Error("nothing can be written down; blocks stay, new ones wait", "err", err)
		p.health.set("database", err)
		p.slow(ctx, fresh, err)
		return w
	}
	p.health.set("database", nil)
	decided := set(isNew)
	for _, s := range w.steps {
		if !decided[s.decision.ID] {
			continue // written before a crash, and redone at start
		}
		if err := p.carryOut(ctx, s); err != nil {
			p.log.Error("step not completed", "account", s.finding.Subject, "action", s.decision.Action.String(), "err", err)
		}
	}
	for _, o := range w.orders {
		p.obey(ctx, o)
	}
	return work{}
}

// answerTimeout bounds the writing and doing of one hand-over.
const answerTimeout = time.Minute

// carryOut does what was decided and written, notes how that went, and tells.
func (p *pipeline) carryOut(ctx context.Context, s step) error {
	d := s.decision
	outcome := enforce.Outcome{OK: true, Detail: d.HeldBack}
	if d.Enforce {
		outcome = p.acts.Do(ctx, d)
	}
	p.metrics.decided(d, outcome)
	p.log.Info("decided", "account", d.Subject, "action", d.Action.String(), "enforce", d.Enforce,
		"held_back", d.HeldBack, "score", round(s.finding.Score, 1), "finding", d.Finding, "ok", outcome.OK, "detail", outcome.Detail)
	told := p.tell(ctx, s, outcome)
	return errors.Join(told, p.store.Outcome(ctx, d.ID, time.Now(), outcome.OK, outcome.Detail))
}

// slow is what is done when nothing can be written: the gate throttles, from
// memory, and people are told at once and not by way of the outbox.
func (p *pipeline) slow(ctx context.Context, steps []step, cause error) {
	for _, s := range steps {
		d := s.decision
		if d.Enforce && d.Action >= rules.Throttle {
			d.Action = rules.Throttle
			d.Until = time.Now().Add(time.Hour)
			p.acts.Do(ctx, d)
		}
		s.decision.HeldBack = fmt.Sprintf("not written down: %v; throttled until it can be", cause)
		p.teller.now(ctx, direct(s, p.teller.hostname))
	}
}

// seen is told by the gate of a message at its end. It never blocks: what does
// not fit is left to the log, which tells the same later.
func (p *pipeline) seen(r gate.Request) {
	p.metrics.notes.Inc()
	select {
	case p.notes <- r:
	default:
		p.metrics.lostNotes.Inc()
	}
}

// envelope puts what the gate was told into the parser's words.
func envelope(r gate.Request) mailq.Envelope {
	return mailq.Envelope{
		Time: r.Time, QueueID: r.QueueID, Login: r.Login, Client: r.Client, Sender: r.Sender, Recipients: r.Recipients,
	}
}
