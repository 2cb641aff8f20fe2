package enforce

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
)

// A Password is a secret that prints, logs and marshals as ***, wherever it
// stands: even a struct that holds it in an unexported field shows no more
// than an address. The zero Password is none.
type Password struct{ text *string }

const hiddenPassword = "***"

// PasswordOf hides a text.
func PasswordOf(text string) Password { return Password{&text} }

// Reveal is the secret itself, empty for the zero Password. What it returns
// is to be shown to a person or given to a program, and nothing else.
func (p Password) Reveal() string {
	if p.text == nil {
		return ""
	}
	return *p.text
}

// IsZero reports whether there is no password.
func (p Password) IsZero() bool { return p.text == nil }

// String is ***.
func (Password) String() string { return hiddenPassword }

// Format writes *** whatever the verb.
func (Password) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hiddenPassword)) }

// LogValue is ***.
func (Password) LogValue() slog.Value { return slog.StringValue(hiddenPassword) }

// MarshalText is ***, in JSON too.
func (Password) MarshalText() ([]byte, error) { return []byte(hiddenPassword), nil }

// MarshalYAML is ***.
func (Password) MarshalYAML() (any, error) { return hiddenPassword, nil }

// The characters of a new password: none of them looks or sounds like another
// in ordinary type (no 0 and o, no 1, i and l).
const passwordLetters = "abcdefghjkmnpqrstuvwxyz23456789"

const (
	passwordGroups    = 7
	passwordGroupSize = 4
)

// NewPassword makes a password of 138 random bits: seven groups of four
// letters and digits, joined by hyphens, to be read aloud and typed. It holds
// at least one digit.
func NewPassword() Password {
	for {
		groups := make([]string, passwordGroups)
		for i := range groups {
			groups[i] = randomText(passwordLetters, passwordGroupSize)
		}
		if text := strings.Join(groups, "-"); strings.ContainsAny(text, "23456789") {
			return PasswordOf(text)
		}
	}
}

// randomText is n characters of letters, each as likely as any other.
func randomText(letters string, n int) string {
	fair := byte(256 / len(letters) * len(letters) % 256) // 0 if all 256 values are
	out := make([]byte, 0, n)
	var b [64]byte
	for len(out) < n {
		rand.Read(b[:]) // never fails
		for _, v := range b {
			if (fair == 0 || v < fair) && len(out) < n {
				out = append(out, letters[int(v)%len(letters)])
			}
		}
	}
	return string(out)
}

// leakedPart is how much of a secret, in letters and digits, is too much.
const leakedPart = 6

// leaks reports whether text tells anything of a secret: six letters or
// digits of it in a row, as they are, in hexadecimal or in base64. A shorter
// secret leaks by its whole, an empty one never.
func leaks(text string, secrets ...string) bool {
	text = lettersAndDigits(text)
	for _, secret := range secrets {
		for _, form := range writtenForms(secret) {
			if holdsPart(text, lettersAndDigits(form)) {
				return true
			}
		}
	}
	return false
}

// writtenForms are a secret, and what a program might print of it. In base64
// it looks in one of three ways, by what stands before it.
func writtenForms(secret string) []string {
	if len(secret) < leakedPart {
		return []string{secret}
	}
	forms := []string{secret, hex.EncodeToString([]byte(secret))}
	for i := range 3 {
		forms = append(forms, base64.RawStdEncoding.EncodeToString([]byte(secret[i:])))
	}
	return forms
}

func holdsPart(text, secret string) bool {
	for i := 0; i+leakedPart <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+leakedPart]) {
			return true
		}
	}
	return len(secret) > 0 && len(secret) < leakedPart && strings.Contains(text, secret)
}

// lettersAndDigits is text without anything else, in lower case.
func lettersAndDigits(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}
