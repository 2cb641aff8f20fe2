package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Sender decides what to try when. The caller keeps the rows: it gives those
// that are due to Plan, each batch to Deliver, and writes down the Result for
// every row of the batch. The zero value of each policy field has a default.
// Its methods may be called from several goroutines, but no row may be under
// way twice.
type Sender struct {
	Channels map[string]Channel
	// MaxAge is how old a row may become before it is given up; 0 means 72
	// hours, a long weekend. Until then even what was refused for good is
	// tried each hour: the cause is mostly a configuration that gets mended.
	MaxAge time.Duration
	Limit  Limit

	mu    sync.Mutex
	lines map[string]*line // by channel
}

// A line is what a Sender remembers of a channel. After a restart it is empty,
// which costs at most one more storm's worth of single messages.
type line struct {
	sent   []time.Time // single messages of the last Limit.Per
	fails  int         // temporary failures since the last success
	until  time.Time   // the channel is left alone until then
	err    error       // the last of them
	digest []string    // row IDs of a digest that failed: it is tried again as it was
}

// A Batch is rows that go out as one message over one channel.
type Batch struct {
	Channel string
	Rows    []Row
}

// A Result is what became of a batch; it holds for each of its rows.
type Result struct {
	Sent  bool
	Tried bool      // the channel was tried and failed: one more attempt
	Due   time.Time // when to try again, if neither Sent nor Dead
	Dead  bool      // given up
	Err   error     // why the channel did not take it
}

// Plan groups the rows that are due into what goes out now. Rows in no batch
// stay due; next says when to ask again at the latest, zero if none waits.
func (s *Sender) Plan(now time.Time, due []Row) (batches []Batch, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byChannel := map[string][]Row{}
	for _, row := range due {
		byChannel[row.Channel] = append(byChannel[row.Channel], row)
	}
	for _, name := range slices.Sorted(maps.Keys(byChannel)) {
		l := s.lineLocked(name)
		digest, rows := l.unfinished(byChannel[name])
		if len(digest) > 0 {
			batches = append(batches, Batch{name, digest})
		}
		planned, wait := s.Limit.Plan(now, l.sent, rows)
		for _, p := range planned {
			batches = append(batches, Batch{name, p})
		}
		if !wait.IsZero() && (next.IsZero() || wait.Before(next)) {
			next = wait
		}
	}
	return batches, next
}

// unfinished splits off the rows of a digest that failed, if all are due: it
// goes out again as it was, under the same ID.
func (l *line) unfinished(rows []Row) (digest, rest []Row) {
	for _, row := range rows {
		if slices.Contains(l.digest, row.ID) {
			digest = append(digest, row)
		} else {
			rest = append(rest, row)
		}
	}
	if len(digest) < len(l.digest) {
		return nil, rows
	}
	slices.SortFunc(digest, func(x, y Row) int {
		return cmp.Compare(slices.Index(l.digest, x.ID), slices.Index(l.digest, y.ID))
	})
	return digest, rest
}

// Deliver tries to send a batch. A channel that has just failed is left alone
// for a while: its batches come back at once, not tried.
func (s *Sender) Deliver(ctx context.Context, b Batch, now time.Time) Result {
	if len(b.Rows) == 0 {
		return Result{Sent: true}
	}
	m := Digest(b.Rows)
	tried, err := s.try(ctx, b.Channel, m, now)
	r := Result{Err: err}
	switch {
	case err == nil:
		r.Sent = true
	case ctx.Err() != nil:
		r.Due = now // we are stopping, which is no failure of the channel
		return r
	default:
		r.Tried = tried
	}
	s.note(b, r, now)
	if !r.Sent {
		r.Dead = now.Sub(b.Rows[len(b.Rows)-1].Created) >= cmp.Or(s.MaxAge, 72*time.Hour)
		r.Due = s.due(b, tried, err, now)
	}
	return r
}

// try sends over one channel unless that is being left alone.
func (s *Sender) try(ctx context.Context, name string, m Message, now time.Time) (tried bool, err error) {
	channel, ok := s.Channels[name]
	if !ok {
		return false, &Error{Permanent: true, Err: fmt.Errorf("no channel %q is configured", name)}
	}
	s.mu.Lock()
	l := s.lineLocked(name)
	until, last := l.until, l.err
	s.mu.Unlock()
	if now.Before(until) {
		return false, last
	}
	err = channel.Send(ctx, m)

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		l.fails, l.until, l.err = 0, time.Time{}, nil
	case ctx.Err() == nil && !errors.Is(err, ErrPermanent):
		l.fails++
		l.until, l.err = Next(name, l.fails, now, RetryAfter(err)), err
	}
	return true, err
}

// note remembers what the next Plan needs: the single messages that went out,
// and the digest that did not.
func (s *Sender) note(b Batch, r Result, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lineLocked(b.Channel)
	switch {
	case len(b.Rows) > 1 && r.Tried && !r.Sent:
		l.digest = nil
		for _, row := range b.Rows {
			l.digest = append(l.digest, row.ID)
		}
	case len(b.Rows) > 1 && r.Sent:
		l.digest = nil
	case r.Sent:
		l.sent = append(slices.Clone(within(l.sent, now.Add(-s.Limit.per()))), now)
	}
}

// due says when a batch that was not sent is tried again.
func (s *Sender) due(b Batch, tried bool, err error, now time.Time) time.Time {
	attempts := 0
	for _, row := range b.Rows {
		attempts = max(attempts, row.Attempts)
	}
	switch {
	case errors.Is(err, ErrPermanent):
		return Next(b.Rows[0].ID, attempts+1, now, lastWait)
	case tried:
		return Next(b.Rows[0].ID, attempts+1, now, RetryAfter(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lineLocked(b.Channel).until
}

func (s *Sender) lineLocked(name string) *line {
	if s.lines == nil {
		s.lines = map[string]*line{}
	}
	if s.lines[name] == nil {
		s.lines[name] = &line{}
	}
	return s.lines[name]
}
