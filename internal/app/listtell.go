package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/rules"
)

// tell compares what stands on the lists with what people were told, and tells
// the difference: a finding for what is new, an end for what is over. It is all
// the same whether a change or a restart led there.
func (l *listWatch) tell(ctx context.Context) {
	now := time.Now()
	allFound := now.Sub(l.began) > forgottenAfter
	l.tellListings(ctx, now, allFound)
	l.tellTroubles(ctx, now, allFound)
	l.tellNeighbours(ctx, now, allFound)
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

// tellTroubles tells which lists cannot be believed. What was told before the
// start is not told again: it has the same ID.
func (l *listWatch) tellTroubles(ctx context.Context, now time.Time, allFound bool) {
	troubles, known := l.troubles(ctx, now)
	l.tellLasting(ctx, rules.ListHealth, troubles, known, allFound)
}

// tellLasting reports the findings, by their subject, that were not reported in
// this run, and ends the incidents of the rule that none of them is about: those
// that are known to be over, and as unwatched those that nobody looks at any more,
// if all that is ours must have been found by now. What is known has the subjects
// that are looked at.
func (l *listWatch) tellLasting(ctx context.Context, rule string, findings map[string]rules.Finding, known map[string]bool, allFound bool) {
	reported := map[string]bool{} // what stands no more is forgotten: it comes back under another ID
	for _, f := range findings {
		if !l.lasting[rule][f.ID] {
			l.p.report(ctx, f)
		}
		reported[f.ID] = true
	}
	l.lasting[rule] = reported
	for _, in := range l.p.book.Standing(rule) {
		subject := in.Subject()
		_, stands := findings[subject]
		isKnown, isWatched := known[subject]
		if !stands && (isKnown || !isWatched && allFound) {
			l.p.change(ctx, endOf(rule, subject, !isKnown))
		}
	}
}

// A bookChange is what a watcher knows about what lasts, besides what is new.
type bookChange func(b *incident.Book, at time.Time) []incident.Change

// endOf ends what stands no more, or is not watched any more.
func endOf(rule, subject string, unwatched bool) bookChange {
	return func(b *incident.Book, at time.Time) []incident.Change {
		if unwatched {
			return b.Unwatched(rule, subject, at)
		}
		return b.Ended(rule, subject, at)
	}
}

// refreshOf takes what is known now, where that is nothing to tell.
func refreshOf(f rules.Finding) bookChange {
	return func(b *incident.Book, at time.Time) []incident.Change {
		b.Refresh(f, at)
		return nil
	}
}

// change has answer change the book, and reports whether it will.
func (p *pipeline) change(ctx context.Context, c bookChange) bool {
	select {
	case p.bookChanges <- c:
		return true
	case <-ctx.Done():
	case <-p.done:
	}
	return false
}

// endUnwatched ends what block lists said before the start, where they are not
// watched any more: it would stand for ever.
func (p *pipeline) endUnwatched(ctx context.Context) error {
	for _, rule := range []string{rules.Listed, rules.ListHealth, rules.Neighbours} {
		for _, in := range p.book.Standing(rule) {
			if !p.change(ctx, endOf(rule, in.Subject(), true)) {
				return nil
			}
		}
	}
	return nil
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
		known[subject] = inTrouble || h.State.Usable() || h.State == dnsbl.NoKey
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
