package web

import (
	"encoding/json"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// An Account is one line of the accounts list.
type Account struct {
	Account  string    `json:"account"`
	Score    float64   `json:"score"`            // evidence now, natural log-likelihood
	Action   string    `json:"action,omitempty"` // strongest action in force
	Until    time.Time `json:"until,omitzero"`
	LastSeen time.Time `json:"last_seen"`
	Messages int       `json:"messages"` // seen in all
	Known    int       `json:"known"`    // recipients it is known to write to
}

// Why is everything that led to where an account stands.
type Why struct {
	Account     string           `json:"account"`
	Active      []rules.Decision `json:"active"`      // decisions in force
	Findings    []rules.Finding  `json:"findings"`    // newest first
	Journal     []Entry          `json:"journal"`     // newest first
	Explanation json.RawMessage  `json:"explanation"` // the detector's own words and steps
	Text        []string         `json:"text"`        // the same for people, a line each
}

// An Order is what an operator asks for.
type Order struct {
	Do      string        `json:"do"` // hold, block, reset, unblock, release, undo, queue-hold, queue-release, queue-delete
	Account string        `json:"account,omitempty"`
	For     time.Duration `json:"for,omitempty"`     // hold and block; nanoseconds, 0: until unblocked
	Since   time.Duration `json:"since,omitempty"`   // undo: what was decided in the last so many nanoseconds
	DryRun  bool          `json:"dry_run,omitempty"` // say what would be done, do nothing
	Who     string        `json:"who"`
	Why     string        `json:"why,omitempty"`
}

// A Result is what an order did, or with DryRun would do.
type Result struct {
	Account string   `json:"account"`
	Done    []string `json:"done"`
	Failed  []string `json:"failed,omitempty"`

	// Password is a new one, shown this once: it is kept nowhere.
	Password string `json:"password,omitempty"`
}

// An Entry is one line of the journal.
type Entry struct {
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`
	What    string    `json:"what"`
	Subject string    `json:"subject"`
	Action  string    `json:"action,omitempty"`
	Why     string    `json:"why,omitempty"`
	Outcome string    `json:"outcome,omitempty"`
}

// A Queue is the mail queue as it was last sampled, and as the log tells it.
type Queue struct {
	Sample json.RawMessage `json:"sample,omitempty"` // the spool's, absent where none is configured
	Error  string          `json:"error,omitempty"`  // of the last sample
	Open   []Share         `json:"open"`             // by account, from the log, largest first
	Total  int             `json:"total"`            // messages accepted and not yet gone, from the log
	Held   int             `json:"held"`
}

// A Share is one account's part of the queue.
type Share struct {
	Account string    `json:"account"`
	Count   int       `json:"count"`
	Held    int       `json:"held"`
	Oldest  time.Time `json:"oldest"`
}

// Health says whether the watch is awake. OK is false while something that
// it must see or write is out of reach.
type Health struct {
	OK      bool              `json:"ok"`
	Mode    string            `json:"mode"`
	Version string            `json:"version"`
	Parts   map[string]string `json:"parts"` // "ok" or what is wrong
}
