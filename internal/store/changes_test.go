package store

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

// learned is what is stored of messages and accounts.
type learned struct {
	Messages map[uint64]string
	Accounts map[string]string
}

func none() learned { return learned{map[uint64]string{}, map[string]string{}} }

// loaded is what the loads hand over, each only once.
func loaded(t *testing.T, db *DB) learned {
	t.Helper()
	l := none()
	twice := func(known bool) {
		if known {
			t.Error("a load handed something over twice")
		}
	}
	if err := db.LoadMessages(t.Context(), func(m MessageState) error {
		_, known := l.Messages[m.Key]
		twice(known)
		l.Messages[m.Key] = string(m.State)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.LoadAccounts(t.Context(), func(a AccountState) error {
		_, known := l.Accounts[a.Account]
		twice(known)
		l.Accounts[a.Account] = string(a.State)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

func rowsOf(t *testing.T, db *DB, table string) (n int) {
	t.Helper()
	if err := db.read.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestChanges commits at random, to a store that puts changes into its tables
// at random times and is opened anew now and then, and compares what is loaded
// with what was committed.
func TestChanges(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			path := filepath.Join(t.TempDir(), "vedetta.db")
			db := openAt(t, path)
			want := none()
			for n := range 120 {
				db.changes.age = []time.Duration{0, time.Hour}[rng.IntN(2)]
				db.changes.bytes = []int{300, 1 << 20}[rng.IntN(2)]
				db.changes.few = []int{0, 3, 200}[rng.IntN(3)]
				batch := randomBatch(rng, n, want)
				if _, err := db.Commit(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
				switch rng.IntN(20) {
				case 0:
					db = openAt(t, path) // as after a kill: nothing is closed
				case 1:
					if _, err := db.Prune(t.Context(), time.Now(), Ages{}); err != nil {
						t.Fatal(err)
					}
				}
				if rng.IntN(10) == 0 {
					if diff := cmp.Diff(want, loaded(t, db)); diff != "" {
						t.Fatalf("after %d commits (-want +got):\n%s", n+1, diff)
					}
				}
			}
			if err := db.settleAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, loaded(t, db)); diff != "" {
				t.Errorf("at the end (-want +got):\n%s", diff)
			}
			got := []int{rowsOf(t, db, "changes"), rowsOf(t, db, "messages"), rowsOf(t, db, "accounts"), len(db.changes.rows), db.changes.size, len(db.changes.latest)}
			if diff := cmp.Diff([]int{0, len(want.Messages), len(want.Accounts), 0, 0, 0}, got); diff != "" {
				t.Errorf("changes, messages, accounts, and what is known of changes (-want +got):\n%s", diff)
			}
		})
	}
}

// randomBatch is a batch about a few of everything; want is kept to what it says.
func randomBatch(rng *rand.Rand, n int, want learned) (b Batch) {
	for _, i := range rng.Perm(60)[:rng.IntN(6)] {
		key, state := uint64(i)<<58|uint64(i), fmt.Append(nil, "m", n)
		if want.Messages[key] = string(state); rng.IntN(2) == 0 {
			state = nil
			delete(want.Messages, key)
		}
		b.Messages = append(b.Messages, MessageState{key, state})
	}
	for _, i := range rng.Perm(30)[:rng.IntN(6)] {
		account, state := fmt.Sprint("user", i), fmt.Append(nil, "a", n)
		if want.Accounts[account] = string(state); rng.IntN(4) == 0 {
			state = nil
			delete(want.Accounts, account)
		}
		b.Accounts = append(b.Accounts, AccountState{account, state})
	}
	if rng.IntN(2) == 0 {
		b.Positions = map[string][]byte{"mail.log": fmt.Append(nil, n)}
	}
	return b
}

// TestChangesOfALargeBatch: it goes into many rows, which get into the tables
// without a commit that writes for long; all that an installation learns at once
// goes there at once.
func TestChangesOfALargeBatch(t *testing.T) {
	db := open(t)
	db.changes.bytes, db.changes.few = 4*changesOfRow, 0
	batch := func(megabytes int, first byte) (b Batch) {
		for i := range 4 * megabytes {
			b.Accounts = append(b.Accounts, AccountState{fmt.Sprint("account ", i), bytes.Repeat([]byte{first}, changesOfRow/4)})
		}
		return b
	}
	for _, step := range []struct {
		batch   Batch
		waiting int // rows, afterwards
		known   int // accounts in their table
	}{
		{batch(5, '1'), 0, 20}, // at once
		{batch(3, '2'), 3, 20},
		{batch(7, '3'), 10, 20}, // not at once: something waits
		{Batch{Accounts: []AccountState{{"small", []byte("s")}}}, 9, 20},
		{Batch{}, 8, 20},
	} {
		if _, err := db.Commit(t.Context(), step.batch); err != nil {
			t.Fatal(err)
		}
		if waiting, known := rowsOf(t, db, "changes"), rowsOf(t, db, "accounts"); waiting != step.waiting || known != step.known {
			t.Errorf("%d rows wait and %d accounts are in their table, want %d and %d", waiting, known, step.waiting, step.known)
		}
	}
	if err := db.settleAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := loaded(t, db).Accounts
	if len(got) != 29 || len(got["small"]) != 1 {
		t.Errorf("%d accounts are known, want 28 and the small one", len(got))
	}
	delete(got, "small")
	for account, state := range got {
		if state[0] != '3' {
			t.Errorf("%s is of batch %c", account, state[0])
		}
	}
}

// TestFewChanges are written into the tables, unless something waits that could
// be put over them.
func TestFewChanges(t *testing.T) {
	db := open(t)
	little := Batch{Accounts: []AccountState{{"a", []byte("1")}}}
	var much Batch
	for i := range changesFew + 1 {
		much.Accounts = append(much.Accounts, AccountState{fmt.Sprint("account ", i), []byte("1")})
	}
	for _, step := range []struct {
		batch          Batch
		waiting, known int // rows, and accounts in their table
	}{{little, 0, 1}, {much, 1, 1}, {little, 2, 1}} {
		if _, err := db.Commit(t.Context(), step.batch); err != nil {
			t.Fatal(err)
		}
		if waiting, known := rowsOf(t, db, "changes"), rowsOf(t, db, "accounts"); waiting != step.waiting || known != step.known {
			t.Errorf("%d rows wait and %d accounts are in their table, want %d and %d", waiting, known, step.waiting, step.known)
		}
	}
}

// TestChangesStaySmall: of an account that sends all the time, nothing that it
// has said anew since gets into the table.
func TestChangesStaySmall(t *testing.T) {
	db := open(t)
	db.changes.bytes, db.changes.few = 10*(1000+changeCosts), 0
	for n := range 200 {
		if _, err := db.Commit(t.Context(), Batch{Accounts: []AccountState{{"busy@shop.test", fmt.Appendf(nil, "%01000d", n)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if rows := rowsOf(t, db, "changes"); rows > 12 {
		t.Errorf("%d rows of 1,000 bytes wait, want at most 12", rows)
	}
	if known := rowsOf(t, db, "accounts"); known != 0 {
		t.Errorf("the account is in the table, with what was said anew since")
	}
}

// TestChangesAfterAFailure: what was not committed is not known.
func TestChangesAfterAFailure(t *testing.T) {
	db := open(t)
	db.changes.age, db.changes.few = 0, 0
	put := func(state string) error {
		_, err := db.Commit(t.Context(), Batch{Accounts: []AccountState{{"a", []byte(state)}}, Messages: []MessageState{{1, []byte(state)}}})
		return err
	}
	if err := put("first"); err != nil {
		t.Fatal(err)
	}
	pragma(t, db, "query_only(1)")
	if err := put("lost"); err == nil {
		t.Fatal("wrote while it could not")
	}
	pragma(t, db, "query_only(0)")
	late := Batch{Accounts: []AccountState{{"a", []byte("lost")}}, Findings: []rules.Finding{{ID: "f-bad", Score: math.NaN()}}}
	if _, err := db.Commit(t.Context(), late); err == nil {
		t.Fatal("JSON has no such number")
	}
	want := learned{map[uint64]string{1: "first"}, map[string]string{"a": "first"}}
	if diff := cmp.Diff(want, loaded(t, db)); diff != "" {
		t.Errorf("after the failure (-want +got):\n%s", diff)
	}
	if err := put("second"); err != nil {
		t.Fatal(err)
	}
	want = learned{map[uint64]string{1: "second"}, map[string]string{"a": "second"}}
	if diff := cmp.Diff(want, loaded(t, db)); diff != "" {
		t.Errorf("afterwards (-want +got):\n%s", diff)
	}
}

// TestCloseLeavesNoChanges, so that the program of before finds everything.
func TestCloseLeavesNoChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vedetta.db")
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	db.changes.few = 0
	if _, err := db.Commit(t.Context(), Batch{Accounts: []AccountState{{"a", []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	if waiting := rowsOf(t, db, "changes"); waiting != 1 {
		t.Errorf("%d rows wait, want 1", waiting)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, path)
	if waiting, known := rowsOf(t, db, "changes"), rowsOf(t, db, "accounts"); waiting != 0 || known != 1 {
		t.Errorf("%d rows wait and %d accounts are in their table, want 0 and 1", waiting, known)
	}
}

// TestChangesAfterARollback: a program that does not know of changes makes them
// worthless as soon as it reads on.
func TestChangesAfterARollback(t *testing.T) {
	const older = `INSERT INTO positions (source, updated, body) VALUES (?, 0, '{}')
		ON CONFLICT (source) DO UPDATE SET updated = excluded.updated, body = excluded.body`
	for _, source := range []string{"mail.log", "another.log"} {
		db := open(t)
		db.changes.few = 0
		commit := func(state string) {
			t.Helper()
			b := Batch{Positions: map[string][]byte{"mail.log": []byte(state)}, Accounts: []AccountState{{"a", []byte(state)}, {state, []byte(state)}}}
			if _, err := db.Commit(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		commit("first")
		if err := db.settleAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		commit("second")
		if got := loaded(t, db).Accounts["a"]; got != "second" {
			t.Errorf("%s: account a is of %q before the rollback", source, got)
		}
		if _, err := db.write.Exec(older, source); err != nil {
			t.Fatal(err)
		}
		again := openAt(t, db.path)
		want := map[string]string{"a": "first", "first": "first"}
		if diff := cmp.Diff(want, loaded(t, again).Accounts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", source, diff)
		}
		db.changes.age = 0 // this one still thinks that the row is there
		commit("third")
		if got := loaded(t, again).Accounts["a"]; got != "third" {
			t.Errorf("%s: account a is of %q at the end", source, got)
		}
	}
}

func FuzzChanges(f *testing.F) {
	for body := range changesOf(&Batch{Messages: []MessageState{{1, []byte("m")}, {2, nil}}, Accounts: []AccountState{{"a", []byte("a")}, {"", nil}}}) {
		f.Add(body)
	}
	f.Add([]byte{9, 'm', 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		var again []byte
		for key, state := range eachChange(body) {
			again = appendChange(again, key, state)
		}
		if len(again) > len(body) { // a length may be written in more bytes than it needs
			t.Errorf("%d bytes were read out of %d", len(again), len(body))
		}
		if whole := appendChange(nil, []byte("ax"), body); !bytes.Equal(rejoined(whole), whole) {
			t.Errorf("a state of %x is not read as it was written", body)
		}
	})
}

func rejoined(body []byte) (again []byte) {
	for key, state := range eachChange(body) {
		again = appendChange(again, key, state)
	}
	return again
}
