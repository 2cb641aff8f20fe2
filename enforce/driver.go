package enforce

import (
	"context"
	"net/netip"
	"time"
)

// A Switch stops and starts one account at a time: at a panel, or by a program
// of the operator's. What it did is kept, with what is needed to undo it, before
// it is done; so a crash leaves nobody stopped for good.
type Switch interface {
	Name() string
	// Covers reports whether the switch can carry out the entry's action for
	// its account. What it does not cover is not its business.
	Covers(e Entry) bool
	// Before reads what Clear will need to know, such as the limit that is
	// there now. It changes nothing.
	Before(ctx context.Context, e Entry) (undo string, err error)
	// Set carries the entry out. Setting what is set changes nothing.
	Set(ctx context.Context, e Entry) error
	// Clear undoes Set. Clearing what is not set succeeds. undo is what Before
	// said, empty if that is not known any more.
	Clear(ctx context.Context, e Entry, undo string) error
	// Plan lists exactly what Set would run, a line each, without secrets.
	Plan(e Entry) []string
}

// A Queue is a mail server's queue, as far as accounts are concerned.
type Queue interface {
	Name() string
	// Find reads the envelopes of the queued messages and returns those that
	// want accepts, the oldest first.
	Find(ctx context.Context, want func(Queued) bool) ([]Queued, error)
	// Hold, Release and Delete act on messages that Find returned and return
	// how many there were. A message whose id now belongs to another one, by
	// its arrival time, is left alone and not counted. Release has them
	// delivered at once.
	Hold(ctx context.Context, ms []Queued) (int, error)
	Release(ctx context.Context, ms []Queued) (int, error)
	Delete(ctx context.Context, ms []Queued) (int, error)
	// Headers returns the header of a message, at most 16 KiB; never its body.
	Headers(ctx context.Context, m Queued) ([]byte, error)
}

// A Queued is one message in a mail server's queue. Its text is a stranger's:
// bounded, and without control characters.
type Queued struct {
	ID      string
	Arrival time.Time // whole seconds; with ID it tells messages apart
	Login   string    // SASL login, as it stands in the queue file; empty if nobody logged in
	User    string    // system user that called sendmail, empty if none did
	UID     int       // the same where the queue knows only the number; -1 if not
	Client  netip.Addr
	Sender  string // envelope sender, empty for bounces
	Size    int64  // bytes
	Rcpts   int    // recipients left
	Held    bool
}

// Sessions are the open sessions of logins, and what a server remembers of
// their passwords.
type Sessions interface {
	Name() string
	// End ends the sessions of the logins and has remembered passwords
	// forgotten. Ending what is not there succeeds.
	End(ctx context.Context, logins []string) error
	Plan(logins []string) []string
}

// Passwords is where the passwords of mailboxes are changed.
type Passwords interface {
	Name() string
	// Covers reports whether this is where the account's password is.
	Covers(account string) bool
	// Change sets the account's password. The password stands neither in an
	// argument nor in a log nor in an error.
	Change(ctx context.Context, account, password string) error
	Plan(account string) []string
}
