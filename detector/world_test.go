package detector

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// monday is when the tests' servers were put into service.
var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// A world is a small mail server, told as events.
type world struct {
	t     testing.TB
	d     *Detector
	n     uint64
	found []rules.Finding
	tap   func(*mailq.Event) // sees every event first
}

func newWorld(t testing.TB, dir Directory) *world {
	return &world{t: t, d: New(Default(), dir)}
}

// A mail is one message. The zero values are filled in: one recipient, at
// the account's own network, delivered.
type mail struct {
	to      []string
	from    string
	client  string
	size    int
	subject string
	script  string
	fate    mailq.Kind // of its recipients; Unknown: Delivered
	reply   mailq.Reply
	silent  bool // no outcome is told
}

// send tells a message and what became of it a second later.
func (w *world) send(account mailq.Account, at time.Time, m mail) uint64 {
	w.n++
	id := w.n * 0x9e3779b97f4a7c15
	if m.size == 0 {
		m.size = 1000 + int(recipientHash(w.n)%60000)
	}
	if m.from == "" && account.Kind() == mailq.KindLogin {
		m.from = string(account)
	}
	ev := mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Host: "mx1", Account: account, Message: id, Sender: m.from,
		Size: m.size, Subject: m.subject, Script: m.script, Rcpts: len(m.to), Client: addr(m.client)}
	w.observe(&ev)
	if m.silent {
		return id
	}
	if m.fate == mailq.Unknown {
		m.fate, m.reply = mailq.Delivered, mailq.Reply{Class: mailq.OK, Code: 250, Provider: "google"}
	}
	for _, to := range m.to {
		w.outcome(account, at.Add(time.Second), id, to, m.fate, m.reply, true)
	}
	return id
}

// outcome tells what became of one recipient.
func (w *world) outcome(account mailq.Account, at time.Time, id uint64, to string, fate mailq.Kind, reply mailq.Reply, isNew bool) {
	r := rcpt(to)
	ev := mailq.Event{Time: at, Kind: fate, Host: "mx1", Account: account, Message: id, To: r, Reply: reply}
	if isNew {
		ev.New = []mailq.Recipient{r}
	}
	w.observe(&ev)
}

func (w *world) observe(ev *mailq.Event) {
	if w.tap != nil {
		w.tap(ev)
	}
	if f, ok := w.d.Observe(ev); ok {
		w.found = append(w.found, f)
	}
}

func (w *world) login(account mailq.Account, at time.Time, client string, ok bool) {
	kind := mailq.LoginSucceeded
	if !ok {
		kind = mailq.LoginFailed
	}
	w.observe(&mailq.Event{Time: at, Kind: kind, Account: account, Client: addr(client), Service: "imap"})
}

// worst is the strongest that the shipped rules make of what was found about
// the account since the last call of forget.
func (w *world) worst(account mailq.Account) level {
	worst := quiet
	for _, f := range w.found {
		if f.Subject == string(account) {
			worst = max(worst, levelOf(f))
		}
	}
	return worst
}

func (w *world) forget() { w.found = nil }

// last is the latest finding about the account.
func (w *world) last(account mailq.Account) rules.Finding {
	w.t.Helper()
	for i := len(w.found) - 1; i >= 0; i-- {
		if w.found[i].Subject == string(account) {
			return w.found[i]
		}
	}
	w.t.Fatalf("nothing was found about %s", account)
	return rules.Finding{}
}

// office gives n mailboxes, user0@office.test …, some weeks of ordinary
// days: a few messages to 25 contacts each, now and then to somebody new.
// It returns the evening of the last day.
func (w *world) office(n, days int) time.Time {
	for day := range days {
		for who := range n {
			account := mailq.Account(fmt.Sprintf("user%d@office.test", who))
			for k := range 1 + int(recipientHash(uint64(day*n+who))%5) {
				h := recipientHash(uint64(day*1000003 + who*101 + k))
				to := fmt.Sprintf("contact%d@client%d.test", h%25, who)
				if h>>32%40 == 0 {
					to = fmt.Sprintf("new%d@elsewhere%d.test", h, h%50)
				}
				at := monday.AddDate(0, 0, day).Add(8*time.Hour + time.Duration(h>>20%36000)*time.Second)
				if at.Before(w.after(account)) {
					at = w.after(account)
				}
				w.send(account, at, mail{to: []string{to}, client: fmt.Sprintf("10.1.%d.5", who)})
			}
		}
	}
	return monday.AddDate(0, 0, days).Add(-4 * time.Hour)
}

// after is a moment after the account's last event.
func (w *world) after(account mailq.Account) time.Time {
	if a := w.d.accounts[account]; a != nil {
		return time.Unix(0, a.last).Add(time.Minute)
	}
	return time.Time{}
}

// burst sends n messages to a stranger each and returns how many it took
// until at least the level was reached, or 0.
func (w *world) burst(account mailq.Account, at time.Time, gap time.Duration, n int, want level, m mail) int {
	for i := range n {
		m.to = []string{fmt.Sprintf("victim%d-%d@prey%d.test", w.n, i, recipientHash(w.n)%30)}
		w.send(account, at.Add(time.Duration(i)*gap), m)
		if w.worst(account) >= want {
			return i + 1
		}
	}
	return 0
}

func rcpt(address string) mailq.Recipient {
	h := uint64(14695981039346656037)
	for i := range len(address) {
		h = (h ^ uint64(address[i])) * 1099511628211
	}
	r := mailq.Recipient{Hash: recipientHash(h)}
	for i := range len(address) {
		if address[i] == '@' {
			r.Domain = address[i+1:]
		}
	}
	return r
}

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func addresses(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%d@people.test", prefix, i)
	}
	return all
}

// byThirdByte is a database of countries for tests: 203.0.N.x is the Nth.
func byThirdByte(a netip.Addr) Place {
	b := a.As4()
	if b[0] != 203 {
		return Place{Country: "DE", ASN: 1}
	}
	return Place{Country: string([]byte{'A' + b[2], 'X'}), ASN: uint32(b[2]) + 100}
}
