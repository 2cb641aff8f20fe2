package mailq

import (
	"bytes"
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A PostfixSpool samples Postfix's queue from its files, which costs seconds
// where postqueue needs minutes: the directories are listed, and the envelopes
// of a sample of files are read. It needs to read Postfix's queue directory.
// It is used by one goroutine.
type PostfixSpool struct {
	Dir       string // queue_directory, such as /var/spool/postfix
	Host      string // for QueueSample.Host
	Canonical func(login string) Account

	sampler sampler
}

// Sample looks at the queue. It ends with ctx, between two files.
func (s *PostfixSpool) Sample(ctx context.Context) (QueueSample, error) {
	q := QueueSample{Time: time.Now(), Host: s.Host}
	var chosen picks
	for _, queue := range []struct {
		name  string
		count *int
	}{{"incoming", &q.Active}, {"active", &q.Active}, {"deferred", &q.Deferred}, {"hold", &q.Held}} {
		err := walk(ctx, filepath.Join(s.Dir, queue.name), 0, func(path string) {
			*queue.count++
			q.Total++
			s.sampler.choose(&chosen, path)
		})
		if err != nil {
			return QueueSample{}, err
		}
	}
	heads, err := s.sampler.look(ctx, &q, chosen, postfixHead)
	if err != nil {
		return QueueSample{}, err
	}
	q.fill(heads, s.Canonical)
	q.Took = time.Since(q.Time)
	return q, nil
}

// postfixHead reads the envelope of a queue file: records of a type, a length
// in groups of 7 bits, the low group first, and data (Postfix, rec_type.h). A
// file without the execute bit is not complete yet.
func postfixHead(text []byte, info fs.FileInfo) (h head, ok bool) {
	if info.Mode()&0o100 == 0 {
		return h, false
	}
	for len(text) > 0 {
		kind, data, rest, whole := postfixRecord(text)
		if !whole {
			break
		}
		text = rest
		switch kind {
		case 'T':
			h.arrival = postfixTime(data)
			ok = true
		case 'A':
			h.attribute(data)
		case 'R':
			h.recipient(string(data))
		case 'M': // the message itself begins
			return h, ok
		}
	}
	return h, ok
}

func postfixRecord(b []byte) (kind byte, data, rest []byte, ok bool) {
	kind, b = b[0], b[1:]
	length := 0
	for shift := 0; ; shift += 7 {
		if len(b) == 0 || shift > 28 {
			return 0, nil, nil, false
		}
		length |= int(b[0]&0x7f) << shift
		more := b[0]&0x80 != 0
		b = b[1:]
		if !more {
			break
		}
	}
	if length > len(b) {
		return 0, nil, nil, false
	}
	return kind, b[:length], b[length:], true
}

// postfixTime reads "SECONDS MICROSECONDS".
func postfixTime(data []byte) time.Time {
	seconds, _, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || n <= 0 || n > 1<<40 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

func (h *head) attribute(data []byte) {
	name, value, _ := bytes.Cut(data, []byte{'='})
	if string(name) == "sasl_username" && len(value) <= maxName {
		h.login = string(value)
	}
}

// maxName and maxHeadDomains bound what is kept of a head.
const (
	maxName        = 320
	maxHeadDomains = 16
)

// recipient notes the domain of an address.
func (h *head) recipient(address string) {
	_, domain, ok := cutLast(address)
	domain = strings.ToLower(domain)
	if !ok || domain == "" || len(domain) > 255 || len(h.domains) >= maxHeadDomains || slices.Contains(h.domains, domain) {
		return
	}
	h.domains = append(h.domains, domain)
}

func cutLast(address string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return address, "", false
	}
	return address[:i], address[i+1:], true
}
