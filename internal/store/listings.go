package store

import (
	"context"
	"database/sql"
	"strings"
	"time"
)

// A ListingRow is one change: of a subject on a block list, or of a list.
type ListingRow struct {
	ID      int64 // order of writing, set by the store
	Time    time.Time
	Kind    string // as whoever writes it calls it
	List    string
	Subject string // empty if it is about the list
	Ends    bool   // the subject is not on the list any more
	Passing bool   // it says nothing any more once there is a later one about the subject and list
	Body    []byte // the whole change, as JSON
}

// A ListingFilter selects changes; its zero value selects the newest 100.
type ListingFilter struct {
	Subjects []string // any of these, at most MaxSubjects
	List     string
	Since    time.Time // not older than this
	Limit    int       // 100 if zero, at most 1,000
}

// MaxSubjects is how many subjects a [ListingFilter] may have: a /24, and some.
const MaxSubjects = 300

// AddListings writes changes in their order, all or none.
func (db *DB) AddListings(ctx context.Context, rows []ListingRow) error {
	if len(rows) == 0 {
		return nil
	}
	return db.update(ctx, "listings", func(tx *sql.Tx) error {
		put, err := tx.Prepare("INSERT INTO listings (at, kind, list, subject, ends, passing, body) VALUES (?, ?, ?, ?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer put.Close()
		for _, r := range rows {
			if _, err := put.Exec(nanos(r.Time), r.Kind, r.List, r.Subject, r.Ends, r.Passing, r.Body); err != nil {
				return err
			}
		}
		return nil
	})
}

// Listings returns the changes that filter selects, the last written first.
func (db *DB) Listings(ctx context.Context, filter ListingFilter) ([]ListingRow, error) {
	var w where
	if n := min(len(filter.Subjects), MaxSubjects); n > 0 {
		w.add("subject IN (?"+strings.Repeat(", ?", n-1)+")", anys(filter.Subjects[:n])...)
	}
	if filter.List != "" {
		w.add("list = ?", filter.List)
	}
	if !filter.Since.IsZero() {
		w.add("at >= ?", nanos(filter.Since))
	}
	w.args = append(w.args, atMost(filter.Limit))
	var all []ListingRow
	err := db.listings(ctx, w.String()+" ORDER BY id DESC LIMIT ?", w.args, func(r ListingRow) error {
		all = append(all, r)
		return nil
	})
	return all, err
}

// LoadListings calls load with the changes about subjects that are no older than
// since, or that belong to what has not ended and still say something, in order.
func (db *DB) LoadListings(ctx context.Context, since time.Time, load func(ListingRow) error) error {
	return db.listings(ctx, " WHERE subject != '' AND (at >= ? OR NOT ("+listingEnded+" OR "+listingPassed+")) ORDER BY id", []any{nanos(since)}, load)
}

// listingEnded is true of changes that belong to what has ended, listingPassed of
// those that a later one makes worthless.
const (
	listingEnded = "EXISTS (SELECT 1 FROM listings AS l WHERE l.subject = listings.subject AND l.list = listings.list AND l.id >= listings.id AND l.ends)"

	listingPassed = "passing AND EXISTS (SELECT 1 FROM listings AS l WHERE l.subject = listings.subject AND l.list = listings.list AND l.id > listings.id)"
)

func (db *DB) listings(ctx context.Context, which string, args []any, each func(ListingRow) error) error {
	return db.query(ctx, "listings", "SELECT id, at, kind, list, subject, ends, passing, body FROM listings"+which, args,
		func(scan func(...any) error) error {
			var r ListingRow
			var at int64
			if err := scan(&r.ID, &at, &r.Kind, &r.List, &r.Subject, &r.Ends, &r.Passing, &r.Body); err != nil {
				return err
			}
			r.Time = time.Unix(0, at)
			return each(r)
		})
}

func anys(texts []string) (all []any) {
	for _, text := range texts {
		all = append(all, text)
	}
	return all
}
