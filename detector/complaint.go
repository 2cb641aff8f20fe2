package detector

import (
	"math"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Handled is a message as a server through which it went wrote it down in a
// Received line: its queue id there, and when it came. Anybody may claim so.
type Handled struct {
	ID   string
	Time time.Time
}

// A ComplaintResult says what a complaint was worth. The zero value is nothing.
type ComplaintResult uint8

// The results of complaints.
const (
	ComplaintUnknown  ComplaintResult = iota // it is about no message that is known to have left here
	ComplaintCounted                         // it counts
	ComplaintRepeated                        // the message was complained about before
	ComplaintReleased                        // an operator released the account since the message
)

// String is what became of the complaint, as figures have it.
func (r ComplaintResult) String() string {
	return [...]string{"unknown", "counted", "repeated", "released"}[r]
}

// The points of complaints, and when they count less.
const (
	complaintPoints   = 8
	complaintsMost    = 40
	complaintsFew     = 1              // points, where they are fewer than complaintShare
	complaintShare    = 0.003          // of the recipients that an account's mail was delivered to: from there on Gmail calls a sender bad
	complaintHalfLife = 24 * time.Hour // of the message's age
)

// By how much the stamp of a Received line may be later than the first that the
// log tells of the message, and earlier: the one is made as the message begins,
// the other when it is in the queue, or leaves a filter.
const (
	handledLater   = time.Hour
	handledEarlier = 24 * time.Hour
)

// Complain takes a complaint about a message that went through these hands, the
// newest first, and returns who sent it and the findings about accounts that
// endanger the addresses, as Observe does. Now is when it came.
//
// A complaint is a stranger's word. It counts only for a message that the log
// saw delivered, once, and as one of whom it was delivered to: what the complaint
// says of that is not asked. Where a message went to several receivers, nobody
// can tell which of them complains, so it does not help to name its account.
func (r *ListingRisk) Complain(by []Handled, now time.Time) (mailq.Account, ComplaintResult, []rules.Finding) {
	if r == nil || r.Sent == nil {
		return "", ComplaintUnknown, nil
	}
	m, from, result := r.Sent.complain(by)
	if result != ComplaintCounted {
		return from, result, nil
	}
	delivered, blamed := r.Sent.of(from)
	points := float64(complaintPoints)
	if float64(blamed) < complaintShare*float64(delivered) {
		points = complaintsFew
	}
	points *= math.Exp2(-max(0, now.Sub(time.Unix(int64(m.at), 0))).Hours() / complaintHalfLife.Hours())
	a := r.account(from, now)
	r.fade(a, now)
	before := a.did()
	a.complaints = min(a.complaints+a.receivers.add(m.receiver, points, receiverMost, now), complaintsMost)
	a.complainers.add(m.receiver, points, receiverMost, now)
	r.add(a.did()-before, now)
	if r.Act <= 0 || r.Risk(now) < r.Act {
		return from, result, nil
	}
	return from, result, r.name(now)
}

// Left takes an event of long ago, of which nothing but what it says of messages
// that left is still worth something.
func (r *ListingRisk) Left(ev *mailq.Event) {
	if r != nil && ev.Account != "" {
		r.Sent.saw(ev)
	}
}

// complain finds the message that a complaint is about and notes that somebody
// complained.
func (s *Sent) complain(by []Handled) (sentMessage, mailq.Account, ComplaintResult) {
	for _, h := range by {
		key := sentKey(h.ID)
		half, m, ok := s.find(key)
		age := int64(m.at) - h.Time.Unix()
		if !ok || m.is(isMixed) || m.delivered == 0 || age < -int64(handledLater.Seconds()) || age > int64(handledEarlier.Seconds()) {
			continue
		}
		from := &half.senders[m.from]
		switch {
		case m.is(isBlamed):
			return m, from.account, ComplaintRepeated
		case !from.cleared.IsZero() && int64(m.at) <= from.cleared.Unix():
			return m, from.account, ComplaintReleased
		}
		m.flags |= isBlamed
		s.put(half, key, m)
		from.blamed++
		return m, from.account, ComplaintCounted
	}
	return sentMessage{}, "", ComplaintUnknown
}

// told is how many receivers have points, of those that can be told.
func told(s *shares[uint32]) int {
	n := len(s.points)
	if _, ok := s.points[severalReceivers]; ok {
		n--
	}
	return n
}
