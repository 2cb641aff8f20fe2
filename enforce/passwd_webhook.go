package enforce

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
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// WebhookPasswords changes passwords through a service of the operator's: it
// posts JSON, signed as the Standard Webhooks specification says
// (standardwebhooks.com):
//
//	{"type":"password.change","timestamp":"…","data":{"account":"alice@example.com","user":"alice","domain":"example.com","password":"…"}}
//
// 2xx means that the password is set. 408, 429, 5xx and a broken exchange are
// tried again, up to four times in all, with the same webhook-id; setting the
// same password twice must do no harm. Any other answer means that nothing was
// changed. Redirects are not followed, and nothing of an answer is shown.
type WebhookPasswords struct {
	URL     string         // https; http only to this machine
	Secret  string         // "whsec_" and base64, or any other text taken as it is
	Roots   *x509.CertPool // whom to trust; nil: the system's
	Domains []string       // whose accounts it is for; none means any
	Timeout time.Duration  // of each try; 0 means ten seconds
}

// Name names the service in outcomes.
func (w WebhookPasswords) Name() string { return "webhook " + w.post("", nil).host() }

// Check reports what is wrong with the settings.
func (w WebhookPasswords) Check() error { return w.post("", nil).check() }

// Covers reports whether the account is in one of the domains.
func (w WebhookPasswords) Covers(account string) bool { return inDomains(account, w.Domains) }

// Plan says where what is posted.
func (w WebhookPasswords) Plan(account string) []string {
	return []string{fmt.Sprintf("POST password.change of %s to %s", printable(account), w.post("", nil).host())}
}

// Change posts the password.
func (w WebhookPasswords) Change(ctx context.Context, account, password string) error {
	if err := errors.Join(checkAccount(account), checkPassword(password), w.Check()); err != nil {
		return unchanged(w, account, err)
	}
	user, domain := splitAccount(account)
	data := map[string]string{"account": account, "user": user, "domain": domain, "password": password}
	if err := w.post(secretID(password, account), data).do(ctx, "password.change"); err != nil {
		return fmt.Errorf("enforce: %s: password of %s: %w", w.Name(), printable(account), err)
	}
	return nil
}

func (w WebhookPasswords) post(id string, data map[string]string) secretPost {
	return secretPost{url: w.URL, secret: w.Secret, roots: w.Roots, timeout: w.Timeout, id: id, data: data}
}

// secretID is the webhook-id of a message that holds a password: the same for
// the same message, another for another password. Nobody learns the password
// from it, as nobody can try 138 bits out.
func secretID(password, about string) string {
	mac := hmac.New(sha256.New, []byte(password))
	mac.Write([]byte(about))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// A secretPost is one message to a service of the operator's.
type secretPost struct {
	url, secret string
	roots       *x509.CertPool
	timeout     time.Duration
	id          string
	data        map[string]string
}

const (
	postTries   = 4
	firstPause  = 200 * time.Millisecond // doubled after each try
	maxResponse = 64 << 10
)

// host is what may be shown of the URL.
func (p secretPost) host() string {
	u, err := url.Parse(p.url)
	if err != nil || u.Host == "" {
		return "(no URL)"
	}
	return u.Host
}

func (p secretPost) check() error {
	u, err := url.Parse(p.url)
	switch {
	case err != nil || u.Host == "":
		return errors.New("the URL is not https:// and a host") // the cause would quote it
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return fmt.Errorf("webhook to %s: want https, as it carries a password", u.Host)
	case p.secret == "":
		return fmt.Errorf("webhook to %s: want a secret to sign with", u.Host)
	}
	_, err = signingKey(p.secret)
	return err
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// do posts the message until it is taken or refused, or the tries are used up.
func (p secretPost) do(ctx context.Context, kind string) error {
	body, err := json.Marshal(map[string]any{"type": kind, "timestamp": time.Now().UTC(), "data": p.data})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	pause, certain := firstPause, true
	for try := 1; ; try++ {
		again, err := p.try(ctx, body)
		certain = certain && errors.Is(err, ErrUnchanged)
		switch {
		case err == nil:
			return nil
		case !again || try == postTries:
			return doubted(err, certain)
		}
		select {
		case <-ctx.Done():
			return doubted(fmt.Errorf("%w: %w", err, ctx.Err()), certain)
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// doubted takes ErrUnchanged out of an error that follows an uncertain one.
func doubted(err error, certain bool) error {
	if certain || !errors.Is(err, ErrUnchanged) {
		return err
	}
	return errors.New(strings.TrimPrefix(err.Error(), ErrUnchanged.Error()+": ") + ", after a try whose answer was lost")
}

// try posts once. The error is ErrUnchanged if the service refused, or could
// not be reached.
func (p secretPost) try(ctx context.Context, body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(max(p.timeout, 0), defaultTimeout))
	defer cancel()
	req, err := p.request(ctx, body, time.Now())
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	resp, err := p.transport().RoundTrip(req) // follows no redirects
	if err != nil {
		certain, again := notSent(err)
		err = fmt.Errorf("%s: %w", req.URL.Host, shownCause(err))
		if certain {
			err = fmt.Errorf("%w: %w", ErrUnchanged, err)
		}
		return again, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxResponse) // some repeat the request in it: not shown
	code := resp.StatusCode
	if code >= 200 && code < 300 {
		return false, nil
	}
	err = fmt.Errorf("%s: HTTP status %d %s", req.URL.Host, code, http.StatusText(code))
	if code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500 {
		return true, err
	}
	return false, fmt.Errorf("%w: %w", ErrUnchanged, err)
}

func (p secretPost) request(ctx context.Context, body []byte, now time.Time) (*http.Request, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	u, _ := url.Parse(p.url)
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
	key, err := signingKey(p.secret)
	if err != nil {
		return nil, err
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", p.id, timestamp, body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "vedetta")
	req.Header.Set("webhook-id", p.id)
	req.Header.Set("webhook-timestamp", timestamp)
	req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return req, nil
}

func (p secretPost) transport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxResponse,
	}
}

func signingKey(secret string) ([]byte, error) {
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

// notSent reports whether a message certainly did not get out, and whether to
// try again.
func notSent(err error) (certain, again bool) {
	var dial *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return true, false
	case errors.As(err, &dial) && dial.Op == "dial":
		return true, true
	}
	return false, true
}

// shownCause returns what of a broken exchange may be shown: that of the
// network and of TLS. Other errors quote the answer, which may repeat us.
func shownCause(err error) error {
	var network net.Error
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &network), errors.As(err, &certificate), errors.As(err, &record),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF):
		return err
	}
	return errors.New("the answer was not HTTP, or broke off")
}
