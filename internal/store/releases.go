package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A Release is an operator's word that a subject is in order, from which the
// detector learns.
type Release struct {
	Key     string    `json:"key"` // makes it idempotent
	Subject string    `json:"subject"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
}

// Release records r and ends every decision about its subject, in one
// transaction. It returns the decisions that have to be undone. A release
// whose key is known changes nothing.
//
// What the detector learned is written by a later [DB.Commit] that names the
// key in Learned; until then [DB.PendingReleases] returns r, so that a crash
// between the two loses nothing.
func (db *DB) Release(ctx context.Context, r Release) ([]rules.Decision, error) {
	var ended []rules.Decision
	err := db.update(ctx, "release", func(tx *sql.Tx) error {
		n, err := changed(tx.Exec("INSERT INTO releases (key, subject, at, by, why) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
			r.Key, r.Subject, nanos(r.At), r.By, r.Why))
		if err != nil || n == 0 {
			return err
		}
		if err := putEntry(tx, Entry{Time: r.At, What: WhatRelease, Who: r.By, Subject: r.Subject, Why: r.Why}); err != nil {
			return err
		}
		ended, err = end(tx, ending{r.At, r.By, r.Why}, "subject = ?", r.Subject)
		return err
	})
	return ended, err
}

// PendingReleases returns the releases that the detector has not learned
// yet, oldest first.
func (db *DB) PendingReleases(ctx context.Context) ([]Release, error) {
	return db.releases(ctx, "learned_at IS NULL")
}

// UnfinishedReleases returns the releases since a time of which the journal
// does not say what came of them, oldest first: whoever carried them out was
// interrupted.
func (db *DB) UnfinishedReleases(ctx context.Context, since time.Time) ([]Release, error) {
	return db.releases(ctx, `at > ? AND NOT EXISTS (SELECT 1 FROM journal j
		WHERE j.subject = releases.subject AND j.at = releases.at AND j.what = ? AND j.outcome <> '')`, nanos(since), WhatRelease)
}

func (db *DB) releases(ctx context.Context, match string, args ...any) ([]Release, error) {
	var all []Release
	err := db.query(ctx, "releases", "SELECT key, subject, at, by, why FROM releases WHERE "+match+" ORDER BY at, key", args,
		func(scan func(...any) error) error {
			var r Release
			var at sql.NullInt64
			err := scan(&r.Key, &r.Subject, &at, &r.By, &r.Why)
			r.At = moment(at)
			all = append(all, r)
			return err
		})
	return all, err
}

// putLearned marks releases as learned at the given time.
func putLearned(tx *sql.Tx, keys []string, at time.Time) error {
	for _, key := range keys {
		if _, err := tx.Exec("UPDATE releases SET learned_at = ? WHERE key = ? AND learned_at IS NULL", nanos(at), key); err != nil {
			return fmt.Errorf("release %q: %w", key, err)
		}
	}
	return nil
}
