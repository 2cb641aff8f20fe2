package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A holdQueue is a queue with messages on hold.
type holdQueue struct {
	enforce.Queue
	mu       sync.Mutex
	held     map[string]enforce.Queued
	released []string
	fail     error
}

func (q *holdQueue) Look(_ context.Context, ids []string) (found []enforce.Queued, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		if m, ok := q.held[id]; ok {
			found = append(found, m)
		}
	}
	return found, q.fail
}

func (q *holdQueue) Release(_ context.Context, ms []enforce.Queued) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range ms {
		q.released = append(q.released, m.ID)
		delete(q.held, m.ID)
	}
	return len(ms), q.fail
}

// holding is a service whose log shows n messages of an account on hold, with
// rcpts recipients each, the first of which arrived at a time.
func holding(t *testing.T, account string, n, rcpts int, from time.Time) (*service, *holdQueue) {
	t.Helper()
	p := asked(t)
	q := &holdQueue{held: map[string]enforce.Queued{}}
	p.queue = q
	c := config.Default()
	table := &gate.Table{Allowance: allowance(c.Gate)}
	s := &service{pipeline: p, config: c, backlog: newBacklog(c.Gate, table)}
	p.judge.parser.Location = time.UTC
	p.judge.parser.Now = from
	for i := range n {
		at, id := from.Add(time.Duration(i)*time.Second), fmt.Sprintf("A%05X", i+1)
		for _, line := range []string{
			"postfix/submission/smtpd[7]: %s: client=pc[198.51.100.7], sasl_method=PLAIN, sasl_username=" + account,
			"postfix/cleanup[8]: %s: message-id=<%[1]s@pc>",
			"postfix/cleanup[8]: %s: milter-hold: END-OF-MESSAGE from pc[198.51.100.7]: milter triggers HOLD action; from=<a@b> to=<c@d>",
		} {
			p.judge.parser.Parse(fmt.Appendf(nil, at.UTC().Format("Jan _2 15:04:05")+" mx1 "+line, id))
		}
		q.held[id] = enforce.Queued{ID: id, Arrival: at, Login: account, Rcpts: rcpts, Held: true}
	}
	serveAsks(t, p)
	return s, q
}

func (s *service) throttleForTest(t *testing.T, account string, a rules.Action, from, until, ended time.Time) rules.Decision {
	t.Helper()
	d := rules.Decision{ID: account + a.String(), Rule: rules.HijackedMailbox, Subject: account, Action: a, Time: from, Until: until, Enforce: true}
	if _, err := s.store.Commit(t.Context(), store.Batch{Decisions: []rules.Decision{d}}); err != nil {
		t.Fatal(err)
	}
	if !ended.IsZero() {
		if _, err := s.store.EndDecisions(t.Context(), account, ended, "vedetta", "over"); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// Held mail of a throttled account leaves at its allowance, the oldest first,
// and nothing is lost or left behind.
func TestBacklogLeavesAtTheAllowance(t *testing.T) {
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	s, q := holding(t, victim, 12, 1, from)
	s.backlog.now.Set(s.throttleForTest(t, victim, rules.Throttle, from.Add(-time.Minute), from.Add(time.Hour), time.Time{}), "")
	now := time.Now()
	for round, want := range []int{5, 5, 6, 7, 12, 12} { // five at once, then one each 30 s
		at := now.Add([]time.Duration{0, time.Second, 31 * time.Second, time.Minute + 2*time.Second, time.Hour, 2 * time.Hour}[round])
		if round == 4 { // an hour later all that can be saved up, and no more
			want = 12
		}
		if err := s.letOutOnce(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if len(q.released) != want {
			t.Errorf("round %d: %d released, want %d", round, len(q.released), want)
		}
	}
	if !slices.IsSorted(q.released) {
		t.Errorf("not the oldest first: %v", q.released)
	}
}

// What a trusted client sends without a login is held and let out like anybody's,
// although its account is not named before the mail leaves.
func TestBacklogOfATrustedClient(t *testing.T) {
	const client = "client:192.0.2.7"
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	for name, lines := range map[string][]string{
		"postfix": {
			"mx1 postfix/smtpd[7]: %s: client=web[192.0.2.7]",
			"mx1 postfix/smtpd[7]: %s: hold: RCPT from web[192.0.2.7]: <c@d>: Recipient address triggers HOLD action; from=<a@b> to=<c@d>",
			"mx1 postfix/cleanup[8]: %s: message-id=<%[1]s@pc>",
		},
		"exim": {
			"mx1 exim[7]: %s <= a@b.test H=web [192.0.2.7] P=esmtp S=400 for c@d.test",
			"mx1 exim[7]: %s frozen by ACL",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, q := holding(t, victim, 0, 0, from)
			s.judge.parser.Directory = &mailq.Directory{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
			for i := range 3 {
				id := fmt.Sprintf("A%05X", i+1)
				if name == "exim" {
					id = fmt.Sprintf("1vwqhd-0000G%d-8m", i)
				}
				for _, line := range lines {
					s.judge.parser.Parse(fmt.Appendf(nil, from.Add(time.Duration(i)*time.Second).UTC().Format("Jan _2 15:04:05")+" "+line, id))
				}
				q.held[id] = enforce.Queued{ID: id, Arrival: from.Add(time.Duration(i) * time.Second), Rcpts: 1, Held: true}
			}
			s.backlog.now.Set(s.throttleForTest(t, client, rules.Throttle, from.Add(-time.Minute), from.Add(time.Hour), time.Time{}), "")
			if err := s.letOutOnce(t.Context(), time.Now()); err != nil {
				t.Fatal(err)
			}
			if len(q.released) != 3 {
				t.Errorf("released %v, want all three", q.released)
			}
		})
	}
}

// A throttle that ran out does not free a spammer's mail at once.
func TestBacklogAfterTheThrottle(t *testing.T) {
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	s, q := holding(t, victim, 12, 1, from)
	s.throttleForTest(t, victim, rules.Throttle, from.Add(-time.Minute), from.Add(5*time.Minute), from.Add(5*time.Minute))
	now := time.Now()
	for range 3 {
		if err := s.letOutOnce(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if len(q.released) != 5 {
		t.Errorf("%d released at once, want the burst", len(q.released))
	}
}

// What a person put on hold, and mail of an account that is held or blocked by
// now, stays.
func TestBacklogIsOnlyTheThrottles(t *testing.T) {
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	for name, prepare := range map[string]func(s *service){
		"never throttled": func(*service) {},
		"throttled later": func(s *service) {
			s.backlog.now.Set(s.throttleForTest(t, victim, rules.Throttle, from.Add(5*time.Minute), time.Time{}, time.Time{}), "")
		},
		"throttled long before": func(s *service) {
			s.throttleForTest(t, victim, rules.Throttle, from.Add(-2*time.Hour), from.Add(-time.Hour), from.Add(-time.Hour))
		},
		"blocked by now": func(s *service) {
			s.throttleForTest(t, victim, rules.Throttle, from.Add(-time.Minute), time.Time{}, time.Time{})
			s.backlog.now.Set(s.throttleForTest(t, victim, rules.Block, from.Add(time.Minute), time.Time{}, time.Time{}), "")
		},
		"somebody else's throttle": func(s *service) {
			s.backlog.now.Set(s.throttleForTest(t, "bob@shop.test", rules.Throttle, from.Add(-time.Minute), time.Time{}, time.Time{}), "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, q := holding(t, victim, 3, 1, from)
			prepare(s)
			if err := s.letOutOnce(t.Context(), time.Now()); err != nil {
				t.Fatal(err)
			}
			if len(q.released) > 0 {
				t.Errorf("released %v", q.released)
			}
		})
	}
}

// Postfix holds a throttled system user's mail whatever script it names: it
// leaves at the user's allowance, but not while the user or the script is held
// or blocked.
func TestBacklogOfAUsersScripts(t *testing.T) {
	games, err := user.Lookup("games")
	if err != nil {
		t.Skip("the system has no user games, as Debian does")
	}
	number, name, script := "uid:"+games.Uid, "user:games", "script:"+games.Uid+":x.php"
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	for _, row := range []struct {
		throttled, stopped string
		want               int
	}{
		{number, "", 1}, {name, "", 1}, {script, "", 1}, {"uid:4711", "", 0},
		{number, script, 0}, {number, name, 0}, {script, name, 0}, {script, number, 0}, {number, "uid:4711", 1},
	} {
		s, q := holding(t, victim, 0, 1, from)
		for _, line := range []string{
			"pickup[7]: A00001: uid=" + games.Uid + " from=<www@shop.test>",
			"cleanup[8]: A00001: hold: header Received: by mx1 (Postfix, from userid " + games.Uid + ")??id A00001 from local; from=<www@shop.test> to=<c@d>: slowly",
			"cleanup[8]: A00001: info: header X-PHP-Originating-Script: " + games.Uid + ":x.php from local; from=<www@shop.test> to=<c@d>",
			"cleanup[8]: A00001: message-id=<A00001@mx1>",
		} {
			if err := s.inObserve(t.Context(), func() {
				s.judge.parser.Parse([]byte(from.UTC().Format("Jan _2 15:04:05") + " mx1 postfix/" + line))
			}); err != nil {
				t.Fatal(err)
			}
		}
		q.held["A00001"] = enforce.Queued{ID: "A00001", Arrival: from, Rcpts: 1, Held: true}
		s.backlog.now.Set(s.throttleForTest(t, row.throttled, rules.Throttle, from.Add(-time.Minute), time.Time{}, time.Time{}), "")
		if row.stopped != "" {
			s.backlog.now.Set(s.throttleForTest(t, row.stopped, rules.Hold, from.Add(-time.Minute), time.Time{}, time.Time{}), "")
		}
		if err := s.letOutOnce(t.Context(), time.Now()); err != nil || len(q.released) != row.want {
			t.Errorf("%s is throttled and %q held: released %q, %v, want %d", row.throttled, row.stopped, q.released, err, row.want)
		}
	}
}

// A message with more recipients than can be saved up leaves all the same, and
// a queue that fails loses nothing.
func TestBacklogOfLargeMessages(t *testing.T) {
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	s, q := holding(t, victim, 2, 40, from)
	s.backlog.now.Set(s.throttleForTest(t, victim, rules.Throttle, from.Add(-time.Minute), time.Time{}, time.Time{}), "")
	q.fail = errors.New("postsuper: not permitted")
	if err := s.letOutOnce(t.Context(), time.Now()); err == nil {
		t.Error("no error of a queue that fails")
	}
	q.fail = nil
	now := time.Now()
	for _, minutes := range []int{0, 1, 19, 21} { // 40 recipients are 20 minutes
		if err := s.letOutOnce(t.Context(), now.Add(time.Duration(minutes)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		want := 1
		if minutes > 20 {
			want = 2
		}
		if len(q.released) != want {
			t.Errorf("after %d minutes %d released, want %d", minutes, len(q.released), want)
		}
	}
}

// A backlog that is older than its limit is told once.
func TestBacklogIsTold(t *testing.T) {
	from := time.Now().Add(-13 * time.Hour).Truncate(time.Second)
	s, _ := holding(t, victim, 12, 1, from)
	s.judge.policy = &rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}
	s.backlog.now.Set(s.throttleForTest(t, victim, rules.Throttle, from.Add(-time.Minute), time.Time{}, time.Time{}), "")
	for range 2 {
		if err := s.letOutOnce(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.inObserve(t.Context(), func() {
		if len(s.steps) != 1 || s.steps[0].finding.Rule != rules.ThrottleBacklog || s.steps[0].decision.Action != rules.Observe {
			t.Errorf("steps %+v", s.steps)
		}
	}); err != nil {
		t.Error(err)
	}
}
