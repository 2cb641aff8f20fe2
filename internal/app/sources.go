package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A source is a log that is followed for ever: it is begun again, after a
// pause, where it stopped.
type source struct {
	name string
	from mailq.Position
	run  func(ctx context.Context, from mailq.Position, emit func(mailq.Chunk) error) error
}

// newSource resumes a configured log at its saved position.
func newSource(l config.Log, saved []byte) (source, error) {
	s := source{name: l.Name()}
	if len(saved) > 0 {
		if err := json.Unmarshal(saved, &s.from); err != nil {
			return s, fmt.Errorf("saved position of %s: %w", s.name, err)
		}
	}
	if l.Path != "" {
		s.run = func(ctx context.Context, from mailq.Position, emit func(mailq.Chunk) error) error {
			t := mailq.Tail{Path: l.Path, From: from}
			return t.Run(ctx, emit)
		}
		return s, nil
	}
	s.run = func(ctx context.Context, from mailq.Position, emit func(mailq.Chunk) error) error {
		j := mailq.Journal{Match: l.Journal, From: from}
		return j.Run(ctx, emit)
	}
	return s, nil
}

// Pauses before a source that failed is begun again.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// follow reads s until ctx ends. A source that cannot be read is told about
// once and tried again.
func (p *pipeline) follow(ctx context.Context, s source) error {
	pause := firstPause
	var blind episode
	for {
		err := s.run(ctx, s.from, func(c mailq.Chunk) error {
			blind.over()
			p.health.set("log "+s.name, nil)
			pause = firstPause
			s.from = c.End
			c.Lines = bytes.Clone(c.Lines) // ours only during the call
			select {
			case p.chunks <- sourceChunk{s.name, c}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if ctx.Err() != nil {
			return nil
		}
		p.blind(ctx, "log", s.name, &blind, err)
		if wait(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// An episode is a stretch of time in which something did not work.
type episode struct{ since time.Time }

func (e *episode) over() { e.since = time.Time{} }

// blind reports that something to be watched cannot be read. A stretch of
// failures is one finding.
func (p *pipeline) blind(ctx context.Context, kind, subject string, e *episode, cause error) {
	p.metrics.blind.WithLabelValues(kind).Inc()
	p.health.set(kind+" "+subject, cause)
	p.log.Error("blind", "kind", kind, "subject", subject, "err", cause)
	if !e.since.IsZero() {
		return
	}
	e.since = time.Now()
	p.report(ctx, rules.Finding{
		ID: rules.FindingID(rules.Blind, subject, e.since), Rule: rules.Blind, Subject: subject, Time: e.since, Since: e.since,
		Evidence: []rules.Evidence{{Kind: rules.Coverage, Text: cause.Error()}},
	})
}

// report lets observe judge a finding that no event led to.
func (p *pipeline) report(ctx context.Context, f rules.Finding) {
	_ = p.ask(ctx, func() { // when stopping, what is blind is found again at the next start
		if s, ok := p.judge.finding(f); ok {
			p.steps = append(p.steps, s)
		}
	})
}
