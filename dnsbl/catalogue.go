package dnsbl

import (
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Catalogue is the block lists that are known, and those that must not be
// asked any more. It never changes once it is parsed.
type Catalogue struct {
	Version  int // of the data, counting up
	Lists    []List
	Changes  []Change // to lists of another catalogue; see [Catalogue.Merge]
	Dead     []DeadZone
	Disabled []string // zones or names of lists that are not to be asked; see [Catalogue.Merge]
}

// A List is one block list, as the catalogue describes it.
type List struct {
	Name     string // how we call it: "spamhaus-zen"
	Title    string // how people call it: "Spamhaus ZEN"
	Operator string // who runs it; lists of one operator do not confirm each other, and share a key
	Zone     string // what is asked without a key; empty if there is no such thing
	Keyed    string // what is asked with a key, which takes the place of {key}; may be empty
	Access   Access
	Kinds    Kind
	Tier     Tier
	Weight   int  // impact on delivery times accuracy, 0 to 100, of codes without their own
	Bits     bool // Codes are bits of the last octet
	Codes    []Code

	Ask4 int // an IPv4 address is asked about by its network of so many bits: 32 for itself

	TestListed []TestPoint // of each kind at least one must be listed
	TestClean  []TestPoint // none of these may be
	TestCodes  []Range     // count as listed at a test point, and nowhere else

	PerSecond float64       // questions a second that the list is asked at most
	PerDay    int           // questions a day (UTC) that the list is asked at most
	Every     time.Duration // how often an active address is asked about, before risk
	Delist    string        // where an entry is removed; empty where there is no such place
	Terms     string        // on which terms the list may be asked
	Notes     string
}

// A Change says what is to be otherwise about a list that another catalogue
// describes. What is zero or nil stays as it is.
type Change struct {
	List      string // its name
	Tier      *Tier
	Weight    *int // 0 to 100; codes with their own keep their ratio to that of the list
	PerSecond float64
	PerDay    int

	line int // of the catalogue that it is in
}

// apply returns l with the change.
func (c *Change) apply(l List) List {
	if c.Tier != nil {
		if l.Every == l.Tier.base() {
			l.Every = c.Tier.base()
		}
		l.Tier = *c.Tier
	}
	if c.Weight != nil {
		l.Codes = slices.Clone(l.Codes)
		for i := range l.Codes {
			l.Codes[i].Weight = scaled(l.Codes[i].Weight, l.Weight, *c.Weight)
		}
		l.Weight = *c.Weight
	}
	if c.PerSecond != 0 {
		l.PerSecond = c.PerSecond
	}
	if c.PerDay != 0 {
		l.PerDay = c.PerDay
	}
	return l
}

// scaled is the weight of a code of a list that weighed was, and weighs now.
func scaled(weight, was, now int) int {
	if was == 0 {
		return now
	}
	return min((weight*now+was/2)/was, 100)
}

// A TestPoint is an entry that a list has, or must not have, for testing
// (RFC 5782, section 5).
type TestPoint struct {
	Kind  Kind
	Label string // what comes before the zone in a question
}

// A DeadZone is a zone that must not be asked: it answers nothing, answers
// everything, or is the data of another list.
type DeadZone struct {
	Zone      string // with "*." for everything below a domain, too
	Since     string // year, month or day; empty if unknown
	Redundant bool   // it lives, but counts an entry twice
	Why       string
}

// Access says who may ask a list. The zero Access is Free.
type Access uint8

// What opens a list.
const (
	Free     Access = iota // nothing
	Permit                 // a key, or [Permitted]: a registered resolver, a use within the free terms
	NeedsKey               // a key
)

var accessTexts = []string{"free", "permit", "key"}

// String returns the access by its name in the catalogue.
func (a Access) String() string { return accessTexts[a] }

// A Tier says what a listing means to us.
type Tier uint8

// The tiers of lists.
const (
	Inform Tier = iota // never an alert by itself
	Warn               // warns, and counts with others
	Act                // costs deliveries: act on it
)

var tierTexts = []string{"inform", "warn", "act"}

// String returns the tier by its name in the catalogue.
func (t Tier) String() string { return tierTexts[t] }

// MarshalText writes what String returns.
func (t Tier) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// base is how often an active subject is asked about.
func (t Tier) base() time.Duration {
	return [...]time.Duration{Inform: 12 * time.Hour, Warn: time.Hour, Act: 15 * time.Minute}[t]
}

// testEvery is how often the health of a list is tested.
func (t Tier) testEvery() time.Duration {
	return [...]time.Duration{Inform: 30 * time.Minute, Warn: 15 * time.Minute, Act: 5 * time.Minute}[t]
}

// Permitted, in the place of a key, says that the terms of the list's public
// zone are met: that the resolver is registered, or the use a free one.
const Permitted Key = "permitted"

// A Key opens a list. It prints, logs and marshals as "<key>". Convert it to
// a string to use it.
type Key string

const hiddenKey = "<key>"

// String hides the key.
func (Key) String() string { return hiddenKey }

// GoString hides the key.
func (Key) GoString() string { return hiddenKey }

// LogValue hides the key.
func (Key) LogValue() slog.Value { return slog.StringValue(hiddenKey) }

// MarshalText hides the key.
func (Key) MarshalText() ([]byte, error) { return []byte(hiddenKey), nil }

// Keys are the keys that the operator has, by the Operator of the lists.
type Keys map[string]Key

// Check says which of the keys open nothing: all of them, joined.
func (k Keys) Check(c *Catalogue) error {
	var errs []error
	for _, operator := range slices.Sorted(maps.Keys(k)) {
		keyed, permit := false, false
		for i := range c.Lists {
			if l := &c.Lists[i]; l.Operator == operator {
				keyed, permit = keyed || l.Keyed != "", permit || l.Access == Permit
			}
		}
		switch key := k[operator]; {
		case !keyed && !permit:
			errs = append(errs, fmt.Errorf("dnsbl: key of %q: no list of that operator needs one", operator))
		case key == Permitted && !permit:
			errs = append(errs, fmt.Errorf("dnsbl: key of %q: it needs a key, to be permitted is not enough", operator))
		case key != Permitted && !keyed:
			errs = append(errs, fmt.Errorf("dnsbl: key of %q: it has none; want %q if the resolver is registered there", operator, string(Permitted)))
		case key != Permitted && !isLDH(strings.ToLower(string(key))):
			errs = append(errs, fmt.Errorf("dnsbl: key of %q: want up to 63 letters, digits and hyphens", operator))
		}
	}
	return errors.Join(errs...)
}

// CheckClients says which of the named lists cannot be asked about the clients of
// logins: an error for all that c does not know or that say nothing about
// clients, joined, and a warning for each that keys do not open.
func (c *Catalogue) CheckClients(names []string, keys Keys) (warnings []string, err error) {
	var errs []error
	for _, name := range names {
		i := slices.IndexFunc(c.Lists, func(l List) bool { return l.Name == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("dnsbl: no list is called %q: vedetta dnsbl lists shows their names", name))
			continue
		}
		l := &c.Lists[i]
		if !slices.ContainsFunc(l.Codes, func(c Code) bool { return c.Client > 0 }) || l.Kinds&(IP4|IP6) == 0 {
			errs = append(errs, fmt.Errorf("dnsbl: list %s says nothing about clients: none of its codes has client in the catalogue", name))
		} else if _, open := l.zone(keys); !open {
			warnings = append(warnings, fmt.Sprintf("list %s is not asked about clients: %s", name, l.closed()))
		}
	}
	return warnings, errors.Join(errs...)
}

// zone returns the zone to ask, or false if the list is not open to us.
func (l *List) zone(keys Keys) (string, bool) {
	key := keys[l.Operator]
	switch {
	case l.Keyed != "" && isLDH(strings.ToLower(string(key))) && key != Permitted:
		return strings.Replace(l.Keyed, "{key}", strings.ToLower(string(key)), 1), true
	case l.Access == Free, l.Access == Permit && key != "":
		return l.Zone, l.Zone != ""
	}
	return "", false
}

// PublicZone returns the zone as people know it, with {key} where a key goes.
func (l *List) PublicZone() string {
	if l.Zone != "" {
		return l.Zone
	}
	return l.Keyed
}

// unit returns what l is to be asked about to learn about s: s itself, or the
// network around it that l lists as one.
func (l *List) unit(s Subject) Subject {
	if s.Kind() == IP4 && s.prefix.Bits() > l.Ask4 {
		return network(s.prefix.Addr(), l.Ask4)
	}
	return s
}

//go:embed catalogue.yml
var shippedData []byte

// Shipped returns the catalogue that comes with the program. It is part of
// it: that it parses is tested, so a failure is a broken build and panics.
func Shipped() *Catalogue { return shipped() }

var shipped = sync.OnceValue(func() *Catalogue {
	c, err := ParseCatalogue(shippedData)
	if err != nil {
		panic(err)
	}
	return c
})

// Merge returns c with the lists of own in the place of any that have the
// same name, and the rest of own added; the version is that of c. What own
// changes is otherwise, and what it disables, by zone or by name, is left out.
// A list of own on a zone that either calls dead is an error, and so is a change
// to a list that there is not; a zone that is redundant is only warned about.
func (c *Catalogue) Merge(own *Catalogue) (merged *Catalogue, warnings []string, err error) {
	merged = &Catalogue{Version: c.Version}
	merged.Lists = append(slices.DeleteFunc(slices.Clone(c.Lists), own.has), own.Lists...)
	merged.Dead = slices.Concat(c.Dead, own.Dead)
	merged.Disabled = slices.Concat(c.Disabled, own.Disabled)
	errs := merged.change(own.Changes)
	for i := range own.Lists {
		dead, ok := merged.dead(&own.Lists[i])
		switch text := fmt.Sprintf("list %s: %s %s", own.Lists[i].Name, own.Lists[i].PublicZone(), dead.Why); {
		case !ok:
		case dead.Redundant:
			warnings = append(warnings, text+": an entry counts twice")
		default:
			errs = append(errs, fmt.Errorf("dnsbl: %s: it must not be asked", text))
		}
	}
	for _, name := range own.Disabled {
		if !slices.ContainsFunc(merged.Lists, func(l List) bool { return l.isCalled(name) }) {
			warnings = append(warnings, fmt.Sprintf("disabled: no list is called %q", name))
		}
	}
	merged.Lists = slices.DeleteFunc(merged.Lists, merged.disables)
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return merged, warnings, nil
}

// change applies changes to the lists of c, which nobody else may have. It
// returns a [*Mistake] for each list that there is not.
func (c *Catalogue) change(changes []Change) (errs []error) {
	for i := range changes {
		to := &changes[i]
		at := slices.IndexFunc(c.Lists, func(l List) bool { return l.Name == to.List })
		if at < 0 {
			errs = append(errs, fmt.Errorf("dnsbl: catalogue: %w", &Mistake{to.line, to.List, "there is none of that name to change, and a new one needs zone, kinds, tier and codes"}))
			continue
		}
		c.Lists[at] = to.apply(c.Lists[at])
	}
	return errs
}

// has reports whether c has a list of the same name.
func (c *Catalogue) has(l List) bool {
	return slices.ContainsFunc(c.Lists, func(own List) bool { return own.Name == l.Name })
}

// disables reports whether c says that l is not to be asked.
func (c *Catalogue) disables(l List) bool { return slices.ContainsFunc(c.Disabled, l.isCalled) }

// isCalled reports whether name is the list's name or one of its zones.
func (l *List) isCalled(name string) bool {
	name = strings.ToLower(name)
	return name != "" && (name == l.Name || name == l.Zone || name == l.Keyed)
}

// dead returns what c knows about a zone of l that must not be asked.
func (c *Catalogue) dead(l *List) (DeadZone, bool) {
	for _, d := range c.Dead {
		if d.matches(l.Zone) || d.matches(l.Keyed) {
			return d, true
		}
	}
	return DeadZone{}, false
}

// matches reports whether the zone is d, or below it if d says so.
func (d *DeadZone) matches(zone string) bool {
	apex, below := strings.CutPrefix(d.Zone, "*.")
	return zone == apex || below && strings.HasSuffix(zone, "."+apex)
}

// closed says why l is not open to us.
func (l *List) closed() string {
	if l.Access == NeedsKey {
		return "not tested: it needs a key"
	}
	return "not tested: it needs a key, or a resolver that it permits"
}
