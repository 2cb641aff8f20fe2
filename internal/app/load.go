package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// Load is how a hub of the measurement's own is loaded.
type Load struct {
	Agents   int           // simulated, at most MaxLoadAgents
	Rate     int           // events a second of all; 0: as fast as they are acknowledged
	Duration time.Duration // at most MaxLoadTime
	Hijacks  int           // a second, of all agents; none where Rate is 0, as nothing happens when it is told to
	Program  string        // that is started as the hub: vedetta itself
	Progress io.Writer
}

// Bounds of a load.
const (
	MaxLoadAgents = 5000
	MaxLoadTime   = 10 * time.Minute
	maxLoadEvents = 30_000_000
	maxAtOnce     = 3_000_000 // that are sent as fast as they are acknowledged
)

// flushTime is how long an agent gathers, as forward does.
const flushTime = flushEvery

// A LoadResult is what was measured.
type LoadResult struct {
	Agents       int           `json:"agents"`
	Seconds      float64       `json:"seconds"`
	Sent         int64         `json:"events_sent"`
	Acknowledged int64         `json:"events_acknowledged"`
	PerSecond    float64       `json:"acknowledged_per_second"`
	AckP50       time.Duration `json:"ack_p50_ns"` // of a request
	AckP99       time.Duration `json:"ack_p99_ns"`
	Hijacks      int           `json:"hijacks"`
	Blocked      int           `json:"blocked"`
	BlockP50     time.Duration `json:"block_p50_ns"` // from the event that tipped the balance to the block at the agent
	BlockP99     time.Duration `json:"block_p99_ns"`
	HubCPU       float64       `json:"hub_cpu_cores"`    // of the measured time
	HubMemory    int64         `json:"hub_memory_bytes"` // at most
	CPUs         int           `json:"cpus"`
}

// RunLoad starts a hub on loopback, in a directory that goes away with it, lets
// simulated agents enrol, and has them send what real ones would.
func RunLoad(ctx context.Context, l Load) (r LoadResult, err error) {
	if err := l.Check(); err != nil {
		return r, err
	}
	if l.Rate == 0 {
		l.Hijacks = 0
	}
	dir, err := os.MkdirTemp("", "vedetta-load-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	h, err := startLoadHub(ctx, dir, l.Program)
	if err != nil {
		return r, err
	}
	defer h.stop()
	fmt.Fprintf(l.Progress, "enrolling %d agents\n", l.Agents)
	agents, err := h.enrol(ctx, l)
	if err != nil {
		return r, err
	}
	return l.measure(ctx, h, agents)
}

// Check says what of a load is out of bounds.
func (l Load) Check() error {
	switch {
	case l.Agents < 1 || l.Agents > MaxLoadAgents:
		return fmt.Errorf("agents: %d is not within 1 and %d", l.Agents, MaxLoadAgents)
	case l.Duration < time.Second || l.Duration > MaxLoadTime:
		return fmt.Errorf("duration: %s is not within 1s and %s", l.Duration, MaxLoadTime)
	case l.Rate < 0 || float64(l.Rate)*l.Duration.Seconds() > maxLoadEvents:
		return fmt.Errorf("rate: %d a second for %s are too many events: at most %d", l.Rate, l.Duration, maxLoadEvents)
	case l.Hijacks < 0 || l.Hijacks > 100:
		return fmt.Errorf("hijacks: %d a second are not within 0 and 100", l.Hijacks)
	}
	return nil
}

// A loadHub is a `vedetta serve` of our own.
type loadHub struct {
	dir    string
	agents string // host:port
	api    *web.Client
	cmd    *exec.Cmd
	said   strings.Builder
	gone   chan error
}

func startLoadHub(ctx context.Context, dir, program string) (*loadHub, error) {
	addrs, err := freeAddrs(3)
	if err != nil {
		return nil, err
	}
	h := &loadHub{dir: dir, agents: addrs[0], gone: make(chan error, 1)}
	token := "load-" + strings.Repeat("x", 16)
	h.api = &web.Client{Base: "http://" + addrs[1], Token: token}
	config := fmt.Sprintf("mode: enforce\nstate: %s\nlogs: []\nagents: {listen: %q}\ngate: {listen: [\"inet:%s\"]}\napi: {listen: %q, token: %s}\nrules: {blast_max: 1000000}\n",
		filepath.Join(dir, "hub"), addrs[0], addrs[2], addrs[1], token)
	file := filepath.Join(dir, "hub.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	h.cmd = exec.CommandContext(ctx, program, "serve", "-c", file)
	h.cmd.Stderr = &h.said
	h.cmd.Cancel = func() error { return h.cmd.Process.Signal(syscall.SIGTERM) }
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { h.gone <- h.cmd.Wait() }()
	for range 600 {
		if _, err := h.api.Health(ctx); err == nil {
			return h, nil
		}
		select {
		case err := <-h.gone:
			return nil, fmt.Errorf("the hub ended: %w\n%s", err, h.said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	h.stop()
	return nil, errors.New("the hub does not answer")
}

// freeAddrs finds ports of loopback that nobody listens on.
func freeAddrs(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // not before all are found, or two are the same
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// stop ends the hub and returns the most memory that it had.
func (h *loadHub) stop() (memory int64) {
	if h.cmd.ProcessState == nil {
		h.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-h.gone:
		case <-time.After(30 * time.Second):
			h.cmd.Process.Kill()
			<-h.gone
		}
	}
	if usage, ok := h.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		memory = usage.Maxrss << 10
	}
	return memory
}

// A loadAgent is a simulated agent.
type loadAgent struct {
	*hub.Client
	n      int
	domain string
	rng    *rand.Rand
	seq    uint64
	known  hub.Mark
	serial uint64 // of its messages

	batches []loadBatch // to be sent, in order
}

// A loadBatch is a batch, and when it is due.
type loadBatch struct {
	due    time.Duration // since the begin
	events int
	hub.Sealed
}

func (h *loadHub) enrol(ctx context.Context, l Load) ([]*loadAgent, error) {
	agents := make([]*loadAgent, l.Agents)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for n := range agents {
		g.Go(func() error {
			name, domain := fmt.Sprintf("mx%d", n), fmt.Sprintf("d%d.load.test", n)
			result, err := h.api.ChangeAgent(ctx, web.AgentOrder{Do: "add", Name: name, Domains: []string{domain}, Who: "load"})
			if err != nil {
				return err
			}
			token, err := hub.ParseToken(result.Token)
			if err != nil {
				return err
			}
			dir := filepath.Join(h.dir, name)
			if err := hub.Enrol(ctx, h.agents, token, dir, shortVersion()); err != nil {
				return err
			}
			c := &hub.Client{Address: h.agents, Dir: dir, Version: shortVersion()}
			if _, _, err := c.Open(); err != nil {
				return err
			}
			agents[n] = &loadAgent{Client: c, n: n, domain: domain, rng: rand.New(rand.NewPCG(uint64(n), 7))}
			return nil
		})
	}
	return agents, g.Wait()
}

// Traffic of a simulated agent.
const (
	loadMailboxes = 20 // that send
	loadContacts  = 30 // of each
	loadEvents    = 3  // events of a message to one recipient: accepted, delivered, gone
)

// message appends the events of a message that is accepted at a time.
func (a *loadAgent) message(out []mailq.Event, at time.Time, account string, to mailq.Recipient, reply mailq.Reply) []mailq.Event {
	a.serial++
	id := fmt.Sprintf("4z%06xz9yXw", a.serial)
	common := mailq.Event{
		Time: at, Host: "mx", Account: mailq.Account(account), Message: uint64(a.n)<<32 | a.serial, QueueID: id, Sender: account, Size: 4000, Rcpts: 1,
	}
	submitted, delivered, removed := common, common, common
	submitted.Kind, submitted.Counts, submitted.New = mailq.Submitted, true, []mailq.Recipient{to}
	submitted.Client = netip.AddrFrom4([4]byte{198, 18, byte(a.n), byte(len(account))})
	submitted.Method, submitted.Service = "PLAIN", "smtp"
	delivered.Kind, delivered.To, delivered.Reply = mailq.Delivered, to, reply
	if reply.Code >= 500 {
		delivered.Kind = mailq.Bounced
	}
	removed.Kind = mailq.Removed
	return append(out, submitted, delivered, removed)
}

func (a *loadAgent) recipient() mailq.Recipient {
	n := a.rng.Uint64()
	return mailq.Recipient{Hash: n, Domain: fmt.Sprintf("company%d.test", n%500)}
}

var accepted = mailq.Reply{Class: mailq.OK, Code: 250, Enhanced: "2.0.0"}

// ordinary appends the events of a mailbox that writes to somebody it knows.
func (a *loadAgent) ordinary(out []mailq.Event, at time.Time) []mailq.Event {
	box, contact := a.rng.IntN(loadMailboxes), a.rng.Uint64()%loadContacts
	hash := uint64(a.n)<<20 | uint64(box)<<10 | contact
	to := mailq.Recipient{Hash: hash * 0x9e3779b97f4a7c15, Domain: fmt.Sprintf("company%d.test", hash%500)}
	return a.message(out, at, fmt.Sprintf("box%d@%s", box, a.domain), to, accepted)
}

// hijacked appends what a spammer does in a second through a mailbox.
func (a *loadAgent) hijacked(out []mailq.Event, at time.Time, n int) []mailq.Event {
	account := fmt.Sprintf("victim%d@%s", n, a.domain)
	for i := range 40 {
		reply := accepted
		switch i % 4 {
		case 1:
			reply = mailq.Reply{Class: mailq.Content, Provider: "google", Code: 550, Enhanced: "5.7.1", Text: "spam"}
		case 3:
			reply = mailq.Reply{Class: mailq.RecipientUnknown, Code: 550, Enhanced: "5.1.1", Text: "no such user"}
		}
		out = a.message(out, at.Add(time.Duration(i)*time.Millisecond), account, a.recipient(), reply)
	}
	return out
}

// prepare makes the batches of all the time before it begins, so that making
// them is not measured.
func (l Load) prepare(a *loadAgent, begin time.Time) error {
	perFlush := float64(l.Rate) * flushTime.Seconds() / float64(l.Agents)
	if l.Rate == 0 {
		perFlush = min(400, flushTime.Seconds()*maxAtOnce/float64(l.Agents)/l.Duration.Seconds())
	}
	offset := time.Duration(a.rng.Int64N(int64(flushTime)))
	owed, hijacks := 0.0, 0
	var events []mailq.Event
	for due := offset; due < l.Duration; due += flushTime {
		owed += perFlush
		at := begin.Add(due - flushTime)
		for ; owed >= loadEvents; owed -= loadEvents {
			events = a.ordinary(events, at.Add(time.Duration(a.rng.Int64N(int64(flushTime)))))
		}
		if due > 2*time.Second && a.rng.Float64() < float64(l.Hijacks)*flushTime.Seconds()/float64(l.Agents) {
			events = a.hijacked(events, at.Add(time.Duration(a.rng.Int64N(int64(flushTime)))), hijacks)
			hijacks++
		}
		if len(events) == 0 {
			continue
		}
		a.seq++
		sealed, err := hub.Seal(&hub.Batch{Mark: hub.Mark{Epoch: 1, Seq: a.seq}, Events: events})
		if err != nil {
			return err
		}
		a.batches = append(a.batches, loadBatch{due, len(events), sealed})
		events = events[:0]
	}
	return nil
}

// gauges are what the agents count together.
type gauges struct {
	sent, acked atomic.Int64

	mu     sync.Mutex // guards what follows
	acks   []time.Duration
	blocks []time.Duration
}

func (l Load) measure(ctx context.Context, h *loadHub, agents []*loadAgent) (r LoadResult, err error) {
	fmt.Fprintf(l.Progress, "preparing what they send\n")
	begin := time.Now().Add(2*time.Second + time.Duration(len(agents))*loadPrepares(l))
	for _, a := range agents {
		if err := l.prepare(a, begin); err != nil {
			return r, err
		}
	}
	runtime.GC()
	var g gauges
	streams, stop := context.WithCancel(ctx)
	defer stop()
	var listening sync.WaitGroup
	if l.Hijacks > 0 {
		for _, a := range agents {
			listening.Go(func() { g.listen(streams, a) })
		}
	}
	if late := time.Since(begin); late > 0 && l.Rate > 0 {
		fmt.Fprintf(l.Progress, "preparing took %s too long: times are off by that\n", late.Round(time.Millisecond))
	}
	_ = wait(ctx, time.Until(begin))
	before, err := cpuOf(h.cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	started := time.Now()
	fmt.Fprintf(l.Progress, "sending for %s\n", l.Duration)
	sending, ctx := errgroup.WithContext(ctx)
	for _, a := range agents {
		sending.Go(func() error { return l.send(ctx, a, started, &g) })
	}
	if err := sending.Wait(); err != nil {
		return r, fmt.Errorf("%w\n%s", err, lastLines(h.said.String()))
	}
	took := time.Since(started)
	after, err := cpuOf(h.cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	r = LoadResult{
		Agents: l.Agents, Seconds: took.Seconds(), Sent: g.sent.Load(), Acknowledged: g.acked.Load(), CPUs: runtime.NumCPU(),
		HubCPU: (after - before).Seconds() / took.Seconds(),
	}
	r.PerSecond = float64(r.Acknowledged) / took.Seconds()
	_ = wait(ctx, 2*time.Second) // for the last blocks
	stop()
	listening.Wait()
	for _, a := range agents {
		a.Close()
	}
	r.HubMemory = h.stop()
	for _, a := range agents {
		r.Hijacks += a.hijacks()
	}
	r.AckP50, r.AckP99 = quantiles(g.acks)
	r.BlockP50, r.BlockP99 = quantiles(g.blocks)
	r.Blocked = len(g.blocks)
	return r, nil
}

// loadPrepares is about how long it takes to prepare an agent's batches.
func loadPrepares(l Load) time.Duration {
	if l.Rate == 0 {
		return 0 // times do not matter
	}
	events := float64(l.Rate) * l.Duration.Seconds() / float64(l.Agents)
	return time.Duration(events * float64(8*time.Microsecond))
}

func lastLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "")
}

// hijacks counts the accounts of an agent that were hijacked.
func (a *loadAgent) hijacks() (n int) {
	seen := map[mailq.Account]bool{}
	for _, b := range a.batches {
		batch, err := b.Open()
		if err != nil {
			continue
		}
		for _, e := range batch.Events {
			if strings.HasPrefix(string(e.Account), "victim") {
				seen[e.Account] = true
			}
		}
	}
	return len(seen)
}

// send brings an agent's batches to the hub when they are due, or one request
// after the other.
func (l Load) send(ctx context.Context, a *loadAgent, started time.Time, g *gauges) error {
	for at := 0; at < len(a.batches); {
		if l.Rate > 0 {
			if wait(ctx, time.Until(started.Add(a.batches[at].due))) != nil {
				return ctx.Err()
			}
		} else if time.Since(started) > l.Duration {
			return nil
		}
		next := at + 1
		for next < len(a.batches) && next-at < hub.MaxBatches && l.Rate > 0 && !started.Add(a.batches[next].due).After(time.Now()) {
			next++ // late already
		}
		var sealed []hub.Sealed
		events := 0
		for _, b := range a.batches[at:next] {
			sealed = append(sealed, b.Sealed)
			events += b.events
		}
		g.sent.Add(int64(events))
		asked := time.Now()
		marks, ok, err := a.Send(ctx, a.known, sealed)
		if err != nil || !ok {
			return fmt.Errorf("agent %d: not acknowledged (hub at %v): %w", a.n, marks.Mark, err)
		}
		a.known = marks.Mark
		g.acked.Add(int64(events))
		g.mu.Lock()
		g.acks = append(g.acks, time.Since(asked))
		g.mu.Unlock()
		at = next
	}
	return nil
}

// listen notes how late each block reaches the agent.
func (g *gauges) listen(ctx context.Context, a *loadAgent) {
	blocked := map[string]bool{}
	for ctx.Err() == nil {
		_ = a.Orders(ctx, func(c hub.Change) error {
			now := time.Now()
			for _, o := range c.Set {
				if o.Decision.Action >= rules.Block && !blocked[o.Decision.Subject] {
					blocked[o.Decision.Subject] = true
					g.mu.Lock()
					g.blocks = append(g.blocks, now.Sub(o.Decision.Time))
					g.mu.Unlock()
				}
			}
			return nil
		})
		_ = wait(ctx, 100*time.Millisecond)
	}
}

// cpuOf is the processor time that a process has used.
func cpuOf(pid int) (time.Duration, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	stat, err := p.Stat()
	return time.Duration(stat.CPUTime() * float64(time.Second)), err
}

func quantiles(all []time.Duration) (p50, p99 time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
