package app

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// newSource resumes a configured log at its saved position. While it is being
// written it is looked at once in pace; 0 is the usual.
func newSource(l config.Log, saved []byte, pace time.Duration) (source, error) {
	s := source{name: l.Name()}
	if len(saved) > 0 {
		if err := json.Unmarshal(saved, &s.from); err != nil {
			return s, fmt.Errorf("saved position of %s: %w", s.name, err)
		}
	}
	if l.Path != "" {
		s.run = func(ctx context.Context, from mailq.Position, emit func(mailq.Chunk) error) error {
			t := mailq.Tail{Path: l.Path, From: from, Pace: pace}
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
	log := eye{kind: "log", subject: s.name}
	for {
		err := s.run(ctx, s.from, func(c mailq.Chunk) error {
			p.sees(&log)
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
		if p.blind(ctx, &log, err) {
			pause = firstPause
		}
		if wait(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// absences is how many looks a minute apart must miss a log for it to be
// missing, and not just between two files of a rotation.
const absences = 2

// A logFile is where a log should be.
type logFile struct {
	path   string
	absent int // looks in a row that found no file
	eye
}

func newLogFile(path string) *logFile {
	return &logFile{path: path, eye: eye{kind: "log", subject: path, part: "file " + path}}
}

// lookForLogs reports the logs that are not there: they are waited for, which
// is right after a rotation and on a new server, but may be a wrong path.
func (p *pipeline) lookForLogs(ctx context.Context, files []*logFile) {
	for _, f := range files {
		if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) {
			f.absent = 0
			p.sees(&f.eye)
		} else if f.absent++; f.absent < absences {
			p.log.Warn("waiting for a log that is not there", "log", f.path)
		} else {
			p.blind(ctx, &f.eye, fmt.Errorf("%s is not there: is it the mail log of this server?", f.path))
		}
	}
}

// An eye is on something that may get out of sight.
type eye struct {
	kind    string // label of the metric: log, queue, aliases
	subject string
	part    string    // name in the health; empty: kind and subject
	since   time.Time // begin of the stretch of failures; zero: there was none
	well    time.Time // since when it sees; zero: it does not
}

// calm is how long an eye must have seen for a failure to be a new one, and
// not the same that comes and goes.
const calm = time.Minute

func (e *eye) name() string { return cmp.Or(e.part, e.kind+" "+e.subject) }

// sees notes that the eye sees.
func (p *pipeline) sees(e *eye) {
	p.health.set(e.name(), nil)
	if e.well.IsZero() {
		e.well = time.Now()
	}
}

// blind reports that something to be watched cannot be read. A stretch of
// failures is one finding; it says whether this is a new one.
func (p *pipeline) blind(ctx context.Context, e *eye, cause error) bool {
	p.metrics.blind.WithLabelValues(e.kind).Inc()
	p.health.set(e.name(), cause)
	p.log.Error("blind", "kind", e.kind, "subject", e.subject, "err", cause)
	now := time.Now()
	same := !e.since.IsZero() && (e.well.IsZero() || now.Sub(e.well) < calm)
	e.well = time.Time{}
	if same {
		return false
	}
	e.since = now
	p.report(ctx, rules.Finding{
		ID: rules.FindingID(rules.Blind, e.subject, e.since), Rule: rules.Blind, Subject: e.subject, Time: e.since, Since: e.since,
		Evidence: []rules.Evidence{{Kind: rules.Coverage, Text: cause.Error()}},
	})
	return true
}

// report lets observe judge a finding that no event led to.
func (p *pipeline) report(ctx context.Context, f rules.Finding) {
	_ = p.ask(ctx, func() { p.found(f) }) // when stopping, what is blind is found again at the next start
}
