//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

// A cable is a TCP proxy between agent and hub that can be cut, frozen (so that
// connections stay open and nothing comes through) and made slow.
type cable struct {
	addr, to string

	mu     sync.Mutex // guards what follows
	cut    bool
	conns  map[net.Conn]bool
	frozen chan struct{} // nil: it is not; closed at the thaw
	delay  time.Duration
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() { c.carry(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); c.set(func() { c.cut = true }); done.Wait() })
	return c
}

// set changes the cable. A cut ends all connections.
func (c *cable) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	if c.cut {
		if c.frozen != nil {
			close(c.frozen)
			c.frozen = nil
		}
		for conn := range c.conns {
			conn.Close()
		}
	}
}

func (c *cable) freeze() { c.set(func() { c.frozen = make(chan struct{}) }) }
func (c *cable) thaw()   { c.set(func() { close(c.frozen); c.frozen = nil }) }

// carry joins a connection with one to the hub.
func (c *cable) carry(conn net.Conn) {
	defer conn.Close()
	other, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer other.Close()
	c.mu.Lock()
	if c.cut {
		c.mu.Unlock()
		return
	}
	c.conns[conn], c.conns[other] = true, true
	c.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, other}, {other, conn}} {
		both.Go(func() {
			defer way[0].Close()
			defer way[1].Close()
			io.Copy(way[1], slowly{c, way[0]})
		})
	}
	both.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	delete(c.conns, other)
}

// slowly reads as the cable lets it.
type slowly struct {
	*cable
	from net.Conn
}

func (s slowly) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.mu.Lock()
	frozen, delay := s.frozen, s.delay
	s.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	time.Sleep(delay)
	return n, err
}

// A fleetRig is a hub, an agent that reads a log which the test writes, and a
// cable between them. Somebody is blocked there, and honest accounts send.
type fleetRig struct {
	*testing.T
	hub, agent *service
	cable      *cable
	log        string
	rnd        *rand.Rand
	past       past
	written    int // messages
	honest     int // the next of them to send
	victims    int
	ahead      time.Duration // of the clock that stamps the log
	released   atomic.Int64  // times that who is blocked was let through
	refused    atomic.Int64  // times that somebody honest was not
}

const (
	debtor      = "debtor@shop.test" // who is blocked by hand
	rigHonest   = 100
	rigMessages = 40 // of honest accounts in a repetition
)

func honestName(n int) string { return fmt.Sprintf("honest%d@shop.test", n%rigHonest) }
func victimName(n int) string { return fmt.Sprintf("victim%d@shop.test", n) }

// repetitions of each fault: few in the tests of every day.
func repetitions(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(orText(os.Getenv("FLEET_REPEAT"), "2"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newFleetRig(t *testing.T, hubState, agentState string) *fleetRig {
	t.Helper()
	r := &fleetRig{T: t, rnd: rand.New(rand.NewPCG(uint64(len(t.Name())), 5)), log: filepath.Join(t.TempDir(), "mail.log")}
	if err := os.WriteFile(r.log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	r.cable = newCable(t, port)
	r.hub = newServiceIn(t, t.TempDir(), hubState, setup{Agents: port, Rules: "blast_max: 100000\n"})
	r.agent = newServiceIn(t, t.TempDir(), agentState, setup{Hub: r.cable.addr, Logs: []string{r.log}, Gates: manyProbes})
	r.agent.role = "agent"
	p := past{client: "office[198.51.100.20]"}
	for n := range rigHonest {
		p.calm(time.Now(), pastDays, honestName(n))
	}
	for n := range repetitions(t) + 1 {
		p.calm(time.Now(), pastDays, victimName(n))
	}
	r.hub.must("replay", "--learn", p.write(t))
	r.past.n = p.n
	r.written = p.n
	r.hub.start()
	r.agent.must("enrol", strings.TrimSpace(r.hub.must("agents", "add", "mx1", "--domain", "shop.test")))
	r.agent.start()
	r.hub.must("block", debtor)
	wait(t, "the block by hand", func() bool { return r.agent.blocked(t, debtor) })
	r.watch()
	return r
}

// watch asks the agent's gate all the while about who is blocked, and about
// somebody honest.
func (r *fleetRig) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if answer, err := ask(r.T, r.agent.gate, debtor); err == nil && !strings.HasPrefix(answer, "REJECT") && answer != "" {
				r.released.Add(1)
			}
			if answer, err := ask(r.T, r.agent.gate, honestName(n)); err == nil && answer != "DUNNO" && answer != "" {
				r.refused.Add(1)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	r.Cleanup(func() { cancel(); done.Wait() })
}

// send has some honest accounts send, and the repetition's victim spam.
func (r *fleetRig) send(messages, spam int) { r.Helper(); r.sendOver(0, messages, spam) }

// sendOver is send, of what happened over some time until now.
func (r *fleetRig) sendOver(d time.Duration, messages, spam int) {
	r.Helper()
	before := r.past.n
	at := func(n, of int) time.Time { return time.Now().Add(r.ahead - d + d*time.Duration(n)/time.Duration(of)) }
	for n := range messages {
		r.past.client = "office[198.51.100.20]"
		who := honestName(r.honest)
		r.past.message(at(n, messages), who, contact(who, r.honest/rigHonest%contacts))
		r.honest++
	}
	for n := range spam {
		r.past.client = "unknown[203.0.113.7]"
		id := r.past.n*10 + n
		r.past.message(at(n, spam), victimName(r.victims), fmt.Sprintf("x%d@elsewhere%d.test", id, n), fmt.Sprintf("y%d@elsewhere%d.test", id, n+50), fmt.Sprintf("z%d@ok.test", id))
	}
	r.written += r.past.n - before
	f, err := os.OpenFile(r.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(r.past.text.String()); err != nil {
		r.Fatal(err)
	}
	r.past.text.Reset()
}

// pause waits for a random time.
func (r *fleetRig) pause(most time.Duration) { time.Sleep(time.Duration(r.rnd.Int64N(int64(most)))) }

func (r *fleetRig) counted() (n int) {
	rows, err := r.hub.Accounts(r.Context(), 10_000)
	if err != nil {
		return -1
	}
	for _, row := range rows {
		n += row.Messages
	}
	return n
}

// repeat has the fault happen in the midst of mail, and waits until all of it
// is known and its victim blocked.
func (r *fleetRig) repeat(fault func()) {
	r.Helper()
	for range repetitions(r.T) {
		r.send(rigMessages/2, 6)
		r.pause(400 * time.Millisecond)
		fault()
		r.send(rigMessages/2, 6)
		wait(r, fmt.Sprintf("%d messages to be counted (%d are)", r.written, r.counted()), func() bool { return r.counted() >= r.written })
		wait(r, "the victim to be blocked at the agent", func() bool { return r.agent.blocked(r.T, victimName(r.victims)) })
		if n := r.counted(); n != r.written {
			r.Fatalf("%d messages are counted, %d were sent", n, r.written)
		}
		r.victims++
	}
	r.verdict()
}

// verdict says what went wrong.
func (r *fleetRig) verdict() {
	r.Helper()
	rows, err := r.hub.open().Decisions(r.Context(), store.DecisionFilter{Limit: 1000})
	if err != nil {
		r.Fatal(err)
	}
	doubled, wrong, seen := 0, 0, map[string]bool{}
	for _, d := range rows {
		if !d.Enforce || d.Action < rules.Throttle || d.Rule == "operator" {
			continue
		}
		if strings.HasPrefix(d.Subject, "honest") {
			wrong++
		}
		key := d.Subject + d.Action.String()
		if seen[key] {
			doubled++
		}
		seen[key] = true
	}
	wrong += int(r.refused.Load())
	r.Logf("%d repetitions, %d messages: lost 0, decisions doubled %d, wrong blocks %d, wrong releases %d",
		repetitions(r.T), r.written, doubled, wrong, r.released.Load())
	if doubled > 0 || wrong > 0 || r.released.Load() > 0 {
		r.Errorf("decisions doubled %d, wrong blocks %d, wrong releases %d", doubled, wrong, r.released.Load())
	}
}

func TestFleetFaults(t *testing.T) {
	for _, row := range []struct {
		name  string
		fault func(*fleetRig) func()
	}{
		{"kill -9 agent", func(r *fleetRig) func() {
			return func() { r.agent.kill(); r.send(5, 0); r.pause(200 * time.Millisecond); r.agent.start() }
		}},
		{"kill -9 hub", func(r *fleetRig) func() {
			return func() { r.hub.kill(); r.send(5, 0); r.pause(200 * time.Millisecond); r.hub.start() }
		}},
		{"kill -9 both", func(r *fleetRig) func() {
			return func() {
				r.hub.kill()
				r.pause(100 * time.Millisecond)
				r.agent.kill()
				r.send(5, 0)
				if r.rnd.IntN(2) == 0 {
					r.agent.start()
					r.hub.start()
				} else {
					r.hub.start()
					r.agent.start()
				}
			}
		}},
		{"cut", func(r *fleetRig) func() {
			return func() {
				r.cable.set(func() { r.cable.cut = true })
				r.send(5, 3)
				r.pause(2 * time.Second)
				r.cable.set(func() { r.cable.cut = false })
			}
		}},
		{"cut for ten simulated minutes", func(r *fleetRig) func() {
			return func() {
				r.cable.set(func() { r.cable.cut = true })
				r.sendOver(10*time.Minute, 100, 12)
				r.pause(2 * time.Second)
				r.cable.set(func() { r.cable.cut = false })
			}
		}},
		{"half-open", func(r *fleetRig) func() {
			return func() {
				r.cable.freeze()
				r.send(5, 3)
				r.pause(2 * time.Second)
				r.cable.set(func() { r.cable.cut = true }) // its ends learn of it late
				r.cable.set(func() { r.cable.cut = false })
			}
		}},
		{"frozen for a while", func(r *fleetRig) func() {
			return func() { r.cable.freeze(); r.send(5, 3); r.pause(2 * time.Second); r.cable.thaw() }
		}},
		{"slow hub", func(r *fleetRig) func() {
			return func() {
				r.cable.set(func() { r.cable.delay = 300 * time.Millisecond })
				r.send(5, 3)
				r.pause(2 * time.Second)
				r.cable.set(func() { r.cable.delay = 0 })
			}
		}},
		{"log rotated during a cut", func(r *fleetRig) func() {
			return func() {
				r.cable.set(func() { r.cable.cut = true })
				r.send(5, 3)
				for n := 9; n > 0; n-- {
					os.Rename(fmt.Sprint(r.log, ".", n), fmt.Sprint(r.log, ".", n+1))
				}
				if err := os.Rename(r.log, r.log+".1"); err != nil {
					r.Fatal(err)
				}
				r.send(5, 0)
				r.pause(500 * time.Millisecond)
				r.cable.set(func() { r.cable.cut = false })
			}
		}},
		{"duplicate and reordered batches", duplicates},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := newFleetRig(t, filepath.Join(t.TempDir(), "hub"), filepath.Join(t.TempDir(), "agent"))
			r.repeat(row.fault(r))
		})
	}
}

// duplicates sends, with the agent's own certificate and beside it, batches of
// its spool again, in any order.
func duplicates(r *fleetRig) func() {
	c := &hub.Client{Address: r.cable.addr, Dir: filepath.Join(r.agent.dir, "fleet")}
	if _, _, err := c.Open(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(c.Close)
	db := r.agent.open()
	return func() {
		text, err := db.Setting(r.Context(), "spool-place")
		if err != nil {
			r.Fatal(err)
		}
		var place struct{ Epoch, Base uint64 }
		if err := json.Unmarshal(text, &place); err != nil {
			r.Fatal(err)
		}
		var rows []store.SpoolRow
		wait(r, "a batch in the spool", func() bool {
			rows, err = db.Spooled(r.Context(), 0, 1<<62, 1000, 1<<30)
			return err == nil && len(rows) > 0
		})
		for range 20 {
			var batches []hub.Sealed
			for range 1 + r.rnd.IntN(5) {
				row := rows[r.rnd.IntN(len(rows))]
				batches = append(batches, hub.Sealed{Mark: hub.Mark{Epoch: place.Epoch, Seq: row.Seq - place.Base}, Body: row.Body})
			}
			if _, _, err := c.Send(r.Context(), hub.Mark{}, batches); err != nil {
				r.Fatal(err)
			}
		}
	}
}

// TestFleetDiskFull fills the disk of one of the two.
func TestFleetDiskFull(t *testing.T) {
	for _, whose := range []string{"agent", "hub"} {
		t.Run(whose, func(t *testing.T) {
			t.Parallel()
			small, large := full(t, "32m"), t.TempDir()
			states := map[string]string{"agent": filepath.Join(large, "agent"), "hub": filepath.Join(large, "hub")}
			states[whose] = filepath.Join(small, "state")
			r := newFleetRig(t, states["hub"], states["agent"])
			r.repeat(func() {
				free := fill(t, small)
				r.send(5, 3)
				r.pause(2 * time.Second)
				free()
			})
		})
	}
}

// TestFleetBackup restores the hub from an old backup, again and again: what it
// had since comes again, and a block that it does not know of is not lifted.
func TestFleetBackup(t *testing.T) {
	t.Parallel()
	state, backup := filepath.Join(t.TempDir(), "hub"), filepath.Join(t.TempDir(), "backup")
	r := newFleetRig(t, state, filepath.Join(t.TempDir(), "agent"))
	r.hub.must("unblock", debtor)
	wait(t, "debtor to be free", func() bool { return !r.agent.blocked(t, debtor) })
	r.hub.stop()
	if err := os.CopyFS(backup, os.DirFS(state)); err != nil {
		t.Fatal(err)
	}
	r.hub.start()
	r.hub.must("block", debtor)
	wait(t, "the block by hand", func() bool { return r.agent.blocked(t, debtor) })
	r.released.Store(0)
	r.repeat(func() {
		r.hub.kill()
		if err := os.RemoveAll(state); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(state, os.DirFS(backup)); err != nil {
			t.Fatal(err)
		}
		r.hub.start()
	})
	wait(t, "the hub to know of the block", func() bool { return r.hub.action(debtor) == "block" })
}
