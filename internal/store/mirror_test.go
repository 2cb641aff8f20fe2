package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

func mirrored(id, subject string, action rules.Action) rules.Decision {
	return rules.Decision{ID: id, Subject: subject, Action: action, Time: agentsNow, Enforce: true}
}

func TestMirror(t *testing.T) {
	db, ctx := openAgents(t), t.Context()
	throttle, block := mirrored("d1", "alice@shop.test", rules.Throttle), mirrored("d2", "alice@shop.test", rules.Block)
	other := mirrored("d3", "bob@shop.test", rules.Hold)
	for i, step := range []struct {
		set     []rules.Decision
		lifted  []string
		inForce string
		active  string
	}{
		{[]rules.Decision{throttle}, nil, "d1", "d1"},
		{[]rules.Decision{throttle}, nil, "d1", "d1"},
		{[]rules.Decision{block, other}, nil, "d2 d3", "d1 d2 d3"},
		{[]rules.Decision{throttle}, nil, "d1", "d1 d3"}, // the block is over
		{nil, []string{"alice@shop.test", "nobody@shop.test"}, "", "d3"},
		{[]rules.Decision{block, throttle}, nil, "", "d3"}, // of a hub that has forgotten that it lifted them
	} {
		got, err := db.Mirror(ctx, step.set, step.lifted, agentsNow)
		if err != nil || ids(got) != step.inForce {
			t.Errorf("step %d: %q, %v", i, ids(got), err)
		}
		active, err := db.Active(ctx, agentsNow)
		if err != nil || ids(active) != step.active {
			t.Errorf("step %d: active %q, %v", i, ids(active), err)
		}
	}
	again := block
	again.Time = agentsNow.Add(time.Hour)
	if got, err := db.Mirror(ctx, []rules.Decision{again}, nil, agentsNow); err != nil || ids(got) != "d2" {
		t.Errorf("decided again: %q, %v", ids(got), err)
	}
	over, known, err := db.Ended(ctx, []string{"d1", "d3", "d9"}, agentsNow.Add(time.Hour))
	if err != nil || !over["d1"] || over["d3"] || !known["d3"] || known["d9"] {
		t.Errorf("over %v, known %v, %v", over, known, err)
	}
}

func ids(ds []rules.Decision) string {
	var all []string
	for _, d := range ds {
		all = append(all, d.ID)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
