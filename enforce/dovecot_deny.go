package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	rows, left := tableRows(d, entries, func(Entry) string { return "" })
	var body strings.Builder
	for _, r := range rows {
		body.WriteString(r.login + "\n")
	}
	if err := errors.Join(textTable{path: d.Path, mode: d.Mode}.hold([]byte(body.String())), left); err != nil {
		return fmt.Errorf("enforce: %s: %w", d.Path, err)
	}
	return nil
}

// Keys are the names under which the account may log in, in lower case as
// username_format=%Lu has them.
func (d *DovecotDeny) Keys(e Entry) ([]string, error) { return loginKeys(e, deniable) }

// deniable reports whether a login can be a line that denies itself only: a
// colon ends the name, and a line that begins with # is no line.
func deniable(login string) bool {
	return login != "" && len(login) <= 256 && login[0] != '#' &&
		!strings.Contains(login, ":") && strings.IndexFunc(login, unprintable) < 0
}

// unprintable reports whether r is anything but printable ASCII or a space.
func unprintable(r rune) bool { return r < ' ' || r > '~' }
