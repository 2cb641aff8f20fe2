//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
	"github.com/vedetta-watch/vedetta/test/bed"
)

const (
	churned      = 1000             // accounts
	churners     = 8                // who give orders at the same time
	churnLives   = time.Second      // that the service has between two kills
	churnLasts   = 35 * time.Second // then no more orders are given: a slow machine comes to fewer
	churnLetters = 3                // that each account with mail has on hold at the beginning
)

// System users of every Debian that are nobody's and everybody's.
var churnUsers = []string{"games", "man", "lp", "news", "uucp", "proxy", "backup", "irc"}

// A subject is one of the accounts that are stopped and released, and what is
// known of it: as many actions as could be in force.
type subject struct {
	name    string
	may     []rules.Action
	orders  []string // what is still to be ordered of it
	letters bool     // it has mail on hold from the beginning
	lifted  bool     // an order to lift was given
}

// A churn is a mail server with everything that Vedetta can write configured.
type churn struct {
	*bed.Bed
	*service
	t        *testing.T
	dir      string // of the tables
	panels   *panels
	subjects []*subject

	mu                   sync.Mutex // guards what follows
	random               *rand.Rand
	asked, away, unknown int // orders: tried, not begun, with an answer that was lost
	failed               []string
}

// A thousand accounts are stopped and released by several people in any order,
// while the service is killed every second: at the end journal, gate, tables,
// panel and queue agree about each of them.
func TestChurn(t *testing.T) {
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	n := churned
	if testing.Short() {
		n /= 10
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := newChurn(t, n, rand.New(rand.NewPCG(seed, 0)))
	c.holdLetters()
	begun := time.Now()
	lives := c.churnAll()
	c.kill()
	c.start()
	t.Logf("%d accounts, %d orders in %s and %d lives of the service; %d found nobody, the answers to %d were lost, %d were not done at once",
		n, c.asked-c.away, time.Since(begun).Round(time.Second), lives, c.away, c.unknown, len(c.failed))
	c.agree()
}

func newChurn(t *testing.T, n int, random *rand.Rand) *churn {
	t.Helper()
	c := &churn{t: t, dir: openDir(t), random: random}
	var mailboxes []string
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin"} {
		mailboxes = append(mailboxes, name+"@shop.test", name+"@blog.test")
	}
	lettered := len(mailboxes)
	for i := lettered; i < n-len(churnUsers); i++ {
		mailboxes = append(mailboxes, fmt.Sprintf("user%d@shop%d.test", i, i%50))
	}
	for i, address := range mailboxes {
		s := &subject{name: address, may: []rules.Action{rules.Nothing}, letters: i < lettered}
		s.orders = c.history(i < lettered, i < lettered && i%2 == 0)
		c.subjects = append(c.subjects, s)
	}
	for _, user := range churnUsers {
		c.subjects = append(c.subjects, &subject{name: "user:" + user, may: []rules.Action{rules.Nothing}, orders: c.history(false, false)})
	}
	c.panels = newPanels(t, mailboxes, churnUsers)
	gate := freePort(t)
	c.Bed = bed.Start(t, bed.Options{Policy: gate, PolicyTimeout: policyTimeout, SASLAccess: c.path("sasl_access"), SASLAway: c.path("sasl_away"), Deny: c.path("deny")})
	c.service = newService(t, setup{
		Gate: gate, Logs: []string{c.MailLog},
		Postfix: fmt.Sprintf("sasl_access: %s\nsasl_away: %s\nlocal_access: %s\nsubmit_users: %s\ntable_type: hash\nconfig_dir: %s\n", c.path("sasl_access"), c.path("sasl_away"), c.path("local_access"), c.path("submit_users"), c.Config),
	})
	more := fmt.Sprintf("queue:\n  postfix: %s\nexim:\n  block_file: %s\n  hold_file: %s\n  away_file: %s\ndovecot:\n  deny_file: %s\n",
		filepath.Join(c.Bed.Dir, "spool"), c.path("exim_block"), c.path("exim_hold"), c.path("exim_away"), c.path("deny"))
	c.configure(more + c.panels.section())
	c.start()
	return c
}

func (c *churn) path(table string) string { return filepath.Join(c.dir, table) }

// configure adds sections to the configuration file.
func (s *service) configure(more string) {
	s.t.Helper()
	f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = f.WriteString(more)
	if err := errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// history is what is ordered of an account: it is stopped and released, and
// some are stopped again. Of those with mail on hold each other one is never
// released; an unblock would leave the others' mail where it is.
func (c *churn) history(letters, stay bool) []string {
	stop := func() string { return []string{"block", "block", "hold"}[c.random.IntN(3)] }
	if stay {
		return []string{"hold", stop()}
	}
	orders := []string{stop(), []string{"unblock", "release"}[c.random.IntN(2)]}
	if letters {
		orders[1] = "release"
	}
	if c.random.IntN(3) == 0 {
		orders = append(orders, stop())
	}
	return orders
}

// holdLetters holds the accounts that have mail, and has them send it.
func (c *churn) holdLetters() {
	for _, s := range c.subjects {
		if s.letters {
			if _, err := c.Act(c.t.Context(), web.Order{Do: "hold", Account: s.name, Who: "test"}); err != nil {
				c.t.Fatal(err)
			}
			s.may = []rules.Action{rules.Hold}
		}
	}
	sent := 0
	for _, s := range c.subjects {
		if !s.letters {
			continue
		}
		name, _, _ := strings.Cut(s.name, "@")
		for n := range churnLetters {
			if err := c.Send(s.name, "pw-"+name, s.name, fmt.Sprintf("to%d@ok.test", n)); err != nil {
				c.t.Fatal(err)
			}
			sent++
		}
	}
	wait(c.t, "the letters to be held", func() bool {
		held := 0
		for _, n := range c.lettersHeld() {
			held += n
		}
		return held == sent
	})
}

// lettersHeld counts the messages on hold, by sender.
func (c *churn) lettersHeld() map[string]int {
	queue, err := c.Postqueue()
	if err != nil {
		c.t.Fatal(err)
	}
	held := map[string]int{}
	for _, q := range queue {
		if q.Queue == "hold" {
			held[q.Sender]++
		}
	}
	return held
}

// lettersSent counts the messages that arrived, by sender.
func (c *churn) lettersSent() map[string]int {
	sent := map[string]int{}
	for _, m := range c.Received(bed.OK) {
		sent[m.From]++
	}
	return sent
}

// churnAll has all orders given while the service lives and dies, and returns
// how many lives it had.
func (c *churn) churnAll() (lives int) {
	work := make([][]*subject, churners)
	for i, s := range c.subjects {
		for range s.orders {
			work[i%churners] = append(work[i%churners], s)
		}
	}
	for _, of := range work {
		c.random.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
	}
	var orders sync.WaitGroup
	var left atomic.Int64
	end := time.Now().Add(churnLasts)
	for _, of := range work {
		left.Add(1)
		orders.Go(func() {
			defer left.Add(-1)
			for _, s := range of {
				if time.Now().Before(end) {
					c.order(s)
				}
			}
		})
	}
	for lives = 1; ; lives++ {
		for until := time.Now().Add(churnLives); time.Now().Before(until) && left.Load() > 0; {
			time.Sleep(5 * time.Millisecond)
		}
		if left.Load() == 0 {
			orders.Wait()
			return lives
		}
		c.kill()
		c.start()
	}
}

// order gives a subject's next order, again while there is nobody to give it
// to. Of an order whose answer is lost nobody knows whether it was carried
// out: most ask again, some do not.
func (c *churn) order(s *subject) {
	do := s.orders[0]
	s.orders = s.orders[1:]
	lifts := do == "unblock" || do == "release"
	for {
		result, err := c.Act(context.Background(), web.Order{Do: do, Account: s.name, Who: "test"})
		c.mu.Lock()
		c.asked++
		again := false
		switch {
		case err == nil:
			s.may, s.lifted = after(s.may, do), s.lifted || lifts
			if len(result.Failed) > 0 {
				c.failed = append(c.failed, fmt.Sprintf("%s: %q", do, result.Failed))
			}
		case errors.Is(err, syscall.ECONNREFUSED):
			c.away++
			again = true
		default:
			c.unknown++
			s.may, s.lifted = either(s.may, after(s.may, do)), s.lifted || lifts
			again = c.random.IntN(4) > 0
		}
		c.mu.Unlock()
		if !again {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// after is what may be in force after an order that was carried out.
func after(may []rules.Action, do string) (now []rules.Action) {
	for _, a := range may {
		switch do {
		case "block":
			a = max(a, rules.Block)
		case "hold":
			a = max(a, rules.Hold)
		default:
			a = rules.Nothing
		}
		now = either(now, []rules.Action{a})
	}
	return now
}

func either(a, b []rules.Action) []rules.Action {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// agree compares everything that says whether an account is stopped.
func (c *churn) agree() {
	t := c.t
	if len(c.failed) > 0 {
		t.Logf("not done at once, for example: %s", c.failed[0])
	}
	force := c.inForce()
	var blocked, held []string
	for _, s := range c.subjects {
		action := force[s.name]
		if !slices.Contains(s.may, action) {
			t.Errorf("%s: the journal has %s in force, want one of %s", s.name, action, s.may)
		}
		switch action {
		case rules.Block:
			blocked = append(blocked, s.name)
		case rules.Hold:
			held = append(held, s.name)
		}
	}
	t.Logf("at the end %d are blocked, %d held and %d free", len(blocked), len(held), len(c.subjects)-len(blocked)-len(held))
	slices.Sort(blocked)
	slices.Sort(held)
	c.gateAgrees(force)
	c.tablesAgree(blocked, held)
	c.panelAgrees(force)
	c.queueAgrees(force)
}

// inForce is the strongest action that the journal has in force, by account.
func (c *churn) inForce() map[string]rules.Action {
	active, err := c.open().Active(c.t.Context(), time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	force := map[string]rules.Action{}
	for _, d := range active {
		force[d.Subject] = max(force[d.Subject], d.Action)
	}
	return force
}

func (c *churn) gateAgrees(force map[string]rules.Action) {
	for i, s := range c.subjects {
		if mailq.Account(s.name).Kind() != mailq.KindLogin {
			continue
		}
		answer, err := gate.Ask(c.t.Context(), "inet:"+c.gate, "protocol_state=RCPT", fmt.Sprintf("instance=churn.%d", i), "sasl_username="+s.name,
			"sender="+s.name, "recipient=to@ok.test", "client_address=127.0.0.1")
		if err != nil {
			c.t.Fatal(err)
		}
		want := map[rules.Action]string{rules.Nothing: "DUNNO", rules.Hold: "HOLD", rules.Block: "REJECT"}[force[s.name]]
		if word, _, _ := strings.Cut(answer, " "); word != want {
			c.t.Errorf("%s: the gate answers %q, want %s", s.name, answer, want)
		}
	}
}

// tablesAgree compares each table's lines, and the indexes that Postfix reads.
func (c *churn) tablesAgree(blocked, held []string) {
	var access, submit, eximBlock, eximHold, deny []string
	for _, name := range blocked {
		if user, ok := strings.CutPrefix(name, "user:"); ok {
			submit, eximBlock = append(submit, user+" blocked"), append(eximBlock, name)
			continue
		}
		for _, login := range []string{name, strings.Replace(name, "@", "%", 1)} {
			access, eximBlock, deny = append(access, login+" REJECT"), append(eximBlock, login), append(deny, login)
		}
	}
	for _, name := range held {
		if strings.HasPrefix(name, "user:") {
			eximHold = append(eximHold, name)
			continue
		}
		for _, login := range []string{name, strings.Replace(name, "@", "%", 1)} {
			access, eximHold = append(access, login+" HOLD"), append(eximHold, login)
		}
	}
	c.same("sasl_access", c.rows("sasl_access", 2), access)
	c.same("sasl_away", c.rows("sasl_away", 2), access)
	c.same("local_access", c.rows("local_access", 2), c.localRows(slices.Concat(blocked, held)))
	c.same("submit_users", c.rows("submit_users", 2), submit)
	c.same("exim_block", c.rows("exim_block", 1), eximBlock)
	c.same("exim_hold", c.rows("exim_hold", 1), eximHold)
	c.same("exim_away", c.rows("exim_away", 1), slices.Concat(eximBlock, eximHold))
	c.same("deny", c.rows("deny", 1), deny)
	for table, want := range map[string][]string{"sasl_access": access, "sasl_away": access, "submit_users": submit} {
		out, err := exec.Command("/usr/sbin/postmap", "-c", c.Config, "-s", "hash:"+c.path(table)).Output()
		if err != nil {
			c.t.Fatal(err)
		}
		c.same("the index of "+table, rowsOf(string(out), 2), want)
	}
}

// localRows are the lines of the table of local mail.
func (c *churn) localRows(names []string) (rows []string) {
	for _, name := range names {
		if name, ok := strings.CutPrefix(name, "user:"); ok {
			u, err := user.Lookup(name)
			if err != nil {
				c.t.Fatal(err)
			}
			rows = append(rows, "uid:"+u.Uid+" HOLD")
		}
	}
	return rows
}

func (c *churn) same(what string, got, want []string) {
	c.t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if diff := gocmp.Diff(got, want); diff != "" {
		c.t.Errorf("%s (-got +want):\n%s", what, clip(diff, 4000))
	}
}

// rows are the first words of a table's lines.
func (c *churn) rows(table string, words int) []string {
	text, err := os.ReadFile(c.path(table))
	if err != nil {
		c.t.Fatal(err)
	}
	return rowsOf(string(text), words)
}

func rowsOf(text string, words int) (rows []string) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(line, "#") {
			key := strings.Trim(strings.TrimSuffix(fields[0], ":"), `"`)
			rows = append(rows, strings.Join(append([]string{key}, fields[1:min(words, len(fields))]...), " "))
		}
	}
	return rows
}

// panelAgrees compares the panel's state and what the database notes of it. An
// account that was held before it was blocked may still be held there too.
func (c *churn) panelAgrees(force map[string]rules.Action) {
	suspended, held := c.panels.stopped(c.t)
	noted, err := c.open().Switched(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range c.subjects {
		has := func(names []string) bool { return slices.Contains(names, s.name) }
		marked := func(a rules.Action) bool {
			return slices.ContainsFunc(noted, func(m store.Switched) bool { return m.Subject == s.name && m.Action == a && m.Done })
		}
		action := force[s.name]
		if has(suspended) != (action == rules.Block) || marked(rules.Block) != has(suspended) {
			c.t.Errorf("%s: suspended at the panel: %t, noted: %t, in force: %s", s.name, has(suspended), marked(rules.Block), action)
		}
		if has(held) != marked(rules.Hold) || has(held) && action == rules.Nothing || !has(held) && action == rules.Hold {
			c.t.Errorf("%s: held at the panel: %t, noted: %t, in force: %s", s.name, has(held), marked(rules.Hold), action)
		}
	}
	for _, m := range noted {
		if !m.Done {
			c.t.Errorf("%s: %s of %s may be set or not", m.Subject, m.Action, m.Switch)
		}
	}
}

// queueAgrees checks that no message is lost, that those of who is free have
// gone out, and that those of who was never released are on hold.
func (c *churn) queueAgrees(force map[string]rules.Action) {
	for _, s := range c.subjects {
		if !s.letters {
			continue
		}
		if force[s.name] == rules.Nothing {
			wait(c.t, "the mail of "+s.name+" to go out", func() bool { return c.lettersSent()[s.name] == churnLetters })
		}
		wait(c.t, "every message of "+s.name+" to be somewhere", func() bool { return c.lettersSent()[s.name]+c.lettersHeld()[s.name] == churnLetters })
		if sent := c.lettersSent()[s.name]; !s.lifted && sent > 0 {
			c.t.Errorf("%s: %d messages went out, and nobody released it", s.name, sent)
		}
	}
}
