package app

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vedetta-watch/vedetta/internal/hub"
)

// A text of a place, for tests: its parts with their first and last batch, what
// the hub has of them, and their lane.
func (p place) String() string {
	var parts []string
	for _, s := range p.Parts {
		lane := ""
		if s.Late {
			lane = " late"
		}
		parts = append(parts, fmt.Sprintf("%d-%d@%d%s", s.Base+1, s.Last, s.Acked, lane))
	}
	return strings.Join(parts, ", ")
}

// Where the hub and the agent's disk have come apart, nothing is left out.
func TestPlaceOfTheSpool(t *testing.T) {
	const epoch = 1000
	one := func(base, acked uint64) []part { return []part{{Epoch: epoch, Base: base, Acked: acked}} }
	three := func() []part { // of what was new, what waited and what is new
		return []part{{epoch, 0, 3, 3, false}, {epoch + 1, 3, 5, 8, true}, {epoch + 2, 8, 9, 0, false}}
	}
	old := func(epoch, seq uint64) *hub.Mark { return &hub.Mark{Epoch: epoch, Seq: seq, Late: true} }
	for _, test := range []struct {
		name   string
		parts  []part
		at     hub.Mark
		old    *hub.Mark
		newest uint64
		want   string
		anew   bool // in later epochs
	}{
		{"first contact", one(0, 0), hub.Mark{}, old(0, 0), 5, "1-0@0", false},
		{"as it was", one(0, 4), nth(epoch, 4), old(0, 0), 5, "1-0@4", false},
		{"the hub has forgotten some", one(0, 4), nth(epoch, 2), old(0, 0), 5, "1-0@2", false},
		{"the hub has forgotten all", one(10, 14), nth(7, 900), old(0, 0), 15, "11-0@10", false},
		{"in a later epoch", one(10, 12), nth(epoch, 3), old(0, 0), 15, "11-0@13", false},
		{"this disk was set back", one(0, 4), nth(epoch, 50), old(0, 0), 9, "10-0@9", true},
		{"this disk was set back over an epoch", one(0, 4), nth(1<<62, 50), old(0, 0), 9, "5-0@4", true},
		{"both lanes", three(), nth(epoch+2, 2), old(epoch+1, 4), 11, "1-3@3, 4-8@7 late, 9-0@10", false},
		{"nothing of what waits", three(), nth(epoch+2, 1), old(900, 7), 11, "1-3@3, 4-8@3 late, 9-0@9", false},
		{"the hub is of a backup", three(), nth(epoch, 1), old(0, 0), 11, "1-3@1, 4-8@3 late, 9-0@8", false},
		{"all that waited", three(), nth(epoch+2, 1), old(epoch+1, 5), 11, "1-3@3, 4-8@8 late, 9-0@9", false},
		{"set back in the lane of what waits", three(), nth(epoch+2, 1), old(1<<62, 1), 11, "6-8@5 late, 10-0@9", true},
		{"set back while what waits drains", three(), nth(epoch+2, 40), old(epoch+1, 2), 11, "6-8@5 late, 12-0@11", true},
		{"set back before any of it came", three(), nth(epoch+2, 40), old(900, 7), 11, "4-8@3 late, 12-0@11", true},
		{"an earlier release went on with what was new", []part{{epoch, 0, 3, 3, false}, {epoch + 1, 3, 3, 0, true}}, nth(epoch, 6), old(0, 0), 8, "7-8@6 late, 9-0@8", true},
		{"a hub of one lane", one(0, 4), nth(epoch, 5), nil, 6, "1-0@5", false},
		{"a hub of one lane, after a cut", []part{{epoch, 0, 1, 3, false}, {epoch + 1, 3, 3, 0, true}}, nth(epoch, 2), nil, 8, "1-3@2, 4-0@3", false},
		{"a hub that went back to one lane, and has had what is new", three(), nth(epoch+2, 2), nil, 11, "6-8@5, 11-0@10", true},
		{"a hub that went back to one lane, and had what waited", three(), nth(epoch+1, 4), nil, 11, "8-8@7, 10-0@9", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := place{Agent: "mx1", Parts: test.parts}
			p.hear(hub.Marks{Mark: test.at, Old: test.old}, test.newest)
			if got := p.String(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			last := test.at.Epoch
			if test.old != nil {
				last = max(last, test.old.Epoch)
			}
			if anew := p.Parts[0].Epoch > epoch+2; anew != test.anew || test.anew && p.Parts[0].Epoch <= last {
				t.Errorf("epochs %+v", p.Parts)
			}
		})
	}
}

func nth(epoch, seq uint64) hub.Mark { return hub.Mark{Epoch: epoch, Seq: seq} }
