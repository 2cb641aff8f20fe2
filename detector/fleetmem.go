package detector

// everyone is the memory of recipients that anybody of the installation has
// written to: a Bloom filter in two generations whose bits for one recipient
// lie in one cache line. When it is too small for the installation, more
// strangers look known; the share of unseen recipients is learnt through the
// same memory and falls with it, so the evidence fades instead of lying.
//
// It is kept in pages so that only what changed has to be saved.
type everyone struct {
	gen   [2][]uint64 // gen[0] is the current one; gen[1] is nil before there was another
	n     uint32
	size  uint32
	dirty []bool // by page; generation 1 continues after generation 0
	undo  []undo // what add changed, while somebody tries something; else nil
}

// An undo is a word of the current generation as it was.
type undo struct {
	word int
	was  uint64
}

// pageWords is the size of a page in 64-bit words: 2 KiB.
const pageWords = 256

// newEveryone makes a memory of size recipients a generation, 16 bits each.
func newEveryone(size int) *everyone {
	words := (max(size, 1024)*16/64 + pageWords - 1) / pageWords * pageWords
	e := &everyone{
		gen:   [2][]uint64{make([]uint64, words)},
		size:  uint32(words * 64 / 16),
		dirty: make([]bool, 2*words/pageWords),
	}
	// Written to now, in one go: a page that is read before it is written
	// interrupts every processor.
	clear(e.gen[0])
	return e
}

func (e *everyone) has(h uint64) bool {
	line, mask := e.place(h)
	return covers(e.gen[0][line:line+8], mask) || e.gen[1] != nil && covers(e.gen[1][line:line+8], mask)
}

// add remembers h. It costs nothing when h is in the current generation.
func (e *everyone) add(h uint64) {
	line, mask := e.place(h)
	words := e.gen[0][line : line+8]
	if covers(words, mask) {
		return
	}
	if e.n >= e.size && e.undo == nil {
		e.rotate()
		words = e.gen[0][line : line+8]
	}
	for i := range 5 {
		bit := mask >> (9 * i) & 511
		if e.undo != nil {
			e.undo = append(e.undo, undo{line + int(bit>>6), words[bit>>6]})
		}
		words[bit>>6] |= 1 << (bit & 63)
	}
	e.n++
	e.dirty[line/pageWords] = true
}

// place says in which cache line h lies (index of its first word) and gives
// five bit numbers of 9 bits each.
func (e *everyone) place(h uint64) (line int, mask uint64) {
	h *= 0x9e3779b97f4a7c15
	h ^= h >> 32
	lines := uint64(len(e.gen[0]) / 8)
	return int((h>>40)%lines) * 8, h * 0xbf58476d1ce4e5b9 >> 19
}

func covers(words []uint64, mask uint64) bool {
	for i := range 5 {
		bit := mask >> (9 * i) & 511
		if words[bit>>6]&(1<<(bit&63)) == 0 {
			return false
		}
	}
	return true
}

func (e *everyone) rotate() {
	e.gen[0], e.gen[1] = e.former(), e.gen[0]
	clear(e.gen[0])
	e.n = 0
	for p := range e.dirty {
		e.dirty[p] = true
	}
}

// former returns the generation before, made if need be.
func (e *everyone) former() []uint64 {
	if e.gen[1] == nil {
		e.gen[1] = make([]uint64, len(e.gen[0]))
	}
	return e.gen[1]
}

// page returns the words of page p.
func (e *everyone) page(p uint32) []uint64 {
	per := uint32(len(e.gen[0]) / pageWords)
	at := p % per * pageWords
	if p >= per {
		return e.former()[at : at+pageWords]
	}
	return e.gen[0][at : at+pageWords]
}

// pages is how many there are.
func (e *everyone) pages() uint32 { return uint32(len(e.dirty)) }
