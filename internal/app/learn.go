package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/mailq"
)

// A learning is the state directory of a new installation, which is to know
// what old logs tell before `vedetta serve` starts for the first time.
type learning struct {
	dir    string
	db     *store.DB
	unlock func()
}

var errLearnt = errors.New("--learn is for a new installation, before the first vedetta serve")

// openLearning locks the state and makes sure that nothing is known yet, and that
// serve will not read the same lines again: it reads its own logs from their
// beginning.
func openLearning(ctx context.Context, c config.Config, paths []string) (*learning, error) {
	for _, own := range c.Logs {
		if slices.ContainsFunc(paths, func(p string) bool { return sameFile(p, own.Path) }) {
			return nil, fmt.Errorf("%s is read by vedetta serve itself, from its beginning: name only older logs", own.Path)
		}
	}
	if err := ownState(c.State); err != nil {
		return nil, err
	}
	unlock, err := lock(c.State)
	if err != nil {
		return nil, err
	}
	l := &learning{dir: c.State, unlock: unlock}
	if l.db, err = store.Open(ctx, c.Database()); err == nil {
		err = l.nothingKnown(ctx)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *learning) nothingKnown(ctx context.Context) error {
	known := 0
	err := l.db.LoadAccounts(ctx, func(a store.AccountState) error {
		if a.Account != "" && a.Account[0] != ':' { // the installation's own
			known++
		}
		return nil
	})
	if err == nil && known > 0 {
		err = fmt.Errorf("%w: %s knows %d accounts already", errLearnt, l.dir, known)
	}
	return err
}

func sameFile(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	if err1 == nil && err2 == nil {
		return os.SameFile(x, y)
	}
	return filepath.Clean(a) == filepath.Clean(b)
}

// save writes down all that the logs taught: in one transaction, so that what
// is interrupted has taught nothing.
func (l *learning) save(ctx context.Context, j *judge) (accounts int, err error) {
	var b store.Batch
	j.parser.Changed(func(key uint64, state []byte) {
		b.Messages = append(b.Messages, store.MessageState{Key: key, State: bytes.Clone(state)})
	})
	j.detector.Changed(func(account mailq.Account, state []byte) {
		b.Accounts = append(b.Accounts, store.AccountState{Account: string(account), State: bytes.Clone(state)})
	})
	_, err = l.db.Commit(ctx, b)
	return j.detector.Stats().Accounts, err
}

func (l *learning) close() {
	if l.db != nil {
		l.db.Close()
	}
	l.unlock()
}
