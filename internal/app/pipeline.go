package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

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

	chunks    chan sourceChunk
	notes     chan gate.Request // what the gate was told: joined with the log when there is more of it
	manyNotes bell              // they cannot wait for that
	asks      chan func()
	work      chan work

	done     chan struct{} // closed when observe has ended
	answered chan struct{} // closed when answer has

	resetter   resetter     // nil: nothing says where passwords are changed
	handsOver  bool         // a new password reaches its owner without whoever asked
	sessions   sessionEnder // nil: there are none to end
	resets     chan passwordReset
	resetDone  chan passwordReset
	resetPause time.Duration // before the second try

	restraints chan restraint

	lists       *listWatch      // nil: no block lists are watched
	bookChanges chan bookChange // what stands no more, or has changed
	outflow     outflow         // observe's; counted where block lists are watched

	reconciled chan time.Time        // when a comparison began that found all as it should be; holds one
	untold     untold                // answer's
	failed     map[string]failedStep // answer's, by decision: what could not be carried out and still should be
	slowed     slowed
	writing    *aside // answer's

	// What was gathered since the last hand-over.
	positions map[string][]byte // as JSON, by source
	steps     []step
	orders    []*order
	learned   []string // keys of releases
	dirty     bool
	newest    time.Time // of the last event of the chunk at hand

	forward *forwarder // of an agent, whose hub judges; nil: judged here
	errands *errands   // of an agent: the resets that its hub asks for
	fleet   *fleet     // of a hub; nil: there are no agents

	queue     mailQueue // nil: held mail cannot be released
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
	judging := startAside()
	defer judging.stop()
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
			p.noteAll()
			judging.do(func() { p.read(c) })
		case <-p.manyNotes:
			p.noteAll()
		case ask := <-p.asks:
			ask()
		case d := <-p.fleet.deliver():
			judging.do(func() { p.deliver(d) })
		case <-flush.C:
			p.noteAll()
			due = p.dirty
		}
		if due || len(p.steps)+len(p.orders) > 0 || p.forward.full() {
			p.hand(ctx)
			due = false
		}
	}
}

// read judges the lines of one chunk.
func (p *pipeline) read(c sourceChunk) {
	p.judge.stale = time.Now().Add(-p.stale)
	p.newest = time.Time{}
	for line := range lines(c.chunk.Lines) {
		p.line(line)
	}
	p.gap(c)
	position, err := json.Marshal(c.chunk.End)
	if err != nil {
		panic(err) // numbers and a path
	}
	p.positions[c.source] = position
	p.dirty = true
	p.metrics.read(c.chunk, p.newest)
	p.metrics.known(p.judge)
}

// line judges one line.
func (p *pipeline) line(line []byte) {
	p.guarded(func() {
		if ev, ok := p.judge.parser.Parse(line); ok {
			p.newest = ev.Time
			p.saw(&ev)
		}
	})
}

// guarded judges something that came from outside. A panic is a mistake of ours
// that it brought to light: it costs that line or event, for after a restart the
// same would be read again, for ever. Its text is not logged: it may hold a
// customer's password.
func (p *pipeline) guarded(judge func()) {
	defer func() {
		if mistake := recover(); mistake != nil {
			p.metrics.panics.Inc()
			p.log.Error("panic: a line is left out; please report it", "panic", fmt.Sprint(mistake), "stack", string(debug.Stack()))
		}
	}()
	judge()
}

// saw judges an event, or leaves that to the hub.
func (p *pipeline) saw(ev *mailq.Event) {
	if p.lists != nil {
		p.lists.saw(ev)
		p.outflow.saw(ev, time.Now())
	}
	if p.forward != nil {
		p.forward.event(ev)
		p.dirty = true
		if f, ok := p.forward.fuse.blows(ev, time.Now()); ok && !p.directory.IsShared(ev.Account) && !rules.Exempts(p.judge.policy.Exempt, f) {
			p.steps = append(p.steps, step{finding: f, decision: blown(f)})
		}
		return
	}
	if s, ok := p.judge.event(ev); ok {
		p.takes(s)
	}
	for _, s := range p.judge.endangers(ev) {
		p.takes(s)
	}
	p.lists.setRisk(p.judge.risk, ev.Time)
}

// sawLate judges an event of an agent's that waited while this hub was away.
func (p *pipeline) sawLate(ev *mailq.Event) {
	p.judge.risk.Left(ev)
	if f, ok := p.judge.detector.ObserveLate(ev); ok {
		p.found(f)
	}
}

// found judges a finding that no event led to, or leaves that to the hub.
func (p *pipeline) found(f rules.Finding) {
	if p.forward != nil {
		p.forward.findings = append(p.forward.findings, f)
		p.dirty = true
		return
	}
	if s, ok := p.judge.finding(f); ok {
		p.takes(s)
	}
}

// takes has a step taken. What an account did that is stopped is not its own, until a
// person says so.
func (p *pipeline) takes(s step) {
	if d := s.decision; d.Enforce && d.Action >= rules.Hold {
		p.judge.detector.Stopped(mailq.Account(d.Subject))
	}
	p.steps = append(p.steps, s)
}

// gap reports lines that were lost before they could be read, once an hour and
// source: a log that is cut often is one trouble.
func (p *pipeline) gap(c sourceChunk) {
	if c.chunk.Gap == "" {
		return
	}
	p.log.Warn("log lines were lost", "log", c.source, "gap", c.chunk.Gap)
	p.found(lostCoverage(c.source, time.Now(), c.chunk.Gap))
}

// lostCoverage is the finding of the hour that something is not watched as it
// should be.
func lostCoverage(subject string, now time.Time, text string) rules.Finding {
	hour := now.Truncate(time.Hour)
	return rules.Finding{
		ID: rules.FindingID(rules.LostCoverage, subject, hour), Rule: rules.LostCoverage, Subject: subject, Time: now, Since: hour,
		Evidence: []rules.Evidence{{Kind: rules.Coverage, Text: text}},
	}
}

// noteAll joins what the gate was told so far with the log. No message counts
// before the log tells of it, so that what the gate tells can wait for the next
// lines, or for flushEvery where the log was first: nobody is woken for each.
func (p *pipeline) noteAll() {
	for range len(p.notes) {
		p.note(<-p.notes)
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
	p.saw(&ev)
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

// seen is told by the gate of a message at its end. It never blocks: what does
// not fit is left to the log, which tells the same later.
func (p *pipeline) seen(r gate.Request) {
	p.metrics.notes.Inc()
	select {
	case p.notes <- r:
	default:
		p.metrics.lostNotes.Inc()
	}
	if len(p.notes) >= maxNotes/2 {
		p.manyNotes.ring()
	}
}

// envelope puts what the gate was told into the parser's words.
func envelope(r gate.Request) mailq.Envelope {
	return mailq.Envelope{
		Time: r.Time, QueueID: r.QueueID, Login: r.Login, Client: r.Client, Sender: r.Sender, Recipients: r.Recipients,
	}
}
