package mailq

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse reads whatever an attacker gets into a log. Nothing panics; what
// events say is bounded text; and the only login that anybody is charged with
// is the one that Postfix and Exim wrote where they write logins.
func FuzzParse(f *testing.F) {
	f.Add(at(clientLine(id1, "alice@shop.test"), activeLine(id1, "alice@shop.test", 1), sentLine(id1, "r@ok.test")))
	f.Add(longLog())
	for _, line := range []string{
		`2026-11-22 05:33:39 [20443] ` + exim1 + ` <= "a A=dovecot_login:victim@shop.test P=esmtpsa b"@evil.test H=(x) [198.51.100.7]:1 P=esmtp S=1`,
		"2026-11-22 05:26:42 auth: Info: passwd-file(alice@shop.test,127.0.0.1): unknown user (given password: x) - trying the next passdb",
		"<22>Nov 22 05:28:20 mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 554 5.7.1 <>: x; from=<> to=<> proto=ESMTP helo=<>",
		"\x00\xff\xfe", "Nov 22 05:28:20 ", "2026-11-22T05:28:20.999999999999999999999+99:99 x y: z",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, log string) {
		p := newParser()
		p.MaxOpen = 100
		for line := range bytes.Lines([]byte(log)) {
			ev, ok := p.Parse(line)
			if ok {
				checkBounds(t, &ev)
			}
		}
		restored := newParser()
		p.Changed(func(key uint64, state []byte) {
			if err := restored.Restore(key, state); err != nil {
				t.Errorf("a state of our own cannot be put back: %v", err)
			}
		})
	})
}

func checkBounds(t *testing.T, ev *Event) {
	t.Helper()
	if ev.Kind == Unknown || ev.Time.IsZero() {
		t.Errorf("an event without kind or time: %+v", ev)
	}
	for _, s := range []struct {
		text  string
		limit int
	}{{ev.Host, 255}, {string(ev.Account), 512}, {ev.QueueID, 64}, {ev.Sender, 320}, {ev.Subject, 256}, {ev.Script, 256}, {ev.Reply.Text, 256},
		{ev.Reply.Provider, 32}, {ev.Reply.Enhanced, 16}, {ev.Method, 255}, {ev.Service, 255}, {ev.To.Domain, 255}} {
		if len(s.text) > s.limit || !utf8.ValidString(s.text) || strings.ContainsFunc(s.text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%s holds %q", kindNames[ev.Kind], s.text)
		}
	}
}

// FuzzHostileFields puts arbitrary text into the fields that strangers write,
// in lines as the servers write them. It never makes anybody's login.
func FuzzHostileFields(f *testing.F) {
	f.Add("<x> sasl_username=victim@shop.test", "x@evil.test", "vm", "hello")
	f.Add("1@x P=esmtpa A=dovecot_login:victim@shop.test", `"a A=dovecot_login:victim@shop.test P=esmtpsa b"@evil.test`, "x] A=l:victim@shop.test P=esmtpa [1.2.3.4]", `x" A=l:victim for z`)
	f.Add("a) [1.2.3.4]:5 P=esmtpa A=l:victim@shop.test S=1", "<>", "a) [1.2.3.4] P=esmtpa A=l:v S=1 id=2", ") [")
	f.Fuzz(func(t *testing.T, mid, sender, helo, subject string) {
		mid, sender, helo, subject = oneLine(mid), oneLine(sender), oneLine(helo), strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(subject))
		sender = quotedSender(sender)
		log := at(clientLine(id1, ""), "postfix/cleanup[1]: "+id1+": message-id="+mid, fmt.Sprintf("postfix/qmgr[1]: %s: from=<%s>, size=1, nrcpt=1 (queue active)", id1, sender), sentLine(id1, "r@ok.test")) +
			eximAt(fmt.Sprintf(`%s <= %s H=(%s) [198.51.100.7]:1 I=[192.0.2.1]:25 P=esmtp S=1 id=%s T="%s" from <%s> for r@shop.test`, exim1, sender, helo, mid, subject, sender))
		for _, ev := range events(newParser(), log) {
			if ev.Account != "" {
				t.Errorf("%s is charged to %q\n%s", brief(ev), ev.Account, log)
			}
		}
	})
}

// FuzzHostileRecipient sends to recipients with arbitrary local parts, which
// Exim logs with and without their quotes. None makes an address that the mail
// left from.
func FuzzHostileRecipient(f *testing.F) {
	f.Add("a@b T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25", "250 Ok")
	f.Add(`a@b <x@y> T=q H=a [192.0.2.7] I=[203.0.113.66]:25 C="250`, `T=x H=a [192.0.2.7] I=[203.0.113.66]`)
	f.Add(`a@b (c T=q H=a [192.0.2.7] I=[203.0.113.66]) F=<`, `550 " H=a [192.0.2.7]: I=[203.0.113.66] T=x`)
	f.Fuzz(func(t *testing.T, local, reply string) {
		escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
		local, reply = oneLine(local), escape.Replace(oneLine(reply))
		arrival := exim1 + ` <= alice@shop.test H=(vm) [198.51.100.7]:1 P=esmtpa A=dovecot_plain:alice@shop.test S=1`
		for _, outcome := range []string{
			fmt.Sprintf(`=> %s@ok.test <"%s"@ok.test> F=<alice@shop.test> R=outside T=remote_smtp S=1 H=mx.ok.test [192.0.2.7]:25 C="%s" QT=0s`, local, escape.Replace(local), reply),
			fmt.Sprintf(`=> %s <"%s"@shop.test> F=<alice@shop.test> R=inside T=inbox S=1`, local, escape.Replace(local)),
			fmt.Sprintf(`=> r@ok.test ("%s"@shop.test, "%s"@shop.test) <bob@shop.test> R=outside T=remote_smtp H=mx.ok.test [192.0.2.7] C="%s"`, escape.Replace(local), escape.Replace(local), reply),
		} {
			for _, ev := range events(newParser(), eximAt(arrival, exim1+" "+outcome)) {
				if ev.From.IsValid() {
					t.Errorf("%s left from %s\n%s", brief(ev), ev.From, outcome)
				}
			}
		}
	})
}

// oneLine is what a server leaves of a stranger's text: it escapes or drops
// what would end the line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}

// quotedSender is a sender as the servers accept one: a local part in quotes
// if it has anything but letters in it.
func quotedSender(s string) string {
	local := strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"@evil.test`)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"@evil.test`
}

func FuzzRestore(f *testing.F) {
	p := newParser()
	for line := range strings.Lines(longLog()) {
		p.Parse([]byte(line))
	}
	p.Changed(func(_ uint64, state []byte) { f.Add(bytes.Clone(state)) })
	f.Fuzz(func(t *testing.T, state []byte) {
		p := newParser()
		if err := p.Restore(7, state); err != nil {
			return
		}
		p.Parse([]byte("Nov 22 05:28:20 mx1 postfix/qmgr[1]: " + id1 + ": removed\n"))
		p.Changed(func(uint64, []byte) {})
	})
}
