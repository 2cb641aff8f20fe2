package app

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
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
func (d *directory) IsShared(account mailq.Account) bool { return d.Load().IsShared(account) }

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

// refreshAliases reads the source again now and then. While it cannot be
// read, the last good answer stays in use.
func (p *pipeline) refreshAliases(ctx context.Context, c config.Accounts) error {
	if c.Aliases.File == "" && c.Aliases.Driver == "" {
		return nil
	}
	source := eye{kind: "aliases", subject: "alias source"}
	for wait(ctx, time.Duration(c.Aliases.Refresh)) == nil {
		readCtx, cancel := context.WithTimeout(ctx, aliasTimeout)
		aliases, err := loadAliases(readCtx, c.Aliases)
		cancel()
		if err != nil {
			p.blind(ctx, &source, fmt.Errorf("aliases: %w", err))
			continue
		}
		p.sees(&source)
		d := buildDirectory(c, aliases)
		p.directory.set(d)
		if err := p.ask(ctx, func() { p.judge.parser.Directory = d }); err != nil {
			return nil // stopping
		}
	}
	return nil
}
