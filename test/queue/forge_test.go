package queue

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// records writes records of a Postfix queue file: a type and its text.
func records(all ...string) string {
	var s strings.Builder
	for _, r := range all {
		s.WriteByte(r[0])
		n := len(r) - 1
		for ; n > 0x7f; n >>= 7 {
			s.WriteByte(byte(n) | 0x80)
		}
		s.WriteByte(byte(n))
		s.WriteString(r[1:])
	}
	return s.String()
}

// postdrop hands Postfix records as a program of a local user can, past the
// sendmail command.
func postdrop(t *testing.T, b *bed.Bed, text string) {
	t.Helper()
	cmd := b.Command("postdrop", "-r")
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(userID(t, "nobody")), Gid: uint32(groupID(t, "postdrop"))}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("postdrop: %v\n%q", err, out)
	}
}

func groupID(t *testing.T, name string) (id int) {
	t.Helper()
	out, err := exec.Command("getent", "group", name).Output()
	if err == nil {
		_, err = fmt.Sscan(strings.Split(string(out), ":")[2], &id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Whatever strangers and local users write, nobody else is charged with it.
func TestForgedLogins(t *testing.T) {
	b, spool := start(t, bed.Options{Main: []string{"relay_domains = soft.test"}})
	postdrop(t, b, records("Asasl_method=PLAIN", "Asasl_username="+alice, "Fsasl_username="+alice, "Sshop@shop.test",
		"Asasl_username="+alice, "Alog_client_name=localhost", "Alog_client_address=127.0.0.1", "Rr@soft.test",
		"M", "NSubject: x", "N", "Nhello", "X", "E"))
	stranger(t, b, "sasl_username="+alice)
	settled(b, 2)
	q := look(t, spool)
	uid := fmt.Sprintf("uid:%d", userID(t, "nobody"))
	if diff := cmp.Diff(byName(q.ByAccount), shares(map[string]int{uid: 1})); diff != "" || q.Unowned.Count != 1 {
		t.Errorf("%d are nobody's, want 1; accounts (-got +want):\n%s", q.Unowned.Count, diff)
	}
}

// stranger sends a message without a login in which everything says text.
func stranger(t *testing.T, b *bed.Bed, text string) {
	t.Helper()
	c, err := net.Dial("tcp", b.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for _, line := range []string{
		"", "HELO " + text, `MAIL FROM:<"` + text + `"@far.test>`, "RCPT TO:<r@soft.test>", "DATA",
		"Received: by mx1.hosting.test (Postfix, from userid 1000)\r\n" + text + "\r\nSubject: " + text + "\r\n\r\n" + text + "\r\n.", "QUIT",
	} {
		if line != "" {
			if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
				t.Fatal(err)
			}
		}
		if answer, err := r.ReadString('\n'); err != nil || answer[0] > '3' {
			t.Fatalf("%q: %q, %v", line, answer, err)
		}
	}
}
