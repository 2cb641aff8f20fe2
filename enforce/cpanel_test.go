package enforce

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/enforce/paneltest"
	"github.com/vedetta-watch/vedetta/rules"
)

// The test binary is also the panels' commands.
var _ = paneltest.Act()

var (
	_ Switch    = (*CPanel)(nil)
	_ Passwords = cpanelPasswords{}
)

const panelToken = "U7HMR63FHY282DQZ4H5BIH16JLYSO01M"

// hostingState is a server with two customers, a reseller, and one who owns
// itself.
func hostingState() paneltest.State {
	return paneltest.State{
		Token: panelToken,
		Accounts: map[string]*paneltest.Account{
			"shop": {Owner: "root"}, "other": {Owner: "bigres"}, "bigres": {Owner: "root"}, "selfres": {Owner: "selfres"}, "root": {Owner: "root"},
		},
		Resellers: []string{"bigres"},
		Domains: map[string]string{
			"shop.test": "shop", "other.test": "other", "reseller.test": "bigres", "server.test": "root", "nobodys.test": "nobody",
		},
		Mailboxes: map[string]*paneltest.Mailbox{
			"alice@shop.test": {Password: "old-password"}, "alice2@shop.test": {Password: "old-password"}, "bob+x@shop.test": {},
			"victim@other.test": {Password: "old-password"}, "sales@reseller.test": {}, "admin@server.test": {},
		},
		Forwards: []paneltest.Forward{
			{Dest: "alice@shop.test", Forward: "alice@elsewhere.test"},
			{Dest: "alice@shop.test", Forward: "alice@shop.test"},
			{Dest: "alice@shop.test", Forward: "|/home/shop/reader.pl"},
			{Dest: "alice@shop.test", Forward: "a&forwarder=alice%40elsewhere.test=b+c@evil.test"},
			{Dest: "alice@shop.test", Forward: ":fail: No such person"},
			{Dest: "alice2@shop.test", Forward: "alice@elsewhere.test"},
			{Dest: "victim@other.test", Forward: "alice@elsewhere.test"},
		},
	}
}

func newPanel(t testing.TB, state paneltest.State) *paneltest.Panel {
	t.Helper()
	panel, err := paneltest.New(t.TempDir(), state)
	if err != nil {
		t.Fatal(err)
	}
	return panel
}

func panelState(t testing.TB, panel *paneltest.Panel) paneltest.State {
	t.Helper()
	s, err := panel.State()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func panelCalls(t testing.TB, panel *paneltest.Panel) [][]string {
	t.Helper()
	calls, err := panel.Calls()
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

// byCommand is a client that runs the panel's commands.
func byCommand(panel *paneltest.Panel) *CPanel {
	return &CPanel{
		UAPI: []string{panel.Program("uapi")}, WHMAPI: []string{panel.Program("whmapi1")},
		ScriptOwner: func(path string) string { return strings.Split(path+"///", "/")[2] },
		Timeout:     30 * time.Second,
	}
}

// byHTTPS is a client that calls WHM.
func byHTTPS(t testing.TB, panel *paneltest.Panel) *CPanel {
	server := panel.Serve()
	t.Cleanup(server.Close)
	p := byCommand(panel)
	p.UAPI, p.WHMAPI, p.URL, p.Token = []string{"/nonexistent"}, []string{"/nonexistent"}, server.URL, func() string { return panelToken }
	p.RootCAs = x509.NewCertPool()
	p.RootCAs.AddCert(server.Certificate())
	return p
}

// eachTransport runs a test with a panel of its own by each way to it.
func eachTransport(t *testing.T, state func() paneltest.State, test func(*testing.T, *paneltest.Panel, *CPanel)) {
	overCommands(t, state, test)
	overHTTPS(t, state, test)
}

// overCommands starts a process for each call, which is not for large tables.
func overCommands(t *testing.T, state func() paneltest.State, test func(*testing.T, *paneltest.Panel, *CPanel)) {
	t.Run("commands", func(t *testing.T) {
		panel := newPanel(t, state())
		test(t, panel, byCommand(panel))
	})
}

func overHTTPS(t *testing.T, state func() paneltest.State, test func(*testing.T, *paneltest.Panel, *CPanel)) {
	t.Run("https", func(t *testing.T) {
		panel := newPanel(t, state())
		test(t, panel, byHTTPS(t, panel))
	})
}

// overUserDomains looks owners up in cPanel's list of domains.
func overUserDomains(t *testing.T, state func() paneltest.State, test func(*testing.T, *paneltest.Panel, *CPanel)) {
	t.Run("userdomains", func(t *testing.T) {
		panel := newPanel(t, state())
		p := byCommand(panel)
		var err error
		if p.UserDomains, err = panel.UserDomains(); err != nil {
			t.Fatal(err)
		}
		test(t, panel, p)
	})
}

func entry(subject string, action rules.Action) Entry {
	return Entry{Subject: subject, Logins: []string{subject}, Action: action}
}

// TestPanelSwitch stops and releases each kind of account, twice each, and
// looks at all that is on the panel.
func TestPanelSwitch(t *testing.T) {
	box := func(s *paneltest.State) *paneltest.Mailbox { return s.Mailboxes["alice@shop.test"] }
	for _, tt := range []struct {
		name  string
		entry Entry
		setup func(*CPanel)
		was   func(*paneltest.State) // what the operator did before us
		want  func(*paneltest.State) // what is stopped
	}{
		{"block", entry("alice@shop.test", rules.Block), nil, nil, func(s *paneltest.State) { box(s).Suspended = true }},
		{"reset", entry("alice@shop.test", rules.Reset), nil, nil, func(s *paneltest.State) { box(s).Suspended = true }},
		{"hold", entry("alice@shop.test", rules.Hold), nil, nil, func(s *paneltest.State) { box(s).Held = true }},
		{"block and login", entry("alice@shop.test", rules.Block), func(p *CPanel) { p.SuspendLogin = true }, nil,
			func(s *paneltest.State) { box(s).Suspended, box(s).NoLogin = true, true }},
		{"the operator suspended it before", entry("alice@shop.test", rules.Block), func(p *CPanel) { p.SuspendLogin = true },
			func(s *paneltest.State) { box(s).Suspended = true }, func(s *paneltest.State) { box(s).NoLogin = true }},
		{"the operator held it before", entry("alice@shop.test", rules.Hold), nil,
			func(s *paneltest.State) { box(s).Held = true }, func(s *paneltest.State) {}},
		{"a plus sign", entry("bob+x@shop.test", rules.Block), nil, nil, func(s *paneltest.State) { s.Mailboxes["bob+x@shop.test"].Suspended = true }},
		{"a reseller's mailbox", entry("sales@reseller.test", rules.Block), nil, nil, func(s *paneltest.State) { s.Mailboxes["sales@reseller.test"].Suspended = true }},
		{"account", entry("user:shop", rules.Block), nil, nil, func(s *paneltest.State) { s.Accounts["shop"].Suspended = true }},
		{"account held", entry("user:shop", rules.Hold), nil, nil, func(s *paneltest.State) { s.Accounts["shop"].Held = true }},
		{"account suspended before", entry("user:shop", rules.Block), nil, func(s *paneltest.State) { s.Accounts["shop"].Suspended = true }, func(*paneltest.State) {}},
		{"script", entry("script:/home/shop/public_html/x.php", rules.Block), nil, nil, func(s *paneltest.State) { s.Accounts["shop"].Suspended = true }},
		{"forwarding", entry("forward:alice@shop.test", rules.Block), nil, nil, func(s *paneltest.State) {
			s.Forwards = slices.DeleteFunc(s.Forwards, func(f paneltest.Forward) bool {
				return f.Dest == "alice@shop.test" && (f.Forward == "alice@elsewhere.test" || strings.HasPrefix(f.Forward, "a&"))
			})
		}},
		{"no forwarding", entry("forward:bob+x@shop.test", rules.Block), nil, nil, func(*paneltest.State) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, already := range []bool{false, true} {
				initial := func() paneltest.State {
					s := hostingState()
					s.AlreadyIsError = already
					if tt.was != nil {
						tt.was(&s)
					}
					return s
				}
				test := func(t *testing.T, panel *paneltest.Panel, p *CPanel) {
					if tt.setup != nil {
						tt.setup(p)
					}
					stopped := initial()
					tt.want(&stopped)
					stopAndRelease(t, p, tt.entry, func(what string, want paneltest.State) {
						if diff := cmp.Diff(sortedForwards(panelState(t, panel)), sortedForwards(want)); diff != "" {
							t.Errorf("%s: got, want:\n%s", what, diff)
						}
					}, initial(), stopped)
				}
				overHTTPS(t, initial, test)
				switch {
				case already:
				case tt.name == "block and login":
					overUserDomains(t, initial, test)
				case tt.name == "a plus sign", tt.name == "account held", tt.name == "forwarding":
					overCommands(t, initial, test)
				}
			}
		})
	}
}

// stopAndRelease does each step twice, with a check after it.
func stopAndRelease(t *testing.T, s Switch, e Entry, check func(string, paneltest.State), before, stopped paneltest.State) {
	t.Helper()
	ctx := t.Context()
	if !s.Covers(e) {
		t.Fatal("is not covered")
	}
	undo, err := s.Before(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	check("before", before)
	for _, what := range []string{"set", "set again"} {
		if err := s.Set(ctx, e); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		check(what, stopped)
	}
	for _, what := range []string{"clear", "clear again"} {
		if err := s.Clear(ctx, e, undo); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		check(what, before)
	}
}

func sortedForwards(s paneltest.State) paneltest.State {
	slices.SortFunc(s.Forwards, func(a, b paneltest.Forward) int { return strings.Compare(a.Dest+a.Forward, b.Dest+b.Forward) })
	return s
}

// TestCPanelClearWithoutUndo releases what can be released when Before's
// answer is lost, and says so when it cannot.
func TestCPanelClearWithoutUndo(t *testing.T) {
	eachTransport(t, hostingState, func(t *testing.T, panel *paneltest.Panel, p *CPanel) {
		p.SuspendLogin = true
		for _, e := range []Entry{entry("alice@shop.test", rules.Block), entry("user:shop", rules.Hold)} {
			if err := errors.Join(p.Set(t.Context(), e), p.Clear(t.Context(), e, "")); err != nil {
				t.Error(err)
			}
		}
		for _, undo := range []string{"", "garbage", `{"forwards":["x@y.test\n"]}`} {
			if err := p.Clear(t.Context(), entry("forward:alice@shop.test", rules.Block), undo); !errors.Is(err, ErrPanelUndo) {
				t.Errorf("undo %q: %v, want %v", undo, err, ErrPanelUndo)
			}
		}
		if diff := cmp.Diff(panelState(t, panel), hostingState()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestCPanelProtected never touches root, the system, resellers, or domains
// whose owner is not known.
func TestCPanelProtected(t *testing.T) {
	for _, tt := range []struct {
		subject string
		want    string // in the error
	}{
		{"user:root", ErrPanelProtected.Error()},
		{"user:nobody", ErrPanelProtected.Error()},
		{"user:mailnull", ErrPanelProtected.Error()},
		{"user:bigres", "is a reseller"},
		{"user:selfres", "owns itself"},
		{"user:absent", "does not exist"},
		{"script:/home/root/x.php", ErrPanelProtected.Error()},
		{"script:/home/bigres/x.php", "is a reseller"},
		{"script:/", "owner is not known"},
		{"admin@server.test", ErrPanelProtected.Error()},
		{"x@nobodys.test", ErrPanelProtected.Error()},
		{"forward:admin@server.test", ErrPanelProtected.Error()},
		{"alice@unknown.test", "owner of unknown.test"},
		{"uid:1000", "cannot stop"},
		{"client:192.0.2.1", "cannot stop"},
		{"alice", "not an address"},
	} {
		t.Run(tt.subject, func(t *testing.T) {
			test := func(t *testing.T, panel *paneltest.Panel, p *CPanel) {
				e := entry(tt.subject, rules.Block)
				_, err := p.Before(t.Context(), e)
				for what, err := range map[string]error{"before": err, "set": p.Set(t.Context(), e), "clear": p.Clear(t.Context(), e, "")} {
					if err == nil || !strings.Contains(err.Error(), tt.want) && !(what == "clear" && errors.Is(err, ErrPanelUndo)) {
						t.Errorf("%s: %v, want %q", what, err, tt.want)
					}
				}
				if diff := cmp.Diff(panelState(t, panel), hostingState()); diff != "" {
					t.Error(diff)
				}
			}
			overHTTPS(t, hostingState, test)
			if strings.Contains(tt.subject, "@") || tt.subject == "user:bigres" {
				overUserDomains(t, hostingState, test)
			}
		})
	}
}

func TestCPanelCovers(t *testing.T) {
	p := &CPanel{}
	for _, tt := range []struct {
		subject string
		action  rules.Action
		want    bool
	}{
		{"alice@shop.test", rules.Observe, false},
		{"alice@shop.test", rules.Throttle, false},
		{"alice@shop.test", rules.Hold, true},
		{"alice@shop.test", rules.Reset, true},
		{"forward:alice@shop.test", rules.Hold, false},
		{"forward:alice@shop.test", rules.Block, true},
		{"user:shop", rules.Hold, true},
		{"user:root", rules.Block, false},
		{"script:/home/shop/x.php", rules.Block, false}, // without an owner
		{"", rules.Block, false},
	} {
		if got := p.Covers(entry(tt.subject, tt.action)); got != tt.want {
			t.Errorf("%s of %q: %v, want %v", tt.action, tt.subject, got, tt.want)
		}
		if plan := p.Plan(entry(tt.subject, tt.action)); (len(plan) > 0) != tt.want {
			t.Errorf("%s of %q: plan %q", tt.action, tt.subject, plan)
		}
	}
}

// TestPanelRefuses expects an error that says what is wrong, in time, with
// nothing changed, from a panel in each kind of trouble.
func TestPanelRefuses(t *testing.T) {
	for _, tt := range []struct {
		trouble    paneltest.Trouble
		cmd, https string // in the error; empty means that it goes well
	}{
		{paneltest.Fail, "the panel refused: The disk quota of ?/var/cpanel? is exceeded.", "the panel refused: The disk quota"},
		{paneltest.Hang, "no answer within", "deadline exceeded"},
		{paneltest.Garbage, "not JSON", "not JSON"},
		{paneltest.Nothing, "not JSON", "not JSON"},
		{paneltest.Half, "half", "half"},
		{paneltest.OtherCall, "to another call", "to another call"},
		{paneltest.Exit, "exit status 2: Can't locate", ""},
		{paneltest.Warnings, "", ""},
		{paneltest.Flood, "no answer within", "longer than"},
		{paneltest.Unauthorize, "", "HTTP 401: the panel refused: Access denied"},
		{paneltest.Broken, "", "HTTP 500"},
		{paneltest.Redirect, "", "HTTP 302: a redirect is not followed"},
	} {
		t.Run(string(tt.trouble), func(t *testing.T) {
			state := func() paneltest.State {
				s := hostingState()
				s.Trouble = tt.trouble
				return s
			}
			eachTransport(t, state, func(t *testing.T, panel *paneltest.Panel, p *CPanel) {
				want := tt.cmd
				if p.URL != "" {
					want = tt.https
				}
				if tt.trouble == paneltest.Hang || tt.trouble == paneltest.Flood && p.URL == "" {
					p.Timeout = 500 * time.Millisecond
				}
				e := entry("alice@shop.test", rules.Block)
				_, err := p.Before(t.Context(), e)
				for what, err := range map[string]error{"before": err, "set": p.Set(t.Context(), e)} {
					switch {
					case want == "" && err != nil:
						t.Errorf("%s: %v", what, err)
					case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
						t.Errorf("%s: %v, want %q", what, err, want)
					case err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000):
						t.Errorf("%s: is not one line: %q", what, err)
					}
				}
				if want != "" {
					if diff := cmp.Diff(panelState(t, panel), state()); diff != "" {
						t.Error(diff)
					}
				}
			})
		})
	}
}

func TestCPanelCancelled(t *testing.T) {
	eachTransport(t, hostingState, func(t *testing.T, panel *paneltest.Panel, p *CPanel) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Set(ctx, entry("alice@shop.test", rules.Block)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want %v", err, context.Canceled)
		}
	})
}

// TestCPanelHTTPS wants the certificate vouched for, and never sends the token
// elsewhere.
func TestCPanelHTTPS(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*CPanel)
		want   string
	}{
		{"not trusted", func(p *CPanel) { p.RootCAs = nil }, "certificate"},
		{"another's certificate", func(p *CPanel) { p.RootCAs = x509.NewCertPool() }, "certificate"},
		{"another name", func(p *CPanel) { p.URL = strings.Replace(p.URL, "127.0.0.1", "localhost", 1) }, "certificate"},
		{"plain http", func(p *CPanel) { p.URL = strings.Replace(p.URL, "https", "http", 1) }, "not of the form"},
		{"password in the URL", func(p *CPanel) { p.URL = strings.Replace(p.URL, "://", "://root:"+panelToken+"@", 1) }, "not of the form"},
		{"query in the URL", func(p *CPanel) { p.URL += "/?user=root" }, "not of the form"},
		{"no token", func(p *CPanel) { p.Token = nil }, "no WHM API token"},
		{"empty token", func(p *CPanel) { p.Token = func() string { return "" } }, "no WHM API token"},
		{"wrong token", func(p *CPanel) { p.Token = func() string { return "wrong" } }, "HTTP 403: the panel refused: Access denied (is the token right"},
		{"another user's token", func(p *CPanel) { p.User = "shop" }, "HTTP 403"},
		{"token with a newline", func(p *CPanel) { p.Token = func() string { return panelToken + "\nX-Injected: 1" } }, "invalid header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			panel := newPanel(t, hostingState())
			p := byHTTPS(t, panel)
			tt.change(p)
			e := entry("alice@shop.test", rules.Block)
			err := p.Set(t.Context(), e)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			for _, text := range append(p.Plan(e), fmt.Sprint(err), fmt.Sprintf("%+v", p), p.Name()) {
				if strings.Contains(text, panelToken) && tt.name != "password in the URL" {
					t.Errorf("shows the token: %s", text)
				}
			}
			if diff := cmp.Diff(panelState(t, panel), hostingState()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPanelPlan compares what is planned with what is run.
func TestPanelPlan(t *testing.T) {
	for _, tt := range []struct {
		entry Entry
		want  []string
	}{
		{entry("alice@shop.test", rules.Block), []string{
			"whmapi1 --output=json getdomainowner domain=shop.test",
			"uapi --user={owner} --output=json Email suspend_outgoing email=alice@shop.test",
			"uapi --user={owner} --output=json Email suspend_login email=alice@shop.test",
		}},
		{entry("bob+x@shop.test", rules.Hold), []string{
			"whmapi1 --output=json getdomainowner domain=shop.test",
			"uapi --user={owner} --output=json Email hold_outgoing email=bob%2Bx@shop.test",
		}},
		{entry("user:shop", rules.Block), []string{
			"whmapi1 --output=json accountsummary user=shop",
			"whmapi1 --output=json listresellers",
			"whmapi1 --output=json suspend_outgoing_email user=shop",
		}},
		{entry("forward:alice2@shop.test", rules.Block), []string{
			"whmapi1 --output=json getdomainowner domain=shop.test",
			"uapi --user={owner} --output=json Email list_forwarders domain=shop.test",
			"uapi --user={owner} --output=json Email delete_forwarder address=alice2@shop.test forwarder={address}",
		}},
	} {
		t.Run(tt.entry.Subject, func(t *testing.T) {
			panel := newPanel(t, hostingState())
			p := byCommand(panel)
			p.SuspendLogin = true
			var plan, ran []string
			for _, line := range p.Plan(tt.entry) {
				plan = append(plan, strings.ReplaceAll(line, filepath.Dir(panel.Program("uapi"))+"/", ""))
			}
			if diff := cmp.Diff(plan, tt.want); diff != "" {
				t.Error(diff)
			}
			if err := p.Set(t.Context(), tt.entry); err != nil {
				t.Fatal(err)
			}
			for _, call := range panelCalls(t, panel) {
				line := strings.Join(call, " ")
				line = strings.Replace(line, "--user=shop", "--user={owner}", 1)
				ran = append(ran, strings.Replace(line, "forwarder=alice@elsewhere.test", "forwarder={address}", 1))
			}
			if diff := cmp.Diff(ran, tt.want); diff != "" {
				t.Error("ran, want:", diff)
			}
		})
	}
}

func TestCPanelPlanHTTPS(t *testing.T) {
	p := &CPanel{URL: "https://mx1.hosting.test:2087/", Token: func() string { return panelToken }}
	got := append(p.Plan(entry("alice@shop.test", rules.Block)), p.Passwords().Plan("alice@shop.test")...)
	want := []string{
		"POST https://mx1.hosting.test:2087/json-api/getdomainowner api.version=1 domain=shop.test",
		"POST https://mx1.hosting.test:2087/json-api/cpanel cpanel_jsonapi_user={owner} cpanel_jsonapi_apiversion=3 cpanel_jsonapi_module=Email cpanel_jsonapi_func=suspend_outgoing email=alice@shop.test",
		"POST https://mx1.hosting.test:2087/json-api/getdomainowner api.version=1 domain=shop.test",
		"POST https://mx1.hosting.test:2087/json-api/cpanel cpanel_jsonapi_user={owner} cpanel_jsonapi_apiversion=3 cpanel_jsonapi_module=Email cpanel_jsonapi_func=passwd_pop email=alice domain=shop.test password=<secret>",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
}

const newPassword = `n3w&password=1+%22"'<x>`

func TestCPanelPassword(t *testing.T) {
	panel := newPanel(t, hostingState())
	p := byHTTPS(t, panel)
	if !p.Passwords().Covers("alice@shop.test") {
		t.Fatal("is not covered")
	}
	if err := p.Passwords().Change(t.Context(), "alice@shop.test", newPassword); err != nil {
		t.Fatal(err)
	}
	want := hostingState()
	want.Mailboxes["alice@shop.test"].Password = newPassword
	if diff := cmp.Diff(panelState(t, panel), want); diff != "" {
		t.Error(diff)
	}
	for _, call := range panelCalls(t, panel) {
		if call[0] != "POST" || strings.Contains(call[1], "pass") || strings.Contains(call[1], "?") {
			t.Errorf("%q %q", call[0], call[1])
		}
	}
}

// TestCPanelPasswordNotInArguments changes no password by the commands.
func TestCPanelPasswordNotInArguments(t *testing.T) {
	panel := newPanel(t, hostingState())
	p := byCommand(panel)
	if p.Passwords().Covers("alice@shop.test") || p.Passwords().Plan("alice@shop.test") != nil {
		t.Error("is covered without HTTPS")
	}
	if err := p.Passwords().Change(t.Context(), "alice@shop.test", newPassword); err == nil || !strings.Contains(err.Error(), "need WHM's URL") {
		t.Error(err)
	}
	if calls := panelCalls(t, panel); len(calls) > 0 {
		t.Errorf("ran %q", calls)
	}
}

// TestPanelPasswordHidden has panels repeat the password in what they refuse
// it with.
func TestPanelPasswordHidden(t *testing.T) {
	for _, trouble := range []paneltest.Trouble{"", paneltest.Fail, paneltest.Garbage, paneltest.Half, paneltest.Broken, paneltest.Exit} {
		for _, password := range []string{`weakling"<&'%20+x`, "weakling" + strings.Repeat("x", 200)} {
			state := hostingState()
			state.Trouble = trouble
			panel := newPanel(t, state)
			plesk := &Plesk{Command: []string{panel.Program("plesk")}}
			for _, p := range []Passwords{byHTTPS(t, panel).Passwords(), plesk.Passwords()} {
				err := p.Change(t.Context(), "alice@shop.test", password)
				if err == nil && trouble == "" {
					t.Errorf("%s takes %q", p.Name(), password)
				}
				if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, password) || strings.Contains(text, "weakling") {
					t.Errorf("%s, %s: shows the password: %s", p.Name(), trouble, text)
				}
			}
		}
	}
}

func TestPanelPasswordOdd(t *testing.T) {
	panel := newPanel(t, hostingState())
	plesk := &Plesk{Command: []string{panel.Program("plesk")}}
	for _, p := range []Passwords{byHTTPS(t, panel).Passwords(), plesk.Passwords()} {
		for _, password := range []string{"", "short", "new\npassword", "new\x00password", "new password", "neu\u202epasswort", strings.Repeat("x", 10<<10)} {
			if err := p.Change(t.Context(), "alice@shop.test", password); !errors.Is(err, ErrUnchanged) {
				t.Errorf("%s, %.20q: %v, want %v", p.Name(), password, err, ErrUnchanged)
			}
		}
	}
	if calls := panelCalls(t, panel); len(calls) > 0 {
		t.Errorf("called %q", calls)
	}
}

// TestPanelPasswordUnchanged says that a password is the old one exactly when
// the panel was not asked, or did not let us in.
func TestPanelPasswordUnchanged(t *testing.T) {
	for _, tt := range []struct {
		trouble   paneltest.Trouble
		account   string
		unchanged bool
	}{
		{"", "alice@unknown.test", true},
		{"", "absent@shop.test", false},
		{paneltest.Unauthorize, "alice@shop.test", true},
		{paneltest.Redirect, "alice@shop.test", true},
		{paneltest.Broken, "alice@shop.test", false},
		{paneltest.Half, "alice@shop.test", false},
	} {
		state := hostingState()
		state.Trouble = tt.trouble
		panel := newPanel(t, state)
		p := byHTTPS(t, panel)
		var err error
		if p.UserDomains, err = panel.UserDomains(); err != nil { // so that the first request is the one
			t.Fatal(err)
		}
		err = p.Passwords().Change(t.Context(), tt.account, newPassword)
		if err == nil || errors.Is(err, ErrUnchanged) != tt.unchanged {
			t.Errorf("%s, %s: %v; unchanged should be %v", tt.trouble, tt.account, err, tt.unchanged)
		}
	}
	for command, unchanged := range map[string]bool{"/nonexistent/plesk": true, "/bin/false": false} {
		err := (&Plesk{Command: []string{command}}).Passwords().Change(t.Context(), "alice@shop.test", newPassword)
		if err == nil || errors.Is(err, ErrUnchanged) != unchanged {
			t.Errorf("%s: %v; unchanged should be %v", command, err, unchanged)
		}
	}
}

// hostilePanelNames are account names that somebody might bring into our logs.
var hostilePanelNames = []string{
	"-alice@shop.test", "--user=root", "--user=root@shop.test", "alice@shop.test&email=victim@other.test",
	"alice@shop.test email=victim@other.test", "alice@shop.test\nemail=victim@other.test", "alice@shop.test\x00victim@other.test",
	"alice%40shop.test", "alice@shop.test%26email=victim%40other.test", `"alice"@shop.test`, `alice'; touch /tmp/x; '@shop.test`,
	"$(id)@shop.test", "`id`@shop.test", "alice@shop.test;id", "*@shop.test", "al?ce@shop.test", "alice@*", "../alice@shop.test",
	"alice@shop.test@other.test", "alice@other.test/../shop.test", "ali\u202ece@shop.test", "älice@shop.test", "alice@shop.test\u202e",
	strings.Repeat("a", 10<<10) + "@shop.test", "alice@" + strings.Repeat("a.", 5<<10) + "test", "@shop.test", "alice@", "@", "", " ",
	"alice@shop.test ", "alice @shop.test", "{owner}@shop.test", "alice@shop", "alice@-shop.test", "|id@shop.test", "alice@shop.test,victim@other.test",
}

// TestPanelHostile hands hostile names to everything, as every kind of account:
// nothing may be called, whatever Covers said.
func TestPanelHostile(t *testing.T) {
	panel := newPanel(t, hostingState())
	commands, https := byCommand(panel), byHTTPS(t, panel)
	domains, err := panel.UserDomains()
	if err != nil {
		t.Fatal(err)
	}
	withFile := byCommand(panel)
	withFile.UserDomains = domains
	plesk := &Plesk{Command: []string{panel.Program("plesk")}, Limit: "default"}
	for _, name := range hostilePanelNames {
		for _, kind := range []string{"", "forward:", "user:", "script:/home/"} {
			e := entry(kind+name, rules.Block)
			for _, s := range []Switch{commands, withFile, https, plesk} {
				if s.Covers(e) || s.Plan(e) != nil {
					t.Errorf("%s covers %.80q", s.Name(), e.Subject)
				}
				_, err := s.Before(t.Context(), e)
				for what, err := range map[string]error{"before": err, "set": s.Set(t.Context(), e), "clear": s.Clear(t.Context(), e, `{"limit":"default"}`)} {
					if err == nil || strings.ContainsAny(err.Error(), "\n\x00\u202e") || len(err.Error()) > 1000 {
						t.Errorf("%s, %s of %.80q: %.1000q", s.Name(), what, e.Subject, fmt.Sprint(err))
					}
				}
			}
			for _, p := range []Passwords{https.Passwords(), commands.Passwords(), plesk.Passwords()} {
				if p.Covers(e.Subject) || p.Plan(e.Subject) != nil || p.Change(t.Context(), e.Subject, "new-password") == nil {
					t.Errorf("%s takes %.80q", p.Name(), e.Subject)
				}
			}
		}
	}
	if calls := panelCalls(t, panel); len(calls) > 0 {
		t.Errorf("called %q", calls)
	}
	if diff := cmp.Diff(panelState(t, panel), hostingState()); diff != "" {
		t.Error(diff)
	}
}

// TestCPanelArgument hands hostile values to the commands past all checks:
// each stays one argument, and comes out at the other end as it went in.
func TestCPanelArgument(t *testing.T) {
	for _, value := range hostilePanelNames {
		argv := byCommandLine(value)
		if len(argv) != 6 || !strings.HasPrefix(argv[5], "email=") || strings.ContainsAny(argv[5][6:], "&= \n\x00'\"$`;") {
			t.Errorf("%.80q becomes %.200q", value, argv)
		}
	}
	eachTransport(t, hostingState, func(t *testing.T, panel *paneltest.Panel, p *CPanel) {
		for _, value := range hostilePanelNames[:20] {
			err := p.ask(t.Context(), cpanelCall{user: "shop", function: "suspend_outgoing", params: []cpanelParam{{"email", value}}}, nil)
			if err == nil {
				t.Errorf("%.80q: no error", value)
			}
		}
		if diff := cmp.Diff(panelState(t, panel), hostingState()); diff != "" {
			t.Error(diff)
		}
	})
}

func byCommandLine(value string) []string {
	return (&CPanel{}).argv(cpanelCall{user: "shop", function: "suspend_outgoing", params: []cpanelParam{{"email", value}}})
}

// TestPanelFakeIsStrict keeps the fake from accepting what is not documented.
func TestPanelFakeIsStrict(t *testing.T) {
	email := []cpanelParam{{"email", "alice@shop.test"}}
	eachTransport(t, hostingState, func(t *testing.T, panel *paneltest.Panel, p *CPanel) {
		for name, call := range map[string]cpanelCall{
			"unknown function":    {user: "shop", function: "suspend_everything", params: email},
			"no parameter":        {user: "shop", function: "suspend_outgoing"},
			"unknown parameter":   {user: "shop", function: "suspend_outgoing", params: append(email, cpanelParam{"force", "1"})},
			"wrong user":          {user: "other", function: "suspend_outgoing", params: email},
			"no such user":        {user: "absent", function: "suspend_outgoing", params: email},
			"WHM, unknown":        {function: "suspend_everything"},
			"WHM, no parameter":   {function: "suspend_outgoing_email"},
			"WHM, unknown one":    {function: "listresellers", params: email},
			"WHM, root":           {function: "suspend_outgoing_email", params: []cpanelParam{{"user", "root"}}},
			"UAPI's asked of WHM": {function: "suspend_outgoing", params: email},
		} {
			if err := p.ask(t.Context(), call, nil); !errors.Is(err, ErrPanelRefused) {
				t.Errorf("%s: %v, want %v", name, err, ErrPanelRefused)
			}
		}
		if diff := cmp.Diff(panelState(t, panel), hostingState()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCPanelConcurrently(t *testing.T) {
	state := hostingState()
	for i := range 8 {
		state.Mailboxes[fmt.Sprintf("box%d@shop.test", i)] = &paneltest.Mailbox{}
	}
	panel := newPanel(t, state)
	p := byHTTPS(t, panel)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			e := entry(fmt.Sprintf("box%d@shop.test", i), rules.Block)
			undo, err := p.Before(t.Context(), e)
			if err := errors.Join(err, p.Set(t.Context(), e), p.Clear(t.Context(), e, undo)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff(panelState(t, panel), state); diff != "" {
		t.Error(diff)
	}
}

func TestPanelOwnerIn(t *testing.T) {
	const list = "shop.test: shop\nsub.shop.test: shop\nOther.Test: other\ntwice.test: one\ntwice.test: two\nodd.test\nempty.test:\n*: nobody\n"
	for _, tt := range []struct{ domain, want, err string }{
		{"shop.test", "shop", ""},
		{"other.test", "other", ""},
		{"twice.test", "", "two accounts"},
		{"unknown.test", "", "not listed"},
		{"test", "", "not listed"},
		{"odd.test", "", "not listed"},
		{"empty.test", "", "not listed"},
		{"nobody", "", "not listed"},
	} {
		got, err := panelOwnerIn(strings.NewReader(list), tt.domain)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v; want %q, %q", tt.domain, got, err, tt.want, tt.err)
		}
	}
	if _, err := panelOwnerIn(strings.NewReader(strings.Repeat("x", 1<<20)), "shop.test"); err == nil {
		t.Error("no error for a line of 1 MiB")
	}
}

func TestCPanelData(t *testing.T) {
	uapi := cpanelCall{user: "shop", function: "list_pops", secret: "s3cret-password"}
	whm := cpanelCall{function: "version"}
	for _, tt := range []struct {
		call      cpanelCall
		text      string
		data, err string
	}{
		{uapi, `{"func":"list_pops","module":"Email","result":{"status":1,"data":[1]}}`, "[1]", ""},
		{uapi, `{"func":"list_pops","module":"Email","result":{"status":"1","data":null}}`, "null", ""},
		{uapi, `{"func":"add_pop","module":"Email","result":{"status":1,"data":[1]}}`, "", "another call"},
		{uapi, `{"func":"list_pops","module":"Ftp","result":{"status":1,"data":[1]}}`, "", "another call"},
		{uapi, `{"func":"list_pops","module":"Email","result":{"status":0,"errors":["no","never"]}}`, "", "refused: no; never"},
		{uapi, `{"func":"list_pops","module":"Email","result":{"status":0,"errors":"no"}}`, "", "refused: no"},
		{uapi, `{"func":"list_pops","module":"Email","result":{"status":0,"errors":null}}`, "", "without a reason"},
		{uapi, `{"func":"list_pops","module":"Email","result":{"status":2}}`, "", "neither 1 nor 0"},
		{uapi, `{"func":"list_pops","module":"Email","result":{"errors":["no s3cret-password"]}}`, "", "refused: no <secret>"},
		{uapi, `{"metadata":{"result":0,"reason":"no such user"}}`, "", "refused: no such user"},
		{uapi, `{"metadata":{"result":1,"command":"version"},"data":{}}`, "", "neither yes nor no"},
		{whm, `{"metadata":{"result":1,"command":"version"},"data":{}}`, "{}", ""},
		{whm, `{"metadata":{"result":1,"command":"listaccts"},"data":{}}`, "", "another call"},
		{whm, `{"func":"version","module":"Email","result":{"status":1}}`, "", "neither yes nor no"},
		{whm, `{"status":1}`, "", "neither yes nor no"},
		{whm, `[]`, "", "not JSON"},
	} {
		data, err := cpanelData([]byte(tt.text), tt.call)
		if string(data) != tt.data || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %s, %v; want %s, %q", tt.text, data, err, tt.data, tt.err)
		}
	}
	if err := hideSecret(fmt.Errorf("a s3cret-password%%: %w", ErrUnchanged), "s3cret-password"); !errors.Is(err, ErrUnchanged) || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}

func FuzzPanelOwnerIn(f *testing.F) {
	f.Add("shop.test: shop\n*: nobody\n", "shop.test")
	f.Add("shop.test: shop\nshop.test: other\n", "shop.test")
	f.Add("*: nobody", "*")
	f.Fuzz(func(t *testing.T, list, domain string) {
		if !panelDomain(domain) {
			return // never looked up
		}
		owner, err := panelOwnerIn(strings.NewReader(list), domain)
		if (owner == "") != (err != nil) || owner != "" && !strings.Contains(strings.ToLower(list), strings.ToLower(domain)) {
			t.Errorf("%q, %v", owner, err)
		}
	})
}

// FuzzCPanelAnswer wants data only from an answer that says yes to this call.
func FuzzCPanelAnswer(f *testing.F) {
	f.Add([]byte(`{"apiversion":3,"func":"list_pops","module":"Email","result":{"data":[],"errors":null,"messages":null,"metadata":{},"status":1,"warnings":null}}`))
	f.Add([]byte(`{"apiversion":3,"func":"list_pops","module":"Email","result":{"data":null,"errors":["no"],"status":0}}`))
	f.Add([]byte(`{"metadata":{"command":"version","reason":"OK","result":1,"version":1},"data":{"version":"11"}}`))
	f.Add([]byte(`{"metadata":{"command":"version","reason":"No.","result":0,"version":1}}`))
	f.Add([]byte(`{"cpanelresult":{"apiversion":"2","error":"Access denied","data":{"reason":"Access denied","result":"0"},"type":"text"}}`))
	f.Add([]byte("warn [uapi] {\n{\"result\":{\"status\":1}}\n {\"metadata\":{\"result\":\"1\",\"command\":\"version\"}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, c := range []cpanelCall{{user: "shop", function: "list_pops"}, {function: "version"}} {
			data, err := cpanelData(text, c)
			if err != nil {
				if data != nil || len(err.Error()) > 1000 {
					t.Errorf("%q with error %v", data, err)
				}
				continue
			}
			if data != nil && !json.Valid(data) {
				t.Errorf("data %q", data)
			}
			if raw, err := lastPanelObject(text); err != nil || !strings.HasSuffix(string(text), string(raw)) {
				t.Errorf("the answer %q is not the end of %q", raw, text)
			}
		}
	})
}
