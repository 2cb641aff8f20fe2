package mailq

import (
	"bytes"
	"context"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// An EximSpool samples Exim's queue from its -H files, as exipick reads them.
// It needs to read Exim's spool directory. It is used by one goroutine.
type EximSpool struct {
	Dir       string // spool_directory, such as /var/spool/exim4
	Host      string // for QueueSample.Host
	Canonical func(login string) Account

	sampler sampler
}

// Sample looks at the queue. It ends with ctx, between two files.
func (s *EximSpool) Sample(ctx context.Context) (QueueSample, error) {
	q := QueueSample{Time: time.Now(), Host: s.Host}
	var chosen picks
	err := walk(ctx, filepath.Join(s.Dir, "input"), 0, func(path string) {
		if !strings.HasSuffix(path, "-H") {
			return
		}
		q.Total++
		s.sampler.choose(&chosen, path)
	})
	if err != nil {
		return QueueSample{}, err
	}
	heads, err := s.sampler.look(ctx, &q, chosen, eximHead)
	if err != nil {
		return QueueSample{}, err
	}
	frozen := 0
	for _, h := range heads {
		if h.frozen {
			frozen++
		}
	}
	q.Held = q.scaled(frozen)
	q.Deferred = q.Total - q.Held
	q.fill(heads, s.Canonical)
	q.Took = time.Since(q.Time)
	return q, nil
}

// eximHead reads the envelope of an -H file (exim-spec, "Format of spool
// files"): the file's name, "login uid gid", the sender, "epoch warnings",
// options, the tree of recipients that are done, and the recipients.
func eximHead(text []byte, _ fs.FileInfo) (h head, ok bool) {
	r := eximLines{text}
	name, user, sender, received := r.next(), r.next(), r.next(), r.next()
	if !bytes.HasSuffix(name, []byte("-H")) || !bytes.HasPrefix(sender, []byte{'<'}) {
		return h, false
	}
	seconds, _, _ := bytes.Cut(received, []byte{' '})
	n, err := strconv.ParseInt(string(seconds), 10, 64)
	if err != nil || n <= 0 || n > 1<<40 {
		return h, false
	}
	h.arrival = time.Unix(n, 0)
	local := false
	line := r.next()
	for ; bytes.HasPrefix(line, []byte{'-'}); line = r.next() {
		option, value, _ := bytes.Cut(bytes.TrimLeft(line, "-"), []byte{' '})
		switch string(option) {
		case "auth_id":
			if len(value) <= maxName {
				h.login = string(value)
			}
		case "local":
			local = true
		case "frozen":
			h.frozen = true
		case "aclc", "aclm", "acl":
			r.skip(value)
		}
	}
	if login, _, ok := bytes.Cut(user, []byte{' '}); ok && local && len(login) <= maxName {
		h.user = string(login)
	}
	h.eximRecipients(&r, line)
	return h, true
}

// eximRecipients reads what follows the tree, whose lines begin with a Y or N
// for each of its two branches: a count, and a recipient a line.
func (h *head) eximRecipients(r *eximLines, line []byte) {
	done := map[string]bool{}
	if !bytes.Equal(line, []byte("XX")) {
		for open := 1; open > 0 && len(line) > 3; line = r.next() {
			open += bytes.Count(line[:2], []byte{'Y'}) - 1
			done[string(line[3:])] = true
		}
	} else {
		line = r.next()
	}
	count, err := strconv.Atoi(string(line))
	if err != nil {
		return
	}
	for range min(count, 1000) {
		address, _, _ := bytes.Cut(r.next(), []byte{' '})
		if len(address) == 0 {
			return
		}
		if !done[string(address)] {
			h.recipient(string(address))
		}
	}
}

// eximLines cuts a text into lines.
type eximLines struct{ text []byte }

func (r *eximLines) next() []byte {
	line, rest, _ := bytes.Cut(r.text, []byte{'\n'})
	r.text = rest
	return line
}

// skip passes over a variable's value, which may hold newlines: "NAME LENGTH"
// is followed by so many bytes and a newline.
func (r *eximLines) skip(nameAndLength []byte) {
	_, length, ok := bytes.Cut(nameAndLength, []byte{' '})
	n, err := strconv.Atoi(string(length))
	if !ok || err != nil || n < 0 || n >= len(r.text) {
		return
	}
	r.text = r.text[n+1:]
}
