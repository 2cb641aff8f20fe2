package app

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
)

// findEvery is how often our outgoing addresses are looked for, and findAgain how
// soon after the resolver was not trusted.
const (
	findEvery = 15 * time.Minute
	findAgain = time.Minute
)

// findAddresses looks for our outgoing addresses until ctx ends: those that
// are configured, those of this host, and those that the SPF records of our
// domains allow to send.
func (l *listWatch) findAddresses(ctx context.Context) error {
	for {
		own := l.ownAddresses()
		if l.do(ctx, func() { l.watchAll(ctx, own) }) != nil { // SPF may take long
			return nil
		}
		spf, trusted := l.findSPF(ctx, l.client)
		err := l.do(ctx, func() {
			l.watchAll(ctx, spf)
			if trusted && len(l.sources) == 0 {
				l.p.log.Warn("no address is watched on block lists: name them in dnsbl.addresses; neither this host nor an agent has one that the Internet knows")
			}
		})
		pause := findEvery
		if !trusted {
			pause = findAgain
		}
		if err != nil || wait(ctx, pause) != nil {
			return nil
		}
	}
}

// ownAddresses are those that are known without asking anybody.
func (l *listWatch) ownAddresses() []foundSubject {
	found := l.configured()
	if l.config.Interfaces {
		for _, addr := range interfaceAddresses() {
			found = append(found, foundSubject{dnsbl.Address(addr), "interface"})
		}
	}
	return found
}

// findSPF looks for what the SPF records of our domains allow to send. It reports
// false, and finds nothing, while the resolver is not trusted: one that makes
// addresses up would make them ours.
func (l *listWatch) findSPF(ctx context.Context, r spfResolver) (found []foundSubject, ok bool) {
	if !l.config.SPF {
		return nil, true
	}
	if !l.isTrusted(ctx) {
		return nil, false
	}
	for _, domain := range l.config.Domains {
		found = append(found, spfAddresses(ctx, r, domain, l.config.Domains)...)
	}
	if !l.isTrusted(ctx) { // it was examined meanwhile
		return nil, false
	}
	return found, true
}

// isTrusted reports whether the resolvers are believed.
func (l *listWatch) isTrusted(ctx context.Context) bool {
	trusted := false
	err := l.do(ctx, func() { trusted = l.distrust == "" })
	return err == nil && trusted
}

// A foundSubject is what is to be watched, and how it was found.
type foundSubject struct {
	subject dnsbl.Subject
	source  string
}

func (l *listWatch) configured() (found []foundSubject) {
	for _, n := range l.config.Networks() {
		if n.Addr().Is6() {
			n = netip.PrefixFrom(n.Addr(), 128) // a list is asked about the /64 around it
		}
		for _, addr := range addressesOf(n) {
			found = append(found, foundSubject{dnsbl.Address(addr), "configuration"})
		}
	}
	for _, text := range l.config.Domains {
		if s, err := dnsbl.ParseSubject(text); err == nil { // the configuration was checked
			found = append(found, foundSubject{s, "configuration"})
		}
	}
	return found
}

// addressesOf lists the addresses of a network.
func addressesOf(n netip.Prefix) (addrs []netip.Addr) {
	for addr := n.Masked().Addr(); n.Contains(addr); addr = addr.Next() {
		addrs = append(addrs, addr)
	}
	return addrs
}

// watchAll begins to watch what was found. What is not found any more is
// watched until the next start.
func (l *listWatch) watchAll(ctx context.Context, found []foundSubject) {
	now := time.Now()
	for _, f := range found {
		l.add(now, f.subject, f.source)
	}
	l.p.metrics.listSubjects.Set(float64(len(l.sources)))
	l.tell(ctx)
}

// A heard is a reply of another mail server that holds our address's
// reputation against us.
type heard struct {
	at       time.Time
	receiver string     // whose server it is
	text     string     // a stranger's
	from     netip.Addr // which of our addresses it was said to; zero where the log does not say
}

// Bounds of what replies tell.
const (
	maxHeard     = 256 // replies that wait
	maxNamed     = 64  // addresses that they name and that are not watched
	maxFound     = 16  // of those, that come to be watched
	maxUnnamed   = 8   // addresses that are asked about at once when a reply does not say which it is about
	namedEnough  = 3   // receivers that must name one
	namedWithin  = 7 * 24 * time.Hour
	recheckEvery = 5 * time.Minute // that a reply has an address asked about at once
	oldReply     = time.Hour       // after which a reply is old news, read from a backlog
)

// A namedBy is who named an address that is not watched.
type namedBy struct {
	since     time.Time
	receivers map[string]bool
}

// hear takes a reply. An address of ours that it names, or that it was said to,
// is asked about at once; one that several receivers name is taken for one of
// ours too: they say whom they got the mail from. One alone could name anybody,
// and so can whoever has several domains: such an address is watched, and no
// more.
func (l *listWatch) hear(h heard, now time.Time) {
	if now.Sub(h.at) > oldReply {
		return
	}
	named, about := false, addressesIn(h.text)
	if l.isOurs(dnsbl.Address(h.from)) && !slices.Contains(about, h.from) {
		about = append(about, h.from)
	}
	for _, addr := range about {
		s := dnsbl.Address(addr)
		if _, ok := l.sources[s]; ok {
			named = true
			l.sign(s, now)
		} else if s.Public() && !addr.IsLoopback() && l.isNamed(addr, h.receiver, now) {
			l.add(now, s, byReplies)
		}
	}
	if named || now.Sub(l.unnamed) < time.Minute {
		return
	}
	l.unnamed = now
	asked := 0
	for s := range l.sources { // it is about one of ours, and does not say which
		if s.Kind() != dnsbl.IP4 && s.Kind() != dnsbl.IP6 {
			continue
		}
		if sign := l.raise(s, now); asked < maxUnnamed && l.recheck(s, sign, now) {
			asked++
		}
	}
}

// isNamed notes that a server named an address, and reports whether enough did
// for it to be ours.
func (l *listWatch) isNamed(addr netip.Addr, receiver string, now time.Time) bool {
	for a, by := range l.named {
		if now.Sub(by.since) > namedWithin {
			delete(l.named, a)
		}
	}
	by := l.named[addr]
	if by == nil {
		if len(l.named) >= maxNamed {
			return false
		}
		by = &namedBy{now, map[string]bool{}}
		l.named[addr] = by
	}
	if len(by.receivers) < namedEnough {
		by.receivers[receiver] = true
	}
	found := 0
	for _, source := range l.sources {
		if source == byReplies {
			found++
		}
	}
	return len(by.receivers) >= namedEnough && found < maxFound
}

// addressesIn finds the IP addresses in a text, at most four.
func addressesIn(text string) (addrs []netip.Addr) {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == ':')
	}) {
		if addr, ok := addressIn(strings.Trim(word, ".:")); ok && len(addrs) < 4 {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// global6 is what IPv6 addresses on the Internet are from.
var global6 = netip.MustParsePrefix("2000::/3")

// addressIn finds the address that a word is, may be with words before it and a
// port after it: 203.0.113.9, blocked:203.0.113.9:25, IPv6:2001:db8::9.
func addressIn(word string) (netip.Addr, bool) {
	for more := true; more; {
		addr, err := netip.ParseAddr(word)
		if addr = addr.Unmap(); err == nil && (addr.Is4() || global6.Contains(addr)) {
			return addr, true
		}
		head := ""
		head, word, more = strings.Cut(word, ":")
		if addr, err := netip.ParseAddr(head); err == nil {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// Signs are early signs about an address, in the last while.
type signs struct {
	weight  float64   // of the replies so far, halved each half-life
	at      time.Time // when weight was right
	checked time.Time // when it was last asked about because of one
}

// The weight of replies: five within the hour are as much risk as there is.
const (
	signWeight   = 0.2
	signHalfLife = time.Hour
)

// decay brings the weight up to now.
func (s *signs) decay(now time.Time) {
	s.weight *= math.Exp2(-max(0, now.Sub(s.at)).Hours() / signHalfLife.Hours())
	s.at = now
}

// sign notes that a server holds the reputation of an address against us: it
// is asked about at once, and more often while that goes on.
func (l *listWatch) sign(subject dnsbl.Subject, now time.Time) {
	l.recheck(subject, l.raise(subject, now), now)
}

// raise has an address asked about more often.
func (l *listWatch) raise(subject dnsbl.Subject, now time.Time) *signs {
	s := l.risks[subject]
	if s == nil {
		s = &signs{at: now}
		l.risks[subject] = s
	}
	s.decay(now)
	s.weight = min(s.weight+signWeight, 1)
	l.watch.SetRisk(now, subject, s.weight)
	return s
}

// recheck has an address asked about at once, and reports whether that is not
// too soon after the last time.
func (l *listWatch) recheck(subject dnsbl.Subject, s *signs, now time.Time) bool {
	if now.Sub(s.checked) < recheckEvery {
		return false
	}
	s.checked = now
	l.watch.Recheck(now, subject, "")
	return true
}

// weighSigns lets the risk of addresses fall with time.
// What the log says of all of them is the least.
func (l *listWatch) weighSigns(now time.Time) {
	least := math.Float64frombits(l.risk.Load())
	pressures := l.pressures()
	for subject, s := range l.risks {
		if s.decay(now); s.weight <= 0.01 {
			delete(l.risks, subject)
		}
	}
	for subject := range l.sources {
		risk := 0.0
		if subject.Kind() == dnsbl.IP4 || subject.Kind() == dnsbl.IP6 {
			risk = least
		}
		if s := l.risks[subject]; s != nil {
			risk = max(risk, s.weight)
		}
		if network, ok := hoodOf(subject); ok && l.isOurs(subject) {
			risk += min(pressures[network], pressureMost)
		}
		l.watch.SetRisk(now, subject, risk)
	}
}
