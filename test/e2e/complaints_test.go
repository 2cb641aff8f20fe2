//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// The mailbox to which feedback loops write.
const loopMailbox = "fbl@shop.test"

// TestComplaints has a real Postfix pipe complaints into vedetta complaint. Two
// receivers' complaints about messages that it delivered for an account have that
// slowed down; forgeries and bounces count for nobody, and are no bounces; while
// Vedetta is away they wait in the queue.
func TestComplaints(t *testing.T) {
	if reason := bed.Available(); reason != "" {
		t.Skip(reason)
	}
	dir := openDir(t) // where Postfix's pipe, as another user, finds program and configuration
	program := filepath.Join(dir, "vedetta")
	must(t, exec.Command("cp", binary, program).Run())
	config := filepath.Join(dir, "vedetta.yaml")
	transport := filepath.Join(dir, "transport")
	must(t, os.WriteFile(transport, []byte(loopMailbox+" vedetta-complaint:\n"), 0o644))
	b := bed.Start(t, bed.Options{
		Main:   []string{"transport_maps = texthash:" + transport + ", texthash:$config_directory/transport", "minimal_backoff_time = 1s"},
		Master: []string{"vedetta-complaint unix - n n - 1 pipe", "  flags=Rq user=mail argv=" + program + " complaint -c " + config},
	})
	s := newService(t, setup{Logs: []string{b.MailLog}, DNSBL: "risk: {act_at: 0.2, complaints: true}\n"})
	text, err := os.ReadFile(s.config)
	must(t, err)
	must(t, os.WriteFile(config, text, 0o644)) // it has the token, as any that is piped into must
	s.start()

	for i := range 6 {
		must(t, b.Send(mallory, "pw-mallory", mallory, fmt.Sprintf("r%d@%s", i, bed.OK)))
	}
	for i := range 3 {
		must(t, b.Send(mallory, "pw-mallory", mallory, fmt.Sprintf("r%d@%s", i, bed.Also)))
	}
	must(t, b.Send(bob, "pw-bob", bob, "r@"+bed.OK))
	wait(t, "the mail to be delivered and read", func() bool {
		rows, err := s.Accounts(t.Context(), 10)
		return err == nil && len(rows) == 2 && len(b.Received(bed.OK)) == 7 && len(b.Received(bed.Also)) == 3
	})
	hand := func(message string) {
		t.Helper()
		must(t, b.Deliver(message, "fbl@"+bed.OK, loopMailbox))
	}
	of := func(domain string, from string) (all []string) {
		for _, m := range b.Received(domain) {
			if m.From == from {
				all = append(all, strings.ReplaceAll(string(m.Data), "\r\n", "\n"))
			}
		}
		return all
	}
	fromOK, also, honest := of(bed.OK, mallory), of(bed.Also, mallory), of(bed.OK, bob)
	for _, m := range fromOK[:3] {
		hand(abuse(m))
	}
	hand(abuse(fromOK[0]))
	hand(abuse("Received: from x by mx1.hosting.test (Postfix) with ESMTPSA id 4ZZZk45QRtz1cZ;\n\tFri, 20 Mar 2026 10:00:00 +0000 (UTC)\n" +
		"From: <" + bob + ">\n\nforged\n"))
	hand("Subject: out of office\n\nI am away.\n")
	hand(abuse(honest[0]))
	wait(t, "seven to be handed in", func() bool {
		return s.metric(`vedetta_complaints_total{result="counted"}`) == "4" && s.metric(`vedetta_complaints_total{result="repeated"}`) == "1" &&
			s.metric(`vedetta_complaints_total{result="unknown"}`) == "1" && s.metric(`vedetta_complaints_total{result="unreadable"}`) == "1"
	})
	if got := s.action(mallory) + s.action(bob); got != "" {
		t.Errorf("one receiver complains, and what is in force is %q", got)
	}

	s.stop()
	hand(abuse(also[0]))
	wait(t, "a complaint to wait", func() bool {
		out, err := b.Command("postqueue", "-j").Output()
		return err == nil && strings.Contains(string(out), loopMailbox) && strings.Contains(string(out), "cannot ask vedetta serve")
	})
	if n := len(b.Received(bed.OK)) + len(b.Received(bed.Also)); n != 10 {
		t.Errorf("%d messages left: something was sent back", n)
	}
	s.start()
	if out, err := b.Command("postqueue", "-f").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, m := range append(fromOK[3:], also[1:]...) {
		hand(abuse(m))
	}
	wait(t, "the account to be slowed down", func() bool { return s.action(mallory) == "throttle" })
	wait(t, "all to be handed in", func() bool { return s.metric(`vedetta_complaints_total{result="counted"}`) == "6" })
	if got := s.action(bob); got != "" {
		t.Errorf("what is in force on the other account is %q", got)
	}
	if out := s.must("why", mallory); !strings.Contains(out, "9 delivered messages were complained about, by 2 receivers") {
		t.Errorf("why does not say so:\n%s", out)
	}
}

// abuse is an abuse report about a message.
func abuse(original string) string {
	return "From: <fbl@" + bed.OK + ">\nSubject: complaint\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n" +
		"--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: test/1\nVersion: 1\n\n" +
		"--b\nContent-Type: message/rfc822\n\nReceived: from mx1.hosting.test by mx." + bed.OK + " with ESMTP id ABCDEF0123;\n\tFri, 20 Mar 2026 10:00:00 +0000\n" +
		original + "\n--b--\n"
}

// metric is the value of a metric, empty if it has none.
func (s *service) metric(name string) string {
	resp, err := http.Get(s.Base + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
