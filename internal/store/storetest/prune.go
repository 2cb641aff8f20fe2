package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

const day = 24 * time.Hour

// everything keeps all kinds for ten days.
var everything = store.Ages{Findings: 10 * day, Journal: 10 * day, Incidents: 10 * day, Outbox: 10 * day, Accounts: 10 * day, Messages: 10 * day, Sent: 10 * day}

// fill writes one of each kind, made at a time and done with at once.
func fill(t *testing.T, s Store, name string, at time.Time) {
	t.Helper()
	f := finding(name, at, at, 12)
	d := decision(f, rules.Block, 0)
	commit(t, s, store.Batch{
		Time:     at,
		Findings: []rules.Finding{f}, Decisions: []rules.Decision{d},
		Messages:  []store.MessageState{{Key: uint64(at.UnixNano()), State: []byte("m")}},
		Accounts:  []store.AccountState{{Account: name, State: []byte("a")}},
		Sent:      [][]byte{[]byte("sent by " + name), []byte("and more")},
		Incidents: []store.IncidentRow{{ID: "i-" + name, Body: []byte(`{}`), Updated: at}},
		Outbox:    []store.OutboxRow{{ID: "m-" + name, Channel: "mail", Body: []byte(`{}`)}},
	})
	must(t, s.Sent(t.Context(), "m-"+name, at))
	ok[[]rules.Decision](t)(s.Release(t.Context(), store.Release{Key: "r-" + name, Subject: name, At: at, By: "carol"}))
	commit(t, s, store.Batch{Time: at, Learned: []string{"r-" + name}})
}

func prune(t *testing.T, s Store) {
	old := now.Add(-11 * day)
	fill(t, s, "old@shop.test", old)
	fill(t, s, "new@shop.test", now.Add(-9*day))

	standing := finding("standing@shop.test", old, old, 12)
	block := decision(standing, rules.Block, 0)
	commit(t, s, store.Batch{
		Time: old, Findings: []rules.Finding{standing}, Decisions: []rules.Decision{block},
		Positions: map[string][]byte{"mail.log": []byte(`{}`)},
		Incidents: []store.IncidentRow{{ID: "i-open", Body: []byte(`{}`), Open: true, Updated: old}},
		Outbox:    []store.OutboxRow{{ID: "m-waiting", Channel: "mail", Body: []byte(`{}`)}},
	})
	ok[[]rules.Decision](t)(s.Release(t.Context(), store.Release{Key: "r-pending", Subject: "pending@shop.test", At: now, By: "carol"}))
	must(t, s.SetSetting(t.Context(), "key", []byte("k")))

	same(t, "kept for ever", ok[store.Pruned](t)(s.Prune(t.Context(), now, store.Ages{})), store.Pruned{})
	same(t, "pruned", ok[store.Pruned](t)(s.Prune(t.Context(), now, everything)),
		store.Pruned{Findings: 1, Decisions: 1, Journal: 3, Releases: 1, Incidents: 1, Outbox: 1, Accounts: 1, Messages: 1, Sent: 2})
	same(t, "pruned again", ok[store.Pruned](t)(s.Prune(t.Context(), now, everything)), store.Pruned{})

	same(t, "accounts", load(t, s).Accounts, map[string]string{"new@shop.test": "a"})
	same(t, "sent", sent(t, s), []string{"sent by new@shop.test", "and more"})
	same(t, "positions", load(t, s).Positions, map[string]string{"mail.log": `{}`})
	same(t, "the block", ids(ok[[]rules.Decision](t)(s.Active(t.Context(), now))), []string{block.ID})
	same(t, "its finding", ok[rules.Finding](t)(s.Finding(t.Context(), standing.ID)), standing)
	same(t, "its journal", len(ok[[]store.Entry](t)(s.Journal(t.Context(), store.JournalFilter{Subject: standing.Subject}))), 1)
	same(t, "the open incident", len(ok[[]store.IncidentRow](t)(s.OpenIncidents(t.Context()))), 1)
	same(t, "the waiting message", due(t, s, now, 10), []string{"m-waiting"})
	same(t, "the release to be learned", len(ok[[]store.Release](t)(s.PendingReleases(t.Context()))), 1)
}

// sent is what is written about messages that left.
func sent(t *testing.T, s Store) (all []string) {
	t.Helper()
	must(t, s.LoadSent(t.Context(), func(state []byte) error {
		all = append(all, string(state))
		return nil
	}))
	return all
}

// pruneMany has more rows than one transaction removes, old and new mixed.
func pruneMany(t *testing.T, s Store) {
	const n = 6000
	old, young := store.Batch{Time: now.Add(-11 * day)}, store.Batch{Time: now}
	for i := range n {
		b := &old
		if i%3 == 0 {
			b = &young
		}
		account := fmt.Sprintf("user%d@shop.test", i)
		b.Accounts = append(b.Accounts, store.AccountState{Account: account, State: []byte("a")})
		b.Messages = append(b.Messages, store.MessageState{Key: uint64(i) * 0x9e3779b97f4a7c15, State: []byte("m")})
		if i%10 == 0 {
			b.Findings = append(b.Findings, finding(account, b.Time, b.Time, 7))
		}
	}
	commit(t, s, old)
	commit(t, s, young)
	same(t, "pruned", ok[store.Pruned](t)(s.Prune(t.Context(), now, everything)), store.Pruned{Findings: n / 10 * 2 / 3, Accounts: n * 2 / 3, Messages: n * 2 / 3})
	left := load(t, s)
	same(t, "accounts left", len(left.Accounts), n/3)
	same(t, "messages left", len(left.Messages), n/3)
}
