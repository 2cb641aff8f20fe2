package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// ReplayOptions says what to read and where to write.
type ReplayOptions struct {
	Config   config.Config
	Paths    []string // "-" is standard input; .gz and .zst by content
	Learn    bool     // keep what the logs teach in the state directory, for a new installation
	JSON     bool
	Out      io.Writer      // the steps
	Err      io.Writer      // the summary
	In       io.Reader      // standard input
	Progress func(Progress) // called now and then; nil for none
	Now      time.Time      // stamps without a year are not after this
}

// Progress is how far a replay has come.
type Progress struct {
	Lines uint64
	Time  time.Time // of the log
	Done  bool      // the last call
}

const (
	// replayHeap is how large the heap of a replay may grow, in bytes, before it
	// is collected: most logs end before.
	replayHeap = 96 << 20
	// replayFetch is how much of it every log of some length needs.
	replayFetch = 12 << 20
)

// A replayStep is one line of `vedetta replay --json`. Its fields are a
// contract.
type replayStep struct {
	Time       time.Time        `json:"time"`
	Account    string           `json:"account"`
	Action     rules.Action     `json:"action"`
	Rule       string           `json:"rule"`
	Score      float64          `json:"score"`
	Recipients int              `json:"recipients"`
	Since      time.Time        `json:"since"`
	Finding    string           `json:"finding"`
	HeldBack   string           `json:"held_back,omitempty"`
	Hard       string           `json:"hard,omitempty"` // the hard rule that fired
	Evidence   []rules.Evidence `json:"evidence"`
}

// Replay runs the detector and the rules over old logs in the logs' own
// time. It acts on nothing, and keeps nothing unless it is to learn.
func Replay(ctx context.Context, o ReplayOptions) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fetchMemory(replayFetch)
	o.Config.Mode = config.ModeEnforce // what would have been done
	// The rules take longer than all the rest until the first line, and are not
	// needed before the first finding.
	read := sync.OnceValues(func() (*rules.Set, error) { return readRules(o.Config) })
	go read()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(replayHeap))
	aliases, err := loadAliases(ctx, o.Config.Accounts.Aliases)
	if err != nil {
		return err
	}
	dir := &directory{}
	dir.set(buildDirectory(o.Config.Accounts, aliases))
	j, err := newJudgeWithoutRules(o.Config, dir, o.Now)
	if err != nil {
		return err
	}
	j.lacks = read
	if err := j.places.load(); err != nil {
		return fmt.Errorf("geoip: %w", err)
	}
	var l *learning
	if o.Learn {
		if l, err = openLearning(ctx, o.Config, o.Paths); err != nil {
			return err
		}
		defer l.close()
		ring, err := loadKeyring(ctx, l.db)
		if err != nil {
			return err
		}
		keys := ring.keys()
		j.parser.Key, j.parser.Next = keys.Key, keys.Next
	}
	j.watchRisk(o.Config.DNSBL.Risk, dir)
	out := bufio.NewWriter(o.Out)
	r := &replay{options: o, judge: j, out: out, strongest: map[string]rules.Action{}}
	if err := r.run(ctx); err != nil {
		out.Flush()
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if o.Progress != nil {
		o.Progress(Progress{Done: true})
	}
	if err := r.summary(); err != nil || l == nil {
		return err
	}
	n, err := l.save(ctx, j)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Err, "learnt %d accounts into %s\n", n, l.dir)
	return nil
}

type replay struct {
	options   ReplayOptions
	judge     *judge
	out       *bufio.Writer
	steps     int
	strongest map[string]rules.Action // by subject
	first     time.Time               // event's
	newest    time.Time               // event's
	tooLong   int64                   // lines
}

const (
	eventBatch = 512 // events handed from the parser to the detector at once
	batches    = 4   // that go round between the two
)

// A batch is some events, and room for the recipients that they name.
type batch struct {
	events []mailq.Event
	room   []mailq.Recipient
}

// newBatch returns an empty batch. It is written before it is read, see
// Parser.prepare.
func newBatch() *batch {
	b := &batch{make([]mailq.Event, eventBatch), make([]mailq.Recipient, eventBatch)}
	clear(b.events)
	clear(b.room)
	b.events = b.events[:0]
	return b
}

// run parses on one goroutine and judges on another.
func (r *replay) run(ctx context.Context) error {
	parsed, judged := make(chan *batch, batches), make(chan *batch, batches)
	for range batches {
		judged <- newBatch()
	}
	g, ctx := errgroup.WithContext(ctx)
	if read := r.judge.lacks; read != nil {
		g.Go(func() error {
			_, err := read()
			return err
		})
	}
	g.Go(func() error {
		defer close(parsed)
		return r.parse(ctx, parsed, judged)
	})
	g.Go(func() error {
		for b := range parsed {
			if err := r.observe(b.events); err != nil {
				return err
			}
			b.events = b.events[:0]
			judged <- b
		}
		return nil
	})
	return g.Wait()
}

// parse fills the batches that come back from judged and sends them on.
func (r *replay) parse(ctx context.Context, parsed chan<- *batch, judged <-chan *batch) error {
	parser := r.judge.parser
	b := <-judged
	parser.Room = b.room
	next := func() error {
		parsed <- b // there is room for all
		select {
		case b = <-judged:
			parser.Room = b.room
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	reader := &logReader{
		paths: r.options.Paths, stdin: r.options.In, location: parser.Location, now: r.options.Now, progress: r.progress,
		line: func(line []byte) error {
			n := len(b.events)
			ev := &b.events[:n+1][n]
			if !parser.ParseInto(ev, line) {
				return nil
			}
			r.count(ev)
			if detector.SaysNothing(ev) && r.judge.risk == nil {
				*ev = mailq.Event{}
				return nil
			}
			if b.events = b.events[:n+1]; n+1 < cap(b.events) {
				return nil
			}
			return next()
		},
	}
	if err := reader.run(ctx); err != nil {
		return err
	}
	r.tooLong = reader.tooLong.Load()
	parsed <- b
	return nil
}

// count takes note of an event that was parsed.
func (r *replay) count(ev *mailq.Event) {
	if r.first.IsZero() {
		r.first = ev.Time
	}
	if ev.Time.After(r.newest) {
		r.newest = ev.Time
	}
}

func (r *replay) progress() {
	if r.options.Progress != nil {
		r.options.Progress(Progress{Lines: r.judge.parser.Stats().Lines, Time: r.newest})
	}
}

// observe judges events and makes their room zero again.
func (r *replay) observe(events []mailq.Event) error {
	for i := range events {
		ev := &events[i]
		if i%detector.ExpectMost == 0 {
			r.judge.detector.Expect(events[i:])
		}
		if s, ok := r.judge.event(ev); ok {
			if err := r.write(s); err != nil {
				return err
			}
		}
		for _, s := range r.judge.endangers(ev) {
			if err := r.write(s); err != nil {
				return err
			}
		}
	}
	clear(events)
	return nil
}

// write prints one step. What is held back would not have been done.
func (r *replay) write(s step) error {
	action := s.decision.Action
	if !s.decision.Enforce {
		action = min(action, rules.Observe)
	}
	r.strongest[s.finding.Subject] = max(r.strongest[s.finding.Subject], action)
	r.steps++
	f := s.finding
	if !r.options.JSON {
		_, err := fmt.Fprintf(r.out, "%s  %-8s  %-32s  score %5.1f  %4d recipients since %s\n%s",
			f.Time.Format(time.DateTime), action, clean(f.Subject), f.Score, f.Rcpts, f.Since.Format(time.TimeOnly), evidenceLines(f.Hard, f.Evidence, "    "))
		return err
	}
	text, err := json.Marshal(replayStep{
		Time: f.Time, Account: f.Subject, Action: action, Rule: f.Rule, Score: round(f.Score, 1), Recipients: f.Rcpts,
		Since: f.Since, Finding: f.ID, HeldBack: s.decision.HeldBack, Hard: f.Hard, Evidence: rounded(f.Evidence),
	})
	if err != nil {
		return err
	}
	r.out.Write(text)
	return r.out.WriteByte('\n')
}

func (r *replay) summary() error {
	s := r.judge.parser.Stats()
	span := r.newest.Sub(r.first).Round(time.Second)
	fmt.Fprintf(r.options.Err, "%d lines, %d events over %s of log time; %d accounts\n", s.Lines, s.Events, span, r.judge.detector.Stats().Accounts)
	tellPassedOver(r.options.Err, s, r.tooLong)
	counts := map[rules.Action]int{}
	for _, action := range r.strongest {
		counts[action]++
	}
	for action := rules.Reset; action >= rules.Observe; action-- {
		if n := counts[action]; n > 0 {
			fmt.Fprintf(r.options.Err, "would %s %d account%s\n", action, n, plural(n))
		}
	}
	switch {
	case s.Events == 0 && (s.Lines > 0 || r.tooLong > 0):
		fmt.Fprintln(r.options.Err, "no line tells of mail or a login: name logs of Postfix, Exim or Dovecot")
	case r.steps == 0:
		fmt.Fprintln(r.options.Err, "nothing found")
	}
	return nil
}

// tellPassedOver says how many lines of logs were not read.
func tellPassedOver(w io.Writer, s mailq.ParserStats, tooLong int64) {
	if s.Unrecognised > 0 || tooLong > 0 {
		fmt.Fprintf(w, "%d lines were not recognised, %d were too long\n", s.Unrecognised, tooLong)
	}
}
