package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"iter"
	"strconv"
	"time"
)

// Most of what a commit says of messages and accounts is out of date soon: the
// message is delivered, the account sends again. To write it where it belongs
// costs a page for each, for they lie scattered over the file. So a commit of many
// adds all of them to the table changes, in a row or a few, and a later commit or Prune
// puts what nothing since said anew into the tables.

const (
	changesAge   = time.Minute // after which a row is put into the tables by a commit
	changesBytes = 64 << 20    // of all rows; beyond, commits put more into the tables than they add
	changesOfRow = 1 << 20     // bytes, about; what a commit says beyond goes into another row
	changesFew   = 200         // changes; a commit with no more is written into the tables, unless rows are waiting
	settledWith  = 2           // rows that a commit puts into the tables because of their age
	changeCosts  = 100         // bytes that a change takes besides its own, in memory
)

// changes is what the writer knows of that table. It belongs to whoever holds
// the writing connection.
type changes struct {
	age        time.Duration
	bytes, few int

	known  bool // what follows was read from the file
	rows   []changesRow
	size   int              // of all rows
	latest map[string]int64 // key of a change → the row that has its newest
}

type changesRow struct {
	seq     int64
	size    int
	written time.Time
}

// The kinds of changes: the first byte of their keys.
const (
	ofMessage = 'm' // followed by its key, eight bytes, the highest first
	ofAccount = 'a' // followed by its name
)

func appendChange(body, key, state []byte) []byte {
	body = append(binary.AppendUvarint(body, uint64(len(key))), key...)
	return append(binary.AppendUvarint(body, uint64(len(state))), state...)
}

// changesOf is what b says of messages and accounts, as the bodies of rows.
func changesOf(b *Batch) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var body, key []byte
		left := b.size()
		add := func(state []byte) bool {
			if body == nil {
				body = make([]byte, 0, min(left, changesOfRow)+changesOfRow/16)
			}
			before := len(body)
			body = appendChange(body, key, state)
			left -= len(body) - before
			if len(body) < changesOfRow {
				return true
			}
			full := body
			body = nil
			return yield(full)
		}
		for i := range b.Messages {
			key = binary.BigEndian.AppendUint64(append(key[:0], ofMessage), b.Messages[i].Key)
			if !add(b.Messages[i].State) {
				return
			}
		}
		for i := range b.Accounts {
			key = append(append(key[:0], ofAccount), b.Accounts[i].Account...)
			if !add(b.Accounts[i].State) {
				return
			}
		}
		if len(body) > 0 {
			yield(body)
		}
	}
}

// size is about how many bytes b says of messages and accounts.
func (b *Batch) size() (n int) {
	for i := range b.Messages {
		n += len(b.Messages[i].State) + 12
	}
	for i := range b.Accounts {
		n += len(b.Accounts[i].State) + len(b.Accounts[i].Account) + 4
	}
	return n
}

// eachChange is the key and the state of all changes of a row, up to the first
// that cannot be read. An empty state removes what was there.
func eachChange(body []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, state []byte) bool) {
		for len(body) > 0 {
			key, rest, ok := cutBytes(body)
			if !ok || len(key) == 0 || key[0] == ofMessage && len(key) != 9 {
				return
			}
			state, rest, ok := cutBytes(rest)
			if !ok || !yield(key, state) {
				return
			}
			body = rest
		}
	}
}

// cutBytes takes a length and that many bytes off the front.
func cutBytes(from []byte) (b, rest []byte, ok bool) {
	size, n := binary.Uvarint(from)
	if n <= 0 || size > uint64(len(from)-n) {
		return nil, nil, false
	}
	end := n + int(size)
	return from[n:end], from[end:], true
}

// recall reads the rows that are there, unless they are known. A transaction
// does so before it writes any.
func (c *changes) recall(tx *sql.Tx) error {
	if c.known {
		return nil
	}
	c.rows, c.size, c.latest = nil, 0, map[string]int64{}
	err := eachRow(tx, func(seq int64, body []byte) { c.add(seq, body) })
	c.known = err == nil
	return err
}

// add notes a row.
func (c *changes) add(seq int64, body []byte) {
	row := changesRow{seq, len(body), time.Now()}
	for key := range eachChange(body) {
		c.latest[string(key)] = seq
		row.size += changeCosts
	}
	c.rows = append(c.rows, row)
	c.size += row.size
}

// eachRow hands over the rows of changes, the oldest first. A body is valid
// during the call only.
func eachRow(tx *sql.Tx, do func(seq int64, body []byte)) error {
	rows, err := tx.Query("SELECT seq, body FROM changes ORDER BY seq")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var body sql.RawBytes
		if err := rows.Scan(&seq, &body); err != nil {
			return err
		}
		do(seq, body)
	}
	return rows.Err()
}

// A settling is what one transaction does about changes. They know of it once it
// is committed.
type settling struct {
	settled int      // rows that went into the tables, from the oldest
	keys    []string // of what those still said
	gone    bool     // one was not there
	added   []addedRow
}

type addedRow struct {
	seq  int64
	body []byte
}

// done notes what was committed.
func (c *changes) done(s *settling) {
	for _, row := range c.rows[:s.settled] {
		c.size -= row.size
	}
	c.rows = c.rows[s.settled:]
	for _, key := range s.keys {
		delete(c.latest, key)
	}
	for _, row := range s.added {
		c.add(row.seq, row.body)
	}
	if s.gone {
		c.known = false
	}
}

// due is how many rows a commit that adds some is to put into the tables: a few
// of those that are old enough, and more than it adds while they are too large.
func (c *changes) due(adds int, now time.Time) (n int) {
	size := c.size
	for n < len(c.rows) && (n <= adds && size > c.bytes || n < settledWith && now.Sub(c.rows[n].written) >= c.age) {
		size -= c.rows[n].size
		n++
	}
	return n
}

// putChanges writes what b says of messages and accounts: unless rows are
// waiting, into the tables where it is little, and a row would be no gain, or what
// teaches an installation all at once.
func (db *DB) putChanges(ctx context.Context, tx *sql.Tx, b *Batch, s *settling) error {
	c := &db.changes
	if err := c.recall(tx); err != nil {
		return err
	}
	if few := len(b.Messages)+len(b.Accounts) <= c.few; len(c.rows) == 0 && (few || b.size() > c.bytes) {
		for body := range changesOf(b) {
			if err := db.putStates(ctx, tx, nanos(b.Time), body, func([]byte) bool { return true }); err != nil {
				return err
			}
		}
		return nil
	}
	for body := range changesOf(b) {
		result, err := tx.Exec("INSERT INTO changes (at, body) VALUES (?, ?)", nanos(b.Time), body)
		if err != nil {
			return err
		}
		seq, err := result.LastInsertId()
		if err != nil {
			return err
		}
		s.added = append(s.added, addedRow{seq, body})
	}
	return db.settle(ctx, tx, c.due(len(s.added), time.Now()), s)
}

// settle puts what the n oldest rows of changes still say into the tables.
func (db *DB) settle(ctx context.Context, tx *sql.Tx, n int, s *settling) error {
	for _, row := range db.changes.rows[:n] {
		var at int64
		var body []byte
		err := tx.QueryRow("DELETE FROM changes WHERE seq = ? RETURNING at, body", row.seq).Scan(&at, &body)
		if errors.Is(err, sql.ErrNoRows) {
			s.gone = true // by the migration's trigger
		} else if err != nil {
			return err
		}
		err = db.putStates(ctx, tx, at, body, func(key []byte) bool {
			if db.changes.latest[string(key)] != row.seq {
				return false // a later row says it anew
			}
			s.keys = append(s.keys, string(key))
			return true
		})
		if err != nil {
			return err
		}
		s.settled++
	}
	return nil
}

// settleAll puts the rows that are there now into the tables, a few in each
// transaction.
func (db *DB) settleAll(ctx context.Context) error {
	left := settledWith // what the first one puts there
	for first := true; left > 0; first = false {
		var s settling
		err := db.updateThen(ctx, "settle", func(tx *sql.Tx) error {
			c := &db.changes
			if err := c.recall(tx); err != nil {
				return err
			}
			if first {
				left = len(c.rows)
			}
			return db.settle(ctx, tx, min(settledWith, left, len(c.rows)), &s)
		}, func() { db.changes.done(&s) })
		if err != nil {
			return err
		}
		left -= settledWith
	}
	return nil
}

// putStates writes those changes of a row into the tables whose key is wanted.
func (db *DB) putStates(ctx context.Context, tx *sql.Tx, at any, body []byte, want func(key []byte) bool) error {
	ctx = context.WithoutCancel(ctx) // a statement watches a context at a cost
	messages := table{ctx, tx.StmtContext(ctx, db.putMessage), tx.StmtContext(ctx, db.dropMessages)}
	accounts := table{ctx, tx.StmtContext(ctx, db.putAccount), tx.StmtContext(ctx, db.dropAccount)}
	var gone []byte // a JSON array: most messages that are gone never got into the table
	for key, state := range eachChange(body) {
		if !want(key) {
			continue
		}
		var err error
		switch name := key[1:]; key[0] {
		case ofMessage:
			id := int64(binary.BigEndian.Uint64(name))
			if len(state) == 0 {
				gone = strconv.AppendInt(append(gone, ','), id, 10)
				continue
			}
			err = messages.put(id, at, state, len(state))
		case ofAccount:
			err = accounts.put(string(name), at, state, len(state))
		} // another kind is of a later version, which this one replaced
		if err != nil {
			return err
		}
	}
	if gone == nil {
		return nil
	}
	gone[0] = '['
	return messages.put(string(append(gone, ']')), at, nil, 0)
}

// newer is what the rows of changes say of one kind, by what follows in the key.
func newer(tx *sql.Tx, kind byte) (map[string][]byte, error) {
	found := map[string][]byte{}
	err := eachRow(tx, func(_ int64, body []byte) {
		for key, state := range eachChange(body) {
			if key[0] == kind {
				found[string(key[1:])] = bytes.Clone(state)
			}
		}
	})
	return found, err
}
