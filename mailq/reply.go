package mailq

import (
	"bytes"
	"cmp"
)

const (
	maxText = 256 // bytes of a reply kept

	// providerLocal stands for this server: a mailbox, a program.
	providerLocal = "local"
)

// providers names who runs a mail server by the end of its host name.
var providerSuffixes = []struct{ suffix, provider string }{
	{"google.com", "google"}, {"googlemail.com", "google"}, {"gmail.com", "google"}, {"psmtp.com", "google"},
	{"outlook.com", "microsoft"}, {"hotmail.com", "microsoft"}, {"office365.us", "microsoft"}, {"outlook.cn", "microsoft"},
	{"mx.microsoft", "microsoft"}, {"live.com", "microsoft"}, {"msn.com", "microsoft"}, {"partner.outlook.cn", "microsoft"},
	{"yahoodns.net", "yahoo"}, {"yahoo.com", "yahoo"}, {"yahoo.net", "yahoo"}, {"aol.com", "yahoo"}, {"yahoo.co.jp", "yahoo-japan"},
	{"gmx.net", "gmx"}, {"gmx.com", "gmx"}, {"gmx.de", "gmx"}, {"web.de", "gmx"}, {"1and1.com", "gmx"}, {"mail.com", "gmx"},
	{"kundenserver.de", "ionos"}, {"ionos.com", "ionos"}, {"ionos.de", "ionos"}, {"perfora.net", "ionos"},
	{"icloud.com", "apple"}, {"me.com", "apple"}, {"mac.com", "apple"}, {"apple.com", "apple"},
	{"t-online.de", "telekom"}, {"telekom.de", "telekom"}, {"freenet.de", "freenet"}, {"posteo.de", "posteo"}, {"mailbox.org", "mailbox"},
	{"orange.fr", "orange"}, {"wanadoo.fr", "orange"}, {"free.fr", "free"}, {"laposte.net", "laposte"}, {"sfr.fr", "sfr"},
	{"ovh.net", "ovh"}, {"libero.it", "libero"}, {"virgilio.it", "libero"}, {"seznam.cz", "seznam"}, {"wp.pl", "wp"}, {"onet.pl", "onet"},
	{"mail.ru", "mailru"}, {"yandex.ru", "yandex"}, {"yandex.net", "yandex"}, {"rambler.ru", "rambler"},
	{"qq.com", "qq"}, {"163.com", "netease"}, {"126.com", "netease"}, {"netease.com", "netease"}, {"naver.com", "naver"},
	{"comcast.net", "comcast"}, {"att.net", "att"}, {"prodigy.net", "att"}, {"cox.net", "cox"}, {"charter.net", "charter"},
	{"spectrum.com", "charter"}, {"verizon.net", "verizon"}, {"btinternet.com", "bt"}, {"bt.com", "bt"}, {"sky.com", "sky"},
	{"proofpoint.com", "proofpoint"}, {"pphosted.com", "proofpoint"}, {"ppe-hosted.com", "proofpoint"},
	{"mimecast.com", "mimecast"}, {"messagelabs.com", "symantec"}, {"barracudanetworks.com", "barracuda"}, {"ess.barracuda.com", "barracuda"},
	{"iphmx.com", "cisco"}, {"hornetsecurity.com", "hornet"}, {"antispameurope.com", "hornet"}, {"mailprotect.be", "combell"},
	{"zoho.com", "zoho"}, {"zoho.eu", "zoho"}, {"protonmail.ch", "proton"}, {"messagingengine.com", "fastmail"},
	{"emailsrvr.com", "rackspace"}, {"secureserver.net", "godaddy"}, {"amazonaws.com", "amazon"}, {"mailgun.org", "mailgun"},
	{"sendgrid.net", "sendgrid"}, {"mxlogic.net", "mcafee"}, {"trendmicro.com", "trendmicro"}, {"spamexperts.com", "spamexperts"},
	{"antispamcloud.com", "spamexperts"}, {"mailspamprotection.com", "siteground"}, {"privateemail.com", "namecheap"},
}

// providerOf returns who runs the server with a host name, "" where it is not
// known.
func providerOf(host []byte) string {
	var lower [256]byte
	name := bytes.TrimSuffix(appendLower(lower[:0], host[:min(len(host), len(lower))]), []byte("."))
	for _, s := range providerSuffixes {
		n := len(name) - len(s.suffix)
		if n >= 0 && string(name[n:]) == s.suffix && (n == 0 || name[n-1] == '.') {
			return s.provider
		}
	}
	return ""
}

// A relay is a server that mail was handed to, "host[192.0.2.1]:25".
type relay struct {
	provider string
	// filter is true if it can be a filter of ours: a socket, this host, or a
	// host that may bring mail back without a login.
	filter bool
}

// relay reads what a line says about the server that mail was handed to.
func (p *Parser) relay(text []byte) relay {
	if p.of != p.Directory {
		p.newDirectory()
	}
	if len(text) == 0 || len(text) > 320 {
		return relay{}
	}
	if r, ok := p.relays.find(text); ok {
		return r
	}
	r := relay{filter: p.isFilter(text)}
	name, _, _ := bytes.Cut(text, []byte("["))
	if len(name) > 0 && len(name) <= 255 {
		r.provider = providerOf(name)
	}
	return p.relays.keep(string(text), r)
}

// isFilter reports whether a relay can be a filter of ours.
func (p *Parser) isFilter(text []byte) bool {
	at := bytes.LastIndexByte(text, '[')
	if at < 0 {
		return false
	}
	if bytes.HasPrefix(text[at:], []byte("[/")) {
		return true
	}
	addr, _, ok := addrOf(text[at:])
	return ok && p.Directory.trusts(addr)
}

// reply makes a Reply of what a delivery agent logged in parentheses.
func (p *Parser) reply(kind Kind, provider string, dsn, text []byte) (r Reply) {
	r.Provider = provider
	const most = "250 2.0.0 "
	if kind == Delivered && string(dsn) == "2.0.0" && len(text) >= len(most) && string(text[:len(most)]) == most {
		r.Class, r.Code, r.Enhanced = OK, 250, "2.0.0"
		return r
	}
	said := text
	remote := false
	if kind != Delivered {
		said, remote = remoteText(text)
	} else if len(text) > 3 && text[0] == '2' {
		remote = true
	}
	var enhanced []byte
	if remote {
		r.Code, enhanced = readCodes(said)
	}
	if len(enhanced) == 0 {
		enhanced = enhancedCode(dsn)
	}
	r.Enhanced = p.word(enhanced)
	if kind == Delivered {
		r.Class = OK
		return r
	}
	r.Text = clean(said, maxText)
	r.Class = p.said.classify(cmp.Or(r.Provider, providerIn(said)), r.Code, enhanced, said, remote)
	return r
}

// ownReply makes a Reply of what this server answered: "554 5.7.1 text".
func ownReply(text []byte) (r Reply) {
	code, enhanced := readCodes(text)
	if code == 0 { // a milter's, in cleanup
		enhanced = enhancedCode(text)
	}
	return Reply{Class: LocalPolicy, Code: code, Enhanced: string(enhanced), Text: clean(text, maxText)}
}

// remoteText returns what the other side said, out of Postfix's account of
// it: "host mx.example[192.0.2.1] said: 550 5.1.1 … (in reply to RCPT TO
// command)". It reports false if nobody said anything.
func remoteText(b []byte) ([]byte, bool) {
	if bytes.HasPrefix(b, []byte("delivery temporarily suspended")) {
		return b, false // said about an earlier message
	}
	for _, s := range [...]string{" said: ", " refused to talk to me: "} {
		if at := bytes.Index(b, []byte(s)); at >= 0 {
			return b[at+len(s):], true
		}
	}
	code, _ := readCodes(b)
	return b, code != 0
}

// readCodes reads "550 5.1.1 text" or "550-5.1.1 text".
func readCodes(b []byte) (code int, enhanced []byte) {
	if len(b) < 3 || b[0] < '2' || b[0] > '5' || b[1]-'0' > 9 || b[2]-'0' > 9 {
		return 0, nil
	}
	if len(b) == 3 {
		return int(leadingNumber(b)), nil
	}
	if b[3] != ' ' && b[3] != '-' {
		return 0, nil
	}
	code = int(b[0]-'0')*100 + int(b[1]-'0')*10 + int(b[2]-'0')
	rest := bytes.TrimLeft(b[4:min(len(b), 24)], " #(")
	return code, enhancedCode(rest)
}

// enhancedCode reads an RFC 3463 status code at the head of b: class, subject
// and detail of at most one, three and three digits.
func enhancedCode(b []byte) []byte {
	if len(b) < 5 || (b[0] != '2' && b[0] != '4' && b[0] != '5') || b[1] != '.' {
		return nil
	}
	i, part := 2, 0
	for start := i; i <= len(b); i++ {
		if i < len(b) && b[i] >= '0' && b[i] <= '9' && i-start < 3 {
			continue
		}
		if i == start {
			return nil
		}
		if part == 1 {
			if i < len(b) && b[i] >= '0' && b[i] <= '9' {
				return nil
			}
			return b[:i]
		}
		if i == len(b) || b[i] != '.' {
			return nil
		}
		part, start = 1, i+1
	}
	return nil
}

// providerIn names the provider whose own words a reply holds, where its host
// name says nothing.
func providerIn(text []byte) string {
	switch {
	case bytes.Contains(text, []byte("gsmtp")) || bytes.Contains(text, []byte("support.google.com")):
		return "google"
	case bytes.Contains(text, []byte("outlook.com")) || bytes.Contains(text, []byte("AntiSpam-EHLO")):
		return "microsoft"
	case bytes.Contains(text, []byte("postmaster.yahooinc.com")) || bytes.Contains(text, []byte("help.yahoo.com")):
		return "yahoo"
	case bytes.Contains(text, []byte("postmaster.gmx.")) || bytes.Contains(text, []byte("postmaster.web.de")):
		return "gmx"
	case bytes.Contains(text, []byte("support.apple.com")):
		return "apple"
	}
	return ""
}

// A phrase decides a class by words in a reply, all in lower case.
type phrase struct {
	words string
	class Class
}

// A sought is a phrase that knows some of the pairs of letters in it.
type sought struct {
	phrase
	pairs [3]uint16
}

func seek(list []phrase) []sought {
	ready := make([]sought, len(list))
	for i, p := range list {
		ready[i] = sought{p, pairsOf(p.words)}
	}
	return ready
}

// byWords lists what large providers and common filters say, the telling
// before the vague: the first that occurs decides. An address or a network
// that is listed is not the sender's fault alone, so it is told apart from a
// message that was read and called spam.
var byWords = seek([]phrase{
	// Microsoft's "Access denied" at 5.4.1 stands for an unknown recipient.
	{"as(201806281)", RecipientUnknown}, {"as(201806271)", RecipientUnknown},
	// Outbound limits of the sender's own tenant at Microsoft.
	{"5.7.708", AddressReputation}, {"5.7.606", AddressReputation}, {"5.7.511", AddressReputation}, {"5.7.512", Content},

	// Google.
	{"unusual rate of unsolicited mail", AddressReputation}, {"likely unsolicited", AddressReputation},
	{"very low reputation of the sending ip", AddressReputation}, {"very low reputation of the sending domain", DomainReputation},
	{"low reputation of the sending ip", AddressReputation}, {"low reputation of the sending domain", DomainReputation},
	{"unusual rate of mail originating from your dkim domain", DomainReputation},
	{"unusual rate of mail originating from your spf domain", DomainReputation},
	{"unusual rate of mail", AddressReputation},
	{"user you are trying to contact is receiving mail too quickly", Quota}, {"user you are trying to contact is receiving mail at a rate", Quota},
	{"inbox is out of storage", MailboxFull}, {"blocked because its content presents a potential security", Content},
	{"likely suspicious due to the very low reputation", AddressReputation},
	{"is not rfc 5322 compliant", Policy},

	// Authentication, before the words "spam" and "policy" that go with it.
	{"client was not authenticated", Policy}, {"dmarc", Authentication}, {"spf check", Authentication}, {"spf fail", Authentication}, {"sender policy framework", Authentication},
	{"spf record", Authentication}, {"dkim", Authentication}, {"unauthenticated", Authentication}, {"does not pass authentication", Authentication},
	{"5.7.515", Authentication}, {"not authenticated", Authentication}, {"reverse dns", Authentication}, {"reverse hostname", Authentication},
	{"ptr record", Authentication}, {"rdns", Authentication}, {"no ptr", Authentication}, {"cannot find your reverse", Authentication},
	{"cannot find your hostname", Authentication}, {"sender address verification", Authentication},

	// Yahoo.
	{"tss04", AddressReputation}, {"tss05", AddressReputation}, {"tss09", AddressReputation}, {"[ts01]", AddressReputation}, {"[ts02]", AddressReputation}, {"[ts03]", AddressReputation},
	{"iptslist", AddressReputation}, {"ipts04", AddressReputation}, {"[bl2", AddressReputation}, {"(bl2", AddressReputation},
	{"unexpected volume or user complaints", AddressReputation}, {"[gl01]", Greylisted}, {"pam-3", Policy},
	{"not accepted for policy reasons", Content}, {"unable to deliver due to sender", Content},

	// Microsoft.
	{"(s3140", AddressReputation}, {"(s3150", AddressReputation}, {"part of their network is on our block list", AddressReputation},
	{"banned sending ip", AddressReputation}, {"temporarily rate limited due to ip reputation", AddressReputation}, {"(s775", AddressReputation},
	{"(s77719", AddressReputation}, {"ip reputation", AddressReputation}, {"exceeded the connection limit", Quota}, {"recipient address rejected: access denied", RecipientUnknown},
	{"bulk mail rejected", Content}, {"recipient has exceeded", Quota}, {"recipient not found by smtp address lookup", RecipientUnknown},
	{"storedrv.deliver; recipient mailbox is full", MailboxFull}, {"mailboxdisabled", MailboxInactive}, {"recipient thread limit exceeded", Quota},

	// GMX and web.de.
	{"ip address is listed", AddressReputation}, {"reject due to policy restrictions", AddressReputation}, {"black listed", AddressReputation},
	{"bad dns ptr", Authentication}, {"nemesis esmtp service not available", Quota}, {"reject due to spf policy", Authentication},

	// Apple.
	{"[hm08]", Content}, {"[hm07]", AddressReputation}, {"[cs01]", Content}, {"[cs02]", Content}, {"policy violation. for assistance forward", Content},
	{"mail from ip", AddressReputation}, {"due to site spam", AddressReputation},

	// Telekom, comcast, proofpoint, qq, mail.ru.
	{"tosa@rx.t-online.de", AddressReputation}, {"rl0000", AddressReputation}, {"bl0000", AddressReputation},
	{"ipcheck.proofpoint.com", AddressReputation}, {"blocked - see https://support.proofpoint.com", AddressReputation},
	{"mail content denied", Content}, {"connection frequency limited", Quota}, {"ip frequency limited", Quota}, {"mailbox unavailable or access denied", Policy},
	{"spam message rejected", Content}, {"spam message discarded", Content},

	// Greylisting.
	{"greylist", Greylisted}, {"graylist", Greylisted}, {"grey-list", Greylisted}, {"grey list", Greylisted}, {"gray-list", Greylisted}, {"postgrey", Greylisted},
	{"try again in 5 minutes", Greylisted},

	// Lists by name, and the usual words for being on one.
	{"spamhaus", AddressReputation}, {"spamcop", AddressReputation}, {"barracudacentral", AddressReputation}, {"b.barracuda", AddressReputation}, {"sorbs", AddressReputation},
	{"uceprotect", AddressReputation}, {"invaluement", AddressReputation}, {"abusix", AddressReputation}, {"mailspike", AddressReputation}, {"spamrl", AddressReputation},
	{"senderscore", AddressReputation}, {"dnsbl", AddressReputation}, {"dnswl", AddressReputation}, {" rbl", AddressReputation}, {"rbl:", AddressReputation}, {"blocked using", AddressReputation},
	{"poor reputation", AddressReputation}, {"bad reputation", AddressReputation}, {"reputation of the", AddressReputation}, {"cloudmark", AddressReputation}, {"csi.cloudmark", AddressReputation},

	// A message that was read.
	{"virus", Content}, {"malware", Content}, {"phish", Content}, {"infected", Content}, {"unsolicited", Content}, {"looks like spam", Content}, {"considered spam", Content},
	{"identified as spam", Content}, {"detected as spam", Content}, {"classified as spam", Content}, {"is spam", Content}, {"as spam", Content},
	{"spam detected", Content}, {"spam content", Content}, {"spam score", Content}, {"spam-like", Content}, {"high probability of spam", Content}, {"spam", Content}, {"content rejected", Content},
	{"message content", Content}, {"content filter", Content}, {"suspicious url", Content}, {"bad url", Content}, {"urlbl", Content}, {"surbl", Content}, {"prohibited attachment", Content},
	{"message rejected due to content", Content}, {"blocked by content", Content}, {"junk mail", Content},

	{"blacklist", AddressReputation}, {"black list", AddressReputation}, {"blocklist", AddressReputation}, {"block list", AddressReputation}, {"denylist", AddressReputation},
	{"your ip", AddressReputation}, {"sending ip", AddressReputation}, {"listed at", AddressReputation}, {"is listed in", AddressReputation}, {"reputation", AddressReputation},

	// Mailboxes.
	{"over quota", MailboxFull}, {"overquota", MailboxFull}, {"quota exceeded", MailboxFull}, {"exceeded storage", MailboxFull}, {"mailbox full", MailboxFull}, {"mailbox is full", MailboxFull},
	{"mailbox size limit", MailboxFull}, {"exceeds quota", MailboxFull}, {"exceeded quota", MailboxFull}, {"out of storage", MailboxFull}, {"not enough storage", MailboxFull}, {"inbox is full", MailboxFull}, {"exceeded his/her quota", MailboxFull},
	{"mailbox disabled", MailboxInactive}, {"account disabled", MailboxInactive}, {"account is disabled", MailboxInactive}, {"account has been disabled", MailboxInactive},
	{"inactive", MailboxInactive}, {"suspended", MailboxInactive}, {"account that you tried to reach is disabled", MailboxInactive}, {"mailbox is disabled", MailboxInactive}, {"user disabled", MailboxInactive},
	{"user unknown", RecipientUnknown}, {"unknown user", RecipientUnknown}, {"no such user", RecipientUnknown}, {"no such recipient", RecipientUnknown}, {"does not exist", RecipientUnknown},
	{"doesn't exist", RecipientUnknown}, {"recipient unknown", RecipientUnknown}, {"unknown recipient", RecipientUnknown}, {"unknown address", RecipientUnknown}, {"invalid recipient", RecipientUnknown},
	{"no mailbox", RecipientUnknown}, {"mailbox not found", RecipientUnknown}, {"user not found", RecipientUnknown}, {"recipient not found", RecipientUnknown}, {"unrouteable address", RecipientUnknown}, {"unroutable address", RecipientUnknown},
	{"mailbox unavailable", RecipientUnknown}, {"no such mailbox", RecipientUnknown}, {"not a valid mailbox", RecipientUnknown}, {"doesn't have a", RecipientUnknown}, {"invalid mailbox", RecipientUnknown}, {"address unknown", RecipientUnknown},
	{"addressee unknown", RecipientUnknown}, {"no valid recipients", RecipientUnknown}, {"host or domain name not found", RecipientUnknown}, {"not known here", RecipientUnknown}, {"user doesn't", RecipientUnknown},

	// Too much at once.
	{"too many", Quota}, {"rate limit", Quota}, {"rate-limit", Quota}, {"ratelimit", Quota}, {"throttl", Quota}, {"too fast", Quota}, {"concurren", Quota}, {"exceeded the maximum", Quota},
	{"message rate", Quota}, {"too quickly", Quota}, {"limit exceeded", Quota}, {"try again later", Unclassified},
	{"relay", Policy}, {"too large", Policy}, {"size limit", Policy}, {"administrative", Policy}, {"prohibited", Policy}, {"not allowed", Policy}, {"not permitted", Policy}, {"policy", Policy},
})

// noReply lists what a mail server says where no other answered.
var noReply = seek([]phrase{
	{"delivery temporarily suspended", Network}, {"user unknown", RecipientUnknown}, {"unrouteable address", RecipientUnknown}, {"unknown user", RecipientUnknown},
	{"host not found, try again", Network}, {"host not found", RecipientUnknown}, {"domain not found", RecipientUnknown}, {"host or domain name not found", Network},
	{"all relevant mx records point to non-existent hosts", RecipientUnknown}, {"does not accept mail", RecipientUnknown}, {"nullmx", RecipientUnknown},
	{"mailbox full", MailboxFull}, {"over quota", MailboxFull}, {"quota exceeded", MailboxFull}, {"is over limit", MailboxFull},
	{"message discarded", LocalPolicy}, {"suspension", LocalPolicy}, {"exceeded the max", LocalPolicy}, {"not permitted", LocalPolicy}, {"rejected", LocalPolicy},
	{"connection refused", Network}, {"timed out", Network}, {"timeout", Network}, {"lost connection", Network}, {"unreachable", Network}, {"no route to host", Network},
	{"name service error", Network}, {"connect to", Network}, {"network error", Network}, {"remote host closed connection", Network}, {"connection reset", Network},
	{"tls", Network}, {"retry time", Network}, {"host lookup", Network}, {"all hosts", Network}, {"loops back to myself", LocalPolicy},
	{"message size", Policy}, {"too large", Policy},
})

// classify says what a reply means: first by the enhanced codes that mean one
// thing wherever they occur (RFC 3463, and the registry of RFC 5248), then by
// its words, then by the vaguer codes. What is left is Unclassified: a bare
// 550 5.7.1 is evidence of nothing.
func (words *lowered) classify(provider string, code int, enhanced, text []byte, remote bool) Class {
	words.set(text)
	if !remote {
		if c := firstOf(noReply, words); c != Unclassified {
			return c
		}
		return byVagueCode(code, enhanced)
	}
	if c := byCode(provider, enhanced, words); c != Unclassified {
		return c
	}
	if c := firstOf(byWords, words); c != Unclassified {
		return c
	}
	return byVagueCode(code, enhanced)
}

func firstOf(list []sought, words *lowered) Class {
	for i := range list {
		if s := &list[i]; words.mayHave(s.pairs) && bytes.Contains(words.text, []byte(s.words)) {
			return s.class
		}
	}
	return Unclassified
}

// lowered is a reply in lower case that is asked for many phrases: without
// the addresses in it, whose words say nothing, and without the codes at the
// head of each of its lines, which stand in the midst of phrases once a log
// has made one line of them. It knows which pairs of letters it holds, and so
// seldom has to look.
type lowered struct {
	text  []byte
	room  [512]byte
	pairs [64]uint64
}

func (l *lowered) set(text []byte) {
	clear(l.pairs[:])
	out := l.room[:0]
	for i := 0; i < len(text) && len(out) < len(l.room); i++ {
		if i > 0 && (text[i-1] == ' ' || text[i-1] == 'n') {
			if n := lineCode(text, i); n > 0 {
				i += n - 1
				continue
			}
		}
		c := text[i]
		switch {
		case c == '<':
			if end := bytes.IndexByte(text[i:min(len(text), i+320)], '>'); end > 0 && bytes.IndexByte(text[i:i+end], '@') > 0 {
				i += end
				continue
			}
		case c == '\\' && i+1 < len(text) && text[i+1] == 'n': // Exim's end of line
			c = ' '
			if lineCode(text, i+2) == 0 {
				i++
			}
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		out = append(out, c)
	}
	l.text = out
	for i := 1; i < len(l.text); i++ {
		at := pair(l.text[i-1], l.text[i])
		l.pairs[at>>6] |= 1 << (at & 63)
	}
}

// lineCode returns the length of the code at text[i:] if it is the same that
// the text begins with: "550-5.1.1 " or "550 ".
func lineCode(text []byte, i int) int {
	if len(text) < i+4 || text[i] < '2' || text[i] > '5' || !bytes.Equal(text[i:i+3], text[:3]) || text[i+3] != '-' && text[i+3] != ' ' {
		return 0
	}
	rest := text[i+4:]
	n := 4 + len(enhancedCode(rest[:min(len(rest), 12)]))
	if i+n < len(text) && text[i+n] == ' ' {
		n++
	}
	return n
}

func (l *lowered) has(phrase string) bool { return bytes.Contains(l.text, []byte(phrase)) }

func (l *lowered) mayHave(pairs [3]uint16) bool {
	for _, at := range pairs {
		if l.pairs[at>>6&63]&(1<<(at&63)) == 0 {
			return false
		}
	}
	return true
}

// pair maps two letters to one of 4096 places.
func pair(a, b byte) uint16 { return (uint16(a)*61 + uint16(b)) & 4095 }

// pairsOf picks three pairs of a phrase, the one in its middle first.
func pairsOf(phrase string) (pairs [3]uint16) {
	n := len(phrase)
	for i, at := range [...]int{n / 2, n - 1, 1} {
		pairs[i] = pair(phrase[at-1], phrase[at])
	}
	return pairs
}

// byCode decides by codes that leave no doubt.
func byCode(provider string, enhanced []byte, words *lowered) Class {
	if len(enhanced) < 5 {
		return Unclassified
	}
	permanent := enhanced[0] == '5'
	switch string(enhanced[2:]) {
	case "1.1", "1.2", "1.3", "1.6", "1.10":
		// Filters, too, say 5.1.1 about what they call spam.
		if c := firstOf(byWords, words); permanent && c != Content && c != AddressReputation {
			return RecipientUnknown
		}
	case "2.1":
		if provider == "google" || permanent && firstOf(byWords, words) == Unclassified {
			if !permanent {
				return Quota // 450-4.2.1: receiving mail at a rate that …
			}
			return MailboxInactive
		}
	case "2.2":
		return MailboxFull
	case "4.1":
		if provider == "microsoft" && permanent {
			return RecipientUnknown
		}
	case "7.20", "7.21", "7.22", "7.23", "7.24", "7.25", "7.26", "7.27", "7.29", "7.30", "7.515":
		return Authentication
	case "7.28":
		return byReputation(words)
	case "7.650":
		if provider == "microsoft" {
			return AddressReputation
		}
	}
	return Unclassified
}

// byReputation tells Google's 4.7.28 about a domain from that about an
// address.
func byReputation(words *lowered) Class {
	if words.has("dkim domain") || words.has("spf domain") || words.has("sending domain") {
		return DomainReputation
	}
	return AddressReputation
}

// byVagueCode decides by what codes usually mean where no word helps.
func byVagueCode(code int, enhanced []byte) Class {
	e := ""
	if len(enhanced) >= 5 {
		e = string(enhanced)
	}
	switch e {
	case "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.4.4", "5.1.0":
		return RecipientUnknown
	case "5.2.1":
		return MailboxInactive
	case "4.2.0", "4.7.1":
		return Greylisted
	case "4.4.1", "4.4.2", "4.4.3", "4.4.0", "5.4.6":
		return Network
	case "4.5.3", "4.3.2", "4.4.5":
		return Quota
	case "5.3.4", "5.2.3":
		return Policy
	}
	if code == 452 {
		return Quota
	}
	return Unclassified
}
