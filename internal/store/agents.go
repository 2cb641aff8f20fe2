package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// An AgentRow is an agent that may speak to this hub, or may not any more.
type AgentRow struct {
	Name      string
	Domains   []string
	Added     time.Time
	Enrolment string    // empty: it has not enrolled yet
	Enrolled  time.Time // zero: as above
	Revoked   time.Time // zero: it is welcome
}

// Agents lists the agents by name, those that are revoked too.
func (db *DB) Agents(ctx context.Context) (all []AgentRow, err error) {
	err = db.query(ctx, "agents", "SELECT name, domains, added, enrolment, enrolled, revoked FROM agents ORDER BY name", nil,
		func(scan func(...any) error) error {
			var a AgentRow
			var domains string
			var added int64
			var enrolled, revoked sql.NullInt64
			if err := scan(&a.Name, &domains, &added, &a.Enrolment, &enrolled, &revoked); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(domains), &a.Domains); err != nil {
				return fmt.Errorf("domains of %s: %w", a.Name, err)
			}
			a.Added, a.Enrolled, a.Revoked = time.Unix(0, added), moment(enrolled), moment(revoked)
			all = append(all, a)
			return nil
		})
	return all, err
}

// AddAgent lets an agent enrol once, until a time, with the token whose SHA-256
// is given. One that has enrolled goes on until it does so again; one that was
// revoked has to.
func (db *DB) AddAgent(ctx context.Context, name string, domains []string, token []byte, now, until time.Time, by string) error {
	body, err := json.Marshal(domains)
	if err != nil {
		return err
	}
	return db.update(ctx, "add agent", func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT INTO agents (name, domains, added, token, token_until, enrolment) VALUES (?, ?, ?, ?, ?, '')
			ON CONFLICT (name) DO UPDATE SET domains = excluded.domains, token = excluded.token, token_until = excluded.token_until,
				enrolment = CASE WHEN revoked IS NULL THEN enrolment ELSE '' END, revoked = NULL`,
			name, string(body), nanos(now), token, nanos(until)); err != nil {
			return err
		}
		return putEntry(tx, Entry{Time: now, What: WhatAgent, Who: by, Subject: name, Action: "add", Why: "for " + string(body)})
	})
}

// EnrolAgent uses up a token and begins an enrolment. The error is ErrNotFound
// for a token that is not valid (any more).
func (db *DB) EnrolAgent(ctx context.Context, name string, token []byte, enrolment string, now time.Time) error {
	return db.update(ctx, "enrol agent", func(tx *sql.Tx) error {
		n, err := changed(tx.Exec(`UPDATE agents SET token = NULL, enrolment = ?, enrolled = ?
			WHERE name = ? AND token = ? AND token_until > ? AND revoked IS NULL`, enrolment, nanos(now), name, token, nanos(now)))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("token of agent %q: %w", name, ErrNotFound)
		}
		return putEntry(tx, Entry{Time: now, What: WhatAgent, Who: name, Subject: name, Action: "enrol"})
	})
}

// RevokeAgent takes an agent's right to speak. The error is ErrNotFound if it
// has none.
func (db *DB) RevokeAgent(ctx context.Context, name string, now time.Time, by string) error {
	return db.update(ctx, "revoke agent", func(tx *sql.Tx) error {
		n, err := changed(tx.Exec("UPDATE agents SET token = NULL, enrolment = '', revoked = ? WHERE name = ? AND revoked IS NULL", nanos(now), name))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("agent %q: %w", name, ErrNotFound)
		}
		return putEntry(tx, Entry{Time: now, What: WhatAgent, Who: by, Subject: name, Action: "revoke"})
	})
}
