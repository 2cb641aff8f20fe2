package eval

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Result is what a run came to. Its JSON is a contract.
type Result struct {
	Messages    int                  `json:"messages"`     // that were sent, and logins
	Accounts    int                  `json:"accounts"`     // that sent them
	MailboxDays int                  `json:"mailbox_days"` // on which one sent, after the warm-up
	Trials      int                  `json:"trials"`       // of each style; less where a style asks for certain victims
	Seed        uint64               `json:"seed"`
	Systems     []System             `json:"systems"`        // Vedetta first
	Total       Total                `json:"total"`          // of the hijacks, all styles together
	Honest      []Wrongs             `json:"honest"`         // what Vedetta did to all of them
	Stopped     []Case               `json:"stopped"`        // honest accounts that Vedetta held or blocked, the first 100
	Odd         []Odd                `json:"odd"`            // honest but odd senders
	Calibration detector.Calibration `json:"calibration"`    // where the traffic's own days put the thresholds
	Curve       []Point              `json:"curve"`          // what other thresholds would have come to, and the fixed rules
	Race        *Race                `json:"race,omitempty"` // with block lists, if it was asked for
}

// mostCases bounds the honest accounts that are listed.
const mostCases = 100

// A Case is an honest account that was stopped.
type Case struct {
	Time     time.Time        `json:"time"`
	Account  string           `json:"account"`
	Done     rules.Action     `json:"done"`
	Evidence []rules.Evidence `json:"evidence"`
}

// Odd is what was done to honest but odd senders of one kind: in their first 30
// days, when they were new to everybody, and in the three months after.
type Odd struct {
	Name      string `json:"name"`
	Senders   int    `json:"senders"`
	FirstDays int    `json:"first_mailbox_days"`
	First     Wrong  `json:"first_wrong"`
	Days      int    `json:"mailbox_days"`
	Wrong     Wrong  `json:"wrong"`
	Fixed     []int  `json:"fixed_blocked"` // mailbox-days that each fixed rule blocks, in the order of the systems
	Stopped   []Case `json:"stopped"`       // by Vedetta, the first 100 of the first days and of the others
}

// A System is Vedetta or a fixed rule, and how it did.
type System struct {
	Name   string  `json:"name"`
	Wrong  Wrong   `json:"wrong"`
	Styles []Style `json:"styles"`
}

// Wrong counts honest mailbox-days by the strongest that was done on them.
type Wrong struct {
	Throttled int `json:"throttled"`
	Held      int `json:"held"`
	Blocked   int `json:"blocked"`

	// StoppedPerThousand is holds and blocks per 1,000 mailbox-days, and
	// StoppedAtMost the upper end of its one-sided 95 % interval (exact Poisson).
	StoppedPerThousand float64 `json:"stopped_per_1000"`
	StoppedAtMost      float64 `json:"stopped_per_1000_at_most"`
}

// A Style is how the hijacks of one style fared. Recipients and seconds are
// until the stop, of those that were stopped; the message that led to it
// counts.
type Style struct {
	Name    string `json:"name"`
	Trials  int    `json:"trials"`
	Stopped int    `json:"stopped"`
	P50     int    `json:"recipients_p50"` // 0 if none was stopped
	P95     int    `json:"recipients_p95"`
	Max     int    `json:"recipients_max"`
	Seconds int    `json:"seconds_p50"`
}

// count notes that what is done on a mailbox-day goes from one action to a
// stronger one.
func (w *Wrong) count(from, to rules.Action) {
	if n := w.of(from); n != nil {
		*n--
	}
	if n := w.of(to); n != nil {
		*n++
	}
}

func (w *Wrong) of(a rules.Action) *int {
	switch {
	case a >= rules.Block:
		return &w.Blocked
	case a == rules.Hold:
		return &w.Held
	case a == rules.Throttle:
		return &w.Throttled
	}
	return nil
}

func (p *pass) result() Result {
	t := &p.tallies[0]
	r := Result{Messages: written(p.traffic), Accounts: len(p.pasts), MailboxDays: t.days, Trials: p.trials, Seed: p.Seed, Stopped: append([]Case{}, t.cases...), Odd: []Odd{}}
	for s := range p.stops {
		r.Systems = append(r.Systems, System{Name: systemName(s), Wrong: t.wrong[s].per(t.days)})
	}
	r.addStyles(p)
	r.Curve, r.Calibration = p.curve(), p.detector.Calibration()
	return r
}

// systemName names Vedetta, which is system 0, and the fixed rules.
func systemName(s int) string {
	if s == 0 {
		return "Vedetta"
	}
	return fixedRules[s-1].name
}

// addStyles adds the styles that the pass tried.
func (r *Result) addStyles(p *pass) {
	for i := range styles {
		if !slices.Contains(p.of, styles[i].victim) {
			continue
		}
		for s := range p.stops {
			r.Systems[s].Styles = append(r.Systems[s].Styles, fared(styles[i].name, p.stops[s][i]))
		}
	}
}

// per says what the counts are of so many mailbox-days.
func (w Wrong) per(days int) Wrong {
	per := 1000 / float64(max(days, 1))
	w.StoppedPerThousand = round3(per * float64(w.Held+w.Blocked))
	w.StoppedAtMost = round3(per * atMost(w.Held+w.Blocked))
	return w
}

// addOdd adds what was done to the odd senders, and the styles that hijack some of
// them.
func (r *Result) addOdd(p *pass) {
	r.addStyles(p)
	for k, odd := range oddities {
		young, later := &p.tallies[1+2*k], &p.tallies[2+2*k]
		o := Odd{Name: odd.name, Senders: p.Odd, FirstDays: young.days, First: young.wrong[0].per(young.days), Days: later.days, Wrong: later.wrong[0].per(later.days)}
		o.Stopped = append(young.cases, later.cases...)
		for s := range fixedRules {
			o.Fixed = append(o.Fixed, young.wrong[1+s].Blocked+later.wrong[1+s].Blocked)
		}
		r.Odd = append(r.Odd, o)
	}
}

func round3(x float64) float64 { return math.Round(x*1000) / 1000 }

func fared(name string, all []stop) Style {
	st := Style{Name: name, Trials: len(all)}
	var got []stop
	for _, s := range all {
		if s.stopped {
			got = append(got, s)
		}
	}
	if st.Stopped = len(got); st.Stopped == 0 {
		return st
	}
	slices.SortFunc(got, func(x, y stop) int { return cmp.Compare(x.after, y.after) })
	st.Seconds = int(got[len(got)/2].after / time.Second)
	slices.SortFunc(got, func(x, y stop) int { return cmp.Compare(x.rcpts, y.rcpts) })
	st.P50, st.P95, st.Max = got[len(got)/2].rcpts, got[len(got)*95/100].rcpts, got[len(got)-1].rcpts
	return st
}

// atMost is the mean of a Poisson distribution under which n events or fewer
// are seen once in twenty times: the upper end of the exact one-sided 95 %
// interval (Garwood 1936). For n = 0 it is 2.996.
func atMost(n int) float64 {
	lo, hi := float64(n), float64(n)+10+5*math.Sqrt(float64(n))
	for range 60 {
		mid := (lo + hi) / 2
		if poissonUpTo(n, mid) > .05 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi
}

// poissonUpTo is the probability of n events or fewer.
func poissonUpTo(n int, mean float64) float64 {
	sum := 0.0
	for k := range n + 1 {
		lg, _ := math.Lgamma(float64(k) + 1)
		sum += math.Exp(float64(k)*math.Log(mean) - mean - lg)
	}
	return sum
}

// Print writes the result for people.
func (r Result) Print(out io.Writer) error {
	fmt.Fprintf(out, "%d messages of %d accounts; %d honest mailbox-days after the warm-up; %d hijacks of each style, seed %d\n", r.Messages, r.Accounts, r.MailboxDays, r.Trials, r.Seed)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\nhijacks, stopped by Vedetta\ttrials\tstopped\trecipients before it: p50\tp95\tmax\tseconds p50\t\n")
	for _, s := range r.Systems[0].Styles {
		fmt.Fprintf(t, "%s\t%d\t%s\n", s.Name, s.Trials, s.columns())
	}
	fmt.Fprint(t, "\nhonest mailbox-days\tthrottled\theld\tblocked\tstopped per 1,000\tat most (95 %)\t\n")
	for _, s := range r.Systems {
		w := s.Wrong
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.3f\t%.3f\t\n", s.Name, w.Throttled, w.Held, w.Blocked, w.StoppedPerThousand, w.StoppedAtMost)
	}
	fmt.Fprint(t, "\nhijacks stopped, and recipients p50 / p95\t")
	for _, s := range styles[:paces] {
		fmt.Fprintf(t, "%s\t", s.name)
	}
	fmt.Fprintln(t)
	for _, s := range r.Systems {
		fmt.Fprintf(t, "%s\t", s.Name)
		for i := range min(paces, len(s.Styles)) {
			fmt.Fprintf(t, "%s\t", s.Styles[i].short())
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Race != nil {
		if err := r.Race.print(out); err != nil {
			return err
		}
	}
	if k := r.Calibration; k.Enough {
		fmt.Fprintf(out, "\na hold came to be at %.1f (as shipped 12), for %g wrong in 100,000 mailbox-days\n", k.Hold, k.Target)
	}
	r.printOdd(out)
	if err := r.printTotals(out); err != nil {
		return err
	}
	for i, c := range r.Stopped {
		if i == 0 {
			fmt.Fprint(out, "\nhonest accounts that were stopped\n")
		}
		fmt.Fprintf(out, "  %s  %s  %s\n", c.Time.Format(time.DateTime), c.Account, c.Done)
		for _, e := range c.Evidence {
			fmt.Fprintf(out, "      %5.1f  %s: %s\n", e.Score, e.Kind, e.Text)
		}
	}
	return nil
}

func (r Result) printOdd(out io.Writer) {
	if len(r.Odd) == 0 {
		return
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\nhonest but odd, %d of each\tdays\tthrottled\theld\tblocked\tfirst 30 days\tthrottled\theld\tblocked\tfixed rules block\t\n", r.Odd[0].Senders)
	for _, o := range r.Odd {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", o.Name, o.Days, o.Wrong.Throttled, o.Wrong.Held, o.Wrong.Blocked,
			o.FirstDays, o.First.Throttled, o.First.Held, o.First.Blocked, strings.Trim(fmt.Sprint(o.Fixed), "[]"))
	}
	t.Flush()
	fmt.Fprint(out, "fixed rules, in this order:")
	for i := range fixedRules {
		fmt.Fprintf(out, " %s;", fixedRules[i].name)
	}
	fmt.Fprintln(out)
}

func (s Style) columns() string {
	if s.Trials == 0 {
		return "-\t-\t-\t-\t-\t" // nobody here can be hijacked in this style
	}
	if s.Stopped == 0 {
		return "none\t-\t-\t-\t-\t"
	}
	return fmt.Sprintf("%.1f %%\t%d\t%d\t%d\t%d\t", 100*float64(s.Stopped)/float64(s.Trials), s.P50, s.P95, s.Max, s.Seconds)
}

func (s Style) short() string {
	if s.Stopped == 0 {
		return "never"
	}
	return fmt.Sprintf("%.0f %%, %d / %d", 100*float64(s.Stopped)/float64(s.Trials), s.P50, s.P95)
}
