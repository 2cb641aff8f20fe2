package rules

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// A Set is the rules of one or more rule files. It never changes once loaded;
// any number of goroutines may use it.
type Set struct {
	rules map[string]*rule
	cases []testCase
}

// A rule maps the findings of one name to a ladder.
type rule struct {
	name   string
	at     place
	exempt []string
	ladder []rung // weakest first, each action at most once
}

// A rung is one step of a ladder.
type rung struct {
	do   Action
	when *condition
	term time.Duration // how long it lasts; 0: until a person ends it
	at   place
}

// A place is where in the rule files something was said.
type place struct {
	file string
	line int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

//go:embed shipped/*.yml
var shipped embed.FS

// Shipped returns the rules that come with the program. They are part of it:
// that they load is tested, so a failure is a broken build and panics.
func Shipped() *Set { return shippedSet() }

// shippedSet reads them once.
var shippedSet = sync.OnceValue(func() *Set {
	files, err := fs.Sub(shipped, "shipped")
	if err != nil {
		panic(err)
	}
	set, err := load(files, "shipped")
	if err != nil {
		panic(err)
	}
	return set
})

// Merge returns the rules of s with those of own in the place of any that
// have the same name. The cases of a replaced rule go with it; those of own
// are all kept. Neither set is changed.
func (s *Set) Merge(own *Set) *Set {
	merged := &Set{rules: make(map[string]*rule, len(s.rules))}
	for name, r := range s.rules {
		merged.rules[name] = r
	}
	for name, r := range own.rules {
		merged.rules[name] = r
	}
	for _, c := range s.cases {
		if _, replaced := own.rules[c.finding.Rule]; !replaced {
			merged.cases = append(merged.cases, c)
		}
	}
	merged.cases = append(merged.cases, own.cases...)
	return merged
}

// Names returns the names of the rules in the set, sorted.
func (s *Set) Names() []string {
	names := make([]string, 0, len(s.rules))
	for name := range s.rules {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
