//go:build linux

package e2e

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Whoever stops the service stops it, also while it is still starting.
func TestStopAtAnyMoment(t *testing.T) {
	s := newService(t, setup{Logs: []string{filepath.Join(t.TempDir(), "mail.log")}})
	for n := range 10 {
		s.launch()
		after := time.Duration(n*n) * time.Millisecond
		time.Sleep(after) // the moment is the test
		s.signal(syscall.SIGTERM)
		select {
		case <-s.gone:
		case <-time.After(patience):
			t.Fatal("vedetta does not stop")
		}
		state := s.cmd.ProcessState
		early := state.Sys().(syscall.WaitStatus).Signaled() // before it listened for signals
		if state.ExitCode() != 0 && !early {
			t.Errorf("stopped after %s: %s\n%s", after, state, s.output())
		}
	}
}
