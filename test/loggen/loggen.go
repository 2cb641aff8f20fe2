// Package loggen writes mail logs as Postfix and Exim would have written them,
// for benchmarks, demonstrations and tests that need many lines.
//
// The traffic is made up but shaped like a hosting provider's: accounts with
// circles of people they write to, office hours, inbound mail, web scripts,
// bounces and retries, strangers who guess passwords, and the hijacks that are
// asked for. The same [Options] give the same bytes. All names are in .test
// and all addresses in ranges reserved for documentation and benchmarks.
package loggen

import (
	"bufio"
	"container/heap"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// A Format is a mail server's way of writing its log.
type Format string

// The formats.
const (
	Postfix Format = "postfix" // maillog of Postfix 3.7, traditional stamps, long queue ids
	Exim    Format = "exim"    // mainlog of Exim 4.96 with the selectors of cPanel, +pid and the like
)

// Options say what to write. Only Lines is needed.
type Options struct {
	Format   Format    // Postfix if empty
	Lines    int       // lines to write; the log ends there, whatever is then under way
	Accounts int       // senders; 200 if 0
	Start    time.Time // of the log; 2 March 2026, midnight UTC, if zero; its location is the server's
	Rate     float64   // messages a second on average; 12 a day and account if 0
	Seed     uint64

	// Shops is how many of the accounts, the last ones, are shops: each of
	// their messages goes to somebody new, which is their ordinary life.
	Shops int

	// RFC3339 stamps lines as rsyslog's newer format does. Postfix only.
	RFC3339 bool

	// Dovecot adds the IMAP logins of the accounts. Postfix only: Exim has a
	// log of its own.
	Dovecot bool

	Hijacks []Hijack
}

// A Hijack is a stranger with the password of an account, or with a script on
// its web site, who writes to people whom the account never wrote to.
type Hijack struct {
	Account  int           // see [Options.Login]
	After    time.Duration // from the start of the log to the first message
	Every    time.Duration // between messages; 2 s if 0
	Messages int           // 50 if 0
	Rcpts    int           // recipients a message; 1 if 0
	Script   bool          // through the web site of the account instead of its login
}

// withDefaults fills in what is not said, and reports what makes no sense.
func (o Options) withDefaults() (Options, error) {
	if o.Format == "" {
		o.Format = Postfix
	}
	if o.Accounts == 0 {
		o.Accounts = 200
	}
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	}
	if o.Rate == 0 {
		o.Rate = 12 * float64(o.Accounts) / (24 * 60 * 60)
	}
	switch {
	case o.Format != Postfix && o.Format != Exim:
		return o, fmt.Errorf("loggen: unknown format %q", o.Format)
	case o.Lines <= 0:
		return o, fmt.Errorf("loggen: %d lines", o.Lines)
	case o.Accounts < 0 || o.Shops < 0 || o.Shops > o.Accounts:
		return o, fmt.Errorf("loggen: %d accounts, %d of them shops", o.Accounts, o.Shops)
	case o.Rate < 0:
		return o, fmt.Errorf("loggen: rate %v", o.Rate)
	case o.Format == Exim && (o.Dovecot || o.RFC3339):
		return o, fmt.Errorf("loggen: Dovecot and RFC3339 are for Postfix only")
	}
	for i, h := range o.Hijacks {
		if h.Account < 0 || h.Account >= o.Accounts || h.After < 0 || h.Every < 0 || h.Messages < 0 || h.Rcpts < 0 {
			return o, fmt.Errorf("loggen: hijack %d: %+v", i, h)
		}
	}
	return o, nil
}

// Write writes a log of exactly o.Lines lines, in the order of their stamps.
func Write(w io.Writer, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(w, 1<<16)
	out := &sink{w: buf, left: o.Lines}
	rng := rand.New(rand.NewPCG(o.Seed, 0x76656465747461))
	var s scribe = newPostfix(o, rng, out.at)
	if o.Format == Exim {
		s = newExim(o, rng, out.at)
	}
	for next := newTraffic(o, rng); out.left > 0; {
		at := next.step(s)
		if err := out.flush(at); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// A scribe writes down what happens as one mail server would. What it writes
// may have stamps later than the event's.
type scribe interface {
	message(message)
	badLogin(at time.Time, login string, from peer)
	relayAttempt(at time.Time, from peer, to string)
	mailboxLogin(at time.Time, login string, from peer)
}

// A sink puts lines into the order of their stamps.
type sink struct {
	w       *bufio.Writer
	left    int // lines still to write
	seq     int
	pending lines
}

type line struct {
	at   time.Time
	seq  int
	text string
}

// at adds a line without its newline.
func (s *sink) at(at time.Time, text string) {
	s.seq++
	heap.Push(&s.pending, line{at, s.seq, text})
}

// flush writes the lines stamped before until: nothing earlier comes any more.
func (s *sink) flush(until time.Time) error {
	for s.left > 0 && len(s.pending) > 0 && s.pending[0].at.Before(until) {
		l := heap.Pop(&s.pending).(line)
		if _, err := s.w.WriteString(l.text); err != nil {
			return err
		}
		if err := s.w.WriteByte('\n'); err != nil {
			return err
		}
		s.left--
	}
	return nil
}

// lines is a heap, the earliest line on top.
type lines []line

func (l lines) Len() int      { return len(l) }
func (l lines) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l *lines) Push(x any)   { *l = append(*l, x.(line)) }
func (l lines) Less(i, j int) bool {
	if !l[i].at.Equal(l[j].at) {
		return l[i].at.Before(l[j].at)
	}
	return l[i].seq < l[j].seq
}

func (l *lines) Pop() any {
	last := len(*l) - 1
	x := (*l)[last]
	(*l)[last] = line{}
	*l = (*l)[:last]
	return x
}
