package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// The orders about an account's queued mail.
const (
	doQueueHold    = "queue-hold"
	doQueueRelease = "queue-release"
	doQueueDelete  = "queue-delete"
)

const (
	maxRestrained  = 1000             // accounts whose queued mail waits to be held
	restrainAgain  = 30 * time.Second // after which mail that was being delivered is held too
	queueLasts     = 10 * time.Minute
	evidenceSample = 5 // messages whose headers are kept
)

// A restraint is an account whose queued mail is to be held, because the
// account was.
type restraint struct {
	account mailq.Account
	due     time.Time
	again   bool
}

// restrain has the queued mail of accounts that were just held or blocked put
// on hold: what a spammer has handed in already is not to leave either.
func (p *pipeline) restrain(d rules.Decision) {
	account := mailq.Account(d.Subject)
	if p.queue == nil || !d.Enforce || d.Action < rules.Hold || account.Kind() == mailq.KindForward {
		return
	}
	select {
	case p.restraints <- restraint{account: account, due: time.Now()}:
	default:
		p.log.Warn("too many accounts wait for their queued mail to be held", "account", d.Subject)
	}
}

// restrainAll holds queued mail until ctx ends, each account's twice.
func (p *pipeline) restrainAll(ctx context.Context) error {
	var later []restraint
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-p.restraints:
			p.restrainNow(ctx, r)
			r.due, r.again = r.due.Add(restrainAgain), true
			later = append(later, r)
		case now := <-tick.C:
			for len(later) > 0 && !later[0].due.After(now) {
				p.restrainNow(ctx, later[0])
				later = later[1:]
			}
		}
	}
}

func (p *pipeline) restrainNow(ctx context.Context, r restraint) {
	ctx, cancel := context.WithTimeout(ctx, queueLasts)
	defer cancel()
	if stopped, err := p.stopped(ctx, r.account); err != nil || !stopped {
		return // released meanwhile
	}
	ids, err := p.queuedIDs(ctx, r.account)
	if err != nil || len(ids) == 0 {
		return
	}
	ms, err := p.queue.Look(ctx, ids)
	ms = slices.DeleteFunc(ms, func(m enforce.Queued) bool { return m.Held })
	n := 0
	if err == nil && len(ms) > 0 {
		n, err = p.queue.Hold(ctx, ms)
	}
	if err != nil && !(errors.Is(err, enforce.ErrBusy) && !r.again) {
		p.log.Error("queued mail is not all held", "account", string(r.account), "err", err)
	}
	if stopped, told := p.stopped(ctx, r.account); told == nil && !stopped { // released while we held
		_, err = p.queue.Release(ctx, ms)
		if err != nil {
			p.log.Error("mail of an account that was released meanwhile is on hold", "account", string(r.account), "err", err)
		}
		return
	}
	if n > 0 || err != nil && r.again {
		p.noteQueue(ctx, "queue-hold", string(r.account), "vedetta", "the account was stopped", p.told(ctx, "held", n, len(ms), ms, err))
	}
}

// stopped reports whether an account is held or blocked now.
func (p *pipeline) stopped(ctx context.Context, account mailq.Account) (bool, error) {
	active, err := p.store.Active(ctx, time.Now())
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(active, func(d rules.Decision) bool { return d.Subject == string(account) && d.Action >= rules.Hold }), nil
}

// queuedIDs lists the account's messages in the queue, as the log tells them.
func (p *pipeline) queuedIDs(ctx context.Context, account mailq.Account) (ids []string, err error) {
	accounts := enforce.SameUser(account)
	err = p.inObserve(ctx, func() { ids = p.queuedOf(accounts) })
	return ids, err
}

// orderQueue holds, releases or deletes an account's queued mail.
func (p *pipeline) orderQueue(ctx context.Context, o web.Order) (web.Result, error) {
	account := p.canonical(o.Account)
	result := web.Result{Account: string(account), Done: []string{}}
	if p.queue == nil {
		return result, fmt.Errorf("%w: no queue is configured: queue.postfix or queue.exim", web.ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, queueLasts)
	defer cancel()
	ms, err := p.findQueued(ctx, account)
	if err != nil {
		return result, fmt.Errorf("%s %s: %w", o.Do, account, err)
	}
	queued := len(ms)
	if o.Do != doQueueDelete {
		release := o.Do == doQueueRelease
		ms = slices.DeleteFunc(ms, func(m enforce.Queued) bool { return m.Held != release })
	}
	act, done := p.queueAct(o.Do)
	switch {
	case o.DryRun:
		result.Done = append(result.Done, fmt.Sprintf("%d message%s of %s would be %s", len(ms), plural(len(ms)), account, done))
		return result, nil
	case len(ms) == 0:
		result.Done = append(result.Done, nothingQueued(o.Do, account, queued))
		return result, nil
	}
	samples := p.told(ctx, done, len(ms), len(ms), ms, nil) // before they are gone
	n, err := act(ctx, ms)
	text := fmt.Sprintf("%d of %d message%s of %s %s", n, len(ms), plural(len(ms)), account, done)
	if err != nil {
		result.Failed = append(result.Failed, text+": "+err.Error())
	} else {
		result.Done = append(result.Done, text)
	}
	p.noteQueue(ctx, o.Do, string(account), o.Who, o.Why, cmp.Or(strings.Join(result.Failed, "; "), samples))
	return result, nil
}

// nothingQueued says why an order finds nothing to do among so many of the account's
// messages.
func nothingQueued(do string, account mailq.Account, queued int) string {
	switch {
	case queued == 0:
		return fmt.Sprintf("nothing to do: no message of %s is in the queue", account)
	case do == doQueueRelease:
		return fmt.Sprintf("nothing to do: no message of %s in the queue is held", account)
	}
	return fmt.Sprintf("nothing to do: of %d message%s of %s in the queue all are held", queued, plural(queued), account)
}

func (p *pipeline) queueAct(do string) (act func(context.Context, []enforce.Queued) (int, error), done string) {
	switch do {
	case doQueueRelease:
		return p.queue.Release, "released"
	case doQueueDelete:
		return p.queue.Delete, "deleted"
	}
	return p.queue.Hold, "held"
}

// findQueued finds an account's queued messages, in the queue itself by who
// handed them in, and by what the log tells, which alone knows scripts.
func (p *pipeline) findQueued(ctx context.Context, account mailq.Account) ([]enforce.Queued, error) {
	ids, err := p.queuedIDs(ctx, account)
	if err != nil {
		return nil, err
	}
	return p.inQueue(ctx, account, ids, true)
}

// inQueue returns the messages with the ids that the log tells, as far as they
// are in the queue, and with search all that the queue's own files say the
// account handed in.
func (p *pipeline) inQueue(ctx context.Context, account mailq.Account, ids []string, search bool) ([]enforce.Queued, error) {
	ms, err := p.queue.Look(ctx, ids)
	if err != nil || !search {
		return ms, err
	}
	logins, users, uids := p.directory.Logins(string(account)), []string(nil), []int(nil)
	for _, same := range enforce.SameUser(account) {
		switch name := string(same); same.Kind() {
		case mailq.KindUser:
			users = append(users, name[len(mailq.KindUser)+1:])
		case mailq.KindUID:
			if uid, err := strconv.Atoi(name[len(mailq.KindUID)+1:]); err == nil {
				uids = append(uids, uid)
			}
		}
	}
	if len(logins)+len(users)+len(uids) > 0 {
		found, err := p.queue.Find(ctx, enforce.OfAccount(logins, users, uids))
		if err != nil {
			return nil, err
		}
		ms = append(ms, found...)
	}
	slices.SortFunc(ms, func(a, b enforce.Queued) int { return cmp.Or(a.Arrival.Compare(b.Arrival), cmp.Compare(a.ID, b.ID)) })
	return slices.CompactFunc(ms, func(a, b enforce.Queued) bool { return a.ID == b.ID }), nil
}

// senderOf is the account that answers for a queued message: where it has none yet,
// as nothing of it has left, the trusted client that it is from, unless many stand
// behind that one.
func (p *pipeline) senderOf(m mailq.QueuedMessage) mailq.Account {
	if m.Account == "" && m.Client != "" && !p.directory.IsShared(m.Client) {
		return m.Client
	}
	return m.Account
}

// told says what was done with messages, and what a few of them are.
func (p *pipeline) told(ctx context.Context, done string, n, of int, ms []enforce.Queued, err error) string {
	text := fmt.Sprintf("%d of %d messages %s", n, of, done)
	if err != nil {
		text += ": " + err.Error()
	}
	for _, e := range enforce.Sample(ctx, p.queue, ms, evidenceSample) {
		text += "; " + evidenceText(e)
	}
	return text
}

// evidenceText is one queued message in a line.
func evidenceText(e enforce.Evidence) string {
	text := fmt.Sprintf("%s: subject %q, from <%s>", e.ID, e.Subject, e.Sender)
	if e.Client.IsValid() {
		text += " at " + e.Client.String()
	}
	if len(e.PHP) > 0 {
		text += ", script " + e.PHP[0]
	}
	return text + fmt.Sprintf(", %d recipient%s", e.Rcpts, plural(e.Rcpts))
}

func (p *pipeline) noteQueue(ctx context.Context, what, account, who, why, outcome string) {
	if err := p.store.Note(ctx, store.Entry{Time: time.Now(), What: what, Who: who, Subject: account, Why: why, Outcome: outcome}); err != nil {
		p.log.Error("what was done with queued mail is not in the journal", "account", account, "err", err)
	}
}
