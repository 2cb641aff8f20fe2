package mailq

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// An EximSpool samples the queue of an Exim, its named queues included, from
// the -H files, as exipick does. It reads and never locks or changes anything.
// It needs root, Exim's group, or the capability CAP_DAC_READ_SEARCH.
//
// An account is the authenticated login, or else the local user that called Exim.
type EximSpool struct {
	Dir  string // spool_directory, such as /var/spool/exim4
	Host string // to be named in the samples
	// Canonical makes an account of a login; nil takes it as it is written.
	Canonical func(login string) Account
	Size      int              // of the sample; 0 is 5000
	Top       int              // entries of a list; 0 is 50
	Now       func() time.Time // nil is time.Now

	sampler sampler
}

const eximRight = "reading the queue needs root, Exim's group (Debian-exim, exim or mailnull), or CAP_DAC_READ_SEARCH"

// Sample looks at the queue. Exim does not tell what is being delivered:
// Deferred is all that is not frozen. See [PostfixSpool.Sample] about ctx.
func (s *EximSpool) Sample(ctx context.Context) (QueueSample, error) {
	return s.sampler.sample(ctx, spool{
		host: s.Host, size: s.Size, top: s.Top, now: s.Now, right: eximRight,
		walk: s.walk, read: s.read,
	})
}

func (s *EximSpool) walk(ctx context.Context, d *draw, q *QueueSample) error {
	dirs := []string{filepath.Join(s.Dir, "input")}
	named, err := filepath.Glob(filepath.Join(globQuote(s.Dir), "*", "input"))
	if err != nil {
		return spoolError(s.Dir, err, eximRight)
	}
	for _, dir := range append(dirs, named...) {
		err := eachName(ctx, dir, 0, eximRight, func(dir, name string) {
			id, ok := strings.CutSuffix(name, "-H")
			if ok && isEximID(id) {
				d.offer(name, id, dir, &q.Deferred)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// globQuote keeps filepath.Glob from seeing a pattern in a directory's name.
func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func isEximID(id string) bool {
	var b [24]byte
	return len(id) > 0 && len(id) <= len(b) && eximIDLen(b[:copy(b[:], id)]) == len(id)
}

func (s *EximSpool) read(_ *os.File, head []byte, p pick) (known, bool) {
	h := parseEximHead(head)
	if h.arrival.IsZero() {
		h.arrival, _ = QueueIDTime(strings.TrimSuffix(p.name, "-H"))
	}
	return h.remember(s.Canonical, nil), true
}

// parseEximHead reads the envelope at the beginning of an -H file (Exim
// specification, chapter "Format of spool files"). A file that is cut gives
// what came before the cut.
func parseEximHead(b []byte) queueHead {
	h := queueHead{uid: -1}
	var caller []byte
	var local, ok bool
	if _, b, ok = eximLine(b); !ok { // the file's name
		return h
	}
	if caller, b, ok = eximLine(b); !ok { // login uid gid
		return h
	}
	var line []byte
	if line, b, ok = eximLine(b); !ok {
		return h
	}
	h.sender = clean(bytes.Trim(line, "<>"), maxAddress)
	if line, b, ok = eximLine(b); !ok { // seconds, warnings sent
		return h
	}
	h.arrival = postfixTime(line)
	for len(b) > 0 && b[0] == '-' {
		line, b, ok = eximLine(b)
		if !ok {
			return h
		}
		var skip int
		if skip, local = h.setEximLine(line, local); skip > len(b) {
			return h
		}
		b = b[skip:]
	}
	if login, _, _ := bytes.Cut(caller, []byte(" ")); local && h.client == (netip.Addr{}) {
		h.user = clean(login, 64)
	}
	h.eximRecipients(b)
	return h
}

// eximLine splits a line off; false if it is cut.
func eximLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// setEximLine takes in a line "-name value"; a second dash says that the value
// is not to be trusted in expansions. It returns how many bytes of data follow,
// and whether the message was submitted by a local user.
func (h *queueHead) setEximLine(line []byte, local bool) (skip int, isLocal bool) {
	line = bytes.TrimPrefix(line[1:], []byte("-"))
	if i := bytes.IndexByte(line, ')'); len(line) > 0 && line[0] == '(' && i > 0 {
		line = line[i+1:] // how the value is quoted, since 4.97
	}
	name, value, _ := bytes.Cut(line, []byte(" "))
	switch string(name) {
	case "auth_id":
		h.login = clean(value, maxAddress)
	case "local":
		return 0, true
	case "frozen":
		h.held = true
	case "host_address":
		h.client = eximHost(value)
	case "acl", "aclc", "aclm": // "name length", then a value that may hold anything, and a newline
		i := bytes.LastIndexByte(value, ' ')
		n, err := strconv.Atoi(string(value[i+1:]))
		if err != nil || n < 0 || n > headBytes {
			return headBytes + 1, local // whatever follows cannot be told apart
		}
		return n + 1, local
	}
	return 0, local
}

// eximHost reads "[192.0.2.1]:1234" and the older "192.0.2.1.1234".
func eximHost(b []byte) netip.Addr {
	if len(b) > 64 {
		return netip.Addr{}
	}
	if len(b) > 0 && b[0] == '[' {
		text, _, _ := bytes.Cut(b[1:], []byte("]"))
		addr, _ := netip.ParseAddr(string(text))
		return addr
	}
	addr, _ := netip.ParseAddr(string(b[:max(0, bytes.LastIndexByte(b, '.'))]))
	return addr
}

// eximRecipients reads the tree of those that are done, the number of
// recipients, and the recipients. A node of the tree is a line that says Y or
// N for each of its two branches, and the address; no tree is "XX".
func (h *queueHead) eximRecipients(b []byte) {
	done := map[string]bool{} // bounded by what was read
	line, b, ok := eximLine(b)
	for nodes := 1; ok && nodes > 0; nodes-- {
		if len(line) > 3 {
			nodes += bytes.Count(line[:2], []byte("Y"))
			done[string(line[3:])] = true
		}
		line, b, ok = eximLine(b)
	}
	n, err := strconv.Atoi(string(line))
	for ; ok && err == nil && n > 0; n-- {
		if line, b, ok = eximLine(b); !ok {
			return
		}
		if address := eximAddress(line); !done[string(address)] {
			h.addRecipient(address)
		}
	}
}

// eximAddress leaves out what may follow a recipient's address: " sender
// length,number#3" and the like. A quoted local part may hold blanks.
func eximAddress(line []byte) []byte {
	at := bytes.LastIndexByte(line, '@')
	if bytes.LastIndexByte(line, '#') > at && at >= 0 || bytes.Count(line, []byte("@")) > 1 {
		quoted := false
		for i, c := range line {
			switch {
			case c == '\\' && quoted:
				continue
			case c == '"':
				quoted = !quoted
			case c == ' ' && !quoted:
				return line[:i]
			}
		}
	}
	return line
}
