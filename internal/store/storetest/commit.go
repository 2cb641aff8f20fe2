package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// contents is what the three loads return.
type contents struct {
	Positions map[string]string
	Messages  map[uint64]string
	Accounts  map[string]string
}

func load(t *testing.T, s Store) contents {
	t.Helper()
	c := contents{map[string]string{}, map[uint64]string{}, map[string]string{}}
	for source, body := range ok[map[string][]byte](t)(s.LoadPositions(t.Context())) {
		c.Positions[source] = string(body)
	}
	must(t, s.LoadMessages(t.Context(), func(m store.MessageState) error {
		c.Messages[m.Key] = string(m.State)
		return nil
	}))
	must(t, s.LoadAccounts(t.Context(), func(a store.AccountState) error {
		c.Accounts[a.Account] = string(a.State)
		return nil
	}))
	return c
}

func states(t *testing.T, s Store) {
	commit(t, s, store.Batch{
		Positions: map[string][]byte{"mail.log": []byte(`{"offset":10}`), "journal": []byte(`{"cursor":"x"}`)},
		Messages:  []store.MessageState{{Key: 1, State: []byte("one")}, {Key: math.MaxUint64, State: []byte("last")}},
		Accounts:  []store.AccountState{{Account: "alice@shop.test", State: []byte{0, 1, 0xff}}, {Account: "bob@shop.test", State: []byte("b")}},
	})
	same(t, "after the first batch", load(t, s), contents{
		Positions: map[string]string{"mail.log": `{"offset":10}`, "journal": `{"cursor":"x"}`},
		Messages:  map[uint64]string{1: "one", math.MaxUint64: "last"},
		Accounts:  map[string]string{"alice@shop.test": "\x00\x01\xff", "bob@shop.test": "b"},
	})

	commit(t, s, store.Batch{
		Positions: map[string][]byte{"mail.log": []byte(`{"offset":20}`), "journal": nil},
		Messages:  []store.MessageState{{Key: 1}, {Key: 2, State: []byte("two")}, {Key: 99}},
		Accounts:  []store.AccountState{{Account: "alice@shop.test", State: []byte("newer")}, {Account: "bob@shop.test", State: []byte{}}},
	})
	same(t, "after the second batch", load(t, s), contents{
		Positions: map[string]string{"mail.log": `{"offset":20}`},
		Messages:  map[uint64]string{2: "two", math.MaxUint64: "last"},
		Accounts:  map[string]string{"alice@shop.test": "newer"},
	})
}

// hostileKeys stores what a log may claim as an account.
func hostileKeys(t *testing.T, s Store) {
	want := map[string]string{}
	var b store.Batch
	for i, account := range []string{"", "a\x00b@shop.test", "\xff\xfe@shop.test", "x'; DROP TABLE accounts; --", "ünï@shop.test", strings.Repeat("x", 10000)} {
		state := fmt.Sprint("state ", i)
		b.Accounts = append(b.Accounts, store.AccountState{Account: account, State: []byte(state)})
		want[account] = state
	}
	commit(t, s, b)
	same(t, "accounts", load(t, s).Accounts, want)
}

// atomicity commits a batch that cannot be written for its last part.
func atomicity(t *testing.T, s Store) {
	good := finding("alice@shop.test", now, now, 12)
	bad := good
	bad.ID, bad.Score = "f-bad", math.NaN() // JSON has no such number
	fresh, err := s.Commit(t.Context(), store.Batch{
		Positions: map[string][]byte{"mail.log": []byte(`{"offset":10}`)},
		Messages:  []store.MessageState{{Key: 1, State: []byte("one")}},
		Accounts:  []store.AccountState{{Account: "alice@shop.test", State: []byte("a")}},
		Decisions: []rules.Decision{decision(good, rules.Block, 0)},
		Findings:  []rules.Finding{good, bad},
	})
	if err == nil || !strings.Contains(err.Error(), "f-bad") {
		t.Fatalf("got error %v, want one that names the finding", err)
	}
	if len(fresh) != 0 {
		t.Errorf("got new decisions %q from a batch that was not written", fresh)
	}
	same(t, "states", load(t, s), contents{map[string]string{}, map[uint64]string{}, map[string]string{}})
	same(t, "findings", len(ok[[]rules.Finding](t)(s.Findings(t.Context(), store.FindingFilter{}))), 0)
	same(t, "pending", len(ok[[]rules.Decision](t)(s.Pending(t.Context()))), 0)

	same(t, "new decisions of the next batch", commit(t, s, store.Batch{Decisions: []rules.Decision{decision(good, rules.Block, 0)}}), []string{good.ID + "/block"})
}

func loadStops(t *testing.T, s Store) {
	commit(t, s, store.Batch{
		Messages: []store.MessageState{{Key: 1, State: []byte("a")}, {Key: 2, State: []byte("b")}},
		Accounts: []store.AccountState{{Account: "a", State: []byte("a")}, {Account: "b", State: []byte("b")}},
	})
	enough := errors.New("enough")
	calls := 0
	if err := s.LoadMessages(t.Context(), func(store.MessageState) error { calls++; return enough }); !errors.Is(err, enough) {
		t.Errorf("messages: got %v, want the caller's error", err)
	}
	if err := s.LoadAccounts(t.Context(), func(store.AccountState) error { calls++; return enough }); !errors.Is(err, enough) {
		t.Errorf("accounts: got %v, want the caller's error", err)
	}
	same(t, "calls", calls, 2)
}

func findingsGrow(t *testing.T, s Store) {
	first := finding("alice@shop.test", now, now, 8)
	grown := finding("alice@shop.test", now, now.Add(time.Minute), 17)
	grown.Hard = "script origin"
	commit(t, s, store.Batch{Findings: []rules.Finding{first}})
	commit(t, s, store.Batch{Findings: []rules.Finding{grown}})
	same(t, "the grown finding", ok[rules.Finding](t)(s.Finding(t.Context(), first.ID)), grown)

	commit(t, s, store.Batch{Findings: []rules.Finding{first}}) // the log is read again
	same(t, "after an old sight", ok[rules.Finding](t)(s.Finding(t.Context(), first.ID)), grown)
	same(t, "all", ok[[]rules.Finding](t)(s.Findings(t.Context(), store.FindingFilter{})), []rules.Finding{grown})

	if _, err := s.Finding(t.Context(), "f-none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func findingsFilter(t *testing.T, s Store) {
	at := func(minutes int) time.Time { return now.Add(time.Duration(minutes) * time.Minute) }
	a1, a2 := finding("alice@shop.test", at(0), at(1), 8), finding("alice@shop.test", at(10), at(11), 9)
	bob := finding("bob@shop.test", at(5), at(6), 7)
	queue := finding("mx1", at(7), at(8), 6)
	queue.Rule = "queue-growth"
	undated := finding("mx2", at(7), time.Time{}, 1)
	commit(t, s, store.Batch{Findings: []rules.Finding{a2, undated, a1, queue, bob}})

	for _, test := range []struct {
		name   string
		filter store.FindingFilter
		want   []rules.Finding
	}{
		{"all", store.FindingFilter{}, []rules.Finding{a2, queue, bob, a1, undated}},
		{"subject", store.FindingFilter{Subject: "alice@shop.test"}, []rules.Finding{a2, a1}},
		{"rule", store.FindingFilter{Rule: "queue-growth"}, []rules.Finding{queue}},
		{"since", store.FindingFilter{Since: at(6)}, []rules.Finding{a2, queue, bob}},
		{"before", store.FindingFilter{Before: at(6)}, []rules.Finding{a1}},
		{"limit", store.FindingFilter{Limit: 2}, []rules.Finding{a2, queue}},
		{"none", store.FindingFilter{Subject: "carol@shop.test"}, nil},
	} {
		same(t, test.name, ok[[]rules.Finding](t)(s.Findings(t.Context(), test.filter)), test.want)
	}
}

func settings(t *testing.T, s Store) {
	if _, err := s.Setting(t.Context(), "key"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	made := bytes.Repeat([]byte{0, 0xff}, 8)
	same(t, "made once", ok[[]byte](t)(s.SettingOnce(t.Context(), "key", made)), made)
	same(t, "made again", ok[[]byte](t)(s.SettingOnce(t.Context(), "key", []byte("another"))), made)
	must(t, s.SetSetting(t.Context(), "other", []byte("1")))
	must(t, s.SetSetting(t.Context(), "other", []byte("2")))
	same(t, "other", ok[[]byte](t)(s.Setting(t.Context(), "other")), []byte("2"))
	same(t, "key", ok[[]byte](t)(s.Setting(t.Context(), "key")), made)
}

func check(t *testing.T, s Store) {
	small := ok[store.Health](t)(s.Check(t.Context()))
	commit(t, s, store.Batch{Accounts: []store.AccountState{{Account: "a", State: make([]byte, 1<<20)}}})
	large := ok[store.Health](t)(s.Check(t.Context()))
	if small.Size <= 0 || large.Size < small.Size+1<<20 {
		t.Errorf("got sizes %d and %d, want the second a megabyte larger", small.Size, large.Size)
	}
}

// concurrent has writers, readers and a load going at the same time.
func concurrent(t *testing.T, s Store) {
	const writers, rounds = 4, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				f := finding(fmt.Sprintf("user%d@shop.test", w), now.Add(time.Duration(i)*time.Hour), now, 9)
				fresh, err := s.Commit(t.Context(), store.Batch{
					Positions: map[string][]byte{fmt.Sprint("log", w): fmt.Append(nil, i)},
					Accounts:  []store.AccountState{{Account: f.Subject, State: fmt.Append(nil, i)}},
					Findings:  []rules.Finding{f}, Decisions: []rules.Decision{decision(f, rules.Block, 0)},
				})
				if err != nil || len(fresh) != 1 {
					t.Errorf("writer %d: got %q, %v", w, fresh, err)
				}
				if err := s.Outcome(t.Context(), rules.DecisionID(f.ID, rules.Block), now, true, ""); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				if _, err := s.Active(t.Context(), now); err != nil {
					t.Error(err)
				}
				if err := s.LoadAccounts(t.Context(), func(store.AccountState) error { return nil }); err != nil {
					t.Error(err)
				}
				if _, err := s.Prune(t.Context(), now, store.Ages{Accounts: 365 * 24 * time.Hour}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	same(t, "active", len(ok[[]rules.Decision](t)(s.Active(t.Context(), now))), writers*rounds)
	same(t, "pending", len(ok[[]rules.Decision](t)(s.Pending(t.Context()))), 0)
	for source, body := range load(t, s).Positions {
		same(t, source, body, fmt.Sprint(rounds-1))
	}
}
