package app

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// What cannot be read of the past keeps nobody from watching; what was
// restored is not written again.
func TestStartWithSpoiltState(t *testing.T) {
	p := asked(t)
	p.positions = map[string][]byte{}
	p.line([]byte("2026-03-20T10:00:00+00:00 mx1 postfix/submission/smtpd[7]: 4GZZk45QRtz1cZ: client=pc[192.0.2.9], sasl_method=PLAIN, sasl_username=" + victim))
	p.judge.detector.Observe(&mailq.Event{Time: time.Unix(1e9, 0), Kind: mailq.Submitted, Account: victim, Message: 1, Rcpts: 1})
	b := p.snapshot()
	known := len(b.Messages)
	b.Accounts = append(b.Accounts, store.AccountState{Account: "spoilt@shop.test", State: []byte{0xff}})
	b.Messages = append(b.Messages, store.MessageState{Key: 1, State: []byte{0xff}})
	b.Incidents = []store.IncidentRow{{ID: "i-1", Open: true, Body: []byte("{"), Updated: time.Now()}}
	if _, err := p.store.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	p.judge = &judge{
		parser: &mailq.Parser{Directory: p.directory.Load()}, detector: detector.New(detector.Default(), p.directory), blast: &rules.BlastLimit{},
	}
	s := &service{pipeline: p}
	if err := s.restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := p.judge.detector.Stats().Accounts; n != 1 {
		t.Errorf("%d accounts known, want the one that can be read", n)
	}
	if n := p.judge.parser.Stats().Open; n != known {
		t.Errorf("%d messages open, want %d", n, known)
	}
	if again := p.snapshot(); len(again.Messages) > 0 {
		t.Errorf("%d messages are written again", len(again.Messages))
	}
}

// Aliases that cannot be read at start are those that were read last: without
// them a blocked account could send by another of its names.
func TestAliasesOutliveTheirSource(t *testing.T) {
	p := asked(t)
	path := filepath.Join(t.TempDir(), "aliases")
	c := config.Accounts{Aliases: config.Aliases{File: path}}
	if _, _, err := aliasesAtStart(t.Context(), c.Aliases, p.store); err == nil {
		t.Error("started without the aliases, which were never read")
	}
	if err := os.WriteFile(path, []byte("a.smith@shop.test "+victim+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a.smith@shop.test": victim}
	got, unread, err := aliasesAtStart(t.Context(), c.Aliases, p.store)
	if err != nil || unread != nil || !cmp.Equal(got, want) {
		t.Fatalf("aliases = %v, %v, %v; want %v", got, unread, err, want)
	}
	go func() { (<-p.asks)() }()
	if err := p.useAliases(t.Context(), c, got); err != nil {
		t.Fatal(err)
	}
	if account := p.directory.Canonical("a.smith@shop.test"); account != victim {
		t.Errorf("account = %q, want %q", account, victim)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	got, unread, err = aliasesAtStart(t.Context(), c.Aliases, p.store)
	if err != nil || unread == nil || !cmp.Equal(got, want) {
		t.Errorf("without their source: %v, %v, %v; want those read last, and why", got, unread, err)
	}
}

func TestTrustsNobody(t *testing.T) {
	table := config.Postfix{ClientAccess: "/var/lib/vedetta/postfix/client_access"}
	some := config.Accounts{Trusted: []string{"192.0.2.0/24"}}
	for _, c := range []struct {
		config config.Config
		warned bool
	}{{config.Config{Postfix: table}, true}, {config.Config{Postfix: table, Accounts: some}, false}, {config.Config{}, false}} {
		if text := trustsNobody(c.config); (text != "") != c.warned {
			t.Errorf("%+v, %+v: %q", c.config.Postfix, c.config.Accounts, text)
		}
	}
}
