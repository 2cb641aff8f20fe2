package detector

// fleet is what the installation as a whole has taught: the priors of
// accounts that have little past of their own, and who is known to anybody.
type fleet struct {
	first  int64 // the first event seen
	fresh  [classes][ageBuckets]share
	unseen [classes]share
	norms  [classes][gauges]norm
	same   share     // messages that look like one just before
	mem    *everyone // whom anybody has written to
	heard  *everyone // who has written to whom, see account.hears
	peers  peers
	calib  calibration
	dirty  bool
}

const ageBuckets = 12

// newShares is what accounts do of which 0, 1, 2–3, 4–7, … messages are
// known, before the installation has taught better: the share of
// their recipients that is new to them.
var newShares = [ageBuckets]float32{.98, .8, .7, .6, .5, .42, .36, .3, .26, .23, .2, .2}

func newFleet(recipients int) fleet {
	f := fleet{mem: newEveryone(recipients), heard: newEveryone(recipients)}
	for c := range f.norms {
		f.norms[c] = firstNorms
	}
	return f
}

// newAt is the share of new recipients of accounts of this class and age.
func (f *fleet) newAt(c class, age float32) float32 {
	b := ageBucket(age)
	return f.fresh[c][b].mean(newShares[b], 60)
}

func (f *fleet) learnNew(c class, age float32, isNew bool, w float32) {
	s := &f.fresh[c][ageBucket(age)]
	s.add(isNew, w)
	s.limit(20000)
}
