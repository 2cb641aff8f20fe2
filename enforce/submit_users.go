package enforce

import (
	"context"
	"errors"
	"fmt"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// SubmitUsers is a table of the system users that may not submit mail by the
// sendmail command, as web scripts do. Postfix reads it by
//
//	authorized_submit_users = !hash:/path, static:anyone
//
// (postconf(5)) each time the command is run: a change takes effect with the
// next message, without a reload. It stops; it cannot hold: entries with
// Hold are left to the milter and to [PostfixLocal]. Entries about other accounts are not its
// business.
//
// The table is made and kept as a [PostfixTable] is.
type SubmitUsers struct {
	PostfixTable

	// Shared reports further identities that several people use, which are
	// never stopped; see [mailq.Directory.IsShared].
	Shared func(mailq.Account) bool
}

// Name names the table in outcomes.
func (t *SubmitUsers) Name() string { return "submit users " + t.Path }

// Least is Block; see [Table].
func (t *SubmitUsers) Least() rules.Action { return rules.Block }

// Keys are the names of the system users that the account sends as.
func (t *SubmitUsers) Keys(e Entry) ([]string, error) { return systemUsers(e, t.Shared) }

// Apply makes the table hold the system users among the entries that are
// blocked, and no others, and verifies it by reading it back. Users that it
// cannot stop are named in the error.
func (t *SubmitUsers) Apply(ctx context.Context, entries []Entry) error {
	rows, left := tableRows(t, entries, func(Entry) string { return "blocked" })
	if err := errors.Join(t.hold(ctx, rows), left); err != nil {
		return fmt.Errorf("enforce: %s: %w", t.Path, err)
	}
	return nil
}
