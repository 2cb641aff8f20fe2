package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/loggen"
)

// An ownService is a `vedetta serve` of the benchmark's own, in a directory
// that goes away with it.
type ownService struct {
	dir   string
	cmd   *exec.Cmd
	said  bytes.Buffer // until it ended
	ended chan error
}

func newService() (*ownService, error) {
	dir, err := os.MkdirTemp("", "vedetta-bench-")
	if err != nil {
		return nil, err
	}
	return &ownService{dir: dir, ended: make(chan error, 1)}, nil
}

// startGate starts a service with the gate of o's kind, which knows many
// accounts and blocks some of them. It returns when the gate answers, and adds
// to o where that is and what log the service follows.
func startGate(ctx context.Context, o *gateOptions, out io.Writer) (*ownService, error) {
	s, err := newService()
	if err != nil {
		return nil, err
	}
	if err := s.startGate(ctx, o, out); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *ownService) startGate(ctx context.Context, o *gateOptions, out io.Writer) error {
	if err := s.load(ctx, o.accounts, o.blocked, out); err != nil {
		return err
	}
	o.feed = filepath.Join(s.dir, "mail.log")
	if err := os.WriteFile(o.feed, nil, 0o600); err != nil {
		return err
	}
	listen := "inet:" + o.kind.listen
	o.addr = o.kind.listen
	if _, _, err := net.SplitHostPort(o.addr); err != nil {
		o.addr = filepath.Join(s.dir, o.kind.listen)
		listen = "unix:" + o.addr
	}
	config := fmt.Sprintf("mode: enforce\nlogs: [{path: %s}]\ngate: {%s: [%q]}\n", o.feed, o.kind.key, listen)
	if o.kind.key != "listen" {
		config = strings.Replace(config, "gate: {", "gate: {listen: [], ", 1) // it has a default
	}
	if err := s.start(ctx, config, o.addr); err != nil {
		return err
	}
	o.pid = s.cmd.Process.Pid
	return nil
}

// apiAddr is where the service's own figures are.
const apiAddr = "127.0.0.1:29190"

// start builds vedetta and starts it with a configuration, to which it adds
// its directory and interface. It returns when somebody listens at addrs.
func (s *ownService) start(ctx context.Context, config string, addrs ...string) error {
	config += fmt.Sprintf("state: %s\napi: {listen: %q}\n", s.dir, apiAddr)
	file := filepath.Join(s.dir, "vedetta.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	binary := filepath.Join(s.dir, "vedetta")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/vedetta")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	s.cmd = exec.Command(binary, "serve", "-c", file)
	s.cmd.Stderr = &s.said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := startSlack(s.cmd); err != nil {
		return err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	for _, addr := range addrs {
		if err := s.answers(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

// timerSlack is how late a timer of the service may be, as packaging/vedetta.service
// has it.
const timerSlack = time.Millisecond

// startSlack starts cmd, whose timers may be late by timerSlack. A process
// inherits that from the thread that starts it.
func startSlack(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0)
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack.Nanoseconds()), 0, 0, 0); err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	return cmd.Start()
}

// answers waits until somebody listens at addr.
func (s *ownService) answers(ctx context.Context, addr string) error {
	for range 1200 {
		conn, err := new(net.Dialer).DialContext(ctx, network(addr), addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("vedetta serve ended: %w\n%s", err, s.said.Bytes())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New("vedetta serve does not answer at its gate within two minutes")
}

// stop ends the service and says how much memory it held at most.
func (s *ownService) stop() (peak int64) {
	if s.cmd != nil && s.cmd.Process != nil {
		s.cmd.Process.Signal(syscall.SIGTERM)
		<-s.ended
		if usage, ok := s.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			peak = usage.Maxrss << 10
		}
	}
	os.RemoveAll(s.dir)
	return peak
}

// load fills the service's database.
func (s *ownService) load(ctx context.Context, accounts, blocked int, out io.Writer) error {
	begun := time.Now()
	if err := load(ctx, filepath.Join(s.dir, "vedetta.db"), accounts, blocked); err != nil {
		return fmt.Errorf("loading accounts: %w", err)
	}
	syscall.Sync()       // what loading wrote is not to be written while we measure,
	debug.FreeOSMemory() // nor its memory to be collected
	fmt.Fprintf(out, "%d accounts known, %d blocked: loaded in %v\n", accounts, blocked, time.Since(begun).Round(time.Second))
	return nil
}

// load fills a database with accounts that have each sent a message, and
// blocks the first of them.
func load(ctx context.Context, path string, accounts, blocked int) error {
	db, err := store.Open(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	d := detector.New(detector.Default(), nil)
	now := time.Now()
	var batch store.Batch
	flush := func() error {
		d.Changed(func(account mailq.Account, state []byte) {
			batch.Accounts = append(batch.Accounts, store.AccountState{Account: string(account), State: append([]byte(nil), state...)})
		})
		_, err := db.Commit(ctx, batch)
		batch = store.Batch{}
		return err
	}
	for i := range accounts {
		account := mailq.Account(loggen.Options{}.Login(i))
		d.Observe(&mailq.Event{
			Time: now.Add(-time.Hour), Kind: mailq.Submitted, Counts: true, Account: account, Message: uint64(i) + 1, Rcpts: 1, Size: 2000,
			Client: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Sender: string(account),
			New: []mailq.Recipient{{Hash: uint64(i) * 0x9e3779b97f4a7c15, Domain: "shop.test"}},
		})
		if i < blocked {
			batch.Decisions = append(batch.Decisions, rules.Decision{
				ID: fmt.Sprintf("bench-%d", i), Rule: "operator", Subject: string(account), Action: rules.Block, Time: now,
				Until: now.Add(24 * time.Hour), Why: "benchmark", Enforce: true,
			})
		}
		if (i+1)%10_000 == 0 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
