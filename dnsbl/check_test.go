package dnsbl

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

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
