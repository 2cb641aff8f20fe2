package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// A TLSMode says how a mail connection is encrypted.
type TLSMode string

// The modes. The empty TLSMode reads as StartTLS.
const (
	StartTLS    TLSMode = "starttls" // required: a server that does not offer it gets no mail
	ImplicitTLS TLSMode = "implicit" // TLS from the first byte, port 465
	NoTLS       TLSMode = "none"     // a password is then sent to this machine only
)

// Mail is a channel to one mailbox over an SMTP server. Each person on duty is
// a channel of their own, so that one refused address neither holds up nor
// repeats anybody else's messages.
type Mail struct {
	Addr     string // host:port
	TLS      TLSMode
	Roots    *x509.CertPool // whom to trust; nil: the system's
	User     string         // empty: no authentication
	Password string
	From     string        // "Vedetta <vedetta@shop.test>"
	To       string        // one address
	Hello    string        // our name in EHLO; empty: the domain of From. Before STARTTLS it is always "localhost"
	Timeout  time.Duration // of the whole delivery; 0 means 30 seconds
}

// maxReplies bounds what a server may send us in one session.
const maxReplies = 1 << 20

// Send renders the message and delivers it. Replies of 500 and above are
// permanent errors, everything else that goes wrong is temporary. A server that
// goes away after the message was sent may have it: the message sent again has
// the same Message-ID.
func (c Mail) Send(ctx context.Context, m Message) error {
	from, to, err := c.addresses()
	if err = cmp.Or(err, c.check()); err != nil {
		return &Error{Permanent: true, Err: err}
	}
	raw, err := c.Render(m)
	if err != nil {
		return &Error{Permanent: true, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, 30*time.Second))
	defer cancel()
	err = c.deliver(ctx, from.Address, to.Address, raw)
	if err == nil {
		return nil
	}
	var reply *smtp.SMTPError
	permanent := errors.As(err, &reply) && reply.Code >= 500
	if reply == nil && ctx.Err() != nil {
		err = ctx.Err() // says more than that the connection was closed
	}
	return &Error{Permanent: permanent, Err: fmt.Errorf("mail to %s over %s: %w", to.Address, c.Addr, err)}
}

func (c Mail) addresses() (from, to *mail.Address, err error) {
	if from, err = mail.ParseAddress(c.From); err != nil {
		return nil, nil, fmt.Errorf("mail: from %q: %w", c.From, err)
	}
	if to, err = mail.ParseAddress(c.To); err != nil {
		return nil, nil, fmt.Errorf("mail: to %q: %w", c.To, err)
	}
	return from, to, nil
}

// check says what is wrong with the settings.
func (c Mail) check() error {
	host, _, err := net.SplitHostPort(c.Addr)
	switch {
	case err != nil:
		return fmt.Errorf("mail: server %q: %w", c.Addr, err)
	case c.TLS != "" && c.TLS != StartTLS && c.TLS != ImplicitTLS && c.TLS != NoTLS:
		return fmt.Errorf("mail: unknown TLS mode %q: want starttls, implicit or none", c.TLS)
	case c.TLS == NoTLS && c.User != "" && !isLoopback(host):
		return fmt.Errorf("mail: the password is not sent to %s without TLS", c.Addr)
	}
	return nil
}

func (c Mail) deliver(ctx context.Context, from, to string, raw []byte) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	// go-smtp allows minutes for each command and for the message has no
	// deadline at all, so the end of ctx closes the connection under it.
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	client, err := c.client(ctx, &limitedConn{Conn: conn, left: maxReplies})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.authenticate(client); err != nil {
		return fmt.Errorf("login as %q: %w", c.User, err)
	}
	if err := client.SendMail(from, []string{to}, bytes.NewReader(raw)); err != nil {
		return err
	}
	_ = client.Quit() // the server has the message, whatever it says now
	return nil
}

// client returns a client that has said hello, over TLS where that is asked for.
func (c Mail) client(ctx context.Context, conn net.Conn) (client *smtp.Client, err error) {
	host, _, _ := net.SplitHostPort(c.Addr) // checked before
	config := &tls.Config{ServerName: host, RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
	switch c.TLS {
	case NoTLS:
		client = smtp.NewClient(conn)
	case ImplicitTLS:
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		client = smtp.NewClient(secure)
	default:
		if client, err = smtp.NewClientStartTLS(conn, config); err != nil {
			return nil, err
		}
	}
	return client, client.Hello(cmp.Or(c.Hello, domain(c.From)))
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (c Mail) authenticate(client *smtp.Client) error {
	switch {
	case c.User == "":
		return nil
	case client.SupportsAuth(sasl.Plain):
		return client.Auth(sasl.NewPlainClient("", c.User, c.Password))
	case client.SupportsAuth(sasl.Login):
		return client.Auth(sasl.NewLoginClient(c.User, c.Password))
	}
	return errors.New("the server offers neither AUTH PLAIN nor AUTH LOGIN")
}

// A limitedConn ends a conversation in which the other side talks without end.
type limitedConn struct {
	net.Conn
	left int
}

func (c *limitedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("the server said too much")
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Render returns the message as an e-mail: RFC 5322, all ASCII, lines of at most
// 998 bytes that end in CRLF. Its Message-ID comes from the message's ID, so
// that one delivered twice can be recognised.
func (c Mail) Render(m Message) ([]byte, error) {
	from, to, err := c.addresses()
	if err != nil {
		return nil, err
	}
	m = m.Clean()
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	header("Date", m.Time.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	header("From", from.String())
	header("To", to.String())
	header("Subject", unstructured("Subject: ", "[vedetta] "+m.Title))
	header("Message-ID", messageID(m.ID, c.From))
	if m.Thread != "" && m.Thread != m.ID {
		header("In-Reply-To", messageID(m.Thread, c.From))
		header("References", messageID(m.Thread, c.From))
	}
	if m.Severity == Critical {
		header("Importance", "high")
	}
	header("Auto-Submitted", "auto-generated") // RFC 3834, section 5
	header("X-Auto-Response-Suppress", "All")  // the same, for Exchange
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	if err := body(&b, m.Text(), header); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// body writes the end of the header and the text: as it is where that is short
// lines of ASCII, else quoted-printable.
func body(b *bytes.Buffer, text string, header func(name, value string)) error {
	if isPlain(text) {
		header("Content-Transfer-Encoding", "7bit")
		b.WriteString("\r\n" + strings.ReplaceAll(text, "\n", "\r\n"))
		return nil
	}
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(b)
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return w.Close()
}

func isPlain(text string) bool {
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > 900 || !isASCII(line) {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// unstructured returns the value of an unstructured header field, folded. What
// is not ASCII becomes encoded words (RFC 2047), and so does a text that holds
// "=?": a stranger's account name must not be decoded into something else.
func unstructured(name, value string) string {
	var b strings.Builder
	if isASCII(value) && !strings.Contains(value, "=?") {
		at := len(name)
		for i, word := range strings.Fields(value) {
			switch {
			case i > 0 && at+1+len(word) > width:
				b.WriteString("\r\n ")
				at = 1
			case i > 0:
				b.WriteString(" ")
				at++
			}
			b.WriteString(word)
			at += len(word)
		}
		return b.String()
	}
	for chunk := range chunks(value, 42) { // 42 bytes are 56 of base64: 68 with the frame
		if b.Len() > 0 {
			b.WriteString("\r\n ")
		}
		b.WriteString("=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(chunk)) + "?=")
	}
	return b.String()
}

// chunks yields s in pieces of at most n bytes that do not cut a character
// (RFC 2047, section 5).
func chunks(s string, n int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(s) > 0 {
			end := min(n, len(s))
			for end < len(s) && !utf8.RuneStart(s[end]) {
				end--
			}
			if !yield(s[:end]) {
				return
			}
			s = s[end:]
		}
	}
}

// messageID makes a Message-ID of an ID; one that holds more than letters,
// digits and / _ - is hashed.
func messageID(id, from string) string {
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/_-", r))
	}
	if id == "" || len(id) > 100 || strings.IndexFunc(id, odd) >= 0 {
		sum := sha256.Sum256([]byte(id))
		id = hex.EncodeToString(sum[:16])
	}
	return "<" + id + "@" + domain(from) + ">"
}

// domain returns the domain of an address that parses, else "localhost".
func domain(address string) string {
	a, err := mail.ParseAddress(address)
	if err != nil {
		return "localhost"
	}
	return a.Address[strings.LastIndexByte(a.Address, '@')+1:]
}
