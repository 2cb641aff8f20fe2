package mailq

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strings"
	"time"

	"github.com/dchest/siphash"
)

// A Parser turns the lines of one or more mail servers' logs into events. It
// recognises each line by its content, so that one file may hold Postfix,
// Exim and Dovecot, in any of their time formats.
//
// It joins the lines of a message by queue id, and keeps what it knows of the
// messages that have not left the queue: see [Parser.Changed] and
// [Parser.Restore]. A Parser is used by one goroutine. Its fields are set
// before the first line; Directory may be replaced between two lines, and the
// keys by [Parser.Rekey].
type Parser struct {
	Directory *Directory
	Key       [16]byte       // of the hashes of recipients; servers of a fleet share it
	Next      [16]byte       // the key that replaces Key: recipients have both hashes; zero: none does
	Location  *time.Location // of stamps without a zone; nil is local time
	Now       time.Time      // reference for the year of the first stamp without one; zero is the present
	Host      string         // of logs that name none: Exim's and Dovecot's own
	MaxOpen   int            // open messages kept; zero is 500,000

	// Room is where the next lists of one recipient are written; the parser makes
	// more when it is used up. Who needs some events no more may set it between
	// two lines, to have theirs written over.
	Room []Recipient

	stamps Stamps
	stats  ParserStats
	own    sipKey  // of all but recipients: Key at the first line
	now    sipKey  // of recipients
	next   *sipKey // of their second hash; nil: they have one
	hosts  map[string]*host
	host   *host
	words  table[string]
	relays table[relay]
	logins table[Account]
	of     *Directory // the one that relays and logins are of

	open     messages
	sessions sessions
	firsts   firsts
	recent   recent
	proxied  proxied
	failures failures
	dirs     []directory
	notes    map[string]Envelope
	parked   int

	scratch []byte
	said    lowered
	ready   bool
}

// ParserStats counts what a parser did.
type ParserStats struct {
	Lines        uint64 // read
	Events       uint64 // made of them
	Unrecognised uint64 // lines of no known form or program
	TooLong      uint64 // lines above 64 KiB, not looked at
	Orphans      uint64 // outcomes of messages whose beginning was not seen
	Ambiguous    uint64 // lines that a stranger's text made readable in two ways; nobody is charged
	Skewed       uint64 // stamps more than an hour before the line before
	Evicted      uint64 // messages forgotten for want of room
	Open         int    // messages that have not left
}

const maxLine = 64 << 10

// Stats returns the counts so far.
func (p *Parser) Stats() ParserStats {
	s := p.stats
	s.Open, s.Evicted = p.open.byKey.n, p.open.evicted
	return s
}

// Parse returns the event that a line tells, if it tells one. The line may
// end in a newline; it is not kept.
func (p *Parser) Parse(line []byte) (ev Event, ok bool) {
	ok = p.ParseInto(&ev, line)
	return ev, ok
}

// ParseInto is Parse for a caller that has room for the event: ev must be
// zero, and is left so where the line tells no event.
func (p *Parser) ParseInto(ev *Event, line []byte) bool {
	p.stats.Lines++
	if len(line) > maxLine {
		p.stats.TooLong++
		return false
	}
	for n := len(line); n > 0 && (line[n-1] == '\n' || line[n-1] == '\r'); n-- {
		line = line[:n-1]
	}
	if len(line) == 0 {
		return false
	}
	if !p.ready {
		p.prepare()
	}
	if p.open.unordered {
		p.open.order()
	}
	if !p.line(ev, line) {
		if !ev.Time.IsZero() { // it was begun
			*ev = Event{}
		}
		return false
	}
	p.stats.Events++
	return true
}

func (p *Parser) prepare() {
	p.ready = true
	// Memory that is read before it is written interrupts every processor when
	// it is written at last.
	p.firsts, p.sessions = firsts{}, sessions{}
	p.own = newSipKey(p.Key)
	p.Rekey(p.Key, p.Next)
	p.stamps.Location, p.stamps.Now = p.Location, p.Now
	p.host = p.hostOf([]byte(p.Host))
}

// A sipKey is a key as SipHash takes it.
type sipKey struct{ k0, k1 uint64 }

func newSipKey(key [16]byte) sipKey {
	return sipKey{binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])}
}

func (k sipKey) hash(b []byte) uint64 { return siphash.Hash(k.k0, k.k1, b) }

// Rekey replaces Key and Next. It may be called between two lines.
func (p *Parser) Rekey(key, next [16]byte) {
	p.Key, p.Next = key, next
	p.now, p.next = newSipKey(key), nil
	if next != ([16]byte{}) {
		k := newSipKey(next)
		p.next = &k
	}
}

// line reads a whole line: its stamp, and what that says may follow.
func (p *Parser) line(ev *Event, b []byte) bool {
	if b[0] == '<' { // a syslog priority
		if end := bytes.IndexByte(b[:min(len(b), 5)], '>'); end > 0 {
			b = b[end+1:]
		}
	}
	rest, shape := p.stamps.read(b)
	if shape == noStamp {
		p.stats.Unrecognised++
		return false
	}
	if shape == spaced {
		return p.ownLog(ev, rest)
	}
	return p.syslog(ev, rest)
}

// from notes which host the current line is of, and moves that host's clock to its
// stamp. A line moves it by a minute at most, so that neither a wrong stamp nor
// today's lines, read beside the same host's log of last week, make every message old.
func (p *Parser) from(h *host) {
	p.host = h
	now, before := p.stamps.sec, h.sec
	if now == before {
		return
	}
	h.sec = now
	if now < before-60*60 {
		p.stats.Skewed++
	}
	q := h.open
	switch {
	case q.clock == 0:
		q.clock = now
	case now > q.clock:
		q.clock = min(now, q.clock+clockJump)
	}
	if q.clock-q.aged >= 60 {
		q.aged = q.clock
		p.open.age(q)
	}
}

// ownLog reads a line of Exim's or Dovecot's own log, without its stamp.
func (p *Parser) ownLog(ev *Event, b []byte) bool {
	if p.host.name != p.Host {
		p.host = p.hostOf([]byte(p.Host))
	}
	p.from(p.host)
	if isDovecot(b) {
		return p.dovecot(ev, b)
	}
	return p.exim(ev, b, 0)
}

// syslog reads "host tag[pid]: text".
func (p *Parser) syslog(ev *Event, b []byte) bool {
	if n := len(p.host.name); n > 0 && len(b) > n && b[n] == ' ' && string(b[:n]) == p.host.name {
		p.from(p.host) // that of the line before, as a rule
		return p.tagged(ev, b[n+1:])
	}
	end := bytes.IndexByte(b, ' ')
	if end <= 0 || end > 255 {
		p.stats.Unrecognised++
		return false
	}
	name := b[:end]
	if name[end-1] == ':' || bytes.IndexByte(name, '(') > 0 {
		// Dovecot's own log with a traditional stamp names no host.
		if isDovecot(b) {
			return p.ownLog(ev, b)
		}
		p.stats.Unrecognised++
		return false
	}
	p.from(p.hostOf(name))
	return p.tagged(ev, b[end+1:])
}

// tagged reads what follows the host: the program's tag and its text.
func (p *Parser) tagged(ev *Event, b []byte) bool {
	if g, pid, text := p.host.cutKnown(b); g != nil {
		return p.program(ev, g, pid, text)
	}
	tag, pid, text, ok := cutTag(b)
	if !ok {
		p.stats.Unrecognised++
		return false
	}
	return p.program(ev, p.host.program(p, tag), pid, text)
}

func (p *Parser) program(ev *Event, g *program, pid uint64, text []byte) bool {
	switch g.kind {
	case postfixProgram:
		return p.postfix(ev, g, pid, text)
	case eximProgram:
		// The inner stamp, if Exim writes one, says nothing that syslog did not.
		if len(text) > 20 && text[4] == '-' && text[10] == ' ' {
			var inner Stamps
			inner.Location = time.UTC
			text, _ = inner.read(text)
		}
		return p.exim(ev, text, pid)
	case dovecotProgram:
		return p.dovecot(ev, text)
	case loggerProgram:
		return p.lost(ev, text)
	case ignoredProgram:
		return false
	}
	p.stats.Unrecognised++
	return false
}

// cutKnown is cutTag for a program that wrote lately. It looks at the tag as a
// whole.
func (h *host) cutKnown(b []byte) (g *program, pid uint64, text []byte) {
	n := bytes.IndexByte(b[:min(len(b), 64)], '[')
	if n < 1 {
		return nil, 0, nil
	}
	g = *h.latelyAt(b[:n])
	if g == nil || g.tag != string(b[:n]) {
		return nil, 0, nil
	}
	i := n + 1
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		pid = pid*10 + uint64(b[i]-'0')
	}
	if i+3 >= len(b) || b[i] != ']' || b[i+1] != ':' || b[i+2] != ' ' {
		return nil, 0, nil
	}
	return g, pid, b[i+3:]
}

// cutTag takes "tag[pid]: " off b.
func cutTag(b []byte) (tag []byte, pid uint64, text []byte, ok bool) {
	i := 0
	for i < len(b) && i < 128 && b[i] != '[' && b[i] != ':' && b[i] != ' ' {
		i++
	}
	if i == len(b) || i == 0 {
		return nil, 0, nil, false
	}
	tag = b[:i]
	if b[i] == '[' {
		for i++; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
			pid = pid*10 + uint64(b[i]-'0')
		}
		if i == len(b) || b[i] != ']' {
			return nil, 0, nil, false
		}
		i++
	}
	if i+1 >= len(b) || b[i] != ':' || b[i+1] != ' ' {
		return nil, 0, nil, false
	}
	return tag, pid, b[i+2:], true
}

// A host is a server that lines are from.
type host struct {
	name      string
	sec       int64      // of its last stamp
	open      *hostQueue // its open messages
	seed      uint64
	programs  map[string]*program
	instances []*instance
	exim      *instance // once it has spoken

	lately [64]*program // that wrote lately, where their tags lead
}

// An instance is one mail system of a host, as its syslog_name says.
type instance struct {
	name    string
	seed    uint64 // of the keys of its messages
	manages bool   // a queue manager speaks under this name, so it has a queue
}

// A program is who wrote a line.
type program struct {
	tag      string
	kind     programKind
	daemon   daemon
	instance *instance
}

type programKind uint8

const (
	unknownProgram programKind = iota
	ignoredProgram             // known, and says nothing that concerns us
	postfixProgram
	eximProgram
	dovecotProgram
	loggerProgram // the log's own keepers, who tell when they lost lines
)

const (
	maxHosts     = 1024
	maxPrograms  = 256 // a host
	maxInstances = 64  // a host
)

func (p *Parser) hostOf(name []byte) *host {
	if h, ok := p.hosts[string(name)]; ok {
		return h
	}
	if p.hosts == nil || len(p.hosts) >= maxHosts {
		p.hosts = make(map[string]*host)
		if p.host != nil {
			p.open.forget(p.host.open)
		}
	}
	h := &host{name: clean(name, 255), seed: p.hash(name), programs: make(map[string]*program)}
	h.open = p.open.of(h.name)
	p.hosts[string(name)] = h
	return h
}

func (h *host) latelyAt(tag []byte) **program {
	return &h.lately[place(tag)%uint64(len(h.lately))]
}

// program returns who a tag stands for.
func (h *host) program(p *Parser, tag []byte) *program {
	last := h.latelyAt(tag)
	if *last != nil && (*last).tag == string(tag) {
		return *last
	}
	g, ok := h.programs[string(tag)]
	if !ok {
		g = h.newProgram(p, tag)
	}
	*last = g
	return g
}

func (h *host) newProgram(p *Parser, tag []byte) *program {
	g := &program{tag: string(tag)}
	g.kind, g.daemon = kindOf(tag)
	if g.kind == postfixProgram {
		name, _, _ := bytes.Cut(tag, []byte("/"))
		g.instance = h.instance(p, string(name))
	}
	if len(h.programs) < maxPrograms {
		h.programs[string(tag)] = g
	}
	return g
}

// instance returns the mail system with a name, the last for too many names.
func (h *host) instance(p *Parser, name string) *instance {
	for _, n := range h.instances {
		if n.name == name {
			return n
		}
	}
	if len(h.instances) >= maxInstances {
		return h.instances[len(h.instances)-1]
	}
	n := &instance{name: name, seed: p.hash([]byte(h.name + "\x00" + name))}
	h.instances = append(h.instances, n)
	return n
}

// key is that of a queue id of an instance. Ids are the server's own text, of
// 6 to 24 characters, so a plain hash will do: the ends multiplied, as wyhash
// does with short text.
func (p *Parser) key(n *instance, id []byte) uint64 {
	if len(id) < 8 || len(id) > 24 {
		return p.hash(id) ^ n.seed
	}
	head, tail := binary.LittleEndian.Uint64(id), binary.LittleEndian.Uint64(id[len(id)-8:])
	middle := binary.LittleEndian.Uint64(id[len(id)/2-4:])
	high, low := bits.Mul64(head^n.seed, tail^p.own.k1^0xa0761d6478bd642f)
	return mix(high^low, middle+uint64(len(id)))
}

func (p *Parser) hash(b []byte) uint64 { return p.own.hash(b) }

// mix makes one hash of a hash and a number (the finish of SplitMix64).
func mix(hash, n uint64) uint64 {
	h := hash + n*0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// HashRecipient is the [Recipient.Hash] that a [Parser] with that key gives an
// address.
func HashRecipient(key [16]byte, address string) uint64 {
	return newSipKey(key).hash(appendLower(nil, []byte(address[:min(len(address), 512)])))
}

// recipient makes a Recipient of an address.
func (p *Parser) recipient(addr []byte) Recipient {
	if len(addr) > 512 {
		addr = addr[:512]
	}
	p.scratch = appendLower(p.scratch[:0], addr)
	r := Recipient{Hash: p.now.hash(p.scratch)}
	if p.next != nil {
		r.Next = p.next.hash(p.scratch)
	}
	if at := bytes.LastIndexByte(p.scratch, '@'); at >= 0 {
		r.Domain = p.word(p.scratch[at+1:])
	}
	return r
}

// Recipient returns what the events of this parser say for an address.
func (p *Parser) Recipient(addr string) Recipient {
	if !p.ready {
		p.prepare()
	}
	return p.recipient([]byte(addr))
}

// one returns a list of one recipient without an allocation of its own.
func (p *Parser) one(r Recipient) []Recipient {
	if len(p.Room) == 0 {
		p.Room = make([]Recipient, 256)
	}
	list := p.Room[:1:1]
	p.Room = p.Room[1:]
	list[0] = r
	return list
}

// login returns the account of a login as it stands in a line.
func (p *Parser) login(name []byte) Account {
	if p.of != p.Directory {
		p.newDirectory()
	}
	if len(name) > maxLogin {
		name = name[:maxLogin]
	}
	if a, ok := p.logins.find(name); ok {
		return a
	}
	text := string(name)
	return p.logins.keep(text, p.Directory.Canonical(text))
}

// mailbox returns the account whose mailbox an address is; "" for what is no address.
func (p *Parser) mailbox(addr []byte) Account {
	if bytes.IndexByte(addr, '@') <= 0 {
		return ""
	}
	return p.login(addr)
}

// putInto makes ev a delivery of a message into the mailbox of an address.
func (p *Parser) putInto(ev *Event, addr []byte, o *open) {
	ev.Into = p.mailbox(addr)
	if ev.Into != "" && o.sender != "" {
		ev.Writer = p.Recipient(o.sender)
	}
}

// newDirectory forgets what the directory before said.
func (p *Parser) newDirectory() {
	p.of = p.Directory
	p.logins = table[Account]{}
	p.relays = table[relay]{}
}

// address returns an envelope sender, its domain in lower case. It interns
// those of accounts, which come again: mail that comes in is from anybody.
func (p *Parser) address(addr []byte, account Account) string {
	if len(addr) == 0 {
		return ""
	}
	if len(addr) > maxAddress {
		addr = addr[:maxAddress]
	}
	if account == "" {
		return lowerDomain(addr)
	}
	if string(addr) == string(account) {
		return string(account)
	}
	if w, ok := p.words.find(addr); ok {
		return w
	}
	return p.words.keep(string(addr), lowerDomain(addr))
}

func lowerDomain(addr []byte) string {
	s := clean(addr, maxAddress)
	at := strings.LastIndexByte(s, '@') + 1
	if at == 0 {
		return s
	}
	domain := strings.ToLower(s[at:])
	if domain == s[at:] {
		return s
	}
	return s[:at] + domain
}

// word interns a short text.
func (p *Parser) word(b []byte) string {
	switch string(b) { // most of them
	case "":
		return ""
	case "2.0.0":
		return "2.0.0"
	case "PLAIN":
		return "PLAIN"
	case "LOGIN":
		return "LOGIN"
	}
	if len(b) > 255 {
		b = b[:255]
	}
	if w, ok := p.words.find(b); ok {
		return w
	}
	w := clean(b, 255)
	if w == string(b) {
		return p.words.keep(w, w)
	}
	return p.words.keep(string(b), w)
}

// lost reads the notices of rsyslog and journald that lines did not reach the
// log: "imjournal: 1234 messages lost due to rate-limiting" and "Suppressed 99
// messages from postfix.service".
func (p *Parser) lost(ev *Event, b []byte) bool {
	var n int64
	if rest, ok := bytes.CutPrefix(b, []byte("Suppressed ")); ok {
		n = leadingNumber(rest)
	} else {
		at := bytes.Index(b, []byte(" messages lost"))
		if at < 0 {
			if at = bytes.Index(b, []byte(" lost ")); at < 0 || !bytes.Contains(b, []byte("rate-limiting")) {
				return false
			}
			n = leadingNumber(b[at+len(" lost "):])
		} else {
			start := bytes.LastIndexByte(b[:at], ' ') + 1
			n = leadingNumber(b[start:])
		}
	}
	ev.Time, ev.Kind, ev.Host = p.stamps.time(), Lost, p.host.name
	ev.Rcpts = int(n)
	return true
}

// leadingNumber reads the digits at the head of b; 0 if there are none.
func leadingNumber(b []byte) (n int64) {
	for _, c := range b[:min(len(b), 15)] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// A table interns outside text: a hash table with open addressing, which unlike a
// map keeps the hash beside the text. It is emptied when it is full.
type table[V any] struct {
	seed  maphash.Seed  // of hashes that no stranger can foresee
	slots []interned[V] // a power of two, at most half of them in use
	n     int
}

// An interned is one entry of a table.
type interned[V any] struct {
	hash  uint64 // 0: the slot is empty
	text  string
	value V
}

const (
	maxTable   = 1 << 16
	firstTable = 1 << 9
)

func (t *table[V]) find(text []byte) (v V, ok bool) {
	if t.n == 0 {
		return v, false
	}
	if e := t.slot(maphash.Bytes(t.seed, text)|1, text); e.hash != 0 {
		return e.value, true
	}
	return v, false
}

// slot is where a text is, or would go.
func (t *table[V]) slot(hash uint64, text []byte) *interned[V] {
	mask := uint64(len(t.slots) - 1)
	for at := hash >> 32; ; at++ {
		e := &t.slots[at&mask]
		if e.hash == 0 || e.hash == hash && e.text == string(text) {
			return e
		}
	}
}

// keep adds a text that is not in the table.
func (t *table[V]) keep(text string, v V) V {
	switch {
	case t.n == 0, t.n >= maxTable:
		*t = table[V]{seed: maphash.MakeSeed(), slots: make([]interned[V], firstTable)}
	case 2*t.n >= len(t.slots):
		t.grow()
	}
	hash := maphash.String(t.seed, text) | 1
	*t.slot(hash, []byte(text)) = interned[V]{hash, text, v}
	t.n++
	return v
}

func (t *table[V]) grow() {
	old := t.slots
	t.slots = make([]interned[V], 2*len(old))
	for i := range old {
		if e := &old[i]; e.hash != 0 {
			*t.slot(e.hash, []byte(e.text)) = *e
		}
	}
}

// place says where a text may be found: a weak hash of its ends and its middle.
func place(b []byte) uint64 {
	var head, middle, tail uint64
	if n := len(b); n >= 8 {
		head, tail = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
		middle = binary.LittleEndian.Uint64(b[n/2-4:])
	} else {
		for _, c := range b {
			head = head<<8 | uint64(c)
		}
	}
	h := (head ^ bits.RotateLeft64(tail, 23) ^ bits.RotateLeft64(middle, 41) ^ uint64(len(b))) * 0x9e3779b97f4a7c15
	return h >> 40
}

// clean returns b as text: at most limit bytes, and a question mark, as Postfix
// has it, for each control character and each byte that is not UTF-8, so that
// no two names become one that is neither's.
func clean(b []byte, limit int) string {
	plain := len(b) <= limit
	for i := 0; plain && i < len(b); i++ {
		plain = b[i] >= ' ' && b[i] < 0x7f
	}
	if plain {
		return string(b)
	}
	out := make([]byte, 0, min(len(b), limit))
	for _, r := range string(b[:min(len(b), 4*limit)]) {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			r = '?'
		}
		if r == '\ufffd' {
			r = '?'
		}
		n := len(out)
		if out = appendRune(out, r); len(out) > limit {
			return string(out[:n])
		}
	}
	return string(out)
}

func appendRune(b []byte, r rune) []byte { return append(b, string(r)...) }

func appendLower(dst, b []byte) []byte {
	n := len(dst)
	dst = append(dst, b...)
	for i, c := range dst[n:] {
		if c >= 'A' && c <= 'Z' {
			dst[n+i] = c + 'a' - 'A'
		}
	}
	return dst
}

// addrOf reads an address in square brackets at the head of b, "[192.0.2.1]",
// and returns what follows. "[IPv6:…]" and zones are accepted too.
func addrOf(b []byte) (addr netip.Addr, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '[' {
		return addr, b, false
	}
	end := bytes.IndexByte(b[:min(len(b), 64)], ']')
	if end < 0 {
		return addr, b, false
	}
	text := b[1:end]
	if addr, ok = ipv4(text); !ok {
		a, err := netip.ParseAddr(string(bytes.TrimPrefix(text, []byte("IPv6:"))))
		if err != nil || a.Zone() != "" {
			return addr, b[end+1:], false
		}
		addr = a.Unmap()
	}
	return addr, b[end+1:], true
}

// ipv4 reads a dotted address without allocating.
func ipv4(b []byte) (netip.Addr, bool) {
	var a [4]byte
	part, n, digits := 0, 0, 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9' && digits < 3:
			n = n*10 + int(c-'0')
			digits++
		case c == '.' && digits > 0 && n < 256 && part < 3:
			a[part] = byte(n)
			part, n, digits = part+1, 0, 0
		default:
			return netip.Addr{}, false
		}
	}
	if part != 3 || digits == 0 || n > 255 {
		return netip.Addr{}, false
	}
	a[3] = byte(n)
	return netip.AddrFrom4(a), true
}

// addressEnd returns where the address at the head of b ends: at the '>' that
// is not inside a quoted local part, or -1.
func addressEnd(b []byte) int {
	i := 0
	if len(b) > 0 && b[0] == '"' {
		if i = quotedEnd(b); i < 0 {
			return -1
		}
	}
	end := bytes.IndexByte(b[i:], '>')
	if end < 0 {
		return -1
	}
	return i + end
}

// afterDigits takes the digits off the head of b.
func afterDigits(b []byte) []byte {
	for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		b = b[1:]
	}
	return b
}

// quotedEnd returns the index after the quoted string that b begins with, -1 if it
// does not end.
func quotedEnd(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	end := bytes.IndexByte(b[1:], '"') + 1
	if end == 0 {
		return -1
	}
	if bytes.IndexByte(b[1:end], '\\') < 0 {
		return end + 1
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}
