package enforce

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DovecotSessions ends the sessions of logins in Dovecot and has its
// authentication cache forget their passwords (doveadm-kick(1) and
// doveadm-auth(1); seen with 2.3).
//
// "doveadm kick" takes a mask or an address: a login with a wildcard or a
// backslash, or that could be read as an IP address or a network, would end
// the sessions of others. Such a login is refused and named in the error; its
// sessions are to be ended by hand. Sessions that share a process with those
// of others (service imap { client_limit }) are left open too, and told.
type DovecotSessions struct {
	Command    []string      // doveadm, and what precedes it (sudo -n, ssh HOST); empty means doveadm
	ConfigFile string        // of the instance; empty means Dovecot's own default
	Instance   string        // instance_name of the instance, instead of the file
	Timeout    time.Duration // of each command; 0 means ten seconds
}

// Name names the server in outcomes.
func (d DovecotSessions) Name() string {
	if of := orName(d.ConfigFile, d.Instance); of != "" {
		return "dovecot " + of
	}
	return "dovecot"
}

// End has the passwords of the logins forgotten, and then ends their sessions.
// It goes on with the others if one fails.
func (d DovecotSessions) End(ctx context.Context, logins []string) error {
	var errs []error
	for _, login := range logins {
		if err := d.checkLogin(login); err != nil {
			errs = append(errs, fmt.Errorf("enforce: %s: %w", d.Name(), err))
			continue
		}
		if err := d.flush(ctx, login); err != nil {
			errs = append(errs, fmt.Errorf("enforce: %s: password cache of %s: %w", d.Name(), printable(login), err))
		}
		if err := d.kick(ctx, login); err != nil {
			errs = append(errs, fmt.Errorf("enforce: %s: sessions of %s: %w", d.Name(), printable(login), err))
		}
	}
	return errors.Join(errs...)
}

// Plan is two command lines for each login.
func (d DovecotSessions) Plan(logins []string) []string {
	var plan []string
	for _, login := range logins {
		err := d.checkLogin(login)
		if err == nil {
			plan = append(plan, planned(d.argv("auth", "cache", "flush", "--", login), nil))
			err = checkMask(login)
		}
		if err != nil {
			plan = append(plan, "refused: "+err.Error())
			continue
		}
		plan = append(plan, planned(d.argv("kick", "--", login), nil))
	}
	return plan
}

func (d DovecotSessions) argv(args ...string) []string {
	argv := slices.Clone(d.Command)
	if len(argv) == 0 {
		argv = []string{"doveadm"}
	}
	switch {
	case d.ConfigFile != "":
		argv = append(argv, "-c", d.ConfigFile)
	case d.Instance != "":
		argv = append(argv, "-i", d.Instance)
	}
	return append(argv, args...)
}

func (d DovecotSessions) flush(ctx context.Context, login string) error {
	_, _, err := command{argv: d.argv("auth", "cache", "flush", "--", login), timeout: d.Timeout}.run(ctx)
	return err
}

// nobodyThere is how doveadm ends when it finds no session (EX_NOHOST).
const nobodyThere = 68

func (d DovecotSessions) kick(ctx context.Context, login string) error {
	if err := checkMask(login); err != nil {
		return err
	}
	out, _, err := command{argv: d.argv("kick", "--", login), timeout: d.Timeout}.run(ctx)
	var exit *exec.ExitError
	switch {
	case strings.Contains(string(out), "warning: other connections would also be kicked"):
		return errors.New("left open: they share a process with the sessions of others")
	case errors.As(err, &exit) && exit.ExitCode() == nobodyThere:
		return nil
	}
	return err
}

// checkLogin refuses what is no login, and what a shell could take for more
// than a name where one may stand before doveadm, such as that of ssh.
func (d DovecotSessions) checkLogin(login string) error {
	if err := checkAccount(login); err != nil {
		return fmt.Errorf("login refused: %w", err)
	}
	shell := len(d.Command) > 1 && !slices.Contains([]string{"sudo", "doas"}, filepath.Base(d.Command[0]))
	if shell && !isPlainName(login) {
		return fmt.Errorf("login %s refused: %s may hand it to a shell: end its sessions by hand", printable(login), d.Command[0])
	}
	return nil
}

// checkMask refuses a login that is more than itself to "doveadm kick". It is
// stricter than Dovecot's reading of addresses, which takes 127.0.0.01 too.
func checkMask(login string) error {
	if strings.ContainsAny(login, `*?\`) {
		return errors.New("its name is a mask, which could end the sessions of others: end them by hand")
	}
	address, _, _ := strings.Cut(login, "/")
	if strings.ContainsAny(address, ".:") && strings.Trim(address, "0123456789abcdefABCDEF.:[]") == "" || strings.Contains(address, "::") {
		return errors.New("its name could be an IP address, which could end the sessions of others: end them by hand")
	}
	return nil
}
