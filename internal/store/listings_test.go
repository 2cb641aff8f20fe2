package store

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestListings writes changes, reads them in both orders, and forgets what is
// old and over; what is listed keeps its beginning.
func TestListings(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "vedetta.db")
	db, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	row := func(days int, kind, list, subject string, ends bool) ListingRow {
		return ListingRow{Time: now.AddDate(0, 0, -days), Kind: kind, List: list, Subject: subject, Ends: ends, Body: []byte(`{"n":1}`)}
	}
	if err := db.AddListings(ctx, []ListingRow{
		row(400, "listed", "spamcop", "203.0.113.9", false),
		row(399, "cleared", "spamcop", "203.0.113.9", true),
		row(380, "listed", "psbl", "203.0.113.9", false),
		row(370, "list-state", "psbl", "", false),
		row(2, "listed", "spamcop", "203.0.113.9", false),
		row(1, "cleared", "spamcop", "203.0.113.9", true),
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(ctx, path); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	kinds := func(f ListingFilter) (all []string) {
		rows, err := db.Listings(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if string(r.Body) != `{"n":1}` || r.Ends != (r.Kind == "cleared") {
				t.Errorf("read %+v", r)
			}
			all = append(all, r.Kind+" "+r.List)
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		filter ListingFilter
		want   []string
	}{
		{"all", ListingFilter{}, []string{"cleared spamcop", "listed spamcop", "list-state psbl", "listed psbl", "cleared spamcop", "listed spamcop"}},
		{"the newest", ListingFilter{Limit: 1}, []string{"cleared spamcop"}},
		{"of a subject", ListingFilter{Subjects: []string{"203.0.113.9"}, Limit: 3}, []string{"cleared spamcop", "listed spamcop", "listed psbl"}},
		{"of a list, lately", ListingFilter{List: "psbl", Since: now.AddDate(0, 0, -375)}, []string{"list-state psbl"}},
		{"of one of two", ListingFilter{Subjects: []string{"203.0.113.10", "203.0.113.9"}, Limit: 1}, []string{"cleared spamcop"}},
		{"of another", ListingFilter{Subjects: []string{"203.0.113.10"}}, nil},
	} {
		if got := kinds(tt.filter); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	p, err := db.Prune(ctx, now, Ages{Listings: 365 * 24 * time.Hour})
	if err != nil || p.Listings != 3 {
		t.Errorf("pruned %+v, %v; want 3", p, err)
	}
	var left []string
	if err := db.LoadListings(ctx, time.Unix(0, 0), func(r ListingRow) error { left = append(left, r.Kind+" "+r.List); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"listed psbl", "listed spamcop", "cleared spamcop"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}

// What is loaded at a start is what did not end, and what changed lately.
func TestLoadListings(t *testing.T) {
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "vedetta.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	row := func(hours int, kind, list string) ListingRow {
		return ListingRow{Time: now.Add(-time.Duration(hours) * time.Hour), Kind: kind, List: list, Subject: "203.0.113.9", Ends: kind == "cleared", Body: []byte("{}")}
	}
	if err := db.AddListings(t.Context(), []ListingRow{
		row(900, "listed", "spamcop"), row(890, "cleared", "spamcop"), row(800, "listed", "psbl"), row(700, "recoded", "psbl"),
		row(600, "listed", "spamcop"), row(5, "listed", "zen"), row(4, "cleared", "zen"), row(100, "cleared", "gone"),
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := db.LoadListings(t.Context(), now.Add(-24*time.Hour), func(r ListingRow) error { got = append(got, r.Kind+" "+r.List); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"listed psbl", "recoded psbl", "listed spamcop", "listed zen", "cleared zen"}; !slices.Equal(got, want) {
		t.Errorf("loaded %q, want %q", got, want)
	}
}

// A list that cannot make up its mind leaves a long history of what still
// stands: little of it is read at a start, none is kept for ever, and neither
// takes long.
func TestListingsThatWaver(t *testing.T) {
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "vedetta.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	rows := []ListingRow{{Time: now.AddDate(-3, 0, 0), Kind: "listed", List: "psbl", Subject: "203.0.113.9", Body: []byte("{}")}}
	for i := range 20_000 {
		at := now.AddDate(-2, 0, 0).Add(time.Duration(i) * time.Hour)
		rows = append(rows, ListingRow{Time: at, Kind: [...]string{"clearing", "relapsed"}[i%2], List: "psbl", Subject: "203.0.113.9", Passing: true, Body: []byte("{}")})
	}
	if err := db.AddListings(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	var loaded []string
	load := func(r ListingRow) error { loaded = append(loaded, r.Kind); return nil }
	if err := db.LoadListings(t.Context(), now.AddDate(1, 0, 0), load); err != nil {
		t.Fatal(err)
	}
	if want := []string{"listed", "relapsed"}; !slices.Equal(loaded, want) {
		t.Errorf("loaded %d changes, want %q", len(loaded), want)
	}
	p, err := db.Prune(t.Context(), now, Ages{Listings: 365 * 24 * time.Hour})
	if err != nil || p.Listings < 8_000 {
		t.Errorf("pruned %+v, %v", p, err)
	}
	loaded = nil
	if err := db.LoadListings(t.Context(), now.AddDate(1, 0, 0), load); err != nil || len(loaded) != 2 {
		t.Errorf("left %q, %v", loaded, err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}
