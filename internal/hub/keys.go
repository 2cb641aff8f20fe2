package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// Keys are what a fleet hashes recipients with. While the key is replaced there
// are two, and a recipient has a hash under each.
type Keys struct {
	Key  [16]byte `json:"key"`
	Next [16]byte `json:"next,omitzero"` // that will be the key; zero: none
}

// hidden is what secrets print as.
const hidden = "<secret>"

// String implements fmt.Stringer and tells nothing.
func (Keys) String() string { return hidden }

// GoString implements fmt.GoStringer, for %#v, and tells nothing.
func (Keys) GoString() string { return hidden }

// LogValue implements slog.LogValuer and tells nothing.
func (Keys) LogValue() slog.Value { return slog.StringValue(hidden) }

// Fingerprint names the keys and does not tell them, so that an agent can say which it has.
func (k Keys) Fingerprint() string {
	sum := sha256.Sum256(append(k.Key[:], k.Next[:]...))
	return hex.EncodeToString(sum[:8])
}

// The files in an agent's directory with the keys that the fleet hashes
// recipients with. The second is there while the key is replaced.
const (
	recipientKeyFile = "recipient.key"
	nextKeyFile      = "recipient.key.next"
)

func readKeys(dir string) (k Keys, err error) {
	if err := readKey(filepath.Join(dir, recipientKeyFile), &k.Key); err != nil {
		return k, err
	}
	err = readKey(filepath.Join(dir, nextKeyFile), &k.Next)
	if errors.Is(err, fs.ErrNotExist) || k.Next == k.Key { // a crash came between the two files
		return Keys{Key: k.Key}, nil
	}
	return k, err
}

func readKey(path string, key *[16]byte) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("recipient key: %w", err)
	}
	if len(text) != len(key) {
		return fmt.Errorf("recipient key: %s has %d bytes, not %d: enrol again", path, len(text), len(key))
	}
	*key = [16]byte(text)
	return nil
}

// SaveKeys leaves the keys in the agent's directory, for its next start.
func (c *Client) SaveKeys(k Keys) error { return saveKeys(c.Dir, k) }

func saveKeys(dir string, k Keys) error {
	if err := writeAtomic(filepath.Join(dir, recipientKeyFile), k.Key[:]); err != nil {
		return fmt.Errorf("recipient key: %w", err)
	}
	next := filepath.Join(dir, nextKeyFile)
	if k.Next != ([16]byte{}) {
		return writeAtomic(next, k.Next[:])
	}
	if err := os.Remove(next); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
