// Package rules is the vocabulary of judgement: what was noticed (a
// [Finding]), what it deserves (a [Decision]), and the rule files that lead
// from the one to the other.
//
// Nothing here does anything: detectors, checks and list watchers make
// findings, [Policy.Decide] makes decisions, and enforce carries them out.
package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// A Finding is what a detector, check, scan or list watcher noticed about a
// subject, with its evidence.
type Finding struct {
	ID      string    `json:"id"`      // see [FindingID]
	Rule    string    `json:"rule"`    // which watcher speaks: "hijacked-mailbox", "queue-growth", …
	Subject string    `json:"subject"` // an account, a host, a service
	Time    time.Time `json:"time"`    // of the event that tipped the balance
	Since   time.Time `json:"since"`   // onset: the first event of the episode that counts

	Score    float64    `json:"score"`             // fused evidence, natural log-likelihood
	Families int        `json:"families"`          // independent families of evidence that speak
	Hard     string     `json:"hard,omitempty"`    // the hard rule that fired, empty if none
	Class    string     `json:"class,omitempty"`   // kind of account: login, script, forward, user, uid, client
	Shared   bool       `json:"shared,omitempty"`  // a shared identity: told, never blocked as a whole
	Messages int        `json:"messages"`          // accepted since the onset, the tipping one included
	Rcpts    int        `json:"recipients"`        // accepted since the onset, the tipping message included
	Backlog  bool       `json:"backlog,omitempty"` // old news: it may propose, not act
	Lasting  bool       `json:"lasting,omitempty"` // it stands until its watcher says that it is over: silence ends nothing
	Evidence []Evidence `json:"evidence"`

	Parts     []string `json:"parts,omitempty"`     // what a lasting finding consists of, such as the lists that have an address; all that stand
	Continues string   `json:"continues,omitempty"` // ID of the finding whose incident this one is part of; empty: it has its own
}

// Evidence is one family's part in a finding, in words that a support
// technician can send to a customer.
type Evidence struct {
	Kind  string  `json:"kind"`  // family: "novelty", "rate", "replies", …
	Score float64 `json:"score"` // its share, natural log-likelihood
	Text  string  `json:"text"`
}

// FindingID computes the ID of a finding from its rule, its subject and the
// time its episode began, so that reading a log twice finds it once and a
// second episode is a new finding.
func FindingID(rule, subject string, episode time.Time) string {
	sum := sha256.Sum256([]byte(rule + "\x00" + subject + "\x00" + strconv.FormatInt(episode.UnixNano(), 10)))
	return "f-" + hex.EncodeToString(sum[:8])
}
