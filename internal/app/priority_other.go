//go:build !linux

package app

// lowerPriority does nothing where threads have no priority of their own.
func lowerPriority() {}
