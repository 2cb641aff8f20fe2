package dnsclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestOpen(t *testing.T) {
	for _, tt := range []struct {
		client *Client
		want   []string // in the error, or none
	}{
		{&Client{Upstreams: []string{"127.0.0.1:53", "[::1]:53", "[fe80::1%eth0]:5353"}}, nil},
		{&Client{}, []string{"no resolver is given"}},
		{&Client{Upstreams: []string{"127.0.0.1"}}, []string{`"127.0.0.1": want an IP address and a port`}},
		{&Client{Upstreams: []string{"dns.test:53"}}, []string{`"dns.test:53": want`}},
		{&Client{Upstreams: []string{"127.0.0.1:0"}}, []string{"nobody can answer there"}},
		{&Client{Upstreams: []string{"0.0.0.0:53", "[ff02::1]:53", "x"}}, []string{`"0.0.0.0:53": nobody`, `"[ff02::1]:53": nobody`, `"x": want`}},
		{&Client{Upstreams: []string{"127.0.0.1:53", "127.0.0.1:53"}}, []string{"given twice"}},
		{&Client{Upstreams: []string{"127.0.0.1:53"}, Window: 5000}, []string{"a window is at most 4096"}},
		{&Client{Upstreams: []string{"127.0.0.1:53"}, Sockets: -1}, []string{"cannot be negative"}},
	} {
		err := tt.client.Open()
		if (err != nil) != (tt.want != nil) {
			t.Errorf("%v: got %v", tt.client.Upstreams, err)
		}
		for _, text := range tt.want {
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%v: got %v, want %q in it", tt.client.Upstreams, err, text)
			}
		}
		tt.client.Close()
	}
}

func TestLookup(t *testing.T) {
	address := serve(t, listed)
	c := open(t, &Client{}, address)
	a := ask(t, c, "2.0.0.127.List.Test")
	if a.Status != Found || len(a.Addrs) != 1 || a.Addrs[0] != two || a.Server.String() != address || a.Cached {
		t.Errorf("got %+v", a)
	}
	if a := askType(t, c, "1.0.0.127.list.test.", dns.TypeTXT); a.Status != NXDomain || a.SOA.Zone != "list.test." {
		t.Errorf("got %+v", a)
	}
	if a := askType(t, c, "list.test", dns.TypeANY); a.Status != Unknown || a.Err == nil {
		t.Errorf("type ANY: got %+v", a)
	}
}

// What a server says it cannot tell is said with the server's name.
func TestFailuresSaid(t *testing.T) {
	codes := map[string]int{"servfail.": dns.RcodeServerFailure, "refused.": dns.RcodeRefused, "notimp.": dns.RcodeNotImplemented}
	address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := reply(q, codes[q.Question[0].Name])
		w.WriteMsg(m)
	})
	c := open(t, &Client{}, address)
	for name, want := range map[string]Status{"servfail.": ServFail, "refused.": Refused, "notimp.": OtherRcode} {
		a := ask(t, c, name)
		if a.Status != want || a.Rcode != codes[name] || !strings.Contains(a.Err.Error(), address) || !strings.Contains(a.Err.Error(), name) {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}

func TestCutThenTCP(t *testing.T) {
	address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := reply(q, dns.RcodeSuccess)
		if w.LocalAddr().Network() == "udp" {
			m.Truncated = true
		} else {
			for i := range 100 {
				m.Answer = append(m.Answer, record(fmt.Sprintf("%s 60 A 127.0.0.%d", q.Question[0].Name, i)))
			}
		}
		w.WriteMsg(m)
	})
	c := open(t, &Client{MixedCase: true}, address)
	if a := ask(t, c, "many.test."); a.Status != Found || len(a.Addrs) != 100 || c.Stats().Streams != 1 {
		t.Errorf("got %s, %d addresses; %+v", a.Status, len(a.Addrs), c.Stats())
	}
}

// A server that cuts its answer over UDP, and then does something over TCP.
func TestTCPFails(t *testing.T) {
	whole := func(q *dns.Msg) []byte {
		msg, err := reply(q, dns.RcodeSuccess, q.Question[0].Name+" 60 A 127.0.0.2").Pack()
		if err != nil {
			panic(err)
		}
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	for name, tt := range map[string]struct {
		answer func(q *dns.Msg) []byte
		want   Status
	}{
		"whole":            {whole, Found},
		"nothing":          {func(*dns.Msg) []byte { return nil }, Unreachable},
		"half a length":    {func(*dns.Msg) []byte { return []byte{0} }, Unreachable},
		"dies within":      {func(q *dns.Msg) []byte { return whole(q)[:20] }, Unreachable},
		"of no length":     {func(q *dns.Msg) []byte { return []byte{0, 0} }, Malformed},
		"another id":       {func(q *dns.Msg) []byte { q.Id++; return whole(q) }, Malformed},
		"another question": {func(q *dns.Msg) []byte { q.Question[0].Name = "evil.test."; return whole(q) }, Malformed},
		"longer than it is": {func(q *dns.Msg) []byte {
			return append([]byte{255, 255}, whole(q)[2:]...)
		}, Unreachable},
		"a failure without the question": {func(q *dns.Msg) []byte {
			return append(binary.BigEndian.AppendUint16([]byte{0, 12}, q.Id), 0x80, 0x82, 0, 0, 0, 0, 0, 0, 0, 0)
		}, ServFail},
		"success without the question": {func(q *dns.Msg) []byte {
			return append(binary.BigEndian.AppendUint16([]byte{0, 12}, q.Id), 0x80, 0x80, 0, 0, 0, 0, 0, 0, 0, 0)
		}, Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, &Client{}, serveCut(t, tt.answer))
			if a := ask(t, c, "a.test."); a.Status != tt.want {
				t.Errorf("got %s (%v), want %s", a.Status, a.Err, tt.want)
			}
		})
	}
}

// serveCut cuts what it answers over UDP, and writes answer over TCP.
func serveCut(t *testing.T, answer func(q *dns.Msg) []byte) string {
	udp, tcp := listenBoth(t)
	var group sync.WaitGroup
	group.Go(func() {
		readPackets(udp, func(conn *net.UDPConn, from *net.UDPAddr, q *dns.Msg) {
			m := reply(q, dns.RcodeSuccess)
			m.Truncated = true
			send(t, conn, from, m)
		})
	})
	group.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			if q, err := readFramed(conn); err == nil {
				conn.Write(answer(q))
			}
			conn.Close()
		}
	})
	t.Cleanup(func() {
		udp.Close()
		tcp.Close()
		group.Wait()
	})
	return udp.LocalAddr().String()
}

func readFramed(r io.Reader) (*dns.Msg, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, err
	}
	q := new(dns.Msg)
	return q, q.Unpack(msg)
}

// What does not answer the question is counted and ignored, and what does is
// taken afterwards.
func TestOnlyTheAnswerCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		change     func(m *dns.Msg)
		late, lied uint64
	}{
		"another id":         {func(m *dns.Msg) { m.Id++ }, 1, 0},
		"another name":       {func(m *dns.Msg) { m.Question[0].Name = "evil.test." }, 0, 1},
		"another type":       {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }, 0, 1},
		"another class":      {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, 0, 1},
		"another case":       {func(m *dns.Msg) { m.Question[0].Name = swapCase(m.Question[0].Name) }, 0, 1},
		"no question":        {func(m *dns.Msg) { m.Question, m.Answer, m.Rcode = nil, nil, dns.RcodeRefused }, 0, 1},
		"two questions":      {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, 0, 1},
		"a question":         {func(m *dns.Msg) { m.Response = false }, 0, 1},
		"another operation":  {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, 0, 1},
		"twice the real one": {func(m *dns.Msg) { m.Answer[0] = record(m.Question[0].Name + " 60 A 127.0.0.2") }, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			address := servePackets(t, func(conn *net.UDPConn, from *net.UDPAddr, q *dns.Msg) {
				lie := reply(q.Copy(), dns.RcodeSuccess, q.Question[0].Name+" 60 A 192.0.2.66")
				tt.change(lie)
				send(t, conn, from, lie)
				send(t, conn, from, reply(q, dns.RcodeSuccess, q.Question[0].Name+" 60 A 127.0.0.2"))
			})
			c := open(t, &Client{MixedCase: true, Patience: 5 * time.Second}, address)
			if a := ask(t, c, "question.of-some-length.test."); a.Status != Found || a.Addrs[0] != two {
				t.Fatalf("got %+v", a)
			}
			ok := func() bool { s := c.Stats(); return s.Late == tt.late && s.Mismatched == tt.lied }
			if !soon(ok) {
				t.Errorf("got %+v, want %d late and %d mismatched", c.Stats(), tt.late, tt.lied)
			}
		})
	}
}

func swapCase(name string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r ^ ' '
		}
		return r
	}, name)
}

// soon waits until ok.
func soon(ok func() bool) bool {
	for range 500 {
		if ok() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// Messages that are none.
func TestGarbage(t *testing.T) {
	address := servePackets(t, func(conn *net.UDPConn, from *net.UDPAddr, q *dns.Msg) {
		for _, msg := range []string{"", "x", "\x00\x00\x80\x80\x00\x01", strings.Repeat("\xff", 4000)} {
			conn.WriteToUDP([]byte(msg), from)
		}
		send(t, conn, from, reply(q, dns.RcodeSuccess, q.Question[0].Name+" 60 A 127.0.0.2"))
	})
	c := open(t, &Client{Patience: 5 * time.Second}, address)
	if a := ask(t, c, "a.test."); a.Status != Found || a.Addrs[0] != two {
		t.Errorf("got %+v", a)
	}
}

// The answer of somebody else does not even arrive.
func TestSpoofedSource(t *testing.T) {
	other := listenUDP(t)
	address := servePackets(t, func(conn *net.UDPConn, from *net.UDPAddr, q *dns.Msg) {
		send(t, other, from, reply(q, dns.RcodeSuccess, q.Question[0].Name+" 60 A 192.0.2.66"))
		send(t, conn, from, reply(q, dns.RcodeSuccess, q.Question[0].Name+" 60 A 127.0.0.2"))
	})
	c := open(t, &Client{Patience: 5 * time.Second}, address)
	if a := ask(t, c, "a.test."); a.Status != Found || a.Addrs[0] != two {
		t.Errorf("got %+v", a)
	}
	if s := c.Stats(); s.Mismatched != 0 || s.Late != 0 {
		t.Errorf("got %+v", s)
	}
}

// A datagram that is larger than what was asked for is read all the same.
func TestLargeDatagram(t *testing.T) {
	address := servePackets(t, func(conn *net.UDPConn, from *net.UDPAddr, q *dns.Msg) {
		m := reply(q, dns.RcodeSuccess)
		for i := range 40 {
			m.Answer = append(m.Answer, record(fmt.Sprintf("%s 60 TXT %q", q.Question[0].Name, strings.Repeat("x", 200+i))))
		}
		send(t, conn, from, m)
	})
	c := open(t, &Client{Patience: 5 * time.Second}, address)
	if a := askType(t, c, "a.test.", dns.TypeTXT); a.Status != Found || len(a.TXT) != 40 {
		t.Errorf("got %s (%v), %d texts", a.Status, a.Err, len(a.TXT))
	}
}

// A server too old for EDNS is asked again without.
func TestWithoutEDNS(t *testing.T) {
	address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			w.WriteMsg(reply(q, dns.RcodeFormatError))
			return
		}
		listed(w, q)
	})
	c := open(t, &Client{}, address)
	if a := ask(t, c, "2.0.0.127.list.test."); a.Status != Found {
		t.Errorf("got %+v", a)
	}
}

// Of 10,000 questions none stays without its answer where every twentieth
// datagram is lost on the way back, and of 300 none where a third is.
func TestLoss(t *testing.T) {
	for _, tt := range []struct {
		questions int
		lost      float64
	}{{10_000, 0.05}, {300, 0.3}} {
		t.Run(fmt.Sprint(tt.lost), func(t *testing.T) {
			address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
				if w.LocalAddr().Network() != "udp" || rand.Float64() >= tt.lost {
					listed(w, q)
				}
			})
			c := open(t, &Client{Patience: 200 * time.Millisecond}, address)
			askMany(t, c, tt.questions, 200)
			if s := c.Stats(); s.Resent == 0 || s.Sent < uint64(tt.questions) {
				t.Errorf("nothing was lost: %+v", s)
			}
		})
	}
}

// askMany asks questions of a blocklist and checks that each has its answer.
func askMany(t *testing.T, c *Client, questions, askers int) {
	t.Helper()
	_, wrong := measure(questions, askers, func(name string) bool {
		a := c.LookupFresh(context.Background(), name, dns.TypeA)
		want := NXDomain
		if strings.HasPrefix(name, "2.") {
			want = Found
		}
		return a.Status == want && a.Name == name
	})
	if wrong > 0 {
		t.Errorf("%d of %d questions have no answer, or a wrong one; %+v", wrong, questions, c.Stats())
	}
}

// Answers that come in any order and later than the question is sent again.
func TestDelay(t *testing.T) {
	address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		time.Sleep(rand.N(60 * time.Millisecond))
		listed(w, q)
	})
	c := open(t, &Client{Patience: 30 * time.Millisecond}, address)
	askMany(t, c, 500, 50)
	if s := c.Stats(); s.Resent == 0 {
		t.Errorf("no question was sent again: %+v", s)
	}
}

// A resolver that nobody listens as is left at once, and asked last for a while.
func TestDeadUpstream(t *testing.T) {
	alive := serve(t, listed)
	for name, tt := range map[string]struct {
		dead string
		want Status // where there is no other
	}{
		"nobody listens": {closedPort(t), Unreachable},
		"nobody answers": {servePackets(t, nobody), Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			alone := open(t, &Client{Patience: 20 * time.Millisecond}, tt.dead)
			if a := ask(t, alone, "2.0.0.127.list.test."); a.Status != tt.want || a.Server.String() != tt.dead {
				t.Errorf("alone: got %+v", a)
			}
			c := open(t, &Client{Patience: 20 * time.Millisecond}, tt.dead, alive)
			for i := range 20 {
				a := ask(t, c, fmt.Sprintf("2.%d.0.127.list.test.", i))
				if a.Status != Found || a.Server.String() != alive {
					t.Fatalf("got %+v", a)
				}
			}
			if s := c.Stats(); s.Sent != 21 {
				t.Errorf("the dead one was asked %d times, want once", s.Sent-20)
			}
		})
	}
}

func closedPort(t *testing.T) string {
	conn := listenUDP(t)
	conn.Close()
	return conn.LocalAddr().String()
}

// A resolver that was away is asked first again when it is back.
func TestUpstreamComesBack(t *testing.T) {
	c := open(t, &Client{}, serve(t, listed), serve(t, listed))
	first, second := c.upstreams[0], c.upstreams[1]
	first.restUntil.Store(int64(time.Since(first.started) + time.Hour))
	if a := ask(t, c, "1.list.test."); a.Server != second.server {
		t.Errorf("while it rests %v is asked", a.Server)
	}
	first.restUntil.Store(1) // long over
	if a := ask(t, c, "3.list.test."); a.Server != first.server || first.resting() {
		t.Errorf("after its rest %v is asked; resting is %v", a.Server, first.resting())
	}
	first.restUntil.Store(1)
	if first.resting() || !first.resting() {
		t.Error("not exactly one question finds out whether it is back")
	}
}

// What one resolver says counts for more than the silence of the other, and an
// answer for more than both.
func TestNextUpstream(t *testing.T) {
	broken := serve(t, func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(reply(q, dns.RcodeServerFailure)) })
	for _, tt := range []struct {
		upstreams []string
		want      Status
	}{
		{[]string{broken, closedPort(t)}, ServFail},
		{[]string{closedPort(t), broken}, ServFail},
		{[]string{broken, serve(t, listed)}, Found},
	} {
		if a := ask(t, open(t, &Client{}, tt.upstreams...), "2.list.test."); a.Status != tt.want {
			t.Errorf("%v: got %s, want %s", tt.upstreams, a.Status, tt.want)
		}
	}
}

func TestContextEnds(t *testing.T) {
	c := open(t, &Client{Patience: time.Minute}, servePackets(t, nobody))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if a := c.Lookup(ctx, "a.test.", dns.TypeA); a.Status != Timeout || !errors.Is(a.Err, context.DeadlineExceeded) {
		t.Errorf("deadline: got %+v", a)
	}
	if c.upstreams[0].resting() {
		t.Error("a short deadline counts against the resolver")
	}
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if a := c.Lookup(ctx, "a.test.", dns.TypeA); a.Status != Unknown || !errors.Is(a.Err, context.Canceled) {
		t.Errorf("cancelled: got %+v", a)
	}
	if n := len(c.upstreams[0].places); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

// Over TCP too.
func TestContextEndsOverTCP(t *testing.T) {
	hold := make(chan struct{})
	address := serveCut(t, func(*dns.Msg) []byte { <-hold; return nil })
	defer close(hold)
	c := open(t, &Client{}, address)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if a := c.Lookup(ctx, "a.test.", dns.TypeA); a.Status != Timeout {
		t.Errorf("got %+v", a)
	}
}

// Where no connection is free, the wait for one ends.
func TestNoStreamFree(t *testing.T) {
	t.Parallel() // it takes 3 s
	c := open(t, &Client{}, serveCut(t, func(*dns.Msg) []byte { return nil }))
	for range maxStreams {
		c.upstreams[0].streams <- struct{}{}
	}
	if a := ask(t, c, "a.test."); a.Status != Timeout || c.Stats().Streams != 0 {
		t.Errorf("got %+v; %+v", a, c.Stats())
	}
}

// Close ends what is in flight over UDP and TCP, and leaves no goroutine.
func TestClose(t *testing.T) {
	hold := make(chan struct{})
	silent := servePackets(t, nobody)
	slow := serveCut(t, func(*dns.Msg) []byte { <-hold; return nil })
	defer close(hold)
	for name, address := range map[string]string{"UDP": silent, "TCP": slow} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			c := &Client{Upstreams: []string{address}, Patience: time.Minute, Window: 2}
			if err := c.Open(); err != nil {
				t.Fatal(err)
			}
			var group sync.WaitGroup
			for i := range 20 { // more than there are places
				group.Go(func() {
					if a := c.Lookup(context.Background(), fmt.Sprintf("%d.test.", i), dns.TypeA); a.Status != Unknown || !errors.Is(a.Err, ErrClosed) {
						t.Errorf("got %+v", a)
					}
				})
			}
			if !soon(func() bool { return c.Stats().Sent >= 4 && (name == "UDP" || c.Stats().Streams > 0) }) {
				t.Errorf("nothing was asked: %+v", c.Stats())
			}
			c.Close()
			group.Wait()
			if a := c.Lookup(context.Background(), "late.test.", dns.TypeA); !errors.Is(a.Err, ErrClosed) {
				t.Errorf("afterwards: got %+v", a)
			}
			c.Close() // again is harmless
			goroutines(t, before)
		})
	}
}

// No more questions are in flight than there are places, and those that wait
// get theirs.
func TestWindow(t *testing.T) {
	var now, most atomic.Int64
	address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		listed(w, q)
	})
	c := open(t, &Client{Sockets: 2, Window: 3, Patience: 5 * time.Second}, address)
	askMany(t, c, 100, 30)
	if most.Load() > 6 {
		t.Errorf("%d questions were in flight, want at most 6", most.Load())
	}
}

// A socket that served long enough is replaced by one with another port, and
// still hands out the answer that somebody waits for on it.
func TestSocketReplaced(t *testing.T) {
	release := make(chan struct{})
	var mu sync.Mutex
	ports := map[int]bool{}
	address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		ports[w.RemoteAddr().(*net.UDPAddr).Port] = true
		mu.Unlock()
		if strings.HasPrefix(q.Question[0].Name, "slow.") {
			<-release
		}
		listed(w, q)
	})
	before := runtime.NumGoroutine()
	c := open(t, &Client{Sockets: 1, Patience: 5 * time.Second}, address)
	slow := make(chan Answer)
	go func() { slow <- c.Lookup(context.Background(), "slow.test.", dns.TypeA) }()
	if !soon(func() bool { mu.Lock(); defer mu.Unlock(); return len(ports) == 1 }) {
		t.Fatal("the first question does not arrive")
	}
	u := c.upstreams[0]
	u.mu.Lock()
	u.sockets[0].asked = socketQuestions
	u.mu.Unlock()
	if a := ask(t, c, "2.test."); a.Status != Found {
		t.Errorf("got %+v", a)
	}
	close(release)
	if a := <-slow; a.Status != NXDomain {
		t.Errorf("the old socket: got %+v", a)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ports) != 2 {
		t.Errorf("asked from %d ports, want 2", len(ports))
	}
	goroutines(t, before+1) // that of the new socket
}

// Ids differ, in no order, and among all questions in flight.
func TestIDs(t *testing.T) {
	var mu sync.Mutex
	ids := map[uint16]int{}
	ascending, last := 0, uint16(0)
	address := servePackets(t, func(conn *net.UDPConn, from *net.UDPAddr, q *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if ids[q.Id]++; q.Id == last+1 {
			ascending++
		}
		last = q.Id
		send(t, conn, from, reply(q, dns.RcodeNameError))
	})
	c := open(t, &Client{Patience: 5 * time.Second}, address)
	askMany(t, c, 99, 1)
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 90 || ascending > 3 {
		t.Errorf("%d ids for 99 questions, %d of them the next", len(ids), ascending)
	}
}

func TestIDInUse(t *testing.T) {
	s, err := openSocket(netip.MustParseAddrPort(closedPort(t)), 2, new(counters))
	if err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	q, err := newQuestion("a.test.", dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	calls := []*call{newCall(), newCall()}
	for _, c := range calls {
		c.question = q
		c.pack(true)
		c.setID(7)
		if err := s.add(c); err != nil {
			t.Fatal(err)
		}
	}
	if calls[0].id != 7 || calls[1].id == 7 || len(s.waiting) != 2 || msgID(calls[1].query) != calls[1].id {
		t.Errorf("ids %d and %d, %d wait", calls[0].id, calls[1].id, len(s.waiting))
	}
}
