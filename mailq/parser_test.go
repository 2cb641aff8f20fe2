package mailq

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// newParser is a parser for logs of 2026 in UTC.
func newParser() *Parser {
	return &Parser{
		Location:  time.UTC,
		Now:       time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		Directory: &Directory{Realm: "shop.test"},
	}
}

// events parses a log, line by line.
func events(p *Parser, log string) (evs []Event) {
	for line := range strings.Lines(log) {
		if ev, ok := p.Parse([]byte(line)); ok {
			evs = append(evs, ev)
		}
	}
	return evs
}

var kindNames = [...]string{"unknown", "submitted", "addressed", "delivered", "deferred", "bounced", "refused", "held", "released", "removed",
	"login", "login-failed", "lost"}

// brief says what matters of an event in one line: kind, account, queue id,
// counted recipients, number of new ones, domain of the recipient it is
// about, class of the reply.
func brief(ev Event) string {
	account := string(ev.Account)
	if account == "" {
		account = "-"
	}
	s := fmt.Sprintf("%s %s", kindNames[ev.Kind], account)
	if ev.QueueID != "" {
		s += " " + ev.QueueID
	}
	if ev.Counts {
		s += " counts"
	}
	if ev.Rcpts > 0 {
		s += fmt.Sprintf(" rcpts=%d", ev.Rcpts)
	}
	if len(ev.New) > 0 {
		s += fmt.Sprintf(" new=%d", len(ev.New))
	}
	if ev.To.Domain != "" {
		s += " to=" + ev.To.Domain
	}
	if ev.Reply.Class != Unclassified {
		s += " " + className(ev.Reply.Class)
	}
	return s
}

func className(c Class) string {
	names := [...]string{"unclassified", "ok", "recipient-unknown", "mailbox-full", "mailbox-inactive", "greylisted", "quota", "content",
		"address-reputation", "domain-reputation", "authentication", "policy", "network", "local-policy"}
	return names[c]
}

func briefs(evs []Event) string {
	var b strings.Builder
	for _, ev := range evs {
		b.WriteString(brief(ev) + "\n")
	}
	return b.String()
}

// sample is a log of the testbed, which is not part of the repository.
func sample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../shared/testbed/samples/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the testbed's samples are not here: %s", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b)) + "\n"
}

// ParseInto leaves the event zero where there is none, so that its room can be
// used for the next line.
func TestParseIntoLeavesNothingBehind(t *testing.T) {
	logs, err := filepath.Glob("testdata/logs/*/*.log")
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var p Parser
		for line := range bytes.Lines(text) {
			for cut := range 3 { // whole lines and broken ones
				var ev Event
				if !p.ParseInto(&ev, line[:len(line)*(3-cut)/3]) && !reflect.ValueOf(ev).IsZero() {
					t.Fatalf("%s: %q left %+v", path, line, ev)
				}
			}
		}
	}
}
