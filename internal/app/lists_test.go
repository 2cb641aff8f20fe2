package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/dnsclient"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/notify"
	"github.com/vedetta-watch/vedetta/rules"
)

// A fakeDNS has block lists: names to the address that they answer.
type fakeDNS struct {
	mu      sync.Mutex
	entries map[string]string
	dead    bool
	broken  bool   // it panics
	all     string // what it answers to every name; empty: only to those that it has
	asked   int
}

func (f *fakeDNS) Lookup(_ context.Context, name string, t dnsbl.Type) dnsbl.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.broken {
		panic("a hostile answer")
	}
	entry, ok := f.entries[name]
	if f.all != "" {
		entry, ok = f.all, true
	}
	switch {
	case f.dead:
		return dnsbl.Answer{Status: dnsbl.Timeout}
	case ok && t == dnsbl.TypeA:
		return dnsbl.Answer{Status: dnsbl.Found, Addrs: []netip.Addr{netip.MustParseAddr(entry)}, TTL: time.Minute, Server: "ns.test"}
	case ok && t == dnsbl.TypeTXT:
		return dnsbl.Answer{Status: dnsbl.Found, Texts: []string{"see https://www.spamcop.net/<b>\x1b[2J"}}
	}
	return dnsbl.Answer{Status: dnsbl.NXDomain, TTL: time.Minute}
}

func (f *fakeDNS) Confirm(ctx context.Context, _, name string, t dnsbl.Type) dnsbl.Answer {
	return f.Lookup(ctx, name, t)
}

func (f *fakeDNS) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

const (
	outgoing    = "203.0.113.9"
	onSpamcop   = "9.113.0.203.bl.spamcop.net"
	spamcopTest = "2.0.0.127.bl.spamcop.net"
)

// A listService is a service of which the pipeline and the watch over block
// lists run, in virtual time.
type listService struct {
	*service
	stop func()
}

// askLists has a service watch these lists.
func askLists(names ...string) func(*service) {
	return func(s *service) {
		var lists []dnsbl.List
		for _, l := range dnsbl.Shipped().Lists {
			if slices.Contains(names, l.Name) {
				lists = append(lists, l)
			}
		}
		s.lists.watch = dnsbl.NewWatch(&dnsbl.Catalogue{Lists: lists}, nil, testRand())
	}
}

// startLists runs a service with that state and DNS until stop, after more was
// done to it.
func startLists(t *testing.T, state string, f *fakeDNS, more ...func(*service)) *listService {
	t.Helper()
	c := config.Default()
	c.State, c.Hostname, c.Logs, c.API.Listen = state, "mx1.test", nil, ""
	c.Notify.Webhook.URL = "http://127.0.0.1:1/" // letters are written, and stay
	c.DNSBL = config.DNSBL{Watch: true, Resolvers: []string{"127.0.0.1:1"}, Addresses: []string{outgoing}}
	ctx, cancel := context.WithCancel(t.Context())
	c, db, end, err := begin(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newService(ctx, c, db, Options{Config: c, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	askLists("spamcop", "barracuda")(s)
	s.lists.resolver, s.lists.distrust = f, ""
	for _, do := range more {
		do(s)
	}
	if err := s.restore(ctx); err != nil {
		t.Fatal(err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.observe(ctx) })
	g.Go(func() error { return s.pipeline.answer(ctx) })
	tasks, answers := make(chan dnsbl.Task), make(chan listAnswered)
	for range 4 {
		g.Go(func() error { s.lists.answer(ctx, tasks, answers); return nil })
	}
	g.Go(func() error {
		defer close(tasks)
		defer close(s.lists.over)
		defer s.lists.survive(ctx)
		s.lists.loop(ctx, tasks, answers)
		return nil
	})
	g.Go(func() error { return s.lists.findAddresses(ctx) })
	return &listService{s, func() {
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		end()
	}}
}

// history is the kinds of changes about the address, the oldest first.
func (s *listService) history(t *testing.T) (kinds []string) {
	t.Helper()
	rows, err := s.lists.ListHistory(t.Context(), web.ListQuery{Subject: outgoing})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range slices.Backward(rows) {
		kinds = append(kinds, row.Kind)
	}
	return kinds
}

// messages is what people were to be told.
func (s *listService) messages(t *testing.T) (all []notify.Message) {
	t.Helper()
	due, err := s.store.Due(t.Context(), time.Now().Add(time.Hour), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range due {
		var m notify.Message
		if err := json.Unmarshal(d.Body, &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// letters is their titles.
func (s *listService) letters(t *testing.T) (titles []string) {
	t.Helper()
	for _, m := range s.messages(t) {
		titles = append(titles, m.Title)
	}
	return titles
}

// standing is the open incidents about listings: subjects, and their lists.
func (s *listService) standing() (open []string) {
	for _, in := range s.book.Standing(rules.Listed) {
		open = append(open, in.Subject()+" on "+strings.Join(in.Finding.Parts, ", "))
	}
	return open
}

// TestListings has an address listed, the service started anew meanwhile, and
// the entry go: it is told once that it is there, and once that it is gone.
func TestListings(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
		s := startLists(t, state, f)
		s.lists.saw(&mailq.Event{Time: time.Now().AddDate(50, 0, 0), Kind: mailq.Delivered}) // somebody's clock is wrong
		time.Sleep(2 * time.Hour)
		if got := s.letters(t); len(got) > 0 {
			t.Errorf("a clean address is told: %q", got)
		}
		if clean, unknown := s.lists.answers(t); clean != 1 || unknown != 0 {
			t.Errorf("before it is listed %d lists call it clean and %d cannot tell", clean, unknown)
		}
		f.set(func() { f.entries[onSpamcop] = "127.0.0.2" })
		s.lists.saw(&mailq.Event{Time: time.Now(), Kind: mailq.Deferred, To: mailq.Recipient{Domain: "example.org"},
			Reply: mailq.Reply{Class: mailq.AddressReputation, Text: "450 Client host [" + outgoing + "] blocked using bl.spamcop.net"}})
		time.Sleep(2*time.Minute + 30*time.Second)
		if diff := cmp.Diff([]string{"suspected", "listed"}, s.history(t)); diff != "" {
			t.Errorf("soon after the reply (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{outgoing + " is on a block list: spamcop"}, s.letters(t)); diff != "" {
			t.Errorf("letters (-want +got):\n%s", diff)
		}
		now, err := s.lists.Lists(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if g := now.Subjects[0]; g.Subject != outgoing || g.Found != "configuration" || g.Level != "warn" || len(g.Listings) != 1 || g.Listings[0].Reason != "see https://www.spamcop.net/<b> [2J" {
			t.Errorf("shown: %+v", g)
		}
		since := now.Subjects[0].Listings[0].Since
		s.stop()

		time.Sleep(time.Hour)
		s = startLists(t, state, f)
		time.Sleep(26 * time.Hour)
		if got := s.letters(t); len(got) != 1 {
			t.Errorf("after a restart: %q, want the one letter", got)
		}
		if now, err = s.lists.Lists(t.Context()); err != nil || !now.Subjects[0].Listings[0].Since.Equal(since) {
			t.Errorf("listed since %v, %v; want %v", now.Subjects[0].Listings[0].Since, err, since)
		}
		if got := s.standing(); !slices.Equal(got, []string{outgoing + " on spamcop"}) {
			t.Errorf("open incidents: %q", got)
		}

		f.set(func() { f.dead = true })
		time.Sleep(12 * time.Hour)
		if got := s.standing(); len(got) != 1 {
			t.Errorf("the list died, and the listing reads as over")
		}
		if got := s.letters(t); len(got) != 2 || !strings.Contains(got[1], "resolver for block lists") {
			t.Errorf("letters: %q, want one more about the resolver", got)
		}
		f.set(func() { f.dead = false; delete(f.entries, onSpamcop) })
		time.Sleep(2 * 24 * time.Hour)
		if diff := cmp.Diff([]string{"suspected", "listed", "clearing", "cleared"}, s.history(t)); diff != "" {
			t.Errorf("at the end (-want +got):\n%s", diff)
		}
		if got := s.letters(t); !slices.Contains(got, "over: "+outgoing+" is on a block list") || len(s.standing()) != 0 {
			t.Errorf("letters %q, open incidents %q", got, s.standing())
		}
		s.stop()
	})
}

// An address that several lists have is one incident, told when it begins, when
// further lists have it, when it becomes critical and when none has it any more.
// That one of several is gone is noted; restarts change nothing.
func TestListingsAreOneIncident(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	more := askLists("spamcop", "barracuda", "dronebl", "uceprotect-1", "0spam", "psbl")
	zones := map[string]string{"spamcop": "bl.spamcop.net", "dronebl": "dnsbl.dronebl.org", "uceprotect-1": "dnsbl-1.uceprotect.net", "0spam": "bl.0spam.org", "psbl": "psbl.surriel.com"}
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{}}
		for _, zone := range zones {
			f.entries["2.0.0.127."+zone] = "127.0.0.2"
		}
		name := func(list string) string { return "9.113.0.203." + zones[list] }
		var s *listService
		told := map[string]bool{} // messages
		for _, step := range []struct {
			what     string
			on, off  []string
			restart  bool
			letters  []string // severity and title of new ones
			standing string
		}{
			{"clean", nil, nil, true, nil, ""},
			{"a first list", []string{"dronebl"}, nil, false, []string{"info " + outgoing + " is on a block list: dronebl"}, "dronebl"},
			{"a restart", nil, nil, true, nil, "dronebl"},
			{"two more", []string{"uceprotect-1", "0spam"}, nil, false, []string{"warning " + outgoing + " is on 2 more block lists: uceprotect-1, 0spam"}, "dronebl, uceprotect-1, 0spam"},
			{"another restart", nil, nil, true, nil, "dronebl, uceprotect-1, 0spam"},
			{"one is gone", nil, []string{"0spam"}, false, nil, "dronebl, uceprotect-1"},
			{"a restart after that", nil, nil, true, nil, "dronebl, uceprotect-1"},
			{"a heavy one", []string{"spamcop"}, nil, false, []string{"critical " + outgoing + " is on one more block list: spamcop (now critical)"}, "spamcop, dronebl, uceprotect-1"},
			{"it is gone", nil, []string{"spamcop"}, false, nil, "dronebl, uceprotect-1"},
			{"a restart with less", nil, nil, true, nil, "dronebl, uceprotect-1"},
			{"it is back", []string{"spamcop"}, nil, false, []string{"critical " + outgoing + " is on one more block list: spamcop"}, "spamcop, dronebl, uceprotect-1"},
			{"none is left", nil, []string{"spamcop", "dronebl", "uceprotect-1"}, false, []string{"info over: " + outgoing + " is on a block list"}, ""},
			{"a restart after the end", nil, nil, true, nil, ""},
			{"another day", []string{"psbl"}, nil, false, []string{"warning " + outgoing + " is on a block list: psbl"}, "psbl"},
		} {
			if step.restart {
				if s != nil {
					s.stop()
				}
				s = startLists(t, state, f, more)
			}
			f.set(func() {
				for _, list := range step.on {
					f.entries[name(list)] = "127.0.0.2"
				}
				for _, list := range step.off {
					delete(f.entries, name(list))
				}
			})
			if len(step.on) > 0 {
				s.lists.saw(&mailq.Event{Time: time.Now(), Kind: mailq.Deferred, To: mailq.Recipient{Domain: "example.org"},
					Reply: mailq.Reply{Class: mailq.AddressReputation, Text: "450 [" + outgoing + "] has a poor reputation"}})
			}
			time.Sleep(time.Hour)
			if len(step.off) > 0 {
				time.Sleep(11 * time.Hour)
			}
			var got []string
			for _, m := range s.messages(t) {
				if told[m.ID] {
					continue
				}
				told[m.ID] = true
				got = append(got, string(m.Severity)+" "+m.Title)
			}
			if diff := cmp.Diff(step.letters, got); diff != "" {
				t.Errorf("%s: letters (-want +got):\n%s", step.what, diff)
			}
			want := []string{outgoing + " on " + step.standing}
			if step.standing == "" {
				want = nil
			}
			if diff := cmp.Diff(want, s.standing()); diff != "" {
				t.Errorf("%s: open incidents (-want +got):\n%s", step.what, diff)
			}
		}
		threads := map[string]int{}
		for _, m := range s.messages(t) {
			threads[m.Thread]++
		}
		if len(threads) != 2 {
			t.Errorf("threads: %v, want one for each incident", threads)
		}
		s.stop()
	})
}

// TestListTrouble has a list go wild: it is told as the list's trouble, and
// nobody is listed.
func TestListTrouble(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.255.255.254"}}
		s := startLists(t, state, f)
		time.Sleep(time.Hour)
		if diff := cmp.Diff([]string{"block list spamcop needs a look"}, s.letters(t)); diff != "" {
			t.Errorf("letters (-want +got):\n%s", diff)
		}
		if got := s.lists.listStates(t); !slices.Equal(got, []string{"barracuda NO_KEY", "spamcop REFUSED"}) {
			t.Errorf("states %q", got)
		}
		if clean, unknown := s.lists.answers(t); clean != 0 || unknown != 1 {
			t.Errorf("of a list that refuses: %d clean, %d unknown", clean, unknown)
		}
		f.set(func() { f.entries[spamcopTest] = "127.0.0.2" })
		time.Sleep(24 * time.Hour)
		if got := s.letters(t); !slices.Contains(got, "over: block list spamcop needs a look") {
			t.Errorf("letters %q", got)
		}
		s.stop()
	})
}

// A list in quarantine stays told over a restart, until its test passes twice.
func TestListTroubleOutlivesARestart(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{}} // its test entry is gone
		s := startLists(t, state, f)
		time.Sleep(6 * time.Hour)
		told := []string{"block list spamcop needs a look"}
		if diff := cmp.Diff(told, s.letters(t)); diff != "" {
			t.Errorf("letters (-want +got):\n%s", diff)
		}
		for range 3 {
			s.stop()
			time.Sleep(time.Minute)
			s = startLists(t, state, f)
			for _, pause := range []time.Duration{time.Second, 5 * time.Minute, 3 * time.Hour} {
				time.Sleep(pause)
				if diff := cmp.Diff(told, s.letters(t)); diff != "" {
					t.Errorf("letters after a restart and %s (-want +got):\n%s", pause, diff)
				}
			}
		}
		f.set(func() { f.entries[spamcopTest] = "127.0.0.2" })
		time.Sleep(48 * time.Hour)
		if diff := cmp.Diff(append(told, "over: "+told[0]), s.letters(t)); diff != "" {
			t.Errorf("letters after it is well again (-want +got):\n%s", diff)
		}
		s.stop()
	})
}

// What a list answers and does not document is told once, however often the
// service starts, and the address does not read as clean meanwhile.
func TestUnknownCode(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2", onSpamcop: "127.0.0.77"}}
		for range 3 {
			s := startLists(t, state, f)
			time.Sleep(3 * time.Hour)
			now, err := s.lists.Lists(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if g := now.Subjects[0]; !slices.Equal(g.Unknown, []string{"spamcop"}) || !g.Checked.IsZero() {
				t.Errorf("shown: %+v", g)
			}
			if diff := cmp.Diff([]string{"block list spamcop needs a look"}, s.letters(t)); diff != "" {
				t.Errorf("letters (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"unknown-code"}, s.history(t)); diff != "" {
				t.Errorf("history (-want +got):\n%s", diff)
			}
			s.stop()
		}
		f.set(func() { delete(f.entries, onSpamcop) })
		s := startLists(t, state, f)
		time.Sleep(time.Hour)
		now, err := s.lists.Lists(t.Context())
		if err != nil || len(now.Subjects[0].Unknown) > 0 || time.Since(now.Subjects[0].Checked) > time.Hour {
			t.Errorf("clean: %+v, %v", now.Subjects, err)
		}
		s.stop()
	})
}

// TestListPanics has a mistake of ours cost one answer, or the watch over block
// lists, and never the service.
func TestListPanics(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}, broken: true}
		s := startLists(t, state, f)
		time.Sleep(time.Hour)
		if n := value(t, s.metrics.panics); n == 0 {
			t.Error("no panic is counted")
		}
		f.set(func() { f.broken = false })
		time.Sleep(12 * time.Hour)
		if got := s.lists.listStates(t); !slices.Contains(got, "spamcop HEALTHY") {
			t.Errorf("states %q after the mistakes", got)
		}
		err := s.lists.guarded(t.Context(), "addresses are looked for", func(context.Context) error { panic("a mistake") })
		if state := s.Health(t.Context()).Parts["block lists: addresses are looked for"]; err != nil || !strings.Contains(state, "no more") {
			t.Errorf("a part panicked: %v, health %q", err, state)
		}
		if err := s.lists.do(t.Context(), func() { panic("a mistake") }); !errors.Is(err, errListsOver) {
			t.Errorf("the loop panicked: %v", err)
		}
		if _, err := s.lists.Lists(t.Context()); !errors.Is(err, errListsOver) {
			t.Errorf("asked afterwards: %v", err)
		}
		if state := s.Health(t.Context()).Parts["block lists"]; !strings.Contains(state, "no more") {
			t.Errorf("health %q", state)
		}
		s.stop()
	})
}

// answers is how many lists call the one address clean, and how many cannot tell.
func (l *listWatch) answers(t *testing.T) (clean, unknown int) {
	t.Helper()
	now, err := l.Lists(t.Context())
	if err != nil || len(now.Subjects) != 1 || now.Watched != 1 {
		t.Fatalf("%+v, %v", now, err)
	}
	return now.Subjects[0].Clean, len(now.Subjects[0].Unknown)
}

func (l *listWatch) listStates(t *testing.T) (states []string) {
	t.Helper()
	now, err := l.Lists(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range now.Lists {
		states = append(states, s.List+" "+s.State)
	}
	return states
}

// TestDistrustAsksNothing keeps silent towards lists while no resolver can be
// believed, and says that of what they are nothing is known.
func TestDistrustAsksNothing(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
		s := startLists(t, state, f)
		time.Sleep(time.Hour)
		if got := s.lists.listStates(t); !slices.Contains(got, "spamcop HEALTHY") {
			t.Errorf("before: %q", got)
		}
		up := netip.MustParseAddrPort("127.0.0.1:53")
		health := []dnsclient.Health{{Upstream: up, Rewrites: dnsclient.Yes}}
		if err := s.lists.do(t.Context(), func() { s.lists.examined(t.Context(), health, distrust(health)) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		before := f.questions()
		time.Sleep(6 * time.Hour)
		if n := f.questions(); n != before {
			t.Errorf("%d questions", n-before)
		}
		if got := s.letters(t); len(got) != 1 || !strings.Contains(got[0], "resolver for block lists") {
			t.Errorf("letters %q", got)
		}
		if got := s.lists.listStates(t); !slices.Equal(got, []string{"barracuda NO_KEY", "spamcop UNTESTED"}) {
			t.Errorf("states %q", got)
		}
		if n := value(t, s.metrics.listUsable.WithLabelValues("spamcop")); n != 0 {
			t.Errorf("the metric says that the list is usable")
		}
		if err := s.lists.do(t.Context(), func() { s.lists.examined(t.Context(), nil, "") }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := s.lists.listStates(t); !slices.Contains(got, "spamcop HEALTHY") {
			t.Errorf("trusted again: %q", got)
		}
		s.stop()
	})
}

// A listing that was part of a mass listing and that another list confirmed
// stays told until it is gone, whatever becomes of the other list.
func TestMassListingStaysTold(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{}}
		s := startLists(t, state, f)
		g := dnsbl.Listing{Subject: dnsbl.Address(netip.MustParseAddr(outgoing)), List: "elsewhere", Tier: dnsbl.Act, Stage: dnsbl.OnList, Weight: 50, Confidence: 1, Since: time.Now(), Mass: true}
		tell := func() {
			if err := s.lists.do(t.Context(), func() {
				told, on := s.lists.knownListings(), &onLists{subject: outgoing}
				if isBelieved(&g, told[outgoing]) {
					on.add(&g, 0.5)
				}
				s.lists.tellListing(t.Context(), on, listTelling{time.Now(), g.Stage == dnsbl.NotListed, told, func() []rules.Evidence { return nil }})
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		for _, step := range []struct {
			what         string
			corroborated bool
			stage        dnsbl.Stage
			stands       bool
		}{
			{"alone", false, dnsbl.OnList, false},
			{"confirmed by another", true, dnsbl.OnList, true},
			{"the other list freezes", false, dnsbl.OnList, true},
			{"a first clean answer", false, dnsbl.Leaving, true},
			{"back", false, dnsbl.OnList, true},
			{"gone", false, dnsbl.NotListed, false},
		} {
			g.Corroborated, g.Stage = step.corroborated, step.stage
			tell()
			if got := s.standing(); len(got) > 0 != step.stands {
				t.Errorf("%s: open incidents %q", step.what, got)
			}
		}
		s.stop()
	})
}

// Many changes at once are told together, and what is told goes through what is
// listed alone: the rest of the addresses costs next to nothing.
func TestTellingIsCheap(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2", onSpamcop: "127.0.0.2"}}
		s := startLists(t, state, f)
		time.Sleep(3 * time.Hour)
		if err := s.lists.do(t.Context(), func() {
			for i := range 2000 {
				s.lists.add(time.Now(), dnsbl.Address(netip.AddrFrom4([4]byte{198, 51, byte(i / 256), byte(i)})), "configuration")
			}
			for s.lists.tellAt = time.Now(); s.lists.untold; {
				s.lists.tellSoon(t.Context())
			}
			s.lists.untold = true
			s.lists.tellSoon(t.Context())
			if s.lists.tellSoon(t.Context()); s.lists.untold || !s.lists.tellAt.After(time.Now()) {
				t.Error("not told, or told without end")
			}
			s.lists.untold = true
			if s.lists.tellSoon(t.Context()); !s.lists.untold {
				t.Error("told again at once")
			}
			if n := testing.AllocsPerRun(3, func() { s.lists.listings(time.Now(), s.lists.knownListings()) }); n > 500 {
				t.Errorf("%.0f allocations to look at 2,001 addresses of which one is listed", n)
			}
			for _, row := range []struct {
				subject, list string
				want          bool
			}{{outgoing, "spamcop", true}, {outgoing, "psbl", false}, {"192.0.2.77", "spamcop", false}, {"nonsense", "spamcop", false}} {
				if s.lists.isAsked(row.subject, row.list) != row.want {
					t.Errorf("%s is asked about %q: %t", row.list, row.subject, !row.want)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		s.stop()
	})
}

// Where block lists are watched no more, what they said does not stand for ever,
// and is not told as over.
func TestNoLongerWatched(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2", onSpamcop: "127.0.0.2"}}
		s := startLists(t, state, f)
		time.Sleep(time.Hour)
		if got := s.standing(); len(got) != 1 {
			t.Fatalf("open incidents %q", got)
		}
		if err := s.endUnwatched(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := s.standing(); len(got) > 0 {
			t.Errorf("open incidents %q", got)
		}
		want := []string{outgoing + " is on a block list: spamcop", "no longer watched: " + outgoing + " is on a block list"}
		if diff := cmp.Diff(want, s.letters(t)); diff != "" {
			t.Errorf("letters (-want +got):\n%s", diff)
		}
		s.stop()

		s = startLists(t, state, f) // watched again: it stands still, and is told anew
		time.Sleep(time.Hour)
		if got := s.standing(); len(got) != 1 {
			t.Errorf("open incidents once it is watched again: %q", got)
		}
		if diff := cmp.Diff(append(want, want[0]), s.letters(t)); diff != "" {
			t.Errorf("letters once it is watched again (-want +got):\n%s", diff)
		}
		s.stop()
	})
}

// What a list was asked today counts after a restart too, and not tomorrow.
func TestAskedTodayOutlivesARestart(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		asked := func(s *listService) (n int) {
			now, err := s.lists.Lists(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range now.Lists {
				n += list.Asked
			}
			return n
		}
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
		s := startLists(t, state, f)
		time.Sleep(5*time.Hour + 30*time.Second)
		before := asked(s)
		s.stop()
		s = startLists(t, state, f)
		time.Sleep(time.Second)
		if n := asked(s); before == 0 || n < before-5 {
			t.Errorf("%d questions were asked before the restart; after it, %d count", before, n)
		}
		s.stop()
		time.Sleep(24 * time.Hour)
		s = startLists(t, state, f)
		time.Sleep(time.Second)
		if n := asked(s); n >= before {
			t.Errorf("on the next day %d questions count", n)
		}
		s.stop()
	})
}

// A fakeSPF resolver has records.
type fakeSPF = dnsclient.Static

// Traps are known while the key of recipients' hashes is replaced, and after.
func TestTrapsOutliveAKey(t *testing.T) {
	old, fresh := [16]byte{1}, [16]byte{2}
	j := &judge{parser: &mailq.Parser{Key: old}}
	dir := &directory{}
	dir.set(&mailq.Directory{})
	j.watchRisk(config.ListRisk{Traps: []string{"Trap@example.com"}}, dir)
	known := func(key [16]byte) bool { return j.risk.Traps[mailq.HashRecipient(key, "trap@example.com")] }
	for _, step := range []struct {
		key, next      [16]byte
		byOld, byFresh bool
	}{{old, [16]byte{}, true, false}, {old, fresh, true, true}, {fresh, [16]byte{}, false, true}} {
		j.parser.Rekey(step.key, step.next)
		j.hashTraps()
		if known(old) != step.byOld || known(fresh) != step.byFresh {
			t.Errorf("%v then %v: known by the old key %t, by the new %t", step.key[0], step.next[0], known(old), known(fresh))
		}
	}
	if (&judge{parser: &mailq.Parser{}}).risk != nil {
		t.Error("a risk that nobody asked for")
	}
}

func TestSPFAddresses(t *testing.T) {
	addr := netip.MustParseAddr
	r := fakeSPF{
		TXT: map[string][]string{
			"a.test": {"unrelated", "v=spf1 ip4:203.0.113.9 IP4:203.0.113.16/30 ip4:198.51.0.0/16 ip6:2001:db8::9 ip6:2001:db8::/64 +a mx -ip4:192.0.2.1 ~ip4:192.0.2.2 a:out.test a:%{i}.x.test include:big.test -all"},
			"b.test": {"v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 ip4:192.0.2.0/24 ~all"},
			"c.test": {"v=spf2.0/pra ip4:203.0.113.9"},
			"d.test": {"v=spf1 ip4:not-an-address ip4: mx:many.test ip6:::/0 ?all"},
		},
		A:  map[string][]netip.Addr{"a.test": {addr("203.0.113.40")}, "mx1.test": {addr("203.0.113.41")}, "out.test": {addr("203.0.113.42")}},
		MX: map[string][]dnsclient.MX{"a.test": {{Preference: 10, Host: "mx1.test."}}},
	}
	texts := func(domain string) (all []string) {
		for _, f := range spfAddresses(t.Context(), r, domain, []string{domain}) {
			all = append(all, f.subject.String())
			if f.source != "SPF of "+domain {
				t.Errorf("source %q", f.source)
			}
		}
		return all
	}
	want := []string{"203.0.113.9", "203.0.113.16", "203.0.113.17", "203.0.113.18", "203.0.113.19", "2001:db8::9", "203.0.113.40", "203.0.113.41", "203.0.113.42"}
	if diff := cmp.Diff(want, texts("a.test")); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if n := len(texts("b.test")); n != maxSPF {
		t.Errorf("%d addresses of three networks, want %d", n, maxSPF)
	}
	for _, domain := range []string{"c.test", "d.test", "none.test"} {
		if got := texts(domain); len(got) > 0 {
			t.Errorf("%s: %q", domain, got)
		}
	}
}

// TestIncludedSPF follows what a record includes and redirects to as far as it
// is ours: in no circle, not for ever, and not through an alias.
func TestIncludedSPF(t *testing.T) {
	r := fakeSPF{
		TXT: map[string][]string{
			"example.com":          {"v=spf1 include:_spf.example.com include:esp.test include:_esp.example.com +include:_spf.Example.org. ?include:_neutral.example.com include:%{i}.example.com include:notexample.com ip4:203.0.113.1 redirect=_r.example.com"},
			"_spf.example.com":     {"v=spf1 ip4:203.0.113.2 a include:example.com redirect=_tail.example.com"},
			"_tail.example.com":    {"v=spf1 ip4:203.0.113.3 ~all"},
			"_spf.example.org":     {"v=spf1 ip4:203.0.113.4 -all redirect=_unused.example.org"},
			"_unused.example.org":  {"v=spf1 ip4:203.0.113.66"},
			"_r.example.com":       {"v=spf1 ip4:203.0.113.5 -all"},
			"_neutral.example.com": {"v=spf1 ip4:203.0.113.66"},
			"esp.test":             {"v=spf1 ip4:203.0.113.66"},
			"notexample.com":       {"v=spf1 ip4:203.0.113.66"},
			"long.test":            {"v=spf1 include:0.long.test"},
		},
		A:     map[string][]netip.Addr{"_spf.example.com": {netip.MustParseAddr("203.0.113.6")}},
		CNAME: map[string]string{"_esp.example.com": "esp.test"},
	}
	for i := range 30 {
		r.TXT[fmt.Sprintf("%d.long.test", i)] = []string{fmt.Sprintf("v=spf1 ip4:198.51.100.%d include:%d.long.test", i, i+1)}
	}
	texts := func(domain string) (all []string) {
		for _, f := range spfAddresses(t.Context(), r, domain, []string{"example.com", "Example.org", "long.test"}) {
			all = append(all, f.subject.String())
		}
		slices.Sort(all)
		return all
	}
	want := []string{"203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6"}
	if diff := cmp.Diff(want, texts("example.com")); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if n := len(texts("long.test")); n != 10 {
		t.Errorf("%d records were followed, want 10", n)
	}
}

// TestConfiguredNetworks watches each address of an IPv4 network, and one of an
// IPv6 network.
func TestConfiguredNetworks(t *testing.T) {
	if config.MaxWatched != dnsbl.DefaultMaxSubjects {
		t.Errorf("the configuration takes %d, and the watch %d", config.MaxWatched, dnsbl.DefaultMaxSubjects)
	}
	l := newTestListWatch()
	l.config.Addresses, l.config.Domains = []string{"203.0.113.9", "198.51.100.0/30", "255.255.255.254/31", "2001:db8:0:1::/64", "2001:db8::9"}, []string{"example.com"}
	var got []string
	for _, f := range l.configured() {
		if got = append(got, f.subject.String()); f.source != "configuration" || !f.subject.IsSingle() {
			t.Errorf("%s is found by %s", f.subject, f.source)
		}
	}
	want := []string{"203.0.113.9", "198.51.100.0", "198.51.100.1", "198.51.100.2", "198.51.100.3", "255.255.255.254", "255.255.255.255", "2001:db8:0:1::", "2001:db8::9", "example.com"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
}

// What a resolver that is not trusted says of SPF records, before or after they
// were looked up, makes no address ours.
func TestSPFNeedsTrust(t *testing.T) {
	l := &listWatch{p: &pipeline{}, asks: make(chan func()), over: make(chan struct{}), distrust: "it was not examined yet",
		config: config.DNSBL{SPF: true, Domains: []string{"a.test"}}}
	go func() {
		for f := range l.asks {
			f()
		}
	}()
	defer close(l.asks)
	records := fakeSPF{TXT: map[string][]string{"a.test": {"v=spf1 a:gone.test"}}, A: map[string][]netip.Addr{"gone.test": {netip.MustParseAddr("203.0.113.80")}}}
	if found, ok := l.findSPF(t.Context(), records); len(found) > 0 || ok {
		t.Errorf("before the examination: %v", found)
	}
	trust := func(why string) func() { return func() { l.distrust = why } }
	if err := l.do(t.Context(), trust("")); err != nil {
		t.Fatal(err)
	}
	if found, ok := l.findSPF(t.Context(), records); len(found) != 1 || !ok {
		t.Errorf("trusted: %v", found)
	}
	fails := failing{records, func() { _ = l.do(t.Context(), trust("it makes names up")) }}
	if found, ok := l.findSPF(t.Context(), fails); len(found) > 0 || ok {
		t.Errorf("examined meanwhile: %v", found)
	}
}

// A failing resolver is found out while it is asked.
type failing struct {
	spfResolver
	found func()
}

func (f failing) Lookup(ctx context.Context, name string, qtype uint16) dnsclient.Answer {
	f.found()
	return f.spfResolver.Lookup(ctx, name, qtype)
}

func TestAddressesIn(t *testing.T) {
	for text, want := range map[string][]string{
		"550 5.7.1 Client host [203.0.113.9] blocked using zen.spamhaus.org":                {"203.0.113.9"},
		"554 IP=203.0.113.9 - see 2001:db8::9.":                                             {"203.0.113.9", "2001:db8::9"},
		"421 4.7.0 [TSS04] Messages from ::ffff:203.0.113.9 temporarily deferred":           {"203.0.113.9"},
		"550 Blocked:203.0.113.9":                                                           {"203.0.113.9"},
		"listed:203.0.113.9":                                                                {"203.0.113.9"},
		"203.0.113.9:25 refused":                                                            {"203.0.113.9"},
		"IP:203.0.113.9:25: 550 no":                                                         {"203.0.113.9"},
		"Client host [2001:db8::1]:25 blocked":                                              {"2001:db8::1"},
		"[IPv6:2001:db8::9] and listed:2001:db8::8, face:203.0.113.9":                       {"2001:db8::9", "2001:db8::8", "203.0.113.9"},
		"bad:2001:db8::7 ip=203.0.113.9/32 http://x.test/?203.0.113.10":                     {"2001:db8::7", "203.0.113.9", "203.0.113.10"},
		"dead.beef face: cafe:1 face::b00c ::1 fe80::1 de:ad:be:ef":                         nil,
		"blocked using 9.113.0.203.zen.spamhaus.org, 203.0.113.9.example.com, a203.0.113.9": nil,
		"version 1.2.3.4.5 of 1.2.3, at 10:20:30":                                           nil,
		"1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4 1.1.1.5 1.1.1.6":                                   {"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"},
		"": nil,
		"\xff\x00:::" + strings.Repeat("1.", 300): nil,
	} {
		var got []string
		for _, a := range addressesIn(text) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestNamedByOthers watches an address that servers of three recipients'
// domains name, and none that one server names over and over.
func TestNamedByOthers(t *testing.T) {
	l := &listWatch{
		p: &pipeline{log: slog.New(slog.DiscardHandler)}, watch: dnsbl.NewWatch(&dnsbl.Catalogue{}, nil, testRand()),
		sources: map[dnsbl.Subject]string{}, named: map[netip.Addr]*namedBy{}, risks: map[dnsbl.Subject]*signs{},
	}
	now := time.Now()
	hear := func(text, domain string) { l.hear(heard{at: now, receiver: domain, text: text}, now) }
	for range 10 {
		hear("[203.0.113.66] is bad", "evil.test")
	}
	for _, domain := range []string{"a.test", "b.test", "c.test"} { // yesterday
		l.hear(heard{at: now.Add(-24 * time.Hour), receiver: domain, text: "[203.0.113.67] is bad"}, now)
	}
	for _, domain := range []string{"a.test", "b.test", "b.test"} {
		hear("[203.0.113.9] is bad, and so is [10.0.0.1]", domain)
	}
	if len(l.sources) > 0 {
		t.Errorf("watched: %v", l.sources)
	}
	hear("[203.0.113.9] is bad, and so is [10.0.0.1]", "c.test")
	s := dnsbl.Address(netip.MustParseAddr("203.0.113.9"))
	if len(l.sources) != 1 || l.sources[s] != "replies of other servers" {
		t.Errorf("watched: %v", l.sources)
	}
	for range 20 {
		hear("[203.0.113.9] is bad", "a.test")
	}
	if w := l.risks[s].weight; w != 1 {
		t.Errorf("risk %.2f after 20 replies, want 1", w)
	}
	l.weighSigns(now.Add(2 * time.Hour))
	if w := l.risks[s].weight; w < 0.24 || w > 0.26 {
		t.Errorf("risk %.2f two hours later, want a quarter", w)
	}
	if l.weighSigns(now.Add(24 * time.Hour)); len(l.risks) > 0 {
		t.Errorf("risk remains a day later: %v", l.risks)
	}
	for i := range 1000 { // a stranger names many
		hear("203.0."+netip.AddrFrom4([4]byte{0, 0, byte(i >> 8), byte(i)}).String()[4:], "evil.test")
	}
	if len(l.named) > maxNamed {
		t.Errorf("%d addresses are remembered", len(l.named))
	}
}

// Who has one domain is one receiver, whatever he calls his servers, and so is
// a provider; and what strangers name is not treated as ours.
func TestNamedByOneStranger(t *testing.T) {
	l := &listWatch{
		p: &pipeline{log: slog.New(slog.DiscardHandler)}, watch: dnsbl.NewWatch(&dnsbl.Catalogue{}, nil, testRand()), heard: make(chan heard, 9),
		sources: map[dnsbl.Subject]string{}, named: map[netip.Addr]*namedBy{}, risks: map[dnsbl.Subject]*signs{},
	}
	reply := func(domain, provider string) {
		now := time.Now()
		l.saw(&mailq.Event{Time: now, Kind: mailq.Deferred, To: mailq.Recipient{Domain: domain},
			Reply: mailq.Reply{Class: mailq.AddressReputation, Provider: provider, Text: "[203.0.113.66] is bad"}})
		l.hear(<-l.heard, now)
	}
	for _, domain := range []string{"a.evil.test", "b.evil.test", "c.evil.test", "evil.test"} {
		reply(domain, "")
	}
	for _, domain := range []string{"a.example", "b.example", "c.example"} {
		reply(domain, "google")
	}
	s := dnsbl.Address(netip.MustParseAddr("203.0.113.66"))
	if len(l.sources) > 0 {
		t.Errorf("one stranger and one provider named it: %v", l.sources)
	}
	if reply("honest.example", ""); l.sources[s] != byReplies || l.isOurs(s) {
		t.Errorf("three named it: %v, ours %t", l.sources, l.isOurs(s))
	}
	if l.add(time.Now(), s, "configuration"); !l.isOurs(s) {
		t.Errorf("it is configured: %v", l.sources)
	}
	if l.add(time.Now(), s, byReplies); !l.isOurs(s) {
		t.Errorf("it is named again: %v", l.sources)
	}
}

// A day of replies that do not say which address they are about: of 700, the
// one that comes to be listed is found, and the list's budget lasts.
func TestRepliesThatNameNobody(t *testing.T) {
	t.Parallel()
	spamcop := dnsbl.Shipped().Lists[slices.IndexFunc(dnsbl.Shipped().Lists, func(l dnsbl.List) bool { return l.Name == "spamcop" })]
	l := &listWatch{
		p: &pipeline{log: slog.New(slog.DiscardHandler)}, watch: dnsbl.NewWatch(&dnsbl.Catalogue{Lists: []dnsbl.List{spamcop}}, nil, testRand()),
		sources: map[dnsbl.Subject]string{}, named: map[netip.Addr]*namedBy{}, risks: map[dnsbl.Subject]*signs{},
	}
	f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for i := range 700 {
		l.add(start, dnsbl.Address(netip.AddrFrom4([4]byte{203, 0, byte(113 + i/256), byte(i)})), "configuration")
	}
	opened := time.Time{}
	for now := start; now.Before(start.Add(24*time.Hour - time.Minute)); now = now.Add(time.Second) {
		if now.Sub(start)%(time.Minute) == 0 {
			for s := range l.sources {
				l.watch.Sent(now, s)
			}
			l.hear(heard{at: now, receiver: "example.org", text: "550 your address has a poor reputation"}, now)
			l.weighSigns(now)
		}
		if now.Sub(start) == 4*time.Hour {
			f.entries[onSpamcop] = "127.0.0.2"
		}
		tasks, _ := l.watch.Due(now, listAskers)
		for _, task := range tasks {
			for _, e := range l.watch.Take(now, task, task.Ask(t.Context(), f)) {
				if e.Kind == dnsbl.Opened {
					opened = e.Time
				}
			}
		}
	}
	if late := opened.Sub(start) - 4*time.Hour; opened.IsZero() || late > 30*time.Minute {
		t.Errorf("the listed address is found after %s", late)
	}
	if h := l.watch.Health()[0]; !h.Spent.IsZero() {
		t.Errorf("the budget was spent at %s, after %d questions", h.Spent, h.AskedToday)
	}
}

// A list whose day's questions are used up is told of, once that day.
func TestSpentListIsTold(t *testing.T) {
	h := dnsbl.Health{List: "spamcop", Title: "SpamCop", AskedToday: 90_000, Spent: time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)}
	f := spentFinding(&h, h.Spent.Add(time.Hour))
	if again := spentFinding(&h, h.Spent.Add(2*time.Hour)); f.ID != again.ID || !f.Lasting || f.Subject != troubleName("spamcop") || !strings.Contains(f.Evidence[0].Text, "90000 times") {
		t.Errorf("%+v, then %s", f, again.ID)
	}
}

func testRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func (f *fakeDNS) questions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}
