package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A fake watch knows one account and remembers one order.
type fake struct {
	ordered Order
	sick    bool
}

func (f *fake) Accounts(context.Context, int) ([]Account, error) {
	return []Account{{Account: "alice@shop.test", Score: 3}}, nil
}

func (f *fake) Why(_ context.Context, account string) (Why, error) {
	if account != "alice@shop.test" {
		return Why{}, fmt.Errorf("%s: %w", account, ErrUnknown)
	}
	return Why{Account: account}, nil
}

func (f *fake) Act(_ context.Context, o Order) (Result, error) {
	f.ordered = o
	if o.Do != "block" {
		return Result{}, fmt.Errorf("%w: %s", ErrInvalid, o.Do)
	}
	return Result{Account: o.Account, Done: []string{"blocked"}}, nil
}

func (f *fake) Queue(context.Context) (Queue, error) { return Queue{}, errors.New("spool: gone") }
func (f *fake) Journal(_ context.Context, subject string, limit int) ([]Entry, error) {
	return []Entry{{Subject: subject, What: fmt.Sprint(limit)}}, nil
}

func (f *fake) Health(context.Context) Health { return Health{OK: !f.sick} }

const token = "a-token-of-the-test"

func serve(t *testing.T, f *fake) *httptest.Server {
	t.Helper()
	s := httptest.NewServer((&Server{Watch: f, Token: token, Log: slog.New(slog.DiscardHandler)}).Handler())
	t.Cleanup(s.Close)
	return s
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		name, method, path, body, token, origin string
		sick                                    bool
		code                                    int
		has                                     string
	}{
		{"health needs no token", "GET", "/healthz", "", "", "", false, 200, `"ok":true`},
		{"a sick service says so", "GET", "/healthz", "", "", "", true, 503, `"ok":false`},
		{"accounts", "GET", "/api/v1/accounts", "", token, "", false, 200, "alice@shop.test"},
		{"no token", "GET", "/api/v1/accounts", "", "", "", false, 401, "token"},
		{"wrong token", "GET", "/api/v1/accounts", "", token + "x", "", false, 401, "token"},
		{"why", "GET", "/api/v1/why?account=alice@shop.test", "", token, "", false, 200, "alice@shop.test"},
		{"why of nobody", "GET", "/api/v1/why?account=nobody@shop.test", "", token, "", false, 404, "nobody@shop.test"},
		{"an error is told", "GET", "/api/v1/queue", "", token, "", false, 500, "spool: gone"},
		{"a limit that is none", "GET", "/api/v1/journal?limit=-4&subject=x", "", token, "", false, 200, `"what":"100"`},
		{"order", "POST", "/api/v1/act", `{"do":"block","account":"alice@shop.test","who":"root"}`, token, "", false, 200, "blocked"},
		{"order without token", "POST", "/api/v1/act", `{"do":"block"}`, "", "", false, 401, "token"},
		{"order from a web page", "POST", "/api/v1/act", `{"do":"block"}`, token, "https://evil.test", false, 403, ""},
		{"order that is none", "POST", "/api/v1/act", `{"do":"dance"}`, token, "", false, 400, "dance"},
		{"unknown field", "POST", "/api/v1/act", `{"doo":"block"}`, token, "", false, 400, "doo"},
		{"no JSON", "POST", "/api/v1/act", `{`, token, "", false, 400, "order"},
		{"too large", "POST", "/api/v1/act", `{"do":"` + strings.Repeat("x", maxBody) + `"}`, token, "", false, 400, "order"},
		{"a complaint where none count", "POST", "/api/v1/complaints", `{}`, token, "", false, 404, "dnsbl.risk.complaints"},
		{"a complaint without token", "POST", "/api/v1/complaints", `{}`, "", "", false, 401, "token"},
		{"unknown path", "GET", "/api/v1/nothing", "", token, "", false, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, &fake{sick: c.sick})
			req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.code || !strings.Contains(string(text), c.has) {
				t.Errorf("answer = %d %s, want %d with %q", resp.StatusCode, text, c.code, c.has)
			}
		})
	}
}

// A server whose token was lost lets nobody in.
func TestEmptyTokenRefuses(t *testing.T) {
	s := httptest.NewServer((&Server{Watch: &fake{}, Log: slog.New(slog.DiscardHandler)}).Handler())
	defer s.Close()
	c := &Client{Base: s.URL}
	if _, err := c.Accounts(t.Context(), 1); err == nil {
		t.Error("let in")
	}
}

func TestClient(t *testing.T) {
	f := &fake{}
	c := &Client{Base: serve(t, f).URL, Token: token}
	order := Order{Do: "block", Account: "alice@shop.test", For: time.Hour, Who: "root", Why: "asked for"}
	result, err := c.Act(t.Context(), order)
	if err != nil || len(result.Done) != 1 || f.ordered != order {
		t.Errorf("result = %+v, %v; ordered %+v, want %+v", result, err, f.ordered, order)
	}
	if _, err := c.Why(t.Context(), "nobody@shop.test"); err == nil || !strings.Contains(err.Error(), "nobody@shop.test") {
		t.Errorf("error = %v, want the account in it", err)
	}
	f.sick = true
	if h, err := c.Health(t.Context()); err != nil || h.OK {
		t.Errorf("health = %+v, %v; a sick service still answers", h, err)
	}
	gone := &Client{Base: "http://127.0.0.1:1", Token: token}
	if _, err := gone.Queue(t.Context()); err == nil || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("error = %v, want a hint that nothing runs there", err)
	}
}
