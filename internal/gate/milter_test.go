package gate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

// serveMilter runs m on a free port until the test ends, and returns its
// address.
func serveMilter(t testing.TB, m *Milter) string {
	t.Helper()
	l, err := Listen("inet:127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	runMilter(t, m, l)
	return l.Addr().String()
}

func runMilter(t testing.TB, m *Milter, l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- m.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// An mta is Postfix's end of a connection.
type mta struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	out  []byte // not sent yet
}

// newMTA connects and agrees on what Postfix 3.7 offers.
func newMTA(t testing.TB, network, addr string) *mta {
	t.Helper()
	c := dialMTA(t, network, addr)
	c.put('O', offer(6, 0x1ff, 0x1fffff))
	if got := c.ask(); got != "negotiated" {
		t.Fatalf("negotiation: %q", got)
	}
	return c
}

func dialMTA(t testing.TB, network, addr string) *mta {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &mta{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func offer(version, actions, protocol uint32) string {
	var b []byte
	for _, n := range []uint32{version, actions, protocol} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return string(b)
}

// put writes a packet, to be sent with the next question.
func (c *mta) put(kind byte, data string) {
	c.out = append(binary.BigEndian.AppendUint32(c.out, uint32(len(data)+1)), kind)
	c.out = append(c.out, data...)
}

// send sends what was put.
func (c *mta) send() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// ask sends what was put and returns the answer in words, or "closed".
func (c *mta) ask() string {
	c.t.Helper()
	if c.send() != nil {
		return "closed"
	}
	for words := ""; ; {
		kind, data, err := c.packet()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				c.t.Fatal("no answer")
			}
			return words + "closed"
		}
		text := strings.TrimSuffix(string(data), "\x00")
		switch kind {
		case 'q':
			words += "hold: " + text + ", "
			continue
		case 'a':
			return words + "accept"
		case 'c':
			return words + "continue"
		case 'y':
			return words + text
		case 'O':
			return words + "negotiated"
		}
		return fmt.Sprintf("%s%c %q", words, kind, data)
	}
}

func (c *mta) packet() (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	data = make([]byte, binary.BigEndian.Uint32(head[:])-1)
	_, err = io.ReadFull(c.in, data)
	return head[4], data, err
}

// A letter is a message as Postfix tells of it.
type letter struct {
	login  string
	client string // address, of a client of smtpd's; empty for a local program
	qmqp   bool   // the client did not come through smtpd
	rcpts  []string
	header []string // name and value in turn
}

// begin tells of the sender.
func (c *mta) begin(l letter) {
	macros := []string{"{client_name}", "host.test", "{client_addr}", l.client, "{client_port}", "44130"}
	if l.client == "" {
		macros = []string{"{client_name}", "localhost", "{client_addr}", "127.0.0.1", "{client_port}", "0"}
	}
	if l.login != "" {
		macros = append(macros, "{auth_authen}", l.login)
	}
	if l.client == "" || l.qmqp {
		macros = append(macros, "i", "4jXK971kgrz1SRpG")
	}
	c.put('D', "M"+strings.Join(macros, "\x00")+"\x00")
	c.put('M', "<www@shop.test>\x00BODY=8BITMIME\x00")
}

// rcpt tells of a recipient and returns the answer.
func (c *mta) rcpt(to string) string {
	c.t.Helper()
	c.put('D', "R")
	c.put('R', "<"+to+">\x00")
	return c.ask()
}

// end tells of the headers and the end and returns the answer.
func (c *mta) end(header ...string) string {
	c.t.Helper()
	c.put('D', "T")
	for pair := range slices.Chunk(header, 2) {
		c.put('D', "L")
		c.put('L', pair[0]+"\x00"+pair[1]+"\x00")
	}
	c.put('D', "Ei\x004jXK971kgrz1SRpG\x00")
	c.put('E', "")
	return c.ask()
}

// tell tells of a whole message and returns the first answer that is not
// "continue".
func (c *mta) tell(l letter) string {
	c.t.Helper()
	c.begin(l)
	if len(l.rcpts) == 0 {
		l.rcpts = []string{"r@ok.test"}
	}
	for _, to := range l.rcpts {
		if got := c.rcpt(to); got != "continue" {
			c.put('A', "")
			return "rcpt: " + got
		}
	}
	got := c.end(l.header...)
	c.put('A', "")
	return got
}

func php(script string) []string {
	return []string{"To", "r@ok.test", "Subject", "x", headerOriginating, script, "X-Mailer", "y"}
}

func cpanel(script string) []string { return []string{headerScript, script} }

func TestMilterAnswers(t *testing.T) {
	table := &Table{Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 2} }}
	table.Set(decision(rules.Block, "mallory@shop.test"), "100% stopped.\nSecond line")
	table.Set(decision(rules.Hold, "bob@shop.test"), "held for review")
	table.Set(decision(rules.Throttle, "erin@shop.test"), "slowly")
	table.Set(decision(rules.Block, "client:192.0.2.66"), "this address")
	table.Set(decision(rules.Block, "client:127.0.0.1"), "this server")
	table.Set(decision(rules.Hold, "client:192.0.2.67"), "this address too")
	table.Set(decision(rules.Block, "script:33:evil.php"), "hacked")
	table.Set(decision(rules.Throttle, "script:33:slow.php"), "slowly")
	table.Set(decision(rules.Hold, "script:www.shop.test/up/"), "uploads")
	table.Set(decision(rules.Block, "script:www.shop.test/up/bad/x.php"), "worse")
	ended := decision(rules.Block, "carol@shop.test")
	ended.Until = time.Now().Add(-time.Second)
	table.Set(ended, "over")
	m := &Milter{Table: table}
	c := newMTA(t, "tcp", serveMilter(t, m))

	const away = "192.0.2.7"
	for _, test := range []struct {
		name   string
		letter letter
		want   string
	}{
		{"unknown account", letter{login: "alice@shop.test", client: away}, "accept"},
		{"blocked", letter{login: "mallory@shop.test", client: away}, "rcpt: 550 5.7.1 100%% stopped. Second line"},
		{"blocked in another spelling", letter{login: "Mallory@SHOP.test", client: away}, "rcpt: 550 5.7.1 100%% stopped. Second line"},
		{"blocked, by QMQP", letter{login: "mallory@shop.test", client: away, qmqp: true}, "hold: 100% stopped. Second line, accept"},
		{"held", letter{login: "bob@shop.test", client: away}, "hold: held for review, accept"},
		{"ended", letter{login: "carol@shop.test", client: away}, "accept"},
		{"throttled, too many at once", letter{login: "erin@shop.test", client: away, rcpts: []string{"a", "b", "c"}}, "hold: slowly, accept"},
		{"throttled, paid", letter{login: "erin@shop.test", client: away, rcpts: []string{"a", "b"}}, "accept"},
		{"throttled, nothing left", letter{login: "erin@shop.test", client: away}, "hold: slowly, accept"},
		{"no login", letter{client: away}, "rcpt: accept"},
		{"no login, blocked client", letter{client: "192.0.2.66"}, "rcpt: 550 5.7.1 this address"},
		{"no login, held client", letter{client: "192.0.2.67"}, "hold: this address too, accept"},
		{"no login, blocked client, by QMQP", letter{client: "192.0.2.66", qmqp: true}, "hold: this address, accept"},
		{"a login is not its client", letter{login: "alice@shop.test", client: "192.0.2.66"}, "accept"},
		{"local program", letter{}, "accept"},
		{"blocked script", letter{header: php("33:evil.php")}, "hold: hacked, accept"},
		{"another script of the same user", letter{header: php("33:good.php")}, "accept"},
		{"blocked script's code in an eval", letter{header: php("33:evil.php(12) : eval()'d code")}, "hold: hacked, accept"},
		{"forged second header", letter{header: slices.Concat(php("33:evil.php"), php("33:good.php"))}, "hold: hacked, accept"},
		{"forged second header of the other kind", letter{header: slices.Concat(php("33:evil.php"), cpanel("www.shop.test/good.php for 192.0.2.1"))}, "hold: hacked, accept"},
		{"first header unreadable", letter{header: slices.Concat(php("x"), php("33:evil.php"))}, "accept"},
		{"throttled script", letter{header: php("33:slow.php"), rcpts: []string{"a", "b"}}, "accept"},
		{"throttled script, nothing left", letter{header: php("33:slow.php")}, "hold: slowly, accept"},
		{"script below a held directory", letter{header: cpanel("www.shop.test/up/a/b.php for 192.0.2.1")}, "hold: uploads, accept"},
		{"the directory's strongest verdict", letter{header: cpanel("www.shop.test/up/bad/x.php for 192.0.2.1")}, "hold: worse, accept"},
		{"script beside a held directory", letter{header: cpanel("www.shop.test/upper.php for 192.0.2.1")}, "accept"},
		{"script header of a client", letter{client: away, header: php("33:evil.php")}, "rcpt: accept"},
		{"script header of a login", letter{login: "alice@shop.test", client: away, header: php("33:evil.php")}, "accept"},
		{"a login cannot pass for a script", letter{login: "33:evil.php", client: away}, "accept"},
		{"a long header", letter{header: []string{"X-Long", strings.Repeat("a", 100_000), headerOriginating, "33:evil.php"}}, "hold: hacked, accept"},
		{"a long script", letter{header: php("33:" + strings.Repeat("a", 100_000))}, "accept"},
		{"many headers", letter{header: append(slices.Repeat([]string{"X", "y"}, 5000), php("33:evil.php")...)}, "hold: hacked, accept"},
		{"headers of two scripts, many times", letter{header: slices.Concat(php("33:evil.php"), slices.Concat(slices.Repeat([][]string{cpanel("a/b for c")}, 2000)...))}, "hold: hacked, accept"},
		{"no headers, no recipients to speak of", letter{rcpts: []string{""}}, "accept"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.t = t
			if got := c.tell(test.letter); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	got := m.Stats()
	if got.Malformed+got.Slow+got.Panics != 0 || got.Connections != 1 || got.Answers[Reject] != 3 || got.Answers[Hold] != 16 {
		t.Errorf("counted %+v", got)
	}
}

func TestMilterDefersRecipientsWhereTheTableSaysSo(t *testing.T) {
	table := &Table{Throttled: Defer, Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 2} }}
	table.Set(decision(rules.Throttle, "erin@shop.test"), "slowly")
	table.Set(decision(rules.Throttle, "script:33:slow.php"), "slowly")
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: table}))
	c.begin(letter{login: "erin@shop.test", client: "192.0.2.7"})
	got := []string{c.rcpt("a"), c.rcpt("b"), c.rcpt("c"), c.end()}
	got = append(got, c.tell(letter{header: php("33:slow.php"), rcpts: []string{"a", "b", "c"}}))
	want := []string{"continue", "continue", "450 4.7.1 slowly", "accept", "hold: slowly, accept"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("answers (-got +want):\n%s", diff)
	}
}

func TestMilterLeavesThrottlesToThePolicyService(t *testing.T) {
	table := &Table{Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 1} }}
	for _, account := range []string{"erin@shop.test", "script:33:slow.php"} {
		table.Set(decision(rules.Throttle, account), "slowly")
	}
	table.Set(decision(rules.Hold, "bob@shop.test"), "held")
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: table, PolicyCharges: true}))
	erin := letter{login: "erin@shop.test", client: "192.0.2.7", rcpts: []string{"a", "b", "c"}}
	got := []string{c.tell(erin)}
	if !table.Lookup("erin@shop.test", time.Now()).Take(1, time.Now()) {
		t.Error("a recipient was charged")
	}
	erin.qmqp = true
	got = append(got, c.tell(erin), c.tell(letter{header: php("33:slow.php"), rcpts: []string{"a", "b"}}),
		c.tell(letter{login: "bob@shop.test", client: "192.0.2.7"}))
	want := []string{"accept", "hold: slowly, accept", "hold: slowly, accept", "hold: held, accept"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("answers (-got +want):\n%s", diff)
	}
}

// What a table of Postfix's holds already is not paid for twice.
func TestMilterLeavesLocalThrottlesToTheTable(t *testing.T) {
	table := &Table{Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 2} }}
	for _, account := range []string{"erin@shop.test", "script:33:slow.php"} {
		table.Set(decision(rules.Throttle, account), "slowly")
	}
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: table, LocalWaits: true}))
	got := []string{c.tell(letter{header: php("33:slow.php"), rcpts: []string{"a"}}), c.tell(letter{header: php("33:other.php"), rcpts: []string{"a"}}),
		c.tell(letter{login: "erin@shop.test", client: "192.0.2.7", rcpts: []string{"a"}})}
	want := []string{"hold: slowly, accept", "accept", "accept"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("answers (-got +want):\n%s", diff)
	}
	for account, want := range map[string]int{"script:33:slow.php": 2, "erin@shop.test": 1} {
		if got := table.Lookup(account, time.Now()).Free(time.Now()); got != want {
			t.Errorf("%s has %d recipients left, want %d", account, got, want)
		}
	}
}

func TestMilterDecisionsCountInMidSession(t *testing.T) {
	table := new(Table)
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: table}))
	alice := letter{login: "alice@shop.test", client: "192.0.2.7"}
	c.begin(alice)
	got := []string{c.rcpt("a")}
	table.Set(decision(rules.Block, alice.login), "no")
	got = append(got, c.rcpt("b"), c.end())
	c.put('A', "")
	table.Remove(alice.login)
	got = append(got, c.tell(alice))
	c.begin(alice)
	c.rcpt("abandoned")
	c.put('A', "")
	c.put('A', "")
	c.put('K', "")
	got = append(got, c.tell(letter{}))
	want := []string{"continue", "550 5.7.1 no", "550 5.7.1 no", "accept", "accept"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("answers (-got +want):\n%s", diff)
	}
	c.put('Q', "")
	if got := c.ask(); got != "closed" {
		t.Errorf("after QUIT: %q", got)
	}
}

func TestMilterTellsWhatItSaw(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Hold, "alice@shop.test"), "held")
	seen := make(chan Request, 10)
	m := &Milter{
		Table:     table,
		Canonical: func(login string) string { return strings.ToLower(login) + "@shop.test" },
		Script: func(uid int, name string) string {
			if uid == 1001 {
				return "script:/home/shop/" + strings.TrimPrefix(name, "1001:")
			}
			return ""
		},
		Seen: func(r Request) { seen <- r },
	}
	c := newMTA(t, "tcp", serveMilter(t, m))
	c.begin(letter{login: "mallory", client: "192.0.2.9"}) // abandoned
	c.rcpt("lost@ok.test")
	c.put('A', "")
	var many []string
	for i := range maxRecipients + 5 {
		many = append(many, fmt.Sprintf("r%d@ok.test", i))
	}
	for _, l := range []letter{
		{login: "Alice", client: "192.0.2.7", rcpts: []string{"r1@ok.test", "r2@ok.test"}},
		{client: "192.0.2.7"},
		{},
		{header: php("1001:form.php"), rcpts: []string{"r1@ok.test", "evil\nr3@ok.test"}},
		{header: php("33:form.php")},
		{login: "bob", client: "192.0.2.7", rcpts: many},
		{login: "bob", client: "192.0.2.7", rcpts: []string{strings.Repeat("r", 60_000)}},
	} {
		c.tell(l)
	}
	want := []Request{
		{Login: "Alice", Account: "alice@shop.test", Client: netip.MustParseAddr("192.0.2.7"), ClientName: "host.test", Answer: Hold,
			RecipientCount: 2, Recipients: []string{"r1@ok.test", "r2@ok.test"}},
		{Account: "script:/home/shop/form.php", ClientName: "localhost", RecipientCount: 2, Recipients: []string{"r1@ok.test"}},
		{Login: "bob", Account: "bob@shop.test", Client: netip.MustParseAddr("192.0.2.7"), ClientName: "host.test",
			RecipientCount: maxRecipients + 5, Recipients: many[:maxRecipients]},
		{Login: "bob", Account: "bob@shop.test", Client: netip.MustParseAddr("192.0.2.7"), ClientName: "host.test",
			RecipientCount: 1, Recipients: []string{strings.Repeat("r", 60_000)}},
	}
	for _, want := range want {
		want.State, want.QueueID, want.Sender = stateEnd, "4jXK971kgrz1SRpG", "www@shop.test"
		got := <-seen
		if got.Time.IsZero() {
			t.Error("no time")
		}
		got.Time = time.Time{}
		if diff := cmp.Diff(got, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("seen (-got +want):\n%s", diff)
		}
	}
	if len(seen) > 0 {
		t.Errorf("told more than once, or of nobody's mail: %+v", <-seen)
	}
}

func TestMilterSlowSeenDelaysNoAnswer(t *testing.T) {
	block := make(chan struct{})
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: new(Table), Seen: func(Request) { <-block }}))
	defer close(block)
	if got := c.tell(letter{login: "alice@shop.test", client: "192.0.2.7"}); got != "accept" {
		t.Errorf("got %q", got)
	}
}

func TestMilterPanicEndsOneConnectionOnly(t *testing.T) {
	mistake := func(string) string { panic("mistake") }
	for name, m := range map[string]*Milter{
		"login":  {Canonical: mistake},
		"script": {Script: func(int, string) string { panic("mistake") }},
		"seen":   {Seen: func(Request) { panic("mistake") }},
	} {
		t.Run(name, func(t *testing.T) {
			m.Table, m.Log = new(Table), slog.New(slog.DiscardHandler)
			addr := serveMilter(t, m)
			c := newMTA(t, "tcp", addr)
			l := letter{login: "alice@shop.test", client: "192.0.2.7"}
			if name == "script" {
				l = letter{header: php("33:x.php")}
			}
			c.tell(l)
			c.put('A', "")
			if got := c.tell(l); got != "rcpt: closed" {
				t.Errorf("got %q, want the connection closed", got)
			}
			if got := newMTA(t, "tcp", addr).tell(letter{}); got != "accept" {
				t.Errorf("the next connection got %q", got)
			}
			if got := m.Stats().Panics; got != 1 {
				t.Errorf("counted %d panics, want 1", got)
			}
		})
	}
}

func TestMilterMalformedPackets(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	packet := func(kind byte, data string) string {
		c := new(mta)
		c.put(kind, data)
		return string(c.out)
	}
	negotiated := packet('O', offer(6, 0x1ff, 0x1fffff))
	for _, test := range []struct{ name, text string }{
		{"nothing negotiated", packet('M', "<a@b>\x00")},
		{"negotiated twice", negotiated + negotiated},
		{"short negotiation", packet('O', "\x00\x00\x00\x06")},
		{"old protocol", packet('O', offer(2, 0x1f, 0x7f))},
		{"no quarantine", packet('O', offer(6, 0x1ff&^0x20, 0x1fffff))},
		{"every reply wanted", packet('O', offer(6, 0x1ff, 0x7f))},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"no length", negotiated + "\x00\x00\x00\x00"},
		{"half a gigabyte", negotiated + "\x20\x00\x00\x00M"},
		{"four gigabytes", negotiated + "\xff\xff\xff\xffE"},
		{"endless header", negotiated + "\xff\xff\xff\xffL"},
		{"sender without an end", negotiated + packet('M', "<a@b>")},
		{"no sender", negotiated + packet('M', "")},
		{"recipient without an end", negotiated + packet('R', "<a@b>")},
		{"empty macro", negotiated + packet('D', "")},
		{"connection, not asked for", negotiated + packet('C', "host\x004\x00\x19127.0.0.1\x00")},
		{"connection without an end", negotiated + packet('C', "x")},
		{"body, not asked for", negotiated + packet('B', "text")},
		{"unknown kind", negotiated + packet(0xff, "")},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &Milter{Table: table, Log: slog.New(slog.DiscardHandler)}
			c := dialMTA(t, "tcp", serveMilter(t, m))
			c.out = []byte(test.text)
			got := c.ask()
			if got == "negotiated" {
				got = c.ask()
			}
			if got != "closed" {
				t.Errorf("got %q, want the connection closed", got)
			}
			if got := m.Stats().Malformed; got != 1 {
				t.Errorf("counted %d malformed packets, want 1", got)
			}
		})
	}
}

func TestMilterPacketsInPieces(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: table}))
	c.begin(letter{login: "mallory@shop.test", client: "192.0.2.7"})
	c.put('R', "<r@ok.test>\x00")
	for _, octet := range c.out {
		if _, err := c.conn.Write([]byte{octet}); err != nil {
			t.Fatal(err)
		}
	}
	c.out = nil
	if got := c.ask(); got != "550 5.7.1 no" {
		t.Errorf("got %q", got)
	}
}

// Nobody is woken for the macros of DATA alone, nor for a message that is given
// up; what follows is answered, in whatever pieces it comes.
func TestMilterPassesOver(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Hold, "mallory@shop.test"), "held")
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: table}))
	piece := func() {
		t.Helper()
		if err := c.send(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, data := range []string{"T", "Ti\x004jXK971kgrz1SRpG\x00"} {
		c.begin(letter{login: "alice@shop.test", client: "192.0.2.7"})
		if got := c.rcpt("r@ok.test"); got != "continue" {
			t.Fatalf("a recipient: %q", got)
		}
		c.put('A', "")
		piece()
		c.begin(letter{login: "mallory@shop.test", client: "192.0.2.7"})
		for range 2 {
			if got := c.rcpt("r@ok.test"); got != "continue" {
				t.Fatalf("a recipient: %q", got)
			}
		}
		c.put('D', data)
		piece()
		c.put('D', "Ei\x004jXK971kgrz1SRpG\x00")
		c.put('E', "")
		for _, octet := range slices.Clone(c.out) {
			c.out = []byte{octet}
			piece()
		}
		if got := c.ask(); got != "hold: held, accept" {
			t.Errorf("after the macros %q: %q", data, got)
		}
	}
}

// What is left of a packet that came with the one before is waited for as it is.
func TestMilterPassesNothingBegun(t *testing.T) {
	c := newMTA(t, "tcp", serveMilter(t, &Milter{Table: new(Table)}))
	c.begin(letter{login: "alice@shop.test", client: "192.0.2.7"})
	c.put('R', "<a@ok.test>\x00")
	c.put('R', "<b@ok.test>\x00")
	rest := slices.Clone(c.out[len(c.out)-3:])
	c.out = c.out[:len(c.out)-3]
	if got := c.ask(); got != "continue" {
		t.Fatalf("the first recipient: %q", got)
	}
	c.out = rest
	if got := c.ask(); got != "continue" {
		t.Errorf("the second: %q", got)
	}
}

// A connection on which nothing is said is taken once something is.
func TestMilterSilentAtFirst(t *testing.T) {
	c := dialMTA(t, "tcp", serveMilter(t, &Milter{Table: new(Table)}))
	time.Sleep(100 * time.Millisecond)
	c.put('O', offer(6, 0x1ff, 0x1fffff))
	if got := c.ask(); got != "negotiated" {
		t.Errorf("got %q", got)
	}
}

func TestMilterNewerProtocol(t *testing.T) {
	c := dialMTA(t, "tcp", serveMilter(t, &Milter{Table: new(Table)}))
	c.put('O', offer(7, 0xffff, 0xffffffff))
	c.send()
	kind, data, err := c.packet()
	if err != nil || kind != 'O' || len(data) < 12 || binary.BigEndian.Uint32(data) != 6 {
		t.Fatalf("got %c %q, %v", kind, data, err)
	}
	if got := c.tell(letter{}); got != "accept" {
		t.Errorf("got %q", got)
	}
}

func TestMilterTooManyConnections(t *testing.T) {
	m := &Milter{Table: new(Table), MaxConns: 2}
	addr := serveMilter(t, m)
	a, b := newMTA(t, "tcp", addr), newMTA(t, "tcp", addr)
	if got := dialMTA(t, "tcp", addr).ask(); got != "closed" {
		t.Errorf("over the limit: got %q, want closed at once", got)
	}
	for _, c := range []*mta{a, b} {
		if got := c.tell(letter{}); got != "accept" {
			t.Errorf("older connections live on: got %q", got)
		}
	}
	if got := m.Stats().Refused; got != 1 {
		t.Errorf("counted %d refused connections, want 1", got)
	}
}

func TestMilterSlowPacketsAreClosed(t *testing.T) {
	m := &Milter{Table: new(Table), RequestTimeout: 50 * time.Millisecond}
	addr := serveMilter(t, m)
	drip := newMTA(t, "tcp", addr)
	drip.out = []byte("\x00\x00\x00\x10M")
	if got := drip.ask(); got != "closed" {
		t.Errorf("half a packet: got %q, want closed", got)
	}
	header := newMTA(t, "tcp", addr)
	header.out = []byte("\x00\x01\x00\x00Lname\x00value")
	if got := header.ask(); got != "closed" {
		t.Errorf("half a header: got %q, want closed", got)
	}
	if got := m.Stats().Slow; got != 2 {
		t.Errorf("counted %d slow connections, want 2", got)
	}
	if got := dialMTA(t, "tcp", addr).ask(); got != "closed" {
		t.Errorf("no negotiation: got %q, want closed", got)
	}
	m = &Milter{Table: new(Table), IdleTimeout: 50 * time.Millisecond}
	if got := newMTA(t, "tcp", serveMilter(t, m)).ask(); got != "closed" {
		t.Errorf("no event: got %q, want closed", got)
	}
	if got := m.Stats().Slow; got != 0 {
		t.Errorf("an idle connection was counted as slow")
	}
}

func TestMilterClientThatNeverReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "milter") // the buffers of a unix socket are small
	l, err := Listen("unix:"+path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	m := &Milter{Table: new(Table), WriteTimeout: 50 * time.Millisecond}
	runMilter(t, m, l)
	c := newMTA(t, "unix", path)
	c.begin(letter{login: "alice@shop.test", client: "192.0.2.7"})
	for { // the answers fill the buffers of both ends, then the milter gives up
		for range 1000 {
			c.put('R', "<r@ok.test>\x00")
		}
		if c.send() != nil {
			break
		}
	}
	if got := m.Stats().Slow; got != 1 {
		t.Errorf("counted %d slow connections, want 1", got)
	}
}

func TestMilterServeEndsWithItsContext(t *testing.T) {
	l, err := Listen("inet:127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	m := &Milter{Table: new(Table)}
	go func() { done <- m.Serve(ctx, l) }()
	c := newMTA(t, "tcp", l.Addr().String())
	silent := dialMTA(t, "tcp", l.Addr().String())
	c.tell(letter{})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	for _, c := range []*mta{c, silent} {
		if got := c.ask(); got != "closed" {
			t.Errorf("an open connection got %q, want closed", got)
		}
	}
	if got := m.Stats().Connections; got != 0 {
		t.Errorf("%d connections are open", got)
	}
}

func TestMilterUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "milter")
	l, err := Listen("unix:"+path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	runMilter(t, &Milter{Table: new(Table)}, l)
	if got := newMTA(t, "unix", path).tell(letter{}); got != "accept" {
		t.Errorf("got %q", got)
	}
}

func TestReadScript(t *testing.T) {
	long := strings.Repeat("a", 300)
	for _, test := range []struct {
		header, value string
		uid           int
		script        string // empty if it cannot be read
	}{
		{headerOriginating, "33:mail.php", 33, "33:mail.php"},
		{headerOriginating, "1001:a(1).php", 1001, "1001:a(1).php"},
		{headerOriginating, "33:mail.php(12) : eval()'d code", 33, "33:mail.php"},
		{headerOriginating, "33:mail.php(12) : eval()'d code(1) : eval()'d code", 33, "33:mail.php"},
		{headerOriginating, "33:mail(x) : eval()'d code", 33, "33:mail(x)"},
		{headerOriginating, "33:mail.php\n\tfolded", 33, "33:mail.php??folded"},
		{headerOriginating, "33:a b.php", 33, "33:a"},
		{headerOriginating, "33:ä\x01\xff.php", 33, "33:ä??.php"},
		{headerOriginating, "33:" + long, 33, "33:" + long[:171]},
		{headerOriginating, "33:", 33, ""},
		{headerOriginating, "33", 33, ""},
		{headerOriginating, ":x", 0, ""},
		{headerOriginating, "", 0, ""},
		{headerOriginating, " 33:x", 0, ""},
		{headerOriginating, "-1:x", 0, ""},
		{headerOriginating, "+1:x", 0, ""},
		{headerOriginating, "99999999999:x", 0, ""},
		{headerScript, "www.shop.test/a/b.php for 192.0.2.1", -1, "www.shop.test/a/b.php"},
		{headerScript, "www.shop.test/a/b.php for 192.0.2.1, 192.0.2.2", -1, "www.shop.test/a/b.php"},
		{headerScript, "www.shop.test/a b.php for 192.0.2.1", -1, "www.shop.test/a"},
		{headerScript, "www.shop.test/a/b.php", -1, ""},
		{headerScript, " for 192.0.2.1", -1, ""},
		{headerScript, "www.shop.test/" + long + " for 192.0.2.1", -1, ""},
		{"Subject", "33:mail.php", -1, ""},
	} {
		uid, script, ok := readScript(test.header, test.value)
		if !ok {
			script = ""
		}
		if ok != (test.script != "") || script != test.script || ok && uid != test.uid {
			t.Errorf("%s: %q: got %d, %q, %v, want %d, %q", test.header, test.value, uid, script, ok, test.uid, test.script)
		}
	}
}

// FuzzReadScript reads headers. What is believed is a bounded word of the
// header, without white space and control characters.
func FuzzReadScript(f *testing.F) {
	f.Add(true, "33:mail.php")
	f.Add(true, "33:mail.php(12) : eval()'d code")
	f.Add(false, "www.shop.test/a.php for 192.0.2.1")
	f.Add(true, "1:\x00\n\xff\u2028")
	f.Fuzz(func(t *testing.T, originating bool, value string) {
		header := headerScript
		if originating {
			header = headerOriginating
		}
		uid, script, ok := readScript(header, value)
		if !ok {
			return
		}
		if script == "" || len(script) > 3*maxLoggedHeader || strings.ContainsFunc(script, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			t.Errorf("script %q", script)
		}
		if !strings.HasPrefix(logged(value), script) {
			t.Errorf("%q is not how %q begins", script, value)
		}
		if originating != (uid >= 0) {
			t.Errorf("uid %d of %q", uid, script)
		}
	})
}

// FuzzMilter sends octets after a negotiation. Whatever they are, the milter
// neither panics nor hangs, and where nobody is blocked it refuses nobody.
func FuzzMilter(f *testing.F) {
	c := new(mta)
	c.begin(letter{login: "alice@shop.test", client: "192.0.2.7"})
	c.put('R', "<r@ok.test>\x00")
	c.put('L', headerOriginating+"\x0033:mail.php\x00")
	c.put('E', "")
	c.put('A', "")
	c.put('K', "")
	f.Add(c.out)
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x01R\x00\x00\x00\x03DM\x00\x00\x00\x00\x02Q\x00"))
	f.Add([]byte("\x00\x00\x00\x08Dkey\x00v\x00x\x00\x00\x00\x02L\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, theirs := net.Pipe()
		m := &Milter{Table: new(Table), Seen: func(r Request) {
			if r.Account == "" || r.RecipientCount < len(r.Recipients) {
				t.Errorf("seen %+v", r)
			}
		}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.serve(ours)
			ours.Close()
		}()
		var answers bytes.Buffer
		read := make(chan struct{})
		go func() {
			defer close(read)
			io.Copy(&answers, theirs)
		}()
		c := &mta{t: t, conn: theirs}
		c.put('O', offer(6, 0x1ff, 0x1fffff))
		c.out = append(c.out, text...)
		c.send() // fails when the milter hung up
		theirs.Close()
		<-done
		<-read
		c.in = bufio.NewReader(&answers)
		for {
			kind, _, err := c.packet()
			if err != nil {
				break
			}
			if kind != 'O' && kind != 'c' && kind != 'a' {
				t.Errorf("answered %c", kind)
			}
		}
		if got := m.Stats().Panics; got != 0 {
			t.Errorf("%d panics", got)
		}
	})
}

// BenchmarkMilter is a mail server on the same cores that asks as fast as it
// can, two questions a message (a recipient and the end), on 20 connections.
func BenchmarkMilter(b *testing.B) {
	addr := benchMilter(b)
	var asked atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range benchMilterConns {
		wg.Go(func() {
			for c := newMTA(b, "tcp", addr); asked.Add(2) <= int64(b.N)+1; {
				c.benchMessage(int(asked.Load()), nil)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
}

// BenchmarkMilterAt5000 is a mail server on the same cores that asks 5,000
// times a second, on 20 connections, and reports how long the answers took.
func BenchmarkMilterAt5000(b *testing.B) {
	const rate = 5000
	addr := benchMilter(b)
	took := make([][]time.Duration, benchMilterConns)
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for i := range benchMilterConns {
		wg.Go(func() {
			c := newMTA(b, "tcp", addr)
			for n := 2 * i; n < b.N; n += 2 * benchMilterConns {
				time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / rate)))
				c.benchMessage(n, func(d time.Duration) { took[i] = append(took[i], d) })
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50-µs", 0.5}, {"p99-µs", 0.99}, {"p99.9-µs", 0.999}} {
		b.ReportMetric(float64(all[int(q.at*float64(len(all)-1))].Nanoseconds())/1000, q.name)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
}

const benchMilterConns = 20

func benchMilter(b *testing.B) string {
	table := new(Table)
	for i := range benchBlocked {
		table.Set(decision(rules.Block, fmt.Sprintf("user%d@shop.test", i*(benchLogins/benchBlocked))), "Sending is stopped.")
	}
	var messages atomic.Int64
	return serveMilter(b, &Milter{Table: table, Seen: func(Request) { messages.Add(1) }})
}

// benchMessage asks about a message of login n and reports how long each of
// the two answers took.
func (c *mta) benchMessage(n int, report func(time.Duration)) {
	ask := func(want ...string) {
		sent := time.Now()
		if got := c.ask(); !slices.Contains(want, got) {
			c.t.Errorf("got %q", got)
		}
		if report != nil {
			report(time.Since(sent))
		}
	}
	c.begin(letter{login: fmt.Sprintf("user%d@shop.test", n%benchLogins), client: "192.0.2.7"})
	c.put('D', "R")
	c.put('R', "<somebody@somewhere.test>\x00")
	ask("continue", "550 5.7.1 Sending is stopped.")
	for range 10 {
		c.put('L', "Received\x00from host.test (host.test [192.0.2.7]) by mx.shop.test with ESMTPSA id 4jXK971kgrz1SRpG\x00")
	}
	c.put('D', "Ei\x004jXK971kgrz1SRpG\x00")
	c.put('E', "")
	ask("accept", "550 5.7.1 Sending is stopped.")
	c.put('A', "")
}
