package dnsbl

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestHealthOfEveryList tests each shipped list as it should be, as it is when
// its data is gone, and as it is when it lists everything.
func TestHealthOfEveryList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	nothing := func(netip.Addr) bool { return false }
	for i := range Shipped().Lists {
		l := &Shipped().Lists[i]
		t.Run(l.Name, func(t *testing.T) {
			for _, full := range []bool{true, false} {
				probes := l.probes(rng, nothing, full)
				test := func(answer func(probe) Answer) State {
					var answers []Answer
					for _, p := range probes {
						answers = append(answers, answer(p))
					}
					return l.evaluate(probes, answers).state
				}
				entry := codeOf(l)
				good := func(p probe) Answer {
					if p.part == testListed {
						return entry
					}
					return Answer{Status: NXDomain}
				}
				empty := func(probe) Answer { return Answer{Status: NXDomain} }
				wild := func(probe) Answer { return entry }
				want := []State{Healthy, Empty, Wildcard}
				if l.Name == "senderscore" {
					want[2] = Healthy // all of its codes are neutral: it can do no harm
				}
				if !full {
					want = []State{Healthy, Untested, Untested}
				}
				if got := []State{test(good), test(empty), test(wild)}; got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
					t.Errorf("full %v: good, empty and wild it is %v, want %v", full, got, want)
				}
			}
		})
	}
}

// codeOf returns an answer of l that lists, or where there is none, one that
// it documents.
func codeOf(l *List) Answer {
	best := &l.Codes[0]
	for i := range l.Codes {
		if c := &l.Codes[i]; weights[c.Class.reason()] > weights[best.Class.reason()] && c.Class <= Neutral || best.Class > Neutral {
			best = c
		}
	}
	if l.Bits {
		return Answer{Status: Found, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, best.Bit})}}
	}
	r := best.Range
	return Answer{Status: Found, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{r[0][0], r[1][0], r[2][0], r[3][0]})}}
}

func TestRandomSubjectsAreNotOurs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := func(netip.Addr) bool { return true }
	even := func(a netip.Addr) bool { return a.AsSlice()[0]%2 == 0 }
	for range 1000 {
		if a := randomIP4(rng, even); even(a) || a.IsPrivate() || a.IsLoopback() || a.IsMulticast() {
			t.Errorf("%s is ours, or nobody's", a)
		}
		if a := randomIP6(rng, even); even(a) || !netip.MustParsePrefix("2000::/3").Contains(a) {
			t.Errorf("%s is ours, or nobody's", a)
		}
	}
	if a, b := randomIP4(rng, all), randomIP6(rng, all); a != neverListed4[0] || b != neverListed6[0] {
		t.Errorf("where everything is ours, %s and %s are asked about", a, b)
	}
}
