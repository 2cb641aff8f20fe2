//go:build !linux

package app

// useHugePages does nothing where the kernel is not Linux.
func useHugePages(int) {}
