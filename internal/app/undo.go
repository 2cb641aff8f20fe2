package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/rules"
)

// maxSince is how far back a bad hour can be undone.
const maxSince = 7 * 24 * time.Hour

// plan says exactly what an order would do.
func (p *pipeline) plan(o web.Order) web.Result {
	would := &order{Order: o, account: p.canonical(o.Account), at: time.Now()}
	plan := p.acts.Plan(would.decision())
	if o.Do == doReset {
		plan = append(plan, p.resetPlan(string(would.account))...)
	}
	return web.Result{Account: string(would.account), Done: plan}
}

// undo lifts everything that the rules decided lately, for an hour in which
// they were wrong. What people ordered stands, and nothing is learnt: whoever
// goes on may be stopped again. It is as if each account were unblocked, and
// the journal says so of each; but what was held of their mail goes out, as
// after a release.
func (p *pipeline) undo(ctx context.Context, o web.Order) (web.Result, error) {
	decisions, err := p.automatic(ctx, time.Now().Add(-o.Since))
	if err != nil {
		return web.Result{}, fmt.Errorf("undo: %w", err)
	}
	result := web.Result{Done: []string{}}
	if len(decisions) == 0 {
		result.Done = append(result.Done, fmt.Sprintf("nothing in force was decided in the last %s", o.Since))
		return result, nil
	}
	why := "undo of the last " + o.Since.String()
	if o.Why != "" {
		why += ": " + o.Why
	}
	for _, d := range decisions {
		if o.DryRun {
			result.Done = append(result.Done, fmt.Sprintf("would lift: %s of %s, since %s: %s", d.Action, d.Subject, d.Time.Local().Format(time.DateTime), d.Why))
			continue
		}
		one, err := p.act(ctx, web.Order{Do: doUnblock, Account: d.Subject, Who: o.Who, Why: why}, true)
		result.Done = append(result.Done, one.Done...)
		result.Failed = append(result.Failed, one.Failed...)
		if err != nil {
			result.Failed = append(result.Failed, err.Error())
		}
	}
	return result, nil
}

// automatic returns the decisions in force that the rules made since a time,
// one an account, and none of an account that a person has decided about.
func (p *pipeline) automatic(ctx context.Context, since time.Time) ([]rules.Decision, error) {
	active, err := p.store.Active(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	people, rows := map[string]bool{}, map[string]rules.Decision{}
	for _, d := range active {
		switch {
		case d.Rule == byOperator:
			people[d.Subject] = true
		case !d.Time.Before(since) && d.Action > rows[d.Subject].Action:
			rows[d.Subject] = d
		}
	}
	var all []rules.Decision
	for _, d := range rows {
		if !people[d.Subject] {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b rules.Decision) int { return a.Time.Compare(b.Time) })
	return all, nil
}
