package store

import (
	"context"
	"database/sql"
	"math"
	"time"
)

// Ages says for how long things are kept; zero keeps them for ever. What
// stands (a decision in force with its finding and its journal, an open
// incident, a message not sent, a release not learned) is kept in any case.
type Ages struct {
	Findings  time.Duration
	Journal   time.Duration // decisions, journal and releases
	Incidents time.Duration // since they changed last
	Outbox    time.Duration // since they were sent or given up; not below the time that logs are read back
	Accounts  time.Duration // since they changed last
	Messages  time.Duration // since they changed last
	Listings  time.Duration // changes on block lists; of what is listed, all are kept
	Sent      time.Duration // since they were written
}

// Pruned counts what was removed.
type Pruned struct {
	Findings, Decisions, Journal, Releases, Incidents, Outbox, Accounts, Messages, Listings, Sent int
}

// pruneRows is how many rows one transaction removes, and pruneWindow how
// many it looks at where no index leads to the old ones: few enough for a
// commit not to wait long.
const (
	pruneRows   = 500
	pruneWindow = 5000
)

// A sweep removes the rows of a table that match; ?1 is the time before
// which a row is old.
type sweep struct {
	removed *int
	age     time.Duration
	table   string
	match   string
	key     string // walk the whole table by this key; empty: an index leads to the rows
}

const inForce = "SELECT 1 FROM decisions AS d WHERE d.enforce = 1 AND d.ended_at IS NULL AND "

// Prune removes what is older than ages allow at now, in many small
// transactions, and gives freed space back to the file system once it is
// worth it. After an error the counts say what was removed before it.
func (db *DB) Prune(ctx context.Context, now time.Time, ages Ages) (Pruned, error) {
	var p Pruned
	if err := db.settleAll(ctx); err != nil { // what is old is looked for in the tables
		return p, err
	}
	for _, s := range []sweep{
		{&p.Findings, ages.Findings, "findings", "at < ?1 AND NOT EXISTS (" + inForce + "d.finding = findings.id)", ""},
		{&p.Journal, ages.Journal, "journal", "at < ?1 AND NOT EXISTS (" + inForce + "d.id = journal.decision)", ""},
		{&p.Decisions, ages.Journal, "decisions", "at < ?1 AND (enforce = 0 OR ended_at < ?1)", ""},
		{&p.Releases, ages.Journal, "releases", "learned_at < ?1", ""},
		{&p.Incidents, ages.Incidents, "incidents", "open = 0 AND updated < ?1", ""},
		{&p.Outbox, ages.Outbox, "outbox", "coalesce(sent_at, dead_at) < ?1", ""},
		{&p.Accounts, ages.Accounts, "accounts", "updated < ?1", "id"},
		{&p.Messages, ages.Messages, "messages", "updated < ?1", "key"},
		{&p.Listings, ages.Listings, "listings", "at < ?1 AND (subject = '' OR " + listingEnded + " OR " + listingPassed + ")", ""},
		{&p.Sent, ages.Sent, "sent", "at < ?1", ""},
	} {
		if s.age <= 0 {
			continue
		}
		prune := db.pruneFound
		if s.key != "" {
			prune = db.pruneWalk
		}
		if err := prune(ctx, s, nanos(now.Add(-s.age))); err != nil {
			return p, err
		}
	}
	return p, db.shrink(ctx)
}

// pruneFound removes rows that an index leads to, or that lie first.
func (db *DB) pruneFound(ctx context.Context, s sweep, old any) error {
	query := "DELETE FROM " + s.table + " WHERE rowid IN (SELECT rowid FROM " + s.table + " WHERE " + s.match + " LIMIT ?2)"
	for {
		n, err := db.remove(ctx, query, old, pruneRows)
		*s.removed += n
		if err != nil || n < pruneRows {
			return err
		}
	}
}

// pruneWalk walks a table by its key and looks at every row once.
func (db *DB) pruneWalk(ctx context.Context, s sweep, old any) error {
	window := "SELECT max(k) FROM (SELECT " + s.key + " AS k FROM " + s.table + " WHERE k >= ? ORDER BY k LIMIT ?)"
	query := "DELETE FROM " + s.table + " WHERE " + s.match + " AND " + s.key + " BETWEEN ?2 AND ?3"
	for from := int64(math.MinInt64); ; {
		var to sql.NullInt64
		if err := db.read.QueryRowContext(ctx, window, from, pruneWindow).Scan(&to); err != nil {
			return db.explain("prune", err)
		}
		if !to.Valid {
			return nil // past the last row
		}
		n, err := db.remove(ctx, query, old, from, to.Int64)
		*s.removed += n
		if err != nil || to.Int64 == math.MaxInt64 {
			return err
		}
		from = to.Int64 + 1
	}
}

// remove runs one deletion in its own transaction.
func (db *DB) remove(ctx context.Context, query string, args ...any) (n int, err error) {
	err = db.update(ctx, "prune", func(tx *sql.Tx) error {
		n, err = changed(tx.Exec(query, args...))
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// shrink gives free pages back to the file system, a few at a time, while
// they are more than 4 MB and more than a tenth of the file: fewer will soon
// be needed again.
func (db *DB) shrink(ctx context.Context) error {
	before := math.MaxInt
	for {
		var free, pages int
		err := db.write.QueryRowContext(ctx, "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count").Scan(&free, &pages)
		if err != nil || free < 1024 || free < pages/10 || free >= before {
			return db.explain("shrink", err)
		}
		before = free
		if _, err := db.write.ExecContext(ctx, "PRAGMA incremental_vacuum(500)"); err != nil {
			return db.explain("shrink", err)
		}
	}
}
