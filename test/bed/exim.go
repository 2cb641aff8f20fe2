package bed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// EximOptions say how an Exim differs from the plain one. The zero value is
// useful.
type EximOptions struct {
	// Bed is whose Dovecot and sinks Exim uses; nil starts some of its own,
	// without a Postfix.
	Bed *Bed

	// Gate is the host:port of a service that Exim asks by ${readsocket} at
	// RCPT, at DATA and about mail of local programs: one line of tab-separated
	// name=value pairs, answered with OK, "DENY text" or "FREEZE text". It is
	// skipped when it does not answer within GateTimeout.
	Gate        string
	GateTimeout time.Duration // 3 s if 0; a fraction is rounded up

	// AwayFile is an lsearch file of what the gate would answer, which is looked
	// into where it does not. An empty one is made if there is none.
	AwayFile string

	// BlockFile and HoldFile are lsearch files of logins, and of system users
	// as user:NAME, whose mail is refused or frozen. Empty ones are made if
	// there are none.
	BlockFile, HoldFile string

	// Deny is the passwd-file of logins that Dovecot refuses, when it is
	// started here; see Options.Deny.
	Deny string

	// QueueRun is the time between two queue runs; 30 s if 0.
	QueueRun time.Duration

	// Main holds further lines of the main section; they come last.
	Main []string
}

// An Exim is a running Exim with an /etc of its own: it and its commands run
// in a mount namespace where the configuration is the compiled-in one, so that
// any system user may call sendmail, and the machine's /etc is not changed.
type Exim struct {
	Bed        *Bed   // its Dovecot and sinks: the mailboxes, and the Internet around
	Dir        string // configuration, spool and logs; every user may enter
	Binary     string // the program, inside the namespace; it takes sendmail's arguments too
	Program    string // a program that enters the namespace and runs Exim there; for root
	Submission string // host:port where users log in and send
	SMTP       string // host:port where strangers deliver
	Spool      string // spool directory, split
	MainLog    string // path of Exim's log

	t         testing.TB
	options   EximOptions
	root      string   // where Exim was unpacked; / if it is installed
	namespace *process // keeps it; its pid is its name
	daemon    *process
}

const eximCache = "vedetta-tests/exim" // below os.UserCacheDir; test/install.sh unpacks it there

// eximRoot finds the directory that usr/sbin/exim4 is in.
func eximRoot() (root, missing string) {
	if os.Geteuid() != 0 {
		return "", "only root can start Exim"
	}
	for _, program := range []string{"unshare", "nsenter", "mount", "ldconfig"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", program + " is not installed, which Exim is started with"
		}
	}
	var roots []string
	if dir := os.Getenv("VEDETTA_EXIM_ROOT"); dir != "" {
		roots = append(roots, dir)
	}
	if path, err := exec.LookPath("exim4"); err == nil {
		roots = append(roots, strings.TrimSuffix(path, "usr/sbin/exim4"))
	}
	roots = append(roots, "/")
	if dir, err := os.UserCacheDir(); err == nil {
		roots = append(roots, filepath.Join(dir, eximCache))
	}
	for _, root := range roots {
		if info, err := os.Stat(filepath.Join(root, "usr/sbin/exim4")); err == nil && info.Mode().IsRegular() {
			return root, ""
		}
	}
	return "", "Exim is not installed: no usr/sbin/exim4 in " + strings.Join(roots, ", ") + "; test/install.sh unpacks one"
}

// StartExim starts an Exim and waits until it answers. It skips the test, with
// the reason, where Exim cannot be started, and stops it when the test ends.
func StartExim(t testing.TB, o EximOptions) *Exim {
	t.Helper()
	if reason := dovecotAvailable(); reason != "" {
		t.Skip(reason)
	}
	root, missing := eximRoot()
	if missing != "" {
		t.Skip(missing)
	}
	e := &Exim{Bed: o.Bed, t: t, options: o, root: root}
	if e.Bed == nil {
		e.Bed = startAround(t, Options{Deny: o.Deny})
	}
	t.Cleanup(e.cleanup)
	if err := e.start(); errors.Is(err, errNoNamespace) {
		t.Skip(err)
	} else if err != nil {
		t.Fatalf("%v\n%s", err, e.logs())
	}
	return e
}

func (e *Exim) start() (err error) {
	if e.Dir, err = os.MkdirTemp(e.Bed.Dir, "exim"); err != nil {
		return err
	}
	if err := enterable(e.Dir); err != nil {
		return err
	}
	e.Spool = filepath.Join(e.Dir, "spool")
	e.MainLog = filepath.Join(e.Dir, "log", "mainlog")
	e.Program = filepath.Join(e.Dir, "run-exim")
	e.Binary = "/usr/sbin/exim4"
	if e.root != "/" {
		e.Binary = filepath.Join(e.Dir, "root/usr/sbin/exim4")
	}
	if err := e.makeFiles(); err != nil {
		return err
	}
	if err := e.enter(); err != nil {
		return err
	}
	if err := e.Start(); err != nil {
		return err
	}
	out, err := e.run("", "-bV")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "Configuration file is "+eximConfigured) {
		return fmt.Errorf("%w: this Exim does not read %s as Debian's does", errNoNamespace, eximConfigured)
	}
	return nil
}

// errNoNamespace means that Exim cannot be given an /etc of its own here.
var errNoNamespace = errors.New("bed: Exim cannot have an /etc of its own")

// The script makes the namespace, given the directory of the test, that of the
// unpacked Exim and its place, and stays. ldconfig is kept from writing its
// cache of directories.
const eximNamespace = `set -e
[ ! -d /var/cache/ldconfig ] || mount -t tmpfs tmpfs /var/cache/ldconfig
if [ "$2" != / ]; then
  mount --bind "$2" "$1/root"
  ldconfig -X -C "$1/etc/ld.so.cache" $(find "$1/root/usr/lib" "$1/root/lib" -name 'lib*.so.*' -printf '%h\n' 2>/dev/null | sort -u)
fi
mount -t overlay overlay -o "ro,lowerdir=$1/etc:/etc" /etc
touch "$1/made"
exec sleep infinity
`

// enter makes the namespace.
func (e *Exim) enter() (err error) {
	e.namespace, err = launch("Exim's namespace", "unshare", "--mount", "--propagation", "private",
		"/bin/sh", "-c", eximNamespace, "sh", e.Dir, e.root)
	if err != nil {
		return err
	}
	err = e.namespace.ready(func() error {
		_, err := os.Stat(filepath.Join(e.Dir, "made"))
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errNoNamespace, err)
	}
	script := "#!/bin/sh\nexec nsenter --mount=" + e.namespacePath() + " " + e.Binary + ` "$@"` + "\n"
	return os.WriteFile(e.Program, []byte(script), 0o755)
}

func (e *Exim) namespacePath() string {
	return fmt.Sprintf("/proc/%d/ns/mnt", e.namespace.cmd.Process.Pid)
}

// Start starts the daemon on the ports that it has, or on new ones if it has
// none yet, and waits until it answers. It need only be called after Stop.
func (e *Exim) Start() (err error) {
	e.daemon, err = launch("exim", "nsenter", "--mount="+e.namespacePath(), e.Binary, "-bdf", "-q"+seconds(e.options.QueueRun, 30*time.Second))
	if err != nil {
		return err
	}
	return e.daemon.ready(func() error { return errors.Join(greets(e.Submission), greets(e.SMTP)) })
}

// Stop stops the daemon and everything that it or a command started, and waits
// until they are gone. Commands work on, and Start starts it again.
func (e *Exim) Stop() error {
	if e.namespace == nil {
		return nil
	}
	err := e.daemon.stop()
	e.daemon = nil
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		left := e.processes()
		if len(left) == 0 {
			return nil
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("bed: processes of Exim survive being killed: %v", e.processes())
}

// processes lists those in the namespace, besides the one that keeps it: all
// of Exim's, as a delivery leaves the process group of who called for it.
func (e *Exim) processes() (pids []int) {
	ours, err := os.Readlink(e.namespacePath())
	if err != nil {
		return nil // the namespace is gone, and so is who was in it
	}
	all, _ := filepath.Glob("/proc/[0-9]*/ns/mnt") // the pattern is right
	for _, path := range all {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if pid == e.namespace.cmd.Process.Pid {
			continue
		}
		if link, err := os.Readlink(path); err == nil && link == ours {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (e *Exim) cleanup() {
	if err := errors.Join(e.Stop(), e.namespace.stop()); err != nil {
		e.t.Error(err)
	}
	if e.t.Failed() && e.MainLog != "" {
		e.t.Log(e.logs())
	}
	if err := os.RemoveAll(e.Dir); err != nil {
		e.t.Error(err)
	}
}

// logs is the end of Exim's log and all of its panic log.
func (e *Exim) logs() string {
	return tail(e.MainLog) + tail(filepath.Join(e.Dir, "log", "paniclog"))
}

// Command prepares a command to be run inside Exim's namespace by a system
// user, for example a PHP whose sendmail_path is Binary.
func (e *Exim) Command(user string, argv ...string) (*exec.Cmd, error) {
	uid, gid, err := userAndGroup(user)
	if err != nil {
		return nil, err
	}
	enter := []string{"--mount=" + e.namespacePath(), "--setgid", strconv.Itoa(gid), "--setuid", strconv.Itoa(uid), "--"}
	cmd := exec.Command("nsenter", append(enter, argv...)...)
	cmd.Dir = "/"
	return cmd, nil
}

// run runs Exim as root.
func (e *Exim) run(input string, args ...string) (string, error) {
	var complaint bytes.Buffer
	cmd := exec.Command(e.Program, args...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("exim %s: %w: %s", strings.Join(args, " "), err, complaint.Bytes())
	}
	return string(out), nil
}

// Expand expands a line of text as Exim does in its configuration.
func (e *Exim) Expand(text string) (string, error) {
	out, err := e.run(text+"\n", "-be")
	out = strings.TrimPrefix(out, "> ") // it asks for a line, and then for one more
	return strings.TrimSuffix(strings.TrimSuffix(out, "\n> \n"), "\n"), err
}

// Send logs in, sends one message and logs out; see [Bed.Send].
func (e *Exim) Send(login, password, from string, rcpts ...string) error {
	s, err := open(e.Submission, login, password)
	if err != nil {
		return err
	}
	return errors.Join(s.Send(from, rcpts...), s.Close())
}

// Session logs a user of the bed in and stays logged in until it is closed, at
// the latest by the end of the test.
func (e *Exim) Session(login string) *Session {
	e.t.Helper()
	name, _, _ := strings.Cut(login, "@")
	s, err := open(e.Submission, login, "pw-"+name)
	if err != nil {
		e.t.Fatalf("bed: %s cannot log in: %v", login, err)
	}
	e.t.Cleanup(func() { _ = s.Close() })
	return s
}

// SendInbound delivers one message at the port for strangers, without a login.
func (e *Exim) SendInbound(from string, rcpts ...string) error {
	return sendInbound(e.SMTP, from, rcpts...)
}

// Sendmail gives Exim a message as the script of a web site does. The user is
// a system user, the args are sendmail's ("-t", or "-i" and recipients). What
// Exim refused with is in the error.
func (e *Exim) Sendmail(user string, args []string, message string) error {
	cmd, err := e.Command(user, append([]string{e.Binary}, args...)...)
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sendmail: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// An EximQueued is a message in Exim's queue, as "exim -bp" shows it.
type EximQueued struct {
	ID         string
	Sender     string // envelope sender, empty for bounces
	Frozen     bool
	Recipients []string // those left
}

// Queue lists the queue.
func (e *Exim) Queue() ([]EximQueued, error) {
	out, err := e.run("", "-bp")
	if err != nil {
		return nil, err
	}
	var all []EximQueued
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case len(words) >= 4 && strings.HasPrefix(words[3], "<"): // " 2m   599 1vNB4d-0001Ab-2x <a@shop.test> *** frozen ***"
			all = append(all, EximQueued{ID: words[2], Sender: strings.Trim(words[3], "<>"), Frozen: strings.Contains(line, "*** frozen ***")})
		case len(words) == 1 && len(all) > 0: // those that have it are marked "D address"
			last := &all[len(all)-1]
			last.Recipients = append(last.Recipients, words[0])
		}
	}
	return all, nil
}

// WaitLog waits until Exim has logged a line that matches, and returns it.
func (e *Exim) WaitLog(pattern string) string {
	e.t.Helper()
	return e.Bed.waitLine(e.MainLog, pattern)
}
