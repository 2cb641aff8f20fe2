package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// RunAgent is `vedetta agent`: it reads the logs and answers the gate as serve
// does, and leaves the judging to its hub. It returns when ctx ends, or with
// the error that kept it from starting or going on.
func RunAgent(ctx context.Context, o Options) error {
	debug.SetGCPercent(agentGC)
	if o.Config.Hub.Address == "" {
		return errors.New("hub.address is not set: an agent reports to a hub; without one, run vedetta serve")
	}
	c, db, end, err := begin(ctx, o.Config)
	if err != nil {
		return err
	}
	defer end()
	client := &hub.Client{Address: c.Hub.Address, Dir: c.FleetDir(), Version: shortVersion()}
	name, keys, err := client.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := db.Durable(ctx); err != nil {
		return err
	}
	s, err := newService(ctx, c, db, o)
	if err != nil {
		return err
	}
	s.judge.parser.Key, s.judge.parser.Next = keys.Key, keys.Next
	s.agent = &agent{
		name: name, client: client, db: db, sending: newRetry(), obeying: newRetry(),
		spoolMax: int64(c.Hub.SpoolMax) << 20, keep: time.Duration(c.Hub.SpoolKeep),
	}
	s.pace = agentPace
	s.forward = newForwarder()
	s.forward.fuse = fuse{most: c.Hub.Fuse, away: s.agent.away}
	s.agent.heard.Store(time.Now().UnixNano())
	client.Waiting, client.Resets = s.agent.waiting, s.resetter != nil && s.handsOver
	if s.errands, err = newErrands(ctx, db, o.Log); err != nil {
		return err
	}
	s.agent.keys.Store(&keys)
	client.Keys = func() hub.Keys { return *s.agent.keys.Load() }
	client.Addresses = s.agent.ownAddresses
	if err := s.agent.resume(ctx, s.forward); err != nil {
		return err
	}
	if err := s.restore(ctx); err != nil {
		return err
	}
	return s.run(ctx, o.Ready)
}

// What an agent does to be small: it collects garbage early, as it keeps
// little, and looks at a busy log less often, as it tells only each flushEvery.
const (
	agentGC   = 25 // per cent
	agentPace = 100 * time.Millisecond
)

// Enrol makes this server an agent of the hub that the configuration names.
func Enrol(ctx context.Context, c config.Config, token string) (agent string, err error) {
	if c.Hub.Address == "" {
		return "", errors.New("hub.address is not set: write host:port of the hub into the configuration")
	}
	t, err := hub.ParseToken(token)
	if err != nil {
		return "", err
	}
	if err := ownState(c.State); err != nil {
		return "", err
	}
	return t.Agent, hub.Enrol(ctx, c.Hub.Address, t, c.FleetDir(), shortVersion())
}

// An agent is this server's place in a fleet.
type agent struct {
	name     string
	client   *hub.Client
	db       *store.DB
	spoolMax int64
	keep     time.Duration

	// What follows is send's.
	told  hub.Marks // where the hub says that it is
	place place
	later time.Time // before which the hub is busy with what is new
	late  stride    // of what waits
	cut   time.Time // when the first request in a row began for which the hub was not reached; zero: it was

	sending, obeying retry // of the two connections: send's and obeyHub's

	behind atomic.Int64 // batches that the hub has not had
	heard  atomic.Int64 // when the hub was reached last, in nanoseconds since 1970
	keys   atomic.Pointer[hub.Keys]

	addresses atomic.Pointer[[]netip.Addr] // of its interfaces; nil: the hub is told of none
}

// away reports whether the hub is not reached, and has not been for a while.
func (a *agent) away(now time.Time) bool { return now.Sub(time.Unix(0, a.heard.Load())) > fuseAfter }

// resume finds where the last run was.
func (a *agent) resume(ctx context.Context, f *forwarder) error {
	positions, err := a.db.LoadPositions(ctx)
	if err != nil {
		return err
	}
	if text := positions[spoolSource]; text != nil {
		if err := json.Unmarshal(text, &f.seq); err != nil {
			return fmt.Errorf("number of the latest batch: %w", err)
		}
	}
	f.committed.Store(f.seq)
	first := place{Agent: a.name, Parts: []part{{Epoch: uint64(time.Now().UnixNano()), Base: f.seq, Acked: f.seq}}}
	text, err := a.db.SettingOnce(ctx, placeSetting, asJSON(first))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &a.place); err != nil {
		return fmt.Errorf("place of the spool: %w", err)
	}
	if a.place.Agent != a.name {
		a.place.Agent = a.name
		a.place.renumber(0)
	}
	return nil
}

// savePlace writes the place down.
func (a *agent) savePlace(ctx context.Context) error {
	err := a.db.SetSetting(ctx, placeSetting, asJSON(a.place))
	a.place.changed = a.place.changed && err != nil
	return err
}

// waiting is about how many batches the hub has not had.
func (a *agent) waiting() int { return int(a.behind.Load()) }

// Pauses of an agent.
const (
	heartbeat = 10 * time.Second // between two words where there is nothing to say
	lateRetry = time.Second      // before what waits is tried again where the hub is busy
	tidyEvery = time.Minute
)

// lateAfter is how long the hub is not reached before what is seen goes in the lane
// of what waits. What is seen once the hub is back does not wait behind that.
const lateAfter = 2 * time.Second

// send brings the spool to the hub until ctx ends.
func (s *service) send(ctx context.Context) error {
	hubEye := eye{kind: "hub", subject: "hub " + s.config.Hub.Address, part: "hub"}
	tidied := time.Now()
	s.lookAtInterfaces()
	for known := false; ctx.Err() == nil; {
		pace, err := s.agent.sendOnce(ctx, s.forward, &known)
		if time.Since(tidied) > tidyEvery {
			tidied = time.Now()
			s.tidySpool(ctx)
			s.lookAtInterfaces()
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.health.set(hubEye.name(), err)
			s.agent.unheard(s.forward.committed.Load(), known)
			known = false
			s.log.Warn("hub not reached; what is seen is kept", "hub", s.config.Hub.Address, "waiting", s.agent.waiting(), "err", err)
			s.agent.sending.rest(ctx)
			continue
		}
		s.sees(&hubEye)
		s.agent.sending.reached(&s.agent.obeying)
		s.agent.sending.pause = firstRetry
		if pace > 0 {
			rest := time.NewTimer(pace)
			select {
			case <-ctx.Done():
			case <-s.forward.written:
			case <-rest.C:
			}
			rest.Stop()
		}
	}
	return nil
}

// answered notes whether the hub was reached with a request. It was where it refuses
// batches for what they are; where it takes nothing, from anybody or from this agent,
// it is as good as away.
func (a *agent) answered(begun time.Time, err error) {
	switch {
	case err == nil || unwelcome(err):
		a.heard.Store(time.Now().UnixNano())
		a.cut = time.Time{}
	case a.cut.IsZero():
		a.cut = begun
	}
}

// unheard notes that nothing could be sent, and whether it could before.
func (a *agent) unheard(newest uint64, before bool) {
	a.place.changed = a.place.changed || before // how far it had come then
	if !a.cut.IsZero() && time.Since(a.cut) > lateAfter {
		a.place.turn(true, newest)
	}
}

// sendAtOnce is how many bytes of batches of what is new go in a request at most.
const sendAtOnce = 1 << 20

// next returns what is to be sent next, and its part: what is new before what
// waits.
func (a *agent) next(ctx context.Context, newest uint64) (p part, rows []store.SpoolRow, err error) {
	p, rows, err = a.nextOf(ctx, false, newest, hub.MaxBatches, sendAtOnce)
	if err != nil || len(rows) > 0 || time.Now().Before(a.later) {
		return p, rows, err
	}
	return a.nextOf(ctx, true, newest, hub.MaxLate, a.late.bytes())
}

func (a *agent) nextOf(ctx context.Context, late bool, newest uint64, most, bytes int) (part, []store.SpoolRow, error) {
	for p := a.place.next(late, newest); p != nil; p = a.place.next(late, newest) {
		rows, err := a.db.Spooled(ctx, p.Acked, p.end(newest), most, bytes)
		if err != nil || len(rows) > 0 || p.Last == 0 {
			return *p, rows, err
		}
		a.place.drop(p.Epoch) // its rest did not fit the disk
	}
	return part{}, nil, nil
}

// sendOnce sends what comes next, and returns how long it may be until there is
// more to send; 0: there is. Until known it only asks where the hub is.
func (a *agent) sendOnce(ctx context.Context, f *forwarder, known *bool) (pace time.Duration, err error) {
	if a.place.changed {
		if err := a.savePlace(ctx); err != nil {
			return 0, fmt.Errorf("place of the spool: %w", err)
		}
	}
	newest := f.committed.Load()
	var p part
	var rows []store.SpoolRow
	if *known {
		if p, rows, err = a.next(ctx, newest); err != nil {
			return 0, err
		}
	}
	a.behind.Store(int64(a.place.waiting(newest)))
	before := a.told.Of(p.Late)
	begun := time.Now()
	at, ok, err := a.ship(ctx, f, before, p, rows)
	a.answered(begun, err)
	if err != nil {
		a.late = stride{}
		return 0, err
	}
	first := !*known
	*known, a.told = true, at
	a.place.hear(at, newest)
	a.behind.Store(int64(a.place.waiting(f.committed.Load())))
	busy := len(rows) > 0 && ok && at.Of(p.Late) == before
	switch {
	case busy:
		a.later = time.Now().Add(lateRetry)
	case p.Late:
		a.late.took(time.Since(begun), rows)
	}
	switch {
	case first || !ok || len(rows) > 0 && !busy:
		return 0, nil
	case a.place.next(true, newest) != nil:
		return lateRetry, nil
	}
	return heartbeat, nil
}

// ship sends batches of a part. One that the hub will never take is lost, and told.
func (a *agent) ship(ctx context.Context, f *forwarder, known hub.Mark, p part, rows []store.SpoolRow) (at hub.Marks, ok bool, err error) {
	batches := make([]hub.Sealed, len(rows))
	for i, r := range rows {
		batches[i] = hub.Sealed{Mark: hub.Mark{Epoch: p.Epoch, Seq: r.Seq - p.Base, Late: p.Late}, Body: r.Body}
	}
	at, ok, err = a.client.Send(ctx, known, batches)
	if unwelcome(err) && len(batches) > 1 { // one of them, or all together
		at, ok, err = a.client.Send(ctx, known, batches[:1])
	}
	if unwelcome(err) && len(batches) > 0 { // it would be refused for ever
		f.lost.Add(uint64(rows[0].Events))
		err = errors.Join(err, a.db.DropSpooled(ctx, rows[0].Seq))
	}
	return at, ok, err
}

// unwelcome reports whether the hub refuses batches for what they are.
func unwelcome(err error) bool {
	var refused *hub.Refused
	return errors.As(err, &refused) && (refused.Status == http.StatusBadRequest || refused.Status == http.StatusRequestEntityTooLarge)
}

// tidySpool notes what the hub has had, and frees what is old or too much.
func (s *service) tidySpool(ctx context.Context) {
	a := s.agent
	err := a.savePlace(ctx)
	lost := 0
	if err == nil {
		lost, err = a.db.TrimSpool(ctx, a.place.sent(s.forward.committed.Load()), a.place.had, time.Now().Add(-a.keep), a.spoolMax)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Error("the spool is not tidied", "err", err)
	}
	if lost > 0 {
		s.forward.lost.Add(uint64(lost))
		s.log.Error("events are lost: the spool is full (hub.spool_max_mb)", "events", lost)
	}
}

// obeyHub keeps in force what the hub says, until ctx ends. While the hub is
// not reached, what is in force stays.
func (s *service) obeyHub(ctx context.Context) error {
	for ctx.Err() == nil {
		begun := time.Now()
		err := s.agent.client.Orders(ctx, func(c hub.Change) error {
			s.agent.obeying.reached(&s.agent.sending)
			return errors.Join(s.mirror(ctx, c), s.takeKeys(ctx, c.Keys)) // the hub says both again with a new connection
		})
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(begun) > lastRetry {
			s.agent.obeying.pause = firstRetry
		}
		s.log.Warn("no word from the hub; what is in force stays", "hub", s.config.Hub.Address, "err", err)
		s.agent.obeying.rest(ctx)
	}
	return nil
}

// takeKeys has recipients hashed with what the hub says; nil is as before. Where it
// cannot be kept for the next start it is not done.
func (s *service) takeKeys(ctx context.Context, keys *hub.Keys) error {
	if keys == nil || *keys == *s.agent.keys.Load() {
		return nil
	}
	err := s.agent.client.SaveKeys(*keys)
	if err == nil {
		err = s.rekey(ctx, *keys)
	}
	if err != nil {
		return fmt.Errorf("recipients are hashed as before: %w", err)
	}
	s.agent.keys.Store(keys)
	s.log.Info("recipients are hashed with the hub's new keys")
	return nil
}

// mirror puts a change in force.
func (s *service) mirror(ctx context.Context, c hub.Change) error {
	if !c.Whole && len(c.Set)+len(c.Lifted) == 0 {
		return nil
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	set, orders := make([]rules.Decision, len(c.Set)), map[string]hub.Order{}
	for i, o := range c.Set {
		set[i] = o.Decision
		set[i].Action = min(set[i].Action, rules.Block) // the password: see heed
		orders[o.Decision.ID] = o
	}
	lifted := c.Lifted
	if c.Whole {
		over, err := s.unnamed(ctx, set)
		if err != nil {
			return err
		}
		lifted = over
	}
	inForce, err := s.store.Mirror(ctx, set, lifted, time.Now())
	if err != nil {
		s.health.set("database", err)
		return fmt.Errorf("what the hub decided is not written down: %w", err)
	}
	for _, subject := range lifted {
		s.acts.Undo(ctx, subject)
	}
	for i, outcome := range s.acts.Replace(ctx, inForce) {
		d := inForce[i]
		s.restrain(d)
		s.log.Info("the hub decided", "account", d.Subject, "action", d.Action.String(), "ok", outcome.OK, "detail", outcome.Detail)
		if err := s.store.Outcome(ctx, d.ID, time.Now(), outcome.OK, outcome.Detail); err != nil {
			return err
		}
		if !outcome.OK {
			s.blind(ctx, &s.force, fmt.Errorf("%s of %s: %s", d.Action, d.Subject, outcome.Detail))
		}
		s.heed(ctx, orders[d.ID], outcome)
	}
	return nil
}

// unnamed asks the hub about what is in force here and is not in its list.
func (s *service) unnamed(ctx context.Context, set []rules.Decision) (over []string, err error) {
	active, err := s.store.Active(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, d := range set {
		named[d.Subject] = true
	}
	strongest := map[string]rules.Decision{}
	for _, d := range active {
		if !named[d.Subject] && d.Action >= strongest[d.Subject].Action {
			strongest[d.Subject] = d
		}
	}
	var held []rules.Decision
	for subject, d := range strongest {
		if d.Rule == byFuse {
			over = append(over, subject) // the hub is back, and judges
		} else {
			held = append(held, d)
		}
	}
	if len(held) == 0 {
		return over, nil
	}
	ended, err := s.agent.client.Held(ctx, held)
	return append(over, ended...), err
}

// renewEvery is how often an agent looks how long its certificate is good.
const renewEvery = time.Hour

// renewCertificate keeps the agent's certificate good until ctx ends.
func (s *service) renewCertificate(ctx context.Context) error {
	for {
		if err := s.agent.client.Renew(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("the certificate is not renewed; it is tried again", "err", err)
		}
		if wait(ctx, renewEvery) != nil {
			return nil
		}
	}
}
