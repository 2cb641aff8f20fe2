package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// An asking is a reset that an agent is to do, because the account's password is
// on the agent's server. One agent is asked after the other: two that reach the
// same database would give the account two passwords.
type asking struct {
	passwordReset
	agent    string // that is asked; empty: none is there yet
	declined map[string]bool
	until    time.Time // when it is given up: the waiting for an agent, or for its answer
	over     bool      // given up; the agent may still answer
}

// Bounds of the asking.
const (
	agentComes   = 15 * time.Second // for one to be connected, of which the hub may have to wait for after its start
	agentAnswers = 6 * time.Minute  // longer than the tries of a reset
	lateAnswers  = 24 * time.Hour   // from an agent that was cut off
)

// A reportedReset is what an agent says of a reset.
type reportedReset struct {
	agent string
	hub.ResetReport
}

// report hands over what an agent says.
func (f *fleet) report(ctx context.Context, agent string, r hub.ResetReport) error {
	select {
	case f.reports <- reportedReset{agent, r}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reported is where the reports come from; nil where there is no fleet.
func (f *fleet) reported() <-chan reportedReset {
	if f == nil {
		return nil
	}
	return f.reports
}

// passwordChanged has the agents end what sessions the account has with its old
// password.
func (f *fleet) passwordChanged(d rules.Decision) {
	if f != nil {
		f.board.Reset(d.Subject, hub.Reset{ID: d.ID, Done: true})
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

// askAgents has an agent give the account a new password. What follows runs in
// answer too.
func (p *pipeline) askAgents(ctx context.Context, r passwordReset) {
	now := time.Now()
	a := &asking{passwordReset: r, declined: map[string]bool{}, until: now.Add(agentComes)}
	if mailq.Account(r.decision.Subject).Kind() != mailq.KindLogin {
		p.giveUp(ctx, a, enforce.ResetUnchanged, r.decision.Subject+" is not a login and has no password")
		return
	}
	p.fleet.asked[r.decision.ID] = a
	p.askNext(ctx, a, now)
}

// askNext asks the next agent. Where there is none, one may still come.
func (p *pipeline) askNext(ctx context.Context, a *asking, now time.Time) {
	d := a.decision
	for _, agent := range p.fleet.resetters(d.Subject) {
		if a.declined[agent] {
			continue
		}
		a.agent, a.until = agent, now.Add(agentAnswers)
		p.log.Info("an agent is asked for a reset", "account", d.Subject, "agent", agent)
		p.fleet.board.Reset(d.Subject, hub.Reset{ID: d.ID, Agent: agent})
		return
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

// chaseAgents asks agents that have come, and gives up those that do not answer.
func (p *pipeline) chaseAgents(ctx context.Context, now time.Time) {
	if p.fleet == nil {
		return
	}
	for id, a := range p.fleet.asked {
		switch {
		case !a.over && a.agent == "":
			p.askNext(ctx, a, now)
		case now.Before(a.until):
		case a.over:
			delete(p.fleet.asked, id)
		default:
			p.fleet.board.Reset(a.decision.Subject, hub.Reset{})
			p.giveUp(ctx, a, enforce.ResetUncertain, fmt.Sprintf("agent %s was asked and has not answered in %s: look there whether the password is changed", a.agent, agentAnswers))
			late := *a
			late.over, late.order, late.until = true, nil, now.Add(lateAnswers)
			p.fleet.asked[id] = &late
		}
	}
}

// giveUp ends a reset that no agent has done.
func (p *pipeline) giveUp(ctx context.Context, a *asking, state enforce.ResetState, why string) {
	delete(p.fleet.asked, a.decision.ID)
	a.out = enforce.ResetOutcome{Outcome: enforce.Outcome{Detail: why}, State: state}
	p.endReset(ctx, a.passwordReset)
}

// stopAsking gives up what was asked about an account that may send again.
func (p *pipeline) stopAsking(ctx context.Context, account string) {
	if p.fleet == nil {
		return
	}
	for id, a := range p.fleet.asked {
		switch {
		case a.decision.Subject != account:
		case a.over:
			delete(p.fleet.asked, id)
		case a.agent == "":
			p.giveUp(ctx, a, enforce.ResetUnchanged, "the account was unblocked before its password was changed")
		default:
			p.giveUp(ctx, a, enforce.ResetUncertain, fmt.Sprintf("the account was unblocked before agent %s answered: look there whether the password is changed", a.agent))
		}
	}
}

// heardOfReset takes what the agent that was asked says, and nobody else's word.
func (p *pipeline) heardOfReset(ctx context.Context, said reportedReset) {
	a := p.fleet.asked[said.ID]
	switch {
	case a == nil || a.agent != said.agent:
		p.log.Warn("an agent tells of a reset that it is not asked for, or of one twice", "agent", said.agent, "reset", said.ID)
	case said.Declined && a.over:
	case said.Declined:
		a.declined[said.agent] = true
		a.agent, a.until = "", time.Now()
		p.fleet.board.Reset(a.decision.Subject, hub.Reset{})
		p.askNext(ctx, a, time.Now())
	default:
		delete(p.fleet.asked, said.ID)
		p.fleet.board.Reset(a.decision.Subject, hub.Reset{})
		p.doneBy(ctx, a.passwordReset, said)
	}
}

// doneBy ends a reset that an agent has done, after the sessions here.
func (p *pipeline) doneBy(ctx context.Context, r passwordReset, said reportedReset) {
	r.by = " by agent " + said.agent
	r.out = enforce.ResetOutcome{Outcome: enforce.Outcome{OK: said.OK && said.Given, Detail: "agent " + said.agent + ": " + said.Detail}, State: stateSaid(said.ResetReport)}
	if said.Changed && p.sessions != nil {
		select {
		case p.resets <- r:
			return
		default:
			r.out.OK, r.out.Detail = false, r.out.Detail+"; too many resets wait, so sessions here were not ended"
		}
	}
	p.endReset(ctx, r)
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
