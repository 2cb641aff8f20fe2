package app

import (
	"sync/atomic"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// forwardAt is how many events are handed over at once where there are many, as
// while a long log is read: fewer than a batch may have.
const forwardAt = 5000

// spoolSource is the name under which the number of the latest batch is kept.
const spoolSource = "spool"

// A forwarder gathers what an agent sees into batches. It stands where the
// detector of serve does, and belongs to observe.
type forwarder struct {
	seq      uint64 // of the latest batch
	events   []mailq.Event
	findings []rules.Finding
	samples  []mailq.QueueSample
	fuse     fuse

	lost      atomic.Uint64 // events that did not fit the disk and were not told of yet
	committed atomic.Uint64 // number of the latest batch on the disk
	written   bell          // there is a new one
}

func newForwarder() *forwarder { return &forwarder{written: newBell()} }

func (f *forwarder) event(ev *mailq.Event) { f.events = append(f.events, *ev) }

// full reports whether it is time to hand over.
func (f *forwarder) full() bool { return f != nil && len(f.events) >= forwardAt }

// seal packs what was gathered, as rows for the spool and the new position.
func (f *forwarder) seal(now time.Time, positions map[string][]byte) (rows []store.SpoolRow) {
	for len(f.events)+len(f.findings)+len(f.samples) > 0 || f.lost.Load() > 0 {
		n := min(len(f.events), hub.MaxEvents)
		f.seq++
		b := hub.Batch{Mark: hub.Mark{Epoch: 1, Seq: f.seq}, Lost: f.lost.Swap(0), Events: f.events[:n], Findings: f.findings, Samples: f.samples}
		sealed, err := hub.Seal(&b)
		if err != nil {
			panic(err) // plain data
		}
		rows = append(rows, store.SpoolRow{Seq: f.seq, Made: now, Events: n, Body: sealed.Body})
		f.events, f.findings, f.samples = f.events[n:], nil, nil
	}
	f.events = nil
	if len(rows) > 0 {
		positions[spoolSource] = asJSON(f.seq)
	}
	return rows
}

// wrote says that batches are on the disk.
func (f *forwarder) wrote(rows []store.SpoolRow) {
	if len(rows) == 0 {
		return
	}
	f.committed.Store(rows[len(rows)-1].Seq)
	f.written.ring()
}
