package gate

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// quick returns a listener that answers the questions that are there in full,
// up to the end of the connection, when they are accepted, and hands on the
// other connections. Exim connects, writes its line and ends its half in one
// go, so that most are: each takes five system calls, and neither a goroutine
// nor a place in the poller.
func (x *Exim) quick(l net.Listener) net.Listener {
	socket, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return l
	}
	file, err := socket.File()
	if err != nil {
		return l
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return l
	}
	return &quickListener{Listener: l, file: file, raw: raw, exim: x, buf: make([]byte, firstQuestion)}
}

type quickListener struct {
	net.Listener
	file *os.File // of the same socket: a net.Listener lets nobody wait for it
	raw  syscall.RawConn
	exim *Exim
	buf  []byte
}

// Close ends Accept.
func (l *quickListener) Close() error { return errors.Join(l.file.Close(), l.Listener.Close()) }

// Accept returns the next connection whose question is still to come, or to end.
func (l *quickListener) Accept() (net.Conn, error) {
	for {
		fd, err := l.accept()
		if err != nil {
			return nil, err
		}
		text, ended := readNow(fd, l.buf)
		if !ended {
			if conn, err := lateConn(fd, text); err == nil {
				return conn, nil
			}
			continue // gone already, or no descriptor for it: Exim goes on without an answer
		}
		l.answer(fd, text)
	}
}

// accept waits for a connection; its descriptor does not block.
func (l *quickListener) accept() (fd int, err error) {
	waited := l.raw.Read(func(listener uintptr) bool {
		for {
			r, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, listener, 0, 0, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
			switch errno {
			case 0:
				fd, err = int(r), nil
				return true
			case syscall.EINTR, syscall.ECONNABORTED:
				continue
			}
			err = errno
			return errno != syscall.EAGAIN
		}
	})
	if waited != nil {
		return 0, net.ErrClosed // nothing else ends a wait without a deadline
	}
	return fd, err
}

// readNow reads what is there, and says whether that is all there will be.
func readNow(fd int, buf []byte) (text []byte, ended bool) {
	held := 0
	for held < len(buf) {
		n, errno := transfer(syscall.SYS_READ, uintptr(fd), buf[held:])
		switch {
		case errno != 0:
			return buf[:held], false
		case n == 0:
			return buf[:held], true
		default:
			held += n
		}
	}
	return buf, false
}

// answer answers a question and closes its connection. A panic ends no more than that.
func (l *quickListener) answer(fd int, text []byte) {
	defer syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) // it was read to its end: nothing to wait for
	defer l.exim.counters.recovered(l.exim.Log)
	if len(text) > 0 {
		_ = l.exim.answer(descriptor(fd), firstLine(text), nil) // who is gone needs no answer
	}
}

// A descriptor is written to without waiting. There is room for an answer: it is
// the first that is written.
type descriptor int

func (d descriptor) Write(p []byte) (int, error) {
	n, errno := transfer(syscall.SYS_WRITE, uintptr(d), p)
	if errno != 0 {
		return n, errno
	}
	return n, nil
}

// lateConn is the connection of a descriptor from which text was read already.
func lateConn(fd int, text []byte) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), "")
	defer file.Close()
	conn, err := net.FileConn(file) // of a copy
	if err != nil || len(text) == 0 {
		return conn, err
	}
	return &begunConn{Conn: conn, begun: append([]byte(nil), text...)}, nil
}

// A begunConn is a connection whose beginning was read already.
type begunConn struct {
	net.Conn
	begun []byte
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.begun) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.begun)
	c.begun = c.begun[n:]
	return n, nil
}

func (c *begunConn) CloseWrite() error { return closeWrite(c.Conn) }
