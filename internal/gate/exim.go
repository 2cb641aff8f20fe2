package gate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Exim answers what Exim's access control lists ask by ${readsocket}, with
// the text in docs/exim.md: at each recipient, after the data, and about mail
// of local programs. A connection carries one question, a line of name=value
// pairs with tabs in between, and one answer without a newline, which Exim
// would keep: "OK", "DENY 5.7.1 text", "DEFER 4.7.1 text" or "FREEZE text".
//
// A client's login, canonical, is looked up in the table, or without one the
// trusted client "client:ADDRESS". For mail of local programs these are, and
// the strongest verdict counts: the script that PHP names, the directory that
// the program was in ("script:/home/u/public_html"), and the system user
// ("user:NAME").
//
// A block refuses at each recipient and after the data. A hold freezes after
// the data. A throttle is paid for after the data, all recipients or none, and
// what is not paid for is frozen. Where the table says to defer, recipients
// past the allowance are deferred one by one, but not charged. Mail of local
// programs is never refused but frozen: Exim would send the refusal to
// whatever envelope sender a script made up.
//
// Only Table is required. Fields must not change once Serve runs.
type Exim struct {
	Table *Table

	// Canonical turns a login into the account that answers for it, and User
	// the name of a system user. They run in many goroutines at once and must
	// not block. Nil lower-cases a login, and puts user: before a name.
	Canonical func(login string) string
	User      func(name string) string

	// Seen is told of each message with a login at its end, once, after the
	// answer was sent. It must not block: hand the Request to a channel, and
	// drop it when that is full. The log tells the same message, with less.
	Seen func(Request)

	// Log gets our own mistakes only; nil is silent.
	Log *slog.Logger

	MaxConns int           // one more is closed at once; 0 means 1000
	Timeout  time.Duration // for a question and its answer; 0 means 5 seconds

	counters counters
}

// The stages at which Exim asks.
const (
	eximRecipient = "rcpt"  // acl_smtp_rcpt
	eximData      = "data"  // acl_smtp_data
	eximLocal     = "local" // acl_not_smtp
)

const (
	maxQuestion   = 32 << 10 // bytes; docs/exim.md cuts all that strangers write
	firstQuestion = 1 << 10  // bytes of the buffer that a connection starts with
	maxAccount    = 255      // bytes of an account; what reads the log cuts there too
	maxUnread     = 1 << 20  // bytes after the line that are read and thrown away
)

// Serve answers the connections that l accepts until ctx is done, then closes
// them all, waits for their goroutines and returns nil. It closes l. It
// returns an error if l fails for good. It may run for several listeners.
func (x *Exim) Serve(ctx context.Context, l net.Listener) error {
	return x.counters.accept(ctx, x.quick(l), orDefault(x.MaxConns, 1000), x.Log, x.serve)
}

// serve answers the question of one connection, and reads what is left of it:
// to close a connection that has unread bytes would take the answer back.
func (x *Exim) serve(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(orDefault(x.Timeout, 5*time.Second)))
	line, err := readQuestion(conn)
	if err != nil && !errors.Is(err, errTooLong) {
		x.counters.timed(err)
		return // Exim takes the silence for an OK, or is gone
	}
	if x.answer(conn, line, err) == nil && closeWrite(conn) == nil {
		io.CopyN(io.Discard, conn, maxUnread) // Exim has ended its half already
	}
}

// closeWrite ends our half of a connection.
func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// answer answers a question's line, or that it could not be read for err.
func (x *Exim) answer(w io.Writer, line []byte, err error) error {
	began := time.Now()
	var q eximQuestion
	if err == nil {
		err = q.parse(line)
	}
	if err != nil {
		x.counters.malformed.Add(1)
		return x.counters.reply(w, eximOK, Dunno, began)
	}
	account, verdict := x.verdict(&q, began)
	answer := q.weigh(verdict, began)
	if answer != Dunno {
		verdict.given.Add(1)
	}
	if err := x.counters.reply(w, eximWire(verdict, answer), answer, began); err != nil {
		return err
	}
	if x.Seen != nil && q.remote() && len(q.login) > 0 && string(q.stage) == eximData {
		x.Seen(q.request(account, answer, began))
	}
	return nil
}

// firstLine is the text up to the first newline, or to the end.
func firstLine(text []byte) []byte {
	line, _, _ := bytes.Cut(text, []byte{'\n'})
	return line
}

// readQuestion reads up to the first newline, or to the end.
func readQuestion(conn net.Conn) ([]byte, error) {
	buf := make([]byte, firstQuestion)
	for held := 0; ; {
		n, err := conn.Read(buf[held:])
		if i := bytes.IndexByte(buf[held:held+n], '\n'); i >= 0 {
			return buf[:held+i], nil
		}
		held += n
		switch {
		case err == io.EOF && held > 0:
			return buf[:held], nil
		case held >= maxQuestion:
			return nil, errTooLong
		case err != nil:
			return nil, err
		case held == len(buf):
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

var eximOK = []byte("OK")

// eximWire writes an answer, with the status code of RFC 3463.
func eximWire(v *Verdict, a Answer) []byte {
	switch a {
	case Hold:
		return []byte("FREEZE " + v.Text)
	case Defer:
		return []byte("DEFER 4.7.1 " + v.Text)
	case Reject:
		return []byte("DENY 5.7.1 " + v.Text)
	}
	return eximOK
}

// An eximQuestion is a question in the buffer that it was read into.
type eximQuestion struct {
	stage, id, client, login, user, directory, php []byte
	size, count, sender, recipients, subject       []byte
}

// parse reads a question's line. The order is free and unknown names are
// skipped, but the subject is last and goes to the end of the line, tabs and
// all. A name that is given twice is a forgery or a mistake, and nothing in
// such a question is believed.
func (q *eximQuestion) parse(line []byte) error {
	*q = eximQuestion{}
	for pairs := 0; len(line) > 0; pairs++ {
		if pairs == maxAttributes {
			return errTooLong
		}
		eq := bytes.IndexByte(line, '=')
		if eq <= 0 || bytes.IndexByte(line[:eq], '\t') >= 0 {
			return errMalformed
		}
		field := q.field(line[:eq])
		if field == &q.subject {
			q.subject = line[eq+1:]
			break
		}
		var value []byte
		value, line, _ = bytes.Cut(line[eq+1:], []byte("\t"))
		if field == nil {
			continue
		}
		if *field != nil {
			return errMalformed
		}
		*field = value
	}
	switch string(q.stage) {
	case eximRecipient, eximData, eximLocal:
		return nil
	}
	return errMalformed
}

func (q *eximQuestion) field(name []byte) *[]byte {
	switch string(name) {
	case "stage":
		return &q.stage
	case "id":
		return &q.id
	case "ip":
		return &q.client
	case "auth":
		return &q.login
	case "local":
		return &q.user
	case "cwd":
		return &q.directory
	case "php":
		return &q.php
	case "size":
		return &q.size
	case "rcpts":
		return &q.count
	case "from":
		return &q.sender
	case "to":
		return &q.recipients
	case "subject":
		return &q.subject
	}
	return nil
}

// remote reports whether a client sends the message over the network. In a
// session of "sendmail -bs" too Exim knows a login: the name of the user.
func (q *eximQuestion) remote() bool { return len(q.client) > 0 }

// verdict looks up who answers for the message.
func (x *Exim) verdict(q *eximQuestion, now time.Time) (account string, v *Verdict) {
	switch {
	case q.remote() && len(q.login) > 0:
		account = x.canonical(string(q.login))
	case q.remote():
		addr, err := netip.ParseAddr(string(q.client))
		if err != nil {
			return "", nil
		}
		account = "client:" + addr.Unmap().String()
	default:
		return x.local(q, now)
	}
	return account, x.Table.Lookup(account, now)
}

// local looks up a local program's accounts and returns the one with the
// strongest verdict.
func (x *Exim) local(q *eximQuestion, now time.Time) (account string, v *Verdict) {
	for _, candidate := range [...]string{q.script(), q.program(), x.user(string(q.user))} {
		if candidate == "" {
			continue
		}
		found := x.Table.Lookup(candidate, now)
		if account == "" || found.strength() > v.strength() {
			account, v = candidate, found
		}
	}
	return account, v
}

// strength orders verdicts: none, throttle, hold, block.
func (v *Verdict) strength() int {
	if v == nil {
		return -1
	}
	return int(v.Decision.Action)
}

func (x *Exim) canonical(login string) string {
	if x.Canonical == nil {
		return strings.ToLower(login)
	}
	return x.Canonical(login)
}

func (x *Exim) user(name string) string {
	switch {
	case name == "":
		return ""
	case x.User == nil:
		return bounded("user:" + name)
	}
	return x.User(name)
}

// program is the account of the directory in which sendmail was called.
func (q *eximQuestion) program() string {
	if len(q.directory) < 2 || q.directory[0] != '/' {
		return ""
	}
	return bounded("script:" + string(q.directory))
}

// script is the account of the file that PHP names in the header
// X-PHP-Originating-Script, "33:contact.php" or "33:contact.php(7) : eval()'d
// code": the script's name without its directory, which is where PHP is. A
// second header of that name, which Exim puts behind the first after what was
// a newline, is not PHP's.
func (q *eximQuestion) script() string {
	program := q.program()
	_, file, ok := strings.Cut(string(q.php), ":")
	if end := strings.IndexAny(file, "?("); end >= 0 {
		file = file[:end]
	}
	if !ok || program == "" || file == "" || strings.Contains(file, "/") {
		return ""
	}
	return bounded(program + "/" + file)
}

func bounded(account string) string { return account[:min(len(account), maxAccount)] }

// weigh is the answer at the question's stage.
func (q *eximQuestion) weigh(v *Verdict, now time.Time) Answer {
	count := number(q.count)
	switch string(q.stage) {
	case eximRecipient:
		return q.weighRecipient(v, count, now)
	case eximLocal:
		if v != nil && v.Weigh(max(count, 1), now) != Dunno {
			return Hold
		}
		return Dunno
	}
	return v.Weigh(max(count, 1), now)
}

// weighRecipient is the answer to one more recipient after count of them.
// Nothing is charged, as it may still be refused by another rule; what
// remains is charged after the data.
func (q *eximQuestion) weighRecipient(v *Verdict, count int, now time.Time) Answer {
	switch answer := v.Answer(); {
	case answer == Defer && count < v.Free(now), answer == Hold:
		return Dunno
	default:
		return answer
	}
}

// request copies what outlives the buffer.
func (q *eximQuestion) request(account string, answer Answer, now time.Time) Request {
	r := Request{
		Time: now, State: string(q.stage), Instance: string(q.id), QueueID: string(q.id),
		Login: string(q.login), Account: account, Sender: string(q.sender),
		Size: number(q.size), Answer: answer, RecipientCount: number(q.count),
	}
	r.Client, _ = netip.ParseAddr(string(q.client))
	for addr := range strings.SplitSeq(string(q.recipients), ", ") {
		if addr != "" && len(r.Recipients) < maxRecipients {
			r.Recipients = append(r.Recipients, addr)
		}
	}
	if n := len(r.Recipients); n > 0 && n < min(r.RecipientCount, maxRecipients) {
		r.Recipients = r.Recipients[:n-1] // the list was cut, and perhaps its last address
	}
	return r
}
