package bed

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestTextForOperators compares what the servers run here with what operators
// are told to write.
func TestTextForOperators(t *testing.T) {
	const directory = "/var/lib/vedetta/"
	e := &Exim{options: EximOptions{BlockFile: directory + "exim/blocked", HoldFile: directory + "exim/held"}}
	for _, block := range []struct{ page, language, text string }{
		{"tables.md", "exim", e.listed("authenticated = *", eximLoginKey)},
		{"tables.md", "dovecot", strings.ReplaceAll(dovecotDeny, "FILE", directory+"dovecot/deny")},
		{"exim.md", "exim", eximAsk},
	} {
		page, err := os.ReadFile("../../docs/" + block.page)
		if err != nil {
			t.Fatal(err)
		}
		if want := "```" + block.language + "\n" + block.text + "```"; !strings.Contains(string(page), want) {
			t.Errorf("docs/%s does not have\n%s", block.page, want)
		}
	}
	for _, text := range []string{localNames, localLogged, strings.NewReplacer("DIR", "/etc/postfix", "TABLE", directory+"postfix/local_access").Replace(localChecks) + "\n"} {
		page, err := os.ReadFile("../../docs/milter.md")
		if err != nil || !strings.Contains(string(page), "\n"+text+"```") {
			t.Errorf("docs/milter.md, %v, does not have\n%s", err, text)
		}
	}
	_, options, _ := strings.Cut(localPickup, "vedetta unix n - n - 0 cleanup\n")
	if page, err := os.ReadFile("../../docs/milter.md"); err != nil || !strings.Contains(string(page), " cleanup\n"+options+"```") {
		t.Errorf("docs/milter.md, %v, does not have\n%s", err, options)
	}
	b := &Bed{options: Options{
		Policy: "127.0.0.1:9998", PolicyTimeout: time.Second, SASLAway: directory + "postfix/sasl_away", Clients: directory + "postfix/client_access",
	}}
	page, err := os.ReadFile("../../docs/postfix.md")
	if err != nil || !strings.Contains(string(page), "\n"+b.clients()+"\n") {
		t.Errorf("docs/postfix.md, %v, does not have\n%s", err, b.clients())
	}
	if want := "\nvedetta_gate = " + b.policy() + "\n" + b.away() + "\n"; err != nil || !strings.Contains(string(page), want) {
		t.Errorf("docs/postfix.md, %v, does not have%s", err, want)
	}
}
