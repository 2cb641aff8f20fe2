package app

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// Resets that agents are to do, and those after which agents are to end sessions:
// what of them outlives a crash. It is answer's.
type fleetResets struct {
	Asked map[string]string `json:"asked"` // the agent that is asked, by decision
	Done  map[string]string `json:"done"`  // the decision, by account

	waits map[string]*asking // by decision
}

const resetsSetting = "fleet-resets"

func loadFleetResets(ctx context.Context, db *store.DB) (*fleetResets, error) {
	r := &fleetResets{waits: map[string]*asking{}}
	text, err := db.SettingOnce(ctx, resetsSetting, []byte("{}"))
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil {
		return nil, fmt.Errorf("resets at agents: %w", err)
	}
	if r.Asked == nil {
		r.Asked = map[string]string{}
	}
	if r.Done == nil {
		r.Done = map[string]string{}
	}
	return r, nil
}

// saveResets writes down what outlives a crash.
func (p *pipeline) saveResets(ctx context.Context) error {
	ctx, cancel := finish(ctx)
	defer cancel()
	return p.store.SetSetting(ctx, resetsSetting, asJSON(p.fleet.resets))
}

// An asking is a reset that an agent is to do, because the account's password is
// on the agent's server. One agent is asked after the other: two that reach the
// same database would give the account two passwords.
type asking struct {
	passwordReset
	begun    time.Time
	agent    string // that is asked; empty: none is there yet
	declined map[string]bool
	until    time.Time // when it is given up: the waiting for an agent, or for its answer
	over     bool      // given up; the agent may still answer
}

// Bounds of the asking.
const (
	agentComes   = 15 * time.Second // for one to be connected: after its start the hub may have to wait for it
	agentAnswers = 6 * time.Minute  // longer than the tries of a reset
	askerWaits   = 45 * time.Second // less than an operator's command waits
	lateAnswers  = 24 * time.Hour   // from an agent that was cut off
)

// An agentReset is what an agent says became of a reset.
type agentReset struct {
	agent string
	hub.ResetReport
}

// resetDone hands over what an agent says.
func (f *fleet) resetDone(ctx context.Context, agent string, r hub.ResetReport) error {
	select {
	case f.done <- agentReset{agent, r}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// resetsDone is where that comes from; nil where there is no fleet.
func (f *fleet) resetsDone() <-chan agentReset {
	if f == nil {
		return nil
	}
	return f.done
}

// passwordChanged has the agents end what sessions the account has with its old
// password.
func (p *pipeline) passwordChanged(ctx context.Context, d rules.Decision) {
	if p.fleet == nil || !p.fleet.board.Reset(d.Subject, hub.Reset{ID: d.ID, Done: true}) {
		return
	}
	p.fleet.resets.Done[d.Subject] = d.ID
	if err := p.saveResets(ctx); err != nil {
		p.log.Error("agents that are away now may not end this account's sessions when they are back", "account", d.Subject, "err", err)
	}
}

// resumeDone says again of which accounts the password was changed. What is not in
// force any more is forgotten.
func (p *pipeline) resumeDone() {
	if p.fleet == nil {
		return
	}
	for account, id := range p.fleet.resets.Done {
		if !p.fleet.board.Reset(account, hub.Reset{ID: id, Done: true}) {
			delete(p.fleet.resets.Done, account)
		}
	}
}

// resetters are the agents that are there, may speak of the account, and can
// give accounts new passwords.
func (f *fleet) resetters(account string) (names []string) {
	for _, p := range f.server.Presences() {
		if p.Streams == 0 || !p.Resets {
			continue
		}
		member, err := f.roster.Member(p.Agent)
		if err != nil {
			continue // revoked
		}
		if _, ok := member.Local(mailq.Account(account)); ok {
			names = append(names, p.Agent)
		}
	}
	slices.Sort(names)
	return names
}

// askAgents has an agent give the account a new password. After a crash it asks
// the one that was asked before, which may have done it. What follows runs in
// answer too.
func (p *pipeline) askAgents(ctx context.Context, r passwordReset) {
	now, d := time.Now(), r.decision
	a := &asking{passwordReset: r, begun: now, declined: map[string]bool{}, until: now.Add(agentComes)}
	if mailq.Account(d.Subject).Kind() != mailq.KindLogin {
		p.giveUp(ctx, a, enforce.ResetUnchanged, d.Subject+" is not a login and has no password")
		return
	}
	for _, other := range p.fleet.resets.waits {
		if other.decision.Subject == d.Subject && !other.over {
			p.giveUp(ctx, a, enforce.ResetUnchanged, "another reset of the account is under way; wait for its outcome")
			return
		}
	}
	p.fleet.resets.waits[d.ID] = a
	if agent := p.fleet.resets.Asked[d.ID]; agent != "" {
		p.askOne(ctx, a, agent, now)
		return
	}
	p.askNext(ctx, a, now)
}

// askNext asks the next agent. Where there is none, one may still come.
func (p *pipeline) askNext(ctx context.Context, a *asking, now time.Time) {
	for _, agent := range p.fleet.resetters(a.decision.Subject) {
		if !a.declined[agent] {
			p.askOne(ctx, a, agent, now)
			return
		}
	}
	if now.Before(a.until) {
		return
	}
	why := "no agent that is connected can change it and hand it over"
	if len(a.declined) > 0 {
		why = "no agent that is connected has this account's password"
	}
	p.giveUp(ctx, a, enforce.ResetUnchanged, "the password is not changed: "+noResetting+", here or at the account's agents; "+why)
}

// askOne asks an agent. Which one is written down before: were another asked after a
// crash, the account might get two passwords.
func (p *pipeline) askOne(ctx context.Context, a *asking, agent string, now time.Time) {
	d := a.decision
	p.fleet.resets.Asked[d.ID] = agent
	if err := p.saveResets(ctx); err != nil {
		p.giveUp(ctx, a, enforce.ResetUnchanged, fmt.Sprintf("which agent is asked is not written down, so it is not asked: %v", err))
		return
	}
	if !p.fleet.board.Reset(d.Subject, hub.Reset{ID: d.ID, Agent: agent}) {
		p.giveUp(ctx, a, enforce.ResetUnchanged, "the account is not stopped any more, so its password was not changed")
		return
	}
	a.agent, a.until = agent, now.Add(agentAnswers)
	p.log.Info("an agent is asked for a reset", "account", d.Subject, "agent", agent)
}

// chaseAgents asks agents that have come, and gives up those that do not answer.
func (p *pipeline) chaseAgents(ctx context.Context, now time.Time) {
	if p.fleet == nil {
		return
	}
	for id, a := range p.fleet.resets.waits {
		if a.order != nil && !now.Before(a.begun.Add(askerWaits)) {
			p.answerAsker(a)
		}
		switch {
		case !a.over && a.agent == "":
			p.askNext(ctx, a, now)
		case now.Before(a.until):
		case a.over:
			delete(p.fleet.resets.waits, id)
		default:
			p.fleet.board.Unask(a.decision.Subject, id)
			late := *a
			p.giveUp(ctx, a, enforce.ResetUncertain, fmt.Sprintf("agent %s was asked and has not answered in %s: look there whether the password is changed", a.agent, agentAnswers))
			late.over, late.order, late.until = true, nil, now.Add(lateAnswers)
			late.finding = orderedFinding(late.step)
			p.fleet.resets.waits[id] = &late
		}
	}
}

// answerAsker tells an operator, before he hangs up, that it takes longer.
func (p *pipeline) answerAsker(a *asking) {
	text := "the account is blocked; an agent that can change its password is waited for"
	if a.agent != "" {
		text = "the account is blocked; agent " + a.agent + " is asked to change its password, and has not answered yet"
	}
	a.order.done <- ordered{result: web.Result{Account: a.decision.Subject, Done: []string{text, "what comes of it will be in vedetta journal, and people are told if it fails"}}}
	a.order = nil
}

// orderedFinding is the finding of a step, or stands for one where an operator
// wanted it who does not wait any more.
func orderedFinding(s step) rules.Finding {
	if s.finding.ID != "" {
		return s.finding
	}
	d := s.decision
	return rules.Finding{
		ID: rules.FindingID(byOperator, d.Subject, d.Time), Rule: byOperator, Subject: d.Subject, Time: d.Time, Since: d.Time,
		Evidence: []rules.Evidence{{Kind: rules.Coverage, Text: d.Why}},
	}
}

// giveUp ends a reset that no agent has done.
func (p *pipeline) giveUp(ctx context.Context, a *asking, state enforce.ResetState, why string) {
	a.out = enforce.ResetOutcome{Outcome: enforce.Outcome{Detail: why}, State: state}
	p.endAsking(ctx, a.passwordReset)
}

// endAsking ends a reset that is asked of nobody any more.
func (p *pipeline) endAsking(ctx context.Context, r passwordReset) {
	id := r.decision.ID
	delete(p.fleet.resets.waits, id)
	p.endReset(ctx, r)
	if _, asked := p.fleet.resets.Asked[id]; !asked {
		return
	}
	delete(p.fleet.resets.Asked, id)
	if err := p.saveResets(ctx); err != nil {
		p.log.Error("that a reset is over is written down later", "reset", id, "err", err)
	}
}

// stopAsking gives up what was asked about an account that may send again.
func (p *pipeline) stopAsking(ctx context.Context, account string) {
	if p.fleet == nil {
		return
	}
	delete(p.fleet.resets.Done, account)
	for id, a := range p.fleet.resets.waits {
		switch {
		case a.decision.Subject != account:
		case a.over:
			delete(p.fleet.resets.waits, id)
		case a.agent == "":
			p.giveUp(ctx, a, enforce.ResetUnchanged, "the account was unblocked before its password was changed")
		default:
			p.giveUp(ctx, a, enforce.ResetUncertain, fmt.Sprintf("the account was unblocked before agent %s answered: look there whether the password is changed", a.agent))
		}
	}
}

// heardOfReset takes what the agent that was asked says, and nobody else's word.
func (p *pipeline) heardOfReset(ctx context.Context, said agentReset) {
	a := p.fleet.resets.waits[said.ID]
	switch {
	case a == nil || a.agent != said.agent:
		p.fleet.unasked.Warn(p.log, "an agent tells of a reset that it is not asked for, or of one twice", "agent", said.agent, "reset", said.ID, "changed", said.Changed, "detail", said.Detail)
	case said.Declined && a.over:
	case said.Declined:
		a.declined[said.agent] = true
		a.agent, a.until = "", a.begun.Add(agentComes)
		p.fleet.board.Unask(a.decision.Subject, said.ID)
		p.askNext(ctx, a, time.Now())
	default:
		delete(p.fleet.resets.waits, said.ID)
		p.fleet.board.Unask(a.decision.Subject, said.ID)
		p.doneBy(ctx, a.passwordReset, said)
	}
}

// doneBy ends a reset that an agent has done, after the sessions here.
func (p *pipeline) doneBy(ctx context.Context, r passwordReset, said agentReset) {
	r.by = " by agent " + said.agent
	r.out = enforce.ResetOutcome{Outcome: enforce.Outcome{OK: said.OK && said.Given, Detail: "agent " + said.agent + ": " + said.Detail}, State: stateSaid(said.ResetReport)}
	if r.out.State >= enforce.ResetChanged && p.sessions != nil {
		select {
		case p.resets <- r:
			return
		default:
			r.out.OK, r.out.Detail = false, r.out.Detail+"; too many resets wait, so sessions here were not ended"
		}
	}
	p.endAsking(ctx, r)
}

func stateSaid(r hub.ResetReport) enforce.ResetState {
	switch {
	case r.Given:
		return enforce.ResetGiven
	case r.Changed:
		return enforce.ResetChanged
	}
	return enforce.ResetUncertain
}

// planAtAgents says what a reset would do where no driver here has the password.
func (p *pipeline) planAtAgents(account string) []string {
	agents := p.fleet.resetters(account)
	if len(agents) == 0 {
		return []string{"refused: " + noResetting + ", here or at an agent"}
	}
	plan := make([]string, len(agents))
	for i, agent := range agents {
		plan[i] = "ask agent " + agent + " to change the password if it is there, end sessions, and hand the new one over"
	}
	return plan
}
