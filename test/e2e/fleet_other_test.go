//go:build linux

package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// nextRelease builds vedetta as a later release may be: with one more migration
// of the database, and another clock where CLOCK_AHEAD says by how many seconds.
// The source of both is laid over this one for the compiler alone.
var nextRelease = sync.OnceValues(func() (program string, err error) {
	clock, shifted, err := shiftedClock()
	if err != nil {
		return "", err
	}
	migration, err := filepath.Abs("../../internal/store/migrations/" + nextMigration)
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(binary) // which goes when the tests end
	overlay := map[string]string{}
	for path, text := range map[string]string{
		clock:     shifted,
		migration: "ALTER TABLE decisions ADD COLUMN later TEXT NOT NULL DEFAULT '';\nCREATE TABLE later (id INTEGER PRIMARY KEY) STRICT;\n",
	} {
		overlay[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(overlay[path], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "vedetta-next")
	return program, build(program, ourCommand, "-overlay", file)
})

const nextMigration = "9999-next.sql"

// shiftedClock is the file of the standard library with time.Now, and its text
// with a clock that CLOCK_AHEAD moves.
func shiftedClock() (file, text string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", "", err
	}
	file = filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	source, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	const now = "\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if !strings.Contains(string(source), now) {
		return "", "", fmt.Errorf("%s: time.Now looks otherwise than shiftedClock knows it", file)
	}
	text = strings.Replace(string(source), now, now+"\tsec += clockAhead\n", 1)
	text = strings.Replace(text, "import (\n", "import (\n\t\"syscall\"\n", 1) + `
var clockAhead = func() int64 {
	text, _ := syscall.Getenv("CLOCK_AHEAD")
	n, _ := atoi(text)
	return int64(n)
}()
`
	return file, text, nil
}

func next(t *testing.T) string {
	t.Helper()
	program, err := nextRelease()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// TestFleetClock has an agent and its log two hours fast, or slow.
func TestFleetClock(t *testing.T) {
	program := next(t)
	for name, ahead := range map[string]time.Duration{"two hours fast": 2 * time.Hour, "two hours slow": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFleetRig(t, filepath.Join(t.TempDir(), "hub"), filepath.Join(t.TempDir(), "agent"))
			r.agent.stop()
			r.agent.program, r.agent.env, r.ahead = program, append(r.agent.env, fmt.Sprintf("CLOCK_AHEAD=%d", int(ahead.Seconds()))), ahead
			r.agent.start()
			r.repeat(func() { r.send(5, 3) })
			var rows []struct {
				Skew time.Duration `json:"skew_ns"`
			}
			if err := json.Unmarshal([]byte(r.hub.must("agents", "--json")), &rows); err != nil || len(rows) != 1 || (rows[0].Skew-ahead).Abs() > time.Minute {
				t.Errorf("agents: %+v, %v; want a clock that is %s ahead", rows, err, ahead)
			}
		})
	}
}

// TestFleetUpgrade has the hub, or the agent, replaced by a later release and
// back while mail flows.
func TestFleetUpgrade(t *testing.T) {
	program := next(t)
	for _, whose := range []string{"hub", "agent"} {
		t.Run(whose, func(t *testing.T) {
			t.Parallel()
			r := newFleetRig(t, filepath.Join(t.TempDir(), "hub"), filepath.Join(t.TempDir(), "agent"))
			s := map[string]*service{"hub": r.hub, "agent": r.agent}[whose]
			defer func() {
				if !migrated(t, filepath.Join(s.dir, "vedetta.db")) {
					t.Error("the later release did not migrate the database: nothing was tested")
				}
			}()
			r.repeat(func() {
				for _, s.program = range []string{program, ""} {
					if code := s.stop(); code != 0 {
						t.Errorf("vedetta ended with %d", code)
					}
					r.send(5, 3)
					s.start()
					r.pause(500 * time.Millisecond)
				}
			})
		})
	}
}

// migrated reports whether the later release has been at a database.
func migrated(t *testing.T, path string) (yes bool) {
	t.Helper()
	db, err := sql.Open("sqlite", path) // the driver that the store registers
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) > 0 FROM migrations WHERE name = ?", "migrations/"+nextMigration).Scan(&yes); err != nil {
		t.Fatal(err)
	}
	return yes
}
