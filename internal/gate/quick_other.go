//go:build !linux

package gate

import "net"

// quick returns l where connections cannot be answered as they are accepted.
func (x *Exim) quick(l net.Listener) net.Listener { return l }
