package mailq

import (
	"net/netip"
	"slices"
	"time"
)

// An open message is one that the log has begun to tell about and not ended.
type open struct {
	key      uint64 // of host, instance and queue id
	message  uint64 // of those and the arrival: what Event.Message says
	id       string
	host     string
	instance string

	account  Account
	fallback Account // who is charged if the mail leaves and account is empty; the system user of a script's
	charged  Account // the account that an outcome has already been charged to, see Event.Counts
	sender   string
	script   string
	method   string
	peer     netip.Addr

	arrival int64 // seconds
	last    int64 // seconds, of the last line about it
	size    int64
	rcpts   int32
	retries int32 // attempts that were deferred
	flags   openFlags
	reason  Class // of the last deferral

	named   set         // hashes of the recipients that an event has named
	noted   []Recipient // told by a hook before the message was submitted
	domains []string    // of the recipients, at most maxDomains
	mid     uint64      // hash of the message id
	queue   *hostQueue  // it is in
	older   *open       // neighbours in order of use
	newer   *open
}

type openFlags uint16

const (
	isSubmitted openFlags = 1 << iota // counted: its Submitted is out, or its parent's
	isHeld
	isPlain    // Postfix made it itself: a bounce, or what local(8) forwards
	isReturned // came back from a filter; the account is its first id's
	isSure     // and the filter's own answer, or XFORWARD, said so
	isDirty    // changed since Changed last told
	isStored   // Changed has told about it
	willHold   // smtpd decided to hold it
	isPiped    // given to a program, that may bring it back
	isExim
	isHandedOn // a filter has it, and answered with the id of what it brought back
	hasScript  // a header has named the script, or tried to
)

const (
	maxDomains = 8
	maxNamed   = 4096 // recipients remembered a message; above, all are old

	// defaultMaxOpen bounds the open messages of a parser.
	defaultMaxOpen = 500_000

	dangling  = 60 * 60 // seconds without a line, for messages never accepted
	deserted  = 7 * day // and for those that were
	clockJump = 60      // seconds that one line may move the parser's clock
)

func (o *open) is(f openFlags) bool { return o.flags&f != 0 }

// A set holds hashes of recipients; most messages have few.
type set struct {
	n    int
	few  [4]uint64
	many []uint64 // all of them, sorted, once there are more than few
}

// add reports whether h is new to the set.
func (s *set) add(h uint64) bool {
	if s.many == nil {
		for i := range min(s.n, len(s.few)) {
			if s.few[i] == h {
				return false
			}
		}
		if s.n < len(s.few) {
			s.few[s.n] = h
			s.n++
			return true
		}
		s.many = append(make([]uint64, 0, 16), s.few[:]...)
		slices.Sort(s.many)
	}
	at, found := slices.BinarySearch(s.many, h)
	if found || len(s.many) >= maxNamed {
		return false
	}
	s.many = slices.Insert(s.many, at, h)
	s.n++
	return true
}

// has reports whether h is in the set.
func (s *set) has(h uint64) bool {
	if s.many == nil {
		return slices.Contains(s.few[:s.n], h)
	}
	_, found := slices.BinarySearch(s.many, h)
	return found
}

// name reports whether r is new to the set. It keeps one hash, the newest, so that
// a message that is open when the key changes names nobody twice.
func (s *set) name(r Recipient) bool {
	return (r.Next == 0 || !s.has(r.Hash)) && s.add(r.Newest())
}

// all yields every hash, in no order.
func (s *set) all() []uint64 {
	if s.many != nil {
		return s.many
	}
	return s.few[:s.n]
}

func (s *set) clear() { *s = set{} }

func (s *set) copyFrom(from *set) {
	*s = *from
	s.many = slices.Clone(from.many)
}

// A list holds open messages in order of use, the longest unused first.
type list struct{ oldest, newest *open }

func (l *list) push(o *open) {
	o.older, o.newer = l.newest, nil
	if l.newest != nil {
		l.newest.newer = o
	} else {
		l.oldest = o
	}
	l.newest = o
}

func (l *list) cut(o *open) {
	if o.older != nil {
		o.older.newer = o.newer
	} else {
		l.oldest = o.newer
	}
	if o.newer != nil {
		o.newer.older = o.older
	} else {
		l.newest = o.older
	}
	o.older, o.newer = nil, nil
}

// A hostQueue is the open messages of one host, which has a time of its own: its
// log may be read days late.
type hostQueue struct {
	host  string
	fresh list  // not accepted yet
	live  list  // accepted
	clock int64 // the host's time, in seconds, as far as it can be believed
	aged  int64 // clock when they were last aged
}

func (q *hostQueue) empty() bool { return q.fresh.oldest == nil && q.live.oldest == nil }

// listOf is where o belongs.
func (q *hostQueue) listOf(o *open) *list {
	if o.is(isSubmitted | isHeld) {
		return &q.live
	}
	return &q.fresh
}

// idlest is the message that was idle longest: first those never accepted.
func (q *hostQueue) idlest() *open {
	o := q.fresh.oldest
	if l := q.live.oldest; o == nil || l != nil && l.last < o.last-dangling {
		return l
	}
	return o
}

// messages is every open message, by key.
type messages struct {
	byKey     index
	hosts     []*hostQueue
	byHost    map[string]*hostQueue
	others    hostQueue // of hosts beyond maxQueues
	free      []*open
	track     bool     // somebody asks for changes
	unordered bool     // restored messages are not in order of use yet
	dirty     []uint64 // keys changed since they were asked for
	gone      []uint64 // keys ended since, of messages that were told
	evicted   uint64
	max       int
}

// maxQueues bounds the hosts that have a time of their own.
const maxQueues = 2 * maxHosts

// of returns the messages of a host.
func (m *messages) of(host string) *hostQueue {
	if q := m.byHost[host]; q != nil {
		return q
	}
	if len(m.hosts) >= maxQueues {
		return &m.others
	}
	if m.byHost == nil {
		m.byHost = make(map[string]*hostQueue)
		m.hosts = append(m.hosts, &m.others)
	}
	q := &hostQueue{host: host}
	m.hosts, m.byHost[host] = append(m.hosts, q), q
	return q
}

// forget drops the hosts without messages, except kept.
func (m *messages) forget(kept *hostQueue) {
	m.hosts = slices.DeleteFunc(m.hosts, func(q *hostQueue) bool {
		drop := q.empty() && q != kept && q != &m.others
		if drop {
			delete(m.byHost, q.host)
		}
		return drop
	})
}

// start opens a message of a host under key, in place of any that had it: a queue id
// is only given again when its message is gone.
func (m *messages) start(key uint64, q *hostQueue) *open {
	if old := m.byKey.get(key); old != nil {
		m.end(old)
	}
	for m.byKey.n >= m.max && m.evict() {
	}
	var o *open
	if n := len(m.free); n > 0 {
		o, m.free = m.free[n-1], m.free[:n-1]
	} else {
		o = new(open)
	}
	o.key, o.queue = key, q
	m.byKey.put(key, o)
	q.fresh.push(o)
	return o
}

// evict ends the message that was idle longest.
func (m *messages) evict() bool {
	var idlest *open
	for _, q := range m.hosts {
		o := q.idlest()
		switch {
		case o == nil:
		case idlest == nil, o.last < idlest.last:
			idlest = o
		}
	}
	if idlest == nil {
		return false
	}
	m.end(idlest)
	m.evicted++
	return true
}

// end forgets a message.
func (m *messages) end(o *open) {
	o.queue.listOf(o).cut(o)
	m.byKey.drop(o.key)
	if o.is(isStored) {
		m.gone = append(m.gone, o.key)
	}
	if len(m.free) < 1024 {
		*o = open{domains: o.domains[:0]}
		m.free = append(m.free, o)
	}
}

// touch notes that a line at sec was about o.
func (m *messages) touch(o *open, sec int64) {
	o.last = sec
	if l := o.queue.listOf(o); l.newest != o {
		l.cut(o)
		l.push(o)
	}
	m.changed(o)
}

func (m *messages) changed(o *open) {
	if m.track && !o.is(isDirty) {
		o.flags |= isDirty
		m.dirty = append(m.dirty, o.key)
	}
}

// mark sets and clears flags, moving o to the list that it then belongs to.
func (m *messages) mark(o *open, set, clear openFlags) {
	from := o.queue.listOf(o)
	o.flags = o.flags&^clear | set
	if to := o.queue.listOf(o); from != to {
		from.cut(o)
		to.push(o)
	}
	m.changed(o)
}

// rename moves o to another key.
func (m *messages) rename(o *open, key uint64, n *instance) {
	m.byKey.drop(o.key)
	if o.is(isStored) {
		m.gone = append(m.gone, o.key)
	}
	if old := m.byKey.get(key); old != nil {
		m.end(old)
	}
	o.key, o.instance = key, n.name
	o.flags &^= isDirty | isStored
	m.byKey.put(key, o)
	m.changed(o)
}

// age forgets what of a host has been idle too long by the host's own time.
func (m *messages) age(q *hostQueue) {
	for o := q.fresh.oldest; o != nil && o.last < q.clock-dangling; o = q.fresh.oldest {
		m.end(o)
	}
	for o := q.live.oldest; o != nil && o.last < q.clock-deserted; o = q.live.oldest {
		m.end(o)
	}
}

// A session is what smtpd, or an Exim process, said last about itself.
type session struct {
	key     uint64
	account Account
	peer    netip.Addr
	cwd     string
	hold    bool
}

// sessions remembers some thousand processes; two that share a slot forget
// each other, and nothing is then assumed about either.
type sessions [4096]session

func (s *sessions) slot(key uint64) *session { return &s[key%uint64(len(s))] }

func (s *sessions) find(key uint64) *session {
	if e := s.slot(key); e.key == key {
		return e
	}
	return nil
}

func (s *sessions) take(key uint64) *session {
	e := s.slot(key)
	if e.key != key {
		*e = session{key: key}
	}
	return e
}

func (s *sessions) drop(key uint64) {
	if e := s.slot(key); e.key == key {
		*e = session{}
	}
}

// A first is what is remembered of a message for the id under which a filter
// may bring it back.
type first struct {
	mid     uint64 // hash of host and message id
	key     uint64
	message uint64
	account Account
	sender  string
	at      int64
	piped   bool
}

// firsts remembers some thousand messages by their message id.
type firsts [8192]first

func (f *firsts) slot(mid uint64) *first { return &f[mid%uint64(len(f))] }

// recent remembers the keys of messages that ended lately.
type recent [4096]uint64

func (r *recent) add(key uint64)      { r[key%uint64(len(r))] = key }
func (r *recent) has(key uint64) bool { return key != 0 && r[key%uint64(len(r))] == key }

// A QueuedMessage is an accepted message that has not left the queue, as the
// log tells it.
type QueuedMessage struct {
	Host     string
	QueueID  string
	Account  Account // empty for inbound mail
	User     Account // of a script's mail: the system user that it runs as
	Client   Account // of mail without an account: the trusted client that it is from, which answers for it if it leaves
	Sender   string
	Domains  []string // of the recipients known so far, at most 8
	Rcpts    int      // 0 if unknown
	Size     int      // bytes, 0 if unknown
	Arrival  time.Time
	Held     bool
	Deferred int // attempts that were put off
}

// Queued yields the accepted messages that have not left the queue, in no
// order, until yield returns false.
func (p *Parser) Queued(yield func(QueuedMessage) bool) {
	for o := range p.open.byKey.all() {
		if !o.is(isSubmitted | isHeld) {
			continue
		}
		ok := yield(QueuedMessage{
			Host: o.host, QueueID: o.id, Account: o.account, User: o.user(), Client: o.client(), Sender: o.sender, Domains: slices.Clone(o.domains),
			Rcpts: int(o.rcpts), Size: int(o.size), Arrival: time.Unix(o.arrival, 0).UTC(),
			Held: o.is(isHeld), Deferred: int(o.retries),
		})
		if !ok {
			return
		}
	}
}

// user is the system user that a script's message was handed in by.
func (o *open) user() Account {
	if kind := o.fallback.Kind(); o.account.Kind() != KindScript || kind != KindUser && kind != KindUID {
		return ""
	}
	return o.fallback
}

// client is the trusted client that answers for a message if it leaves. A filter's
// host does not for what it brings back.
func (o *open) client() Account {
	if o.account != "" || o.fallback.Kind() != KindClient || o.is(isSure|isReturned|isPlain) {
		return ""
	}
	return o.fallback
}

// begin opens the message with a queue id that the current line names first.
func (p *Parser) begin(n *instance, key uint64, id []byte) *open {
	p.limit()
	o := p.open.start(key, p.host.open)
	o.id = string(id)
	o.host, o.instance = p.host.name, n.name
	o.arrival, o.last = p.stamps.sec, p.stamps.sec
	o.message = mix(key, uint64(o.arrival))
	p.open.changed(o)
	return o
}

func (p *Parser) limit() {
	p.open.max = p.MaxOpen
	if p.open.max <= 0 {
		p.open.max = defaultMaxOpen
	}
}

// finish forgets a message that left the queue.
func (p *Parser) finish(o *open) {
	p.recent.add(o.key)
	p.open.end(o)
}

// fill sets what every event of a message says.
func (p *Parser) fill(ev *Event, kind Kind, o *open) {
	ev.Time = p.stamps.time()
	ev.Kind = kind
	ev.Host = p.host.name
	ev.Account = o.account
	ev.Message = o.message
	ev.QueueID = o.id
	ev.Sender = o.sender
	ev.Client = o.peer
	ev.Size = int(o.size)
	ev.Script = o.script
}

// submit makes ev the message's Submitted, once.
func (p *Parser) submit(ev *Event, o *open) {
	p.fill(ev, Submitted, o)
	ev.Rcpts = int(o.rcpts)
	ev.Method = o.method
	if o.method != "" {
		ev.Service = "smtp"
	}
	ev.Counts = o.account == "" || o.charged != o.account
	ev.New = o.noted
	o.noted = nil
	o.charged = o.account
	p.open.mark(o, isSubmitted, isHeld)
}

// hold makes ev the message's Held. A message that is held on arrival counts
// here, and not again when it is released: an account that sends on while its
// mail is held gives evidence.
func (p *Parser) hold(ev *Event, o *open) {
	p.fill(ev, Held, o)
	if o.account == "" || o.charged == o.account || o.is(isSubmitted) {
		return
	}
	ev.Counts = true
	ev.New = o.noted
	ev.Rcpts = max(int(o.rcpts), o.named.n, 1)
	o.noted = nil
	o.charged = o.account
}

// name reports a recipient of o that no event has named.
func (p *Parser) name(ev *Event, o *open, r Recipient) {
	if o.named.name(r) {
		ev.New = p.one(r)
		p.addDomain(o, r.Domain)
	}
}

func (p *Parser) addDomain(o *open, domain string) {
	if len(o.domains) < maxDomains && !slices.Contains(o.domains, domain) {
		o.domains = append(o.domains, domain)
	}
}

// charge gives an outcome to the account that answers for it although nobody
// logged in: the forwarding mailbox or trusted client of mail that leaves.
func (p *Parser) charge(ev *Event, o *open, account Account) {
	if account == "" {
		return
	}
	ev.Account = account
	if o.charged != account {
		// Its recipients were nobody's until now.
		o.charged = account
		o.named.clear()
		ev.Counts = true
		ev.Rcpts = 1
	}
}

// rejoin makes o, an id under which a filter brought a message back, the same
// message as that of its first id. It counts no more.
func (p *Parser) rejoin(o, parent *open) {
	if o == parent || parent.is(isReturned) && parent.message == o.message {
		return
	}
	p.inherit(o, parent.account, parent.message)
	o.named.copyFrom(&parent.named)
	if parent.account != "" {
		o.peer, o.script = parent.peer, parent.script
	}
}

func (p *Parser) inherit(o *open, account Account, message uint64) {
	o.account, o.message = account, message
	o.charged = account
	o.noted = nil
	p.open.mark(o, isReturned, 0)
}
