package store

import (
	"path/filepath"
	"testing"
)

// open opens a fresh database.
func open(t testing.TB) *DB {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "vedetta.db"))
}

func openAt(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestOpenSetsTheFileUp(t *testing.T) {
	db := open(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "1", "auto_vacuum": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		if err := db.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
		}
	}
	if _, err := db.read.Exec("DELETE FROM settings"); err == nil {
		t.Error("a reading connection can write")
	}
}
