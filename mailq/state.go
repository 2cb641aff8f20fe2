package mailq

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Changed yields the state of each open message that changed since the last
// call, and nil for those that ended. What it yields, put back with Restore
// into a new Parser, makes that parser go on where this one was. The first call
// yields every open message that was not put back. state is valid during yield.
func (p *Parser) Changed(yield func(key uint64, state []byte)) {
	m := &p.open
	if !m.track {
		m.track = true
		for o := range m.byKey.all() {
			m.changed(o)
		}
	}
	for _, key := range m.gone {
		if m.byKey.get(key) == nil {
			yield(key, nil)
		}
	}
	m.gone = m.gone[:0]
	var buf []byte
	for _, key := range m.dirty {
		o := m.byKey.get(key)
		if o == nil || !o.is(isDirty) {
			continue // ended, or told already
		}
		o.flags = o.flags&^isDirty | isStored
		buf = o.appendState(buf[:0])
		yield(key, buf)
	}
	m.dirty = m.dirty[:0]
}

// Restore puts back an open message that Changed yielded. A parser with another
// Key than that one had knows it by another key, as Changed then tells.
func (p *Parser) Restore(key uint64, state []byte) error {
	if !p.ready {
		p.prepare()
	}
	r := stateReader{p: p, b: state}
	version := r.number()
	if version != stateVersion {
		return fmt.Errorf("mailq: message %016x: state of version %d, not %d", key, version, stateVersion)
	}
	p.limit()
	var read open
	r.message(&read)
	if r.err != nil {
		return fmt.Errorf("mailq: message %016x: %w", key, r.err)
	}
	p.open.track = true
	q := p.open.of(read.host)
	n := p.hostOf([]byte(read.host)).instance(p, read.instance)
	now := p.key(n, []byte(read.id))
	o := p.open.start(now, q)
	q.fresh.cut(o)
	*o = read
	o.key, o.queue = now, q
	q.listOf(o).push(o)
	if now != key {
		o.flags &^= isStored
		p.open.gone = append(p.open.gone, key)
		p.open.changed(o)
	}
	p.open.unordered = true
	p.seed(o, n)
	return nil
}

// stateVersion is the first byte of a message's state.
const stateVersion = 1

const storedFlags = isSubmitted | isHeld | isPlain | isReturned | isSure | willHold | isPiped | isExim | hasScript | isHandedOn

func (o *open) appendState(b []byte) []byte {
	b = binary.AppendVarint(b, stateVersion)
	b = binary.LittleEndian.AppendUint64(b, o.message)
	b = binary.LittleEndian.AppendUint64(b, o.mid)
	for _, n := range [...]int64{int64(o.flags & storedFlags), o.arrival, o.last, o.size, int64(o.rcpts), int64(o.retries), int64(o.reason)} {
		b = binary.AppendVarint(b, n)
	}
	for _, s := range [...]string{o.id, o.host, o.instance, string(o.account), string(o.fallback), string(o.charged), o.sender, o.script, o.method} {
		b = appendText(b, s)
	}
	peer, _ := o.peer.MarshalBinary()
	b = appendText(b, string(peer))
	b = binary.AppendVarint(b, int64(len(o.domains)))
	for _, d := range o.domains {
		b = appendText(b, d)
	}
	named := o.named.all()
	b = binary.AppendVarint(b, int64(len(named)))
	for _, h := range named {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	b = binary.AppendVarint(b, int64(len(o.noted)))
	for _, r := range o.noted {
		b = binary.LittleEndian.AppendUint64(b, r.Hash)
		b = appendText(b, r.Domain)
	}
	if slices.ContainsFunc(o.noted, func(r Recipient) bool { return r.Next != 0 }) { // what a release with one key does not read
		for _, r := range o.noted {
			b = binary.LittleEndian.AppendUint64(b, r.Next)
		}
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

var errCut = errors.New("state is cut short or damaged")

// A stateReader takes a message's state apart. After a mistake everything it
// reads is empty.
type stateReader struct {
	p   *Parser
	b   []byte
	err error
}

func (r *stateReader) message(o *open) {
	o.message, o.mid = r.hash(), r.hash()
	o.flags = openFlags(r.number())&storedFlags | isStored
	o.arrival, o.last, o.size = r.number(), r.number(), r.number()
	o.rcpts, o.retries, o.reason = int32(r.number()), int32(r.number()), Class(r.number())
	o.id = string(r.text())
	o.host, o.instance = r.word(), r.word()
	o.account, o.fallback, o.charged = Account(r.word()), Account(r.word()), Account(r.word())
	o.sender, o.script, o.method = r.word(), r.word(), r.word()
	var peer netip.Addr
	if err := peer.UnmarshalBinary(r.text()); err == nil {
		o.peer = peer
	}
	for range r.count(maxDomains) {
		r.p.addDomain(o, r.word())
	}
	for range r.count(maxNamed) {
		o.named.add(r.hash())
	}
	for range r.count(maxNamed) {
		o.noted = append(o.noted, Recipient{Hash: r.hash(), Domain: r.word()})
	}
	for i := 0; i < len(o.noted) && len(r.b) > 0; i++ {
		o.noted[i].Next = r.hash()
	}
}

func (r *stateReader) fail() { r.b, r.err = nil, errCut }

func (r *stateReader) number() int64 {
	n, width := binary.Varint(r.b)
	if width <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[width:]
	return n
}

// count reads the length of a list.
func (r *stateReader) count(most int64) int64 {
	n := r.number()
	if n < 0 || n > most {
		r.fail()
		return 0
	}
	return n
}

func (r *stateReader) hash() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	h := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return h
}

func (r *stateReader) text() []byte {
	n := r.number()
	if n < 0 || n > int64(len(r.b)) {
		r.fail()
		return nil
	}
	text := r.b[:n]
	r.b = r.b[n:]
	return text
}

func (r *stateReader) word() string {
	text := r.text()
	if len(text) > 255 {
		return string(text)
	}
	return r.p.word(text)
}

// order sorts the messages by use, after some were restored in any order.
func (m *messages) order() {
	m.unordered = false
	all := slices.SortedFunc(m.byKey.all(), func(a, b *open) int {
		return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(a.key, b.key))
	})
	for _, q := range m.hosts {
		q.fresh, q.live = list{}, list{}
	}
	for _, o := range all {
		o.queue.listOf(o).push(o)
	}
}

// seed makes the parser know again what it knew by way of o: the host and
// instance, and the id under which a filter may bring the message back.
func (p *Parser) seed(o *open, n *instance) {
	n.manages = n.manages || o.is(isSubmitted)
	if o.is(isSubmitted) && !o.is(isReturned|isExim) && o.mid > noMessageID {
		at := p.firsts.slot(o.mid)
		*at = first{mid: o.mid, key: o.key, message: o.message, account: o.account, sender: o.sender, at: o.last, piped: o.is(isPiped)}
	}
}
