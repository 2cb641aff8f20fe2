package app

import (
	"context"
	"fmt"
	"net/netip"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

func (q *holdQueue) Find(_ context.Context, want func(enforce.Queued) bool) (found []enforce.Queued, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.held {
		if want(m) {
			found = append(found, m)
		}
	}
	return found, q.fail
}

func (q *holdQueue) Hold(_ context.Context, ms []enforce.Queued) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range ms {
		m.Held = true
		q.held[m.ID] = m
	}
	return len(ms), q.fail
}

func (q *holdQueue) Delete(_ context.Context, ms []enforce.Queued) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range ms {
		delete(q.held, m.ID)
	}
	return len(ms), q.fail
}

func (q *holdQueue) Headers(_ context.Context, m enforce.Queued) ([]byte, error) {
	return []byte("From: a@b.test\nSubject: You have won " + m.ID + "\nTo: x@gmail.test\n\n"), nil
}

// count is how many messages there are, and how many of them on hold.
func (q *holdQueue) count() (all, held int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.held {
		if m.Held {
			held++
		}
	}
	return len(q.held), held
}

// free takes every message off hold.
func (q *holdQueue) free() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, m := range q.held {
		m.Held = false
		q.held[id] = m
	}
}

// What a spammer handed in before he was stopped is held, and a sample of it is
// kept as evidence; what somebody handed in who was released meanwhile is not.
func TestQueuedMailOfTheStoppedIsHeld(t *testing.T) {
	s, q := holding(t, victim, 12, 3, time.Now().Add(-time.Hour))
	q.free()
	s.restrainNow(t.Context(), restraint{account: victim})
	if _, held := q.count(); held > 0 {
		t.Fatalf("%d messages of an account that is not stopped are held", held)
	}
	s.throttleForTest(t, victim, rules.Block, time.Now(), time.Time{}, time.Time{})
	s.restrainNow(t.Context(), restraint{account: victim})
	if all, held := q.count(); held != 12 || all != 12 {
		t.Fatalf("%d of %d held", held, all)
	}
	rows, err := s.store.Journal(t.Context(), store.JournalFilter{Subject: victim})
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].What != doQueueHold || !strings.Contains(rows[0].Outcome, "12 of 12 messages held") || strings.Count(rows[0].Outcome, "You have won") != evidenceSample {
		t.Errorf("journal: %+v", rows[0])
	}
}

// So is what a trusted client handed in that was stopped, although the log names no
// account before the mail leaves.
func TestQueuedMailOfAStoppedClientIsHeld(t *testing.T) {
	const client = "client:192.0.2.7"
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	s, q := holding(t, victim, 0, 0, from)
	s.restraints = make(chan restraint, 1)
	s.judge.parser.Directory = &mailq.Directory{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	for id, host := range map[string]string{"A00001": "192.0.2.7", "A00002": "192.0.2.7", "B00001": "192.0.2.8"} {
		for _, line := range []string{
			"smtpd[7]: %s: client=web[" + host + "]",
			"cleanup[8]: %s: message-id=<%[1]s@web>",
			"qmgr[9]: %s: from=<a@b.test>, size=400, nrcpt=1 (queue active)",
			"smtp[10]: %s: to=<c@d.test>, relay=mx.d.test[198.51.100.9]:25, delay=1, delays=0/0/0/1, dsn=4.7.1, status=deferred (host mx.d.test[198.51.100.9] said: 451 4.7.1 later)",
		} {
			s.judge.parser.Parse(fmt.Appendf(nil, from.UTC().Format("Jan _2 15:04:05")+" mx1 postfix/"+line, id))
		}
		q.held[id] = enforce.Queued{ID: id, Arrival: from, Rcpts: 1}
	}
	s.restrain(s.throttleForTest(t, client, rules.Block, time.Now(), time.Time{}, time.Time{}))
	select {
	case r := <-s.restraints:
		s.restrainNow(t.Context(), r)
	default:
	}
	if !q.held["A00001"].Held || !q.held["A00002"].Held || q.held["B00001"].Held {
		t.Errorf("held: %v", q.held)
	}
}

func TestQueueOrders(t *testing.T) {
	s, q := holding(t, victim, 4, 1, time.Now().Add(-time.Hour))
	q.held["B0001"] = enforce.Queued{ID: "B0001", Login: "bob@shop.test", Held: true}
	q.held["C0001"] = enforce.Queued{ID: "C0001", Login: "ALICE@shop.test", Held: true} // the log never told of it
	order := func(do string, dry bool) web.Result {
		t.Helper()
		r, err := s.Act(t.Context(), web.Order{Do: do, Account: victim, DryRun: dry, Who: "root"})
		if err != nil || len(r.Failed) > 0 {
			t.Fatalf("%s: %+v, %v", do, r, err)
		}
		return r
	}
	for _, tt := range []struct {
		do   string
		dry  bool
		want string
		all  int
		held int
	}{
		{doQueueHold, false, "nothing to do: of 5 messages of alice@shop.test in the queue all are held", 6, 6},
		{doQueueHold, true, "0 messages of alice@shop.test would be held", 6, 6},
		{doQueueDelete, true, "5 messages of alice@shop.test would be deleted", 6, 6},
		{doQueueRelease, true, "5 messages of alice@shop.test would be released", 6, 6},
		{doQueueDelete, false, "5 of 5 messages of alice@shop.test deleted", 1, 1},
		{doQueueDelete, false, "nothing to do: no message of alice@shop.test is in the queue", 1, 1},
		{doQueueRelease, false, "nothing to do: no message of alice@shop.test is in the queue", 1, 1},
	} {
		if r := order(tt.do, tt.dry); r.Done[0] != tt.want {
			t.Errorf("%s: %q, want %q", tt.do, r.Done[0], tt.want)
		}
		if all, held := q.count(); all != tt.all || held != tt.held {
			t.Errorf("%s leaves %d, %d held; want %d, %d", tt.do, all, held, tt.all, tt.held)
		}
	}
	rows, err := s.store.Journal(t.Context(), store.JournalFilter{Subject: victim})
	if err != nil || len(rows) != 1 || !strings.Contains(rows[0].Outcome, "You have won") {
		t.Errorf("journal %+v, %v: want the sample of what was deleted", rows, err)
	}
	s.queue = nil
	if _, err := s.Act(t.Context(), web.Order{Do: doQueueHold, Account: victim, Who: "root"}); err == nil {
		t.Error("no error without a queue")
	}
}

// Postfix knows a system user by number alone, whichever way an operator names
// it.
func TestQueuedMailOfAUser(t *testing.T) {
	games, err := user.Lookup("games")
	if err != nil {
		t.Skip("the system has no user games, as Debian does")
	}
	uid, _ := strconv.Atoi(games.Uid)
	s, q := holding(t, victim, 0, 1, time.Now())
	q.held["B0001"] = enforce.Queued{ID: "B0001", UID: uid, Held: true}
	q.held["C0001"] = enforce.Queued{ID: "C0001", UID: uid + 1, Held: true}
	for _, account := range []string{"user:games", "uid:" + games.Uid} {
		r, err := s.Act(t.Context(), web.Order{Do: doQueueRelease, Account: account, DryRun: true, Who: "root"})
		if want := "1 message of " + account + " would be released"; err != nil || len(r.Done) != 1 || r.Done[0] != want {
			t.Errorf("%+v, %v, want %q", r, err, want)
		}
	}
}

// Who several people are is not stopped by hand either.
func TestSharedIdentityIsNotStopped(t *testing.T) {
	p := asked(t)
	if _, err := p.Act(t.Context(), web.Order{Do: doBlock, Account: "user:www-data", Who: "root"}); err == nil || !strings.Contains(err.Error(), "several people") {
		t.Errorf("%v", err)
	}
}

// A release whose mail was still on hold when the service was killed is
// finished at the next start, unless the account was stopped again.
func TestReleaseIsFinishedAfterACrash(t *testing.T) {
	for _, again := range []bool{false, true} {
		s, q := holding(t, victim, 12, 3, time.Now().Add(-time.Hour))
		at := time.Now().Add(-time.Second)
		if _, err := s.store.Release(t.Context(), store.Release{Key: "r", Subject: victim, At: at, By: "root", Why: "calm again"}); err != nil {
			t.Fatal(err)
		}
		want := 0
		if again {
			s.throttleForTest(t, victim, rules.Block, time.Now(), time.Time{}, time.Time{})
			want = 12
		}
		if err := s.enforceAgain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, held := q.count(); held != want {
			t.Errorf("stopped again: %t: %d messages are on hold, want %d", again, held, want)
		}
		if left, err := s.store.UnfinishedReleases(t.Context(), time.Time{}); err != nil || len(left) > 0 {
			t.Errorf("stopped again: %t: unfinished are %v, %v", again, left, err)
		}
	}
}
