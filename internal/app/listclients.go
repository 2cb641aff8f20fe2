package app

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/mailq"
)

// Bounds of what is asked about the clients of accounts, whom an attacker has as
// many of as he likes.
const (
	maxSignIns     = 256     // that wait for the loop
	maxSignInsSeen = 1 << 15 // in each of two generations
	signInsAnHour  = 16      // further clients of one account that are asked about
	maxClients     = 4096    // that lists are asked about, or were within clientKept
	maxWaiting     = 8       // accounts that wait for the answer about one client
	clientKept     = time.Hour
)

// A signIn is an account with the client that it signed in or submitted from.
type signIn struct {
	account mailq.Account
	client  dnsbl.Subject
}

// A signedIn is a signIn at a time of the log.
type signedIn struct {
	signIn
	at time.Time
}

// seenSignIns remembers which clients accounts have, as long as there is room:
// what was not seen since the last generation began is forgotten with the next.
type seenSignIns struct {
	young, old map[signIn]bool
	hour       time.Time
	further    map[mailq.Account]int // clients that were new, in that hour
}

// isNew reports whether a client is new to its account, and whether so many were
// within the hour that this one is left out.
func (s *seenSignIns) isNew(in signIn, at time.Time) (isNew, tooMany bool) {
	if s.young[in] {
		return false, false
	}
	isNew = !s.old[in]
	if s.young == nil || len(s.young) >= maxSignInsSeen {
		s.young, s.old = map[signIn]bool{}, s.young
	}
	s.young[in] = true
	if !isNew {
		return false, false
	}
	if hour := at.Truncate(time.Hour); s.further == nil || !hour.Equal(s.hour) || len(s.further) >= maxSignInsSeen {
		s.hour, s.further = hour, map[mailq.Account]int{}
	}
	s.further[in.account]++
	return true, s.further[in.account] > signInsAnHour
}

// A clientList is a list that is asked about clients.
type clientList struct {
	name  string
	kinds dnsbl.Kind
}

// listClients is what the watch over block lists does about the clients of
// accounts. Nobody's are asked about unless lists are configured for it.
//
//	observe: new to the account → signIns → loop: asked, or known → observe: ListingRisk
type listClients struct {
	lists   []clientList
	own     []netip.Prefix // networks whose addresses are not customers'
	signIns chan signedIn
	seen    seenSignIns                      // observe's
	asked   map[dnsbl.Subject]*askedOfClient // the loop's
}

// An askedOfClient is a client that lists are asked about, or were.
type askedOfClient struct {
	at      time.Time
	open    int        // lists that have not answered
	waiting []signedIn // for the answers
	points  int        // of the worst
	says    string
}

// newListClients returns nil if nobody's clients are asked about.
func newListClients(whole config.Config, catalogue *dnsbl.Catalogue) *listClients {
	names := whole.DNSBL.Risk.Clients
	if len(names) == 0 {
		return nil
	}
	c := &listClients{signIns: make(chan signedIn, maxSignIns), asked: map[dnsbl.Subject]*askedOfClient{}}
	for _, l := range catalogue.Lists {
		if slices.Contains(names, l.Name) {
			c.lists = append(c.lists, clientList{l.Name, l.Kinds})
		}
	}
	for _, text := range slices.Concat(whole.Accounts.Trusted, whole.DNSBL.OwnNetworks) {
		if p, err := netip.ParsePrefix(text); err == nil { // the configuration was checked
			c.own = append(c.own, p)
		}
	}
	return c
}

// sawClient takes a client that is new to its account. It runs in observe and
// never blocks.
func (l *listWatch) sawClient(ev *mailq.Event) {
	c := l.clients
	if c == nil || ev.Kind != mailq.Submitted && ev.Kind != mailq.LoginSucceeded && !(ev.Kind == mailq.Held && ev.Counts) {
		return
	}
	if ev.Account.Kind() != mailq.KindLogin || !c.isAStrangers(ev.Client) {
		return
	}
	in := signIn{ev.Account, dnsbl.Client(ev.Client)}
	isNew, tooMany := c.seen.isNew(in, ev.Time)
	if !isNew {
		return
	}
	if !tooMany {
		select {
		case c.signIns <- signedIn{in, ev.Time}:
			return
		default:
		}
	}
	l.inquired(dnsbl.ForClient, leftOut)
}

// isAStrangers reports whether an address is one of the Internet, and not in a
// network of ours.
func (c *listClients) isAStrangers(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsValid() && !addr.IsLoopback() && dnsbl.Address(addr).Public() &&
		!slices.ContainsFunc(c.own, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// coming is where clients come from; nil: from nowhere.
func (c *listClients) coming() <-chan signedIn {
	if c == nil {
		return nil
	}
	return c.signIns
}

// signedIn asks the lists about a client, unless they were asked within the hour.
func (l *listWatch) signedIn(ctx context.Context, in signedIn, now time.Time) {
	if now.Sub(in.at) > oldReply {
		return
	}
	c := l.clients
	a := c.asked[in.client]
	if a == nil {
		if l.isWatchedClient(in.client) {
			return
		}
		if a = l.askAboutClient(in.client, now); a == nil {
			l.inquired(dnsbl.ForClient, leftOut)
			return
		}
	}
	if a.points > 0 {
		l.tellRisk(ctx, a, in)
	}
	switch {
	case a.open == 0:
	case len(a.waiting) < maxWaiting:
		a.waiting = append(a.waiting, in)
	default:
		l.inquired(dnsbl.ForClient, leftOut)
	}
}

// isWatchedClient reports whether a client is, or has in it, an address that is
// watched: it is ours.
func (l *listWatch) isWatchedClient(s dnsbl.Subject) bool {
	_, ok := l.sources[s]
	if s.Kind() == dnsbl.IP4 || ok {
		return ok
	}
	for watched := range l.sources {
		if watched.Kind() == dnsbl.IP6 && watched.In(s) {
			return true
		}
	}
	return false
}

// askAboutClient asks each list; nil if there is no room for it.
func (l *listWatch) askAboutClient(client dnsbl.Subject, now time.Time) *askedOfClient {
	c := l.clients
	if len(c.asked) >= maxClients {
		return nil
	}
	a := &askedOfClient{at: now}
	for _, list := range c.lists {
		switch {
		case list.kinds&client.Kind() == 0:
		case l.watch.Inquire(now, client, list.name, dnsbl.ForClient):
			a.open++
		default:
			l.inquired(dnsbl.ForClient, leftOut)
		}
	}
	c.asked[client] = a
	return a
}

// heardOfClient takes what a list says about a client.
func (l *listWatch) heardOfClient(ctx context.Context, q *dnsbl.Inquiry) {
	a := l.clients.asked[q.Subject]
	if a == nil {
		return // too late
	}
	a.open--
	if q.Client > a.points {
		a.points, a.says = q.Client, q.Title+": "+q.ClientMeaning
		l.tellRisk(ctx, a, a.waiting...)
	}
	if a.open == 0 {
		a.waiting = nil
	}
}

// tellRisk gives what is known of a client to observe, whose the risk is.
func (l *listWatch) tellRisk(ctx context.Context, a *askedOfClient, ins ...signedIn) {
	signs := make([]detector.ListedClient, 0, len(ins))
	for _, in := range ins {
		signs = append(signs, detector.ListedClient{Account: in.account, Client: in.client.String(), Time: in.at, Points: a.points, Says: a.says})
	}
	_ = l.p.ask(ctx, func() { // when stopping, the risk is forgotten anyhow
		for _, sign := range signs {
			l.p.judge.risk.SignedIn(sign)
		}
	})
}

// forgetClients drops the answers that are old.
func (l *listWatch) forgetClients(now time.Time) {
	if l.clients == nil {
		return
	}
	for s, a := range l.clients.asked {
		if now.Sub(a.at) > clientKept && (a.open == 0 || now.Sub(a.at) > 3*clientKept) {
			delete(l.clients.asked, s)
		}
	}
}

// leftOut is what metrics say of a question that was not asked.
const leftOut = "left_out"

// inquired counts how a question that is asked once ended.
func (l *listWatch) inquired(why dnsbl.Purpose, result string) {
	l.p.metrics.listInquiries.WithLabelValues(why.String(), result).Inc()
}

// hearInquiries takes what came of questions that are asked once.
func (l *listWatch) hearInquiries(ctx context.Context, now time.Time) {
	for _, q := range l.watch.Inquiries() {
		l.inquired(q.For, q.Verdict.String())
		switch {
		case q.For == dnsbl.ForNeighbour:
			l.heardOfNeighbour(&q, now)
		case l.clients != nil:
			l.heardOfClient(ctx, &q)
		}
	}
}
