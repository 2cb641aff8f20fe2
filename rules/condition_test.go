package rules

import (
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr/vm"
)

// someFinding has a different value in every field, so that a condition that
// reads the wrong one is noticed.
func someFinding() Finding {
	at := time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)
	return Finding{
		ID: "f-1", Rule: HijackedMailbox, Subject: "alice@shop.test", Class: "login",
		Time: at, Since: at.Add(-90 * time.Second),
		Score: 17.2, Families: 2, Hard: "five-countries", Messages: 7, Rcpts: 9,
		Evidence: []Evidence{{Kind: Novelty, Score: 9.1}, {Kind: Rate, Score: 4}, {Kind: Novelty, Score: 0.9}},
	}
}

func TestConditions(t *testing.T) {
	tests := []struct {
		text string
		want bool
	}{
		{"true", true},
		{"score >= 17.2", true},
		{"score > 17.2", false},
		{"families == 2", true},
		{`hard == "five-countries"`, true},
		{`hard != ""`, true},
		{"messages == 7 and recipients == 9", true},
		{"messages == 9 or recipients == 7", false},
		{"recipients / messages > 1.2", true},
		{"age == 90", true},
		{"age == 1.5 * minute", true},
		{"age < 90 * second", false},
		{"age >= hour", false},
		{`class == "login"`, true},
		{`class in ["script", "user"]`, false},
		{`not (class in ["script", "user"])`, true},
		{`subject == "alice@shop.test"`, true},
		{`subject startsWith "alice@"`, true},
		{`subject matches "^[a-z]+@"`, true},
		{`domain == "shop.test"`, true},
		{`domain endsWith ".test"`, true},
		{"shared or backlog", false},
		{`evidence("novelty") == 10.0`, true},
		{`evidence("rate") >= 4`, true},
		{`evidence("replies") == 0`, true},
		{"max(score, 20) == 20", true},
		{`len(hard) == 14 && lower("A") == "a"`, true},
		{"abs(-1) + min(1, 2) + round(1.4) + floor(1.9) + ceil(0.1) == 5", true},
		{"families >= 2 ? score > 20 : score > 10", false},
	}
	finding := someFinding()
	for _, tt := range tests {
		c, mistakes := compile(tt.text)
		if len(mistakes) > 0 {
			t.Errorf("%s: %v", tt.text, mistakes)
			continue
		}
		got, err := c.holds(&vm.VM{}, newEnvironment(&finding))
		if got != tt.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", tt.text, got, err, tt.want)
		}
	}
}

func TestConditionsThatAreRefused(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "condition is empty: write true for always"},
		{" \n", "condition is empty: write true for always"},
		{strings.Repeat("true and ", 120) + "true", "condition has 1084 bytes, more than 1000"},
		{"not " + strings.Repeat("!", 900) + "true", "exceeds maximum allowed nodes"},
		{"score", "expected bool, but got float64"},
		{"score >=", "unexpected token EOF"},
		{`score >= "6"`, "invalid operation: >= (mismatched types float64 and string)"},
		{"hard", "expected bool, but got string"},
		{"now() > 1", "only evidence(…) and the functions"},
		{"now > 1", "unknown name now"},
		{"Score > 1", "unknown name Score"},
		{"any([1], # > 0)", "function any cannot be used in a condition"},
		{"len(1..1000000) > 1", "ranges cannot be used in a condition"},
		{"score in 1..9", "ranges cannot be used in a condition"},
		{`$env["score"] > 1`, "$env cannot be used"},
		{"$env.score > 1", "$env cannot be used"},
		{"subject[1:] == hard", "subject[1:] is more than that"},
		{"shared ? nil : true", "nil is more than that"},
		{"let x = subject + subject; x == x", "is more than that"},
		{"{a: 1} == {a: 1}", "is more than that"},
		{`subject matches hard`, "matches wants its pattern as text in quotes"},
		{`subject matches "("`, "error parsing regexp"},
		{"evidence(hard) > 1", "evidence wants its family as text in quotes"},
		{"evidence() > 1", `evidence wants one family, as in evidence("novelty")`},
		{`evidence("noise") > 1`, `unknown family of evidence "noise"; known: novelty,`},
		{"score() > 1", "only evidence(…) and the functions"},
		{`class != "mailbox"`, `unknown class "mailbox"; known: login,`},
		{`"mailbox" == class`, `unknown class "mailbox"; known: login,`},
		{`class in ["login", "mailbox"]`, `unknown class "mailbox"; known: login,`},
		{"1 % 0 == 0", "integer divide by zero"},
	}
	for _, tt := range tests {
		c, mistakes := compile(tt.text)
		if c != nil || len(mistakes) == 0 {
			t.Errorf("%.40s: compiled, want %q", tt.text, tt.want)
			continue
		}
		if got := mistakes[0].text; !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("%.40s: %q, want one line with %q", tt.text, got, tt.want)
		}
	}
}

// FuzzCondition: no text makes the compiler or the evaluation panic, and what
// compiles answers the same twice.
func FuzzCondition(f *testing.F) {
	f.Add("(score >= 16 && families >= 2) || hard != \"\"")
	f.Add("evidence(\"novelty\") > 3 and class in [\"login\"]")
	f.Add("recipients % messages == 0 ? age > 2 * minute : subject matches \"^a.*b$\"")
	f.Fuzz(func(t *testing.T, text string) {
		c, mistakes := compile(text)
		if (c == nil) != (len(mistakes) > 0) {
			t.Fatalf("condition %v with mistakes %v: want exactly one of them", c, mistakes)
		}
		if c == nil {
			return
		}
		for _, finding := range []Finding{someFinding(), {}} {
			first, err1 := c.holds(&vm.VM{}, newEnvironment(&finding))
			again, err2 := c.holds(&vm.VM{}, newEnvironment(&finding))
			if first != again || (err1 == nil) != (err2 == nil) {
				t.Errorf("%v, %v and then %v, %v", first, err1, again, err2)
			}
			if first && err1 != nil {
				t.Errorf("holds with the error %v", err1)
			}
		}
	})
}
