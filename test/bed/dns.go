package bed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A DNSZone is one block list as rbldnsd serves it.
type DNSZone struct {
	Name string // of the zone: bl.spamcop.net
	Type string // of its data, see rbldnsd(8): ip4set, ip6trie, dnset, generic, …
	Data string // as in its file, without the $SOA and $NS lines, which Start writes
}

// A DNS is an Unbound that resolves for this machine alone, and behind it an
// rbldnsd with block lists. It knows nothing of the Internet: what is not in
// one of the zones gets no answer (SERVFAIL), but for a few names that a
// resolver's self-test asks about, and for com. and example., which are empty.
type DNS struct {
	Dir      string
	Resolver string // host:port of Unbound
	Lists    string // address of rbldnsd, on port 53; the zones' servers resolve to it

	t       testing.TB
	zones   []DNSZone
	writes  int
	unbound *process
	rbldnsd *process
}

const (
	unboundProgram = "/usr/sbin/unbound"
	rbldnsdProgram = "/usr/sbin/rbldnsd"
)

// DNSAvailable says why the DNS servers cannot be started here, empty if they
// can.
func DNSAvailable() (reason string) {
	if runtime.GOOS != "linux" {
		return "the DNS servers are started on Linux only"
	}
	if os.Geteuid() != 0 {
		return "only root can start the DNS servers, one of them on port 53 of a loopback address"
	}
	return installed(unboundProgram, rbldnsdProgram)
}

// StartDNS starts the servers and waits until they answer. It skips the test,
// with the reason, where they cannot be started, and stops them when the test
// ends. More lines go to the server section of Unbound's configuration.
func StartDNS(t testing.TB, zones []DNSZone, more ...string) *DNS {
	t.Helper()
	if reason := DNSAvailable(); reason != "" {
		t.Skip(reason)
	}
	dir, err := os.MkdirTemp("", "beddns")
	if err != nil {
		t.Fatal(err)
	}
	d := &DNS{Dir: dir, t: t, zones: zones}
	t.Cleanup(d.cleanup)
	if err := errors.Join(enterable(dir), d.start(more)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *DNS) cleanup() {
	if err := errors.Join(d.StopResolver(), d.StopLists(), os.RemoveAll(d.Dir)); err != nil {
		d.t.Error(err)
	}
}

// StopResolver kills Unbound.
func (d *DNS) StopResolver() error { return d.unbound.stop() }

// StopLists kills rbldnsd.
func (d *DNS) StopLists() error { return d.rbldnsd.stop() }

func (d *DNS) start(more []string) error {
	var err error
	if d.Lists, err = freeLoopback(); err != nil {
		return err
	}
	for _, z := range d.zones {
		if err := d.write(z); err != nil {
			return err
		}
	}
	if err := d.StartLists(); err != nil {
		return err
	}
	port, err := FreePort()
	if err != nil {
		return err
	}
	d.Resolver = fmt.Sprintf("127.0.0.1:%d", port)
	config := filepath.Join(d.Dir, "unbound.conf")
	if err := os.WriteFile(config, []byte(d.unboundConfig(port, more)), 0o644); err != nil {
		return err
	}
	if d.unbound, err = launch("unbound", unboundProgram, "-d", "-c", config); err != nil {
		return err
	}
	return d.unbound.ready(func() error { return d.resolves("localhost.") })
}

// StartLists starts rbldnsd, again if it was stopped.
func (d *DNS) StartLists() (err error) {
	args := []string{"-n", "-u", "rbldns", "-w", d.Dir, "-b", d.Lists + "/53", "-c", "1s", "-t", "60"}
	for _, z := range d.zones {
		args = append(args, z.Name+":"+z.Type+":"+z.Name)
	}
	if d.rbldnsd, err = launch("rbldnsd", rbldnsdProgram, args...); err != nil {
		return err
	}
	return d.rbldnsd.ready(func() error { return answers(d.Lists+":53", "ready."+d.zones[0].Name+".") })
}

// Publish has rbldnsd serve other data of a zone.
func (d *DNS) Publish(zone, data string) {
	d.t.Helper()
	for i := range d.zones {
		if d.zones[i].Name == zone {
			d.zones[i].Data = data
			if err := d.write(d.zones[i]); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	if err := d.rbldnsd.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		d.t.Fatal(err)
	}
}

// write puts a zone's data where rbldnsd reads them, all at once.
func (d *DNS) write(z DNSZone) error {
	head := fmt.Sprintf("$SOA 60 ns.%s hostmaster.%s %d 600 300 86400 1\n$NS 60 ns.%s\n", z.Name, z.Name, time.Now().Unix(), z.Name)
	path := filepath.Join(d.Dir, z.Name)
	if err := os.WriteFile(path+".new", []byte(head+z.Data+"\n"), 0o644); err != nil {
		return err
	}
	d.writes++ // rbldnsd reads a file again if its time, in whole seconds, is another
	stamp := time.Now().Add(time.Duration(d.writes) * time.Second)
	return errors.Join(os.Chtimes(path+".new", stamp, stamp), os.Rename(path+".new", path))
}

// unboundConfig has Unbound ask rbldnsd about everything but a few names.
func (d *DNS) unboundConfig(port int, more []string) string {
	lines := []string{
		"server:", "interface: 127.0.0.1", fmt.Sprintf("port: %d", port), "access-control: 127.0.0.0/8 allow",
		"do-not-query-localhost: no", "do-ip6: no", "do-daemonize: no", "use-syslog: no", `logfile: ""`, `pidfile: ""`, `chroot: ""`, `username: ""`,
		`directory: "` + d.Dir + `"`, `module-config: "iterator"`, "num-threads: 1",
		"qname-minimisation: yes", "prefetch: yes", "serve-expired: no", "cache-max-negative-ttl: 300",
		`local-zone: "com." static`, `local-zone: "example." static`, `local-zone: "org." typetransparent`, `local-data: "org. 3600 SOA ns.org. hostmaster.org. 1 600 300 86400 60"`,
		`local-data: "o-o.myaddr.l.google.com. 60 TXT 127.0.0.1"`,
	}
	for _, z := range d.zones {
		lines = append(lines, fmt.Sprintf(`local-zone: "%s." typetransparent`, z.Name), fmt.Sprintf(`local-data: "ns.%s. 60 A %s"`, z.Name, d.Lists))
	}
	lines = append(lines, more...)
	for _, z := range d.zones {
		lines = append(lines, "stub-zone:", `name: "`+z.Name+`."`, "stub-addr: "+d.Lists)
	}
	lines = append(lines, "stub-zone:", `name: "."`, "stub-addr: "+d.Lists, "remote-control:", "control-enable: no")
	return strings.Join(lines, "\n") + "\n"
}

// resolves asks Unbound for a name.
func (d *DNS) resolves(name string) error { return lookUp(d.Resolver, name) }

// answers finds nothing wrong if the server at an address answers about a name, be it
// that there is none.
func answers(server, name string) error {
	err := lookUp(server, name)
	var unknown *net.DNSError
	if errors.As(err, &unknown) && unknown.IsNotFound {
		return nil
	}
	return err
}

// lookUp asks a server for the addresses of a name.
func lookUp(server, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
	_, err := r.LookupHost(ctx, name)
	return err
}

// free reports whether nobody has port 53 of an address.
func free(address string) bool {
	conn, err := net.ListenPacket("udp4", address+":53")
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// freeLoopback finds a loopback address whose port 53 nobody has: the servers
// of zones are asked there.
func freeLoopback() (string, error) {
	for range 1000 {
		n := os.Getpid()*31 + int(ports.Add(1))
		address := fmt.Sprintf("127.53.%d.%d", n/250%250+1, n%250+1)
		if free(address) {
			return address, nil
		}
	}
	return "", errors.New("bed: found no loopback address with a free port 53 in 1000 tries")
}
