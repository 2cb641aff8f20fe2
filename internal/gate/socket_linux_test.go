package gate

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pipe returns both ends of a connection over loopback.
func pipe(t *testing.T) (ours sparingConn, theirs net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if theirs, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close(); conn.Close() })
	return swift(conn), theirs
}

func TestSocketWritesAll(t *testing.T) {
	ours, theirs := pipe(t)
	want := bytes.Repeat([]byte("more than the buffers of a socket hold. "), 1<<18)
	wrote := make(chan error, 1)
	go func() {
		ours.SetWriteDeadline(time.Now().Add(20 * time.Second))
		n, err := ours.Write(want)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		wrote <- errors.Join(err, ours.Close())
	}()
	got, err := io.ReadAll(theirs)
	if err := errors.Join(err, <-wrote); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, want the %d that were written", len(got), len(want))
	}
}

func TestSocketDeadlines(t *testing.T) {
	ours, theirs := pipe(t)
	ours.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := ours.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("wrote %d bytes to nobody: %v, want a part and a deadline that passed", n, err)
	}
	buf := make([]byte, 8)
	for _, wait := range []time.Duration{20 * time.Millisecond, time.Hour, 20 * time.Millisecond} {
		ours.SetReadDeadline(time.Now().Add(wait))
		if wait == time.Hour {
			io.WriteString(theirs, "late")
			if n, err := ours.Read(buf); string(buf[:n]) != "late" || err != nil {
				t.Errorf("read %q, %v after a deadline that was put off", buf[:n], err)
			}
			continue
		}
		if n, err := ours.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d bytes, %v; want a deadline that passed", n, err)
		}
	}
}

func TestSocketEnds(t *testing.T) {
	ours, theirs := pipe(t)
	theirs.Close()
	if n, err := ours.Read(make([]byte, 8)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v; want EOF", n, err)
	}
	ours.Close()
	if _, err := ours.Read(make([]byte, 8)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from a closed connection: %v", err)
	}
	if _, err := ours.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("wrote to a closed connection: %v", err)
	}
}

func TestSocketAllocatesNothing(t *testing.T) {
	ours, theirs := pipe(t)
	question, buf := []byte("question"), make([]byte, 64)
	allocated := testing.AllocsPerRun(100, func() {
		theirs.Write(question)
		ours.SetReadDeadline(time.Now().Add(time.Minute))
		ours.SetWriteDeadline(time.Now().Add(time.Minute))
		if n, err := ours.Read(buf); n != len(question) || err != nil {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		if _, err := ours.Write(question); err != nil {
			t.Fatal(err)
		}
		theirs.Read(buf)
	})
	if allocated != 0 {
		t.Errorf("a question and its answer allocated %.1f times", allocated)
	}
}
