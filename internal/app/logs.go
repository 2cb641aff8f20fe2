package app

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A logReader reads old logs to their ends, in time order.
type logReader struct {
	paths    []string
	stdin    io.Reader
	location *time.Location // of stamps that name none
	now      time.Time      // stamps without a year are not after this
	line     func([]byte) error
	progress func()       // after each chunk
	tooLong  atomic.Int64 // lines that were dropped, see mailq.Chunk
}

// run reads on a goroutine a log. Several logs are merged by the times of
// their lines, so that the order in which they are named does not matter and
// a Dovecot log can go beside a Postfix one.
func (r *logReader) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	heads := make([]*logHead, len(r.paths))
	ahead := max(piecesAhead/max(len(heads), 1), 1)
	for i, path := range r.paths {
		h := &logHead{pieces: make(chan *piece, ahead), used: make(chan *piece, ahead+2), stamps: mailq.Stamps{Location: r.location, Now: r.now}}
		heads[i] = h
		g.Go(func() error {
			defer close(h.pieces)
			return r.read(ctx, path, h)
		})
	}
	g.Go(func() error {
		if len(heads) == 1 {
			return r.single(ctx, heads[0])
		}
		return r.merge(ctx, heads)
	})
	return g.Wait()
}

// single hands on the lines of one log, as they are.
func (r *logReader) single(ctx context.Context, h *logHead) error {
	for p := range h.pieces {
		from := 0
		for _, end := range p.ends {
			if err := r.line(p.text[from:end]); err != nil {
				return err
			}
			from = end + 1
		}
		h.done(p)
		r.progress()
	}
	return ctx.Err()
}

// read hands on the pieces of one log.
func (r *logReader) read(ctx context.Context, path string, h *logHead) error {
	var f io.ReadCloser = io.NopCloser(r.stdin)
	if path != "-" || r.stdin == nil {
		var err error
		if f, err = mailq.Open(path); err != nil {
			return err
		}
	}
	defer f.Close()
	var p *piece // that is being read
	room := func() []byte {
		if p == nil {
			p = h.take()
		}
		return p.room
	}
	return mailq.ReadChunks(f, room, func(c mailq.Chunk) error {
		p.cut(c.Lines)
		r.tooLong.Add(int64(c.Skipped))
		select {
		case h.pieces <- p:
			p = nil
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// A logHead is the next line of one of several logs.
type logHead struct {
	pieces chan *piece
	used   chan *piece // to be filled again
	hand   *piece      // the one at hand
	read   int         // lines of it
	line   []byte
	at     time.Time // a line without a stamp happened when the one before did
	stamps mailq.Stamps
	ended  bool
}

// piecesAhead is how many pieces are read ahead of one log, or of all logs
// together, so that the goroutine that reads runs where another waits, and not
// where lines are parsed.
const piecesAhead = 6

// A piece is some lines of a log and where each of them ends. The lines are
// found by the goroutine that reads, so that the one that parses is not held
// up.
type piece struct {
	room []byte // that the text lies in
	text []byte
	ends []int // of the newlines
}

// cut finds the lines of text.
func (p *piece) cut(text []byte) {
	p.text, p.ends = text, p.ends[:0]
	for at := 0; at < len(text); at++ {
		n := bytes.IndexByte(text[at:], '\n')
		if n < 0 {
			break // chunks end with a newline
		}
		at += n
		p.ends = append(p.ends, at)
	}
}

// take returns a piece to be filled, one that was used before if there is any.
func (h *logHead) take() *piece {
	select {
	case p := <-h.used:
		return p
	default:
		return &piece{room: make([]byte, mailq.MaxChunk)}
	}
}

// done gives a piece's room back.
func (h *logHead) done(p *piece) {
	select {
	case h.used <- p:
	default:
	}
}

// next moves to the next line. The one before is not valid any more.
func (h *logHead) next() {
	for h.hand == nil || h.read == len(h.hand.ends) {
		if h.hand != nil {
			h.done(h.hand)
		}
		p, ok := <-h.pieces
		if !ok {
			h.ended = true
			return
		}
		h.hand, h.read = p, 0
	}
	from := 0
	if h.read > 0 {
		from = h.hand.ends[h.read-1] + 1
	}
	h.line = h.hand.text[from:h.hand.ends[h.read]]
	h.read++
	if at, ok := h.stamps.LineTime(h.line); ok {
		h.at = at
	}
}

// merge hands on the earliest line of all logs, again and again.
func (r *logReader) merge(ctx context.Context, heads []*logHead) error {
	for _, h := range heads {
		h.next()
	}
	for n := 0; ; n++ {
		var first *logHead
		for _, h := range heads {
			if !h.ended && (first == nil || h.at.Before(first.at)) {
				first = h
			}
		}
		if first == nil {
			return ctx.Err()
		}
		if err := r.line(first.line); err != nil {
			return err
		}
		first.next()
		if n%4096 == 0 {
			r.progress()
		}
	}
}
