package gate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/rules"
)

// serve runs p on a free port until the test ends, and returns its address.
func serve(t testing.TB, p *Policy) string {
	t.Helper()
	l, err := Listen("inet:127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	run(t, p, l)
	return l.Addr().String()
}

func run(t testing.TB, p *Policy, l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// A client is Postfix's end of a connection.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, network, addr string) *client {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{t, conn, bufio.NewReader(conn)}
}

// ask sends text as it is and returns the action, or "closed".
func (c *client) ask(text string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		return "closed"
	}
	return c.answer()
}

func (c *client) answer() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			c.t.Fatal("no answer")
		}
		return "closed"
	}
	if empty, err := c.in.ReadString('\n'); err != nil || empty != "\n" {
		c.t.Fatalf("answer %q is not followed by an empty line: %q %v", line, empty, err)
	}
	action, ok := strings.CutPrefix(line, "action=")
	if !ok {
		c.t.Fatalf("answer %q", line)
	}
	return strings.TrimSuffix(action, "\n")
}

// question writes a request; attributes are name=value.
func question(attributes ...string) string {
	return "request=smtpd_access_policy\n" + strings.Join(attributes, "\n") + "\n\n"
}

func rcpt(login, instance, recipient string) string {
	return question("protocol_state=RCPT", "protocol_name=ESMTP", "client_address=192.0.2.7", "client_name=host.test",
		"sender="+login, "recipient="+recipient, "recipient_count=0", "queue_id=", "instance="+instance,
		"sasl_method=PLAIN", "sasl_username="+login, "sasl_sender=", "size=0")
}

func end(login, instance string, recipients int) string {
	return question("protocol_state=END-OF-MESSAGE", "protocol_name=ESMTP", "client_address=192.0.2.7", "client_name=host.test",
		"sender="+login, "recipient=", fmt.Sprintf("recipient_count=%d", recipients), "queue_id=4jXK971kgrz1SRpG", "instance="+instance,
		"sasl_method=PLAIN", "sasl_username="+login, "sasl_sender=", "size=238")
}

func TestPolicyAnswers(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "Sending is stopped.\naction=OK")
	table.Set(decision(rules.Hold, "bob@shop.test"), "held for review")
	table.Set(decision(rules.Block, "client:192.0.2.66"), "this address")
	ended := decision(rules.Block, "carol@shop.test")
	ended.Until = time.Now().Add(-time.Second)
	table.Set(ended, "over")
	c := dial(t, "tcp", serve(t, &Policy{Table: table}))

	for _, test := range []struct{ name, request, want string }{
		{"unknown account", rcpt("alice@shop.test", "1.a.b.0", "r@ok.test"), "DUNNO"},
		{"blocked at RCPT", rcpt("mallory@shop.test", "1.a.b.1", "r@ok.test"), "REJECT 5.7.1 Sending is stopped. action=OK"},
		{"blocked at the end", end("mallory@shop.test", "1.a.b.1", 1), "REJECT 5.7.1 Sending is stopped. action=OK"},
		{"blocked in another spelling", rcpt("Mallory@SHOP.test", "1.a.b.2", "r@ok.test"), "REJECT 5.7.1 Sending is stopped. action=OK"},
		{"held at RCPT", rcpt("bob@shop.test", "1.a.b.3", "r@ok.test"), "HOLD held for review"},
		{"held at the end", end("bob@shop.test", "1.a.b.3", 1), "HOLD held for review"},
		{"ended", rcpt("carol@shop.test", "1.a.b.4", "r@ok.test"), "DUNNO"},
		{"no login", question("protocol_state=RCPT", "client_address=192.0.2.7", "sasl_username="), "DUNNO"},
		{"no login, blocked client", question("protocol_state=RCPT", "client_address=192.0.2.66", "sasl_username="), "REJECT 5.7.1 this address"},
		{"a login is not its client", question("protocol_state=RCPT", "client_address=192.0.2.66", "sasl_username=alice@shop.test"), "DUNNO"},
		{"a login cannot pass for a client's", question("protocol_state=RCPT", "client_address=192.0.2.7", "sasl_username=client"), "DUNNO"},
		{"blocked at DATA", question("protocol_state=DATA", "sasl_username=mallory@shop.test"), "REJECT 5.7.1 Sending is stopped. action=OK"},
		{"another order", "sasl_username=mallory@shop.test\nprotocol_state=RCPT\nrequest=smtpd_access_policy\n\n", "REJECT 5.7.1 Sending is stopped. action=OK"},
		{"no instance", question("protocol_state=RCPT", "sasl_username=alice@shop.test", "recipient=r@ok.test"), "DUNNO"},
		{"endless instance", rcpt("alice@shop.test", strings.Repeat("9", 4000), "r@ok.test"), "DUNNO"},
		{"value with = and NUL", question("protocol_state=RCPT", "sender=a=b\x00c", "sasl_username=alice@shop.test"), "DUNNO"},
		{"login with CR", rcpt("mallory@shop.test\r", "1.a.b.5", "r@ok.test"), "DUNNO"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := c.ask(test.request); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestMalformedRequestsRefuseNobody(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	for _, test := range []struct{ name, request string }{
		{"empty", "\n\n"},
		{"no request attribute", "protocol_state=RCPT\nsasl_username=mallory@shop.test\n\n"},
		{"another request", "request=junk\nprotocol_state=RCPT\nsasl_username=mallory@shop.test\n\n"},
		{"no equals sign", question("protocol_state=RCPT", "sasl_username=mallory@shop.test", "junk")},
		{"no name", question("protocol_state=RCPT", "sasl_username=mallory@shop.test", "=junk")},
		{"login twice", question("protocol_state=RCPT", "sasl_username=alice@shop.test", "sasl_username=mallory@shop.test")},
		{"empty login, then another", question("protocol_state=RCPT", "sasl_username=", "sasl_username=mallory@shop.test")},
		{"too many attributes", question(strings.Split(strings.Repeat("x=y\n", 200)+"sasl_username=mallory@shop.test", "\n")...)},
		{"too long", strings.Repeat("x", maxRequest)},
		{"carriage returns", "request=smtpd_access_policy\r\nsasl_username=mallory@shop.test\r\n\n"},
		{"binary", "\x00\x01\x02\xff\xfe\n\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Policy{Table: table}
			c := dial(t, "tcp", serve(t, p))
			if got := c.ask(test.request); got != "DUNNO" {
				t.Errorf("got %q, want DUNNO", got)
			}
			if got := c.answer(); got != "closed" {
				t.Errorf("then got %q, want the connection closed", got)
			}
			if got := p.Stats().Malformed; got != 1 {
				t.Errorf("counted %d malformed requests, want 1", got)
			}
		})
	}
}

func TestRequestInPieces(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	c := dial(t, "tcp", serve(t, &Policy{Table: table}))
	request := rcpt("mallory@shop.test", "1.a.b.0", strings.Repeat("r", 8000)+"@ok.test")
	for _, piece := range []string{request[:1], request[1 : len(request)-1], request[len(request)-1:] + request + request[:40]} {
		if _, err := io.WriteString(c.conn, piece); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		if got := c.answer(); got != "REJECT 5.7.1 no" {
			t.Errorf("answer %d: got %q", i, got)
		}
	}
	if got := c.ask(request[40:]); got != "REJECT 5.7.1 no" {
		t.Errorf("last answer: got %q", got)
	}
}

func TestThrottleHoldsMessages(t *testing.T) {
	table := &Table{Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 3} }}
	table.Set(decision(rules.Throttle, "alice@shop.test"), "released later")
	seen := make(chan Request, 10)
	p := &Policy{Table: table, Seen: func(r Request) { seen <- r }}
	c := dial(t, "tcp", serve(t, p))
	const held = "HOLD released later"
	free := func(want int) {
		t.Helper()
		now := time.Now()
		if got := table.Lookup("alice@shop.test", now).Free(now); got != want {
			t.Errorf("free %d, want %d", got, want)
		}
	}
	ask := func(request, want string) {
		t.Helper()
		if got := c.ask(request); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for i, want := range []string{"DUNNO", "DUNNO", "DUNNO", held, held} { // a large message
		ask(rcpt("alice@shop.test", "1.a.b.0", fmt.Sprintf("r%d@ok.test", i)), want)
	}
	ask(question("protocol_state=DATA", "instance=1.a.b.0", "recipient_count=5", "sasl_username=alice@shop.test"), "DUNNO")
	ask(end("alice@shop.test", "1.a.b.0", 5), held)
	if r := <-seen; r.Answer != Hold || len(r.Recipients) != 5 {
		t.Errorf("seen %v with %d recipients, want it held with 5", r.Answer, len(r.Recipients))
	}
	free(3) // it pays when it is released

	ask(rcpt("alice@shop.test", "1.a.b.1", "r1@ok.test"), "DUNNO")
	ask(rcpt("alice@shop.test", "1.a.b.1", "r2@ok.test"), "DUNNO")
	ask(end("alice@shop.test", "1.a.b.1", 2), "DUNNO")
	<-seen
	free(1)
	ask(end("alice@shop.test", "1.a.b.2", 2), held) // RCPT was not asked
	<-seen
	free(1)
	ask(rcpt("alice@shop.test", "1.a.b.3", "r1@ok.test"), "DUNNO")
	ask(rcpt("alice@shop.test", "1.a.b.4", "r1@ok.test"), held)
	ask(rcpt("alice@shop.test", "1.a.b.4", "r1@ok.test"), held) // asked by a second list
	ask(end("alice@shop.test", "1.a.b.3", 2), held)             // one that was not asked about cannot be paid
	<-seen
	free(1)
	ask(end("alice@shop.test", "1.a.b.4", 1), held)
	<-seen
	free(1)
	if got := p.Stats().Messages; got != 0 {
		t.Errorf("%d messages are kept, want none after their end", got)
	}
}

func TestThrottleDefersRecipients(t *testing.T) {
	table := &Table{Throttled: Defer, Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 2} }}
	table.Set(decision(rules.Throttle, "alice@shop.test"), "too many for now")
	p := &Policy{Table: table}
	c := dial(t, "tcp", serve(t, p))
	const later = "DEFER 4.7.1 too many for now"
	steps := []struct{ request, want string }{
		{rcpt("alice@shop.test", "1.a.b.0", "r1@ok.test"), "DUNNO"},
		{rcpt("alice@shop.test", "1.a.b.0", "r1@ok.test"), "DUNNO"}, // asked by a second list: not charged
		{rcpt("alice@shop.test", "1.a.b.0", "r2@ok.test"), "DUNNO"},
		{rcpt("alice@shop.test", "1.a.b.0", "r3@ok.test"), later},
		{rcpt("alice@shop.test", "1.a.b.0", "r3@ok.test"), later},
		{question("protocol_state=DATA", "instance=1.a.b.0", "recipient_count=2", "sasl_username=alice@shop.test"), "DUNNO"},
		{end("alice@shop.test", "1.a.b.0", 2), "DUNNO"}, // paid at RCPT: nothing charged twice
		{rcpt("alice@shop.test", "1.a.b.1", "r4@ok.test"), later},
		{rcpt("bob@shop.test", "1.a.b.2", "r5@ok.test"), "DUNNO"},
		{end("bob@shop.test", "1.a.b.2", 1), "DUNNO"},
	}
	for i, step := range steps {
		if got := c.ask(step.request); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
	}
	if got := table.Lookup("alice@shop.test", time.Now()).Given(); got != 3 {
		t.Errorf("deferred %d times, want 3", got)
	}
	if got := p.Stats().Messages; got != 0 {
		t.Errorf("%d messages are kept, want none after their end", got)
	}
}

func TestThrottleThatBeginsInMidMessage(t *testing.T) {
	table := &Table{Throttled: Defer, Allowance: func(string) Allowance { return Allowance{Every: time.Hour, Burst: 2} }}
	c := dial(t, "tcp", serve(t, &Policy{Table: table, Seen: func(Request) {}}))
	for i := range 3 {
		c.ask(rcpt("alice@shop.test", "1.a.b.0", fmt.Sprintf("r%d@ok.test", i)))
	}
	table.Set(decision(rules.Throttle, "alice@shop.test"), "later")
	if got := c.ask(end("alice@shop.test", "1.a.b.0", 3)); got != "DEFER 4.7.1 later" {
		t.Errorf("more unpaid recipients than the allowance: got %q", got)
	}
	if got := c.ask(rcpt("alice@shop.test", "1.a.b.1", "r@ok.test")); got != "DUNNO" {
		t.Errorf("the deferred message was charged: got %q", got)
	}
}

func TestSeenGathersTheMessage(t *testing.T) {
	table := new(Table)
	table.Set(decision(rules.Hold, "bob@shop.test"), "held")
	seen := make(chan Request, 10)
	p := &Policy{
		Table:     table,
		Canonical: func(login string) string { return strings.ToLower(login) + "@shop.test" },
		Seen:      func(r Request) { r.Time = time.Time{}; seen <- r },
	}
	addr := serve(t, p)
	c, other := dial(t, "tcp", addr), dial(t, "tcp", addr)
	c.ask(rcpt("Bob", "1.a.b.0", "r1@ok.test"))
	other.ask(rcpt("alice", "2.a.b.0", "x@ok.test"))
	c.ask(rcpt("Bob", "1.a.b.0", "r2@ok.test"))
	c.conn.Close() // Postfix may come back on another connection
	other.ask(question("protocol_state=END-OF-MESSAGE", "instance=9.9.9.9", "sasl_username=", "recipient_count=1"))
	other.ask(end("Bob", "1.a.b.0", 2))

	want := Request{
		State: "END-OF-MESSAGE", Instance: "1.a.b.0", QueueID: "4jXK971kgrz1SRpG", Login: "Bob", Account: "bob@shop.test",
		Sender: "Bob", Client: netip.MustParseAddr("192.0.2.7"), ClientName: "host.test", Size: 238, Answer: Hold,
		RecipientCount: 2, Recipients: []string{"r1@ok.test", "r2@ok.test"},
	}
	if diff := cmp.Diff(<-seen, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("seen (-got +want):\n%s", diff)
	}
	if len(seen) > 0 {
		t.Errorf("told more than once, or of mail without a login: %+v", <-seen)
	}
	if got := p.Stats().Messages; got != 1 {
		t.Errorf("%d messages are open, want alice's", got)
	}
}

func TestSlowSeenDelaysNoAnswer(t *testing.T) {
	block := make(chan struct{})
	c := dial(t, "tcp", serve(t, &Policy{Table: new(Table), Seen: func(Request) { <-block }}))
	defer close(block)
	if got := c.ask(end("alice@shop.test", "1.a.b.0", 1)); got != "DUNNO" {
		t.Errorf("got %q", got)
	}
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	p := &Policy{
		Table:     new(Table),
		Canonical: func(login string) string { panic("mistake") },
		Log:       slog.New(slog.DiscardHandler),
	}
	addr := serve(t, p)
	if got := dial(t, "tcp", addr).ask(rcpt("alice@shop.test", "1.a.b.0", "r@ok.test")); got != "closed" {
		t.Errorf("got %q, want the connection closed", got)
	}
	if got := dial(t, "tcp", addr).ask(question("protocol_state=RCPT")); got != "DUNNO" {
		t.Errorf("the next connection got %q", got)
	}
	if got := p.Stats().Panics; got != 1 {
		t.Errorf("counted %d panics, want 1", got)
	}
}

func TestTooManyConnections(t *testing.T) {
	p := &Policy{Table: new(Table), MaxConns: 2}
	addr := serve(t, p)
	a, b := dial(t, "tcp", addr), dial(t, "tcp", addr)
	for _, c := range []*client{a, b} {
		if got := c.ask(question("protocol_state=RCPT")); got != "DUNNO" {
			t.Errorf("within the limit: got %q", got)
		}
	}
	if got := dial(t, "tcp", addr).answer(); got != "closed" {
		t.Errorf("over the limit: got %q, want closed at once", got)
	}
	if got := a.ask(question("protocol_state=RCPT")); got != "DUNNO" {
		t.Errorf("older connections live on: got %q", got)
	}
	if got := p.Stats().Refused; got != 1 {
		t.Errorf("counted %d refused connections, want 1", got)
	}
}

func TestSlowRequestsAreClosed(t *testing.T) {
	p := &Policy{Table: new(Table), RequestTimeout: 50 * time.Millisecond}
	addr := serve(t, p)
	drip := dial(t, "tcp", addr)
	if got := drip.ask("request=smtpd_access_policy\n"); got != "closed" {
		t.Errorf("half a request: got %q, want closed", got)
	}
	if got := p.Stats().Slow; got != 1 {
		t.Errorf("counted %d slow connections, want 1", got)
	}
	p = &Policy{Table: new(Table), IdleTimeout: 50 * time.Millisecond}
	if got := dial(t, "tcp", serve(t, p)).answer(); got != "closed" {
		t.Errorf("no request: got %q, want closed", got)
	}
}

func TestClientThatNeverReads(t *testing.T) {
	p := &Policy{Table: new(Table), WriteTimeout: 50 * time.Millisecond}
	conn, err := net.Dial("tcp", serve(t, p))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	for { // the answers fill the buffers of both ends, then the service gives up
		if _, err := io.WriteString(conn, strings.Repeat(question("a=b"), 1000)); err != nil {
			break
		}
	}
	if got := p.Stats().Slow; got != 1 {
		t.Errorf("counted %d slow connections, want 1", got)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := Listen("inet:127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- (&Policy{Table: new(Table)}).Serve(ctx, l) }()
	c := dial(t, "tcp", l.Addr().String())
	c.ask(question("protocol_state=RCPT"))
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if got := c.answer(); got != "closed" {
		t.Errorf("the open connection got %q, want closed", got)
	}
}

func TestUnixSocket(t *testing.T) {
	addr := "unix:" + filepath.Join(t.TempDir(), "policy")
	l, err := Listen(addr, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	table := new(Table)
	table.Set(decision(rules.Block, "mallory@shop.test"), "no")
	run(t, &Policy{Table: table}, l)
	got, err := Ask(t.Context(), addr, "protocol_state=RCPT", "sasl_username=mallory@shop.test")
	if err != nil || got != "REJECT 5.7.1 no" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestConformance replays what Postfix 3.7 asked about real mail.
func TestConformance(t *testing.T) {
	const samples = "../../../shared/testbed/samples/hooks.jsonl"
	file, err := os.Open(filepath.FromSlash(samples))
	if err != nil {
		t.Skipf("no recorded questions: %v", err)
	}
	defer file.Close()
	table := new(Table)
	table.Set(decision(rules.Block, "carol@shop.test"), "blocked")
	seen := make(chan Request, 100)
	c := dial(t, "tcp", serve(t, &Policy{Table: table, Seen: func(r Request) { seen <- r }}))
	recipients := map[string]int{}
	asked, ends := 0, 0
	for lines := json.NewDecoder(file); ; {
		var record struct {
			Source    string            `json:"src"`
			Attribute map[string]string `json:"attr"`
		}
		if err := lines.Decode(&record); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if record.Source != "policy" {
			continue
		}
		asked++
		var request strings.Builder
		for name, value := range record.Attribute {
			fmt.Fprintf(&request, "%s=%s\n", name, value)
		}
		want := "DUNNO"
		if record.Attribute["sasl_username"] == "carol@shop.test" {
			want = "REJECT 5.7.1 blocked"
		}
		if got := c.ask(request.String() + "\n"); got != want {
			t.Errorf("got %q, want %q about %v", got, want, record.Attribute)
		}
		if record.Attribute["sasl_username"] == "" {
			continue
		}
		instance := record.Attribute["instance"]
		switch record.Attribute["protocol_state"] {
		case "RCPT":
			if want == "DUNNO" {
				recipients[instance]++
			}
		case "END-OF-MESSAGE":
			ends++
			r := <-seen
			if r.QueueID == "" || r.Login == "" || !r.Client.IsValid() || len(r.Recipients) != recipients[instance] {
				t.Errorf("seen %+v after %d recipients", r, recipients[instance])
			}
		}
	}
	if asked == 0 || ends == 0 {
		t.Errorf("the samples hold %d questions, %d of them ends of messages with a login", asked, ends)
	}
}
