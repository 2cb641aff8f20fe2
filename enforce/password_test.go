package enforce

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func TestNewPassword(t *testing.T) {
	shape := regexp.MustCompile(`^([a-hjkmnp-z2-9]{4}-){6}[a-hjkmnp-z2-9]{4}$`)
	seen := map[string]bool{}
	letters := map[rune]int{}
	const n = 2000
	for range n {
		p := NewPassword().Reveal()
		if !shape.MatchString(p) || seen[p] || !strings.ContainsAny(p, "23456789") {
			t.Fatalf("odd or known: %q", p)
		}
		seen[p] = true
		for _, r := range strings.ReplaceAll(p, "-", "") {
			letters[r]++
		}
	}
	want := n * passwordGroups * passwordGroupSize / len(passwordLetters)
	for _, r := range passwordLetters {
		if got := letters[r]; got < want*8/10 || got > want*12/10 {
			t.Errorf("%c stands in passwords %d times, want about %d", r, got, want)
		}
	}
}

// A password is nowhere to be seen, unless asked for by name.
func TestPasswordIsHidden(t *testing.T) {
	const secret = "k7mp-secret"
	p := PasswordOf(secret)
	type holder struct {
		Open   Password
		hidden Password
	}
	h := holder{p, p}
	var s bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&s, verb+verb+verb+verb+"\n", p, &p, h, []Password{p})
	}
	for _, log := range []*slog.Logger{slog.New(slog.NewJSONHandler(&s, nil)), slog.New(slog.NewTextHandler(&s, nil))} {
		log.Info("x", "p", p, "ptr", &p, "h", h, "map", map[string]Password{"a": p})
	}
	if err := json.NewEncoder(&s).Encode([]any{p, &p, h, map[string]any{"p": p}}); err != nil {
		t.Fatal(err)
	}
	if text := s.String(); strings.Contains(text, secret) || strings.Contains(text, hex.EncodeToString([]byte(secret))) {
		t.Errorf("shown:\n%s", text)
	}
	if p.Reveal() != secret || p.IsZero() || !(Password{}).IsZero() || (Password{}).Reveal() != "" {
		t.Error("Reveal does not")
	}
}

func TestLeaks(t *testing.T) {
	const secret = "k7mp-ab2c-wxyz"
	for _, tt := range []struct {
		text string
		want bool
	}{
		{"", false},
		{"no such user", false},
		{"+ passwd k7mp-ab2c-wxyz", true},
		{"K7MPAB2C", true},
		{"p%2Dab2c%2Dw", false}, // three groups of no more than four
		{hex.EncodeToString([]byte("x:" + secret)), true},
		{"Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+secret)), true},
		{"Basic " + base64.StdEncoding.EncodeToString([]byte("us:"+secret)), true},
		{"Basic " + base64.StdEncoding.EncodeToString([]byte("use:"+secret)), true},
	} {
		if got := leaks(tt.text, secret); got != tt.want {
			t.Errorf("leaks(%q) = %v", tt.text, got)
		}
	}
	if !leaks("the password is abc", "abc") || leaks("anything", "") {
		t.Error("short secrets")
	}
}

// hostilePasswords are what no password of ours is, but a server must take, or
// refuse as a whole.
var hostilePasswords = []string{
	`it's`, `"quoted"`, `%u%d%s`, `:login`, `a:b`, `a[34]b`, `{SHA1}x`, `\`, `\'; DROP TABLE mailbox; --`, `-p`, `$(id)`, "`id`",
	`pass word`, ` x `, "ünïcödé", "\u05d0\u05d1\u05d2", `*?[]`, `#x`, `;`, "ends in {", strings.Repeat("x", 72),
}

var refusedPasswords = []string{"", "a\x00b", "a\nb", "a\rb", "a\x7fb", "\xff", strings.Repeat("x", 10<<10)}

// Every scheme, as Dovecot's own tool reads it.
func TestSchemes(t *testing.T) {
	t.Parallel()
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Skip("doveadm is not installed: nothing to verify hashes with")
	}
	for _, s := range []Scheme{"", SHA512Crypt, SHA256Crypt, BlowfishCrypt, Argon2ID, PBKDF2, SSHA512, SSHA256, SSHA, Plain,
		"ssha512.hex", "SSHA256.B64", "SSHA.HEX", "PLAIN.HEX", "PLAIN.B64"} {
		passwords := append([]string{NewPassword().Reveal()}, hostilePasswords...)
		if s != SHA512Crypt && s != BlowfishCrypt && s != Plain {
			passwords = passwords[:3] // what a password may hold is the others' business
		}
		for i, password := range passwords {
			hash, err := s.Hash(password)
			if err != nil {
				t.Errorf("%s: %v", s, err)
				continue
			}
			if again, _ := s.Hash(password); again == hash && !strings.HasPrefix(strings.ToUpper(string(s)), "PLAIN") {
				t.Errorf("%s: not salted: %s", s, hash)
			}
			if err := checkHash(hash); err != nil {
				t.Errorf("%s: %q cannot stand in a passwd-file: %v", s, hash, err)
			}
			if out, err := exec.Command(doveadm, "-O", "pw", "-t", hash, "-p", password).CombinedOutput(); err != nil {
				t.Errorf("%s: doveadm does not take %q of %q: %s", s, hash, password, out)
			}
			if i > 0 {
				continue
			}
			if err := exec.Command(doveadm, "-O", "pw", "-t", hash, "-p", password+"x").Run(); err == nil {
				t.Errorf("%s: doveadm takes another password for %q", s, hash)
			}
		}
	}
}

func TestSchemesRefuse(t *testing.T) {
	for _, s := range []Scheme{"MD5", "SHA512-CRYPT.HEX", "SSHA.XML", "x y", "{SSHA}", "."} {
		if s.Check() == nil {
			t.Errorf("%q is taken for a scheme", s)
		}
	}
	for _, password := range refusedPasswords {
		if hash, err := SHA512Crypt.Hash(password); err == nil {
			t.Errorf("%.20q: hashed to %s", password, hash)
		} else if password != "" && strings.Contains(err.Error(), password) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	if _, err := BlowfishCrypt.Hash(strings.Repeat("x", 73)); err == nil {
		t.Error("BLF-CRYPT cuts a password short")
	}
}
