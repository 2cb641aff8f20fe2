package gate

import (
	"fmt"
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
		{"throttle", []rules.Decision{decision(rules.Throttle, "alice@shop.test")}, Defer},
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
