package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// judging is a hub's pipeline that can be given deliveries.
func judging(t *testing.T) (*pipeline, *acted) {
	t.Helper()
	p, acts, _ := answering(t)
	dir := &directory{}
	dir.set(&mailq.Directory{})
	j, err := newJudge(config.Default(), dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := &roster{db: p.store, members: map[string]hub.Member{
		"mx1": {Scope: hub.Scope{Agent: "mx1", Domains: []string{"shop.test"}}, Enrolment: "e1"},
	}}
	p.judge, p.directory, p.positions, p.stale = j, dir, map[string][]byte{}, 15*time.Minute
	p.fleet = &fleet{roster: r, board: &hub.Board{}, keyring: &keyring{}, foreign: map[string]time.Time{}, marks: map[string]hub.Mark{}}
	return p, acts
}

func submitted(account mailq.Account, at time.Time) mailq.Event {
	return mailq.Event{Time: at, Kind: mailq.Submitted, Account: account, Message: 7, Rcpts: 1, Counts: true, New: []mailq.Recipient{{Hash: 1, Domain: "ok.test"}}}
}

// seen is how many messages of an account the detector has counted.
func (p *pipeline) seenOf(account mailq.Account) int {
	n := 0
	for a := range p.judge.detector.Accounts {
		if a.Account == account {
			n = a.Messages
		}
	}
	return n
}

func TestDeliveryIsJudgedWithinTheScope(t *testing.T) {
	p, _ := judging(t)
	now := time.Now()
	d := hub.Delivery{Agent: "mx1", Received: now, At: hub.Position{Segment: 1, Offset: 5}, Batch: hub.Batch{
		Mark: hub.Mark{Epoch: 3, Seq: 9}, Lost: 4,
		Events: []mailq.Event{submitted("alice@shop.test", now), submitted("eve@elsewhere.test", now), submitted("user:bob", now)},
		Findings: []rules.Finding{
			{Rule: rules.Blind, Subject: "log \x1b[2J", Time: now, Since: now, Evidence: []rules.Evidence{{Text: "gone"}}},
			{Rule: rules.HijackedMailbox, Subject: "alice@shop.test", Time: now, Since: now, Score: 99},
		},
	}}
	p.deliver(d)
	for account, want := range map[mailq.Account]int{"alice@shop.test": 1, "eve@elsewhere.test": 0, "user:mx1!bob": 1, "user:bob": 0} {
		if got := p.seenOf(account); got != want {
			t.Errorf("%s: %d messages counted, want %d", account, got, want)
		}
	}
	p.fleet.positions(p.positions, now)
	if got := string(p.positions[journalSource]) + string(p.positions[agentSource+"mx1"]) + string(p.positions[marksSource]); got != `{"segment":1,"offset":5}{"epoch":3,"seq":9}{"segment":1,"offset":5}` {
		t.Errorf("positions %s", got)
	}
	var told []string
	for _, s := range p.steps {
		told = append(told, s.finding.Rule+" "+s.finding.Subject+" "+s.finding.Evidence[0].Text)
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{"blind mx1: log  [2J gone", "lost-coverage agent mx1 4 events did not fit", `such as "eve@elsewhere.test"`} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told:\n%s", want, all)
		}
	}
	if strings.Contains(all, rules.HijackedMailbox) {
		t.Errorf("an agent judges:\n%s", all)
	}
	p.fleet.roster.members = nil
	d.Events = []mailq.Event{submitted("alice@shop.test", now)}
	p.deliver(d)
	if got := p.seenOf("alice@shop.test"); got != 1 {
		t.Errorf("a revoked agent is believed: %d messages", got)
	}
}

func TestTimesOfAWrongClock(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name string
		skew time.Duration
		at   time.Time // as the agent says
		want time.Time
	}{
		{"right", 0, now.Add(-time.Second), now.Add(-time.Second)},
		{"two hours fast", 2 * time.Hour, now.Add(2*time.Hour - time.Second), now.Add(-time.Second)},
		{"two hours slow", -2 * time.Hour, now.Add(-2*time.Hour - time.Second), now.Add(-time.Second)},
		{"before the flood", 0, time.Unix(0, -1<<62), now.Add(-oldest)},
		{"the log's clock is fast and the agent's is not", 0, now.Add(2 * time.Hour), now.Add(soon)},
	} {
		v := visitor{Delivery: hub.Delivery{Received: now, Skew: test.skew}}
		if got := v.time(test.at); !got.Equal(test.want) {
			t.Errorf("%s: %s off", test.name, got.Sub(test.want))
		}
	}
}

// A clock that is two hours off makes no old news of what is new, and no block.
func TestHijackOnAServerWithAWrongClock(t *testing.T) {
	for _, skew := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		p, _ := judging(t)
		now := time.Now()
		d := hub.Delivery{Agent: "mx1", Received: now, Skew: skew, Batch: hub.Batch{Mark: hub.Mark{Epoch: 1, Seq: 1}}}
		for n := range 40 {
			ev := submitted("alice@shop.test", now.Add(skew).Add(time.Duration(n-40)*time.Second))
			ev.Message = uint64(n + 1)
			ev.New = []mailq.Recipient{{Hash: uint64(1000 + n), Domain: "x.test"}, {Hash: uint64(2000 + n), Domain: "y.test"}}
			out := ev
			out.Kind, out.Counts, out.New, out.To = mailq.Bounced, false, nil, ev.New[0]
			out.Reply = mailq.Reply{Class: mailq.Content, Provider: "google", Code: 550, Enhanced: "5.7.1", Text: "spam"}
			d.Events = append(d.Events, ev, out)
		}
		p.deliver(d)
		stopped := false
		for _, s := range p.steps {
			stopped = stopped || s.decision.Action >= rules.Throttle && !s.finding.Backlog
		}
		if !stopped {
			t.Errorf("%s off: nothing is stopped: %+v", skew, p.steps)
		}
	}
}

// Hours of mail that waited while the hub was away, told after what is new of the
// same account, have nobody stopped; that of an account that is silent since
// proposes. Each message is counted once, and how far both lanes came is noted.
func TestOldNewsAfterWhatIsNew(t *testing.T) {
	p, _ := judging(t)
	now := time.Now()
	waited := hub.Delivery{Agent: "mx1", Received: now, At: hub.Position{Segment: 1, Offset: 9}, Batch: hub.Batch{Mark: hub.Mark{Epoch: 2, Seq: 7, Late: true}}}
	for _, account := range []mailq.Account{"alice@shop.test", "bob@shop.test"} {
		for n := range 200 {
			ev := submitted(account, now.Add(-4*time.Hour+time.Duration(n)*time.Minute))
			ev.Message, ev.New = uint64(n+1), []mailq.Recipient{{Hash: uint64(1000 + n), Domain: "x.test"}, {Hash: uint64(2000 + n), Domain: "y.test"}}
			waited.Events = append(waited.Events, ev)
		}
	}
	waited.Samples = []mailq.QueueSample{{Time: now.Add(-time.Hour), Total: 1 << 20}, {Time: now.Add(-time.Hour), Total: 1 << 20}}
	p.deliver(hub.Delivery{Agent: "mx1", Received: now, Batch: hub.Batch{Mark: nth(3, 1), Events: []mailq.Event{submitted("alice@shop.test", now)}}})
	p.deliver(waited)
	proposed := false
	for _, s := range p.steps {
		if !s.finding.Backlog || s.finding.Subject != "bob@shop.test" || s.decision.Enforce && s.decision.Action > rules.Observe {
			t.Errorf("old news is acted on: %+v", s)
		}
		proposed = proposed || s.decision.Action > rules.Observe
	}
	if !proposed {
		t.Error("what bob did is not even told")
	}
	if a, b := p.seenOf("alice@shop.test"), p.seenOf("bob@shop.test"); a != 201 || b != 200 {
		t.Errorf("%d and %d messages are counted", a, b)
	}
	p.fleet.positions(p.positions, now)
	if got := string(p.positions[agentSource+"mx1"]) + string(p.positions[lateSource+"mx1"]); got != `{"epoch":3,"seq":1}{"epoch":2,"seq":7,"late":true}` {
		t.Errorf("marks %s", got)
	}
}

// What an agent has in force and the hub has not is over, or forgotten.
func TestHeldBlocks(t *testing.T) {
	p, acts := judging(t)
	s := &service{pipeline: p, config: config.Config{Mode: config.ModeEnforce}}
	p.fleet.takeovers.blast.Max = 1
	p.judge.policy.Exempt = []string{"@blog.test"}
	now := time.Now()
	known := rules.Decision{ID: "d1", Subject: "alice@shop.test", Action: rules.Block, Time: now, Enforce: true}
	if _, err := p.store.Commit(t.Context(), store.Batch{Decisions: []rules.Decision{known}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.EndDecisions(t.Context(), known.Subject, now, "root", "it was her"); err != nil {
		t.Fatal(err)
	}
	forgotten := rules.Decision{ID: "d2", Subject: "bob@shop.test", Action: rules.Block, Time: now, Enforce: true, Why: "score\x1b 17"}
	past := rules.Decision{ID: "d3", Subject: "carol@shop.test", Action: rules.Hold, Time: now.Add(-time.Hour), Until: now.Add(-time.Minute), Enforce: true}
	reset := rules.Decision{ID: "d4", Subject: "dave@shop.test", Action: rules.Reset, Time: now, Enforce: true}
	over, err := s.held(t.Context(), "mx1", []rules.Decision{known, forgotten, past, reset})
	if err != nil || fmt.Sprint(over) != "[alice@shop.test carol@shop.test]" {
		t.Errorf("over %v, %v", over, err)
	}
	if got := strings.Join(acts.did, ", "); got != "block bob@shop.test" {
		t.Errorf("did %s", got)
	}
	active, err := p.store.Active(t.Context(), now)
	if err != nil || len(active) != 1 || active[0].Why != "score  17" {
		t.Errorf("active %+v, %v", active, err)
	}
}

func TestForwarderSealsEverythingOnce(t *testing.T) {
	f := newForwarder()
	for n := range hub.MaxEvents + 5 {
		f.event(&mailq.Event{Kind: mailq.Submitted, Size: n})
	}
	f.findings = []rules.Finding{{Rule: rules.Blind}}
	f.lost.Store(3)
	positions := map[string][]byte{}
	rows := f.seal(time.Now(), positions)
	if len(rows) != 2 || string(positions[spoolSource]) != "2" || f.full() {
		t.Fatalf("%d rows, %s", len(rows), positions[spoolSource])
	}
	at, findings, lost := 0, 0, uint64(0)
	for i, row := range rows {
		b, err := hub.Sealed{Mark: hub.Mark{Epoch: 1, Seq: row.Seq}, Body: row.Body}.Open()
		if err != nil || row.Seq != uint64(i+1) || row.Events != len(b.Events) {
			t.Fatalf("row %d: %v", i, err)
		}
		for _, e := range b.Events {
			if e.Size != at {
				t.Fatalf("event %d is %d", at, e.Size)
			}
			at++
		}
		findings, lost = findings+len(b.Findings), lost+b.Lost
	}
	if at != hub.MaxEvents+5 || findings != 1 || lost != 3 {
		t.Errorf("%d events, %d findings, %d lost", at, findings, lost)
	}
	if rows := f.seal(time.Now(), positions); len(rows) != 0 {
		t.Errorf("%d more rows of nothing", len(rows))
	}
}

func TestDomainsOfAnAgent(t *testing.T) {
	got, err := checkDomains([]string{"Shop.TEST.", "shop.test", "*"})
	if err != nil || fmt.Sprint(got) != "[* shop.test]" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "a b", "alice@shop.test", "*.shop.test", "x:y"} {
		if _, err := checkDomains([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// The www of each machine is shared, under whichever name.
func TestSharedIdentitiesOfAgents(t *testing.T) {
	dir := &directory{}
	dir.set(&mailq.Directory{})
	for account, want := range map[mailq.Account]bool{
		"user:www-data": true, "user:mx1!www-data": true, "user:mx1!alice": false, "alice@shop.test": false,
	} {
		if got := dir.IsShared(account); got != want {
			t.Errorf("%s: %v", account, got)
		}
	}
	var _ detector.Directory = dir
}

// An agent that is silent, or whose clock is wrong, is told of until it is heard
// again or is not expected any more.
func TestWatchedAgents(t *testing.T) {
	p, _ := judging(t)
	p.asks = make(chan func())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.done = make(chan struct{})
	go func() {
		for {
			select {
			case ask := <-p.asks:
				ask()
			case <-ctx.Done():
				return
			}
		}
	}()
	s := &service{pipeline: p}
	p.fleet.eyes, p.fleet.clocks, p.fleet.silent, p.fleet.started = map[string]*eye{}, map[string]*eye{}, 2*time.Minute, time.Now().Add(-time.Hour)
	now := time.Now()
	for _, step := range []struct {
		name string
		do   func()
		want string // of the parts that are not well
	}{
		{"never heard", func() { s.watchAgent(ctx, "mx1", hub.Presence{}) }, "has been silent for 1h0m0s"},
		{"heard", func() { s.watchAgent(ctx, "mx1", hub.Presence{Seen: now}) }, ""},
		{"with a wrong clock", func() { s.watchAgent(ctx, "mx1", hub.Presence{Seen: now, Skew: -2 * time.Hour}) }, "is -2h0m0s off"},
		{"revoked", func() { s.unwatchAgent("mx1") }, ""},
	} {
		step.do()
		var unwell string
		for _, why := range s.Health(ctx).Parts {
			if why != "ok" {
				unwell += why
			}
		}
		if step.want == "" && unwell != "" || !strings.Contains(unwell, step.want) {
			t.Errorf("%s: %q, want %q", step.name, unwell, step.want)
		}
	}
}

// A hub takes over from an agent no more than it would do by itself.
func TestTakeoversAreBounded(t *testing.T) {
	p, acts := judging(t)
	s := &service{pipeline: p, config: config.Config{Mode: config.ModeEnforce}}
	p.fleet.takeovers.blast.Max = 2
	p.judge.policy.Exempt = []string{"@blog.test"}
	claim := func(n int, subject string) rules.Decision {
		return rules.Decision{ID: fmt.Sprint("x", n), Subject: subject, Action: rules.Block, Time: time.Now(), Enforce: true}
	}
	p.asks, p.done = make(chan func()), make(chan struct{})
	go func() {
		for ask := range p.asks {
			ask()
		}
		close(p.done)
	}()
	over, err := s.held(t.Context(), "mx1", []rules.Decision{
		claim(1, "carol@blog.test"), claim(2, "user:mx1!www-data"), claim(3, "a@shop.test"), claim(4, "b@shop.test"), claim(5, "c@shop.test"),
	})
	if err != nil || len(over) > 0 {
		t.Errorf("over %v, %v: what is not taken over stays there", over, err)
	}
	if got := strings.Join(acts.did, ", "); got != "block a@shop.test, block b@shop.test" {
		t.Errorf("did %s", got)
	}
	s.config.Mode = config.ModeObserve
	p.fleet.takeovers.blast.Max = 100
	if _, err := s.held(t.Context(), "mx1", []rules.Decision{claim(6, "d@shop.test")}); err != nil || len(acts.did) != 2 {
		t.Errorf("a hub that observes: %v, did %v", err, acts.did)
	}
	close(p.asks)
	<-p.done
	if len(p.steps) != 1 || !strings.Contains(p.steps[0].finding.Evidence[0].Text, "agent mx1 stops 3 accounts") {
		t.Errorf("people are told %+v; want it once an hour", p.steps)
	}
}
