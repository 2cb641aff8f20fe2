package eval

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Message is one message of real traffic: who sent it when to whom. Numbers
// stand for mailboxes and recipients; nothing else of it is known.
type Message struct {
	Time   int64 // seconds
	Sender uint64
	To     []uint64
}

// ErrTrace means that a file is no trace.
var ErrTrace = errors.New("not a trace of lines time,sender,recipient")

// maxTrace bounds the lines of a trace.
const maxTrace = 50_000_000

// ReadTrace reads mail metadata, one line a recipient: time in seconds, sender
// and recipient as numbers, separated by commas, plain or gzip. Lines that
// share time and sender are one message. The first line may be a heading. The
// messages come back in the order of their times.
func ReadTrace(r io.Reader) ([]Message, error) {
	b := bufio.NewReader(r)
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		b = bufio.NewReader(z)
	}
	type key struct {
		time   int64
		sender uint64
	}
	var all []Message
	index := map[key]int{}
	s := bufio.NewScanner(b)
	for line := 1; s.Scan(); line++ {
		if line > maxTrace {
			return nil, fmt.Errorf("more than %d lines", maxTrace)
		}
		at, sender, to, err := parseLine(s.Text())
		if err != nil {
			if line == 1 {
				continue
			}
			return nil, fmt.Errorf("line %d: %w: %.60q", line, err, s.Text())
		}
		k := key{at, sender}
		i, ok := index[k]
		if !ok {
			i = len(all)
			index[k] = i
			all = append(all, Message{Time: at, Sender: sender})
		}
		all[i].To = append(all[i].To, to)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, ErrTrace
	}
	slices.SortStableFunc(all, func(x, y Message) int { return int(x.Time - y.Time) })
	return all, nil
}

// latest is the last second that a time in nanoseconds can hold, less a margin.
const latest = int64(1<<63-1)/int64(time.Second) - 1<<30

func parseLine(line string) (at int64, sender, to uint64, err error) {
	p := strings.Split(line, ",")
	if len(p) != 3 {
		return 0, 0, 0, ErrTrace
	}
	at, err1 := strconv.ParseInt(p[0], 10, 64)
	sender, err2 := strconv.ParseUint(p[1], 10, 64)
	to, err3 := strconv.ParseUint(p[2], 10, 64)
	if errors.Join(err1, err2, err3) != nil || at < 0 || at > latest {
		return 0, 0, 0, ErrTrace
	}
	return at, sender, to, nil
}
