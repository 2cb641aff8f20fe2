package enforce

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAddressHook(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	script := filepath.Join(dir, "hook")
	write := func(text string) {
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(`for a; do echo "[$a]"; done >>` + out + "\n")
	h := AddressHook{Command: []string{script, "{state}", "{address}", "{lists}", "{exposure}", "x{address}y"}}
	if err := h.Check(); err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context(), AddressChange{Address: "203.0.113.9", Listed: true, Lists: []string{"spamcop", "psbl"}, Exposure: 0.8075}); err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context(), AddressChange{Address: "2001:db8::9", Lists: []string{"$(reboot);"}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if want := "[listed]\n[203.0.113.9]\n[spamcop,psbl]\n[0.81]\n[x203.0.113.9y]\n[clear]\n[2001:db8::9]\n[$(reboot);]\n[0.00]\n[x2001:db8::9y]\n"; string(got) != want || err != nil {
		t.Errorf("the program was given %q, %v; want %q", got, err, want)
	}

	write("echo no such pool >&2; exit 3\n")
	if err := h.Run(t.Context(), AddressChange{Address: "203.0.113.9", Listed: true}); err == nil || !strings.Contains(err.Error(), "203.0.113.9 listed: ") || !strings.Contains(err.Error(), "no such pool") {
		t.Errorf("a program that fails: %v", err)
	}
	write("sleep 60\n")
	h.Timeout = 100 * time.Millisecond
	begun := time.Now()
	if err := h.Run(t.Context(), AddressChange{Address: "203.0.113.9"}); err == nil || !strings.Contains(err.Error(), "no end within 100ms") || time.Since(begun) > 10*time.Second {
		t.Errorf("a program that hangs: %v after %s", err, time.Since(begun))
	}
	for _, bad := range [][]string{nil, {"{address}", "{state}"}, {"/bin/true"}, {"/bin/true", "{address}"}, {"/bin/true", "{state}"}} {
		if err := (AddressHook{Command: bad}).Check(); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
