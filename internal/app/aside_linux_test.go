package app

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestAside(t *testing.T) {
	niceness := func() int {
		inverted, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Fatal(err)
		}
		return 20 - inverted
	}
	before := niceness()
	a := startAside()
	defer a.stop()
	var first, second, inside int
	a.do(func() { first, inside = unix.Gettid(), niceness() })
	a.do(func() { second = unix.Gettid() })
	if want := min(before+below, 19); inside != want {
		t.Errorf("its thread has the nice value %d, want %d", inside, want)
	}
	if first != second || first == unix.Gettid() {
		t.Errorf("ran on the threads %d and %d, called from %d; want one of its own", first, second, unix.Gettid())
	}
	if got := niceness(); got != before {
		t.Errorf("the caller's thread has the nice value %d, want %d as before", got, before)
	}
	done := false
	(*aside)(nil).do(func() { done = true })
	if !done {
		t.Error("without a thread of its own nothing was done")
	}
}
