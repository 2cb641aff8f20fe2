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

const (
	eximID     = "1xV5h8-0005qv-12"
	eximFrozen = "1xV5h8-00000005qvA-19Az"
)

// eximMessage is the -H file of a message of alice's.
func eximMessage(id string, at time.Time, more string) string {
	return fmt.Sprintf("%s-H\nDebian-exim 101 103\n<ceo@bank.test>\n%d 0\n%s-host_address [192.0.2.1]:4711\n-received_protocol esmtpa\n-auth_id alice@shop.test\nXX\n1\nr@ok.test\n\n",
		id, at.Unix(), more) + "011  Subject: x\n019* To: victim@ok.test\n010F From: a@b\n"
}

// eximSpool makes a queue with messages, and an Exim that writes down how it
// was called and then runs a script.
func eximSpool(t *testing.T, files map[string]string, then string) (q *EximQueue, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, read := filepath.Join(dir, "log"), 0
	return &EximQueue{Command: []string{script(t, `echo "$@" >> `+log+"\n"+then), "before"}, ConfigFile: "/etc/exim.conf", Dir: dir}, func() string {
		b, _ := os.ReadFile(log) // not there: nothing yet. It stays: a delivery may be writing
		fresh := b[read:]
		read = len(b)
		return string(fresh)
	}
}

func TestEximQueue(t *testing.T) {
	const before = "before -C /etc/exim.conf "
	q, calls := eximSpool(t, map[string]string{
		"input/8/" + eximID + "-H": eximMessage(eximID, queuedAt, ""), "input/8/" + eximID + "-D": eximID + "-D\nbody\n",
		"input/" + eximFrozen + "-H":      eximMessage(eximFrozen, queuedAt.Add(time.Hour), "-frozen 1795336818\n"),
		"named/input/1xV5h8-0005qv-13-H":  eximMessage("1xV5h8-0005qv-13", queuedAt, ""),
		"input/8/1xV5h8-0005qv-14-H":      "half",
		"input/8/hdr.1xV5h8-0005qv-14":    eximMessage(eximID, queuedAt, ""),
		"input/8/1xV5h8-0005qv-15-D":      "body",
		"input/8/1xV5h8-0005qv-16 -Mrm-H": eximMessage(eximID, queuedAt, ""),
	}, `shift 4
case "$*" in *12*) echo "Message `+eximID+` is now frozen"; echo "Message 1xV3Ei-0004Nn-1c is now frozen"; echo "Message `+eximID+` has been removed"; esac
echo "Message `+eximFrozen+` is no longer frozen"; echo "Message `+eximFrozen+` has been removed"`)
	ms, err := q.Find(t.Context(), OfAccount([]string{"alice@shop.test"}, nil, nil))
	size := int64(len(eximMessage(eximID, queuedAt, "")) + len(eximID+"-D\nbody\n"))
	m := Queued{ID: eximID, Arrival: queuedAt, Login: "alice@shop.test", UID: -1, Client: netip.MustParseAddr("192.0.2.1"), Sender: "ceo@bank.test", Size: size, Rcpts: 1}
	frozen := m
	frozen.ID, frozen.Arrival, frozen.Held, frozen.Size = eximFrozen, queuedAt.Add(time.Hour), true, int64(len(eximMessage(eximFrozen, queuedAt, "-frozen 1795336818\n")))
	if diff := cmp.Diff(ms, []Queued{m, frozen}, cmpopts.EquateComparable(netip.Addr{})); diff != "" || err != nil {
		t.Fatalf("%v; found (-got +want):\n%s", err, diff)
	}
	for _, test := range []struct {
		do   string
		f    func() (int, error)
		n    int
		want string
	}{
		{"hold", func() (int, error) { return q.Hold(t.Context(), ms) }, 1, "-Mf " + eximID},
		{"delete", func() (int, error) { return q.Delete(t.Context(), append(ms, ms...)) }, 2, "-Mrm " + eximID + " " + eximFrozen},
		{"nothing", func() (int, error) { return q.Hold(t.Context(), nil) }, 0, ""},
		{"hostile", func() (int, error) { return q.Delete(t.Context(), hostileMessages()) }, 0, ""},
		{"another message", func() (int, error) {
			return q.Delete(t.Context(), []Queued{{ID: eximID, Arrival: queuedAt.Add(time.Second)}, {ID: eximFrozen}, {ID: "1xV5h8-0005qv-13", Arrival: queuedAt}})
		}, 0, ""},
	} {
		n, err := test.f()
		if test.want != "" {
			test.want = before + test.want + "\n"
		}
		if got := calls(); n != test.n || err != nil || got != test.want {
			t.Errorf("%s: got %d, %v, called %q; want %d, %q", test.do, n, err, got, test.n, test.want)
		}
	}
	if n, err := q.Release(t.Context(), ms); n != 1 || err != nil {
		t.Errorf("release: got %d, %v", n, err)
	}
	got, want := "", before+"-Mt "+eximFrozen+"\n"+before+"-M "+eximFrozen+"\n"
	for deadline := time.Now().Add(10 * time.Second); got != want && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got += calls() // the delivery is in the background
	}
	if got != want {
		t.Errorf("release called %q, want %q", got, want)
	}
	for _, m := range hostileMessages() {
		if b, err := q.Headers(t.Context(), m); !errors.Is(err, mailq.ErrGone) {
			t.Errorf("header of %.40q: %q, %v", m.ID, b, err)
		}
	}
	if b, err := q.Headers(t.Context(), m); string(b) != "Subject: x\nFrom: a@b\n" || err != nil {
		t.Errorf("header %q, %v", b, err)
	}
	if found, err := q.Look(t.Context(), append(hostileIDs, eximFrozen)); len(found) != 1 || err != nil {
		t.Errorf("looked up %+v, %v", found, err)
	}
}

func TestEximQueueLocked(t *testing.T) {
	files := map[string]string{"input/" + eximID + "-H": eximMessage(eximID, queuedAt, "")}
	m := []Queued{{ID: eximID, Arrival: queuedAt}}
	q, _ := eximSpool(t, files, `dir=$(dirname "$0"); [ -e "$dir/second" ] && echo "Message `+eximID+` is now frozen" && exit; touch "$dir/second"; echo "Message `+eximID+` is locked"; exit 1`)
	if n, err := q.Hold(t.Context(), m); n != 1 || err != nil {
		t.Errorf("locked for a moment: got %d, %v", n, err)
	}
	q, _ = eximSpool(t, files, `echo "Message `+eximID+` is locked"; exit 1`)
	if n, err := q.Hold(t.Context(), m); n != 0 || !errors.Is(err, ErrBusy) {
		t.Errorf("locked for long: got %d, %v", n, err)
	}
}

func TestEximQueueFails(t *testing.T) {
	files := map[string]string{}
	var all []Queued
	for i := range 600 {
		id := fmt.Sprintf("1xV5h8-%06d-12", i)
		files["input/"+id+"-H"] = eximMessage(id, queuedAt, "")
		all = append(all, Queued{ID: id, Arrival: queuedAt})
	}
	for _, test := range []struct{ script, want string }{
		{"echo 'exim: permission denied' >&2; exit 1", "permission denied"},
		{"echo 'Cannot open main log file: Permission denied' >&2; echo 'exim: could not open panic log' >&2; exit 1", "cannot write its main log"},
		{"exit 127", "127"},
		{"kill -9 $$", "killed"},
	} {
		q, _ := eximSpool(t, files, test.script)
		n, err := q.Hold(t.Context(), all)
		if n != 0 || err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 1000 {
			t.Errorf("%s: got %d, %v", test.script, n, err)
		}
	}
	q := &EximQueue{Command: []string{script(t, `echo "spool_directory = `+t.TempDir()+`"`)}}
	if _, err := q.Find(t.Context(), func(Queued) bool { return true }); err == nil || !strings.Contains(err.Error(), "input") {
		t.Errorf("a spool without a queue: got %v", err)
	}
	q.Command = []string{script(t, "echo spool_directory")}
	if _, err := q.Find(t.Context(), func(Queued) bool { return true }); err == nil || !strings.Contains(err.Error(), "where Exim's queue is") {
		t.Errorf("an Exim that does not say: got %v", err)
	}
}
