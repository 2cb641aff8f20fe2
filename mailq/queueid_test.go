package mailq

import (
	"testing"
	"time"
)

func TestQueueIDTime(t *testing.T) {
	tests := []struct {
		name, id, want string // want is empty for none
	}{
		{"postfix-long-id-time", "4jXK971kgrz1SRpG", "2026-11-22T06:36:27"},
		{"long id, a minute later", "4jXK9J5TXnz1SRsN", "2026-11-22T06:36:36"},
		{"exim up to 4.96", "1xV1Bh-0000Em-0g", "2026-11-22T06:36:33"},
		{"exim from 4.97", "1xV1Bh-00000000Em9-0gXY", "2026-11-22T06:36:33"},
		{"short ids hold none", "1795998C2C7", ""},
		{"a word", "NOQUEUE", ""},
		{"nothing", "", ""},
		{"vowels are no digits of a long id", "4jXK971kgrz1SRpA", ""},
		{"far too long", "4jXK971kgrz1SRpG4jXK971kgrz1SRpG", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := QueueIDTime(tt.id)
			if ok != (tt.want != "") {
				t.Fatalf("has a time: %v (%s), want %v", ok, got, tt.want != "")
			}
			if ok && got.Truncate(time.Second).Format("2006-01-02T15:04:05") != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestIsQueueID(t *testing.T) {
	for id, want := range map[string]bool{"4jXK971kgrz1SRpG": true, "1795998C2C7": true, "warning": false, "connect": false, "NOQUEUE": false,
		"statistics": false, "ABCDE": false, "timeout": false, "4jXK971kgrzz": true, "lostzzzzzzz": false} {
		if got := isQueueID([]byte(id)); got != want {
			t.Errorf("%q: %v, want %v", id, got, want)
		}
	}
}
