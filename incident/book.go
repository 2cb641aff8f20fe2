package incident

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// Bounds of what a Book keeps for one incident.
const (
	maxHard = 16  // hard rules told
	maxWhy  = 500 // bytes of an outcome's error
)

// A Book holds the incidents. The zero Book is ready; its methods may be
// called from several goroutines.
type Book struct {
	// Max is how many incidents are held; 0 means 10,000. Beyond it those
	// resolved longest ago are let go, then those unchanged for longest. A
	// thing told about an incident that was let go may be told again, under
	// the same Change.ID.
	Max int
	// Quiet is how long nothing must have been recorded of an incident before
	// it is resolved; 0 means one hour.
	Quiet time.Duration
	// Keep is how long a resolved incident is remembered, so that a log read
	// again does not open it anew; 0 means seven days.
	Keep time.Duration

	mu        sync.Mutex
	incidents map[string]*Incident // by ID
	changed   map[string]bool      // IDs changed since the last Changed
	evicted   int
}

// Record takes a finding with a decision that was carried out, or that was not
// to be (Enforce is false), and says whether that is worth telling.
// A decision to do nothing, and one without a finding (an operator's own), is
// no incident.
func (b *Book) Record(f rules.Finding, d rules.Decision, at time.Time) (Change, bool) {
	return b.record(f, d, "", at)
}

// Failed takes a finding with a decision that should have been carried out and
// could not be. It is told once for each action of the episode, and once more
// by Record when the action succeeds after all.
func (b *Book) Failed(f rules.Finding, d rules.Decision, why string, at time.Time) (Change, bool) {
	if why == "" {
		why = "reason unknown"
	}
	return b.record(f, d, clip(why, maxWhy), at)
}

func (b *Book) record(f rules.Finding, d rules.Decision, failure string, at time.Time) (Change, bool) {
	if f.ID == "" || d.Action == rules.Nothing {
		return Change{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	id := idOf(f)
	in, known := b.incidents[id]
	if known && !in.Resolved.IsZero() && !f.Time.After(in.Resolved) {
		return Change{}, false // old news about what is over
	}
	if !known {
		in = &Incident{ID: id, State: Opened, Opened: at}
		b.addLocked(id, in)
	}
	before := *in
	in.reopen(f)
	fresh := in.fresh(f)
	kind := in.take(f, d, failure)
	if before.unchanged(*in) {
		return Change{}, false
	}
	in.Changed = at
	b.changed[id] = true
	if kind == Silent {
		return Change{}, false
	}
	c := in.change(kind, d, f.Hard, at)
	c.New = fresh
	return c, true
}

// idOf is the ID of the incident that a finding belongs to.
func idOf(f rules.Finding) string { return ID(cmp.Or(f.Continues, f.ID)) }

// Refresh replaces the finding of an open lasting incident by what is known
// now, where that is nothing to tell: some of its parts are gone, or it weighs
// less. An older finding changes nothing.
func (b *Book) Refresh(f rules.Finding, at time.Time) {
	id := idOf(f)
	b.each(func(in *Incident) bool {
		if in.ID != id || !in.Open() || !in.Finding.Lasting || f.Time.Before(in.Finding.Time) {
			return false
		}
		in.Finding, in.Changed = f, at
		return true
	})
}

// unchanged says whether what Record compares is the same in both.
func (i Incident) unchanged(j Incident) bool {
	return i.State == j.State && i.Reopened == j.Reopened && i.Told == j.Told && i.Done == j.Done &&
		i.Finding.Time.Equal(j.Finding.Time) && i.Finding.Score == j.Finding.Score &&
		i.Decision.ID == j.Decision.ID && i.Decision.Enforce == j.Decision.Enforce && i.Decision.Until.Equal(j.Decision.Until) &&
		len(i.Hard) == len(j.Hard) && slices.Equal(i.Fails, j.Fails)
}

// reopen starts an incident again that is resolved, or whose action has
// expired without the account falling quiet: what was told about it before no
// longer holds. Record calls it only with a finding later than the end.
func (i *Incident) reopen(f rules.Finding) {
	end := i.Resolved
	if i.State != Resolved {
		end = i.Decision.Until
		if !i.acted() || end.IsZero() || !f.Time.After(end) {
			return
		}
	}
	*i = Incident{ID: i.ID, State: Opened, First: i.First, Opened: i.Opened, Resolved: end, Reopened: i.Reopened + 1}
}

// take puts a finding and its decision into the incident and says what is new
// in them.
func (i *Incident) take(f rules.Finding, d rules.Decision, failure string) Kind {
	kind := i.news(f, d, failure)
	if !f.Time.Before(i.Finding.Time) {
		i.Finding = f
	}
	i.decide(d, d.Enforce && failure == "" && d.Action > rules.Observe)
	i.Critical = i.Critical || IsCritical(f)
	i.Told = max(i.Told, d.Action)
	if f.Hard != "" && !slices.Contains(i.Hard, f.Hard) && len(i.Hard) < maxHard {
		i.Hard = append(slices.Clip(i.Hard), f.Hard)
	}
	switch {
	case !d.Enforce:
	case failure == "":
		i.Done = max(i.Done, d.Action)
		i.Fails = without(i.Fails, d.Action)
	case d.Action > i.Done: // else an equal or stronger action holds
		i.Fails = append(without(i.Fails, d.Action), Failure{d.Action, failure})
	}
	if kind != Silent && i.State != Opened {
		i.State = Escalated
	}
	return kind
}

// decide keeps the decision that matters most: one that is in force, then the
// stronger, then the one that lasts longer. So where anything was carried out
// (acted), Decision is what is in force.
func (i *Incident) decide(d rules.Decision, carried bool) {
	old := i.Decision
	switch {
	case carried != i.acted():
		if !carried && old.Action != rules.Nothing {
			return
		}
	case d.Action != old.Action:
		if d.Action < old.Action {
			return
		}
	case old.Until.IsZero() || !d.Until.IsZero() && !d.Until.After(old.Until):
		if d.Enforce == old.Enforce {
			return
		}
	}
	i.Decision = d
}

// news says what of a finding and its decision was not told before.
func (i *Incident) news(f rules.Finding, d rules.Decision, failure string) Kind {
	failedBefore := slices.ContainsFunc(i.Fails, func(x Failure) bool { return x.Action == d.Action })
	switch {
	case d.Enforce && failure != "":
		if failedBefore || d.Action <= i.Done {
			return Silent // told, or an equal or stronger action holds already
		}
		return Failed
	case i.Told == rules.Nothing && i.Reopened > 0:
		return Again
	case i.Told == rules.Nothing:
		return News
	case d.Enforce && failedBefore:
		return Caught
	case d.Action > i.Told, d.Enforce && d.Action > i.Done:
		return Stronger
	case f.Hard != "" && !slices.Contains(i.Hard, f.Hard) && len(i.Hard) < maxHard:
		return Stronger
	case IsCritical(f) && !i.Critical:
		return Stronger
	case len(i.fresh(f)) > 0:
		return Wider
	}
	return Silent
}

// fresh is those of a finding's parts that the incident does not have. An older
// finding has none: what is gone since then is not new.
func (i *Incident) fresh(f rules.Finding) (parts []string) {
	if f.Time.Before(i.Finding.Time) {
		return nil
	}
	for _, p := range f.Parts {
		if !slices.Contains(i.Finding.Parts, p) {
			parts = append(parts, p)
		}
	}
	return parts
}

// without returns fails less the one of the action, as a new slice.
func without(fails []Failure, a rules.Action) []Failure {
	var kept []Failure
	for _, f := range fails {
		if f.Action != a {
			kept = append(kept, f)
		}
	}
	return kept
}

// change names what is told. The name is made of what is told, not of a count
// of messages, so that a Book that has forgotten repeats it under the same one.
func (i *Incident) change(kind Kind, d rules.Decision, hard string, at time.Time) Change {
	what := kind.String()
	switch kind {
	case News, Stronger, Again, Caught, Failed:
		what = d.Action.String()
		if !d.Enforce {
			what = "would-" + what
		}
	}
	switch {
	case i.Finding.Lasting && (kind == Stronger || kind == Wider):
		what = kind.String() + "-" + strings.TrimPrefix(i.Finding.ID, "f-")
	case kind == Stronger && hard != "":
		what += "-" + hard
	case kind == Caught, kind == Failed:
		what += "-" + kind.String()
	}
	id := i.ID + "/" + what
	if i.Reopened > 0 {
		id = fmt.Sprintf("%s-%d", id, i.Reopened+1)
	}
	if i.First == "" {
		i.First = id
	}
	return Change{ID: id, Kind: kind, Time: at, Incident: *i, Decision: d}
}

// Notified notes that a channel has taken a message about the incident.
func (b *Book) Notified(id string, at time.Time) {
	b.each(func(in *Incident) bool {
		if in.ID != id || in.State != Opened && in.State != Escalated {
			return false
		}
		in.State, in.Changed = Notified, at
		return true
	})
}

// Acknowledge notes that a person has taken the incident up, and says whether
// there was an open one that nobody had.
func (b *Book) Acknowledge(id, by string, at time.Time) bool {
	return b.each(func(in *Incident) bool {
		if in.ID != id || !in.Open() || in.State == Acknowledged {
			return false
		}
		in.State, in.By, in.Acked, in.Changed = Acknowledged, by, at, at
		return true
	}) > 0
}

// Released resolves the open incidents of an account that an operator has
// cleared, and returns what is to be told of it.
func (b *Book) Released(subject, by string, at time.Time) []Change {
	return b.end(subject, by, Released, at)
}

// Undone resolves the open incidents of an account whose block an operator has
// lifted without clearing it: the account's next finding opens them again.
func (b *Book) Undone(subject, by string, at time.Time) []Change {
	return b.end(subject, by, Undone, at)
}

// Ended resolves the open lasting incidents of a rule and subject, since their
// watcher says that they are over, and returns what is to be told of it.
func (b *Book) Ended(rule, subject string, at time.Time) (told []Change) {
	return b.endLasting(rule, subject, Over, at)
}

// Unwatched resolves the open lasting incidents of a rule and subject, since
// they have no watcher any more: whether they are over is not known.
func (b *Book) Unwatched(rule, subject string, at time.Time) (told []Change) {
	return b.endLasting(rule, subject, Unwatched, at)
}

func (b *Book) endLasting(rule, subject string, kind Kind, at time.Time) (told []Change) {
	b.each(func(in *Incident) bool {
		if in.Finding.Rule != rule || in.Subject() != subject || !in.Open() || !in.Finding.Lasting {
			return false
		}
		in.Resolved = at
		told = append(told, in.resolve(kind, at))
		return true
	})
	slices.SortFunc(told, func(x, y Change) int { return cmp.Compare(x.ID, y.ID) })
	return told
}

// Standing returns the open lasting incidents of a rule, by their subject, the
// oldest first.
func (b *Book) Standing(rule string) (standing []Incident) {
	b.each(func(in *Incident) bool {
		if in.Finding.Rule == rule && in.Open() && in.Finding.Lasting {
			standing = append(standing, *in)
		}
		return false
	})
	slices.SortFunc(standing, func(x, y Incident) int {
		return cmp.Or(cmp.Compare(x.Subject(), y.Subject()), x.Opened.Compare(y.Opened), cmp.Compare(x.ID, y.ID))
	})
	return standing
}

func (b *Book) end(subject, by string, kind Kind, at time.Time) (told []Change) {
	b.each(func(in *Incident) bool {
		if in.Subject() != subject || !in.Open() {
			return false
		}
		in.By, in.Resolved = by, at
		told = append(told, in.resolve(kind, at))
		return true
	})
	slices.SortFunc(told, func(x, y Change) int { return cmp.Compare(x.ID, y.ID) })
	return told
}

func (i *Incident) resolve(kind Kind, at time.Time) Change {
	i.State, i.Changed = Resolved, at
	return i.change(kind, i.Decision, "", at)
}

// Tick resolves the incidents that are over at the given time and forgets
// those resolved long ago. An incident is over when its account has been quiet
// and its action has expired; one whose action has no end is over only when a
// person says so, and a lasting one when its watcher does. Only the end of an action that was carried out is told.
func (b *Book) Tick(at time.Time) (told []Change) {
	quiet, keep := cmp.Or(b.Quiet, time.Hour), cmp.Or(b.Keep, 7*24*time.Hour)
	b.each(func(in *Incident) bool {
		if !in.over(quiet, at) {
			return false
		}
		in.Resolved = in.end()
		c := in.resolve(Over, at)
		if in.acted() {
			told = append(told, c)
		}
		return true
	})
	slices.SortFunc(told, func(x, y Change) int { return cmp.Compare(x.ID, y.ID) })

	b.mu.Lock()
	defer b.mu.Unlock()
	for key, in := range b.incidents {
		if in.State == Resolved && !b.changed[key] && at.Sub(in.Changed) >= keep {
			delete(b.incidents, key)
		}
	}
	return told
}

// acted says whether something stronger than telling was carried out.
func (i Incident) acted() bool { return i.Done > rules.Observe }

func (i Incident) over(quiet time.Duration, at time.Time) bool {
	if !i.Open() || i.Finding.Lasting || at.Sub(i.Changed) < quiet {
		return false
	}
	return !i.acted() || !i.Decision.Until.IsZero() && !at.Before(i.Decision.Until)
}

// end is when an incident that ended by itself ended, in the time of the log: a
// finding later than that, though read from a backlog after Tick, opens it again.
func (i Incident) end() time.Time {
	if i.acted() && i.Decision.Until.After(i.Finding.Time) {
		return i.Decision.Until
	}
	return i.Finding.Time
}

// each calls f for every incident and counts those that f says it changed.
func (b *Book) each(f func(*Incident) bool) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, in := range b.incidents {
		if f(in) {
			b.changed[key] = true
			n++
		}
	}
	return n
}

// Restore puts a saved incident back. One that the Book already has wins.
func (b *Book) Restore(in Incident) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.incidents[in.ID]; ok || in.ID == "" {
		return
	}
	b.addLocked(in.ID, &in)
}

// Changed yields the incidents that changed since the last call, to be saved.
func (b *Book) Changed(yield func(Incident) bool) {
	b.mu.Lock()
	var list []Incident
	for key := range b.changed {
		if in, ok := b.incidents[key]; ok {
			list = append(list, *in)
		}
	}
	clear(b.changed)
	b.mu.Unlock()
	slices.SortFunc(list, func(x, y Incident) int { return cmp.Compare(x.ID, y.ID) })
	for _, in := range list {
		if !yield(in) {
			return
		}
	}
}

// All returns the incidents held, the newest change first.
func (b *Book) All() []Incident {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Incident, 0, len(b.incidents))
	for _, in := range b.incidents {
		list = append(list, *in)
	}
	slices.SortFunc(list, func(x, y Incident) int {
		return cmp.Or(y.Changed.Compare(x.Changed), cmp.Compare(x.ID, y.ID))
	})
	return list
}

// Evicted counts the incidents let go because the Book was full.
func (b *Book) Evicted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.evicted
}

func (b *Book) addLocked(key string, in *Incident) {
	if b.incidents == nil {
		b.incidents, b.changed = map[string]*Incident{}, map[string]bool{}
	}
	if limit := cmp.Or(b.Max, 10_000); len(b.incidents) >= limit {
		b.evictLocked(limit)
	}
	b.incidents[key] = in
}

// evictLocked makes room for a sixteenth of the Book at once, so that a flood
// does not sort it anew for every incident.
func (b *Book) evictLocked(limit int) {
	type entry struct {
		key string
		in  *Incident
	}
	var all []entry
	for key, in := range b.incidents {
		all = append(all, entry{key, in})
	}
	slices.SortFunc(all, func(x, y entry) int {
		if x.in.Open() != y.in.Open() {
			if y.in.Open() {
				return -1
			}
			return 1
		}
		return cmp.Or(x.in.Changed.Compare(y.in.Changed), cmp.Compare(x.key, y.key))
	})
	n := len(all) - limit + max(1, limit/16)
	for _, e := range all[:min(n, len(all))] {
		delete(b.incidents, e.key)
		delete(b.changed, e.key)
		b.evicted++
	}
}
