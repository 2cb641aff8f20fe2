package gate

import (
	"io"
	"net"
	"syscall"
)

// eager returns a reader of conn that has the kernel acknowledge what was
// received before it waits for more. Postfix writes a message's envelope and
// its headers apart, and wants no answer in between; its kernel holds the
// second back until the first is acknowledged, and ours would wait 40 ms for an
// answer to send the acknowledgement with. Each message would take as long.
func eager(conn net.Conn) io.Reader {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	return eagerReader{conn, raw}
}

type eagerReader struct {
	conn net.Conn
	raw  syscall.RawConn
}

// Read reads as the connection does.
func (r eagerReader) Read(p []byte) (int, error) {
	_ = r.raw.Control(acknowledge) // without it all is slower, no more
	return r.conn.Read(p)
}

func acknowledge(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
}
