package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// The settings that hold the key with which recipients are hashed, how its
// replacement goes, and when it was replaced last.
const (
	RecipientKey      = "recipient-key"
	RecipientRotation = "recipient-rotation"
	RecipientReplaced = "recipient-replaced"
)

// BeginRotation stores how the replacement of the recipients' key goes. The
// error is ErrExists if one is under way.
func (db *DB) BeginRotation(ctx context.Context, rotation []byte, now time.Time, by, why string) error {
	return db.update(ctx, "begin rotation", func(tx *sql.Tx) error {
		n, err := changed(tx.Exec("INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", RecipientRotation, rotation))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("rotation: %w", ErrExists)
		}
		return putEntry(tx, Entry{Time: now, What: WhatKey, Who: by, Subject: RecipientKey, Action: "rotate", Why: why})
	})
}

// BeginAgain puts a rotation in place of the one that is under way. The error is
// ErrNotFound if there is none.
func (db *DB) BeginAgain(ctx context.Context, rotation []byte, now time.Time, by, why string) error {
	return db.update(ctx, "begin rotation again", func(tx *sql.Tx) error {
		n, err := changed(tx.Exec("UPDATE settings SET value = ? WHERE key = ?", rotation, RecipientRotation))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("rotation: %w", ErrNotFound)
		}
		return putEntry(tx, Entry{Time: now, What: WhatKey, Who: by, Subject: RecipientKey, Action: "rotate again", Why: why})
	})
}

// EndRotation puts the next key in place of the present one, which is nowhere
// any more.
func (db *DB) EndRotation(ctx context.Context, key []byte, now time.Time) error {
	return db.update(ctx, "end rotation", func(tx *sql.Tx) error {
		at, err := now.MarshalText()
		if err != nil {
			return err
		}
		if err := errors.Join(putSetting(tx, RecipientKey, key), putSetting(tx, RecipientReplaced, at)); err != nil {
			return err
		}
		if _, err := tx.Exec("DELETE FROM settings WHERE key = ?", RecipientRotation); err != nil {
			return err
		}
		return putEntry(tx, Entry{Time: now, What: WhatKey, Who: ourselves, Subject: RecipientKey, Action: "replace", Why: "its rotation is over"})
	})
}
