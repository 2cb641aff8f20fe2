package detector

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A detector that is spared what says nothing knows and finds the same.
func TestSaysNothing(t *testing.T) {
	all, spared := New(Default(), nobody{}), New(Default(), nobody{})
	quiet, told := 0, 0
	for _, ev := range mixed(t) {
		left, foreign, in := ev, ev, ev
		left.Kind, left.New, left.Counts = mailq.Removed, nil, false
		foreign.Account = ""
		in.Account, in.Kind, in.Into = "", mailq.Delivered, ev.Account
		for _, ev := range []mailq.Event{ev, left, foreign, in} {
			f, ok := all.Observe(&ev)
			if SaysNothing(&ev) {
				quiet++
				if ok {
					t.Fatalf("%+v was said to say nothing, and led to %+v", ev, f)
				}
				continue
			}
			told++
			g, also := spared.Observe(&ev)
			if ok != also || !cmp.Equal(f, g) {
				t.Fatalf("%v, %v; spared %v, %v", f, ok, g, also)
			}
		}
	}
	if quiet == 0 || told == 0 {
		t.Errorf("%d events say nothing, %d something", quiet, told)
	}
	if !maps.EqualFunc(states(all), states(spared), slices.Equal) {
		t.Error("what is known differs")
	}
}
