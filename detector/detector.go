// Package detector decides who has gone bad: mail servers' events go in,
// findings come out.
//
// For every account it keeps what the account's own past is like (whom it
// writes to, how fast, from where, with what success) and, as mail goes
// by, how much more likely the present is for a hijacked account than for
// its owner. Each family of evidence is a cumulative sum of
// log-likelihoods in a file of its own; [account.fuse] takes them together.
// Rules, elsewhere, say what a score deserves.
//
// The package does no I/O and never asks the clock: an event's time is the
// mail server's, and the same events give the same findings. It is meant for
// one goroutine.
package detector

import (
	"net/netip"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Config sets the detector's bounds. Use [Default] and change what differs.
type Config struct {
	// Floor is the score from which findings are made, and above which
	// nothing is learnt as ordinary. Rules may not act below it.
	Floor float32
	// Verdict is the score from which an episode that fades by itself is
	// taken for a hijack that was stopped, and not learnt but after days in
	// which nothing spoke for one.
	Verdict float32
	// WrongStops is how many ordinary mailbox-days in 100,000 may be held or
	// blocked: scores are moved so that the rules' thresholds come to that. 0
	// leaves them as they are.
	WrongStops float32
	// MaxAccounts bounds the accounts that are remembered. Only accounts
	// that have been silent for Window make room for others.
	MaxAccounts int
	Window      time.Duration
	// FleetRecipients is how many recipients of all accounts together are
	// remembered in each of two generations, at two bytes each.
	FleetRecipients int
	// Locate says where an address is used; nil where there is no database.
	Locate func(netip.Addr) Place
}

// Default is the configuration for an ordinary server.
func Default() Config {
	return Config{
		Floor:           6,
		Verdict:         12,
		WrongStops:      1,
		MaxAccounts:     2_000_000,
		Window:          30 * 24 * time.Hour,
		FleetRecipients: 1 << 20,
	}
}

// A Detector watches the accounts of one installation, or of one partition
// of it.
type Detector struct {
	cfg      Config
	dir      Directory
	accounts map[mailq.Account]*account
	order    []*account // for eviction, in order of arrival
	room     room
	hand     int
	changed  []*account
	fleet    fleet
	fails    wrong
	marks    marks
	texts    texts
	lost     lost
	queue    queues
	stats    Stats
	ahead    outlook

	before struct { // what the account at hand said before the event
		speak [families]said
		age   float32
	}
}

// Stats are the detector's own figures.
type Stats struct {
	Events    uint64
	Accounts  int
	Evicted   uint64 // accounts forgotten after a long silence
	Untracked uint64 // events of accounts for which there was no room
	Late      uint64 // events that were counted and not judged; see ObserveLate
}

// New makes a detector that knows nothing yet. dir may be nil: then no
// sender is foreign and no identity shared.
func New(cfg Config, dir Directory) *Detector {
	return &Detector{
		cfg:      cfg,
		dir:      dir,
		accounts: make(map[mailq.Account]*account),
		fleet:    newFleet(cfg.FleetRecipients),
		fails:    wrong{slot: make([]attempt, wrongSlots)},
	}
}

// Stats returns the detector's own figures.
func (d *Detector) Stats() Stats {
	s := d.stats
	s.Accounts = len(d.accounts)
	return s
}

// Observe takes one event, in the order of the log. It returns a finding
// whenever the event raised the account's score, at or above Config.Floor,
// to a new height of its episode, or a hard rule fired.
func (d *Detector) Observe(ev *mailq.Event) (rules.Finding, bool) {
	d.stats.Events++
	if ev.Kind == mailq.Lost {
		return d.blind(ev)
	}
	if ev.Into != "" {
		if a := d.received(ev); a != nil {
			return d.judge(a, a.last)
		}
	}
	if ev.Account == "" || unheeded(ev) {
		return rules.Finding{}, false
	}
	now := ev.Time.UnixNano()
	if ev.Kind == mailq.LoginFailed {
		d.guessed(ev, now)
		return rules.Finding{}, false
	}
	a := d.account(ev.Account, now)
	if a == nil {
		d.stats.Untracked++
		return rules.Finding{}, false
	}
	now = max(now, a.last) // a clock that went back; see ObserveLate for what waited
	d.advance(a, now)
	d.take(a, ev, now)
	return d.judge(a, now)
}

// SaysNothing reports whether Observe does no more with the event than to count
// it, whatever came before.
func SaysNothing(ev *mailq.Event) bool {
	return ev.Kind != mailq.Lost && ev.Into == "" && (ev.Account == "" || unheeded(ev))
}

// unheeded reports whether no family of evidence looks at the event: of mail
// that left the queue, its outcomes have told everything.
func unheeded(ev *mailq.Event) bool {
	switch ev.Kind {
	case mailq.Unknown:
		return true
	case mailq.Removed, mailq.Released:
		return !ev.Counts && len(ev.New) == 0
	}
	return false
}

// guessed notes a wrong password from a network that the account is not
// used from: an office with one stale password does not guess, and when
// the password check itself is down everybody fails from where he always is.
func (d *Detector) guessed(ev *mailq.Event, now int64) {
	a := d.accounts[ev.Account]
	if a == nil || !ev.Client.IsValid() {
		return
	}
	net := networkOf(ev.Client)
	if !a.log.knows(net) {
		d.fleet.dirty = true
		d.fails.note(a.name, net, now)
	}
}

// account returns the account's state, made if there is room.
func (d *Detector) account(name mailq.Account, now int64) *account {
	if a := d.ahead.find(name); a != nil {
		return a
	}
	if a := d.accounts[name]; a != nil {
		return a
	}
	if memory, _ := d.fleet.memory(name); memory != nil || len(d.accounts) >= d.cfg.MaxAccounts && !d.evict(now) {
		return nil
	}
	if d.fleet.first == 0 {
		d.fleet.first = now
	}
	a := account{name: name, key: hashOf(string(name)), class: classOf(name), first: seconds(now), last: now}
	a.joined = a.class == people && now-d.fleet.first > settledIn
	return d.insert(a)
}

func (d *Detector) insert(v account) *account {
	a := d.room.take()
	*a = v
	a.shared = d.dir != nil && d.dir.IsShared(a.name)
	d.accounts[a.name] = a
	d.order = append(d.order, a)
	return a
}

// evict forgets one account that has been silent for the window. It looks
// at a few at a time; the hand goes round.
func (d *Detector) evict(now int64) bool {
	for range min(64, len(d.order)) {
		d.hand %= len(d.order)
		a := d.order[d.hand]
		if now-a.last > int64(d.cfg.Window) {
			delete(d.accounts, a.name)
			last := len(d.order) - 1
			d.order[d.hand], d.order[last] = d.order[last], nil
			d.order = d.order[:last]
			d.stats.Evicted++
			a.gone = true
			d.touch(a)
			return true
		}
		d.hand++
	}
	return false
}

// advance lets time pass for the account: charts come to rest, a day is
// closed, an episode fades.
func (d *Detector) advance(a *account, now int64) {
	another := now/minute != a.last/minute
	a.decay(now)
	a.last = now
	a.ep.rose = false
	d.touch(a)
	if another && a.open() {
		d.fade(a, now)
	}
	d.before.speak = [families]said{}
	if a.open() {
		d.before.speak, d.before.age = a.ep.speak, a.knownFor()
	}
	suspect := a.ep.top >= d.cfg.Floor
	if suspect {
		for g, p := range a.rate.peak {
			peak := &a.ep.doubting().peak[g]
			*peak = max(*peak, p)
		}
	}
	if a.rate.turn(now, suspect, &d.fleet.norms[a.class]) {
		if a.ep.top < d.cfg.Verdict {
			a.series.turn(suspect, now)
		}
		d.closeDay(a, now)
	}
}

// touch notes that the account's state is to be saved.
func (d *Detector) touch(a *account) {
	if !a.dirty {
		a.dirty = true
		d.changed = append(d.changed, a)
	}
}

// fade lets an open episode's charts come to rest, and ends it when all have.
func (d *Detector) fade(a *account, now int64) {
	if since(a.nov.lastMsg, now) >= fastIdle {
		a.nov.burstEnds()
	}
	a.nov.slow.rest(slowIdle, now)
	if a.ep.top >= d.cfg.Verdict && since(a.nov.lastMsg, now) >= spentAfter {
		a.nov.slow.s = min(a.nov.slow.s, d.cfg.Floor/2)
		a.ep.told, a.ep.toldFam = 0, 0 // what comes next is told anew
	}
	a.spr.rest(fastIdle, now)
	a.rate.odd.rest(fastIdle, now)
	a.like.rest(fastIdle, now)
	a.fail.rest(feedbackLag, now)
	a.log.rest(feedbackLag, now)
	if r := a.rare; r != nil {
		r.reply.rest(feedbackLag, now)
		r.from.rest(feedbackLag, now)
		r.scr.rest(feedbackLag, now)
		r.with.rest(feedbackLag, now)
	}
	if a.in != nil {
		a.in.returned.rest(feedbackLag, now)
	}
	if a.ep.hard != hardNone && a.distributed(now) == hardNone {
		a.ep.hard = hardNone
	}
	d.pace(a, now)
	a.speakAll()
	if a.ep.hard == hardNone && d.over(a, now) {
		d.end(a)
	}
}

// over reports whether the episode has come to rest, has gone on for long
// without coming to a verdict, or has calmed down after one.
func (d *Detector) over(a *account, now int64) bool {
	v := a.fuse()
	if v.score < atRest {
		return true
	}
	if a.ep.top < d.cfg.Verdict {
		return now-a.ep.onset > undecided
	}
	v = d.judged(v)
	return v.score < d.cfg.Floor && since(a.ep.toldAt, now) > undecided || a.ordinary(&d.cfg, v)
}

// ordinary reports whether an episode that came to a verdict has gone on for so
// long, with mail and with less than would stop it, that it is how the account is:
// of a hijack that is not stopped the score rises, and of one that is stopped no
// mail comes.
func (a *account) ordinary(cfg *Config, v verdict) bool {
	return v.weight() < cfg.Verdict && int64(a.nov.lastMsg)*second-a.ep.onset > settled
}

const (
	atRest    = .1      // the score below which an episode is over
	undecided = 2 * day // how long one may go on that does not come to a verdict
	settled   = 7 * day // … and one that did

	// spentAfter is the silence after which what led to a verdict is spent.
	// A block has ended by then, and either its cause has been removed or new
	// mail will say otherwise.
	spentAfter = 20 * hour
)

// speakAll sets what every family says from its chart.
func (a *account) speakAll() {
	say := &a.ep.speak
	say[familyNovelty] = saying(a.noveltyScore())
	say[familySpread] = saying(a.spr.s)
	say[familyHours] = saying(a.rate.odd.s)
	say[familyFailures] = saying(a.fail.says())
	say[familyLogins] = saying(a.log.s)
	say[familyLikeness] = min(say[familyLikeness], saying(a.like.s))
	if a.in != nil {
		say[familyReturned] = saying(a.in.returned.s)
	}
	if r := a.rare; r != nil {
		say[familyReplies] = saying(r.reply.s)
		say[familySender] = saying(r.from.s)
		say[familyScript] = saying(r.scr.s)
		say[familyFleet] = saying(r.with.s)
	}
}

// end closes an episode that came to rest by itself. What it did is learnt
// as the account's own, unless it was as good as convicted.
func (d *Detector) end(a *account) {
	if a.ep.top < d.cfg.Verdict || a.ordinary(&d.cfg, d.judged(a.fuse())) {
		a.learn(a.ep.doubted(), a.last)
		if a.last-a.ep.onset > undecided {
			a.nov.before = a.nov.standing // by now it is known
		}
	} else {
		a.seldom().spent = &spent{a.nov.lastMsg, a.ep.theirs, *a.ep.doubted(), a.series.lost()}
		a.series.drop()
	}
	slow, count, strangers := a.nov.slow, a.nov.count, a.nov.strangers
	a.settle()
	if slow.s > 0 { // what it counts is weeks
		a.nov.slow, a.nov.count, a.nov.strangers = slow, count, strangers
	}
}

// learn makes what an episode did the account's own.
func (a *account) learn(e *doubt, now int64) {
	a.rate.accept(&e.peak)
	a.rate.reach.keep(e.peak[reachPerHour], now)
	a.series.keep(now)
	a.learnPending(e)
}

// learnPending makes the recipients of an episode the account's own.
func (a *account) learnPending(e *doubt) {
	if e.pending == nil {
		return
	}
	a.known.teach(e.pending)
	a.nov.repeats(false, min(e.fresh, 40))
	a.nov.fresh.hits += e.fresh
	a.nov.fresh.of += e.expected
	a.nov.fresh.limit(60)
}

// take gives the event to the families that it concerns.
func (d *Detector) take(a *account, ev *mailq.Event, now int64) {
	if ev.Counts {
		d.submitted(a, ev, now)
	} else {
		d.named(a, ev, now)
	}
	switch ev.Kind {
	case mailq.Delivered, mailq.Deferred, mailq.Bounced:
		if !a.old(ev.Message) {
			d.failed(a, ev, now)
			d.answered(a, ev, now)
		}
	case mailq.Held:
		a.stopped()
	case mailq.Refused:
		if ev.Reply.Class != mailq.RecipientUnknown {
			a.stopped()
		}
		d.failed(a, ev, now)
	case mailq.LoginSucceeded:
		d.used(a, ev.Client, false, now)
	}
}

// submitted takes a new message.
func (d *Detector) submitted(a *account, ev *mailq.Event, now int64) {
	a.forgive(now)
	a.messages++
	a.mailed = true
	m := a.push(ev.Message, now, max(ev.Rcpts, len(ev.New)))
	if a.open() {
		a.ep.msgs++
		a.ep.rcpts += uint32(m.counted)
	}
	d.used(a, ev.Client, true, now)
	d.sentAs(a, ev.Sender, now)
	d.ran(a, ev.Script, now)
	d.resembles(a, ev.Size, ev.Subject, now)
	a.rate.sent()
	a.in.wrote(a.ep.top >= d.cfg.Floor, now)
	d.pace(a, now)
	if a.ep.speak[familyRate] > 0 {
		a.begin(m, now)
	}
	if a.open() {
		top := float32(hoursTop)
		if a.rate.days < hoursDays {
			top = hoursYoung
		}
		a.rate.odd.add(a.rate.hours.odd(now), top, now)
		a.say(familyHours, a.rate.odd.s)
	}
	if a.ep.top < d.cfg.Floor {
		a.rate.hours.learn(now)
	}
	if since(a.nov.lastMsg, now) > creditFor {
		a.nov.fast.s, a.nov.slow.s = max(a.nov.fast.s, 0), max(a.nov.slow.s, 0)
	}
	if since(a.nov.lastMsg, now) > calm && a.ep.speak[familyNovelty].score() < speaks {
		a.nov.before = a.nov.standing
	}
	a.nov.leak(now)
	a.nov.lastMsg = seconds(now)
	d.addressed(a, m, ev.New, now)
}

// pace sets what the account's speed says now.
func (d *Detector) pace(a *account, now int64) {
	norms := &d.fleet.norms[a.class]
	s, _ := a.rate.speed(norms)
	a.say(familyRate, s)
	a.say(familyFanout, a.fanout(norms, now))
	if a.open() {
		a.say(familyOneway, a.oneway())
	}
	a.say(familySeries, a.seriesScore())
}

// named takes recipients that became known after the message did.
func (d *Detector) named(a *account, ev *mailq.Event, now int64) {
	if len(ev.New) == 0 {
		return
	}
	m := a.find(ev.Message)
	if m == nil {
		if a.old(ev.Message) {
			return
		}
		// Not among the latest any more: weighed as a message of its own.
		m = a.push(ev.Message, now, len(ev.New))
	}
	d.addressed(a, m, ev.New, now)
}

// judge takes all evidence together when some of it rose, and makes a finding
// of a new height at or above the floor.
func (d *Detector) judge(a *account, now int64) (rules.Finding, bool) {
	if !a.ep.rose || !a.open() {
		return rules.Finding{}, false
	}
	v := a.fuse()
	a.highest(&v)
	a.ep.theirs = a.ep.theirs || v.foreign() >= speaks || a.ep.hard != hardNone
	if v.complained() >= speaks {
		a.stopped() // replies and bounces are about what was sent days ago, too
	}
	v = d.judged(v)
	a.ep.top = max(a.ep.top, v.score)
	d.note(a, v, now)
	if v.score < d.cfg.Floor && a.ep.hard == hardNone {
		return rules.Finding{}, false
	}
	higher := v.score > a.ep.told || uint8(v.families) > a.ep.toldFam
	if !higher && since(a.ep.toldAt, now) < tellAgain {
		return rules.Finding{}, false
	}
	a.ep.told, a.ep.toldFam = max(a.ep.told, v.score), max(a.ep.toldFam, uint8(v.families))
	a.ep.toldAt = seconds(now)
	if v.weight() >= d.cfg.Verdict || a.ep.hard != hardNone {
		a.ep.convicted = true
		d.mark(a, now)
	}
	return d.finding(a, v, now), true
}

// tellAgain is how long after the last finding of an episode one that is no
// higher is made again, so that a verdict that has run out meanwhile is
// renewed while the account goes on.
const tellAgain = 10 * minute
