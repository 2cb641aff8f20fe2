package main

import (
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/app"
)

func TestPrintRotation(t *testing.T) {
	at := time.Date(2026, 3, 20, 12, 0, 0, 0, time.Local)
	for _, test := range []struct {
		r    app.Rotation
		want string
	}{
		{app.Rotation{}, "the key is not being rotated\n"},
		{app.Rotation{Begun: at, Ends: at.AddDate(0, 6, 0)}, "the key is being rotated since 2026-03-20 12:00:00, until 2026-09-20 12:00:00\n"},
		{app.Rotation{Begun: at, Ends: at.AddDate(0, 6, 0), Last: "mx1"}, "the key is being rotated since 2026-03-20 12:00:00, until 2026-09-20 12:00:00; the time counts from when mx1 hashed with both"},
		{app.Rotation{Begun: at, Waits: []string{"mx1", "mx2\x1b"}}, "the key is being rotated since 2026-03-20 12:00:00; it waits for mx1, mx2"},
	} {
		var out strings.Builder
		if err := printRotation(&out, test.r); err != nil || !strings.HasPrefix(out.String(), test.want) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("got %q, %v, want %q", out.String(), err, test.want)
		}
	}
}
