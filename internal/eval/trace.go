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

	"github.com/vedetta-watch/vedetta/mailq"
)

// ErrTrace means that a file is no trace.
var ErrTrace = errors.New("not a trace of lines time,sender,recipient")

// maxTrace bounds the lines of a trace.
const maxTrace = 50_000_000

// ReadTrace reads mail metadata, one line a recipient: time in seconds, sender
// and recipient as numbers, separated by commas, plain or gzip. Lines that
// share time and sender are one message. The first line may be a heading. The
// messages come back in the order of their times.
//
// Each recipient has a mailbox here and gets the message. What a trace does not tell is made up, always the same: all have one domain, each
// mailbox is used from two networks, by the hour, and sizes are anything.
func ReadTrace(r io.Reader) ([]Message, error) {
	b, err := unzipped(r)
	if err != nil {
		return nil, err
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
			all = append(all, traced(at, sender))
		}
		all[i].To = append(all[i].To, Recipient{Hash: mix(to), Domain: domain})
		all = append(all, arrived(at, sender, to))
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

// unzipped reads what r has, unpacked if it is gzip.
func unzipped(r io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReader(r)
	if magic, _ := b.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, err
	}
	return bufio.NewReader(z), nil
}

// IsTrace reports whether r begins like a trace and not like a log: one of its
// first two lines is numbers.
func IsTrace(r io.Reader) bool {
	b, err := unzipped(r)
	if err != nil {
		return false
	}
	head, _ := b.Peek(1 << 10)
	lines := bytes.SplitN(head, []byte("\n"), 3)
	for _, line := range lines[:min(2, len(lines))] {
		if _, _, _, err := parseLine(string(line)); err == nil {
			return true
		}
	}
	return false
}

// domain is that of all mailboxes and recipients of a trace.
const domain = "mail.test"

func traced(at int64, sender uint64) Message {
	name := fmt.Sprintf("m%d@%s", sender, domain)
	h := mix(sender)
	net := netAt(homeNets, byte(h%64), byte(h>>8))
	if hour := at / 3600 % 24; hour < 7 || hour > 17 {
		net = netAt(homeNets, 64+byte(h>>16%64), byte(h>>24))
	}
	return Message{Time: at, Kind: mailq.Submitted, Account: mailq.Account(name), From: name, Client: net, Size: 1000 + int(mix(uint64(at)^h)%60_000)}
}

// arrived is a message that was put into a mailbox.
func arrived(at int64, sender, to uint64) Message {
	m := traced(at, to)
	m.Kind, m.From, m.Size = mailq.Delivered, fmt.Sprintf("m%d@%s", sender, domain), 0
	m.Writer = mailq.Recipient{Hash: mix(sender), Domain: domain}
	return m
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
