package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

// dialer bounds how long a connection may take.
var dialer = net.Dialer{Timeout: 5 * time.Second}

// The goals for the gate.
const (
	minAnswers = 20_000           // a second
	maxP99     = time.Millisecond // at the fixed rate
)

type gateOptions struct {
	kind     kind
	addr     string
	accounts int
	blocked  int
	workers  int
	rate     float64
	duration time.Duration
	rounds   int
	feed     string
	feedRate int
}

func runGate(ctx context.Context, args []string, out io.Writer) error {
	var o gateOptions
	flags := flag.NewFlagSet("gate", flag.ContinueOnError)
	name := flags.String("kind", "policy", "`what` asks: policy, milter or exim")
	flags.StringVar(&o.addr, "addr", "", "`host:port` or path of a gate that runs; empty starts one and loads it")
	flags.IntVar(&o.accounts, "accounts", 1_000_000, "logins to ask about, named as test/loggen names them")
	flags.IntVar(&o.blocked, "blocked", 10_000, "how many of them are blocked in the service that is started")
	flags.IntVar(&o.workers, "workers", 20, "connections, each asking one question after the other")
	flags.Float64Var(&o.rate, "rate", 5000, "questions a second at the fixed rate")
	flags.DurationVar(&o.duration, "duration", 2*time.Second, "of each round")
	flags.IntVar(&o.rounds, "rounds", 9, "rounds, at least 5 to be recorded")
	flags.StringVar(&o.feed, "feed", "", "`log` that the service follows, to append lines to meanwhile")
	flags.IntVar(&o.feedRate, "feed-rate", 5000, "lines a second to append")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if o.kind, err = findKind(*name); err != nil {
		return err
	}
	if o.accounts < 1 || o.workers < 1 || o.rate <= 0 || o.duration <= 0 || o.feedRate < 1 || o.rounds < 1 {
		return errors.New("gate: accounts, workers, rates, rounds and duration must be above zero")
	}
	if o.addr == "" {
		s, err := startGate(ctx, &o, out)
		if err != nil {
			return err
		}
		defer func() { fmt.Fprintf(out, "the service held at most %d MB\n", s.stop()>>20) }()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fed := make(chan error, 1)
	go func() { fed <- o.feedLog(ctx) }()
	err = o.compare(ctx, out)
	cancel()
	return errors.Join(err, <-fed)
}

// compare asks as fast as answers come, then at the fixed rate: the gate and a
// server that only answers, by turns, so that what this machine and this client
// take by themselves can be seen.
func (o gateOptions) compare(ctx context.Context, out io.Writer) error {
	bare, err := startBare(ctx, o.kind)
	if err != nil {
		return err
	}
	defer bare.stop()
	gate, echo := rounds{name: "vedetta gate", addr: o.addr}, rounds{name: "bare server", addr: bare.addr}
	for range o.rounds {
		for _, r := range []*rounds{&gate, &echo} {
			if err := r.measure(ctx, o); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "\n%s: %d connections, %d rounds by turns of %v as fast as answers come and %v at %.0f a second; medians of the rounds\n",
		o.kind.name, o.workers, o.rounds, o.duration, o.duration, o.rate)
	gate.tell(out)
	echo.tell(out)
	perSecond, p99 := middle(gate.perSecond), middle(gate.p99s)
	fmt.Fprintf(out, "%s: goal %d answers a second\n%s: goal p99 below %v at %.0f a second\n",
		verdict(perSecond >= minAnswers), minAnswers, verdict(p99 < maxP99), maxP99, o.rate)
	if perSecond < minAnswers || p99 >= maxP99 {
		return errors.New("gate: goals missed")
	}
	return nil
}

// rounds is what several rounds at one server measured.
type rounds struct {
	name, addr string
	perSecond  []float64       // one a round, as fast as answers come
	p50s, p99s []time.Duration // one a round, at the fixed rate
	actions    map[string]int  // of the latest round
	asked      int             // at the fixed rate
}

// measure is one round.
func (r *rounds) measure(ctx context.Context, o gateOptions) error {
	o.addr = r.addr
	flat, err := o.ask(ctx, 0)
	if err != nil {
		return err
	}
	paced, err := o.ask(ctx, o.rate)
	if err != nil {
		return err
	}
	r.perSecond = append(r.perSecond, float64(len(flat.answers))/flat.took.Seconds())
	r.p50s = append(r.p50s, paced.percentile(50))
	r.p99s = append(r.p99s, paced.percentile(99))
	r.actions = paced.actions
	r.asked += len(paced.answers)
	return nil
}

func (r *rounds) tell(out io.Writer) {
	fmt.Fprintf(out, "%-12s %6.0f answers a second (of the rounds %.0f to %.0f); p50 %v, p99 %v (%v to %v) of %d answers; %v\n", r.name,
		middle(r.perSecond), slices.Min(r.perSecond), slices.Max(r.perSecond), middle(r.p50s), middle(r.p99s), slices.Min(r.p99s), slices.Max(r.p99s),
		r.asked, r.actions)
}

func middle[T cmp.Ordered](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// An answer is when a question was due, was sent, and was answered.
type answer struct {
	due, sent, answered time.Time
	late                bool // not sent in time, for the answer before was not there yet
}

// waited is how long a client waits for an answer: from when the question was
// sent; or, if it had to wait for the answer before, from when it was due, so
// that a slow answer counts for the questions behind it too. How late the
// client's own timer woke it is not the server's time.
func (a answer) waited() time.Duration {
	if a.late {
		return a.answered.Sub(a.due)
	}
	return a.answered.Sub(a.sent)
}

type outcome struct {
	answers []answer
	actions map[string]int // first word of the answer: DUNNO, REJECT, …
	took    time.Duration
}

func (r outcome) percentile(p int) time.Duration {
	if len(r.answers) == 0 {
		return 0
	}
	var all []time.Duration
	for _, a := range r.answers {
		all = append(all, a.waited())
	}
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)].Round(time.Microsecond)
}

// ask questions the service over all connections for the duration, at rate
// questions a second, or with 0 as fast as answers come.
func (o gateOptions) ask(ctx context.Context, rate float64) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	workers := make([]worker, o.workers)
	start := time.Now()
	var running sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		*w = worker{options: o, actions: map[string]int{}, rng: rand.New(rand.NewPCG(1, uint64(i)))}
		if rate > 0 {
			w.every = time.Duration(float64(o.workers) / rate * float64(time.Second))
			w.first = start.Add(w.every * time.Duration(i) / time.Duration(o.workers))
		}
		running.Go(func() { w.err = w.work(ctx) })
	}
	running.Wait()
	r := outcome{actions: map[string]int{}, took: time.Since(start)}
	for _, w := range workers {
		if w.err != nil {
			return r, w.err
		}
		r.answers = append(r.answers, w.answers...)
		for action, n := range w.actions {
			r.actions[action] += n
		}
	}
	return r, nil
}

// A worker asks one question at a time, as one smtpd does.
type worker struct {
	options gateOptions
	rng     *rand.Rand
	every   time.Duration // between questions; 0 asks at once
	first   time.Time

	answers []answer
	actions map[string]int
	err     error
}

func (w *worker) work(ctx context.Context) error {
	client, err := w.options.kind.dial(network(w.options.addr), w.options.addr)
	if err != nil {
		return err
	}
	defer client.Close()
	for n := 0; ; n++ {
		due, late := time.Now(), false
		if w.every > 0 {
			late = due.After(w.first.Add(time.Duration(n) * w.every))
			due = w.first.Add(time.Duration(n) * w.every)
		}
		if !sleepUntil(ctx, due) {
			return nil
		}
		client.prepare(newQuestion(w.rng, n, w.options.accounts))
		sent := time.Now()
		action, err := client.ask()
		if err != nil {
			return fmt.Errorf("gate: answer %d: %w", n+1, err)
		}
		w.answers = append(w.answers, answer{due, sent, time.Now(), late})
		w.actions[action]++
	}
}

// sleepUntil returns false if ctx ends first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	if wait := time.Until(at); wait > 0 {
		time.Sleep(wait) // shorter than a duration of the run, and finer than a channel
	}
	return ctx.Err() == nil
}

// feedLog appends lines to the log at the rate asked for, until ctx ends.
func (o gateOptions) feedLog(ctx context.Context) error {
	if o.feed == "" {
		return nil
	}
	log, err := os.OpenFile(o.feed, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	pipe, end := io.Pipe()
	go func() {
		end.CloseWithError(loggen.Write(end, loggen.Options{
			Lines: 1 << 30, Accounts: min(o.accounts, 20_000), Start: time.Now(), Rate: float64(o.feedRate) / 7, Seed: uint64(time.Now().UnixNano()),
		}))
	}()
	err = pour(ctx, log, pipe, o.feedRate)
	pipe.Close()
	return errors.Join(err, log.Close())
}

// pour copies perSecond lines a second, in hundred small portions.
func pour(ctx context.Context, to io.Writer, from io.Reader, perSecond int) error {
	lines := bufio.NewReaderSize(from, 1<<16)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	start, poured := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var portion []byte
		for due := int(time.Since(start).Seconds() * float64(perSecond)); poured < due; poured++ {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				return err
			}
			portion = append(portion, line...)
		}
		if _, err := to.Write(portion); err != nil {
			return err
		}
	}
}
