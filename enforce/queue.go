package enforce

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// ErrBusy means that messages are in delivery and could not be acted on:
// try again when their delivery has ended, in half a minute.
var ErrBusy = errors.New("being delivered; try again in 30 seconds")

// OfAccount returns what tells the queued messages of one account, by who
// handed them in and never by the envelope sender, which anybody may choose:
// those with one of the logins, in whatever case; without a login, those of
// one of the system users, by name or by number.
func OfAccount(logins, users []string, uids []int) func(Queued) bool {
	isLogin := make(map[string]bool, len(logins))
	for _, login := range logins {
		isLogin[strings.ToLower(login)] = true
	}
	return func(m Queued) bool {
		switch {
		case m.Login != "":
			return isLogin[strings.ToLower(m.Login)]
		case m.User != "":
			return slices.Contains(users, m.User)
		default:
			return m.UID >= 0 && slices.Contains(uids, m.UID)
		}
	}
}

// A spool reads the files of a queue.
type spool interface {
	Each(ctx context.Context, yield func(mailq.QueueHead) bool) error
	Look(ctx context.Context, ids []string, yield func(mailq.QueueHead) bool) error
	Header(h mailq.QueueHead, limit int) ([]byte, error)
}

// maxHeader is how much of a message's header is read, in bytes.
const maxHeader = 16 << 10

// find returns the messages that want accepts, each once, the oldest first.
func find(ctx context.Context, s spool, want func(Queued) bool) ([]Queued, error) {
	var found []Queued
	at := map[string]int{} // by id: one that moves may come twice
	err := s.Each(ctx, func(h mailq.QueueHead) bool {
		m := queued(h)
		if !want(m) {
			return true
		}
		if i, twice := at[m.ID]; twice {
			found[i] = m
			return true
		}
		at[m.ID] = len(found)
		found = append(found, m)
		return true
	})
	slices.SortFunc(found, older)
	return found, err
}

// look returns the messages with the ids, as far as they are in the queue.
func look(ctx context.Context, s spool, ids []string) ([]Queued, error) {
	var found []Queued
	err := s.Look(ctx, ids, func(h mailq.QueueHead) bool {
		found = append(found, queued(h))
		return true
	})
	return found, err
}

func older(a, b Queued) int {
	if n := a.Arrival.Compare(b.Arrival); n != 0 {
		return n
	}
	return strings.Compare(a.ID, b.ID)
}

func queued(h mailq.QueueHead) Queued {
	return Queued{
		ID: h.ID, Arrival: h.Arrival.Truncate(time.Second), Login: h.Login, User: h.User, UID: int(h.UID),
		Client: h.Client, Sender: h.Sender, Size: h.Size, Rcpts: h.Rcpts, Held: h.Held,
	}
}

// present returns those of the messages that are still in the queue, as their
// files are now. An id that another message has by now, by its arrival, is
// left out, and so is what is no id at all.
func present(ctx context.Context, s spool, ms []Queued) ([]mailq.QueueHead, error) {
	ids := make([]string, len(ms))
	arrival := make(map[string]time.Time, len(ms))
	for i, m := range ms {
		ids[i], arrival[m.ID] = m.ID, m.Arrival.Truncate(time.Second)
	}
	var there []mailq.QueueHead
	err := s.Look(ctx, ids, func(h mailq.QueueHead) bool {
		if at, ok := arrival[h.ID]; ok && at.Equal(h.Arrival.Truncate(time.Second)) {
			there = append(there, h)
			delete(arrival, h.ID) // once, however often it is named
		}
		return true
	})
	return there, err
}

// header returns a message's header.
func header(ctx context.Context, s spool, m Queued) ([]byte, error) {
	there, err := present(ctx, s, []Queued{m})
	if err != nil {
		return nil, err
	}
	if len(there) == 0 {
		return nil, mailq.ErrGone
	}
	return s.Header(there[0], maxHeader)
}

// isGone says whether a message has left the queue.
func isGone(err error) bool { return errors.Is(err, mailq.ErrGone) }
