// Package eval measures how good the watch is: real traffic goes by, hijacks
// are injected into it, and it counts how much of each gets out before the
// stop, and how often somebody honest is stopped. Fixed limits that others
// ship are measured in the same run.
package eval

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// Options says what to measure.
type Options struct {
	Trace    []Message // in the order of time, as [ReadTrace] gives it
	WarmUp   time.Duration
	Trials   int // hijacks of each style
	Seed     uint64
	Detector detector.Config
	Policy   *rules.Policy                  // what a finding deserves; in [rules.ModeEnforce]
	Progress func(messages, of, trials int) // called now and then; nil for none
}

// ErrShort means that a trace ends before the warm-up does.
var ErrShort = errors.New("the trace is no longer than the warm-up")

// Run shows the trace to the detector and to the fixed rules, and injects hijacks.
// The same options give the same result.
func Run(ctx context.Context, o Options) (Result, error) {
	if len(o.Trace) == 0 {
		return Result{}, ErrTrace
	}
	begin := o.Trace[0].Time + int64(o.WarmUp/time.Second)
	first, _ := slices.BinarySearchFunc(o.Trace, begin, func(m Message, at int64) int { return int(m.Time - at) })
	if first == len(o.Trace) {
		return Result{}, ErrShort
	}
	b := newBench(o)
	plan := b.plan(first)
	for i := range o.Trace {
		if i%1000 == 0 {
			if err := ctx.Err(); err != nil {
				return Result{}, err
			}
			if o.Progress != nil {
				o.Progress(i, len(o.Trace), b.trials)
			}
		}
		b.honest(i, i >= first)
		for range plan[i] {
			b.trial(i)
		}
	}
	return b.result(), nil
}

// A bench is a run under way. System 0 is Vedetta; the fixed rules follow it.
type bench struct {
	Options
	rnd      *rand.Rand
	detector *detector.Detector
	pasts    map[uint64]*past
	serial   uint64
	trials   int
	today    map[uint64]*mailboxDay // by sender
	wrong    []Wrong                // by system
	days     int
	stops    [][][]stop // by system, style
}

// A mailboxDay is what was done to a mailbox on one day.
type mailboxDay struct {
	day  int64
	done []rules.Action // by system
}

// A stop is what one hijack came to in one system.
type stop struct {
	stopped bool
	rcpts   int // submitted until then, the last message's included
	after   time.Duration
}

func newBench(o Options) *bench {
	systems := 1 + len(fixedRules)
	b := &bench{
		Options: o, rnd: rand.New(rand.NewPCG(o.Seed, 0)), detector: detector.New(o.Detector, &mailq.Directory{}),
		pasts: map[uint64]*past{}, today: map[uint64]*mailboxDay{}, wrong: make([]Wrong, systems), stops: make([][][]stop, systems),
	}
	for i := range b.stops {
		b.stops[i] = make([][]stop, len(styles))
	}
	return b
}

// plan says after which messages how many hijacks are tried.
func (b *bench) plan(first int) map[int]int {
	plan := map[int]int{}
	for range b.Trials {
		plan[first+b.rnd.IntN(len(b.Trace)-first)]++
	}
	return plan
}

// honest shows message i of the trace, and counts what was done about it.
func (b *bench) honest(i int, counts bool) {
	m := &b.Trace[i]
	done := make([]rules.Action, 1+len(fixedRules))
	to := recipientsOf(m.To)
	b.send(m.Sender, time.Unix(m.Time, 0), to, 0, b.past(m.Sender), done)
	if !counts {
		return
	}
	d := b.today[m.Sender]
	if day := m.Time / 86400; d == nil || d.day != day {
		d = &mailboxDay{day: day, done: make([]rules.Action, len(done))}
		b.today[m.Sender] = d
		b.days++
	}
	for s, action := range done {
		if action > d.done[s] {
			b.wrong[s].count(d.done[s], action)
			d.done[s] = action
		}
	}
}

func (b *bench) past(sender uint64) *past {
	p := b.pasts[sender]
	if p == nil {
		p = &past{seen: map[uint64]bool{}}
		b.pasts[sender] = p
	}
	return p
}

// send shows one message to all systems, as a Postfix log would tell it: its
// arrival, and a second later what became of each recipient, of which the first
// dead ones do not exist. It raises done to what each system does about it.
func (b *bench) send(sender uint64, at time.Time, to []mailq.Recipient, dead int, p *past, done []rules.Action) {
	b.serial++
	ev := mailq.Event{
		Time: at, Kind: mailq.Submitted, Counts: true, Host: "trace", Account: account(sender), Message: mix(b.serial), Sender: string(account(sender)), Rcpts: len(to),
	}
	done[0] = max(done[0], b.observe(&ev))
	for i := range to {
		ev := mailq.Event{Time: at.Add(time.Second), Kind: mailq.Delivered, Host: "trace", Account: ev.Account, Message: ev.Message, New: to[i : i+1], To: to[i],
			Reply: mailq.Reply{Class: mailq.OK, Code: 250, Enhanced: "2.0.0"}}
		if i < dead {
			ev.Kind, ev.Reply = mailq.Bounced, mailq.Reply{Class: mailq.RecipientUnknown, Code: 550, Enhanced: "5.1.1"}
		}
		done[0] = max(done[0], b.observe(&ev))
	}
	p.take(at, to)
	for s, l := range fixedRules {
		if p.exceeds(l) {
			done[1+s] = rules.Block
		}
	}
}

// observe is what Vedetta does about an event.
func (b *bench) observe(ev *mailq.Event) rules.Action {
	f, found := b.detector.Observe(ev)
	if !found {
		return rules.Nothing
	}
	d, ok := b.Policy.Decide(f)
	if !ok || !d.Enforce {
		return rules.Nothing
	}
	return d.Action
}

// trial injects one hijack of each style after message i.
func (b *bench) trial(i int) {
	b.trials++
	victim := b.Trace[b.rnd.IntN(i+1)].Sender // weighted by what each has sent so far
	at := time.Unix(b.Trace[i].Time, 0).Add(time.Duration(b.rnd.Int64N(int64(6 * time.Hour)))).Truncate(time.Second)
	for s := range styles {
		if styles[s].contacts && len(b.pasts[victim].seen) < fewContacts {
			continue
		}
		h := hijack{bench: b, style: &styles[s], victim: victim, at: at, next: i + 1, of: i}
		b.detector.Try(account(victim), func() { b.pasts[victim].try(h.run) })
		for sys, st := range h.stops {
			b.stops[sys][s] = append(b.stops[sys][s], st)
		}
	}
}

// A hijack is one trial under way.
type hijack struct {
	*bench
	style  *style
	victim uint64
	at     time.Time
	next   int // the trace's message that comes next
	of     int // messages of the trace that have gone by
	stops  []stop
}

// run sends the hijacker's messages among the victim's own until every system
// has stopped him or he is done.
func (h *hijack) run(p *past) {
	done := make([]rules.Action, 1+len(fixedRules))
	h.stops = make([]stop, len(done))
	contacts := h.contacts(p)
	begun, rcpts := h.at, 0
	for n := range h.style.messagesOf() {
		if n == h.style.probes && n > 0 {
			h.at = h.at.Add(h.style.silence)
		}
		h.owner(p, done)
		to, dead := h.recipients(contacts, n)
		rcpts += len(to)
		h.send(h.victim, h.at, to, dead, p, done)
		left := 0
		for s, action := range done {
			enough := rules.Hold
			if h.style.contacts {
				enough = rules.Throttle
			}
			if st := &h.stops[s]; !st.stopped {
				st.stopped, st.rcpts, st.after = action >= enough, rcpts, h.at.Sub(begun)
				left++
			}
		}
		if left == 0 {
			return
		}
		h.at = h.at.Add(h.style.gap)
	}
}

// owner shows what the victim himself sends meanwhile.
func (h *hijack) owner(p *past, done []rules.Action) {
	for ; h.next < len(h.Trace) && h.Trace[h.next].Time <= h.at.Unix(); h.next++ {
		if m := &h.Trace[h.next]; m.Sender == h.victim {
			h.send(m.Sender, time.Unix(m.Time, 0), recipientsOf(m.To), 0, p, done)
		}
	}
}

// contacts are the victim's, in an order of the trial's own.
func (h *hijack) contacts(p *past) []uint64 {
	if !h.style.contacts {
		return nil
	}
	all := make([]uint64, 0, len(p.seen))
	for hash := range p.seen {
		all = append(all, hash)
	}
	slices.Sort(all)
	h.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func (h *hijack) recipients(contacts []uint64, n int) (to []mailq.Recipient, dead int) {
	to = make([]mailq.Recipient, h.style.rcpts)
	for i := range to {
		to[i] = mailq.Recipient{Hash: h.rnd.Uint64(), Domain: domain}
		switch {
		case contacts != nil:
			to[i].Hash = contacts[(n*len(to)+i)%len(contacts)]
		case h.rnd.Float64() < h.style.known:
			m := &h.Trace[h.rnd.IntN(h.of+1)]
			to[i].Hash = mix(m.To[h.rnd.IntN(len(m.To))])
		}
		if h.rnd.Float64() < h.style.dead {
			dead++
		}
	}
	return to, dead
}

// domain is that of all mailboxes: a trace tells no domains, so they give
// nobody away.
const domain = "mail.test"

func account(sender uint64) mailq.Account {
	return mailq.Account(fmt.Sprintf("m%d@%s", sender, domain))
}

func recipientsOf(to []uint64) []mailq.Recipient {
	all := make([]mailq.Recipient, len(to))
	for i, n := range to {
		all[i] = mailq.Recipient{Hash: mix(n), Domain: domain}
	}
	return all
}

// mix spreads numbers that lie close together over all 64 bits.
func mix(n uint64) uint64 {
	n = (n + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
