package mailq

import (
	"testing"
	"time"
)

func TestStamps(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skipf("no zone data: %v", err)
	}
	type row struct{ line, want string } // want is empty for no stamp
	tests := []struct {
		name string
		loc  *time.Location
		now  string
		rows []row
	}{
		{name: "every form", now: "2026-11-23T00:00:00Z", rows: []row{
			{"Nov 22 05:28:20 mx1 postfix/smtpd[1]: x", "2026-11-22T05:28:20Z"},
			{"Nov  2 05:28:20 mx1 postfix/smtpd[1]: x", "2026-11-02T05:28:20Z"},
			{"2026-11-22T05:28:20.123456+02:00 mx1 x", "2026-11-22T03:28:20.123456Z"},
			{"2026-11-22T05:28:20Z mx1 postfix: x", "2026-11-22T05:28:20Z"},
			{"2026-11-22 05:33:39 [20443] 1xV0Cp-0005Jj-0V <= x", "2026-11-22T05:33:39Z"},
			{"2026-11-22 05:33:39.123 [20443] x", "2026-11-22T05:33:39.123Z"},
			{"2026-11-22 05:33:39 +0200 [20443] x", "2026-11-22T03:33:39Z"},
			{"2026-11-22 05:33:39.5 -0130 x", "2026-11-22T07:03:39.5Z"},
			{"2026-12-31 23:59:60 leap second", "2027-01-01T00:00:00Z"},
		}},
		{name: "mixed-stamps", now: "2026-11-23T00:00:00Z", rows: []row{
			{"Nov 22 05:28:20 mx1 postfix/smtpd[1]: x", "2026-11-22T05:28:20Z"},
			{"2026-11-22T05:28:21.5+00:00 mx1 x: y", "2026-11-22T05:28:21.5Z"},
			{"Nov 22 05:28:22 mx1 postfix/smtpd[1]: x", "2026-11-22T05:28:22Z"},
		}},
		{name: "year-turn in the file", now: "2027-01-02T12:00:00Z", rows: []row{
			{"Dec 30 23:59:59 mx1 x: y", "2026-12-30T23:59:59Z"},
			{"Dec 31 23:59:59 mx1 x: y", "2026-12-31T23:59:59Z"},
			{"Jan  1 00:00:00 mx1 x: y", "2027-01-01T00:00:00Z"},
			{"Dec 31 23:59:59 mx1 x: y", "2026-12-31T23:59:59Z"}, // a slow process
			{"Jan  1 00:00:01 mx1 x: y", "2027-01-01T00:00:01Z"},
		}},
		{name: "year-turn: December read in January", now: "2027-01-01T00:00:05Z", rows: []row{{"Dec 31 23:59:59 mx1 x: y", "2026-12-31T23:59:59Z"}}},
		{name: "a day ahead is this year", now: "2026-11-22T00:00:00Z", rows: []row{{"Nov 22 23:00:00 mx1 x: y", "2026-11-22T23:00:00Z"}}},
		{name: "more than a day ahead is last year", now: "2026-11-20T00:00:00Z", rows: []row{{"Nov 22 23:00:00 mx1 x: y", "2025-11-22T23:00:00Z"}}},
		{name: "ahead over the turn", now: "2026-12-31T23:00:00Z", rows: []row{{"Jan  1 01:00:00 mx1 x: y", "2027-01-01T01:00:00Z"}}},
		{name: "29 February", now: "2026-11-20T00:00:00Z", rows: []row{{"Feb 29 12:00:00 mx1 x: y", "2024-02-29T12:00:00Z"}}},
		{name: "autumn: the hour that comes twice", loc: berlin, now: "2026-10-26T00:00:00Z", rows: []row{
			{"Oct 25 01:59:59 mx1 x: y", "2026-10-24T23:59:59Z"},
			{"Oct 25 02:00:00 mx1 x: y", "2026-10-25T00:00:00Z"},
			{"Oct 25 02:59:59 mx1 x: y", "2026-10-25T00:59:59Z"},
			{"Oct 25 02:59:58 mx1 x: y", "2026-10-25T00:59:58Z"},
			{"Oct 25 02:00:00 mx1 x: y", "2026-10-25T01:00:00Z"},
			{"Oct 25 02:30:01 mx1 x: y", "2026-10-25T01:30:01Z"},
			{"Oct 25 02:59:59 mx1 x: y", "2026-10-25T01:59:59Z"},
			{"Oct 25 03:00:00 mx1 x: y", "2026-10-25T02:00:00Z"},
		}},
		{name: "autumn: started within the second pass", loc: berlin, now: "2026-10-25T01:30:00Z", rows: []row{{"Oct 25 02:29:00 mx1 x: y", "2026-10-25T01:29:00Z"}}},
		{name: "spring: the hour that does not come", loc: berlin, now: "2026-03-30T00:00:00Z", rows: []row{
			{"Mar 29 01:59:59 mx1 x: y", "2026-03-29T00:59:59Z"},
			{"Mar 29 02:30:00 mx1 x: y", "2026-03-29T01:30:00Z"},
			{"Mar 29 03:31:00 mx1 x: y", "2026-03-29T01:31:00Z"},
		}},
		{name: "none", now: "2026-11-23T00:00:00Z", rows: []row{{"", ""}, {"Nov 22", ""}, {"Xyz 22 05:28:20 mx1 x: y", ""}, {"Nov 32 05:28:20 mx1 x: y", ""}, {"Nov 22 25:28:20 mx1 x: y", ""},
			{"2026-13-22 05:33:39 [1] x", ""}, {"2026-11-22X05:33:39 [1] x", ""}, {"2026-11-22T05:33:39 no zone", ""}, {"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13", ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, tt.now)
			if err != nil {
				t.Fatal(err)
			}
			s := Stamps{Location: tt.loc, Now: now}
			if tt.loc == nil {
				s.Location = time.UTC
			}
			for _, r := range tt.rows {
				got, ok := s.LineTime([]byte(r.line))
				if ok != (r.want != "") {
					t.Fatalf("%q: stamp %v, want %v", r.line, ok, r.want != "")
				}
				if ok && got.Format(time.RFC3339Nano) != r.want {
					t.Errorf("%q: %s, want %s", r.line, got.Format(time.RFC3339Nano), r.want)
				}
			}
		})
	}
}

// Whatever day it is, the stamp that a server writes now is read as now.
func TestStampsReadBackWhatIsWritten(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Auckland"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Skipf("no zone data: %v", err)
		}
		start := time.Date(2025, 12, 30, 0, 0, 0, 0, time.UTC)
		s := Stamps{Location: loc, Now: start}
		for at := start; at.Before(start.AddDate(1, 0, 5)); at = at.Add(601 * time.Second) {
			line := at.In(loc).Format("Jan _2 15:04:05") + " mx1 x: y"
			if got, ok := s.LineTime([]byte(line)); !ok || !got.Equal(at) {
				t.Fatalf("%s: %q is %s, want %s", zone, line, got, at)
			}
		}
	}
}
