package app

import (
	"context"
	"os"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// An executor carries out and undoes decisions.
type executor interface {
	DoAll(ctx context.Context, ds []rules.Decision) []enforce.Outcome
	Replace(ctx context.Context, ds []rules.Decision) []enforce.Outcome
	Undo(ctx context.Context, subject string) enforce.Outcome
	Reconcile(ctx context.Context, active func(context.Context) ([]rules.Decision, error)) enforce.Outcome
	Plan(d rules.Decision) []string
}

// newExecutor puts decisions into the gate, into the tables that mail servers
// read by themselves, and to the panels, as far as they are configured.
func newExecutor(c config.Config, gate enforce.Gate, p panels, dir *directory, db *store.DB) *enforce.Executor {
	return &enforce.Executor{
		Gate:     gate,
		Tables:   newTables(c, dir),
		Switches: p.switches,
		Marks:    marks{db},
		Logins:   dir.Logins,
		Text:     func(d rules.Decision) string { return textFor(c.Gate, d.Action) },
	}
}

func newTables(c config.Config, dir *directory) (tables []enforce.Table) {
	shared := func(a mailq.Account) bool { return dir.IsShared(a) }
	postfix := func(path string) enforce.PostfixTable {
		return enforce.PostfixTable{Path: path, Type: c.Postfix.TableType, ConfigDir: c.Postfix.ConfigDir, Timeout: time.Duration(c.Postfix.Timeout)}
	}
	if path := c.Postfix.SASLAccess; path != "" {
		t := postfix(path)
		tables = append(tables, &t)
	}
	if path := c.Postfix.SASLAway; path != "" {
		tables = append(tables, &enforce.PostfixAway{PostfixTable: postfix(path), Defer: c.Gate.Throttle == "defer"})
	}
	if path := c.Postfix.SubmitUsers; path != "" {
		tables = append(tables, &enforce.SubmitUsers{PostfixTable: postfix(path), Shared: shared})
	}
	if path := c.Postfix.LocalAccess; path != "" {
		tables = append(tables, &enforce.PostfixLocal{PostfixTable: postfix(path), Defer: c.Gate.Throttle == "defer", Shared: shared})
	}
	if path := c.Postfix.ClientAccess; path != "" {
		tables = append(tables, &enforce.PostfixClients{PostfixTable: postfix(path), Defer: c.Gate.Throttle == "defer", Shared: shared})
	}
	if c.Exim.BlockFile+c.Exim.HoldFile != "" {
		tables = append(tables, &enforce.EximTable{BlockPath: c.Exim.BlockFile, HoldPath: c.Exim.HoldFile, Shared: shared})
	}
	if path := c.Exim.AwayFile; path != "" {
		tables = append(tables, &enforce.EximAway{Path: path, Defer: c.Gate.Throttle == "defer", Shared: shared})
	}
	if path := c.Dovecot.DenyFile; path != "" {
		tables = append(tables, &enforce.DovecotDeny{Path: path})
	}
	return tables
}

// panels are what is told by its own interface, and may have passwords too.
type panels struct {
	switches  []enforce.Switch
	passwords []enforce.Passwords
}

func newPanels(c config.Config) (p panels) {
	if c.CPanel.Use {
		token := string(c.CPanel.Token)
		panel := &enforce.CPanel{
			URL: c.CPanel.URL, User: c.CPanel.User, Token: func() string { return token }, UAPI: c.CPanel.UAPI, WHMAPI: c.CPanel.WHMAPI,
			UserDomains: c.CPanel.UserDomains, SuspendLogin: c.CPanel.SuspendLogin, Timeout: time.Duration(c.CPanel.Timeout),
		}
		p.switches, p.passwords = append(p.switches, panel), append(p.passwords, panel.Passwords())
	}
	if c.Plesk.Use {
		panel := &enforce.Plesk{Command: c.Plesk.Command, Limit: c.Plesk.Limit, Timeout: time.Duration(c.Plesk.Timeout)}
		p.switches, p.passwords = append(p.switches, panel), append(p.passwords, panel.Passwords())
	}
	return p
}

// textFor is what a client reads.
func textFor(c config.Gate, a rules.Action) string {
	switch a {
	case rules.Throttle:
		return c.ThrottleText
	case rules.Hold:
		return c.HoldText
	default:
		return c.RejectText
	}
}

// cannotRelease says why held mail could not be let out of a queue, if so.
func cannotRelease(c config.Config, queue mailQueue) string {
	command := c.Postfix.Postsuper
	if _, exim := queue.(*enforce.EximQueue); exim {
		command = c.Exim.Command
	}
	switch {
	case queue == nil:
		return "no queue is configured (queue.postfix, queue.exim)"
	case os.Geteuid() != 0 && len(command) == 0:
		return "only root may run postsuper or exim: name a way in postfix.postsuper or exim.command"
	}
	return ""
}

// newQueue is the mail server's queue; nil where there is none to act on.
func newQueue(c config.Config) mailQueue {
	switch {
	case c.Queue.Exim != "" || c.Exim.BlockFile+c.Exim.HoldFile+c.Exim.AwayFile != "" && c.Queue.Postfix == "":
		return &enforce.EximQueue{Command: c.Exim.Command, ConfigFile: c.Exim.ConfigFile, Dir: c.Queue.Exim, Timeout: time.Duration(c.Exim.Timeout)}
	case c.Queue.Postfix != "" || c.Postfix.SASLAccess+c.Postfix.SASLAway+c.Postfix.LocalAccess+c.Postfix.ClientAccess != "":
		return &enforce.PostfixQueue{
			Command: c.Postfix.Postsuper, ConfigDir: c.Postfix.ConfigDir, Dir: c.Queue.Postfix, Timeout: time.Duration(c.Postfix.Timeout),
		}
	}
	return nil
}
