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
	saved := *d
	remembered := []trial{newTrial(d.fleet.mem), newTrial(d.fleet.heard)}
	d.room = room{}
	d.cfg.MaxAccounts = math.MaxInt // nobody is forgotten for it
	d.fails.slot = slices.Clone(d.fails.slot)
	d.marks = marks{slices.Clone(d.marks.nets), slices.Clone(d.marks.whom), slices.Clone(d.marks.texts)}
	d.fleet.peers.at = slices.Clone(d.fleet.peers.at)
	d.lost.told = slices.Clone(d.lost.told)
	a := d.accounts[name]
	var before *account
	if a != nil {
		before = a.clone()
	}
	f()
	for _, t := range remembered {
		t.takeBack()
	}
	*d = saved
	if a == nil {
		delete(d.accounts, name)
	} else {
		*a = *before
	}
}

// A trial is a memory while somebody tries something.
type trial struct {
	*everyone
	before uint32 // its n
}

func newTrial(e *everyone) trial {
	e.undo = []undo{}
	return trial{e, e.n}
}

// takeBack makes the memory what it was.
func (t trial) takeBack() {
	for _, u := range slices.Backward(t.undo) {
		t.gen[0][u.word] = u.was
	}
	t.undo, t.n = nil, t.before
}

// clone copies the account with everything that it points to.
func (a *account) clone() *account {
	c := *a
	c.ring, c.series.past = copied(a.ring), copied(a.series.past)
	c.known.exact = slices.Clone(a.known.exact)
	c.known.more = copied(a.known.more)
	if m := c.known.more; m != nil {
		m.grown, m.taught = slices.Clone(m.grown), m.taught.clone()
		for i, f := range m.grown {
			m.grown[i] = f.clone()
		}
	}
	c.ep.doubt = copied(a.ep.doubt)
	if e := c.ep.doubt; e != nil {
		e.pending = e.pending.clone()
	}
	c.log.nets = slices.Clone(a.log.nets)
	c.in = copied(a.in)
	c.rare = copied(a.rare)
	if r := c.rare; r != nil {
		r.steps = slices.Clone(r.steps)
		r.spent = copied(r.spent)
		if r.spent != nil {
			r.spent.pending = r.spent.pending.clone()
		}
	}
	return &c
}

// copied is a copy of what p points to; nil of nil.
func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func (f *filter) clone() *filter {
	c := copied(f)
	if c != nil {
		c.bits = slices.Clone(f.bits)
	}
	return c
}
