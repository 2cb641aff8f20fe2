package dnsbl

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// epoch is when the worlds of the tests begin.
var epoch = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// A world is the DNS of a test, in virtual time.
type world struct {
	now     time.Time
	servers []*server
	took    time.Duration                      // that an answer takes
	bend    func(name string, a Answer) Answer // what the resolver makes of an answer; nil: nothing
	asked   []string                           // names, if they are kept
	keep    bool
	lose    func(Task) bool    // whether the answer to a task is lost; nil: none is
	each    func(Task, Answer) // sees every task that is asked; may be nil
}

// A server has the data of one list.
type server struct {
	zone    string
	entries map[string][]string                 // label to the addresses of its A records
	since   map[string]func(time.Time) bool     // whether an entry is there, if not always
	texts   map[string]string                   // label to TXT
	bend    func(label string, a Answer) Answer // what the server makes of an answer; nil: nothing
	ttl     time.Duration
	count   int
}

func newServer(l *List, zone string) *server {
	s := &server{zone: zone, entries: map[string][]string{}, texts: map[string]string{}, since: map[string]func(time.Time) bool{}, ttl: 5 * time.Minute}
	for _, p := range l.TestListed {
		answer := "127.0.0.2"
		for i := range l.Codes {
			if c := &l.Codes[i]; c.Class == Entry && !l.Bits {
				answer = netip.AddrFrom4([4]byte{c.Range[0][0], c.Range[1][0], c.Range[2][0], c.Range[3][0]}).String()
				break
			}
		}
		s.entries[p.Label] = []string{answer}
	}
	return s
}

func (w *world) server(name string) *server {
	for _, s := range w.servers {
		if name == s.zone || strings.HasSuffix(name, "."+s.zone) {
			return s
		}
	}
	return nil
}

func (w *world) answer(name string, t Type) Answer {
	if w.keep {
		w.asked = append(w.asked, name)
	}
	s := w.server(name)
	if s == nil {
		return Answer{Status: NXDomain}
	}
	s.count++
	label := strings.TrimSuffix(strings.TrimSuffix(name, s.zone), ".")
	a := Answer{Status: NXDomain, TTL: 2 * time.Minute, Server: "ns." + s.zone}
	addrs, ok := s.entries[label]
	if there := s.since[label]; ok && there != nil {
		ok = there(w.now)
	}
	switch {
	case t == TypeNS && label == "":
		a = Answer{Status: Found, Names: []string{"ns." + s.zone}, TTL: time.Hour}
	case t == TypeSOA && label == "":
		a = Answer{Status: Found, Names: []string{"ns." + s.zone}, Serial: 1, TTL: time.Hour}
	case ok && t == TypeA:
		a.Status, a.TTL = Found, s.ttl
		for _, addr := range addrs {
			a.Addrs = append(a.Addrs, netip.MustParseAddr(addr))
		}
	case ok && t == TypeTXT && s.texts[label] != "":
		a.Status, a.Texts = Found, []string{s.texts[label]}
	case ok:
		a.Status = NoData
	}
	if s.bend != nil {
		a = s.bend(label, a)
	}
	return a
}

func (w *world) Lookup(_ context.Context, name string, t Type) Answer {
	a := w.answer(name, t)
	if w.bend != nil {
		a = w.bend(name, a)
	}
	return a
}

func (w *world) Confirm(_ context.Context, _, name string, t Type) Answer { return w.answer(name, t) }

// run does what the owner of a watch does, until that time.
func (w *world) run(t testing.TB, watch *Watch, until time.Time) (events []Event) {
	t.Helper()
	stuck := 0
	for {
		next := watch.Next()
		if next.IsZero() || next.After(until) {
			w.now = until
			return events
		}
		if next.After(w.now) {
			w.now, stuck = next, 0
		}
		tasks, more := watch.Due(w.now, 64)
		events = append(events, more...)
		if stuck++; stuck > 100_000 {
			t.Fatalf("at %s the watch is due and asks nothing, or asks without end", w.now)
		}
		asked := w.now
		for _, task := range tasks {
			a := task.Ask(t.Context(), w)
			if w.each != nil {
				w.each(task, a)
			}
			if w.lose != nil && w.lose(task) {
				continue
			}
			w.now = asked.Add(w.took)
			events = append(events, watch.Take(w.now, task, a)...)
		}
	}
}

// listOf returns a shipped list.
func listOf(t testing.TB, name string) List {
	t.Helper()
	lists := Shipped().Lists
	i := slices.IndexFunc(lists, func(l List) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("no list %q", name)
	}
	return lists[i]
}

// testKeys open every list.
var testKeys = Keys{
	"spamhaus": "k3y", "abusix": "k3y", "spamrats": "k3y", "barracuda": Permitted, "validity": Permitted, "invaluement": Permitted,
}

// watching returns a world with those shipped lists, and a watch over them.
func watching(t testing.TB, lists ...string) (*world, *Watch, []*server) {
	t.Helper()
	w := &world{now: epoch}
	c := &Catalogue{}
	for _, name := range lists {
		l := listOf(t, name)
		zone, _ := l.zone(testKeys)
		c.Lists = append(c.Lists, l)
		w.servers = append(w.servers, newServer(&l, zone))
	}
	return w, NewWatch(c, testKeys, rand.New(rand.NewPCG(1, 2))), w.servers
}

// subject reads a subject.
func subject(t testing.TB, text string) Subject {
	t.Helper()
	s, err := ParseSubject(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// add watches an active subject.
func add(t testing.TB, w *world, watch *Watch, text string) Subject {
	t.Helper()
	s := subject(t, text)
	if err := watch.Add(w.now, s); err != nil {
		t.Fatal(err)
	}
	watch.Sent(w.now, s)
	return s
}

// label returns the label of a subject.
func label(t testing.TB, text string) string {
	t.Helper()
	l, err := subject(t, text).label()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// kinds returns the kinds of the events about s; of those about lists if s is
// zero.
func kinds(events []Event, s Subject) (all []string) {
	for _, e := range events {
		if e.Subject == s {
			all = append(all, e.Kind.String())
		}
	}
	return all
}

// states returns the states that the events say a list came to.
func states(events []Event) (all []string) {
	for _, e := range events {
		if e.Kind == ListState {
			all = append(all, e.State.String())
		}
	}
	return all
}

// told returns the events that a person is called for.
func told(events []Event) (all []Event) {
	for _, e := range events {
		if (e.Kind == Opened || e.Kind == Flapped) && !e.Quiet {
			all = append(all, e)
		}
	}
	return all
}
