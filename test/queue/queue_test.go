// Package queue tests that samples of a mail queue are what the mail server
// itself says is in it.
package queue

import (
	"fmt"
	"maps"
	"math"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/test/bed"
)

const (
	alice = "alice@shop.test"
	bob   = "bob@shop.test"
	carol = "carol@shop.test"
	erin  = "erin@blog.test"
	held  = "held@ok.test" // what is written to it waits in the hold queue
)

// nothing is tried again while the tests look.
var patient = []string{
	"queue_run_delay = 1h", "minimal_backoff_time = 1h",
	"smtpd_sender_restrictions = check_recipient_access inline:{ { " + held + " = HOLD by the test } }",
}

func start(t *testing.T, o bed.Options) (*bed.Bed, *mailq.PostfixSpool) {
	o.Main = append(o.Main, patient...)
	b := bed.Start(t, o)
	directory := &mailq.Directory{Realm: "shop.test"}
	return b, &mailq.PostfixSpool{Dir: filepath.Join(b.Dir, "spool"), Host: "mx1", Canonical: directory.Canonical}
}

// send sends n messages, as a user who has logged in or, without a login, as a
// stranger does.
func send(t *testing.T, b *bed.Bed, n int, login string, rcpts ...string) {
	t.Helper()
	if login == "" {
		for range n {
			if err := b.SendInbound("stranger@far.test", rcpts...); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	s := b.Session(login)
	for range n {
		if err := s.Send(login, rcpts...); err != nil {
			t.Fatalf("%s to %s: %v", login, rcpts, err)
		}
	}
}

// settled waits until the queue holds n messages of which Postfix tries none.
func settled(b *bed.Bed, n int) (all []bed.Queued) {
	b.Wait(fmt.Sprintf("%d messages that wait", n), func() bool {
		var err error
		all, err = b.Postqueue()
		return err == nil && len(all) == n && !slices.ContainsFunc(all, func(q bed.Queued) bool {
			return q.Queue != "deferred" && q.Queue != "hold"
		})
	})
	return all
}

// look samples the queue.
func look(t *testing.T, s *mailq.PostfixSpool) mailq.QueueSample {
	t.Helper()
	q, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func shares(counts map[string]int) map[string]mailq.Share {
	all := map[string]mailq.Share{}
	for name, n := range counts {
		all[name] = mailq.Share{Name: name, Count: n, Low: n, High: n}
	}
	return all
}

func byName(list []mailq.Share) map[string]mailq.Share {
	all := map[string]mailq.Share{}
	for _, s := range list {
		all[s.Name] = s
	}
	return all
}

// A sample says what postqueue says, and what it does not: whose mail it is.
func TestPostfix(t *testing.T) {
	for name, short := range map[string]bool{"long ids": false, "short ids": true} {
		t.Run(name, func(t *testing.T) {
			b, spool := start(t, bed.Options{ShortIDs: short})
			send(t, b, 7, alice, "r0@ok.test", "r1@soft.test", "r2@soft.test", "r3@dead.test")
			send(t, b, 3, bob, held)
			send(t, b, 2, erin, "r@dead.test")
			if err := b.Sendmail("nobody", "shop@shop.test", "r@soft.test"); err != nil {
				t.Fatal(err)
			}
			all := settled(b, 13)
			q := look(t, spool)
			compare(t, q, all)
			uid := "uid:" + strconv.Itoa(userID(t, "nobody"))
			want := shares(map[string]int{alice: 7, bob: 3, erin: 2, uid: 1})
			if diff := cmp.Diff(byName(q.ByAccount), want); diff != "" {
				t.Errorf("accounts (-got +want):\n%s", diff)
			}

			send(t, b, 1, carol, held)
			settled(b, 14)
			if q = look(t, spool); q.Opened != 1 || q.Held != 4 || q.Total != 14 {
				t.Errorf("after one more message was held: got %+v, want it alone to be opened", q)
			}
			run(t, b, "postsuper", "-H", "ALL")
			run(t, b, "postsuper", "-d", "ALL", "deferred")
			b.Wait("the queue to be empty", func() bool {
				q = look(t, spool)
				return q.Total == 0
			})
			if len(q.ByAccount) != 0 || !q.Exact || q.Held != 0 {
				t.Errorf("empty: got %+v", q)
			}
		})
	}
}

// A message that the sample knows already is read again when it has changed.
func TestPostfixPartlyDelivered(t *testing.T) {
	b, spool := start(t, bed.Options{})
	send(t, b, 1, alice, held, "r@soft.test")
	all := settled(b, 1)
	compare(t, look(t, spool), all)
	run(t, b, "postsuper", "-H", "ALL")
	run(t, b, "postqueue", "-f")
	b.WaitLog("to=<r@soft.test>, .* status=deferred")
	all = settled(b, 1)
	compare(t, look(t, spool), all)
}

// compare compares a sample with what postqueue says.
func compare(t *testing.T, q mailq.QueueSample, all []bed.Queued) {
	t.Helper()
	queues, domains, oldest := map[string]int{}, map[string]int{}, int64(math.MaxInt64)
	for _, m := range all {
		queues[m.Queue]++
		oldest = min(oldest, m.Arrival)
		to := map[string]int{}
		for _, r := range m.Recipients {
			_, domain, _ := strings.Cut(r.Address, "@")
			to[domain] = 1
		}
		for domain := range maps.Keys(to) {
			domains[domain]++
		}
	}
	if q.Total != len(all) || q.Deferred != queues["deferred"] || q.Held != queues["hold"] || q.Active+q.Incoming != 0 || !q.Exact || q.Read != len(all) {
		t.Errorf("got %+v, want %v", q, queues)
	}
	if diff := cmp.Diff(byName(q.ByDestination), shares(domains)); diff != "" {
		t.Errorf("destinations (-got +want):\n%s", diff)
	}
	if q.Oldest.Unix() != oldest {
		t.Errorf("the oldest is of %s, want %s", q.Oldest, time.Unix(oldest, 0))
	}
	if young := q.ByAge[0]; young.Count != len(all) {
		t.Errorf("%d messages are young, want all", young.Count)
	}
}

// userID is the number of a system user.
func userID(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func run(t *testing.T, b *bed.Bed, name string, args ...string) {
	t.Helper()
	if out, err := b.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
