package eval

import (
	"net/netip"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/mailq"
)

// A Message is one message of real or made-up traffic, or one login.
type Message struct {
	Time    int64      // seconds
	Kind    mailq.Kind // Submitted, LoginSucceeded or LoginFailed; Delivered: into the account's mailbox
	Account mailq.Account
	Client  netip.Addr // zero if it is not known
	From    string     // envelope sender
	Subject string
	Script  string
	Size    int // bytes; 0 if it is not known
	To      []Recipient
	Writer  mailq.Recipient // of what was delivered, who is answered
}

// written is how many of the messages were not delivered here but sent, and logins.
func written(all []Message) (n int) {
	for i := range all {
		if all[i].Kind != mailq.Delivered {
			n++
		}
	}
	return n
}

// A Recipient of a message, and what became of it.
type Recipient struct {
	Hash   uint64
	Domain string
	Fate   mailq.Kind // Delivered, Bounced or Deferred; else nothing is known
	Class  mailq.Class
}

// events shows the message as a mail server's log would tell it: its arrival, and
// a second later what became of each recipient. id is the message's own.
func (m *Message) events(id uint64, show func(*mailq.Event)) {
	at := time.Unix(m.Time, 0)
	ev := mailq.Event{Time: at, Kind: m.Kind, Host: host, Account: m.Account, Client: m.Client}
	if m.Kind == mailq.Delivered {
		ev.Account, ev.Into, ev.Sender, ev.Writer = "", m.Account, m.From, m.Writer
		show(&ev)
		return
	}
	if m.Kind != mailq.Submitted {
		ev.Service = "imap"
		show(&ev)
		return
	}
	ev.Counts, ev.Message, ev.Sender, ev.Size, ev.Subject, ev.Script, ev.Rcpts = true, id, m.From, m.Size, m.Subject, m.Script, len(m.To)
	show(&ev)
	for i := range m.To {
		r := &m.To[i]
		to := mailq.Recipient{Hash: r.Hash, Domain: r.Domain}
		ev := mailq.Event{Time: at.Add(time.Second), Kind: mailq.Delivered, Host: host, Account: m.Account, Message: id,
			New: []mailq.Recipient{to}, To: to, Reply: mailq.Reply{Class: mailq.OK, Code: 250, Enhanced: "2.0.0"}}
		if r.Fate != mailq.Unknown && r.Fate != mailq.Delivered {
			ev.Kind, ev.Reply = r.Fate, mailq.Reply{Class: r.Class, Code: 550, Enhanced: "5.0.0"}
		}
		show(&ev)
	}
}

const host = "eval"

// mix spreads numbers that lie close together over all 64 bits.
func mix(n uint64) uint64 {
	n = (n + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// Made-up clients live in these networks, so that [Locate] can say where they are.
const (
	homeNets   = 10  // 10.x.y.z: where the owners of mailboxes live
	travelNets = 100 // 100.country.y.z: where some go
	botNets    = 203 // 203.country.y.z: where hijackers come from
)

// netAt makes an address.
func netAt(kind, b, c byte) netip.Addr { return netip.AddrFrom4([4]byte{kind, b, c, 7}) }

// Locate is a database of countries for made-up clients. It knows nothing of any
// other.
func Locate(a netip.Addr) detector.Place {
	if !a.Is4() {
		return detector.Place{}
	}
	switch b := a.As4(); b[0] {
	case homeNets:
		return detector.Place{Country: "HO", ASN: 1, Latitude: 47, Longitude: 9, Located: true}
	case travelNets, botNets:
		lat, lon := float64(b[1]%12)*10-50, float64(b[1]%30)*12-180
		return detector.Place{Country: string([]byte{'A' + b[1]/26%26, 'A' + b[1]%26}), ASN: 1000*uint32(b[0]) + uint32(b[1]), Latitude: lat, Longitude: lon, Located: true}
	}
	return detector.Place{}
}
