package store

import (
	"context"
	"database/sql"
	"time"
	"unicode/utf8"
)

// What an entry of the journal is about. Callers of [DB.Note] may use words
// of their own.
const (
	WhatIntent   = "intent"   // a decision will be carried out
	WhatProposal = "proposal" // a decision will not: Outcome says what held it back
	WhatOutcome  = "outcome"  // what came of carrying it out
	WhatEnded    = "ended"    // a decision ended: its time was over, or a person ended it
	WhatRelease  = "release"  // a person cleared the subject
	WhatAgent    = "agent"    // an agent was added, enrolled or revoked
	WhatToken    = "token"    // a token of the API was added or revoked
	WhatKey      = "key"      // the recipients' key is being replaced, or was
)

// ourselves is who acts when no person does.
const ourselves = "vedetta"

// An Entry is one line of the journal: who did what to whom, why, and what
// came of it.
type Entry struct {
	Seq      int64     `json:"seq"` // order of writing, set by the store
	Time     time.Time `json:"time,omitzero"`
	What     string    `json:"what"`
	Who      string    `json:"who"` // a rule, a person, or "vedetta"
	Subject  string    `json:"subject"`
	Action   string    `json:"action,omitempty"`
	Decision string    `json:"decision,omitempty"` // the decision it belongs to
	Why      string    `json:"why,omitempty"`
	Outcome  string    `json:"outcome,omitempty"`
}

// A JournalFilter selects entries; its zero value selects the newest 100.
type JournalFilter struct {
	Subject string
	Since   time.Time // not older than this
	Before  int64     // written before the entry with this Seq: the next page
	Limit   int       // 100 if zero, at most 1,000
}

// putEntry adds an entry in a transaction.
func putEntry(tx *sql.Tx, e Entry) error {
	_, err := tx.Exec(`INSERT INTO journal (at, what, who, subject, action, decision, why, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		nanos(e.Time), e.What, e.Who, e.Subject, e.Action, e.Decision, clip(e.Why), clip(e.Outcome))
	return err
}

// Note adds an entry that belongs to nothing else here, as what came of
// undoing a decision, or a limit that was reached.
func (db *DB) Note(ctx context.Context, e Entry) error {
	return db.update(ctx, "note", func(tx *sql.Tx) error { return putEntry(tx, e) })
}

// Journal returns the entries that filter selects, the last written first.
func (db *DB) Journal(ctx context.Context, filter JournalFilter) ([]Entry, error) {
	var w where
	if filter.Subject != "" {
		w.add("subject = ?", filter.Subject)
	}
	if !filter.Since.IsZero() {
		w.add("at >= ?", nanos(filter.Since))
	}
	if filter.Before > 0 {
		w.add("seq < ?", filter.Before)
	}
	w.args = append(w.args, atMost(filter.Limit))
	var all []Entry
	err := db.query(ctx, "journal", "SELECT seq, at, what, who, subject, action, decision, why, outcome FROM journal"+w.String()+" ORDER BY seq DESC LIMIT ?",
		w.args, func(scan func(...any) error) error {
			var e Entry
			var at sql.NullInt64
			err := scan(&e.Seq, &at, &e.What, &e.Who, &e.Subject, &e.Action, &e.Decision, &e.Why, &e.Outcome)
			e.Time = moment(at)
			all = append(all, e)
			return err
		})
	return all, err
}

// clip bounds a text that other programs and other people's servers write
// (errors, answers) to 1 KiB, without cutting a character in two.
func clip(s string) string {
	const most = 1024
	if len(s) <= most {
		return s
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
