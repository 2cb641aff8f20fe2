// Package gate answers a mail server that asks, before it accepts a message,
// "may this account send now?".
//
// A [Table] holds the verdicts: whom to block, hold or slow down, and until
// when. [Policy] serves them to Postfix as an SMTPD access policy service.
// Answers come from memory alone, and everything fails open: a question that
// cannot be read, a connection too many, a verdict that has expired, an
// account that nobody decided about — all mean that the mail server goes on
// as if there were no gate. What must stay refused when Vedetta is away is
// the business of the server's own tables; see package enforce.
package gate

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// An Answer is what the gate tells a mail server. The zero Answer is Dunno:
// what is forgotten or unreadable refuses nobody.
type Answer uint8

// The answers.
const (
	Dunno  Answer = iota // no opinion: the server's other rules decide
	Hold                 // accept, and keep in the hold queue
	Defer                // refuse for now: the client should try later
	Reject               // refuse
	answers
)

var answerNames = [answers]string{"dunno", "hold", "defer", "reject"}

func (a Answer) String() string {
	if a < answers {
		return answerNames[a]
	}
	return "unknown"
}

// An Allowance is what a throttled account may still send: one recipient each
// Every, of which at most Burst may be saved up. Zero fields mean the default.
type Allowance struct {
	Every time.Duration
	Burst int
}

// The default lets a throttled account write to 120 recipients an hour, five
// of them at once: enough for a person, nothing for a spammer.
const (
	defaultEvery = 30 * time.Second
	defaultBurst = 5
)

// A Table holds the verdicts in force, by canonical account. The zero Table
// is empty and ready. Its methods may be called from any goroutine; a look-up
// takes a read lock, does no I/O and does not allocate.
type Table struct {
	// Allowance says how much a throttled account may send. It is asked when
	// the verdict is set. Nil means one recipient each 30 seconds, five at
	// once.
	Allowance func(subject string) Allowance

	// Throttled says what mail gets past a throttled account's allowance: Hold,
	// which Dunno means too, accepts it and keeps it in the queue, from which
	// it is released later, at the account's allowance; Defer refuses it for
	// now. It is read when the verdict is set.
	Throttled Answer

	mu       sync.RWMutex
	verdicts map[string]*Verdict
}

// A Verdict is one decision in force, as the gate needs it.
type Verdict struct {
	Decision rules.Decision
	Text     string // what the client is told: one line of printable ASCII

	answer Answer
	wire   []byte // the policy service's whole answer
	until  int64  // Unix nanoseconds; math.MaxInt64: no end
	every  int64  // nanoseconds a recipient of a throttled account
	burst  int64  // recipients that a throttled account may save up

	// due is when the throttled account will have paid for all it sent, in
	// Unix nanoseconds. This is a token bucket kept as one number (the
	// generic cell rate algorithm): empty when due lies burst·every ahead.
	due   atomic.Int64
	given atomic.Uint64

	// waiting is true while held mail of a throttled account waits to be let
	// out: that comes first, and new mail is held behind it.
	waiting atomic.Bool
}

// Set puts d in force under d.Subject, in place of what was there. Text is
// what the client is told. A decision that is only observed, or that asks for
// less than a throttle, changes nothing. Setting a throttle again, as a
// reconciliation does, gives the account no new allowance.
func (t *Table) Set(d rules.Decision, text string) {
	if !d.Enforce || d.Action < rules.Throttle || d.Subject == "" {
		return
	}
	v := &Verdict{Decision: d, Text: line(text), until: math.MaxInt64}
	if !d.Until.IsZero() {
		v.until = d.Until.UnixNano()
	}
	v.answer = t.answer(d.Action)
	v.wire = wire(v.answer, v.Text)
	if d.Action == rules.Throttle {
		a := t.allowance(d.Subject)
		v.every, v.burst = int64(a.Every), min(int64(a.Burst), maxDue/int64(a.Every))
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verdicts == nil {
		t.verdicts = make(map[string]*Verdict)
	}
	if old := t.verdicts[d.Subject]; old != nil {
		v.due.Store(old.due.Load())
		v.given.Store(old.given.Load())
		v.waiting.Store(old.waiting.Load())
	}
	t.verdicts[d.Subject] = v
}

// answer is what the gate says under a decision to do action; for a throttle,
// past its allowance.
func (t *Table) answer(action rules.Action) Answer {
	switch {
	case action >= rules.Block: // a reset stays blocked until the new password is handed over
		return Reject
	case action == rules.Throttle && t.Throttled == Defer:
		return Defer
	}
	return Hold
}

func (t *Table) allowance(subject string) Allowance {
	var a Allowance
	if t.Allowance != nil {
		a = t.Allowance(subject)
	}
	if a.Every <= 0 {
		a.Every = defaultEvery
	}
	if a.Burst <= 0 {
		a.Burst = defaultBurst
	}
	return a
}

// Remove takes the subject's verdict out of force.
func (t *Table) Remove(subject string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.verdicts, subject)
}

// Len is the number of verdicts, expired ones included until they are removed.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.verdicts)
}

// Lookup returns the verdict in force for the subject, nil if there is none.
func (t *Table) Lookup(subject string, now time.Time) *Verdict {
	t.mu.RLock()
	v := t.verdicts[subject]
	t.mu.RUnlock()
	return v.at(now)
}

// lookup is Lookup for a subject that is not yet a string.
func (t *Table) lookup(subject []byte, now time.Time) *Verdict {
	t.mu.RLock()
	v := t.verdicts[string(subject)]
	t.mu.RUnlock()
	return v.at(now)
}

// at returns v, or nil if it is no longer in force.
func (v *Verdict) at(now time.Time) *Verdict {
	if v == nil || now.UnixNano() >= v.until {
		return nil
	}
	return v
}

// Answer is what the verdict says to a message; for a throttle, what it says
// once the allowance is used up.
func (v *Verdict) Answer() Answer {
	if v == nil {
		return Dunno
	}
	return v.answer
}

// Weigh is the answer to a message with n recipients. A throttle takes them
// from the account's allowance, all or none, and has no objection if they
// could be taken.
func (v *Verdict) Weigh(n int, now time.Time) Answer {
	if v.throttles() && v.Take(n, now) {
		return Dunno
	}
	return v.Answer()
}

// throttles reports whether the verdict is a throttle.
func (v *Verdict) throttles() bool { return v != nil && v.burst > 0 }

// Given is how many times the verdict, with those that it replaced, was the
// reason to hold, defer or refuse.
func (v *Verdict) Given() uint64 { return v.given.Load() }

// maxDue bounds how far a verdict's due may lie ahead, in nanoseconds: 73 years.
const maxDue = math.MaxInt64 / 4

// Take takes n recipients of new mail from a throttled account's allowance and
// reports whether there were that many, and none of its held mail waits. If not
// it takes none.
func (v *Verdict) Take(n int, now time.Time) bool {
	if n <= 0 {
		return true
	}
	return !v.waiting.Load() && v.takeSome(int64(n), now)
}

// takeSome takes n recipients if there are that many.
func (v *Verdict) takeSome(n int64, now time.Time) bool {
	return n <= v.burst && v.take(n, (v.burst-n)*v.every, now)
}

// take takes n recipients if due lies at most ahead nanoseconds ahead.
func (v *Verdict) take(n, ahead int64, now time.Time) bool {
	at := now.UnixNano()
	for {
		due := v.due.Load()
		if due-at > ahead {
			return false
		}
		if v.due.CompareAndSwap(due, max(due, at)+n*v.every) {
			return true
		}
	}
}

// giveBack undoes a Take of n recipients: their message is held, and will be
// paid for when it is released.
func (v *Verdict) giveBack(n int) { v.due.Add(-int64(n) * v.every) }

// Free is how many recipients the account's allowance would pay for now:
// math.MaxInt for an account without a verdict, 0 for one that is held or
// blocked.
func (v *Verdict) Free(now time.Time) int {
	switch {
	case v == nil:
		return math.MaxInt
	case !v.throttles(), v.waiting.Load():
		return 0
	}
	ahead := max(v.due.Load()-now.UnixNano(), 0)
	return int(max(v.burst-(ahead+v.every-1)/v.every, 0))
}

// Pay takes the n recipients of a held message from the subject's allowance
// and reports whether the message may be released. A message with more
// recipients than can be saved up is paid for in advance, as soon as all is
// saved up: else it would wait for ever. Nobody pays without a verdict, and
// what is held or blocked cannot be bought free.
func (t *Table) Pay(subject string, n int, now time.Time) bool {
	v := t.Lookup(subject, now)
	switch {
	case v == nil:
		return true
	case !v.throttles():
		return false
	case int64(n) > v.burst:
		return v.take(min(int64(n), maxDue/v.every), 0, now)
	}
	return v.takeSome(int64(n), now)
}

// Wait says whether held mail of a throttled account waits to be let out. While
// it does, the allowance is kept for it, so that the oldest leaves first.
func (t *Table) Wait(subject string, waiting bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if v := t.verdicts[subject]; v != nil {
		v.waiting.Store(waiting)
	}
}

// maxText bounds the text of an answer. Postfix prefixes it with the code and
// the recipient, and RFC 5321, section 4.5.3.1.5, allows a reply line 512 octets.
const maxText = 200

// line makes text fit for an answer: one line of printable ASCII, not too long.
func line(text string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text[:min(len(text), 4*maxText)])
	clean = strings.Join(strings.Fields(clean), " ")
	return strings.TrimSpace(clean[:min(len(clean), maxText)])
}

// wireDunno is the policy service's answer about everybody without a verdict.
const wireDunno = "action=DUNNO\n\n"

// wire writes an answer as access(5) wants it, with the status code of RFC
// 3463: 5.7.1 refused for policy, 4.7.1 the same for now.
func wire(a Answer, text string) []byte {
	switch a {
	case Hold:
		return []byte("action=HOLD " + text + "\n\n")
	case Defer:
		return []byte("action=DEFER 4.7.1 " + text + "\n\n")
	case Reject:
		return []byte("action=REJECT 5.7.1 " + text + "\n\n")
	}
	return []byte(wireDunno)
}
