package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// keepEvery is how often the house is put in order.
const keepEvery = time.Minute

// keep ends what is over, compares gate and tables with the journal, measures,
// and forgets what is old, until ctx ends.
func (s *service) keep(ctx context.Context) error {
	for minute := 0; ; minute++ {
		if err := s.keepOnce(ctx, minute); err != nil && ctx.Err() == nil {
			s.log.Error("keeping house", "err", err)
		}
		if wait(ctx, keepEvery) != nil {
			return nil
		}
	}
}

func (s *service) keepOnce(ctx context.Context, minute int) error {
	s.lookForLogs(ctx, s.files)
	s.lookAtPlaces(ctx)
	errs := []error{s.reconcile(ctx), s.measure(ctx), s.turnKey(ctx)}
	if s.fleet != nil {
		errs = append(errs, s.watchAgents(ctx))
	}
	if minute%60 == 30 {
		errs = append(errs, s.prune(ctx))
	}
	return errors.Join(errs...)
}

// reconcile brings gate and tables to what the journal says should be in
// force. A foreign edit of a table is told and left alone.
func (s *service) reconcile(ctx context.Context) error {
	begun := time.Now()
	expired, err := s.store.Expire(ctx, begun) // what is over is not active, also where that cannot be written
	for _, d := range expired {
		s.log.Info("over", "account", d.Subject, "action", d.Action.String(), "finding", d.Finding)
	}
	outcome := s.acts.Reconcile(ctx, func(ctx context.Context) ([]rules.Decision, error) {
		active, err := s.store.Active(ctx, begun)
		return s.slowed.with(active), err
	})
	if !outcome.OK && ctx.Err() != nil {
		return err // ended in the middle; the next start compares
	}
	if !outcome.OK {
		s.notInForce(ctx, errors.New(outcome.Detail))
		return err
	}
	s.unforced = 0
	s.sees(&s.force)
	select {
	case s.reconciled <- begun:
	default: // answer will see to it after the next
	}
	return err
}

// notInForce reports that something could not be done. The first time it may
// be done by the next comparison; from the second time on people are told.
func (s *service) notInForce(ctx context.Context, cause error) {
	s.health.set(s.force.name(), cause)
	s.log.Error("blocks are not as the journal says", "err", cause)
	if s.unforced++; s.unforced >= 2 {
		s.blind(ctx, &s.force, cause)
	}
}

func (s *service) measure(ctx context.Context) error {
	check, err := s.store.Check(ctx)
	s.health.set("database", err)
	if err != nil {
		return err
	}
	s.metrics.database.Set(float64(check.Size))
	backlog, err := s.store.Backlog(ctx, time.Now())
	if err != nil {
		return err
	}
	var waiting, dead int
	for _, b := range backlog {
		waiting += b.Waiting
		dead += b.Dead
	}
	s.metrics.outbox.Set(float64(waiting))
	s.metrics.dead.Set(float64(dead))
	return nil
}

// Lifetimes of what the configuration does not name: longer than a message
// may wait in a queue, and than an old log is read back.
const (
	keepMessages = 14 * 24 * time.Hour
	keepOutbox   = 30 * 24 * time.Hour
)

func (s *service) prune(ctx context.Context) error {
	keep := s.config.Keep
	_, err := s.store.Prune(ctx, time.Now(), store.Ages{
		Findings:  time.Duration(keep.Findings),
		Incidents: time.Duration(keep.Findings),
		Journal:   time.Duration(keep.Journal),
		Accounts:  time.Duration(keep.Accounts),
		Messages:  keepMessages,
		Outbox:    keepOutbox,
		Listings:  time.Duration(keep.Journal),
		Sent:      detector.SentFor,
	})
	return err
}

// A spool is a mail queue that can be sampled.
type spool interface {
	Sample(ctx context.Context) (mailq.QueueSample, error)
}

// sampled is the latest look at the queue.
type sampled struct {
	json json.RawMessage
	err  string
}

// sampleQueue looks at the configured mail queue until ctx ends.
func (s *service) sampleQueue(ctx context.Context) error {
	q := s.newSpool()
	if q == nil {
		return nil
	}
	queue := eye{kind: "queue", subject: "mail queue of " + s.config.Hostname}
	look := probe{spool: q, timeout: time.Duration(s.config.Queue.Timeout)}
	for {
		sample, err := look.sample(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.blind(ctx, &queue, err)
			_ = s.ask(ctx, func() { s.sample.err = err.Error() }) // or we are stopping
		} else {
			s.sees(&queue)
			_ = s.ask(ctx, func() { s.tookSample(sample) })
		}
		if wait(ctx, time.Duration(s.config.Queue.Every)) != nil {
			return nil
		}
	}
}

// A probe looks at a spool and gives up on a look that hangs even where it
// cannot be stopped, such as on a dead network file system. Until such a look
// ends no other is begun: each would keep a thread of the system.
type probe struct {
	spool
	timeout time.Duration
	hanging chan sampleResult // of a look that was given up; nil: there is none
}

type sampleResult struct {
	sample mailq.QueueSample
	err    error
}

func (p *probe) sample(ctx context.Context) (mailq.QueueSample, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	done := p.hanging
	if done == nil {
		done = make(chan sampleResult, 1)
		go func() { // outlives us only as long as the file system keeps it
			sample, err := p.spool.Sample(ctx)
			done <- sampleResult{sample, err}
		}()
	}
	select {
	case r := <-done:
		if p.hanging != nil { // what was seen then is old
			p.hanging = nil
			return p.sample(ctx)
		}
		return r.sample, r.err
	case <-ctx.Done():
		p.hanging = done
		return mailq.QueueSample{}, fmt.Errorf("mail queue: no answer within %s", p.timeout)
	}
}

// tookSample runs in observe.
func (s *service) tookSample(sample mailq.QueueSample) {
	text, err := json.Marshal(sample)
	if err != nil {
		panic(err) // plain data
	}
	s.sample = sampled{json: text}
	for queue, n := range map[string]int{"all": sample.Total, "deferred": sample.Deferred, "held": sample.Held, "active": sample.Active} {
		s.metrics.queued.WithLabelValues(queue).Set(float64(n))
	}
	s.dirty = true
	if s.forward != nil {
		s.forward.samples = append(s.forward.samples, sample)
		return
	}
	for _, f := range s.judge.detector.ObserveSample(sample) {
		s.found(f)
	}
}

func (s *service) newSpool() spool {
	canonical := func(login string) mailq.Account { return s.directory.Load().Canonical(login) }
	switch q := s.config.Queue; {
	case q.Postfix != "":
		return &mailq.PostfixSpool{Dir: q.Postfix, Host: s.config.Hostname, Canonical: canonical}
	case q.Exim != "":
		return &mailq.EximSpool{Dir: q.Exim, Host: s.config.Hostname, Canonical: canonical}
	}
	return nil
}
