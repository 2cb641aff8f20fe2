package mailq

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The first bytes of compressed files.
var (
	magicGzip  = []byte{0x1f, 0x8b}
	magicZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicXz    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	magicBzip2 = []byte("BZh")
)

// Open opens a log for reading from its beginning. Whether it is plain, gzip
// or zstd is seen from its content, not its name; "-" is standard input.
// Errors of opening and reading name the file; one in the middle says how
// many bytes of text came before it.
func Open(path string) (io.ReadCloser, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = openFile(path); err != nil {
			return nil, err
		}
	}
	return decompress(f, path)
}

// openFile opens a plain file, and says what to do where that is not allowed.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = fmt.Errorf("is a directory, not a log file")
	}
	if err != nil {
		f.Close()
		return nil, fileError(path, err)
	}
	return f, nil
}

// fileError names the log once and, where reading is forbidden, the remedy.
func fileError(path string, err error) error {
	err = pathError(path, err)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run as a user who may read it (on Debian a member of the group adm), or give this one the right: setfacl -m u:USER:r %s", err, path)
	}
	return err
}

// pathError names the path once.
func pathError(path string, err error) error {
	if pe, ok := err.(*os.PathError); ok {
		err = pe.Err
	}
	return fmt.Errorf("mailq: %s: %w", path, err)
}

// decompress takes over f, also when it fails.
func decompress(f *os.File, path string) (io.ReadCloser, error) {
	r := bufio.NewReaderSize(f, 64<<10) // larger reads go past it
	t := &textReader{path: path, file: f}
	head, err := r.Peek(6)
	if err != nil && err != io.EOF {
		f.Close()
		return nil, fileError(path, err)
	}
	switch {
	case bytes.HasPrefix(head, magicGzip):
		t.Reader, err = gzip.NewReader(r)
	case bytes.HasPrefix(head, magicZstd):
		var z *zstd.Decoder
		// 128 MB is the window that the zstd command itself accepts.
		z, err = zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderLowmem(true))
		if err == nil {
			t.Reader, t.stop = z, z.Close
		}
	case bytes.HasPrefix(head, magicXz), bytes.HasPrefix(head, magicBzip2):
		err = fmt.Errorf("compressed in a way that is not read here: unpack it to standard input and name that as -")
	default:
		t.Reader, t.plain, err = r, true, nil
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("mailq: %s: %w", path, err)
	}
	return t, nil
}

// A textReader is the text of a log file; its errors name the file.
type textReader struct {
	io.Reader
	path  string
	file  *os.File
	plain bool
	stop  func() // ends the decoder, if it needs that
	n     int64
}

func (t *textReader) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.n += int64(n)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("mailq: %s: unreadable after %d bytes of text: %w", t.path, t.n, err)
	}
	return n, err
}

func (t *textReader) Close() error {
	if t.stop != nil {
		t.stop()
	}
	if t.file == os.Stdin {
		return nil
	}
	return t.file.Close()
}
