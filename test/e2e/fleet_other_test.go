//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
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
	dir := filepath.Dir(binary) // which goes when the tests end
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	clock := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	text, err := os.ReadFile(clock)
	if err != nil {
		return "", err
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n"
	at := strings.Index(string(text), "\nfunc Now() Time {\n"+now)
	if at < 0 {
		return "", errNoClock
	}
	shifted := string(text[:at]) + strings.Replace(string(text[at:]), now, now+"\tsec += clockAhead\n", 1)
	shifted = strings.Replace(shifted, "import (\n", "import (\n\t\"syscall\"\n", 1) + `
var clockAhead = func() int64 {
	text, _ := syscall.Getenv("CLOCK_AHEAD")
	n, _ := atoi(text)
	return int64(n)
}()
`
	migrations, err := filepath.Abs("../../internal/store/migrations")
	if err != nil {
		return "", err
	}
	overlay := map[string]string{}
	for path, text := range map[string]string{
		clock: shifted,
		filepath.Join(migrations, "9999-next.sql"): "ALTER TABLE decisions ADD COLUMN later TEXT NOT NULL DEFAULT '';\nCREATE TABLE later (id INTEGER PRIMARY KEY) STRICT;\n",
	} {
		overlay[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(overlay[path], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	list := filepath.Join(dir, "overlay.json")
	body, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(list, body, 0o600); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "vedetta-next")
	build := exec.Command("go", "build", "-overlay", list, "-o", program, "github.com/vedetta-watch/vedetta/cmd/vedetta")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return program, nil
})

var errNoClock = errors.New("time.Now looks otherwise in this version of Go: see nextRelease")

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
