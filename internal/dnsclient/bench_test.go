package dnsclient

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serveFlag makes the test binary the server of the benchmarks, so that the
// clock of their process shows only the client's work.
var serveFlag = flag.Bool("serve", false, "answer as a blocklist on a port of 127.0.0.1 until standard input ends")

func TestMain(m *testing.M) {
	flag.Parse()
	if *serveFlag {
		serveBlocklist()
		return
	}
	os.Exit(m.Run())
}

func serveBlocklist() {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn.SetReadBuffer(4 << 20)
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(listed)}
	go s.ActivateAndServe()
	fmt.Println(conn.LocalAddr())
	bufio.NewReader(os.Stdin).ReadString('\n')
	s.Shutdown()
}

// startServer runs serveBlocklist in a process of its own.
func startServer(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-serve")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(address)
}

// A load is what asking a number of questions took.
type load struct {
	questions int
	wall, cpu time.Duration
}

func (l load) perSecond() float64 { return float64(l.questions) / l.wall.Seconds() }
func (l load) cpuEach() float64   { return float64(l.cpu.Nanoseconds()) / 1000 / float64(l.questions) }

func (l *load) add(other load) {
	l.questions += other.questions
	l.wall += other.wall
	l.cpu += other.cpu
}

// cpuTime is what this process computed so far, in the kernel too.
func cpuTime() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		panic(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// measure asks n questions from askers goroutines.
func measure(n, askers int, ask func(name string) bool) (l load, unanswered int64) {
	var next, failed atomic.Int64
	var group sync.WaitGroup
	begun, cpu := time.Now(), cpuTime()
	for range askers {
		group.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if !ask(blocklistName(i)) {
					failed.Add(1)
				}
			}
		})
	}
	group.Wait()
	return load{n, time.Since(begun), cpuTime() - cpu}, failed.Load()
}

// blocklistName is one of many names, of which one in a hundred is listed.
func blocklistName(i int64) string {
	first := 3 + i%99
	if i%100 == 0 {
		first = 2
	}
	return fmt.Sprintf("%d.%d.%d.%d.list.test.", first, i>>16&255, i>>8&255, i&255)
}

// BenchmarkLookup compares lookups with a plain loop of dns.Client.Exchange, a
// turn of each, as many goroutines asking. The server is another process. It
// reports questions per second and CPU time per question, of the client alone.
func BenchmarkLookup(b *testing.B) {
	for _, askers := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("askers=%d", askers), func(b *testing.B) { compare(b, askers) })
	}
}

const turns = 5

func compare(b *testing.B, askers int) {
	address := startServer(b)
	client := open(b, &Client{Patience: defaultPatience, CacheEntries: 1000}, address)
	exchange := func(name string) bool {
		plain := dns.Client{UDPSize: udpSize, Timeout: 5 * time.Second}
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		m.SetEdns0(udpSize, false)
		_, _, err := plain.Exchange(m, address)
		return err == nil
	}
	lookup := func(name string) bool {
		return client.LookupFresh(context.Background(), name, dns.TypeA).Status.Definite()
	}
	var ours, theirs load
	var lost int64
	b.ResetTimer()
	for range turns {
		n := max(b.N/turns, 1)
		l, failed := measure(n, askers, lookup)
		ours.add(l)
		lost += failed
		l, _ = measure(n, askers, exchange)
		theirs.add(l)
	}
	b.ReportMetric(ours.perSecond(), "lookups/s")
	b.ReportMetric(ours.cpuEach(), "cpu-µs/lookup")
	b.ReportMetric(theirs.perSecond(), "exchanges/s")
	b.ReportMetric(theirs.cpuEach(), "cpu-µs/exchange")
	b.ReportMetric(ours.cpuEach()/theirs.cpuEach(), "cpu-ratio")
	b.ReportMetric(float64(lost), "unanswered")
	b.ReportMetric(float64(client.Stats().Resent), "sent-again")
}
