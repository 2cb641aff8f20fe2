package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A PostfixTable is an access(5) table for check_sasl_access. The whole file
// is Vedetta's: its header says so and holds a checksum of the rest, by which
// an edit of somebody else is noticed.
//
// Postfix reads the index that postmap makes of the file, not the file. Both
// are made under another name, read back, and renamed into place. A process
// of Postfix's that has the old index open keeps reading it whole, sees at its
// next client that the file it holds has no name any more, and starts anew
// ("table … has changed -- restarting"): a change takes effect with the next
// connection, without a reload. Nothing ever reads a half-written table, and
// killing us at any moment leaves the old one or the new one.
type PostfixTable struct {
	Path      string        // of the source; the index is beside it
	Type      string        // hash, btree, lmdb, cdb or texthash; empty asks Postfix for its default
	Postmap   string        // the program; empty means postmap
	Postconf  string        // the program, asked when Type is empty; empty means postconf
	ConfigDir string        // Postfix's configuration directory; empty means Postfix's own default
	Mode      fs.FileMode   // of both files; 0 means 0644, as Postfix must be able to read them
	Timeout   time.Duration // of each postmap and postconf; 0 means ten seconds

	exact bool // keys that differ in case alone are different keys
}

// Name names the table in outcomes.
func (t *PostfixTable) Name() string { return "postfix table " + t.Path }

// Least is Hold; see [Table].
func (t *PostfixTable) Least() rules.Action { return rules.Hold }

// Keys are the names under which the account may log in, in lower case as
// postmap writes them.
func (t *PostfixTable) Keys(e Entry) ([]string, error) { return loginKeys(e, writable) }

// loginKeys are the names under which an account may log in that can be keys of
// a table, in lower case. The error names the others.
func loginKeys(e Entry, can func(login string) bool) (keys []string, err error) {
	var left []error
	for _, login := range e.Logins {
		if !can(login) {
			left = append(left, fmt.Errorf("%w: %.80q", ErrLogin, login))
			continue
		}
		keys = append(keys, strings.ToLower(login))
	}
	return keys, errors.Join(left...)
}

// Apply makes the table hold the entries and no others, and verifies it by
// reading it back. If it does already, nothing is written.
func (t *PostfixTable) Apply(ctx context.Context, entries []Entry) error {
	if err := t.apply(ctx, entries); err != nil {
		return fmt.Errorf("enforce: %s: %w", t.Path, err)
	}
	return nil
}

func (t *PostfixTable) apply(ctx context.Context, entries []Entry) error {
	rows, unwritable := tableRows(t, entries, tableValue)
	return errors.Join(t.hold(ctx, rows), unwritable)
}

// hold makes the table hold the rows and no others.
func (t *PostfixTable) hold(ctx context.Context, rows []row) error {
	unlock, err := lockDir(filepath.Dir(t.Path))
	if err != nil {
		return err
	}
	defer unlock()
	kind, err := t.kind(ctx)
	if err != nil {
		return err
	}
	text := tableText(rows)
	old, err := readOurs(t.Path)
	if err != nil {
		return err
	}
	if bytes.Equal(old, text) && t.verify(ctx, kind, t.Path, rows) == nil {
		return nil
	}
	return t.write(ctx, kind, text, rows)
}

// SetAside sets a table that somebody else edited aside; see [SetAside]. Until
// the next Apply Postfix goes on reading the index as it is.
func (t *PostfixTable) SetAside() (string, error) { return SetAside(t.Path) }

// suffixes of the index, by type of table. Types whose index is more than one
// file (dbm, sdbm) cannot be replaced at once and are not here.
func indexSuffix(kind string) (suffix string, ok bool) {
	switch kind {
	case "hash", "btree":
		return ".db", true
	case "lmdb":
		return ".lmdb", true
	case "cdb":
		return ".cdb", true
	case "texthash":
		return "", true // no index: Postfix reads the source when a process starts
	}
	return "", false
}

func (t *PostfixTable) kind(ctx context.Context) (string, error) {
	kind := t.Type
	if kind == "" {
		var err error
		if kind, err = DefaultTableType(ctx, t.Postconf, t.ConfigDir); err != nil {
			return "", err
		}
	}
	if _, ok := indexSuffix(kind); !ok {
		return "", fmt.Errorf("table type %q: want hash, btree, lmdb, cdb or texthash", kind)
	}
	return kind, nil
}

// DefaultTableType asks Postfix for its default type of table: hash, or lmdb
// where Berkeley DB is gone. Empty postconf means the program of that name,
// empty configDir Postfix's own default.
func DefaultTableType(ctx context.Context, postconf, configDir string) (string, error) {
	argv := postfixCommand([]string{orName(postconf, "postconf")}, configDir, "-h", "default_database_type")
	out, _, err := command{argv: argv}.run(ctx)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

func orName(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}

// postfixCommand is a command line of one of Postfix's programs.
func postfixCommand(program []string, configDir string, args ...string) []string {
	argv := slices.Clone(program)
	if configDir != "" {
		argv = append(argv, "-c", configDir)
	}
	return append(argv, args...)
}

// write puts text and its index in place.
func (t *PostfixTable) write(ctx context.Context, kind string, text []byte, rows []row) error {
	suffix, _ := indexSuffix(kind)
	dir, base := filepath.Split(t.Path)
	fresh := filepath.Join(dir, "."+base+".new")
	defer os.Remove(fresh)
	if err := writeFile(fresh, text, t.mode()); err != nil {
		return err
	}
	if suffix != "" {
		defer os.Remove(fresh + suffix)
		if err := os.Remove(fresh + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, _, err := t.postmap(ctx, "", kind+":"+fresh); err != nil {
			return err
		}
		if err := syncFile(fresh + suffix); err != nil {
			return err
		}
	}
	if err := t.verify(ctx, kind, fresh, rows); err != nil {
		return err
	}
	if suffix != "" {
		if err := os.Rename(fresh+suffix, t.Path+suffix); err != nil {
			return err
		}
	}
	if err := os.Rename(fresh, t.Path); err != nil {
		return err
	}
	return syncFile(filepath.Clean(dir + "."))
}

func (t *PostfixTable) mode() fs.FileMode {
	if t.Mode == 0 {
		return 0o644
	}
	return t.Mode
}

func (t *PostfixTable) postmap(ctx context.Context, stdin string, args ...string) (stdout, stderr []byte, err error) {
	if t.exact {
		args = append([]string{"-f"}, args...)
	}
	argv := postfixCommand([]string{orName(t.Postmap, "postmap")}, t.ConfigDir, args...)
	return command{argv: argv, stdin: stdin, timeout: t.Timeout}.run(ctx)
}

// verify asks the table at path about every login, as Postfix would.
func (t *PostfixTable) verify(ctx context.Context, kind, path string, rows []row) error {
	if len(rows) == 0 {
		return t.verifyEmpty(kind, path)
	}
	var asked, want strings.Builder
	for _, r := range rows {
		asked.WriteString(r.login + "\n")
		want.WriteString(r.login + "\t" + r.value + "\n")
	}
	got, _, err := t.postmap(ctx, asked.String(), "-q", "-", kind+":"+path)
	if err == nil && string(got) == want.String() {
		return nil
	}
	if len(got) == 0 && err != nil {
		return fmt.Errorf("%w: %w", ErrNotKept, err)
	}
	for _, r := range rows {
		answer, rest, _ := bytes.Cut(got, []byte("\n"))
		if string(answer) != r.login+"\t"+r.value {
			return fmt.Errorf("%w: %q is not there as written", ErrNotKept, r.login)
		}
		got = rest
	}
	return fmt.Errorf("%w: more was read back than written", ErrNotKept)
}

// verifyEmpty looks for the files alone: an empty table has nothing to ask for.
func (t *PostfixTable) verifyEmpty(kind, path string) error {
	suffix, _ := indexSuffix(kind)
	if _, err := os.Stat(path + suffix); err != nil {
		return fmt.Errorf("%w: %w", ErrNotKept, err)
	}
	return nil
}

// A row is one line of the table.
type row struct{ login, value string }

func tableText(rows []row) []byte {
	var body bytes.Buffer
	for _, r := range rows {
		body.WriteString(r.login + " " + r.value + "\n")
	}
	return headed(body.Bytes())
}

// tableRows turns entries, but those that are too weak for the table, into rows,
// sorted, one a key; where two entries claim a key the stronger action has it.
// The error names what the table cannot hold.
func tableRows(t Table, entries []Entry, value func(Entry) string) ([]row, error) {
	claimed := claims{}
	var left []error
	for _, e := range entries {
		if e.Action < t.Least() {
			continue
		}
		keys, err := t.Keys(e)
		left = append(left, leave(e, err))
		for _, key := range keys {
			claimed.add(key, e.Action, value(e))
		}
	}
	return claimed.rows(), errors.Join(left...)
}

// claims are what entries want of a table's keys. The strongest action has a key.
type claims map[string]claim

type claim struct {
	action rules.Action
	value  string
}

func (c claims) add(key string, action rules.Action, value string) {
	if action > c[key].action {
		c[key] = claim{action, value}
	}
}

// rows are those of all keys, sorted.
func (c claims) rows() []row {
	rows := make([]row, 0, len(c))
	for key, claim := range c {
		rows = append(rows, row{key, claim.value})
	}
	return sorted(rows)
}

// sorted sorts rows by login.
func sorted(rows []row) []row {
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.login, b.login) })
	return rows
}

// writable reports whether a login can stand at the beginning of a line of
// postmap's input and be looked up as it is. postmap ends the key at white
// space, keeps quotes as part of it, skips the character after a backslash
// and the line after a '#'; beyond ASCII it folds case in ways that make one
// key of two accounts (ß and ss).
func writable(login string) bool {
	if login == "" || len(login) > 256 || login[0] == '#' {
		return false
	}
	for i := range len(login) {
		if c := login[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// tableValue is what Postfix does; see access(5).
func tableValue(e Entry) string {
	if e.Action <= rules.Hold {
		return strings.TrimSpace("HOLD " + line(e.Text, 200))
	}
	return strings.TrimSpace("REJECT 5.7.1 " + line(e.Text, 200))
}
