package eval

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// fewStopped is the share of its hijacks below which a style is named.
const fewStopped = .99

// A Total is what all hijacks together, of every style, came to in Vedetta.
type Total struct {
	Injected int     `json:"injected"`
	Stopped  int     `json:"stopped"`
	Percent  float64 `json:"percent"`
	AtLeast  float64 `json:"percent_at_least"` // lower end of the one-sided 95 % interval of what is missed (exact Poisson)
	Below    []Style `json:"below_99_percent"` // the styles of which fewer were stopped
}

// Wrongs is what was done to the honest of one sort.
type Wrongs struct {
	Who   string `json:"who"`
	Days  int    `json:"mailbox_days"`
	Wrong Wrong  `json:"wrong"`
	Rates struct {
		Throttled Rate `json:"throttled"`
		Held      Rate `json:"held"`
		Blocked   Rate `json:"blocked"`
	} `json:"per_1000"`
}

// A Rate is how many of 1,000 mailbox-days.
type Rate struct {
	Is     float64 `json:"is"`
	AtMost float64 `json:"at_most"` // upper end of the one-sided 95 % interval (exact Poisson)
}

// total sums up Vedetta's styles.
func (r Result) total() Total {
	t := Total{Below: []Style{}}
	for _, s := range r.Systems[0].Styles {
		t.Injected += s.Trials
		t.Stopped += s.Stopped
		if float64(s.Stopped) < fewStopped*float64(s.Trials) {
			t.Below = append(t.Below, s)
		}
	}
	if t.Injected > 0 {
		t.Percent = round3(100 * float64(t.Stopped) / float64(t.Injected))
		t.AtLeast = max(0, round3(100*(1-atMost(t.Injected-t.Stopped)/float64(t.Injected))))
	}
	return t
}

// wrongs sums up what Vedetta did to the honest: the traffic's own, and the odd
// senders when they were known and when they were new.
func (r Result) wrongs() []Wrongs {
	all := []Wrongs{{Who: "the traffic's own", Days: r.MailboxDays, Wrong: r.Systems[0].Wrong}}
	if len(r.Odd) > 0 {
		later, first := Wrongs{Who: "honest but odd, later"}, Wrongs{Who: "honest but odd, first 30 days"}
		for _, o := range r.Odd {
			later.add(o.Days, o.Wrong)
			first.add(o.FirstDays, o.First)
		}
		all = append(all, later, first)
	}
	for i := range all {
		all[i].rate()
	}
	return all
}

func (w *Wrongs) add(days int, wrong Wrong) {
	w.Days += days
	w.Wrong.Throttled += wrong.Throttled
	w.Wrong.Held += wrong.Held
	w.Wrong.Blocked += wrong.Blocked
}

func (w *Wrongs) rate() {
	w.Wrong = w.Wrong.per(w.Days)
	per := func(n int) Rate {
		if w.Days == 0 {
			return Rate{}
		}
		return Rate{round3(1000 * float64(n) / float64(w.Days)), round3(1000 * atMost(n) / float64(w.Days))}
	}
	w.Rates.Throttled, w.Rates.Held, w.Rates.Blocked = per(w.Wrong.Throttled), per(w.Wrong.Held), per(w.Wrong.Blocked)
}

func (r Result) printTotals(out io.Writer) error {
	t := r.Total
	fmt.Fprintf(out, "\nall styles together: %d hijacks injected, %d stopped, %.2f %% (at least %.2f %%, 95 %%)\n", t.Injected, t.Stopped, t.Percent, t.AtLeast)
	for _, s := range t.Below {
		fmt.Fprintf(out, "  below 99 %%: %s, %d of %d\n", s.Name, s.Stopped, s.Trials)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\ndone to the honest by Vedetta: mailbox-days\tall\tthrottled\theld\tblocked\tthrottled per 1,000 (95 %)\theld\tblocked\t\n")
	for _, h := range r.Honest {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", h.Who, h.Days, h.Wrong.Throttled, h.Wrong.Held, h.Wrong.Blocked, h.Rates.Throttled, h.Rates.Held, h.Rates.Blocked)
	}
	return w.Flush()
}

// String is the rate and, in brackets, what it is at most.
func (r Rate) String() string {
	return fmt.Sprintf("%.3f (%.3f)", r.Is, r.AtMost)
}
