package detector

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// traffic makes n events of ordinary mail of that many accounts, as Postfix
// tells it: a submission, then a delivery for each recipient.
func ordinary(accounts, n int) []mailq.Event {
	rnd := rand.New(rand.NewPCG(1, 2))
	names := make([]mailq.Account, accounts)
	for i := range names {
		names[i] = mailq.Account(fmt.Sprintf("user%d@shop%d.test", i, i/20))
	}
	var evs []mailq.Event
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	for id := uint64(1); len(evs) < n; id++ {
		at = at.Add(time.Duration(rnd.ExpFloat64() * float64(24*time.Hour) / float64(4*accounts)))
		who := rnd.IntN(accounts)
		rcpts := 1
		if rnd.IntN(8) == 0 {
			rcpts = 1 + rnd.IntN(5)
		}
		client := netip.AddrFrom4([4]byte{10, byte(who >> 8), byte(who), 7})
		evs = append(evs, mailq.Event{Time: at, Kind: mailq.Submitted, Counts: true, Account: names[who], Message: id * 0x9e3779b97f4a7c15,
			Sender: string(names[who]), Client: client, Size: 1000 + rnd.IntN(50000), Rcpts: rcpts})
		for range rcpts {
			to := mailq.Recipient{Hash: recipientHash(uint64(who)<<16 | uint64(rnd.IntN(30))), Domain: "provider.test"}
			evs = append(evs, mailq.Event{Time: at.Add(2 * time.Second), Kind: mailq.Delivered, Account: names[who], Message: id * 0x9e3779b97f4a7c15,
				New: []mailq.Recipient{to}, To: to, Reply: mailq.Reply{Class: mailq.OK, Code: 250, Provider: "google"}})
		}
	}
	return evs[:n]
}

type nobody struct{}

func (nobody) Owns(a mailq.Account, sender string) bool { return sender == string(a) }
func (nobody) IsShared(mailq.Account) bool              { return false }

func BenchmarkObserve(b *testing.B) {
	for _, accounts := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("accounts=%d", accounts), func(b *testing.B) {
			evs := ordinary(accounts, 1_000_000)
			d := New(Default(), nobody{})
			for i := range evs { // every account is known before measuring
				d.Observe(&evs[i])
			}
			later := evs[len(evs)-1].Time.Sub(evs[0].Time)
			batch := make([]mailq.Event, 512) // as a parser hands them over; filling it is not the detector's work
			var spent time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += len(batch) {
				batch = batch[:min(len(batch), b.N-done)]
				for i := range batch {
					round := 1 + (done+i)/len(evs)
					batch[i] = evs[(done+i)%len(evs)]
					batch[i].Time = batch[i].Time.Add(time.Duration(round) * later)
					batch[i].Message += uint64(round)
				}
				begun := time.Now()
				for i := range batch { // as replay does
					if i%ExpectMost == 0 {
						d.Expect(batch[i:])
					}
					d.Observe(&batch[i])
				}
				spent += time.Since(begun)
			}
			b.ReportMetric(float64(b.N)/spent.Seconds(), "events/s")
		})
	}
}

// BenchmarkMemory tells what a million mailboxes cost, each with 20 messages
// of past.
func BenchmarkMemory(b *testing.B) {
	for _, accounts := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("accounts=%d", accounts), func(b *testing.B) {
			for range b.N {
				before := heap()
				d := New(Default(), nobody{})
				at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
				id := uint64(0)
				for round := range 20 {
					for who := range accounts {
						id++
						to := mailq.Recipient{Hash: recipientHash(uint64(who)<<16 | uint64(round*7%20)), Domain: "provider.test"}
						ev := mailq.Event{Time: at.Add(time.Duration(round)*7*time.Hour + time.Duration(who)), Kind: mailq.Submitted, Counts: true,
							Account: mailq.Account(fmt.Sprintf("user%d@shop%d.test", who, who/20)), Message: id, Rcpts: 1, New: []mailq.Recipient{to},
							Client: netip.AddrFrom4([4]byte{10, byte(who >> 8), byte(who), 7}), Size: 1000}
						d.Observe(&ev)
					}
				}
				b.ReportMetric(float64(heap()-before)/float64(accounts), "B/account")
				runtime.KeepAlive(d)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
