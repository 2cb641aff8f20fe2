package app

import (
	"context"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// An executor carries out and undoes decisions.
type executor interface {
	DoAll(ctx context.Context, ds []rules.Decision) []enforce.Outcome
	Undo(ctx context.Context, subject string) enforce.Outcome
	Reconcile(ctx context.Context, active func(context.Context) ([]rules.Decision, error)) enforce.Outcome
	Plan(d rules.Decision) []string
}

// newExecutor puts decisions into the gate and, where one is configured, into
// the table that Postfix reads by itself.
func newExecutor(c config.Config, table *gate.Table, dir *directory, db *store.DB) *enforce.Executor {
	x := &enforce.Executor{
		Gate:   table,
		Marks:  marks{db},
		Logins: dir.Logins,
		Text:   func(d rules.Decision) string { return textFor(c.Gate, d.Action) },
	}
	if c.Postfix.SASLAccess != "" {
		x.Tables = append(x.Tables, &enforce.PostfixTable{
			Path: c.Postfix.SASLAccess, Type: c.Postfix.TableType, ConfigDir: c.Postfix.ConfigDir, Timeout: time.Duration(c.Postfix.Timeout),
		})
	}
	return x
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

// newQueue is how held mail is released; nil where there is no Postfix.
func newQueue(c config.Config) *enforce.PostfixQueue {
	if c.Postfix.SASLAccess == "" && c.Queue.Postfix == "" {
		return nil
	}
	return &enforce.PostfixQueue{
		Command: c.Postfix.Postsuper, ConfigDir: c.Postfix.ConfigDir, Dir: c.Queue.Postfix, Timeout: time.Duration(c.Postfix.Timeout),
	}
}
