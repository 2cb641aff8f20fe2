// Package dnsbl watches DNS block lists (RFC 5782): is one of our addresses
// or domains listed, or can nobody tell?
//
// A [Catalogue] says which lists there are, what their codes mean and on
// which terms they may be asked. A [Checker] asks once. A [Watch] says what
// to ask when, for months on end, and turns the answers into [Event]s.
//
// Every question has three answers, and the zero [Verdict] is [Unknown]. That
// an A record came back means nothing by itself: it may be the list refusing
// to talk to us, a resolver that answers for names that do not exist, or a
// parked zone. So a list is believed only while its health test passes, only
// the codes that it documents count, and what could not be told never changes
// what is known.
//
// The package asks DNS through a [Resolver], starts no goroutine that outlives
// a call, and takes the time from its caller.
package dnsbl

import (
	"context"
	"net/netip"
	"time"
)

// A Type is the type of a DNS record, with the number that it has in DNS.
type Type uint16

// The types that are asked for.
const (
	TypeA   Type = 1
	TypeNS  Type = 2
	TypeSOA Type = 6
	TypeTXT Type = 16
)

// A Status says how a question to the DNS ended. The zero Status is Other: no
// usable answer.
type Status uint8

// How a question ends.
const (
	Other       Status = iota // none of those below, such as NOTIMP
	Found                     // there are records
	NoData                    // NOERROR without a record of the type
	NXDomain                  // there is no such name
	ServFail                  // SERVFAIL
	Refused                   // REFUSED, by the server or the resolver
	Timeout                   // no answer in time
	Unreachable               // no server could be reached, or it is lame
	Malformed                 // an answer that is not one
	Closed                    // the zone's own servers are where they are not asked
)

var statusTexts = [...]string{"other", "found", "no data", "no such name", "server failure", "refused", "timeout", "unreachable", "malformed", "not asked on this host or in a private network"}

// String returns the status in words.
func (s Status) String() string {
	if int(s) < len(statusTexts) {
		return statusTexts[s]
	}
	return statusTexts[Other]
}

// usable reports whether the DNS answered the question, be it with nothing.
func (s Status) usable() bool { return s == Found || s == NoData || s == NXDomain }

// An Answer is what the DNS said to one question.
type Answer struct {
	Status Status
	Addrs  []netip.Addr  // A
	Texts  []string      // TXT, each with its strings joined, as the bytes that were sent
	Names  []string      // NS: the servers; SOA: the primary; else the targets of the CNAMEs that were followed
	TTL    time.Duration // of the records, or how long their absence may be remembered
	Serial uint32        // SOA; 0 if it was not asked
	Server string        // who answered
}

// A Resolver asks the DNS. It answers within a time of its own, and says
// [Timeout] when ctx ends.
type Resolver interface {
	// Lookup asks the recursive resolver, which may answer from its cache; nothing
	// else remembers.
	Lookup(ctx context.Context, name string, t Type) Answer
	// Confirm asks an authoritative server of zone, past every cache.
	Confirm(ctx context.Context, zone, name string, t Type) Answer
}

// A Verdict is one of three answers. The zero Verdict is Unknown, so that a
// question that was never asked reads neither as clean nor as listed.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota // nobody can tell
	Clean                  // not on the list, or on it as good or neutral
	Listed                 // on the list, with a code that it documents
)

var verdictTexts = [...]string{"unknown", "clean", "listed"}

// String returns "unknown", "clean" or "listed".
func (v Verdict) String() string {
	if int(v) < len(verdictTexts) {
		return verdictTexts[v]
	}
	return verdictTexts[Unknown]
}

// MarshalText writes what String returns.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }
