package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fake is a channel that answers what the test says.
type fake struct {
	err error
	got []Message
	try int
}

func (f *fake) Send(_ context.Context, m Message) error {
	f.try++
	if f.err == nil {
		f.got = append(f.got, m)
	}
	return f.err
}

func TestNext(t *testing.T) {
	want := []time.Duration{5, 15, 45, 135, 405, 1215, 3600, 3600, 3600}
	for i, w := range want {
		w *= time.Second
		got := Next("i-1/block", i+1, t0, 0).Sub(t0)
		if got < w*3/4 || got > w*5/4 {
			t.Errorf("attempt %d: %v, want about %v", i+1, got, w)
		}
		if again := Next("i-1/block", i+1, t0, 0).Sub(t0); again != got {
			t.Errorf("attempt %d: %v, then %v", i+1, got, again)
		}
	}
	if got := Next("x", 1, t0, 10*time.Minute).Sub(t0); got != 10*time.Minute {
		t.Errorf("asked for 10 minutes, got %v", got)
	}
	if got := Next("x", 1, t0, 1000*time.Hour).Sub(t0); got != time.Hour {
		t.Errorf("asked for 1000 hours, got %v", got)
	}
	for _, attempt := range []int{0, -3, 1 << 40} {
		if got := Next("x", attempt, t0, 0).Sub(t0); got < 3*time.Second || got > 75*time.Minute {
			t.Errorf("attempt %d waits %v", attempt, got)
		}
	}
}

// Messages that failed together come back spread over half the wait.
func TestNextSpreads(t *testing.T) {
	var quarter [4]int
	for i := range 1000 {
		off := Next(fmt.Sprintf("i-%d/block", i), 7, t0, 0).Sub(t0) - 45*time.Minute
		quarter[min(3, int(off/(7*time.Minute+30*time.Second)))]++
	}
	for i, n := range quarter {
		if n < 180 || n > 320 {
			t.Errorf("quarter %d has %d of 1000", i, n)
		}
	}
}

func row(id string) Row {
	m := blocked()
	m.ID = id
	return Row{ID: id + "@mail", Channel: "mail", Message: m, Created: t0}
}

func single(r Row) Batch { return Batch{"mail", []Row{r}} }

var errBusy = &Error{Err: errors.New("busy")}

func TestDeliverBacksOff(t *testing.T) {
	mail := &fake{err: errBusy}
	s := &Sender{Channels: map[string]Channel{"mail": mail}}
	r, now := row("a"), t0
	for attempt := 1; attempt <= 12; attempt++ {
		got := s.Deliver(t.Context(), single(r), now)
		if got.Sent || got.Dead || !got.Tried || got.Err == nil || !got.Due.After(now) {
			t.Fatalf("attempt %d: %+v", attempt, got)
		}
		r.Attempts++
		now = latest(got.Due, s.lines["mail"].until)
	}
	mail.err = nil
	if got := s.Deliver(t.Context(), single(r), now); !got.Sent || got.Err != nil {
		t.Errorf("when it works: %+v", got)
	}
	if mail.try != 13 {
		t.Errorf("tried %d times", mail.try)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// One time-out is paid once, not for each of fifty messages.
func TestDeliverLeavesADeadChannelAlone(t *testing.T) {
	mail := &fake{err: &Error{Err: errors.New("busy"), RetryAfter: time.Minute}}
	s := &Sender{Channels: map[string]Channel{"mail": mail}}
	s.Deliver(t.Context(), single(row("a")), t0)
	for i := range 50 {
		got := s.Deliver(t.Context(), single(row(fmt.Sprint("b", i))), t0.Add(30*time.Second))
		if got.Tried || got.Sent || !got.Due.Equal(t0.Add(time.Minute)) || got.Err == nil {
			t.Fatalf("message %d: %+v", i, got)
		}
	}
	if mail.try != 1 {
		t.Errorf("tried %d times", mail.try)
	}
	mail.err = nil
	if got := s.Deliver(t.Context(), single(row("c")), t0.Add(time.Minute)); !got.Sent {
		t.Errorf("after the wait: %+v", got)
	}
	if got := s.Deliver(t.Context(), single(row("d")), t0.Add(time.Minute)); !got.Sent {
		t.Errorf("after a success: %+v", got)
	}
}

// A message that is refused says nothing about the next one.
func TestDeliverGoesOnAfterARefusal(t *testing.T) {
	mail := &fake{err: &Error{Permanent: true, Err: errors.New("550 no such user")}}
	s := &Sender{Channels: map[string]Channel{"mail": mail}}
	got := s.Deliver(t.Context(), single(row("a")), t0)
	if got.Dead || got.Sent || !got.Tried || got.Due.Sub(t0) < time.Hour {
		t.Errorf("refused: %+v", got)
	}
	mail.err = nil
	if got := s.Deliver(t.Context(), single(row("b")), t0); !got.Sent {
		t.Errorf("the next: %+v", got)
	}
}

func TestDeliverGivesUp(t *testing.T) {
	s := &Sender{Channels: map[string]Channel{"mail": &fake{err: errBusy}}, MaxAge: time.Hour}
	if got := s.Deliver(t.Context(), single(row("a")), t0.Add(59*time.Minute)); got.Dead {
		t.Errorf("given up early: %+v", got)
	}
	if got := s.Deliver(t.Context(), single(row("a")), t0.Add(time.Hour)); !got.Dead || got.Err == nil {
		t.Errorf("not given up: %+v", got)
	}
	young := row("b")
	young.Created = t0.Add(50 * time.Minute)
	if got := s.Deliver(t.Context(), Batch{"mail", []Row{row("a"), young}}, t0.Add(time.Hour)); got.Dead {
		t.Errorf("a young message was given up with an old one: %+v", got)
	}
}

func TestDeliverUnknownChannel(t *testing.T) {
	s := &Sender{Channels: map[string]Channel{}}
	got := s.Deliver(t.Context(), single(row("a")), t0)
	if got.Sent || got.Dead || got.Tried || !errors.Is(got.Err, ErrPermanent) || got.Due.Sub(t0) < time.Hour {
		t.Errorf("%+v", got)
	}
}

// Stopping is no failure of the channel.
func TestDeliverWhileStopping(t *testing.T) {
	mail := &fake{err: context.Canceled}
	s := &Sender{Channels: map[string]Channel{"mail": mail}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := s.Deliver(ctx, single(row("a")), t0); got.Tried || got.Sent || got.Dead {
		t.Errorf("%+v", got)
	}
	mail.err = nil
	if got := s.Deliver(t.Context(), single(row("a")), t0); !got.Sent {
		t.Errorf("after that: %+v", got)
	}
}

// run plays the caller: a storm of n messages, one a second, over a channel
// that works only while up says so; it returns what the channel took.
func run(t *testing.T, s *Sender, n int, up func(time.Duration) bool) []Message {
	t.Helper()
	mail := &fake{}
	s.Channels = map[string]Channel{"mail": mail}
	due := map[string]time.Time{}
	rows := storm(n)
	left := n
	for now := t0; left > 0 && now.Before(t0.Add(2*time.Hour)); now = now.Add(time.Second) {
		mail.err = nil
		if !up(now.Sub(t0)) {
			mail.err = errBusy
		}
		var waiting []Row
		for _, r := range rows {
			if !r.Created.After(now) && !due[r.ID].After(now) {
				waiting = append(waiting, r)
			}
		}
		batches, _ := s.Plan(now, waiting)
		for _, b := range batches {
			res := s.Deliver(t.Context(), b, now)
			for _, r := range b.Rows {
				due[r.ID] = res.Due
				if res.Sent {
					left--
					due[r.ID] = t0.Add(1000 * time.Hour)
				}
			}
		}
	}
	return mail.got
}

func told(messages []Message) (times map[string]int, digests int) {
	times = map[string]int{}
	for _, m := range messages {
		if len(m.Messages) == 0 {
			times[m.ID]++
			continue
		}
		digests++
		for _, one := range m.Messages {
			times[one.ID]++
		}
	}
	return times, digests
}

func TestStorm(t *testing.T) {
	for _, c := range []struct {
		name    string
		n       int
		up      func(time.Duration) bool
		most    int // messages sent
		digests int
	}{
		{"a few go singly", 10, func(time.Duration) bool { return true }, 10, 0},
		{"fifty at once", 50, func(time.Duration) bool { return true }, 11, 1},
		{"one more than the limit", 11, func(time.Duration) bool { return true }, 11, 0},
		{"ten minutes of them", 600, func(time.Duration) bool { return true }, 20 + 5, 3},
		{"after an outage", 50, func(d time.Duration) bool { return d > 30*time.Minute }, 11, 1},
		{"in and out", 100, func(d time.Duration) bool { return d/(10*time.Second)%2 == 0 }, 15, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			messages := run(t, &Sender{}, c.n, c.up)
			times, digests := told(messages)
			if len(times) != c.n {
				t.Errorf("%d of %d were told", len(times), c.n)
			}
			for id, n := range times {
				if n != 1 {
					t.Errorf("%s was told %d times", id, n)
				}
			}
			if len(messages) > c.most || digests < c.digests {
				t.Errorf("%d messages, %d of them digests", len(messages), digests)
			}
		})
	}
}

// A digest that may have arrived is tried again as it was, though more waits.
func TestDigestIsTriedAgainAsItWas(t *testing.T) {
	mail := &fake{err: errBusy}
	s := &Sender{Channels: map[string]Channel{"mail": mail}, Limit: Limit{Max: 1, Every: time.Minute}}
	rows := storm(6)
	now := t0.Add(time.Hour)
	s.lineLocked("mail").sent = []time.Time{now}
	plan := func(rows []Row) []Batch { b, _ := s.Plan(now, rows); return b }
	first := plan(rows[:3])
	if len(first) != 1 || len(first[0].Rows) != 3 {
		t.Fatalf("planned %v", first)
	}
	s.Deliver(t.Context(), first[0], now)
	again := plan(rows)
	if len(again) != 2 {
		t.Fatalf("planned %d batches", len(again))
	}
	if diff := cmp.Diff(Digest(again[0].Rows), Digest(first[0].Rows)); diff != "" {
		t.Errorf("the digest has changed:\n%s", diff)
	}
	if got := plan(rows[1:]); len(got) != 1 || len(got[0].Rows) != 5 {
		t.Errorf("a part of it: %d batches", len(got))
	}
	mail.err = nil
	now = now.Add(time.Minute)
	if got := s.Deliver(t.Context(), again[0], now); !got.Sent {
		t.Fatalf("%+v", got)
	}
	if got := plan(rows[3:]); len(got) != 1 || len(got[0].Rows) != 3 {
		t.Errorf("the rest: %v", got)
	}
}

func TestPlanSaysWhen(t *testing.T) {
	s := &Sender{Limit: Limit{Max: 2}}
	batches, next := s.Plan(t0, storm(2))
	if len(batches) != 2 || !next.IsZero() {
		t.Errorf("%d batches, next %v", len(batches), next)
	}
	rows := storm(4)
	rows[0].Channel = "hook"
	now := t0.Add(4 * time.Second)
	batches, next = s.Plan(now, rows)
	if want := rows[3].Created.Add(3 * time.Minute); len(batches) != 3 || !next.Equal(want) {
		t.Errorf("%d batches, next %v, want %v", len(batches), next, want)
	}
	batches, _ = s.Plan(next, rows)
	if len(batches) != 4 {
		t.Errorf("%d batches at that time", len(batches))
	}
}

func TestPlanDoesNotTouchTheRows(t *testing.T) {
	rows := storm(5)
	rows[0], rows[4] = rows[4], rows[0]
	before := rows[0].ID
	Limit{}.Plan(t0, nil, rows)
	if rows[0].ID != before {
		t.Error("the caller's rows were sorted")
	}
}

func TestDigest(t *testing.T) {
	rows := storm(300)
	d := Digest(rows[:maxGathered])
	if len(d.Clean().Messages) != maxGathered {
		t.Errorf("%d messages are left of %d", len(d.Clean().Messages), maxGathered)
	}
	text := d.Text()
	for _, r := range rows[:maxGathered] {
		if !strings.Contains(text, r.Message.Undo[0]) {
			t.Errorf("no %q in it", r.Message.Undo[0])
		}
	}
	if len(text) > 1<<20 {
		t.Errorf("%d bytes", len(text))
	}
	if d.Severity != Critical || d.Title != "200 alerts about 200 accounts" {
		t.Errorf("%s: %s", d.Severity, d.Title)
	}
	rows[1].Message.Severity = Info
	if got := Digest(rows[1:3]).Severity; got != Critical {
		t.Errorf("info and critical are %s", got)
	}
	if Digest(rows[:2]).ID == Digest(rows[1:3]).ID {
		t.Error("different digests have one ID")
	}
	same := []Row{row("a"), row("b")}
	if got := Digest(same).Title; got != "2 alerts about alice@shop.test" {
		t.Errorf("title %q", got)
	}
}
