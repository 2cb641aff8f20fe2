package dnsclient

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSystemResolvers(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string // nil: an error
	}{
		{"two", "# by dhcp\nsearch example.com\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n", []string{"192.0.2.1:53", "[2001:db8::1]:53"}},
		{"none", "search example.com\n", nil},
		{"empty", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := SystemResolvers(path)
			if !slices.Equal(got, tt.want) || (err != nil) != (tt.want == nil) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if got, err := SystemResolvers("/nonexistent"); err == nil {
		t.Errorf("no file: got %q", got)
	}
}
