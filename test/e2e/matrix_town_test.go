//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/enforce/paneltest"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// Rules that throttle at the first sign, and only those whom it is tested on.
const throttleRules = `rules:
  - name: hijacked-mailbox
    about: Throttles at once.
    ladder:
      - do: throttle
        when: score >= 6 and subject in ["carol@shop.test", "frank@shop.test", "carol@blog.test", "client:192.0.2.59"]
        for: 12h
  - name: abused-script
    about: Throttles at once.
    ladder:
      - do: throttle
        when: score >= 6 and subject in ["script:65534:slow.php", "user:uucp"]
        for: 12h
cases:
  - name: throttles
    finding: {rule: hijacked-mailbox, subject: carol@shop.test, class: login, score: 6, families: 1}
    mode: enforce
    want: {do: throttle, enforce: true, for: 12h}
  - name: throttles a script
    finding: {rule: abused-script, subject: "script:65534:slow.php", class: script, score: 6, families: 1}
    mode: enforce
    want: {do: throttle, enforce: true, for: 12h}
`

// A message of a throttled account passes, and the next one waits.
const matrixThrottle = "  throttle_burst: 1\n  throttle_every: 1h\n"

// Ports and paths of the hooks, each of which one service alone serves.
type hooks struct {
	policy, milter, socket          string // host:port
	table, milterTable, submitUsers string
	milterPolicy                    string // host:port, of the service that the milter is of
	milterAway, local               string
	blockFile, holdFile, deny       string
	away, saslAway                  string
	milterPort, tablePort           string // host:port of further submission services
	clientsPort, clients            string // where trusted clients send, and their table
}

// The further services: one with the milter, a policy service and their tables,
// one with a table alone, and one where trusted clients send without a login.
const matrixMaster = `MILTER inet n - n - - smtpd
  -o syslog_name=postfix/milter
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o smtpd_sender_restrictions=$beside_milter
  -o smtpd_recipient_restrictions=$beside_gate,permit_sasl_authenticated,reject
  -o smtpd_end_of_data_restrictions=$beside_gate
  -o smtpd_milters=$vedetta_milter
TABLE inet n - n - - smtpd
  -o syslog_name=postfix/table
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
  -o smtpd_end_of_data_restrictions=
CLIENTS inet n - n - - smtpd
  -o syslog_name=postfix/clients
  -o smtpd_sender_restrictions=
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,$vedetta_clients,permit_mynetworks,reject
  -o smtpd_end_of_data_restrictions=
`

// newMatrix starts everything.
func newMatrix(t *testing.T) *matrix {
	t.Helper()
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	m := &matrix{t: t, services: map[string]*service{}, databases: map[*service]*store.DB{}, logs: map[*service]string{}}
	h := hooks{
		policy: freePort(t), milter: freePort(t), socket: freePort(t), milterPort: freePort(t), tablePort: freePort(t), milterPolicy: freePort(t),
		clientsPort: freePort(t),
	}
	postfix, exim := openDir(t), openDir(t) // a directory has one writer
	h.table, h.submitUsers = filepath.Join(postfix, "sasl_access"), filepath.Join(postfix, "submit_users")
	h.saslAway, h.clients = filepath.Join(postfix, "sasl_away"), filepath.Join(postfix, "client_access")
	beside := openDir(t)
	h.milterTable, h.milterAway, h.local = filepath.Join(beside, "sasl_access"), filepath.Join(beside, "sasl_away"), filepath.Join(beside, "local_access")
	h.blockFile, h.holdFile = filepath.Join(exim, "blocked"), filepath.Join(exim, "held")
	h.deny, h.away = filepath.Join(openDir(t), "deny"), filepath.Join(openDir(t), "away")
	m.tables = []string{h.table, h.saslAway, h.milterTable, h.milterAway, h.local, h.submitUsers, h.clients, h.blockFile, h.holdFile, h.deny, h.away}
	m.startServers(h)
	m.startServices(h)
	if err := m.Restart(); err != nil { // with the tables there
		t.Fatal(err)
	}
	m.addCells(h)
	return m
}

func (m *matrix) startServers(h hooks) {
	m.t.Helper()
	m.Bed = bed.Start(m.t, bed.Options{
		Policy: h.policy, PolicyTimeout: time.Second, SASLAccess: h.table, SASLAway: h.saslAway, Local: h.local, Clients: h.clients, Deny: h.deny,
		Main: []string{
			"in_flow_delay = 0",
			fmt.Sprintf("vedetta_milter = { inet:%s, connect_timeout=1s, command_timeout=2s, content_timeout=2s, default_action=accept }", h.milter),
			"beside_milter = check_sasl_access hash:" + h.milterTable,
			fmt.Sprintf("beside_gate = check_policy_service { inet:%s, timeout=1s, default_action=beside_away, try_limit=1 }", h.milterPolicy),
			"beside_away = check_sasl_access hash:" + h.milterAway,
			"smtpd_restriction_classes = vedetta_away, beside_away",
			"non_smtpd_milters = $vedetta_milter",
			"authorized_submit_users = !hash:" + h.submitUsers + ", static:anyone",
		},
	})
	m.addUsers()
	path := filepath.Join(m.Config, "master.cf")
	master, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	master = append(master, strings.NewReplacer("MILTER", h.milterPort, "TABLE", h.tablePort, "CLIENTS", h.clientsPort).Replace(matrixMaster)...)
	if err := os.WriteFile(path, master, 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.socket = bed.StartExim(m.t, bed.EximOptions{Bed: m.Bed, Gate: h.socket, GateTimeout: time.Second, AwayFile: h.away, QueueRun: time.Hour})
	m.files = bed.StartExim(m.t, bed.EximOptions{Bed: m.Bed, BlockFile: h.blockFile, HoldFile: h.holdFile, QueueRun: time.Hour})
}

// addUsers adds those whose passwords are changed.
func (m *matrix) addUsers() {
	m.t.Helper()
	f, err := os.OpenFile(filepath.Join(m.Dir, "users"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = f.WriteString("ruth@shop.test:{PLAIN}pw-ruth\nrosa@shop.test:{PLAIN}pw-rosa\nrita@shop.test:{PLAIN}pw-rita\nrosa@blog.test:{PLAIN}pw-rosa\nrita@blog.test:{PLAIN}pw-rita\n")
	if err := errors.Join(err, f.Close()); err != nil {
		m.t.Fatal(err)
	}
}

// startServices starts a service for each set of hooks, so that what one hook
// does is not another's work.
func (m *matrix) startServices(h hooks) {
	m.t.Helper()
	postfix := func(table string) string {
		return fmt.Sprintf("postfix:\n  sasl_access: %s\n  config_dir: %s\n", table, m.Config)
	}
	reset := fmt.Sprintf("reset:\n  passwd_file:\n    path: %s\ndovecot:\n  config_file: %s\n", filepath.Join(m.Dir, "users"), filepath.Join(m.Dir, "dovecot.conf"))
	m.add("policy", m.MailLog, fmt.Sprintf("accounts:\n  trusted: [%s]\ngate:\n  listen: [\"inet:%s\"]\n%s%s  sasl_away: %s\n  submit_users: %s\n  client_access: %s\n%s",
		bed.Trusted, h.policy, matrixThrottle, postfix(h.table), h.saslAway, h.submitUsers, h.clients, reset))
	m.add("milter", m.MailLog, fmt.Sprintf("gate:\n  listen: [\"inet:%s\"]\n  milter: [\"inet:%s\"]\n%s%s  sasl_away: %s\n  local_access: %s\n%s",
		h.milterPolicy, h.milter, matrixThrottle, postfix(h.milterTable), h.milterAway, h.local, reset))
	m.add("socket", m.socket.MainLog, fmt.Sprintf("gate:\n  listen: []\n  exim: [\"inet:%s\"]\n%squeue:\n  exim: %s\nexim:\n  away_file: %s\n  command: [%s]\n%s",
		h.socket, matrixThrottle, m.socket.Spool, h.away, m.socket.Program, reset))
	m.add("files", m.files.MainLog, fmt.Sprintf("gate:\n  listen: []\nqueue:\n  exim: %s\nexim:\n  block_file: %s\n  hold_file: %s\n  command: [%s]\n%s",
		m.files.Spool, h.blockFile, h.holdFile, m.files.Program, reset))
	m.add("dovecot", m.MailLog, fmt.Sprintf("gate:\n  listen: []\n%s  deny_file: %s\n", reset, h.deny))
	cPanel, plesk := m.startPanels()
	m.add("cpanel", m.MailLog, "gate:\n  listen: []\nreset:\n  sessions: false\n"+cPanel)
	m.add("plesk", m.MailLog, "gate:\n  listen: []\nreset:\n  sessions: false\n"+plesk)
	m.start()
	for _, s := range m.services {
		m.databases[s] = s.open()
	}
}

// add prepares a service that reads the accounts' past, what a test makes up of
// today, and the mail server's log.
func (m *matrix) add(name, log, sections string) {
	m.t.Helper()
	rules := m.t.TempDir()
	if err := os.WriteFile(filepath.Join(rules, "throttle.yml"), []byte(throttleRules), 0o600); err != nil {
		m.t.Fatal(err)
	}
	s := newService(m.t, setup{})
	madeUp := filepath.Join(filepath.Dir(s.config), "made-up.log")
	text := fmt.Sprintf("mode: enforce\nstate: %s\nhostname: mx1.hosting.test\nlogs:\n  - path: %s\n  - path: %s\n%sapi:\n  listen: %s\n  token: %s\nrules:\n  dir: %s\n",
		s.dir, madeUp, log, sections, strings.TrimPrefix(s.Base, "http://"), token, rules)
	var p past
	for _, login := range throttled {
		p.calm(time.Now(), pastDays, login)
	}
	for _, sender := range throttledForms {
		p.formPast(sender)
	}
	if err := errors.Join(os.WriteFile(s.config, []byte(text), 0o600), os.WriteFile(madeUp, []byte(p.text.String()), 0o600)); err != nil {
		m.t.Fatal(err)
	}
	m.services[name], m.logs[s] = s, log
}

// startPanels makes the panels' fakes and returns what the configurations say
// of them.
func (m *matrix) startPanels() (cPanel, plesk string) {
	m.t.Helper()
	hosting := paneltest.State{
		TellsLimit: true, Accounts: map[string]*paneltest.Account{"shop": {Owner: "root"}}, Domains: map[string]string{"shop.test": "shop"},
		Mailboxes: map[string]*paneltest.Mailbox{"alice@shop.test": {Limit: "50"}, "bob@shop.test": {Limit: "50"}, "carol@shop.test": {Limit: "50"}, "erin@shop.test": {Limit: "50"}},
	}
	var err error
	if m.panel, err = paneltest.New(m.t.TempDir(), hosting); err != nil {
		m.t.Fatal(err)
	}
	owners, err := m.panel.UserDomains()
	if err != nil {
		m.t.Fatal(err)
	}
	cPanel = fmt.Sprintf("cpanel:\n  use: true\n  uapi: [%s]\n  whmapi: [%s]\n  user_domains: %s\n", m.panel.Program("uapi"), m.panel.Program("whmapi1"), owners)
	return cPanel, fmt.Sprintf("plesk:\n  use: true\n  command: [%s]\n", m.panel.Program("plesk"))
}

// A test binary that is called by a panel's name is that panel's command.
var _ = paneltest.Act()

// atPanel is what becomes of a mailbox's mail by the panel's state.
func (m *matrix) atPanel(mailbox string, stopped func(*paneltest.Mailbox) fate) func() (fate, error) {
	return func() (fate, error) {
		state, err := m.panel.State()
		if err != nil {
			return "", err
		}
		return stopped(state.Mailboxes[mailbox]), nil
	}
}

func cPanelFate(box *paneltest.Mailbox) fate {
	switch {
	case box.Suspended:
		return refuses
	case box.Held:
		return keeps
	}
	return sends
}

func pleskFate(box *paneltest.Mailbox) fate {
	if box.Limit == "0" {
		return refuses
	}
	return sends
}

// throttled are the accounts that the rules are to throttle.
var throttled = []string{"carol@shop.test", "frank@shop.test", "carol@blog.test"}

// throttledForms are the senders without a login that the rules are to throttle.
var throttledForms = []string{"script:65534:slow.php", "user:uucp", "client:192.0.2.59"}

// send adds the lines of a message of any account.
func (p *past) send(at time.Time, account string, to ...string) {
	switch mailq.Account(account).Kind() {
	case mailq.KindLogin:
		p.message(at, account, to...)
	case mailq.KindClient:
		p.trusted(at, strings.TrimPrefix(account, mailq.KindClient+":"), to...)
	default:
		p.local(at, account, to...)
	}
}

// trusted adds those of a message that a trusted client sent without a login.
func (p *past) trusted(at time.Time, addr string, to ...string) {
	one := past{n: p.n, client: fmt.Sprintf("web.hosting.test[%s]", addr)}
	one.message(at, "LOGIN", to...)
	p.n = one.n
	p.text.WriteString(strings.NewReplacer(", sasl_method=PLAIN, sasl_username=LOGIN", "", "from=<LOGIN>", "from=<www@shop.test>").Replace(one.text.String()))
}

// local adds the lines of a message that a program handed in: of a script by
// Postfix, of a system user by Exim.
func (p *past) local(at time.Time, account string, to ...string) {
	if name, ok := strings.CutPrefix(account, "user:"); ok {
		p.n++
		fmt.Fprintf(&p.text, "%s 1xV1Bk-%06d-2Y <= www@shop.test U=%s P=local S=345 from <www@shop.test> for %s\n",
			at.Format("2006-01-02 15:04:05.000 -0700"), p.n%1_000_000, name, strings.Join(to, " "))
		return
	}
	var submitted past
	submitted.n = p.n
	submitted.message(at, "LOGIN", to...)
	p.n = submitted.n
	for line := range strings.Lines(submitted.text.String()) {
		head, text, _ := strings.Cut(line, "]: ")
		id, _, _ := strings.Cut(text, ": ")
		stamp, _, _ := strings.Cut(head, " ")
		if strings.Contains(line, "sasl_username=") {
			fmt.Fprintf(&p.text, "%s mx1 postfix/pickup[833]: %s: uid=65534 from=<www@shop.test>\n", stamp, id)
			fmt.Fprintf(&p.text, "%s mx1 postfix/cleanup[834]: %s: info: header X-PHP-Originating-Script: %s from local; from=<www@shop.test>\n",
				stamp, id, strings.TrimPrefix(account, "script:"))
			continue
		}
		p.text.WriteString(strings.ReplaceAll(line, "from=<LOGIN>", "from=<www@shop.test>"))
	}
}

// formPast is that of a form that sends a few messages a day.
func (p *past) formPast(account string) {
	for d := pastDays; d > 0; d-- {
		for i := range 5 {
			p.send(time.Now().AddDate(0, 0, -d).Add(time.Duration(i)*40*time.Minute), account, contact("form@shop.test", (d+i)%contacts))
		}
	}
}

// spree has a service read that an account writes to strangers.
func (c *cell) spree() error {
	path := filepath.Join(filepath.Dir(c.service.config), "made-up.log")
	c.sprees++
	p := past{n: 100_000*c.sprees + 1_000*c.number()} // ids of its own, beside other accounts in the same log
	now := time.Now()
	for n := range 20 {
		p.send(now.Add(time.Duration(n-20)*100*time.Millisecond), c.account, stranger(4*n), stranger(4*n+1), stranger(4*n+2), stranger(4*n+3))
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(p.text.String())
	return errors.Join(err, f.Close())
}

// addCells lists what is tested where.
func (m *matrix) addCells(h hooks) {
	const (
		policy     = "Postfix: policy service and tables"
		milter     = "Postfix: milter, policy service and tables"
		local      = "Postfix: milter and table, local programs"
		table      = "Postfix: table alone"
		submit     = "Postfix: submit users"
		clients    = "Postfix: table of trusted clients"
		eximSocket = "Exim: socket and file"
		eximFiles  = "Exim: files alone"
		socketUser = "Exim: socket and file, local programs"
		filesUser  = "Exim: files, local programs"
		deny       = "Dovecot: deny file"
		passwd     = "Dovecot: passwd-file"
		cPanel     = "cPanel (fake)"
		plesk      = "Plesk (fake)"
	)
	s := m.services
	for _, c := range []cell{
		{where: policy, action: "block", service: s["policy"], account: "alice@shop.test", post: m.at(m.Submission, "alice@shop.test"), stopped: refuses, away: refuses},
		{where: policy, action: "hold", service: s["policy"], account: "bob@shop.test", post: m.at(m.Submission, "bob@shop.test"), stopped: keeps, away: keeps},
		{where: policy, action: "throttle", service: s["policy"], account: "carol@shop.test", post: m.at(m.Submission, "carol@shop.test"), stopped: keeps, away: keeps},
		{where: policy, action: "reset", service: s["policy"], account: "ruth@shop.test", post: m.at(m.Submission, "ruth@shop.test"), stopped: refuses, away: refuses},
		{where: milter, action: "block", service: s["milter"], account: "dave@shop.test", post: m.at(h.milterPort, "dave@shop.test"), stopped: refuses, away: refuses},
		{where: milter, action: "hold", service: s["milter"], account: "erin@shop.test", post: m.at(h.milterPort, "erin@shop.test"), stopped: keeps, away: keeps},
		{where: milter, action: "throttle", service: s["milter"], account: "frank@shop.test", post: m.at(h.milterPort, "frank@shop.test"), stopped: keeps, away: keeps},
		{where: milter, action: "reset", service: s["milter"], account: "rosa@shop.test", post: m.at(h.milterPort, "rosa@shop.test"), stopped: refuses, away: refuses},
		{where: local, action: "block", service: s["milter"], account: "script:65534:block.php", post: m.php("block.php"), stopped: keeps, away: keeps},
		{where: local, action: "hold", service: s["milter"], account: "script:65534:hold.php", post: m.php("hold.php"), stopped: keeps, away: keeps},
		{where: local, action: "throttle", service: s["milter"], account: "script:65534:slow.php", post: m.php("slow.php"), stopped: keeps, away: keeps},
		{where: table, action: "block", service: s["policy"], account: "grace@shop.test", post: m.at(h.tablePort, "grace@shop.test"), stopped: refuses, away: refuses},
		{where: table, action: "hold", service: s["policy"], account: "mallory@shop.test", post: m.at(h.tablePort, "mallory@shop.test"), stopped: keeps, away: keeps},
		{where: table, action: "reset", service: s["policy"], account: "rita@shop.test", post: m.at(h.tablePort, "rita@shop.test"), stopped: refuses, away: refuses},
		{where: submit, action: "block", service: s["policy"], account: "user:games", post: func(r string) error { return m.Sendmail("games", "x@shop.test", r) }, stopped: refuses, away: refuses},
		{where: clients, action: "block", service: s["policy"], account: "client:192.0.2.57", post: trusted(h.clientsPort, "192.0.2.57"), stopped: refuses, away: refuses},
		{where: clients, action: "hold", service: s["policy"], account: "client:192.0.2.58", post: trusted(h.clientsPort, "192.0.2.58"), stopped: keeps, away: keeps},
		{where: clients, action: "throttle", service: s["policy"], account: "client:192.0.2.59", post: trusted(h.clientsPort, "192.0.2.59"), stopped: keeps, away: keeps},
		{where: eximSocket, action: "block", service: s["socket"], account: "alice@blog.test", post: m.at(m.socket.Submission, "alice@blog.test"), stopped: refuses, away: refuses},
		{where: eximSocket, action: "hold", service: s["socket"], account: "bob@blog.test", post: m.at(m.socket.Submission, "bob@blog.test"), stopped: keeps, away: keeps},
		{where: eximSocket, action: "throttle", service: s["socket"], account: "carol@blog.test", post: m.at(m.socket.Submission, "carol@blog.test"), stopped: keeps, away: keeps},
		{where: eximSocket, action: "reset", service: s["socket"], account: "rosa@blog.test", post: m.at(m.socket.Submission, "rosa@blog.test"), stopped: refuses, away: refuses},
		{where: socketUser, action: "block", service: s["socket"], account: "user:games", post: m.byUser(m.socket, "games"), stopped: keeps, away: keeps},
		{where: socketUser, action: "hold", service: s["socket"], account: "user:irc", post: m.byUser(m.socket, "irc"), stopped: keeps, away: keeps},
		{where: socketUser, action: "throttle", service: s["socket"], account: "user:uucp", post: m.byUser(m.socket, "uucp"), stopped: keeps, away: keeps},
		{where: eximFiles, action: "block", service: s["files"], account: "dave@blog.test", post: m.at(m.files.Submission, "dave@blog.test"), stopped: refuses, away: refuses},
		{where: eximFiles, action: "hold", service: s["files"], account: "erin@blog.test", post: m.at(m.files.Submission, "erin@blog.test"), stopped: keeps, away: keeps},
		{where: eximFiles, action: "reset", service: s["files"], account: "rita@blog.test", post: m.at(m.files.Submission, "rita@blog.test"), stopped: refuses, away: refuses},
		{where: filesUser, action: "block", service: s["files"], account: "user:games", post: m.byUser(m.files, "games"), stopped: refuses, away: refuses},
		{where: filesUser, action: "hold", service: s["files"], account: "user:irc", post: m.byUser(m.files, "irc"), stopped: keeps, away: keeps},
		{where: deny, action: "block", service: s["dovecot"], account: "frank@blog.test", post: m.at(m.Submission, "frank@blog.test"), stopped: refuses, away: refuses, keptBack: true},
		{where: passwd, action: "reset", service: s["dovecot"], account: "grace@blog.test", post: m.at(m.Submission, "grace@blog.test"), old: true, stopped: refuses, away: refuses, keptBack: true},
		{where: cPanel, action: "block", service: s["cpanel"], account: "alice@shop.test", look: m.atPanel("alice@shop.test", cPanelFate), stopped: refuses, away: refuses},
		{where: cPanel, action: "hold", service: s["cpanel"], account: "bob@shop.test", look: m.atPanel("bob@shop.test", cPanelFate), stopped: keeps, away: keeps},
		{where: plesk, action: "block", service: s["plesk"], account: "carol@shop.test", look: m.atPanel("carol@shop.test", pleskFate), stopped: refuses, away: refuses},
		{where: plesk, action: "reset", service: s["plesk"], account: "erin@shop.test", look: m.atPanel("erin@shop.test", pleskFate), stopped: refuses, away: refuses},
		{where: policy, post: m.at(m.Submission, "mallory@blog.test")},
		{where: milter, post: m.at(h.milterPort, "mallory@blog.test")},
		{where: local, post: m.php("other.php")},
		{where: submit, post: func(r string) error { return m.Sendmail("irc", "x@shop.test", r) }},
		{where: table, post: m.at(h.tablePort, "mallory@blog.test")},
		{where: clients, post: trusted(h.clientsPort, "192.0.2.60")},
		{where: eximSocket, post: m.at(m.socket.Submission, "mallory@blog.test")},
		{where: eximFiles, post: m.at(m.files.Submission, "mallory@blog.test")},
		{where: socketUser, post: m.byUser(m.socket, "news")},
		{where: filesUser, post: m.byUser(m.files, "news")},
	} {
		m.cells = append(m.cells, m.finished(c))
	}
}

// finished fills in what follows from the rest.
func (m *matrix) finished(c cell) *cell {
	c.matrix, c.isHeld = m, m.heldByPostfix
	switch c.service {
	case nil:
		c.action, c.stopped, c.away = "nothing", sends, sends
	case m.services["socket"]:
		c.isHeld = func(rcpt string) bool { return heldByExim(m.socket, rcpt) }
	case m.services["files"]:
		c.isHeld = func(rcpt string) bool { return heldByExim(m.files, rcpt) }
	}
	if c.limit == 0 {
		c.limit = time.Second
	}
	cell := &c
	cell.order = cell.command
	if c.action == "throttle" {
		cell.order, cell.burst = cell.spree, 3
	}
	return cell
}

// command orders what an operator can, and keeps the password that he is shown.
func (c *cell) command() error {
	out, errs, code := c.service.command(c.action, c.account)
	if code != 0 {
		return fmt.Errorf("%s: exit %d: %s%s", c.action, code, out, errs)
	}
	if _, after, ok := strings.Cut(out, "new password of "+c.account+": "); ok {
		c.fresh, _, _ = strings.Cut(after, "\n")
		if !c.old && c.look == nil {
			c.passwords.Store(c.account, c.fresh)
		}
	}
	return nil
}

// at sends as a user of the bed who logs in for each message.
func (m *matrix) at(address, login string) func(rcpt string) error {
	return func(rcpt string) error {
		conn, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			return err
		}
		client := smtp.NewClient(conn)
		defer client.Close()
		client.CommandTimeout, client.SubmissionTimeout = patience, patience
		if err := client.Auth(sasl.NewPlainClient("", login, m.password(login))); err != nil {
			return err
		}
		text := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: Matrix\r\n\r\nHello.\r\n", login, rcpt)
		return client.SendMail(login, []string{rcpt}, strings.NewReader(text))
	}
}

// trusted sends as a trusted client with an address.
func trusted(port, addr string) func(rcpt string) error {
	return func(rcpt string) error { return bed.SendAs(port, addr, "www@shop.test", rcpt) }
}

// password is the one that a user of the bed logs in with.
func (m *matrix) password(login string) string {
	if fresh, ok := m.passwords.Load(login); ok {
		return fresh.(string)
	}
	name, _, _ := strings.Cut(login, "@")
	return "pw-" + name
}

// php sends as a script of nobody's.
func (m *matrix) php(name string) func(rcpt string) error {
	return func(rcpt string) error {
		group, err := user.LookupGroup("postdrop")
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(group.Gid)
		if err != nil {
			return err
		}
		cmd := m.Command("sendmail", "-i", "-f", "www@shop.test", "--", rcpt)
		cmd.Dir, cmd.Stdin = "/", strings.NewReader(script(name, ""))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: uint32(gid)}}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("sendmail: %w\n%s", err, out)
		}
		return nil
	}
}

// byUser sends as a program of a system user's, which is told of a refusal by
// its exit status.
func (m *matrix) byUser(e *bed.Exim, user string) func(rcpt string) error {
	return func(rcpt string) error {
		return e.Sendmail(user, []string{"-oep", "-i", "-f", "www@shop.test", rcpt}, "Subject: Matrix\n\nHello.\n")
	}
}

// heldByPostfix reports whether the message to a recipient is in the hold
// queue.
func (m *matrix) heldByPostfix(rcpt string) bool {
	return anyFile(filepath.Join(m.Dir, "spool/hold/*"), rcpt)
}

// heldByExim reports whether it is frozen.
func heldByExim(e *bed.Exim, rcpt string) bool {
	return anyFile(filepath.Join(e.Spool, "input/*/*-H"), rcpt, "\n-frozen ")
}

// anyFile reports whether a file holds all the words.
func anyFile(pattern string, words ...string) bool {
	paths, _ := filepath.Glob(pattern) // it is right
	for _, path := range paths {
		text, _ := os.ReadFile(path) // one that vanished holds nothing
		found := true
		for _, word := range words {
			found = found && bytes.Contains(text, []byte(word))
		}
		if found {
			return true
		}
	}
	return false
}
