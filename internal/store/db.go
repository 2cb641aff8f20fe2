// Package store remembers, in one SQLite file, everything that must survive
// a restart: how far each log was read, the messages that are still open,
// what was learned about each account, findings, decisions and what came of
// them, incidents, and the messages that people have not been sent yet.
//
// [DB.Commit] is the heart: what a stretch of log led to is written in one
// transaction together with the position up to which it was read, so that
// after a crash reading resumes where the state is, and nothing is counted
// twice or forgotten.
//
// There is one writing connection and a pool of reading ones. The file is in
// write-ahead mode: readers never hold up the writer. A commit that was
// acknowledged survives the death of the program. After a loss of power the
// last commits may be missing, but the whole of each, position included, and
// the log is read again from there.
//
// Consumers declare the few methods that they use; package storetest has the
// suite that every store must pass.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// A DB is an open database. Its methods may be used by several goroutines.
type DB struct {
	path  string
	file  os.FileInfo // of path, when it was opened
	write *sql.DB     // one connection
	read  *sql.DB     // several connections that cannot write

	// The statements that Commit runs for each row.
	putPosition, dropPosition *sql.Stmt
	putMessage, dropMessages  *sql.Stmt
	putAccount, dropAccount   *sql.Stmt

	changes changes
}

// readers is how many queries may run at the same time.
const readers = 4

// Open opens the database at path, creates it if it is not there, and brings
// its schema up to date. A new file can be read by its owner only, for it
// holds the addresses of customers.
func Open(ctx context.Context, path string) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	db := &DB{path: path, changes: changes{age: changesAge, bytes: changesBytes, few: changesFew}}
	if db.file, err = touch(path); err != nil {
		return nil, db.explain("open", err)
	}
	if err := db.connect(ctx); err != nil {
		return nil, errors.Join(db.explain("open", err), db.Close())
	}
	return db, nil
}

// touch creates path with narrow permissions if it is not there, and finds
// out whether it may be written.
func touch(path string) (os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	return info, errors.Join(err, f.Close())
}

func (db *DB) connect(ctx context.Context) error {
	var err error
	// auto_vacuum comes first: it has no effect once the file has a page.
	// The cache holds the pages that a large commit touches. The commit that
	// brings the log to 16,000 pages (64 MB) copies it into the file and
	// takes some 150 ms longer; copying more often would copy the pages of
	// busy accounts again and again.
	db.write, err = sql.Open("sqlite", dsn(db.path, "immediate",
		"auto_vacuum(incremental)", "journal_mode(wal)", "synchronous(normal)", "foreign_keys(on)",
		"cache_size(-16000)", "wal_autocheckpoint(16000)", "journal_size_limit(67108864)"))
	if err != nil {
		return err
	}
	db.write.SetMaxOpenConns(1)
	if err := db.migrate(ctx); err != nil {
		return err
	}
	db.read, err = sql.Open("sqlite", dsn(db.path, "deferred", "query_only(on)", "foreign_keys(on)"))
	if err != nil {
		return err
	}
	db.read.SetMaxOpenConns(readers)
	return db.prepare(ctx)
}

// dsn names the file as a URI, so that every path is possible.
func dsn(path, lock string, pragmas ...string) string {
	query := url.Values{"_txlock": {lock}, "_pragma": append([]string{"busy_timeout(5000)"}, pragmas...)}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	return u.String()
}

func (db *DB) prepare(ctx context.Context) error {
	for _, s := range []struct {
		stmt  **sql.Stmt
		query string
	}{
		{&db.putPosition, putPosition}, {&db.dropPosition, dropPosition},
		{&db.putMessage, putMessage}, {&db.dropMessages, dropMessages},
		{&db.putAccount, putAccount}, {&db.dropAccount, dropAccount},
	} {
		var err error
		if *s.stmt, err = db.write.PrepareContext(ctx, s.query); err != nil {
			return err
		}
	}
	return nil
}

// closeTime is how long Close may write.
const closeTime = 10 * time.Second

// Close waits for the queries under way and closes the file. What a program of
// the release before would not find is put where it does, as far as that can be
// written and is not too much; without, nothing is lost to this one.
func (db *DB) Close() error {
	if db.changes.known {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		_ = db.settleAll(ctx)
	}
	var errs []error
	if db.read != nil {
		errs = append(errs, db.read.Close())
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
	}
	return errors.Join(errs...)
}

// update runs do in one transaction, which is undone if do returns an error.
// ctx limits the wait for the writer; a transaction once begun is finished,
// because to break it off would only throw work away.
func (db *DB) update(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	return db.updateThen(ctx, what, do, func() {})
}

// updateThen runs done too, once the transaction is committed and before the next
// begins.
func (db *DB) updateThen(ctx context.Context, what string, do func(tx *sql.Tx) error, done func()) error {
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return db.explain(what, err)
	}
	defer conn.Close()
	tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return db.explain(what, err)
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback() // SQLite has done so itself after the worst errors
		return db.explain(what, err)
	}
	if err := tx.Commit(); err != nil {
		db.changes.known = false // for who knows what of it was done
		return db.explain(what, err)
	}
	done()
	return nil
}

// view runs do on one state of the database.
func (db *DB) view(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	tx, err := db.read.BeginTx(ctx, nil)
	if err != nil {
		return db.explain(what, err)
	}
	defer tx.Rollback() // nothing was written
	return db.explain(what, do(tx))
}

// query hands each row of a query to row; scan is valid during the call only.
func (db *DB) query(ctx context.Context, what, query string, args []any, row func(scan func(...any) error) error) error {
	rows, err := db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return db.explain(what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return db.explain(what, err)
		}
	}
	return db.explain(what, rows.Err())
}

// A where collects the conditions of a query.
type where struct {
	terms []string
	args  []any
}

func (w *where) add(term string, args ...any) {
	w.terms = append(w.terms, term)
	w.args = append(w.args, args...)
}

func (w *where) String() string {
	if len(w.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.terms, " AND ")
}

// atMost bounds what one query returns: 100 rows unless the caller asked for
// another number, and never more than 1,000.
func atMost(limit int) int {
	if limit <= 0 {
		return 100
	}
	return min(limit, 1000)
}
