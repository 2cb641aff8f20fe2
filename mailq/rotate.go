package mailq

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	headSize = 1 << 10 // bytes of a file by which it is known again
	// maxSiblings bounds how many rotated files of one log are looked at.
	maxSiblings = 4096
	// plainNumber is the longest suffix that counts rotations; longer ones are dates.
	plainNumber = 5
)

// errNotIt means that a file is not the one a Position is about.
var errNotIt = errors.New("mailq: not the file of this position")

// errMoving means that a file is not there now, perhaps because it is just
// being renamed, copied or compressed: look again.
var errMoving = errors.New("mailq: the file of this position is not there now")

// A source is an opened log file, plain or compressed.
type source struct {
	name       string
	text       io.ReadCloser
	file       *os.File // the same where it is plain, nil where it is compressed
	dev, inode uint64
	start      int64  // where reading began
	first      []byte // the text's first bytes, as far as they were read; at most headSize
	size       int64  // of the file, when last looked
	seen       int64  // its modification time then
}

// openSource opens the file called name to be read from p on. The error is
// errNotIt if it is too short for p, or begins otherwise where p has a Head.
func openSource(name string, p Position) (*source, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	s := &source{name: name, start: p.Offset}
	if s.text, err = decompress(f, name); err != nil {
		return nil, err
	}
	if text := s.text.(*textReader); text.plain {
		s.text, s.file = f, f
	}
	if err = s.goTo(f, p); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// goTo fills in what s knows of itself and moves to p.
func (s *source) goTo(f *os.File, p Position) error {
	fi, err := f.Stat()
	if err != nil {
		return fileError(s.name, err)
	}
	s.dev, s.inode = identity(fi)
	s.size, s.seen = fi.Size(), fi.ModTime().UnixNano()
	if s.file != nil {
		if s.size < p.Offset {
			return errNotIt
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fileError(s.name, err)
		}
	}
	s.first = make([]byte, min(p.Offset, headSize), headSize)
	if _, err := io.ReadFull(s.text, s.first); err != nil {
		return errNotIt
	}
	if p.Head != 0 && p.Head != headHash(s.first) {
		return errNotIt
	}
	if s.file != nil {
		_, err = f.Seek(p.Offset, io.SeekStart)
	} else if _, err = io.CopyN(io.Discard, s.text, p.Offset-int64(len(s.first))); err != nil {
		err = errNotIt // cut, or still being written
	}
	return err
}

func (s *source) close() { s.text.Close() }

// headHash never gives 0, which stands for an unknown head.
func headHash(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write(b)
	return max(h.Sum64(), 1)
}

// position is where to go on after offset bytes of s.
func (s *source) position(path string, offset int64) Position {
	return Position{
		Path: path, Dev: s.dev, Inode: s.inode, Offset: offset, Seen: s.seen,
		Head: headHash(s.first[:min(offset, int64(len(s.first)))]),
	}
}

// saw takes note of bytes just read.
func (s *source) saw(b []byte) {
	if room := headSize - len(s.first); room > 0 {
		s.first = append(s.first, b[:min(room, len(b))]...)
	}
}

// same says whether the file still is what it was when offset bytes of it
// were read: neither shorter nor beginning otherwise.
func (s *source) same(offset int64) (bool, error) {
	if s.file == nil {
		return true, nil
	}
	fi, err := s.file.Stat()
	if err != nil {
		return false, err
	}
	if fi.Size() < offset {
		return false, nil
	}
	s.size, s.seen = fi.Size(), fi.ModTime().UnixNano()
	var now [headSize]byte
	n, err := s.file.ReadAt(now[:len(s.first)], 0)
	if err == io.EOF {
		err = nil // truncated at this very moment
	}
	return bytes.Equal(now[:n], s.first), err
}

// is says whether path is the name of s now.
func (s *source) is(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return false
	}
	dev, inode := identity(fi)
	return dev == s.dev && inode == s.inode
}

// next opens the oldest file of the log that is newer than s, of which p is
// the end, and has lines. It is nil if there is none, and errMoving if s itself
// is not among the files; with gone, that does not matter.
func (s *source) next(path string, p Position, gone bool) (*source, error) {
	if s.is(path) {
		return nil, nil
	}
	family, err := listFamily(path)
	if err != nil {
		return nil, err
	}
	p.Seen = s.seen
	newer, known := family.newerThan(p, func(m member) bool { return m.dev == s.dev && m.inode == s.inode })
	if !known && !gone {
		return nil, errMoving
	}
	for _, m := range newer {
		if m.size == 0 {
			continue
		}
		next, err := m.open(Position{})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotIt) {
			return nil, nil // being renamed: look again
		}
		return next, err
	}
	return nil, nil
}

// follows reports whether what was just read of s stands directly behind p: a
// log that is truncated when it is rotated holds other lines by then, and what
// it held is in a copy that comes before it.
func (s *source) follows(path string, p Position) (bool, error) {
	family, err := listFamily(path)
	if err != nil {
		return false, err
	}
	newer, known := family.newerThan(p, func(member) bool { return false })
	if !known {
		return true, nil
	}
	for _, m := range newer {
		if m.inode == s.inode {
			return true, nil
		}
		if m.size == 0 {
			continue
		}
		copied, err := m.open(Position{Offset: int64(len(s.first)), Head: headHash(s.first)})
		if err == nil {
			copied.close()
		}
		return err == nil, nil
	}
	return true, nil
}

// locate opens what is to be read after p: its file, whatever it is called
// now, or else, with a word about what may be missing, the oldest one that is
// newer. It is nil where there is nothing yet, and errMoving where the file of
// p is not found; with gone, it is taken for gone.
func locate(path string, p Position, gone bool) (*source, string, error) {
	family, err := listFamily(path)
	if err != nil {
		return nil, "", err
	}
	if p.Inode == 0 && p.Offset == 0 { // from the beginning of what Path is now
		family = family[max(0, len(family)-1):]
		if len(family) == 0 || !family[0].current {
			return nil, "", nil
		}
		src, err := family[0].open(Position{})
		return ignoreMoved(src, "", err)
	}
	if _, src, err := family.find(p); src != nil || err != nil {
		return src, "", err
	}
	if !gone {
		return nil, "", errMoving
	}
	newer, _ := family.newerThan(p, func(member) bool { return false })
	for _, m := range newer {
		gap := fmt.Sprintf("%s: the file that was read up to byte %d is gone, or was truncated and left no copy", path, p.Offset)
		src, err := m.open(Position{})
		return ignoreMoved(src, gap, err)
	}
	return nil, "", nil
}

// ignoreMoved makes "look again" of a file that was renamed or removed
// between being listed and being opened.
func ignoreMoved(src *source, gap string, err error) (*source, string, error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotIt) {
		return nil, "", nil
	}
	return src, gap, err
}

// A member is one file of a log.
type member struct {
	name       string
	suffix     string // what rotation added to the name, without .gz or .zst
	packed     bool   // the name says that it is compressed
	current    bool   // it is the log itself
	dev, inode uint64
	size       int64
	modified   int64 // nanoseconds since 1970
}

// open opens m at p if its name still is that of the same file.
func (m member) open(p Position) (*source, error) {
	s, err := openSource(m.name, p)
	if err == nil && s.inode != m.inode {
		s.close()
		return nil, errNotIt
	}
	return s, err
}

// A family is all files of a log, the oldest first, the log itself last.
type family []member

// find opens the member that p is about: by its inode, else by how it begins.
// It is an error if that file is there and may not be read.
func (f family) find(p Position) (int, *source, error) {
	for i, m := range f {
		if m.inode != p.Inode || (p.Head == 0 && m.dev != p.Dev) { // devices may be numbered anew by a reboot
			continue
		}
		s, err := m.open(p)
		if err == nil || errors.Is(err, fs.ErrPermission) {
			return i, s, err
		}
	}
	if p.Head == 0 {
		return -1, nil, nil
	}
	for i := len(f) - 1; i >= 0; i-- {
		if s, err := f[i].open(p); err == nil {
			return i, s, nil
		}
	}
	return -1, nil, nil
}

// newerThan returns the members behind the one that is the file of p, which
// self knows where it is still there under some name. Where it is not, the
// time of the last look decides; the log itself is always newer then. It
// reports whether the file was there.
func (f family) newerThan(p Position, self func(member) bool) (newer family, known bool) {
	i := slices.IndexFunc(f, self)
	if i < 0 {
		var s *source
		if i, s, _ = f.find(p); s != nil {
			s.close()
		}
	}
	if i >= 0 {
		return f[i+1:], true
	}
	for _, m := range f {
		if m.current || m.modified > p.Seen {
			newer = append(newer, m)
		}
	}
	return newer, false
}

// listFamily lists the files of the log at path. Reading a directory in which
// files are being renamed may miss one, so it is read until it was the same twice.
func listFamily(path string) (family, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	before, err := readFamily(path)
	for range 10 {
		var now family
		if err != nil {
			return nil, err
		}
		now, err = readFamily(path)
		if slices.EqualFunc(before, now, func(a, b member) bool { return a.name == b.name && a.inode == b.inode }) {
			return now, err
		}
		before = now
	}
	return before, err
}

func readFamily(path string) (family, error) {
	var f family
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil && !os.IsPermission(err) { // the log itself may still be readable
		return nil, fileError(filepath.Dir(path), err)
	}
	var names []string
	if err == nil {
		names, err = dir.Readdirnames(-1)
		dir.Close()
		if err != nil {
			return nil, fileError(filepath.Dir(path), err)
		}
	}
	for _, name := range names {
		suffix, packed, ok := rotatedName(filepath.Base(path), name)
		if !ok || len(f) == maxSiblings {
			continue
		}
		if m, err := statMember(filepath.Join(filepath.Dir(path), name)); err == nil {
			m.suffix, m.packed = suffix, packed
			f = append(f, m)
		}
	}
	f = f.sorted()
	m, err := statMember(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	m.current = true
	return append(f, m), err
}

func statMember(name string) (member, error) {
	fi, err := os.Stat(name)
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return member{}, fileError(name, err)
	}
	dev, inode := identity(fi)
	return member{name: name, dev: dev, inode: inode, size: fi.Size(), modified: fi.ModTime().UnixNano()}, nil
}

// sorted orders rotated files, the oldest first. Numbers count back from the
// newest and dates forward; where both occur, or neither, the modification
// time tells. A file that is there plain and compressed, as it is while being
// compressed, is kept plain.
func (f family) sorted() family {
	numbers, dates := true, true
	for _, m := range f {
		numbers = numbers && len(m.suffix) <= plainNumber
		dates = dates && len(m.suffix) > plainNumber
	}
	slices.SortFunc(f, func(a, b member) int {
		var c int
		switch {
		case numbers:
			c = -cmp.Or(cmp.Compare(len(a.suffix), len(b.suffix)), cmp.Compare(a.suffix, b.suffix))
		case dates:
			c = cmp.Compare(a.suffix, b.suffix)
		default:
			c = cmp.Or(cmp.Compare(a.modified, b.modified), cmp.Compare(a.suffix, b.suffix))
		}
		if c == 0 && a.packed != b.packed {
			if a.packed {
				return 1
			}
			return -1
		}
		return c
	})
	return slices.CompactFunc(f, func(a, b member) bool { return a.suffix == b.suffix })
}

// rotatedName says whether name is a rotated file of the log called base, and
// what rotation added: "1" of mail.log.1.gz, "20260320" of mail.log-20260320
// and of mail-20260320.log.
func rotatedName(base, name string) (suffix string, packed, ok bool) {
	for _, ext := range []string{".gz", ".zst"} {
		if rest, cut := strings.CutSuffix(name, ext); cut {
			name, packed = rest, true
		}
	}
	suffix, ok = strings.CutPrefix(name, base)
	if ext := filepath.Ext(base); !ok && ext != "" {
		if name, cut := strings.CutSuffix(name, ext); cut {
			suffix, ok = strings.CutPrefix(name, strings.TrimSuffix(base, ext))
		}
	}
	if !ok || len(suffix) < 2 || !strings.ContainsRune(".-_", rune(suffix[0])) || suffix[1] < '0' || suffix[1] > '9' {
		return "", false, false
	}
	if strings.Trim(suffix, "0123456789.-_:T") != "" {
		return "", false, false
	}
	return strings.TrimLeft(suffix[1:], "0"), packed, true
}

// identity is the device and inode of a file.
func identity(fi os.FileInfo) (dev, inode uint64) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev), st.Ino
	}
	return 0, 0
}
