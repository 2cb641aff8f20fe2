package store

import (
	"context"
	"database/sql"
	"fmt"
)

// Setting returns what was stored under key, or ErrNotFound.
func (db *DB) Setting(ctx context.Context, key string) ([]byte, error) {
	var value []byte
	err := db.read.QueryRowContext(ctx, "SELECT value FROM settings WHERE key = ?", key).Scan(&value)
	if err == sql.ErrNoRows {
		err = fmt.Errorf("%q: %w", key, ErrNotFound)
	}
	return value, db.explain("setting", err)
}

// SetSetting stores value under key.
func (db *DB) SetSetting(ctx context.Context, key string, value []byte) error {
	return db.update(ctx, "set setting", func(tx *sql.Tx) error { return putSetting(tx, key, value) })
}

func putSetting(tx *sql.Tx, key string, value []byte) error {
	_, err := tx.Exec("INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	return err
}

// SettingOnce stores value under key if there is none yet, and returns what
// is stored. It is for what is made at the first start, as the key that
// recipients are hashed with.
func (db *DB) SettingOnce(ctx context.Context, key string, value []byte) ([]byte, error) {
	var stored []byte
	err := db.update(ctx, "set setting once", func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", key, value); err != nil {
			return err
		}
		return tx.QueryRow("SELECT value FROM settings WHERE key = ?", key).Scan(&stored)
	})
	return stored, err
}
