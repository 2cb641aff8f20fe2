package dnsbl

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Class says what a code of a list stands for. The zero Class is Entry: the
// subject is listed.
type Class uint8

// The classes of codes.
const (
	Entry   Class = iota // listed
	Welcome              // known as good
	Neutral              // neither
	Refusal              // the list refuses to answer us
	Misuse               // the list was asked about the wrong kind of thing
)

var classTexts = []string{"listed", "welcome", "neutral", "refused", "misuse"}

// A Scope says what a listing covers.
type Scope uint8

// The scopes of listings, the widest last of those about addresses. The zero
// Scope says nothing.
const (
	_            Scope = iota
	ScopeIP            // the address
	ScopeRange         // a range of addresses around it
	ScopeASN           // everything of its provider
	ScopeDomain        // the domain
	ScopeMailbox       // the e-mail address
)

var scopeTexts = []string{"", "ip", "range", "asn", "domain", "mailbox"}

// String returns the scope by its name in the catalogue.
func (s Scope) String() string { return scopeTexts[s] }

// MarshalText writes what String returns.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Scope) UnmarshalText(text []byte) error { return fromText(s, scopeTexts, "scope", text) }

// A Code is what one answer of a list, or one bit of it, means.
type Code struct {
	Range   Range // the answers, in a list of codes
	Bit     uint8 // the bit of the last octet, in a list of bits
	Class   Class
	Name    string // sublist: "SBL", "CSS"; may be empty
	Meaning string
	Scope   Scope
	Weight  int  // 0 to 100; see [List.Weight]
	Policy  bool // about how the address is set up rather than about abuse
	// Vicinity says that the address is listed, or may be, for what its neighbours do.
	Vicinity bool
	Client   int // 0 to 100: what it is worth, in points, that the client of a login is listed so
}

// says returns the meaning with the sublist that it comes from.
func (c *Code) says() string {
	if c.Name == "" {
		return c.Meaning
	}
	return c.Name + ": " + c.Meaning
}

// A Range is a set of IPv4 addresses: for each octet the lowest and the
// highest value.
type Range [4][2]uint8

// parseRange reads four octets, each a number or two with a hyphen between:
// 127.0.0.4-7.
func parseRange(s string) (r Range, err error) {
	octets := strings.Split(s, ".")
	if len(octets) != len(r) {
		return r, fmt.Errorf("%q is no code: want four octets such as 127.0.0.4-7", s)
	}
	for i, octet := range octets {
		low, high, ok := strings.Cut(octet, "-")
		if !ok {
			high = low
		}
		a, errLow := strconv.ParseUint(low, 10, 8)
		b, errHigh := strconv.ParseUint(high, 10, 8)
		if errLow != nil || errHigh != nil || a > b {
			return r, fmt.Errorf("%q is no code: %q is no number or range up to 255", s, octet)
		}
		r[i] = [2]uint8{uint8(a), uint8(b)}
	}
	return r, nil
}

// contains reports whether the address with these octets is in r.
func (r *Range) contains(b [4]byte) bool {
	for i, v := range b {
		if v < r[i][0] || v > r[i][1] {
			return false
		}
	}
	return true
}

// is reports whether r is that one address.
func (r *Range) is(b [4]byte) bool {
	for i, v := range b {
		if r[i] != [2]uint8{v, v} {
			return false
		}
	}
	return true
}

// code returns the octets of an answer, false if it is no IPv4 address.
func code(addr netip.Addr) ([4]byte, bool) {
	addr = addr.Unmap()
	if !addr.Is4() {
		return [4]byte{}, false
	}
	return addr.As4(), true
}

// fromText sets v to the index of text in texts.
func fromText[T ~uint8](v *T, texts []string, what string, text []byte) error {
	for i, t := range texts {
		if t == string(text) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no %s: want %s", text, what, strings.Join(texts, ", "))
}
