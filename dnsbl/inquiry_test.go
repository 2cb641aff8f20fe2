package dnsbl

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// inquire asks about each client on each list, and returns what came of it
// within an hour, by client and list.
func inquire(t *testing.T, w *world, watch *Watch, clients []string, lists ...string) map[string]string {
	t.Helper()
	for _, c := range clients {
		for _, list := range lists {
			if !watch.Inquire(w.now, Client(netip.MustParseAddr(c)), list, ForClient) {
				t.Errorf("%s is not asked of %s", c, list)
			}
		}
	}
	w.run(t, watch, w.now.Add(time.Hour))
	said := map[string]string{}
	for _, q := range watch.Inquiries() {
		said[q.Subject.String()+" "+q.List] = fmt.Sprintf("%s %d %s", q.Verdict, q.Client, q.ClientMeaning)
	}
	return said
}

// What lists say of clients counts by list and code.
func TestInquiriesAboutClients(t *testing.T) {
	w, watch, servers := watching(t, "spamhaus-zen", "spamhaus-authbl")
	zen, auth := servers[0], servers[1]
	zen.entries[label(t, "192.0.2.1")] = []string{"127.0.0.10"}              // every home user is
	zen.entries[label(t, "192.0.2.2")] = []string{"127.0.0.4", "127.0.0.11"} // an infected one
	zen.entries[label(t, "192.0.2.3")] = []string{"127.0.0.3"}
	zen.entries[label(t, "192.0.2.4")] = []string{"127.0.0.77"}
	auth.entries[label(t, "192.0.2.2")] = []string{"127.0.0.20"}
	auth.entries[label(t, "2001:db8:1:2::")] = []string{"127.0.0.20"}
	clients := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "2001:db8:1:2:3:4:5:6"}
	w.run(t, watch, w.now.Add(time.Hour))
	got := inquire(t, w, watch, clients, "spamhaus-zen", "spamhaus-authbl")
	want := map[string]string{
		"192.0.2.1 spamhaus-zen": "listed 0 ", "192.0.2.1 spamhaus-authbl": "clean 0 ",
		"192.0.2.2 spamhaus-zen": "listed 10 hijacked or infected host (CBL)", "192.0.2.2 spamhaus-authbl": "listed 25 bot that uses stolen credentials",
		"192.0.2.3 spamhaus-zen": "listed 10 low-reputation sender of spam", "192.0.2.3 spamhaus-authbl": "clean 0 ",
		"192.0.2.4 spamhaus-zen": "unknown 0 ", "192.0.2.4 spamhaus-authbl": "clean 0 ",
		"192.0.2.5 spamhaus-zen": "clean 0 ", "192.0.2.5 spamhaus-authbl": "clean 0 ",
		"2001:db8:1:2::/64 spamhaus-zen": "clean 0 ", "2001:db8:1:2::/64 spamhaus-authbl": "listed 25 bot that uses stolen credentials",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
	if len(watch.Inquiries()) > 0 {
		t.Error("an answer is given twice")
	}
}

// No strangers' address comes into the history, whatever a list says of it.
func TestInquiriesLeaveNoHistory(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	servers[0].entries[label(t, "192.0.2.4")] = []string{"127.0.0.77"}
	servers[0].entries[label(t, "192.0.2.5")] = []string{"127.0.0.2"}
	w.run(t, watch, w.now.Add(time.Hour))
	for _, c := range []string{"192.0.2.4", "192.0.2.5"} {
		if !watch.Inquire(w.now, subject(t, c), "spamcop", ForClient) {
			t.Fatalf("%s is not asked", c)
		}
	}
	if events := w.run(t, watch, w.now.Add(3*time.Hour)); len(events) > 0 {
		t.Errorf("events %+v", events)
	}
	if n := len(watch.Inquiries()); n != 2 {
		t.Errorf("%d answers, want 2", n)
	}
}

// A list that goes bad between two tests lists no client: a wildcard is found
// out before what it says counts, and what refuses says nothing.
func TestInquiriesOfBadLists(t *testing.T) {
	everybody := func(code string) func(string, Answer) Answer {
		return func(string, Answer) Answer {
			return Answer{Status: Found, Addrs: []netip.Addr{netip.MustParseAddr(code)}, TTL: time.Minute}
		}
	}
	for name, bend := range map[string]func(string, Answer) Answer{
		"wildcard": everybody("127.0.0.20"), "refusal": everybody("127.255.255.254"), "limit": everybody("127.255.255.255"), "localhost": everybody("127.0.0.1"), "parked": everybody("91.195.240.117"),
		"all addresses, and no other name": func(label string, a Answer) Answer {
			if _, err := netip.ParseAddr(label); err == nil && label != "1.0.0.127" {
				return everybody("127.0.0.20")(label, a)
			}
			return a
		},
		"dead":       func(string, Answer) Answer { return Answer{Status: Timeout} },
		"no entries": func(string, Answer) Answer { return Answer{Status: NXDomain} },
	} {
		t.Run(name, func(t *testing.T) {
			w, watch, servers := watching(t, "spamhaus-authbl")
			w.run(t, watch, w.now.Add(time.Hour+30*time.Second)) // just tested
			servers[0].bend = bend
			all := inquire(t, w, watch, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, "spamhaus-authbl")
			if len(all) != 3 {
				t.Errorf("answers %v, want 3", all)
			}
			for c, said := range all {
				if want := map[bool]string{true: "clean 0 ", false: "unknown 0 "}[name == "no entries"]; said != want {
					t.Errorf("%s: %q, want %q", c, said, want)
				}
			}
			if name != "no entries" && watch.Health()[0].State.Usable() {
				t.Errorf("the list is %s", watch.Health()[0].State)
			}
		})
	}
}

// Whom nobody can be asked about is not asked about.
func TestInquiriesThatCannotBe(t *testing.T) {
	w, watch, _ := watching(t, "spamcop", "spamhaus-dbl")
	for _, ask := range []struct{ subject, list string }{
		{"192.0.2.1", "nobody"}, {"2001:db8::1", "spamcop"}, {"192.0.2.1", "spamhaus-dbl"}, {"shop.example", "spamcop"},
	} {
		if watch.Inquire(w.now, subject(t, ask.subject), ask.list, ForClient) {
			t.Errorf("%s is asked of %s", ask.subject, ask.list)
		}
	}
	closed := NewWatch(&Catalogue{Lists: []List{listOf(t, "spamhaus-authbl")}}, nil, watch.rng)
	if closed.Inquire(w.now, subject(t, "192.0.2.1"), "spamhaus-authbl", ForClient) {
		t.Error("a list is asked that needs a key")
	}
}

// However many clients come, own addresses are asked about as ever, and a list no
// more than it may be.
func TestInquiriesCrowdNobodyOut(t *testing.T) {
	day := func(addresses, clients int) (polls, once, waiting int) {
		w, watch, _ := watching(t, "spamcop")
		for i := range addresses {
			add(t, w, watch, netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String())
		}
		w.each = func(task Task, _ Answer) {
			switch task.Kind {
			case Poll:
				polls++
			case Once:
				once++
			}
		}
		l := watch.lists[0]
		for hour := range 24 {
			for i := range clients / 24 {
				n := hour*clients/24 + i
				watch.Inquire(w.now, subject(t, netip.AddrFrom4([4]byte{198, byte(n >> 16), byte(n >> 8), byte(n)}).String()), "spamcop", ForClient)
			}
			waiting = max(waiting, len(l.inquiries))
			for i := range addresses {
				watch.Sent(w.now, subject(t, netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String()))
			}
			w.run(t, watch, epoch.Add(time.Duration(hour+1)*time.Hour-time.Second))
		}
		if h := watch.Health()[0]; !h.Spent.IsZero() {
			t.Errorf("%d addresses, %d clients: the day's questions were spent at %s", addresses, clients, h.Spent)
		}
		return polls, once, waiting
	}
	for _, addresses := range []int{10, 500, 2000} { // at 2,000 polls take all that they may
		alone, _, _ := day(addresses, 0)
		polls, once, waiting := day(addresses, 100_000)
		if d := float64(polls)/float64(alone) - 1; d < -0.01 || d > 0.01 {
			t.Errorf("%d addresses: %d polls among clients, %d without", addresses, polls, alone)
		}
		if waiting > maxInquiries || once > defaultPerDay/10 {
			t.Errorf("%d addresses: %d clients waited, %d were asked about", addresses, waiting, once)
		}
		if few := addresses < 2000; few && once < 9000 || !few && once > 500 {
			t.Errorf("%d addresses: %d clients were asked about", addresses, once)
		}
	}
}

// What waits too long is given up, and a clock that goes back loses nothing.
func TestInquiriesAreGivenUp(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	servers[0].bend = func(string, Answer) Answer { return Answer{Status: Timeout} }
	for i := range 3 {
		if !watch.Inquire(w.now, subject(t, fmt.Sprintf("192.0.2.%d", i)), "spamcop", ForClient) {
			t.Fatal("not asked")
		}
	}
	watch.Due(w.now.Add(-time.Hour), 64) // the clock was wrong
	w.run(t, watch, w.now.Add(25*time.Hour))
	all := watch.Inquiries()
	for _, q := range all {
		if q.Verdict != Unknown {
			t.Errorf("%s: %s", q.Subject, q.Verdict)
		}
	}
	if len(all) != 3 {
		t.Errorf("%d answers, want 3", len(all))
	}
}

// CheckClients names the lists that cannot be asked about clients.
func TestCheckClients(t *testing.T) {
	c := Shipped()
	warnings, err := c.CheckClients([]string{"spamhaus-authbl", "blocklist-de"}, nil)
	if diff := cmp.Diff([]string{"list spamhaus-authbl is not asked about clients: not tested: it needs a key"}, warnings); err != nil || diff != "" {
		t.Errorf("%v; warnings (-want +got):\n%s", err, diff)
	}
	_, err = c.CheckClients([]string{"authbl", "spamcop", "spamhaus-dbl"}, testKeys)
	want := `dnsbl: no list is called "authbl": vedetta dnsbl lists shows their names
dnsbl: list spamcop says nothing about clients: none of its codes has client in the catalogue
dnsbl: list spamhaus-dbl says nothing about clients: none of its codes has client in the catalogue`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	for _, l := range c.Lists {
		for _, code := range l.Codes {
			if code.Client > 0 && code.Policy {
				t.Errorf("%s %s blames a client for what is policy", l.Name, code.Name)
			}
		}
	}
}

// That an address may be listed for its neighbours shows in the listing, after a
// restart too.
func TestVicinityOfAListing(t *testing.T) {
	w, watch, servers := watching(t, "abusix")
	for addr, code := range map[string]string{"192.0.2.1": "127.0.0.3", "192.0.2.2": "127.0.0.2"} {
		servers[0].entries[label(t, addr)] = []string{code}
		add(t, w, watch, addr)
	}
	history := roundTrip(t, w.run(t, watch, w.now.Add(time.Hour)))
	again := NewWatch(&Catalogue{Lists: []List{listOf(t, "abusix")}}, testKeys, watch.rng)
	again.Restore(history)
	for _, watch := range []*Watch{watch, again} {
		for addr, want := range map[string]bool{"192.0.2.1": true, "192.0.2.2": false} {
			s := add(t, w, watch, addr)
			if g := watch.Listings(s)[0]; g.Stage != OnList || g.Vicinity != want {
				t.Errorf("%s: %s, vicinity %t; want %t", addr, g.Stage, g.Vicinity, want)
			}
		}
	}
}
