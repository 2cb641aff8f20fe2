package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A FindingFilter selects findings; its zero value selects the newest 100.
type FindingFilter struct {
	Subject string
	Rule    string
	Since   time.Time // not older than this
	Before  time.Time // older than this: the next page
	Limit   int       // 100 if zero, at most 1,000
}

// An older sight of a finding does not replace a newer one: reading a log
// again must not make a finding shrink.
const putFinding = `INSERT INTO findings (id, rule, subject, at, body) VALUES (?, ?, ?, ?, ?)
	ON CONFLICT (id) DO UPDATE SET at = excluded.at, body = excluded.body
	WHERE excluded.at >= findings.at OR findings.at IS NULL`

func putFindings(tx *sql.Tx, findings []rules.Finding) error {
	for i := range findings {
		f := &findings[i]
		body, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("finding %q: %w", f.ID, err)
		}
		if _, err := tx.Exec(putFinding, f.ID, f.Rule, f.Subject, nanos(f.Time), string(body)); err != nil {
			return fmt.Errorf("finding %q: %w", f.ID, err)
		}
	}
	return nil
}

// Findings returns the findings that filter selects, newest first.
func (db *DB) Findings(ctx context.Context, filter FindingFilter) ([]rules.Finding, error) {
	var w where
	if filter.Subject != "" {
		w.add("subject = ?", filter.Subject)
	}
	if filter.Rule != "" {
		w.add("rule = ?", filter.Rule)
	}
	if !filter.Since.IsZero() {
		w.add("at >= ?", nanos(filter.Since))
	}
	if !filter.Before.IsZero() {
		w.add("at < ?", nanos(filter.Before))
	}
	w.args = append(w.args, atMost(filter.Limit))
	return bodies[rules.Finding](ctx, db, "findings", "SELECT body FROM findings"+w.String()+" ORDER BY at DESC, id LIMIT ?", w.args...)
}

// Finding returns the finding with the ID, or ErrNotFound.
func (db *DB) Finding(ctx context.Context, id string) (rules.Finding, error) {
	found, err := bodies[rules.Finding](ctx, db, "finding", "SELECT body FROM findings WHERE id = ?", id)
	if err != nil {
		return rules.Finding{}, err
	}
	if len(found) == 0 {
		return rules.Finding{}, db.explain("finding", fmt.Errorf("%q: %w", id, ErrNotFound))
	}
	return found[0], nil
}

// bodies decodes the one JSON column that a query selects.
func bodies[T any](ctx context.Context, db *DB, what, query string, args ...any) ([]T, error) {
	var all []T
	err := db.query(ctx, what, query, args, func(scan func(...any) error) error {
		var body sql.RawBytes
		if err := scan(&body); err != nil {
			return err
		}
		var one T
		if err := json.Unmarshal(body, &one); err != nil {
			return err
		}
		all = append(all, one)
		return nil
	})
	return all, err
}
