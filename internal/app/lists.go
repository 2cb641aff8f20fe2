package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/dnsclient"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A listWatch watches our addresses and domains on block lists. Its loop owns
// the dnsbl.Watch, which says what to ask when; a few askers ask it; whoever
// else needs the watch asks the loop.
//
//	what is due → askers → answers → changes: written down, then told
type listWatch struct {
	p        *pipeline
	config   config.DNSBL
	client   *dnsclient.Client
	resolver dnsbl.Resolver
	watch    *dnsbl.Watch
	asks     chan func()
	over     chan struct{} // closed when the loop has ended
	heard    chan heard    // from observe
	clients  *listClients  // nil: no client of an account is asked about
	hook     *listHook     // nil: there is none
	risk     atomic.Uint64 // bits of what the log says of the risk that our addresses are listed, 0 to 1
	sent     atomic.Int64  // when the latest mail left of which nobody says from where, in Unix nanoseconds
	left     departures    // of which the log does

	// The loop's own.
	began     time.Time
	distrust  string                         // why no resolver can be believed; then nothing is asked
	sources   map[dnsbl.Subject]string       // how each was found
	named     map[netip.Addr]*namedBy        // addresses that replies name, that are not watched
	risks     map[dnsbl.Subject]*signs       // early signs
	hoods     map[netip.Prefix]*hood         // neighbourhoods of our addresses
	told      map[string]toldListed          // by subject: what was reported of listings in this run, and stands
	ended     map[string]bool                // IDs of incidents that the book has not ended yet
	lasting   map[string]map[string]bool     // by rule: IDs of what stands of lists and networks and was reported in this run
	unwritten []store.ListingRow             // changes that could not be written down yet
	eye       eye                            // on the resolver
	away      bool                           // most lists do not answer
	untold    bool                           // something changed since people were told
	tellAt    time.Time                      // when they may be told of it
	ofAgents  map[string]map[netip.Addr]bool // by agent: the addresses that it said it has
	unnamed   time.Time                      // when a reply last counted that names none of our addresses
}

// listAskers is how many questions to block lists are open at once.
const listAskers = 64

// maxUnwrittenListings bounds the changes that wait for the database.
const maxUnwrittenListings = 10_000

// newListWatch returns nil if nothing is to be watched.
func newListWatch(whole config.Config, p *pipeline) (*listWatch, error) {
	c := whole.DNSBL
	if !c.Watch {
		return nil, nil
	}
	hook, err := newListHook(whole, p)
	if err != nil {
		return nil, err
	}
	catalogue, warnings, err := listCatalogue(c)
	if err != nil {
		return nil, err
	}
	for _, text := range warnings {
		p.log.Warn("block lists", "warning", text)
	}
	client := newDNSClient(c)
	if err := openDNSClient(client); err != nil {
		return nil, err
	}
	return &listWatch{
		p: p, config: c, clients: newListClients(whole, catalogue), client: client, resolver: listResolver{client}, hook: hook,
		watch: dnsbl.NewWatch(catalogue, listKeys(c), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))),
		asks:  make(chan func()), over: make(chan struct{}), heard: make(chan heard, maxHeard),
		distrust: "the resolver was not examined yet",
		sources:  map[dnsbl.Subject]string{}, named: map[netip.Addr]*namedBy{}, risks: map[dnsbl.Subject]*signs{}, told: map[string]toldListed{}, ended: map[string]bool{},
		ofAgents: map[string]map[netip.Addr]bool{}, hoods: map[netip.Prefix]*hood{},
		lasting: map[string]map[string]bool{rules.ListHealth: {}, rules.Neighbours: {}},
		eye:     eye{kind: "lists", subject: "resolver for block lists", part: "block lists"},
	}, nil
}

// flapsWithin is for how long it matters how often something was listed; of what
// ended before that, the history is not needed to go on.
const flapsWithin = 24 * time.Hour

// restore takes up what the last run knew, and watches on what was listed.
func (l *listWatch) restore(ctx context.Context) error {
	var history []dnsbl.Event
	damaged := spoilt{of: "changes on block lists"}
	err := l.p.store.LoadListings(ctx, time.Now().Add(-flapsWithin), func(row store.ListingRow) error {
		var e dnsbl.Event
		if err := json.Unmarshal(row.Body, &e); err != nil {
			damaged.add(err)
			return nil
		}
		history = append(history, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("block lists: %w", err)
	}
	damaged.tell(l.p.log)
	if l.hook != nil {
		if err := l.hook.restore(ctx); err != nil {
			return fmt.Errorf("hook for listed addresses: %w", err)
		}
	}
	l.watch.Restore(history)
	l.restoreLists(ctx)
	for _, f := range l.ownAddresses() { // first, so that none of them passes for a stranger's
		l.add(time.Now(), f.subject, f.source)
	}
	for s := range stillListed(history) {
		if s.IsSingle() {
			l.add(time.Now(), s, byHistory)
		}
	}
	return nil
}

// listsKey is where it stands what is known of each list.
const listsKey = "lists"

// A listsKept is what was known of each list then.
type listsKept struct {
	Time  time.Time      `json:"time"`
	Lists []dnsbl.Memory `json:"lists"`
}

// restoreLists has what is known of each list outlive a restart: what it was asked
// today, and that it is in quarantine.
func (l *listWatch) restoreLists(ctx context.Context) {
	text, err := l.p.store.Setting(ctx, listsKey)
	if errors.Is(err, store.ErrNotFound) {
		return
	}
	var kept listsKept
	if err = errors.Join(err, json.Unmarshal(text, &kept)); err != nil {
		l.p.log.Error("block lists: what was known of each is found out anew", "err", err)
		return
	}
	l.watch.RestoreLists(time.Now(), kept.Time, kept.Lists)
}

// keepLists writes down what is known of each list.
func (l *listWatch) keepLists(ctx context.Context) {
	text, err := json.Marshal(listsKept{time.Now(), l.watch.Memories()})
	if err != nil {
		panic(err) // plain data
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	if err := l.p.store.SetSetting(ctx, listsKey, text); err != nil {
		l.p.log.Error("block lists: what is known of each is written later", "err", err)
	}
}

// stillListed is what was on a list, or seemed to be, when the history ended.
func stillListed(history []dnsbl.Event) map[dnsbl.Subject]bool {
	type pair struct {
		subject dnsbl.Subject
		list    string
	}
	on := map[pair]bool{}
	for _, e := range history {
		switch e.Kind {
		case dnsbl.Suspected, dnsbl.Opened, dnsbl.Flapped:
			on[pair{e.Subject, e.List}] = true
		case dnsbl.Dismissed, dnsbl.Cleared:
			delete(on, pair{e.Subject, e.List})
		}
	}
	subjects := map[dnsbl.Subject]bool{}
	for p := range on {
		subjects[p.subject] = true
	}
	return subjects
}

// How a subject was found where we do not know that it is ours: others named
// it, or it was listed before the start and was not found yet.
const (
	byReplies = "replies of other servers"
	byHistory = "listed before"
	bySPF     = "SPF of " // and a domain, whose DNS may be a customer's
)

// A belief is how sure it is that a subject is ours.
type belief uint8

const (
	byStrangers belief = iota // others named it
	byDomain                  // a domain of ours says so, or whoever runs its DNS
	certain
)

func beliefIn(source string) belief {
	switch {
	case source == byReplies || source == byHistory:
		return byStrangers
	case strings.HasPrefix(source, bySPF):
		return byDomain
	}
	return certain
}

// isOurs reports whether a subject was found where no stranger has a say: nobody
// is called for the addresses of others.
func (l *listWatch) isOurs(s dnsbl.Subject) bool {
	source, ok := l.sources[s]
	return ok && beliefIn(source) > byStrangers
}

// isCertain reports whether we know of a subject that it is ours: the mail of
// others is never moved.
func (l *listWatch) isCertain(s dnsbl.Subject) bool {
	source, ok := l.sources[s]
	return ok && beliefIn(source) == certain
}

// add begins to watch a subject, unless it is watched already.
func (l *listWatch) add(now time.Time, s dnsbl.Subject, source string) {
	before, ok := l.sources[s]
	if !s.Public() || ok && beliefIn(source) <= beliefIn(before) {
		return
	}
	watch := l.watch.AddStranger
	if beliefIn(source) > byStrangers {
		watch = l.watch.Add
	}
	if err := watch(now, s); err != nil {
		l.p.log.Error("not watched on block lists", "subject", s.String(), "found", source, "err", err)
		return
	}
	if l.sources[s] = source; ok {
		return
	}
	l.p.log.Info("watched on block lists", "subject", s.String(), "found", source)
}

// run watches until ctx ends.
func (l *listWatch) run(ctx context.Context) error {
	defer l.client.Close()
	tasks, answers := make(chan dnsbl.Task), make(chan listAnswered)
	g, ctx := errgroup.WithContext(ctx)
	for range listAskers {
		g.Go(func() error {
			l.answer(ctx, tasks, answers)
			return nil
		})
	}
	g.Go(func() error {
		defer close(tasks)
		defer close(l.over)
		defer l.survive(ctx)
		l.loop(ctx, tasks, answers)
		return nil
	})
	if l.hook != nil {
		g.Go(func() error { return l.guarded(ctx, "the hook for listed addresses is run", l.hook.run) })
	}
	g.Go(func() error { return l.guarded(ctx, "resolvers for block lists are examined", l.examine) })
	g.Go(func() error { return l.guarded(ctx, "outgoing addresses are looked for", l.findAddresses) })
	return g.Wait()
}

// survive has the service go on without the watch over block lists, should a
// mistake of ours end it: the watch over the mail is worth more.
func (l *listWatch) survive(ctx context.Context) {
	if mistake := recover(); mistake != nil {
		l.p.metrics.panics.Inc()
		l.p.log.Error("panic: block lists are watched no more; please report it", "panic", fmt.Sprint(mistake), "stack", string(debug.Stack()))
		l.p.blind(ctx, &l.eye, errors.New("block lists are watched no more until the service is restarted: a mistake of ours, which the log tells"))
	}
}

// guarded does a part of the watch. A mistake of ours in it ends that part, is
// told, and leaves the rest running.
func (l *listWatch) guarded(ctx context.Context, what string, do func(context.Context) error) error {
	defer func() {
		if mistake := recover(); mistake != nil {
			l.p.metrics.panics.Inc()
			l.p.log.Error("panic: a part of the watch over block lists has ended; please report it", "part", what, "panic", fmt.Sprint(mistake), "stack", string(debug.Stack()))
			e := eye{kind: "lists", subject: "block lists: " + what, part: "block lists: " + what} // nothing ever clears it
			l.p.blind(ctx, &e, fmt.Errorf("no more until the service is restarted (%s): a mistake of ours, which the log tells", what))
		}
	}()
	return do(ctx)
}

// errListsOver is why the watch over block lists cannot be asked any more.
var errListsOver = errors.New("block lists are watched no more")

// ask asks one question. A panic is a mistake of ours that an answer brought to
// light: it costs that answer.
func (l *listWatch) ask(ctx context.Context, t dnsbl.Task) (a dnsbl.Answer) {
	defer func() {
		if mistake := recover(); mistake != nil {
			l.p.metrics.panics.Inc()
			l.p.log.Error("panic: an answer of a block list is left out; please report it", "task", t.String(), "panic", fmt.Sprint(mistake), "stack", string(debug.Stack()))
			a = dnsbl.Answer{Status: dnsbl.Malformed}
		}
	}()
	return t.Ask(ctx, l.resolver)
}

// A listAnswered is the answer to a task.
type listAnswered struct {
	task   dnsbl.Task
	answer dnsbl.Answer
}

// answer asks one question after the other.
func (l *listWatch) answer(ctx context.Context, tasks <-chan dnsbl.Task, answers chan<- listAnswered) {
	for t := range tasks {
		a := listAnswered{t, l.ask(ctx, t)}
		select {
		case answers <- a:
		case <-ctx.Done():
			return
		}
	}
}

// loop owns the watch.
func (l *listWatch) loop(ctx context.Context, tasks chan<- dnsbl.Task, answers <-chan listAnswered) {
	var waiting []dnsbl.Task
	asked := 0
	l.began = time.Now()
	minute, timer := time.NewTicker(time.Minute), time.NewTimer(0)
	defer minute.Stop()
	defer timer.Stop()
	for {
		free := listAskers - asked - len(waiting)
		if free > 0 && l.distrust == "" {
			due, events := l.watch.Due(time.Now(), free)
			waiting = append(waiting, due...)
			l.took(ctx, events)
		}
		out, next := (chan<- dnsbl.Task)(nil), dnsbl.Task{}
		if len(waiting) > 0 {
			out, next = tasks, waiting[0]
		}
		l.hearInquiries(ctx, time.Now())
		l.tellSoon(ctx)
		timer.Reset(l.sleep(asked + len(waiting)))
		select {
		case <-ctx.Done():
			return
		case out <- next:
			waiting = waiting[1:]
			asked++
		case a := <-answers:
			asked--
			l.count(a.answer)
			l.took(ctx, l.watch.Take(time.Now(), a.task, a.answer))
		case ask := <-l.asks:
			ask()
		case h := <-l.heard:
			l.hear(h, time.Now())
		case in := <-l.clients.coming():
			l.signedIn(ctx, in, time.Now())
		case <-minute.C:
			l.minute(ctx)
		case <-timer.C:
		}
	}
}

// sleep is how long the loop may wait when nothing comes.
func (l *listWatch) sleep(busy int) time.Duration {
	next := l.watch.Next()
	if l.untold {
		return max(time.Until(l.tellAt), 20*time.Millisecond)
	}
	if busy >= listAskers || l.distrust != "" || next.IsZero() {
		return time.Minute
	}
	return min(max(time.Until(next), 20*time.Millisecond), time.Minute)
}

// count notes how a question ended.
func (l *listWatch) count(a dnsbl.Answer) {
	result := "none"
	if a.Status == dnsbl.Found || a.Status == dnsbl.NoData || a.Status == dnsbl.NXDomain {
		result = "some"
	}
	l.p.metrics.listQuestions.WithLabelValues(result).Inc()
}

// do runs f in the loop and waits for its end.
func (l *listWatch) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.asks <- func() { f(); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.over:
		return errListsOver
	case <-l.p.done:
		return errStopping
	}
	select {
	case <-done:
		return nil
	case <-l.over:
		return errListsOver
	case <-ctx.Done():
		return ctx.Err()
	}
}

// examineEvery is how often the resolvers are examined, and examineAgain how
// soon after an examination that went badly.
const (
	examineEvery = time.Hour
	examineAgain = 5 * time.Minute
)

// examine has nothing asked of resolvers that cannot be believed.
func (l *listWatch) examine(ctx context.Context) error {
	for {
		health := l.client.SelfTest(ctx)
		if ctx.Err() != nil {
			return nil
		}
		why := distrust(health)
		if l.do(ctx, func() { l.examined(ctx, health, why) }) != nil {
			return nil
		}
		pause := examineEvery
		if why != "" {
			pause = examineAgain
		}
		if wait(ctx, pause) != nil {
			return nil
		}
	}
}

func (l *listWatch) examined(ctx context.Context, health []dnsclient.Health, why string) {
	for _, h := range health {
		for _, text := range h.Texts {
			l.p.log.Warn("resolver for block lists", "text", text)
		}
	}
	l.distrust = why
	if why != "" {
		l.took(ctx, l.watch.Distrust(time.Now(), why))
		l.p.blind(ctx, &l.eye, fmt.Errorf("no block list is asked: %s", why))
	}
}

// minute puts the house in order.
func (l *listWatch) minute(ctx context.Context) {
	now := time.Now()
	l.addOfAgents(now)
	l.active(now)
	l.lookAround(now)
	l.weighSigns(now)
	l.p.metrics.listSubjects.Set(float64(len(l.sources)))
	l.forgetClients(now)
	l.p.metrics.listRisk.Set(math.Float64frombits(l.risk.Load()))
	l.writeDown(ctx)
	l.keepLists(ctx)
	l.tell(ctx)
}

// took writes changes down and tells of them.
func (l *listWatch) took(ctx context.Context, events []dnsbl.Event) {
	if len(events) == 0 {
		return
	}
	for _, e := range events {
		l.log(e)
		l.unwritten = append(l.unwritten, listingRow(e))
		l.untold = l.untold || isTold(e.Kind)
	}
	if over := len(l.unwritten) - maxUnwrittenListings; over > 0 {
		l.p.log.Error("changes on block lists are lost: nothing can be written down", "lost", over)
		l.unwritten = l.unwritten[over:]
	}
	l.writeDown(ctx)
	if slices.ContainsFunc(events, func(e dnsbl.Event) bool { return e.Kind == dnsbl.ListState || e.Kind == dnsbl.CodeUnknown }) {
		l.keepLists(ctx) // before anybody is told
	}
	l.tellSoon(ctx)
	l.tellOnce(ctx, events)
}

// isTold reports whether a change may begin or end what people are told.
func isTold(k dnsbl.EventKind) bool {
	return k == dnsbl.Opened || k == dnsbl.Flapped || k == dnsbl.Recoded || k == dnsbl.Cleared || k == dnsbl.ListState
}

func (l *listWatch) log(e dnsbl.Event) {
	subject := ""
	if e.Subject != (dnsbl.Subject{}) {
		subject = e.Subject.String()
	}
	l.p.log.Info("block list", "list", e.List, "change", e.Kind.String(), "subject", subject, "codes", fmt.Sprint(e.Codes), "state", e.State.String(), "text", e.Text)
}

// listingRow is a change as it is stored.
func listingRow(e dnsbl.Event) store.ListingRow {
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // plain data
	}
	row := store.ListingRow{Time: e.Time, Kind: e.Kind.String(), List: e.List, Body: body, Ends: isEnd(e.Kind), Passing: isPassing(e.Kind)}
	if e.Subject != (dnsbl.Subject{}) {
		row.Subject = e.Subject.String()
	}
	return row
}

// isEnd reports whether what was known of a subject and list is over with a change.
func isEnd(k dnsbl.EventKind) bool {
	return k == dnsbl.Cleared || k == dnsbl.Dismissed || k == dnsbl.WelcomeLost
}

// isPassing reports whether a change says nothing any more once another one
// follows: a list that cannot make up its mind fills no disk.
func isPassing(k dnsbl.EventKind) bool {
	return k == dnsbl.Clearing || k == dnsbl.Relapsed || k == dnsbl.WelcomeLost || k == dnsbl.CodeUnknown
}

// writeDown writes what waits. What cannot be written is tried again each
// minute, and told all the same.
func (l *listWatch) writeDown(ctx context.Context) {
	if len(l.unwritten) == 0 {
		return
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	if err := l.p.store.AddListings(ctx, l.unwritten); err != nil {
		l.p.metrics.unwritten.Inc()
		l.p.log.Error("changes on block lists are written later", "changes", len(l.unwritten), "err", err)
		return
	}
	l.unwritten = nil
}

// setRisk takes what the log says of the risk. It runs in observe.
func (l *listWatch) setRisk(r *detector.ListingRisk, now time.Time) {
	if l != nil && r != nil {
		l.risk.Store(math.Float64bits(r.Risk(now)))
	}
}

// saw takes what an event of the log says about our addresses. It runs in
// observe and never blocks: what does not fit is left out.
func (l *listWatch) saw(ev *mailq.Event) {
	l.sawClient(ev)
	switch ev.Kind {
	case mailq.Delivered:
		if ev.Into == "" && !l.left.note(ev) && ev.Time.UnixNano() > l.sent.Load() {
			l.sent.Store(ev.Time.UnixNano())
		}
	case mailq.Deferred, mailq.Bounced:
		if ev.Reply.Class != mailq.AddressReputation {
			return
		}
		select {
		case l.heard <- heard{ev.Time, detector.Receiver(ev), ev.Reply.Text, ev.From}:
		default:
		}
	}
}
