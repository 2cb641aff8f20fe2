package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Webhook is a channel that posts JSON to a URL, signed as the Standard
// Webhooks specification says (standardwebhooks.com). Redirects are not
// followed. The URL may hold a token; no error shows more of it than its host.
type Webhook struct {
	URL     string
	Secret  string         // "whsec_" and base64, or any other text taken as it is; empty: not signed
	Roots   *x509.CertPool // whom to trust; nil: the system's
	Timeout time.Duration  // of the whole exchange; 0 means 15 seconds
}

// maxAnswer bounds what is read of a response; none of it is shown.
const maxAnswer = 64 << 10

// A payload is the body of a webhook: type, timestamp and data, as Standard
// Webhooks recommends.
type payload struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      Message   `json:"data"`
}

// Send posts the message. 2xx is success; 429, 408, 5xx and a broken exchange are
// temporary, and the Retry-After of the response is kept; any other response is
// permanent. The webhook-id is the message's ID on every try, so that a
// receiver can drop what it has had.
func (c Webhook) Send(ctx context.Context, m Message) error {
	m = m.Clean()
	body, err := json.Marshal(payload{cmp.Or(m.Type, "message"), m.Time.UTC(), m})
	if err != nil {
		return &Error{Permanent: true, Err: fmt.Errorf("webhook: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, 15*time.Second))
	defer cancel()
	req, err := c.request(ctx, m.ID, body, time.Now())
	if err != nil {
		return &Error{Permanent: true, Err: fmt.Errorf("webhook: %w", err)}
	}
	// A transport follows no redirects.
	resp, err := c.transport().RoundTrip(req)
	if err != nil {
		return &Error{Err: fmt.Errorf("webhook to %s: %w", req.URL.Host, shown(err))}
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // an answer cut short was an answer
	return verdict(req.URL.Host, resp)
}

func (c Webhook) request(ctx context.Context, id string, body []byte, now time.Time) (*http.Request, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("the URL is not http:// or https:// and a host") // the cause would quote it
	}
	user := u.User
	u.User = nil
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL cannot be asked")
	}
	if user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "vedetta")
	id = webhookID(id)
	timestamp := strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", timestamp)
	if c.Secret != "" {
		key, err := secretKey(c.Secret)
		if err != nil {
			return nil, err
		}
		req.Header.Set("webhook-signature", sign(key, id, timestamp, body))
	}
	return req, nil
}

// webhookID keeps an ID of visible ASCII without a dot as it is: the dot separates
// what is signed. Any other is hashed.
func webhookID(id string) string {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '.' }
	if id != "" && strings.IndexFunc(id, odd) < 0 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sign returns the webhook-signature: HMAC-SHA256 of id.timestamp.body, version 1.
func sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func secretKey(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) == 0 {
		return nil, errors.New(`the secret is not base64 after "whsec_"`) // never the secret itself
	}
	return key, nil
}

func (c Webhook) transport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true, // messages are rare; an idle connection is one more thing to break
		MaxResponseHeaderBytes: maxAnswer,
	}
}

// verdict reads a response's status. The body is not shown: some servers
// repeat the request in it, token and all.
func verdict(host string, resp *http.Response) error {
	code := resp.StatusCode
	if code >= 200 && code < 300 {
		return nil
	}
	err := &Error{Err: fmt.Errorf("webhook to %s: HTTP status %d %s", host, code, http.StatusText(code))}
	switch {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		err.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	default:
		err.Permanent = true
	}
	return err
}

// retryAfter reads a Retry-After header, seconds or a date (RFC 9110, section
// 10.2.3). What cannot be read, and what is past, is 0.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// shown returns what of a broken exchange may be shown: that of the network and
// of TLS. Other errors quote the response, which may repeat our URL.
func shown(err error) error {
	var network net.Error
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &network), errors.As(err, &certificate), errors.As(err, &record),
		errors.Is(err, context.Canceled), errors.Is(err, io.EOF):
		return err
	}
	return errors.New("the answer was not HTTP, or broke off")
}
