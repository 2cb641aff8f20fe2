package detector

import (
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Summary is one account in a list.
type Summary struct {
	Account    mailq.Account `json:"account"`
	Class      string        `json:"class"`
	Shared     bool          `json:"shared,omitempty"`
	Score      float64       `json:"score"`
	Families   int           `json:"families"`
	First      time.Time     `json:"first_seen"`
	Last       time.Time     `json:"last_seen"`
	Messages   int           `json:"messages"`   // submitted in all
	Recipients int           `json:"recipients"` // different ones remembered, about
}

// An Explanation is all that speaks for and against an account, and how it
// came to that.
type Explanation struct {
	Summary
	Since    time.Time        `json:"since,omitzero"` // onset of the episode under way
	Highest  float64          `json:"highest"`        // score of the episode
	Hard     string           `json:"hard,omitempty"`
	Accepted int              `json:"accepted_messages"`   // since the onset
	Rcpts    int              `json:"accepted_recipients"` // since the onset
	Released time.Time        `json:"released,omitzero"`   // when a person last cleared it
	Evidence []rules.Evidence `json:"evidence"`
	Own      Past             `json:"own_past"`
	Steps    []Step           `json:"steps"` // the latest, oldest first
}

// A Past is what is usual for the account.
type Past struct {
	NewRecipients float64 `json:"new_recipients"` // share of its recipients that it writes to for the first time
	BusiestHour   int     `json:"busiest_hour"`   // messages in the busiest hour of a usual day
	BusiestDay    int     `json:"busiest_day"`
	Days          int     `json:"days"` // learnt
	Networks      int     `json:"networks"`
}

// A Step is one event that moved the score.
type Step struct {
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind"` // the family that moved most, or "release"
	Moved float64   `json:"moved"`
	Score float64   `json:"score"` // after it
}

// step is a Step as it is remembered.
type step struct {
	at    int64
	kind  family // families: a release
	moved float32
	score float32
}

const stepsMax = 20

// note remembers the event at hand as a step when it moved the score of an
// account that is looked at.
func (d *Detector) note(a *account, v verdict, now int64) {
	s := step{at: now, kind: families, score: v.score}
	if a.open() {
		if v.score < d.cfg.Floor/2 {
			return
		}
		before := fuse(&d.before.speak, d.before.age)
		for f := range families {
			if m := v.share[f] - before.share[f]; m > s.moved {
				s.kind, s.moved = f, m
			}
		}
		if s.moved < .05 {
			return
		}
	}
	r := a.seldom()
	if len(r.steps) == stepsMax {
		r.steps = append(r.steps[:0], r.steps[1:]...)
	}
	r.steps = append(r.steps, s)
}

func (s step) public() Step {
	kind := "release"
	if s.kind < families {
		kind = kinds[s.kind].name
	}
	return Step{Time: time.Unix(0, s.at).UTC(), Kind: kind, Moved: round(s.moved), Score: round(s.score)}
}

// Why explains the account's state as of its latest event.
func (d *Detector) Why(name mailq.Account) (Explanation, bool) {
	a := d.accounts[name]
	if a == nil {
		return Explanation{}, false
	}
	v := d.judged(a.fuse())
	norms := &d.fleet.norms[a.class]
	e := Explanation{
		Summary:  d.summary(a),
		Highest:  round(a.ep.top),
		Hard:     hardNames[a.ep.hard],
		Accepted: int(a.ep.msgs),
		Rcpts:    int(a.ep.rcpts),
		Evidence: d.evidence(a, v),
		Own: Past{
			NewRecipients: round(a.newShare(&d.fleet)),
			BusiestHour:   a.rate.usual(perHour, norms),
			BusiestDay:    a.rate.usual(perDay, norms),
			Days:          int(a.rate.days),
			Networks:      a.log.owned(),
		},
	}
	if a.open() {
		e.Since = time.Unix(0, a.ep.onset).UTC()
	}
	if r := a.rare; r != nil {
		if r.mercy.at != 0 {
			e.Released = time.Unix(0, r.mercy.at).UTC()
		}
		for _, s := range r.steps {
			e.Steps = append(e.Steps, s.public())
		}
	}
	return e, true
}

func (d *Detector) summary(a *account) Summary {
	v := d.judged(a.fuse())
	return Summary{
		Account:    a.name,
		Class:      a.name.Kind(),
		Shared:     a.shared,
		Score:      round(v.score),
		Families:   v.families,
		First:      time.Unix(int64(a.first), 0).UTC(),
		Last:       time.Unix(0, a.last).UTC(),
		Messages:   int(a.messages),
		Recipients: a.known.len(),
	}
}

// Accounts yields a summary of every account, in the order in which they
// were first seen as long as none was forgotten.
func (d *Detector) Accounts(yield func(Summary) bool) {
	for _, a := range d.order {
		if !yield(d.summary(a)) {
			return
		}
	}
}
