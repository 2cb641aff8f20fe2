package gate

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/d--j/go-milter"
)

// Milter is a mail filter for Postfix (2.6 or later), as MILTER_README
// describes them: the only hook that sees the mail of local programs, which
// never passes through smtpd. It reads no body and changes nothing.
//
// Who answers for a message is, in this order: the login, canonical; for mail
// of local programs the script that PHP names in the header; for other mail
// without a login the trusted client, "client:ADDRESS".
//
// A block refuses the recipients (550 5.7.1), and the message if the block came
// after them. A hold accepts, and keeps the message in the hold queue. A
// throttle takes the message's recipients from the account's allowance at its
// end, all or none, and holds the message if there are too few; or, where the
// table says so, each recipient at RCPT, and defers it (450 4.7.1).
//
// Mail that does not come through smtpd, as that of local programs, is only
// ever held: nobody is there to be refused. Postfix would bounce a refused
// message to whatever sender the script wrote, and try a deferred one again
// with each message that follows.
//
// Only Table is required. Fields must not change once Serve runs.
type Milter struct {
	Table *Table

	// Canonical is as in [Policy].
	Canonical func(login string) string

	// Script turns what PHP says of a script into the account that answers for
	// it, empty if nobody does. The name is UID:FILE, and uid that number; or
	// HOST/PATH as cPanel's PHP says it, and uid -1. Postfix does not tell a
	// milter who called sendmail, so any local user may have written either.
	// Nil means "script:" and the name. It must not block.
	Script func(uid int, name string) string

	// Seen is told of each message of a login or script at its end, once,
	// after the answer was sent. It runs on the connection that asked, as in
	// [Policy], which tells of the same message if it is asked too.
	Seen func(Request)

	// PolicyCharges says that a policy service is asked about the same SMTP
	// mail. Throttles of that mail are then left to it, so that nobody pays
	// twice; the milter charges what the policy service never sees.
	PolicyCharges bool

	// Log gets our own mistakes, and once a mail server that offers too little;
	// nil is silent.
	Log *slog.Logger

	MaxConns       int           // one more is closed at once; 0 means 1000
	IdleTimeout    time.Duration // between events; 0 means 4 hours, as a client may take long over a message
	RequestTimeout time.Duration // from an event's first byte to its last; 0 means 5 seconds
	WriteTimeout   time.Duration // for an answer; 0 means 5 seconds

	counters counters
	tooOld   sync.Once
}

// The macros that a milter asks for. Postfix tells the queue id at MAIL only
// where no smtpd is involved: that one has none before the first recipient.
const (
	macroLogin      = "{auth_authen}"
	macroClient     = "{client_addr}"
	macroClientName = "{client_name}"
	macroClientPort = "{client_port}"
	macroQueueID    = "i"
)

// What of the protocol is needed: the sender, without an answer; each
// recipient; the headers, in one go; the end of the message.
const (
	milterActions  = milter.OptQuarantine | milter.OptSetMacros
	milterProtocol = milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailReply | milter.OptNoData | milter.OptNoUnknown |
		milter.OptNoHeaderReply | milter.OptNoEOH | milter.OptNoBody
)

// Serve answers the connections that l accepts until ctx is done, then closes
// them all, waits for their goroutines and returns nil. It closes l. It
// returns an error if l fails for good. It may run for several listeners.
func (m *Milter) Serve(ctx context.Context, l net.Listener) error {
	return m.counters.accept(ctx, l, orDefault(m.MaxConns, 1000), m.Log, m.serve)
}

// serve answers one connection until it ends. The library has a goroutine of
// its own for it, which ends before serve does.
func (m *Milter) serve(conn net.Conn) {
	s := &milterSession{Milter: m}
	s.conn = newMilterConn(m, conn, s.answered)
	server := milter.NewServer(
		milter.WithMilter(func() milter.Milter { return s }),
		milter.WithActions(milterActions),
		milter.WithProtocols(milterProtocol),
		milter.WithMacroRequest(milter.StageMail, []milter.MacroName{macroLogin, macroClient, macroClientName, macroClientPort, macroQueueID}),
		milter.WithMacroRequest(milter.StageEOM, []milter.MacroName{macroQueueID}),
	)
	_ = server.Serve(&oneConn{conn: s.conn}) // always net.ErrClosed
}

// Stats returns what the milter did so far. Its answers are those to
// recipients and to ends of messages.
func (m *Milter) Stats() Stats { return m.counters.stats() }

// A milterSession is one connection of Postfix's, and the message that it is
// about. The library calls its methods one after the other.
type milterSession struct {
	milter.NoOpMilter
	*Milter
	conn *milterConn

	login, account string
	sender         string
	client         netip.Addr
	clientName     string
	unattended     bool // it did not come through smtpd: nobody waits for the answer
	local          bool // a local program sent it
	scripted       bool // a header named a script, readable or not
	recipients     message
	accepted       int // recipients, also those not kept in recipients
	subject        []byte

	answer Answer   // that is about to be sent
	told   *Request // what Seen is to be told then
}

// errPanic is what the library is told after a panic: it ends the connection
// and does not log it. The methods that it calls return it unless they get to
// their end.
var errPanic = io.EOF

// Bounds on a message's texts, in bytes.
const (
	maxMilterText       = 1 << 10
	maxMilterRecipients = 64 << 10 // of all recipients that are kept
)

// begin forgets the previous message.
func (s *milterSession) begin() {
	s.login, s.account, s.sender, s.clientName = "", "", "", ""
	s.client = netip.Addr{}
	s.unattended, s.local, s.scripted, s.accepted = false, false, false, 0
	s.recipients = message{recipients: s.recipients.recipients[:0]}
}

// NewConnection is the start of an SMTP session.
func (s *milterSession) NewConnection(milter.Modifier) error {
	s.begin()
	return nil
}

// Abort is the end of a message that was not completed.
func (s *milterSession) Abort(milter.Modifier) error {
	s.begin()
	return nil
}

// MailFrom begins a message. It is not answered.
func (s *milterSession) MailFrom(from, _ string, m milter.Modifier) (_ *milter.Response, err error) {
	defer s.counters.recovered(s.Log)
	err = errPanic
	s.begin()
	s.sender = clip(from)
	s.client, s.clientName = clientAddr(m.Get(macroClient)), clip(m.Get(macroClientName))
	s.unattended = m.Get(macroQueueID) != ""
	if s.login = clip(m.Get(macroLogin)); s.login != "" {
		s.account = s.canonical(s.login)
	}
	if s.local = s.unattended && s.login == "" && m.Get(macroClientPort) == "0"; s.local {
		s.client = netip.Addr{} // Postfix pretends one, at port 0
	}
	return milter.RespContinue, nil
}

// clip bounds a text and gives it memory of its own.
func clip(text string) string {
	return strings.Clone(text[:min(len(text), maxMilterText)])
}

// clientAddr reads a client's address; it is zero if that is none.
func clientAddr(text string) netip.Addr {
	addr, _ := netip.ParseAddr(strings.TrimPrefix(text, "IPv6:"))
	return addr.Unmap()
}

func (s *milterSession) canonical(login string) string {
	if s.Canonical == nil {
		return strings.ToLower(login)
	}
	return s.Canonical(login)
}

// RcptTo answers to a recipient.
func (s *milterSession) RcptTo(to, _ string, _ milter.Modifier) (_ *milter.Response, err error) {
	defer s.counters.recovered(s.Log)
	err = errPanic
	if s.unattended {
		s.add(to)
		return milter.RespContinue, nil // Postfix takes a refusal for a mistake in its configuration
	}
	now := time.Now()
	verdict := s.verdict(now)
	if s.answer = s.recipient(verdict, now); s.answer != Dunno {
		verdict.given.Add(1)
		return refusal(s.answer, verdict.Text), nil
	}
	if verdict == nil && s.login == "" {
		return milter.RespAccept, nil // nobody's mail: Postfix need not ask about it again
	}
	s.add(to)
	return milter.RespContinue, nil
}

// recipient is the answer to one more recipient of smtpd's. Held is only the
// whole message, at its end.
func (s *milterSession) recipient(verdict *Verdict, now time.Time) Answer {
	switch {
	case verdict.Answer() <= Hold, verdict.throttles() && s.PolicyCharges:
		return Dunno
	case !verdict.throttles():
		return verdict.Answer()
	}
	answer := verdict.Weigh(1, now)
	if answer == Dunno {
		s.recipients.charged++
	}
	return answer
}

// add notes an accepted recipient.
func (s *milterSession) add(recipient string) {
	s.accepted++
	r := &s.recipients
	if r.n == maxRecipients || len(r.recipients)+len(recipient) >= maxMilterRecipients || strings.Contains(recipient, "\n") {
		return
	}
	r.n++
	r.recipients = append(append(r.recipients, recipient...), '\n')
}

// Header looks for the script that sent a local program's mail. Only the first
// header that names one counts, also if it cannot be read: PHP writes its own
// before the program's. It is not answered.
func (s *milterSession) Header(name, value string, _ milter.Modifier) (_ *milter.Response, err error) {
	defer s.counters.recovered(s.Log)
	err = errPanic
	if s.local && !s.scripted {
		s.scripted = true
		if uid, script, ok := readScript(name, value); ok {
			s.account = s.script(uid, script)
		}
	}
	return milter.RespContinue, nil
}

func (s *milterSession) script(uid int, name string) string {
	if s.Script == nil {
		return "script:" + name
	}
	return s.Script(uid, name)
}

// EndOfMessage answers to a message.
func (s *milterSession) EndOfMessage(m milter.Modifier) (_ *milter.Response, err error) {
	defer s.counters.recovered(s.Log)
	err = errPanic
	now := time.Now()
	verdict := s.verdict(now)
	s.answer = s.end(verdict, now)
	if s.Seen != nil && s.account != "" {
		s.told = s.request(m.Get(macroQueueID), now)
	}
	if s.answer == Dunno {
		return milter.RespAccept, nil
	}
	verdict.given.Add(1)
	if s.answer == Hold {
		return milter.RespAccept, m.Quarantine(verdict.Text)
	}
	return refusal(s.answer, verdict.Text), nil
}

// end is the answer to the whole message.
func (s *milterSession) end(verdict *Verdict, now time.Time) Answer {
	if verdict.throttles() && s.PolicyCharges && !s.unattended {
		return Dunno
	}
	answer := verdict.Weigh(s.accepted-s.recipients.charged, now)
	if s.unattended {
		answer = min(answer, Hold)
	}
	return answer
}

// refusal is a reply with the status code of RFC 3463: 5.7.1 refused for
// policy, 4.7.1 the same for now.
func refusal(answer Answer, text string) *milter.Response {
	code, status, plain := uint16(550), "5.7.1 ", milter.RespReject
	if answer == Defer {
		code, status, plain = 450, "4.7.1 ", milter.RespTempFail
	}
	r, err := milter.RejectWithCodeAndReason(code, status+text)
	if err != nil {
		return plain
	}
	return r
}

// verdict looks up who answers for the message.
func (s *milterSession) verdict(now time.Time) *Verdict {
	switch {
	case s.login != "":
		return s.Table.Lookup(s.account, now)
	case s.account != "":
		return s.scriptVerdict(now)
	case !s.client.IsValid():
		return nil
	}
	s.subject = s.client.AppendTo(append(s.subject[:0], "client:"...))
	return s.Table.lookup(s.subject, now)
}

// scriptVerdict looks up the script and every directory above it, written with
// a slash at the end, and returns the strongest verdict.
func (s *milterSession) scriptVerdict(now time.Time) *Verdict {
	strongest := s.Table.Lookup(s.account, now)
	for i := range len(s.account) - 1 {
		if s.account[i] != '/' {
			continue
		}
		if v := s.Table.Lookup(s.account[:i+1], now); v.strength() > strongest.strength() {
			strongest = v
		}
	}
	return strongest
}

func (s *milterSession) request(queueID string, now time.Time) *Request {
	return &Request{
		Time: now, State: stateEnd, QueueID: clip(queueID), Login: s.login, Account: s.account, Sender: s.sender,
		Client: s.client, ClientName: s.clientName, Answer: s.answer, RecipientCount: s.accepted,
		Recipients: splitLines(string(s.recipients.recipients), s.recipients.n),
	}
}

// answered is called when an answer was sent.
func (s *milterSession) answered() (err error) {
	defer s.counters.recovered(s.Log)
	err = errPanic
	s.counters.answers[s.answer].Add(1)
	s.answer = Dunno
	if told := s.told; told != nil {
		s.told = nil
		s.Seen(*told)
	}
	return nil
}
