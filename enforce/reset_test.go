package enforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// memoryPasswords are passwords in memory, and errors to be returned.
type memoryPasswords struct {
	name   string
	covers string // a domain
	before []error
	after  []error // of a change that was made

	mu      sync.Mutex
	log     *[]string
	set     map[string]string
	changes int
	during  func()
}

func (m *memoryPasswords) Name() string                 { return m.name }
func (m *memoryPasswords) Covers(account string) bool   { return strings.HasSuffix(account, m.covers) }
func (m *memoryPasswords) Plan(account string) []string { return []string{m.name + " sets " + account} }

func (m *memoryPasswords) Change(_ context.Context, account, password string) error {
	if m.during != nil {
		m.during()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	if err := nth(m.before, m.changes); err != nil {
		return err
	}
	if m.set == nil {
		m.set = map[string]string{}
	}
	m.set[account] = password
	if m.log != nil {
		*m.log = append(*m.log, "password")
	}
	return nth(m.after, m.changes)
}

func nth(errs []error, n int) error {
	if n <= len(errs) {
		return errs[n-1]
	}
	return nil
}

type memorySessions struct {
	log *[]string
	err error
}

func (m memorySessions) Name() string { return "memory" }
func (m memorySessions) End(ctx context.Context, logins []string) error {
	*m.log = append(*m.log, "end "+strings.Join(logins, " "))
	return errors.Join(m.err, ctx.Err())
}
func (m memorySessions) Plan(logins []string) []string {
	return []string{"end " + strings.Join(logins, " ")}
}

type memoryHandover struct {
	log   *[]string
	errs  []error
	given []string
	calls int
}

func (m *memoryHandover) Name() string          { return "letter" }
func (m *memoryHandover) Plan(o Reset) []string { return []string{"write a letter to " + o.Account} }
func (m *memoryHandover) got(i int) string      { return m.given[i] }
func (m *memoryHandover) Give(ctx context.Context, o Reset, p Password) error {
	m.calls++
	if err := errors.Join(nth(m.errs, m.calls), ctx.Err()); err != nil {
		return fmt.Errorf("%w: %s", err, p.Reveal()) // which must not be shown
	}
	*m.log = append(*m.log, "handover")
	m.given = append(m.given, p.Reveal())
	return nil
}

var theReset = Reset{ID: "d-1", Account: "alice@shop.test", Logins: []string{"alice@shop.test", "al@shop.test"}}

// newResetter is one whose parts note in log what they do.
func newResetter(log *[]string) (*Resetter, *memoryPasswords, *memoryHandover) {
	p := &memoryPasswords{name: "shop", covers: "@shop.test", log: log}
	h := &memoryHandover{log: log}
	return &Resetter{Passwords: []Passwords{&memoryPasswords{name: "blog", covers: "@blog.test"}, p}, Sessions: []Sessions{memorySessions{log: log}}, Handover: h}, p, h
}

func TestReset(t *testing.T) {
	var log []string
	r, p, h := newResetter(&log)
	out := r.Do(t.Context(), theReset)
	if !out.OK || out.State != ResetGiven || out.Again || !out.Kept.IsZero() || !out.Password.IsZero() || out.Driver != "shop" {
		t.Errorf("%+v", out)
	}
	if diff := cmp.Diff([]string{"password", "end alice@shop.test al@shop.test", "handover"}, log); diff != "" {
		t.Errorf("order: %s", diff)
	}
	if want := "password: shop; sessions: memory; handover: letter"; out.Detail != want {
		t.Errorf("got %q, want %q", out.Detail, want)
	}
	if h.got(0) != p.set[theReset.Account] {
		t.Error("another password was handed over than set")
	}

	// The same once more sets another, and says so.
	again := r.Do(t.Context(), theReset)
	if !again.OK || !again.Again || !strings.Contains(again.Detail, "begun before") || h.got(1) == h.got(0) || h.got(1) != p.set[theReset.Account] {
		t.Errorf("%+v", again)
	}
	// As after a crash, when only the journal knows.
	crashed, p2, h2 := newResetter(&log)
	o := theReset
	o.Again = true
	if out := crashed.Do(t.Context(), o); !out.OK || !out.Again || h2.got(0) != p2.set[o.Account] || !strings.Contains(out.Detail, "begun before") {
		t.Errorf("%+v", out)
	}
}

func TestResetShownOnce(t *testing.T) {
	var log []string
	r, p, _ := newResetter(&log)
	r.Handover = nil
	out := r.Do(t.Context(), theReset)
	secret := out.Password.Reveal()
	if !out.OK || secret == "" || secret != p.set[theReset.Account] {
		t.Fatalf("%+v", out)
	}
	var s bytes.Buffer
	fmt.Fprintf(&s, "%v %+v %#v", out, out, out)
	slog.New(slog.NewJSONHandler(&s, nil)).Info("x", "out", out, "steps", out.Steps, "password", out.Password)
	if err := json.NewEncoder(&s).Encode(out); err != nil {
		t.Error(err)
	}
	if leaks(s.String(), secret) {
		t.Errorf("shown: %s", s.String())
	}
}

func TestResetRefused(t *testing.T) {
	var log []string
	r, p, _ := newResetter(&log)
	for name, o := range map[string]Reset{
		"no ID":        {Account: "alice@shop.test"},
		"no account":   {ID: "d"},
		"nobody's":     {ID: "d", Account: "carol@other.test"},
		"a script":     {ID: "d", Account: "script:/home/x.php@shop.test"},
		"many logins":  {ID: "d", Account: "alice@shop.test", Logins: make([]string, 1001)},
		"hostile name": {ID: "d", Account: "alice@shop.test\n@shop.test"},
	} {
		out := r.Do(t.Context(), o)
		if out.OK || out.State != ResetUnchanged || !out.Kept.IsZero() || strings.Contains(out.Detail, "\n") {
			t.Errorf("%s: %+v", name, out)
		}
		if plan := r.Plan(o); len(plan) != 1 || !strings.HasPrefix(plan[0], "refused: ") {
			t.Errorf("%s: %q", name, plan)
		}
	}
	if out := (&Resetter{}).Do(t.Context(), theReset); !strings.Contains(out.Detail, "no password driver is configured") {
		t.Errorf("nothing configured: %s", out.Detail)
	}
	if out := r.Do(t.Context(), Reset{ID: "d", Account: "carol@other.test"}); !strings.Contains(out.Detail, "no password driver covers carol@other.test") || !strings.Contains(out.Detail, "blog, shop") {
		t.Errorf("nobody covers: %s", out.Detail)
	}
	if len(log) > 0 || p.changes > 0 {
		t.Errorf("something was done: %q", log)
	}
	p.before = []error{fmt.Errorf("no such mailbox: %w", ErrUnchanged)}
	if out := r.Do(t.Context(), theReset); out.State != ResetUnchanged || !out.Kept.IsZero() || len(log) > 0 {
		t.Errorf("%+v %q", out, log)
	}
}

// A password that could not be handed over is tried once more, and then told
// to be lost.
func TestResetHandoverFails(t *testing.T) {
	var log []string
	r, p, h := newResetter(&log)
	h.errs = []error{errors.New("no paper"), nil}
	first := r.Do(t.Context(), theReset)
	secret := p.set[theReset.Account]
	if first.OK || first.State != ResetChanged || first.Kept.IsZero() || !strings.Contains(first.Detail, "do the same reset again") || leaks(first.Detail, secret) {
		t.Errorf("%+v", first)
	}
	second := r.Do(t.Context(), theReset)
	if !second.OK || second.State != ResetGiven || p.changes != 1 || h.got(0) != secret {
		t.Errorf("%+v, %d changes", second, p.changes)
	}

	r, p, h = newResetter(&log)
	h.errs = []error{errors.New("no paper"), errors.New("no ink")}
	r.Do(t.Context(), theReset)
	second = r.Do(t.Context(), theReset)
	if second.OK || second.State != ResetChanged || !second.Kept.IsZero() || !strings.Contains(second.Detail, "NOBODY") || len(r.Forget()) > 0 {
		t.Errorf("%+v", second)
	}
	third := r.Do(t.Context(), theReset)
	if !third.OK || p.changes != 2 || h.got(0) != p.set[theReset.Account] {
		t.Errorf("%+v, %d changes", third, p.changes)
	}

	// What waits is forgotten when asked, when its time is over, and when
	// another reset has overtaken it.
	h.errs, h.calls = []error{errors.New("no paper"), nil, errors.New("no paper"), errors.New("no paper")}, 0
	r.Do(t.Context(), theReset)
	if got := r.Forget(); len(got) != 1 || got[0] != theReset.Account {
		t.Errorf("forgotten: %q", got)
	}
	before := p.changes
	if out := r.Do(t.Context(), theReset); !out.OK || p.changes != before+1 {
		t.Errorf("%+v", out)
	}
	r.Keep = time.Nanosecond
	r.Do(t.Context(), theReset)
	if out := r.Do(t.Context(), theReset); p.changes != before+3 || out.State != ResetChanged {
		t.Errorf("%+v", out)
	}
}

// Whether the password was changed cannot be told: the next try sets the same.
func TestResetUncertain(t *testing.T) {
	var log []string
	r, p, h := newResetter(&log)
	p.after = []error{errors.New("the connection broke off")}
	first := r.Do(t.Context(), theReset)
	secret := p.set[theReset.Account]
	if first.OK || first.State != ResetUncertain || first.Kept.IsZero() || !strings.Contains(first.Detail, "may be the old one") || h.calls > 0 {
		t.Errorf("%+v", first)
	}
	if len(log) != 2 || !strings.HasPrefix(log[1], "end ") {
		t.Errorf("sessions are not ended: %q", log)
	}
	second := r.Do(t.Context(), theReset)
	if !second.OK || second.State != ResetGiven || h.got(0) != secret || p.set[theReset.Account] != secret {
		t.Errorf("%+v", second)
	}

	// The second try is refused, so the first may still have been the one.
	r, p, _ = newResetter(&log)
	p.after, p.before = []error{errors.New("broke off")}, []error{nil, ErrUnchanged}
	r.Do(t.Context(), theReset)
	if out := r.Do(t.Context(), theReset); out.State != ResetUncertain || !strings.Contains(out.Detail, "order another reset") {
		t.Errorf("%+v", out)
	}
}

// Once the password is changed, nothing keeps it from being handed over: not
// that sessions stay, nor that the caller went away.
func TestResetGoesOn(t *testing.T) {
	var log []string
	r, p, h := newResetter(&log)
	ctx, cancel := context.WithCancel(t.Context())
	p.during = cancel
	r.Sessions = []Sessions{memorySessions{&log, errors.New("no doveadm\nhere")}, memorySessions{log: &log}}
	out := r.Do(ctx, theReset)
	if out.OK || out.State != ResetGiven || h.got(0) != p.set[theReset.Account] || !strings.Contains(out.Detail, "sessions: memory: FAILED: no doveadm here; sessions: memory; handover") {
		t.Errorf("%+v", out)
	}
}

// Two resets of an account at once do not set two passwords.
func TestResetsAtOnce(t *testing.T) {
	var log []string
	r, p, h := newResetter(&log)
	inside, leave := make(chan bool), make(chan bool)
	p.during = func() { inside <- true; <-leave }
	var first ResetOutcome
	var all sync.WaitGroup
	all.Go(func() { first = r.Do(t.Context(), theReset) })
	<-inside
	other := theReset
	other.ID = "d-2"
	if out := r.Do(t.Context(), other); out.OK || out.State != ResetUnchanged || !strings.Contains(out.Detail, "is running") {
		t.Errorf("%+v", out)
	}
	close(leave)
	all.Wait()
	if !first.OK || h.got(0) != p.set[theReset.Account] {
		t.Errorf("%+v", first)
	}
}

// Memory is bounded whatever is asked for.
func TestResetBounded(t *testing.T) {
	var log []string
	r, p, h := newResetter(&log)
	h.errs = make([]error, maxKept+100)
	for i := range h.errs {
		h.errs[i] = errors.New("no paper")
	}
	kept := 0
	for i := range h.errs {
		if out := r.Do(t.Context(), Reset{ID: fmt.Sprint(i), Account: fmt.Sprintf("u%d@shop.test", i)}); !out.Kept.IsZero() {
			kept++
		} else if !strings.Contains(out.Detail, "NOBODY") {
			t.Errorf("lost in silence: %s", out.Detail)
		}
	}
	if kept != maxKept || len(r.kept) != maxKept || len(r.busy) != 0 || p.changes != len(h.errs) {
		t.Errorf("%d kept, %d in memory", kept, len(r.kept))
	}
}

func TestResetPlan(t *testing.T) {
	var log []string
	r, _, _ := newResetter(&log)
	want := []string{"shop sets alice@shop.test", "end alice@shop.test al@shop.test", "write a letter to alice@shop.test"}
	if diff := cmp.Diff(want, r.Plan(theReset)); diff != "" {
		t.Error(diff)
	}
	path := filepath.Join(t.TempDir(), "users")
	writeTestFile(t, path, "alice@shop.test:{PLAIN}old\n")
	for _, tt := range []struct {
		p    Passwords
		want string
	}{
		{PasswdFile{Path: path}, "replace the SHA512-CRYPT hash in the line of alice@shop.test in " + path},
		{SQLPasswords{Driver: "mysql", DSN: "u:secret@/d", Query: sqlUpdate}, "sql mysql: UPDATE mailbox SET password = :hash WHERE username = :login (:login alice@shop.test, :user alice, :domain shop.test, :hash SHA512-CRYPT)"},
		{CommandPasswords{Argv: []string{"/opt/set pass", "{user}", "--in={domain}"}}, `"/opt/set pass" alice --in=shop.test (password on standard input)`},
		{WebhookPasswords{URL: "https://u:secret@panel.test/x?secret", Secret: "secret"}, "POST password.change of alice@shop.test to panel.test"},
	} {
		r := &Resetter{Passwords: []Passwords{tt.p}}
		if diff := cmp.Diff([]string{tt.want, "show the new password once"}, r.Plan(theReset)); diff != "" {
			t.Error(diff)
		}
	}
	if len(log) > 0 || readTestFile(t, path) != "alice@shop.test:{PLAIN}old\n" {
		t.Error("a plan does something")
	}
}

// A passwd-file, and each way of handing over.
func TestHandovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	writeTestFile(t, path, "alice@shop.test:{PLAIN}old\n")
	set := func() string {
		_, hash, _ := strings.Cut(strings.TrimSpace(readTestFile(t, path)), "{PLAIN}")
		return hash
	}
	r := &Resetter{Passwords: []Passwords{PasswdFile{Path: path, Scheme: Plain}}}

	dir := t.TempDir()
	r.Handover = HandoverFile{dir}
	for range 2 { // the second replaces the first
		if out := r.Do(t.Context(), theReset); out.State != ResetGiven {
			t.Fatalf("%+v", out)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 1 {
		t.Fatalf("files: %q", files)
	}
	if want := "account: alice@shop.test\npassword: " + set() + "\n"; readTestFile(t, files[0]) != want {
		t.Errorf("%q, want %q", readTestFile(t, files[0]), want)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if out := r.Do(t.Context(), theReset); out.State != ResetChanged || !strings.Contains(out.Detail, "chmod 700") {
		t.Errorf("a directory that everybody may write to: %+v", out)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, account := range hostileAccounts {
		err := HandoverFile{dir}.Give(t.Context(), Reset{ID: fmt.Sprint("../", i), Account: account}, NewPassword())
		if (err == nil) != (checkAccount(account) == nil) {
			t.Errorf("%.40q: %v", account, err)
		}
	}
	if up, _ := filepath.Glob(filepath.Join(dir, "..", "*.txt")); len(up) > 0 {
		t.Errorf("outside of the directory: %q", up)
	}

	program, notes := hookScript(t, "")
	r.Handover = HandoverCommand{Argv: []string{program, "{account}"}}
	if out := r.Do(t.Context(), theReset); out.State != ResetGiven || readTestFile(t, notes) != "alice@shop.test\n"+set()+"\n" {
		t.Errorf("%+v: %q", out, readTestFile(t, notes))
	}

	service := startReceiver(t, "key", 200)
	r.Handover = HandoverWebhook{URL: service.URL, Secret: "key", Roots: service.roots()}
	for range 2 {
		if out := r.Do(t.Context(), theReset); out.State != ResetGiven {
			t.Errorf("%+v", out)
		}
		want := map[string]string{"id": "d-1", "account": "alice@shop.test", "password": set()}
		if diff := cmp.Diff(want, service.last); diff != "" || service.kind != "password.handover" {
			t.Error(service.kind, diff)
		}
	}
	if service.ids[0] == service.ids[1] {
		t.Error("another password has the id of the one before, and would be dropped")
	}
	for _, h := range []Handover{HandoverFile{dir}, HandoverCommand{Argv: []string{program}}, HandoverWebhook{URL: service.URL}} {
		if plan := h.Plan(theReset); len(plan) != 1 || !strings.HasPrefix(plan[0], "hand over: ") || h.Name() == "" {
			t.Errorf("%q", plan)
		}
	}
}

// The old hash is put back where it is known.
func TestResetUndo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	const text = "alice@shop.test:{SSHA}old:::x=y\nbob@shop.test:{PLAIN}b\n"
	writeTestFile(t, path, text)
	var log []string
	r := &Resetter{Passwords: []Passwords{PasswdFile{Path: path}}, Sessions: []Sessions{memorySessions{log: &log}}}
	out := r.Do(t.Context(), theReset)
	if !out.OK || out.Old.Reveal() != "{SSHA}old" {
		t.Fatalf("%+v", out)
	}
	if undone := r.Undo(t.Context(), theReset, out.Old); !undone.OK || readTestFile(t, path) != text || len(log) != 2 {
		t.Errorf("%+v", undone)
	}
	if undone := r.Undo(t.Context(), theReset, Password{}); undone.OK || !strings.Contains(undone.Detail, "set a new one") {
		t.Errorf("%+v", undone)
	}
	other, _, _ := newResetter(&log)
	if undone := other.Undo(t.Context(), theReset, PasswordOf("{SSHA}old")); undone.OK {
		t.Errorf("%+v", undone)
	}
}
