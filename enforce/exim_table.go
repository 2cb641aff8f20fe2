package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// An EximTable is two lsearch files (Exim specification, section 9.3) that
// Exim's ACLs look clients up in: logins as they are, and system users, who
// send by the sendmail command, as user:NAME. The data is what the client
// reads. Exim opens the files anew for each message, without a reload.
//
// Both files are Vedetta's whole, like a [PostfixTable], and are replaced at
// once, each by itself.
type EximTable struct {
	BlockPath string      // of those who are refused: Block and Reset; empty if there is no such file
	HoldPath  string      // of those whose mail is frozen: Hold; empty if there is no such file
	Mode      fs.FileMode // of new files; 0 means 0644, as Exim's user must be able to read them

	// Shared reports further identities that several people use, which are
	// never stopped; see [mailq.Directory.IsShared].
	Shared func(mailq.Account) bool
}

// Name names the table in outcomes.
func (t *EximTable) Name() string {
	paths := slices.DeleteFunc([]string{t.BlockPath, t.HoldPath}, func(path string) bool { return path == "" })
	return "Exim table " + strings.Join(paths, ", ")
}

// Least is Hold; see [Table].
func (t *EximTable) Least() rules.Action { return rules.Hold }

// Keys are the names under which the account may log in, and "user:" and each
// system user that it sends as.
func (t *EximTable) Keys(e Entry) ([]string, error) {
	if t.path(e.Action) == "" {
		return nil, nil
	}
	logins, users, err := lsearchKeys(e, t.Shared)
	return append(logins, users...), err
}

// path is the file of an action, empty if it has none.
func (t *EximTable) path(action rules.Action) string {
	if action >= rules.Block {
		return t.BlockPath
	}
	return t.HoldPath
}

// Apply makes the files hold the entries and no others, and reads them back.
// A file that holds them already is not written. What one file cannot be made
// to hold does not keep the other from being written. Entries whose action has
// no file are not the table's business; where two others claim a login the
// stronger action has it.
func (t *EximTable) Apply(_ context.Context, entries []Entry) error {
	blocked, held, err := t.rows(entries)
	// Blocked first: who was held is in both files for a moment, not in none.
	err = errors.Join(holdLsearch(t.BlockPath, t.Mode, blocked), holdLsearch(t.HoldPath, t.Mode, held), err)
	if err != nil {
		return fmt.Errorf("enforce: Exim table: %w", err)
	}
	return nil
}

// holdLsearch makes one file, if there is to be one, hold the rows.
func holdLsearch(path string, mode fs.FileMode, rows []row) error {
	if path == "" {
		return nil
	}
	if err := (textTable{path: path, mode: mode}).hold(lsearchLines(rows)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// rows sorts the entries into the two files. The error names what can stand in
// neither.
func (t *EximTable) rows(entries []Entry) (blocked, held []row, err error) {
	claimed := claims{}
	var left []error
	for _, e := range entries {
		if e.Action < rules.Hold {
			continue
		}
		keys, err := t.Keys(e)
		left = append(left, leave(e, err))
		for _, key := range keys {
			claimed.add(key, e.Action, line(e.Text, 200))
		}
	}
	for key, c := range claimed {
		if c.action >= rules.Block {
			blocked = append(blocked, row{key, c.value})
		} else {
			held = append(held, row{key, c.value})
		}
	}
	return sorted(blocked), sorted(held), errors.Join(left...)
}

// lsearchKeys are what Exim will look for when an entry's account logs in, and
// when it sends as a system user.
func lsearchKeys(e Entry, shared func(mailq.Account) bool) (logins, users []string, err error) {
	names, err := systemUsers(e, shared)
	for _, name := range names {
		users = append(users, mailq.KindUser+":"+name)
	}
	logins, unwritable := loginKeys(e, lsearchable) // lsearch does not tell cases apart
	return logins, users, errors.Join(err, unwritable)
}

// lsearchable reports whether a login can be a key that matches itself only,
// also in a configuration that looks up by lsearch*@, wildlsearch or
// nwildlsearch: there keys are patterns and list items, and even expanded,
// which can run a program. So a key begins with a letter or digit and has no
// character that means anything there; a colon would make it a system user's.
func lsearchable(login string) bool {
	odd := func(r rune) bool {
		return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(" !#%&'*+,-.=?@^_`|~", r)
	}
	return login != "" && len(login) <= 256 && strings.IndexFunc(login, odd) < 0 &&
		!strings.ContainsRune(" !#%&'*+,-.=?@^`|~", rune(login[0])) && login[len(login)-1] != ' '
}

// lsearchLines writes rows, with keys in quotes: without them a colon or a
// space would end a key.
func lsearchLines(rows []row) []byte {
	var b bytes.Buffer
	for _, r := range rows {
		fmt.Fprintf(&b, "\"%s\": %s\n", r.login, r.value)
	}
	return b.Bytes()
}
