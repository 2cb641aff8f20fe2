package queue

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/test/bed"
)

func postfixQueue(b *bed.Bed) *enforce.PostfixQueue {
	return &enforce.PostfixQueue{ConfigDir: b.Config}
}

var ofAlice = enforce.OfAccount([]string{alice}, nil, nil)

// find returns what is queued of those whom want accepts, and wants n of it.
func find(t *testing.T, q enforce.Queue, want func(enforce.Queued) bool, n int) []enforce.Queued {
	t.Helper()
	ms, err := q.Find(t.Context(), want)
	if err != nil || len(ms) != n {
		t.Fatalf("found %d messages, %v; want %d: %+v", len(ms), err, n, ms)
	}
	return ms
}

// act does something to messages, of which it wants n to be concerned.
func act(t *testing.T, do string, n int, q enforce.Queue, ms []enforce.Queued) {
	t.Helper()
	f := map[string]func() (int, error){
		"hold":    func() (int, error) { return q.Hold(t.Context(), ms) },
		"release": func() (int, error) { return q.Release(t.Context(), ms) },
		"delete":  func() (int, error) { return q.Delete(t.Context(), ms) },
	}[do]
	if got, err := f(); got != n || err != nil {
		t.Fatalf("%s: got %d, %v; want %d", do, got, err, n)
	}
}

// An account's mail is what it handed in, whoever it says it is from, and
// nobody else's.
func TestPostfixAccount(t *testing.T) {
	for name, short := range map[string]bool{"long ids": false, "short ids": true} {
		t.Run(name, func(t *testing.T) {
			b := bed.Start(t, bed.Options{ShortIDs: short, Main: append([]string{"relay_domains = soft.test"}, patient...)})
			q := postfixQueue(b)
			as := func(login, from string, rcpts ...string) {
				t.Helper()
				if err := b.Session(login).Send(from, rcpts...); err != nil {
					t.Fatal(err)
				}
			}
			as(alice, "ceo@bank.test", "r@soft.test", "s@soft.test")
			as(alice, bob, "r@soft.test")
			as(bob, alice, "r@soft.test")
			send(t, b, 1, "", "r@soft.test")
			if err := b.Sendmail("nobody", alice, "r@soft.test"); err != nil {
				t.Fatal(err)
			}
			settled(b, 5)

			mine := find(t, q, ofAlice, 2)
			if m := mine[0]; m.Sender != "ceo@bank.test" || m.Login != alice || m.Rcpts != 2 || m.Size < 100 || m.UID != -1 ||
				m.Client.String() != "127.0.0.1" || time.Since(m.Arrival) > time.Minute || m.Arrival.Nanosecond() != 0 || m.Held {
				t.Errorf("got %+v", m)
			}
			find(t, q, enforce.OfAccount(nil, nil, []int{userID(t, "nobody")}), 1)
			find(t, q, enforce.OfAccount([]string{""}, []string{""}, nil), 0)

			act(t, "hold", 2, q, mine)
			if all, err := b.Postqueue(); err != nil || onHold(all) != 2 {
				t.Errorf("%d of %+v are held, %v; want 2", onHold(all), all, err)
			}
			act(t, "hold", 0, q, mine) // once is enough
			mine = find(t, q, ofAlice, 2)
			if !mine[0].Held || !mine[1].Held {
				t.Errorf("got %+v, want both held", mine)
			}
			header, err := q.Headers(t.Context(), mine[0])
			if err != nil || !strings.Contains(string(header), "\nSubject: From the test bed\n") || strings.Contains(string(header), "Hello") {
				t.Errorf("header %q, %v", header, err)
			}
			if got := enforce.Sample(t.Context(), q, mine, 5); len(got) != 2 || got[0].Subject != "From the test bed" || got[0].To["soft.test"] != 2 ||
				!strings.Contains(got[0].Received, "sender: "+alice) && !strings.Contains(got[0].Received, "ESMTPA") || strings.Contains(fmt.Sprint(got), "r@soft.test") {
				t.Errorf("evidence %+v", got)
			}
			act(t, "delete", 2, q, mine)
			settled(b, 3)
			act(t, "delete", 0, q, mine)
			if _, err := q.Headers(t.Context(), mine[0]); err == nil {
				t.Error("a message that is gone has a header")
			}
		})
	}
}

func onHold(all []bed.Queued) (n int) {
	for _, m := range all {
		if m.Queue == "hold" {
			n++
		}
	}
	return n
}

// What is released is delivered at once, also if Postfix had put it off to a
// later time; what was not held stays where it is.
func TestPostfixReleaseAtOnce(t *testing.T) {
	b, _ := start(t, bed.Options{})
	q := postfixQueue(b)
	send(t, b, 3, alice, held)
	send(t, b, 2, alice, "r@soft.test")
	settled(b, 5)
	b.WaitLog("to=<r@soft.test>, .* status=deferred")
	later := time.Now().Add(time.Hour)
	mine := find(t, q, ofAlice, 5)
	for _, m := range mine {
		if m.Held {
			if err := os.Chtimes(filepath.Join(b.Dir, "spool/hold", m.ID), later, later); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	began := time.Now()
	act(t, "release", 3, q, mine)
	b.Wait("three mails to arrive", func() bool { return len(b.Received(bed.OK)) == 3 })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("released mail arrived after %v", took)
	}
	if got := len(b.Received(bed.Soft)); got != 2 {
		t.Errorf("mail that was put off was tried %d times, want twice: before its time", got)
	}
	settled(b, 2)
}

// A short id may belong to another message by now: that one is left alone.
func TestPostfixIDRecurs(t *testing.T) {
	b, _ := start(t, bed.Options{ShortIDs: true})
	q := postfixQueue(b)
	send(t, b, 2, alice, held)
	settled(b, 2)
	mine := find(t, q, ofAlice, 2)
	hold := filepath.Join(b.Dir, "spool/hold")
	// What happens when the inode is given out again in the same microsecond of
	// a later second.
	text, err := os.ReadFile(filepath.Join(hold, mine[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	seconds := func(t int64) []byte { return fmt.Append(nil, t, " ") } // and the microseconds follow
	at := mine[0].Arrival.Unix()
	text = bytes.Replace(text, seconds(at), seconds(at-7), 1)
	if err := os.WriteFile(filepath.Join(hold, mine[0].ID), text, 0o700); err != nil {
		t.Fatal(err)
	}
	act(t, "release", 1, q, mine[:2])
	b.Wait("one mail to arrive", func() bool { return len(b.Received(bed.OK)) == 1 })
	act(t, "hold", 0, q, mine)
	act(t, "delete", 0, q, mine)
	if _, err := q.Headers(t.Context(), mine[0]); err == nil {
		t.Error("another message's header was told")
	}
	if left := settled(b, 1); left[0].ID != mine[0].ID || left[0].Queue != "hold" {
		t.Errorf("left is %+v", left)
	}
}

// A message in delivery is held too: Postfix finishes what it has begun, and
// tries no more. What was delivered meanwhile is not delivered again.
func TestPostfixHoldInDelivery(t *testing.T) {
	slow := startSlow(t)
	b, _ := start(t, bed.Options{Main: []string{"transport_maps = inline:{ { slow.test = smtp:[127.0.0.1]:" + slow.port() + " } }"}})
	q := postfixQueue(b)
	send(t, b, 1, alice, "r@slow.test")
	slow.waitFor(t)
	mine := find(t, q, ofAlice, 1)
	act(t, "hold", 1, q, mine)
	slow.answer <- "451 4.7.1 later"
	b.WaitLog("to=<r@slow.test>, .* status=deferred")
	act(t, "hold", 0, q, mine)
	if all := settled(b, 1); onHold(all) != 1 {
		t.Errorf("got %+v, want it held", all)
	}

	act(t, "release", 1, q, mine)
	slow.waitFor(t)
	act(t, "hold", 1, q, mine)
	slow.answer <- "250 2.0.0 ok"
	b.WaitLog("to=<r@slow.test>, .* status=sent")
	b.Wait("the message to be held without recipients", func() bool {
		rest := find(t, q, ofAlice, 1)
		return rest[0].Held && rest[0].Rcpts == 0
	})
	act(t, "release", 1, q, mine)
	settled(b, 0)
	if n := len(slow.waits); n != 0 {
		t.Errorf("delivered %d times more", n)
	}
}

// A slowServer is an SMTP server that answers the end of a message when it is
// told to.
type slowServer struct {
	net.Listener
	waits  chan struct{} // a message has come
	answer chan string
}

func startSlow(t *testing.T) *slowServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &slowServer{l, make(chan struct{}, 100), make(chan string)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.talk(t, c)
		}
	}()
	return s
}

func (s *slowServer) port() string { return fmt.Sprint(s.Addr().(*net.TCPAddr).Port) }

func (s *slowServer) waitFor(t *testing.T) {
	t.Helper()
	select {
	case <-s.waits:
	case <-time.After(20 * time.Second):
		t.Fatal("no message came to the slow server")
	}
}

func (s *slowServer) talk(t *testing.T, c net.Conn) {
	defer c.Close()
	fmt.Fprint(c, "220 slow.test\r\n")
	r := bufio.NewScanner(c)
	data := false
	for r.Scan() {
		line := r.Text()
		switch {
		case data && line != ".":
			continue
		case data:
			data = false
			s.waits <- struct{}{}
			select {
			case answer := <-s.answer:
				fmt.Fprint(c, answer+"\r\n")
			case <-t.Context().Done():
				return
			}
		case line == "DATA":
			data = true
			fmt.Fprint(c, "354 go on\r\n")
		default:
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

// Ten thousand messages are a matter of seconds.
func TestPostfixTenThousand(t *testing.T) {
	const many = 10_000
	b, _ := start(t, bed.Options{})
	q := postfixQueue(b)
	send(t, b, 1, alice, held)
	send(t, b, 20, bob, "r@soft.test")
	model := filepath.Join(b.Dir, "spool/hold", settled(b, 21)[0].ID)
	for _, m := range find(t, q, ofAlice, 1) {
		model = filepath.Join(b.Dir, "spool/hold", m.ID)
	}
	text, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(b.Dir, "spool/deferred/0")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	own := func(path string) {
		t.Helper()
		if err := os.Chown(path, userID(t, "postfix"), -1); err != nil {
			t.Fatal(err)
		}
	}
	own(dir)
	for i := range many - 1 {
		path := filepath.Join(dir, "4jXRNL0000z"+base(i, 5))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		later := time.Now().Add(time.Hour)
		if err := os.Chtimes(path, later, later); err != nil {
			t.Fatal(err)
		}
		own(path)
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var mine []enforce.Queued
	timed(t, "find", many, func() { mine = find(t, q, ofAlice, many) })
	timed(t, "hold", many, func() { act(t, "hold", many-1, q, mine) })
	timed(t, "delete", many/2, func() { act(t, "delete", many/2, q, mine[:many/2]) })
	timed(t, "release", many/2, func() { act(t, "release", many/2, q, mine) })
	timed(t, "delivery", many/2, func() {
		eventually(t, "the released mail to arrive", func() bool { return len(b.Received(bed.OK)) == many/2 })
	})
	settled(b, 20)
	if got := len(b.Received(bed.Soft)); got != 20 {
		t.Errorf("mail of others was tried %d times, want once each, 20", got)
	}
}

// base writes n with digits of Postfix's ids.
func base(n, width int) string {
	const digits = "0123456789BCDFGHJKLMNPQRSTVWXYZ"
	out := make([]byte, width)
	for i := range out {
		out[width-1-i] = digits[n%len(digits)]
		n /= len(digits)
	}
	return string(out)
}
