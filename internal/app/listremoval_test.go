package app

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/rules"
)

// No list is asked while nothing says that the cause is gone.
func TestNotYet(t *testing.T) {
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	row := func(account string, action rules.Action, after time.Duration) store.DecisionRow {
		return store.DecisionRow{Decision: rules.Decision{Finding: "f-1", Rule: rules.HijackedMailbox, Subject: account, Action: action, Time: at.Add(after), Enforce: true},
			OutcomeAt: at.Add(after + time.Second), OK: true}
	}
	over := func(r store.DecisionRow) store.DecisionRow {
		r.Until = at.Add(time.Hour)
		r.EndedAt = r.Until
		return r
	}
	failed := row("alice@shop.test", rules.Block, 0)
	failed.OK = false
	proposed := row("alice@shop.test", rules.Block, 0)
	proposed.Enforce = false
	top := []detector.Endangering{{Account: "bob@shop.test", Points: 40, Sign: rules.Evidence{Text: "2 recipients are spam traps"}}, {Account: "carol@shop.test", Points: 9}}
	for _, test := range []struct {
		what    string
		rows    []store.DecisionRow // the newest first
		watched bool
		top     []detector.Endangering
		want    []string // beginnings
	}{
		{"stopped", []store.DecisionRow{row("alice@shop.test", rules.Block, 0)}, true, top[1:], nil},
		{"nobody", nil, true, nil, []string{"no account was stopped"}},
		{"slowed down", []store.DecisionRow{row("alice@shop.test", rules.Throttle, 0)}, true, nil, []string{"no account was stopped"}},
		{"not done", []store.DecisionRow{failed, proposed}, true, nil, []string{"no account was stopped"}},
		{"free again", []store.DecisionRow{over(row("alice@shop.test", rules.Hold, 0))}, true, nil, []string{"alice@shop.test may send again since 2026-03-20 11:00 UTC"}},
		{"blocked after that", []store.DecisionRow{row("alice@shop.test", rules.Block, time.Minute), over(row("alice@shop.test", rules.Hold, 0))}, true, nil, nil},
		{"another password", []store.DecisionRow{over(row("alice@shop.test", rules.Reset, time.Minute)), over(row("alice@shop.test", rules.Block, 0))}, true, nil, nil},
		{"points", []store.DecisionRow{row("alice@shop.test", rules.Block, 0)}, true, top, []string{"40 points are still held against bob@shop.test: 2 recipients"}},
		{"not watched", []store.DecisionRow{row("alice@shop.test", rules.Block, 0)}, false, nil, []string{"what endangers the addresses is not counted"}},
	} {
		got := notYet(stoppedBy(test.rows), test.watched, test.top)
		if len(got) != len(test.want) || len(got) > 0 && !strings.HasPrefix(got[0], test.want[0]) {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}
}

// The text says what is known, and no customer's name.
func TestRemovalText(t *testing.T) {
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	s, _ := dnsbl.ParseSubject(outgoing)
	stopped := []stoppedAccount{
		{account: "alice@shop.test", rule: rules.HijackedMailbox, action: "its mail is refused", since: at, reset: at.Add(time.Minute)},
		{account: "script:/home/u/x.php", rule: rules.AbusedScript, action: "its mail is held", since: at.Add(time.Hour)},
	}
	g := dnsbl.Listing{List: "spamcop", Title: "SpamCop", Since: at, Meaning: "SCBL: reported for spam", Codes: []string{"127.0.0.2"}, Delist: "https://www.spamcop.net/"}
	r := removalOf(&g, s, stopped, true, at.Add(5*time.Hour))
	want := `203.0.113.9 sends our customers' mail. SpamCop has it since 2026-03-20 10:00 UTC: SCBL: reported for spam (127.0.0.2).

Around that time we stopped 2 accounts:
- a mailbox that looked hijacked: stopped at 2026-03-20 10:00 UTC; its mail is refused; password changed at 2026-03-20 10:01 UTC
- a web script that looked abused: stopped at 2026-03-20 11:00 UTC; its mail is held

At 2026-03-20 15:00 UTC our watch over the mail logs holds nothing of weight against any account.
Please remove the entry.
`
	if diff := cmp.Diff(want, r.Text); diff != "" || r.Wait != "" || r.Page != g.Delist {
		t.Errorf("page %q, wait %q, text (-want +got):\n%s", r.Page, r.Wait, diff)
	}
	if r := removalOf(&g, s, stopped, false, at); r.Text != "" || r.Page != g.Delist {
		t.Errorf("before the time: %+v", r)
	}
	policy := g
	policy.Policy = true
	paid := dnsbl.Listing{List: "uceprotect-1", Notes: "Express delisting is paid; never pay, wait."}
	for _, r := range []web.ListRemoval{removalOf(&policy, s, stopped, true, at), removalOf(&paid, s, stopped, true, at)} {
		if r.Text != "" || r.Wait == "" {
			t.Errorf("a text where none helps: %+v", r)
		}
	}
}

// A removal is asked for once the account is stopped and its points are gone.
func TestListRemoval(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{entries: map[string]string{spamcopTest: "127.0.0.2"}}
		s := startLists(t, state, f)
		time.Sleep(time.Hour)
		ask := func(subject string) web.ListRemovals {
			r, err := s.lists.ListRemoval(t.Context(), web.ListQuery{Subject: subject})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := ask(outgoing); len(r.Lists)+len(r.NotYet) > 0 {
			t.Errorf("a clean address: %+v", r)
		}
		for _, subject := range []string{"192.0.2.77", "nonsense"} {
			if _, err := s.lists.ListRemoval(t.Context(), web.ListQuery{Subject: subject}); !errors.Is(err, web.ErrInvalid) {
				t.Errorf("%s: %v", subject, err)
			}
		}
		f.set(func() { f.entries[onSpamcop] = "127.0.0.2" })
		time.Sleep(3 * time.Hour)
		if r := ask(outgoing); len(r.NotYet) != 2 || len(r.Lists) != 1 || r.Lists[0].Text != "" || r.Lists[0].Page == "" {
			t.Errorf("nothing was done: %+v", r)
		}
		if err := s.inObserve(t.Context(), func() { s.judge.watchRisk(config.ListRisk{Traps: []string{"trap@example.com"}}, s.directory) }); err != nil {
			t.Fatal(err)
		}
		order := func(do string) {
			if _, err := s.Act(t.Context(), web.Order{Do: do, Account: "alice@shop.test", Who: "carol", Why: "spam"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		order(doBlock)
		if r := ask(outgoing); len(r.NotYet) > 0 || !strings.Contains(r.Lists[0].Text, "a mailbox that our staff stopped") || strings.Contains(r.Lists[0].Text, "alice") {
			t.Errorf("she is blocked: %+v", r)
		}
		order(doRelease)
		if r := ask(outgoing); len(r.NotYet) != 1 || !strings.HasPrefix(r.NotYet[0], "no account was stopped") {
			t.Errorf("she was cleared: %+v", r)
		}
		s.stop()

		s = startLists(t, state, f)
		time.Sleep(2 * time.Hour)
		if why := strings.Join(ask(outgoing).NotYet, "\n"); !strings.Contains(why, "points are not kept over a restart, and the service was started 2h0m0s ago") {
			t.Errorf("after a restart: %q", why)
		}
		s.stop()
	})
}

// An incident may be about a network: what is watched of it are the addresses in
// it.
func TestWatchedIn(t *testing.T) {
	l := &listWatch{sources: map[dnsbl.Subject]string{}}
	subject := func(text string) dnsbl.Subject {
		s, err := dnsbl.ParseSubject(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, text := range []string{"2001:db8:0:1::25", "2001:db8:0:2::25", "203.0.113.9", "203.0.113.10", "203.0.114.9", "example.com"} {
		l.sources[subject(text)] = "configuration"
	}
	for text, want := range map[string]string{
		"2001:db8:0:1::/64": "2001:db8:0:1::25", "2001:db8:0:1::25": "2001:db8:0:1::25", "203.0.113.0/24": "203.0.113.9 203.0.113.10", "203.0.113.9": "203.0.113.9",
		"example.com": "example.com", "example.org": "", "192.0.2.0/24": "",
	} {
		var got []string
		for _, m := range l.watchedIn(subject(text)) {
			got = append(got, m.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("of %s %q are watched, want %q", text, got, want)
		}
	}
}
