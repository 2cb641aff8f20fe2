package gate

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// A socket is a connection of one goroutine's that costs little to wait for.
//
// Go tells its scheduler of each system call, for that might take long, and the
// first one after a pause wakes a thread that watches it. A socket that does
// not block takes as long as a copy, so this one does not tell: a question,
// which comes after a pause, wakes one thread and not two or three.
type socket struct {
	net.Conn
	raw     syscall.RawConn
	tcp     bool
	readBy  time.Time // the deadline that is set
	writeBy time.Time // the deadline that is to be set before waiting
	owes    bool      // received, and nothing sent since
	patient bool      // passing over: woken for more than a byte

	// Of the Read or Write that goes on. The functions are made once, so that
	// neither allocates.
	rest                []byte
	n                   int
	errno               syscall.Errno
	readRest, writeRest func(fd uintptr) (done bool)
	writeAtOnce         func(fd uintptr)
}

// swift returns conn as a [socket], if it is one of the system's.
func swift(conn net.Conn) sparingConn {
	system, ok := conn.(syscall.Conn)
	if !ok {
		return plainConn{conn}
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return plainConn{conn}
	}
	_, tcp := conn.(*net.TCPConn)
	s := &socket{Conn: conn, raw: raw, tcp: tcp}
	s.readRest, s.writeRest, s.writeAtOnce = s.readNow, s.writeNow, func(fd uintptr) { s.writeNow(fd) }
	return s
}

// A plainConn wakes its reader for everything.
type plainConn struct{ net.Conn }

func (plainConn) passOver(int) {}

// Read reads as the connection does.
//
// It has the kernel acknowledge what was received, if nothing was answered.
// Postfix writes a message's envelope and its headers apart for a milter, and
// wants no answer in between; its kernel holds the second back until the first
// is acknowledged, and ours would wait 40 ms for an answer to send the
// acknowledgement with. Each message would take as long.
func (s *socket) Read(p []byte) (int, error) {
	if s.owes {
		s.set(syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	}
	s.rest, s.n, s.errno = p, 0, 0
	err := s.raw.Read(s.readRest)
	s.rest = nil
	if s.patient {
		s.wakeFrom(1)
	}
	s.owes = s.n > 0
	switch {
	case err != nil:
		return 0, err
	case s.errno != 0:
		return 0, os.NewSyscallError("read", s.errno)
	case s.n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return s.n, nil
}

func (s *socket) readNow(fd uintptr) (done bool) {
	s.n, s.errno = transfer(syscall.SYS_READ, fd, s.rest)
	return s.errno != syscall.EAGAIN
}

// SetReadDeadline sets a deadline, up to an eighth late: each that is set costs
// a timer, and may wake who waits for the next one.
func (s *socket) SetReadDeadline(t time.Time) error {
	spare := max(time.Until(t)/8, 0)
	if late := s.readBy.Sub(t); late >= 0 && late < spare {
		return nil
	}
	s.readBy = t.Add(spare)
	return s.Conn.SetReadDeadline(s.readBy)
}

// SetWriteDeadline sets the deadline of a Write that has to wait.
func (s *socket) SetWriteDeadline(t time.Time) error {
	s.writeBy = t
	return nil
}

// Write writes as the connection does.
func (s *socket) Write(p []byte) (int, error) {
	s.owes = false
	s.rest, s.n, s.errno = p, 0, 0
	err := s.raw.Control(s.writeAtOnce)
	if err == nil && len(s.rest) > 0 && s.errno == 0 {
		err = errors.Join(s.Conn.SetWriteDeadline(s.writeBy), s.raw.Write(s.writeRest))
	}
	s.rest = nil
	if err == nil && s.errno != 0 {
		err = os.NewSyscallError("write", s.errno)
	}
	return s.n, err
}

func (s *socket) writeNow(fd uintptr) (done bool) {
	for len(s.rest) > 0 && s.errno == 0 {
		var n int
		n, s.errno = transfer(syscall.SYS_WRITE, fd, s.rest)
		s.n, s.rest = s.n+n, s.rest[n:]
	}
	if s.errno != syscall.EAGAIN {
		return true
	}
	s.errno = 0
	return false
}

// transfer reads into p or writes it, as much as goes at once.
func transfer(call, fd uintptr, p []byte) (n int, errno syscall.Errno) {
	for {
		r, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(r), 0
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}

// passOver has the next Read wait until more than n bytes are there.
func (s *socket) passOver(n int) {
	s.owes = true // nobody will see it in time
	s.wakeFrom(n + 1)
}

func (s *socket) wakeFrom(n int) {
	s.patient = n > 1
	s.set(syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, n)
}

// set sets an option of a TCP connection. Without it all is slower, no more.
func (s *socket) set(level, option uintptr, value int) {
	if !s.tcp {
		return
	}
	_ = s.raw.Control(func(fd uintptr) {
		v := int32(value)
		_, _, _ = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, fd, level, option, uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	})
}

// speaksWithin is how long the kernel keeps a connection to itself on which
// nothing was said yet, in seconds.
const speaksWithin = 5

// acceptSpeaking has l accept connections when something was said on them, not
// before, where it can.
func acceptSpeaking(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, speaksWithin)
		})
	}
}
