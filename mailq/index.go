package mailq

import "iter"

// An index finds open messages by their keys, which are hashes already: a table
// with open addressing, faster than a map here. Its zero value is empty.
type index struct {
	slots []indexed // a power of two, at most half of them in use
	n     int
}

type indexed struct {
	key uint64
	o   *open // nil: the slot is empty
}

func (x *index) home(key uint64) int { return int(key & uint64(len(x.slots)-1)) }
func (x *index) next(at int) int     { return (at + 1) & (len(x.slots) - 1) }

// at is where a key is, or would be.
func (x *index) at(key uint64) int {
	at := x.home(key)
	for x.slots[at].o != nil && x.slots[at].key != key {
		at = x.next(at)
	}
	return at
}

// get returns the message with a key, nil if there is none.
func (x *index) get(key uint64) *open {
	if x.n == 0 {
		return nil
	}
	return x.slots[x.at(key)].o
}

// put adds o under a key that no message has.
func (x *index) put(key uint64, o *open) {
	if 2*x.n >= len(x.slots) {
		old := x.slots
		x.slots = make([]indexed, max(2*len(old), 512))
		for _, s := range old {
			if s.o != nil {
				x.slots[x.at(s.key)] = s
			}
		}
	}
	x.slots[x.at(key)] = indexed{key, o}
	x.n++
}

// drop takes the message with a key out, if there is one. Of those behind it, who
// would not be found any more moves up.
func (x *index) drop(key uint64) {
	if x.get(key) == nil {
		return
	}
	hole := x.at(key)
	for at := x.next(hole); x.slots[at].o != nil; at = x.next(at) {
		mask := len(x.slots) - 1
		if home := x.home(x.slots[at].key); (at-home)&mask >= (at-hole)&mask {
			x.slots[hole], hole = x.slots[at], at
		}
	}
	x.slots[hole] = indexed{}
	x.n--
}

// all yields every message, in no order. The index may not change meanwhile.
func (x *index) all() iter.Seq[*open] {
	return func(yield func(*open) bool) {
		for _, s := range x.slots {
			if s.o != nil && !yield(s.o) {
				return
			}
		}
	}
}
