package loggen

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A message is what one message was and what became of it.
type message struct {
	at      time.Time
	login   string // empty for inbound mail and scripts
	script  string // directory of the web script that sent it, else empty
	uid     int    // of the script's owner
	user    string // of the script's owner
	sender  string
	from    peer // who submitted it; zero for scripts
	rcpts   []delivery
	size    int
	subject string
}

// A delivery is one recipient and what its server said.
type delivery struct {
	to   string
	fate fate
}

// A fate is what becomes of one recipient.
type fate uint8

const (
	sent        fate = iota
	local            // delivered to a mailbox here
	unknown          // 550 5.1.1
	spam             // 554 5.7.1 after the body
	full             // 552 5.2.2
	greylisted       // 451 4.7.1, accepted at the second attempt
	limited          // 421 4.7.0, accepted at the third attempt
	unreachable      // no connection, accepted at the third attempt
)

// reply is what the recipient's server said at first, "" where it did not answer.
func (f fate) reply() (dsn, text string) {
	switch f {
	case unknown:
		return "5.1.1", "550 5.1.1 The email account that you tried to reach does not exist"
	case spam:
		return "5.7.1", "554 5.7.1 Message rejected as spam"
	case full:
		return "5.2.2", "552 5.2.2 Mailbox full"
	case greylisted:
		return "4.7.1", "451 4.7.1 Greylisted, try again later"
	case limited:
		return "4.7.0", "421 4.7.0 Unusual rate of unsolicited mail from your address, try again later"
	case unreachable:
		return "4.4.1", ""
	}
	return "2.0.0", "250 2.0.0 Ok"
}

// tries is the number of attempts that fail for now before the last.
func (f fate) tries() int {
	switch f {
	case greylisted:
		return 1
	case limited, unreachable:
		return 2
	}
	return 0
}

// final says whether a recipient with this fate is returned to the sender.
func (f fate) final() bool { return f == unknown || f == spam || f == full }

// A peer is a host that talks to the server.
type peer struct{ name, addr string }

// traffic invents what happens, event by event, in the order of time.
type traffic struct {
	o       Options
	rng     *rand.Rand
	now     time.Time
	people  []person
	hijacks []running
	strange int // recipients whom nobody knew, so far
}

// A person is an account's own world.
type person struct {
	login    string
	home     [2]peer
	contacts []string
	shop     bool
}

// running is how far a hijack has come.
type running struct {
	Hijack
	next time.Time
	left int
}

var (
	firstNames = [...]string{"alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "karl", "lena", "mike", "nina", "olga", "paul"}
	hostings   = [...]string{"shop", "blog", "office", "garden", "studio", "club", "bakery", "travel"}
	providers  = [...]string{"bigmail.test", "postbox.test", "freemail.test", "webpost.test"}
	subjects   = [...]string{"Re: your order", "Meeting on Monday", "Invoice 2026-0412", "Thanks!", "Re: Re: photos", "Offer", "Question about delivery", "Newsletter"}
)

// Login returns the login of the account with an index below o.Accounts.
func (o Options) Login(account int) string {
	return fmt.Sprintf("%s%d@%s%d.test", firstNames[account%len(firstNames)], account, hostings[account/3%len(hostings)], account/24)
}

func newTraffic(o Options, rng *rand.Rand) *traffic {
	t := &traffic{o: o, rng: rng, now: o.Start, people: make([]person, o.Accounts)}
	for i := range t.people {
		t.people[i] = person{login: o.Login(i), home: [2]peer{home(i), home(i + 65536)}, shop: i >= o.Accounts-o.Shops}
	}
	for _, h := range o.Hijacks {
		if h.Every == 0 {
			h.Every = 2 * time.Second
		}
		if h.Messages == 0 {
			h.Messages = 50
		}
		if h.Rcpts == 0 {
			h.Rcpts = 1
		}
		t.hijacks = append(t.hijacks, running{Hijack: h, next: o.Start.Add(h.After), left: h.Messages})
	}
	return t
}

// home is the i-th customer's line, in the range reserved for benchmarks.
func home(i int) peer {
	a, b, c := 18+i>>16&1, i>>8&255, i&255
	return peer{fmt.Sprintf("dsl-%d-%d.access.test", b, c), fmt.Sprintf("198.%d.%d.%d", a, b, c)}
}

// stranger is a host that none of the accounts uses.
func (t *traffic) stranger() peer {
	return peer{"unknown", fmt.Sprintf("203.0.113.%d", 1+t.rng.IntN(254))}
}

// step lets one more thing happen and returns its time. Nothing that happens
// later is earlier than that.
func (t *traffic) step(s scribe) time.Time {
	at := t.now.Add(t.gap())
	if h := t.dueHijack(at); h != nil {
		t.now = h.next
		t.hijacked(s, h)
		return t.now
	}
	t.now = at
	switch n := t.rng.IntN(1000); {
	case n < 780:
		t.submission(s)
	case n < 930:
		t.inbound(s)
	case n < 970:
		t.scriptMail(s)
	case n < 990:
		s.relayAttempt(t.now, t.stranger(), t.somebodyNew())
	default:
		s.badLogin(t.now, t.someone().login, t.stranger())
	}
	if t.o.Dovecot && t.rng.IntN(3) == 0 {
		p := t.someone()
		s.mailboxLogin(t.now, p.login, p.home[0])
	}
	return t.now
}

// gap is the time to the next event: random arrivals, fewer at night.
func (t *traffic) gap() time.Duration {
	busy := 1 + 0.8*math.Sin(2*math.Pi*(float64(t.now.Hour())-9)/24)
	return time.Duration(t.rng.ExpFloat64() / (t.o.Rate * busy) * float64(time.Second))
}

// dueHijack returns the hijack whose next message comes first, if before at.
func (t *traffic) dueHijack(at time.Time) (due *running) {
	for i := range t.hijacks {
		h := &t.hijacks[i]
		if h.left > 0 && h.next.Before(at) && (due == nil || h.next.Before(due.next)) {
			due = h
		}
	}
	return due
}

// someone picks an account; those with low indexes are busier.
func (t *traffic) someone() *person {
	u := t.rng.Float64()
	return &t.people[int(u*math.Sqrt(u)*float64(len(t.people)))]
}

func (t *traffic) submission(s scribe) {
	p := t.someone()
	m := t.draft(p.login)
	m.login, m.from = p.login, p.home[0]
	if t.rng.IntN(8) == 0 {
		m.from = p.home[1]
	}
	for n := t.rcptCount(); n > 0; n-- {
		if to := t.contact(p); !m.addresses(to) {
			m.rcpts = append(m.rcpts, delivery{to, t.fate(ordinary)})
		}
	}
	s.message(m)
}

func (m *message) addresses(to string) bool {
	return slices.ContainsFunc(m.rcpts, func(d delivery) bool { return d.to == to })
}

// rcptCount is one recipient mostly, sometimes a few.
func (t *traffic) rcptCount() int {
	if t.rng.IntN(7) > 0 {
		return 1
	}
	return 2 + t.rng.IntN(4)
}

func (t *traffic) inbound(s scribe) {
	m := t.draft(t.somebodyNew())
	_, domain, _ := strings.Cut(m.sender, "@")
	m.from = peer{"mx." + domain, fmt.Sprintf("192.0.2.%d", 1+t.rng.IntN(254))}
	m.rcpts = []delivery{{t.someone().login, local}}
	s.message(m)
}

func (t *traffic) scriptMail(s scribe) {
	i := t.rng.IntN(len(t.people))
	m := t.scripted(i)
	m.rcpts = []delivery{{t.somebodyNew(), t.fate(ordinary)}}
	if t.rng.IntN(3) > 0 { // a contact form, which writes to its owner
		m.rcpts[0] = delivery{t.people[i].login, local}
	}
	s.message(m)
}

// scripted drafts a message of the web site that belongs to an account.
func (t *traffic) scripted(account int) message {
	login := t.people[account].login
	_, domain, _ := strings.Cut(login, "@")
	m := t.draft("www@" + domain)
	m.user = "u" + strings.TrimSuffix(domain, ".test")
	m.uid = 1000 + account/3
	m.script = "/home/" + m.user + "/public_html/wp"
	return m
}

func (t *traffic) hijacked(s scribe, h *running) {
	p := &t.people[h.Account]
	m := t.draft(p.login)
	m.login, m.from = p.login, t.stranger()
	if h.Script {
		m = t.scripted(h.Account)
	}
	m.subject = "Your parcel is waiting"
	for range h.Rcpts {
		m.rcpts = append(m.rcpts, delivery{t.somebodyNew(), t.fate(bought)})
	}
	h.left--
	h.next = h.next.Add(h.Every)
	s.message(m)
}

func (t *traffic) draft(sender string) message {
	size := 2000 + int(t.rng.ExpFloat64()*30000)
	return message{at: t.now, sender: sender, size: size, subject: subjects[t.rng.IntN(len(subjects))]}
}

// contact picks whom p writes to: somebody of its circle, which grows slowly,
// and busier with those it knew first.
func (t *traffic) contact(p *person) string {
	for len(p.contacts) < 3 {
		p.contacts = append(p.contacts, t.somebodyNew())
	}
	if p.shop {
		return t.somebodyNew()
	}
	if t.rng.IntN(25) == 0 && len(p.contacts) < 200 {
		p.contacts = append(p.contacts, t.somebodyNew())
		return p.contacts[len(p.contacts)-1]
	}
	u := t.rng.Float64()
	return p.contacts[int(u*u*float64(len(p.contacts)))]
}

// somebodyNew is a recipient that no message named before.
func (t *traffic) somebodyNew() string {
	t.strange++
	domain := providers[t.rng.IntN(len(providers))]
	if t.rng.IntN(2) == 0 {
		domain = fmt.Sprintf("company%d.test", t.rng.IntN(500))
	}
	return fmt.Sprintf("%s.%d@%s", firstNames[t.rng.IntN(len(firstNames))], t.strange, domain)
}

// Chances of the fates that are not sent, in per mille, in the order of the
// constants from unknown on.
var (
	ordinary = [...]int{8, 2, 4, 12, 2, 4}       // people who know each other
	bought   = [...]int{220, 90, 30, 20, 80, 20} // a list that somebody bought
)

func (t *traffic) fate(chances [6]int) fate {
	n := t.rng.IntN(1000)
	for i, c := range chances {
		if n -= c; n < 0 {
			return unknown + fate(i)
		}
	}
	return sent
}
