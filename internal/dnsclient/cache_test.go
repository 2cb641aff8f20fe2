package dnsclient

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A clock says the time that it is moved to.
type clock struct{ passed atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1_800_000_000, c.passed.Load()) }

func (c *clock) moveTo(since time.Duration) { c.passed.Store(int64(since)) }

// counting is a server that counts what it is asked.
func counting(t *testing.T, h dns.HandlerFunc) (address string, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	return serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		h(w, q)
	}), asked
}

// How long each kind of answer is remembered: until the nanosecond before.
func TestCacheTTL(t *testing.T) {
	for _, tt := range []struct {
		name    string
		rcode   int
		records []string
		want    time.Duration
	}{
		{"found", dns.RcodeSuccess, []string{"a.test. 60 A 127.0.0.2", "a.test. 30 A 127.0.0.3"}, 30 * time.Second},
		{"alias", dns.RcodeSuccess, []string{"a.test. 20 CNAME b.test.", "b.test. 30 A 127.0.0.3"}, 20 * time.Second},
		{"found for no time", dns.RcodeSuccess, []string{"a.test. 0 A 127.0.0.2"}, 0},
		{"NXDOMAIN", dns.RcodeNameError, []string{soa("test.")}, 5 * time.Minute},
		{"no data", dns.RcodeSuccess, []string{soa("test.")}, 5 * time.Minute},
		{"less than the floor", dns.RcodeNameError, []string{"test. 1 SOA ns.test. admin.test. 1 1 1 1 300"}, time.Minute},
		{"more than the ceiling", dns.RcodeNameError, []string{"test. 90000 SOA ns.test. admin.test. 1 1 1 1 90000"}, time.Hour},
		{"NXDOMAIN without SOA", dns.RcodeNameError, nil, 0},
		{"SERVFAIL", dns.RcodeServerFailure, nil, 5 * time.Second},
		{"REFUSED", dns.RcodeRefused, nil, 5 * time.Second},
		{"NOTIMP", dns.RcodeNotImplemented, nil, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(reply(q, tt.rcode, tt.records...)) })
			var now clock
			c := open(t, &Client{Now: now.now}, address)
			first := ask(t, c, "a.test.")
			if tt.want > 0 {
				now.moveTo(tt.want - 1)
				a := ask(t, c, "A.test")
				if !a.Cached || a.Status != first.Status || a.TTL != max(0, first.TTL-tt.want+1) {
					t.Errorf("before the end: %s, cached is %v, TTL %v of %v", a.Status, a.Cached, a.TTL, first.TTL)
				}
			}
			now.moveTo(tt.want)
			if a := ask(t, c, "a.test."); a.Cached || a.Status != first.Status {
				t.Errorf("after the end: %s, cached is %v", a.Status, a.Cached)
			}
		})
	}
}

// Types of one name are remembered each for itself.
func TestCacheKeys(t *testing.T) {
	address, asked := counting(t, func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(reply(q, dns.RcodeNameError, soa("test."))) })
	c := open(t, &Client{}, address)
	for range 3 {
		ask(t, c, "a.test.")
		askType(t, c, "a.test.", dns.TypeTXT)
		ask(t, c, "b.test.")
	}
	if s := c.Stats(); asked.Load() != 3 || s.Cached != 6 || s.Sent != 3 {
		t.Errorf("asked %d times; %+v", asked.Load(), s)
	}
}

// LookupFresh asks past the cache and leaves it as it is.
func TestLookupFresh(t *testing.T) {
	var n atomic.Int64
	address := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if n.Add(1) > 2 {
			w.WriteMsg(reply(q, dns.RcodeServerFailure))
			return
		}
		w.WriteMsg(reply(q, dns.RcodeSuccess, fmt.Sprintf("a.test. 60 A 127.0.0.%d", n.Load())))
	})
	c := open(t, &Client{}, address)
	ask(t, c, "a.test.")
	if a := c.LookupFresh(context.Background(), "a.test.", dns.TypeA); a.Cached || a.Addrs[0] != two {
		t.Errorf("fresh: got %+v", a)
	}
	if a := ask(t, c, "a.test."); !a.Cached || a.Addrs[0] == two {
		t.Errorf("remembered: got %+v", a)
	}
	if a := c.LookupFresh(context.Background(), "a.test.", dns.TypeA); a.Status != ServFail {
		t.Errorf("failing: got %+v", a)
	}
	if a := ask(t, c, "a.test."); !a.Cached || a.Status != Found {
		t.Errorf("after the failure: got %+v", a)
	}
	if a := c.LookupFresh(context.Background(), "", dns.TypeA); a.Status != Unknown || a.Err == nil {
		t.Errorf("no name: got %+v", a)
	}
}

// Over a bound the answer is forgotten that was not looked at for the longest.
func TestCacheBounds(t *testing.T) {
	answer := Answer{Status: Found, TTL: time.Hour, TXT: []string{"twelve bytes"}}
	now := time.Unix(1_800_000_000, 0)
	name := func(i int) key { return key{fmt.Sprint(i), dns.TypeTXT} }
	for _, k := range []*cache{newCache(10, 1<<20), newCache(1000, 10*size(&answer))} {
		for i := range 10 {
			k.storeLocked(name(i), answer, now)
		}
		k.storeLocked(name(5), answer, now) // again
		if _, f, _ := k.begin(name(0), now); f != nil {
			t.Fatal("0 is forgotten too early")
		}
		k.storeLocked(name(10), answer, now)
		if len(k.entries) != 10 || k.recent.Len() != 10 || k.bytes != 10*size(&answer) {
			t.Errorf("%d entries of %d bytes", len(k.entries), k.bytes)
		}
		for i, want := range []bool{true, false, true} {
			if got := k.entries[name(i)] != nil; got != want {
				t.Errorf("%d is there: %v, want %v", i, got, want)
			}
		}
		if k.begin(name(2), now.Add(2*time.Hour)); len(k.entries) != 9 || k.bytes != 9*size(&answer) {
			t.Errorf("after one expired: %d entries of %d bytes", len(k.entries), k.bytes)
		}
	}
	tiny := newCache(10, 10)
	tiny.storeLocked(name(0), answer, now)
	if len(tiny.entries) != 0 || tiny.bytes != 0 {
		t.Errorf("an answer larger than the cache: %d entries of %d bytes", len(tiny.entries), tiny.bytes)
	}
}

// The size of an answer covers all that it points to.
func TestSize(t *testing.T) {
	var none Answer
	for _, a := range []Answer{
		{Name: "name"}, {TXT: []string{"text"}}, {NS: []string{"name"}}, {PTR: []string{"name"}}, {CNAME: []string{"name"}},
		{MX: []MX{{1, "name"}}}, {SOA: SOA{Zone: "name"}}, {Addrs: addrs(1)}, {Err: ErrClosed},
	} {
		if size(&a) < size(&none)+4 {
			t.Errorf("%+v takes %d bytes", a, size(&a))
		}
	}
}

// Lookups of the same at the same time are one question.
func TestOneFlight(t *testing.T) {
	release := make(chan struct{})
	address, asked := counting(t, func(w dns.ResponseWriter, q *dns.Msg) {
		<-release
		listed(w, q)
	})
	c := open(t, &Client{Patience: 5 * time.Second}, address)
	var group sync.WaitGroup
	var found, begun atomic.Int64
	for range 50 {
		group.Go(func() {
			begun.Add(1)
			if a := ask(t, c, "2.list.test."); a.Status == Found {
				found.Add(1)
			}
		})
	}
	if !soon(func() bool { return begun.Load() == 50 && asked.Load() == 1 }) {
		t.Errorf("%d lookups, %d questions", begun.Load(), asked.Load())
	}
	close(release)
	group.Wait()
	if found.Load() != 50 || asked.Load() != 1 || len(c.cache.flights) != 0 {
		t.Errorf("%d of 50 found it by %d questions; %d flights are left", found.Load(), asked.Load(), len(c.cache.flights))
	}
}

// If whoever asks goes away, one of those who wait asks; if one of them goes,
// nothing happens to the others.
func TestFlightAbandoned(t *testing.T) {
	release := make(chan struct{})
	address, asked := counting(t, func(w dns.ResponseWriter, q *dns.Msg) {
		<-release
		listed(w, q)
	})
	c := open(t, &Client{Patience: 5 * time.Second}, address)
	lookup := func(ctx context.Context) chan Answer {
		answer := make(chan Answer, 1)
		go func() { answer <- c.Lookup(ctx, "2.list.test.", dns.TypeA) }()
		return answer
	}
	leading, leave := context.WithCancel(context.Background())
	leader := lookup(leading)
	if !soon(func() bool { return asked.Load() == 1 }) {
		t.Fatal("nobody asks")
	}
	waiting, give := context.WithCancel(context.Background())
	impatient, patient := lookup(waiting), lookup(context.Background())
	give()
	if a := <-impatient; a.Status != Unknown {
		t.Errorf("who gave up: got %+v", a)
	}
	leave()
	if a := <-leader; a.Status != Unknown {
		t.Errorf("who asked first: got %+v", a)
	}
	if !soon(func() bool { return asked.Load() == 2 }) {
		t.Error("nobody asks instead")
	}
	close(release)
	if a := <-patient; a.Status != Found {
		t.Errorf("who waited: got %+v", a)
	}
}
