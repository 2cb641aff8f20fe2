package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

// open opens a fresh database.
func open(t testing.TB) *DB {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "vedetta.db"))
}

func openAt(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestOpenSetsTheFileUp(t *testing.T) {
	db := open(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "1", "auto_vacuum": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		if err := db.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
		}
	}
	if _, err := db.read.Exec("DELETE FROM settings"); err == nil {
		t.Error("a reading connection can write")
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(db.path + suffix)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("vedetta.db%s: mode %v (%v), want 0600", suffix, info.Mode(), err)
		}
	}
}

func TestOpenAnyPath(t *testing.T) {
	for _, name := range []string{"with space.db", "a?b=c&_pragma=x.db", "50%25.db", "a#b.db", "ünï.db"} {
		path := filepath.Join(t.TempDir(), name)
		db := openAt(t, path)
		if err := db.SetSetting(t.Context(), "k", []byte("v")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%s: not written: %v", name, err)
		}
	}
}

func TestReopenFindsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vedetta.db")
	now := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	d := rules.Decision{ID: "f-1/block", Finding: "f-1", Subject: "alice@shop.test", Action: rules.Block, Time: now, Enforce: true}

	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Commit(t.Context(), Batch{
		Positions: map[string][]byte{"mail.log": []byte(`{"offset":7}`)},
		Accounts:  []AccountState{{"alice@shop.test", []byte("learned")}},
		Decisions: []rules.Decision{d},
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	db = openAt(t, path)
	positions, err := db.LoadPositions(t.Context())
	if err != nil || string(positions["mail.log"]) != `{"offset":7}` {
		t.Errorf("got positions %q, %v", positions, err)
	}
	pending, err := db.Pending(t.Context())
	if diff := cmp.Diff([]rules.Decision{d}, pending); err != nil || diff != "" {
		t.Errorf("pending (-want +got): %v\n%s", err, diff)
	}
}

// TestOpenAfterRollback: the program of the release before goes on with what a
// later one has only added to.
func TestOpenAfterRollback(t *testing.T) {
	db := open(t)
	if _, err := db.write.Exec("INSERT INTO migrations (version, name, at) VALUES (99, 'later', 0); ALTER TABLE decisions ADD COLUMN later TEXT NOT NULL DEFAULT ''"); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), db.path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	d := rules.Decision{ID: "d-1", Subject: "alice@shop.test", Action: rules.Block, Time: time.Now().UTC(), Enforce: true}
	if fresh, err := again.Commit(t.Context(), Batch{Decisions: []rules.Decision{d}}); err != nil || len(fresh) != 1 {
		t.Errorf("commit: %v, %v", fresh, err)
	}
	if active, err := again.Active(t.Context(), time.Now()); err != nil || len(active) != 1 {
		t.Errorf("active: %v, %v", active, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	make := func(t *testing.T, script string) string {
		path := filepath.Join(t.TempDir(), "other.db")
		db, err := sql.Open("sqlite", dsn(path, "immediate"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(script); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		name, want string
		path       func(t *testing.T) string
		is         error
	}{
		{"a newer schema", "made by a newer version of vedetta", func(t *testing.T) string {
			db := open(t)
			if _, err := db.write.Exec("INSERT INTO migrations (version, name, at) VALUES (99, 'later', 0); PRAGMA user_version = 99"); err != nil {
				t.Fatal(err)
			}
			return db.path
		}, ErrNewer},
		{"another program's database", "belongs to another program", func(t *testing.T) string {
			return make(t, "CREATE TABLE notes (text TEXT)")
		}, nil},
		{"no database at all", "damaged or is none", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "mail.log")
			if err := os.WriteFile(path, []byte(strings.Repeat("Mar 20 10:00:00 mx1 postfix/smtpd[1]: connect\n", 200)), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, nil},
		{"a missing directory", "no such file or directory", func(t *testing.T) string {
			return filepath.Join(t.TempDir(), "missing", "vedetta.db")
		}, os.ErrNotExist},
		{"a directory", "is a directory", func(t *testing.T) string { return t.TempDir() }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := test.path(t)
			db, err := Open(t.Context(), path)
			if err == nil {
				db.Close()
				t.Fatal("opened it")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %q, want it to name %s and say %q", err, path, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want it to be %v", err, test.is)
			}
		})
	}
}

// TestMigrateAfterACrash repeats a migration that was broken off.
func TestMigrateAfterACrash(t *testing.T) {
	db := open(t)
	if _, err := db.write.Exec("DROP TABLE outbox; DELETE FROM migrations"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), db.path); err == nil {
		t.Fatal("opened a file whose tables and migrations disagree")
	}
	var tables int
	if err := db.write.QueryRow("SELECT count(*) FROM sqlite_schema WHERE name = 'outbox'").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("half a migration was kept: %d, %v", tables, err)
	}
}

func TestReadersDoNotHoldUpTheWriter(t *testing.T) {
	db := open(t)
	if _, err := db.Commit(t.Context(), Batch{Accounts: []AccountState{{"a", []byte("1")}, {"b", []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // less than busy_timeout
	defer cancel()
	var seen []string
	err := db.LoadAccounts(ctx, func(a AccountState) error {
		seen = append(seen, a.Account+string(a.State))
		_, err := db.Commit(ctx, Batch{Accounts: []AccountState{{"a", []byte("2")}, {"b", []byte("2")}, {"c", []byte("2")}}})
		return err
	})
	if diff := cmp.Diff([]string{"a1", "b1"}, seen); err != nil || diff != "" {
		t.Errorf("the load saw what was committed after it began (-want +got): %v\n%s", err, diff)
	}
}

func TestCommitGivesUpWaiting(t *testing.T) {
	db := open(t)
	holder, err := db.write.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Commit(ctx, Batch{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Commit(t.Context(), Batch{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestPruneShrinksTheFile(t *testing.T) {
	db := open(t)
	b := Batch{Time: time.Unix(1000, 0)}
	for i := range 4000 {
		b.Messages = append(b.Messages, MessageState{uint64(i + 1), make([]byte, 4000)})
	}
	if _, err := db.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	pages := func() (n int) {
		if err := db.write.QueryRow("PRAGMA page_count").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := pages()
	if _, err := db.Prune(t.Context(), time.Now(), Ages{Messages: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if after := pages(); after > before/3 {
		t.Errorf("%d pages before, %d after, want at most a third", before, after)
	}
}

func TestTimes(t *testing.T) {
	for _, test := range []struct{ at, want time.Time }{
		{time.Time{}, time.Time{}},
		{time.Unix(0, 0), time.Unix(0, 0)},
		{time.Date(2026, 3, 20, 10, 0, 0, 1, time.FixedZone("", 3600)), time.Date(2026, 3, 20, 9, 0, 0, 1, time.UTC)},
		{time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), earliest},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), latest},
	} {
		var n sql.NullInt64
		if err := n.Scan(nanos(test.at)); err != nil {
			t.Fatal(err)
		}
		if got := moment(n); !got.Equal(test.want) || got.Location() != time.UTC {
			t.Errorf("%v: got %v, want %v", test.at, got, test.want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     int
	}{
		{"short", "abc", 3},
		{"just fits", strings.Repeat("x", 1024), 1024},
		{"cut", strings.Repeat("x", 2000), 1024},
		{"not within a character", "x" + strings.Repeat("é", 1000), 1023},
		{"no text at all", strings.Repeat("\x80", 2000), 1020},
	} {
		if got := clip(test.in); len(got) != test.want || !strings.HasPrefix(test.in, got) {
			t.Errorf("%s: got %d bytes, want %d", test.name, len(got), test.want)
		}
	}
}

// TestStandingNeedsNoScan: what is in force is looked up among what stands,
// however many decisions are remembered.
func TestStandingNeedsNoScan(t *testing.T) {
	db := open(t)
	for _, query := range []string{pendingQuery, activeQuery} {
		var id, parent, unused int
		var plan string
		if err := db.read.QueryRow("EXPLAIN QUERY PLAN "+strings.Replace(query, "?", "1", 1)).Scan(&id, &parent, &unused, &plan); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, "decisions_standing") {
			t.Errorf("%s\ndoes: %s", query, plan)
		}
	}
}
