package app

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
)

// A place is where in the hub's counting the spool's batches are, in parts that
// follow each other. While the hub is not reached, what is new becomes a part of
// the lane of what waits; when it is back, a part of the other lane begins, and is
// sent before what waits. No batch changes its number once it was sent, so that
// one that is sent again counts once.
type place struct {
	Agent string
	Parts []part // at least one, by epoch; the last has no end

	changed bool // and is to be written down before anything more is sent
}

// A part is batches of the spool that are numbered together: the one with number
// seq there is seq - Base at the hub.
type part struct {
	Epoch uint64 `json:"epoch"`
	Base  uint64 `json:"base"`
	Acked uint64 `json:"acked"`          // the newest batch of the part that the hub has; Base: it has none
	Last  uint64 `json:"last,omitempty"` // of the part; 0: it has no end yet
	Late  bool   `json:"late,omitempty"` // of the lane of what waits
}

// maxParts bounds the parts. Those that the hub has had are kept for a hub that
// is restored from a backup; where more than so many wait, what is new waits too.
const maxParts = 100

// end is the last batch of the part, where newest is that of the spool.
func (p part) end(newest uint64) uint64 {
	if p.Last != 0 {
		return p.Last
	}
	return newest
}

// A writtenPlace is a place as it is kept. Beside the parts it has the latest of
// what is new: all that a release before this one knows, if one comes back.
type writtenPlace struct {
	Agent string `json:"agent"`
	part
	Parts []part `json:"parts"`
}

// news is the latest part of the lane of what is new; the first, if none is.
func (p *place) news() part {
	for i := len(p.Parts) - 1; i >= 0; i-- {
		if !p.Parts[i].Late {
			return p.Parts[i]
		}
	}
	return p.Parts[0]
}

// MarshalJSON implements [json.Marshaler].
func (p place) MarshalJSON() ([]byte, error) {
	latest := p.news()
	latest.Last, latest.Late = 0, false
	return json.Marshal(writtenPlace{p.Agent, latest, p.Parts})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (p *place) UnmarshalJSON(text []byte) error {
	var w writtenPlace
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*p = place{Agent: w.Agent, Parts: w.Parts}
	if len(w.Parts) == 0 || p.news().Epoch != w.Epoch { // as an earlier release left it
		p.Parts = []part{w.part}
	}
	return nil
}

const placeSetting = "spool-place"

// had reports whether the hub has had a batch of the spool.
func (p *place) had(seq uint64) bool {
	for _, s := range p.Parts {
		if seq > s.Acked && seq <= s.end(seq) {
			return false
		}
	}
	return true
}

// sent is the batch up to which the hub has had them all.
func (p *place) sent(newest uint64) uint64 {
	for _, s := range p.Parts {
		if s.Acked < s.end(newest) {
			return s.Acked
		}
	}
	return newest
}

// waiting is about how many batches the hub has not had.
func (p *place) waiting(newest uint64) (n uint64) {
	for _, s := range p.Parts {
		n += s.end(newest) - min(s.Acked, s.end(newest))
	}
	return n
}

// next is the first part of a lane of which something waits.
func (p *place) next(late bool, newest uint64) *part {
	for i := range p.Parts {
		if s := &p.Parts[i]; s.Late == late && s.Acked < s.end(newest) {
			return s
		}
	}
	return nil
}

// follow takes over where the hub says that it is in a lane. It returns false
// where the hub has had what is not known to be numbered here.
func (p *place) follow(at hub.Mark, newest uint64) bool {
	if at.Epoch > p.Parts[len(p.Parts)-1].Epoch {
		return false // this disk was set back over an epoch
	}
	for i := range p.Parts {
		s := &p.Parts[i]
		switch {
		case s.Late != at.Late:
		case at.Epoch < s.Epoch: // it has heard nothing of this epoch yet, or has forgotten it
			s.Acked = s.Base
		case at.Epoch > s.Epoch:
			s.Acked = s.end(newest)
		case s.Base+at.Seq <= s.end(newest):
			s.Acked = s.Base + at.Seq
		default: // this disk was set back, or an earlier release went on with this part
			p.skip(i, s.Base+at.Seq, newest)
			return false
		}
	}
	return true
}

// skip notes that the hub has had all up to a batch, from the part on in which it is
// numbered. What it has had of those before follows from the mark of their lane: what
// waits may be older than what is new, and not sent yet.
func (p *place) skip(from int, upto, newest uint64) {
	for i := from; i < len(p.Parts); i++ {
		s := &p.Parts[i]
		s.Acked = max(s.Acked, min(upto, s.end(newest)))
	}
}

// oneLane puts everything into the lane of what is new, for a hub that has no
// other. It returns false where the hub had another once: what is left has to be
// numbered in its order.
func (p *place) oneLane(at hub.Mark, newest uint64) bool {
	ok := true
	for i := range p.Parts {
		s := &p.Parts[i]
		if s.Epoch == at.Epoch {
			s.Acked = min(s.Base+at.Seq, s.end(newest))
		}
		if s.Late {
			ok = ok && s.Acked == s.Base && s.Epoch > at.Epoch
			s.Late, p.changed = false, true
		}
	}
	return ok
}

// hear takes over where the hub says that it is, and has what comes after newest
// go in the lane of what is new.
func (p *place) hear(at hub.Marks, newest uint64) {
	var ok bool
	if at.Old == nil {
		ok = p.oneLane(at.Mark, newest) && p.follow(at.Mark, newest)
	} else {
		ok = p.follow(*at.Old, newest)
		ok = p.follow(at.Mark, newest) && ok
	}
	if !ok {
		p.renumber(max(at.Epoch, at.Of(true).Epoch))
	}
	p.turn(false, newest)
}

// turn has what comes after newest go in a lane.
func (p *place) turn(late bool, newest uint64) {
	last := p.Parts[len(p.Parts)-1]
	if last.Late == late || newest == 0 || late && !p.room() {
		return
	}
	open := &p.Parts[len(p.Parts)-1]
	if open.Last = newest; open.Base == newest && len(p.Parts) > 1 { // it stayed empty
		p.Parts = p.Parts[:len(p.Parts)-1]
	}
	p.Parts = append(p.Parts, part{Epoch: max(uint64(time.Now().UnixNano()), last.Epoch+1), Base: newest, Acked: newest, Late: late})
	p.changed = true
}

// room forgets the oldest part that the hub has had where there are as many as
// there may be.
func (p *place) room() bool {
	done := func(s part) bool { return s.Last != 0 && s.Acked >= s.Last }
	if i := slices.IndexFunc(p.Parts, done); len(p.Parts) >= maxParts && i >= 0 {
		p.Parts = slices.Delete(p.Parts, i, i+1)
	}
	return len(p.Parts) < maxParts
}

// drop forgets a part of which the spool has nothing more.
func (p *place) drop(epoch uint64) {
	p.Parts = slices.DeleteFunc(p.Parts, func(s part) bool { return s.Epoch == epoch })
}

// renumber begins new epochs, after one of the hub's, with what was not sent for
// certain.
func (p *place) renumber(after uint64) {
	epoch := max(uint64(time.Now().UnixNano()), after+1)
	var parts []part
	for _, s := range p.Parts {
		if s.Last == 0 || s.Acked < s.Last {
			parts = append(parts, part{epoch + uint64(len(parts)), s.Acked, s.Acked, s.Last, s.Late})
		}
	}
	p.Parts, p.changed = parts, true
}
