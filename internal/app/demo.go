package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/web"
)

// DemoOptions says where the story is told and whether it ends by itself.
type DemoOptions struct {
	Out  io.Writer
	Once bool // end after the story instead of serving on
}

// Demo runs the wiring of serve in a sandbox of its own: a temporary
// directory and loopback ports. A shipped mail log is fed through the real
// tail, and the gate is asked as Postfix asks it.
func Demo(ctx context.Context, o DemoOptions) error {
	dir, err := os.MkdirTemp("", "vedetta-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	t := &storyOut{out: o.Out}
	inbox, err := newInbox(t)
	if err != nil {
		return err
	}
	defer inbox.Close()

	ready := make(chan Ready, 1)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return Run(gctx, Options{
			Config:   demoConfig(dir, inbox.addr),
			Log:      slog.New(slog.DiscardHandler),
			Registry: prometheus.NewRegistry(),
			Ready:    func(r Ready) { ready <- r },
		})
	})
	g.Go(func() error {
		select {
		case r := <-ready:
			err := (&story{storyOut: t, dir: dir, ready: r, inbox: inbox}).tell(gctx)
			if err == nil && !o.Once {
				t.say("Serving until you press Ctrl-C: http://%s/metrics and /healthz", r.API)
				<-gctx.Done()
			}
			stop()
			return err
		case <-gctx.Done():
			return nil
		}
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// demoConfig differs from a new installation's in its places and in that it
// enforces.
func demoConfig(dir, mailServer string) config.Config {
	c := config.Default()
	c.Mode = config.ModeEnforce
	c.State = dir
	c.Hostname = "mx1"
	c.Logs = []config.Log{{Path: filepath.Join(dir, "mail.log"), TimeZone: "UTC"}}
	c.Gate.Listen = []string{"inet:127.0.0.1:0"}
	c.API.Listen = "127.0.0.1:0"
	c.Notify.From = "block"
	c.Notify.Mail.Server = mailServer
	c.Notify.Mail.TLS = "none"
	c.Notify.Mail.From = "vedetta@mx1.example"
	c.Notify.Mail.To = []string{"duty@provider.example"}
	return c
}

// A storyOut prints the story; several goroutines speak.
type storyOut struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func (t *storyOut) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, format+"\n", args...)
}

// event prints a line of the story with its time.
func (t *storyOut) event(what, format string, args ...any) {
	t.say("%s  %-9s %s", time.Now().Format(time.TimeOnly), what, fmt.Sprintf(format, args...))
}

// block prints an indented text.
func (t *storyOut) block(text string) {
	for line := range strings.Lines(text) {
		t.say("    %s", clean(strings.TrimRight(line, "\r\n")))
	}
}

// hijacked is the account that goes bad in the shipped log.
const hijacked = "luca@bakery.example"

// A story is the order in which the demo shows things.
type story struct {
	*storyOut
	dir   string
	ready Ready
	inbox *inbox

	mu       sync.Mutex // guards what follows
	sent     int        // messages of the hijacked account that left since it went bad
	held     int        // that were held
	refusals int
	after    int // accepted messages of others after the block
}

func (s *story) tell(ctx context.Context) error {
	s.say("Vedetta watches a small mail server. Everything here is on this machine: %s", s.dir)
	s.say("Three working days of six mailboxes are read first; then you see mail as it is sent.\n")
	g, gctx := errgroup.WithContext(ctx)
	p := &player{path: filepath.Join(s.dir, "mail.log"), gate: "inet:" + s.ready.Gate[0].String(), asked: s.asked}
	g.Go(func() error { return p.play(gctx) })
	g.Go(func() error { return s.watch(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	return s.end(ctx)
}

// asked tells of a message that the gate was asked about.
func (s *story) asked(m *played) {
	foreign := m.login == hijacked && !strings.Contains(m.client, "192.0.2.")
	to := strings.Join(m.recipients, ", ")
	s.mu.Lock()
	defer s.mu.Unlock()
	verb, text, _ := strings.Cut(m.answer, " ")
	switch {
	case verb == "REJECT" || verb == "DEFER":
		if s.refusals++; s.refusals <= 3 {
			s.event("refused", "%s to %s: %s", m.login, to, text)
		}
	case !foreign:
		if s.refusals > 0 {
			s.after++
		}
		s.event("ordinary", "%s to %s", m.login, to)
	case verb == "HOLD":
		s.held++
		s.event("held", "%s to %s: kept in the queue", m.login, to)
	default:
		if s.sent++; s.sent == 1 {
			s.event("hijack", "somebody else who knows the password of %s logs in from %s", m.login, m.client)
		}
		s.event("hijack", "%s to %s", m.login, to)
	}
}

// watch prints what Vedetta itself writes in its journal, until the hijacked
// account was blocked and people were told.
func (s *story) watch(ctx context.Context) error {
	client := s.client()
	shown := map[string]bool{}
	for {
		rows, err := client.Journal(ctx, hijacked, 50)
		if err != nil {
			return err
		}
		for i := len(rows) - 1; i >= 0; i-- {
			key := rows[i].What + rows[i].Time.String()
			if shown[key] {
				continue
			}
			shown[key] = true
			if rows[i].Action == "" || rows[i].Why == "" {
				continue
			}
			s.event("VEDETTA", "%s %s: %s", rows[i].Action, rows[i].Subject, clean(rows[i].Why))
		}
		if s.inbox.received() > 0 {
			return nil
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *story) end(ctx context.Context) error {
	why, err := s.client().Why(ctx, hijacked)
	if err != nil {
		return err
	}
	s.say("\nThe mail that the people on duty received:\n")
	s.block(s.inbox.first())
	s.say("\n$ vedetta why %s\n", hijacked)
	s.block(strings.Join(why.Text, "\n"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say("\nMessages of the hijacked mailbox: %d left, %d held, %d refused. Its neighbours sent %d after the block.",
		s.sent, s.held, s.refusals, s.after)
	if s.refusals == 0 {
		return errors.New("demo: the hijacked account was not refused; this is a bug, please report it")
	}
	return nil
}

func (s *story) client() *web.Client {
	return &web.Client{Base: "http://" + s.ready.API.String(), Token: s.ready.Token}
}

// An inbox is the mail server of the people on duty: it keeps what it gets.
type inbox struct {
	addr   string
	server *smtp.Server
	story  *storyOut

	mu       sync.Mutex // guards messages
	messages []string
}

func newInbox(out *storyOut) (*inbox, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	in := &inbox{addr: l.Addr().String(), story: out}
	in.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return inboxSession{in}, nil }))
	in.server.Domain = "provider.example"
	in.server.MaxMessageBytes = 1 << 20
	in.server.MaxRecipients = 10
	in.server.ReadTimeout = 30 * time.Second
	in.server.WriteTimeout = 30 * time.Second
	in.server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	go in.server.Serve(l)
	return in, nil
}

func (in *inbox) Close() error { return in.server.Close() }

func (in *inbox) received() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.messages)
}

func (in *inbox) first() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.messages[0]
}

type inboxSession struct{ in *inbox }

func (inboxSession) Mail(string, *smtp.MailOptions) error { return nil }
func (inboxSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (inboxSession) Reset()                               {}
func (inboxSession) Logout() error                        { return nil }

func (s inboxSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.in.mu.Lock()
	s.in.messages = append(s.in.messages, string(text))
	s.in.mu.Unlock()
	s.in.story.event("alert", "a mail reaches the people on duty")
	return nil
}
