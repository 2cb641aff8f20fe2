package gate

import (
	"net"
	"syscall"
)

// frugal returns conn, and has the kernel acknowledge what was received before
// it waits for more without having answered. Postfix writes a message's
// envelope and its headers apart, and wants no answer in between; its kernel
// holds the second back until the first is acknowledged, and ours would wait
// 40 ms for an answer to send the acknowledgement with. Each message would take
// as long. The connection is for one goroutine.
func frugal(conn net.Conn) frugalConn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			return &frugalTCP{Conn: conn, raw: raw}
		}
	}
	return plainConn{conn}
}

// A plainConn wakes its reader for everything.
type plainConn struct{ net.Conn }

func (plainConn) passOver(int) {}

type frugalTCP struct {
	net.Conn
	raw     syscall.RawConn
	owes    bool // received, and nothing sent since
	patient bool // passing over: woken for more than a byte
}

// Read reads as the connection does.
func (c *frugalTCP) Read(p []byte) (int, error) {
	if c.owes {
		_ = c.raw.Control(acknowledge) // without it all is slower, no more
	}
	n, err := c.Conn.Read(p)
	c.owes = n > 0
	if c.patient {
		c.wakeFrom(1)
	}
	return n, err
}

// Write writes as the connection does.
func (c *frugalTCP) Write(p []byte) (int, error) {
	c.owes = false
	return c.Conn.Write(p)
}

func (c *frugalTCP) passOver(n int) {
	c.owes = true // nobody will see it in time
	c.wakeFrom(n + 1)
}

func (c *frugalTCP) wakeFrom(n int) {
	c.patient = n > 1
	_ = c.raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, n)
	})
}

func acknowledge(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
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
