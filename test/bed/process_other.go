//go:build !linux

package bed

import "syscall"

// detached gives a daemon a session of its own. [Available] keeps it from
// being needed here.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
