package dnsbl

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzParseCatalogue(f *testing.F) {
	f.Add(shippedData)
	f.Add([]byte("lists:\n  - {name: x, zone: x.example, kinds: [ip4], tier: act, codes: [{code: 127.0.0.2-9, meaning: m}]}\n"))
	f.Add([]byte("lists:\n  - {name: x, zone: x.example, kinds: [domain], tier: act, bits: true, codes: [{bit: 2, meaning: m}], test_listed: [127.0.0.2, test]}\n"))
	f.Add([]byte("dead: [{zone: \"*.x.example\", redundant: true}]\ndisabled: [x]\nversion: 3\n"))
	f.Add([]byte("lists: &a [*a]"))
	f.Add([]byte("lists:\n  - {name: spamhaus-zen, per_day: 5000000, per_second: 50, tier: warn, weight: 0}\n  - {name: nobodys, weight: 3}\n"))
	f.Add([]byte("lists:\n  - {name: x, zone: x.example, kinds: [ip4], tier: act, codes: [{code: 127.0.0.2-9, meaning: m, client: 10, vicinity: true}, {code: 127.0.0.10, meaning: p, policy: true, client: 1}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCatalogue(data)
		if err != nil {
			return
		}
		for i := range c.Lists {
			l := &c.Lists[i]
			if len(l.Codes) == 0 || len(l.TestListed) == 0 || !(l.PerSecond > 0) || l.PerDay < minPerDay || l.Every <= 0 {
				t.Errorf("a list that cannot be watched: %+v", l)
			}
			if zone, open := l.zone(testKeys); open && !isZone(zone) {
				t.Errorf("asked at %q", zone)
			}
			if l.Judge(Answer{Status: NXDomain}).Verdict != Clean || l.Judge(found("127.255.255.254")).Verdict != Unknown {
				t.Errorf("%s believes a refusal, or no answer", l.Name)
			}
			for j := range l.Codes {
				c := &l.Codes[j]
				if c.Client < 0 || c.Client > 100 || c.Client > 0 && (c.Policy || c.Class != Entry) {
					t.Errorf("%s blames a client for %+v", l.Name, c)
				}
			}
		}
		merged, _, err := Shipped().Merge(c)
		if err != nil {
			if !strings.Contains(err.Error(), "must not be asked") && !strings.Contains(err.Error(), "there is none of that name") {
				t.Errorf("merge: %v", err)
			}
			return
		}
		for _, l := range merged.Lists {
			if !(l.PerSecond > 0) || l.PerDay < minPerDay || l.Weight < 0 || l.Weight > 100 || slices.ContainsFunc(l.Codes, func(c Code) bool { return c.Weight < 0 || c.Weight > 100 }) {
				t.Errorf("a list that cannot be watched: %+v", l)
			}
		}
	})
}

func FuzzCleanText(f *testing.F) {
	f.Add("Blocked - see https://www.spamcop.net/bl.shtml?192.0.2.1", "more")
	f.Add("a\x1b[31m\u202e\xff", "http://a.b@c.d")
	f.Fuzz(func(t *testing.T, a, b string) {
		text := CleanText([]string{a, b})
		if len(text) > maxText || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q and %q become %q", a, b, text)
		}
		if again := CleanText([]string{text}); again != text {
			t.Errorf("%q becomes %q the second time", text, again)
		}
		link := DelistURL(text)
		if link == "" {
			return
		}
		if u, err := url.Parse(link); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Hostname() == "" {
			t.Errorf("%q is taken for a link", link)
		}
	})
}

func FuzzJudge(f *testing.F) {
	f.Add([]byte{127, 0, 0, 2}, uint8(Found), "")
	f.Add([]byte{127, 255, 255, 254, 127, 0, 0, 2}, uint8(Found), "x.spamhaus.org")
	f.Add([]byte{127, 0, 0, 1}, uint8(Found), "parking.example.net.")
	f.Add([]byte{91, 195, 240, 117}, uint8(NXDomain), "")
	f.Fuzz(func(t *testing.T, octets []byte, status uint8, cname string) {
		a := Answer{Status: Status(status)}
		for ; len(octets) >= 4; octets = octets[4:] {
			a.Addrs = append(a.Addrs, netip.AddrFrom4([4]byte(octets)))
		}
		if cname != "" {
			a.Names = []string{cname}
		}
		for i := range Shipped().Lists {
			l := &Shipped().Lists[i]
			j := l.Judge(a)
			if got := j.Reason >= Absent; got != (j.Verdict != Unknown) {
				t.Errorf("%s: %s because of %s", l.Name, j.Verdict, j.Reason)
			}
			if points, _ := l.client(j); points < 0 || points > 100 || points > 0 && (j.Verdict != Listed || j.Policy) {
				t.Errorf("%s: %d points for a client that is %s, policy %t", l.Name, points, j.Verdict, j.Policy)
			}
			if j.Verdict == Unknown && j.Reason == NotAsked {
				t.Errorf("%s: unknown without a reason", l.Name)
			}
			for _, addr := range a.Addrs {
				b := addr.As4()
				if about := b[0] != 127 || b[1] == 255 && b[2] == 255; about && j.Verdict == Listed {
					t.Errorf("%s: listed by %s", l.Name, addr)
				}
			}
			if j.Verdict == Listed && (j.Meaning == "" || j.Scope == 0) {
				t.Errorf("%s: listed without a meaning or a scope: %+v", l.Name, j)
			}
		}
	})
}
