package bed

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
)

// The domains of the Internet around the bed, each with a server of its own.
const (
	OK   = "ok.test"   // accepts everything
	Also = "also.test" // so does it
	Hard = "hard.test" // 550 5.1.1 to every recipient
	Soft = "soft.test" // 451 4.7.1 to every recipient
	Busy = "busy.test" // 421 4.7.1 to every recipient
	Spam = "spam.test" // 554 5.7.1 to every message
	Dead = "dead.test" // nobody listens
)

var (
	hardReply = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "User unknown in virtual mailbox table"}
	softReply = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Greylisted, try again later"}
	busyReply = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Too many messages from your address, try again later"}
	spamReply = &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Message rejected: listed at bl.example (spam)"}
)

// A Mail is what a sink was given, whether it took it or not.
type Mail struct {
	Time time.Time
	From string
	To   []string
	Data []byte // empty if no recipient was accepted
}

// Received returns what arrived so far for a domain of the Internet.
func (b *Bed) Received(domain string) []Mail {
	b.t.Helper()
	s := b.sinks[domain]
	if s == nil {
		b.t.Fatalf("bed: no sink for %q", domain)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// A sink is the mail server of one domain of the Internet.
type sink struct {
	atRcpt, atData error // answers, nil to accept
	port           int
	server         *smtp.Server

	mu    sync.Mutex
	mails []Mail
}

func (b *Bed) startSinks() (err error) {
	b.sinks = map[string]*sink{
		OK:   {},
		Also: {},
		Hard: {atRcpt: hardReply},
		Soft: {atRcpt: softReply},
		Busy: {atRcpt: busyReply},
		Spam: {atData: spamReply},
	}
	for domain, s := range b.sinks {
		if err := s.start("mx." + domain); err != nil {
			return err
		}
	}
	b.deadPort, b.dead, err = deadPort()
	return err
}

func (s *sink) start(name string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	s.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &delivery{sink: s}, nil
	}))
	s.server.Domain = name
	s.server.MaxMessageBytes = 1 << 20
	s.server.MaxRecipients = 1000
	s.server.ReadTimeout = time.Minute
	s.server.WriteTimeout = time.Minute
	s.server.ErrorLog = silent{} // a peer that hangs up is nobody's mistake
	go func() { _ = s.server.Serve(l) }()
	return nil
}

func (s *sink) close() {
	if s.server != nil {
		_ = s.server.Close()
	}
}

func (s *sink) record(m Mail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Time = time.Now()
	s.mails = append(s.mails, m)
}

// A delivery is one SMTP session at a sink.
type delivery struct {
	*sink
	mail Mail
}

func (d *delivery) Mail(from string, _ *smtp.MailOptions) error {
	d.mail = Mail{From: from}
	return nil
}

func (d *delivery) Rcpt(to string, _ *smtp.RcptOptions) error {
	if d.atRcpt != nil {
		d.record(Mail{From: d.mail.From, To: []string{to}})
		return d.atRcpt
	}
	d.mail.To = append(d.mail.To, to)
	return nil
}

func (d *delivery) Data(r io.Reader) (err error) {
	if d.mail.Data, err = io.ReadAll(r); err != nil {
		return err
	}
	d.record(d.mail)
	return d.atData
}

func (d *delivery) Reset()        { d.mail = Mail{} }
func (d *delivery) Logout() error { return nil }

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// deadPort keeps a port that refuses connections: bound, so that nobody else
// gets it, and never listened on.
func deadPort() (port, fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return 0, -1, fmt.Errorf("bed: %w", err)
	}
	syscall.CloseOnExec(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, -1, errors.Join(err, syscall.Close(fd))
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, -1, errors.Join(err, syscall.Close(fd))
	}
	return addr.(*syscall.SockaddrInet4).Port, fd, nil
}

func (b *Bed) freeDeadPort() {
	if b.deadPort != 0 {
		_ = syscall.Close(b.dead)
		b.deadPort = 0
	}
}

// Subject is the subject of a mail that a sink took, empty if it has none.
func (m Mail) Subject() string {
	for _, line := range strings.Split(string(m.Data), "\r\n") {
		if line == "" {
			break
		}
		if name, value, ok := strings.Cut(line, ": "); ok && strings.EqualFold(name, "Subject") {
			return value
		}
	}
	return ""
}
