package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"maps"
	"slices"
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
	query := "SELECT key, state FROM messages"
	scan := func(rows *sql.Rows) (name string, state sql.RawBytes, err error) {
		var key int64
		err = rows.Scan(&key, &state)
		return string(binary.BigEndian.AppendUint64(nil, uint64(key))), state, err
	}
	return db.load(ctx, states{"messages", ofMessage, query, scan}, func(name string, state []byte) error {
		return yield(MessageState{Key: binary.BigEndian.Uint64([]byte(name)), State: state})
	})
}

// LoadAccounts hands what was learned about every account to yield, one
// after the other, and stops at its first error. A State is valid during the
// call only.
func (db *DB) LoadAccounts(ctx context.Context, yield func(AccountState) error) error {
	query := "SELECT account, state FROM accounts"
	scan := func(rows *sql.Rows) (name string, state sql.RawBytes, err error) {
		err = rows.Scan(&name, &state)
		return name, state, err
	}
	return db.load(ctx, states{"accounts", ofAccount, query, scan}, func(name string, state []byte) error {
		return yield(AccountState{Account: name, State: state})
	})
}

// states are what a table has of one kind. A name is what follows the kind in
// the key of a change.
type states struct {
	what  string
	kind  byte
	query string
	scan  func(*sql.Rows) (name string, state sql.RawBytes, err error)
}

// load hands over all states, as they are with the changes that are not in the
// table yet.
func (db *DB) load(ctx context.Context, from states, yield func(name string, state []byte) error) error {
	return db.view(ctx, "load "+from.what, func(tx *sql.Tx) error {
		changes, err := newer(tx, from.kind)
		if err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, from.query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			name, state, err := from.scan(rows)
			if err != nil {
				return err
			}
			if _, changed := changes[name]; changed {
				continue
			}
			if err := yield(name, state); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(changes)) {
			if len(changes[name]) == 0 {
				continue // removed
			}
			if err := yield(name, changes[name]); err != nil {
				return err
			}
		}
		return nil
	})
}
