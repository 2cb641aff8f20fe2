package app

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/rules"
)

// tell compares what stands on the lists with what people were told, and tells
// the difference: a finding for what is new, an end for what is over. It is all
// the same whether a change or a restart led there.
func (l *listWatch) tell(ctx context.Context) {
	now := time.Now()
	listings := l.listings(now)
	l.tellStanding(ctx, rules.Listed, listings, now.Sub(l.began) > forgottenAfter, l.isAsked)
	troubles, known := l.troubles(ctx, now)
	l.tellStanding(ctx, rules.ListHealth, troubles, now.Sub(l.began) > forgottenAfter, func(subject string) bool { return known[subject] })
	l.untold, l.tellAt = false, time.Now().Add(max(tellEvery, 10*time.Since(now)))
}

// tellEvery is how often it is told what changed, if that costs little: a list
// that has all our addresses at once must not keep us from asking.
const tellEvery = 2 * time.Second

// tellSoon tells what changed, unless that was done just now.
func (l *listWatch) tellSoon(ctx context.Context) {
	if l.untold && !time.Now().Before(l.tellAt) {
		l.tell(ctx)
	}
}

// forgottenAfter is how long after the start an incident ends whose subject is
// not watched any more: it may just not have been found yet.
const forgottenAfter = 24 * time.Hour

// tellStanding reports the findings that were not reported in this run, and
// ends the incidents of the rule that none of them is about, where that is
// known, or as unwatched if all that is ours must have been found by now. A finding that was told before the start is not told again: it has the
// same ID.
func (l *listWatch) tellStanding(ctx context.Context, rule string, findings map[string]rules.Finding, allFound bool, isKnown func(subject string) bool) {
	told := map[string]bool{} // what stands no more is forgotten: it comes back under another ID
	for _, f := range findings {
		if !l.told[rule][f.ID] {
			l.p.report(ctx, f)
		}
		told[f.ID] = true
	}
	l.told[rule] = told
	for _, subject := range l.p.book.Standing(rule) {
		known := isKnown(subject)
		if _, stands := findings[subject]; stands || !known && !allFound {
			continue
		}
		select {
		case l.p.ended <- endedIncident{rule, subject, !known}:
		case <-ctx.Done():
			return
		case <-l.p.done:
			return
		}
	}
}

// An endedIncident is what stands no more, or is not watched any more.
type endedIncident struct {
	rule, subject string
	unwatched     bool
}

func (e endedIncident) end(b *incident.Book, at time.Time) []incident.Change {
	if e.unwatched {
		return b.Unwatched(e.rule, e.subject, at)
	}
	return b.Ended(e.rule, e.subject, at)
}

// endUnwatched ends what block lists said before the start, where they are not
// watched any more: it would stand for ever.
func (p *pipeline) endUnwatched(ctx context.Context) error {
	for _, rule := range []string{rules.Listed, rules.ListHealth} {
		for _, subject := range p.book.Standing(rule) {
			select {
			case p.ended <- endedIncident{rule, subject, true}:
			case <-ctx.Done():
				return nil
			case <-p.done:
				return nil
			}
		}
	}
	return nil
}

// listingName is the subject of a finding about a listing.
func listingName(g *dnsbl.Listing) string { return g.Subject.String() + " (" + g.List + ")" }

// isAsked reports whether a list is asked about a subject now, by the name of
// the listing.
func (l *listWatch) isAsked(name string) bool {
	subject, list, _ := strings.Cut(strings.TrimSuffix(name, ")"), " (")
	s, err := dnsbl.ParseSubject(subject)
	return err == nil && l.watch.Asks(s, list)
}

// listings are the findings about what is on a list now, by their subject.
func (l *listWatch) listings(now time.Time) map[string]rules.Finding {
	findings := map[string]rules.Finding{}
	standing := [...]int{dnsbl.Inform: 0, dnsbl.Warn: 0, dnsbl.Act: 0}
	highest, open := 0.0, l.standing()
	changes := map[string]enforce.AddressChange{}
	for s := range l.watch.Alarmed() {
		all := l.watch.Listings(s)
		exposure := dnsbl.Exposure(all)
		highest = max(highest, exposure)
		if l.hook != nil {
			if c, ok := l.hook.addressChange(s, all); ok && (l.isOurs(s) || !c.Listed) {
				changes[c.Address] = c
				if c.Listed {
					l.hook.before[c.Address] = true
				}
			}
		}
		for i := range all {
			g := &all[i]
			if !isOn(g) {
				continue
			}
			standing[g.Tier]++
			if l.isTelling(g, open) {
				worth := exposure
				if !l.isOurs(s) {
					worth = min(worth, strangersMost)
				}
				f := listingFinding(g, worth, now)
				if other, ok := findings[f.Subject]; !ok || other.Score < f.Score { // a network may be both ours and theirs
					findings[f.Subject] = f
				}
			}
		}
	}
	for tier, n := range standing {
		l.p.metrics.listings.WithLabelValues(dnsbl.Tier(tier).String()).Set(float64(n))
	}
	l.p.metrics.exposure.Set(highest)
	if l.hook != nil {
		l.hook.addClear(changes, l)
		if now.Sub(l.began) > forgottenAfter {
			maps.Copy(changes, l.hook.unwatched(l.isWatched))
		}
		l.hook.want(changes)
	}
	return findings
}

// isWatched reports whether an address is watched.
func (l *listWatch) isWatched(address string) bool {
	s, err := dnsbl.ParseSubject(address)
	_, ok := l.sources[s]
	return err == nil && ok
}

// strangersMost is as much exposure as is told of an address that may not be
// ours: for information.
const strangersMost = 0.39

// isOn reports whether a listing is confirmed and not over.
func isOn(g *dnsbl.Listing) bool { return g.Stage == dnsbl.OnList || g.Stage == dnsbl.Leaving }

// standing is the names of the listings whose incidents are open.
func (l *listWatch) standing() map[string]bool {
	open := map[string]bool{}
	for _, subject := range l.p.book.Standing(rules.Listed) {
		open[subject] = true
	}
	return open
}

// isTelling reports whether a listing is told of. Those of a mass listing are
// once another list has them too; what was told stays until it is over, whatever
// becomes of the other list.
func (l *listWatch) isTelling(g *dnsbl.Listing, open map[string]bool) bool {
	if !isOn(g) || g.Tier == dnsbl.Inform {
		return false
	}
	name := listingName(g)
	return !g.Mass || g.Corroborated || open[name] || l.told[rules.Listed][rules.FindingID(rules.Listed, name, g.Since)]
}

// maxExposure bounds the logarithm of what is left.
const maxExposure = 0.999

// listingFinding puts a listing into a finding's words. What the list says is a
// stranger's text.
func listingFinding(g *dnsbl.Listing, exposure float64, now time.Time) rules.Finding {
	subject := listingName(g)
	score := -math.Log1p(-min(exposure, maxExposure))
	what := fmt.Sprintf("%s: %s (%s)", g.Title, g.Meaning, strings.Join(g.Codes, ", "))
	if scope := g.Scope.String(); scope != "" {
		what += ", scope " + scope
	}
	if g.Policy {
		what += "; about how the address is set up, not about spam"
	}
	texts := []string{what, fmt.Sprintf("seen since %s, confirmed %s", g.Since.UTC().Format(time.RFC3339), g.Confirmed.UTC().Format(time.RFC3339)),
		fmt.Sprintf("all its listings together are worth %.2f of 1 (%s)", exposure, dnsbl.LevelOf(exposure))}
	if g.Reason != "" {
		texts = append(texts, "the list says: "+g.Reason)
	}
	if g.Delist != "" {
		texts = append(texts, "removal: "+g.Delist)
	}
	f := rules.Finding{
		ID: rules.FindingID(rules.Listed, subject, g.Since), Rule: rules.Listed, Subject: subject,
		Time: now, Since: g.Since, Score: score, Families: 1, Lasting: true,
	}
	for i, text := range texts {
		e := rules.Evidence{Kind: rules.Listing, Text: text}
		if i == 0 {
			e.Score = score
		}
		f.Evidence = append(f.Evidence, e)
	}
	return f
}

// troubleName is the subject of a finding about a list.
func troubleName(list string) string { return "block list " + list }

// troubles are the findings about lists that are in quarantine, by their
// subject, and the names of all of which it is known whether they are: a list that
// fails its first tests after a start may or may not come to be. Where most lists
// do not answer it is our resolver or line, and told as that.
func (l *listWatch) troubles(ctx context.Context, now time.Time) (findings map[string]rules.Finding, known map[string]bool) {
	findings, known = map[string]rules.Finding{}, map[string]bool{}
	states := map[dnsbl.State]int{}
	health := l.watch.Health()
	for _, h := range health {
		states[h.State]++
		usable := 0.0
		if h.State.Usable() {
			usable = 1
		}
		l.p.metrics.listUsable.WithLabelValues(h.List).Set(usable)
	}
	for state := dnsbl.Untested; state <= dnsbl.NoKey; state++ {
		l.p.metrics.lists.WithLabelValues(state.String()).Set(float64(states[state]))
	}
	open := len(health) - states[dnsbl.NoKey]
	allAway := open > 0 && 2*states[dnsbl.Offline] > open
	l.see(ctx, allAway, states[dnsbl.Offline], open)
	for _, h := range health {
		subject := troubleName(h.List)
		inTrouble := !h.Quarantined.IsZero() && h.State != dnsbl.Untested && (h.State != dnsbl.Offline || !allAway)
		known[subject] = inTrouble || h.State.Usable()
		if !inTrouble {
			if !h.Spent.IsZero() {
				findings[subject] = spentFinding(&h, now)
			}
			continue
		}
		findings[subject] = rules.Finding{
			ID: rules.FindingID(rules.ListHealth, subject, h.Quarantined), Rule: rules.ListHealth, Subject: subject,
			Time: now, Since: h.Quarantined, Lasting: true,
			Evidence: []rules.Evidence{
				{Kind: rules.Listing, Text: fmt.Sprintf("%s is %s: %s", h.Title, h.State, h.Text)},
				{Kind: rules.Listing, Text: "what it said before stays as it was; nothing new of it is believed until its test passes twice"},
			},
		}
	}
	return findings, known
}

// spentFinding says that a list is not asked about anything new today.
func spentFinding(h *dnsbl.Health, now time.Time) rules.Finding {
	subject := troubleName(h.List)
	return rules.Finding{
		ID: rules.FindingID(rules.ListHealth, subject+" is spent", h.Spent.Truncate(24*time.Hour)), Rule: rules.ListHealth, Subject: subject,
		Time: now, Since: h.Spent, Lasting: true,
		Evidence: []rules.Evidence{
			{Kind: rules.Listing, Text: fmt.Sprintf("%s was asked %d times today, which is nearly all that it may be asked (per_day): until midnight (UTC) nothing new of it is seen", h.Title, h.AskedToday)},
			{Kind: rules.Listing, Text: "what it has listed already is still confirmed; serve a copy of it yourself, or watch fewer addresses"},
		},
	}
}

// see tells whether lists answer at all.
func (l *listWatch) see(ctx context.Context, allAway bool, away, open int) {
	was := l.away
	l.away = allAway && l.distrust == ""
	switch {
	case l.distrust != "":
	case allAway && was: // told
	case allAway:
		l.p.blind(ctx, &l.eye, fmt.Errorf("%d of %d block lists do not answer: is it the resolver, or the line?", away, open))
	default:
		l.p.sees(&l.eye)
	}
}

// tellOnce tells of changes that somebody should look at, and that do not last.
func (l *listWatch) tellOnce(ctx context.Context, events []dnsbl.Event) {
	for _, e := range events {
		text := ""
		switch e.Kind {
		case dnsbl.MassListing:
			text = fmt.Sprintf("it lists %d unrelated addresses at once; %s", e.Count, e.Text)
		case dnsbl.CodeUnknown:
			if e.Quiet {
				continue
			}
			text = fmt.Sprintf("it answered %s about %s, which it does not document: nobody can tell whether that is listed; it is the case of %d of what is watched so far", strings.Join(e.Codes, ", "), e.Subject, e.Count)
		case dnsbl.Redelegated:
			text = "its zone is served by others: " + e.Text
		case dnsbl.RemovalDue:
			text = "it should go from the catalogue, or into dnsbl.catalogue under disabled: " + e.Text
		case dnsbl.WelcomeLost:
			text = fmt.Sprintf("it no longer knows %s as a good sender", e.Subject)
		default:
			continue
		}
		subject := troubleName(e.List)
		l.p.report(ctx, rules.Finding{
			ID: rules.FindingID(rules.ListHealth, subject+" "+e.Kind.String(), e.Time), Rule: rules.ListHealth, Subject: subject,
			Time: e.Time, Since: e.Time, Evidence: []rules.Evidence{{Kind: rules.Listing, Text: text}},
		})
	}
}
