//go:build linux

// Package e2e tests the whole program: the vedetta binary as a process of its
// own, beside a real Postfix where mail is sent, and with what goes wrong
// around it made to go wrong.
//
// Nothing here sleeps for a fixed time to let something happen; everything is
// waited for with a deadline.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the vedetta under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "vedetta")
	build := exec.Command("go", "build", "-o", binary, "github.com/vedetta-watch/vedetta/cmd/vedetta")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building vedetta: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
