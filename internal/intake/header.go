package intake

import (
	"bufio"
	"io"
	"net/textproto"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A header has the values of each field, by its canonical name.
type header map[string][]string

func (h header) first(name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// text is a value that may be shown.
func (h header) text(name string) string { return clean(h.first(name)) }

// clean cuts a stranger's text and takes control characters out of it.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError || r == '\u2028' || r == '\u2029' {
			return -1
		}
		return r
	}, strings.TrimSpace(text[:min(len(text), 4*maxText)]))
	for len(text) > maxText {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// A headerReader reads the header of a message, as damaged as it may be: a line
// that is no field is left out, and the first empty line ends it.
type headerReader struct {
	lines *bufio.Reader
	left  int // bytes
}

func newHeaderReader(r io.Reader) *headerReader {
	return &headerReader{lines: bufio.NewReaderSize(r, 4096), left: maxHeader}
}

// rest is the body.
func (h *headerReader) rest() io.Reader { return h.lines }

func (h *headerReader) read() header {
	all := header{}
	var name string
	var value []byte
	keep := func() {
		if name != "" && len(all[name]) < maxReceived {
			all[name] = append(all[name], strings.TrimSpace(string(value)))
		}
		name, value = "", value[:0]
	}
	for line, ok := h.line(); ok && line != ""; line, ok = h.line() {
		if line[0] == ' ' || line[0] == '\t' { // it goes on: RFC 5322, section 2.2.3
			value = append(value, line[:min(len(line), max(0, maxField-len(value)))]...)
			continue
		}
		keep()
		if field, text, isField := strings.Cut(line, ":"); isField && !strings.ContainsAny(field, " \t") {
			name, value = textproto.CanonicalMIMEHeaderKey(field), append(value, text...)
		}
	}
	keep()
	return all
}

// line returns a line without its end, cut where it is too long.
func (h *headerReader) line() (string, bool) {
	var line []byte
	for {
		piece, err := h.lines.ReadSlice('\n')
		if h.left -= len(piece); h.left < 0 {
			return "", false
		}
		line = append(line, piece[:min(len(piece), max(0, maxField-len(line)))]...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && len(line) == 0 {
			return "", false
		}
		return strings.TrimRight(string(line), "\r\n"), true
	}
}
