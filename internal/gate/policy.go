package gate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// Policy is a Postfix SMTPD access policy service, as SMTPD_POLICY_README
// describes it: requests of name=value lines and an empty line, many on a
// connection, each answered by one action of access(5).
//
// It is to be asked at RCPT and at END-OF-MESSAGE. The client's login,
// canonical, is looked up in the table; for mail without a login, the trusted
// client "client:ADDRESS" is. A block refuses and a hold holds at any state.
// A throttle is paid for at RCPT: each recipient takes one from the account's
// allowance. When there is none, the whole message goes to the hold queue and
// costs nothing, until it is released; or, where the table says so, the
// recipient is deferred (450 4.7.1). At END-OF-MESSAGE only recipients that
// were not paid for are taken, all or none; that happens when the throttle
// began in mid-message, or when RCPT is not asked.
//
// Only Table is required. Fields must not change once Serve runs.
type Policy struct {
	Table *Table

	// Canonical turns a login into the account that answers for it. It runs
	// in many goroutines at once and must not block. Nil lower-cases.
	Canonical func(login string) string

	// Seen is told of each message with a login at its end, once, after the
	// answer was sent. It runs on the connection that asked, so it must not
	// block: hand the Request to a channel, and drop it when that is full.
	// The log tells the same message, with less.
	Seen func(Request)

	// Log gets our own mistakes only; nil is silent.
	Log *slog.Logger

	MaxConns       int           // one more is closed at once; 0 means 1000
	IdleTimeout    time.Duration // between requests; 0 means 15 minutes, as Postfix hangs up after 5
	RequestTimeout time.Duration // from a request's first byte to its last; 0 means 5 seconds
	WriteTimeout   time.Duration // for an answer; 0 means 5 seconds

	counters counters
	gathered gatherer
}

// A request is at most this long; Postfix's are about 700 bytes.
const (
	maxRequest   = 16 << 10
	firstRequest = 2 << 10 // bytes of the buffer that a connection starts with
)

// Serve answers the connections that l accepts until ctx is done, then closes
// them all, waits for their goroutines and returns nil. It closes l. It
// returns an error if l fails for good. It may run for several listeners.
// A panic ends its connection only, so that Postfix goes on without an opinion
// of ours.
func (p *Policy) Serve(ctx context.Context, l net.Listener) error {
	return p.counters.accept(ctx, l, orDefault(p.MaxConns, 1000), p.Log, p.serve)
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// serve answers one connection until it ends.
func (p *Policy) serve(conn net.Conn) {
	s := &session{
		Policy: p, conn: swift(conn), buf: make([]byte, firstRequest), dunno: []byte(wireDunno),
		idle:    orDefault(p.IdleTimeout, 15*time.Minute),
		request: orDefault(p.RequestTimeout, 5*time.Second),
		write:   orDefault(p.WriteTimeout, 5*time.Second),
	}
	for s.turn() == nil {
	}
}

// A session is one connection of Postfix's.
type session struct {
	*Policy
	conn                 net.Conn
	idle, request, write time.Duration

	buf   []byte // read, not yet answered: buf[:held], of which buf[:used] is done with
	held  int
	used  int
	query query

	login, account string // the latest login, and its account as it was then
	subject        []byte // scratch
	dunno          []byte // the answer about most
}

// turn reads one request and answers it. It returns an error when the
// connection is of no more use.
func (s *session) turn() error {
	text, err := s.next()
	began := time.Now()
	if err == nil {
		err = s.query.parse(text)
	}
	switch {
	case errors.Is(err, errTooLong), errors.Is(err, errMalformed):
		s.counters.malformed.Add(1)
		s.reply(s.dunno, Dunno, began) // the connection is closed in any case
		return err
	case err != nil:
		return err
	}
	verdict, answer, m := s.decide(began)
	defer s.gathered.release(m)
	out := s.dunno
	if answer != Dunno {
		verdict.given.Add(1)
		out = verdict.wire
	}
	if err := s.reply(out, answer, began); err != nil {
		return err
	}
	if s.Seen != nil && len(s.query.login) > 0 && string(s.query.state) == stateEnd {
		s.Seen(s.seen(answer, m, began))
	}
	return nil
}

func (s *session) reply(text []byte, answer Answer, began time.Time) error {
	s.conn.SetWriteDeadline(began.Add(s.write))
	return s.counters.reply(s.conn, text, answer, began)
}

// reply writes an answer and counts it.
func (c *counters) reply(to io.Writer, text []byte, answer Answer, began time.Time) error {
	if _, err := to.Write(text); err != nil {
		return c.timed(err)
	}
	c.answers[answer].Add(1)
	c.latency.observe(time.Since(began))
	return nil
}

// timed counts err if it is a deadline that passed.
func (c *counters) timed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.slow.Add(1)
	}
	return err
}

// next returns the next request without its final empty line. It is valid
// until the next call.
func (s *session) next() ([]byte, error) {
	s.held = copy(s.buf, s.buf[s.used:s.held])
	s.used = 0
	begun := s.held > 0
	s.conn.SetReadDeadline(time.Now().Add(s.wait(begun)))
	for searched := 0; ; {
		if i := bytes.Index(s.buf[searched:s.held], []byte("\n\n")); i >= 0 {
			s.used = searched + i + 2
			return s.buf[:searched+i], nil
		}
		searched = max(s.held-1, 0)
		if s.held == len(s.buf) {
			if s.held >= maxRequest {
				return nil, errTooLong
			}
			s.buf = append(s.buf, make([]byte, min(len(s.buf), maxRequest-len(s.buf)))...)
		}
		n, err := s.conn.Read(s.buf[s.held:])
		s.held += n
		switch {
		case n > 0 && !begun:
			begun = true
			if !bytes.HasSuffix(s.buf[:s.held], []byte("\n\n")) {
				s.conn.SetReadDeadline(time.Now().Add(s.request))
			}
		case n == 0 && err == nil:
			return nil, io.ErrNoProgress
		case n == 0 && begun:
			return nil, s.counters.timed(err)
		case n == 0:
			return nil, err // Postfix hung up, or had nothing to ask for long
		}
	}
}

func (s *session) wait(begun bool) time.Duration {
	if begun {
		return s.request
	}
	return s.idle
}

// decide returns the verdict about the request's account, the answer, and at
// the end of a message what was gathered of it, if anything.
func (s *session) decide(now time.Time) (*Verdict, Answer, *message) {
	verdict := s.verdict(now)
	in, known := key(s.query.instance)
	switch string(s.query.state) {
	case stateRecipient:
		return verdict, s.recipient(verdict, in, known, now), nil
	case stateEnd:
		var m *message
		if known {
			m = s.gathered.end(in)
		}
		return verdict, s.end(verdict, m, now), m
	}
	if verdict.throttles() {
		return verdict, Dunno, nil // it counts recipients, and there are none to count
	}
	return verdict, verdict.Answer(), nil
}

// recipient is the answer to one more recipient, of the message in if that is
// known.
func (s *session) recipient(verdict *Verdict, in instance, known bool, now time.Time) Answer {
	answer := verdict.Answer()
	var charged bool
	if verdict.throttles() {
		answer, charged = s.charge(verdict, in, known, now)
	}
	if known && answer < Defer && (verdict.throttles() || s.Seen != nil && len(s.query.login) > 0) {
		s.gathered.add(in, s.query.recipient, charged, now)
	}
	return answer
}

// charge takes a recipient from a throttle's allowance, unless it was charged
// before or its message is held in any case.
func (s *session) charge(verdict *Verdict, in instance, known bool, now time.Time) (answer Answer, charged bool) {
	var repeated, held bool
	if known {
		repeated, held = s.gathered.known(in, s.query.recipient)
	}
	switch {
	case held:
		return verdict.Answer(), false
	case repeated:
		return Dunno, false
	}
	answer = verdict.Weigh(1, now)
	if known && answer == Hold {
		verdict.giveBack(s.gathered.hold(in, now))
	}
	return answer, answer == Dunno
}

// end is the answer to a message at its end, m if anything was gathered of it.
func (s *session) end(verdict *Verdict, m *message, now time.Time) Answer {
	if m != nil && m.held {
		return verdict.Answer()
	}
	answer := verdict.Weigh(s.unpaid(m), now)
	if m != nil && answer == Hold && verdict.throttles() {
		verdict.giveBack(m.charged)
	}
	return answer
}

// unpaid is the number of the message's recipients that were not charged.
func (s *session) unpaid(m *message) int {
	n := number(s.query.count)
	if m != nil {
		n -= m.charged
	}
	return n
}

// verdict looks up the request's account.
func (s *session) verdict(now time.Time) *Verdict {
	if len(s.query.login) == 0 {
		s.subject = append(append(s.subject[:0], "client:"...), s.query.client...)
		return s.Table.lookup(s.subject, now)
	}
	if string(s.query.login) != s.login {
		s.login = string(s.query.login)
	}
	s.account = s.canonical(s.login)
	return s.Table.Lookup(s.account, now)
}

func (s *session) canonical(login string) string {
	if s.Canonical == nil {
		return strings.ToLower(login)
	}
	return s.Canonical(login)
}

func (s *session) seen(answer Answer, m *message, now time.Time) Request {
	var r Request
	if m == nil {
		r = s.query.request(nil, 0)
	} else {
		r = s.query.request(m.recipients, m.n)
	}
	r.Time, r.Account, r.Answer = now, s.account, answer
	return r
}
