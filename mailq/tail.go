package mailq

import (
	"context"
	"errors"
	"io"
	"time"
)

const (
	// settle is how long a renamed file must stay silent after its successor
	// has its first line: with several writers some may still be on the way.
	settle = 100 * time.Millisecond

	// lookFor is how long a file is looked for that was there: it may just be
	// being renamed, copied or compressed.
	lookFor = time.Second
	// pace is the shortest time between two looks at a log that is being
	// written, unless a Tail says otherwise. Each look wakes several threads; a
	// message is some eight lines.
	pace = 20 * time.Millisecond
)

// A Tail follows a log file. It understands the two ways of rotation:
//
//   - Rename and create: the old file is read to its end, which comes when a
//     newer one has lines, and then the newer ones in their order. Nothing is
//     lost or doubled, also when Tail was not running meanwhile, as long as
//     the rotated files lie beside the log under names such as mail.log.1,
//     mail.log-20260320, mail.log.2.gz or mail.log.3.zst.
//   - copytruncate: what was not yet read is taken from the copy. Lines that
//     are written between the end of the copying and the truncation are in
//     neither file: this way of rotation loses them for every reader.
//
// An unterminated last line waits for its newline, or until its file was left
// for a newer one.
type Tail struct {
	Path string
	// From is where to go on. The zero Position is the beginning of the file
	// that Path is now.
	From Position
	// Poll is how often to look where the kernel tells nothing; 0 is 250 ms.
	Poll time.Duration
	// Pace is the shortest time between two looks at a log that is being
	// written; 0 is 20 ms. What comes after a silence is read at once.
	Pace time.Duration
}

// Run emits the lines until ctx ends, whose error it then returns. A file that
// does not exist is waited for. It returns any other error and does not retry:
// start it again from the last Chunk.End. An error of emit is returned as it is.
func (t *Tail) Run(ctx context.Context, emit func(Chunk) error) error {
	w := newWaiter(t.Path, t.Poll, t.Pace)
	defer w.close()
	f := &follower{path: t.Path, last: t.From, emit: emit}
	defer f.close()
	for ctx.Err() == nil {
		more, err := f.step()
		if err != nil {
			return err
		}
		if !more {
			w.wait(ctx, f.leave)
		}
	}
	return ctx.Err()
}

// A follower is the state of one run of a Tail.
type follower struct {
	path   string
	emit   func(Chunk) error
	src    *source   // what is being read; nil before the first file is found
	cut    cutter    // what was read of src
	last   Position  // behind the last emitted line
	gap    string    // to be told with the next Chunk
	caught bool      // the last Chunk said so
	leave  time.Time // when src may be left for the newer file that was found
	fresh  bool      // src was opened for what stands after last, and nothing of it was told
	missed time.Time // since when the file of last is not found; zero: it was
}

func (f *follower) close() {
	if f.src != nil {
		f.src.close()
		f.src = nil
	}
}

// step does one thing, and reports whether there may be more to do at once.
func (f *follower) step() (bool, error) {
	if f.src == nil {
		return f.find()
	}
	n, err := f.cut.fill(f.src.text)
	if err != nil && err != io.EOF && n == 0 {
		if f.src.file != nil {
			return false, fileError(f.src.name, err)
		}
		f.gap = err.Error() // a damaged archive; what was written after it is still of use
	}
	same, err := f.src.same(f.cut.offset)
	if err != nil {
		return false, fileError(f.src.name, err)
	}
	if !same { // truncated: go on in the copy, which find looks for
		f.close()
		return true, nil
	}
	if n == 0 && f.fresh { // emptied since it was found
		f.close()
		return true, nil
	}
	if n == 0 {
		return f.atEnd()
	}
	f.src.saw(f.cut.buf[f.cut.to-n : f.cut.to])
	if f.fresh {
		if follows, err := f.src.follows(f.path, f.last); !follows || err != nil {
			f.close() // rotated between being found and being read
			return true, err
		}
		f.fresh = false
	}
	f.leave = time.Time{}
	return true, f.tell(f.cut.cut(), f.cut.offset >= f.src.size && f.src.is(f.path))
}

// tell emits lines, unless there is nothing new to say.
func (f *follower) tell(lines []byte, caught bool) error {
	f.last = f.src.position(f.path, f.cut.done())
	if len(lines) == 0 && (!caught || f.caught) && f.gap == "" {
		return nil
	}
	c := Chunk{Lines: lines, End: f.last, Caught: caught, Skipped: f.cut.takeSkipped(), Gap: f.gap}
	f.caught, f.gap = caught, ""
	return f.emit(c)
}

// find opens the file of the saved position, or what took its place.
func (f *follower) find() (bool, error) {
	src, gap, err := locate(f.path, f.last, f.gone())
	if f.misses(err) || src == nil && err == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f.gap = gap
	f.open(src)
	return true, nil
}

// misses notes whether the file of the position was not found.
func (f *follower) misses(err error) bool {
	missed := errors.Is(err, errMoving)
	if missed && f.missed.IsZero() {
		f.missed = time.Now()
	}
	return missed
}

// gone reports whether the file was not found for so long that it is not just
// being rotated.
func (f *follower) gone() bool { return !f.missed.IsZero() && time.Since(f.missed) > lookFor }

func (f *follower) open(src *source) {
	f.close()
	f.src, f.leave, f.caught, f.fresh, f.missed = src, time.Time{}, false, false, time.Time{}
	f.cut.reset(src.start)
}

// atEnd is reached when the file has no more for now: it goes on with the
// next one as soon as that has lines.
func (f *follower) atEnd() (bool, error) {
	next, err := f.src.next(f.path, f.last, f.gone())
	if f.misses(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if next == nil {
		return false, f.tell(nil, true)
	}
	if f.src.file != nil && f.leave.IsZero() {
		f.leave = time.Now()
		if seen := time.Unix(0, f.src.seen); seen.Before(f.leave) {
			f.leave = seen
		}
		f.leave = f.leave.Add(settle)
	}
	if time.Now().Before(f.leave) {
		next.close()
		return false, nil
	}
	if lines := f.cut.rest(nil); len(lines) > 0 {
		if err := f.tell(lines, false); err != nil {
			next.close()
			return false, err
		}
	}
	f.open(next)
	f.fresh = true
	return true, nil
}
