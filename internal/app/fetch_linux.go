package app

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fetchStep is how many bytes are asked for at once: a process that waits for
// its memory map waits no longer than that takes.
const fetchStep = 256 << 10

// fetchMemory has the kernel ready the heap's next size bytes while the program
// goes on (madvise(2), MADV_POPULATE_WRITE, Linux 5.14). A heap that grows
// without being collected meets a page fault every 4 KiB, which in a virtual
// machine can cost more than what is then done with the page. Huge pages would
// be fewer, but the memory that another program has just given back is not
// among them, and a host may have to find theirs first.
//
// An older kernel refuses; nothing is lost then.
func fetchMemory(size int) {
	grown := make([]byte, size) // large, so it begins at a page
	start := uintptr(unsafe.Pointer(unsafe.SliceData(grown)))
	runtime.KeepAlive(grown)
	runtime.GC() // the memory is the heap's again, and stays mapped
	go func() {
		for at := start; at < start+uintptr(size); at += fetchStep {
			if _, _, no := unix.Syscall(unix.SYS_MADVISE, at, fetchStep, unix.MADV_POPULATE_WRITE); no != 0 {
				return
			}
		}
	}()
}
