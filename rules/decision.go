package rules

import (
	"fmt"
	"time"
)

// An Action is a rung of the ladder. A greater Action is a stronger one; the
// zero Action does nothing.
type Action uint8

// The ladder.
const (
	Nothing  Action = iota
	Observe         // tell, do nothing
	Throttle        // let the account's mail out slowly
	Hold            // accept and keep until a person releases or deletes
	Block           // refuse at the gate and in the server's own tables
	Reset           // end sessions, change the password, flush caches
)

var actionNames = [...]string{"nothing", "observe", "throttle", "hold", "block", "reset"}

// String is the action's name in rules and figures: "observe", "throttle", ….
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// MarshalText writes the action's name.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads an action's name.
func (a *Action) UnmarshalText(text []byte) error {
	for i, name := range actionNames {
		if name == string(text) {
			*a = Action(i)
			return nil
		}
	}
	return fmt.Errorf("unknown action %q: want observe, throttle, hold, block or reset", text)
}

// A Decision is what the rules say a finding deserves. It is a value: making
// one does nothing.
type Decision struct {
	ID      string    `json:"id"`      // finding's ID and the action: one decision a rung and episode
	Finding string    `json:"finding"` // the finding's ID, empty when an operator decided
	Rule    string    `json:"rule"`
	Subject string    `json:"subject"`
	Action  Action    `json:"action"`
	Time    time.Time `json:"time"`  // when it was decided, in the time of the finding
	Until   time.Time `json:"until"` // when it ends by itself; zero: when a person ends it
	Why     string    `json:"why"`

	// Enforce says whether the decision is carried out. When it is not,
	// HeldBack says why: "mode is observe", "exempt", "blast limit", ….
	Enforce  bool   `json:"enforce"`
	HeldBack string `json:"held_back,omitempty"`
}

// DecisionID names the decision that action is for the finding.
func DecisionID(finding string, action Action) string { return finding + "/" + action.String() }
