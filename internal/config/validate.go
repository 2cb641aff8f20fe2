package config

import (
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// A problem is a value that cannot be right, and the path of its field.
type problem struct{ field, text string }

type problems []problem

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, problem{field, fmt.Sprintf(format, args...)})
}

// need adds a problem unless ok.
func (p *problems) need(ok bool, field, format string, args ...any) {
	if !ok {
		p.add(field, format, args...)
	}
}

// problems lists everything that is wrong with c, in the order of the file.
func (c Config) problems() []problem {
	var p problems
	p.need(c.Mode == ModeObserve || c.Mode == ModeEnforce, "mode", "%q is neither observe nor enforce", c.Mode)
	p.need(c.State != "", "state", "needs a directory for the database")
	c.checkLogs(&p)
	c.checkAccounts(&p)
	c.checkQueue(&p)
	c.checkGate(&p)
	c.checkServers(&p)
	c.checkReset(&p)
	c.checkRules(&p)
	c.checkDNSBL(&p)
	c.checkFleet(&p)
	c.checkAPI(&p)
	c.checkNotify(&p)
	p.between("keep.findings", c.Keep.Findings, 24*time.Hour, 0)
	p.between("keep.journal", c.Keep.Journal, 24*time.Hour, 0)
	p.between("keep.accounts", c.Keep.Accounts, 14*24*time.Hour, 0)
	return p
}

// between checks a duration; a most of 0 is no limit.
func (p *problems) between(field string, d Duration, least, most time.Duration) {
	t := time.Duration(d)
	p.need(t >= least, field, "%s is too short: at least %s", d, Duration(least))
	p.need(most == 0 || t <= most, field, "%s is too long: at most %s", d, Duration(most))
}

// networks checks a list of networks.
func (p *problems) networks(field string, texts []string) {
	for i, text := range texts {
		_, err := netip.ParsePrefix(text)
		p.need(err == nil, fmt.Sprintf("%s[%d]", field, i), "%q is no network: write 192.0.2.0/24", text)
	}
}

func (c Config) checkLogs(p *problems) {
	p.need(len(c.Logs) > 0 || c.Agents.Listen != "", "logs", "needs at least one log to read, or agents that do (agents.listen)")
	seen := map[string]bool{}
	zone := ""
	for i, log := range c.Logs {
		at := fmt.Sprintf("logs[%d]", i)
		p.need((log.Path == "") != (len(log.Journal) == 0), at, "needs either path or journal")
		p.need(!strings.ContainsAny(log.Path, "*?["), at+".path", "%q is a pattern: name each file in an entry of its own", log.Path)
		p.need(!seen[log.Name()], at, "%s is listed twice", log.Name())
		seen[log.Name()] = true
		if log.TimeZone != "" {
			_, err := time.LoadLocation(log.TimeZone)
			p.need(err == nil, at+".time_zone", "%q is no time zone: write Europe/Rome or UTC", log.TimeZone)
			p.need(zone == "" || zone == log.TimeZone, at+".time_zone", "%q is not %s: logs are read together and share one zone", log.TimeZone, zone)
			zone = log.TimeZone
		}
	}
}

func (c Config) checkAccounts(p *problems) {
	p.need(!strings.ContainsAny(c.Accounts.Realm, "@ "), "accounts.realm", "%q is no domain", c.Accounts.Realm)
	p.networks("accounts.trusted", c.Accounts.Trusted)
	a := c.Accounts.Aliases
	p.between("accounts.aliases.refresh", a.Refresh, 10*time.Second, 24*time.Hour)
	if a.Driver == "" {
		p.need(a.Query == "" && a.DSN == "", "accounts.aliases.driver", "needs mysql or postgres for a query")
		return
	}
	p.need(a.Driver == "mysql" || a.Driver == "postgres", "accounts.aliases.driver", "%q is neither mysql nor postgres", a.Driver)
	p.need(a.DSN != "", "accounts.aliases.dsn", "needs the database's address")
	p.need(a.Query != "", "accounts.aliases.query", "needs a query that returns address and login")
	p.need(a.File == "", "accounts.aliases.file", "choose a file or a database, not both")
}

func (c Config) checkQueue(p *problems) {
	p.need(c.Queue.Postfix == "" || c.Queue.Exim == "", "queue.exim", "choose one queue, postfix or exim")
	p.between("queue.every", c.Queue.Every, time.Second, time.Hour)
	p.between("queue.timeout", c.Queue.Timeout, time.Second, time.Hour)
}

func (c Config) checkGate(p *problems) {
	listeners := map[string]string{} // fields by address
	if c.API.Listen != "" {
		listeners["inet:"+c.API.Listen] = "api.listen"
	}
	for _, gate := range []struct {
		field string
		addrs []string
	}{{"gate.listen", c.Gate.Listen}, {"gate.milter", c.Gate.Milter}, {"gate.exim", c.Gate.Exim}} {
		for i, addr := range gate.addrs {
			field := fmt.Sprintf("%s[%d]", gate.field, i)
			p.need(validListener(addr), field, "%q: write inet:127.0.0.1:9998 or unix:/path/to/socket", addr)
			p.need(listeners[addr] == "", field, "is the address of %s, too", listeners[addr])
			listeners[addr] = field
		}
	}
	p.need(c.Gate.Throttle == "hold" || c.Gate.Throttle == "defer", "gate.throttle", "%q is neither hold nor defer", c.Gate.Throttle)
	p.between("gate.backlog_max", c.Gate.BacklogMax, time.Minute, 7*24*time.Hour)
	p.need(c.Gate.MaxConnections > 0, "gate.max_connections", "must be positive")
	p.between("gate.throttle_every", c.Gate.ThrottleEvery, time.Second, 24*time.Hour)
	p.need(c.Gate.ThrottleBurst > 0, "gate.throttle_burst", "must be positive")
}

// checkServers checks what is said of mail servers and panels.
func (c Config) checkServers(p *problems) {
	for _, t := range []struct {
		field string
		d     Duration
	}{
		{"postfix.timeout", c.Postfix.Timeout}, {"exim.timeout", c.Exim.Timeout}, {"dovecot.timeout", c.Dovecot.Timeout},
		{"cpanel.timeout", c.CPanel.Timeout}, {"plesk.timeout", c.Plesk.Timeout},
	} {
		p.between(t.field, t.d, time.Second, 5*time.Minute)
	}
	fields := map[string]string{} // by path: what is written whole belongs to one table
	for _, f := range []struct{ field, path string }{
		{"postfix.sasl_access", c.Postfix.SASLAccess}, {"postfix.sasl_away", c.Postfix.SASLAway}, {"postfix.local_access", c.Postfix.LocalAccess},
		{"postfix.client_access", c.Postfix.ClientAccess}, {"postfix.submit_users", c.Postfix.SubmitUsers},
		{"exim.block_file", c.Exim.BlockFile}, {"exim.hold_file", c.Exim.HoldFile}, {"exim.away_file", c.Exim.AwayFile},
		{"dovecot.deny_file", c.Dovecot.DenyFile},
	} {
		if f.path == "" {
			continue
		}
		p.need(strings.HasPrefix(f.path, "/"), f.field, "%q is no absolute path", f.path)
		clean := path.Clean(f.path)
		p.need(fields[clean] == "", f.field, "is the file of %s, too", fields[clean])
		fields[clean] = f.field
	}
	if c.CPanel.URL != "" {
		p.need(c.CPanel.Use, "cpanel.use", "is false, so the URL is not used: say true, or leave the URL out")
		p.need(validURL(c.CPanel.URL, "https"), "cpanel.url", "%q is no https URL", c.CPanel.URL)
		p.need(c.CPanel.Token != "", "cpanel.token", "needs an API token of WHM for the URL")
	}
}

func (c Config) checkDNSBL(p *problems) {
	watched := len(c.DNSBL.Domains)
	for i, text := range c.DNSBL.Addresses {
		n, err := outgoing(text)
		if err != nil {
			p.need(false, fmt.Sprintf("dnsbl.addresses[%d]", i), "%s", err)
			continue
		}
		watched += addressesOf(n)
	}
	p.need(watched <= MaxWatched, "dnsbl.addresses", "%d addresses, with the domains, are too many: at most %d are watched", watched, MaxWatched)
	for i, text := range c.DNSBL.Domains {
		p.need(validDomain(text), fmt.Sprintf("dnsbl.domains[%d]", i), "%q is no domain: write example.com", text)
	}
	p.need(c.DNSBL.Risk.ActAt >= 0 && c.DNSBL.Risk.ActAt <= 1, "dnsbl.risk.act_at", "%g is not between 0 and 1", c.DNSBL.Risk.ActAt)
	p.need(c.DNSBL.Risk.ActAt == 0 || c.Hub.Address == "", "dnsbl.risk.act_at", "an agent does not judge: set it on the hub")
	p.need(!c.DNSBL.Risk.Complaints || c.Hub.Address == "", "dnsbl.risk.complaints", "an agent does not judge: set it on the hub")
	for i, text := range c.DNSBL.Risk.Traps {
		a, err := mail.ParseAddress(text)
		p.need(err == nil && a.Address == text, fmt.Sprintf("dnsbl.risk.traps[%d]", i), "%q is no e-mail address", text)
	}
	p.need(len(c.DNSBL.Risk.Clients) == 0 || c.DNSBL.Watch, "dnsbl.risk.clients", "are never asked: dnsbl.watch is false")
	h := c.DNSBL.Hook
	p.need(h.Exposure > 0 && h.Exposure <= 1, "dnsbl.hook.exposure", "%g is not above 0 and at most 1", h.Exposure)
	p.between("dnsbl.hook.timeout", h.Timeout, time.Second, time.Minute)
	p.need(len(h.Command) == 0 || c.DNSBL.Watch, "dnsbl.hook.command", "is never run: dnsbl.watch is false")
	p.need(!c.DNSBL.Watch || c.Hub.Address == "", "dnsbl.watch", "an agent watches no block lists: set it on the hub")
	for i, text := range c.DNSBL.Resolvers {
		a, err := netip.ParseAddrPort(text)
		p.need(err == nil && a.Port() != 0 && !a.Addr().IsUnspecified(), fmt.Sprintf("dnsbl.resolvers[%d]", i),
			"%q is no address with a port: write 127.0.0.1:53 or [::1]:53", text)
		p.need(slices.Index(c.DNSBL.Resolvers, text) == i, fmt.Sprintf("dnsbl.resolvers[%d]", i), "%s is listed twice", text)
	}
	p.networks("dnsbl.own_networks", c.DNSBL.OwnNetworks)
	p.networks("dnsbl.own_servers", c.DNSBL.OwnServers)
	p.need(c.DNSBL.Catalogue == "" || strings.HasPrefix(c.DNSBL.Catalogue, "/"), "dnsbl.catalogue", "%q is no absolute path", c.DNSBL.Catalogue)
}

func (c Config) checkReset(p *problems) {
	r := c.Reset
	if r.SQL.Driver != "" {
		p.need(r.SQL.Driver == "mysql" || r.SQL.Driver == "postgres", "reset.sql.driver", "%q is neither mysql nor postgres", r.SQL.Driver)
		p.need(r.SQL.DSN != "", "reset.sql.dsn", "needs the database's address")
	} else {
		p.need(r.SQL.DSN == "" && r.SQL.Query == "", "reset.sql.driver", "needs mysql or postgres for a query")
	}
	r.Webhook.check(p, "reset.webhook")
	r.Handover.Webhook.check(p, "reset.handover.webhook")
	ways := 0
	for _, used := range []bool{len(r.Handover.Command) > 0, r.Handover.Directory != "", r.Handover.Webhook.URL != ""} {
		if used {
			ways++
		}
	}
	p.need(ways <= 1, "reset.handover", "choose one way, command, directory or webhook")
}

func (e Endpoint) check(p *problems, field string) {
	if e.URL == "" {
		p.need(e.Secret == "", field+".url", "needs an https URL for the secret")
		return
	}
	p.need(validURL(string(e.URL), "https", "http"), field+".url", "is no https URL")
	p.need(len(e.Secret) >= 16, field+".secret", "needs at least 16 characters, with which requests are signed")
}

func validURL(text string, schemes ...string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && slices.Contains(schemes, u.Scheme)
}

func validListener(addr string) bool {
	kind, rest, ok := strings.Cut(addr, ":")
	if !ok || rest == "" {
		return false
	}
	switch kind {
	case "unix":
		return strings.HasPrefix(rest, "/")
	case "inet":
		_, port, err := net.SplitHostPort(rest)
		return err == nil && validPort(port)
	}
	return false
}

func validPort(port string) bool {
	_, err := net.LookupPort("tcp", port)
	return err == nil
}

func (c Config) checkRules(p *problems) {
	p.need(c.Rules.WrongStops >= 0 && c.Rules.WrongStops <= 1000, "rules.wrong_blocks_per_100k_mailbox_days", "must be from 0 to 1000")
	p.need(c.Rules.BlastMax > 0, "rules.blast_max", "must be positive")
	p.between("rules.blast_per", c.Rules.BlastPer, time.Minute, 24*time.Hour)
	p.between("rules.stale_after", c.Rules.StaleAfter, time.Minute, 0)
}

func (c Config) checkFleet(p *problems) {
	for field, addr := range map[string]string{"agents.listen": c.Agents.Listen, "hub.address": c.Hub.Address} {
		_, _, err := net.SplitHostPort(addr)
		p.need(addr == "" || err == nil, field, "%q is no address: write host:port", addr)
	}
	p.need(c.Agents.Listen == "" || c.Hub.Address == "", "hub.address", "a hub has no hub: leave out this or agents.listen")
	p.need(c.Agents.JournalMax >= 128, "agents.journal_max_mb", "%d is too little: at least 128", c.Agents.JournalMax)
	p.need(c.Hub.SpoolMax >= 16, "hub.spool_max_mb", "%d is too little: at least 16", c.Hub.SpoolMax)
	p.need(c.Hub.Fuse == 0 || c.Hub.Fuse >= 50, "hub.fuse_recipients", "%d is too little: at least 50, or 0 for none", c.Hub.Fuse)
	p.between("agents.silent_after", c.Agents.SilentAfter, 30*time.Second, 24*time.Hour)
	p.between("hub.spool_keep", c.Hub.SpoolKeep, 0, 30*24*time.Hour)
}

func (c Config) checkAPI(p *problems) {
	if c.API.Listen == "" {
		return
	}
	host, port, err := net.SplitHostPort(c.API.Listen)
	p.need(err == nil && validPort(port), "api.listen", "%q is no host:port", c.API.Listen)
	if err != nil {
		return
	}
	addr, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && addr.IsLoopback()
	p.need(loopback, "api.listen", "%q is not on loopback: put a TLS proxy in front instead", c.API.Listen)
	p.need(c.API.Token == "" || len(c.API.Token) >= 16, "api.token", "is shorter than 16 characters")
	p.need(c.API.Token == "" || c.API.TokenFile == "", "api.token_file", "choose token or token_file, not both")
}

func (c Config) checkNotify(p *problems) {
	switch c.Notify.From {
	case "observe", "throttle", "hold", "block":
	default:
		p.add("notify.from_action", "%q is none of observe, throttle, hold, block", c.Notify.From)
	}
	p.need(c.Notify.StormMax > 0, "notify.storm_max", "must be positive")
	p.between("notify.storm_per", c.Notify.StormPer, time.Second, time.Hour)
	c.Notify.Mail.check(p)
	w := c.Notify.Webhook
	if w.URL == "" {
		return
	}
	u, err := url.Parse(string(w.URL))
	p.need(err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "", "notify.webhook.url", "is no http or https URL")
	p.need(len(w.Secret) >= 16, "notify.webhook.secret", "needs at least 16 characters, with which messages are signed")
	p.between("notify.webhook.timeout", w.Timeout, time.Second, 5*time.Minute)
}

func (m Mail) check(p *problems) {
	if m.Server == "" {
		p.need(len(m.To) == 0, "notify.mail.server", "needs host:port to send to %s", strings.Join(m.To, ", "))
		return
	}
	_, _, err := net.SplitHostPort(m.Server)
	p.need(err == nil, "notify.mail.server", "%q is no host:port", m.Server)
	switch m.TLS {
	case "starttls", "implicit", "none":
	default:
		p.add("notify.mail.tls", "%q is none of starttls, implicit, none", m.TLS)
	}
	p.need(validAddress(m.From), "notify.mail.from", "%q is no address", m.From)
	p.need(len(m.To) > 0, "notify.mail.to", "needs at least one address")
	for i, to := range m.To {
		p.need(validAddress(to), fmt.Sprintf("notify.mail.to[%d]", i), "%q is no address", to)
	}
	p.need(m.User == "" || m.TLS != "none" || loopbackServer(m.Server), "notify.mail.tls", "none would send the password in clear text")
	p.between("notify.mail.timeout", m.Timeout, time.Second, 5*time.Minute)
}

func validAddress(s string) bool {
	addr, err := mail.ParseAddress(s)
	return err == nil && addr.Address == s
}

func loopbackServer(server string) bool {
	host, _, _ := net.SplitHostPort(server)
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// validDomain reports whether text is a host name with a dot in it.
func validDomain(text string) bool {
	name := strings.TrimSuffix(text, ".")
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	_, err := netip.ParseAddr(name)
	return err != nil && strings.Contains(name, ".") && len(name) <= 253
}
