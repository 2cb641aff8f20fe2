package detector

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/vedetta-watch/vedetta/mailq"
)

// novelty watches whom an account writes to. A hijacked mailbox writes to
// strangers; its owner to the people he has written to before.
//
// Each recipient adds ln(P(seen | hijacked) / P(seen | owner)) to two charts: one
// that is reset after six idle hours, and a slow one that lasts for weeks and
// takes the hijacker's mail for a part of the account's.
// What the owner would do is his own past (a share of new recipients,
// measured against what accounts of the same age do); what is new to
// him may still be known to others of the installation, which is
// ordinary in a company and rare among a spammer's victims.
type novelty struct {
	fast, slow chart
	lastMsg    uint32 // in seconds
	standing
	before    standing // … the latest burst of messages
	fresh     share    // hits: messages to new recipients; of: what accounts of that age would have sent to new ones
	unseen    share    // of new recipients, those that nobody here knows
	count     uint16   // recipients of the episode: all …
	strangers uint16   // … and new ones, for the words
}

// A standing is how well an account is known.
type standing struct {
	age  float32 // messages learnt
	sure float32 // how sure it is that it writes to people again, as log odds
}

// calm is a pause that ends a burst: what an account's first burst shows is
// not held against it as if it had been known before.
const calm = 10 * minute

// The model of a hijacked account, and the limits of one message.
const (
	spamNew       = .9   // of a spammer's recipients, the share new to the account
	spamUnseen    = .9   // of those, the share that nobody here has written to
	newMin        = .02  // an owner's share of new recipients is never taken as less …
	newMax        = .97  // … or more
	ownWeight     = 20.0 // the prior of an account's own ratio, in expected new messages
	againMost     = -.4  // what a recipient known before says at most, also of an account that knows few
	messageMin    = -4.0
	messageMax    = 2.4
	crowd         = 2.0 // what a message may gain with each factor e of new recipients that nobody here knows
	temper        = .8  // recipients are no independent draws: what they say is scaled by this
	episodeWeight = .7  // what an episode has shown counts for this much of what its end will teach
	unseenWeight  = 6.0
	fastIdle      = 6 * hour
	credit        = 7.0         // what known recipients may weigh against new ones that follow …
	creditEach    = .125        // … and this more for each message of a series to others …
	creditFor     = 30 * minute // … without a pause of this
	slowIdle      = 14 * day
	slowExtra     = 4.0  // the slow chart speaks when it is this much higher
	slowBurst     = 2.0  // what a burst that is over leaves in it: it is no reason to stop the next letter
	slowLeak      = 1.0  // what it loses in a day: ordinary weeks have some strangers too
	mixedPart     = .4   // of a hijacked account's mail, the share that a slow hijacker sends
	mixedMost     = .6   // an account with a larger share of new recipients is judged as if all were his, …
	mixedAge      = 64   // messages of which an account is known well enough
	mixedOwn      = 1.25 // … and so is one with so many times the new recipients of others
	noveltyTop    = 24.0
	halfLife      = 30 * day
)

// newShare is the probability that the account's next recipient is new to
// it, if nothing is wrong. What the episode at hand has shown counts in
// part, so that a young account that writes to nobody twice is not
// convicted by that alone.
func (a *account) newShare(f *fleet) float32 {
	prior, e := f.newAt(a.class, a.nov.age), a.ep.doubted()
	own := (ownWeight + a.nov.fresh.hits + episodeWeight*e.fresh) / (ownWeight + a.nov.fresh.of + episodeWeight*e.expected)
	return min(max(prior*own, newMin), newMax)
}

// addressed takes the recipients of m that have just become known.
func (d *Detector) addressed(a *account, m *message, to []mailq.Recipient, now int64) {
	if len(to) == 0 {
		return
	}
	above := a.ep.top >= d.cfg.Floor
	w := 1 / float32(max(int(m.counted), len(to), 1))
	share, fresh := a.newShare(&d.fleet), m.fresh
	for i := range to {
		d.recipient(a, m, &to[i], share, w, above)
		if to[i].Next != 0 {
			d.carry(a, &to[i])
		}
	}
	m.named = uint16(min(int(m.named)+len(to), math.MaxUint16))
	if a.open() {
		a.nov.count = uint16(min(int(a.nov.count)+len(to), math.MaxUint16))
		a.nov.strangers = uint16(min(int(a.nov.strangers)+int(m.fresh-fresh), math.MaxUint16))
	}
	if m.named > m.counted {
		if a.ep.has(m) {
			a.ep.rcpts += uint32(m.named - m.counted)
		}
		m.counted = m.named
	}
	d.weigh(a, m, now)
	a.say(familyFanout, a.fanout(&d.fleet.norms[a.class], now))
	a.say(familySeries, a.seriesScore())
	if a.ep.speak[familySeries] > 0 {
		a.begin(m, now)
	}
}

// recipient adds one recipient to the evidence of m, and learns it.
func (d *Detector) recipient(a *account, m *message, to *mailq.Recipient, share, w float32, above bool) {
	n := &a.nov
	isNew := !n.known(a, to.Hash)
	answered := isNew && d.answers(a, to.Hash) // the first time: from then on he is known
	if others := a.rate.reached(to.Hash, a.last); others > 0 && m.others < crowdMost && !answered {
		m.others++
		a.series.reached(m.others, others)
		if m.others == 1 {
			a.exceed(others, isNew)
		}
	}
	prior := d.fleet.newAt(a.class, n.age)
	switch {
	case answered: // it says neither
		m.answered = uint8(min(int(m.answered)+1, math.MaxUint8))
		if !above {
			d.fleet.mem.add(to.Hash)
		}
	case !isNew:
		m.sum += min(log((1-spamNew)/(1-share)), againMost)
	default:
		m.fresh++
		a.series.count(strangersHour, 1)
		a.series.count(strangersDay, 1)
		m.sum += log(max(spamNew, share) / share)
		unseen, stranger := d.unseen(a, to, above)
		m.sum += unseen
		if stranger {
			m.unseen++
		}
		d.spread(a, to, above)
		d.shares(a, to.Hash, a.last)
	}
	if above {
		if answered {
			a.ep.doubting().remember(to)
		} else {
			a.ep.doubting().learn(to, isNew, w, prior)
		}
		return
	}
	if isNew {
		a.known.add(to.Hash, to.Next != 0)
		n.fresh.hits += w
	}
	n.fresh.of += w * prior
	n.fresh.limit(60)
	if !answered {
		n.repeats(!isNew, w)
	}
	d.fleet.learnNew(a.class, n.age, isNew, w)
	n.age += w
}

// Some accounts write to nobody twice: newsletters, shops, forums. Of an
// account that has shown to be one, new recipients say little. How sure it is
// that an account is none follows from its recipients so far, as log odds.
const (
	listNew   = .95 // of a list's recipients, the share new to it
	personNew = .7  // of the recipients of somebody who is no list, at most
	sureMost  = 4.0 // more is not remembered, so that an account may change
	sureLeast = -10.0
	listTop   = 14.0 // what novelty may say of an account that is neither sure to be a list nor none …
	listSlope = 2.0  // … less this much for each unit that speaks for a list
)

// What a recipient says of that who is new, and who is not.
var (
	saysList   = log(personNew / listNew)
	saysPerson = log((1 - personNew) / (1 - listNew))
)

// repeats takes one more recipient's word on whether the account writes to
// people again.
func (n *novelty) repeats(again bool, w float32) {
	x := saysList
	if again {
		x = saysPerson
	}
	n.sure = min(max(n.sure+w*x, sureLeast), sureMost)
}

// surely is how sure it is that the account is no list, as it was before what
// is going on.
func (a *account) surely() float32 { return a.nov.before.sure }

// convincing is the most that novelty may say of the account.
func (a *account) convincing() float32 {
	sure := a.surely()
	if sure >= 0 {
		return noveltyTop
	}
	return max(0, listTop+listSlope*sure)
}

// known reports whether the recipient is one of the account's own, or was
// already counted in the episode at hand.
func (n *novelty) known(a *account, h uint64) bool {
	return a.known.has(h) || a.ep.doubted().pending.has(h)
}

// unseen is what it says that a new recipient is, or is not, known to others
// of the installation.
func (d *Detector) unseen(a *account, to *mailq.Recipient, above bool) (says float32, stranger bool) {
	stranger = !d.fleet.mem.has(to.Hash)
	fleet := d.fleet.unseen[a.class].mean(spamUnseen, 100)
	own := min(max(a.nov.unseen.mean(fleet, unseenWeight), .02), .98)
	if !above {
		a.nov.unseen.add(stranger, 1)
		a.nov.unseen.limit(40)
		d.fleet.unseen[a.class].add(stranger, 1)
		d.fleet.unseen[a.class].limit(20000)
		d.fleet.mem.add(to.Hash)
	}
	if stranger {
		return log(spamUnseen / own), true
	}
	return log((1 - spamUnseen) / (1 - own)), false
}

// burstEnds has the fast chart come to rest, and takes what it has shown out of the
// slow one, all but a part.
func (n *novelty) burstEnds() {
	if more := n.fast.s - slowBurst; more > 0 {
		n.slow.s = max(n.slow.s-more, min(n.slow.s, 0))
	}
	n.fast.s = 0
}

// leak takes from the slow chart what it loses until now.
func (n *novelty) leak(now int64) {
	if n.slow.s > 0 {
		n.slow.s = max(0, n.slow.s-slowLeak*float32(since(n.lastMsg, now))/float32(day))
	}
}

// weigh puts what the message's recipients say by now into the charts.
func (d *Detector) weigh(a *account, m *message, now int64) {
	top := float32(messageMax)
	if m.unseen > 1 {
		top += crowd * log(float32(m.unseen))
	}
	x := temper * min(max(m.sum, messageMin), top)
	if a.spares(m) {
		return
	}
	n := &a.nov
	most, least := a.convincing(), -credit-creditEach*a.series.now[seriesHour]
	m.fast += n.fast.move(x-m.fast, least, most, now)
	x = temper * min(max(m.sum-a.mixed(m, a.newShare(&d.fleet)), messageMin), top)
	m.slow += n.slow.move(x-m.slow, least, most+slowExtra, now)
	if n.fast.s > 0 {
		a.begin(m, now)
	}
	a.say(familyNovelty, a.noveltyScore())
}

// mixed is how much less the recipients of m say in the slow chart. A slow hijacker's
// messages are a part of the account's mail only, so who is known says less against
// him than it would if all were his.
func (a *account) mixed(m *message, share float32) float32 {
	if !a.mayMix(share) {
		return 0
	}
	hijacked := (1-mixedPart)*share + mixedPart*spamNew
	less := float32(0)
	if known := int(m.named) - int(m.fresh) - int(m.answered); known > 0 && m.answered < math.MaxUint8 {
		less += float32(known) * (min(log((1-spamNew)/(1-share)), againMost) - log((1-hijacked)/(1-share)))
	}
	if m.fresh > 0 {
		less += float32(m.fresh) * log(spamNew/hijacked)
	}
	return less
}

// mayMix reports whether somebody else's mail may be among the account's. Where more of
// it goes to new people than of others' mail, or the account is hardly known, its share
// of them may be taken for too small; and as many of them as on a day before are nothing
// strange.
func (a *account) mayMix(share float32) bool {
	own, s := &a.nov.fresh, &a.series
	return share < mixedMost && a.nov.age >= mixedAge && ownWeight+own.hits <= mixedOwn*(ownWeight+own.of) &&
		s.now[strangersDay] > s.most(strangersDay, a.last)
}

func (a *account) noveltyScore() float32 {
	strangers, _ := a.strangers()
	return max(a.nov.fast.s, a.nov.slow.s-slowExtra, strangers)
}

// Of an account that writes to nobody twice each recipient is new, and nothing but
// their number can be strange: more in an hour or a day than ever before by far. So
// with a program that writes to its owner and to somebody new each time.
const (
	strangersSays = 6.0 // just above the limit …
	strangersMore = 6.0 // … and this much more each time they double
	strangersTop  = 14.0
	personOver    = 1.5 // times the record of somebody who writes to people again: a day of his may be the hijacker's first …
	usualOver     = 6.0 // … unless he writes as many messages on an ordinary busy day, of which a sale brings a shop several times
)

// personStrangers are up to how many nothing is strange of somebody who writes to people
// again: with two of these beside each stranger the charts stay down, however many go out.
var personStrangers = [tallies]float32{strangersHour: 44, strangersDay: 66}

// strangers is what the number of new recipients says of the account, and the tally
// that says it.
func (a *account) strangers() (says float32, of tally) {
	if a.rate.days < seriesYoung {
		return 0, 0
	}
	s := &a.series
	for t := strangersHour; t <= strangersDay; t++ {
		if s.now[t] <= seriesOf[t].limit {
			continue
		}
		times := s.now[t] / a.strangersLimit(t)
		if x := min(strangersSays+strangersMore*log(times)/math.Ln2, strangersTop); times > 1 && x > says {
			says, of = x, t
		}
	}
	return says, of
}

// strangersLimit is up to how many new recipients nothing is strange.
func (a *account) strangersLimit(t tally) float32 {
	s := &a.series
	limit := s.limit(t, a.last)
	if a.surely() < 0 || a.class != people {
		return limit
	}
	return max(personStrangers[t], personOver*s.most(t, a.last), min(limit, usualOver*a.rate.busyDay()))
}

// pendingMost is how many new recipients of an episode are remembered.
const pendingMost = 512

// learn notes what the episode did above the floor.
func (e *doubt) learn(to *mailq.Recipient, isNew bool, w, prior float32) {
	if isNew {
		e.remember(to)
		e.fresh += w
	}
	e.expected += w * prior
}

// remember has a recipient be known once the episode is learnt.
func (e *doubt) remember(to *mailq.Recipient) {
	if e.pending == nil {
		hashes := 1
		if to.Next != 0 {
			hashes = 2
		}
		e.pending = newFilter(uint32(hashes * pendingMost))
	}
	if !e.pending.full() {
		e.pending.add(to.Hash)
	}
}

// waiting is how many recipients are remembered, each with one hash or with two.
func (e *doubt) waiting() int {
	if e.pending == nil {
		return 0
	}
	return int(e.pending.n * pendingMost / e.pending.size)
}

func (a *account) noveltyText() string {
	n := &a.nov
	if s, t := a.strangers(); s > 0 && s >= max(n.fast.s, n.slow.s-slowExtra) {
		return fmt.Sprintf("about %.0f recipients never written to before in %s; the most so far were %.0f", a.series.now[t], seriesSpan[t], a.series.most(t, a.last))
	}
	if n.fast.s < n.slow.s-slowExtra {
		return fmt.Sprintf("%d of %d recipients of the last days never written to before", n.strangers, n.count)
	}
	return fmt.Sprintf("%d of %d recipients never written to before", n.strangers, n.count)
}

// ageBucket sorts accounts by how many messages of theirs are known.
func ageBucket(age float32) int { return min(bits.Len32(uint32(age)), ageBuckets-1) }

func log(x float32) float32 { return float32(math.Log(float64(x))) }
