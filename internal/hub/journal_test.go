package hub

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func record(agent string, seq uint64) Record {
	return Record{Agent: agent, Received: noon.UnixNano(), Sealed: Sealed{nth(1, seq), []byte("body of " + agent)}}
}

func openJournal(t testing.TB, dir string, maximum int64) *Journal {
	t.Helper()
	j, err := OpenJournal(dir, maximum)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// all are the marks that a journal holds after from, by agent.
func all(t *testing.T, j *Journal, from Position) (marks map[string][]uint64, end Position, err error) {
	t.Helper()
	marks = map[string][]uint64{}
	err = j.Read(from, func(r Record, p Position) error {
		marks[r.Agent] = append(marks[r.Agent], r.Sealed.Seq)
		if !end.Before(p) {
			t.Errorf("%v does not follow %v", p, end)
		}
		end = p
		return nil
	})
	return marks, end, err
}

func TestJournalKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir, 1<<30)
	var wg sync.WaitGroup
	for a := range 20 {
		wg.Go(func() {
			for seq := uint64(1); seq <= 50; seq++ {
				told := 0
				if err := j.Append([]Record{record(fmt.Sprint(a), seq)}, func(at []Position) { told = len(at) }); err != nil || told != 1 {
					t.Errorf("append: %v, told of %d", err, told)
				}
			}
		})
	}
	wg.Wait()
	j.Close()
	j = openJournal(t, dir, 1<<30)
	defer j.Close()
	marks, _, err := all(t, j, Position{})
	if err != nil || len(marks) != 20 {
		t.Fatalf("%d agents, %v", len(marks), err)
	}
	for agent, seqs := range marks {
		for i, seq := range seqs {
			if seq != uint64(i+1) {
				t.Fatalf("agent %s: %v", agent, seqs)
			}
		}
		if len(seqs) != 50 {
			t.Errorf("agent %s: %d records", agent, len(seqs))
		}
	}
}

func TestJournalGoesOnBehindATornRecord(t *testing.T) {
	for cut := 1; cut < 40; cut += 3 {
		dir := t.TempDir()
		j := openJournal(t, dir, 1<<30)
		var ends []Position
		for seq := range uint64(3) {
			if err := j.Append([]Record{record("mx1", seq+1)}, func(at []Position) { ends = append(ends, at...) }); err != nil {
				t.Fatal(err)
			}
		}
		j.Close()
		if err := os.Truncate(filepath.Join(dir, "0000000000000001.journal"), ends[2].Offset-int64(cut)); err != nil {
			t.Fatal(err)
		}
		j = openJournal(t, dir, 1<<30)
		if err := j.Append([]Record{record("mx1", 4)}, func([]Position) {}); err != nil {
			t.Fatal(err)
		}
		marks, _, err := all(t, j, ends[0])
		if want := "[2 4]"; err != nil || fmt.Sprint(marks["mx1"]) != want {
			t.Errorf("cut %d: got %v, %v; want %s", cut, marks["mx1"], err, want)
		}
		j.Close()
	}
}

func TestJournalTellsOfDamage(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir, 1<<30)
	for seq := range uint64(3) {
		j.Append([]Record{record("mx1", seq+1)}, func([]Position) {})
	}
	if err := j.begin(2); err != nil {
		t.Fatal(err)
	}
	j.Append([]Record{record("mx1", 4)}, func([]Position) {})
	j.Close()
	path := filepath.Join(dir, "0000000000000001.journal")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, dir, 1<<30)
	defer j.Close()
	marks, end, err := all(t, j, Position{})
	if err == nil || fmt.Sprint(marks["mx1"]) != "[1 4]" {
		t.Errorf("got %v, %v", marks, err)
	}
	if err := j.Forget(end); err != nil || len(j.segments) != 1 {
		t.Errorf("%d segments left, %v", len(j.segments), err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the judged segment is still there: %v", err)
	}
}

func TestJournalIsBounded(t *testing.T) {
	j := openJournal(t, t.TempDir(), 200)
	defer j.Close()
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		err = j.Append([]Record{record("mx1", uint64(n+1))}, func([]Position) {})
	}
	if !errors.Is(err, ErrFull) || n < 2 {
		t.Errorf("after %d: %v", n, err)
	}
	if marks, _, err := all(t, j, Position{}); err != nil || len(marks["mx1"]) != n-1 {
		t.Errorf("%v, %v", marks, err)
	}
}

func BenchmarkJournal(b *testing.B) {
	j := openJournal(b, b.TempDir(), 1<<40)
	defer j.Close()
	body := make([]byte, 2000)
	b.SetParallelism(500)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := j.Append([]Record{{Agent: "mx1", Sealed: Sealed{nth(1, 1), body}}}, func([]Position) {}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "batches/s")
}
