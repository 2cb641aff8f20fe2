package gate

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenRefusesBadAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		"":                    "want inet:HOST:PORT or unix:/PATH",
		"127.0.0.1:9998":      "want inet:HOST:PORT or unix:/PATH",
		"inet:127.0.0.1":      "missing port",
		"unix:relative":       "must be absolute",
		"unix:":               "must be absolute",
		"unix:/nowhere/at/al": "no such file",
	} {
		l, err := Listen(addr, 0o666)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen(%q): got %v, want an error with %q", addr, err, want)
		}
	}
}

func TestListenRemovesOnlyDeadSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close() // as a killed process leaves it

	l, err := Listen("unix:"+path, 0o660)
	if err != nil {
		t.Fatalf("over a dead socket: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != fs.FileMode(0o660) {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	if second, err := Listen("unix:"+path, 0o660); err == nil {
		second.Close()
		t.Error("took a socket that another process serves")
	}
	l.Close()

	if err := os.WriteFile(path, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen("unix:"+path, 0o660); err == nil {
		l.Close()
		t.Error("replaced a file that is no socket")
	}
	if text, _ := os.ReadFile(path); string(text) != "a file" {
		t.Errorf("the file now holds %q", text)
	}
}

func TestAskNamesWhatItDoesNotUnderstand(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := "inet:" + l.Addr().String()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 1000))
		conn.Write([]byte("220 mail.test ESMTP\n\n"))
	}()
	if _, err := Ask(t.Context(), addr, "protocol_state=RCPT"); err == nil || !strings.Contains(err.Error(), "220 mail.test") {
		t.Errorf("a server of another protocol: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Ask(ctx, addr, "protocol_state=RCPT"); err == nil {
		t.Error("an answer after the end")
	}
	l.Close()
	if _, err := Ask(t.Context(), addr, "protocol_state=RCPT"); err == nil {
		t.Error("an answer without a service")
	}
}
