//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// A stampedLog is a copy of Postfix's log with stamps of a microsecond, as
// rsyslog writes them. Postfix's own are of a second, which does not tell which
// of its lines a decision followed.
type stampedLog struct {
	from   string
	path   string
	copied atomic.Int64 // bytes of from
}

// stampLog copies what is written to a log from now on, line by line, until the
// test ends.
func stampLog(t *testing.T, from string) *stampedLog {
	t.Helper()
	l := &stampedLog{from: from, path: filepath.Join(t.TempDir(), "mail.log")}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	start, err := in.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	l.copied.Store(start)
	out, err := os.Create(l.path)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- l.copy(out, bufio.NewReader(in), stop) }()
	t.Cleanup(func() {
		close(stop)
		if err := <-stopped; err != nil {
			t.Errorf("copying %s: %v", from, err)
		}
		in.Close()
		out.Close()
	})
	return l
}

func (l *stampedLog) copy(out io.Writer, in *bufio.Reader, stop <-chan struct{}) error {
	var line []byte
	for {
		text, err := in.ReadBytes('\n')
		line = append(line, text...)
		if err == io.EOF {
			select {
			case <-stop:
				return nil
			case <-time.After(time.Millisecond):
			}
			continue
		}
		if err != nil {
			return err
		}
		if len(line) <= len(time.Stamp) {
			return fmt.Errorf("a line without a stamp: %q", line)
		}
		stamped := append(time.Now().AppendFormat(nil, stamp), line[len(time.Stamp):]...)
		if _, err := out.Write(stamped); err != nil {
			return err
		}
		l.copied.Add(int64(len(line)))
		line = line[:0]
	}
}

// wait waits until all that has been written to the log so far is in the copy,
// and returns how long that is.
func (l *stampedLog) wait(t *testing.T) (size int64) {
	t.Helper()
	info, err := os.Stat(l.from)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the copy of the log", func() bool { return l.copied.Load() >= info.Size() })
	if info, err = os.Stat(l.path); err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
