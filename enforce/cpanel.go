package enforce

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// What is wrong with a panel's answer or with what it is asked for. Test with
// errors.Is.
var (
	// ErrPanelRefused means that the panel understood and said no; the error
	// holds its reason.
	ErrPanelRefused = errors.New("the panel refused")

	// ErrPanelProtected means that the account is root's, the system's or a
	// reseller's. It is not touched; whoever wants to stop it does it by hand.
	ErrPanelProtected = errors.New("belongs to root, the system or a reseller and is not touched")

	// ErrPanelUndo means that what was there before is not known any more, so
	// that it cannot be restored without a person.
	ErrPanelUndo = errors.New("what was there before is not known: restore it at the panel")
)

// A CPanel stops and starts mailboxes, forwarders and whole accounts at a
// cPanel & WHM server. It is a [Switch], and [CPanel.Passwords] are its
// passwords.
//
//	login u@d      hold: Email::hold_outgoing, else Email::suspend_outgoing
//	forward:u@d    block: Email::delete_forwarder for each address it forwards to
//	user:NAME      hold: hold_outgoing_email, else suspend_outgoing_email
//	script:PATH    as user:NAME of the script's owner, if that is known
//
// A mailbox is asked for as the cPanel account that owns its domain. Without
// an answer to who that is nothing is done.
//
// The vendor's documentation: "cPanel UAPI", "WHM API 1" and "Use WHM API to
// call cPanel API 2 and UAPI" at https://api.docs.cpanel.net/. Nothing here was
// run against a live panel.
//
// Fields must not change once it is used; its methods may then be called from
// any goroutine.
type CPanel struct {
	// URL is WHM's, such as https://host.example.com:2087, and only https.
	// Empty means that the server's own commands are run, as root.
	URL     string
	User    string         // WHM user that the token is of; empty means root
	Token   func() string  // WHM API token, asked for at each call
	RootCAs *x509.CertPool // who may have signed the certificate; nil means the system's list

	// UAPI and WHMAPI are the commands and what must precede them, such as
	// ["sudo", "-n", "/usr/local/cpanel/bin/uapi"]. Nil means cPanel's own path.
	UAPI, WHMAPI []string

	// UserDomains is cPanel's list of domains and their owners, usually
	// /etc/userdomains. Empty means that WHM is asked.
	UserDomains string

	// ScriptOwner returns the cPanel account that a script belongs to, empty if
	// it is not known. Stopping that account stops all its mailboxes as well,
	// so scripts are covered only if this is set.
	ScriptOwner func(path string) string

	SuspendLogin bool          // a block of a mailbox also suspends its login
	Timeout      time.Duration // for each call; 0 means ten seconds
}

// Name names the panel in outcomes.
func (p *CPanel) Name() string {
	if p.URL == "" {
		return "cpanel"
	}
	return "cpanel " + p.host()
}

// Covers reports whether the entry is about a mailbox, a forwarder or an
// account that could be this panel's, and asks for more than a throttle.
// A forwarder is covered from a block on: cPanel cannot hold what it forwards.
func (p *CPanel) Covers(e Entry) bool {
	_, err := p.target(e)
	return err == nil
}

// Before reads what the panel has suspended or held already, or where a
// mailbox forwards to, so that Clear leaves that as it was.
func (p *CPanel) Before(ctx context.Context, e Entry) (undo string, err error) {
	t, err := p.located(ctx, e)
	if err != nil {
		return "", p.wrap(e, err)
	}
	state, err := p.state(ctx, t)
	if err != nil {
		return "", p.wrap(e, err)
	}
	text, err := json.Marshal(state)
	return string(text), err
}

// Set carries the entry out.
func (p *CPanel) Set(ctx context.Context, e Entry) error {
	t, err := p.located(ctx, e)
	if err != nil {
		return p.wrap(e, err)
	}
	if t.forward {
		return p.wrap(e, p.stopForwarding(ctx, t))
	}
	var errs []error
	for _, s := range p.switches(t, e.Action) {
		errs = append(errs, p.turn(ctx, t, s, true))
	}
	return p.wrap(e, errors.Join(errs...))
}

// Clear takes back what Set did, except what was so before it. If that is not
// known any more, everything that Set does is taken back; the addresses of a
// forwarder cannot be, which is [ErrPanelUndo].
func (p *CPanel) Clear(ctx context.Context, e Entry, undo string) error {
	return p.wrap(e, p.clear(ctx, e, undo))
}

func (p *CPanel) clear(ctx context.Context, e Entry, undo string) error {
	t, err := p.target(e)
	if err != nil {
		return err
	}
	var before cpanelState
	if undo != "" {
		if err := json.Unmarshal([]byte(undo), &before); err != nil {
			return fmt.Errorf("%w (%.80q)", ErrPanelUndo, undo)
		}
	}
	switch {
	case t.forward && undo == "":
		return ErrPanelUndo
	case t.forward && len(before.Forwards) == 0:
		return nil
	}
	if t.mailbox.local == "" && undo != "" {
		// The account was looked at when it was stopped. It is released even if
		// it became a reseller's since.
		t.user, err = p.accountUser(t)
	} else {
		t, err = p.locate(ctx, t)
	}
	if err != nil {
		return err
	}
	if t.forward {
		return p.restoreForwarding(ctx, t, before.Forwards)
	}
	var errs []error
	for _, s := range p.switches(t, e.Action) {
		if !s.is(before) {
			errs = append(errs, p.turn(ctx, t, s, false))
		}
	}
	return errors.Join(errs...)
}

// Plan lists the calls that Set makes, a line each. {owner} stands for the
// account that the call before it names, {address} for each that it lists.
func (p *CPanel) Plan(e Entry) []string {
	t, err := p.target(e)
	if err != nil {
		return nil
	}
	lines := p.planLocate(&t)
	if t.forward {
		return append(lines, p.show(listForwarders(t)), p.show(deleteForwarder(t, "{address}")))
	}
	for _, s := range p.switches(t, e.Action) {
		lines = append(lines, p.show(t.call(s.on)))
	}
	return lines
}

// planLocate lists the calls that find out whom t is about, and fills in what
// is known without them.
func (p *CPanel) planLocate(t *cpanelTarget) []string {
	if t.mailbox.local == "" {
		t.user, _ = p.accountUser(*t)
		return []string{p.show(accountSummary(t.user)), p.show(listResellers())}
	}
	if p.UserDomains == "" {
		t.user = "{owner}"
		return []string{p.show(getDomainOwner(t.mailbox.domain))}
	}
	user, err := panelDomainOwner(p.UserDomains, t.mailbox.domain)
	if err != nil {
		user = "{owner}"
	}
	t.user = user
	return nil
}

func (p *CPanel) wrap(e Entry, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("enforce: %s: %.120q: %w", p.Name(), e.Subject, err)
}

// A cpanelTarget is whom an entry is about.
type cpanelTarget struct {
	user    string       // the cPanel account, once it is known
	script  string       // whose owner it is, if so
	mailbox panelMailbox // zero for the whole account
	forward bool         // only what the mailbox forwards
}

// call is a function that is about the target and nothing else.
func (t cpanelTarget) call(function string) cpanelCall {
	if t.mailbox.local == "" {
		return cpanelCall{function: function, params: []cpanelParam{{"user", t.user}}}
	}
	return cpanelCall{user: t.user, function: function, params: []cpanelParam{{"email", t.mailbox.String()}}}
}

// target says whom the entry is about, without asking anybody.
func (p *CPanel) target(e Entry) (t cpanelTarget, err error) {
	if e.Action < rules.Hold {
		return t, fmt.Errorf("cpanel has no %s", e.Action)
	}
	kind, name := mailq.Account(e.Subject).Kind(), e.Subject
	if kind != mailq.KindLogin {
		_, name, _ = strings.Cut(e.Subject, ":")
	}
	switch {
	case kind == mailq.KindLogin:
		t.mailbox, err = parsePanelMailbox(name)
	case kind == mailq.KindForward && e.Action >= rules.Block:
		t.forward = true
		t.mailbox, err = parsePanelMailbox(name)
	case kind == mailq.KindUser:
		t.user, err = name, checkPanelUser(name)
	case kind == mailq.KindScript && p.ScriptOwner != nil:
		t.script = name
		_, err = p.accountUser(t)
	default:
		err = errors.New("cpanel cannot stop such an account")
	}
	return t, err
}

// accountUser is the name of a target that is a whole account.
func (p *CPanel) accountUser(t cpanelTarget) (string, error) {
	if t.script == "" {
		return t.user, checkPanelUser(t.user)
	}
	user := p.ScriptOwner(t.script)
	if user == "" {
		return "", errors.New("the script's owner is not known")
	}
	return user, checkPanelUser(user)
}

func (p *CPanel) located(ctx context.Context, e Entry) (cpanelTarget, error) {
	t, err := p.target(e)
	if err != nil {
		return t, err
	}
	return p.locate(ctx, t)
}

// locate finds the cPanel account of a mailbox, and makes sure that a whole
// account is one that may be stopped.
func (p *CPanel) locate(ctx context.Context, t cpanelTarget) (cpanelTarget, error) {
	var err error
	if t.mailbox.local != "" {
		t.user, err = p.owner(ctx, t.mailbox.domain)
		return t, err
	}
	if t.user, err = p.accountUser(t); err != nil {
		return t, err
	}
	account, err := p.account(ctx, t.user)
	if err != nil {
		return t, err
	}
	if account.Owner == t.user {
		return t, fmt.Errorf("%s owns itself: %w", t.user, ErrPanelProtected)
	}
	var resellers struct {
		Reseller []string `json:"reseller"`
	}
	if err := p.ask(ctx, listResellers(), &resellers); err != nil {
		return t, err
	}
	if slices.Contains(resellers.Reseller, t.user) {
		return t, fmt.Errorf("%s is a reseller: %w", t.user, ErrPanelProtected)
	}
	return t, nil
}

// owner is the cPanel account that a domain belongs to.
func (p *CPanel) owner(ctx context.Context, domain string) (string, error) {
	var user string
	var err error
	if p.UserDomains != "" {
		user, err = panelDomainOwner(p.UserDomains, domain)
	} else {
		var answer struct {
			User string `json:"user"`
		}
		err = p.ask(ctx, getDomainOwner(domain), &answer)
		user = answer.User
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("owner of %s: %w", domain, err)
	case user == "":
		return "", fmt.Errorf("owner of %s: the panel knows none", domain)
	}
	if err := checkPanelUser(user); err != nil {
		return "", fmt.Errorf("owner of %s: %w", domain, err)
	}
	return user, nil
}

// A cpanelState is what the panel has on an account or a mailbox.
type cpanelState struct {
	Suspended bool     `json:"suspended,omitempty"` // outgoing mail
	Held      bool     `json:"held,omitempty"`      // outgoing mail
	NoLogin   bool     `json:"no_login,omitempty"`
	Forwards  []string `json:"forwards,omitempty"` // addresses, never programs or system users
}

func (p *CPanel) state(ctx context.Context, t cpanelTarget) (cpanelState, error) {
	switch {
	case t.forward:
		forwards, err := p.forwards(ctx, t)
		return cpanelState{Forwards: forwards}, err
	case t.mailbox.local == "":
		account, err := p.account(ctx, t.user)
		return cpanelState{Suspended: bool(account.Suspended), Held: bool(account.Held)}, err
	}
	return p.mailboxState(ctx, t)
}

// A cpanelAccount is what WHM says of an account ("accountsummary").
type cpanelAccount struct {
	User      string    `json:"user"`
	Owner     string    `json:"owner"`
	Suspended cpanelYes `json:"outgoing_mail_suspended"`
	Held      cpanelYes `json:"outgoing_mail_hold"`
}

func (p *CPanel) account(ctx context.Context, user string) (cpanelAccount, error) {
	var answer struct {
		Accounts []cpanelAccount `json:"acct"`
	}
	if err := p.ask(ctx, accountSummary(user), &answer); err != nil {
		return cpanelAccount{}, err
	}
	if len(answer.Accounts) != 1 || answer.Accounts[0].User != user {
		return cpanelAccount{}, fmt.Errorf("the panel has no account %s", user)
	}
	return answer.Accounts[0], nil
}

// mailboxState finds the mailbox in the panel's list, which may hold others.
func (p *CPanel) mailboxState(ctx context.Context, t cpanelTarget) (cpanelState, error) {
	var list []struct {
		Email     string    `json:"email"`
		Suspended cpanelYes `json:"suspended_outgoing"`
		Held      cpanelYes `json:"hold_outgoing"`
		NoLogin   cpanelYes `json:"suspended_login"`
	}
	if err := p.ask(ctx, listMailbox(t), &list); err != nil {
		return cpanelState{}, err
	}
	for _, m := range list {
		if strings.EqualFold(m.Email, t.mailbox.String()) {
			return cpanelState{Suspended: bool(m.Suspended), Held: bool(m.Held), NoLogin: bool(m.NoLogin)}, nil
		}
	}
	return cpanelState{}, fmt.Errorf("the panel has no mailbox %s", t.mailbox)
}

// A cpanelSwitch is one thing that the panel turns on and off.
type cpanelSwitch struct {
	on, off string // functions
	is      func(cpanelState) bool
}

// switches are what the action turns on.
func (p *CPanel) switches(t cpanelTarget, action rules.Action) []cpanelSwitch {
	suspended := func(s cpanelState) bool { return s.Suspended }
	held := func(s cpanelState) bool { return s.Held }
	noLogin := func(s cpanelState) bool { return s.NoLogin }
	switch account := t.mailbox.local == ""; {
	case account && action == rules.Hold:
		return []cpanelSwitch{{"hold_outgoing_email", "release_outgoing_email", held}}
	case account:
		return []cpanelSwitch{{"suspend_outgoing_email", "unsuspend_outgoing_email", suspended}}
	case action == rules.Hold:
		return []cpanelSwitch{{"hold_outgoing", "release_outgoing", held}}
	case p.SuspendLogin:
		return []cpanelSwitch{
			{"suspend_outgoing", "unsuspend_outgoing", suspended},
			{"suspend_login", "unsuspend_login", noLogin},
		}
	}
	return []cpanelSwitch{{"suspend_outgoing", "unsuspend_outgoing", suspended}}
}

// turn turns a switch on or off. A panel that refuses because it is so already
// is believed when it says that it is so, not by the words of its refusal.
func (p *CPanel) turn(ctx context.Context, t cpanelTarget, s cpanelSwitch, on bool) error {
	function := s.off
	if on {
		function = s.on
	}
	err := p.ask(ctx, t.call(function), nil)
	if !errors.Is(err, ErrPanelRefused) {
		return err
	}
	if now, stateErr := p.state(ctx, t); stateErr == nil && s.is(now) == on {
		return nil
	}
	return err
}

// maxPanelForwards is how many addresses one mailbox may forward to.
const maxPanelForwards = 1000

// forwards lists the addresses that the mailbox forwards to. Programs, system
// users, and answers such as :fail: are not forwarding and stay.
func (p *CPanel) forwards(ctx context.Context, t cpanelTarget) ([]string, error) {
	var list []struct {
		Dest    string `json:"dest"`    // the mailbox
		Forward string `json:"forward"` // where to
	}
	if err := p.ask(ctx, listForwarders(t), &list); err != nil {
		return nil, err
	}
	var out []string
	for _, f := range list {
		if strings.EqualFold(f.Dest, t.mailbox.String()) && validPanelForward(f.Forward) &&
			!strings.EqualFold(f.Forward, t.mailbox.String()) && !slices.Contains(out, f.Forward) {
			out = append(out, f.Forward)
		}
	}
	if len(out) > maxPanelForwards {
		return nil, fmt.Errorf("it forwards to %d addresses, at most %d can be restored", len(out), maxPanelForwards)
	}
	return out, nil
}

func (p *CPanel) stopForwarding(ctx context.Context, t cpanelTarget) error {
	forwards, err := p.forwards(ctx, t)
	if err != nil {
		return err
	}
	var errs []error
	for _, address := range forwards {
		errs = append(errs, p.ask(ctx, deleteForwarder(t, address), nil))
	}
	if errors.Join(errs...) == nil {
		return nil
	}
	if left, err := p.forwards(ctx, t); err == nil && len(left) == 0 {
		return nil // somebody else was faster
	}
	return errors.Join(errs...)
}

// restoreForwarding adds the addresses that are not there.
func (p *CPanel) restoreForwarding(ctx context.Context, t cpanelTarget, before []string) error {
	if len(before) > maxPanelForwards || slices.ContainsFunc(before, func(a string) bool { return !validPanelForward(a) }) {
		return ErrPanelUndo
	}
	there, err := p.forwards(ctx, t)
	if err != nil {
		return err
	}
	var errs []error
	for _, address := range before {
		if !slices.Contains(there, address) {
			errs = append(errs, p.ask(ctx, addForwarder(t, address), nil))
		}
	}
	return errors.Join(errs...)
}

// The functions that are used besides those of [CPanel.switches], with the
// names that the vendor gives their parameters.

// getDomainOwner is WHM API 1 getdomainowner, "Return domain owner":
// https://api.docs.cpanel.net/openapi/whm/operation/getdomainowner/
func getDomainOwner(domain string) cpanelCall {
	return cpanelCall{function: "getdomainowner", params: []cpanelParam{{"domain", domain}}}
}

// accountSummary is WHM API 1 accountsummary:
// https://api.docs.cpanel.net/openapi/whm/operation/accountsummary
func accountSummary(user string) cpanelCall {
	return cpanelCall{function: "accountsummary", params: []cpanelParam{{"user", user}}}
}

// listResellers is WHM API 1 listresellers:
// https://api.docs.cpanel.net/openapi/whm/operation/listresellers
func listResellers() cpanelCall { return cpanelCall{function: "listresellers"} }

// listMailbox is UAPI Email::list_pops_with_disk, "Return email accounts with
// disk information": https://api.docs.cpanel.net/openapi/cpanel/operation/list_pops_with_disk/
func listMailbox(t cpanelTarget) cpanelCall {
	return cpanelCall{user: t.user, function: "list_pops_with_disk", params: []cpanelParam{
		{"email", t.mailbox.local}, {"domain", t.mailbox.domain}, {"get_restrictions", "1"}, {"no_disk", "1"},
	}}
}

// listForwarders is UAPI Email::list_forwarders, "Return domain's forwarders":
// https://api.docs.cpanel.net/openapi/cpanel/operation/list_forwarders/
func listForwarders(t cpanelTarget) cpanelCall {
	return cpanelCall{user: t.user, function: "list_forwarders", params: []cpanelParam{{"domain", t.mailbox.domain}}}
}

// deleteForwarder is UAPI Email::delete_forwarder, "Delete email account's
// email forwarder": https://api.docs.cpanel.net/openapi/cpanel/operation/delete_forwarder
func deleteForwarder(t cpanelTarget, address string) cpanelCall {
	return cpanelCall{user: t.user, function: "delete_forwarder", params: []cpanelParam{
		{"address", t.mailbox.String()}, {"forwarder", address},
	}}
}

// addForwarder is UAPI Email::add_forwarder, "Create email account forwarder":
// https://api.docs.cpanel.net/openapi/cpanel/operation/add_forwarder/
func addForwarder(t cpanelTarget, address string) cpanelCall {
	return cpanelCall{user: t.user, function: "add_forwarder", params: []cpanelParam{
		{"domain", t.mailbox.domain}, {"email", t.mailbox.String()}, {"fwdopt", "fwd"}, {"fwdemail", address},
	}}
}

// changePassword is UAPI Email::passwd_pop, "Update email account password":
// https://api.docs.cpanel.net/openapi/cpanel/operation/passwd_pop/
func changePassword(user string, m panelMailbox, password string) cpanelCall {
	return cpanelCall{user: user, function: "passwd_pop", secret: password, params: []cpanelParam{
		{"email", m.local}, {"domain", m.domain}, {"password", password},
	}}
}

// Passwords are those of the panel's mailboxes. They are changed over HTTPS
// only: the uapi command takes a password as an argument, which every user of
// the server can read.
func (p *CPanel) Passwords() Passwords { return cpanelPasswords{p} }

type cpanelPasswords struct{ panel *CPanel }

func (c cpanelPasswords) Name() string { return c.panel.Name() + " passwords" }

func (c cpanelPasswords) Covers(account string) bool {
	if c.panel.URL == "" || mailq.Account(account).Kind() != mailq.KindLogin {
		return false
	}
	_, err := parsePanelMailbox(account)
	return err == nil
}

func (c cpanelPasswords) Change(ctx context.Context, account, password string) error {
	return c.panel.wrap(Entry{Subject: account}, c.change(ctx, account, password))
}

func (c cpanelPasswords) change(ctx context.Context, account, password string) error {
	user, m, err := c.locate(ctx, account, password)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, hideSecret(err, password))
	}
	return c.panel.ask(ctx, changePassword(user, m, password), nil)
}

// locate does all that comes before the password is sent.
func (c cpanelPasswords) locate(ctx context.Context, account, password string) (user string, m panelMailbox, err error) {
	switch {
	case c.panel.URL == "":
		return "", m, errors.New("passwords need WHM's URL: the uapi command would show them to every user of the server")
	case mailq.Account(account).Kind() != mailq.KindLogin:
		return "", m, errPanelMailbox
	}
	if m, err = parsePanelMailbox(account); err != nil {
		return "", m, err
	}
	if err = checkPanelPassword(password); err != nil {
		return "", m, err
	}
	user, err = c.panel.owner(ctx, m.domain)
	return user, m, err
}

func (c cpanelPasswords) Plan(account string) []string {
	if !c.Covers(account) {
		return nil
	}
	m, _ := parsePanelMailbox(account) // as Covers did
	t := cpanelTarget{mailbox: m}
	lines := c.panel.planLocate(&t)
	return append(lines, c.panel.show(changePassword(t.user, m, "<secret>")))
}
