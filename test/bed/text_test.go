package bed

import (
	"os"
	"strings"
	"testing"
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
}
