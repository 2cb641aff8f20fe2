package eval

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

func TestReadTrace(t *testing.T) {
	got, err := ReadTrace(strings.NewReader("time,sender,recipient\n20,1,8\n10,1,7\n10,1,9\n10,2,9\n"))
	want := []Message{{10, 1, []uint64{7, 9}}, {10, 2, []uint64{9}}, {20, 1, []uint64{8}}}
	if diff := cmp.Diff(got, want); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []string{"", "time,sender,recipient\n", "1,2,3\nx,2,3\n", "1,2,3\n1,2\n", "1,2,3\n-1,2,3\n", "1,2,3\n9223372036854775807,2,3\n"} {
		if _, err := ReadTrace(strings.NewReader(bad)); !errors.Is(err, ErrTrace) {
			t.Errorf("%q: error %v, want %v", bad, err, ErrTrace)
		}
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add([]byte("time,sender,recipient\n20,1,8\n10,1,7\n"))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := ReadTrace(bytes.NewReader(b))
		if err == nil && len(all) == 0 {
			t.Error("neither messages nor an error")
		}
		for i := range all {
			if len(all[i].To) == 0 || i > 0 && all[i].Time < all[i-1].Time {
				t.Errorf("message %d: %v", i, all[i])
			}
		}
	})
}

// The values are those of published tables of the Poisson interval.
func TestAtMost(t *testing.T) {
	for n, want := range map[int]float64{0: 2.996, 1: 4.744, 3: 7.754, 10: 16.962, 50: 63.287} {
		if got := atMost(n); math.Abs(got-want) > .01 {
			t.Errorf("%d: %.3f, want %.3f", n, got, want)
		}
	}
}

// A fixed rule fires with the message that exceeds it, within its span.
func TestFixedRules(t *testing.T) {
	fires := func(gap time.Duration, rcpts int) map[string]int {
		p, at := past{seen: map[uint64]bool{}}, map[string]int{}
		for n := range 250 {
			to := make([]mailq.Recipient, rcpts)
			for i := range to {
				to[i].Hash = uint64(n*rcpts + i)
			}
			p.take(time.Unix(0, 0).Add(time.Duration(n)*gap), to)
			for _, l := range fixedRules {
				if at[l.name] == 0 && p.exceeds(l) {
					at[l.name] = n + 1
				}
			}
		}
		return at
	}
	csf, eximmon, csm, csm2, mox, mailu, uwu := fixedRules[0].name, fixedRules[1].name, fixedRules[2].name, fixedRules[3].name, fixedRules[4].name, fixedRules[5].name, fixedRules[6].name
	for _, c := range []struct {
		gap   time.Duration
		rcpts int
		want  map[string]int
	}{
		{time.Second, 1, map[string]int{csf: 101, eximmon: 5, csm: 51, csm2: 101, mox: 201, mailu: 201}},
		{10 * time.Second, 1, map[string]int{csf: 101, eximmon: 5, csm: 51, mox: 201, mailu: 201}},
		{time.Minute, 1, map[string]int{mox: 201, mailu: 201}},
		{10 * time.Minute, 50, map[string]int{mox: 5}},
		{5 * time.Minute, 50, map[string]int{mox: 5, mailu: 201, uwu: 11}},
	} {
		if diff := cmp.Diff(fires(c.gap, c.rcpts), c.want); diff != "" {
			t.Errorf("%d recipients each %v: %s", c.rcpts, c.gap, diff)
		}
	}
}

func TestPastTriesWithoutTrace(t *testing.T) {
	p := past{seen: map[uint64]bool{}}
	p.take(time.Unix(0, 0), []mailq.Recipient{{Hash: 1}})
	p.try(func(trial *past) { trial.take(time.Unix(1, 0), []mailq.Recipient{{Hash: 1}, {Hash: 2}}) })
	if len(p.day) != 1 || len(p.seen) != 1 || !p.seen[1] {
		t.Errorf("after a try: %+v", p)
	}
}

// office is some months of a quiet office, made up: people who write to their
// own contacts.
func office(days int) (all []Message) {
	for day := range days {
		for who := range uint64(20) {
			for k := range 1 + mix(uint64(day)*31+who)%5 {
				h := mix(uint64(day)*7919 + who*131 + k)
				all = append(all, Message{Time: int64(day)*86400 + 30000 + int64(k)*4000 + int64(h%3000), Sender: who, To: []uint64{who*1000 + h>>20%60}})
			}
		}
	}
	slices.SortStableFunc(all, func(x, y Message) int { return int(x.Time - y.Time) })
	return all
}

func options(trace []Message) Options {
	return Options{Trace: trace, WarmUp: 30 * 24 * time.Hour, Trials: 8, Seed: 1, Detector: detector.Default(), Policy: &rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}}
}

func TestRun(t *testing.T) {
	o := options(office(45))
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(again, r); diff != "" {
		t.Errorf("the same options give another result: %s", diff)
	}
	// One mailbox sent on the first day only before the warm-up ended.
	if r.MailboxDays != 15*20-1 || r.Mailboxes != 20 || r.Trials != o.Trials {
		t.Errorf("%d mailbox-days of %d mailboxes, %d trials", r.MailboxDays, r.Mailboxes, r.Trials)
	}
	v := r.Systems[0]
	if v.Wrong.Held+v.Wrong.Blocked != 0 {
		t.Errorf("a quiet office: %+v", v.Wrong)
	}
	for _, s := range v.Styles[:5] {
		if s.Trials != o.Trials || s.Stopped != s.Trials || s.P50 < 2 || s.P95 > 20 || s.Max < s.P95 {
			t.Errorf("%+v", s)
		}
	}
	csf := r.Systems[1]
	if s := csf.Styles[0]; s.Stopped != s.Trials || s.P50 > 101 || s.P50 < 95 {
		t.Errorf("CSF: %+v", s)
	}
	if s := csf.Styles[2]; s.Stopped != 0 {
		t.Errorf("CSF stops one a minute: %+v", s)
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil || !strings.Contains(out.String(), fmt.Sprintf("%d honest mailbox-days", r.MailboxDays)) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// Without hijacks the same honest days are found as with them: trying leaves
// no trace.
func TestHijacksLeaveNoTrace(t *testing.T) {
	o := options(office(40))
	with, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	o.Trials = 0
	without, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for s := range with.Systems {
		if diff := cmp.Diff(with.Systems[s].Wrong, without.Systems[s].Wrong); diff != "" {
			t.Errorf("%s: %s", with.Systems[s].Name, diff)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	if _, err := Run(t.Context(), options(nil)); !errors.Is(err, ErrTrace) {
		t.Errorf("no trace: %v", err)
	}
	if _, err := Run(t.Context(), options(office(20))); !errors.Is(err, ErrShort) {
		t.Errorf("a short trace: %v", err)
	}
}
