package hub

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Member is an agent that may speak to the hub.
type Member struct {
	Scope
	Enrolment string // of which its certificates are; empty: it has not enrolled yet
}

// ErrStranger means that there is no such agent, or none any more.
var ErrStranger = errors.New("no agent of this hub")

// A Roster knows the agents. Its methods may be called from any goroutine.
type Roster interface {
	// Member returns an agent that is not revoked, or ErrStranger. It answers
	// from memory: it is asked with each request.
	Member(name string) (Member, error)
	// Enrol uses up the agent's one-time token, of which it is given the
	// SHA-256, and begins a new enrolment. A token that is not valid, or was
	// used, is ErrStranger.
	Enrol(ctx context.Context, name string, token [sha256.Size]byte) (Member, error)
}

// A Delivery is a batch that is on the disk.
type Delivery struct {
	Agent string
	Batch
	Received time.Time     // by the hub's clock
	Skew     time.Duration // by which the agent's clock is ahead
	Gap      bool          // the hub has not seen the batches before it, and will not
	At       Position      // of the journal
}

// A Server is the hub's side. Its fields are set before Serve and are all
// required, but for Log.
type Server struct {
	CA      *CA
	Roster  Roster
	Journal *Journal
	Board   *Board
	Log     *slog.Logger

	// Deliver is given each batch once, in the order of the journal. While it
	// does not return nothing more is acknowledged.
	Deliver func(Delivery)

	// Held is told what an agent has in force that the hub has not, by the
	// names of the hub, and returns the subjects of those that are over. The
	// others the hub takes over: it has forgotten them.
	Held func(ctx context.Context, agent string, held []rules.Decision) (over []string, err error)

	// ResetDone is told what became of a reset at an agent, as the agent says.
	ResetDone func(ctx context.Context, agent string, r ResetReport) error

	// Keys are what the fleet hashes recipients with. They are asked for at each
	// beat, and an agent is told when they change.
	Keys    func() Keys
	Version string

	mu    sync.Mutex // guards what follows
	lines map[string]*line
	late  chan struct{} // holds one while batches that waited are taken: see lateTurn

	strangers, agents SparingLog // who is refused
}

// lateWaits is how long an agent's batches that waited may wait for those of
// another. Then it is told to come again, so that it can say what is new.
const lateWaits = 100 * time.Millisecond

// lateTurn takes one: batches that waited are taken of one agent at a time, in
// the order in which they came, so that what is new is not behind many of them.
func (s *Server) lateTurn() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late == nil {
		s.late = make(chan struct{}, 1)
	}
	return s.late
}

// inTurn calls f when it is an agent's turn with what waited. It returns false
// where the others take too long.
func (s *Server) inTurn(f func()) bool {
	turn := s.lateTurn()
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
		f()
		return true
	case <-time.After(lateWaits):
		return false
	}
}

// What one agent may have open at once. An honest one has one of each, and
// perhaps what a cut has left.
const (
	requestsOnce = 2
	streamsOnce  = 8
)

// A line is what the hub knows of one agent's connection.
type line struct {
	turns   chan struct{} // holds one for each request that is under way: see byTurns
	batches sync.Mutex    // held while batches are taken, so that they stay in order
	marks   [2]Mark       // on the disk, of what is new and of what waited; guarded by batches

	mu    sync.Mutex // guards what follows
	said  Presence
	skews [3]time.Duration // by the latest requests
	heads int              // how many there were
	drop  chan struct{}    // closed when the agent is revoked
}

// A Presence is when an agent was heard, and what it said of itself.
type Presence struct {
	Agent     string        `json:"agent"`
	Seen      time.Time     `json:"seen"`
	Version   string        `json:"version"`
	Skew      time.Duration `json:"skew_ns"`             // by which its clock is ahead
	Waiting   int           `json:"waiting"`             // batches in its spool
	Lag       time.Duration `json:"lag_ns"`              // of its newest event, when that came
	Streams   int           `json:"streams"`             // open, over which it is told of blocks
	Resets    bool          `json:"resets"`              // it can give accounts new passwords
	Addresses []netip.Addr  `json:"addresses,omitempty"` // public ones of its interfaces, at most MaxAddresses
	Keys      string        `json:"keys"`                // the print of those with which it hashes recipients; empty: of a version that does not say
}

// Serve answers agents that l accepts until ctx is done. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	own := &ownCert{ca: s.CA}
	if _, err := own.get(nil); err != nil {
		l.Close()
		return fmt.Errorf("hub: certificate: %w", err)
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // strangers at the door
		Protocols:         http1(),
	}
	server.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: own.get, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool(s.CA.Cert),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		server.Close() // agents send again
	})
	err := server.ServeTLS(l, "", "")
	if !stop() {
		<-done
		return nil
	}
	return fmt.Errorf("hub: %w", err)
}

// http1 is what agents and hub speak: an agent has little to say at once, and
// with HTTP/2, which has several goroutines and writes for each request, a block
// took three times as long to reach one of 1,000 agents.
func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// An ownCert is the hub's certificate, made anew when a third of its time is left.
type ownCert struct {
	ca *CA

	mu   sync.Mutex // guards cert
	cert *tls.Certificate
}

func (o *ownCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cert != nil && time.Until(o.cert.Leaf.NotAfter) > hubLasts/3 {
		return o.cert, nil
	}
	cert, err := o.ca.Server()
	if err != nil {
		return nil, err
	}
	o.cert = &cert
	return o.cert, nil
}

func (s *Server) handler() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer)
	r.Post("/v1/enrol", s.enrol)
	r.Group(func(r chi.Router) {
		r.Use(s.members)
		r.Post("/v1/renew", s.renew)
		r.With(byTurns).Post("/v1/batches", s.batches)
		r.Post("/v1/held", s.held)
		r.With(byTurns).Post("/v1/resets", s.resetDone)
		r.Get("/v1/orders", s.orders)
	})
	return r
}

// The headers in which an agent says what it is.
const (
	headerVersion   = "Vedetta-Version"
	headerTime      = "Vedetta-Time"      // nanoseconds since 1970, by its clock
	headerWaiting   = "Vedetta-Waiting"   // batches in its spool
	headerResets    = "Vedetta-Resets"    // yes: it can give accounts new passwords
	headerKeys      = "Vedetta-Keys"      // the fingerprint of its recipient keys
	headerAddresses = "Vedetta-Addresses" // of its interfaces
)

type memberKey struct{}

// caller is whom a request is from.
type caller struct {
	Member
	*line
}

// members lets only agents pass whose certificate is of their latest enrolment.
func (s *Server) members(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, err := s.member(r)
		if err != nil {
			s.refuse(w, r, http.StatusForbidden, err)
			return
		}
		l := s.line(m.Agent)
		l.heard(r)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), memberKey{}, caller{m, l})))
	})
}

// byTurns lets an agent have few requests at once that cost much.
func byTurns(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(memberKey{}).(caller)
		select {
		case c.turns <- struct{}{}:
			defer func() { <-c.turns }()
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

func (s *Server) member(r *http.Request) (Member, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Member{}, errors.New("this needs an agent's certificate: enrol first")
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	if now := time.Now(); now.After(r.TLS.VerifiedChains[0][0].NotAfter) { // the connection may be older than that
		return Member{}, errors.New("the certificate has expired: enrol again")
	}
	m, err := s.Roster.Member(subject.CommonName)
	if err != nil {
		return m, fmt.Errorf("agent %q: %w", subject.CommonName, err)
	}
	if m.Enrolment == "" || subtle.ConstantTimeCompare([]byte(m.Enrolment), []byte(subject.SerialNumber)) != 1 {
		return m, fmt.Errorf("agent %q has enrolled anew, and this certificate is of before", m.Agent)
	}
	return m, nil
}

func (s *Server) line(agent string) *line {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lines[agent]
	if !ok {
		l = &line{said: Presence{Agent: agent}, drop: make(chan struct{}), turns: make(chan struct{}, requestsOnce), marks: [2]Mark{1: {Late: true}}}
		if s.lines == nil {
			s.lines = map[string]*line{}
		}
		s.lines[agent] = l
	}
	return l
}

// heard notes what a request says of its sender.
func (l *line) heard(r *http.Request) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said.Seen = now
	l.said.Version = plain(r.Header.Get(headerVersion), 64)
	l.said.Resets = r.Header.Get(headerResets) == "yes"
	l.said.Keys = plain(r.Header.Get(headerKeys), 64)
	l.said.Addresses = readAddresses(r.Header.Get(headerAddresses))
	if n, err := strconv.ParseInt(r.Header.Get(headerTime), 10, 64); err == nil {
		l.said.Skew = l.skewLocked(time.Unix(0, n).Sub(now))
	}
	if n, err := strconv.Atoi(r.Header.Get(headerWaiting)); err == nil {
		l.said.Waiting = max(n, 0)
	}
}

// skewLocked is by how much the agent's clock is ahead, if its latest request
// looks like ahead. A request that was held up looks late, and none looks early:
// of the latest few, the one that was under way for the shortest time is right.
func (l *line) skewLocked(ahead time.Duration) time.Duration {
	l.skews[l.heads%len(l.skews)] = ahead
	l.heads++
	return slices.Max(l.skews[:min(l.heads, len(l.skews))])
}

// lane is the mark of one of the two lanes.
func (l *line) lane(late bool) *Mark {
	if late {
		return &l.marks[1]
	}
	return &l.marks[0]
}

// both are the marks, as an agent is told them.
func (l *line) both() Marks {
	l.batches.Lock()
	defer l.batches.Unlock()
	return l.bothLocked()
}

func (l *line) bothLocked() Marks {
	old := l.marks[1]
	return Marks{l.marks[0], &old}
}

// Resume says how far an agent's batches of a lane are on the disk. It is called
// for all agents before Serve.
func (s *Server) Resume(agent string, m Mark) {
	l := s.line(agent)
	l.batches.Lock()
	defer l.batches.Unlock()
	*l.lane(m.Late) = m
}

// Presences lists the agents that were heard since the start.
func (s *Server) Presences() []Presence {
	s.mu.Lock()
	lines := make([]*line, 0, len(s.lines))
	for _, l := range s.lines {
		lines = append(lines, l)
	}
	s.mu.Unlock()
	all := make([]Presence, len(lines))
	for i, l := range lines {
		l.mu.Lock()
		all[i] = l.said
		l.mu.Unlock()
	}
	return all
}

// Drop ends the streams of an agent that is no more welcome. Its requests are
// refused because the roster does not know it.
func (s *Server) Drop(agent string) {
	l := s.line(agent)
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.drop)
	l.drop = make(chan struct{})
}

// An enrolment is what an agent asks for with its one-time token.
type enrolment struct {
	Agent   string `json:"agent"`
	Secret  []byte `json:"secret"`
	Request []byte `json:"request"` // PKCS #10, DER
}

// A welcome is what it gets.
type welcome struct {
	Cert         []byte `json:"cert"` // DER
	CA           []byte `json:"ca"`
	RecipientKey []byte `json:"recipient_key,omitempty"`
	NextKey      []byte `json:"next_key,omitempty"` // while the key is replaced
}

const maxEnrolment = 16 << 10

func (s *Server) enrol(w http.ResponseWriter, r *http.Request) {
	var e enrolment
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEnrolment)).Decode(&e); err != nil {
		s.refuse(w, r, http.StatusBadRequest, fmt.Errorf("enrolment: %w", err))
		return
	}
	if _, err := requestedKey(e.Request); err != nil { // before the token is used up
		s.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	m, err := s.Roster.Enrol(r.Context(), e.Agent, sha256.Sum256(e.Secret))
	if err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, ErrStranger) {
			status = http.StatusForbidden
			err = errors.New("the token is not valid: it was used, is too old, or of another agent; make a new one with vedetta agents add")
		}
		s.refuse(w, r, status, err)
		return
	}
	s.Drop(m.Agent)
	s.Log.Info("agent enrolled", "agent", m.Agent, "from", r.RemoteAddr)
	keys, answer := s.Keys(), welcome{}
	answer.RecipientKey = keys.Key[:]
	if keys.Next != ([16]byte{}) {
		answer.NextKey = keys.Next[:]
	}
	s.certify(w, r, m, e.Request, answer)
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request) {
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEnrolment))
	if err != nil {
		s.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	c := r.Context().Value(memberKey{}).(caller)
	s.certify(w, r, c.Member, request, welcome{})
}

func (s *Server) certify(w http.ResponseWriter, r *http.Request, m Member, request []byte, answer welcome) {
	cert, err := s.CA.signAgent(request, m)
	if err != nil {
		s.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	answer.Cert, answer.CA = cert.Raw, s.CA.Cert.Raw
	s.reply(w, http.StatusOK, answer)
}

// A shipment is the body of a request with batches.
type shipment struct {
	_       struct{} `cbor:",toarray"`
	Known   Mark     // where the agent believes that the hub is; after it there may be a gap
	Batches []Sealed // of one lane
}

func (s shipment) late() bool { return len(s.Batches) > 0 && s.Batches[0].Late }

// batches takes batches that follow on what is known, and passes over those
// that came before. The answer is how far the hub has come, in both lanes. With a
// gap it is 409, unless the agent says that it knows of the gap.
func (s *Server) batches(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(memberKey{}).(caller)
	in, err := received(w, r)
	if err != nil {
		s.refuse(w, r, statusOf(err), err)
		return
	}
	in.Batches = c.unknown(in.Batches)
	late := in.late()
	if late && !s.inTurn(func() {}) { // before the work of unpacking, which it would ask for again
		s.reply(w, http.StatusOK, c.both())
		return
	}
	unpacked, err := opened(in.Batches)
	if err != nil {
		s.refuse(w, r, statusOf(err), err)
		return
	}
	var marks Marks
	ok := true
	take := func() { marks, ok, err = s.take(c, in, unpacked) }
	if !late {
		take()
	} else if !s.inTurn(take) {
		marks = c.both()
	}
	switch {
	case err != nil:
		s.refuse(w, r, http.StatusServiceUnavailable, err)
	case !ok:
		s.reply(w, http.StatusConflict, marks)
	default:
		s.reply(w, http.StatusOK, marks)
	}
}

// errTooMuch marks a request with more than is taken at once.
var errTooMuch = errors.New("too much at once")

// statusOf is what a request is refused with.
func statusOf(err error) int {
	if errors.Is(err, errTooMuch) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// received reads a request with batches and checks what can be checked before they
// are unpacked.
func received(w http.ResponseWriter, r *http.Request) (in shipment, err error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return in, fmt.Errorf("%w: %w", errTooMuch, err)
	}
	if err := decoding.Unmarshal(text, &in); err != nil {
		return in, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	most, size := MaxBatches, 0
	if in.late() {
		most = MaxLate
	}
	if len(in.Batches) > most {
		return in, fmt.Errorf("%w: %d batches, at most %d", errTooMuch, len(in.Batches), most)
	}
	for _, b := range in.Batches {
		if b.Late != in.late() {
			return in, fmt.Errorf("%w: of two lanes at once", ErrMalformed)
		}
		size += len(b.Body)
	}
	if in.late() && len(in.Batches) > 1 && size > MaxLateBytes {
		return in, fmt.Errorf("%w: %d bytes of batches that waited, at most %d", errTooMuch, size, MaxLateBytes)
	}
	return in, nil
}

// unknown are those of the batches, of one lane, that are not on the disk yet.
func (l *line) unknown(batches []Sealed) []Sealed {
	l.batches.Lock()
	defer l.batches.Unlock()
	return slices.DeleteFunc(batches, func(b Sealed) bool { return b.known(*l.lane(b.Late)) })
}

// opened unpacks batches, of one lane.
func opened(batches []Sealed) ([]Batch, error) {
	all := make([]Batch, len(batches))
	for i, size := 0, 0; i < len(all); i++ {
		var n int
		var err error
		if all[i], n, err = batches[i].open(); err != nil {
			return nil, err
		}
		if size += n; size > maxUnpacked && i > 0 {
			return nil, fmt.Errorf("%w: more than %d bytes, unpacked: send fewer batches", errTooMuch, maxUnpacked)
		}
	}
	return all, nil
}

// maxSkew is by how much an agent's clock may differ before its times are
// corrected.
const maxSkew = 30 * time.Second

// take writes those batches that are new. It returns false where there is a gap
// that the agent does not know of, or where it speaks of an epoch that is over.
func (s *Server) take(c caller, in shipment, opened []Batch) (marks Marks, ok bool, err error) {
	now := time.Now()
	c.line.mu.Lock()
	skew := c.said.Skew
	c.line.mu.Unlock()
	if skew.Abs() <= maxSkew {
		skew = 0
	}
	c.batches.Lock()
	defer c.batches.Unlock()
	mark := c.lane(in.late())
	at := *mark
	var records []Record
	var deliveries []Delivery
	for i, sealed := range in.Batches {
		m := sealed.Mark
		if m.known(at) {
			continue
		}
		next := m.Epoch == at.Epoch && m.Seq == at.Seq+1 || m.Epoch > at.Epoch && m.Seq == 1
		if gap := !next; gap && (m.Epoch < at.Epoch || len(records) > 0 || in.Known != at) {
			return c.bothLocked(), false, nil
		}
		at = m
		records = append(records, Record{Agent: c.Agent, Received: now.UnixNano(), Skew: int64(skew), Gap: !next, Sealed: sealed})
		deliveries = append(deliveries, Delivery{Agent: c.Agent, Batch: opened[i], Received: now, Skew: skew, Gap: !next})
	}
	if len(records) == 0 {
		return c.bothLocked(), true, nil
	}
	err = s.Journal.Append(records, func(ends []Position) {
		*mark = at
		c.lagged(deliveries)
		for i, d := range deliveries {
			d.At = ends[i]
			s.Deliver(d)
		}
	})
	return c.bothLocked(), true, err
}

// lagged notes how old the newest event is, where it did not wait.
func (l *line) lagged(ds []Delivery) {
	for _, d := range ds {
		if n := len(d.Events); n > 0 && !d.Late {
			l.mu.Lock()
			l.said.Lag = d.Received.Sub(d.Events[n-1].Time.Add(-d.Skew))
			l.mu.Unlock()
		}
	}
}

// Delivery is the record as it is delivered when the journal is read again.
func (r Record) Delivery(at Position) (Delivery, error) {
	b, err := r.Sealed.Open()
	return Delivery{Agent: r.Agent, Batch: b, Received: time.Unix(0, r.Received), Skew: time.Duration(r.Skew), Gap: r.Gap, At: at}, err
}

// held answers an agent that has blocks which the hub did not name.
func (s *Server) held(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(memberKey{}).(caller)
	var held []rules.Decision
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&held); err != nil {
		s.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	local := map[string]string{}
	var known []rules.Decision
	over := []string{}
	for _, d := range held {
		account, ok := c.Global(mailq.Account(d.Subject))
		if !ok || account == "" {
			over = append(over, d.Subject) // not its own to block
			continue
		}
		local[string(account)] = d.Subject
		d.Subject = string(account)
		d.ID, d.Finding, d.Rule, d.Why, d.HeldBack = plain(d.ID, maxWord), plain(d.Finding, maxWord), plain(d.Rule, maxWord), plain(d.Why, maxName), ""
		known = append(known, d)
	}
	ended, err := s.Held(r.Context(), c.Agent, known)
	if err != nil {
		s.refuse(w, r, http.StatusServiceUnavailable, err)
		return
	}
	for _, subject := range ended {
		over = append(over, local[subject])
	}
	s.reply(w, http.StatusOK, over)
}

// beat is how often an agent hears from the hub when nothing changes.
const beat = 5 * time.Second

// orders tells an agent what is in force, all at first and then each change,
// until it hangs up or is revoked. Each line is a [Change]; an empty one says
// that the hub is there.
func (s *Server) orders(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(memberKey{}).(caller)
	c.line.mu.Lock()
	drop, open := c.drop, c.said.Streams
	c.said.Streams++
	c.line.mu.Unlock()
	defer func() {
		c.line.mu.Lock()
		c.said.Streams--
		c.line.mu.Unlock()
	}()
	if open >= streamsOnce {
		s.refuse(w, r, http.StatusTooManyRequests, fmt.Errorf("%d streams are open already", open))
		return
	}
	visible := func(subject string) bool {
		_, ok := c.Local(mailq.Account(subject))
		return ok
	}
	out := http.NewResponseController(w)
	out.SetReadDeadline(time.Time{})
	tick := time.NewTicker(beat)
	defer tick.Stop()
	lines := json.NewEncoder(w)
	var told Keys
	for at, whole := uint64(0), true; ; whole = false {
		change, latest, news := s.Board.Since(at, whole, visible)
		at = latest
		change = c.translated(change)
		if keys := s.Keys(); keys != told {
			told, change.Keys = keys, &keys
		}
		out.SetWriteDeadline(time.Now().Add(2 * beat))
		if err := lines.Encode(change); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-news:
		case <-tick.C:
		case <-drop:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// translated is a change in the names that the agent knows.
func (c caller) translated(change Change) Change {
	out := Change{Whole: change.Whole}
	for _, o := range change.Set {
		account, _ := c.Local(mailq.Account(o.Decision.Subject))
		o.Decision.Subject = string(account)
		if o.Reset.Agent != "" && o.Reset.Agent != c.Agent {
			o.Reset = Reset{} // another agent is asked
		}
		out.Set = append(out.Set, o)
	}
	for _, subject := range change.Lifted {
		account, _ := c.Local(mailq.Account(subject))
		out.Lifted = append(out.Lifted, string(account))
	}
	return out
}

// refusal is what an agent is told when something is not done.
type refusal struct {
	Error string `json:"error"`
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	log := &s.strangers
	if _, known := r.Context().Value(memberKey{}).(caller); known {
		log = &s.agents
	}
	log.Warn(s.Log, "agent refused", "path", r.URL.Path, "from", r.RemoteAddr, "status", status, "err", err)
	s.reply(w, status, refusal{err.Error()})
}

func (s *Server) reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(headerVersion, s.Version)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who is gone needs no answer
}
