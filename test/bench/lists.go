package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// The goals of a sweep over block lists.
const (
	sweepPerSecond = 30_000 // verdicts
	sweepCPU       = 0.5    // of the processor time that a question costs a plain loop of Exchange
)

// A sweep is so many addresses on so many lists, which one server has.
type sweep struct {
	addresses, lists int
}

// address is one of the network that is kept for measuring (RFC 2544).
func (s sweep) address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)})
}

func (s sweep) zone(i int) string { return fmt.Sprintf("list%02d.vedetta-bench.net.", i) }

func (s sweep) questions() int { return s.addresses * s.lists }

// question is the name about an address on a list: addresses within lists.
func (s sweep) question(i int) string {
	b := s.address(i / s.lists).As4()
	return fmt.Sprintf("%d.%d.%d.%d.%s", b[3], b[2], b[1], b[0], s.zone(i%s.lists))
}

// runLists compares "vedetta dnsbl check" with a loop of dns.Client.Exchange
// that asks the same questions and throws the answers away. The server, which
// has authority for all lists, is another process on the same processors.
func runLists(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("lists", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "rounds, at least 5 to be recorded")
	askers := flags.Int("askers", 100, "goroutines of the plain loop")
	s := sweep{}
	flags.IntVar(&s.addresses, "addresses", 4096, "addresses, up to 65536")
	flags.IntVar(&s.lists, "lists", 40, "lists, up to 99")
	vedetta := flags.String("vedetta", "", "`program` to measure; built from this module if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *vedetta == "" {
		*vedetta = filepath.Join(dir, "vedetta")
		if err := build(ctx, *vedetta); err != nil {
			return err
		}
	}
	server, err := startChild(ctx, "list-server")
	if err != nil {
		return err
	}
	defer server.stop()
	config, err := s.writeConfig(dir)
	if err != nil {
		return err
	}
	ours := []string{*vedetta, "dnsbl", "check", "--json", "-c", config, "--resolver", server.addr}
	for i := range s.addresses {
		ours = append(ours, s.address(i).String())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	theirs := []string{self, "exchange", server.addr, fmt.Sprint(s.addresses), fmt.Sprint(s.lists), fmt.Sprint(*askers)}
	var sweeps, loops []cost
	var shares []float64 // of the processors that a sweep had, with the server
	for range *rounds {
		before := ofProcess(server.cmd.Process.Pid)
		c, err := s.sweepOnce(ctx, ours, dir)
		if err != nil {
			return err
		}
		shares = append(shares, (c.cpu+ofProcess(server.cmd.Process.Pid)-before).Seconds()/c.wall.Seconds()/float64(runtime.NumCPU()))
		sweeps = append(sweeps, c)
		if c, err = measure(ctx, theirs); err != nil {
			return err
		}
		loops = append(loops, c)
	}
	err = s.tell(sweeps, loops, out)
	slices.Sort(shares)
	fmt.Fprintf(out, "program and server had %.0f %% of the processors' time (median); the rest went to others or was waited for\n", 100*shares[len(shares)/2])
	return err
}

// ofProcess is the processor time that a process has used, in hundredths of a
// second; 0 where the system does not tell.
func ofProcess(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // state ppid … utime stime
	if len(fields) < 13 {
		return 0
	}
	user, errUser := strconv.Atoi(string(fields[11]))
	system, errSystem := strconv.Atoi(string(fields[12]))
	if errUser != nil || errSystem != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// writeConfig has vedetta know our lists and no others.
func (s sweep) writeConfig(dir string) (path string, err error) {
	var lists, disabled bytes.Buffer
	fmt.Fprintln(&lists, "lists:")
	for i := range s.lists {
		fmt.Fprintf(&lists, "- {name: list%02d, zone: %s, kinds: [ip4], tier: warn, weight: 10, per_second: 1000000, per_day: 100000000, codes: [{code: 127.0.0.2, meaning: listed}]}\n",
			i, strings.TrimSuffix(s.zone(i), "."))
	}
	shipped, err := os.ReadFile("dnsbl/catalogue.yml")
	if err != nil {
		return "", fmt.Errorf("run it at the root of the module: %w", err)
	}
	for line := range strings.Lines(string(shipped)) {
		if name, ok := strings.CutPrefix(line, "  - name: "); ok {
			fmt.Fprintf(&disabled, "- %s", name)
		}
	}
	catalogue := filepath.Join(dir, "lists.yml")
	if err := os.WriteFile(catalogue, []byte(lists.String()+"disabled:\n"+disabled.String()), 0o600); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "vedetta.yaml")
	return path, os.WriteFile(path, []byte("dnsbl:\n  catalogue: "+catalogue+"\n"), 0o600)
}

// sweepOnce runs vedetta and checks every verdict.
func (s sweep) sweepOnce(ctx context.Context, args []string, dir string) (cost, error) {
	verdicts, err := os.Create(filepath.Join(dir, "verdicts"))
	if err != nil {
		return cost{}, err
	}
	defer verdicts.Close()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var mistakes bytes.Buffer
	cmd.Stdout, cmd.Stderr = verdicts, &mistakes
	begun := time.Now()
	err = cmd.Run()
	wall := time.Since(begun)
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 { // some are listed
		return cost{}, fmt.Errorf("%s: %w\n%s", strings.Join(args[:8], " "), errors.Join(err, errors.New("want exit code 1")), mistakes.Bytes())
	}
	if err := s.count(verdicts); err != nil {
		return cost{}, fmt.Errorf("%w\n%s", err, mistakes.Bytes())
	}
	return costOf(cmd.ProcessState, wall)
}

// count finds as many verdicts as questions, and each of them right.
func (s sweep) count(verdicts *os.File) error {
	if _, err := verdicts.Seek(0, io.SeekStart); err != nil {
		return err
	}
	dec := json.NewDecoder(bufio.NewReader(verdicts))
	for i := range s.questions() {
		var row struct{ Subject, List, Status, Reason string }
		if err := dec.Decode(&row); err != nil {
			return fmt.Errorf("verdict %d of %d: %w", i+1, s.questions(), err)
		}
		want := "clean"
		if listedIn(s.question(i)) {
			want = "listed"
		}
		if row.Subject != s.address(i/s.lists).String() || row.Status != want {
			return fmt.Errorf("lost: %s on %s is %s (%s), want %s", row.Subject, row.List, row.Status, row.Reason, want)
		}
	}
	return nil
}

func (s sweep) tell(sweeps, loops []cost, out io.Writer) error {
	n := float64(s.questions())
	fmt.Fprintf(out, "\n%d addresses on %d lists, %d rounds, interleaved; medians\n", s.addresses, s.lists, len(sweeps))
	fmt.Fprintf(out, "%-22s %12s %14s %14s\n", "", "verdicts/s", "CPU µs each", "peak RSS MB")
	rate, each := func(c []cost) float64 { return n / median(c, cost.wallSeconds) }, func(c []cost) float64 { return 1e6 * median(c, cost.cpuSeconds) / n }
	for _, row := range []struct {
		name  string
		costs []cost
	}{{"vedetta dnsbl check", sweeps}, {"loop of Exchange", loops}} {
		fmt.Fprintf(out, "%-22s %12.0f %14.1f %14.1f\n", row.name, rate(row.costs), each(row.costs), median(row.costs, cost.megabytes))
	}
	peak := median(sweeps, cost.megabytes)
	goals := []struct {
		text string
		met  bool
	}{
		{fmt.Sprintf("%.0f verdicts a second, goal %d", rate(sweeps), sweepPerSecond), rate(sweeps) >= sweepPerSecond},
		{fmt.Sprintf("%.2f of the CPU time, goal %g", each(sweeps)/each(loops), sweepCPU), each(sweeps) <= sweepCPU*each(loops)},
		{fmt.Sprintf("%.1f MB, goal below %d", peak, maxRSS>>20), peak < maxRSS>>20},
		{fmt.Sprintf("%.2f times as fast as the loop; none of %d lost", rate(sweeps)/rate(loops), s.questions()*len(sweeps)), true},
	}
	var missed []string
	for _, goal := range goals {
		fmt.Fprintf(out, "%s: %s\n", verdict(goal.met), goal.text)
		if !goal.met {
			missed = append(missed, goal.text)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("lists: missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

// listedIn reports whether our server lists what a question is about: the test
// entry, and one in a hundred addresses.
func listedIn(name string) bool {
	address, _, _ := strings.Cut(name, ".list")
	octets := strings.Split(address, ".")
	return address == "2.0.0.127" || len(octets) == 4 && octets[3] == "198" && (octets[0] == "7" || octets[0] == "77")
}

// serveLists is a server with authority for all lists, and for so much around
// them that a resolver's self-test finds nothing against it.
func serveLists(ctx context.Context, out io.Writer) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	conn.SetReadBuffer(4 << 20)
	soa, err := dns.NewRR("vedetta-bench.net. 60 SOA ns.vedetta-bench.net. hostmaster.vedetta-bench.net. 1 600 300 86400 60")
	if err != nil {
		return err
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative, m.RecursionAvailable = true, true
		switch name, qtype := q.Question[0].Name, q.Question[0].Qtype; {
		case name == "org." && qtype == dns.TypeSOA:
			m.Answer = append(m.Answer, soa)
			m.Answer[0] = dns.Copy(soa)
			m.Answer[0].Header().Name = "org."
		case listedIn(name) && qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: qtype, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 2)})
		case listedIn(name):
			m.Ns = append(m.Ns, soa)
		default:
			m.Rcode = dns.RcodeNameError
			m.Ns = append(m.Ns, soa)
		}
		w.WriteMsg(m) // whoever asked went away, if that fails
	})}
	fmt.Fprintln(out, conn.LocalAddr())
	go func() {
		<-ctx.Done()
		s.Shutdown()
	}()
	return s.ActivateAndServe()
}

// exchangeAll is the plain loop: one new socket a question.
func exchangeAll(ctx context.Context, args []string) error {
	var s sweep
	var askers int
	if len(args) != 4 {
		return errors.New("exchange: want SERVER ADDRESSES LISTS GOROUTINES")
	}
	for i, n := range []*int{&s.addresses, &s.lists, &askers} {
		if _, err := fmt.Sscan(args[i+1], n); err != nil {
			return err
		}
	}
	var next, lost atomic.Int64
	var group sync.WaitGroup
	for range askers {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(s.questions()); i = next.Add(1) - 1 {
				m := new(dns.Msg).SetQuestion(s.question(int(i)), dns.TypeA)
				client := dns.Client{Timeout: 5 * time.Second}
				if _, _, err := client.ExchangeContext(ctx, m, args[0]); err != nil {
					lost.Add(1)
				}
			}
		})
	}
	group.Wait()
	if n := lost.Load(); n > 0 {
		return fmt.Errorf("exchange: %d questions lost", n)
	}
	return nil
}

// startChild starts this program again as a server that says where it listens,
// or what it works on.
func startChild(ctx context.Context, args ...string) (*bareServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(said).ReadString('\n')
	s := &bareServer{addr: strings.TrimSpace(addr), cmd: cmd}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return s, nil
}
