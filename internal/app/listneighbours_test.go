package app

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/rules"
)

var outgoingHood = netip.MustParsePrefix("203.0.113.0/24")

// lookAround has the service watch neighbours on the lists of that name.
func lookAround(names ...string) func(*service) {
	return func(s *service) {
		var lists []dnsbl.List
		for _, l := range dnsbl.Shipped().Lists {
			if slices.Contains(names, l.Name) {
				lists = append(lists, l)
			}
		}
		s.lists.watch = dnsbl.NewWatch(&dnsbl.Catalogue{Lists: lists}, dnsbl.Keys{"spamhaus": dnsbl.Permitted}, testRand())
		s.lists.config.Risk.Neighbours = true
	}
}

// neighboursOn are the names that a zone is asked for about our neighbours.
func neighboursOn(t *testing.T, zone string) (names []string) {
	t.Helper()
	l := &listWatch{sources: map[dnsbl.Subject]string{dnsbl.Address(netip.MustParseAddr(outgoing)): "configuration"}}
	for _, s := range l.neighbours(outgoingHood) {
		name, err := dnsbl.QueryName(s, zone)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if len(names) != neighboursOf || slices.Contains(names, onSpamcop) {
		t.Fatalf("neighbours %q", names)
	}
	return names
}

// pressure is the risk that comes from around our address.
func (s *listService) pressure(t *testing.T) (p float64) {
	t.Helper()
	if err := s.lists.do(t.Context(), func() { p = s.lists.pressures()[outgoingHood] }); err != nil {
		t.Fatal(err)
	}
	return p
}

// Listed neighbours are told once, for information, over a restart too, and when
// they are gone; they are no listing of ours.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		names := neighboursOn(t, "bl.spamcop.net")
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2", names[0]: "127.0.0.2"}}
		s := startLists(t, state, f, lookAround("spamcop"))
		time.Sleep(13 * time.Hour)
		if got := s.letters(t); len(got) > 0 || s.pressure(t) > 0 {
			t.Errorf("one neighbour is told: %q, risk %.2f", got, s.pressure(t))
		}
		f.set(func() { f.entries[names[3]], f.entries[names[5]] = "127.0.0.2", "127.0.0.2" })
		time.Sleep(13 * time.Hour)
		told := []string{"203.0.113.0/24 has listed neighbours"}
		if diff := cmp.Diff(told, s.letters(t)); diff != "" {
			t.Errorf("letters (-want +got):\n%s", diff)
		}
		if got := s.pressure(t); got != 0.1 {
			t.Errorf("risk %.2f of three neighbours, want 0.10", got)
		}
		if got := s.book.Standing(rules.Listed); len(got) > 0 || len(s.history(t)) > 0 {
			t.Errorf("open listings %v, history %q", got, s.history(t))
		}
		if n := value(t, s.metrics.pressed); n != 1 {
			t.Errorf("%.0f networks have listed neighbours", n)
		}
		s.stop()

		s = startLists(t, state, f, lookAround("spamcop"))
		time.Sleep(26 * time.Hour)
		if diff := cmp.Diff(told, s.letters(t)); diff != "" {
			t.Errorf("letters after a restart (-want +got):\n%s", diff)
		}
		f.set(func() { delete(f.entries, names[3]) }) // one or two remain: it is not over
		time.Sleep(13 * time.Hour)
		f.set(func() { f.dead = true })
		time.Sleep(26 * time.Hour)
		if got := s.book.Standing(rules.Neighbours); len(got) != 1 {
			t.Errorf("over while it is not known: %v", got)
		}
		f.set(func() { f.dead = false; delete(f.entries, names[0]); delete(f.entries, names[5]) })
		time.Sleep(49 * time.Hour)
		if got := s.letters(t); !slices.Contains(got, "over: "+told[0]) || s.pressure(t) > 0 {
			t.Errorf("letters %q, risk %.2f at the end", got, s.pressure(t))
		}
		s.stop()
	})
}

// What says nothing of a neighbour's mail, and what a bad list says, is no sign.
func TestNeighboursThatSayNothing(t *testing.T) {
	t.Parallel()
	codes := map[string]string{"policy": "127.0.0.11", "the range": "127.0.0.9"}
	for name, f := range map[string]*fakeDNS{
		"wildcard":  {all: "127.0.0.2"},
		"refusal":   {all: "127.255.255.254"},
		"policy":    {},
		"the range": {},
	} {
		state := t.TempDir()
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if f.all == "" {
					f.entries = map[string]string{"2.0.0.127.zen.spamhaus.org": "127.0.0.2", "2.0.0.0.0.0.f.7.f.f.f.f." + strings.Repeat("0.", 20) + "zen.spamhaus.org": "127.0.0.2"}
					for _, n := range neighboursOn(t, "zen.spamhaus.org") {
						f.entries[n] = codes[name]
					}
				}
				s := startLists(t, state, f, lookAround("spamhaus-zen"))
				time.Sleep(26 * time.Hour)
				if got := s.pressure(t); got > 0 || len(s.book.Standing(rules.Neighbours)) > 0 {
					t.Errorf("risk %.2f, open incidents %v", got, s.book.Standing(rules.Neighbours))
				}
				if n := value(t, s.metrics.listInquiries.WithLabelValues("neighbour", "listed")); n > 0 != (codes[name] != "") {
					t.Errorf("%.0f neighbours are listed", n)
				}
				s.stop()
			})
		})
	}
}

// A listing of more than the address raises its risk, and is not told for that.
func TestListingAroundUs(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{"2.0.0.127.dnsbl-2.uceprotect.net": "127.0.0.2", "0.113.0.203.dnsbl-2.uceprotect.net": "127.0.0.2"}}
		s := startLists(t, state, f, lookAround("uceprotect-2"))
		time.Sleep(26 * time.Hour)
		if got := s.pressure(t); got != pressureStep {
			t.Errorf("risk %.2f, want %.2f", got, pressureStep)
		}
		if got := s.letters(t); len(got) > 0 {
			t.Errorf("letters %q", got)
		}
		s.stop()
	})
}

// Of however many networks few are asked about, and none of an address that only
// strangers name.
func TestNeighboursAreBounded(t *testing.T) {
	i := slices.IndexFunc(dnsbl.Shipped().Lists, func(l dnsbl.List) bool { return l.Name == "spamcop" })
	l := &listWatch{
		p:       &pipeline{log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry())},
		watch:   dnsbl.NewWatch(&dnsbl.Catalogue{Lists: dnsbl.Shipped().Lists[i : i+1]}, nil, testRand()),
		sources: map[dnsbl.Subject]string{}, hoods: map[netip.Prefix]*hood{}, config: config.DNSBL{Risk: config.ListRisk{Neighbours: true}},
	}
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
	l.add(start, dnsbl.Address(netip.MustParseAddr("198.51.100.1")), byReplies)
	l.add(start, dnsbl.Address(netip.MustParseAddr("2001:db8::1")), "configuration")
	for i := range 400 {
		l.add(start, dnsbl.Address(netip.AddrFrom4([4]byte{203, byte(i >> 8), byte(i), 9})), "configuration")
	}
	once := 0
	for now := start; now.Before(start.Add(24*time.Hour - time.Minute)); now = now.Add(10 * time.Second) {
		if now.Sub(start)%time.Minute == 0 {
			l.lookAround(now)
		}
		tasks, _ := l.watch.Due(now, listAskers)
		for _, task := range tasks {
			if task.Kind == dnsbl.Once {
				once++
			}
			l.watch.Take(now, task, task.Ask(t.Context(), f))
		}
		l.hearInquiries(t.Context(), now)
	}
	if n := len(l.hoods); n != maxHoods || l.hoods[netip.MustParsePrefix("198.51.100.0/24")] != nil {
		t.Errorf("%d networks are asked about", n)
	}
	if most := 2 * maxHoods * neighboursOf; once < most/2 || once > most {
		t.Errorf("%d questions, want %d at most", once, most)
	}
}

// What a list said of neighbours counts no more once it is not asked about them,
// while others are.
func TestNeighboursOfAQuarantinedList(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
		s := startLists(t, state, f, lookAround("spamcop"))
		time.Sleep(26 * time.Hour)
		if err := s.lists.do(t.Context(), func() {
			h := s.lists.hoods[outgoingHood]
			for _, neighbour := range s.lists.neighbours(outgoingHood)[:2] {
				h.listed[neighbourOn{neighbour, "Broken List"}] = true
			}
			h.pressed = time.Now()
		}); err != nil {
			t.Fatal(err)
		}
		if s.pressure(t) == 0 {
			t.Error("two listed neighbours are no risk")
		}
		time.Sleep(26 * time.Hour)
		if got := s.pressure(t); got > 0 {
			t.Errorf("risk %.2f by a list that is not asked any more", got)
		}
		s.stop()
	})
}
