//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/enforce/paneltest"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/test/bed"
)

// A fate is what becomes of a message.
type fate string

const (
	sends   fate = "sends"   // accepted, and delivered
	keeps   fate = "held"    // accepted, and in the queue until somebody frees it
	refuses fate = "refused" // with a reason
)

// A letter is one message that a cell sent.
type letter struct {
	rcpt   string
	begun  time.Time // when the client connected
	at     time.Time // when the server had answered
	reason string    // of a refusal
}

// A cell is one action at one hook of one mail server, on an account of its
// own.
type cell struct {
	*matrix
	action, where string
	service       *service // nil: nobody orders anything, the account is a neighbour
	account       string
	stopped       fate // of a message while Vedetta runs
	away          fate // of a message while it does not
	limit         time.Duration
	keptBack      bool         // the server knows of the refusal before it tells it
	order         func() error // gives the order; nil: vedetta ACTION ACCOUNT
	post          func(rcpt string) error
	isHeld        func(rcpt string) bool
	look          func() (fate, error) // what would become of a message, where none can be sent
	burst         int                  // so many messages may pass, after a start, before one is stopped
	fresh         string               // the password after a reset
	old           bool                 // tries the old password after a reset, and not the new one

	sprees  int // that were written into a log
	letters []letter
	row     row
}

// A row is what was seen of a cell, in the order of the page's columns.
type row struct {
	effect                                      time.Duration
	killed, stopped, upgraded, restarted, twice string
	undone                                      time.Duration
	sent, delivered, refused                    int
}

// send sends one message to a recipient of its own and notes it.
func (c *cell) send() letter {
	l := letter{rcpt: fmt.Sprintf("m%d-%d@%s", c.number(), len(c.letters), bed.OK), begun: time.Now()}
	if err := c.post(l.rcpt); err != nil {
		l.reason = strings.TrimSpace(err.Error())
	}
	l.at = time.Now()
	c.letters = append(c.letters, l)
	return l
}

func (c *cell) number() int { return slices.Index(c.cells, c) }

// fate waits until it is known what became of a message.
func (c *cell) fate(l letter) (fate, error) {
	if l.reason != "" {
		return refuses, nil
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c.delivered(l.rcpt) > 0 {
			return sends, nil
		}
		if c.isHeld(l.rcpt) {
			return keeps, nil
		}
	}
	return "", fmt.Errorf("the message to %s is neither delivered nor held after %s", l.rcpt, patience)
}

// try sends a message and waits for what becomes of it. It returns the time of
// the server's answer; of a refusal that is kept back, that of its client.
func (c *cell) try() (fate, time.Time, error) {
	if c.look != nil {
		got, err := c.look()
		return got, time.Now(), err
	}
	l := c.send()
	got, err := c.fate(l)
	if c.keptBack && got == refuses {
		return got, l.begun, err
	}
	return got, l.at, err
}

// probe sends as many messages as it takes to tell, and returns the fate of
// the last.
func (c *cell) probe() (got fate, err error) {
	for range 1 + c.burst {
		if got, _, err = c.try(); got != sends || err != nil {
			break
		}
	}
	return got, err
}

// last is the last letter, for a person.
func (c *cell) last() string {
	if len(c.letters) == 0 {
		return "no letter"
	}
	return fmt.Sprintf("%+v", c.letters[len(c.letters)-1])
}

// until tries until a message has a fate, and returns the time of the answer.
func (c *cell) until(want fate) (at time.Time, err error) {
	var got fate
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if got, at, err = c.try(); got == want || err != nil {
			return at, err
		}
	}
	return at, fmt.Errorf("still %s after %s, want %s: %s", got, patience, want, c.last())
}

// takesEffect gives the order and sends until a message is stopped. Dovecot,
// which looks at its files once a second, has just looked.
func (c *cell) takesEffect() error {
	if c.keptBack {
		nextSecond()
		if got, _, err := c.try(); got != sends || err != nil {
			return fmt.Errorf("before the order: %s: %w", got, err)
		}
	}
	ordered := make(chan error, 1)
	begun := time.Now()
	go func() { ordered <- c.order() }()
	at, err := c.until(c.stopped)
	if err := errors.Join(err, <-ordered); err != nil {
		return err
	}
	c.row.effect = at.Sub(c.since(begun))
	if c.row.effect > c.limit+busy() {
		return fmt.Errorf("takes effect after %s, want %s", c.row.effect, c.limit)
	}
	return c.carriedOut()
}

// carriedOut waits until the journal has what became of the order: the gate stops
// the account at once, while its tables are still being written.
func (c *cell) carriedOut() error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		rows, err := c.decisions()
		if err != nil {
			return err
		}
		if len(rows) > 0 && !slices.ContainsFunc(rows, func(r store.DecisionRow) bool { return !r.OK }) {
			return nil
		}
	}
	return fmt.Errorf("the journal does not say after %s that it was carried out", patience)
}

// since is when Vedetta had the order, by its journal; for a throttle, which no
// person orders, when the log was written that made it.
func (c *cell) since(begun time.Time) time.Time {
	rows, err := c.decisions()
	if c.action == "throttle" || err != nil || len(rows) == 0 {
		return begun
	}
	return rows[len(rows)-1].Time
}

// decisions are those about the account that were carried out, newest first.
func (c *cell) decisions() ([]store.DecisionRow, error) {
	rows, err := c.databases[c.service].Decisions(context.Background(), store.DecisionFilter{Subject: c.account})
	return slices.DeleteFunc(rows, func(r store.DecisionRow) bool { return !r.Enforce }), err
}

// again gives the order once more: nothing changes but the journal, which has
// an intent for each order of a person's, and one for each finding.
func (c *cell) again() error {
	if err := c.order(); err != nil {
		return err
	}
	if got, err := c.probe(); got != c.stopped {
		return fmt.Errorf("%s: %v", got, err)
	}
	want := 2
	if c.action == "throttle" {
		want = 1
	}
	if rows, err := c.decisions(); err != nil || len(rows) != want {
		return fmt.Errorf("the journal has %d decisions, want %d: %v", len(rows), want, err)
	}
	c.row.twice = "the same"
	return nil
}

// lift undoes by one command; the next message is accepted.
func (c *cell) lift() error {
	c.caughtUp()
	out, errs, code := c.service.command("release", c.account)
	if code != 0 {
		return fmt.Errorf("release: exit %d: %s%s", code, out, errs)
	}
	begun := time.Now()
	if err := c.freshPassword(); err != nil {
		return err
	}
	at, err := c.until(sends)
	if err != nil {
		return err
	}
	c.row.undone = at.Sub(begun)
	switch {
	case c.row.undone > c.limit+busy():
		return fmt.Errorf("undone after %s, want %s", c.row.undone, c.limit)
	case c.fresh != "" && c.look == nil:
		c.passwords.Delete(c.account)
		if got, _, err := c.try(); got != refuses {
			return fmt.Errorf("the old password: %s: %v", got, err)
		}
	}
	return c.allEnded()
}

// freshPassword has the account use the password that a reset gave it; a panel
// must have taken it.
func (c *cell) freshPassword() error {
	if c.fresh == "" && c.action == "reset" {
		return errors.New("nobody was shown the new password")
	}
	if c.fresh != "" && c.look == nil {
		c.passwords.Store(c.account, c.fresh)
	}
	if c.action != "reset" || c.look == nil {
		return nil
	}
	state, err := c.panel.State()
	if err == nil && state.Mailboxes[c.account].Password != c.fresh {
		err = errors.New("the panel has another password than was shown")
	}
	return err
}

func (c *cell) allEnded() error {
	rows, err := c.decisions()
	for _, r := range rows {
		if r.EndedAt.IsZero() || !r.OK {
			err = errors.Join(err, fmt.Errorf("the journal says of %s: ended %v, done %v %s", r.ID, r.EndedAt, r.OK, r.Outcome))
		}
	}
	return err
}

// settle counts that no message is lost: whatever was accepted is delivered,
// once, and what was refused never and with a reason. What a throttle lets out
// by itself may be on its way when the mail server is killed, which then sends
// it again, as SMTP has it.
func (c *cell) settle() error {
	var errs []error
	for _, l := range c.letters {
		if l.reason != "" {
			c.row.refused++
			if c.delivered(l.rcpt) > 0 {
				errs = append(errs, fmt.Errorf("the message to %s was refused (%s), and delivered", l.rcpt, l.reason))
			}
			continue
		}
		if got, err := c.fate(l); got != sends {
			errs = append(errs, fmt.Errorf("the message to %s is %s after all was undone: %v", l.rcpt, got, err))
			continue
		}
		c.row.delivered++
		if n := c.delivered(l.rcpt); n > 1 && c.action != "throttle" {
			errs = append(errs, fmt.Errorf("the message to %s was delivered %d times", l.rcpt, n))
		}
	}
	c.row.sent = len(c.letters)
	return errors.Join(errs...)
}

// A matrix is the mail servers, the services of Vedetta beside them, each with
// its own hooks, and the cells.
type matrix struct {
	t *testing.T
	*bed.Bed
	socket, files *bed.Exim // one only asks, one only reads files
	services      map[string]*service
	databases     map[*service]*store.DB
	logs          map[*service]string // the mail server's
	tables        []string            // texts that Vedetta writes
	panel         *paneltest.Panel    // cPanel and Plesk at once
	passwords     sync.Map            // after a reset, by login
	cells         []*cell
}

// delivered counts the copies of a message that arrived.
func (m *matrix) delivered(rcpt string) (n int) {
	for _, mail := range m.Received(bed.OK) {
		if slices.Contains(mail.To, rcpt) {
			n++
		}
	}
	return n
}

// each runs a step of all cells at once, and fails the test for those that
// return an error.
func (m *matrix) each(what string, do func(*cell) error) {
	m.t.Helper()
	begun := time.Now()
	var all sync.WaitGroup
	for _, c := range m.cells {
		all.Go(func() {
			if err := do(c); err != nil {
				m.t.Errorf("%s × %s (%s): %s: %v", c.where, c.action, c.account, what, err)
			}
		})
	}
	all.Wait()
	m.t.Logf("%s: %s", what, time.Since(begun).Round(time.Millisecond))
}

// orders is each for cells that are not neighbours.
func (m *matrix) orders(what string, do func(*cell) error) {
	m.t.Helper()
	m.each(what, func(c *cell) error {
		if c.service == nil {
			return nil
		}
		return do(c)
	})
}

// oneByOne is orders for what is measured: cells do not wait for each other's
// processes.
func (m *matrix) oneByOne(what string, do func(*cell) error) {
	m.t.Helper()
	var turn sync.Mutex
	m.orders(what, func(c *cell) error {
		turn.Lock()
		defer turn.Unlock()
		return do(c)
	})
}

// holds checks all cells under a disturbance, and notes what was seen.
func (m *matrix) holds(what string, away bool, note func(*row) *string) {
	m.t.Helper()
	m.each(what, func(c *cell) error {
		want := c.stopped
		if away {
			want = c.away
		}
		got, err := c.probe()
		if err == nil && got != want {
			err = fmt.Errorf("%s, want %s: %s", got, want, c.last())
		}
		if note != nil {
			*note(&c.row) = string(got)
		}
		return err
	})
}

func (m *matrix) kill() {
	for _, s := range m.services {
		s.kill()
	}
}

func (m *matrix) start() {
	m.t.Helper()
	for _, s := range m.services {
		s.launch()
	}
	for _, s := range m.services {
		s.watching()
	}
}

func (m *matrix) signal(sig syscall.Signal) {
	for _, s := range m.services {
		s.signal(sig)
	}
}

// twice gives every order again, and compares the tables.
func (m *matrix) twice() {
	m.t.Helper()
	before := m.tableTexts()
	m.orders("ordered twice", (*cell).again)
	if diff := cmp.Diff(m.tableTexts(), before); diff != "" {
		m.t.Errorf("ordered twice, the tables differ (-got +before):\n%s", diff)
	}
}

func (m *matrix) tableTexts() map[string]string {
	texts := map[string]string{}
	for _, path := range m.tables {
		text, err := os.ReadFile(path)
		if err != nil {
			m.t.Error(err)
		}
		texts[path] = string(text)
	}
	return texts
}

// upgrade starts another build on the same state.
func (m *matrix) upgrade() {
	m.t.Helper()
	program := filepath.Join(m.t.TempDir(), "vedetta")
	if err := build(program, ourCommand, "-ldflags=-s -w"); err != nil {
		m.t.Fatal(err)
	}
	for _, s := range m.services {
		if code := s.stop(); code != 0 {
			m.t.Errorf("vedetta ended with %d", code)
		}
		s.program = program
	}
	m.start()
}

// restart kills the mail servers and starts them again.
func (m *matrix) restart() {
	m.t.Helper()
	err := m.Restart()
	for _, e := range []*bed.Exim{m.socket, m.files} {
		err = errors.Join(err, e.Stop(), e.Start())
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// caughtUp waits until the cell's service has read all that its mail server
// logged.
func (c *cell) caughtUp() {
	path := c.logs[c.service]
	info, err := os.Stat(path)
	if err != nil {
		c.t.Error(err)
		return
	}
	db := c.databases[c.service]
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if readTo(db, path) >= info.Size() {
			return
		}
	}
	c.t.Errorf("%s is not read after %s", path, patience)
}

// readTo is how far a log is read and what it led to written down.
func readTo(db *store.DB, path string) int64 {
	var p mailq.Position
	positions, err := db.LoadPositions(context.Background())
	if err != nil || json.Unmarshal(positions[path], &p) != nil {
		return -1
	}
	return p.Offset
}

// TestMatrix drives every action at every hook through every disturbance, and
// compares what it saw with docs/enforcement.md.
func TestMatrix(t *testing.T) {
	m := newMatrix(t)
	m.each("before", func(c *cell) error {
		if got, _, err := c.try(); got != sends {
			return fmt.Errorf("%s: %v", got, err)
		}
		return nil
	})
	m.oneByOne("takes effect", (*cell).takesEffect)
	m.twice()
	nextSecond() // Dovecot looks at its passwd-file once a second: until then it may know the password before
	m.kill()
	m.holds("Vedetta killed", true, func(r *row) *string { return &r.killed })
	m.restart()
	m.holds("Vedetta killed and the mail server restarted", true, nil)
	m.start()
	m.holds("Vedetta back", false, nil)
	m.signal(syscall.SIGSTOP)
	m.holds("Vedetta stopped", true, func(r *row) *string { return &r.stopped })
	m.signal(syscall.SIGCONT)
	m.restart()
	m.holds("the mail server restarted", false, func(r *row) *string { return &r.restarted })
	m.upgrade()
	m.holds("Vedetta upgraded", false, func(r *row) *string { return &r.upgraded })
	m.oneByOne("undo", (*cell).lift)
	m.each("count", (*cell).settle)
	m.page()
}
