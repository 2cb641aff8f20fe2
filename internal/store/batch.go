package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A Batch is what a stretch of log led to. It is written whole or not at all.
type Batch struct {
	// Time is when the batch was made, by the clock of this machine; zero
	// means now. Retention goes by it.
	Time time.Time

	Positions map[string][]byte // source → how far it was read, as JSON; empty forgets the source
	Messages  []MessageState    // each key once
	Accounts  []AccountState    // each account once
	Findings  []rules.Finding   // added, or replaced by a newer sight of the same
	Decisions []rules.Decision  // added once; see [DB.Commit]
	Incidents []IncidentRow
	Outbox    []OutboxRow // added once by ID
	Learned   []string    // keys of the releases whose teaching is in Accounts
	Spool     []SpoolRow  // of an agent: what the hub is to have
	Sent      [][]byte    // what changed about messages that left
}

// A MessageState is a message that the parser has begun to join. An empty
// State removes it.
type MessageState struct {
	Key   uint64
	State []byte
}

// An AccountState is what was learned about an account. An empty State
// removes it.
type AccountState struct {
	Account string
	State   []byte
}

// Commit writes b in one transaction, or nothing of it. It returns the IDs
// of the decisions that are new, which are those to be carried out or told.
//
// A decision whose ID is known changes nothing and is not new, with two
// exceptions: one that was held back (old news, only observing, the blast
// limit) and is now to be carried out, unless a person has ended it; and one
// that ended by itself before the new one was made.
func (db *DB) Commit(ctx context.Context, b Batch) (fresh []string, err error) {
	if b.Time.IsZero() {
		b.Time = time.Now()
	}
	var s settling
	err = db.updateThen(ctx, "commit", func(tx *sql.Tx) error {
		fresh = nil
		if err := db.putPositions(ctx, tx, &b); err != nil {
			return err
		}
		if err := db.putChanges(ctx, tx, &b, &s); err != nil {
			return err
		}
		if err := putFindings(tx, b.Findings); err != nil {
			return err
		}
		if fresh, err = putDecisions(tx, b.Decisions); err != nil {
			return err
		}
		if err := putIncidents(tx, b.Incidents); err != nil {
			return err
		}
		if err := putOutbox(tx, b.Outbox, b.Time); err != nil {
			return err
		}
		if err := putSpool(tx, b.Spool); err != nil {
			return err
		}
		if err := putSent(tx, b.Sent, b.Time); err != nil {
			return err
		}
		return putLearned(tx, b.Learned, b.Time)
	}, func() { db.changes.done(&s) })
	if err != nil {
		return nil, err
	}
	return fresh, nil
}

const (
	putPosition = `INSERT INTO positions (source, updated, body, moves) VALUES (?, ?, ?, 1)
		ON CONFLICT (source) DO UPDATE SET updated = excluded.updated, body = excluded.body, moves = moves + 1`
	dropPosition = `DELETE FROM positions WHERE source = ?`

	putMessage = `INSERT INTO messages (key, updated, state) VALUES (?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET updated = excluded.updated, state = excluded.state`
	dropMessages = `DELETE FROM messages WHERE key IN (SELECT value FROM json_each(?))`

	putAccount = `INSERT INTO accounts (account, updated, state) VALUES (?, ?, ?)
		ON CONFLICT (account) DO UPDATE SET updated = excluded.updated, state = excluded.state`
	dropAccount = `DELETE FROM accounts WHERE account = ?`
)

func (db *DB) putPositions(ctx context.Context, tx *sql.Tx, b *Batch) error {
	ctx = context.WithoutCancel(ctx) // a statement watches a context at a cost
	positions := table{ctx, tx.StmtContext(ctx, db.putPosition), tx.StmtContext(ctx, db.dropPosition)}
	for source, body := range b.Positions {
		if err := positions.put(source, nanos(b.Time), string(body), len(body)); err != nil {
			return err
		}
	}
	return nil
}

// A table is written by key.
type table struct {
	ctx          context.Context
	insert, drop *sql.Stmt
}

// put writes the value of size bytes under key, or drops the key if the
// value is empty.
func (t table) put(key, now, value any, size int) error {
	if size == 0 {
		_, err := t.drop.ExecContext(t.ctx, key)
		return err
	}
	_, err := t.insert.ExecContext(t.ctx, key, now, value)
	return err
}
