package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"time"
)

// Health is how much the database takes.
type Health struct {
	Size int64 // bytes on disk, the write-ahead log included
	Free int64 // bytes of the file that hold nothing and will be used first
}

// errGone is told until a restart: nothing else would show that what is written goes nowhere.
var errGone = errors.New("the file was removed or replaced while it is in use; what is written now is lost: stop vedetta, put the file back, start it again")

// Check writes a few bytes, so that a full disk or a read-only file is
// noticed before something has to be remembered, and returns the size. It
// finds out whether the file is still there, too.
func (db *DB) Check(ctx context.Context) (Health, error) {
	if info, err := os.Stat(db.path); errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, db.file) {
		return Health{}, db.explain("check", errGone)
	}
	var pageSize, pages, free int64
	err := db.update(ctx, "check", func(tx *sql.Tx) error {
		if err := putSetting(tx, "checked", []byte(time.Now().UTC().Format(time.RFC3339Nano))); err != nil {
			return err
		}
		return tx.QueryRow("SELECT page_size, page_count, freelist_count FROM pragma_page_size, pragma_page_count, pragma_freelist_count").
			Scan(&pageSize, &pages, &free)
	})
	if err != nil {
		return Health{}, err
	}
	return Health{Size: pages*pageSize + fileSize(db.path+"-wal"), Free: free * pageSize}, nil
}

// fileSize is 0 for a file that is not there.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
