package detector

import (
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

func TestQueueGrowth(t *testing.T) {
	const host = "mx1.host.test"
	spammer := mailq.Account("mallory@shop.test")
	calm := func(d *Detector, minutes int) int64 {
		for i := range minutes {
			at := monday.Add(time.Duration(i) * time.Minute)
			if f, ok := d.grown(at.UnixNano(), host, 60+i%40, []part{{"list@shop.test", 50}}); ok {
				t.Fatalf("an ordinary queue made %+v", f)
			}
		}
		return monday.Add(time.Duration(minutes) * time.Minute).UnixNano()
	}
	for _, c := range []struct {
		name    string
		totals  []int
		parts   []part
		subject string // empty: no finding
		count   int
	}{
		{"one busy minute is no growth", []int{900, 80, 80}, nil, "", 0},
		{"growth by one account names it", []int{900, 1000, 1010}, []part{{spammer, 850}, {"list@shop.test", 60}}, string(spammer), 1},
		{"growth without a culprit names the server", []int{900, 1000}, []part{{spammer, 100}, {"list@shop.test", 60}}, host, 1},
		{"the usual owner of the queue is no culprit", []int{900, 1000}, []part{{"list@shop.test", 150}}, host, 1},
		{"further growth is told again", []int{900, 1000, 2500, 9000}, []part{{spammer, 850}}, host, 2},
		{"twice the usual is no growth", []int{190, 195, 199}, nil, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New(Default(), nil)
			now := calm(d, 600)
			found, last := 0, ""
			for _, total := range c.totals {
				now += minute
				if f, ok := d.grown(now, host, total, c.parts); ok {
					found++
					last = f.Subject
					if f.Rule != "queue-growth" || len(f.Evidence) != 1 || f.ID == "" {
						t.Errorf("a finding without substance: %+v", f)
					}
				}
			}
			if c.subject == "" && found > 0 || c.subject != "" && (last != c.subject || found < c.count) {
				t.Errorf("%d findings, the last about %q; want %d about %q", found, last, c.count, c.subject)
			}
		})
	}
}

func TestQueueGrowthIsOneEpisodeUntilItDrains(t *testing.T) {
	d := New(Default(), nil)
	now := monday.UnixNano()
	feed := func(total, n int) (ids []string) {
		for range n {
			now += minute
			if f, ok := d.grown(now, "mx1", total, nil); ok {
				ids = append(ids, f.ID)
			}
		}
		return ids
	}
	feed(50, 300)
	first := feed(2000, 5)
	more := feed(8000, 5)
	feed(50, 30)
	again := feed(2000, 5)
	if len(first) != 1 || len(more) != 1 || len(again) != 1 || first[0] != more[0] || first[0] == again[0] {
		t.Errorf("findings %v, %v, and after it had drained %v", first, more, again)
	}
}
