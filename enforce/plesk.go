package enforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Plesk stops and starts mailboxes and forwarding at a Plesk server with the
// server's own command, as root. It is a [Switch], and [Plesk.Passwords] are
// its passwords.
//
//	login u@d      plesk bin mail --update u@d -outgoing-messages-mbox-limit 0
//	forward:u@d    plesk bin mail --update u@d -forwarding false
//
// A limit of 0 prohibits sending ("Custom Limits", Plesk Obsidian
// Administrator's Guide); it is of no use for networks on Plesk's white list,
// and needs outgoing mail control to be on. Plesk has nothing that holds a
// mailbox's mail, and nothing that stops a system user without its mailboxes:
// those are not covered.
//
// The command ends with status 0, or with 1 and a reason on standard error:
// "Getting Started with Command Line Utilities",
// https://docs.plesk.com/current/cli-linux/getting-started-with-command-line-utilities.37894/
// Nothing here was run against a live panel.
type Plesk struct {
	// Command is the plesk program and what must precede it, such as
	// ["sudo", "-n", "/usr/sbin/plesk"]. Nil means plesk alone.
	Command []string

	// Limit is what a mailbox's limit is set to when it is released and Plesk
	// did not say what it was: a number, -1 for no limit, or default. Empty
	// means that such a mailbox is not stopped.
	Limit string

	Timeout time.Duration // for each command; 0 means ten seconds
}

// Name names the panel in outcomes.
func (p *Plesk) Name() string { return "plesk" }

// Covers reports whether the entry blocks a mailbox or what it forwards.
func (p *Plesk) Covers(e Entry) bool {
	_, _, err := pleskTarget(e)
	return err == nil
}

// pleskTarget says which mailbox the entry is about.
func pleskTarget(e Entry) (m panelMailbox, forward bool, err error) {
	if e.Action < rules.Block {
		return m, false, fmt.Errorf("plesk has no %s", e.Action)
	}
	switch mailq.Account(e.Subject).Kind() {
	case mailq.KindLogin:
		m, err = parsePanelMailbox(e.Subject)
	case mailq.KindForward:
		forward = true
		m, err = parsePanelMailbox(strings.TrimPrefix(e.Subject, mailq.KindForward+":"))
	default:
		err = errors.New("plesk cannot stop such an account")
	}
	return m, forward, err
}

// A pleskState is what was there before: a limit, or forwarding.
type pleskState struct {
	Limit      string   `json:"limit,omitempty"`
	Forwarding bool     `json:"forwarding,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
}

// Before reads the mailbox's limit, or where it forwards to.
func (p *Plesk) Before(ctx context.Context, e Entry) (undo string, err error) {
	undo, err = p.before(ctx, e)
	return undo, pleskError(e.Subject, err)
}

func (p *Plesk) before(ctx context.Context, e Entry) (string, error) {
	m, forward, err := pleskTarget(e)
	if err != nil {
		return "", err
	}
	info, err := p.info(ctx, m)
	if err != nil {
		return "", err
	}
	var state pleskState
	if forward {
		state.Forwarding, state.Addresses, err = info.forwarding()
	} else {
		state.Limit, err = p.limit(info)
	}
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(state)
	return string(text), err
}

// limit is what to set the mailbox's limit back to.
func (p *Plesk) limit(info pleskInfo) (string, error) {
	limit, err := info.limit()
	switch {
	case err != nil:
		return "", err
	case limit != "":
		return limit, nil
	case !validLimit(p.Limit):
		return "", errors.New("plesk does not tell the mailbox's limit; configure the limit to go back to")
	}
	return p.Limit, nil
}

// Set carries the entry out.
func (p *Plesk) Set(ctx context.Context, e Entry) error {
	m, forward, err := pleskTarget(e)
	if err == nil {
		_, err = p.run(ctx, pleskStop(m, forward)...)
	}
	return pleskError(e.Subject, err)
}

func pleskStop(m panelMailbox, forward bool) []string {
	if forward {
		return []string{"--update", m.String(), "-forwarding", "false"}
	}
	return []string{"--update", m.String(), "-outgoing-messages-mbox-limit", "0"}
}

// Clear sets the limit back to what it was, or has the mailbox forward again.
func (p *Plesk) Clear(ctx context.Context, e Entry, undo string) error {
	return pleskError(e.Subject, p.clear(ctx, e, undo))
}

func (p *Plesk) clear(ctx context.Context, e Entry, undo string) error {
	m, forward, err := pleskTarget(e)
	if err != nil {
		return err
	}
	before := pleskState{Limit: p.Limit}
	if undo == "" && forward {
		return ErrPanelUndo
	}
	if undo != "" {
		if err := json.Unmarshal([]byte(undo), &before); err != nil {
			return fmt.Errorf("%w (%.80q)", ErrPanelUndo, undo)
		}
	}
	if forward {
		return p.forwardAgain(ctx, m, before)
	}
	if !validLimit(before.Limit) {
		return ErrPanelUndo
	}
	_, err = p.run(ctx, "--update", m.String(), "-outgoing-messages-mbox-limit", before.Limit)
	return err
}

// forwardAgain turns forwarding on, with the addresses that Plesk forgot when
// it was turned off, if it forgot any.
func (p *Plesk) forwardAgain(ctx context.Context, m panelMailbox, before pleskState) error {
	if !before.Forwarding {
		return nil
	}
	if slices.ContainsFunc(before.Addresses, func(a string) bool { return !validPanelForward(a) }) {
		return ErrPanelUndo
	}
	info, err := p.info(ctx, m)
	if err != nil {
		return err
	}
	_, there, err := info.forwarding()
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(before.Addresses), func(a string) bool { return slices.Contains(there, a) })
	args := []string{"--update", m.String(), "-forwarding", "true"}
	if len(missing) > 0 {
		args = append(args, "-forwarding-addresses", "add:"+strings.Join(missing, ","))
	}
	_, err = p.run(ctx, args...)
	return err
}

// Plan is the command that Set runs.
func (p *Plesk) Plan(e Entry) []string {
	m, forward, err := pleskTarget(e)
	if err != nil {
		return nil
	}
	return []string{strings.Join(p.argv(pleskStop(m, forward)...), " ")}
}

func (p *Plesk) argv(args ...string) []string {
	return append(panelCommand(p.Command, "plesk"), append([]string{"bin", "mail"}, args...)...)
}

func (p *Plesk) run(ctx context.Context, args ...string) ([]byte, error) {
	out, _, err := command{argv: p.argv(args...), timeout: p.Timeout}.run(ctx)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, fmt.Errorf("%w: %w", ErrPanelRefused, err)
	}
	return out, err
}

func pleskError(subject string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("enforce: plesk: %.120q: %w", subject, err)
}

// info asks Plesk about the mailbox, and makes sure that it answers about that
// one and to the end. Old versions print the password: the answer never stands
// in an error.
func (p *Plesk) info(ctx context.Context, m panelMailbox) (pleskInfo, error) {
	out, err := p.run(ctx, "--info", m.String())
	if err != nil {
		return nil, err
	}
	info, complete := parsePleskInfo(out)
	if !complete || !strings.EqualFold(info.value("mailname")+"@"+info.value("domain"), m.String()) {
		return nil, fmt.Errorf("the answer to --info %s is not about it, or only half of one", m)
	}
	return info, nil
}

// A pleskInfo is what "plesk bin mail --info" prints: a line for each setting,
// "Mbox quota:         Unlimited". No page of the vendor's shows it; what is
// known is from listings that others published.
type pleskInfo []pleskLine

type pleskLine struct{ label, value string } // label in lower case

// parsePleskInfo reads --info's answer; complete means that its last line,
// "SUCCESS: …", is there.
func parsePleskInfo(out []byte) (info pleskInfo, complete bool) {
	for text := range bytes.Lines(out) {
		label, value, ok := strings.Cut(string(text), ":")
		if !ok {
			continue
		}
		if label == "SUCCESS" {
			return info, true
		}
		if len(info) < 1000 {
			info = append(info, pleskLine{strings.ToLower(strings.TrimSpace(label)), strings.TrimSpace(value)})
		}
	}
	return info, false
}

// value is the first value under the label.
func (i pleskInfo) value(label string) string {
	for _, l := range i {
		if l.label == label {
			return l.value
		}
	}
	return ""
}

// limit is the mailbox's limit of outgoing messages as the command takes it;
// empty if there is no line about it.
func (i pleskInfo) limit() (string, error) {
	limit := ""
	for _, l := range i {
		if !strings.HasPrefix(l.label, "outgoing messages") {
			continue
		}
		word := strings.ToLower(firstWord(l.value))
		if word == "unlimited" {
			word = "-1"
		}
		if limit != "" || !validLimit(word) {
			return "", fmt.Errorf("the mailbox's limit cannot be told from %.80q", l.value)
		}
		limit = word
	}
	return limit, nil
}

// forwarding says whether the mailbox forwards, and where to. Versions differ
// in what they call it.
func (i pleskInfo) forwarding() (on bool, addresses []string, err error) {
	known := false
	for _, l := range i {
		switch l.label {
		case "forwarding", "mail forwarding", "redirect", "mailgroup":
			known = true
			on = on || strings.EqualFold(l.value, "true") || strings.EqualFold(l.value, "enabled")
		case "forwarding address(es)", "forwarding addresses", "redirect address", "group member(s)":
			for _, a := range strings.FieldsFunc(l.value, func(r rune) bool { return r == ' ' || r == ',' || r == ';' }) {
				if validPanelForward(a) && !slices.Contains(addresses, a) {
					addresses = append(addresses, a)
				}
			}
		}
	}
	if !known {
		return false, nil, errors.New("plesk does not tell whether the mailbox forwards")
	}
	return on, addresses, nil
}

func firstWord(text string) string {
	if words := strings.Fields(text); len(words) > 0 {
		return words[0]
	}
	return ""
}

// validLimit reports whether limit is one that the command takes.
func validLimit(limit string) bool {
	if limit == "default" || limit == "-1" {
		return true
	}
	_, err := strconv.ParseUint(limit, 10, 31)
	return err == nil
}

// Passwords are those of the panel's mailboxes. A password is handed over in
// the environment, with an empty argument in its place, as the vendor advises:
// "Getting Started with Command Line Utilities", see [Plesk].
func (p *Plesk) Passwords() Passwords { return pleskPasswords{p} }

type pleskPasswords struct{ panel *Plesk }

func (c pleskPasswords) Name() string { return "plesk passwords" }

// Covers wants plesk to be run itself: sudo and the like drop the environment,
// and Plesk would take the empty argument for the password.
func (c pleskPasswords) Covers(account string) bool {
	if len(c.panel.Command) > 1 || mailq.Account(account).Kind() != mailq.KindLogin {
		return false
	}
	_, err := parsePanelMailbox(account)
	return err == nil
}

func (c pleskPasswords) Change(ctx context.Context, account, password string) error {
	return pleskError(account, hideSecret(c.change(ctx, account, password), password))
}

func (c pleskPasswords) change(ctx context.Context, account, password string) error {
	if !c.Covers(account) {
		return fmt.Errorf("%w: is not a mailbox, or plesk is not run directly, which its passwords need", ErrUnchanged)
	}
	if err := checkPanelPassword(password); err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	return runWithPassword(ctx, c.argv(account), password, c.panel.Timeout)
}

func (c pleskPasswords) argv(account string) []string {
	return c.panel.argv("--update", account, "-passwd", "")
}

func (c pleskPasswords) Plan(account string) []string {
	if !c.Covers(account) {
		return nil
	}
	return []string{"PSA_PASSWORD=<secret> " + strings.TrimSpace(strings.Join(c.argv(account), " ")) + " ''"}
}

// runWithPassword runs a command of Plesk's with PSA_PASSWORD in its
// environment, and otherwise as [command] does. What it prints on standard
// output is not looked at.
func runWithPassword(ctx context.Context, argv []string, password string, timeout time.Duration) error {
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(argv[0]), argv[1:]...)
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C", "PSA_PASSWORD=" + password}
	complaint := &bounded{max: 16 * maxComplaint}
	cmd.Stderr = complaint
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = afterTerminate
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("plesk bin mail -passwd: no answer: %w", ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		err = ErrPanelRefused
	}
	if complaint.Len() == complaint.max {
		return fmt.Errorf("plesk bin mail -passwd: %w", err) // what was cut may end with half a password
	}
	return fmt.Errorf("plesk bin mail -passwd: %w%s", err, lastLine([]byte(withoutSecret(complaint.String(), password))))
}
