package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
)

// A directory is the current mailq.Directory; a reload replaces it whole.
type directory struct {
	atomic.Pointer[mailq.Directory]
	logins atomic.Pointer[func(string) []string]
}

func (d *directory) set(to *mailq.Directory) {
	logins := enforce.Logins(to)
	d.logins.Store(&logins)
	d.Store(to)
}

// Logins lists every name under which an account may log in.
func (d *directory) Logins(subject string) []string { return (*d.logins.Load())(subject) }

// Owns implements detector.Directory.
func (d *directory) Owns(account mailq.Account, sender string) bool {
	return d.Load().Owns(account, sender)
}

// IsShared implements detector.Directory.
func (d *directory) IsShared(account mailq.Account) bool {
	_, bare := hub.Bare(account) // an agent's www is as shared as ours
	return d.Load().IsShared(bare)
}

// Canonical is for the gate.
func (d *directory) Canonical(login string) string { return string(d.Load().Canonical(login)) }

// buildDirectory makes the directory of a configuration and the aliases that
// were read for it.
func buildDirectory(c config.Accounts, aliases map[string]string) *mailq.Directory {
	d := &mailq.Directory{Realm: c.Realm, Aliases: aliases, Shared: c.Shared}
	for _, prefix := range c.Trusted {
		d.Trusted = append(d.Trusted, netip.MustParsePrefix(prefix)) // checked by config
	}
	return d
}

// loadAliases reads the configured source; none gives an empty map.
func loadAliases(ctx context.Context, c config.Aliases) (map[string]string, error) {
	switch {
	case c.File != "":
		return mailq.AliasFile(c.File)
	case c.Driver != "":
		q := mailq.AliasQuery{Driver: c.Driver, DSN: string(c.DSN), Query: c.Query}
		return q.Read(ctx)
	}
	return nil, nil
}

// aliasTimeout bounds one reading of the alias source.
const aliasTimeout = time.Minute

// aliasSetting is the name under which the aliases that were read last are kept.
const aliasSetting = "aliases"

func aliasEye() *eye { return &eye{kind: "aliases", subject: "alias source"} }

func configured(c config.Aliases) bool { return c.File != "" || c.Driver != "" }

// aliasesAtStart reads the aliases or, with the reason, takes those that were
// read last: without them, accounts that are blocked could send by another of
// their names. It is an error only if there are none.
func aliasesAtStart(ctx context.Context, c config.Aliases, db *store.DB) (aliases map[string]string, unread, err error) {
	if !configured(c) {
		return nil, nil, nil
	}
	readCtx, cancel := context.WithTimeout(ctx, aliasTimeout)
	defer cancel()
	if aliases, unread = loadAliases(readCtx, c); unread == nil {
		return aliases, nil, nil // the first refresh keeps them
	}
	text, err := db.Setting(ctx, aliasSetting)
	if err != nil {
		return nil, nil, unread
	}
	if err := json.Unmarshal(text, &aliases); err != nil {
		return nil, nil, unread
	}
	return aliases, unread, nil
}

// keepAliases keeps them for a start at which they cannot be read.
func keepAliases(ctx context.Context, db *store.DB, aliases map[string]string) error {
	text, err := json.Marshal(aliases)
	if err != nil {
		return err
	}
	if kept, err := db.Setting(ctx, aliasSetting); err == nil && bytes.Equal(kept, text) {
		return nil
	}
	return db.SetSetting(ctx, aliasSetting, text)
}

// refreshAliases reads the source now and then. While it cannot be read, the
// last good answer stays in use.
func (p *pipeline) refreshAliases(ctx context.Context, c config.Accounts) error {
	if !configured(c.Aliases) {
		return nil
	}
	source := aliasEye()
	for {
		readCtx, cancel := context.WithTimeout(ctx, aliasTimeout)
		aliases, err := loadAliases(readCtx, c.Aliases)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			p.blind(ctx, source, fmt.Errorf("aliases: %w", err))
		default:
			p.sees(source)
			if err := p.useAliases(ctx, c, aliases); err != nil {
				p.log.Error("aliases are not kept for a start without their source", "err", err)
			}
		}
		if wait(ctx, time.Duration(c.Aliases.Refresh)) != nil {
			return nil
		}
	}
}

// useAliases puts new aliases into use everywhere, and keeps them.
func (p *pipeline) useAliases(ctx context.Context, c config.Accounts, aliases map[string]string) error {
	if maps.Equal(aliases, p.directory.Load().Aliases) {
		return keepAliases(ctx, p.store, aliases)
	}
	d := buildDirectory(c, aliases)
	p.directory.set(d)
	if err := p.ask(ctx, func() { p.judge.parser.Directory = d }); err != nil {
		return nil // stopping
	}
	return keepAliases(ctx, p.store, aliases)
}
