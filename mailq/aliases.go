package mailq

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"strings"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// maxAliases bounds a source of aliases.
const maxAliases = 5_000_000

// AliasFile reads further addresses of accounts from a file: an address and a
// login a line, separated by white space, a comma or "=". Empty lines and
// lines that begin with # are passed over. Keys are in lower case.
func AliasFile(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("mailq: %w", err)
	}
	defer f.Close()
	return readAliases(path, f)
}

func readAliases(name string, r io.Reader) (map[string]string, error) {
	aliases := map[string]string{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' || r == '=' })
		if len(fields) != 2 {
			return nil, fmt.Errorf("mailq: %s:%d: want an address and a login, have %q", name, n, clip(line, 100))
		}
		aliases[strings.ToLower(fields[0])] = strings.ToLower(fields[1])
		if len(aliases) > maxAliases {
			return nil, fmt.Errorf("mailq: %s:%d: more than %d aliases", name, n, maxAliases)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("mailq: %s: %w", name, err)
	}
	return aliases, nil
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// An AliasQuery reads further addresses of accounts from a database.
type AliasQuery struct {
	Driver string // mysql or postgres
	DSN    string // in the driver's form
	Query  string // returns two columns, address and login
}

// Read runs the query. Rows without an address or a login are passed over.
func (q AliasQuery) Read(ctx context.Context) (map[string]string, error) {
	driver := q.Driver
	if driver == "postgres" {
		driver = "pgx"
	}
	db, err := sql.Open(driver, q.DSN)
	if err != nil {
		return nil, fmt.Errorf("mailq: aliases from %s: %w", q.Driver, err)
	}
	defer db.Close()
	aliases, err := q.rows(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("mailq: aliases from %s: %w", q.Driver, err)
	}
	return aliases, nil
}

func (q AliasQuery) rows(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, q.Query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	aliases := map[string]string{}
	for rows.Next() {
		var address, login sql.NullString
		if err := rows.Scan(&address, &login); err != nil {
			return nil, err
		}
		if address.String == "" || login.String == "" {
			continue
		}
		if len(aliases) >= maxAliases {
			return nil, fmt.Errorf("the query returns more than %d rows", maxAliases)
		}
		aliases[strings.ToLower(address.String)] = strings.ToLower(login.String)
	}
	return aliases, rows.Err()
}
