package app

import (
	"runtime"
	"syscall"
)

// useHugePages lets the heap's next size bytes lie in huge pages, where the
// kernel has them for who asks (madvise(2), MADV_HUGEPAGE; Linux's
// Documentation/admin-guide/mm/transhuge.rst). In a virtual machine a page
// fault can cost more than what is then done with the page, and a heap that
// grows without being collected meets one every 4 KiB.
//
// It grows the heap by that much, advises, and gives the memory, untouched,
// back to the heap. A kernel without huge pages refuses; nothing is lost then.
func useHugePages(size int) {
	grown := make([]byte, size) // large, so it begins at a page
	_ = syscall.Madvise(grown, syscall.MADV_HUGEPAGE)
	runtime.KeepAlive(grown)
	runtime.GC()
}
