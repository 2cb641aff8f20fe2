package dnsbl

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"198.51.100.1": true, "127.0.0.2": true, "2001:db8::1": true, "shop.example": true, "a@shop.example": true, "8.8.8.0/24": true,
		"10.0.0.1": false, "172.16.3.4": false, "192.168.1.1": false, "169.254.1.1": false, "100.64.0.1": false, "224.0.0.1": false, "0.0.0.0": false,
		"fe80::1": false, "fd00::1": false, "::1": false, "::": false, "::ffff:10.0.0.1": false,
	} {
		if got := subject(t, text).Public(); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
}

// TestDelist has what a list says lead only to where the list is.
func TestDelist(t *testing.T) {
	for _, tt := range []struct{ name, list, text, want string }{
		{"the domain of its zone", "spamcop", "see https://www.spamcop.net/bl.shtml?198.51.100.20", "https://www.spamcop.net/bl.shtml?198.51.100.20"},
		{"the domain of its page", "psbl", "Listed in PSBL, see http://psbl.org/listing?ip=198.51.100.20", "http://psbl.org/listing?ip=198.51.100.20"},
		{"in capitals", "spamcop", "HTTPS://WWW.SPAMCOP.NET/x", "HTTPS://WWW.SPAMCOP.NET/x"},
		{"elsewhere", "spamcop", "pay at https://spamcop.net.evil.example/now", "https://www.spamcop.net/"},
		{"a name that ends alike", "spamcop", "https://notspamcop.net/", "https://www.spamcop.net/"},
		{"an address", "spamcop", "http://192.0.2.1/", "https://www.spamcop.net/"},
		{"nothing", "spamcop", "", "https://www.spamcop.net/"},
		{"no page of its own", "uceprotect-1", "https://evil.example/", ""},
		{"no page, its own domain", "uceprotect-1", "http://www.uceprotect.net/rblcheck.php?ipr=198.51.100.20", "http://www.uceprotect.net/rblcheck.php?ipr=198.51.100.20"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listOf(t, tt.list)
			if got := delist(CleanText([]string{tt.text}), &l); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestQueryName(t *testing.T) {
	long := strings.Repeat("a", 63)
	tests := []struct {
		name, subject, want string
	}{
		{"IPv4", "192.0.2.99", "99.2.0.192.bl.example"},
		{"IPv6, as RFC 5782 shows it", "2001:db8:1:2:3:4:567:89ab", "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example"},
		{"IPv6 /64", "2001:db8:1:2::/64", strings.Repeat("0.", 16) + "2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example"},
		{"IPv6 with a zone", "fe80::1%eth0", "1." + strings.Repeat("0.", 28) + "8.e.f.bl.example"},
		{"IPv4 in IPv6 is IPv4", "::ffff:192.0.2.99", "99.2.0.192.bl.example"},
		{"network", "192.0.2.99/24", "0.2.0.192.bl.example"},
		{"domain", "Mail.Example.COM.", "mail.example.com.bl.example"},
		{"A-label", "xn--bcher-kva.example", "xn--bcher-kva.example.bl.example"},
		{"mailbox", "user@hbltest.com", "F3PDGTMWU6LFIGDJC67YNIWRY5ZRM7ERLETNFO36QAEQPMBPW2DA.bl.example"},
		{"U-label", "bücher.example", ""},
		{"underscore", "_dmarc.example.com", ""},
		{"hyphen in front", "-x.example", ""},
		{"empty label", "a..example", ""},
		{"one label", "localhost", ""},
		{"nothing", "", ""},
		{"five numbers", "1.2.3.4.5", ""},
		{"label too long", long + "a.example", ""},
		{"too long for the zone", strings.Join([]string{long, long, long, "a" + long[:50], "example"}, "."), ""},
		{"mailbox without a domain", "user@", ""},
		{"mailbox with a blank", "us er@example.com", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			s, err := ParseSubject(tt.subject)
			if err == nil {
				got, err = QueryName(s, "bl.example")
			}
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestMailboxesThatAreOne(t *testing.T) {
	for _, same := range [][2]string{
		{"User@Example.com", "user@example.com"}, {"user+tag@example.com", "user@example.com"},
		{"f.i.rst@googlemail.com", "first@gmail.com"}, {"f.i.rst@example.com", "f.i.rst@example.com"},
	} {
		if a, b := subject(t, same[0]), subject(t, same[1]); a != b || a.String() != same[1] {
			t.Errorf("%s is taken for %s, want %s", same[0], a, b)
		}
	}
}

func TestSubjectText(t *testing.T) {
	for _, text := range []string{"192.0.2.1", "192.0.2.0/24", "2001:db8::1", "2001:db8:1:2::/64", "example.com", "user@example.com"} {
		s := subject(t, text)
		var again Subject
		written, err := s.MarshalText()
		if err == nil {
			err = again.UnmarshalText(written)
		}
		if err != nil || again != s || string(written) != text {
			t.Errorf("%s is written as %s and read as %s (%v)", text, written, again, err)
		}
	}
}

func TestCleanText(t *testing.T) {
	tests := []struct{ name, in, want, delist string }{
		{"plain", "Blocked - see https://www.spamcop.net/bl.shtml?192.0.2.1", "Blocked - see https://www.spamcop.net/bl.shtml?192.0.2.1", "https://www.spamcop.net/bl.shtml?192.0.2.1"},
		{"sentence around the link", "Listed (see http://psbl.org/listing?ip=192.0.2.1).", "Listed (see http://psbl.org/listing?ip=192.0.2.1).", "http://psbl.org/listing?ip=192.0.2.1"},
		{"upper case", "SEE HTTPS://CHECK.EXAMPLE/A", "SEE HTTPS://CHECK.EXAMPLE/A", "HTTPS://CHECK.EXAMPLE/A"},
		{"escape sequences", "a\x1b[31mb\x00c\r\nd", "a [31mb c d", ""},
		{"right-to-left override", "a\u202eb", "a b", ""},
		{"not UTF-8", "a\xff\xfeb", "a b", ""},
		{"script", "javascript:alert(1) <a href=\"http://evil.example\">", "javascript:alert(1) <a href=\"http://evil.example\">", "http://evil.example"},
		{"user in the link", "http://www.spamhaus.org@evil.example/", "http://www.spamhaus.org@evil.example/", ""},
		{"no host", "http:// https://localhost http", "http:// https://localhost http", ""},
		{"second link counts if the first is none", "http://x http://example.org/y", "http://x http://example.org/y", "http://example.org/y"},
		{"letters that change length", "İİİ https://example.org", "İİİ https://example.org", "https://example.org"},
		{"long", strings.Repeat("ä", 1000), strings.Repeat("ä", 255), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := CleanText([]string{tt.in})
			if got != tt.want {
				t.Errorf("text %q, want %q", got, tt.want)
			}
			if link := DelistURL(got); link != tt.delist {
				t.Errorf("link %q, want %q", link, tt.delist)
			}
		})
	}
}

func TestSubjectsInOrder(t *testing.T) {
	want := []string{"192.0.2.9", "192.0.2.10", "198.51.100.1", "2001:db8::2", "2001:db8::10", "a@shop.example", "b.example", "shop.example"}
	var all []Subject
	for _, text := range want {
		s, err := ParseSubject(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortFunc(all, Subject.Compare)
	for i, s := range all {
		if s.String() != want[i] {
			t.Errorf("%d: %s, want %s", i, s, want[i])
		}
	}
}
