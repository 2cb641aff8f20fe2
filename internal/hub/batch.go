// Package hub carries what agents see to the hub, and the blocks back.
//
// An agent reads its mail server's log by itself and sends [Batch]es over
// HTTPS. The hub answers only when they are on its disk ([Journal]); a batch
// has its agent's epoch and a number without a gap, so that one that is sent
// again changes nothing. What is in force ([Board]) reaches each agent over a
// response that stays open, in full at first and then change by change.
//
// Who an agent is, its certificate says and nothing else. A batch comes from a
// machine that may have been taken over: everything in it is bounded here, and
// the hub believes of it only what is about the agent's own domains and
// machine ([Scope]).
package hub

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A Batch is what an agent saw in a fraction of a second.
type Batch struct {
	Mark
	Lost     uint64 // events before these that did not fit the agent's disk
	Events   []mailq.Event
	Findings []rules.Finding // of the agent itself: what it cannot see
	Samples  []mailq.QueueSample
}

// A Mark says how far an agent has come in one of its two lanes: what is new, and
// what waited while the hub was away, so that the one does not wait behind the
// other. In each, marks of one epoch follow each other without a gap, from 1. A
// later epoch is a greater number: it begins when the agent has lost its disk, and
// with each stretch of its spool that goes in the other lane.
type Mark struct {
	Epoch uint64 `cbor:"1,keyasint" json:"epoch"`
	Seq   uint64 `cbor:"2,keyasint" json:"seq"`
	Late  bool   `cbor:"4,keyasint,omitempty" json:"late,omitempty"` // of the second lane; 3 is Sealed's
}

// known reports whether a batch with this mark is one that an agent which has come
// as far as at in its lane has sent already.
func (m Mark) known(at Mark) bool { return m.Seq > 0 && m.Epoch == at.Epoch && m.Seq <= at.Seq }

// Marks are how far an agent has come in both lanes.
type Marks struct {
	Mark       // of what is new
	Old  *Mark `json:"old,omitempty"` // of what waited; nil: the hub is of a release that has one lane only
}

// Of is the mark of a lane.
func (m Marks) Of(late bool) Mark {
	if late && m.Old != nil {
		return *m.Old
	}
	return m.Mark
}

// A Sealed is a batch as it is sent and kept.
type Sealed struct {
	Mark
	Body []byte `cbor:"3,keyasint"`
}

// Bounds of what an agent may send.
const (
	MaxEvents  = 20_000   // of a batch
	maxSealed  = 2 << 20  // bytes of a batch, compressed
	maxBody    = 16 << 20 // and unpacked
	maxRequest = 8 << 20  // bytes of a request
	MaxBatches = 64       // of a request

	// Of what waited it is little, as what is new waits for it, and what others have
	// waiting.
	MaxLate      = 16        // batches of a request
	MaxLateBytes = 128 << 10 // of them together, where there are several

	maxUnpacked = 2 * maxBody // bytes of all of a request's batches, unpacked
)

// ErrMalformed marks what no agent of ours would send.
var ErrMalformed = errors.New("malformed batch")

// wireBatch is a batch on the wire. Fields are known by number: an unknown one
// is skipped, so that versions may differ.
type wireBatch struct {
	Lost     uint64              `cbor:"1,keyasint,omitempty"`
	Events   []wireEvent         `cbor:"2,keyasint,omitempty"`
	Findings []rules.Finding     `cbor:"3,keyasint,omitempty"`
	Samples  []mailq.QueueSample `cbor:"4,keyasint,omitempty"`
}

// wireEvent is a [mailq.Event] on the wire.
type wireEvent struct {
	Time     int64           `cbor:"1,keyasint"` // nanoseconds since 1970
	Kind     mailq.Kind      `cbor:"2,keyasint"`
	Host     string          `cbor:"3,keyasint,omitempty"`
	Account  string          `cbor:"4,keyasint,omitempty"`
	Message  uint64          `cbor:"5,keyasint,omitempty"`
	QueueID  string          `cbor:"6,keyasint,omitempty"`
	Sender   string          `cbor:"7,keyasint,omitempty"`
	Client   []byte          `cbor:"8,keyasint,omitempty"`
	Size     int             `cbor:"9,keyasint,omitempty"`
	Subject  string          `cbor:"10,keyasint,omitempty"`
	Script   string          `cbor:"11,keyasint,omitempty"`
	Rcpts    int             `cbor:"12,keyasint,omitempty"`
	Counts   bool            `cbor:"13,keyasint,omitempty"`
	New      []wireRecipient `cbor:"14,keyasint,omitempty"`
	To       wireRecipient   `cbor:"15,keyasint,omitzero"`
	Class    mailq.Class     `cbor:"16,keyasint,omitempty"`
	Provider string          `cbor:"17,keyasint,omitempty"`
	Code     int             `cbor:"18,keyasint,omitempty"`
	Enhanced string          `cbor:"19,keyasint,omitempty"`
	Text     string          `cbor:"20,keyasint,omitempty"`
	Into     string          `cbor:"21,keyasint,omitempty"`
	Method   string          `cbor:"22,keyasint,omitempty"`
	Service  string          `cbor:"23,keyasint,omitempty"`
	NewNext  []uint64        `cbor:"24,keyasint,omitempty"` // the second hashes of New, in its order; as long, or left out
	ToNext   uint64          `cbor:"25,keyasint,omitempty"` // that of To
	From     []byte          `cbor:"26,keyasint,omitempty"` // the address of ours that it left from
	Writer   uint64          `cbor:"27,keyasint,omitempty"` // the hash of Writer …
	Domain   string          `cbor:"28,keyasint,omitempty"` // … its domain …
	Second   uint64          `cbor:"29,keyasint,omitempty"` // … and its second hash
}

type wireRecipient struct {
	_      struct{} `cbor:",toarray"`
	Hash   uint64
	Domain string
}

var (
	encoding = must(cbor.EncOptions{Time: cbor.TimeRFC3339NanoUTC}.EncMode())
	decoding = must(cbor.DecOptions{
		UTF8:             cbor.UTF8DecodeInvalid, // cleaned below
		MaxArrayElements: MaxEvents, MaxMapPairs: 1024, MaxNestedLevels: 12,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode())
	packer   = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true)))
	unpacker = must(zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderConcurrency(0)))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // our own constants
	}
	return v
}

// Seal packs a batch.
func Seal(b *Batch) (Sealed, error) {
	w := wireBatch{Lost: b.Lost, Findings: b.Findings, Samples: b.Samples, Events: make([]wireEvent, len(b.Events))}
	for i := range b.Events {
		w.Events[i] = toWire(&b.Events[i])
	}
	text, err := encoding.Marshal(w)
	if err != nil {
		return Sealed{}, fmt.Errorf("batch: %w", err)
	}
	return Sealed{b.Mark, packer.EncodeAll(text, nil)}, nil
}

// Open unpacks a batch. Texts come back bounded and without control
// characters. The error is [ErrMalformed].
func (s Sealed) Open() (Batch, error) {
	b, _, err := s.open()
	return b, err
}

// open is Open, and tells how many bytes there were unpacked.
func (s Sealed) open() (b Batch, size int, err error) {
	var w wireBatch
	if s.Epoch == 0 || s.Seq == 0 {
		return b, 0, fmt.Errorf("%w: it has no number", ErrMalformed)
	}
	if len(s.Body) > maxSealed {
		return b, 0, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(s.Body), maxSealed)
	}
	text, err := unpacker.DecodeAll(s.Body, nil)
	if err != nil {
		return b, 0, fmt.Errorf("%w: zstd: %w", ErrMalformed, err)
	}
	if err := decoding.Unmarshal(text, &w); err != nil {
		return b, 0, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	b = Batch{Mark: s.Mark, Lost: w.Lost, Findings: w.Findings, Samples: w.Samples, Events: make([]mailq.Event, len(w.Events))}
	for i := range w.Events {
		b.Events[i] = w.Events[i].event()
	}
	return b, len(text), nil
}

func toWire(e *mailq.Event) wireEvent {
	w := wireEvent{
		Time: e.Time.UnixNano(), Kind: e.Kind, Host: e.Host, Account: string(e.Account), Message: e.Message, QueueID: e.QueueID,
		Sender: e.Sender, Size: e.Size, Subject: e.Subject, Script: e.Script, Rcpts: e.Rcpts, Counts: e.Counts,
		To: wireRecipient{Hash: e.To.Hash, Domain: e.To.Domain}, Class: e.Reply.Class, Provider: e.Reply.Provider, Code: e.Reply.Code,
		Enhanced: e.Reply.Enhanced, Text: e.Reply.Text, Into: string(e.Into), Method: e.Method, Service: e.Service,
	}
	if e.Client.IsValid() {
		w.Client = e.Client.AsSlice()
	}
	if e.From.IsValid() {
		w.From = e.From.AsSlice()
	}
	w.ToNext = e.To.Next
	w.Writer, w.Domain, w.Second = e.Writer.Hash, e.Writer.Domain, e.Writer.Next
	for i, r := range e.New {
		w.New = append(w.New, wireRecipient{Hash: r.Hash, Domain: r.Domain})
		if r.Next != 0 && w.NewNext == nil {
			w.NewNext = make([]uint64, len(e.New))
		}
		if w.NewNext != nil {
			w.NewNext[i] = r.Next
		}
	}
	return w
}

// Bounds of an event: of its texts in bytes, and of its numbers.
const (
	maxName  = 512 // of an account, a sender, a script
	maxWord  = 256 // of everything else
	maxRcpts = 100_000
	maxSize  = 1 << 40
)

// within is n, or the bound that it is beyond.
func within(n, most int) int { return min(max(n, 0), most) }

// known is a kind or class that this version knows, or none.
func known[T ~uint8](v, last T) T {
	if v > last {
		return 0
	}
	return v
}

func (w *wireEvent) event() mailq.Event {
	client, _ := netip.AddrFromSlice(w.Client)
	from, _ := netip.AddrFromSlice(w.From)
	e := mailq.Event{
		Time: time.Unix(0, w.Time), Kind: known(w.Kind, mailq.Lost), Host: plain(w.Host, maxWord), Account: mailq.Account(plain(w.Account, maxName)),
		Message: w.Message, QueueID: plain(w.QueueID, maxWord), Sender: plain(w.Sender, maxName), Client: client.Unmap(), Size: within(w.Size, maxSize),
		Subject: plain(w.Subject, maxWord), Script: plain(w.Script, maxName), Rcpts: within(w.Rcpts, maxRcpts), Counts: w.Counts,
		To: w.To.recipient(), From: from.Unmap(),
		Reply: mailq.Reply{Class: known(w.Class, mailq.LocalPolicy), Provider: plain(w.Provider, maxWord), Code: within(w.Code, 999),
			Enhanced: plain(w.Enhanced, maxWord), Text: plain(w.Text, maxWord)},
		Into: mailq.Account(plain(w.Into, maxName)), Method: plain(w.Method, maxWord), Service: plain(w.Service, maxWord),
	}
	if len(w.New) > 0 {
		e.New = make([]mailq.Recipient, len(w.New))
		for i := range w.New {
			e.New[i] = w.New[i].recipient()
		}
	}
	e.To.Next = w.ToNext
	e.Writer = mailq.Recipient{Hash: w.Writer, Next: w.Second, Domain: plain(w.Domain, maxWord)}
	if len(w.NewNext) == len(e.New) {
		for i, next := range w.NewNext {
			e.New[i].Next = next
		}
	}
	return e
}

func (w wireRecipient) recipient() mailq.Recipient {
	return mailq.Recipient{Hash: w.Hash, Domain: plain(w.Domain, maxWord)}
}

// plain bounds a text and removes what could deceive who reads it.
func plain(text string, most int) string {
	text = text[:min(len(text), most)]
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f {
			return cleaned(text)
		}
	}
	return text
}

func cleaned(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}
