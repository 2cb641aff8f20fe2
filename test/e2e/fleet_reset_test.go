//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/rules"
)

// A resetTown is a fleet whose passwords are in a file of Dovecot's beside the
// first agent; the second has programs that note what they are told.
type resetTown struct {
	*fleetTown
	second *service
	dir    string
}

// handLetter hands passwords over: slowly where a file says so, and each on a line
// of its own.
const handLetter = `#!/bin/sh
read -r password
echo "$1 $password" >> DIR/given
while [ -e DIR/slow ]; do sleep 0.05; done
`

func newResetTown(t *testing.T) *resetTown {
	t.Helper()
	f := &resetTown{fleetTown: newFleetTown(t), dir: openDir(t)}
	f.program("letter", handLetter)
	f.program("revoke", "#!/bin/sh\necho \"$1\" >> DIR/revoked\n")
	f.agent.stop()
	f.agent.configure(fmt.Sprintf("dovecot: {config_file: %s}\nreset:\n  passwd_file: {path: %s}\n  handover: {command: [%s, \"{account}\"]}\n",
		filepath.Join(f.Bed.Dir, "dovecot.conf"), filepath.Join(f.Bed.Dir, "users"), f.path("letter")))
	f.agent.start()
	if err := os.WriteFile(f.path("log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.second = newService(t, setup{Hub: f.hubAddr, Logs: []string{f.path("log")}})
	f.second.configure(fmt.Sprintf("reset: {sessions: false, revoke: [%s, \"{login}\"]}\n", f.path("revoke")))
	f.second.role = "agent"
	f.enrol(f.second, "mx2")
	f.second.start()
	f.connected(2)
	return f
}

func (f *resetTown) path(name string) string { return filepath.Join(f.dir, name) }

func (f *resetTown) program(name, text string) {
	f.Helper()
	if err := os.WriteFile(f.path(name), []byte(strings.ReplaceAll(text, "DIR", f.dir)), 0o755); err != nil {
		f.Fatal(err)
	}
}

// lines is what a program has noted.
func (f *resetTown) lines(name string) []string {
	text, _ := os.ReadFile(f.path(name)) // not there: nothing yet
	return strings.Fields(string(text))
}

// password is the one that was handed over last.
func (f *resetTown) password(account string) string {
	f.Helper()
	given := f.lines("given")
	if len(given) == 0 || given[len(given)-2] != account {
		f.Fatalf("handed over: %q", given)
	}
	return given[len(given)-1]
}

// outcome is what became of the reset of an account, and false as long as there
// is none.
func (f *resetTown) outcome(db *store.DB, account string) (row store.DecisionRow, over bool) {
	rows, err := db.Decisions(f.Context(), store.DecisionFilter{Subject: account})
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range rows {
		if r.Action == rules.Reset {
			return r, !r.OutcomeAt.IsZero()
		}
	}
	return row, false
}

// loggedIn checks that the password is the account's: it is blocked, so with the
// right one it is refused at its recipient and with a wrong one at its login.
func (f *resetTown) loggedIn(account, password string) bool {
	f.Helper()
	err := f.Send(account, password, account, contact(account, 1))
	code, text := refusal(err)
	switch {
	case code == 535:
		return false
	case strings.Contains(text, blockedText):
		return true
	}
	f.Fatalf("%s is neither blocked nor kept out: %v", account, err)
	return false
}

// A password that is on an agent's server is changed there, and does not leave
// it but by the handover.
func TestFleetResetsPasswords(t *testing.T) {
	f := newResetTown(t)
	out := f.must("reset", alice, "--json")
	if !strings.Contains(out, "handed over by agent mx1") {
		t.Errorf("the operator is told %s", out)
	}
	fresh := f.password(alice)
	if strings.Contains(out, fresh) {
		t.Error("the password came to the hub")
	}
	if f.loggedIn(alice, "pw-alice") || !f.loggedIn(alice, fresh) {
		t.Error("it is not the new password that is valid")
	}
	wait(t, "the other agent to revoke", func() bool { return slices.Contains(f.lines("revoked"), alice) })
	f.must("unblock", alice)
	wait(t, "alice to send with her new password", func() bool { return f.Send(alice, fresh, alice, contact(alice, 1)) == nil })
	for _, dir := range []string{f.dir, f.agent.dir, f.second.dir, f.service.dir} {
		if dir != f.dir && holds(t, dir, fresh) {
			t.Errorf("%s has the password", dir)
		}
	}
}

// holds reports whether a file below dir has the text in it.
func holds(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(path)
		found = found || strings.Contains(string(body), text)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

// Whoever is killed while a password is changed, the reset comes to its end, and
// the password that was handed over last is the one that is valid.
func TestFleetResetsThroughCrashes(t *testing.T) {
	f := newResetTown(t)
	victims := map[string][]*service{alice: {f.agent}, bob: {f.service}, erin: {f.agent, f.service}}
	for account, killed := range victims {
		if err := os.WriteFile(f.path("slow"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(f.lines("given"))
		asked := make(chan error, 1)
		go func() {
			_, err := f.Act(t.Context(), web.Order{Do: "reset", Account: account, Who: "root"})
			asked <- err
		}()
		wait(t, "the handover", func() bool { return len(f.lines("given")) > before })
		for _, s := range killed {
			s.kill()
		}
		time.Sleep(100 * time.Millisecond)
		if err := os.Remove(f.path("slow")); err != nil {
			t.Fatal(err)
		}
		for _, s := range killed {
			s.start()
		}
		f.connected(2)
		if err := <-asked; err == nil && len(killed) > 1 {
			t.Error("the order was answered by a hub that was killed")
		}
		db := f.service.open()
		wait(t, "the outcome of "+account, func() bool { _, over := f.outcome(db, account); return over })
		if row, _ := f.outcome(db, account); !row.OK || !strings.Contains(row.Outcome, "agent mx1") {
			t.Errorf("%s: %+v", account, row)
		}
		if old := "pw-" + strings.TrimSuffix(account, "@shop.test"); f.loggedIn(account, old) || !f.loggedIn(account, f.password(account)) {
			t.Errorf("%s: not the last password is valid", account)
		}
	}
}
