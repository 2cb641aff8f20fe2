package bed

import (
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// patience is how long a client waits for any one answer.
const patience = 30 * time.Second

// dial connects as an ordinary client would.
func dial(address string) (*smtp.Client, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	return newClient(conn), nil
}

func newClient(conn net.Conn) *smtp.Client {
	c := smtp.NewClient(conn)
	c.CommandTimeout, c.SubmissionTimeout = patience, patience
	return c
}

// greets says whether an SMTP server greets at the address.
func greets(address string) error {
	c, err := dial(address)
	if err != nil {
		return err
	}
	if err := c.Hello("ready.test"); err != nil {
		return errors.Join(err, c.Close())
	}
	return c.Quit()
}

// Send logs in at the submission port, sends one message and logs out. What
// the server refused with is a *smtp.SMTPError of package
// github.com/emersion/go-smtp, with code and text.
func (b *Bed) Send(login, password, from string, rcpts ...string) error {
	s, err := open(b.Submission, login, password)
	if err != nil {
		return err
	}
	return errors.Join(s.Send(from, rcpts...), s.Close())
}

// SendInbound delivers one message at the port for strangers, without a login.
func (b *Bed) SendInbound(from string, rcpts ...string) error {
	return sendInbound(b.SMTP, from, rcpts...)
}

// Deliver delivers a message as it is, with lines that end in LF, at the port for
// strangers.
func (b *Bed) Deliver(message, from string, rcpts ...string) error {
	c, err := dial(b.SMTP)
	if err != nil {
		return err
	}
	if err := c.SendMail(from, rcpts, strings.NewReader(strings.ReplaceAll(message, "\n", "\r\n"))); err != nil {
		return errors.Join(err, c.Close())
	}
	return c.Quit()
}

// SendAs delivers one message at the port for strangers as a client with another
// address does, without a login; see Options.Clients and Postfix's XCLIENT_README.
func (b *Bed) SendAs(client, from string, rcpts ...string) error {
	return SendAs(b.SMTP, client, from, rcpts...)
}

// SendAs is [Bed.SendAs] at another port.
func SendAs(address, client, from string, rcpts ...string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	if err := pretend(conn, client); err != nil {
		return errors.Join(err, conn.Close())
	}
	s := &Session{client: newClient(conn)} // a new greeting answers
	return errors.Join(s.Send(from, rcpts...), s.Close())
}

// pretend has Postfix take the connection for one from another address.
func pretend(conn net.Conn, client string) error {
	text := textproto.NewConn(conn)
	if _, _, err := text.ReadResponse(220); err != nil {
		return err
	}
	if err := text.PrintfLine("EHLO vm"); err != nil {
		return err
	}
	if _, _, err := text.ReadResponse(250); err != nil {
		return err
	}
	return text.PrintfLine("XCLIENT NAME=web.hosting.test ADDR=%s", client)
}

func sendInbound(address, from string, rcpts ...string) error {
	c, err := dial(address)
	if err != nil {
		return err
	}
	s := &Session{client: c}
	return errors.Join(s.Send(from, rcpts...), s.Close())
}

// Sendmail sends one message with the sendmail command, as the script of a web
// site does. The user is a system user; the log names its uid.
func (b *Bed) Sendmail(name, from string, rcpts ...string) error {
	return b.SendmailText(name, letter(from, rcpts), from, rcpts...)
}

// SendmailText is Sendmail with a message of one's own.
func (b *Bed) SendmailText(name, message, from string, rcpts ...string) error {
	uid, err := userID(name)
	if err != nil {
		return err
	}
	// The set-gid postdrop would distrust a configuration that
	// /etc/postfix/main.cf does not name if it gained its group only by that.
	gid, err := groupID("postdrop")
	if err != nil {
		return err
	}
	cmd := b.Command("sendmail", append([]string{"-i", "-f", from, "--"}, rcpts...)...)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(message)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sendmail: %w\n%s", err, out)
	}
	return nil
}

// A Session is an SMTP session in which a user is logged in.
type Session struct {
	client *smtp.Client
	closed bool
}

// Session logs a user of the bed in and stays logged in until it is closed, at
// the latest by the end of the test.
func (b *Bed) Session(login string) *Session {
	b.t.Helper()
	name, _, _ := strings.Cut(login, "@")
	s, err := open(b.Submission, login, "pw-"+name)
	if err != nil {
		b.t.Fatalf("bed: %s cannot log in: %v", login, err)
	}
	b.sessions = append(b.sessions, s)
	return s
}

func open(address, login, password string) (*Session, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	if err := c.Auth(sasl.NewPlainClient("", login, password)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Session{client: c}, nil
}

// Send sends one message. It fails if any recipient is refused; nothing is
// sent then, and the session can be used again.
func (s *Session) Send(from string, rcpts ...string) error {
	err := s.client.SendMail(from, rcpts, strings.NewReader(letter(from, rcpts)))
	if err != nil {
		_ = s.client.Reset() // a server that hung up has told us by err
	}
	return err
}

// Close logs out.
func (s *Session) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.client.Quit(); err != nil {
		_ = s.client.Close()
	}
	return nil
}

// letter is the text of a message.
func letter(from string, rcpts []string) string {
	return fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: From the test bed\r\nDate: %s\r\n\r\nHello.\r\n",
		from, strings.Join(rcpts, ">, <"), time.Now().Format(time.RFC1123Z))
}
