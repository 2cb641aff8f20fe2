package detector

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// sales is a mailbox that writes to some sixty of its two hundred customers on
// an ordinary day, between eight and six.
const sales = mailq.Account("sales@office.test")

// A toCustomer is one message to one of the customers.
type toCustomer struct {
	at time.Time
	to int
}

// salesDay is what the mailbox writes on a day, on one that is so many times the usual.
func salesDay(day int, times float64) (all []toCustomer) {
	first := monday.AddDate(0, 0, day)
	n := int(times * float64(52+recipientHash(uint64(day)+77)%17))
	for k := range n {
		h := recipientHash(uint64(day*1009 + k))
		all = append(all, toCustomer{first.Add(8*time.Hour + time.Duration(h>>20%36000)*time.Second), int(h % uint64(min(8*day+8, 200)))})
	}
	return all
}

// lettersEach are n letters of a hijacker to different customers.
func lettersEach(gap time.Duration, at time.Time, n int) (all []toCustomer) {
	for i := range n {
		all = append(all, toCustomer{at.Add(time.Duration(i) * gap), i * 7 % 200})
	}
	return all
}

// write sends letters in the order of their times.
func (w *world) write(all []toCustomer, each func(l toCustomer)) {
	slices.SortStableFunc(all, func(a, b toCustomer) int { return a.at.Compare(b.at) })
	for _, l := range all {
		w.send(sales, l.at, mail{to: []string{fmt.Sprintf("customer%d@client%d.test", l.to, l.to%40)}, client: "10.1.2.3"})
		each(l)
	}
}

const salesDays = 56

// salesMonths gives the mailbox eight weeks. In the first four it wins its customers; then
// one day of each week is a fifth busier, and nothing is found.
func (w *world) salesMonths() {
	for day := range salesDays {
		times := 1.0
		if day == 28 {
			w.forget()
		}
		if day > 28 && day%7 == 3 {
			times = 1.2
		}
		w.write(salesDay(day, times), func(toCustomer) {})
	}
	if worst := w.worst(sales); worst >= throttled {
		w.t.Fatalf("ordinary weeks came to level %d: %s", worst, short(w.last(sales).Evidence))
	}
}

// Beside the mail of a busy mailbox a letter to its own customers is slowed down
// before forty have it, also when midnight passes meanwhile. In the owner's own hours it hides
// among his mail, for no longer than those last.
func TestExcess(t *testing.T) {
	w := newWorld(t, nil)
	w.salesMonths()
	for at := range 24 {
		most := 40
		if at >= 6 && at < 13 {
			most = 60
		}
		w.forget()
		w.d.Try(sales, func() {
			begin := monday.AddDate(0, 0, salesDays).Add(time.Duration(at) * time.Hour)
			theirs := lettersEach(10*time.Minute, begin, 60)
			letters, sent := slices.Concat(salesDay(salesDays, 1), salesDay(salesDays+1, 1), theirs), 0
			w.write(letters, func(l toCustomer) {
				if w.worst(sales) < throttled && slices.Contains(theirs, l) {
					sent++
				}
			})
			if worst := w.worst(sales); worst != throttled || sent >= most {
				t.Errorf("from %d:00: level %d, %d recipients before the throttle", at, worst, sent)
			}
		})
	}
}

// A day that is a third busier is ordinary, and so is one after a holiday.
func TestExcessSparesBusyDays(t *testing.T) {
	for _, c := range []struct {
		times float64
		days  int // off before it
	}{{1.3, 0}, {1.4, 0}, {1.3, 7}} {
		w := newWorld(t, nil)
		w.salesMonths()
		w.forget()
		w.write(salesDay(salesDays+c.days, c.times), func(toCustomer) {})
		if worst := w.worst(sales); worst >= throttled {
			t.Errorf("%v times the usual after %d days off: level %d: %s", c.times, c.days, worst, short(w.last(sales).Evidence))
		}
	}
}

// What a person released is the account's own, while it goes on and when it is over.
func TestExcessIsLearnt(t *testing.T) {
	for _, after := range []time.Duration{time.Minute, 30 * time.Hour} {
		w := newWorld(t, nil)
		w.salesMonths()
		night := func(day int) level {
			w.forget()
			w.write(lettersEach(10*time.Minute, monday.AddDate(0, 0, day).Add(20*time.Hour), 60), func(toCustomer) {})
			return w.worst(sales)
		}
		if l := night(salesDays); l != throttled {
			t.Errorf("the first night: level %d", l)
		}
		w.d.Release(sales, time.Unix(0, w.d.accounts[sales].last).Add(after), "known")
		if l := night(salesDays + 7); l >= throttled {
			t.Errorf("a week after its release, which came after %v: level %d: %s", after, l, short(w.last(sales).Evidence))
		}
	}
}

// An excess that is going on is no record of its own when midnight passes, nor one
// that was dropped.
func TestExcessIsNoExcuse(t *testing.T) {
	midnight := monday.UnixNano()
	x := excess{now: 25, at: seconds(midnight - hour), peak: 25, record: 10}
	x.turn(midnight)
	if x.record != 10 {
		t.Errorf("record %v after the first midnight, want 10", x.record)
	}
	dropped := x
	x.turn(midnight + day)
	if x.record != 25 {
		t.Errorf("record %v after the second midnight, want 25", x.record)
	}
	dropped.drop()
	dropped.turn(midnight + day)
	if dropped.record != 10 {
		t.Errorf("record %v of what was dropped, want 10", dropped.record)
	}
	x = excess{now: 25, at: seconds(midnight - 14*hour), peak: 25, record: 10}
	x.turn(midnight)
	if x.record != 25 {
		t.Errorf("record %v of an evening that is over, want 25", x.record)
	}
}

// The usual of each hour that passes is taken away, and some of what was there; of a
// day off nothing is left.
func TestExcessDrains(t *testing.T) {
	var r rate
	r.habit[perDay].mean = log(100)
	for h := 8; h < 18; h++ {
		for range 10 {
			r.hours.learn(monday.Add(time.Duration(h) * time.Hour).UnixNano())
		}
	}
	at := func(h float64) int64 { return monday.Add(time.Duration(h * float64(time.Hour))).UnixNano() }
	for _, c := range []struct{ from, to, want float64 }{
		{12, 12, 50},
		{12, 13, 50*math.Exp(-1./24) - 8.5},
		{12.5, 13.25, (50*math.Exp(-.5/24)-4.25)*math.Exp(-.25/24) - 2.125},
		{20, 21, 50*math.Exp(-1./24) - .7},
		{20, 20 + 24, 0},
		{8, 18, 0},
	} {
		x := excess{now: 50, at: seconds(at(c.from))}
		if got := float64(x.remains(&r, at(c.to))); got < c.want-.01 || got > c.want+.01 {
			t.Errorf("from %v to %v o'clock: %v left of 50, want %v", c.from, c.to, got, c.want)
		}
	}
}

// Who works at other hours from one day on, in another time zone say, is slowed down
// on three days at most until that is usual; three hours are nothing strange.
func TestExcessGetsUsedToOtherHours(t *testing.T) {
	for _, c := range []struct {
		zone time.Duration
		most int // days
	}{{-8 * time.Hour, 3}, {-3 * time.Hour, 0}, {time.Hour, 0}, {3 * time.Hour, 0}, {8 * time.Hour, 3}} {
		w := newWorld(t, nil)
		w.salesMonths()
		days := 0
		for day := range 14 {
			letters := salesDay(salesDays+day, 1)
			for i := range letters {
				letters[i].at = letters[i].at.Add(c.zone)
			}
			w.forget()
			w.write(letters, func(toCustomer) {})
			if w.worst(sales) >= throttled {
				days++
			}
		}
		if days > c.most {
			t.Errorf("%v later than usual: throttled on %d days of 14, at most %d are to be", c.zone, days, c.most)
		}
	}
}

// The record of an account whose first busy day was a suspect one is not lost.
func TestExcessOfAFirstDay(t *testing.T) {
	midnight := monday.UnixNano()
	s := series{past: &seriesPast{excess: excess{at: seconds(midnight - 14*hour), peak: 30}}}
	s.turn(true, midnight)
	s.turn(false, midnight+day)
	if most := s.past.mostExcess(midnight + 2*day); most < 29 || most > 30 {
		t.Errorf("the record counts %v two days later, want 30 or a little less", most)
	}
}

// An excess passes also while nothing is added to it: what a shop sends to strangers is
// not, nor are further letters to whom the account wrote within the hour.
func TestExcessPasses(t *testing.T) {
	for _, sure := range []float32{-3, 3} {
		a := account{last: monday.UnixNano()}
		a.nov.before.sure = sure
		a.rate.days, a.rate.habit[perDay].mean = 60, log(30)
		a.series.past = &seriesPast{kept: seconds(a.last), excess: excess{now: 40, at: seconds(a.last)}}
		if a.beyond() <= 1 {
			t.Errorf("sure %v: an excess of 40 is %v times what it may be", sure, a.beyond())
		}
		a.last += 3 * day
		if a.beyond() > 1 || a.seriesScore() != 0 {
			t.Errorf("sure %v: three days later it still is %v times that", sure, a.beyond())
		}
	}
}
