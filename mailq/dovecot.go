package mailq

import (
	"bytes"
	"net/netip"
)

// isDovecot reports whether a line without its stamp is of Dovecot's own log:
// a process name, and then ':' or '('.
func isDovecot(b []byte) bool {
	i := 0
	for i < len(b) && i < 32 && (b[i] >= 'a' && b[i] <= 'z' || b[i] == '-' || b[i] >= '0' && b[i] <= '9') {
		i++
	}
	if i == 0 || i+1 >= len(b) {
		return false
	}
	return b[i] == '(' || b[i] == ':' && b[i+1] == ' '
}

// dovecot reads "process: [Info: ]text". Nothing of a password or of its
// fingerprint is ever taken from a line.
func (p *Parser) dovecot(ev *Event, b []byte) bool {
	end := bytes.IndexAny(b[:min(len(b), 40)], ":(")
	if end < 0 {
		return false
	}
	name := b[:end]
	if service, ok := bytes.CutSuffix(name, []byte("-login")); ok {
		if !bytes.HasPrefix(b[end:], colonSpace) {
			return false
		}
		return p.dovecotLogin(ev, service, withoutLevel(b[end+2:]))
	}
	switch string(name) {
	case "auth":
		return p.dovecotAuth(ev, b[end:])
	case "auth-worker":
		return p.dovecotAuth(ev, b[end:])
	}
	return false
}

func withoutLevel(b []byte) []byte {
	rest, _ := cutAny(b, "Info: ", "Warning: ", "Error: ", "Debug: ")
	return rest
}

// dovecotLogin reads what imap-login, pop3-login and the like say at the end
// of a login. 2.4 says "Logged in" and "Login aborted" where 2.3 says "Login"
// and "Disconnected".
func (p *Parser) dovecotLogin(ev *Event, service, b []byte) bool {
	if fields, ok := cutAny(b, "Login: ", "Logged in: "); ok {
		f, ok := readLogin(fields)
		if !ok || len(f.user) == 0 {
			return false
		}
		ev.Time, ev.Kind, ev.Host = p.stamps.time(), LoginSucceeded, p.host.name
		ev.Account, ev.Client = p.login(f.user), f.addr
		ev.Method, ev.Service = p.word(f.method), p.word(service)
		return ev.Account != ""
	}
	if !bytes.HasPrefix(b, []byte("Disconnected")) && !bytes.HasPrefix(b, []byte("Aborted login")) && !bytes.HasPrefix(b, []byte("Login aborted")) {
		return false
	}
	at := bytes.Index(b, []byte("(auth failed, "))
	if at < 0 {
		return false
	}
	attempts := leadingNumber(b[at+len("(auth failed, "):])
	end := bytes.Index(b[at:], []byte("): "))
	if end < 0 {
		return false
	}
	f, ok := readLogin(b[at+end+3:])
	if !ok {
		return false
	}
	return p.loginFailed(ev, fromServer, p.login(f.user), f.addr, p.word(f.method), p.word(service), max(1, int(attempts)))
}

// login is the tail of a login line.
type login struct {
	user, method []byte
	addr         netip.Addr
}

// readLogin reads "user=<alice@shop.test>, method=PLAIN, rip=127.0.0.1, ..".
// The name may be anything that the client typed; the fields that Dovecot
// writes follow its end.
func readLogin(b []byte) (l login, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte("user=<"))
	if !ok {
		if bytes.HasPrefix(b, []byte("rip=")) || bytes.HasPrefix(b, []byte("method=")) { // no name was given
			rest = append([]byte(nil), ">, "...)
			rest = append(rest, b...)
		} else {
			return l, false
		}
	}
	end := bytes.LastIndex(rest, []byte(">, method="))
	if end < 0 {
		end = bytes.LastIndex(rest, []byte(">, rip="))
	}
	if end < 0 {
		return l, false
	}
	l.user, b = rest[:end], rest[end+3:]
	if rest, ok := bytes.CutPrefix(b, []byte("method=")); ok {
		if l.method, b = cutField(rest); len(b) > 2 {
			b = b[2:]
		}
	}
	if rest, ok := bytes.CutPrefix(b, []byte("rip=")); ok {
		addr, _ := cutField(rest)
		l.addr = addrText(addr)
	}
	return l, true
}

func addrText(b []byte) netip.Addr {
	if a, ok := ipv4(b); ok {
		return a
	}
	if len(b) > 45 {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(string(b))
	if err != nil || a.Zone() != "" {
		return netip.Addr{}
	}
	return a.Unmap()
}

// dovecotAuth reads the failures that auth writes with auth_verbose:
// "passwd-file(alice@shop.test,127.0.0.1): Password mismatch". A line that
// ends in "trying the next passdb" is none: every right login writes it too
// where there are several.
func (p *Parser) dovecotAuth(ev *Event, b []byte) bool {
	if bytes.HasSuffix(b, []byte("trying the next passdb")) || bytes.Contains(b, []byte(" - trying the next")) {
		return false
	}
	at := max(bytes.Index(b, []byte("): Password mismatch")), bytes.Index(b, []byte("): unknown user")), bytes.Index(b, []byte("): Unknown user")))
	if at < 0 {
		// sql(user,ip,<session>): and 2.4's auth(user,ip,sasl:plain)<session>: name the session last.
		return false
	}
	start := bytes.LastIndexByte(b[:at], '(')
	if start < 1 || !(b[start-1] >= 'a' && b[start-1] <= 'z') {
		return false
	}
	user, rest, _ := bytes.Cut(b[start+1:at], []byte(","))
	addr, _, _ := bytes.Cut(rest, []byte(","))
	account := p.login(user)
	if account == "" {
		return false
	}
	return p.loginFailed(ev, fromAuth, account, addrText(addr), "", "", 1)
}

// A failureSource is whose log told about a failed login. Dovecot's auth
// service and the server that asked it both do.
type failureSource int8

const (
	fromAuth   failureSource = 1
	fromServer failureSource = -1
)

// failures pairs the two tellings of one failed login: how many of an address
// one source is ahead of the other.
type failures [256]struct {
	key   uint64
	at    int64
	ahead int
}

const pairedWithin = 15 // seconds

// loginFailed makes ev a failed login, unless the other source has told it.
func (p *Parser) loginFailed(ev *Event, from failureSource, account Account, addr netip.Addr, method, service string, attempts int) bool {
	ev.Time, ev.Kind, ev.Host = p.stamps.time(), LoginFailed, p.host.name
	ev.Account, ev.Client, ev.Method, ev.Service = account, addr, method, service
	if !addr.IsValid() {
		return true
	}
	bytes16 := addr.As16()
	key := p.hash(bytes16[:])
	f := &p.failures[key%uint64(len(p.failures))]
	if f.key != key || p.stamps.sec-f.at > pairedWithin || f.at-p.stamps.sec > pairedWithin {
		f.key, f.ahead = key, 0
	}
	f.at = p.stamps.sec
	before := f.ahead
	f.ahead += int(from) * attempts
	if before*int(from) < 0 { // the other source was ahead
		*ev = Event{}
		return false
	}
	return true
}
