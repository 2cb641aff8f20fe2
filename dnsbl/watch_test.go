package dnsbl

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// warm returns a watch over one address, an hour after its list was first
// tested, between two tests.
func warm(t *testing.T) (*world, *Watch, *server, Subject) {
	t.Helper()
	w, watch, servers := watching(t, "spamcop")
	ip := add(t, w, watch, cleanIP)
	w.run(t, watch, epoch.Add(62*time.Minute))
	return w, watch, servers[0], ip
}

// polls returns what of the tasks is about subjects.
func polls(tasks []Task) []Task {
	return slices.DeleteFunc(tasks, func(t Task) bool { return t.Kind == Probe })
}

func TestIntervals(t *testing.T) {
	tests := []struct {
		name   string
		list   string
		idle   time.Duration
		risk   float64
		stage  Stage
		negTTL time.Duration
		want   time.Duration
	}{
		{"active", "spamcop", 0, 0, NotListed, 0, 15 * time.Minute},
		{"active, tier warn", "psbl", 0, 0, NotListed, 0, time.Hour},
		{"active, informational", "dnswl", 0, 0, NotListed, 0, 12 * time.Hour},
		{"the list's own time is longer", "spamcop", 0, 0, NotListed, 50 * time.Minute, 50 * time.Minute},
		{"idle for a day", "spamcop", 25 * time.Hour, 0, NotListed, 0, time.Hour},
		{"idle for a month", "spamcop", 30 * wholeDay, 0, NotListed, 0, 4 * time.Hour},
		{"idle for a month, tier warn", "psbl", 30 * wholeDay, 0, NotListed, 0, 16 * time.Hour},
		{"idle is still daily", "dnswl", 30 * wholeDay, 0, NotListed, 0, 24 * time.Hour},
		{"at risk", "spamcop", 0, 0.5, NotListed, 0, 9 * time.Minute},
		{"at the highest risk", "spamcop", 0, 1, NotListed, 0, 3 * time.Minute},
		{"listed", "spamcop", 30 * wholeDay, 0, OnList, 0, 10 * time.Minute},
		{"listed, tier warn", "psbl", 30 * wholeDay, 1, OnList, 0, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := &unit{sent: epoch.Add(-tt.idle).UnixNano(), members: []*member{{risk: tt.risk}}}
			p := &pair{unit: u, list: &watched{List: listOf(t, tt.list)}, stage: tt.stage, negTTL: uint16(tt.negTTL / time.Second)}
			if got := p.interval(epoch); got.Round(time.Second) != tt.want {
				t.Errorf("interval %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRecheckAsksAtOnce(t *testing.T) {
	w, watch, _, ip := warm(t)
	tasks, _ := watch.Due(w.now, 100)
	if n := len(polls(tasks)); n != 0 {
		t.Fatalf("%d polls are due already", n)
	}
	watch.Recheck(w.now, ip, "psbl")
	if tasks, _ = watch.Due(w.now, 100); len(polls(tasks)) != 0 {
		t.Errorf("another list is asked: %v", tasks)
	}
	watch.Recheck(w.now, ip, "spamcop")
	if tasks, _ = watch.Due(w.now, 100); len(polls(tasks)) != 1 {
		t.Errorf("asked %v, want the address", tasks)
	}
}

// What the resolver still remembers as not listed is found when somebody says that
// it is, with what the list says about it.
func TestRecheckIsNotAnsweredFromACache(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	r := remembering{w, map[string]time.Time{}}
	ip := add(t, w, watch, cleanIP)
	runThrough(t, r, w, watch, epoch.Add(3*time.Hour))
	watch.Recheck(w.now, ip, "")
	if got := kinds(runThrough(t, r, w, watch, w.now.Add(10*time.Second)), ip); len(got) > 0 {
		t.Errorf("an address that is not listed: %q", got)
	}
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.2"}
	servers[0].texts[label(t, cleanIP)] = "hit a trap"
	watch.Recheck(w.now.Add(time.Minute), ip, "")
	events := runThrough(t, r, w, watch, w.now.Add(3*time.Minute))
	if got := kinds(events, ip); !slices.Equal(got, []string{"suspected", "listed"}) || events[len(events)-1].Reason != "hit a trap" {
		t.Errorf("a minute after the listing: %+v", events)
	}
}

// Where the list's own servers do not answer this host, or answer it nonsense, a
// recheck is worth what the resolver says.
func TestRecheckWithoutTheListsServers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		resolver func(*world) Resolver
	}{
		{"unreachable", func(w *world) Resolver { return deaf{w} }},
		{"nothing for us", func(w *world) Resolver { return barred{w, Answer{Status: NXDomain}} }},
		{"a refusal", func(w *world) Resolver { return barred{w, found("127.255.255.254")} }},
		{"everything", func(w *world) Resolver { return excluded{w} }},
	} {
		for _, listed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, listed %t", tt.name, listed), func(t *testing.T) {
				w, watch, servers := watching(t, "spamcop")
				r := tt.resolver(w)
				ip := add(t, w, watch, cleanIP)
				runThrough(t, r, w, watch, epoch.Add(3*time.Hour+5*time.Minute))
				if listed {
					servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.2"}
				}
				watch.Recheck(w.now, ip, "")
				events := runThrough(t, r, w, watch, w.now.Add(10*time.Minute))
				if opened := len(told(events)) > 0; opened != listed {
					t.Errorf("events %+v", events)
				}
				if h := watch.Health()[0]; h.State != Healthy {
					t.Errorf("the list is %s: %s", h.State, h.Text)
				}
			})
		}
	}
}

// However often somebody asks for it, rechecks leave polls and confirmations
// their parts of the day, and put nothing back that is about to be asked.
func TestRechecksAreBounded(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	watch.lists[0].budget.perDay = 20_000
	var all []Subject
	for i := range 100 {
		all = append(all, add(t, w, watch, fmt.Sprintf("203.0.113.%d", i)))
	}
	listed := all[99].String()
	servers[0].entries[label(t, listed)] = []string{"127.0.0.2"}
	servers[0].since[label(t, listed)] = func(at time.Time) bool { return at.After(epoch.Add(20 * time.Hour)) }
	var events []Event
	for at := epoch; at.Before(epoch.Add(24*time.Hour - time.Minute)); at = at.Add(30 * time.Second) {
		for _, s := range all {
			watch.Recheck(at, s, "")
		}
		events = append(events, w.run(t, watch, at)...)
	}
	if n := watch.Health()[0].AskedToday; n > 19_000 {
		t.Errorf("%d questions of 20,000", n)
	}
	if got := kinds(events, all[99]); len(got) == 0 || got[len(got)-1] != "listed" {
		t.Errorf("the listed address: %q", got)
	}
	if !watch.Health()[0].Spent.IsZero() {
		t.Errorf("spent at %s", watch.Health()[0].Spent)
	}
}

// A clock that was a year ahead for a moment stops neither a list's budget nor
// the questions that were made due by it.
func TestAClockThatWasWrong(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	ip := add(t, w, watch, cleanIP)
	w.run(t, watch, epoch.Add(2*time.Hour))
	wrong := w.now.AddDate(1, 0, 0)
	tasks, _ := watch.Due(wrong, 100)
	for _, task := range tasks {
		watch.Take(wrong, task, task.Ask(t.Context(), w))
	}
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.2"}
	var events []Event
	for at := w.now; at.Before(epoch.Add(5 * time.Hour)); at = at.Add(time.Second) {
		w.now = at
		tasks, more := watch.Due(at, 64)
		events = append(events, more...)
		for _, task := range tasks {
			events = append(events, watch.Take(at, task, task.Ask(t.Context(), w))...)
		}
	}
	if got := kinds(events, ip); len(got) < 2 || got[1] != "listed" {
		t.Errorf("after the clock was right again: %q, next at %s", got, watch.Next())
	}
}

func TestSpentBudgetIsKnown(t *testing.T) {
	b := budget{perSecond: 1000, perDay: 1000}
	for at := epoch; at.Before(epoch.Add(time.Hour)); at = at.Add(time.Second) {
		for !at.Before(b.next(at, b.reserve())) {
			b.take()
		}
	}
	if got := b.spentAt(epoch.Add(2 * time.Hour)); !got.Equal(epoch) || !b.spentAt(epoch.Add(wholeDay)).IsZero() {
		t.Errorf("spent at %s; want the first second, and nothing on the next day", got)
	}
	late := budget{perSecond: 1, perDay: 1000}
	if evening := epoch.Add(23 * time.Hour); evening.Before(late.next(evening, late.reserve())) {
		t.Error("begun in the evening, and nothing may be polled before midnight")
	}
}

func TestAnswersThatComeLateOrNever(t *testing.T) {
	w, watch, _, ip := warm(t)
	watch.Recheck(w.now, ip, "")
	tasks, _ := watch.Due(w.now, 100)
	lost := polls(tasks)[0]
	if tasks, _ = watch.Due(w.now.Add(leaseFor-time.Second), 100); len(polls(tasks)) > 0 {
		t.Errorf("asked again while the answer is waited for: %v", tasks)
	}
	tasks, _ = watch.Due(w.now.Add(leaseFor), 100)
	again := polls(tasks)
	if len(again) != 1 {
		t.Fatalf("not asked again: %v", tasks)
	}
	if events := watch.Take(w.now, lost, found("127.0.0.2")); len(events) > 0 {
		t.Errorf("an answer that came too late says %v", events)
	}
	watch.Remove(ip)
	if events := watch.Take(w.now, again[0], found("127.0.0.2")); len(events) > 0 || watch.Listings(ip) != nil {
		t.Errorf("an answer about what is not watched any more says %v", events)
	}
}

func TestAddRefusesWhatIsNoSubject(t *testing.T) {
	_, watch, _, _ := warm(t)
	for _, s := range []Subject{{}, subject(t, "192.0.2.0/24"), subject(t, "2001:db8::/64")} {
		if err := watch.Add(epoch, s); err == nil {
			t.Errorf("%q can be watched", s)
		}
	}
}

// Restarts do not put off that a list should go, nor say it again.
func TestQuarantineOutlivesRestarts(t *testing.T) {
	for status, state := range map[Status]State{NXDomain: Empty, Timeout: Offline} {
		t.Run(state.String(), func(t *testing.T) { quarantineOutlivesRestarts(t, status, state) })
	}
}

func quarantineOutlivesRestarts(t *testing.T, status Status, want State) {
	w, watch, servers := watching(t, "spamcop")
	servers[0].bend = always(Answer{Status: status})
	var due []time.Duration
	var since time.Time
	for day := range 30 {
		for _, e := range w.run(t, watch, epoch.Add(time.Duration(day+1)*wholeDay)) {
			if e.Kind == RemovalDue {
				due = append(due, e.Time.Sub(epoch).Truncate(wholeDay))
			}
		}
		if h := watch.Health()[0]; since.IsZero() {
			since = h.Quarantined
		} else if h.State != want || !h.Quarantined.Equal(since) {
			t.Fatalf("on day %d it is %s, in quarantine since %s; want %s, %s", day, h.State, h.Quarantined, want, since)
		}
		watch = restart(t, w, watch, nil, "spamcop")
		if h := watch.Health()[0]; h.State != Untested {
			t.Fatalf("right after the restart: %+v", h)
		}
	}
	if !slices.Equal(due, []time.Duration{14 * wholeDay}) {
		t.Errorf("its removal is due at %v", due)
	}
	servers[0].bend = nil
	w.run(t, watch, w.now.Add(wholeDay))
	if h := watch.Health()[0]; h.State != Healthy || !h.Quarantined.IsZero() {
		t.Errorf("a day after it is well again: %+v", h)
	}
}

func TestSuspicionHastensTheOtherLists(t *testing.T) {
	w, watch, servers := watching(t, "spamcop", "psbl")
	ip := add(t, w, watch, cleanIP)
	w.run(t, watch, epoch.Add(2*time.Hour))
	watch.Sent(w.now, ip)
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.2"}
	var at []time.Time
	w.each = func(task Task, _ Answer) {
		if task.List == "psbl" && task.Kind == Poll {
			at = append(at, w.now)
		}
	}
	w.run(t, watch, epoch.Add(4*time.Hour))
	watch.Sent(w.now, ip)
	w.run(t, watch, epoch.Add(5*time.Hour))
	if gap := at[len(at)-1].Sub(at[len(at)-2]); gap > 40*time.Minute {
		t.Errorf("while it is listed elsewhere, psbl is asked every %s", gap)
	}
}

func TestExposure(t *testing.T) {
	on := func(weight int, confidence float64) Listing {
		return Listing{Stage: OnList, Weight: weight, Confidence: confidence}
	}
	tests := []struct {
		listings []Listing
		want     float64
		level    Level
	}{
		{nil, 0, LevelNone},
		{[]Listing{{Weight: 100, Confidence: 1}}, 0, LevelNone},
		{[]Listing{on(5, 1)}, 0.05, LevelNote},
		{[]Listing{on(40, 1)}, 0.4, LevelWarn},
		{[]Listing{on(80, 1)}, 0.8, LevelPage},
		{[]Listing{on(80, 0.5)}, 0.4, LevelWarn},
		{[]Listing{on(50, 1), on(45, 1), on(35, 1)}, 0.82125, LevelPage},
		{[]Listing{on(100, 1), on(5, 1)}, 1, LevelPage},
	}
	for _, tt := range tests {
		got := Exposure(tt.listings)
		if math.Abs(got-tt.want) > 1e-9 || LevelOf(got) != tt.level {
			t.Errorf("%v: exposure %v, level %s; want %v, %s", tt.listings, got, LevelOf(got), tt.want, tt.level)
		}
	}
}

func TestBudgetOfADay(t *testing.T) {
	noon := epoch.Add(12 * time.Hour)
	b := budget{perSecond: 10, perDay: 1000}
	take := func(from time.Time, leave int) (n int) {
		for now := from; now.Before(from.Add(6 * time.Hour)); now = now.Add(time.Second) {
			for !now.Before(b.next(now, leave)) {
				b.take()
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		at    time.Time
		leave int
		want  int
	}{
		{noon, 100, 400}, {noon.Add(6 * time.Hour), 0, 100}, // begun at noon: half a day's
		{noon.Add(12 * time.Hour), 100, 900}, {noon.Add(18 * time.Hour), 0, 100},
	} {
		if n := take(step.at, step.leave); n != step.want {
			t.Errorf("from %s, leaving %d: %d questions, want %d", step.at, step.leave, n, step.want)
		}
	}
	if next := b.next(noon.Add(30*time.Hour), 0); !next.Equal(epoch.Add(48 * time.Hour)) {
		t.Errorf("with nothing left, the next is at %s", next)
	}
	if before := b.tokens; !b.next(epoch, 0).After(epoch) || b.tokens != before {
		t.Errorf("a clock that goes back made tokens")
	}
}

func TestQuarantine(t *testing.T) {
	l := listOf(t, "spamcop")
	var c condition
	now := epoch
	test := func(state State) (changed bool, wait time.Duration) {
		changed = c.record(outcome{state: state, full: true}, now, now)
		wait = c.nextTest(&l)
		now = now.Add(wait)
		return changed, wait
	}
	type step struct {
		state       State
		changed     bool
		wait        time.Duration
		quarantined bool
	}
	steps := []step{{Healthy, true, 5 * time.Minute, false}}
	for i := range 7 {
		steps = append(steps, step{Empty, i == 0, 5 * time.Minute, i == 6})
	}
	for wait := 10 * time.Minute; wait < 24*time.Hour; wait *= 2 {
		steps = append(steps, step{Empty, false, wait, true})
	}
	steps = append(steps, step{Empty, false, 24 * time.Hour, true}, step{Empty, false, 24 * time.Hour, true},
		step{Healthy, false, 5 * time.Minute, true}, step{Healthy, true, 5 * time.Minute, false},
		step{Wildcard, true, 5 * time.Minute, true}, step{Wildcard, false, 10 * time.Minute, true},
		step{Rejected, true, 4 * time.Hour, true}, step{Rejected, false, 8 * time.Hour, true})
	for i, s := range steps {
		changed, wait := test(s.state)
		got := step{s.state, changed, wait, c.isQuarantined()}
		if got != s {
			t.Errorf("step %d: %s", i, fmt.Sprintf("got %+v, want %+v", got, s))
		}
	}
}
