package enforce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vedetta-watch/vedetta/mailq"
)

// ErrUnchanged means that a password is certainly still the old one. Without
// it, an error of [Passwords.Change] leaves open which one it is. Test with
// errors.Is.
var ErrUnchanged = errors.New("nothing was changed")

// HashKeeper is what [Passwords] may be able to besides: to read the hash
// that is there, and to put it back.
type HashKeeper interface {
	Old(ctx context.Context, account string) (hash Password, err error)
	Restore(ctx context.Context, account, hash string) error
}

// A Handover brings a new password to whoever gives it to its owner.
type Handover interface {
	Name() string
	// Give hands the password over. Nothing but the receiver may keep it.
	Give(ctx context.Context, o Reset, p Password) error
	// Plan says how, without a password.
	Plan(o Reset) []string
}

// A Reset is the order to give one account a new password.
type Reset struct {
	ID      string   // of the decision
	Account string   // canonical
	Logins  []string // every name under which the account may log in

	// Again says that an earlier attempt did not end, so that nobody may know
	// the password that is there now.
	Again bool
}

// A Resetter gives accounts new passwords: it changes the password, has
// remembered ones forgotten, ends open sessions and hands the new password
// over, in this order. That the account is blocked meanwhile is the caller's
// business.
//
// Nothing of it is kept but in memory: not the password, which is handed over
// once or returned once, nor what was done. So doing a reset a second time
// changes the password a second time, and the one that is handed over last is
// the right one. Its methods may be called from any goroutine.
type Resetter struct {
	Passwords []Passwords // the first that covers an account has its password
	Sessions  []Sessions
	Handover  Handover      // nil: the password is returned, to be shown once
	Keep      time.Duration // how long a password waits for a second try; 0 means an hour

	mu    sync.Mutex
	busy  map[string]bool // accounts
	begun map[string]bool // IDs
	kept  map[string]kept // by ID
}

// A kept password is one that was not handed over, or that may be in force.
type kept struct {
	password Password
	account  string
	changed  bool // it is in force
	until    time.Time
}

const (
	defaultKeep = time.Hour
	maxKept     = 1000
	maxBegun    = 10_000
	maxLogins   = 1000
	maxResetID  = 200
	maxEnding   = time.Minute // for the sessions of an account at one server
)

// A ResetState says which password an account has after a reset.
type ResetState uint8

// The states of a reset.
const (
	ResetUncertain ResetState = iota // the old one or the new one
	ResetUnchanged                   // the old one
	ResetChanged                     // the new one, which nobody has
	ResetGiven                       // the new one, handed over or in the outcome
)

// A ResetOutcome is what became of a reset. Its OK is false also if only a
// session could not be ended.
type ResetOutcome struct {
	Outcome

	State  ResetState
	Driver string // name of the Passwords that has the account's, if any does
	Again  bool   // a reset with this ID was begun before

	// Password is to be shown once to who asked for the reset. It is there
	// only if there is no Handover.
	Password Password

	// Kept is until when the password waits for a second try; zero if none does.
	Kept time.Time

	// Old is the hash that was there before, for Undo; none if it is not known.
	Old Password
}

// Do carries the reset out. It fails without changing anything if no driver
// covers the account, or while another reset of it runs.
//
// If the password cannot be handed over, or if it is uncertain whether it was
// changed, it is kept in memory, and the next Do with the same ID goes on from
// there with the same password; that is tried once. Once it is changed, the
// end of ctx does not keep it from being handed over.
func (r *Resetter) Do(ctx context.Context, o Reset) ResetOutcome {
	driver, err := r.driver(o)
	if err != nil {
		return failed("", err)
	}
	if err := r.begin(o.Account); err != nil {
		return failed(driver.Name(), err)
	}
	defer r.end(o.Account)

	k, retry, again := r.take(o)
	out := ResetOutcome{Driver: driver.Name(), Again: again || o.Again}
	if !k.changed {
		out.Old = oldHash(ctx, driver, o.Account)
		err := driver.Change(ctx, o.Account, k.password.Reveal())
		out.Steps = append(out.Steps, Step{What: "password: " + driver.Name(), Err: hide(err, k.password)})
		if errors.Is(err, ErrUnchanged) && !retry {
			out.State = ResetUnchanged
			return out.summed()
		}
		k.changed = err == nil
	}
	ctx = context.WithoutCancel(ctx)
	out.Steps = append(out.Steps, r.endSessions(ctx, o)...)
	if k.changed {
		out.State = ResetChanged
		r.give(ctx, o, k.password, &out)
	}
	if out.State != ResetGiven && !retry {
		out.Kept = r.keep(o, k)
	}
	return out.summed()
}

// Covers reports whether one of the drivers has the account's password.
func (r *Resetter) Covers(account string) bool {
	return slices.ContainsFunc(r.Passwords, func(p Passwords) bool { return p.Covers(account) })
}

// EndSessions ends what sessions the account has, and does what else Do does to
// them, after its password was changed by somebody else.
func (r *Resetter) EndSessions(ctx context.Context, o Reset) Outcome {
	if err := o.check(); err != nil {
		return failed("", err).Outcome
	}
	return outcome(r.endSessions(ctx, o))
}

// Undo puts a hash back that [ResetOutcome.Old] held. It makes the old
// password valid again, which a thief may know.
func (r *Resetter) Undo(ctx context.Context, o Reset, old Password) Outcome {
	driver, err := r.driver(o)
	if err != nil {
		return failed("", err).Outcome
	}
	keeper, ok := driver.(HashKeeper)
	if !ok || old.IsZero() {
		return failed("", fmt.Errorf("%s: the old password of %s is not known: set a new one", driver.Name(), printable(o.Account))).Outcome
	}
	if err := r.begin(o.Account); err != nil {
		return failed("", err).Outcome
	}
	defer r.end(o.Account)
	err = keeper.Restore(ctx, o.Account, old.Reveal())
	steps := []Step{{What: "old password: " + driver.Name(), Err: hide(err, old)}}
	return outcome(append(steps, r.endSessions(context.WithoutCancel(ctx), o)...))
}

// Plan lists exactly what Do would do, a line each, without secrets.
func (r *Resetter) Plan(o Reset) []string {
	driver, err := r.driver(o)
	if err != nil {
		return []string{"refused: " + err.Error()}
	}
	plan := slices.Clone(driver.Plan(o.Account))
	for _, s := range r.Sessions {
		plan = append(plan, s.Plan(o.Logins)...)
	}
	if r.Handover == nil {
		return append(plan, "show the new password once")
	}
	return append(plan, r.Handover.Plan(o)...)
}

// Forget drops the passwords that wait for a second try and returns the
// accounts of those whose password nobody knows now, to be told.
func (r *Resetter) Forget() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var accounts []string
	for _, k := range r.kept {
		accounts = append(accounts, k.account)
	}
	r.kept = nil
	slices.Sort(accounts)
	return slices.Compact(accounts)
}

// driver is who has the account's password.
func (r *Resetter) driver(o Reset) (Passwords, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	for _, p := range r.Passwords {
		if p.Covers(o.Account) {
			return p, nil
		}
	}
	names := make([]string, len(r.Passwords))
	for i, p := range r.Passwords {
		names[i] = p.Name()
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no password driver is configured, so the password of %s cannot be changed: configure a passwd-file, SQL, a command, a webhook or a panel", printable(o.Account))
	}
	return nil, fmt.Errorf("no password driver covers %s: configure one for its domain (there are: %s)", printable(o.Account), strings.Join(names, ", "))
}

// begin keeps two resets of one account from setting two passwords.
func (r *Resetter) begin(account string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[account] {
		return fmt.Errorf("another reset of %s is running: wait for it", printable(account))
	}
	if r.busy == nil {
		r.busy = make(map[string]bool)
	}
	r.busy[account] = true
	return nil
}

func (r *Resetter) end(account string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, account)
}

// take returns the password to set: the one that was kept for the ID, which
// is forgotten by that, or a new one.
func (r *Resetter) take(o Reset) (k kept, retry, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	again = r.begun[o.ID]
	if len(r.begun) >= maxBegun || r.begun == nil {
		r.begun = make(map[string]bool)
	}
	r.begun[o.ID] = true
	k, retry = r.kept[o.ID]
	delete(r.kept, o.ID)
	if !retry || k.account != o.Account || time.Now().After(k.until) {
		return kept{password: NewPassword(), account: o.Account}, false, again
	}
	return k, true, again
}

// keep keeps a password for a second try and returns until when. It is not
// kept if too many are.
func (r *Resetter) keep(o Reset, k kept) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for id, other := range r.kept {
		// This reset has overtaken it, or its time is over.
		if other.account == o.Account || now.After(other.until) {
			delete(r.kept, id)
		}
	}
	if len(r.kept) >= maxKept {
		return time.Time{}
	}
	if r.kept == nil {
		r.kept = make(map[string]kept)
	}
	k.until = now.Add(cmp.Or(max(r.Keep, 0), defaultKeep))
	r.kept[o.ID] = k
	return k.until
}

// give hands the password over, or puts it into the outcome.
func (r *Resetter) give(ctx context.Context, o Reset, p Password, out *ResetOutcome) {
	if r.Handover == nil {
		out.Password, out.State = p, ResetGiven
		out.Steps = append(out.Steps, Step{What: "handover: shown once"})
		return
	}
	err := r.Handover.Give(ctx, o, p)
	if err == nil {
		out.State = ResetGiven
	}
	out.Steps = append(out.Steps, Step{What: "handover: " + r.Handover.Name(), Err: hide(err, p)})
}

func (r *Resetter) endSessions(ctx context.Context, o Reset) []Step {
	var steps []Step
	for _, s := range r.Sessions {
		ctx, cancel := context.WithTimeout(ctx, maxEnding)
		defer cancel()
		steps = append(steps, Step{What: "sessions: " + s.Name(), Err: s.End(ctx, o.Logins)})
	}
	return steps
}

func oldHash(ctx context.Context, driver Passwords, account string) Password {
	keeper, ok := driver.(HashKeeper)
	if !ok {
		return Password{}
	}
	old, err := keeper.Old(ctx, account)
	if err != nil {
		return Password{} // Change says what is wrong
	}
	return old
}

// hide keeps an error back that tells anything of a password, but not what
// kind of error it is.
func hide(err error, p Password) error {
	switch {
	case err == nil || !leaks(err.Error(), p.Reveal()):
		return err
	case errors.Is(err, ErrUnchanged):
		return fmt.Errorf("%w; the message is not shown because it holds the password", ErrUnchanged)
	}
	return errors.New("the message is not shown because it holds the password")
}

// failed is the outcome of a reset that changed nothing.
func failed(driver string, err error) ResetOutcome {
	out := ResetOutcome{State: ResetUnchanged, Driver: driver}
	out.Steps = []Step{{What: "reset", Err: fmt.Errorf("%w: %w", ErrUnchanged, err)}}
	return out.summed()
}

// summed says in one line what was done, and what is to be done now.
func (out ResetOutcome) summed() ResetOutcome {
	out.Outcome = outcome(out.Steps)
	if advice := out.advice(); advice != "" {
		out.Detail += "; " + advice
	}
	out.Detail = line(out.Detail, maxDetail)
	return out
}

func (out ResetOutcome) advice() string {
	until := out.Kept.UTC().Format(time.RFC3339)
	switch {
	case out.State == ResetGiven && out.Again:
		return "this reset was begun before: only the password of this time is valid"
	case out.State == ResetChanged && out.Kept.IsZero():
		return "the password is changed and NOBODY has the new one: order another reset"
	case out.State == ResetChanged:
		return "the password is changed and nobody has the new one yet: it is kept in memory until " + until + ", do the same reset again to hand it over"
	case out.State == ResetUncertain && out.Kept.IsZero():
		return "the password may be the old one or one that nobody has: order another reset"
	case out.State == ResetUncertain:
		return "the password may be the old one or one that nobody has: do the same reset again, by " + until + " with the same new password"
	}
	return ""
}

const maxDetail = 4 << 10

// check refuses an order that names nobody, or somebody who cannot log in.
func (o Reset) check() error {
	switch {
	case o.ID == "" || len(o.ID) > maxResetID:
		return errors.New("the reset has no ID, or one that is too long")
	case mailq.Account(o.Account).Kind() != mailq.KindLogin:
		return fmt.Errorf("%s is not a login and has no password", printable(o.Account))
	case len(o.Logins) > maxLogins:
		return fmt.Errorf("%s has %d logins, more than %d", printable(o.Account), len(o.Logins), maxLogins)
	}
	return checkAccount(o.Account)
}

// checkAccount refuses a name that no mailbox has, and that could be taken
// for something else by who reads it: empty, endless, with white space,
// control characters, or characters that cannot be seen or turn others around.
func checkAccount(account string) error {
	odd := func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }
	switch {
	case account == "":
		return errors.New("the account has no name")
	case len(account) > maxAccount:
		return fmt.Errorf("the account's name is longer than %d bytes", maxAccount)
	case !utf8.ValidString(account) || strings.ContainsFunc(account, odd):
		return fmt.Errorf("the account %s has white space, control or invisible characters in its name", printable(account))
	}
	return nil
}

const maxAccount = 320 // bytes: 64 of a local part, an @, 255 of a domain

// splitAccount returns what stands before and behind the last @; the domain is
// empty if there is none.
func splitAccount(account string) (user, domain string) {
	if i := strings.LastIndexByte(account, '@'); i >= 0 {
		return account[:i], account[i+1:]
	}
	return account, ""
}

// inDomains reports whether the account is a login of one of the domains, or
// any if there are none.
func inDomains(account string, domains []string) bool {
	if mailq.Account(account).Kind() != mailq.KindLogin {
		return false
	}
	_, domain := splitAccount(account)
	return len(domains) == 0 || slices.ContainsFunc(domains, func(d string) bool { return strings.EqualFold(d, domain) })
}

// unchanged says that the password of an account is what it was.
func unchanged(p interface{ Name() string }, account string, err error) error {
	return fmt.Errorf("enforce: %s: password of %s: %w: %w", p.Name(), printable(account), ErrUnchanged, err)
}

// printable is a name as it is, or quoted and cut if it is odd.
func printable(name string) string {
	if len(name) <= 80 && name != "" && line(name, 80) == name {
		return name
	}
	return fmt.Sprintf("%.80q", name)
}
