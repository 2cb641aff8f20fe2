package dnsbl

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
)

// DefaultParallel is how many questions a [Checker] has open at once if its
// Parallel is not set.
const DefaultParallel = 16

// A Checker asks once: every list that is open to us about every subject that
// it lists.
type Checker struct {
	Resolver  Resolver
	Catalogue *Catalogue
	Keys      Keys
	Parallel  int // questions at once; 0: [DefaultParallel]
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
// list that is not open to us is in the result, too: as not tested. When ctx
// ends, what was not asked yet is Unknown. The results are in the order of
// subjects, and for each of them in that of the catalogue.
func (c *Checker) Check(ctx context.Context, subjects ...Subject) []Result {
	var kinds Kind
	for _, s := range subjects {
		kinds |= s.Kind()
	}
	var lists []*checkedList
	for i := range c.Catalogue.Lists {
		if l := &c.Catalogue.Lists[i]; l.Kinds&kinds != 0 {
			lists = append(lists, &checkedList{watched: watched{List: *l}})
		}
	}
	c.each(len(lists), func(i int) { lists[i].test(ctx, c, subjects) })
	var results []Result
	var asks []*checkedList
	for _, s := range subjects {
		for _, l := range lists {
			if l.Kinds&s.Kind() != 0 {
				results = append(results, Result{Subject: s, List: l.Name, Codes: []string{}})
				asks = append(asks, l)
			}
		}
	}
	c.each(len(results), func(i int) { asks[i].check(ctx, c.Resolver, &results[i]) })
	return results
}

// each calls do for 0 to n-1, so many at once as c allows, and returns when
// all have.
func (c *Checker) each(n int, do func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, cmp.Or(max(c.Parallel, 0), DefaultParallel)) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// A checkedList is a list in one check.
type checkedList struct {
	watched
	outcome outcome
}

// test finds out whether the list can be believed.
func (l *checkedList) test(ctx context.Context, c *Checker, subjects []Subject) {
	if !l.openWith(c.Keys) {
		l.outcome = outcome{state: NoKey, text: l.closed()}
		return
	}
	own := func(addr netip.Addr) bool {
		return slices.ContainsFunc(subjects, func(s Subject) bool { return s.neighbourhood() == Address(addr).neighbourhood() })
	}
	probes := l.probes(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), own, true)
	answers := make([]Answer, len(probes))
	for i, p := range probes {
		if answers[i].Status = Timeout; ctx.Err() == nil {
			answers[i] = c.Resolver.Lookup(ctx, p.label+"."+l.zone, p.typ)
		}
	}
	l.outcome = l.evaluate(probes, answers)
	l.outcome.text = l.hide(l.outcome.text)
}

// check asks the list about r.Subject. An IPv6 address is asked about by its
// /64 first, which is what most lists have.
func (l *checkedList) check(ctx context.Context, resolver Resolver, r *Result) {
	if l.outcome.state != Healthy || l.outcome.blind&r.Subject.Kind() != 0 {
		r.Reason = cmp.Or(l.outcome.text, NotTested.String())
		return
	}
	units := []Subject{l.unit(r.Subject)}
	if r.Subject.Kind() == IP6 {
		units = []Subject{network(r.Subject.prefix.Addr(), 64), r.Subject}
	}
	var j Judgement
	for _, u := range units {
		name, err := QueryName(u, l.zone)
		if err != nil {
			r.Reason = err.Error()
			return
		}
		if ctx.Err() != nil {
			r.Status, r.Reason = Unknown, NotAsked.String()
			return
		}
		a := resolver.Lookup(ctx, name, TypeA)
		j = l.Judge(a)
		r.Status, r.Codes, r.Meaning, r.Reason = j.Verdict, codeTexts(j.Codes), j.Meaning, l.hide(j.explain(a))
		if j.Verdict != Clean {
			l.explain(ctx, resolver, name, r)
			return
		}
	}
}

// explain asks what the list says about an entry.
func (l *checkedList) explain(ctx context.Context, resolver Resolver, name string, r *Result) {
	if r.Status != Listed {
		return
	}
	r.Reason = ""
	if a := resolver.Lookup(ctx, name, TypeTXT); a.Status == Found && !l.leaves(a.Names) {
		r.Reason = l.hide(CleanText(a.Texts))
	}
	r.Delist = delist(r.Reason, &l.List)
}
