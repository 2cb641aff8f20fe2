package loggen

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// exim writes what Exim 4.96 writes with
//
//	log_selector = +all_parents +arguments +connection_reject +deliver_time
//	  +delivery_size +incoming_interface +incoming_port +outgoing_port +pid
//	  +queue_time +received_recipients +received_sender +retry_defer
//	  +sender_on_delivery +smtp_confirmation +smtp_connection +subject
type exim struct {
	rng  *rand.Rand
	emit func(time.Time, string)
	pid  int // of the process forked last
}

// The process that listens.
const daemonPID = 872

func newExim(_ Options, rng *rand.Rand, emit func(time.Time, string)) *exim {
	return &exim{rng: rng, emit: emit, pid: 1000}
}

// fork is the id of a new process.
func (e *exim) fork() int {
	if e.pid++; e.pid > 4_000_000 {
		e.pid = 1000
	}
	return e.pid
}

func (e *exim) log(at time.Time, pid int, format string, args ...any) {
	head := fmt.Sprintf("%s [%d] ", at.Format(time.DateTime), pid)
	e.emit(at, head+fmt.Sprintf(format, args...))
}

func (e *exim) message(m message) {
	at, pid := m.at, e.fork()
	id := messageID(at, pid)
	if m.script != "" {
		e.log(at, pid, "cwd=%s 4 args: /usr/sbin/sendmail -t -i -f%s", m.script, m.sender)
		e.log(at, pid, "%s <= %s U=%s P=local S=%d T=%q from <%s> for %s", id, m.sender, m.user, m.size, m.subject, m.sender, addresses(m.rcpts))
	} else {
		at = e.session(m, pid, id)
	}
	e.deliver(at, id, m)
}

// session writes an SMTP session that submits m, and returns its end.
func (e *exim) session(m message, pid int, id string) time.Time {
	port, proto, auth := 25, "esmtp", ""
	if m.login != "" {
		port, proto, auth = 587, "esmtpa", " A=dovecot_plain:"+m.login
	}
	from := e.connected(m.at, m.from, port)
	at := m.at.Add(some(e.rng, 500))
	e.log(at, pid, "%s <= %s H=%s P=%s%s S=%d id=%x@%s T=%q from <%s> for %s",
		id, m.sender, from, proto, auth, m.size, e.rng.Uint64(), domainOf(m.sender), m.subject, m.sender, addresses(m.rcpts))
	e.log(at, pid, "SMTP connection from %s closed by QUIT", from)
	return at
}

// connected writes that a peer has connected, and returns it as later lines name it.
func (e *exim) connected(at time.Time, from peer, port int) string {
	here := fmt.Sprintf("[%s]:%d I=[192.0.2.1]:%d", from.addr, 1024+e.rng.IntN(60000), port)
	e.log(at, daemonPID, "SMTP connection from %s (TCP/IP connection count = %d)", here, 1+e.rng.IntN(9))
	if from.name == "unknown" {
		return "(vm) " + here
	}
	return from.name + " (vm) " + here
}

func addresses(rcpts []delivery) string {
	var all []string
	for _, d := range rcpts {
		all = append(all, d.to)
	}
	return strings.Join(all, " ")
}

// deliver writes the attempts for every recipient, the report of failure if
// there is one, and the end of the message.
func (e *exim) deliver(at time.Time, id string, m message) {
	left := m.rcpts
	for try := 0; ; try++ {
		pid, done := e.fork(), at
		e.log(at, pid, "cwd=/var/spool/exim4 3 args: /usr/sbin/exim4 -Mc %s", id)
		var waiting []delivery
		failed := false
		for _, d := range left {
			done = done.Add(some(e.rng, 1000))
			if try < d.fate.tries() {
				waiting = append(waiting, d)
				e.deferred(done, pid, id, d)
				continue
			}
			failed = failed || d.fate.final()
			e.delivered(done, pid, id, m, d)
		}
		if failed {
			e.report(done, id, m.sender)
		}
		if left = waiting; len(left) == 0 {
			e.log(done, pid, "%s Completed", id)
			return
		}
		at = at.Add(300 * time.Second << try)
	}
}

// deferred writes an attempt that failed for now.
func (e *exim) deferred(at time.Time, pid int, id string, d delivery) {
	remote := e.remote(d)
	if d.fate == unreachable {
		e.log(at, pid, "%s H=%s Connection timed out", id, remote)
		e.log(at, pid, "%s == %s R=outside T=remote_smtp defer (110): Connection timed out DT=1s", id, d.to)
		return
	}
	_, text := d.fate.reply()
	e.log(at, pid, "%s == %s R=outside T=remote_smtp defer (-44) H=%s I=[192.0.2.1]:%d DT=1s: SMTP error from remote mail server after RCPT TO:<%s>: %s",
		id, d.to, remote, 1024+e.rng.IntN(60000), d.to, text)
}

// remote is the recipient's server.
func (e *exim) remote(d delivery) string {
	return fmt.Sprintf("mx.%s [192.0.2.%d]:25", domainOf(d.to), 1+len(d.to)%254)
}

// delivered writes the last attempt for a recipient: delivered or returned.
func (e *exim) delivered(at time.Time, pid int, id string, m message, d delivery) {
	if d.fate == local {
		name, _, _ := strings.Cut(d.to, "@")
		e.log(at, pid, "%s => %s <%s> F=<%s> R=inside T=inbox S=%d C=\"250 2.0.0 <%s> %x Saved\" QT=0s DT=0s",
			id, name, d.to, m.sender, m.size+80, d.to, e.rng.Uint64())
		return
	}
	interfaceUsed := fmt.Sprintf("I=[192.0.2.1]:%d", 1024+e.rng.IntN(60000))
	if d.fate.final() {
		_, text := d.fate.reply()
		stage := "RCPT TO:<" + d.to + ">"
		if d.fate == spam {
			stage = "end of data"
		}
		e.log(at, pid, "%s ** %s F=<%s> R=outside T=remote_smtp H=%s %s: SMTP error from remote mail server after %s: %s DT=1s",
			id, d.to, m.sender, e.remote(d), interfaceUsed, stage, text)
		return
	}
	e.log(at, pid, "%s => %s F=<%s> R=outside T=remote_smtp S=%d H=%s %s C=\"250 2.0.0 Ok: queued as %X\" QT=%ds DT=1s",
		id, d.to, m.sender, m.size+40, e.remote(d), interfaceUsed, e.rng.Uint64()>>24, int(at.Sub(m.at).Seconds()))
}

// report writes the message that tells the sender of a failure.
func (e *exim) report(at time.Time, id, to string) {
	pid := e.fork()
	ndn := messageID(at, pid)
	e.log(at, pid, "cwd=/var/spool/exim4 7 args: /usr/sbin/exim4 -t -oem -oi -f <> -E%s", id)
	e.log(at, pid, "%s <= <> R=%s U=Debian-exim P=local S=2200 T=\"Mail delivery failed: returning message to sender\" from <> for %s", ndn, id, to)
	e.deliver(at, ndn, message{at: at, size: 2200, rcpts: []delivery{{to, local}}})
}

func (e *exim) badLogin(at time.Time, login string, from peer) {
	end := at.Add(2 * time.Second)
	who, pid := e.connected(at, from, 587), e.fork()
	e.log(end, pid, "dovecot_plain authenticator failed for %s: 535 Incorrect authentication data (set_id=%s)", who, login)
	e.log(end, pid, "SMTP connection from %s closed by QUIT", who)
}

func (e *exim) relayAttempt(at time.Time, from peer, to string) {
	who, pid := e.connected(at, from, 25), e.fork()
	e.log(at, pid, "H=%s F=<x@outside.test> rejected RCPT <%s>: relay not permitted", who, to)
	e.log(at, pid, "SMTP connection from %s closed by QUIT", who)
}

func (e *exim) mailboxLogin(time.Time, string, peer) {}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// messageID makes an id as Exim before 4.97 does: seconds, process and halves
// of milliseconds, each in base 62.
func messageID(at time.Time, pid int) string {
	return inBase(base62, at.Unix(), 6) + "-" + inBase(base62, int64(pid), 6) + "-" + inBase(base62, int64(at.Nanosecond()/500_000), 2)
}
