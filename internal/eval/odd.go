package eval

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/vedetta-watch/vedetta/mailq"
)

// oddDays is how long the odd senders go by, and oddYoung how many of these days are
// told apart: in them an account is new to everybody.
const (
	oddDays  = 120
	oddYoung = 30
)

// An oddity is a kind of honest sender whose mail looks strange.
type oddity struct {
	name   string
	victim victim // of which styles it is one; anyone: of none
	live   func(s *sender)
}

// oddities are made from what operators tell of their customers. Each sender of a
// kind differs from the others in size, pace and days.
var oddities = []oddity{
	{"newsletters", letters, newsletter},
	{"month-end invoices", anyone, invoices},
	{"old customer lists, some addresses dead", anyone, oldList},
	{"school circulars", anyone, circulars},
	{"travellers", anyone, traveller},
	{"phones behind carrier NAT", anyone, carrierNAT},
	{"forwarders", anyone, forwarder},
	{"new and busy mailboxes", anyone, newcomer},
	{"shops' order mails", anyone, shop},
	{"alarm devices", anyone, alarms},
	{"contact forms", form, contactForm},
	{"vacation replies", anyone, vacation},
	{"offices behind one address", anyone, officeNAT},
	{"catch-all floods", anyone, catchAll},
	{"owners of many aliases", anyone, aliasOwner},
	{"threads with many in Cc", anyone, ccThreads},
	{"ticket systems", anyone, tickets},
	{"answers to an advertisement", anyone, advertisement},
}

// oddPass is a pass over the real traffic of some months with odd senders beside
// it. They start when the warm-up is over.
func oddPass(o Options, begin int64) *pass {
	rnd := rand.New(rand.NewPCG(o.Seed, 1))
	begin = (begin/(7*86400) + 1) * 7 * 86400 // a Thursday, as 1970-01-01 was
	end := begin + oddDays*86400
	all := slices.Clone(o.Traffic[:since(o.Traffic, end)])
	dir := *o.Owners
	dir.Owners = maps.Clone(dir.Owners)
	if dir.Owners == nil {
		dir.Owners = map[string][]string{}
	}
	group := map[mailq.Account]int{}
	var pick [victims][]mailq.Account
	for k, odd := range oddities {
		for n := range o.Odd {
			s := &sender{Rand: rnd, begin: begin, id: rnd.Uint64(), owners: dir.Owners}
			s.home = netAt(homeNets, 128+byte(k), byte(n))
			s.account = mailq.Account(fmt.Sprintf("odd%d-%d@%s", k, n, domain))
			odd.live(s)
			for _, m := range s.sent {
				group[m.Account] = 1 + 2*k
			}
			pick[odd.victim] = append(pick[odd.victim], s.account)
			all = append(all, s.sent...)
		}
	}
	slices.SortStableFunc(all, func(x, y Message) int { return int(x.Time - y.Time) })
	all = all[:since(all, end)]
	p := newPass(o, all, &dir)
	p.first, p.group, p.pick = since(all, begin), group, pick
	p.tallies = make([]tally, 1+2*len(oddities)) // of each kind, its first days and what follows
	p.late = begin + oddYoung*86400
	return p
}

// A sender is one odd sender in the making.
type sender struct {
	*rand.Rand
	begin   int64
	id      uint64
	account mailq.Account
	home    netip.Addr
	owners  map[string][]string
	sent    []Message
}

// between is a number from lo to hi.
func (s *sender) between(lo, hi int) int { return lo + s.IntN(hi-lo+1) }

// at is a time of a day: its hour, and seconds after that.
func (s *sender) at(day, hour, seconds int) int64 {
	return s.begin + int64(day)*86400 + int64(hour)*3600 + int64(seconds)
}

// who is the nth correspondent of a circle of the sender's.
func (s *sender) who(circle, n int) Recipient {
	h := mix(s.id + uint64(circle)<<32 + uint64(n))
	return Recipient{Hash: h, Domain: fmt.Sprintf("client%d.test", h%40)}
}

// send notes one message and returns it, to be changed.
func (s *sender) send(at int64, to ...Recipient) *Message {
	m := Message{Time: at, Kind: mailq.Submitted, Account: s.account, Client: s.home, Size: 1000 + s.IntN(60_000), To: to}
	if s.account.Kind() == mailq.KindLogin {
		m.From = string(s.account)
	}
	s.sent = append(s.sent, m)
	return &s.sent[len(s.sent)-1]
}

// get notes that a message from somebody came.
func (s *sender) get(at int64, from Recipient) {
	s.sent = append(s.sent, Message{Time: at, Kind: mailq.Delivered, Account: s.account, From: "somebody@" + from.Domain,
		Writer: mailq.Recipient{Hash: from.Hash, Domain: from.Domain}})
}

// Circles of correspondents.
const (
	friends = iota
	strangersToCome
	readers
	partners
)

// working reports whether the day is none of a weekend.
func working(day int) bool { return day%7 != 2 && day%7 != 3 } // day 0 is a Thursday

// person lives as somebody with a mailbox does: some messages on working days,
// most to people known, some to new ones.
func (s *sender) person() {
	known, busy := s.between(20, 80), s.between(2, 7)
	for day := range oddDays {
		if !working(day) {
			continue
		}
		for range s.IntN(busy + 1) {
			to := s.who(friends, s.IntN(known))
			if s.IntN(12) == 0 {
				to = s.who(strangersToCome, s.IntN(1<<20))
			}
			s.send(s.at(day, s.between(7, 17), s.IntN(3600)), to)
		}
	}
}

func newsletter(s *sender) {
	n, every, gap := s.between(80, 900), s.between(7, 30), s.between(1, 4)
	for day := s.IntN(every); day < oddDays; day += every {
		hour, size := s.between(6, 20), s.between(10_000, 60_000)
		for i := range n {
			r := s.who(readers, i)
			if s.IntN(300) == 0 {
				r.Fate, r.Class = mailq.Bounced, mailq.RecipientUnknown
			}
			m := s.send(s.at(day, hour, i*gap), r)
			m.Subject, m.Size = fmt.Sprintf("News %d", day), size+s.IntN(40)
		}
		n += s.IntN(1 + n/50)
	}
}

func invoices(s *sender) {
	s.person()
	customers := s.between(60, 150)
	for i := range customers { // letters over the month before
		s.send(s.at(s.IntN(26), s.between(8, 16), s.IntN(3600)), s.who(partners, i))
	}
	for day := 28; day < oddDays; day += 30 {
		gap := s.between(8, 40)
		for i := range customers {
			m := s.send(s.at(day, 9, i*gap), s.who(partners, i))
			m.Subject, m.Size = fmt.Sprintf("Invoice %d", day*1000+i), 80_000+s.IntN(3000)
		}
		customers += s.IntN(6)
	}
}

func oldList(s *sender) {
	s.person()
	gap := s.between(2, 20)
	for i := range s.between(150, 400) {
		r := s.who(readers, i)
		if s.IntN(14) == 0 {
			r.Fate, r.Class = mailq.Bounced, mailq.RecipientUnknown
		}
		m := s.send(s.at(50, 10, i*gap), r)
		m.Subject, m.Size = "We have moved", 25_000+s.IntN(40)
	}
}

func circulars(s *sender) {
	s.person()
	parents, every := s.between(120, 320), s.between(6, 16)
	for day := s.between(2, 12); day < oddDays; day += every {
		for i := 0; i < parents; i += 40 {
			var to []Recipient
			for k := i; k < min(i+40, parents); k++ {
				to = append(to, s.who(readers, k))
			}
			s.send(s.at(day, 13, i*3), to...)
		}
	}
}

func traveller(s *sender) {
	s.person()
	away, until := s.between(8, 20), 0
	land := byte(0)
	for i := range s.sent {
		m := &s.sent[i]
		day := int(m.Time-s.begin) / 86400
		if day >= away {
			away, until, land = day+s.between(10, 30), day+s.between(2, 6), byte(s.IntN(60))
		}
		if day < until {
			m.Client = netAt(travelNets, land, byte(s.IntN(3)))
		}
	}
}

func carrierNAT(s *sender) {
	s.person()
	for i := range s.sent {
		s.sent[i].Client = netAt(homeNets, 250, byte(s.IntN(250)))
	}
	for day := range oddDays {
		for range s.between(4, 15) {
			s.sent = append(s.sent, Message{Time: s.at(day, s.between(6, 22), s.IntN(3600)), Kind: mailq.LoginSucceeded, Account: s.account, Client: netAt(homeNets, 250, byte(s.IntN(250)))})
		}
	}
}

func forwarder(s *sender) {
	s.account = "forward:" + s.account
	s.home = netip.Addr{}
	for day := range oddDays {
		for range s.between(5, 90) {
			s.send(s.at(day, s.IntN(24), s.IntN(3600)), s.who(partners, 0)).From = fmt.Sprintf("anybody%d@gmail.test", s.IntN(5000))
		}
	}
}

func newcomer(s *sender) {
	circle := s.between(5, 15)
	for day := range oddDays {
		if !working(day) {
			continue
		}
		for range s.between(15, 40) {
			s.send(s.at(day, s.between(8, 17), s.IntN(3600)), s.who(partners, s.IntN(circle)))
		}
		circle += s.between(1, 6)
	}
}

func shop(s *sender) {
	a, b := s.between(3, 10), s.between(20, 60)
	sale, times := s.between(50, 100), s.between(2, 6)
	for day := range oddDays {
		orders := s.between(a, b)
		if day >= sale && day < sale+7 {
			orders *= times
		}
		for range orders {
			at := s.at(day, s.between(6, 23), s.IntN(3600))
			m := s.send(at, s.who(strangersToCome, s.IntN(1<<30)))
			m.Subject, m.Size = "Your order", 9000+s.IntN(900)
			s.send(at+1, s.who(friends, 0))
		}
	}
}

func alarms(s *sender) {
	for day := range oddDays {
		n := s.IntN(4)
		if s.IntN(20) == 0 {
			n = s.between(30, 90)
		}
		hour := s.IntN(23)
		for i := range n {
			m := s.send(s.at(day, hour, i*10), s.who(friends, 0), s.who(friends, 1))
			m.Size, m.Subject = 700+s.IntN(20), "ALARM"
		}
	}
}

func contactForm(s *sender) {
	path := fmt.Sprintf("/home/u%d/public_html/contact.php", s.id%10_000)
	s.account, s.home = mailq.Account("script:"+path), netip.Addr{}
	for day := range oddDays {
		for range s.IntN(10) {
			at := s.at(day, s.between(6, 23), s.IntN(3600))
			s.send(at, s.who(friends, 0)).Script = path
			s.send(at+1, s.who(strangersToCome, s.IntN(1<<30))).Script = path
		}
	}
}

// vacation is a site's system user, as which the mail server answers for its
// mailboxes while their owners are away.
func vacation(s *sender) {
	s.account, s.home = "user:"+s.account, netip.Addr{}
	for start := s.between(15, 30); start < oddDays; start += s.between(30, 60) {
		for day := start; day < start+14; day++ {
			for range s.between(3, 15) {
				m := s.send(s.at(day, s.between(6, 22), s.IntN(3600)), s.who(strangersToCome, s.IntN(1<<30)))
				m.From, m.Subject, m.Size = "", "Out of office", 1500+s.IntN(100)
			}
		}
	}
}

// officeNAT is an office of eight behind one address, where one mail program has
// an old password.
func officeNAT(s *sender) {
	var all []Message
	name := s.account
	for i := range 8 {
		s.account = mailq.Account(fmt.Sprintf("desk%d-%s", i, name))
		s.person()
		all, s.sent = append(all, s.sent...), nil
	}
	for day := range oddDays {
		for i := range 200 {
			all = append(all, Message{Time: s.at(day, 8, i*150), Kind: mailq.LoginFailed, Account: s.account, Client: s.home})
		}
	}
	s.sent = all
}

// catchAll forwards what comes to any address of a domain, which now and then is a
// flood that the other end does not want.
func catchAll(s *sender) {
	s.account, s.home = "forward:"+s.account, netip.Addr{}
	for day := range oddDays {
		for range s.between(5, 40) {
			s.send(s.at(day, s.IntN(24), s.IntN(3600)), s.who(partners, 0)).From = fmt.Sprintf("anybody%d@gmail.test", s.IntN(5000))
		}
		if day%40 != 20 {
			continue
		}
		for i := range s.between(100, 600) {
			r := s.who(partners, 0)
			if s.IntN(4) == 0 {
				r.Fate, r.Class = mailq.Bounced, mailq.Content
			}
			s.send(s.at(day, 3, i*6), r).From = fmt.Sprintf("junk%d@elsewhere%d.test", s.IntN(100_000), s.IntN(900))
		}
	}
}

func aliasOwner(s *sender) {
	s.person()
	var aliases []string
	for i := range s.between(4, 12) {
		aliases = append(aliases, fmt.Sprintf("alias%d-%s", i, s.account))
	}
	aliases = append(aliases, fmt.Sprintf("@shop%d.test", s.id%1000))
	s.owners[string(s.account)] = aliases
	for i := range s.sent {
		if a := aliases[s.IntN(len(aliases))]; a[0] == '@' {
			s.sent[i].From = fmt.Sprintf("any%d%s", s.IntN(100), a)
		} else {
			s.sent[i].From = a
		}
	}
}

func ccThreads(s *sender) {
	s.person()
	n := s.between(40, 90)
	for day := range oddDays {
		if !working(day) || s.IntN(3) == 0 {
			continue
		}
		var circle []Recipient
		for range s.between(8, 20) {
			circle = append(circle, s.who(partners, s.IntN(n)))
		}
		for range s.between(1, 6) {
			s.send(s.at(day, s.between(8, 17), s.IntN(3600)), circle...)
		}
	}
}

// tickets confirms each request at once, and somebody answers it later.
func tickets(s *sender) {
	few, many := s.between(2, 8), s.between(10, 60)
	for day := range oddDays {
		n := s.between(few, many)
		if !working(day) {
			n = few
		}
		for range n {
			at, who := s.at(day, s.between(6, 20), s.IntN(3600)), s.who(strangersToCome, s.IntN(1<<30))
			s.get(at, who)
			m := s.send(at+2, who)
			m.Subject, m.Size = fmt.Sprintf("[#%d] We have your request", s.IntN(100_000)), 2500+s.IntN(300)
			s.send(at+int64(s.between(600, 20_000)), who)
		}
	}
}

// advertisement is a person who offers something now and then, and answers in the
// evening everybody who wants it.
func advertisement(s *sender) {
	s.person()
	for day := s.between(5, 30); day < oddDays; day += s.between(20, 50) {
		for i := range s.between(12, 45) {
			who := s.who(strangersToCome, s.IntN(1<<30))
			s.get(s.at(day, s.between(9, 18), s.IntN(3600)), who)
			m := s.send(s.at(day, 19, i*s.between(30, 60)), who)
			m.Size = 1200 + s.IntN(200)
		}
	}
}
