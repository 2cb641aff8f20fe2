package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// sizes are the numbers of accounts that a database of the benchmarks knows.
// With -short the last, which takes half a minute to fill, is left out.
func sizes() []int {
	if testing.Short() {
		return []int{2000, 100_000}
	}
	return []int{2000, 100_000, 1_000_000}
}

func account(i int) string { return fmt.Sprintf("user%d@customer%d.test", i, i/20) }

// filled opens a database that knows n accounts with 700 bytes each.
func filled(b *testing.B, n int) *DB {
	db := openAt(b, filepath.Join(b.TempDir(), "vedetta.db"))
	state := make([]byte, 700)
	for i := 0; i < n; {
		var batch Batch
		for range 2000 {
			batch.Accounts = append(batch.Accounts, AccountState{account(i), state})
			i++
		}
		if _, err := db.Commit(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	return db
}

// timed is how long a commit takes.
func timed(b *testing.B, db *DB, batch Batch) time.Duration {
	start := time.Now()
	if _, err := db.Commit(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	for _, figure := range []struct {
		name string
		took time.Duration
	}{{"p50-ms", took[len(took)/2]}, {"p99-ms", took[len(took)*99/100]}, {"max-ms", took[len(took)-1]}} {
		b.ReportMetric(float64(figure.took.Microseconds())/1000, figure.name)
	}
}

// BenchmarkCommit writes what a busy second leads to: 2,000 accounts spread
// over all that are known, and 2,000 messages.
func BenchmarkCommit(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint("accounts=", n), func(b *testing.B) {
			db := filled(b, n)
			var took []time.Duration
			for round := 0; b.Loop(); round++ {
				batch := Batch{Positions: map[string][]byte{"mail.log": []byte(`{"offset":1}`)}}
				for range 2000 {
					state := make([]byte, 700)
					state[0] = byte(round)
					batch.Accounts = append(batch.Accounts, AccountState{account(rand.IntN(n)), state})
					batch.Messages = append(batch.Messages, MessageState{rand.Uint64N(20_000), state[:150]})
				}
				took = append(took, timed(b, db, batch))
			}
			report(b, took)
		})
	}
}

// BenchmarkCommitOften writes what 5,000 lines a second of 20,000 busy accounts
// lead to in a fifth of a second: 400 accounts, 200 messages that began, and 200
// that were there before and are gone.
func BenchmarkCommitOften(b *testing.B) {
	for _, n := range sizes()[1:] {
		b.Run(fmt.Sprint("accounts=", n), func(b *testing.B) {
			db := filled(b, n)
			var took []time.Duration
			for round := uint64(0); b.Loop(); round++ {
				batch := Batch{Positions: map[string][]byte{"mail.log": []byte(`{"offset":1}`)}}
				state := make([]byte, 900)
				for i := range uint64(200) {
					batch.Accounts = append(batch.Accounts, AccountState{account(rand.IntN(10_000)), state}, AccountState{account(10_000 + rand.IntN(10_000)), state})
					batch.Messages = append(batch.Messages, MessageState{round*200 + i, state[:150]}, MessageState{Key: (round-1)*200 + i})
				}
				took = append(took, timed(b, db, batch))
			}
			report(b, took)
		})
	}
}

// BenchmarkLoadAccounts reads everything that was learned, as at a start.
func BenchmarkLoadAccounts(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint("accounts=", n), func(b *testing.B) {
			db := filled(b, n)
			b.ReportAllocs()
			for b.Loop() {
				seen := 0
				if err := db.LoadAccounts(b.Context(), func(AccountState) error { seen++; return nil }); err != nil || seen != n {
					b.Fatalf("got %d, %v", seen, err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "accounts/s")
		})
	}
}
