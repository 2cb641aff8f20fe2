package detector

import (
	"math"
	"slices"

	"github.com/vedetta-watch/vedetta/mailq"
)

// Try runs f, which may show the detector events of the named account, and then
// takes back everything that they taught: the detector goes on exactly as if
// they had never been. It is for asking what would have happened. f must not
// show events of other accounts, nor queue samples.
func (d *Detector) Try(name mailq.Account, f func()) {
	saved, mem, n := *d, d.fleet.mem, d.fleet.mem.n
	d.cfg.MaxAccounts = math.MaxInt // nobody is forgotten for it
	d.fails.slot = slices.Clone(d.fails.slot)
	d.marks.nets = slices.Clone(d.marks.nets)
	d.fleet.peers.at = slices.Clone(d.fleet.peers.at)
	d.lost.told = slices.Clone(d.lost.told)
	a := d.accounts[name]
	var before *account
	if a != nil {
		before = a.clone()
	}
	mem.undo = []undo{}
	f()
	for _, u := range slices.Backward(mem.undo) {
		mem.gen[0][u.word] = u.was
	}
	mem.undo, mem.n = nil, n
	*d = saved
	if a == nil {
		delete(d.accounts, name)
	} else {
		*a = *before
	}
}

// clone copies the account with everything that it points to.
func (a *account) clone() *account {
	c := *a
	c.known.exact = slices.Clone(a.known.exact)
	c.known.grown = slices.Clone(a.known.grown)
	for i, f := range c.known.grown {
		c.known.grown[i] = f.clone()
	}
	c.known.taught, c.ep.pending = a.known.taught.clone(), a.ep.pending.clone()
	c.ring, c.steps = slices.Clone(a.ring), slices.Clone(a.steps)
	c.log.known, c.log.recent = slices.Clone(a.log.known), slices.Clone(a.log.recent)
	if a.rare != nil {
		r := *a.rare
		if r.spent != nil {
			s := *r.spent
			s.pending = s.pending.clone()
			r.spent = &s
		}
		c.rare = &r
	}
	return &c
}

func (f *filter) clone() *filter {
	if f == nil {
		return nil
	}
	c := *f
	c.bits = slices.Clone(f.bits)
	return &c
}
