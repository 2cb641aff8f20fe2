package main

import (
	"bufio"
	"bytes"
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
	flags.StringVar(&o.addr, "addr", "", "`host:port` of a policy service that runs; empty starts one and loads it")
	flags.IntVar(&o.accounts, "accounts", 1_000_000, "logins to ask about, named as test/loggen names them")
	flags.IntVar(&o.blocked, "blocked", 10_000, "how many of them are blocked in the service that is started")
	flags.IntVar(&o.workers, "workers", 20, "connections, each asking one question after the other")
	flags.Float64Var(&o.rate, "rate", 5000, "questions a second at the fixed rate")
	flags.DurationVar(&o.duration, "duration", 3*time.Second, "of each round")
	flags.IntVar(&o.rounds, "rounds", 9, "rounds at the fixed rate, at least 5 to be recorded")
	flags.StringVar(&o.feed, "feed", "", "`log` that the service follows, to append lines to meanwhile")
	flags.IntVar(&o.feedRate, "feed-rate", 5000, "lines a second to append")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.accounts < 1 || o.workers < 1 || o.rate <= 0 || o.duration <= 0 || o.feedRate < 1 || o.rounds < 1 {
		return errors.New("gate: accounts, workers, rates, rounds and duration must be above zero")
	}
	if o.addr == "" {
		s, err := startService(ctx, o, out)
		if err != nil {
			return err
		}
		defer func() { fmt.Fprintf(out, "the service held at most %d MB\n", s.stop()>>20) }()
		o.addr, o.feed = s.addr, s.feed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fed := make(chan error, 1)
	go func() { fed <- o.feedLog(ctx) }()
	err := o.compare(ctx, out)
	cancel()
	return errors.Join(err, <-fed)
}

// compare asks as fast as answers come, then at the fixed rate: the gate and a
// server that only answers, by turns, so that what this machine and this client
// take by themselves can be seen.
func (o gateOptions) compare(ctx context.Context, out io.Writer) error {
	flat, err := o.ask(ctx, 0)
	if err != nil {
		return err
	}
	perSecond := float64(len(flat.answers)) / flat.took.Seconds()
	fmt.Fprintf(out, "\nas fast as answers come, %d connections: %.0f answers a second; p50 %v, p99 %v; actions %v\n",
		o.workers, perSecond, flat.percentile(50), flat.percentile(99), flat.actions)
	bare, err := startBare(ctx)
	if err != nil {
		return err
	}
	defer bare.stop()
	gate, echo := rounds{name: "vedetta gate"}, rounds{name: "bare server"}
	for range o.rounds {
		for _, r := range []*rounds{&gate, &echo} {
			at := o
			if r == &echo {
				at.addr = bare.addr
			}
			paced, err := at.ask(ctx, o.rate)
			if err != nil {
				return err
			}
			r.add(paced)
		}
	}
	fmt.Fprintf(out, "%.0f a second, %d rounds of %v by turns; medians of the rounds\n", o.rate, o.rounds, o.duration)
	gate.tell(out)
	echo.tell(out)
	p99 := gate.p99()
	fmt.Fprintf(out, "%s: goal %d answers a second\n%s: goal p99 below %v\n",
		verdict(perSecond >= minAnswers), minAnswers, verdict(p99 < maxP99), maxP99)
	if perSecond < minAnswers || p99 >= maxP99 {
		return errors.New("gate: goals missed")
	}
	return nil
}

// rounds is what several rounds at a fixed rate measured.
type rounds struct {
	name       string
	p50s, p99s []time.Duration // one a round
	all        outcome
}

func (r *rounds) add(o outcome) {
	r.p50s = append(r.p50s, o.percentile(50))
	r.p99s = append(r.p99s, o.percentile(99))
	r.all.answers = append(r.all.answers, o.answers...)
}

func (r *rounds) p99() time.Duration { return middle(r.p99s) }

func (r *rounds) tell(out io.Writer) {
	fmt.Fprintf(out, "%-14s p50 %v, p99 %v (of the rounds %v to %v); p99 of all %d answers together %v\n", r.name, middle(r.p50s), r.p99(),
		slices.Min(r.p99s), slices.Max(r.p99s), len(r.all.answers), r.all.percentile(99))
}

func middle(all []time.Duration) time.Duration {
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
	actions map[string]int // first word of the action: DUNNO, REJECT, …
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

// A worker asks over one connection, as one smtpd does.
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
	conn, err := dialer.Dial("tcp", w.options.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	var question []byte
	for n := 0; ; n++ {
		due, late := time.Now(), false
		if w.every > 0 {
			late = due.After(w.first.Add(time.Duration(n) * w.every))
			due = w.first.Add(time.Duration(n) * w.every)
		}
		if !sleepUntil(ctx, due) {
			return nil
		}
		question = w.question(question[:0], n)
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		sent := time.Now()
		if _, err := conn.Write(question); err != nil {
			return err
		}
		action, err := readAction(lines)
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

// question is what Postfix asks at RCPT.
func (w *worker) question(b []byte, n int) []byte {
	account := w.rng.IntN(w.options.accounts)
	login := loggen.Options{}.Login(account)
	return fmt.Appendf(b, "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=198.18.%d.%d\n"+
		"client_name=unknown\nclient_port=%d\nreverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=587\nhelo_name=vm\n"+
		"sender=%s\nrecipient=r%d@company%d.test\nrecipient_count=0\nqueue_id=\ninstance=%x.%x.0\nsize=2000\netrn_domain=\nstress=\n"+
		"sasl_method=PLAIN\nsasl_username=%s\nsasl_sender=\n\n",
		account>>8&255, account&255, 1024+n%60000, login, n, n%500, w.rng.Uint32(), n, login)
}

// readAction reads an answer: action=WORD and the rest, and an empty line.
func readAction(lines *bufio.Reader) (string, error) {
	line, err := lines.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	word, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("action="))
	if !ok {
		return "", fmt.Errorf("want action=, got %q", line)
	}
	word, _, _ = bytes.Cut(word, []byte(" "))
	action := string(word)
	if line, err = lines.ReadSlice('\n'); err != nil {
		return "", err
	}
	if len(bytes.TrimSpace(line)) > 0 {
		return "", fmt.Errorf("want an empty line, got %q", line)
	}
	return action, nil
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
