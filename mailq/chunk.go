package mailq

import (
	"bytes"
	"io"
)

// Limits of the readers, in bytes.
const (
	// MaxLine is the longest line that is handed on, its newline included.
	// Longer ones are dropped and counted: no mail server writes them, and
	// a stranger may not fill our memory.
	MaxLine = 64 << 10
	// MaxChunk is the most that one [Chunk] holds.
	MaxChunk = 256 << 10
)

// A Position says how far a log was read. It is saved in the same transaction
// as what was made of the lines before it; reading resumes there.
type Position struct {
	Path   string `json:"path,omitempty"`
	Dev    uint64 `json:"dev,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
	Offset int64  `json:"offset,omitempty"` // bytes, of the text itself where the file is compressed
	// Head is a hash of the file's first min(Offset, 1024) bytes, so that a
	// recycled inode is noticed and a copy or a compressed file is recognised.
	Head uint64 `json:"head,omitempty"`
	// Seen is the file's modification time when it was read, in nanoseconds
	// since 1970. Should the file be gone, what was written later is unread.
	Seen int64 `json:"seen,omitempty"`
	// Cursor is journald's own position; the fields about files are unused.
	Cursor string `json:"cursor,omitempty"`
}

// A Chunk is some whole lines of a log, in order.
type Chunk struct {
	Lines   []byte   // each line ends in \n; at most MaxChunk bytes; valid only during the call, where nothing else is said
	End     Position // where to go on after these lines
	Caught  bool     // nothing more can be read right now
	Skipped int      // lines longer than MaxLine that were dropped before End
	// Gap says why lines may be missing before these; empty if none are.
	Gap string
}

// ReadChunks reads r to its end and emits its lines. The last Chunk, which may
// hold no lines, has Caught set; a last line without a newline is given one.
// An error of emit ends the reading and is returned as it is; an error of r
// (those of [Open] name the file) after the whole lines before it were emitted.
//
// The lines lie in what room returned before they were read, MaxChunk bytes
// each time: who returns the same again has the lines until then, who returns
// other bytes may keep them.
func ReadChunks(r io.Reader, room func() []byte, emit func(Chunk) error) error {
	var c cutter
	for {
		c.move(room())
		_, err := c.fill(r)
		lines := c.cut()
		end := err == io.EOF
		if end {
			lines = c.rest(lines)
		}
		if len(lines) > 0 || end {
			chunk := Chunk{Lines: lines, End: Position{Offset: c.done()}, Caught: end, Skipped: c.takeSkipped()}
			if err := emit(chunk); err != nil {
				return err
			}
		}
		switch {
		case end:
			return nil
		case err != nil:
			return err
		}
	}
}

// A cutter gathers what is read in one buffer and cuts whole lines off its
// front. It looks for the last newline, not for each.
type cutter struct {
	buf      []byte
	from     int   // start of what is not yet cut
	to       int   // end of what was read
	offset   int64 // of buf[to] in the text
	dropping int64 // bytes already thrown away of an over-long line whose end is not yet seen
	skipped  int
}

// fill reads once from r behind what is kept. What cut returned before is
// overwritten.
func (c *cutter) fill(r io.Reader) (int, error) {
	switch {
	case c.buf == nil:
		c.buf = make([]byte, MaxChunk)
	case c.from > 0:
		c.move(c.buf)
	}
	n, err := r.Read(c.buf[c.to : len(c.buf)-1]) // one byte stays for the newline that rest may add
	c.to += n
	c.offset += int64(n)
	if n > 0 && err == io.EOF {
		err = nil // the next call says so again
	}
	return n, err
}

// move goes on in room, which may be the same as before, with what is not yet cut.
func (c *cutter) move(room []byte) {
	c.to = copy(room, c.buf[c.from:c.to])
	c.buf, c.from = room, 0
}

// done is the offset behind the last line that is over: cut, or dropped to its end.
func (c *cutter) done() int64 { return c.offset - int64(c.to-c.from) - c.dropping }

func (c *cutter) takeSkipped() int {
	n := c.skipped
	c.skipped = 0
	return n
}

// cut returns the whole lines, without over-long ones.
func (c *cutter) cut() []byte {
	c.endDrop()
	start, kept := c.from, c.from
	for {
		rest := c.buf[c.from:c.to]
		n := bytes.LastIndexByte(rest[:min(len(rest), MaxLine)], '\n') + 1
		switch {
		case n > 0:
			if kept < c.from { // a dropped line lies between
				copy(c.buf[kept:], rest[:n])
			}
			kept += n
			c.from += n
		case len(rest) >= MaxLine:
			c.dropping = int64(len(rest))
			c.from = c.to
			if i := bytes.IndexByte(rest, '\n'); i >= 0 {
				c.from -= len(rest) - (i + 1)
				c.dropping = 0
				c.skipped++
			}
		default:
			return c.buf[start:kept:kept]
		}
	}
}

// endDrop looks for the end of a line that is being dropped.
func (c *cutter) endDrop() {
	if c.dropping == 0 {
		return
	}
	i := bytes.IndexByte(c.buf[c.from:c.to], '\n')
	if i < 0 {
		c.dropping += int64(c.to - c.from)
		c.from = c.to
		return
	}
	c.from += i + 1
	c.dropping = 0
	c.skipped++
}

// rest ends the text: it returns lines, which cut returned, and behind them
// the unterminated last line with a newline of its own.
func (c *cutter) rest(lines []byte) []byte {
	if c.dropping > 0 {
		c.skipped++
		c.dropping = 0
	}
	if c.to == c.from {
		return lines
	}
	tail := c.buf[c.from : c.to+1]
	tail[len(tail)-1] = '\n'
	c.from = c.to
	if len(lines) == 0 {
		return tail
	}
	return append(lines[:len(lines):len(lines)], tail...)
}

// reset starts anew at offset.
func (c *cutter) reset(offset int64) {
	*c = cutter{buf: c.buf, offset: offset, skipped: c.skipped}
}
