package app

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/rules"
)

// Bounds of what is asked about neighbours: of 256 networks with five lists it is
// 15,360 questions a day, 3,072 of each list.
const (
	neighboursOf    = 6              // addresses of a network that are asked about
	neighboursEvery = 12 * time.Hour // how often
	maxHoods        = 256            // networks, of which one a minute is begun with
	neighboursLeast = 2              // that have to be listed
)

// The risk that neighbours, and listings of more than an address, add to that of
// an address.
const (
	pressureStep = 0.05
	pressureMost = 0.15
)

// A hood is the neighbourhood of addresses of ours: a /24. Who has the others in
// it we do not know, but lists come to list all of it.
type hood struct {
	network netip.Prefix
	asked   time.Time            // zero: not yet
	of      int                  // neighbours
	wanted  int                  // questions that were asked then
	listed  map[neighbourOn]bool // what was said; nobody can tell about what is not in it
	pressed time.Time            // since when enough neighbours are listed; zero if they are not
}

// A neighbourOn is a neighbour and a list, by its title.
type neighbourOn struct {
	neighbour dnsbl.Subject
	list      string
}

// hoodOf is the network of an IPv4 address.
func hoodOf(s dnsbl.Subject) (netip.Prefix, bool) {
	if addr := s.Addr(); addr.Is4() {
		return netip.PrefixFrom(addr, 24).Masked(), true
	}
	return netip.Prefix{}, false
}

// lookAround asks about the neighbours of one network, if it is time.
func (l *listWatch) lookAround(now time.Time) {
	if !l.config.Risk.Neighbours || l.distrust != "" {
		return
	}
	var next *hood
	for s := range l.sources {
		network, ok := hoodOf(s)
		if !ok || !l.isOurs(s) {
			continue
		}
		h := l.hoods[network]
		if h == nil {
			if len(l.hoods) >= maxHoods {
				continue
			}
			h = &hood{network: network, listed: map[neighbourOn]bool{}}
			l.hoods[network] = h
		}
		if now.Sub(h.asked) >= neighboursEvery && (next == nil || h.asked.Before(next.asked)) {
			next = h
		}
	}
	if next != nil {
		l.askNeighbours(next, now)
	}
}

// askNeighbours asks about the neighbours of a network, where a list of those that
// cost deliveries is believed. One that is watched by now has no say any more.
func (l *listWatch) askNeighbours(h *hood, now time.Time) {
	sample := l.neighbours(h.network)
	asked := 0
	by := map[string]bool{}
	for _, list := range l.watch.Health() {
		if list.Tier != dnsbl.Act || !list.State.Usable() {
			continue
		}
		for _, s := range sample {
			if l.watch.Inquire(now, s, list.List, dnsbl.ForNeighbour) {
				asked, by[list.Title] = asked+1, true
			}
		}
	}
	if asked == 0 {
		return // no list is believed now
	}
	h.asked, h.of, h.wanted = now, len(sample), asked
	maps.DeleteFunc(h.listed, func(on neighbourOn, _ bool) bool { return !slices.Contains(sample, on.neighbour) || !by[on.list] })
}

// neighbours are a few addresses of a network that are not watched: always the
// same, but for those that come to be watched.
func (l *listWatch) neighbours(network netip.Prefix) (sample []dnsbl.Subject) {
	b := network.Addr().As4()
	sum := fnv.New32a()
	sum.Write(b[:])
	const hosts, step = 254, 37 // that have no divisor in common, so that each host comes once
	for i := range uint32(hosts) {
		b[3] = byte(1 + (sum.Sum32()%hosts+i*step)%hosts)
		s := dnsbl.Address(netip.AddrFrom4(b))
		if _, watched := l.sources[s]; !watched {
			sample = append(sample, s)
		}
		if len(sample) == neighboursOf {
			break
		}
	}
	return sample
}

// heardOfNeighbour takes what a list says about a neighbour. What is about how an
// address is set up, or about more than the address, says nothing of its user.
func (l *listWatch) heardOfNeighbour(q *dnsbl.Inquiry, now time.Time) {
	network, _ := hoodOf(q.Subject)
	h := l.hoods[network]
	if h == nil || q.Verdict == dnsbl.Unknown {
		return
	}
	h.listed[neighbourOn{q.Subject, q.Title}] = q.Verdict == dnsbl.Listed && !q.Policy && q.Scope == dnsbl.ScopeIP
	switch n, _ := h.count(); {
	case n == 0:
		h.pressed = time.Time{}
	case n >= neighboursLeast && h.pressed.IsZero():
		h.pressed = now
	}
}

// count says how many neighbours are listed, and by whom.
func (h *hood) count() (n int, lists []string) {
	on := map[dnsbl.Subject]bool{}
	for at, listed := range h.listed {
		if listed {
			on[at.neighbour] = true
			lists = append(lists, at.list)
		}
	}
	slices.Sort(lists)
	return len(on), slices.Compact(lists)
}

// isKnown reports whether all that was asked about is known.
func (h *hood) isKnown() bool { return !h.asked.IsZero() && len(h.listed) >= h.wanted }

// pressures is the risk of each network of ours that is none of its addresses'
// own doing: listed neighbours, and listings that cover more than an address.
func (l *listWatch) pressures() map[netip.Prefix]float64 {
	pressure := map[netip.Prefix]float64{}
	for network, h := range l.hoods {
		if n, _ := h.count(); !h.pressed.IsZero() {
			pressure[network] = pressureStep * float64(max(1, n-1))
		}
	}
	wide := map[neighbourOn]bool{} // each list once a network
	for s := range l.watch.Alarmed() {
		network, ok := hoodOf(s)
		if !ok || !l.isOurs(s) {
			continue
		}
		for _, g := range l.watch.Listings(s) {
			key := neighbourOn{dnsbl.Address(network.Addr()), g.List}
			if isOn(&g) && !g.Frozen && !g.Mass && !wide[key] && (g.Scope == dnsbl.ScopeRange || g.Scope == dnsbl.ScopeASN || g.Vicinity) {
				wide[key] = true
				pressure[network] += pressureStep
			}
		}
	}
	return pressure
}

// tellNeighbours tells of networks with listed neighbours, once, and when they are
// gone. It is nobody's fault here: there is nothing to do but to ask.
func (l *listWatch) tellNeighbours(ctx context.Context, now time.Time, allFound bool) {
	findings, known := map[string]rules.Finding{}, map[string]bool{}
	for network, h := range l.hoods {
		known[network.String()] = h.isKnown()
		if n, lists := h.count(); !h.pressed.IsZero() {
			f := rules.Finding{
				ID: rules.FindingID(rules.Neighbours, network.String(), h.pressed), Rule: rules.Neighbours, Subject: network.String(),
				Time: now, Since: h.pressed, Lasting: true,
				Evidence: []rules.Evidence{{Kind: rules.Listing, Text: fmt.Sprintf(
					"%d of %d neighbours in %s are on %s: ask whoever has them; lists come to list all of a network", n, h.of, network, strings.Join(lists, ", "))}},
			}
			findings[f.Subject] = f
		}
	}
	l.p.metrics.pressed.Set(float64(len(findings)))
	for _, in := range l.p.book.Standing(rules.Neighbours) { // told before the start
		if f, ok := findings[in.Subject()]; ok {
			l.lasting[rules.Neighbours][f.ID] = true
		}
	}
	l.tellLasting(ctx, rules.Neighbours, findings, known, allFound)
}
