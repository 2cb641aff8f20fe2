package mailq

import (
	"bytes"
	"net/netip"
	"strings"
)

// exim reads a line of Exim's main or reject log without its stamp:
// "[pid] id arrow ..". pid is that of syslog, 0 if there was none.
func (p *Parser) exim(ev *Event, b []byte, pid uint64) bool {
	if len(b) == 0 {
		return false
	}
	if b[0] == '[' {
		end := bytes.IndexByte(b[:min(len(b), 24)], ']')
		if end > 1 {
			if n, ok := digits(b[1:end]); ok && end+2 < len(b) && b[end+1] == ' ' {
				pid, b = uint64(n), b[end+2:]
			}
		}
	}
	if p.host.exim == nil {
		p.host.exim = p.host.instance(p, "exim")
		p.host.exim.manages = true
	}
	n := p.host.exim
	if w := eximIDLen(b); w > 0 && len(b) > w+1 && b[w] == ' ' {
		return p.eximMessage(ev, n, pid, b[:w], b[w+1:])
	}
	switch {
	case bytes.HasPrefix(b, []byte("cwd=")):
		p.eximCwd(n, pid, b[len("cwd="):])
		return false
	case bytes.HasPrefix(b, []byte("H=")):
		return p.eximRejected(ev, nil, b)
	}
	if at := bytes.IndexByte(b[:min(len(b), 64)], ' '); at > 0 {
		if rest, ok := bytes.CutPrefix(b[at:], []byte(" authenticator failed for ")); ok {
			return p.eximLoginFailed(ev, b[:at], rest)
		}
	}
	return false
}

// eximMessage reads a line about a message.
func (p *Parser) eximMessage(ev *Event, n *instance, pid uint64, id, b []byte) bool {
	key := p.key(n, id)
	if rest, ok := bytes.CutPrefix(b, []byte("<= ")); ok {
		return p.eximArrival(ev, n, pid, key, id, rest)
	}
	o := p.open.byKey.get(key)
	if len(b) > 3 && b[2] == ' ' {
		kind := Unknown
		switch string(b[:2]) {
		case "=>", "->", "*>":
			kind = Delivered
		case ">>":
			kind = Delivered
			if o == nil && !p.recent.has(key) { // cutthrough: delivered before it is accepted
				o = p.begin(n, key, id)
				o.flags |= isExim
			}
		case "**":
			kind = Bounced
		case "==":
			kind = Deferred
		}
		if kind != Unknown {
			return p.eximOutcome(ev, kind, o, b[3:])
		}
	}
	if bytes.HasPrefix(b, []byte("H=")) {
		return p.eximRejected(ev, o, b)
	}
	if o == nil {
		return false
	}
	return p.eximState(ev, o, b)
}

// eximState reads what happened to a whole message.
func (p *Parser) eximState(ev *Event, o *open, b []byte) bool {
	p.open.touch(o, p.stamps.sec)
	switch {
	case string(b) == "Completed", bytes.HasPrefix(b, []byte("removed by ")), bytes.HasPrefix(b, []byte("cancelled by ")):
		p.fill(ev, Removed, o)
		p.finish(o)
		return true
	case bytes.HasPrefix(b, []byte("frozen by ")), bytes.HasPrefix(b, []byte("Frozen")), string(b) == "Message is frozen":
		if o.is(isHeld) {
			return false // said again at each queue run
		}
		p.open.mark(o, isHeld, 0)
		p.fill(ev, Held, o)
		return true
	case bytes.HasPrefix(b, []byte("Sender identification U=")): // cPanel, about mail from this host
		user, _ := cutWord(b[len("Sender identification U="):])
		if o.account == "" && !o.is(isPlain) && len(user) > 0 && p.Directory.trusts(o.peer) {
			o.fallback = p.userAccount(user)
			p.open.changed(o)
		}
	case bytes.HasPrefix(b, []byte("unfrozen by ")), bytes.HasPrefix(b, []byte("Unfrozen by ")):
		if !o.is(isHeld) {
			return false
		}
		p.open.mark(o, 0, isHeld)
		p.fill(ev, Released, o)
		return true
	}
	return false
}

// An arrival is what Exim logs when it accepts a message.
type arrival struct {
	sender  []byte
	parent  []byte // R=: the message that this one is the bounce of
	user    []byte // U=, only of local mail
	peer    netip.Addr
	method  []byte // A= driver
	login   []byte // A= name
	size    int64
	subject []byte // between its quotes, still escaped
	rcpts   []byte // after " for "
}

// readArrival reads what follows "<= ". The sender, the HELO name in H=, the
// message id and the subject are strangers' text. So fields are taken in the
// order in which Exim writes them, each only from where it can stand. It
// reports false if the line can be read in two ways that differ in who sent
// it.
func readArrival(b []byte) (a arrival, clear bool) {
	a.sender, b = cutAddress(b)
	if a.sender == nil {
		return a, false
	}
	if rest, ok := bytes.CutPrefix(b, []byte("R=")); ok {
		a.parent, b = cutWord(rest)
	}
	if rest, ok := bytes.CutPrefix(b, []byte("U=")); ok {
		a.user, b = cutWord(rest)
	} else if bytes.HasPrefix(b, []byte("H=")) {
		var room [maxPeers]peer
		peers := findPeers(room[:0], b[len("H="):])
		if len(peers) == 0 {
			return a, false
		}
		a.peer, b = peers[0].addr, peers[0].rest
		rest := a.readProof(b)
		for _, other := range peers[1:] {
			alt := arrival{}
			altRest := alt.readProof(other.rest)
			if other.addr != a.peer || !bytes.Equal(alt.login, a.login) {
				if !bytes.Contains(b[:len(b)-len(other.rest)], []byte(" id=")) {
					// No message id can have come before: the first was the HELO's.
					a.peer, a.login, a.method, b, rest = other.addr, alt.login, alt.method, other.rest, altRest
					continue
				}
				a.peer, a.login, a.method = netip.Addr{}, nil, nil
				a.readRest(rest)
				return a, false
			}
		}
		a.readRest(rest)
		return a, true
	}
	a.readRest(a.readProof(b))
	return a, true
}

// A peer is one reading of who is at the other end: "H=name (helo) [addr]:port".
type peer struct {
	addr netip.Addr
	rest []byte // what follows, from the next field on
}

// maxPeers is how many readings of a line are looked at.
const maxPeers = 4

// findPeers appends to peers the readings of what follows "H=": a verified name, a HELO
// name in parentheses, both or none, and then the address. There is one
// reading unless a stranger's text imitates it; at most four are looked at.
func findPeers(peers []peer, b []byte) []peer {
	if len(b) > 0 && b[0] != '(' && b[0] != '[' { // the verified name, which holds no space
		_, b = cutWord(b)
	}
	if len(b) > 0 && b[0] == '[' {
		if one, ok := peerAt(b); ok {
			return append(peers, one)
		}
		return nil
	}
	for len(peers) < maxPeers {
		at := bytes.IndexByte(b, ')')
		if at < 0 {
			return peers
		}
		if b = b[at+1:]; len(b) < 2 || b[0] != ' ' || b[1] != '[' {
			continue
		}
		b = b[1:]
		if one, ok := peerAt(b); ok && (len(peers) == 0 || isField(one.rest)) {
			peers = append(peers, one)
		}
	}
	return peers
}

// peerAt reads "[addr]:port " at the head of b.
func peerAt(b []byte) (one peer, ok bool) {
	if one.addr, b, ok = addrOf(b); !ok {
		return one, false
	}
	if len(b) > 1 && b[0] == ':' && b[1] != ' ' {
		b = afterDigits(b[1:])
	}
	if len(b) == 0 || b[0] != ' ' && b[0] != ':' {
		return one, len(b) == 0
	}
	one.rest = bytes.TrimPrefix(b, []byte(" "))
	return one, true
}

// isField reports whether b begins with a field that follows H=.
func isField(b []byte) bool {
	for _, s := range [...]string{"I=", "P=", "U=", "X=", "CV=", "F=", "A="} {
		if bytes.HasPrefix(b, []byte(s)) {
			return true
		}
	}
	return false
}

// readProof reads "I=.. P=esmtpa X=.. CV=no DN=".." A=driver:name", in that
// order, as far as they go, and returns what follows. A= counts only if P= ends
// in a: authenticated.
func (a *arrival) readProof(b []byte) (after []byte) {
	protocol := []byte(nil)
	for range 12 {
		name, value, rest := cutLetters(b)
		switch string(name) {
		case "P":
			protocol = value
		case "A":
			// The size follows; where it does not, the line is cut, and so may be the name.
			if n := len(protocol); n > 0 && protocol[n-1] == 'a' && len(rest) > 0 {
				a.method, a.login = splitAuth(value)
			}
			return rest
		case "I", "U", "X", "CV", "SNI", "L", "PRX", "TFO", "B", "K", "M8S", "PRDR":
		case "DN":
			if len(rest) < len(b) && len(value) > 0 && value[0] == '"' {
				if end := quotedEnd(b[len("DN="):]); end > 0 {
					rest = bytes.TrimPrefix(b[len("DN=")+end:], []byte(" "))
				}
			}
		default:
			return b
		}
		b = rest
	}
	return b
}

// splitAuth reads "dovecot_login:alice@shop.test", and a sender that
// smtp_mailauth adds after another colon.
func splitAuth(b []byte) (method, login []byte) {
	method, login, ok := bytes.Cut(b, []byte(":"))
	if !ok {
		return method, nil
	}
	login, _, _ = bytes.Cut(login, []byte(":"))
	return method, login
}

// readRest reads S=, the subject and the recipients. The recipients are the
// last on the line, and the subject is what stands in quotes before them.
func (a *arrival) readRest(b []byte) {
	if at := indexField(b, "S="); at >= 0 {
		a.size = leadingNumber(b[at+2:])
	}
	head := b
	if at := lastFor(b); at >= 0 {
		a.rcpts, head = b[at+len(" for "):], b[:at]
	}
	if n := len(head); n > 0 && head[n-1] == '>' {
		if at := lastFrom(head); at >= 0 {
			head = head[:at+1]
		}
	}
	at := indexField(head, `T="`)
	if at >= 0 && len(head) > at+3 && head[len(head)-1] == '"' {
		a.subject = head[at+3 : len(head)-1]
	}
}

// indexField is where name stands first in b as that of a field, at its head or after
// a space; -1 if nowhere. It looks for the name's first letter, which is rarer than
// spaces are.
func indexField(b []byte, name string) int {
	for from := 0; from < len(b); from++ {
		at := bytes.IndexByte(b[from:], name[0])
		if at < 0 {
			return -1
		}
		from += at
		if (from == 0 || b[from-1] == ' ') && len(b)-from >= len(name) && string(b[from:from+len(name)]) == name {
			return from
		}
	}
	return -1
}

// lastFrom is where `" from <`, which follows a subject, stands last in b, or -1.
func lastFrom(b []byte) int {
	for at := len(b); ; {
		if at = bytes.LastIndexByte(b[:at], '<'); at < 0 || bytes.HasSuffix(b[:at], []byte(`" from `)) {
			return max(at-len(`" from `), -1)
		}
	}
}

// lastFor returns where " for <recipients>" begins, -1 if the line does not
// end in a list of addresses. A subject that says "for" ends in a quote.
func lastFor(b []byte) int {
	at := lastWord(b, " for ")
	if at <= 0 {
		return -1
	}
	list := b[at+len(" for "):]
	for len(list) > 0 {
		var addr []byte
		if addr, list = cutAddress(list); len(addr) == 0 {
			return -1
		}
		if n := bytes.LastIndexByte(addr, '@'); n < 1 || bytes.IndexByte(addr[n:], '"') >= 0 {
			return -1
		}
	}
	return at
}

// lastWord is where word, which begins with a space, stands last in b, or -1.
func lastWord(b []byte, word string) int {
	for at := len(b); ; {
		if at = bytes.LastIndexByte(b[:at], ' '); at < 0 || bytes.HasPrefix(b[at:], []byte(word)) {
			return at
		}
	}
}

// cutAddress cuts an address off b, its quoted local part first; "<>" is
// empty. It returns nil if there is none.
func cutAddress(b []byte) (addr, rest []byte) {
	i := 0
	if len(b) > 0 && b[0] == '"' {
		if i = quotedEnd(b); i < 0 {
			return nil, nil
		}
	}
	if end := bytes.IndexByte(b[i:], ' '); end >= 0 {
		addr, rest = b[:i+end], b[i+end+1:]
	} else {
		addr = b
	}
	if string(addr) == "<>" {
		return addr[:0], rest
	}
	if len(addr) == 0 {
		return nil, rest
	}
	return addr, rest
}

// cutWord cuts b at its first space.
func cutWord(b []byte) (word, rest []byte) {
	if at := bytes.IndexByte(b, ' '); at >= 0 {
		return b[:at], b[at+1:]
	}
	return b, nil
}

// cutLetters cuts "NAME=value" off b. name is nil if there is none.
func cutLetters(b []byte) (name, value, rest []byte) {
	word, rest := cutWord(b)
	at := bytes.IndexByte(word, '=')
	if at < 1 || at > 4 {
		return nil, nil, b
	}
	return word[:at], word[at+1:], rest
}

// eximArrival makes ev the Submitted of a message that Exim accepted.
func (p *Parser) eximArrival(ev *Event, n *instance, pid, key uint64, id, b []byte) bool {
	a, clear := readArrival(b)
	if !clear {
		p.stats.Ambiguous++
	}
	if a.sender == nil {
		return false
	}
	o := p.open.byKey.get(key)
	if o == nil || o.is(isSubmitted) { // else it was delivered by cutthrough first
		o = p.begin(n, key, id)
	}
	o.flags |= isExim
	o.last = p.stamps.sec
	o.size, o.peer = a.size, a.peer
	p.eximAccount(o, n, pid, &a)
	o.sender = p.address(a.sender, o.account)
	if o.account != "" {
		o.named.clear() // whom cutthrough named was nobody's recipient yet
	}
	p.unpark(o)
	added := p.eximRecipients(o, a.rcpts)
	p.submit(ev, o)
	if len(ev.New) == 0 {
		ev.New = added
	} else {
		ev.New = append(ev.New, added...)
	}
	ev.Rcpts = int(o.rcpts)
	ev.Subject = subject(a.subject)
	return true
}

// eximAccount finds who answers for a message.
func (p *Parser) eximAccount(o *open, n *instance, pid uint64, a *arrival) {
	switch {
	case len(a.login) > 0:
		o.account = p.login(a.login)
		o.method = p.word(a.method)
	case len(a.parent) > 0 && len(a.sender) == 0:
		o.flags |= isPlain // a bounce is nobody's
	case len(a.user) > 0:
		user := p.word(a.user)
		if o.script = p.scriptOf(n, pid, user); o.script != "" && isScript(o.script) {
			o.account, o.fallback = p.scriptAccount(o.script), p.userAccount(a.user)
		} else {
			o.account = p.userAccount(a.user)
		}
	case p.Directory.trusts(a.peer):
		o.fallback = p.clientAccount(a.peer)
	}
}

func (p *Parser) userAccount(name []byte) Account {
	p.scratch = append(append(p.scratch[:0], "user:"...), name...)
	return Account(p.word(p.scratch))
}

func (p *Parser) scriptAccount(path string) Account {
	p.scratch = append(append(p.scratch[:0], "script:"...), path...)
	return Account(p.word(p.scratch))
}

// eximRecipients names the recipients of a list that no event has named.
func (p *Parser) eximRecipients(o *open, list []byte) (added []Recipient) {
	for len(list) > 0 {
		var addr []byte
		addr, list = cutAddress(list)
		o.rcpts++
		r := p.recipient(addr)
		if !o.named.name(r) {
			continue
		}
		p.addDomain(o, r.Domain)
		if added == nil && len(list) == 0 {
			return p.one(r)
		}
		added = append(added, r)
	}
	return added
}

// subject returns a logged subject as text: "\"" is a quote, "\n" a line that
// goes on, "\303" a byte.
func subject(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return clean(b, maxText)
	}
	b = b[:min(len(b), 4*maxText)]
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			out = append(out, b[i])
			continue
		}
		i++
		switch {
		case b[i] == 'n' || b[i] == 't' || b[i] == 'r':
			out = append(out, ' ')
		case i+2 < len(b) && isOctal(b[i]) && isOctal(b[i+1]) && isOctal(b[i+2]):
			out = append(out, (b[i]-'0')<<6|(b[i+1]-'0')<<3|(b[i+2]-'0'))
			i += 2
		default:
			out = append(out, b[i])
		}
	}
	return clean(out, maxText)
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// A directory is where a process stood that called Exim and that no message
// has been joined to yet.
type directory struct {
	path string
	pid  uint64
	at   int64
}

const (
	cwdWithin = 1 // seconds between a cwd= line without a pid and its message
	maxDirs   = 8
)

// eximCwd reads "cwd=/home/u/public_html 4 args: /usr/sbin/sendmail -t -i".
// Exim's own children, the daemon, and calls that send nothing are no scripts.
func (p *Parser) eximCwd(n *instance, pid uint64, b []byte) {
	at := bytes.Index(b, []byte(" args: "))
	if at < 0 {
		return
	}
	path, call := b[:at], b[at+len(" args: "):]
	if space := bytes.LastIndexByte(path, ' '); space > 0 {
		path = path[:space]
	} else {
		return
	}
	if !sendsMail(path, call) {
		return
	}
	if pid != 0 {
		s := p.sessions.take(mix(n.seed, pid))
		s.cwd = p.word(path)
		return
	}
	if len(p.dirs) >= maxDirs {
		p.dirs = p.dirs[:copy(p.dirs, p.dirs[1:])]
	}
	p.dirs = append(p.dirs, directory{p.word(path), pid, p.stamps.sec})
}

// sendsMail reports whether a call of Exim hands in a message of its own.
func sendsMail(cwd, call []byte) bool {
	if bytes.HasSuffix(cwd, []byte("/spool")) || bytes.Contains(cwd, []byte("/spool/exim")) {
		return false
	}
	for len(call) > 0 {
		var arg []byte
		arg, call = cutWord(call)
		if len(arg) < 2 || arg[0] != '-' {
			continue
		}
		switch arg[1] {
		case 'M', 'q', 'E', 'R', 'S': // deliver, run the queue, an error message
			return false
		case 'b':
			switch string(arg) {
			case "-bd", "-bdf", "-bp", "-bpc", "-bpr", "-bpu", "-bpa", "-bpi", "-bpra", "-bpru", "-bV", "-bt", "-bv", "-bP", "-bw", "-be", "-bh", "-bi", "-bI:help":
				return false
			}
		}
	}
	return true
}

// scriptOf returns the directory from which the process of a local message
// called Exim: by pid where both lines have it, else the directory of the
// last second that is the only one, or the only one of that user.
func (p *Parser) scriptOf(n *instance, pid uint64, user string) string {
	if pid != 0 {
		if s := p.sessions.find(mix(n.seed, pid)); s != nil && s.cwd != "" {
			cwd := s.cwd
			p.sessions.drop(s.key)
			return cwd
		}
	}
	keep := p.dirs[:0]
	for _, d := range p.dirs {
		if age := p.stamps.sec - d.at; age >= 0 && age <= cwdWithin {
			keep = append(keep, d)
		}
	}
	p.dirs = keep
	found, at := 0, -1
	for i, d := range p.dirs {
		if len(p.dirs) == 1 || strings.Contains(d.path+"/", "/"+user+"/") {
			if at < 0 {
				at = i
			}
			if d.path != p.dirs[at].path {
				found++
			}
		}
	}
	if at < 0 || found > 0 {
		return ""
	}
	path := p.dirs[at].path
	p.dirs = append(p.dirs[:at], p.dirs[at+1:]...)
	return path
}

// isScript reports whether mail sent from a directory is a web script's.
// Directories of the system, of everybody, and a user's home itself say less
// than the user's name does.
func isScript(path string) bool {
	if len(path) < 2 || path[0] != '/' {
		return false
	}
	for _, s := range [...]string{"/root", "/tmp", "/var/tmp", "/dev", "/etc", "/usr", "/run", "/proc", "/bin", "/sbin", "/var/spool", "/var/lib", "/var/run", "/sys"} {
		if path == s || strings.HasPrefix(path, s+"/") {
			return false
		}
	}
	if rest, ok := strings.CutPrefix(path, "/home/"); ok {
		return strings.Contains(strings.Trim(rest, "/"), "/")
	}
	return strings.Contains(path[1:], "/")
}

// A transfer is what Exim logs about one recipient.
type transfer struct {
	to        []byte     // the address that was delivered to, or a path, or a pipe
	original  []byte     // in angle brackets: what the sender wrote, if it was another
	host      []byte     // H=, of deliveries to other servers
	from      netip.Addr // I=, of deliveries to other servers: our end of the connection
	transport []byte
	text      []byte // C=, or what follows the fields
}

// readTransfer reads what follows an arrow: "alice <alice@shop.test> F=<..>
// R=inside T=inbox S=1928 H=.. C="250 .." QT=0s DT=0s", for failures and
// deferrals with ": text" after the fields.
func readTransfer(b []byte) (t transfer, ok bool) {
	whole := b
	t.to, b = cutAddress(b)
	if t.to == nil {
		return t, false
	}
	for len(b) > 0 && (b[0] == '(' || b[0] == '<' && t.original == nil) { // the addresses it came from
		word, rest := cutWord(b)
		if word[0] == '<' {
			end := addressEnd(b[1:])
			if end < 0 {
				return t, false
			}
			t.original = b[1 : 1+end]
			rest = bytes.TrimPrefix(b[end+2:], []byte(" "))
		}
		b = rest
	}
	t.to = bytes.TrimSuffix(t.to, []byte(":"))
	t.readFields(b)
	if t.from.IsValid() && (len(whole) > maxClear || indexField(whole[indexField(whole, "T=")+1:], "T=") >= 0) {
		t.from = netip.Addr{} // of a local part that Exim wrote without its quotes
	}
	return t, true
}

// maxClear is how long a line may be for it to be whole: Exim cuts at 8 KB, so
// that what it wrote after a stranger's text may be missing.
const maxClear = 4096

func (t *transfer) readFields(b []byte) {
	for range 24 {
		word, rest := cutWord(b)
		switch letter, value := cutLetter(word); letter {
		case 'F', 'P':
			if len(value) == 0 || value[0] != '<' {
				break
			}
			end := addressEnd(b[3:])
			if end < 0 {
				return
			}
			rest = b[3+end+1:]
			if bytes.HasPrefix(rest, colonSpace) {
				t.text = rest[2:]
				return
			}
			rest = bytes.TrimPrefix(rest, []byte(" "))
		case 'H':
			t.host = value
			if t.transport != nil {
				t.from = ourEnd(rest)
			}
		case 'T':
			t.transport = value
		case 'C':
			if len(value) == 0 || value[0] != '"' {
				break
			}
			if end := quotedEnd(b[2:]); end > 0 {
				t.text = b[3 : 2+end-1]
			}
			return
		case 0:
			if !bytes.HasPrefix(b, []byte(`DN="`)) {
				break
			}
			if end := quotedEnd(b[3:]); end > 0 {
				rest = bytes.TrimPrefix(b[3+end:], []byte(" "))
			}
		}
		if n := len(word); n > 0 && word[n-1] == ':' && len(rest) > 0 { // the fields are over
			t.text = rest
			return
		}
		if len(rest) == 0 {
			return
		}
		b = rest
	}
}

// cutLetter cuts "X=value"; letter is 0 if the name is not of one letter.
func cutLetter(word []byte) (letter byte, value []byte) {
	if len(word) < 2 || word[1] != '=' {
		return 0, nil
	}
	return word[0], word[2:]
}

// ourEnd reads "DS [192.0.2.7]:25 I=[203.0.113.9]:39966", which follows the
// name in H=. With a proxy, PRX= comes before I=, and nobody else sees that
// address.
func ourEnd(b []byte) (addr netip.Addr) {
	_, b, ok := addrOf(bytes.TrimPrefix(b, []byte("DS ")))
	if !ok {
		return addr
	}
	port, b := cutWord(b)
	if bytes.HasSuffix(port, []byte(":")) || !bytes.HasPrefix(b, []byte("I=")) { // with the colon the fields are over
		return addr
	}
	if addr, _, ok = addrOf(b[len("I="):]); !ok {
		return netip.Addr{}
	}
	return addr
}

// eximOutcome makes ev what happened to one recipient.
func (p *Parser) eximOutcome(ev *Event, kind Kind, o *open, b []byte) bool {
	t, ok := readTransfer(b)
	if !ok {
		return false
	}
	if o == nil {
		p.stats.Orphans++
		return false
	}
	p.open.touch(o, p.stamps.sec)
	p.fill(ev, kind, o)
	local := bytes.IndexByte(t.to, '@') < 0 || t.to[0] == '/' || t.to[0] == '|' || t.to[0] == ':'
	final := t.to
	if local && len(t.original) > 0 {
		final = t.original
	}
	ev.To = p.recipient(final)
	ev.Reply = p.eximReply(kind, &t)
	if !local {
		ev.From = t.from
	}
	if kind == Delivered && len(t.host) == 0 && !isProgram(t.to) {
		p.putInto(ev, final, o)
	}
	written := ev.To
	forwarded := !local && len(t.original) > 0 && !sameDomain(t.original, t.to)
	switch {
	case o.account == "" && !o.is(isPlain) && len(t.host) > 0 && forwarded:
		p.charge(ev, o, p.forwardAccount(t.original))
	case o.account == "" && !o.is(isPlain) && len(t.host) > 0:
		p.charge(ev, o, o.fallback)
	case len(t.original) > 0:
		written = p.recipient(t.original)
	}
	p.name(ev, o, written)
	return p.eximVerdict(ev, o, kind, &t)
}

// isProgram reports whether mail for the address goes to a program, or nowhere.
func isProgram(addr []byte) bool { return len(addr) > 0 && (addr[0] == '|' || addr[0] == ':') }

// eximVerdict says what an outcome counts as: one of our own limits is no
// bounce, and a retry whose time has not come is no attempt.
func (p *Parser) eximVerdict(ev *Event, o *open, kind Kind, t *transfer) bool {
	switch kind {
	case Bounced:
		if bytes.Contains(t.text, []byte("Message discarded")) {
			ev.Kind, ev.Reply.Class = Refused, LocalPolicy
		}
	case Deferred:
		if bytes.Contains(t.text, []byte("retry time not reached")) {
			ev.Reply.Class = Unclassified
			if len(ev.New) == 0 && !ev.Counts {
				*ev = Event{}
				return false
			}
			return true
		}
		o.retries++
		o.reason = ev.Reply.Class
	}
	return true
}

// eximReply makes a Reply of a delivery, failure or deferral.
func (p *Parser) eximReply(kind Kind, t *transfer) (r Reply) {
	text := t.text
	if len(t.host) == 0 && kind == Delivered {
		return Reply{Class: OK, Provider: providerLocal}
	}
	r.Provider = p.relay(t.host).provider
	if kind == Delivered {
		var enhanced []byte
		r.Class = OK
		if r.Code, enhanced = readCodes(text); len(enhanced) > 0 {
			r.Enhanced = p.word(enhanced)
		}
		return r
	}
	text = withoutTimes(text)
	remote := false
	if rest, ok := bytes.CutPrefix(text, []byte("SMTP error from remote mail server ")); ok {
		text, remote = afterCommand(rest), true
	} else if rest, ok := bytes.CutPrefix(text, []byte("LMTP error from remote mail server ")); ok {
		text, remote = afterCommand(rest), true
	} else if rest, ok := bytes.CutPrefix(text, []byte("LMTP error after ")); ok {
		text, remote = afterCommand(rest), true
	}
	var enhanced []byte
	if remote {
		r.Code, enhanced = readCodes(text)
		r.Enhanced = p.word(enhanced)
	}
	provider := r.Provider
	if provider == "" && remote {
		provider = providerIn(text)
	}
	r.Text = clean(text, maxText)
	r.Class = p.said.classify(provider, r.Code, enhanced, text, remote)
	return r
}

// withoutTimes takes " QT=1s DT=0s" off the end.
func withoutTimes(b []byte) []byte {
	for range 3 {
		at := bytes.LastIndexByte(b, ' ')
		if at < 0 {
			return b
		}
		switch tail := b[at+1:]; {
		case bytes.HasPrefix(tail, []byte("DT=")), bytes.HasPrefix(tail, []byte("QT=")), bytes.HasPrefix(tail, []byte("D=")):
			b = b[:at]
		default:
			return b
		}
	}
	return b
}

// afterCommand reads "after RCPT TO:<r1@hard.test>: 550 5.1.1 ..": what the
// server said is the first that looks like a reply.
func afterCommand(b []byte) []byte {
	for rest := b; ; {
		at := bytes.Index(rest, colonSpace)
		if at < 0 {
			return b
		}
		rest = rest[at+2:]
		if code, _ := readCodes(rest); code != 0 {
			return rest
		}
	}
}

// eximLoginFailed reads "(vm) [127.0.0.1]:46012 I=[..]: 535 Incorrect
// authentication data (set_id=alice@shop.test)". The name is what the client
// typed and stands last.
func (p *Parser) eximLoginFailed(ev *Event, method, b []byte) bool {
	var room [maxPeers]peer
	peers := findPeers(room[:0], b)
	if len(peers) == 0 {
		return false
	}
	who := peers[0]
	var account Account
	if _, rest, ok := bytes.Cut(who.rest, []byte(": 535 ")); ok || bytes.HasPrefix(who.rest, colonSpace) {
		if !ok {
			rest = who.rest
		}
		if _, name, ok := bytes.Cut(rest, []byte("(set_id=")); ok {
			account = p.login(bytes.TrimSuffix(name, []byte(")")))
		}
	}
	if len(peers) > 1 {
		p.stats.Ambiguous++
		who.addr, account = netip.Addr{}, ""
	}
	return p.loginFailed(ev, fromServer, account, who.addr, p.word(method), "smtp", 1)
}

// eximRejected reads "H=(vm) [..]:43976 I=[..] F=<carol@shop.test>
// A=dovecot_plain:carol@shop.test rejected RCPT <r1@ok.test>: text".
func (p *Parser) eximRejected(ev *Event, o *open, b []byte) bool {
	var room [maxPeers]peer
	peers := findPeers(room[:0], b[len("H="):])
	if len(peers) == 0 {
		return false
	}
	r, ok := readRejection(peers[0].rest)
	if !ok {
		return false
	}
	for _, other := range peers[1:] {
		if alt, ok := readRejection(other.rest); ok && !bytes.Equal(alt.login, r.login) {
			p.stats.Ambiguous++
			r.login = nil
		}
	}
	if o != nil {
		p.fill(ev, Refused, o)
	}
	ev.Time, ev.Kind, ev.Host = p.stamps.time(), Refused, p.host.name
	ev.Sender, ev.Client = p.address(r.from, ""), peers[0].addr
	if len(r.login) > 0 {
		ev.Account = p.login(r.login)
	}
	if len(r.to) > 0 {
		ev.To = p.recipient(r.to)
	}
	ev.Reply = ownReply(r.text)
	return true
}

// A rejection is who was refused what.
type rejection struct {
	from, login, to, text []byte
}

// readRejection reads "I=[..] X=.. F=<..> A=driver:name rejected RCPT <..>:
// text", and with "temporarily" before, or "after DATA".
func readRejection(b []byte) (r rejection, ok bool) {
	for range 12 {
		if rest, ok := cutAny(b, "rejected ", "temporarily rejected "); ok {
			if at := bytes.IndexByte(rest, '<'); at >= 0 && at < 24 {
				if end := addressEnd(rest[at+1:]); end >= 0 {
					r.to = rest[at+1 : at+1+end]
				}
			}
			if _, text, ok := bytes.Cut(rest[len(r.to):], colonSpace); ok {
				r.text = text
			}
			return r, true
		}
		word, rest := cutWord(b)
		switch {
		case bytes.HasPrefix(b, []byte("F=<")):
			end := addressEnd(b[3:])
			if end < 0 {
				return r, false
			}
			r.from = b[3 : 3+end]
			rest = bytes.TrimPrefix(b[3+end+1:], []byte(" "))
		case bytes.HasPrefix(b, []byte("A=")):
			_, r.login = splitAuth(word[2:])
		case bytes.HasPrefix(b, []byte("DN=\"")):
			if end := quotedEnd(b[3:]); end > 0 {
				rest = bytes.TrimPrefix(b[3+end:], []byte(" "))
			}
		}
		if len(rest) == 0 {
			return r, false
		}
		b = rest
	}
	return r, false
}
