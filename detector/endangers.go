package detector

import (
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// An Endangering is an account that points are held against for what gets the
// outgoing addresses listed, with the sign that most of them come from.
type Endangering struct {
	Account mailq.Account
	Points  float64 // of a hundred, which are as much risk as there is
	Sign    rules.Evidence
}

// Top returns the n accounts that most points are held against, most first,
// without those that hardly any are. It changes nothing.
func (r *ListingRisk) Top(now time.Time, n int) (top []Endangering) {
	if r == nil {
		return nil
	}
	var all []*endangering
	for _, a := range r.accounts {
		as := *a
		as.decay(now)
		all = append(all, &as)
	}
	slices.SortFunc(all, byDeeds)
	for _, a := range all {
		if len(top) == n || a.weight() < forgottenPoints {
			break
		}
		e := Endangering{Account: a.name, Points: a.weight()}
		for _, said := range r.finding(a, 0, 0, now).Evidence {
			if said.Score > e.Sign.Score {
				e.Sign = said
			}
		}
		top = append(top, e)
	}
	return top
}
