package loggen

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// postfix writes what Postfix 3.7 writes, about seven lines a message.
type postfix struct {
	o    Options
	rng  *rand.Rand
	emit func(time.Time, string)

	smtpd, submission, cleanup, smtp, lmtp pool
}

// The processes of which a Postfix has one.
const (
	qmgrPID   = 829
	pickupPID = 828
)

func newPostfix(o Options, rng *rand.Rand, emit func(time.Time, string)) *postfix {
	return &postfix{
		o: o, rng: rng, emit: emit,
		smtpd: pool{first: 10000}, submission: pool{first: 20000}, cleanup: pool{first: 30000},
		smtp: pool{first: 40000}, lmtp: pool{first: 50000},
	}
}

// A pool hands out process ids; a process does one thing at a time.
type pool struct {
	first int
	busy  []time.Time // until when each process is
}

func (p *pool) take(from, until time.Time) (pid int) {
	for i := range p.busy {
		if !p.busy[i].After(from) {
			p.busy[i] = until
			return p.first + i
		}
	}
	p.busy = append(p.busy, until)
	return p.first + len(p.busy) - 1
}

// log adds a line of a daemon: "submission/smtpd", 833, "connect from …".
func (p *postfix) log(at time.Time, daemon string, pid int, format string, args ...any) {
	stamp := at.Format(time.Stamp)
	if p.o.RFC3339 {
		stamp = at.Format("2006-01-02T15:04:05.000000-07:00")
	}
	head := fmt.Sprintf("%s mx1 postfix/%s[%d]: ", stamp, daemon, pid)
	p.emit(at, head+fmt.Sprintf(format, args...))
}

// some is a duration of up to that many milliseconds.
func some(rng *rand.Rand, ms int) time.Duration {
	return time.Duration(1+rng.IntN(ms*1000)) * time.Microsecond
}

func (p *postfix) message(m message) {
	at := m.at
	id := p.queueID(at)
	cleanup := p.cleanup.take(at, at.Add(200*time.Millisecond))
	if m.script != "" {
		p.log(at, "pickup", pickupPID, "%s: uid=%d from=<%s>", id, m.uid, m.sender)
		messageID := id + "@mx1.hosting.test"
		p.log(at.Add(time.Millisecond), "cleanup", cleanup, "%s: message-id=<%s>", id, messageID)
	} else {
		at = p.session(m, id, cleanup)
	}
	at = at.Add(some(p.rng, 20))
	p.queueActive(at, id, m.sender, m.size, len(m.rcpts))
	p.deliver(at, id, m)
}

// session writes an SMTP session that submits m, and returns the time at which
// the message is in the queue.
func (p *postfix) session(m message, id string, cleanup int) time.Time {
	end := m.at.Add(time.Second + some(p.rng, 1000))
	daemon, pid, login, auth := "smtpd", 0, "", ""
	if m.login != "" {
		daemon, pid = "submission/smtpd", p.submission.take(m.at, end)
		login, auth = ", sasl_method=PLAIN, sasl_username="+m.login, "auth=1 "
	} else {
		pid = p.smtpd.take(m.at, end)
	}
	from := m.from.String()
	p.log(m.at, daemon, pid, "connect from %s", from)
	at := m.at.Add(some(p.rng, 300))
	p.log(at, daemon, pid, "%s: client=%s%s", id, from, login)
	at = at.Add(some(p.rng, 300))
	p.log(at, "cleanup", cleanup, "%s: message-id=<%x.%d@%s>", id, p.rng.Uint64(), pid, domainOf(m.sender))
	p.log(end, daemon, pid, "disconnect from %s ehlo=1 %smail=1 rcpt=%d data=1 quit=1 commands=%d",
		from, auth, len(m.rcpts), len(m.rcpts)+4+len(auth)/7)
	return at
}

func (p peer) String() string { return p.name + "[" + p.addr + "]" }

func domainOf(address string) string {
	_, domain, _ := strings.Cut(address, "@")
	return domain
}

func (p *postfix) queueActive(at time.Time, id, sender string, size, rcpts int) {
	p.log(at, "qmgr", qmgrPID, "%s: from=<%s>, size=%d, nrcpt=%d (queue active)", id, sender, size, rcpts)
}

// deliver writes the attempts for every recipient, the report of failure if
// there is one, and the end of the message.
func (p *postfix) deliver(at time.Time, id string, m message) {
	arrived, left := at, m.rcpts
	for try := 0; ; try++ {
		done := at
		var waiting []delivery
		failed := false
		for _, d := range left {
			end := at.Add(some(p.rng, 2000))
			if end.After(done) {
				done = end
			}
			if try < d.fate.tries() {
				waiting = append(waiting, d)
				p.attempt(at, end, arrived, id, d)
				continue
			}
			failed = failed || d.fate.final()
			if !d.fate.final() && d.fate != local {
				d.fate = sent
			}
			p.attempt(at, end, arrived, id, d)
		}
		if failed {
			p.report(done, id, m.sender)
		}
		if left = waiting; len(left) == 0 {
			p.log(done.Add(time.Millisecond), "qmgr", qmgrPID, "%s: removed", id)
			return
		}
		at = at.Add(300 * time.Second << try)
		p.queueActive(at, id, m.sender, m.size, len(m.rcpts))
	}
}

// attempt writes one attempt for one recipient.
func (p *postfix) attempt(from, at, arrived time.Time, id string, d delivery) {
	dsn, text := d.fate.reply()
	delay := at.Sub(arrived).Seconds()
	delays := fmt.Sprintf("%.2g/%.2g/%.2g/%.2g", from.Sub(arrived).Seconds()+0.01, 0.01, 0.2*at.Sub(from).Seconds(), 0.8*at.Sub(from).Seconds())
	host := "mx." + domainOf(d.to)
	remote := fmt.Sprintf("%s[192.0.2.%d]", host, 1+len(d.to)%254)
	if d.fate == local {
		pid := p.lmtp.take(from, at)
		p.log(at, "lmtp", pid, "%s: to=<%s>, relay=mx1.hosting.test[private/dovecot-lmtp], delay=%.2g, delays=%s, dsn=2.0.0, status=sent (250 2.0.0 <%s> %x Saved)",
			id, d.to, delay, delays, d.to, p.rng.Uint64())
		return
	}
	pid, relay, status := p.smtp.take(from, at), remote+":25", "sent"
	switch {
	case d.fate == unreachable:
		text = "connect to " + remote + ":25: Connection timed out"
		relay, status = "none", "deferred"
		p.log(at, "smtp", pid, "%s", text)
	case d.fate == spam:
		text, status = "host "+remote+" said: "+text+" (in reply to end of DATA command)", "bounced"
	case d.fate.final():
		text, status = "host "+remote+" said: "+text+" (in reply to RCPT TO command)", "bounced"
	case d.fate != sent:
		text, status = "host "+remote+" said: "+text+" (in reply to RCPT TO command)", "deferred"
	default:
		text += ": queued as " + fmt.Sprintf("%X", p.rng.Uint64()>>24)
	}
	p.log(at, "smtp", pid, "%s: to=<%s>, relay=%s, delay=%.2g, delays=%s, dsn=%s, status=%s (%s)",
		id, d.to, relay, delay, delays, dsn, status, text)
}

// report writes the message that tells the sender of a failure, into a
// mailbox here: every sender who gets one has one.
func (p *postfix) report(at time.Time, id, to string) {
	ndn := p.queueID(at)
	p.log(at, "cleanup", p.cleanup.take(at, at.Add(50*time.Millisecond)), "%s: message-id=<%s@mx1.hosting.test>", ndn, ndn)
	p.log(at, "bounce", 60001, "%s: sender non-delivery notification: %s", id, ndn)
	p.queueActive(at, ndn, "", 3500, 1)
	end := at.Add(some(p.rng, 100))
	p.attempt(at, end, at, ndn, delivery{to, local})
	p.log(end, "qmgr", qmgrPID, "%s: removed", ndn)
}

func (p *postfix) badLogin(at time.Time, login string, from peer) {
	end := at.Add(2*time.Second + some(p.rng, 500))
	pid := p.submission.take(at, end)
	p.log(at, "submission/smtpd", pid, "connect from %s", from)
	p.log(end, "submission/smtpd", pid, "warning: %s: SASL PLAIN authentication failed: (reason unavailable), sasl_username=%s", from, login)
	p.log(end, "submission/smtpd", pid, "disconnect from %s ehlo=1 auth=0/1 quit=1 commands=2/3", from)
}

func (p *postfix) relayAttempt(at time.Time, from peer, to string) {
	end := at.Add(some(p.rng, 500))
	pid := p.smtpd.take(at, end)
	p.log(at, "smtpd", pid, "connect from %s", from)
	p.log(end, "smtpd", pid, "NOQUEUE: reject: RCPT from %s: 554 5.7.1 <%s>: Relay access denied; from=<x@outside.test> to=<%s> proto=ESMTP helo=<vm>", from, to, to)
	p.log(end, "smtpd", pid, "disconnect from %s ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4", from)
}

func (p *postfix) mailboxLogin(at time.Time, login string, from peer) {
	stamp := at.Format(time.Stamp)
	if p.o.RFC3339 {
		stamp = at.Format("2006-01-02T15:04:05.000000-07:00")
	}
	p.emit(at, fmt.Sprintf("%s mx1 dovecot: imap-login: Login: user=<%s>, method=PLAIN, rip=%s, lip=192.0.2.1, mpid=%d, TLS, session=<%x>",
		stamp, login, from.addr, 2000+p.rng.IntN(30000), p.rng.Uint64()))
}

const base52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

// queueID makes a long queue id: seconds and microseconds of the arrival in
// base 52, a z, and the inode in base 51.
func (p *postfix) queueID(at time.Time) string {
	micros := at.Nanosecond() / 1000
	inode := 0x60000 + p.rng.IntN(1<<16)
	return inBase(base52, at.Unix(), 6) + inBase(base52, int64(micros), 4) + "z" + inBase(base52[:51], int64(inode), 4)
}

// inBase writes n with the digits given, padded to at least width.
func inBase(digits string, n int64, width int) string {
	var b []byte
	for base := int64(len(digits)); n > 0 || len(b) < width; n /= base {
		b = append([]byte{digits[n%base]}, b...)
	}
	return string(b)
}
