package dnsbl

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// A State is the health of a list. The zero State is Untested.
type State uint8

// The states of lists. Only Healthy and Degraded ones are believed.
const (
	Untested State = iota
	Healthy
	Degraded     // slow, or more than one question in 20 fails
	Suspect      // its delegation looks like that of a parked domain
	Rejected     // it refuses to answer us
	Empty        // an entry that must be there is missing: its data is gone
	Wildcard     // it lists what cannot be listed
	Offline      // it does not answer
	NoKey        // it needs a key or registration that we have not
	statesNumber // of the above
)

var stateTexts = [statesNumber]string{"UNTESTED", "HEALTHY", "DEGRADED", "SUSPECT", "REFUSED", "EMPTY", "WILDCARD", "OFFLINE", "NO_KEY"}

// String returns the state as it is shown and exported.
func (s State) String() string {
	if s < statesNumber {
		return stateTexts[s]
	}
	return stateTexts[Untested]
}

// MarshalText writes what String returns.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(text []byte) error { return fromText(s, stateTexts[:], "state", text) }

// Usable reports whether what the list says is believed.
func (s State) Usable() bool { return s == Healthy || s == Degraded }

// A probe is one question of a health test.
type probe struct {
	part  part
	kind  Kind // of a test point
	label string
	typ   Type
}

// A part is what a probe is for.
type part uint8

const (
	testListed part = iota
	testClean
	randomLabel
	randomSubject
	neverListed // two of them, which count once
	delegationNS
	delegationSOA
	ownServers // a random label, asked of the list's own servers: what they say to us, rather than the list's health
)

// probes returns the questions of a health test (RFC 5782, section 5). A full
// test also asks about what nobody can have listed: a random label, a random
// subject outside of own, and two that are known to be listed nowhere. A
// light one asks for one entry and a random label, which is how a list goes
// empty or wild.
func (l *List) probes(rng *rand.Rand, own func(netip.Addr) bool, full bool) []probe {
	label := randomHex(rng)
	if !full {
		first := l.TestListed[0]
		return []probe{{testListed, first.Kind, first.Label, TypeA}, {randomLabel, 0, label, TypeA}}
	}
	var ps []probe
	for _, t := range l.TestListed {
		ps = append(ps, probe{testListed, t.Kind, t.Label, TypeA})
	}
	for _, t := range l.TestClean {
		ps = append(ps, probe{testClean, t.Kind, t.Label, TypeA})
	}
	random, never := l.unlisted(rng, own)
	return append(ps, probe{randomLabel, 0, label, TypeA}, probe{randomSubject, 0, random, TypeA},
		probe{neverListed, 0, never[0], TypeA}, probe{neverListed, 0, never[1], TypeA})
}

// delegation returns the questions about the zone itself, asked once a day.
func delegation() []probe {
	return []probe{{part: delegationNS, typ: TypeNS}, {part: delegationSOA, typ: TypeSOA}}
}

// neverListedNames are domains, and neverListed4 and neverListed6 servers of
// the DNS root, that send no mail and that no list can afford to list.
var (
	neverListedNames = [2]string{"iana.org", "rfc-editor.org"}
	neverListed4     = [2]netip.Addr{netip.MustParseAddr("198.41.0.4"), netip.MustParseAddr("193.0.14.129")}
	neverListed6     = [2]netip.Addr{netip.MustParseAddr("2001:503:ba3e::2:30"), netip.MustParseAddr("2001:7fd::1")}
)

// unlisted returns the label of a random subject, and of two that are never
// listed, of the first kind that l lists.
func (l *List) unlisted(rng *rand.Rand, own func(netip.Addr) bool) (random string, never [2]string) {
	switch {
	case l.Kinds&IP4 != 0:
		return reversed(randomIP4(rng, own)), [2]string{reversed(neverListed4[0]), reversed(neverListed4[1])}
	case l.Kinds&IP6 != 0:
		return reversed(randomIP6(rng, own)), [2]string{reversed(neverListed6[0]), reversed(neverListed6[1])}
	case l.Kinds&Hash != 0:
		return hashLabel(randomHex(rng) + "@example.com"), [2]string{hashLabel("postmaster@" + neverListedNames[0]), hashLabel("postmaster@" + neverListedNames[1])}
	}
	return randomHex(rng) + ".com", neverListedNames
}

func randomHex(rng *rand.Rand) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return hex.EncodeToString(b[:])
}

// notPublic are the IPv4 blocks that belong to nobody on the Internet (RFC
// 6890 and multicast).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("224.0.0.0/3"),
}

// randomIP4 returns a public address that is not ours. Should all that is
// tried be ours, it gives one that nobody lists.
func randomIP4(rng *rand.Rand, own func(netip.Addr) bool) netip.Addr {
	for range 100 {
		n := rng.Uint32()
		addr := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		if !own(addr) && !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			return addr
		}
	}
	return neverListed4[0]
}

// randomIP6 is randomIP4 for the global unicast space 2000::/3.
func randomIP6(rng *rand.Rand, own func(netip.Addr) bool) netip.Addr {
	for range 100 {
		var b [16]byte
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		b[0] = 0x20 | b[0]&0x1f
		if addr := netip.AddrFrom16(b); !own(addr) {
			return addr
		}
	}
	return neverListed6[0]
}

// An outcome is what a health test found. Its state is Untested if too little
// was answered to tell.
type outcome struct {
	state State
	text  string // for the operator
	blind Kind   // kinds whose entry is missing, while that of another is there
	full  bool   // a full test; a light one only ever finds Healthy or nothing
}

// evaluate says what the answers to the probes, in their order, mean.
func (l *List) evaluate(probes []probe, answers []Answer) outcome {
	t := tally{list: l}
	full := false
	for i, p := range probes {
		full = full || p.part == neverListed
		t.add(p, answers[i])
	}
	o := t.outcome()
	o.full = full
	if !full && (o.state != Healthy || t.wild[0] > 0 || !t.heard[0]) {
		return outcome{} // only a full test says what is wrong
	}
	if full && o.state == Healthy && count(t.heard[:]) < 2 {
		return outcome{full: true, text: "too little was answered: " + t.failed}
	}
	return o
}

// A tally counts what the probes of one test found.
type tally struct {
	list     *List
	refused  string  // the words of the first refusal
	wild     [3]int  // positives of: a random label, a random subject, two never listed
	heard    [3]bool // which of these were answered at all
	loopback string  // what was listed though it must not be
	found    Kind    // kinds of which an entry is there
	missing  Kind    // kinds of which an entry is not there
	answered int
	parked   string // a name server of a parked domain
	strange  string // an answer to a must-be-clean probe that no list gives
	failed   string // the words of the last question without an answer
}

func (t *tally) add(p probe, a Answer) {
	switch p.part {
	case delegationNS, delegationSOA:
		t.parked = cmp.Or(t.parked, parking(a))
		return
	case ownServers:
		return
	}
	j := t.list.Judge(a)
	if j.Reason == Transport {
		t.failed = a.Status.String()
		return
	}
	t.answered++
	switch isPoint := p.part == testListed; {
	case isPoint && t.list.isEntry(j):
		t.found |= p.kind
		return
	case j.Reason.refused():
		t.refused = cmp.Or(t.refused, j.explain(a))
		return
	case isPoint:
		t.point(p.kind, a, j)
		return
	}
	if p.part != testClean {
		t.heard[p.part-randomLabel] = true
	}
	if j.Reason == Absent || j.Reason == IsNeutral && p.part != randomLabel {
		return // a neutral entry can be there by chance, but not for a random label
	}
	if j.Reason == Rewritten {
		t.strange = cmp.Or(t.strange, j.explain(a))
	}
	if p.part == testClean {
		t.loopback = cmp.Or(t.loopback, p.label)
		return
	}
	t.wild[p.part-randomLabel]++
}

func count(set []bool) (n int) {
	for _, v := range set {
		if v {
			n++
		}
	}
	return n
}

// point counts a test point that must be listed and is not.
func (t *tally) point(kind Kind, a Answer, j Judgement) {
	if j.Reason == Rewritten {
		t.strange = cmp.Or(t.strange, j.explain(a))
	}
	t.missing |= kind
}

// isEntry reports whether j, about a test point, is what a list says that has
// the entry.
func (l *List) isEntry(j Judgement) bool {
	return j.Verdict == Listed || j.Reason == IsWelcome || j.Reason == IsNeutral || l.isTestCode(j.Codes)
}

// isTestCode reports whether all codes are such as l has at test points only.
func (l *List) isTestCode(codes []netip.Addr) bool {
	for _, addr := range codes {
		b, ok := code(addr)
		if !ok || !slices.ContainsFunc(l.TestCodes, func(r Range) bool { return r.contains(b) }) {
			return false
		}
	}
	return len(codes) > 0
}

// outcome says what was found: what is worst comes first.
func (t *tally) outcome() outcome {
	wild := min(t.wild[0], 1) + min(t.wild[1], 1) + t.wild[2]/2
	hint := ""
	if t.strange != "" {
		hint = ": " + t.strange
	}
	switch {
	case t.refused != "":
		return outcome{state: Rejected, text: "not tested: " + t.refused}
	case t.answered == 0:
		return outcome{state: Offline, text: "it does not answer: " + t.failed}
	case wild >= 2:
		return outcome{state: Wildcard, text: "it lists what cannot be listed" + hint}
	case t.loopback != "":
		return outcome{state: Wildcard, text: "it has an entry " + t.loopback + ", which no list may have" + hint}
	case t.parked != "":
		return outcome{state: Suspect, text: "its zone is served by " + t.parked + ": the domain looks parked"}
	}
	blind := t.list.Kinds &^ t.found
	switch {
	case blind == 0:
		return outcome{state: Healthy}
	case blind&t.missing == 0 && t.found == 0:
		return outcome{text: "its test entry got no usable answer: " + t.failed}
	case t.found == 0:
		return outcome{state: Empty, text: "its test entry is missing: the data is gone, or the zone is not what it was" + hint}
	case blind&t.missing == 0:
		return outcome{state: Healthy} // one kind is fine, the other got no answer this time
	}
	return outcome{state: Healthy, blind: blind & t.missing, text: blindText(blind & t.missing)}
}

// blindText says that some kinds cannot be tested, empty if all can.
func blindText(kinds Kind) string {
	if kinds == 0 {
		return ""
	}
	return fmt.Sprintf("not tested for %s: that test entry is missing", kinds)
}

// parking returns a name server of the answer that serves parked domains.
func parking(a Answer) string {
	for _, name := range a.Names {
		for _, service := range []string{"renewyourname", "sedoparking", "bodis"} {
			if strings.Contains(strings.ToLower(name), service) {
				return CleanText([]string{name})
			}
		}
	}
	return ""
}
