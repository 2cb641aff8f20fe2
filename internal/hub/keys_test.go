package hub

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// An agent is told the keys at first and when they change, and the hub what it
// hashes with.
func TestKeysReachAgents(t *testing.T) {
	w := newWorld(t)
	var keys atomic.Pointer[Keys]
	keys.Store(&Keys{Key: [16]byte{1}})
	w.server.Keys = func() Keys { return *keys.Load() }
	c := w.agent("mx1", "shop.test")
	if _, got, err := c.Open(); err != nil || got != *keys.Load() {
		t.Fatalf("after the enrolment: %v, %v", got, err)
	}
	told := make(chan Keys, 10)
	go c.Orders(t.Context(), func(change Change) error {
		if change.Keys != nil {
			told <- *change.Keys
		}
		return nil
	})
	if got := <-told; got != *keys.Load() {
		t.Errorf("at first: %v", got)
	}
	both := Keys{Key: [16]byte{1}, Next: [16]byte{2}}
	keys.Store(&both)
	select {
	case got := <-told:
		if got != both {
			t.Errorf("then: %v", got)
		}
	case <-time.After(2 * beat):
		t.Fatal("the change of the keys does not come")
	}
	if p := presence(w, "mx1"); p.Keys != "" {
		t.Errorf("an agent that does not say is taken to hash with %q", p.Keys)
	}
	if _, got, err := w.agent("mx2", "shop.test").Open(); err != nil || got != both {
		t.Errorf("after an enrolment in a rotation: %v, %v", got == both, err)
	}
	c.Keys = func() Keys { return both }
	if _, _, err := c.Send(t.Context(), Mark{}, nil); err != nil {
		t.Fatal(err)
	}
	if p := presence(w, "mx1"); p.Keys != both.Print() || p.Keys == keysPrint(1) {
		t.Errorf("it hashes with %q, want %q", p.Keys, both.Print())
	}
}

func keysPrint(key byte) string { return Keys{Key: [16]byte{key}}.Print() }

// A crash between the two files leaves one key or both, and never a wrong one.
func TestKeysAreKept(t *testing.T) {
	dir := t.TempDir()
	both, after := Keys{Key: [16]byte{1}, Next: [16]byte{2}}, Keys{Key: [16]byte{2}}
	for _, k := range []Keys{{Key: [16]byte{1}}, both, after, after} {
		if err := saveKeys(dir, k); err != nil {
			t.Fatal(err)
		}
		if got, err := readKeys(dir); err != nil || got != k {
			t.Errorf("got %v, %v, want %v", got, err, k)
		}
	}
	if err := saveKeys(dir, both); err != nil {
		t.Fatal(err)
	}
	if err := writeAtomic(filepath.Join(dir, recipientKeyFile), after.Key[:]); err != nil { // and killed
		t.Fatal(err)
	}
	if got, err := readKeys(dir); err != nil || got != after {
		t.Errorf("after a crash: %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, recipientKeyFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(dir); err == nil {
		t.Error("a damaged key is taken")
	}
}

func presence(w *world, agent string) Presence {
	for _, p := range w.server.Presences() {
		if p.Agent == agent {
			return p
		}
	}
	return Presence{}
}
