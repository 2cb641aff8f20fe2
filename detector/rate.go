package detector

import (
	"fmt"
	"math"
	"time"
)

// rate watches how fast an account sends, against its own past: for each of
// several spans it knows what the account's busiest moment of a day is
// like, and speaks when today's is out of proportion. It never
// argues for innocence: a slow spammer is not cleared by being slow.
type rate struct {
	now   [gauges]float32 // decayed counts, see account.decay
	today int32           // day number of the peaks
	peak  [gauges]float32
	days  float32 // days learnt
	habit [gauges]habit
	quiet [gauges]uint16 // counts up to here say nothing today
	hours clock
	reach reach
	odd   chart // messages at hours unusual for the account
}

// A gauge is one span and thing that is counted.
type gauge uint8

const (
	perMinute gauge = iota // messages
	perTenMinutes
	perHour
	perQuarter // six hours
	perDay
	reachPerHour // different recipients
	gauges
)

var spans = [gauges]struct {
	span span
	text string
}{
	{overMinute, "a minute"},
	{overTenMinutes, "10 minutes"},
	{overHour, "an hour"},
	{overQuarter, "6 hours"},
	{overDay, "a day"},
	{overHour, "an hour"},
}

// firstNorms are the habits of accounts before the installation has taught
// its own.
var firstNorms = [gauges]norm{
	{mean: .2, within: .2, between: .15},
	{mean: .5, within: .4, between: .3},
	{mean: .7, within: .5, between: .4},
	{mean: 1, within: .6, between: .5},
	{mean: 1.3, within: .7, between: .6},
	{mean: 1.1, within: .8, between: .5},
}

const (
	rateTop   = 8.0 // what speed alone may contribute
	rateScale = .8  // days are no independent draws either
	habitDays = 60  // days that a habit remembers
)

// sent counts one more message.
func (r *rate) sent() {
	for g := range reachPerHour {
		r.now[g]++
	}
	for g := range gauges {
		r.peak[g] = max(r.peak[g], r.now[g])
	}
}

// turn closes the account's day when now is in another one, and learns it
// unless it was suspect. It reports whether it did.
func (r *rate) turn(now int64, suspect bool, norms *[gauges]norm) bool {
	today := int32(now / day)
	if today <= r.today { // before it: the account went back, see ObserveLate
		return false
	}
	if r.peak[perDay] > 0 && !suspect {
		r.reach.keep(r.peak[reachPerHour], now)
		for g := range gauges {
			y := peakLog(r.peak[g])
			norms[g].learn(y, r.habit[g], r.days)
			r.habit[g].learn(y, r.days)
		}
		r.days = min(r.days+1, habitDays)
	}
	r.today, r.peak = today, r.now
	r.quiet = unsurprising(&r.habit, r.days, norms)
	return true
}

// accept learns a day's peaks that were thought suspect and turned out not
// to be.
func (r *rate) accept(peak *[gauges]float32) {
	if peak[perDay] == 0 {
		return
	}
	for g := range gauges {
		r.habit[g].learn(peakLog(peak[g]), r.days)
	}
	r.days = min(r.days+1, habitDays)
}

// speed is what the account's pace says, and the gauge that says it.
func (r *rate) speed(norms *[gauges]norm) (float32, gauge) {
	best, which := float32(0), perMinute
	for g := range reachPerHour {
		if r.now[g] <= float32(r.quiet[g]) {
			continue
		}
		if s := surprise(r.now[g], r.habit[g], r.days, &norms[g]); s > best {
			best, which = s, g
		}
	}
	return min(rateScale*best, rateTop), which
}

// usual is the account's usual busiest moment of a day.
func (r *rate) usual(g gauge, norms *[gauges]norm) int {
	mean := (meanDays*norms[g].mean + r.days*r.habit[g].mean) / (meanDays + r.days)
	return int(math.Round(math.Exp(float64(mean))))
}

func (a *account) rateText(f *fleet) string {
	norms := &f.norms[a.class]
	_, g := a.rate.speed(norms)
	text := fmt.Sprintf("about %d messages in %s", int(math.Round(float64(a.rate.now[g]))), spans[g].text)
	if span := time.Duration(a.last - a.ep.onset); a.ep.msgs > 1 && span >= 0 && int64(span) <= spanOf[spans[g].span] {
		text = fmt.Sprintf("%d messages in %s", a.ep.msgs, inWords(span))
	}
	return fmt.Sprintf("%s; this account's usual busiest %s is %d", text, spanName[g], a.rate.usual(g, norms))
}

var spanName = [gauges]string{"minute", "10 minutes", "hour", "6 hours", "day", "hour"}

// inWords is a span as people say it.
func inWords(d time.Duration) string {
	switch {
	case d < 2*time.Second:
		return "1 second"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%d hours", int(d.Hours()))
}
