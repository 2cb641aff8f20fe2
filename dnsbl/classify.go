package dnsbl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Reason says why a verdict is what it is. The zero Reason is NotAsked.
type Reason uint8

// The reasons for a verdict.
const (
	NotAsked      Reason = iota
	Transport            // unknown: no usable answer, see [Answer.Status]
	Rewritten            // unknown: an address outside 127/8, or a CNAME that leaves the zone: a parked zone or a lying resolver
	WrongZone            // unknown: 127.255.255.252, the zone's name is misspelt
	OpenResolver         // unknown: 127.255.255.254, asked through a public or anonymous resolver
	OverLimit            // unknown: 127.255.255.255, too many questions
	ListRefused          // unknown: another answer by which a list refuses, such as 127.0.0.1
	WrongKind            // unknown: a domain list was asked about an address
	UnknownCode          // unknown: a code that the list does not document; suspect
	NotTested            // unknown: the list is not open to us, not healthy, or not tested yet
	Absent               // clean: there is no entry
	IsNeutral            // clean: an entry that is neither good nor bad
	IsWelcome            // clean: an entry that says good
	HasEntry             // listed
	reasonsNumber        // of the above
)

var reasonTexts = [reasonsNumber]string{
	NotAsked:     "not asked",
	Transport:    "no usable answer",
	Rewritten:    "the answer is not the list's: a parked zone, or a resolver that rewrites",
	WrongZone:    "the list says that its zone is misspelt",
	OpenResolver: "the list does not answer a public or anonymous resolver",
	OverLimit:    "the list says that it was asked too often",
	ListRefused:  "the list refuses to answer",
	WrongKind:    "the list was asked about an address but lists domains",
	UnknownCode:  "the list answered a code that it does not document",
	NotTested:    "not tested",
	Absent:       "no entry",
	IsNeutral:    "entry without blame",
	IsWelcome:    "entry as a good sender",
	HasEntry:     "entry",
}

// String returns the reason in words.
func (r Reason) String() string {
	if r < reasonsNumber {
		return reasonTexts[r]
	}
	return reasonTexts[NotAsked]
}

// refused reports whether the list refuses to answer us, so that asking on
// does harm.
func (r Reason) refused() bool {
	return r == WrongZone || r == OpenResolver || r == OverLimit || r == ListRefused
}

// A Judgement is what an answer of a list means. The zero Judgement is
// unknown: not asked.
type Judgement struct {
	Verdict Verdict
	Reason  Reason
	Codes   []netip.Addr // what was answered, sorted, each once
	Meaning string       // of the codes that decided; empty if there were none
	Scope   Scope        // the widest of a listing
	Weight  int          // the highest of a listing, 0 to 100
	Policy  bool         // a listing that is not about abuse at all
}

// maxCodesOf is the most answers that one question can sensibly have.
const maxCodesOf = 64

// Judge says what a means as an answer of l to the question for an A record.
//
// Only codes that the list documents are a listing, and only where nothing in
// the answer is about the question rather than the subject: one refusal, one
// address outside 127/8 and the whole is unknown.
func (l *List) Judge(a Answer) Judgement {
	switch {
	case !a.Status.usable():
		return Judgement{Reason: Transport}
	case l.leaves(a.Names):
		return Judgement{Reason: Rewritten, Codes: codesOf(a.Addrs)}
	case a.Status != Found || len(a.Addrs) == 0:
		return Judgement{Verdict: Clean, Reason: Absent}
	case len(a.Addrs) > maxCodesOf:
		return Judgement{Reason: Rewritten}
	}
	j := Judgement{Codes: codesOf(a.Addrs)}
	var meanings []string
	for _, addr := range j.Codes {
		reason, codes := l.meaning(addr)
		if weights[reason] > weights[j.Reason] {
			j.Reason, meanings = reason, nil
			j.Scope, j.Weight, j.Policy = 0, 0, true
		}
		if weights[reason] < weights[j.Reason] {
			continue
		}
		for _, c := range codes {
			meanings = append(meanings, c.says())
			j.Scope, j.Weight, j.Policy = max(j.Scope, c.Scope), max(j.Weight, c.Weight), j.Policy && c.Policy
		}
	}
	slices.Sort(meanings)
	j.Meaning = strings.Join(slices.Compact(meanings), "; ")
	switch j.Reason {
	case HasEntry:
		j.Verdict = Listed
	case IsWelcome, IsNeutral:
		j.Verdict = Clean
	}
	if j.Verdict != Listed {
		j.Scope, j.Weight, j.Policy = 0, 0, false
	}
	return j
}

// weights orders the reasons of several codes in one answer: the highest
// decides. What is about the question comes first, then what is bad.
var weights = [reasonsNumber]int{
	IsNeutral: 1, IsWelcome: 2, UnknownCode: 3, HasEntry: 4, WrongKind: 5, Rewritten: 6, ListRefused: 7, OverLimit: 8, OpenResolver: 9, WrongZone: 10,
}

// meaning says what one address in an answer means, and the codes behind it.
func (l *List) meaning(addr netip.Addr) (Reason, []*Code) {
	b, ok := code(addr)
	if !ok || b[0] != 127 {
		return Rewritten, nil
	}
	if b[1] == 255 && b[2] == 255 {
		return errorCode(b[3]), nil
	}
	if l.Bits {
		return l.bits(b[3])
	}
	for i := range l.Codes {
		if c := &l.Codes[i]; c.Range.contains(b) && (b != [4]byte{127, 0, 0, 1} || c.Range.is(b)) {
			return c.Class.reason(), []*Code{c}
		}
	}
	if b == [4]byte{127, 0, 0, 1} {
		return ListRefused, nil // by no list an entry, unless it says so itself
	}
	return UnknownCode, nil
}

// errorCode says what 127.255.255.n means, as Spamhaus defined it and others
// took it over.
func errorCode(n byte) Reason {
	switch n {
	case 252:
		return WrongZone
	case 254:
		return OpenResolver
	case 255:
		return OverLimit
	}
	return ListRefused
}

// bits says what the last octet of an answer means in a list of bits; the
// other octets are reserved. Bit 1 is the refusal of every such list.
func (l *List) bits(octet byte) (Reason, []*Code) {
	if octet&1 != 0 {
		return ListRefused, nil
	}
	reason := UnknownCode
	var codes []*Code
	for i := range l.Codes {
		c := &l.Codes[i]
		if octet&c.Bit == 0 {
			continue
		}
		r := c.Class.reason()
		if codes == nil || weights[r] > weights[reason] {
			reason, codes = r, nil
		}
		if r == reason {
			codes = append(codes, c)
		}
	}
	return reason, codes
}

func (c Class) reason() Reason {
	return [...]Reason{Entry: HasEntry, Welcome: IsWelcome, Neutral: IsNeutral, Refusal: ListRefused, Misuse: WrongKind}[c]
}

// codesOf returns the addresses sorted, each once.
func codesOf(addrs []netip.Addr) []netip.Addr {
	codes := slices.Clone(addrs[:min(len(addrs), maxCodesOf)])
	for i := range codes {
		codes[i] = codes[i].Unmap()
	}
	slices.SortFunc(codes, netip.Addr.Compare)
	return slices.Compact(codes)
}

// leaves reports whether one of the CNAME targets is outside the domain that
// the list's zone belongs to.
func (l *List) leaves(names []string) bool {
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !isWithin(name, registrable(l.Zone)) && !isWithin(name, registrable(l.Keyed)) {
			return true
		}
	}
	return false
}

func isWithin(name, domain string) bool {
	return domain != "" && (name == domain || strings.HasSuffix(name, "."+domain))
}

// registrable returns the domain that the zone belongs to: its last two
// labels, or three below a registry such as co.uk. A domain taken as too
// narrow makes an answer unknown, one taken as too wide would believe it, so
// a short label below a country counts as a registry.
func registrable(zone string) string {
	labels := strings.Split(zone, ".")
	n := len(labels)
	keep := 2
	if n > 2 && len(labels[n-1]) == 2 && len(labels[n-2]) <= 3 {
		keep = 3
	}
	return strings.Join(labels[max(0, n-keep):], ".")
}

// explain says in words why the verdict is what it is.
func (j *Judgement) explain(a Answer) string {
	switch {
	case j.Reason == Transport:
		return fmt.Sprintf("%s: %s", j.Reason, a.Status)
	case j.Verdict == Unknown && len(j.Codes) > 0:
		return fmt.Sprintf("%s (%s)", j.Reason, strings.Join(codeTexts(j.Codes), ", "))
	}
	return j.Reason.String()
}

// codeTexts returns the codes as text.
func codeTexts(codes []netip.Addr) []string {
	texts := make([]string, len(codes))
	for i, c := range codes {
		texts[i] = c.String()
	}
	return texts
}
