package enforce

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// TestPostfixStopsTrustedClients sends without a login from several addresses.
// The table is written while Postfix's processes run.
func TestPostfixStopsTrustedClients(t *testing.T) {
	table := &PostfixClients{PostfixTable: PostfixTable{Path: filepath.Join(publicDir(t), "client_access"), Type: "hash"}}
	b := bed.Start(t, bed.Options{Clients: table.Path})
	table.ConfigDir = b.Config
	const blocked, held, slow, free = "192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.50"
	refused := func(client string) bool {
		t.Helper()
		err := b.SendAs(client, "www@shop.test", strings.ReplaceAll(client, ".", "-")+"@ok.test")
		var reply *smtp.SMTPError
		if errors.As(err, &reply) {
			if reply.Code != 554 || !strings.Contains(reply.Message, "stopped") {
				t.Errorf("%s: %v", client, err)
			}
			return true
		}
		if err != nil {
			t.Fatalf("%s: %v", client, err)
		}
		return false
	}
	for _, client := range []string{blocked, held, slow, free} {
		if refused(client) {
			t.Errorf("%s is refused before anything is written", client)
		}
	}
	applyTable(t, table, Entry{Subject: "client:" + blocked, Action: rules.Block, Text: "stopped"},
		Entry{Subject: "client:" + held, Action: rules.Hold, Text: "held"}, Entry{Subject: "client:" + slow, Action: rules.Throttle, Text: "slowly"})
	for _, client := range []string{blocked, held, slow, free} {
		if refused(client) != (client == blocked) {
			t.Errorf("%s is refused: %t", client, client != blocked)
		}
	}
	b.Wait("what was not stopped", func() bool { return len(b.Received(bed.OK)) == 5 })
	queue, err := b.Postqueue()
	if err != nil || len(queue) != 2 || slices.ContainsFunc(queue, func(q bed.Queued) bool { return q.Queue != "hold" }) {
		t.Errorf("the queue has %+v, %v; want two messages on hold", queue, err)
	}
	if err := b.Send("alice@shop.test", "pw-alice", "alice@shop.test", "r@ok.test"); err != nil {
		t.Errorf("who logs in: %v", err)
	}
	applyTable(t, table)
	if refused(blocked) {
		t.Error("still refused")
	}
}

// Every address is a key of its own, or none and named in the error.
func TestPostfixClientsAndOddAddresses(t *testing.T) {
	config := postfixDir(t)
	supported(t, config, "hash")
	table := &PostfixClients{
		PostfixTable: PostfixTable{Path: filepath.Join(t.TempDir(), "client_access"), Type: "hash", ConfigDir: config},
		Shared:       func(a mailq.Account) bool { return a == "client:127.0.0.1" },
	}
	entries := []Entry{
		{Subject: "client:192.0.2.7", Action: rules.Block, Text: "stopped"},
		{Subject: "client:::ffff:192.0.2.8", Action: rules.Hold, Text: "held"},
		{Subject: "client:2001:db8:1:2:3:4:5:6", Action: rules.Throttle, Text: "slowly"},
		{Subject: "client:127.0.0.1", Action: rules.Block},
		{Subject: "client:mx1!192.0.2.9", Action: rules.Block},
		{Subject: "mallory@shop.test", Action: rules.Block, Logins: []string{"mallory@shop.test"}},
	}
	odd := []string{"2001:db8::7", "192.0.2", "fe80::1%eth0", "web.hosting.test", "192.0.2.0/24", "192.0.2.7 REJECT", ""}
	for _, name := range odd {
		entries = append(entries, Entry{Subject: "client:" + name, Action: rules.Block})
	}
	err := table.Apply(t.Context(), entries)
	if !errors.Is(err, ErrClient) || strings.Count(err.Error(), ErrClient.Error()) != len(odd) {
		t.Errorf("got %v, want ErrClient of %d", err, len(odd))
	}
	got := dump(t, &table.PostfixTable)
	slices.Sort(got)
	want := []string{"192.0.2.7\tREJECT 5.7.1 stopped", "192.0.2.8\tHOLD held", "2001:db8:1:2:3:4:5:6\tHOLD slowly"}
	if !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	table.Defer = true // throttles are the gate's then
	if err := table.Apply(t.Context(), entries[:3]); err != nil {
		t.Error(err)
	}
	if got := dump(t, &table.PostfixTable); len(got) != 2 {
		t.Errorf("rows %q, want two", got)
	}
}
