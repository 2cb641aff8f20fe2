package dnsclient

import (
	"fmt"
	"net"

	"github.com/miekg/dns"
)

// SystemFile is where the system names its resolvers (resolv.conf(5)).
const SystemFile = "/etc/resolv.conf"

// SystemResolvers reads the resolvers that a file such as [SystemFile] names,
// each as ADDRESS:PORT for Client.Upstreams.
func SystemResolvers(path string) ([]string, error) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("dnsclient: the system's resolvers: %w", err)
	}
	var servers []string
	for _, server := range c.Servers {
		servers = append(servers, net.JoinHostPort(server, c.Port))
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("dnsclient: %s names no resolver", path)
	}
	return servers, nil
}
