package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Bounds on a program that we run.
const (
	defaultTimeout = 10 * time.Second
	afterTerminate = 2 * time.Second // then it is killed, and its output is no longer waited for
	maxOutput      = 32 << 20
	maxComplaint   = 4 << 10
	maxShown       = 300 // bytes of a command in an error
)

// A command is a program, its arguments and its standard input.
type command struct {
	argv    []string
	stdin   string
	timeout time.Duration // 0 means ten seconds
}

// run runs the program, without a shell and without our environment, and
// returns what it wrote to standard output and standard error. The error
// names the command and holds the last line that it complained with.
func (c command) run(ctx context.Context) (stdout, stderr []byte, err error) {
	timeout := c.timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(c.argv[0]), c.argv[1:]...)
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
	cmd.Stdin = strings.NewReader(c.stdin)
	out, complaint := &bounded{max: maxOutput}, &bounded{max: maxComplaint}
	cmd.Stdout, cmd.Stderr = out, complaint
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // which sudo hands on
	cmd.WaitDelay = afterTerminate
	err = cmd.Run()
	switch {
	case err == nil:
		return out.Bytes(), complaint.Bytes(), nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("%s: no answer within %v: %w", c, timeout, ctx.Err())
	case ctx.Err() != nil:
		err = fmt.Errorf("%s: %w", c, ctx.Err())
	default:
		err = fmt.Errorf("%s: %w%s", c, err, lastLine(complaint.Bytes()))
	}
	return out.Bytes(), complaint.Bytes(), err
}

// String is the command as a person would look for it, the first of it if it
// is long.
func (c command) String() string {
	text := strings.Join(c.argv, " ")
	if len(text) > maxShown {
		return text[:maxShown] + " …"
	}
	return text
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// program finds a program by name where mail servers put theirs, which is
// often not in the path of an ordinary user.
func program(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range filepath.SplitList(searchPath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return name
}

// lastLine returns ": " and the last line of text, quoted if it is odd.
func lastLine(text []byte) string {
	text = bytes.TrimSpace(text)
	text = text[bytes.LastIndexByte(text, '\n')+1:]
	if len(text) == 0 {
		return ""
	}
	return ": " + line(string(text), 300)
}

// line makes one line of printable ASCII of text, at most limit bytes long.
func line(text string, limit int) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text[:min(len(text), 4*limit)])
	clean = strings.Join(strings.Fields(clean), " ")
	return strings.TrimSpace(clean[:min(len(clean), limit)])
}

// bounded keeps the first max bytes and swallows the rest.
type bounded struct {
	bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(b.max-b.Len(), 0))])
	return len(p), nil
}
