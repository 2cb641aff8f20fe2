// Package eval measures how good the watch is: real traffic goes by, hijacks
// are injected into it, and it counts how much of each gets out before the
// stop, and how often somebody honest is stopped; then honest but odd senders,
// made up, go by beside it. Fixed limits that others ship are measured in the
// same run.
package eval

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// Options says what to measure.
type Options struct {
	Traffic  []Message        // in the order of time
	Owners   *mailq.Directory // of the traffic's accounts; nil: nothing is known
	WarmUp   time.Duration
	Trials   int // hijacks of each style
	Odd      int // honest but odd senders of each kind
	Seed     uint64
	Part     Part     // of the accounts, whom to count and to hijack; the others go by
	Listing  *Listing // nil: no race with block lists
	Detector detector.Config
	Policy   *rules.Policy // what a finding deserves; in [rules.ModeEnforce]
	Progress func(Progress)
}

// Progress is how far a run has come.
type Progress struct {
	Odd          bool // the real traffic is done, and the odd senders go by
	Messages, Of int  // 0 of them: they are still being read
	Trials       int  // hijacks of each style so far
}

// A Part is one of several parts of the accounts, by a hash of their names: what
// is looked at in one part says something about the others. The zero Part is all.
type Part struct{ N, Of int }

func (p Part) has(a mailq.Account) bool {
	if p.Of <= 1 {
		return true
	}
	h := fnv.New64a()
	h.Write([]byte(a))
	return int(mix(h.Sum64())%uint64(p.Of)) == p.N-1
}

// ErrShort means that the traffic ends before the warm-up does.
var ErrShort = errors.New("the traffic is no longer than the warm-up")

// Run shows the traffic to the detector and to the fixed rules, and injects
// hijacks. The same options give the same result.
func Run(ctx context.Context, o Options) (Result, error) {
	if len(o.Traffic) == 0 {
		return Result{}, ErrTrace
	}
	begin := o.Traffic[0].Time + int64(o.WarmUp/time.Second)
	first := since(o.Traffic, begin)
	if first == len(o.Traffic) {
		return Result{}, ErrShort
	}
	if o.Owners == nil {
		o.Owners = &mailq.Directory{}
	}
	real := newPass(o, o.Traffic, o.Owners)
	real.first = first
	real.of = []victim{anyone, dormant, nobody}
	if err := real.run(ctx); err != nil {
		return Result{}, err
	}
	r := real.result()
	stops := real.stops
	if o.Odd > 0 {
		odd := oddPass(o, begin)
		odd.of = []victim{letters, form}
		if err := odd.run(ctx); err != nil {
			return Result{}, err
		}
		r.addOdd(odd)
		for sys := range stops {
			for s, more := range odd.stops[sys] {
				stops[sys][s] = append(stops[sys][s], more...)
			}
		}
	}
	r.Total, r.Honest = r.total(), r.wrongs()
	if o.Listing != nil {
		race := o.Listing.race(stops)
		r.Race = &race
	}
	return r, nil
}

// since is the first message at or after a time.
func since(all []Message, at int64) int {
	i, _ := slices.BinarySearchFunc(all, at, func(m Message, at int64) int { return int(m.Time - at) })
	return i
}

// A pass is one run over some traffic. System 0 is Vedetta; the fixed rules
// follow it.
type pass struct {
	Options
	traffic  []Message
	first    int // message that counts
	of       []victim
	rnd      *rand.Rand
	detector *detector.Detector
	pasts    map[mailq.Account]*past
	pick     [victims][]mailq.Account // of the made-up kinds
	serial   uint64
	trials   int
	group    map[mailq.Account]int // the tally of an odd account, the next one from the time late on
	late     int64
	tallies  []tally
	stops    [][][]stop // by system, style
}

// A tally is what was done to some honest accounts.
type tally struct {
	days  int
	wrong []Wrong // by system
	today map[mailq.Account]*mailboxDay
	above [reaches]int // mailbox-days by the highest reach of Vedetta's score
	cases []Case       // the first that were held or blocked
}

// A mailboxDay is what was done to a mailbox on one day.
type mailboxDay struct {
	day   int64
	done  []rules.Action // by system
	reach int
}

// A stop is what one hijack came to in one system.
type stop struct {
	stopped bool
	rcpts   int // submitted until then, the last message's included
	after   time.Duration
	at      *[reaches]int // of Vedetta: recipients when its score reached so much; 0: never
}

// Scores are compared by what they reach: see [reachOf].
const reaches = 26

// reachOf is the score of a finding as the shipped rules weigh it for a hold: 12
// with two families or 20 with one. A hard rule is above all.
func reachOf(f *rules.Finding) int {
	score := f.Score
	if f.Families < 2 {
		score -= 8
	}
	if f.Hard != "" {
		score = reaches
	}
	return int(min(max(score, 0), reaches-1))
}

func newPass(o Options, traffic []Message, dir *mailq.Directory) *pass {
	systems := 1 + len(fixedRules)
	p := &pass{
		Options: o, traffic: traffic, rnd: rand.New(rand.NewPCG(o.Seed, 0)), detector: detector.New(o.Detector, dir),
		pasts: map[mailq.Account]*past{}, tallies: make([]tally, 1), stops: make([][][]stop, systems),
	}
	for i := range p.stops {
		p.stops[i] = make([][]stop, len(styles))
	}
	return p
}

// run shows all traffic, and tries hijacks of the styles with the pass's kinds of
// victims.
func (p *pass) run(ctx context.Context) error {
	for i := range p.tallies {
		p.tallies[i].wrong, p.tallies[i].today = make([]Wrong, len(p.stops)), map[mailq.Account]*mailboxDay{}
	}
	plan := map[int]int{}
	for range p.Trials {
		plan[p.first+p.rnd.IntN(len(p.traffic)-p.first)]++
	}
	for i := range p.traffic {
		if i%1000 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if p.Progress != nil {
				p.Progress(Progress{Messages: i, Of: len(p.traffic), Trials: p.trials, Odd: len(p.tallies) > 1})
			}
		}
		p.honest(i)
		for range plan[i] {
			p.trial(i)
		}
	}
	return nil
}

// honest shows message i of the traffic, and counts what was done about it. Whoever is
// held or blocked is released before he sends again on another day: a customer who is
// stopped wrongly calls.
func (p *pass) honest(i int) {
	m := &p.traffic[i]
	var done outcome
	if m.Kind == mailq.Delivered {
		p.send(m, nil, &done)
		return
	}
	of, g := p.past(m.Account), p.group[m.Account]
	if of.stopped > 0 && m.Time/86400 > of.stopped {
		p.detector.Release(m.Account, time.Unix(m.Time, 0), fmt.Sprint(of.stopped))
		of.stopped = 0
	}
	p.send(m, of, &done)
	if done.actions[0] >= rules.Hold {
		of.stopped = m.Time / 86400
	}
	if i < p.first || m.Kind != mailq.Submitted || g == 0 && !p.Part.has(m.Account) {
		return
	}
	if g > 0 && m.Time >= p.late {
		g++
	}
	p.tallies[g].count(m, &done)
	if t := &p.tallies[g]; done.actions[0] >= rules.Hold && len(t.cases) < mostCases {
		t.cases = append(t.cases, Case{Time: time.Unix(m.Time, 0).UTC(), Account: string(m.Account), Done: done.actions[0], Evidence: done.evidence})
	}
}

// count adds one honest message.
func (t *tally) count(m *Message, done *outcome) {
	d := t.today[m.Account]
	if day := m.Time / 86400; d == nil || d.day != day {
		d = &mailboxDay{day: day, done: make([]rules.Action, len(t.wrong))}
		t.today[m.Account] = d
		t.days++
		t.above[0]++
	}
	for s := range t.wrong {
		if action := done.actions[s]; action > d.done[s] {
			t.wrong[s].count(d.done[s], action)
			d.done[s] = action
		}
	}
	if done.reach > d.reach {
		t.above[d.reach]--
		t.above[done.reach]++
		d.reach = done.reach
	}
}

func (p *pass) past(a mailq.Account) *past {
	of := p.pasts[a]
	if of == nil {
		of = newPast()
		p.pasts[a] = of
	}
	return of
}

// An outcome is the strongest that was done so far, by system.
type outcome struct {
	actions  [1 + len(fixedRules)]rules.Action
	reach    int              // of Vedetta's score
	evidence []rules.Evidence // of its strongest action
}

// send shows one message to all systems.
func (p *pass) send(m *Message, of *past, done *outcome) {
	p.serial++
	m.events(mix(p.serial), func(ev *mailq.Event) { p.observe(ev, done) })
	if m.Kind != mailq.Submitted {
		return
	}
	of.take(m)
	for s, l := range fixedRules {
		if of.exceeds(l) {
			done.actions[1+s] = rules.Block
		}
	}
}

// observe is what Vedetta does about an event.
func (p *pass) observe(ev *mailq.Event, done *outcome) {
	f, found := p.detector.Observe(ev)
	if !found {
		return
	}
	done.reach = max(done.reach, reachOf(&f))
	d, ok := p.Policy.Decide(f)
	if ok && d.Enforce && d.Action > done.actions[0] {
		done.actions[0], done.evidence = d.Action, f.Evidence
	}
}
