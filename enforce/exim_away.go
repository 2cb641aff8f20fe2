package enforce

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// An EximAway is an lsearch file (Exim specification, section 9.3) of the
// gate's answers, which Exim's ACLs take from it when the gate gives none. The
// keys are logins as they are, trusted clients as client:ADDRESS, system users
// as user:NAME, and scripts and their directories as script: and the SHA-256 of
// the path: lsearch does not tell cases apart, which paths do, and no path can
// be taken for anything else then.
//
// A throttle cannot be counted by a file: all mail of a throttled account is
// frozen, and let out at its allowance when Vedetta is back.
//
// The file is Vedetta's whole, like a [PostfixTable], and is replaced at once.
type EximAway struct {
	Path string
	Mode fs.FileMode // of a new file; 0 means 0644, as Exim's user must be able to read it

	// Defer has throttled clients refused for now, as a gate whose throttles
	// defer does. Nobody lets mail of throttled local programs out then, so they
	// are left to the gate.
	Defer bool

	// Shared reports further identities that several people use, which are
	// never stopped; see [mailq.Directory.IsShared].
	Shared func(mailq.Account) bool
}

// Name names the file in outcomes.
func (t *EximAway) Name() string { return "Exim's answers while Vedetta is away " + t.Path }

// Least is Throttle; see [Table].
func (t *EximAway) Least() rules.Action { return rules.Throttle }

// Apply makes the file hold the entries and no others, and reads it back. If
// it does already, it is not written. Where two entries claim a key the
// stronger action has it.
func (t *EximAway) Apply(_ context.Context, entries []Entry) error {
	rows, left := t.rows(entries)
	if err := errors.Join(holdLsearch(t.Path, t.Mode, rows), left); err != nil {
		return fmt.Errorf("enforce: Exim's answers: %w", err)
	}
	return nil
}

func (t *EximAway) rows(entries []Entry) (rows []row, err error) {
	claimed := claims{}
	var left []error
	for _, e := range entries {
		clients, local, err := t.keys(e)
		left = append(left, leave(e, err))
		for i, key := range append(clients, local...) {
			claimed.add(key, e.Action, t.answer(e, i >= len(clients)))
		}
	}
	return claimed.rows(), errors.Join(left...)
}

// answer is what the gate would say; see package gate. Mail of local programs
// is never refused: Exim would send the refusal to whatever sender a script
// made up.
func (t *EximAway) answer(e Entry, local bool) string {
	word := "FREEZE"
	switch {
	case local:
	case e.Action >= rules.Block:
		word = "DENY 5.7.1"
	case e.Action == rules.Throttle && t.Defer:
		word = "DEFER 4.7.1"
	}
	return word + " " + cmp.Or(line(e.Text, 200), e.Action.String())
}

// Keys are what Exim will look for when the account of an entry sends.
func (t *EximAway) Keys(e Entry) ([]string, error) {
	clients, local, err := t.keys(e)
	return append(clients, local...), err
}

// keys are what Exim will look for when the account of an entry sends as a
// client, and as a local program.
func (t *EximAway) keys(e Entry) (clients, local []string, err error) {
	kind, name, _ := strings.Cut(e.Subject, ":")
	switch kind {
	case mailq.KindScript:
		if path.IsAbs(name) && name != "/" { // the gate knows no others, and no program of Exim's by / either
			local = append(local, scriptKey(name))
		}
	case mailq.KindClient:
		if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
			clients = append(clients, mailq.KindClient+":"+addr.String())
		}
	}
	logins, users, err := lsearchKeys(e, t.Shared)
	clients, local = append(clients, logins...), append(local, users...)
	if t.Defer && e.Action == rules.Throttle {
		local = nil // nobody lets frozen mail out, and a local program cannot be deferred
	}
	return clients, local, err
}

// maxScript bounds the path of a script as the gate and the log do, whose
// account with the word script: has 255 bytes.
const maxScript = 255 - len(mailq.KindScript+":")

// scriptKey is the key of a script or of its directory.
func scriptKey(path string) string {
	return fmt.Sprintf("%s:%x", mailq.KindScript, sha256.Sum256([]byte(path[:min(len(path), maxScript)])))
}
