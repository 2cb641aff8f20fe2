package detector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
)

// State is kept as bytes: a version, then every field in the order in which
// [account.fields] names it, so that writing and reading cannot differ. Floats
// are kept to the bit: a detector restored goes on exactly as the one
// that was saved would have.

// stateVersion is the first byte of every state; what has one from oldestState
// on is read too, so that an upgrade forgets nothing.
const (
	oldestState  = 3
	withExcess   = 4 // a series has an excess since
	withHeard    = 5 // who wrote to an account is remembered since, and whose an episode may be
	stateVersion = 5
)

// ErrState means that a state was written by a version of the detector that
// this one cannot read, or was damaged.
var ErrState = errors.New("detector: unreadable state")

// fleetKey is the account name under which the fleet's own state is kept;
// the pages of its memories follow it: ":everyone/0", ":everyone/1", …, ":heard/0", ….
const fleetKey = ""

// memories are those of the fleet, by the beginning of their pages' names, which no
// mailbox can have.
func (f *fleet) memories(yield func(key string, e *everyone) bool) {
	_ = yield(":everyone/", f.mem) && yield(":heard/", f.heard)
}

// memory returns the fleet's memory whose page has this name, and the page's number.
func (f *fleet) memory(name mailq.Account) (e *everyone, number string) {
	for key, e := range f.memories {
		if number, ok := strings.CutPrefix(string(name), key); ok {
			return e, number
		}
	}
	return nil, ""
}

// Changed yields the state of everything that changed since the last call:
// accounts by name, nil for one that was forgotten; and the installation's own
// under the empty name and names that begin with a colon.
func (d *Detector) Changed(yield func(account mailq.Account, state []byte)) {
	if len(d.changed) == 0 && !d.fleet.dirty {
		return
	}
	for _, a := range d.changed {
		a.dirty = false
		if !a.gone {
			yield(a.name, encode(a.fields))
			continue
		}
		if d.accounts[a.name] == nil {
			yield(a.name, nil)
		}
		d.room.give(a)
	}
	clear(d.changed)
	d.changed = d.changed[:0]
	d.fleet.dirty = false
	yield(fleetKey, encode(d.fields))
	for key, e := range d.fleet.memories {
		for p, dirty := range e.dirty {
			if dirty {
				e.dirty[p] = false
				words := e.page(uint32(p))
				yield(mailq.Account(key+strconv.Itoa(p)), encode(func(c *codec) { c.page(words) }))
			}
		}
	}
}

// Restore puts back a state that Changed gave. It leaves the account as it
// was when it returns an error.
func (d *Detector) Restore(name mailq.Account, state []byte) error {
	if e, number := d.fleet.memory(name); e != nil {
		return e.restore(number, state)
	}
	if name == fleetKey {
		fresh := New(d.cfg, d.dir)
		if err := decode(state, fresh.fields); err != nil {
			return fmt.Errorf("%w: of the installation", err)
		}
		fresh.fleet.mem.gen, fresh.fleet.heard.gen = d.fleet.mem.gen, d.fleet.heard.gen
		fresh.fleet.mem.dirty, fresh.fleet.heard.dirty = d.fleet.mem.dirty, d.fleet.heard.dirty
		d.fleet, d.fails, d.marks, d.texts, d.lost, d.queue = fresh.fleet, fresh.fails, fresh.marks, fresh.texts, fresh.lost, fresh.queue
		return nil
	}
	a := account{name: name, key: hashOf(string(name)), class: classOf(name)}
	if err := decode(state, a.fields); err != nil {
		return fmt.Errorf("%w: of %q", err, clip(string(name), 128))
	}
	if old := d.accounts[name]; old != nil {
		a.shared, a.dirty = old.shared, old.dirty // who is to be told about once is in the list once
		*old = a
		return nil
	}
	d.insert(a)
	return nil
}

// restore puts back a page of the memory.
func (e *everyone) restore(number string, state []byte) error {
	p, err := strconv.ParseUint(number, 10, 32)
	if err != nil || uint32(p) >= e.pages() {
		return fmt.Errorf("%w: page %q of the installation's memory", ErrState, clip(number, 32))
	}
	words := make([]uint64, pageWords)
	if err := decode(state, func(c *codec) { c.page(words) }); err != nil {
		return fmt.Errorf("%w: page %d of the installation's memory", err, p)
	}
	copy(e.page(uint32(p)), words)
	return nil
}

// fields names everything of an account that is kept.
func (a *account) fields(c *codec) {
	c.u32(&a.first)
	c.i64(&a.last)
	c.u32(&a.messages)
	c.u8(&a.high)
	c.flag(&a.mailed)
	c.flag(&a.joined)
	a.ep.fields(c)
	a.known.fields(c)
	a.nov.fields(c)
	a.spr.fields(c)
	a.rate.fields(c)
	a.series.fields(c)
	a.fail.chart.fields(c)
	c.share(&a.fail.own)
	c.u16(&a.fail.gone)
	c.u16(&a.fail.all)
	a.log.fields(c)
	a.like.fields(c)
	latest := a.latest()
	list(c, &latest, ringMax, (*message).fields)
	c.u8(&a.next)
	if c.reading && len(latest) > 0 {
		a.ring, a.filled = new([ringMax]message), uint8(len(latest))
		copy(a.ring[:], latest)
	}
	if optional(c, &a.in) {
		a.in.fields(c)
	}
	c.u32(&a.asSelf)
	if optional(c, &a.rare) {
		a.rare.fields(c)
	}
}

// optional keeps whether there is a value at all, makes it when it is read, and
// reports whether its fields follow.
func optional[T any](c *codec, v **T) bool {
	is := *v != nil
	c.flag(&is)
	if is && *v == nil {
		*v = new(T)
	}
	return is
}

func (r *rare) fields(c *codec) {
	list(c, &r.steps, stepsMax, (*step).fields)
	r.reply.chart.fields(c)
	c.u16(&r.reply.blamed)
	c.u32(&r.reply.whose)
	c.text(&r.reply.provider, 32)
	c.u8((*uint8)(&r.reply.says))
	r.from.fields(c)
	r.scr.fields(c)
	r.with.chart.fields(c)
	c.u16(&r.with.whom)
	c.flag(&r.with.text)
	r.mercy.fields(c)
	if optional(c, &r.spent) {
		c.u32(&r.spent.at)
		if c.version >= withHeard {
			c.flag(&r.spent.theirs)
		} else {
			r.spent.theirs = true // nobody knows
		}
		r.spent.doubt.fields(c)
		c.floats(r.spent.series.peak[:])
		if c.version >= withExcess {
			c.count(&r.spent.series.excess)
		}
	}
}

func (e *doubt) fields(c *codec) {
	c.filter(&e.pending)
	c.count(&e.fresh)
	c.count(&e.expected)
	c.floats(e.peak[:])
}

func (e *episode) fields(c *codec) {
	c.i64(&e.onset)
	c.u32(&e.msgs)
	c.u32(&e.rcpts)
	c.f32(&e.told)
	c.u32(&e.toldAt)
	c.u8(&e.toldFam)
	c.f32(&e.top)
	c.u8((*uint8)(&e.hard))
	c.flag(&e.convicted)
	if c.version >= withHeard {
		c.flag(&e.theirs)
	} else if e.convicted {
		e.theirs = true // nobody knows
	}
	for f := range e.speak {
		c.u16((*uint16)(&e.speak[f]))
	}
	if optional(c, &e.doubt) {
		e.doubt.fields(c)
	}
	if int(e.hard) >= len(hardNames) {
		c.fail()
	}
}

func (k *known) fields(c *codec) {
	list(c, &k.exact, exactMax, func(h *uint32, c *codec) { c.u32(h) })
	if optional(c, &k.more) {
		list(c, &k.more.grown, filtersMax, func(f **filter, c *codec) {
			c.filter(f)
			if *f == nil {
				c.fail()
			}
		})
		c.filter(&k.more.taught)
	}
}

func (n *novelty) fields(c *codec) {
	n.fast.fields(c)
	n.slow.fields(c)
	c.u32(&n.lastMsg)
	n.standing.fields(c)
	n.before.fields(c)
	c.share(&n.fresh)
	c.share(&n.unseen)
	c.u16(&n.count)
	c.u16(&n.strangers)
}

func (s *standing) fields(c *codec) {
	c.count(&s.age)
	c.f32(&s.sure)
}

func (s *domains) fields(c *codec) {
	s.chart.fields(c)
	for i := range s.last {
		c.u16(&s.last[i])
	}
	c.share(&s.fresh)
}

func (r *rate) fields(c *codec) {
	c.floats(r.now[:])
	c.i32(&r.today)
	c.floats(r.peak[:])
	c.count(&r.days)
	for g := range r.quiet {
		c.u16(&r.quiet[g])
	}
	for g := range r.habit {
		c.f32(&r.habit[g].mean)
		c.count(&r.habit[g].vari)
	}
	for i := range r.hours.hour {
		c.u8(&r.hours.hour[i])
	}
	for i := range r.hours.week {
		c.u8(&r.hours.week[i])
	}
	r.odd.fields(c)
	for h := range r.reach.seen {
		for w := range r.reach.seen[h] {
			c.u64(&r.reach.seen[h][w])
		}
	}
	c.u32(&r.reach.half)
	c.count(&r.reach.record)
	c.u32(&r.reach.at)
}

func (s *series) fields(c *codec) {
	c.floats(s.now[:])
	if optional(c, &s.past) {
		c.floats(s.past.peak[:])
		c.floats(s.past.record[:])
		c.u32(&s.past.kept)
		if c.version >= withExcess {
			s.past.excess.fields(c)
		}
	}
}

func (x *excess) fields(c *codec) {
	c.count(&x.now)
	c.u32(&x.at)
	c.count(&x.peak)
	c.count(&x.before)
	c.count(&x.record)
}

func (l *logins) fields(c *codec) {
	l.chart.fields(c)
	list(c, &l.nets, 2*netsMost, func(n *network, c *codec) {
		c.u32(&n.net)
		c.u32(&n.asn)
		c.u32(&n.at)
		c.u16(&n.field)
		c.u16(&n.bits)
		if n.field > fields {
			c.fail()
		}
	})
	c.share(&l.days)
	c.i32(&l.today)
	c.flag(&l.newDay)
	c.u8(&l.most)
	c.flag(&l.guessed)
	c.flag(&l.far)
}

func (in *inbox) fields(c *codec) {
	in.returned.fields(c)
	c.count(&in.day)
	c.count(&in.month)
	c.count(&in.sent)
	c.count(&in.bounces)
	if c.version >= withHeard {
		c.count(&in.excused)
	}
	c.share(&in.own)
	c.u32(&in.at)
}

func (s *senders) fields(c *codec) {
	s.chart.fields(c)
	for i := range s.known {
		c.u32(&s.known[i])
	}
	c.u8(&s.next)
	for i := range s.recent {
		c.u32(&s.recent[i])
	}
	c.i64(&s.since)
	c.u8(&s.varied)
	c.share(&s.foreign)
}

func (l *likeness) fields(c *codec) {
	l.chart.fields(c)
	for i := range l.marks {
		c.u32(&l.marks[i])
	}
	c.share(&l.own)
}

func (s *scripts) fields(c *codec) {
	s.chart.fields(c)
	for i := range s.known {
		c.u32(&s.known[i])
	}
	c.u8(&s.next)
	c.text(&s.path, 128)
	c.flag(&s.odd)
}

func (m *message) fields(c *codec) {
	c.u32(&m.id)
	c.u32(&m.at)
	c.u16(&m.counted)
	c.u16(&m.named)
	c.u16(&m.fresh)
	c.u16(&m.unseen)
	c.u8(&m.others)
	if c.version >= withHeard {
		c.u8(&m.answered)
	}
	c.f32(&m.sum)
	c.f32(&m.fast)
	c.f32(&m.slow)
	c.flag(&m.blamed)
	c.flag(&m.spared)
}

func (s *step) fields(c *codec) {
	c.i64(&s.at)
	c.u8((*uint8)(&s.kind))
	c.f32(&s.moved)
	c.f32(&s.score)
}

func (y *mercy) fields(c *codec) {
	c.i64(&y.at)
	c.u16(&y.left)
	for i := range y.done {
		c.u32(&y.done[i])
	}
	c.u8(&y.next)
	c.i64(&y.lasts)
}

func (s *chart) fields(c *codec) {
	c.f32(&s.s)
	c.u32(&s.at)
}

// fields names everything of the installation that is kept, except the
// pages of its memory.
func (d *Detector) fields(c *codec) {
	f := &d.fleet
	c.i64(&f.first)
	for k := range f.fresh {
		for b := range f.fresh[k] {
			c.share(&f.fresh[k][b])
		}
		c.share(&f.unseen[k])
		for g := range f.norms[k] {
			n := &f.norms[k][g]
			c.f32(&n.mean)
			c.count(&n.within)
			c.count(&n.between)
			c.count(&n.days)
		}
	}
	c.share(&f.same)
	c.count(&f.calib.days)
	for i := range f.calib.above {
		c.count(&f.calib.above[i])
	}
	if c.reading {
		d.move()
	}
	c.u32(&f.mem.n)
	size := f.mem.size
	c.u32(&size)
	if size != f.mem.size {
		c.fail() // its pages would not fit
	}
	if c.version >= withHeard {
		c.u32(&f.heard.n)
	}
	list(c, &f.peers.at, peersMax, (*traffic).fields)
	d.fails.fields(c)
	d.marks.nets.fields(c, netsMarked)
	d.marks.whom.fields(c, whomMarked)
	d.marks.texts.fields(c, textsMarked)
	d.texts.fields(c)
	list(c, &d.lost.told, lostHosts, func(b *blindness, c *codec) {
		c.text(&b.host, 255)
		c.i64(&b.slot)
	})
	d.queue.fields(c)
}

// fields keeps the slots that are in use.
func (t *texts) fields(c *codec) {
	var used []text
	for _, e := range t {
		if e.mark != 0 {
			used = append(used, e)
		}
	}
	list(c, &used, textSlots, func(e *text, c *codec) {
		c.u32(&e.mark)
		c.u32(&e.who[0])
		c.u32(&e.who[1])
		c.flag(&e.many)
	})
	if c.reading {
		for _, e := range used {
			t[e.mark%textSlots] = e
		}
	}
}

func (m *marked) fields(c *codec, most int) {
	list(c, (*[]mark)(m), most, func(m *mark, c *codec) {
		c.u32(&m.hash)
		c.u32(&m.at)
	})
}

func (t *traffic) fields(c *codec) {
	c.text(&t.provider, 64)
	c.i64(&t.at)
	c.count(&t.total)
	for i := range t.who {
		c.u32(&t.who[i])
		c.count(&t.n[i])
	}
}

// fields keeps the slots that are in use.
func (w *wrong) fields(c *codec) {
	var used []attempt
	for _, s := range w.slot {
		if s.count != 0 {
			used = append(used, s)
		}
	}
	list(c, &used, wrongSlots, func(t *attempt, c *codec) {
		c.u64(&t.key)
		c.i64(&t.at)
		c.u8(&t.count)
	})
	if c.reading {
		for _, s := range used {
			w.slot[s.key>>54] = s
		}
	}
}

// A codec writes values to, or reads them from, bytes: the same calls do
// both.
type codec struct {
	b       []byte
	reading bool
	version byte // of what is read or written
	bad     bool
}

func encode(fields func(*codec)) []byte {
	c := codec{b: make([]byte, 1, 512), version: stateVersion}
	c.b[0] = stateVersion
	fields(&c)
	return slices.Clip(c.b)
}

func decode(state []byte, fields func(*codec)) error {
	if len(state) == 0 || state[0] < oldestState || state[0] > stateVersion {
		return ErrState
	}
	c := codec{b: state[1:], reading: true, version: state[0]}
	fields(&c)
	if c.bad || len(c.b) != 0 {
		return ErrState
	}
	return nil
}

func (c *codec) fail() { c.bad = true; c.b = nil }

// take returns the next n bytes, or nil when there are not so many.
func (c *codec) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.fail()
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

// u64 keeps small numbers short (varint).
func (c *codec) u64(v *uint64) {
	if !c.reading {
		c.b = binary.AppendUvarint(c.b, *v)
		return
	}
	n, size := binary.Uvarint(c.b)
	if size <= 0 {
		c.fail()
		return
	}
	*v, c.b = n, c.b[size:]
}

func (c *codec) i64(v *int64) {
	u := uint64(*v)<<1 ^ uint64(*v>>63)
	c.u64(&u)
	*v = int64(u>>1) ^ -int64(u&1)
}

// narrow keeps a number that must not be more than limit.
func (c *codec) narrow(v, limit uint64) uint64 {
	c.u64(&v)
	if v > limit {
		c.fail()
		return 0
	}
	return v
}

func (c *codec) u32(v *uint32) { *v = uint32(c.narrow(uint64(*v), math.MaxUint32)) }
func (c *codec) u16(v *uint16) { *v = uint16(c.narrow(uint64(*v), math.MaxUint16)) }
func (c *codec) u8(v *uint8)   { *v = uint8(c.narrow(uint64(*v), math.MaxUint8)) }

func (c *codec) i32(v *int32) {
	u := uint32(*v)
	c.u32(&u)
	*v = int32(u)
}

func (c *codec) flag(v *bool) {
	var u uint8
	if *v {
		u = 1
	}
	c.u8(&u)
	*v = u != 0
}

// f32 keeps zeros in one byte.
func (c *codec) f32(v *float32) {
	u := uint64(math.Float32bits(*v))
	u = u>>16&0xffff | u<<16&0xffff0000 // round numbers end in zeros
	u = c.narrow(u, math.MaxUint32)
	u = u>>16&0xffff | u<<16&0xffff0000
	*v = math.Float32frombits(uint32(u))
	if !(*v > -f32Most && *v < f32Most) {
		c.fail()
		*v = 0
	}
}

// f32Most bounds what a damaged state may bring in; nothing counted here
// comes near it, and sums of it stay finite.
const f32Most = 1e12

// count is an f32 that cannot be negative.
func (c *codec) count(v *float32) {
	c.f32(v)
	if *v < 0 {
		c.fail()
		*v = 0
	}
}

func (c *codec) floats(v []float32) {
	for i := range v {
		c.count(&v[i])
	}
}

func (c *codec) share(s *share) {
	c.count(&s.hits)
	c.count(&s.of)
}

func (c *codec) text(v *string, limit int) {
	n := int(c.narrow(uint64(len(*v)), uint64(max(limit, len(*v)))))
	if !c.reading {
		c.b = append(c.b, *v...)
		return
	}
	*v = string(c.take(n))
}

func (c *codec) page(words []uint64) {
	for i := range words {
		if !c.reading {
			c.b = binary.LittleEndian.AppendUint64(c.b, words[i])
		} else if b := c.take(8); b != nil {
			words[i] = binary.LittleEndian.Uint64(b)
		}
	}
}

func (c *codec) filter(f **filter) {
	var size uint32
	if *f != nil {
		size = (*f).size
	}
	c.u32(&size)
	if size == 0 || c.bad {
		return
	}
	if c.reading {
		if size > filterMax {
			c.fail()
			return
		}
		*f = newFilter(size)
	}
	c.u32(&(*f).n)
	c.page((*f).bits)
}

// list keeps a slice of at most limit values.
func list[T any](c *codec, v *[]T, limit int, one func(*T, *codec)) {
	n := int(c.narrow(uint64(len(*v)), uint64(limit)))
	if c.reading {
		if n > len(c.b) {
			c.fail() // every value takes a byte or more
			return
		}
		*v = make([]T, n)
	}
	for i := range *v {
		one(&(*v)[i], c)
	}
}
