package mailq

import (
	"slices"
	"testing"
)

// While the key is replaced recipients have both hashes; messages that are open
// then are still known, and name nobody twice.
func TestRekey(t *testing.T) {
	now, next := [16]byte{1}, [16]byte{2}
	p := &Parser{Key: now}
	with := func(key [16]byte) uint64 { return (&Parser{Key: key}).Recipient("r1@ok.test").Hash }
	first := at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>", activeLine(id1, "alice@shop.test", 2), deferredLine(id1, "r1@ok.test"))
	again, other := at(deferredLine(id1, "r1@ok.test")), at(deferredLine(id1, "r2@ok.test"))
	named := func(log string) (all []Recipient) {
		for _, ev := range events(p, log) {
			all = append(all, ev.New...)
		}
		return all
	}
	if got := named(first); len(got) != 1 || got[0].Hash != with(now) || got[0].Next != 0 {
		t.Errorf("before: %+v", got)
	}
	p.Rekey(now, next)
	if r := p.Recipient("R1@ok.test"); r.Hash != with(now) || r.Next != with(next) || r.Newest() != with(next) {
		t.Errorf("meanwhile: %+v", r)
	}
	if got := named(again); len(got) != 0 {
		t.Errorf("who was named before the rotation is named again: %+v", got)
	}
	if got := named(other); len(got) != 1 || got[0].Next == 0 {
		t.Errorf("meanwhile: %+v", got)
	}
	p.Rekey(next, [16]byte{})
	if r := p.Recipient("r1@ok.test"); r != (Recipient{Hash: with(next), Domain: "ok.test"}) {
		t.Errorf("after: %+v", r)
	}
	if got := named(other); len(got) != 0 {
		t.Errorf("who was named in the rotation is named again: %+v", got)
	}

	// A parser that starts with the new key finds the messages of the old one.
	stored := map[uint64]string{}
	keep := func(p *Parser) {
		p.Changed(func(key uint64, state []byte) {
			if stored[key] = string(state); state == nil {
				delete(stored, key)
			}
		})
	}
	keep(p)
	p = &Parser{Key: next}
	for key, state := range stored {
		if err := p.Restore(key, []byte(state)); err != nil {
			t.Fatal(err)
		}
	}
	keep(p)
	if got := named(other); len(got) != 0 || len(stored) != 1 {
		t.Errorf("after a restart %+v are named again, %d messages are stored", got, len(stored))
	}
	if evs := events(p, at("postfix/qmgr[4329]: "+id1+": removed")); len(evs) != 1 || evs[0].Account != "alice@shop.test" {
		t.Errorf("after a restart the message is not known: %+v", evs)
	}
	if keep(p); len(stored) != 0 {
		t.Errorf("%d messages stay stored", len(stored))
	}
}

// Both hashes of who was named before the submission outlast a restart, and what a
// release with one key wrote, or reads, is a state too.
func TestNextHashIsStored(t *testing.T) {
	for _, noted := range [][]Recipient{nil, {{Hash: 1, Domain: "ok.test"}}, {{Hash: 1, Domain: "ok.test"}, {Hash: 2, Next: 3, Domain: "ok.test"}}} {
		p := &Parser{}
		p.prepare()
		r := stateReader{p: p, b: (&open{id: id1, host: "mx", noted: noted}).appendState(nil)}
		var read open
		if version := r.number(); version != 1 {
			t.Errorf("version %d: the release before reads 1", version)
		}
		if r.message(&read); r.err != nil || len(r.b) != 0 || !slices.Equal(read.noted, noted) {
			t.Errorf("got %+v, %v, want %+v", read.noted, r.err, noted)
		}
	}
}
