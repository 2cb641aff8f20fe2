package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/test/bed"
)

func TestRotationWaitsForAgents(t *testing.T) {
	begun := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	r := &rotation{Begun: begun, Lasts: 30 * day}
	agents := []store.AgentRow{{Name: "mx1", Enrolled: begun.Add(-day)}, {Name: "mx2", Enrolled: begun.Add(-day)}, {Name: "new", Enrolled: begun.Add(4 * day), Added: begun.Add(4*day - time.Hour)}}
	for _, step := range []struct {
		after time.Duration
		agent string
		print string
		ends  time.Duration // after begun; 0: it waits
	}{
		{day, "mx1", "both", 0},
		{2 * day, "mx2", "before", 0},
		{3 * day, "mx2", "both", 0},
		{4 * day, "new", "both", 33 * day}, // who was added since does not put it off
		{5 * day, "mx1", "both", 33 * day},
		{6 * day, "mx1", "", 0}, // the release before is installed there again …
		{9 * day, "mx1", "both", 39 * day},
	} {
		for _, late := range []time.Duration{0, flicker + 1} { // one glimpse is not enough
			r, _ = r.heard([]hub.Presence{{Agent: step.agent, Seen: begun, Keys: step.print}, {Agent: "mx1"}}, "both", begun.Add(step.after+late))
		}
		ends, _, waits := r.end(agents)
		if want := begun.Add(step.ends); step.ends > 0 && !ends.Equal(want) || step.ends == 0 && len(waits) == 0 {
			t.Errorf("after %v: ends %v, waits for %v", step.after, ends, waits)
		}
	}
	late := store.AgentRow{Name: "late", Enrolled: begun.Add(day), Added: begun.Add(day)}
	r, _ = r.heard([]hub.Presence{{Agent: late.Name, Seen: begun, Keys: "both"}}, "both", begun.Add(50*day))
	if ends, last, waits := r.end(append(agents, late)); !ends.Equal(begun.Add(80*day)) || last != "late" {
		t.Errorf("with an agent that was added, and hashed with one key for weeks: ends %v for %q, waits for %v", ends, last, waits)
	}
	if r.waitsFor(store.AgentRow{Name: "gone"}) || (*rotation)(nil).waitsFor(agents[0]) || !r.waitsFor(store.AgentRow{Name: "mx9", Enrolled: begun}) {
		t.Error("waits for whom it need not")
	}
}

// Revoking an agent that hashed with the old key alone does not undo that it did.
func TestRotationAfterARevocation(t *testing.T) {
	begun := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	r := &rotation{Begun: begun, Lasts: 30 * day, Both: map[string]time.Time{"mx1": begun.Add(day)}}
	before := begun.AddDate(-1, 0, 0)
	for _, test := range []struct {
		name  string
		agent store.AgentRow
		ends  time.Duration // after begun; 0: it waits
	}{
		{"waited for", store.AgentRow{Name: "mx2", Added: before, Enrolled: before, Revoked: begun.Add(20 * day)}, 50 * day},
		{"added since", store.AgentRow{Name: "mx2", Added: begun.Add(day), Enrolled: begun.Add(day), Revoked: begun.Add(20 * day)}, 50 * day},
		{"with both keys", store.AgentRow{Name: "mx1", Added: before, Enrolled: before, Revoked: begun.Add(20 * day)}, 31 * day},
		{"before the beginning", store.AgentRow{Name: "mx2", Added: before, Enrolled: before, Revoked: begun.Add(-day)}, 30 * day},
		{"never enrolled", store.AgentRow{Name: "mx2", Added: before, Revoked: begun.Add(20 * day)}, 30 * day},
		{"welcome again", store.AgentRow{Name: "mx2", Added: before, Enrolled: before}, 0},
	} {
		ends, _, waits := r.end([]store.AgentRow{test.agent})
		if want := begun.Add(test.ends); test.ends > 0 && !ends.Equal(want) || test.ends == 0 && len(waits) == 0 {
			t.Errorf("%s: ends %v, waits for %v", test.name, ends, waits)
		}
	}
}

// An agent that hashes with other keys for some minutes, as after an enrolment, does
// not begin the time anew.
func TestRotationOutlastsAGlimpse(t *testing.T) {
	begun := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	r := &rotation{Begun: begun, Lasts: 720 * time.Hour, Both: map[string]time.Time{"mx1": begun}}
	for _, step := range []struct {
		after time.Duration
		print string
		both  bool
	}{
		{time.Hour, "before", true}, {time.Hour + 9*time.Minute, "before", true},
		{time.Hour + 10*time.Minute, "both", true},
		{time.Hour + 11*time.Minute, "before", true}, {time.Hour + 20*time.Minute, "before", true},
		{time.Hour + 22*time.Minute, "before", false},
	} {
		var changed bool
		r, changed = r.heard([]hub.Presence{{Agent: "mx1", Seen: begun, Keys: step.print}}, "both", begun.Add(step.after))
		if _, both := r.Both["mx1"]; both != step.both || changed == step.both {
			t.Errorf("after %v: %v, written: %v", step.after, r.Both, changed)
		}
	}
}

// An agent that cannot keep the keys goes on with the old ones, and asks again.
func TestKeysThatAreNotKept(t *testing.T) {
	p, _ := judging(t)
	s := &service{pipeline: p, agent: &agent{client: &hub.Client{Dir: filepath.Join(t.TempDir(), "gone")}}}
	old := &hub.Keys{Key: [16]byte{1}}
	s.agent.keys.Store(old)
	if err := s.takeKeys(t.Context(), &hub.Keys{Key: [16]byte{1}, Next: [16]byte{2}}); err == nil || s.agent.keys.Load() != old {
		t.Errorf("taken: %v", err)
	}
	for _, keys := range []*hub.Keys{nil, {Key: [16]byte{1}}} {
		if err := s.takeKeys(t.Context(), keys); err != nil {
			t.Error(err)
		}
	}
}

// An agent that hashes with other keys is told of, in a rotation and outside one.
func TestOtherKeysAreTold(t *testing.T) {
	p, _ := judging(t)
	p.fleet.eyes, p.fleet.clocks, p.fleet.hashing = map[string]*eye{}, map[string]*eye{}, map[string]*hashing{}
	s := &service{pipeline: p, keyring: &keyring{}}
	now := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody judges here
	one, two := hub.Keys{Key: [16]byte{1}}, hub.Keys{Key: [16]byte{1}, Next: [16]byte{2}}
	for _, test := range []struct {
		name     string
		print    string
		rotation *rotation
		replaced time.Time
		told     bool
	}{
		{"the key", one.Fingerprint(), nil, time.Time{}, false},
		{"another", "other", nil, time.Time{}, true},
		{"a release that does not say", "", nil, time.Time{}, false},
		{"such a one enrolled since", "", nil, now.Add(-3 * time.Hour), false},
		{"such a one enrolled before", "", nil, now.Add(-time.Hour), true},
		{"both", two.Fingerprint(), &rotation{Next: two.Next}, time.Time{}, false},
		{"one of both", one.Fingerprint(), &rotation{Next: two.Next}, time.Time{}, true},
		{"such a one in a rotation", "", &rotation{Next: two.Next}, time.Time{}, true},
	} {
		s.keyring.key, s.keyring.rotation, s.keyring.replaced = one.Key, test.rotation, test.replaced
		a, at := store.AgentRow{Name: "mx1", Enrolled: now.Add(-2 * time.Hour)}, hub.Presence{Agent: "mx1", Seen: now, Keys: test.print}
		s.watchKeys(ctx, a, at)
		if why := s.Health(ctx).Parts["keys of agent mx1"]; why != "" {
			t.Errorf("%s: told at once: %s", test.name, why)
		}
		if h := p.fleet.hashing["mx1"]; h != nil {
			h.other = h.other.Add(-flicker - time.Second)
		}
		s.watchKeys(ctx, a, at)
		if why := s.Health(ctx).Parts["keys of agent mx1"]; (why != "") != test.told {
			t.Errorf("%s: %q", test.name, why)
		}
		s.unwatchAgent("mx1")
		delete(s.health.parts, "keys of agent mx1")
	}
}

// Nothing is learnt under the next key while the hub is down, or is of the release
// before: that time does not count.
func TestRotationStandsStillWithTheHub(t *testing.T) {
	begun := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	r := &rotation{Begun: begun, Lasts: 720 * time.Hour, Ticked: begun}
	for _, step := range []struct {
		after, lasts time.Duration
		write        bool
	}{
		{time.Minute, 720 * time.Hour, false},
		{61 * time.Minute, 720 * time.Hour, true},
		{3 * time.Hour, 720 * time.Hour, true},           // a restart, or an update
		{503 * time.Hour, (720 + 500) * time.Hour, true}, // and nobody was there
		{504 * time.Hour, (720 + 500) * time.Hour, true}, //
		{100 * time.Hour, (720 + 500) * time.Hour, true}, // the clock was wrong
		{101 * time.Hour, (720 + 500) * time.Hour, true}, //
		{101*time.Hour + 1, (720 + 500) * time.Hour, false},
	} {
		write := r.tick(begun.Add(step.after))
		if r.Lasts != step.lasts || write != step.write {
			t.Errorf("after %v it lasts %v, want %v; written: %v", step.after, r.Lasts, step.lasts, write)
		}
	}
}

// A hub that does not listen for its agents for a while waits for them all the same.
func TestRotationWaitsWithoutListening(t *testing.T) {
	p, _ := judging(t)
	p.fleet = nil
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	now := time.Now()
	if err := p.store.AddAgent(ctx, "mx1", []string{"*"}, []byte("token"), now, now.Add(time.Hour), "root"); err != nil {
		t.Fatal(err)
	}
	if err := p.store.EnrolAgent(ctx, "mx1", []byte("token"), "e1", now); err != nil {
		t.Fatal(err)
	}
	s := &service{pipeline: p, keyring: &keyring{}}
	s.keyring.set([16]byte{1}, &rotation{Next: [16]byte{2}, Begun: now.AddDate(-1, 0, 0), Ticked: now, Lasts: time.Hour})
	if at, err := s.keeper().Rotation(ctx); err != nil || len(at.Waits) != 1 {
		t.Errorf("%+v, %v", at, err)
	}
	s.turning.part = "rotation"
	if err := s.turnKey(ctx); err != nil {
		t.Error(err)
	}
	if why := s.Health(ctx).Parts["rotation"]; !strings.Contains(why, "mx1") {
		t.Errorf("that it is overdue is told as %q", why)
	}
	if key, _ := s.keyring.get(); key != [16]byte{1} {
		t.Error("the key is replaced under an agent that has not heard of it")
	}
	if err := s.store.RevokeAgent(t.Context(), "mx1", now, "root"); err != nil {
		t.Fatal(err)
	}
	_, r := s.keyring.get()
	r.Lasts = 2 * 365 * 24 * time.Hour
	if err := s.turnKey(t.Context()); err != nil || s.Health(t.Context()).Parts["rotation"] != "ok" {
		t.Errorf("when it waits for nobody: %v, %v", s.Health(t.Context()).Parts, err)
	}
}

// The next key does not get into logs.
func TestRotationPrintsNoKey(t *testing.T) {
	r := &rotation{Next: [16]byte{201, 202}, Begun: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("rotation", "at", r, "alone", *r)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		fmt.Fprintf(&out, format+" "+format+" "+format+"\n", r, *r, struct{ R rotation }{*r})
	}
	for _, secret := range []string{"201", "0xc9"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is told in\n%s", secret, &out)
		}
	}
	if back := (rotation{}); json.Unmarshal(asJSON(r), &back) != nil || back.Next != r.Next {
		t.Error("the key is not kept either")
	}
}

// Outside a rotation a second hash is nobody's.
func TestSecondHashOutsideOfARotation(t *testing.T) {
	p, _ := judging(t)
	known := func() (n int) {
		for a := range p.judge.detector.Accounts {
			n += a.Recipients
		}
		return n
	}
	ev := submitted("alice@shop.test", time.Now())
	ev.New[0].Next = 7
	d := hub.Delivery{Agent: "mx1", Received: time.Now(), Batch: hub.Batch{Mark: hub.Mark{Epoch: 1, Seq: 1}, Events: []mailq.Event{ev}}}
	if p.deliver(d); known() != 1 {
		t.Errorf("%d hashes are learnt, want 1", known())
	}
	p.fleet.keyring.set([16]byte{1}, &rotation{})
	d.Events[0] = submitted("alice@shop.test", time.Now())
	d.Events[0].New[0].Next = 7
	if p.deliver(d); known() != 2 {
		t.Errorf("in a rotation %d hashes are known, want 2", known())
	}
	for i, test := range []struct {
		ago   time.Duration
		known int
	}{{24 * time.Hour, 4}, {31 * 24 * time.Hour, 5}} { // what waited at an agent has both hashes
		p.fleet.keyring.replace([16]byte{2}, time.Now().Add(-test.ago))
		d.Events[0] = submitted("alice@shop.test", time.Now())
		d.Events[0].New[0] = mailq.Recipient{Hash: 100 + uint64(i), Next: 200 + uint64(i), Domain: "ok.test"}
		if p.deliver(d); known() != test.known {
			t.Errorf("%v after a rotation %d hashes are known, want %d", test.ago, known(), test.known)
		}
	}
}

// A rotating is a hub and an agent that run.
type rotating struct {
	*testing.T
	hub, agent config.Config
	lines      int
	mailed     time.Time
}

// hubRuns starts the hub. It is stopped by stop.
func (r *rotating) hubRuns() (s *service, stop func()) {
	r.Helper()
	o := Options{Config: r.hub, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
	ctx, cancel := context.WithCancel(context.Background())
	c, db, end, err := begin(ctx, r.hub)
	if err != nil {
		r.Fatal(err)
	}
	if s, err = newService(ctx, c, db, o); err != nil {
		r.Fatal(err)
	}
	if err := s.restore(ctx); err != nil {
		r.Fatal(err)
	}
	ready, done := make(chan Ready, 1), make(chan error, 1)
	go func() { done <- s.run(ctx, func(at Ready) { ready <- at }) }()
	select {
	case <-ready:
	case err := <-done:
		r.Fatal(err)
	}
	return s, func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.Error(err)
		}
		end()
	}
}

func (r *rotating) agentRuns() (stop func()) {
	r.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan Ready, 1)
	go func() {
		done <- RunAgent(ctx, Options{Config: r.agent, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Ready: func(at Ready) { ready <- at }})
	}()
	select {
	case <-ready:
	case err := <-done:
		r.Fatal(err)
	}
	return func() { cancel(); <-done }
}

// mails has alice write to someone on the agent's server.
func (r *rotating) mails(to string) {
	r.Helper()
	f, err := os.OpenFile(r.agent.Logs[0].Path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	r.lines++
	id, now := fmt.Sprintf("4GZZk4%04dz1cZ", r.lines), time.Now().UTC().Format(time.RFC3339)
	for _, line := range []string{
		"postfix/submission/smtpd[7]: " + id + ": client=pc[192.0.2.9], sasl_method=PLAIN, sasl_username=alice@shop.test",
		"postfix/qmgr[8]: " + id + ": from=<alice@shop.test>, size=383, nrcpt=1 (queue active)",
		"postfix/smtp[9]: " + id + ": to=<" + to + ">, relay=mx[203.0.113.6]:25, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)",
	} {
		fmt.Fprintf(f, "%s mx1 %s\n", now, line)
	}
}

// mailsNow is mails once a second: more would be a hijack.
func (r *rotating) mailsNow(to string) {
	if time.Since(r.mailed) > time.Second {
		r.mailed = time.Now()
		r.mails(to)
	}
}

// until waits for something to come true.
func (r *rotating) until(what string, is func() bool) {
	r.Helper()
	for begun := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			r.Fatalf("%s: not within 20 seconds", what)
		}
	}
}

// alice is what the hub knows of her: her messages, and the hashes of those she wrote to.
func (r *rotating) alice(s *service) (messages, known int) {
	rows, err := s.Accounts(r.Context(), 10)
	if err != nil {
		r.Fatal(err)
	}
	for _, row := range rows {
		if row.Account == "alice@shop.test" {
			return row.Messages, row.Known
		}
	}
	return 0, 0
}

// writtenOf is how many hashes alice is known to write to by what is in the database.
func writtenOf(t *testing.T, s *service) int {
	d := detector.New(detector.Default(), nil)
	err := s.store.LoadAccounts(t.Context(), func(a store.AccountState) error {
		if a.Account == "alice@shop.test" {
			return d.Restore("alice@shop.test", a.State)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for a := range d.Accounts {
		return a.Recipients
	}
	return 0
}

// A key is replaced: over the running agent, over restarts of both, and nobody is
// new for it.
func TestRotationOfTheKey(t *testing.T) {
	port, err := bed.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	r := &rotating{T: t, hub: config.Default(), agent: config.Default()}
	r.hub.State, r.hub.Agents.Listen, r.hub.Logs, r.hub.API.Listen, r.hub.Gate.Listen = t.TempDir(), address, nil, "", nil
	r.agent.State, r.agent.Hub.Address, r.agent.API.Listen, r.agent.Gate.Listen = t.TempDir(), address, "", nil
	r.agent.Logs = []config.Log{{Path: filepath.Join(t.TempDir(), "mail.log")}}

	s, stopHub := r.hubRuns()
	made, err := s.desk().ChangeAgent(t.Context(), web.AgentOrder{Do: "add", Name: "mx1", Domains: []string{"shop.test"}, Who: "root"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Enrol(t.Context(), r.agent, made.Token); err != nil {
		t.Fatal(err)
	}
	stopAgent := r.agentRuns()
	defer func() { stopAgent() }()
	seen := func(messages int) func() bool {
		return func() bool { n, _ := r.alice(s); return n == messages }
	}
	r.mails("bob@ok.test")
	r.until("the first message", seen(1))

	old, _ := s.keyring.get()
	if _, err := s.keeper().Rotate(t.Context(), web.KeyOrder{Again: true, Who: "root"}); !errors.Is(err, web.ErrInvalid) {
		t.Errorf("again, before there was one: %v", err)
	}
	for _, lasts := range []time.Duration{time.Hour, 2 * maxFor} {
		_, err := s.keeper().Rotate(t.Context(), web.KeyOrder{For: lasts, Who: "root"})
		if !errors.Is(err, web.ErrInvalid) || !strings.Contains(err.Error(), lasts.String()) || !strings.Contains(err.Error(), maxFor.String()) {
			t.Errorf("a rotation for %v: %v", lasts, err)
		}
	}
	at, err := s.keeper().Rotate(t.Context(), web.KeyOrder{Who: "root", Why: "yearly"})
	if err != nil || len(at.Waits) != 1 {
		t.Errorf("begun: %+v, %v", at, err)
	}
	if _, err := s.keeper().Rotate(t.Context(), web.KeyOrder{Who: "root"}); !errors.Is(err, web.ErrInvalid) {
		t.Errorf("a second rotation: %v", err)
	}
	if rows, err := s.desk().Agents(t.Context()); err != nil || len(rows[0].Blind) != 1 {
		t.Errorf("agents: %+v, %v", rows, err)
	}
	turned := func() bool {
		if err := s.turnKey(t.Context()); err != nil {
			t.Error(err)
		}
		at, err := s.keeper().Rotation(t.Context())
		return err == nil && len(at.Waits) == 0
	}
	r.until("the agent hashes with both", func() bool { r.mailsNow("bob@ok.test"); return turned() }) // it says so when it sends something
	_, leaked := s.keyring.get()
	if at, err := s.keeper().Rotate(t.Context(), web.KeyOrder{Again: true, Who: "root", Why: "it leaked"}); err != nil || len(at.Waits) != 1 || !at.Begun.After(leaked.Begun) {
		t.Errorf("again: %+v, %v", at, err)
	}
	if key, now := s.keyring.get(); key != old || now.Next == leaked.Next {
		t.Error("begun again with the same keys")
	}
	r.until("the agent hashes with the other next key", func() bool { r.mailsNow("bob@ok.test"); return turned() })
	again := 0 // the hash under the next key that leaked
	r.until("bob is known under it", func() bool { r.mailsNow("bob@ok.test"); _, again = r.alice(s); return again == 3 })
	r.mails("dave@ok.test")
	r.until("both hashes are learnt", func() bool { _, known := r.alice(s); return known == 5 })

	stopAgent()
	stopHub()
	r.mails("carol@ok.test") // while both are away
	s, stopHub = r.hubRuns()
	stopAgent = r.agentRuns()
	r.until("both hashes of what came meanwhile", func() bool { _, known := r.alice(s); return known == 7 })
	r.until("it is written down", func() bool { return writtenOf(t, s) == 7 })
	if at, err := s.keeper().Rotation(t.Context()); err != nil || time.Until(at.Ends) < 179*24*time.Hour {
		t.Errorf("after a restart: %+v, %v", at, err)
	}

	key, rot := s.keyring.get()
	if key != old {
		t.Error("the key has changed too early")
	}
	stopHub()
	r.mails("carol@ok.test") // with both hashes, and judged when the next alone is known
	r.yearsLater(rot)
	s, stopHub = r.hubRuns()
	defer func() { stopHub() }()
	r.until("the key is replaced", func() bool { key, rot := s.keyring.get(); return key != old && rot == nil })
	if key, _ := s.keyring.get(); key != rot.Next {
		t.Error("it is replaced by another than the next")
	}
	r.until("the agent has the next key alone", func() bool {
		r.mailsNow("bob@ok.test")
		for _, p := range s.fleet.server.Presences() {
			if p.Keys == s.keyring.keys().Fingerprint() {
				return true
			}
		}
		return false
	})
	before, known := r.alice(s)
	for _, to := range []string{"bob@ok.test", "carol@ok.test", "dave@ok.test"} {
		r.mails(to)
	}
	r.until("three more messages", func() bool { n, _ := r.alice(s); return n >= before+3 })
	if _, now := r.alice(s); now != known || known != 7 {
		t.Errorf("%d hashes are known, %d before, want 7: somebody is new because of the key", now, known)
	}
	rows, err := s.Journal(t.Context(), store.RecipientKey, 10)
	if err != nil || len(rows) != 3 || rows[2].Who != "root" || rows[2].Why != "yearly" || rows[1].Why != "it leaked" || rows[0].Who != "vedetta" {
		t.Errorf("journal: %+v, %v", rows, err)
	}
	if text, err := s.store.Setting(t.Context(), store.RecipientKey); err != nil || string(text) == string(old[:]) {
		t.Errorf("the old key is still there: %v", err)
	}
	if ring, err := loadKeyring(t.Context(), s.store); err != nil || !ring.both(time.Now()) || ring.both(time.Now().Add(lateBoth)) {
		t.Errorf("late hashes under both keys: %+v, %v", ring != nil, err)
	}
	if _, err := s.store.Setting(t.Context(), store.RecipientRotation); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the rotation is still there: %v", err)
	}
}

// yearsLater lets the rotation have begun long ago, while the hub is down.
func (r *rotating) yearsLater(rot *rotation) {
	r.Helper()
	past := *rot
	past.Begun, past.Ticked, past.Both = rot.Begun.AddDate(-1, 0, 0), time.Now(), map[string]time.Time{}
	for agent, since := range rot.Both {
		past.Both[agent] = since.AddDate(-1, 0, 0)
	}
	text, err := json.Marshal(past)
	if err != nil {
		r.Fatal(err)
	}
	db, err := store.Open(r.Context(), r.hub.Database())
	if err != nil {
		r.Fatal(err)
	}
	defer db.Close()
	if err := db.SetSetting(r.Context(), store.RecipientRotation, text); err != nil {
		r.Fatal(err)
	}
}
