package dnsbl

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Kind is a set of the kinds of things that a list can be asked about.
type Kind uint8

// The kinds of subjects.
const (
	IP4    Kind = 1 << iota // an IPv4 address
	IP6                     // an IPv6 address
	Domain                  // a domain name
	Hash                    // an e-mail address, asked by its hash
)

// A kindText is a kind and its name in the catalogue.
type kindText struct {
	kind Kind
	text string
}

var kindTexts = []kindText{{IP4, "ip4"}, {IP6, "ip6"}, {Domain, "domain"}, {Hash, "hash"}}

// String returns the kinds by the names that the catalogue has for them.
func (k Kind) String() string {
	var texts []string
	for _, t := range kindTexts {
		if k&t.kind != 0 {
			texts = append(texts, t.text)
		}
	}
	return strings.Join(texts, ",")
}

// MarshalText writes what String returns.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// maxName is the longest name of the DNS as text, in bytes (RFC 1035, section
// 2.3.4: 255 octets on the wire).
const maxName = 253

// A Subject is what a list is asked about: an address, a network that a list
// treats as one, a domain or an e-mail address. Subjects compare with ==. The
// zero Subject is of no kind.
type Subject struct {
	prefix netip.Prefix
	text   string // a domain or an e-mail address, in lower case
}

// Address returns the subject that is the address, without its zone.
func Address(addr netip.Addr) Subject { return network(addr, addr.Unmap().BitLen()) }

// network returns the network of that many bits around addr.
func network(addr netip.Addr, bits int) Subject {
	p, err := addr.Unmap().WithZone("").Prefix(bits)
	if err != nil {
		return Subject{}
	}
	return Subject{prefix: p}
}

// ParseSubject reads an IP address, a network as an [Event] writes it, an
// e-mail address or a domain. An internationalised domain must be in its
// ASCII form (RFC 5890, A-labels).
func ParseSubject(s string) (Subject, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return Address(addr), nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return network(p.Addr(), p.Bits()), nil
	}
	if strings.Contains(s, "@") {
		text, err := normalMailbox(s)
		return Subject{text: text}, err
	}
	text, err := normalDomain(s)
	if err == nil && !strings.Contains(text, ".") {
		err = fmt.Errorf("dnsbl: %q is neither an address nor a domain", s)
	}
	if err != nil {
		return Subject{}, err
	}
	return Subject{text: text}, nil
}

// Kind returns the one kind that the subject is of, 0 for the zero Subject.
func (s Subject) Kind() Kind {
	switch {
	case s.prefix.Addr().Is4():
		return IP4
	case s.prefix.IsValid():
		return IP6
	case strings.Contains(s.text, "@"):
		return Hash
	case s.text != "":
		return Domain
	}
	return 0
}

// Compare orders subjects as people look for them: addresses by number, those of
// IPv4 first, then domains and e-mail addresses.
func (s Subject) Compare(o Subject) int {
	switch a, b := s.prefix.IsValid(), o.prefix.IsValid(); {
	case a && b:
		return s.prefix.Compare(o.prefix)
	case a:
		return -1
	case b:
		return 1
	}
	return strings.Compare(s.text, o.text)
}

// String returns the subject as [ParseSubject] reads it.
func (s Subject) String() string {
	if s.prefix.IsSingleIP() {
		return s.prefix.Addr().String()
	}
	if s.prefix.IsValid() {
		return s.prefix.String()
	}
	return s.text
}

// MarshalText writes what String returns.
func (s Subject) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Subject) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSubject(string(text))
	return err
}

// Public reports whether lists can know s: every domain and e-mail address, and
// every address but those that mean something else in each network (RFC 6890).
// The loopback network counts: each list has its test entry there.
func (s Subject) Public() bool {
	addr := s.prefix.Addr()
	return !s.prefix.IsValid() || !addr.IsPrivate() && !addr.IsLinkLocalUnicast() && !addr.IsMulticast() && !addr.IsUnspecified() &&
		addr != netip.IPv6Loopback() && !sharedSpace.Contains(addr)
}

// sharedSpace is between a provider and its customers (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// IsSingle reports whether s is not a network of several addresses.
func (s Subject) IsSingle() bool { return !s.prefix.IsValid() || s.prefix.IsSingleIP() }

// Addr returns the address that s is, zero if it is none.
func (s Subject) Addr() netip.Addr {
	if !s.prefix.IsSingleIP() {
		return netip.Addr{}
	}
	return s.prefix.Addr()
}

// In reports whether s is an address or network within the network of other.
func (s Subject) In(other Subject) bool {
	return s.prefix.IsValid() && other.prefix.IsValid() && other.prefix.Contains(s.prefix.Addr()) && s.prefix.Bits() >= other.prefix.Bits()
}

// neighbourhood is what lists tend to list as one: a /24, a /48, a domain.
// Subjects in different neighbourhoods have little to do with each other.
func (s Subject) neighbourhood() Subject {
	bits := map[Kind]int{IP4: 24, IP6: 48}[s.Kind()]
	if bits == 0 || s.prefix.Bits() < bits {
		return s
	}
	return network(s.prefix.Addr(), bits)
}

// QueryName returns the name to ask zone about s.
//
// An IPv4 address is its four numbers reversed, an IPv6 address its 32
// nibbles reversed in lower case (RFC 5782, sections 2.1 and 2.4); a network
// is asked by its first address. A domain stands as it is (section 2.2). An
// e-mail address is the Base32 of the SHA-256 of its normal form, as Spamhaus
// documents for its Hash Blocklist.
func QueryName(s Subject, zone string) (string, error) {
	label, err := s.label()
	if err != nil {
		return "", err
	}
	name := label + "." + zone
	if len(name) > maxName {
		return "", fmt.Errorf("dnsbl: %s is too long to be asked of a list", s)
	}
	return name, nil
}

// label is what comes before the zone in a question about s.
func (s Subject) label() (string, error) {
	switch s.Kind() {
	case IP4, IP6:
		return reversed(s.prefix.Addr()), nil
	case Hash:
		return hashLabel(s.text), nil
	case Domain:
		return s.text, nil
	}
	return "", errors.New("dnsbl: nothing to ask about")
}

// hashLabel is what stands for an e-mail address in its normal form.
func hashLabel(mailbox string) string {
	sum := sha256.Sum256([]byte(mailbox))
	return hashEncoding.EncodeToString(sum[:])
}

// hashEncoding makes 52 characters of a SHA-256, which fits into one label.
var hashEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// reversed returns the labels that stand for addr. An IPv4 address mapped
// into IPv6, such as the test point ::FFFF:7F00:2, is an IPv6 address here.
func reversed(addr netip.Addr) string {
	if addr.Is4() {
		b := addr.As4()
		text := make([]byte, 0, len("255.255.255.255"))
		for i := len(b) - 1; i >= 0; i-- {
			text = strconv.AppendUint(text, uint64(b[i]), 10)
			text = append(text, '.')
		}
		return string(text[:len(text)-1])
	}
	const digits = "0123456789abcdef"
	b := addr.As16()
	text := make([]byte, 0, 4*len(b))
	for i := len(b) - 1; i >= 0; i-- {
		text = append(text, digits[b[i]&15], '.', digits[b[i]>>4], '.')
	}
	return string(text[:len(text)-1])
}

// normalDomain returns a name of letters, digits and hyphens in lower case,
// without a dot at its end. What a host name cannot be is refused, and so is
// what reads as an address: a domain list answers those with an error code.
func normalDomain(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "" || len(name) > maxName {
		return "", fmt.Errorf("dnsbl: %q is no domain: it is empty or too long", cut(s, maxName))
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if !isLDH(label) {
			return "", fmt.Errorf("dnsbl: %q is no domain: want labels of letters, digits and hyphens", s)
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("dnsbl: %q is no domain: it ends in a number", s)
	}
	return name, nil
}

// isLDH reports whether label is one of RFC 5890's LDH labels.
func isLDH(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// normalMailbox returns an e-mail address as the Spamhaus Hash Blocklist
// hashes it: lower case, without a +tag; at Gmail also without dots and by
// its one domain.
func normalMailbox(s string) (string, error) {
	local, domain, _ := strings.Cut(strings.ToLower(s), "@")
	domain, err := normalDomain(domain)
	if err != nil {
		return "", err
	}
	local, _, _ = strings.Cut(local, "+")
	if domain == "googlemail.com" {
		domain = "gmail.com"
	}
	if domain == "gmail.com" {
		local = strings.ReplaceAll(local, ".", "")
	}
	if local == "" || len(local) > 64 || strings.ContainsFunc(local, notGraphic) {
		return "", fmt.Errorf("dnsbl: %q is no e-mail address", cut(s, maxName))
	}
	return local + "@" + domain, nil
}

func notGraphic(r rune) bool { return r <= ' ' || r == 0x7f }

// cut returns at most n bytes of s.
func cut(s string, n int) string { return s[:min(len(s), n)] }
