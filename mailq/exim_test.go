package mailq

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// eximAt puts Exim's stamp before lines.
func eximAt(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("2026-11-22 05:33:39 " + l + "\n")
	}
	return b.String()
}

const (
	exim1 = "1xV0Cp-0005Jj-0V"
	exim2 = "1xV0Cr-0005Kl-0K"
	exim3 = "1xV0Cp-0000000Jj9a-0VXY" // 4.97 and later
)

func TestExim(t *testing.T) {
	const arrival = exim1 + ` <= alice@shop.test H=(vm) [127.0.0.1]:45950 I=[127.0.0.1]:11587 P=esmtpa A=dovecot_plain:alice@shop.test S=408 id=2026@vm T="Test ok" from <alice@shop.test> for r1@ok.test r2@ok.test`
	tests := []struct {
		name string
		dir  *Directory
		log  string
		want string
	}{
		{name: "one message", log: eximAt(arrival,
			exim1+` => r1@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=426 H=127.0.0.1 [127.0.0.1]:12501 I=[127.0.0.1]:1 C="250 2.0.0 Ok" QT=0s DT=0s`,
			exim1+` -> r2@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=426 H=127.0.0.1 [127.0.0.1]:12501 C="250 2.0.0 Ok" QT=0s DT=0s`, exim1+" Completed"),
			want: `
submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2
delivered alice@shop.test 1xV0Cp-0005Jj-0V to=ok.test ok
delivered alice@shop.test 1xV0Cp-0005Jj-0V to=ok.test ok
removed alice@shop.test 1xV0Cp-0005Jj-0V`},
		{name: "exim-no-for", log: eximAt(strings.TrimSuffix(arrival, " for r1@ok.test r2@ok.test"),
			exim1+` => r1@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=426 H=mx.ok.test [192.0.2.1] C="250 Ok"`,
			exim1+` ** r2@hard.test F=<alice@shop.test> R=outside T=remote_smtp H=mx.hard.test [192.0.2.2]: SMTP error from remote mail server after RCPT TO:<r2@hard.test>: 550 5.1.1 User unknown DT=0s`),
			want: `
submitted alice@shop.test 1xV0Cp-0005Jj-0V counts
delivered alice@shop.test 1xV0Cp-0005Jj-0V new=1 to=ok.test ok
bounced alice@shop.test 1xV0Cp-0005Jj-0V new=1 to=hard.test recipient-unknown`},
		{name: "exim-both-id-lengths", log: eximAt(arrival, strings.ReplaceAll(arrival, exim1, exim3), exim3+" Completed"),
			want: `
submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2
submitted alice@shop.test 1xV0Cp-0000000Jj9a-0VXY counts rcpts=2 new=2
removed alice@shop.test 1xV0Cp-0000000Jj9a-0VXY`},
		{name: "exim-cutthrough-first", log: eximAt(
			exim1+` >> r1@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=426 H=mx.ok.test [192.0.2.1] C="250 Ok"`, arrival, exim1+" Completed"),
			want: `
delivered - 1xV0Cp-0005Jj-0V new=1 to=ok.test ok
submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2
removed alice@shop.test 1xV0Cp-0005Jj-0V`},
		{name: "exim-cwd-joined by pid", log: eximAt("[11] cwd=/home/a/public_html/wp 5 args: /usr/sbin/sendmail -t -i -f www@shop.test", "[12] cwd=/home/b/www/shop 3 args: /usr/sbin/sendmail -t -i",
			"[12] "+exim2+` <= b@shop.test U=b P=local S=345 T="php" from <b@shop.test> for a@ok.test`, "[11] "+exim1+` <= www@shop.test U=a P=local S=345 T="php" from <www@shop.test> for a@ok.test`),
			want: `
submitted script:/home/b/www/shop 1xV0Cr-0005Kl-0K counts rcpts=1 new=1
submitted script:/home/a/public_html/wp 1xV0Cp-0005Jj-0V counts rcpts=1 new=1`},
		{name: "exim-cwd-joined within the second", log: eximAt("cwd=/home/a/public_html/wp 5 args: /usr/sbin/sendmail -t -i", exim1+` <= www@shop.test U=www-data P=local S=345 for a@ok.test`,
			"cwd=/home/a/public_html/wp 5 args: /usr/sbin/sendmail -t -i", "cwd=/home/b/public_html/wp 5 args: /usr/sbin/sendmail -t -i",
			exim2+` <= b@shop.test U=b P=local S=345 for a@ok.test`, exim3+` <= www@shop.test U=www-data P=local S=345 for a@ok.test`),
			want: `
submitted script:/home/a/public_html/wp 1xV0Cp-0005Jj-0V counts rcpts=1 new=1
submitted script:/home/b/public_html/wp 1xV0Cr-0005Kl-0K counts rcpts=1 new=1
submitted script:/home/a/public_html/wp 1xV0Cp-0000000Jj9a-0VXY counts rcpts=1 new=1`},
		{name: "exim-cwd-joined: a later second is another matter", log: "2026-11-22 05:33:30 cwd=/home/a/public_html/wp 5 args: /usr/sbin/sendmail -t -i\n" +
			eximAt(exim1+` <= www@shop.test U=shopuser P=local S=345 for a@ok.test`),
			want: `submitted user:shopuser 1xV0Cp-0005Jj-0V counts rcpts=1 new=1`},
		{name: "exim-cwd-joined: Exim's own children and our calls are no scripts", log: eximAt(
			"cwd=/srv/exim/spool 5 args: /usr/sbin/exim4 -Mc "+exim2, "cwd=/home/a/www 2 args: /usr/sbin/exim -bp", "cwd=/home/a/www 3 args: exim -Mf "+exim2, "cwd=/ 3 args: /usr/sbin/exim4 -bd -q30m",
			"cwd=/var/spool/exim 7 args: /usr/sbin/exim -t -oem -oi -f <> -E"+exim2,
			exim1+` <= www@shop.test U=shopuser P=local S=345 for a@ok.test`),
			want: `submitted user:shopuser 1xV0Cp-0005Jj-0V counts rcpts=1 new=1`},
		{name: "a home or /tmp says less than the user", log: eximAt("cwd=/home/shopuser 3 args: /usr/sbin/sendmail -t", exim1+` <= s@shop.test U=shopuser P=local S=345 for a@ok.test`, "cwd=/tmp 3 args: /usr/sbin/sendmail -t", exim2+` <= s@shop.test U=shopuser P=local S=345 for a@ok.test`),
			want: `
submitted user:shopuser 1xV0Cp-0005Jj-0V counts rcpts=1 new=1
submitted user:shopuser 1xV0Cr-0005Kl-0K counts rcpts=1 new=1`},
		{name: "a bounce is nobody's", log: eximAt("[9] cwd=/home/u/spool 9 args: /usr/sbin/exim4 -t -oem -oi -f <> -E"+exim1, "[9] "+exim2+` <= <> R=1xV0Cp-0005Jw-1T U=Debian-exim P=local S=2206 T="Mail delivery failed" from <> for alice@shop.test`,
			exim2+` => alice <alice@shop.test> F=<> R=inside T=inbox S=1928 C="250 2.0.0 Saved" QT=0s DT=0s`),
			want: `
submitted - 1xV0Cr-0005Kl-0K counts rcpts=1 new=1
delivered - 1xV0Cr-0005Kl-0K to=shop.test ok`},
		{name: "a redirected delivery of a stranger's mail", log: eximAt(exim1+` <= x@far.test H=mx.far.test [192.0.2.9]:25 P=esmtp S=419 id=1@far for box@shop.test`,
			exim1+` => out@elsewhere.test <Box@shop.test> F=<x@far.test> R=dnslookup T=remote_smtp S=438 H=mx.elsewhere.test [203.0.113.1] C="250 ok" DT=1s`,
			exim1+` => box <box@shop.test> F=<x@far.test> R=inside T=inbox S=438 C="250 Saved"`),
			want: `
submitted - 1xV0Cp-0005Jj-0V counts rcpts=1 new=1
delivered forward:box@shop.test 1xV0Cp-0005Jj-0V counts rcpts=1 new=1 to=elsewhere.test ok
delivered - 1xV0Cp-0005Jj-0V new=1 to=shop.test ok`},
		{name: "deferrals", log: eximAt(exim1+` <= a@shop.test H=(vm) [127.0.0.1]:1 P=esmtpsa X=TLS1.3:ECDHE:256 CV=no A=dovecot_login:a@shop.test S=420 id=1@vm for r1@soft.test`,
			exim1+` == r1@soft.test R=outside T=remote_smtp defer (-44) H=mx.soft.test [192.0.2.1]:25 DT=0s: SMTP error from remote mail server after RCPT TO:<r1@soft.test>: 451 4.7.1 Greylisted, try again later`,
			exim1+` == r1@soft.test routing defer (-52) DT=0s: retry time not reached`, exim1+` == r1@soft.test R=outside T=remote_smtp defer (-53): retry time not reached for any host for 'soft.test'`,
			exim1+` == r1@soft.test R=outside T=remote_smtp defer (111): Connection refused DT=0s`),
			want: `
submitted a@shop.test 1xV0Cp-0005Jj-0V counts rcpts=1 new=1
deferred a@shop.test 1xV0Cp-0005Jj-0V to=soft.test greylisted
deferred a@shop.test 1xV0Cp-0005Jj-0V to=soft.test network`},
		{name: "frozen and thawed", log: eximAt(arrival, exim1+" frozen by ACL", exim1+" Message is frozen", exim1+" unfrozen by root", exim1+" removed by root"),
			want: `
submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2
held alice@shop.test 1xV0Cp-0005Jj-0V
released alice@shop.test 1xV0Cp-0005Jj-0V
removed alice@shop.test 1xV0Cp-0005Jj-0V`},
		{name: "our own limit is no bounce", log: eximAt(arrival, exim1+` ** r1@ok.test F=<alice@shop.test> R=enforce_mail_permissions: Domain shop.test has exceeded the max emails per hour (51/50 (102%)) allowed. Message discarded.`),
			want: `
submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2
refused alice@shop.test 1xV0Cp-0005Jj-0V to=ok.test local-policy`},
		{name: "cPanel names the user of a program that speaks SMTP", log: eximAt(exim1+` <= x@shop.test H=localhost (web) [127.0.0.1]:3 P=esmtp S=9 id=1@web for r1@ok.test`,
			exim1+" Sender identification U=shopuser D=shop.test S=x@shop.test", exim1+` => r1@ok.test R=dnslookup T=remote_smtp H=mx.ok.test [203.0.113.5] C="250 ok"`),
			want: `
submitted - 1xV0Cp-0005Jj-0V counts rcpts=1 new=1
delivered user:shopuser 1xV0Cp-0005Jj-0V counts rcpts=1 new=1 to=ok.test ok`},
		{name: "refused and failed", log: eximAt(
			`H=(vm) [127.0.0.1]:43976 I=[127.0.0.1]:587 X=TLS1.3:X:256 CV=no F=<carol@shop.test> A=dovecot_plain:carol@shop.test rejected RCPT <r1@ok.test>: locked`,
			`H=(vm) [127.0.0.1]:43976 F=<"x A=dovecot_plain:victim@shop.test rejected RCPT <a@b>: y"@evil.test> temporarily rejected RCPT <r1@ok.test>: later`,
			exim1+` H=mx.far.test (vm) [192.0.2.9]:1 F=<x@far.test> rejected after DATA: no`,
			`dovecot_plain authenticator failed for (vm) [192.0.2.8]:46012 I=[127.0.0.1]:11587: 535 Incorrect authentication data (set_id=alice@shop.test)`,
			`dovecot_login authenticator failed for mx.far.test (vm) [192.0.2.9]:46012: 535 Incorrect authentication data`),
			want: `
refused carol@shop.test to=ok.test local-policy
refused - to=ok.test local-policy
refused - local-policy
login-failed alice@shop.test
login-failed -`},
		{name: "through syslog", log: "Nov 22 05:33:39 mx2 exim[29786]: 2026-11-22 05:33:39 " + arrival + "\nNov 22 05:33:40 mx2 exim[29787]: " + exim1 + " Completed\n",
			want: `
submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2
removed alice@shop.test 1xV0Cp-0005Jj-0V`},
		{name: "a stamp with milliseconds, zone and pid", log: "2026-11-22 05:33:39.123 +0200 [77] " + arrival + "\n",
			want: `submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2`},
		{name: "smtp_mailauth", log: eximAt(strings.Replace(arrival, "A=dovecot_plain:alice@shop.test", "A=dovecot_plain:alice@shop.test:other@shop.test", 1)),
			want: `submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=2 new=2`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newParser()
			if tt.dir != nil {
				p.Directory = tt.dir
			}
			got := strings.TrimSpace(briefs(events(p, tt.log)))
			if diff := cmp.Diff(got, strings.TrimSpace(tt.want)); diff != "" {
				t.Errorf("-got +want\n%s", diff)
			}
		})
	}
}

// What strangers write gives nobody a login, and no address but their own.
func TestEximHostileText(t *testing.T) {
	own := netip.MustParseAddr("198.51.100.7")
	tests := []struct {
		name, line string
		unsure     bool // nobody is charged, nor is an address believed
	}{
		{name: "exim-quoted-sender-forges-auth", line: `<= "a A=dovecot_login:victim@shop.test P=esmtpsa b"@evil.test H=(x) [198.51.100.7]:1 P=esmtp S=1 id=1@x for r@shop.test`},
		{name: "helo-looks-like-field", line: `<= x@evil.test H=(x] A=dovecot_login:victim@shop.test P=esmtpa [1.2.3.4]) [198.51.100.7]:1 P=esmtp S=1 id=1@x`},
		{name: "helo-looks-like-field: a literal", line: `<= x@evil.test H=([1.2.3.4]) [198.51.100.7]:1 I=[192.0.2.1]:25 P=esmtp S=1 id=1@x`},
		{name: "a HELO that imitates the whole line", line: `<= x@evil.test H=(x) [1.2.3.4]:1 P=esmtpa A=dovecot_login:victim@shop.test S=9) [198.51.100.7]:1 P=esmtp S=1`},
		{name: "a HELO with an id of its own", line: `<= x@evil.test H=(x) [1.2.3.4]:1 P=esmtpa A=dovecot_login:victim@shop.test S=9 id=q) [198.51.100.7]:1 P=esmtp S=1 id=1@x`, unsure: true},
		{name: "message id", line: `<= x@evil.test H=(x) [198.51.100.7]:1 P=esmtp S=1 id=1@x P=esmtpa A=dovecot_login:victim@shop.test`},
		{name: "A= without authentication", line: `<= x@evil.test H=(x) [198.51.100.7]:1 P=esmtp A=dovecot_login:victim@shop.test S=1 id=1@x`},
		{name: "subject-looks-like-fields", line: `<= x@evil.test H=(x) [198.51.100.7]:1 P=esmtp S=1 id=1@x T="x\" A=dovecot_login:victim@shop.test P=esmtpa for z@ok.test" from <x@evil.test> for r@shop.test`},
		{name: "bracketed-subject", line: `<= x@evil.test H=(x) [198.51.100.7]:1 P=esmtp S=1 id=1@x T="[1.2.3.4]) [1.2.3.4]:1" from <x@evil.test> for r@shop.test`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newParser()
			evs := events(p, eximAt(exim1+" "+tt.line))
			if len(evs) != 1 || evs[0].Kind != Submitted {
				t.Fatalf("got %s, want one message", briefs(evs))
			}
			if evs[0].Account != "" {
				t.Errorf("charged to %q, want nobody", evs[0].Account)
			}
			if got := evs[0].Client; !tt.unsure && got != own || tt.unsure && got.IsValid() {
				t.Errorf("client %v, want %v (unsure: %v)", got, own, tt.unsure)
			}
			if (p.Stats().Ambiguous > 0) != tt.unsure {
				t.Errorf("%d ambiguous lines, want some: %v", p.Stats().Ambiguous, tt.unsure)
			}
		})
	}
}

func TestEximArrivalFields(t *testing.T) {
	tests := []struct {
		name, line      string
		subject, sender string
		rcpts           int
		size            int
	}{
		{name: "exim-T-two-meanings", line: `<= a@shop.test H=(vm) [192.0.2.1]:1 P=esmtpa A=l:a@shop.test S=482 id=1@vm T="TLS: quote \"x\" <b> r=1" from <a@shop.test> for b@ok.test c@ok.test`, subject: `TLS: quote "x" <b> r=1`, sender: "a@shop.test", rcpts: 2, size: 482},
		{name: "subject-looks-like-fields", line: `<= a@shop.test H=(vm) [192.0.2.1]:1 P=esmtpa A=l:a@shop.test S=482 id=1@vm T="x\" A=y for z" from <a@shop.test> for b@ok.test`, subject: `x" A=y for z`, sender: "a@shop.test", rcpts: 1, size: 482},
		{name: "a subject that ends like a list, and no list", line: `<= a@shop.test U=a P=local S=5 T="bill for z@ok.test"`, subject: "bill for z@ok.test", sender: "a@shop.test", size: 5},
		{name: "octal and a line that goes on", line: `<= a@shop.test U=a P=local S=5 T="Gr\303\274\303\237e\n x" for b@ok.test`, subject: "Grüße  x", sender: "a@shop.test", rcpts: 1, size: 5},
		{name: "a quoted recipient", line: `<= <> U=a P=local S=5 for "a b"@ok.test c@ok.test`, rcpts: 2, size: 5},
		{name: "brackets", line: `<= a@shop.test U=a P=local S=5 T="[1.2.3.4] hello" from <a@shop.test> for b@ok.test`, subject: "[1.2.3.4] hello", sender: "a@shop.test", rcpts: 1, size: 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			evs := events(newParser(), eximAt(exim1+" "+tt.line))
			if len(evs) != 1 {
				t.Fatalf("got %d events, want 1", len(evs))
			}
			ev := evs[0]
			if ev.Subject != tt.subject || ev.Sender != tt.sender || ev.Rcpts != tt.rcpts || len(ev.New) != tt.rcpts || ev.Size != tt.size {
				t.Errorf("subject %q sender %q rcpts %d new %d size %d, want %q %q %d %d %d", ev.Subject, ev.Sender, ev.Rcpts, len(ev.New), ev.Size, tt.subject, tt.sender, tt.rcpts, tt.rcpts, tt.size)
			}
		})
	}
}

// The address that mail left from is what Exim wrote where it writes it: a
// recipient, whose quotes Exim leaves out, a reply and a proxy make none.
func TestEximOutgoingInterface(t *testing.T) {
	const arrival = exim1 + ` <= alice@shop.test H=(vm) [198.51.100.7]:45950 I=[192.0.2.1]:587 P=esmtpa A=dovecot_plain:alice@shop.test S=408 for r1@ok.test`
	for _, tt := range []struct{ name, line, want string }{
		{"with ports", `=> r1@ok.test F=<alice@shop.test> R=outside T=remote_smtp S=426 H=mx.ok.test [192.0.2.7]:25 I=[203.0.113.9]:39966 X=TLS1.3:x:256 CV=yes C="250 2.0.0 Ok" QT=0s DT=0s`, "203.0.113.9"},
		{"a local part that begins with a quote", `=> "x@evil.test F=<a@b> R=r T=remote_smtp H=mx.evil [198.51.100.6] C="250 T=t H=a [198.51.100.1]:25 I=[203.0.113.9]:1 ok"`, ""},
		{"without ports", `=> r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7] I=[203.0.113.9] C="250 2.0.0 Ok"`, "203.0.113.9"},
		{"the port of 4.93", `=> r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]:25 I=[203.0.113.9]39966 C="250 2.0.0 Ok"`, "203.0.113.9"},
		{"a later message of a connection", `-> r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]* I=[203.0.113.9]:39966* C="250 2.0.0 Ok"`, "203.0.113.9"},
		{"IPv6, DNSSEC", `=> r1@ok.test R=outside T=remote_smtp H=mx.ok.test DS [2001:db8:1::7]:25 I=[2001:db8::9]:39966 C="250 2.0.0 Ok"`, "2001:db8::9"},
		{"deferred", `== r1@ok.test R=outside T=remote_smtp defer (-44) H=mx.ok.test [192.0.2.7]:25 I=[203.0.113.9]:42784 DT=0s: SMTP error from remote mail server after RCPT TO:<r1@ok.test>: 451 4.7.1 no`, "203.0.113.9"},
		{"bounced", `** r1@ok.test F=<alice@shop.test> R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]:25 I=[203.0.113.9]:59898: SMTP error from remote mail server after RCPT TO:<r1@ok.test>: 550 5.1.1 no`, "203.0.113.9"},
		{"incoming_interface is off", `=> r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7] C="250 I=[203.0.113.66]:25 Ok"`, ""},
		{"a reply", `** r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]: SMTP error from remote mail server after RCPT TO:<r1@ok.test>: 550 H=a [192.0.2.7] I=[203.0.113.66]:25`, ""},
		{"a message of a transport", `** r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]: I=[203.0.113.66]:25 T=x`, ""},
		{"a recipient", `=> a@b T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25 C="@ok.test <"a@b T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25 C=\""@ok.test> R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]`, ""},
		{"a recipient that has the rest cut off", `=> a@b T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25 ` + strings.Repeat("x", 8000), ""},
		{"a recipient of a mailbox here", `=> a@b T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25 <"a@b T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25 "@shop.test> R=inside T=inbox`, ""},
		{"a pipe", `=> |/bin/x T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25 <bob@shop.test> R=userforward`, ""},
		{"a proxy", `=> r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]:25 PRX=[192.0.2.99]:1080 I=[10.0.0.1]:39966 C="250 Ok"`, ""},
		{"no address", `=> r1@ok.test R=outside T=remote_smtp H=mx.ok.test [192.0.2.7]:25 I=[example.com]:39966 C="250 Ok"`, ""},
	} {
		evs := events(newParser(), eximAt(arrival, exim1+" "+tt.line))
		if len(evs) != 2 {
			t.Errorf("%s: %d events, want 2", tt.name, len(evs))
			continue
		}
		if got := evs[1].From; tt.want == "" && got.IsValid() || tt.want != "" && got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s: left from %v, want %q", tt.name, got, tt.want)
		}
	}
}
