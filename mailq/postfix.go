package mailq

import (
	"bytes"
	"net/netip"
)

// A daemon is a Postfix program whose lines concern us.
type daemon uint8

const (
	otherDaemon daemon = iota
	smtpdDaemon
	cleanupDaemon
	qmgrDaemon
	pickupDaemon
	bounceDaemon
	postsuperDaemon
	smtpDaemon  // delivers to other servers
	localDaemon // local, virtual, pipe, lmtp: delivers on this server
	pipeDaemon
	errorDaemon // error, retry, discard: delivers to nobody
)

// kindOf says which program a syslog tag names. Of a path the last element is
// the daemon: postfix/submission/smtpd.
func kindOf(tag []byte) (programKind, daemon) {
	slash := bytes.LastIndexByte(tag, '/')
	if slash >= 0 {
		d, known := postfixDaemon(tag[slash+1:])
		switch {
		case known && d != otherDaemon:
			return postfixProgram, d
		case known, bytes.HasPrefix(tag, []byte("postfix")):
			return ignoredProgram, 0
		}
	}
	switch string(tag) {
	case "exim", "exim4":
		return eximProgram, 0
	case "dovecot":
		return dovecotProgram, 0
	case "rsyslogd", "systemd-journald", "systemd-journal", "journal", "rsyslogd-2177":
		return loggerProgram, 0
	}
	return unknownProgram, 0
}

func postfixDaemon(name []byte) (d daemon, known bool) {
	switch string(name) {
	case "smtpd":
		return smtpdDaemon, true
	case "cleanup":
		return cleanupDaemon, true
	case "qmgr", "oqmgr", "nqmgr":
		return qmgrDaemon, true
	case "pickup":
		return pickupDaemon, true
	case "bounce":
		return bounceDaemon, true
	case "postsuper":
		return postsuperDaemon, true
	case "smtp":
		return smtpDaemon, true
	case "local", "virtual", "lmtp":
		return localDaemon, true
	case "pipe":
		return pipeDaemon, true
	case "error", "retry", "discard":
		return errorDaemon, true
	case "anvil", "master", "postscreen", "dnsblog", "tlsproxy", "tlsmgr", "scache", "trivial-rewrite", "verify", "proxymap",
		"proxywrite", "postfix-script", "flush", "showq", "postlogd", "defer", "trace", "qmqpd", "spawn", "sendmail", "postdrop":
		return otherDaemon, true
	}
	return otherDaemon, false
}

var colonSpace = []byte(": ")

// postfix reads what a Postfix daemon wrote.
func (p *Parser) postfix(ev *Event, g *program, pid uint64, b []byte) bool {
	n := g.instance
	if g.daemon == qmgrDaemon {
		n.manages = true
	}
	id, rest, hasID := cutQueueID(b)
	if !hasID {
		if g.daemon == smtpdDaemon {
			return p.smtpdSession(ev, n, pid, b)
		}
		return false
	}
	switch g.daemon {
	case smtpdDaemon:
		return p.smtpd(ev, n, pid, id, rest)
	case cleanupDaemon:
		return p.cleanup(ev, n, id, rest)
	case qmgrDaemon:
		return p.qmgr(ev, n, id, rest)
	case pickupDaemon:
		return p.pickup(n, id, rest)
	case bounceDaemon:
		return p.bounce(n, rest)
	case postsuperDaemon:
		return p.postsuper(ev, n, id, rest)
	}
	return p.delivery(ev, g, id, rest)
}

// cutName cuts "name=value" at its first '='; the name is empty if there is none.
func cutName(b []byte) (name, value []byte) {
	at := bytes.IndexByte(b, '=')
	if at < 0 {
		return nil, b
	}
	return b[:at], b[at+1:]
}

// cutQueueID takes "4jXHfX6Vsnz1SNbS: " off b.
func cutQueueID(b []byte) (id, rest []byte, ok bool) {
	i := bytes.IndexByte(b[:min(len(b), 25)], ':')
	if i < 6 || i+2 > len(b) || b[i+1] != ' ' || !isQueueID(b[:i]) {
		return nil, b, false
	}
	return b[:i], b[i+2:], true
}

// find returns the open message with a queue id. A daemon may be told to log
// under a name that is not its instance's (-o syslog_name=), so what is not
// found under one name is looked for under the others that can be meant.
func (p *Parser) find(n *instance, id []byte) *open {
	key := p.key(n, id)
	if o := p.open.byKey.get(key); o != nil {
		return o
	}
	for _, other := range p.host.instances {
		if other == n || n.manages && other.manages {
			continue
		}
		o := p.open.byKey.get(p.key(other, id))
		if o == nil {
			continue
		}
		if n.manages { // from now on under the name of its queue
			p.open.rename(o, key, n)
		}
		return o
	}
	return nil
}

// smtpdSession reads the lines of smtpd that belong to no message.
func (p *Parser) smtpdSession(ev *Event, n *instance, pid uint64, b []byte) bool {
	process := mix(n.seed, pid)
	word, rest := cutWord(b)
	switch string(word) {
	case "connect", "disconnect":
		p.sessions.drop(process)
	case "NOQUEUE:":
		if name, fields := cutName(rest); string(name) == "client" {
			p.proxied.begin(p, fields)
			return false
		}
		return p.refusal(ev, nil, process, rest)
	case "warning:":
		return p.saslFailure(ev, rest)
	}
	return false
}

// smtpd reads a line of smtpd about a message.
func (p *Parser) smtpd(ev *Event, n *instance, pid uint64, id, b []byte) bool {
	process := mix(n.seed, pid)
	name, fields := cutName(b)
	if string(name) != "client" {
		return p.refusal(ev, p.find(n, id), process, b)
	}
	// The line says that smtpd began to receive, not that it accepted.
	o := p.begin(n, p.key(n, id), id)
	c := readClient(fields)
	o.peer = c.addr
	if len(c.login) > 0 {
		o.account = p.login(c.login)
		o.method = p.word(c.method)
		s := p.sessions.take(process)
		s.account, s.peer = o.account, o.peer
	} else if p.Directory.trusts(c.addr) {
		o.fallback = p.clientAccount(c.addr)
	}
	if s := p.sessions.find(process); s != nil && s.hold {
		s.hold = false
		o.flags |= willHold
	}
	if len(c.origID) > 0 {
		if parent := p.find(n, c.origID); parent != nil {
			p.rejoin(o, parent)
			p.open.mark(o, isSure, 0)
		}
	} else if len(c.orig) > 0 && o.account == "" {
		p.proxied.end(p, o, c.orig)
	}
	p.unpark(o)
	return false
}

// proxied remembers the sessions that smtpd passes through a filter before
// there is a queue (smtpd_proxy_filter). It names their logins under NOQUEUE;
// the id is given behind the filter, where only the peer is told again.
type proxied [1024]struct {
	peer    uint64 // hash of host and "name[address]"
	at      int64
	account Account
	method  string
	addr    netip.Addr
	several bool // logins from there at once: nobody can tell which is meant
}

const proxiedFor = 10 * 60 // seconds between the session's line and the message's

// begin reads "name[address], sasl_method=.., sasl_username=..".
func (s *proxied) begin(p *Parser, fields []byte) {
	c := readClient(fields)
	if len(c.login) == 0 {
		return
	}
	name, _ := cutField(fields)
	peer, now := p.hash(name)^p.host.seed, p.stamps.sec
	account := p.login(c.login)
	e := &s[peer%uint64(len(s))]
	recent := e.peer == peer && now-e.at < proxiedFor
	e.several = recent && (e.several || e.account != account)
	e.peer, e.at, e.account, e.method, e.addr = peer, now, account, p.word(c.method), c.addr
}

// end gives o the login of the session that its orig_client names.
func (s *proxied) end(p *Parser, o *open, name []byte) {
	peer := p.hash(name) ^ p.host.seed
	e := &s[peer%uint64(len(s))]
	if e.peer != peer || e.several || p.stamps.sec-e.at >= proxiedFor {
		return
	}
	o.account, o.method, o.peer, o.fallback = e.account, e.method, e.addr, ""
}

// clientAccount interns client:ADDRESS.
func (p *Parser) clientAccount(addr netip.Addr) Account {
	p.scratch = append(p.scratch[:0], KindClient...)
	p.scratch = append(p.scratch, ':')
	p.scratch = addr.AppendTo(p.scratch)
	return Account(p.word(p.scratch))
}

// client is what smtpd says about the peer that sends a message.
type client struct {
	addr   netip.Addr
	method []byte
	login  []byte
	origID []byte // XFORWARD: what the message was to the server before
	orig   []byte
}

// readClient reads "name[address], sasl_method=.., sasl_username=.., .." by
// position. Only a login that was let in stands here.
func readClient(b []byte) (c client) {
	at := bytes.IndexByte(b, '[')
	if at < 0 {
		return c
	}
	var ok bool
	if c.addr, b, ok = addrOf(b[at:]); !ok {
		return c
	}
	if len(b) > 0 && b[0] == ':' { // smtpd_client_port_logging
		at := indexComma(b)
		if at < 0 {
			return c
		}
		b = b[at:]
	}
	if len(b) == 0 {
		return c
	}
	const method, login = ", sasl_method=", ", sasl_username="
	if len(b) > len(method) && string(b[:len(method)]) == method {
		c.method, b = cutField(b[len(method):])
	}
	if len(b) > len(login) && string(b[:len(login)]) == login {
		c.login, b = cutField(b[len(login):])
	}
	if rest, ok := bytes.CutPrefix(b, []byte(", sasl_sender=")); ok {
		_, b = cutField(rest)
	}
	if rest, ok := bytes.CutPrefix(b, []byte(", orig_queue_id=")); ok {
		c.origID, b = cutField(rest)
	}
	if rest, ok := bytes.CutPrefix(b, []byte(", orig_client=")); ok {
		c.orig, _ = cutField(rest)
	}
	return c
}

// cutField cuts b before the next ", ".
func cutField(b []byte) (value, rest []byte) {
	if at := indexComma(b); at >= 0 {
		return b[:at], b[at:]
	}
	return b, nil
}

// indexComma is where the next ", " stands, -1 if nowhere.
func indexComma(b []byte) int {
	for from := 0; ; {
		at := bytes.IndexByte(b[from:], ',')
		if at < 0 {
			return -1
		}
		if from += at; from+1 < len(b) && b[from+1] == ' ' {
			return from
		}
		from++
	}
}

// saslFailure reads "host[addr]: SASL PLAIN authentication failed: reason,
// sasl_username=alice@shop.test". The name is what the client typed, and
// stands last; a reason never holds the client's own text.
func (p *Parser) saslFailure(ev *Event, b []byte) bool {
	addr, rest, ok := cutPeer(b)
	if !ok {
		return false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte("SASL ")); !ok {
		return false
	}
	at := bytes.IndexByte(rest, ' ')
	if at < 0 || !bytes.HasPrefix(rest[at:], []byte(" authentication failed")) {
		return false
	}
	method := rest[:at]
	var account Account
	if _, name, ok := bytes.Cut(rest, []byte(", sasl_username=")); ok {
		account = p.login(name)
	}
	return p.loginFailed(ev, fromServer, account, addr, p.word(method), "smtp", 1)
}

// cutPeer takes "name[address]: " off b, or "name[address]:port: ".
func cutPeer(b []byte) (addr netip.Addr, rest []byte, ok bool) {
	at := bytes.IndexByte(b, '[')
	if at < 0 {
		return addr, b, false
	}
	if addr, rest, ok = addrOf(b[at:]); !ok {
		return addr, b, false
	}
	if len(rest) > 1 && rest[0] == ':' && rest[1] != ' ' {
		rest = afterDigits(rest[1:])
	}
	rest, ok = bytes.CutPrefix(rest, colonSpace)
	return addr, rest, ok
}

// pickup reads "uid=1001 from=<www@shop.test>[ orig_id=..]": a program on the
// server sent a message.
func (p *Parser) pickup(n *instance, id, b []byte) bool {
	rest, ok := bytes.CutPrefix(b, []byte("uid="))
	if !ok {
		return false
	}
	at := bytes.IndexByte(rest, ' ')
	if at < 0 {
		at = len(rest)
	}
	uid, ok := digits(rest[:at])
	if !ok {
		return false
	}
	var parent *open
	if at := bytes.LastIndex(rest, []byte("> orig_id=")); at >= 0 {
		parent = p.find(n, rest[at+len("> orig_id="):])
	}
	o := p.begin(n, p.key(n, id), id)
	o.account = p.uidAccount(uid, rest[:at])
	if parent != nil { // postsuper -r gave the message a new id
		method, peer := parent.method, parent.peer
		submitted := parent.is(isSubmitted)
		p.inherit(o, parent.account, parent.message)
		o.named.copyFrom(&parent.named)
		o.method, o.peer, o.script, o.fallback = method, peer, parent.script, parent.fallback
		o.noted, parent.noted = parent.noted, nil
		if !submitted {
			p.open.mark(o, 0, isReturned)
		}
		p.finish(parent)
	}
	p.unpark(o)
	return false
}

// uidAccount interns the account of a system user.
func (p *Parser) uidAccount(uid int64, text []byte) Account {
	if p.Directory != nil && len(p.Directory.Users) > 0 {
		return p.Directory.user(uid, string(text))
	}
	p.scratch = append(append(p.scratch[:0], "uid:"...), text...)
	return Account(p.word(p.scratch))
}

// cleanup reads a line of cleanup about a message.
func (p *Parser) cleanup(ev *Event, n *instance, id, b []byte) bool {
	o := p.find(n, id)
	switch name, value := cutName(b); string(name) {
	case "message-id":
		return p.messageID(ev, n, o, id, value)
	case "resent-message-id":
		return false
	}
	if o == nil {
		return false
	}
	if bytes.HasPrefix(b, []byte("removed (")) { // 3.10: canceled, discarded
		p.finish(o)
		return false
	}
	if header, ok := cutAny(b, "info: header ", "warning: header "); ok {
		p.scriptHeader(o, header)
		return false
	}
	if header, ok := bytes.CutPrefix(b, []byte("hold: header ")); ok {
		p.scriptHeader(o, header)
	}
	return p.refusal(ev, o, 0, b)
}

// noMessageID stands for the message id of mail that has none. Such mail is
// not recognised when it comes back.
const noMessageID = 1

// messageID takes note of a message's id, to know the message again when a
// filter brings it back. It is the sender's text and is only ever hashed.
func (p *Parser) messageID(ev *Event, n *instance, o *open, id, mid []byte) bool {
	if o == nil {
		// Neither a client nor a user sent it: Postfix did.
		o = p.begin(n, p.key(n, id), id)
		p.open.mark(o, isPlain, 0)
	}
	p.open.touch(o, p.stamps.sec)
	o.mid = noMessageID
	if len(mid) > len("<>") {
		o.mid = p.hash(mid) ^ p.host.seed
	}
	if o.is(willHold) && !o.is(isHeld) {
		p.open.mark(o, isHeld, willHold)
		p.hold(ev, o)
		return true
	}
	return false
}

// scriptHeader reads the script that PHP names in a header, where a header
// check logs it. Whoever logged in answers before any script, and what names
// another uid than the sender's is forged. Only the first header counts,
// readable or not: PHP writes its own before the program's.
func (p *Parser) scriptHeader(o *open, b []byte) {
	kind := o.account.Kind()
	if o.is(isSubmitted|isReturned|hasScript) || kind != KindUID && kind != KindUser {
		return
	}
	var script []byte
	if v, ok := bytes.CutPrefix(b, []byte("X-PHP-Originating-Script: ")); ok {
		script = p.ownScript(o, v)
	} else if v, ok := bytes.CutPrefix(b, []byte("X-PHP-Script: ")); ok {
		if name, _, ok := bytes.Cut(v, []byte(" for ")); ok {
			script, _ = cutWord(name)
		}
	} else {
		return
	}
	p.open.mark(o, hasScript, 0)
	if len(script) == 0 || len(script) > 200 {
		return
	}
	o.script = p.word(script)
	o.fallback, o.account = o.account, Account(KindScript+":"+o.script)
	p.open.changed(o)
}

// ownScript reads "33:mailer.php", nothing if the uid is not the sender's.
// Code in an eval(), "33:x.php(3) : eval()'d code", is the file's that it
// stands in.
func (p *Parser) ownScript(o *open, b []byte) []byte {
	script, rest := cutWord(b)
	if bytes.HasPrefix(rest, []byte(": ")) {
		script = cutLine(script)
	}
	uid, file, ok := bytes.Cut(script, []byte(":"))
	number, isNumber := digits(uid)
	if !ok || len(file) == 0 || !isNumber || p.uidAccount(number, uid) != o.account {
		return nil
	}
	return script
}

// cutLine takes the number of a line, "(3)", off the end of a name.
func cutLine(script []byte) []byte {
	at := bytes.LastIndexByte(script, '(')
	if at < 0 || script[len(script)-1] != ')' {
		return script
	}
	if _, ok := digits(script[at+1 : len(script)-1]); !ok {
		return script
	}
	return script[:at]
}

// qmgr reads a line of the queue manager about a message.
func (p *Parser) qmgr(ev *Event, n *instance, id, b []byte) bool {
	if string(b) == "removed" {
		o := p.find(n, id)
		if o == nil {
			return false
		}
		leaves := !o.is(isHandedOn) // else it is here still, under another id
		if leaves {
			p.fill(ev, Removed, o)
		}
		p.finish(o)
		return leaves
	}
	name, value := cutName(b)
	if string(name) != "from" || len(value) == 0 || value[0] != '<' {
		return false
	}
	sender, rest, ok := cutSender(value[1:])
	if !ok {
		return false
	}
	switch name, value := cutName(rest); string(name) {
	case "size":
		return p.active(ev, n, id, sender, value)
	case "status":
		if _, ok := cutAny(value, "expired", "force-expired"); ok {
			return p.expired(ev, p.find(n, id), rest)
		}
	}
	return false
}

// cutSender cuts b after the sender's ">, ". A sender without quotes may hold
// anything in versions before 3.5; what Postfix writes itself stands last.
func cutSender(b []byte) (sender, rest []byte, ok bool) {
	end := addressEnd(b)
	if end >= 0 && bytes.HasPrefix(b[end:], []byte(">, ")) && bytes.IndexByte(b[end+1:], '>') < 0 {
		return b[:end], b[end+3:], true
	}
	end = max(bytes.LastIndex(b, []byte(">, size=")), bytes.LastIndex(b, []byte(">, status=")))
	if end < 0 {
		return nil, nil, false
	}
	return b[:end], b[end+3:], true
}

// active reads "383, nrcpt=2 (queue active)": the message is in the queue.
func (p *Parser) active(ev *Event, n *instance, id, sender, b []byte) bool {
	const is = " (queue active)"
	if len(b) < len(is) || string(b[len(b)-len(is):]) != is {
		return false
	}
	o := p.find(n, id)
	if o != nil && o.is(isSubmitted) {
		p.open.touch(o, p.stamps.sec) // a retry, or a restart
		p.open.mark(o, 0, isHeld)
		return false
	}
	unseen := o == nil
	if unseen {
		o = p.begin(n, p.key(n, id), id)
	}
	p.open.touch(o, p.stamps.sec)
	size, counts, _ := bytes.Cut(b, []byte(", nrcpt="))
	o.size = leadingNumber(size)
	o.rcpts = int32(min(leadingNumber(counts), 1<<30))
	o.sender = p.address(sender, o.account)
	if unseen {
		// An old message whose beginning was not read. It was counted, or is nobody's.
		p.open.mark(o, isSubmitted, isHeld)
		return false
	}
	p.recognise(o)
	if o.is(isReturned) || o.is(isPlain) && o.sender != "" {
		// Counted under its first id, or by local(8) when it names this one.
		p.open.mark(o, isSubmitted, isHeld)
		return false
	}
	p.remember(o)
	p.submit(ev, o)
	return true
}

// recognise joins a message to the one that a filter was given: the same
// message id and sender, brought back from this host.
func (p *Parser) recognise(o *open) {
	if o.mid <= noMessageID || o.is(isReturned|isPlain) || o.account.Kind() == KindLogin || o.peer.IsValid() && !p.Directory.trusts(o.peer) {
		return
	}
	f := p.firsts.slot(o.mid)
	if f.mid != o.mid || f.key == o.key || f.sender != o.sender || o.last-f.at > day {
		return
	}
	if !o.peer.IsValid() { // by a program: only if one was given it
		if !f.piped {
			return
		}
		o.fallback, o.account = o.account, ""
	}
	if parent := p.open.byKey.get(f.key); parent != nil && parent.message == f.message {
		p.rejoin(o, parent)
		return
	}
	p.inherit(o, f.account, f.message)
}

// remember keeps a message's id for recognise.
func (p *Parser) remember(o *open) {
	if o.mid > noMessageID {
		*p.firsts.slot(o.mid) = first{mid: o.mid, key: o.key, message: o.message, account: o.account, sender: o.sender, at: o.last}
	}
}

// expired reads "status=expired, returned to sender": whoever is left of the
// recipients will not be tried again.
func (p *Parser) expired(ev *Event, o *open, b []byte) bool {
	if o == nil {
		return false
	}
	p.open.touch(o, p.stamps.sec)
	p.fill(ev, Bounced, o)
	ev.Rcpts = int(o.rcpts)
	ev.Reply = Reply{Class: o.reason, Enhanced: "4.4.7", Text: clean(b, maxText)}
	return true
}

// bounce reads "sender non-delivery notification: ID". That message is
// nobody's, whichever of its lines comes first.
func (p *Parser) bounce(n *instance, b []byte) bool {
	at := bytes.LastIndex(b, []byte("notification: "))
	if at < 0 {
		return false
	}
	id := b[at+len("notification: "):]
	if !isQueueID(id) || p.find(n, id) != nil {
		return false
	}
	key := p.key(n, id)
	if p.recent.has(key) {
		return false // it has come and gone
	}
	p.open.mark(p.begin(n, key, id), isPlain, 0)
	return false
}

// postsuper reads what an operator did to a message.
func (p *Parser) postsuper(ev *Event, n *instance, id, b []byte) bool {
	o := p.find(n, id)
	if o == nil {
		return false
	}
	p.open.touch(o, p.stamps.sec)
	switch string(b) {
	case "placed on hold":
		p.hold(ev, o)
		p.open.mark(o, isHeld, 0)
	case "released from hold":
		p.fill(ev, Released, o)
		p.release(o)
	case "removed":
		p.fill(ev, Removed, o)
		p.finish(o)
	default: // requeued: pickup will name the new id; expired: qmgr will say so
		return false
	}
	return true
}

// release takes o off hold. It stays as long as an accepted message does,
// although it may not have been counted yet.
func (p *Parser) release(o *open) {
	p.open.mark(o, 0, isHeld)
}

// refusal reads what smtpd and cleanup decided about a message or recipient:
// "reject: RCPT from host[addr]: text; from=<..> to=<..> proto=.. helo=<..>".
// o is the message, nil if there is none yet; process that of the session, 0
// if there is none.
func (p *Parser) refusal(ev *Event, o *open, process uint64, b []byte) bool {
	verb, rest, ok := bytes.Cut(b[:min(len(b), maxLine)], colonSpace)
	if !ok || len(verb) > 16 {
		return false
	}
	switch string(verb) {
	case "reject", "milter-reject", "discard", "milter-discard":
		return p.refused(ev, o, process, verb, rest)
	case "hold", "milter-hold":
		return p.held(ev, o, process)
	}
	return false // warn, redirect, filter, info, replace, …: the message goes on
}

func (p *Parser) held(ev *Event, o *open, process uint64) bool {
	switch {
	case o == nil && process != 0:
		p.sessions.take(process).hold = true // its queue id is still to come
		return false
	case o == nil:
		return false
	case o.is(isHeld):
		return false
	case process != 0 && o.mid == 0: // by smtpd, before cleanup has the message
		p.open.mark(o, willHold, 0)
		return false
	}
	p.open.touch(o, p.stamps.sec)
	p.open.mark(o, isHeld, willHold)
	p.hold(ev, o)
	return true
}

func (p *Parser) refused(ev *Event, o *open, process uint64, verb, b []byte) bool {
	stage, rest, _ := bytes.Cut(b, []byte(" from "))
	about := readAbout(rest)
	if o != nil {
		p.fill(ev, Refused, o)
	} else {
		ev.Time, ev.Kind, ev.Host = p.stamps.time(), Refused, p.host.name
		ev.Sender = p.address(about.from, "")
		if s := p.sessions.find(process); s != nil && process != 0 {
			ev.Account = s.account
		}
	}
	if !ev.Client.IsValid() {
		ev.Client = about.addr
	}
	if login := about.who(); len(login) > 0 && (o == nil || o.account == "") {
		ev.Account = p.login(login)
	}
	if len(about.to) > 0 {
		ev.To = p.recipient(about.to)
	}
	ev.Reply = ownReply(about.text)
	if o != nil && endsMessage(stage, verb) {
		p.finish(o)
	}
	return true
}

// endsMessage reports whether a refusal at stage leaves nothing of the
// message. At RCPT others may be accepted.
func endsMessage(stage, verb []byte) bool {
	if bytes.HasSuffix(verb, []byte("discard")) && string(stage) != "RCPT" {
		return true
	}
	switch string(stage) {
	case "DATA", "END-OF-MESSAGE", "BDAT":
		return true
	}
	return bytes.HasPrefix(stage, []byte("header ")) || bytes.HasPrefix(stage, []byte("body ")) ||
		bytes.HasPrefix(stage, []byte("mime-"))
}

// about is the tail of a refusal: who wrote to whom.
type about struct {
	addr                  netip.Addr
	text, from, to, login []byte
}

// who is the login that a refusal names: as its last word, or as what it is
// about, "554 5.7.1 <bob@blog.test>: SASL login name rejected: text".
func (a *about) who() []byte {
	if len(a.login) > 0 {
		return a.login
	}
	code, enhanced := readCodes(a.text)
	if code == 0 {
		return nil
	}
	rest := bytes.TrimPrefix(a.text[len("554"):], []byte(" "))
	if len(enhanced) > 0 {
		rest = bytes.TrimPrefix(rest[len(enhanced):], []byte(" "))
	}
	rest, ok := bytes.CutPrefix(rest, []byte("<"))
	end := bytes.IndexByte(rest, '>')
	if !ok || end < 1 || !bytes.HasPrefix(rest[end:], []byte(">: SASL login name ")) || bytes.ContainsAny(rest[:end], " \"\\<") {
		return nil
	}
	return rest[:end]
}

// readAbout reads "host[addr]: text; from=<..> to=<..> proto=.. helo=<..>",
// and from 3.10 on " sasl_method=.. sasl_username=..". The login is taken
// only as the very last word after the last helo, and only if nothing there
// can be the peer's own text.
func readAbout(b []byte) (a about) {
	addr, text, ok := cutPeer(b)
	if !ok {
		text = b // of a header: its text comes first
	}
	a.addr = addr
	at := bytes.LastIndex(text, []byte("; from=<"))
	if at < 0 {
		a.text = text
		return a
	}
	a.text = text[:at]
	tail := text[at+len("; from=<"):]
	end := addressEnd(tail)
	if end < 0 {
		return a
	}
	a.from, tail = tail[:end], tail[end+1:]
	if rest, ok := bytes.CutPrefix(tail, []byte(" to=<")); ok {
		if end = addressEnd(rest); end < 0 {
			return a
		}
		a.to, tail = rest[:end], rest[end+1:]
	}
	if rest, ok := bytes.CutPrefix(tail, []byte(" proto=")); ok {
		at := bytes.IndexByte(rest, ' ')
		if at < 0 {
			return a
		}
		tail = rest[at:]
	}
	a.login = loginAfterHelo(tail)
	return a
}

// loginAfterHelo reads " helo=<vm> sasl_method=PLAIN sasl_username=alice",
// or the name in angle brackets.
func loginAfterHelo(b []byte) []byte {
	if rest, ok := bytes.CutPrefix(b, []byte(" helo=<")); ok {
		end := bytes.IndexByte(rest, '>')
		if end < 0 || bytes.IndexByte(rest[:end], ' ') >= 0 {
			return nil
		}
		b = rest[end+1:]
	}
	if rest, ok := bytes.CutPrefix(b, []byte(" sasl_method=")); ok {
		at := bytes.IndexByte(rest, ' ')
		if at < 0 {
			return nil
		}
		b = rest[at:]
	}
	login, ok := bytes.CutPrefix(b, []byte(" sasl_username="))
	if !ok {
		return nil
	}
	if n := len(login); n > 2 && login[0] == '<' && login[n-1] == '>' {
		login = login[1 : n-1]
	}
	if bytes.ContainsAny(login, "<> ;") {
		return nil
	}
	return login
}

// An attempt is what a delivery agent says about one recipient.
type attempt struct {
	to, origTo []byte
	relay      []byte
	by         relay // what is known of it
	dsn        []byte
	status     []byte
	text       []byte
}

// readAttempt reads "to=<..>[, orig_to=<..>], relay=.., .., dsn=2.0.0,
// status=sent (250 2.0.0 Ok)". Fields may stand between (3.11: tls=).
func readAttempt(b []byte) (a attempt, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte("to=<"))
	if !ok {
		return a, false
	}
	end := addressEnd(rest)
	if end < 0 {
		return a, false
	}
	a.to, b = rest[:end], rest[end+1:]
	const origTo, relay, status = ", orig_to=<", ", relay=", ", status="
	if len(b) > len(origTo) && string(b[:len(origTo)]) == origTo {
		rest := b[len(origTo):]
		if end = addressEnd(rest); end < 0 {
			return a, false
		}
		a.origTo, b = rest[:end], rest[end+1:]
	}
	if len(b) > len(relay) && string(b[:len(relay)]) == relay {
		a.relay, b = cutField(b[len(relay):])
	}
	if at := bytes.Index(b, []byte(", dsn=")); at >= 0 { // after delay=, delays=, tls=: Postfix's own words
		a.dsn, b = cutField(b[at+len(", dsn="):])
	}
	for len(b) > 2 && b[0] == ',' {
		if len(b) > len(status) && string(b[:len(status)]) == status {
			rest := b[len(status):]
			a.status = rest
			if at := bytes.IndexByte(rest, ' '); at >= 0 {
				a.status, a.text = rest[:at], rest[at+1:]
			}
			if n := len(a.text); n > 1 && a.text[0] == '(' {
				a.text = bytes.TrimSuffix(a.text[1:], []byte(")"))
			}
			return a, len(a.status) > 0
		}
		_, b = cutField(b[2:])
	}
	return a, false
}

// delivery reads a delivery agent's line about one recipient.
func (p *Parser) delivery(ev *Event, g *program, id, b []byte) bool {
	a, ok := readAttempt(b)
	if !ok {
		return false
	}
	kind := Unknown
	switch string(a.status) {
	case "sent":
		kind = Delivered
	case "deferred":
		kind = Deferred
	case "bounced", "expired", "force-expired":
		kind = Bounced
	default: // deliverable, undeliverable: nobody wrote, Postfix asked
		return false
	}
	o := p.find(g.instance, id)
	if o == nil {
		p.stats.Orphans++
		return false
	}
	p.open.touch(o, p.stamps.sec)
	a.by = p.relay(a.relay)
	if kind == Delivered && p.handedOn(ev, g, o, &a) {
		return ev.Kind != Unknown
	}
	p.outcome(ev, kind, o, g, &a)
	if kind == Delivered && a.by.filter && bytes.Contains(a.text, []byte(", discarded, id=")) {
		p.discarded(ev, a.text)
	}
	return true
}

// discarded corrects an outcome: our own filter (amavis) took the message and
// threw it away, "250 2.7.0 Ok, discarded, id=00911-01 - spam".
func (p *Parser) discarded(ev *Event, text []byte) {
	ev.Kind = Refused
	ev.Reply.Class, ev.Reply.Text = LocalPolicy, clean(text, maxText)
	for _, word := range [...]string{"spam", "SPAM", "virus", "INFECTED", "VIRUS"} {
		if bytes.Contains(text, []byte(word)) {
			ev.Reply.Class = Content
		}
	}
}

// outcome makes ev what happened to one recipient.
func (p *Parser) outcome(ev *Event, kind Kind, o *open, g *program, a *attempt) {
	p.fill(ev, kind, o)
	ev.To = p.recipient(a.to)
	ev.Reply = p.reply(kind, a.by.provider, a.dsn, a.text)
	if g.daemon == localDaemon || g.daemon == pipeDaemon {
		ev.Reply.Provider = providerLocal
		if kind == Delivered {
			p.putInto(ev, a.to, o)
		}
	}
	if kind == Deferred {
		o.retries++
		o.reason = ev.Reply.Class
	}
	written := ev.To // as the sender wrote it
	switch {
	case o.account == "" && g.daemon == smtpDaemon:
		p.chargeLeaving(ev, o, a)
	case len(a.origTo) > 0:
		written = p.recipient(a.origTo)
	}
	p.name(ev, o, written)
}

// chargeLeaving finds who answers for mail that leaves although nobody
// logged in.
func (p *Parser) chargeLeaving(ev *Event, o *open, a *attempt) {
	if o.is(isPlain) && o.sender == "" {
		return // a bounce
	}
	if len(a.origTo) > 0 && !sameDomain(a.origTo, a.to) {
		p.charge(ev, o, p.forwardAccount(a.origTo))
		return
	}
	if !o.is(isSure) {
		p.charge(ev, o, o.fallback)
	}
}

// forwardAccount interns forward:BOX.
func (p *Parser) forwardAccount(box []byte) Account {
	p.scratch = append(p.scratch[:0], KindForward...)
	p.scratch = append(p.scratch, ':')
	p.scratch = appendLower(p.scratch, box[:min(len(box), maxLogin)])
	if bytes.IndexByte(box, '@') < 0 && p.Directory != nil && p.Directory.Realm != "" {
		p.scratch = append(p.scratch, '@')
		p.scratch = append(p.scratch, p.Directory.Realm...)
	}
	return Account(p.word(p.scratch))
}

func sameDomain(a, b []byte) bool {
	i, j := bytes.LastIndexByte(a, '@'), bytes.LastIndexByte(b, '@')
	return i >= 0 && j >= 0 && bytes.EqualFold(a[i:], b[j:])
}

// handedOn reads a delivery that is none: to a filter that brought the message
// back as "queued as ID", or by local(8) "forwarded as ID". The only event
// that may come of it is the Submitted of a forwarded message.
func (p *Parser) handedOn(ev *Event, g *program, o *open, a *attempt) bool {
	switch g.daemon {
	case smtpDaemon, localDaemon:
		if rest, ok := bytes.CutPrefix(a.text, []byte("forwarded as ")); ok && g.daemon == localDaemon {
			p.forwarded(ev, g.instance, o, a, rest)
			return true
		}
		return a.by.filter && p.broughtBack(g.instance, o, a.text)
	case pipeDaemon:
		if f := p.firsts.slot(o.mid); o.mid != 0 && f.key == o.key {
			f.piped = true
		}
		p.open.mark(o, isPiped, 0)
	}
	return false
}

// broughtBack joins the message that a filter's answer names to o.
func (p *Parser) broughtBack(n *instance, o *open, text []byte) bool {
	at := bytes.LastIndex(text, []byte("queued as "))
	if at < 0 {
		return false
	}
	id := text[at+len("queued as "):]
	if end := bytes.IndexFunc(id, func(r rune) bool { return r > 0x7f || !isAlnum(byte(r)) }); end >= 0 {
		id = id[:end]
	}
	if !isQueueID(id) {
		return false
	}
	child := p.find(n, id)
	if child == nil {
		for _, other := range p.host.instances { // the filter's way back may be another instance's
			if child = p.open.byKey.get(p.key(other, id)); child != nil || p.recent.has(p.key(other, id)) {
				break
			}
		}
	}
	if child == nil {
		for _, other := range p.host.instances {
			if p.recent.has(p.key(other, id)) {
				return true
			}
		}
		return false
	}
	if child == o || child.account.Kind() == KindLogin && !child.is(isReturned) {
		return false
	}
	if !child.is(isReturned) {
		p.rejoin(child, o)
	}
	p.open.mark(child, isSure, 0)
	p.open.mark(o, isHandedOn, 0)
	return true
}

// forwarded makes ev the Submitted of the message that local(8) made out of
// o for a mailbox that forwards.
func (p *Parser) forwarded(ev *Event, n *instance, o *open, a *attempt, id []byte) {
	if end := bytes.IndexByte(id, ' '); end >= 0 {
		id = id[:end]
	}
	if !isQueueID(id) {
		return
	}
	child := p.find(n, id)
	if child == nil || child == o || !child.is(isPlain) {
		return
	}
	if o.account != "" {
		p.rejoin(child, o)
		return
	}
	box := a.to
	if len(a.origTo) > 0 {
		box = a.origTo
	}
	child.account = p.forwardAccount(box)
	child.sender = o.sender
	if child.rcpts == 0 {
		child.rcpts = 1
	}
	p.open.mark(child, 0, isPlain)
	p.submit(ev, child)
}

func cutAny(b []byte, prefixes ...string) ([]byte, bool) {
	for _, s := range prefixes {
		if rest, ok := bytes.CutPrefix(b, []byte(s)); ok {
			return rest, true
		}
	}
	return b, false
}
