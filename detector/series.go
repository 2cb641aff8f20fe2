package detector

import (
	"fmt"
	"math"
)

// series watches messages that go out one after another, each to other
// people: the owner's mail merge, or the letter of a hijacker to all whom
// his victim ever wrote to. Nothing but the series shows the second, and
// nothing tells the two apart. So it may slow an account down by itself, and
// adds nothing to what other evidence says. Who has sent such a series before
// may do so again.
type series struct {
	now  [tallies]float32 // decayed counts, see account.decay
	past *seriesPast      // nil for most, who never came near a series
}

// A seriesPast is what series an account has sent.
type seriesPast struct {
	peak   [tallies]float32 // most since the record was last kept
	record [tallies]float32 // most ever, halved in recordLife or strangersLife
	kept   uint32           // when, in seconds
	excess excess
}

// A tally is a span and how much of one message counts in it: of its
// recipients, those that no message of about the last hour has reached.
type tally uint8

const (
	seriesHour tally = iota
	seriesDay
	seriesCopies  // of many small messages, each recipient
	seriesCrowds  // of a few large ones, each recipient
	strangersHour // recipients never written to before, see account.strangers
	strangersDay
	tallies
)

var seriesOf = [tallies]struct {
	span      span
	most      uint8   // that one message counts
	limit     float32 // up to here nothing is strange …
	over      float32 // … nor up to so many times the record, see series.limit
	strangers tally   // those of its span
}{
	seriesHour:    {overHour, 1, 25, 1.5, strangersHour},
	seriesDay:     {overDay, 1, 32, 1.25, strangersDay}, // days differ less than hours
	seriesCopies:  {overHour, copiesMost, 32, 1.5, strangersHour},
	seriesCrowds:  {overHour, crowdMost, 34, 1.2, strangersHour}, // two of twenty are taken for 40, give or take three
	strangersHour: {overHour, 0, 16, 4, strangersHour},
	strangersDay:  {overDay, 0, 40, 5, strangersDay}, // a sale brings a shop several times the orders
}

const (
	copiesMost    = 5
	crowdMost     = 20
	seriesSays    = 9.2
	seriesVaries  = 3.0 // times the square root of a record, but …
	seriesOver    = 1.3 // … at least so many times the record is nothing strange
	seriesBusy    = 1.7 // a day so far beyond the usual is busy, see rate.dayBeyond
	seriesYoung   = 5   // an account has a record once so many of its days are known
	strangersLife = 60 * day
)

// reached counts the nth recipient of a message that none before it in about
// an hour had, and that stands for so many.
func (s *series) reached(n uint8, others float32) {
	for t := range strangersHour {
		if n <= seriesOf[t].most {
			s.count(t, others)
		}
	}
}

func (s *series) count(t tally, n float32) {
	s.now[t] += n
	if s.past == nil && (s.now[t] > seriesOf[t].limit/seriesOf[t].over || t == seriesDay && s.now[t] > excessFrom) {
		s.past = new(seriesPast) // less is no record worth keeping
	}
	if s.past != nil {
		s.past.peak[t] = max(s.past.peak[t], s.now[t])
	}
}

// most is the record as it counts today. That of a series lasts as long as
// [recordLife] says: who writes to his customers each month writes to a few more of them
// each time.
func (s *series) most(t tally, now int64) float32 {
	if s.past == nil {
		return 0
	}
	life := recordLife
	if t >= strangersHour {
		life = strangersLife
	}
	return s.past.record[t] * s.past.left(life, now)
}

// left is what a record still counts for that is halved in life.
func (p *seriesPast) left(life, now int64) float32 {
	return float32(math.Exp2(-float64(since(p.kept, now)) / float64(life)))
}

// keep takes what there was since the last time into the record, all but the excess.
func (s *series) keep(now int64) {
	p := s.past
	if p == nil {
		return
	}
	for t := range tallies {
		p.record[t] = max(s.most(t, now), p.peak[t])
	}
	p.excess.record = p.mostExcess(now)
	p.kept = seconds(now)
	p.peak = s.now
}

// turn takes the day that ends into the record. Of a suspect one only the excess: it
// is told by now, and whose hours have moved for good is not to be slowed down every day.
func (s *series) turn(suspect bool, now int64) {
	switch {
	case s.past == nil:
		return
	case !suspect:
		s.keep(now)
	case s.past.kept == 0: // it has no record yet that would fade
		s.past.kept = seconds(now)
	}
	s.past.excess.turn(now)
}

// teach takes all that there was into the record: a person says that it is the
// account's own.
func (s *series) teach(now int64) {
	s.keep(now)
	if s.past != nil {
		s.past.excess.teach()
	}
}

// drop forgets what there was since the record was last kept: it was not the
// account's own.
func (s *series) drop() {
	if s.past != nil {
		s.past.peak = s.now
		s.past.excess.drop()
	}
}

// A lost series is the most of one that was dropped.
type lostSeries struct {
	peak   [tallies]float32
	excess float32
}

// lost is what is lost if the series is dropped.
func (s *series) lost() lostSeries {
	if s.past == nil {
		return lostSeries{peak: s.now}
	}
	return lostSeries{s.past.peak, s.past.excess.most()}
}

// remember takes a series that was dropped back.
func (s *series) remember(l lostSeries) {
	if s.past == nil {
		s.past = &seriesPast{peak: s.now}
	}
	for t := range tallies {
		s.past.peak[t] = max(s.past.peak[t], l.peak[t])
	}
	s.past.excess.peak = max(s.past.excess.peak, l.excess)
}

// clear forgets what is going on.
func (s *series) clear() {
	s.now = [tallies]float32{}
	s.drop()
}

// limit is the count up to which a tally is nothing strange. Counts vary by their
// square root, so a large record leaves less room above it than a small one. What
// filled much of an hour may go faster the next time: the same invoices, with less of
// a pause between them.
func (s *series) limit(t tally, now int64) float32 {
	most, over := s.most(t, now), seriesOf[t].over
	if t < strangersHour {
		if ofDay := s.most(seriesDay, now); most < ofDay {
			most = min(most+most*most/ofDay, ofDay)
		}
		over = min(max(1+seriesVaries/float32(math.Sqrt(float64(most))), seriesOver), over)
	}
	return max(seriesOf[t].limit, over*most)
}

// longestSeries is the tally that is furthest above what it may come to. What goes to
// people never written to before is novelty's to judge, and no part of it: a shop's orders,
// an agency's inquiries. A day up to a busy one is none.
func (a *account) longestSeries() (longest tally, times float32) {
	s := &a.series
	for t := range strangersHour {
		n := s.now[t] - s.now[seriesOf[t].strangers]
		if n <= seriesOf[t].limit {
			continue
		}
		limit := s.limit(t, a.last)
		if t == seriesDay {
			limit = max(limit, a.rate.dayBeyond(seriesBusy))
		}
		if x := n / limit; x > times {
			longest, times = t, x
		}
	}
	return longest, times
}

// seriesScore is what the account's series says.
func (a *account) seriesScore() float32 {
	if a.rate.days < seriesYoung {
		return 0
	}
	if _, times := a.longestSeries(); times > 1 || a.beyond() > 1 {
		return seriesSays
	}
	return 0
}

func (a *account) seriesText() string {
	s := &a.series
	t, times := a.longestSeries()
	if times <= 1 && a.beyond() > 1 {
		return a.excessText()
	}
	what := "messages, each to other people,"
	switch t {
	case seriesCopies:
		what = "recipients of small messages, each to other people,"
	case seriesCrowds:
		what = "recipients of messages, each to other people,"
	}
	text := fmt.Sprintf("about %.0f %s in %s", s.now[t], what, seriesSpan[t])
	if most := s.most(t, a.last); most >= 1 {
		return fmt.Sprintf("%s; the most so far were %.0f", text, most)
	}
	return text + "; this account never did so before"
}

var seriesSpan = [tallies]string{"an hour", "a day", "an hour", "an hour", "an hour", "a day"}
