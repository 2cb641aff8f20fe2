//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ask asks the gate about a new recipient of an account, as Postfix does.
func ask(t *testing.T, gate, login string) (action string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", gate)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	fmt.Fprintf(conn, "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\ninstance=%x\nsasl_username=%s\nsender=%s\nrecipient=r@ok.test\nclient_address=127.0.0.1\n\n",
		time.Now().UnixNano(), login, login)
	answer := make([]byte, 1024)
	n, err := conn.Read(answer)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.TrimPrefix(string(answer[:n]), "action=")), nil
}

// blocked says whether the gate refuses an account.
func (s *service) blocked(t *testing.T, login string) bool {
	t.Helper()
	action, err := ask(t, s.gate, login)
	return err == nil && strings.HasPrefix(action, "REJECT")
}

// A place is a service that reads one log that the test writes.
type place struct {
	*service
	path string
	hook *hook
}

// newPlace prepares one; the log has alice's and bob's past.
func newPlace(t *testing.T, o setup) *place {
	t.Helper()
	dir := t.TempDir()
	return newPlaceIn(t, filepath.Join(dir, "state"), o)
}

func newPlaceIn(t *testing.T, state string, o setup) *place {
	t.Helper()
	var p past
	p.client = "office[198.51.100.20]"
	p.calm(time.Now(), pastDays, alice)
	p.calm(time.Now(), pastDays, bob)
	pl := &place{path: p.write(t), hook: newHook(t)}
	o.Logs = []string{pl.path}
	o.Notify = pl.hook.section()
	pl.service = newServiceIn(t, t.TempDir(), state, o)
	return pl
}

// write appends to the log.
func (p *place) write(t *testing.T, text string) {
	t.Helper()
	f, err := os.OpenFile(p.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// hijack is what Postfix logs of an account that has just been hijacked, by
// somebody from elsewhere.
func hijack(login string) string {
	p := past{client: "unknown[203.0.113.7]"}
	p.n = int(login[0]) * 1000
	now := time.Now().Add(-5 * time.Second)
	for n := range 20 {
		p.message(now.Add(time.Duration(n)*200*time.Millisecond), login,
			fmt.Sprintf("x%d@elsewhere%d.test", n, n), fmt.Sprintf("y%d@elsewhere%d.test", n, n+50), fmt.Sprintf("z%d@ok.test", n))
	}
	return p.text.String()
}

func TestUnreadableLog(t *testing.T) {
	t.Parallel()
	p := newPlace(t, setup{})
	away := p.path + ".away"
	if err := errors.Join(os.Rename(p.path, away), os.Mkdir(p.path, 0o700)); err != nil { // a directory: not even root can read it as a log
		t.Fatal(err)
	}
	p.start()
	wait(t, "the health to say so", func() bool {
		h := p.health()
		for part, state := range h.Parts {
			if strings.Contains(part, p.path) && state != "ok" {
				return !h.OK
			}
		}
		return false
	})
	wait(t, "people to be told", func() bool { return p.hook.told(p.path) })
	if text := p.output(); !strings.Contains(text, p.path) {
		t.Errorf("the log is not named:\n%s", text)
	}
	if action, err := ask(t, p.gate, alice); err != nil || action != "DUNNO" {
		t.Errorf("the gate says %q, %v", action, err)
	}
	if err := errors.Join(os.Remove(p.path), os.Rename(away, p.path)); err != nil {
		t.Fatal(err)
	}
	p.write(t, hijack(alice))
	wait(t, "the block, once the log can be read", func() bool { return p.blocked(t, alice) })
	wait(t, "the health to be good again", func() bool { return p.health().OK })
}

func TestHostileLines(t *testing.T) {
	t.Parallel()
	p := newPlace(t, setup{})
	p.start()
	begun := hijack(alice)
	half := strings.Index(begun[len(begun)/2:], "\n") + len(begun)/2 + 1
	p.write(t, begun[:half])
	p.write(t, strings.Repeat("x", 1<<20)+"\n")                                                                                     // far too long
	p.write(t, "Nov 22 08:00:00 mx1 postfix/smtpd[1]: "+strings.Repeat("A: client=", 6000)+"\n")                                    // nearly too long
	p.write(t, string([]byte{0, 1, 2, 0xff, 0xfe, 0x80, '\r', 0x1b, '[', '2', 'J'})+"\n\n\n")                                       // binary
	p.write(t, "Nov 22 08:00:00 mx1 postfix/cleanup[1]: 4b00000001z1b2C: message-id=<caf\xe9@l\xe4tin.test>\n")                     // Latin-1
	p.write(t, "Nov 31 25:61:61 mx1 postfix/qmgr[1]: 4b0")                                                                          // cut, of a day that is none
	p.write(t, "\nNov 22 08:00:00 mx1 postfix/smtpd[9]: 4bZ: client=x[1.2.3.4], sasl_username="+bob+", sasl_username=eve@x\n")      // imitates
	p.write(t, "Nov 22 08:00:00 mx1 postfix/smtpd[9]: NOQUEUE: reject: RCPT from x[1.2.3.4]: 554 sasl_username="+bob+"; from=<>\n") // imitates
	p.write(t, begun[half:])
	wait(t, "the block", func() bool { return p.blocked(t, alice) })
	info, err := os.Stat(p.path)
	if err != nil {
		t.Fatal(err)
	}
	p.read(t, p.path, info.Size())
	if p.blocked(t, bob) || p.action(bob) != "" {
		t.Error("the neighbour pays for what strangers wrote")
	}
	if h := p.health(); !h.OK {
		t.Errorf("not well: %+v", h)
	}
}

// full makes a small file system that can be filled, of at most 32 MB, or skips.
func full(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no room on the file system of dir and returns how to make some.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, make([]byte, 48<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want a full disk", err)
	}
	return func() {
		if err := os.Remove(junk); err != nil {
			t.Fatal(err)
		}
	}
}

// Nothing that cannot be written down is done, but the account is slowed and
// people are told; and once there is room, the block comes.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := full(t, "8m")
	p := newPlaceIn(t, filepath.Join(dir, "state"), setup{Gates: "throttle_burst: 1\nthrottle_every: 1h\n"})
	p.start()
	p.must("block", carol)
	wait(t, "the past", func() bool { return strings.Contains(p.must("accounts"), alice) })
	free := fill(t, dir)
	p.write(t, hijack(alice))
	wait(t, "the database to be found full", func() bool { return !p.health().OK })
	wait(t, "people to be told without the outbox", func() bool { return p.hook.told(alice, "not written down") })
	wait(t, "the account to be slowed", func() bool {
		action, err := ask(t, p.gate, alice)
		return err == nil && strings.HasPrefix(action, "DEFER") // no queue is configured, so nothing could be let out again
	})
	if !p.blocked(t, carol) {
		t.Error("an older block is gone")
	}
	if action, err := ask(t, p.gate, bob); err != nil || action != "DUNNO" {
		t.Errorf("a neighbour is told %q, %v", action, err)
	}
	free()
	wait(t, "the block, once there is room", func() bool { return p.blocked(t, alice) })
	wait(t, "the health to be good again", func() bool { return p.health().OK })
	wait(t, "the alert", func() bool { return p.hook.told(alice, "blocked") })
	p.kill()
	p.start() // and it was written down
	if !p.blocked(t, alice) || !p.blocked(t, carol) {
		t.Error("not blocked after a restart")
	}
}

// A database that cannot be written at the start is said to be so, by name;
// what was written to the log meanwhile is found once it can.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := full(t, "8m")
	p := newPlaceIn(t, filepath.Join(dir, "state"), setup{})
	p.start()
	p.must("block", carol)
	p.stop()
	remount := func(flags uintptr) {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=8m"); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	p.launch()
	select {
	case <-p.gone:
	case <-time.After(patience):
		t.Fatal("serve runs without a database")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !containsAll(p.output(), []string{filepath.Join(dir, "state"), "read-only"}) {
		t.Errorf("exit %d, want 1 and what to do about the database:\n%s", code, p.output())
	}
	remount(0)
	p.write(t, hijack(alice))
	p.start()
	wait(t, "the block", func() bool { return p.blocked(t, alice) })
	if !p.blocked(t, carol) {
		t.Error("an older block is gone")
	}
}

// An alert waits for a dead server, over a restart too.
func TestDeadAlertServer(t *testing.T) {
	t.Parallel()
	p := newPlace(t, setup{})
	p.hook.down()
	p.start()
	p.write(t, hijack(alice))
	wait(t, "the block", func() bool { return p.blocked(t, alice) })
	wait(t, "an attempt to tell people", func() bool { return strings.Contains(p.output(), "people could not be told") })
	p.kill()
	p.start()
	p.hook.up()
	wait(t, "the alert", func() bool { return p.hook.told(alice, "blocked") })
	if n := bytes.Count([]byte(p.output()), []byte("e2e-webhook-secret")); n > 0 {
		t.Error("the secret is in the log")
	}
}

// A postmap that hangs costs its time limit, and the gate blocks meanwhile.
func TestHangingPostmap(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	// exec, so that what is killed is what hangs
	if err := os.WriteFile(filepath.Join(bin, "postmap"), []byte("#!/bin/sh\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, setup{Postfix: fmt.Sprintf("sasl_access: %s/sasl_access\ntable_type: hash\nconfig_dir: %s\ntimeout: 1s\n", t.TempDir(), bin)})
	p.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	p.start()
	p.write(t, hijack(alice))
	wait(t, "the gate to block", func() bool { return p.blocked(t, alice) })
	wait(t, "the outcome to say so", func() bool {
		out, _, code := p.command("why", alice)
		return code == 0 && strings.Contains(out, "FAILED") && strings.Contains(out, "postmap")
	})
	wait(t, "people to be told", func() bool { return p.hook.told(alice, "postmap") })
	out, errs, code := p.command("block", bob)
	if code != 1 || !strings.Contains(out+errs, "postmap") {
		t.Errorf("block by hand: exit %d, %s%s", code, out, errs)
	}
	if !p.blocked(t, bob) {
		t.Error("not blocked by hand")
	}
}

func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	s := newService(t, setup{Mode: "forceful", Logs: []string{"/x", "/x"}, Rules: "blast_max: 0\nblastmax: 1\n", Notify: "from_action: shout\n"})
	s.launch()
	select {
	case <-s.gone:
	case <-time.After(patience):
		t.Fatal("serve runs with it")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{s.config, "forceful", "listed twice", "blast_max", "blastmax", "shout"} {
		if !strings.Contains(s.output(), want) {
			t.Errorf("%q is not among the mistakes:\n%s", want, s.output())
		}
	}
}
