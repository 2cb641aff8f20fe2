package mailq

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A QueueHead is what the head of a queued message's file tells about the
// message. Its text is bounded and holds no control characters.
type QueueHead struct {
	ID    string
	Queue string // Postfix: hold, incoming, active or deferred; Exim: its named queue, empty for the usual one
	Path  string // of the file that was read
	// Login is the SASL login as it stands in the file. One that does not fit,
	// or holds what no login should, is quoted, so that it is like no other.
	Login   string
	User    string // local user that submitted it (Exim)
	UID     int64  // the same where only the number is known (Postfix); -1 if not
	Client  netip.Addr
	Sender  string    // of the envelope, empty for bounces
	Size    int64     // bytes; in Exim those of both its files
	Rcpts   int       // recipients left; those beyond the head count as left
	Arrival time.Time // as exact as the file tells
	Due     time.Time // when the file was changed last; Postfix sets it to the time of the next attempt
	Held    bool      // on hold, or frozen
}

// ErrGone means that a message is not in the queue, or not any more.
var ErrGone = errors.New("not in the queue")

// postfixQueues are the queues of messages that have their id for good, in the
// order in which a message goes, and once more those that a delivery that is
// tried again goes back to meanwhile.
var postfixQueues = []string{"incoming", "active", "deferred", "hold", "incoming", "active"}

// Each reads the head of every message in the queue, in no order, until yield
// returns false. Files that vanish meanwhile, are still being written or hold
// no envelope are passed over; a message that moves meanwhile may come twice.
// It costs one read of 4 KiB a message: 20 s for a million.
//
// An error tells of files that could not be read; all others were.
func (s *PostfixSpool) Each(ctx context.Context, yield func(QueueHead) bool) error {
	r := newHeadReader(s.spool())
	for _, queue := range postfixQueues {
		err := eachName(ctx, filepath.Join(s.Dir, queue), 0, postfixRight, func(dir, name string) error {
			if !postfixID(name) {
				return nil
			}
			h, err := r.readPostfix(dir, name, queue)
			if errors.Is(err, fs.ErrNotExist) {
				h, err = s.find(r, name) // or it is elsewhere by now
			}
			return r.give(ctx, h, err, yield)
		})
		if err != nil {
			return r.end(err)
		}
	}
	return r.end(nil)
}

// Look is [PostfixSpool.Each] for the messages with the ids, as far as they
// are there. It opens no file for anything that is not a queue id.
func (s *PostfixSpool) Look(ctx context.Context, ids []string, yield func(QueueHead) bool) error {
	r := newHeadReader(s.spool())
	for _, id := range ids {
		h, err := s.find(r, id)
		if err := r.give(ctx, h, err, yield); err != nil {
			return r.end(err)
		}
	}
	return r.end(nil)
}

// A spot is where in the spool of a Postfix a message may be.
type spot struct {
	queue string
	depth int // how deep the queue is hashed
}

// find looks for a message where the one before it was, then in all queues,
// twice, for it may be moved from one that is still to be looked at to one
// that was.
func (s *PostfixSpool) find(r *headReader, id string) (QueueHead, error) {
	if !postfixID(id) {
		return QueueHead{}, fs.ErrNotExist
	}
	at := func(p spot) (QueueHead, error) {
		h, err := r.readPostfix(filepath.Join(s.Dir, p.queue, postfixHash(id, p.depth)), id, p.queue)
		if err == nil {
			r.last = p
		}
		return h, err
	}
	if r.last.queue != "" {
		if h, err := at(r.last); !errors.Is(err, fs.ErrNotExist) {
			return h, err
		}
	}
	for range 2 {
		for _, queue := range postfixQueues[:4] {
			for depth := range maxHashDepth + 1 {
				if h, err := at(spot{queue, depth}); !errors.Is(err, fs.ErrNotExist) {
					return h, err
				}
			}
		}
	}
	return QueueHead{}, fs.ErrNotExist
}

// postfixHash is the directory below a queue's where a message is if the queue
// is hashed so deep: a level for each digit of the microseconds of its arrival
// (Postfix, src/global/mail_queue.c).
func postfixHash(id string, depth int) string {
	digits := id
	if at, ok := QueueIDTime(id); ok {
		digits = fmt.Sprintf("%05X", at.Nanosecond()/1000)
	}
	dir := ""
	for _, digit := range digits[:depth] {
		dir += string(digit) + "/"
	}
	return dir
}

// Header returns the header of a message, at most limit bytes of it, as it
// will be delivered: with what milters changed in it. It reads no further.
func (s *PostfixSpool) Header(h QueueHead, limit int) ([]byte, error) {
	f, err := openQueued(h.Path, postfixRight)
	if err != nil {
		return nil, gone(err)
	}
	defer f.Close()
	header, err := postfixHeader(f, limit)
	if err != nil {
		return nil, pathError(h.Path, err)
	}
	return header, nil
}

const (
	recLong    = 'L' // part of a line of the content that goes on
	recPointer = 'p' // the records go on elsewhere in the file
	recEnd     = 'X' // the content has ended

	maxRecord      = 64 << 10
	maxHeaderInput = 1 << 20 // bytes of a queue file that are read for a header
	maxJumps       = 1000
)

// postfixHeader reads the header from a queue file. Where a milter changed
// it, pointers lead from one place in the file to another, 0 to the next.
func postfixHeader(f io.ReadSeeker, limit int) ([]byte, error) {
	r := bufio.NewReader(f)
	kind, data, err := readRecord(r)
	if err != nil || kind != recSize {
		return nil, errNoEnvelope
	}
	columns := bytes.Fields(data)
	if len(columns) < 2 {
		return nil, errNoEnvelope
	}
	seek := func(offset int64) error {
		_, err := f.Seek(offset, io.SeekStart)
		r.Reset(f)
		return err
	}
	if err := seek(number(columns[1])); err != nil {
		return nil, err
	}
	var header []byte
	for read, jumps := 0, 0; read < maxHeaderInput && jumps < maxJumps; {
		kind, data, err := readRecord(r)
		if err != nil || kind == recEnd {
			break // a header without a body
		}
		read += len(data) + 2
		switch kind {
		case recPointer:
			jumps++
			if to := number(bytes.TrimSpace(data)); to > 0 {
				if err := seek(to); err != nil {
					return nil, err
				}
			}
		case recText, recLong:
			if len(data) == 0 && (len(header) == 0 || header[len(header)-1] == '\n') {
				return header, nil
			}
			if header = append(header, data...); kind == recText {
				header = append(header, '\n')
			}
			if len(header) >= limit {
				return header[:limit], nil
			}
		}
	}
	return header, nil
}

// readRecord reads a record, see [postfixRecord].
func readRecord(r *bufio.Reader) (kind byte, data []byte, err error) {
	if kind, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n := 0
	for shift := 0; ; shift += 7 {
		c, err := r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		if n |= int(c&0x7f) << shift; n > maxRecord || shift > 21 {
			return 0, nil, errNoEnvelope
		}
		if c&0x80 == 0 {
			break
		}
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	return kind, data, err
}

// Each reads the head of every message in the queue, as [PostfixSpool.Each]
// does.
func (s *EximSpool) Each(ctx context.Context, yield func(QueueHead) bool) error {
	r := newHeadReader(s.spool())
	queues, err := s.queues()
	if err != nil {
		return err
	}
	for _, input := range queues {
		err := eachName(ctx, input.dir, 0, eximRight, func(dir, name string) error {
			id, ok := strings.CutSuffix(name, "-H")
			if !ok || !isEximID(id) {
				return nil
			}
			h, err := r.readExim(dir, id, input.queue)
			return r.give(ctx, h, err, yield)
		})
		if err != nil {
			return r.end(err)
		}
	}
	return r.end(nil)
}

// Look is [EximSpool.Each] for the messages with the ids, as far as they are
// there. It opens no file for anything that is not a message id.
func (s *EximSpool) Look(ctx context.Context, ids []string, yield func(QueueHead) bool) error {
	r := newHeadReader(s.spool())
	queues, err := s.queues()
	if err != nil {
		return err
	}
	for _, id := range ids {
		h, err := find(r, queues, id)
		if err := r.give(ctx, h, err, yield); err != nil {
			return r.end(err)
		}
	}
	return r.end(nil)
}

func find(r *headReader, queues []eximInput, id string) (QueueHead, error) {
	if !isEximID(id) {
		return QueueHead{}, fs.ErrNotExist
	}
	for _, input := range queues {
		for _, dir := range []string{filepath.Join(input.dir, id[5:6]), input.dir} { // split_spool_directory or not
			if h, err := r.readExim(dir, id, input.queue); !errors.Is(err, fs.ErrNotExist) {
				return h, err
			}
		}
	}
	return QueueHead{}, fs.ErrNotExist
}

// Header returns the header of a message, at most limit bytes of it, without
// what Exim has taken out of it. Nothing else of the message is read.
func (s *EximSpool) Header(h QueueHead, limit int) ([]byte, error) {
	f, err := openQueued(h.Path, eximRight)
	if err != nil {
		return nil, gone(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHeaderInput))
	if err != nil {
		return nil, pathError(h.Path, err)
	}
	return eximHeader(text, limit), nil
}

// eximHeader reads the header lines of an -H file: their length in three
// digits or more, a flag, '*' for those that count no more, and a blank.
func eximHeader(text []byte, limit int) (header []byte) {
	_, b := eximEnvelope(text)
	_, b, _ = eximLine(b) // empty
	for len(header) < limit {
		i := 0
		for i < len(b) && i < 9 && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		n, err := strconv.Atoi(string(b[:i]))
		if err != nil || i < 3 || i > 8 || len(b) < i+2 {
			break
		}
		flag := b[i]
		b = b[i+2:]
		n = min(n, len(b))
		if flag != '*' {
			header = append(header, b[:n]...)
		}
		b = b[n:]
	}
	return header[:min(len(header), limit)]
}

// gone makes ErrGone of a file that is not there.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrGone)
	}
	return err
}

// errEnough ends a pass over the queue early.
var errEnough = errors.New("enough")

// A headReader reads the heads of files one after the other.
type headReader struct {
	spool  spool
	buf    []byte
	last   spot  // of the message that was found last
	failed int   // files that could not be read
	why    error // the first of them
}

func newHeadReader(s spool) *headReader {
	return &headReader{spool: s, buf: make([]byte, headBytes, longHeadBytes)}
}

// read reads one file; fs.ErrNotExist means that it is no message, not yet or
// not any more.
func (r *headReader) read(dir, name, id, queue string) (QueueHead, error) {
	path := filepath.Join(dir, name)
	file, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return QueueHead{}, fs.ErrNotExist // most places where a message is looked for
	}
	if err != nil {
		return QueueHead{}, spoolError(path, err, r.spool.right)
	}
	if !file.Mode().IsRegular() || !r.spool.whole(file) {
		return QueueHead{}, fs.ErrNotExist
	}
	h, err := r.spool.read(r.buf, dir, path, file)
	if err != nil {
		return QueueHead{}, err
	}
	if h.odd {
		h.login = strconv.Quote(h.login)
	}
	return QueueHead{
		ID: strings.Clone(id), Queue: queue, Path: path, Login: h.login, User: h.user, UID: h.uid, Client: h.client,
		Sender: h.sender, Size: h.size, Rcpts: h.rcpts, Arrival: h.arrival, Due: file.ModTime(), Held: h.held,
	}, nil
}

// readPostfix reads one file of a queue, which tells whether it is on hold.
func (r *headReader) readPostfix(dir, id, queue string) (QueueHead, error) {
	h, err := r.read(dir, id, id, queue)
	h.Held = queue == "hold"
	return h, err
}

// readExim reads one -H file and looks how large both files are.
func (r *headReader) readExim(dir, id, queue string) (QueueHead, error) {
	h, err := r.read(dir, id+"-H", id, queue)
	if err != nil {
		return h, err
	}
	for _, name := range []string{"-H", "-D"} {
		if file, err := os.Lstat(filepath.Join(dir, id+name)); err == nil {
			h.Size += file.Size()
		}
	}
	return h, nil
}

// give hands a head on; err is what reading it said.
func (r *headReader) give(ctx context.Context, h QueueHead, err error, yield func(QueueHead) bool) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("mailq: reading the queue: %w", ctx.Err())
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoEnvelope):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return err // it will be so with all
	case err != nil:
		if r.failed++; r.why == nil {
			r.why = err
		}
		return nil
	case !yield(h):
		return errEnough
	}
	return nil
}

// end says what is to be said of the whole pass.
func (r *headReader) end(err error) error {
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if r.failed > 0 {
		return fmt.Errorf("mailq: %d messages could not be read, such as: %w", r.failed, r.why)
	}
	return nil
}
