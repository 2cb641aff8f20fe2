package dnsbl

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A counted resolver is a world that several goroutines may ask, and that
// notes how many do at once.
type counted struct {
	w          *world
	mu         sync.Mutex
	open, most int
	hold       sync.Mutex // guards w
}

func (c *counted) Lookup(ctx context.Context, name string, t Type) Answer {
	c.mu.Lock()
	c.open++
	c.most = max(c.most, c.open)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.open--
		c.mu.Unlock()
	}()
	c.hold.Lock()
	defer c.hold.Unlock()
	return c.w.Lookup(ctx, name, t)
}

func (c *counted) Confirm(ctx context.Context, zone, name string, t Type) Answer {
	return c.Lookup(ctx, name, t)
}

func TestCheck(t *testing.T) {
	w, _, servers := watching(t, "spamcop", "psbl", "gbudb", "spamhaus-zen", "spamhaus-dbl", "barracuda")
	w.keep = true
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
	servers[0].texts[label(t, listedIP)] = "see https://www.spamcop.net/bl.shtml?198.51.100.20"
	servers[1].bend = always(found("127.255.255.254"))
	servers[2].entries[label(t, listedIP)] = []string{"127.0.0.9"}
	servers[3].entries[label(t, "2001:db8::/64")] = []string{"127.0.0.3"}
	servers[4].entries["bad.example"] = []string{"127.0.1.4"}
	var lists []List
	for _, name := range []string{"spamcop", "psbl", "gbudb", "spamhaus-zen", "spamhaus-dbl", "barracuda"} {
		lists = append(lists, listOf(t, name))
	}
	r := &counted{w: w}
	c := &Checker{Resolver: r, Catalogue: &Catalogue{Lists: lists}, Keys: Keys{"spamhaus": "k3y"}, Parallel: 3}
	results := c.Check(t.Context(), subject(t, listedIP), subject(t, "2001:db8::25"), subject(t, "bad.example"))
	got, err := json.MarshalIndent(results, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`{"subject":"198.51.100.20","list":"spamcop","status":"listed","codes":["127.0.0.2"],"meaning":"SCBL: reported for spam","reason":"see https://www.spamcop.net/bl.shtml?198.51.100.20","delist":"https://www.spamcop.net/bl.shtml?198.51.100.20"}`,
		`{"subject":"198.51.100.20","list":"psbl","status":"unknown","codes":[],"meaning":"","reason":"not tested: the list does not answer a public or anonymous resolver (127.255.255.254)","delist":""}`,
		`{"subject":"198.51.100.20","list":"gbudb","status":"unknown","codes":["127.0.0.9"],"meaning":"","reason":"the list answered a code that it does not document (127.0.0.9)","delist":""}`,
		`{"subject":"198.51.100.20","list":"spamhaus-zen","status":"clean","codes":[],"meaning":"","reason":"no entry","delist":""}`,
		`{"subject":"198.51.100.20","list":"barracuda","status":"unknown","codes":[],"meaning":"","reason":"not tested: it needs a key, or a resolver that it permits","delist":""}`,
		`{"subject":"2001:db8::25","list":"spamhaus-zen","status":"listed","codes":["127.0.0.3"],"meaning":"CSS: low-reputation sender of spam","reason":"","delist":"https://check.spamhaus.org/"}`,
		`{"subject":"bad.example","list":"spamhaus-dbl","status":"listed","codes":["127.0.1.4"],"meaning":"phish: phishing domain","reason":"","delist":"https://check.spamhaus.org/"}`,
	}, ",")
	if diff := cmp.Diff(normalJSON(t, "["+want+"]"), normalJSON(t, string(got))); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if r.most > 3 {
		t.Errorf("%d questions at once, want at most 3", r.most)
	}
	for _, name := range w.asked {
		if strings.Contains(name, "barracuda") {
			t.Errorf("asked %s without being permitted", name)
		}
	}
}

func TestCheckThatIsCutShort(t *testing.T) {
	w, _, _ := watching(t, "spamcop")
	w.keep = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := &Checker{Resolver: w, Catalogue: &Catalogue{Lists: []List{listOf(t, "spamcop")}}}
	results := c.Check(ctx, subject(t, cleanIP))
	if len(results) != 1 || results[0].Status != Unknown || results[0].Reason == "" || len(w.asked) > 0 {
		t.Errorf("results %+v, asked %q; want one that is unknown", results, w.asked)
	}
}

// A lying resolver says of one name that it is listed.
type lying struct {
	*world
	about string
}

func (l lying) Lookup(ctx context.Context, name string, t Type) Answer {
	if t == TypeA && strings.HasPrefix(name, l.about+".") {
		return found("127.0.0.2")
	}
	return l.world.Lookup(ctx, name, t)
}

// TestCheckConfirms asks the list's own servers about what the resolver says
// is listed.
func TestCheckConfirms(t *testing.T) {
	const why = "hit a trap"
	for _, tt := range []struct {
		name     string
		resolver func(*world) Resolver
		listed   bool // by the list itself
		want     Verdict
		reason   string
	}{
		{"they agree", func(w *world) Resolver { return w }, true, Listed, why},
		{"they do not", func(w *world) Resolver { return lying{w, label(t, listedIP)} }, false, Unknown,
			"the resolver says that it is listed, the list's own server that it is not (no entry)"},
		{"they cannot be reached", func(w *world) Resolver { return deaf{w} }, true, Listed,
			why + " (not confirmed by the list's own servers: no usable answer: unreachable)"},
		{"they have nothing for us", func(w *world) Resolver { return barred{w, Answer{Status: NXDomain}} }, true, Listed,
			why + " (not confirmed: the list's own servers do not serve this host)"},
		{"they refuse us", func(w *world) Resolver { return barred{w, found("127.255.255.254")} }, true, Listed,
			why + " (not confirmed by the list's own servers: the list does not answer a public or anonymous resolver (127.255.255.254))"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, _, servers := watching(t, "spamcop")
			if tt.listed {
				servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
				servers[0].texts[label(t, listedIP)] = why
			}
			c := &Checker{Resolver: tt.resolver(w), Catalogue: &Catalogue{Lists: []List{listOf(t, "spamcop")}}, Parallel: 1}
			r := c.Check(t.Context(), subject(t, listedIP))[0]
			if r.Status != tt.want || r.Reason != tt.reason {
				t.Errorf("%s, %q; want %s, %q", r.Status, r.Reason, tt.want, tt.reason)
			}
			if (r.Meaning != "") != (tt.want == Listed) || (r.Delist != "") != (tt.want == Listed) {
				t.Errorf("meaning %q, delist %q of what is %s", r.Meaning, r.Delist, r.Status)
			}
		})
	}
}

func TestCheckWithoutTrust(t *testing.T) {
	w, _, servers := watching(t, "spamcop", "barracuda")
	w.keep = true
	servers[0].entries[label(t, listedIP)] = []string{"127.0.0.2"}
	c := &Checker{Resolver: w, Catalogue: &Catalogue{Lists: []List{listOf(t, "spamcop"), listOf(t, "barracuda")}}, Distrust: "it lies"}
	results := c.Check(t.Context(), subject(t, listedIP))
	if got := []string{results[0].Reason, results[1].Reason}; !cmp.Equal(got, []string{"not tested: it lies", "not tested: it needs a key, or a resolver that it permits"}) {
		t.Errorf("reasons %q", got)
	}
	if results[0].Status != Unknown || len(w.asked) > 0 {
		t.Errorf("%s after %q", results[0].Status, w.asked)
	}
}

func TestCheckKeepsToTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := watching(t, "spamcop")
		var subjects []Subject
		for i := range 200 {
			subjects = append(subjects, subject(t, fmt.Sprintf("100.64.0.%d", i)))
		}
		begun := time.Now()
		c := &Checker{Resolver: &counted{w: w}, Catalogue: &Catalogue{Lists: []List{listOf(t, "spamcop")}}}
		for _, r := range c.Check(t.Context(), subjects...) {
			if r.Status != Clean {
				t.Fatalf("%s is %s: %s", r.Subject, r.Status, r.Reason)
			}
		}
		asked := w.servers[0].count
		if took := time.Since(begun); took != time.Duration(asked-checkBurst)*time.Second/defaultPerSecond {
			t.Errorf("%d questions took %s", asked, took)
		}
	})
}

func TestCheckHealth(t *testing.T) {
	w, _, servers := watching(t, "spamcop", "psbl", "barracuda")
	servers[1].bend = always(Answer{Status: NXDomain})
	c := &Checker{Resolver: w, Catalogue: &Catalogue{Lists: []List{listOf(t, "spamcop"), listOf(t, "psbl"), listOf(t, "barracuda")}}, Parallel: 1}
	var got []string
	for _, h := range c.Health(t.Context()) {
		got = append(got, h.List+" "+h.State.String()+" "+h.Text)
	}
	want := []string{"spamcop HEALTHY ", "psbl EMPTY its test entry is missing: the data is gone, or the zone is not what it was",
		"barracuda NO_KEY not tested: it needs a key, or a resolver that it permits"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
}

// normalJSON returns data in one form.
func normalJSON(t *testing.T, data string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(data), &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
