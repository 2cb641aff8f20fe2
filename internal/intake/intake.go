// Package intake reads the mail that other operators' machines send about ours:
// so far complaints, which feedback loops send when a recipient calls a message
// spam (RFC 6449), in the Abuse Reporting Format (RFC 5965, RFC 6650) or in the
// older form with the message attached.
//
// Everything in a complaint is a stranger's text, and anybody may write one. The
// package says what stands there, bounded and without control characters;
// whether a message of ours is meant is for others to find out.
package intake

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/netip"
	"strings"
)

// Limits of what is read of a message. What is beyond them is not there.
const (
	MaxMessage  = 32 << 20 // bytes
	maxHeader   = 256 << 10
	maxPart     = 256 << 10 // of a part: only headers are read
	maxField    = 8 << 10   // of a header field, unfolded
	maxText     = 256       // bytes of what is handed on
	maxParts    = 20
	maxDepth    = 3
	maxReceived = 30 // lines of a message that are looked at
	maxHops     = 12 // of those that are handed on
)

// ErrNoComplaint means that a message is none: mail of another kind that came to
// the same mailbox, such as a bounce or an automatic answer.
var ErrNoComplaint = errors.New("this is no complaint: neither an abuse report nor a message with another attached")

// A Complaint is what a report says. Each string is at most 256 bytes without
// control characters; what is not said is empty.
type Complaint struct {
	Type      string     // Feedback-Type in lower case: abuse, fraud, virus, not-spam, auth-failure, …; empty in the form without a report
	Agent     string     // User-Agent: the program that wrote the report
	Source    netip.Addr // Source-IP: which of our addresses the message came from
	Sender    string     // Original-Mail-From: the envelope sender
	Domain    string     // Reported-Domain
	Arrival   string     // Arrival-Date, or Received-Date
	MessageID string     // of the message
	Hops      []Hop      // of the message, as its Received lines have it, the newest first
}

// IsBlame reports whether the complaint says that the message should not have
// been sent. Other kinds of feedback say that it was no spam, or that its
// authentication failed (RFC 6591), which is nobody's complaint.
func (c Complaint) IsBlame() bool {
	switch c.Type {
	case "", "abuse", "fraud", "virus":
		return true
	}
	return false
}

// ParseComplaint reads a message of a feedback loop. An error that is no failure
// of r is [ErrNoComplaint].
func ParseComplaint(r io.Reader) (Complaint, error) {
	in := &source{r: io.LimitReader(r, MaxMessage)}
	head := newHeaderReader(in)
	h := head.read()
	var s search
	s.entity(h, head.rest(), 0)
	switch {
	case in.err != nil:
		return Complaint{}, fmt.Errorf("message: %w", in.err)
	case !s.found:
		return Complaint{}, ErrNoComplaint
	}
	return s.complaint, nil
}

// A source remembers that reading failed, as opposed to what was read making no
// sense.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// A search walks the parts of a message.
type search struct {
	complaint Complaint
	found     bool // there is a message that is complained about, or a report about one
	original  bool // its header was read
	parts     int
}

// entity looks at a message, or a part of one. A report of another kind, such as
// a bounce, has the message with it too, and is no complaint.
func (s *search) entity(h header, body io.Reader, depth int) {
	kind, params, err := mime.ParseMediaType(h.first("Content-Type"))
	if err != nil {
		return
	}
	body = decoded(h.first("Content-Transfer-Encoding"), body)
	switch {
	case kind == "multipart/report" && !strings.EqualFold(params["report-type"], "feedback-report"):
		return
	case strings.HasPrefix(kind, "multipart/"):
		s.multipart(multipart.NewReader(body, params["boundary"]), depth)
	case kind == "message/feedback-report":
		s.report(newHeaderReader(io.LimitReader(body, maxPart)).read())
	case kind == "message/rfc822" || kind == "text/rfc822-headers" || kind == "message/rfc822-headers":
		s.message(newHeaderReader(io.LimitReader(body, maxPart)).read())
	}
}

func (s *search) multipart(parts *multipart.Reader, depth int) {
	if depth >= maxDepth {
		return
	}
	for {
		part, err := parts.NextRawPart()
		if err != nil || s.parts >= maxParts {
			return // cut short, or damaged: what was found before counts
		}
		s.parts++
		s.entity(header(part.Header), part, depth+1)
	}
}

// report reads the fields of RFC 5965, section 3.
func (s *search) report(h header) {
	if s.found && s.complaint.Type != "" {
		return
	}
	c := &s.complaint
	c.Type = strings.ToLower(h.text("Feedback-Type"))
	if c.Type == "" {
		c.Type = "unnamed" // a required field: without it nobody complains
	}
	c.Agent, c.Sender, c.Domain = h.text("User-Agent"), strings.Trim(h.text("Original-Mail-From"), "<>"), h.text("Reported-Domain")
	if c.Arrival = h.text("Arrival-Date"); c.Arrival == "" {
		c.Arrival = h.text("Received-Date")
	}
	if addr, err := netip.ParseAddr(strings.Trim(h.text("Source-Ip"), "[]")); err == nil {
		c.Source = addr.Unmap().WithZone("")
	}
	s.found = true
}

// message reads the header of the message that is complained about: the first
// that is there.
func (s *search) message(h header) {
	if s.original {
		return
	}
	s.found, s.original = true, true
	s.complaint.MessageID = h.text("Message-Id")
	lines := h["Received"]
	for _, line := range lines[:min(len(lines), maxReceived)] {
		hop, ok, doubtful := parseReceived(line)
		if doubtful {
			break // it may be our own, and what is older the sender's
		}
		if ok && len(s.complaint.Hops) < maxHops {
			s.complaint.Hops = append(s.complaint.Hops, hop)
		}
	}
}

// decoded undoes a transfer encoding. RFC 2046 allows none for messages; some
// have one all the same.
func decoded(encoding string, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	}
	return body
}
