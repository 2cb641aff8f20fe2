//go:build linux

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/loggen"
)

const (
	killedLines = 100_000
	kills       = 20
)

// killedLog is a log of two days with ten hijacks, five of them within
// minutes: more than the blast limit of the test lets through.
func killedLog(t *testing.T) []byte {
	t.Helper()
	o := loggen.Options{
		Lines: killedLines, Accounts: 300, Rate: 0.1, RFC3339: true, Seed: 1,
		Start: time.Now().Add(-43 * time.Hour).Truncate(time.Second),
	}
	for i, account := range []int{7, 12, 30, 60, 61, 62, 100, 101, 150, 200} {
		h := loggen.Hijack{Account: account, Messages: 50, Rcpts: 1 + i%3, After: time.Duration(20+2*i) * time.Hour}
		if 3 <= i && i < 8 {
			h.After = 26*time.Hour + time.Duration(i)*time.Minute
		}
		o.Hijacks = append(o.Hijacks, h)
	}
	var b bytes.Buffer
	if err := loggen.Write(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A run is one reading of a log, and what it left.
type run struct {
	*service
	path  string // of the log
	table string // of the blocks; empty where there is no postmap
	hook  *hook
	sent  map[string]int // messages seen, by account, at the end
}

// newRun prepares a service that has read nothing. The key that recipients
// are hashed with is the same in all runs, so that nothing is left to chance.
func newRun(t *testing.T) *run {
	t.Helper()
	dir := t.TempDir()
	r := &run{path: filepath.Join(dir, "mail.log"), hook: newHook(t)}
	o := setup{
		Logs:   []string{r.path},
		Rules:  "stale_after: 100000h\nblast_max: 4\n", // the stamps are old and are to be acted on
		Notify: r.hook.section(),
	}
	if _, err := exec.LookPath("postmap"); err == nil {
		r.table = filepath.Join(dir, "sasl_access")
		o.Postfix = fmt.Sprintf("sasl_access: %s\ntable_type: hash\nconfig_dir: %s\n", r.table, postfixConfig(t))
	}
	r.service = newServiceIn(t, dir, filepath.Join(dir, "state"), o)
	if err := errors.Join(os.Mkdir(r.dir, 0o750), os.WriteFile(r.path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	db := r.open()
	if _, err := db.SettingOnce(t.Context(), "recipient-key", []byte("0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// postfixConfig is as much of a configuration as postmap needs.
func postfixConfig(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// finish waits until the whole log is read and everybody is told, and stops
// the service.
func (r *run) finish(t *testing.T) {
	t.Helper()
	r.watching()
	info, err := os.Stat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	r.read(t, r.path, info.Size())
	db := r.open()
	wait(t, "everything decided to be done", func() bool {
		rows, err := db.Decisions(t.Context(), store.DecisionFilter{Limit: 1000})
		return err == nil && !slices.ContainsFunc(rows, func(row store.DecisionRow) bool { return row.OutcomeAt.IsZero() })
	})
	wait(t, "the outbox to be empty", func() bool { // its letters were there before the outcomes
		backlog, err := db.Backlog(t.Context(), time.Now())
		return err == nil && backlog["webhook"].Waiting == 0
	})
	accounts, err := r.Accounts(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	r.sent = map[string]int{}
	for _, a := range accounts {
		r.sent[a.Account] = a.Messages
	}
	if code := r.stop(); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
}

// A result is what a run left in the database and in the table.
type result struct {
	Findings  []rules.Finding
	Decisions []rules.Decision
	Active    []string // what is in force
	Unsettled []string // decisions of which no outcome is known
	Table     string
	Sent      map[string]int // messages seen, by account
}

func (r *run) result(t *testing.T) (res result) {
	t.Helper()
	db := r.open()
	findings, err := db.Findings(t.Context(), store.FindingFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := db.Decisions(t.Context(), store.DecisionFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	active, err := db.Active(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	res.Findings, res.Sent = findings, r.sent
	for _, row := range rows {
		res.Decisions = append(res.Decisions, row.Decision)
		if row.Enforce && row.OutcomeAt.IsZero() {
			res.Unsettled = append(res.Unsettled, row.ID)
		}
	}
	for _, d := range active {
		res.Active = append(res.Active, d.ID)
	}
	slices.SortFunc(res.Findings, func(a, b rules.Finding) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(res.Decisions, func(a, b rules.Decision) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(res.Active)
	if r.table != "" {
		text, err := os.ReadFile(r.table)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		res.Table = string(text)
	}
	return res
}

// blocks counts the decisions to block that are enforced.
func (r result) blocks() (n int) {
	for _, d := range r.Decisions {
		if d.Action == rules.Block && d.Enforce {
			n++
		}
	}
	return n
}

// undisturbed reads a log at once and without interruption.
func undisturbed(t *testing.T, log []byte) (result, map[string]int) {
	t.Helper()
	r := newRun(t)
	if err := os.WriteFile(r.path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	r.launch()
	r.finish(t)
	return r.result(t), r.hook.deliveries()
}

func TestKillNine(t *testing.T) {
	log := killedLog(t)
	want, letters := undisturbed(t, log)
	if want.blocks() < 5 || len(letters) < 20 || len(want.Unsettled) > 0 {
		t.Fatalf("the undisturbed run has %d blocks, %d letters, %v unsettled: not much to compare with", want.blocks(), len(letters), want.Unsettled)
	}
	for _, c := range []struct {
		name      string
		rotations int
	}{
		{"one file", 0},
		{"rotated", 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t)
			r.hook.slow = 20 * time.Millisecond // time to be killed between a letter's delivery and its being written down
			begun := time.Now()
			middles := r.interrupted(t, log, c.rotations)
			r.finish(t)
			got := r.result(t)
			if diff := gocmp.Diff(got, want); diff != "" {
				t.Errorf("after %d kills (-got +want):\n%s", kills, clip(diff, 8000))
			}
			again := r.checkLetters(t, letters)
			t.Logf("%d kills in %s, %d of them in mid-work: %d findings, %d decisions, %d blocks as without; %d letters, %d of them twice",
				kills, time.Since(begun).Round(time.Second), middles, len(got.Findings), len(got.Decisions), got.blocks(), len(letters), again)
		})
	}
}

// checkLetters compares what people were told with an undisturbed run, and
// counts what they were told more than once.
func (r *run) checkLetters(t *testing.T, want map[string]int) (again int) {
	t.Helper()
	got := r.hook.deliveries()
	for id := range want {
		if got[id] == 0 {
			t.Errorf("%s was never told", id)
		}
	}
	for id, n := range got {
		if want[id] == 0 {
			t.Errorf("%s was told, and not without the kills", id)
		}
		if n > 1+kills {
			t.Errorf("%s was told %d times", id, n)
		}
		again += n - 1
	}
	if again > kills {
		t.Errorf("%d letters were told again in %d interruptions: at most one is under way", again, kills)
	}
	return again
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// interrupted feeds the log as a mail server would, faster, and kills the
// service at random moments. It returns how many of the kills found it with
// something still to read.
func (r *run) interrupted(t *testing.T, log []byte, rotations int) (middles int) {
	t.Helper()
	const each = 700 * time.Millisecond // mean life of the service
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var fed sync.WaitGroup
	f := &feeder{path: r.path, text: log, written: r.begin(t, log), rotations: rotations, lasts: kills * each}
	var failed error
	fed.Go(func() { failed = f.feed(ctx) })
	for range kills {
		r.launch()
		time.Sleep(time.Duration(rand.Int64N(int64(2 * each)))) // the random moment
		select {
		case <-r.gone:
			t.Fatalf("vedetta ended by itself: %s", r.cmd.ProcessState)
		default:
		}
		if !f.ended() {
			middles++
		}
		r.kill()
	}
	r.launch()
	fed.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	return middles
}

// begin lets the service read the first lines in peace, and kills it. A service
// that never came to write down where it is begins with the file that it finds,
// and what was rotated before is not its own.
func (r *run) begin(t *testing.T, log []byte) (written int) {
	t.Helper()
	written = bytes.LastIndexByte(log[:4096], '\n') + 1
	if err := os.WriteFile(r.path, log[:written], 0o600); err != nil {
		t.Fatal(err)
	}
	r.launch()
	r.read(t, r.path, int64(written))
	r.kill()
	return written
}

// A feeder writes a log over some time, and rotates it as logrotate does.
type feeder struct {
	path      string
	text      []byte
	written   int
	rotations int
	lasts     time.Duration

	mu   sync.Mutex // guards done
	done bool
}

func (f *feeder) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

func (f *feeder) feed(ctx context.Context) error {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.done = true
	}()
	out, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { out.Close() }()
	begun := time.Now()
	rotated := 0
	for tick := time.NewTicker(5 * time.Millisecond); f.written < len(f.text); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		due := min(len(f.text), int(float64(len(f.text))*float64(time.Since(begun))/float64(f.lasts)))
		due = max(due, f.written)
		if _, err := out.Write(f.text[f.written:due]); err != nil { // mostly in mid-line
			return err
		}
		f.written = due
		if rotated < f.rotations && f.written > (rotated+1)*len(f.text)/(f.rotations+1) {
			rotated++
			if out, err = f.rotate(out); err != nil {
				return err
			}
		}
	}
	return nil
}

// rotate completes the line, renames the file and begins a new one.
func (f *feeder) rotate(out *os.File) (*os.File, error) {
	if end := bytes.IndexByte(f.text[f.written:], '\n'); end >= 0 && f.text[f.written-1] != '\n' {
		if _, err := out.Write(f.text[f.written : f.written+end+1]); err != nil {
			return out, err
		}
		f.written += end + 1
	}
	for n := f.rotations; n > 0; n-- {
		older := fmt.Sprintf("%s.%d", f.path, n)
		newer := strings.TrimSuffix(fmt.Sprintf("%s.%d", f.path, n-1), ".0")
		if err := os.Rename(newer, older); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
	}
	fresh, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return out, err
	}
	return fresh, out.Close()
}

// A crash between writing a decision down and telling it leaves it without an
// outcome: whatever it was, and however long the service was away, people are
// still told.
func TestUntoldIsTold(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	for _, c := range []struct {
		name     string
		decision rules.Decision
		told     string
	}{
		{"carried out", rules.Decision{Action: rules.Block, Enforce: true, Until: now.Add(time.Hour)}, "blocked"},
		{"over meanwhile", rules.Decision{Action: rules.Block, Enforce: true, Until: now.Add(-time.Minute)}, "blocked"},
		{"only proposed", rules.Decision{Action: rules.Block, HeldBack: rules.HeldMode}, "would"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t)
			at := now.Add(-10 * time.Minute)
			f := rules.Finding{
				ID: rules.FindingID(rules.HijackedMailbox, alice, at), Rule: rules.HijackedMailbox, Subject: alice, Class: "login", Time: at, Since: at,
				Score: 17, Families: 2, Messages: 9, Rcpts: 9, Evidence: []rules.Evidence{{Kind: rules.Novelty, Score: 17, Text: "9 of 9 recipients never written to before"}},
			}
			d := c.decision
			d.ID, d.Finding, d.Rule, d.Subject, d.Time, d.Why = rules.DecisionID(f.ID, d.Action), f.ID, f.Rule, f.Subject, at, "score 17"
			db := r.open()
			if _, err := db.Commit(t.Context(), store.Batch{Findings: []rules.Finding{f}, Decisions: []rules.Decision{d}}); err != nil {
				t.Fatal(err)
			}
			r.start()
			wait(t, "the alert", func() bool { return r.hook.told(alice, c.told) })
		})
	}
}
