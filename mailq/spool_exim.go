package mailq

import (
	"bytes"
	"context"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
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
	return s.sampler.sample(ctx, s.spool())
}

func (s *EximSpool) spool() spool {
	return spool{
		host: s.Host, size: s.Size, top: s.Top, now: s.Now, right: eximRight,
		walk: s.walk, whole: func(fs.FileInfo) bool { return true }, // they get their name when they are written
		parse:   func(text []byte, _ string, _ fs.FileInfo) queueHead { return parseEximHead(text) },
		account: func(h *queueHead) Account { return h.account(s.Canonical, nil) },
	}
}

func (s *EximSpool) walk(ctx context.Context, d *draw, q *QueueSample) error {
	queues, err := s.queues()
	if err != nil {
		return err
	}
	for _, input := range queues {
		err := eachName(ctx, input.dir, 0, eximRight, func(dir, name string) error {
			id, ok := strings.CutSuffix(name, "-H")
			if ok && isEximID(id) {
				d.offer(name, id, dir, &q.Deferred)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// An eximInput is the directory of a queue.
type eximInput struct {
	queue string // its name, empty for the usual one
	dir   string
}

// queues lists the usual queue and those that have a name.
func (s *EximSpool) queues() ([]eximInput, error) {
	list := []eximInput{{"", filepath.Join(s.Dir, "input")}}
	named, err := filepath.Glob(filepath.Join(globQuote(s.Dir), "*", "input"))
	if err != nil {
		return nil, spoolError(s.Dir, err, eximRight)
	}
	for _, dir := range named {
		list = append(list, eximInput{filepath.Base(filepath.Dir(dir)), dir})
	}
	return list, nil
}

// globQuote keeps filepath.Glob from seeing a pattern in a directory's name.
func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func isEximID(id string) bool {
	var b [24]byte
	return len(id) > 0 && len(id) <= len(b) && eximIDLen(b[:copy(b[:], id)]) == len(id)
}

// parseEximHead reads the envelope at the beginning of an -H file (Exim
// specification, chapter "Format of spool files"). A file that is cut gives
// what came before the cut.
func parseEximHead(b []byte) queueHead {
	h, _ := eximEnvelope(b)
	return h
}

// eximEnvelope returns what follows the envelope too, nil if it is cut.
func eximEnvelope(b []byte) (h queueHead, rest []byte) {
	h = queueHead{uid: -1, cut: true}
	_, b, _ = eximLine(b) // the file's name
	caller, b, _ := eximLine(b)
	sender, b, _ := eximLine(b)
	times, b, ok := eximLine(b)
	seconds, _, _ := bytes.Cut(times, []byte(" "))
	if h.arrival = postfixTime(seconds); !ok || h.arrival.IsZero() {
		return h, nil
	}
	h.sender = clean(bytes.Trim(sender, "<>"), maxAddress)
	login, _, _ := bytes.Cut(caller, []byte(" "))
	h.user = clean(login, 64)
	from := unknownOrigin
	for len(b) > 0 && b[0] == '-' {
		var line []byte
		if line, b, ok = eximLine(b); !ok {
			break
		}
		name, value := eximOption(line)
		from = max(from, h.setOption(name, value))
		b = b[eximSkip(name, value, len(b)):]
	}
	h.settle(from)
	return h, h.eximRecipients(b)
}

// An origin is how a message came to Exim; what is more certain is greater.
type origin int

const (
	unknownOrigin  origin = iota
	localOrigin           // by a program of this machine
	loggedInOrigin        // the same, logged in by SMTP all the same
	remoteOrigin
)

// settle keeps the one of login and user who answers for the message. Exim
// notes the user's name as a login too where a program handed the message in.
func (h *queueHead) settle(from origin) {
	if from == localOrigin {
		h.login, h.odd = "", false
	}
	own := h.sender == "" && slices.Contains(eximUsers, strings.ToLower(h.user))
	if from == unknownOrigin || from == remoteOrigin || own {
		h.user = ""
	}
}

// eximUsers are the names that Exim itself has: it writes bounces by them.
var eximUsers = []string{"debian-exim", "exim", "mail", "mailnull"}

// eximLine splits a line off; false if it is cut.
func eximLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// eximOption takes a line "-name value" apart. A second dash says that the
// value is not to be trusted in expansions, and since 4.97 "(lookup)" how it
// is quoted.
func eximOption(line []byte) (name, value []byte) {
	line = bytes.TrimLeft(line, "-")
	if i := bytes.IndexByte(line, ')'); i > 0 && line[0] == '(' {
		line = line[i+1:]
	}
	name, value, _ = bytes.Cut(line, []byte(" "))
	return name, value
}

// setOption reports what it tells about the origin of the message.
func (h *queueHead) setOption(name, value []byte) origin {
	switch string(name) {
	case "auth_id":
		h.setLogin(value)
	case "ident": // the log's U=; of a stranger's where there is a host
		h.user = clean(value, 64)
	case "frozen":
		h.held = true
	case "host_address":
		h.client = eximHost(value)
		return remoteOrigin
	case "received_protocol":
		if bytes.HasPrefix(value, []byte("local-")) && bytes.HasSuffix(value, []byte("a")) {
			return loggedInOrigin
		}
		if bytes.HasPrefix(value, []byte("local")) {
			return localOrigin
		}
	case "local":
		return localOrigin
	}
	return unknownOrigin
}

// eximSkip is how many of the next bytes are the value that follows "-aclm
// NAME LENGTH", and a newline: they may hold anything, lines like these too.
// Where the length makes no sense, nothing after it can be trusted.
func eximSkip(name, value []byte, left int) int {
	if !bytes.HasPrefix(name, []byte("acl")) {
		return 0
	}
	n, err := strconv.Atoi(string(value[bytes.LastIndexByte(value, ' ')+1:]))
	if err != nil || n < 0 || n >= left {
		return left
	}
	return n + 1
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
// recipients, and the recipients, and returns what follows. A node of the tree
// is a line that says Y or N for each of its two branches, and the address; no
// tree is "XX".
func (h *queueHead) eximRecipients(b []byte) (rest []byte) {
	done := map[string]bool{} // bounded by what was read
	line, b, ok := eximLine(b)
	for nodes := 1; ok && nodes > 0; nodes-- {
		if len(line) > 3 {
			nodes += bytes.Count(line[:2], []byte("Y"))
			done[string(line[3:])] = true
		}
		line, b, ok = eximLine(b)
	}
	n, err := strconv.Atoi(string(line[:min(len(line), 9)]))
	h.cut = !ok || err != nil || n < 0
	for ; !h.cut && n > 0; n-- {
		if line, b, ok = eximLine(b); !ok {
			h.rcpts += n
			return nil
		}
		if address := eximAddress(line); !done[string(address)] {
			h.addRecipient(address)
		}
	}
	return b
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
