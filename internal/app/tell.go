package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/notify"
	"github.com/vedetta-watch/vedetta/rules"
)

// A namedChannel is a way to people. The name is kept with each letter, so it
// must stay the same over restarts.
type namedChannel struct {
	name string // "mail:ADDRESS" or "webhook"
	notify.Channel
}

// channels builds what the configuration names: one a mail recipient, so that
// one refused address does not hold up the others, and the webhook.
func channels(c config.Notify, hostname string) []namedChannel {
	var all []namedChannel
	for _, to := range c.Mail.To {
		all = append(all, namedChannel{"mail:" + to, notify.Mail{
			Addr: c.Mail.Server, TLS: notify.TLSMode(c.Mail.TLS), User: c.Mail.User, Password: string(c.Mail.Password),
			From: c.Mail.From, To: to, Hello: hostname, Timeout: time.Duration(c.Mail.Timeout),
		}})
	}
	if c.Webhook.URL != "" {
		all = append(all, namedChannel{"webhook", notify.Webhook{
			URL: string(c.Webhook.URL), Secret: string(c.Webhook.Secret), Timeout: time.Duration(c.Webhook.Timeout),
		}})
	}
	return all
}

// message puts a change into the words of a letter.
func message(c incident.Change, hostname string) notify.Message {
	t := c.Tell()
	m := notify.Message{
		ID: c.ID, Thread: c.Incident.First, Type: "incident." + c.Kind.String(), Time: c.Time,
		Severity: notify.Severity(t.Severity), Title: t.Title, Subject: c.Incident.Subject(),
		What: t.What, Done: t.Done, Undo: t.Commands,
	}
	for _, e := range c.Incident.Finding.Evidence {
		m.Evidence = append(m.Evidence, notify.Evidence{Kind: e.Kind, Text: e.Text, Score: round(e.Score, 1)})
	}
	for _, f := range t.Facts {
		m.Facts = append(m.Facts, notify.Fact{Name: f.Name, Value: f.Value})
	}
	m.Facts = append(m.Facts, notify.Fact{Name: "server", Value: hostname})
	return m
}

// A teller sends letters from the outbox until their channels took them.
type teller struct {
	log      *slog.Logger
	metrics  *metrics
	store    *store.DB
	sender   *notify.Sender
	channels []namedChannel
	hostname string
	from     rules.Action
	notified func(incidentID string, at time.Time) // a channel has taken a letter about it
	woken    bell
	taken    map[string]time.Time  // letters that a channel took and whose taking is not written down yet
	direct   map[string]directLine // answer's, by channel
}

func newTeller(c config.Notify, hostname string, db *store.DB, m *metrics, log *slog.Logger) (*teller, error) {
	t := &teller{log: log, metrics: m, store: db, channels: channels(c, hostname), hostname: hostname, notified: func(string, time.Time) {}, woken: newBell(), taken: map[string]time.Time{}, direct: map[string]directLine{}}
	if err := t.from.UnmarshalText([]byte(c.From)); err != nil {
		return nil, err
	}
	t.sender = &notify.Sender{
		Channels: map[string]notify.Channel{},
		Limit:    notify.Limit{Max: c.StormMax, Per: time.Duration(c.StormPer), Every: time.Duration(c.StormPer)},
	}
	for _, ch := range t.channels {
		t.sender.Channels[ch.name] = ch
	}
	return t, nil
}

// idle is how long the teller sleeps when nothing wakes it: the outbox is also
// filled by the run before this one.
const idle = 5 * time.Second

// maxLetters is how many letters are looked at in one go.
const maxLetters = 500

// run sends what is due until ctx ends.
func (t *teller) run(ctx context.Context) error {
	for {
		next, err := t.round(ctx)
		if err != nil && ctx.Err() == nil {
			t.log.Error("outbox", "err", err)
		}
		sleep := idle
		if !next.IsZero() {
			sleep = min(idle, max(10*time.Millisecond, time.Until(next)))
		}
		timer := time.NewTimer(sleep)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-t.woken:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// round sends what is due now and says when to look again.
func (t *teller) round(ctx context.Context) (time.Time, error) {
	if err := t.confirm(ctx); err != nil {
		return time.Time{}, err
	}
	due, err := t.store.Due(ctx, time.Now(), maxLetters)
	if err != nil || len(due) == 0 {
		return time.Time{}, err
	}
	rows := make([]notify.Row, 0, len(due))
	for _, d := range due {
		row := notify.Row{ID: d.ID, Channel: d.Channel, Created: d.Created, Attempts: d.Attempts}
		if err := json.Unmarshal(d.Body, &row.Message); err != nil {
			t.log.Error("a letter cannot be read and is given up", "letter", d.ID, "err", err)
			failure := store.Failure{ID: d.ID, At: time.Now(), Error: err.Error(), Next: time.Now(), MaxAttempts: 1}
			if _, err := t.store.Failed(ctx, failure); err != nil {
				return time.Time{}, err
			}
			continue
		}
		rows = append(rows, row)
	}
	batches, next := t.sender.Plan(time.Now(), rows)
	for _, b := range batches {
		if err := t.deliver(ctx, b); err != nil || ctx.Err() != nil {
			return next, err
		}
	}
	return next, nil
}

// deliver sends one batch and writes down how that went, for every row.
func (t *teller) deliver(ctx context.Context, b notify.Batch) error {
	r := t.sender.Deliver(ctx, b, time.Now())
	if ctx.Err() != nil && !r.Sent {
		return nil // stopping is nobody's failure
	}
	ctx = context.WithoutCancel(ctx)
	if r.Sent || r.Tried {
		t.count(b.Channel, r.Err)
	}
	if r.Err != nil && (r.Tried || r.Dead) {
		t.log.Error("people could not be told", "channel", b.Channel, "letters", len(b.Rows), "next", r.Due, "given_up", r.Dead, "err", r.Err)
	}
	if r.Sent {
		for _, row := range b.Rows {
			about, _, _ := strings.Cut(row.Message.ID, "/")
			t.notified(about, time.Now())
			t.taken[row.ID] = time.Now()
		}
		return t.confirm(ctx)
	}
	for _, row := range b.Rows {
		failure := store.Failure{ID: row.ID, At: time.Now(), Error: errorText(r.Err), Next: r.Due, Untried: !r.Tried}
		if r.Dead {
			failure.MaxAttempts, failure.Untried = 1, false
		}
		if _, err := t.store.Failed(ctx, failure); err != nil {
			return err
		}
	}
	return nil
}

// confirm writes down which letters were taken. Until it could, nothing more
// is sent: a letter whose taking is not written would be sent again.
func (t *teller) confirm(ctx context.Context) error {
	for id, at := range t.taken {
		if err := t.store.Sent(ctx, id, at); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		delete(t.taken, id)
	}
	return nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// wanted says whether people want to hear of a decision. What is not about an
// account, or is about one that several share, has no stronger rung than to
// observe; it is always told.
func (t *teller) wanted(s step) bool {
	d := s.decision
	account := d.Rule == rules.HijackedMailbox || d.Rule == rules.AbusedScript || d.Rule == rules.ListingRisk
	return d.Action >= t.from || !account || s.finding.Shared
}

// page calls people because the blast limit was reached: from now on accounts
// are only slowed down. It is told whatever else is told about the account.
func page(s step, hostname string) notify.Message {
	d := s.decision
	return notify.Message{
		ID: "blast-limit/" + d.ID, Type: "blast-limit", Time: d.Time, Severity: notify.Critical,
		Title:   "the blast limit is reached: further accounts are only slowed down",
		Subject: hostname,
		What: "So many accounts at once are more likely a mistake of ours, or a flood that somebody made, than so many hijacked accounts. " +
			"The first that was spared is " + d.Subject + " (" + d.HeldBack + ").",
		Done:  "From now on nothing stronger than a throttle is done, until fewer accounts were stopped within the time of the limit.",
		Undo:  []string{"vedetta accounts # those with the most evidence first"},
		Facts: []notify.Fact{{Name: "server", Value: hostname}, {Name: "finding", Value: d.Finding}},
	}
}

// direct puts a step into a letter that no incident stands behind, for when
// nothing can be written down.
func direct(s step, why, hostname string) notify.Message {
	done := joined(s.decision.HeldBack, why)
	if s.decision.Enforce && s.decision.Action >= rules.Throttle {
		done = why + "; throttled until it can be"
	}
	m := notify.Message{
		ID: s.decision.ID + "/unwritten", Type: "unwritten", Time: s.finding.Time, Severity: notify.Critical,
		Title:   fmt.Sprintf("%s: %s could not be written down", s.finding.Subject, s.decision.Action),
		Subject: s.finding.Subject, What: s.decision.Why, Done: done,
		Facts: []notify.Fact{{Name: "server", Value: hostname}, {Name: "finding", Value: s.finding.ID}},
	}
	for _, e := range s.finding.Evidence {
		m.Evidence = append(m.Evidence, notify.Evidence{Kind: e.Kind, Text: e.Text, Score: round(e.Score, 1)})
	}
	return m
}

// letters makes an outbox row for each channel.
func (t *teller) letters(m notify.Message) []store.OutboxRow {
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // plain data
	}
	var rows []store.OutboxRow
	for _, c := range t.channels {
		rows = append(rows, store.OutboxRow{ID: m.ID + "/" + c.name, Channel: c.name, Body: body})
	}
	return rows
}

func (t *teller) wake() {
	t.woken.ring()
}

// now sends at once and without the outbox: what is left when nothing can be
// written down. Past the limit of a storm, and for a minute after a failure, a
// channel is left alone: all is told once it can be written.
func (t *teller) now(ctx context.Context, m notify.Message) {
	for _, c := range t.channels {
		at := time.Now()
		line := t.direct[c.name]
		line.sent = slices.DeleteFunc(line.sent, func(s time.Time) bool { return at.Sub(s) > t.sender.Limit.Per })
		if len(line.sent) >= t.sender.Limit.Max || at.Before(line.until) {
			continue
		}
		err := c.Send(ctx, m)
		t.count(c.name, err)
		line.sent = append(line.sent, at)
		if err != nil {
			line.until = at.Add(time.Minute)
			t.log.Error("people could not be told", "channel", c.name, "err", err)
		}
		t.direct[c.name] = line
	}
}

// A directLine is what is remembered of a channel that is used without the outbox.
type directLine struct {
	sent  []time.Time
	until time.Time // left alone until then
}

func (t *teller) count(channel string, err error) {
	result := "sent"
	switch {
	case errors.Is(err, notify.ErrPermanent):
		result = "refused"
	case err != nil:
		result = "failed"
	}
	kind, _, _ := strings.Cut(channel, ":") // the rest is an address, which is no label
	t.metrics.told.WithLabelValues(kind, result).Inc()
}
