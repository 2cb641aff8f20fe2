package dnsbl

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultParallel is how many questions a [Checker] has open at once if its
// Parallel is not set.
const DefaultParallel = 64

// checkBurst is how many questions a [Checker] asks a list at once before it
// keeps to the list's rate: a health test and a few subjects.
const checkBurst = 30

// A Checker asks once: every list that is open to us about every subject that
// it lists. It asks each list as often as the catalogue allows in a second,
// after a first few questions at once; the budget of a day is the caller's.
type Checker struct {
	Resolver  Resolver
	Catalogue *Catalogue
	Keys      Keys
	Parallel  int    // questions at once; 0: [DefaultParallel]
	Distrust  string // why no answer of the resolver can be believed: all lists then are not tested. Empty if it can
}

// A Result is what one list says about one subject.
type Result struct {
	Subject Subject  `json:"subject"`
	List    string   `json:"list"`
	Status  Verdict  `json:"status"`
	Codes   []string `json:"codes"`   // as answered; never nil
	Meaning string   `json:"meaning"` // of the codes
	Reason  string   `json:"reason"`  // what the list says about an entry, or why nobody can tell
	Delist  string   `json:"delist"`  // where an entry is removed; empty if it is not listed
}

// Check asks about the subjects. It tests each list first, and says Unknown
// for one that fails; a list that lists none of the subjects is not asked. A
// list that is not open to us is in the result, too: as not tested. What the
// resolver says is listed is asked of the list's own servers once more. When
// ctx ends, what was not asked yet is Unknown. The results are in the order of
// subjects, and for each of them in that of the catalogue.
func (c *Checker) Check(ctx context.Context, subjects ...Subject) []Result {
	var kinds Kind
	for _, s := range subjects {
		kinds |= s.Kind()
	}
	lists := c.test(ctx, kinds, subjects)
	results := make([]Result, 0, len(subjects)*len(lists))
	asks := make([]*checkedList, 0, len(subjects)*len(lists))
	for _, s := range subjects {
		for _, l := range lists {
			if l.Kinds&s.Kind() != 0 {
				results = append(results, Result{Subject: s, List: l.Name, Codes: []string{}})
				asks = append(asks, l)
			}
		}
	}
	c.each(len(results), func(i int) { asks[i].check(ctx, &results[i]) })
	return results
}

// Health tests each list and says how it fares. Times, and what only many
// questions tell, are left out.
func (c *Checker) Health(ctx context.Context) []Health {
	var all []Health
	for _, l := range c.test(ctx, ^Kind(0), nil) {
		all = append(all, Health{
			List: l.Name, Title: l.Title, Zone: l.PublicZone(), Tier: l.Tier, State: l.outcome.state, Text: l.outcome.text,
			Terms: l.Terms, NotFor: l.outcome.blind, Stretch: 1,
		})
	}
	return all
}

// each calls do for 0 to n-1, so many at once as c allows, and returns when
// all have.
func (c *Checker) each(n int, do func(int)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(n, cmp.Or(max(c.Parallel, 0), DefaultParallel)) {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				do(int(i - 1))
			}
		})
	}
	wg.Wait()
}

// A checkedList is a list in one check.
type checkedList struct {
	watched
	resolver Resolver
	pace     pace
	probes   []probe
	answers  []Answer
	outcome  outcome
}

// test finds out which lists of those kinds can be believed.
func (c *Checker) test(ctx context.Context, kinds Kind, subjects []Subject) []*checkedList {
	near := func(addr netip.Addr) bool {
		return slices.ContainsFunc(subjects, func(s Subject) bool { return s.neighbourhood() == Address(addr).neighbourhood() })
	}
	var lists, probed []*checkedList
	var probe []int // which of the probes of the list in probed
	for i := range c.Catalogue.Lists {
		if c.Catalogue.Lists[i].Kinds&kinds == 0 {
			continue
		}
		l := &checkedList{watched: watched{List: c.Catalogue.Lists[i]}, resolver: c.Resolver}
		lists = append(lists, l)
		l.begin(c, near)
		for i := range l.probes {
			probed, probe = append(probed, l), append(probe, i)
		}
	}
	c.each(len(probed), func(i int) {
		l, p := probed[i], probed[i].probes[probe[i]]
		l.answers[probe[i]] = l.ask(ctx, p.label+"."+l.zone, p.typ)
	})
	for _, l := range lists {
		if l.probes != nil {
			l.outcome = l.evaluate(l.probes, l.answers)
			l.outcome.text = l.hide(l.outcome.text)
		}
	}
	return lists
}

// begin sets what l is to be asked to find out whether it can be believed:
// nothing if there is no use in that.
func (l *checkedList) begin(c *Checker, near func(netip.Addr) bool) {
	l.pace.every = time.Duration(float64(time.Second) / l.PerSecond)
	switch {
	case !l.openWith(c.Keys):
		l.outcome = outcome{state: NoKey, text: l.closed()}
	case c.Distrust != "":
		l.outcome.text = "not tested: " + c.Distrust
	default:
		l.probes = l.List.probes(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), near, true)
		l.answers = make([]Answer, len(l.probes))
	}
}

// ask asks the resolver when the list's rate allows it.
func (l *checkedList) ask(ctx context.Context, name string, typ Type) Answer {
	if !l.pace.wait(ctx) {
		return Answer{Status: Timeout}
	}
	return l.resolver.Lookup(ctx, name, typ)
}

// confirm asks the list's own servers.
func (l *checkedList) confirm(ctx context.Context, name string) Answer {
	if !l.pace.wait(ctx) {
		return Answer{Status: Timeout}
	}
	return l.resolver.Confirm(ctx, l.zone, name, TypeA)
}

// check asks the list about r.Subject. An IPv6 address is asked about by its
// /64 first, which is what most lists have.
func (l *checkedList) check(ctx context.Context, r *Result) {
	if l.outcome.state != Healthy || l.outcome.blind&r.Subject.Kind() != 0 {
		r.Reason = cmp.Or(l.outcome.text, NotTested.String())
		return
	}
	units := []Subject{l.unit(r.Subject)}
	if r.Subject.Kind() == IP6 {
		units = []Subject{network(r.Subject.prefix.Addr(), 64), r.Subject}
	}
	for _, u := range units {
		name, err := QueryName(u, l.zone)
		if err != nil {
			r.Reason = err.Error()
			return
		}
		if ctx.Err() != nil {
			r.set(Judgement{}, NotAsked.String())
			return
		}
		a := l.ask(ctx, name, TypeA)
		j := l.Judge(a)
		r.set(j, l.hide(j.explain(a)))
		if j.Verdict == Listed {
			l.checkListing(ctx, name, r)
		}
		if j.Verdict != Clean {
			return
		}
	}
}

// set takes what an answer means.
func (r *Result) set(j Judgement, reason string) {
	r.Status, r.Codes, r.Meaning, r.Reason = j.Verdict, codeTexts(j.Codes), j.Meaning, reason
}

// checkListing takes the second opinion of the list's own servers on what the
// resolver says is listed, and the list's reason for it.
func (l *checkedList) checkListing(ctx context.Context, name string, r *Result) {
	a := l.confirm(ctx, name)
	j := l.Judge(a)
	doubt := ""
	switch {
	case j.Verdict == Listed:
		r.set(j, "")
	case j.Verdict == Clean && l.servesUs(ctx, r.Subject.Kind()):
		r.Status, r.Meaning = Unknown, ""
		r.Reason = "the resolver says that it is listed, the list's own server that it is not (" + l.hide(j.explain(a)) + ")"
		return
	case j.Verdict == Clean:
		doubt = "not confirmed: the list's own servers do not serve this host"
	default:
		doubt = "not confirmed by the list's own servers: " + l.hide(j.explain(a))
	}
	r.Reason = ""
	if a := l.ask(ctx, name, TypeTXT); a.Status == Found && !l.leaves(a.Names) {
		r.Reason = l.hide(CleanText(a.Texts))
	}
	r.Delist = delist(r.Reason, &l.List)
	switch {
	case doubt != "" && r.Reason != "":
		r.Reason = fmt.Sprintf("%s (%s)", r.Reason, doubt)
	case doubt != "":
		r.Reason = doubt
	}
}

// servesUs reports whether the list's own servers have its test entry for us.
// Where a list serves registered resolvers only, they tell this host nothing.
func (l *checkedList) servesUs(ctx context.Context, kind Kind) bool {
	for _, t := range l.TestListed {
		if t.Kind == kind && l.isEntry(l.Judge(l.confirm(ctx, t.Label+"."+l.zone))) {
			return true
		}
	}
	return false
}

// A pace keeps the questions to one list apart.
type pace struct {
	every time.Duration // between two of them, in the long run

	mu   sync.Mutex // guards the field below
	paid time.Time  // until when the questions so far last at that rate
}

// wait returns when the next question may be asked. It reports false if ctx
// ends before.
func (p *pace) wait(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	p.mu.Lock()
	now := time.Now()
	p.paid = later(p.paid, now).Add(p.every)
	wait := p.paid.Sub(now) - checkBurst*p.every
	p.mu.Unlock()
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
