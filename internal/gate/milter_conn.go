package gate

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/d--j/go-milter"
)

// A milterConn stands between the mail server and the library, which would
// allocate half a gigabyte for a packet that says it is so long, and panics at
// some that are malformed. It hands on only whole, well-formed packets of the
// kinds that we asked for, and of the headers only those that name a script.
//
// It has its own deadlines, and errors of reading and writing are all io.EOF,
// which the library does not log.
//
// A packet is its length (four octets, big endian), a letter for its kind, and
// data that the length counts too.
type milterConn struct {
	*Milter
	conn                 net.Conn
	idle, request, write time.Duration
	answered             func() error // called after each answer that was asked for

	in         *bufio.Reader
	packet     []byte    // the latest
	rest       []byte    // what of it the library has not read yet
	negotiated bool      // the first packet was read
	asked      time.Time // when a packet was read that wants an answer; zero if it has one

	out    []byte // not yet a whole answer
	closed chan struct{}
}

// The kinds of packets that are handed on.
const (
	packetNegotiate = 'O'
	packetMacro     = 'D'
	packetMail      = 'M'
	packetRecipient = 'R'
	packetHeader    = 'L'
	packetEnd       = 'E'
	packetAbort     = 'A'
	packetQuit      = 'Q'
	packetQuitNew   = 'K'

	packetQuarantine = 'q' // of ours; the answer follows
)

// Bounds on packets, in bytes. Postfix's headers have 100 kB by default; of
// those that are handed on a part is enough.
const (
	maxPacket       = 64 << 10
	maxHeaderPacket = 16 << 20
	keptOfHeader    = 1 << 10
	packetHead      = 5 // length and kind
)

func newMilterConn(m *Milter, conn net.Conn, answered func() error) *milterConn {
	conn = eager(conn)
	return &milterConn{
		Milter: m, conn: conn, answered: answered,
		idle:    orDefault(m.IdleTimeout, 4*time.Hour),
		request: orDefault(m.RequestTimeout, 5*time.Second),
		write:   orDefault(m.WriteTimeout, 5*time.Second),
		in:      bufio.NewReaderSize(conn, firstRequest),
		closed:  make(chan struct{}),
	}
}

// Read hands the library what it asks for, of one packet at a time.
func (c *milterConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if err := c.next(); err != nil {
			return 0, c.count(err)
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// count notes why a connection ends, and makes it the end of a file.
func (c *milterConn) count(err error) error {
	switch {
	case errors.Is(err, errMalformed), errors.Is(err, errTooLong):
		c.counters.malformed.Add(1)
	case errors.Is(err, errSlow):
		c.counters.slow.Add(1)
	}
	return io.EOF
}

// errSlow is a deadline that passed between the first and the last byte.
var errSlow = errors.New("too slow")

// next reads a packet. It leaves rest empty if the packet is not for the
// library.
func (c *milterConn) next() error {
	if c.in.Buffered() == 0 {
		c.conn.SetReadDeadline(time.Now().Add(c.wait()))
		if _, err := c.in.Peek(1); err != nil {
			return err // it hung up, or had nothing to ask for long
		}
	}
	c.conn.SetReadDeadline(time.Now().Add(c.request))
	err := c.read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSlow
	}
	return err
}

// wait is how long the next packet may take to begin: the first one comes at
// once.
func (c *milterConn) wait() time.Duration {
	if c.negotiated {
		return c.idle
	}
	return c.request
}

func (c *milterConn) read() error {
	head, err := c.in.Peek(4)
	if err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(head)
	if length == 0 {
		return errMalformed
	}
	if head, err = c.in.Peek(packetHead); err != nil {
		return err
	}
	kind := head[4]
	switch {
	case kind == packetHeader && length > maxHeaderPacket, kind != packetHeader && length > maxPacket:
		return errTooLong
	case (kind == packetNegotiate) == c.negotiated:
		return errMalformed
	}
	if _, err := c.in.Discard(packetHead); err != nil {
		return err
	}
	if kind == packetHeader {
		return c.header(int(length) - 1)
	}
	if err := c.keep(kind, int(length)-1); err != nil {
		return err
	}
	return c.check(kind, c.packet[packetHead:])
}

// keep reads the packet's data, n bytes.
func (c *milterConn) keep(kind byte, n int) error {
	if cap(c.packet) < packetHead+n {
		c.packet = make([]byte, packetHead+n)
	}
	c.packet = c.packet[:packetHead+n]
	c.frame(kind)
	_, err := io.ReadFull(c.in, c.packet[packetHead:])
	return err
}

// frame writes the packet's head.
func (c *milterConn) frame(kind byte) {
	binary.BigEndian.PutUint32(c.packet, uint32(len(c.packet)-4))
	c.packet[4] = kind
}

// check looks at the data of a packet and hands it on.
func (c *milterConn) check(kind byte, data []byte) error {
	switch kind {
	case packetNegotiate:
		if err := c.offer(data); err != nil {
			return err
		}
	case packetMacro:
		if len(data) == 0 {
			return errMalformed
		}
		if data[0] != packetMail && data[0] != packetEnd {
			return nil // not asked for
		}
	case packetMail, packetRecipient:
		if bytes.IndexByte(data, 0) < 0 {
			return errMalformed
		}
	case packetEnd, packetAbort, packetQuit, packetQuitNew:
	default:
		return errMalformed
	}
	if kind == packetRecipient || kind == packetEnd {
		c.asked = time.Now()
	}
	c.rest = c.packet
	return nil
}

// offer looks at what the mail server offers: the version of the protocol, what
// a filter may do, and what may be left out.
func (c *milterConn) offer(data []byte) error {
	if len(data) < 12 {
		return errMalformed
	}
	version := binary.BigEndian.Uint32(data)
	actions := milter.OptAction(binary.BigEndian.Uint32(data[4:]))
	protocol := milter.OptProtocol(binary.BigEndian.Uint32(data[8:]))
	if version < milter.MaxServerProtocolVersion || actions&milterActions != milterActions || protocol&milterProtocol != milterProtocol {
		c.tooOld.Do(func() {
			if c.Log != nil {
				c.Log.Error("gate: the mail server offers a milter too little: set milter_protocol = 6",
					"version", version, "actions", actions.String(), "protocol", protocol.String())
			}
		})
		return errMalformed
	}
	binary.BigEndian.PutUint32(data, milter.MaxServerProtocolVersion)
	c.negotiated = true
	return nil
}

// header reads a header of n bytes, its name and value each with a NUL at the
// end, and hands it on if it names a script; of one that is long, the beginning.
func (c *milterConn) header(n int) error {
	begin, err := c.in.Peek(min(n, len(headerOriginating)+1))
	if err != nil {
		return err
	}
	name, _, ok := bytes.Cut(begin, []byte{0})
	if !ok || string(name) != headerOriginating && string(name) != headerScript {
		_, err := c.in.Discard(n)
		return err
	}
	kept := min(n, keptOfHeader)
	if err := c.keep(packetHeader, kept); err != nil {
		return err
	}
	if _, err := c.in.Discard(n - kept); err != nil {
		return err
	}
	value := c.packet[packetHead+len(name)+1:]
	if end := bytes.IndexByte(value, 0); end >= 0 {
		value = value[:end]
	}
	c.packet = append(c.packet[:packetHead+len(name)+1+len(value)], 0)
	c.frame(packetHeader)
	c.rest = c.packet
	return nil
}

// Write collects an answer, which the library writes in pieces, and sends it
// in one.
func (c *milterConn) Write(p []byte) (int, error) {
	c.out = append(c.out, p...)
	if !whole(c.out) {
		return len(p), nil
	}
	c.conn.SetWriteDeadline(time.Now().Add(c.write))
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	if err == nil && !c.asked.IsZero() {
		c.counters.latency.observe(time.Since(c.asked))
		c.asked = time.Time{}
		err = c.answered()
	}
	if err == nil {
		return len(p), nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return 0, c.count(err)
}

// whole reports whether out ends in a whole packet that is not followed by
// another one.
func whole(out []byte) bool {
	for len(out) >= packetHead {
		kind, length := out[4], 4+int(binary.BigEndian.Uint32(out))
		if len(out) < length {
			return false
		}
		if out = out[length:]; len(out) == 0 {
			return kind != packetQuarantine
		}
	}
	return false
}

// Close is called by the library when it is done.
func (c *milterConn) Close() error {
	close(c.closed)
	return c.conn.Close()
}

// LocalAddr and the following complete net.Conn. The deadlines are our own.
func (c *milterConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr is the mail server's.
func (c *milterConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline does nothing.
func (c *milterConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *milterConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *milterConn) SetWriteDeadline(time.Time) error { return nil }

// oneConn is a listener to which one client came. It is closed when the
// library is done with the client.
type oneConn struct {
	conn  *milterConn
	taken bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.taken {
		<-l.conn.closed
		return nil, net.ErrClosed
	}
	l.taken = true
	return l.conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
