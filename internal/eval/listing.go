package eval

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// A Listing says how block lists of addresses come to list one: see docs/eval.md
// for where the numbers are from. What got out before a hijack was stopped may get
// the address listed afterwards; that counts as lost.
type Listing struct {
	Traps   float64 `json:"traps"`   // share of a hijacker's strangers that are a list's spam traps
	Reports float64 `json:"reports"` // share of his recipients that report the mail to a list
	Spree   int     `json:"spree"`   // recipients of a hijack that nobody stops, at most; it ends after a week
}

// A Race is how many hijacks were stopped before they got the address listed.
type Race struct {
	Listing
	Lists []RacedList `json:"lists"`
}

// A RacedList is one kind of list.
type RacedList struct {
	Name    string  `json:"name"`
	Systems []Raced `json:"systems"` // nothing at all first, then as in the result
}

// Raced is how one system did against one list.
type Raced struct {
	Name   string       `json:"name"`
	Won    float64      `json:"won"`    // share of all hijacks, each style weighing the same, after which the address was not listed
	Styles []RacedStyle `json:"styles"` // in the order of the result
}

// A RacedStyle is a share of the hijacks of one style.
type RacedStyle struct {
	Name string  `json:"name"`
	Won  float64 `json:"won"`
}

// A list is when a kind of list lists. Traps and reports add up to points.
type list struct {
	name   string
	points func(traps int) int // a report is one
	atLeast,
	hits int // points, and traps and reports together, from which on it lists
}

// lists are modelled after two that say how they list: PSBL, of a server that it
// does not know, and SpamCop, whose threshold moves with the mail that it sees and
// is set here where two traps alone reach it.
var lists = []list{
	{"one spam trap (as PSBL)", func(traps int) int { return min(traps, 1) * oneTrap }, oneTrap, 1},
	{"weighted reports (as SpamCop)", spamCopPoints, 10, 2},
}

// oneTrap is more points than reports can make.
const oneTrap = 1 << 30

func spamCopPoints(traps int) int {
	if traps < 6 {
		return 5 * traps
	}
	return traps * traps
}

// lists reports with what probability n recipients, of whom some are strangers,
// get the address listed.
func (l list) lists(o Listing, n, strangers int) float64 {
	not := 0.0
	traps, reports := binomial(strangers, o.Traps), binomial(n, o.Reports)
	for t := 0; t <= strangers && l.points(t) < l.atLeast; t++ {
		enough := max(l.atLeast-l.points(t), l.hits-t) // reports
		fewer := 1.0
		if enough <= n {
			fewer = 0
			for r := range enough {
				fewer += reports(r)
			}
		}
		not += traps(t) * fewer
	}
	return 1 - min(not, 1)
}

// binomial is the probability of k among n that are each with probability p.
func binomial(n int, p float64) func(k int) float64 {
	choose := func(n, k int) float64 {
		a, _ := math.Lgamma(float64(n) + 1)
		b, _ := math.Lgamma(float64(k) + 1)
		c, _ := math.Lgamma(float64(n-k) + 1)
		return a - b - c
	}
	return func(k int) float64 {
		switch {
		case p == 0 && k == 0:
			return 1
		case p == 0 || k > n:
			return 0
		}
		return math.Exp(choose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
}

// race sets the hijacks of all styles that were tried against the lists.
func (o Listing) race(stops [][][]stop) Race {
	race := Race{Listing: o}
	for _, l := range lists {
		raced := RacedList{Name: l.name}
		raced.Systems = append(raced.Systems, o.raced(l, "nothing", len(stops[0]), func(s int) []int {
			return slices.Repeat([]int{o.whole(&styles[s])}, min(len(stops[0][s]), 1))
		}))
		for sys := range stops {
			raced.Systems = append(raced.Systems, o.raced(l, systemName(sys), len(stops[sys]), func(s int) (rcpts []int) {
				for _, st := range stops[sys][s] {
					rcpts = append(rcpts, o.escaped(sys, &styles[s], st))
				}
				return rcpts
			}))
		}
		race.Lists = append(race.Lists, raced)
	}
	return race
}

// raced is how a system did of whose hijacks of style s so many recipients each
// were written to.
func (o Listing) raced(l list, name string, of int, rcpts func(s int) []int) Raced {
	r := Raced{Name: name}
	sum := 0.0
	for s := range of {
		all := rcpts(s)
		if len(all) == 0 {
			continue
		}
		won := 0.0
		for _, n := range all {
			won += 1 - l.lists(o, n, styles[s].strangers(n))
		}
		won /= float64(len(all))
		r.Styles = append(r.Styles, RacedStyle{styles[s].name, round4(won)})
		sum += won
	}
	r.Won = round4(sum / float64(max(len(r.Styles), 1)))
	return r
}

func round4(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// strangers is how many of n recipients nobody here ever wrote to.
func (s *style) strangers(n int) int {
	if s.contacts {
		return 0
	}
	return int(math.Round(float64(n) * (1 - s.known) * (1 - s.covered())))
}

// whole is how many recipients a hijack of the style has that nobody stops.
func (o Listing) whole(s *style) int {
	week := int(7*24*time.Hour/s.gap) * s.rcpts
	return min(week, o.Spree)
}

// escaped is how many recipients a hijack had under a system.
func (o Listing) escaped(system int, s *style, st stop) int {
	whole := o.whole(s)
	if st.stopped {
		return min(st.rcpts, whole)
	}
	if system > 0 {
		if n, ok := fixedRules[system-1].firesAt(s); ok {
			return min(n, whole)
		}
	}
	return whole
}

// firesAt is with how many recipients the limit fires of a hijack that goes on at
// its pace for longer than it was shown; false: never.
func (l limit) firesAt(s *style) (rcpts int, ok bool) {
	counted := s.rcpts
	switch l.count {
	case failed:
		return 0, false // the shares of failures were shown long enough
	case messages:
		counted = 1
	case strangers:
		counted = s.strangers(s.rcpts)
	}
	if counted == 0 {
		return 0, false
	}
	sent := l.over/counted + 1 // messages
	return sent * s.rcpts, time.Duration(sent-1)*s.gap < l.span
}

// print writes the race for people.
func (r Race) print(out io.Writer) error {
	fmt.Fprintf(out, "\nthe race with the lists: traps are %g of the strangers, %g of the recipients report, %d recipients if nobody stops it\n", r.Traps, r.Reports, r.Spree)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "hijacks stopped before a listing by\t")
	for _, l := range r.Lists {
		fmt.Fprintf(t, "%s\tworst style\t", l.Name)
	}
	fmt.Fprintln(t)
	for s := range r.Lists[0].Systems {
		fmt.Fprintf(t, "%s\t", r.Lists[0].Systems[s].Name)
		for _, l := range r.Lists {
			raced := l.Systems[s]
			fmt.Fprintf(t, "%.1f %%\t%.1f %%\t", 100*raced.Won, 100*raced.worst())
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func (r Raced) worst() float64 {
	worst := 1.0
	for _, s := range r.Styles {
		worst = min(worst, s.Won)
	}
	return worst
}
