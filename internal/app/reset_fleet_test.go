package app

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/rules"
)

// ended is where sessions are ended.
type ended struct {
	mu    sync.Mutex
	ids   []string
	fails bool
}

func (e *ended) EndSessions(_ context.Context, r enforce.Reset) enforce.Outcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ids = append(e.ids, r.ID)
	if e.fails {
		return enforce.Outcome{Detail: "sessions: dovecot is not there"}
	}
	return enforce.Outcome{OK: true, Detail: "sessions: ended"}
}

func (e *ended) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.ids)
}

// A hubOfResets is a hub that has no passwords itself.
func hubOfResets(t *testing.T) (*pipeline, *listeningHub, *ended) {
	t.Helper()
	h, p, e := newListeningHub(t), asked(t), &ended{}
	p.fleet, p.sessions = h.fleet, e
	p.acts = &enforce.Executor{Gate: gates{h.board}}
	return p, h, e
}

// playAgent is an agent that can do resets, and does with each order what the
// test says.
func (h *listeningHub) playAgent(t *testing.T, name string, resets bool, heed func(*hub.Client, hub.Order)) {
	t.Helper()
	token, err := h.roster.add(t.Context(), name, []string{"shop.test"}, h.server.CA, "root")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := hub.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	c := &hub.Client{Address: h.addr, Dir: t.TempDir(), Version: "1", Resets: resets}
	if err := hub.Enrol(t.Context(), h.addr, parsed, c.Dir, "1"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Open(); err != nil {
		t.Fatal(err)
	}
	there := make(chan struct{})
	var once sync.Once
	ctx, cancel := context.WithCancel(t.Context())
	var playing sync.WaitGroup
	playing.Go(func() {
		_ = c.Orders(ctx, func(change hub.Change) error {
			once.Do(func() { close(there) })
			for _, o := range change.Set {
				heed(c, o)
			}
			return nil
		})
	})
	t.Cleanup(func() { cancel(); playing.Wait(); c.Close() })
	<-there
}

// The agent that has the account's password changes it, and hands the new one
// over itself; all others end their sessions.
func TestResetByAnAgent(t *testing.T) {
	p, h, here := hubOfResets(t)
	var mu sync.Mutex
	var did []string
	play := func(name string, report hub.ResetReport) {
		h.playAgent(t, name, name != "mx3", func(c *hub.Client, o hub.Order) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case o.Reset.Done:
				did = append(did, name+" is told")
			case o.Reset.ID != "":
				did = append(did, name+" is asked")
				report.ID = o.Reset.ID
				if err := c.ResetDone(t.Context(), report); err != nil {
					t.Error(err)
				}
			case name == "mx3": // speaks of what it is not asked
				if err := c.ResetDone(t.Context(), hub.ResetReport{ID: o.Decision.ID, OK: true, Given: true, Changed: true, Detail: "trust me"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	play("mx1", hub.ResetReport{Declined: true})
	play("mx2", hub.ResetReport{OK: true, Changed: true, Given: true, Detail: "password: passwd-file"})
	play("mx3", hub.ResetReport{})
	answers(t, p)
	plan, err := p.Act(t.Context(), web.Order{Do: doReset, Account: victim, Who: "root", DryRun: true})
	if err != nil || !strings.Contains(strings.Join(plan.Done, "\n"), "ask agent mx1 ") || strings.Contains(strings.Join(plan.Done, "\n"), "mx3") {
		t.Errorf("plan %+v, %v", plan, err)
	}
	result, err := p.Act(t.Context(), web.Order{Do: doReset, Account: victim, Who: "root"})
	if err != nil || result.Password != "" || len(result.Failed) > 0 || !strings.Contains(result.Done[0], "handed over by agent mx2") {
		t.Errorf("%+v, %v", result, err)
	}
	if got := here.list(); len(got) != 1 {
		t.Errorf("sessions at the hub: ended for %q", got)
	}
	all := func() string {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(did)
		return strings.Join(did, ", ")
	}
	const want = "mx1 is asked, mx1 is told, mx2 is asked, mx2 is told, mx3 is told"
	for deadline := time.Now().Add(10 * time.Second); all() != want && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := all(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	rows, err := p.store.Decisions(t.Context(), store.DecisionFilter{})
	if err != nil || len(rows) != 1 || !rows[0].OK || !strings.Contains(rows[0].Outcome, "agent mx2: password: passwd-file; sessions: ended") {
		t.Errorf("%+v, %v", rows, err)
	}
}

// What nobody does is told; who answers late is heard.
func TestResetThatNoAgentDoes(t *testing.T) {
	const long = agentAnswers + time.Second
	for _, row := range []struct {
		name string
		play func(ctx context.Context, p *pipeline, a *asking)
		want string // the outcome
	}{
		{"nobody is there", func(ctx context.Context, p *pipeline, _ *asking) {
			p.chaseAgents(ctx, time.Now().Add(agentComes+time.Second))
		},
			"no agent that is connected can change it"},
		{"all decline", func(ctx context.Context, p *pipeline, a *asking) {
			a.agent = "mx1"
			p.heardOfReset(ctx, agentReset{"mx1", hub.ResetReport{ID: a.decision.ID, Declined: true}})
			if p.fleet.resets.waits[a.decision.ID] == nil {
				t.Error("another agent that comes in a moment is not waited for")
			}
			p.chaseAgents(ctx, time.Now().Add(agentComes+time.Second))
		}, "no agent that is connected has this account's password"},
		{"one fails", func(ctx context.Context, p *pipeline, a *asking) {
			a.agent = "mx1"
			p.heardOfReset(ctx, agentReset{"mx1", hub.ResetReport{ID: a.decision.ID, Detail: "disk full"}})
		}, "agent mx1: disk full"},
		{"no answer", func(ctx context.Context, p *pipeline, a *asking) {
			a.agent, a.until = "mx1", time.Now().Add(agentAnswers)
			p.chaseAgents(ctx, time.Now())
			p.chaseAgents(ctx, time.Now().Add(long))
		}, "agent mx1 was asked and has not answered"},
		{"no answer, and the operator does not wait for it", func(ctx context.Context, p *pipeline, a *asking) {
			a.agent, a.until = "mx1", time.Now().Add(agentAnswers)
			p.chaseAgents(ctx, time.Now().Add(askerWaits))
			if a.order != nil {
				t.Error("the operator waits on")
			}
			if got := told(t, p); len(got) > 0 {
				t.Errorf("people are told %q while it is under way", got)
			}
			p.chaseAgents(ctx, time.Now().Add(long))
			if got := told(t, p); len(got) != 1 || !strings.Contains(got[0], "has not answered") {
				t.Errorf("people are told %q", got)
			}
		}, "agent mx1 was asked and has not answered"},
		{"a late answer", func(ctx context.Context, p *pipeline, a *asking) {
			a.agent, a.until = "mx1", time.Now().Add(agentAnswers)
			p.chaseAgents(ctx, time.Now().Add(long))
			p.heardOfReset(ctx, agentReset{"mx2", hub.ResetReport{ID: a.decision.ID, OK: true, Given: true, Detail: "trust me"}})
			p.heardOfReset(ctx, agentReset{"mx1", hub.ResetReport{ID: a.decision.ID, OK: true, Given: true, Changed: true, Detail: "done at last"}})
		}, "agent mx1: done at last"},
		{"unblocked meanwhile", func(ctx context.Context, p *pipeline, a *asking) {
			a.agent = "mx1"
			p.stopAsking(ctx, victim)
			p.chaseAgents(ctx, time.Now().Add(long))
		}, "unblocked before agent mx1 answered"},
		{"a late answer that nobody hears", func(ctx context.Context, p *pipeline, a *asking) {
			a.agent, a.until = "mx1", time.Now().Add(agentAnswers)
			p.chaseAgents(ctx, time.Now().Add(long))
			p.chaseAgents(ctx, time.Now().Add(lateAnswers+2*long))
			p.heardOfReset(ctx, agentReset{"mx1", hub.ResetReport{ID: a.decision.ID, OK: true, Given: true, Changed: true, Detail: "done at last"}})
		}, "has not answered"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, _, _ := hubOfResets(t)
			p.sessions = nil
			d := rules.Decision{ID: "r1", Rule: byOperator, Subject: victim, Action: rules.Reset, Time: time.Now(), Enforce: true}
			if _, err := p.store.Commit(t.Context(), store.Batch{Decisions: []rules.Decision{d}}); err != nil {
				t.Fatal(err)
			}
			order := &order{done: make(chan ordered, 1)}
			p.beginReset(t.Context(), passwordReset{step: step{decision: d}, order: order})
			if p.fleet.resets.waits["r1"] == nil || len(order.done) > 0 {
				t.Fatal("nobody is waited for")
			}
			row.play(t.Context(), p, p.fleet.resets.waits["r1"])
			rows, err := p.store.Decisions(t.Context(), store.DecisionFilter{})
			if err != nil || len(rows) != 1 || !strings.Contains(rows[0].Outcome, row.want) || rows[0].OK != strings.Contains(row.want, "at last") {
				t.Errorf("%+v, %v; want %q", rows, err, row.want)
			}
			if r := <-order.done; len(r.result.Failed) != 1 && !strings.Contains(strings.Join(r.result.Done, ""), "has not answered yet") {
				t.Errorf("the operator is told %+v", r)
			}
		})
	}
}

// told is what people are told by mail.
func told(t *testing.T, p *pipeline) (texts []string) {
	t.Helper()
	rows, err := p.store.Due(t.Context(), time.Now().Add(time.Minute), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		texts = append(texts, string(row.Body))
	}
	return texts
}

// crashed is the hub after a crash: what it had in memory is gone.
func (h *listeningHub) crashed(t *testing.T, p *pipeline) *pipeline {
	t.Helper()
	after := asked(t)
	after.store, after.fleet = p.store, h.fleet
	var err error
	if h.fleet.resets, err = loadFleetResets(t.Context(), p.store); err != nil {
		t.Fatal(err)
	}
	h.board = &hub.Board{}
	after.acts = &enforce.Executor{Gate: gates{h.board}}
	return after
}

// orderReset begins a reset as an operator's order does.
func orderReset(t *testing.T, p *pipeline, id string) (d rules.Decision, done chan ordered) {
	t.Helper()
	d = rules.Decision{ID: id, Rule: byOperator, Subject: victim, Action: rules.Reset, Time: time.Now(), Enforce: true, Why: "ordered by root"}
	if _, err := p.store.Commit(t.Context(), store.Batch{Decisions: []rules.Decision{d}}); err != nil {
		t.Fatal(err)
	}
	order := &order{done: make(chan ordered, 1)}
	p.beginReset(t.Context(), passwordReset{step: step{decision: d}, order: order})
	return d, order.done
}

// resetSaid is what the board says of the victim's password.
func (h *listeningHub) resetSaid() hub.Reset {
	c, _, _ := h.board.Since(0, true, func(string) bool { return true })
	if len(c.Set) == 0 {
		return hub.Reset{}
	}
	return c.Set[0].Reset
}

// Two agents that reach one database: after a crash of the hub the one that was
// asked is asked again, also if the other is back first.
func TestResetIsAskedOfTheSameAgentAfterACrash(t *testing.T) {
	p, h, _ := hubOfResets(t)
	ignore := func(*hub.Client, hub.Order) {}
	h.playAgent(t, "mx2", true, ignore)
	d, _ := orderReset(t, p, "r1")
	if got := h.resetSaid(); got.Agent != "mx2" {
		t.Fatalf("asked %+v", got)
	}
	h.playAgent(t, "mx1", true, ignore)
	after := h.crashed(t, p)
	after.resume(t.Context(), step{decision: d})
	if got := h.resetSaid(); got != (hub.Reset{ID: "r1", Agent: "mx2"}) {
		t.Errorf("after the crash %+v is asked", got)
	}
	after.heardOfReset(t.Context(), agentReset{"mx2", hub.ResetReport{ID: "r1", OK: true, Changed: true, Given: true}})
	if got := h.resetSaid(); got != (hub.Reset{ID: "r1", Done: true}) {
		t.Errorf("when it is done: %+v", got)
	}

	again := h.crashed(t, after)
	d.Action = rules.Block
	again.acts.DoAll(t.Context(), []rules.Decision{d})
	again.resumeDone()
	if got := h.resetSaid(); got != (hub.Reset{ID: "r1", Done: true}) || len(again.fleet.resets.Asked) > 0 {
		t.Errorf("after another crash: %+v, asked %v", got, again.fleet.resets.Asked)
	}
}

// A second reset of an account does not take the place of one that is under way.
func TestTwoResetsOfOneAccount(t *testing.T) {
	p, h, _ := hubOfResets(t)
	h.playAgent(t, "mx1", true, func(*hub.Client, hub.Order) {})
	orderReset(t, p, "r1")
	_, done := orderReset(t, p, "r2")
	if r := <-done; len(r.result.Failed) != 1 || !strings.Contains(r.result.Failed[0], "another reset") {
		t.Errorf("the second: %+v", r)
	}
	if got := h.resetSaid(); got != (hub.Reset{ID: "r1", Agent: "mx1"}) {
		t.Errorf("%+v is asked", got)
	}
}

// A reset that failed is not taken for done because tables are as they should be
// after a restart.
func TestFailedResetStaysFailed(t *testing.T) {
	p, _, _ := hubOfResets(t)
	d, _ := orderReset(t, p, "r1")
	p.chaseAgents(t.Context(), time.Now().Add(agentComes+time.Second))
	after := &service{pipeline: p}
	if err := after.restoreDecisions(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	after.recovered(t.Context(), time.Now().Add(time.Hour))
	rows, err := p.store.Decisions(t.Context(), store.DecisionFilter{Subject: d.Subject})
	if err != nil || len(rows) != 1 || rows[0].OK {
		t.Errorf("%+v, %v", rows, err)
	}
}

// A script has no password, and no agent is asked for one.
func TestResetOfAScript(t *testing.T) {
	p, _, _ := hubOfResets(t)
	answers(t, p)
	result, err := p.Act(t.Context(), web.Order{Do: doReset, Account: "script:mx1!/x.php", Who: "root"})
	if err != nil || len(result.Failed) != 1 || !strings.Contains(result.Failed[0], "has no password") {
		t.Errorf("%+v, %v", result, err)
	}
}

// erring is an agent that does what its hub asks.
func erring(t *testing.T, db *store.DB, r *resets) *service {
	t.Helper()
	p := asked(t)
	if db != nil {
		p.store = db
	}
	p.resetter, p.handsOver, p.forward = r, true, newForwarder()
	var err error
	if p.errands, err = newErrands(t.Context(), p.store, p.log); err != nil {
		t.Fatal(err)
	}
	p.resets, p.resetDone, p.resetPause = make(chan passwordReset, maxResets), make(chan passwordReset), time.Millisecond
	return &service{pipeline: p}
}

// run does what waits, as the two goroutines of a service would.
func (s *service) runErrands(t *testing.T) {
	t.Helper()
	for len(s.resets) > 0 {
		r := <-s.resets
		go s.changePassword(t.Context(), r)
		s.afterReset(t.Context(), <-s.resetDone)
	}
}

// told is what the hub would be told.
func (s *service) told() (all []hub.ResetReport) {
	for len(s.errands.tell) > 0 {
		all = append(all, <-s.errands.tell)
	}
	return all
}

func TestErrands(t *testing.T) {
	r := &resets{}
	s := erring(t, nil, r)
	asked := hub.Order{Decision: rules.Decision{ID: "r1", Subject: victim, Action: rules.Reset}, Reset: hub.Reset{ID: "r1"}}
	blocked := enforce.Outcome{OK: true}
	given := hub.ResetReport{ID: "r1", OK: true, Changed: true, Given: true, Detail: "password: sql"}

	s.heed(t.Context(), asked, blocked)
	s.heed(t.Context(), asked, blocked) // the hub says it again while it is under way
	s.runErrands(t)
	if got := s.told(); len(r.done()) != 1 || !slices.Equal(got, []hub.ResetReport{given}) {
		t.Errorf("did %+v, told %+v", r.done(), got)
	}
	s.heed(t.Context(), asked, blocked) // the hub has not heard
	s.runErrands(t)
	if got := s.told(); len(r.done()) != 1 || !slices.Equal(got, []hub.ResetReport{given}) {
		t.Errorf("again: did %+v, told %+v", r.done(), got)
	}
	after := erring(t, s.store, r)
	if got := after.told(); !slices.Equal(got, []hub.ResetReport{given}) {
		t.Errorf("after a restart: told %+v", got)
	}
	after.heed(t.Context(), asked, blocked)
	after.runErrands(t)
	if got := after.told(); len(r.done()) != 1 || !slices.Equal(got, []hub.ResetReport{given}) {
		t.Errorf("asked after a restart: did %+v, told %+v", r.done(), got)
	}
	after.errands.told(t.Context(), given)
	if got := erring(t, s.store, r).told(); len(got) > 0 {
		t.Errorf("after another restart: told %+v, which the hub has heard", got)
	}

	asked.Decision.ID, asked.Reset.ID = "r2", "r2"
	after.heed(t.Context(), asked, blocked) // and crashes
	crashed := erring(t, s.store, r)
	crashed.heed(t.Context(), asked, blocked)
	crashed.runErrands(t)
	if did := r.done(); len(did) != 2 || !did[1].Again || did[0].Again {
		t.Errorf("after a crash: did %+v", did)
	}

	asked.Decision.ID, asked.Reset.ID = "r3", "r3"
	s.heed(t.Context(), asked, enforce.Outcome{Detail: "postmap: no space left"})
	s.runErrands(t)
	if got := s.told(); len(r.done()) != 2 || len(got) != 1 || got[0].OK || got[0].Changed || !strings.Contains(got[0].Detail, "the block is not confirmed") {
		t.Errorf("without a block: did %d, told %+v", len(r.done()), got)
	}

	s.handsOver = false
	asked.Reset.ID = "r4"
	s.heed(t.Context(), asked, blocked)
	if got := s.told(); len(got) != 1 || !got[0].Declined {
		t.Errorf("without a handover: told %+v", got)
	}

	e := &ended{}
	s.sessions = e
	for _, id := range []string{"r1", "r5", "r5"} { // r1 was done here
		s.heed(t.Context(), hub.Order{Decision: rules.Decision{Subject: victim}, Reset: hub.Reset{ID: id, Done: true}}, blocked)
	}
	s.runErrands(t)
	if got := e.list(); !slices.Equal(got, []string{"r5"}) || len(s.told()) > 0 {
		t.Errorf("sessions ended for %q", got)
	}

	e.fails = true
	s.heed(t.Context(), hub.Order{Decision: rules.Decision{Subject: victim}, Reset: hub.Reset{ID: "r6", Done: true}}, blocked)
	go func() { (<-s.asks)(); close(s.done) }()
	s.runErrands(t)
	<-s.done
	if f := s.forward.findings; len(f) != 1 || !strings.Contains(f[0].Evidence[0].Text, "dovecot is not there") {
		t.Errorf("people are told %+v", f)
	}
}
