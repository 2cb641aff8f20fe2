package enforce

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ErrQueueID means that a queue id has not the form of one of Postfix's. It
// was not handed to Postfix; all others were.
var ErrQueueID = errors.New("not a queue id of Postfix")

// A PostfixQueue holds and releases queued messages with postsuper, which
// only root may run.
type PostfixQueue struct {
	// Command is postsuper and what must precede it, such as
	// ["sudo", "-n", "/usr/sbin/postsuper"]. Nil means postsuper alone.
	Command   []string
	ConfigDir string        // Postfix's configuration directory; empty means Postfix's own default
	Timeout   time.Duration // for each 10,000 messages; 0 means a minute
}

// chunk is how many ids one postsuper gets.
const chunk = 10_000

// Release takes messages off hold and returns how many were on it. Postfix
// delivers them with its next queue run.
func (q *PostfixQueue) Release(ctx context.Context, ids []string) (int, error) {
	return q.run(ctx, "-H", ids)
}

// Hold puts messages on hold and returns how many there were. One that is
// being delivered is held when its delivery ends, if it is still there.
func (q *PostfixQueue) Hold(ctx context.Context, ids []string) (int, error) {
	return q.run(ctx, "-h", ids)
}

func (q *PostfixQueue) run(ctx context.Context, flag string, ids []string) (int, error) {
	var errs []error
	var valid []string
	for _, id := range ids {
		if ValidQueueID(id) {
			valid = append(valid, id)
		} else if len(errs) < 10 {
			errs = append(errs, fmt.Errorf("enforce: %w: %.80q", ErrQueueID, id))
		}
	}
	timeout := q.Timeout
	if timeout <= 0 {
		timeout = time.Minute
	}
	program := q.Command
	if len(program) == 0 {
		program = []string{"postsuper"}
	}
	done := 0
	for len(valid) > 0 {
		n := min(len(valid), chunk)
		_, said, err := command{
			argv:    postfixCommand(program, q.ConfigDir, flag, "-"),
			stdin:   strings.Join(valid[:n], "\n") + "\n",
			timeout: timeout,
		}.run(ctx)
		done += total(said)
		if err != nil {
			errs = append(errs, fmt.Errorf("enforce: %w", err))
			break
		}
		valid = valid[n:]
	}
	return done, errors.Join(errs...)
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

var summary = regexp.MustCompile(`(?:Released from hold|Placed on hold): ([0-9]+) message`)

// ValidQueueID reports whether id has the form of a Postfix queue id: short
// ones are upper-case hexadecimal; long ones are base 52, with a 'z' between
// time and inode. The word ALL, which postsuper takes for every message, is
// neither.
func ValidQueueID(id string) bool {
	if len(id) < 6 || len(id) > 24 {
		return false
	}
	short := strings.Trim(id, "0123456789ABCDEF") == ""
	long := strings.Trim(id, "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz") == ""
	return short || long && strings.LastIndexByte(id, 'z') >= 10
}
