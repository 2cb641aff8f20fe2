package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
)

type fakeLists struct{}

func (fakeLists) Lists(context.Context) (ListsNow, error) {
	return ListsNow{Lists: []ListState{{List: "spamcop", State: "HEALTHY"}}}, nil
}

func (fakeLists) ListHistory(_ context.Context, q ListQuery) ([]ListChange, error) {
	if q.Subject == "bad" {
		return nil, fmt.Errorf("%w: bad", ErrInvalid)
	}
	return []ListChange{{List: q.List, Subject: q.Subject, Count: q.Limit}}, nil
}

func (fakeLists) ListRemoval(_ context.Context, q ListQuery) (ListRemovals, error) {
	return ListRemovals{Subject: q.Subject, Lists: []ListRemoval{{List: q.List}}}, nil
}

func TestListRoutes(t *testing.T) {
	start := func(lists Lists) Client {
		s := httptest.NewServer((&Server{Watch: &fake{}, Lists: lists, Token: token, Log: slog.New(slog.DiscardHandler)}).Handler())
		t.Cleanup(s.Close)
		return Client{Base: s.URL, Token: token}
	}
	c := start(fakeLists{})
	if now, err := c.Lists(t.Context()); err != nil || len(now.Lists) != 1 || now.Lists[0].State != "HEALTHY" {
		t.Errorf("lists: %+v, %v", now, err)
	}
	rows, err := c.ListHistory(t.Context(), ListQuery{Subject: "203.0.113.9", List: "spamcop", Limit: 7})
	if err != nil || len(rows) != 1 || rows[0].Subject != "203.0.113.9" || rows[0].List != "spamcop" || rows[0].Count != 7 {
		t.Errorf("history: %+v, %v", rows, err)
	}
	if _, err := c.ListHistory(t.Context(), ListQuery{Subject: "bad"}); err == nil || !strings.Contains(err.Error(), "invalid request") {
		t.Errorf("a bad subject: %v", err)
	}
	many := start(watching(2000))
	if now, err := many.Lists(t.Context()); err != nil || len(now.Subjects) != 1000 || now.Watched != 2000 {
		t.Errorf("of 2000 subjects %d are sent, and said to be %d: %v", len(now.Subjects), now.Watched, err)
	}
	if r, err := c.ListRemoval(t.Context(), ListQuery{Subject: "203.0.113.9", List: "spamcop"}); err != nil || r.Subject != "203.0.113.9" || len(r.Lists) != 1 || r.Lists[0].List != "spamcop" {
		t.Errorf("removal: %+v, %v", r, err)
	}
	none := start(nil)
	if _, err := none.ListRemoval(t.Context(), ListQuery{}); err == nil || !strings.Contains(err.Error(), "dnsbl.watch") {
		t.Errorf("removal at a service that watches none: %v", err)
	}
	if _, err := none.Lists(t.Context()); err == nil || !strings.Contains(err.Error(), "dnsbl.watch") {
		t.Errorf("lists of a service that watches none: %v", err)
	}
	stranger := Client{Base: c.Base, Token: "wrong"}
	if _, err := stranger.ListHistory(t.Context(), ListQuery{}); err == nil {
		t.Error("a stranger reads the history")
	}
}
