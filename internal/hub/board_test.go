package hub

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

func block(subject string) rules.Decision {
	return rules.Decision{ID: "d-" + subject, Subject: subject, Action: rules.Block, Time: noon, Enforce: true}
}

func everybody(string) bool { return true }

// said is a change in words.
func said(c Change) string {
	var words []string
	for _, o := range c.Set {
		words = append(words, "+"+o.Decision.Subject)
	}
	for _, s := range c.Lifted {
		words = append(words, "-"+s)
	}
	slices.Sort(words)
	if c.Whole {
		words = append([]string{"all"}, words...)
	}
	return strings.Join(words, " ")
}

func TestBoardTellsWhatChanged(t *testing.T) {
	var b Board
	b.Set(block("a"), "no")
	b.Set(block("b"), "no")
	c, at, news := b.Since(0, true, everybody)
	if got := said(c); got != "all +a +b" {
		t.Errorf("at first: %q", got)
	}
	b.Set(block("a"), "no") // as it is
	select {
	case <-news:
		t.Error("told of nothing new")
	default:
	}
	b.Set(block("a"), "not any more")
	b.Remove("b")
	b.Remove("b")
	b.Set(block("c"), "no")
	b.Remove("c")
	<-news
	c, at, _ = b.Since(at, false, everybody)
	if got := said(c); got != "+a -b -c" {
		t.Errorf("then: %q", got)
	}
	if c, _, _ = b.Since(at, false, everybody); !c.empty() {
		t.Errorf("again: %q", said(c))
	}
	b.Set(block("d"), "no")
	if c, _, _ = b.Since(at, false, func(s string) bool { return s != "d" }); !c.empty() {
		t.Errorf("none of its business: %q", said(c))
	}
}

func TestBoardTellsAllToWhoIsFarBehind(t *testing.T) {
	var b Board
	for i := range 3 * maxChanges {
		b.Set(block(fmt.Sprint(i%10)), fmt.Sprint(i))
	}
	if len(b.changes) > maxChanges {
		t.Errorf("%d changes are kept", len(b.changes))
	}
	for _, from := range []uint64{0, 1 << 40} { // the hub may have been started again
		if c, _, _ := b.Since(from, false, everybody); !c.Whole || len(c.Set) != 10 {
			t.Errorf("from %d: %q", from, said(c))
		}
	}
}

func TestScope(t *testing.T) {
	s := Scope{Agent: "mx1", Domains: []string{"shop.test", "company.test"}}
	for _, test := range []struct {
		local, global mailq.Account
		ok            bool
	}{
		{"", "", true},
		{"alice@shop.test", "alice@shop.test", true},
		{"alice@elsewhere.test", "alice@elsewhere.test", false},
		{"alice@sub.shop.test", "alice@sub.shop.test", false},
		{"alice", "alice", false},
		{"a@elsewhere.test@shop.test", "a@elsewhere.test@shop.test", true},
		{"forward:box@shop.test", "forward:box@shop.test", true},
		{"forward:box@elsewhere.test", "forward:box@elsewhere.test", false},
		{"script:/home/u/x.php", "script:mx1!/home/u/x.php", true},
		{"user:www", "user:mx1!www", true},
		{"uid:33", "uid:mx1!33", true},
		{"client:192.0.2.7", "client:mx1!192.0.2.7", true},
		{"client:2001:db8::7", "client:mx1!2001:db8::7", true},
		{"script:host.test/a!b.php", "script:mx1!host.test/a!b.php", true},
	} {
		if got, ok := s.Global(test.local); got != test.global || ok != test.ok {
			t.Errorf("Global(%q) = %q, %v", test.local, got, ok)
		}
		if !test.ok || test.local == "" {
			continue
		}
		if got, ok := s.Local(test.global); got != test.local || !ok {
			t.Errorf("Local(%q) = %q, %v", test.global, got, ok)
		}
		if got, ok := (Scope{Agent: "mx", Domains: []string{"other.test"}}).Local(test.global); ok {
			t.Errorf("another agent is told of %q as %q", test.global, got)
		}
	}
	all := Scope{Agent: "mx1", Domains: []string{"*"}}
	if _, ok := all.Global("alice"); !ok {
		t.Error("* is not all")
	}
	if _, ok := all.Local("script:mx2!/x.php"); ok {
		t.Error("* is another machine's scripts too")
	}
}
