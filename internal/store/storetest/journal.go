package storetest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

const alice, bob = "alice@shop.test", "bob@shop.test"

func decisionOnce(t *testing.T, s Store) {
	f := finding(alice, now, now, 12)
	hold, block := decision(f, rules.Hold, time.Hour), decision(f, rules.Block, 0)
	same(t, "the first time", commit(t, s, store.Batch{Decisions: []rules.Decision{hold}}), []string{hold.ID})

	again := hold
	again.Time, again.Why = now.Add(time.Minute), "read again"
	same(t, "the second time", commit(t, s, store.Batch{Decisions: []rules.Decision{again, block, block}}), []string{block.ID})
	same(t, "pending", ok[[]rules.Decision](t)(s.Pending(t.Context())), []rules.Decision{block, hold})
}

func heldBack(t *testing.T, s Store) {
	f := finding(alice, now, now, 12)
	proposed := decision(f, rules.Block, 0)
	proposed.Enforce, proposed.HeldBack = false, "backlog"
	observed := decision(f, rules.Observe, 0) // enforced or not, nothing has to be done
	same(t, "proposals are new", commit(t, s, store.Batch{Decisions: []rules.Decision{proposed, observed}}), []string{proposed.ID, observed.ID})
	same(t, "proposals known", len(commit(t, s, store.Batch{Decisions: []rules.Decision{proposed, observed}})), 0)
	same(t, "proposals pending", len(ok[[]rules.Decision](t)(s.Pending(t.Context()))), 0)
	same(t, "proposals active", len(ok[[]rules.Decision](t)(s.Active(t.Context(), now))), 0)

	enforced := decision(finding(alice, now, now.Add(time.Minute), 20), rules.Block, 0)
	same(t, "now to be carried out", commit(t, s, store.Batch{Decisions: []rules.Decision{enforced}}), []string{proposed.ID})
	same(t, "pending", ok[[]rules.Decision](t)(s.Pending(t.Context())), []rules.Decision{enforced})
	same(t, "held back again", len(commit(t, s, store.Batch{Decisions: []rules.Decision{proposed}})), 0)
	same(t, "still pending", ids(ok[[]rules.Decision](t)(s.Pending(t.Context()))), []string{enforced.ID})

	other := decision(finding(bob, now, now, 12), rules.Block, 0)
	other.Enforce = false
	commit(t, s, store.Batch{Decisions: []rules.Decision{other}})
	same(t, "nothing to undo", len(ok[[]rules.Decision](t)(s.EndDecisions(t.Context(), bob, now, "carol", "known sender"))), 0)
	other.Enforce = true
	same(t, "a proposal that a person ended", len(commit(t, s, store.Batch{Decisions: []rules.Decision{other}})), 0)
}

func madeAgain(t *testing.T, s Store) {
	f := finding(alice, now, now, 12)
	first := decision(f, rules.Block, time.Hour)
	commit(t, s, store.Batch{Decisions: []rules.Decision{first}})
	must(t, s.Outcome(t.Context(), first.ID, now, true, ""))

	early := first
	early.Time = now.Add(59 * time.Minute)
	same(t, "before its time is over", len(commit(t, s, store.Batch{Decisions: []rules.Decision{early}})), 0)

	later := decision(f, rules.Block, time.Hour)
	later.Time, later.Until = first.Until, first.Until.Add(time.Hour)
	same(t, "after", commit(t, s, store.Batch{Decisions: []rules.Decision{later}}), []string{first.ID})
	same(t, "pending", ok[[]rules.Decision](t)(s.Pending(t.Context())), []rules.Decision{later})

	same(t, "over", ids(ok[[]rules.Decision](t)(s.Expire(t.Context(), later.Until))), []string{first.ID})
	third := later
	third.Time, third.Until = later.Until, later.Until.Add(time.Hour)
	same(t, "after it expired", commit(t, s, store.Batch{Decisions: []rules.Decision{third}}), []string{first.ID})

	ok[[]rules.Decision](t)(s.EndDecisions(t.Context(), alice, third.Time.Add(time.Minute), "carol", "ours"))
	fourth := third
	fourth.Time, fourth.Until = third.Until, third.Until.Add(time.Hour)
	same(t, "after a person ended it", len(commit(t, s, store.Batch{Decisions: []rules.Decision{fourth}})), 0)
}

func pending(t *testing.T, s Store) {
	a, b := decision(finding(alice, now, now, 12), rules.Block, 0), decision(finding(bob, now, now.Add(time.Minute), 12), rules.Hold, time.Hour)
	commit(t, s, store.Batch{Decisions: []rules.Decision{b, a}})
	same(t, "both", ok[[]rules.Decision](t)(s.Pending(t.Context())), []rules.Decision{a, b})

	must(t, s.Outcome(t.Context(), a.ID, now, true, "in the gate and the table"))
	must(t, s.Outcome(t.Context(), b.ID, now, false, strings.Repeat("é", 5000)))
	same(t, "none", len(ok[[]rules.Decision](t)(s.Pending(t.Context()))), 0)
	if err := s.Outcome(t.Context(), "f-none/block", now, true, ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}

	rows := ok[[]store.DecisionRow](t)(s.Decisions(t.Context(), store.DecisionFilter{}))
	same(t, "rows", rows, []store.DecisionRow{
		{Decision: b, OutcomeAt: now, Outcome: strings.Repeat("é", 512)},
		{Decision: a, OutcomeAt: now, OK: true, Outcome: "in the gate and the table"},
	})
}

func active(t *testing.T, s Store) {
	limited, failed := decision(finding(alice, now, now, 12), rules.Throttle, time.Hour), decision(finding(bob, now, now.Add(time.Second), 12), rules.Block, 0)
	commit(t, s, store.Batch{Decisions: []rules.Decision{limited, failed}})
	must(t, s.Outcome(t.Context(), failed.ID, now, false, "no table"))

	list := func(at time.Time) []string {
		t.Helper()
		return ids(ok[[]rules.Decision](t)(s.Active(t.Context(), at)))
	}
	expire := func(at time.Time) []string {
		t.Helper()
		return ids(ok[[]rules.Decision](t)(s.Expire(t.Context(), at)))
	}
	same(t, "both", list(now.Add(time.Hour-1)), []string{limited.ID, failed.ID})
	same(t, "its time is over", list(now.Add(time.Hour)), []string{failed.ID})
	same(t, "expired too early", expire(now.Add(time.Hour-1)), []string{})
	same(t, "expired", expire(now.Add(time.Hour)), []string{limited.ID})
	same(t, "expired again", expire(now.Add(2*time.Hour)), []string{})
	same(t, "left", list(now), []string{failed.ID})
	same(t, "not to be done any more", ids(ok[[]rules.Decision](t)(s.Pending(t.Context()))), []string{})
}

func endDecisions(t *testing.T, s Store) {
	hold, block := decision(finding(alice, now, now, 12), rules.Hold, 0), decision(finding(alice, now, now, 12), rules.Block, 0)
	other := decision(finding(bob, now, now, 12), rules.Block, 0)
	commit(t, s, store.Batch{Decisions: []rules.Decision{hold, block, other}})

	ended := ok[[]rules.Decision](t)(s.EndDecisions(t.Context(), alice, now.Add(time.Minute), "carol", "customer called"))
	same(t, "ended", len(ended), 2)
	same(t, "ended twice", len(ok[[]rules.Decision](t)(s.EndDecisions(t.Context(), alice, now, "carol", "again"))), 0)
	same(t, "active", ids(ok[[]rules.Decision](t)(s.Active(t.Context(), now))), []string{other.ID})
	same(t, "pending", ids(ok[[]rules.Decision](t)(s.Pending(t.Context()))), []string{other.ID})
	same(t, "the same decision again", len(commit(t, s, store.Batch{Decisions: []rules.Decision{hold, block}})), 0)

	rows := ok[[]store.DecisionRow](t)(s.Decisions(t.Context(), store.DecisionFilter{Finding: block.Finding, Limit: 1}))
	same(t, "row", rows, []store.DecisionRow{{Decision: block, EndedAt: now.Add(time.Minute), EndedBy: "carol", EndedWhy: "customer called"}})
}

func journal(t *testing.T, s Store) {
	f := finding(alice, now, now, 12)
	throttle, block := decision(f, rules.Throttle, 0), decision(f, rules.Block, time.Hour)
	throttle.Enforce, throttle.HeldBack = false, "mode is observe"
	at := func(minutes int) time.Time { return now.Add(time.Duration(minutes) * time.Minute) }
	commit(t, s, store.Batch{Decisions: []rules.Decision{throttle, block}})
	must(t, s.Outcome(t.Context(), block.ID, at(1), false, "postmap: disk full"))
	must(t, s.Outcome(t.Context(), block.ID, at(2), false, "postmap: disk full"))
	must(t, s.Outcome(t.Context(), block.ID, at(3), true, ""))
	ok[[]rules.Decision](t)(s.EndDecisions(t.Context(), alice, at(4), "carol", "customer called"))
	must(t, s.Note(t.Context(), store.Entry{Time: at(5), What: "undone", Who: "vedetta", Subject: alice, Outcome: "done"}))

	entries := ok[[]store.Entry](t)(s.Journal(t.Context(), store.JournalFilter{}))
	for i := range entries {
		if i > 0 && entries[i].Seq >= entries[i-1].Seq {
			t.Errorf("entry %d: Seq %d does not fall below %d", i, entries[i].Seq, entries[i-1].Seq)
		}
	}
	for i := range entries {
		entries[i].Seq = 0
	}
	same(t, "journal", entries, []store.Entry{
		{Time: at(5), What: "undone", Who: "vedetta", Subject: alice, Outcome: "done"},
		{Time: at(4), What: store.WhatEnded, Who: "carol", Subject: alice, Action: "block", Decision: block.ID, Why: "customer called"},
		{Time: at(3), What: store.WhatOutcome, Who: "vedetta", Subject: alice, Action: "block", Decision: block.ID, Outcome: "done"},
		{Time: at(1), What: store.WhatOutcome, Who: "vedetta", Subject: alice, Action: "block", Decision: block.ID, Outcome: "failed: postmap: disk full"},
		{Time: now, What: store.WhatIntent, Who: "hijacked-mailbox", Subject: alice, Action: "block", Decision: block.ID, Why: "score 17.2"},
		{Time: now, What: store.WhatProposal, Who: "hijacked-mailbox", Subject: alice, Action: "throttle", Decision: throttle.ID, Why: "score 17.2", Outcome: "mode is observe"},
	})
}

func journalFilter(t *testing.T, s Store) {
	for i := range 5 {
		subject := alice
		if i%2 == 1 {
			subject = bob
		}
		must(t, s.Note(t.Context(), store.Entry{Time: now.Add(time.Duration(i) * time.Minute), What: "note", Who: "carol", Subject: subject}))
	}
	minutes := func(filter store.JournalFilter) []int {
		t.Helper()
		got := []int{}
		for _, e := range ok[[]store.Entry](t)(s.Journal(t.Context(), filter)) {
			got = append(got, int(e.Time.Sub(now)/time.Minute))
		}
		return got
	}
	same(t, "subject", minutes(store.JournalFilter{Subject: bob}), []int{3, 1})
	same(t, "since", minutes(store.JournalFilter{Since: now.Add(3 * time.Minute)}), []int{4, 3})
	same(t, "first page", minutes(store.JournalFilter{Limit: 2}), []int{4, 3})
	page := ok[[]store.Entry](t)(s.Journal(t.Context(), store.JournalFilter{Limit: 2}))
	same(t, "second page", minutes(store.JournalFilter{Limit: 2, Before: page[1].Seq}), []int{2, 1})
}

func release(t *testing.T, s Store) {
	block, other := decision(finding(alice, now, now, 12), rules.Block, 0), decision(finding(bob, now, now, 12), rules.Block, 0)
	commit(t, s, store.Batch{Decisions: []rules.Decision{block, other}})

	r := store.Release{Key: "r-1", Subject: alice, At: now.Add(time.Minute), By: "carol", Why: "newsletter of the customer"}
	same(t, "ended", ids(ok[[]rules.Decision](t)(s.Release(t.Context(), r))), []string{block.ID})
	same(t, "again", ids(ok[[]rules.Decision](t)(s.Release(t.Context(), r))), []string{})
	same(t, "to be learned", ok[[]store.Release](t)(s.PendingReleases(t.Context())), []store.Release{r})
	same(t, "active", ids(ok[[]rules.Decision](t)(s.Active(t.Context(), now))), []string{other.ID})

	var words []string
	for _, e := range ok[[]store.Entry](t)(s.Journal(t.Context(), store.JournalFilter{Subject: alice})) {
		words = append(words, e.What+" by "+e.Who)
	}
	same(t, "journal", words, []string{"ended by carol", "release by carol", "intent by hijacked-mailbox"})

	commit(t, s, store.Batch{Accounts: []store.AccountState{{Account: alice, State: []byte("taught")}}, Learned: []string{r.Key, "r-unknown"}})
	same(t, "learned", len(ok[[]store.Release](t)(s.PendingReleases(t.Context()))), 0)
	ok[[]rules.Decision](t)(s.Release(t.Context(), r))
	same(t, "learned once", len(ok[[]store.Release](t)(s.PendingReleases(t.Context()))), 0)
}

func incidents(t *testing.T, s Store) {
	row := func(id string, open bool, minutes int, body string) store.IncidentRow {
		return store.IncidentRow{ID: id, Open: open, Updated: now.Add(time.Duration(minutes) * time.Minute), Body: []byte(body)}
	}
	commit(t, s, store.Batch{Incidents: []store.IncidentRow{row("i-2", true, 2, `{"n":2}`), row("i-1", true, 1, `{"n":1}`)}})
	same(t, "open", ok[[]store.IncidentRow](t)(s.OpenIncidents(t.Context())), []store.IncidentRow{row("i-1", true, 1, `{"n":1}`), row("i-2", true, 2, `{"n":2}`)})

	commit(t, s, store.Batch{Incidents: []store.IncidentRow{row("i-1", false, 5, `{"n":1,"closed":true}`)}})
	same(t, "still open", ok[[]store.IncidentRow](t)(s.OpenIncidents(t.Context())), []store.IncidentRow{row("i-2", true, 2, `{"n":2}`)})
	same(t, "all", ok[[]store.IncidentRow](t)(s.Incidents(t.Context(), time.Time{}, 0)), []store.IncidentRow{row("i-1", false, 5, `{"n":1,"closed":true}`), row("i-2", true, 2, `{"n":2}`)})
	same(t, "next page", ok[[]store.IncidentRow](t)(s.Incidents(t.Context(), now.Add(5*time.Minute), 1)), []store.IncidentRow{row("i-2", true, 2, `{"n":2}`)})
	same(t, "one", ok[store.IncidentRow](t)(s.Incident(t.Context(), "i-1")), row("i-1", false, 5, `{"n":1,"closed":true}`))
	if _, err := s.Incident(t.Context(), "i-9"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}
