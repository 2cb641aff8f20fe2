package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
)

// due names the messages to be tried at a time.
func due(t *testing.T, s Store, at time.Time, limit int) []string {
	t.Helper()
	names := []string{}
	for _, row := range ok[[]store.OutboxRow](t)(s.Due(t.Context(), at, limit)) {
		names = append(names, row.ID)
	}
	return names
}

func outboxOnce(t *testing.T, s Store) {
	commit(t, s, store.Batch{Outbox: []store.OutboxRow{
		{ID: "m-1", Channel: "mail", Body: []byte(`{"subject":"one"}`)},
		{ID: "m-2", Channel: "webhook", Body: []byte(`{}`), NotBefore: now.Add(time.Minute)},
	}})
	commit(t, s, store.Batch{Outbox: []store.OutboxRow{{ID: "m-1", Channel: "mail", Body: []byte(`{"subject":"again"}`)}}})

	same(t, "due now", ok[[]store.OutboxRow](t)(s.Due(t.Context(), now, 10)), []store.OutboxRow{
		{ID: "m-1", Channel: "mail", Body: []byte(`{"subject":"one"}`), NotBefore: now, Created: now},
	})
	same(t, "due later", due(t, s, now.Add(time.Minute), 10), []string{"m-1", "m-2"})
	same(t, "limited", due(t, s, now.Add(time.Minute), 1), []string{"m-1"})

	must(t, s.Sent(t.Context(), "m-1", now))
	same(t, "sent", due(t, s, now.Add(time.Minute), 10), []string{"m-2"})
	commit(t, s, store.Batch{Outbox: []store.OutboxRow{{ID: "m-1", Channel: "mail", Body: []byte(`{}`)}}})
	same(t, "made again", due(t, s, now.Add(time.Minute), 10), []string{"m-2"})
	for what, err := range map[string]error{
		"sent":    s.Sent(t.Context(), "m-9", now),
		"revived": s.Revive(t.Context(), "m-2", now),
	} {
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", what, err)
		}
	}
}

func outboxFailures(t *testing.T, s Store) {
	commit(t, s, store.Batch{Outbox: []store.OutboxRow{{ID: "m-1", Channel: "mail", Body: []byte(`{}`)}}})
	fail := func(at time.Time, text string) bool {
		t.Helper()
		return ok[bool](t)(s.Failed(t.Context(), store.Failure{ID: "m-1", At: at, Error: text, Next: at.Add(time.Minute), MaxAttempts: 3}))
	}
	row := store.OutboxRow{ID: "m-1", Channel: "mail", Body: []byte(`{}`), Created: now, NotBefore: now.Add(time.Minute), Attempts: 1, Error: "refused"}

	same(t, "first failure is the last", fail(now, "refused"), false)
	same(t, "too early", due(t, s, now, 10), []string{})
	same(t, "tried again", ok[[]store.OutboxRow](t)(s.Due(t.Context(), now.Add(time.Minute), 10)), []store.OutboxRow{row})
	left := store.Failure{ID: "m-1", At: now, Error: "refused", Next: now.Add(time.Minute), MaxAttempts: 1, Untried: true}
	same(t, "left alone is the last", ok[bool](t)(s.Failed(t.Context(), left)), false)
	same(t, "left alone", ok[[]store.OutboxRow](t)(s.Due(t.Context(), now.Add(time.Minute), 10)), []store.OutboxRow{row})
	same(t, "second failure is the last", fail(now.Add(time.Minute), "refused"), false)
	same(t, "third failure is the last", fail(now.Add(2*time.Minute), "refused for good"), true)
	same(t, "given up", due(t, s, now.Add(time.Hour), 10), []string{})

	row.Attempts, row.Error, row.NotBefore = 3, "refused for good", now.Add(3*time.Minute)
	same(t, "dead", ok[[]store.OutboxRow](t)(s.Dead(t.Context(), 10)), []store.OutboxRow{row})
	must(t, s.Revive(t.Context(), "m-1", now.Add(time.Hour)))
	same(t, "revived", due(t, s, now.Add(time.Hour), 10), []string{"m-1"})
	same(t, "dead no more", len(ok[[]store.OutboxRow](t)(s.Dead(t.Context(), 10))), 0)
	same(t, "attempts anew", fail(now, "refused"), false)

	_, err := s.Failed(t.Context(), store.Failure{ID: "m-9", At: now, Next: now})
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func backlog(t *testing.T, s Store) {
	same(t, "nothing", ok[map[string]store.Backlog](t)(s.Backlog(t.Context(), now)), map[string]store.Backlog{})
	commit(t, s, store.Batch{Outbox: []store.OutboxRow{
		{ID: "m-1", Channel: "mail", Body: []byte(`{}`)}, {ID: "m-2", Channel: "mail", Body: []byte(`{}`)},
		{ID: "w-1", Channel: "webhook", Body: []byte(`{}`)}, {ID: "s-1", Channel: "sms", Body: []byte(`{}`)},
	}})
	commit(t, s, store.Batch{Time: now.Add(time.Minute), Outbox: []store.OutboxRow{
		{ID: "m-3", Channel: "mail", Body: []byte(`{}`), NotBefore: now.Add(time.Hour)},
	}})
	must(t, s.Sent(t.Context(), "m-1", now))
	must(t, s.Sent(t.Context(), "s-1", now))
	ok[bool](t)(s.Failed(t.Context(), store.Failure{ID: "w-1", At: now, Next: now, MaxAttempts: 1}))
	same(t, "backlog", ok[map[string]store.Backlog](t)(s.Backlog(t.Context(), now.Add(time.Minute))), map[string]store.Backlog{
		"mail":    {Waiting: 2, Due: 1, Oldest: now},
		"webhook": {Dead: 1},
	})
}
