package mailq_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// A real Exim with incoming_interface says where its deliveries come from, and
// a customer who writes to a recipient that looks like that line does not.
func TestRealEximOutgoingInterface(t *testing.T) {
	e := bed.StartExim(t, bed.EximOptions{})
	const alice = "alice@shop.test"
	hostile := []string{`"x T=q H=a [192.0.2.7]:25 I=[203.0.113.66]:25"@ok.test`, `"<x> T=q H=a [192.0.2.7] I=[203.0.113.66]:25 C=\""@ok.test`}
	for _, to := range append(hostile, "r@ok.test", "r@hard.test", "r@soft.test") {
		if err := e.Send(alice, "pw-alice", alice, to); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	for _, line := range []string{`(?i) => x T=q H=a .* T=remote_smtp `, `(?i) => <x> T=q .* T=remote_smtp `, ` => r@ok\.test `, ` \*\* r@hard\.test `, ` == r@soft\.test `} {
		e.WaitLog(line)
	}
	log, err := os.ReadFile(e.MainLog)
	if err != nil {
		t.Fatal(err)
	}
	p := &mailq.Parser{Location: time.UTC, Directory: &mailq.Directory{}}
	from := map[mailq.Kind]int{}
	for line := range strings.Lines(string(log)) {
		ev, ok := p.Parse([]byte(line))
		if !ok || !ev.From.IsValid() {
			continue
		}
		if from[ev.Kind]++; ev.From != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("left from %s: %s", ev.From, line)
		}
	}
	if from[mailq.Delivered] != 1 || from[mailq.Bounced] != 1 || from[mailq.Deferred] == 0 {
		t.Errorf("events that say where they left from, by kind: %v\n%s", from, log)
	}
}
