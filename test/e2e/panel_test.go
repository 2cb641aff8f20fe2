//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vedetta-watch/vedetta/enforce/paneltest"
)

// panels are fakes of cPanel, one a domain and one for the server's own
// accounts, so that the state of none of them is large. Their commands are a
// program of their own, which begins and ends faster than this one.
type panels struct {
	dir    string // of the commands
	shares []*paneltest.Panel
}

// newPanels is a server with mailboxes, and with customers' accounts.
func newPanels(t *testing.T, mailboxes, users []string) *panels {
	t.Helper()
	p := &panels{dir: t.TempDir()}
	server := paneltest.State{Accounts: map[string]*paneltest.Account{}}
	for _, name := range users {
		server.Accounts[name] = &paneltest.Account{Owner: "root"}
	}
	p.add(t, "server", server)
	domains := map[string]map[string]*paneltest.Mailbox{}
	for _, address := range mailboxes {
		_, domain, _ := strings.Cut(address, "@")
		if domains[domain] == nil {
			domains[domain] = map[string]*paneltest.Mailbox{}
		}
		domains[domain][address] = &paneltest.Mailbox{}
	}
	var owners strings.Builder
	for i, domain := range slices.Sorted(maps.Keys(domains)) {
		customer := fmt.Sprintf("customer%d", i)
		fmt.Fprintf(&owners, "%s: %s\n", domain, customer)
		p.add(t, customer, paneltest.State{
			Accounts: map[string]*paneltest.Account{customer: {Owner: "root"}}, Domains: map[string]string{domain: customer}, Mailboxes: domains[domain],
		})
	}
	program := filepath.Join(p.dir, "panel")
	if err := build(program, "./testdata/panel"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(p.owners(), []byte(owners.String()), 0o644), os.Symlink(program, p.command("uapi")), os.Symlink(program, p.command("whmapi1"))); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *panels) owners() string { return filepath.Join(p.dir, "userdomains") }

func (p *panels) command(name string) string { return filepath.Join(p.dir, name) }

func (p *panels) add(t *testing.T, customer string, state paneltest.State) {
	t.Helper()
	dir := filepath.Join(p.dir, customer)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	share, err := paneltest.New(dir, state)
	if err != nil {
		t.Fatal(err)
	}
	p.shares = append(p.shares, share)
}

// section configures Vedetta for the panels.
func (p *panels) section() string {
	return fmt.Sprintf("cpanel:\n  use: true\n  uapi: [%s]\n  whmapi: [%s]\n  user_domains: %s\n", p.command("uapi"), p.command("whmapi1"), p.owners())
}

// stopped lists what is suspended and held, by address or as user:NAME.
func (p *panels) stopped(t *testing.T) (suspended, held []string) {
	t.Helper()
	note := func(name string, isSuspended, isHeld bool) {
		if isSuspended {
			suspended = append(suspended, name)
		}
		if isHeld {
			held = append(held, name)
		}
	}
	for _, share := range p.shares {
		state, err := share.State()
		if err != nil {
			t.Fatal(err)
		}
		for address, m := range state.Mailboxes {
			note(address, m.Suspended, m.Held)
		}
		for name, a := range state.Accounts {
			note("user:"+name, a.Suspended, a.Held)
		}
	}
	return suspended, held
}

// calls are the command lines of all calls so far.
func (p *panels) calls(t *testing.T) (all [][]string) {
	t.Helper()
	for _, share := range p.shares {
		calls, err := share.Calls()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, calls...)
	}
	return all
}
