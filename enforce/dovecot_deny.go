package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vedetta-watch/vedetta/rules"
)

// A DovecotDeny is a passwd-file of Dovecot's for a passdb with deny = yes
// (doc.dovecot.org, "Restricting IMAP/POP3 access"): one login a line, which
// may not log in anywhere, neither at Dovecot nor at a mail server that asks
// it. Dovecot looks at the file once a second at most, without a reload. A
// held account may log in: only entries with Block and Reset are here.
//
// The file is Vedetta's whole, like a [PostfixTable], and is replaced at once.
type DovecotDeny struct {
	Path string
	Mode fs.FileMode // of a new file; 0 means 0644, as Dovecot's user must be able to read it
}

// Name names the file in outcomes.
func (d *DovecotDeny) Name() string { return "Dovecot deny file " + d.Path }

// Least is Block; see [Table].
func (d *DovecotDeny) Least() rules.Action { return rules.Block }

// Apply makes the file hold the entries and no others, and reads it back. If
// it does already, it is not written.
func (d *DovecotDeny) Apply(_ context.Context, entries []Entry) error {
	logins, left := deniedLogins(entries)
	body := ""
	if len(logins) > 0 {
		body = strings.Join(logins, "\n") + "\n"
	}
	if err := errors.Join(textTable{path: d.Path, mode: d.Mode}.hold([]byte(body)), left); err != nil {
		return fmt.Errorf("enforce: %s: %w", d.Path, err)
	}
	return nil
}

// deniedLogins are the lines of the file, sorted. The error names the logins
// that cannot be one.
func deniedLogins(entries []Entry) (logins []string, err error) {
	var left []error
	for _, e := range entries {
		if e.Action < rules.Block {
			continue
		}
		for _, login := range e.Logins {
			if !deniable(login) {
				left = append(left, leave(e, fmt.Errorf("%w: %.80q", ErrLogin, login)))
				continue
			}
			logins = append(logins, strings.ToLower(login)) // as username_format=%Lu does
		}
	}
	slices.Sort(logins)
	return slices.Compact(logins), errors.Join(left...)
}

// deniable reports whether a login can be a line that denies itself only: a
// colon ends the name, and a line that begins with # is no line.
func deniable(login string) bool {
	return login != "" && len(login) <= 256 && login[0] != '#' &&
		!strings.Contains(login, ":") && strings.IndexFunc(login, unprintable) < 0
}

// unprintable reports whether r is anything but printable ASCII or a space.
func unprintable(r rune) bool { return r < ' ' || r > '~' }
