package hub

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// A SparingLog writes down what others can bring about as often as they like: some
// of it, and how much was left out. The zero SparingLog is ready.
type SparingLog struct {
	once    sync.Once
	allow   *rate.Limiter
	skipped atomic.Uint64
}

// How much of it is written down.
const (
	sparingPerSecond = 1
	sparingAtOnce    = 20
)

// Warn writes a line, if it is time for one.
func (t *SparingLog) Warn(log *slog.Logger, text string, args ...any) {
	t.once.Do(func() { t.allow = rate.NewLimiter(sparingPerSecond, sparingAtOnce) })
	if !t.allow.Allow() {
		t.skipped.Add(1)
		return
	}
	if n := t.skipped.Swap(0); n > 0 {
		args = append(args, "left_out_before", n)
	}
	log.Warn(text, args...)
}
