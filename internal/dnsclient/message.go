package dnsclient

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// The header of a message (RFC 1035, section 4.1.1): id, bits, and how many
// records the four sections hold.
const headerSize = 12

const (
	bitQR = 1 << 15 // it is an answer
	bitAA = 1 << 10 // by a server of the zone
	bitTC = 1 << 9  // it is cut: ask over TCP
	bitRD = 1 << 8  // recursion is desired
	bitRA = 1 << 7  // and available
	bitAD = 1 << 5  // the signatures were checked

	maskOpcode = 0xF << 11
	maskRcode  = 0xF
)

// udpSize is the largest answer over UDP that we ask for: it fits into one
// packet everywhere, and fragments can be forged (RFC 9715, section 3.2).
const udpSize = 1232

// A question is a name and type as they are asked on the wire.
type question struct {
	name  string // canonical
	qtype uint16
	wire  []byte // the name, lower case

	direct bool // to a server of the zone: no recursion is desired, and only authority counts
	mixed  bool // ask in MiXeD case over UDP
	bare   bool // without EDNS
}

var errType = errors.New("only A, AAAA, TXT, NS, PTR, MX, SOA and CNAME are read here")

// newQuestion checks what is to be asked. The final dot of name may be missing.
func newQuestion(name string, qtype uint16) (*question, error) {
	switch qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeNS, dns.TypePTR, dns.TypeMX, dns.TypeSOA, dns.TypeCNAME:
	default:
		return nil, fmt.Errorf("dnsclient: type %s of %q: %w", dns.Type(qtype), name, errType)
	}
	if name == "" {
		return nil, errors.New("dnsclient: the name to ask about is empty")
	}
	var buf [255]byte // RFC 1035, section 2.3.4
	end, err := dns.PackDomainName(dns.Fqdn(name), buf[:], 0, nil, false)
	if err != nil {
		return nil, fmt.Errorf("dnsclient: %q is no domain name: %w", name, err)
	}
	wire := lowerWire(append([]byte(nil), buf[:end]...))
	// Back from the wire, as one name can be escaped in many ways.
	text, _, err := dns.UnpackDomainName(wire, 0)
	if err != nil {
		return nil, fmt.Errorf("dnsclient: %q is no domain name: %w", name, err)
	}
	return &question{name: text, qtype: qtype, wire: wire}, nil
}

// lowerWire lowers the letters of a name in place. The lengths of labels are at
// most 63, and so no letters.
func lowerWire(wire []byte) []byte {
	for i, b := range wire {
		if 'A' <= b && b <= 'Z' {
			wire[i] = b + 'a' - 'A'
		}
	}
	return wire
}

// canonical lowers the letters of a name that miekg/dns read. Only ASCII has
// cases in the DNS (RFC 4343), and all else is escaped there.
func canonical(name string) string { return strings.ToLower(name) }

// pack appends the question as a message with id 0. With cases, a letter whose
// bit is set is asked in upper case.
func (q *question) pack(msg []byte, cases []byte) []byte {
	// RFC 6840, section 5.7: AD in a question asks for AD in the answer.
	bits := uint16(bitAD)
	if !q.direct {
		bits |= bitRD
	}
	var additional uint16
	if !q.bare {
		additional = 1
	}
	msg = binary.BigEndian.AppendUint16(msg, 0)
	msg = binary.BigEndian.AppendUint16(msg, bits)
	msg = append(msg, 0, 1, 0, 0, 0, 0)
	msg = binary.BigEndian.AppendUint16(msg, additional)
	start := len(msg)
	msg = append(msg, q.wire...)
	if cases != nil {
		mixCase(msg[start:], cases)
	}
	msg = binary.BigEndian.AppendUint16(msg, q.qtype)
	msg = binary.BigEndian.AppendUint16(msg, dns.ClassINET)
	if q.bare {
		return msg
	}
	msg = append(msg, 0) // EDNS (RFC 6891, section 6.1.2), owned by the root
	msg = binary.BigEndian.AppendUint16(msg, dns.TypeOPT)
	msg = binary.BigEndian.AppendUint16(msg, udpSize)
	return append(msg, 0, 0, 0, 0, 0, 0) // no extended code, version 0, no flags, no options
}

// mixCase raises the letters of a name whose bit is set. A forger has to guess
// them too (draft-vixie-dnsext-dns0x20).
func mixCase(name, cases []byte) {
	for i, b := range name {
		if 'a' <= b && b <= 'z' && cases[i/8%len(cases)]>>(i%8)&1 == 1 {
			name[i] = b - ('a' - 'A')
		}
	}
}

// questionEnd is where the question of a message that q packed ends.
func (q *question) questionEnd() int { return headerSize + len(q.wire) + 4 }

// isAnswer reports whether msg can be an answer at all.
func isAnswer(msg []byte) bool {
	return len(msg) >= headerSize && msgBits(msg)&(bitQR|maskOpcode) == bitQR
}

func msgID(msg []byte) uint16   { return binary.BigEndian.Uint16(msg) }
func msgBits(msg []byte) uint16 { return binary.BigEndian.Uint16(msg[2:]) }
func isCut(msg []byte) bool     { return msgBits(msg)&bitTC != 0 }

// echoes reports whether msg repeats the question of asked, which ends at end,
// in the same case.
func echoes(msg, asked []byte, end int) bool {
	return len(msg) >= end && binary.BigEndian.Uint16(msg[4:]) == 1 && bytes.Equal(msg[headerSize:end], asked[headerSize:end])
}

// A message is what an answer is made from. The names of owners are canonical.
type message struct {
	rcode    int
	bits     uint16
	answer   []dns.RR // of the type that was asked for, and aliases
	soa      *dns.SOA // of the authority section
	referral bool     // the authority section names servers
}

// alias finds the CNAME record of a name.
func (m *message) alias(owner string) (*dns.CNAME, bool) {
	for _, rr := range m.answer {
		if alias, ok := rr.(*dns.CNAME); ok && alias.Hdr.Name == owner && alias.Hdr.Rdlength > 0 {
			return alias, true
		}
	}
	return nil, false
}

// read takes a message apart. Only the records that count are decoded.
func read(msg []byte, q *question) (*message, error) {
	counts := func(i int) int { return int(binary.BigEndian.Uint16(msg[4+2*i:])) }
	if n := counts(1) + counts(2) + counts(3); n > maxRecords {
		return nil, fmt.Errorf("%d records, more than %d", n, maxRecords)
	}
	m := &message{bits: msgBits(msg), rcode: int(msgBits(msg) & maskRcode)}
	off := headerSize
	if counts(0) > 0 {
		off = q.questionEnd()
	}
	for section := 1; section <= 3; section++ {
		for range counts(section) {
			h, start, err := readHeader(msg, off)
			if err != nil {
				return nil, err
			}
			off = start + int(h.Rdlength)
			if err := m.keep(section, h, msg[:off], start, q.qtype); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// keep decodes a record if it counts in its section: 1 is the answer, 2 the
// authority, and 3 the additional section. Msg ends where the record does.
func (m *message) keep(section int, h dns.RR_Header, msg []byte, start int, qtype uint16) error {
	if section == 3 && h.Rrtype == dns.TypeOPT {
		m.rcode |= int(h.Ttl>>24) << 4
	}
	if h.Class != dns.ClassINET {
		return nil
	}
	switch {
	case section == 2 && h.Rrtype == dns.TypeNS:
		m.referral = true
		return nil
	case section == 1 && (h.Rrtype == qtype || h.Rrtype == dns.TypeCNAME):
	case section == 2 && h.Rrtype == dns.TypeSOA && m.soa == nil && h.Rdlength > 0:
	default:
		return nil
	}
	rr, _, err := dns.UnpackRRWithHeader(h, msg, start)
	if err != nil {
		return fmt.Errorf("a record of type %s: %w", dns.Type(h.Rrtype), err)
	}
	if section == 1 {
		m.answer = append(m.answer, rr)
		return nil
	}
	m.soa, _ = rr.(*dns.SOA)
	return nil
}

var errShort = errors.New("the message ends within a record")

// readHeader reads what is before the data of a record (RFC 1035, section
// 4.1.3), which starts at start and is all there.
func readHeader(msg []byte, off int) (h dns.RR_Header, start int, err error) {
	h.Name, off, err = dns.UnpackDomainName(msg, off)
	if err != nil {
		return h, 0, fmt.Errorf("the name of a record: %w", err)
	}
	if len(msg) < off+10 {
		return h, 0, errShort
	}
	h.Name = canonical(h.Name)
	h.Rrtype = binary.BigEndian.Uint16(msg[off:])
	h.Class = binary.BigEndian.Uint16(msg[off+2:])
	h.Ttl = binary.BigEndian.Uint32(msg[off+4:])
	h.Rdlength = binary.BigEndian.Uint16(msg[off+8:])
	start = off + 10
	if len(msg) < start+int(h.Rdlength) {
		return h, 0, errShort
	}
	return h, start, nil
}

// joinTXT joins the strings of a TXT record and takes miekg/dns's escapes out
// of them.
func joinTXT(parts []string) string {
	if len(parts) == 1 && !strings.Contains(parts[0], `\`) {
		return parts[0]
	}
	var b strings.Builder
	for _, part := range parts {
		unescape(&b, part)
	}
	return b.String()
}

// unescape writes text as it was on the wire. miekg/dns gives a byte that is
// not printable as \DDD, and quotes and backslashes after a backslash
// (RFC 1035, section 5.1).
func unescape(b *strings.Builder, text string) {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		if code, ok := decimal(text[i+1:]); ok {
			b.WriteByte(code)
			i += 3
			continue
		}
		i++
		b.WriteByte(text[i])
	}
}

// decimal reads the three digits of a byte.
func decimal(text string) (byte, bool) {
	if len(text) < 3 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(text[:3]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return byte(n), n <= 255
}
