package notify

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	stamp = "2006-01-02 15:04:05 MST"
	width = 76 // of prose, in characters; commands and single words may be longer
)

// Text renders the message as calm plain text: lines end in \n, columns are
// aligned, prose is wrapped, commands are not.
func (m Message) Text() string {
	m = m.Clean()
	var s strings.Builder
	paragraph(&s, m.What)
	paragraph(&s, m.Done)
	if len(m.Messages) > 0 {
		for i, one := range m.Messages {
			one.entry(&s, i+1)
		}
	}
	if len(m.Evidence) > 0 {
		s.WriteString("Evidence\n")
		m.evidence(&s)
	}
	if len(m.Facts) > 0 {
		s.WriteString("Facts\n")
		m.facts(&s)
	}
	if len(m.Undo) > 0 {
		s.WriteString("To undo it, or to look closer\n")
		for _, line := range alignComments(m.Undo) {
			s.WriteString("  " + line + "\n")
		}
		s.WriteString("\n")
	}
	return strings.TrimRight(s.String(), "\n") + "\n"
}

func paragraph(s *strings.Builder, text string) {
	if text != "" {
		wrap(s, "", "", text)
		s.WriteString("\n")
	}
}

func (m Message) evidence(s *strings.Builder) {
	column := 0
	for _, e := range m.Evidence {
		column = max(column, utf8.RuneCountInString(e.Kind))
	}
	for _, e := range m.Evidence {
		score := ""
		if e.Score != 0 { // what only explains has none
			score = fmt.Sprintf("%.1f", e.Score)
		}
		first := fmt.Sprintf("  %5s  %s%s  ", score, e.Kind, pad(e.Kind, column))
		wrap(s, first, strings.Repeat(" ", utf8.RuneCountInString(first)), e.Text)
	}
	s.WriteString("\n")
}

func (m Message) facts(s *strings.Builder) {
	column := 0
	for _, f := range m.Facts {
		column = max(column, utf8.RuneCountInString(f.Name))
	}
	for _, f := range m.Facts {
		first := "  " + f.Name + pad(f.Name, column) + "  "
		wrap(s, first, strings.Repeat(" ", utf8.RuneCountInString(first)), f.Value)
	}
	s.WriteString("\n")
}

// entry is a message in a digest: what a person needs to pick it out, and how
// to undo it.
func (m Message) entry(s *strings.Builder, number int) {
	first := fmt.Sprintf("%3d. ", number)
	wrap(s, first, "     ", m.Title)
	line := m.Time.UTC().Format(stamp)
	for _, f := range m.Facts {
		if f.Name == "finding" {
			line += ", finding " + f.Value
		}
	}
	wrap(s, "     ", "     ", line)
	for _, text := range []string{m.What, m.Done} {
		if text != "" {
			wrap(s, "     ", "     ", text)
		}
	}
	for _, e := range m.Evidence {
		wrap(s, "     - ", "       ", e.Text)
	}
	for _, c := range m.Undo {
		s.WriteString("     " + c + "\n")
	}
	s.WriteString("\n")
}

// wrap writes text in lines of at most width characters where its words allow,
// the first line after first, the others after rest.
func wrap(s *strings.Builder, first, rest, text string) {
	s.WriteString(first)
	at, fresh := utf8.RuneCountInString(first), true
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if !fresh && at+1+n > width {
			s.WriteString("\n" + rest)
			at, fresh = utf8.RuneCountInString(rest), true
		}
		if !fresh {
			s.WriteString(" ")
			at++
		}
		s.WriteString(word)
		at, fresh = at+n, false
	}
	s.WriteString("\n")
}

func pad(text string, column int) string {
	return strings.Repeat(" ", max(0, column-utf8.RuneCountInString(text)))
}

// alignComments puts the comments of command lines under each other.
func alignComments(lines []string) []string {
	column := 0
	for _, line := range lines {
		if command, _, ok := strings.Cut(line, "  # "); ok {
			column = max(column, utf8.RuneCountInString(command))
		}
	}
	aligned := make([]string, len(lines))
	for i, line := range lines {
		aligned[i] = line
		if command, comment, ok := strings.Cut(line, "  # "); ok {
			aligned[i] = command + pad(command, column) + "  # " + comment
		}
	}
	return aligned
}

// span is how a digest names the span of its messages.
func span(from, to time.Time) string {
	if from.Equal(to) {
		return "at " + from.UTC().Format(stamp)
	}
	return "from " + from.UTC().Format(stamp) + " to " + to.UTC().Format(stamp)
}
