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
	if err := build(binary, ourCommand); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

const ourCommand = "github.com/vedetta-watch/vedetta/cmd/vedetta"

// build compiles a package to a program, as it is shipped. The flags are go build's.
func build(program, pkg string, flags ...string) error {
	args := append([]string{"build", "-o", program}, flags...)
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}
