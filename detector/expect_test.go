package detector

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A detector that was told what comes goes on as one that was not, also where
// what it expected is forgotten before it comes, or was wrong.
func TestExpect(t *testing.T) {
	cfg := Default()
	cfg.MaxAccounts, cfg.Window = 50, time.Hour
	plain, told := New(cfg, nobody{}), New(cfg, nobody{})
	evs := ordinary(80, 20_000)
	for i := range evs {
		if i%ExpectMost == 0 {
			told.Expect(evs[i+i/ExpectMost%3:]) // a third of the time the right ones
		}
		f, ok := plain.Observe(&evs[i])
		g, also := told.Observe(&evs[i])
		if ok != also || !cmp.Equal(f, g) {
			t.Fatalf("event %d: %v, %v; told %v, %v", i, f, ok, g, also)
		}
	}
	if s := told.Stats(); s.Evicted == 0 || s != plain.Stats() {
		t.Errorf("told %+v, else %+v; want the same, with accounts forgotten", s, plain.Stats())
	}
	if !maps.EqualFunc(states(plain), states(told), slices.Equal) {
		t.Error("what is known differs")
	}
}

// states is all that a detector would save.
func states(d *Detector) map[mailq.Account][]byte {
	all := map[mailq.Account][]byte{}
	d.Changed(func(name mailq.Account, state []byte) { all[name] = slices.Clone(state) })
	return all
}
