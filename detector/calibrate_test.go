package detector

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/vedetta-watch/vedetta/mailq"
)

// tailed is what days look like of which rate in 100,000 come to calibrateFrom, and
// of these a part of 1/e each mean further.
func tailed(days int, rate, mean float64) (c calibration) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range days {
		high := 0.0
		if rnd.Float64() < rate/1e5 {
			high = calibrateFrom + rnd.ExpFloat64()*mean
		}
		c.add(uint8(min(high, 255)))
	}
	return c
}

// Where the hold comes out, one ordinary day in 100,000 comes to it.
func TestCalibrationMeetsItsTarget(t *testing.T) {
	for _, tt := range []struct{ rate, mean, target float64 }{{200, 1.5, 1}, {400, 1.2, 3}, {100, 2.2, 1}, {60, 2, 2}} {
		c := tailed(200_000, tt.rate, tt.mean)
		want := calibrateFrom + tt.mean*math.Log(tt.rate/tt.target)
		if got := float64(c.hold(float32(tt.target))); math.Abs(got-want) > .15*want {
			t.Errorf("%+v: a hold at %.2f, want %.2f", tt, got, want)
		}
	}
}

func TestCalibrationBounds(t *testing.T) {
	c := tailed(enoughDays-1, 500, 2)
	if h := c.hold(1); h != shippedHold {
		t.Errorf("with too few days a hold is at %v", h)
	}
	c = tailed(100_000, 500, 2)
	if h := c.hold(0); h != shippedHold {
		t.Errorf("without a target a hold is at %v", h)
	}
	before := float32(0)
	for _, target := range []float32{1000, 100, 10, 1, .1, .0001} {
		h := c.hold(target)
		if h < before || h < holdLeast || h > holdMost {
			t.Errorf("for %v wrong ones a hold is at %v, for more at %v", target, h, before)
		}
		before = h
	}
	quiet := tailed(100_000, 0, 1)
	if h := quiet.hold(1); h != holdLeast {
		t.Errorf("where nobody ever comes near it, a hold is at %v, want %v", h, holdLeast)
	}
}

// A moved threshold moves what the rules get, is told as evidence, and outlives a
// restart.
func TestCalibrationMovesScores(t *testing.T) {
	w := newWorld(t, nil)
	evening := w.office(10, 30)
	before := w.burst(alice, evening, 5e9, 60, held, mail{client: "10.1.1.5"})

	w = newWorld(t, nil)
	w.office(10, 30)
	w.d.fleet.calib = tailed(100_000, 2000, 2.2)
	w.d.move()
	if w.d.fleet.calib.moved < 3 {
		t.Fatalf("moved by %v", w.d.fleet.calib.moved)
	}
	after := w.burst(alice, evening, 5e9, 60, held, mail{client: "10.1.1.5"})
	if after <= before {
		t.Errorf("held after %d messages, and after %d with the threshold moved up", before, after)
	}
	told := false
	for _, e := range w.last(alice).Evidence {
		told = told || e.Kind == "calibration" && e.Score < -3
	}
	if !told {
		t.Errorf("the calibration is not told: %s", short(w.last(alice).Evidence))
	}
	again := New(Default(), nil)
	w.d.Changed(func(name mailq.Account, state []byte) {
		if err := again.Restore(name, state); err != nil {
			t.Error(err)
		}
	})
	if got, want := again.fleet.calib, w.d.fleet.calib; got != want || again.Calibration() != w.d.Calibration() {
		t.Errorf("after a restart %+v, before %+v", again.Calibration(), w.d.Calibration())
	}
}

// Days of the first weeks, and of whoever is convicted, do not count; a release
// makes one count.
func TestCalibrationCountsOrdinaryDays(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 13)
	if n := w.d.Calibration().MailboxDays; n != 0 {
		t.Errorf("%d days of the first two weeks count", n)
	}
	evening := w.office(10, 40)
	before := w.d.Calibration().MailboxDays
	if before < 100 {
		t.Fatalf("%d mailbox-days", before)
	}
	for day := range 5 { // days without mail are none of a mailbox's
		w.login(alice, evening.AddDate(0, 0, day), "10.1.1.5", true)
	}
	if n := w.d.Calibration().MailboxDays; n > before+1 {
		t.Errorf("%d of five days with logins alone count", n-before)
	}
	evening = evening.AddDate(0, 0, 6)
	w.burst(alice, evening, 5e9, 60, held, mail{client: "10.1.1.5"})
	w.d.Release(alice, evening.Add(3600e9), "mailing")
	c := &w.d.fleet.calib
	high := float32(0)
	for i := 12; i < peaks; i++ {
		high += c.above[i]
	}
	if high != 1 {
		t.Errorf("%v days at a hold, want the released one", high)
	}
}

// The calibration moves what stops an account, not what slows it down.
func TestCalibrationLeavesThrottlesAlone(t *testing.T) {
	d := New(Default(), nil)
	for _, tt := range []struct{ moved, score, want float32 }{{3, 7, 7}, {3, seriesSays, 9}, {3, 11, 9}, {3, 15, 12}, {-1, 8, 8}, {-1, 11, 12}, {0, 12, 12}} {
		d.fleet.calib.moved = tt.moved
		if v := d.judged(verdict{score: tt.score}); v.score != tt.want {
			t.Errorf("%v moved by %v is %v, want %v", tt.score, tt.moved, v.score, tt.want)
		}
	}
}

// The calibration moves what the owner's own mailings show, for those are why it moves; a
// newsletter that was taken over shows a stranger's hand.
func TestCalibrationLeavesAStrangersHandAlone(t *testing.T) {
	d := New(Default(), nil)
	d.fleet.calib.moved = 6
	for _, tt := range []struct{ score, logins, sender, failures, want float32 }{
		{20, 0, 0, 0, 14}, {20, 2, 12, 0, 14}, {20, 2, 14, 0, 16}, {16, 2, 14, 0, 16}, {20, 0, 0, 4, 14}, {20, 0, 0, 24, 19},
	} {
		v := verdict{score: tt.score}
		v.share[familyLogins], v.share[familySender], v.share[familyFailures] = tt.logins, tt.sender, tt.failures
		if got := d.judged(v); got.score != tt.want {
			t.Errorf("%+v: %v", tt, got.score)
		}
	}
}
