package detector

import (
	"fmt"

	"github.com/vedetta-watch/vedetta/mailq"
)

// domains watches how far new recipients are spread: given that a recipient
// is new, is its domain new to the account too? It is part of the same
// family as novelty: a mailing to strangers at many places is one oddity,
// not two.
type domains struct {
	chart
	last  [8]uint16 // hashes of domains written to, the latest first
	fresh share
}

const (
	spamNewDomain = .7
	domainPrior   = .4
	spreadStep    = .5
	spreadTop     = 3.0
)

// spread takes a recipient that is new to the account.
func (d *Detector) spread(a *account, to *mailq.Recipient, above bool) {
	s := &a.spr
	h := uint16(hashOf(to.Domain))
	known := s.has(h)
	p := min(max(s.fresh.mean(domainPrior, 6), .05), .95)
	x := log((1 - spamNewDomain) / (1 - p))
	if !known {
		x = log(spamNewDomain / p)
		copy(s.last[1:], s.last[:])
		s.last[0] = h
	}
	s.add(min(max(x, -spreadStep), spreadStep), spreadTop, a.last)
	if !above {
		s.fresh.add(!known, 1)
		s.fresh.limit(40)
	}
}

func (s *domains) has(h uint16) bool {
	for _, e := range s.last {
		if e == h {
			return true
		}
	}
	return false
}

func (a *account) spreadText() string {
	return fmt.Sprintf("the new recipients are spread over more domains than this account's usually are (%.0f%% of its earlier ones were at domains it knew)",
		100*(1-a.spr.fresh.mean(domainPrior, 6)))
}
