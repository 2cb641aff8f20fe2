package enforce

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const (
	sqlUpdate = "UPDATE mailbox SET password = :hash WHERE username = :login"
	sqlSelect = "SELECT password FROM mailbox WHERE username = :login"
)

// hostileAccounts are names that a driver must take for nothing but
// themselves, or refuse.
var hostileAccounts = []string{
	`o'brien@shop.test`, `"quoted"@shop.test`, `x';DROP/**/TABLE/**/mailbox;--@shop.test`, `'OR'1'='1`, `%@shop.test`, `_lice@shop.test`,
	`:login@shop.test`, `:hash`, `?`, `$1`, `alice@shop.test:x`, `#alice@shop.test`, `-alice@shop.test`, `--help`, `$(touch)@shop.test`, "`id`@shop.test",
	`;reboot;@shop.test`, `*@shop.test`, `a\@shop.test`, `{user}@shop.test`, `../../etc/passwd`, `alice@../../etc`, `alice@/etc`, `ALICE@SHOP.TEST`,
	"\u05d0\u05dc\u05d9\u05e1@shop.test", accented, "alice@shop.test\n", "alice@shop.test\nbob@shop.test:x", "alice@shop.test\x00", "alice@shop.test ",
	"\u202etset.pohs@ecila", "ali\u200bce@shop.test", "\xff@shop.test", "", strings.Repeat("a", 10<<10) + "@shop.test",
}

func TestSQLStatement(t *testing.T) {
	for _, tt := range []struct {
		query           string
		mysql, postgres string // empty: refused
	}{
		{sqlUpdate, "UPDATE mailbox SET password = ? WHERE username = ? [hash login]", "UPDATE mailbox SET password = $1 WHERE username = $2 [hash login]"},
		{"update m set p=:hash,q=:hash where u=:user and d=:domain;", "update m set p=?,q=? where u=? and d=? [hash hash user domain]", "update m set p=$1,q=$1 where u=$2 and d=$3 [hash user domain]"},
		{"UPDATE m SET p = :hash::text, c = ':login' WHERE \"u:login\" = :account", "UPDATE m SET p = ?::text, c = ':login' WHERE \"u:login\" = ? [hash account]", "UPDATE m SET p = $1::text, c = ':login' WHERE \"u:login\" = $2 [hash account]"},
		{"UPDATE m SET p = :hash", "", ""},
		{"UPDATE m SET p = :hash WHERE id = 1", "", ""},
		{"UPDATE m SET p = :hash WHERE u = :user", "", ""},
		{"UPDATE m SET u = :login, p = :hash WHERE 1", "", ""},
		{"UPDATE m SET p = 'x' WHERE u = :login", "", ""},
		{"UPDATE m SET p = 'x' WHERE u = :login AND p = :hash", "", ""},
		{"UPDATE m SET p = :hash WHERE u LIKE :login", "", ""},
		{"UPDATE m SET p = :hash WHERE u = :login OR 1=1", "", ""},
		{"UPDATE m SET p = :hash WHERE u = :login || 1", "", ""},
		{"UPDATE m SET p = :hash WHERE u = :login LIMIT 1", "", ""},
		{"UPDATE m SET p = :hash WHERE u = :login; DROP TABLE m", "", ""},
		{"UPDATE m SET p = :hash WHERE u = :login -- x", "", ""},
		{"UPDATE m SET p = :hash /* x */ WHERE u = :login", "", ""},
		{"UPDATE m SET p = :hash WHERE u = :name", "", ""},
		{"UPDATE m SET p = :hash WHERE u = ?", "", ""},
		{"UPDATE m SET p = :hash WHERE u = $1", "", ""},
		{"UPDATE m SET p = :hash, q = 'x WHERE u = :login", "", ""},
		{`UPDATE m SET p = :hash, q = '\' WHERE u = ' WHERE u = :login`, "", ""},
		{"DELETE FROM m WHERE u = :login", "", ""},
		{"", "", ""},
	} {
		for driver, want := range map[string]string{"mysql": tt.mysql, "postgres": tt.postgres} {
			s, err := SQLPasswords{Driver: driver}.statement(tt.query, "UPDATE")
			got := fmt.Sprintf("%s %v", s.text, s.names)
			if err != nil {
				got = ""
			}
			if got != want {
				t.Errorf("%s: %q\ngot  %q (%v)\nwant %q", driver, tt.query, got, err, want)
			}
		}
	}
	one := SQLPasswords{Driver: "mysql", Domains: []string{"shop.test"}}
	if _, err := one.statement("UPDATE m SET p = :hash WHERE u = :user", "UPDATE"); err != nil {
		t.Errorf("the users of one domain: %v", err)
	}
}

func TestSQLDSN(t *testing.T) {
	for _, p := range []SQLPasswords{
		{Driver: "mysql", DSN: "mail:s3cretpass@tcp(127.0.0.1:1)/mail"},
		{Driver: "mysql", DSN: "mail:s3cretpass@tcp(127.0.0.1:1"},
		{Driver: "postgres", DSN: "postgres://mail:s3cretpass@127.0.0.1:1/mail"},
		{Driver: "postgres", DSN: "postgres://mail:s3cretpass%2@127.0.0.1:1/mail"},
		{Driver: "oracle", DSN: "mail:s3cretpass@db"},
	} {
		p.Query = sqlUpdate
		err := p.Change(t.Context(), "alice@shop.test", NewPassword().Reveal())
		if err == nil || !errors.Is(err, ErrUnchanged) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", p.DSN, err)
		}
	}
}

// startSQL starts a database with mailboxes in it.
func startSQL(t *testing.T, start func(*testing.T) testDB) testDB {
	db := start(t)
	db.exec(t, "CREATE TABLE mailbox (username VARCHAR(400) NOT NULL, note VARCHAR(20), password VARCHAR(255))")
	return db
}

// fill makes the mailboxes anew, each with the password "old".
func (d testDB) fill(t *testing.T, names ...string) {
	t.Helper()
	d.exec(t, "DELETE FROM mailbox")
	insert := "INSERT INTO mailbox (username, note, password) VALUES (?, ?, '{PLAIN}old')"
	if d.driver == "postgres" {
		insert = "INSERT INTO mailbox (username, note, password) VALUES ($1, $2, '{PLAIN}old')"
	}
	for i, name := range names {
		d.exec(t, insert, name, fmt.Sprint(i))
	}
}

// rows are the passwords by number and name.
func (d testDB) rows(t *testing.T) map[string]string {
	t.Helper()
	rows, err := d.Query("SELECT note, username, password FROM mailbox")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var note, name, password string
		if err := rows.Scan(&note, &name, &password); err != nil {
			t.Fatal(err)
		}
		all[note+" "+name] = password
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSQLPasswords(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) testDB{"MariaDB": startMariaDB, "PostgreSQL": startPostgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := startSQL(t, start)
			p := SQLPasswords{Driver: db.driver, DSN: db.dsn, Query: sqlUpdate, Scheme: SSHA512}
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
			t.Run("one row", func(t *testing.T) { testSQLOneRow(t, db, p) })
			t.Run("hostile accounts", func(t *testing.T) { testSQLHostile(t, db, p) })
			t.Run("errors", func(t *testing.T) { testSQLErrors(t, db, p) })
			t.Run("Dovecot", func(t *testing.T) { testSQLDovecot(t, db, p) })
		})
	}
}

func testSQLOneRow(t *testing.T, db testDB, p SQLPasswords) {
	db.fill(t, "alice@shop.test", "bob@shop.test", "alice@blog.test")
	before := db.rows(t)
	if err := p.Change(t.Context(), "alice@shop.test", "new"); err != nil {
		t.Fatal(err)
	}
	after := db.rows(t)
	if !strings.HasPrefix(after["0 alice@shop.test"], "{SSHA512}") {
		t.Errorf("the hash is %q", after["0 alice@shop.test"])
	}
	want := maps.Clone(before)
	want["0 alice@shop.test"] = after["0 alice@shop.test"]
	if diff := cmp.Diff(want, after); diff != "" {
		t.Errorf("other rows changed: %s", diff)
	}

	// No row, and two.
	if err := p.Change(t.Context(), "carol@shop.test", "new"); !errors.Is(err, ErrUnchanged) || !strings.Contains(err.Error(), "no row") {
		t.Errorf("no row: %v", err)
	}
	db.fill(t, "alice@shop.test", "alice@shop.test", "bob@shop.test")
	before = db.rows(t)
	if err := p.Change(t.Context(), "alice@shop.test", "new"); !errors.Is(err, ErrUnchanged) || !strings.Contains(err.Error(), "2 rows") {
		t.Errorf("two rows: %v", err)
	}
	if diff := cmp.Diff(before, db.rows(t)); diff != "" {
		t.Errorf("not rolled back: %s", diff)
	}

	// The old hash, and back.
	db.fill(t, "alice@shop.test")
	if _, err := p.Old(t.Context(), "alice@shop.test"); err == nil {
		t.Error("an old hash without a query for it")
	}
	p.Select, p.Bare = sqlSelect, true
	old, err := p.Old(t.Context(), "alice@shop.test")
	if err != nil || old.Reveal() != "{PLAIN}old" {
		t.Errorf("old: %q, %v", old.Reveal(), err)
	}
	if err := p.Change(t.Context(), "alice@shop.test", "new"); err != nil {
		t.Fatal(err)
	}
	if hash := db.rows(t)["0 alice@shop.test"]; strings.Contains(hash, "{") || hash == "" {
		t.Errorf("not bare: %q", hash)
	}
	for range 2 { // again changes nothing, and succeeds
		if err := p.Restore(t.Context(), "alice@shop.test", old.Reveal()); err != nil {
			t.Fatal(err)
		}
	}
	if hash := db.rows(t)["0 alice@shop.test"]; hash != "{PLAIN}old" {
		t.Errorf("put back: %q", hash)
	}
}

// accented is another account than alice, except to the collations of MariaDB.
const accented = "álice@shop.test"

// A hostile name changes the row that has exactly this name, or none.
func testSQLHostile(t *testing.T, db testDB, p SQLPasswords) {
	names := []string{"alice@shop.test", "bob@shop.test", "1"}
	for _, name := range hostileAccounts {
		if len(name) < 400 && utf8.ValidString(name) && !strings.Contains(name, "\x00") && strings.TrimSpace(name) == name && name != "ALICE@SHOP.TEST" && name != accented {
			names = append(names, name)
		}
	}
	db.fill(t, names...)
	changed := 0
	for _, account := range hostileAccounts {
		before := db.rows(t)
		err := p.Change(t.Context(), account, NewPassword().Reveal())
		after := db.rows(t)
		var touched []string
		for key, hash := range after {
			if before[key] != hash {
				_, name, _ := strings.Cut(key, " ")
				touched = append(touched, name)
			}
		}
		switch {
		case len(before) != len(after) || len(touched) > 1:
			t.Fatalf("%.40q changed %q of %d", account, touched, len(before))
		case err == nil && (len(touched) != 1 || !strings.EqualFold(touched[0], account)):
			t.Errorf("%.40q succeeded and changed %q", account, touched)
		case err != nil && len(touched) != 0:
			t.Errorf("%.40q failed with %v and changed %q", account, err, touched)
		case err != nil && !errors.Is(err, ErrUnchanged):
			t.Errorf("%.40q: %v", account, err)
		case err != nil && strings.ContainsAny(err.Error(), "\n\x00\u202e"):
			t.Errorf("the error is not one printable line: %q", err)
		}
		changed += len(touched)
	}
	if db.driver == "mysql" {
		exact := p
		exact.Query += " COLLATE utf8mb4_bin"
		if err := exact.Change(t.Context(), accented, "new"); !errors.Is(err, ErrUnchanged) || !strings.Contains(err.Error(), "no row") {
			t.Errorf("an accented letter, compared exactly: %v", err)
		}
	}
	if changed < 15 {
		t.Errorf("only %d of %d names were taken", changed, len(hostileAccounts))
	}
	for _, password := range refusedPasswords {
		if err := p.Change(t.Context(), "alice@shop.test", password); !errors.Is(err, ErrUnchanged) {
			t.Errorf("password %.20q: %v", password, err)
		}
	}
	p.Scheme = Plain
	for _, password := range hostilePasswords {
		if err := p.Change(t.Context(), "alice@shop.test", password); err != nil {
			t.Errorf("password %q: %v", password, err)
		}
	}
}

func testSQLErrors(t *testing.T, db testDB, p SQLPasswords) {
	db.fill(t, "alice@shop.test", "bob@shop.test")
	// A hash that does not fit is not cut short.
	db.exec(t, "CREATE TABLE tight (username VARCHAR(100), password VARCHAR(20))")
	db.exec(t, "INSERT INTO tight VALUES ('alice@shop.test', 'old')")
	if db.driver == "mysql" {
		db.exec(t, "SET GLOBAL sql_mode = ''")
	}
	tight := p
	tight.Query = strings.ReplaceAll(sqlUpdate, "mailbox", "tight")
	var kept string
	if err := tight.Change(t.Context(), "alice@shop.test", "new"); !errors.Is(err, ErrUnchanged) {
		t.Errorf("a column that is too short: %v", err)
	}
	if err := db.QueryRow("SELECT password FROM tight").Scan(&kept); err != nil || kept != "old" {
		t.Errorf("it holds %q, %v", kept, err)
	}

	// What the server says is not shown if it says too much.
	if db.driver == "mysql" {
		db.exec(t, "CREATE TRIGGER telltale BEFORE UPDATE ON tight FOR EACH ROW BEGIN DECLARE m VARCHAR(128); SET m = CONCAT('no: ', NEW.password); SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = m; END")
	} else {
		db.exec(t, "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no: %'', NEW.password; END'")
		db.exec(t, "CREATE TRIGGER telltale BEFORE UPDATE ON tight FOR EACH ROW EXECUTE FUNCTION tell()")
	}
	tight.Scheme = Plain
	const secret = "abcdef-ghjkmn" // fits
	if err := tight.Change(t.Context(), "alice@shop.test", secret); !errors.Is(err, ErrUnchanged) || leaks(err.Error(), secret) || !strings.Contains(err.Error(), "not shown") {
		t.Errorf("a telltale: %v", err)
	}

	// Somebody holds the row: the time-out is kept.
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("UPDATE mailbox SET note = 'x' WHERE username = 'alice@shop.test'"); err != nil {
		t.Fatal(err)
	}
	slow := p
	slow.Timeout = 300 * time.Millisecond
	start := time.Now()
	if err := slow.Change(t.Context(), "alice@shop.test", "new"); !errors.Is(err, ErrUnchanged) {
		t.Errorf("a locked row: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the time-out took %v", took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if db.driver == "mysql" {
		testNoTransactions(t, db, p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Change(ctx, "alice@shop.test", "new"); !errors.Is(err, ErrUnchanged) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A table that cannot roll back is told, and with a query that reads the hash
// it is not touched.
func testNoTransactions(t *testing.T, db testDB, p SQLPasswords) {
	db.exec(t, "CREATE TABLE loose (username VARCHAR(100), password VARCHAR(255)) ENGINE=MyISAM")
	db.exec(t, "INSERT INTO loose VALUES ('alice@shop.test', 'old'), ('alice@shop.test', 'old')")
	p.Query = strings.ReplaceAll(sqlUpdate, "mailbox", "loose")
	p.Select = strings.ReplaceAll(sqlSelect, "mailbox", "loose")
	var n int
	if err := p.Change(t.Context(), "alice@shop.test", "new"); !errors.Is(err, ErrUnchanged) {
		t.Errorf("two rows: %v", err)
	}
	if err := db.QueryRow("SELECT COUNT(*) FROM loose WHERE password = 'old'").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rows are as they were, %v", n, err)
	}
	p.Select = ""
	if err := p.Change(t.Context(), "alice@shop.test", "new"); err == nil || errors.Is(err, ErrUnchanged) || !strings.Contains(err.Error(), "REMAINS") {
		t.Errorf("a table without transactions: %v", err)
	}
}

// Dovecot, with its authentication cache, asks the same table.
func testSQLDovecot(t *testing.T, db testDB, p SQLPasswords) {
	findProgram(t, "/usr/lib/dovecot/modules/auth/libdriver_mysql.so")
	findProgram(t, "/usr/lib/dovecot/modules/auth/libdriver_pgsql.so")
	dir := serverDir(t)
	connect := "driver = mysql\nconnect = host=" + filepath.Join(db.socketDir, "sock") + " dbname=mail user=root\n"
	if db.driver == "postgres" {
		connect = "driver = pgsql\nconnect = host=" + db.socketDir + " dbname=postgres user=root\n"
	}
	writeTestFile(t, filepath.Join(dir, "sql.conf"), connect+"password_query = SELECT password FROM mailbox WHERE username = '%u'\n")
	db.fill(t, "alice@shop.test", "bob@shop.test")
	d := startResetDovecot(t, dir, "auth_cache_size = 1M\nauth_cache_verify_password_with_worker = no\npassdb {\n  driver = sql\n  args = DIR/sql.conf\n}\n")

	schemes := []Scheme{SHA512Crypt, SHA256Crypt, BlowfishCrypt, Argon2ID, PBKDF2, SSHA512, SSHA256, SSHA, Plain, "SSHA512.HEX"}
	if db.driver == "postgres" {
		schemes = schemes[:1] // each is as the other, and each refusal takes its second
	}
	for _, scheme := range schemes {
		db.fill(t, "alice@shop.test", "bob@shop.test")
		p.Scheme, p.Select = scheme, sqlSelect
		if err := d.sessions.End(t.Context(), []string{"alice@shop.test"}); err != nil {
			t.Fatal(err)
		}
		alice, bob := d.mustLogin("alice@shop.test", "old"), d.mustLogin("bob@shop.test", "old")
		r := &Resetter{Passwords: []Passwords{p}, Sessions: []Sessions{d.sessions}}
		o := Reset{ID: "d-" + string(scheme), Account: "alice@shop.test", Logins: []string{"alice@shop.test", "alice%shop.test"}}
		start := time.Now()
		out := r.Do(t.Context(), o)
		took := time.Since(start)
		if !out.OK || out.State != ResetGiven {
			t.Fatalf("%s: %+v", scheme, out)
		}
		alice.ended(t)
		if !bob.open() {
			t.Errorf("%s: the session of another was ended", scheme)
		}
		bob.Close()
		d.refused("alice@shop.test", "old") // at once: it is not remembered
		d.wantLogin("alice@shop.test", out.Password.Reveal(), true)
		d.wantLogin("bob@shop.test", "old", true)
		t.Logf("%s: reset in %v", scheme, took.Round(time.Millisecond))
		if undone := r.Undo(t.Context(), o, out.Old); !undone.OK {
			t.Errorf("%s: undo: %s", scheme, undone.Detail)
		}
		d.refused("alice@shop.test", out.Password.Reveal())
		d.wantLogin("alice@shop.test", "old", true)
	}
}

// refused checks that a password is not taken, now.
func (d *testDovecot) refused(name, password string) {
	d.t.Helper()
	if s, err := d.login(name, password); err == nil {
		s.Close()
		d.t.Errorf("%s logs in with a password that is not valid any more", name)
	} else if !errors.Is(err, errLogin) {
		d.t.Error(err)
	}
}

func FuzzSQLStatement(f *testing.F) {
	f.Add(sqlUpdate)
	f.Add("UPDATE m SET p = :hash::text, c = ':login' WHERE `u` = :user AND d = :domain")
	f.Fuzz(func(t *testing.T, query string) {
		for _, driver := range []string{"mysql", "postgres"} {
			s, err := SQLPasswords{Driver: driver}.statement(query, "UPDATE")
			if err != nil {
				continue
			}
			if driver == "mysql" && strings.Count(s.text, "?") != len(s.names) {
				t.Errorf("%q has other parameters than %v", s.text, s.names)
			}
			if strings.ContainsAny(s.text, ";#\\") || len(s.names) < 2 {
				t.Errorf("%q is let through as %q", query, s.text)
			}
		}
	})
}
