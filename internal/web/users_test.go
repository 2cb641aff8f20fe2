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
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeUsers know a token of each role, called as the role is.
type fakeUsers struct {
	mu   sync.Mutex
	used []string
	made TokenOrder
}

func (f *fakeUsers) User(_ context.Context, hash [sha256.Size]byte) (User, error) {
	for _, role := range []Role{Viewer, Operator, Admin} {
		if hash == sha256.Sum256([]byte("token-of-"+role.String())) {
			return User{"a-" + role.String(), role}, nil
		}
	}
	return User{}, ErrUnknown
}

func (f *fakeUsers) Used(_ context.Context, u User, what, subject string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used = append(f.used, strings.TrimSpace(u.Name+" "+what+" "+subject))
}

func (f *fakeUsers) Tokens(context.Context) ([]Token, error) { return []Token{{Name: "x"}}, nil }

func (f *fakeUsers) ChangeToken(_ context.Context, o TokenOrder) (TokenResult, error) {
	f.made = o
	return TokenResult{Name: o.Name, Token: "secret"}, nil
}

type fakeFleet struct{ changed AgentOrder }

func (f *fakeFleet) Agents(context.Context) ([]Agent, error) { return []Agent{{Name: "mx1"}}, nil }
func (f *fakeFleet) ChangeAgent(_ context.Context, o AgentOrder) (AgentResult, error) {
	f.changed = o
	return AgentResult{Name: o.Name}, nil
}

type fakeKeeper struct{ ordered KeyOrder }

func (f *fakeKeeper) Rotation(context.Context) (Rotation, error) { return Rotation{}, nil }
func (f *fakeKeeper) Rotate(_ context.Context, o KeyOrder) (Rotation, error) {
	f.ordered = o
	return Rotation{Waits: []string{"mx1"}}, nil
}

func ask(t *testing.T, s *httptest.Server, method, path, body, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestRolesMayDoWhatTheyMay(t *testing.T) {
	watch, fleet, users, keeper := &fake{}, &fakeFleet{}, &fakeUsers{}, &fakeKeeper{}
	s := httptest.NewServer((&Server{Watch: watch, Fleet: fleet, Users: users, Keeper: keeper, Token: token, Log: slog.New(slog.DiscardHandler)}).Handler())
	defer s.Close()
	block := `{"do":"block","account":"alice@shop.test","who":"root"}`
	for _, c := range []struct {
		method, path, body string
		least              Role
	}{
		{"GET", "/api/v1/accounts", "", Viewer},
		{"GET", "/api/v1/why?account=alice@shop.test", "", Viewer},
		{"GET", "/api/v1/journal", "", Viewer},
		{"GET", "/api/v1/agents", "", Viewer},
		{"GET", "/api/v1/key", "", Viewer},
		{"POST", "/api/v1/act", block, Operator},
		{"POST", "/api/v1/key", `{"why":"yearly","who":"root"}`, Admin},
		{"POST", "/api/v1/agents", `{"do":"add","name":"mx1","who":"root"}`, Admin},
		{"GET", "/api/v1/tokens", "", Admin},
		{"POST", "/api/v1/tokens", `{"do":"add","name":"x","role":"viewer","who":"root"}`, Admin},
	} {
		for _, role := range []Role{Viewer, Operator, Admin} {
			code, text := ask(t, s, c.method, c.path, c.body, "token-of-"+role.String())
			if want := role >= c.least; (code == http.StatusOK) != want || !want && code != http.StatusForbidden {
				t.Errorf("%s %s as %s: %d %s", c.method, c.path, role, code, text)
			}
		}
		if code, text := ask(t, s, c.method, c.path, c.body, token); code != http.StatusOK {
			t.Errorf("%s %s with the service's own token: %d %s", c.method, c.path, code, text)
		}
		if code, _ := ask(t, s, c.method, c.path, c.body, "token-of-nobody"); code != http.StatusUnauthorized {
			t.Errorf("%s %s as nobody: %d", c.method, c.path, code)
		}
	}
	if !slices.Contains(users.used, "a-viewer GET /api/v1/why alice@shop.test") || !slices.Contains(users.used, "a-viewer POST /api/v1/act") {
		t.Errorf("written down: %q", users.used)
	}
	ask(t, s, "GET", "/api/v1/lists/history?subject=192.0.2.7", "", "token-of-viewer")
	if last := users.used[len(users.used)-1]; last != "a-viewer GET /api/v1/lists/history 192.0.2.7" {
		t.Errorf("written down: %q", last)
	}
	ask(t, s, "POST", "/api/v1/act", block, "token-of-operator")
	if watch.ordered.Who != "a-operator (root)" {
		t.Errorf("ordered by %q", watch.ordered.Who)
	}
	ask(t, s, "POST", "/api/v1/key", `{"why":"yearly","who":"root"}`, "token-of-admin")
	if keeper.ordered != (KeyOrder{Who: "a-admin (root)", Why: "yearly"}) {
		t.Errorf("ordered %+v", keeper.ordered)
	}
	ask(t, s, "POST", "/api/v1/agents", `{"do":"revoke","name":"mx1","who":""}`, "token-of-admin")
	if fleet.changed.Who != "a-admin" {
		t.Errorf("changed by %q", fleet.changed.Who)
	}
}

func TestTokensAreRateLimited(t *testing.T) {
	s := httptest.NewServer((&Server{Watch: &fake{}, Users: &fakeUsers{}, Token: token, Log: slog.New(slog.DiscardHandler)}).Handler())
	defer s.Close()
	count := func(name string, n int) (refused int) {
		for i := range n {
			with := name
			if name == "" {
				with = fmt.Sprint("guess-", i)
			}
			if code, _ := ask(t, s, "GET", "/api/v1/accounts", "", with); code == http.StatusTooManyRequests {
				refused++
			}
		}
		return refused
	}
	if n := count("", 200); n < 100 {
		t.Errorf("of 200 guesses %d were put off", n)
	}
	if n := count("token-of-viewer", 20); n > 0 {
		t.Errorf("somebody's guesses cost the others: %d put off", n)
	}
	if n := count("token-of-operator", 400); n < 50 {
		t.Errorf("of 400 requests at once %d were put off", n)
	}
	if n := count(token, 400); n > 0 {
		t.Errorf("the service's own token is limited: %d put off", n)
	}
}

// brokenUsers have a database that does not answer.
type brokenUsers struct{ fakeUsers }

func (*brokenUsers) User(context.Context, [sha256.Size]byte) (User, error) {
	return User{}, errors.New("disk I/O error at /var/lib/secret")
}

// A token is not called wrong when nobody can tell.
func TestTokenThatCannotBeLookedUp(t *testing.T) {
	s := httptest.NewServer((&Server{Watch: &fake{}, Users: &brokenUsers{}, Token: token, Log: slog.New(slog.DiscardHandler)}).Handler())
	defer s.Close()
	if code, text := ask(t, s, "GET", "/api/v1/accounts", "", "token-of-viewer"); code != http.StatusServiceUnavailable || !strings.Contains(text, "cannot be told") || strings.Contains(text, "secret") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := ask(t, s, "GET", "/api/v1/accounts", "", token); code != http.StatusOK {
		t.Errorf("the service's own token: %d %s", code, text)
	}
}

func TestLongNamesOfOrders(t *testing.T) {
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), userKey{}, User{"alice", Operator}), "POST", "/", nil)
	for said, want := range map[string]int{"": 5, "alice": 5, "root": 12, strings.Repeat("x", 500): 127} {
		if got := who(r, said); len(got) != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}
