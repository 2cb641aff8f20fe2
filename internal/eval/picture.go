package eval

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// A Point is one way to set a watch: what it costs the honest, and what gets out.
type Point struct {
	Name      string  `json:"name,omitempty"`      // of a fixed rule; empty: Vedetta at Threshold
	Threshold int     `json:"threshold,omitempty"` // score of a hold with two families of evidence; the shipped rules have 12
	Wrong     float64 `json:"wrong"`               // honest mailbox-days stopped, per 1,000
	Recipient float64 `json:"recipients"`          // of a hijack before the stop: the mean over all at the paces from one a second to one in ten minutes, at most 260 each
}

// curve is what Vedetta comes to at other thresholds, and what the fixed rules come
// to.
func (p *pass) curve() (all []Point) {
	t := &p.tallies[0]
	per := 1000 / float64(max(t.days, 1))
	above := 0
	for reach := reaches - 1; reach >= 6; reach-- {
		above += t.above[reach]
		sum, n := 0, 0
		for s := range paces {
			for _, st := range p.stops[0][s] {
				sum, n = sum+capped(st.at[reach] > 0, st.at[reach]), n+1
			}
		}
		if n > 0 {
			all = append(all, Point{Threshold: reach, Wrong: round3(per * float64(above)), Recipient: round3(float64(sum) / float64(n))})
		}
	}
	for f := range fixedRules {
		sum, n := 0, 0
		for s := range paces {
			for _, st := range p.stops[1+f][s] {
				sum, n = sum+capped(st.stopped, st.rcpts), n+1
			}
		}
		if n > 0 {
			all = append(all, Point{Name: fixedRules[f].name, Wrong: round3(per * float64(t.wrong[1+f].Blocked)), Recipient: round3(float64(sum) / float64(n))})
		}
	}
	return all
}

func capped(stopped bool, rcpts int) int {
	if !stopped {
		return mostShown
	}
	return min(rcpts, mostShown)
}

// The picture's sizes, in its own units.
const (
	pictureW, pictureH = 880, 460
	plotL, plotR       = 70, 520
	plotT, plotB       = 50, 400
)

// Picture draws the curve as SVG: recipients before the stop against honest
// mailbox-days stopped, both on scales that begin at zero and grow by powers.
func (r Result) Picture(out io.Writer) error {
	most := 1.0
	for _, p := range r.Curve {
		most = max(most, p.Wrong)
	}
	x := func(wrong float64) float64 {
		return plotL + (plotR-plotL)*math.Log1p(100*wrong)/math.Log1p(100*most)
	}
	y := func(rcpts float64) float64 {
		return plotB - (plotB-plotT)*math.Log(max(rcpts, 1))/math.Log(mostShown)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", pictureW, pictureH)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", pictureW, pictureH)
	fmt.Fprintf(&b, `<text x="%d" y="24" font-size="15">What a watch costs: recipients of a hijack before the stop, and honest mailbox-days stopped</text>`+"\n", 16)
	r.axes(&b, most, x, y)
	r.vedetta(&b, x, y)
	r.fixed(&b, x, y)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">honest mailbox-days stopped, per 1,000 (of %d)</text>`+"\n", (plotL+plotR)/2, plotB+38, r.MailboxDays)
	fmt.Fprintf(&b, `<text transform="translate(20 %d) rotate(-90)" text-anchor="middle">mean recipients before the stop (260: never)</text>`+"\n</svg>\n", (plotT+plotB)/2)
	_, err := io.WriteString(out, b.String())
	return err
}

func (r Result) axes(b *strings.Builder, most float64, x, y func(float64) float64) {
	for _, v := range []float64{0, .01, .03, .1, .3, 1, 3, 10, 30, 100, 300, 1000} {
		if v <= most {
			fmt.Fprintf(b, `<path d="M%.1f %d V%d" stroke="#e5e5e5"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g</text>`+"\n", x(v), plotT, plotB, x(v), plotB+16, v)
		}
	}
	for _, v := range []float64{1, 3, 10, 30, 100, mostShown} {
		fmt.Fprintf(b, `<path d="M%d %.1f H%d" stroke="#e5e5e5"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%g</text>`+"\n", plotL, y(v), plotR, plotL-6, y(v)+4, v)
	}
}

// shipped is the threshold of the shipped rules.
const shipped = 12

func (r Result) vedetta(b *strings.Builder, x, y func(float64) float64) {
	var line []string
	for _, p := range r.Curve {
		if p.Name == "" {
			line = append(line, fmt.Sprintf("%.1f,%.1f", x(p.Wrong), y(p.Recipient)))
		}
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="#0a6" stroke-width="2"/>`+"\n", strings.Join(line, " "))
	for _, p := range r.Curve {
		switch {
		case p.Name != "":
		case p.Threshold == shipped:
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="6" fill="#0a6"/><text x="%.1f" y="%.1f" fill="#084" font-weight="bold">Vedetta, as shipped</text>`+"\n", x(p.Wrong), y(p.Recipient), x(p.Wrong)+10, y(p.Recipient)+16)
		case p.Threshold%2 == 0:
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="#0a6"><title>threshold %d</title></circle>`+"\n", x(p.Wrong), y(p.Recipient), p.Threshold)
		}
	}
}

// fixed draws the fixed rules, with their names in a column at the right.
func (r Result) fixed(b *strings.Builder, x, y func(float64) float64) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="#555">recipients</text>`+"\n", pictureW-16, plotT)
	n := 0
	for _, p := range r.Curve {
		if p.Name == "" {
			continue
		}
		n++
		line := plotT + 20*n
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="8" fill="#c33" fill-opacity=".75"/><text x="%.1f" y="%.1f" text-anchor="middle" fill="white" font-size="10">%d</text>`+"\n", x(p.Wrong), y(p.Recipient), x(p.Wrong), y(p.Recipient)+3.5, n)
		fmt.Fprintf(b, `<text x="%d" y="%d"><tspan fill="#c33">%d</tspan> %s<tspan x="%d" text-anchor="end">%.0f</tspan></text>`+"\n", plotR+14, line, n, p.Name, pictureW-16, p.Recipient)
	}
}
