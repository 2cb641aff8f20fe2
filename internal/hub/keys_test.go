package hub

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
		t.Fatalf("after the enrolment: %s, %v", got.Fingerprint(), err)
	}
	told := make(chan Keys, 10)
	go c.Orders(t.Context(), func(change Change) error {
		if change.Keys != nil {
			told <- *change.Keys
		}
		return nil
	})
	if got := <-told; got != *keys.Load() {
		t.Errorf("at first: %s", got.Fingerprint())
	}
	both := Keys{Key: [16]byte{1}, Next: [16]byte{2}}
	keys.Store(&both)
	select {
	case got := <-told:
		if got != both {
			t.Errorf("then: %s", got.Fingerprint())
		}
	case <-time.After(2 * beat):
		t.Fatal("the change of the keys does not come")
	}
	if p := presence(w, "mx1"); p.Keys != "" {
		t.Errorf("an agent that does not say is taken to hash with %q", p.Keys)
	}
	if _, got, err := w.agent("mx2", "shop.test").Open(); err != nil || got != both {
		t.Errorf("after an enrolment in a rotation: with both: %v, %v", got == both, err)
	}
	c.Keys = func() Keys { return both }
	if _, _, err := c.Send(t.Context(), Mark{}, nil); err != nil {
		t.Fatal(err)
	}
	if p := presence(w, "mx1"); p.Keys != both.Fingerprint() || p.Keys == fingerprintOf(1) {
		t.Errorf("it hashes with %q, want %q", p.Keys, both.Fingerprint())
	}
}

func fingerprintOf(key byte) string { return Keys{Key: [16]byte{key}}.Fingerprint() }

// Keys do not get into logs.
func TestKeysPrintNothing(t *testing.T) {
	keys := Keys{Key: [16]byte{201, 202}, Next: [16]byte{203, 204}}
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("keys", "alone", keys, "at", &keys, "in", Change{Keys: &keys})
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		fmt.Fprintf(&out, format+" "+format+" "+format+"\n", keys, &keys, struct{ Keys Keys }{keys})
	}
	for _, secret := range []string{"201", "0xc9", "203", "0xcb"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is told in\n%s", secret, &out)
		}
	}
}

// A crash between the two files leaves one key or both, and never a wrong one.
func TestKeysAreKept(t *testing.T) {
	dir := t.TempDir()
	both, after := Keys{Key: [16]byte{1}, Next: [16]byte{2}}, Keys{Key: [16]byte{2}}
	for _, k := range []Keys{{Key: [16]byte{1}}, both, after, after} {
		if err := saveKeys(dir, k); err != nil {
			t.Fatal(err)
		}
		if got, err := readKeys(dir); err != nil || got != k {
			t.Errorf("got %s, %v, want %s", got.Fingerprint(), err, k.Fingerprint())
		}
	}
	if err := saveKeys(dir, both); err != nil {
		t.Fatal(err)
	}
	if err := writeAtomic(filepath.Join(dir, recipientKeyFile), after.Key[:]); err != nil { // and killed
		t.Fatal(err)
	}
	if got, err := readKeys(dir); err != nil || got != after {
		t.Errorf("after a crash: %s, %v", got.Fingerprint(), err)
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
