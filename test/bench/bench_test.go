package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/loggen"
)

// service answers policy questions: it refuses one login.
func service(t *testing.T, blocked string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answerAll(conn, blocked)
		}
	}()
	return l.Addr().String()
}

func answerAll(conn net.Conn, blocked string) {
	defer conn.Close()
	action := "DUNNO"
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		switch lines.Text() {
		case "sasl_username=" + blocked:
			action = "REJECT 5.7.1 blocked"
		case "":
			if _, err := io.WriteString(conn, "action="+action+"\n\n"); err != nil {
				return
			}
			action = "DUNNO"
		}
	}
}

func TestAsk(t *testing.T) {
	o := gateOptions{kind: kinds[0], accounts: 4, workers: 3, duration: 300 * time.Millisecond}
	o.addr = service(t, loggen.Options{}.Login(2))

	flat, err := o.ask(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if flat.actions["DUNNO"] == 0 || flat.actions["REJECT"] == 0 || len(flat.actions) != 2 {
		t.Errorf("actions %v, want DUNNO and REJECT", flat.actions)
	}
	if got, want := flat.actions["DUNNO"]+flat.actions["REJECT"], len(flat.answers); got != want {
		t.Errorf("%d actions for %d answers", got, want)
	}
	paced, err := o.ask(t.Context(), 200)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(paced.answers); n < 20 || n > 70 {
		t.Errorf("%d answers in 0.3 s at 200 a second", n)
	}
	for _, a := range paced.answers {
		if a.sent.Before(a.due) || a.answered.Before(a.sent) {
			t.Fatalf("out of order: %+v", a)
		}
	}
}

func TestAskNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, k := range kinds {
		o := gateOptions{kind: k, addr: l.Addr().String(), accounts: 1, workers: 1, duration: time.Second}
		if _, err := o.ask(t.Context(), 0); err == nil {
			t.Errorf("%s: no error where nobody answers", k.name)
		}
	}
}

func TestPolicyAnswer(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		ok       bool
	}{
		{"action=DUNNO\n\n", "DUNNO", true},
		{"action=REJECT 5.7.1 no\r\n\r\n", "REJECT", true},
		{"action=DUNNO\nmore\n", "", false},
		{"DUNNO\n\n", "", false},
		{"DUNNO\n", "", false},
		{"action=DUNNO\n", "", true}, // not whole yet
		{"action=DUNNO\n\r", "", true},
		{"action=DUN", "", true},
		{"", "", true},
	} {
		got, err := policyClient{}.answered([]byte(tt.in), false)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: got %q, %v", tt.in, got, err)
		}
	}
}

func TestMilterAnswer(t *testing.T) {
	agreed := offer(6, uint32(milterMay), uint32(milterSteps))
	for _, tt := range []struct {
		name   string
		agreed bool
		in     []byte
		want   string
		ok     bool
	}{
		{"agreed", false, appendPacket(nil, 'O', agreed), "agreed", true},
		{"half of it", false, appendPacket(nil, 'O', agreed)[:9], "", true},
		{"other steps", false, appendPacket(nil, 'O', offer(6, 0, 0)), "agreed", false},
		{"continue", true, appendPacket(nil, 'c', ""), "continue", true},
		{"a text", true, appendPacket(nil, 'y', "550 no\x00"), "reply", true},
		{"half a text", true, appendPacket(nil, 'y', "550 no\x00")[:8], "", true},
		{"held", true, appendPacket(nil, 'q', "why\x00"), "", false},
	} {
		c := milterClient{agreed: tt.agreed}
		if got, err := c.answered(tt.in, false); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%s: got %q, %v", tt.name, got, err)
		}
	}
}

// TestAskTheSilent: who hangs up or answers nonsense is an error, not an answer.
func TestAskTheSilent(t *testing.T) {
	for _, says := range []string{"", "action=DUNNO\n", "no\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			if conn, err := l.Accept(); err == nil {
				bufio.NewReader(conn).ReadString('\n')
				io.WriteString(conn, says)
				conn.Close()
			}
		}()
		o := gateOptions{kind: kinds[0], addr: l.Addr().String(), accounts: 1, workers: 1, duration: time.Second}
		if got, err := o.ask(t.Context(), 0); err == nil || len(got.answers) > 0 {
			t.Errorf("%q: %d answers, no error", says, len(got.answers))
		}
	}
}

// TestWaited: a client that has to wait for an answer before it can ask again
// has waited since it wanted to ask; one that its own timer woke late has not.
func TestWaited(t *testing.T) {
	due := time.Now()
	sent, answered := due.Add(4*time.Millisecond), due.Add(5*time.Millisecond)
	if got := (answer{due: due, sent: sent, answered: answered}).waited(); got != time.Millisecond {
		t.Errorf("woken late: waited %v, want 1ms", got)
	}
	if got := (answer{due: due, sent: sent, answered: answered, late: true}).waited(); got != 5*time.Millisecond {
		t.Errorf("held up by the answer before: waited %v, want 5ms", got)
	}
}

// TestBare: the bare server of each kind lets everything pass.
func TestBare(t *testing.T) {
	for i, words := range [][]string{{"DUNNO"}, {"accept", "continue"}, {"OK"}} {
		k := kinds[i]
		t.Run(k.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			r, w := io.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- serveBare(ctx, []string{k.name}, w) }()
			addr, err := bufio.NewReader(r).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			o := gateOptions{kind: k, addr: strings.TrimSpace(addr), accounts: 4, workers: 3, duration: 100 * time.Millisecond}
			got, err := o.ask(t.Context(), 0)
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(words, slices.Sorted(maps.Keys(got.actions))); diff != "" {
				t.Error(diff)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGates: the clients understand the gate itself, and it them.
func TestGates(t *testing.T) {
	blocked := loggen.Options{}.Login(2)
	table := new(gate.Table)
	table.Set(rules.Decision{Subject: blocked, Action: rules.Block, Enforce: true}, "blocked")
	policy, filter, exim := &gate.Policy{Table: table}, &gate.Milter{Table: table}, &gate.Exim{Table: table}
	for i, serve := range []func(context.Context, net.Listener) error{policy.Serve, filter.Serve, exim.Serve} {
		k := kinds[i]
		t.Run(k.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, l) }()
			o := gateOptions{kind: k, addr: l.Addr().String(), accounts: 4, workers: 3, duration: 100 * time.Millisecond}
			got, err := o.ask(t.Context(), 0)
			if err != nil {
				t.Error(err)
			}
			refused := got.actions["REJECT"] + got.actions["reply"] + got.actions["DENY"]
			if n := len(got.answers); refused == 0 || refused > n/2 {
				t.Errorf("%d answers, %v: want some refusals, for one account of four", n, got.actions)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	for _, stats := range []gate.Stats{policy.Stats(), filter.Stats(), exim.Stats()} {
		if stats.Malformed+stats.Slow+stats.Refused+stats.Panics > 0 {
			t.Errorf("the gate counted %+v", stats)
		}
	}
}

func TestFindKind(t *testing.T) {
	if k, err := findKind("exim"); err != nil || k.name != "exim" {
		t.Errorf("got %q, %v", k.name, err)
	}
	if _, err := findKind("smtp"); err == nil {
		t.Error("no error for a kind that is none")
	}
}

// TestTrial: what stops package bed becomes an error, and what it asked for is
// cleaned up, the latest first.
func TestTrial(t *testing.T) {
	tr := new(trial)
	order := ""
	err := tr.try(func() {
		tr.Cleanup(func() { order += "1" })
		tr.Cleanup(func() { order += "2" })
		tr.Skip("Postfix is not installed")
	})
	tr.end()
	if err == nil || err.Error() != "Postfix is not installed" || !tr.Failed() || order != "21" {
		t.Errorf("got %v, failed %v, cleaned up %q", err, tr.Failed(), order)
	}
	if err := tr.try(func() {}); err != nil {
		t.Error(err)
	}
}

// TestDelivered: an empty queue is waited for, and a message that stays is told.
func TestDelivered(t *testing.T) {
	spool := t.TempDir()
	for _, name := range []string{"incoming", "active", "deferred", "hold"} {
		if err := os.Mkdir(filepath.Join(spool, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := delivered(t.Context(), spool); err != nil {
		t.Error(err)
	}
	queued := filepath.Join(spool, "active", "4jXK971kgrz1SRpG")
	if err := os.WriteFile(queued, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := delivered(ctx, spool); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v while a message is active", err)
	}
	if err := os.Rename(queued, filepath.Join(spool, "hold", "4jXK971kgrz1SRpG")); err != nil {
		t.Fatal(err)
	}
	if err := delivered(t.Context(), spool); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a message on hold to be told", err)
	}
}

func TestPercentileAndMedian(t *testing.T) {
	var r outcome
	start := time.Now()
	for i := range 100 {
		r.answers = append(r.answers, answer{due: start, sent: start, answered: start.Add(time.Duration(100-i) * time.Millisecond)})
	}
	if got := r.percentile(50); got != 51*time.Millisecond {
		t.Errorf("p50 of 1…100 ms is %v", got)
	}
	if got := r.percentile(99); got != 100*time.Millisecond {
		t.Errorf("p99 of 1…100 ms is %v", got)
	}
	if got := (outcome{}).percentile(99); got != 0 {
		t.Errorf("p99 of nothing is %v", got)
	}
	costs := []cost{{wall: 3 * time.Second}, {wall: time.Second}, {wall: 2 * time.Second}}
	if got := median(costs, cost.wallSeconds); got != 2 {
		t.Errorf("median of 3, 1, 2 is %v", got)
	}
	if got := median(costs[:2], cost.wallSeconds); got != 2 {
		t.Errorf("median of 3, 1 is %v", got)
	}
}

func TestPour(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var to bytes.Buffer
	if err := pour(ctx, &to, strings.NewReader(strings.Repeat("line\n", 10000)), 1000); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(to.String(), "line\n"); n < 100 || n > 210 || len(to.String()) != n*5 {
		t.Errorf("%d lines in 0.2 s at 1000 a second", n)
	}
	if err := pour(t.Context(), &to, strings.NewReader("line\n"), 1000); err == nil {
		t.Error("no error when the lines end")
	}
}

func TestFeedLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "maillog")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := (gateOptions{feed: log, feedRate: 2000, accounts: 50}).feedLog(ctx); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte(" postfix/")); n < 100 {
		t.Errorf("%d lines were fed", n)
	}
}

func TestTellJudges(t *testing.T) {
	d := duel{format: loggen.Postfix, rival: "rival", wall: 20, cpu: 10}
	second := cost{time.Second, time.Second, 100 << 20}
	for _, tt := range []struct {
		name   string
		theirs cost
		ours   cost
		missed []string
	}{
		{"all met", cost{20 * time.Second, 10 * time.Second, 0}, second, nil},
		{"too slow", cost{19 * time.Second, 10 * time.Second, 0}, second, []string{"wall clock"}},
		{"too much CPU", cost{20 * time.Second, 9 * time.Second, 0}, second, []string{"CPU time"}},
		{"too big", cost{20 * time.Second, 10 * time.Second, 0}, cost{time.Second, time.Second, maxRSS}, []string{"MB at most"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := d.tell([]cost{tt.ours}, []cost{tt.theirs}, &out)
			if (err != nil) != (len(tt.missed) > 0) {
				t.Errorf("error %v", err)
			}
			if got := strings.Count(out.String(), "MISSED"); got != len(tt.missed) {
				t.Errorf("%d goals missed, want %d:\n%s", got, len(tt.missed), out.String())
			}
			for _, want := range tt.missed {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want it to name %q", err, want)
				}
			}
		})
	}
}

func TestMeasure(t *testing.T) {
	got, err := measure(t.Context(), []string{"/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"})
	if err != nil {
		t.Fatal(err)
	}
	if got.wall <= 0 || got.cpu <= 0 || got.rss < 100_000 {
		t.Errorf("%+v", got)
	}
	_, err = measure(t.Context(), []string{"/bin/sh", "-c", "echo oh no >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "oh no") {
		t.Errorf("got %v, want what the program said", err)
	}
	if diff := cmp.Diff(verdict(true)+verdict(false), "metMISSED"); diff != "" {
		t.Error(diff)
	}
}

func TestProcessTime(t *testing.T) {
	begun, started := processTime(os.Getpid()), time.Now()
	for processTime(os.Getpid())-begun < 10*time.Millisecond {
		if time.Since(started) > 20*time.Second {
			t.Fatalf("%v of processor time after 20 s of work", processTime(os.Getpid())-begun)
		}
	}
	if took := time.Since(started); begun == 0 || took < 10*time.Millisecond/time.Duration(runtime.NumCPU()) {
		t.Errorf("%v of processor time before, and 10 ms more in %v", begun, took)
	}
	if got := processTime(0); got != 0 {
		t.Errorf("nobody used %v", got)
	}
}

// TestSweep names each question once, and finds a verdict that is missing or
// wrong.
func TestSweep(t *testing.T) {
	s := sweep{addresses: 300, lists: 3}
	names := map[string]bool{}
	listed := 0
	for i := range s.questions() {
		names[s.question(i)] = true
		if listedIn(s.question(i)) {
			listed++
		}
	}
	if len(names) != 900 || !names["43.1.18.198.list02.vedetta-bench.net."] || listed != 9 {
		t.Errorf("%d names, %d of them listed; want 900 and 9", len(names), listed)
	}
	var all bytes.Buffer
	for i := range s.questions() {
		status := "clean"
		if listedIn(s.question(i)) {
			status = "listed"
		}
		all.WriteString(`{"subject":"` + s.address(i/s.lists).String() + `","status":"` + status + `"}` + "\n")
	}
	for _, tt := range []struct{ name, verdicts, want string }{
		{"all", all.String(), ""},
		{"one missing", all.String()[:strings.LastIndex(strings.TrimSpace(all.String()), "\n")+1], "verdict 900 of 900"},
		{"one unknown", strings.Replace(all.String(), "clean", "unknown", 1), "lost: 198.18.0.0"},
		{"one wrong", strings.Replace(all.String(), "listed", "clean", 1), "lost: 198.18.0.7"},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "verdicts"))
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(tt.verdicts)
		if err := s.count(f); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		f.Close()
	}
}
