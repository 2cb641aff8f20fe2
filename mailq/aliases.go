package mailq

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	maxAliases   = 5_000_000 // of one source
	maxAlias     = 320       // bytes of an address or a login
	maxAliasLine = 64 << 10
	maxMistakes  = 10 // of a file that are told at once
)

// AliasFile reads further addresses of accounts from a file: an address and a
// login a line, separated by white space, a comma, ":" or "=", so that tables
// of Postfix, aliases files and simple CSV are read as they are. Empty lines
// and lines that begin with # are passed over; a line that begins with white
// space continues the one before it. All is made lower case.
//
// An address that leads to anything but one login (to several, in one line or
// in many, to a command or a file) is no alias, and left out. An error names
// the lines that cannot be understood, the first ten of them.
func AliasFile(path string) (map[string]string, error) {
	// A pipe without a writer would keep us for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, pathError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a file")
	}
	if err != nil {
		return nil, pathError(path, err)
	}
	return readAliases(path, f)
}

func readAliases(name string, r io.Reader) (map[string]string, error) {
	aliases := aliasSet{}
	var mistakes []error
	lines := aliasLines{Scanner: bufio.NewScanner(r)}
	lines.Buffer(nil, maxAliasLine)
	for lines.scan() {
		err := aliases.addLine(lines.entry)
		if err == nil {
			continue
		}
		mistakes = append(mistakes, fmt.Errorf("mailq: %s:%d: %w", name, lines.began, err))
		if len(mistakes) == maxMistakes || errors.Is(err, errTooMany) {
			return nil, errors.Join(mistakes...)
		}
	}
	if err := lines.Err(); err != nil { // of reading, or a line without an end
		mistakes = append(mistakes, fmt.Errorf("mailq: %s:%d: %w", name, lines.read+1, err))
	}
	if mistakes != nil {
		return nil, errors.Join(mistakes...)
	}
	return aliases.plain(), nil
}

// aliasLines joins lines that continue others.
type aliasLines struct {
	*bufio.Scanner
	entry string // the current one
	began int    // its first line
	next  string // the beginning of the one after it
	at    int    // the line of next
	read  int    // lines
	ended bool
}

func (l *aliasLines) scan() bool {
	l.entry, l.began, l.next = l.next, l.at, ""
	for l.next == "" && !l.ended {
		if l.ended = !l.Scan(); l.ended {
			break
		}
		l.read++
		line := l.Text()
		if l.read == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // editors on Windows begin with it
		}
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#':
		case l.entry != "" && strings.ContainsAny(line[:1], " \t"):
			if len(l.entry) < maxAliasLine { // more of it is needed for nothing
				l.entry += " " + text
			}
		case l.entry == "":
			l.entry, l.began = text, l.read
		default:
			l.next, l.at = text, l.read
		}
	}
	return l.entry != ""
}

// addLine takes "address: target" apart.
func (a aliasSet) addLine(entry string) error {
	const separators = " \t,=:"
	i := strings.IndexAny(entry, separators)
	address, target := entry, ""
	if i > 0 {
		address, target = entry[:i], strings.TrimLeft(entry[i:], " \t")
	}
	if target != "" && strings.Contains(separators, target[:1]) && !strings.HasPrefix(target, ":include:") {
		target = target[1:]
	}
	address, login := unquote(address), unquote(target)
	if !isAlias(address) || login == "" {
		return fmt.Errorf("want an address and a login, have %q", entry[:min(len(entry), 100)])
	}
	return a.add(address, login)
}

func unquote(s string) string { return strings.ToLower(strings.Trim(strings.TrimSpace(s), `"`)) }

// isAlias says whether s can be an address or a login: one word of text, no
// list, command, file or list in a file.
func isAlias(s string) bool {
	return s != "" && len(s) <= maxAlias && clean([]byte(s), maxAlias) == s &&
		!strings.ContainsAny(s, " ,;|\ufeff") && !strings.ContainsAny(s[:1], `/:\`)
}

// An aliasSet leads from addresses to logins, or to ambiguous.
type aliasSet map[string]string

// ambiguous marks an address that does not lead to one login, such as a list
// or a mailbox of which somebody else gets copies.
const ambiguous = ""

// errTooMany means that a source is larger than anybody's.
var errTooMany = fmt.Errorf("more than %d aliases", maxAliases)

// add notes that an address leads to a login, both in lower case.
func (a aliasSet) add(address, login string) error {
	if have, ok := a[address]; ok && have != login || !isAlias(login) {
		login = ambiguous
	}
	a[address] = login
	if len(a) > maxAliases {
		return errTooMany
	}
	return nil
}

// plain is what leads to one login.
func (a aliasSet) plain() map[string]string {
	for address, login := range a {
		if login == ambiguous {
			delete(a, address)
		}
	}
	return a
}

// An AliasQuery reads further addresses of accounts from a database.
type AliasQuery struct {
	Driver string // mysql or postgres
	DSN    string // in the driver's form; holds a password, which no error tells
	Query  string // returns two columns, address and login
}

// Read runs the query. Rows without an address or a login are passed over, and
// an address that leads to several logins, in one row or in several, is left
// out.
func (q AliasQuery) Read(ctx context.Context) (map[string]string, error) {
	db, password, err := q.open()
	if err != nil {
		return nil, fmt.Errorf("mailq: aliases from %s: %w", q.Driver, err)
	}
	defer db.Close()
	aliases, err := queryAliases(ctx, db, q.Query)
	if err != nil {
		return nil, fmt.Errorf("mailq: aliases from %s: %w", q.Driver, withoutPassword(err, password))
	}
	return aliases, nil
}

// open also returns the password that the DSN holds. What the drivers say
// about a DSN that they do not understand is kept back: they quote it, and
// take parts of the password for something else.
func (q AliasQuery) open() (db *sql.DB, password string, err error) {
	switch q.Driver {
	case "mysql":
		c, err := mysql.ParseDSN(q.DSN)
		if err != nil {
			return nil, "", errors.New("the DSN is not understood, want user:password@tcp(host:port)/database")
		}
		c.Logger = &mysql.NopLogger{} // the error says it
		connector, err := mysql.NewConnector(c)
		if err != nil {
			return nil, "", withoutPassword(err, c.Passwd)
		}
		return sql.OpenDB(connector), c.Passwd, nil
	case "postgres":
		c, err := pgx.ParseConfig(q.DSN)
		if err != nil {
			return nil, "", errors.New("the DSN is not understood, want postgres://user:password@host:port/database, special characters as %XX")
		}
		return stdlib.OpenDB(*c), c.Password, nil
	}
	return nil, "", errors.New("no such driver, want mysql or postgres")
}

// withoutPassword keeps an error that holds the password back as a whole: to
// cut a short one out would tell what it is.
func withoutPassword(err error, password string) error {
	if password != "" && strings.Contains(err.Error(), password) {
		return errors.New("failed; the message is not shown because it holds the password")
	}
	return err
}

func queryAliases(ctx context.Context, db *sql.DB, query string) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if columns, err := rows.Columns(); err != nil || len(columns) != 2 {
		return nil, errors.Join(err, fmt.Errorf("the query returns %d columns, want 2: address and login", len(columns)))
	}
	aliases := aliasSet{}
	for rows.Next() {
		var address, login sql.NullString
		if err := rows.Scan(&address, &login); err != nil {
			return nil, err
		}
		from, to := strings.ToLower(address.String), strings.ToLower(login.String)
		if !isAlias(from) || to == "" {
			continue
		}
		if err := aliases.add(from, to); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return aliases.plain(), nil
}
