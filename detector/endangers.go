package detector

import (
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
// without those that hardly any are.
func (r *ListingRisk) Top(now time.Time, n int) (top []Endangering) {
	if r == nil {
		return nil
	}
	for _, a := range r.ranked(now) {
		if len(top) == n || a.points() < forgottenPoints {
			break
		}
		e := Endangering{Account: a.name, Points: a.points()}
		for _, said := range r.finding(a, 0, 0, now).Evidence {
			if said.Score > e.Sign.Score {
				e.Sign = said
			}
		}
		top = append(top, e)
	}
	return top
}
