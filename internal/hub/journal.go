package hub

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// A Journal keeps what agents sent until it is judged. A record is on the disk
// before it is acknowledged; many that come together are written in one piece
// and cost one fsync. It is read once, at the start: what was not judged before
// a crash is judged then.
//
// It is a directory of segments, files named by their number. A record is the
// CRC-32C of what follows (four octets, big endian), its length (four more),
// and a CBOR array. A crash may leave a part of one at the end of a segment.
type Journal struct {
	dir     string
	maximum int64 // bytes of all segments
	asks    chan *appending
	closed  chan struct{}
	ended   chan struct{}

	mu       sync.Mutex // guards what follows
	segments []segment  // the last is written to

	// The writer's.
	file   *os.File // of the last segment
	buf    []byte
	spoilt bool // what could not be written whole could not be cut off either
}

type segment struct {
	number uint64
	size   int64
}

// A Position is the end of a record. The zero Position is before all of them.
type Position struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
}

// Before says that p is an earlier one than q.
func (p Position) Before(q Position) bool {
	return p.Segment < q.Segment || p.Segment == q.Segment && p.Offset < q.Offset
}

// A Record is a batch as the journal keeps it.
type Record struct {
	_        struct{} `cbor:",toarray"`
	Agent    string
	Received int64 // nanoseconds since 1970, by the hub's clock
	Skew     int64 // nanoseconds by which the agent's clock is ahead; 0 if that does not matter
	Gap      bool  // batches before it are missing
	Sealed   Sealed
}

const (
	segmentSize = 64 << 20
	recordHead  = 8
	maxRecord   = maxSealed + 1<<10
	groupBytes  = 4 << 20 // of records that are written in one piece
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFull means that the journal has as many bytes as it may.
var ErrFull = errors.New("journal is full")

// OpenJournal opens the journal in dir, which is made if it is not there, and
// cuts off a record that a crash left unfinished. It keeps at most so many
// bytes.
func OpenJournal(dir string, maximum int64) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{dir: dir, maximum: maximum, asks: make(chan *appending), closed: make(chan struct{}), ended: make(chan struct{})}
	if err := j.list(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := j.resume(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	go j.write()
	return j, nil
}

func (j *Journal) path(number uint64) string {
	return filepath.Join(j.dir, fmt.Sprintf("%016d.journal", number))
}

// list finds the segments.
func (j *Journal) list() error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".journal")
		number, err := strconv.ParseUint(name, 10, 64)
		if !ok || err != nil {
			continue // not ours
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		j.segments = append(j.segments, segment{number, info.Size()})
	}
	slices.SortFunc(j.segments, func(a, b segment) int { return int(int64(a.number) - int64(b.number)) })
	return nil
}

// resume goes on behind the last whole record of the last segment.
func (j *Journal) resume() error {
	if len(j.segments) == 0 {
		return j.begin(1)
	}
	last := &j.segments[len(j.segments)-1]
	whole, err := j.readSegment(last.number, 0, func(Record, Position) error { return nil })
	if err != nil && !errors.Is(err, errTorn) {
		return err
	}
	if j.file, err = os.OpenFile(j.path(last.number), os.O_RDWR, 0o600); err != nil {
		return err
	}
	last.size = whole
	return j.rewind(whole)
}

// rewind cuts the file off at offset and writes on from there.
func (j *Journal) rewind(offset int64) error {
	if err := j.file.Truncate(offset); err != nil {
		return err
	}
	_, err := j.file.Seek(offset, io.SeekStart)
	return err
}

// begin starts a segment.
func (j *Journal) begin(number uint64) error {
	f, err := os.OpenFile(j.path(number), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(j.dir); err != nil {
		f.Close()
		return err
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file = f
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = append(j.segments, segment{number: number})
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// errTorn is the end of the whole records of a segment before the end of its
// file.
var errTorn = errors.New("torn record")

// Read calls f with each record after from, in order, and stops at its error.
// It is for the start, before anything is appended. Damage within the journal
// costs the rest of its segment, and is returned when all else was read.
func (j *Journal) Read(from Position, f func(Record, Position) error) error {
	var damage error
	for i, s := range j.segments {
		if s.number < from.Segment {
			continue
		}
		offset := int64(0)
		if s.number == from.Segment {
			offset = from.Offset
		}
		at, err := j.readSegment(s.number, offset, f)
		switch {
		case errors.Is(err, errTorn) && i < len(j.segments)-1:
			damage = errors.Join(damage, fmt.Errorf("journal: %s is damaged at byte %d: what follows in it is lost", j.path(s.number), at))
		case err != nil && !errors.Is(err, errTorn):
			return err
		}
	}
	return damage
}

// readSegment reads records from offset on and returns where the last whole one
// ends, and errTorn if that is not the end of the file.
func (j *Journal) readSegment(number uint64, offset int64, f func(Record, Position) error) (int64, error) {
	file, err := os.Open(j.path(number))
	if err != nil {
		return offset, err
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return offset, err
	}
	in := bufio.NewReaderSize(file, 1<<20)
	for {
		r, size, err := readRecord(in)
		if err == io.EOF {
			return offset, nil
		}
		if err != nil {
			return offset, err
		}
		offset += size
		if err := f(r, Position{number, offset}); err != nil {
			return offset, err
		}
	}
}

func readRecord(in io.Reader) (r Record, size int64, err error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(in, head[:]); err == io.EOF {
		return r, 0, io.EOF
	} else if err != nil {
		return r, 0, errTorn
	}
	n := binary.BigEndian.Uint32(head[4:])
	if n > maxRecord {
		return r, 0, errTorn
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(in, text); err != nil {
		return r, 0, errTorn
	}
	sum := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, text)
	if sum != binary.BigEndian.Uint32(head[:]) || cbor.Unmarshal(text, &r) != nil {
		return r, 0, errTorn
	}
	return r, recordHead + int64(n), nil
}

func appendRecord(out []byte, r *Record) ([]byte, error) {
	text, err := encoding.Marshal(r)
	if err != nil {
		return out, err
	}
	var head [recordHead]byte
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	binary.BigEndian.PutUint32(head[:], crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, text))
	return append(append(out, head[:]...), text...), nil
}

// An appending is a caller of Append that waits.
type appending struct {
	records []Record
	then    func([]Position)
	done    chan error // holds one
}

// Append returns when the records are on the disk, or with why they are not, and
// then none of them is. Before it returns, then was called with where each of
// them ends, in the order of the journal.
func (j *Journal) Append(records []Record, then func([]Position)) error {
	a := &appending{records: records, then: then, done: make(chan error, 1)}
	select {
	case j.asks <- a:
		return <-a.done
	case <-j.closed:
		return fmt.Errorf("journal: %w", fs.ErrClosed)
	}
}

// write is the one goroutine that writes.
func (j *Journal) write() {
	defer close(j.ended)
	for {
		select {
		case a := <-j.asks:
			j.group(a)
		case <-j.closed:
			return
		}
	}
}

// group writes what waits, in one piece.
func (j *Journal) group(first *appending) {
	waiting := []*appending{first}
	var ends [][]Position
	j.buf = j.buf[:0]
	err := j.mend()
	number, begun := j.last()
	for a := first; err == nil; {
		var at []Position
		for i := range a.records {
			if j.buf, err = appendRecord(j.buf, &a.records[i]); err != nil {
				break // plain data: cannot be
			}
			at = append(at, Position{number, begun + int64(len(j.buf))})
		}
		ends = append(ends, at)
		if a = j.another(); a == nil {
			break
		}
		waiting = append(waiting, a)
	}
	if err == nil {
		err = j.put(begun)
	}
	for i, a := range waiting {
		if err == nil {
			a.then(ends[i])
		}
		a.done <- err
	}
}

// mend leaves a segment whose end is spoilt.
func (j *Journal) mend() error {
	if !j.spoilt {
		return nil
	}
	number, _ := j.last()
	err := j.begin(number + 1)
	j.spoilt = err != nil
	return err
}

// another is one more caller who waits already, if there is room for him.
func (j *Journal) another() *appending {
	if len(j.buf) >= groupBytes {
		return nil
	}
	select {
	case a := <-j.asks:
		return a
	default:
		return nil
	}
}

func (j *Journal) last() (number uint64, size int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.segments[len(j.segments)-1]
	return s.number, s.size
}

// put writes buf at the end of the last segment. What cannot be written whole
// is cut off again.
func (j *Journal) put(begun int64) error {
	if size := j.Size() + int64(len(j.buf)); size > j.maximum {
		return fmt.Errorf("%w: %d bytes are not judged yet, at most %d", ErrFull, size, j.maximum)
	}
	_, err := j.file.Write(j.buf)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		if back := j.rewind(begun); back != nil {
			j.spoilt, err = true, errors.Join(err, back)
		}
		return fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	last := &j.segments[len(j.segments)-1]
	last.size = begun + int64(len(j.buf))
	full, next := last.size >= segmentSize, last.number+1
	j.mu.Unlock()
	if full {
		_ = j.begin(next) // or goes on in this one, and tries again
	}
	return nil
}

// Size is how many bytes the journal has.
func (j *Journal) Size() (n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.segments {
		n += s.size
	}
	return n
}

// Forget removes the segments that end before position, whose records are all
// judged.
func (j *Journal) Forget(position Position) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for len(j.segments) > 1 && j.segments[0].number < position.Segment {
		if err := os.Remove(j.path(j.segments[0].number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("journal: %w", err))
			break
		}
		j.segments = j.segments[1:]
	}
	return errors.Join(errs...)
}

// Close ends the writing. What was appended is on the disk.
func (j *Journal) Close() error {
	close(j.closed)
	<-j.ended
	return j.file.Close()
}
