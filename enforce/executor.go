// Package enforce carries out and undoes decisions.
//
// An [Executor] puts a decision into force twice: in the gate, whose memory
// answers the mail server's next question, and in the server's own tables,
// which keep a block when Vedetta is away. Everything here is idempotent, is
// undone by the subject's name, and tells exactly what was done and what was
// not.
//
// Subjects, logins and queue ids come from outside. They reach a program only
// as an argument or on its standard input, never through a shell, and a table
// only if they cannot be mistaken for anything else.
package enforce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Gate is asked by the mail server before it accepts a message. Its methods
// work in memory and may be called from any goroutine.
type Gate interface {
	// Set puts d in force under its subject; text is what the client reads.
	Set(d rules.Decision, text string)
	// Remove takes what is in force for the subject out of it.
	Remove(subject string)
}

// A Table is a list that a mail server reads by itself.
type Table interface {
	Name() string
	// Least is the weakest action that the table holds. Most leave a throttle
	// to the gate: a table cannot count.
	Least() rules.Action
	// Keys are what an entry that is not weaker has in the table, none if it is
	// not the table's business. The error names what the table cannot hold.
	Keys(e Entry) ([]string, error)
	// Apply makes the table hold these entries and no others, but those that
	// are weaker. Entries that it cannot hold are left out and named in the
	// error.
	Apply(ctx context.Context, entries []Entry) error
}

// An Entry is one account in a [Table].
type Entry struct {
	Subject string       // the account, canonical
	Logins  []string     // every name under which it may log in
	Users   []string     // the system users that it sends as, of accounts that are no logins
	Action  rules.Action // Throttle, Hold, Block or Reset
	Text    string       // what the client reads
}

// ErrNotReconciled means that the tables are not written before
// [Executor.Reconcile] ran once: until then the executor does not know who
// else is in them, and would release everybody else.
var ErrNotReconciled = errors.New("the decisions in force are not loaded yet")

// An Outcome is what became of a decision.
type Outcome struct {
	OK     bool   // every step succeeded, or none was needed
	Detail string // one line for the journal: every step and its error
	Steps  []Step
}

// A Step is one part of carrying out a decision.
type Step struct {
	What string
	Err  error
}

// An Executor carries out decisions. All its methods may be called from any
// goroutine. Fields must not change once it is used.
type Executor struct {
	Gate     Gate
	Tables   []Table
	Switches []Switch
	Marks    Marks // required where there are switches

	// Logins returns every name under which an account may log in; see
	// [Logins]. Nil means the account's own name, if it is a login.
	Logins func(subject string) []string

	// Users returns the system users that an account sends as. Nil means the
	// user that a user: account names.
	Users func(subject string) []string

	// Text returns what the client of an account under a decision reads. Nil
	// means a sentence for each action that gives nothing away.
	Text func(d rules.Decision) string

	reconciling, writing turn
	last                 writing // that succeeded; whoever has the turn of writing may use it
	board                switchboard

	mu      sync.Mutex
	active  map[string]rules.Decision // in force, by subject
	loaded  bool                      // active is complete
	touched map[string]bool           // subjects that changed while Reconcile loads; nil while it does not
	changes uint64                    // how often the entries for the tables changed
	written uint64                    // the changes that the tables certainly hold
}

// Do puts d in force. A decision that is only observed, or over, does
// nothing; one that is weaker than what is in force for the subject leaves
// that as it is. The gate blocks even if every table fails.
func (x *Executor) Do(ctx context.Context, d rules.Decision) Outcome {
	return x.DoAll(ctx, []rules.Decision{d})[0]
}

// DoAll puts several decisions in force and writes each table once.
func (x *Executor) DoAll(ctx context.Context, ds []rules.Decision) []Outcome {
	return x.doAll(ctx, ds, stronger)
}

// Replace is DoAll for decisions that take the place of whatever is in force
// for their subjects, of what is stronger too.
func (x *Executor) Replace(ctx context.Context, ds []rules.Decision) []Outcome {
	return x.doAll(ctx, ds, func(now, d rules.Decision) bool { return false })
}

// doAll puts decisions in force, except where stays says that what is in force
// now does stay.
func (x *Executor) doAll(ctx context.Context, ds []rules.Decision, stays func(now, d rules.Decision) bool) []Outcome {
	out := make([]Outcome, len(ds))
	changes := make([]uint64, len(ds))
	most := make([]rules.Action, len(ds)) // of what was in force before and is now
	for i, d := range ds {
		most[i] = x.current(d.Subject).Action
		out[i], changes[i] = x.set(d, stays)
		most[i] = max(most[i], x.current(d.Subject).Action)
	}
	if len(ds) == 0 || slices.Max(changes) == 0 {
		return out
	}
	steps := x.write(ctx, slices.Max(changes))
	concerned := make([]rules.Decision, len(ds))
	for i, d := range ds {
		if changes[i] > 0 {
			x.board.again(d.Subject)
			concerned[i] = x.current(d.Subject)
		}
	}
	switched := make([][]Step, len(ds))
	if slices.Max(most) >= rules.Hold { // a throttle has no switches, and need not wait for a slow one
		switched = x.switchOn(ctx, concerned)
	}
	for i := range ds {
		if changes[i] > 0 {
			out[i] = outcome(slices.Concat(out[i].Steps, steps.of(ds[i].Subject, most[i]), switched[i]))
		}
	}
	return out
}

// set puts d in force in the gate. The number it returns is the change that
// the tables have to hold, 0 if they are not concerned.
func (x *Executor) set(d rules.Decision, stays func(now, d rules.Decision) bool) (Outcome, uint64) {
	switch {
	case d.Subject == "":
		return Outcome{Detail: "the decision names nobody"}, 0
	case !d.Enforce:
		return Outcome{OK: true, Detail: "only observed"}, 0
	case d.Action < rules.Throttle:
		return Outcome{OK: true, Detail: d.Action.String() + ": nothing to do"}, 0
	case over(d, time.Now()):
		return Outcome{OK: true, Detail: "over since " + d.Until.UTC().Format(time.RFC3339)}, 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.touchLocked(d.Subject)
	now, ok := x.active[d.Subject]
	if ok && !over(now, time.Now()) && stays(now, d) {
		d = now
	}
	if x.active == nil {
		x.active = make(map[string]rules.Decision)
	}
	x.active[d.Subject] = d
	x.gateSet(d)
	steps := []Step{{What: "gate: " + d.Action.String()}}
	if d.Action < rules.Hold && now.Action < rules.Hold && !slices.ContainsFunc(x.Tables, holds(d.Action)) {
		return outcome(steps), 0
	}
	x.changes++
	return outcome(steps), x.changes
}

// Undo takes whatever is in force for the subject out of it. Undoing what is
// not in force succeeds.
func (x *Executor) Undo(ctx context.Context, subject string) Outcome {
	x.mu.Lock()
	x.touchLocked(subject)
	delete(x.active, subject)
	if x.Gate != nil {
		x.Gate.Remove(subject)
	}
	x.changes++
	change := x.changes
	x.mu.Unlock()
	return outcome(slices.Concat([]Step{{What: "gate: removed"}}, x.write(ctx, change).of(subject, rules.Reset), x.switchBack(ctx, subject)))
}

// Reconcile makes the gate and the tables hold exactly the decisions that
// active returns, less those that are over. It is to be called at the start,
// before which no table is written, and every minute, which also ends what is
// over. If active fails nothing changes.
//
// What is done or undone while active runs counts as newer than its answer;
// so the journal must be written before Do and Undo are called.
func (x *Executor) Reconcile(ctx context.Context, active func(context.Context) ([]rules.Decision, error)) Outcome {
	if err := x.reconciling.take(ctx); err != nil {
		return outcome([]Step{{What: "load", Err: err}})
	}
	defer x.reconciling.give()

	x.mu.Lock()
	x.touched = make(map[string]bool)
	x.mu.Unlock()
	decisions, err := active(ctx)
	change := x.replace(decisions, err)
	if err != nil {
		return outcome([]Step{{What: "load", Err: err}})
	}
	return outcome(slices.Concat([]Step{{What: fmt.Sprintf("gate: %d in force", x.InForce())}}, x.write(ctx, change).all(), x.compareSwitches(ctx)))
}

// replace puts decisions in force in place of all others, unless err.
func (x *Executor) replace(decisions []rules.Decision, err error) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	touched := x.touched
	x.touched = nil
	if err != nil {
		return 0
	}
	wanted := strongest(decisions, time.Now())
	for subject := range touched {
		delete(wanted, subject)
		if d, ok := x.active[subject]; ok {
			wanted[subject] = d
		}
	}
	for subject := range x.active {
		if _, ok := wanted[subject]; !ok && x.Gate != nil {
			x.Gate.Remove(subject)
		}
	}
	for _, d := range wanted {
		x.gateSet(d)
	}
	x.active, x.loaded = wanted, true
	x.changes++ // even if nothing changed: the tables are to be looked at
	return x.changes
}

// InForce is the number of accounts that a decision is in force for.
func (x *Executor) InForce() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.active)
}

// write makes the tables hold at least the given change. Several changes at
// once are written together: who finds his own already written is done.
func (x *Executor) write(ctx context.Context, change uint64) writing {
	if len(x.Tables) == 0 {
		return nil
	}
	err := x.writing.take(ctx)
	if err == nil {
		defer x.writing.give()
	}
	entries, now, written, loaded := x.entries()
	if err == nil && !loaded {
		err = ErrNotReconciled
	}
	if err == nil && written >= change {
		return x.last
	}
	w := make(writing, len(x.Tables))
	failed := false
	for i, t := range x.Tables {
		w[i] = tableWriting{Table: t, err: err}
		if err == nil {
			w[i].left, w[i].err = splitLeft(t.Apply(ctx, entries))
		}
		failed = failed || w[i].err != nil
	}
	if !failed {
		x.mu.Lock()
		x.written = max(x.written, now)
		x.mu.Unlock()
		x.last = w
	}
	return w
}

// holds reports of a table whether it holds an action.
func holds(action rules.Action) func(Table) bool {
	return func(t Table) bool { return t.Least() <= action }
}

// A writing is what became of writing the tables.
type writing []tableWriting

type tableWriting struct {
	Table
	err  error     // the table was not written
	left []leftOut // it was, without these
}

// of is what became of it for one account, of which most was in force: what a
// table cannot hold of another is not its failure, nor what it does not hold
// at all.
func (w writing) of(subject string, most rules.Action) []Step {
	concerned := slices.DeleteFunc(slices.Clone(w), func(t tableWriting) bool { return !holds(most)(t) })
	return concerned.steps(func(l leftOut) bool { return l.subject == subject })
}

func (w writing) all() []Step { return w.steps(func(leftOut) bool { return true }) }

func (w writing) steps(concerns func(leftOut) bool) []Step {
	steps := make([]Step, len(w))
	for i, t := range w {
		errs := []error{t.err}
		for _, l := range t.left {
			if concerns(l) {
				errs = append(errs, l)
			}
		}
		steps[i] = Step{What: t.Name(), Err: errors.Join(errs...)}
	}
	return steps
}

// entries returns what the tables should hold, the change that it is of, and
// the change that they hold.
func (x *Executor) entries() (entries []Entry, change, written uint64, loaded bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.written == x.changes {
		return nil, x.changes, x.written, x.loaded
	}
	for _, d := range x.active {
		entries = append(entries, x.entry(d))
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Subject, b.Subject) })
	return entries, x.changes, x.written, x.loaded
}

func (x *Executor) touchLocked(subject string) {
	if x.touched != nil {
		x.touched[subject] = true
	}
}

func (x *Executor) gateSet(d rules.Decision) {
	if x.Gate != nil {
		x.Gate.Set(d, x.text(d))
	}
}

// current returns the decision in force for a subject.
func (x *Executor) current(subject string) rules.Decision {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.active[subject]
}

// inForce returns every decision in force, in order of their subjects.
func (x *Executor) inForce() []rules.Decision {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.SortedFunc(maps.Values(x.active), func(a, b rules.Decision) int { return cmp.Compare(a.Subject, b.Subject) })
}

// entry is what tables and switches are told of a decision.
func (x *Executor) entry(d rules.Decision) Entry {
	return Entry{Subject: d.Subject, Logins: x.logins(d.Subject), Users: x.users(d.Subject), Action: d.Action, Text: x.text(d)}
}

func (x *Executor) users(subject string) []string {
	if x.Users != nil {
		return x.Users(subject)
	}
	if name, ok := strings.CutPrefix(subject, mailq.KindUser+":"); ok {
		return []string{name}
	}
	return nil
}

// Plan lists what Do would do, and would run, a line each.
func (x *Executor) Plan(d rules.Decision) []string {
	e := x.entry(d)
	plan := []string{fmt.Sprintf("gate: %s %s", d.Action, d.Subject)}
	for _, t := range x.Tables {
		if !holds(d.Action)(t) {
			continue
		}
		keys, left := t.Keys(e)
		if len(keys) > 0 {
			plan = append(plan, fmt.Sprintf("%s: %s", t.Name(), strings.Join(keys, ", ")))
		}
		if left != nil {
			plan = append(plan, fmt.Sprintf("%s: left out: %s", t.Name(), inline(left)))
		}
	}
	for _, s := range x.Switches {
		if d.Action >= rules.Hold && s.Covers(e) {
			plan = append(plan, s.Plan(e)...)
		}
	}
	return plan
}

func (x *Executor) logins(subject string) []string {
	if x.Logins != nil {
		return x.Logins(subject)
	}
	if mailq.Account(subject).Kind() != mailq.KindLogin {
		return nil
	}
	return []string{subject}
}

func (x *Executor) text(d rules.Decision) string {
	switch {
	case x.Text != nil:
		return x.Text(d)
	case d.Action >= rules.Block:
		return "Sending from this account is stopped because of unusual activity. Please contact support."
	case d.Action == rules.Hold:
		return "held for review"
	default:
		return "Too many recipients for now. Please try again later."
	}
}

// strongest returns for each subject the decision that counts at the time now.
func strongest(decisions []rules.Decision, now time.Time) map[string]rules.Decision {
	out := make(map[string]rules.Decision, len(decisions))
	for _, d := range decisions {
		if d.Subject == "" || !d.Enforce || d.Action < rules.Throttle || over(d, now) {
			continue
		}
		if other, ok := out[d.Subject]; !ok || stronger(d, other) {
			out[d.Subject] = d
		}
	}
	return out
}

// stronger reports whether a asks for more than b, or for the same longer.
func stronger(a, b rules.Decision) bool {
	if a.Action != b.Action {
		return a.Action > b.Action
	}
	if a.Until.IsZero() || b.Until.IsZero() {
		return a.Until.IsZero() && !b.Until.IsZero()
	}
	return a.Until.After(b.Until)
}

// over reports whether d has ended by itself.
func over(d rules.Decision, now time.Time) bool {
	return !d.Until.IsZero() && !now.Before(d.Until)
}

func outcome(steps []Step) Outcome {
	o := Outcome{OK: true, Steps: steps}
	parts := make([]string, len(steps))
	for i, s := range steps {
		parts[i] = s.What
		if s.Err != nil {
			o.OK = false
			parts[i] += ": FAILED: " + inline(s.Err)
		}
	}
	o.Detail = strings.Join(parts, "; ")
	return o
}

// inline is the text of an error in one line. Unlike [line] it keeps names beyond
// ASCII, which tell the operator whom it is about.
func inline(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }

// A turn is held by one goroutine at a time. Unlike a mutex it may be held
// across I/O, as waiting for it ends with the context. The zero turn is free.
type turn struct {
	once sync.Once
	free chan struct{}
}

func (t *turn) take(ctx context.Context) error {
	t.once.Do(func() { t.free = make(chan struct{}, 1) })
	select {
	case t.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change: %w", ctx.Err())
	}
}

func (t *turn) give() { <-t.free }
