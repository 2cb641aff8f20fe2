//go:build !linux

package gate

import "net"

// eager returns conn where the kernel cannot be told to acknowledge at once.
func eager(conn net.Conn) net.Conn { return conn }
