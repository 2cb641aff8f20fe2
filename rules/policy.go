package rules

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/vm"
)

// A Mode says whether decisions are carried out. The zero Mode only observes.
type Mode uint8

// The modes.
const (
	ModeObserve Mode = iota // say what would be done
	ModeEnforce             // do it
)

// String is the mode's name in the configuration: "observe" or "enforce".
func (m Mode) String() string {
	if m == ModeEnforce {
		return "enforce"
	}
	return "observe"
}

// MarshalText writes the mode's name.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a mode's name.
func (m *Mode) UnmarshalText(text []byte) error {
	switch string(text) {
	case "observe":
		*m = ModeObserve
	case "enforce":
		*m = ModeEnforce
	default:
		return fmt.Errorf("unknown mode %q: want observe or enforce", text)
	}
	return nil
}

// Why a decision is not carried out, or not in full: the beginnings of
// [Decision.HeldBack].
const (
	HeldShared  = "shared identity"
	HeldNobody  = "not an account"
	HeldExempt  = "exempt"
	HeldBacklog = "backlog"
	HeldMode    = "mode is observe"
	HeldBlast   = "blast limit"
)

// A Policy decides what findings deserve. It does no I/O and never changes;
// any number of goroutines may use it.
type Policy struct {
	Set    *Set
	Mode   Mode
	Exempt []string // see [CheckExempt]
}

// Decide returns what f deserves: the strongest rung below a reset of its
// rule's ladder whose condition holds. It returns false if there is none.
//
// A rung whose condition could not tell does not hold, but that clears nobody:
// then, and when no rule answers, f is observed at least, and Why says so.
//
// A decision keeps its action but is not to be carried out (Enforce is false,
// HeldBack says why) when the mode is observe, the subject is exempt, or the
// finding is old news. A shared identity, and a subject that is no account,
// is observed at most. To observe is never enforced: there is nothing to do.
//
// A block that a reset stands behind has no end of its own; see [Policy.Reset].
func (p *Policy) Decide(f Finding) (Decision, bool) {
	d, err := p.decide(&f)
	switch {
	case err == nil:
		return d, d.Action != Nothing
	case d.Action == Nothing:
		d = observed(&f, err)
	default:
		d.Why += "; " + err.Error()
	}
	return d, true
}

// Reset returns the reset that stands behind the block that [Policy.Decide]
// decides for f, and false if there is none. To be asked once that block is
// confirmed: a password is only changed behind a block that is in place.
func (p *Policy) Reset(f Finding) (Decision, bool) {
	r := p.Set.rule(f.Rule)
	if r == nil {
		return Decision{}, false
	}
	best, reset, _ := r.answer(&f)
	if reset == nil || best == nil || best.do != Block || capped(&f) {
		return Decision{}, false
	}
	return p.decision(&f, r, reset), true
}

// decide is Decide with the reasons why it could not tell. Without a rung
// that holds, the decision is to do nothing.
func (p *Policy) decide(f *Finding) (Decision, error) {
	r := p.Set.rule(f.Rule)
	if r == nil {
		return Decision{}, fmt.Errorf("no rule answers %q", f.Rule)
	}
	best, reset, err := r.answer(f)
	if best == nil {
		return Decision{}, err
	}
	d := p.decision(f, r, best)
	if reset != nil && d.Action == Block {
		d.Until = time.Time{} // the block does not expire before the reset
	}
	return d, err
}

// observed tells of a finding that could not be judged.
func observed(f *Finding, err error) Decision {
	return Decision{
		ID: DecisionID(f.ID, Observe), Finding: f.ID, Rule: f.Rule, Subject: f.Subject,
		Action: Observe, Time: f.Time, Why: err.Error(),
	}
}

func (s *Set) rule(name string) *rule {
	if s == nil {
		return nil
	}
	return s.rules[name]
}

// answer returns the strongest rung below a reset that holds, and the reset
// if that holds as well. A reset is only for what has a password.
func (r *rule) answer(f *Finding) (best, reset *rung, err error) {
	var machine vm.VM
	env := newEnvironment(f)
	for i := len(r.ladder) - 1; i >= 0 && best == nil; i-- {
		step := &r.ladder[i]
		if step.do == Reset && f.Class != "login" {
			continue
		}
		holds, e := step.when.holds(&machine, env)
		if e != nil {
			err = together(err, fmt.Errorf("%s at %s could not tell: %w", step.do, step.at, e))
		}
		switch {
		case !holds:
		case step.do == Reset:
			reset = step
		default:
			best = step
		}
	}
	return best, reset, err
}

// together joins errors in one line.
func together(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}

// decision is the decision of a rung, held back where it must be.
func (p *Policy) decision(f *Finding, r *rule, step *rung) Decision {
	d := Decision{
		ID: DecisionID(f.ID, step.do), Finding: f.ID, Rule: f.Rule, Subject: f.Subject,
		Action: step.do, Time: f.Time, Why: why(f, step),
	}
	if step.term > 0 {
		d.Until = f.Time.Add(step.term)
	}
	d.HeldBack = p.heldBack(f, r, step.do)
	if step.do > Observe && capped(f) {
		d.ID, d.Action, d.Until = DecisionID(f.ID, Observe), Observe, time.Time{}
	}
	d.Enforce = d.Action > Observe && d.HeldBack == ""
	return d
}

// capped reports whether there is nobody whom more than observing would hit
// alone: a shared identity, or no account at all.
func capped(f *Finding) bool { return f.Shared || f.Class == "" }

// heldBack says why the action is not carried out; of several reasons the one
// that would stay the longest. It is empty if there is none.
func (p *Policy) heldBack(f *Finding, r *rule, do Action) string {
	if entry := exempting(f, p.Exempt, r.exempt); entry != "" {
		return HeldExempt + ": " + entry
	}
	switch {
	case do <= Observe:
		return ""
	case f.Shared:
		return HeldShared + ": " + do.String() + " would stop others too"
	case f.Class == "":
		return HeldNobody + ": there is nobody to " + do.String()
	case f.Backlog:
		return HeldBacklog + ": old news proposes, it does not act"
	case p.Mode != ModeEnforce:
		return HeldMode
	}
	return ""
}

// Exempts reports whether an entry of an exempt list (see [CheckExempt]) is
// about the finding's subject.
func Exempts(list []string, f Finding) bool { return exempting(&f, list) != "" }

// exempting returns the entry that exempts the finding's subject, if any.
func exempting(f *Finding, lists ...[]string) string {
	for _, list := range lists {
		for _, entry := range list {
			if exempts(entry, f) {
				return entry
			}
		}
	}
	return ""
}

func exempts(entry string, f *Finding) bool {
	if domain, ok := strings.CutPrefix(entry, "@"); ok {
		return domain != "" && strings.EqualFold(domain, f.domain())
	}
	if beginning, ok := strings.CutSuffix(entry, "*"); ok {
		return beginning != "" && strings.HasPrefix(f.Subject, beginning)
	}
	if f.Class == "login" {
		return strings.EqualFold(entry, f.Subject)
	}
	return entry != "" && entry == f.Subject
}

// why says in one line what the finding had and what the rung asked for.
func why(f *Finding, step *rung) string {
	b := make([]byte, 0, 160)
	if f.Hard != "" {
		b = append(b, f.Hard...)
		b = append(b, ", "...)
	}
	b = append(b, "score "...)
	b = strconv.AppendFloat(b, f.Score, 'f', 1, 64)
	b = append(b, ", families "...)
	b = strconv.AppendInt(b, int64(f.Families), 10)
	b = append(b, ", recipients "...)
	b = strconv.AppendInt(b, int64(f.Rcpts), 10)
	b = append(b, ": "...)
	b = append(b, step.do.String()...)
	b = append(b, " when "...)
	b = append(b, step.when.text...)
	return string(b)
}

// domain is the domain of the subject's address, empty if it has none. Only
// logins and forwarding mailboxes are addresses: the path of a script may hold
// an @ that somebody chose.
func (f *Finding) domain() string {
	if f.Class != "login" && f.Class != "forward" {
		return ""
	}
	return f.Subject[strings.LastIndexByte(f.Subject, '@')+1:]
}

// age is how long ago the episode began, at the time of the finding.
func (f *Finding) age() time.Duration {
	if f.Since.IsZero() {
		return 0
	}
	return max(0, f.Time.Sub(f.Since))
}

// evidence is the score of one family, 0 if it does not speak.
func (f *Finding) evidence(family string) float64 {
	var sum float64
	for _, e := range f.Evidence {
		if e.Kind == family {
			sum += e.Score
		}
	}
	return sum
}

// oldList is what failures may say of a mailing to an old list of the owner's.
const oldList = 5

// foreign is the evidence of somebody else's hand: what no mailing of the owner's
// shows, be it to strangers, in haste, one text for all, or to an old list
// with some dead addresses.
func (f *Finding) foreign() float64 {
	return f.evidence(Logins) + f.evidence(Sender) + f.evidence(Replies) + f.evidence(Script) + max(f.evidence(Failures)-oldList, 0)
}
