package detector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// sentVersion is the first byte of what Changed returns.
const sentVersion = 1

// Changed returns what changed since the last call, nil if nothing did. All that
// it returned, given to Restore in that order, makes another Sent know the same.
// It is some 20 bytes for a message, and the name of each account once.
func (s *Sent) Changed() []byte {
	if s == nil || len(s.dirty)+len(s.cleared) == 0 {
		return nil
	}
	b := []byte{sentVersion}
	numbers := map[mailq.Account]uint64{}
	name := func(account mailq.Account) {
		n, known := numbers[account]
		if !known {
			n = uint64(len(numbers))
			numbers[account] = n
		}
		if b = binary.AppendUvarint(b, n); !known {
			b = append(binary.AppendUvarint(b, uint64(len(account))), account...)
		}
	}
	s.dirty = slices.DeleteFunc(s.dirty, func(key uint64) bool {
		_, m, ok := s.find(key)
		return !ok || !m.is(isDirty) // forgotten meanwhile
	})
	b = binary.AppendUvarint(b, uint64(len(s.dirty)))
	for _, key := range s.dirty {
		half, m, _ := s.find(key)
		m.flags &^= isDirty
		half.messages[key] = m
		name(half.senders[m.from].account)
		b = binary.LittleEndian.AppendUint64(b, key)
		b = binary.LittleEndian.AppendUint32(b, m.at)
		b = binary.LittleEndian.AppendUint32(b, m.receiver)
		b = binary.LittleEndian.AppendUint16(b, m.delivered)
		b = append(b, byte(m.flags))
	}
	for _, c := range s.cleared {
		name(c.account)
		b = binary.AppendVarint(b, c.cleared.UnixNano())
	}
	s.dirty, s.cleared = s.dirty[:0], nil
	return b
}

// sentRecord is the length of a message in what Changed returns, without its account.
const sentRecord = 8 + 4 + 4 + 2 + 1

var errSentState = errors.New("what was sent: the state is cut short or damaged")

// Restore puts back what Changed returned.
func (s *Sent) Restore(state []byte) error {
	if len(state) == 0 || state[0] != sentVersion {
		return fmt.Errorf("what was sent: state of another version than %d", sentVersion)
	}
	defer func() { s.dirty, s.cleared = s.dirty[:0], nil }()
	r := sentReader{b: state[1:]}
	for n := r.number(); n > 0; n-- {
		account := r.account()
		if len(r.b) < sentRecord {
			return errSentState
		}
		s.restore(account, r.b[:sentRecord])
		r.b = r.b[sentRecord:]
	}
	for len(r.b) > 0 {
		account := r.account()
		at, width := binary.Varint(r.b)
		if width <= 0 {
			return errSentState
		}
		r.b = r.b[width:]
		s.release(account, time.Unix(0, at))
	}
	if r.damaged {
		return errSentState
	}
	return nil
}

// restore puts a message back, in the place of what was known of it before.
func (s *Sent) restore(account mailq.Account, b []byte) {
	key := binary.LittleEndian.Uint64(b)
	m := sentMessage{at: binary.LittleEndian.Uint32(b[8:]), receiver: binary.LittleEndian.Uint32(b[12:]), delivered: binary.LittleEndian.Uint16(b[16:]), flags: sentFlags(b[18]) &^ isDirty}
	half, had, ok := s.find(key)
	if ok && had.at == m.at && half.senders[had.from].account == account {
		half.senders[had.from].count(had, -1)
	} else {
		half = s.begin(time.Unix(int64(m.at), 0))
	}
	m.from = half.numberOf(account)
	half.senders[m.from].count(m, 1)
	half.messages[key] = m
}

// count adds a message to what an account sent, or takes it away. What was
// complained about before a release is forgiven.
func (a *sender) count(m sentMessage, sign int) {
	a.delivered += sign * int(m.delivered)
	if m.is(isBlamed) && int64(m.at) > a.cleared.Unix() {
		a.blamed += sign
	}
}

// A sentReader takes a state apart.
type sentReader struct {
	b        []byte
	accounts []mailq.Account
	damaged  bool
}

func (r *sentReader) number() uint64 {
	n, width := binary.Uvarint(r.b)
	if width <= 0 {
		r.b, r.damaged = nil, true
		return 0
	}
	r.b = r.b[width:]
	return n
}

// account reads the number of an account, and its name where that is new.
func (r *sentReader) account() mailq.Account {
	n := r.number()
	if n < uint64(len(r.accounts)) {
		return r.accounts[n]
	}
	size := r.number()
	if r.damaged || n > uint64(len(r.accounts)) || size > uint64(len(r.b)) {
		r.b, r.damaged = nil, true
		return ""
	}
	account := mailq.Account(r.b[:size])
	r.accounts, r.b = append(r.accounts, account), r.b[size:]
	return account
}
