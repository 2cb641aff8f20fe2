//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// What a trusted client has in the queue goes on hold when it is stopped, what
// another one has does not, and its release sends it on its way again.
func TestQueuedMailOfAStoppedClient(t *testing.T) {
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	t.Parallel()
	const hacked, other = "192.0.2.7", "192.0.2.8"
	table := filepath.Join(openDir(t), "client_access")
	b := bed.Start(t, bed.Options{Clients: table})
	s := newService(t, setup{Logs: []string{b.MailLog}, Postfix: fmt.Sprintf("client_access: %s\ntable_type: hash\nconfig_dir: %s\n", table, b.Config)})
	s.configure(fmt.Sprintf("accounts:\n  trusted: [192.0.2.0/24]\nqueue:\n  postfix: %s\n", filepath.Join(b.Dir, "spool")))
	s.start()
	for i := range 4 {
		if err := b.SendAs([]string{hacked, hacked, hacked, other}[i], fmt.Sprintf("www%d@shop.test", i), fmt.Sprintf("r%d@%s", i, bed.Soft)); err != nil {
			t.Fatal(err)
		}
	}
	inQueue := func(what string, want ...string) {
		t.Helper()
		wait(t, what, func() bool {
			all, err := b.Postqueue()
			if err != nil || len(all) != len(want) {
				return false
			}
			for _, m := range all {
				if m.Queue != want[m.Sender[len("www")]-'0'] {
					return false
				}
			}
			return true
		})
	}
	inQueue("all to be put off", "deferred", "deferred", "deferred", "deferred")
	wait(t, "the client to be counted", func() bool {
		out, _, code := s.command("queue")
		return code == 0 && strings.Contains(out, "client:"+hacked)
	})
	for _, step := range []struct {
		do    string
		queue string
	}{{"block", "hold"}, {"release", "deferred"}} {
		if out, errs, code := s.command(step.do, "client:"+hacked); code != 0 {
			t.Fatalf("%s: exit %d, %s%s", step.do, code, out, errs)
		}
		inQueue("the client's mail after "+step.do, step.queue, step.queue, step.queue, "deferred")
	}
}
