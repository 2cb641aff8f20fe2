package app

import (
	"net/netip"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/mailq"
)

// Bounds of the addresses that logs name, in one run.
const (
	maxLeftOf = 256    // by one server; one that was taken over may name any
	maxLeft   = 16_384 // by all, a quarter of what can be watched
)

// departures are the addresses that mail left from, as the logs say. Its
// methods may be called from any goroutine.
type departures struct {
	mu   sync.Mutex // guards what follows
	from map[netip.Addr]departure
	of   map[string]int // how many each server was the first to name
}

// A departure is the latest from one address.
type departure struct {
	host  string // whose log was the first to name the address
	at    time.Time
	fresh bool // nobody has read of the address yet
}

// note takes from where the mail of an event left. It returns false where
// nobody can tell: the log does not say, or names what the Internet does not
// see, or too many.
func (d *departures) note(ev *mailq.Event) bool {
	if !seenOutside(ev.From) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	latest, known := d.from[ev.From]
	if !known {
		if len(d.from) >= maxLeft || d.of[ev.Host] >= maxLeftOf {
			return false
		}
		if d.from == nil {
			d.from, d.of = map[netip.Addr]departure{}, map[string]int{}
		}
		latest = departure{host: ev.Host, fresh: true}
		d.of[ev.Host]++
	}
	latest.at = later(latest.at, ev.Time)
	d.from[ev.From] = latest
	return true
}

// since returns the addresses that mail left from since then.
func (d *departures) since(then time.Time) map[netip.Addr]departure {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := map[netip.Addr]departure{}
	for addr, latest := range d.from {
		if latest.at.Before(then) {
			continue
		}
		left[addr] = latest
		latest.fresh = false
		d.from[addr] = latest
	}
	return left
}

// active tells the watch which addresses sent mail within the hour: those that
// logs name, and all of them where a log does not say. Domains did in any case.
func (l *listWatch) active(now time.Time) {
	unsaid := time.Unix(0, l.sent.Load())
	latest := unsaid
	for addr, d := range l.left.since(now.Add(-time.Hour)) {
		s := dnsbl.Address(addr)
		if d.fresh && l.config.Logs {
			l.add(now, s, "log of "+d.host)
		}
		l.watch.Sent(past(d.at, now), s)
		latest = later(latest, d.at)
	}
	for s := range l.sources {
		sent := unsaid
		if s.Kind() == dnsbl.Domain {
			sent = latest
		}
		if sent = past(sent, now); now.Sub(sent) < time.Hour {
			l.watch.Sent(sent, s)
		}
	}
}

// past is t, or now where the clock of whoever logged it is ahead: the watch's
// own never goes back.
func past(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
