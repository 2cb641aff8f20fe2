package mailq

import (
	"bytes"
	"context"
	"io/fs"
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// A PostfixSpool samples the queue of a Postfix from its files, which costs a
// second for a million messages where postqueue takes minutes. It reads and
// never locks or changes anything. It needs root, the user postfix, or the
// capability CAP_DAC_READ_SEARCH.
//
// An account is the SASL login, or else the user that called sendmail.
type PostfixSpool struct {
	Dir  string // queue_directory, mostly /var/spool/postfix
	Host string // to be named in the samples
	// Canonical makes an account of a login; nil takes it as it is written.
	Canonical func(login string) Account
	// User makes an account of a user's number; nil gives uid:NUMBER.
	User func(uid int64) Account
	Size int              // of the sample; 0 is 5000
	Top  int              // entries of a list; 0 is 50
	Now  func() time.Time // nil is time.Now

	sampler sampler
}

const postfixRight = "reading the queue needs root, the user postfix, or CAP_DAC_READ_SEARCH (its directories are 0700 postfix)"

// Sample looks at the queue. ctx is asked between the entries of directories
// and between files; a system call that hangs, as on a dead network file
// system, cannot be ended, and the next Sample is an error for as long.
func (s *PostfixSpool) Sample(ctx context.Context) (QueueSample, error) {
	return s.sampler.sample(ctx, s.spool())
}

func (s *PostfixSpool) spool() spool {
	return spool{
		host: s.Host, size: s.Size, top: s.Top, now: s.Now, right: postfixRight,
		walk: s.walk, whole: isWhole, parse: parsePostfixFile,
		account: func(h *queueHead) Account { return h.account(s.Canonical, s.User) },
	}
}

func (s *PostfixSpool) walk(ctx context.Context, d *draw, q *QueueSample) error {
	queues := []struct {
		name  string
		count *int
	}{
		// In the order in which a message goes, so that one that moves
		// meanwhile is rather seen twice than not at all.
		{"maildrop", &q.Incoming}, {"incoming", &q.Incoming}, {"active", &q.Active}, {"deferred", &q.Deferred}, {"hold", &q.Held},
	}
	for _, queue := range queues {
		err := eachName(ctx, filepath.Join(s.Dir, queue.name), 0, postfixRight, func(dir, name string) error {
			if postfixID(name) {
				d.offer(name, name, dir, queue.count)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// postfixID is isQueueID without an allocation.
func postfixID(name string) bool {
	var b [24]byte
	return len(name) <= len(b) && isQueueID(b[:copy(b[:], name)])
}

// isWhole says whether a file has the execute bit; without it, it is still
// being written.
func isWhole(file fs.FileInfo) bool { return file.Mode()&0o100 != 0 }

func parsePostfixFile(text []byte, dir string, file fs.FileInfo) queueHead {
	h := parsePostfixHead(text)
	if st, ok := file.Sys().(*syscall.Stat_t); ok && filepath.Base(dir) == "maildrop" {
		h.uid = int64(st.Uid) // nothing in the file says it yet
	}
	return h
}

// Types of queue file records (Postfix, src/global/rec_type.h).
const (
	recSize    = 'C' // sizes; first in all but the maildrop queue
	recTime    = 'T' // "seconds microseconds" of arrival
	recAttr    = 'A' // "name=value"
	recSender  = 'S'
	recTo      = 'R' // a recipient
	recDone    = 'D' // a recipient that needs no more attempts
	recMessage = 'M' // the content begins
	recText    = 'N' // a line of it, ended by a newline
)

// parsePostfixHead reads the envelope in the first bytes of a queue file. A
// file that is cut gives what came before the cut, anything else nothing.
func parsePostfixHead(b []byte) queueHead {
	h := queueHead{uid: -1}
	if len(b) == 0 || b[0] != recSize && b[0] != recTime {
		return h
	}
	smtp := false
	h.cut = true
	total, done := 0, 0 // recipients
	for {
		kind, data, rest, ok := postfixRecord(b)
		if !ok {
			h.rcpts = max(h.rcpts, total-done)
			return h
		}
		b = rest
		h.cut = h.cut && kind != recTo && kind != recDone && kind != recMessage
		switch kind {
		case recSize:
			h.size, total = postfixSize(data)
		case recDone:
			done++
		case recTime:
			h.arrival = postfixTime(data)
		case recSender:
			h.sender = clean(data, maxAddress)
		case recTo:
			h.addRecipient(data)
		case recAttr:
			smtp = h.setAttribute(data) || smtp
		case recMessage:
			if kind, data, _, ok := postfixRecord(b); ok && kind == recText && !smtp {
				h.uid = submitter(data)
			}
			h.rcpts = max(h.rcpts, total-done) // with "sendmail -t" they follow the content
			return h
		}
	}
}

// setAttribute reports whether the message came by SMTP.
func (h *queueHead) setAttribute(data []byte) bool {
	name, value, _ := bytes.Cut(data, []byte("="))
	switch string(name) {
	case "sasl_username":
		h.setLogin(value)
	case "log_client_address":
		h.client, _ = netip.ParseAddr(string(value[:min(len(value), 64)]))
		return true
	case "log_client_name", "client_name":
		return true
	}
	return false
}

// postfixRecord splits one record off: its type, the length in groups of
// seven bits, the lowest first, and the data.
func postfixRecord(b []byte) (kind byte, data, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, nil, false
	}
	kind, b = b[0], b[1:]
	n := 0
	for shift := 0; ; shift += 7 {
		if len(b) == 0 || shift > 21 { // 2 MB: far beyond what was read
			return 0, nil, nil, false
		}
		c := b[0]
		b = b[1:]
		n |= int(c&0x7f) << shift
		if c&0x80 == 0 {
			break
		}
	}
	if n > len(b) {
		return 0, nil, nil, false
	}
	return kind, b[:n], b[n:], true
}

// lastSecond is beyond all times that are told, in seconds; those after the year
// 9999 cannot be.
const lastSecond = 1 << 37

// postfixSize reads the message's size in bytes and the number of its
// recipients from the columns "size offset recipients …".
func postfixSize(b []byte) (size int64, rcpts int) {
	columns := bytes.Fields(b[:min(len(b), 256)])
	if len(columns) < 3 {
		return 0, 0
	}
	return number(columns[0]), int(min(number(columns[2]), math.MaxInt32))
}

// number reads a number that is not negative; 0 if it is none.
func number(b []byte) int64 {
	n, err := strconv.ParseInt(string(b[:min(len(b), 20)]), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// postfixTime reads "seconds microseconds"; the second may be missing.
func postfixTime(b []byte) time.Time {
	sec, usec, _ := bytes.Cut(b, []byte(" "))
	s, err := strconv.ParseInt(string(sec[:min(len(sec), 20)]), 10, 64)
	if err != nil || s <= 0 || s > lastSecond {
		return time.Time{}
	}
	us, err := strconv.ParseInt(string(bytes.TrimSpace(usec[:min(len(usec), 20)])), 10, 64)
	if err != nil || us < 0 || us > 999_999 {
		us = 0
	}
	return time.Unix(s, us*1000).UTC()
}

// submitter reads the number of the user that called sendmail from the line
// that pickup puts before a local message, -1 if it is none:
//
//	Received: by mx1.shop.test (Postfix, from userid 1000)
func submitter(line []byte) int64 {
	const before = ", from userid "
	i := bytes.LastIndex(line, []byte(before))
	if !bytes.HasPrefix(line, []byte("Received: by ")) || i < 0 || !bytes.HasSuffix(line, []byte(")")) {
		return -1
	}
	uid, err := strconv.ParseUint(string(line[i+len(before):len(line)-1]), 10, 32)
	if err != nil {
		return -1
	}
	return int64(uid)
}
