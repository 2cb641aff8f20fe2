package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// watching is a pipeline whose first half runs what it is asked and takes
// chunks; findings are in steps.
func watching(t *testing.T) *pipeline {
	t.Helper()
	p := asked(t)
	p.judge.policy = &rules.Policy{Set: rules.Shipped()}
	p.chunks = make(chan sourceChunk)
	return p
}

// half plays the first half until ctx ends.
func (p *pipeline) half(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-p.asks:
			f()
		case <-p.chunks:
		}
	}
}

// A log that comes and goes is one finding, its pauses grow, and when it can
// be read the service is well again.
func TestFlappingLog(t *testing.T) {
	p := watching(t)
	p.store.Close() // its goroutines are none of the bubble's
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p.asks, p.done, p.chunks = make(chan func()), make(chan struct{}), make(chan sourceChunk)
		var runs atomic.Int64
		var broken atomic.Bool
		broken.Store(true)
		s := source{name: "/var/log/mail.log", run: func(ctx context.Context, _ mailq.Position, emit func(mailq.Chunk) error) error {
			runs.Add(1)
			if err := emit(mailq.Chunk{Caught: true}); err != nil {
				return err
			}
			if broken.Load() {
				return errors.New("input/output error")
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		go p.half(ctx)
		go p.follow(ctx, s)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := runs.Load(); n > 80 {
			t.Errorf("begun %d times in an hour, want pauses that grow to a minute", n)
		}
		if len(p.steps) != 1 || p.steps[0].finding.Rule != rules.Blind {
			t.Errorf("%d findings of one stretch of failures, want 1", len(p.steps))
		}
		if p.Health(ctx).OK {
			t.Error("well although the log cannot be read")
		}
		broken.Store(false)
		time.Sleep(2 * time.Minute)
		if h := p.Health(ctx); !h.OK {
			t.Errorf("health = %+v, want all well", h.Parts)
		}
		cancel()
		synctest.Wait()
	})
}

// A log that is not there is told, but not between the files of a rotation.
func TestMissingLog(t *testing.T) {
	p := watching(t)
	go p.half(t.Context())
	path := filepath.Join(t.TempDir(), "mail.log")
	files := []*logFile{newLogFile(path)}
	p.lookForLogs(t.Context(), files)
	if h := p.Health(t.Context()); !h.OK {
		t.Errorf("after one look: %+v", h.Parts)
	}
	p.lookForLogs(t.Context(), files)
	if h := p.Health(t.Context()); h.OK || !strings.Contains(h.Parts["file "+path], "is not there") {
		t.Errorf("after two looks: %+v, want that %s is missing", h.Parts, path)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.lookForLogs(t.Context(), files)
	if h := p.Health(t.Context()); !h.OK {
		t.Errorf("once it is there: %+v", h.Parts)
	}
}

// Gaps in one log are one finding an hour.
func TestGaps(t *testing.T) {
	p := watching(t)
	for range 3 {
		p.gap(sourceChunk{"/var/log/mail.log", mailq.Chunk{Gap: "the file was truncated and left no copy"}})
	}
	p.gap(sourceChunk{"/var/log/other.log", mailq.Chunk{Gap: "the file was truncated and left no copy"}})
	if n := len(p.steps); n < 2 || n > 4 { // 4 if the hour turned meanwhile
		t.Errorf("%d findings, want one a log", n)
	}
	if len(p.steps) > 0 && p.steps[0].finding.Rule != rules.LostCoverage {
		t.Errorf("finding = %+v", p.steps[0].finding)
	}
}

// A hungSpool does not answer before it is freed.
type hungSpool struct {
	looks atomic.Int64
	free  chan struct{}
}

func (s *hungSpool) Sample(context.Context) (mailq.QueueSample, error) {
	s.looks.Add(1)
	<-s.free
	return mailq.QueueSample{Total: int(s.looks.Load())}, nil
}

// Of looks that hang there is one at a time.
func TestHungProbe(t *testing.T) {
	spool := &hungSpool{free: make(chan struct{})}
	p := probe{spool: spool, timeout: time.Millisecond}
	for range 5 {
		if _, err := p.sample(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Fatalf("error = %v, want that there is no answer", err)
		}
	}
	if n := spool.looks.Load(); n != 1 {
		t.Errorf("%d looks under way, want 1", n)
	}
	close(spool.free)
	p.timeout = 10 * time.Second
	sample, err := p.sample(t.Context())
	if err != nil || sample.Total != 2 {
		t.Errorf("sample = %+v, %v; want a fresh one", sample, err)
	}
}
