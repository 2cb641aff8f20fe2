package dnsbl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The bounds of a catalogue.
const (
	maxCatalogue = 1 << 20 // bytes
	maxLists     = 1000
	maxCodes     = 512 // of a list
	maxPoints    = 16  // test points of a list
)

// What a list is asked at most if the catalogue does not say. The rate is
// what public mirrors bear; a day's share is a courtesy of ours.
const (
	defaultPerSecond = 2
	defaultPerDay    = 100_000
)

// A Mistake is one thing that is wrong with a catalogue.
type Mistake struct {
	Line int    // counting from 1
	List string // name of the list, empty if it is about none
	Text string
}

// Error names the line and the list.
func (m *Mistake) Error() string {
	if m.List == "" {
		return fmt.Sprintf("line %d: %s", m.Line, m.Text)
	}
	return fmt.Sprintf("line %d: list %s: %s", m.Line, m.List, m.Text)
}

// What a catalogue looks like.
type (
	yamlCatalogue struct {
		Version  int        `yaml:"version"`
		Lists    []yamlList `yaml:"lists"`
		Dead     []yamlDead `yaml:"dead"`
		Disabled []string   `yaml:"disabled"`
	}
	yamlList struct {
		Name       string     `yaml:"name"`
		Title      string     `yaml:"title"`
		Operator   string     `yaml:"operator"` // default: the name
		Zone       string     `yaml:"zone"`
		Keyed      string     `yaml:"keyed"`
		Access     string     `yaml:"access"` // free (default), permit, key
		Kinds      []string   `yaml:"kinds"`
		Tier       string     `yaml:"tier"`
		Weight     *int       `yaml:"weight"` // default: 0
		Bits       bool       `yaml:"bits"`
		Codes      []yamlCode `yaml:"codes"`
		Ask4       int        `yaml:"ask4"`        // default: 32
		TestListed *[]string  `yaml:"test_listed"` // default: those of RFC 5782
		TestClean  *[]string  `yaml:"test_clean"`  // default: those of RFC 5782
		TestCodes  []string   `yaml:"test_codes"`
		PerSecond  float64    `yaml:"per_second"` // default: 2
		PerDay     int        `yaml:"per_day"`    // default: 100,000
		Every      string     `yaml:"every"`      // default: that of the tier
		Delist     string     `yaml:"delist"`
		Terms      string     `yaml:"terms"`
		Notes      string     `yaml:"notes"`
	}
	yamlCode struct {
		Code     string `yaml:"code"`
		Bit      int    `yaml:"bit"`
		Class    string `yaml:"class"` // default: listed
		Name     string `yaml:"name"`
		Meaning  string `yaml:"meaning"`
		Scope    string `yaml:"scope"`  // default: that of the kind
		Weight   *int   `yaml:"weight"` // default: that of the list
		Policy   bool   `yaml:"policy"`
		Vicinity bool   `yaml:"vicinity"`
		Client   int    `yaml:"client"` // default: a listing says nothing about the client of a login
	}
	yamlDead struct {
		Zone      string `yaml:"zone"`
		Since     string `yaml:"since"`
		Redundant bool   `yaml:"redundant"`
		Why       string `yaml:"why"`
	}
)

// ParseCatalogue reads a catalogue in YAML. Unknown fields are mistakes. It
// returns all mistakes joined, each a [*Mistake].
func ParseCatalogue(data []byte) (*Catalogue, error) {
	p := &catalogueParser{}
	file := p.decode(data)
	c := p.catalogue(&file)
	if len(p.mistakes) == 0 {
		return c, nil
	}
	slices.SortStableFunc(p.mistakes, func(a, b *Mistake) int { return a.Line - b.Line })
	errs := make([]error, len(p.mistakes))
	for i, m := range p.mistakes {
		errs[i] = m
	}
	return nil, fmt.Errorf("dnsbl: catalogue: %w", errors.Join(errs...))
}

// A catalogueParser gathers the mistakes of one catalogue.
type catalogueParser struct {
	lines    []int // where each list begins
	line     int   // of the list being read
	list     string
	mistakes []*Mistake
}

func (p *catalogueParser) mistake(format string, args ...any) {
	p.mistakes = append(p.mistakes, &Mistake{max(p.line, 1), p.list, fmt.Sprintf(format, args...)})
}

// check notes err, if it is one.
func (p *catalogueParser) check(err error) {
	if err != nil {
		p.mistake("%s", strings.TrimPrefix(err.Error(), "dnsbl: "))
	}
}

// decode reads data twice: as a tree, which knows the lines, and into our
// types, which knows the fields.
func (p *catalogueParser) decode(data []byte) (file yamlCatalogue) {
	if len(data) > maxCatalogue {
		p.mistake("larger than %d bytes", maxCatalogue)
		return file
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		p.yamlMistakes(err)
		return file
	}
	p.lines = listLines(&doc)
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		p.mistake("a catalogue is one document")
	}
	strict := yaml.NewDecoder(bytes.NewReader(data))
	strict.KnownFields(true)
	if err := strict.Decode(&file); err != nil {
		p.yamlMistakes(err)
	}
	return file
}

// yamlTypes says what the decoder's type names mean to a person.
var yamlTypes = strings.NewReplacer(
	"[]dnsbl.yamlList", "lists", "[]dnsbl.yamlCode", "codes", "[]dnsbl.yamlDead", "dead zones",
	"dnsbl.yamlCatalogue", "a catalogue", "dnsbl.yamlList", "a list", "dnsbl.yamlCode", "a code", "dnsbl.yamlDead", "a dead zone",
	"[]string", "several texts", "float64", "a number", "bool", "true or false",
)

// yamlMistakes notes an error of the YAML decoder, or each of several.
func (p *catalogueParser) yamlMistakes(err error) {
	var several *yaml.TypeError
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if errors.As(err, &several) {
		texts = several.Errors
	}
	for _, text := range texts {
		m := &Mistake{Line: 1, Text: text}
		if number, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				m.Line, m.Text = n, rest
			}
			if strings.HasPrefix(rest, "did not find expected") {
				m.Line++ // the decoder's parser counts lines from zero
			}
		}
		if errors.Is(err, io.EOF) {
			m.Text = "empty"
		}
		m.Text = yamlTypes.Replace(m.Text)
		p.mistakes = append(p.mistakes, m)
	}
}

// listLines returns the lines at which the lists of the document begin.
func listLines(doc *yaml.Node) (lines []int) {
	if len(doc.Content) == 0 {
		return nil
	}
	fields := doc.Content[0].Content
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i].Value == "lists" {
			for _, list := range fields[i+1].Content {
				lines = append(lines, list.Line)
			}
		}
	}
	return lines
}

func (p *catalogueParser) catalogue(file *yamlCatalogue) *Catalogue {
	c := &Catalogue{Version: file.Version, Disabled: file.Disabled}
	if file.Version < 0 {
		p.mistake("version %d is negative", file.Version)
	}
	if len(file.Lists) > maxLists {
		p.mistake("%d lists are too many: want at most %d", len(file.Lists), maxLists)
		return nil
	}
	for _, d := range file.Dead {
		zone := strings.ToLower(d.Zone)
		if _, err := normalDomain(strings.TrimPrefix(zone, "*.")); err != nil {
			p.mistake("dead: %q is no zone", d.Zone)
		}
		c.Dead = append(c.Dead, DeadZone{zone, d.Since, d.Redundant, d.Why})
	}
	names := map[string]bool{}
	for i := range file.Lists {
		if i < len(p.lines) {
			p.line = p.lines[i]
		}
		p.list = file.Lists[i].Name
		if names[p.list] {
			p.mistake("the name is given twice")
		}
		names[p.list] = true
		if y := &file.Lists[i]; y.changes() {
			c.Changes = append(c.Changes, p.change(y))
		} else {
			c.Lists = append(c.Lists, p.one(y))
		}
	}
	return c
}

// changes reports whether y names a list that is described elsewhere, and only
// what is to be otherwise about it.
func (y *yamlList) changes() bool {
	only := yamlList{Name: y.Name, Tier: y.Tier, Weight: y.Weight, PerSecond: y.PerSecond, PerDay: y.PerDay}
	return reflect.DeepEqual(*y, only) && !reflect.DeepEqual(*y, yamlList{Name: y.Name})
}

// change reads what is to be otherwise about a list.
func (p *catalogueParser) change(y *yamlList) Change {
	c := Change{List: y.Name, Weight: y.Weight, PerSecond: y.PerSecond, PerDay: y.PerDay, line: p.line}
	if y.Tier != "" {
		c.Tier = new(Tier)
		p.check(fromText(c.Tier, tierTexts, "tier", []byte(y.Tier)))
	}
	if y.Weight != nil {
		p.weight("", *y.Weight)
	}
	p.budget(y, &List{PerSecond: y.PerSecond, PerDay: y.PerDay})
	return c
}

// one reads a list.
func (p *catalogueParser) one(y *yamlList) (l List) {
	l = List{
		Name: y.Name, Title: y.Title, Operator: y.Operator, Bits: y.Bits,
		Ask4: y.Ask4, PerSecond: y.PerSecond, PerDay: y.PerDay, Delist: y.Delist, Terms: y.Terms, Notes: y.Notes,
	}
	if y.Weight != nil {
		l.Weight = *y.Weight
	}
	if !isLDH(l.Name) {
		p.mistake("name %q: want lower-case letters, digits and hyphens", y.Name)
	}
	if l.Title == "" {
		l.Title = l.Name
	}
	if l.Operator == "" {
		l.Operator = l.Name
	}
	if l.Delist != "" && !isLink(l.Delist) {
		p.mistake("delist: %q is no web address", l.Delist)
	}
	p.kinds(y, &l)
	p.zones(y, &l)
	p.budget(y, &l)
	p.codes(y, &l)
	p.points(y, &l)
	return l
}

// kinds reads which questions the list answers, and how much it counts.
func (p *catalogueParser) kinds(y *yamlList, l *List) {
	for _, name := range y.Kinds {
		i := slices.IndexFunc(kindTexts, func(k kindText) bool { return k.text == name })
		if i < 0 {
			p.mistake("%q is no kind: want ip4, ip6, domain or hash", name)
			continue
		}
		l.Kinds |= kindTexts[i].kind
	}
	switch {
	case l.Kinds == 0:
		p.mistake("kinds is missing")
	case l.Kinds != Domain && l.Kinds != Hash && l.Kinds&(Domain|Hash) != 0:
		p.mistake("kinds: a list of domains or hashes lists nothing else")
	}
	if y.Tier == "" {
		p.mistake("tier is missing: want %s", strings.Join(tierTexts, ", "))
	} else {
		p.check(fromText(&l.Tier, tierTexts, "tier", []byte(y.Tier)))
	}
	p.weight("", l.Weight)
	if l.Ask4 == 0 {
		l.Ask4 = 32
	}
	if l.Ask4 < 8 || l.Ask4 > 32 {
		p.mistake("ask4: %d is not between 8 and 32 bits", l.Ask4)
	}
}

func (p *catalogueParser) weight(what string, w int) {
	if w < 0 || w > 100 {
		p.mistake("%sweight: %d is not between 0 and 100", what, w)
	}
}

// zones reads where the list is asked.
func (p *catalogueParser) zones(y *yamlList, l *List) {
	l.Zone, l.Keyed = strings.ToLower(y.Zone), strings.ToLower(y.Keyed)
	if y.Access != "" {
		p.check(fromText(&l.Access, accessTexts, "access", []byte(y.Access)))
	}
	if l.Zone != "" && !isZone(l.Zone) {
		p.mistake("zone: %q is no zone", y.Zone)
	}
	if l.Keyed != "" && (strings.Count(l.Keyed, "{key}") != 1 || !isZone(strings.Replace(l.Keyed, "{key}", "key", 1))) {
		p.mistake("keyed: %q is no zone with one {key}", y.Keyed)
	}
	switch {
	case l.Access == NeedsKey && l.Keyed == "":
		p.mistake("access is key, but keyed is missing")
	case l.Access != NeedsKey && l.Zone == "":
		p.mistake("zone is missing")
	}
}

// isZone reports whether s is a domain. Unlike those that are asked about, it
// may have labels that begin with an underscore.
func isZone(s string) bool {
	name, err := normalDomain(strings.ReplaceAll(s, "_", "x"))
	return err == nil && strings.Contains(name, ".") && len(name) == len(s)
}

// budget reads how much and how often the list is asked.
func (p *catalogueParser) budget(y *yamlList, l *List) {
	if l.PerSecond == 0 {
		l.PerSecond = defaultPerSecond
	}
	if !(l.PerSecond > 0 && l.PerSecond <= 1e6) {
		p.mistake("per_second: %v is not above 0 and at most a million", y.PerSecond)
	}
	if l.PerDay == 0 {
		l.PerDay = defaultPerDay
	}
	if l.PerDay < minPerDay || l.PerDay > 1e10 {
		p.mistake("per_day: %d is not between %d and 10 billion", y.PerDay, minPerDay)
	}
	l.Every = l.Tier.base()
	if y.Every == "" {
		return
	}
	every, err := time.ParseDuration(y.Every)
	if err != nil || every < time.Minute || every > maxEvery {
		p.mistake("every: %q is no time between 1m and 24h", y.Every)
		return
	}
	l.Every = every
}

func (p *catalogueParser) codes(y *yamlList, l *List) {
	if len(y.Codes) == 0 {
		p.mistake("codes is missing: an answer without a code is no listing")
	}
	if len(y.Codes) > maxCodes {
		p.mistake("%d codes are too many: want at most %d", len(y.Codes), maxCodes)
		return
	}
	for i := range y.Codes {
		l.Codes = append(l.Codes, p.code(&y.Codes[i], l))
	}
	for _, text := range y.TestCodes {
		r, err := parseRange(text)
		p.check(err)
		l.TestCodes = append(l.TestCodes, r)
	}
}

// code reads one code of l.
func (p *catalogueParser) code(y *yamlCode, l *List) Code {
	c := Code{Name: CleanText([]string{y.Name}), Meaning: CleanText([]string{y.Meaning}), Weight: l.Weight, Policy: y.Policy, Vicinity: y.Vicinity, Client: y.Client}
	if c.Meaning == "" {
		p.mistake("code %s: meaning is missing", y.Code)
	}
	switch {
	case l.Bits && (y.Code != "" || y.Bit < 1 || y.Bit > 128 || y.Bit&(y.Bit-1) != 0):
		p.mistake("bit: %d: want one of 1, 2, 4, … 128, and no code", y.Bit)
	case !l.Bits && y.Bit != 0:
		p.mistake("bit: the list has no bits")
	case !l.Bits:
		r, err := parseRange(y.Code)
		p.check(err)
		if err == nil && r[0] != [2]uint8{127, 127} {
			p.mistake("code %s: want one below 127", y.Code)
		}
		c.Range = r
	}
	c.Bit = uint8(y.Bit)
	if y.Class != "" {
		p.check(fromText(&c.Class, classTexts, "class", []byte(y.Class)))
	}
	if l.Bits && c.Bit == 1 && c.Class != Refusal {
		p.mistake("bit: 1 is always class refused")
	}
	c.Scope = ScopeIP
	if only, ok := map[Kind]Scope{Domain: ScopeDomain, Hash: ScopeMailbox}[l.Kinds]; ok {
		c.Scope = only
	}
	if y.Scope != "" {
		p.check(fromText(&c.Scope, scopeTexts, "scope", []byte(y.Scope)))
	}
	if c.Client < 0 || c.Client > 100 || c.Client > 0 && (c.Policy || c.Class != Entry) {
		p.mistake("code %s: client: %d is not between 0 and 100, or the code says nothing bad", y.Code, c.Client)
	}
	if y.Weight != nil {
		c.Weight = *y.Weight
		p.weight("code "+y.Code+": ", c.Weight)
	}
	return c
}

// points reads the test points. Those of RFC 5782, section 5, are assumed.
func (p *catalogueParser) points(y *yamlList, l *List) {
	listed, clean := standardPoints(l.Kinds)
	l.TestListed = p.pointsOr(y.TestListed, listed)
	l.TestClean = p.pointsOr(y.TestClean, clean)
	if l.Kinds == Domain { // a domain list may have addresses for testing
		for i := range l.TestListed {
			l.TestListed[i].Kind = Domain
		}
	}
	for _, k := range kindTexts {
		if l.Kinds&k.kind != 0 && !slices.ContainsFunc(l.TestListed, func(t TestPoint) bool { return t.Kind == k.kind }) {
			p.mistake("test_listed has no %s: a list that cannot be tested is not used", k.text)
		}
	}
}

func (p *catalogueParser) pointsOr(texts *[]string, standard []TestPoint) []TestPoint {
	if texts == nil {
		return standard
	}
	if len(*texts) > maxPoints {
		p.mistake("%d test points are too many: want at most %d", len(*texts), maxPoints)
		return nil
	}
	var points []TestPoint
	for _, text := range *texts {
		point, err := parsePoint(text)
		p.check(err)
		points = append(points, point)
	}
	return points
}

// parsePoint reads a test point. An IPv4 address mapped into IPv6 is an IPv6
// address here, and a domain may have a single label.
func parsePoint(text string) (TestPoint, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		kind := IP6
		if addr.Is4() {
			kind = IP4
		}
		return TestPoint{kind, reversed(addr)}, nil
	}
	s, err := ParseSubject(text)
	if !strings.Contains(text, ".") {
		s.text, err = normalDomain(text)
	}
	if err != nil {
		return TestPoint{}, err
	}
	label, err := s.label()
	return TestPoint{s.Kind(), label}, err
}

// standardPoints are the test points of RFC 5782, section 5. There are none
// for hashes.
func standardPoints(kinds Kind) (listed, clean []TestPoint) {
	if kinds&IP4 != 0 {
		listed, clean = append(listed, TestPoint{IP4, "2.0.0.127"}), append(clean, TestPoint{IP4, "1.0.0.127"})
	}
	if kinds&IP6 != 0 {
		listed = append(listed, TestPoint{IP6, reversed(netip.MustParseAddr("::ffff:7f00:2"))})
		clean = append(clean, TestPoint{IP6, reversed(netip.MustParseAddr("::ffff:7f00:1"))})
	}
	if kinds&Domain != 0 {
		listed, clean = append(listed, TestPoint{Domain, "test"}), append(clean, TestPoint{Domain, "invalid"})
	}
	return listed, clean
}
