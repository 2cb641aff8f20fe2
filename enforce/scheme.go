package enforce

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// A Scheme is the way in which a server keeps a password, by the name that
// Dovecot gives it. ".HEX" or ".B64" behind SSHA, SSHA256, SSHA512 or PLAIN
// says how the bytes are written; without it SSHA* is base64, and PLAIN is as
// it is, or base64 where a passwd-file could not hold it. The zero Scheme is
// SHA512-CRYPT.
//
// The work factors are those of "doveadm pw". More would buy nothing: a new
// password has 138 random bits, and every IMAP login pays for the work.
type Scheme string

// The schemes; see doc.dovecot.org, "Password schemes".
const (
	SHA512Crypt   Scheme = "SHA512-CRYPT"
	SHA256Crypt   Scheme = "SHA256-CRYPT"
	BlowfishCrypt Scheme = "BLF-CRYPT"
	Argon2ID      Scheme = "ARGON2ID"
	PBKDF2        Scheme = "PBKDF2"
	SSHA512       Scheme = "SSHA512"
	SSHA256       Scheme = "SSHA256"
	SSHA          Scheme = "SSHA"
	Plain         Scheme = "PLAIN"
)

// maxPassword bounds a password, in bytes. Dovecot's own clients send up to 1024.
const maxPassword = 512

// Check reports a scheme that is not one of those.
func (s Scheme) Check() error {
	_, err := s.Hash("x")
	return err
}

// Hash returns what the server is to keep of the password: {SCHEME} and the
// salted hash. No error holds the password. Hashing with BLF-CRYPT fails for
// a password longer than 72 bytes.
func (s Scheme) Hash(password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	name := Scheme(strings.ToUpper(string(s)))
	if name == "" {
		name = SHA512Crypt
	}
	base, encoding, encoded := strings.Cut(string(name), ".")
	if encoded && (encoding != "HEX" && encoding != "B64" || !writesBytes(Scheme(base))) {
		return "", fmt.Errorf("scheme %q: want .HEX or .B64 behind SSHA, SSHA256, SSHA512 or PLAIN", s)
	}
	text, err := keep(Scheme(base), encoding, password)
	if err != nil {
		return "", fmt.Errorf("scheme %.40q: %w", s, err)
	}
	if strings.HasPrefix(text, "{") {
		return text, nil
	}
	return "{" + string(name) + "}" + text, nil
}

func writesBytes(s Scheme) bool {
	return s == SSHA || s == SSHA256 || s == SSHA512 || s == Plain
}

func keep(s Scheme, encoding, password string) (string, error) {
	switch s {
	case SHA512Crypt:
		return shaCrypt(shacrypt.VariantSHA512, password)
	case SHA256Crypt:
		return shaCrypt(shacrypt.VariantSHA256, password)
	case BlowfishCrypt:
		return blowfishCrypt(password)
	case Argon2ID:
		return argon2ID(password), nil
	case PBKDF2:
		return pbkdf2SHA1(password)
	case SSHA512:
		return saltedHash(sha512.New(), encoding, password), nil
	case SSHA256:
		return saltedHash(sha256.New(), encoding, password), nil
	case SSHA:
		return saltedHash(sha1.New(), encoding, password), nil
	case Plain:
		return plainText(encoding, password), nil
	}
	return "", errors.New("want SHA512-CRYPT, SHA256-CRYPT, BLF-CRYPT, ARGON2ID, PBKDF2, SSHA512, SSHA256, SSHA or PLAIN")
}

// checkPassword refuses what cannot be handed to every server as it is: crypt
// ends at a NUL, a line at a newline.
func checkPassword(password string) error {
	switch {
	case password == "":
		return errors.New("the password is empty")
	case len(password) > maxPassword:
		return fmt.Errorf("the password is longer than %d bytes", maxPassword)
	case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("the password has control characters, or is not UTF-8")
	}
	return nil
}

// shaCryptRounds is what crypt(3) does if a hash does not say otherwise.
const shaCryptRounds = shacrypt.IterationsDefaultOmitted

// shaCrypt is crypt(3) with $5$ or $6$ (akkadia.org/drepper/SHA-crypt.txt).
func shaCrypt(v shacrypt.Variant, password string) (string, error) {
	h, err := shacrypt.New(shacrypt.WithVariant(v), shacrypt.WithIterations(shaCryptRounds))
	if err != nil {
		return "", err
	}
	digest, err := h.Hash(password)
	if err != nil {
		return "", err
	}
	return digest.Encode(), nil
}

const blowfishCost = 5

// blowfishCrypt is crypt(3) with $2y$, which is what the library calls $2a$.
func blowfishCrypt(password string) (string, error) {
	text, err := bcrypt.GenerateFromPassword([]byte(password), blowfishCost)
	if err != nil {
		return "", err
	}
	return "$2y$" + strings.TrimPrefix(string(text), "$2a$"), nil
}

// argon2ID is RFC 9106 as libsodium writes and reads it: one lane only.
func argon2ID(password string) string {
	const passes, memory, lanes, size = 3, 64 << 10, 1, 32
	salt := randomBytes(16)
	key := argon2.IDKey([]byte(password), salt, passes, memory, lanes, size)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memory, passes, lanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// pbkdf2SHA1 is RFC 8018, section 5.2, as Dovecot writes it: $1$salt$rounds$key,
// the key in hexadecimal.
func pbkdf2SHA1(password string) (string, error) {
	const rounds = 5000
	salt := randomText(shacrypt.SaltCharSet, 16)
	key, err := pbkdf2.Key(sha1.New, password, []byte(salt), rounds, sha1.Size)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$1$%s$%d$%x", salt, rounds, key), nil
}

func saltedHash(h hash.Hash, encoding, password string) string {
	salt := randomBytes(16)
	h.Write([]byte(password))
	h.Write(salt)
	return encode(encoding, append(h.Sum(nil), salt...))
}

// plainText is the password as it is, unless that could be taken for something
// else where it is kept: a passwd-file ends the field at a colon and reads a
// bracket as the number of a scheme.
func plainText(encoding, password string) string {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`:[]{}\'"`, r) }
	switch {
	case encoding != "":
		return encode(encoding, []byte(password))
	case strings.IndexFunc(password, odd) >= 0:
		return "{PLAIN.B64}" + encode("B64", []byte(password))
	}
	return password
}

func encode(encoding string, b []byte) string {
	if encoding == "HEX" {
		return hex.EncodeToString(b)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// bareHash is a hash without the {SCHEME} in front.
func bareHash(hash string) string {
	if _, rest, ok := strings.Cut(hash, "}"); ok && strings.HasPrefix(hash, "{") {
		return rest
	}
	return hash
}
