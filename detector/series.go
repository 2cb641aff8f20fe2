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
	now    [tallies]float32 // decayed counts
	at     int64            // of them
	peak   [tallies]float32 // most since the record was last kept
	record [tallies]float32 // most ever, halved in recordLife
	kept   int64            // when
}

// A tally is a span and how much of one message counts in it: of its
// recipients, those that no message of about the last hour has reached.
type tally uint8

const (
	seriesHour tally = iota
	seriesQuarter
	seriesDay
	seriesCopies // of many small messages, each recipient
	tallies
)

var seriesOf = [tallies]struct {
	span  int64
	most  uint8   // that one message counts
	limit float32 // up to here nothing is a series
}{
	seriesHour:    {hour, 1, 25},
	seriesQuarter: {6 * hour, 1, 30},
	seriesDay:     {day, 1, 34},
	seriesCopies:  {hour, copiesMost, 32},
}

const (
	copiesMost  = 5
	seriesOver  = 1.5 // nor is anything below so many times the record
	seriesSays  = 9.2
	seriesYoung = 5 // an account has a record once so many of its days are known
)

// reached counts the nth recipient of a message that none before it in about
// an hour had, and that stands for so many.
func (s *series) reached(n uint8, others float32, now int64) {
	s.decay(now)
	for t := range tallies {
		if n <= seriesOf[t].most {
			s.now[t] += others
			s.peak[t] = max(s.peak[t], s.now[t])
		}
	}
}

// decay brings the counts to now.
func (s *series) decay(now int64) {
	dt := now - s.at
	s.at = max(s.at, now)
	if dt <= 0 {
		return
	}
	for t := range tallies {
		if s.now[t] != 0 {
			s.now[t] *= decayed(dt, seriesOf[t].span)
		}
	}
}

// most is the record as it counts today.
func (s *series) most(t tally) float32 {
	return s.record[t] * float32(math.Exp2(-float64(s.at-s.kept)/float64(recordLife)))
}

// keep takes what there was since the last time into the record.
func (s *series) keep(now int64) {
	s.decay(now)
	for t := range tallies {
		s.record[t] = max(s.most(t), s.peak[t])
	}
	s.kept = s.at
	s.drop()
}

// drop forgets what there was since the record was last kept: it was not the
// account's own.
func (s *series) drop() { s.peak = s.now }

// longest is the tally that is furthest above what it may come to.
func (s *series) longest() (longest tally, times float32) {
	for t := range tallies {
		if s.now[t] <= seriesOf[t].limit {
			continue
		}
		if x := s.now[t] / max(seriesOf[t].limit, seriesOver*s.most(t)); x > times {
			longest, times = t, x
		}
	}
	return longest, times
}

// says is what the series says of an account of which so many days are known.
func (s *series) says(days float32) float32 {
	if days < seriesYoung {
		return 0
	}
	if _, times := s.longest(); times <= 1 {
		return 0
	}
	return seriesSays
}

// seriesScore is what the account's series says. Of one that writes to nobody
// twice, as shops and newsletters do, it says nothing.
func (a *account) seriesScore() float32 {
	if a.surely() < 0 {
		return 0
	}
	return a.series.says(a.rate.days)
}

func (a *account) seriesText() string {
	s := &a.series
	t, _ := s.longest()
	what := "messages, each to other people,"
	if t == seriesCopies {
		what = "recipients of small messages, each to other people,"
	}
	return fmt.Sprintf("about %.0f %s in %s; the most so far were %.0f", s.now[t], what, seriesSpan[t], s.most(t))
}

var seriesSpan = [tallies]string{"an hour", "6 hours", "a day", "an hour"}
