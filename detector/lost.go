package detector

import (
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// lost remembers which hosts were told to have lost log lines, and when.
type lost struct{ told []blindness }

type blindness struct {
	host string
	slot int64 // the hour
}

const lostHosts = 1024

// blind makes a finding of lost log lines, once an hour and host: what was
// not seen can be neither found nor cleared.
func (d *Detector) blind(ev *mailq.Event) (rules.Finding, bool) {
	d.fleet.dirty = true
	slot := ev.Time.UnixNano() / hour
	host := clip(ev.Host, 255)
	if host == "" {
		host = "unknown"
	}
	if !d.lost.first(host, slot) {
		return rules.Finding{}, false
	}
	since := time.Unix(0, slot*hour).UTC()
	text := "log lines were lost before they could be read; what they said is not known"
	if ev.Rcpts > 0 {
		text = fmt.Sprintf("%d log lines were lost before they could be read; what they said is not known", ev.Rcpts)
	}
	return rules.Finding{
		ID:       rules.FindingID("lost-coverage", host, since),
		Rule:     "lost-coverage",
		Subject:  host,
		Time:     ev.Time.UTC(),
		Since:    since,
		Evidence: []rules.Evidence{{Kind: "coverage", Text: text}},
	}, true
}

// first reports whether this is the host's first loss in the hour.
func (l *lost) first(host string, slot int64) bool {
	oldest := 0
	for i := range l.told {
		b := &l.told[i]
		if b.host == host {
			if b.slot == slot {
				return false
			}
			b.slot = slot
			return true
		}
		if b.slot < l.told[oldest].slot {
			oldest = i
		}
	}
	if len(l.told) < lostHosts {
		l.told = append(l.told, blindness{host, slot})
		return true
	}
	l.told[oldest] = blindness{host, slot}
	return true
}
