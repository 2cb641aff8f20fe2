package gate

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Request describes one message at its end, as Postfix asked about it.
// Everything but Time, Account and Answer was written by the client or the
// mail server, and is hostile until proven otherwise.
type Request struct {
	Time       time.Time
	State      string // END-OF-MESSAGE
	Instance   string // joins the questions about one message
	QueueID    string
	Login      string // as Postfix knows it
	Account    string // the login, canonical
	Sender     string
	Client     netip.Addr // zero if it could not be read
	ClientName string
	Size       int // bytes
	Answer     Answer

	// RecipientCount is how many recipients Postfix accepted. Recipients
	// holds those that the gate was asked about and did not refuse: another
	// rule may have refused some of them, and past a bound they are dropped.
	RecipientCount int
	Recipients     []string
}

// Why a request could not be read.
var (
	errTooLong   = errors.New("request is too long")
	errMalformed = errors.New("request is malformed")
)

// The protocol states that the gate treats differently from the others.
const (
	stateRecipient = "RCPT"
	stateEnd       = "END-OF-MESSAGE"
)

// maxAttributes bounds the lines of a request. Postfix 3.12 sends 33.
const maxAttributes = 128

// A query is a request in the buffer that it was read into.
type query struct {
	kind, state, instance, queueID []byte
	login, sender, recipient       []byte
	client, clientName             []byte
	size, count                    []byte
}

// parse reads a request without its final empty line. The order of the
// attributes is free and unknown ones are skipped, as SMTPD_POLICY_README
// asks of servers; an attribute that is given twice is a forgery or a
// mistake, and nothing in such a request is believed.
func (q *query) parse(text []byte) error {
	*q = query{}
	for lines := 0; len(text) > 0; lines++ {
		if lines == maxAttributes {
			return errTooLong
		}
		var attr []byte
		attr, text = cutLine(text)
		eq := bytes.IndexByte(attr, '=')
		if eq <= 0 {
			return errMalformed
		}
		field := q.field(attr[:eq])
		if field == nil {
			continue
		}
		if *field != nil {
			return errMalformed
		}
		*field = attr[eq+1:]
	}
	if string(q.kind) != "smtpd_access_policy" {
		return errMalformed
	}
	return nil
}

func cutLine(text []byte) (first, rest []byte) {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, nil
}

func (q *query) field(name []byte) *[]byte {
	switch string(name) {
	case "request":
		return &q.kind
	case "protocol_state":
		return &q.state
	case "instance":
		return &q.instance
	case "queue_id":
		return &q.queueID
	case "sasl_username":
		return &q.login
	case "sender":
		return &q.sender
	case "recipient":
		return &q.recipient
	case "client_address":
		return &q.client
	case "client_name":
		return &q.clientName
	case "size":
		return &q.size
	case "recipient_count":
		return &q.count
	}
	return nil
}

// request copies what outlives the buffer. All its strings share one
// allocation.
func (q *query) request(recipients []byte, n int) Request {
	var text strings.Builder
	text.Grow(len(q.state) + len(q.instance) + len(q.queueID) + len(q.login) +
		len(q.sender) + len(q.client) + len(q.clientName) + len(recipients))
	for _, part := range [...][]byte{q.state, q.instance, q.queueID, q.login, q.sender, q.client, q.clientName, recipients} {
		text.Write(part)
	}
	rest := text.String()
	next := func(n int) (s string) {
		s, rest = rest[:n], rest[n:]
		return s
	}
	r := Request{
		State:          next(len(q.state)),
		Instance:       next(len(q.instance)),
		QueueID:        next(len(q.queueID)),
		Login:          next(len(q.login)),
		Sender:         next(len(q.sender)),
		Size:           number(q.size),
		RecipientCount: number(q.count),
	}
	r.Client, _ = netip.ParseAddr(next(len(q.client)))
	r.ClientName = next(len(q.clientName))
	r.Recipients = splitLines(rest, n)
	return r
}

// number reads a count. What is no count is 0: could not tell.
func number(text []byte) int {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// splitLines cuts text, n lines that each end in a newline, into its lines.
func splitLines(text string, n int) []string {
	if n == 0 {
		return nil
	}
	lines := make([]string, 0, n)
	for line := range strings.Lines(text) {
		lines = append(lines, line[:len(line)-1])
	}
	return lines
}
