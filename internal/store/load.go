package store

import (
	"context"
	"database/sql"
)

// LoadPositions returns how far each source was read.
func (db *DB) LoadPositions(ctx context.Context) (map[string][]byte, error) {
	positions := make(map[string][]byte)
	err := db.query(ctx, "load positions", "SELECT source, body FROM positions", nil,
		func(scan func(...any) error) error {
			var source string
			var body []byte
			if err := scan(&source, &body); err != nil {
				return err
			}
			positions[source] = body
			return nil
		})
	return positions, err
}

// LoadMessages hands every open message to yield, one after the other, and
// stops at its first error. A State is valid during the call only.
func (db *DB) LoadMessages(ctx context.Context, yield func(MessageState) error) error {
	return db.query(ctx, "load messages", "SELECT key, state FROM messages", nil,
		func(scan func(...any) error) error {
			var key int64
			var state sql.RawBytes
			if err := scan(&key, &state); err != nil {
				return err
			}
			return yield(MessageState{Key: uint64(key), State: state})
		})
}

// LoadAccounts hands what was learned about every account to yield, one
// after the other, and stops at its first error. A State is valid during the
// call only.
func (db *DB) LoadAccounts(ctx context.Context, yield func(AccountState) error) error {
	return db.query(ctx, "load accounts", "SELECT account, state FROM accounts", nil,
		func(scan func(...any) error) error {
			var account string
			var state sql.RawBytes
			if err := scan(&account, &state); err != nil {
				return err
			}
			return yield(AccountState{Account: account, State: state})
		})
}
