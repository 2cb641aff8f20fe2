package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
)

// A wire is between agent and hub, and can be cut: wholly, or so that what the
// agent says arrives and the answer does not.
type wire struct {
	net.Listener
	to string

	mu    sync.Mutex // guards what follows
	cut   bool
	mute  bool
	conns []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() { w.carry(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); w.set(true, false); done.Wait() })
	return w
}

func (w *wire) set(cut, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.mute = cut, mute
	if cut {
		for _, c := range w.conns {
			c.Close()
		}
		w.conns = nil
	}
}

func (w *wire) carry(conn net.Conn) {
	defer conn.Close()
	other, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer other.Close()
	w.mu.Lock()
	if w.cut {
		w.mu.Unlock()
		return
	}
	w.conns = append(w.conns, conn, other)
	w.mu.Unlock()
	go func() {
		defer other.Close()
		io.Copy(other, conn)
	}()
	buf := make([]byte, 1<<16)
	for {
		n, err := other.Read(buf)
		w.mu.Lock()
		mute := w.mute
		w.mu.Unlock()
		if err != nil || mute {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A lanesRig is an agent whose events are numbered, and its hub.
type lanesRig struct {
	*testing.T
	hub   *listeningHub
	agent *agent
	f     *forwarder
	known bool
	made  int
}

// spool puts n batches of one event each into the spool.
func (r *lanesRig) spool(n int) {
	r.Helper()
	for range n {
		r.made++
		r.f.event(&mailq.Event{Time: time.Now(), Kind: mailq.Submitted, Account: "alice@shop.test", Size: r.made})
		b := store.Batch{Positions: map[string][]byte{}}
		b.Spool = r.f.seal(time.Now(), b.Positions)
		if _, err := r.agent.db.Commit(r.Context(), b); err != nil {
			r.Fatal(err)
		}
		r.f.wrote(b.Spool)
	}
}

// once is one turn of send. After a failure the hub has been away for long.
func (r *lanesRig) once() (pace time.Duration, err error) {
	pace, err = r.agent.sendOnce(r.Context(), r.f, &r.known)
	if err != nil {
		r.cutLong()
		r.known = false
	}
	return pace, err
}

// cutLong notes that nothing could be sent, and has the hub be away for long.
func (r *lanesRig) cutLong() {
	r.agent.cut = time.Unix(1, 0)
	r.agent.unheard(r.f.committed.Load(), r.known)
}

// crash begins anew with what is on the agent's disk.
func (r *lanesRig) crash() {
	r.Helper()
	r.agent, r.f, r.known = &agent{db: r.agent.db, client: r.agent.client}, newForwarder(), false
	if err := r.agent.resume(r.Context(), r.f); err != nil {
		r.Fatal(err)
	}
}

func (r *lanesRig) drain() {
	r.Helper()
	for range 10_000 {
		if pace, err := r.once(); err == nil && pace == heartbeat {
			return
		}
	}
	r.Fatalf("there is always more to send: %s", r.agent.place)
}

// came lists the events that the hub has had, in their order.
func (h *listeningHub) came() (all []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.got {
		for _, ev := range d.Events {
			all = append(all, ev.Size)
		}
	}
	return all
}

// verdict reports what is missing and what came twice of what was made.
func (r *lanesRig) verdict(came []int) {
	r.Helper()
	sorted := slices.Clone(came)
	slices.Sort(sorted)
	for i := range r.made {
		if i >= len(sorted) || sorted[i] != i+1 {
			r.Fatalf("event %d is lost, or the one before came twice: %d made, %d came; %s", i+1, r.made, len(came), r.agent.place)
		}
	}
	if len(came) != r.made || r.agent.waiting() != 0 {
		r.Fatalf("%d made, %d came, %d wait", r.made, len(came), r.agent.waiting())
	}
}

func newLanesRig(t *testing.T, through func(addr string) string) *lanesRig {
	t.Helper()
	h := newListeningHub(t)
	a, f := h.enrolled(t)
	client := &hub.Client{Address: through(h.addr), Dir: a.client.Dir, Version: "1"}
	if _, _, err := client.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	a.client = client
	return &lanesRig{T: t, hub: h, agent: a, f: f}
}

// What is new comes before what waits, also when the hub is lost a second time
// while that drains.
func TestNewsDoesNotWaitBehindOldNews(t *testing.T) {
	var w *wire
	r := newLanesRig(t, func(addr string) string { w = newWire(t, addr); return w.Addr().String() })
	r.spool(1)
	r.drain()
	for range 2 {
		w.set(true, false)
		if _, err := r.once(); err == nil {
			t.Fatal("the hub is reached over a cut wire")
		}
		r.spool(3 * hub.MaxLate)
		w.set(false, false)
		r.once() // asks where the hub is
		for range 2 {
			r.spool(1)
			r.once()
			if came := r.hub.came(); came[len(came)-1] != r.made {
				t.Fatalf("what is new did not come first: %v", came)
			}
			r.once()
			if came := r.hub.came(); came[len(came)-1] == r.made {
				t.Fatalf("what waits does not come: %v", came)
			}
		}
		if got := r.agent.waiting(); got == 0 || got >= 6*hub.MaxLate {
			t.Errorf("%d batches wait", got)
		}
	}
	r.crash() // with two stretches that wait
	r.drain()
	r.verdict(r.hub.came())
}

// Of what waits little goes at once where that takes long, as what is new may have
// to wait for it.
func TestWhatWaitsGoesInStrides(t *testing.T) {
	var s stride
	rows := func(n int) []store.SpoolRow { return []store.SpoolRow{{Body: make([]byte, n)}} }
	for i, c := range []struct {
		took  time.Duration
		bytes int
		want  int
	}{
		{20 * time.Millisecond, 1000, 32 << 10}, // says nothing of more
		{20 * time.Millisecond, 32 << 10, 64 << 10},
		{200 * time.Millisecond, 64 << 10, 64 << 10},
		{20 * time.Millisecond, 50 << 10, 128 << 10},
		{time.Millisecond, 128 << 10, 128 << 10}, // the hub takes no more
		{time.Second, 128 << 10, 64 << 10},
		{time.Second, 1000, 32 << 10},
		{time.Minute, 1000, 32 << 10},
	} {
		if s.took(c.took, rows(c.bytes)); s.bytes() != c.want {
			t.Errorf("%d: after %d bytes in %s: %d, want %d", i, c.bytes, c.took, s.bytes(), c.want)
		}
	}
}

// What a request did not bring, or was cut off with, says nothing of larger ones.
func TestStrideAfterFailure(t *testing.T) {
	var w *wire
	r := newLanesRig(t, func(addr string) string { w = newWire(t, addr); return w.Addr().String() })
	r.agent.late.doublings = 2
	w.set(true, false)
	if _, err := r.once(); err == nil || r.agent.late.bytes() != firstStride {
		t.Errorf("after a cut: %d bytes, %v", r.agent.late.bytes(), err)
	}
}

// However often an agent's connections come and go, they do not try without a
// pause.
func TestRetryRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, other := newRetry(), newRetry()
		for i, want := range []time.Duration{firstRetry, 2 * firstRetry, firstRetry} {
			begun := time.Now()
			if i == 2 {
				other.away = true
				other.reached(&r)
				other.reached(&r) // was not away
			}
			r.rest(t.Context())
			if got := time.Since(begun); got != want {
				t.Errorf("pause %d: %s, want %s", i, got, want)
			}
		}
	})
}

// When one of an agent's connections reaches the hub again the other does not
// wait longer: whoever tells of a hijack hears of the block.
func TestConnectionsComeBackTogether(t *testing.T) {
	for _, first := range []string{"orders", "batches"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			p, _, _ := answering(t)
			p.acts = &enforce.Executor{Gate: &gate.Table{}}
			var w *wire
			r := newLanesRig(t, func(addr string) string { w = newWire(t, addr); return w.Addr().String() })
			p.forward = r.f
			r.agent.sending, r.agent.obeying = newRetry(), newRetry()
			s := &service{pipeline: p, agent: r.agent}
			s.agent.keys.Store(&hub.Keys{})
			both := map[string]func(context.Context) error{"orders": s.obeyHub, "batches": s.send}
			w.set(true, false)
			ctx, cancel := context.WithCancel(t.Context())
			var done sync.WaitGroup
			defer done.Wait()
			defer cancel()
			for name, run := range both {
				if name != first {
					done.Go(func() { run(ctx) })
				}
			}
			time.Sleep(3200 * time.Millisecond) // pauses of 0.2, 0.4, 0.8 and 1.6 s; now it is one of 3.2
			done.Go(func() { both[first](ctx) })
			time.Sleep(100 * time.Millisecond)
			w.set(false, false)
			begun := time.Now()
			for {
				at := r.hub.fleet.server.Presences()
				if len(at) == 1 && at[0].Streams == 1 && s.agent.heard.Load() > 0 {
					break
				}
				if time.Since(begun) > time.Second {
					t.Fatal("the other is still away")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// What is new gets a lane of its own where the hub was not reached for two seconds,
// counted from the first failure in a row: not at once where there was nothing to
// say for a while, and not where the hub has answered, or the spool cannot be read.
func TestWhenNewsGetsALaneOfItsOwn(t *testing.T) {
	var w *wire
	r := newLanesRig(t, func(addr string) string { w = newWire(t, addr); return w.Addr().String() })
	fails := func(what string, parts int) {
		t.Helper()
		_, err := r.agent.sendOnce(t.Context(), r.f, &r.known)
		if err == nil {
			t.Fatalf("%s: it does not fail", what)
		}
		r.agent.unheard(r.f.committed.Load(), r.known)
		r.known = false
		if got := len(r.agent.place.Parts); got != parts {
			t.Fatalf("%s: %s", what, r.agent.place)
		}
	}
	r.spool(1)
	r.drain()
	r.agent.heard.Store(time.Now().Add(-heartbeat).UnixNano())
	w.set(true, false)
	fails("the first word after a while", 1)
	fails("the second", 1)
	w.set(false, false)
	r.drain()
	b := store.Batch{Positions: map[string][]byte{}}
	r.f.event(&mailq.Event{Time: time.Now()})
	b.Spool = r.f.seal(time.Now(), b.Positions)
	b.Spool[0].Body = []byte("none")
	if _, err := r.agent.db.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	r.f.wrote(b.Spool)
	r.agent.heard.Store(0)
	fails("the hub refuses a batch", 1)
	if r.agent.away(time.Now()) {
		t.Error("the hub has answered, and is away")
	}
	r.drain()
	r.agent.heard.Store(0)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r.agent.place.changed = true
	if _, err := r.agent.sendOnce(over, r.f, &r.known); err == nil {
		t.Fatal("the place is written down")
	}
	if r.agent.unheard(r.f.committed.Load(), r.known); len(r.agent.place.Parts) != 1 {
		t.Fatalf("the database fails: %s", r.agent.place)
	}
	w.set(true, false)
	fails("a cut begins", 1)
	r.agent.cut = r.agent.cut.Add(-lateAfter)
	fails("and lasts", 2)
}

// Whatever fails, and wherever agent and hub are killed, each event comes once.
func TestLanesLoseAndDoubleNothing(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			var w *wire
			r := newLanesRig(t, func(addr string) string { w = newWire(t, addr); return w.Addr().String() })
			rnd := rand.New(rand.NewPCG(seed, 1))
			for range 250 {
				switch n := rnd.IntN(100); {
				case n < 30:
					r.spool(1 + rnd.IntN(2*hub.MaxLate))
				case n < 70:
					r.once()
				case n < 78:
					w.set(true, false)
				case n < 82:
					w.set(false, true) // sent, and not answered
				case n < 94:
					w.set(false, false)
				case n < 97:
					r.crash()
				case n < 98:
					r.hub.stop()
					r.hub.start(t)
				default:
					r.known = false
					r.cutLong() // and crashes before that is written down
					r.crash()
				}
			}
			w.set(false, false)
			r.drain()
			r.verdict(r.hub.came())
		})
	}
}

// What does not fit goes from what waits, the oldest first, and is told; what is
// new is not touched, and the parts of which nothing is left are forgotten.
func TestWhatWaitsOverflows(t *testing.T) {
	var w *wire
	r := newLanesRig(t, func(addr string) string { w = newWire(t, addr); return w.Addr().String() })
	r.spool(1)
	r.drain()
	w.set(true, false)
	r.once()
	r.spool(3 * hub.MaxLate)
	w.set(false, false)
	r.once()
	r.spool(1)
	r.once()
	state, err := r.agent.db.SpoolState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, share := range []int64{2, 1 << 30} { // half of it, all of it
		p := &r.agent.place
		lost, err := r.agent.db.TrimSpool(t.Context(), p.sent(r.f.committed.Load()), p.had, time.Now(), state.Bytes/share)
		if err != nil || lost == 0 {
			t.Fatalf("lost %d, %v", lost, err)
		}
		r.f.lost.Add(uint64(lost))
		r.spool(1)
		r.once()
		r.once()
	}
	r.drain()
	events, told := len(r.hub.came()), 0
	for _, d := range r.hub.got {
		told += int(d.Lost)
	}
	if events+told != r.made || told == 0 || r.agent.waiting() != 0 {
		t.Errorf("%d made, %d came, %d are told lost, %d wait: %s", r.made, events, told, r.agent.waiting(), r.agent.place)
	}
}

// A oneLaneHub takes batches as the release before lanes did.
type oneLaneHub struct {
	mu    sync.Mutex // guards what follows
	mark  hub.Mark
	came  []int
	gaps  int
	fails bool // it takes what comes, and its answer is lost
}

func (h *oneLaneHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	type mark struct {
		Epoch uint64 `cbor:"1,keyasint" json:"epoch"`
		Seq   uint64 `cbor:"2,keyasint" json:"seq"`
	}
	var in struct {
		_       struct{} `cbor:",toarray"`
		Known   mark
		Batches []struct {
			mark
			Body []byte `cbor:"3,keyasint"`
		}
	}
	text, _ := io.ReadAll(r.Body)
	if err := cbor.Unmarshal(text, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	at, status, first := mark{h.mark.Epoch, h.mark.Seq}, http.StatusOK, true
	for _, b := range in.Batches {
		m := b.mark
		if m.Epoch == at.Epoch && m.Seq <= at.Seq {
			continue
		}
		next := m.Epoch == at.Epoch && m.Seq == at.Seq+1 || m.Epoch > at.Epoch && m.Seq == 1
		if !next && (m.Epoch < at.Epoch || !first || in.Known != at) {
			status = http.StatusConflict
			break
		}
		if !next {
			h.gaps++
		}
		opened, err := hub.Sealed{Mark: hub.Mark{Epoch: m.Epoch, Seq: m.Seq}, Body: b.Body}.Open()
		if err != nil {
			panic(err)
		}
		for _, ev := range opened.Events {
			h.came = append(h.came, ev.Size)
		}
		at, first = m, false
	}
	h.mark = hub.Mark{Epoch: at.Epoch, Seq: at.Seq}
	if h.fails {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(at)
}

// listen answers at the address of another hub, in its name.
func (h *oneLaneHub) listen(t *testing.T, other *listeningHub) {
	t.Helper()
	cert, err := other.server.CA.Server()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", other.addr, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	var done sync.WaitGroup
	done.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Close(); done.Wait() })
}

// A hub of the release before is sent everything in its order, over cuts; also one
// to which a hub went back while what waited drained.
func TestHubOfTheReleaseBefore(t *testing.T) {
	for _, row := range []struct {
		name  string
		turns int // of the hub with lanes, after the cut
	}{{"always", 0}, {"after what is new", 2}, {"after some of what waited", 3}, {"after more of both", 5}} {
		t.Run(row.name, func(t *testing.T) {
			r := newLanesRig(t, func(addr string) string { return addr })
			r.spool(2)
			r.drain()
			r.hub.stop()
			r.once()
			r.spool(3 * hub.MaxLate)
			if row.turns > 0 {
				r.hub.start(t)
			}
			for range row.turns {
				r.once()
				r.spool(1)
			}
			before := r.hub.came()
			if row.turns > 0 {
				r.hub.stop()
			}
			h := &oneLaneHub{}
			if n := len(r.hub.got); n > 0 { // as its journal says
				h.mark = r.hub.got[n-1].Mark
				h.mark.Late = false
			}
			h.listen(t, r.hub)
			r.hub.stop = func() {}
			r.spool(1)
			r.drain()
			h.fails = true // a cut, after which it may have had more than is known
			r.spool(2 * hub.MaxLate)
			r.once()
			r.spool(2)
			r.once()
			h.fails = false
			r.drain()
			h.mu.Lock()
			defer h.mu.Unlock()
			r.verdict(append(before, h.came...))
			if row.turns == 0 && !slices.IsSorted(h.came) || h.gaps > 0 {
				t.Errorf("in the order %v, with %d gaps", h.came, h.gaps)
			}
		})
	}
}
