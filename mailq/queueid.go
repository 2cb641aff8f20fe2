package mailq

import (
	"bytes"
	"time"
)

// The alphabet of Postfix's long queue ids: base 52 for the time, and its
// first 51 characters for the inode, so that 'z' can stand between the two.
const longAlphabet = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

// longValue maps a character of a long queue id to its value, 0xff if none.
var longValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(longAlphabet) {
		t[longAlphabet[i]] = byte(i)
	}
	return t
}()

// isQueueID reports whether b has the form of a Postfix queue id: upper-case
// hexadecimal digits (short), or base 52 with a 'z' (long).
func isQueueID(b []byte) bool {
	if len(b) < 6 || len(b) > 24 {
		return false
	}
	kind := byte(hexDigit | longDigit)
	for _, c := range b {
		kind &= idDigit[c]
	}
	return kind&hexDigit != 0 || kind&longDigit != 0 && bytes.LastIndexByte(b, 'z') >= 10
}

const (
	hexDigit  = 1
	longDigit = 2
	alnum     = 4
)

// idDigit says of which kinds of queue ids a character may be part.
var idDigit = func() (t [256]byte) {
	for i := range len(longAlphabet) {
		t[longAlphabet[i]] = longDigit
	}
	for _, c := range []byte("0123456789ABCDEF") {
		t[c] |= hexDigit
	}
	for i := range t {
		if c := byte(i); c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			t[i] |= alnum
		}
	}
	return t
}()

// QueueIDTime returns the arrival time that a queue id holds, to the
// microsecond for Postfix's long ids and to the second for Exim's. Postfix's
// short ids hold none.
func QueueIDTime(id string) (time.Time, bool) {
	b := []byte(id)
	if len(b) > 24 {
		return time.Time{}, false
	}
	if eximIDLen(b) == len(b) && len(b) > 0 {
		return time.Unix(baseValue(b[:6], 62), 0).UTC(), true
	}
	z := bytes.LastIndexByte(b, 'z')
	if z < 10 || !isQueueID(b) {
		return time.Time{}, false
	}
	sec, usec := longNumber(b[:z-4]), longNumber(b[z-4:z])
	if usec >= 1_000_000 || sec > 1<<36 {
		return time.Time{}, false
	}
	return time.Unix(sec, usec*1000).UTC(), true
}

// longNumber reads base 52 digits.
func longNumber(b []byte) (n int64) {
	for _, c := range b {
		n = n*52 + int64(longValue[c])
		if n > 1<<52 {
			return 1 << 52
		}
	}
	return n
}

// eximIDLen returns the length of the Exim message id at the head of b: 16 up
// to Exim 4.96, 23 from 4.97, or 0 if there is none.
func eximIDLen(b []byte) int {
	switch {
	case len(b) >= 23 && b[6] == '-' && b[18] == '-' && allAlnum(b[:6]) && allAlnum(b[7:18]) && allAlnum(b[19:23]):
		return endsAt(b, 23)
	case len(b) >= 16 && b[6] == '-' && b[13] == '-' && allAlnum(b[:6]) && allAlnum(b[7:13]) && allAlnum(b[14:16]):
		return endsAt(b, 16)
	}
	return 0
}

// endsAt is n if a word of b ends there, else 0.
func endsAt(b []byte, n int) int {
	if len(b) > n && (isAlnum(b[n]) || b[n] == '-') {
		return 0
	}
	return n
}

// baseValue reads the digits 0-9A-Za-z of Exim's ids.
func baseValue(b []byte, base int64) (n int64) {
	for _, c := range b {
		v := int64(0)
		switch {
		case c >= 'a':
			v = int64(c-'a') + 36
		case c >= 'A':
			v = int64(c-'A') + 10
		default:
			v = int64(c - '0')
		}
		n = n*base + v
	}
	return n
}

func isAlnum(c byte) bool { return idDigit[c]&alnum != 0 }

func allAlnum(b []byte) bool {
	kind := byte(alnum)
	for _, c := range b {
		kind &= idDigit[c]
	}
	return kind != 0
}
