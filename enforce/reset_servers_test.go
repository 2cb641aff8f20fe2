package enforce

import (
	"bufio"
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// serverDir is a directory that the users of servers may enter; t.TempDir is
// not.
func serverDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "reset")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// findProgram skips the test if a program is not installed.
func findProgram(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path := program(name); strings.Contains(path, "/") {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	t.Skipf("%s is not installed", names[0])
	return ""
}

// asUser is how to run a program as a system user; as who we are, if we are
// not root.
func asUser(t *testing.T, name string) (*syscall.SysProcAttr, int) {
	t.Helper()
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		return attr, os.Getuid()
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Skipf("there is no user %s: %v", name, err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, uid
}

// startServer starts a program that stays in the foreground, waits until it
// works, and ends it with all that it started when the test ends.
func startServer(t *testing.T, attr *syscall.SysProcAttr, works func() error, argv ...string) {
	t.Helper()
	var output bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.Dir = &output, &output, attr, "/"
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-time.After(5 * time.Second):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-gone
	})
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-gone:
			t.Fatalf("%s ended at once: %s", argv[0], output.Bytes())
		default:
		}
		if err = works(); err == nil {
			return
		}
	}
	t.Fatalf("%s is not ready: %v", argv[0], err)
}

func runAs(t *testing.T, attr *syscall.SysProcAttr, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr, cmd.Dir = attr, "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// A testDB is a database server of the test's own, at a socket.
type testDB struct {
	driver, dsn string
	socketDir   string
	*sql.DB
}

func startMariaDB(t *testing.T) testDB {
	t.Helper()
	server, install := findProgram(t, "mariadbd"), findProgram(t, "mariadb-install-db")
	attr, uid := asUser(t, "nobody")
	dir := serverDir(t)
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "sock")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Chown(data, uid, -1), os.Chown(dir, uid, -1)); err != nil {
		t.Fatal(err)
	}
	runAs(t, attr, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	db := testDB{driver: "mysql", dsn: "root@unix(" + socket + ")/mysql", socketDir: dir}
	db.open(t)
	startServer(t, attr, db.Ping, server, "--no-defaults", "--datadir="+data, "--socket="+socket, "--skip-networking", "--skip-name-resolve",
		"--pid-file="+filepath.Join(dir, "pid"), "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M", "--performance-schema=off")
	db.exec(t, "CREATE DATABASE mail CHARACTER SET utf8mb4")
	db.dsn = "root@unix(" + socket + ")/mail"
	db.open(t)
	return db
}

func startPostgres(t *testing.T) testDB {
	t.Helper()
	initdb := findProgram(t, "initdb", "/usr/lib/postgresql/15/bin/initdb", "/usr/lib/postgresql/17/bin/initdb")
	if resolved, err := filepath.EvalSymlinks(initdb); err == nil {
		initdb = resolved
	}
	server := findProgram(t, filepath.Join(filepath.Dir(initdb), "postgres"))
	attr, uid := asUser(t, "nobody")
	dir := serverDir(t)
	if err := os.Chown(dir, uid, -1); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	runAs(t, attr, initdb, "-D", data, "-U", "root", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
	db := testDB{driver: "postgres", dsn: "host=" + dir + " user=root dbname=postgres sslmode=disable", socketDir: dir}
	db.open(t)
	startServer(t, attr, db.Ping, server, "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB")
	return db
}

func (d *testDB) open(t *testing.T) {
	t.Helper()
	p := SQLPasswords{Driver: d.driver, DSN: d.dsn}
	db, _, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d.DB = db
}

func (d testDB) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := d.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// A testDovecot is a Dovecot of the test's own, with IMAP.
type testDovecot struct {
	t            *testing.T
	dir          string
	config, imap string // the configuration, and host:port
	sessions     DovecotSessions
}

const resetDovecotConf = `base_dir = DIR/run
log_path = DIR/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_username_chars =
auth_failure_delay = 0
auth_verbose = yes
mail_location = maildir:DIR/mail/%n
first_valid_uid = 1
userdb {
  driver = static
  args = uid=mail gid=mail home=DIR/mail/%n
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  inet_listener imap {
    address = 127.0.0.1
    port = PORT
  }
  inet_listener imaps {
    port = 0
  }
}
`

// startResetDovecot starts Dovecot with the given passdb and more settings, in
// which DIR stands for its directory.
func startResetDovecot(t *testing.T, dir, settings string) *testDovecot {
	t.Helper()
	server := findProgram(t, "dovecot")
	findProgram(t, "doveadm")
	findProgram(t, "/usr/lib/dovecot/imap")
	if os.Geteuid() != 0 {
		t.Skip("only root can start Dovecot")
	}
	_, uid := asUser(t, "mail")
	port := strconv.Itoa(freeTestPort(t))
	d := &testDovecot{t: t, dir: dir, config: filepath.Join(dir, "dovecot.conf"), imap: "127.0.0.1:" + port}
	d.sessions = DovecotSessions{ConfigFile: d.config}
	text := strings.NewReplacer("DIR", dir, "PORT", port).Replace(resetDovecotConf + settings)
	mail := filepath.Join(dir, "mail")
	if err := errors.Join(os.WriteFile(d.config, []byte(text), 0o644), os.Mkdir(mail, 0o755), os.Chown(mail, uid, -1)); err != nil {
		t.Fatal(err)
	}
	works := func() error {
		conn, err := net.Dial("tcp", d.imap)
		if err == nil {
			conn.Close()
		}
		return err
	}
	startServer(t, &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}, works, server, "-F", "-c", d.config)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("dovecot: %s", log[max(0, len(log)-8000):])
		}
	})
	return d
}

func freeTestPort(t *testing.T) int {
	t.Helper()
	port, err := bed.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// An imapSession is a client that is logged in.
type imapSession struct {
	net.Conn
	r *bufio.Reader
}

var errLogin = errors.New("refused")

// login logs in. The name and the password are sent as literals, so that they
// may hold anything.
func (d *testDovecot) login(name, password string) (*imapSession, error) {
	conn, err := net.DialTimeout("tcp", d.imap, 10*time.Second)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	s := &imapSession{conn, bufio.NewReader(conn)}
	d.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "a LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(name), name, len(password), password)
	for {
		line, err := s.r.ReadString('\n')
		switch {
		case err != nil:
			return nil, err
		case strings.HasPrefix(line, "a OK"):
			return s, nil
		case strings.HasPrefix(line, "a "):
			conn.Close()
			return nil, fmt.Errorf("%w: %s", errLogin, strings.TrimSpace(line))
		}
	}
}

// mustLogin logs in and stays so until the end of the test.
func (d *testDovecot) mustLogin(name, password string) *imapSession {
	d.t.Helper()
	s, err := d.login(name, password)
	if err != nil {
		d.t.Fatalf("%q cannot log in: %v", name, err)
	}
	return s
}

// wantLogin checks whether a password is taken. A passwd-file is looked at
// once a second.
func (d *testDovecot) wantLogin(name, password string, want bool) {
	d.t.Helper()
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var s *imapSession
		if s, err = d.login(name, password); err == nil {
			s.Close()
		}
		if err != nil && !errors.Is(err, errLogin) {
			d.t.Fatal(err)
		}
		if (err == nil) == want {
			return
		}
	}
	d.t.Errorf("login of %.40q: %v, want success %v", name, err, want)
}

// open reports whether the session still answers.
func (s *imapSession) open() bool {
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprint(s, "b NOOP\r\n"); err != nil {
		return false
	}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "* BYE") {
			return false
		}
		if strings.HasPrefix(line, "b OK") {
			return true
		}
	}
}

// ended waits until the server closes the session.
func (s *imapSession) ended(t *testing.T) {
	t.Helper()
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	for {
		if _, err := s.r.ReadString('\n'); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the session is still open")
			}
			return
		}
	}
}

func writeTestFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
