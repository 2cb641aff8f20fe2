package detector

import (
	"fmt"
	"maps"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A ListedClient is a client address that an account signed in from or
// submitted mail from, and that is on a block list.
type ListedClient struct {
	Account mailq.Account
	Client  string    // its address, or of IPv6 its /64
	Time    time.Time // of the event that it was seen in
	Points  int       // of a hundred, by what the list says of it
	Says    string    // which list has it, and as what: ours, or the operator's words
}

// releasesKept is for how long an answer may be on its way.
const (
	releasesKept = 6 * time.Hour
	maxReleases  = 1000
)

// SignedIn counts that an account has a listed client. An address counts once,
// and what all of them add to the risk is bounded: customers share addresses, so
// that it may be a neighbour who is infected. So nobody is named for it who has
// no other sign; who has is named sooner.
func (r *ListingRisk) SignedIn(c ListedClient) {
	if r == nil || c.Points <= 0 || !c.Time.After(r.released[c.Account]) {
		return
	}
	a := r.account(c.Account, c.Time)
	r.fade(a, c.Time)
	before := a.client
	points := float64(min(c.Points, clientsMost))
	a.client = min(a.client+a.clients.add(c.Client, points, points, c.Time), clientsMost)
	r.addClient(a.client-before, c.Time)
	a.signedIn = fmt.Sprintf("signed in from %s, which is on %s", c.Client, c.Says)
	if n := len(a.clients.points); n > 1 {
		a.signedIn += fmt.Sprintf("; %d such addresses", n)
	}
}

// addClient counts points for clients.
func (r *ListingRisk) addClient(points float64, now time.Time) {
	r.clients = r.clients*halved(r.clientAt, now) + points
	r.clientAt = later(r.clientAt, now)
}

// noteRelease remembers when an account was released.
func (r *ListingRisk) noteRelease(account mailq.Account, now time.Time) {
	maps.DeleteFunc(r.released, func(_ mailq.Account, at time.Time) bool { return now.Sub(at) > releasesKept })
	if r.released == nil || len(r.released) >= maxReleases {
		r.released = map[mailq.Account]time.Time{}
	}
	r.released[account] = now
}
