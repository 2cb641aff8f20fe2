package enforce

import (
	"context"
	"iter"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// An Evidence is what is kept of one queued message to judge an account by:
// of its header, and of the envelope. Of recipients there is no more than
// their domain and how many they are; of the body there is nothing. Its text is
// a stranger's: bounded, and without control characters.
type Evidence struct {
	ID        string         `json:"id"`
	Arrival   time.Time      `json:"arrival"`
	Client    netip.Addr     `json:"client,omitzero"`
	Sender    string         `json:"sender,omitempty"` // of the envelope
	Size      int64          `json:"size"`
	Rcpts     int            `json:"rcpts"`
	From      string         `json:"from,omitempty"`
	Subject   string         `json:"subject,omitempty"`
	Date      string         `json:"date,omitempty"`
	MessageID string         `json:"message_id,omitempty"`
	Mailer    string         `json:"mailer,omitempty"`
	PHP       []string       `json:"php,omitempty"`      // X-PHP-*: the script and the client that called it
	Received  string         `json:"received,omitempty"` // the topmost, which our own server wrote
	To        map[string]int `json:"to,omitempty"`       // addresses by domain
	Cc        map[string]int `json:"cc,omitempty"`
	Bcc       map[string]int `json:"bcc,omitempty"`
	Error     string         `json:"error,omitempty"` // why there is no header
}

// Bounds of an Evidence.
const (
	maxField         = 500 // bytes of a header field that are kept
	maxPHP           = 4   // fields X-PHP-*
	maxEvidenceHosts = 20  // domains of a To, Cc or Bcc; all others count under ""
)

// Sample looks into up to n of the messages, spread over all of them in their
// order: the first, the last, and some between. Those that have left the queue
// are left out.
func Sample(ctx context.Context, q Queue, ms []Queued, n int) []Evidence {
	n = min(n, len(ms))
	var all []Evidence
	for i := range n {
		m := ms[0]
		if n > 1 {
			m = ms[i*(len(ms)-1)/(n-1)]
		}
		header, err := q.Headers(ctx, m)
		if isGone(err) {
			continue
		}
		e := evidence(m, header)
		if err != nil {
			e.Error = plain(err.Error())
		}
		all = append(all, e)
	}
	return all
}

func evidence(m Queued, header []byte) Evidence {
	e := Evidence{ID: m.ID, Arrival: m.Arrival, Client: m.Client, Sender: m.Sender, Size: m.Size, Rcpts: m.Rcpts}
	for name, value := range fields(string(header)) {
		switch name {
		case "from":
			first(&e.From, value)
		case "subject":
			first(&e.Subject, value)
		case "date":
			first(&e.Date, value)
		case "message-id":
			first(&e.MessageID, value)
		case "x-mailer", "user-agent":
			first(&e.Mailer, value)
		case "received":
			first(&e.Received, forWhom.ReplaceAllString(value, "for <…@$1>"))
		case "to":
			count(&e.To, value)
		case "cc":
			count(&e.Cc, value)
		case "bcc":
			count(&e.Bcc, value)
		default:
			if strings.HasPrefix(name, "x-php-") && len(e.PHP) < maxPHP {
				e.PHP = append(e.PHP, plain(name+": "+value))
			}
		}
	}
	return e
}

// forWhom is the recipient in a Received field.
var forWhom = regexp.MustCompile(`\bfor\s+<?[^\s<>;]*@([^\s<>;@]+)>?`)

// fields yields the fields of a header: the name in lower case, and the value
// with the lines that continue it (RFC 5322, section 2.2.3). The last one may
// be cut.
func fields(header string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for header != "" {
			end := 0
			for {
				i := strings.IndexByte(header[end:], '\n')
				if i < 0 {
					end = len(header)
					break
				}
				end += i + 1
				if end == len(header) || header[end] != ' ' && header[end] != '\t' {
					break
				}
			}
			name, value, ok := strings.Cut(header[:end], ":")
			header = header[end:]
			if ok && !yield(strings.ToLower(strings.TrimSpace(name)), value) {
				return
			}
		}
	}
}

// first keeps a field's value, unless there was one already.
func first(to *string, value string) {
	if *to == "" {
		*to = plain(value)
	}
}

// count counts the addresses of a field by their domains. An address is what
// holds an @, outside of quotes and comments: good enough to count.
func count(to *map[string]int, value string) {
	if *to == nil {
		*to = map[string]int{}
	}
	quoted, comment := false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\':
			i++
		case c == '"' && comment == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			comment++
		case c == ')' && comment > 0:
			comment--
		case c == '@' && comment == 0:
			domain := value[i+1:]
			if end := strings.IndexFunc(domain, func(r rune) bool { return strings.ContainsRune(" \t\r\n<>,;()\"", r) }); end >= 0 {
				domain = domain[:end]
			}
			domain = strings.ToLower(plain(domain))
			if _, known := (*to)[domain]; !known && len(*to) >= maxEvidenceHosts {
				domain = ""
			}
			(*to)[domain]++
		}
	}
}

// plain makes one line of text: blanks for the control characters and what
// turns the direction of writing, a question mark for what is not UTF-8.
func plain(text string) string {
	text = text[:min(len(text), 4*maxField)]
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	return strings.ToValidUTF8(text[:min(len(text), maxField)], "")
}
