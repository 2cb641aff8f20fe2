package dnsbl

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A span is a part of the year.
type span struct{ from, to time.Time }

func (s span) has(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

// A stay is a time that a subject is on a list.
type stay struct {
	span
	list    string
	subject Subject
	within  time.Duration // by when it has to be told
}

// A year is what happens in the DNS in 365 days, decided beforehand.
type year struct {
	w        *world
	watch    *Watch
	servers  []*server
	subjects []Subject
	end      time.Time
	stays    []stay
	flaps    stay
	events   []Event
}

// TestYear replays a year of listings, flaps and lists that fail. Every
// listing must be told once and in time, and nothing else; no list may be
// asked more than its budget.
func TestYear(t *testing.T) {
	y := newYear(t)
	asked := newLedger()
	y.w.each = func(task Task, _ Answer) { asked.add(task, y.w.now) }
	y.live(t)
	pages := told(y.events)
	for _, s := range y.stays {
		s.check(t, pages)
	}
	for _, e := range pages {
		of := func(s stay) bool { return s.list == e.List && s.subject == e.Subject && s.has(e.Time) }
		if !slices.ContainsFunc(y.stays, of) && !of(y.flaps) {
			t.Errorf("false: %s on %s at %s", e.Subject, e.List, e.Time)
		}
	}
	flaps := slices.DeleteFunc(slices.Clone(pages), func(e Event) bool {
		return e.List != y.flaps.list || e.Subject != y.flaps.subject || !y.flaps.has(e.Time)
	})
	if len(flaps) != flapsAllowed+1 {
		t.Errorf("12 flaps are told %d times", len(flaps))
	}
	for _, s := range y.subjects {
		wantStage(t, y.watch, s, NotListed)
	}
	for _, want := range []string{"EMPTY", "WILDCARD", "OFFLINE", "REFUSED", "HEALTHY"} {
		if !slices.Contains(states(y.events), want) {
			t.Errorf("no list was told to be %s in the whole year", want)
		}
	}
	asked.check(t, y.watch)
	t.Logf("%d listings and 12 flaps, %d questions, %d events", len(y.stays), asked.total, len(y.events))
}

// newYear decides what happens.
func newYear(t *testing.T) *year {
	y := &year{end: epoch.Add(365 * wholeDay)}
	y.w, y.watch, y.servers = watching(t, "spamcop", "psbl", "gbudb", "dronebl")
	for i := range 12 {
		y.subjects = append(y.subjects, add(t, y.w, y.watch, fmt.Sprintf("100.%d.7.1", 130+i)))
	}
	dice := rand.New(rand.NewPCG(7, 8))
	for i, s := range y.servers {
		var sick []span
		if i > 0 {
			sick = y.sickness(s, i)
		}
		for _, subject := range y.subjects {
			y.list(t, dice, i, subject, sick)
		}
	}
	return y
}

// sickness makes a list fail now and then, in ways that last from minutes to
// months.
func (y *year) sickness(s *server, shift int) (sick []span) {
	ways := []Answer{{Status: NXDomain}, found("127.0.0.2"), {Status: Timeout}, found("127.255.255.254"), found("91.195.240.117")}
	lengths := []time.Duration{10 * time.Minute, 3 * time.Hour, 2 * wholeDay, 40 * wholeDay}
	at := epoch.Add(time.Duration(5+3*shift) * wholeDay)
	for at.Before(y.end.Add(-60 * wholeDay)) {
		to := at.Add(lengths[(len(sick)+shift)%len(lengths)])
		sick = append(sick, span{at, to})
		at = to.Add(17 * wholeDay)
	}
	i := 0
	s.bend = func(_ string, a Answer) Answer {
		for i < len(sick) && !y.w.now.Before(sick[i].to) {
			i++
		}
		if i == len(sick) || y.w.now.Before(sick[i].from) || len(a.Names) > 0 {
			return a
		}
		return ways[(i+shift)%len(ways)]
	}
	return sick
}

// list puts a subject on a list for some days, a few times in the year. The
// last stay of the first subject flaps. A stay that meets a sickness of the
// list outlasts it by days, and has to be told once the list is well again.
func (y *year) list(t *testing.T, dice *rand.Rand, i int, subject Subject, sick []span) {
	l := y.watch.lists[i]
	every := 16 * l.Every
	if slices.Index(y.subjects, subject)%3 == 0 {
		every = l.Every // it sends all the time
	}
	every = min(every, maxEvery)*11/10 + 3*time.Minute
	outlasts := slices.Index(y.subjects, subject)%4 == 1 // few: many at once would be a mass listing
	var mine []span
	for at := epoch.Add(time.Duration(10+dice.IntN(60)) * wholeDay); at.Before(y.end.Add(-50 * wholeDay)); at = at.Add(time.Duration(20+dice.IntN(100)) * wholeDay) {
		at = at.Add(time.Duration(dice.IntN(86400)) * time.Second)
		s := stay{span{at, at.Add(time.Duration(4+dice.IntN(5)) * wholeDay)}, l.Name, subject, every}
		for _, ill := range sick {
			if s.to.Add(3*wholeDay).After(ill.from) && s.from.Before(ill.to.Add(wholeDay*3/2)) {
				s.to = later(s.to, ill.to.Add(5*wholeDay))
				s.within = max(s.within, ill.to.Sub(s.from)+wholeDay*3/2+every)
			}
		}
		at = s.to
		if s.within > every && !outlasts {
			continue
		}
		y.stays, mine = append(y.stays, s), append(mine, s.span)
	}
	if i == 0 && subject == y.subjects[0] {
		from := y.end.Add(-20 * wholeDay)
		for hour := range 12 {
			mine = append(mine, span{from.Add(time.Duration(2*hour) * time.Hour), from.Add(time.Duration(2*hour+1) * time.Hour)})
		}
		y.flaps = stay{span{from, from.Add(2 * wholeDay)}, l.Name, subject, every}
	}
	server, name := y.servers[i], label(t, subject.String())
	server.entries[name] = []string{"127.0.0.2"}
	server.since[name] = func(now time.Time) bool {
		return slices.ContainsFunc(mine, func(s span) bool { return s.has(now) })
	}
}

// live lets the year pass. A third of the subjects always send, a third for
// some days of each month, a third hardly ever.
func (y *year) live(t *testing.T) {
	for hour := 0; y.w.now.Before(y.end); hour++ {
		for i, s := range y.subjects {
			if i%3 == 0 || i%3 == 1 && hour%720 < 96 || hour%2000 == 0 {
				y.watch.Sent(y.w.now, s)
			}
		}
		y.events = append(y.events, y.w.run(t, y.watch, y.w.now.Add(time.Hour))...)
	}
}

// check wants exactly one of the pages to be about s, in time.
func (s *stay) check(t *testing.T, pages []Event) {
	t.Helper()
	var late []time.Duration
	for _, e := range pages {
		if s.list == e.List && s.subject == e.Subject && s.has(e.Time) {
			late = append(late, e.Time.Sub(s.from))
		}
	}
	if len(late) != 1 {
		t.Errorf("%s on %s from %s to %s is told %d times", s.subject, s.list, s.from, s.to, len(late))
	} else if late[0] > s.within {
		t.Errorf("%s on %s from %s is told after %s, want %s", s.subject, s.list, s.from, late[0], s.within)
	}
}

// A ledger counts what each list is asked.
type ledger struct {
	total  int
	days   map[string]map[int64]int // by list and day
	recent map[string][]time.Time   // of the last ten seconds
	worst  map[string]int           // questions in ten seconds
}

func newLedger() *ledger {
	return &ledger{days: map[string]map[int64]int{}, recent: map[string][]time.Time{}, worst: map[string]int{}}
}

func (c *ledger) add(task Task, now time.Time) {
	c.total++
	if c.days[task.List] == nil {
		c.days[task.List] = map[int64]int{}
	}
	c.days[task.List][now.Unix()/86400]++
	recent := append(c.recent[task.List], now)
	for now.Sub(recent[0]) >= 10*time.Second {
		recent = recent[1:]
	}
	c.recent[task.List] = recent
	c.worst[task.List] = max(c.worst[task.List], len(recent))
}

// check wants every list asked within its budget.
func (c *ledger) check(t *testing.T, watch *Watch) {
	t.Helper()
	for _, l := range watch.lists {
		for day, n := range c.days[l.Name] {
			if n > l.PerDay {
				t.Errorf("%s was asked %d times on day %d, may be %d", l.Name, n, day, l.PerDay)
			}
		}
		if n := c.worst[l.Name]; float64(n) > max(1, 11*l.PerSecond) {
			t.Errorf("%s was asked %d times in ten seconds, may be %v a second", l.Name, n, l.PerSecond)
		}
	}
}

// TestBudgets watches far more than two lists may be asked about: their
// budgets are kept, and the subjects take turns.
func TestBudgets(t *testing.T) {
	w, watch, servers := watching(t, "spamcop", "psbl")
	watch.lists[0].PerDay, watch.lists[0].budget.perDay = 3000, 3000
	watch.lists[1].PerSecond, watch.lists[1].budget.perSecond = 0.02, 0.02
	asked := newLedger()
	polls := map[string]map[Subject]int{"spamcop": {}, "psbl": {}}
	w.each = func(task Task, _ Answer) {
		asked.add(task, w.now)
		if task.Kind == Poll {
			polls[task.List][task.Subject]++
		}
	}
	for i := range 500 {
		add(t, w, watch, fmt.Sprintf("100.%d.%d.1", 64+i/250, i%250))
	}
	risky := subject(t, "100.64.3.1")
	watch.SetRisk(w.now, risky, 1)
	listed := "100.65.9.1"
	servers[0].entries[label(t, listed)] = []string{"127.0.0.2"}
	var events []Event
	for w.now.Before(epoch.Add(6 * wholeDay)) {
		for s := range watch.Subjects() {
			watch.Sent(w.now, s)
		}
		events = append(events, w.run(t, watch, w.now.Add(30*time.Minute))...)
	}
	asked.check(t, watch)
	for list, n := range polls {
		if len(n) < 500 {
			t.Errorf("%s: only %d of 500 subjects were asked about in six days", list, len(n))
		}
	}
	if usual := polls["spamcop"][subject(t, "100.64.4.1")]; polls["spamcop"][risky] < 3*usual {
		t.Errorf("one at risk was asked about %d times, another %d times", polls["spamcop"][risky], usual)
	}
	if len(told(events)) != 1 {
		t.Errorf("told %d listings, want one", len(told(events)))
	}
	if n := asked.days["spamcop"][epoch.Add(2*wholeDay).Unix()/86400]; n < 2000 {
		t.Errorf("only %d of 3,000 questions of a day were used", n)
	}
}
