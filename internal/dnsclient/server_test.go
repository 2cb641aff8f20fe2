package dnsclient

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve runs a server on a loopback port, over UDP and TCP, until the test
// ends.
func serve(t testing.TB, h dns.HandlerFunc) string {
	t.Helper()
	udp, tcp := listenBoth(t)
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: h}, {Listener: tcp, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			s.Shutdown()
			<-done
		})
	}
	return udp.LocalAddr().String()
}

// listenBoth listens on a port that is free for both UDP and TCP.
func listenBoth(t testing.TB) (*net.UDPConn, net.Listener) {
	t.Helper()
	for range 100 {
		udp := listenUDP(t)
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		udp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func listenUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A packetHandler is what a server that does as it likes with datagrams does
// with each: it may send none, one or many.
type packetHandler func(conn *net.UDPConn, from *net.UDPAddr, q *dns.Msg)

// nobody never answers.
func nobody(*net.UDPConn, *net.UDPAddr, *dns.Msg) {}

// servePackets runs such a server, without TCP.
func servePackets(t testing.TB, h packetHandler) string {
	t.Helper()
	conn := listenUDP(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		readPackets(conn, h)
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

// readPackets gives h each question that arrives until conn is closed.
func readPackets(conn *net.UDPConn, h packetHandler) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(buf[:n]) == nil {
			h(conn, from, q)
		}
	}
}

// send packs m and sends it.
func send(t testing.TB, conn *net.UDPConn, to *net.UDPAddr, m *dns.Msg) {
	msg, err := m.Pack()
	if err != nil {
		t.Error(err)
		return
	}
	conn.WriteToUDP(msg, to)
}

// reply makes the answer of a resolver to q from records in text form.
func reply(q *dns.Msg, rcode int, records ...string) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, rcode)
	m.RecursionAvailable = true
	for _, text := range records {
		if rr := record(text); rr.Header().Rrtype == dns.TypeSOA && q.Question[0].Qtype != dns.TypeSOA {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

func record(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// soa is the SOA of a zone whose negative answers hold for 5 minutes.
func soa(zone string) string {
	return zone + " 900 IN SOA ns." + zone + " admin." + zone + " 7 1 1 1 300"
}

// listed answers for a blocklist: names that begin with "2." are on it.
func listed(w dns.ResponseWriter, q *dns.Msg) {
	name := q.Question[0].Name
	if strings.HasPrefix(name, "2.") {
		w.WriteMsg(reply(q, dns.RcodeSuccess, name+" 60 IN A 127.0.0.2"))
		return
	}
	w.WriteMsg(reply(q, dns.RcodeNameError, soa("list.test.")))
}

// open opens a client that does not wait long, and closes it at the end.
func open(t testing.TB, c *Client, upstreams ...string) *Client {
	t.Helper()
	c.Upstreams = upstreams
	if c.Patience == 0 {
		c.Patience = 100 * time.Millisecond
	}
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// ask looks an A record up within 10 s.
func ask(t testing.TB, c *Client, name string) Answer {
	t.Helper()
	return askType(t, c, name, dns.TypeA)
}

func askType(t testing.TB, c *Client, name string, qtype uint16) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a := c.Lookup(ctx, name, qtype)
	if a.Status.Definite() != (a.Err == nil) {
		t.Errorf("%s has the error %v", a.Status, a.Err)
	}
	return a
}

// goroutines waits until no more run than want: one that was told to end may
// take a moment.
func goroutines(t testing.TB, want int) {
	t.Helper()
	var got int
	for range 500 {
		if got = runtime.NumGoroutine(); got <= want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines run, want %d:\n%s", got, want, buf[:runtime.Stack(buf, true)])
}

var two = netip.MustParseAddr("127.0.0.2")
