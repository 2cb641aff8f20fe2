package dnsbl

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"encoding/json"

	"github.com/google/go-cmp/cmp"
)

func TestKeysCheck(t *testing.T) {
	for _, tt := range []struct {
		operator string
		key      Key
		want     string // part of the mistake; empty if it is right
	}{
		{"spamhaus", "k3y", ""},
		{"spamhaus", Permitted, ""},
		{"barracuda", Permitted, ""},
		{"abusix", "K3Y", ""},
		{"abusix", Permitted, "it needs a key"},
		{"barracuda", "k3y", `want "permitted"`},
		{"spamhaus", "a.b", "letters, digits and hyphens"},
		{"spamhaus", "", "letters, digits and hyphens"},
		{"spamcop", "k3y", "no list of that operator needs one"},
		{"spamhouse", "k3y", "no list of that operator"},
	} {
		err := Keys{tt.operator: tt.key}.Check(Shipped())
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "a.b")) {
			t.Errorf("%s %s: %v, want %q", tt.operator, string(tt.key), err, tt.want)
		}
	}
}

func TestShippedCatalogue(t *testing.T) {
	c := Shipped()
	if len(c.Changes) > 0 {
		t.Errorf("%s is changed, and described nowhere", c.Changes[0].List)
	}
	if c.Version < 1 {
		t.Errorf("version is %d, want one that counts up", c.Version)
	}
	var kinds Kind
	for i := range c.Lists {
		l := &c.Lists[i]
		kinds |= l.Kinds
		if dead, ok := c.dead(l); ok {
			t.Errorf("%s is asked at %s, which %s", l.Name, l.PublicZone(), dead.Why)
		}
		if l.Tier == Inform && l.Weight >= 40 {
			t.Errorf("%s is informational, but weighs %d: it would warn by itself", l.Name, l.Weight)
		}
		if l.Access != Free && l.Terms == "" {
			t.Errorf("%s is not free, but does not say on which terms it may be asked", l.Name)
		}
	}
	if want := IP4 | IP6 | Domain | Hash; kinds != want {
		t.Errorf("the lists cover %s, want %s", kinds, want)
	}
	for _, zone := range []string{
		"zen.spamhaus.org", "{key}.authbl.dq.spamhaus.net", "dbl.spamhaus.org", "{key}.zrd.dq.spamhaus.net", "b.barracudacentral.org", "bl.spamcop.net",
		"{key}.combined.mail.abusix.zone", "multi.surbl.org", "multi.uribl.com", "rep.mailspike.net", "psbl.surriel.com", "dnsbl-1.uceprotect.net",
		"truncate.gbudb.net", "bl.blocklist.de", "bl.spameatingmonkey.net", "bl.ipv6.spameatingmonkey.net", "uribl.spameatingmonkey.net",
		"fresh15.spameatingmonkey.net", "{key}.spam.spamrats.com", "{key}.dyna.spamrats.com", "{key}.noptr.spamrats.com", "dnsbl.dronebl.org",
		"bl.0spam.org", "rbl.0spam.org", "bip.virusfree.cz", "dnsrbl.swinog.ch", "dnsbl.zapbl.net", "bl.scientificspam.net", "rhsbl.scientificspam.net",
		"bl.suomispam.net", "bl.nordspam.com", "all.s5h.net", "dnsbl.kempt.net", "dnsbl-2.uceprotect.net", "dnsbl-3.uceprotect.net", "ips.backscatterer.org",
		"bl.score.senderscore.com", "score.senderscore.com", "hostkarma.junkemailfilter.com", "list.dnswl.org", "_email.{key}.hbl.dq.spamhaus.net",
	} {
		if !slices.ContainsFunc(c.Lists, func(l List) bool { return l.PublicZone() == zone }) {
			t.Errorf("no list is asked at %s", zone)
		}
	}
}

func TestParseNamesEveryMistake(t *testing.T) {
	list := func(fields string) string {
		return "lists:\n  - name: x\n    zone: x.example\n    kinds: [ip4]\n    tier: warn\n    codes: [{code: 127.0.0.2, meaning: m}]\n" + fields
	}
	tests := []struct {
		name, data string
		want       []string
	}{
		{"empty", "", []string{"line 1: empty"}},
		{"syntax", "lists:\n  - name: [x\n", []string{"line 2: did not find expected ',' or ']'"}},
		{"second document", "version: 1\n---\nversion: 2\n", []string{"line 1: a catalogue is one document"}},
		{"unknown field", list("    wieght: 3\n"), []string{`line 7: field wieght not found in type a list`}},
		{"name", "lists:\n  - zone: x.example\n    kinds: [ip4]\n    tier: warn\n    codes: [{code: 127.0.0.2, meaning: m}]\n",
			[]string{`line 2: name "": want lower-case letters, digits and hyphens`}},
		{"nothing but a name", "lists:\n  - name: x\n", []string{
			"line 2: list x: kinds is missing", "line 2: list x: tier is missing: want inform, warn, act", "line 2: list x: zone is missing",
			"line 2: list x: codes is missing: an answer without a code is no listing",
		}},
		{"given twice", list("") + "  - name: x\n    zone: x.example\n    kinds: [ip4]\n    tier: warn\n    codes: [{code: 127.0.0.2, meaning: m}]\n",
			[]string{"line 7: list x: the name is given twice"}},
		{"zone", strings.Replace(list(""), "x.example", "127.0.0.1", 1), []string{`line 2: list x: zone: "127.0.0.1" is no zone`}},
		{"no place for the key", list("    keyed: x.example\n"), []string{`line 2: list x: keyed: "x.example" is no zone with one {key}`}},
		{"key and no keyed zone", list("    access: key\n"), []string{"line 2: list x: access is key, but keyed is missing"}},
		{"client of policy", strings.Replace(list(""), "meaning: m", "meaning: m, policy: true, client: 10", 1), []string{"line 2: list x: code 127.0.0.2: client: 10 is not between 0 and 100, or the code says nothing bad"}},
		{"weight", list("    weight: 101\n"), []string{"line 2: list x: weight: 101 is not between 0 and 100"}},
		{"budget", list("    per_second: -1\n    per_day: 5\n    every: 1s\n"), []string{
			"line 2: list x: per_second: -1 is not above 0 and at most a million", "line 2: list x: per_day: 5 is not between 100 and 10 billion",
			`line 2: list x: every: "1s" is no time between 1m and 24h`,
		}},
		{"rate is no number", list("    per_second: .nan\n"), []string{"line 2: list x: per_second: NaN is not above 0 and at most a million"}},
		{"delist", list("    delist: javascript:alert(1)\n"), []string{`line 2: list x: delist: "javascript:alert(1)" is no web address`}},
		{"code", strings.Replace(list(""), "127.0.0.2", "127.0.0.9-2", 1), []string{`line 2: list x: "127.0.0.9-2" is no code: "9-2" is no number or range up to 255`}},
		{"code outside 127/8", strings.Replace(list(""), "127.0.0.2", "10.0.0.2", 1), []string{"line 2: list x: code 10.0.0.2: want one below 127"}},
		{"bit in a list of codes", strings.Replace(list(""), "code: 127.0.0.2", "bit: 2, code: 127.0.0.2", 1), []string{"line 2: list x: bit: the list has no bits"}},
		{"code in a list of bits", list("    bits: true\n"), []string{"line 2: list x: bit: 0: want one of 1, 2, 4, … 128, and no code"}},
		{"bit 1 is no entry", strings.Replace(list("    bits: true\n"), "code: 127.0.0.2", "bit: 1", 1), []string{"line 2: list x: bit: 1 is always class refused"}},
		{"kinds", strings.Replace(list(""), "[ip4]", "[ip4, domain, ip5]", 1), []string{
			`line 2: list x: "ip5" is no kind: want ip4, ip6, domain or hash`, "line 2: list x: kinds: a list of domains or hashes lists nothing else",
		}},
		{"no test point", list("    test_listed: []\n"), []string{"line 2: list x: test_listed has no ip4: a list that cannot be tested is not used"}},
		{"hashes have no standard test point", strings.Replace(list(""), "[ip4]", "[hash]", 1), []string{"line 2: list x: test_listed has no hash: a list that cannot be tested is not used"}},
		{"network of the question", list("    ask4: 4\n"), []string{"line 2: list x: ask4: 4 is not between 8 and 32 bits"}},
		{"dead zone", "dead: [{zone: \"*.*\"}]\n", []string{`line 1: dead: "*.*" is no zone`}},
		{"changes", "lists:\n  - {name: x, per_day: 5, per_second: -1}\n  - {name: y, weight: 101, tier: loud}\n", []string{
			"line 2: list x: per_second: -1 is not above 0 and at most a million", "line 2: list x: per_day: 5 is not between 100 and 10 billion",
			`line 3: list y: "loud" is no tier: want inform, warn, act`, "line 3: list y: weight: 101 is not between 0 and 100",
		}},
		{"a list and a change to it", list("") + "  - {name: x, per_day: 500}\n", []string{"line 7: list x: the name is given twice"}},
		{"more than a change", "lists:\n  - {name: spamcop, tier: warn, terms: none}\n", []string{
			"line 2: list spamcop: kinds is missing", "line 2: list spamcop: zone is missing", "line 2: list spamcop: codes is missing: an answer without a code is no listing",
		}},
		{"too large", strings.Repeat("#", maxCatalogue+1), []string{"line 1: larger than 1048576 bytes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseCatalogue([]byte(tt.data))
			var got []string
			if joined, ok := errors.Unwrap(err).(interface{ Unwrap() []error }); ok {
				for _, e := range joined.Unwrap() {
					got = append(got, e.Error())
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

// own parses an operator's catalogue of one list at that zone.
func own(t testing.TB, name, zone, more string) *Catalogue {
	t.Helper()
	c, err := ParseCatalogue(fmt.Appendf(nil, "%s\nlists:\n  - name: %s\n    zone: %s\n    kinds: [ip4]\n    tier: act\n    every: 30m\n    codes: [{code: 127.0.0.2, meaning: m}]\n", more, name, zone))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMerge(t *testing.T) {
	find := func(c *Catalogue, name string) *List {
		i := slices.IndexFunc(c.Lists, func(l List) bool { return l.Name == name })
		if i < 0 {
			return nil
		}
		return &c.Lists[i]
	}
	t.Run("replaces a list of the same name, and keeps the rest", func(t *testing.T) {
		c, warnings, err := Shipped().Merge(own(t, "psbl", "psbl.mirror.example", ""))
		if err != nil || len(warnings) > 0 {
			t.Fatal(err, warnings)
		}
		if l := find(c, "psbl"); l.Zone != "psbl.mirror.example" || l.Every != 30*time.Minute {
			t.Errorf("psbl is asked at %s every %s, want the operator's", l.Zone, l.Every)
		}
		if len(c.Lists) != len(Shipped().Lists) || find(Shipped(), "psbl").Zone != "psbl.surriel.com" {
			t.Errorf("other lists changed")
		}
	})
	t.Run("disables by zone and by name", func(t *testing.T) {
		c, warnings, err := Shipped().Merge(own(t, "mine", "bl.example", "disabled: [psbl.surriel.com, ZAPBL, nothing.example]"))
		if err != nil {
			t.Fatal(err)
		}
		if find(c, "psbl") != nil || find(c, "zapbl") != nil || find(c, "mine") == nil {
			t.Errorf("want psbl and zapbl gone and mine there")
		}
		if diff := cmp.Diff([]string{`disabled: no list is called "nothing.example"`}, warnings); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("changes what a list of that name has", func(t *testing.T) {
		parsed, err := ParseCatalogue([]byte("lists:\n  - {name: spamhaus-zen, per_day: 5000000, per_second: 50, weight: 50}\n  - {name: psbl, tier: act}\n  - {name: spamcop, weight: 0}\n"))
		if err != nil {
			t.Fatal(err)
		}
		c, warnings, err := Shipped().Merge(parsed)
		if err != nil || len(warnings) > 0 {
			t.Fatal(err, warnings)
		}
		zen, before := *find(c, "spamhaus-zen"), find(Shipped(), "spamhaus-zen")
		if zen.PerDay != 5_000_000 || zen.PerSecond != 50 || zen.Weight != 50 || zen.Tier != before.Tier || zen.Zone != before.Zone {
			t.Errorf("spamhaus-zen: %+v", zen)
		}
		for i, code := range zen.Codes {
			if want := (before.Codes[i].Weight + 1) / 2; code.Weight != want {
				t.Errorf("%s weighs %d, want %d", code.says(), code.Weight, want)
			}
		}
		if before.Weight != 100 || before.Codes[0].Weight == zen.Codes[0].Weight || len(c.Lists) != len(Shipped().Lists) {
			t.Error("the shipped catalogue changed, too, or a list is missing")
		}
		if l, was := find(c, "psbl"), find(Shipped(), "psbl"); l.Tier != Act || l.Every != Act.base() || l.Weight != was.Weight || l.PerDay != was.PerDay {
			t.Errorf("psbl: tier %s, every %s, weight %d", l.Tier, l.Every, l.Weight)
		}
		if l := find(c, "spamcop"); l.Weight != 0 || l.Codes[0].Weight != 0 {
			t.Errorf("spamcop weighs %d", l.Weight)
		}
	})
	t.Run("refuses a change to nothing", func(t *testing.T) {
		parsed, err := ParseCatalogue([]byte("lists:\n  - {name: spamhouse-zen, per_day: 5000000}\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Shipped().Merge(parsed)
		var m *Mistake
		if !errors.As(err, &m) || m.Line != 2 || !strings.Contains(err.Error(), "line 2: list spamhouse-zen: there is none of that name to change, and a new one needs zone") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("refuses a dead zone", func(t *testing.T) {
		for _, zone := range []string{"dnsbl.sorbs.net", "sorbs.net", "ix.dnsbl.manitu.net"} {
			if _, _, err := Shipped().Merge(own(t, "mine", zone, "")); err == nil || !strings.Contains(err.Error(), "it must not be asked") {
				t.Errorf("%s: error %v, want that it must not be asked", zone, err)
			}
		}
	})
	t.Run("warns about a redundant zone", func(t *testing.T) {
		c, warnings, err := Shipped().Merge(own(t, "mine", "cbl.abuseat.org", ""))
		if err != nil || len(warnings) != 1 || find(c, "mine") == nil {
			t.Errorf("warnings %q, error %v; want one warning and the list", warnings, err)
		}
	})
}

func TestKeysOpenLists(t *testing.T) {
	c := Shipped()
	tests := []struct {
		name, list string
		keys       Keys
		want       string
	}{
		{"free", "spamcop", nil, "bl.spamcop.net"},
		{"needs a key", "spamhaus-authbl", nil, ""},
		{"a key", "spamhaus-authbl", Keys{"spamhaus": "AbC1"}, "abc1.authbl.dq.spamhaus.net"},
		{"being permitted is no key", "spamhaus-authbl", Keys{"spamhaus": Permitted}, ""},
		{"public zone, not permitted", "spamhaus-zen", nil, ""},
		{"public zone, permitted", "spamhaus-zen", Keys{"spamhaus": Permitted}, "zen.spamhaus.org"},
		{"public zone, with a key", "spamhaus-zen", Keys{"spamhaus": "abc1"}, "abc1.zen.dq.spamhaus.net"},
		{"registered resolver", "barracuda", Keys{"barracuda": Permitted}, "b.barracudacentral.org"},
		{"a key that cannot be one", "abusix", Keys{"abusix": "a.b"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := slices.IndexFunc(c.Lists, func(l List) bool { return l.Name == tt.list })
			if got, open := c.Lists[i].zone(tt.keys); got != tt.want || open != (tt.want != "") {
				t.Errorf("zone %q, open %v; want %q", got, open, tt.want)
			}
		})
	}
}

func TestKeysStayHidden(t *testing.T) {
	const secret = "sekrit"
	keys := Keys{"spamhaus": secret}
	task := Task{Kind: Poll, List: "spamhaus-zen", zone: secret + ".zen", name: "2.0.0.127." + secret + ".zen"}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "keys", keys, "key", keys["spamhaus"], "task", task)
	js, err := json.Marshal(map[string]any{"keys": keys, "key": keys["spamhaus"], "task": task})
	if err != nil {
		t.Fatal(err)
	}
	l := watched{List: List{Zone: "zen", Operator: "spamhaus", Keyed: "{key}.zen"}}
	l.openWith(keys)
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %q", keys, keys, keys, keys["spamhaus"]), fmt.Sprintf("%v %+v %#v", task, task, task),
		log.String(), string(js), l.hide("127.0.0.2." + strings.ToUpper(secret) + ".zen is listed"),
	} {
		if strings.Contains(strings.ToLower(text), secret) {
			t.Errorf("the key is in %s", text)
		}
	}
}
