package app

import (
	"bytes"
	"context"
	"io"
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
	progress func() // after each chunk
}

// run reads on a goroutine a log. Several logs are merged by the times of
// their lines, so that the order in which they are named does not matter and
// a Dovecot log can go beside a Postfix one.
func (r *logReader) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	heads := make([]*logHead, len(r.paths))
	for i, path := range r.paths {
		h := &logHead{chunks: make(chan []byte, 2), used: make(chan []byte, 4), stamps: mailq.Stamps{Location: r.location, Now: r.now}}
		heads[i] = h
		g.Go(func() error {
			defer close(h.chunks)
			return r.read(ctx, path, func(c mailq.Chunk) error {
				select {
				case h.chunks <- append(h.buffer(), c.Lines...):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
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
	for chunk := range h.chunks {
		for line := range lines(chunk) {
			if err := r.line(line); err != nil {
				return err
			}
		}
		h.done(chunk)
		r.progress()
	}
	return ctx.Err()
}

func (r *logReader) read(ctx context.Context, path string, emit func(mailq.Chunk) error) error {
	var f io.ReadCloser = io.NopCloser(r.stdin)
	if path != "-" || r.stdin == nil {
		var err error
		if f, err = mailq.Open(path); err != nil {
			return err
		}
	}
	defer f.Close()
	return mailq.ReadChunks(f, func(c mailq.Chunk) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return emit(c)
	})
}

// A logHead is the next line of one of several logs.
type logHead struct {
	chunks chan []byte
	used   chan []byte // chunks to be filled again
	chunk  []byte      // that rest is of
	rest   []byte
	line   []byte
	at     time.Time // a line without a stamp happened when the one before did
	stamps mailq.Stamps
	ended  bool
}

// buffer returns room for a chunk.
func (h *logHead) buffer() []byte {
	select {
	case b := <-h.used:
		return b[:0]
	default:
		return make([]byte, 0, mailq.MaxChunk)
	}
}

// done gives a chunk's room back.
func (h *logHead) done(chunk []byte) {
	select {
	case h.used <- chunk:
	default:
	}
}

// next moves to the next line. The one before is not valid any more.
func (h *logHead) next() {
	for len(h.rest) == 0 {
		if h.chunk != nil {
			h.done(h.chunk)
		}
		chunk, ok := <-h.chunks
		if !ok {
			h.ended = true
			return
		}
		h.chunk, h.rest = chunk, chunk
	}
	h.line, h.rest, _ = bytes.Cut(h.rest, []byte{'\n'})
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
