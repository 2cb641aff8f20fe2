package gate

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

var noon = time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)

func decision(action rules.Action, subject string) rules.Decision {
	return rules.Decision{Subject: subject, Action: action, Enforce: true}
}

func TestTableAnswers(t *testing.T) {
	ended := decision(rules.Block, "alice@shop.test")
	ended.Until = noon
	running := decision(rules.Block, "alice@shop.test")
	running.Until = noon.Add(time.Nanosecond)
	observed := decision(rules.Block, "alice@shop.test")
	observed.Enforce = false
	for _, test := range []struct {
		name string
		set  []rules.Decision
		want Answer
	}{
		{"nobody decided", nil, Dunno},
		{"block", []rules.Decision{decision(rules.Block, "alice@shop.test")}, Reject},
		{"reset is blocked too", []rules.Decision{decision(rules.Reset, "alice@shop.test")}, Reject},
		{"hold", []rules.Decision{decision(rules.Hold, "alice@shop.test")}, Hold},
		{"throttle", []rules.Decision{decision(rules.Throttle, "alice@shop.test")}, Hold},
		{"observe", []rules.Decision{decision(rules.Observe, "alice@shop.test")}, Dunno},
		{"not enforced", []rules.Decision{observed}, Dunno},
		{"not enforced leaves what is", []rules.Decision{decision(rules.Hold, "alice@shop.test"), observed}, Hold},
		{"another account", []rules.Decision{decision(rules.Block, "bob@shop.test")}, Dunno},
		{"no subject", []rules.Decision{decision(rules.Block, "")}, Dunno},
		{"ended now", []rules.Decision{ended}, Dunno},
		{"ends in a moment", []rules.Decision{running}, Reject},
		{"the later one counts", []rules.Decision{decision(rules.Block, "alice@shop.test"), decision(rules.Hold, "alice@shop.test")}, Hold},
	} {
		t.Run(test.name, func(t *testing.T) {
			var table Table
			for _, d := range test.set {
				table.Set(d, "text")
			}
			if got := table.Lookup("alice@shop.test", noon).Answer(); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			table.Remove("alice@shop.test")
			table.Remove("alice@shop.test")
			if got := table.Lookup("alice@shop.test", noon).Answer(); got != Dunno {
				t.Errorf("after Remove: got %v, want dunno", got)
			}
		})
	}
}

func TestThrottleTakesFromTheAllowance(t *testing.T) {
	table := Table{Allowance: func(subject string) Allowance {
		if subject != "alice@shop.test" {
			return Allowance{}
		}
		return Allowance{Every: time.Minute, Burst: 3}
	}}
	table.Set(decision(rules.Throttle, "alice@shop.test"), "slowly")
	take := func(n int, after time.Duration) bool {
		now := noon.Add(after)
		return table.Lookup("alice@shop.test", now).Take(n, now)
	}
	got := []bool{
		take(4, 0), // more than can ever be saved up
		take(3, 0),
		take(1, 0),
		take(1, time.Minute-1),
		take(1, time.Minute),
		take(1, time.Minute),
		take(0, time.Minute), // nothing costs nothing
		take(2, 3*time.Minute),
		take(1, 3*time.Minute),
		take(3, time.Hour), // a long rest saves up no more than the burst
		take(1, time.Hour),
	}
	want := []bool{false, true, false, false, true, false, true, true, false, true, false}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("taken (-got +want):\n%s", diff)
	}
}

func TestThrottledMailIsHeldOrDeferred(t *testing.T) {
	for configured, want := range map[Answer]Answer{Dunno: Hold, Hold: Hold, Defer: Defer, Reject: Hold} {
		table := Table{Throttled: configured, Allowance: func(string) Allowance { return Allowance{Every: time.Minute, Burst: 3} }}
		table.Set(decision(rules.Throttle, "alice@shop.test"), "slowly")
		v := table.Lookup("alice@shop.test", noon)
		got := []Answer{v.Weigh(2, noon), v.Weigh(2, noon), v.Weigh(1, noon), v.Weigh(0, noon), v.Weigh(1, noon), v.Answer()}
		if diff := cmp.Diff(got, []Answer{Dunno, want, Dunno, Dunno, want, want}); diff != "" {
			t.Errorf("%v (-got +want):\n%s", configured, diff)
		}
	}
	table := Table{Throttled: Defer}
	table.Set(decision(rules.Hold, "bob@shop.test"), "held")
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	for subject, want := range map[string]Answer{"bob@shop.test": Hold, "mallory@shop.test": Reject, "nobody@shop.test": Dunno} {
		if got := table.Lookup(subject, noon).Weigh(1, noon); got != want {
			t.Errorf("%s: got %v, want %v", subject, got, want)
		}
	}
}

func TestPayReleasesAtTheAllowance(t *testing.T) {
	table := Table{Allowance: func(string) Allowance { return Allowance{Every: time.Minute, Burst: 3} }}
	const alice = "alice@shop.test"
	table.Set(decision(rules.Throttle, alice), "slowly")
	for _, step := range []struct {
		at         time.Duration
		free       int // before
		recipients int
		want       bool
	}{
		{0, 3, 2, true},
		{0, 1, 2, false},
		{0, 1, 1, true},
		{time.Minute - 1, 0, 1, false},
		{time.Minute, 1, 5, false}, // more than can be saved up: when all is saved up, ...
		{3*time.Minute - 1, 2, 5, false},
		{3 * time.Minute, 3, 5, true}, // ... and then it takes that long to pay
		{7 * time.Minute, 2, 3, false},
		{8 * time.Minute, 3, 3, true},
		{time.Hour, 3, 0, true},
		{time.Hour, 3, math.MaxInt, true},
		{time.Hour + 365*24*time.Hour, 0, 1, false},
	} {
		now := noon.Add(step.at)
		if got := table.Lookup(alice, now).Free(now); got != step.free {
			t.Errorf("at %v: free %d, want %d", step.at, got, step.free)
		}
		if got := table.Pay(alice, step.recipients, now); got != step.want {
			t.Errorf("at %v: pay %d: got %v", step.at, step.recipients, got)
		}
	}
	table.Set(decision(rules.Hold, "bob@shop.test"), "held")
	if v := table.Lookup("bob@shop.test", noon); v.Free(noon) != 0 || table.Pay("bob@shop.test", 1, noon) {
		t.Error("held mail was bought free")
	}
	if v := table.Lookup("carol@shop.test", noon); v.Free(noon) != math.MaxInt || !table.Pay("carol@shop.test", 1000, noon) {
		t.Error("who is not throttled had to pay")
	}
}

func TestGiveBackIsExact(t *testing.T) {
	table := Table{Allowance: func(string) Allowance { return Allowance{Every: time.Minute, Burst: 3} }}
	table.Set(decision(rules.Throttle, "alice@shop.test"), "slowly")
	v := table.Lookup("alice@shop.test", noon)
	v.Take(2, noon)
	v.giveBack(2)
	if got := v.Free(noon); got != 3 {
		t.Errorf("free %d, want 3", got)
	}
	v.Take(2, noon)
	v.giveBack(2)
	later := noon.Add(time.Hour)
	if got := v.Free(later); got != 3 {
		t.Errorf("an hour later: free %d, want 3", got)
	}
}

func TestThrottleSetAgainGivesNoNewAllowance(t *testing.T) {
	var table Table
	d := decision(rules.Throttle, "alice@shop.test")
	table.Set(d, "slowly")
	taken := 0
	for range 10 { // a reconciliation each minute sets it again
		table.Set(d, "slowly")
		if table.Lookup(d.Subject, noon).Take(1, noon) {
			taken++
		}
	}
	if taken != defaultBurst {
		t.Errorf("took %d, want the burst, %d", taken, defaultBurst)
	}
}

func TestThrottleIsExactUnderConcurrency(t *testing.T) {
	table := Table{Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 100} }}
	table.Set(decision(rules.Throttle, "alice@shop.test"), "slowly")
	var wg sync.WaitGroup
	taken := make([]int, 8)
	for i := range taken {
		wg.Go(func() {
			for range 100 {
				if table.Lookup("alice@shop.test", noon).Take(1, noon) {
					taken[i]++
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range taken {
		sum += n
	}
	if sum != 100 {
		t.Errorf("took %d, want 100", sum)
	}
}

func TestTableWhileItChanges(t *testing.T) {
	var table Table
	table.Set(decision(rules.Block, "always@shop.test"), "no")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 500 {
				subject := fmt.Sprintf("%d-%d@shop.test", i, n)
				table.Set(decision(rules.Block, subject), "no")
				if n%2 == 0 {
					table.Remove(subject)
				}
			}
		})
		wg.Go(func() {
			for range 500 {
				if table.Lookup("always@shop.test", noon) == nil {
					t.Error("a verdict vanished while others were set")
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := table.Len(), 1+4*250; got != want {
		t.Errorf("%d verdicts, want %d", got, want)
	}
}

func TestLine(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"plain text", "plain text"},
		{"", ""},
		{"two\nlines\r\n\naction=OK\n\n", "two lines action=OK"},
		{"nul\x00 escape\x1b[31m del\x7f", "nul? escape?[31m del?"},
		{"Gr\u00fc\u00dfe \u202eevil", "Gr??e ?evil"},
		{"\xff\xfe", "??"},
		{strings.Repeat("a", 1000), strings.Repeat("a", maxText)},
		{strings.Repeat("\n", 5000) + "late", ""},
	} {
		if got := line(test.in); got != test.want {
			t.Errorf("line(%q): got %q, want %q", test.in, got, test.want)
		}
	}
}

// While held mail waits the allowance is its own, over a new verdict too.
func TestHeldMailComesFirst(t *testing.T) {
	table, now := &Table{}, time.Now()
	d := rules.Decision{Subject: "alice@shop.test", Action: rules.Throttle, Time: now, Enforce: true}
	table.Set(d, "slow")
	table.Wait(d.Subject, true)
	table.Wait("bob@shop.test", true) // nobody
	table.Set(d, "slow")
	v := table.Lookup(d.Subject, now)
	if got := v.Weigh(1, now); got != Hold || v.Free(now) != 0 {
		t.Errorf("new mail while held mail waits: %v, free %d", got, v.Free(now))
	}
	if !table.Pay(d.Subject, defaultBurst, now) {
		t.Error("held mail cannot be paid for")
	}
	later := now.Add(defaultEvery)
	table.Wait(d.Subject, false)
	if got := v.Weigh(1, later); got != Dunno {
		t.Errorf("new mail after it: %v", got)
	}
}
