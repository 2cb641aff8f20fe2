package eval

import (
	"cmp"
	"slices"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A Gatherer makes traffic of the events that mail logs tell. The zero Gatherer is
// ready.
type Gatherer struct {
	all  []Message
	open map[uint64]int // index in all, by [mailq.Event.Message]
}

// Add takes one event. Of what nobody here answers for, all but what is delivered
// here, and of losses, it keeps nothing.
func (g *Gatherer) Add(ev *mailq.Event) {
	if ev.Into != "" {
		g.all = append(g.all, Message{Time: ev.Time.Unix(), Kind: mailq.Delivered, Account: ev.Into, Client: ev.Client, From: ev.Sender, Writer: ev.Writer})
	}
	if ev.Account == "" {
		return
	}
	switch {
	case ev.Kind == mailq.LoginSucceeded || ev.Kind == mailq.LoginFailed:
		g.all = append(g.all, Message{Time: ev.Time.Unix(), Kind: ev.Kind, Account: ev.Account, Client: ev.Client})
		return
	case ev.Counts:
		if g.open == nil {
			g.open = map[uint64]int{}
		}
		g.open[ev.Message] = len(g.all)
		g.all = append(g.all, Message{Time: ev.Time.Unix(), Kind: mailq.Submitted, Account: ev.Account, Client: ev.Client,
			From: ev.Sender, Subject: ev.Subject, Script: ev.Script, Size: ev.Size})
	}
	i, ok := g.open[ev.Message]
	if !ok {
		return
	}
	m := &g.all[i]
	for _, r := range ev.New {
		m.To = append(m.To, Recipient{Hash: r.Hash, Domain: r.Domain})
	}
	switch ev.Kind {
	case mailq.Delivered, mailq.Bounced, mailq.Deferred:
		for k := range m.To {
			if r := &m.To[k]; r.Hash == ev.To.Hash {
				r.Fate, r.Class = ev.Kind, ev.Reply.Class
			}
		}
	case mailq.Removed:
		delete(g.open, ev.Message)
	}
}

// Len is how much was gathered so far.
func (g *Gatherer) Len() int { return len(g.all) }

// Traffic returns all that was gathered, in the order of time.
func (g *Gatherer) Traffic() []Message {
	slices.SortStableFunc(g.all, func(x, y Message) int { return cmp.Compare(x.Time, y.Time) })
	return g.all
}
