package incident

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vedetta-watch/vedetta/rules"
)

// A Telling is a change in words, for a message to people. Text that came from
// outside (accounts, evidence, errors) is in it as it came: whoever shows it
// escapes it for where it is shown.
type Telling struct {
	Severity string   // "critical", "warning" or "info"
	Title    string   // one line
	What     string   // what happened, sentences
	Done     string   // what was done about it, or would have been, and until when
	Commands []string // to undo it or to look closer, ready for a shell; a comment after "#"
	Facts    []Fact
}

// A Fact is a named value.
type Fact struct{ Name, Value string }

const stamp = "2006-01-02 15:04:05 MST"

// looks says what each rule's subject is like; other rules are named.
var looks = map[string]string{
	"hijacked-mailbox": "looks hijacked",
	"abused-script":    "looks abused",
	"queue-growth":     "makes the mail queue grow",
	"lost-coverage":    "can no longer be watched",
	"listing-risk":     "endangers our addresses",
	"listed":           "is on a block list",
	"list-health":      "needs a look",
	"neighbours":       "has listed neighbours",
}

// Tell puts the change in words.
func (c Change) Tell() Telling {
	in := c.Incident
	return Telling{
		Severity: c.severity(),
		Title:    c.title(),
		What:     c.what(),
		Done:     c.done(),
		Commands: in.commands(c.Kind),
		Facts:    in.facts(c.Decision),
	}
}

func (c Change) severity() string {
	in, d := c.Incident, c.Decision
	switch {
	case c.Kind == Released || c.Kind == Undone || c.Kind == Over || c.Kind == Unwatched:
		return "info"
	case c.Kind == Failed, d.Enforce && d.Action >= rules.Hold:
		return "critical"
	case in.Finding.Rule == rules.ListHealth, in.Finding.Rule == rules.Neighbours:
		return "info" // others' trouble is not ours
	case in.Finding.Lasting:
		return lastingSeverity(in.Finding)
	}
	return "warning"
}

// IsCritical reports whether a finding is about what lasts and is at its worst.
func IsCritical(f rules.Finding) bool {
	return f.Lasting && f.Rule != rules.ListHealth && lastingSeverity(f) == "critical"
}

// lastingSeverity goes by how much of the mail is at stake: the score is the
// logarithm of it, 1.61 where four fifths are, and 0.51 where two fifths are.
func lastingSeverity(f rules.Finding) string {
	switch {
	case f.Score >= 1.609:
		return "critical"
	case f.Score >= 0.51:
		return "warning"
	}
	return "info"
}

func (c Change) title() string {
	in := c.Incident
	who, d := in.Subject(), c.Decision
	switch c.Kind {
	case Released:
		return who + " released by " + in.by()
	case Undone:
		return who + " unblocked by " + in.by()
	case Over:
		if in.Finding.Lasting {
			return fmt.Sprintf("over: %s %s", who, in.looks())
		}
		return fmt.Sprintf("%s is quiet, %s ended", who, d.Action)
	case Unwatched:
		return fmt.Sprintf("no longer watched: %s %s", who, in.looks())
	case Failed:
		return fmt.Sprintf("%s %s, %s FAILED", who, in.looks(), d.Action)
	case Caught:
		return fmt.Sprintf("%s: %s works now", who, d.Action)
	}
	title := fmt.Sprintf("%s %s", who, c.state())
	switch {
	case d.Action == rules.Observe:
		return title
	case !d.Enforce:
		return fmt.Sprintf("%s (not acting, would %s)", title, d.Action)
	}
	return fmt.Sprintf("%s: %s", title, past[d.Action])
}

// past is what became of an account's mail, for a title.
var past = [...]string{
	rules.Nothing: "nothing done", rules.Observe: "nothing done", rules.Throttle: "slowed down",
	rules.Hold: "mail held", rules.Block: "blocked", rules.Reset: "blocked, password reset",
}

func (i Incident) looks() string {
	if words, ok := looks[i.Finding.Rule]; ok {
		return words
	}
	return "raised " + i.Finding.Rule
}

// state is what is told of the subject: what it looks like, with the block
// lists by name.
func (c Change) state() string {
	f, words := c.Incident.Finding, c.Incident.looks()
	switch {
	case c.Kind == Again:
		words += " again"
	case f.Rule == rules.Listed && len(f.Parts) > 0:
		words = c.lists()
	}
	if c.Kind == Stronger && IsCritical(f) {
		words += " (now critical)"
	}
	return words
}

// lists names the block lists that are new, or all where none is or all are.
func (c Change) lists() string {
	all := c.Incident.Finding.Parts
	switch further := len(c.New) < len(all); {
	case further && len(c.New) == 1:
		return "is on one more block list: " + c.New[0]
	case further && len(c.New) > 1:
		return fmt.Sprintf("is on %d more block lists: %s", len(c.New), some(c.New))
	case len(all) == 1:
		return "is on a block list: " + all[0]
	}
	return fmt.Sprintf("is on %d block lists: %s", len(all), some(all))
}

// someMost is how many names a title has.
const someMost = 4

// some is the first of the names, and how many there are besides.
func some(names []string) string {
	if more := len(names) - someMost; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:someMost], ", "), more)
	}
	return strings.Join(names, ", ")
}

func (i Incident) by() string {
	if i.By == "" {
		return "an operator"
	}
	return i.By
}

func (c Change) what() string {
	in := c.Incident
	f := in.Finding
	switch c.Kind {
	case Released:
		return fmt.Sprintf("%s has cleared %s. What it did so far is not held against it any more.", in.by(), in.Subject())
	case Undone:
		return fmt.Sprintf("%s has lifted the action against %s. Its next suspicious message opens the incident again.", in.by(), in.Subject())
	case Over:
		if f.Lasting {
			return fmt.Sprintf("%s %s no more: it lasted from %s to %s.", in.Subject(), in.looks(), f.Since.UTC().Format(stamp), in.Resolved.UTC().Format(stamp))
		}
		return fmt.Sprintf("%s has given no further finding since %s.", in.Subject(), f.Time.UTC().Format(stamp))
	case Unwatched:
		return fmt.Sprintf("Nobody looks any more, but at the last look: %s %s.", in.Subject(), in.looks())
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", in.Subject(), c.state())
	if f.Messages > 0 || f.Rcpts > 0 {
		fmt.Fprintf(&s, ": since %s it has sent %s to %s", f.Since.UTC().Format(stamp),
			count(f.Messages, "message"), count(f.Rcpts, "recipient"))
	}
	s.WriteString(".")
	if standing := len(f.Parts); standing > len(c.New) && len(c.New) > 0 {
		fmt.Fprintf(&s, " Now it is on %d: %s.", standing, some(f.Parts))
	}
	if f.Hard != "" {
		fmt.Fprintf(&s, " The hard rule %s fired.", f.Hard)
	}
	if f.Shared {
		s.WriteString(" This is a shared identity, which is never blocked as a whole.")
	}
	if f.Backlog {
		s.WriteString(" This was read from old log lines; it may be over.")
	}
	return s.String()
}

func (c Change) done() string {
	in, d := c.Incident, c.Decision
	switch c.Kind {
	case Released, Undone:
		return "Its mail is no longer held up by this incident."
	case Over:
		if in.Finding.Lasting {
			return "Nothing is left to do about it."
		}
		return fmt.Sprintf("The %s ended at %s; the account may send again.", d.Action, ends(d))
	case Unwatched:
		return "Nothing is known about it from here on: look for yourself."
	case Failed:
		return fmt.Sprintf("Decided: %s. It COULD NOT be carried out: %s. %s", d.Action, in.failure(d.Action), in.stands())
	}
	switch {
	case d.Action == rules.Observe && d.HeldBack != "":
		return fmt.Sprintf("Nothing was done: %s. %s", d.HeldBack, in.stands())
	case in.Finding.Rule == rules.Listed:
		return "Find and stop what caused it before you ask for removal: lists are harder on who comes back."
	case d.Action == rules.Observe:
		return "Nothing was done: the rules ask only to tell. " + in.stands()
	case !d.Enforce:
		return fmt.Sprintf("Nothing was done: %s. Otherwise %s%s. %s", heldBack(d), would[d.Action], until(d), in.stands())
	}
	words := did[d.Action] + until(d) + "."
	if d.HeldBack != "" { // a weaker action in the place of the one that was due
		words += " No more was done: " + d.HeldBack + "."
	}
	return words
}

// stands says what is in force while the decision that is told is not.
func (i Incident) stands() string {
	if i.acted() {
		return fmt.Sprintf("What was done before stands: %s%s.", i.Decision.Action, until(i.Decision))
	}
	if i.Finding.Class == "" {
		return "Please look into it."
	}
	return "It may still be sending."
}

func heldBack(d rules.Decision) string {
	if d.HeldBack == "" {
		return "the decision is held back"
	}
	return d.HeldBack
}

var did = [...]string{
	rules.Nothing: "Nothing", rules.Observe: "Nothing",
	rules.Throttle: "Its mail is let out slowly: accepted, held in the queue and sent at the account's allowance",
	rules.Hold:     "Its mail is accepted and held in the queue until a person releases or deletes it",
	rules.Block:    "Its mail is refused",
	rules.Reset:    "Its mail is refused, its sessions are ended and its password is changed",
}

var would = [...]string{
	rules.Nothing: "nothing would have been done", rules.Observe: "nothing would have been done",
	rules.Throttle: "its mail would have been let out slowly",
	rules.Hold:     "its mail would have been held in the queue",
	rules.Block:    "its mail would have been refused",
	rules.Reset:    "its mail would have been refused and its password changed",
}

func until(d rules.Decision) string { return ", until " + ends(d) }

func ends(d rules.Decision) string {
	if d.Until.IsZero() {
		return "a person ends it"
	}
	return d.Until.UTC().Format(stamp)
}

// commands are what an operator may want to do next. Only an account (its
// finding has a class) can be acted on.
func (i Incident) commands(kind Kind) []string {
	who := quote(i.Subject())
	switch {
	case i.Finding.Rule == rules.Listed:
		history := "vedetta dnsbl history " + who + "  # what changed, and when"
		if kind == Over || kind == Unwatched {
			return []string{history}
		}
		return []string{history, "vedetta dnsbl removal " + who + "  # how to ask for removal, or why not yet"}
	case i.Finding.Class == "":
		return nil
	}
	why := "vedetta why " + who + "  # all the evidence"
	release := "vedetta release " + who + "  # it was no hijack: end this and learn from it"
	switch {
	case kind == Released, kind == Undone, kind == Over, kind == Unwatched:
		return []string{why}
	case i.acted():
		release = "vedetta release " + who + "  # it was no hijack: let it send, and learn from it"
		return []string{release, "vedetta unblock " + who + "  # its password is changed: let it send again", why}
	case i.Finding.Shared:
		return []string{release, why}
	}
	return []string{release, "vedetta block " + who + "  # refuse its mail now", why}
}

func (i Incident) facts(d rules.Decision) []Fact {
	f := i.Finding
	about := "account"
	if f.Class == "" {
		about = "about"
	}
	list := []Fact{
		{about, f.Subject},
		{"since", f.Since.UTC().Format(stamp)},
		{"noticed", f.Time.UTC().Format(stamp)},
	}
	if !f.Lasting { // nothing was sent to make it last
		list = append(list, Fact{"messages", strconv.Itoa(f.Messages)}, Fact{"recipients", strconv.Itoa(f.Rcpts)},
			Fact{"score", strconv.FormatFloat(f.Score, 'f', 1, 64)})
	}
	list = append(list, Fact{"rule", f.Rule}, Fact{"action", i.action(d)})
	if d.Action > rules.Observe {
		list = append(list, Fact{"ends", ends(d)})
	}
	if d.Why != "" {
		list = append(list, Fact{"why", d.Why})
	}
	return append(list, Fact{"finding", f.ID}, Fact{"incident", i.ID})
}

func (i Incident) action(d rules.Decision) string {
	switch {
	case i.failure(d.Action) != "":
		return d.Action.String() + ", failed"
	case !d.Enforce && d.Action > rules.Observe:
		return d.Action.String() + ", not carried out"
	}
	return d.Action.String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// quote makes one word of s for a shell: an account's name is a stranger's
// choice, and a command in a message is there to be pasted.
func quote(s string) string {
	plain := func(r rune) bool {
		return r < utf8.RuneSelf && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@._:/+=-", r))
	}
	if s != "" && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	q := "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	if strings.HasPrefix(s, "-") {
		return "-- " + q
	}
	return q
}

// clip cuts s to at most n bytes, at a rune.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
