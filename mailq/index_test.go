package mailq

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// The index does what a map does, with keys that have their homes close
// together, also where the table ends.
func TestIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var x index
	want := map[uint64]*open{}
	for range 200_000 {
		key := rnd.Uint64N(3000) - 1500
		if o := want[key]; o != x.get(key) {
			t.Fatalf("get(%d) = %p, want %p", key, x.get(key), o)
		} else if o == nil {
			o = &open{key: key}
			want[key] = o
			x.put(key, o)
		} else {
			delete(want, key)
			x.drop(key)
		}
	}
	x.drop(1 << 40) // nobody's
	got := map[uint64]*open{}
	for o := range x.all() {
		got[o.key] = o
	}
	if len(got) != len(want) || x.n != len(want) {
		t.Fatalf("%d messages yielded, %d counted, want %d", len(got), x.n, len(want))
	}
	for key, o := range want {
		if got[key] != o || x.get(key) != o {
			t.Fatalf("%d is lost", key)
		}
	}
}

// A table finds what it was told, and nothing else, while it grows and after
// it was emptied.
func TestTable(t *testing.T) {
	var tab table[int]
	if _, ok := tab.find(nil); ok {
		t.Error("an empty table has the empty text")
	}
	text := func(i int) string { return strconv.Itoa(i * 7919) }
	for i := range maxTable + 1000 {
		if tab.n == maxTable {
			tab.keep("the last straw", -1)
			if _, ok := tab.find([]byte(text(i - 1))); ok || tab.n != 1 {
				t.Fatalf("a full table was not emptied: %d texts", tab.n)
			}
			return
		}
		if _, ok := tab.find([]byte(text(i))); ok {
			t.Fatalf("found %q before it was kept", text(i))
		}
		tab.keep(text(i), i)
		for _, j := range []int{0, i / 2, i} {
			if v, ok := tab.find([]byte(text(j))); !ok || v != j {
				t.Fatalf("%q of %d is %d, %v", text(j), tab.n, v, ok)
			}
		}
	}
	t.Fatal("it never was full")
}
