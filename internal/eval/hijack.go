package eval

import (
	"fmt"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// trial injects one hijack of each style that has such a victim after message i.
func (p *pass) trial(i int) {
	p.trials++
	at := p.traffic[i].Time + p.rnd.Int64N(int64(6*time.Hour/time.Second))
	var whom [victims]mailq.Account
	for _, v := range p.of {
		whom[v] = p.victim(v, i)
	}
	for s := range styles {
		style := &styles[s]
		account := whom[style.victim]
		of := p.pasts[account]
		if of == nil { // it never sent before
			of = newPast()
		}
		if account == "" || len(of.seen) < style.leastContacts() {
			continue
		}
		h := hijack{pass: p, style: style, account: account, at: at, next: i + 1, of: i}
		p.detector.Try(account, func() { of.try(h.run) })
		for sys := range p.stops {
			p.stops[sys][s] = append(p.stops[sys][s], h.stops[sys])
		}
	}
}

// victim chooses one for a hijack after message i; empty if there is none.
func (p *pass) victim(v victim, i int) mailq.Account {
	const tries = 300
	switch v {
	case nobody:
		return mailq.Account(fmt.Sprintf("script:/home/u%d/public_html/wp-content/uploads/x.php", p.rnd.Uint32()))
	case letters, form:
		a := p.pick[v][p.rnd.IntN(len(p.pick[v]))]
		if p.pasts[a] == nil {
			return "" // it has yet to begin
		}
		return a
	}
	for range tries {
		m := &p.traffic[p.rnd.IntN(i+1)]
		a := m.Account
		if m.Kind != mailq.Submitted || a.Kind() != mailq.KindLogin || !p.Part.has(a) {
			continue
		}
		if v == anyone || p.traffic[i].Time-p.pasts[a].last.Time > 30*86400 {
			return a
		}
	}
	return ""
}

// A hijack is one trial under way.
type hijack struct {
	*pass
	style   *style
	account mailq.Account
	at      int64
	next    int // the traffic's message that comes next
	of      int // messages of the traffic that have gone by
	home    Message
	abroad  byte
	stops   []stop
}

// run sends the hijacker's messages among the victim's own until every system
// has stopped him or he is done.
func (h *hijack) run(of *past) {
	var done outcome
	h.stops = make([]stop, len(h.pass.stops))
	h.stops[0].at = new([reaches]int)
	h.home, h.abroad = of.last, byte(h.rnd.IntN(200))
	contacts := h.contacts(of)
	begun, rcpts := h.at, 0
	for n := range h.style.messagesOf() {
		if n == h.style.probes && n > 0 {
			h.at += int64(h.style.silence / time.Second)
		}
		h.owner(of, &done)
		m := h.message(contacts, n)
		rcpts += len(m.To)
		h.send(&m, of, &done)
		if h.note(&done, rcpts, time.Duration(h.at-begun)*time.Second) {
			return
		}
		h.at += int64(h.style.gap / time.Second)
	}
}

// note writes down what each system has come to, and reports whether that is all
// there is to know.
func (h *hijack) note(done *outcome, rcpts int, after time.Duration) bool {
	enough := rules.Hold
	if h.style.contacts {
		enough = rules.Throttle
	}
	all := true
	for s := range h.stops {
		if st := &h.stops[s]; !st.stopped {
			st.stopped, st.rcpts, st.after = done.actions[s] >= enough, rcpts, after
			all = all && st.stopped
		}
	}
	at := h.stops[0].at
	for r := 1; r <= done.reach; r++ {
		if at[r] == 0 {
			at[r] = rcpts
		}
	}
	return all && at[reaches-1] > 0
}

// owner shows what the victim himself does meanwhile.
func (h *hijack) owner(of *past, done *outcome) {
	for ; h.next < len(h.traffic) && h.traffic[h.next].Time <= h.at; h.next++ {
		if m := &h.traffic[h.next]; m.Account == h.account {
			h.send(m, of, done)
		}
	}
}

// message makes the hijacker's nth.
func (h *hijack) message(contacts []uint64, n int) Message {
	m := Message{Time: h.at, Kind: mailq.Submitted, Account: h.account, Client: h.home.Client, From: h.home.From, Script: h.home.Script, Size: 1000 + h.rnd.IntN(60_000)}
	switch h.style.from {
	case abroad:
		m.Client = netAt(botNets, h.abroad, 1)
	case botnet:
		m.Client = netAt(botNets, byte(h.rnd.IntN(40)), byte(h.rnd.IntN(25)))
	}
	if h.style.senders {
		m.From = fmt.Sprintf("x%d@elsewhere%d.test", h.rnd.Uint32(), h.rnd.IntN(1000))
	}
	if h.style.alike {
		m.Size, m.Subject = 4321, "Your account"
	}
	if h.style.victim == nobody {
		m.Script = string(h.account[len("script:"):])
	}
	m.To = make([]Recipient, h.style.rcpts)
	for i := range m.To {
		m.To[i] = h.recipient(contacts, n*len(m.To)+i)
	}
	return m
}

// recipient makes the hijacker's kth.
func (h *hijack) recipient(contacts []uint64, k int) Recipient {
	r := Recipient{Hash: h.rnd.Uint64(), Domain: domain}
	switch {
	case h.style.covers(k):
		r.Hash = contacts[k%coverContacts]
		return r
	case h.style.contacts:
		r.Hash = contacts[k%len(contacts)]
	case h.rnd.Float64() < h.style.known:
		if m := &h.traffic[h.rnd.IntN(h.of+1)]; len(m.To) > 0 {
			r = m.To[h.rnd.IntN(len(m.To))]
		}
	}
	if h.rnd.Float64() < h.style.dead {
		r.Fate, r.Class = mailq.Bounced, mailq.RecipientUnknown
	}
	return r
}

// contacts are the victim's, in an order of the trial's own.
func (h *hijack) contacts(of *past) []uint64 {
	if h.style.leastContacts() == 0 {
		return nil
	}
	all := make([]uint64, 0, len(of.seen))
	for hash := range of.seen {
		all = append(all, hash)
	}
	slices.Sort(all)
	h.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}
