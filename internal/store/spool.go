package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// A SpoolRow is a batch of events that the hub is to have. Batches are numbered
// from 1 without a gap; they are written with the position up to which the log
// was read for them.
type SpoolRow struct {
	Seq    uint64
	Made   time.Time
	Events int
	Body   []byte
}

// putSpool writes the batches of a commit.
func putSpool(tx *sql.Tx, rows []SpoolRow) error {
	for _, r := range rows {
		if _, err := tx.Exec("INSERT INTO spool (seq, made, events, body) VALUES (?, ?, ?, ?)", int64(r.Seq), nanos(r.Made), r.Events, r.Body); err != nil {
			return err
		}
	}
	return nil
}

// Spooled returns batches after one number up to another, the oldest first: at
// most so many, and after the first no more than so many bytes.
func (db *DB) Spooled(ctx context.Context, after, upto uint64, most, bytes int) (rows []SpoolRow, err error) {
	size := 0
	err = db.query(ctx, "spool", "SELECT seq, made, events, body FROM spool WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", []any{int64(after), int64(upto), most},
		func(scan func(...any) error) error {
			var r SpoolRow
			var seq, made int64
			if err := scan(&seq, &made, &r.Events, &r.Body); err != nil {
				return err
			}
			if size += len(r.Body); size > bytes && len(rows) > 0 {
				return nil
			}
			r.Seq, r.Made = uint64(seq), time.Unix(0, made)
			rows = append(rows, r)
			return nil
		})
	return rows, err
}

// Durable has each commit from now on survive a loss of power too. An agent needs
// it: what the hub was sent must not be made again with another number.
func (db *DB) Durable(ctx context.Context) error {
	_, err := db.write.ExecContext(ctx, "PRAGMA synchronous = full")
	return db.explain("synchronous", err)
}

// DropSpooled removes a batch.
func (db *DB) DropSpooled(ctx context.Context, seq uint64) error {
	return db.update(ctx, "drop spooled", func(tx *sql.Tx) error {
		_, err := tx.Exec("DELETE FROM spool WHERE seq = ?", int64(seq))
		return err
	})
}

// A SpoolState is what an agent's spool holds.
type SpoolState struct {
	First, Last uint64 // numbers; 0: it is empty
	Bytes       int64
}

// SpoolState measures the spool.
func (db *DB) SpoolState(ctx context.Context) (s SpoolState, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT coalesce(min(seq), 0), coalesce(max(seq), 0), coalesce(sum(length(body)), 0) FROM spool").
		Scan(&s.First, &s.Last, &s.Bytes)
	return s, db.explain("spool", err)
}

// TrimSpool removes the batches up to acked that were made before old, and then
// the oldest until no more than most bytes are left: first those that the hub has
// had, as had says. It returns how many events were removed that it has not had.
func (db *DB) TrimSpool(ctx context.Context, acked uint64, had func(seq uint64) bool, old time.Time, most int64) (lost int, err error) {
	err = db.update(ctx, "trim spool", func(tx *sql.Tx) error {
		lost = 0
		if _, err := tx.Exec("DELETE FROM spool WHERE seq <= ? AND made < ?", int64(acked), nanos(old)); err != nil {
			return err
		}
		var bytes int64
		if err := tx.QueryRow("SELECT coalesce(sum(length(body)), 0) FROM spool").Scan(&bytes); err != nil || bytes <= most {
			return err
		}
		bytes, _, err := free(tx, bytes-most, had)
		if err != nil {
			return err
		}
		_, lost, err = free(tx, bytes, func(seq uint64) bool { return !had(seq) })
		return err
	})
	return lost, err
}

// free removes the oldest batches of which which is true until so many bytes are
// free. It returns how many are still missing, and the events that are gone.
func free(tx *sql.Tx, bytes int64, which func(seq uint64) bool) (missing int64, events int, err error) {
	rows, err := tx.Query("SELECT seq, events, length(body) FROM spool ORDER BY seq")
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	var gone []int64
	for bytes > 0 && rows.Next() {
		var seq, size int64
		var n int
		if err := rows.Scan(&seq, &n, &size); err != nil {
			return 0, 0, err
		}
		if which(uint64(seq)) {
			gone, bytes, events = append(gone, seq), bytes-size, events+n
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, 0, err
	}
	for _, seq := range gone {
		if _, err := tx.Exec("DELETE FROM spool WHERE seq = ?", seq); err != nil {
			return 0, 0, err
		}
	}
	return bytes, events, nil
}
