package dnsclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// streamPatience bounds a question over TCP, with the connection and the wait
// for a place.
const streamPatience = 3 * time.Second

// errGarbled means that an answer over TCP is not to our question.
var errGarbled = errors.New("it answers another question")

// errCut means that an answer is cut over TCP too.
var errCut = errors.New("it is cut there too")

// overStream asks server over a TCP connection of its own, for as long as ctx
// lasts (RFC 7766).
func (c *call) overStream(ctx context.Context, server netip.AddrPort) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", server.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() // long ago: what blocks returns

	c.pack(false)
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(c.query)), uint16(len(c.query)))
	if _, err := conn.Write(append(framed, c.query...)); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return cutOff(err)
	}
	c.answer = make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, c.answer); err != nil {
		return cutOff(err)
	}
	if !c.matches(c.answer) && !c.declines(c.answer) {
		return errGarbled
	}
	if isCut(c.answer) { // what is missing may be all there was
		return errCut
	}
	return nil
}

// declines reports whether msg is a failure without the question: what servers
// say that could not read it. Over UDP anybody could say so, and it is ignored.
func (c *call) declines(msg []byte) bool {
	return isAnswer(msg) && msgID(msg) == c.id && binary.BigEndian.Uint16(msg[4:]) == 0 && msgBits(msg)&maskRcode != 0
}

// cutOff says of an end of file what it is here.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection ended before the answer: %w", err)
	}
	return err
}
