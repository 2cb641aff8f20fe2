package web

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"
)

// evil is what a stranger would write to break out of a page: markup, the end
// of an attribute, a script's address, escape sequences, text that runs
// backwards, and letters hidden below marks.
const evil = "</code><script>alert(1)</script>\"' onload='x' javascript:alert(2) \x1b[2J\x00\u202etxt\u2066\u200b\u2028\xff e\u0301\u0301\u0301\u0301\u0301\u0301{{.}}"

// An atlas is as many lists and subjects as a test wants.
type atlas struct {
	now  ListsNow
	rows []ListChange
	fail error
}

func (a atlas) Lists(context.Context) (ListsNow, error) { return a.now, a.fail }

func (a atlas) ListHistory(_ context.Context, q ListQuery) ([]ListChange, error) {
	if strings.Contains(q.Subject, "bad") {
		return nil, fmt.Errorf("%w: %q is neither an address nor a domain", ErrInvalid, q.Subject)
	}
	return a.rows[:min(len(a.rows), q.Limit)], a.fail
}

func (a atlas) ListRemoval(context.Context, ListQuery) (ListRemovals, error) {
	return ListRemovals{}, a.fail
}

// watching has that many subjects, of which the first few are listed, on lists
// in each state.
func watching(subjects int) atlas {
	since := time.Now().Add(-3 * time.Hour)
	a := atlas{}
	for i, state := range []string{"HEALTHY", "DEGRADED", "REFUSED", "EMPTY", "WILDCARD", "SUSPECT", "OFFLINE", "NO_KEY", "UNTESTED"} {
		a.now.Lists = append(a.now.Lists, ListState{List: fmt.Sprint("list", i), Title: "List of " + state, State: state, Since: since, Text: "as it is: " + state, Terms: "for anybody", Asked: 1234})
	}
	for i := range subjects {
		s := ListSubject{Subject: fmt.Sprintf("203.0.%d.%d", i/256, i%256), Found: "configuration", Level: "none", Clean: 21, Unknown: []string{"psbl"}}
		switch i {
		case 0:
			s.Exposure, s.Level = 0.95, "page"
			s.Listings = []Listing{{List: "list0", Stage: "LISTED", Since: since, Codes: []string{"127.0.0.2"}, Meaning: "source of spam", Reason: "see the page", Delist: "https://lists.example/removal"}}
		case 1:
			s.Exposure, s.Level = 0.2, "note"
			s.Listings = []Listing{{List: "list6", Stage: "SUSPECT", Since: since, Codes: []string{"127.0.0.3"}, Delist: "javascript:alert(3)"}}
		}
		a.now.Subjects = append(a.now.Subjects, s)
	}
	a.now.Watched = subjects
	return a
}

// A desk is a console and a browser before it.
type desk struct {
	t       *testing.T
	server  *Server
	handler http.Handler
	users   *fakeUsers
	cookies map[string]*http.Cookie
	host    string
}

func open(t *testing.T, lists Lists) *desk {
	d := &desk{t: t, users: &fakeUsers{}, cookies: map[string]*http.Cookie{}, host: "127.0.0.1:9190"}
	d.server = &Server{Watch: &fake{}, Lists: lists, Users: d.users, Token: token, Log: slog.New(slog.DiscardHandler)}
	d.handler = d.server.Handler()
	return d
}

// ask sends a request with the browser's cookies, and keeps those of the answer.
func (d *desk) ask(method, address string, form url.Values, with ...func(*http.Request)) *http.Response {
	d.t.Helper()
	r := httptest.NewRequestWithContext(d.t.Context(), method, "http://"+d.host+address, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range d.cookies {
		r.AddCookie(c)
	}
	for _, f := range with {
		f(r)
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	resp := w.Result()
	for _, c := range resp.Cookies() {
		if d.cookies[c.Name] = c; c.MaxAge < 0 {
			delete(d.cookies, c.Name)
		}
	}
	return resp
}

// signIn signs in with a token.
func (d *desk) signIn(token string) *http.Response {
	d.t.Helper()
	return d.ask("POST", "/sign-in", url.Values{"token": {token}})
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// see returns a page that is there.
func (d *desk) see(address string) string {
	d.t.Helper()
	r := d.ask("GET", address, nil)
	if r.StatusCode != http.StatusOK {
		d.t.Errorf("%s: %s to %q", address, r.Status, r.Header.Get("Location"))
	}
	return text(d.t, r)
}

func TestPagesNeedASession(t *testing.T) {
	d := open(t, watching(3))
	for address, back := range map[string]string{
		"/": "/sign-in?to=%2F", "/lists?q=x": "/sign-in?to=%2Flists%3Fq%3Dx", "/lists/history": "/sign-in?to=%2Flists%2Fhistory",
	} {
		if r := d.ask("GET", address, nil); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != back {
			t.Errorf("%s: %s to %q, want %q", address, r.Status, r.Header.Get("Location"), back)
		}
	}
	if page := d.see("/sign-in?to=/lists/history%3Fsubject%3Dx"); !strings.Contains(page, `value="/lists/history?subject=x"`) {
		t.Errorf("the page that was wanted is forgotten:\n%s", page)
	}
	for _, who := range []string{"token-of-viewer", "token-of-operator", "token-of-admin", " " + token + "\n"} {
		d := open(t, watching(3))
		if r := d.signIn(who); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/lists" {
			t.Errorf("%q signs in: %s to %q", who, r.Status, r.Header.Get("Location"))
		}
		if page := d.see("/lists"); !strings.Contains(page, "203.0.0.2") || !strings.Contains(page, "Sign out") {
			t.Errorf("%q sees:\n%s", who, page)
		}
		if r := d.ask("GET", "/", nil); r.Header.Get("Location") != "/lists" {
			t.Errorf("the first page is %q", r.Header.Get("Location"))
		}
	}
}

func TestSignInLeadsNowhereElse(t *testing.T) {
	for to, want := range map[string]string{
		"":                                    "/lists",
		"/lists?q=x&page=2":                   "/lists?page=2&q=x",
		"/lists/history?subject=192.0.2.1":    "/lists/history?subject=192.0.2.1",
		"https://evil.test/lists":             "/lists",
		"//evil.test/lists":                   "/lists",
		"//evil.test":                         "/lists",
		`\\evil.test`:                         "/lists",
		"/lists/../sign-out":                  "/lists",
		"/sign-out":                           "/lists",
		"javascript:alert(1)":                 "/lists",
		"/lists\r\nSet-Cookie: x=y":           "/lists",
		"/lists?" + strings.Repeat("x", 2000): "/lists",
	} {
		d := open(t, watching(1))
		r := d.ask("POST", "/sign-in", url.Values{"token": {token}, "to": {to}})
		if got := r.Header.Get("Location"); got != want {
			t.Errorf("%q leads to %q, want %q", to, got, want)
		}
	}
}

func TestCookie(t *testing.T) {
	over := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		host  string
		with  func(*http.Request)
		plain bool
	}{
		{"127.0.0.1:9190", nil, true},
		{"[::1]:9190", nil, true},
		{"localhost:9190", nil, true},
		{"localhost", over("X-Forwarded-Proto", "https"), false},
		{"console.example.net", nil, false},
		{"console.example.net", over("X-Forwarded-Proto", "http"), false},
		{"192.0.2.1:9190", nil, false},
		{"localhost.evil.test", nil, false},
		{"127.0.0.1.evil.test", nil, false},
	} {
		d := open(t, watching(1))
		d.host = c.host
		if c.with == nil {
			c.with = func(*http.Request) {}
		}
		got := d.ask("POST", "/sign-in", url.Values{"token": {token}}, c.with).Cookies()
		if len(got) != 1 {
			t.Fatalf("%s: cookies %v", c.host, got)
		}
		k := got[0]
		if !k.HttpOnly || k.SameSite != http.SameSiteStrictMode || k.Path != "/" || k.Domain != "" || k.Secure == c.plain || strings.HasPrefix(k.Name, "__Host-") == c.plain {
			t.Errorf("%s: %v", c.host, k)
		}
		if len(k.Value) < 52 { // of 32 letters: 256 bits
			t.Errorf("%s: the cookie is short: %q", c.host, k.Value)
		}
		if r := d.ask("GET", "/lists", nil, c.with); r.StatusCode != http.StatusOK {
			t.Errorf("%s: the cookie opens nothing: %s", c.host, r.Status)
		}
		for id := range d.server.sessions.open {
			if id != sha256.Sum256([]byte(k.Value)) {
				t.Errorf("%s: the cookie is not kept as its hash", c.host)
			}
		}
	}
}

// A session is for looking at pages: it gives no order, and reads nothing
// below /api.
func TestCookieIsNoToken(t *testing.T) {
	d := open(t, watching(1))
	d.signIn(token)
	for _, c := range []struct{ method, path string }{{"GET", "/api/v1/lists"}, {"GET", "/api/v1/accounts"}, {"POST", "/api/v1/act"}} {
		if r := d.ask(c.method, c.path, nil); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s: %s", c.method, c.path, r.Status)
		}
		bearer := func(r *http.Request) {
			for _, k := range d.cookies {
				r.Header.Set("Authorization", "Bearer "+k.Value)
			}
		}
		if r := d.ask(c.method, c.path, nil, bearer); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s with the cookie as a token: %s", c.method, c.path, r.Status)
		}
	}
	if r := open(t, watching(1)).ask("GET", "/lists", nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }); r.StatusCode != http.StatusSeeOther {
		t.Errorf("a bearer token opens a page: %s", r.Status)
	}
}

func TestSignOut(t *testing.T) {
	d := open(t, watching(1))
	d.signIn(token)
	kept := d.cookies["vedetta"]
	foreign := func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") }
	if r := d.ask("POST", "/sign-out", nil, foreign); r.StatusCode != http.StatusForbidden {
		t.Errorf("another site signs out: %s", r.Status)
	}
	if r := d.ask("POST", "/sign-in", url.Values{"token": {token}}, foreign); r.StatusCode != http.StatusForbidden {
		t.Errorf("another site signs in: %s", r.Status)
	}
	if r := d.ask("GET", "/sign-out", nil); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a link signs out: %s", r.Status)
	}
	d.see("/lists")
	if r := d.ask("POST", "/sign-out", nil); r.StatusCode != http.StatusSeeOther || len(d.cookies) > 0 {
		t.Errorf("signing out: %s, cookies %v", r.Status, d.cookies)
	}
	d.cookies["vedetta"] = kept
	if r := d.ask("GET", "/lists", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("the cookie is still good: %s", r.Status)
	}
}

// changing users can be revoked, and their database can fail.
type changing struct {
	*fakeUsers
	err error
}

func (c *changing) User(ctx context.Context, hash [sha256.Size]byte) (User, error) {
	if c.err != nil {
		return User{}, c.err
	}
	return c.fakeUsers.User(ctx, hash)
}

func TestRevokedTokenIsOutAtOnce(t *testing.T) {
	d := open(t, watching(1))
	users := &changing{fakeUsers: d.users}
	d.server.Users = users
	d.signIn("token-of-viewer")
	d.see("/lists")

	users.err = errors.New("disk I/O error at /var/lib/secret")
	if r := d.ask("GET", "/lists", nil); r.StatusCode != http.StatusServiceUnavailable || strings.Contains(text(t, r), "secret") {
		t.Errorf("nobody can tell whose session it is: %s", r.Status)
	}
	users.err = nil
	d.see("/lists")

	users.err = ErrUnknown
	if r := d.ask("GET", "/lists", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("a revoked token: %s", r.Status)
	}
	users.err = nil
	if r := d.ask("GET", "/lists", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("the session of a revoked token came back: %s", r.Status)
	}
}

func TestUseOfPagesIsWrittenDown(t *testing.T) {
	d := open(t, watching(1))
	d.signIn("token-of-viewer")
	d.see("/lists")
	d.see("/lists/history?subject=192.0.2.7")
	want := []string{"a-viewer POST /sign-in", "a-viewer GET /lists", "a-viewer GET /lists/history 192.0.2.7"}
	if !slices.Equal(d.users.used, want) {
		t.Errorf("written down: %q, want %q", d.users.used, want)
	}
}

func TestWrongTokensAreLimited(t *testing.T) {
	for _, users := range []Users{&fakeUsers{}, nil} {
		d := open(t, watching(1))
		d.server.Users = users
		codes := map[int]int{}
		for i := range 100 {
			r := d.signIn(fmt.Sprint("guess-", i))
			codes[r.StatusCode]++
			if len(r.Cookies()) > 0 {
				t.Fatal("a guess is given a session")
			}
		}
		if codes[http.StatusUnauthorized] > 40 || codes[http.StatusTooManyRequests] < 60 {
			t.Errorf("answers to 100 guesses: %v", codes)
		}
		if r := d.signIn(token); r.StatusCode != http.StatusSeeOther {
			t.Errorf("guesses keep others out: %s", r.Status)
		}
	}
	d := open(t, watching(1))
	for _, nothing := range []string{"", " ", "nobody"} {
		if r := d.signIn(nothing); r.StatusCode != http.StatusUnauthorized || !strings.Contains(text(t, r), "this is no token") {
			t.Errorf("%q: %s", nothing, r.Status)
		}
	}
	lost := open(t, watching(1))
	lost.server.Token = ""
	if r := lost.signIn(""); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a server without a token: %s", r.Status)
	}
	d.signIn("token-of-viewer")
	put := 0
	for range 300 {
		if r := d.ask("GET", "/lists", nil); r.StatusCode == http.StatusTooManyRequests {
			put++
		}
	}
	if put < 50 {
		t.Errorf("of 300 pages at once %d were put off", put)
	}
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, watching(1))
		d.signIn(token)
		time.Sleep(sessionIdle - time.Minute)
		d.see("/lists")
		time.Sleep(sessionIdle + time.Minute)
		if r := d.ask("GET", "/lists", nil); r.StatusCode != http.StatusSeeOther {
			t.Errorf("after an idle hour: %s", r.Status)
		}
		d.signIn(token)
		for range int(sessionLife / (30 * time.Minute)) {
			time.Sleep(30 * time.Minute)
			d.see("/lists")
		}
		time.Sleep(time.Second)
		if r := d.ask("GET", "/lists", nil); r.StatusCode != http.StatusSeeOther {
			t.Errorf("after half a day: %s", r.Status)
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	var s sessions
	now := time.Now()
	mine := sha256.Sum256([]byte("mine"))
	first := s.begin(mine, now)
	second := s.begin(mine, now.Add(time.Second))
	for i := range 2 * sessionsPerToken {
		now = now.Add(time.Second)
		s.find(first, now)
		s.begin(mine, now.Add(time.Duration(i)))
	}
	if len(s.open) != sessionsPerToken {
		t.Errorf("one token has %d sessions", len(s.open))
	}
	if _, ok := s.find(first, now); !ok {
		t.Error("the session that is in use made room")
	}
	if _, ok := s.find(second, now); ok {
		t.Error("the session that is idle the longest did not make room")
	}
	for i := range 2 * sessionsAtMost {
		s.begin(sha256.Sum256(fmt.Append(nil, i)), now.Add(time.Duration(i)))
	}
	if len(s.open) != sessionsAtMost {
		t.Errorf("%d sessions in all", len(s.open))
	}
	s.begin(mine, now.Add(2*sessionLife))
	if len(s.open) != 1 {
		t.Errorf("%d sessions, want only the new one: all others are over", len(s.open))
	}
}

func TestHeaders(t *testing.T) {
	d := open(t, watching(1))
	d.signIn(token)
	for _, address := range []string{"/sign-in", "/lists", "/lists/history", "/lists/history?subject=bad"} {
		h := d.ask("GET", address, nil).Header
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q", address, name, h.Get(name))
			}
		}
	}
	page := d.see("/lists")
	if !strings.Contains(page, `href="`+styleAddress+`"`) {
		t.Errorf("no style sheet at %s in:\n%s", styleAddress, page)
	}
	if r := open(t, nil).ask("GET", styleAddress, nil); r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/css; charset=utf-8" || !strings.Contains(text(t, r), "prefers-color-scheme") {
		t.Errorf("style sheet: %s", r.Status)
	}
}

// hostile fills every text of the lists with what a stranger would write.
func hostile() atlas {
	at := time.Now()
	l := Listing{evil, evil, at, []string{evil, evil}, evil, evil, evil, "https://lists.example/?" + evil}
	js := l
	js.Delist = "javascript:alert(1)//" + evil
	c := ListChange{at, evil, evil, evil, at, []string{evil}, evil, evil, "data:text/html," + evil, evil, evil, 3, evil}
	return atlas{
		now: ListsNow{Distrust: evil, Watched: 1,
			Subjects: []ListSubject{{Subject: evil, Found: evil, Exposure: 0.5, Level: evil, Listings: []Listing{l, js}}},
			Lists:    []ListState{{evil, evil, evil, at, evil, evil, 7}, {evil, evil, "OFFLINE", at, evil, evil, 7}}},
		rows: []ListChange{c, {Time: at, Kind: "list-state", State: evil, List: evil, Text: evil}},
	}
}

// assertHarmless reads a page as a browser does and reports what a stranger's text made of it.
func assertHarmless(t *testing.T, page string) {
	t.Helper()
	for _, r := range []string{"\x1b", "\x00", "\u202e", "\u2066", "\u200b", "\u2028", "\xff", "\u0301\u0301\u0301\u0301\u0301"} {
		if strings.Contains(page, r) {
			t.Errorf("%q is in the page", r)
		}
	}
	tree, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range tree.Descendants() {
		switch n.Data {
		case "script", "style", "iframe", "object", "base":
			if n.Type == html.ElementNode {
				t.Errorf("<%s> is in the page", n.Data)
			}
		}
		for _, a := range n.Attr {
			value := strings.ToLower(strings.TrimSpace(a.Val))
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
			}
			if (a.Key == "href" || a.Key == "action" || a.Key == "src") && n.Data != "link" && !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "#") && !strings.HasPrefix(value, "https://lists.example/") {
				t.Errorf("<%s> leads to %q", n.Data, a.Val)
			}
		}
	}
}

func TestHostileTextIsHarmless(t *testing.T) {
	d := open(t, hostile())
	d.signIn(token)
	for _, address := range []string{"/lists", "/lists?q=" + url.QueryEscape(evil), "/lists/history", "/lists/history?list=" + url.QueryEscape(evil), "/lists/history?subject=bad" + url.QueryEscape(evil)} {
		page := text(t, d.ask("GET", address, nil))
		assertHarmless(t, page)
		if !strings.Contains(page, "&lt;script&gt;") || !strings.Contains(page, "[U+202E]") {
			t.Errorf("%s: the text is not to be seen:\n%s", address, page)
		}
	}
	assertHarmless(t, text(t, d.ask("GET", "/sign-in?to="+url.QueryEscape(evil), nil)))
	assertHarmless(t, text(t, d.ask("POST", "/sign-in", url.Values{"token": {evil}, "to": {evil}})))
	d.handler = (&Server{Watch: &fake{}, Lists: atlas{fail: errors.New(evil)}, Users: d.users, Token: token, Log: d.server.Log}).Handler()
	d.signIn(token)
	r := d.ask("GET", "/lists", nil)
	if r.StatusCode != http.StatusInternalServerError {
		t.Errorf("an error: %s", r.Status)
	}
	assertHarmless(t, text(t, r))
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n\ttext – ↗ é":  "plain\n\ttext – ↗ é",
		"a\u202eb\u2069":       "a[U+202E]b[U+2069]",
		"\x1b[31m\x07\r":       "[U+001B][31m[U+0007][U+000D]",
		"\ufeffx\u00adx\u200d": "[U+FEFF]x[U+00AD]x[U+200D]",
		"x\u00a0y":             "x[U+00A0]y",
		"\xff\xc3":             "\ufffd\ufffd",
		"\U000e0041":           "[U+E0041]",
		"e" + strings.Repeat("\u0301", 5) + "e\u0301": "e" + strings.Repeat("\u0301", 4) + "[U+0301]e\u0301",
		"עברית العربية हिन्दी ภาษา":                   "עברית العربية हिन्दी ภาษา",
	} {
		if got := string(visible([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestMoments(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		0: "just now", -time.Second: "just now", 59 * time.Second: "just now", time.Minute: "1 min ago", 59*time.Minute + 59*time.Second: "59 min ago",
		time.Hour: "1 h ago", 47 * time.Hour: "47 h ago", 48 * time.Hour: "2 days ago", 800 * 24 * time.Hour: "2 years ago", -2 * time.Hour: "in 2 h",
	} {
		if got := (moment{now.Add(-ago), now}).Ago(); got != want {
			t.Errorf("%v: %q, want %q", ago, got, want)
		}
	}
	m := moment{now.In(time.FixedZone("", 3600)), now}
	if m.Text() != "2026-11-29 12:00" || m.Machine() != "2026-11-29T12:00:00Z" || (moment{}).Known() {
		t.Errorf("%q, %q", m.Text(), m.Machine())
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 4096: "4,096", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
