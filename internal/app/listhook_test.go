package app

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
)

// A hookRun is a hook with a database, and a program that notes its calls.
type hookRun struct {
	*listHook
	db  *store.DB
	out string // what the program noted
}

func newHookRun(t *testing.T, dir string, mode config.Mode, program string) *hookRun {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(dir, "vedetta.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	out, script := filepath.Join(dir, "out"), filepath.Join(dir, "hook")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$*\" >>"+out+"\n"+program), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &pipeline{log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()), store: db,
		health: &health{parts: map[string]string{}}, asks: make(chan func()), done: make(chan struct{})}
	close(p.done) // nobody judges what it reports
	c := config.Default()
	c.Mode, c.DNSBL.Hook.Command = mode, []string{script, "{state}", "{address}", "{lists}"}
	h, err := newListHook(c, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &hookRun{h, db, out}
}

// wants has the hook carry out what is wanted, and says what the program was
// called with in all.
func (h *hookRun) wants(t *testing.T, changes ...enforce.AddressChange) string {
	t.Helper()
	all := map[string]enforce.AddressChange{}
	for _, c := range changes {
		all[c.Address] = c
	}
	h.carryOut(t.Context(), all)
	text, err := os.ReadFile(h.out)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// journal is what was written about the address, the oldest first.
func (h *hookRun) journal(t *testing.T) (lines []string) {
	t.Helper()
	entries, err := h.db.Journal(t.Context(), store.JournalFilter{Subject: outgoing})
	if err != nil {
		t.Fatal(err)
	}
	for i := len(entries) - 1; i >= 0; i-- {
		lines = append(lines, entries[i].What+": "+entries[i].Action+" "+entries[i].Outcome)
	}
	return lines
}

func TestListHook(t *testing.T) {
	dir := t.TempDir()
	on := enforce.AddressChange{Address: outgoing, Listed: true, Lists: []string{"spamhaus-zen", "spamcop"}, Exposure: 0.97}
	off := enforce.AddressChange{Address: outgoing}
	const called = "listed " + outgoing + " spamhaus-zen,spamcop\n"
	h := newHookRun(t, dir, config.ModeEnforce, "")
	if got := h.wants(t, off); got != "" {
		t.Errorf("a clean address: %q", got)
	}
	if got := h.wants(t, on); got != called {
		t.Errorf("listed: %q", got)
	}
	if got := h.wants(t, on); got != called {
		t.Errorf("still listed: %q", got)
	}
	h = newHookRun(t, dir, config.ModeEnforce, "")
	if got := h.wants(t, on); got != called {
		t.Errorf("after a restart: %q", got)
	}
	if got := h.wants(t, off); got != called+"clear "+outgoing+" \n" {
		t.Errorf("clear: %q", got)
	}
	want := []string{"intent: hook listed ", "outcome: hook listed done", "intent: hook clear ", "outcome: hook clear done"}
	if diff := cmp.Diff(want, h.journal(t)); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

func TestListHookThatFails(t *testing.T) {
	h := newHookRun(t, t.TempDir(), config.ModeEnforce, "echo no such pool >&2\nexit 1\n")
	h.wants(t, enforce.AddressChange{Address: outgoing, Listed: true, Lists: []string{"spamcop"}, Exposure: 0.9})
	if h.told[outgoing] {
		t.Error("it counts as done")
	}
	if got := h.journal(t); len(got) != 2 || !strings.Contains(got[1], "no such pool") {
		t.Errorf("journal %q", got)
	}
	if state := h.p.health.parts["hook for listed addresses"]; !strings.Contains(state, "no such pool") {
		t.Errorf("health %q", state)
	}
}

func TestListHookObserves(t *testing.T) {
	h := newHookRun(t, t.TempDir(), config.ModeObserve, "")
	on := enforce.AddressChange{Address: outgoing, Listed: true, Lists: []string{"spamcop"}, Exposure: 0.9}
	if got := h.wants(t, on); got != "" {
		t.Errorf("run while observing: %q", got)
	}
	h.wants(t, on)
	if diff := cmp.Diff([]string{"proposal: hook listed mode is observe: the program was not run"}, h.journal(t)); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

// While observing, each change is noted once, and from where the program was
// last told.
func TestListHookObservesChanges(t *testing.T) {
	dir := t.TempDir()
	on := enforce.AddressChange{Address: outgoing, Listed: true, Lists: []string{"spamcop"}, Exposure: 0.9}
	off := enforce.AddressChange{Address: outgoing}
	newHookRun(t, dir, config.ModeEnforce, "").wants(t, on)
	h := newHookRun(t, dir, config.ModeObserve, "")
	for _, c := range []enforce.AddressChange{on, off, off, on, on, off} {
		h.wants(t, c)
	}
	const not = " mode is observe: the program was not run"
	want := []string{"intent: hook listed ", "outcome: hook listed done", "proposal: hook clear" + not, "proposal: hook listed" + not, "proposal: hook clear" + not}
	if diff := cmp.Diff(want, h.journal(t)); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

// An address that the program was told is listed, and that nobody watches any
// more, is clear a day after the start.
func TestListHookForgotten(t *testing.T) {
	dir := t.TempDir()
	on := enforce.AddressChange{Address: outgoing, Listed: true, Lists: []string{"spamcop"}, Exposure: 0.9}
	h := newHookRun(t, dir, config.ModeEnforce, "")
	h.wants(t, on)
	h = newHookRun(t, dir, config.ModeEnforce, "")
	if got := h.unwatched(func(string) bool { return true }); len(got) > 0 {
		t.Errorf("watched, and yet %v", got)
	}
	want := map[string]enforce.AddressChange{outgoing: {Address: outgoing}}
	if diff := cmp.Diff(want, h.unwatched(func(string) bool { return false })); diff != "" {
		t.Errorf("not watched (-want +got):\n%s", diff)
	}
}

// What counts is what is confirmed; a list that is not believed for a while
// frees nobody.
func TestAddressChange(t *testing.T) {
	h := &listHook{exposure: 0.8}
	s := dnsbl.Address(netip.MustParseAddr(outgoing))
	on := func(weight int, confidence float64, tier dnsbl.Tier, stage dnsbl.Stage) dnsbl.Listing {
		return dnsbl.Listing{List: "l", Weight: weight, Confidence: confidence, Tier: tier, Stage: stage}
	}
	for _, tt := range []struct {
		name           string
		all            []dnsbl.Listing
		listed, change bool
	}{
		{"nothing", nil, false, true},
		{"clean", []dnsbl.Listing{on(0, 0, dnsbl.Act, dnsbl.NotListed)}, false, true},
		{"suspected", []dnsbl.Listing{on(100, 0.3, dnsbl.Act, dnsbl.Suspicious)}, false, true},
		{"listed", []dnsbl.Listing{on(90, 1, dnsbl.Act, dnsbl.OnList)}, true, true},
		{"listed a little", []dnsbl.Listing{on(35, 1, dnsbl.Warn, dnsbl.OnList)}, false, false},
		{"listed by one that is not believed now", []dnsbl.Listing{on(90, 0.5, dnsbl.Act, dnsbl.OnList)}, false, false},
		{"perhaps clean", []dnsbl.Listing{on(90, 0.7, dnsbl.Act, dnsbl.Leaving)}, false, false},
		{"on a list that only informs", []dnsbl.Listing{on(5, 1, dnsbl.Inform, dnsbl.OnList)}, false, true},
		{"on a list, and suspected on another", []dnsbl.Listing{on(45, 1, dnsbl.Act, dnsbl.OnList), on(100, 0.9, dnsbl.Act, dnsbl.Suspicious)}, false, false},
		{"on a list, and on one that only informs", []dnsbl.Listing{on(45, 1, dnsbl.Act, dnsbl.OnList), on(95, 1, dnsbl.Inform, dnsbl.OnList)}, false, false},
		{"on nothing but one that only informs, however much", []dnsbl.Listing{on(95, 1, dnsbl.Inform, dnsbl.OnList)}, false, true},
		{"suspected for sure", []dnsbl.Listing{on(100, 1, dnsbl.Act, dnsbl.Suspicious)}, false, true},
		{"exactly", []dnsbl.Listing{on(80, 1, dnsbl.Act, dnsbl.OnList)}, true, true},
	} {
		if c, ok := h.addressChange(s, tt.all); c.Listed != tt.listed || ok != tt.change {
			t.Errorf("%s: listed %t, change %t; want %t, %t", tt.name, c.Listed, ok, tt.listed, tt.change)
		}
	}
	domain, err := dnsbl.ParseSubject("shop.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := h.addressChange(domain, []dnsbl.Listing{on(95, 1, dnsbl.Act, dnsbl.OnList)}); ok {
		t.Error("a domain has no mail of its own to move")
	}
}
