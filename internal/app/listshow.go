package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
)

// listDesk shows the block lists to the API; nil if none are watched.
func (s *service) listDesk() web.Lists {
	if s.lists == nil {
		return nil
	}
	return s.lists
}

// Lists implements web.Lists.
func (l *listWatch) Lists(ctx context.Context) (web.ListsNow, error) {
	var now web.ListsNow
	err := l.do(ctx, func() {
		now = web.ListsNow{Distrust: l.distrust, Subjects: []web.ListSubject{}, Lists: []web.ListState{}}
		for _, s := range slices.SortedFunc(maps.Keys(l.sources), dnsbl.Subject.Compare) {
			now.Subjects = append(now.Subjects, l.show(s, l.sources[s]))
		}
		for _, h := range l.watch.Health() {
			text := h.Text
			if !h.Spent.IsZero() {
				text = strings.TrimPrefix(text+"; nothing new of it is seen before midnight (UTC): today's questions are used up", "; ")
			}
			now.Lists = append(now.Lists, web.ListState{
				List: h.List, Title: h.Title, State: h.State.String(), Since: h.Since, Text: text, Terms: h.Terms, Asked: h.AskedToday,
			})
		}
	})
	if err != nil {
		return web.ListsNow{}, err
	}
	slices.SortStableFunc(now.Subjects, func(a, b web.ListSubject) int {
		return cmp.Or(cmp.Compare(b.Exposure, a.Exposure), cmp.Compare(len(b.Unknown), len(a.Unknown)))
	})
	now.Watched = len(now.Subjects)
	return now, nil
}

// show is where one subject stands.
func (l *listWatch) show(s dnsbl.Subject, found string) web.ListSubject {
	all := l.watch.Listings(s)
	exposure := dnsbl.Exposure(all)
	shown := web.ListSubject{Subject: s.String(), Found: found, Exposure: round(exposure, 2), Level: dnsbl.LevelOf(exposure).String(), Listings: []web.Listing{}, Unknown: dnsbl.UnknownOn(all)}
	shown.Clean = len(cleanOn(all, shown.Unknown))
	for _, g := range all {
		if g.Checked.After(shown.Checked) {
			shown.Checked = g.Checked
		}
		if g.Stage == dnsbl.NotListed {
			continue
		}
		shown.Listings = append(shown.Listings, web.Listing{
			List: g.List, Stage: g.Stage.String(), Since: g.Since, Codes: g.Codes, Meaning: g.Meaning, Scope: g.Scope.String(), Reason: g.Reason, Delist: g.Delist,
		})
	}
	return shown
}

// ListHistory implements web.Lists.
func (l *listWatch) ListHistory(ctx context.Context, q web.ListQuery) ([]web.ListChange, error) {
	changes := []web.ListChange{}
	filter := store.ListingFilter{List: q.List, Limit: q.Limit}
	if q.Subject != "" {
		s, err := dnsbl.ParseSubject(q.Subject)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", web.ErrInvalid, err)
		}
		if filter.Subjects, err = l.namesOf(ctx, s); err != nil {
			return nil, err
		}
	}
	rows, err := l.p.store.Listings(ctx, filter)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		var e dnsbl.Event
		if err := json.Unmarshal(row.Body, &e); err != nil {
			return nil, fmt.Errorf("change %d on block lists: %w", row.ID, err)
		}
		c := web.ListChange{
			Time: e.Time, Kind: e.Kind.String(), List: e.List, Subject: row.Subject, Since: e.Since, Codes: e.Codes, Meaning: e.Meaning,
			Reason: e.Reason, Delist: e.Delist, Server: e.Server, Count: e.Count, Text: e.Text,
		}
		if e.Kind == dnsbl.ListState {
			c.State = e.State.String()
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// namesOf is a subject by name, and of a network the addresses too that are watched.
func (l *listWatch) namesOf(ctx context.Context, s dnsbl.Subject) ([]string, error) {
	names := []string{s.String()}
	if s.IsSingle() {
		return names, nil
	}
	var members []dnsbl.Subject
	if err := l.do(ctx, func() { members = l.watchedIn(s) }); err != nil {
		return nil, err
	}
	for _, m := range members {
		if len(names) < store.MaxSubjects && m != s {
			names = append(names, m.String())
		}
	}
	return names, nil
}

// cleanOn is the lists that say that a subject is not on them, in whole and in
// part: its listings, and the lists that cannot tell.
func cleanOn(all []dnsbl.Listing, unknown []string) map[string]bool {
	clean := map[string]bool{}
	for i := range all {
		clean[all[i].List] = !slices.Contains(unknown, all[i].List)
	}
	for i := range all {
		if g := &all[i]; g.Stage != dnsbl.NotListed {
			clean[g.List] = false
		}
	}
	maps.DeleteFunc(clean, func(_ string, is bool) bool { return !is })
	return clean
}
