package eval

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
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
	if err != nil || written(got) != 3 {
		t.Fatalf("%d messages, %v", written(got), err)
	}
	var arrived []string
	got = slices.DeleteFunc(got, func(m Message) bool {
		if m.Kind == mailq.Delivered {
			arrived = append(arrived, fmt.Sprintln(m.Time, m.Account, m.From, m.Writer.Hash == mix(1) || m.Writer.Hash == mix(2)))
		}
		return m.Kind == mailq.Delivered
	})
	if diff := cmp.Diff(strings.Join(arrived, ""), "10 m7@mail.test m1@mail.test true\n10 m9@mail.test m1@mail.test true\n10 m9@mail.test m2@mail.test true\n20 m8@mail.test m1@mail.test true\n"); diff != "" {
		t.Errorf("into mailboxes: %s", diff)
	}
	for i, want := range []struct {
		at      int64
		account mailq.Account
		to      []uint64
	}{{10, "m1@mail.test", []uint64{7, 9}}, {10, "m2@mail.test", []uint64{9}}, {20, "m1@mail.test", []uint64{8}}} {
		m := got[i]
		var to []uint64
		for _, n := range want.to {
			to = append(to, mix(n))
		}
		var hashes []uint64
		for _, r := range m.To {
			hashes = append(hashes, r.Hash)
		}
		if m.Time != want.at || m.Account != want.account || !slices.Equal(hashes, to) || m.Kind != mailq.Submitted || m.From != string(m.Account) || !m.Client.IsPrivate() || m.Size == 0 {
			t.Errorf("message %d: %+v, want %+v", i, m, want)
		}
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
			if all[i].Kind == mailq.Submitted && len(all[i].To) == 0 || i > 0 && all[i].Time < all[i-1].Time {
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
	fires := func(gap time.Duration, rcpts, dead int) map[string]int {
		p, at := *newPast(), map[string]int{}
		for n := range 250 {
			m := Message{Time: int64(time.Duration(n) * gap / time.Second), To: make([]Recipient, rcpts)}
			for i := range m.To {
				m.To[i].Hash = uint64(n*rcpts + i)
				if i*4 < dead*rcpts {
					m.To[i].Fate = mailq.Bounced
				}
			}
			p.take(&m)
			for _, l := range fixedRules {
				if at[l.name] == 0 && p.exceeds(l) {
					at[l.name] = n + 1
				}
			}
		}
		return at
	}
	csf, eximmon, csm, csm2, mox, mailu, uwu := fixedRules[0].name, fixedRules[1].name, fixedRules[2].name, fixedRules[3].name, fixedRules[4].name, fixedRules[5].name, fixedRules[6].name
	cpanel := fixedRules[7].name
	for _, c := range []struct {
		gap   time.Duration
		rcpts int
		dead  int // quarters of the recipients
		want  map[string]int
	}{
		{time.Second, 1, 0, map[string]int{csf: 101, eximmon: 5, csm: 51, csm2: 101, mox: 201, mailu: 201}},
		{10 * time.Second, 1, 0, map[string]int{csf: 101, eximmon: 5, csm: 51, mox: 201, mailu: 201}},
		{time.Minute, 1, 0, map[string]int{mox: 201, mailu: 201}},
		{10 * time.Minute, 50, 0, map[string]int{mox: 5}},
		{5 * time.Minute, 50, 0, map[string]int{mox: 5, mailu: 201, uwu: 11}},
		{10 * time.Minute, 4, 1, map[string]int{cpanel: 5, mox: 51}},
		{20 * time.Minute, 4, 1, map[string]int{mox: 51}},
	} {
		if diff := cmp.Diff(fires(c.gap, c.rcpts, c.dead), c.want); diff != "" {
			t.Errorf("%d recipients each %v: %s", c.rcpts, c.gap, diff)
		}
	}
}

func TestPastTriesWithoutTrace(t *testing.T) {
	p := newPast()
	p.take(&Message{To: []Recipient{{Hash: 1}}})
	p.try(func(trial *past) { trial.take(&Message{Time: 1, To: []Recipient{{Hash: 1}, {Hash: 2}}}) })
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
				m := traced(int64(day)*86400+30000+int64(k)*4000+int64(h%3000), who)
				m.To = []Recipient{{Hash: mix(who*1000 + h>>20%60), Domain: domain}}
				all = append(all, m)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y Message) int { return int(x.Time - y.Time) })
	return all
}

func options(trace []Message) Options {
	return Options{Traffic: trace, WarmUp: 30 * 24 * time.Hour, Trials: 4, Seed: 1, Detector: detector.Default(), Policy: &rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}}
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
	if r.MailboxDays != 15*20-1 || r.Accounts != 20 || r.Trials != o.Trials {
		t.Errorf("%d mailbox-days of %d mailboxes, %d trials", r.MailboxDays, r.Accounts, r.Trials)
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

// Each account belongs to one part, and what is counted of the parts adds up.
func TestParts(t *testing.T) {
	o := options(office(40))
	o.Trials = 0
	whole, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	days := 0
	for n := range 3 {
		o.Part = Part{n + 1, 3}
		r, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if r.MailboxDays == 0 || r.MailboxDays == whole.MailboxDays {
			t.Errorf("part %d has %d of %d mailbox-days", n+1, r.MailboxDays, whole.MailboxDays)
		}
		days += r.MailboxDays
	}
	if days != whole.MailboxDays {
		t.Errorf("the parts have %d mailbox-days, the whole %d", days, whole.MailboxDays)
	}
}

// The odd senders live for four months each, the first of which is told apart, and
// after it nobody but the owner of an old list is stopped.
func TestOddSenders(t *testing.T) {
	o := options(office(150))
	o.Odd, o.Trials = 1, 2
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Odd) != len(oddities) {
		t.Fatalf("%d kinds, want %d", len(r.Odd), len(oddities))
	}
	for _, k := range r.Odd {
		if k.Days == 0 || k.FirstDays == 0 || k.Days < k.FirstDays {
			t.Errorf("%s: %d first mailbox-days and %d later", k.Name, k.FirstDays, k.Days)
		}
		if k.Wrong.Blocked > 0 || k.Wrong.Held > 0 && k.Name != "old customer lists, some addresses dead" {
			t.Errorf("%s: %+v %+v", k.Name, k.Wrong, k.Stopped)
		}
	}
	names := map[string]int{}
	for _, s := range r.Systems[0].Styles {
		names[s.Name] = s.Stopped
	}
	for _, name := range []string{"contact form abused", "newsletter taken over, from abroad", "by a new web script"} {
		if names[name] != o.Trials {
			t.Errorf("%s: %d of %d stopped", name, names[name], o.Trials)
		}
	}
}

// The totals are the sums of the tables, with the styles that fall short by name and
// the exact bounds.
func TestTotals(t *testing.T) {
	r := Result{MailboxDays: 3000, Systems: []System{{Name: "Vedetta", Wrong: Wrong{Throttled: 3}, Styles: []Style{
		{Name: "quick", Trials: 1000, Stopped: 1000}, {Name: "nearly", Trials: 100, Stopped: 99}, {Name: "slow", Trials: 100, Stopped: 98}, {Name: "nobody's", Trials: 0},
	}}}, Odd: []Odd{
		{Days: 400, Wrong: Wrong{Throttled: 1}, FirstDays: 10, First: Wrong{Throttled: 2}},
		{Days: 100, Wrong: Wrong{Held: 2, Blocked: 1}, FirstDays: 10},
	}}
	r.Total, r.Honest = r.total(), r.wrongs()
	if got := r.Total; got.Injected != 1200 || got.Stopped != 1197 || got.Percent != 99.75 || got.AtLeast != 99.354 || len(got.Below) != 1 || got.Below[0].Name != "slow" {
		t.Errorf("%+v", got)
	}
	for i, want := range []struct {
		days      int
		throttled Rate
		held      Rate
		blocked   Rate
	}{
		{3000, Rate{1, 2.585}, Rate{0, .999}, Rate{0, .999}},
		{500, Rate{2, 9.488}, Rate{4, 12.592}, Rate{2, 9.488}},
		{20, Rate{100, 314.79}, Rate{0, 149.787}, Rate{0, 149.787}},
	} {
		got := r.Honest[i]
		if got.Days != want.days || got.Rates.Throttled != want.throttled || got.Rates.Held != want.held || got.Rates.Blocked != want.blocked {
			t.Errorf("%s: %+v, want %+v", got.Who, got, want)
		}
	}
	var out bytes.Buffer
	if err := r.printTotals(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1200 hijacks injected, 1197 stopped, 99.75 %", "below 99 %: slow, 98 of 100", "2.000 (9.488)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// The picture is well-formed and has a mark for each fixed rule.
func TestPicture(t *testing.T) {
	r, err := Run(t.Context(), options(office(45)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.Picture(&out); err != nil {
		t.Fatal(err)
	}
	marks := 0
	for d := xml.NewDecoder(&out); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			marks++
		}
	}
	if marks < len(fixedRules)+2 {
		t.Errorf("%d marks", marks)
	}
}

// Logs become the messages that they tell of.
func TestGather(t *testing.T) {
	var g Gatherer
	at := time.Date(2026, 3, 2, 9, 0, 0, 5e8, time.UTC)
	to := func(h uint64) mailq.Recipient { return mailq.Recipient{Hash: h, Domain: "x.test"} }
	for _, ev := range []mailq.Event{
		{Time: at, Kind: mailq.Submitted, Message: 9, Sender: "in@x.test"}, // inbound mail
		{Time: at, Kind: mailq.Submitted, Counts: true, Account: "a@y.test", Message: 1, Sender: "a@y.test", Size: 900, Subject: "S", Rcpts: 2},
		{Time: at.Add(time.Second), Kind: mailq.Submitted, Counts: true, Account: "b@y.test", Message: 2, New: []mailq.Recipient{to(7)}},
		{Time: at, Kind: mailq.Deferred, Account: "a@y.test", Message: 1, New: []mailq.Recipient{to(5)}, To: to(5), Reply: mailq.Reply{Class: mailq.Greylisted}},
		{Time: at, Kind: mailq.Bounced, Account: "a@y.test", Message: 1, New: []mailq.Recipient{to(6)}, To: to(6), Reply: mailq.Reply{Class: mailq.RecipientUnknown}},
		{Time: at.Add(time.Hour), Kind: mailq.Delivered, Account: "a@y.test", Message: 1, To: to(5), Reply: mailq.Reply{Class: mailq.OK}},
		{Time: at, Kind: mailq.Removed, Account: "a@y.test", Message: 1},
		{Time: at, Kind: mailq.Delivered, Account: "a@y.test", Message: 1, New: []mailq.Recipient{to(8)}, To: to(8)}, // of a message that is gone
		{Time: at.Add(-time.Minute), Kind: mailq.LoginFailed, Account: "b@y.test"},
		{Time: at.Add(2 * time.Second), Kind: mailq.Delivered, Message: 9, Into: "b@y.test", Sender: "in@x.test", Writer: to(4)},
	} {
		g.Add(&ev)
	}
	want := []Message{
		{Time: at.Unix() - 60, Kind: mailq.LoginFailed, Account: "b@y.test"},
		{Time: at.Unix(), Kind: mailq.Submitted, Account: "a@y.test", From: "a@y.test", Subject: "S", Size: 900, To: []Recipient{
			{5, "x.test", mailq.Delivered, mailq.OK}, {6, "x.test", mailq.Bounced, mailq.RecipientUnknown}}},
		{Time: at.Unix() + 1, Kind: mailq.Submitted, Account: "b@y.test", To: []Recipient{{Hash: 7, Domain: "x.test"}}},
		{Time: at.Unix() + 2, Kind: mailq.Delivered, Account: "b@y.test", From: "in@x.test", Writer: to(4)},
	}
	if diff := cmp.Diff(g.Traffic(), want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestIsTrace(t *testing.T) {
	for text, want := range map[string]bool{
		"time,sender,recipient\n1,2,3\n": true, "1,2,3\n": true, "1,2,3": true, "": false, "x\ny\n1,2,3\n": false,
		"Mar  2 00:00:01 mx1 postfix/qmgr[1]: 1,2,3\n": false, "\x1f\x8bxx": false,
	} {
		if got := IsTrace(strings.NewReader(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
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

// Cover is written to beside strangers in every message, or by messages of its own, and only
// strangers may be traps.
func TestCover(t *testing.T) {
	for _, s := range []style{{rcpts: 1, cover: 2}, {rcpts: 15, cover: 10}, {rcpts: 1}, {rcpts: 50}} {
		covered := 0
		for k := range 150 {
			if s.covers(k) {
				covered++
			}
		}
		if want := 150 - s.strangers(150); covered != want {
			t.Errorf("%+v: %d of 150 recipients are own contacts, want %d", s, covered, want)
		}
	}
}
