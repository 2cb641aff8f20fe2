package enforce

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vedetta-watch/vedetta/rules"
)

// A PostfixAway is a table of the policy service's answers about logins, for
// check_sasl_access, which Postfix asks when the policy service gives none: it
// is in a restriction class that is the default_action of
// check_policy_service.
//
// A throttle cannot be counted by a table: all mail of a throttled account is
// held, and let out at its allowance when Vedetta is back.
//
// The table is made and kept as a [PostfixTable] is.
type PostfixAway struct {
	PostfixTable

	// Defer has throttled logins refused for now, as a gate whose throttles
	// defer does.
	Defer bool
}

// Name names the table in outcomes.
func (t *PostfixAway) Name() string { return "Postfix's answers while Vedetta is away " + t.Path }

// Least is Throttle; see [Table].
func (t *PostfixAway) Least() rules.Action { return rules.Throttle }

// Apply makes the table hold the entries and no others, and verifies it by
// reading it back. If it does already, nothing is written.
func (t *PostfixAway) Apply(ctx context.Context, entries []Entry) error {
	rows, unwritable := tableRows(t, entries, t.value)
	if err := errors.Join(t.hold(ctx, rows), unwritable); err != nil {
		return fmt.Errorf("enforce: %s: %w", t.Path, err)
	}
	return nil
}

func (t *PostfixAway) value(e Entry) string {
	if t.Defer && e.Action == rules.Throttle {
		return strings.TrimSpace("DEFER 4.7.1 " + line(e.Text, 200))
	}
	return tableValue(e)
}
