package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// The goals: how much fewer messages a second may pass.
const (
	maxPolicyCost = 0.05
	maxMilterCost = 0.20
)

type mailOptions struct {
	messages, size, sessions, rounds, accounts int
}

// A way is one in which Postfix asks the gate, at a port of its own.
type way struct {
	name  string
	port  int
	lines string  // of its service in master.cf
	cost  float64 // goal; 0 is none
}

var ways = []way{
	{"no gate", 29901, "", 0},
	{"policy service", 29902, "-o smtpd_recipient_restrictions=$gate_recipient_restrictions -o smtpd_end_of_data_restrictions=$vedetta_gate", maxPolicyCost},
	{"milter", 29903, "-o smtpd_milters=$vedetta_milter", maxMilterCost},
}

// What docs/postfix.md and docs/milter.md have operators write.
const (
	policyAddr = "127.0.0.1:29998"
	milterAddr = "127.0.0.1:29999"
)

var mailMain = []string{
	"vedetta_gate = check_policy_service { inet:" + policyAddr + ", timeout=1s, default_action=DUNNO, try_limit=1 }",
	"gate_recipient_restrictions = $vedetta_gate, permit_sasl_authenticated, permit_mynetworks, reject",
	"vedetta_milter = { inet:" + milterAddr + ", connect_timeout=1s, command_timeout=2s, content_timeout=2s, default_action=accept }",
	"smtpd_recipient_restrictions = permit_sasl_authenticated, permit_mynetworks, reject",
	"transport_maps =",
	"default_transport = discard:",
}

const mailService = "127.0.0.1:%d inet n - n - - smtpd -o smtpd_sasl_auth_enable=yes -o mynetworks=127.0.0.0/8 " +
	"-o smtpd_relay_restrictions=permit_sasl_authenticated,permit_mynetworks,reject %s\n"

// A sender sends messages to a port.
type sender struct {
	name string
	send func(ctx context.Context, addr string, o mailOptions) error
}

var senders = []sender{
	{"clients with a login", sendLoggedIn},
	{"smtp-source, a trusted client without a login", sendTrusted},
}

// runMail measures how many messages a second a real Postfix takes and
// delivers (to nowhere) without the gate, with the policy service and with the
// milter, by turns. The service reads the log of that Postfix all the while.
func runMail(ctx context.Context, args []string, out io.Writer) error {
	var o mailOptions
	flags := flag.NewFlagSet("mail", flag.ContinueOnError)
	flags.IntVar(&o.messages, "messages", 1000, "messages of each kind in a round, one a session")
	flags.IntVar(&o.size, "size", 4000, "bytes of a message")
	flags.IntVar(&o.sessions, "sessions", 10, "sessions at once")
	flags.IntVar(&o.rounds, "rounds", 9, "rounds, at least 7 to be recorded")
	flags.IntVar(&o.accounts, "accounts", 20_000, "accounts that the service knows")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.messages < 1 || o.size < 1 || o.sessions < 1 || o.rounds < 1 || o.accounts < 1 {
		return errors.New("mail: messages, size, sessions, rounds and accounts must be above zero")
	}
	t := &trial{}
	defer t.end()
	b, err := startPostfix(t)
	if err != nil {
		return err
	}
	s, err := newService()
	if err != nil {
		return err
	}
	defer s.stop()
	if err := s.load(ctx, o.accounts, 0, out); err != nil {
		return err
	}
	// It observes: a mailbox that sends so much would soon be stopped.
	config := fmt.Sprintf("mode: observe\nlogs: [{path: %s}]\ngate: {listen: [\"inet:%s\"], milter: [\"inet:%s\"]}\n", b.MailLog, policyAddr, milterAddr)
	if err := s.start(ctx, config, policyAddr, milterAddr); err != nil {
		return err
	}
	r := rig{b, s, 0}
	if r.master, err = masterPID(b); err != nil {
		return err
	}
	var missed []error
	for _, from := range senders {
		missed = append(missed, o.compare(ctx, r, from, out))
	}
	return errors.Join(missed...)
}

// A rig is what is measured.
type rig struct {
	bed     *bed.Bed
	service *ownService
	master  int // Postfix's first process
}

func masterPID(b *bed.Bed) (int, error) {
	text, err := os.ReadFile(filepath.Join(b.Dir, "spool/pid/master.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// cpu is what Postfix and Vedetta have used.
func (r rig) cpu() (time.Duration, error) {
	postfix, err := cpuTime(r.master)
	if err != nil {
		return 0, err
	}
	vedetta, err := cpuTime(r.service.cmd.Process.Pid)
	return postfix + vedetta, err
}

// startPostfix starts a Postfix with a port for each way.
func startPostfix(t *trial) (b *bed.Bed, err error) {
	if err := t.try(func() { b = bed.Start(t, bed.Options{Main: mailMain}) }); err != nil {
		return nil, err
	}
	path := filepath.Join(b.Config, "master.cf")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for _, w := range ways {
		text = fmt.Appendf(text, mailService, w.port, w.lines)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return nil, err
	}
	// Postfix waits with a file that may still be being written.
	written := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, written, written); err != nil {
		return nil, err
	}
	return b, b.Restart()
}

// compare sends in every way by turns, and each round begins with another one.
func (o mailOptions) compare(ctx context.Context, r rig, from sender, out io.Writer) error {
	took, cpu := make([][]time.Duration, len(ways)), make([][]time.Duration, len(ways))
	for round := range o.rounds + 1 {
		for i := range ways {
			n := (i + round) % len(ways)
			wall, used, err := o.round(ctx, r, ways[n], from)
			if err != nil {
				return fmt.Errorf("mail: %s, %s: %w", from.name, ways[n].name, err)
			}
			if round > 0 { // the first warms up
				took[n], cpu[n] = append(took[n], wall), append(cpu[n], used)
			}
		}
	}
	fmt.Fprintf(out, "\n%s: %d messages of %d bytes, one a session, %d at once, until all are delivered; %d rounds by turns, medians\n",
		from.name, o.messages, o.size, o.sessions, o.rounds)
	var missed error
	for n, w := range ways {
		fmt.Fprintf(out, "%-15s %5.0f messages a second (of the rounds %.0f to %.0f); CPU time of Postfix and Vedetta %.2f ms a message", w.name,
			o.rate(middle(took[n])), o.rate(slices.Max(took[n])), o.rate(slices.Min(took[n])), middle(cpu[n]).Seconds()*1000/float64(o.messages))
		if w.cost > 0 {
			cost := 1 - 1/middle(ratios(took[n], took[0]))
			fmt.Fprintf(out, ", %+.1f %%\n%15s %.1f %% fewer in the median round, goal %.0f %%: %s", (middle(ratios(cpu[n], cpu[0]))-1)*100, "",
				cost*100, w.cost*100, verdict(cost <= w.cost))
			if cost > w.cost {
				missed = errors.New("mail: goals missed")
			}
		}
		fmt.Fprintln(out)
	}
	return missed
}

func (o mailOptions) rate(took time.Duration) float64 { return float64(o.messages) / took.Seconds() }

// ratios compares rounds that ran one after the other, for a machine may be
// slower for a while.
func ratios(these, those []time.Duration) (all []float64) {
	for i := range these {
		all = append(all, these[i].Seconds()/those[i].Seconds())
	}
	return all
}

// round sends messages and waits until they are delivered. It checks that the
// gate was asked as often as it should, for Postfix would go on without it.
func (o mailOptions) round(ctx context.Context, r rig, w way, from sender) (wall, cpu time.Duration, err error) {
	before, err := gateAnswers(ctx)
	if err != nil {
		return 0, 0, err
	}
	used, err := r.cpu()
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := from.send(ctx, fmt.Sprintf("127.0.0.1:%d", w.port), o); err != nil {
		return 0, 0, err
	}
	if err := delivered(ctx, filepath.Join(r.bed.Dir, "spool")); err != nil {
		return 0, 0, err
	}
	wall = time.Since(begun)
	time.Sleep(300 * time.Millisecond) // what is still to be logged and read is not the next round's
	if cpu, err = r.cpu(); err != nil {
		return 0, 0, err
	}
	after, err := gateAnswers(ctx)
	if err != nil {
		return 0, 0, err
	}
	if asked := after - before; w.cost == 0 && asked != 0 || w.cost > 0 && asked < o.messages {
		return 0, 0, fmt.Errorf("the gate gave %d answers about %d messages", asked, o.messages)
	}
	return wall, cpu - used, nil
}

// delivered waits until the queue is empty.
func delivered(ctx context.Context, spool string) error {
	for ctx.Err() == nil {
		left := 0
		for _, name := range []string{"incoming", "active", "deferred", "hold"} {
			dir, err := os.Open(filepath.Join(spool, name))
			if err != nil {
				return err
			}
			names, err := dir.Readdirnames(1)
			dir.Close()
			if err != nil && err != io.EOF {
				return err
			}
			if len(names) > 0 && (name == "deferred" || name == "hold") {
				return fmt.Errorf("a message is in the %s queue", name)
			}
			left += len(names)
		}
		if left == 0 {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return ctx.Err()
}

// gateAnswers is how many answers the service's gate has given.
func gateAnswers(ctx context.Context) (n int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+apiAddr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if name, value, _ := strings.Cut(lines.Text(), " "); strings.HasPrefix(name, "vedetta_gate_answers_total") {
			count, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			n += int(count)
		}
	}
	return n, nil
}

// sendTrusted sends with the tester that comes with Postfix.
func sendTrusted(ctx context.Context, addr string, o mailOptions) error {
	text, err := exec.CommandContext(ctx, "smtp-source", "-s", strconv.Itoa(o.sessions), "-m", strconv.Itoa(o.messages), "-l", strconv.Itoa(o.size),
		"-f", "alice@shop.test", "-t", "r@ok.test", addr).CombinedOutput()
	if err != nil {
		return fmt.Errorf("smtp-source: %w\n%s", err, text)
	}
	return nil
}

// sendLoggedIn sends as smtp-source does, but logs in.
func sendLoggedIn(ctx context.Context, addr string, o mailOptions) error {
	logins := []string{"alice", "bob", "carol", "dave", "erin", "frank", "grace"}
	letter := "Subject: Your order\r\nFrom: shop\r\nTo: you\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", o.size/78)
	errs := make([]error, o.sessions)
	var running sync.WaitGroup
	for i := range o.sessions {
		running.Go(func() {
			for n := i; n < o.messages && ctx.Err() == nil; n += o.sessions {
				name := logins[n%len(logins)]
				if errs[i] = sendOne(addr, name+"@shop.test", "pw-"+name, letter); errs[i] != nil {
					return
				}
			}
		})
	}
	running.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

func sendOne(addr, login, password, letter string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", login, password)); err != nil {
		return err
	}
	if err := c.SendMail(login, []string{"r@ok.test"}, strings.NewReader(letter)); err != nil {
		return err
	}
	return c.Quit()
}

// A trial stands in for the test that package bed wants.
type trial struct {
	testing.TB // none: what bed uses of it is below
	failed     bool
	cleanups   []func()
}

// failure is what a trial panics with, to get out of bed.
type failure string

func (f failure) Error() string { return string(f) }

// try returns why f could not go on.
func (t *trial) try(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			var ok bool
			if err, ok = p.(failure); !ok {
				panic(p)
			}
		}
	}()
	f()
	return nil
}

func (t *trial) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// Cleanup has f called at the end.
func (t *trial) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Fatal ends what try called.
func (t *trial) Fatal(args ...any) { t.failed = true; panic(failure(fmt.Sprint(args...))) }

// Fatalf is as Fatal.
func (t *trial) Fatalf(format string, args ...any) { t.Fatal(fmt.Sprintf(format, args...)) }

// Skip is as Fatal: there is nothing else to measure.
func (t *trial) Skip(args ...any) { t.Fatal(args...) }

// Error tells and goes on.
func (t *trial) Error(args ...any) { t.failed = true; t.Log(args...) }

// Log tells.
func (t *trial) Log(args ...any) { fmt.Fprintln(os.Stderr, args...) }

// Failed reports whether Fatal or Error was called.
func (t *trial) Failed() bool { return t.failed }

// Helper does nothing.
func (t *trial) Helper() {}
