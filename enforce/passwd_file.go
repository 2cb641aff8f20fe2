package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	maxPasswdFile = 256 << 20
	maxHash       = 1024
	swapAttempts  = 5 // at a file that somebody else keeps writing
)

// PasswdFile changes passwords in a passwd-file of Dovecot's
// (doc.dovecot.org, "Passwd-file"): in the one line of the account, the field
// behind the first colon, and not a byte besides.
//
// The file is written anew beside the old one, with its owner, mode and
// extended attributes (so an ACL too), and renamed into place. While that is
// done the old one is locked with flock(2), for others who lock it as well.
// An edit of somebody who does not is noticed, and the password put into what
// he wrote; only a rename within the same microseconds can be lost.
//
// Dovecot looks at the whole second of the file's time and at its size; two
// changes in one second get different times, even if the second is ahead of
// the clock. It looks once a second, so a change ends with the second in which it
// was made.
type PasswdFile struct {
	Path    string   // {domain} in it stands for the account's domain
	Key     string   // what the line begins with: {account}, also if empty, or {user}
	Scheme  Scheme   // of new passwords
	Bare    bool     // leave out the {SCHEME} in front of the hash
	Domains []string // whose accounts are here; none means any account that the file has
}

// Name names the file in outcomes.
func (f PasswdFile) Name() string { return "passwd-file " + f.Path }

// Check reports what is wrong with the settings.
func (f PasswdFile) Check() error {
	err := f.Scheme.Check()
	switch {
	case f.Path == "":
		err = errors.Join(err, errors.New("want the path of the passwd-file"))
	case f.Key != "" && f.Key != "{account}" && f.Key != "{user}":
		err = errors.Join(err, fmt.Errorf("key %q: want {account} or {user}", f.Key))
	case f.Key == "{user}" && !strings.Contains(f.Path, "{domain}") && len(f.Domains) != 1:
		err = errors.Join(err, errors.New("key {user}: want {domain} in the path, or one domain, as the same user of another domain is somebody else"))
	}
	return err
}

// Covers reports whether the file has a line of the account. A file that
// cannot be read might.
func (f PasswdFile) Covers(account string) bool {
	if f.Check() != nil || !inDomains(account, f.Domains) {
		return false
	}
	path, key, err := f.line(account)
	if err != nil {
		return false
	}
	text, err := readBounded(path)
	if err != nil {
		return len(f.Domains) > 0 || !errors.Is(err, fs.ErrNotExist)
	}
	_, _, err = hashField(text, key)
	return !errors.Is(err, errNoLine)
}

// Plan says which field of which file is replaced.
func (f PasswdFile) Plan(account string) []string {
	path, key, err := f.line(account)
	if err != nil {
		return []string{fmt.Sprintf("%s: refused: %v", f.Name(), err)}
	}
	return []string{fmt.Sprintf("replace the %s hash in the line of %s in %s", orName(string(f.Scheme), string(SHA512Crypt)), printable(key), printable(path))}
}

// Change writes the hash of the password.
func (f PasswdFile) Change(ctx context.Context, account, password string) error {
	hash, err := hashFor(f.Scheme, f.Bare, password)
	if err != nil {
		return unchanged(f, account, err)
	}
	return f.Restore(ctx, account, hash)
}

// Old is the hash that is there now, as it stands in the file.
func (f PasswdFile) Old(_ context.Context, account string) (Password, error) {
	path, key, err := f.line(account)
	if err != nil {
		return Password{}, unchanged(f, account, err)
	}
	text, err := readBounded(path)
	if err != nil {
		return Password{}, unchanged(f, account, err)
	}
	from, to, err := hashField(text, key)
	if err != nil {
		return Password{}, unchanged(f, account, err)
	}
	return PasswordOf(string(text[from:to])), nil
}

// Restore writes a hash that Old returned.
func (f PasswdFile) Restore(ctx context.Context, account, hash string) error {
	err := f.write(ctx, account, hash)
	if err == nil {
		nextSecond(ctx)
	}
	return err
}

func (f PasswdFile) write(ctx context.Context, account, hash string) error {
	path, key, err := f.line(account)
	if err == nil {
		err = errors.Join(f.Check(), checkHash(hash))
	}
	if err == nil {
		path, err = filepath.EvalSymlinks(path) // the link stays
	}
	if err != nil {
		return unchanged(f, account, err)
	}
	for range swapAttempts {
		if err = swapHash(ctx, path, key, hash); !errors.Is(err, errAgain) {
			break
		}
	}
	switch {
	case errors.Is(err, errAgain):
		return unchanged(f, account, fmt.Errorf("%s %w while it was being changed", path, ErrForeignEdit))
	case err != nil:
		return fmt.Errorf("enforce: %s: password of %s: %w", f.Name(), printable(account), err)
	}
	return nil
}

// nextSecond waits until Dovecot cannot but see what was just written. It looks at
// a passwd-file once in each second of the clock at most (passwd_file_sync in
// src/auth/db-passwd-file.c); until then it lets in who has the old password, also
// right after his sessions were ended.
func nextSecond(ctx context.Context) {
	const margin = 20 * time.Millisecond // for the clock of Dovecot's loop, which is a little behind
	now := time.Now()
	next := time.NewTimer(now.Truncate(time.Second).Add(time.Second + margin).Sub(now))
	defer next.Stop()
	select {
	case <-next.C:
	case <-ctx.Done(): // the password is changed all the same
	}
}

// line is the file and the first field of the account's line.
func (f PasswdFile) line(account string) (path, key string, err error) {
	if err := checkAccount(account); err != nil {
		return "", "", err
	}
	user, domain := splitAccount(account)
	path, key = f.Path, account
	if strings.Contains(path, "{domain}") {
		if !isFileName(domain) {
			return "", "", fmt.Errorf("its domain %.80q cannot be part of a path", domain)
		}
		path = strings.ReplaceAll(path, "{domain}", domain)
	}
	if f.Key == "{user}" {
		key = user
	}
	if key == "" || key[0] == '#' || strings.Contains(key, ":") {
		return "", "", fmt.Errorf("%.80q cannot begin a line of a passwd-file", key)
	}
	return path, key, nil
}

// isFileName reports whether a domain is one name in a directory, not hidden.
func isFileName(domain string) bool {
	for _, r := range domain {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_' {
			return false
		}
	}
	return domain != "" && len(domain) < 254 && domain[0] != '.' && domain[0] != '-'
}

// checkHash refuses what would not be one field of a line. Dovecot reads what
// follows a bracket as the number of a scheme.
func checkHash(hash string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == ':' || r == '[' }
	if hash == "" || len(hash) > maxHash || strings.IndexFunc(hash, odd) >= 0 {
		return errors.New("the hash is empty, too long, or has characters that a passwd-file cannot hold")
	}
	return nil
}

// hashFor is the hash of a password, with or without {SCHEME}.
func hashFor(s Scheme, bare bool, password string) (string, error) {
	hash, err := s.Hash(password)
	if bare {
		hash = bareHash(hash)
	}
	return hash, err
}

var (
	errNoLine = errors.New("has no line of the account")
	errAgain  = errors.New("was written by somebody else meanwhile")
)

// hashField finds the hash in the line that begins with key and a colon.
func hashField(text []byte, key string) (from, to int, err error) {
	found := 0
	for at := 0; at < len(text); {
		end := at + len(line0(text[at:]))
		if rest, ok := bytes.CutPrefix(text[at:end], []byte(key+":")); ok {
			found++
			from = end - len(rest)
			to = from + fieldLength(rest)
		}
		at = end + 1
	}
	switch found {
	case 0:
		return 0, 0, errNoLine
	case 1:
		return from, to, nil
	}
	return 0, 0, fmt.Errorf("has %d lines of the account: Dovecot reads the first, remove the others", found)
}

// line0 is the first line of text, without its newline.
func line0(text []byte) []byte {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	return first
}

// fieldLength is the length of the first field of a line, which may end with
// a carriage return.
func fieldLength(line []byte) int {
	if i := bytes.IndexByte(line, ':'); i >= 0 {
		return i
	}
	return len(bytes.TrimSuffix(line, []byte("\r")))
}

// replaceHash is text with another hash in the line of key.
func replaceHash(text []byte, key, hash string) ([]byte, error) {
	from, to, err := hashField(text, key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(text[:from], []byte(hash), text[to:]), nil
}

// swapHash replaces the file once. errAgain means that somebody else wrote it
// meanwhile, and nothing was done.
func swapHash(ctx context.Context, path, key, hash string) error {
	old, err := openLocked(ctx, path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	defer unlockFile(old)
	before, text, err := readOpen(old)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	changed, err := replaceHash(text, key, hash)
	if err != nil {
		return fmt.Errorf("%w: %s %w", ErrUnchanged, path, err)
	}
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".vedetta-new")
	renamed := false
	defer func() {
		if !renamed { // afterwards it may be somebody else's
			_ = os.Remove(fresh)
		}
	}()
	if err := writeLike(fresh, changed, old, before); err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	next, err := openLocked(ctx, fresh) // as it is the file to be locked from now on
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	defer unlockFile(next)
	if !stillIs(path, before, text) {
		return errAgain
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("%w: %w", ErrUnchanged, err)
	}
	renamed = true
	if err := errors.Join(syncFile(filepath.Dir(path)), keepLate(path, old, text)); err != nil {
		return err
	}
	if _, kept, err := readOpen(next); err != nil || !bytes.Equal(kept, changed) || !isFileAt(next, path) {
		return errors.Join(fmt.Errorf("%s: %w", path, ErrNotKept), err)
	}
	return nil
}

// openLocked opens the file at path and waits for its lock.
func openLocked(ctx context.Context, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	for {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && isFileAt(f, path) {
			return f, nil
		}
		unlockFile(f)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is locked by somebody else: %w", path, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// unlockFile does not leave it to closing: a program that is being started at
// this moment may still have the descriptor.
func unlockFile(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}

// isFileAt reports whether f has not been replaced at path.
func isFileAt(f *os.File, path string) bool {
	open, err1 := f.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(open, there)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, text, err := readOpen(f)
	return text, err
}

// readOpen reads an open file from its beginning, and what it was before.
func readOpen(f *os.File) (fs.FileInfo, []byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	switch stat, ok := info.Sys().(*syscall.Stat_t); {
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is not a file", f.Name())
	case info.Size() > maxPasswdFile:
		return nil, nil, fmt.Errorf("%s is larger than %d bytes", f.Name(), maxPasswdFile)
	case ok && stat.Nlink > 1:
		return nil, nil, fmt.Errorf("%s has another name, by a hard link, which would keep the old password", f.Name())
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxPasswdFile))
	return info, text, err
}

// stillIs reports whether the file at path is the one that was read, and
// holds what it held.
func stillIs(path string, before fs.FileInfo, text []byte) bool {
	now, err := os.Stat(path)
	if err != nil || !os.SameFile(before, now) || !now.ModTime().Equal(before.ModTime()) || now.Size() != before.Size() {
		return false
	}
	same, err := os.ReadFile(path)
	return err == nil && bytes.Equal(same, text)
}

// writeLike writes a new file that may be read by whom the old one may.
func writeLike(path string, text []byte, old *os.File, before fs.FileInfo) error {
	if err := writeFile(path, text, 0o600); err != nil {
		return err
	}
	if stat, ok := before.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(path, int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	// Chown takes some bits of the mode away, and Chmod those of an ACL.
	if err := os.Chmod(path, before.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	if err := copyAttributes(old.Name(), path); err != nil {
		return err
	}
	if now := time.Now(); now.Unix() <= before.ModTime().Unix() {
		at := time.Unix(before.ModTime().Unix()+1, 0)
		return os.Chtimes(path, at, at)
	}
	return nil
}

// keepLate looks whether somebody wrote into the old file between our last
// look and its replacement, and keeps that beside the new one.
func keepLate(path string, old *os.File, text []byte) error {
	late, err := io.ReadAll(io.NewSectionReader(old, 0, maxPasswdFile))
	if err != nil || bytes.Equal(late, text) {
		return err
	}
	aside := path + ".foreign-" + time.Now().UTC().Format("20060102T150405Z")
	if err := writeFile(aside, late, 0o600); err != nil {
		return err
	}
	return fmt.Errorf("%s %w while the password was changed; what he wrote is in %s", path, ErrForeignEdit, aside)
}
