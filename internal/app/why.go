package app

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/web"
)

// whyText says for people what w holds.
func whyText(w web.Why, x detector.Explanation, known bool) []string {
	var b strings.Builder
	fmt.Fprintln(&b, w.Account)
	if len(w.Active) == 0 {
		fmt.Fprintln(&b, "  nothing is in force on it")
	}
	for _, d := range w.Active {
		fmt.Fprintf(&b, "  %s since %s%s: %s\n", d.Action, day(d.Time), ending(d.Until), d.Why)
	}
	if known {
		explain(&b, x)
	}
	if len(w.Findings) > 0 {
		fmt.Fprintln(&b, "\nFindings, newest first")
	}
	for _, f := range w.Findings {
		fmt.Fprintf(&b, "  %s  %s  score %.1f from %d famil%s, %d message%s to %d recipient%s since %s\n", day(f.Time), f.ID, f.Score,
			f.Families, ies(f.Families), f.Messages, plural(f.Messages), f.Rcpts, plural(f.Rcpts), day(f.Since))
		b.WriteString(evidenceLines(f.Hard, f.Evidence, "      "))
	}
	if len(w.Journal) > 0 {
		fmt.Fprintln(&b, "\nJournal, newest first")
	}
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, e := range w.Journal {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", day(e.Time), e.Who, e.What, e.Action, joined(e.Why, e.Outcome))
	}
	t.Flush()
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// explain adds the detector's own view.
func explain(b *strings.Builder, x detector.Explanation) {
	fmt.Fprintf(b, "  score now %.1f; %d messages seen, last on %s\n", x.Score, x.Messages, day(x.Last))
	own := x.Own
	fmt.Fprintf(b, "  usual for it: %d%% new recipients, at most %d messages an hour and %d a day, from %d network%s (learnt from %d day%s)\n",
		int(own.NewRecipients*100+0.5), own.BusiestHour, own.BusiestDay, own.Networks, plural(own.Networks), own.Days, plural(own.Days))
	if len(x.Evidence) > 0 || x.Hard != "" {
		fmt.Fprintln(b, "\nWhat speaks against it now")
		b.WriteString(evidenceLines(x.Hard, x.Evidence, "  "))
	}
	if len(x.Steps) > 0 {
		fmt.Fprintln(b, "\nHow it came to that")
	}
	for _, s := range x.Steps {
		fmt.Fprintf(b, "  %s  %+5.1f  %-10s score %.1f\n", day(s.Time), s.Moved, s.Kind, s.Score)
	}
}

func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}

func ending(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + day(t)
}

func joined(parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, p)
		}
	}
	return strings.Join(some, "; ")
}

func ies(n int) string {
	if n == 1 {
		return "y"
	}
	return "ies"
}
