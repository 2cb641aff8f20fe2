package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/vedetta-watch/vedetta/rules"
)

// A Switched is what was set for a subject at a panel or by a program, outside
// of the mail server's own tables.
type Switched struct {
	Switch  string // the panel's or program's name
	Subject string
	Action  rules.Action
	Undo    string // how it was before, in the switch's own words
	Done    bool   // false: it may have been set, or not
}

// PutSwitched notes that s is about to be set, or with Done that it was.
func (db *DB) PutSwitched(ctx context.Context, s Switched) error {
	return db.update(ctx, "switch", func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO switches (switch, subject, action, undo, done) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (switch, subject, action) DO UPDATE SET undo = excluded.undo, done = excluded.done`,
			s.Switch, s.Subject, s.Action.String(), s.Undo, s.Done)
		return err
	})
}

// DropSwitched forgets s, which was taken back. Forgetting twice is once.
func (db *DB) DropSwitched(ctx context.Context, s Switched) error {
	return db.update(ctx, "switch", func(tx *sql.Tx) error {
		_, err := tx.Exec("DELETE FROM switches WHERE switch = ? AND subject = ? AND action = ?", s.Switch, s.Subject, s.Action.String())
		return err
	})
}

// Switched returns everything that is or may be set, in the order in which it
// was noted.
func (db *DB) Switched(ctx context.Context) ([]Switched, error) {
	var all []Switched
	err := db.query(ctx, "switches", "SELECT switch, subject, action, undo, done FROM switches ORDER BY rowid", nil,
		func(scan func(...any) error) error {
			var s Switched
			var action string
			if err := scan(&s.Switch, &s.Subject, &action, &s.Undo, &s.Done); err != nil {
				return err
			}
			if err := s.Action.UnmarshalText([]byte(action)); err != nil {
				return fmt.Errorf("switch %s of %s: %w", s.Switch, s.Subject, err)
			}
			all = append(all, s)
			return nil
		})
	return all, err
}
