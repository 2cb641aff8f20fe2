//go:build linux

package e2e

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// A hook receives webhooks.
type hook struct {
	addr string // host:port, the same over down and up
	t    testing.TB
	slow time.Duration // before an answer

	mu     sync.Mutex // guards what follows
	server *http.Server
	had    map[string]int    // deliveries by webhook-id
	texts  map[string]string // what each says, title and what was done
}

// newHook starts a receiver.
func newHook(t testing.TB) *hook {
	t.Helper()
	h := &hook{t: t, addr: freePort(t), had: map[string]int{}, texts: map[string]string{}}
	h.up()
	t.Cleanup(h.down)
	return h
}

func (h *hook) up() {
	h.t.Helper()
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.server = &http.Server{Handler: h, ReadHeaderTimeout: patience}
	go h.server.Serve(l)
}

// down lets nobody listen any more.
func (h *hook) down() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server != nil {
		h.server.Close()
		h.server = nil
	}
}

func (h *hook) url() string { return "http://" + h.addr + "/alerts" }

// section is what the configuration says of it.
func (h *hook) section() string {
	return "from_action: observe\nstorm_max: 100000\nwebhook: {url: \"" + h.url() + "\", secret: e2e-webhook-secret}\n"
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the sender was killed
	}
	var m struct {
		Data struct {
			Title, Done, Subject string
			Evidence             []struct{ Text string }
		}
	}
	if err := json.Unmarshal(body, &m); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer time.Sleep(h.slow)
	h.mu.Lock()
	defer h.mu.Unlock()
	id := r.Header.Get("webhook-id")
	h.had[id]++
	h.texts[id] = m.Data.Title + "\n" + m.Data.Done
	for _, e := range m.Data.Evidence {
		h.texts[id] += "\n" + e.Text
	}
}

// deliveries counts what came, by webhook-id.
func (h *hook) deliveries() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.had)
}

// told says whether a message came that contains all the words.
func (h *hook) told(words ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, text := range h.texts {
		if containsAll(text, words) {
			return true
		}
	}
	return false
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// A postbox is the mail server of the people on duty.
type postbox struct {
	addr string

	mu    sync.Mutex // guards mails
	mails []string
}

func newPostbox(t testing.TB) *postbox {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &postbox{addr: l.Addr().String()}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return posting{p}, nil }))
	server.Domain = "office.test"
	server.ReadTimeout, server.WriteTimeout = time.Minute, time.Minute
	server.MaxMessageBytes = 1 << 20
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return p
}

func (p *postbox) got(words ...string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.mails {
		if containsAll(m, words) {
			return true
		}
	}
	return false
}

type posting struct{ *postbox }

func (posting) Mail(string, *smtp.MailOptions) error { return nil }
func (posting) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (posting) Reset()                               {}
func (posting) Logout() error                        { return nil }

func (p posting) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mails = append(p.mails, string(text))
	return nil
}
