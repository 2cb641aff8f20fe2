package detector

import "math"

// A calibration is how high the scores of ordinary mailbox-days come on this
// installation, and with it how far the rules' thresholds have to be moved for
// the wrong stops that its operator allows.
//
// Of each account the highest score of a day is counted, as it counts for a
// hold, unless the account was convicted: such a day counts only when a person
// releases it. The tail above calibrateFrom falls off exponentially, near enough
// (peaks over threshold, Pickands 1975), so that a few dozen days tell
// where one in a million would be.
type calibration struct {
	days  float32 // ordinary mailbox-days
	above [peaks]float32
	moved float32 // how far; set by move
}

const (
	peaks           = 26 // scores by their whole part; the last one is all above
	calibrateFrom   = 6
	shippedHold     = 12.0     // where the shipped rules hold, with two families, …
	shippedThrottle = 9.0      // … and where they slow down
	loneFamily      = 6.0      // one family alone has to say this much more
	enoughDays      = 20_000   // with fewer, the thresholds stay as they are shipped
	mostDays        = 2e6      // remembered
	firstWeeks      = 14 * day // of an installation do not count: nobody is known yet
	priorPeaks      = 2.0      // days as the prior has them, …
	priorExcess     = 1.5      // … this far above on average
	holdLeast       = 11.0
	holdMost        = 18.0
)

// weight is the score as it counts for a hold.
func (v *verdict) weight() float32 {
	if v.families < 2 {
		return v.score - loneFamily
	}
	return v.score
}

// add counts one ordinary mailbox-day with its highest score.
func (c *calibration) add(highest uint8) {
	c.days++
	c.above[min(int(highest), peaks-1)]++
	if c.days > mostDays {
		c.days /= 2
		for i := range c.above {
			c.above[i] /= 2
		}
	}
}

// hold is where a hold has to be for so many wrong ones in 100,000 mailbox-days.
func (c *calibration) hold(target float32) float32 {
	if target <= 0 || c.days < enoughDays {
		return shippedHold
	}
	n, excess := float32(priorPeaks), float32(priorPeaks*priorExcess)
	for i := calibrateFrom; i < peaks; i++ {
		n += c.above[i]
		excess += c.above[i] * (float32(i-calibrateFrom) + .5)
	}
	rate := 1e5 * n / c.days
	h := calibrateFrom + excess/n*float32(math.Log(float64(max(rate/target, 1))))
	return min(max(h, holdLeast), holdMost)
}

// highest notes the score at hand as the day's highest, if it is.
func (a *account) highest(v *verdict) {
	a.high = max(a.high, uint8(min(max(v.weight(), 0), peaks-1)))
}

// closeDay counts the account's day that is over.
func (d *Detector) closeDay(a *account, now int64) {
	high, mailed := a.high, a.mailed
	a.high, a.mailed = 0, false
	if !mailed || a.ep.top >= d.cfg.Verdict || now-d.fleet.first < firstWeeks {
		return
	}
	d.fleet.calib.add(high)
	d.move()
}

// move sets how far scores are moved, so that the rules' thresholds are right.
func (d *Detector) move() {
	d.fleet.calib.moved = d.fleet.calib.hold(d.cfg.WrongStops) - shippedHold
}

// judged is the verdict as the rules get it. What slows an account down stays
// where it is: only what is above is moved, and only by what a mailing of the owner's own
// may show, for it is those that made the thresholds move.
func (d *Detector) judged(v verdict) verdict {
	if v.score > shippedThrottle {
		before := v.score
		v.score = max(v.score-min(d.fleet.calib.moved, max(v.score-v.foreign(), 0)), shippedThrottle)
		v.moved = v.score - before
	}
	return v
}

// A Calibration is where the rules' thresholds came out.
type Calibration struct {
	Target      float64 `json:"target"`       // wrong stops that are allowed, in 100,000 mailbox-days; 0: none was set
	MailboxDays int     `json:"mailbox_days"` // ordinary ones that were seen
	Enough      bool    `json:"enough"`       // of them, to tell
	Hold        float64 `json:"hold"`         // score of a hold with two families; the shipped rules have 12
}

// Calibration says where the thresholds came out.
func (d *Detector) Calibration() Calibration {
	c := &d.fleet.calib
	return Calibration{Target: float64(d.cfg.WrongStops), MailboxDays: int(c.days), Enough: c.days >= enoughDays, Hold: round(c.hold(d.cfg.WrongStops))}
}
