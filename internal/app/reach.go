package app

import (
	"context"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
)

// Pauses of a retry.
const (
	firstRetry = 200 * time.Millisecond // after a failure, then twice as long each time
	lastRetry  = 5 * time.Second
)

// A retry is when one of an agent's two connections tries to reach the hub again:
// after pauses that double, or sooner once the other one has reached it.
type retry struct {
	back  bell          // the other has
	away  bool          // it was not reached the last time
	pause time.Duration // the next
}

func newRetry() retry { return retry{back: newBell(), pause: firstRetry} }

// rest waits until it is time to try again, or ctx ends. However often the two ring
// for each other, there is a first pause.
func (r *retry) rest(ctx context.Context) {
	over := time.NewTimer(r.pause)
	defer over.Stop()
	r.away, r.pause = true, min(2*r.pause, lastRetry)
	_ = wait(ctx, firstRetry)
	select {
	case <-ctx.Done():
	case <-over.C:
	case <-r.back:
	}
}

// reached notes that the hub was reached. If it was not before, the other need not
// wait longer.
func (r *retry) reached(other *retry) {
	if r.away {
		other.back.ring()
	}
	r.away = false
}

// A stride is how much of what waits goes in a request: what a third of a second
// suffices for, as what is new may have to wait for its answer.
type stride struct{ doublings int }

const (
	firstStride = 32 << 10 // bytes; it grows up to hub.MaxLateBytes
	strideTakes = time.Second / 3
)

func (s stride) bytes() int { return min(firstStride<<s.doublings, hub.MaxLateBytes) }

// took fits the stride to how long the request with the rows took.
func (s *stride) took(d time.Duration, rows []store.SpoolRow) {
	size := 0
	for _, r := range rows {
		size += len(r.Body)
	}
	switch {
	case d > strideTakes:
		s.doublings = max(s.doublings-1, 0)
	case d < strideTakes/2 && size > s.bytes()/2 && s.bytes() < hub.MaxLateBytes:
		s.doublings++
	}
}
