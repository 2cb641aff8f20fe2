package dnsbl

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

// A deaf resolver reaches no authoritative server.
type deaf struct{ *world }

func (deaf) Confirm(context.Context, string, string, Type) Answer {
	return Answer{Status: Unreachable}
}

// A barred resolver asks authoritative servers that say the same whatever it
// asks.
type barred struct {
	*world
	said Answer
}

func (b barred) Confirm(context.Context, string, string, Type) Answer { return b.said }

// A remembering resolver says for an hour of what was not there that it still is
// not, as a cache does.
type remembering struct {
	*world
	until map[string]time.Time
}

func (r remembering) Lookup(ctx context.Context, name string, t Type) Answer {
	if r.now.Before(r.until[name]) {
		return Answer{Status: NXDomain, TTL: r.until[name].Sub(r.now)}
	}
	a := r.world.Lookup(ctx, name, t)
	if a.Status == NXDomain {
		a.TTL = time.Hour
		r.until[name] = r.now.Add(a.TTL)
	}
	return a
}

// An excluded resolver is served rightly, while the list's own servers tell this
// host that everything is listed.
type excluded struct{ *world }

func (excluded) Confirm(context.Context, string, string, Type) Answer { return found("127.0.0.2") }

// runThrough is world.run with a resolver of its own.
func runThrough(t testing.TB, r Resolver, w *world, watch *Watch, until time.Time) (events []Event) {
	t.Helper()
	for next := watch.Next(); !next.After(until); next = watch.Next() {
		w.now = later(w.now, next)
		tasks, more := watch.Due(w.now, 64)
		events = append(events, more...)
		for _, task := range tasks {
			events = append(events, watch.Take(w.now, task, task.Ask(t.Context(), r))...)
		}
	}
	return events
}

// restart returns a watch over the lists that goes on where another ended.
func restart(t testing.TB, w *world, before *Watch, history []Event, lists ...string) *Watch {
	t.Helper()
	data, err := json.Marshal(before.Memories())
	if err != nil {
		t.Fatal(err)
	}
	var memories []Memory
	if err := json.Unmarshal(data, &memories); err != nil {
		t.Fatal(err)
	}
	_, watch, _ := watching(t, lists...)
	watch.RestoreLists(w.now, w.now, memories)
	watch.Restore(roundTrip(t, history))
	return watch
}

// roundTrip writes events as JSON and reads them back, as a store does.
func roundTrip(t testing.TB, events []Event) (read []Event) {
	t.Helper()
	data, err := json.Marshal(events)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	return read
}
