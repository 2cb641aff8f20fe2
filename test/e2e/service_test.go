//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// patience is how long anything may take to happen on a busy machine.
const patience = 30 * time.Second

// wait polls until happened, and fails the test after patience.
func wait(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// freePort is a loopback address that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	port, err := bed.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// A setup is the part of the configuration file that tests vary.
type setup struct {
	Mode    string // enforce if empty
	Logs    []string
	Gate    string // host:port of the policy service; a free port if empty
	Postfix string // the postfix section's lines, if any
	Rules   string // further lines of the rules section
	Gates   string // further lines of the gate section
	Notify  string // the notify section's lines
	Agents  string // host:port where agents report, of a hub
	Hub     string // host:port of the hub, of an agent
	DNSBL   string // the dnsbl section's lines
}

const token = "e2e-token-e2e-token"

func (s setup) yaml(state, api string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mode: %s\nstate: %s\nhostname: mx1.hosting.test\n", orText(s.Mode, "enforce"), state)
	if len(s.Logs) == 0 {
		fmt.Fprintf(&b, "logs: []\n")
	} else {
		fmt.Fprintf(&b, "logs:\n")
	}
	for _, path := range s.Logs {
		fmt.Fprintf(&b, "  - path: %s\n", path)
	}
	fmt.Fprintf(&b, "gate:\n  listen: [\"inet:%s\"]\n%s", s.Gate, indent(s.Gates))
	fmt.Fprintf(&b, "api:\n  listen: %s\n  token: %s\n", api, token)
	if s.Agents != "" {
		fmt.Fprintf(&b, "agents: {listen: %q}\n", s.Agents)
	}
	if s.Hub != "" {
		fmt.Fprintf(&b, "hub: {address: %q}\n", s.Hub)
	}
	for _, section := range []struct{ name, lines string }{{"postfix", s.Postfix}, {"rules", s.Rules}, {"notify", s.Notify}, {"dnsbl", s.DNSBL}} {
		if section.lines != "" {
			fmt.Fprintf(&b, "%s:\n%s", section.name, indent(section.lines))
		}
	}
	return b.String()
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// indent puts lines one step below a section's name.
func indent(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		b.WriteString("  " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

// A service is `vedetta serve` as a process, which may be killed and started
// again.
type service struct {
	t       testing.TB
	dir     string // its state
	config  string // path of the configuration file
	gate    string // host:port
	env     []string
	program string // another build than the one under test, if given
	role    string // agent; serve if empty
	web.Client

	said   string // path of its standard error, of all its lives
	before int    // bytes of it that are of earlier lives
	cmd    *exec.Cmd
	gone   chan struct{}
}

// newService writes the configuration; start starts it.
func newService(t testing.TB, o setup) *service {
	t.Helper()
	dir := t.TempDir()
	return newServiceIn(t, dir, filepath.Join(dir, "state"), o)
}

func newServiceIn(t testing.TB, dir, state string, o setup) *service {
	t.Helper()
	if o.Gate == "" {
		o.Gate = freePort(t)
	}
	api := freePort(t)
	s := &service{t: t, dir: state, config: filepath.Join(dir, "vedetta.yaml"), gate: o.Gate, said: filepath.Join(dir, "stderr")}
	s.Client = web.Client{Base: "http://" + api, Token: token}
	if err := os.WriteFile(s.config, []byte(o.yaml(state, api)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("vedetta said at last:\n%s", tail(s.output(), 60))
		}
	})
	return s
}

// output is everything that the service wrote to standard error so far.
func (s *service) output() string {
	text, err := os.ReadFile(s.said)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Error(err)
	}
	return string(text)
}

func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// launch starts the process and does not wait until it listens.
func (s *service) launch() {
	s.t.Helper()
	out, err := os.OpenFile(s.said, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	s.before = len(s.output())
	cmd := exec.Command(orText(s.program, binary), orText(s.role, "serve"), "-c", s.config)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is asked of ProcessState
		close(gone)
	}()
	s.cmd, s.gone = cmd, gone
}

// start starts the process and waits until it watches.
func (s *service) start() {
	s.t.Helper()
	s.launch()
	s.watching()
}

// watching waits until the process says that it watches.
func (s *service) watching() {
	s.t.Helper()
	wait(s.t, "vedetta to watch", func() bool {
		select {
		case <-s.gone:
			s.t.Fatalf("vedetta ended at once: %s\n%s", s.cmd.ProcessState, s.output())
		default:
		}
		return strings.Contains(s.output()[s.before:], "msg=watching")
	})
}

// kill ends the process as a crash would, if it runs.
func (s *service) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.gone
	s.cmd = nil
}

// stop ends it as an operator would and returns its exit code.
func (s *service) stop() int {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(patience):
		s.t.Fatal("vedetta does not stop")
	}
	code := s.cmd.ProcessState.ExitCode()
	s.cmd = nil
	return code
}

func (s *service) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// command runs a command against the service as an operator does.
func (s *service) command(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "-c", s.config)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that has to succeed.
func (s *service) must(args ...string) string {
	s.t.Helper()
	out, errs, code := s.command(args...)
	if code != 0 {
		s.t.Fatalf("vedetta %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// action is what is in force on an account, empty for nothing.
func (s *service) action(account string) string {
	rows, err := s.Accounts(s.t.Context(), 1000)
	if err != nil {
		return ""
	}
	for _, r := range rows {
		if r.Account == account {
			return r.Action
		}
	}
	return ""
}

// health is what the service says of itself; the zero Health while it says
// nothing.
func (s *service) health() web.Health {
	h, err := s.Health(s.t.Context())
	if err != nil {
		return web.Health{}
	}
	return h
}

// open opens the database beside the service.
func (s *service) open() *store.DB {
	s.t.Helper()
	db, err := store.Open(s.t.Context(), filepath.Join(s.dir, "vedetta.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { db.Close() })
	return db
}

// read waits until a log is read, and what it led to written down, up to
// offset.
func (s *service) read(t testing.TB, path string, offset int64) {
	t.Helper()
	db := s.open()
	wait(t, fmt.Sprintf("%s to be read up to byte %d", path, offset), func() bool {
		positions, err := db.LoadPositions(t.Context())
		var p mailq.Position
		info, statErr := os.Stat(path)
		return err == nil && statErr == nil && json.Unmarshal(positions[path], &p) == nil &&
			p.Offset >= offset && p.Inode == info.Sys().(*syscall.Stat_t).Ino
	})
}
