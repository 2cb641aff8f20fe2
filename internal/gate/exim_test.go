package gate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

// serveExim runs x on a free port until the test ends, and returns its address.
func serveExim(t testing.TB, x *Exim) string {
	t.Helper()
	l, err := Listen("inet:127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	runExim(t, x, l)
	return l.Addr().String()
}

func runExim(t testing.TB, x *Exim, l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- x.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// readsocket puts one question as Exim does, and returns the answer.
func readsocket(t testing.TB, addr, question string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, question); err != nil {
		t.Fatal(err)
	}
	conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// asked writes a question; pairs are name=value.
func asked(pairs ...string) string { return strings.Join(pairs, "\t") + "\n" }

func TestEximAnswers(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "Sending is stopped.\nOK")
	table.Set(decision(rules.Hold, "bob@shop.test"), "held for review")
	table.Set(decision(rules.Block, "client:192.0.2.66"), "this address")
	table.Set(decision(rules.Block, "client:2001:db8::1"), "this one too")
	table.Set(decision(rules.Block, "script:/home/u/public_html/wp"), "this script")
	table.Set(decision(rules.Block, "script:/home/u/public_html/shop/contact.php"), "this file")
	table.Set(decision(rules.Hold, "user:held"), "this user")
	table.Set(decision(rules.Block, "user:mallory"), "that user")
	table.Set(decision(rules.Block, "script:"+strings.Repeat("/long", 60)[:maxAccount-7]), "a long path")
	addr := serveExim(t, &Exim{Table: table})

	const no, client = "DENY 5.7.1 Sending is stopped. OK", "ip=192.0.2.7"
	for _, test := range []struct{ name, question, want string }{
		{"unknown account", asked("stage=rcpt", client, "auth=alice@shop.test"), "OK"},
		{"blocked at a recipient", asked("stage=rcpt", client, "auth=mallory@shop.test", "rcpts=0"), no},
		{"blocked after the data", asked("stage=data", client, "auth=mallory@shop.test", "rcpts=1"), no},
		{"blocked in another spelling", asked("stage=rcpt", client, "auth=Mallory@SHOP.test"), no},
		{"without a newline", strings.TrimSuffix(asked("stage=rcpt", client, "auth=mallory@shop.test"), "\n"), no},
		{"held at a recipient", asked("stage=rcpt", client, "auth=bob@shop.test"), "OK"},
		{"held after the data", asked("stage=data", client, "auth=bob@shop.test"), "FREEZE held for review"},
		{"no login", asked("stage=rcpt", client, "auth="), "OK"},
		{"no login, blocked client", asked("stage=rcpt", "ip=192.0.2.66", "auth="), "DENY 5.7.1 this address"},
		{"no login, blocked client in full", asked("stage=rcpt", "ip=2001:0db8:0:0:0:0:0:1"), "DENY 5.7.1 this one too"},
		{"a login is not its client", asked("stage=rcpt", "ip=192.0.2.66", "auth=alice@shop.test"), "OK"},
		{"no address at all", asked("stage=rcpt", "ip=nonsense"), "OK"},
		{"a client's ident is nobody", asked("stage=rcpt", client, "local=mallory", "cwd=/home/u/public_html/wp"), "OK"},
		{"blocked directory", asked("stage=local", "auth=u", "local=u", "cwd=/home/u/public_html/wp"), "FREEZE this script"},
		{"the next directory", asked("stage=local", "auth=u", "local=u", "cwd=/home/u/public_html"), "OK"},
		{"a directory in it", asked("stage=local", "local=u", "cwd=/home/u/public_html/wp/sub"), "OK"},
		{"blocked file", asked("stage=local", "local=u", "cwd=/home/u/public_html/shop", "php=33:contact.php"), "FREEZE this file"},
		{"blocked file in an eval", asked("stage=local", "local=u", "cwd=/home/u/public_html/shop", "php=33:contact.php(7) : eval()'d code"), "FREEZE this file"},
		{"blocked file and a header of its own", asked("stage=local", "local=u", "cwd=/home/u/public_html/shop", "php=33:contact.php? 33:other.php"), "FREEZE this file"},
		{"another file", asked("stage=local", "local=u", "cwd=/home/u/public_html/shop", "php=33:index.php"), "OK"},
		{"a file elsewhere", asked("stage=local", "local=u", "cwd=/home/u/public_html", "php=33:shop/contact.php"), "OK"},
		{"held user", asked("stage=local", "local=held", "cwd=/"), "FREEZE this user"},
		{"the stronger one counts", asked("stage=local", "local=held", "cwd=/home/u/public_html/wp"), "FREEZE this script"},
		{"blocked user", asked("stage=local", "auth=mallory", "local=mallory", "cwd=/home/mallory"), "FREEZE that user"},
		{"blocked user in a session of its own", asked("stage=rcpt", "ip=", "auth=mallory", "local=mallory"), "DENY 5.7.1 that user"},
		{"a path that is cut", asked("stage=local", "local=u", "cwd="+strings.Repeat("/long", 60)), "FREEZE a long path"},
		{"nothing known", asked("stage=local", "local=", "cwd="), "OK"},
		{"in another order, with others", asked("x=y", "auth=mallory@shop.test", client, "stage=rcpt", "subject= stage=local"), no},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := readsocket(t, addr, test.question); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What cannot be read refuses nobody, and what a stranger writes into the
// subject changes nothing.
func TestEximQuestionsThatAreForged(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	x := &Exim{Table: table}
	addr := serveExim(t, x)
	const begin = "stage=data\tip=192.0.2.7\tauth=mallory@shop.test\trcpts=1\tsubject="
	for _, subject := range []string{"a\tauth=alice@shop.test", "a\nstage=local\tauth=alice@shop.test\n", "\t\t\t", "=", "\x00\xff", strings.Repeat("s", 20_000), "\n" + strings.Repeat("s\n", 200_000)} {
		if got := readsocket(t, addr, begin+subject+"\n"); got != "DENY 5.7.1 no" {
			t.Errorf("subject %.40q: got %q", subject, got)
		}
	}
	before := x.Stats().Malformed
	malformed := []string{
		"\n", "junk\n", "stage=rcpt\tjunk\n", "stage=\tip=192.0.2.7\n", "stage=RCPT\n", "=rcpt\n",
		"ip=192.0.2.7\tauth=mallory@shop.test\n",
		"stage=rcpt\tip=192.0.2.7\tauth=alice@shop.test\tauth=mallory@shop.test\n",
		"stage=rcpt\tip=192.0.2.7\tauth=\tauth=mallory@shop.test\n",
		"stage=rcpt\tip=192.0.2.7\tfrom=a\tb\tauth=mallory@shop.test\n",
		strings.Repeat("x=y\t", 200) + "stage=rcpt\tip=192.0.2.7\tauth=mallory@shop.test\n",
		"stage=rcpt\tip=192.0.2.7\tauth=mallory@shop.test\tx=" + strings.Repeat("x", 2*maxQuestion) + "\n",
		"GET / HTTP/1.0\r\n\r\n",
	}
	for _, question := range malformed {
		if got := readsocket(t, addr, question); got != "OK" {
			t.Errorf("%.60q: got %q", question, got)
		}
	}
	if got := x.Stats().Malformed - before; got != uint64(len(malformed)) {
		t.Errorf("counted %d malformed questions, want %d", got, len(malformed))
	}
}

func TestEximThrottle(t *testing.T) {
	const client, alice = "ip=192.0.2.7", "auth=alice@shop.test"
	ask := func(t *testing.T, addr string, steps [][2]string) {
		t.Helper()
		for i, step := range steps {
			if got := readsocket(t, addr, step[0]); got != step[1] {
				t.Errorf("step %d: got %q, want %q", i, got, step[1])
			}
		}
	}
	allowance := func(string) Allowance { return Allowance{Every: time.Hour, Burst: 3} }
	t.Run("held", func(t *testing.T) {
		table := &Table{Allowance: allowance}
		table.Set(decision(rules.Throttle, "alice@shop.test"), "slowly")
		table.Set(decision(rules.Throttle, "user:u"), "script")
		ask(t, serveExim(t, &Exim{Table: table}), [][2]string{
			{asked("stage=rcpt", client, alice, "rcpts=0"), "OK"},
			{asked("stage=rcpt", client, alice, "rcpts=99"), "OK"},
			{asked("stage=data", client, alice, "rcpts=2"), "OK"},
			{asked("stage=data", client, alice, "rcpts=2"), "FREEZE slowly"},
			{asked("stage=data", client, alice, "rcpts=1"), "OK"},
			{asked("stage=data", client, alice, "rcpts=nonsense"), "FREEZE slowly"},
			{asked("stage=local", "local=u", "rcpts=3"), "OK"},
			{asked("stage=local", "local=u", "rcpts=1"), "FREEZE script"},
		})
	})
	t.Run("deferred", func(t *testing.T) {
		table := &Table{Allowance: allowance, Throttled: Defer}
		table.Set(decision(rules.Throttle, "alice@shop.test"), "later")
		table.Set(decision(rules.Throttle, "user:u"), "script")
		ask(t, serveExim(t, &Exim{Table: table}), [][2]string{
			{asked("stage=rcpt", client, alice, "rcpts=0"), "OK"},
			{asked("stage=rcpt", client, alice, "rcpts=2"), "OK"},
			{asked("stage=rcpt", client, alice, "rcpts=3"), "DEFER 4.7.1 later"},
			{asked("stage=data", client, alice, "rcpts=3"), "OK"},
			{asked("stage=rcpt", client, alice, "rcpts=0"), "DEFER 4.7.1 later"},
			{asked("stage=data", client, alice, "rcpts=1"), "DEFER 4.7.1 later"}, // of a session beside it
			{asked("stage=local", "local=u", "rcpts=4"), "FREEZE script"},        // nobody would try again
		})
	})
}

func TestEximSeen(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Hold, "bob@shop.test"), "held")
	seen := make(chan Request, 10)
	addr := serveExim(t, &Exim{
		Table:     table,
		Canonical: func(login string) string { return strings.ToLower(login) + "@shop.test" },
		User:      func(name string) string { return "uid:" + name },
		Seen:      func(r Request) { r.Time = time.Time{}; seen <- r },
	})
	const client = "ip=192.0.2.7"
	readsocket(t, addr, asked("stage=rcpt", client, "auth=Bob", "rcpts=0"))
	readsocket(t, addr, asked("stage=data", client, "auth=", "rcpts=1", "to=a@ok.test"))
	readsocket(t, addr, asked("stage=data", "ip=", "auth=u", "local=u", "rcpts=1", "to=a@ok.test"))
	readsocket(t, addr, asked("stage=data", "id=1xV5bD-0003V5-1t", client, "auth=Bob", "size=238", "rcpts=2", "from=b@shop.test", "to=r1@ok.test, r2@ok.test"))
	readsocket(t, addr, asked("stage=data", "id=1xV5bD-0003V5-1u", client, "auth=Bob", "rcpts=9", "to=r1@ok.test, r2@ok.test, r3@o"))
	want := Request{
		State: "data", Instance: "1xV5bD-0003V5-1t", QueueID: "1xV5bD-0003V5-1t", Login: "Bob", Account: "bob@shop.test", Sender: "b@shop.test",
		Client: netip.MustParseAddr("192.0.2.7"), Size: 238, Answer: Hold, RecipientCount: 2, Recipients: []string{"r1@ok.test", "r2@ok.test"},
	}
	if diff := cmp.Diff(<-seen, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("seen (-got +want):\n%s", diff)
	}
	if r := <-seen; r.RecipientCount != 9 || len(r.Recipients) != 2 {
		t.Errorf("of a list that was cut: %+v", r)
	}
	if len(seen) > 0 {
		t.Errorf("told more than once, or of mail without a login: %+v", <-seen)
	}
}

func TestEximFailsOpen(t *testing.T) {
	t.Run("panic", func(t *testing.T) {
		x := &Exim{Table: new(Table), Canonical: func(string) string { panic("mistake") }, Log: slog.New(slog.DiscardHandler)}
		addr := serveExim(t, x)
		if got := readsocket(t, addr, asked("stage=rcpt", "ip=192.0.2.7", "auth=alice")); got != "" {
			t.Errorf("got %q, want silence", got)
		}
		if got := readsocket(t, addr, asked("stage=rcpt", "ip=192.0.2.7")); got != "OK" {
			t.Errorf("the next connection got %q", got)
		}
		if got := x.Stats(); got.Panics != 1 || got.Answers[Dunno] != 1 {
			t.Errorf("stats %+v", got)
		}
	})
	t.Run("slow", func(t *testing.T) {
		x := &Exim{Table: new(Table), Timeout: 50 * time.Millisecond}
		if got := dial(t, "tcp", serveExim(t, x)).ask("stage=rcpt"); got != "closed" {
			t.Errorf("half a question: got %q", got)
		}
		if got := x.Stats().Slow; got != 1 {
			t.Errorf("counted %d slow connections, want 1", got)
		}
	})
	t.Run("too many", func(t *testing.T) {
		x := &Exim{Table: new(Table), MaxConns: 1}
		addr := serveExim(t, x)
		first := dial(t, "tcp", addr)
		for deadline := time.Now().Add(20 * time.Second); x.Stats().Connections == 0; {
			if time.Now().After(deadline) {
				t.Fatal("the first connection is not counted")
			}
			time.Sleep(time.Millisecond)
		}
		if got := dial(t, "tcp", addr).answer(); got != "closed" {
			t.Errorf("over the limit: got %q, want closed at once", got)
		}
		fmt.Fprint(first.conn, asked("stage=rcpt"))
		if got, err := io.ReadAll(first.conn); err != nil || string(got) != "OK" {
			t.Errorf("within the limit: got %q, %v", got, err)
		}
		if got := x.Stats().Refused; got != 1 {
			t.Errorf("counted %d refused connections, want 1", got)
		}
	})
}

func FuzzEximQuestion(f *testing.F) {
	f.Add([]byte(strings.TrimSuffix(asked("stage=data", "ip=192.0.2.7", "auth=bob@shop.test", "rcpts=2", "to=a@ok.test, b@ok.test", "subject=x\ty=z"), "\n")))
	f.Add([]byte("stage=local\tlocal=u\tcwd=/home/u\tphp=33:a.php? b"))
	f.Add([]byte("stage=rcpt\tip=::1\tsubject="))
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	x := &Exim{Table: table}
	f.Fuzz(func(t *testing.T, line []byte) {
		var q eximQuestion
		if q.parse(line) != nil {
			return
		}
		account, v := x.verdict(&q, noon)
		if answer := q.weigh(v, noon); answer != Dunno && account != "mallory@shop.test" {
			t.Errorf("%q: %v for %q", line, answer, account)
		}
		if r := q.request(account, Dunno, noon); len(r.Recipients) > maxRecipients {
			t.Errorf("%d recipients", len(r.Recipients))
		}
	})
}
