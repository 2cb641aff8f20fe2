package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

func TestParseHijack(t *testing.T) {
	for _, tt := range []struct {
		arg  string
		want loggen.Hijack
		ok   bool
	}{
		{"3,1h", loggen.Hijack{Account: 3, After: time.Hour}, true},
		{"3,1h,2s,80,4", loggen.Hijack{Account: 3, After: time.Hour, Every: 2 * time.Second, Messages: 80, Rcpts: 4}, true},
		{"3", loggen.Hijack{}, false},
		{"3,1h,2s,80,4,5", loggen.Hijack{}, false},
		{"x,1h", loggen.Hijack{}, false},
		{"3,soon", loggen.Hijack{}, false},
		{"3,1h,2", loggen.Hijack{}, false},
		{"3,1h,2s,many", loggen.Hijack{}, false},
	} {
		got, err := parseHijack(tt.arg)
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.arg, err)
		}
		if diff := cmp.Diff(got, tt.want); tt.ok && diff != "" {
			t.Errorf("%q: %s", tt.arg, diff)
		}
	}
}

func TestWritesWhereTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var out, mistakes bytes.Buffer
	args := []string{"-lines", "300", "-hijack", "3,1m"}
	if err := run(append(args, "-out", path), &out, &mistakes); err != nil {
		t.Fatal(err)
	}
	if err := run(args, &out, &mistakes); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(file), out.String()); diff != "" {
		t.Error(diff)
	}
	if err := run([]string{"-lines", "0"}, &out, &mistakes); err == nil {
		t.Error("no error about 0 lines")
	}
}
