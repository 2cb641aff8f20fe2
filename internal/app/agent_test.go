package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A listeningHub notes what agents bring it.
type listeningHub struct {
	*fleet
	config config.Config
	db     *store.DB
	addr   string
	stop   func()

	mu  sync.Mutex // guards got
	got []hub.Delivery
}

func newListeningHub(t *testing.T) *listeningHub {
	t.Helper()
	h := &listeningHub{config: config.Default(), addr: "127.0.0.1:0"}
	h.config.State = t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(h.config.State, "v.db"))
	if err != nil {
		t.Fatal(err)
	}
	h.db = db
	h.start(t)
	t.Cleanup(func() {
		h.stop()
		db.Close()
	})
	return h
}

// start has the hub answer, with what its journal says.
func (h *listeningHub) start(t *testing.T) {
	t.Helper()
	f, err := newFleet(context.Background(), h.config, h.db, &keyring{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	h.fleet, h.addr, h.got = f, l.Addr().String(), nil
	f.server.Log, f.server.ResetDone = slog.New(slog.DiscardHandler), f.resetDone
	f.server.Deliver = func(d hub.Delivery) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got = append(h.got, d)
	}
	if err := f.server.Journal.Read(hub.Position{}, func(r hub.Record, at hub.Position) error {
		f.server.Resume(r.Agent, r.Sealed.Mark)
		d, err := r.Delivery(at)
		h.got = append(h.got, d)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.server.Serve(ctx, l) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.server.Journal.Close()
	}
}

// enrolled is an agent of the hub, with a spool of its own.
func (h *listeningHub) enrolled(t *testing.T) (*agent, *forwarder) {
	t.Helper()
	text, err := h.roster.add(t.Context(), "mx1", []string{"*"}, h.server.CA, "root")
	if err != nil {
		t.Fatal(err)
	}
	token, err := hub.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := hub.Enrol(t.Context(), h.addr, token, dir, "1"); err != nil {
		t.Fatal(err)
	}
	client := &hub.Client{Address: h.addr, Dir: dir, Version: "1"}
	if _, _, err := client.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	db, err := store.Open(t.Context(), filepath.Join(dir, "v.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	a, f := &agent{db: db, client: client}, newForwarder()
	if err := a.resume(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	return a, f
}

// gather puts a batch of n events into the spool.
func (f *forwarder) gather(t *testing.T, db *store.DB, n int) {
	t.Helper()
	for range n {
		f.event(&mailq.Event{Time: time.Now(), Kind: mailq.Submitted, Account: "alice@shop.test"})
	}
	b := store.Batch{Positions: map[string][]byte{}}
	b.Spool = f.seal(time.Now(), b.Positions)
	if _, err := db.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	f.wrote(b.Spool)
}

// drain sends until there is no more.
func drain(t *testing.T, a *agent, f *forwarder) {
	t.Helper()
	known := false
	for range 20 {
		pace, err := a.sendOnce(t.Context(), f, &known)
		if err != nil {
			t.Log(err)
		}
		if err == nil && pace == heartbeat {
			return
		}
	}
	t.Fatal("there is always more to send")
}

func (h *listeningHub) received() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all string
	for _, d := range h.got {
		all += fmt.Sprintf("%d:%d events", d.Seq, len(d.Events))
		if d.Gap {
			all += ", gap"
		}
		if d.Lost > 0 {
			all += fmt.Sprintf(", %d lost", d.Lost)
		}
		all += "; "
	}
	return all
}

func TestAgentSendsItsSpool(t *testing.T) {
	h := newListeningHub(t)
	a, f := h.enrolled(t)
	for n := range 3 {
		f.gather(t, a.db, n+1)
	}
	drain(t, a, f)
	if got, want := h.received(), "1:1 events; 2:2 events; 3:3 events; "; got != want || a.waiting() != 0 {
		t.Errorf("got %q, want %q; %d wait", got, want, a.waiting())
	}
	again, f2 := &agent{db: a.db, client: a.client}, newForwarder() // as after a restart
	if err := again.resume(t.Context(), f2); err != nil {
		t.Fatal(err)
	}
	f2.gather(t, a.db, 4)
	drain(t, again, f2)
	if got, want := h.received(), "1:1 events; 2:2 events; 3:3 events; 4:4 events; "; got != want {
		t.Errorf("after a restart: got %q, want %q", got, want)
	}
}

// A batch that the hub will never take holds up no other, and is told.
func TestPoisonedBatch(t *testing.T) {
	h := newListeningHub(t)
	a, f := h.enrolled(t)
	f.gather(t, a.db, 1)
	f.seq++
	bad := store.Batch{Spool: []store.SpoolRow{{Seq: f.seq, Made: time.Now(), Events: 7, Body: []byte("no batch")}}}
	if _, err := a.db.Commit(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	f.gather(t, a.db, 3)
	drain(t, a, f)
	f.gather(t, a.db, 1)
	drain(t, a, f)
	if got, want := h.received(), "1:1 events; 3:3 events, gap; 4:1 events, 7 lost; "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What did not fit is told, with its number.
func TestSpoolOverflows(t *testing.T) {
	h := newListeningHub(t)
	a, f := h.enrolled(t)
	for range 5 {
		f.gather(t, a.db, 10)
	}
	lost, err := a.db.TrimSpool(t.Context(), 0, a.place.had, time.Now(), 150)
	if err != nil || lost == 0 {
		t.Fatalf("lost %d, %v", lost, err)
	}
	f.lost.Add(uint64(lost))
	f.gather(t, a.db, 1)
	drain(t, a, f)
	h.mu.Lock()
	defer h.mu.Unlock()
	events, told := 0, uint64(0)
	for _, d := range h.got {
		events, told = events+len(d.Events), told+d.Lost
	}
	if events+lost != 51 || told != uint64(lost) || !h.got[0].Gap {
		t.Errorf("%d events came, %d were lost, %d told; %s", events, lost, told, fmt.Sprint(h.got[0].Gap))
	}
}

// A server that has become another agent sends what was not sent, and not again
// what was.
func TestServerBecomesAnotherAgent(t *testing.T) {
	p, _, _ := answering(t)
	a, f := &agent{name: "mx1", db: p.store}, newForwarder()
	f.seq = 9
	if err := a.resume(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	was := a.place.Parts[0]
	if was.Base != 9 || was.Acked != 9 {
		t.Errorf("at first: %+v", was)
	}
	a.place.Parts[0].Acked = 12
	if err := a.savePlace(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mx2", "mx2"} {
		b := &agent{name: name, db: p.store}
		if err := b.resume(t.Context(), newForwarder()); err != nil || b.place.Agent != "mx2" || b.place.Parts[0].Base != 12 || b.place.Parts[0].Acked != 12 || b.place.Parts[0].Epoch <= was.Epoch || !b.place.changed {
			t.Errorf("%+v, %v", b.place, err)
		}
	}
}

// Where the hub goes from a block to less, or to more, the agent's gate and
// tables follow with the change itself. A reset is a block there.
func TestMirrorFollowsTheHub(t *testing.T) {
	p, _, _ := answering(t)
	door, table := &gate.Table{}, &listed{}
	p.acts = &enforce.Executor{Gate: door, Tables: []enforce.Table{table}}
	s := &service{pipeline: p}
	if err := s.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, row := range []struct {
		says, want rules.Action
		tabled     int
	}{
		{rules.Block, rules.Block, 1}, {rules.Hold, rules.Hold, 1}, {rules.Throttle, rules.Throttle, 0}, {rules.Reset, rules.Block, 1},
	} {
		d := rules.Decision{ID: fmt.Sprint("d", i), Subject: victim, Action: row.says, Time: time.Now(), Enforce: true}
		if err := s.mirror(t.Context(), hub.Change{Set: []hub.Order{{Decision: d}}}); err != nil {
			t.Fatal(err)
		}
		v := door.Lookup(victim, time.Now())
		if v == nil || v.Decision.Action != row.want || len(table.subjects) != row.tabled {
			t.Errorf("%s: gate %+v, table %q; want %s", row.says, v, table.subjects, row.want)
		}
	}
	if err := s.mirror(t.Context(), hub.Change{Lifted: []string{victim}}); err != nil || door.Len()+len(table.subjects) > 0 {
		t.Errorf("lifted: %v, %d in the gate, table %q", err, door.Len(), table.subjects)
	}
}
