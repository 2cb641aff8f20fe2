package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// An OutboxRow is a message to people that is kept until its channel took
// it. The ID makes it one message, however often it is committed.
type OutboxRow struct {
	ID        string
	Channel   string
	Body      []byte    // JSON
	NotBefore time.Time // when to try, or to try again; zero in a Batch: at once

	// The store sets these.
	Created  time.Time
	Attempts int    // failed so far
	Error    string // of the last attempt
}

// A Failure is an attempt to send that failed.
type Failure struct {
	ID          string
	At          time.Time
	Error       string
	Next        time.Time // when to try again
	MaxAttempts int       // give up after so many; 0: never
	Untried     bool      // the channel was left alone: this is no attempt
}

// A Backlog counts what a channel has not taken.
type Backlog struct {
	Waiting int       // not sent yet, the due ones included
	Due     int       // to be tried now
	Dead    int       // given up
	Oldest  time.Time // when the oldest waiting one was made
}

func putOutbox(tx *sql.Tx, outbox []OutboxRow, now time.Time) error {
	for i := range outbox {
		row := &outbox[i]
		next := row.NotBefore
		if next.IsZero() {
			next = now
		}
		if _, err := tx.Exec(`INSERT INTO outbox (id, channel, body, created, next) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			row.ID, row.Channel, string(row.Body), nanos(now), nanos(next)); err != nil {
			return fmt.Errorf("outbox %q: %w", row.ID, err)
		}
	}
	return nil
}

const outboxColumns = "SELECT id, channel, body, next, created, attempts, error FROM outbox WHERE sent_at IS NULL"

// Due returns up to limit messages that are to be tried at now, those that
// wait longest first.
func (db *DB) Due(ctx context.Context, now time.Time, limit int) ([]OutboxRow, error) {
	return db.outbox(ctx, outboxColumns+" AND dead_at IS NULL AND next <= ? ORDER BY next, rowid LIMIT ?", nanos(now), atMost(limit))
}

// Dead returns up to limit messages that were given up, the last first.
func (db *DB) Dead(ctx context.Context, limit int) ([]OutboxRow, error) {
	return db.outbox(ctx, outboxColumns+" AND dead_at IS NOT NULL ORDER BY dead_at DESC, rowid LIMIT ?", atMost(limit))
}

func (db *DB) outbox(ctx context.Context, query string, args ...any) ([]OutboxRow, error) {
	var all []OutboxRow
	err := db.query(ctx, "outbox", query, args, func(scan func(...any) error) error {
		var row OutboxRow
		var next, created sql.NullInt64
		err := scan(&row.ID, &row.Channel, &row.Body, &next, &created, &row.Attempts, &row.Error)
		row.NotBefore, row.Created = moment(next), moment(created)
		all = append(all, row)
		return err
	})
	return all, err
}

// Sent records that the channel took the message. The row stays until it is
// pruned, so that the same message is not made again.
func (db *DB) Sent(ctx context.Context, id string, at time.Time) error {
	return db.letter(ctx, "sent", id, "UPDATE outbox SET sent_at = ?, dead_at = NULL, error = '' WHERE id = ?", nanos(at), id)
}

// Failed records a failed attempt and says whether it was the last.
func (db *DB) Failed(ctx context.Context, f Failure) (dead bool, err error) {
	err = db.update(ctx, "failed", func(tx *sql.Tx) error {
		var attempts int
		err := tx.QueryRow("UPDATE outbox SET attempts = attempts + NOT ?, error = ?, next = ? WHERE id = ? AND sent_at IS NULL RETURNING attempts",
			f.Untried, clip(f.Error), nanos(f.Next), f.ID).Scan(&attempts)
		if err == sql.ErrNoRows {
			return fmt.Errorf("outbox %q: %w", f.ID, ErrNotFound)
		}
		dead = f.MaxAttempts > 0 && !f.Untried && attempts >= f.MaxAttempts
		if err != nil || !dead {
			return err
		}
		_, err = tx.Exec("UPDATE outbox SET dead_at = ? WHERE id = ?", nanos(f.At), f.ID)
		return err
	})
	return dead && err == nil, err
}

// Revive gives a message that was given up its attempts back.
func (db *DB) Revive(ctx context.Context, id string, at time.Time) error {
	return db.letter(ctx, "revive", id, "UPDATE outbox SET dead_at = NULL, attempts = 0, next = ? WHERE id = ? AND dead_at IS NOT NULL", nanos(at), id)
}

// letter runs an update of the one row with the ID, or returns ErrNotFound.
func (db *DB) letter(ctx context.Context, what, id, query string, args ...any) error {
	return db.update(ctx, what, func(tx *sql.Tx) error {
		n, err := changed(tx.Exec(query, args...))
		if err == nil && n == 0 {
			return fmt.Errorf("outbox %q: %w", id, ErrNotFound)
		}
		return err
	})
}

// Backlog counts, for each channel that has any, the messages not sent.
func (db *DB) Backlog(ctx context.Context, now time.Time) (map[string]Backlog, error) {
	all := make(map[string]Backlog)
	err := db.query(ctx, "backlog", `SELECT channel, sum(dead_at IS NULL), sum(dead_at IS NULL AND next <= ?), sum(dead_at IS NOT NULL),
		min(iif(dead_at IS NULL, created, NULL)) FROM outbox WHERE sent_at IS NULL GROUP BY channel`, []any{nanos(now)},
		func(scan func(...any) error) error {
			var channel string
			var b Backlog
			var oldest sql.NullInt64
			err := scan(&channel, &b.Waiting, &b.Due, &b.Dead, &oldest)
			b.Oldest = moment(oldest)
			all[channel] = b
			return err
		})
	return all, err
}
