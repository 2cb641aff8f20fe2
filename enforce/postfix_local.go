package enforce

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// ErrScript means that a script cannot be written into the table without being
// taken for something else. All others were written.
var ErrScript = errors.New("script cannot be written into the table")

// A PostfixLocal is a table of the scripts and system users whose mail is held
// when a local program hands it in. Postfix's cleanup reads it by itself for
// each header, by
//
//	header_checks = pipemap:{regexp:/names, hash:/path}
//
// where the first makes script:NAME of PHP's header and uid:NUMBER of the line
// that Postfix's pickup writes (docs/milter.md). Blocked mail is held too:
// Postfix would bounce what it refuses to whatever sender a script made up.
//
// A table cannot count: all mail of a throttled account is held, and let out at
// its allowance.
//
// The table is made and kept as a [PostfixTable] is, but keys that differ in
// case are different ones, as files are.
type PostfixLocal struct {
	PostfixTable

	// Defer says that nobody lets mail of throttled accounts out, as throttles
	// defer. They are left to the gate then.
	Defer bool

	// Shared reports further identities that several people use, which are
	// never stopped; see [mailq.Directory.IsShared].
	Shared func(mailq.Account) bool
}

// Name names the table in outcomes.
func (t *PostfixLocal) Name() string { return "Postfix's local mail " + t.Path }

// Least is Throttle, or Hold; see [Table].
func (t *PostfixLocal) Least() rules.Action {
	if t.Defer {
		return rules.Hold
	}
	return rules.Throttle
}

// Apply makes the table hold the scripts and system users among the entries,
// and no others, and verifies it by reading it back.
func (t *PostfixLocal) Apply(ctx context.Context, entries []Entry) error {
	table := t.PostfixTable
	table.exact = true
	rows, left := tableRows(t, entries, func(e Entry) string { return strings.TrimSpace("HOLD " + line(e.Text, 200)) })
	if err := errors.Join(table.hold(ctx, rows), left); err != nil {
		return fmt.Errorf("enforce: %s: %w", t.Path, err)
	}
	return nil
}

// Keys are what Postfix will look for when the account of an entry sends.
func (t *PostfixLocal) Keys(e Entry) (keys []string, err error) {
	names, err := systemUsers(e, t.Shared)
	left := []error{err}
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			left = append(left, fmt.Errorf("%w: %.80q: %w", ErrUser, name, err))
			continue
		}
		keys = append(keys, mailq.KindUID+":"+u.Uid)
	}
	name, ok := strings.CutPrefix(e.Subject, mailq.KindScript+":")
	switch {
	case !ok, strings.HasPrefix(name, "/"): // Exim's scripts are paths
	case !holdable(name):
		left = append(left, fmt.Errorf("%w: %.80q", ErrScript, name))
	default:
		keys = append(keys, e.Subject)
	}
	return keys, errors.Join(left...)
}

// maxHeld bounds the name of a script. Longer ones may have been cut where
// they were logged, and are not what the header says then.
const maxHeld = 170

// holdable reports whether a script can be a key that is found for its own
// header only: its name is not a directory's, and has nothing that the log and
// the milter show as a question mark.
func holdable(name string) bool {
	return writable(name) && len(name) <= maxHeld && !strings.ContainsAny(name, "?") && !strings.HasSuffix(name, "/")
}
