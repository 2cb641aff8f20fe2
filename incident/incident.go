// Package incident is the life of an incident: what was noticed about one
// account in one episode, gathered for people. A [Book] is told of findings
// with their decisions, of outcomes, of what operators do and of time passing,
// and says which of that is worth telling, each thing once.
//
//	opened ─→ notified ─→ acknowledged ─→ resolved
//	             ↑  escalated  ↓ ↑            ↓
//	             └─────────────┴─┴── opened again (a later finding)
//
// It does no I/O and reads no clock: time is an argument. The same inputs
// again, before or after a restart, change nothing and tell nothing.
package incident

import (
	"fmt"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A State is where an incident stands.
type State uint8

// The states. The zero State is no incident.
const (
	None         State = iota
	Opened             // noticed, nobody was reached yet
	Notified           // a channel has taken the message
	Acknowledged       // a person has taken it up
	Escalated          // a stronger action or a hard rule since; to be told again
	Resolved           // undone or expired, and quiet
)

var stateNames = [...]string{"none", "opened", "notified", "acknowledged", "escalated", "resolved"}

// String is the state's name in JSON.
func (s State) String() string { return name(stateNames[:], uint8(s), "state") }

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown incident state %q", text)
	}
	*s = State(i)
	return nil
}

// A Kind is what a [Change] says.
type Kind uint8

// The kinds. The zero Kind says nothing.
const (
	Silent    Kind = iota
	News           // the account's first finding in this episode
	Stronger       // a stronger action, the same one now carried out, or a hard rule
	Again          // a later finding after the incident was resolved
	Failed         // the decision could not be carried out
	Caught         // a decision that had failed is carried out now
	Released       // an operator cleared the account
	Undone         // an operator lifted the action
	Over           // the action expired and the account is quiet
	Unwatched      // nobody watches any more whether it lasts
	Wider          // what lasts has further parts
)

var kindNames = [...]string{"silent", "opened", "escalated", "reopened", "failed", "recovered", "released", "undone", "resolved", "unwatched", "widened"}

// String is the kind's name, with which a message's type ends: "escalated" of "incident.escalated".
func (k Kind) String() string { return name(kindNames[:], uint8(k), "kind") }

func name(names []string, i uint8, what string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s %d", what, i)
}

// An Incident is what is known of one account's episode. It is a value: a
// copy stays as it was when the Book goes on.
type Incident struct {
	ID    string `json:"id"` // see [ID]
	State State  `json:"state"`
	First string `json:"first,omitempty"` // ID of the first Change told, which later messages answer

	Opened   time.Time `json:"opened"`            // when it was first recorded
	Changed  time.Time `json:"changed"`           // when it last changed
	Resolved time.Time `json:"resolved,omitzero"` // when it last ended; earlier findings are old news
	Reopened int       `json:"reopened,omitempty"`

	Finding  rules.Finding  `json:"finding"`  // the newest
	Decision rules.Decision `json:"decision"` // the strongest that is in force, else the strongest

	// What was told, so that nothing is told twice.
	Told  rules.Action `json:"told"`            // strongest action told, carried out or not
	Done  rules.Action `json:"done"`            // strongest action told as carried out
	Hard  []string     `json:"hard,omitempty"`  // hard rules told, at most maxHard
	Fails []Failure    `json:"fails,omitempty"` // decisions that could not be carried out, at most one an action

	Critical bool `json:"critical,omitempty"` // what lasts was told as critical

	By    string    `json:"by,omitempty"` // who acknowledged, released or undid it
	Acked time.Time `json:"acked,omitzero"`
}

// A Failure is a decision that could not be carried out.
type Failure struct {
	Action rules.Action `json:"action"`
	Why    string       `json:"why"`
}

// Subject is whom the incident is about.
func (i Incident) Subject() string { return i.Finding.Subject }

// Open says whether the incident still needs somebody's eye.
func (i Incident) Open() bool { return i.State != None && i.State != Resolved }

// failure returns why the action could not be carried out, or "".
func (i Incident) failure(a rules.Action) string {
	for _, f := range i.Fails {
		if f.Action == a {
			return f.Why
		}
	}
	return ""
}

// ID derives an incident's ID from that of its finding, so that one found
// twice is one incident.
func ID(finding string) string {
	if len(finding) > 2 && finding[:2] == "f-" {
		return "i-" + finding[2:]
	}
	return "i-" + finding
}

// A Change is something about an incident that is worth telling.
type Change struct {
	ID       string    // names what is told: the same thing has the same ID after a restart too
	Kind     Kind      //
	Time     time.Time // as given to the Book
	Incident Incident  // as it is after the change

	// New are those of the finding's parts that were not there at the last
	// change, in their order.
	New []string

	// Decision is the one that is told. The incident's may be another: one
	// that is carried out matters more there than a stronger one that is not.
	Decision rules.Decision
}
