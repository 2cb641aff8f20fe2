package enforce

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A receiver is a service that verifies what it is sent, as the Standard
// Webhooks specification says, and answers with its statuses in turn.
type receiver struct {
	*httptest.Server
	statuses []int // the last one again and again; 0 hangs up

	mu   sync.Mutex
	ids  []string
	last map[string]string
	kind string
}

func startReceiver(t *testing.T, secret string, statuses ...int) *receiver {
	r := &receiver{statuses: statuses}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		id, timestamp := req.Header.Get("webhook-id"), req.Header.Get("webhook-timestamp")
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
		if got := req.Header.Get("webhook-signature"); err != nil || got != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
			t.Errorf("the signature is %q", got)
		}
		var p struct {
			Type      string
			Timestamp time.Time
			Data      map[string]string
		}
		if err := json.Unmarshal(body, &p); err != nil || p.Timestamp.IsZero() || req.Method != http.MethodPost {
			t.Errorf("%s %s: %v", req.Method, body, err)
		}
		r.mu.Lock()
		r.kind, r.last = p.Type, p.Data
		r.ids = append(r.ids, id)
		status := r.statuses[min(len(r.ids), len(r.statuses))-1]
		r.mu.Unlock()
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write(body) // some repeat it
	}))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate())
	return pool
}

func TestWebhookPasswords(t *testing.T) {
	const secret = "k7mp-ab2c-wxyz-2345"
	for _, tt := range []struct {
		statuses []int
		tries    int
		ok       bool
		certain  bool // that nothing was changed
	}{
		{[]int{200}, 1, true, false},
		{[]int{204}, 1, true, false},
		{[]int{503, 429, 200}, 3, true, false},
		{[]int{0, 200}, 2, true, false},
		{[]int{404}, 1, false, true},
		{[]int{302}, 1, false, true},
		{[]int{500}, 4, false, false},
		{[]int{0}, 4, false, false},
		{[]int{502, 409}, 2, false, false}, // the first may have got through
	} {
		t.Run(fmt.Sprint(tt.statuses), func(t *testing.T) {
			t.Parallel()
			r := startReceiver(t, "key", tt.statuses...)
			w := WebhookPasswords{URL: strings.Replace(r.URL, "https://", "https://user:tokentoken@", 1) + "/hook?token=tokentoken", Secret: "key", Roots: r.roots()}
			err := w.Change(t.Context(), "alice@shop.test", secret)
			if (err == nil) != tt.ok || errors.Is(err, ErrUnchanged) != tt.certain {
				t.Errorf("got %v", err)
			}
			if err != nil && (leaks(err.Error(), secret) || leaks(err.Error(), "tokentoken")) {
				t.Errorf("the error shows too much: %v", err)
			}
			if len(r.ids) != tt.tries {
				t.Errorf("%d tries, want %d", len(r.ids), tt.tries)
			}
			for _, id := range r.ids {
				if id != r.ids[0] || leaks(id, secret) || id == "" {
					t.Errorf("the ids are %q", r.ids)
				}
			}
			want := map[string]string{"account": "alice@shop.test", "user": "alice", "domain": "shop.test", "password": secret}
			if r.kind != "password.change" || fmt.Sprint(r.last) != fmt.Sprint(want) {
				t.Errorf("it was sent %s %v", r.kind, r.last)
			}
		})
	}
}

func TestWebhookHostile(t *testing.T) {
	r := startReceiver(t, "key", 200)
	w := WebhookPasswords{URL: r.URL, Secret: "key", Roots: r.roots()}
	for _, account := range hostileAccounts {
		before := len(r.ids)
		err := w.Change(t.Context(), account, NewPassword().Reveal())
		if sent := len(r.ids) > before; sent != (err == nil) || sent && r.last["account"] != account || !sent && !errors.Is(err, ErrUnchanged) {
			t.Errorf("%.40q: %v, sent %.40q", account, err, r.last["account"])
		}
	}
	for _, password := range append(refusedPasswords, hostilePasswords...) {
		if err := w.Change(t.Context(), "alice@shop.test", password); err == nil && r.last["password"] != password {
			t.Errorf("%q became %q", password, r.last["password"])
		}
	}
}

func TestWebhookCheck(t *testing.T) {
	for url, want := range map[string]bool{
		"https://panel.test/hook": true, "http://127.0.0.1:8080/hook": true, "http://localhost/": true, "http://[::1]/": true,
		"http://panel.test/hook": false, "ftp://panel.test": false, "panel.test": false, "": false, "https://": false, "https://%zz": false,
	} {
		if got := (WebhookPasswords{URL: url, Secret: "key"}).Check() == nil; got != want {
			t.Errorf("%q: %v", url, got)
		}
	}
	for _, secret := range []string{"", "whsec_", "whsec_!!!"} {
		if err := (WebhookPasswords{URL: "https://panel.test", Secret: secret}).Check(); err == nil || strings.Contains(err.Error(), "!!!") {
			t.Errorf("secret %q: %v", secret, err)
		}
	}
}

// Nobody to talk to, or somebody whom we do not trust: nothing was changed.
func TestWebhookUnreachable(t *testing.T) {
	w := WebhookPasswords{URL: fmt.Sprintf("https://127.0.0.1:%d/", freeTestPort(t)), Secret: "key"}
	if err := w.Change(t.Context(), "alice@shop.test", "secret"); !errors.Is(err, ErrUnchanged) {
		t.Errorf("nobody listens: %v", err)
	}
	r := startReceiver(t, "key", 200)
	w.URL = r.URL
	if err := w.Change(t.Context(), "alice@shop.test", "secret"); !errors.Is(err, ErrUnchanged) || len(r.ids) > 0 {
		t.Errorf("a certificate that nobody signed: %v", err)
	}
	failing := startReceiver(t, "key", 500)
	w.URL, w.Roots = failing.URL, failing.roots()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := w.Change(ctx, "alice@shop.test", "secret"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("at the end of its time: %v", err)
	}
}
