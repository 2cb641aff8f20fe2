package detector

import "fmt"

// cohort watches what an account has in common with accounts that were just found
// hijacked: strangers that it writes to, and the text. One spammer uses many
// mailboxes, with one list (BotMagnifier 2011; EvilCohort 2015). That it comes from
// the same network is for [logins].
type cohort struct {
	chart
	whom uint16 // recipients in common
	text bool   // a subject is
}

const (
	cohortWhom = 1.0 // for each recipient in common
	cohortText = 1.9 // for a subject: people's subjects are alike too, so it is no family by itself
	cohortTop  = 4.0
)

// marks are what hijacked accounts used, for a day: who uses the same is looked at
// harder.
type marks struct{ nets, whom, texts marked }

// A marked is a bounded list of hashes; the oldest makes room.
type marked []mark

type mark struct {
	hash uint32
	at   uint32 // in seconds
}

// How many are remembered.
const (
	netsMarked  = 256
	whomMarked  = 512
	textsMarked = 64
)

func (m marked) has(hash uint32, now int64) bool {
	for i := range m {
		if m[i].hash == hash && since(m[i].at, now) < day {
			return true
		}
	}
	return false
}

func (m *marked) add(hash uint32, most int, now int64) {
	list, oldest := *m, 0
	for i := range list {
		if list[i].hash == hash {
			list[i].at = seconds(now)
			return
		}
		if list[i].at < list[oldest].at {
			oldest = i
		}
	}
	if len(list) < most {
		*m = append(list, mark{hash, seconds(now)})
		return
	}
	list[oldest] = mark{hash, seconds(now)}
}

// mark remembers what a convicted account used: networks not its own, the
// strangers it wrote to before it was looked at, a text that it repeats. Those it
// writes to later are marked as they come.
func (d *Detector) mark(a *account, now int64) {
	for i := range a.log.nets {
		if n := &a.log.nets[i]; !n.own() && n.sent() {
			d.marks.nets.add(n.net, netsMarked, now)
		}
	}
	if e := a.known.exact; a.known.more == nil {
		learnt := max(0, int(a.nov.strangers)-a.ep.doubted().waiting())
		for _, h := range e[len(e)-min(len(e), learnt):] {
			d.marks.whom.add(h, whomMarked, now)
		}
	}
	if now-d.fleet.first < settledIn {
		return // nobody knows yet which texts are common
	}
	for i, text := range a.like.marks {
		for _, other := range a.like.marks[:i] {
			if text&subjectMark != 0 && text == other && !d.texts.common(text) {
				d.marks.texts.add(text, textsMarked, now)
			}
		}
	}
}

// texts knows which subjects are common: used, while nothing spoke against them, by
// accounts of more than two. Of two that share a slot the later counts.
type texts [textSlots]text

type text struct {
	mark uint32
	who  [2]uint32 // keys of the first accounts
	many bool
}

const textSlots = 512

// note takes the subject of a message.
func (t *texts) note(mark, who uint32) {
	e := &t[mark%textSlots]
	switch {
	case e.mark != mark:
		*e = text{mark: mark, who: [2]uint32{who}}
	case e.who[0] == who || e.who[1] == who:
	case e.who[1] == 0:
		e.who[1] = who
	default:
		e.many = true
	}
}

func (t *texts) common(mark uint32) bool {
	e := &t[mark%textSlots]
	return e.mark == mark && e.many
}

// shares takes a recipient that is new to the account.
func (d *Detector) shares(a *account, h uint64, now int64) {
	switch {
	case len(d.marks.whom) == 0:
	case a.ep.convicted:
		d.marks.whom.add(uint32(h), whomMarked, now)
	case d.marks.whom.has(uint32(h), now):
		c := &a.seldom().with
		c.whom = min(c.whom+1, 1<<16-2)
		d.resemblesHijacked(a, c, cohortWhom, now)
	}
}

// sharesText takes the text of a message that the account has not used before.
func (d *Detector) sharesText(a *account, text uint32, now int64) {
	if text&subjectMark == 0 {
		return
	}
	if a.ep.top < d.cfg.Floor {
		d.fleet.dirty = true
		d.texts.note(text, a.key)
	}
	if a.ep.convicted || !d.marks.texts.has(text, now) || d.texts.common(text) {
		return
	}
	if c := &a.seldom().with; !c.text {
		c.text = true
		d.resemblesHijacked(a, c, cohortText, now)
	}
}

func (d *Detector) resemblesHijacked(a *account, c *cohort, x float32, now int64) {
	c.add(x, cohortTop, now)
	a.begin(nil, now)
	a.say(familyFleet, c.s)
}

func (a *account) cohortText() string {
	c := &a.rare.with
	switch {
	case !c.text:
		return fmt.Sprintf("%s that an account just found hijacked wrote to as well", counted(int(c.whom), "recipient"))
	case c.whom == 0:
		return "a subject that an account just found hijacked used as well"
	}
	return fmt.Sprintf("%s, and a subject, that accounts just found hijacked had as well", counted(int(c.whom), "recipient"))
}
