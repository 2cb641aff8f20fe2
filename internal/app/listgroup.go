package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/rules"
)

// An onLists is what the lists say of one address, domain or network: what people
// are told of as one incident.
type onLists struct {
	subject  string
	listings []dnsbl.Listing // that are told of, the weightiest first
	exposure float64
	ours     bool     // an address that is surely ours is among it
	kept     []string // lists that had it, and that nobody asks about it now
}

// A toldListed is what people know of one incident about listings.
type toldListed struct {
	finding  rules.Finding // the newest
	critical bool          // it was told as critical
	inBook   bool          // the book has all of it
}

// opener is the ID of the finding that began the incident.
func (t toldListed) opener() string { return cmp.Or(t.finding.Continues, t.finding.ID) }

// has reports whether people know that the list has it.
func (t toldListed) has(list string) bool { return slices.Contains(t.finding.Parts, list) }

// groupOf is the subject of the incident that a listing belongs to. Lists have
// mostly a whole /64 of IPv6, and are asked about its addresses too: that is one.
func groupOf(s dnsbl.Subject) string {
	if addr, err := netip.ParseAddr(s.String()); err == nil && addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().String()
	}
	return s.String()
}

// tellListings tells what is new about what is on lists. Each address, domain or
// network is one incident, from its first listing until none stands.
func (l *listWatch) tellListings(ctx context.Context, now time.Time, allFound bool) {
	told := l.knownListings()
	on := l.listings(now, told)
	for subject := range told {
		if on[subject] == nil {
			on[subject] = &onLists{subject: subject}
		}
	}
	t := listTelling{now, allFound, told, sync.OnceValue(func() []rules.Evidence { return l.culprits(ctx, now) })}
	for _, subject := range slices.Sorted(maps.Keys(on)) {
		l.tellListing(ctx, on[subject], t)
	}
}

// A listTelling is what it takes to tell what is new about listings.
type listTelling struct {
	now      time.Time
	allFound bool                    // what is ours must have been found by now
	told     map[string]toldListed   // by subject
	culprits func() []rules.Evidence // who may be behind a listing of our addresses
}

// knownListings is what people know of listings that stand, by subject: what the
// book has, from before the start too, and what is on its way there.
func (l *listWatch) knownListings() map[string]toldListed {
	known := maps.Clone(l.told)
	standing := map[string]bool{}
	for _, in := range l.p.book.Standing(rules.Listed) {
		if standing[in.ID] = true; l.ended[in.ID] {
			continue
		}
		if t, ok := known[in.Subject()]; !ok || !t.finding.Time.After(in.Finding.Time) {
			known[in.Subject()] = toldListed{in.Finding, in.Critical, true}
		}
	}
	maps.DeleteFunc(l.ended, func(id string, _ bool) bool { return !standing[id] })
	return known
}

// gatherFor is how long further lists of an incident are gathered, to be told
// together, unless they make it critical: the first that has an address has all
// others asked.
const gatherFor = 5 * time.Minute

// tellListing tells what is new about one incident: that it began, that further
// lists have it, that it is critical now, or that it is over. That one of several
// lists has it no more is noted only.
func (l *listWatch) tellListing(ctx context.Context, on *onLists, telling listTelling) {
	t, known := telling.told[on.subject]
	unwatched := l.keep(on, t, telling.allFound)
	if len(on.listings) == 0 {
		if len(on.kept) == 0 {
			l.endListing(ctx, on.subject, t, unwatched)
		}
		return
	}
	f := on.finding(t, telling.now)
	worse := incident.IsCritical(f) && !t.critical
	fresh := on.fresh(t)
	if known && len(fresh) == 0 && !worse {
		if f.ID = t.finding.ID; t.inBook && !slices.Equal(f.Parts, t.finding.Parts) && l.p.change(ctx, refreshOf(f)) {
			l.told[on.subject] = toldListed{finding: f, critical: t.critical}
		}
		return
	}
	if known && !worse && telling.now.Sub(on.confirmed(fresh)) < gatherFor {
		return
	}
	f.ID = rules.FindingID(rules.Listed, on.subject, telling.now) // what was told and ended as unwatched is told anew
	if on.ours {
		f.Evidence = append(f.Evidence, telling.culprits()...)
	}
	l.told[on.subject] = toldListed{finding: f, critical: t.critical || incident.IsCritical(f)}
	l.p.report(ctx, f)
}

// keep sorts out the lists that had it and do not say so now. Those that nobody
// asks about it may just not have been found yet: they count as having it, until
// all that is ours must have been found. It reports whether one is given up.
func (l *listWatch) keep(on *onLists, t toldListed, allFound bool) (unwatched bool) {
	for _, list := range t.finding.Parts {
		if slices.Contains(on.lists(), list) || l.isAsked(on.subject, list) {
			continue
		}
		if allFound {
			unwatched = true
		} else {
			on.kept = append(on.kept, list)
		}
	}
	return unwatched
}

// endListing ends an incident that no listing stands behind any more.
func (l *listWatch) endListing(ctx context.Context, subject string, t toldListed, unwatched bool) {
	delete(l.told, subject)
	if l.p.change(ctx, endOf(rules.Listed, subject, unwatched)) && t.inBook {
		l.ended[incident.ID(t.opener())] = true
	}
}

// isAsked reports whether a list is asked about the subject of an incident now.
func (l *listWatch) isAsked(subject, list string) bool {
	s, err := dnsbl.ParseSubject(subject)
	return err == nil && l.watch.Asks(s, list)
}

// listings are what is on lists now and told of, by the subject of the incident.
func (l *listWatch) listings(now time.Time, told map[string]toldListed) map[string]*onLists {
	on := map[string]*onLists{}
	standing := [...]int{dnsbl.Inform: 0, dnsbl.Warn: 0, dnsbl.Act: 0}
	highest := 0.0
	changes := map[string]enforce.AddressChange{}
	for s := range l.watch.Alarmed() {
		all := l.watch.Listings(s)
		if l.isOurs(s) {
			highest = max(highest, dnsbl.Exposure(all))
		}
		l.addHookChange(changes, s, all)
		all = slices.DeleteFunc(all, func(g dnsbl.Listing) bool { return !isOn(&g) })
		for i := range all {
			standing[all[i].Tier]++
		}
		all = slices.DeleteFunc(all, func(g dnsbl.Listing) bool { return !isBelieved(&g, told[groupOf(g.Subject)]) })
		exposure := dnsbl.Exposure(all)
		if !l.isOurs(s) {
			exposure = min(exposure, strangersMost)
		}
		for i := range all {
			g := &all[i]
			if g.Tier == dnsbl.Inform {
				continue
			}
			subject := groupOf(g.Subject)
			if on[subject] == nil {
				on[subject] = &onLists{subject: subject}
			}
			on[subject].add(g, exposure)
			on[subject].ours = on[subject].ours || l.isOurs(s) && s.Kind()&(dnsbl.IP4|dnsbl.IP6) != 0
		}
	}
	for tier, n := range standing {
		l.p.metrics.listings.WithLabelValues(dnsbl.Tier(tier).String()).Set(float64(n))
	}
	l.p.metrics.exposure.Set(highest)
	l.wantHook(changes, now)
	return on
}

// strangersMost is as much exposure as is told of an address that may not be
// ours: for information.
const strangersMost = 0.39

// isWatched reports whether an address is watched.
func (l *listWatch) isWatched(address string) bool {
	s, err := dnsbl.ParseSubject(address)
	_, ok := l.sources[s]
	return err == nil && ok
}

// isOn reports whether a listing is confirmed and not over.
func isOn(g *dnsbl.Listing) bool { return g.Stage == dnsbl.OnList || g.Stage == dnsbl.Leaving }

// isBelieved reports whether a listing counts. Those of a mass listing do once
// another list has them too; what was told does until it is over, whatever
// becomes of the other list.
func isBelieved(g *dnsbl.Listing, told toldListed) bool {
	return isOn(g) && (!g.Mass || g.Corroborated || told.has(g.List))
}

// add takes a listing, of one of the addresses that the incident is about and
// that is exposed so much. A network has the exposure of its worst address.
func (on *onLists) add(g *dnsbl.Listing, exposure float64) {
	on.exposure = max(on.exposure, exposure)
	same := func(x dnsbl.Listing) bool { return x.Subject == g.Subject && x.List == g.List }
	if slices.ContainsFunc(on.listings, same) {
		return // a network of several addresses
	}
	on.listings = append(on.listings, *g)
	slices.SortFunc(on.listings, func(a, b dnsbl.Listing) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.List, b.List), cmp.Compare(a.Subject.String(), b.Subject.String()))
	})
}

// lists is the names of the lists that have it, each once.
func (on *onLists) lists() (names []string) {
	for i := range on.listings {
		if name := on.listings[i].List; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// fresh is the names of the lists that people do not know of.
func (on *onLists) fresh(t toldListed) []string {
	return slices.DeleteFunc(on.lists(), t.has)
}

// confirmed is when the first of the listings on those lists was.
func (on *onLists) confirmed(lists []string) (at time.Time) {
	for i := range on.listings {
		if g := &on.listings[i]; slices.Contains(lists, g.List) && (at.IsZero() || g.Confirmed.Before(at)) {
			at = g.Confirmed
		}
	}
	return at
}

// maxExposure bounds the logarithm of what is left.
const maxExposure = 0.999

// finding puts what stands into a finding, but for its ID. What people know
// already is said in short.
func (on *onLists) finding(t toldListed, now time.Time) rules.Finding {
	f := rules.Finding{
		Rule: rules.Listed, Subject: on.subject, Time: now, Since: t.finding.Since, Score: -math.Log1p(-min(on.exposure, maxExposure)),
		Families: 1, Lasting: true, Parts: append(on.lists(), on.kept...),
	}
	if f.Since.IsZero() {
		f.Since = slices.MinFunc(on.listings, func(a, b dnsbl.Listing) int { return a.Since.Compare(b.Since) }).Since
	} else {
		f.Continues = t.opener()
	}
	say := func(score float64, format string, args ...any) {
		f.Evidence = append(f.Evidence, rules.Evidence{Kind: rules.Listing, Score: score, Text: fmt.Sprintf(format, args...)})
	}
	say(f.Score, "exposure %.2f of 1 (%s): how far its confirmed listings keep its mail from being delivered", on.exposure, dnsbl.LevelOf(on.exposure))
	for i := range on.listings {
		if g := &on.listings[i]; !t.has(g.List) {
			on.sayNew(g, say)
		}
	}
	for i := range on.listings {
		if g := &on.listings[i]; t.has(g.List) {
			say(0, "as told before: %s, seen since %s", on.about(g), g.Since.UTC().Format(toTheMinute))
		}
	}
	if len(on.kept) > 0 {
		say(0, "not asked about it since the start, so that it may still be there: %s", strings.Join(on.kept, ", "))
	}
	return f
}

// toTheMinute is how times stand in evidence.
const toTheMinute = "2006-01-02 15:04 MST"

// sayNew says all about a listing. What the list says is a stranger's text.
func (on *onLists) sayNew(g *dnsbl.Listing, say func(score float64, format string, args ...any)) {
	say(0, "%s; seen since %s, confirmed %s", on.about(g), g.Since.UTC().Format(toTheMinute), g.Confirmed.UTC().Format(toTheMinute))
	if g.Reason != "" {
		say(0, "%s says: %s", g.Title, g.Reason)
	}
	if g.Delist != "" {
		say(0, "removal from %s: %s", g.List, g.Delist)
	}
}

// about is what a listing is.
func (on *onLists) about(g *dnsbl.Listing) string {
	text := fmt.Sprintf("%s: %s (%s)", g.Title, g.Meaning, strings.Join(g.Codes, ", "))
	if s := g.Subject.String(); s != on.subject {
		text += ", about " + s
	}
	if scope := g.Scope.String(); scope != "" {
		text += ", scope " + scope
	}
	if g.Policy {
		text += "; about how the address is set up, not about spam"
	}
	return text
}
