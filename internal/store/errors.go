package store

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// The errors that callers branch on; every error of a DB names the file.
var (
	ErrFull     = errors.New("no space left for the database: free some on its file system; nothing of this was written, and writing works again as soon as there is room")
	ErrReadOnly = errors.New("the database cannot be written: check the owner and mode of the file and its directory, and that the file system is not mounted read-only")
	ErrNotFound = errors.New("not in the database")
	ErrNewer    = errors.New("the database was made by a newer version of vedetta: install that version, or restore the copy that was made before the update")
)

// A failure is an error with the file and what was to be done.
type failure struct {
	path, what string
	kind       error // what to do about it, nil if there is no advice
	err        error
}

func (f *failure) Error() string {
	if f.kind == nil {
		return fmt.Sprintf("store: %s: %s: %v", f.path, f.what, f.err)
	}
	return fmt.Sprintf("store: %s: %s: %v (%v)", f.path, f.what, f.kind, f.err)
}

func (f *failure) Unwrap() []error {
	if f.kind == nil {
		return []error{f.err}
	}
	return []error{f.kind, f.err}
}

// explain adds the file, and what to do, to an error that has neither.
func (db *DB) explain(what string, err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	return &failure{db.path, what, kindOf(err), err}
}

// These are advice only: callers treat them as any other error.
var (
	errBusy    = errors.New("another program holds the database: end it")
	errDamaged = errors.New("the database is damaged or is none: put it aside and restore a copy, or begin with an empty one: it reads the logs from their beginning, and knows nothing of what is blocked")
	errOpen    = errors.New("the file, or those that SQLite keeps beside it, cannot be opened: check the mode of its directory and the limit of open files")
	errDisk    = errors.New("the disk or file system does not do what it should: see the kernel's log")
)

// kindOf says which of the known troubles err is, nil if none.
func kindOf(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ErrFull
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return ErrReadOnly
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code() {
	case sqlite3.SQLITE_IOERR_SHMSIZE: // the shared index of the write-ahead log could not grow
		return ErrFull
	}
	switch e.Code() & 0xff { // the primary code
	case sqlite3.SQLITE_FULL:
		return ErrFull
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return ErrReadOnly
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return errBusy
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return errDamaged
	case sqlite3.SQLITE_CANTOPEN:
		return errOpen
	case sqlite3.SQLITE_IOERR:
		return errDisk
	}
	return nil
}
