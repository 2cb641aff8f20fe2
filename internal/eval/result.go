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

	"github.com/vedetta-watch/vedetta/rules"
)

// A Result is what a run came to. Its JSON is a contract.
type Result struct {
	Messages    int      `json:"messages"`     // of the trace
	Mailboxes   int      `json:"mailboxes"`    // that sent them
	MailboxDays int      `json:"mailbox_days"` // on which one sent, after the warm-up
	Trials      int      `json:"trials"`       // of each style; less where a style asks for certain victims
	Seed        uint64   `json:"seed"`
	Systems     []System `json:"systems"` // Vedetta first
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

func (b *bench) result() Result {
	r := Result{Messages: len(b.Trace), Mailboxes: len(b.pasts), MailboxDays: b.days, Trials: b.trials, Seed: b.Seed}
	for s, w := range b.wrong {
		sys := System{Name: "Vedetta", Wrong: w}
		if s > 0 {
			sys.Name = fixedRules[s-1].name
		}
		per := 1000 / float64(max(b.days, 1))
		sys.Wrong.StoppedPerThousand = round3(per * float64(w.Held+w.Blocked))
		sys.Wrong.StoppedAtMost = round3(per * atMost(w.Held+w.Blocked))
		for i, all := range b.stops[s] {
			sys.Styles = append(sys.Styles, fared(styles[i].name, all))
		}
		r.Systems = append(r.Systems, sys)
	}
	return r
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
	fmt.Fprintf(out, "%d messages of %d mailboxes; %d honest mailbox-days after the warm-up; %d hijacks of each style, seed %d\n", r.Messages, r.Mailboxes, r.MailboxDays, r.Trials, r.Seed)
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
	fmt.Fprint(t, "\nhijacks stopped, and recipients p50 / p95\t"+strings.Join(short(styles), "\t")+"\t\n")
	for _, s := range r.Systems {
		fmt.Fprintf(t, "%s\t", s.Name)
		for i := range s.Styles {
			if compared(i) {
				fmt.Fprintf(t, "%s\t", s.Styles[i].short())
			}
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// compared are the styles that the fixed rules are shown for: one recipient a
// message, by pace.
func compared(i int) bool { return i < 5 }

func short(all []style) (names []string) {
	for i, s := range all {
		if compared(i) {
			names = append(names, s.name)
		}
	}
	return names
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
