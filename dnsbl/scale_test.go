package dnsbl

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// crowded returns a watch over n addresses and as many lists, all of them
// fast enough not to wait for.
func crowded(tb testing.TB, n, lists int) *Watch {
	tb.Helper()
	c := &Catalogue{}
	for i := range lists {
		l := listOf(tb, "spamcop")
		l.Name, l.Zone = "list"+string(rune('a'+i/26))+string(rune('a'+i%26)), "l"+string(rune('a'+i/26))+string(rune('a'+i%26))+".example"
		l.PerSecond, l.PerDay = 1e6, 1e9
		c.Lists = append(c.Lists, l)
	}
	w := NewWatch(c, nil, rand.New(rand.NewPCG(1, 2)))
	for i := range n {
		if err := w.Add(epoch, Address(netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)}))); err != nil {
			tb.Fatal(err)
		}
	}
	return w
}

// honest answers as a list does that lists nothing but its test entry.
func honest(t Task) Answer {
	if t.Kind == Probe && t.on.test.probes[t.probe].part == testListed {
		return found("127.0.0.2")
	}
	return Answer{Status: NXDomain, TTL: time.Minute}
}

// sweep asks until every pair has an answer, and returns how many there were.
func sweep(w *Watch, now time.Time) (asked int) {
	for {
		tasks, _ := w.Due(now, 1000)
		if len(tasks) == 0 {
			return asked
		}
		for _, t := range tasks {
			w.Take(now, t, honest(t))
		}
		asked += len(tasks)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const addresses, lists = 4096, 40
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := crowded(t, addresses, lists)
	if n := sweep(w, epoch); n < addresses*lists {
		t.Errorf("a sweep is %d questions, want at least %d", n, addresses*lists)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	perPair := float64(after.HeapAlloc-before.HeapAlloc) / (addresses * lists)
	t.Logf("%.0f bytes a pair", perPair)
	if perPair > 200 {
		t.Errorf("%.0f bytes a pair of an address and a list, want at most 200", perPair)
	}
	w.MaxSubjects = addresses
	if err := w.Add(epoch, subject(t, "192.0.2.1")); !errors.Is(err, ErrTooMany) {
		t.Errorf("one address too many: %v", err)
	}
	var all []Subject
	for s := range w.Subjects() {
		all = append(all, s)
	}
	for _, s := range all {
		w.Remove(s)
	}
	if len(w.units)+len(w.members)+len(w.hoods)+len(w.lists[0].polls)+len(w.lists[0].checks)+len(w.lists[0].urgent) > 0 || w.lists[0].demand != 0 {
		t.Errorf("something stays of what was removed")
	}
}

func BenchmarkSweep(b *testing.B) {
	w := crowded(b, 4096, 40)
	now, asked := epoch, 0
	for b.Loop() {
		now = now.Add(wholeDay)
		asked += sweep(w, now)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(asked), "ns/question")
}
