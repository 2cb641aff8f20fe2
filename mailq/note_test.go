package mailq

import (
	"net/netip"
	"testing"
	"time"
)

// A hook and the log tell about one message: it counts once, and each of its
// recipients is new once, whichever comes first.
func TestNote(t *testing.T) {
	note := Envelope{Time: time.Date(2026, 11, 22, 5, 28, 20, 0, time.UTC), QueueID: id1, Login: "Alice@shop.test", Client: netip.MustParseAddr("198.51.100.7"),
		Sender: "alice@shop.test", Recipients: []string{"R1@ok.test", "r2@ok.test", "r1@ok.test"}}
	client, active := at(clientLine(id1, "alice@shop.test")), at(activeLine(id1, "alice@shop.test", 2))
	rest := at(sentLine(id1, "r1@ok.test"), sentLine(id1, "r2@ok.test"), sentLine(id1, "r3@ok.test"))
	type step struct {
		log  string
		note *Envelope
	}
	tests := []struct {
		name  string
		steps []step
		want  string
	}{
		{"before the log knows the message", []step{{note: &note}, {log: client + active + rest}}, `submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2 new=2
delivered alice@shop.test 4jXK971kgrz1SRpG to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
`},
		{"before it was accepted", []step{{log: client}, {note: &note}, {log: active + rest}}, `submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2 new=2
delivered alice@shop.test 4jXK971kgrz1SRpG to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
`},
		{"after it was accepted", []step{{log: client + active}, {note: &note}, {log: rest}}, `submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2
addressed alice@shop.test 4jXK971kgrz1SRpG rcpts=2 new=2
delivered alice@shop.test 4jXK971kgrz1SRpG to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
`},
		{"after everything", []step{{log: client + active + rest}, {note: &note}}, `submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
delivered alice@shop.test 4jXK971kgrz1SRpG new=1 to=ok.test ok
`},
		{"twice", []step{{log: client + active}, {note: &note}, {note: &note}}, `submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2
addressed alice@shop.test 4jXK971kgrz1SRpG rcpts=2 new=2
`},
		{"of another login's message with the id", []step{{note: &note}, {log: at(clientLine(id1, "bob@shop.test"), activeLine(id1, "bob@shop.test", 1))}}, `submitted bob@shop.test 4jXK971kgrz1SRpG counts rcpts=1
`},
		{"of inbound mail", []step{{note: &Envelope{QueueID: id1, Recipients: []string{"bob@shop.test"}}}, {log: at(clientLine(id1, ""), activeLine(id1, "x@far.test", 1))}}, `submitted - 4jXK971kgrz1SRpG counts rcpts=1
`},
		{"of a server that the log names otherwise", []step{{note: &Envelope{Host: "mx9", QueueID: id1, Login: "alice@shop.test", Recipients: []string{"r1@ok.test"}}}, {log: client + active}}, `submitted alice@shop.test 4jXK971kgrz1SRpG counts rcpts=2
`},
		{"Exim's, before its line", []step{{note: &Envelope{QueueID: exim1, Login: "alice@shop.test", Recipients: []string{"r1@ok.test", "r2@ok.test"}}},
			{log: eximAt(exim1 + ` <= alice@shop.test H=(vm) [192.0.2.1]:45950 P=esmtpa A=dovecot_plain:alice@shop.test S=408 id=1@vm for r1@ok.test r2@ok.test r3@ok.test`)}},
			`submitted alice@shop.test 1xV0Cp-0005Jj-0V counts rcpts=3 new=3
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newParser()
			var evs []Event
			for _, s := range tt.steps {
				evs = append(evs, events(p, s.log)...)
				if s.note == nil {
					continue
				}
				if ev, ok := p.Note(*s.note); ok {
					evs = append(evs, ev)
				}
			}
			if got := briefs(evs); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestNotesAreBounded(t *testing.T) {
	p := newParser()
	for i := range 3 * maxParked {
		p.Note(Envelope{QueueID: numbered(i), Login: "alice@shop.test", Recipients: []string{"r@ok.test"}})
	}
	if len(p.notes) > maxParked {
		t.Errorf("%d notes are kept, want at most %d", len(p.notes), maxParked)
	}
}

// numbered is a queue id for each number.
func numbered(i int) string {
	return string([]byte{'A' + byte(i>>12), '0' + byte(i>>8&15), '0' + byte(i>>4&15), '0' + byte(i&15)})
}
