package mailq

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at puts a stamp and a host before lines of Postfix.
func at(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("Nov 22 05:28:20 mx1 " + l + "\n")
	}
	return b.String()
}

// The lines of one message, for tests in which they are not the point.
func clientLine(id, login string) string {
	s := "postfix/submission/smtpd[4345]: " + id + ": client=pc.isp.test[198.51.100.7]"
	if login != "" {
		s += ", sasl_method=PLAIN, sasl_username=" + login
	}
	return s
}

func activeLine(id, sender string, rcpts int) string {
	return fmt.Sprintf("postfix/qmgr[4329]: %s: from=<%s>, size=383, nrcpt=%d (queue active)", id, sender, rcpts)
}

func sentLine(id, to string) string {
	return "postfix/smtp[4707]: " + id + ": to=<" + to + ">, relay=mx.ok.test[203.0.113.5]:25, delay=0.1, delays=0.01/0.03/0.06/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)"
}

const (
	id1 = "4jXK971kgrz1SRpG"
	id2 = "4jXK9728HSz1SRpG"
	id3 = "4jXK972Fstz1SRlk"
)

func TestPostfix(t *testing.T) {
	tests := []struct {
		name string
		dir  *Directory
		log  string
		want string // one line an event, see brief
	}{
		{name: "one message", log: at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			activeLine(id1, "alice@shop.test", 2), sentLine(id1, "r1@ok.test"), sentLine(id1, "r2@ok.test"), "postfix/qmgr[4329]: "+id1+": removed"),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
removed alice@shop.test 4jXK971kgrz1SRpG`},
		{name: "postfix-queue-active-twice", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1),
			deferredLine(id1, "r1@soft.test"), activeLine(id1, "alice@shop.test", 1), deferredLine(id1, "r1@soft.test"), activeLine(id1, "alice@shop.test", 1)),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
deferred alice@shop.test 4jXK971kgrz1SRpG new=1 to=soft.test greylisted
deferred alice@shop.test 4jXK971kgrz1SRpG to=soft.test greylisted`},
		{name: "postfix-client-is-not-accepted", log: at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			"postfix/submission/smtpd[4345]: "+id1+": reject: END-OF-MESSAGE from pc.isp.test[198.51.100.7]: 554 5.7.1 <END-OF-MESSAGE>: End-of-data rejected: locked; from=<alice@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm>",
			clientLine(id2, "alice@shop.test")),
			want: `refused alice@shop.test 4jXK971kgrz1SRpG to=ok.test local-policy`},
		{name: "a message discarded", log: at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			"postfix/cleanup[1]: "+id1+": discard: header Subject: hello from pc.isp.test[198.51.100.7]; from=<alice@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm>: gone"),
			want: `refused alice@shop.test 4jXK971kgrz1SRpG to=ok.test local-policy`},
		{name: "postfix-held-has-no-qmgr", log: at(clientLine(id1, "carol@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			"postfix/cleanup[1163]: "+id1+": milter-hold: END-OF-MESSAGE from localhost[127.0.0.1]: milter triggers HOLD action; from=<carol@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm>",
			"postfix/postsuper[9]: "+id1+": released from hold", activeLine(id1, "carol@shop.test", 1), sentLine(id1, "r1@ok.test")),
			want: `
held carol@shop.test 4jXK971kgrz1SRpG counts rcpts=1
released carol@shop.test 4jXK971kgrz1SRpG
submitted carol@shop.test 4jXK971kgrz1SRpG rcpts=1
delivered carol@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok`},
		{name: "hold decided at RCPT, before there is an id", log: at(
			"postfix/submission/smtpd[4345]: NOQUEUE: hold: RCPT from pc.isp.test[198.51.100.7]: <carol@shop.test>: SASL login name triggers HOLD action; from=<carol@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm>",
			clientLine(id1, "carol@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			clientLine(id2, "carol@shop.test"), "postfix/cleanup[1]: "+id2+": message-id=<2@vm>"),
			want: `held carol@shop.test 4jXK971kgrz1SRpG counts rcpts=1`},
		{name: "hold decided at the end of the message", log: at(clientLine(id1, "carol@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			"postfix/submission/smtpd[4345]: "+id1+": hold: END-OF-MESSAGE from pc.isp.test[198.51.100.7]: <END-OF-MESSAGE>: End-of-data triggers HOLD action; from=<carol@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm>"),
			want: `held carol@shop.test 4jXK971kgrz1SRpG counts rcpts=1`},
		{name: "a filter before the queue", log: at(
			"postfix/submission/smtpd[1]: NOQUEUE: client=pc.isp.test[198.51.100.7], sasl_method=PLAIN, sasl_username=alice@shop.test",
			"postfix/behind/smtpd[2]: "+id1+": client=localhost[127.0.0.1], orig_client=pc.isp.test[198.51.100.7]", activeLine(id1, "alice@shop.test", 1),
			"postfix/behind/smtpd[2]: "+id2+": client=localhost[127.0.0.1], orig_client=other.isp.test[198.51.100.9]", activeLine(id2, "x@far.test", 1),
			"postfix/submission/smtpd[3]: NOQUEUE: client=pc.isp.test[198.51.100.7], sasl_method=PLAIN, sasl_username=bob@shop.test",
			"postfix/behind/smtpd[2]: "+id3+": client=localhost[127.0.0.1], orig_client=pc.isp.test[198.51.100.7]", activeLine(id3, "alice@shop.test", 1)),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
submitted - 4jXK9728HSz1SRpG counts rcpts=1
submitted - 4jXK972Fstz1SRlk counts rcpts=1`},
		{name: "postfix-short-id-reused", log: at(clientLine("1795998C2C7", "alice@shop.test"), activeLine("1795998C2C7", "alice@shop.test", 1),
			sentLine("1795998C2C7", "r1@ok.test"), "postfix/qmgr[4329]: 1795998C2C7: removed") +
			strings.ReplaceAll(at(clientLine("1795998C2C7", "bob@shop.test"), activeLine("1795998C2C7", "bob@shop.test", 1), sentLine("1795998C2C7", "r1@ok.test")), "05:28:20", "05:28:21"),
			want: `
submitted alice@shop.test 1795998C2C7 counts rcpts=1
delivered alice@shop.test 1795998C2C7 new=1 to=ok.test ok
removed alice@shop.test 1795998C2C7
submitted bob@shop.test 1795998C2C7 counts rcpts=1
delivered bob@shop.test 1795998C2C7 new=1 to=ok.test ok`},
		{name: "postfix-syslog-names", log: at("postfix/submission/smtpd[1]: "+id1+": client=a.test[192.0.2.1], sasl_method=PLAIN, sasl_username=alice@shop.test",
			"postfix/sender-cleanup/cleanup[2]: "+id1+": message-id=<1@vm>", activeLine(id1, "alice@shop.test", 1), strings.Replace(sentLine(id1, "r1@ok.test"), "postfix/smtp", "postfix-out/smtp", 1),
			"postfix-submission/smtpd[1]: "+id2+": client=a.test[192.0.2.1], sasl_method=PLAIN, sasl_username=bob@shop.test", activeLine(id2, "bob@shop.test", 1)),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
submitted bob@shop.test 4jXK9728HSz1SRpG counts rcpts=1`},
		{name: "two instances, one short id", log: at(clientLine("1795998C2C7", "alice@shop.test"), activeLine("1795998C2C7", "alice@shop.test", 1),
			"postfix-out/smtpd[1]: 1795998C2C7: client=a.test[192.0.2.1], sasl_method=PLAIN, sasl_username=bob@shop.test",
			"postfix-out/qmgr[1]: 1795998C2C7: from=<bob@shop.test>, size=1, nrcpt=1 (queue active)", sentLine("1795998C2C7", "r1@ok.test")),
			want: `
submitted alice@shop.test 1795998C2C7 counts rcpts=1
submitted bob@shop.test 1795998C2C7 counts rcpts=1
delivered alice@shop.test 1795998C2C7 new=1 to=ok.test ok`},
		{name: "postfix-311-fields", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1),
			"postfix/smtp[1]: "+id1+": to=<r1@hard.test>, relay=mx.hard.test[203.0.113.5]:25, delay=0.1, delays=0.01/0.03/0.06/0, tls=may, dsn=5.1.1, status=bounced (host mx.hard.test[203.0.113.5] said: 550 5.1.1 User unknown (in reply to RCPT TO command))",
			"postfix/bounce[1]: "+id1+": sender non-delivery notification: "+id3,
			"postfix/cleanup[1]: "+id3+": message-id=<x@mx1>", "postfix/qmgr[4329]: "+id3+": from=<>, size=2438, nrcpt=1 (queue active)",
			"postfix/lmtp[1]: "+id3+": to=<alice@shop.test>, relay=mx1[/lmtp], delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Saved)"),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
bounced alice@shop.test 4jXK971kgrz1SRpG new=1 to=hard.test recipient-unknown
submitted - 4jXK972Fstz1SRlk counts rcpts=1
delivered - 4jXK972Fstz1SRlk new=1 to=shop.test ok`},
		{name: "postfix-310-reject-login", log: at(
			"postfix/submission/smtpd[1]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 554 5.7.1 <r1@ok.test>: Recipient address rejected: locked; from=<bob@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm> sasl_method=PLAIN sasl_username=bob@shop.test",
			"postfix/submission/smtpd[2]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 554 5.7.1 <r1@ok.test>: Recipient address rejected: locked; from=<bob@shop.test> to=<r1@ok.test> proto=ESMTP helo=<vm>",
			"postfix/smtpd[3]: NOQUEUE: milter-reject: MAIL from localhost[127.0.0.1]: 550 5.7.1 no; from=<bob@blog.test> proto=ESMTP helo=<vm> sasl_username=<bob@blog.test>",
			"postfix/smtpd[4]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 554 5.7.1 <bob@blog.test>: SASL login name rejected: account locked; from=<bob@blog.test> to=<r1@ok.test> proto=ESMTP helo=<vm>"),
			want: `
refused bob@shop.test to=ok.test local-policy
refused - to=ok.test local-policy
refused bob@blog.test local-policy
refused bob@blog.test to=ok.test local-policy`},
		{name: "a refusal in a session whose login is known", log: at(clientLine(id1, "alice@shop.test"),
			"postfix/submission/smtpd[4345]: NOQUEUE: reject: RCPT from pc.isp.test[198.51.100.7]: 554 5.7.1 <r1@ok.test>: no; from=<a@b.test> to=<r1@ok.test> proto=ESMTP helo=<vm>",
			"postfix/submission/smtpd[4345]: disconnect from pc.isp.test[198.51.100.7] ehlo=1 commands=1",
			"postfix/submission/smtpd[4345]: connect from other.test[198.51.100.8]",
			"postfix/submission/smtpd[4345]: NOQUEUE: reject: RCPT from other.test[198.51.100.8]: 554 5.7.1 <r1@ok.test>: no; from=<a@b.test> to=<r1@ok.test> proto=ESMTP helo=<vm>"),
			want: `
refused alice@shop.test to=ok.test local-policy
refused - to=ok.test local-policy`},
		{name: "postfix-reinjected-filter by message id", log: at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			activeLine(id1, "alice@shop.test", 1),
			"postfix/amavis/smtpd[9]: "+id2+": client=localhost[127.0.0.1]", "postfix/cleanup[1]: "+id2+": message-id=<1@vm>", activeLine(id2, "alice@shop.test", 1),
			"postfix/amavis/smtp[8]: "+id1+": to=<r1@ok.test>, relay=127.0.0.1[127.0.0.1]:10024, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as "+id2+")",
			"postfix/qmgr[4329]: "+id1+": removed", sentLine(id2, "r1@ok.test"), "postfix/qmgr[4329]: "+id2+": removed"),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
delivered alice@shop.test 4jXK9728HSz1SRpG new=1 to=ok.test ok
removed alice@shop.test 4jXK9728HSz1SRpG`},
		{name: "postfix-reinjected-filter by orig_queue_id", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1),
			"postfix/amavis/smtpd[9]: "+id2+": client=localhost[127.0.0.1], orig_queue_id="+id1+", orig_client=pc.isp.test[198.51.100.7]", "postfix/cleanup[1]: "+id2+": message-id=<new@filter>", activeLine(id2, "alice@shop.test", 1),
			sentLine(id2, "r1@ok.test")),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
delivered alice@shop.test 4jXK9728HSz1SRpG new=1 to=ok.test ok`},
		{name: "postfix-reinjected-filter of inbound mail", log: at(clientLine(id1, ""), "postfix/cleanup[1]: "+id1+": message-id=<1@far>",
			activeLine(id1, "x@far.test", 1),
			"postfix/amavis/smtpd[9]: "+id2+": client=localhost[127.0.0.1]", "postfix/cleanup[1]: "+id2+": message-id=<1@far>", activeLine(id2, "x@far.test", 1),
			"postfix/amavis/smtp[8]: "+id1+": to=<bob@shop.test>, relay=127.0.0.1[127.0.0.1]:10024, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as "+id2+")",
			"postfix/smtp[8]: "+id2+": to=<bob@shop.test>, relay=inner.shop.test[10.0.0.2]:25, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)"),
			want: `
submitted - 4jXK971kgrz1SRpG counts rcpts=1
delivered - 4jXK9728HSz1SRpG new=1 to=shop.test ok`},
		{name: "our own filter throws spam away", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1),
			"postfix/amavis/smtp[8]: "+id1+": to=<r1@ok.test>, relay=127.0.0.1[127.0.0.1]:10024, delay=0.1, delays=0/0/0/0, dsn=2.7.0, status=sent (250 2.7.0 Ok, discarded, id=00911-01 - spam)"),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
refused alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test content`},
		{name: "no message id is no message id in common", log: at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<>", activeLine(id1, "alice@shop.test", 1),
			"postfix/smtpd[9]: "+id2+": client=localhost[127.0.0.1]", "postfix/cleanup[1]: "+id2+": message-id=<>", activeLine(id2, "alice@shop.test", 1), sentLine(id2, "r1@ok.test")),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
submitted - 4jXK9728HSz1SRpG counts rcpts=1
delivered client:127.0.0.1 4jXK9728HSz1SRpG counts rcpts=1 new=1 to=ok.test ok`},
		{name: "a strange server claims to have queued as another's id", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1), clientLine(id2, ""), activeLine(id2, "x@far.test", 1),
			strings.Replace(sentLine(id1, "r1@ok.test"), "2.0.0 Ok", "2.0.0 Ok: queued as "+id2, 1)),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
submitted - 4jXK9728HSz1SRpG counts rcpts=1
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok`},
		{name: "a stranger with another's message id is not joined", log: at(clientLine(id1, "alice@shop.test"), "postfix/cleanup[1]: "+id1+": message-id=<1@vm>", activeLine(id1, "alice@shop.test", 1),
			clientLine(id2, ""), "postfix/cleanup[1]: "+id2+": message-id=<1@vm>", activeLine(id2, "alice@shop.test", 1)),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
submitted - 4jXK9728HSz1SRpG counts rcpts=1`},
		{name: "postsuper -r gives a new id", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1), deferredLine(id1, "r1@soft.test"),
			"postfix/postsuper[3]: "+id1+": requeued", "postfix/pickup[4]: "+id2+": uid=89 from=<alice@shop.test> orig_id="+id1, "postfix/cleanup[1]: "+id2+": message-id=<1@vm>",
			activeLine(id2, "alice@shop.test", 1), sentLine(id2, "r1@soft.test")),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
deferred alice@shop.test 4jXK971kgrz1SRpG new=1 to=soft.test greylisted
delivered alice@shop.test 4jXK9728HSz1SRpG to=soft.test ok`},
		{name: "pickup", dir: &Directory{Users: map[int]string{1002: "web2"}}, log: at("postfix/pickup[4]: "+id1+": uid=1001 from=<www@shop.test>", activeLine(id1, "www@shop.test", 1), sentLine(id1, "r1@ok.test"),
			"postfix/pickup[4]: "+id2+": uid=1002 from=<www@shop.test>", activeLine(id2, "www@shop.test", 1)),
			want: `
submitted uid:1001 4jXK971kgrz1SRpG counts rcpts=1
delivered uid:1001 4jXK971kgrz1SRpG new=1 to=ok.test ok
submitted user:web2 4jXK9728HSz1SRpG counts rcpts=1`},
		{name: "a script that a header check logs", log: at("postfix/pickup[4]: "+id1+": uid=33 from=<www@shop.test>",
			"postfix/cleanup[1]: "+id1+": info: header X-PHP-Originating-Script: 33:mail.php from local; from=<www@shop.test> to=<r1@ok.test>",
			"postfix/cleanup[1]: "+id1+": info: header X-PHP-Originating-Script: 33:other.php from local; from=<www@shop.test> to=<r1@ok.test>",
			activeLine(id1, "www@shop.test", 1),
			"postfix/pickup[4]: "+id2+": uid=1001 from=<www@shop.test>",
			"postfix/cleanup[1]: "+id2+": info: header X-PHP-Originating-Script: 33:forged.php from local; from=<www@shop.test> to=<r1@ok.test>", activeLine(id2, "www@shop.test", 1)),
			want: `
submitted script:33:mail.php 4jXK971kgrz1SRpG counts rcpts=1
submitted uid:1001 4jXK9728HSz1SRpG counts rcpts=1`},
		{name: "a script and a user that a header check holds", log: at("postfix/pickup[4]: "+id1+": uid=33 from=<www@shop.test>",
			"postfix/cleanup[1]: "+id1+": hold: header X-PHP-Originating-Script: 33:mail.php from local; from=<www@shop.test> to=<r1@ok.test>: slowed down",
			"postfix/cleanup[1]: "+id1+": message-id=<1@vm>",
			"postfix/cleanup[1]: "+id1+": milter-hold: END-OF-MESSAGE from localhost[127.0.0.1]: milter triggers HOLD action; from=<www@shop.test> to=<r1@ok.test>",
			"postfix/postsuper[9]: "+id1+": released from hold", activeLine(id1, "www@shop.test", 1),
			"postfix/pickup[4]: "+id2+": uid=33 from=<www@shop.test>",
			"postfix/cleanup[1]: "+id2+": hold: header Received: by mx1.shop.test (Postfix, from userid 33)??id "+id2+"; Sun, 29 Nov 2026 15:59:57 +0000 (UTC) from local; from=<www@shop.test> to=<r1@ok.test>: held",
			"postfix/cleanup[1]: "+id2+": message-id=<2@vm>"),
			want: `
held script:33:mail.php 4jXK971kgrz1SRpG counts rcpts=1
released script:33:mail.php 4jXK971kgrz1SRpG
submitted script:33:mail.php 4jXK971kgrz1SRpG rcpts=1
held uid:33 4jXK9728HSz1SRpG counts rcpts=1`},
		{name: "an unreadable first header hides no forged second one", log: at("postfix/pickup[4]: "+id1+": uid=33 from=<www@shop.test>",
			"postfix/cleanup[1]: "+id1+": info: header X-PHP-Originating-Script: 1001:not-his.php from local; from=<www@shop.test> to=<r1@ok.test>",
			"postfix/cleanup[1]: "+id1+": info: header X-PHP-Originating-Script: 33:innocent.php from local; from=<www@shop.test> to=<r1@ok.test>",
			activeLine(id1, "www@shop.test", 1),
			"postfix/pickup[4]: "+id2+": uid=33 from=<www@shop.test>",
			"postfix/cleanup[1]: "+id2+": info: header X-PHP-Originating-Script: 33:x.php(3) : eval()'d code from local; from=<www@shop.test> to=<r1@ok.test>",
			"postfix/cleanup[1]: "+id2+": info: header X-PHP-Originating-Script: 33:innocent.php from local; from=<www@shop.test> to=<r1@ok.test>",
			activeLine(id2, "www@shop.test", 1)),
			want: `
submitted uid:33 4jXK971kgrz1SRpG counts rcpts=1
submitted script:33:x.php 4jXK9728HSz1SRpG counts rcpts=1`},
		{name: "a virtual alias that forwards", log: at(clientLine(id1, ""), activeLine(id1, "x@far.test", 2),
			"postfix/smtp[8]: "+id1+": to=<box@elsewhere.test>, orig_to=<Box@shop.test>, relay=mx.elsewhere.test[203.0.113.9]:25, delay=0.1, delays=0/0/0/0, dsn=5.7.1, status=bounced (host mx.elsewhere.test[203.0.113.9] said: 550 5.7.1 spam detected (in reply to end of DATA command))",
			"postfix/lmtp[8]: "+id1+": to=<bob@shop.test>, orig_to=<robert@shop.test>, relay=mx1[/lmtp], delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Saved)"),
			want: `
submitted - 4jXK971kgrz1SRpG counts rcpts=2
bounced forward:box@shop.test 4jXK971kgrz1SRpG counts rcpts=1 new=1 to=elsewhere.test content
delivered - 4jXK971kgrz1SRpG new=1 to=shop.test ok`},
		{name: "local(8) forwards", log: at(clientLine(id1, ""), activeLine(id1, "x@far.test", 1),
			"postfix/cleanup[1]: "+id2+": message-id=<1@far>",
			"postfix/local[8]: "+id1+": to=<box@shop.test>, relay=local, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (forwarded as "+id2+")",
			activeLine(id2, "x@far.test", 1), sentLine(id2, "out@elsewhere.test")),
			want: `
submitted - 4jXK971kgrz1SRpG counts rcpts=1
submitted forward:box@shop.test 4jXK9728HSz1SRpG counts rcpts=1
delivered forward:box@shop.test 4jXK9728HSz1SRpG new=1 to=elsewhere.test ok`},
		{name: "a trusted client, when its mail leaves", dir: &Directory{Trusted: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
			log: at(clientLine(id1, ""), activeLine(id1, "printer@shop.test", 2), sentLine(id1, "r1@ok.test"), sentLine(id1, "r2@ok.test"),
				clientLine(id2, ""), activeLine(id2, "x@far.test", 1), "postfix/lmtp[8]: "+id2+": to=<bob@shop.test>, relay=mx1[/lmtp], delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Saved)"),
			want: `
submitted - 4jXK971kgrz1SRpG counts rcpts=2
delivered client:198.51.100.7 4jXK971kgrz1SRpG counts rcpts=1 new=1 to=ok.test ok
delivered client:198.51.100.7 4jXK971kgrz1SRpG new=1 to=ok.test ok
submitted - 4jXK9728HSz1SRpG counts rcpts=1
delivered - 4jXK9728HSz1SRpG new=1 to=shop.test ok`},
		{name: "an alias of many is one recipient", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 2),
			strings.Replace(sentLine(id1, "r1@ok.test"), ", relay", ", orig_to=<team@shop.test>, relay", 1), strings.Replace(sentLine(id1, "r2@ok.test"), ", relay", ", orig_to=<team@shop.test>, relay", 1)),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG to=ok.test ok`},
		{name: "postfix-retry-expired", log: at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1), deferredLine(id1, "r1@soft.test"),
			"postfix/qmgr[4329]: "+id1+": from=<alice@shop.test>, status=expired, returned to sender", "postfix/qmgr[4329]: "+id1+": removed"),
			want: `
submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=1
deferred alice@shop.test 4jXK971kgrz1SRpG new=1 to=soft.test greylisted
bounced alice@shop.test 4jXK971kgrz1SRpG rcpts=1 greylisted
removed alice@shop.test 4jXK971kgrz1SRpG`},
		{name: "SASL failures", log: at(
			"postfix/submission/smtpd[1]: warning: localhost[127.0.0.1]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=alice@shop.test",
			"postfix/smtpd[1]: warning: unknown[198.51.100.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6",
			"postfix/smtpd[1]: warning: unknown[198.51.100.8]: SASL LOGIN authentication failed: authentication failure, sasl_username=x, sasl_username=victim@shop.test"),
			want: `
login-failed alice@shop.test
login-failed -
login-failed x, sasl_username=victim@shop.test`},
		{name: "what says nothing", log: at("postfix/smtpd[1]: connect from localhost[127.0.0.1]", "postfix/anvil[1]: statistics: max connection rate 1/60s for (smtpd:192.0.2.58) at Jan 27 12:49:58",
			"postfix/postscreen[1]: NOQUEUE: reject: RCPT from [192.0.2.9]:4242: 550 5.7.1 Service unavailable; from=<a@b.test>, to=<c@shop.test>, proto=ESMTP, helo=<x>",
			"postfix/postscreen[1]: DENYLISTED [192.0.2.9]:4242", "postfix/master[1]: reload -- version 3.7.11", "postfix/smtp[1]: connect to 127.0.0.1[127.0.0.1]:12505: Connection refused",
			"postfix/submission/smtpd[9172]: Anonymous TLS connection established from localhost[127.0.0.1]: TLSv1.3 with cipher X (256/256 bits)",
			"postfix/verify[1]: cache /var/lib/postfix/verify_cache.db full cleanup", "postfix/smtp[2]: "+id1+": to=<r@ok.test>, relay=mx[192.0.2.1]:25, delay=0, delays=0/0/0/0, dsn=2.1.5, status=deliverable (250 ok)")},
		{name: "journald-bytes: lost lines become lost coverage", log: at("rsyslogd[55]: imjournal: 12345 messages lost due to rate-limiting (20000 allowed within 600 seconds)",
			"systemd-journald[77]: Suppressed 4567 messages from postfix@-.service", "rsyslogd: imuxsock lost 45 messages from pid 1234 due to rate-limiting",
			"postfix/smtpd[1]: warning: imjournal: 9 messages lost"),
			want: `
lost - rcpts=12345
lost - rcpts=4567
lost - rcpts=45`},
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
			if p.Stats().Unrecognised != 0 {
				t.Errorf("%d lines not recognised, want none", p.Stats().Unrecognised)
			}
		})
	}
}

func deferredLine(id, to string) string {
	return "postfix/smtp[4707]: " + id + ": to=<" + to + ">, relay=mx.soft.test[203.0.113.6]:25, delay=0.1, delays=0.01/0.03/0.06/0, dsn=4.7.1, status=deferred (host mx.soft.test[203.0.113.6] said: 451 4.7.1 Greylisted, try again later (in reply to RCPT TO command))"
}

func TestPostfixEventFields(t *testing.T) {
	p := newParser()
	evs := events(p, at(clientLine(id1, "Alice"), activeLine(id1, "Alice@SHOP.test", 1), deferredLine(id1, "R1@Soft.test")))
	when := time.Date(2026, 11, 22, 5, 28, 20, 0, time.UTC)
	want := []Event{
		{Time: when, Kind: Submitted, Host: "mx1", Account: "alice@shop.test", Message: evs[0].Message, QueueID: id1, Sender: "Alice@shop.test",
			Client: netip.MustParseAddr("198.51.100.7"), Size: 383, Rcpts: 1, Counts: true, Method: "PLAIN", Service: "smtp"},
		{Time: when, Kind: Deferred, Host: "mx1", Account: "alice@shop.test", Message: evs[0].Message, QueueID: id1, Sender: "Alice@shop.test",
			Client: netip.MustParseAddr("198.51.100.7"), Size: 383, New: []Recipient{p.Recipient("r1@soft.test")}, To: p.Recipient("r1@soft.test"),
			Reply: Reply{Class: Greylisted, Code: 451, Enhanced: "4.7.1", Text: "451 4.7.1 Greylisted, try again later (in reply to RCPT TO command)"}},
	}
	if diff := cmp.Diff(evs, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-got +want\n%s", diff)
	}
	if evs[0].Message == 0 {
		t.Error("the message has no identity")
	}
}

// A delivery into a mailbox names whose it is; one to a program, to another server
// or that failed names nobody's.
func TestIntoMailbox(t *testing.T) {
	const dir = "2026-11-22 05:28:20 "
	tests := []struct {
		name, log string
		want      Account
	}{
		{"LMTP", at(clientLine(id1, ""), activeLine(id1, "", 1), "postfix/lmtp[9]: "+id1+": to=<Bob@Shop.test>, relay=mx1[private/dovecot-lmtp], delay=0.1, delays=0.01/0.03/0.06/0, dsn=2.0.0, status=sent (250 2.0.0 <bob@shop.test> Saved)"), "bob@shop.test"},
		{"local, by an alias", at(clientLine(id1, ""), activeLine(id1, "x@far.test", 1), "postfix/local[9]: "+id1+": to=<info@shop.test>, relay=local, delay=0.1, delays=0.01/0.03/0.06/0, dsn=2.0.0, status=sent (delivered to mailbox)"), "bob@shop.test"},
		{"another server", at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1), sentLine(id1, "r@ok.test")), ""},
		{"full", at(clientLine(id1, ""), activeLine(id1, "x@far.test", 1), "postfix/lmtp[9]: "+id1+": to=<bob@shop.test>, relay=mx1[private/dovecot-lmtp], delay=0.1, delays=0.01/0.03/0.06/0, dsn=5.2.2, status=bounced (host mx1[private/dovecot-lmtp] said: 552 5.2.2 over quota)"), ""},
		{"Exim", dir + "1wNDw7-004MuF-FZ <= x@far.test H=far.test [192.0.2.1] P=esmtp S=900\n" + dir + "1wNDw7-004MuF-FZ => bob <bob@shop.test> R=localuser T=maildir", "bob@shop.test"},
		{"Exim, a file", dir + "1wNDw7-004MuF-FZ <= x@far.test H=far.test [192.0.2.1] P=esmtp S=900\n" + dir + "1wNDw7-004MuF-FZ => /home/bob/Maildir/ <bob@shop.test> R=virtual T=address_directory", "bob@shop.test"},
		{"Exim, a program", dir + "1wNDw7-004MuF-FZ <= x@far.test H=far.test [192.0.2.1] P=esmtp S=900\n" + dir + "1wNDw7-004MuF-FZ => |/usr/bin/procmail <bob@shop.test> R=virtual T=address_pipe", ""},
		{"Exim, another server", dir + "1wNDw7-004MuF-FZ <= x@far.test H=far.test [192.0.2.1] P=esmtp S=900\n" + dir + `1wNDw7-004MuF-FZ => r@ok.test R=out T=smtp H=mx.ok.test [192.0.2.9] C="250 ok"`, ""},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			p := newParser()
			p.Directory = &Directory{Aliases: map[string]string{"info@shop.test": "bob@shop.test"}}
			evs := events(p, c.log)
			last := evs[len(evs)-1]
			if last.Into != c.want {
				t.Errorf("%v into %q, want %q", last.Kind, last.Into, c.want)
			}
			writer := Recipient{}
			if from := last.Sender; c.want != "" && from != "" {
				writer = p.Recipient(from)
			}
			if last.Writer != writer {
				t.Errorf("by %v, want %v", last.Writer, writer)
			}
		})
	}
}

// Two messages of one short id are two, also to whoever tells them apart by
// Event.Message.
func TestShortIDReusedHasTwoIdentities(t *testing.T) {
	p := newParser()
	first := events(p, at(clientLine("1795998C2C7", "alice@shop.test"), activeLine("1795998C2C7", "alice@shop.test", 1), "postfix/qmgr[4329]: 1795998C2C7: removed"))
	again := events(p, strings.ReplaceAll(at(clientLine("1795998C2C7", "alice@shop.test"), activeLine("1795998C2C7", "alice@shop.test", 1)), ":20 ", ":21 "))
	if first[0].Message == again[0].Message {
		t.Error("two messages have one identity")
	}
}

// What strangers write into message ids, senders, HELO names and replies
// gives nobody a login.
func TestPostfixHostileText(t *testing.T) {
	tests := []struct{ name, log string }{
		{"postfix-message-id-forges-login", at(clientLine(id1, ""), "postfix/cleanup[1]: "+id1+": message-id=<x> sasl_username=victim@shop.test", activeLine(id1, "x@evil.test", 1), sentLine(id1, "r@ok.test"))},
		{"message id that is a whole line", at(clientLine(id1, ""), "postfix/cleanup[1]: "+id1+": message-id=<x>: client=localhost[127.0.0.1], sasl_method=PLAIN, sasl_username=victim@shop.test", activeLine(id1, "x@evil.test", 1))},
		{"quoted sender", at(clientLine(id1, ""), activeLine(id1, `"a, sasl_username=victim@shop.test>, size=1, nrcpt=1 (queue active)"@evil.test`, 1))},
		{"HELO that ends in a login", at("postfix/smtpd[1]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 554 5.7.1 <r1@ok.test>: Relay access denied; from=<x@evil.test> to=<r1@ok.test> proto=ESMTP helo=<a> sasl_method=PLAIN sasl_username=victim@shop.test>")},
		{"quoted recipient", at(`postfix/smtpd[1]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 554 5.7.1 <"a>: SASL login name rejected: x; from=<> to=<> proto=ESMTP helo=<a> sasl_username=<victim@shop.test>"@ok.test>: Relay access denied; from=<x@evil.test> to=<"a>: SASL login name rejected: x; from=<> to=<> proto=ESMTP helo=<a> sasl_username=<victim@shop.test>"@ok.test> proto=ESMTP helo=<vm>`)},
		{"host name", at("postfix/smtpd[1]: " + id1 + ": client=sasl_username.victim.test[192.0.2.1]")},
		{"reply", at(clientLine(id1, ""), activeLine(id1, "x@evil.test", 1), "postfix/smtp[1]: "+id1+": to=<r@ok.test>, relay=mx[192.0.2.3]:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok, sasl_username=victim@shop.test forwarded as "+id2+" queued as "+id2+")")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, ev := range events(newParser(), tt.log) {
				if ev.Account != "" {
					t.Errorf("%s: charged to %q, want nobody", brief(ev), ev.Account)
				}
			}
		})
	}
}
