package mailq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A reader runs a Tail as the pipeline does: lines and position are kept
// together, and a restart goes on from what was kept.
type reader struct {
	t     *testing.T
	path  string
	mu    sync.Mutex
	cond  *sync.Cond
	lines []byte
	pos   Position
	gaps  []string
	skip  int
	ready int   // chunks that said Caught
	fail  int   // refuse the chunk after so many, as a crash before the commit does
	err   error // of the last Run
	stop  context.CancelFunc
	done  chan struct{}
}

func newReader(t *testing.T, path string) *reader {
	r := &reader{t: t, path: path, fail: -1}
	r.cond = sync.NewCond(&r.mu)
	t.Cleanup(r.halt)
	return r
}

func (r *reader) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.stop, r.done = cancel, done
	tail := &Tail{Path: r.path, From: r.pos}
	go func() {
		defer close(done)
		err := tail.Run(ctx, r.emit)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err = err
		r.cond.Broadcast()
	}()
}

func (r *reader) halt() {
	if r.stop != nil {
		r.stop()
		<-r.done
		r.stop = nil
	}
}

func (r *reader) emit(c Chunk) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.cond.Broadcast()
	if r.fail == 0 {
		r.fail = -1
		return errStop
	}
	r.fail--
	r.lines = append(r.lines, c.Lines...)
	r.pos = c.End
	r.skip += c.Skipped
	if c.Gap != "" {
		r.gaps = append(r.gaps, c.Gap)
	}
	if c.Caught {
		r.ready++
	}
	return nil
}

// until waits for ok, which is asked with r locked.
func (r *reader) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	timer := time.AfterFunc(21*time.Second, r.cond.Broadcast)
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("no %s after 20 s; have %d bytes, position %+v, gaps %q, error %v", what, len(r.lines), r.pos, r.gaps, r.err)
		}
		r.cond.Wait()
	}
}

func (r *reader) wants(want string) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d bytes", len(want)), func() bool { return len(r.lines) >= len(want) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if diff := cmp.Diff(strings.SplitAfter(string(r.lines), "\n"), strings.SplitAfter(want, "\n")); diff != "" {
		r.t.Errorf("lines (-got +want):\n%s", diff)
	}
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// pack compresses a file as logrotate does: the time stays, the name gets an
// extension, the original goes last.
func pack(t testing.TB, path, ext string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, _ := os.Stat(path)
	if ext == ".gz" {
		write(t, path+ext, packGzip(t, text))
	} else {
		write(t, path+ext, packZstd(t, text))
	}
	os.Chtimes(path+ext, fi.ModTime(), fi.ModTime())
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// copyTruncate rotates by copying; between is done between copy and truncation.
func copyTruncate(t testing.TB, path, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, text)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

func TestTail(t *testing.T) {
	long := strings.Repeat("x", MaxLine+10)
	tests := []struct {
		name string
		do   func(t *testing.T, r *reader, log string) (want string)
	}{
		{"from the beginning, then as it grows", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\nb\n")
			r.start()
			r.wants("a\nb\n")
			appendTo(t, log, "c\n")
			return "a\nb\nc\n"
		}},
		{"file comes later", func(t *testing.T, r *reader, log string) string {
			r.start()
			appendTo(t, log, "a\n")
			return "a\n"
		}},
		{"half a line waits", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\nhal")
			r.start()
			r.wants("a\n")
			appendTo(t, log, "f\n")
			return "a\nhalf\n"
		}},
		{"half a line is read again after a restart", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\nhal")
			r.start()
			r.wants("a\n")
			r.halt()
			appendTo(t, log, "f\n")
			r.start()
			return "a\nhalf\n"
		}},
		{"renamed while the writer goes on", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\n")
			r.start()
			r.wants("a\n")
			rename(t, log, log+".1")
			appendTo(t, log, "") // created, empty: the writer has not reopened yet
			appendTo(t, log+".1", "b\n")
			r.wants("a\nb\n")
			appendTo(t, log, "c\n")
			return "a\nb\nc\n"
		}},
		{"unterminated line of a rotated file", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\nb")
			r.start()
			r.wants("a\n")
			rename(t, log, log+".1")
			appendTo(t, log, "c\n")
			return "a\nb\nc\n"
		}},
		{"rotated twice while stopped", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\n")
			r.start()
			r.wants("a\n")
			r.halt()
			appendTo(t, log, "b\n")
			rename(t, log, log+".2")
			appendTo(t, log+".1", "c\n")
			appendTo(t, log, "d\n")
			r.start()
			return "a\nb\nc\nd\n"
		}},
		{"rotated by date while stopped", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log+"-20260318", "old\n")
			appendTo(t, log, "a\n")
			r.start()
			r.wants("a\n")
			r.halt()
			appendTo(t, log, "b\n")
			rename(t, log, log+"-20260319")
			appendTo(t, log+"-20260320", "c\n")
			appendTo(t, log, "d\n")
			r.start()
			return "a\nb\nc\nd\n"
		}},
		{"compressed while stopped", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\n")
			r.start()
			r.wants("a\n")
			r.halt()
			appendTo(t, log, "b\n")
			rename(t, log, log+".3")
			pack(t, log+".3", ".gz")
			appendTo(t, log+".2", "c\n")
			pack(t, log+".2", ".zst")
			appendTo(t, log+".1", "d\n")
			appendTo(t, log, "e\n")
			r.start()
			return "a\nb\nc\nd\ne\n"
		}},
		{"compressed while being read", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\n")
			r.start()
			r.wants("a\n")
			rename(t, log, log+".1")
			pack(t, log+".1", ".gz")
			os.Chtimes(log+".1.gz", time.Time{}, time.Now().Add(time.Hour)) // its time does not tell
			appendTo(t, log, "b\n")
			return "a\nb\n"
		}},
		{"stopped within a compressed file", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, strings.Repeat("aaaaaaaaaaaaaaa\n", 100_000))
			r.fail = 1
			r.start()
			r.until("refused chunk", func() bool { return r.err == errStop })
			rename(t, log, log+".1")
			pack(t, log+".1", ".gz")
			appendTo(t, log, "b\n")
			r.fail = 2
			r.start()
			r.until("refused chunk", func() bool { return r.fail == -1 })
			r.halt()
			r.start()
			return strings.Repeat("aaaaaaaaaaaaaaa\n", 100_000) + "b\n"
		}},
		{"copied and truncated", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\nb\n")
			r.start()
			r.wants("a\nb\n")
			copyTruncate(t, log, log+".1")
			appendTo(t, log, "c\n")
			r.wants("a\nb\nc\n")
			rename(t, log+".1", log+".2")
			copyTruncate(t, log, log+".1")
			appendTo(t, log, "d is longer than what was before it\n")
			return "a\nb\nc\nd is longer than what was before it\n"
		}},
		{"copied and truncated twice while stopped", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\n")
			r.start()
			r.wants("a\n")
			r.halt()
			appendTo(t, log, "b\n")
			copyTruncate(t, log, log+".2")
			pack(t, log+".2", ".gz")
			appendTo(t, log, "c, longer than all that was before\n")
			copyTruncate(t, log, log+".1")
			appendTo(t, log, "d, longer than all that was before\n")
			r.start()
			return "a\nb\nc, longer than all that was before\nd, longer than all that was before\n"
		}},
		{"over-long line", func(t *testing.T, r *reader, log string) string {
			appendTo(t, log, "a\n"+long+long+long+long+long)
			r.start()
			r.wants("a\n")
			r.halt()
			appendTo(t, log, long+"\nb\n")
			r.start()
			r.wants("a\nb\n")
			r.until("skipped line", func() bool { return r.skip == 1 })
			return "a\nb\n"
		}},
		{"directory comes later", func(t *testing.T, r *reader, log string) string {
			r.path = filepath.Join(log, "mail.log")
			r.start()
			if err := os.Mkdir(log, 0o700); err != nil {
				t.Fatal(err)
			}
			appendTo(t, r.path, "a\n")
			return "a\n"
		}},
		{"a link to the log", func(t *testing.T, r *reader, log string) string {
			r.path = log + ".link"
			os.Symlink(log, r.path)
			appendTo(t, log, "a\n")
			r.start()
			r.wants("a\n")
			rename(t, log, log+".1")
			appendTo(t, log, "b\n")
			return "a\nb\n"
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "mail.log")
			r := newReader(t, log)
			r.wants(tt.do(t, r, log))
			r.halt()
			if len(r.gaps) > 0 {
				t.Errorf("told gaps %q, want none", r.gaps)
			}
		})
	}
}

func TestTailGap(t *testing.T) {
	log := filepath.Join(t.TempDir(), "mail.log")
	r := newReader(t, log)
	appendTo(t, log+".2", "read long ago\n")
	appendTo(t, log, "a\n")
	r.start()
	r.wants("a\n")
	r.halt()
	os.Remove(log)
	appendTo(t, log+".1", "later than what was read\n") // its predecessor was deleted
	os.Chtimes(log+".1", time.Time{}, time.Now().Add(time.Hour))
	appendTo(t, log, "b\n")
	r.start()
	r.wants("a\nlater than what was read\nb\n")
	r.halt()
	if len(r.gaps) != 1 || !strings.Contains(r.gaps[0], log) {
		t.Errorf("got gaps %q, want one that names the log", r.gaps)
	}
}

// A file that was truncated and left no copy, or whose inode was used again,
// is read from its beginning, and what may be lost is told.
func TestTailReplaced(t *testing.T) {
	replace := map[string]func(log string){
		"truncated":     func(log string) { os.Truncate(log, 0); appendTo(t, log, "b\n") },
		"and longer":    func(log string) { os.Truncate(log, 0); appendTo(t, log, "b\nlonger than before\n") },
		"another inode": func(log string) { os.Remove(log); appendTo(t, log, "b\nlonger than before\n") },
	}
	for name, do := range replace {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/running %v", name, running), func(t *testing.T) {
				log := filepath.Join(t.TempDir(), "mail.log")
				r := newReader(t, log)
				appendTo(t, log, "aaaa\n")
				r.start()
				r.wants("aaaa\n")
				if !running {
					r.halt()
				}
				do(log)
				if !running {
					r.start()
				}
				r.until("new text", func() bool { return strings.Count(string(r.lines), "\n") >= 2 })
				appendTo(t, log, "c\n")
				r.until("last line", func() bool { return bytes.HasSuffix(r.lines, []byte("\nc\n")) })
				r.halt()
				if !bytes.HasPrefix(r.lines, []byte("aaaa\nb\n")) {
					t.Errorf("got %q", r.lines)
				}
				// A running reader holds the removed file and knows that it read all of it.
				if told := len(r.gaps) == 1; told != (name != "another inode" || !running) {
					t.Errorf("got gaps %q", r.gaps)
				}
			})
		}
	}
}

// Without news from the kernel, the file is looked at now and then.
func TestWaiterPolls(t *testing.T) {
	w := &waiter{path: "mail.log", poll: time.Millisecond}
	w.wait(t.Context(), time.Time{})
	if w.woke.IsZero() {
		t.Error("did not look after the poll time")
	}
	w = &waiter{path: "mail.log", poll: time.Hour}
	w.wait(t.Context(), time.Now().Add(time.Millisecond)) // else this test hangs
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.wait(ctx, time.Time{})
	w.close()
}

func TestTailDamagedArchive(t *testing.T) {
	log := filepath.Join(t.TempDir(), "mail.log")
	r := newReader(t, log)
	appendTo(t, log, "a\n")
	r.start()
	r.wants("a\n")
	r.halt()
	rename(t, log, log+".2")
	gz := packGzip(t, bytes.Repeat([]byte("b\n"), 10))
	write(t, log+".1.gz", gz[:len(gz)-6])
	appendTo(t, log, "c\n")
	r.start()
	r.wants("a\n" + strings.Repeat("b\n", 10) + "c\n")
	r.halt()
	if len(r.gaps) != 1 || !strings.Contains(r.gaps[0], "mail.log.1.gz: unreadable after 20 bytes") {
		t.Errorf("got gaps %q, want one that names the archive", r.gaps)
	}
}

func TestTailCaught(t *testing.T) {
	log := filepath.Join(t.TempDir(), "mail.log")
	appendTo(t, log, strings.Repeat("a\n", 400_000))
	var said []bool
	ctx, cancel := context.WithCancel(context.Background())
	err := (&Tail{Path: log}).Run(ctx, func(c Chunk) error {
		said = append(said, c.Caught)
		if c.Caught {
			cancel()
		}
		return nil
	})
	if diff := cmp.Diff(said, []bool{false, false, false, true}); diff != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v; caught (-got +want):\n%s", err, diff)
	}
	r := newReader(t, filepath.Join(t.TempDir(), "empty.log"))
	appendTo(t, r.path, "")
	r.start()
	r.until("word that nothing is there", func() bool { return r.ready == 1 })
}

func TestTailUnreadable(t *testing.T) {
	dir := t.TempDir()
	err := (&Tail{Path: dir}).Run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v for a directory, want an error that names it", err)
	}
}

func TestTailLatency(t *testing.T) {
	log := filepath.Join(t.TempDir(), "mail.log")
	r := newReader(t, log)
	appendTo(t, log, "a\n")
	r.start()
	r.wants("a\n")
	var best time.Duration = time.Hour
	want := "a\n"
	for range 10 {
		began := time.Now()
		appendTo(t, log, "b\n")
		want += "b\n"
		r.wants(want)
		best = min(best, time.Since(began))
	}
	if best > 50*time.Millisecond {
		t.Errorf("the quickest of 10 lines took %v, want at most 50 ms", best)
	}
}

func TestTailEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	log := filepath.Join(t.TempDir(), "mail.log")
	appendTo(t, log, "a\n")
	for range 20 {
		r := newReader(t, log)
		r.start()
		r.wants("a\n")
		r.halt()
		if !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v, want the context's error", r.err)
		}
	}
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); { // the kernel's answer may take a moment
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// A rotator writes a log and rotates it at random.
type rotator struct {
	t    *testing.T
	rng  *rand.Rand
	log  string
	out  *os.File
	n    int
	date int
	want strings.Builder
}

func (w *rotator) write() {
	for range 1 + w.rng.IntN(40) {
		w.n++
		line := fmt.Sprintf("%06d %s\n", w.n, strings.Repeat("m", w.rng.IntN(200)))
		cut := len(line)
		if w.rng.IntN(4) == 0 {
			cut = w.rng.IntN(len(line))
		}
		io.WriteString(w.out, line[:cut])
		if w.rng.IntN(8) == 0 {
			runtime.Gosched()
		}
		io.WriteString(w.out, line[cut:])
		w.want.WriteString(line)
	}
}

func (w *rotator) reopen() {
	if w.out != nil {
		w.out.Close()
	}
	var err error
	if w.out, err = os.OpenFile(w.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// shift makes room under the name of the newest rotated file and returns it.
func (w *rotator) shift(byDate bool) string {
	if byDate {
		w.date++
		return fmt.Sprintf("%s-2026%04d", w.log, w.date)
	}
	for i := 30; i > 0; i-- {
		for _, ext := range []string{"", ".gz", ".zst"} {
			old := fmt.Sprintf("%s.%d%s", w.log, i, ext)
			if _, err := os.Stat(old); err == nil {
				rename(w.t, old, fmt.Sprintf("%s.%d%s", w.log, i+1, ext))
			}
		}
	}
	return w.log + ".1"
}

func (w *rotator) rotate(byDate, byCopy bool) {
	to := w.shift(byDate)
	if byCopy {
		copyTruncate(w.t, w.log, to)
		return
	}
	rename(w.t, w.log, to)
	if w.rng.IntN(2) == 0 {
		w.write() // the writer has not been told yet
	}
	if w.rng.IntN(2) == 0 {
		appendTo(w.t, w.log, "")
		w.write()
	}
	w.reopen()
}

// compress packs one of the rotated files that are plain.
func (w *rotator) compress() {
	names, _ := filepath.Glob(w.log + "[.-]*[0-9]")
	if len(names) > 0 {
		pack(w.t, names[w.rng.IntN(len(names))], []string{".gz", ".zst"}[w.rng.IntN(2)])
	}
}

// Whatever is done to a log, and whenever its reader is stopped, crashes
// before a commit and starts again: no line is lost or doubled.
func TestTailRandom(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d, by date %v, by copy %v", seed, seed&1 == 1, seed&2 == 2), func(t *testing.T) {
			t.Parallel()
			w := &rotator{t: t, rng: rand.New(rand.NewPCG(uint64(seed), 7)), log: filepath.Join(t.TempDir(), "mail.log")}
			r := newReader(t, w.log)
			w.reopen()
			defer func() { w.out.Close() }()
			w.write()
			r.start()
			r.wants(w.want.String()) // only a position that was saved once tells the files before it
			running := true
			for range 150 {
				switch k := w.rng.IntN(12); {
				case k < 6:
					w.write()
				case k < 7 && w.want.Len() > 0:
					w.rotate(seed&1 == 1, seed&2 == 2)
				case k < 8:
					w.compress()
				case k < 9 && running:
					some := w.rng.IntN(w.want.Len() + 1)
					r.until("progress", func() bool { return r.err != nil || len(r.lines) >= some })
				case k < 10 && !running:
					r.err, r.fail = nil, w.rng.IntN(6)-1
					r.start()
					running = true
				case k < 11 && running:
					r.halt()
					running = false
				}
			}
			r.halt()
			r.fail = -1
			r.start()
			r.wants(w.want.String())
			r.halt()
			if len(r.gaps) > 0 {
				t.Errorf("told gaps %q, want none", r.gaps)
			}
		})
	}
}

// A log that is truncated when it is rotated may be rotated again between its
// being found and being read: what it held then is in a copy, and comes first.
func TestRotatedBeforeItIsRead(t *testing.T) {
	for name, then := range map[string]string{"written to since": "c\n", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "mail.log")
			var got strings.Builder
			f := &follower{path: log, emit: func(c Chunk) error {
				got.Write(c.Lines)
				if c.Gap != "" {
					t.Error(c.Gap)
				}
				return nil
			}}
			defer f.close()
			until := func(what string, done func() bool) {
				t.Helper()
				for end := time.Now().Add(10 * time.Second); !done(); {
					if more, err := f.step(); err != nil {
						t.Fatal(err)
					} else if !more {
						time.Sleep(time.Millisecond)
					}
					if time.Now().After(end) {
						t.Fatalf("no %s; got %q", what, got.String())
					}
				}
			}
			appendTo(t, log, "a\n")
			until("first line", func() bool { return got.String() == "a\n" })
			copyTruncate(t, log, log+".1")
			appendTo(t, log, "b\n")
			until("next file", func() bool { return f.fresh })
			rename(t, log+".1", log+".2")
			copyTruncate(t, log, log+".1")
			appendTo(t, log, then)
			until("second line", func() bool { return got.String() == "a\nb\n" || got.String() == "a\nb\n"+then })
			appendTo(t, log, "d\n")
			until("last line", func() bool { return got.String() == "a\nb\n"+then+"d\n" })
		})
	}
}
