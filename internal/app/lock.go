package app

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// lockPatience is how long the lock of a service that was killed may outlive
// it: a command that it was just starting holds a copy until it runs.
const lockPatience = time.Second

// makeState makes the state directory. Mail servers may enter it under their own users, to
// read the tables below it.
func makeState(dir string) error {
	if err := os.MkdirAll(dir, 0o751); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// ownState makes the state directory for a command that leaves something there for the
// service. What root left in a directory of another user's would be closed to the service.
func ownState(dir string) error {
	if err := makeState(dir); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	name := strconv.Itoa(int(owner.Uid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fmt.Errorf("state directory: %s is of the user %s, who could not read what root makes there: run this as that user, with runuser -u %s -- vedetta …", dir, name, name)
}

// lock makes sure that one service at a time uses a state directory. The
// kernel lets go of it when the process ends, however it ends.
func lock(dir string) (release func(), err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another vedetta serve; stop that one, or give this one a state directory of its own", dir)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
