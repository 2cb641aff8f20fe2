package gate

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// A milterConn reads the packets of a mail server, hands on those of the kinds
// that we asked for, and of the headers only those that name a script.
//
// A packet is its length (four octets, big endian), a letter for its kind, and
// data that the length counts too.
type milterConn struct {
	conn                 sparingConn
	idle, request, write time.Duration

	in         *bufio.Reader
	data       []byte // of the latest packet
	negotiated bool   // the first packet was read
}

// The kinds of packets.
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

	packetQuarantine = 'q' // of ours, as the following; the answer follows
	packetAccept     = 'a'
	packetContinue   = 'c'
)

// Bounds on packets, in bytes. Postfix's headers have 100 kB by default; of
// those that are handed on a part is enough.
const (
	maxPacket       = 64 << 10
	maxHeaderPacket = 16 << 20
	keptOfHeader    = 1 << 10
	packetHead      = 5 // length and kind
)

func newMilterConn(m *Milter, conn net.Conn) *milterConn {
	from := swift(conn)
	return &milterConn{
		conn:    from,
		idle:    orDefault(m.IdleTimeout, 4*time.Hour),
		request: orDefault(m.RequestTimeout, 5*time.Second),
		write:   orDefault(m.WriteTimeout, 5*time.Second),
		in:      bufio.NewReaderSize(from, firstRequest),
	}
}

// A sparingConn is a connection whose reader need not be woken for each packet.
type sparingConn interface {
	net.Conn
	// passOver has the next Read wait until more than n bytes are there.
	passOver(n int)
}

// errSlow is a deadline that passed between the first and the last byte.
var errSlow = errors.New("too slow")

// next returns the next packet that is of interest. Its data are valid until
// the next call.
func (c *milterConn) next() (kind byte, data []byte, err error) {
	for kind == 0 && err == nil {
		if c.in.Buffered() == 0 {
			c.conn.SetReadDeadline(time.Now().Add(c.wait()))
			if _, err := c.in.Peek(1); err != nil {
				return 0, nil, err // it hung up, or had nothing to ask for long
			}
		}
		kind, data, err = c.packet()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return kind, data, err
}

// wait is how long the next packet may take to begin: the first one comes at
// once.
func (c *milterConn) wait() time.Duration {
	if c.negotiated {
		return c.idle
	}
	return c.request
}

// packet reads a packet that has begun. Its kind is 0 if it is of no interest.
func (c *milterConn) packet() (kind byte, data []byte, err error) {
	if c.partial() {
		c.conn.SetReadDeadline(time.Now().Add(c.request))
	}
	head, err := c.in.Peek(4)
	if err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head)
	if length == 0 {
		return 0, nil, errMalformed
	}
	if head, err = c.in.Peek(packetHead); err != nil {
		return 0, nil, err
	}
	kind = head[4]
	switch {
	case kind == packetHeader && length > maxHeaderPacket, kind != packetHeader && length > maxPacket:
		return 0, nil, errTooLong
	case (kind == packetNegotiate) == c.negotiated:
		return 0, nil, errMalformed
	}
	c.negotiated = true
	if _, err := c.in.Discard(packetHead); err != nil {
		return 0, nil, err
	}
	if kind == packetHeader {
		return c.header(int(length) - 1)
	}
	data, err = c.keep(int(length) - 1)
	return kind, data, err
}

// partial reports whether the packet is still to be read from the network, at
// least in part.
func (c *milterConn) partial() bool {
	held := c.in.Buffered()
	if held < packetHead {
		return true
	}
	head, _ := c.in.Peek(4)
	return uint64(held) < 4+uint64(binary.BigEndian.Uint32(head))
}

// keep reads n bytes of data.
func (c *milterConn) keep(n int) ([]byte, error) {
	if cap(c.data) < n {
		c.data = make([]byte, n)
	}
	c.data = c.data[:n]
	_, err := io.ReadFull(c.in, c.data)
	return c.data, err
}

// header reads a header of n bytes, its name and value each with a NUL at the
// end, and hands it on if it names a script; of one that is long, the beginning.
func (c *milterConn) header(n int) (kind byte, data []byte, err error) {
	begin, err := c.in.Peek(min(n, len(headerOriginating)+1))
	if err != nil {
		return 0, nil, err
	}
	name, _, ok := bytes.Cut(begin, []byte{0})
	if !ok || string(name) != headerOriginating && string(name) != headerScript {
		_, err := c.in.Discard(n)
		return 0, nil, err
	}
	kept := min(n, keptOfHeader)
	if data, err = c.keep(kept); err != nil {
		return 0, nil, err
	}
	_, err = c.in.Discard(n - kept)
	return packetHeader, data, err
}

// passOver has the next packet wait until more than n bytes of what is to come
// are there, unless it has begun to come.
func (c *milterConn) passOver(n int) {
	if c.in.Buffered() == 0 {
		c.conn.passOver(n)
	}
}

// send writes packets.
func (c *milterConn) send(packets []byte) error {
	c.conn.SetWriteDeadline(time.Now().Add(c.write))
	_, err := c.conn.Write(packets)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSlow
	}
	return err
}

// appendPacket appends a packet.
func appendPacket(out []byte, kind byte, data string) []byte {
	out = append(binary.BigEndian.AppendUint32(out, uint32(len(data)+1)), kind)
	return append(out, data...)
}

// cutText returns the text before the first NUL and what follows that.
func cutText(data []byte) (text string, rest []byte, err error) {
	before, rest, ok := bytes.Cut(data, []byte{0})
	if !ok {
		return "", nil, errMalformed
	}
	return string(before), rest, nil
}

// clip bounds a text that is kept.
func clip(text string) string {
	if len(text) <= maxMilterText {
		return text
	}
	return strings.Clone(text[:maxMilterText])
}
