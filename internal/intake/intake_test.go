package intake

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// original is a message as its receiver got it: his own servers' lines above ours.
const original = `Received: from 10.1.2.3 by atlas-production.example; Fri, 20 Mar 2026 10:00:03 +0000
Received: from mx1.hosting.test (mx1.hosting.test [203.0.113.9])
	by mx.example.org (Postfix) with ESMTPS id 4GZZk54LXTz2Xb
	for <redacted@example.org>; Fri, 20 Mar 2026 10:00:02 +0000 (UTC)
Received: from pc (unknown [192.0.2.9])
	(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))
	by mx1.hosting.test (Postfix) with ESMTPSA id 4GZZk45QRtz1cZ;
	Fri, 20 Mar 2026 11:00:00 +0100 (CET)
From: <alice@shop.test>
Message-ID: <1@shop.test>
Subject: Received: by forged id 4GZZk45QRtz1cY; Fri, 20 Mar 2026 10:00:00 +0000

Buy this.
Received: by mx1.hosting.test id 4GZZk45QRtz1cX; Fri, 20 Mar 2026 10:00:00 +0000
`

var hops = []Hop{
	{"mx.example.org", "4GZZk54LXTz2Xb", time.Date(2026, 3, 20, 10, 0, 2, 0, time.UTC)},
	{"mx1.hosting.test", "4GZZk45QRtz1cZ", time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)},
}

const report = `Feedback-Type: abuse
User-Agent: Yahoo!-Mail-Feedback/2.0
Version: 0.1
Original-Mail-From: <alice@shop.test>
Original-Rcpt-To: <redacted@example.org>
Received-Date: Fri, 20 Mar 2026 10:00:03 +0000
Source-IP: 203.0.113.9
Reported-Domain: shop.test
`

var full = Complaint{
	Type: "abuse", Agent: "Yahoo!-Mail-Feedback/2.0", Source: netip.MustParseAddr("203.0.113.9"), Sender: "alice@shop.test", Domain: "shop.test",
	Arrival: "Fri, 20 Mar 2026 10:00:03 +0000", MessageID: "<1@shop.test>", Hops: hops,
}

// parts makes a message of parts, each a type and a text.
func parts(kind string, of ...string) string {
	var b strings.Builder
	b.WriteString("From: <fbl@example.org>\nMIME-Version: 1.0\nContent-Type: " + kind + "; boundary=\"b:1\"\n\nto whom it may concern\n")
	for i := 0; i < len(of); i += 2 {
		b.WriteString("--b:1\nContent-Type: " + of[i] + "\n\n" + of[i+1] + "\n")
	}
	return b.String() + "--b:1--\n"
}

const arf = "multipart/report; report-type=feedback-report"

func TestParseComplaint(t *testing.T) {
	attached := Complaint{MessageID: "<1@shop.test>", Hops: hops}
	for _, tt := range []struct {
		name string
		text string
		want Complaint
		none bool
	}{
		{"ARF", parts(arf, "text/plain", "This is an abuse report.", "message/feedback-report", report, "message/rfc822", original), full, false},
		{"headers only", parts(arf, "text/plain", "", "message/feedback-report", report, "text/rfc822-headers; charset=us-ascii", strings.Split(original, "\n\n")[0]), full, false},
		{"type in capitals", parts(strings.ToUpper(arf[:16])+`; Report-Type="FEEDBACK-REPORT"`, "Message/Feedback-Report", report, "Message/RFC822", original), full, false},
		{"mailbox file", "From MAILER Fri Mar 20 10:00:00 2026\n" + parts(arf, "message/feedback-report", report, "message/rfc822", original), full, false},
		{"CR LF", strings.ReplaceAll(parts(arf, "message/feedback-report", report, "message/rfc822", original), "\n", "\r\n"), full, false},
		{"cut short", strings.TrimSuffix(parts(arf, "message/feedback-report", report, "message/rfc822", original), "--b:1--\n"), full, false},
		{"base64", parts(arf, "message/feedback-report\nContent-Transfer-Encoding: base64", base64.StdEncoding.EncodeToString([]byte(report)), "message/rfc822", original), full, false},
		{"quoted-printable", parts(arf, "message/feedback-report", report, "message/rfc822\nContent-Transfer-Encoding: quoted-printable", strings.Replace(original, "alice@", "=\nalice=40", 1)), full, false},
		{"in a list's wrapping", parts("multipart/mixed", "multipart/report; report-type=feedback-report; boundary=inner",
			"--inner\nContent-Type: message/feedback-report\n\n"+report+"\n--inner\nContent-Type: message/rfc822\n\n"+original+"\n--inner--\n"), full, false},
		{"Microsoft's form", parts("multipart/mixed", "text/plain", "complaint about message from 203.0.113.9", "message/rfc822\nContent-Disposition: attachment", original), attached, false},
		{"attached to nothing", "Content-Type: message/rfc822\n\n" + original, attached, false},
		{"report without the message", parts(arf, "message/feedback-report", "Feedback-Type: Abuse\nSource-IP: [203.0.113.9]\n"), Complaint{Type: "abuse", Source: netip.MustParseAddr("203.0.113.9")}, false},
		{"report without a type", parts(arf, "message/feedback-report", "Version: 1\n"), Complaint{Type: "unnamed"}, false},
		{"the first message counts", parts(arf, "message/feedback-report", "Feedback-Type: not-spam\n", "message/rfc822", original, "message/rfc822", "Message-ID: <2@x>\n\n", "message/feedback-report", report),
			Complaint{Type: "not-spam", MessageID: "<1@shop.test>", Hops: hops}, false},
		{"control characters", parts(arf, "message/feedback-report", "Feedback-Type: abuse\nUser-Agent: a\x1b[31m\x00\u202eb\xff\n"), Complaint{Type: "abuse", Agent: "a[31mb"}, false},
		{"too long", parts(arf, "message/feedback-report", "Feedback-Type: abuse\nUser-Agent: "+strings.Repeat("ä", 9000)+"\n"), Complaint{Type: "abuse", Agent: strings.Repeat("ä", 128)}, false},
		{"damaged header", parts("multipart/mixed", "message/rfc822", "no field\n and its end\n: nameless\nReceived by nobody\n"+original), attached, false},

		{"a bounce", parts("multipart/report; report-type=delivery-status", "message/delivery-status", "Status: 5.1.1\n", "message/rfc822", original), Complaint{}, true},
		{"a letter", "From: <a@b.test>\nContent-Type: text/plain\n\n" + report, Complaint{}, true},
		{"nothing attached", parts("multipart/alternative", "text/plain", original, "text/html", original), Complaint{}, true},
		{"nothing", "", Complaint{}, true},
		{"no boundary", "Content-Type: multipart/report; report-type=feedback-report\n\n" + report, Complaint{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseComplaint(strings.NewReader(tt.text))
			if (err != nil) != tt.none || err != nil && !errors.Is(err, ErrNoComplaint) {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// What is deeper, later or longer than anybody honest writes is not there.
func TestParseComplaintLimits(t *testing.T) {
	deep := "Content-Type: message/rfc822\n\n" + original
	for i := range maxDepth + 1 {
		deep = fmt.Sprintf("Content-Type: multipart/mixed; boundary=x%d\n\n--x%[1]d\n%s\n--x%[1]d--\n", i, deep)
	}
	many := parts("multipart/mixed", append(slicesRepeat([]string{"text/plain", "x"}, 30), "message/rfc822", original)...)
	long := "X: " + strings.Repeat("x", maxHeader) + "\nContent-Type: message/rfc822\n\n" + original
	for name, text := range map[string]string{"deep": deep, "many": many, "long": long} {
		if c, err := ParseComplaint(strings.NewReader(text)); !errors.Is(err, ErrNoComplaint) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	lines := strings.Repeat("Received: by mx.test id ABCDEF; Fri, 20 Mar 2026 10:00:00 +0000\n", 1000)
	c, err := ParseComplaint(strings.NewReader(parts("multipart/mixed", "message/rfc822", lines+"Message-ID: <1@x>\n\n")))
	if err != nil || len(c.Hops) != maxHops || c.MessageID != "<1@x>" {
		t.Errorf("%d hops, id %q, %v", len(c.Hops), c.MessageID, err)
	}
	broken := errors.New("broken pipe")
	if _, err := ParseComplaint(io.MultiReader(strings.NewReader("Content-Type: text/plain\n"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a failing reader: %v", err)
	}
}

func slicesRepeat(of []string, n int) (all []string) {
	for range n {
		all = append(all, of...)
	}
	return all
}

func TestParseReceived(t *testing.T) {
	const at = "; Fri, 20 Mar 2026 10:00:00 +0000"
	doubts := map[string]bool{"a sender who writes an id": true, "and swallows ours": true, "without quotes": true, "two ids": true, "unmatched": true}
	for _, tt := range []struct{ name, line, by, id string }{
		{"Postfix", "from pc (h [192.0.2.9]) (Authenticated sender: alice) by mx1.h.test (Postfix) with ESMTPSA id 4GZZk45QRtz1cZ for <r@ok.test>" + at + " (UTC)", "mx1.h.test", "4GZZk45QRtz1cZ"},
		{"Postfix, local", "by mx1.h.test (Postfix, from userid 33) id AB12CD34EF" + at, "mx1.h.test", "AB12CD34EF"},
		{"Exim", "from [192.0.2.9] (helo=pc) by mx2.h.test with esmtpsa (TLS1.3) tls TLS_AES_256_GCM_SHA384 (Exim 4.96) (envelope-from <a@b.test>) id 1w3XyZ-0001aB-2C for r@ok.test" + at, "mx2.h.test", "1w3XyZ-0001aB-2C"},
		{"Exim, local", "from www-data by mx2.h.test with local (Exim 4.98) (envelope-from <a@b.test>) id 1w3XyZ-00000001aBc-2Cde" + at, "mx2.h.test", "1w3XyZ-00000001aBc-2Cde"},
		{"a client that is called by", "from by (x) by mx1.h.test with SMTP id ABCDEF" + at, "mx1.h.test", "ABCDEF"},
		{"no id", "from a by b with SMTP" + at, "", ""},
		{"no server", "from a id ABCDEF" + at, "", ""},
		{"no time", "by b id ABCDEF", "", ""},
		{"no such time", "by b id ABCDEF; yesterday", "", ""},
		{"strange id", "by b id 10.1/2" + at, "", ""},
		{"a sender who writes an id", `from x by mx2.h.test with esmtp (Exim 4.96) (envelope-from <"a) id FORGED "@d.test>) id 1w3XyZ-0001aB-2C` + at, "", ""},
		{"and swallows ours", `from x by mx2.h.test with esmtp (Exim 4.96) (envelope-from <"a) id FORGED (("@d.test>) id 1w3XyZ-0001aB-2C for <"x)"@e.test>` + at, "", ""},
		{"without quotes", `from x by mx2.h.test (sender a) id FORGED (() id 1w3XyZ-0001aB-2C` + at, "", ""},
		{"two ids", "by b id ABCDEF id ABCDEE" + at, "", ""},
		{"unmatched", "by b) id ABCDEF" + at, "", ""},
	} {
		h, ok, doubtful := parseReceived(tt.line)
		if _, want := doubts[tt.name]; doubtful != want {
			t.Errorf("%s: doubtful is %t", tt.name, doubtful)
		}
		if ok != (tt.id != "") || ok && (h.By != tt.by || h.ID != tt.id || !h.Time.Equal(hops[1].Time)) {
			t.Errorf("%s: %+v, %t", tt.name, h, ok)
		}
	}
}

// A sender with a quoted address and a Received line of his own has our line
// doubted; his own is not believed for that.
func TestNothingOlderThanADoubtfulLine(t *testing.T) {
	ours := strings.Replace(original, "with ESMTPSA id 4GZZk45QRtz1cZ", `(Exim 4.96) (envelope-from <"a b"@d.test>) id 1w3XyZ-0001aB-2C`, 1)
	forged := strings.Replace(ours, "From: <alice", "Received: by mx1 id 1w3XyZ-0001aB-2D; Fri, 20 Mar 2026 09:59:59 +0000\nFrom: <alice", 1)
	c, err := ParseComplaint(strings.NewReader(parts(arf, "message/feedback-report", report, "message/rfc822", forged)))
	if err != nil || len(c.Hops) != 1 || c.Hops[0] != hops[0] {
		t.Errorf("hops %+v, %v; want the receiver's alone", c.Hops, err)
	}
}

func TestIsBlame(t *testing.T) {
	for kind, want := range map[string]bool{"": true, "abuse": true, "fraud": true, "virus": true, "not-spam": false, "auth-failure": false, "other": false, "unnamed": false} {
		if (Complaint{Type: kind}).IsBlame() != want {
			t.Errorf("%q: want %t", kind, want)
		}
	}
}

// Whatever is sent in, what comes out is bounded and can be shown.
func FuzzParseComplaint(f *testing.F) {
	f.Add([]byte(parts(arf, "text/plain", "x", "message/feedback-report", report, "message/rfc822", original)))
	f.Add([]byte(parts("multipart/mixed", "message/rfc822", original)))
	f.Add([]byte("Content-Type: multipart/report; report-type=feedback-report; boundary=\"\"\n\n--\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseComplaint(strings.NewReader(string(text)))
		if err != nil {
			if !errors.Is(err, ErrNoComplaint) || !cmp.Equal(c, Complaint{}, cmpopts.EquateComparable(netip.Addr{})) {
				t.Fatalf("%+v, %v", c, err)
			}
			return
		}
		for _, s := range []string{c.Type, c.Agent, c.Sender, c.Domain, c.Arrival, c.MessageID} {
			if len(s) > maxText || s != clean(s) {
				t.Fatalf("%q", s)
			}
		}
		if len(c.Hops) > maxHops {
			t.Fatalf("%d hops", len(c.Hops))
		}
		for _, h := range c.Hops {
			if !isID(h.ID) || h.By == "" || len(h.By) > maxText {
				t.Fatalf("hop %+v", h)
			}
		}
	})
}
