package enforce

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// SQLPasswords changes passwords in a database, MariaDB or PostgreSQL, by one
// UPDATE such as
//
//	UPDATE mailbox SET password = :hash WHERE username = :login
//
// :login (or :account) is the account, :user and :domain what stands before
// and behind its last @, :hash what is to be kept. They are parameters of a
// prepared statement, never part of its text. The UPDATE must change exactly
// one row; else it is rolled back.
//
// Select reads the hash that is there, in one row and column, by the same
// names. With it the old hash can be put back, the number of rows is known
// before anything is changed, and the new hash is read back: a column that
// cuts it short, or a table without transactions, can do no harm.
type SQLPasswords struct {
	Driver  string // mysql (MariaDB too) or postgres
	DSN     string // user:password@tcp(host:port)/database, or postgres://user:password@host:port/database
	Query   string
	Select  string // may be empty
	Scheme  Scheme
	Bare    bool          // leave out the {SCHEME} in front of the hash
	Domains []string      // whose accounts are there; none means any
	Timeout time.Duration // of the whole change; 0 means ten seconds
}

// Name names the database in outcomes.
func (p SQLPasswords) Name() string { return "sql " + p.Driver }

// Check reports what is wrong with the settings. It does not connect.
func (p SQLPasswords) Check() error {
	_, err := p.statement(p.Query, "UPDATE")
	if err == nil && p.Select != "" {
		_, err = p.statement(p.Select, "SELECT")
	}
	db, _, dsnErr := p.open()
	if dsnErr == nil {
		db.Close()
	}
	return errors.Join(err, dsnErr, p.Scheme.Check())
}

// Covers reports whether the account is in one of the domains.
func (p SQLPasswords) Covers(account string) bool { return inDomains(account, p.Domains) }

// Plan is the statement, with the names of its parameters.
func (p SQLPasswords) Plan(account string) []string {
	user, domain := splitAccount(account)
	return []string{fmt.Sprintf("%s: %s (:login %s, :user %s, :domain %s, :hash %s)", p.Name(), line(p.Query, 1000),
		printable(account), printable(user), printable(domain), orName(string(p.Scheme), string(SHA512Crypt)))}
}

// Change sets the password's hash.
func (p SQLPasswords) Change(ctx context.Context, account, password string) error {
	hash, err := hashFor(p.Scheme, p.Bare, password)
	if err != nil {
		return unchanged(p, account, err)
	}
	return p.Restore(ctx, account, hash)
}

// Restore sets a hash that Old returned.
func (p SQLPasswords) Restore(ctx context.Context, account, hash string) error {
	return p.do(ctx, account, hash, func(ctx context.Context, conn *sql.Conn, values map[string]any) error {
		return p.update(ctx, conn, values)
	})
}

// Old is the hash that is there now. It needs Select.
func (p SQLPasswords) Old(ctx context.Context, account string) (old Password, err error) {
	err = p.do(ctx, account, "", func(ctx context.Context, conn *sql.Conn, values map[string]any) error {
		if p.Select == "" {
			return fmt.Errorf("%w: no query is configured that reads the hash", ErrUnchanged)
		}
		hash, err := p.read(ctx, conn, values)
		old = PasswordOf(hash)
		return err
	})
	if err != nil {
		return Password{}, err
	}
	return old, nil
}

// do connects and calls f; its error is told without secrets.
func (p SQLPasswords) do(ctx context.Context, account, hash string, f func(context.Context, *sql.Conn, map[string]any) error) error {
	values, err := p.values(account, hash)
	if err != nil {
		return unchanged(p, account, err)
	}
	db, password, err := p.open()
	if err != nil {
		return unchanged(p, account, err)
	}
	defer db.Close()
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := db.Conn(ctx)
	if err != nil {
		return unchanged(p, account, withoutSecrets(err, password))
	}
	defer conn.Close()
	if err := f(ctx, conn, values); err != nil {
		return fmt.Errorf("enforce: %s: password of %s: %w", p.Name(), printable(account), withoutSecrets(err, password, bareHash(hash)))
	}
	return nil
}

// values are the parameters for an account.
func (p SQLPasswords) values(account, hash string) (map[string]any, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	binary := strings.Contains(strings.ToLower(p.Query), "_bin") || strings.Contains(strings.ToLower(p.Query), "binary")
	if p.Driver == "mysql" && !binary && strings.ContainsFunc(account, func(r rune) bool { return r > '~' }) {
		return nil, errors.New("to most collations of MariaDB an accented letter equals the plain one, so this could be another account: compare in the query with COLLATE utf8mb4_bin")
	}
	user, domain := splitAccount(account)
	return map[string]any{"login": account, "account": account, "user": user, "domain": domain, "hash": hash}, nil
}

// open also returns the password that the DSN holds. What the drivers say
// about a DSN that they do not understand is kept back, as they quote it.
func (p SQLPasswords) open() (db *sql.DB, password string, err error) {
	switch p.Driver {
	case "mysql":
		c, err := mysql.ParseDSN(p.DSN)
		if err != nil {
			return nil, "", errors.New("the DSN is not understood, want user:password@tcp(host:port)/database")
		}
		c.Logger = &mysql.NopLogger{} // the error says it
		c.InterpolateParams = false   // values never become part of a statement
		c.MultiStatements = false
		c.AllowAllFiles = false
		c.ClientFoundRows = true // also a row that holds the hash already counts
		connector, err := mysql.NewConnector(c)
		if err != nil {
			return nil, "", withoutSecrets(err, c.Passwd)
		}
		return sql.OpenDB(connector), c.Passwd, nil
	case "postgres":
		c, err := pgx.ParseConfig(p.DSN)
		if err != nil {
			return nil, "", errors.New("the DSN is not understood, want postgres://user:password@host:port/database, special characters as %XX")
		}
		c.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec // a statement without a name, which a pooler can pass on
		return stdlib.OpenDB(*c), c.Password, nil
	}
	return nil, "", fmt.Errorf("no driver %.40q, want mysql or postgres", p.Driver)
}

// withoutSecrets keeps an error back that tells anything of a secret.
func withoutSecrets(err error, secrets ...string) error {
	switch {
	case !leaks(err.Error(), secrets...):
		return err
	case errors.Is(err, ErrUnchanged):
		return fmt.Errorf("%w; the message is not shown because it holds a secret", ErrUnchanged)
	}
	return errors.New("failed; the message is not shown because it holds a secret")
}

// update changes the one row in a transaction.
func (p SQLPasswords) update(ctx context.Context, conn *sql.Conn, values map[string]any) error {
	query, err := p.statement(p.Query, "UPDATE")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	if p.Driver == "mysql" {
		// Otherwise a hash that is too long for its column is cut short.
		if _, err := conn.ExecContext(ctx, "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"); err != nil {
			return fmt.Errorf("%w: %w", ErrUnchanged, err)
		}
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	if err := p.updateOne(ctx, conn, query, values); err != nil {
		if undone := p.rollBack(ctx, tx, conn); undone != nil {
			return fmt.Errorf("%w; %w", err, undone)
		}
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	return tx.Commit() // an error leaves open whether it was
}

func (p SQLPasswords) updateOne(ctx context.Context, conn *sql.Conn, query statement, values map[string]any) error {
	if p.Select != "" {
		if _, err := p.read(ctx, conn, values); err != nil {
			return err
		}
	}
	result, err := conn.ExecContext(ctx, query.text, query.arguments(values)...)
	if err != nil {
		return err
	}
	switch n, err := result.RowsAffected(); {
	case err != nil:
		return err
	case n == 0:
		return errors.New("the query finds no row of the account")
	case n != 1:
		return fmt.Errorf("the query finds %d rows and must find one", n)
	}
	if p.Select == "" {
		return nil
	}
	switch kept, err := p.read(ctx, conn, values); {
	case err != nil:
		return err
	case kept != values["hash"]:
		return fmt.Errorf("%w: what was read back is another hash", ErrNotKept)
	}
	return nil
}

// rollBack returns an error if something remains changed, or may.
func (p SQLPasswords) rollBack(ctx context.Context, tx *sql.Tx, conn *sql.Conn) error {
	if err := tx.Rollback(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("and it could not be rolled back: %w", err)
	}
	if p.Driver != "mysql" || ctx.Err() != nil {
		return nil // a connection that breaks off rolls back
	}
	var level, message string
	var code int
	const notTransactional = 1196 // ER_WARNING_NOT_COMPLETE_ROLLBACK
	rows, err := conn.QueryContext(ctx, "SHOW WARNINGS")
	if err != nil {
		return nil // the connection is gone, see above
	}
	defer rows.Close()
	for rows.Next() {
		if rows.Scan(&level, &code, &message) == nil && code == notTransactional {
			return errors.New("and what it changed REMAINS, as the table has no transactions: use InnoDB, or configure the query that reads the hash")
		}
	}
	return nil
}

// read reads the one hash.
func (p SQLPasswords) read(ctx context.Context, conn *sql.Conn, values map[string]any) (string, error) {
	query, err := p.statement(p.Select, "SELECT")
	if err != nil {
		return "", err
	}
	rows, err := conn.QueryContext(ctx, query.text, query.arguments(values)...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var hash sql.NullString
	n := 0
	for ; rows.Next(); n++ {
		if err := rows.Scan(&hash); err != nil {
			return "", err
		}
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if n != 1 {
		return "", fmt.Errorf("the query that reads the hash finds %d rows and must find one", n)
	}
	return strings.TrimRight(hash.String, " "), nil // which CHAR columns add
}

// A statement is a query with the parameters of its driver.
type statement struct {
	text  string
	names []string // of the parameters, in order
}

func (s statement) arguments(values map[string]any) []any {
	args := make([]any, len(s.names))
	for i, name := range s.names {
		args[i] = values[name]
	}
	return args
}

var (
	// What a query is made of: quoted text and names, parameters, casts of
	// PostgreSQL's, words, and anything else.
	sqlToken = regexp.MustCompile("(?s)'[^']*'|\"[^\"]*\"|`[^`]*`|::|:[A-Za-z_][A-Za-z_0-9]*|[A-Za-z_][A-Za-z_0-9]*|.")

	// Words by which a query could change what is not the account's, or how
	// many rows it changes could be hidden.
	sqlForbidden = []string{"LIKE", "ILIKE", "RLIKE", "REGEXP", "SIMILAR", "SOUNDS", "LIMIT", "OR"}
)

// statement turns a query with names into one for the driver. It takes only
// what is plainly one statement that asks for one account: no comments,
// backslashes or parameters of the driver's own, which would need the
// server's reading of them.
func (p SQLPasswords) statement(query, verb string) (statement, error) {
	query = strings.TrimSuffix(strings.TrimSpace(query), ";")
	if i := strings.IndexAny(query, "\\;#?$|\x00"); i >= 0 {
		return statement{}, fmt.Errorf("query: %q cannot be in it", query[i])
	}
	if strings.Contains(query, "--") || strings.Contains(query, "/*") {
		return statement{}, errors.New("query: comments cannot be in it")
	}
	var out strings.Builder
	var s statement
	numbers := map[string]int{}
	words, after := []string{}, map[string]bool{}
	for _, token := range sqlToken.FindAllString(query, -1) {
		name, isName := strings.CutPrefix(token, ":")
		switch {
		case isName && name != "" && name != ":":
			if !slices.Contains([]string{"login", "account", "user", "domain", "hash"}, name) {
				return statement{}, fmt.Errorf("query: :%s is unknown, want :login, :account, :user, :domain or :hash", name)
			}
			after[name] = after[name] || slices.Contains(words, "WHERE")
			token = p.placeholder(&s, numbers, name)
		case strings.ContainsAny(token[:1], "'\"`"):
			if len(token) == 1 {
				return statement{}, fmt.Errorf("query: a %s is not closed", token)
			}
		default:
			words = append(words, strings.ToUpper(token))
		}
		out.WriteString(token)
	}
	s.text = out.String()
	return s, checkWords(verb, words, numbers, after, p.Domains)
}

// placeholder notes a parameter and returns how the driver writes it.
func (p SQLPasswords) placeholder(s *statement, numbers map[string]int, name string) string {
	if numbers[name] == 0 || p.Driver == "mysql" {
		s.names = append(s.names, name)
		numbers[name] = len(s.names)
	}
	if p.Driver == "mysql" {
		return "?"
	}
	return "$" + strconv.Itoa(numbers[name])
}

// checkWords refuses a query that is not about exactly one account. after
// holds the parameters that stand behind WHERE.
func checkWords(verb string, words []string, used map[string]int, after map[string]bool, domains []string) error {
	if len(words) == 0 || words[0] != verb {
		return fmt.Errorf("query: want one that begins with %s", verb)
	}
	for _, word := range sqlForbidden {
		if slices.Contains(words, word) {
			return fmt.Errorf("query: %s cannot be in it: it must name one account", word)
		}
	}
	named := after["login"] || after["account"] || after["user"] && (after["domain"] || len(domains) == 1)
	switch {
	case !named:
		return errors.New("query: want :login behind WHERE, or :user and :domain (:user alone if domains has one)")
	case verb == "UPDATE" && (used["hash"] == 0 || after["hash"]):
		return errors.New("query: want :hash between SET and WHERE")
	case verb == "SELECT" && used["hash"] != 0:
		return errors.New("query: the one that reads the hash does not know :hash")
	}
	return nil
}
