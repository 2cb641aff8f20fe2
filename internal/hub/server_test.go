package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A ledger is a roster in memory.
type ledger struct {
	mu      sync.Mutex
	members map[string]Member
	tokens  map[string][sha256.Size]byte
	n       int
}

func (l *ledger) Member(name string) (Member, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, ok := l.members[name]
	if !ok {
		return m, ErrStranger
	}
	return m, nil
}

func (l *ledger) Enrol(_ context.Context, name string, token [sha256.Size]byte) (Member, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, ok := l.members[name]
	if !ok || l.tokens[name] != token || token == [sha256.Size]byte{} {
		return Member{}, ErrStranger
	}
	delete(l.tokens, name)
	l.n++
	m.Enrolment = fmt.Sprint("e", l.n)
	l.members[name] = m
	return m, nil
}

// A world is a hub with agents.
type world struct {
	t       *testing.T
	server  *Server
	roster  *ledger
	address string

	mu  sync.Mutex
	got []Delivery
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, roster: &ledger{members: map[string]Member{}, tokens: map[string][sha256.Size]byte{}}}
	journal := openJournal(t, t.TempDir(), 1<<30)
	w.server = &Server{
		CA: ca, Roster: w.roster, Journal: journal, Board: &Board{}, Log: slog.New(slog.DiscardHandler), Keys: func() Keys { return Keys{Key: [16]byte([]byte("0123456789abcdef"))} }, Version: "1",
		Deliver: func(d Delivery) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.got = append(w.got, d)
		},
		Held: func(_ context.Context, _ string, held []rules.Decision) (over []string, err error) {
			for _, d := range held {
				if d.ID == "d-over" {
					over = append(over, d.Subject)
				}
			}
			return over, nil
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		journal.Close()
	})
	return w
}

// token adds an agent, or gives it a new token.
func (w *world) token(agent string, domains ...string) Token {
	t := NewToken(agent, w.server.CA)
	w.roster.mu.Lock()
	defer w.roster.mu.Unlock()
	m := w.roster.members[agent]
	m.Scope = Scope{Agent: agent, Domains: domains}
	w.roster.members[agent], w.roster.tokens[agent] = m, sha256.Sum256(t.Secret)
	return t
}

func (w *world) enrol(t Token) (*Client, error) {
	dir := w.t.TempDir()
	if err := Enrol(w.t.Context(), w.address, t, dir, "1"); err != nil {
		return nil, err
	}
	c := &Client{Address: w.address, Dir: dir, Version: "1"}
	if _, _, err := c.Open(); err != nil {
		return nil, err
	}
	w.t.Cleanup(c.Close)
	return c, nil
}

func (w *world) agent(name string, domains ...string) *Client {
	w.t.Helper()
	c, err := w.enrol(w.token(name, domains...))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) deliveries() []Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got
}

func sealed(t testing.TB, epoch, seq uint64) Sealed {
	t.Helper()
	s, err := Seal(&Batch{Mark: nth(epoch, seq), Events: []mailq.Event{{Time: noon, Kind: mailq.Submitted, Account: "alice@shop.test"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nth is a mark of what is new.
func nth(epoch, seq uint64) Mark { return Mark{Epoch: epoch, Seq: seq} }

func TestBatchesAreTakenOnce(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	for i, step := range []struct {
		known   Mark
		batches []Mark
		at      Mark
		ok      bool
		total   int
	}{
		{Mark{}, []Mark{nth(7, 1), nth(7, 2)}, nth(7, 2), true, 2},
		{nth(7, 2), []Mark{nth(7, 1), nth(7, 2)}, nth(7, 2), true, 2},            // sent again
		{nth(7, 2), []Mark{nth(7, 2), nth(7, 3)}, nth(7, 3), true, 3},            // in part
		{nth(7, 2), []Mark{nth(7, 5)}, nth(7, 3), false, 3},                      // a gap
		{nth(7, 3), []Mark{nth(7, 5), nth(7, 4), nth(7, 6)}, nth(7, 6), true, 5}, // a gap that the agent knows of; 4 is too late
		{nth(7, 6), []Mark{nth(7, 7), nth(7, 9)}, nth(7, 6), false, 5},           // within
		{nth(7, 6), []Mark{nth(6, 1)}, nth(7, 6), false, 5},                      // an epoch that is over
		{nth(7, 6), []Mark{nth(8, 1)}, nth(8, 1), true, 6},                       // the next
		{nth(7, 6), []Mark{nth(9, 2)}, nth(8, 1), false, 6},                      // whose beginning is missing
		{nth(8, 1), nil, nth(8, 1), true, 6},
	} {
		var batches []Sealed
		for _, m := range step.batches {
			batches = append(batches, sealed(t, m.Epoch, m.Seq))
		}
		at, ok, err := c.Send(t.Context(), step.known, batches)
		if err != nil || at.Mark != step.at || ok != step.ok {
			t.Fatalf("step %d: %+v, %v, %v", i, at, ok, err)
		}
		if n := len(w.deliveries()); n != step.total {
			t.Fatalf("step %d: %d batches delivered, want %d", i, n, step.total)
		}
	}
	var marks []Mark
	if err := w.server.Journal.Read(Position{}, func(r Record, p Position) error {
		d, err := r.Delivery(p)
		marks = append(marks, d.Mark)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i, d := range w.deliveries() {
		if d.Mark != marks[i] || d.Agent != "mx1" || d.Gap != (d.Mark == nth(7, 5)) {
			t.Errorf("delivery %d: %+v, journal %v", i, d, marks[i])
		}
	}
}

// What waited has a lane of its own: neither moves the other's mark, and both are
// told with each answer. An agent that mixes them, or makes up epochs, gets no third.
func TestLanes(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	late := func(epoch, seq uint64) Mark { return Mark{epoch, seq, true} }
	for i, step := range []struct {
		known   Mark
		batches []Mark
		at, old Mark
		ok      bool
		total   int
	}{
		{late(0, 0), []Mark{late(5, 1), late(5, 2)}, Mark{}, late(5, 2), true, 2},
		{Mark{}, []Mark{nth(6, 1)}, nth(6, 1), late(5, 2), true, 3},
		{late(5, 2), []Mark{late(5, 2), late(5, 3)}, nth(6, 1), late(5, 3), true, 4}, // of an earlier epoch than what is new
		{late(5, 3), []Mark{late(5, 5)}, nth(6, 1), late(5, 5), true, 5},             // a gap that the agent knows of
		{nth(6, 1), []Mark{late(5, 7)}, nth(6, 1), late(5, 5), false, 5},             // it knows of the other lane's
		{nth(6, 1), []Mark{nth(5, 6)}, nth(6, 1), late(5, 5), false, 5},              // and is not new
		{late(5, 5), []Mark{late(1<<63, 1)}, nth(6, 1), late(1<<63, 1), true, 6},
		{nth(6, 1), []Mark{nth(6, 2)}, nth(6, 2), late(1<<63, 1), true, 7},
	} {
		var batches []Sealed
		for _, m := range step.batches {
			s := sealed(t, m.Epoch, m.Seq)
			s.Mark = m
			batches = append(batches, s)
		}
		at, ok, err := c.Send(t.Context(), step.known, batches)
		if err != nil || at.Mark != step.at || at.Old == nil || *at.Old != step.old || ok != step.ok {
			t.Fatalf("step %d: %+v and %+v, %v, %v", i, at.Mark, at.Old, ok, err)
		}
		if n := len(w.deliveries()); n != step.total {
			t.Fatalf("step %d: %d batches delivered, want %d", i, n, step.total)
		}
	}
	mixed := []Sealed{sealed(t, 6, 3), {late(1<<63, 2), sealed(t, 1, 1).Body}}
	var refused *Refused
	if _, _, err := c.Send(t.Context(), nth(6, 2), mixed); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		t.Errorf("both lanes at once: %v", err)
	}
	again := &Server{} // as after a restart
	if err := w.server.Journal.Read(Position{}, func(r Record, _ Position) error {
		again.Resume(r.Agent, r.Sealed.Mark)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := again.line("mx1").marks; got != [2]Mark{nth(6, 2), late(1<<63, 1)} {
		t.Errorf("the journal says %+v", got)
	}
}

// One agent's backlog is taken at a time, and the others are told at once to come
// again; what is new is taken meanwhile.
func TestOneBacklogAtATime(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	s, at0 := sealed(t, 5, 1), Mark{Late: true} // nothing has waited yet
	s.Late = true
	w.server.lateTurn() <- struct{}{}
	if at, ok, err := c.Send(t.Context(), at0, []Sealed{s}); err != nil || !ok || *at.Old != at0 {
		t.Errorf("while another's is taken: %+v, %v, %v", at, ok, err)
	}
	if at, ok, err := c.Send(t.Context(), Mark{}, []Sealed{sealed(t, 6, 1)}); err != nil || !ok || at.Mark != nth(6, 1) {
		t.Errorf("what is new: %+v, %v, %v", at, ok, err)
	}
	<-w.server.lateTurn()
	if at, ok, err := c.Send(t.Context(), at0, []Sealed{s}); err != nil || !ok || at.Old.Seq != 1 {
		t.Errorf("later: %+v, %v, %v", at, ok, err)
	}
}

// Of what waited little is taken at once, as others wait for it, and what is known
// costs nothing more.
func TestBacklogIsTakenInPieces(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	small := sealed(t, 1, 1).Body
	rnd := rand.New(rand.NewPCG(1, 1))
	var b Batch
	for range 600 { // which no packing makes small
		text := make([]byte, 250)
		for i := range text {
			text[i] = byte('!' + rnd.IntN(90))
		}
		b.Events = append(b.Events, mailq.Event{Time: noon, Kind: mailq.Submitted, Account: "alice@shop.test", Subject: string(text)})
	}
	s, err := Seal(&b)
	if err != nil {
		t.Fatal(err)
	}
	large := s.Body
	if n := len(large); n <= 100<<10 || n > 128<<10 {
		t.Fatalf("the large batch has %d bytes", n)
	}
	many := func(from, n int, body []byte) (all []Sealed) {
		for i := range n {
			all = append(all, Sealed{Mark{5, uint64(from + i), true}, body})
		}
		return all
	}
	for _, row := range []struct {
		name    string
		batches []Sealed
		status  int // 0: taken
		at      uint64
	}{
		{"17 batches", many(1, 17, small), http.StatusRequestEntityTooLarge, 0},
		{"two large ones", many(1, 2, large), http.StatusRequestEntityTooLarge, 0},
		{"a large one", many(1, 1, large), 0, 1},
		{"16 batches", many(2, 16, small), 0, 17},
		{"known ones that cannot be unpacked", many(16, 2, []byte("none")), 0, 17},
		{"and one that is not known", many(17, 2, []byte("none")), http.StatusBadRequest, 17},
		{"one without a number", many(0, 1, small), http.StatusBadRequest, 17},
	} {
		known := w.server.line("mx1").both().Of(true)
		_, ok, err := c.Send(t.Context(), known, row.batches)
		var refused *Refused
		if errors.As(err, &refused); row.status != 0 && (refused == nil || refused.Status != row.status) || row.status == 0 && (!ok || err != nil) {
			t.Errorf("%s: %v, %v", row.name, ok, err)
		}
		if at := w.server.line("mx1").both().Of(true); at.Seq != row.at {
			t.Errorf("%s: at %d, want %d", row.name, at.Seq, row.at)
		}
	}
	alone := many(18, 1, slices.Concat(large, large)) // it is none, but not for its size
	var refused *Refused
	if _, _, err := c.Send(t.Context(), w.server.line("mx1").both().Of(true), alone); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		t.Errorf("a larger one alone: %v", err)
	}
}

// Whatever an agent sends, its marks only go on, and as many batches are delivered
// as the journal has.
func FuzzBatches(f *testing.F) {
	s := sealed(f, 2, 1)
	for _, late := range []bool{false, true} {
		s.Late = late
		text, err := encoding.Marshal(shipment{Known: Mark{1, 5, late}, Batches: []Sealed{s}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	delivered := 0
	server := &Server{Journal: openJournal(f, f.TempDir(), 1<<30), Log: slog.New(slog.DiscardHandler), Deliver: func(Delivery) { delivered++ }}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := server.line("mx1")
		l.marks, delivered = [2]Mark{nth(1, 5), {1, 5, true}}, 0
		r := httptest.NewRequest(http.MethodPost, "/v1/batches", bytes.NewReader(text))
		w := httptest.NewRecorder()
		server.batches(w, r.WithContext(context.WithValue(r.Context(), memberKey{}, caller{Member{}, l})))
		moved := false
		for i, m := range l.marks {
			moved = moved || m != Mark{1, 5, i == 1}
			if m.Late != (i == 1) || m.Epoch < 1 || m.Epoch == 1 && m.Seq < 5 {
				t.Errorf("status %d: %+v", w.Code, l.marks)
			}
		}
		if moved != (delivered > 0) {
			t.Errorf("status %d, %d delivered: %+v", w.Code, delivered, l.marks)
		}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	w := newWorld(t)
	good := w.agent("mx1", "shop.test")
	send := func(c *Client) error {
		_, _, err := c.Send(t.Context(), Mark{}, []Sealed{sealed(t, 1, 1)})
		return err
	}
	// with makes an agent that shows another certificate.
	with := func(cert tls.Certificate) *Client {
		c := &Client{Address: w.address, Dir: good.Dir}
		if _, _, err := c.Open(); err != nil {
			t.Fatal(err)
		}
		c.cert = cert
		return c
	}
	sign := func(ca *CA, m Member, until time.Duration) tls.Certificate {
		own, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.sign(own.Public(), &x509.Certificate{
			Subject: pkix.Name{CommonName: m.Agent, SerialNumber: m.Enrolment}, NotAfter: time.Now().Add(until), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: own, Leaf: cert}
	}
	other, err := OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.roster.Member("mx1")
	if err != nil {
		t.Fatal(err)
	}
	unknown := Member{Scope: Scope{Agent: "mx9"}, Enrolment: m.Enrolment}
	old := Member{Scope: m.Scope, Enrolment: "e0"}
	for name, c := range map[string]*Client{
		"no certificate":         with(tls.Certificate{}),
		"another authority's":    with(sign(other, m, time.Hour)),
		"expired":                with(sign(w.server.CA, m, -time.Minute)),
		"of an unknown agent":    with(sign(w.server.CA, unknown, time.Hour)),
		"of an older enrolment":  with(sign(w.server.CA, old, time.Hour)),
		"of no enrolment at all": with(sign(w.server.CA, Member{Scope: m.Scope}, time.Hour)),
	} {
		if err := send(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := len(w.deliveries()); n != 0 || w.server.Journal.Size() != 0 {
		t.Errorf("%d batches were delivered, %d bytes written", n, w.server.Journal.Size())
	}
	if err := send(good); err != nil {
		t.Errorf("the agent itself: %v", err)
	}
}

func TestTokensAreGoodOnce(t *testing.T) {
	w := newWorld(t)
	token := w.token("mx1", "shop.test")
	c, err := w.enrol(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.enrol(token); err == nil {
		t.Error("the token was good twice")
	}
	wrong := w.token("mx1", "shop.test")
	wrong.Secret = make([]byte, 16)
	if _, err := w.enrol(wrong); err == nil {
		t.Error("another secret was good")
	}
	stolen := w.token("mx1", "shop.test")
	stolen.Agent = "mx2"
	if _, err := w.enrol(stolen); err == nil {
		t.Error("the token was good for another agent")
	}
	elsewhere := w.token("mx1", "shop.test")
	elsewhere.Fingerprint = strings.Repeat("0", 64)
	if _, err := w.enrol(elsewhere); err == nil || !strings.Contains(err.Error(), "fingerprint") {
		t.Errorf("another hub: %v", err)
	}
	if _, _, err := c.Send(t.Context(), Mark{}, nil); err != nil {
		t.Errorf("the first enrolment: %v", err)
	}
	if _, err := w.enrol(w.token("mx1", "shop.test")); err != nil {
		t.Fatal(err)
	}
	var refused *Refused
	if _, _, err := c.Send(t.Context(), Mark{}, nil); !errors.As(err, &refused) || !refused.Banned() {
		t.Errorf("after the second enrolment the first is good: %v", err)
	}
	revoked := w.token("mx1")
	w.roster.mu.Lock()
	delete(w.roster.members, "mx1")
	w.roster.mu.Unlock()
	if _, err := w.enrol(revoked); err == nil {
		t.Error("the token of a revoked agent was good")
	}
}

func TestMalformedRequestsWriteNothing(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	good, err := encoding.Marshal(shipment{Batches: []Sealed{sealed(t, 1, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	bomb, err := encoding.Marshal(shipment{Batches: []Sealed{{nth(1, 1), packer.EncodeAll(make([]byte, 64<<20), nil)}}})
	if err != nil {
		t.Fatal(err)
	}
	mixed, err := encoding.Marshal(shipment{Batches: []Sealed{sealed(t, 1, 1), {nth(1, 2), []byte("no")}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "cut": good[:len(good)-3], "bomb": bomb, "one of two": mixed,
		"oversized": make([]byte, maxRequest+1), "zeros": make([]byte, 1000),
	} {
		var at Mark
		_, err := c.post(t.Context(), "/v1/batches", body, &at)
		var refused *Refused
		if !errors.As(err, &refused) || refused.Status >= 500 || refused.Text == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 1000 { // of a damaged network card, or of somebody who tries
		s := sealed(t, 1, 1)
		const head = 6 // of the frame: it has bits that nobody reads
		for at := range 1 + rnd.IntN(3) {
			s.Body[head+3*rnd.IntN((len(s.Body)-head)/3)+at] ^= byte(1 + rnd.IntN(255))
		}
		if rnd.IntN(4) == 0 {
			s.Body = s.Body[:rnd.IntN(len(s.Body))]
		}
		var refused *Refused
		if _, _, err := c.Send(t.Context(), Mark{}, []Sealed{s}); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Fatalf("damaged batch %d: %v", n, err)
		}
	}
	if n := w.server.Journal.Size(); n != 0 || len(w.deliveries()) != 0 {
		t.Errorf("%d bytes were written", n)
	}
	var at Mark
	if _, err := c.post(t.Context(), "/v1/batches", good, &at); err != nil || at != (nth(1, 1)) {
		t.Errorf("a good one after them: %v, %v", at, err)
	}
}

func TestOrdersReachAgents(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	w.server.Board.Set(block("alice@shop.test"), "no")
	w.server.Board.Set(block("eve@elsewhere.test"), "no")
	w.server.Board.Set(block("script:mx1!/x.php"), "no")
	w.server.Board.Set(block("script:mx2!/x.php"), "no")
	changes := make(chan Change, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Orders(t.Context(), func(change Change) error {
			if !change.empty() {
				changes <- change
			}
			return nil
		})
	}()
	if got := said(<-changes); got != "all +alice@shop.test +script:/x.php" {
		t.Errorf("at first: %q", got)
	}
	begun := time.Now()
	w.server.Board.Set(block("bob@shop.test"), "no")
	if got := said(<-changes); got != "+bob@shop.test" {
		t.Errorf("then: %q", got)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
	w.server.Board.Remove("eve@elsewhere.test")
	w.server.Board.Remove("alice@shop.test")
	if got := said(<-changes); got != "-alice@shop.test" {
		t.Errorf("at last: %q", got)
	}
	w.roster.mu.Lock()
	delete(w.roster.members, "mx1")
	w.roster.mu.Unlock()
	w.server.Drop("mx1")
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the stream of a revoked agent stays open")
	}
	var refused *Refused
	if err := c.Orders(t.Context(), func(Change) error { return nil }); !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
		t.Errorf("the next stream of a revoked agent: %v", err)
	}
}

func TestHeldIsAnsweredWithinTheScope(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	over := block("bob@shop.test")
	over.ID = "d-over"
	got, err := c.Held(t.Context(), []rules.Decision{block("alice@shop.test"), over, block("eve@elsewhere.test")})
	if err != nil || fmt.Sprint(got) != "[eve@elsewhere.test bob@shop.test]" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	was := c.cert.Leaf.SerialNumber
	if err := c.Renew(t.Context()); err != nil || c.cert.Leaf.SerialNumber != was {
		t.Errorf("too early: %v", err)
	}
	if err := c.renew(t.Context()); err != nil || c.cert.Leaf.SerialNumber.Cmp(was) == 0 {
		t.Fatalf("not renewed: %v", err)
	}
	kept, err := readPair(filepath.Join(c.Dir, agentFile))
	if err != nil || kept.Leaf.SerialNumber.Cmp(c.cert.Leaf.SerialNumber) != 0 {
		t.Errorf("not kept: %v", err)
	}
	if _, _, err := c.Send(t.Context(), Mark{}, []Sealed{sealed(t, 1, 1)}); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
}

// A request that was held up says nothing of a clock, but one that went fast
// does.
func TestSkewIsOfTheFastestRequest(t *testing.T) {
	l := &line{}
	for _, test := range []struct{ ahead, want time.Duration }{
		{-time.Millisecond, -time.Millisecond}, {-40 * time.Second, -time.Millisecond}, {2 * time.Hour, 2 * time.Hour},
	} {
		if got := l.skewLocked(test.ahead); got != test.want {
			t.Errorf("after %s: %s, want %s", test.ahead, got, test.want)
		}
	}
	for range len(l.skews) { // the clock is set right
		l.skewLocked(-time.Millisecond)
	}
	if got := l.skewLocked(-time.Millisecond); got != -time.Millisecond {
		t.Errorf("set right: %s", got)
	}
}

// Strangers cannot fill the hub's log.
func TestRefusalsAreLoggedSparingly(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var l SparingLog
	for range 10_000 {
		l.Warn(log, "agent refused")
	}
	l.allow.SetBurst(2 * sparingAtOnce)
	l.allow.SetLimit(rate.Inf)
	l.Warn(log, "agent refused")
	lines := strings.Count(out.String(), "\n")
	if lines > sparingAtOnce+5 || !strings.Contains(out.String(), "left_out_before=99") {
		t.Errorf("%d lines:\n%s", lines, out.String())
	}
}
