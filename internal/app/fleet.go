package app

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A fleet is the agents that report here, and what is on its way from them.
type fleet struct {
	server     *hub.Server
	roster     *roster
	board      *hub.Board
	keyring    *keyring
	deliveries chan hub.Delivery
	started    time.Time
	silent     time.Duration       // after which an agent is told of
	eyes       map[string]*eye     // keep's, by agent
	clocks     map[string]*eye     // keep's, on their clocks
	hashing    map[string]*hashing // keep's, on what they hash with
	foreign    map[string]time.Time
	takeovers  takeovers
	done       chan agentReset
	unasked    hub.SparingLog // of agents that tell what nobody asked
	claims     hub.SparingLog // of blocks that are not taken over
	resets     *fleetResets   // answer's

	// What follows is observe's.
	marks  map[string]hub.Mark // of the agents that came further since their marks were noted, by source
	noted  time.Time           // when that was
	judged hub.Position
}

// The names under which it is kept how far the journal was judged, how far each
// agent had come at a position in it, in both lanes, and which one that is.
const (
	journalSource = "agents"
	agentSource   = "agent "
	lateSource    = "late of agent " // which a release that has one lane passes over
	marksSource   = "agents' marks"
)

// laneSource is the name of an agent's mark in one of its lanes.
func laneSource(agent string, late bool) string {
	if late {
		return lateSource + agent
	}
	return agentSource + agent
}

// noteMarks is how often it is noted how far the agents have come: what came
// since is read in the journal at the next start.
const noteMarks = 30 * time.Second

// deliveriesAhead bounds what is acknowledged and not judged yet, in memory.
const deliveriesAhead = 64

func newFleet(ctx context.Context, c config.Config, db *store.DB, ring *keyring) (*fleet, error) {
	dir := c.FleetDir()
	ca, err := hub.OpenCA(dir)
	if err != nil {
		return nil, err
	}
	r, err := newRoster(ctx, db)
	if err != nil {
		return nil, err
	}
	journal, err := hub.OpenJournal(filepath.Join(dir, "journal"), int64(c.Agents.JournalMax)<<20)
	if err != nil {
		return nil, err
	}
	f := &fleet{
		roster: r, board: &hub.Board{}, keyring: ring, deliveries: make(chan hub.Delivery, deliveriesAhead), started: time.Now(),
		silent: time.Duration(c.Agents.SilentAfter), eyes: map[string]*eye{}, clocks: map[string]*eye{}, hashing: map[string]*hashing{}, foreign: map[string]time.Time{}, marks: map[string]hub.Mark{},
		done: make(chan agentReset),
	}
	if f.resets, err = loadFleetResets(ctx, db); err != nil {
		return nil, err
	}
	f.takeovers.blast = rules.BlastLimit{Max: c.Rules.BlastMax, Per: time.Duration(c.Rules.BlastPer)}
	f.server = &hub.Server{CA: ca, Roster: r, Journal: journal, Board: f.board, Keys: ring.keys, Version: shortVersion()}
	return f, nil
}

// deliver is where batches come from; nil where there is no fleet.
func (f *fleet) deliver() <-chan hub.Delivery {
	if f == nil {
		return nil
	}
	return f.deliveries
}

// gates are all that is told what is in force.
type gates []enforce.Gate

// Set implements enforce.Gate.
func (g gates) Set(d rules.Decision, text string) {
	for _, each := range g {
		each.Set(d, text)
	}
}

// Remove implements enforce.Gate.
func (g gates) Remove(subject string) {
	for _, each := range g {
		each.Remove(subject)
	}
}

// receive judges what a crash left in the journal, and then answers agents until
// ctx ends.
func (s *service) receive(ctx context.Context, l net.Listener) error {
	f := s.fleet
	defer f.server.Journal.Close()
	f.server.Log, f.server.Held, f.server.ResetDone = s.log, s.held, f.resetDone
	f.server.Deliver = func(d hub.Delivery) {
		select {
		case f.deliveries <- d:
		case <-ctx.Done(): // it is in the journal
		}
	}
	if err := s.readAgain(ctx); err != nil {
		l.Close()
		return err
	}
	return f.server.Serve(ctx, l)
}

// readAgain learns from the journal how far each agent has come, and delivers
// what was not judged.
func (s *service) readAgain(ctx context.Context) error {
	positions, err := s.store.LoadPositions(ctx)
	if err != nil {
		return err
	}
	var marked, judged hub.Position
	for source, text := range positions {
		if err := s.resumeAgent(source, text, &marked, &judged); err != nil {
			return fmt.Errorf("position of %s: %w", source, err)
		}
	}
	unread := 0
	damage := s.fleet.server.Journal.Read(marked, func(r hub.Record, at hub.Position) error {
		if !judged.Before(at) {
			s.fleet.server.Resume(r.Agent, r.Sealed.Mark)
			return ctx.Err()
		}
		d, err := r.Delivery(at)
		if err != nil {
			unread++ // of a version that is newer by more than one
			return nil
		}
		s.fleet.server.Resume(d.Agent, d.Mark)
		s.fleet.server.Deliver(d)
		return ctx.Err()
	})
	if ctx.Err() != nil {
		return nil
	}
	if damage == nil && unread > 0 {
		damage = fmt.Errorf("journal: %d batches cannot be read", unread)
	}
	if damage != nil {
		s.blind(ctx, &eye{kind: "journal", subject: "journal of the agents", part: "journal of the agents"}, damage)
	}
	return nil
}

func (s *service) resumeAgent(source string, text []byte, marked, judged *hub.Position) error {
	switch source {
	case journalSource:
		return json.Unmarshal(text, judged)
	case marksSource:
		return json.Unmarshal(text, marked)
	}
	agent, late := strings.CutPrefix(source, lateSource)
	if !late {
		var ok bool
		if agent, ok = strings.CutPrefix(source, agentSource); !ok {
			return nil
		}
	}
	var m hub.Mark
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	m.Late = late
	s.fleet.server.Resume(agent, m)
	return nil
}

// By how much a corrected time may be ahead of the hub's, and behind it.
const (
	soon   = time.Minute
	oldest = 400 * 24 * time.Hour // longer than logs are kept
)

// deliver judges a batch. It runs in observe.
func (p *pipeline) deliver(d hub.Delivery) {
	p.judge.stale = time.Now().Add(-p.stale)
	p.fleet.judged, p.fleet.marks[laneSource(d.Agent, d.Late)] = d.At, d.Mark
	p.dirty = true
	p.metrics.batches.Inc()
	member, err := p.fleet.roster.Member(d.Agent)
	if err != nil {
		return // revoked since: what it said then is not believed any more
	}
	saw := p.saw
	if d.Late {
		saw, d.Samples = p.sawLate, nil // the queue is not as it was
	}
	v := visitor{member.Scope, salt(d.Agent), p.fleet.keyring.both(d.Received), d}
	var foreign []mailq.Account
	for i := range d.Events {
		ev := &d.Events[i]
		if account := ev.Account; !v.admit(ev) {
			foreign = append(foreign, account)
			continue
		}
		p.metrics.agentEvents.Inc()
		p.newest = ev.Time
		p.guarded(func() { saw(ev) })
	}
	for _, f := range d.Findings {
		if f, ok := v.finding(f); ok {
			p.found(f)
		}
	}
	for _, q := range d.Samples {
		for _, f := range p.judge.detector.ObserveSample(v.sample(q)) {
			p.found(f)
		}
	}
	p.missed(d, foreign)
	p.metrics.known(p.judge)
}

// positions adds how far the journal was judged, and now and then how far each
// agent has come.
func (f *fleet) positions(to map[string][]byte, now time.Time) {
	if f == nil || f.judged == (hub.Position{}) {
		return
	}
	to[journalSource] = asJSON(f.judged)
	if now.Sub(f.noted) < noteMarks {
		return
	}
	f.noted = now
	to[marksSource] = asJSON(f.judged)
	for source, m := range f.marks {
		to[source] = asJSON(m)
	}
	clear(f.marks)
}

// asJSON writes a position.
func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers
	}
	return b
}

// missed reports what of an agent's was not judged: what it lost, and what it
// may not speak of, at most once an hour.
func (p *pipeline) missed(d hub.Delivery, foreign []mailq.Account) {
	var texts []string
	if d.Lost > 0 {
		texts = append(texts, fmt.Sprintf("%d events did not fit the agent's disk (hub.spool_max_mb)", d.Lost))
		p.metrics.lostEvents.Add(float64(d.Lost))
	}
	if d.Gap {
		texts = append(texts, "the hub has not had all batches of the agent, and the agent does not have them any more")
	}
	if len(foreign) > 0 {
		texts = append(texts, fmt.Sprintf("the agent tells of accounts outside its domains, such as %q: add the domain with vedetta agents add, or look who speaks there", foreign[0]))
		p.metrics.foreign.Add(float64(len(foreign)))
	}
	hour := d.Received.Truncate(time.Hour)
	if len(texts) == 0 || p.fleet.foreign[d.Agent].Equal(hour) {
		return
	}
	p.fleet.foreign[d.Agent] = hour
	p.found(lostCoverage("agent "+d.Agent, d.Received, strings.Join(texts, "; ")))
}

// A visitor is an agent whose batch is being judged.
type visitor struct {
	hub.Scope
	salt uint64 // keeps its messages apart from other agents'
	both bool   // recipients have two hashes; else the second of what it says is nobody's
	hub.Delivery
}

// salt is a number of the agent's own.
func salt(agent string) uint64 {
	sum := sha256.Sum256([]byte(agent))
	return binary.BigEndian.Uint64(sum[:])
}

// admit puts an event into the hub's names and time. It returns false for one
// that the agent may not tell.
func (v visitor) admit(ev *mailq.Event) bool {
	account, ok := v.Global(ev.Account)
	if !ok {
		return false
	}
	ev.Account, ev.Host = account, v.Scope.Agent
	if ev.Into, ok = v.Global(ev.Into); !ok {
		ev.Into = ""
	}
	if ev.Message != 0 {
		ev.Message ^= v.salt
	}
	ev.Time = v.time(ev.Time)
	if !v.both {
		ev.To.Next, ev.Writer.Next = 0, 0
		for i := range ev.New {
			ev.New[i].Next = 0
		}
	}
	return true
}

// time is t by the hub's clock.
func (v visitor) time(t time.Time) time.Time {
	t = t.Add(-v.Skew)
	if latest := v.Received.Add(soon); t.After(latest) {
		return latest
	}
	if earliest := v.Received.Add(-oldest); t.Before(earliest) {
		return earliest
	}
	return t
}

// finding is what an agent says of itself: only that it cannot see.
func (v visitor) finding(f rules.Finding) (rules.Finding, bool) {
	if f.Rule != rules.Blind && f.Rule != rules.LostCoverage {
		return f, false
	}
	out := rules.Finding{Rule: f.Rule, Subject: v.Scope.Agent + ": " + outside(f.Subject), Time: v.time(f.Time), Since: v.time(f.Since)}
	for _, e := range f.Evidence[:min(len(f.Evidence), 4)] {
		out.Evidence = append(out.Evidence, rules.Evidence{Kind: rules.Coverage, Text: outside(e.Text)})
	}
	out.ID = rules.FindingID(out.Rule, out.Subject, out.Since)
	return out, true
}

// outside bounds a text of an agent's.
func outside(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 512)], "?"))
}

// sample is a look at the agent's queue, with the accounts that it may speak of.
func (v visitor) sample(q mailq.QueueSample) mailq.QueueSample {
	q.Host, q.Time = v.Scope.Agent, v.time(q.Time)
	var shares []mailq.Share
	for _, share := range q.ByAccount {
		if account, ok := v.Global(mailq.Account(outside(share.Name))); ok {
			share.Name = string(account)
			shares = append(shares, share)
		}
	}
	q.ByAccount = shares
	return q
}

// maxHeld bounds how many blocks an agent may ask about at once.
const maxHeld = 10_000

// takeovers limits how many accounts agents can have stopped on the whole fleet
// by saying that they were.
type takeovers struct {
	mu    sync.Mutex // guards blast
	blast rules.BlastLimit
}

// allow reports whether one more is taken over.
func (t *takeovers) allow(d rules.Decision, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	d.Finding = d.ID // an operator's own is no exception: anybody can say that it is
	weak, _ := t.blast.Weaken(d, now)
	return weak.Action == d.Action
}

// held is the answer to an agent that has in force what this hub does not name:
// what is over here is over there. What this hub has never heard of, it has
// forgotten, as after a backup was restored; it takes that over, within the
// bounds of its own decisions: the agent may have been taken over itself. What
// it does not take over stays in force there alone.
func (s *service) held(ctx context.Context, agent string, ds []rules.Decision) (over []string, err error) {
	if len(ds) > maxHeld {
		return nil, fmt.Errorf("%d blocks at once, at most %d", len(ds), maxHeld)
	}
	var ids []string
	for _, d := range ds {
		ids = append(ids, d.ID)
	}
	now := time.Now()
	ended, known, err := s.store.Ended(ctx, ids, now)
	if err != nil {
		return nil, err
	}
	var lost []rules.Decision
	refused := 0
	for _, d := range ds {
		switch {
		case ended[d.ID] || !d.Until.IsZero() && !d.Until.After(now):
			over = append(over, d.Subject)
		case !known[d.ID] && d.Enforce && validAccount(d.Subject, true) && d.Action >= rules.Throttle && d.Action <= rules.Block:
			d.Why = outside(d.Why)
			if s.mayTakeOver(d, now) {
				lost = append(lost, d)
			} else {
				refused++
			}
		}
	}
	if refused > 0 {
		s.metrics.blind.WithLabelValues("takeover").Inc()
		text := fmt.Sprintf("agent %s stops %d account%s that this hub does not know of and does not take over; what is stopped stays so on that server alone: see vedetta journal there, and block or release it here", agent, refused, plural(refused))
		s.fleet.claims.Warn(s.log, text)
		s.report(ctx, lostCoverage("blocks of agent "+agent, now, text))
	}
	if len(lost) == 0 {
		return over, nil
	}
	s.log.Warn("taking over blocks that an agent has and this hub has forgotten", "agent", agent, "number", len(lost))
	if _, err := s.store.Commit(ctx, store.Batch{Decisions: lost}); err != nil {
		return nil, err
	}
	for i, outcome := range s.acts.DoAll(ctx, lost) {
		if err := s.store.Outcome(ctx, lost[i].ID, time.Now(), outcome.OK, outcome.Detail); err != nil {
			return nil, err
		}
	}
	return over, nil
}

// mayTakeOver reports whether this hub would do by itself what an agent says that
// it once did.
func (s *service) mayTakeOver(d rules.Decision, now time.Time) bool {
	f := rules.Finding{Subject: d.Subject, Class: mailq.Account(d.Subject).Kind()}
	return s.config.Mode == config.ModeEnforce && !rules.Exempts(s.judge.policy.Exempt, f) &&
		!s.directory.IsShared(mailq.Account(d.Subject)) && s.fleet.takeovers.allow(d, now)
}

// watchAgents tells of agents that are silent, whose clocks are wrong or who hash
// recipients with other keys, and frees what is judged.
func (s *service) watchAgents(ctx context.Context) error {
	f := s.fleet
	rows, err := s.store.Agents(ctx)
	if err != nil {
		return err
	}
	seen := map[string]hub.Presence{}
	for _, p := range f.server.Presences() {
		seen[p.Agent] = p
	}
	for _, row := range rows {
		if row.Enrolment == "" {
			s.unwatchAgent(row.Name)
		} else {
			s.watchAgent(ctx, row.Name, seen[row.Name])
			s.watchKeys(ctx, row, seen[row.Name])
		}
	}
	s.metrics.fleet(rows, seen)
	s.metrics.journal.Set(float64(f.server.Journal.Size()))
	positions, err := s.store.LoadPositions(ctx)
	if err != nil {
		return err
	}
	var marked hub.Position
	if text := positions[marksSource]; text != nil {
		if err := json.Unmarshal(text, &marked); err != nil {
			return err
		}
	}
	return f.server.Journal.Forget(marked)
}

func (s *service) watchAgent(ctx context.Context, name string, p hub.Presence) {
	f := s.fleet
	if f.eyes[name] == nil {
		f.eyes[name] = &eye{kind: "agent", subject: "agent " + name, part: "agent " + name}
		f.clocks[name] = &eye{kind: "clock", subject: "clock of agent " + name, part: "clock of agent " + name}
	}
	heard := p.Seen
	if heard.Before(f.started) {
		heard = f.started
	}
	if silent := time.Since(heard); silent > f.silent {
		s.blind(ctx, f.eyes[name], fmt.Errorf("agent %s has been silent for %s: is the server up, and does it reach this hub?", name, silent.Round(time.Second)))
		return
	}
	s.sees(f.eyes[name])
	if p.Skew.Abs() > maxClock {
		s.blind(ctx, f.clocks[name], fmt.Errorf("the clock of agent %s is %s off; its times are corrected by that", name, p.Skew.Round(time.Second)))
	} else if !p.Seen.IsZero() {
		s.sees(f.clocks[name])
	}
}

// unwatchAgent makes an end of what was said of an agent that is not expected
// any more.
func (s *service) unwatchAgent(name string) {
	for _, eyes := range []map[string]*eye{s.fleet.eyes, s.fleet.clocks} {
		if e := eyes[name]; e != nil {
			s.sees(e)
			delete(eyes, name)
		}
	}
	if h := s.fleet.hashing[name]; h != nil {
		s.sees(&h.eye)
		delete(s.fleet.hashing, name)
	}
}

// maxClock is by how much an agent's clock may be wrong before people are told.
const maxClock = time.Minute
