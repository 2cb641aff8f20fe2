//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// The block lists of the test, in the form that such lists are published in.
// Some are well, and some are what has gone wrong with lists.
var blockLists = []bed.DNSZone{
	{Name: "bl.spamcop.net", Type: "ip4set", Data: `:127.0.0.2:Blocked - see https://www.spamcop.net/bl.shtml?$
127.0.0.2
198.51.100.20
203.0.113.0/24
198.51.100.77 :127.0.0.77:what is this
`},
	{Name: "zen.spamhaus.org", Type: "combined", Data: `$DATASET ip4set:sbl @
:127.0.0.2:https://check.spamhaus.org/sbl/query/SBL1
127.0.0.2
198.51.100.20
$DATASET ip4trie:pbl @
:127.0.0.11:https://check.spamhaus.org/query/ip/$
127.0.0.2
198.51.100.0/24
!198.51.100.128/25
$DATASET ip6trie:css @
:127.0.0.3:CSS https://evil.example/pay
0:0:0:0:0:ffff:7f00:2/128
2001:db8:1:2::/64
`},
	{Name: "dbl.spamhaus.org", Type: "dnset", Data: `:127.0.1.4:https://check.spamhaus.org/query/domain/$
.dbltest.com
test
.phish.example
hacked.example :127.0.1.104:hacked
asked-wrongly.example :127.0.1.255:no IP queries
`},
	{Name: "multi.surbl.org", Type: "dnset", Data: `:127.0.0.72:spam and phishing
.surbl-org-permanent-test-point.com
test
phish.example
blocked.example :127.0.0.73:blocked
`},
	{Name: "rep.mailspike.net", Type: "ip4set", Data: `:127.0.0.10:worst
127.0.0.2
198.51.100.20 :127.0.0.18:good
198.51.100.21 :127.0.0.14:neutral
198.51.100.22
`},
	{Name: "bl.suomispam.net", Type: "ip4set", Data: ":127.0.0.2:spam\n127.0.0.2 :127.0.0.99:test\n198.51.100.20\n"},
	{Name: "psbl.surriel.com", Type: "ip4set", Data: ":127.0.0.2:everybody\n0.0.0.0/1\n128.0.0.0/1\n"},
	{Name: "truncate.gbudb.net", Type: "ip4set", Data: ":127.0.0.2:nobody is left\n192.0.2.99\n"},
	{Name: "dnsbl-1.uceprotect.net", Type: "ip4set", Data: ":127.255.255.254:open resolver\n0.0.0.0/1\n128.0.0.0/1\n"},
	{Name: "bl.blocklist.de", Type: "ip4set", Data: ":127.0.0.1:refused\n0.0.0.0/1\n128.0.0.0/1\n"},
	{Name: "bl.spameatingmonkey.net", Type: "ip4set", Data: ":91.195.240.117:parked\n0.0.0.0/1\n128.0.0.0/1\n"},
}

// A verdict is what one list should say about a subject.
type listVerdict struct {
	subject, list string
	codes         []string
	want          dnsbl.Verdict
}

var listVerdicts = []listVerdict{
	{"198.51.100.20", "spamcop", []string{"127.0.0.2"}, dnsbl.Listed},
	{"198.51.100.20", "spamhaus-zen", []string{"127.0.0.2", "127.0.0.11"}, dnsbl.Listed},
	{"198.51.100.20", "mailspike", []string{"127.0.0.18"}, dnsbl.Clean},
	{"198.51.100.20", "suomispam", []string{"127.0.0.2"}, dnsbl.Listed},
	{"198.51.100.21", "spamcop", nil, dnsbl.Clean},
	{"198.51.100.21", "spamhaus-zen", []string{"127.0.0.11"}, dnsbl.Listed},
	{"198.51.100.21", "mailspike", []string{"127.0.0.14"}, dnsbl.Clean},
	{"198.51.100.200", "spamhaus-zen", nil, dnsbl.Clean},
	{"198.51.100.200", "suomispam", nil, dnsbl.Clean},
	{"198.51.100.22", "mailspike", []string{"127.0.0.10"}, dnsbl.Listed},
	{"198.51.100.77", "spamcop", []string{"127.0.0.77"}, dnsbl.Unknown},
	{"203.0.113.9", "spamcop", []string{"127.0.0.2"}, dnsbl.Listed},
	{"2001:db8:1:2::25", "spamhaus-zen", []string{"127.0.0.3"}, dnsbl.Listed},
	{"2001:db8:1:3::25", "spamhaus-zen", nil, dnsbl.Clean},
	{"www.phish.example", "spamhaus-dbl", []string{"127.0.1.4"}, dnsbl.Listed},
	{"hacked.example", "spamhaus-dbl", []string{"127.0.1.104"}, dnsbl.Listed},
	{"asked-wrongly.example", "spamhaus-dbl", []string{"127.0.1.255"}, dnsbl.Unknown},
	{"phish.example", "surbl", []string{"127.0.0.72"}, dnsbl.Listed},
	{"blocked.example", "surbl", []string{"127.0.0.73"}, dnsbl.Unknown},
	{"shop.example", "surbl", nil, dnsbl.Clean},
}

// Why the lists that are not well are not believed.
var brokenLists = map[string]string{
	"psbl":             "it lists what cannot be listed",
	"gbudb":            "its test entry is missing: the data is gone, or the zone is not what it was",
	"uceprotect-1":     "not tested: the list does not answer a public or anonymous resolver (127.255.255.254)",
	"blocklist-de":     "not tested: the list refuses to answer (127.0.0.1)",
	"spameatingmonkey": "it lists what cannot be listed: the answer is not the list's: a parked zone, or a resolver that rewrites (91.195.240.117)",
	"barracuda":        "not tested: it needs a key, or a resolver that it permits",
	"abusix":           "not tested: it needs a key",
	"dronebl":          "it does not answer: server failure",
}

// TestListsThroughUnbound asks the lists by a real resolver and has the same
// verdicts as the package gives the same answers.
func TestListsThroughUnbound(t *testing.T) {
	d := bed.StartDNS(t, blockLists)
	config := filepath.Join(t.TempDir(), "vedetta.yaml")
	text := fmt.Sprintf("dnsbl:\n  resolvers: [%q]\n  own_servers: [127.0.0.0/8]\n  keys: {spamhaus: permitted}\n", d.Resolver)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(args ...string) (out string, code int) {
		return dnsblCommand(t, append([]string{"check", "-c", config}, args...)...)
	}

	t.Run("verdicts", func(t *testing.T) {
		args := []string{"--json"}
		for _, v := range listVerdicts {
			if !slices.Contains(args, v.subject) {
				args = append(args, v.subject)
			}
		}
		out, code := check(args...)
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		rows := listRows(t, out)
		for _, v := range listVerdicts {
			if got := judge(t, v); got != v.want {
				t.Errorf("%s on %s: the package says %s of %v, want %s", v.subject, v.list, got, v.codes, v.want)
			}
			row := rows[v.subject+" "+v.list]
			if !slices.Equal(row.Codes, v.codes) && len(row.Codes)+len(v.codes) > 0 || row.Status != v.want.String() {
				t.Errorf("%s on %s: %s, %v (%s); want %s, %v", v.subject, v.list, row.Status, row.Codes, row.Reason, v.want, v.codes)
			}
			if strings.Contains(row.Reason, "not confirmed") {
				t.Errorf("%s on %s: %s", v.subject, v.list, row.Reason)
			}
		}
		for list, reason := range brokenLists {
			if row := rows["198.51.100.20 "+list]; row.Status != "unknown" || row.Reason != reason || len(row.Codes) > 0 {
				t.Errorf("on %s: %s, %q, %v; want unknown, %q", list, row.Status, row.Reason, row.Codes, reason)
			}
		}
		want := listRow{"198.51.100.20", "spamcop", "listed", []string{"127.0.0.2"}, "SCBL: reported for spam",
			"Blocked - see https://www.spamcop.net/bl.shtml?198.51.100.20", "https://www.spamcop.net/bl.shtml?198.51.100.20"}
		if diff := cmp.Diff(want, rows["198.51.100.20 spamcop"]); diff != "" {
			t.Errorf("a listing (-want +got):\n%s", diff)
		}
		if row := rows["2001:db8:1:2::25 spamhaus-zen"]; row.Delist != "https://check.spamhaus.org/" {
			t.Errorf("the list sends people to %s", row.Delist)
		}
	})
	t.Run("people", func(t *testing.T) {
		out, code := check("198.51.100.20")
		for _, want := range []string{"198.51.100.20: on 3 of ", "listed", "removal: https://www.spamcop.net/bl.shtml?198.51.100.20", "not tested: it needs a key", "it does not answer: server failure"} {
			if !strings.Contains(out, want) {
				t.Errorf("output lacks %q:\n%s", want, out)
			}
		}
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		if out, code = check("192.0.2.1", "shop.example"); code != 0 || !strings.Contains(out, "shop.example: on no list; clean on ") {
			t.Errorf("exit code %d, want 0:\n%s", code, out)
		}
	})
	t.Run("nagios", func(t *testing.T) {
		out, code := check("--nagios", "203.0.113.9", "192.0.2.1")
		if want := "DNSBL WARNING - 203.0.113.9 is on spamcop | listed=1 clean="; code != 1 || !strings.HasPrefix(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("exit code %d: %q; want 1: %q", code, out, want)
		}
		if out, code = check("--nagios", "192.0.2.1"); code != 0 || !strings.HasPrefix(out, "DNSBL OK - on no list | listed=0 clean=") {
			t.Errorf("exit code %d: %q; want 0", code, out)
		}
	})
	t.Run("lists", func(t *testing.T) {
		out, code := dnsblCommand(t, "lists", "-c", config, "--json")
		states := map[string]string{}
		for line := range strings.Lines(out) {
			var h struct{ List, State, Terms string }
			if err := json.Unmarshal([]byte(line), &h); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			states[h.List] = h.State
		}
		for list, want := range map[string]string{
			"spamcop": "HEALTHY", "spamhaus-zen": "HEALTHY", "surbl": "HEALTHY", "suomispam": "HEALTHY", "psbl": "WILDCARD", "gbudb": "EMPTY",
			"uceprotect-1": "REFUSED", "blocklist-de": "REFUSED", "spameatingmonkey": "WILDCARD", "barracuda": "NO_KEY", "dronebl": "OFFLINE",
		} {
			if states[list] != want {
				t.Errorf("%s is %s, want %s", list, states[list], want)
			}
		}
		if code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		if out, _ = dnsblCommand(t, "lists", "-c", config); !strings.Contains(out, "not tested: it needs a key") || !strings.Contains(out, "Data Query Service") {
			t.Errorf("output lacks the terms:\n%s", out)
		}
	})
	t.Run("the lists die", func(t *testing.T) {
		if err := d.StopLists(); err != nil {
			t.Fatal(err)
		}
		if out, code := check("--nagios", "203.0.113.77"); code != 3 || !strings.HasPrefix(out, "DNSBL UNKNOWN - nobody could tell about 203.0.113.77 | listed=0 clean=0 ") {
			t.Errorf("exit code %d: %q; want 3", code, out)
		}
	})
	t.Run("the resolver dies", func(t *testing.T) {
		if err := d.StopResolver(); err != nil {
			t.Fatal(err)
		}
		if out, code := check("198.51.100.20"); code != 3 || !strings.Contains(out, "could not tell on any of") {
			t.Errorf("exit code %d, want 3:\n%s", code, out)
		}
	})
}

// TestServeWatchesLists has an address of the running service listed after a
// while. A reply in the log has it asked about at once; a minute later, the list
// itself confirming, people are told once, over a restart too.
func TestServeWatchesLists(t *testing.T) {
	t.Parallel() // it waits more than it works
	const address = "203.0.113.9"
	clean, listed := ":127.0.0.2:spam, see https://www.spamcop.net/bl.shtml?$\n127.0.0.2\n", "203.0.113.9\n"
	d := bed.StartDNS(t, []bed.DNSZone{{Name: "bl.spamcop.net", Type: "ip4set", Data: clean}})
	hook := newHook(t)
	log := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	others := "disabled:\n" // lists that nobody serves here
	for _, l := range dnsbl.Shipped().Lists {
		if l.Name != "spamcop" && l.Name != "barracuda" {
			others += "- " + l.Name + "\n"
		}
	}
	catalogue := filepath.Join(t.TempDir(), "lists.yml")
	if err := os.WriteFile(catalogue, []byte(others), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newService(t, setup{Logs: []string{log}, Notify: hook.section(),
		DNSBL: fmt.Sprintf("watch: true\ninterfaces: false\nown_servers: [127.0.0.0/8]\nresolvers: [%q]\naddresses: [%q]\ncatalogue: %s\n", d.Resolver, address, catalogue)})
	s.start()
	lists := func() (states map[string]string, first web.ListSubject) {
		now, err := s.Lists(t.Context())
		if err != nil || len(now.Subjects) == 0 {
			return nil, first
		}
		states = map[string]string{}
		for _, l := range now.Lists {
			states[l.List] = l.State
		}
		return states, now.Subjects[0]
	}
	wait(t, "the list to be believed", func() bool { states, _ := lists(); return states["spamcop"] == "HEALTHY" })
	if states, first := lists(); states["barracuda"] != "NO_KEY" || first.Subject != address || len(first.Listings) > 0 {
		t.Errorf("states %v, watched %+v", states, first)
	}
	d.Publish("bl.spamcop.net", clean+listed)
	time.Sleep(3 * time.Second) // until rbldnsd has read it, and Unbound forgot
	now := time.Now().UTC().Format(time.RFC3339)
	for _, line := range []string{
		now + " mx1 postfix/submission/smtpd[7]: 4GZZk45QRtz1cZ: client=pc[192.0.2.9], sasl_method=PLAIN, sasl_username=alice@shop.test",
		now + " mx1 postfix/qmgr[8]: 4GZZk45QRtz1cZ: from=<alice@shop.test>, size=1000, nrcpt=1 (queue active)",
		now + " mx1 postfix/smtp[9]: 4GZZk45QRtz1cZ: to=<r@example.org>, relay=mx.example.org[192.0.2.25]:25, delay=1, delays=0/0/1/0, dsn=5.7.1, status=bounced " +
			"(host mx.example.org[192.0.2.25] said: 554 5.7.1 Service unavailable; Client host [" + address + "] blocked using bl.spamcop.net (in reply to RCPT TO command))",
		now + " mx1 postfix/submission/smtpd[7]: 4GZZk45QRtz1cY: client=pc[192.0.2.9], sasl_method=PLAIN, sasl_username=alice@shop.test",
		now + " mx1 postfix/qmgr[8]: 4GZZk45QRtz1cY: from=<alice@shop.test>, size=1000, nrcpt=1 (queue active)",
		now + " mx1 postfix/smtp[9]: 4GZZk45QRtz1cY: to=<r@example.net>, relay=mx.example.net[192.0.2.26]:25, delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 ok)",
	} {
		appendLine(t, log, line)
	}
	stage := func() string {
		if _, first := lists(); len(first.Listings) > 0 {
			return first.Listings[0].Stage
		}
		return ""
	}
	wait(t, "a first answer that it is listed", func() bool { return stage() != "" })
	begun := time.Now()
	for stage() != "LISTED" {
		if time.Since(begun) > 7*time.Minute { // its own server, on this host, is not asked: two tries, then the resolver
			t.Fatalf("it is %s after %s", stage(), time.Since(begun))
		}
		time.Sleep(time.Second)
	}
	wait(t, "people to be told", func() bool { return hook.told(address, "is on a block list: spamcop") })
	if !hook.told("is on a block list: spamcop", "most of it from alice@shop.test (1)") {
		t.Errorf("nobody is named: %+v", hook.deliveries())
	}
	if out, _, code := s.command("dnsbl", "removal", address); code != 1 || !strings.Contains(out, "do not ask yet: no account was stopped") || !strings.Contains(out, "page: https://www.spamcop.net/") || strings.Contains(out, "Please") {
		t.Errorf("removal: exit code %d, %s", code, out)
	}
	told := len(hook.deliveries())

	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.start()
	wait(t, "the list to be believed again", func() bool { states, _ := lists(); return states["spamcop"] == "HEALTHY" })
	if stage() != "LISTED" {
		t.Errorf("after a restart it is %q", stage())
	}
	if n := len(hook.deliveries()); n != told {
		t.Errorf("%d messages after the restart, %d before", n, told)
	}
	out := s.must("dnsbl", "history", address)
	for _, want := range []string{"spamcop  listed", "spamcop  suspected", "SCBL: reported for spam (127.0.0.2): spam, see https://www.spamcop.net/bl.shtml?" + address} {
		if !strings.Contains(out, want) {
			t.Errorf("the history lacks %q:\n%s", want, out)
		}
	}
	if out := s.must("dnsbl", "history", "--json", "--list", "spamcop", "--limit", "1"); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"kind":"`) {
		t.Errorf("as JSON: %s", out)
	}
}

// appendLine adds a line to a file.
func appendLine(t *testing.T, path, line string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A listRow is a line of vedetta dnsbl check --json: the contract.
type listRow struct {
	Subject, List, Status string
	Codes                 []string
	Meaning, Reason       string
	Delist                string
}

// listRows reads the lines, by subject and list.
func listRows(t *testing.T, out string) map[string]listRow {
	t.Helper()
	rows := map[string]listRow{}
	for line := range strings.Lines(out) {
		var row listRow
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&row); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		rows[row.Subject+" "+row.List] = row
	}
	return rows
}

// judge is what the package makes of the same answer.
func judge(t *testing.T, v listVerdict) dnsbl.Verdict {
	t.Helper()
	lists := dnsbl.Shipped().Lists
	i := slices.IndexFunc(lists, func(l dnsbl.List) bool { return l.Name == v.list })
	if i < 0 {
		t.Fatalf("no list %q", v.list)
	}
	a := dnsbl.Answer{Status: dnsbl.NXDomain}
	for _, code := range v.codes {
		a.Status, a.Addrs = dnsbl.Found, append(a.Addrs, netip.MustParseAddr(code))
	}
	return lists[i].Judge(a).Verdict
}

// dnsblCommand runs vedetta dnsbl.
func dnsblCommand(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"dnsbl"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Logf("standard error: %s", stderr.String())
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

// TestListedClientCounts has accounts sign in from addresses on a list: through
// Unbound and rbldnsd, that alone names nobody, and adds to the points of who
// writes to a spam trap.
func TestListedClientCounts(t *testing.T) {
	t.Parallel() // it waits more than it works
	d := bed.StartDNS(t, []bed.DNSZone{{Name: "k3y.authbl.dq.spamhaus.net", Type: "combined",
		Data: "$DATASET ip4set:bots @\n:127.0.0.20:bot\n127.0.0.2\n192.0.2.9\n192.0.2.10\n$DATASET ip6trie:bots @\n:127.0.0.20:bot\n0:0:0:0:0:ffff:7f00:2/128\n"}})
	hook := newHook(t)
	log := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	others := "disabled:\n" // lists that nobody serves here
	for _, l := range dnsbl.Shipped().Lists {
		if l.Name != "spamhaus-authbl" {
			others += "- " + l.Name + "\n"
		}
	}
	catalogue := filepath.Join(t.TempDir(), "lists.yml")
	if err := os.WriteFile(catalogue, []byte(others), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newService(t, setup{Logs: []string{log}, Notify: hook.section(),
		DNSBL: fmt.Sprintf("watch: true\ninterfaces: false\nresolvers: [%q]\naddresses: [203.0.113.9]\ncatalogue: %s\nkeys: {spamhaus: k3y}\n"+
			"risk: {act_at: 0.1, traps: [anna.nowhere@trap.test], clients: [spamhaus-authbl]}\n", d.Resolver, catalogue)})
	s.start()
	wait(t, "the list to be believed", func() bool {
		now, err := s.Lists(t.Context())
		return err == nil && len(now.Lists) == 1 && now.Lists[0].State == "HEALTHY"
	})
	submit := func(id, account, client, to string) {
		now := time.Now().UTC().Format(time.RFC3339)
		for _, line := range []string{
			now + " mx1 postfix/submission/smtpd[7]: " + id + ": client=pc[" + client + "], sasl_method=PLAIN, sasl_username=" + account,
			now + " mx1 postfix/qmgr[8]: " + id + ": from=<" + account + ">, size=1000, nrcpt=1 (queue active)",
			now + " mx1 postfix/smtp[9]: " + id + ": to=<" + to + ">, relay=mx.example.org[192.0.2.25]:25, delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 OK)",
		} {
			appendLine(t, log, line)
		}
	}
	submit("4GZZk45QRtz1cZ", "alice@shop.test", "192.0.2.9", "r@example.org")
	submit("4GZZk45QRtz2cZ", "bob@shop.test", "192.0.2.10", "r@example.org")
	submit("4GZZk45QRtz3cZ", "carol@shop.test", "192.0.2.11", "r@example.org")
	inquiries := func(result string) bool {
		return strings.Contains(s.metrics(t), `vedetta_dnsbl_inquiries_total{of="client",result="`+result)
	}
	begun := time.Now()
	for !inquiries(`listed"} 2`) || !inquiries(`clean"} 1`) {
		if time.Since(begun) > 3*time.Minute {
			t.Fatalf("the clients are not known after %s", time.Since(begun))
		}
		time.Sleep(time.Second)
	}
	submit("4GZZk45QRtz4cZ", "alice@shop.test", "192.0.2.9", "anna.nowhere@trap.test")
	wait(t, "alice to be slowed down", func() bool { return s.action("alice@shop.test") == "throttle" })
	why := s.must("why", "alice@shop.test")
	if want := "signed in from 192.0.2.9, which is on Spamhaus AuthBL: bot that uses stolen credentials"; !strings.Contains(why, want) {
		t.Errorf("why lacks %q:\n%s", want, why)
	}
	if got := s.action("bob@shop.test"); got != "" {
		t.Errorf("bob, who did nothing but sign in, is met with %s", got)
	}
}

// metrics is what the service exports.
func (s *service) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(s.Base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
