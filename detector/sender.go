package detector

import (
	"fmt"

	"github.com/vedetta-watch/vedetta/mailq"
)

// senders watches envelope senders that do not belong to the login. Aliases
// and domains that the account owns are no evidence, nor is a foreign
// sender that it has used before. Forwarders, scripts and relays send
// as others by their nature and are not judged by it.
type senders struct {
	chart
	known   [4]uint32 // foreign senders used in ordinary times
	next    uint8
	recent  [3]uint32 // foreign senders of the last hour
	since   int64
	varied  uint8
	foreign share // messages with a foreign sender not used before
}

const (
	senderFirst = 1.0
	senderVary  = 2.0
	sendersTop  = 9.0
	sendersMany = 12.0 // … of many foreign senders
	varies      = 3    // foreign senders in an hour that are several …
	manyVaried  = 10   // … and that are many: no owner writes under as many names
)

// sentAs takes the sender of a submitted message.
func (d *Detector) sentAs(a *account, sender string, now int64) {
	if a.class != people || sender == "" || d.dir == nil {
		return
	}
	h := hashOf(sender)
	if h == a.asSelf {
		return
	}
	if d.dir.Owns(a.name, sender) {
		a.asSelf = h
		return
	}
	s := &a.seldom().from
	for _, k := range s.known {
		if k == h {
			return
		}
	}
	p := min(max(s.foreign.mean(.02, 20), .02), 1)
	x := min(senderFirst, max(0, log(.5/p)))
	if s.vary(h, now) {
		x *= senderVary
	}
	top := float32(sendersTop)
	if s.varied >= manyVaried {
		top = sendersMany
	}
	s.add(x, top, now)
	suspect := a.ep.top >= d.cfg.Floor
	if !suspect {
		s.known[s.next%4] = h
		s.next = (s.next + 1) % 4
		s.foreign.add(true, 1)
		s.foreign.limit(100)
	}
	a.begin(nil, now)
	a.say(familySender, s.s)
}

// vary notes a foreign sender and reports whether there were several within
// the hour.
func (s *senders) vary(h uint32, now int64) bool {
	if now-s.since > hour {
		s.since, s.varied, s.recent = now, 0, [3]uint32{}
	}
	for _, r := range s.recent {
		if r == h {
			return s.varied >= varies
		}
	}
	s.recent[s.varied%3] = h
	s.varied = min(s.varied+1, 200)
	return s.varied >= varies
}

func (a *account) senderText() string {
	if a.rare.from.varied > 1 {
		return fmt.Sprintf("sends under %d addresses that do not belong to it", a.rare.from.varied)
	}
	return "sends under an address that does not belong to it"
}

// Directory says who owns what; *mailq.Directory does.
type Directory interface {
	Owns(account mailq.Account, sender string) bool
	IsShared(account mailq.Account) bool
}
