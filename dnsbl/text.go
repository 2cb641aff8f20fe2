package dnsbl

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText is how much of what a list says in its TXT records is kept, in
// bytes.
const maxText = 512

// CleanText returns what a list said in its TXT records as one line that is
// safe to show: at most 512 bytes of valid UTF-8, with a single blank for white
// space, control characters and whatever else cannot be seen. It is still a stranger's
// text and has to be escaped like one.
func CleanText(texts []string) string {
	var b strings.Builder
	blank := false
	for _, text := range texts {
		blank = b.Len() > 0
		for _, r := range cut(text, 4*maxText) {
			if r == ' ' || r == utf8.RuneError || !unicode.IsPrint(r) {
				blank = b.Len() > 0
				continue
			}
			if b.Len()+utf8.RuneLen(r)+1 > maxText {
				return b.String()
			}
			if blank {
				b.WriteByte(' ')
				blank = false
			}
			b.WriteRune(r)
		}
	}
	return b.String()
}

// DelistURL returns the first web address in text, a text of [CleanText], or
// "" if there is none. Only http and https count, with a host name and
// without a user: it becomes a link that a person clicks.
func DelistURL(text string) string {
	for rest := text; ; {
		at := strings.IndexAny(rest, "hH")
		if at < 0 {
			return ""
		}
		rest = rest[at:]
		if scheme := strings.ToLower(cut(rest, len("https"))); !strings.HasPrefix(scheme, "http") {
			rest = rest[1:]
			continue
		}
		end := strings.IndexFunc(rest, endsURL)
		if end < 0 {
			end = len(rest)
		}
		if link := strings.TrimRight(rest[:end], ".,;:!?)]}'"); isLink(link) {
			return link
		}
		rest = rest[1:]
	}
}

// endsURL reports whether r cannot be part of a URL in running text.
func endsURL(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }

// hostOf returns the host name of a web address in lower case, empty if it has
// none.
func hostOf(link string) string {
	u, err := url.Parse(link)
	if err != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
}

func isLink(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && strings.Contains(u.Hostname(), ".")
}
