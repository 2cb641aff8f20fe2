package detector

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vedetta-watch/vedetta/mailq"
)

// logins watches where an account is used from: networks (/24, /48), from
// submissions and from logins to read mail. A network that the account was
// never used from says something; how much depends on how often that
// happens to its owner. Several in a day say more.
type logins struct {
	chart
	nets    []network
	days    share // hits: days with an unknown network
	today   int32
	newDay  bool  // today had one
	most    uint8 // most networks of a day in ordinary times
	guessed bool  // a wrong password came first
	far     bool  // from where nobody could have travelled to
}

// A network is one that the account was used from.
type network struct {
	net   uint32
	asn   uint32
	at    uint32 // last used, in seconds
	field uint16 // where it is, see fieldOf
	bits  uint16 // the country, and:
}

const (
	netOwn     = 1 << 15   // it is the account's own; the others are unknown
	netSent    = 1 << 14   // mail, on its latest day
	netCountry = 1<<10 - 1 // see countryOf
)

func (n *network) own() bool       { return n.bits&netOwn != 0 }
func (n *network) sent() bool      { return n.bits&netSent != 0 }
func (n *network) country() uint16 { return n.bits & netCountry }

// alike reports whether one operator runs both: they are of one autonomous system, or, where
// that is not known, n lies in the /16 of r, which is the account's own. A carrier gives a
// phone one of its neighbours the next time.
func (n *network) alike(r *network) bool {
	if n.asn != 0 && r.asn != 0 {
		return n.asn == r.asn
	}
	return r.own() && (n.net|r.net)>>31 == 0 && n.net>>8 == r.net>>8 // IPv6 has bit 31, and is a hash
}

// apart is how far from now the network was last used; after it, where the account
// went back, see ObserveLate.
func (n *network) apart(now int64) int64 { return max(since(n.at, now), -since(n.at, now)) }

// old reports whether the network was last used more than a day ago.
func (n *network) old(now int64) bool { return n.apart(now) > day }

const (
	netsMost     = 24       // of an account's own, and of others
	spamNet      = .8       // a hijacker comes from an unknown network
	ownNet       = .1       // prior share of days on which the owner does, worth …
	ownNetDays   = 5        // … so many days
	youngNet     = .5       // … and this share more on an account's first day, less and less …
	youngFor     = 14 * day // … until now: its second network is yet to be seen
	netTop       = 2.5
	moreNets     = 1.5 // each further unknown network of a day
	guessStep    = 3.0
	guesses      = 3 // wrong passwords from a network before a right one
	loginsTop    = 9.0
	hardNets     = 20 // more networks than this, with sends, in 24 hours
	hardLands    = 5  // as many countries, with sends, in 24 hours
	secondLand   = 1.5
	furtherLands = 3.0
)

// networkOf is the network that a client counts as: /24 or /48.
func networkOf(addr netip.Addr) uint32 {
	addr = addr.Unmap()
	if addr.Is4() {
		b := addr.As4()
		h := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
		return h | 1<<24
	}
	b := addr.As16()
	h := uint64(14695981039346656037)
	for _, c := range b[:6] {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return uint32(h^h>>32) | 1<<31
}

// used takes a use of the account from a client.
func (d *Detector) used(a *account, client netip.Addr, sent bool, now int64) {
	if !client.IsValid() || client.IsLoopback() {
		return
	}
	l := &a.log
	net := networkOf(client)
	l.turn(now, a.ep.top >= d.cfg.Floor)
	n := l.find(net)
	if n == nil {
		n = l.sight(net)
		d.locate(n, client)
		if !n.own() {
			d.stranger(a, n, sent, now)
		}
	} else if n.old(now) {
		d.locate(n, client)
		n.bits &^= netSent
	}
	n.at = max(n.at, seconds(now))
	if sent {
		n.bits |= netSent
	}
	a.fire(a.distributed(now), now)
}

// stranger weighs a network that the account was never used from.
func (d *Detector) stranger(a *account, n *network, sent bool, now int64) {
	l := &a.log
	l.newDay = true
	s := l.around(n, now)
	young := youngNet * max(0, 1-float32(since(a.first, now))/float32(youngFor)) / (1 + l.days.of)
	p := min(max(l.days.mean(ownNet+young, ownNetDays), .02), .98)
	x := min(max(log(spamNet/p), 0), netTop)
	if s.unknown > 0 {
		x = 0
		if s.unknown >= max(int(l.most), 1) {
			x = moreNets * (1 + l.days.of) / (4 + l.days.of) // the fewer days are known, the less
		}
	}
	switch {
	case s.kin && s.unknown > 0:
		x = 0 // its own carrier's next but one: phones go through dozens a day
	case s.near:
		x /= 4 // the same carrier's next network
	}
	travel := float32(0)
	if !s.near && l.tooFast(n, now) {
		travel = travelStep
		l.far = true
	}
	if !sent {
		x, travel = x/2, travel/2 // reading mail is what people do everywhere
	}
	switch {
	case travel > 0 && s.lands < 2: // it says that there is a second country, too
		x += travel
	case s.lands == 1:
		x += secondLand
	case s.lands > 1:
		x += furtherLands
	}
	if d.fails.from(a.name, n.net, now) >= guesses {
		x += guessStep
		l.guessed = true
	}
	if d.marks.nets.has(n.net, now) {
		x += guessStep
	}
	if x <= 0 {
		return
	}
	l.add(x, loginsTop, now)
	if sent {
		a.begin(nil, now)
	}
	a.say(familyLogins, l.s)
}

// The surroundings are what else an account was used from when a network is new to it.
type surroundings struct {
	unknown int  // other unknown networks of the last 24 hours
	lands   int  // which further country it makes: 0 none, 1 a second one, …
	near    bool // its operator runs another network of the account
	kin     bool // … one that is the account's own
}

func (l *logins) around(n *network, now int64) (s surroundings) {
	var seen []uint16
	for i := range l.nets {
		r := &l.nets[i]
		if r == n {
			continue
		}
		alike := n.alike(r)
		s.near, s.kin = s.near || alike, s.kin || alike && r.own()
		if r.old(now) {
			continue
		}
		if !r.own() {
			s.unknown++
		}
		if land := r.country(); land != 0 && !slices.Contains(seen, land) {
			seen = append(seen, land)
		}
	}
	if land := n.country(); land != 0 && len(seen) > 0 && !slices.Contains(seen, land) {
		s.lands = len(seen)
	}
	return s
}

func (l *logins) find(net uint32) *network {
	for i := range l.nets {
		if l.nets[i].net == net {
			return &l.nets[i]
		}
	}
	return nil
}

// knows reports whether the network is one of the account's own.
func (l *logins) knows(net uint32) bool {
	n := l.find(net)
	return n != nil && n.own()
}

// owned is how many networks are the account's own.
func (l *logins) owned() (n int) {
	for i := range l.nets {
		if l.nets[i].own() {
			n++
		}
	}
	return n
}

// sight notes a network as used; of too many unknown ones the oldest makes room,
// so that a flood of them drives none of the account's own out.
func (l *logins) sight(net uint32) *network {
	n := network{net: net}
	if len(l.nets) == 0 { // the first use of all
		n.bits = netOwn
	}
	if len(l.nets)-l.owned() >= netsMost {
		oldest := l.oldest(func(r *network) bool { return !r.own() })
		*oldest = n
		return oldest
	}
	if len(l.nets) == cap(l.nets) { // grow by little: memory is counted
		l.nets = append(make([]network, 0, len(l.nets)+1+len(l.nets)/4), l.nets...)
	}
	l.nets = append(l.nets, n)
	return &l.nets[len(l.nets)-1]
}

// oldest is the one of them that was used longest ago.
func (l *logins) oldest(of func(*network) bool) (oldest *network) {
	for i := range l.nets {
		if n := &l.nets[i]; of(n) && (oldest == nil || n.at < oldest.at) {
			oldest = n
		}
	}
	return oldest
}

// turn closes a day of use; what was seen on it becomes the account's own
// unless it was suspect.
func (l *logins) turn(now int64, suspect bool) {
	today := int32(now / day)
	if today <= l.today { // before it: the account went back, see ObserveLate
		return
	}
	if l.today != 0 && !suspect {
		l.days.add(l.newDay, 1)
		l.days.limit(60)
		l.adopt()
	}
	l.today, l.newDay = today, false
}

// adopt makes every network in sight the account's own.
func (l *logins) adopt() {
	latest, today := uint32(0), 0
	for i := range l.nets {
		latest = max(latest, l.nets[i].at)
	}
	for i := range l.nets {
		n := &l.nets[i]
		n.bits |= netOwn
		if latest-n.at <= uint32(day/second) {
			today++
		}
	}
	l.most = max(l.most, uint8(today))
	for len(l.nets) > netsMost {
		*l.oldest(func(*network) bool { return true }) = l.nets[len(l.nets)-1]
		l.nets = l.nets[:len(l.nets)-1]
	}
}

// distributed is the hard rule of distributed use that holds now.
func (a *account) distributed(now int64) hardRule {
	if len(a.log.nets) < hardLands {
		return hardNone
	}
	nets, lands := a.log.senders(now)
	switch {
	case nets > hardNets && a.log.foreign(now) > max(hardNets, 2*int(a.log.most)):
		return hardManyNetworks
	case lands >= hardLands:
		return hardManyCountries
	}
	return hardNone
}

// foreign counts the networks with sends in the last 24 hours that are neither the
// account's own nor their neighbours.
func (l *logins) foreign(now int64) (count int) {
	for i := range l.nets {
		n := &l.nets[i]
		if n.sent() && !n.old(now) && !n.own() && !slices.ContainsFunc(l.nets, func(r network) bool { return r.own() && n.alike(&r) }) {
			count++
		}
	}
	return count
}

// senders counts networks and countries with sends in the last 24 hours.
func (l *logins) senders(now int64) (nets, lands int) {
	var seen []uint16
	for i := range l.nets {
		r := &l.nets[i]
		if !r.sent() || r.old(now) {
			continue
		}
		nets++
		if land := r.country(); land != 0 && !slices.Contains(seen, land) {
			seen = append(seen, land)
		}
	}
	return nets, len(seen)
}

func (a *account) loginsText() string {
	n := a.log.around(&network{}, a.last).unknown
	nets, lands := a.log.senders(a.last)
	text := fmt.Sprintf("used from %d networks that it was never used from before", n)
	switch n {
	case 0:
		text = "used lately from where it was never used from before"
	case 1:
		text = "used from a network that it was never used from before"
	}
	if lands > 1 {
		text += fmt.Sprintf("; mail from %d networks in %d countries within 24 hours", nets, lands)
	} else if nets > 1 {
		text += fmt.Sprintf("; mail from %d networks within 24 hours", nets)
	}
	if a.log.far {
		text += "; farther from where it was used before than anybody travels in that time"
	}
	if a.log.guessed {
		text += "; wrong passwords came from there first"
	}
	return text
}

// wrong remembers wrong passwords by account and network in a table of fixed
// size: a newcomer takes an old one's place, so that guessing at names
// that do not exist costs no memory.
type wrong struct{ slot []attempt }

type attempt struct {
	key   uint64
	at    int64
	count uint8
}

const (
	wrongSlots = 1024
	wrongSpan  = hour
)

func (w *wrong) place(a mailq.Account, net uint32) (*attempt, uint64) {
	key := uint64(hashOf(string(a)))<<32 | uint64(net)
	key *= 0x9e3779b97f4a7c15
	return &w.slot[key>>54], key
}

// note counts a wrong password.
func (w *wrong) note(a mailq.Account, net uint32, now int64) {
	t, key := w.place(a, net)
	if t.key != key || now-t.at > wrongSpan {
		*t = attempt{key: key}
	}
	t.at = now
	t.count = min(t.count+1, 200)
}

// from is how many wrong passwords for the account the network has just tried.
func (w *wrong) from(a mailq.Account, net uint32, now int64) int {
	t, key := w.place(a, net)
	if t.key != key || now-t.at > wrongSpan {
		return 0
	}
	return int(t.count)
}
