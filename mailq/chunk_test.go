package mailq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

var errStop = errors.New("enough")

// collect joins the lines of all chunks and checks what is promised of each.
type collect struct {
	t       testing.TB
	lines   []byte
	skipped int
	caught  bool
	gaps    []string
	end     Position
}

func (c *collect) emit(ch Chunk) error {
	c.t.Helper()
	if len(ch.Lines) > MaxChunk {
		c.t.Errorf("a chunk of %d bytes, want at most %d", len(ch.Lines), MaxChunk)
	}
	if len(ch.Lines) > 0 && ch.Lines[len(ch.Lines)-1] != '\n' {
		c.t.Errorf("a chunk ends in %q, want a newline", ch.Lines[len(ch.Lines)-1])
	}
	c.lines = append(c.lines, ch.Lines...)
	c.skipped += ch.Skipped
	c.caught = ch.Caught
	c.end = ch.End
	if ch.Gap != "" {
		c.gaps = append(c.gaps, ch.Gap)
	}
	return nil
}

func TestReadChunks(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	fits := strings.Repeat("y", MaxLine-1) + "\n"
	var many strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&many, "line %d of a log that needs more than one chunk\n", i)
	}
	tests := []struct {
		name, in, want string
		skipped        int
	}{
		{"empty", "", "", 0},
		{"one line", "a\n", "a\n", 0},
		{"last line unterminated", "a\nb", "a\nb\n", 0},
		{"only an unterminated line", "b", "b\n", 0},
		{"empty lines", "\n\n\n", "\n\n\n", 0},
		{"longest line", fits + "a\n", fits + "a\n", 0},
		{"one byte too long", "a\n" + long + "\nb\n", "a\nb\n", 1},
		{"too long at the start", long + long + "\nb\n", "b\n", 1},
		{"too long and unterminated", "a\n" + long + long, "a\n", 1},
		{"a megabyte", "a\n" + strings.Repeat(long, 16) + "\nb\n", "a\nb\n", 1},
		{"two too long between short ones", "a\n" + long + "\nb\n" + long + "\nc", "a\nb\nc\n", 2},
		{"binary", "\x00\xff\n\x00", "\x00\xff\n\x00\n", 0},
		{"many", many.String(), many.String(), 0},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"at once":       func(r io.Reader) io.Reader { return r },
		"by halves":     iotest.HalfReader,
		"end with data": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for how, wrap := range readers {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				c := &collect{t: t}
				if err := ReadChunks(wrap(strings.NewReader(tt.in)), sameRoom(), c.emit); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(c.lines, []byte(tt.want)) {
					t.Errorf("got %d bytes %.60q…, want %d bytes %.60q…", len(c.lines), c.lines, len(tt.want), tt.want)
				}
				if c.skipped != tt.skipped || !c.caught || c.end.Offset != int64(len(tt.in)) {
					t.Errorf("skipped %d, caught %v, end %d; want %d, true, %d", c.skipped, c.caught, c.end.Offset, tt.skipped, len(tt.in))
				}
			})
		}
	}
}

func TestReadChunksErrors(t *testing.T) {
	c := &collect{t: t}
	err := ReadChunks(io.MultiReader(strings.NewReader("a\nb\nc"), iotest.ErrReader(errStop)), sameRoom(), c.emit)
	if !errors.Is(err, errStop) || string(c.lines) != "a\nb\n" {
		t.Errorf("got %q and %v, want the whole lines and the reader's error", c.lines, err)
	}
	err = ReadChunks(strings.NewReader("a\n"), sameRoom(), func(Chunk) error { return context.Canceled })
	if err != context.Canceled {
		t.Errorf("got %v, want the error of emit as it is", err)
	}
}

// Every End is a place from which the rest of the lines can be read.
func TestReadChunksEnds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var text []byte
	for range 200 {
		n := rng.IntN(200)
		if rng.IntN(20) == 0 {
			n = MaxLine - 2 + rng.IntN(5)
		}
		text = append(append(text, bytes.Repeat([]byte{'a' + byte(rng.IntN(26))}, n)...), '\n')
	}
	whole := &collect{t: t}
	if err := ReadChunks(bytes.NewReader(text), sameRoom(), whole.emit); err != nil {
		t.Fatal(err)
	}
	first := &collect{t: t}
	ReadChunks(iotest.HalfReader(bytes.NewReader(text)), sameRoom(), func(ch Chunk) error {
		first.emit(ch)
		then := &collect{t: t}
		if err := ReadChunks(bytes.NewReader(text[ch.End.Offset:]), sameRoom(), then.emit); err != nil {
			t.Fatal(err)
		}
		if got := append(bytes.Clone(first.lines), then.lines...); !bytes.Equal(got, whole.lines) || first.skipped+then.skipped != whole.skipped {
			t.Errorf("split at %d: %d bytes and %d skipped, want %d and %d", ch.End.Offset, len(got), first.skipped+then.skipped, len(whole.lines), whole.skipped)
		}
		return nil
	})
}

func FuzzReadChunks(f *testing.F) {
	f.Add([]byte("a\nb"), uint16(3))
	f.Add(append(bytes.Repeat([]byte("z"), MaxLine), "\nq\n"...), uint16(1000))
	f.Fuzz(func(t *testing.T, text []byte, size uint16) {
		var want []byte
		skipped := 0
		for line := range bytes.Lines(text) {
			line = append(bytes.TrimSuffix(bytes.Clone(line), []byte("\n")), '\n')
			if len(line) > MaxLine {
				skipped++
				continue
			}
			want = append(want, line...)
		}
		c := &collect{t: t}
		if err := ReadChunks(&shortReader{bytes.NewReader(text), int(size) + 256}, sameRoom(), c.emit); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(c.lines), string(want)); diff != "" || c.skipped != skipped {
			t.Errorf("skipped %d, want %d; lines (-got +want):\n%s", c.skipped, skipped, diff)
		}
	})
}

// A shortReader reads at most n bytes at once.
type shortReader struct {
	io.Reader
	n int
}

func (s *shortReader) Read(p []byte) (int, error) { return s.Reader.Read(p[:min(len(p), s.n)]) }
