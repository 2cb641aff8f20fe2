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

// What a shop sends to those who bought there is a series, although each of its order
// mails goes to somebody else.
func TestSeriesOfAShop(t *testing.T) {
	for _, gap := range []time.Duration{time.Second, time.Minute, 10 * time.Minute} {
		w := newWorld(t, nil)
		w.office(10, 30)
		shop, sent := mailq.Account("shop@store.test"), 0
		for i := range 300 {
			w.send(shop, monday.Add(time.Duration(i)*3*time.Hour), mail{to: []string{fmt.Sprintf("buyer%d@mail%d.test", i, i%30)}, client: "10.3.0.2"})
		}
		w.forget()
		for i := range 60 {
			w.send(shop, monday.AddDate(0, 0, 38).Add(time.Duration(i)*gap), mail{to: []string{fmt.Sprintf("buyer%d@mail%d.test", i*4, i*4%30)}, client: "10.3.0.2"})
			if w.worst(shop) < throttled {
				sent++
			}
		}
		if worst := w.worst(shop); worst != throttled || sent > 40 {
			t.Errorf("one each %v: level %d after all, %d before the throttle", gap, worst, sent)
		}
	}
}

// Who wrote to all his customers a month ago may write to some more of them, and
// faster.
func TestSeriesGrows(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 20)
	books := mailq.Account("books@office.test")
	for i, to := range addresses("customer", 110) {
		w.send(books, monday.AddDate(0, 0, i/5).Add(9*time.Hour+time.Duration(i)*time.Minute), mail{to: []string{to}, client: "10.1.1.5"})
	}
	customers, gap := 85, 40*time.Second
	for month := range 3 {
		w.forget()
		for i, to := range addresses("customer", customers) {
			w.send(books, monday.AddDate(0, month, 27).Add(10*time.Hour+time.Duration(i)*gap), mail{to: []string{to}, client: "10.1.1.5", subject: fmt.Sprintf("Invoice %d", i)})
		}
		if worst := w.worst(books); month > 0 && worst > observed {
			t.Errorf("%d invoices, one each %v: level %d: %s", customers, gap, worst, short(w.last(books).Evidence))
		}
		customers, gap = customers*110/100, gap*2/3
	}
}

// A large record leaves less room above it than a small one, and what filled the better
// part of an hour may go faster.
func TestSeriesLimit(t *testing.T) {
	for _, c := range []struct{ hour, day, ofHour, ofDay float32 }{
		{0, 0, 25, 33},
		{10, 30, 25, 37.5},
		{9, 100, 25, 125},
		{50, 64, 88, 80},
		{400, 400, 520, 500},
	} {
		s := series{past: &seriesPast{record: [tallies]float32{seriesHour: c.hour, seriesDay: c.day}}}
		if ofHour, ofDay := s.limit(seriesHour, 0), s.limit(seriesDay, 0); max(ofHour-c.ofHour, c.ofHour-ofHour, ofDay-c.ofDay, c.ofDay-ofDay) > 5 {
			t.Errorf("records of %v an hour and %v a day: up to %v and %v, want about %v and %v", c.hour, c.day, ofHour, ofDay, c.ofHour, c.ofDay)
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

// Two messages of twenty, a minute apart, are a series, although how many people
// they reach is an estimate.
func TestTwoCrowdsAreASeries(t *testing.T) {
	const times = 1000
	missed := 0
	for k := range times {
		var a account
		for n := range 2 {
			at := int64(n) * minute
			a.decay(at)
			a.last = at
			for i := range crowdMost {
				if others := a.rate.reached(recipientHash(uint64(k*1000+n*100+i)), at); others > 0 {
					a.series.reached(uint8(i+1), others)
				}
			}
		}
		if _, by := a.longestSeries(); by <= 1 {
			missed++
		}
	}
	if missed > times/30 {
		t.Errorf("%d of %d are none", missed, times)
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

// The days of an office differ by more than a record of some weeks shows: its next
// busiest one is often half as busy again. Who writes as much each day has no such days.
func TestBusiestDayYet(t *testing.T) {
	for _, x := range []struct {
		days, mean, vari, record, today, excess float32
		want                                    float32
	}{
		{days: 30, mean: 14, vari: .3, record: 30, today: 44, excess: 24},
		{days: 30, mean: 14, vari: .3, record: 30, today: 30, excess: 29},
		{days: 30, mean: 14, vari: .02, record: 18, today: 36, want: seriesSays},
		{days: 60, mean: 14, vari: .1, record: 30, today: 44, want: seriesSays},
		{days: 60, mean: 20, vari: .02, record: 24, today: 30, excess: 29, want: seriesSays},
		{days: 30, mean: 14, vari: .3, record: 30, today: 70, want: seriesSays},
	} {
		a := account{last: monday.UnixNano()}
		a.rate.days, a.rate.habit[perDay] = x.days, habit{log(x.mean), x.vari}
		a.series.past = &seriesPast{kept: seconds(a.last), excess: excess{now: x.excess, at: seconds(a.last)}}
		a.series.past.record[seriesDay], a.series.now[seriesDay] = x.record, x.today
		if s := a.seriesScore(); s != x.want {
			t.Errorf("%+v: it says %v", x, s)
		}
	}
}
