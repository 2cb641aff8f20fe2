package notify

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// A Row is one message on its way to one channel, as the caller keeps it until
// it is sent or given up.
type Row struct {
	ID       string    `json:"id"` // unique for the message and the channel
	Channel  string    `json:"channel"`
	Message  Message   `json:"message"`
	Created  time.Time `json:"created"`
	Attempts int       `json:"attempts"` // tries that failed
}

// A Limit keeps a storm from becoming as many messages: beyond Max in Per over
// one channel, the rest waits and goes as one digest. Nothing is left out.
type Limit struct {
	Max   int           // messages sent singly; 0 means 10
	Per   time.Duration // in any span of this length; 0 means 10 minutes
	Every time.Duration // how long a message may wait for its digest; 0 means 3 minutes
}

func (l Limit) max() int             { return cmp.Or(l.Max, 10) }
func (l Limit) per() time.Duration   { return cmp.Or(l.Per, 10*time.Minute) }
func (l Limit) every() time.Duration { return cmp.Or(l.Every, 3*time.Minute) }

// Plan says what of the rows waiting for one channel goes out now: each batch
// becomes one message. sent are the times at which single messages went out
// before, in order. Rows that are in no batch wait, until next at the latest.
func (l Limit) Plan(now time.Time, sent []time.Time, rows []Row) (batches [][]Row, next time.Time) {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(x, y Row) int {
		return cmp.Or(x.Created.Compare(y.Created), cmp.Compare(x.ID, y.ID))
	})
	sent = within(sent, now.Add(-l.per()))
	single := min(len(rows), max(0, l.max()-len(sent)))
	for _, row := range rows[:single] {
		batches = append(batches, []Row{row})
	}
	rest := rows[single:]
	if len(rest) == 0 {
		return batches, time.Time{}
	}
	due := rest[0].Created.Add(l.every())
	if now.Before(due) {
		return batches, due
	}
	return slices.AppendSeq(batches, slices.Chunk(rest, maxGathered)), time.Time{}
}

// within returns the times after from.
func within(times []time.Time, from time.Time) []time.Time {
	i, _ := slices.BinarySearchFunc(times, from, func(t, from time.Time) int {
		if t.After(from) {
			return 1
		}
		return -1
	})
	return times[i:]
}

// Digest makes one message of many. Its ID comes from theirs, so that a digest
// tried again is recognised. One row is its own message.
func Digest(rows []Row) Message {
	if len(rows) == 1 {
		return rows[0].Message
	}
	d := Message{Type: "digest", Severity: Info}
	sum := sha256.New()
	subjects := map[string]bool{}
	first, last := rows[0].Message.Time, rows[0].Message.Time
	for _, row := range rows {
		m := row.Message
		fmt.Fprintf(sum, "%q", m.ID)
		subjects[m.Subject] = true
		d.Messages = append(d.Messages, m)
		d.Severity = worse(d.Severity, m.Severity)
		if m.Time.Before(first) {
			first = m.Time
		}
		if m.Time.After(last) {
			last = m.Time
		}
	}
	d.ID = "digest-" + hex.EncodeToString(sum.Sum(nil)[:12])
	d.Time = last
	d.Title = fmt.Sprintf("%d alerts about %s", len(rows), subject(rows, len(subjects)))
	d.Subject = subject(rows, len(subjects))
	d.What = fmt.Sprintf("%d alerts %s, gathered because too many came at once to send each by itself. All of them are below.",
		len(rows), span(first, last))
	d.Facts = common(rows)
	return d
}

func subject(rows []Row, n int) string {
	if n == 1 {
		return rows[0].Message.Subject
	}
	return fmt.Sprintf("%d accounts", n)
}

// common returns the facts that all rows share, such as a rule or a host: where
// a storm has one cause, this is where it shows.
func common(rows []Row) []Fact {
	var shared []Fact
	for _, f := range rows[0].Message.Facts {
		if !slices.ContainsFunc(rows, func(r Row) bool { return !slices.Contains(r.Message.Facts, f) }) {
			shared = append(shared, Fact{"all: " + f.Name, f.Value})
		}
	}
	return shared
}

func worse(a, b Severity) Severity {
	order := []Severity{Info, Warning, Critical}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}
