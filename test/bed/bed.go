// Package bed starts real mail servers for a test: a Postfix of its own with
// SASL and mailboxes by a Dovecot of its own, and in front of them an
// "Internet" of sink servers that accept, bounce, defer and call mail spam.
//
//	b := bed.Start(t, bed.Options{Policy: addr, SASLAccess: path})
//	err := b.Send("alice@shop.test", "pw-alice", "alice@shop.test", "r@ok.test")
//
// Everything listens on free loopback ports and lives in a directory that goes
// away with the test; no mail leaves the machine, because what has no route to
// a sink is refused for now. A mail server that the machine already has is not touched:
// the instance has its own configuration, queue and log. All processes are
// gone when the test ends, however it ends.
package bed

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Options say how the servers differ from the plain ones. The zero value is
// useful.
type Options struct {
	// Policy is the host:port of a policy service that Postfix asks at RCPT
	// and at END-OF-MESSAGE. It is skipped when it does not answer.
	Policy string

	// PolicyTimeout is how long Postfix waits for the policy service before it
	// skips it; 5 s if 0. It is what a client waits for too. Postfix counts in
	// seconds: a fraction is rounded up.
	PolicyTimeout time.Duration

	// SASLAccess is the path of a table of type hash, without its .db, that
	// check_sasl_access asks. An empty one is made if there is none.
	SASLAccess string

	// SASLAway is the path of such a table that is asked where the policy service
	// does not answer.
	SASLAway string

	// Local is the path of a table of type hash of the scripts and system users
	// whose mail is held when a local program hands it in. An empty one is made
	// if there is none.
	Local string

	// Clients is the path of a table of type hash of the trusted clients that are
	// stopped at the port for strangers. There [Trusted] sends without a login, and
	// SendAs says who sends. An empty one is made if there is none.
	Clients string

	// Deny is the path of a passwd-file of logins that Dovecot refuses, at all
	// its services and for Postfix and Exim. An empty one is made if there is
	// none.
	Deny string

	// ShortIDs turns long queue ids off.
	ShortIDs bool

	// Main holds further lines of main.cf; they overrule the bed's own.
	Main []string

	// Master holds further lines of master.cf.
	Master []string

	// Dovecot holds further lines of dovecot.conf; they come last.
	Dovecot []string
}

// Trusted is the networks that may send without a login where Options.Clients is set.
const Trusted = "192.0.2.0/24"

// The domains whose mailboxes are in the bed.
var domains = [...]string{"shop.test", "blog.test"}

// The users of each domain; the password of alice is pw-alice.
var users = [...]string{"alice", "bob", "carol", "dave", "erin", "frank", "grace", "mallory"}

// A Bed is a running pair of mail servers and the Internet around it.
type Bed struct {
	Dir        string // of the test; every user may enter
	Config     string // Postfix's configuration directory
	Submission string // host:port where users log in and send
	SMTP       string // host:port where strangers deliver
	Auth       string // path of Dovecot's SASL socket
	LMTP       string // path of Dovecot's LMTP socket
	MailLog    string // path of Postfix's log
	DovecotLog string // path of Dovecot's log

	t        testing.TB
	options  Options
	sinks    map[string]*sink
	deadPort int
	dead     int // socket that keeps deadPort
	dovecot  *process
	postfix  *process
	sessions []*Session
}

const (
	postfixDaemons = "/usr/lib/postfix/sbin"
	dovecotDaemons = "/usr/lib/dovecot"
)

// Available says why the servers cannot be started here, empty if they can.
func Available() (reason string) {
	if reason := dovecotAvailable(); reason != "" {
		return reason
	}
	return installed("/usr/sbin/postfix", "/usr/sbin/postmap", "/usr/sbin/postqueue", "/usr/sbin/postconf", "/usr/sbin/sendmail",
		postfixDaemons+"/master", postfixDaemons+"/smtpd")
}

// installed says which program is missing first, if any is.
func installed(programs ...string) (reason string) {
	for _, program := range programs {
		if _, err := os.Stat(program); err != nil {
			return program + " is not installed"
		}
	}
	return ""
}

// dovecotAvailable says why Dovecot cannot be started here, empty if it can.
func dovecotAvailable() (reason string) {
	if runtime.GOOS != "linux" {
		return "the mail servers are started on Linux only"
	}
	if os.Geteuid() != 0 {
		return "only root can start the mail servers"
	}
	if reason := installed("/usr/sbin/dovecot", dovecotDaemons+"/lmtp"); reason != "" {
		return reason
	}
	version, err := exec.Command("/usr/sbin/dovecot", "--version").Output()
	if err != nil || !bytes.HasPrefix(version, []byte("2.3.")) {
		return fmt.Sprintf("want Dovecot 2.3, have %q", bytes.TrimSpace(version))
	}
	return ""
}

// Start starts the servers and waits until they answer. It skips the test,
// with the reason, where they cannot be started, and stops them when the test
// ends.
func Start(t testing.TB, o Options) *Bed {
	t.Helper()
	if reason := Available(); reason != "" {
		t.Skip(reason)
	}
	b := startAround(t, o)
	if err := b.startPostfix(); err != nil {
		t.Fatalf("%v\n%s", err, b.logs())
	}
	return b
}

// startAround starts what a mail server needs: Dovecot and the Internet.
func startAround(t testing.TB, o Options) *Bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "bed")
	if err != nil {
		t.Fatal(err)
	}
	b := &Bed{t: t, options: o, Dir: dir}
	t.Cleanup(b.cleanup)
	if err := b.start(); err != nil {
		t.Fatalf("%v\n%s", err, b.logs())
	}
	return b
}

func (b *Bed) start() error {
	if err := enterable(b.Dir); err != nil {
		return err
	}
	b.Config = filepath.Join(b.Dir, "postfix")
	b.MailLog = filepath.Join(b.Dir, "maillog")
	b.DovecotLog = filepath.Join(b.Dir, "dovecot.log")
	b.Auth = filepath.Join(b.Dir, "auth")
	b.LMTP = filepath.Join(b.Dir, "lmtp")
	if err := b.startSinks(); err != nil {
		return err
	}
	if err := b.writeDovecot(); err != nil {
		return err
	}
	// smtpd gives up while the socket it authenticates at is missing, so
	// Dovecot is first.
	return b.startDovecot()
}

// enterable lets everybody into dir; Postfix and Dovecot work as users of
// their own.
func enterable(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for up := filepath.Dir(dir); up != "/"; up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("%s cannot be entered by everybody, and the mail servers' users must: set TMPDIR to a directory that can", up)
		}
	}
	return nil
}

func (b *Bed) startDovecot() (err error) {
	b.dovecot, err = launch("dovecot", "/usr/sbin/dovecot", "-F", "-c", filepath.Join(b.Dir, "dovecot.conf"))
	if err != nil {
		return err
	}
	return b.dovecot.ready(func() error {
		return errors.Join(reachable("unix", b.Auth), reachable("unix", b.LMTP))
	})
}

// startPostfix tries again if somebody else takes a port between our choosing
// it and Postfix's listening.
func (b *Bed) startPostfix() (err error) {
	for range 3 {
		if err = b.tryPostfix(); err == nil {
			return nil
		}
		err = errors.Join(err, b.postfix.stop())
	}
	return err
}

func (b *Bed) tryPostfix() (err error) {
	inbound, err := FreePort()
	if err != nil {
		return err
	}
	submission, err := FreePort()
	if err != nil {
		return err
	}
	b.SMTP = fmt.Sprintf("127.0.0.1:%d", inbound)
	b.Submission = fmt.Sprintf("127.0.0.1:%d", submission)
	if err := b.writePostfix(); err != nil {
		return err
	}
	return b.runPostfix()
}

func (b *Bed) runPostfix() (err error) {
	b.postfix, err = launch("postfix", postfixDaemons+"/master", "-c", b.Config, "-s")
	if err != nil {
		return err
	}
	return b.postfix.ready(func() error {
		return errors.Join(greets(b.Submission), greets(b.SMTP))
	})
}

// Restart kills both servers and starts them again, on the same ports: what
// they knew they know from their files.
func (b *Bed) Restart() error {
	if err := errors.Join(b.postfix.stop(), b.dovecot.stop()); err != nil {
		return err
	}
	if err := b.startDovecot(); err != nil || b.postfix == nil {
		return err
	}
	return b.runPostfix()
}

// Command prepares a command of Postfix (postqueue, postsuper, postmap, …) to
// be run on the bed's instance.
func (b *Bed) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join("/usr/sbin", name), args...)
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+b.Config, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	return cmd
}

// Stop stops the servers and waits until all their processes are gone. It may
// be called more than once; it is called when the test ends.
func (b *Bed) Stop() error {
	for _, s := range b.sessions {
		s.Close()
	}
	err := errors.Join(b.postfix.stop(), b.dovecot.stop())
	for _, domain := range slices.Sorted(maps.Keys(b.sinks)) {
		b.sinks[domain].close()
	}
	b.sinks = nil
	b.freeDeadPort()
	return err
}

func (b *Bed) cleanup() {
	if err := b.Stop(); err != nil {
		b.t.Error(err)
	}
	if b.t.Failed() {
		b.t.Log(b.logs())
	}
	if err := os.RemoveAll(b.Dir); err != nil {
		b.t.Error(err)
	}
}

// logs is the end of both servers' logs.
func (b *Bed) logs() string { return tail(b.MailLog) + tail(b.DovecotLog) }

// tail is the end of a log, under its name; empty if there is none.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.SplitAfter(string(text), "\n")
	lines = lines[max(0, len(lines)-60):]
	return fmt.Sprintf("--- %s\n%s", filepath.Base(path), strings.Join(lines, ""))
}

// reachable says whether somebody listens at the address.
func reachable(network, address string) error {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}
