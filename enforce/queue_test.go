package enforce

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vedetta-watch/vedetta/mailq"
)

var queuedAt = time.Unix(1795336818, 0).UTC()

// hostileIDs are what might stand where a queue id is expected.
var hostileIDs = []string{
	"", "-", "--", "-d", "-dALL", "ALL", "ALL\n", "4jXHfX6Vsnz1SNbS\nALL", "1795998C2C7\x00", "1795998C2C7 ALL", "../deferred/1795998C2C7",
	"../../etc/passwd", "/etc/passwd", ".", "*", "1795998C2C?", "[0-9]*", "$(id)", "`id`", "1795998c2c7", "１７９５９９８Ｃ２Ｃ７", "\u202e1795998C2C7",
	strings.Repeat("A", 10_000), "1xV3Ei-0004Nn-1c -Mrm", "1xV3Ei-0004Nn-1c\n1xV3Ei-0004Nn-1d", "1xV3Ei-0004Nn-1c-H", "-1xV3E-0004Nn-1c", "1xV3Ei/0004Nn/1c",
}

func hostileMessages() (ms []Queued) {
	for _, id := range hostileIDs {
		ms = append(ms, Queued{ID: id, Arrival: queuedAt})
	}
	return ms
}

// record writes one record of a Postfix queue file.
func record(kind byte, data string) string {
	n, length := len(data), []byte(nil)
	for ; n > 0x7f; n >>= 7 {
		length = append(length, byte(n)|0x80)
	}
	return string(kind) + string(append(length, byte(n))) + data
}

// postfixMessage is the file of a message of alice's.
func postfixMessage(at time.Time, header ...string) string {
	envelope := record('T', fmt.Sprintf("%d 5", at.Unix())) + record('A', "log_client_address=192.0.2.1") + record('A', "sasl_username=Alice@shop.test") +
		record('S', "ceo@bank.test") + record('R', "r@ok.test") + record('M', "")
	text := ""
	for _, line := range append(header, "", "the body") {
		text += record('N', line)
	}
	const size = "%15d %15d %15d %15d %15d"
	first := record('C', fmt.Sprintf(size, 300, 0, 1, 0, 300))
	return record('C', fmt.Sprintf(size, 300, len(first)+len(envelope), 1, 0, 300)) + envelope + text + record('X', "")
}

// postfixSpool makes a queue with messages, and the programs that act on it:
// they write down how they were called.
func postfixSpool(t *testing.T, files map[string]string) (q *PostfixQueue, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	spool := filepath.Join(dir, "spool")
	for _, queue := range []string{"incoming", "active", "deferred/9", "deferred/1", "hold"} {
		if err := os.MkdirAll(filepath.Join(spool, queue), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(spool, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "log")
	for name, text := range map[string]string{
		"postsuper": `printf '%s ' postsuper "$@" >> ` + log + `; tee -a ` + log + ` | wc -l | sed 's/^ *\(.*\)/postsuper: Placed on hold: \1 messages/' >&2`,
		"postkick":  `echo postkick "$@" >> ` + log,
	} {
		if err := os.Rename(script(t, text), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return &PostfixQueue{Command: []string{filepath.Join(dir, "postsuper")}, ConfigDir: "/etc/postfix-out", Dir: spool}, func() string {
		b, _ := os.ReadFile(log)
		_ = os.Remove(log)
		return string(b)
	}
}

const (
	longHeld = "4jXHfX6Vsnz1SNbS"
	shortID  = "1795998C2C7"
)

func TestPostfixQueue(t *testing.T) {
	q, calls := postfixSpool(t, map[string]string{
		"hold/" + longHeld: postfixMessage(queuedAt), "deferred/1/" + shortID: postfixMessage(queuedAt.Add(time.Hour)),
		"incoming/9995998C2C7": "half", "active/not an id": postfixMessage(queuedAt),
	})
	ms, err := q.Find(t.Context(), OfAccount([]string{"alice@shop.test"}, nil, nil))
	m := Queued{ID: longHeld, Arrival: queuedAt, Login: "Alice@shop.test", UID: -1, Client: netip.MustParseAddr("192.0.2.1"), Sender: "ceo@bank.test", Size: 300, Rcpts: 1, Held: true}
	deferred := m
	deferred.ID, deferred.Arrival, deferred.Held = shortID, queuedAt.Add(time.Hour), false
	if diff := cmp.Diff(ms, []Queued{m, deferred}, cmpopts.EquateComparable(netip.Addr{})); diff != "" || err != nil {
		t.Fatalf("%v; found (-got +want):\n%s", err, diff)
	}
	const before = " -c /etc/postfix-out "
	for _, test := range []struct {
		do   string
		f    func() (int, error)
		n    int
		want string
	}{
		// The fake holds nothing, so the second look holds again.
		{"hold", func() (int, error) { return q.Hold(t.Context(), ms) }, 2, strings.Repeat("postsuper"+before+"-h - "+shortID+"\n", 2)},
		{"release", func() (int, error) { return q.Release(t.Context(), ms) }, 1, "postsuper" + before + "-H - " + longHeld + "\npostkick" + before + "public qmgr D\n"},
		{"delete", func() (int, error) { return q.Delete(t.Context(), append(ms, ms...)) }, 2, "postsuper" + before + "-d - " + longHeld + "\n" + shortID + "\n"},
		{"nothing", func() (int, error) { return q.Release(t.Context(), nil) }, 0, ""},
		{"hostile", func() (int, error) { return q.Delete(t.Context(), hostileMessages()) }, 0, ""},
		{"another message", func() (int, error) {
			return q.Delete(t.Context(), []Queued{{ID: longHeld, Arrival: queuedAt.Add(time.Second)}, {ID: shortID}, {ID: "1795998C2C8", Arrival: queuedAt}})
		}, 0, ""},
	} {
		n, err := test.f()
		if got := calls(); n != test.n || err != nil || got != test.want {
			t.Errorf("%s: got %d, %v, called %q; want %d, %q", test.do, n, err, got, test.n, test.want)
		}
	}
	for _, m := range hostileMessages() {
		if b, err := q.Headers(t.Context(), m); !errors.Is(err, mailq.ErrGone) {
			t.Errorf("header of %.40q: %q, %v", m.ID, b, err)
		}
	}
	if found, err := q.Look(t.Context(), append(hostileIDs, shortID)); len(found) != 1 || err != nil {
		t.Errorf("looked up %+v, %v", found, err)
	}
}

func TestPostfixQueueFails(t *testing.T) {
	q, _ := postfixSpool(t, map[string]string{"hold/" + longHeld: postfixMessage(queuedAt), "deferred/1/" + shortID: postfixMessage(queuedAt)})
	all := []Queued{{ID: longHeld, Arrival: queuedAt}, {ID: shortID, Arrival: queuedAt}}
	says := func(text string) []string { return []string{script(t, "cat > /dev/null; "+text)} }
	q.Command = says("echo 'postsuper: fatal: use of this command is reserved for the superuser' >&2; exit 1")
	if n, err := q.Hold(t.Context(), all); n != 0 || err == nil || !strings.Contains(err.Error(), "reserved for the superuser") {
		t.Errorf("a failing postsuper: got %d, %v", n, err)
	}
	q.Command = says("echo 'postsuper: Released from hold: 1 message' >&2")
	q.ConfigDir = "/nonexistent"
	if n, err := q.Release(t.Context(), all); n != 1 || err == nil || !strings.Contains(err.Error(), "next queue run") {
		t.Errorf("a failing postkick: got %d, %v", n, err)
	}
	q.Dir = filepath.Join(q.Dir, "nowhere")
	if _, err := q.Find(t.Context(), func(Queued) bool { return true }); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no queue: got %v", err)
	}
}

func TestOfAccount(t *testing.T) {
	for _, test := range []struct {
		name string
		m    Queued
		want bool
	}{
		{"the login", Queued{Login: "alice@shop.test", UID: -1}, true},
		{"in another case", Queued{Login: "ALICE@Shop.Test", UID: -1}, true},
		{"an alias", Queued{Login: "alice", UID: -1}, true},
		{"only the sender", Queued{Login: "bob@shop.test", Sender: "alice@shop.test", UID: -1}, false},
		{"nobody", Queued{Sender: "alice@shop.test", UID: -1}, false},
		{"a login beside the user", Queued{Login: "bob@shop.test", User: "shop", UID: 1001}, false},
		{"the user", Queued{User: "shop", UID: -1}, true},
		{"another user", Queued{User: "Shop", UID: -1}, false},
		{"the number", Queued{UID: 1001}, true},
		{"another number", Queued{UID: 1002}, false},
		{"more than the login", Queued{Login: "alice@shop.test\x00", UID: -1}, false},
	} {
		if got := OfAccount([]string{"Alice@shop.test", "alice", ""}, []string{"shop", ""}, []int{1001, -1})(test.m); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}
