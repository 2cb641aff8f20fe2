package enforce

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// What is wrong with a table or with an entry. Test with errors.Is.
var (
	// ErrForeignEdit means that somebody else wrote the table since we did, or
	// that it was never ours. It is left as it is; see [SetAside].
	ErrForeignEdit = errors.New("was edited by somebody else")

	// ErrLogin means that a login cannot be written into the table without
	// being taken for something else. All others were written.
	ErrLogin = errors.New("login cannot be written into the table")

	// ErrNotKept means that the table, read back, is not what was written.
	ErrNotKept = errors.New("table does not hold what was written")
)

// A leftOut is why something of one account cannot stand in a table.
type leftOut struct {
	subject string
	err     error
}

func (l leftOut) Error() string { return l.err.Error() }
func (l leftOut) Unwrap() error { return l.err }

// leave says of an error about an entry whose it is.
func leave(e Entry, err error) error {
	if err == nil {
		return nil
	}
	return leftOut{e.Subject, err}
}

// splitLeft takes what a table left out off the error of its Apply.
func splitLeft(err error) (left []leftOut, other error) {
	switch e := err.(type) {
	case nil:
		return nil, nil
	case leftOut:
		return []leftOut{e}, nil
	case interface{ Unwrap() []error }:
		var others []error
		for _, inner := range e.Unwrap() {
			l, o := splitLeft(inner)
			others, left = append(others, o), append(left, l...)
		}
		if len(left) == 0 {
			return nil, err
		}
		return left, errors.Join(others...)
	case interface{ Unwrap() error }:
		if left, other = splitLeft(e.Unwrap()); len(left) == 0 {
			return nil, err
		}
		return left, other
	}
	return nil, err
}

// SetAside renames a table that somebody else edited, so that the next Apply
// begins a new one, and returns its new name. A server whose table is missing
// may refuse everybody or nobody: Apply at once.
func SetAside(path string) (string, error) {
	aside := path + ".foreign-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("enforce: %w", err)
	}
	return aside, nil
}

// The header of the table. The checksum covers what follows it.
const (
	tableHeader = "# Accounts that Vedetta stopped. Vedetta writes this file whole: edits are\n" +
		"# reported and keep it from writing. To release one: vedetta unblock ACCOUNT\n"
	tableSum = "# sha256 of the lines below: "
)

// headed puts the header in front of lines.
func headed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return slices.Concat([]byte(tableHeader+tableSum+hex.EncodeToString(sum[:])+"\n"), body)
}

// ours reports whether text is as we last wrote it, or empty.
func ours(text []byte) bool {
	if len(bytes.TrimSpace(text)) == 0 {
		return true
	}
	rest, ok := bytes.CutPrefix(text, []byte(tableHeader+tableSum))
	if !ok {
		return false
	}
	sum, body, _ := bytes.Cut(rest, []byte("\n"))
	want := sha256.Sum256(body)
	return string(sum) == hex.EncodeToString(want[:])
}

// readOurs reads a table; nil if there is none yet, ErrForeignEdit if somebody
// else wrote it.
func readOurs(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !ours(text):
		return nil, ErrForeignEdit
	}
	return text, nil
}

// A textTable is a table that a server reads as it is, line by line.
type textTable struct {
	path string
	mode fs.FileMode // of a new one, 0 means 0644; one that is there keeps its owner and mode
}

// hold makes the table hold the lines and no others, and reads it back. It is
// written under another name and renamed into place: nobody ever reads half of
// it, and killing us at any moment leaves the old one or the new one.
func (t textTable) hold(body []byte) error {
	unlock, err := lockDir(filepath.Dir(t.path))
	if err != nil {
		return err
	}
	defer unlock()
	text := headed(body)
	old, err := readOurs(t.path)
	if err != nil {
		return err
	}
	if old != nil && bytes.Equal(old, text) {
		return nil
	}
	if err := t.write(text); err != nil {
		return err
	}
	kept, err := os.ReadFile(t.path)
	if err != nil || !bytes.Equal(kept, text) {
		return errors.Join(ErrNotKept, err)
	}
	return nil
}

func (t textTable) write(text []byte) error {
	dir, base := filepath.Split(t.path)
	fresh := filepath.Join(dir, "."+base+".new")
	defer os.Remove(fresh)
	mode := t.mode
	if mode == 0 {
		mode = 0o644
	}
	before, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = writeFile(fresh, text, mode)
	case err == nil:
		err = errors.Join(writeFile(fresh, text, before.Mode().Perm()), sameOwner(fresh, before), laterThan(fresh, before))
	}
	if err != nil {
		return err
	}
	if err := os.Rename(fresh, t.path); err != nil {
		return err
	}
	return syncFile(filepath.Clean(dir + "."))
}

// sameOwner gives a file the owner and group of another one; the group alone
// if we are not root, who alone can give files away.
func sameOwner(path string, as fs.FileInfo) error {
	now, err := os.Stat(path)
	if err != nil {
		return err
	}
	want, is := as.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
	uid := want.Uid
	if os.Geteuid() != 0 {
		uid = is.Uid
	}
	if uid == is.Uid && want.Gid == is.Gid {
		return nil
	}
	return os.Chown(path, int(uid), int(want.Gid))
}

// laterThan has the time of a file differ by whole seconds from that of the
// one that it replaces, even if it is ahead of the clock then: Dovecot reads a
// file anew when its size or the second of its time changed.
func laterThan(path string, than fs.FileInfo) error {
	if time.Now().Unix() > than.ModTime().Unix() {
		return nil
	}
	later := than.ModTime().Truncate(time.Second).Add(time.Second)
	return os.Chtimes(path, later, later)
}

// writeFile writes a new file through to the disk.
func writeFile(path string, text []byte, mode fs.FileMode) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

// syncFile writes a file or directory through to the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lockDir keeps other processes of ours from writing in dir at the same time.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another process is writing: %w", dir, err)
	}
	return func() {
		// Closing alone would not do: a program that is being started at this
		// moment may still have the descriptor.
		syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		f.Close()
	}, nil
}
