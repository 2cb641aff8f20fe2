package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

var agentsNow = time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)

func openAgents(t *testing.T) *DB {
	t.Helper()
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "v.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestAgents(t *testing.T) {
	db, ctx, now := openAgents(t), t.Context(), agentsNow
	state := func() string {
		t.Helper()
		all, err := db.Agents(ctx)
		if err != nil || len(all) != 1 || all[0].Name != "mx1" {
			t.Fatalf("%+v, %v", all, err)
		}
		a := all[0]
		return fmt.Sprint(a.Domains, " ", a.Enrolment, " ", !a.Enrolled.IsZero(), " ", !a.Revoked.IsZero())
	}
	for i, step := range []struct {
		do   func() error
		fail bool
		want string
	}{
		{func() error {
			return db.AddAgent(ctx, "mx1", []string{"shop.test"}, []byte("t1"), now, now.Add(time.Hour), "root")
		}, false, "[shop.test]  false false"},
		{func() error { return db.EnrolAgent(ctx, "mx1", []byte("t2"), "e1", now) }, true, "[shop.test]  false false"},
		{func() error { return db.EnrolAgent(ctx, "mx2", []byte("t1"), "e1", now) }, true, "[shop.test]  false false"},
		{func() error { return db.EnrolAgent(ctx, "mx1", []byte("t1"), "e1", now.Add(time.Hour)) }, true, "[shop.test]  false false"},
		{func() error { return db.EnrolAgent(ctx, "mx1", []byte("t1"), "e1", now) }, false, "[shop.test] e1 true false"},
		{func() error { return db.EnrolAgent(ctx, "mx1", []byte("t1"), "e2", now) }, true, "[shop.test] e1 true false"},
		{func() error {
			return db.AddAgent(ctx, "mx1", []string{"*"}, []byte("t3"), now, now.Add(time.Hour), "root")
		}, false, "[*] e1 true false"},
		{func() error { return db.RevokeAgent(ctx, "mx1", now, "root") }, false, "[*]  true true"},
		{func() error { return db.EnrolAgent(ctx, "mx1", []byte("t3"), "e3", now) }, true, "[*]  true true"},
		{func() error { return db.RevokeAgent(ctx, "mx1", now, "root") }, true, "[*]  true true"},
		{func() error {
			return db.AddAgent(ctx, "mx1", []string{"*"}, []byte("t4"), now, now.Add(time.Hour), "root")
		}, false, "[*]  true false"},
		{func() error { return db.EnrolAgent(ctx, "mx1", []byte("t4"), "e4", now) }, false, "[*] e4 true false"},
	} {
		err := step.do()
		if step.fail != errors.Is(err, ErrNotFound) || !step.fail && err != nil {
			t.Errorf("step %d: %v", i, err)
		}
		if got := state(); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

func TestSpool(t *testing.T) {
	db, ctx := openAgents(t), t.Context()
	row := func(seq uint64) SpoolRow {
		return SpoolRow{Seq: seq, Made: agentsNow.Add(time.Duration(seq) * time.Minute), Events: int(seq), Body: make([]byte, 100)}
	}
	for seq := uint64(1); seq <= 10; seq++ {
		if _, err := db.Commit(ctx, Batch{Spool: []SpoolRow{row(seq)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Commit(ctx, Batch{Positions: map[string][]byte{"log": []byte("{}")}, Spool: []SpoolRow{row(10)}}); err == nil {
		t.Error("a number was written twice")
	}
	if positions, err := db.LoadPositions(ctx); err != nil || len(positions) > 0 {
		t.Errorf("%v, %v: the position went without its batch", positions, err)
	}
	for _, test := range []struct {
		after, upto uint64
		most, bytes int
		want        string
	}{
		{0, 99, 100, 1 << 20, "1-10"}, {8, 99, 100, 1 << 20, "9-10"}, {2, 5, 100, 1 << 20, "3-5"}, {0, 99, 3, 1 << 20, "1-3"},
		{0, 99, 100, 250, "1-2"}, {0, 99, 100, 1, "1-1"}, {10, 99, 100, 100, ""}, {5, 5, 100, 100, ""},
	} {
		rows, err := db.Spooled(ctx, test.after, test.upto, test.most, test.bytes)
		got := ""
		if len(rows) > 0 {
			got = fmt.Sprintf("%d-%d", rows[0].Seq, rows[len(rows)-1].Seq)
		}
		if err != nil || got != test.want {
			t.Errorf("%+v: %q, %v", test, got, err)
		}
	}
	for _, test := range []struct {
		acked uint64
		also  uint64 // had, too
		old   time.Time
		most  int64
		lost  int
		want  SpoolState
	}{
		{4, 0, agentsNow, 1 << 20, 0, SpoolState{1, 10, 1000}},                       // kept for a while
		{4, 0, agentsNow.Add(150 * time.Second), 1 << 20, 0, SpoolState{3, 10, 800}}, // 1 and 2 are old
		{4, 0, agentsNow, 700, 0, SpoolState{4, 10, 700}},
		{4, 0, agentsNow, 450, 5 + 6, SpoolState{7, 10, 400}}, // 5 and 6 the hub has not had
		{6, 9, agentsNow, 350, 0, SpoolState{7, 10, 300}},     // what was sent before what waits goes before it
		{6, 9, agentsNow, 250, 7, SpoolState{8, 10, 200}},
		{20, 0, agentsNow.Add(time.Hour), 450, 0, SpoolState{}},
	} {
		lost, err := db.TrimSpool(ctx, test.acked, func(seq uint64) bool { return seq <= test.acked || seq == test.also }, test.old, test.most)
		if err != nil || lost != test.lost {
			t.Errorf("%+v: lost %d, %v", test, lost, err)
		}
		if got, err := db.SpoolState(ctx); err != nil || got != test.want {
			t.Errorf("%+v: left %+v, %v", test, got, err)
		}
	}
}
