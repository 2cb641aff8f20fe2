package store

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// batch n touches every table; all of it says n.
func batch(n, accounts int) Batch {
	id, at := fmt.Sprintf("f-%06d", n), time.Unix(int64(n), 0)
	b := Batch{
		Positions: map[string][]byte{"mail.log": fmt.Append(nil, n)},
		Messages:  []MessageState{{uint64(n), fmt.Append(nil, n)}},
		Findings:  []rules.Finding{{ID: id, Time: at}},
		Decisions: []rules.Decision{{ID: id, Time: at, Action: rules.Block, Enforce: true}},
		Incidents: []IncidentRow{{ID: id, Updated: at, Open: true}},
		Outbox:    []OutboxRow{{ID: id, Channel: "mail"}},
	}
	for i := range accounts {
		b.Accounts = append(b.Accounts, AccountState{fmt.Sprintf("user%d@shop.test", i), fmt.Appendf(nil, "%0700d", n)})
	}
	return b
}

// whole fails the test unless the database holds batches 1 to n and nothing
// of any other, and returns n.
func whole(t *testing.T, db *DB, accounts int) int {
	t.Helper()
	var n, wrong int
	if err := db.read.QueryRow("SELECT coalesce(max(CAST(body AS INTEGER)), 0) FROM positions").Scan(&n); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"findings", "decisions", "journal", "incidents", "outbox"} {
		var rows int
		if err := db.read.QueryRow("SELECT count(*) FROM " + table).Scan(&rows); err != nil || rows != n {
			t.Fatalf("%d batches, but %d rows in %s: %v", n, rows, table, err)
		}
	}
	messages := 0
	if err := db.LoadMessages(t.Context(), func(MessageState) error { messages++; return nil }); err != nil || messages != n {
		t.Fatalf("%d batches, but %d messages: %v", n, messages, err)
	}
	known := 0
	err := db.LoadAccounts(t.Context(), func(a AccountState) error {
		if of, _ := strconv.Atoi(string(a.State)); of != n || len(a.State) != 700 {
			wrong++
		}
		known++
		return nil
	})
	if err != nil || wrong > 0 || n > 0 && known != accounts {
		t.Fatalf("of %d accounts, want %d, %d are not of batch %d: %v", known, accounts, wrong, n, err)
	}
	var verdict string
	if err := db.read.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Fatalf("integrity: %s, %v", verdict, err)
	}
	return n
}

// pragma runs a PRAGMA on the writing connection.
func pragma(t *testing.T, db *DB, p string) {
	t.Helper()
	if _, err := db.write.Exec("PRAGMA " + p); err != nil {
		t.Fatal(err)
	}
}

// trouble commits, lets the trouble begin, and sees that writing fails with
// the error, leaves nothing half done, does not hinder reading, and works
// again when the trouble has ended.
func trouble(t *testing.T, db *DB, begin, end func(), want error) {
	const accounts = 400
	db.changes.age = 0 // so that each commit puts what is there into the tables
	if _, err := db.Commit(t.Context(), batch(1, accounts)); err != nil {
		t.Fatal(err)
	}
	begin()
	for range 3 {
		fresh, err := db.Commit(t.Context(), batch(2, 10*accounts))
		if !errors.Is(err, want) || !strings.Contains(err.Error(), db.path) || len(fresh) > 0 {
			t.Fatalf("commit: got %q, %v, want an error that names the file and is: %v", fresh, err, want)
		}
	}
	if n := whole(t, db, accounts); n != 1 {
		t.Errorf("got %d batches, want 1", n)
	}
	end()
	if fresh, err := db.Commit(t.Context(), batch(2, accounts)); err != nil || len(fresh) != 1 {
		t.Fatalf("afterwards: got %q, %v", fresh, err)
	}
	if _, err := db.Check(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n := whole(t, db, accounts); n != 2 {
		t.Errorf("afterwards: got %d batches, want 2", n)
	}
}

func TestFull(t *testing.T) {
	db := open(t)
	trouble(t, db, func() {
		var pages int
		if err := db.write.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
			t.Fatal(err)
		}
		pragma(t, db, fmt.Sprintf("max_page_count(%d)", pages+10))
	}, func() { pragma(t, db, "max_page_count(1000000000)") }, ErrFull)
}

func TestReadOnly(t *testing.T) {
	db := open(t)
	trouble(t, db, func() { pragma(t, db, "query_only(1)") }, func() { pragma(t, db, "query_only(0)") }, ErrReadOnly)
	pragma(t, db, "query_only(1)")
	if _, err := db.Check(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Errorf("check: got %v, want ErrReadOnly", err)
	}
}

// A database that was removed or replaced while it is in use takes all that is written, and
// keeps none of it.
func TestFileIsGone(t *testing.T) {
	for _, put := range []func(path string) error{
		os.Remove,
		func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, nil, 0o600))
		},
	} {
		db := open(t)
		if _, err := db.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := put(db.path); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Check(t.Context()); !errors.Is(err, errGone) || !strings.Contains(err.Error(), db.path) {
			t.Errorf("got %v, want that %s is gone", err, db.path)
		}
	}
}
