package bed

import (
	"os"
	"strings"
	"testing"
)

// TestTextForOperators compares what the servers run here with what operators
// are told to write.
func TestTextForOperators(t *testing.T) {
	page, err := os.ReadFile("../../docs/tables.md")
	if err != nil {
		t.Fatal(err)
	}
	const directory = "/var/lib/vedetta/"
	e := &Exim{options: EximOptions{BlockFile: directory + "exim/blocked", HoldFile: directory + "exim/held"}}
	for language, text := range map[string]string{
		"exim":    e.listed("authenticated = *", eximLoginKey),
		"dovecot": strings.ReplaceAll(dovecotDeny, "FILE", directory+"dovecot/deny"),
	} {
		if want := "```" + language + "\n" + text + "```"; !strings.Contains(string(page), want) {
			t.Errorf("docs/tables.md does not have\n%s", want)
		}
	}
}
