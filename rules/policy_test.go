package rules

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// withReset is a ladder with every rung, as an operator would write it who
// has passwords changed.
const withReset = `
rules:
  - name: hijacked-mailbox
    exempt: ["@partner.test"]
    ladder:
      - {do: observe, when: score >= 1}
      - {do: throttle, when: score >= 2, for: 1h}
      - {do: hold, when: score >= 3, for: 2d}
      - {do: block, when: score >= 4, for: 24h}
      - {do: reset, when: score >= 5}
`

func TestDecide(t *testing.T) {
	set := mustLoad(t, withReset)
	tests := []struct {
		name   string
		change func(*Finding, *Policy)
		want   []string // action, until when counted from the finding, enforced or why not
	}{
		{"below every rung", func(f *Finding, _ *Policy) { f.Score = 0.9 }, nil},
		{"observe", func(f *Finding, _ *Policy) { f.Score = 1 }, []string{"observe -"}},
		{"throttle", func(f *Finding, _ *Policy) { f.Score = 2 }, []string{"throttle 1h0m0s enforced"}},
		{"hold", func(f *Finding, _ *Policy) { f.Score = 3 }, []string{"hold 48h0m0s enforced"}},
		{"block", func(f *Finding, _ *Policy) { f.Score = 4 }, []string{"block 24h0m0s enforced"}},
		{"reset keeps the block", func(f *Finding, _ *Policy) {}, []string{"block until-released enforced", "reset until-released enforced"}},
		{"observing", func(f *Finding, p *Policy) { p.Mode = ModeObserve }, []string{"block until-released mode is observe", "reset until-released mode is observe"}},
		{"no password to reset", func(f *Finding, _ *Policy) { f.Class = "client" }, []string{"block 24h0m0s enforced"}},
		{"forwarder", func(f *Finding, _ *Policy) { f.Subject, f.Class = "forward:a@shop.test", "forward" }, []string{"block 24h0m0s enforced"}},
		{"backlog", func(f *Finding, _ *Policy) { f.Backlog = true }, []string{"block until-released backlog", "reset until-released backlog"}},
		{"backlog observes", func(f *Finding, _ *Policy) { f.Backlog, f.Score = true, 1 }, []string{"observe -"}},
		{"shared", func(f *Finding, _ *Policy) { f.Shared = true }, []string{"observe shared identity"}},
		{"shared and weak", func(f *Finding, _ *Policy) { f.Shared, f.Score = true, 1 }, []string{"observe -"}},
		{"no account", func(f *Finding, _ *Policy) { f.Subject, f.Class = "mx1", "" }, []string{"observe not an account"}},
		{"exempt", func(f *Finding, p *Policy) { p.Exempt = []string{"bob@shop.test", "Alice@Shop.test"} }, []string{"block until-released exempt", "reset until-released exempt"}},
		{"exempt and observed", func(f *Finding, p *Policy) { p.Exempt, f.Score = []string{"@shop.test"}, 1 }, []string{"observe exempt"}},
		{"exempt by the rule", func(f *Finding, _ *Policy) { f.Subject, f.Score = "a@partner.test", 4 }, []string{"block 24h0m0s exempt"}},
		{"exempt outlasts observing", func(f *Finding, p *Policy) { p.Mode, p.Exempt, f.Score = ModeObserve, []string{"@shop.test"}, 3 }, []string{"hold 48h0m0s exempt"}},
		{"exempt and shared", func(f *Finding, p *Policy) { p.Exempt, f.Shared = []string{"@shop.test"}, true }, []string{"observe exempt"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, p := someFinding(), &Policy{Set: set, Mode: ModeEnforce}
			tt.change(&f, p)
			var got []string
			for _, d := range allDecided(p, f) {
				got = append(got, inShort(d))
				if d.ID != DecisionID(f.ID, d.Action) || d.Finding != f.ID || d.Rule != f.Rule || d.Subject != f.Subject || !d.Time.Equal(f.Time) {
					t.Errorf("decision %+v is not about finding %+v", d, f)
				}
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("decisions (-got +want):\n%s", diff)
			}
		})
	}
}

// allDecided returns the decision about f, if any, and the reset behind it.
func allDecided(p *Policy, f Finding) (all []Decision) {
	if d, ok := p.Decide(f); ok {
		all = append(all, d)
	}
	if d, ok := p.Reset(f); ok {
		all = append(all, d)
	}
	return all
}

// inShort writes what a decision is, how long it lasts, and whether it is
// carried out or what the reason against it begins with.
func inShort(d Decision) string {
	s := d.Action.String()
	if d.Action > Observe {
		s += " " + termOf(d)
	}
	reason, _, _ := strings.Cut(d.HeldBack, ":")
	switch {
	case d.Enforce:
		reason = "enforced" + reason
	case reason == "":
		reason = "-"
	}
	return s + " " + reason
}

func TestDecisionSaysWhy(t *testing.T) {
	p := &Policy{Set: Shipped(), Mode: ModeEnforce}
	d, _ := p.Decide(someFinding())
	want := `five-countries, score 17.2, families 2, recipients 9: block when (score >= 16 && families >= 2 && foreign >= 2 && class != "forward") || hard != ""`
	if got := d.Why; got != want {
		t.Errorf("why:\n got %s\nwant %s", got, want)
	}
}

// A rung that could not tell does not hold, is told, and does not hide the
// rungs below it.
func TestConditionThatCannotTell(t *testing.T) {
	set := mustLoad(t, `
rules:
  - name: hijacked-mailbox
    ladder:
      - {do: observe, when: score >= 1}
      - {do: hold, when: score >= 2, for: 1h}
      - {do: block, when: recipients % messages == 0, for: 1h}
`)
	p, f := &Policy{Set: set, Mode: ModeEnforce}, someFinding()
	f.Messages = 0
	d, ok := p.Decide(f)
	if !ok || d.Action != Hold || !d.Enforce {
		t.Errorf("decided %+v, want the hold below", d)
	}
	const trouble = `block at own.yml:7 could not tell: condition "recipients % messages == 0": runtime error: integer divide by zero`
	if want := "five-countries, score 17.2, families 2, recipients 9: hold when score >= 2; " + trouble; d.Why != want {
		t.Errorf("why:\n got %s\nwant %s", d.Why, want)
	}
	f.Score = 0
	d, ok = p.Decide(f)
	if !ok || d.Action != Observe || d.Enforce || d.Why != trouble {
		t.Errorf("decided %+v, want to observe because of what could not be told", d)
	}
	f.Messages = 1
	f.Rcpts = 0
	if d, _ := p.Decide(f); d.Action != Block {
		t.Errorf("decided %+v, want the block once it can be told", d)
	}
}

func TestSeveralConditionsThatCannotTell(t *testing.T) {
	set := mustLoad(t, `
rules:
  - name: hijacked-mailbox
    ladder:
      - {do: observe, when: families % messages == 0}
      - {do: block, when: recipients % messages == 0, for: 1h}
`)
	f := someFinding()
	f.Messages = 0
	d, _ := (&Policy{Set: set}).Decide(f)
	want := `block at own.yml:6 could not tell: condition "recipients % messages == 0": runtime error: integer divide by zero; ` +
		`observe at own.yml:5 could not tell: condition "families % messages == 0": runtime error: integer divide by zero`
	if d.Why != want {
		t.Errorf("why:\n got %s\nwant %s", d.Why, want)
	}
}

// A finding that no rule answers is told and never dropped.
func TestDecideWithoutARule(t *testing.T) {
	for name, p := range map[string]*Policy{
		"zero policy": {},
		"empty set":   {Set: mustLoad(t, ""), Mode: ModeEnforce},
	} {
		d, ok := p.Decide(someFinding())
		if !ok || d.Action != Observe || d.Enforce || d.Why != `no rule answers "hijacked-mailbox"` {
			t.Errorf("%s: %+v, %v; want to observe", name, d, ok)
		}
		if d, ok := p.Reset(someFinding()); ok {
			t.Errorf("%s: %+v, want no reset", name, d)
		}
	}
}

func TestExempts(t *testing.T) {
	tests := []struct {
		entry, subject, class string
		want                  bool
	}{
		{"alice@shop.test", "alice@shop.test", "login", true},
		{"ALICE@shop.test", "alice@shop.test", "login", true},
		{"alice@shop.test", "malice@shop.test", "login", false},
		{"alice@shop.test", "forward:alice@shop.test", "forward", false},
		{"forward:alice@shop.test", "forward:alice@shop.test", "forward", true},
		{"@shop.test", "alice@shop.test", "login", true},
		{"@SHOP.test", "alice@shop.test", "login", true},
		{"@shop.test", "alice@my.shop.test", "login", false},
		{"@shop.test", "alice@myshop.test", "login", false},
		{"@shop.test", "forward:box@shop.test", "forward", true},
		{"@shop.test", "script:/home/u/x@shop.test", "script", false},
		{"@shop.test", "shop.test", "", false},
		{"script:/home/news/*", "script:/home/news/send.php", "script", true},
		{"script:/home/news/*", "script:/home/newsagent/send.php", "script", false},
		{"script:/home/News/a.php", "script:/home/news/a.php", "script", false},
		{"client:192.0.2.*", "client:192.0.2.7", "client", true},
		{"mx1.host.test", "mx1.host.test", "", true},
		{"*", "alice@shop.test", "login", false},
		{"@", "alice", "", false},
		{"", "", "", false},
	}
	for _, tt := range tests {
		f := Finding{Subject: tt.subject, Class: tt.class}
		if got := exempts(tt.entry, &f); got != tt.want {
			t.Errorf("%q exempts %q: %v, want %v", tt.entry, tt.subject, got, tt.want)
		}
	}
}

func TestCheckExempt(t *testing.T) {
	for _, entry := range []string{"alice@shop.test", "@shop.test", "script:/home/shop/*", "user:backup", "client:192.0.2.1"} {
		if err := CheckExempt(entry); err != nil {
			t.Errorf("%q: %v, want nothing", entry, err)
		}
	}
	for _, entry := range []string{"", "@", "*", "a*b", "@shop.*", " a", "a\n", "a\x00b"} {
		if err := CheckExempt(entry); err == nil {
			t.Errorf("%q is accepted", entry)
		}
	}
}

func TestModeText(t *testing.T) {
	type config struct{ Mode Mode }
	for _, mode := range []Mode{ModeObserve, ModeEnforce} {
		text, err := json.Marshal(config{mode})
		if err != nil {
			t.Fatal(err)
		}
		var got config
		if err := json.Unmarshal(text, &got); err != nil || got.Mode != mode {
			t.Errorf("%s: read back %v, %v; want %v", text, got.Mode, err, mode)
		}
	}
	var zero Mode
	if zero.String() != "observe" {
		t.Errorf("zero mode is %v, want observe", zero)
	}
	if err := zero.UnmarshalText([]byte("act")); err == nil || zero != ModeObserve {
		t.Errorf("act: %v, %v; want an error", zero, err)
	}
}

func BenchmarkDecide(b *testing.B) {
	p := &Policy{Set: Shipped(), Mode: ModeEnforce, Exempt: []string{"@news.test", "root@host.test", "script:/home/news/*"}}
	evidence := &Policy{Mode: ModeEnforce, Set: mustLoad(b, `
rules:
  - name: hijacked-mailbox
    ladder:
      - {do: observe, when: evidence("novelty") > 1}
      - {do: block, when: evidence("novelty") > 8 && evidence("rate") >= 4 && domain endsWith ".test", for: 1h}
`)}
	weak, strong := someFinding(), someFinding()
	weak.Score, weak.Hard = 6, ""
	for _, bb := range []struct {
		name    string
		policy  *Policy
		finding Finding
		want    Action
	}{
		{"observe", p, weak, Observe}, // the longest way down the ladder
		{"block", p, strong, Block},
		{"evidence", evidence, strong, Block},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d, _ := bb.policy.Decide(bb.finding); d.Action != bb.want {
					b.Fatalf("%+v, want %v", d, bb.want)
				}
			}
		})
	}
}

func TestDecideAllocatesLittle(t *testing.T) {
	p, f := &Policy{Set: Shipped(), Mode: ModeEnforce}, someFinding()
	f.Score, f.Hard = 6, ""
	allocs := testing.AllocsPerRun(100, func() {
		if _, ok := p.Decide(f); !ok {
			t.Error("nothing decided")
		}
	})
	if allocs > 20 {
		t.Errorf("%v allocations a decision, want at most 20", allocs)
	}
}

func TestAgeNeverNegative(t *testing.T) {
	f := someFinding()
	f.Since = f.Time.Add(time.Minute)
	if got := f.age(); got != 0 {
		t.Errorf("age of an episode that begins later is %v, want 0", got)
	}
	f.Since = time.Time{}
	if got := f.age(); got != 0 {
		t.Errorf("age without an onset is %v, want 0", got)
	}
}
