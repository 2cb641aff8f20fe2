package detector

import (
	"fmt"

	"github.com/vedetta-watch/vedetta/mailq"
)

// replies watches what the recipients' servers say about the mail. A
// message called spam counts against its sender. A remark about our address
// or a domain counts a little, and is shared among those who have just
// sent to that provider. Refusals for want of SPF or DKIM, and limits
// without blame, are not the user's spam.
type replies struct {
	chart
	blamed   uint16
	whose    uint32 // of which recipient the latest was
	provider string
	says     mailq.Class
}

const (
	contentStep    = 4.0
	contentLeast   = 1.0 // of one among many that were taken
	knownStep      = .5  // times that, where none of the message's recipients is new
	answeredStep   = .1  // … and where that recipient had written first: anybody can, and refuse the answer
	reputationStep = 1.0
	domainStep     = 1.0
	acceptedStep   = -.1
	repliesTop     = 12.0
	reputationTop  = 4.0 // what remarks about an address may add up to
)

// answered takes a reply about the account's mail.
func (d *Detector) answered(a *account, ev *mailq.Event, now int64) {
	if ev.Kind == mailq.Delivered {
		d.fleet.peers.note(ev.Reply.Provider, a.key, now)
		if a.rare != nil && a.rare.reply.s > 0 {
			a.rare.reply.add(acceptedStep, repliesTop, now)
			a.say(familyReplies, a.rare.reply.s)
		}
		return
	}
	said := chart{}
	if a.rare != nil {
		said = a.rare.reply.chart
	}
	x := float32(0)
	switch ev.Reply.Class {
	case mailq.Content:
		x = contentStep
		if said.s == 0 { // what was taken before it counts, too
			x = max(x+acceptedStep*float32(a.ep.rcpts), contentLeast)
		} else if w := a.rare.reply.whose; w == uint32(ev.To.Hash) || w == uint32(ev.To.Newest()) {
			x = 0 // who tries again is told the same again
		}
	case mailq.AddressReputation:
		x = reputationStep * d.fleet.peers.share(ev.Reply.Provider, a.key, now)
		x = min(x, max(reputationTop-said.s, 0))
	case mailq.DomainReputation:
		x = min(domainStep, max(reputationTop-said.s, 0))
	}
	m := a.find(ev.Message)
	if ev.Reply.Class == mailq.Content {
		switch {
		case d.wroteFirst(a, &ev.To):
			x *= answeredStep
		case m != nil && m.fresh == 0:
			x *= knownStep
		}
	}
	if x == 0 || (m != nil && m.blamed) {
		return
	}
	if m != nil {
		m.blamed = true
	}
	r := &a.seldom().reply
	if r.s == 0 {
		r.blamed = 0
	}
	r.blamed = min(r.blamed+1, 1<<16-2)
	r.whose = uint32(ev.To.Newest())
	r.provider, r.says = clip(ev.Reply.Provider, 32), ev.Reply.Class
	r.add(x, repliesTop, now)
	a.begin(m, now)
	a.say(familyReplies, r.s)
}

func (a *account) repliesText() string {
	r := &a.rare.reply
	who := r.provider
	if who == "" {
		who = "the recipients' servers"
	}
	switch r.says {
	case mailq.AddressReputation:
		return fmt.Sprintf("%s complained about the sending address %s, and this account sent much of what it got", who, counted(int(r.blamed), "time"))
	case mailq.DomainReputation:
		return fmt.Sprintf("%s complained about the sender's domain %s", who, counted(int(r.blamed), "time"))
	}
	return fmt.Sprintf("%s called spam by the recipients' servers, the latest by %s", counted(int(r.blamed), "message"), who)
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// peers knows who has just sent to which provider, so that a remark about
// an address is shared among them. Both tables are bounded; the least of the
// known makes room.
type peers struct {
	at     []traffic
	others int
}

// A traffic is one provider's latest arrivals; counts decay in ten minutes.
type traffic struct {
	provider string
	at       int64
	total    float32
	who      [8]uint32 // account keys
	n        [8]float32
}

const (
	peersMax   = 32
	peersSpan  = 10 * minute
	peersAtAll = 3 // arrivals below which nobody's share is known
)

func (p *peers) find(provider string) *traffic {
	for i := range p.at {
		if p.at[i].provider == provider {
			return &p.at[i]
		}
	}
	return nil
}

// note counts one arrival at the provider.
func (p *peers) note(provider string, who uint32, now int64) {
	if provider == "" {
		return
	}
	t := p.find(provider)
	if t == nil {
		if len(p.at) == peersMax {
			p.others++
			return
		}
		p.at = append(p.at, traffic{provider: provider, at: now})
		t = &p.at[len(p.at)-1]
	}
	t.age(now)
	t.total++
	least := 0
	for i := range t.who {
		if t.who[i] == who {
			t.n[i]++
			return
		}
		if t.n[i] < t.n[least] {
			least = i
		}
	}
	t.who[least] = who
	t.n[least]++ // space-saving: an upper bound of the newcomer's count
}

func (t *traffic) age(now int64) {
	keep := decayed(now-t.at, peersSpan)
	t.at = max(t.at, now)
	if keep == 1 {
		return
	}
	t.total *= keep
	for i := range t.n {
		t.n[i] *= keep
	}
}

// share is the account's part of what the provider has just got from us; 0
// where that is not known.
func (p *peers) share(provider string, who uint32, now int64) float32 {
	t := p.find(provider)
	if t == nil {
		return 0
	}
	t.age(now)
	if t.total < peersAtAll {
		return 0
	}
	for i := range t.who {
		if t.who[i] == who {
			return min(t.n[i]/t.total, 1)
		}
	}
	return 0
}
