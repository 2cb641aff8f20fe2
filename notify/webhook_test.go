package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The example of the Standard Webhooks reference implementations.
func TestSignKnownVector(t *testing.T) {
	key, err := secretKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// verified checks a request as the specification tells receivers to, and
// returns its body. It shares no code with the sender.
func verified(t *testing.T, r *http.Request, key string) []byte {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	id, stamp := r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp")
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(id + "." + stamp + "." + string(body)))
	version, signature, _ := strings.Cut(r.Header.Get("Webhook-Signature"), ",")
	given, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || version != "v1" || !hmac.Equal(given, mac.Sum(nil)) {
		t.Errorf("signature %q does not fit: %v", r.Header.Get("Webhook-Signature"), err)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age < -time.Minute || age > time.Minute {
		t.Errorf("timestamp %q is not now", stamp)
	}
	return body
}

func TestWebhookIsSigned(t *testing.T) {
	var ids []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := verified(t, r, "a shared secret")
		ids = append(ids, r.Header.Get("Webhook-Id"))
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s with %s", r.Method, r.Header.Get("Content-Type"))
		}
		if user, password, ok := r.BasicAuth(); !ok || user != "u" || password != "p" {
			t.Errorf("basic authentication as %q, %q", user, password)
		}
		var p payload
		if err := json.Unmarshal(body, &p); err != nil {
			t.Error(err)
		}
		want := payload{"incident.escalated", t0, blocked()}
		if diff := cmp.Diff(p, want); diff != "" {
			t.Errorf("payload (-got +want):\n%s", diff)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	pool := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	channel := Webhook{URL: strings.Replace(server.URL, "//", "//u:p@", 1) + "/in?token=t0ken", Secret: "a shared secret", Roots: pool}
	for range 2 {
		if err := channel.Send(t.Context(), blocked()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(ids, []string{blocked().ID, blocked().ID}); diff != "" {
		t.Errorf("IDs of two tries (-got +want):\n%s", diff)
	}
}

func TestWebhookBody(t *testing.T) {
	for name, m := range map[string]Message{"blocked": blocked(), "hostile": hostile(), "digest": Digest(storm(2))} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var v any
				if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
					t.Error(err)
				}
				if r.Header.Get("Webhook-Signature") != "" {
					t.Error("signed without a secret")
				}
				text, _ := json.MarshalIndent(v, "", "  ")
				golden(t, name+".json", string(text)+"\n")
			}))
			defer server.Close()
			if err := (Webhook{URL: server.URL}).Send(t.Context(), m); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWebhookVerdicts(t *testing.T) {
	for _, c := range []struct {
		status    int
		after     string // Retry-After
		permanent bool
		ok        bool
		retry     time.Duration
	}{
		{status: 200, ok: true},
		{status: 204, ok: true},
		{status: 301, permanent: true},
		{status: 307, permanent: true},
		{status: 400, permanent: true},
		{status: 401, permanent: true},
		{status: 404, permanent: true},
		{status: 408},
		{status: 410, permanent: true},
		{status: 429, after: "120", retry: 2 * time.Minute},
		{status: 429, after: "-5"},
		{status: 429, after: "99999999999999999999"},
		{status: 500},
		{status: 503, after: "soon"},
		{status: 503, after: "Thu, 01 Jan 1970 00:00:00 GMT"},
	} {
		t.Run(strconv.Itoa(c.status)+" "+c.after, func(t *testing.T) {
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				w.Header().Set("Retry-After", c.after)
				w.Header().Set("Location", "/t0ken%zz")
				w.WriteHeader(c.status)
				if c.status >= 300 {
					_, _ = io.WriteString(w, "you asked for "+r.URL.String())
				}
			}))
			defer server.Close()
			err := Webhook{URL: server.URL + "/t0ken"}.Send(t.Context(), blocked())
			if (err == nil) != c.ok || errors.Is(err, ErrPermanent) != c.permanent || RetryAfter(err) != c.retry {
				t.Errorf("got %v, permanent %v, retry after %v", err, errors.Is(err, ErrPermanent), RetryAfter(err))
			}
			if err != nil && (strings.Contains(err.Error(), "t0ken") || !strings.Contains(err.Error(), strconv.Itoa(c.status))) {
				t.Errorf("the error is %q", err)
			}
			if asked != 1 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	if got := retryAfter("Fri, 20 Mar 2026 10:01:30 GMT", now); got != 90*time.Second {
		t.Errorf("got %v", got)
	}
}

// Whatever is wrong with a URL or a secret, the error does not show it.
func TestWebhookHidesSecrets(t *testing.T) {
	refused := httptest.NewServer(nil)
	refused.Close()
	for _, c := range []struct {
		url, secret string
		permanent   bool
	}{
		{refused.URL + "/t0ken?k=t0ken", "", false},
		{"https://u:t0ken@127.0.0.1:1/x", "", false},
		{"https://[t0ken/", "", true},
		{"https://hooks.shop.test:t0ken/", "", true},
		{"https://hooks.shop.test/%zzt0ken", "", true},
		{"ftp://hooks.shop.test/t0ken", "", true},
		{"/t0ken", "", true},
		{"", "", true},
		{refused.URL, "whsec_t0ken!", true},
		{refused.URL, "whsec_", true},
	} {
		err := Webhook{URL: c.url, Secret: c.secret}.Send(t.Context(), blocked())
		if err == nil || strings.Contains(err.Error(), "t0ken") {
			t.Errorf("%s: %v", c.url, err)
		}
		if errors.Is(err, ErrPermanent) != c.permanent {
			t.Errorf("%s: permanent is %v: %v", c.url, !c.permanent, err)
		}
	}
}

// An answer that is no HTTP may repeat the request: it is not quoted.
func TestWebhookAnswersNonsense(t *testing.T) {
	for _, answer := range []string{"HTTP/1.1 200 OK\r\nt0ken\x7f\r\n\r\n", "t0ken\r\n\r\n", "HTTP/1.1 t0ken\r\n\r\n", ""} {
		addr := raw(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1<<16))
			_, _ = io.WriteString(c, answer)
		})
		err := Webhook{URL: "http://" + addr + "/t0ken"}.Send(t.Context(), blocked())
		if err == nil || errors.Is(err, ErrPermanent) || strings.Contains(err.Error(), "t0ken") {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

func TestWebhookHangs(t *testing.T) {
	channel := Webhook{URL: "http://" + raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), Timeout: 50 * time.Millisecond}
	err := channel.Send(t.Context(), blocked())
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrPermanent) {
		t.Errorf("got %v, want a temporary end of time", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	channel = Webhook{URL: "http://" + raw(t, func(c net.Conn) { cancel(); _, _ = io.Copy(io.Discard, c) }), Timeout: time.Hour}
	if err := channel.Send(ctx, blocked()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// An answer without end is an answer.
func TestWebhookAnswerIsBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	if err := (Webhook{URL: server.URL, Timeout: time.Hour}).Send(t.Context(), blocked()); err != nil {
		t.Error(err)
	}
}

func TestWebhookID(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"i-1/block", "", "a.b", "a b", "a\r\nX: y", "é", strings.Repeat("x", 1000)} {
		got := webhookID(visible(id, maxLine))
		if got == "" || strings.ContainsAny(got, ". \r\n") || len(got) > maxLine+10 {
			t.Errorf("%q becomes %q", id, got)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q become the same", id, other)
		}
		seen[got] = id
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"120", "-1", "", "Fri, 20 Mar 2026 10:01:30 GMT", "Friday, 20-Mar-26 10:01:30 GMT", "99999999999", "1e3", "0x10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		wait := retryAfter(value, t0)
		if wait < 0 {
			t.Errorf("%q asks for %v", value, wait)
		}
		if due := Next("x", 1, t0, wait); due.Before(t0) || due.After(t0.Add(lastWait)) {
			t.Errorf("%q is tried again at %v", value, due)
		}
	})
}
