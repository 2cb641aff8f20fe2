package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a rule file, in bytes.
const maxFile = 1 << 20

// maxTerm is the longest that an action may last by itself.
const maxTerm = 366 * 24 * time.Hour

// untilReleased is how a rule file says that only a person ends an action.
const untilReleased = "until-released"

// A Mistake is one thing that is wrong with a rule file.
type Mistake struct {
	File string
	Line int
	Text string
}

// Error is FILE:LINE: and what is wrong there.
func (m *Mistake) Error() string { return fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.Text) }

// Load reads every *.yml and *.yaml at the top of fsys as a rule file. It
// returns all mistakes of all files joined, each a [*Mistake] unless a file
// could not be read; the set is nil if there are any. A directory without
// rule files is an empty set.
func Load(fsys fs.FS) (*Set, error) { return load(fsys, "") }

// LoadDir is [Load] of a directory, whose files are named with their path.
func LoadDir(dir string) (*Set, error) { return load(os.DirFS(dir), dir) }

// load is Load for files that are called by their path below prefix.
func load(fsys fs.FS, prefix string) (*Set, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		var at *fs.PathError // its path is "."
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf("rules: %s: %w", prefix, err)
	}
	l := &loader{set: &Set{rules: map[string]*rule{}}}
	for _, e := range entries {
		if ext := path.Ext(e.Name()); !e.IsDir() && (ext == ".yml" || ext == ".yaml") {
			l.file(fsys, e.Name(), path.Join(prefix, e.Name()))
		}
	}
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return l.set, nil
}

// What a rule file looks like. docs/rules.md describes it.
type (
	yamlFile struct {
		Rules []yamlRule `yaml:"rules"`
		Cases []yamlCase `yaml:"cases"`
	}
	yamlRule struct {
		Name   string     `yaml:"name"`
		About  string     `yaml:"about"`
		Exempt []string   `yaml:"exempt"`
		Ladder []yamlRung `yaml:"ladder"`
	}
	yamlRung struct {
		Do   string `yaml:"do"`
		When string `yaml:"when"`
		For  string `yaml:"for"`
	}
	yamlCase struct {
		Name    string      `yaml:"name"`
		Finding yamlFinding `yaml:"finding"`
		Mode    string      `yaml:"mode"`
		Exempt  []string    `yaml:"exempt"`
		Want    yamlWant    `yaml:"want"`
	}
	yamlFinding struct {
		Rule       string             `yaml:"rule"`
		Subject    string             `yaml:"subject"`
		Score      float64            `yaml:"score"`
		Families   int                `yaml:"families"`
		Hard       string             `yaml:"hard"`
		Class      string             `yaml:"class"`
		Shared     bool               `yaml:"shared"`
		Messages   int                `yaml:"messages"`
		Recipients int                `yaml:"recipients"`
		Age        string             `yaml:"age"`
		Backlog    bool               `yaml:"backlog"`
		Evidence   map[string]float64 `yaml:"evidence"`
	}
	yamlWant struct {
		Do       string `yaml:"do"`
		Enforce  bool   `yaml:"enforce"`
		For      string `yaml:"for"`
		HeldBack string `yaml:"held_back"`
	}
)

// yamlTypes says what the decoder's type names mean to a person.
var yamlTypes = strings.NewReplacer(
	"[]rules.yamlRule", "a list of rules", "[]rules.yamlRung", "a list of rungs", "[]rules.yamlCase", "a list of cases",
	"rules.yamlFile", "a rule file", "rules.yamlRule", "a rule", "rules.yamlRung", "a rung", "rules.yamlCase", "a case",
	"rules.yamlFinding", "a finding", "rules.yamlWant", "what a case wants",
	"map[string]float64", "a score for each family", "[]string", "a list of texts",
	"string", "text", "float64", "a number", "int", "a whole number", "bool", "true or false",
)

// A loader reads rule files one after the other and gathers their mistakes.
type loader struct {
	set  *Set
	errs []error

	// Of the file being read: its name, its syntax tree, its mistakes.
	name string
	root *yaml.Node
	here []*Mistake
}

// mistake notes what is wrong in a line of the file being read.
func (l *loader) mistake(line int, format string, args ...any) {
	l.here = append(l.here, &Mistake{l.name, max(line, 1), fmt.Sprintf(format, args...)})
}

// file reads the file of that name, which people know as called.
func (l *loader) file(fsys fs.FS, name, called string) {
	l.name, l.root, l.here = called, &yaml.Node{}, nil
	data, err := readBounded(fsys, name)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("rules: %s: %w", called, err))
		return
	}
	if content, ok := l.decode(data); ok {
		for i, r := range content.Rules {
			l.rule(r, "rules", i)
		}
		for i, c := range content.Cases {
			l.testCase(c, "cases", i)
		}
	}
	slices.SortStableFunc(l.here, func(a, b *Mistake) int { return a.Line - b.Line })
	for _, m := range l.here {
		l.errs = append(l.errs, m)
	}
}

func readBounded(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	return data, err
}

// decode reads the file twice: as a tree, which knows the lines, and into our
// types, which knows the fields. It returns false if there is nothing to look
// at any further.
func (l *loader) decode(data []byte) (content yamlFile, ok bool) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) {
			l.yamlMistakes(err)
		}
		return content, false
	}
	if len(doc.Content) > 0 {
		l.root = doc.Content[0]
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		l.mistake(second.Line, "a rule file holds one document: put the rest into a file of its own")
	}
	strict := yaml.NewDecoder(bytes.NewReader(data))
	strict.KnownFields(true)
	if err := strict.Decode(&content); err != nil {
		l.yamlMistakes(err)
	}
	return content, true
}

// yamlMistakes notes an error of the YAML decoder, or each of several.
func (l *loader) yamlMistakes(err error) {
	var several *yaml.TypeError
	texts := []string{err.Error()}
	if errors.As(err, &several) {
		texts = several.Errors
	}
	for _, text := range texts {
		line, text := cutLine(strings.TrimPrefix(text, "yaml: "))
		l.mistake(line, "%s", inOurWords(text))
	}
}

// inOurWords says what the YAML decoder found without the names of Go types.
func inOurWords(text string) string {
	if field, kind, ok := strings.Cut(text, " not found in type "); ok {
		return fmt.Sprintf("%s has no field %q", yamlTypes.Replace(kind), strings.TrimPrefix(field, "field "))
	}
	if i := strings.LastIndex(text, " into "); i >= 0 {
		return text[:i] + " into " + yamlTypes.Replace(text[i+len(" into "):])
	}
	return text
}

// cutLine cuts the "line N: " off that the YAML decoder puts before a message.
func cutLine(text string) (int, string) {
	number, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": ")
	line, err := strconv.Atoi(number)
	if !ok || err != nil {
		return 1, text
	}
	if countsFromZero(rest) {
		line++
	}
	return line, rest
}

// countsFromZero reports whether the YAML decoder numbers the line of this
// message from 0. It does so in what its parser finds, and only there.
func countsFromZero(text string) bool {
	for _, s := range [...]string{"key", "',' or", "'-' indicator", "node content", "<document start>"} {
		if strings.HasPrefix(text, "did not find expected "+s) {
			return true
		}
	}
	return strings.HasPrefix(text, "found undefined tag handle") || strings.HasPrefix(text, "found duplicate %")
}

// node returns the part of the file that path leads to, or the closest one
// around it if the file does not have it.
func (l *loader) node(path ...any) *yaml.Node {
	n := l.root
	for _, step := range path {
		next := child(resolve(n), step)
		if next == nil {
			break
		}
		n = next
	}
	return n
}

func (l *loader) line(path ...any) int { return l.node(path...).Line }

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func child(n *yaml.Node, step any) *yaml.Node {
	switch step := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return n.Content[step]
		}
	case string:
		if n.Kind != yaml.MappingNode {
			return nil
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1]
			}
		}
	}
	return nil
}

// in returns the path of a field within path.
func in(path []any, field ...any) []any { return append(slices.Clone(path), field...) }

func (l *loader) rule(y yamlRule, path ...any) {
	r := &rule{name: y.Name, at: place{l.name, l.line(path...)}, exempt: y.Exempt}
	most := l.ruleName(y.Name, in(path, "name"))
	if other, ok := l.set.rules[y.Name]; ok {
		l.mistake(l.line(in(path, "name")...), "rule %q is already given at %s", y.Name, other.at)
	}
	l.exemptions(y.Exempt, in(path, "exempt"))
	if len(y.Ladder) == 0 {
		l.mistake(r.at.line, "rule %q has no ladder", y.Name)
	}
	for i, step := range y.Ladder {
		l.rung(r, most, step, in(path, "ladder", i))
	}
	l.resetNeedsBlock(r, in(path, "ladder"))
	l.set.rules[y.Name] = r
}

// ruleName checks the name of a rule and returns the strongest action that it
// may be mapped to.
func (l *loader) ruleName(name string, path []any) Action {
	most := strongest(name)
	switch {
	case name == "":
		l.mistake(l.line(path...), "name of the rule is missing; known rules: %s", oneOf(Names()))
	case most == Nothing:
		l.mistake(l.line(path...), "unknown rule %q; known rules: %s", name, oneOf(Names()))
	}
	return most
}

func (l *loader) rung(r *rule, most Action, y yamlRung, path []any) {
	step := rung{do: l.action(y.Do, in(path, "do")), at: place{l.name, l.line(path...)}}
	if step.do == Nothing {
		return
	}
	if step.do > most && most != Nothing {
		l.mistake(l.line(in(path, "do")...), "rule %q can be answered with %s at most, not with %s", r.name, most, step.do)
	}
	if n := len(r.ladder); n > 0 && r.ladder[n-1].do >= step.do {
		l.mistake(step.at.line, "%s after %s: a ladder rises, with each action once", step.do, r.ladder[n-1].do)
	}
	step.when = l.condition(y.When, in(path, "when"))
	step.term = l.term(step.do, y.For, in(path, "for"))
	r.ladder = append(r.ladder, step)
}

// action reads the name of a rung's action; Nothing after a mistake.
func (l *loader) action(name string, path []any) Action {
	var a Action
	if err := a.UnmarshalText([]byte(name)); err != nil || a == Nothing {
		l.mistake(l.line(path...), "%q is no action: want observe, throttle, hold, block or reset", name)
		return Nothing
	}
	return a
}

func (l *loader) condition(text string, path []any) *condition {
	c, mistakes := compile(text)
	node := l.node(path...)
	for _, m := range mistakes {
		line := node.Line
		if node.Style&yaml.LiteralStyle != 0 {
			line += 1 + m.line // the text begins below its "|"
		}
		l.mistake(line, "%s", m.text)
	}
	return c
}

// term reads how long an action lasts.
func (l *loader) term(do Action, text string, path []any) time.Duration {
	lasts := do == Throttle || do == Hold || do == Block
	switch {
	case !lasts && text != "":
		l.mistake(l.line(path...), "%s does not last: it has no for", do)
		return 0
	case !lasts || text == untilReleased:
		return 0
	case text == "":
		l.mistake(l.line(path...), "%s has no for: say how long it lasts, as in for: 24h, or for: %s", do, untilReleased)
		return 0
	}
	term, err := duration(text)
	if err != nil || term <= 0 || term > maxTerm {
		l.mistake(l.line(path...), "for: %q is no time that an action can last: want something like 90m, 24h or 7d, or %s", text, untilReleased)
	}
	return term
}

// duration reads a time like 90m, 24h or 7d.
func duration(text string) (time.Duration, error) {
	days, isDays := strings.CutSuffix(text, "d")
	if !isDays {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	return time.Duration(n) * 24 * time.Hour, err
}

// resetNeedsBlock refuses a ladder that changes a password without blocking.
func (l *loader) resetNeedsBlock(r *rule, path []any) {
	var block, reset bool
	for _, step := range r.ladder {
		block = block || step.do == Block
		reset = reset || step.do == Reset
	}
	if reset && !block {
		l.mistake(l.line(path...), "rule %q has a reset but no block: a password is only changed behind a block", r.name)
	}
}

func (l *loader) exemptions(list []string, path []any) {
	for i, entry := range list {
		if err := CheckExempt(entry); err != nil {
			l.mistake(l.line(in(path, i)...), "%s", err)
		}
	}
}

// CheckExempt says what is wrong with an entry of an exempt list. An entry is
// an account ("alice@shop.test", "script:/home/u/x.php"), a domain
// ("@shop.test"), or the beginning of accounts ("script:/home/shop/*").
func CheckExempt(entry string) error {
	star := strings.IndexByte(entry, '*')
	switch {
	case entry == "" || entry == "@":
		return fmt.Errorf("exempt entry %q is empty", entry)
	case strings.IndexFunc(entry, unicode.IsControl) >= 0 || strings.TrimSpace(entry) != entry:
		return fmt.Errorf("exempt entry %q has control characters, or blanks at its ends", entry)
	case entry == "*":
		return errors.New(`exempt entry "*" would exempt everybody: use mode observe`)
	case star >= 0 && star < len(entry)-1:
		return fmt.Errorf("exempt entry %q: a * can only stand at the end", entry)
	case star >= 0 && strings.HasPrefix(entry, "@"):
		return fmt.Errorf("exempt entry %q: a domain is written in full", entry)
	}
	return nil
}
