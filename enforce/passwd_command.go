package enforce

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// CommandPasswords changes passwords with a program of the operator's. There
// is no shell between: {account}, {user} and {domain} in the arguments are
// replaced, and what they stand for remains part of its one argument.
//
// As the program may itself be a shell or ssh, which joins arguments, only
// accounts of ASCII letters, digits and @ . _ + = % - are given to it; others
// are refused. So is one that would begin an argument with a hyphen, unless
// the arguments before it have "--".
//
// The program gets Input on its standard input and PATH and LC_ALL as its
// environment. It has changed the password if it ends with 0. At the time-out
// it and its children are ended. What it writes is bounded, and never shown
// where it holds anything of the password.
type CommandPasswords struct {
	Argv    []string
	Input   string        // {password} and the above are replaced; empty means {password} and a newline
	Domains []string      // whose accounts it is for; none means any
	Timeout time.Duration // 0 means ten seconds
}

// Name names the program in outcomes.
func (c CommandPasswords) Name() string { return "command " + hookName(c.Argv) }

// Check reports what is wrong with the settings.
func (c CommandPasswords) Check() error {
	if !strings.Contains(c.input(), "{password}") {
		return errors.New("want {password} in what is given to the command's standard input")
	}
	return checkArgv(c.Argv)
}

// Covers reports whether the account is in one of the domains.
func (c CommandPasswords) Covers(account string) bool { return inDomains(account, c.Domains) }

// Plan is the command line.
func (c CommandPasswords) Plan(account string) []string {
	return []string{planned(c.Argv, accountValues(account)) + " (password on standard input)"}
}

// Change runs the program.
func (c CommandPasswords) Change(ctx context.Context, account, password string) error {
	values := accountValues(account)
	argv, err := expandArgv(c.Argv, values)
	if err = errors.Join(err, checkValues(c.Input, values), c.Check(), checkPassword(password)); err != nil {
		return unchanged(c, account, err)
	}
	values["{password}"] = password
	h := hook{argv: argv, input: replaceAll(c.input(), values), secret: password, timeout: c.Timeout}
	if err := h.run(ctx); err != nil {
		return fmt.Errorf("enforce: %s: password of %s: %w", c.Name(), printable(account), err)
	}
	return nil
}

func (c CommandPasswords) input() string { return orName(c.Input, "{password}\n") }

// CommandSessions runs a program for each login, to revoke what a new
// password does not: app passwords, OAuth tokens, sessions of webmail. {login},
// {user} and {domain} are replaced as [CommandPasswords] does it, with the
// same names refused. It must succeed where there is nothing to revoke.
type CommandSessions struct {
	Argv    []string
	Timeout time.Duration // of each; 0 means ten seconds
}

// Name names the program in outcomes.
func (c CommandSessions) Name() string { return "command " + hookName(c.Argv) }

// Check reports what is wrong with the settings.
func (c CommandSessions) Check() error { return checkArgv(c.Argv) }

// End runs the program for each login, for all of them even if one fails.
func (c CommandSessions) End(ctx context.Context, logins []string) error {
	var errs []error
	for _, login := range logins {
		argv, err := expandArgv(c.Argv, loginValues(login))
		if err == nil {
			err = hook{argv: argv, timeout: c.Timeout}.run(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("enforce: %s: %s: %w", c.Name(), printable(login), err))
		}
	}
	return errors.Join(errs...)
}

// Plan is a command line for each login.
func (c CommandSessions) Plan(logins []string) []string {
	var plan []string
	for _, login := range logins {
		plan = append(plan, planned(c.Argv, loginValues(login)))
	}
	return plan
}

func accountValues(account string) map[string]string {
	user, domain := splitAccount(account)
	return map[string]string{"{account}": account, "{user}": user, "{domain}": domain}
}

func loginValues(login string) map[string]string {
	user, domain := splitAccount(login)
	return map[string]string{"{login}": login, "{user}": user, "{domain}": domain}
}

// checkArgv reports a command that could not be run for anybody.
func checkArgv(argv []string) error {
	switch {
	case len(argv) == 0 || argv[0] == "":
		return errors.New("want the program and its arguments")
	case strings.Contains(argv[0], "{"):
		return fmt.Errorf("the program's name %q must not depend on the account", argv[0])
	case strings.Contains(strings.Join(argv, " "), "{password}"):
		return errors.New("the password must not be an argument, which everybody can see: it is given on standard input")
	}
	return nil
}

// expandArgv replaces the placeholders in the arguments.
func expandArgv(argv []string, values map[string]string) ([]string, error) {
	if err := checkArgv(argv); err != nil {
		return nil, err
	}
	out := slices.Clone(argv)
	for i, arg := range argv {
		if err := checkValues(arg, values); err != nil {
			return nil, err
		}
		out[i] = replaceAll(arg, values)
		if out[i] != arg && strings.HasPrefix(out[i], "-") && arg[0] != '-' && !slices.Contains(argv[:i], "--") {
			return nil, fmt.Errorf(`%.80q could be taken for an option: put "--" before it`, out[i])
		}
	}
	return out, nil
}

// checkValues refuses values that could be more than a name where text has
// their placeholders.
func checkValues(text string, values map[string]string) error {
	for name, value := range values {
		if strings.Contains(text, name) && !isPlainName(value) {
			return fmt.Errorf("%s, %.80q, cannot be given to a command: want ASCII letters, digits and @ . _ + = %% -", name, value)
		}
	}
	return nil
}

// replaceAll replaces each placeholder once: what it is replaced by may look
// like another.
func replaceAll(text string, values map[string]string) string {
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, name, value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// isPlainName reports whether a name means nothing else even to a shell.
func isPlainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("@._+=%-", c) < 0 {
			return false
		}
	}
	return name != "" && len(name) <= maxAccount
}

// planned is a command line to be read by a person.
func planned(argv []string, values map[string]string) string {
	argv, err := expandArgv(argv, values)
	if err != nil {
		return "refused: " + err.Error()
	}
	shown := make([]string, len(argv))
	for i, arg := range argv {
		if shown[i] = arg; arg == "" || strings.ContainsAny(arg, " \t\n\"'\\") {
			shown[i] = fmt.Sprintf("%q", arg)
		}
	}
	return strings.Join(shown, " ")
}

func hookName(argv []string) string {
	if len(argv) == 0 {
		return "(none)"
	}
	return filepath.Base(argv[0])
}

// A hook is a program of the operator's with its arguments and input.
type hook struct {
	argv    []string
	input   string
	secret  string        // part of input that must not be shown
	timeout time.Duration // 0 means ten seconds
}

// run runs the program in a process group of its own, which ends with it when
// the time is up. The error holds the last line that it complained with,
// unless that tells anything of the secret.
func (h hook) run(ctx context.Context) error {
	timeout := h.timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(h.argv[0]), h.argv[1:]...)
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(h.input)
	complaint := &bounded{max: maxComplaint}
	cmd.Stdout, cmd.Stderr = &bounded{}, complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = afterTerminate
	err := cmd.Run()
	if cmd.Process == nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	if ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // who did not heed SIGTERM; nobody, as a rule
	}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil: // it left a child that may go on
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no end within %v: %w", timeout, ctx.Err())
	case ctx.Err() != nil:
		return ctx.Err()
	case leaks(complaint.String(), h.secret):
		return fmt.Errorf("%w: what it wrote is not shown because it holds the password", err)
	}
	return fmt.Errorf("%w%s", err, lastLine(complaint.Bytes()))
}
