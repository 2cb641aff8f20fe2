package dnsbl

import (
	"time"
)

// An EventKind says what happened. The zero EventKind is no event.
type EventKind uint8

// The kinds of events. Those from ListState on are about a list and not about
// a subject.
const (
	_           EventKind = iota
	Suspected             // a first answer says listed; not confirmed yet
	Dismissed             // the second answer did not confirm it
	Opened                // listed, confirmed by an authoritative server or, where none answers, by the resolver
	Recoded               // still listed, with other codes
	Clearing              // a first answer says clean
	Relapsed              // the second answer says listed again
	Flapped               // listed and cleared more than three times in 24 hours; from here on one incident
	Cleared               // clean, confirmed
	Welcomed              // known as a good sender
	WelcomeLost           // no longer known as a good sender
	CodeUnknown           // codes that the list does not document: somebody has to look
	ListState             // the health of a list changed
	MassListing           // one list lists many unrelated subjects at once
	Redelegated           // the zone of a list is served by others than before
	RemovalDue            // a list has been in quarantine for so long that it should go
	eventKinds            // number of the above
)

var eventTexts = [eventKinds]string{
	"", "suspected", "dismissed", "listed", "recoded", "clearing", "relapsed", "flapping", "cleared",
	"welcomed", "welcome-lost", "unknown-code", "list-state", "mass-listing", "redelegated", "removal-due",
}

// String returns the kind as it is stored: "listed", "cleared", …
func (k EventKind) String() string {
	if k < eventKinds {
		return eventTexts[k]
	}
	return ""
}

// MarshalText writes what String returns.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *EventKind) UnmarshalText(text []byte) error {
	return fromText(k, eventTexts[:], "kind of event", text)
}

// An Event is one change: of a subject on a list, or of a list. Kept in their
// order they are the history; given back to [Watch.Restore], they let a watch
// go on where one ended.
type Event struct {
	Time    time.Time `json:"time"`
	Kind    EventKind `json:"kind"`
	List    string    `json:"list"`              // its name
	Subject Subject   `json:"subject,omitzero"`  // zero for those about a list
	Quiet   bool      `json:"quiet,omitempty"`   // history only: part of what was told
	Since   time.Time `json:"since,omitzero"`    // of a listing: when it was first seen; of a list: since when it was in quarantine
	Codes   []string  `json:"codes,omitempty"`   // as answered
	Meaning string    `json:"meaning,omitempty"` // of the codes
	Scope   Scope     `json:"scope,omitempty"`   // of a listing
	Weight  int       `json:"weight,omitempty"`  // of a listing, 0 to 100
	Policy  bool      `json:"policy,omitempty"`  // the listing is about how the address is set up, not about abuse
	Reason  string    `json:"reason,omitempty"`  // what the list says in TXT; see [CleanText]
	Delist  string    `json:"delist,omitempty"`  // where it is removed
	Server  string    `json:"server,omitempty"`  // who confirmed it
	Mass    bool      `json:"mass,omitempty"`    // part of a MassListing: no ground to act on until another list agrees
	Count   int       `json:"count,omitempty"`   // Flapped: times it was listed in 24 hours; MassListing: how many neighbourhoods; CodeUnknown: how many subjects so far
	State   State     `json:"state,omitempty"`   // ListState: the new one
	Text    string    `json:"text,omitempty"`    // about a list: what is wrong with it, for the operator
}
