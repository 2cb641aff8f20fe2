package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// An IncidentRow is an incident as it is kept: its body is JSON that only the
// incident package understands.
type IncidentRow struct {
	ID      string
	Body    []byte
	Open    bool
	Updated time.Time
}

const putIncident = `INSERT INTO incidents (id, open, updated, body) VALUES (?, ?, ?, ?)
	ON CONFLICT (id) DO UPDATE SET open = excluded.open, updated = excluded.updated, body = excluded.body`

func putIncidents(tx *sql.Tx, incidents []IncidentRow) error {
	for i := range incidents {
		in := &incidents[i]
		if _, err := tx.Exec(putIncident, in.ID, in.Open, nanos(in.Updated), string(in.Body)); err != nil {
			return fmt.Errorf("incident %q: %w", in.ID, err)
		}
	}
	return nil
}

const incidentColumns = "SELECT id, open, updated, body FROM incidents"

// OpenIncidents returns every incident that is open, oldest first.
func (db *DB) OpenIncidents(ctx context.Context) ([]IncidentRow, error) {
	return db.incidents(ctx, incidentColumns+" WHERE open = 1 ORDER BY updated, id")
}

// Incidents returns up to limit incidents that changed before the given
// time, newest first; a zero time selects all.
func (db *DB) Incidents(ctx context.Context, before time.Time, limit int) ([]IncidentRow, error) {
	if before.IsZero() {
		before = latest
	}
	return db.incidents(ctx, incidentColumns+" WHERE updated < ? ORDER BY updated DESC, id LIMIT ?", nanos(before), atMost(limit))
}

// Incident returns the incident with the ID, or ErrNotFound.
func (db *DB) Incident(ctx context.Context, id string) (IncidentRow, error) {
	found, err := db.incidents(ctx, incidentColumns+" WHERE id = ?", id)
	if err != nil {
		return IncidentRow{}, err
	}
	if len(found) == 0 {
		return IncidentRow{}, db.explain("incident", fmt.Errorf("%q: %w", id, ErrNotFound))
	}
	return found[0], nil
}

func (db *DB) incidents(ctx context.Context, query string, args ...any) ([]IncidentRow, error) {
	var all []IncidentRow
	err := db.query(ctx, "incidents", query, args, func(scan func(...any) error) error {
		var in IncidentRow
		var updated sql.NullInt64
		if err := scan(&in.ID, &in.Open, &updated, &in.Body); err != nil {
			return err
		}
		in.Updated = moment(updated)
		all = append(all, in)
		return nil
	})
	return all, err
}
