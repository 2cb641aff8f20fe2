// Package notify tells people: it renders a [Message] as an e-mail or as
// webhook JSON, hands it to a [Channel], and decides with a [Sender] when to
// try again, when another channel takes over, and what of a storm goes into one
// digest. It keeps nothing on disk: messages on their way are rows that the
// caller keeps.
//
// Accounts, evidence and server replies are a stranger's text. All of a message
// is bounded and freed of control characters before it is rendered, so it can
// neither add a mail header nor move a terminal's cursor.
package notify

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Channel takes messages to people. The error of Send is an [*Error] where
// it matters whether and when to try again; any other error is temporary.
type Channel interface {
	Send(ctx context.Context, m Message) error
}

// A Severity says how urgent a message is.
type Severity string

// The severities. The empty Severity reads as Warning.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// A Message is one thing to tell, plain data. Times are shown in UTC.
type Message struct {
	ID       string     `json:"id"`               // the same thing told again has the same ID
	Thread   string     `json:"thread,omitempty"` // ID of the first message about the same incident
	Type     string     `json:"type,omitempty"`   // for programs: "incident.opened", …
	Time     time.Time  `json:"time"`             // when the message was made
	Severity Severity   `json:"severity"`
	Title    string     `json:"title"`   // one line
	Subject  string     `json:"subject"` // the account, or whatever it is about
	What     string     `json:"what"`    // what happened, sentences
	Done     string     `json:"done,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
	Facts    []Fact     `json:"facts,omitempty"`
	Undo     []string   `json:"undo,omitempty"`     // command lines, a comment after "#"
	Messages []Message  `json:"messages,omitempty"` // what a digest gathers
}

// Evidence is one family's part in what was noticed.
type Evidence struct {
	Kind  string  `json:"kind"`
	Text  string  `json:"text"`
	Score float64 `json:"score"`
}

// A Fact is a named value.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Bounds of a message, in characters or items. They keep each line of a mail
// below 998 bytes and a whole digest below a megabyte.
const (
	maxLine     = 200
	maxText     = 1500
	maxValue    = 400
	maxName     = 40
	maxItems    = 32
	maxGathered = 200
)

// Clean returns the message bounded and with every character that is not a
// letter, mark, number, sign or space made visible (\n, \x1b, \u202e).
// Channels call it; doing so twice is harmless.
func (m Message) Clean() Message {
	m.ID, m.Thread, m.Type = visible(m.ID, maxLine), visible(m.Thread, maxLine), visible(m.Type, maxName)
	m.Title, m.Subject = visible(m.Title, maxLine), visible(m.Subject, maxValue)
	m.What, m.Done = visible(m.What, maxText), visible(m.Done, maxText)
	if y := m.Time.Year(); y < 1 || y > 9999 {
		m.Time = time.Time{} // RFC 3339 and RFC 5322 have no such year
	}
	switch m.Severity {
	case Info, Warning, Critical:
	default:
		m.Severity = Warning
	}
	m.Evidence = bounded(m.Evidence, maxItems, func(e Evidence) Evidence {
		return Evidence{visible(e.Kind, maxName), visible(e.Text, maxValue), finite(e.Score)}
	})
	m.Facts = bounded(m.Facts, maxItems, func(f Fact) Fact { return Fact{visible(f.Name, maxName), visible(f.Value, maxValue)} })
	m.Undo = bounded(m.Undo, maxItems, func(s string) string { return visible(s, maxValue) })
	m.Messages = bounded(m.Messages, maxGathered, func(m Message) Message {
		m.Messages = nil
		return m.Clean()
	})
	return m
}

// bounded returns at most n of list, each cleaned, as a new slice.
func bounded[T any](list []T, n int, clean func(T) T) []T {
	if len(list) == 0 {
		return nil
	}
	kept := make([]T, 0, min(n, len(list)))
	for _, x := range list[:min(n, len(list))] {
		kept = append(kept, clean(x))
	}
	return kept
}

// finite returns x, or 0 for what JSON cannot write.
func finite(x float64) float64 {
	if x != x || x > 1e9 || x < -1e9 {
		return 0
	}
	return x
}

// visible returns at most limit characters of s, with everything that would
// steer a terminal, a mail header or the direction of writing made visible.
func visible(s string, limit int) string {
	var b strings.Builder
	n, last := 0, 0 // characters written, and where the last that leaves room for "…" ends
	for i, r := range s {
		w := string(r)
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			w = fmt.Sprintf(`\x%02x`, s[i])
		case !unicode.IsGraphic(r):
			w = strings.Trim(strconv.QuoteRune(r), "'")
		}
		if n += utf8.RuneCountInString(w); n > limit {
			return b.String()[:last] + "…"
		}
		b.WriteString(w)
		if n < limit {
			last = b.Len()
		}
	}
	return b.String()
}
