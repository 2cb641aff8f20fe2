package app

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
)

func TestTokensOfUsers(t *testing.T) {
	p, _, _ := answering(t)
	u, ctx := users{p}, t.Context()
	made, err := u.ChangeToken(ctx, web.TokenOrder{Do: "add", Name: "grafana", Role: "viewer", Who: "root"})
	if err != nil || len(made.Token) < 40 {
		t.Fatalf("%+v, %v", made, err)
	}
	hash := sha256.Sum256([]byte(made.Token))
	if who, err := u.User(ctx, hash); err != nil || who != (web.User{Name: "grafana", Role: web.Viewer}) {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := u.User(ctx, sha256.Sum256([]byte("another"))); !errors.Is(err, web.ErrUnknown) {
		t.Errorf("another token: %v", err)
	}
	for _, o := range []web.TokenOrder{
		{Do: "add", Name: "grafana", Role: "admin", Who: "root"}, // it is somebody's
		{Do: "add", Name: "x", Role: "king", Who: "root"},
		{Do: "add", Name: "x y", Role: "viewer", Who: "root"},
		{Do: "add", Name: "x", Role: "viewer"},
		{Do: "dance", Name: "x", Who: "root"},
		{Do: "revoke", Name: "x", Who: "root"},
	} {
		if _, err := u.ChangeToken(ctx, o); !errors.Is(err, web.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	u.Used(ctx, web.User{Name: "grafana"}, "GET /api/v1/why", "alice\x1b@shop.test")
	if _, err := u.ChangeToken(ctx, web.TokenOrder{Do: "revoke", Name: "grafana", Who: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := u.User(ctx, hash); !errors.Is(err, web.ErrUnknown) {
		t.Errorf("a revoked token: %v", err)
	}
	if _, err := u.ChangeToken(ctx, web.TokenOrder{Do: "add", Name: "grafana", Role: "viewer", Who: "root"}); !errors.Is(err, web.ErrInvalid) {
		t.Errorf("the name of a revoked token: %v", err)
	}
	entries, err := p.store.Journal(ctx, store.JournalFilter{})
	if err != nil || len(entries) != 3 || entries[1].Who != "grafana" || entries[1].Subject != "alice @shop.test" {
		t.Errorf("journal %+v, %v", entries, err)
	}
	for _, e := range entries {
		if e.Why == made.Token || e.Outcome == made.Token {
			t.Error("the token is in the journal")
		}
	}
}
