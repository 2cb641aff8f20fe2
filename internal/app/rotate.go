package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
)

// A rotation is the replacement of the key with which recipients are hashed. Until
// it is over recipients are hashed with both keys, and judged by the present one.
type rotation struct {
	Next   [16]byte             `json:"next"`
	Begun  time.Time            `json:"begun"`
	Lasts  time.Duration        `json:"lasts_ns"`
	Ticked time.Time            `json:"ticked"`         // when the hub was seen to be at it
	Both   map[string]time.Time `json:"both,omitempty"` // since when an agent has hashed with both keys

	other map[string]time.Time // since when one that did says that it does not; not kept
}

// String implements fmt.Stringer and does not tell the key.
func (r rotation) String() string {
	return fmt.Sprintf("since %s for %s to <secret>", r.Begun, r.Lasts)
}

// GoString implements fmt.GoStringer, for %#v, and does not tell the key.
func (r rotation) GoString() string { return r.String() }

// LogValue implements slog.LogValuer and does not tell the key.
func (r rotation) LogValue() slog.Value { return slog.StringValue(r.String()) }

// keys are the keys that the rotation leads from and to.
func (r *rotation) keys(key [16]byte) hub.Keys {
	if r == nil {
		return hub.Keys{Key: key}
	}
	return hub.Keys{Key: key, Next: r.Next}
}

// A keyring holds the key, and the rotation of it. A rotation that is in it is not
// changed: another takes its place.
type keyring struct {
	turn sync.Mutex // held while a change is written down and made, so that there is one at a time

	mu       sync.Mutex // guards what follows
	key      [16]byte
	rotation *rotation // nil: there is none
	replaced time.Time // when the key took the place of another; zero: never
}

func (k *keyring) get() (key [16]byte, r *rotation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.key, k.rotation
}

func (k *keyring) set(key [16]byte, r *rotation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key, k.rotation = key, r
}

// replace puts the next key in place of the present one.
func (k *keyring) replace(next [16]byte, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key, k.rotation, k.replaced = next, nil, now
}

// lateBoth is how long after a rotation there may be recipients with both hashes in
// what comes: agents may keep what they send for thirty days.
const lateBoth = 30 * 24 * time.Hour

// both reports whether recipients may have two hashes.
func (k *keyring) both(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rotation != nil || !k.replaced.IsZero() && now.Sub(k.replaced) < lateBoth
}

// keys are what recipients are hashed with.
func (k *keyring) keys() hub.Keys {
	key, r := k.get()
	return r.keys(key)
}

// loadKeyring makes the key at the first start: recipients are known by their hash
// under it.
func loadKeyring(ctx context.Context, db *store.DB) (*keyring, error) {
	k := &keyring{}
	fresh := newRecipientKey()
	kept, err := db.SettingOnce(ctx, store.RecipientKey, fresh[:])
	if err != nil {
		return nil, err
	}
	if len(kept) != len(k.key) {
		return nil, fmt.Errorf("the recipient key in the database has %d bytes, not %d", len(kept), len(k.key))
	}
	k.key = [16]byte(kept)
	at, err := db.Setting(ctx, store.RecipientReplaced)
	if err == nil {
		err = k.replaced.UnmarshalText(at)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("when the recipient key was replaced: %w", err)
	}
	text, err := db.Setting(ctx, store.RecipientRotation)
	if errors.Is(err, store.ErrNotFound) {
		return k, nil
	}
	if err != nil {
		return nil, err
	}
	k.rotation = &rotation{}
	if err := json.Unmarshal(text, k.rotation); err != nil {
		return nil, fmt.Errorf("rotation of the recipient key: %w", err)
	}
	return k, nil
}

func newRecipientKey() (key [16]byte) {
	rand.Read(key[:])
	return key
}

// rekey has the parser hash with the keys.
func (p *pipeline) rekey(ctx context.Context, k hub.Keys) error {
	return p.inObserve(ctx, func() {
		p.judge.parser.Rekey(k.Key, k.Next)
		p.judge.hashTraps()
	})
}

// A keeper is where operators replace the key.
type keeper struct{ *service }

// keeper is nil on an agent.
func (s *service) keeper() web.Keeper {
	if s.agent != nil {
		return nil
	}
	return keeper{s}
}

// leastRotation is the silence after which an account may be forgotten: whoever is
// not written to for so long may look new.
func leastRotation() time.Duration { return detector.Default().Window }

var (
	errRotating    = fmt.Errorf("%w: the key is being rotated already; where the next key has leaked, rotate again", web.ErrInvalid)
	errNotRotating = fmt.Errorf("%w: the key is not being rotated: there is nothing to begin again", web.ErrInvalid)
)

// Rotate implements web.Keeper.
func (s keeper) Rotate(ctx context.Context, o web.KeyOrder) (web.Rotation, error) {
	now := time.Now()
	r := &rotation{Next: newRecipientKey(), Begun: now, Ticked: now, Lasts: o.For}
	if r.Lasts == 0 {
		r.Lasts = max(time.Duration(s.config.Keep.Accounts), leastRotation())
	}
	switch {
	case strings.TrimSpace(o.Who) == "" || len(o.Who) > maxWho || len(o.Why) > maxWhy:
		return web.Rotation{}, fmt.Errorf("%w: needs who orders it, in at most %d bytes, and why in at most %d", web.ErrInvalid, maxWho, maxWhy)
	case r.Lasts < leastRotation() || r.Lasts > maxFor:
		return web.Rotation{}, fmt.Errorf("%w: a rotation for %s: at least %s, or people would be stopped for writing to those they know, and at most %s", web.ErrInvalid, r.Lasts, leastRotation(), maxFor)
	}
	if err := s.begin(ctx, r, o); err != nil {
		return web.Rotation{}, err
	}
	s.log.Info("the key of recipients is being rotated", "by", o.Who, "for", r.Lasts)
	if err := s.rekey(context.WithoutCancel(ctx), s.keyring.keys()); err != nil {
		return web.Rotation{}, fmt.Errorf("written down, and in effect from the next start: %w", err)
	}
	return s.Rotation(ctx)
}

// begin writes a rotation down and makes it the one that is under way.
func (s keeper) begin(ctx context.Context, r *rotation, o web.KeyOrder) error {
	s.keyring.turn.Lock()
	defer s.keyring.turn.Unlock()
	write, not := s.store.BeginRotation, errRotating
	if o.Again {
		write, not = s.store.BeginAgain, errNotRotating
	}
	err := write(ctx, asJSON(r), r.Begun, o.Who, o.Why)
	if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) {
		return not
	}
	if err != nil {
		return err
	}
	key, _ := s.keyring.get()
	s.keyring.set(key, r)
	return nil
}

// Rotation implements web.Keeper.
func (s keeper) Rotation(ctx context.Context) (web.Rotation, error) {
	_, r := s.keyring.get()
	if r == nil {
		return web.Rotation{}, nil
	}
	rows, err := s.store.Agents(ctx) // also where none is listened for
	if err != nil {
		return web.Rotation{}, err
	}
	out := web.Rotation{Begun: r.Begun}
	out.Ends, out.Last, out.Waits = r.end(rows)
	return out, nil
}

// newcomer is how soon an agent that is added during a rotation must be heard to
// hash with both keys for nothing of its to be missing. Its token lasts an hour.
const newcomer = tokenLasts + time.Hour

// end is when the rotation is over: when each agent has hashed with both keys for
// as long as it lasts. An agent that has done so since it was added has taught
// nothing under the present key alone, and does not put it off. Last is who puts it
// off most, if any does. It is zero while it waits for an agent.
func (r *rotation) end(agents []store.AgentRow) (at time.Time, last string, waits []string) {
	from := r.Begun
	for _, a := range agents {
		if r.waitsFor(a) {
			waits = append(waits, a.Name)
		}
		if since := r.since(a); since.After(from) && since.Sub(a.Added) > newcomer {
			from, last = since, a.Name
		}
	}
	if len(waits) > 0 {
		return time.Time{}, last, waits
	}
	return from.Add(r.Lasts), last, nil
}

// since is from when on nothing of the agent's was hashed with the old key alone: it
// hashed with both, or was revoked. It is zero where that is not so yet, and where it
// never reported.
func (r *rotation) since(a store.AgentRow) time.Time {
	if since, both := r.Both[a.Name]; both || a.Enrolled.IsZero() {
		return since
	}
	return a.Revoked
}

// waitsFor reports whether the rotation, nil is none, does not go on without the
// agent. One that was revoked and is welcome again may report any time.
func (r *rotation) waitsFor(a store.AgentRow) bool {
	return r != nil && !a.Enrolled.IsZero() && a.Revoked.IsZero() && r.since(a).IsZero()
}

// How often it is written down that the hub is at it, and what it may miss.
const (
	tickEvery = time.Hour
	tickLate  = 3 * time.Hour
)

// tick notes that the hub is at it. For as long as it was not, because it was down,
// or of the release before, nothing was learnt under the next key: the rotation lasts
// longer by that. It reports whether there is something to be written down.
func (r *rotation) tick(now time.Time) (write bool) {
	now = now.Round(0) // by the clock, which goes on while a machine is suspended
	gap := now.Sub(r.Ticked)
	if gap >= 0 && gap < tickEvery {
		return false
	}
	if gap > tickLate {
		r.Lasts += gap
	}
	r.Ticked = now
	return true
}

func (r *rotation) copy() *rotation {
	after := *r
	after.Both, after.other = map[string]time.Time{}, map[string]time.Time{}
	maps.Copy(after.Both, r.Both)
	maps.Copy(after.other, r.other)
	return &after
}

// flicker is how long an agent may hash with other keys than the hub's: it enrols
// anew, it is about to hear of them, or the hub's database is of a backup.
const flicker = 10 * time.Minute

// heard is the rotation after it was heard what agents hash with; print names both
// keys. An agent that was not heard since the start does what it did last.
func (r *rotation) heard(agents []hub.Presence, print string, now time.Time) (after *rotation, changed bool) {
	after = r.copy()
	for _, p := range agents {
		_, did := after.Both[p.Agent]
		other, since := after.other[p.Agent]
		switch does := p.Keys == print; {
		case p.Seen.IsZero():
		case does:
			delete(after.other, p.Agent)
			if !did {
				after.Both[p.Agent], changed = now, true
			}
		case did && !since:
			after.other[p.Agent] = now
		case did && now.Sub(other) > flicker:
			delete(after.other, p.Agent)
			delete(after.Both, p.Agent)
			changed = true
		}
	}
	return after, changed
}

// fits reports whether an agent that names its keys so hashes as this hub does. One
// of a release that does not name them has the key of its enrolment.
func (k *keyring) fits(a store.AgentRow, print string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if print == "" {
		return k.rotation == nil && a.Enrolled.After(k.replaced)
	}
	return print == k.rotation.keys(k.key).Fingerprint()
}

// A hashing is an eye on what an agent hashes with.
type hashing struct {
	eye
	other time.Time // since when with other keys than this hub; zero: with the same
}

// watchKeys tells of an agent that hashes with other keys than this hub: everybody
// whom its accounts write to is new.
func (s *service) watchKeys(ctx context.Context, a store.AgentRow, p hub.Presence) {
	h := s.fleet.hashing[a.Name]
	switch {
	case p.Seen.IsZero():
	case s.keyring.fits(a, p.Keys):
		if h != nil {
			h.other = time.Time{}
			s.sees(&h.eye)
		}
	case h == nil:
		part := "keys of agent " + a.Name
		s.fleet.hashing[a.Name] = &hashing{eye{kind: "keys", subject: part, part: part}, time.Now()}
	case h.other.IsZero():
		h.other = time.Now()
	case time.Since(h.other) > flicker:
		s.blind(ctx, &h.eye, fmt.Errorf("agent %s does not hash recipients with the keys of this hub: is its disk full, or is it of an older release? If not, enrol it anew", a.Name))
	}
}

// turnKey goes on with the rotation, and puts the next key in place of the present
// one when it is over.
func (s *service) turnKey(ctx context.Context) error {
	turned, overdue, err := s.turnOn(ctx, time.Now())
	switch {
	case err != nil:
		return err
	case overdue != nil:
		s.blind(ctx, &s.turning, overdue)
	case !s.turning.since.IsZero():
		s.sees(&s.turning)
	}
	if !turned {
		return nil
	}
	s.log.Info("the key of recipients is replaced")
	return s.rekey(ctx, s.keyring.keys())
}

// turnOn is turnKey without the telling: overdue is why the rotation goes on when its
// time is over.
func (s *service) turnOn(ctx context.Context, now time.Time) (turned bool, overdue, err error) {
	s.keyring.turn.Lock()
	defer s.keyring.turn.Unlock()
	key, r := s.keyring.get()
	if r == nil {
		return false, nil, nil
	}
	rows, err := s.store.Agents(ctx) // also where none is listened for
	if err != nil {
		return false, nil, err
	}
	after, changed := r.copy(), false
	if s.fleet != nil {
		after, changed = r.heard(s.fleet.server.Presences(), r.keys(key).Fingerprint(), now)
	}
	if after.tick(now) || changed {
		if err := s.store.SetSetting(ctx, store.RecipientRotation, asJSON(after)); err != nil {
			return false, nil, err
		}
	}
	s.keyring.set(key, after)
	end, _, waits := after.end(rows)
	if due := after.Begun.Add(after.Lasts); len(waits) > 0 && now.After(due) {
		overdue = fmt.Errorf("the rotation of the key was to end at %s, and waits for %s: bring them up to date and see that they reach this hub, or revoke them", due.Format(time.DateTime), strings.Join(waits, ", "))
	}
	if len(waits) > 0 || now.Before(end) {
		return false, overdue, nil
	}
	if err := s.store.EndRotation(ctx, after.Next[:], now); err != nil {
		return false, nil, err
	}
	s.keyring.replace(after.Next, now)
	return true, nil, nil
}
