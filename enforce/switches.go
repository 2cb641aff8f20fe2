package enforce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Mark says that a switch was set for a subject, or may have been.
type Mark struct {
	Switch  string // its name
	Subject string
	Action  rules.Action
	Undo    string // what Switch.Before said
	Done    bool   // it certainly was set
}

// Marks keeps marks over restarts. PutMark replaces one of the same switch,
// subject and action.
type Marks interface {
	Marks(ctx context.Context) ([]Mark, error)
	PutMark(ctx context.Context, m Mark) error
	DropMark(ctx context.Context, m Mark) error
}

// ErrGivenUp means that a switch failed twice and is not tried again before
// the next start, or another order about the account.
var ErrGivenUp = errors.New("failed twice and not tried again; do it by hand")

// ErrForwarding means that a mailbox goes on forwarding: neither a gate nor a
// table can tell its mail from what it receives.
var ErrForwarding = errors.New("nothing that is configured can stop a forwarding: remove it by hand")

const (
	switchTries   = 2
	switchTimeout = 15 * time.Second // for each account and switch: all others wait meanwhile
	switchesOnce  = 8                // accounts that are switched at the same time
)

// A switchboard sets and clears switches, and knows which are set.
type switchboard struct {
	turn turn // held while switches are set or cleared

	mu     sync.Mutex
	marks  map[string][]Mark // by subject, in the order in which they were set
	tries  map[Mark]int      // that failed, by mark without Undo and Done
	loaded bool
}

func (m Mark) key() Mark { return Mark{Switch: m.Switch, Subject: m.Subject, Action: m.Action} }

// load reads the marks once.
func (x *Executor) loadMarks(ctx context.Context) error {
	b := &x.board
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loaded {
		return nil
	}
	all, err := x.Marks.Marks(ctx)
	if err != nil {
		return err
	}
	b.marks, b.tries = make(map[string][]Mark), make(map[Mark]int)
	for _, m := range all {
		b.marks[m.Subject] = append(b.marks[m.Subject], m)
	}
	b.loaded = true
	return nil
}

// switchOn sets the switches of decisions that are in force, those of several
// accounts at the same time, and clears before that what did more than they
// ask for. The steps are by index of the decision.
func (x *Executor) switchOn(ctx context.Context, ds []rules.Decision) [][]Step {
	steps := make([][]Step, len(ds))
	if err := x.takeBoard(ctx); err != nil {
		for i := range ds {
			steps[i] = []Step{{What: "switches", Err: err}}
		}
		return steps
	}
	defer x.board.turn.give()
	for i, d := range ds {
		steps[i] = x.switchDown(ctx, d.Subject, x.current(d.Subject).Action)
	}
	for i, set := range x.setAll(ctx, ds) {
		steps[i] = append(steps[i], set...)
	}
	return steps
}

// setAll sets switches for who has the turn. What is in force by now counts: who
// was released while others had the turn is not stopped again.
func (x *Executor) setAll(ctx context.Context, ds []rules.Decision) [][]Step {
	steps := make([][]Step, len(ds))
	var g errgroup.Group
	g.SetLimit(switchesOnce)
	for i, d := range ds {
		now := x.current(d.Subject)
		if now.Action < rules.Hold {
			continue
		}
		g.Go(func() error {
			e := x.entry(now)
			for _, s := range x.Switches {
				if s.Covers(e) {
					steps[i] = append(steps[i], Step{What: s.Name() + ": " + e.Action.String(), Err: x.set1(ctx, s, e)})
				}
			}
			if len(steps[i]) == 0 && mailq.Account(e.Subject).Kind() == mailq.KindForward {
				steps[i] = []Step{{What: "forwarding", Err: ErrForwarding}}
			}
			return nil
		})
	}
	g.Wait()
	return steps
}

// set1 sets one switch for one account, and notes before that it will.
func (x *Executor) set1(ctx context.Context, s Switch, e Entry) error {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	m, known := x.board.find(Mark{Switch: s.Name(), Subject: e.Subject, Action: e.Action})
	if known && m.Done {
		return nil
	}
	if !known {
		undo, err := s.Before(ctx, e)
		if err != nil {
			return err
		}
		m.Undo = undo
		if err := x.putMark(ctx, m); err != nil {
			return fmt.Errorf("not written down, so not done: %w", err)
		}
	}
	if err := s.Set(ctx, e); err != nil {
		return x.board.failed(m, err)
	}
	x.board.forget(m)
	m.Done = true
	return x.putMark(ctx, m)
}

// switchDown clears everything that is set for a subject and does more than
// most, what was set last first.
func (x *Executor) switchDown(ctx context.Context, subject string, most rules.Action) (steps []Step) {
	for _, m := range slices.Backward(x.board.of(subject)) {
		if m.Action <= most {
			continue
		}
		steps = append(steps, Step{What: m.Switch + ": " + m.Action.String() + " undone", Err: x.clear1(ctx, m)})
	}
	return steps
}

func (x *Executor) clear1(ctx context.Context, m Mark) error {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	at := slices.IndexFunc(x.Switches, func(s Switch) bool { return s.Name() == m.Switch })
	if at < 0 {
		return fmt.Errorf("%s is not configured any more: put it back, or undo by hand what it did for %s", m.Switch, m.Subject)
	}
	e := x.entry(rules.Decision{Subject: m.Subject, Action: m.Action})
	if err := x.Switches[at].Clear(ctx, e, m.Undo); err != nil {
		return x.board.failed(m, err)
	}
	x.board.forget(m)
	return x.dropMark(ctx, m)
}

// switchBack undoes everything that was set for a subject.
func (x *Executor) switchBack(ctx context.Context, subject string) []Step {
	if len(x.Switches) == 0 && x.Marks == nil {
		return nil
	}
	if err := x.takeBoard(ctx); err != nil {
		return []Step{{What: "switches", Err: err}}
	}
	defer x.board.turn.give()
	x.board.again(subject)
	return x.switchDown(ctx, subject, rules.Nothing)
}

// compareSwitches brings the switches to what is in force. A switch that is
// set is believed to be: panels are not asked about every account each minute.
func (x *Executor) compareSwitches(ctx context.Context) []Step {
	if len(x.Switches) == 0 && x.Marks == nil {
		return nil
	}
	if err := x.takeBoard(ctx); err != nil {
		return []Step{{What: "switches", Err: err}}
	}
	defer x.board.turn.give()
	active := x.inForce() // in our turn: what others do is in force before they wait for theirs
	steps := x.clearOthers(ctx, active)
	missing := slices.DeleteFunc(active, func(d rules.Decision) bool { return !x.unset(d) })
	for _, s := range x.setAll(ctx, missing) {
		steps = append(steps, s...)
	}
	return steps
}

// takeBoard takes the turn and reads the marks. After an error the turn is free.
func (x *Executor) takeBoard(ctx context.Context) error {
	if err := x.board.turn.take(ctx); err != nil {
		return err
	}
	if x.Marks == nil {
		return nil
	}
	err := x.loadMarks(ctx)
	if err != nil {
		x.board.turn.give()
	}
	return err
}

// clearOthers clears what is set for subjects with nothing in force, or with
// less than was set.
func (x *Executor) clearOthers(ctx context.Context, active []rules.Decision) (steps []Step) {
	now := make(map[string]rules.Action, len(active))
	for _, d := range active {
		now[d.Subject] = d.Action
	}
	for _, m := range x.board.all() {
		if m.Action <= now[m.Subject] {
			continue
		}
		step := Step{What: m.Switch + ": " + m.Subject + ": " + m.Action.String() + " undone"}
		if step.Err = x.board.givenUp(m); step.Err == nil {
			step.Err = x.clear1(ctx, m)
		}
		steps = append(steps, step)
	}
	return steps
}

// unset reports whether a switch that covers d is still to be set and was not
// given up.
func (x *Executor) unset(d rules.Decision) bool {
	if d.Action < rules.Hold {
		return false
	}
	e := x.entry(d)
	return slices.ContainsFunc(x.Switches, func(s Switch) bool {
		m, known := x.board.find(Mark{Switch: s.Name(), Subject: e.Subject, Action: e.Action})
		return !(known && m.Done) && s.Covers(e) && x.board.givenUp(m) == nil
	})
}

func (x *Executor) putMark(ctx context.Context, m Mark) error {
	if err := x.Marks.PutMark(ctx, m); err != nil {
		return err
	}
	x.board.put(m)
	return nil
}

func (x *Executor) dropMark(ctx context.Context, m Mark) error {
	if err := x.Marks.DropMark(ctx, m); err != nil {
		return err
	}
	x.board.drop(m)
	return nil
}

func (b *switchboard) find(m Mark) (Mark, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, other := range b.marks[m.Subject] {
		if other.key() == m.key() {
			return other, true
		}
	}
	return m, false
}

func (b *switchboard) of(subject string) []Mark {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.marks[subject])
}

func (b *switchboard) all() (marks []Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, of := range b.marks {
		marks = append(marks, of...)
	}
	slices.SortFunc(marks, func(a, c Mark) int {
		return cmp.Or(cmp.Compare(a.Subject, c.Subject), cmp.Compare(c.Action, a.Action), cmp.Compare(a.Switch, c.Switch))
	})
	return marks
}

func (b *switchboard) put(m Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.marks[m.Subject]
	if i := slices.IndexFunc(of, func(o Mark) bool { return o.key() == m.key() }); i >= 0 {
		of[i] = m
		return
	}
	b.marks[m.Subject] = append(of, m)
}

func (b *switchboard) drop(m Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := slices.DeleteFunc(b.marks[m.Subject], func(o Mark) bool { return o.key() == m.key() })
	if b.marks[m.Subject] = of; len(of) == 0 {
		delete(b.marks, m.Subject)
	}
}

// failed counts a try that failed and says with its error when it was the last.
func (b *switchboard) failed(m Mark, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tries[m.key()]++; b.tries[m.key()] >= switchTries {
		return fmt.Errorf("%w (%w)", err, ErrGivenUp)
	}
	return err
}

func (b *switchboard) givenUp(m Mark) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tries[m.key()] >= switchTries {
		return ErrGivenUp
	}
	return nil
}

func (b *switchboard) forget(m Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tries, m.key())
}

// again has everything about a subject tried anew.
func (b *switchboard) again(subject string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.tries {
		if m.Subject == subject {
			delete(b.tries, m)
		}
	}
}
