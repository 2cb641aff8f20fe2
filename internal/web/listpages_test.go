package web

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// seen signs in and returns a page.
func seen(t *testing.T, lists Lists, address string) string {
	t.Helper()
	d := open(t, lists)
	d.signIn(token)
	return d.see(address)
}

// assertHas reports which words are not in the page, or not in that order.
func assertHas(t *testing.T, page string, words ...string) {
	t.Helper()
	rest := page
	for _, w := range words {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			t.Errorf("%q is not in the page, or not after what stands before it:\n%s", w, page)
			return
		}
		rest = after
	}
}

func TestListsPage(t *testing.T) {
	page := seen(t, watching(300), "/lists")
	assertHas(t, page,
		"1 of 300 is listed.", "1 more may be", "2 of 9",
		"Wrong now", "203.0.0.0", "95 %", "critical", "List of HEALTHY", "listed", "3 h ago", "source of spam", "127.0.0.2", "see the page",
		`href="https://lists.example/removal" rel="noreferrer noopener"`, "lists.example",
		"203.0.0.1", "information", "suspected: nobody has confirmed it yet", "cannot be believed now (does not answer)",
		"1–100 of 300", "203.0.0.99", "on none of 21; 1 cannot tell", "Page 1 of 3",
		"refuses to answer us", "as it is: NO_KEY", "not tested yet", "believed, but slow", "1,234")
	if strings.Contains(page, "203.0.0.100") || strings.Contains(page, "javascript") {
		t.Errorf("too much is shown:\n%s", page)
	}
}

// Clean is said only where lists say so; nothing else reads as clean.
func TestVerdictsHaveThreeAnswers(t *testing.T) {
	healthy := []ListState{{List: "a", State: "HEALTHY"}}
	keyless := []ListState{{List: "a", State: "NO_KEY"}}
	on := func(stage string) []Listing { return []Listing{{List: "a", Stage: stage}} }
	for _, c := range []struct {
		name string
		now  ListsNow
		want string
		row  string // verdict of the first subject
	}{
		{"clean", ListsNow{Subjects: []ListSubject{{Subject: "x", Clean: 1}}, Lists: healthy}, "Nothing is known to be listed.", "clean"},
		{"no list can tell", ListsNow{Subjects: []ListSubject{{Subject: "x", Unknown: []string{"psbl"}}}, Lists: keyless}, "Nobody can tell", "unknown"},
		{"distrust", ListsNow{Distrust: "the resolver rewrites", Subjects: []ListSubject{{Subject: "x", Unknown: []string{"psbl"}}}, Lists: healthy}, "Nobody can tell", "unknown"},
		{"not asked yet", ListsNow{Subjects: []ListSubject{{Subject: "x"}}, Lists: healthy}, "Nobody can tell", "unknown"},
		{"some not asked yet", ListsNow{Subjects: []ListSubject{{Subject: "x", Clean: 1}, {Subject: "y", Unknown: []string{"psbl"}}}, Lists: healthy}, "1 is unknown: no list can tell.", "clean"},
		{"suspected", ListsNow{Subjects: []ListSubject{{Subject: "x", Listings: on("SUSPECT"), Clean: 3}}, Lists: healthy}, "1 may be: that is being confirmed.", "suspected"},
		{"listed", ListsNow{Subjects: []ListSubject{{Subject: "x", Listings: on("LISTED"), Clean: 3}}, Lists: healthy}, "1 of 1 is listed.", "listed"},
		{"leaving", ListsNow{Subjects: []ListSubject{{Subject: "x", Listings: on("CLEARING"), Clean: 3}}, Lists: healthy}, "1 of 1 is listed.", "listed"},
		{"listed, and the list died", ListsNow{Subjects: []ListSubject{{Subject: "x", Listings: on("LISTED")}}, Lists: keyless}, "1 of 1 is listed.", "listed"},
		{"nothing watched", ListsNow{Lists: healthy}, "Nothing is watched yet.", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			page := seen(t, atlas{now: c.now}, "/lists")
			assertHas(t, page, c.want)
			if strings.Contains(page, `class="good"`) != (c.name == "clean") {
				t.Error("it reads as clean")
			}
			if c.row != "" {
				if got := verdictOf(c.now.Subjects[0]); got != c.row {
					t.Errorf("verdict %q, want %q", got, c.row)
				}
			}
		})
	}
}

func TestPagingIsBounded(t *testing.T) {
	all := watching(4096).now.Subjects
	for _, c := range []struct {
		query       string
		page, pages int
		from, to    int
		found       int
	}{
		{"", 1, 41, 1, 100, 4096},
		{"page=41", 41, 41, 4001, 4096, 4096},
		{"page=42", 41, 41, 4001, 4096, 4096},
		{"page=99999999999999999999", 41, 41, 4001, 4096, 4096},
		{"page=9223372036854775807", 41, 41, 4001, 4096, 4096},
		{"page=0", 1, 41, 1, 100, 4096},
		{"page=-3", 1, 41, 1, 100, 4096},
		{"page=x", 1, 41, 1, 100, 4096},
		{"q=203.0.7.0/24&page=2", 2, 3, 101, 200, 256},
		{"q=203.0.7.7", 1, 1, 1, 11, 11},
		{"q=203.0.7.007", 1, 1, 0, 0, 0},
		{"q=nothing", 1, 1, 0, 0, 0},
		{"listed=1", 1, 1, 1, 2, 2},
		{"listed=1&q=203.0.0.1&page=7", 1, 1, 1, 1, 1},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		v := viewWatched(all, nil, q, time.Now())
		if v.Page != c.page || v.Pages != c.pages || v.From != c.from || v.To != c.to || v.Found != c.found || len(v.Rows) != max(0, c.to-c.from+min(1, c.from)) {
			t.Errorf("%q: page %d of %d, %d–%d of %d, %d rows", c.query, v.Page, v.Pages, v.From, v.To, v.Found, len(v.Rows))
		}
		if (v.Prev == "") != (v.Page == 1) || (v.Next == "") != (v.Page == v.Pages) {
			t.Errorf("%q: before it %q, after it %q", c.query, v.Prev, v.Next)
		}
	}
	v := viewWatched(all, nil, url.Values{"q": {"203.0.7.0/24"}}, time.Now())
	if v.Next != "/lists?page=2&q=203.0.7.0%2F24#watched" {
		t.Errorf("the next page is %q", v.Next)
	}
}

// A list that names everybody makes no page without end.
func TestMassListingIsBounded(t *testing.T) {
	a := watching(0)
	for i := range 5000 {
		s := ListSubject{Subject: fmt.Sprint("mx", i, ".example"), Level: "note", Exposure: 0.1}
		for range 43 {
			s.Listings = append(s.Listings, Listing{List: "list0", Stage: "LISTED", Reason: strings.Repeat("x", 512)})
		}
		a.now.Subjects = append(a.now.Subjects, s)
	}
	page := seen(t, a, "/lists")
	assertHas(t, page, "5,000 of 5,000 are listed.", "4,950 more", "and 38 more")
	if len(page) > 4<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

func TestListsOff(t *testing.T) {
	for _, address := range []string{"/lists", "/lists/history"} {
		assertHas(t, seen(t, nil, address), "No block lists are watched", "watch: true", "resolvers:")
	}
}

func TestHistoryPage(t *testing.T) {
	a := watching(1)
	at := time.Now().Add(-26 * time.Hour)
	a.rows = []ListChange{
		{Time: at, Kind: "listed", List: "spamcop", Subject: "192.0.2.1", Since: at, Codes: []string{"127.0.0.2"}, Meaning: "reported", Reason: "see us", Delist: "https://lists.example/x", Server: "192.0.2.53"},
		{Time: at, Kind: "list-state", List: "spamcop", State: "OFFLINE", Text: "no answer since noon"},
		{Time: at, Kind: "something new", List: "spamcop", Subject: "192.0.2.1"},
	}
	assertHas(t, seen(t, a, "/lists/history?subject=192.0.2.1"), `value="192.0.2.1"`, "The newest 3 changes", "26 h ago", "192.0.2.1", "spamcop", "listed", "reported", "127.0.0.2", "see us",
		"confirmed by", "192.0.2.53", "lists.example", "the list itself", "does not answer", "no answer since noon", "something new")
	assertHas(t, seen(t, atlas{}, "/lists/history?list=x"), "Nothing has changed there")

	for range 2000 {
		a.rows = append(a.rows, a.rows[0])
	}
	assertHas(t, seen(t, a, "/lists/history"), "The newest 100 changes", `href="/lists/history?limit=1000`)
	assertHas(t, seen(t, a, "/lists/history?limit=100000"), "The newest 1,000 changes", "vedetta dnsbl history")
	d := open(t, a)
	d.signIn(token)
	r := d.ask("GET", "/lists/history?subject=bad", nil)
	if page := text(t, r); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "neither an address nor a domain") {
		t.Errorf("a subject that is none: %s\n%s", r.Status, page)
	}
}

func TestOutward(t *testing.T) {
	for link, host := range map[string]string{
		"https://www.spamcop.net/bl.shtml?192.0.2.1": "www.spamcop.net", "http://lists.example:8080/": "lists.example:8080",
		"": "", "javascript:alert(1)": "", "data:text/html,x": "", "//lists.example/": "", "https://": "", "https://user@lists.example/": "", "https://раураl.example/": "",
		"ftp://lists.example/": "", "https://lists.example\u202e/": "", "/lists": "", "https:lists.example": "", "%zz": "",
	} {
		if got, h := outward(link); h != host || (got == "") != (host == "") {
			t.Errorf("%q: %q at %q, want %q", link, got, h, host)
		}
	}
	for in, want := range map[float64]int{0: 0, -1: 0, 0.004: 0, 0.95: 95, 1: 100, 7: 100, math.Inf(1): 100} {
		if got := percent(in); got != want {
			t.Errorf("%v: %d", in, got)
		}
	}
	if percent(math.NaN()) != 0 {
		t.Error("no number is some exposure")
	}
}

func TestListsThatCannotBeBelievedComeFirst(t *testing.T) {
	var got []string
	for _, v := range viewStates(watching(0).now, time.Now()) {
		got = append(got, v.State)
	}
	want := []string{"EMPTY", "OFFLINE", "REFUSED", "SUSPECT", "WILDCARD", "NO_KEY", "UNTESTED", "DEGRADED", "HEALTHY"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// While no list is asked, none reads as believed, and what they said before is marked.
func TestDistrustBelievesNothing(t *testing.T) {
	a := watching(3)
	a.now.Distrust = "resolver 192.0.2.53 makes names up"
	page := seen(t, a, "/lists")
	assertHas(t, page, "No list is asked", "makes names up", "1 of 3 is listed", "0 of 9", "cannot be believed now (not asked now)")
	if strings.Contains(page, "state-believed") || strings.Contains(page, "state-slow") {
		t.Errorf("a list reads as believed:\n%s", page)
	}
}

// A list without its key says what it needs, and never reads as clean.
func TestListWithoutKey(t *testing.T) {
	v := viewStates(ListsNow{Lists: []ListState{{List: "a", State: "NO_KEY"}, {List: "b", State: "NO_KEY", Text: "not tested: it needs a key, or a resolver that it permits"}}}, time.Now())
	if v[0].Words != "not tested: needs a key" || v[1].Words != "not tested: it needs a key, or a resolver that it permits" || v[0].believed() || v[1].believed() {
		t.Errorf("%+v", v)
	}
}

// FuzzPages asks for pages with any parameters, about texts of any content.
func FuzzPages(f *testing.F) {
	f.Add("203.0.113.0/24", "2", "100", "a stranger's text")
	f.Add(evil, "-1", "9999999999", evil)
	f.Add("\"><img src=x onerror=alert(1)>", "1e9", "0", "https://lists.example/\"onclick=x")
	f.Fuzz(func(t *testing.T, q, page, limit, reason string) {
		a := watching(3)
		a.now.Subjects[0].Listings[0].Reason = reason
		a.rows = []ListChange{{Kind: reason, List: q, Subject: reason, Reason: reason}}
		s := &Server{Lists: a, Log: slog.New(slog.DiscardHandler)}
		query := url.Values{"q": {q}, "page": {page}, "subject": {q}, "list": {q}, "limit": {limit}, "listed": {page}}.Encode()
		for _, show := range []http.HandlerFunc{s.listsPage, s.historyPage} {
			w := httptest.NewRecorder()
			show(w, httptest.NewRequestWithContext(t.Context(), "GET", "/lists?"+query, nil))
			if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
				t.Errorf("%s: %d", query, w.Code)
			}
			assertHarmless(t, w.Body.String())
		}
	})
}
