package detector

import "github.com/vedetta-watch/vedetta/mailq"

// ExpectMost is for how many events at once Expect does something.
const ExpectMost = 16

// An outlook is what Expect found, in the order of the events.
type outlook struct {
	accounts [ExpectMost]*account
	n, at    int    // how many there are, and which is the latest that was asked for
	touched  uint32 // so that what is read for nothing but the caches is read
}

// Expect brings what is known of the accounts of the events that come next into the
// processor's caches. It changes nothing that is known. An account lies in ten cache
// lines and more; Observe waits for one after the other, Expect for all of them at once.
func (d *Detector) Expect(evs []mailq.Event) {
	e := &d.ahead
	e.n, e.at = 0, 0
	var last mailq.Account
	for i := range evs[:min(len(evs), ExpectMost)] {
		name := evs[i].Account
		if name == last {
			continue
		}
		last = name
		if a := d.accounts[name]; a != nil {
			e.accounts[e.n] = a
			e.n++
		}
	}
	for _, a := range e.accounts[:e.n] {
		e.touched += a.touchLines()
	}
	for _, a := range e.accounts[:e.n] {
		e.touched += a.touchLists()
	}
}

// find returns an account, if it is the one that was asked for last or comes next.
func (e *outlook) find(name mailq.Account) *account {
	for i := e.at; i < min(e.at+2, e.n); i++ {
		if a := e.accounts[i]; a.name == name && !a.gone {
			e.at = i
			return a
		}
	}
	return nil
}

// touchLines reads a field of each of the account's cache lines.
func (a *account) touchLines() uint32 {
	return uint32(a.filled) + uint32(a.ep.speak[0]) + uint32(a.nov.count) + uint32(a.rate.now[0]) + uint32(a.rate.habit[0].mean) +
		uint32(a.rate.quiet[0]) + a.rate.reach.half + uint32(a.series.now[0]) + uint32(a.log.today) + uint32(a.fail.gone) + uint32(a.last)
}

// touchLists reads of what the account points to where Observe looks.
func (a *account) touchLists() (sum uint32) {
	if a.ring != nil {
		sum += a.ring[0].id + a.ring[2].id + a.ring[4].id
	}
	if len(a.log.nets) > 0 {
		sum += a.log.nets[0].net
	}
	for i := 0; i < len(a.known.exact); i += 16 {
		sum += a.known.exact[i]
	}
	return sum
}
