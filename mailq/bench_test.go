package mailq

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// postfixLog renders messages of a busy submission server, seven or eight
// lines each, those of neighbours mixed as in a real log.
func postfixLog(messages int) [][]byte {
	var lines [][]byte
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	add := func(i int, format string, a ...any) {
		at := start.Add(time.Duration(i) * 200 * time.Millisecond)
		lines = append(lines, []byte(at.Format("Jan _2 15:04:05")+" mx1 "+fmt.Sprintf(format, a...)+"\n"))
	}
	id := func(i int) string { return fmt.Sprintf("%011X", 0x1795998C2C7+i*7919) }
	for i := range messages + 3 {
		if i < messages {
			user, pid := i*31%1000, 1000+i%40
			add(i, "postfix/submission/smtpd[%d]: connect from host%d.isp.test[198.51.100.%d]", pid, user, user%250)
			add(i, "postfix/submission/smtpd[%d]: %s: client=host%d.isp.test[198.51.100.%d], sasl_method=PLAIN, sasl_username=user%d@shop%d.test", pid, id(i), user, user%250, user, user%50)
			add(i, "postfix/cleanup[%d]: %s: message-id=<%d.%d@vm>", 2000+i%10, id(i), i*7919, i)
			add(i, "postfix/qmgr[77]: %s: from=<user%d@shop%d.test>, size=%d, nrcpt=1 (queue active)", id(i), user, user%50, 1000+i%9000)
			add(i, "postfix/submission/smtpd[%d]: disconnect from host%d.isp.test[198.51.100.%d] ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8", pid, user, user%250)
		}
		if j := i - 3; j >= 0 {
			switch {
			case j%25 == 0:
				add(i, "postfix/smtp[%d]: %s: to=<r%d@dest%d.test>, relay=mx.dest%d.test[203.0.113.%d]:25, delay=0.42, delays=0.01/0.01/0.2/0.2, dsn=5.1.1, status=bounced (host mx.dest%d.test[203.0.113.%d] said: 550 5.1.1 <r%d@dest%d.test>: Recipient address rejected: User unknown (in reply to RCPT TO command))", 3000+j%20, id(j), j%5000, j%300, j%300, j%250, j%300, j%250, j%5000, j%300)
			case j%25 == 1:
				add(i, "postfix/smtp[%d]: %s: to=<r%d@dest%d.test>, relay=mx.dest%d.test[203.0.113.%d]:25, delay=0.42, delays=0.01/0.01/0.2/0.2, dsn=4.7.1, status=deferred (host mx.dest%d.test[203.0.113.%d] said: 451 4.7.1 <r%d@dest%d.test>: Greylisted, please try again later (in reply to RCPT TO command))", 3000+j%20, id(j), j%5000, j%300, j%300, j%250, j%300, j%250, j%5000, j%300)
			default:
				add(i, "postfix/smtp[%d]: %s: to=<r%d@dest%d.test>, relay=mx.dest%d.test[203.0.113.%d]:25, delay=0.42, delays=0.01/0.01/0.2/0.2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4jXHfX6Vsnz1SNbS)", 3000+j%20, id(j), j%5000, j%300, j%300, j%250)
			}
			add(i, "postfix/qmgr[77]: %s: removed", id(j))
		}
	}
	return together(lines)
}

// together lays lines side by side, as a reader of a file has them.
func together(lines [][]byte) [][]byte {
	return slices.Collect(bytes.Lines(bytes.Join(lines, nil)))
}

func benchParse(b *testing.B, lines [][]byte) {
	b.ReportAllocs()
	var p *Parser
	b.ResetTimer()
	for i := range b.N {
		if i%len(lines) == 0 {
			p = &Parser{Location: time.UTC, Now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Directory: &Directory{}}
		}
		p.Parse(lines[i%len(lines)])
	}
}

func BenchmarkParsePostfix(b *testing.B) { benchParse(b, manyPostfix()) }

var manyPostfix = sync.OnceValue(func() [][]byte { return postfixLog(70_000) })

// eximLog renders messages of a busy Exim with the usual selectors.
func eximLog(messages int) [][]byte {
	var lines [][]byte
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range messages {
		at := start.Add(time.Duration(i) * 200 * time.Millisecond).Format("2006-01-02 15:04:05")
		id := fmt.Sprintf("1xV%03X-%06d-%02d", i%4096, i, i%100)
		user := i * 31 % 1000
		add := func(format string, a ...any) {
			lines = append(lines, fmt.Appendf(nil, "%s [%d] "+format+"\n", append([]any{at, 1000 + i}, a...)...))
		}
		add("SMTP connection from [198.51.100.%d]:%d I=[192.0.2.1]:587 (TCP/IP connection count = 1)", user%250, 30000+i%30000)
		add(`%s <= user%d@shop%d.test H=(pc%d) [198.51.100.%d]:%d I=[192.0.2.1]:587 P=esmtpsa X=TLS1.3:ECDHE_X25519__RSA:256 CV=no A=dovecot_login:user%d@shop%d.test S=%d id=%d@pc%d T="Invoice no. %d" from <user%d@shop%d.test> for r%d@dest%d.test`,
			id, user, user%50, user, user%250, 30000+i%30000, user, user%50, 1000+i%9000, i, user, i, user, user%50, i%5000, i%300)
		add("SMTP connection from (pc%d) [198.51.100.%d]:%d I=[192.0.2.1]:587 closed by QUIT", user, user%250, 30000+i%30000)
		add("cwd=/var/spool/exim4 3 args: /usr/sbin/exim4 -Mc %s", id)
		add(`%s => r%d@dest%d.test F=<user%d@shop%d.test> R=dnslookup T=remote_smtp S=%d H=mx.dest%d.test [203.0.113.%d]:25 I=[192.0.2.1]:4000 X=TLS1.3:ECDHE_X25519__RSA:256 CV=yes C="250 2.0.0 Ok: queued as ABCDEF" QT=1s DT=0s`,
			id, i%5000, i%300, user, user%50, 1400+i%9000, i%300, i%250)
		add("%s Completed", id)
	}
	return together(lines)
}

var manyExim = sync.OnceValue(func() [][]byte { return eximLog(80_000) })

func BenchmarkParseExim(b *testing.B) { benchParse(b, manyExim()) }
