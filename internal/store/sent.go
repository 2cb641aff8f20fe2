package store

import (
	"context"
	"database/sql"
	"time"
)

// putSent writes what changed about messages that left, in its order.
func putSent(tx *sql.Tx, states [][]byte, at time.Time) error {
	for _, state := range states {
		if _, err := tx.Exec("INSERT INTO sent (at, body) VALUES (?, ?)", nanos(at), state); err != nil {
			return err
		}
	}
	return nil
}

// LoadSent hands what was written about messages that left to yield, in that
// order, and stops at its first error. State is valid during the call only.
func (db *DB) LoadSent(ctx context.Context, yield func(state []byte) error) error {
	return db.query(ctx, "load sent", "SELECT body FROM sent ORDER BY id", nil, func(scan func(...any) error) error {
		var state sql.RawBytes
		if err := scan(&state); err != nil {
			return err
		}
		return yield(state)
	})
}
