// Package mailq reads mail servers: their logs become [Event]s, their queues
// become samples.
//
// A [Tail] follows a log file through rotation and restarts. A [Parser] turns
// each line into at most one Event; it understands Postfix, Exim and Dovecot,
// joins the lines of one message by its queue id, and names the [Account]
// that is answerable for it. Everything in a log may have been written by a
// stranger: fields are taken by position and never by searching for a name.
//
// Time is always the server's. The package never asks the clock what an event
// means, so reading an old log gives what reading it live gave.
package mailq

import (
	"net/netip"
	"time"
)

// A Kind says what happened. The zero Kind is Unknown.
type Kind uint8

// The kinds of events.
const (
	Unknown        Kind = iota
	Submitted           // a message of the account was accepted into the queue; once a message
	Addressed           // further recipients of a message already submitted became known
	Delivered           // the message was accepted by one recipient's server
	Deferred            // an attempt for one recipient failed for now
	Bounced             // one recipient failed for good, or expired
	Refused             // the server refused the account's message or recipient
	Held                // the message was put on hold, or frozen
	Released            // the message was taken off hold
	Removed             // the message left the queue
	LoginSucceeded      // a login that was let in (IMAP, POP3, submission)
	LoginFailed         // a login with a wrong secret or an unknown name
	Lost                // log lines were lost before they reached us: Rcpts says how many, 0 if unknown
)

// An Event is one thing that happened to one message or login, as the mail
// server logged it, with the server's time.
type Event struct {
	Time    time.Time
	Kind    Kind
	Host    string  // the server that logged it, as it calls itself
	Account Account // empty for inbound mail, which nobody here answers for

	// Message tells messages apart: a hash of host, instance, queue id and
	// arrival. It is 0 where the event is not about a message.
	Message uint64
	QueueID string

	Sender  string     // envelope sender, domain in lower case; empty for <>
	Client  netip.Addr // peer that submitted the message or logged in; zero if local
	Size    int        // bytes, 0 if unknown
	Subject string     // where the log has it (Exim); at most 256 bytes, control characters removed
	Script  string     // directory or file that sent it, where the log has it

	// Rcpts is the number of recipients the server counted for the message.
	Rcpts int

	// Counts is true for the one event at which a message counts for Account:
	// its Submitted; its Held, if it is held on arrival; or, where only its
	// leaving shows who answers for it (a forwarding mailbox, a trusted
	// client), the first outcome that does.
	Counts bool

	// New holds the recipients of the message that no earlier event named.
	// A recipient appears in New once a message, whatever its fate.
	New []Recipient

	// To is the recipient that an outcome (Delivered, Deferred, Bounced,
	// Refused) is about.
	To    Recipient
	Reply Reply

	// From is the address of ours that an outcome's connection came from, where
	// the log has it: Exim's does with incoming_interface, Postfix's never. It
	// is what this server calls its own, so a private one behind NAT.
	From netip.Addr

	// Into is the mailbox of this server that a Delivered message was put into;
	// empty where it went elsewhere.
	Into Account

	// Writer is the Sender of a message that was put Into a mailbox, as the
	// Recipient of an answer; zero where nobody can be answered.
	Writer Recipient

	// Method is how a login proved itself (PLAIN, XOAUTH2, …) and Service
	// where (smtp, imap, pop3).
	Method  string
	Service string
}

// A Recipient is an address without the address: a keyed hash of the whole
// in lower case, and its domain. Two servers with the same key agree on it.
type Recipient struct {
	Hash   uint64 // SipHash-2-4 of "local@domain" in lower case
	Next   uint64 // the same under the key that replaces the present one; 0 where none does
	Domain string // lower case
}

// Newest is the hash under the newest key.
func (r Recipient) Newest() uint64 {
	if r.Next != 0 {
		return r.Next
	}
	return r.Hash
}

// A Reply is what a remote server, or ours, answered about a recipient.
type Reply struct {
	Class    Class
	Provider string // by the host name of the server that was asked: "google", "microsoft", …; "local" for our own mailboxes; "" where that does not tell
	Code     int    // 250, 421, 550, …; 0 if there was none
	Enhanced string // RFC 3463 code: "5.1.1"; empty if there was none
	Text     string // at most 256 bytes of the reply, control characters removed; empty if it accepted
}

// A Class says what a reply means. The zero Class is Unclassified: it is
// evidence of nothing.
type Class uint8

// The classes of replies.
const (
	Unclassified      Class = iota
	OK                      // accepted
	RecipientUnknown        // no such mailbox or domain (5.1.x)
	MailboxFull             // 5.2.2, 4.2.2
	MailboxInactive         // disabled or suspended at the other end (5.2.1)
	Greylisted              // come back later, said about a first contact
	Quota                   // too much at once for the receiver: rate or connection limits without blame
	Content                 // the message itself was called spam, phishing or a virus
	AddressReputation       // our address or network is listed or throttled for its reputation
	DomainReputation        // the sender's domain is listed or throttled
	Authentication          // SPF, DKIM, DMARC or reverse DNS failed
	Policy                  // refused by a rule that is none of the above (size, relay, access)
	Network                 // no connection, time-out, DNS failure
	LocalPolicy             // our own server refused or limited it
)

// An Envelope is what an inline hook (policy service, milter) was told about
// a message that the log will also describe. [Parser.Note] joins the two, so
// that the message counts once.
type Envelope struct {
	Time       time.Time
	Host       string // as the log will name it, or empty for any
	QueueID    string
	Login      string
	Client     netip.Addr
	Sender     string
	Recipients []string // addresses, not yet hashed
	Subject    string
}
