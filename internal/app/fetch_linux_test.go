package app

import (
	"errors"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFetchMemory(t *testing.T) {
	page := make([]byte, 1<<20)
	if err := unix.Madvise(page, unix.MADV_POPULATE_WRITE); errors.Is(err, unix.EINVAL) {
		t.Skip("this kernel has no MADV_POPULATE_WRITE")
	}
	const size = 64 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as a replay does: memory that is free is not given back
	debug.FreeOSMemory()                             // what an earlier run has left
	before := resident(t)
	fetchMemory(size)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		got := resident(t) - before
		if got > size*9/10 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d MiB are there, want about %d", got>>20, size>>20)
		}
	}
}

// resident returns how many bytes of this process are in memory (proc(5),
// /proc/pid/statm).
func resident(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
