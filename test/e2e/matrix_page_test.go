//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the measured table of docs/enforcement.md anew")

const (
	enforcementPage = "../../docs/enforcement.md"
	matrixBegins    = "<!-- The table is written by: go test ./test/e2e -run TestMatrix -update -->\n"
	matrixEnds      = "<!-- end of the table -->\n"
	matrixHead      = `| where | action | takes effect | Vedetta killed | Vedetta stopped | server restarted | Vedetta upgraded | ordered twice | undone | sent = delivered + refused |
|---|---|---|---|---|---|---|---|---|---|
`
)

// A gap is a cell that cannot be.
type gap struct{ where, action, why string }

var gaps = []gap{
	{"Postfix: table alone", "throttle", "a table cannot count"},
	{"Postfix: submit users", "hold", "it only refuses; the table of local mail holds"},
	{"Postfix: submit users", "throttle", "a table cannot count"},
	{"Postfix: milter and table, local programs", "reset", "a script has no password"},
	{"Postfix: submit users", "reset", "a system user's password is not the mail server's"},
	{"Postfix: table of trusted clients", "reset", "a client has no password"},
	{"Exim: files alone", "throttle", "a file cannot count"},
	{"Exim: socket and file, local programs", "reset", "as above"},
	{"Exim: files, local programs", "throttle", "a file cannot count"},
	{"Exim: files, local programs", "reset", "as above"},
	{"Dovecot: deny file", "hold", "who is held may read his mail"},
	{"Dovecot: deny file", "throttle", "a file cannot count"},
	{"cPanel (fake)", "throttle", "has no such limit for a mailbox"},
	{"cPanel (fake)", "reset", "by WHM only, over HTTPS; see TestCPanelPassword in enforce"},
	{"Plesk (fake)", "hold", "does not hold mail"},
	{"Plesk (fake)", "throttle", "its limit is for an hour, and would refuse"},
}

// table is what the page is to say of the cells.
func (m *matrix) table() string {
	var b strings.Builder
	b.WriteString(matrixHead)
	for i, c := range m.cells {
		if c.service == nil {
			continue
		}
		r := &c.row
		counts := "none is sent"
		if c.look == nil {
			counts = fmt.Sprintf("%d = %d + %d", r.sent, r.delivered, r.refused)
		}
		fmt.Fprintf(&b, "| %s | %s: %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", c.where, c.action, c.stopped,
			inSeconds(r.effect), r.killed, r.stopped, r.restarted, r.upgraded, r.twice, inSeconds(r.undone), counts)
		if i+1 == len(m.cells) || m.cells[i+1].where != c.where {
			for _, g := range gaps {
				if g.where == c.where {
					fmt.Fprintf(&b, "| %s | %s | – %s |\n", g.where, g.action, g.why)
				}
			}
		}
	}
	return b.String()
}

func inSeconds(d time.Duration) string {
	return strconv.FormatFloat(max(d, 10*time.Millisecond).Seconds(), 'f', 2, 64) + " s"
}

// page writes the table, or compares it with what is there: every cell is one
// that was tested, and says what was seen.
func (m *matrix) page() {
	m.t.Helper()
	text, err := os.ReadFile(enforcementPage)
	if err != nil {
		m.t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), matrixBegins)
	old, after, ended := strings.Cut(rest, matrixEnds)
	if !ok || !ended {
		m.t.Fatalf("%s has no place for the table: %q and %q", enforcementPage, matrixBegins, matrixEnds)
	}
	table := m.table()
	if *update && !m.t.Failed() {
		if err := os.WriteFile(enforcementPage, []byte(before+matrixBegins+table+matrixEnds+after), 0o644); err != nil {
			m.t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(unmeasured(m.t, old, 0), unmeasured(m.t, table, busy())); diff != "" {
		m.t.Errorf("%s says something else than was seen (-page +seen); -update writes it:\n%s", enforcementPage, diff)
	}
}

// busy is how much later than its limit something may take effect while other
// tests have the same processors. What is written to the page has none of it.
func busy() time.Duration {
	if *update {
		return 0
	}
	return 4 * time.Second
}

// unmeasured is a table with its figures checked and taken out, as they differ
// from run to run: no time is above its limit, and no message is lost.
func unmeasured(t testing.TB, table string, slack time.Duration) (rows []string) {
	t.Helper()
	for line := range strings.Lines(table) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		for i, f := range fields {
			var sent, delivered, refused int
			f = strings.TrimSpace(f)
			if n, err := fmt.Sscanf(f, "%d = %d + %d", &sent, &delivered, &refused); err == nil && n == 3 {
				if sent != delivered+refused {
					t.Errorf("a message is lost: %s", line)
				}
				fields[i] = "counted"
			}
			if s, ok := strings.CutSuffix(f, " s"); ok {
				seconds, err := strconv.ParseFloat(s, 64)
				if err != nil || seconds > slack.Seconds()+1 {
					t.Errorf("too long: %s", line)
				}
				fields[i] = "measured"
			}
		}
		rows = append(rows, strings.Join(fields, "|"))
	}
	return rows
}
