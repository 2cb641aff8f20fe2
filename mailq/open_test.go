package mailq

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func packGzip(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packZstd(t testing.TB, text []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(text, nil)
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// sameRoom returns the same room again and again.
func sameRoom() func() []byte {
	room := make([]byte, MaxChunk)
	return func() []byte { return room }
}

func TestOpen(t *testing.T) {
	text := []byte(strings.Repeat("Mar 20 10:00:00 mx1 postfix/qmgr[1]: 4ABC: removed\n", 20_000))
	gz, zst := packGzip(t, text), packZstd(t, text)
	tests := []struct {
		name string
		file []byte
		want []byte
		err  string // part of the error, besides the name
	}{
		{"plain.log", text, text, ""},
		{"empty.log", nil, nil, ""},
		{"gzip by content, whatever its name", gz, text, ""},
		{"zstd by content, whatever its name", zst, text, ""},
		{"two gzip members.gz", append(bytes.Clone(gz), gz...), append(bytes.Clone(text), text...), ""},
		{"cut.gz", gz[:len(gz)/2], nil, "unreadable after"},
		{"cut.zst", zst[:len(zst)/2], nil, "unreadable after"},
		{"only the magic.gz", gz[:4], nil, "unexpected EOF"},
		{"log.xz", []byte("\xfd7zXZ\x00...."), nil, "unpack it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.name)
			write(t, path, tt.file)
			c := &collect{t: t}
			r, err := Open(path)
			if err == nil {
				err = ReadChunks(r, sameRoom(), c.emit)
				r.Close()
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Count(err.Error(), path) != 1 {
					t.Fatalf("got %v, want %q and once the name", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.lines, tt.want) {
				t.Errorf("got %d bytes, want %d", len(c.lines), len(tt.want))
			}
		})
	}
}

func TestOpenUnreadable(t *testing.T) {
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked.log")
	write(t, locked, []byte("a\n"))
	os.Chmod(locked, 0)
	tests := []struct {
		path, want string
		needsUser  bool
	}{
		{filepath.Join(dir, "missing.log"), "no such file", false},
		{dir, "is a directory", false},
		{locked, "setfacl", true},
	}
	for _, tt := range tests {
		if tt.needsUser && os.Getuid() == 0 {
			continue // root may read everything; fileError is tested below
		}
		_, err := Open(tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: got %v, want %q and the path", tt.path, err, tt.want)
		}
	}
	err := fileError("/var/log/mail.log", &os.PathError{Op: "open", Path: "/var/log/mail.log", Err: os.ErrPermission})
	if !strings.Contains(err.Error(), "setfacl -m u:USER:r /var/log/mail.log") {
		t.Errorf("got %v, want what to do", err)
	}
}

func BenchmarkReadChunks(b *testing.B) {
	line := "Mar 20 10:00:00 mx1 postfix/smtp[4345]: 4ABC: to=<bob@shop.test>, relay=mx.shop.test[192.0.2.1]:25, delay=1, status=sent (250 ok)\n"
	path := filepath.Join(b.TempDir(), "mail.log")
	write(b, path, []byte(strings.Repeat(line, 200_000)))
	b.SetBytes(int64(len(line)) * 200_000)
	for b.Loop() {
		r, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := ReadChunks(r, sameRoom(), func(Chunk) error { return nil }); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
