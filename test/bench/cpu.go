package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// processTime is the processor time that a process has used, or 0 if there is
// none with that ID.
func processTime(pid int) time.Duration {
	// The kernel's name for that clock; see clock_getcpuclockid(3).
	clock := ^int32(pid)<<3 | 2
	var t unix.Timespec
	if pid == 0 || unix.ClockGettime(clock, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// cpuTime is the processor time that the processes of a group have used, with
// that of the children of its leader that have ended. It counts in hundredths
// of a second for each process.
func cpuTime(group int) (time.Duration, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	ticks, found := 0, false
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile, and its parent has its time
		}
		// pid (name) state ppid pgrp … utime stime cutime cstime …; the name may hold anything.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 15 || string(fields[2]) != strconv.Itoa(group) {
			continue
		}
		leader := path == fmt.Sprintf("/proc/%d/stat", group)
		found = found || leader
		for i, field := range fields[11:15] {
			n, err := strconv.Atoi(string(field))
			if err != nil {
				return 0, err
			}
			if i < 2 || leader {
				ticks += n
			}
		}
	}
	if !found {
		return 0, fmt.Errorf("no process %d that leads a group", group)
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
