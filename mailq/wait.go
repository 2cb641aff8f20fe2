package mailq

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A waiter waits for news of a file: those the kernel tells, and where it does
// not (a network file system, no inotify left), the next look.
type waiter struct {
	path    string
	real    string // what path links to, if it does
	poll    time.Duration
	pace    time.Duration
	watcher *fsnotify.Watcher // nil where there is none
	woke    time.Time
}

func newWaiter(path string, poll, pause time.Duration) *waiter {
	w := &waiter{path: path, poll: poll, pace: pause}
	if w.poll <= 0 {
		w.poll = 250 * time.Millisecond
	}
	if w.pace <= 0 {
		w.pace = pace
	}
	w.watcher, _ = fsnotify.NewWatcher() // without one, looking often must do
	w.watch()
	return w
}

// watch asks for news of the directories of path and of what it links to.
// Asking again is harmless, and needed when a directory came later.
func (w *waiter) watch() {
	if w.watcher == nil || len(w.watcher.WatchList()) > 0 {
		return
	}
	w.watcher.Add(filepath.Dir(w.path))
	if real, err := filepath.EvalSymlinks(w.path); err == nil && filepath.Clean(w.path) != real {
		w.real = real
		w.watcher.Add(filepath.Dir(real))
	}
}

// wait returns when the file may have changed, at until if that is not zero,
// or when ctx ends.
func (w *waiter) wait(ctx context.Context, until time.Time) {
	w.watch()
	d := w.poll
	if !until.IsZero() {
		d = min(d, time.Until(until))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	var events chan fsnotify.Event
	var errs chan error
	if w.watcher != nil {
		events, errs = w.watcher.Events, w.watcher.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			w.woke = time.Now()
			return
		case <-errs: // an overflow: something happened
			w.rest(ctx)
			return
		case ev := <-events:
			if w.concerns(ev.Name) {
				w.rest(ctx)
				return
			}
		}
	}
}

// concerns says whether name may be a file of the log.
func (w *waiter) concerns(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, filepath.Base(w.path)) || w.real != "" && base == filepath.Base(w.real)
}

// rest keeps looks pace apart.
func (w *waiter) rest(ctx context.Context) {
	if d := w.pace - time.Since(w.woke); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	w.woke = time.Now()
}

func (w *waiter) close() {
	if w.watcher != nil {
		w.watcher.Close()
	}
}
