package bed

import "syscall"

// detached gives a daemon a session of its own, and a signal to end should the
// test's process die without stopping it.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
}
