package detector

import (
	"fmt"
	"math"
)

// excess is how many messages, each to other people, an account has sent beyond
// what it sends at such hours: a cumulative sum (E. S. Page, Continuous Inspection
// Schemes, Biometrika 41, 1954). Each message adds one, and the hours that pass take
// away what is usual in them; of the rest a third is left after a day, so that an account
// that grows is not strange for long. Who writes to sixty people on an ordinary day hides
// six more an hour in any count of an hour or of a day; their sum shows.
type excess struct {
	now    float32 // with the latest message that added to it …
	at     uint32  // … in seconds; 0: it was never counted
	peak   float32 // most of this day …
	before float32 // … and of the one before, while it goes on: it would excuse itself
	record float32 // most of any day before, see seriesPast.kept
}

const (
	excessMin   = 25.0    // up to here nothing is strange …
	excessOver  = 1.3     // … nor up to so many times the record, or the account's busiest hour
	excessLeast = .7      // messages an hour that anybody may send
	excessFrom  = 15.0    // of somebody who sends less on a busy day the count of a day tells as much
	officeDay   = .85     // of what the count of a day comes to in the evening are of that day
	excessBusy  = 2.3     // nor up to what a day so far beyond the usual has more than a busy one, see rate.dayBeyond
	excessRest  = day / 2 // so long without a message, and it is over
	youngDays   = 1.5     // so many standard deviations more of an account of which no day is known
	excessDays  = 7       // before so many days are known no hour is usual
)

// turn ends a day.
func (x *excess) turn(now int64) {
	if since(x.at, now) >= excessRest {
		x.teach()
		return
	}
	x.record, x.before, x.peak = max(x.record, x.before), x.peak, x.now
}

// teach makes all that there was the account's own.
func (x *excess) teach() { x.record, x.before, x.peak = max(x.record, x.most()), 0, 0 }

// drop forgets what is no record yet, and begins again.
func (x *excess) drop() { x.now, x.before, x.peak = 0, 0, 0 }

// most is the most that is no record yet.
func (x *excess) most() float32 { return max(x.before, x.peak) }

// busyDay is how many messages there are on a day that five of six are not as busy
// as: one standard deviation above the mean, of the logarithms. Most of them go out in some ten
// hours, so that the decayed count, which the habit is of, comes to more than there are.
func (r *rate) busyDay() float32 {
	return r.dayAt(1)
}

// dayAt is how many messages there are on a day so many standard deviations above the mean.
func (r *rate) dayAt(deviations float32) float32 {
	h := &r.habit[perDay]
	return officeDay * float32(math.Exp(float64(h.mean)+float64(deviations)*math.Sqrt(float64(max(h.vari, 0)))))
}

// dayBeyond is that of a day so many standard deviations above the mean that its like is
// still expected. While few days are known, the busiest of them are yet to come, and more are.
func (r *rate) dayBeyond(deviations float32) float32 {
	return r.dayAt(deviations + youngDays*(1-r.days/habitDays))
}

// remains is what is left of it now, without what is usual meanwhile.
func (x *excess) remains(r *rate, now int64) float32 {
	if since(x.at, now) >= day {
		return 0
	}
	left := x.now
	for at := int64(x.at) * second; at < now && left > 0; {
		end := min((at/hour+1)*hour, now)
		usual := max(r.busyDay()*r.hours.share(at), excessLeast)
		left = max(left*decayed(end-at, day)-usual*float32(end-at)/float32(hour), 0)
		at = end
	}
	return left
}

// exceed counts a message to somebody whom none of about the last hour reached; it
// stands for n. A stranger counts for nothing: he is novelty's to judge.
func (a *account) exceed(n float32, stranger bool) {
	if a.series.past == nil || a.rate.days < excessDays || stranger {
		return
	}
	x := &a.series.past.excess
	before := x.remains(&a.rate, a.last)
	if x.at == 0 { // the account has come to excessFrom for the first time
		before = max(min(a.series.now[seriesDay], excessFrom)-a.rate.busyDay(), 0)
	}
	x.now = before + n
	x.at, x.peak = seconds(a.last), max(x.peak, x.now)
}

// beyond is how many times the excess is what it may come to.
func (a *account) beyond() float32 {
	s := &a.series
	if s.past == nil || s.past.excess.now <= excessMin || a.rate.busyDay() < excessFrom && a.surely() >= 0 {
		return 0
	}
	return s.past.excess.remains(&a.rate, a.last) / a.excessLimit()
}

// excessLimit is what the excess may come to.
func (a *account) excessLimit() float32 {
	s := &a.series
	ofBusyDay := a.rate.dayBeyond(excessBusy) - a.rate.busyDay()
	return max(excessMin, ofBusyDay, excessOver*s.past.mostExcess(a.last), excessOver*s.most(seriesHour, a.last))
}

// mostExcess is the record of the excess as it counts today.
func (p *seriesPast) mostExcess(now int64) float32 { return p.excess.record * p.left(recordLife, now) }

func (a *account) excessText() string {
	p := a.series.past
	return fmt.Sprintf("about %.0f messages, each to other people, more than this account sends at such hours; the most so far were %.0f",
		p.excess.remains(&a.rate, a.last), p.mostExcess(a.last))
}
