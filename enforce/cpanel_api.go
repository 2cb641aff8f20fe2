package enforce

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
)

// A cpanelCall is one call of a function: of UAPI's Email module as a cPanel
// account, or of WHM's.
type cpanelCall struct {
	user     string // the cPanel account; empty for a function of WHM's
	function string
	params   []cpanelParam
	secret   string // stands in no error
}

type cpanelParam struct{ name, value string }

// Where cPanel has its commands. The vendor says that on some systems only the
// whole path will do.
const (
	cpanelUAPI   = "/usr/local/cpanel/bin/uapi"
	cpanelWHMAPI = "/usr/local/cpanel/bin/whmapi1"
)

// ask makes the call and decodes the data of the answer into data, unless
// that is nil.
func (p *CPanel) ask(ctx context.Context, c cpanelCall, data any) error {
	err := p.answer(ctx, c, data)
	if err == nil {
		return nil
	}
	return hideSecret(fmt.Errorf("%s: %w", c.function, err), c.secret)
}

func (p *CPanel) answer(ctx context.Context, c cpanelCall, data any) error {
	send := p.run
	if p.URL != "" {
		send = p.post
	}
	text, err := send(ctx, c)
	if err != nil {
		return err
	}
	raw, err := cpanelData(text, c)
	if err != nil || data == nil {
		return err
	}
	if err := json.Unmarshal(raw, data); err != nil {
		return fmt.Errorf("its data is not as documented: %w", err)
	}
	return nil
}

// run runs the server's own command. uapi ends with status 0 even when it
// refuses; what another status says in JSON is still the panel's reason.
func (p *CPanel) run(ctx context.Context, c cpanelCall) ([]byte, error) {
	out, _, err := command{argv: p.argv(c), timeout: p.Timeout}.run(ctx)
	if err == nil || ctx.Err() != nil {
		return out, err
	}
	if _, refusal := cpanelData(out, c); errors.Is(refusal, ErrPanelRefused) {
		return nil, refusal
	}
	return nil, err
}

// argv is the command line of a call: "uapi --user=USER --output=json Email
// FUNCTION NAME=VALUE…" or "whmapi1 --output=json FUNCTION NAME=VALUE…".
func (p *CPanel) argv(c cpanelCall) []string {
	var argv []string
	if c.user == "" {
		argv = append(panelCommand(p.WHMAPI, cpanelWHMAPI), "--output=json", c.function)
	} else {
		argv = append(panelCommand(p.UAPI, cpanelUAPI), "--user="+c.user, "--output=json", "Email", c.function)
	}
	for _, v := range c.params {
		argv = append(argv, v.name+"="+cpanelEscape(v.value))
	}
	return argv
}

func panelCommand(command []string, otherwise string) []string {
	if len(command) == 0 {
		return []string{otherwise}
	}
	return slices.Clone(command)
}

// cpanelEscape encodes a value of a command line: "You must URI-encode
// values". An @ is left, as in the vendor's examples; so a plain address is
// the same whether it is decoded or not.
func cpanelEscape(value string) string {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~@", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// form is what is posted to WHM, and where.
func (c cpanelCall) form() (path string, fields []cpanelParam) {
	if c.user == "" {
		return "/json-api/" + c.function, append([]cpanelParam{{"api.version", "1"}}, c.params...)
	}
	return "/json-api/cpanel", append([]cpanelParam{
		{"cpanel_jsonapi_user", c.user},
		{"cpanel_jsonapi_apiversion", "3"},
		{"cpanel_jsonapi_module", "Email"},
		{"cpanel_jsonapi_func", c.function},
	}, c.params...)
}

// show is the call as a person would read it, without secrets.
func (p *CPanel) show(c cpanelCall) string {
	if p.URL == "" {
		line := strings.Join(p.argv(c), " ")
		return strings.NewReplacer("%7B", "{", "%7D", "}").Replace(line)
	}
	path, fields := c.form()
	words := []string{"POST", "https://" + p.host() + path}
	for _, f := range fields {
		words = append(words, f.name+"="+f.value)
	}
	return strings.Join(words, " ")
}

// host is the host and port of WHM's URL, empty if that is not one.
func (p *CPanel) host() string {
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return ""
	}
	return u.Host
}

// maxPanelAnswer bounds what is read of an answer over HTTPS.
const maxPanelAnswer = 16 << 20

// post calls WHM over HTTPS. Parameters are in the body, as addresses of
// requests are logged; a redirect is not followed, as it would take the token
// elsewhere. "API Tokens in WHM": https://api.docs.cpanel.net/whm/tokens/
func (p *CPanel) post(ctx context.Context, c cpanelCall) ([]byte, error) {
	host := p.host()
	if host == "" {
		return nil, errors.New("WHM's URL is not of the form https://HOST:2087")
	}
	token := ""
	if p.Token != nil {
		token = p.Token()
	}
	if token == "" {
		return nil, errors.New("there is no WHM API token")
	}
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	path, fields := c.form()
	values := make(url.Values, len(fields))
	for _, f := range fields {
		values.Set(f.name, f.value)
	}
	target := url.URL{Scheme: "https", Host: host, Path: path}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "whm "+orName(p.User, "root")+":"+token)
	resp, err := p.httpClient().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPanelAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxPanelAnswer:
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxPanelAnswer)
	case resp.StatusCode != http.StatusOK:
		return nil, cpanelHTTPError(resp.StatusCode, text, c)
	}
	return text, nil
}

// cpanelHTTPError is an answer with another status than 200, with the panel's
// reason if it gives one.
func cpanelHTTPError(status int, text []byte, c cpanelCall) error {
	reason := http.StatusText(status)
	if _, err := cpanelData(text, c); errors.Is(err, ErrPanelRefused) {
		reason = err.Error()
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("%w: HTTP %d: %s (is the token right, and allowed to do this?)", ErrUnchanged, status, reason)
	case status >= 300 && status < 400:
		return fmt.Errorf("%w: HTTP %d: a redirect is not followed (is the URL right?)", ErrUnchanged, status)
	}
	return fmt.Errorf("HTTP %d: %s", status, reason)
}

// httpClient is a client for one call. It keeps no connection: a server that
// closes one at the wrong moment would make a call fail that was not made.
func (p *CPanel) httpClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: p.RootCAs, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// A cpanelAnswer is an answer of UAPI, which has result, or of WHM API 1,
// which has metadata. cpanelresult is how cPanel says that access is denied,
// whatever was asked.
type cpanelAnswer struct {
	Module string `json:"module"`
	Func   string `json:"func"`
	Result *struct {
		Status cpanelYes       `json:"status"`
		Errors cpanelTexts     `json:"errors"`
		Data   json.RawMessage `json:"data"`
	} `json:"result"`

	Metadata *struct {
		Result  cpanelYes `json:"result"`
		Reason  string    `json:"reason"`
		Command string    `json:"command"`
	} `json:"metadata"`
	Data json.RawMessage `json:"data"`

	CPanelResult *struct {
		Error string `json:"error"`
	} `json:"cpanelresult"`
}

// cpanelData is the data in the answer to c, or why there is none.
func cpanelData(text []byte, c cpanelCall) (json.RawMessage, error) {
	raw, err := lastPanelObject(text)
	if err != nil {
		return nil, err
	}
	var a cpanelAnswer
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("the answer is not as documented: %w", err)
	}
	switch {
	case a.CPanelResult != nil:
		return nil, panelRefusal(a.CPanelResult.Error, c.secret)
	case a.Metadata != nil && !bool(a.Metadata.Result):
		return nil, panelRefusal(a.Metadata.Reason, c.secret)
	case c.user == "" && a.Metadata != nil:
		if a.Metadata.Command != c.function {
			return nil, fmt.Errorf("the answer is to another call, %.80q", a.Metadata.Command)
		}
		return a.Data, nil
	case c.user != "" && a.Result != nil:
		if a.Module != "Email" || a.Func != c.function {
			return nil, fmt.Errorf("the answer is to another call, %.80q", a.Module+"::"+a.Func)
		}
		if !bool(a.Result.Status) {
			return nil, panelRefusal(strings.Join(a.Result.Errors, "; "), c.secret)
		}
		return a.Result.Data, nil
	}
	return nil, errors.New("the answer is not as documented: it says neither yes nor no")
}

// panelRefusal is a panel's no. The secret goes before the reason is cut, so
// that no half of it is left.
func panelRefusal(reason, secret string) error {
	if reason = line(withoutSecret(reason, secret), 300); reason == "" {
		reason = "without a reason"
	}
	return fmt.Errorf("%w: %s", ErrPanelRefused, reason)
}

// lastPanelObject is the JSON object that text ends with. The commands print
// warnings of Perl's before it, which may hold anything; so it begins a line,
// and nothing follows it.
func lastPanelObject(text []byte) (json.RawMessage, error) {
	for start, tries := 0, 0; start < len(text) && tries < 100; {
		if rest := bytes.TrimLeft(text[start:], " \t\r"); len(rest) > 0 && rest[0] == '{' {
			tries++
			if json.Valid(rest) {
				return rest, nil
			}
		}
		next := bytes.IndexByte(text[start:], '\n')
		if next < 0 {
			break
		}
		start += next + 1
	}
	return nil, errors.New("the answer is not JSON, or only half of it")
}

// A cpanelYes is a Boolean of cPanel's: 1 or 0, as a number or as text.
type cpanelYes bool

// UnmarshalJSON takes 1, 0, null and the empty text, and nothing else.
func (y *cpanelYes) UnmarshalJSON(text []byte) error {
	switch string(bytes.Trim(text, `"`)) {
	case "1":
		*y = true
	case "0", "", "null":
		*y = false
	default:
		return fmt.Errorf("%.20q is neither 1 nor 0", text)
	}
	return nil
}

// cpanelTexts are an answer's errors: a list, null, or a single text.
type cpanelTexts []string

// UnmarshalJSON never fails: reasons that are not text are left out.
func (t *cpanelTexts) UnmarshalJSON(text []byte) error {
	var list []any
	if json.Unmarshal(text, &list) != nil {
		list = []any{nil}
		_ = json.Unmarshal(text, &list[0]) // what is no JSON at all does not come here
	}
	*t = nil
	for _, item := range list {
		if s, ok := item.(string); ok {
			*t = append(*t, s)
		}
	}
	return nil
}

// A panelError is an error without a secret, in its text or beneath it.
type panelError struct {
	text string
	is   []error // sentinels
}

func (e panelError) Error() string   { return e.text }
func (e panelError) Unwrap() []error { return e.is }

// hideSecret returns err without the secret, however a panel repeats it.
func hideSecret(err error, secret string) error {
	if err == nil || secret == "" {
		return err
	}
	hidden := panelError{text: withoutSecret(err.Error(), secret)}
	for _, sentinel := range []error{ErrPanelRefused, ErrPanelProtected, ErrUnchanged, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, sentinel) {
			hidden.is = append(hidden.is, sentinel)
		}
	}
	return hidden
}

func withoutSecret(text, secret string) string {
	if secret == "" {
		return text
	}
	quoted, _ := json.Marshal(secret) // text always can be
	for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret), strings.Trim(string(quoted), `"`)} {
		text = strings.ReplaceAll(text, form, "<secret>")
	}
	return text
}

// A panelMailbox is a mail address that is plain enough to be handed to any
// panel: letters, digits and ._+- before the @, a host name behind it.
type panelMailbox struct{ local, domain string }

func (m panelMailbox) String() string { return m.local + "@" + m.domain }

var errPanelMailbox = errors.New("is not an address that is handed to a panel")

func parsePanelMailbox(address string) (panelMailbox, error) {
	local, domain, _ := strings.Cut(address, "@")
	if local == "" || len(local) > 64 || local[0] == '-' || !panelChars(local, "._+-") || !panelDomain(domain) {
		return panelMailbox{}, errPanelMailbox
	}
	return panelMailbox{local, domain}, nil
}

// panelDomain reports whether domain is a host name of at least two labels, as
// in RFC 1123, section 2.1.
func panelDomain(domain string) bool {
	labels := strings.Split(domain, ".")
	if len(domain) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || !panelChars(l, "-") {
			return false
		}
	}
	return true
}

// validPanelForward reports whether a forwarder's destination is a mail address
// and nothing else: an RFC 5321 dot-string and a host name. Customers write
// these; programs begin with a bar, answers with a colon.
func validPanelForward(address string) bool {
	local, domain, _ := strings.Cut(address, "@")
	return local != "" && len(local) <= 64 && panelChars(local, "!#$%&'*+-/=?^_`{}~.") && panelDomain(domain)
}

// panelChars reports whether s is of ASCII letters, digits and others alone.
func panelChars(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

// panelSystemUsers are never a customer's account.
var panelSystemUsers = []string{
	"root", "nobody", "system", "daemon", "bin", "mail", "mailnull", "mailman", "exim", "dovecot", "dovenull", "postfix",
	"cpanel", "cpses", "cpanelphpmyadmin", "cpanelroundcube", "cpanelconnecttrack", "whm", "apache", "httpd", "nginx",
	"mysql", "postgres", "named", "ftp", "sshd", "polkitd",
}

// checkPanelUser checks the name of a cPanel account: lower case, digits, and
// what transferred accounts have besides.
func checkPanelUser(name string) error {
	switch {
	case name == "" || len(name) > 32 || !panelChars(name, "_-") || name != strings.ToLower(name) || name[0] < 'a' || name[0] > 'z':
		return fmt.Errorf("%.80q is not the name of a cPanel account", name)
	case slices.Contains(panelSystemUsers, name):
		return fmt.Errorf("%s %w", name, ErrPanelProtected)
	}
	return nil
}

// checkPanelPassword refuses what a panel might cut or take for something else.
func checkPanelPassword(password string) error {
	if len(password) < 8 || len(password) > 256 {
		return errors.New("the new password is not 8 to 256 bytes long")
	}
	for i := range len(password) {
		if password[i] <= ' ' || password[i] > '~' {
			return errors.New("the new password is not of printable ASCII")
		}
	}
	return nil
}

// panelDomainOwner looks a domain up in cPanel's list of "DOMAIN: USER" lines. Its
// last line, "*: nobody", stands for domains that are nobody's and is never an
// answer.
func panelDomainOwner(path, domain string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return panelOwnerIn(f, domain)
}

func panelOwnerIn(r io.Reader, domain string) (owner string, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, user, ok := strings.Cut(lines.Text(), ":")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), domain) {
			continue
		}
		user = strings.TrimSpace(user)
		if owner != "" && user != owner {
			return "", fmt.Errorf("it is listed for two accounts, %.40q and %.40q", owner, user)
		}
		owner = user
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	if owner == "" {
		return "", errors.New("it is not listed")
	}
	return owner, nil
}
