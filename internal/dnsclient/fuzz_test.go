package dnsclient

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzAnswer reads what anybody may send after the question: bits, the number
// of records in each section, and these. Nothing panics, the limits hold, and
// only an answer is without an error.
func FuzzAnswer(f *testing.F) {
	for _, records := range [][]string{
		{"a.test. 60 A 127.0.0.2"}, {"a.test. 60 CNAME b.test.", "b.test. 60 A 127.0.0.2"}, {`a.test. 60 TXT "x\000" "y"`},
		{"a.test. 60 MX 10 mx.test."}, {"a.test. 60 NS ns.test."}, {soa("a.test.")}, {"a.test. 60 AAAA 2001:db8::1"}, {"a.test. 60 PTR b.test."},
	} {
		m := new(dns.Msg).SetQuestion("a.test.", dns.TypeA)
		for _, text := range records {
			m.Answer = append(m.Answer, record(text))
		}
		m.Compress = len(records) > 1
		msg, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		body := msg[headerSize+len("\x01a\x04test\x00")+4:]
		f.Add(uint16(bitRA), byte(len(records)), byte(0), byte(0), body, m.Answer[0].Header().Rrtype, false)
		f.Add(uint16(bitAA), byte(0), byte(len(records)), byte(0), body, dns.TypeA, true)
		f.Add(uint16(bitRA|dns.RcodeNameError), byte(0), byte(0), byte(len(records)), body, dns.TypeA, false)
	}
	f.Fuzz(func(t *testing.T, bits uint16, answer, authority, additional byte, body []byte, qtype uint16, direct bool) {
		q, err := newQuestion("a.test.", qtype)
		if err != nil {
			return
		}
		q.direct, q.bare = direct, true
		msg := append(q.pack(nil, nil), body...)
		binary.BigEndian.PutUint16(msg[2:], bits|bitQR)
		msg[7], msg[9], msg[11] = answer, authority, additional
		a := parse(msg, q)
		if a.Status.Definite() != (a.Err == nil) || a.Status == Unknown {
			t.Errorf("%s has the error %v", a.Status, a.Err)
		}
		checkLimits(t, &a)
	})
}

func checkLimits(t *testing.T, a *Answer) {
	t.Helper()
	records := len(a.Addrs) + len(a.TXT) + len(a.NS) + len(a.PTR) + len(a.MX)
	if records > maxRecords || a.Type != dns.TypeCNAME && len(a.CNAME) > maxAliases || len(strings.Join(a.TXT, "")) > maxTXT {
		t.Errorf("over a limit: %+v", a)
	}
	if a.TTL < 0 || a.Status == Found && a.TTL > maxTTL {
		t.Errorf("TTL %v", a.TTL)
	}
	if a.Status != Found && records > 0 {
		t.Errorf("%s with records: %+v", a.Status, a)
	}
	for _, addr := range a.Addrs {
		if addr == (netip.Addr{}) || addr.Is4() != (a.Type == dns.TypeA) {
			t.Errorf("the address %v of type %s", addr, dns.Type(a.Type))
		}
	}
	for _, name := range append(append(append([]string{}, a.NS...), a.PTR...), a.CNAME...) {
		if _, err := newQuestion(name, dns.TypeA); err != nil || !strings.HasSuffix(name, ".") {
			t.Errorf("%q cannot be asked about: %v", name, err)
		}
	}
}

// FuzzTXT has miekg/dns write and read a text: it comes back as it was. Texts
// that it never writes do not panic.
func FuzzTXT(f *testing.F) {
	for _, text := range []string{"v=spf1 -all", `"\`, "\x00\xff", `\256\`, `\9`, "é", strings.Repeat("x", 300)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		joinTXT([]string{text})
		var escaped []string
		for rest := text; ; {
			n := min(len(rest), 255)
			wire := append([]byte{byte(n)}, rest[:n]...)
			rr, _, err := dns.UnpackRRWithHeader(dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Rdlength: uint16(len(wire))}, wire, 0)
			if err != nil {
				t.Fatal(err)
			}
			escaped = append(escaped, rr.(*dns.TXT).Txt...)
			if rest = rest[n:]; rest == "" {
				break
			}
		}
		if got := joinTXT(escaped); got != text {
			t.Errorf("got %q, want %q (escaped %q)", got, text, escaped)
		}
	})
}
