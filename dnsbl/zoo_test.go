package dnsbl

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	cleanIP  = "192.0.2.10"
	listedIP = "198.51.100.20"
)

// always makes every answer for an A record the same.
func always(a Answer) func(string, Answer) Answer {
	return func(_ string, honest Answer) Answer {
		if len(honest.Names) > 0 && len(honest.Addrs) == 0 {
			return honest // about the zone
		}
		return a
	}
}

func found(addrs ...string) Answer {
	a := Answer{Status: Found, TTL: time.Minute}
	for _, addr := range addrs {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(addr))
	}
	return a
}

// TestEvil lets a list be good for two hours, evil for six, and good again.
// One address is listed from the first hour on, another never. Whatever the
// list does, the one must stay listed, the other must not be, and the operator
// must be told what is wrong.
func TestEvil(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 4))
	calls := 0
	tests := []struct {
		name     string
		server   func(string, Answer) Answer // of the list
		resolver func(string, Answer) Answer
		took     time.Duration
		want     State  // that the list comes to
		text     string // of what the operator is told
	}{
		{name: "drops-30-percent", resolver: func(_ string, a Answer) Answer {
			if dice.Float64() < 0.3 {
				return Answer{Status: Timeout}
			}
			return a
		}, want: Degraded, text: "of the questions get no answer"},
		{name: "slow", took: 5 * time.Second, want: Degraded, text: "s to answer"},
		{name: "timeout", server: always(Answer{Status: Timeout}), want: Offline, text: "timeout"},
		{name: "servfail", server: always(Answer{Status: ServFail}), want: Offline, text: "server failure"},
		{name: "refused", server: always(Answer{Status: Refused}), want: Offline, text: "refused"},
		{name: "lame", server: always(Answer{Status: Unreachable}), want: Offline, text: "unreachable"},
		{name: "truncated-and-no-tcp", server: always(Answer{Status: Malformed}), want: Offline, text: "malformed"},
		{name: "not-implemented", server: always(Answer{}), want: Offline, text: "other"},
		{name: "dies-mid-sweep", server: func(_ string, a Answer) Answer {
			if calls++; calls > 3 {
				return Answer{Status: Timeout}
			}
			return a
		}, want: Offline, text: "timeout"},
		{name: "refused-252", server: always(found("127.255.255.252")), want: Rejected, text: "misspelt (127.255.255.252)"},
		{name: "refused-254", server: always(found("127.255.255.254")), want: Rejected, text: "public or anonymous resolver"},
		{name: "refused-255", server: always(found("127.255.255.255")), want: Rejected, text: "too often"},
		{name: "uribl-127-0-0-1", server: always(found("127.0.0.1")), want: Rejected, text: "refuses to answer (127.0.0.1)"},
		{name: "wildcard", server: always(found("127.0.0.2")), want: Wildcard, text: "lists what cannot be listed"},
		{name: "wildcard-of-unknown-codes", server: always(found("127.0.0.77")), want: Wildcard, text: "lists what cannot be listed"},
		{name: "outside-127", server: always(found("10.11.12.13")), want: Wildcard, text: "resolver that rewrites (10.11.12.13)"},
		{name: "parked-91-195", server: always(found("91.195.240.117")), want: Wildcard, text: "a parked zone"},
		{name: "parked-by-its-name-servers", server: func(label string, a Answer) Answer {
			if len(a.Names) > 0 {
				return Answer{Status: Found, Names: []string{"ns1.sedoparking.com"}}
			}
			return a
		}, want: Suspect, text: "looks parked"},
		{name: "lists-127-0-0-1", server: func(label string, a Answer) Answer {
			if label == "1.0.0.127" {
				return found("127.0.0.2")
			}
			return a
		}, want: Wildcard, text: "1.0.0.127, which no list may have"},
		{name: "empty", server: always(Answer{Status: NXDomain}), want: Empty, text: "its test entry is missing"},
		{name: "empty-without-nxdomain", server: always(Answer{Status: NoData}), want: Empty, text: "its test entry is missing"},
		{name: "cname-out-of-zone", server: func(_ string, a Answer) Answer {
			if a.Status == NXDomain {
				a = found("127.0.0.2")
				a.Names = []string{"parking.example.net"}
			}
			return a
		}, want: Wildcard, text: "a parked zone"},
		{name: "resolver-rewrites-nxdomain", resolver: func(_ string, a Answer) Answer {
			if a.Status == NXDomain {
				return found("62.0.58.94")
			}
			return a
		}, want: Wildcard, text: "resolver that rewrites (62.0.58.94)"},
		{name: "resolver-answers-nxdomain-for-all", resolver: always(Answer{Status: NXDomain}), want: Empty, text: "its test entry is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, watch, servers := watching(t, "spamcop")
			servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
			clean, listed := add(t, w, watch, cleanIP), add(t, w, watch, listedIP)
			before := w.run(t, watch, epoch.Add(2*time.Hour))
			if diff := cmp.Diff([]string{"suspected", "listed"}, kinds(before, listed)); diff != "" {
				t.Fatalf("of the listed address (-want +got):\n%s", diff)
			}
			servers[0].bend, w.bend, w.took = tt.server, tt.resolver, tt.took
			end := w.now.Add(30 * time.Hour) // the zone itself is asked about once a day
			var during []Event
			for w.now.Before(end) {
				watch.Sent(w.now, clean)
				watch.Sent(w.now, listed)
				during = append(during, w.run(t, watch, w.now.Add(time.Hour))...)
			}
			if pages := told(during); len(pages) > 0 {
				t.Errorf("a false listing: %+v", pages)
			}
			if slices.Contains(kinds(during, listed), "cleared") {
				t.Errorf("a false clean: %v", kinds(during, listed))
			}
			wantStage(t, watch, clean, NotListed, Suspicious)
			wantStage(t, watch, listed, OnList, Leaving)
			if !slices.ContainsFunc(during, func(e Event) bool {
				return e.Kind == ListState && e.State == tt.want && strings.Contains(e.Text, tt.text)
			}) {
				t.Errorf("the operator is told %+v, want %s: %s", during, tt.want, tt.text)
			}
			servers[0].bend, w.bend, w.took = nil, nil, 0
			after := w.run(t, watch, w.now.Add(3*wholeDay))
			if h := watch.Health()[0]; !h.State.Usable() {
				t.Errorf("three days later the list is %s: %s", h.State, h.Text)
			}
			if pages := told(after); len(pages) > 0 {
				t.Errorf("told again afterwards: %+v", pages)
			}
			wantStage(t, watch, clean, NotListed)
			wantStage(t, watch, listed, OnList)
		})
	}
}

func wantStage(t testing.TB, watch *Watch, s Subject, want ...Stage) {
	t.Helper()
	for _, l := range watch.Listings(s) {
		if !slices.Contains(want, l.Stage) {
			t.Errorf("%s on %s: stage %s, want one of %s", s, l.List, l.Stage, want)
		}
	}
}

// TestListsTheWholeInternet lets a list that is believed list everything for
// ten minutes, beginning right after each minute of a quarter of an hour.
func TestListsTheWholeInternet(t *testing.T) {
	for offset := range 15 {
		t.Run(fmt.Sprintf("from-minute-%d", offset), func(t *testing.T) {
			w, watch, servers := watching(t, "spamcop")
			for i := range 40 {
				add(t, w, watch, fmt.Sprintf("100.%d.1.1", 128+i))
			}
			w.run(t, watch, epoch.Add(2*time.Hour+time.Duration(offset)*time.Minute))
			servers[0].bend = always(found("127.0.0.2"))
			events := w.run(t, watch, w.now.Add(10*time.Minute))
			servers[0].bend = nil
			events = append(events, w.run(t, watch, w.now.Add(3*time.Hour))...)
			if pages := told(events); len(pages) > 0 {
				t.Errorf("%d false listings: %+v", len(pages), pages[0])
			}
			if !slices.Contains(states(events), "WILDCARD") {
				t.Errorf("the operator is not told: %v", states(events))
			}
			for s := range watch.Subjects() {
				wantStage(t, watch, s, NotListed)
			}
		})
	}
}

// TestZoo has the cases that concern one list or one kind of answer.
func TestZoo(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T)
	}{
		{"healthy", zooHealthy},
		{"hostkarma-white", zooCode("hostkarma", cleanIP, []string{"127.0.0.1"}, Clean, IsWelcome, "white: sends only good mail")},
		{"unknown-code", zooUnknownCode},
		{"unknown-codes", zooUnknownCodes},
		{"mailspike-good-17", zooCode("mailspike", cleanIP, []string{"127.0.0.17"}, Clean, IsWelcome, "good: good reputation")},
		{"mailspike-neutral-14", zooCode("mailspike", cleanIP, []string{"127.0.0.14"}, Clean, IsNeutral, "neutral: neutral reputation")},
		{"suomispam-test-99", zooSuomispam},
		{"several-a-records", zooCode("spamhaus-zen", cleanIP, []string{"127.0.0.11", "127.0.0.2", "127.0.0.4"}, Listed, HasEntry,
			"PBL: not meant to send mail directly, says Spamhaus; SBL: source of spam; XBL: hijacked or infected host (CBL)")},
		{"surbl-bitmask", zooCode("surbl", "bad.example", []string{"127.0.0.72"}, Listed, HasEntry, "ABUSE: spam and other abuse; PH: phishing")},
		{"surbl-blocked", zooCode("surbl", "bad.example", []string{"127.0.0.73"}, Unknown, ListRefused, "")},
		{"ip-in-domain-list", zooCode("spamhaus-dbl", "bad.example", []string{"127.0.1.255"}, Unknown, WrongKind, "DBL")},
		{"dnswl-refused", zooCode("dnswl", cleanIP, []string{"127.0.0.255"}, Unknown, ListRefused, "refused")},
		{"one-refusal-spoils-the-answer", zooCode("spamcop", cleanIP, []string{"127.0.0.2", "127.255.255.254"}, Unknown, OpenResolver, "")},
		{"one-foreign-address-spoils-the-answer", zooCode("spamcop", cleanIP, []string{"127.0.0.2", "91.195.240.117"}, Unknown, Rewritten, "")},
		{"spamrats-other-codes", zooCode("spamrats-spam", cleanIP, []string{"127.0.0.99"}, Clean, IsNeutral, "a code to be ignored")},
		{"truncated-then-tcp", zooCode("spamcop", cleanIP, slices.Repeat([]string{"127.0.0.2"}, 40), Listed, HasEntry, "SCBL: reported for spam")},
		{"flapping", zooFlapping},
		{"mass-listing", zooMassListing},
		{"mass-listing-of-strangers", zooStrangers},
		{"no-key-not-tested", zooNoKey},
		{"dead-zone-backs-off", zooDeadZone},
		{"refused-zone-is-left-alone", zooRefusedIsLeftAlone},
		{"restart-keeps-listed-since", zooRestart},
		{"restart-after-a-wrong-clock", zooRestartedClock},
		{"txt-asked-for-target", zooText},
		{"ipv6-slash64", zooIPv6},
		{"ipv6-slash64-whole", zooIPv6Whole},
		{"ipv6-without-entries", zooIPv6Blind},
		{"uceprotect-once-a-network", zooNetwork},
		{"welcome-lost", zooWelcomeLost},
		{"recoded", zooRecoded},
		{"not-confirmed", zooNotConfirmed},
		{"authority-unreachable", zooNoAuthority},
		{"authority-has-nothing-for-us", zooShut(Answer{Status: NXDomain})},
		{"authority-is-private", zooShut(Answer{Status: Closed})},
		{"authority-refuses-us", zooShut(found("127.255.255.254"))},
		{"redelegated", zooRedelegated},
		{"six-in-a-day", zooStretched(6, 2*time.Hour, false)},
		{"forty-at-once-and-rarely-asked", zooStretched(40, 0, true)},
		{"no-listing-while-the-test-hangs", zooTestHangs},
	}
	for _, tt := range tests {
		t.Run(tt.name, tt.run)
	}
}

// zooCode judges one answer of a shipped list.
func zooCode(list, text string, codes []string, want Verdict, reason Reason, meaning string) func(*testing.T) {
	return func(t *testing.T) {
		l := listOf(t, list)
		j := l.Judge(found(codes...))
		if j.Verdict != want || j.Reason != reason {
			t.Errorf("%v: %s, %s; want %s, %s", codes, j.Verdict, j.Reason, want, reason)
		}
		if want != Unknown && j.Meaning != meaning {
			t.Errorf("meaning %q, want %q", j.Meaning, meaning)
		}
		if (j.Weight > 0) != (want == Listed && l.Weight > 0) {
			t.Errorf("weight %d of a %s answer", j.Weight, j.Verdict)
		}
	}
}

func zooHealthy(t *testing.T) {
	w, watch, servers := watching(t, "spamcop", "psbl")
	ip := add(t, w, watch, cleanIP)
	begin := epoch.Add(30 * time.Hour)
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.2"}
	servers[0].since[label(t, cleanIP)] = func(now time.Time) bool { return !now.Before(begin) }
	var events []Event
	for w.now.Before(begin.Add(24 * time.Hour)) {
		watch.Sent(w.now, ip)
		events = append(events, w.run(t, watch, w.now.Add(time.Hour))...)
	}
	if diff := cmp.Diff([]string{"suspected", "listed"}, kinds(events, ip)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"HEALTHY", "HEALTHY"}, states(events)); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if late := told(events)[0].Time.Sub(begin); late > 15*time.Minute*11/10+2*time.Minute {
		t.Errorf("told %s after the listing", late)
	}
	end := w.now
	servers[0].since[label(t, cleanIP)] = func(now time.Time) bool { return now.Before(end) }
	events = w.run(t, watch, end.Add(4*time.Hour))
	if diff := cmp.Diff([]string{"clearing", "cleared"}, kinds(events, ip)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if gap := events[1].Time.Sub(events[0].Time); gap < 10*time.Minute {
		t.Errorf("the clean answers are %s apart, want twice the TTL", gap)
	}
}

func zooUnknownCode(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	ip := add(t, w, watch, cleanIP)
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.77"}
	events := w.run(t, watch, epoch.Add(6*time.Hour))
	if diff := cmp.Diff([]string{"unknown-code"}, kinds(events, ip)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if l := watch.Listings(ip)[0]; l.Stage != NotListed || l.Unknown.IsZero() {
		t.Errorf("stage %s, unknown since %s; want not listed, and unknown", l.Stage, l.Unknown)
	}
	if got := UnknownOn(watch.Listings(ip)); !slices.Equal(got, []string{"spamcop"}) {
		t.Errorf("nobody can tell what %q say", got)
	}
}

// Each address with a code that its list does not document is in the history
// once. People are told of the code, and again when ten times as many addresses
// have such a one; a restart says nothing again.
func zooUnknownCodes(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	var events []Event
	loud := func() (n []int) {
		for _, e := range events {
			if e.Kind == CodeUnknown && !e.Quiet {
				n = append(n, e.Count)
			}
		}
		return n
	}
	begin := func(addresses int) {
		for i := range addresses {
			text := fmt.Sprintf("192.0.2.%d", i+1)
			servers[0].entries[label(t, text)] = []string{"127.0.0.77"}
			add(t, w, watch, text)
		}
		events = append(events, w.run(t, watch, w.now.Add(6*time.Hour))...)
	}
	for i, run := range []struct {
		addresses int
		loud      []int
	}{{1, []int{1}}, {9, []int{1}}, {9, []int{1}}, {12, []int{1, 10}}, {12, []int{1, 10}}} {
		watch = restart(t, w, watch, events, "spamcop")
		begin(run.addresses)
		if got := loud(); !slices.Equal(got, run.loud) {
			t.Errorf("run %d tells of %v addresses, want %v", i, got, run.loud)
		}
		for n := range run.addresses {
			if got := kinds(events, subject(t, fmt.Sprintf("192.0.2.%d", n+1))); len(got) != 1 {
				t.Errorf("run %d, address %d: %q", i, n+1, got)
			}
		}
	}
	servers[0].entries[label(t, "192.0.2.1")] = []string{"127.0.0.78"}
	before := len(events)
	events = append(events, w.run(t, watch, w.now.Add(6*time.Hour))...)
	if got := events[before:]; len(got) != 1 || got[0].Quiet || !slices.Equal(got[0].Codes, []string{"127.0.0.78"}) {
		t.Errorf("another code: %+v", got)
	}
}

func zooSuomispam(t *testing.T) {
	w, watch, servers := watching(t, "suomispam")
	servers[0].entries["2.0.0.127"] = []string{"127.0.0.99"}
	ip := add(t, w, watch, cleanIP)
	w.run(t, watch, epoch.Add(2*time.Hour))
	if h := watch.Health()[0]; h.State != Healthy {
		t.Errorf("the list is %s: %s", h.State, h.Text)
	}
	if j := watch.lists[0].Judge(found("127.0.0.99")); j.Verdict == Listed {
		t.Errorf("its test code lists %s", ip)
	}
}

func zooFlapping(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	servers[0].ttl = time.Minute
	ip := add(t, w, watch, cleanIP)
	begin, end := epoch.Add(time.Hour), epoch.Add(25*time.Hour)
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.2"}
	servers[0].since[label(t, cleanIP)] = func(now time.Time) bool { // on for an hour, off for an hour
		return now.After(begin) && now.Before(end) && now.Sub(begin)/time.Hour%2 == 0
	}
	var events []Event
	for w.now.Before(end.Add(3 * wholeDay)) {
		watch.Sent(w.now, ip)
		events = append(events, w.run(t, watch, w.now.Add(30*time.Minute))...)
	}
	var loud []string
	for _, e := range events {
		if !e.Quiet && e.Subject == ip {
			loud = append(loud, e.Kind.String())
		}
	}
	want := []string{"listed", "cleared", "listed", "cleared", "listed", "cleared", "flapping", "cleared"}
	if diff := cmp.Diff(want, loud); diff != "" {
		t.Errorf("what is told of 12 flaps (-want +got):\n%s", diff)
	}
	wantStage(t, watch, ip, NotListed)

	middle := slices.IndexFunc(events, func(e Event) bool { return e.Kind == Flapped }) + 1
	again := NewWatch(&Catalogue{Lists: []List{listOf(t, "spamcop")}}, nil, rand.New(rand.NewPCG(5, 6)))
	again.Restore(roundTrip(t, events[:middle]))
	again.restored[pairKey{ip, "spamcop"}].listing.forget(events[middle-1].Time)
	if n := len(again.restored[pairKey{ip, "spamcop"}].listing.opens); n != flapsAllowed+1 {
		t.Errorf("after a restart %d flaps are remembered, want %d", n, flapsAllowed+1)
	}
}

// zooTestHangs lets the answers to health tests get lost from the first
// positive answer on.
func zooTestHangs(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	ip := add(t, w, watch, cleanIP)
	w.run(t, watch, epoch.Add(time.Hour))
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.0.2"}
	w.lose = func(task Task) bool { return task.Kind == Probe && watch.Listings(ip)[0].Stage == Suspicious }
	events := w.run(t, watch, epoch.Add(3*time.Hour))
	if diff := cmp.Diff([]string{"suspected"}, kinds(events, ip)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	w.lose = nil
	events = w.run(t, watch, epoch.Add(12*time.Hour))
	if diff := cmp.Diff([]string{"listed"}, kinds(events, ip)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func zooMassListing(t *testing.T) {
	w, watch, servers := watching(t, "spamcop", "psbl")
	var subjects []Subject
	for i := range 60 {
		text := fmt.Sprintf("100.%d.1.1", 128+i)
		subjects = append(subjects, add(t, w, watch, text))
		servers[0].entries[label(t, text)] = []string{"127.0.0.2"}
		servers[0].since[label(t, text)] = func(now time.Time) bool { return now.After(epoch.Add(2 * time.Hour)) }
	}
	servers[1].entries[label(t, "100.128.1.1")] = []string{"127.0.0.2"}
	events := w.run(t, watch, epoch.Add(12*time.Hour))
	n := 0
	for _, e := range events {
		if e.Kind == MassListing {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d mass listings are told, want one", n)
	}
	if pages := told(events); len(pages) > crowdLeast+1 {
		t.Errorf("%d listings are told one by one", len(pages))
	}
	alone, both := watch.Listings(subjects[1]), watch.Listings(subjects[0])
	if !alone[0].Mass || alone[0].Corroborated || LevelOf(Exposure(alone)) >= LevelWarn {
		t.Errorf("a mass listing that no other list confirms: %+v, exposure %.2f", alone[0], Exposure(alone))
	}
	i := slices.IndexFunc(both, func(l Listing) bool { return l.List == "spamcop" })
	if !both[i].Corroborated || LevelOf(Exposure(both)) != LevelPage {
		t.Errorf("a mass listing that another list confirms: %+v, exposure %.2f", both[i], Exposure(both))
	}
}

// zooStrangers has others name addresses that are notorious: what lists say of
// those is true, and no reason to doubt what they say of ours.
func zooStrangers(t *testing.T) {
	w, watch, servers := watching(t, "spamcop", "psbl")
	ours := add(t, w, watch, listedIP)
	for i := range 8 {
		text := fmt.Sprintf("100.%d.1.1", 128+i)
		if err := watch.AddStranger(w.now, subject(t, text)); err != nil {
			t.Fatal(err)
		}
		for _, server := range servers {
			server.entries[label(t, text)] = []string{"127.0.0.2"}
		}
	}
	w.run(t, watch, epoch.Add(20*time.Minute))
	for _, server := range servers {
		server.entries[label(t, listedIP)] = []string{"127.0.0.2"}
	}
	for _, e := range w.run(t, watch, epoch.Add(wholeDay)) {
		if e.Kind == MassListing {
			t.Errorf("told: %s, %s", e.List, e.Text)
		}
	}
	listings := watch.Listings(ours)
	for _, l := range listings {
		if l.Stage != OnList || l.Mass {
			t.Errorf("ours: %+v", l)
		}
	}
	if len(listings) != 2 {
		t.Errorf("ours is on %d lists, want 2", len(listings))
	}
}

// Six networks that come to be listed two hours apart are no mass listing, however
// rarely the budget lets the list be asked; forty at once are.
func zooStretched(listed int, apart time.Duration, mass bool) func(*testing.T) {
	return func(t *testing.T) {
		w, watch, servers := watching(t, "spamcop")
		l := watch.lists[0]
		l.PerDay, l.budget.perDay = 400, 400
		for i := range 40 {
			text := fmt.Sprintf("100.%d.1.1", 128+i)
			add(t, w, watch, text)
			if i < listed {
				servers[0].entries[label(t, text)] = []string{"127.0.0.2"}
				servers[0].since[label(t, text)] = func(now time.Time) bool {
					return !now.Before(epoch.Add(wholeDay + time.Duration(i)*apart))
				}
			}
		}
		var events []Event
		for w.now.Before(epoch.Add(2 * wholeDay)) {
			for s := range watch.Subjects() {
				watch.Sent(w.now, s)
			}
			events = append(events, w.run(t, watch, w.now.Add(30*time.Minute))...)
		}
		if stretch := watch.Health()[0].Stretch; stretch < 10 {
			t.Errorf("the intervals are stretched by %.1f", stretch)
		}
		found := slices.Contains(kinds(events, Subject{}), "mass-listing")
		if n := len(told(events)); found != mass || !mass && n != listed || mass && n > listed/4 {
			t.Errorf("%d of %d listings are told, a mass listing: %t", n, listed, found)
		}
	}
}

func zooNoKey(t *testing.T) {
	w := &world{now: epoch, keep: true}
	watch := NewWatch(&Catalogue{Lists: []List{listOf(t, "spamhaus-zen"), listOf(t, "barracuda")}}, nil, rand.New(rand.NewPCG(1, 2)))
	ip := add(t, w, watch, cleanIP)
	if events := w.run(t, watch, epoch.Add(wholeDay)); len(events) > 0 || len(w.asked) > 0 {
		t.Errorf("without a key: events %+v, asked %q", events, w.asked)
	}
	for _, h := range watch.Health() {
		if h.State != NoKey || !strings.HasPrefix(h.Text, "not tested") {
			t.Errorf("%s is %s: %s", h.List, h.State, h.Text)
		}
	}
	if all := watch.Listings(ip); len(all) > 0 {
		t.Errorf("what is not tested reads as %+v", all)
	}
}

func zooDeadZone(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	add(t, w, watch, cleanIP)
	w.run(t, watch, epoch.Add(time.Hour))
	servers[0].bend = always(Answer{Status: Timeout})
	events := w.run(t, watch, epoch.Add(3*wholeDay))
	before := servers[0].count
	events = append(events, w.run(t, watch, epoch.Add(20*wholeDay))...)
	if n := servers[0].count - before; n > 17*12 {
		t.Errorf("a dead zone was asked %d times in 17 days", n)
	}
	if got := kinds(events, Subject{}); !slices.Contains(got, "removal-due") || len(got) != 2 {
		t.Errorf("events %v %v, want its state and that it should go", got, states(events))
	}
}

func zooRefusedIsLeftAlone(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	for i := range 50 {
		add(t, w, watch, fmt.Sprintf("100.%d.1.1", 128+i))
	}
	w.run(t, watch, epoch.Add(time.Hour))
	servers[0].bend = always(found("127.255.255.254"))
	var asked []time.Time
	w.each = func(Task, Answer) { asked = append(asked, w.now) }
	w.run(t, watch, epoch.Add(9*time.Hour))
	for i := 1; i < len(asked); i++ {
		if gap := asked[i].Sub(asked[i-1]); gap > 10*time.Minute && gap < time.Hour-10*time.Second {
			t.Errorf("asked %s after a refusal", gap)
		}
	}
	if len(asked) > 70 { // one sweep's batch that was under way, and three tests
		t.Errorf("a zone that refuses was asked %d times in 8 hours", len(asked))
	}
}

// zooRestartedClock has a suspicion written while the clock was a year ahead, and
// a restart with the right time: it is confirmed as ever.
func zooRestartedClock(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	ip := add(t, w, watch, listedIP)
	w.run(t, watch, epoch.Add(time.Hour))
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
	right := w.now
	ahead := []Event{{Time: right.AddDate(1, 0, 0), Kind: Suspected, List: "spamcop", Subject: ip, Since: right.AddDate(1, 0, 0), Codes: []string{"127.0.0.2"}}}
	again := NewWatch(&Catalogue{Lists: []List{listOf(t, "spamcop")}}, testKeys, rand.New(rand.NewPCG(5, 6)))
	again.Restore(roundTrip(t, ahead))
	add(t, w, again, listedIP)
	w.run(t, again, right.Add(2*time.Hour))
	wantStage(t, again, ip, OnList)
}

func zooRestart(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
	servers[0].texts[label(t, listedIP)] = "Blocked - see https://www.spamcop.net/bl.shtml?198.51.100.20"
	ip := add(t, w, watch, listedIP)
	history := w.run(t, watch, epoch.Add(5*time.Hour))
	before := watch.Listings(ip)[0]

	again := NewWatch(&Catalogue{Lists: []List{listOf(t, "spamcop")}}, testKeys, rand.New(rand.NewPCG(5, 6)))
	again.Restore(roundTrip(t, history))
	w.now = w.now.Add(time.Hour)
	add(t, w, again, listedIP)
	if l := again.Listings(ip)[0]; l.Stage != OnList || !l.Frozen {
		t.Errorf("right after the restart: %+v", l)
	}
	events := w.run(t, again, w.now.Add(24*time.Hour))
	if got := kinds(events, ip); len(got) > 0 {
		t.Errorf("told again after the restart: %v", got)
	}
	after := again.Listings(ip)[0]
	after.Checked = before.Checked
	if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b Subject) bool { return a == b })); diff != "" {
		t.Errorf("the listing before and after (-before +after):\n%s", diff)
	}
	servers[0].entries = map[string][]string{"2.0.0.127": {"127.0.0.2"}}
	events = w.run(t, again, w.now.Add(6*time.Hour))
	if diff := cmp.Diff([]string{"clearing", "cleared"}, kinds(events, ip)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if since := events[1].Since; !since.Equal(before.Since) {
		t.Errorf("cleared with listed since %s, want %s", since, before.Since)
	}
}

func zooText(t *testing.T) {
	w, watch, servers := watching(t, "spamhaus-zen")
	w.keep = true
	ip := add(t, w, watch, listedIP)
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
	servers[0].texts[label(t, listedIP)] = "Listed by SBL, see https://check.spamhaus.org/sbl/query/SBL1.\x1b[2J 20.100.51.198.K3Y.zen.dq.spamhaus.net"
	servers[0].entries["2.0.0.127"] = []string{"127.0.0.2"}
	events := w.run(t, watch, epoch.Add(3*time.Hour))
	page := told(events)[0]
	if want := "Listed by SBL, see https://check.spamhaus.org/sbl/query/SBL1. [2J 20.100.51.198.<key>.zen.dq.spamhaus.net"; page.Reason != want {
		t.Errorf("reason %q, want %q", page.Reason, want)
	}
	if want := "https://check.spamhaus.org/sbl/query/SBL1"; page.Delist != want {
		t.Errorf("delist %q, want %q", page.Delist, want)
	}
	if page.Server != "ns.<key>.zen.dq.spamhaus.net" || page.Subject != ip {
		t.Errorf("confirmed by %q about %s", page.Server, page.Subject)
	}
	for _, name := range w.asked {
		if name == "2.0.0.127.k3y.zen.dq.spamhaus.net" || strings.HasPrefix(name, "20.100.51.198.") {
			continue
		}
		if strings.HasPrefix(name, "2.0.0.127") {
			t.Errorf("asked for the code instead of the target: %s", name)
		}
	}
}

func zooIPv6(t *testing.T) {
	w, watch, servers := watching(t, "spamhaus-zen")
	w.keep = true
	const text = "2001:db8:1:2::25"
	net64 := subject(t, "2001:db8:1:2::/64")
	servers[0].entries[label(t, "2001:db8:1:2::/64")] = []string{"127.0.0.3"}
	s := subject(t, text)
	if err := watch.Add(w.now, s); err != nil {
		t.Fatal(err)
	}
	events := w.run(t, watch, epoch.Add(12*time.Hour))
	if got := told(events); len(got) != 1 || got[0].Subject != net64 {
		t.Errorf("told %+v, want the /64", got)
	}
	exact := label(t, text) + "." + servers[0].zone
	if slices.Contains(w.asked, exact) {
		t.Errorf("an idle address was asked about by itself")
	}
	if LevelOf(Exposure(watch.Listings(s))) != LevelPage {
		t.Errorf("the /64 is listed, but the exposure of the address is %.2f", Exposure(watch.Listings(s)))
	}
	watch.Sent(w.now, s)
	w.run(t, watch, w.now.Add(2*time.Hour))
	if !slices.Contains(w.asked, exact) {
		t.Errorf("an active address was not asked about by itself")
	}
}

// zooIPv6Whole has an entry for a whole /64, as rbldnsd answers it: for each of
// its addresses. It is one listing, until the address has a worse one of its own.
func zooIPv6Whole(t *testing.T) {
	w, watch, servers := watching(t, "spamhaus-zen")
	const text = "2001:db8:1:2::25"
	net64 := strings.TrimPrefix(label(t, "2001:db8:1:2::/64"), strings.Repeat("0.", 16))
	worse := false
	servers[0].bend = func(name string, a Answer) Answer {
		switch {
		case !strings.HasSuffix(name, net64):
			return a
		case worse && name == label(t, text):
			return found("127.0.0.3", "127.0.0.11")
		}
		return found("127.0.0.11")
	}
	s := add(t, w, watch, text)
	events := w.run(t, watch, epoch.Add(time.Hour))
	if got := told(events); len(got) != 1 || got[0].Subject.String() != "2001:db8:1:2::/64" {
		t.Errorf("told %+v, want the /64 alone", got)
	}
	listed := func() (on []string) {
		for _, l := range watch.Listings(s) {
			if l.Stage != NotListed {
				on = append(on, fmt.Sprintf("%s %d", l.Subject, l.Weight))
			}
		}
		return on
	}
	if got := listed(); !slices.Equal(got, []string{"2001:db8:1:2::/64 60"}) || Exposure(watch.Listings(s)) > 0.601 {
		t.Errorf("listings %q, exposure %.2f; want the /64 for 0.60", got, Exposure(watch.Listings(s)))
	}
	worse = true
	watch.Sent(w.now, s)
	w.run(t, watch, w.now.Add(time.Hour))
	if got := listed(); !slices.Equal(got, []string{text + " 90"}) || Exposure(watch.Listings(s)) > 0.901 {
		t.Errorf("listings %q, exposure %.2f; want the address for 0.90", got, Exposure(watch.Listings(s)))
	}
}

func zooIPv6Blind(t *testing.T) {
	w, watch, servers := watching(t, "spamhaus-zen")
	delete(servers[0].entries, reversed(netip.MustParseAddr("::ffff:7f00:2")))
	v4, v6 := add(t, w, watch, cleanIP), add(t, w, watch, "2001:db8::1")
	w.run(t, watch, epoch.Add(3*time.Hour))
	if h := watch.Health()[0]; h.State != Healthy || h.NotFor != IP6 || !strings.Contains(h.Text, "not tested for ip6") {
		t.Errorf("the list is %s, not for %s: %s", h.State, h.NotFor, h.Text)
	}
	if l := watch.Listings(v6)[0]; !l.Checked.IsZero() || !l.Frozen {
		t.Errorf("IPv6 cannot be tested, but reads as %+v", l)
	}
	if l := watch.Listings(v4)[0]; l.Checked.IsZero() {
		t.Errorf("IPv4 was not asked about")
	}
}

func zooNetwork(t *testing.T) {
	w, watch, servers := watching(t, "uceprotect-2")
	for i := range 50 {
		add(t, w, watch, fmt.Sprintf("192.0.2.%d", i+1))
	}
	polls := 0
	w.each = func(task Task, _ Answer) {
		if task.Kind != Probe {
			polls++
		}
	}
	servers[0].entries["0.2.0.192"] = []string{"127.0.0.2"}
	events := w.run(t, watch, epoch.Add(3*time.Hour))
	if polls > 4 {
		t.Errorf("50 addresses of one /24 cost %d questions", polls)
	}
	if got := told(events); len(got) != 1 || got[0].Subject.String() != "192.0.2.0/24" || got[0].Scope != ScopeRange {
		t.Errorf("told %+v, want the range", got)
	}
}

func zooWelcomeLost(t *testing.T) {
	w, watch, servers := watching(t, "dnswl")
	servers[0].entries["2.0.0.127"] = []string{"127.0.10.0"}
	ip := add(t, w, watch, cleanIP)
	servers[0].entries[label(t, cleanIP)] = []string{"127.0.5.2"}
	var events []Event
	for day := range 3 { // each with a restart
		watch = restart(t, w, watch, events, "dnswl")
		add(t, w, watch, cleanIP)
		if day == 2 {
			delete(servers[0].entries, label(t, cleanIP))
			events = append(events, w.run(t, watch, w.now.Add(4*wholeDay))...)
		}
		events = append(events, w.run(t, watch, w.now.Add(wholeDay))...)
	}
	if diff := cmp.Diff([]string{"welcomed", "welcome-lost"}, kinds(events, ip)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func zooRecoded(t *testing.T) {
	w, watch, servers := watching(t, "spamhaus-zen")
	ip := add(t, w, watch, listedIP)
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.11"}
	w.run(t, watch, epoch.Add(3*time.Hour))
	if l := watch.Listings(ip)[0]; !l.Policy || l.Weight != 60 {
		t.Errorf("on the PBL: %+v", l)
	}
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.11", "127.0.0.3"}
	events := w.run(t, watch, epoch.Add(6*time.Hour))
	if diff := cmp.Diff([]string{"recoded"}, kinds(events, ip)); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	if l := watch.Listings(ip)[0]; l.Policy || l.Weight != 90 || l.Since.After(epoch.Add(time.Hour)) {
		t.Errorf("on the CSS, too: %+v", l)
	}
}

func zooNotConfirmed(t *testing.T) {
	w, watch, _ := watching(t, "spamcop")
	ip := add(t, w, watch, cleanIP)
	liar := label(t, cleanIP) + "."
	w.bend = func(name string, a Answer) Answer { // the resolver's cache was poisoned
		if strings.HasPrefix(name, liar) {
			return found("127.0.0.2")
		}
		return a
	}
	events := w.run(t, watch, epoch.Add(12*time.Hour))
	if pages := told(events); len(pages) > 0 || !slices.Contains(kinds(events, ip), "dismissed") {
		t.Errorf("told %v of %v", pages, kinds(events, ip))
	}
	if h := watch.Health()[0]; h.FalseAlarms < 0.9 {
		t.Errorf("share of false alarms %.2f, want nearly all", h.FalseAlarms)
	}
}

func zooNoAuthority(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	ip := add(t, w, watch, listedIP)
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
	var asked []Task
	w.each = func(task Task, _ Answer) { asked = append(asked, task) }
	direct := &deaf{w}
	events := runThrough(t, direct, w, watch, epoch.Add(2*time.Hour))
	if diff := cmp.Diff([]string{"suspected", "listed"}, kinds(events, ip)); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	if gap := events[len(events)-1].Time.Sub(events[1].Time); gap < 5*time.Minute {
		t.Errorf("the resolver was believed %s after its first answer, which lives for 5 minutes", gap)
	}
}

// zooShut has the list's own servers serve the resolver, which is registered
// there, and not this host.
func zooShut(said Answer) func(*testing.T) {
	return func(t *testing.T) {
		w, watch, servers := watching(t, "barracuda")
		ip := add(t, w, watch, listedIP)
		w.run(t, watch, epoch.Add(time.Hour))
		begin, end := epoch.Add(2*time.Hour), epoch.Add(8*time.Hour)
		servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
		servers[0].since[label(t, listedIP)] = func(now time.Time) bool { return !now.Before(begin) && now.Before(end) }
		events := runThrough(t, &barred{w, said}, w, watch, epoch.Add(7*time.Hour))
		if diff := cmp.Diff([]string{"suspected", "listed"}, kinds(events, ip)); diff != "" {
			t.Fatalf("events (-want +got):\n%s", diff)
		}
		if got := states(events); len(got) > 0 {
			t.Errorf("the list comes to %v, though the resolver is served", got)
		}
		events = runThrough(t, &barred{w, said}, w, watch, epoch.Add(12*time.Hour))
		if diff := cmp.Diff([]string{"clearing", "cleared"}, kinds(events, ip)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	}
}

func zooRedelegated(t *testing.T) {
	w, watch, servers := watching(t, "spamcop")
	add(t, w, watch, cleanIP)
	w.run(t, watch, epoch.Add(wholeDay))
	watch = restart(t, w, watch, nil, "spamcop")
	servers[0].bend = func(label string, a Answer) Answer {
		if len(a.Names) > 0 {
			a.Names = []string{"ns.elsewhere.example"}
		}
		return a
	}
	events := w.run(t, watch, epoch.Add(3*wholeDay))
	events = slices.DeleteFunc(events, func(e Event) bool { return e.Kind == ListState }) // of the restart
	if diff := cmp.Diff([]string{"redelegated"}, kinds(events, Subject{})); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	if want := "name servers were ns.bl.spamcop.net, are ns.elsewhere.example"; events[0].Text != want {
		t.Errorf("told %q, want %q", events[0].Text, want)
	}
}
