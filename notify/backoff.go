package notify

import (
	"encoding/binary"
	"hash/fnv"
	"time"
)

// The back-off of a message that was not taken: 5 s, 15 s, 45 s, … up to an hour.
const (
	firstWait = 5 * time.Second
	lastWait  = time.Hour
)

// Next returns when to try again after the attempt-th failure (the first is 1).
// Waits triple up to an hour and vary by a quarter either way with the ID, so
// that messages that failed together do not come back together. It is never
// before what the other side asked for in retryAfter, of which an hour counts.
func Next(id string, attempt int, now time.Time, retryAfter time.Duration) time.Time {
	wait := firstWait
	for range min(attempt, 20) - 1 {
		wait = min(3*wait, lastWait)
	}
	wait += time.Duration(float64(wait) * jitter(id, attempt))
	return now.Add(max(wait, min(retryAfter, lastWait)))
}

// jitter returns a number from -¼ to ¼ that depends on nothing but its arguments.
func jitter(id string, attempt int) float64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	h.Write(binary.AppendVarint(nil, int64(attempt)))
	// The high bits of FNV hardly depend on the last bytes: mix them (splitmix64).
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return float64(x>>11)/(1<<54) - 0.25
}
