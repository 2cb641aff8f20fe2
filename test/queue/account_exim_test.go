package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/test/bed"
)

func startExim(t *testing.T, routes ...string) (*bed.Exim, *enforce.EximQueue) {
	e := bed.StartExim(t, bed.EximOptions{QueueRun: time.Hour})
	f, err := os.OpenFile(filepath.Join(e.Dir, "routes"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(strings.Join(append(routes, ""), "\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return e, &enforce.EximQueue{Command: []string{e.Program}}
}

// eximSettled waits until Exim's queue holds n messages, as Exim itself says,
// of which frozen are.
func eximSettled(t *testing.T, e *bed.Exim, n, frozen int) (all []bed.EximQueued) {
	t.Helper()
	e.Bed.Wait(fmt.Sprintf("%d messages of which %d are frozen", n, frozen), func() bool {
		var err error
		all, err = e.Queue()
		got := 0
		for _, m := range all {
			if m.Frozen {
				got++
			}
		}
		return err == nil && len(all) == n && got == frozen
	})
	return all
}

// deferred waits until n first attempts have been put off.
func deferred(t *testing.T, e *bed.Exim, n int) {
	t.Helper()
	e.Bed.Wait(fmt.Sprintf("%d attempts to be put off", n), func() bool {
		log, err := os.ReadFile(e.MainLog)
		return err == nil && strings.Count(string(log), " == ") >= n
	})
}

// See TestPostfixAccount.
func TestEximAccount(t *testing.T) {
	e, q := startExim(t)
	s := e.Session(alice)
	for _, err := range []error{
		s.Send("ceo@bank.test", "r@soft.test", "s@soft.test"), s.Send(bob, "r@soft.test"), e.Session(bob).Send(alice, "r@soft.test"),
		e.Sendmail("nobody", []string{"-f", alice, "r@soft.test"}, "Subject: x\n\nHello.\n"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	deferred(t, e, 5)
	eximSettled(t, e, 4, 0)
	mine := find(t, q, ofAlice, 2)
	if m := mine[0]; m.Sender != "ceo@bank.test" || m.Login != alice || m.Rcpts != 2 || m.Size < 100 || m.Client.String() != "127.0.0.1" ||
		time.Since(m.Arrival) > time.Minute || m.Arrival.Nanosecond() != 0 || m.Held {
		t.Errorf("got %+v", m)
	}
	find(t, q, enforce.OfAccount(nil, []string{"nobody"}, nil), 1)
	find(t, q, enforce.OfAccount([]string{""}, []string{""}, nil), 0)

	act(t, "hold", 2, q, mine)
	eximSettled(t, e, 4, 2)
	act(t, "hold", 0, q, mine)
	mine = find(t, q, ofAlice, 2)
	if !mine[0].Held || !mine[1].Held {
		t.Errorf("got %+v, want both frozen", mine)
	}
	header, err := q.Headers(t.Context(), mine[0])
	if err != nil || !strings.Contains(string(header), "\nSubject: From the test bed\n") || !strings.HasPrefix(string(header), "Received: ") || strings.Contains(string(header), "Hello") {
		t.Errorf("header %q, %v", header, err)
	}
	if got := enforce.Sample(t.Context(), q, mine, 5); len(got) != 2 || got[0].Subject != "From the test bed" || got[0].To["soft.test"] != 2 ||
		!strings.Contains(got[0].Received, "mx2.hosting.test") || strings.Contains(fmt.Sprint(got), "r@soft.test") {
		t.Errorf("evidence %+v", got)
	}
	another := mine[0]
	another.Arrival = another.Arrival.Add(-time.Second)
	act(t, "delete", 0, q, []enforce.Queued{another})
	act(t, "delete", 2, q, mine)
	eximSettled(t, e, 2, 0)
	act(t, "delete", 0, q, mine)
}

// What is released is delivered at once, though its time has not come, and
// what was put off and not frozen is left alone.
func TestEximReleaseAtOnce(t *testing.T) {
	slow := startSlow(t)
	e, q := startExim(t, "slow.test: 127.0.0.1::"+slow.port())
	s := e.Session(alice)
	for range 3 {
		if err := s.Send(alice, "r@slow.test"); err != nil {
			t.Fatal(err)
		}
		slow.waitFor(t)
		slow.answer <- "451 4.7.1 later"
	}
	if err := s.Send(alice, "r@soft.test"); err != nil {
		t.Fatal(err)
	}
	deferred(t, e, 4)
	eximSettled(t, e, 4, 0)
	all := find(t, q, ofAlice, 4)
	act(t, "hold", 3, q, all[:3])
	act(t, "release", 3, q, all)
	for range 3 {
		slow.waitFor(t)
		slow.answer <- "250 2.0.0 ok"
	}
	eximSettled(t, e, 1, 0)
	if got := len(e.Bed.Received(bed.Soft)); got != 1 {
		t.Errorf("mail that was put off was tried %d times, want once: before its time", got)
	}
}

// A message in delivery cannot be frozen until its delivery ends.
func TestEximHoldInDelivery(t *testing.T) {
	slow := startSlow(t)
	e, q := startExim(t, "slow.test: 127.0.0.1::"+slow.port())
	if err := errors.Join(e.Session(alice).Send(alice, "r@slow.test"), e.Session(alice).Send(alice, "r@dead.test")); err != nil {
		t.Fatal(err)
	}
	slow.waitFor(t)
	deferred(t, e, 1)
	mine := find(t, q, ofAlice, 2)
	if n, err := q.Hold(t.Context(), mine); n != 1 || !errors.Is(err, enforce.ErrBusy) {
		t.Errorf("got %d, %v; want the one that is not in delivery", n, err)
	}
	go func() {
		time.Sleep(300 * time.Millisecond)
		slow.answer <- "451 4.7.1 later"
	}()
	act(t, "hold", 1, q, mine)
	eximSettled(t, e, 2, 2)
}

func TestEximTenThousand(t *testing.T) {
	const many = 10_000
	e, q := startExim(t)
	if err := errors.Join(e.Session(alice).Send(alice, "r@soft.test"), e.Session(bob).Send(bob, "r@soft.test")); err != nil {
		t.Fatal(err)
	}
	deferred(t, e, 2)
	eximSettled(t, e, 2, 0)
	copyExim(t, e, find(t, q, ofAlice, 1)[0].ID, many-1)

	mine := []enforce.Queued(nil)
	timed(t, "find", many, func() { mine = find(t, q, ofAlice, many) })
	timed(t, "hold", many, func() { act(t, "hold", many, q, mine) })
	timed(t, "delete", many-1000, func() { act(t, "delete", many-1000, q, mine[1000:]) })
	timed(t, "release", 1000, func() { act(t, "release", 1000, q, mine) })
	timed(t, "delivery", 1000, func() {
		eventually(t, "the released mail to be tried", func() bool { return len(e.Bed.Received(bed.Soft)) >= 1002 })
	})
	find(t, q, enforce.OfAccount([]string{bob}, nil, nil), 1)
}

// copyExim adds n copies of a message to the queue.
func copyExim(t *testing.T, e *bed.Exim, id string, n int) {
	t.Helper()
	for _, kind := range []string{"-D", "-H"} { // Exim looks for the second first
		path := filepath.Join(e.Spool, "input", id[5:6], id+kind)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		for i := range n {
			name := filepath.Join(filepath.Dir(path), id[:7]+"z"+base(i, 5)+id[13:]+kind)
			copied := strings.Replace(string(text), id+kind, filepath.Base(name), 1)
			if err := errors.Join(os.WriteFile(name, []byte(copied), 0o640), os.Chown(name, int(owner.Uid), int(owner.Gid))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// eventually waits until done says so, longer than a bed does: others may be
// using the machine.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited three minutes for %s", what)
		}
	}
}

// timed says how long something takes with n messages, which is to be seconds.
func timed(t *testing.T, what string, n int, f func()) {
	t.Helper()
	began := time.Now()
	f()
	took := time.Since(began)
	t.Logf("%-8s %6d messages: %6d ms", what, n, took.Milliseconds())
	if took > 3*time.Minute {
		t.Errorf("%s took %v", what, took)
	}
}
