package dnsclient

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// A Status is what became of a question. Found, NoData and NXDomain are
// answers. All others mean that nobody can tell, and must never be read as
// "it is not there". The zero value is Unknown.
type Status uint8

const (
	Unknown     Status = iota // nobody was asked to the end: a bad name, a context that was cancelled, a client that was closed
	Found                     // there are records
	NoData                    // the name exists, without records of the type (RFC 2308, section 2.2)
	NXDomain                  // the name does not exist (RFC 2308, section 2.1)
	ServFail                  // the server could not find out
	Refused                   // the server does not want to tell us
	OtherRcode                // another response code, such as NOTIMP: see Answer.Rcode
	Timeout                   // nobody answered in time, neither over UDP nor over TCP
	Malformed                 // what came cannot be read, contradicts itself, or is over a limit
	Unreachable               // the network or the host says that nobody is there, or the connection broke
	Lame                      // the server does not serve what it was asked: a referral, or an answer without authority
)

var statusNames = [...]string{
	Unknown: "unknown", Found: "found", NoData: "no data", NXDomain: "NXDOMAIN", ServFail: "SERVFAIL", Refused: "REFUSED",
	OtherRcode: "other response code", Timeout: "timeout", Malformed: "malformed", Unreachable: "unreachable", Lame: "lame",
}

// String is the status in a word or two, for logs and operators.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return "status " + strconv.Itoa(int(s))
}

// Definite reports whether the status is an answer: records are there, or they
// are not. What is not definite is could-not-tell.
func (s Status) Definite() bool { return s == Found || s == NoData || s == NXDomain }

// An Answer is what is known of the records of one name and type. Its slices
// may be shared with the cache: read them, do not write into them.
//
// All names are lower case, end with the dot of the root, and are escaped as in
// a zone file (RFC 1035, section 5.1).
type Answer struct {
	Status Status
	Name   string // that was asked about
	Type   uint16 // as the constants of miekg/dns: dns.TypeA

	// The records, for the type that was asked about.
	Addrs []netip.Addr // of A and AAAA
	TXT   []string     // one for each record: its strings joined without a space, as RFC 7208, section 3.3, has it; raw bytes of strangers
	NS    []string
	PTR   []string
	MX    []MX

	CNAME []string // the aliases that were followed, in order: the last one is whose records these are
	SOA   SOA      // of an SOA question; for NoData and NXDomain, of the zone that says no, if it was told

	// TTL is how long the answer may be believed: the least of its records', and
	// for NoData and NXDomain min(SOA.Minimum, SOA.TTL) (RFC 2308, section 5),
	// which is 0 where there is no SOA. From the cache it is what is left of it.
	TTL time.Duration

	Rcode         int            // the response code with its extension (RFC 6891, section 6.1.3); 0 where nobody answered
	Authenticated bool           // the AD bit: the server says that it checked the signatures (RFC 4035, section 3.2.3)
	Server        netip.AddrPort // that answered, or did not; zero where nobody was asked
	Cached        bool           // remembered from an earlier question

	Err error // why Status is not definite; nil if it is
}

// An MX is a host that takes mail for a domain.
type MX struct {
	Preference uint16
	Host       string // "." is the null MX: no mail is taken (RFC 7505)
}

// An SOA is the start of a zone's authority (RFC 1035, section 3.3.13).
type SOA struct {
	Zone    string // owner of the record; empty if there was none
	Primary string // MNAME
	Mailbox string // RNAME
	Serial  uint32
	Minimum time.Duration // TTL of what does not exist (RFC 2308, section 4)
	TTL     time.Duration // of the record itself
}

// Limits on an answer. A message is at most 64 KB by the two bytes of its
// length over TCP and by the size of a datagram; a name is at most 255 bytes on
// the wire, which miekg/dns holds.
const (
	maxRecords = 256      // in all sections together
	maxAliases = 8        // CNAME records that are followed
	maxTXT     = 16 << 10 // bytes of TXT in all records together
)

// maxTTL is the longest that an answer may be believed (RFC 8767, section 4).
const maxTTL = 7 * 24 * time.Hour

// parse reads a message that was matched with q before.
func parse(msg []byte, q *question) Answer {
	a := Answer{Name: q.name, Type: q.qtype}
	m, err := read(msg, q)
	if err != nil {
		return a.failed(Malformed, err)
	}
	a.Rcode, a.Authenticated = m.rcode, m.bits&bitAD != 0
	switch m.rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	case dns.RcodeServerFailure:
		return a.failed(ServFail, errSaid(m.rcode))
	case dns.RcodeRefused:
		return a.failed(Refused, errSaid(m.rcode))
	default:
		return a.failed(OtherRcode, errSaid(m.rcode))
	}
	if q.direct && m.bits&bitAA == 0 {
		return a.failed(Lame, errors.New("not authoritative"))
	}
	return a.fill(m, q)
}

func errSaid(rcode int) error {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return fmt.Errorf("it said %s", name)
	}
	return fmt.Errorf("it said response code %d", rcode)
}

// failed is the answer with nothing but why there is none.
func (a Answer) failed(s Status, err error) Answer {
	return Answer{Status: s, Name: a.Name, Type: a.Type, Rcode: a.Rcode, Authenticated: a.Authenticated, Err: err}
}

// fill follows the aliases from the name that was asked about and takes the
// records at their end.
func (a Answer) fill(m *message, q *question) Answer {
	owner := q.name
	a.TTL = maxTTL
	for q.qtype != dns.TypeCNAME {
		alias, ok := m.alias(owner)
		if !ok {
			break
		}
		if len(a.CNAME) == maxAliases {
			return a.failed(Malformed, fmt.Errorf("more than %d aliases", maxAliases))
		}
		owner = canonical(alias.Target)
		a.CNAME = append(a.CNAME, owner)
		a.TTL = min(a.TTL, seconds(alias.Hdr.Ttl))
	}
	others := len(m.answer) - len(a.CNAME)
	taken, err := a.takeAll(m.answer, owner)
	switch {
	case err != nil:
		return a.failed(Malformed, err)
	case taken > 0 && m.rcode == dns.RcodeNameError:
		return a.failed(Malformed, errors.New("records of a name that does not exist"))
	case taken > 0:
		a.Status = Found
		return a
	case others > 0:
		return a.failed(Malformed, fmt.Errorf("records, but none of %q", owner))
	}
	return a.nothing(m, q)
}

// takeAll takes the records of owner that were asked for and says how many they
// are.
func (a *Answer) takeAll(records []dns.RR, owner string) (taken int, err error) {
	txt := 0
	for _, rr := range records {
		h := rr.Header()
		if h.Rrtype != a.Type || h.Name != owner {
			continue
		}
		if !a.take(rr) {
			return 0, errors.New("a record without data")
		}
		if a.Type == dns.TypeTXT {
			txt += int(h.Rdlength)
		}
		if txt > maxTXT {
			return 0, fmt.Errorf("more than %d bytes of TXT", maxTXT)
		}
		a.TTL = min(a.TTL, seconds(h.Ttl))
		taken++
	}
	return taken, nil
}

// nothing tells apart what an answer without records means.
func (a Answer) nothing(m *message, q *question) Answer {
	switch {
	case m.rcode == dns.RcodeNameError:
		a.Status = NXDomain
	case m.soa == nil && m.referral:
		// RFC 2308, section 2.2.1: servers of another zone and no SOA are a referral.
		return a.failed(Lame, errors.New("it refers to other servers"))
	case m.bits&(bitRA|bitAA) == 0:
		return a.failed(Lame, errors.New("neither recursive nor authoritative"))
	case q.direct && m.soa == nil && len(a.CNAME) > 0:
		// The alias leads out of what the server serves, so it did not look there.
		return a.failed(Lame, fmt.Errorf("it tells only the alias to %q", a.CNAME[len(a.CNAME)-1]))
	default:
		a.Status = NoData
	}
	a.TTL = 0
	if m.soa != nil {
		a.SOA = newSOA(m.soa)
		a.TTL = min(a.SOA.Minimum, a.SOA.TTL)
	}
	return a
}

// take adds the data of a record, if it has any: miekg/dns leaves an RDATA of
// no length empty.
func (a *Answer) take(rr dns.RR) bool {
	if rr.Header().Rdlength == 0 {
		return false
	}
	switch rr := rr.(type) {
	case *dns.A:
		addr, ok := netip.AddrFromSlice(rr.A)
		a.Addrs = append(a.Addrs, addr)
		return ok
	case *dns.AAAA:
		addr, ok := netip.AddrFromSlice(rr.AAAA)
		a.Addrs = append(a.Addrs, addr)
		return ok
	case *dns.TXT:
		a.TXT = append(a.TXT, joinTXT(rr.Txt))
	case *dns.NS:
		a.NS = append(a.NS, canonical(rr.Ns))
	case *dns.PTR:
		a.PTR = append(a.PTR, canonical(rr.Ptr))
	case *dns.MX:
		a.MX = append(a.MX, MX{rr.Preference, canonical(rr.Mx)})
	case *dns.CNAME:
		a.CNAME = append(a.CNAME, canonical(rr.Target))
	case *dns.SOA:
		a.SOA = newSOA(rr)
	}
	return true
}

func newSOA(rr *dns.SOA) SOA {
	return SOA{
		Zone: rr.Hdr.Name, Primary: canonical(rr.Ns), Mailbox: canonical(rr.Mbox), Serial: rr.Serial,
		Minimum: seconds(rr.Minttl), TTL: seconds(rr.Hdr.Ttl),
	}
}

// seconds is a TTL as a duration. RFC 2181, section 8: with the first bit set
// it is 0.
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
