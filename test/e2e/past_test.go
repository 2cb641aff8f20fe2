//go:build linux

package e2e

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A past is what the log tells of the days before a test, so that accounts
// have habits. Postfix writes the same lines in the traditional style.
type past struct {
	text   strings.Builder
	n      int
	client string // whence the mail came, as Postfix names it; empty: from this host, as the tests' own
}

// stamp is the style that names year and zone.
const stamp = "2006-01-02T15:04:05.000000Z07:00"

// message adds the lines of one message that was sent without trouble.
func (p *past) message(at time.Time, login string, to ...string) {
	p.n++
	id := fmt.Sprintf("4b%08dz1b2C", p.n)
	line := func(after time.Duration, daemon, format string, args ...any) {
		fmt.Fprintf(&p.text, "%s mx1 postfix/%s: ", at.Add(after).Format(stamp), daemon)
		fmt.Fprintf(&p.text, format+"\n", args...)
	}
	line(0, "submission/smtpd[833]", "%s: client=%s, sasl_method=PLAIN, sasl_username=%s", id, cmp.Or(p.client, "localhost[127.0.0.1]"), login)
	line(time.Millisecond, "cleanup[834]", "%s: message-id=<%d@shop.test>", id, p.n)
	line(2*time.Millisecond, "qmgr[829]", "%s: from=<%s>, size=900, nrcpt=%d (queue active)", id, login, len(to))
	for _, r := range to {
		line(50*time.Millisecond, "smtp[840]",
			"%s: to=<%s>, relay=mx.ok.test[192.0.2.7]:25, delay=0.05, delays=0.01/0/0.02/0.02, dsn=2.0.0, status=sent (250 2.0.0 OK: queued)", id, r)
	}
	line(51*time.Millisecond, "qmgr[829]", "%s: removed", id)
}

// contact is one of the people whom an account has always written to.
func contact(login string, n int) string {
	name, _, _ := strings.Cut(login, "@")
	return fmt.Sprintf("%s-knows-%d@ok.test", name, n)
}

const contacts = 6

// pastDays is shorter than a message may wait in a queue: beyond that, today's
// lines, which are read in between, end what is open of the past.
const pastDays = 4

// calm is an account that writes a few messages a day.
func (p *past) calm(now time.Time, days int, login string) {
	for d := days; d > 0; d-- {
		for i := range 5 {
			p.message(now.AddDate(0, 0, -d).Add(time.Duration(i)*40*time.Minute), login, contact(login, (d+i)%contacts))
		}
	}
}

// busy is an account that writes a message a second now and then.
func (p *past) busy(now time.Time, days int, login string) {
	for d := days; d > 0; d-- {
		for burst := range 4 {
			begun := now.AddDate(0, 0, -d).Add(time.Duration(burst) * 30 * time.Minute)
			for i := range 60 {
				p.message(begun.Add(time.Duration(i)*time.Second), login, contact(login, i%contacts))
			}
		}
	}
}

// write makes it a log file.
func (p *past) write(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "past.log")
	if err := os.WriteFile(path, []byte(p.text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A new installation knows at its first start what old logs told.
func TestLearnBeforeTheFirstStart(t *testing.T) {
	t.Parallel()
	p := past{client: "office[198.51.100.20]"}
	p.calm(time.Now(), 20, alice)
	old := p.write(t)
	now := past{client: p.client, n: 1_000_000}
	now.message(time.Now().Add(-time.Minute), alice, contact(alice, 1))
	s := newService(t, setup{Logs: []string{now.write(t)}})
	if out, errs, code := s.command("replay", "--learn", old); code != 0 || !strings.Contains(errs, "learnt 1 accounts") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	s.start()
	wait(t, "the day's message to be read", func() bool {
		why := s.must("why", alice)
		return strings.Contains(why, "101 messages seen") && strings.Contains(why, "learnt from 20 days")
	})
	if _, errs, code := s.command("replay", "--learn", old); code == 0 || !strings.Contains(errs, "in use") {
		t.Errorf("beside a running service: exit %d: %s", code, errs)
	}
}
