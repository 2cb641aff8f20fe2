package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// A TokenRow is a token of the API's, without the token.
type TokenRow struct {
	Name    string
	Role    string // viewer, operator, admin
	Added   time.Time
	Revoked time.Time // zero: it is good
}

// ErrExists means that there is one of that name.
var ErrExists = errors.New("exists already")

// AddToken lets whoever has the token with that SHA-256 use the API. The error
// is ErrExists if the name was ever used.
func (db *DB) AddToken(ctx context.Context, name, role string, hash []byte, now time.Time, by string) error {
	return db.update(ctx, "add token", func(tx *sql.Tx) error {
		n, err := changed(tx.Exec("INSERT INTO tokens (name, role, hash, added) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING", name, role, hash, nanos(now)))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("token %q: %w", name, ErrExists)
		}
		return putEntry(tx, Entry{Time: now, What: WhatToken, Who: by, Subject: name, Action: "add", Why: "as " + role})
	})
}

// RevokeToken takes a token's right. The error is ErrNotFound if it has none.
func (db *DB) RevokeToken(ctx context.Context, name string, now time.Time, by string) error {
	return db.update(ctx, "revoke token", func(tx *sql.Tx) error {
		n, err := changed(tx.Exec("UPDATE tokens SET revoked = ? WHERE name = ? AND revoked IS NULL", nanos(now), name))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("token %q: %w", name, ErrNotFound)
		}
		return putEntry(tx, Entry{Time: now, What: WhatToken, Who: by, Subject: name, Action: "revoke"})
	})
}

const tokenColumns = "SELECT name, role, added, revoked FROM tokens "

// Tokens lists the tokens by name, those that are revoked too.
func (db *DB) Tokens(ctx context.Context) ([]TokenRow, error) {
	return db.tokens(ctx, tokenColumns+"ORDER BY name")
}

// Token returns the token with a SHA-256, if it is good, or ErrNotFound.
func (db *DB) Token(ctx context.Context, hash []byte) (TokenRow, error) {
	rows, err := db.tokens(ctx, tokenColumns+"WHERE hash = ? AND revoked IS NULL", hash)
	if err != nil {
		return TokenRow{}, err
	}
	if len(rows) == 0 {
		return TokenRow{}, fmt.Errorf("token: %w", ErrNotFound)
	}
	return rows[0], nil
}

func (db *DB) tokens(ctx context.Context, query string, args ...any) (all []TokenRow, err error) {
	err = db.query(ctx, "tokens", query, args, func(scan func(...any) error) error {
		var t TokenRow
		var added int64
		var revoked sql.NullInt64
		if err := scan(&t.Name, &t.Role, &added, &revoked); err != nil {
			return err
		}
		t.Added, t.Revoked = time.Unix(0, added), moment(revoked)
		all = append(all, t)
		return nil
	})
	return all, err
}
