package detector

import (
	"fmt"
	"math"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// queues watches how the servers' mail queues grow: against what is usual
// there, never against a number that somebody else thought large. Growth
// that one account makes is that account's finding; growth without a culprit
// is the server's (a large provider that is down makes it too).
type queues struct{ hosts []queue }

// A queue is what is usual on one server.
type queue struct {
	host    string
	at      int64
	mean    float32 // of the logarithm of the total
	samples float32
	high    uint8 // samples in a row that were too high
	onset   int64
	told    float32
	owners  []owner
}

// An owner is an account's usual part of a queue.
type owner struct {
	key  uint32
	mean float32
}

// A part is an account's part of a sampled queue: at least so many messages.
type part struct {
	account mailq.Account
	count   int
}

const (
	queueHosts  = 256
	queueOwners = 32
	queueFew    = 200      // fewer queued messages than this are no growth
	queueTimes  = 4        // nor is less than so many times the usual
	queueInARow = 2        // samples, so that one busy minute is none
	queueLearn  = 6 * hour // what is usual follows with this time constant …
	queueUnwell = 7 * day  // … and hardly while the queue is too long
	culprit     = .5       // part of the growth that names an account
)

// grown takes a sample and makes a finding when the queue has grown, or has
// grown further.
func (d *Detector) grown(now int64, host string, total int, parts []part) (rules.Finding, bool) {
	d.fleet.dirty = true
	q := d.queue.of(clip(host, 255))
	usual := float32(math.Expm1(float64(q.mean)))
	limit := max(queueFew, queueTimes*usual)
	over := q.samples > 0 && float32(total) > limit
	switch {
	case !over:
		q.high = 0
		if float32(total) < limit/2 {
			q.onset, q.told = 0, 0
		}
	case q.high < queueInARow:
		q.high++
		if q.onset == 0 {
			q.onset = now
		}
	}
	who, count := q.blame(parts, float32(total)-usual)
	q.learn(now, total, parts, over)
	score := float32(speaks*3) + 3*log(float32(total)/limit)/math.Ln2
	if q.high < queueInARow || score < q.told+1 && q.told > 0 {
		return rules.Finding{}, false
	}
	q.told = score
	return q.finding(d, now, who, count, total, usual, score), true
}

// of returns the queue of the host; the one that was sampled longest ago
// makes room.
func (s *queues) of(host string) *queue {
	oldest := 0
	for i := range s.hosts {
		if s.hosts[i].host == host {
			return &s.hosts[i]
		}
		if s.hosts[i].at < s.hosts[oldest].at {
			oldest = i
		}
	}
	if len(s.hosts) < queueHosts {
		s.hosts = append(s.hosts, queue{host: host})
		return &s.hosts[len(s.hosts)-1]
	}
	s.hosts[oldest] = queue{host: host}
	return &s.hosts[oldest]
}

// blame names the account that made at least half of the growth and holds
// several times its usual part.
func (q *queue) blame(parts []part, growth float32) (mailq.Account, int) {
	for _, p := range parts {
		if n := float32(p.count); n >= culprit*growth && n > queueTimes*q.usually(hashOf(string(p.account))) {
			return p.account, p.count
		}
	}
	return "", 0
}

func (q *queue) usually(key uint32) float32 {
	for _, o := range q.owners {
		if o.key == key {
			return o.mean
		}
	}
	return 0
}

// learn takes the sample into what is usual.
func (q *queue) learn(now int64, total int, parts []part, over bool) {
	span := queueLearn
	if over {
		span = queueUnwell
	}
	w := max(1-decayed(now-q.at, span), 0)
	if q.samples == 0 {
		w = 1
	}
	q.at, q.samples = max(now, q.at), min(q.samples+1, 1e6)
	q.mean += w * (float32(math.Log1p(float64(total))) - q.mean)
	for i := range q.owners {
		q.owners[i].mean *= 1 - w
	}
	for _, p := range parts {
		q.own(hashOf(string(p.account)), w*float32(p.count))
	}
}

// own adds to an account's usual part; the least of the known makes room for
// a larger one.
func (q *queue) own(key uint32, more float32) {
	least := 0
	for i := range q.owners {
		if q.owners[i].key == key {
			q.owners[i].mean += more
			return
		}
		if q.owners[i].mean < q.owners[least].mean {
			least = i
		}
	}
	if len(q.owners) < queueOwners {
		q.owners = append(q.owners, owner{key, more})
	} else if q.owners[least].mean < more {
		q.owners[least] = owner{key, more}
	}
}

func (q *queue) finding(d *Detector, now int64, who mailq.Account, count, total int, usual, score float32) rules.Finding {
	f := rules.Finding{
		Rule:     "queue-growth",
		Subject:  q.host,
		Time:     time.Unix(0, now).UTC(),
		Since:    time.Unix(0, q.onset).UTC(),
		Score:    round(score),
		Families: 1,
	}
	text := fmt.Sprintf("%d messages are queued on %s; usually it holds about %d; no account made most of it", total, q.host, int(usual))
	if who != "" {
		f.Subject, f.Class = string(who), who.Kind()
		f.Shared = d.dir != nil && d.dir.IsShared(who)
		text = fmt.Sprintf("%d of %d messages queued on %s are this account's; usually the whole queue holds about %d", count, total, q.host, int(usual))
	}
	f.ID = rules.FindingID(f.Rule, f.Subject, f.Since)
	f.Evidence = []rules.Evidence{{Kind: "queue", Score: round(score), Text: text}}
	return f
}

func (s *queues) fields(c *codec) {
	list(c, &s.hosts, queueHosts, func(q *queue, c *codec) {
		c.text(&q.host, 255)
		c.i64(&q.at)
		c.count(&q.mean)
		c.count(&q.samples)
		c.u8(&q.high)
		c.i64(&q.onset)
		c.count(&q.told)
		list(c, &q.owners, queueOwners, func(o *owner, c *codec) {
			c.u32(&o.key)
			c.count(&o.mean)
		})
	})
}
