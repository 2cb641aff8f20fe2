package app

import (
	"fmt"
	"math"
	"strings"
	"unicode"

	"github.com/vedetta-watch/vedetta/rules"
)

// clean makes outside text safe for a terminal: one line, no control or
// formatting characters.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// evidenceLines prints evidence aligned, a line each, below the hard rule that fired, if
// one did.
func evidenceLines(hard string, evidence []rules.Evidence, indent string) string {
	var b strings.Builder
	if hard != "" {
		fmt.Fprintf(&b, "%s       %-10s %s\n", indent, "hard rule", clean(hard))
	}
	for _, e := range evidence {
		fmt.Fprintf(&b, "%s%+5.1f  %-10s %s\n", indent, round(e.Score, 1), e.Kind, clean(e.Text))
	}
	return b.String()
}

func round(x float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(x*scale) / scale
}

// rounded keeps one decimal, as much as a score means.
func rounded(evidence []rules.Evidence) []rules.Evidence {
	out := make([]rules.Evidence, len(evidence))
	for i, e := range evidence {
		e.Score = round(e.Score, 1)
		out[i] = e
	}
	return out
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
