package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A Token is what an operator carries from the hub to a server that is to
// become an agent. It is good for one enrolment.
type Token struct {
	Agent       string
	Secret      []byte // 16 bytes
	Fingerprint string // of the hub's authority
}

// NewToken makes a token for an agent.
func NewToken(agent string, ca *CA) Token {
	secret := make([]byte, 16)
	rand.Read(secret)
	return Token{agent, secret, ca.Fingerprint()}
}

// String is how a token is carried.
func (t Token) String() string {
	return t.Agent + ":" + base64.RawURLEncoding.EncodeToString(t.Secret) + ":" + t.Fingerprint
}

// ParseToken reads a token.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ":")
	if len(parts) != 3 || !ValidName(parts[0]) || len(parts[2]) != 64 {
		return Token{}, errors.New("that is no token: it looks as NAME:SECRET:FINGERPRINT, as vedetta agents add printed it")
	}
	secret, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || len(secret) != 16 {
		return Token{}, errors.New("that is no token: its secret is damaged")
	}
	return Token{parts[0], secret, parts[2]}, nil
}

// Enrol makes a key, has the hub at address (host:port) sign it, and leaves
// key, certificate and what else the hub gives in dir. The hub is known by the
// fingerprint in the token.
func Enrol(ctx context.Context, address string, t Token, dir, version string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	body, err := json.Marshal(enrolment{t.Agent, t.Secret, request})
	if err != nil {
		return err
	}
	c := &Client{Address: address, Version: version}
	c.connect(&tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error { // pinned instead
		n := len(s.PeerCertificates)
		if n < 2 || fingerprint(s.PeerCertificates[n-1].Raw) != t.Fingerprint {
			return errors.New("that is not the hub that made the token: its authority has another fingerprint")
		}
		return verifyHub(s.PeerCertificates[0], s.PeerCertificates[n-1])
	}})
	defer c.Close()
	var w welcome
	if _, err := c.post(ctx, "/v1/enrol", body, &w); err != nil {
		return fmt.Errorf("enrol at %s: %w", address, err)
	}
	if fingerprint(w.CA) != t.Fingerprint {
		return errors.New("enrol: the hub sent another authority than that of the token")
	}
	if len(w.RecipientKey) != len(Keys{}.Key) {
		return errors.New("enrol: the hub sent no key of recipients")
	}
	keys := Keys{Key: [16]byte(w.RecipientKey)}
	if len(w.NextKey) == len(keys.Next) {
		keys.Next = [16]byte(w.NextKey)
	}
	if err := errors.Join(
		saveKeys(dir, keys),
		writeAtomic(filepath.Join(dir, caCertFile), certPEM(w.CA)),
	); err != nil {
		return err
	}
	return writePair(filepath.Join(dir, agentFile), w.Cert, key) // last: with it the agent is enrolled
}

func verifyHub(cert, ca *x509.Certificate) error {
	_, err := cert.Verify(x509.VerifyOptions{Roots: pool(ca), DNSName: hubName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// ErrNotEnrolled means that the agent has no certificate.
var ErrNotEnrolled = errors.New("not enrolled: run vedetta agents add NAME on the hub, then vedetta enrol here with the token that it prints")

// A Client is an agent's connection to its hub.
type Client struct {
	Address   string // host:port
	Dir       string // with the agent's certificate
	Version   string
	Waiting   func() int          // batches in the spool; may be nil
	Keys      func() Keys         // what recipients are hashed with; may be nil
	Addresses func() []netip.Addr // public ones of this server, of which MaxAddresses are told; may be nil
	Resets    bool                // it can give accounts new passwords, and hand them over

	agent string
	http  *http.Client

	mu   sync.Mutex // guards cert
	cert tls.Certificate
}

// Open reads the certificate and the recipient keys of an agent.
func (c *Client) Open() (agent string, keys Keys, err error) {
	c.cert, err = readPair(filepath.Join(c.Dir, agentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", keys, ErrNotEnrolled
	}
	if err != nil {
		return "", keys, fmt.Errorf("agent's certificate: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(c.Dir, caCertFile))
	if err != nil {
		return "", keys, fmt.Errorf("hub's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return "", keys, fmt.Errorf("hub's authority: %s holds no certificate", filepath.Join(c.Dir, caCertFile))
	}
	if keys, err = readKeys(c.Dir); err != nil {
		return "", keys, err
	}
	c.connect(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: hubName, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		cert := c.cert
		return &cert, nil
	}})
	c.agent = c.cert.Leaf.Subject.CommonName
	return c.agent, keys, nil
}

func (c *Client) connect(config *tls.Config) {
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: config, TLSHandshakeTimeout: dialTimeout, Protocols: http1(),
	}}
}

// Close gives up the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// requestLasts bounds a request that is not a stream.
const requestLasts = 15 * time.Second

// A Refused is the hub's answer that something is not done.
type Refused struct {
	Status int
	Text   string
}

func (r *Refused) Error() string { return fmt.Sprintf("the hub refuses (%d): %s", r.Status, r.Text) }

// Banned reports whether the hub does not know the agent (any more).
func (r *Refused) Banned() bool { return r.Status == http.StatusForbidden }

func (c *Client) request(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "https://"+c.Address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set(headerVersion, c.Version)
	r.Header.Set(headerTime, strconv.FormatInt(time.Now().UnixNano(), 10))
	if c.Waiting != nil {
		r.Header.Set(headerWaiting, strconv.Itoa(c.Waiting()))
	}
	if c.Resets {
		r.Header.Set(headerResets, "yes")
	}
	if c.Addresses != nil {
		r.Header.Set(headerAddresses, addressText(c.Addresses()))
	}
	if c.Keys != nil {
		r.Header.Set(headerKeys, c.Keys().Fingerprint())
	}
	return c.http.Do(r)
}

// maxAnswer bounds what the hub may say at once.
const maxAnswer = 64 << 20

// post sends body and reads the answer. The status is 200 or 409; all else is
// an error.
func (c *Client) post(ctx context.Context, path string, body []byte, answer any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestLasts)
	defer cancel()
	response, err := c.request(ctx, http.MethodPost, path, body)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusConflict {
		return 0, refused(response.StatusCode, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return 0, fmt.Errorf("the hub's answer: %w", err)
	}
	return response.StatusCode, nil
}

func refused(status int, text []byte) error {
	var why refusal
	if json.Unmarshal(text, &why) != nil || why.Error == "" {
		why.Error = http.StatusText(status)
	}
	return &Refused{status, plain(why.Error, 512)}
}

// Send brings batches of one lane to the hub. It returns how far the hub has
// come, and false where that is not right before the first of them: go on from
// there, or with known where those between are gone. Where the hub has come no
// further and that is no fault of the batches, it is busy with what is new: those
// that waited may wait a little longer.
func (c *Client) Send(ctx context.Context, known Mark, batches []Sealed) (at Marks, ok bool, err error) {
	body, err := encoding.Marshal(shipment{Known: known, Batches: batches})
	if err != nil {
		return at, false, err
	}
	status, err := c.post(ctx, "/v1/batches", body, &at)
	return at, status == http.StatusOK, err
}

// Held tells the hub what is in force here that it has not named, and returns
// the subjects of what is over. The hub takes over the others.
func (c *Client) Held(ctx context.Context, held []rules.Decision) (over []string, err error) {
	body, err := json.Marshal(held)
	if err != nil {
		return nil, err
	}
	_, err = c.post(ctx, "/v1/held", body, &over)
	return over, err
}

// Orders calls f with what is in force, all at first and then each change. It
// returns when the connection is broken, when the hub has been silent for long,
// or with the error of f.
func (c *Client) Orders(ctx context.Context, f func(Change) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(3*beat, func() { cancel(errSilent) })
	defer silent.Stop()
	response, err := c.request(ctx, http.MethodGet, "/v1/orders", nil)
	if err != nil {
		return because(ctx, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxEnrolment))
		return refused(response.StatusCode, text)
	}
	in := json.NewDecoder(response.Body)
	for {
		var change Change
		if err := in.Decode(&change); err != nil {
			return because(ctx, err)
		}
		silent.Reset(3 * beat)
		if err := f(change); err != nil {
			return err
		}
	}
}

var errSilent = errors.New("the hub is silent")

// because is err, or what lies behind it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// Renew asks for the next certificate when a third of the present one's time
// is left, and does nothing before.
func (c *Client) Renew(ctx context.Context) error {
	c.mu.Lock()
	left := time.Until(c.cert.Leaf.NotAfter)
	c.mu.Unlock()
	if left > agentLasts/3 {
		return nil
	}
	return c.renew(ctx)
}

func (c *Client) renew(ctx context.Context) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	var w welcome
	if _, err := c.post(ctx, "/v1/renew", request, &w); err != nil {
		return fmt.Errorf("new certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(w.Cert)
	if err != nil {
		return fmt.Errorf("new certificate: %w", err)
	}
	if err := writePair(filepath.Join(c.Dir, agentFile), w.Cert, key); err != nil {
		return fmt.Errorf("new certificate: %w", err)
	}
	c.mu.Lock()
	c.cert = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	c.mu.Unlock()
	c.http.CloseIdleConnections()
	return nil
}
