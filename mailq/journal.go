package mailq

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const (
	// maxEntry bounds one JSON entry, in bytes. A message of MaxLine bytes that
	// is no UTF-8 comes as an array of numbers, four characters each.
	maxEntry = 512 << 10
	// journalDropped is the MESSAGE_ID of journald's own word that it has
	// suppressed messages of a service (SD_MESSAGE_JOURNAL_DROPPED). It comes from
	// journald, so that a match for the service alone would hide it.
	journalDropped = "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e"
)

// A Journal follows systemd's journal through journalctl and makes lines of
// its entries as rsyslog writes them to a file:
//
//	2026-03-20T10:00:07.123456Z mx1 postfix/smtpd[4345]: message
//
// The time is that at which journald received the entry. Journals that were
// collected from other machines are read too; a match for _MACHINE_ID leaves
// them out.
type Journal struct {
	// Match selects entries as journalctl's arguments do. Use fields that
	// journald sets itself, such as _SYSTEMD_UNIT=postfix@-.service: any
	// local user may call himself SYSLOG_IDENTIFIER=postfix/smtpd.
	Match []string
	// From is where to go on; the zero Position is the beginning of the journal.
	From Position
	// Command is journalctl and what goes before its arguments; empty is "journalctl".
	Command []string
}

// Run emits the lines until ctx ends, whose error it then returns. It is an
// error, with what the command said, if journalctl ends. It does not retry:
// start it again from the last Chunk.End. An error of emit is returned as it is.
func (j *Journal) Run(ctx context.Context, emit func(Chunk) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	args := j.arguments()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second // a grandchild may keep the pipe open
	stderr := &lastBytes{max: 2 << 10}
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("mailq: %s: %w", args[0], err)
	}
	r := entryReader{r: bufio.NewReaderSize(out, maxEntry), emit: emit, cursor: j.From.Cursor}
	err = r.run()
	stopped := ctx.Err() // before cancel makes it so
	cancel()
	died := cmd.Wait()
	switch {
	case stopped != nil:
		return stopped
	case err != io.EOF:
		return err
	}
	return fmt.Errorf("mailq: %s ended: %w: %q", args[0], cmp.Or(died, io.ErrUnexpectedEOF), stderr.String())
}

func (j *Journal) arguments() []string {
	args := j.Command
	if len(args) == 0 {
		args = []string{"journalctl"}
	}
	// Without --all, fields of more than 4096 bytes are null; without --no-tail,
	// following begins with the last ten entries; without --merge, it leaves out
	// what came before the last reboot.
	args = append(args[:len(args):len(args)],
		"--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_COMM,_PID,SYSLOG_PID,_HOSTNAME",
		"--all", "--follow", "--no-tail", "--merge", "--quiet", "--no-pager")
	if j.From.Cursor != "" {
		args = append(args, "--after-cursor="+j.From.Cursor)
	}
	if len(j.Match) > 0 {
		args = append(append(args, j.Match...), "+", journalDropped)
	}
	return args
}

// An entryReader gathers the lines of entries in chunks.
type entryReader struct {
	r       *bufio.Reader
	emit    func(Chunk) error
	cursor  string
	lines   []byte
	skipped int
}

// run returns io.EOF at the end.
func (e *entryReader) run() error {
	for {
		line, err := e.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = e.dropEntry()
		} else if err == nil {
			err = e.add(line)
		}
		if err == nil {
			err = e.flushIdle()
		}
		if err != nil {
			return err
		}
	}
}

// dropEntry reads to the end of an entry that is longer than the buffer.
func (e *entryReader) dropEntry() error {
	e.skipped++
	for {
		_, err := e.r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// add makes a line of an entry.
func (e *entryReader) add(entry []byte) error {
	var j journalEntry
	if err := json.Unmarshal(entry, &j); err != nil || j.Cursor == "" {
		return fmt.Errorf("mailq: journalctl: not an entry: %.200q", entry)
	}
	before := len(e.lines)
	if before+MaxLine > MaxChunk {
		if err := e.flush(false); err != nil {
			return err
		}
		before = 0
	}
	e.cursor = j.Cursor
	e.lines = j.appendLine(e.lines)
	if len(e.lines)-before > MaxLine {
		e.lines = e.lines[:before]
		e.skipped++
	}
	return nil
}

// flushIdle emits what there is if no further entry can be read at once.
func (e *entryReader) flushIdle() error {
	ready, _ := e.r.Peek(e.r.Buffered())
	if bytes.IndexByte(ready, '\n') >= 0 {
		return nil
	}
	return e.flush(true)
}

func (e *entryReader) flush(caught bool) error {
	c := Chunk{Lines: e.lines, End: Position{Cursor: e.cursor}, Caught: caught, Skipped: e.skipped}
	e.lines, e.skipped = e.lines[:0], 0
	return e.emit(c)
}

// A journalEntry is what is used of systemd's journal JSON format. A field is
// a string, an array of bytes where it is no UTF-8, or an array of either
// where it was given several times.
type journalEntry struct {
	Cursor  string       `json:"__CURSOR"`
	Time    string       `json:"__REALTIME_TIMESTAMP"` // microseconds since 1970
	Message journalField `json:"MESSAGE"`
	Ident   journalField `json:"SYSLOG_IDENTIFIER"`
	Comm    journalField `json:"_COMM"`
	PID     journalField `json:"_PID"`
	LogPID  journalField `json:"SYSLOG_PID"`
	Host    journalField `json:"_HOSTNAME"`
}

func (j *journalEntry) appendLine(b []byte) []byte {
	us, _ := strconv.ParseInt(j.Time, 10, 64)
	b = time.UnixMicro(us).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
	b = append(b, ' ')
	b = append(b, word(string(j.Host), "-")...)
	b = append(b, ' ')
	b = append(b, word(cmp.Or(string(j.Ident), string(j.Comm)), "unknown")...)
	if pid := cmp.Or(string(j.PID), string(j.LogPID)); pid != "" {
		b = append(append(append(b, '['), word(pid, "0")...), ']')
	}
	b = append(b, ": "...)
	at := len(b)
	b = append(b, j.Message...)
	for i, c := range b[at:] {
		if c == '\n' || c == '\r' || c == 0 {
			b[at+i] = ' '
		}
	}
	return append(b, '\n')
}

// word makes s fit for the place before the message: one word without what
// ends it there. Senders of log messages choose most of these fields.
func word(s, empty string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == ':' || r == '[' || r == ']' {
			return '_'
		}
		return r
	}, s[:min(len(s), 255)])
	return cmp.Or(s, empty)
}

// A journalField is a field's first value; anything but text is empty.
type journalField []byte

// UnmarshalJSON never fails on valid JSON: one odd field must not stop the reading.
func (f *journalField) UnmarshalJSON(b []byte) error {
	*f = nil
	switch {
	case len(b) == 0:
	case b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*f = journalField(s)
	case b[0] == '[':
		var numbers []uint8Number
		if json.Unmarshal(b, &numbers) == nil {
			*f = bytesOf(numbers)
			return nil
		}
		var values []json.RawMessage
		var s string
		if json.Unmarshal(b, &values) != nil || len(values) == 0 {
			return nil
		}
		if json.Unmarshal(values[0], &numbers) == nil {
			*f = bytesOf(numbers)
		} else if json.Unmarshal(values[0], &s) == nil {
			*f = journalField(s)
		}
	}
	return nil
}

func bytesOf(numbers []uint8Number) []byte {
	b := make([]byte, len(numbers))
	for i, n := range numbers {
		b[i] = byte(n)
	}
	return b
}

// A uint8Number keeps encoding/json from taking a slice of them for base64.
type uint8Number uint16

// lastBytes keeps the last max bytes written to it.
type lastBytes struct {
	max int
	b   []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.b = append(l.b, p[max(0, len(p)-l.max):]...)
	l.b = l.b[max(0, len(l.b)-l.max):]
	return len(p), nil
}

func (l *lastBytes) String() string { return strings.TrimSpace(string(l.b)) }
