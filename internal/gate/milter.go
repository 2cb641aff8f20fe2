package gate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/d--j/go-milter"
	"github.com/d--j/go-milter/milterutil"
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

	// LocalWaits says that a table of Postfix's holds all mail of throttled local
	// programs. It is paid for when it is let out, and so not here too.
	LocalWaits bool

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
	acceptSpeaking(l)
	return m.counters.accept(ctx, l, orDefault(m.MaxConns, 1000), m.Log, m.serve)
}

// serve answers one connection until it ends.
func (m *Milter) serve(conn net.Conn) {
	s := &milterSession{Milter: m, conn: newMilterConn(m, conn)}
	for {
		kind, data, err := s.conn.next()
		if err == nil {
			err = s.step(kind, data)
		}
		if err != nil {
			m.ended(err)
			return
		}
	}
}

// ended notes why a connection ends.
func (m *Milter) ended(err error) {
	switch {
	case errors.Is(err, errMalformed), errors.Is(err, errTooLong):
		m.counters.malformed.Add(1)
	case errors.Is(err, errSlow):
		m.counters.slow.Add(1)
	}
}

// Stats returns what the milter did so far. Its answers are those to
// recipients and to ends of messages.
func (m *Milter) Stats() Stats { return m.counters.stats() }

// A milterSession is one connection of Postfix's, and the message that it is
// about.
type milterSession struct {
	*Milter
	conn   *milterConn
	out    []byte // scratch
	macros milterMacros

	login, account string
	sender         string
	client         netip.Addr
	clientName     string
	queueID        string
	unattended     bool // it did not come through smtpd: nobody waits for the answer
	local          bool // a local program sent it
	scripted       bool // a header named a script, readable or not
	recipients     message
	accepted       int // recipients, also those not kept in recipients
	subject        []byte
}

// milterMacros are what Postfix said before the command that they are about.
type milterMacros struct{ login, client, clientName, clientPort, queueID string }

// set notes a macro.
func (m *milterMacros) set(name, value string) {
	switch name {
	case macroLogin:
		m.login = value
	case macroClient:
		m.client = value
	case macroClientName:
		m.clientName = value
	case macroClientPort:
		m.clientPort = value
	case macroQueueID:
		m.queueID = value
	}
}

// Bounds on a message's texts, in bytes.
const (
	maxMilterText       = 1 << 10
	maxMilterRecipients = 64 << 10 // of all recipients that are kept
)

// step takes a packet, and answers it if it wants an answer. It returns an
// error when the connection is of no more use.
func (s *milterSession) step(kind byte, data []byte) error {
	switch kind {
	case packetNegotiate:
		return s.negotiate(data)
	case packetMacro:
		return s.macro(data)
	case packetMail:
		return s.mail(data)
	case packetRecipient:
		return s.rcpt(data)
	case packetHeader:
		s.header(data)
		return nil
	case packetEnd:
		return s.end()
	case packetAbort, packetQuitNew:
		s.begin()
		return nil
	case packetQuit:
		return io.EOF
	}
	return errMalformed
}

// negotiate agrees on the version of the protocol, on what a filter may do, on
// what is left out, and on the macros.
func (s *milterSession) negotiate(data []byte) error {
	if len(data) < 12 {
		return errMalformed
	}
	version := binary.BigEndian.Uint32(data)
	actions := milter.OptAction(binary.BigEndian.Uint32(data[4:]))
	protocol := milter.OptProtocol(binary.BigEndian.Uint32(data[8:]))
	if version < milter.MaxServerProtocolVersion || actions&milterActions != milterActions || protocol&milterProtocol != milterProtocol {
		s.tooOld.Do(func() {
			if s.Log != nil {
				s.Log.Error("gate: the mail server offers a milter too little: set milter_protocol = 6",
					"version", version, "actions", actions.String(), "protocol", protocol.String())
			}
		})
		return errMalformed
	}
	return s.conn.send(appendPacket(s.out[:0], packetNegotiate, milterTerms))
}

// noMacro is none of Postfix's. An empty list of macros means its own.
const noMacro = "{none}"

// milterTerms are what is agreed on in each negotiation.
var milterTerms = func() string {
	var b []byte
	for _, n := range []uint32{milter.MaxServerProtocolVersion, uint32(milterActions), uint32(milterProtocol)} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(milter.StageMail))
	b = append(b, strings.Join([]string{macroLogin, macroClient, macroClientName, macroClientPort, macroQueueID}, " ")+"\x00"...)
	b = binary.BigEndian.AppendUint32(b, uint32(milter.StageData))
	b = append(b, noMacro+"\x00"...)
	b = binary.BigEndian.AppendUint32(b, uint32(milter.StageEOM))
	return string(append(b, macroQueueID+"\x00"...))
}()

// macro notes macros. Their data is the letter of the command that they are
// about, and names and values in turn.
func (s *milterSession) macro(data []byte) error {
	if len(data) == 0 {
		return errMalformed
	}
	if data[0] != packetMail && data[0] != packetEnd {
		return nil // not asked for
	}
	s.macros = milterMacros{}
	for rest := data[1:]; len(rest) > 0; {
		name, after, err := cutText(rest)
		if err != nil {
			return err
		}
		value, after, err := cutText(after)
		if err != nil {
			return err
		}
		s.macros.set(name, clip(value))
		rest = after
	}
	return nil
}

// begin forgets the previous message.
func (s *milterSession) begin() {
	s.macros = milterMacros{}
	s.login, s.account, s.sender, s.clientName, s.queueID = "", "", "", "", ""
	s.client = netip.Addr{}
	s.unattended, s.local, s.scripted, s.accepted = false, false, false, 0
	s.recipients = message{recipients: s.recipients.recipients[:0]}
}

// mail begins a message. It is not answered.
func (s *milterSession) mail(data []byte) error {
	sender, _, err := cutText(data)
	if err != nil {
		return err
	}
	m := s.macros
	s.begin()
	s.sender = clip(milter.RemoveAngle(sender))
	s.client, s.clientName, s.queueID = clientAddr(m.client), m.clientName, m.queueID
	s.unattended = m.queueID != ""
	if s.login = m.login; s.login != "" {
		s.account = s.canonical(s.login)
	}
	if s.local = s.unattended && s.login == "" && m.clientPort == "0"; s.local {
		s.client = netip.Addr{} // Postfix pretends one, at port 0
	}
	return nil
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

// rcpt answers to a recipient.
func (s *milterSession) rcpt(data []byte) error {
	now := time.Now()
	to, _, err := cutText(data)
	if err != nil {
		return err
	}
	to = milter.RemoveAngle(to)
	if s.unattended {
		s.add(to) // Postfix takes a refusal for a mistake in its configuration
		return s.another(now)
	}
	verdict := s.verdict(now)
	answer := s.recipient(verdict, now)
	switch {
	case answer != Dunno:
		return s.reply(0, verdict, answer, now)
	case verdict == nil && s.login == "":
		return s.reply(packetAccept, nil, Dunno, now) // nobody's mail: Postfix need not ask about it again
	}
	s.add(to)
	return s.another(now)
}

// another lets a recipient pass. What comes next is another, or the macros of
// DATA, which are none: those alone are not worth being woken for. Nothing that
// short wants an answer, but the end, and Postfix names a macro before it.
func (s *milterSession) another(now time.Time) error {
	err := s.reply(packetContinue, nil, Dunno, now)
	s.conn.passOver(packetHead + 1)
	return err
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

// header looks for the script that sent a local program's mail. Only the first
// header that names one counts, also if it cannot be read: PHP writes its own
// before the program's. It is not answered.
func (s *milterSession) header(data []byte) {
	if !s.local || s.scripted {
		return
	}
	s.scripted = true
	name, value, _ := bytes.Cut(data, []byte{0})
	value, _, _ = bytes.Cut(value, []byte{0}) // a long one was cut short
	if uid, script, ok := readScript(string(name), string(value)); ok {
		s.account = s.script(uid, script)
	}
}

func (s *milterSession) script(uid int, name string) string {
	if s.Script == nil {
		return "script:" + name
	}
	return s.Script(uid, name)
}

// end answers to a message, and tells what was seen of it.
func (s *milterSession) end() error {
	now := time.Now()
	verdict := s.verdict(now)
	answer := s.whole(verdict, now)
	if err := s.reply(packetAccept, verdict, answer, now); err != nil {
		return err
	}
	if s.Seen != nil && s.account != "" {
		s.Seen(s.request(answer, now))
	}
	s.begin()
	return nil
}

// whole is the answer to the whole message.
func (s *milterSession) whole(verdict *Verdict, now time.Time) Answer {
	switch {
	case verdict.throttles() && s.PolicyCharges && !s.unattended:
		return Dunno
	case verdict.throttles() && s.LocalWaits && s.unattended:
		return Hold
	}
	answer := verdict.Weigh(s.accepted-s.recipients.charged, now)
	if s.unattended {
		answer = min(answer, Hold)
	}
	return answer
}

// reply sends an answer and counts it. One that lets pass is pass.
func (s *milterSession) reply(pass byte, verdict *Verdict, answer Answer, asked time.Time) error {
	out := s.out[:0]
	switch answer {
	case Dunno:
		out = appendPacket(out, pass, "")
	case Hold:
		out = appendPacket(out, packetQuarantine, milterutil.NewlineToSpace(verdict.Text)+"\x00")
		out = appendPacket(out, packetAccept, "")
	default:
		refused := refusal(answer, verdict.Text).Response()
		out = appendPacket(out, byte(refused.Code), string(refused.Data))
	}
	s.out = out
	if answer != Dunno {
		verdict.given.Add(1)
	}
	if err := s.conn.send(out); err != nil {
		return err
	}
	s.counters.answers[answer].Add(1)
	s.counters.latency.observe(time.Since(asked))
	return nil
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

func (s *milterSession) request(answer Answer, now time.Time) Request {
	queueID := s.queueID
	if s.macros.queueID != "" {
		queueID = s.macros.queueID
	}
	return Request{
		Time: now, State: stateEnd, QueueID: queueID, Login: s.login, Account: s.account, Sender: s.sender,
		Client: s.client, ClientName: s.clientName, Answer: answer, RecipientCount: s.accepted,
		Recipients: splitLines(string(s.recipients.recipients), s.recipients.n),
	}
}
