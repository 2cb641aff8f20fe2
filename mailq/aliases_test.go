package mailq

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite" // a database that needs no server
)

func TestAliasFile(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	tests := []struct {
		name, file string
		want       map[string]string
		mistakes   []string // each in a line of its own
	}{
		{name: "empty", want: map[string]string{}},
		{
			name: "every separator",
			file: "# comment\n\nInfo@Shop.test Alice@shop.test\nsales@shop.test\talice@shop.test\r\na=bob@shop.test\nb, bob@shop.test\nc: \"bob@shop.test\"\n\"d\" : bob@shop.test",
			want: map[string]string{"info@shop.test": "alice@shop.test", "sales@shop.test": "alice@shop.test",
				"a": "bob@shop.test", "b": "bob@shop.test", "c": "bob@shop.test", "d": "bob@shop.test"},
		},
		{
			name: "tables of mail servers",
			file: "all@x.test a@x.test,\n\tb@x.test\n\n  # comment\n  c@x.test\npostmaster: |/usr/bin/vacation\narchive: /var/mail/archive\n" +
				"staff: :include:/etc/staff\nclub::include:/etc/club\nescaped: \\root\nroot:\n  alice@x.test\n",
			want: map[string]string{"root": "alice@x.test"},
		},
		{
			name: "a line to continue that is none",
			file: " a@x.test b@x.test\n",
			want: map[string]string{"a@x.test": "b@x.test"},
		},
		{name: "byte order mark", file: "\ufeffa@x.test b@x.test\n", want: map[string]string{"a@x.test": "b@x.test"}},
		{name: "twice the same", file: "a@x.test b@x.test\nA@x.test B@x.test\n", want: map[string]string{"a@x.test": "b@x.test"}},
		{
			name: "copies to somebody else",
			file: "alice@x.test alice@x.test\nalice@x.test boss@x.test\nalice@x.test alice@x.test\nbob@x.test bob@x.test\n",
			want: map[string]string{"bob@x.test": "bob@x.test"},
		},
		{
			name:     "mistakes",
			file:     "a@x.test\na@x.test b@x.test\n\x00c@x.test\n  d@x.test\ne@x.test:\n",
			mistakes: []string{`F:1: want an address and a login, have "a@x.test"`, `F:3: want an address and a login, have "\x00c@x.test d@x.test"`, `F:5: want an address and a login, have "e@x.test:"`},
		},
		{name: "a long line", file: "a b\n" + long, mistakes: []string{"F:2: bufio.Scanner: token too long"}},
		{name: "a long name", file: long[:400] + " b", mistakes: []string{`F:1: want an address and a login, have "` + long[:100] + `"`}},
		{name: "a binary file", file: strings.Repeat("\xff\xfe\x00\n", 1000), mistakes: func() (all []string) {
			for n := range 10 {
				all = append(all, fmt.Sprintf(`F:%d: want an address and a login, have "\xff\xfe\x00"`, n+1))
			}
			return all
		}()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "aliases")
			write(t, path, []byte(tt.file))
			got, err := AliasFile(path)
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("aliases (-got +want):\n%s", diff)
			}
			var mistakes []string
			if err != nil {
				mistakes = strings.Split(strings.ReplaceAll(err.Error(), "mailq: "+path, "F"), "\n")
			}
			if diff := cmp.Diff(mistakes, tt.mistakes); diff != "" {
				t.Errorf("mistakes (-got +want):\n%s", diff)
			}
		})
	}
}

func TestAliasFileUnreadable(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                         "mailq: " + dir + ": is not a file",
		pipe:                        "mailq: " + pipe + ": is not a file",
		filepath.Join(dir, "never"): "mailq: " + filepath.Join(dir, "never") + ": no such file or directory",
	} {
		if _, err := AliasFile(path); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	broken := errors.New("broken disk")
	_, err := readAliases("f", iotest.TimeoutReader(iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "mailq: f:1: ") {
		t.Errorf("got %v, want that the disk is broken", err)
	}
}

// addresses makes a database with a table of aliases.
func addresses(t *testing.T, statements ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "aliases.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, s := range append([]string{"CREATE TABLE alias (address, goto, active)"}, statements...) {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func TestQueryAliases(t *testing.T) {
	db := addresses(t, `INSERT INTO alias VALUES
		('Info@shop.test', 'Alice@shop.test', 1),
		('alice@shop.test', 'alice@shop.test', 1), ('alice@shop.test', 'boss@shop.test', 1),
		('list@shop.test', 'a@shop.test,b@shop.test', 1), ('list@shop.test', 'a@shop.test', 1),
		('none@shop.test', NULL, 1), ('none2@shop.test', '', 1), (NULL, 'bob@shop.test', 1), ('', 'bob@shop.test', 1),
		('line' || char(10) || 'break@shop.test', 'bob@shop.test', 1),
		(hex(zeroblob(1000)), 'bob@shop.test', 1), ('big@shop.test', hex(zeroblob(1000)), 1),
		('off@shop.test', 'bob@shop.test', 0)`)
	got, err := queryAliases(t.Context(), db, "SELECT address, goto FROM alias WHERE active")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"info@shop.test": "alice@shop.test"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("aliases (-got +want):\n%s", diff)
	}
	for query, want := range map[string]string{
		"SELECT address FROM alias": "the query returns 1 columns, want 2: address and login",
		"SELECT * FROM alias":       "the query returns 3 columns, want 2: address and login",
		"SELECT address FROM ailas": "no such table: ailas",
		// The first row is good; the second fails while it is read.
		"SELECT address, iif(rowid > 1, abs(-9223372036854775807 - 1), goto) FROM alias": "integer overflow",
	} {
		if _, err := queryAliases(t.Context(), db, query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", query, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := queryAliases(ctx, db, "SELECT address, goto FROM alias"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// Whatever is wrong, an error names the driver and holds no part of a password.
func TestAliasQueryTellsNoPassword(t *testing.T) {
	gossip := gossip(t, "Host 's3cret' is blocked")
	nobody := closedPort(t)
	tests := []struct {
		driver, dsn, want string
	}{
		{"mysql", "mail:s3cret@tcp(" + nobody + ")/mail", "connection refused"},
		{"mysql", "mail:s3cret@tcp(" + gossip + ")/mail", "the message is not shown"},
		{"mysql", "mail:s3cret@db.shop.test/mail", "the DSN is not understood"},
		{"mysql", "mail:s3cret", "the DSN is not understood"},
		{"mysql", "mail:s3cret/mail", "the DSN is not understood"},
		{"mysql", "mail:s3@cret@tcp(db:1/mail", "the DSN is not understood"},
		{"mysql", "mail:x@tcp(db:1)/mail?tls=s3cret", "the DSN is not understood"},
		{"postgres", "postgres://mail:s3cret@" + nobody + "/mail", "connection refused"},
		{"postgres", "postgres://mail:s3cret%2@" + nobody + "/mail", "the DSN is not understood"},
		{"postgres", "postgres://mail:s3/cret@" + nobody + "/mail", "the DSN is not understood"},
		{"postgres", "host=127.0.0.1 password=x s3cret user=mail", "the DSN is not understood"},
		{"postgres", "host=127.0.0.1 password='s3cret user=mail", "the DSN is not understood"},
		{"oracle", "mail:s3cret@db", "no such driver, want mysql or postgres"},
		{"sqlite", "s3cret.sqlite", "no such driver, want mysql or postgres"}, // there it is, in these tests
	}
	for _, tt := range tests {
		_, err := AliasQuery{Driver: tt.driver, DSN: tt.dsn, Query: "SELECT 1, 2"}.Read(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "mailq: aliases from "+tt.driver+": ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.dsn, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "s3") || strings.Contains(err.Error(), "cret")) {
			t.Errorf("%s: tells the password: %v", tt.dsn, err)
		}
	}
}

// gossip is the address of a server that greets as MySQL does when it refuses
// a client: an error packet with that text.
func gossip(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	packet := append([]byte{0xff, 0x69, 0x04}, text...)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(append([]byte{byte(len(packet)), 0, 0, 0}, packet...))
			c.Close()
		}
	}()
	return l.Addr().String()
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// FuzzAliases reads any file as aliases: what comes out is bounded text in
// lower case, and reading it again gives the same.
func FuzzAliases(f *testing.F) {
	f.Add([]byte("info@shop.test alice@shop.test\n# comment\nA=b\n\ufeffx y"))
	f.Add([]byte("a@x.test alice@x.test\na@x.test boss@x.test\n"))
	f.Add([]byte("a@x.test b@x.test, c@x.test\r\n\xff\x00 =,=\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		aliases, err := readAliases("f", bytes.NewReader(text))
		if err != nil {
			if aliases != nil || !strings.HasPrefix(err.Error(), "mailq: f:") {
				t.Errorf("%d aliases and the error %q", len(aliases), err)
			}
			return
		}
		var again bytes.Buffer
		for address, login := range aliases {
			if !isAlias(address) || !isAlias(login) || strings.ToLower(address+login) != address+login {
				t.Errorf("%q leads to %q", address, login)
			}
			fmt.Fprintf(&again, "\"%s\":%s\n", address, login)
		}
		back, err := readAliases("f", &again)
		if diff := cmp.Diff(back, aliases); diff != "" || err != nil {
			t.Errorf("read again: %v (-got +want):\n%s", err, diff)
		}
	})
}
