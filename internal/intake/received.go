package intake

import (
	"net/mail"
	"strings"
	"time"
)

// A Hop is a server through which a message went, as the server wrote it into a
// Received line of its own (RFC 5321, section 4.4), or as somebody made it up.
type Hop struct {
	By   string    // the server
	ID   string    // under which it had the message in its queue
	Time time.Time // when it took it
}

// maxID is longer than any server's queue ids.
const maxID = 64

// parseReceived reads a Received line:
//
//	from [192.0.2.9] (pc [192.0.2.9]) by mx1.example.com (Postfix) with ESMTPSA id 4GZZk45QRtz1cZ; Fri, 20 Mar 2026 10:00:00 +0000 (UTC)
//	from pc ([192.0.2.9]) by mx2.example.com with esmtpsa (TLS1.3) tls TLS_AES_256_GCM_SHA384 (Exim 4.96) (envelope-from <a@b.test>) id 1w3XyZ-0001aB-2C; Fri, …
//	by mx1.example.com (Postfix, from userid 33) id 4GZZk45QRtz1cY; Fri, …
//
// In Exim's line the envelope sender stands before the id and the recipient after
// it, and a quoted one may have blanks and parentheses in it. A line with a quote,
// with parentheses that do not match, or with more than one id is doubtful: it may
// be that of a sender who wants to be taken for somebody else.
func parseReceived(line string) (h Hop, ok, doubtful bool) {
	end := strings.LastIndexByte(line, ';')
	plain, match := withoutComments(line[:max(end, 0)])
	if !match || strings.Contains(line, `"`) {
		return Hop{}, false, true
	}
	at, err := mail.ParseDate(strings.TrimSpace(line[end+1:]))
	if end < 0 || err != nil {
		return Hop{}, false, false
	}
	words := strings.Fields(plain)
	if len(words) > 1 && strings.EqualFold(words[0], "from") {
		words = words[2:]
	}
	h.Time = at.UTC()
	ids := 0
	for i := 0; i+1 < len(words); i++ {
		switch strings.ToLower(words[i]) {
		case "by":
			if h.By == "" {
				h.By = clean(words[i+1])
			}
		case "id":
			ids++
			h.ID = strings.Trim(words[i+1], "<>")
		}
	}
	return h, ids == 1 && h.By != "" && isID(h.ID), ids > 1
}

// isID reports whether id looks like one of a queue: no server has others.
func isID(id string) bool {
	for _, c := range []byte(id) {
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '-') {
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

// withoutComments takes out what stands in parentheses (RFC 5322, section 3.2.2),
// and reports whether they match.
func withoutComments(line string) (plain string, match bool) {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			depth++
			b.WriteByte(' ')
		case c == ')':
			if depth--; depth < 0 {
				return "", false
			}
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String(), depth == 0
}
