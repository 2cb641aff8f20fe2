package detector

import "slices"

// exactMax is how many recipients an account's memory holds exactly before
// it changes to filters. Half of all mailboxes never write to more than 20
// different recipients, nine in ten to fewer than 71.
const exactMax = 64

// filterMax bounds a filter's entries, and with them what one account can
// make us remember: 26 KiB, and 10 KiB of what it was taught. While the key of
// the hashes is replaced filtersMax bounds it: 60 KiB.
const (
	filterMax  = 8192
	filtersMax = 6
)

// known is the memory of recipients that an account has written to: exact
// fingerprints at first, then Bloom filters, each larger than the one before
// it. When the largest is full, all but it are forgotten, so that at least
// the latest recipients, as many as it held, are remembered. Where recipients
// have two hashes, only what is more than filtersMax is.
type known struct {
	exact []uint32
	more  *filters // nil for most
}

// filters is the memory of an account that knows many.
type filters struct {
	grown  []*filter
	taught *filter // what an episode that was none, or an operator's release, declared the account's own
}

// has reports whether the account is known to have written to h. A wrong yes
// comes about once in a hundred strangers for each filter.
func (k *known) has(h uint64) bool {
	f := uint32(h)
	for _, e := range k.exact {
		if e == f {
			return true
		}
	}
	return k.more.has(h)
}

func (m *filters) has(h uint64) bool {
	if m == nil {
		return false
	}
	for _, g := range m.grown {
		if g.has(h) {
			return true
		}
	}
	return m.taught.has(h)
}

// add remembers h, which must not be known yet. Twin says that its recipient has
// two hashes.
func (k *known) add(h uint64, twin bool) { k.put(len(k.exact), h, twin) }

// put is add with h at a place among the exact ones.
func (k *known) put(at int, h uint64, twin bool) {
	if k.more == nil || len(k.more.grown) == 0 {
		if n := len(k.exact); n < exactMax {
			if n == cap(k.exact) { // grow by little: memory is counted
				k.exact = append(make([]uint32, 0, n+max(2, n/4)), k.exact...)
			}
			k.exact = slices.Insert(k.exact, at, uint32(h))
			return
		}
		first := newFilter(4 * exactMax)
		for _, e := range k.exact {
			first.add(uint64(e))
		}
		k.exact, k.filters().grown = nil, []*filter{first}
	}
	k.more.add(h, twin)
}

// filters returns the account's filters, made if need be.
func (k *known) filters() *filters {
	if k.more == nil {
		k.more = new(filters)
	}
	return k.more
}

func (m *filters) add(h uint64, twin bool) {
	last := m.grown[len(m.grown)-1]
	if last.full() {
		keep := filtersMax - 1
		if last.size == filterMax && !twin {
			keep = 1
		}
		m.forget(len(m.grown) - keep)
		last = newFilter(min(4*last.size, filterMax))
		m.grown = append(m.grown, last)
	}
	last.add(h)
}

// teach makes everything in f known.
func (k *known) teach(f *filter) {
	m := k.filters()
	t := m.taught
	switch {
	case t == nil:
		m.taught = f
	case len(t.bits) == len(f.bits) && t.n+f.n <= t.size:
		for i, word := range f.bits {
			t.bits[i] |= word
		}
		t.n += f.n
	default:
		m.grown = slices.Insert(m.grown, 0, t)
		m.forget(len(m.grown) - filtersMax)
		m.taught = f
	}
}

// forget frees the n oldest filters.
func (m *filters) forget(n int) { m.grown = slices.Delete(m.grown, 0, max(0, n)) }

// len is about how many recipients are remembered.
func (k *known) len() int {
	n := len(k.exact)
	if k.more != nil {
		n += k.more.taught.len()
		for _, g := range k.more.grown {
			n += g.len()
		}
	}
	return n
}

// A filter is a Bloom filter of 10 bits an entry and 6 probes. It looks at
// the low 32 bits of a hash only, so that the exact fingerprints can move
// into it. A nil filter is empty.
type filter struct {
	bits    []uint64
	n, size uint32
}

const filterProbes = 6

func newFilter(size uint32) *filter {
	return &filter{bits: make([]uint64, (size*10+63)/64), size: size}
}

func (f *filter) has(h uint64) bool {
	if f == nil {
		return false
	}
	a, b := spread32(uint32(h))
	n := uint32(len(f.bits) * 64)
	for range filterProbes {
		bit := a % n
		if f.bits[bit>>6]&(1<<(bit&63)) == 0 {
			return false
		}
		a += b
	}
	return true
}

func (f *filter) add(h uint64) {
	a, b := spread32(uint32(h))
	n := uint32(len(f.bits) * 64)
	for range filterProbes {
		bit := a % n
		f.bits[bit>>6] |= 1 << (bit & 63)
		a += b
	}
	f.n++
}

func (f *filter) full() bool { return f.n >= f.size }

func (f *filter) len() int {
	if f == nil {
		return 0
	}
	return int(f.n)
}

// spread32 makes two independent probe values of one fingerprint.
func spread32(h uint32) (a, b uint32) {
	x := uint64(h) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return uint32(x), uint32(x>>32) | 1
}
