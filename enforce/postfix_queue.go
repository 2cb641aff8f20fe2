package enforce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A PostfixQueue acts on queued messages with postsuper, which only root may
// run. It reads the queue's files by itself, see [mailq.PostfixSpool] for the
// right it needs.
type PostfixQueue struct {
	// Command is postsuper and what must precede it, such as
	// ["sudo", "-n", "/usr/sbin/postsuper"]. Nil means postsuper alone.
	// postkick, which root or the group postdrop may run, is called alike.
	Command   []string
	ConfigDir string        // Postfix's configuration directory; empty means Postfix's own default
	Dir       string        // queue_directory; empty asks postconf
	Timeout   time.Duration // for each 10,000 messages; 0 means a minute
}

// chunk is how many ids one postsuper gets.
const chunk = 10_000

// Name is "postfix".
func (q *PostfixQueue) Name() string { return "postfix" }

// Find implements [Queue]. What sendmail has just put into maildrop has no id
// for good yet and is not found.
func (q *PostfixQueue) Find(ctx context.Context, want func(Queued) bool) ([]Queued, error) {
	s, err := q.spool(ctx)
	if err != nil {
		return nil, err
	}
	return find(ctx, s, want)
}

// Look returns the messages with the ids, as far as they are in the queue.
func (q *PostfixQueue) Look(ctx context.Context, ids []string) ([]Queued, error) {
	s, err := q.spool(ctx)
	if err != nil {
		return nil, err
	}
	return look(ctx, s, ids)
}

// Headers implements [Queue].
func (q *PostfixQueue) Headers(ctx context.Context, m Queued) ([]byte, error) {
	s, err := q.spool(ctx)
	if err != nil {
		return nil, err
	}
	return header(ctx, s, m)
}

// Hold implements [Queue]. A message in delivery is held when its delivery has
// ended, if it is still there then; and one that moves between the queues may
// be missed. So Hold looks a second time at once, and a caller who wants to be
// sure finds and holds again after half a minute: what is held stays so.
func (q *PostfixQueue) Hold(ctx context.Context, ms []Queued) (int, error) {
	free := func(h mailq.QueueHead) bool { return !h.Held }
	n, err := q.act(ctx, "-h", ms, free, nil)
	if err != nil {
		return n, err
	}
	again, err := q.act(ctx, "-h", ms, free, nil)
	return n + again, err
}

// Release implements [Queue]. Postfix puts the messages among the deferred
// ones, and is told to look there for messages that are due; those that it had
// put off are made due by the time of their files. Nobody else's messages are
// tried before their time.
func (q *PostfixQueue) Release(ctx context.Context, ms []Queued) (int, error) {
	held := func(h mailq.QueueHead) bool { return h.Held }
	n, err := q.act(ctx, "-H", ms, held, makeDue)
	if n == 0 {
		return n, err
	}
	return n, errors.Join(err, q.kick(ctx))
}

// kick has Postfix look for messages that are due among the deferred ones, as
// it does every few minutes (qmgr(8), "Triggers").
func (q *PostfixQueue) kick(ctx context.Context) error {
	_, _, err := command{argv: postfixCommand(q.beside("postkick"), q.ConfigDir, "public", "qmgr", "D"), timeout: q.timeout()}.run(ctx)
	var ended *exec.ExitError
	if err == nil || errors.As(err, &ended) && brokenPipe(ended) {
		return nil
	}
	return fmt.Errorf("enforce: released, but Postfix will see it with its next queue run only: %w", err)
}

// brokenPipe says whether a program, or what ran it, died of SIGPIPE. postkick
// does when Postfix has hung up upon the request, before the byte that postkick
// sends after it.
func brokenPipe(ended *exec.ExitError) bool {
	status, ok := ended.Sys().(syscall.WaitStatus)
	return ok && (status.Signaled() && status.Signal() == syscall.SIGPIPE || status.ExitStatus() == 128+int(syscall.SIGPIPE))
}

// Delete implements [Queue].
func (q *PostfixQueue) Delete(ctx context.Context, ms []Queued) (int, error) {
	return q.act(ctx, "-d", ms, func(mailq.QueueHead) bool { return true }, nil)
}

// act has postsuper act on those of the messages that are still there and that
// which accepts. before, unless nil, is called with each of them.
func (q *PostfixQueue) act(ctx context.Context, flag string, ms []Queued, which func(mailq.QueueHead) bool, before func(mailq.QueueHead)) (done int, err error) {
	s, err := q.spool(ctx)
	if err != nil {
		return 0, err
	}
	for some := range slices.Chunk(ms, chunk) { // each is looked at just before it is acted on
		there, err := present(ctx, s, some)
		var ids strings.Builder
		for _, h := range there {
			if which(h) {
				if before != nil {
					before(h)
				}
				ids.WriteString(h.ID + "\n")
			}
		}
		n := 0
		if ids.Len() > 0 {
			var said []byte
			var failed error
			_, said, failed = command{argv: postfixCommand(q.command(), q.ConfigDir, flag, "-"), stdin: ids.String(), timeout: q.timeout()}.run(ctx)
			n, err = total(said), errors.Join(err, failed)
		}
		if done += n; err != nil {
			return done, fmt.Errorf("enforce: %w", err)
		}
	}
	return done, nil
}

// makeDue has a message that was put off tried with the next queue run, as
// "postqueue -i" does: its file's time is when Postfix tries it. Only root and
// Postfix may; without the right it waits for its time.
func makeDue(h mailq.QueueHead) {
	if !h.Due.After(time.Now()) {
		return
	}
	f, err := os.OpenFile(h.Path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return // it is gone
	}
	defer f.Close()
	now := syscall.NsecToTimeval(time.Now().UnixNano())
	_ = syscall.Futimes(int(f.Fd()), []syscall.Timeval{now, now})
}

func (q *PostfixQueue) spool(ctx context.Context) (*mailq.PostfixSpool, error) {
	if q.Dir != "" {
		return &mailq.PostfixSpool{Dir: q.Dir}, nil
	}
	out, _, err := command{argv: postfixCommand([]string{"postconf"}, q.ConfigDir, "-h", "queue_directory")}.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("enforce: where Postfix's queue is: %w", err)
	}
	return &mailq.PostfixSpool{Dir: strings.TrimSpace(string(out))}, nil
}

func (q *PostfixQueue) command() []string {
	if len(q.Command) == 0 {
		return []string{"postsuper"}
	}
	return q.Command
}

// beside is how another of Postfix's programs is called: as postsuper is, if
// that is called by its name.
func (q *PostfixQueue) beside(name string) []string {
	argv := slices.Clone(q.command())
	last := &argv[len(argv)-1]
	if filepath.Base(*last) != "postsuper" {
		return []string{name}
	}
	*last = strings.TrimSuffix(*last, "postsuper") + name
	return argv
}

func (q *PostfixQueue) timeout() time.Duration {
	if q.Timeout <= 0 {
		return time.Minute
	}
	return q.Timeout
}

// total reads postsuper's summary, as in "Released from hold: 3 messages".
func total(said []byte) int {
	m := summary.FindSubmatch(said)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1])) // digits only; too many of them count as none
	return n
}

var summary = regexp.MustCompile(`(?:Released from hold|Placed on hold|Deleted): ([0-9]+) message`)
