package notify

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
)

// A mailServer is a real SMTP server in this process.
type mailServer struct {
	addr  string
	roots *x509.CertPool
	reply func(step, arg string) error // nil: everything is taken
	drop  bool                         // closes the connection instead of answering DATA
	plain bool                         // offers no STARTTLS and takes passwords without it
	login bool                         // offers AUTH LOGIN only

	mu       sync.Mutex
	messages []string
	said     []string // hello, from, rcpt
}

func (s *mailServer) start(t *testing.T, implicit bool) *mailServer {
	t.Helper()
	certificate, roots := selfMade(t)
	s.roots = roots
	server := smtp.NewServer(s)
	server.Domain, server.AllowInsecureAuth = "mx.shop.test", s.plain
	server.ErrorLog = discard{}
	server.ReadTimeout, server.WriteTimeout = 10*time.Second, 10*time.Second
	if !s.plain {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	if implicit {
		l = tls.NewListener(l, server.TLSConfig)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		l.Close() // Close before Serve does not end Serve
		<-done
	})
	return s
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

func (s *mailServer) ask(step, arg string) error {
	s.mu.Lock()
	s.said = append(s.said, step+" "+arg)
	s.mu.Unlock()
	if s.reply == nil {
		return nil
	}
	return s.reply(step, arg)
}

func (s *mailServer) got() (messages, said []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages, s.said
}

func (s *mailServer) NewSession(c *smtp.Conn) (smtp.Session, error) {
	if err := s.ask("hello", c.Hostname()); err != nil {
		return nil, err
	}
	return &mailSession{s, c}, nil
}

type mailSession struct {
	*mailServer
	conn *smtp.Conn
}

func (s *mailSession) AuthMechanisms() []string {
	if s.login {
		return []string{sasl.Login}
	}
	return []string{sasl.Plain}
}

func (s *mailSession) Auth(mech string) (sasl.Server, error) {
	check := func(user, password string) error {
		if user != "vedetta" || password != "s3cret" {
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "authentication failed"}
		}
		return s.ask("auth", mech)
	}
	if mech == sasl.Login {
		return &loginServer{check: check}, nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
}

// loginServer is AUTH LOGIN, of which go-sasl has the client only.
type loginServer struct {
	check func(user, password string) error
	user  string
}

func (l *loginServer) Next(response []byte) ([]byte, bool, error) {
	if l.user == "" {
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }
func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	return s.ask("from", from)
}
func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error { return s.ask("rcpt", to) }
func (s *mailSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.messages = append(s.messages, string(raw))
	s.mu.Unlock()
	if s.drop {
		s.conn.Close()
	}
	return s.ask("data", "")
}

// selfMade returns a certificate for this machine and the pool that trusts it.
func selfMade(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.shop.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func (s *mailServer) channel() Mail {
	return Mail{
		Addr: s.addr, Roots: s.roots, User: "vedetta", Password: "s3cret",
		From: "Vedetta <vedetta@shop.test>", To: "Duty <duty@shop.test>", Timeout: 10 * time.Second,
	}
}

func TestMailIsDelivered(t *testing.T) {
	for _, c := range []struct {
		name     string
		server   *mailServer
		implicit bool
		change   func(*Mail)
		want     []string
	}{
		{
			"STARTTLS and PLAIN", &mailServer{}, false, func(*Mail) {},
			[]string{"hello localhost", "hello shop.test", "auth PLAIN", "from vedetta@shop.test", "rcpt duty@shop.test", "data "},
		},
		{
			"implicit TLS", &mailServer{}, true, func(m *Mail) { m.TLS, m.Hello = ImplicitTLS, "watch.shop.test" },
			[]string{"hello watch.shop.test", "auth PLAIN", "from vedetta@shop.test", "rcpt duty@shop.test", "data "},
		},
		{
			"LOGIN where there is no PLAIN", &mailServer{login: true}, true, func(m *Mail) { m.TLS = ImplicitTLS },
			[]string{"hello shop.test", "auth LOGIN", "from vedetta@shop.test", "rcpt duty@shop.test", "data "},
		},
		{
			"a relay on this machine", &mailServer{plain: true}, false, func(m *Mail) { m.TLS, m.User = NoTLS, "" },
			[]string{"hello shop.test", "from vedetta@shop.test", "rcpt duty@shop.test", "data "},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.server.start(t, c.implicit)
			channel := s.channel()
			c.change(&channel)
			if err := channel.Send(t.Context(), blocked()); err != nil {
				t.Fatal(err)
			}
			messages, said := s.got()
			if diff := cmp.Diff(said, c.want); diff != "" {
				t.Errorf("dialogue (-got +want):\n%s", diff)
			}
			want, _ := channel.Render(blocked())
			if diff := cmp.Diff(messages, []string{string(want)}); diff != "" {
				t.Errorf("message (-got +want):\n%s", diff)
			}
		})
	}
}

func TestMailIsRefused(t *testing.T) {
	at := func(step string, code int) func(string, string) error {
		return func(s, _ string) error {
			if s != step {
				return nil
			}
			return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: "not\x1b[2Jnow"}
		}
	}
	for _, c := range []struct {
		name      string
		server    *mailServer
		change    func(*Mail)
		permanent bool
		want      string // in the error
	}{
		{"greylisted", &mailServer{reply: at("rcpt", 451)}, func(*Mail) {}, false, "451"},
		{"no such user", &mailServer{reply: at("rcpt", 550)}, func(*Mail) {}, true, "550"},
		{"sender refused", &mailServer{reply: at("from", 553)}, func(*Mail) {}, true, "553"},
		{"content refused", &mailServer{reply: at("data", 554)}, func(*Mail) {}, true, `not\x1b[2Jnow`},
		{"disk full", &mailServer{reply: at("data", 452)}, func(*Mail) {}, false, "452"},
		{"goes away after DATA", &mailServer{drop: true}, func(*Mail) {}, false, "mail to duty@shop.test"},
		{"wrong password", &mailServer{}, func(m *Mail) { m.Password = "wr0ng" }, true, "535"},
		{"no STARTTLS", &mailServer{plain: true}, func(*Mail) {}, false, "STARTTLS"},
		{"unknown certificate", &mailServer{}, func(m *Mail) { m.Roots = x509.NewCertPool() }, false, "certificate"},
		{"password in the clear", &mailServer{plain: true}, func(m *Mail) {
			m.TLS, m.Addr = NoTLS, "192.0.2.1:25"
		}, true, "without TLS"},
		{"unknown mode", &mailServer{}, func(m *Mail) { m.TLS = "maybe" }, true, `unknown TLS mode "maybe"`},
		{"no server", &mailServer{}, func(m *Mail) { m.Addr = "127.0.0.1:1" }, false, "127.0.0.1:1"},
		{"no port", &mailServer{}, func(m *Mail) { m.Addr = "127.0.0.1" }, true, "missing port"},
		{"no recipient", &mailServer{}, func(m *Mail) { m.To = "" }, true, "mail: to"},
		{"header in From", &mailServer{}, func(m *Mail) { m.From = "a@shop.test\r\nBcc: b@shop.test" }, true, "mail: from"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.server.start(t, false)
			channel := s.channel()
			c.change(&channel)
			err := channel.Send(t.Context(), blocked())
			if err == nil {
				t.Fatal("taken")
			}
			if errors.Is(err, ErrPermanent) != c.permanent {
				t.Errorf("permanent is %v, want %v: %v", !c.permanent, c.permanent, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want it to hold %q", err, c.want)
			}
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("the password is in %q", err)
			}
		})
	}
}

// raw serves one connection with f.
func raw(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		f(conn)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestMailServerHangs(t *testing.T) {
	hang := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	greetThenHang := func(conn net.Conn) { fmt.Fprint(conn, "220 mx.shop.test\r\n"); hang(conn) }
	for name, f := range map[string]func(net.Conn){"before the greeting": hang, "after it": greetThenHang} {
		t.Run(name, func(t *testing.T) {
			channel := (&mailServer{addr: raw(t, f)}).channel()
			channel.TLS, channel.Timeout = NoTLS, 50*time.Millisecond
			err := channel.Send(t.Context(), blocked())
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrPermanent) {
				t.Errorf("got %v, want a temporary end of time", err)
			}
		})
	}
}

func TestMailIsCancelled(t *testing.T) {
	for _, mode := range []TLSMode{StartTLS, ImplicitTLS, NoTLS} {
		ctx, cancel := context.WithCancel(t.Context())
		addr := raw(t, func(conn net.Conn) { cancel(); _, _ = io.Copy(io.Discard, conn) })
		channel := (&mailServer{addr: addr}).channel()
		channel.TLS, channel.Timeout = mode, time.Hour
		if err := channel.Send(ctx, blocked()); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", mode, err)
		}
	}
}

func TestMailServerTalksWithoutEnd(t *testing.T) {
	addr := raw(t, func(conn net.Conn) {
		line := []byte("220-" + strings.Repeat("x", 500) + "\r\n")
		for {
			if _, err := conn.Write(line); err != nil {
				return
			}
		}
	})
	channel := (&mailServer{addr: addr}).channel()
	channel.TLS = NoTLS
	err := channel.Send(t.Context(), blocked())
	if err == nil || !strings.Contains(err.Error(), "said too much") {
		t.Errorf("got %v", err)
	}
}

// checkMail fails unless raw is a mail as [Mail.Render] promises.
func checkMail(t *testing.T, raw []byte, m Message) {
	t.Helper()
	for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
		if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
			t.Errorf("line of %d bytes: %.100q", len(line), line)
		}
	}
	for i, c := range raw {
		if c >= 0x80 || c < ' ' && c != '\r' && c != '\n' {
			t.Fatalf("byte %d is %#x", i, c)
		}
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{
		"Date": true, "From": true, "To": true, "Subject": true, "Message-Id": true, "In-Reply-To": true, "References": true,
		"Importance": true, "Auto-Submitted": true, "X-Auto-Response-Suppress": true, "Mime-Version": true,
		"Content-Type": true, "Content-Transfer-Encoding": true,
	}
	for name, values := range parsed.Header {
		if !known[name] || len(values) != 1 {
			t.Errorf("header %s: %q", name, values)
		}
	}
	if _, err := parsed.Header.Date(); err != nil {
		t.Error(err)
	}
	if id := parsed.Header.Get("Message-Id"); !strings.HasPrefix(id, "<") || strings.ContainsAny(id, " \t") || strings.Count(id, "@") != 1 {
		t.Errorf("Message-ID: %q", id)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
	if err != nil {
		t.Error(err)
	}
	if want := strings.Join(strings.Fields("[vedetta] "+m.Clean().Title), " "); strings.Join(strings.Fields(subject), " ") != want {
		t.Errorf("subject %q, want %q", subject, want)
	}
	var r io.Reader = parsed.Body
	if parsed.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		r = quotedprintable.NewReader(r)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(strings.ReplaceAll(string(text), "\r\n", "\n"), m.Text()); diff != "" {
		t.Errorf("body (-got +want):\n%s", diff)
	}
}

func FuzzMail(f *testing.F) {
	f.Add("i-1/block", "i-1/observe", "alice@shop.test: blocked", "alice@shop.test", "9 of 9 recipients never written to before", "vedetta release alice@shop.test", 9.1, int64(1774000807))
	f.Add("", "", "a\r\nBcc: b@shop.test\r\n\r\nbody", "a\x1b]0;x\x07@shop.test", "\u202etxet", "x\n.\n", -1.0, int64(0))
	f.Add("ü@x>", "\x00", "=?utf-8?q?=1b[2J?=", "é", strings.Repeat("W", 3000), "\xff\xfe", 1e300, int64(-1<<60))
	f.Add("a.b", "<@>", strings.Repeat("é ", 300), "", strings.Repeat("word ", 900), strings.Repeat("é", 900), 0.0, int64(1)<<60)
	channel := Mail{From: "vedetta@shop.test", To: "duty@shop.test"}
	f.Fuzz(func(t *testing.T, id, thread, title, subject, text, command string, score float64, seconds int64) {
		m := Message{
			ID: id, Thread: thread, Type: title, Time: time.Unix(seconds, 0), Severity: Severity(subject), Title: title, Subject: subject,
			What: text, Done: title, Undo: []string{command, text},
			Evidence: []Evidence{{Kind: subject, Text: text, Score: score}}, Facts: []Fact{{Name: title, Value: text}},
		}
		for _, m := range []Message{m, Digest([]Row{{Message: m}, {Message: m}})} {
			raw, err := channel.Render(m)
			if err != nil {
				t.Fatal(err)
			}
			checkMail(t, raw, m)
			if diff := cmp.Diff(m.Clean().Clean(), m.Clean()); diff != "" {
				t.Errorf("cleaned twice (-got +want):\n%s", diff)
			}
		}
	})
}
