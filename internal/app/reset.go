package app

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/rules"
)

// A resetter gives accounts new passwords.
type resetter interface {
	Covers(account string) bool
	Do(ctx context.Context, r enforce.Reset) enforce.ResetOutcome
	Plan(r enforce.Reset) []string
	Forget() []string // accounts whose password nobody knows any more
}

// A sessionEnder ends the sessions of accounts whose password was changed
// elsewhere.
type sessionEnder interface {
	EndSessions(ctx context.Context, r enforce.Reset) enforce.Outcome
}

// A passwordReset is a new password on its way: behind a block that is in
// place, done beside everything else, for a database or a panel may take long.
type passwordReset struct {
	step
	again bool
	by    string // whom it was done by elsewhere, and only the sessions here are left
	tries int
	order *order // who waits for it; nil if the rules asked
	out   enforce.ResetOutcome
}

const (
	maxResets   = 1000 // that wait
	resetsOnce  = 4    // at the same time
	resetTries  = 2    // then it is left to people
	resetPause  = 30 * time.Second
	resetLasts  = 2 * time.Minute
	noResetting = "nothing says where passwords are changed: configure reset, or a panel"
)

// canReset finds how passwords are changed and sessions ended, as far as the
// configuration says.
func (p *pipeline) canReset(c config.Config, panels panels) error {
	p.resets, p.resetDone, p.resetPause = make(chan passwordReset, maxResets), make(chan passwordReset), resetPause
	r, err := newResetter(c, panels)
	if err != nil {
		return err
	}
	if len(r.Passwords) > 0 {
		p.resetter, p.handsOver = r, r.Handover != nil
	}
	if len(r.Sessions) > 0 {
		p.sessions = r
	}
	return nil
}

func newResetter(c config.Config, p panels) (r *enforce.Resetter, err error) {
	r = &enforce.Resetter{}
	if r.Passwords, err = newPasswords(c); err != nil {
		return nil, err
	}
	r.Passwords = append(r.Passwords, p.passwords...)
	if len(r.Passwords) > 0 {
		if r.Handover, err = newHandover(c.Reset.Handover); err != nil {
			return nil, err
		}
	}
	r.Sessions, err = newSessions(c, len(r.Passwords) > 0)
	return r, err
}

// newSessions is how sessions are ended. Where no passwords are changed, another
// server of the fleet does that; whether there is a Dovecot here, its program
// says.
func newSessions(c config.Config, passwords bool) (all []enforce.Sessions, err error) {
	dovecot := enforce.DovecotSessions{Command: c.Dovecot.Doveadm, ConfigFile: c.Dovecot.ConfigFile, Timeout: time.Duration(c.Dovecot.Timeout)}
	if c.Reset.Sessions && (passwords || installed(c.Dovecot.Doveadm)) {
		all = append(all, dovecot)
	}
	if len(c.Reset.Revoke) > 0 {
		revoke := enforce.CommandSessions{Argv: c.Reset.Revoke}
		if err := revoke.Check(); err != nil {
			return nil, fmt.Errorf("reset.revoke: %w", err)
		}
		all = append(all, revoke)
	}
	return all, nil
}

// installed reports whether there is a program to run.
func installed(argv []string) bool {
	if len(argv) == 0 {
		return false
	}
	_, err := exec.LookPath(argv[0])
	return err == nil
}

// checked is a driver that knows what is wrong with its settings.
type checked interface {
	enforce.Passwords
	Check() error
}

func newPasswords(c config.Config) (all []enforce.Passwords, err error) {
	r := c.Reset
	drivers := []struct {
		field string
		used  bool
		checked
	}{
		{"passwd_file", r.PasswdFile.Path != "", enforce.PasswdFile{
			Path: r.PasswdFile.Path, Key: r.PasswdFile.Key, Scheme: enforce.Scheme(r.PasswdFile.Scheme), Domains: r.PasswdFile.Domains,
		}},
		{"sql", r.SQL.Driver != "", enforce.SQLPasswords{
			Driver: r.SQL.Driver, DSN: string(r.SQL.DSN), Query: r.SQL.Query, Select: r.SQL.Select, Scheme: enforce.Scheme(r.SQL.Scheme), Domains: r.SQL.Domains,
		}},
		{"command", len(r.Command) > 0, enforce.CommandPasswords{Argv: r.Command}},
		{"webhook", r.Webhook.URL != "", enforce.WebhookPasswords{URL: string(r.Webhook.URL), Secret: string(r.Webhook.Secret)}},
	}
	for _, d := range drivers {
		if !d.used {
			continue
		}
		if err := d.Check(); err != nil {
			return nil, fmt.Errorf("reset.%s: %w", d.field, err)
		}
		all = append(all, d.checked)
	}
	return all, nil
}

func newHandover(c config.HandoverWays) (h enforce.Handover, err error) {
	var check func() error
	switch {
	case len(c.Command) > 0:
		way := enforce.HandoverCommand{Argv: c.Command}
		h, check = way, way.Check
	case c.Directory != "":
		way := enforce.HandoverFile{Dir: c.Directory}
		h, check = way, way.Check
	case c.Webhook.URL != "":
		way := enforce.HandoverWebhook{URL: string(c.Webhook.URL), Secret: string(c.Webhook.Secret)}
		h, check = way, way.Check
	default:
		return nil, nil
	}
	if err := check(); err != nil {
		return nil, fmt.Errorf("reset.handover: %w", err)
	}
	return h, nil
}

// resetBehind begins the reset that the rules want behind a block, once that
// block is confirmed. The reset's own decision has no end: the block does not
// run out before its owner has the new password.
func (p *pipeline) resetBehind(ctx context.Context, s step) {
	if s.decision.Action != rules.Block || s.decision.Rule == byOperator {
		return
	}
	d, ok := p.judge.policy.Reset(s.finding)
	if !ok || !d.Enforce {
		return
	}
	d.Time, d.Until = time.Now(), time.Time{}
	fresh, err := p.store.Commit(ctx, store.Batch{Decisions: []rules.Decision{d}})
	if err != nil {
		p.log.Error("a reset is not written down, so not done; the account stays blocked", "account", d.Subject, "err", err)
		return
	}
	if len(fresh) > 0 {
		p.beginReset(ctx, passwordReset{step: step{finding: s.finding, decision: d}})
	}
}

// beginReset confirms that the account is blocked and has its password
// changed. It runs in answer.
func (p *pipeline) beginReset(ctx context.Context, r passwordReset) {
	outcome := p.acts.DoAll(ctx, []rules.Decision{r.decision})[0]
	p.restrain(r.decision)
	switch {
	case !outcome.OK:
		r.out.Outcome = enforce.Outcome{Detail: "the block is not confirmed, so the password was not changed: " + outcome.Detail}
	case p.fleet != nil && !p.covers(r.decision.Subject):
		p.askAgents(ctx, r)
		return
	case p.resetter == nil:
		r.out.Outcome = enforce.Outcome{Detail: noResetting}
	case r.order == nil && !p.handsOver:
		r.out.Outcome = enforce.Outcome{Detail: "nobody would get the new password: configure reset.handover, or run vedetta reset " + r.decision.Subject}
	default:
		select {
		case p.resets <- r:
			return
		default:
			r.out.Outcome = enforce.Outcome{Detail: "too many resets wait"}
		}
	}
	p.endReset(ctx, r)
}

// covers reports whether the account's password is changed here.
func (p *pipeline) covers(account string) bool {
	return p.resetter != nil && p.resetter.Covers(account)
}

// changePasswords does resets until ctx ends, and hands what became of them
// back to answer.
func (p *pipeline) changePasswords(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(resetsOnce)
	defer func() {
		g.Wait()
		p.forgetPasswords()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-p.resets:
			g.Go(func() error {
				p.changePassword(ctx, r)
				return nil
			})
		}
	}
}

// forgetPasswords names the accounts whose new password was not handed over
// and goes with this process.
func (p *pipeline) forgetPasswords() {
	if p.resetter == nil {
		return
	}
	for _, account := range p.resetter.Forget() {
		p.log.Error("nobody has this account's new password: run vedetta reset again", "account", account)
	}
}

func (p *pipeline) changePassword(ctx context.Context, r passwordReset) {
	subject := r.decision.Subject
	for {
		p.tryReset(context.WithoutCancel(ctx), &r)
		r.tries++
		waits := r.order != nil || r.out.Driver == "" // a person can order it again; and no driver will come by itself
		if r.by != "" || r.out.OK || r.out.State == enforce.ResetGiven || r.tries >= resetTries || waits {
			break
		}
		p.log.Warn("reset failed, and is tried once more", "account", subject, "in", p.resetPause, "detail", r.out.Detail)
		if wait(ctx, p.resetPause) != nil {
			break
		}
	}
	if p.errands != nil && r.by != "" && !r.out.OK { // nobody waits for it who would tell
		p.report(ctx, lostCoverage("sessions of "+subject, time.Now(), r.out.Detail))
	}
	select {
	case p.resetDone <- r:
	case <-ctx.Done(): // without an outcome it is done again at the next start
	}
}

// tryReset does a reset once, or what is left of one that was done elsewhere.
func (p *pipeline) tryReset(ctx context.Context, r *passwordReset) {
	ctx, cancel := context.WithTimeout(ctx, resetLasts)
	defer cancel()
	subject := r.decision.Subject
	order := enforce.Reset{ID: r.decision.ID, Account: subject, Logins: p.directory.Logins(subject), Again: r.again}
	if r.by == "" {
		r.out = p.resetter.Do(ctx, order)
		return
	}
	ended := p.sessions.EndSessions(ctx, order)
	r.out.OK, r.out.Detail = r.out.OK && ended.OK, joined(r.out.Detail, ended.Detail)
}

// afterReset takes a reset whose tries are over. It runs in answer.
func (p *pipeline) afterReset(ctx context.Context, r passwordReset) {
	switch {
	case p.errands != nil: // the hub asked for it
		p.errands.done(ctx, r)
	case r.by != "":
		p.endAsking(ctx, r)
	default:
		p.endReset(ctx, r)
	}
}

// endReset notes what became of a reset and tells who waits, and the people on
// duty if it was not done. It runs in answer.
func (p *pipeline) endReset(ctx context.Context, r passwordReset) {
	now, d := time.Now(), r.decision
	if r.tries >= resetTries && !r.out.OK {
		r.out.Detail = fmt.Sprintf("tried %d times, do it by hand: %s", r.tries, r.out.Detail)
	}
	if r.out.State >= enforce.ResetChanged {
		p.passwordChanged(ctx, d)
	}
	p.metrics.decided(d, r.out.Outcome)
	p.log.Info("reset", "account", d.Subject, "ok", r.out.OK, "detail", r.out.Detail)
	p.untold.outcomes = append(p.untold.outcomes, outcomeOf{d.ID, now, r.out.Outcome})
	if r.order == nil && !r.out.OK {
		r.finding = orderedFinding(r.step)
	}
	if change, ok := p.record(r.step, r.out.Outcome, now); ok && r.order == nil {
		p.post(ctx, []incident.Change{change})
	} else {
		p.settle(ctx)
	}
	if r.order != nil {
		r.order.done <- ordered{result: r.result()}
	}
}

// result is what the operator is told, with the password if it is his to pass
// on.
func (r *passwordReset) result() web.Result {
	result := web.Result{Account: r.decision.Subject, Password: r.out.Password.Reveal()}
	switch {
	case r.out.State == enforce.ResetGiven && result.Password != "":
		result.Done = append(result.Done, "the password is changed; the new one is shown this once")
	case r.out.State == enforce.ResetGiven:
		result.Done = append(result.Done, "the password is changed and handed over"+r.by)
	}
	if r.out.State == enforce.ResetGiven || r.out.OK {
		result.Done = append(result.Done, "the account stays blocked: vedetta unblock "+r.decision.Subject+", when its owner has the password")
	}
	if !r.out.OK {
		result.Failed = append(result.Failed, r.out.Detail)
	}
	return result
}

// resetPlan says exactly what a reset would do besides the block.
func (p *pipeline) resetPlan(subject string) []string {
	switch {
	case p.fleet != nil && !p.covers(subject):
		return p.planAtAgents(subject)
	case p.resetter == nil:
		return []string{"refused: " + noResetting}
	}
	return p.resetter.Plan(enforce.Reset{ID: "dry-run", Account: subject, Logins: p.directory.Logins(subject)})
}

// resume does a reset again that the last run began and did not end. One that
// an operator asked for has nobody left to show the password to.
func (p *pipeline) resume(ctx context.Context, s step) {
	r := passwordReset{step: s, again: true}
	if s.decision.Rule == byOperator && p.covers(s.decision.Subject) && !p.handsOver {
		p.acts.DoAll(ctx, []rules.Decision{s.decision})
		r.out.Outcome = enforce.Outcome{Detail: "interrupted: the password may have been changed; run vedetta reset again"}
		p.endReset(ctx, r)
		return
	}
	p.beginReset(ctx, r)
}
