package detector

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// club gives a mailbox a month in which it writes to each of 60 people, in
// different weeks.
func (w *world) club(account mailq.Account) (members []string, evening time.Time) {
	members = addresses("member", 60)
	for day := range 30 {
		for k := range 6 {
			w.send(account, monday.AddDate(0, 0, day).Add(9*time.Hour+time.Duration(k)*time.Hour), mail{to: members[(day*6+k*7)%60:][:1], client: "10.3.0.1"})
		}
	}
	w.forget()
	return members, monday.AddDate(0, 0, 30).Add(9 * time.Hour)
}

// A letter to all whom an account ever wrote to is slowed down before forty have
// it, at whatever pace, and never stops the account by itself.
func TestSeries(t *testing.T) {
	const clubMost = 40
	for _, c := range []struct {
		gap   time.Duration
		rcpts int
	}{{time.Second, 1}, {10 * time.Second, 1}, {time.Minute, 1}, {5 * time.Minute, 1}, {10 * time.Minute, 1}, {10 * time.Second, 4}, {time.Minute, 20}} {
		t.Run(fmt.Sprintf("%d each %v", c.rcpts, c.gap), func(t *testing.T) {
			w := newWorld(t, nil)
			w.office(10, 30)
			secretary := mailq.Account("secretary@club.test")
			members, at := w.club(secretary)
			sent := 0
			for i := 0; i < len(members); i += c.rcpts {
				w.send(secretary, at.Add(time.Duration(i/c.rcpts)*c.gap), mail{to: members[i : i+c.rcpts], client: "10.3.0.1"})
				if w.worst(secretary) < throttled {
					sent = i + c.rcpts
				}
			}
			if worst := w.worst(secretary); worst != throttled || sent >= clubMost {
				t.Errorf("level %d after all, %d recipients before the throttle", worst, sent)
			}
			for _, e := range w.last(secretary).Evidence {
				if e.Kind == "series" {
					return
				}
			}
			t.Errorf("the series is not named: %s", short(w.last(secretary).Evidence))
		})
	}
}

// What a person has released may be sent again, also a month later.
func TestSeriesIsLearnt(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 30)
	secretary := mailq.Account("secretary@club.test")
	members, at := w.club(secretary)
	letter := func(at time.Time) level {
		w.forget()
		for i := range members {
			w.send(secretary, at.Add(time.Duration(i)*10*time.Second), mail{to: members[i : i+1], client: "10.3.0.1"})
		}
		return w.worst(secretary)
	}
	if l := letter(at); l != throttled {
		t.Errorf("the first letter: level %d", l)
	}
	w.d.Release(secretary, at.Add(time.Hour), "known")
	for month := range 3 {
		if l := letter(at.AddDate(0, month, 1)); l > observed {
			t.Errorf("%d months after its release: level %d: %s", month, l, short(w.last(secretary).Evidence))
		}
	}
}

// Shops write to somebody else each time, and a new account has no past to be
// compared with.
func TestSeriesSparesShopsAndTheNew(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 30)
	shop, colleague := mailq.Account("shop@store.test"), mailq.Account("new@office.test")
	for i := range 1200 {
		w.send(shop, monday.Add(time.Duration(i)*40*time.Minute), mail{to: []string{fmt.Sprintf("buyer%d@mail%d.test", i, i%30)}, client: "10.3.0.2"})
	}
	w.forget()
	for i := range 100 {
		w.send(shop, monday.AddDate(0, 0, 34).Add(time.Duration(i)*10*time.Minute), mail{to: []string{fmt.Sprintf("black%d@mail%d.test", i, i%30)}, client: "10.3.0.2"})
	}
	for i := range 60 {
		w.send(colleague, monday.AddDate(0, 0, 34).Add(time.Duration(i)*8*time.Minute), mail{to: addresses("contact", 60)[i : i+1], client: "10.3.0.3"})
	}
	for _, a := range []mailq.Account{shop, colleague} {
		if s := w.d.accounts[a].seriesScore(); s != 0 {
			t.Errorf("%s: its series says %v", a, s)
		}
	}
}

// A series lifts the score to a throttle. To what is higher it adds nothing.
func TestSeriesAddsToNothing(t *testing.T) {
	for _, c := range []struct{ novelty, want float32 }{{0, seriesSays}, {3, seriesSays}, {9.1, seriesSays}, {15, 15}} {
		var speak [families]said
		speak[familyNovelty] = saying(c.novelty)
		alone := fuse(&speak, 100)
		speak[familySeries] = saying(seriesSays)
		v := fuse(&speak, 100)
		if math.Abs(float64(v.score-c.want)) > .001 {
			t.Errorf("with %v of novelty: %v, want %v", c.novelty, v.score, c.want)
		}
		if c.novelty > seriesSays && v.families != alone.families {
			t.Errorf("with %v of novelty it counts as a family of its own", c.novelty)
		}
	}
}

// How many different recipients an hour had is estimated without bias.
func TestReachEstimates(t *testing.T) {
	for _, n := range []int{10, 25, 50, 100, 200} {
		sum := 0.0
		const times = 200
		for k := range times {
			var r reach
			for i := range n {
				h := recipientHash(uint64(k*1000 + i))
				sum += float64(r.to(h, 0))
				if r.to(h, 0) != 0 {
					t.Fatal("the same recipient counts again")
				}
			}
		}
		if mean := sum / times; math.Abs(mean-float64(n)) > .05*float64(n) {
			t.Errorf("%d recipients are taken for %.1f", n, mean)
		}
	}
}
