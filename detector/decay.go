package detector

import "math"

// A span is how long a count of the latest events reaches back: it is the time
// constant of its decay.
type span uint8

const (
	overMinute span = iota
	overTenMinutes
	overHour
	overQuarter // six hours
	overDay
	spansAll
)

var spanOf = [spansAll]int64{minute, 10 * minute, hour, 6 * hour, day}

// decay brings the account's counts from its last event to now.
func (a *account) decay(now int64) {
	dt := now - a.last
	if dt <= 0 {
		return
	}
	left := leftAfter(dt)
	for g := range gauges {
		a.rate.now[g] *= left[spans[g].span]
	}
	for t := range tallies {
		a.series.now[t] *= left[seriesOf[t].span]
	}
}

// leftAfter is what is left of 1 after dt, for each span: one exponential
// of which the others are powers.
func leftAfter(dt int64) (left [spansAll]float32) {
	ofDay := math.Exp(-float64(dt) / float64(day))
	two := ofDay * ofDay
	ofQuarter := two * two
	two = ofQuarter * ofQuarter
	ofHour := two * two * two
	two = ofHour * ofHour
	ofTen := two * two * two
	two = ofTen * ofTen
	four := two * two
	ofMinute := four * four * two
	return [spansAll]float32{float32(ofMinute), float32(ofTen), float32(ofHour), float32(ofQuarter), float32(ofDay)}
}

// decayed is what is left of 1 after dt, with the time constant of span.
func decayed(dt, span int64) float32 {
	if dt <= 0 {
		return 1
	}
	return float32(math.Exp(-float64(dt) / float64(span)))
}
