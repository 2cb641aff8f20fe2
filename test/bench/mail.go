package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
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
	bare  bool    // asks a plain Go server that only answers
	table bool    // looks into a table of Vedetta's, and asks nobody
}

// asks reports whether the gate is asked.
func (w way) asks() bool { return w.lines != "" && !w.bare && !w.table }

const (
	askPolicy = " -o smtpd_recipient_restrictions=$gate_recipient_restrictions -o smtpd_end_of_data_restrictions=$vedetta_gate"
	askMilter = " -o smtpd_milters=$vedetta_milter"
	lookUp    = " -o smtpd_recipient_restrictions=permit_sasl_authenticated,$vedetta_clients,permit_mynetworks,reject"
)

var ways = []way{
	{name: "no gate", port: 29901},
	{name: "policy service", port: 29902, lines: askPolicy, cost: maxPolicyCost},
	{name: "policy, unix", port: 29903, lines: "-o vedetta_socket=unix:vedetta/policy" + askPolicy, cost: maxPolicyCost},
	{name: "bare policy", port: 29906, lines: "-o vedetta_socket=inet:$bare_policy" + askPolicy, bare: true},
	{name: "client table", port: 29907, lines: lookUp, cost: maxPolicyCost, table: true},
	{name: "milter", port: 29904, lines: askMilter, cost: maxMilterCost},
	{name: "milter, unix", port: 29905, lines: "-o vedetta_filter=unix:vedetta/milter" + askMilter, cost: maxMilterCost},
}

// What docs/postfix.md and docs/milter.md have operators write.
const (
	policyAddr = "127.0.0.1:29998"
	milterAddr = "127.0.0.1:29999"
)

var mailMain = []string{
	"vedetta_socket = inet:" + policyAddr,
	"vedetta_filter = inet:" + milterAddr,
	"vedetta_gate = check_policy_service { $vedetta_socket, timeout=1s, default_action=DUNNO, try_limit=1 }",
	"gate_recipient_restrictions = $vedetta_gate, permit_sasl_authenticated, permit_mynetworks, reject",
	"vedetta_milter = { $vedetta_filter, connect_timeout=1s, command_timeout=2s, content_timeout=2s, default_action=accept }",
	"smtpd_recipient_restrictions = permit_sasl_authenticated, permit_mynetworks, reject",
	"transport_maps = inline:{" + farDomain + "=smtp:[" + farHost + "]:" + farPort + "}",
	"default_transport = discard:",
	"smtpd_tls_security_level = may",
}

// Mail to farDomain is delivered to smtp-sink, the server for testers that comes
// with Postfix; all other mail to nowhere.
const (
	farDomain = "far.test"
	farHost   = "127.0.0.1"
	farPort   = "29910"
)

const mailService = "127.0.0.1:%d inet n - n - - smtpd -o smtpd_sasl_auth_enable=yes -o mynetworks=127.0.0.0/8 " +
	"-o smtpd_relay_restrictions=permit_sasl_authenticated,permit_mynetworks,reject %s\n"

// A sender sends messages to a port.
type sender struct {
	name string
	send func(ctx context.Context, addr string, o mailOptions) error
}

var senders = []sender{
	{"clients with a login over TLS, delivered over SMTP", mailer{dialTLS, "r@" + farDomain}.send},
	{"clients with a login, delivered to nowhere", mailer{smtp.Dial, "r@ok.test"}.send},
	{"smtp-source, a trusted client without a login, delivered over SMTP", trusted("r@" + farDomain).send},
	{"smtp-source, a trusted client without a login, delivered to nowhere", trusted("r@ok.test").send},
}

// runMail measures how many messages a second a real Postfix takes and delivers,
// to another server or to nowhere, without the gate, with the policy service and
// with the milter, by turns. The service reads the log of that Postfix all the
// while.
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
	r, err := startRig(ctx, t, o.accounts, out)
	if err != nil {
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

// startRig starts all servers; t ends them. The service knows some accounts, and
// observes: a mailbox that sends so much would soon be stopped.
func startRig(ctx context.Context, t *trial, accounts int, out io.Writer) (r rig, err error) {
	policy, err := findKind("policy")
	if err != nil {
		return r, err
	}
	bare, err := startBare(ctx, policy)
	if err != nil {
		return r, err
	}
	t.Cleanup(bare.stop)
	stop, err := startSink(ctx)
	if err != nil {
		return r, err
	}
	t.Cleanup(stop)
	if r.service, err = newService(); err != nil {
		return r, err
	}
	t.Cleanup(func() { r.service.stop() })
	clients := filepath.Join(r.service.dir, "client_access")
	if r.bed, err = startPostfix(t, bare.addr, clients, r.service.dir); err != nil {
		return r, err
	}
	if err := r.service.load(ctx, accounts, 0, out); err != nil {
		return r, err
	}
	if err := r.startService(ctx, clients); err != nil {
		return r, err
	}
	r.master, err = masterPID(r.bed)
	return r, err
}

// startService starts the service with a gate over TCP and in Postfix's queue
// directory.
func (r rig) startService(ctx context.Context, clients string) error {
	sockets := filepath.Join(r.bed.Dir, "spool/vedetta")
	if err := os.Mkdir(sockets, 0o755); err != nil {
		return err
	}
	config := fmt.Sprintf("mode: observe\nlogs: [{path: %s}]\ngate: {listen: [\"inet:%s\", \"unix:%[4]s/policy\"], milter: [\"inet:%[3]s\", \"unix:%[4]s/milter\"]}\n"+
		"postfix: {client_access: %s, config_dir: %s}\n", r.bed.MailLog, policyAddr, milterAddr, sockets, clients, r.bed.Config)
	return r.service.start(ctx, config, policyAddr, milterAddr)
}

func masterPID(b *bed.Bed) (int, error) {
	text, err := os.ReadFile(filepath.Join(b.Dir, "spool/pid/master.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// A mailCost is what a round took: time, and processor time.
type mailCost struct{ wall, postfix, vedetta time.Duration }

func (c mailCost) wallSeconds() float64 { return c.wall.Seconds() }
func (c mailCost) postfixCPU() float64  { return c.postfix.Seconds() }
func (c mailCost) vedettaCPU() float64  { return c.vedetta.Seconds() }

// cpu is what Postfix and Vedetta have used since they began.
func (r rig) cpu() (c mailCost, err error) {
	if c.postfix, err = cpuTime(r.master); err != nil {
		return c, err
	}
	c.vedetta, err = cpuTime(r.service.cmd.Process.Pid)
	return c, err
}

// startPostfix starts a Postfix with a port for each way. One asks the bare
// server at an address, and one a table of trusted clients. Its certificate is
// written to dir.
func startPostfix(t *trial, bare, clients, dir string) (b *bed.Bed, err error) {
	key, certificate := filepath.Join(dir, "key.pem"), filepath.Join(dir, "certificate.pem")
	if err := writeCertificate(key, certificate); err != nil {
		return nil, err
	}
	lines := append(slices.Clone(mailMain), "bare_policy = "+bare, "smtpd_tls_key_file = "+key, "smtpd_tls_cert_file = "+certificate)
	if err := t.try(func() { b = bed.Start(t, bed.Options{Main: lines, Clients: clients}) }); err != nil {
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
	costs := make([][]mailCost, len(ways))
	for round := range o.rounds + 1 {
		for i := range ways {
			n := (i + round) % len(ways)
			c, err := o.round(ctx, r, ways[n], from)
			if err != nil {
				return fmt.Errorf("mail: %s, %s: %w", from.name, ways[n].name, err)
			}
			if round > 0 { // the first warms up
				costs[n] = append(costs[n], c)
			}
		}
	}
	fmt.Fprintf(out, "\n%s: %d messages of %d bytes, one a session, %d at once, until all are delivered; %d rounds by turns, medians\n",
		from.name, o.messages, o.size, o.sessions, o.rounds)
	var missed error
	for n, w := range ways {
		if !o.tell(w, costs[n], costs[0], out) {
			missed = errors.Join(missed, fmt.Errorf("mail: %s: goal missed: %s", from.name, w.name))
		}
	}
	return missed
}

// tell says what mail costs in a way, beside what it does without the gate, and
// returns whether that is within the goal.
func (o mailOptions) tell(w way, costs, without []mailCost, out io.Writer) bool {
	rate := func(seconds float64) float64 { return float64(o.messages) / seconds }
	perMessage := func(what func(mailCost) float64) float64 {
		return middle(each(costs, what)) * 1000 / float64(o.messages)
	}
	took := each(costs, mailCost.wallSeconds)
	fmt.Fprintf(out, "%-15s %5.0f messages a second (of the rounds %.0f to %.0f); CPU time a message: Postfix %.2f ms, Vedetta %.2f ms", w.name,
		rate(middle(took)), rate(slices.Max(took)), rate(slices.Min(took)), perMessage(mailCost.postfixCPU), perMessage(mailCost.vedettaCPU))
	if w.lines == "" {
		fmt.Fprintln(out)
		return true
	}
	fewer := 1 - 1/middle(ratios(took, each(without, mailCost.wallSeconds)))
	if w.bare {
		fmt.Fprintf(out, "; %.1f %% fewer in the median round\n", fewer*100)
		return true
	}
	fmt.Fprintf(out, "; %.1f %% fewer in the median round, goal %.0f %%: %s\n", fewer*100, w.cost*100, verdict(fewer <= w.cost))
	return fewer <= w.cost
}

func each(costs []mailCost, what func(mailCost) float64) (all []float64) {
	for _, c := range costs {
		all = append(all, what(c))
	}
	return all
}

// ratios compares rounds that ran one after the other, for a machine may be
// slower for a while.
func ratios(these, those []float64) (all []float64) {
	for i := range these {
		all = append(all, these[i]/those[i])
	}
	return all
}

// round sends messages and waits until they are delivered. It checks that the
// gate was asked as often as it should, for Postfix would go on without it.
func (o mailOptions) round(ctx context.Context, r rig, w way, from sender) (c mailCost, err error) {
	before, err := gateAnswers(ctx)
	if err != nil {
		return c, err
	}
	used, err := r.cpu()
	if err != nil {
		return c, err
	}
	begun := time.Now()
	if err := from.send(ctx, fmt.Sprintf("127.0.0.1:%d", w.port), o); err != nil {
		return c, err
	}
	if err := delivered(ctx, filepath.Join(r.bed.Dir, "spool")); err != nil {
		return c, err
	}
	wall := time.Since(begun)
	time.Sleep(300 * time.Millisecond) // what is still to be logged and read is not the next round's
	after, err := gateAnswers(ctx)
	if err != nil {
		return c, err
	}
	if asked := after - before; !w.asks() && asked != 0 || w.asks() && asked < o.messages {
		return c, fmt.Errorf("the gate gave %d answers about %d messages", asked, o.messages)
	}
	if c, err = r.cpu(); err != nil {
		return c, err
	}
	return mailCost{wall, c.postfix - used.postfix, c.vedetta - used.vedetta}, nil
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

// A trusted client sends to a recipient with the tester that comes with Postfix.
type trusted string

func (to trusted) send(ctx context.Context, addr string, o mailOptions) error {
	text, err := exec.CommandContext(ctx, "smtp-source", "-s", strconv.Itoa(o.sessions), "-m", strconv.Itoa(o.messages), "-l", strconv.Itoa(o.size),
		"-f", "alice@shop.test", "-t", string(to), addr).CombinedOutput()
	if err != nil {
		return fmt.Errorf("smtp-source: %w\n%s", err, text)
	}
	return nil
}

// A mailer logs in, sends a message to a recipient, and quits.
type mailer struct {
	dial func(addr string) (*smtp.Client, error)
	to   string
}

// dialTLS dials as a mail program does, and believes any certificate.
func dialTLS(addr string) (*smtp.Client, error) {
	return smtp.DialStartTLS(addr, &tls.Config{InsecureSkipVerify: true})
}

// send sends as smtp-source does, but logs in.
func (m mailer) send(ctx context.Context, addr string, o mailOptions) error {
	logins := []string{"alice", "bob", "carol", "dave", "erin", "frank", "grace"}
	letter := "Subject: Your order\r\nFrom: shop\r\nTo: you\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", o.size/78)
	errs := make([]error, o.sessions)
	var running sync.WaitGroup
	for i := range o.sessions {
		running.Go(func() {
			for n := i; n < o.messages && ctx.Err() == nil; n += o.sessions {
				name := logins[n%len(logins)]
				if errs[i] = m.sendOne(addr, name+"@shop.test", "pw-"+name, letter); errs[i] != nil {
					return
				}
			}
		})
	}
	running.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

func (m mailer) sendOne(addr, login, password, letter string) error {
	session, err := m.dial(addr)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := session.Auth(sasl.NewPlainClient("", login, password)); err != nil {
		return err
	}
	if err := session.SendMail(login, []string{m.to}, strings.NewReader(letter)); err != nil {
		return err
	}
	return session.Quit()
}

// startSink starts the server that takes the mail to farDomain.
func startSink(ctx context.Context) (stop func(), err error) {
	cmd := exec.CommandContext(ctx, "smtp-sink", "-u", "nobody", "inet:"+net.JoinHostPort(farHost, farPort), "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}, nil
}

// writeCertificate makes a key of the kind that most certificates have today,
// and a certificate for nobody.
func writeCertificate(keyFile, certFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600))
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
