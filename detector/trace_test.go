package detector

import (
	"bufio"
	"compress/gzip"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// The traces are real mail metadata that is not part of this repository;
// where they are absent these tests are skipped. Attacks are injected into them.
const traces = "../../shared/traces"

// full makes the runs over the traces long: go test -run Trace -v -args -full
var full = flag.Bool("full", false, "inject many more attacks into the traces")

// many is how many trials a run makes.
func many(few int) int {
	if *full {
		return 10 * few
	}
	return few
}

// A traced is one message of a trace.
type traced struct {
	at   int64 // seconds
	from int
	to   []uint64
}

func loadTrace(t testing.TB, name string) []traced {
	t.Helper()
	f, err := os.Open(filepath.Join(traces, name))
	if err != nil {
		t.Skipf("the real traces are not here: %v", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []traced
	byKey := map[[2]int64]int{}
	s := bufio.NewScanner(z)
	for s.Scan() {
		p := strings.Split(s.Text(), ",")
		at, err := strconv.ParseInt(p[0], 10, 64)
		if err != nil {
			continue // the heading
		}
		from, _ := strconv.Atoi(p[1])
		to, _ := strconv.Atoi(p[2])
		key := [2]int64{at, int64(from)}
		i, ok := byKey[key]
		if !ok {
			i = len(all)
			byKey[key] = i
			all = append(all, traced{at: at, from: from})
		}
		all[i].to = append(all[i].to, recipientHash(uint64(to)))
	}
	slices.SortStableFunc(all, func(a, b traced) int { return int(a.at - b.at) })
	return all
}

func recipientHash(n uint64) uint64 {
	n = (n + 0x51ed270b) * 0x9e3779b97f4a7c15
	n ^= n >> 31
	n *= 0xd6e8feb86659fd93
	return n ^ n>>32
}

// A level is what the shipped rules do about a finding.
type level int

const (
	quiet level = iota
	observed
	throttled
	held
	blocked
)

func levelOf(f rules.Finding) level {
	switch {
	case f.Score >= 16 && f.Families >= 2 && foreign(f) >= 2 && f.Class != "forward", f.Hard != "":
		return blocked
	case f.Class != "forward" && f.Score >= 12 && (f.Families >= 2 || f.Score >= 18):
		return held
	case f.Score >= 9:
		return throttled
	case f.Score >= 6:
		return observed
	}
	return quiet
}

// foreign is what the rules call so.
func foreign(f rules.Finding) (sum float64) {
	for _, e := range f.Evidence {
		switch e.Kind {
		case rules.Logins, rules.Sender, rules.Replies, rules.Script:
			sum += e.Score
		case rules.Failures:
			sum += max(e.Score-5, 0)
		}
	}
	return sum
}

// A feeder renders messages as a server's log would tell them.
type feeder struct {
	d       *Detector
	postfix bool // recipients become known by their outcomes
	next    uint64
}

func (p *feeder) account(from int) mailq.Account {
	return mailq.Account(fmt.Sprintf("m%d@org.test", from))
}

// send feeds one message and returns the strongest that was made of it.
func (p *feeder) send(name mailq.Account, at time.Time, to []uint64) level {
	p.next++
	rcpts := make([]mailq.Recipient, len(to))
	for i, h := range to {
		rcpts[i] = mailq.Recipient{Hash: h, Domain: "org.test"}
	}
	ev := mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Account: name, Message: p.next * 0x9e3779b97f4a7c15, Rcpts: len(to)}
	if !p.postfix {
		ev.New = rcpts
		return p.observe(&ev)
	}
	worst := p.observe(&ev)
	for i := range rcpts {
		out := mailq.Event{Time: at.Add(time.Second), Kind: mailq.Delivered, Account: name, Message: ev.Message,
			New: rcpts[i : i+1], To: rcpts[i], Reply: mailq.Reply{Class: mailq.OK, Code: 250}}
		worst = max(worst, p.observe(&out))
	}
	return worst
}

func (p *feeder) observe(ev *mailq.Event) level {
	f, ok := p.d.Observe(ev)
	if !ok {
		return quiet
	}
	return levelOf(f)
}

// A style is how an injected hijacker sends.
type style struct {
	gap   time.Duration
	rcpts int
	known float64 // share of the recipients that others of the trace write to
}

var styles = []style{
	{time.Second, 1, 0}, {10 * time.Second, 1, 0}, {time.Minute, 1, 0}, {5 * time.Minute, 1, 0}, {10 * time.Minute, 1, 0}, {20 * time.Minute, 1, 0}, {2 * time.Hour, 1, 0},
	{10 * time.Second, 5, 0}, {5 * time.Minute, 5, 0},
	{10 * time.Second, 50, 0}, {5 * time.Minute, 50, 0},
	{10 * time.Second, 1, .3}, {5 * time.Minute, 1, .3},
}

func (s style) String() string {
	name := fmt.Sprintf("%-5v %2d rcpt", s.gap, s.rcpts)
	if s.known > 0 {
		name += fmt.Sprintf(" %2.0f%% known here", 100*s.known)
	}
	return name
}

// outcome is one trial's: messages and recipients accepted until then.
type outcome struct{ stopMsgs, stopRcpts, blockMsgs, blockRcpts int }

// bench is a run over a trace.
type bench struct {
	t        testing.TB
	msgs     []traced
	from, to int64 // seconds; only this part is read
	begin    int64 // trials and counting start here
	half     int   // 0: all senders, 1: even ones, 2: odd ones are counted
	trials   int   // per style
	postfix  bool
	list     bool
}

type wrongs struct {
	days                              int
	throttles, holds, blocks, observe int
}

type benchResult struct {
	wrongs
	byStyle map[int][]outcome
}

func (b *bench) counts(from int) bool {
	switch b.half {
	case 1:
		return recipientHash(uint64(from))&1 == 0
	case 2:
		return recipientHash(uint64(from))&1 == 1
	}
	return true
}

func (b *bench) run() benchResult {
	rnd := rand.New(rand.NewPCG(1, uint64(b.begin)))
	p := &feeder{d: New(Default(), nil), postfix: b.postfix}
	res := benchResult{byStyle: map[int][]outcome{}}
	type key struct{ from, day int }
	days := map[key]level{}
	// Trials happen just before random messages: at a random time before
	// the account's next message.
	lo, _ := slices.BinarySearchFunc(b.msgs, b.from, func(m traced, at int64) int { return int(m.at - at) })
	hi, _ := slices.BinarySearchFunc(b.msgs, b.to, func(m traced, at int64) int { return int(m.at - at) })
	first, _ := slices.BinarySearchFunc(b.msgs, b.begin, func(m traced, at int64) int { return int(m.at - at) })
	n := hi - first
	trials := map[int]int{}
	for range b.trials {
		trials[first+rnd.IntN(max(n, 1))]++
	}
	for i := lo; i < hi; i++ {
		m := &b.msgs[i]
		name := p.account(m.from)
		got := p.send(name, time.Unix(m.at, 0), m.to)
		if m.at >= b.begin && b.counts(m.from) {
			k := key{m.from, int(m.at / 86400)}
			if got >= held && days[k] < got && b.list {
				w, _ := p.d.Why(name)
				b.t.Logf("wrong level %d of %s at day %d, %d known: %s", got, name, k.day, w.Recipients, short(w.Evidence))
			}
			days[k] = max(days[k], got)
		}
		for range trials[i] {
			from := b.msgs[lo+rnd.IntN(i-lo+1)].from // weighted by activity so far
			if b.counts(from) {
				for s := range styles {
					res.byStyle[s] = append(res.byStyle[s], b.attack(p, rnd, i, from, styles[s]))
				}
			}
		}
	}
	for _, l := range days {
		res.days++
		switch l {
		case blocked:
			res.blocks++
		case held:
			res.holds++
		case throttled:
			res.throttles++
		case observed:
			res.observe++
		}
	}
	return res
}

// attack injects a hijack after message i and takes it back afterwards.
func (b *bench) attack(p *feeder, rnd *rand.Rand, i, from int, s style) outcome {
	var o outcome
	p.d.Try(p.account(from), func() { o = b.hijack(p, rnd, i, from, s) })
	return o
}

func (b *bench) hijack(p *feeder, rnd *rand.Rand, i, from int, s style) outcome {
	name := p.account(from)
	at := b.msgs[i].at + rnd.Int64N(6*3600)
	own := i + 1
	o := outcome{-1, -1, -1, -1}
	msgs, rcpts := 0, 0
	worst := quiet
	for range max(200/s.rcpts, 20) {
		for own < len(b.msgs) && b.msgs[own].at <= at {
			if m := &b.msgs[own]; m.from == from {
				worst = max(worst, p.send(name, time.Unix(m.at, 0), m.to))
			}
			own++
		}
		to := make([]uint64, s.rcpts)
		for j := range to {
			to[j] = rnd.Uint64()
			if rnd.Float64() < s.known {
				m := b.msgs[rnd.IntN(i+1)]
				to[j] = m.to[0]
			}
		}
		msgs++
		rcpts += len(to)
		worst = max(worst, p.send(name, time.Unix(at, 0), to))
		if worst >= held && o.stopMsgs < 0 {
			o.stopMsgs, o.stopRcpts = msgs, rcpts
		}
		if worst >= blocked {
			o.blockMsgs, o.blockRcpts = msgs, rcpts
			break
		}
		at += int64(s.gap / time.Second)
	}
	return o
}

func (r benchResult) print(t testing.TB, title string) {
	per := func(n int) float64 { return 1000 * float64(n) / float64(max(r.days, 1)) }
	t.Logf("%s: %d mailbox-days; wrong per 1,000: observe %.3f throttle %.3f (%d) hold %.3f (%d) block %.3f (%d)", title, r.days,
		per(r.observe+r.throttles+r.holds+r.blocks), per(r.throttles+r.holds+r.blocks), r.throttles, per(r.holds+r.blocks), r.holds, per(r.blocks), r.blocks)
	for s := range styles {
		all := r.byStyle[s]
		if len(all) == 0 {
			continue
		}
		stop := quantiles(all, func(o outcome) int { return o.stopMsgs })
		block := quantiles(all, func(o outcome) int { return o.blockMsgs })
		t.Logf("  %-28s %4d trials; messages to stop %s, to block %s", styles[s], len(all), stop, block)
	}
}

func short(all []rules.Evidence) string {
	var s []string
	for _, e := range all {
		s = append(s, fmt.Sprintf("%.1f %s (%s)", e.Score, e.Kind, e.Text))
	}
	return strings.Join(s, "; ")
}

// quantiles says p50, p95 and the share never reached.
func quantiles(all []outcome, of func(outcome) int) string {
	var n []int
	for _, o := range all {
		v := of(o)
		if v < 0 {
			v = 1 << 30
		}
		n = append(n, v)
	}
	slices.Sort(n)
	show := func(q float64) string {
		v := n[min(int(q*float64(len(n))), len(n)-1)]
		if v == 1<<30 {
			return "never"
		}
		return strconv.Itoa(v)
	}
	missed := len(n) - func() int { i, _ := slices.BinarySearch(n, 1<<30); return i }()
	return fmt.Sprintf("p50 %s p95 %s missed %.1f%%", show(.5), show(.95), 100*float64(missed)/float64(len(n)))
}

// hold fails the test when honest mail suffered or a hijacker got away: of the
// styles with unseen recipients at paces up to ten minutes, half must be
// stopped within p50 messages and nineteen in twenty within p95.
func (r benchResult) hold(t *testing.T, title string, p50, p95 int) {
	r.print(t, title)
	if r.blocks+r.holds > r.days/10_000 || r.blocks+r.holds+r.throttles > max(1, r.days/2500) {
		t.Errorf("%s: %d throttled, %d held and %d blocked on %d honest mailbox-days", title, r.throttles, r.holds, r.blocks, r.days)
	}
	for s, style := range styles {
		var stop []int
		for _, o := range r.byStyle[s] {
			if o.stopMsgs < 0 {
				o.stopMsgs = 1 << 30
			}
			stop = append(stop, o.stopMsgs)
		}
		if len(stop) == 0 || style.known > 0 || style.gap > 10*time.Minute {
			continue
		}
		slices.Sort(stop)
		if half, most := stop[len(stop)/2], stop[len(stop)*19/20]; half > p50 || most > p95 {
			t.Errorf("%s: %v: stopped after %d messages (half) and %d (19 in 20), want %d and %d", title, style, half, most, p50, p95)
		}
	}
}

const dayS = 86400

func TestTraceInstitution(t *testing.T) {
	msgs := loadTrace(t, "institution.csv.gz")
	b := bench{t: t, msgs: msgs, from: 0, to: 805 * dayS, begin: 30 * dayS, half: 1, trials: many(150), list: true}
	b.run().hold(t, "institution, senders tuned on, after 30 days", 9, 20)
	b.half = 2
	b.run().hold(t, "institution, other senders, after 30 days", 9, 20)
	b.postfix, b.list = true, false
	b.half = 0
	b.trials = many(60)
	b.run().hold(t, "institution, all, as Postfix logs", 9, 20)
}

func TestTraceCompany(t *testing.T) {
	msgs := loadTrace(t, "company.csv.gz")
	last := msgs[len(msgs)-1].at
	b := bench{t: t, msgs: msgs, from: 0, to: last, begin: msgs[0].at + 30*dayS, trials: many(80)}
	b.run().hold(t, "company, after 30 days", 9, 20)
}

func TestTraceWarmup(t *testing.T) {
	msgs := loadTrace(t, "institution.csv.gz")
	for _, c := range []struct {
		warm     int64
		p50, p95 int
	}{{0, 45, 1 << 30}, {1, 35, 60}, {3, 26, 45}, {7, 20, 35}} {
		warm := c.warm
		var sum benchResult
		sum.byStyle = map[int][]outcome{}
		for start := int64(5); start < 500; start += 45 {
			b := bench{t: t, msgs: msgs, from: start * dayS, begin: (start+warm)*dayS + 6*3600, to: (start + warm + 3) * dayS, trials: many(6)}
			r := b.run()
			sum.days += r.days
			sum.observe += r.observe
			sum.throttles += r.throttles
			sum.holds += r.holds
			sum.blocks += r.blocks
			for s, o := range r.byStyle {
				sum.byStyle[s] = append(sum.byStyle[s], o...)
			}
		}
		sum.hold(t, fmt.Sprintf("institution, %d days of past", warm), c.p50, c.p95)
	}
}
