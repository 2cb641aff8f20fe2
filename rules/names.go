package rules

import (
	"slices"
	"strings"
)

// The rules: the values of [Finding.Rule]. The set is closed, so that a
// misspelt name in a rule file is a mistake and not a rule that never speaks.
const (
	HijackedMailbox = "hijacked-mailbox" // an account sends as its owner would not
	AbusedScript    = "abused-script"    // a web script does
	QueueGrowth     = "queue-growth"     // the queue grows, by one account or without a culprit
	ThrottleBacklog = "throttle-backlog" // held mail of a throttled account has waited for too long
	LostCoverage    = "lost-coverage"    // log lines were lost before they were read
	Blind           = "blind"            // a probe could not tell for too long
	ListingRisk     = "listing-risk"     // an account endangers the addresses that it sends from
	Listed          = "listed"           // an address or domain of ours is on a block list
	ListHealth      = "list-health"      // a block list cannot be believed
	Neighbours      = "neighbours"       // addresses around ours are on block lists
)

// The families of evidence: the values of [Evidence.Kind].
const (
	Novelty  = "novelty"  // recipients never written to before
	Domains  = "domains"  // recipient domains never written to before
	Rate     = "rate"     // faster than the account's own past
	Fanout   = "fanout"   // more different recipients than in its own past
	Series   = "series"   // one message after another, each to other people
	Oneway   = "oneway"   // much more mail written, in proportion to what it gets, than it usually writes
	Hours    = "hours"    // at hours at which it does not send
	Failures = "failures" // recipients that do not exist
	Returned = "returned" // bounces that other servers send back
	Fleet    = "fleet"    // recipients and texts of accounts that were just found hijacked
	Replies  = "replies"  // what the recipients' servers answer
	Logins   = "logins"   // networks and places that log in
	Sender   = "sender"   // sender addresses that do not belong to the login
	Likeness = "likeness" // messages that are all alike
	Script   = "script"   // where a script lies and what drives it
	Queue    = "queue"    // what waits in the queue
	Coverage = "coverage" // what could not be read
	Listing  = "listing"  // what a block list says, or how near a listing is
	Traps    = "traps"    // mail to spam traps

	Complaints = "complaints" // complaints of its recipients

	Calibration = "calibration" // how far the score is moved on this installation
)

// ruleTable names every rule and the strongest action that a rule file may
// map it to: what is not about one account can only be told, and what has no
// password cannot have it changed.
var ruleTable = [...]struct {
	name string
	most Action
}{
	{HijackedMailbox, Reset},
	{AbusedScript, Block},
	{QueueGrowth, Block},
	{ThrottleBacklog, Observe},
	{LostCoverage, Observe},
	{Blind, Observe},
	{ListingRisk, Hold},
	{Listed, Observe},
	{ListHealth, Observe},
	{Neighbours, Observe},
}

var familyNames = [...]string{
	Novelty, Domains, Rate, Fanout, Series, Oneway, Hours, Failures, Returned, Fleet, Replies, Logins, Sender, Likeness, Script, Queue, Coverage, Listing, Traps, Complaints, Calibration,
}

// classNames are the values of [Finding.Class] that a condition may ask for.
var classNames = [...]string{"", "login", "script", "forward", "user", "uid", "client"}

// Names returns the known rules.
func Names() []string {
	names := make([]string, len(ruleTable))
	for i, r := range ruleTable {
		names[i] = r.name
	}
	return names
}

// Families returns the known families of evidence.
func Families() []string { return slices.Clone(familyNames[:]) }

// strongest returns the strongest action that a file may map the rule to,
// Nothing if there is no such rule.
func strongest(rule string) Action {
	for _, r := range ruleTable {
		if r.name == rule {
			return r.most
		}
	}
	return Nothing
}

// oneOf lists names for a message.
func oneOf(names []string) string { return strings.Join(names, ", ") }
