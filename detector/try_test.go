package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/mailq"
)

func TestTryLeavesNoTrace(t *testing.T) {
	state := func(d *Detector) map[mailq.Account]string {
		all := map[mailq.Account]string{fleetKey: string(encode(d.fields))}
		for name, a := range d.accounts {
			all[name] = string(encode(a.fields))
		}
		for key, e := range d.fleet.memories {
			for p := range e.pages() {
				words := e.page(p)
				all[mailq.Account(fmt.Sprint(key, p))] = string(encode(func(c *codec) { c.page(words) }))
			}
		}
		return all
	}
	for _, name := range []mailq.Account{alice, "stranger@office.test"} {
		w := newWorld(t, nobody{})
		evening := w.office(5, 20)
		before := state(w.d)
		stopped := 0
		w.d.Try(name, func() {
			for i := range 3 {
				w.login(name, evening.Add(time.Duration(i)*time.Second), "203.0.9.1", false)
			}
			stopped = w.burst(name, evening.Add(time.Minute), 10*time.Second, 60, blocked, mail{client: "203.0.9.1", size: 900})
		})
		if name == alice && stopped == 0 {
			t.Errorf("%s: what was tried changed nothing, so this proves nothing", name)
		}
		if diff := cmp.Diff(state(w.d), before); diff != "" {
			t.Errorf("%s: a try left a trace: %d bytes of difference", name, len(diff))
		}
	}
}
