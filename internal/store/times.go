package store

import (
	"database/sql"
	"time"
)

// The first and the last moment that fit nanoseconds since 1970.
var (
	earliest = time.Unix(0, -1<<63)
	latest   = time.Unix(0, 1<<63-1)
)

// nanos is how a time is stored: nanoseconds since 1970, NULL for the zero
// time. What lies before 1677 or after 2262 is stored as the nearest moment
// that fits, because a log may claim any year.
func nanos(t time.Time) any {
	switch {
	case t.IsZero():
		return nil
	case t.Before(earliest):
		return int64(-1 << 63)
	case t.After(latest):
		return int64(1<<63 - 1)
	}
	return t.UnixNano()
}

// moment is the time that nanos stored.
func moment(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(0, n.Int64).UTC()
}
