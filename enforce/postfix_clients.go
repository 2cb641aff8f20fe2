package enforce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// ErrClient means that a trusted client cannot be written into the table
// without another being taken for it. All others were written.
var ErrClient = errors.New("client cannot be written into the table")

// A PostfixClients is a table of the trusted clients whose mail without a login
// is stopped, for check_client_access behind permit_sasl_authenticated.
//
// A table cannot count: all mail of a throttled client is held, and let out at
// its allowance.
//
// The table is made and kept as a [PostfixTable] is.
type PostfixClients struct {
	PostfixTable

	// Defer says that nobody lets mail of throttled accounts out, as throttles
	// defer. They are left to the gate then.
	Defer bool

	// Shared reports further identities that several people use, which are
	// never stopped; see [mailq.Directory.IsShared].
	Shared func(mailq.Account) bool
}

// Name names the table in outcomes.
func (t *PostfixClients) Name() string { return "Postfix's trusted clients " + t.Path }

// Least is Throttle, or Hold; see [Table].
func (t *PostfixClients) Least() rules.Action {
	if t.Defer {
		return rules.Hold
	}
	return rules.Throttle
}

// Apply makes the table hold the trusted clients among the entries, and no
// others, and verifies it by reading it back.
func (t *PostfixClients) Apply(ctx context.Context, entries []Entry) error {
	rows, left := tableRows(t, entries, tableValue)
	if err := errors.Join(t.hold(ctx, rows), left); err != nil {
		return fmt.Errorf("enforce: %s: %w", t.Path, err)
	}
	return nil
}

// Keys are what Postfix will look for when the account of an entry sends: the
// address as inet_ntop(3) writes it.
//
// Of what it does not find Postfix looks for the address without its last group
// (access(5), host name/address patterns): 2001:db8::7 would be found for
// 2001:db8::7:1 too. So an address that is shortened cannot be a key.
func (t *PostfixClients) Keys(e Entry) ([]string, error) {
	name, ok := strings.CutPrefix(e.Subject, mailq.KindClient+":")
	if !ok || strings.Contains(name, "!") || t.Shared != nil && t.Shared(mailq.Account(e.Subject)) {
		return nil, nil // with a '!' it is an agent's
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" {
		return nil, fmt.Errorf("%w: %.80q is no address", ErrClient, name)
	}
	key := addr.Unmap().String()
	if strings.Contains(key, "::") {
		return nil, fmt.Errorf("%w: Postfix would take %s:… for %[2]s too; the gate can stop it", ErrClient, key)
	}
	return []string{key}, nil
}
