package gate

import (
	"net"
	"syscall"
)

// eager returns conn, and has the kernel acknowledge what was received before
// it waits for more without having answered. Postfix writes a message's
// envelope and its headers apart, and wants no answer in between; its kernel
// holds the second back until the first is acknowledged, and ours would wait
// 40 ms for an answer to send the acknowledgement with. Each message would take
// as long. The connection is for one goroutine.
func eager(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	return &eagerConn{Conn: conn, raw: raw}
}

type eagerConn struct {
	net.Conn
	raw  syscall.RawConn
	owes bool // received, and nothing sent since
}

// Read reads as the connection does.
func (c *eagerConn) Read(p []byte) (int, error) {
	if c.owes {
		_ = c.raw.Control(acknowledge) // without it all is slower, no more
	}
	n, err := c.Conn.Read(p)
	c.owes = n > 0
	return n, err
}

// Write writes as the connection does.
func (c *eagerConn) Write(p []byte) (int, error) {
	c.owes = false
	return c.Conn.Write(p)
}

func acknowledge(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
}
