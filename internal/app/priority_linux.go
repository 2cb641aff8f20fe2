package app

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// below is how much nicer a thread is whose work can wait. Under load it has a
// third of another's share.
const below = 5

// lowerPriority binds the calling goroutine to its thread, to the end of both,
// and lowers the thread's priority (setpriority(2): on Linux a thread has its
// own). Programs that it starts would inherit that. Where the system forbids
// it, nothing changes.
func lowerPriority() {
	runtime.LockOSThread()
	inverted, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // the kernel's answer is 20 less the nice value
	if err != nil {
		return
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-inverted+below, 19))
}
