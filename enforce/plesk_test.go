package enforce

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/enforce/paneltest"
	"github.com/vedetta-watch/vedetta/rules"
)

var (
	_ Switch    = (*Plesk)(nil)
	_ Passwords = pleskPasswords{}
)

func pleskHosting() paneltest.State {
	return paneltest.State{TellsLimit: true, Mailboxes: map[string]*paneltest.Mailbox{
		"alice@shop.test":   {Password: "Outgoing messages: 7", Limit: "50", Forwarding: true, Addresses: []string{"a&b=c@elsewhere.test", "d@elsewhere.test"}},
		"bob@shop.test":     {Limit: "-1"},
		"carol@shop.test":   {Limit: "default"},
		"stopped@shop.test": {Limit: "0"},
		"victim@other.test": {Limit: "50", Forwarding: true, Addresses: []string{"d@elsewhere.test"}},
	}}
}

func pleskOf(panel *paneltest.Panel) *Plesk {
	return &Plesk{Command: []string{panel.Program("plesk")}, Timeout: 30 * time.Second}
}

func TestPleskSwitch(t *testing.T) {
	for _, tt := range []struct {
		name  string
		entry Entry
		state func(*paneltest.State)
		want  func(*paneltest.State)
	}{
		{"limit", entry("alice@shop.test", rules.Block), nil, func(s *paneltest.State) { s.Mailboxes["alice@shop.test"].Limit = "0" }},
		{"unlimited", entry("bob@shop.test", rules.Reset), nil, func(s *paneltest.State) { s.Mailboxes["bob@shop.test"].Limit = "0" }},
		{"default", entry("carol@shop.test", rules.Block), nil, func(s *paneltest.State) { s.Mailboxes["carol@shop.test"].Limit = "0" }},
		{"stopped by the operator", entry("stopped@shop.test", rules.Block), nil, func(*paneltest.State) {}},
		{"not told, so configured", entry("carol@shop.test", rules.Block), func(s *paneltest.State) { s.TellsLimit = false },
			func(s *paneltest.State) { s.Mailboxes["carol@shop.test"].Limit = "0" }},
		{"forwarding", entry("forward:alice@shop.test", rules.Block), nil, func(s *paneltest.State) { s.Mailboxes["alice@shop.test"].Forwarding = false }},
		{"forwarding that is forgotten", entry("forward:alice@shop.test", rules.Block), func(s *paneltest.State) { s.ForgetsForwards = true },
			func(s *paneltest.State) {
				m := s.Mailboxes["alice@shop.test"]
				m.Forwarding, m.Addresses = false, nil
			}},
		{"no forwarding", entry("forward:bob@shop.test", rules.Block), nil, func(*paneltest.State) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			initial := func() paneltest.State {
				s := pleskHosting()
				if tt.state != nil {
					tt.state(&s)
				}
				return s
			}
			stopped := initial()
			tt.want(&stopped)
			panel := newPanel(t, initial())
			p := pleskOf(panel)
			p.Limit = "default"
			stopAndRelease(t, p, tt.entry, func(what string, want paneltest.State) {
				if diff := cmp.Diff(panelState(t, panel), want); diff != "" {
					t.Errorf("%s: got, want:\n%s", what, diff)
				}
			}, initial(), stopped)
		})
	}
}

func TestPleskCovers(t *testing.T) {
	p := &Plesk{}
	for _, tt := range []struct {
		subject string
		action  rules.Action
		want    bool
	}{
		{"alice@shop.test", rules.Throttle, false},
		{"alice@shop.test", rules.Hold, false}, // Plesk holds nothing
		{"alice@shop.test", rules.Block, true},
		{"forward:alice@shop.test", rules.Hold, false},
		{"forward:alice@shop.test", rules.Block, true},
		{"user:shop", rules.Block, false},
		{"script:/var/www/vhosts/shop.test/x.php", rules.Block, false},
	} {
		if got := p.Covers(entry(tt.subject, tt.action)); got != tt.want {
			t.Errorf("%s of %q: %v, want %v", tt.action, tt.subject, got, tt.want)
		}
	}
}

// TestPleskLimitNotTold stops no mailbox that could not be released.
func TestPleskLimitNotTold(t *testing.T) {
	state := pleskHosting()
	state.TellsLimit = false
	panel := newPanel(t, state)
	p := pleskOf(panel)
	for _, p.Limit = range []string{"", "a lot", "-2", "0x10", "1;id"} {
		if undo, err := p.Before(t.Context(), entry("alice@shop.test", rules.Block)); err == nil || !strings.Contains(err.Error(), "configure the limit") {
			t.Errorf("%q: undo %q, %v", p.Limit, undo, err)
		}
		if err := p.Clear(t.Context(), entry("alice@shop.test", rules.Block), ""); !errors.Is(err, ErrPanelUndo) {
			t.Errorf("%q: %v, want %v", p.Limit, err, ErrPanelUndo)
		}
	}
}

func TestPleskTrouble(t *testing.T) {
	for _, tt := range []struct {
		trouble     paneltest.Trouble
		before, set string // in the error; empty means that it goes well
	}{
		{paneltest.Fail, "the panel refused: ", "the panel refused: "},
		{paneltest.Hang, "no answer within", "no answer within"},
		{paneltest.Exit, "exit status 2: Can't locate", "exit status 2"},
		{paneltest.Garbage, "not about it", ""}, // --update says nothing that could be looked at but its status
		{paneltest.Nothing, "not about it", ""},
		{paneltest.Half, "only half of one", ""},
		{paneltest.OtherCall, "not about it", ""},
		{paneltest.Warnings, "", ""},
	} {
		t.Run(string(tt.trouble), func(t *testing.T) {
			state := pleskHosting()
			state.Trouble = tt.trouble
			p := pleskOf(newPanel(t, state))
			if tt.trouble == paneltest.Hang {
				p.Timeout = time.Second
			}
			e := entry("alice@shop.test", rules.Block)
			_, err := p.Before(t.Context(), e)
			for _, step := range []struct {
				what, want string
				err        error
			}{{"before", tt.before, err}, {"set", tt.set, p.Set(t.Context(), e)}} {
				if (step.err == nil) != (step.want == "") || step.err != nil && !strings.Contains(step.err.Error(), step.want) {
					t.Errorf("%s: %v, want %q", step.what, step.err, step.want)
				}
			}
		})
	}
}

func TestPleskAbsent(t *testing.T) {
	panel := newPanel(t, pleskHosting())
	p := pleskOf(panel)
	e := entry("absent@shop.test", rules.Block)
	_, err := p.Before(t.Context(), e)
	for what, err := range map[string]error{"before": err, "set": p.Set(t.Context(), e)} {
		if !errors.Is(err, ErrPanelRefused) || !strings.Contains(err.Error(), "Mailname 'absent@shop.test' doesn't exists") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestPleskPassword changes a password without an argument that holds it.
func TestPleskPassword(t *testing.T) {
	t.Setenv("PSA_PASSWORD", "not-this-one")
	panel := newPanel(t, pleskHosting())
	p := pleskOf(panel)
	if err := p.Passwords().Change(t.Context(), "alice@shop.test", newPassword); err != nil {
		t.Fatal(err)
	}
	want := pleskHosting()
	want.Mailboxes["alice@shop.test"].Password = newPassword
	if diff := cmp.Diff(panelState(t, panel), want); diff != "" {
		t.Error(diff)
	}
	wantCalls := [][]string{{"plesk", "bin", "mail", "--update", "alice@shop.test", "-passwd", ""}}
	if diff := cmp.Diff(panelCalls(t, panel), wantCalls); diff != "" {
		t.Error(diff)
	}
}

// TestPleskPasswordDirectly refuses to go through sudo, which drops the
// environment: Plesk would set an empty password.
func TestPleskPasswordDirectly(t *testing.T) {
	panel := newPanel(t, pleskHosting())
	p := pleskOf(panel)
	p.Command = []string{"env", "-i", panel.Program("plesk")}
	if p.Passwords().Covers("alice@shop.test") {
		t.Error("is covered")
	}
	if err := p.Passwords().Change(t.Context(), "alice@shop.test", newPassword); err == nil {
		t.Error("no error")
	}
	if calls := panelCalls(t, panel); len(calls) > 0 {
		t.Errorf("ran %q", calls)
	}
}

func TestPleskPasswordHangs(t *testing.T) {
	state := pleskHosting()
	state.Trouble = paneltest.Hang
	p := pleskOf(newPanel(t, state))
	p.Timeout = time.Second
	if err := p.Passwords().Change(t.Context(), "alice@shop.test", newPassword); !errors.Is(err, os.ErrDeadlineExceeded) && !strings.Contains(err.Error(), "deadline exceeded") {
		t.Error(err)
	}
}

func TestPleskPlan(t *testing.T) {
	p := &Plesk{}
	var got []string
	for _, subject := range []string{"alice@shop.test", "forward:alice@shop.test"} {
		got = append(got, p.Plan(entry(subject, rules.Block))...)
	}
	got = append(got, p.Passwords().Plan("alice@shop.test")...)
	want := []string{
		"plesk bin mail --update alice@shop.test -outgoing-messages-mbox-limit 0",
		"plesk bin mail --update alice@shop.test -forwarding false",
		"PSA_PASSWORD=<secret> plesk bin mail --update alice@shop.test -passwd ''",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
}

func FuzzPleskInfo(f *testing.F) {
	f.Add([]byte("Mailname:           alice\nDomain:             shop.test\nOutgoing messages:  50\n\nSUCCESS: Gathering information complete\n"))
	f.Add([]byte("Mailgroup:          true\nGroup member(s):    a@b.test c@d.test \nSUCCESS: x"))
	f.Add([]byte("Outgoing messages:  Default (50)\nOutgoing messages:  1\nSUCCESS:"))
	f.Fuzz(func(t *testing.T, out []byte) {
		info, complete := parsePleskInfo(out)
		if complete && !strings.Contains(string(out), "SUCCESS") {
			t.Error("complete without its last line")
		}
		if limit, err := info.limit(); err == nil && limit != "" && !validLimit(limit) {
			t.Errorf("limit %q", limit)
		}
		_, addresses, _ := info.forwarding()
		for _, a := range addresses {
			if !validPanelForward(a) {
				t.Errorf("address %q", a)
			}
		}
	})
}
