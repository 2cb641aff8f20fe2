package bed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// A process is a daemon kept in the foreground, with all that it starts: its
// session and process group are its own.
type process struct {
	name     string
	cmd      *exec.Cmd
	output   bytes.Buffer // what it said before it had a log
	gone     chan struct{}
	watchdog *exec.Cmd
}

// launch starts a program.
func launch(name, path string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), gone: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("bed: %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended does not matter, see stop
		close(p.gone)
	}()
	if err := p.watch(); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// watch starts a watchdog, which kills the daemon should the test's process
// die without stopping it: the pipe that it reads from closes then.
func (p *process) watch() error {
	dog := exec.Command("/bin/sh", "-c", `read never; kill -s KILL -- "-$0"`, strconv.Itoa(p.cmd.Process.Pid))
	dog.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if _, err := dog.StdinPipe(); err != nil {
		return err
	}
	if err := dog.Start(); err != nil {
		return fmt.Errorf("bed: watchdog: %w", err)
	}
	p.watchdog = dog
	return nil
}

// ready waits until works finds nothing wrong any more.
func (p *process) ready(works func() error) error {
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if err = works(); err == nil {
			return nil
		}
		select {
		case <-p.gone:
			return fmt.Errorf("bed: %s ended at once: %s", p.name, p.output.Bytes())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("bed: %s is not ready after 20 s: %w", p.name, err)
}

// stop kills the whole process group and waits until nothing of it runs any
// more. There is nothing to be orderly about: the directory goes away too.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	p.unwatch()
	group := p.cmd.Process.Pid
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		_ = syscall.Kill(-group, syscall.SIGKILL) // fails when nobody is left, which alive tells
		if !alive(group) {
			<-p.gone
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("bed: processes of %s (group %d) survive being killed", p.name, group)
}

// unwatch ends the watchdog before it would kill somebody who has got the
// daemon's number by then.
func (p *process) unwatch() {
	if p.watchdog != nil {
		_ = p.watchdog.Process.Kill()
		_ = p.watchdog.Wait()
		p.watchdog = nil
	}
}

// alive says whether a process of the group still runs. One that has ended and
// whose new parent has not yet asked how, a zombie, does not.
func alive(group int) bool {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false // the pattern is right
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// pid (name) state ppid pgrp …; the name may hold anything.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) > 2 && string(fields[2]) == strconv.Itoa(group) && fields[0][0] != 'Z' && fields[0][0] != 'X' {
			return true
		}
	}
	return false
}

// FreePort finds a loopback port that nobody listens on, below those that the
// system gives to outgoing connections, so that it is still free when a killed
// server comes back. No port is given twice.
func FreePort() (int, error) {
	for range 1000 {
		port := 10000 + (os.Getpid()*97+int(ports.Add(1)))%22000
		if bindable(port) {
			return port, nil
		}
	}
	return 0, errors.New("bed: found no free port in 1000 tries")
}

// bindable says whether a server may listen on the port. It does not listen to
// find out: a process that begins has a copy of the socket for a moment, and
// only a listening one would be in the server's way.
func bindable(port int) bool {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	syscall.CloseOnExec(fd)
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return false
	}
	return syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}) == nil
}

// ports counts the ports that were given away: none is given twice, as it may
// not be listened at yet; and each process begins elsewhere.
var ports atomic.Int64
