package eval

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestListing(t *testing.T) {
	psbl, spamCop := lists[0], lists[1]
	for _, test := range []struct {
		name         string
		list         list
		o            Listing
		n, strangers int
		want         float64
	}{
		{"nothing sent", psbl, Listing{Traps: .5, Reports: .5}, 0, 0, 0},
		{"no traps", psbl, Listing{Reports: .5}, 1000, 1000, 0},
		{"one trap lists", psbl, Listing{Traps: .001}, 100, 100, 1 - math.Pow(.999, 100)},
		{"contacts are no traps", psbl, Listing{Traps: .5}, 100, 0, 0},
		{"SpamCop: two traps do", spamCop, Listing{Traps: .5}, 2, 2, .25},
		{"SpamCop: one trap and five reports do", spamCop, Listing{Traps: .5, Reports: .999999999}, 5, 1, .5},
		{"SpamCop: one trap and four reports do not", spamCop, Listing{Traps: .999999999, Reports: .999999999}, 4, 1, 0},
		{"SpamCop: ten reports do", spamCop, Listing{Reports: .5}, 10, 10, math.Pow(.5, 10)},
	} {
		if got := test.list.lists(test.o, test.n, test.strangers); math.Abs(got-test.want) > 1e-6 {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if got := []int{spamCopPoints(2), spamCopPoints(5), spamCopPoints(7)}; got[0] != 10 || got[1] != 25 || got[2] != 49 {
		t.Errorf("points %v", got)
	}
}

// A hijack that is shown for a while goes on for a week, and a limit that it had
// not come to may still fire.
func TestEscaped(t *testing.T) {
	o := Listing{Spree: 10_000}
	second, slow, fifty := style{gap: time.Second, rcpts: 1}, style{gap: 2 * time.Hour, rcpts: 1}, style{gap: 10 * time.Second, rcpts: 50}
	system := func(name string) int {
		for s := range fixedRules {
			if strings.HasPrefix(fixedRules[s].name, name) {
				return 1 + s
			}
		}
		t.Fatal(name)
		return 0
	}
	for _, test := range []struct {
		name   string
		system int
		style  style
		stop   stop
		want   int
	}{
		{"stopped", 0, second, stop{stopped: true, rcpts: 12}, 12},
		{"never", 0, second, stop{}, 10_000},
		{"never, and slow", 0, slow, stop{}, 84},
		{"500 an hour, of one a second", system("UwUMail"), second, stop{}, 501},
		{"500 an hour, of 50 each", system("UwUMail"), fifty, stop{}, 550},
		{"500 an hour, of a slow one", system("UwUMail"), slow, stop{}, 84},
		{"200 strangers a day, of contacts", system("mox"), style{gap: time.Second, rcpts: 1, contacts: true}, stop{}, 10_000},
		{"100 an hour, of 50 each", system("CSF"), fifty, stop{}, 5050},
		{"failures, of a clean list", system("cPanel"), second, stop{}, 10_000},
	} {
		if got := o.escaped(test.system, &test.style, test.stop); got != test.want {
			t.Errorf("%s: %d recipients, want %d", test.name, got, test.want)
		}
	}
}

func TestRace(t *testing.T) {
	stops := make([][][]stop, 1+len(fixedRules))
	for sys := range stops {
		stops[sys] = make([][]stop, len(styles))
		stops[sys][0] = []stop{{stopped: sys == 0, rcpts: 10}, {stopped: sys == 0, rcpts: 30}}
	}
	r := Listing{Traps: .01, Spree: 1000}.race(stops)
	won := r.Lists[0].Systems
	if got, want := won[1].Won, round4((math.Pow(.99, 10)+math.Pow(.99, 30))/2); won[1].Name != "Vedetta" || got != want || len(won[1].Styles) != 1 {
		t.Errorf("Vedetta: %+v, want %v", won[1], want)
	}
	if got, want := won[0].Won, round4(math.Pow(.99, 1000)); won[0].Name != "nothing" || got != want {
		t.Errorf("nothing: %+v, want %v", won[0], want)
	}
	var out bytes.Buffer
	if err := r.print(&out); err != nil || strings.Join(strings.Fields(strings.Split(out.String(), "\n")[4]), " ") != "Vedetta 82.2 % 82.2 % 98.0 % 98.0 %" {
		t.Errorf("%v\n%s", err, out.String())
	}
}
