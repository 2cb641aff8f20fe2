package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// The orders that an operator can give.
const (
	doHold    = "hold"
	doBlock   = "block"
	doReset   = "reset"
	doUnblock = "unblock"
	doRelease = "release"
	doUndo    = "undo"
)

func orders() []string {
	return []string{doHold, doBlock, doReset, doUnblock, doRelease, doUndo, doQueueHold, doQueueRelease, doQueueDelete}
}

// maxAccountName bounds what an operator may name, in bytes.
const maxAccountName = 512

// Act carries out an operator's order and returns when that is done. Orders
// pass through both halves of the pipeline, so that one never overtakes or is
// overtaken by a decision about the same account.
func (p *pipeline) Act(ctx context.Context, o web.Order) (web.Result, error) {
	if err := checkOrder(o); err != nil {
		return web.Result{}, err
	}
	switch {
	case p.forward != nil && !strings.HasPrefix(o.Do, "queue-"):
		return web.Result{}, fmt.Errorf("%w: this is an agent; its hub decides, so give the order there", web.ErrInvalid)
	case o.Do == doUndo:
		return p.undo(ctx, o)
	case strings.HasPrefix(o.Do, "queue-"):
		return p.orderQueue(ctx, o)
	case o.DryRun:
		return p.plan(o), nil
	}
	return p.act(ctx, o, false)
}

// act carries out an order about one account; wrong says that what it lifts
// was a mistake.
func (p *pipeline) act(ctx context.Context, o web.Order, wrong bool) (web.Result, error) {
	if account := p.canonical(o.Account); strengthOf(o.Do) > rules.Nothing && p.directory.IsShared(account) {
		return web.Result{}, fmt.Errorf("%w: several people use %s, and %s would stop them all: name the script, the login or the user behind it", web.ErrInvalid, account, o.Do)
	}
	order := &order{Order: o, wrong: wrong, account: p.canonical(o.Account), at: time.Now(), done: make(chan ordered, 1)}
	if o.Do == doRelease {
		order.key = "r-" + strconv.FormatInt(order.at.UnixNano(), 36)
	}
	if err := p.writeDown(ctx, order); err != nil {
		return web.Result{}, fmt.Errorf("%s %s: not written down, so not done: %w", o.Do, order.account, err)
	}
	// What is written down goes on, also when the asker has given up.
	if err := p.ask(context.WithoutCancel(ctx), func() { p.prepare(order) }); err != nil {
		return web.Result{}, fmt.Errorf("%s %s: %w", o.Do, order.account, err)
	}
	select {
	case r := <-order.done:
		return r.result, r.err
	case <-ctx.Done():
		return web.Result{}, fmt.Errorf("%s %s: not finished yet, see the journal: %w", o.Do, order.account, ctx.Err())
	case <-p.answered:
		return order.last()
	}
}

// last is what came of the order when the service ended: orders that had come
// to the second half are finished.
func (o *order) last() (web.Result, error) {
	select {
	case r := <-o.done:
		return r.result, r.err
	default:
	}
	if strengthOf(o.Do) > rules.Nothing {
		return web.Result{}, fmt.Errorf("%s %s: not done: %w", o.Do, o.account, errStopping)
	}
	return web.Result{}, fmt.Errorf("%s %s: written down, and in effect from the next start: %w", o.Do, o.account, errStopping)
}

// An order is an operator's order on its way through the pipeline.
type order struct {
	web.Order
	account mailq.Account
	at      time.Time
	key     string           // of a release
	ended   []rules.Decision // what an unblock or release ends
	queued  []string         // queue ids of the account's mail
	wrong   bool             // what is lifted was a mistake, so its held mail goes too
	done    chan ordered     // holds one
}

type ordered struct {
	result web.Result
	err    error
}

// Bounds of what an operator may say: bytes, and how long a block may last.
const (
	maxWho = 128
	maxWhy = 1024
	maxFor = 10 * 366 * 24 * time.Hour
)

func checkOrder(o web.Order) error {
	switch {
	case !slices.Contains(orders(), o.Do):
		return fmt.Errorf("%w: %q is none of %s", web.ErrInvalid, o.Do, strings.Join(orders(), ", "))
	case o.Do == doUndo && (o.Since <= 0 || o.Since > maxSince || o.Account != ""):
		return fmt.Errorf("%w: undo takes back what was decided in the last so much time, at most %s, about any account", web.ErrInvalid, maxSince)
	case o.Do != doUndo && !validAccount(o.Account, strengthOf(o.Do) == rules.Nothing):
		return fmt.Errorf("%w: %q is no account", web.ErrInvalid, o.Account)
	case o.DryRun && (o.Do == doUnblock || o.Do == doRelease):
		return fmt.Errorf("%w: a dry run of %s; see vedetta why for what is in force", web.ErrInvalid, o.Do)
	case o.For < 0 || o.For > maxFor:
		return fmt.Errorf("%w: %s for %s; it may last up to ten years, or with 0 until it is unblocked", web.ErrInvalid, o.Do, o.For)
	case o.Who == "" || len(o.Who) > maxWho || len(o.Why) > maxWhy:
		return fmt.Errorf("%w: needs who orders it, in at most %d bytes, and why in at most %d", web.ErrInvalid, maxWho, maxWhy)
	}
	return nil
}

// validAccount accepts every name that an account can have, for what was
// blocked must be possible to unblock: the path of a script may hold blanks. A
// blank at an end is a slip where somebody is to be stopped, but may be real
// where it is about one who is.
func validAccount(name string, blankEnds bool) bool {
	return name != "" && len(name) <= maxAccountName && utf8.ValidString(name) &&
		(blankEnds || strings.TrimSpace(name) == name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// writeDown notes an unblock or a release before anything is done about it.
func (p *pipeline) writeDown(ctx context.Context, o *order) (err error) {
	switch o.Do {
	case doUnblock:
		o.ended, err = p.store.EndDecisions(ctx, string(o.account), o.at, o.Who, o.Why)
	case doRelease:
		o.ended, err = p.store.Release(ctx, store.Release{Key: o.key, Subject: string(o.account), At: o.at, By: o.Who, Why: o.Why})
	}
	return err
}

// prepare runs in observe: it tells the detector, and finds the account's
// mail while the queue's state is at hand. The key of a release counts as
// learnt in the transaction that holds what was learnt.
func (p *pipeline) prepare(o *order) {
	switch o.Do {
	case doHold, doBlock, doReset:
		p.judge.detector.Stopped(o.account)
	case doUnblock:
		p.judge.detector.Clear(o.account, o.at)
		o.queued = p.queuedOf([]mailq.Account{o.account})
	case doRelease:
		p.judge.detector.Release(o.account, o.at, o.key)
		p.judge.risk.Release(o.account, o.at)
		p.learned = append(p.learned, o.key)
		o.queued = p.queuedOf([]mailq.Account{o.account})
	}
	p.orders = append(p.orders, o)
	p.dirty = true
}

// canonical is the account that an operator means.
func (p *pipeline) canonical(name string) mailq.Account {
	account := mailq.Account(name)
	switch account.Kind() {
	case mailq.KindLogin:
		return p.directory.Load().Canonical(name)
	case mailq.KindClient:
		if addr, err := netip.ParseAddr(name[len(mailq.KindClient)+1:]); err == nil {
			return mailq.Account(mailq.KindClient + ":" + addr.Unmap().String())
		}
	}
	return account
}

// queuedOf lists the messages of accounts in the queue, as the log tells them. It
// runs in observe.
func (p *pipeline) queuedOf(accounts []mailq.Account) (ids []string) {
	for m := range p.judge.parser.Queued {
		if slices.Contains(accounts, p.senderOf(m)) {
			ids = append(ids, m.QueueID)
		}
	}
	return ids
}

// ordersOnce is how many orders are carried out side by side.
const ordersOnce = 16

// obey runs in answer, after every step that was decided before the orders.
// Those about different accounts are carried out side by side, so that many of
// them write each table a few times only.
func (p *pipeline) obey(ctx context.Context, orders []*order) {
	for len(orders) > 0 {
		n := apart(orders)
		if orders[0].Do == doReset {
			p.reset(ctx, orders[0])
		} else {
			p.obeyTogether(ctx, orders[:n])
		}
		orders = orders[n:]
	}
}

// apart is how many of the orders, from the first on, are about an account
// that none before them is about. A reset stands alone.
func apart(orders []*order) int {
	about := map[mailq.Account]bool{}
	for i, o := range orders {
		if i > 0 && (about[o.account] || o.Do == doReset || orders[0].Do == doReset) {
			return i
		}
		about[o.account] = true
	}
	return len(orders)
}

// obeyTogether carries out orders about different accounts. What belongs to
// answer alone is done when all of them are.
func (p *pipeline) obeyTogether(ctx context.Context, orders []*order) {
	then := make([]func() ordered, len(orders))
	var g errgroup.Group
	g.SetLimit(ordersOnce)
	for i, o := range orders {
		g.Go(func() error {
			if strengthOf(o.Do) > rules.Nothing {
				then[i] = p.stop(ctx, o)
			} else {
				then[i] = p.lift(ctx, o)
			}
			return nil
		})
	}
	g.Wait()
	for i, o := range orders {
		o.done <- then[i]()
	}
}

// strengthOf is what an order puts in force, Nothing if it takes away.
func strengthOf(do string) rules.Action {
	switch do {
	case doHold:
		return rules.Hold
	case doBlock:
		return rules.Block
	case doReset:
		return rules.Reset
	}
	return rules.Nothing
}

// byOperator is the rule of decisions that people make.
const byOperator = "operator"

// decision is the decision that an order to hold or to block makes.
func (o *order) decision() rules.Decision {
	d := rules.Decision{
		ID: "o-" + strconv.FormatInt(o.at.UnixNano(), 36), Rule: byOperator, Subject: string(o.account), Action: strengthOf(o.Do), Time: o.at,
		Why: operatorWhy(o.Order), Enforce: true,
	}
	if o.For > 0 {
		d.Until = o.at.Add(o.For)
	}
	return d
}

// failedOrder is an order of which nothing was done.
func failedOrder(err error) func() ordered { return func() ordered { return ordered{err: err} } }

// stop holds or blocks an account. What it returns notes and tells that, in
// answer.
func (p *pipeline) stop(ctx context.Context, o *order) (then func() ordered) {
	d := o.decision()
	if _, err := p.store.Commit(ctx, store.Batch{Decisions: []rules.Decision{d}}); err != nil {
		return failedOrder(fmt.Errorf("%s %s: not written down, so not done: %w", o.Do, o.account, err))
	}
	outcome := p.acts.DoAll(ctx, []rules.Decision{d})[0]
	p.restrain(d)
	result := web.Result{Account: string(o.account)}
	text := fmt.Sprintf("%s is %s%s", o.account, map[rules.Action]string{rules.Hold: "held", rules.Block: "blocked"}[d.Action], until(d.Until))
	if outcome.OK {
		result.Done = append(result.Done, text)
	} else {
		result.Failed = append(result.Failed, text+", but: "+outcome.Detail)
	}
	at := time.Now()
	return func() ordered {
		p.untold.outcomes = append(p.untold.outcomes, outcomeOf{d.ID, at, outcome})
		p.settle(ctx)
		return ordered{result: result}
	}
}

func operatorWhy(o web.Order) string {
	why := "ordered by " + o.Who
	if o.Why != "" {
		why += ": " + o.Why
	}
	return why
}

func until(t time.Time) string {
	if t.IsZero() {
		return " until it is unblocked"
	}
	return " until " + t.Local().Format(time.DateTime)
}

// reset blocks an account and has its password changed; the order is answered
// when that is done.
func (p *pipeline) reset(ctx context.Context, o *order) {
	d := o.decision()
	if p.resetter == nil && p.fleet == nil {
		o.done <- ordered{err: fmt.Errorf("%w: reset %s: %s", web.ErrInvalid, o.account, noResetting)}
		return
	}
	if _, err := p.store.Commit(ctx, store.Batch{Decisions: []rules.Decision{d}}); err != nil {
		o.done <- ordered{err: fmt.Errorf("reset %s: not written down, so not done: %w", o.account, err)}
		return
	}
	p.beginReset(ctx, passwordReset{step: step{decision: d}, order: o})
}

// lift undoes every action on an account. What was decided while the order
// was on its way is ended too. What it returns tells that, in answer.
func (p *pipeline) lift(ctx context.Context, o *order) (then func() ordered) {
	late, err := p.store.EndDecisions(ctx, string(o.account), o.at, o.Who, o.Why)
	if err != nil {
		return failedOrder(err)
	}
	ended := append(o.ended, late...)
	result := web.Result{Account: string(o.account)}
	outcome := p.acts.Undo(ctx, string(o.account))
	switch {
	case !outcome.OK:
		result.Failed = append(result.Failed, fmt.Sprintf("%s: %s", o.account, outcome.Detail))
	case len(ended) == 0:
		result.Done = append(result.Done, fmt.Sprintf("nothing was in force on %s", o.account))
	default:
		result.Done = append(result.Done, fmt.Sprintf("%s may send again: %s lifted", o.account, actionsOf(ended)))
	}
	if o.Do == doRelease || o.wrong {
		p.freeHeld(ctx, o, &result)
	} else {
		p.keepHeld(ctx, o, &result)
	}
	if o.Do == doRelease {
		result.Done = append(result.Done, "learnt: what it did lately is its own")
	}
	if err := p.store.Note(ctx, store.Entry{Time: o.at, What: o.Do, Who: o.Who, Subject: string(o.account), Why: o.Why,
		Outcome: strings.Join(slices.Concat(result.Done, result.Failed), "; ")}); err != nil {
		result.Failed = append(result.Failed, fmt.Sprintf("what came of it is not in the journal: %v", err))
	}
	return func() ordered {
		for id, f := range p.failed {
			if f.decision.Subject == string(o.account) {
				delete(p.failed, id) // not wanted any more
			}
		}
		p.stopAsking(ctx, string(o.account))
		p.post(ctx, p.resolved(o))
		return ordered{result: result}
	}
}

// keepHeld leaves the mail of an account that was hijacked on hold: most of it
// is the hijacker's.
func (p *pipeline) keepHeld(ctx context.Context, o *order, result *web.Result) {
	if len(o.queued) == 0 || p.queue == nil {
		return
	}
	ms, err := p.queue.Look(ctx, o.queued)
	n := len(slices.DeleteFunc(ms, func(m enforce.Queued) bool { return !m.Held }))
	if err != nil || n > 0 {
		result.Done = append(result.Done, fmt.Sprintf("%d message%s stay on hold: vedetta queue release %s, or delete", n, plural(n), o.account))
	}
}

// freeHeld takes the account's mail off the hold queue. What is on hold is the
// queue's to say: the log may not have come to it yet.
func (p *pipeline) freeHeld(ctx context.Context, o *order, result *web.Result) {
	if p.queue == nil {
		return
	}
	n := 0
	ms, err := p.inQueue(ctx, o.account, o.queued, false)
	if o.Do == doRelease {
		more, searchErr := p.inQueue(ctx, o.account, nil, true)
		if ms = append(ms, more...); searchErr != nil {
			p.log.Warn("the queue cannot be searched for mail that the log did not tell of yet", "account", string(o.account), "err", searchErr)
		}
	}
	ms = slices.DeleteFunc(ms, func(m enforce.Queued) bool { return !m.Held })
	if err == nil && len(ms) > 0 {
		n, err = p.queue.Release(ctx, ms)
	}
	if err != nil {
		result.Failed = append(result.Failed, fmt.Sprintf("%d held messages, of which %d were released: %v", len(ms), n, err))
	} else if n > 0 {
		result.Done = append(result.Done, fmt.Sprintf("%d held message%s released", n, plural(n)))
	}
}

// finishRelease frees the mail of an account that was released just before the
// service ended. All else is brought about by comparing with the journal.
func (p *pipeline) finishRelease(ctx context.Context, r store.Release) {
	o := &order{Order: web.Order{Do: doRelease, Who: r.By, Why: r.Why}, account: mailq.Account(r.Subject)}
	var result web.Result
	if stopped, err := p.stopped(ctx, o.account); err != nil {
		result.Failed = append(result.Failed, err.Error())
	} else if stopped {
		result.Done = append(result.Done, "stopped again since")
	} else {
		p.freeHeld(ctx, o, &result)
		result.Done = append(result.Done, "finished after a restart")
	}
	if len(result.Failed) > 0 { // with the next start
		p.log.Error("a release that was interrupted is not finished", "account", r.Subject, "failed", result.Failed)
		return
	}
	if err := p.store.Note(ctx, store.Entry{Time: r.At, What: doRelease, Who: r.By, Subject: r.Subject, Why: r.Why, Outcome: strings.Join(result.Done, "; ")}); err != nil {
		p.log.Error("a release that was interrupted is finished, but the journal does not say so", "account", r.Subject, "err", err)
	}
}

func (p *pipeline) resolved(o *order) []incident.Change {
	if o.Do == doRelease {
		return p.book.Released(string(o.account), o.Who, o.at)
	}
	return p.book.Undone(string(o.account), o.Who, o.at)
}

func actionsOf(decisions []rules.Decision) string {
	var names []string
	for _, d := range decisions {
		if name := d.Action.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Accounts lists accounts, those with most evidence first.
func (p *pipeline) Accounts(ctx context.Context, limit int) ([]web.Account, error) {
	active, err := p.store.Active(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	force := strongest(active)
	rows := []web.Account{}
	err = p.inObserve(ctx, func() {
		for s := range p.judge.detector.Accounts {
			row := web.Account{Account: string(s.Account), Score: round(s.Score, 1), LastSeen: s.Last, Messages: s.Messages, Known: s.Recipients}
			if d, ok := force[row.Account]; ok {
				row.Action, row.Until = d.Action.String(), d.Until
				delete(force, row.Account)
			}
			if rows = append(rows, row); len(rows) >= 2*limit+1000 { // of a million accounts few are asked for
				rows = most(rows, limit)
			}
		}
	})
	if err != nil {
		return nil, err // rows and force are the first half's, if it comes to the question yet
	}
	for account, d := range force { // blocked by an operator before it ever sent
		rows = append(rows, web.Account{Account: account, Action: d.Action.String(), Until: d.Until})
	}
	return most(rows, limit), nil
}

// most returns the accounts with the most evidence, then those seen last.
func most(rows []web.Account, limit int) []web.Account {
	slices.SortFunc(rows, func(a, b web.Account) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), b.LastSeen.Compare(a.LastSeen), cmp.Compare(a.Account, b.Account))
	})
	return rows[:min(limit, len(rows))]
}

func strongest(decisions []rules.Decision) map[string]rules.Decision {
	all := map[string]rules.Decision{}
	for _, d := range decisions {
		if d.Action > all[d.Subject].Action {
			all[d.Subject] = d
		}
	}
	return all
}

var errStopping = errors.New("the service is stopping")

// ask has observe run f, and waits only until it does so. It returns an error
// if f will not run.
func (p *pipeline) ask(ctx context.Context, f func()) error {
	select {
	case p.asks <- f:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done:
		return errStopping
	}
}

// inObserve runs f where parser and detector live and waits for its end.
// After an error f may still run: what it touches is then not the caller's.
func (p *pipeline) inObserve(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if err := p.ask(ctx, func() { f(); close(done) }); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done:
		return errStopping
	}
}

// Why tells everything that led to where an account stands.
func (p *pipeline) Why(ctx context.Context, name string) (web.Why, error) {
	if !validAccount(name, true) {
		return web.Why{}, fmt.Errorf("%w: %q is no account", web.ErrInvalid, name[:min(len(name), maxAccountName)])
	}
	account := p.canonical(name)
	w := web.Why{Account: string(account)}
	var explanation detector.Explanation
	known := false
	if err := p.inObserve(ctx, func() { explanation, known = p.judge.detector.Why(account) }); err != nil {
		return w, err
	}
	active, err := p.store.Active(ctx, time.Now())
	if err != nil {
		return w, err
	}
	w.Active = slices.DeleteFunc(active, func(d rules.Decision) bool { return d.Subject != string(account) })
	if w.Findings, err = p.store.Findings(ctx, store.FindingFilter{Subject: string(account), Limit: 5}); err != nil {
		return w, err
	}
	if w.Journal, err = p.Journal(ctx, string(account), 20); err != nil {
		return w, err
	}
	if !known && len(w.Active)+len(w.Findings)+len(w.Journal) == 0 {
		return w, fmt.Errorf("%s: %w", account, web.ErrUnknown)
	}
	if known {
		if w.Explanation, err = json.Marshal(explanation); err != nil {
			return w, err
		}
	}
	w.Text = whyText(w, explanation, known)
	return w, nil
}

// Journal returns what was decided, done and ordered, newest first.
func (p *pipeline) Journal(ctx context.Context, subject string, limit int) ([]web.Entry, error) {
	rows, err := p.store.Journal(ctx, store.JournalFilter{Subject: subject, Limit: limit})
	entries := make([]web.Entry, len(rows))
	for i, e := range rows {
		entries[i] = web.Entry{Time: e.Time, Who: e.Who, What: e.What, Subject: e.Subject, Action: e.Action, Why: e.Why, Outcome: e.Outcome}
	}
	return entries, err
}

// Queue is the mail queue as the log tells it and as it was last sampled.
func (p *pipeline) Queue(ctx context.Context) (web.Queue, error) {
	q := web.Queue{}
	shares := map[string]*web.Share{}
	err := p.inObserve(ctx, func() {
		for m := range p.judge.parser.Queued {
			q.Total++
			name := string(p.senderOf(m))
			if name == "" {
				name = "(inbound and bounces)"
			}
			s := shares[name]
			if s == nil {
				s = &web.Share{Account: name, Oldest: m.Arrival}
				shares[name] = s
			}
			s.Count++
			if m.Held {
				s.Held++
				q.Held++
			}
			if m.Arrival.Before(s.Oldest) {
				s.Oldest = m.Arrival
			}
		}
		q.Sample, q.Error = p.sample.json, p.sample.err
	})
	if err != nil {
		return web.Queue{}, err
	}
	for _, s := range shares {
		q.Open = append(q.Open, *s)
	}
	slices.SortFunc(q.Open, func(a, b web.Share) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Account, b.Account))
	})
	q.Open = q.Open[:min(len(q.Open), 100)]
	return q, nil
}
