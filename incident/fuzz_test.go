package incident

import (
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// Whatever happens in whatever order: nothing is told twice, the same input
// again tells nothing, and a Book restored after each step tells the same.
func FuzzBook(f *testing.F) {
	f.Add([]byte{0x05, 0x45, 0x85, 0xc5, 0x07, 0x17, 0x27})
	f.Add([]byte{0x14, 0x06, 0x54, 0x27, 0x94, 0x15, 0x06})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 200 {
			t.Skip("long enough")
		}
		steady, restarted, saved := &Book{}, &Book{}, map[string]Incident{}
		seen := map[string]bool{}
		minute := 0
		for i, op := range ops {
			minute += int(op>>6) * 25
			do := operation(op, minute)
			told := do(steady)
			for _, c := range told {
				if seen[c.ID] {
					t.Fatalf("step %d tells %s twice", i, c.ID)
				}
				seen[c.ID] = true
				c.Tell()
			}
			if again := do(steady); len(again) > 0 {
				t.Fatalf("step %d, done again, tells %v", i, tell(again))
			}
			if got, want := tell(do(restarted)), tell(told); len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
				t.Fatalf("step %d tells %v after a restart, without one %v", i, got, want)
			}
			restarted = reload(t, restarted, saved)
		}
	})
}

// operation is one thing that may happen to alice's episode at that minute.
func operation(op byte, minute int) func(*Book) []Change {
	action := rules.Action(op % 6)
	switch kind := op >> 3 % 8; {
	case kind == 0:
		return release(minute)
	case kind == 1:
		return undo(minute)
	case kind == 2:
		return tick(minute)
	case kind == 3:
		return fail(minute, action, "no")
	case kind == 4:
		return hard(minute, string('a'+rune(action)))
	case kind == 5:
		return func(b *Book) []Change {
			b.Notified(ID(finding(0).ID), t0.Add(time.Duration(minute)*time.Minute))
			return nil
		}
	default:
		return record(minute, action, kind == 6)
	}
}
