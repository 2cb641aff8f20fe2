package gate

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// An eximConn is a client's half of a connection to the socket.
type eximConn interface {
	net.Conn
	CloseWrite() error
}

func dialExim(t *testing.T, l net.Listener) eximConn {
	t.Helper()
	conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(eximConn)
}

func listenExim(t *testing.T, network string) net.Listener {
	t.Helper()
	addr := "inet:127.0.0.1:0"
	if network == "unix" {
		addr = "unix:" + filepath.Join(t.TempDir(), "exim")
	}
	l, err := Listen(addr, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// say writes, and ends the client's half.
func (c eximAsking) say(t *testing.T, text string) eximAsking {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	return c
}

type eximAsking struct{ eximConn }

func (c eximAsking) heard(t *testing.T, want string) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// A question that is there in full when its connection is accepted is answered
// at once, and one that is not is handed on with what was read of it.
func TestEximQuick(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			table := new(Table)
			table.Set(decision(rules.Block, "mallory@shop.test"), "no")
			mallory := asked("stage=rcpt", "ip=192.0.2.7", "auth=mallory@shop.test")
			x := &Exim{Table: table, Canonical: func(login string) string {
				if login == "mistake" {
					panic(login)
				}
				return login
			}, Log: slog.New(slog.DiscardHandler)}
			inner := listenExim(t, network)
			whole := eximAsking{dialExim(t, inner)}.say(t, mallory)
			behind := eximAsking{dialExim(t, inner)}.say(t, mallory+"stage=rcpt\n")
			junk := eximAsking{dialExim(t, inner)}.say(t, "junk\n")
			mistake := eximAsking{dialExim(t, inner)}.say(t, asked("stage=rcpt", "ip=192.0.2.7", "auth=mistake"))
			silent := eximAsking{dialExim(t, inner)}.say(t, "")
			dialExim(t, inner).Close()
			half, long := eximAsking{dialExim(t, inner)}, eximAsking{dialExim(t, inner)}
			io.WriteString(half, mallory[:20])
			long.say(t, asked("x=" + strings.Repeat("x", 2*firstQuestion))[:2*firstQuestion]+"\t"+mallory)

			l := x.quick(inner)
			for _, want := range []int{20, firstQuestion} { // of half and long
				conn, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				begun, ok := conn.(*begunConn)
				if !ok || len(begun.begun) != want {
					t.Errorf("handed on %T, want a connection of which %d bytes are read", conn, want)
				}
				go func() {
					defer conn.Close()
					x.serve(conn)
				}()
			}
			whole.heard(t, "DENY 5.7.1 no")
			behind.heard(t, "DENY 5.7.1 no")
			junk.heard(t, "OK")
			mistake.heard(t, "")
			silent.heard(t, "")
			half.say(t, mallory[20:]).heard(t, "DENY 5.7.1 no")
			long.heard(t, "DENY 5.7.1 no")
			if s := x.Stats(); s.Answers[Reject] != 4 || s.Answers[Dunno] != 1 || s.Malformed != 1 || s.Panics != 1 {
				t.Errorf("stats %+v", s)
			}
			l.Close()
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// While questions come without a pause, the service ends when it is to.
func TestEximEndsWhileAsked(t *testing.T) {
	l := listenExim(t, "unix")
	ctx, cancel := context.WithCancel(t.Context())
	x, ended := &Exim{Table: new(Table)}, make(chan error, 1)
	go func() { ended <- x.Serve(ctx, l) }()
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		for {
			conn, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				return // the socket is gone
			}
			io.WriteString(conn, asked("stage=rcpt", "ip=192.0.2.7"))
			conn.(eximConn).CloseWrite()
			io.ReadAll(conn)
			conn.Close()
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); x.Stats().Answers[Dunno] < 100; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no answers")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-asking
}
