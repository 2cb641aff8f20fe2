package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A DecisionRow is a decision, what came of it, and how it ended.
type DecisionRow struct {
	rules.Decision

	OutcomeAt time.Time `json:"outcome_at,omitzero"` // zero: not known to have been done
	OK        bool      `json:"ok"`
	Outcome   string    `json:"outcome,omitempty"`

	EndedAt  time.Time `json:"ended_at,omitzero"` // zero: stands, or was only proposed
	EndedBy  string    `json:"ended_by,omitempty"`
	EndedWhy string    `json:"ended_why,omitempty"`
}

// A DecisionFilter selects decisions; its zero value selects the newest 100.
type DecisionFilter struct {
	Subject string
	Finding string
	Since   time.Time // not older than this
	Limit   int       // 100 if zero, at most 1,000
}

// A known decision is made again in the two cases that Commit names. One
// that ended before its time was ended by a person, and stays so.
const putDecision = `INSERT INTO decisions (id, finding, subject, action, enforce, at, until, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (id) DO UPDATE SET
		enforce = excluded.enforce, at = excluded.at, until = excluded.until, body = excluded.body,
		outcome_at = NULL, outcome_ok = NULL, outcome = NULL,
		ended_at = NULL, ended_by = NULL, ended_why = NULL
	WHERE (decisions.enforce = 0 AND excluded.enforce = 1 AND decisions.ended_at IS NULL)
	   OR (decisions.until <= excluded.at AND coalesce(decisions.ended_at, decisions.until) >= decisions.until)`

// putDecisions writes decisions and, for the new ones, the journal. It
// returns the IDs of the new ones.
func putDecisions(tx *sql.Tx, decisions []rules.Decision) (fresh []string, err error) {
	for i := range decisions {
		d := &decisions[i]
		body, err := json.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("decision %q: %w", d.ID, err)
		}
		n, err := changed(tx.Exec(putDecision, d.ID, d.Finding, d.Subject, d.Action.String(),
			carriedOut(d), nanos(d.Time), nanos(d.Until), string(body)))
		if err != nil {
			return nil, fmt.Errorf("decision %q: %w", d.ID, err)
		}
		if n == 0 {
			continue
		}
		fresh = append(fresh, d.ID)
		if err := putEntry(tx, intent(d)); err != nil {
			return nil, err
		}
	}
	return fresh, nil
}

// carriedOut says whether somebody has to do something for d.
func carriedOut(d *rules.Decision) bool { return d.Enforce && d.Action > rules.Observe }

// intent is the entry of the journal that a new decision makes.
func intent(d *rules.Decision) Entry {
	e := Entry{Time: d.Time, What: WhatIntent, Who: d.Rule, Subject: d.Subject, Action: d.Action.String(), Decision: d.ID, Why: d.Why}
	if !carriedOut(d) {
		e.What, e.Outcome = WhatProposal, d.HeldBack
	}
	return e
}

// Outcome records what came of carrying a decision out. The same outcome
// told again, as by a retry that fails as before, adds nothing to the
// journal.
func (db *DB) Outcome(ctx context.Context, decision string, at time.Time, ok bool, detail string) error {
	detail = clip(detail)
	return db.update(ctx, "outcome", func(tx *sql.Tx) error {
		e := Entry{Time: at, What: WhatOutcome, Who: ourselves, Decision: decision, Outcome: outcomeText(ok, detail)}
		var same sql.NullBool
		err := tx.QueryRow("SELECT subject, action, outcome_ok = ? AND outcome = ? FROM decisions WHERE id = ?", ok, detail, decision).
			Scan(&e.Subject, &e.Action, &same)
		if err == sql.ErrNoRows {
			return fmt.Errorf("decision %q: %w", decision, ErrNotFound)
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE decisions SET outcome_at = ?, outcome_ok = ?, outcome = ? WHERE id = ?", nanos(at), ok, detail, decision); err != nil {
			return err
		}
		if same.Bool {
			return nil
		}
		return putEntry(tx, e)
	})
}

// outcomeText puts an outcome in the words of the journal.
func outcomeText(ok bool, detail string) string {
	switch {
	case !ok:
		return "failed: " + detail
	case detail == "":
		return "done"
	}
	return "done: " + detail
}

const (
	standing     = "SELECT body FROM decisions WHERE enforce = 1 AND ended_at IS NULL"
	pendingQuery = standing + " AND outcome_at IS NULL ORDER BY at, id"
	activeQuery  = standing + " AND (until IS NULL OR until > ?) ORDER BY at, id"
)

// Pending returns the decisions that were to be carried out and of which no
// outcome is known, oldest first: after a crash they are carried out again.
// [DB.Expire] should come first, so that none is whose time is over.
func (db *DB) Pending(ctx context.Context) ([]rules.Decision, error) {
	return bodies[rules.Decision](ctx, db, "pending", pendingQuery)
}

// Active returns the decisions that should be in force at now, oldest first:
// carried out or about to be, not ended by a person, not over. One whose
// last outcome was a failure is among them, for it is still wanted.
func (db *DB) Active(ctx context.Context, now time.Time) ([]rules.Decision, error) {
	return bodies[rules.Decision](ctx, db, "active", activeQuery, nanos(now))
}

// Expire ends the decisions whose time is over at now and returns them, so
// that they can be undone. Each is returned once.
func (db *DB) Expire(ctx context.Context, now time.Time) ([]rules.Decision, error) {
	var over []rules.Decision
	err := db.update(ctx, "expire", func(tx *sql.Tx) (err error) {
		over, err = end(tx, ending{at: now, by: ourselves, why: "its time was over"}, "enforce = 1 AND until <= ?", nanos(now))
		return err
	})
	return over, err
}

// EndDecisions ends every decision about subject that stands, and returns
// those that have to be undone. What was only proposed about it will not be
// carried out any more either.
func (db *DB) EndDecisions(ctx context.Context, subject string, at time.Time, by, why string) ([]rules.Decision, error) {
	var ended []rules.Decision
	err := db.update(ctx, "end decisions", func(tx *sql.Tx) (err error) {
		ended, err = end(tx, ending{at, by, why}, "subject = ?", subject)
		return err
	})
	return ended, err
}

// An ending is when, by whom and why decisions end.
type ending struct {
	at      time.Time
	by, why string
}

// end ends the standing decisions that match, journals the end of those that
// were carried out, and returns them.
func end(tx *sql.Tx, how ending, match string, arg any) ([]rules.Decision, error) {
	rows, err := tx.Query(`UPDATE decisions SET ended_at = ?, ended_by = ?, ended_why = ?
		WHERE ended_at IS NULL AND `+match+` RETURNING enforce, body`, nanos(how.at), how.by, how.why, arg)
	if err != nil {
		return nil, err
	}
	ended, err := enforced(rows)
	if err != nil {
		return nil, err
	}
	for _, d := range ended {
		e := Entry{Time: how.at, What: WhatEnded, Who: how.by, Subject: d.Subject, Action: d.Action.String(), Decision: d.ID, Why: how.why}
		if err := putEntry(tx, e); err != nil {
			return nil, err
		}
	}
	return ended, nil
}

// enforced reads rows of (enforce, body) and keeps the enforced ones.
func enforced(rows *sql.Rows) ([]rules.Decision, error) {
	defer rows.Close()
	var all []rules.Decision
	for rows.Next() {
		var enforce bool
		var body sql.RawBytes
		if err := rows.Scan(&enforce, &body); err != nil {
			return nil, err
		}
		if !enforce {
			continue
		}
		var d rules.Decision
		if err := json.Unmarshal(body, &d); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

// Decisions returns the decisions that filter selects, newest first, those
// that were only proposed among them.
func (db *DB) Decisions(ctx context.Context, filter DecisionFilter) ([]DecisionRow, error) {
	var w where
	if filter.Subject != "" {
		w.add("subject = ?", filter.Subject)
	}
	if filter.Finding != "" {
		w.add("finding = ?", filter.Finding)
	}
	if !filter.Since.IsZero() {
		w.add("at >= ?", nanos(filter.Since))
	}
	w.args = append(w.args, atMost(filter.Limit))
	var all []DecisionRow
	err := db.query(ctx, "decisions", `SELECT body, outcome_at, coalesce(outcome_ok, 0), coalesce(outcome, ''),
		ended_at, coalesce(ended_by, ''), coalesce(ended_why, '') FROM decisions`+w.String()+` ORDER BY at DESC, id LIMIT ?`,
		w.args, func(scan func(...any) error) error {
			row, err := scanDecision(scan)
			all = append(all, row)
			return err
		})
	return all, err
}

func scanDecision(scan func(...any) error) (DecisionRow, error) {
	var row DecisionRow
	var body sql.RawBytes
	var outcomeAt, endedAt sql.NullInt64
	if err := scan(&body, &outcomeAt, &row.OK, &row.Outcome, &endedAt, &row.EndedBy, &row.EndedWhy); err != nil {
		return row, err
	}
	row.OutcomeAt, row.EndedAt = moment(outcomeAt), moment(endedAt)
	return row, json.Unmarshal(body, &row.Decision)
}
