package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
)

// users are those who have a token of their own for the API.
type users struct{ *pipeline }

// User implements web.Users.
func (u users) User(ctx context.Context, hash [sha256.Size]byte) (web.User, error) {
	row, err := u.store.Token(ctx, hash[:])
	if errors.Is(err, store.ErrNotFound) {
		return web.User{}, web.ErrUnknown
	}
	if err != nil {
		return web.User{}, err
	}
	role, err := web.ParseRole(row.Role)
	return web.User{Name: row.Name, Role: role}, err
}

// Used implements web.Users. What cannot be written down is still answered: a
// full disk must not keep people from looking at the watch.
func (u users) Used(ctx context.Context, who web.User, what, subject string) {
	err := u.store.Note(ctx, store.Entry{Time: time.Now(), What: "api", Who: who.Name, Subject: outside(subject), Action: what})
	if err != nil {
		u.log.Error("the use of a token is not written down", "token", who.Name, "what", what, "err", err)
	}
}

// Tokens implements web.Users.
func (u users) Tokens(ctx context.Context) ([]web.Token, error) {
	rows, err := u.store.Tokens(ctx)
	tokens := make([]web.Token, len(rows))
	for i, r := range rows {
		tokens[i] = web.Token(r)
	}
	return tokens, err
}

// ChangeToken implements web.Users.
func (u users) ChangeToken(ctx context.Context, o web.TokenOrder) (web.TokenResult, error) {
	result := web.TokenResult{Name: o.Name}
	switch {
	case !hub.ValidName(o.Name):
		return result, fmt.Errorf("%w: a token is called as a person or a program is, in lower case letters and digits: %q is not", web.ErrInvalid, o.Name)
	case strings.TrimSpace(o.Who) == "" || len(o.Who) > maxWho:
		return result, fmt.Errorf("%w: needs who orders it, in at most %d bytes", web.ErrInvalid, maxWho)
	case o.Do == "revoke":
		err := u.store.RevokeToken(ctx, o.Name, time.Now(), o.Who)
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("%w: there is no token %s, or it is revoked", web.ErrInvalid, o.Name)
		}
		return result, err
	case o.Do != "add":
		return result, fmt.Errorf("%w: %q is neither add nor revoke", web.ErrInvalid, o.Do)
	}
	role, err := web.ParseRole(o.Role)
	if err != nil {
		return result, fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	token := rand.Text() + rand.Text()
	hash := sha256.Sum256([]byte(token))
	err = u.store.AddToken(ctx, o.Name, role.String(), hash[:], time.Now(), o.Who)
	if errors.Is(err, store.ErrExists) {
		return result, fmt.Errorf("%w: there is, or was, a token %s: choose another name", web.ErrInvalid, o.Name)
	}
	if err == nil {
		result.Token = token
	}
	return result, err
}
