package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

const (
	causeWithin   = 24 * time.Hour // before a listing, in which what led to it may have been stopped
	pointsStand   = 10             // points of an account with which no removal is asked for
	removalLooked = 100            // accounts with points that are looked at
)

// A stoppedAccount was stopped around the time of a listing.
type stoppedAccount struct {
	account mailq.Account
	rule    string    // that stopped it, or byOperator
	action  string    // what was done, for the list to read
	since   time.Time // when
	reset   time.Time // when its password was changed; zero: it was not
	free    time.Time // since when it may send again; zero: it may not
}

// ListRemoval implements web.Lists.
func (l *listWatch) ListRemoval(ctx context.Context, q web.ListQuery) (web.ListRemovals, error) {
	s, err := dnsbl.ParseSubject(q.Subject)
	if err != nil {
		return web.ListRemovals{}, fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	on, err := l.listed(ctx, s, q.List)
	if err != nil || len(on.listings) == 0 {
		return web.ListRemovals{Subject: s.String()}, err
	}
	first := slices.MinFunc(on.listings, func(a, b dnsbl.Listing) int { return a.Since.Compare(b.Since) }).Since
	rows, err := l.p.store.Decisions(ctx, store.DecisionFilter{Since: first.Add(-causeWithin), Limit: 1000})
	if err != nil {
		return web.ListRemovals{}, err
	}
	stopped, err := l.withoutReleased(ctx, stoppedBy(rows))
	if err != nil {
		return web.ListRemovals{}, err
	}
	now := time.Now()
	watched, top := false, []detector.Endangering(nil)
	if err := l.p.inObserve(ctx, func() {
		watched, top = l.p.judge.risk != nil, l.p.judge.risk.Top(now, removalLooked)
	}); err != nil {
		return web.ListRemovals{}, err
	}
	removals := web.ListRemovals{Subject: s.String(), NotYet: notYet(stopped, watched, top)}
	if ran := now.Sub(on.began); on.began.After(first) && ran < pointsUnknown {
		removals.NotYet = append(removals.NotYet, fmt.Sprintf("points are not kept over a restart, and the service was started %s ago: ask once it has run for %s",
			ran.Round(time.Minute), pointsUnknown))
	}
	switch {
	case !on.ours:
		removals.NotYet = []string{"it may not be yours: only replies of other servers name it"}
	case s.Kind() != dnsbl.IP4 && s.Kind() != dnsbl.IP6:
		removals.NotYet = []string{"what a domain is listed for is not watched here, so that nothing says that the cause is gone"}
	}
	for i := range on.listings {
		removals.Lists = append(removals.Lists, removalOf(&on.listings[i], s, stopped, len(removals.NotYet) == 0, now))
	}
	return removals, nil
}

// A listedNow is what lists have of an address, domain or network of ours.
type listedNow struct {
	listings []dnsbl.Listing // that are confirmed
	ours     bool            // surely
	began    time.Time       // the watch
}

// listed is where a subject is listed now, on that list or on all.
func (l *listWatch) listed(ctx context.Context, s dnsbl.Subject, list string) (listedNow, error) {
	var on listedNow
	watched := false
	err := l.do(ctx, func() {
		on.began = l.began
		for _, m := range l.watchedIn(s) {
			watched, on.ours = true, on.ours || l.isOurs(m)
			for _, g := range l.watch.Listings(m) {
				same := func(x dnsbl.Listing) bool { return x.Subject == g.Subject && x.List == g.List }
				if isOn(&g) && (list == "" || g.List == list) && !slices.ContainsFunc(on.listings, same) {
					on.listings = append(on.listings, g)
				}
			}
		}
	})
	if err != nil {
		return listedNow{}, err
	}
	if !watched {
		return listedNow{}, fmt.Errorf("%w: %s is not watched: see dnsbl.addresses and dnsbl.domains", web.ErrInvalid, s)
	}
	return on, nil
}

// watchedIn is what is watched of a subject: itself, or the addresses of a
// network, which an incident may be about.
func (l *listWatch) watchedIn(s dnsbl.Subject) (members []dnsbl.Subject) {
	for m := range l.sources {
		if m == s || m.In(s) {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, dnsbl.Subject.Compare)
	return members
}

// withoutReleased drops the accounts that a person has cleared since: they were
// no cause.
func (l *listWatch) withoutReleased(ctx context.Context, stopped []stoppedAccount) (others []stoppedAccount, err error) {
	for _, a := range stopped {
		var entries []store.Entry
		if !a.free.IsZero() {
			if entries, err = l.p.store.Journal(ctx, store.JournalFilter{Subject: string(a.account), Since: a.since, Limit: 1000}); err != nil {
				return nil, err
			}
		}
		if !slices.ContainsFunc(entries, func(e store.Entry) bool { return e.What == store.WhatRelease }) {
			others = append(others, a)
		}
	}
	return others, nil
}

// stoppedBy is the accounts that those decisions stopped, by when they were.
func stoppedBy(rows []store.DecisionRow) []stoppedAccount {
	all := map[string]stoppedAccount{}
	for _, row := range slices.Backward(rows) { // the oldest first
		if !row.Enforce || !row.OK || row.Action < rules.Hold {
			continue
		}
		a, ok := all[row.Subject]
		if !ok {
			a = stoppedAccount{account: mailq.Account(row.Subject), rule: row.Rule, since: row.Time}
		}
		a.action, a.free = "its mail is refused", row.EndedAt
		switch row.Action {
		case rules.Hold:
			a.action = "its mail is held"
		case rules.Reset:
			a.reset = row.OutcomeAt
		}
		all[row.Subject] = a
	}
	return slices.SortedFunc(maps.Values(all), func(a, b stoppedAccount) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.account, b.account))
	})
}

// notYet is why no list is to be asked now: lists are harder on who is listed
// again.
func notYet(stopped []stoppedAccount, watched bool, top []detector.Endangering) (why []string) {
	if len(stopped) == 0 {
		why = append(why, "no account was stopped here around that time, so that nothing says that the cause is gone")
	}
	for _, a := range stopped {
		if !a.free.IsZero() && a.reset.IsZero() {
			why = append(why, fmt.Sprintf("%s may send again since %s, and its password was not changed", a.account, a.free.UTC().Format(toTheMinute)))
		}
	}
	if !watched {
		why = append(why, "what endangers the addresses is not counted (dnsbl.risk), so that nothing says that the cause is gone")
	}
	for _, e := range top {
		if e.Points >= pointsStand {
			why = append(why, fmt.Sprintf("%.0f points are still held against %s: %s", e.Points, e.Account, e.Sign.Text))
		}
	}
	return why
}

// pointsUnknown is for how long after a start points of before may be missing that
// would count.
const pointsUnknown = 12 * time.Hour

// removalOf is how an entry is removed, with the text to ask for it where that
// may be done.
func removalOf(g *dnsbl.Listing, s dnsbl.Subject, stopped []stoppedAccount, mayAsk bool, now time.Time) web.ListRemoval {
	r := web.ListRemoval{List: g.List, Title: g.Title, Since: g.Since, Page: g.Delist, Notes: g.Notes}
	switch {
	case r.Page == "":
		r.Wait = "it takes no requests, or none that are free: wait until the entry ends by itself, and never pay"
	case g.Policy:
		r.Wait = "it is about how the address is set up, not about spam: mend that, then go to the page"
	case mayAsk:
		r.Text = removalText(g, s, stopped, now)
	}
	return r
}

// removalText is for a person to paste. It says what is known, and names no
// customer.
func removalText(g *dnsbl.Listing, s dnsbl.Subject, stopped []stoppedAccount, now time.Time) string {
	var b strings.Builder
	at := func(t time.Time) string { return t.UTC().Format(toTheMinute) }
	fmt.Fprintf(&b, "%s sends our customers' mail. %s has it since %s: %s (%s).\n\n", s, g.Title, at(g.Since), g.Meaning, strings.Join(g.Codes, ", "))
	fmt.Fprintf(&b, "Around that time we stopped %d account%s:\n", len(stopped), plural(len(stopped)))
	for _, a := range stopped {
		fmt.Fprintf(&b, "- %s %s: stopped at %s", kindWords(a.account), causeWords[a.rule], at(a.since))
		if a.free.IsZero() {
			fmt.Fprintf(&b, "; %s", a.action)
		}
		if !a.reset.IsZero() {
			fmt.Fprintf(&b, "; password changed at %s", at(a.reset))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\nAt %s our watch over the mail logs holds nothing of weight against any account.\nPlease remove the entry.\n", at(now))
	return b.String()
}

// causeWords is what an account did that a rule stopped.
var causeWords = map[string]string{
	byOperator:            "that our staff stopped",
	rules.HijackedMailbox: "that looked hijacked",
	rules.AbusedScript:    "that looked abused",
	rules.ListingRisk:     "whose mail hit spam traps or was called spam",
	rules.QueueGrowth:     "that filled the queue",
}

func kindWords(a mailq.Account) string {
	switch a.Kind() {
	case mailq.KindLogin:
		return "a mailbox"
	case mailq.KindScript:
		return "a web script"
	case mailq.KindForward:
		return "a forwarding mailbox"
	}
	return "an account"
}
