package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mount makes a file system of 4 MB, or skips the test where that is not
// permitted.
func mount(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk fills a real file system to the last byte.
func TestFullDisk(t *testing.T) {
	dir := mount(t)
	db := openAt(t, filepath.Join(dir, "vedetta.db"))
	junk := filepath.Join(dir, "junk")
	trouble(t, db, func() {
		if err := os.WriteFile(junk, make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v, want the disk to be full", err)
		}
	}, func() {
		if err := os.Remove(junk); err != nil {
			t.Fatal(err)
		}
	}, ErrFull)
}

// TestFullDiskAtOpen opens a database where there is no room to create one.
func TestFullDiskAtOpen(t *testing.T) {
	dir := mount(t)
	if err := os.WriteFile(filepath.Join(dir, "junk"), make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want the disk to be full", err)
	}
	path := filepath.Join(dir, "vedetta.db")
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want ErrFull with the path", err)
	}
	if err := os.Remove(filepath.Join(dir, "junk")); err != nil {
		t.Fatal(err)
	}
	db := openAt(t, path) // what the first attempt left does not hinder
	if _, err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyDisk opens a database on a file system that may only be read.
func TestReadOnlyDisk(t *testing.T) {
	dir := mount(t)
	path := filepath.Join(dir, "vedetta.db")
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("needs the right to remount: %v", err)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want ErrReadOnly with the path", err)
	}
}
