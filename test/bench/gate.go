package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

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
	pid      int // of the service, if it was started here
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
	if o.feed != "" {
		feed, err := startChild(ctx, "feed", o.feed, strconv.Itoa(o.feedRate), strconv.Itoa(o.accounts))
		if err != nil {
			return err
		}
		defer feed.stop()
	}
	return o.compare(ctx, out)
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
	gate := rounds{name: "vedetta gate", addr: o.addr, pid: o.pid}
	echo := rounds{name: "bare server", addr: bare.addr, pid: bare.cmd.Process.Pid}
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
	pid        int             // 0: unknown
	perSecond  []float64       // one a round, as fast as answers come
	p50s, p99s []time.Duration // one a round, at the fixed rate
	actions    map[string]int  // of the latest round
	asked      int             // at the fixed rate

	flatCPU, pacedCPU []time.Duration // of the server, an answer
}

// measure is one round.
func (r *rounds) measure(ctx context.Context, o gateOptions) error {
	o.addr = r.addr
	flat, flatCPU, err := r.ask(ctx, o, 0)
	if err != nil {
		return err
	}
	paced, pacedCPU, err := r.ask(ctx, o, o.rate)
	if err != nil {
		return err
	}
	r.flatCPU, r.pacedCPU = append(r.flatCPU, flatCPU), append(r.pacedCPU, pacedCPU)
	r.perSecond = append(r.perSecond, float64(len(flat.answers))/flat.took.Seconds())
	r.p50s = append(r.p50s, paced.percentile(50))
	r.p99s = append(r.p99s, paced.percentile(99))
	r.actions = paced.actions
	r.asked += len(paced.answers)
	return nil
}

// ask asks at a rate, and returns what processor time an answer took the server,
// with all else that it did meanwhile.
func (r *rounds) ask(ctx context.Context, o gateOptions, rate float64) (outcome, time.Duration, error) {
	before := processTime(r.pid)
	got, err := o.ask(ctx, rate)
	return got, (processTime(r.pid) - before) / time.Duration(max(len(got.answers), 1)), err
}

func (r *rounds) tell(out io.Writer) {
	fmt.Fprintf(out, "%-12s %6.0f answers a second (of the rounds %.0f to %.0f); p50 %v, p99 %v (%v to %v) of %d answers; %v\n", r.name,
		middle(r.perSecond), slices.Min(r.perSecond), slices.Max(r.perSecond), middle(r.p50s), middle(r.p99s), slices.Min(r.p99s), slices.Max(r.p99s),
		r.asked, r.actions)
	if r.pid > 0 {
		fmt.Fprintf(out, "%-12s CPU time an answer, with all else that the server did: %.1f µs as fast as they come, %.1f µs at the rate\n", r.name,
			micros(middle(r.flatCPU)), micros(middle(r.pacedCPU)))
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

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

// serveFeed is a process that feeds a log: its path, lines a second, and how
// many accounts they are about.
func serveFeed(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("feed: want a path, a rate and a number of accounts")
	}
	o := gateOptions{feed: args[0]}
	var err, err2 error
	o.feedRate, err = strconv.Atoi(args[1])
	o.accounts, err2 = strconv.Atoi(args[2])
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	fmt.Fprintln(out, o.feed)
	return o.feedLog(ctx)
}

// feedLog appends lines to the log at the rate asked for, until ctx ends.
func (o gateOptions) feedLog(ctx context.Context) error {
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
