package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// hubSays is who ends decisions that the hub has ended.
const hubSays = "hub"

// Mirror brings an agent's journal to what its hub says, in one transaction:
// each of set is now the strongest decision about its subject, and none is left
// about the subjects in lifted. It returns those of set that are to be carried
// out. One that had been ended here before, and is known as ended, is not among
// them: a hub that was restored from a backup blocks nobody again who was
// released since.
func (db *DB) Mirror(ctx context.Context, set []rules.Decision, lifted []string, at time.Time) (inForce []rules.Decision, err error) {
	err = db.update(ctx, "mirror", func(tx *sql.Tx) error {
		inForce = nil
		for _, subject := range lifted {
			if _, err := end(tx, ending{at, hubSays, "lifted"}, "subject = ?", subject); err != nil {
				return err
			}
		}
		for i := range set {
			if err := endStronger(tx, &set[i], at); err != nil {
				return err
			}
			if err := reopen(tx, &set[i]); err != nil {
				return err
			}
			if _, err := putDecisions(tx, set[i:i+1]); err != nil {
				return err
			}
			ok, err := stands(tx, set[i].ID)
			if err != nil {
				return err
			}
			if ok {
				inForce = append(inForce, set[i])
			}
		}
		return nil
	})
	return inForce, err
}

// endStronger ends what stands about the subject of d and is not weaker. What is
// weaker has its own end, and may be all that is left when d is over.
func endStronger(tx *sql.Tx, d *rules.Decision, at time.Time) error {
	rows, err := tx.Query("SELECT enforce, body FROM decisions WHERE subject = ? AND id <> ? AND ended_at IS NULL", d.Subject, d.ID)
	if err != nil {
		return err
	}
	others, err := enforced(rows)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.Action < d.Action {
			continue
		}
		if _, err := end(tx, ending{at, hubSays, "replaced"}, "id = ?", other.ID); err != nil {
			return err
		}
	}
	return nil
}

// reopen makes room for a decision that was made again since its end: the hub's
// clock may tell that end otherwise than ours.
func reopen(tx *sql.Tx, d *rules.Decision) error {
	_, err := tx.Exec("DELETE FROM decisions WHERE id = ? AND ended_at IS NOT NULL AND at < ?", d.ID, nanos(d.Time))
	return err
}

func stands(tx *sql.Tx, id string) (ok bool, err error) {
	err = tx.QueryRow("SELECT ended_at IS NULL FROM decisions WHERE id = ?", id).Scan(&ok)
	return ok, err
}

// Ended reports which of the decisions this journal knows, and knows to be
// over.
func (db *DB) Ended(ctx context.Context, ids []string, now time.Time) (over map[string]bool, known map[string]bool, err error) {
	over, known = map[string]bool{}, map[string]bool{}
	text, err := json.Marshal(ids)
	if err != nil {
		return nil, nil, err
	}
	err = db.query(ctx, "ended", "SELECT id, enforce = 0 OR ended_at IS NOT NULL OR coalesce(until <= ?, 0) FROM decisions WHERE id IN (SELECT value FROM json_each(?))",
		[]any{nanos(now), string(text)}, func(scan func(...any) error) error {
			var id string
			var ended bool
			if err := scan(&id, &ended); err != nil {
				return fmt.Errorf("ended: %w", err)
			}
			known[id], over[id] = true, ended
			return nil
		})
	return over, known, err
}
