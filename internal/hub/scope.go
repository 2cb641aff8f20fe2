package hub

import (
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
)

// A Scope is what an agent may speak of: the mailboxes of its domains, and
// what has no domain on its own machine.
//
// The scripts, users and trusted clients of a machine are known to the hub
// under the agent's name, as two machines may each have a user www:
//
//	script:/home/u/x.php   of the agent mx1 is   script:mx1!/home/u/x.php
type Scope struct {
	Agent   string
	Domains []string // lower case; "*" is all of them
}

// local reports whether the accounts of a kind are of one machine.
func local(kind string) bool {
	switch kind {
	case mailq.KindScript, mailq.KindUser, mailq.KindUID, mailq.KindClient:
		return true
	}
	return false
}

// Global is the account's name at the hub, of one that the agent told of. It
// returns false for what the agent may not speak of. The empty account, which
// nobody answers for, stays that.
func (s Scope) Global(a mailq.Account) (mailq.Account, bool) {
	kind := a.Kind()
	switch {
	case a == "":
		return "", true
	case local(kind):
		return mailq.Account(kind + ":" + s.Agent + "!" + string(a[len(kind)+1:])), true
	}
	return a, s.ofDomain(a)
}

// Local is the account's name at the agent. It returns false for what is none
// of its business.
func (s Scope) Local(a mailq.Account) (mailq.Account, bool) {
	kind := a.Kind()
	if !local(kind) {
		return a, s.ofDomain(a)
	}
	agent, bare := Bare(a)
	return bare, agent == s.Agent
}

// Bare is the account's name at the agent that told of it, and that agent; none
// where the hub's own logs did.
func Bare(a mailq.Account) (agent string, bare mailq.Account) {
	kind := a.Kind()
	if !local(kind) {
		return "", a
	}
	agent, rest, ok := strings.Cut(string(a[len(kind)+1:]), "!")
	if !ok || !ValidName(agent) {
		return "", a
	}
	return agent, mailq.Account(kind + ":" + rest)
}

// ValidName reports whether an agent may be called so: as hosts are, in lower
// case.
func ValidName(name string) bool {
	ok := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' }
	return name != "" && len(name) <= 64 && strings.Trim(name, "-.") == name && !strings.ContainsFunc(name, func(c rune) bool { return !ok(c) })
}

// ofDomain reports whether a mailbox, or one that forwards, is in a domain of
// the agent's. A login without a domain is nobody's but of an agent that may
// speak of all.
func (s Scope) ofDomain(a mailq.Account) bool {
	at := strings.LastIndexByte(string(a), '@')
	domain := ""
	if at >= 0 {
		domain = string(a[at+1:])
	}
	for _, d := range s.Domains {
		if d == "*" || domain != "" && d == domain {
			return true
		}
	}
	return false
}
