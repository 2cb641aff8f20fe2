package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// An EximQueue acts on queued messages with the commands of Exim, which ask
// for root, Exim's own user or an admin user. Exim does nothing if it cannot
// write its main log. It reads the queue's files by itself, see
// [mailq.EximSpool] for the right it needs; queues with a name are left alone.
//
// An EximQueue must not be copied after its first use.
type EximQueue struct {
	// Command is Exim and what must precede it, such as
	// ["sudo", "-n", "/usr/sbin/exim4"]. Nil means exim alone.
	Command    []string
	ConfigFile string        // Exim's configuration file; empty means Exim's own default
	Dir        string        // spool_directory; empty asks Exim
	Timeout    time.Duration // for each 500 messages; 0 means a minute

	deliveries atomic.Int32 // processes that deliver what was released
}

const (
	eximAtOnce    = 4      // Exims that work on one call's messages
	eximMost      = 500    // ids that one of them gets
	eximLeast     = 20     // the same, if there are so many
	eximShare     = 10_000 // the same where it delivers them
	perRelease    = 8      // processes that deliver what one call released
	maxDeliveries = 50     // the same for all calls
)

// lockedFor is how long to wait, each time, before messages that are being
// delivered are tried again.
var lockedFor = []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, time.Second, 2 * time.Second}

// Name is "exim".
func (q *EximQueue) Name() string { return "exim" }

// Find implements [Queue].
func (q *EximQueue) Find(ctx context.Context, want func(Queued) bool) ([]Queued, error) {
	s, err := q.spool(ctx)
	if err != nil {
		return nil, err
	}
	return find(ctx, s, want)
}

// Look returns the messages with the ids, as far as they are in the queue.
func (q *EximQueue) Look(ctx context.Context, ids []string) ([]Queued, error) {
	s, err := q.spool(ctx)
	if err != nil {
		return nil, err
	}
	return look(ctx, s, ids)
}

// Headers implements [Queue].
func (q *EximQueue) Headers(ctx context.Context, m Queued) ([]byte, error) {
	s, err := q.spool(ctx)
	if err != nil {
		return nil, err
	}
	return header(ctx, s, m)
}

// Hold implements [Queue]: it freezes. Messages that are being delivered
// cannot be frozen; if they still are after some seconds, all others are
// frozen and the error is [ErrBusy].
func (q *EximQueue) Hold(ctx context.Context, ms []Queued) (int, error) {
	done, err := q.act(ctx, "-Mf", "is now frozen", ms, func(h mailq.QueueHead) bool { return !h.Held })
	return len(done), err
}

// Release implements [Queue]: it thaws, and starts delivering without waiting
// for the end: of up to 80,000 messages, eight at a time. The deliveries go on
// without us; what they do not come to is left to Exim's next queue run.
func (q *EximQueue) Release(ctx context.Context, ms []Queued) (int, error) {
	done, err := q.act(ctx, "-Mt", "is no longer frozen", ms, func(h mailq.QueueHead) bool { return h.Held })
	return len(done), errors.Join(err, q.deliver(done))
}

// Delete implements [Queue]. Nobody is told; ErrBusy is as with Hold.
func (q *EximQueue) Delete(ctx context.Context, ms []Queued) (int, error) {
	done, err := q.act(ctx, "-Mrm", "has been removed", ms, func(mailq.QueueHead) bool { return true })
	return len(done), err
}

// act has Exim act on those of the messages that are still there and that
// which accepts, and returns the ids of those of which Exim says so, in order.
func (q *EximQueue) act(ctx context.Context, flag, says string, ms []Queued, which func(mailq.QueueHead) bool) (done []string, err error) {
	s, err := q.spool(ctx)
	if err != nil {
		return nil, err
	}
	for i := 0; ; i++ {
		r := q.round(ctx, s, flag, says, ms, which)
		if done = append(done, r.done...); r.err != nil {
			return done, fmt.Errorf("enforce: %w", r.err)
		}
		if len(r.locked) == 0 {
			return done, nil
		}
		if i == len(lockedFor) {
			return done, fmt.Errorf("enforce: exim %s: %d of the messages: %w", flag, len(r.locked), ErrBusy)
		}
		select {
		case <-ctx.Done():
			return done, fmt.Errorf("enforce: exim %s: %w", flag, ctx.Err())
		case <-time.After(lockedFor[i]):
		}
		ms = r.locked
	}
}

// An eximResult is what came of messages.
type eximResult struct {
	done   []string // their ids
	locked []Queued
	err    error
}

// round goes through the messages once, by several Exims at a time, as each
// waits for the disk after every message. None starts after one has failed.
func (q *EximQueue) round(ctx context.Context, s spool, flag, says string, ms []Queued, which func(mailq.QueueHead) bool) (all eximResult) {
	size := min(eximMost, max(eximLeast, len(ms)/eximAtOnce+1))
	parts := slices.Collect(slices.Chunk(ms, size))
	results := make([]eximResult, len(parts))
	var next atomic.Int32
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(eximAtOnce, len(parts)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(parts) && !failed.Load(); i = int(next.Add(1)) - 1 {
				there, err := present(ctx, s, parts[i]) // just before they are acted on
				there = slices.DeleteFunc(there, func(h mailq.QueueHead) bool { return !which(h) })
				r := q.call(ctx, flag, says, there)
				r.err = errors.Join(err, r.err)
				if results[i] = r; r.err != nil {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	for _, r := range results {
		all.done, all.locked = append(all.done, r.done...), append(all.locked, r.locked...)
		if all.err == nil {
			all.err = r.err
		}
	}
	return all
}

// call calls Exim once and takes apart what it says, a line or more for each
// message:
//
//	Message 1xV5h8-0005qv-12 is now frozen
//	Message 1xV5h8-0005qv-19 is locked
//
// Its exit status is that of the last message which it did nothing to, and so
// tells nothing.
func (q *EximQueue) call(ctx context.Context, flag, says string, heads []mailq.QueueHead) (r eximResult) {
	if len(heads) == 0 {
		return r
	}
	ids := make([]string, len(heads))
	byID := make(map[string]mailq.QueueHead, len(heads))
	for i, h := range heads {
		ids[i], byID[h.ID] = h.ID, h
	}
	out, complaint, err := command{argv: q.argv(flag, ids...), timeout: q.timeout()}.run(ctx)
	for line := range strings.Lines(string(out)) {
		id, what, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "Message "), " ")
		h, ours := byID[id]
		switch {
		case !ours:
		case what == says:
			r.done = append(r.done, id)
		case what == "is locked":
			r.locked = append(r.locked, queued(h))
		}
	}
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended) && ended.ExitCode() == 1 && len(out) > 0: // it came to the messages
	case err != nil && bytes.Contains(complaint, []byte("Cannot open main log")):
		r.err = fmt.Errorf("%w (Exim cannot write its main log as this user, and does nothing then)", err)
	default:
		r.err = err
	}
	return r
}

// deliver has Exim deliver messages, and does not wait for the end.
func (q *EximQueue) deliver(ids []string) error {
	n := min(perRelease, len(ids))
	for i := range n {
		var share []string
		for j := i; j < len(ids) && len(share) < eximShare; j += n { // so that the oldest go first
			share = append(share, ids[j])
		}
		if err := q.start(share); err != nil {
			return fmt.Errorf("enforce: released, but left to Exim's next queue run: %w", err)
		}
	}
	return nil
}

// start starts an Exim that delivers messages one after the other, in a
// session of its own, unless there are too many already.
func (q *EximQueue) start(ids []string) error {
	if q.deliveries.Add(1) > maxDeliveries {
		q.deliveries.Add(-1)
		return nil
	}
	argv := q.argv("-M", ids...)
	cmd := exec.Command(program(argv[0]), argv[1:]...)
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		q.deliveries.Add(-1)
		return err
	}
	go func() {
		_ = cmd.Wait() // how it went stands in Exim's log
		q.deliveries.Add(-1)
	}()
	return nil
}

func (q *EximQueue) argv(flag string, args ...string) []string {
	argv := slices.Clone(q.Command)
	if len(argv) == 0 {
		argv = []string{"exim"}
	}
	if q.ConfigFile != "" {
		argv = append(argv, "-C", q.ConfigFile)
	}
	return append(append(argv, flag), args...)
}

func (q *EximQueue) timeout() time.Duration {
	if q.Timeout <= 0 {
		return time.Minute
	}
	return q.Timeout
}

func (q *EximQueue) spool(ctx context.Context) (spool, error) {
	if q.Dir != "" {
		return usualQueue{&mailq.EximSpool{Dir: q.Dir}}, nil
	}
	out, _, err := command{argv: q.argv("-bP", "spool_directory")}.run(ctx)
	_, dir, ok := strings.Cut(strings.TrimSpace(string(out)), " = ")
	if err == nil && !ok {
		err = fmt.Errorf("exim -bP spool_directory says %.200q", out)
	}
	if err != nil {
		return nil, fmt.Errorf("enforce: where Exim's queue is: %w", err)
	}
	return usualQueue{&mailq.EximSpool{Dir: dir}}, nil
}

// A usualQueue leaves out the queues that have a name: messages in them are
// not found by the commands.
type usualQueue struct{ *mailq.EximSpool }

func (s usualQueue) Each(ctx context.Context, yield func(mailq.QueueHead) bool) error {
	return s.EximSpool.Each(ctx, usual(yield))
}

func (s usualQueue) Look(ctx context.Context, ids []string, yield func(mailq.QueueHead) bool) error {
	return s.EximSpool.Look(ctx, ids, usual(yield))
}

func usual(yield func(mailq.QueueHead) bool) func(mailq.QueueHead) bool {
	return func(h mailq.QueueHead) bool { return h.Queue != "" || yield(h) }
}
