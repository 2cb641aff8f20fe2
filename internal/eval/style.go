package eval

import "time"

// A style is how an injected hijacker sends. Its recipients are all strangers
// unless it says otherwise, and nothing but recipients, pace and outcomes gives
// it away: it comes from where the owner comes from, under his address, with texts
// of any size.
type style struct {
	name     string
	victim   victim
	gap      time.Duration // between messages
	rcpts    int           // of a message
	known    float64       // share of the recipients that somebody else here has written to
	dead     float64       // share of the recipients that do not exist
	probes   int           // messages before a silence …
	silence  time.Duration // … of this
	cover    int           // own contacts beside the strangers: of each message, or, where these have one recipient, to each
	contacts bool          // to the victim's own contacts only; a throttle counts as a stop
	from     origin        // where it comes from
	senders  bool          // each message under another address, nobody's here
	alike    bool          // one text for all
}

// A victim is whose account is hijacked.
type victim uint8

const (
	anyone  victim = iota // by how much each has sent so far
	dormant               // somebody who has not sent for a month
	nobody                // a web script that never sent before
	letters               // a newsletter of the made-up honest traffic
	form                  // a contact form of it
	victims
)

// An origin is where a hijacker comes from.
type origin uint8

const (
	home   origin = iota // where the owner last came from
	abroad               // one network in another country
	botnet               // each message from another of 1,000 networks in 40 countries
)

// fewContacts is below what a victim's contacts are no blast, and coverContacts are who
// is written to for cover.
const (
	fewContacts   = 50
	coverContacts = 12
)

// leastContacts is how many contacts a victim must have.
func (s *style) leastContacts() int {
	switch {
	case s.contacts:
		return fewContacts
	case s.cover > 0:
		return coverContacts
	}
	return 0
}

// turn is after how many recipients cover and strangers begin anew.
func (s *style) turn() int {
	if s.rcpts == 1 {
		return s.cover + 1
	}
	return s.rcpts
}

// covers reports whether the kth recipient is an own contact for cover.
func (s *style) covers(k int) bool { return k%s.turn() < s.cover }

// covered is the share of recipients that are.
func (s *style) covered() float64 { return float64(s.cover) / float64(s.turn()) }

// messagesOf is how many messages of the style are shown at most: enough for a
// limit of 200 to speak.
func (s style) messagesOf() int { return max(mostShown/s.rcpts, 20) }

const mostShown = 260

// paces is how many of the styles, the first ones, differ from each other by their
// pace alone.
const paces = 5

var styles = []style{
	{name: "one a second", gap: time.Second, rcpts: 1},
	{name: "one in 10 seconds", gap: 10 * time.Second, rcpts: 1},
	{name: "one a minute", gap: time.Minute, rcpts: 1},
	{name: "one in 5 minutes", gap: 5 * time.Minute, rcpts: 1},
	{name: "one in 10 minutes", gap: 10 * time.Minute, rcpts: 1},
	{name: "slow: one in 20 minutes", gap: 20 * time.Minute, rcpts: 1},
	{name: "slow: one in 2 hours", gap: 2 * time.Hour, rcpts: 1},
	{name: "5 recipients each 10 seconds", gap: 10 * time.Second, rcpts: 5},
	{name: "5 recipients each 5 minutes", gap: 5 * time.Minute, rcpts: 5},
	{name: "50 recipients each 10 seconds", gap: 10 * time.Second, rcpts: 50},
	{name: "50 recipients each 5 minutes", gap: 5 * time.Minute, rcpts: 50},
	{name: "3 in 10 known to others here", gap: 10 * time.Second, rcpts: 1, known: .3},
	{name: "2 own contacts to each stranger", gap: 10 * time.Second, rcpts: 1, cover: 2},
	{name: "5 strangers with 10 own contacts", gap: time.Minute, rcpts: 15, cover: 10},
	{name: "2 in 10 addresses are dead", gap: 10 * time.Second, rcpts: 1, dead: .2},
	{name: "2 probes, 8 hours' silence, burst", gap: time.Second, rcpts: 1, probes: 2, silence: 8 * time.Hour},
	{name: "from one network abroad", gap: 10 * time.Second, rcpts: 1, from: abroad},
	{name: "botnet, one a minute", gap: time.Minute, rcpts: 1, from: botnet},
	{name: "botnet, one in 10 minutes", gap: 10 * time.Minute, rcpts: 1, from: botnet},
	{name: "under changing addresses", gap: 10 * time.Second, rcpts: 1, senders: true},
	{name: "one text for all", gap: 10 * time.Second, rcpts: 1, alike: true},
	{name: "of a dormant mailbox", victim: dormant, gap: 10 * time.Second, rcpts: 1},
	{name: "by a new web script", victim: nobody, gap: time.Second, rcpts: 1},
	{name: "to own contacts, one a second", gap: time.Second, rcpts: 1, contacts: true},
	{name: "to own contacts, one in 10 seconds", gap: 10 * time.Second, rcpts: 1, contacts: true},
	{name: "to own contacts, one a minute", gap: time.Minute, rcpts: 1, contacts: true},
	{name: "to own contacts, one in 10 minutes", gap: 10 * time.Minute, rcpts: 1, contacts: true},
	{name: "to own contacts, 5 each 10 seconds", gap: 10 * time.Second, rcpts: 5, contacts: true},
	{name: "to own contacts, 20 each minute", gap: time.Minute, rcpts: 20, contacts: true},
	{name: "newsletter taken over, from abroad", victim: letters, gap: 2 * time.Second, rcpts: 1, from: abroad, senders: true},
	{name: "contact form abused", victim: form, gap: time.Second, rcpts: 1},
}
