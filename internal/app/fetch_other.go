//go:build !linux

package app

// fetchMemory does nothing where the kernel is not Linux.
func fetchMemory(int) {}
