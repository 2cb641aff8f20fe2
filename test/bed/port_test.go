package bed

import (
	"fmt"
	"net"
	"os/exec"
	"sync"
	"testing"
)

// A process that begins has the open sockets of this one until it runs its own
// program: a port that was tried meanwhile must not stay taken by it.
func TestFreePortIsFree(t *testing.T) {
	over := make(chan struct{})
	var starters sync.WaitGroup
	defer starters.Wait()
	defer close(over)
	for range 2 {
		starters.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					_ = exec.Command("true").Run()
				}
			}
		})
	}
	for range 2000 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}
