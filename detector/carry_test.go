package detector

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vedetta-watch/vedetta/mailq"
)

// rotated has the world's recipients hashed with both keys from one time on, and
// with the next alone from another.
func (w *world) rotated(begun, over time.Time) {
	rehash := func(r *mailq.Recipient, at time.Time) {
		switch next := recipientHash(r.Hash ^ 0xfeed); {
		case !at.Before(over):
			r.Hash = next
		case !at.Before(begun):
			r.Next = next
		}
	}
	w.tap = func(ev *mailq.Event) {
		if ev.To != (mailq.Recipient{}) {
			rehash(&ev.To, ev.Time)
		}
		for i := range ev.New {
			rehash(&ev.New[i], ev.Time)
		}
	}
}

// levels is the worst that was found of each account on each day.
func (w *world) levels() map[string]level {
	all := map[string]level{}
	for _, f := range w.found {
		key := f.Subject + f.Time.Format(" 01-02")
		all[key] = max(all[key], levelOf(f))
	}
	return all
}

// A letter is a mail with its time and sender.
type letter struct {
	at      time.Time
	account mailq.Account
	mail
}

// stops is when each account was stopped first.
func (w *world) stops() map[string]time.Time {
	all := map[string]time.Time{}
	for _, f := range w.found {
		if _, ok := all[f.Subject]; !ok && levelOf(f) >= held {
			all[f.Subject] = f.Time
		}
	}
	return all
}

// busy is some months of a server: people, some of whose mailboxes are hijacked
// at the given times, those an hour apart with the same list, a newsletter, a monitor that tells the same two dozen people
// again and again, also over the change of the key, and a shop.
func busy(days int, hijacks []time.Time) (all []letter) {
	send := func(account mailq.Account, at time.Time, m mail) { all = append(all, letter{at, account, m}) }
	for day := range days {
		midnight := monday.AddDate(0, 0, day)
		for minute := 9 * 60; minute < 15*60; minute += 10 {
			send("monitor@noc.test", midnight.Add(time.Duration(minute)*time.Minute), mail{to: addresses("oncall", 24)})
		}
		for k := 0; day%10 == 4 && k < 12_000; k++ { // another order each time
			send("news@list.test", midnight.Add(time.Duration(k)*20*time.Second), mail{to: []string{fmt.Sprintf("s%d@readers.test", k*(7+2*day)%12_001)}, size: 9000, subject: "Letter"})
		}
		for k := range 10 {
			send("shop@big.test", midnight.Add(time.Duration(9+k)*time.Hour), mail{to: []string{fmt.Sprintf("buyer%d@buyers%d.test", day*10+k, k)}})
		}
		for who := range 20 {
			for k := range 3 {
				h := recipientHash(uint64(day*1000 + who*10 + k))
				to := fmt.Sprintf("contact%d@client%d.test", h%25, who)
				if h>>32%40 == 0 {
					to = fmt.Sprintf("new%d@elsewhere.test", h)
				}
				send(mailq.Account(fmt.Sprintf("user%d@office.test", who)), midnight.Add(8*time.Hour+time.Duration(h%36000)*time.Second), mail{to: []string{to}, client: fmt.Sprintf("10.1.%d.5", who)})
			}
		}
	}
	for who, at := range hijacks {
		list := slices.IndexFunc(hijacks, func(other time.Time) bool { return at.Sub(other).Abs() <= time.Hour })
		for i := range 40 {
			send(mailq.Account(fmt.Sprintf("user%d@office.test", who)), at.Add(time.Duration(i)*2*time.Second), mail{to: []string{fmt.Sprintf("victim%d@prey%d.test", list*100+i, i)}, client: fmt.Sprintf("203.0.%d.9", who)})
		}
	}
	slices.SortStableFunc(all, func(x, y letter) int { return x.at.Compare(y.at) })
	return all
}

// The same traffic is judged alike whether or not the key is replaced meanwhile.
func TestRotationChangesNoDecision(t *testing.T) {
	begun, over := monday.AddDate(0, 0, 30).Add(11*time.Hour+5*time.Minute), monday.AddDate(0, 0, 60).Add(11*time.Hour+5*time.Minute)
	traffic := busy(75, []time.Time{begun.Add(-20 * time.Hour), begun.Add(15 * time.Hour), over.Add(-20 * time.Hour), over.Add(5 * time.Hour), over.Add(6 * time.Hour), over.AddDate(0, 0, 8), begun.Add(16 * time.Hour)})
	judge := func(rotated bool) (map[string]level, map[string]time.Time) {
		w := newWorld(t, nil)
		if rotated {
			w.rotated(begun, over)
		}
		for _, l := range traffic {
			w.send(l.account, l.at, l.mail)
		}
		return w.levels(), w.stops()
	}
	want, stopped := judge(false)
	got, at := judge(true)
	near := cmpopts.EquateApproxTime(time.Second) // a message takes two; somebody has one contact whom he wrote to before and after
	if diff := cmp.Diff(stopped, at, near); diff != "" {
		t.Errorf("stopped at (-without a rotation +with one)\n%s", diff)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-without a rotation +with one)\n%s", diff)
	}
	stops := 0
	for _, l := range want {
		if l >= held {
			stops++
		}
	}
	if stops < 7 {
		t.Errorf("%d mailboxes are stopped, want 7: %v", stops, want)
	}
}

// What an account that knows as many as it can knows of old stays known until the
// change, and is known after it; what it keeps is bounded.
func TestKnownUnderTwoKeys(t *testing.T) {
	const most = 13_500 // that are remembered exactly so: 256 + 1,024 + 4,096 + 8,192
	next := func(i uint64) uint64 { return recipientHash(i) ^ recipientHash(1<<50) }
	var k known
	for i := range uint64(most) {
		k.add(recipientHash(i), false)
	}
	for i := range uint64(most) {
		if !k.has(recipientHash(i)) {
			t.Fatalf("recipient %d of %d is forgotten under the present key", i, most)
		}
		k.put(0, next(i), true)
	}
	for i := range uint64(most) {
		if !k.has(next(i)) {
			t.Fatalf("recipient %d of %d is not known under the next key", i, most)
		}
	}
	for i := range uint64(200_000) {
		k.add(recipientHash(1<<40+i), true)
	}
	if len(k.more.grown) > filtersMax {
		t.Errorf("%d filters are kept, at most %d", len(k.more.grown), filtersMax)
	}
	for i := range uint64(200_000) {
		k.add(recipientHash(1<<41+i), false)
	}
	if len(k.more.grown) > 2 {
		t.Errorf("%d filters are kept after the rotation, at most 2", len(k.more.grown))
	}
}

// Filters that make room are freed: the bytes that an account keeps are bounded.
func TestForgottenFiltersAreFreed(t *testing.T) {
	var k known
	var made []weak.Pointer[filter]
	kept := func() (bytes int) {
		runtime.GC()
		for _, p := range made {
			if f := p.Value(); f != nil {
				bytes += 8 * len(f.bits)
			}
		}
		return bytes
	}
	add := func(n int, twin bool) {
		for i := range n {
			k.add(recipientHash(uint64(len(made)<<32+i)), twin)
			if k.more == nil {
				continue
			}
			if p := weak.Make(k.more.grown[len(k.more.grown)-1]); !slices.Contains(made, p) {
				made = append(made, p)
			}
		}
	}
	add(100_000, true)
	if n := kept(); n > 60<<10 {
		t.Errorf("%d bytes with two hashes, at most 60 KiB", n)
	}
	add(40_000, false)
	if n := kept(); n > 26<<10 {
		t.Errorf("%d bytes with one hash, at most 26 KiB", n)
	}
	for range 3 * filtersMax {
		f := newFilter(1024)
		made = append(made, weak.Make(f))
		f.n = f.size
		k.teach(f)
	}
	if n := kept(); n > 60<<10 {
		t.Errorf("%d bytes after it was taught, at most 60 KiB", n)
	}
	runtime.KeepAlive(&k)
}

// Everything that is known of a recipient is carried over, also what an episode
// has shown; he is judged by the present hash, and by either key's when it comes
// alone.
func TestCarry(t *testing.T) {
	w := newWorld(t, nil)
	w.office(2, 30)
	a := w.d.accounts["user0@office.test"]
	old, fresh := rcpt("contact1@client0.test"), rcpt("new@strange.test")
	old.Next, fresh.Next = 1<<63+7, 1<<63+9
	learnt := a.known.len()
	for range 2 {
		w.observe(&mailq.Event{Time: w.after(a.name), Kind: mailq.Submitted, Counts: true, Account: a.name, New: []mailq.Recipient{old, fresh}})
	}
	for _, h := range []uint64{old.Hash, old.Next, fresh.Hash, fresh.Next} {
		if !a.known.has(h) {
			t.Errorf("%x is not known", h)
		}
	}
	if got := a.known.len() - learnt; got != 3 {
		t.Errorf("%d hashes are learnt, want the two of the new recipient and the next of the known one", got)
	}
	if !w.d.fleet.mem.has(fresh.Next) || !w.d.fleet.mem.has(old.Next) {
		t.Error("others do not know them under the next key")
	}
	if last := a.known.exact[len(a.known.exact)-1]; last != uint32(fresh.Hash) {
		t.Errorf("the recipient learnt last is %x, want %x", last, uint32(fresh.Hash))
	}
	strange := mailq.Recipient{Hash: 1<<62 + 5, Next: old.Next, Domain: "strange.test"}
	w.observe(&mailq.Event{Time: w.after(a.name), Kind: mailq.Submitted, Counts: true, Account: a.name, New: []mailq.Recipient{strange}})
	if !a.known.has(strange.Hash) {
		t.Error("a stranger is taken for known by his second hash")
	}

	a.ep.onset, a.ep.top = a.last, 13
	doubted := mailq.Recipient{Hash: 1<<61 + 1, Next: 1<<61 + 3, Domain: "strange.test"}
	w.observe(&mailq.Event{Time: time.Unix(0, a.last), Kind: mailq.Submitted, Counts: true, Account: a.name, New: []mailq.Recipient{doubted}})
	if p := a.ep.doubted().pending; !p.has(doubted.Hash) || !p.has(doubted.Next) || a.ep.doubted().waiting() != 1 || a.known.has(doubted.Next) {
		t.Errorf("in an episode: %d wait, %v %v", a.ep.doubted().waiting(), p.has(doubted.Hash), p.has(doubted.Next))
	}
	restored := New(Default(), nil)
	w.d.Changed(func(name mailq.Account, state []byte) {
		if err := restored.Restore(name, state); err != nil {
			t.Error(err)
		}
	})
	if r := restored.accounts[a.name]; r == nil || !r.known.has(fresh.Next) || !r.ep.doubted().pending.has(doubted.Next) {
		t.Error("a restart forgets the next hashes")
	}
}

// An account that was taught often and then comes to know many more stays within
// what is stored.
func TestTaughtAndGrownIsStored(t *testing.T) {
	var k known
	for i := range uint64(exactMax + 1) {
		k.add(recipientHash(i), false)
	}
	for round := range uint64(2 * filtersMax) {
		f := newFilter(pendingMost)
		for i := range uint64(pendingMost) {
			f.add(recipientHash(1<<20 + round*pendingMost + i))
		}
		k.teach(f)
	}
	for i := range uint64(5000) {
		k.add(recipientHash(1<<30+i), false)
	}
	var back known
	if err := decode(encode(k.fields), back.fields); err != nil || back.len() != k.len() {
		t.Errorf("%d filters: %v", len(k.more.grown), err)
	}
}
