package notify

import (
	"errors"
	"time"
)

// ErrPermanent says that a channel refused the message for good: the same
// message to the same channel will be refused again.
var ErrPermanent = errors.New("refused for good")

// An Error is why a channel did not take a message. Its text is one bounded
// line without control characters, and never holds a password or a URL's path.
type Error struct {
	Permanent  bool
	RetryAfter time.Duration // when the other side wants to be tried again; 0: it did not say
	Err        error
}

// Error is the cause in one line, with control characters made visible.
func (e *Error) Error() string { return visible(e.Err.Error(), maxValue) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is says that a permanent error is [ErrPermanent].
func (e *Error) Is(target error) bool { return target == ErrPermanent && e.Permanent }

// RetryAfter returns when the other side wants to be tried again, 0 if it did
// not say.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
