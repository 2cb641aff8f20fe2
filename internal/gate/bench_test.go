package gate

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// The size of the benchmarks: as many logins ask, and so many are blocked.
const (
	benchLogins  = 1_000_000
	benchBlocked = 10_000
)

// BenchmarkPolicy is a client on the same cores that asks as fast as it can,
// two questions a message (RCPT and END-OF-MESSAGE), on eight connections.
func BenchmarkPolicy(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			addr := benchServe(b, network)
			var asked atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(4)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				a := newAsker(b, network, addr)
				defer a.conn.Close()
				for pb.Next() {
					if err := a.ask(int(asked.Add(1))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
		})
	}
}

// BenchmarkPolicyAt5000 is a client on the same cores that asks 5,000 times a
// second, on eight connections, and reports how long the answers took.
func BenchmarkPolicyAt5000(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			addr := benchServe(b, network)
			at5000(b, func() (ask func(n int) error, done func()) {
				a := newAsker(b, network, addr)
				return a.ask, func() { a.conn.Close() }
			})
		})
	}
}

// at5000 has eight clients ask 5,000 times a second together, and reports how
// long the answers took.
func at5000(b *testing.B, client func() (ask func(n int) error, done func())) {
	const clients, rate = 8, 5000
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for i := range clients {
		wg.Go(func() {
			ask, done := client()
			defer done()
			for n := i; n < b.N; n += clients {
				time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / rate)))
				sent := time.Now()
				if err := ask(n); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(sent))
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

func benchTable() *Table {
	table := new(Table)
	for i := range benchBlocked {
		table.Set(decision(rules.Block, fmt.Sprintf("user%d@shop.test", i*(benchLogins/benchBlocked))), "Sending is stopped.")
	}
	return table
}

func benchListen(b *testing.B, network string) net.Listener {
	addr := "inet:127.0.0.1:0"
	if network == "unix" {
		addr = "unix:" + filepath.Join(b.TempDir(), "gate")
	}
	l, err := Listen(addr, 0o666)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func benchServe(b *testing.B, network string) string {
	var messages atomic.Int64
	l := benchListen(b, network)
	run(b, &Policy{Table: benchTable(), Seen: func(Request) { messages.Add(1) }}, l)
	return l.Addr().String()
}

// An asker asks about one message after the other without allocating.
type asker struct {
	conn     net.Conn
	out      []byte
	in       []byte
	ended    bool // the next question begins a message
	instance int
}

func newAsker(b *testing.B, network, addr string) *asker {
	conn, err := net.Dial(network, addr)
	if err != nil {
		b.Fatal(err)
	}
	return &asker{conn: conn, in: make([]byte, 512), ended: true}
}

// ask asks about the login of number n: at RCPT, and the next time about the
// same message at its end.
func (a *asker) ask(n int) error {
	state, login := "END-OF-MESSAGE", a.instance%benchLogins
	if a.ended {
		state, login = "RCPT", n%benchLogins
		a.instance = n
	}
	a.ended = !a.ended
	out := append(a.out[:0], "request=smtpd_access_policy\nprotocol_state="...)
	out = append(out, state...)
	out = append(out, "\nprotocol_name=ESMTP\nclient_address=192.0.2.7\nclient_name=host.test\nclient_port=44130\n"...)
	out = append(out, "reverse_client_name=host.test\nserver_address=192.0.2.1\nserver_port=587\nhelo_name=host.test\n"...)
	out = append(out, "sender=user@shop.test\nrecipient=somebody@somewhere.test\nrecipient_count=1\nqueue_id=4jXK971kgrz1SRpG\ninstance=341."...)
	out = strconv.AppendInt(out, int64(a.instance), 16)
	out = append(out, ".39fbd.0\nsize=0\netrn_domain=\nstress=\nsasl_method=PLAIN\nsasl_username=user"...)
	out = strconv.AppendInt(out, int64(login), 10)
	out = append(out, "@shop.test\nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\n"...)
	out = append(out, "encryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n"...)
	a.out = out
	if _, err := a.conn.Write(out); err != nil {
		return err
	}
	held := 0
	for held < 2 || a.in[held-1] != '\n' || a.in[held-2] != '\n' {
		got, err := a.conn.Read(a.in[held:])
		if err != nil {
			return err
		}
		held += got
	}
	if string(a.in[:7]) != "action=" {
		return fmt.Errorf("answer %q: %w", a.in[:held], io.ErrUnexpectedEOF)
	}
	return nil
}

// BenchmarkExim is a client on the same cores that asks as fast as it can, as
// Exim does: a connection a question, at RCPT and after the data by turns.
func BenchmarkExim(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			addr := benchExim(b, network)
			var asked atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(4)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := askExim(network, addr, int(asked.Add(1))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
		})
	}
}

// BenchmarkEximAt5000 is a client on the same cores that asks 5,000 times a
// second, eight questions at once, and reports how long the answers took.
func BenchmarkEximAt5000(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			addr := benchExim(b, network)
			at5000(b, func() (ask func(n int) error, done func()) {
				return func(n int) error { return askExim(network, addr, n) }, func() {}
			})
		})
	}
}

func benchExim(b *testing.B, network string) string {
	var messages atomic.Int64
	l := benchListen(b, network)
	runExim(b, &Exim{Table: benchTable(), Seen: func(Request) { messages.Add(1) }}, l)
	return l.Addr().String()
}

func askExim(network, addr string, n int) error {
	stage, id, size, rcpts, to := "rcpt", "", "-1", "0", ""
	if n%2 == 1 {
		stage, id, size, rcpts, to = "data", "1xV5bD-0003V5-1t", "4096", "1", "somebody@somewhere.test"
	}
	conn, err := net.Dial(network, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	question := "stage=" + stage + "\tid=" + id + "\tip=192.0.2.7\tauth=user" + strconv.Itoa(n/2%benchLogins) +
		"@shop.test\tlocal=\tcwd=/\tphp=\tsize=" + size + "\trcpts=" + rcpts + "\tfrom=user@shop.test\tto=" + to + "\n"
	if _, err := io.WriteString(conn, question); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(answer, eximOK) && !bytes.HasPrefix(answer, []byte("DENY ")) {
		return fmt.Errorf("answer %q: %w", answer, err)
	}
	return nil
}

// BenchmarkDecide is the work on one question without the connection.
func BenchmarkDecide(b *testing.B) {
	table := new(Table)
	for i := range benchBlocked {
		table.Set(decision(rules.Block, fmt.Sprintf("user%d@shop.test", i)), "Sending is stopped.")
	}
	s := &session{Policy: &Policy{Table: table, Seen: func(Request) {}}}
	questions := make([][]byte, 0, 2000)
	for i := range 1000 {
		login, in := fmt.Sprintf("user%d@shop.test", i*20), fmt.Sprintf("341.%x.39fbd.0", i)
		questions = append(questions, []byte(rcpt(login, in, "r@ok.test")), []byte(end(login, in, 1)))
	}
	now := time.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		text := questions[i%len(questions)]
		if err := s.query.parse(text[:len(text)-2]); err != nil {
			b.Fatal(err)
		}
		_, answer, m := s.decide(now)
		if string(s.query.state) == stateEnd {
			s.Seen(s.seen(answer, m, now))
			s.gathered.release(m)
		}
	}
}
